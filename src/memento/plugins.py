"""What other distributions and users' modules add: commands, experiments, reports, kinds.

A distribution names what it adds in its metadata, as entry points of these groups:

    memento.commands     a Typer application, or a function that is one command; by its name
    memento.experiments  a module with a function ``experiments()``; by the group it declares
    memento.reports      a `memento.report.kinds.Reports`: kinds of folders, and sections about
                         experiments; by any name
    memento.policies     a class of policies; by its kind
    memento.distances    a class of distances; by its kind
    memento.triggers     a class of triggers; by its kind

Nothing is loaded before it is asked for. Modules that are not installed are imported when users
name them (`named`), never because a folder or a file says so.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import MutableMapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from memento.errors import MissingExtraError, SettingError

__all__ = [
    "COMMANDS",
    "DISTANCES",
    "EXPERIMENTS",
    "POLICIES",
    "REPORTS",
    "TRIGGERS",
    "admit",
    "installed",
    "kind_named",
    "load",
    "named",
    "own_kind",
]

# What the library itself adds: their modules need packages that nothing else does.
_OWN = {("memento.triggers", "river"): "memento.integrations.river:OnDetector"}

COMMANDS, EXPERIMENTS, REPORTS = "memento.commands", "memento.experiments", "memento.reports"
POLICIES, DISTANCES, TRIGGERS = "memento.policies", "memento.distances", "memento.triggers"


def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; of two with the same name, the one found first.

    Args:
        group: Name of a group, such as ``"memento.commands"``.

    Example:
        >>> installed("memento.nothing")
        {}
    """
    points = {
        name: EntryPoint(name, value, own) for (own, name), value in _OWN.items() if own == group
    }
    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        points.setdefault(point.name, point)
    return points


def load(point: EntryPoint) -> Any:
    """What an entry point names.

    Raises:
        SettingError: It cannot be imported; the message names the distribution.
        MissingExtraError: It is the library's own, and a package that it needs is not installed.
    """
    try:
        return point.load()
    except MissingExtraError:
        raise
    except Exception as error:
        owner = point.dist.name if point.dist is not None else "an installed distribution"
        raise SettingError(
            f"{owner}: {point.group} {point.name!r} is {point.value!r}, which cannot be loaded "
            f"({type(error).__name__}: {error}); reinstall {owner}, or uninstall it"
        ) from error


def admit(group: str, kind: str, known: MutableMapping[str, Any], base: type) -> list[str]:
    """Add the class that an installed distribution has for a kind to those that are known.

    Args:
        group: Of the entry points, such as ``"memento.policies"``.
        kind: Name of the entry point, and ``kind`` of the class.
        known: Classes by kind; changed if there is such an entry point and it was not known.
        base: What the class has to be derived from.

    Returns:
        All kinds that can be had, sorted.

    Raises:
        SettingError: The entry point cannot be loaded, or is no such class.
    """
    points = installed(group)
    if kind not in known and kind in points:
        point = points[kind]
        known[kind] = own_kind(load(point), base, f"{group} {kind!r} is {point.value!r}, which")
        if known[kind].kind != kind:
            other = known.pop(kind).kind
            raise SettingError(
                f"{group} {kind!r} is {point.value!r}, of the kind {other!r}; call the entry point "
                f"{other!r}"
            )
    return sorted({*known, *points})


def named(spec: str, asked: str, home: Path | None = None) -> Any:
    """What a user named as ``module``, ``module:NAME`` or ``module:NAME.NAME``: imports the module.

    Args:
        spec: Its module may lie in the working directory, or at home.
        asked: Who asks, such as ``"--policy mine:Mine"``, for messages.
        home: Another folder than the working directory.

    Raises:
        SettingError: There is no such module, it fails, or it lacks the name.

    Example:
        >>> named("collections:OrderedDict.fromkeys", "--import").__name__
        'fromkeys'
    """
    here = str(home or Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does; an installed command does not
    module, colon, names = spec.partition(":")
    try:
        if not module or (colon and not names):
            raise ImportError("expected module or module:NAME")
        made = importlib.import_module(module)
    except Exception as error:  # importing runs the user's module
        lines = str(error).strip().splitlines() or [""]
        raise SettingError(
            f"{asked}: importing {module!r} failed ({type(error).__name__}: {lines[-1]}); "
            + (f"correct it in {here}" if home else "run from the folder it lies in, or install it")
        ) from error
    for name in names.split(".") if colon else ():
        if not hasattr(made, name):
            there = sorted(n for n, thing in vars(made).items() if callable(thing) and n[0] != "_")
            raise SettingError(f"{asked}: {module!r} has no {names!r}; it has {', '.join(there)}")
        made = getattr(made, name)
    return made


def own_kind(made: Any, base: type, asked: str) -> Any:
    """A class with a kind, by which settings on disk can refer to it.

    Args:
        made: What ought to be one.
        base: What the class has to be derived from.
        asked: How it was named, for messages.

    Raises:
        SettingError: It is no such class, or has no ``kind`` of its own.
    """
    what = base.__name__
    if not (isinstance(made, type) and issubclass(made, base)):
        raise SettingError(f"{asked} is {made!r}; expected a subclass of memento.{what}")
    if not isinstance(vars(made).get("kind"), str):
        raise SettingError(
            f"{asked} has no kind of its own, by which a memory on disk could refer to it; write "
            f"kind = {made.__name__.lower()!r} in the class"
        )
    return made


def kind_named(kind: Any, base: type, asked: str, home: Path | None = None) -> Any:
    """The kind of what a user named as ``module:Class``, which is imported; others as they are.

    Args:
        kind: Such as ``"memento"`` or ``"mine:Mine"``.
        base: What the class has to be derived from.
        asked: Who asks, such as ``"--policy mine:Mine"``, for messages.
        home: Where the module may lie, instead of the working directory.

    Raises:
        SettingError: There is no such module or class, or it has no kind.

    Example:
        >>> from memento import Policy
        >>> kind_named("memento.policies:FIFO", Policy, "--policy")
        'fifo'
    """
    if not isinstance(kind, str) or ":" not in kind:
        return kind
    return own_kind(named(kind, asked, home), base, asked).kind
