"""What a deployment can be told: variants, trainings, gates; from a file of a person or of its own.

Every value is checked by name and type when it is read, so that no ``"None"`` or ``"false"`` from a
file is ever taken for something else.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memento.coverage import Estimator
from memento.density import SampleSpace
from memento.distances import JensenShannon
from memento.errors import SettingError
from memento.memory import Memory
from memento.policies import Policy, named_policies, policy_from_settings
from memento.retrain import OnCoverage
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp_training import TrainingSettings

__all__ = [
    "METRIC",
    "DeploymentSettings",
    "Gate",
    "Variant",
    "default_variants",
    "is_of",
    "puffer_policy",
    "typed",
]

METRIC = 1
"""Counts changes of how coverage is computed; numbers of different counts cannot be compared."""


def puffer_policy(kind: str = "memento", **fields: Any) -> Policy:
    """A policy with what it needs to compare samples of this case: predictions and classes.

    Args:
        kind: Such as "memento", "density-reservoir" or "reservoir".
        **fields: Its settings; those of the paper (batches of 256, bandwidth 0.1, temperature 0.01)
            if left out, and for labels the classes that the predictor knows.

    Raises:
        SettingError: An unknown kind or setting.

    Example:
        >>> puffer_policy(temperature=0.0).batch_size
        256
        >>> puffer_policy("class-balanced-reservoir").label
        'y_bin'
    """
    if kind not in named_policies:
        raise SettingError(f"policy {kind!r}; give one of {', '.join(sorted(named_policies))}")
    if issubclass(named_policies[kind], SampleSpace):
        fields = {**_space_defaults(kind), **fields}
    known = [f.name for f in dataclasses.fields(named_policies[kind])]  # type: ignore[arg-type]
    if "label" in known:
        fields = {"label": "y_bin", **fields}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise SettingError(f"policy {kind!r} has no {unknown[0]!r}; it has {', '.join(known)}")
    return policy_from_settings({"kind": kind, **fields})


def _space_defaults(kind: str = "memento") -> dict[str, Any]:
    distances = [
        JensenShannon.of_probabilities("yhat"),
        JensenShannon.of_labels("y_bin", CLASSES),
    ]
    return {
        **({"temperature": 0.01, "remainder": "drop"} if kind == "memento" else {}),
        **({"remainder": "keep"} if kind == "density-reservoir" else {}),
        "distances": [distance.settings() for distance in distances],
        "batch_size": 256,
        "bandwidth": 0.1,
        "sort_by": ["y", "yhat", "x"],
        "missing": "skip",  # before there is any model
    }


@dataclass(frozen=True)
class Variant:
    """A memory with its rule for retraining.

    Attributes:
        policy: What decides which samples stay.
        threshold: Least relative coverage increase for a training, in [0, 1].
        estimator: "plain" as in the paper, or "calibrated", which knows its noise.
        significance: Largest p-value of the calibrated estimator; 1 ignores the noise.
        permutations: For the p-value, see `OnCoverage`.
        confirm: Days in a row on which it has to be due; above 1, what rises for a day and falls
            again trains nothing.
        rest: Least days between trainings.
        weighted: Whether to train with the memory's weights, if its policy states any.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> Variant(puffer_policy(temperature=0.01)).threshold
        0.1
    """

    policy: Policy
    threshold: float = 0.1
    estimator: str = "plain"
    significance: float = 0.05
    permutations: int = 39
    confirm: int = 1
    rest: int = 0
    weighted: bool = True

    def __post_init__(self) -> None:
        if self.confirm < 1:
            raise SettingError(f"confirm={self.confirm}; give at least 1 day")
        if self.rest < 0:
            raise SettingError(f"rest={self.rest}; give 0 or more days")
        _ = self.trigger  # says what is wrong with the others

    @property
    def space(self) -> SampleSpace:
        """How samples are compared: as the policy does, or else as the paper does."""
        if isinstance(self.policy, SampleSpace):
            return self.policy
        fields = _space_defaults()
        return typing.cast(SampleSpace, puffer_policy("memento", **fields))

    @property
    def trigger(self) -> OnCoverage:
        """The rule without ``confirm`` and ``rest``."""
        return OnCoverage(
            self.threshold,
            self.significance,
            self.space,
            typing.cast(Estimator, self.estimator),
            self.permutations,
            new_labels=1.0,  # coverage alone, as in the paper
        )

    def metric(self, epoch: int) -> dict[str, Any]:
        """What coverage numbers depend on; they compare only where this is the same."""
        names = [f.name for f in dataclasses.fields(SampleSpace)]
        settings = typing.cast(Policy, self.space).settings()
        return {
            "code": METRIC,
            "epoch": epoch,
            "estimator": self.estimator,
            "space": {name: settings[name] for name in names},
        }


def default_variants() -> dict[str, Variant]:
    """The variants of the paper's deployment, and the density reservoir.

    Example:
        >>> sorted(default_variants())
        ['default', 'density-reservoir', 'deterministic']
    """
    return {
        "default": Variant(puffer_policy(temperature=0.01)),
        "deterministic": Variant(puffer_policy(temperature=0.0)),
        "density-reservoir": Variant(
            puffer_policy("density-reservoir"), estimator="calibrated", threshold=0.1
        ),
    }


@dataclass(frozen=True)
class Gate:
    """When a network that was trained may serve, and when one that serves has to go.

    A memory of rare samples trades some of the median for the tail, so margins are wide: they are
    to stop what is broken, not what is different.

    Attributes:
        loss: By how many nats the mean loss may exceed that of what served, > 0.
        tail: The same for the 99th percentile.
        held_out: Share of each day's streams that no memory gets, in (0, 0.5].
        samples: Most samples held out of a day.
        days: Days of data that a network is held against.
        rollback_after: Days in a row on which what serves is worse, by the same margins, than what
            served before, until that serves again; 0 for never.

    Raises:
        SettingError: A value out of its range.
    """

    loss: float = 0.5
    tail: float = 1.0
    held_out: float = 0.05
    samples: int = 20_000
    days: int = 3
    rollback_after: int = 2

    def __post_init__(self) -> None:
        for name in ("loss", "tail"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name}={getattr(self, name)}; give a margin above 0, in nats")
        if not 0 < self.held_out <= 0.5:
            raise SettingError(f"held_out={self.held_out}; give a share in (0, 0.5]")
        for name in ("samples", "days"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}={getattr(self, name)}; give at least 1")
        if self.rollback_after < 0:
            raise SettingError(f"rollback_after={self.rollback_after}; give 0 or more days")


@dataclass(frozen=True)
class DeploymentSettings:
    """All that a deployment can be told.

    Attributes:
        variants: By name.
        capacity: Samples in each memory.
        training: How networks are trained. By default from the base on moments of the new samples,
            so that no normaliser is stuck in the year of the base.
        gate: What may serve.
        keep: Published versions of each variant that stay.
        late_days: So many days after a day without data, or with data that cannot be read, data
            that turns up or is repaired is still inserted.
        give_up_days: So many days an unreadable day is tried again and holds up those after it;
            then it is recorded as such.
        insert_rows: Samples in memory at a time, beside what is held: for huge days.
        longest: Samples with a transmission time above, in s, are dropped: no viewer waits so long.
        cc: Keep only streams over this congestion control; needs expt_settings.
        checkpoint_seconds: How often a training in progress is saved.
        seed: Of everything random besides the training, which has its own.
        metric: Epoch of the coverage numbers: to be raised deliberately whenever they change.
        git: Work tree that what serves is committed to after every run and rollback; None for none.
        git_folder: Folder inside of it; each variant has one in it.
        git_remote: Where to push; None for nowhere.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> settings = DeploymentSettings(capacity=50_000)
        >>> DeploymentSettings.of_document(settings.document()) == settings
        True
    """

    variants: Mapping[str, Variant] = field(default_factory=default_variants)
    capacity: int = 1_000_000
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(moments="estimate"))
    gate: Gate = field(default_factory=Gate)
    keep: int = 14
    late_days: int = 7
    give_up_days: int = 3
    insert_rows: int = 2_000_000
    longest: float = 600.0
    cc: str | None = None
    checkpoint_seconds: float = 120.0
    seed: int = 0
    metric: int = 1
    git: str | None = None
    git_folder: str = "models"
    git_remote: str | None = None

    def __post_init__(self) -> None:
        if not self.variants:
            raise SettingError("no variants; give at least one")
        for name, variant in self.variants.items():
            if not name.replace("-", "").replace("_", "").isalnum():
                raise SettingError(f"variant {name!r}; name it with letters, digits, '-' and '_'")
            Memory(self.capacity, variant.policy)
        from memento.deployment.git import check_git_folder

        check_git_folder(self.git_folder)
        for name, least in (
            ("keep", 2),  # one to go back to
            ("late_days", 0),
            ("give_up_days", 0),
            ("insert_rows", 1),
            ("seed", 0),
            ("metric", 1),
        ):
            if getattr(self, name) < least:
                raise SettingError(f"{name}={getattr(self, name)}; give at least {least}")
        for name in ("longest", "checkpoint_seconds"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name}={getattr(self, name)}; give a number above 0")

    def document(self) -> dict[str, Any]:
        """As JSON values; `of_document` is the way back."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["training"] = dataclasses.asdict(self.training)
        plain["gate"] = dataclasses.asdict(self.gate)
        plain["variants"] = {}
        for name, variant in self.variants.items():
            found = {f.name: getattr(variant, f.name) for f in dataclasses.fields(variant)}
            plain["variants"][name] = {**found, "policy": variant.policy.settings()}
        return plain

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> DeploymentSettings:
        """From what `document` gave, or from a file of a person, with defaults for what is absent.

        Raises:
            SettingError: An unknown name, a value of another type, or out of its range.
        """
        given = dict(_table(document, "settings"))
        if "variants" in given:
            variants = {}
            for name, entry in _table(given["variants"], "variants").items():
                place = f"variants.{name}"
                entry = dict(_table(entry, place))
                policy = dict(_table(entry.get("policy", {}), f"{place}.policy"))
                entry["policy"] = puffer_policy(policy.pop("kind", "memento"), **policy)
                variants[name] = typed(Variant, entry, place)
            given["variants"] = variants
        if "training" in given:
            table = {"moments": "estimate", **_table(given["training"], "training")}
            if table.get("held_out") == 0:
                table.setdefault("patience", None)  # TOML cannot say so
            given["training"] = typed(TrainingSettings, table, "training")
        if "gate" in given:
            given["gate"] = typed(Gate, _table(given["gate"], "gate"), "gate")
        return typed(cls, given, "settings")


def _table(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingError(f"{place} is {value!r}; expected a table of names and values")
    return value


def typed(cls: type, values: Mapping[str, Any], place: str) -> Any:
    """A dataclass from plain values, whose names and types are those of its fields.

    Args:
        cls: The dataclass.
        values: By name.
        place: What they are called in messages.

    Raises:
        SettingError: An unknown name, or a value of another type.
    """
    kinds = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for name, value in values.items():
        if name not in known:
            raise SettingError(f"{place} has no {name!r}; it has {', '.join(known)}")
        if not is_of(kinds[name], value):
            wanted = getattr(kinds[name], "__name__", str(kinds[name]))
            raise SettingError(f"{place}.{name} is {value!r}; expected a value of type {wanted}")
    return cls(**values)


def is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of a type, as annotations name it; a bool is no number.

    Example:
        >>> is_of(int | None, None), is_of(str, None), is_of(int, True), is_of(float, 1)
        (True, False, False, True)
    """
    if isinstance(kind, types.UnionType):
        return any(is_of(one, value) for one in typing.get_args(kind))
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, (int, float))
    return isinstance(value, typing.get_origin(kind) or kind)
