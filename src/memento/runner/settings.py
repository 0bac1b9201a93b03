"""What a user wants otherwise than declared: a TOML file as frozen objects.

.. code-block:: toml

    results = "results"                    # folder of all results
    experiments = ["mine.py"]              # further declaration pages, relative to this file
    jobs = 2                               # experiments at a time, as -j
    threads = 1                            # for each, as -w

    [parameters."puffer-replay/*"]         # GROUP/NAME, with patterns; later tables win
    capacity = 100_000

    [resources."puffer-replay/2022-*"]
    threads = 2
    memory_GB = 8
    hours = 4

    [dask]
    scheduler = "tcp://10.0.0.1:8786"      # as --scheduler

    [slurm]
    partition = "compute"
    constraint = "avx512"
    prologue = ["module load python"]
"""

from __future__ import annotations

import collections.abc
import dataclasses
import fnmatch
import inspect
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memento.errors import MementoError, SettingError
from memento.files import storage_errors
from memento.runner.job import load_body
from memento.runner.spec import Experiment, Resources

__all__ = ["Overrides", "RunSettings", "SlurmSettings", "from_toml"]

SUBMISSIONS = ("dask-jobqueue", "sbatch")


@dataclass(frozen=True)
class SlurmSettings:
    """How jobs are handed to Slurm.

    Args:
        submit: ``"dask-jobqueue"``: Slurm jobs are Dask workers that take one experiment after the
            other; ``"sbatch"``: one Slurm job an experiment, with its own resources.
        jobs: Slurm jobs at a time; None: as many as experiments, at most 10 workers or 200 jobs.
        partition: Where to run; the cluster's default if empty, as all that follow.
        account: Who pays.
        qos: Quality of service.
        constraint: Features a node has to have.
        directives: Further options of ``sbatch``, such as ``"--exclude=node7"``.
        prologue: Lines of shell before the job, such as ``"module load python"``.
        python: Interpreter on the nodes; this one if empty.
        interface: Network interface of scheduler and workers, such as ``"ib0"``.
    """

    submit: str = "dask-jobqueue"
    jobs: int | None = None
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    python: str = ""
    interface: str = ""

    def __post_init__(self) -> None:
        if self.submit not in SUBMISSIONS:
            raise SettingError(f"submit is {self.submit!r}; expected one of {_list(SUBMISSIONS)}")
        if self.jobs is not None and self.jobs < 1:
            raise SettingError(f"jobs is {self.jobs}; expected 1 or more")
        for directive in self.directives:
            if not directive.startswith("-") or "\n" in directive:
                raise SettingError(
                    f"directives holds {directive!r}; expected options of sbatch such as "
                    '"--exclude=node7"'
                )
        for name in ("partition", "account", "qos", "constraint", "interface", "python"):
            if "\n" in getattr(self, name):
                raise SettingError(f"{name} has more than one line")


@dataclass(frozen=True)
class Overrides:
    """Values by patterns of ``group/name``, in the order of the file.

    Args:
        parameters: Of experiments.
        resources: Of experiments.
        source: The file, for messages.
    """

    parameters: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    resources: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    source: str = "settings"

    def apply(self, experiments: Mapping[str, Experiment]) -> dict[str, Experiment]:
        """The experiments with the user's values.

        A name is known if it is declared or a keyword of the body. What is not declared is of the
        type of the body's default, or as it is annotated.

        Args:
            experiments: By key, as declared; all of every group that matters, so that a name that
                none of them has can be told from one that only some have.

        Raises:
            SettingError: A pattern matches no experiment of these groups, a name belongs to none of
                those it matches, a value is of another type than the declared one, or the body's
                check (see `memento.runner.spec.checked`) refuses it.
        """
        found = dict(experiments)
        for table, entries in (("parameters", self.parameters), ("resources", self.resources)):
            for pattern, values in entries:
                where = f'{self.source}: {table}."{pattern}"'
                keys = _matching(pattern, experiments, where)
                if table == "parameters":
                    _check_names(values, [experiments[key] for key in keys], where)
                for key in keys:
                    if table == "parameters":
                        found[key] = _with_parameters(found[key], values, where)
                    else:
                        found[key] = _with_resources(found[key], values, where)
        for key, experiment in found.items():
            if experiment.parameters != experiments[key].parameters:
                _without_effect(experiment, f"{self.source}: parameters of {key}")
        return found

    def unreached(self, experiments: Mapping[str, Experiment], keys: Iterable[str]) -> list[str]:
        """What a pattern sets and some of the experiments that it matches do not take, in words.

        Args:
            experiments: By key, with the user's values, as `apply` returns them.
            keys: Of those that matter.
        """
        wanted, found = set(keys), []
        for pattern, values in self.parameters:
            where = f'{self.source}: parameters."{pattern}"'
            matching = [key for key in _matching(pattern, experiments, where) if key in wanted]
            idle = {
                key: {name for name in values if name not in _likes(experiments[key])}
                | _without_effect(experiments[key], key)
                for key in matching
            }
            for name in values:
                keys = [key for key in matching if name in idle[key]]
                if keys:
                    found.append(f"{where}.{name} changes nothing for {_list(keys, 4)}")
        return found

    def check_groups(self, groups: Iterable[str]) -> None:
        """Raise where a pattern names a group that does not exist.

        Raises:
            SettingError: It lists those that do.
        """
        known = list(groups)
        for table, entries in (("parameters", self.parameters), ("resources", self.resources)):
            for pattern, _ in entries:
                if not fnmatch.filter(known, pattern.partition("/")[0]):
                    raise SettingError(
                        f'{self.source}: {table}."{pattern}": there is no group '
                        f"{pattern.partition('/')[0]!r}; there are {_list(known)}"
                    )


@dataclass(frozen=True)
class RunSettings:
    """All that `memento run` takes from a file.

    Args:
        results: Folder of all results.
        experiments: Further declaration pages.
        jobs: Experiments at a time; None: not said.
        threads: For each; None: as declared.
        scheduler: Address of a Dask scheduler; empty: none.
        overrides: Of parameters and resources.
        slurm: How to use Slurm.
    """

    results: Path = Path("results")
    experiments: tuple[Path, ...] = ()
    jobs: int | None = None
    threads: int | None = None
    scheduler: str = ""
    overrides: Overrides = field(default_factory=Overrides)
    slurm: SlurmSettings = SlurmSettings()


_KEYS = ("results", "experiments", "jobs", "threads", "parameters", "resources", "dask", "slurm")


def from_toml(path: Path) -> RunSettings:
    """Settings from a file.

    Raises:
        SettingError: It is no TOML, or a name or a type is wrong; the message lists valid names.
        StorageError: It cannot be read.
    """
    with storage_errors("read", path):
        content = path.read_bytes()
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is no TOML: {error}") from error
    _check_keys(table, _KEYS, str(path))
    source = str(path)
    results = _value(table, "results", "results", source)
    pages = _value(table, "experiments", ("",), source)
    dask = _table(table, "dask", source)
    _check_keys(dask, ("scheduler",), f"{source}: dask")
    return RunSettings(
        results=path.parent / results,
        experiments=tuple(path.parent / page for page in pages if page),
        jobs=_count(table, "jobs", source, least=0),
        threads=_count(table, "threads", source, least=1),
        scheduler=_value(dask, "scheduler", "", f"{source}: dask"),
        overrides=Overrides(
            _entries(table, "parameters", source), _entries(table, "resources", source), source
        ),
        slurm=_slurm(_table(table, "slurm", source), f"{source}: slurm"),
    )


def _slurm(given: Mapping[str, Any], where: str) -> SlurmSettings:
    fields = {field.name: field.default for field in dataclasses.fields(SlurmSettings)}
    _check_keys(given, list(fields), where)
    values = {
        name: _value(given, name, ("",) if default == () else default, where)
        for name, default in fields.items()
        if name in given and name != "jobs"
    }
    values["jobs"] = _count(given, "jobs", where, least=1)
    try:
        return SlurmSettings(**values)
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from error


def _matching(pattern: str, experiments: Mapping[str, Experiment], where: str) -> list[str]:
    group, _, name = pattern.partition("/")
    here = [
        key
        for key, experiment in experiments.items()
        if fnmatch.fnmatchcase(experiment.group, group)
    ]
    keys = [key for key in here if fnmatch.fnmatchcase(key.partition("/")[2], name or "*")]
    if here and not keys:
        raise SettingError(
            f"{where} matches no experiment; there are {_list(here)}; a pattern is GROUP/NAME"
        )
    return keys


def _check_names(values: Mapping[str, Any], experiments: Sequence[Experiment], where: str) -> None:
    if not experiments:
        return
    known = sorted({name for experiment in experiments for name in _likes(experiment)})
    for name in values:
        if name not in known:
            raise SettingError(
                f"{where}: there is no parameter {name!r}; there are {_list(known, 30) or 'none'}"
            )


def _with_parameters(experiment: Experiment, values: Mapping[str, Any], where: str) -> Experiment:
    likes = _likes(experiment)
    changes = {}
    for name, value in values.items():
        if name not in likes:
            continue
        like = likes[name]
        if like.value is None and like.hint is not None:
            value = _hinted(value, like.hint, f"{where}.{name}")
        found = _typed(value, like.value, f"{where}.{name}")
        # What the body does anyway is not asked for: it would make another experiment of it.
        if like.declared or found != like.value:
            changes[name] = found
    return experiment.with_parameters(changes)


@dataclass(frozen=True)
class _Like:
    """What a value has to be like: the one declared, or the body's default and annotation."""

    value: Any
    hint: Any = None
    declared: bool = True


def _likes(experiment: Experiment) -> dict[str, _Like]:
    """All that can be set of an experiment, by name."""
    body = _body(experiment)
    found: dict[str, _Like] = {}
    if body is not None:
        try:
            hints = typing.get_type_hints(body)
        except Exception:  # a name that only type checkers know
            hints = {}
        for name, one in list(inspect.signature(body).parameters.items())[1:]:
            if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD):
                value = None if one.default is one.empty else one.default
                value = list(value) if isinstance(value, tuple) else value
                found[name] = _Like(value, hints.get(name), declared=False)
    for name, value in experiment.document()["parameters"].items():
        found[name] = _Like(value, found[name].hint if name in found else None)
    return found


def _body(experiment: Experiment) -> Any:
    """The body, or None: what is wrong with it, its log says when it is run."""
    try:
        return load_body(experiment.body)
    except (MementoError, ImportError):
        return None


def _without_effect(experiment: Experiment, where: str) -> set[str]:
    """Let the body's check look at parameters; which of them change nothing.

    Raises:
        SettingError: They do not fit.
    """
    body = _body(experiment)
    check = getattr(body, "check", None)
    if check is None:
        return set()
    try:
        bound = inspect.signature(body).bind(None, **experiment.document()["parameters"])
    except TypeError:
        return set()  # the log says so when it is run
    bound.apply_defaults()
    try:
        return set(check(**dict(list(bound.arguments.items())[1:])) or ())
    except MementoError as error:
        raise SettingError(f"{where}: {error}") from error


def _hinted(value: Any, hint: Any, where: str) -> Any:
    """A value as annotated; what annotations cannot say is allowed."""
    options = (
        typing.get_args(hint)
        if typing.get_origin(hint) in (typing.Union, types.UnionType)
        else (hint,)
    )
    kinds: set[type] = set()
    for option in options:
        kind = typing.get_origin(option) or option
        if kind is type(None):
            continue
        if kind in (collections.abc.Mapping, dict):
            kind = dict
        elif kind in (collections.abc.Sequence, list, tuple):
            kind = list
        if kind not in _KINDS:
            return value
        kinds.add(kind)
    if type(value) in kinds or not kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    expected = " or ".join(sorted(_KINDS[kind] for kind in kinds))
    raise SettingError(f"{where} is {value!r}; expected {expected}")


def _with_resources(experiment: Experiment, values: Mapping[str, Any], where: str) -> Experiment:
    _check_keys(values, [field.name for field in dataclasses.fields(Resources)], where)
    try:
        return replace(experiment, resources=replace(experiment.resources, **values))
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from error


def _typed(value: Any, like: Any, where: str) -> Any:
    """A value of the type of the declared one; None is declared where anything is allowed."""
    if like is None:
        return value
    if isinstance(like, dict) and isinstance(value, Mapping):
        unknown = [name for name in value if name not in like]
        if unknown and like:
            raise SettingError(
                f"{where}: there is no entry {unknown[0]!r}; there are {_list(list(like))}"
            )
        return {
            **like,
            **{
                name: _typed(item, like.get(name), f"{where}.{name}")
                for name, item in value.items()
            },
        }
    if isinstance(like, list) and isinstance(value, list):
        kinds = {type(item) for item in like}
        sample = like[0] if len(kinds) == 1 and not isinstance(like[0], dict | list) else None
        return [_typed(item, sample, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(like):
        raise SettingError(f"{where} is {value!r}; expected {_KINDS[type(like)]}, such as {like!r}")
    return value


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a table",
    tuple: "a list",
}


def _value(table: Mapping[str, Any], key: str, default: Any, where: str) -> Any:
    if key not in table:
        return () if default == ("",) else default
    like = list(default) if isinstance(default, tuple) else default
    found = _typed(table[key], like, f"{where}: {key}")
    return tuple(found) if isinstance(found, list) else found


def _count(table: Mapping[str, Any], key: str, where: str, *, least: int) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingError(f"{where}: {key} is {value!r}; expected a whole number from {least}")
    return value


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, Mapping):
        raise SettingError(f"{where}: {key} is {found!r}; expected a table [{key}]")
    return found


def _entries(
    table: Mapping[str, Any], key: str, source: str
) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    found = _table(table, key, source)
    for pattern, values in found.items():
        if not isinstance(values, Mapping):
            raise SettingError(
                f'{source}: {key}.{pattern} is {values!r}; expected a table [{key}."GROUP/NAME"]'
            )
    return tuple(found.items())


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise SettingError(f"{where}: unknown key {key!r}; known are {_list(known)}")


def _list(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
