"""When to retrain: triggers that look at a situation and say whether it is due, and why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import get_args

import numpy as np

from memento import arguments
from memento.coverage import Estimator, coverage_increase
from memento.density import SampleSpace
from memento.errors import DomainError, SchemaError, SettingError
from memento.memory import Memory

__all__ = [
    "Decision",
    "Every",
    "Never",
    "OnCount",
    "OnCoverage",
    "OnLoss",
    "Situation",
    "Trigger",
]


@dataclass(frozen=True)
class Situation:
    """What a trigger may look at.

    Attributes:
        memory: The memory, with its content now and at the last training (`Memory.reference`), both
            annotated by the current model.
        unit: Units of the stream (days, say) before this one.
        trained_at: Unit of the last training; None before the first.
        seen_at: Samples that the memory had seen at the last training.
    """

    memory: Memory
    unit: int = 0
    trained_at: int | None = None
    seen_at: int = 0


@dataclass(frozen=True)
class Decision:
    """Whether to retrain.

    Attributes:
        due: The answer.
        reason: One sentence for a log.
        value: What was compared; NaN if nothing was.
        threshold: What it was compared with; NaN if nothing was.
        noise: 95 % quantile of ``value`` if nothing has changed; NaN if unknown.
        p_value: Probability of such a value if nothing has changed; NaN if unknown.
    """

    due: bool
    reason: str
    value: float = float("nan")
    threshold: float = float("nan")
    noise: float = float("nan")
    p_value: float = float("nan")


class Trigger(ABC):
    """Decides whether retraining can pay off.

    All triggers are due when nothing was trained yet; subclasses say when they are due again.
    """

    def decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        """Look at a situation.

        Args:
            situation: It is not changed.
            rng: For triggers that draw at random.
        """
        if situation.trained_at is None:
            return Decision(True, "nothing was trained yet")
        return self._decide(situation, rng)

    @abstractmethod
    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        """The same once something was trained."""


@dataclass(frozen=True)
class OnCoverage(Trigger):
    """Due when the memory covers more than at the last training (paper, section 3.5).

    Args:
        threshold: Least relative coverage increase, in [0, 1].
        significance: Largest p-value; 1 ignores the noise. Only for the calibrated estimator.
        space: How samples are compared; the memory's policy if left out, which then has to be one
            with distances.
        estimator: See `coverage_increase`.
        permutations: See `coverage_increase`; ignored where ``significance`` is 1.

    Example:
        >>> OnCoverage(threshold=0.05).threshold
        0.05
    """

    threshold: float = 0.1
    significance: float = 0.05
    space: SampleSpace | None = None
    estimator: Estimator = "calibrated"
    permutations: int = 39

    def __post_init__(self) -> None:
        space = arguments.instance(SampleSpace, "a SampleSpace, or a policy with distances")
        arguments.check(
            self,
            threshold=arguments.number(0, 1, words="a share from 0 to 1"),
            significance=arguments.number(most=1, above=0, words="a value in (0, 1]"),
            space=arguments.optional(space),
            estimator=arguments.one_of(get_args(Estimator)),
            permutations=arguments.whole(0),
        )
        if self._tests and self.permutations < (least := _least_permutations(self.significance)):
            raise SettingError(
                f"{self.permutations} permutations cannot give a p-value of {self.significance} or "
                f"less; ask for at least {least}"
            )

    @property
    def _tests(self) -> bool:
        return self.estimator == "calibrated" and self.significance < 1

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        memory = situation.memory
        space = self.space if self.space is not None else memory.policy
        if not isinstance(space, SampleSpace):
            raise SettingError(
                f"{memory.policy!r} has no distances to compare coverage with; "
                "give OnCoverage(space=SampleSpace([...]))"
            )
        rise = coverage_increase(
            memory.samples,
            memory.reference,
            space,
            estimator=self.estimator,
            permutations=self.permutations if self._tests else 0,
            rng=rng,
        )
        significant = not self._tests or rise.p_value <= self.significance
        due = rise >= self.threshold and significant
        parts = [f"coverage rose by {rise:.3f} (threshold {self.threshold:g}"]
        if self._tests:
            parts.append(f", noise {rise.noise:.3f}, p = {rise.p_value:.3f}")
        return Decision(
            due, "".join(parts) + ")", float(rise), self.threshold, rise.noise, rise.p_value
        )


def _least_permutations(significance: float) -> int:
    """The smallest number, from 1, with which ``1 / (10 * number + 10)`` is not above."""
    return max(1, int(np.ceil(0.1 / significance - 1e-9)) - 1)


@dataclass(frozen=True)
class OnLoss(Trigger):
    """Due when the model's mean loss on the memory exceeds that on its training set.

    Args:
        increase: Least relative increase, above 0: 0.1 is 10 %.
        column: Column of losses, by the current model, in what is held and in the reference.
    """

    increase: float = 0.1
    column: str = "loss"

    def __post_init__(self) -> None:
        arguments.check(
            self,
            increase=arguments.number(above=0, words="a number above 0"),
            column=arguments.text(),
        )

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        held, reference = situation.memory.samples, situation.memory.reference
        if reference is None or self.column not in held or self.column not in reference:
            raise SchemaError(
                f"column {self.column!r} is missing in the memory or its reference; have the "
                "learner annotate it"
            )
        now, then = float(held[self.column].mean()), float(reference[self.column].mean())
        if np.isnan(now) or not np.isfinite(then):
            raise DomainError(
                f"column {self.column!r} has a mean of {now:.4g} in the memory, of {then:.4g} in "
                "its reference; expected finite losses"
            )
        # Losses are not negative; where there was none before, any is an infinite increase.
        value = (now - then) / then if then > 0 else (np.inf if now > 0 else 0.0)
        return Decision(
            value >= self.increase,
            f"mean loss {now:.4g} against {then:.4g} at training: {value:+.1%} (threshold "
            f"{self.increase:+.1%})",
            value,
            self.increase,
        )


@dataclass(frozen=True)
class OnCount(Trigger):
    """Due when enough samples have come since the last training.

    Args:
        samples: How many, at least 1.
    """

    samples: int

    def __post_init__(self) -> None:
        arguments.check(self, samples=arguments.whole())

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        new = situation.memory.seen - situation.seen_at
        return Decision(
            new >= self.samples,
            f"{new:,} new samples (threshold {self.samples:,})",
            float(new),
            float(self.samples),
        )


@dataclass(frozen=True)
class Every(Trigger):
    """Due every so many units of the stream.

    Args:
        units: How many, at least 1: 1 is always, 7 with days is weekly.
    """

    units: int = 1

    def __post_init__(self) -> None:
        arguments.check(self, units=arguments.whole())

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        since = situation.unit - (situation.trained_at or 0)
        return Decision(
            since >= self.units,
            f"{since} units since the last training (period {self.units})",
            float(since),
            float(self.units),
        )


@dataclass(frozen=True)
class Never(Trigger):
    """Due once, at the start: the static model that others are compared with."""

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        return Decision(False, "trained once and never again")
