"""Where experiments are declared, and which there are: looked up only when a group is asked for.

A declaration page is a module, or a file of the user, with a function ``experiments()`` that yields
`memento.runner.spec.Experiment` objects, of one or several groups.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from memento import plugins
from memento.errors import SettingError, StorageError
from memento.files import digest, storage_errors
from memento.runner.spec import Experiment

__all__ = ["Registry", "installed_pages", "load_file"]


def installed_pages() -> dict[str, str]:
    """Groups that installed distributions declare, each with the module of its page."""
    points = plugins.installed(plugins.EXPERIMENTS)
    return {name: point.value.partition(":")[0] for name, point in points.items()}


class Registry:
    """The experiments of all groups.

    Args:
        files: Declaration pages of the user, ``.py`` files; read at once.
        pages: Group -> module of its declaration page, imported when the group is asked for; those
            of installed distributions if left out.

    Raises:
        StorageError: A file cannot be read.
        SettingError: A file cannot be run, or declares no experiments.

    Example:
        >>> Registry(pages={"mine": "no.such.module"}).group("mine")
        {}
    """

    def __init__(self, files: Sequence[Path] = (), pages: Mapping[str, str] | None = None) -> None:
        self._pages = installed_pages() if pages is None else dict(pages)
        self._groups: dict[str, dict[str, Experiment]] = {}
        self._declared: dict[str, dict[str, Experiment]] = {}
        self._read: dict[str, list[Experiment]] = {}
        self.notes: list[str] = []
        for file in files:
            for experiment in _declared(load_file(file), str(file)):
                module, _, function = experiment.body.rpartition(":")
                if not module or module.endswith(".py"):
                    # Relative to the page, so that the working directory means nothing.
                    body = (file.parent / module if module else file).resolve()
                    experiment = dataclasses.replace(experiment, body=f"{body}:{function}")
                _add(self._declared.setdefault(experiment.group, {}), experiment, str(file))

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of all groups, those of the package first."""
        return tuple(dict.fromkeys([*self._pages, *self._declared]))

    def group(self, name: str) -> Mapping[str, Experiment]:
        """Experiments of a group by name, as declared. Empty where its page is not there.

        Why it is empty is added to `notes`.

        Raises:
            SettingError: There is no such group, or its page is wrong.
        """
        if name not in self.groups:
            raise SettingError(
                f"there is no group {name!r}; there are {', '.join(self.groups)}, and what a file "
                "given with --experiments declares"
            )
        if name not in self._groups:
            found: dict[str, Experiment] = {}
            for experiment in self._page(name):
                if experiment.group == name:
                    _add(found, experiment, self._pages[name])
            for experiment in self._declared.get(name, {}).values():
                same = found.get(experiment.name)  # a page may declare what is installed
                if same is None or same.document() != experiment.document():
                    _add(found, experiment, "a file of experiments")
            self._groups[name] = found
        return self._groups[name]

    def _page(self, group: str) -> Iterable[Experiment]:
        """The experiments that the page of a group declares."""
        page = self._pages.get(group)
        if page is None:
            return ()
        try:
            module = importlib.import_module(page)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{page}.".startswith(f"{error.name}."):
                raise SettingError(
                    f"group {group}: {page} needs the package {error.name!r}, which is not "
                    'installed; pip install "memento-replay[all]" brings all of them'
                ) from error
            self.notes.append(f"group {group} is empty: this installation has no {page}")
            return ()
        if page not in self._read:
            self._read[page] = [
                dataclasses.replace(experiment, body=f"{page}{experiment.body}")
                if experiment.body.startswith(":")
                else experiment
                for experiment in _declared(module, page)
            ]
        return self._read[page]

    def packages(self, group: str) -> tuple[str, ...]:
        """Distributions that a group's experiments import: `PACKAGES` of its page, by beginning."""
        if (page := self._pages.get(group)) is None:
            return ()
        self._page(group)
        declared = getattr(sys.modules.get(page), "PACKAGES", {})
        return next((p for start, p in declared.items() if group.startswith(start)), ())

    def select(self, group: str, patterns: Sequence[str] = ()) -> list[Experiment]:
        """Experiments of a group whose names match any of the patterns, as declared.

        Args:
            group: Its name.
            patterns: UNIX globs (``*``, ``?``, ``[...]``); if there is none, all experiments but
                those that run on demand only.

        Raises:
            SettingError: There is no such group, or a pattern matches nothing.
        """
        experiments = self.group(group)
        for pattern in patterns:
            if not fnmatch.filter(experiments, pattern):
                raise SettingError(
                    f"no experiment of group {group} matches {pattern!r}; "
                    f"{_nearest(pattern, list(experiments))}"
                )
        return [
            experiment
            for name, experiment in experiments.items()
            if (not patterns and not experiment.on_demand)
            or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def needs(self, experiment: Experiment) -> list[str]:
        """Keys of the experiments that one needs, patterns resolved.

        Raises:
            SettingError: A need matches nothing.
        """
        found: dict[str, None] = {}
        for need in experiment.needs:
            group, _, name = need.rpartition("/")
            group = group or experiment.group
            groups = [group] if group in self.groups else fnmatch.filter(self.groups, group)
            matching = [
                f"{known}/{other}"
                for known in groups
                for other in (
                    [name] if name in self.group(known) else fnmatch.filter(self.group(known), name)
                )
            ]
            if not matching:
                raise SettingError(
                    f"experiment {experiment.key} needs {need!r}, and there is no such experiment; "
                    f"groups are {', '.join(self.groups)}"
                )
            found.update(dict.fromkeys(matching))
        return list(found)


def load_file(file: Path) -> ModuleType:
    """Run a Python file of the user as a module, once a process.

    Its folder is added at the end of the import path, so that it finds modules beside it.

    Raises:
        StorageError: There is no such file.
        SettingError: It is no Python, or raises.
    """
    path = file.resolve()
    with storage_errors("read the experiments", file):
        if not path.is_file():
            raise StorageError(f"{file}: no such file of experiments; check the name")
        path.read_bytes()
    name = f"memento_experiments_{digest(str(path).encode())[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise SettingError(f"{file} is no Python file; its name has to end with .py")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = getattr(error, "lineno", None) or _line(error, path)
        raise SettingError(
            f"{file}, line {line}: {type(error).__name__}: {error}; a file of experiments has to "
            "be importable"
        ) from error
    return module


def _line(error: Exception, path: Path) -> int | str:
    line: int | str = "?"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _declared(module: ModuleType, page: str) -> Iterable[Experiment]:
    declare = getattr(module, "experiments", None)
    if not callable(declare):
        raise SettingError(
            f"{page} has no function experiments(); write one that yields Experiment objects"
        )
    found = list(declare())
    for experiment in found:
        if not isinstance(experiment, Experiment):
            raise SettingError(f"{page}: experiments() yields {experiment!r}, no Experiment")
    return found


def _nearest(pattern: str, names: list[str]) -> str:
    """For a message: names like a pattern, or some of those there are."""
    near = difflib.get_close_matches(pattern, names, 4, 0.6)
    if near:
        return f"there are, for instance, {', '.join(near)}"
    known = ", ".join(names[:8]) or "no experiments"
    return f"there are {known}" + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")


def _add(group: dict[str, Experiment], experiment: Experiment, page: str) -> None:
    if experiment.name in group:
        raise SettingError(
            f"{page} declares {experiment.key} twice; names are unique in their group"
        )
    group[experiment.name] = experiment
