"""What a deployment is told: the tables of ``deployment.toml``, checked before anything is done.

[data] folder, label, inputs, late; [model] factory, seed; [variants.NAME] capacity, policy,
trigger; [gate] tolerance, rollback_after; [publish] keep, git, git_folder, git_remote. Paths and
modules are found from the folder that holds the file.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from memento import settings
from memento.arguments import Expected, number, one_of, text, whole
from memento.density import SampleSpace
from memento.deployment.git import check_git_folder
from memento.errors import SettingError
from memento.files import local_path
from memento.memory import Memory
from memento.plugins import kind_named
from memento.policies import Policy, usual_distances, usual_policy
from memento.retrain import OnCoverage, Trigger
from memento.retrain import trigger as trigger_of

__all__ = ["DeploymentSettings", "Variant", "from_toml"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_INPUTS = Expected(
    'a list of names of columns or patterns, such as ["f*"]',
    lambda value: bool(value) and all(value),
)
_LABELS = Expected(
    "the name of a column, or a list of such names: letters, digits, - and _",
    lambda value: (
        (isinstance(value, str) and bool(value))
        or (
            isinstance(value, list)
            and all(isinstance(name, str) and _NAME.fullmatch(name) for name in value)
            and 0 < len(set(value)) == len(value)
        )
    ),
)
_FACTORY = Expected(
    'MODULE:FUNCTION, such as "my_model:make"',
    lambda value: bool(re.fullmatch(r"[\w.]+:\w+", value)),
)
_KIND = Expected(
    'a name, or a table with "kind"',
    lambda value: isinstance(value.get("kind") if isinstance(value, dict) else value or None, str),
)
_NATS = number(words="a number of nats; below 0 a new model has to win so much")


@dataclass(frozen=True, kw_only=True)
class _Data:
    folder: Annotated[str, text("the folder of the days")]
    label: Annotated[Any, _LABELS] = "y"
    inputs: Annotated[tuple[str, ...], _INPUTS]
    late: Annotated[str, one_of(("state", "insert"))] = "state"


@dataclass(frozen=True)
class _Model:
    factory: Annotated[str, _FACTORY]
    seed: Annotated[int, whole(0)] = 0


@dataclass(frozen=True)
class _Gate:
    tolerance: Annotated[float, _NATS] = 0.02
    rollback_after: Annotated[int, whole(0)] = 0


@dataclass(frozen=True)
class _Publish:
    keep: Annotated[int | None, whole(2)] = None
    git: Annotated[str | None, text("a work tree of git")] = None
    git_folder: Annotated[str, text("a folder in the work tree")] = "models"
    git_remote: Annotated[str | None, text("a remote of git")] = None

    def __post_init__(self) -> None:
        check_git_folder(self.git_folder)


@dataclass(frozen=True)
class _Variant:
    capacity: Annotated[int, whole()]
    policy: Annotated[Any, _KIND] = "memento"
    trigger: Annotated[Any, _KIND] = "on-arrivals"


@dataclass(frozen=True)
class _File:
    """What the file holds, by its names."""

    data: _Data
    model: _Model
    gate: _Gate = _Gate()
    publish: _Publish = _Publish()
    variants: Mapping[str, _Variant] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One memory, when it trains, and what it publishes.

    Attributes:
        capacity: Most samples kept.
        policy: Settings of the policy, see `policy_from_table`; those with defaults left out.
        trigger: Decides when to train.
    """

    capacity: int
    policy: Mapping[str, Any]
    trigger: Trigger

    def memory(self, label: str, *, numbers: bool, seed: int) -> Memory:
        """An empty memory.

        Args:
            label: Column of the labels.
            numbers: Whether labels and predictions are numbers; else classes and probabilities.
            seed: Of the memory's generator.

        Raises:
            SettingError: The policy is unknown, or its settings or the capacity do not fit.
        """
        return Memory(self.capacity, self._policy(label, numbers), seed=seed)

    def deciding(self, label: str, *, numbers: bool) -> Trigger:
        """The trigger; one that compares coverage has distances also where the policy has none."""
        trigger = self.trigger
        if isinstance(trigger, OnCoverage) and trigger.space is None:
            policy = self._policy(label, numbers)
            if not isinstance(policy, SampleSpace):
                space = SampleSpace(usual_distances(label, numbers=numbers), missing="skip")
                return dataclasses.replace(trigger, space=space)
        return trigger

    def _policy(self, label: str, numbers: bool) -> Policy:
        given = {name: value for name, value in self.policy.items() if name != "kind"}
        return usual_policy(self.policy["kind"], label, numbers=numbers, settings=given)


@dataclass(frozen=True)
class DeploymentSettings:
    """All settings.

    Attributes:
        home: Folder of the file; what is relative is found from here.
        labels: Columns of labels; each is a task with a model of its own.
        variants: By name.
        data: ``folder`` of days; ``inputs``, columns or patterns in order, together the column
            ``x``; ``late``: ``"insert"``: a day that comes after a later one enters the memories;
            ``"state"``: it is only stated.
        model: ``factory``, ``MODULE:FUNCTION``, from a seed to an estimator or learner; ``seed``
            for it and the memories.
        gate: ``tolerance``: nats that a new model may lose on the latest day; ``rollback_after``:
            days in a row on which what serves is worse by more than that than what served before,
            until that serves again, 0 for never.
        publish: ``keep``: how many of a variant's versions published last stay, None: all; ``git``:
            work tree that what serves is committed to, None: none, in ``git_folder``, pushed to
            ``git_remote``, None: nowhere.
        tables: What was given, as JSON values.
    """

    home: Path
    labels: tuple[str, ...]
    variants: Mapping[str, Variant]
    data: _Data
    model: _Model
    gate: _Gate
    publish: _Publish
    tables: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Folder of days."""
        return self.home / self.data.folder

    @classmethod
    def of(cls, tables: Mapping[str, Any], home: Path, where: str) -> DeploymentSettings:
        """Settings from the tables of a file.

        Args:
            tables: Values as in TOML.
            home: Folder that paths are relative to.
            where: Name of the file, for messages.

        Raises:
            SettingError: Something is missing, unknown or does not fit; the message names it.
        """
        file = settings.build(_File, tables, where)
        data = file.data
        labels = (data.label,) if isinstance(data.label, str) else tuple(data.label)
        for label in labels:
            if label == "x":
                raise SettingError(
                    f"{where}: [data] label is 'x', which names the inputs; rename that column"
                )
            if label in data.inputs:
                raise SettingError(
                    f"{where}: [data] inputs names the label {label!r}; take it out there"
                )
        if not file.variants:
            raise SettingError(
                f"{where}: there are no variants; add one, such as [variants.main] with "
                "capacity = 2000"
            )
        local_path(data.folder, f"{where}: [data] folder")
        variants = {
            n: _variant(n, table, labels, home, where) for n, table in file.variants.items()
        }
        git = None if file.publish.git is None else str(home / file.publish.git)
        publish = dataclasses.replace(file.publish, git=git)
        return cls(home, labels, variants, data, file.model, file.gate, publish, tables)

    def document(self) -> dict[str, Any]:
        """JSON values from which `of_document` makes equal settings."""
        return {"home": str(self.home), "tables": dict(self.tables)}

    @classmethod
    def of_document(cls, document: Mapping[str, Any], where: str) -> DeploymentSettings:
        """From what `document` gave."""
        return cls.of(document["tables"], Path(document["home"]), where)


def from_toml(path: str | Path) -> DeploymentSettings:
    """Settings from a file.

    Raises:
        SettingError: The file is no TOML, or something in it is missing, unknown or does not fit.
        StorageError: The file cannot be read.
    """
    file = local_path(path, "--config")
    tables = settings.read(file, "read the settings")
    settings.check_plain(tables, str(file))
    return DeploymentSettings.of(tables, file.resolve().parent, str(file))


def _variant(name: str, table: _Variant, labels: Sequence[str], home: Path, where: str) -> Variant:
    """A variant; what its policy, trigger or memory refuse, they do so now."""
    place = f"{where}: [variants.{name}]"
    if not _NAME.fullmatch(name):
        raise SettingError(f"{place}: a variant's name is letters, digits, - and _")
    policy, trigger = (
        {"kind": value} if isinstance(value, str) else dict(value)
        for value in (table.policy, table.trigger)
    )
    for what, asked, base in (("policy", policy, Policy), ("trigger", trigger, Trigger)):
        spec = asked.get("kind")
        asked["kind"] = kind_named(spec, base, f"{place} {what} {spec!r}", home)
    try:
        made = Variant(table.capacity, policy, trigger_of(**trigger))
        for label, numbers in itertools.product(labels, (False, True)):
            made.memory(label, numbers=numbers, seed=0)
    except SettingError as error:
        raise SettingError(f"{place}: {error}") from error
    return made
