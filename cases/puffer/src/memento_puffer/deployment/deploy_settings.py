"""What a deployment can be told: variants, trainings, gates; from a file of a person or of its own.

Every value is checked by name and type when it is read, so that no ``"None"`` or ``"false"`` from a
file is ever taken for something else.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from memento import settings
from memento.arguments import check_fields, number, whole
from memento.coverage import Estimator
from memento.density import SampleSpace
from memento.distances import JensenShannon
from memento.errors import SettingError
from memento.memory import Memory
from memento.policies import Policy, policy_class, policy_from_table
from memento.retrain import OnCoverage
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp_training import TrainingSettings

__all__ = [
    "METRIC",
    "DeploymentSettings",
    "Gate",
    "Variant",
    "default_variants",
    "puffer_policy",
]

METRIC = 1
"""Counts changes of how coverage is computed; numbers of different counts cannot be compared."""


_DISTANCES = (JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y_bin", CLASSES))


def puffer_policy(kind: str = "memento", **fields: Any) -> Policy:
    """A policy with what it needs to compare samples of this case: predictions and classes.

    Args:
        kind: Such as "memento", "density-reservoir" or "reservoir".
        **fields: Its settings, see `policy_from_table`; those of the paper (batches of 256,
            bandwidth 0.1, temperature 0.01) if left out, and for labels the classes that the
            predictor knows.

    Raises:
        SettingError: An unknown kind or setting.

    Example:
        >>> puffer_policy(temperature=0.0).batch_size
        256
        >>> puffer_policy("class-balanced-reservoir").label
        'y_bin'
    """
    defaults = {"label": "y_bin"}
    if issubclass(policy_class(kind, "Give one of these"), SampleSpace):
        defaults |= _space_defaults(kind)
    return policy_from_table({"kind": kind, **fields}, usual=_DISTANCES, defaults=defaults)


def _space_defaults(kind: str = "memento") -> dict[str, Any]:
    return {
        **({"temperature": 0.01, "remainder": "drop"} if kind == "memento" else {}),
        **({"remainder": "keep"} if kind == "density-reservoir" else {}),
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
    confirm: Annotated[int, whole()] = 1
    rest: Annotated[int, whole(0)] = 0
    weighted: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.trigger  # says what is wrong with the others

    @property
    def space(self) -> SampleSpace:
        """How samples are compared: as the policy does, or else as the paper does."""
        if isinstance(self.policy, SampleSpace):
            return self.policy
        return typing.cast(SampleSpace, puffer_policy())

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
        described = typing.cast(Policy, self.space).settings()
        return {
            "code": METRIC,
            "epoch": epoch,
            "estimator": self.estimator,
            "space": {name: described[name] for name in names},
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


_MARGIN = number(above=0, words="a margin above 0, in nats")
_SECONDS = number(above=0, words="a number above 0")


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

    loss: Annotated[float, _MARGIN] = 0.5
    tail: Annotated[float, _MARGIN] = 1.0
    held_out: Annotated[float, number(above=0, most=0.5, words="a share in (0, 0.5]")] = 0.05
    samples: Annotated[int, whole()] = 20_000
    days: Annotated[int, whole()] = 3
    rollback_after: Annotated[int, whole(0)] = 2

    def __post_init__(self) -> None:
        check_fields(self)


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
    keep: Annotated[int, whole(2)] = 14  # one to go back to
    late_days: Annotated[int, whole(0)] = 7
    give_up_days: Annotated[int, whole(0)] = 3
    insert_rows: Annotated[int, whole()] = 2_000_000
    longest: Annotated[float, _SECONDS] = 600.0
    cc: str | None = None
    checkpoint_seconds: Annotated[float, _SECONDS] = 120.0
    seed: Annotated[int, whole(0)] = 0
    metric: Annotated[int, whole()] = 1
    git: str | None = None
    git_folder: str = "models"
    git_remote: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.variants:
            raise SettingError("no variants; give at least one")
        for name, variant in self.variants.items():
            if not name.replace("-", "").replace("_", "").isalnum():
                raise SettingError(f"variant {name!r}; name it with letters, digits, '-' and '_'")
            Memory(self.capacity, variant.policy)
        from memento.deployment.git import check_git_folder

        check_git_folder(self.git_folder)

    @property
    def publish(self) -> DeploymentSettings:
        """Where what serves is published besides: ``git``, ``git_folder``, ``git_remote``."""
        return self

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
    def of_document(
        cls, document: Mapping[str, Any], where: str = "settings"
    ) -> DeploymentSettings:
        """From what `document` gave, or from a file of a person, with defaults for what is absent.

        Args:
            document: As JSON or TOML values.
            where: Name of the file, for messages.

        Raises:
            SettingError: An unknown name, a value of another type, or out of its range.
        """
        given = dict(document)
        variants, training = given.get("variants"), given.get("training")
        if isinstance(variants, Mapping):
            given["variants"] = {
                n: _with_policy(entry, f"{where}: [variants.{n}]") for n, entry in variants.items()
            }
        if isinstance(training, Mapping):
            given["training"] = {"moments": "estimate", **training}
            if training.get("held_out") == 0:
                given["training"].setdefault("patience", None)  # TOML cannot say so
        return settings.build(cls, given, where)


def _with_policy(entry: Any, place: str) -> Any:
    """The table of a variant with its policy made; what is no table is refused elsewhere."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("policy", {}), Mapping):
        return entry
    try:
        return {**entry, "policy": puffer_policy(**entry.get("policy", {}))}
    except SettingError as error:
        raise SettingError(f"{place}: {error}") from error
