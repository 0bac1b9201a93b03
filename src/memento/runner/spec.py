"""What an experiment is: a declaration that can be written down as JSON.

A declaration page is a module with a function ``experiments()`` that yields `Experiment` objects.
The body of an experiment is a function that is named, never pickled: it is imported where it runs.
It receives a `Run` (where to write, what it needs) and the parameters as keywords.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from memento import arguments
from memento.arguments import check_fields, number, whole
from memento.errors import SettingError
from memento.files import storage_errors

__all__ = ["Experiment", "Resources", "Run", "canonical", "checked", "located", "seed_from"]

# Names become folders and job names, so they stay clear of separators, spaces and shells.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,@-]{0,149}")
_NEED = re.compile(r"[A-Za-z0-9*?\[][A-Za-z0-9._+=,@*?!\[\]-]*")
_BODY = re.compile(r"(?P<module>[^:]*|.*\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]*)")
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


_POSITIVE = number(above=0, words="a finite number above 0")


@dataclass(frozen=True)
class Resources:
    """What one experiment takes of a machine.

    Args:
        threads: Of numerical libraries, at least 1.
        memory_GB: Most memory, in 10^9 bytes.
        hours: Most time. Only Slurm enforces it.

    Raises:
        SettingError: A value is out of its range.

    Example:
        >>> Resources(threads=2, memory_GB=8).hours
        1.0
    """

    threads: Annotated[int, whole(1, words="a whole number from 1")] = 1
    memory_GB: Annotated[float, _POSITIVE] = 2.0  # noqa: N815 (the unit)
    hours: Annotated[float, _POSITIVE] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("memory_GB", "hours"):
            object.__setattr__(self, name, float(getattr(self, name)))

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"threads": self.threads, "memory_GB": self.memory_GB, "hours": self.hours}


@dataclass(frozen=True)
class Experiment:
    """One experiment, declared.

    Args:
        group: The first word of the folder and of the command line.
        name: Unique in its group. Letters, digits and ``._+=,@-``, at most 150.
        body: ``"package.module:function"``, or ``"file.py:function"``; ``":function"`` is a
            function of the file that declares the experiment. It is called as
            ``function(run, **parameters)`` with a `Run`.
        parameters: Keywords of the body: JSON values (``None``, booleans, numbers without NaN,
            strings, lists, mappings with strings as keys). They are copied and cannot be changed.
        resources: What it takes of a machine. No part of the digest.
        needs: Experiments whose results it reads: ``"name"`` of the same group, ``"group/name"``,
            or patterns such as ``"puffer-preprocess/sim-*"``.
        files: Files or folders that have to exist, with ``{parameter}`` for a parameter's value.
            Relative paths count from the folder where the runner is started, and what is not
            there from ``data`` in the folder that ``MEMENTO_DATA`` names, see `located`.
        version: Raise it when the body changes so that earlier results no longer count.
        description: One line for people.
        optional: Whether a run of the whole group may leave it out where its files do not exist.
        on_demand: Whether a run of the whole group leaves it out: a pattern has to ask for it, or
            another experiment need it.

    Raises:
        SettingError: A name, the body, a parameter or a file has another form.

    Example:
        >>> experiment = Experiment("mine", "b256", "memento.runner.spec:seed_from", {"batch": 256})
        >>> experiment.key, experiment.parameters["batch"]
        ('mine/b256', 256)
        >>> experiment.digest() == experiment.with_parameters({"batch": 128}).digest()
        False
    """

    group: str
    name: str
    body: str
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    resources: Resources = Resources()
    needs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    version: int = 1
    description: str = ""
    optional: bool = False
    on_demand: bool = False

    def __post_init__(self) -> None:
        for what in ("group", "name"):
            text = getattr(self, what)
            if not isinstance(text, str) or not _NAME.fullmatch(text):
                raise SettingError(
                    f"{what} is {text!r}; expected 1 to 150 letters, digits or ._+=,@- that begin "
                    "with a letter or digit"
                )
        where = f"experiment {self.group}/{self.name}"
        self._check_body(where)
        if not isinstance(self.parameters, Mapping):
            raise SettingError(f"{where}: parameters is {self.parameters!r}; expected a mapping")
        for name in self.parameters:
            if not isinstance(name, str) or not name.isidentifier() or name == "run":
                raise SettingError(
                    f"{where}: the parameter {name!r} cannot be a keyword of the body; choose "
                    "another name (run is taken)"
                )
        object.__setattr__(self, "parameters", _frozen(self.parameters, f"{where}: parameters"))
        for what in ("needs", "files"):
            texts = getattr(self, what)
            if not isinstance(texts, (list, tuple)) or not all(
                isinstance(text, str) for text in texts
            ):
                raise SettingError(f"{where}: {what} is {texts!r}; expected a list of strings")
            object.__setattr__(self, what, tuple(texts))
        for need in self.needs:
            parts = need.split("/")
            if len(parts) > 2 or not all(_NEED.fullmatch(part) for part in parts):
                raise SettingError(
                    f"{where}: needs {need!r}; expected a name of the same group, group/name or a "
                    "pattern of these; files go to `files`"
                )
        if not isinstance(self.resources, Resources):
            raise SettingError(f"{where}: resources is {self.resources!r}; expected Resources(...)")
        if isinstance(self.version, bool) or not isinstance(self.version, int):
            raise SettingError(f"{where}: version is {self.version!r}; expected a whole number")
        self.paths()  # placeholders that do not exist show now, not after hours of other work

    def _check_body(self, where: str) -> None:
        found = _BODY.fullmatch(self.body) if isinstance(self.body, str) else None
        module = found["module"] if found else "?"
        if module and not module.endswith(".py") and not _MODULE.fullmatch(module):
            raise SettingError(
                f'{where}: body is {self.body!r}; expected "package.module:function" or '
                '"file.py:function" (the function is imported by name where it runs)'
            )

    @property
    def key(self) -> str:
        """``"group/name"``."""
        return f"{self.group}/{self.name}"

    @arguments.checked
    def with_parameters(self, changes: Mapping[str, Any]) -> Experiment:
        """The same with other values; names that do not exist yet are added."""
        return replace(self, parameters={**self.parameters, **changes})

    def paths(self) -> tuple[Path, ...]:
        """The files needed, with parameters filled in.

        Raises:
            SettingError: A placeholder names no parameter.
        """
        found = []
        for text in self.files:
            try:
                found.append(located(text.format_map(self.parameters)))
            except (KeyError, IndexError, ValueError, AttributeError) as error:
                raise SettingError(
                    f"experiment {self.key}: files has {text!r}, and {error} is no parameter; "
                    f"there are {', '.join(self.parameters) or 'none'}"
                ) from error
        return tuple(found)

    def absent(self) -> str:
        """Which of the files does not exist, and what to set; empty if all are there."""
        for text, path in zip(self.files, self.paths(), strict=True):
            if not path.exists():
                names = re.findall(r"\{([A-Za-z_][A-Za-z0-9_]*)", text)
                remedy = "put it there"
                if names:
                    remedy += f', or name it: [parameters."{self.key}"] {names[0]} = "PATH"'
                return f"needs {path}, which does not exist; {remedy}"
        return ""

    def document(self) -> dict[str, Any]:
        """The declaration as JSON; `from_document` reads it."""
        return {
            "group": self.group,
            "name": self.name,
            "body": self.body,
            "parameters": _thawed(self.parameters),
            "resources": self.resources.document(),
            "needs": list(self.needs),
            "files": list(self.files),
            "version": self.version,
            "description": self.description,
            "optional": self.optional,
            "on_demand": self.on_demand,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Experiment:
        """The declaration that `document` wrote down.

        Raises:
            SettingError: It is none.
        """
        try:
            return cls(**{**document, "resources": Resources(**document["resources"])})
        except (TypeError, KeyError) as error:
            raise SettingError(f"{arguments.shown(document)} declares no experiment") from error

    @arguments.checked
    def digest(self, needs: Mapping[str, str] | None = None) -> str:
        """What a result belongs to: SHA-256 of all that decides it, in hexadecimal.

        Resources and the description do not count, and of a body's file only the name, so a project
        can move.

        Args:
            needs: Digests of the experiments it needs, by key; results of other inputs are others.
        """
        module, _, function = self.body.rpartition(":")
        content = {
            "group": self.group,
            "name": self.name,
            "body": f"{Path(module).name if module.endswith('.py') else module}:{function}",
            "parameters": _thawed(self.parameters),
            "files": list(self.files),
            "needs": dict(needs or {}),
            "version": self.version,
        }
        return hashlib.sha256(canonical(content).encode()).hexdigest()


@arguments.checked
class Run:
    """What a body is given beside its parameters.

    Attributes:
        folder: Empty folder for the results. They count only when the body has returned.
        checkpoint: Folder that stays between attempts of the same declaration, for bodies that go
            on where a killed one stopped. Removed when the experiment is done.
        needs: Folder of results of each experiment needed, by ``"group/name"``.
        threads: How many threads to use.

    Example:
        >>> import tempfile
        >>> run = Run(Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp()))
        >>> run.write("scores.csv", {"day": [1, 2], "score": [0.5, 0.25]})
        >>> print((run.folder / "scores.csv").read_text())
        day,score
        1,0.5
        2,0.25
    """

    def __init__(
        self,
        folder: Path,
        checkpoint: Path,
        needs: Mapping[str, Path] | None = None,
        threads: int = 1,
        on_report: Callable[[float, float, str], object] | None = None,
    ) -> None:
        self.folder = folder
        self.checkpoint = checkpoint
        self.needs = MappingProxyType(dict(needs or {}))
        self.threads = threads
        self._on_report = on_report
        self._reported = -math.inf

    def report(self, done: float, total: float, note: str = "") -> None:
        """Say how far the body is; shown beside its name. Cheap, so call it in a loop.

        Args:
            done: Of ``total``, in any unit.
            total: More than 0.
            note: A few words, such as the day being worked on.
        """
        now = time.monotonic()
        if self._on_report is not None and (now - self._reported > 0.5 or done >= total):
            self._reported = now
            self._on_report(float(done), float(total), note)

    def write(self, name: str, columns: Mapping[str, Any]) -> None:
        """Write a tidy table into the folder of results.

        Args:
            name: ``NAME.parquet`` or ``NAME.csv``.
            columns: Sequences or arrays of equal length, by name.

        Raises:
            SchemaError: The columns differ in length, or are not one-dimensional.
            SettingError: The name has another ending or lies elsewhere.
            MissingExtraError: Parquet is wanted and pyarrow is not installed.
        """
        from memento.runner import results

        results.write_table(self.folder, name, columns)


@arguments.checked
def located(path: str) -> Path:
    """Where a file of data is: as named, or else in ``data`` of the folder in ``MEMENTO_DATA``.

    Returns:
        The path as named if neither exists.

    Raises:
        SettingError: It is no text.
        StorageError: The folder cannot be looked at.
    """
    folder = os.environ.get("MEMENTO_DATA", "")
    named = Path(path)
    other = Path(folder) / "data" / named
    with storage_errors("look for", named):
        return other if folder and not named.exists() and other.exists() else named


@arguments.checked
def seed_from(*words: str | int) -> int:
    """A seed for an experiment from what names it, from 0 to 2^63 - 1.

    Example:
        >>> seed_from("puffer-replay", "memento", 0) == seed_from("puffer-replay", "memento", 0)
        True
        >>> seed_from("a", 0) == seed_from("a", 1)
        False
    """
    return int.from_bytes(hashlib.sha256(canonical(list(words)).encode()).digest()[:8], "big") >> 1


Body = TypeVar("Body", bound=Callable[..., object])


def checked(check: Callable[..., Iterable[str] | None]) -> Callable[[Body], Body]:
    """Give a body a check of its parameters, so that a wrong value shows before anything is run.

    Args:
        check: Called with all keywords of the body, defaults included, when the user's settings
            change one of them; in a moment, without reading any file. Raises `SettingError`, and
            returns the names of those that change nothing beside the others, if any.

    Example:
        >>> def positive(*, rows: int) -> None:
        ...     if rows < 1:
        ...         raise SettingError(f"rows is {rows}; expected 1 or more")
        >>> @checked(positive)
        ... def body(run: Run, *, rows: int) -> None: ...
        >>> body.check is positive
        True
    """

    def mark(body: Body) -> Body:
        body.check = check  # type: ignore[attr-defined]
        return body

    return mark


@arguments.checked
def canonical(value: Any) -> str:
    """A JSON value as one text, whatever the order of its keys.

    Raises:
        SettingError: It is none, or holds a number that is not finite.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingError(f"{arguments.shown(value)} is no JSON value: {error}") from error


def _frozen(value: Any, where: str) -> Any:
    """A deep copy that cannot be changed; raises where a value is no JSON."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SettingError(f"{where} holds {value}; JSON has finite numbers only")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise SettingError(f"{where} has the key {key!r}; expected a string")
        return MappingProxyType({k: _frozen(v, f"{where}.{k}") for k, v in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return tuple(_frozen(item, f"{where}[{i}]") for i, item in enumerate(value))
    raise SettingError(
        f"{where} is of type {type(value).__name__}; expected JSON: None, true or false, numbers, "
        "strings, lists and mappings (dates as text)"
    )


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in value.items()}
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value
