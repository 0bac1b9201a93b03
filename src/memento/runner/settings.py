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

import dataclasses
import fnmatch
import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from memento import settings
from memento.arguments import Expected, check_fields, whole
from memento.errors import MementoError, SettingError
from memento.runner.job import load_body
from memento.runner.spec import Experiment, Resources

__all__ = ["Overrides", "RunSettings", "SlurmSettings", "from_toml"]

SUBMISSIONS = ("dask-jobqueue", "sbatch")
_SUBMISSION = Expected(f"one of {', '.join(SUBMISSIONS)}", lambda value: value in SUBMISSIONS)
_ANY_NUMBER = whole(0)
_SOME = whole(1, words="a whole number from 1")
_LINE = Expected(
    "text, at most one line", lambda value: isinstance(value, str) and "\n" not in value
)
_OPTIONS = Expected(
    'options of sbatch, such as "--exclude=node7"',
    lambda value: all(text.startswith("-") and "\n" not in text for text in value),
)


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

    submit: Annotated[str, _SUBMISSION] = "dask-jobqueue"
    jobs: Annotated[int, _SOME] | None = None
    partition: Annotated[str, _LINE] = ""
    account: Annotated[str, _LINE] = ""
    qos: Annotated[str, _LINE] = ""
    constraint: Annotated[str, _LINE] = ""
    directives: Annotated[tuple[str, ...], _OPTIONS] = ()
    prologue: tuple[str, ...] = ()
    python: Annotated[str, _LINE] = ""
    interface: Annotated[str, _LINE] = ""

    def __post_init__(self) -> None:
        check_fields(self)


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


@dataclass(frozen=True)
class _Dask:
    scheduler: str = ""


@dataclass(frozen=True)
class _File:
    """What the file holds, by its names."""

    results: str = "results"
    experiments: tuple[str, ...] = ()
    jobs: Annotated[int, _ANY_NUMBER] | None = None
    threads: Annotated[int, _SOME] | None = None
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dask: _Dask = _Dask()
    slurm: SlurmSettings = SlurmSettings()


def from_toml(path: Path) -> RunSettings:
    """Settings from a file.

    Raises:
        SettingError: It is no TOML, or a name or a type is wrong; the message lists valid names.
        StorageError: It cannot be read.
    """
    file = settings.build(_File, settings.read(path), str(path))
    return RunSettings(
        results=path.parent / file.results,
        experiments=tuple(path.parent / page for page in file.experiments),
        jobs=file.jobs,
        threads=file.threads,
        scheduler=file.dask.scheduler,
        overrides=Overrides(
            tuple(file.parameters.items()), tuple(file.resources.items()), str(path)
        ),
        slurm=file.slurm,
    )


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
    """An experiment with the parameters that settings give it."""
    likes = _likes(experiment)
    changes = {}
    for name, value in values.items():
        if name not in likes:
            continue
        like = likes[name]
        if like.value is None and like.hint is not None:
            found = settings.convert(value, like.hint, f"{where}.{name}")
        else:
            found = _like(value, like.value, f"{where}.{name}")
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


def _with_resources(experiment: Experiment, values: Mapping[str, Any], where: str) -> Experiment:
    settings.check_names(values, [field.name for field in dataclasses.fields(Resources)], where)
    try:
        return replace(experiment, resources=replace(experiment.resources, **values))
    except SettingError as error:
        raise SettingError(f"{where}: {error}") from error


def _like(value: Any, like: Any, where: str) -> Any:
    """A value of the type of the declared one; None is declared where anything is allowed."""
    if isinstance(like, dict) and isinstance(value, Mapping):
        unknown = [name for name in value if name not in like]
        if unknown and like:
            raise SettingError(
                f"{where}: there is no entry {unknown[0]!r}; there are {_list(list(like))}"
            )
        given = {
            name: _like(item, like.get(name), f"{where}.{name}") for name, item in value.items()
        }
        return {**like, **given}
    if like is None:
        return value
    kinds = {type(item) for item in like} if isinstance(like, list) else set()
    plain = len(kinds) == 1 and not kinds & {dict, list}
    hint = list[kinds.pop()] if plain else type(like)  # type: ignore[misc]
    return settings.convert(value, hint, where, f", such as {like!r}")


def _list(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
