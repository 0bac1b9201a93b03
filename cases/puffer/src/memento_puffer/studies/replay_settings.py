"""What a replay is told: settings as values, as JSON, and as the arms have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, cast

import numpy as np

from memento.arguments import check_fields, instance, number, one_of, require, whole
from memento.arrivals import Arrivals
from memento.coverage import coverage_increase
from memento.density import SampleSpace
from memento.errors import SettingError
from memento.group import Group
from memento.memory import Memory
from memento.policies import Policy, QueryByCommittee
from memento.retrain import (
    Decision,
    Every,
    Never,
    OnCount,
    OnCoverage,
    OnLoss,
    Situation,
    Trigger,
)
from memento.settings import build, check_names
from memento_puffer.data.features import HORIZONS
from memento_puffer.deployment.deploy_settings import puffer_policy
from memento_puffer.predictor.ttp_training import AFFORDABLE, TrainingSettings
from memento_puffer.studies.arms import ARMS, named, policy_of

__all__ = ["COVERAGES", "TRIGGERS", "OnAllowedDays", "ReplaySettings", "arm", "fixed"]

TRIGGERS = ("always", "coverage", "coverage-calibrated", "loss", "count", "period", "never")
COVERAGES = ("coverage_plain", "coverage_calibrated")
"""Figures of each decision of a replay."""


@dataclass(frozen=True)
class ReplaySettings:
    """What is replayed.

    Attributes:
        policy: Decides which samples stay.
        capacity: Most samples held; None for no limit.
        horizon: 0 to 4, of the predictor. The paper replays 0.
        interval: Trainings are allowed on every so many-th day: with 7 on the 7th, the 14th, ...
            The paper has 7, to judge memories, and 1, to judge decisions.
        trigger: Of `TRIGGERS`, decides on these days: "always"; "coverage", as in the paper, or
            "coverage-calibrated", without its bias; "loss", its relative increase since the last
            training; "count" of new samples; "period" in days; "never" again.
        threshold: For the trigger, in its unit; not for "always" and "never".
        significance: Largest p-value of the calibrated coverage; 1 ignores the noise.
        jtt: Just Train Twice: the factor of wrong samples, 1 for none.
        members: Models to remember, for committee, oracle and matchmaker; 1 for none of these.
        freeze_after: Leave memory and model alone after so many days.
        predict_first: Whether the static model predicts until the first training. Otherwise nothing
            does, as in the paper, and samples are compared by their output alone.
        weighted: Whether trainings use the weights that the policy states, if any.
        calibrated: Whether predictions have a softmax temperature, which is fitted to each day
            before anything of it is learned, see `memento.training.Calibrated`.
        training: Optimiser, epochs and batches of each training.
        coverage_batch: Samples in a batch for coverage, where the policy has no batches.
        densities: Sizes of batches, for the density of each new day with respect to the memory.
        seed: Of memory, training and trigger.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> settings = ReplaySettings(capacity=5000, trigger="coverage", threshold=0.05)
        >>> ReplaySettings.of_document(settings.document()) == settings
        True
    """

    policy: Policy = field(default_factory=puffer_policy)
    capacity: Annotated[int, whole()] | None = 1_000_000
    horizon: Annotated[int, whole(0, HORIZONS - 1)] = 0
    interval: Annotated[int, whole()] = 7
    trigger: Annotated[str, one_of(TRIGGERS)] = "always"
    threshold: float = 0.1
    significance: float = 0.05
    jtt: Annotated[float, number(1, words="a factor of at least 1 (which is none)")] = 1.0
    members: Annotated[int, whole()] = 1
    freeze_after: Annotated[int, whole()] | None = None
    predict_first: bool = False
    weighted: bool = True
    calibrated: bool = False
    training: TrainingSettings = AFFORDABLE
    coverage_batch: Annotated[int, whole()] = 256
    densities: tuple[int, ...] = ()
    seed: Annotated[int, whole(0)] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "densities", tuple(self.densities))
        check_fields(self)
        require("policy", self.policy, instance(Policy, "a policy, or a table of its settings"))
        expected = "TrainingSettings, or a table of them"
        require("training", self.training, instance(TrainingSettings, expected))
        if isinstance(self.policy, QueryByCommittee) and self.members < 2:
            raise SettingError("a committee of members=1; give at least 2, the paper has 7")
        if any(size < 1 for size in self.densities):
            raise SettingError(f"densities={self.densities}; batches have at least 1 sample")
        self.policy.check_capacity(self.capacity)
        _ = self.decision  # says what is wrong with the threshold

    @property
    def space(self) -> SampleSpace:
        """How coverage is measured: as the policy compares samples, or else as the paper does."""
        if isinstance(self.policy, SampleSpace):
            return self.policy
        return cast(SampleSpace, puffer_policy("memento", batch_size=self.coverage_batch))

    @property
    def decision(self) -> OnAllowedDays:
        """The rule for training."""
        return OnAllowedDays(self.interval, self._trigger(), self.space)

    def _trigger(self) -> Trigger:
        """What decides, of the kind and with the threshold that the settings name.

        Raises:
            SettingError: A number of samples or days that is not whole.
        """
        threshold = self.threshold
        if self.trigger in ("count", "period") and not (threshold >= 1 and threshold % 1 == 0):
            raise SettingError(
                f"threshold={threshold} for the trigger {self.trigger!r}; give a whole number of "
                f"{'samples' if self.trigger == 'count' else 'days'}"
            )
        if self.trigger == "coverage":
            return OnCoverage(threshold, space=self.space, estimator="plain", new_labels=1.0)
        if self.trigger == "coverage-calibrated":
            return OnCoverage(threshold, self.significance, self.space, new_labels=1.0)
        if self.trigger == "loss":
            return OnLoss(threshold)
        if self.trigger == "count":
            return OnCount(int(threshold))
        if self.trigger == "period":
            return Every(int(threshold))
        return Never() if self.trigger == "never" else Every(1)

    def document(self) -> dict[str, Any]:
        """The same as JSON; `of_document` reads it."""
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "policy": self.policy.settings(),
            "training": dataclasses.asdict(self.training),
            "densities": list(self.densities),
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> ReplaySettings:
        """From JSON; what is left out has its default.

        Args:
            document: Values by name. ``policy`` is a policy, or a mapping with its ``kind`` and
                settings, ``training`` one of `TrainingSettings`, on top of `AFFORDABLE`.

        Raises:
            SettingError: An unknown name, or a value that does not fit.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        check_names(document, known, "replay", "setting")
        values = dict(document)
        if isinstance(policy := values.get("policy"), Mapping):
            values["policy"] = puffer_policy(**policy)
        if isinstance(training := values.get("training"), Mapping):
            chosen = {**dataclasses.asdict(AFFORDABLE), **training}
            values["training"] = build(TrainingSettings, chosen, "training", noun="setting")
        return cls(**values)


# ------------------------------------------------------------------------------------------ arms


def fixed(name: str) -> dict[str, Any]:
    """What a named arm is known by, beside its policy: none of it can be given otherwise.

    Example:
        >>> fixed("daily")
        {'interval': 1, 'trigger': 'always', 'jtt': 1.0, 'members': 1}
    """
    changes = ARMS[named(name)].settings
    return {} if name == "committee" else {k: v for k, v in changes.items() if k in _SCHEDULE}


_SCHEDULE = ("interval", "trigger", "jtt", "members")


def arm(name: str, given: Mapping[str, Any] | None = None, **fields: Any) -> ReplaySettings:
    """Settings of a named arm.

    Args:
        name: One of `memento_puffer.studies.arms.REPLAYED`.
        given: Settings as `ReplaySettings.of_document` takes them; beside them stands what the arm
            is known by, see `fixed`, which may only be given as it is or left at its default.
        **fields: Of the policy, where its kind has such a setting: temperature, bandwidth,
            batch_size, ...; these win over the arm's.

    Raises:
        SettingError: An unknown arm or setting, or one that the arm has otherwise.

    Example:
        >>> arm("daily", {"capacity": 1000}, batch_size=64).interval
        1
    """
    chosen, values = ARMS[named(name)], dict(given or {})
    defaults = {f.name: f.default for f in dataclasses.fields(ReplaySettings)}
    for key, value in fixed(name).items():
        if values.get(key, value) not in (value, defaults[key]):
            raise SettingError(
                f"the arm {name!r} has {key} = {value!r}, not {values[key]!r}; leave {key} out, or "
                "choose another arm"
            )
    changes = dict(chosen.settings)
    if chosen.policy["kind"] == QueryByCommittee.kind and values.get("members", 1) > 1:
        del changes["members"]  # a committee of another size
    if not chosen.weighted:
        changes["weighted"] = False
    if chosen.calibrated:
        changes["calibrated"] = True
    capacity = values.get("capacity", defaults["capacity"])
    if chosen.share != 1 and capacity is not None:
        changes["capacity"] = round(chosen.share * capacity)
    return ReplaySettings.of_document(
        {**values, **changes, "policy": policy_of(named(name), **fields)}
    )


# --------------------------------------------------------------------------------------- trigger


@dataclass(frozen=True)
class OnAllowedDays(Trigger):
    """Asks another trigger, but only on every ``interval``-th day; and measures coverage each day.

    Args:
        interval: Units: with 7, the first training is on the 7th.
        trigger: Decides on these; the first is always due.
        space: How coverage is measured.

    Example:
        >>> from memento.policies import FIFO
        >>> trigger = OnAllowedDays(7, Every(1), ReplaySettings().space)
        >>> held = Memory(5, FIFO())
        >>> [trigger.decide(Situation(held, day), np.random.default_rng(0)).due for day in (5, 6)]
        [False, True]
    """

    interval: int
    trigger: Trigger
    space: SampleSpace

    def keeps(self) -> Arrivals | None:
        """See `Trigger.keeps`."""
        return self.trigger.keeps()

    def decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        """See `Trigger.decide`; figures ``coverage_plain`` and ``coverage_calibrated``."""
        figures = self._coverage(situation.memory)
        if (situation.unit + 1) % self.interval:
            days = f"trainings only every {self.interval} days"
            decision = Decision(False, f"day {situation.unit + 1}: {days}")
        else:
            decision = super().decide(situation, rng)
        return replace(decision, figures={**decision.figures, **figures})

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        return self.trigger.decide(situation, rng)

    def _coverage(self, memory: Memory | Group) -> dict[str, float]:
        """By how much it has increased; 1 before the first training."""
        if memory.reference is None or not len(memory):
            return dict.fromkeys(COVERAGES, 1.0)
        held, reference = memory.samples, memory.reference
        plain = coverage_increase(held, reference, self.space, estimator="plain", permutations=0)
        calibrated = coverage_increase(held, reference, self.space, permutations=0)
        return dict(zip(COVERAGES, (float(plain), float(calibrated)), strict=True))
