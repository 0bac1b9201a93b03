"""When to retrain: triggers that look at a situation and say whether it is due, and why."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from memento.arguments import Column, Count, check_fields, instance, number, require, whole
from memento.arrivals import Arrivals
from memento.coverage import Estimator, coverage_increase
from memento.density import SampleSpace
from memento.distances import Distance, JensenShannon, distance_from_settings
from memento.errors import DomainError, SchemaError, SettingError
from memento.group import Group
from memento.kinds import class_of, described, settings_of
from memento.memory import Memory
from memento.missing import without_gaps
from memento.newness import (
    Comparison,
    compare,
    e_value,
    excess,
    new_share,
    share_of_unseen,
    unseen_labels,
)
from memento.policies import policy_from_settings
from memento.samples import Samples

__all__ = [
    "Decision",
    "Every",
    "Never",
    "OnArrivals",
    "OnCount",
    "OnCoverage",
    "OnLoss",
    "Situation",
    "Trigger",
    "named_triggers",
    "trigger",
    "trigger_or_default",
]

#: Triggers by the name that settings use; subclasses of `Trigger` with a ``kind`` add themselves.
named_triggers: dict[str, type[Trigger]] = {}

Space = Annotated[SampleSpace, instance(SampleSpace, "a SampleSpace, or a policy with distances")]


@dataclass(frozen=True)
class Situation:
    """What a trigger may look at.

    Attributes:
        memory: The memory, with its content now and at the last training (`Memory.reference`), both
            annotated by the current model.
        unit: Units of the stream (days, say) before this one.
        trained_at: Unit of the last training; None before the first.
        seen_at: Samples that the memory had seen at the last training.
        arrivals: The newest unit and what it can be compared with, for triggers that keep them.
        label: Column of the labels; where the memory's policy has no distances, triggers compare
            by it.
    """

    memory: Memory | Group
    unit: int = 0
    trained_at: int | None = None
    seen_at: int = 0
    arrivals: Arrivals | None = None
    label: str = "y"


@dataclass(frozen=True)
class Decision:
    """Whether to retrain.

    Attributes:
        due: Whether retraining is due.
        reason: One sentence for a log.
        value: What was compared; NaN if nothing was.
        threshold: What it was compared with; NaN if nothing was.
        noise: 95 % quantile of ``value`` if nothing has changed; NaN if unknown.
        p_value: Probability of such a value if nothing has changed; NaN if unknown.
        figures: Further numbers by name, for tables and logs.
    """

    due: bool
    reason: str
    value: float = float("nan")
    threshold: float = float("nan")
    noise: float = float("nan")
    p_value: float = float("nan")
    figures: Mapping[str, float] = field(default_factory=dict)


class Trigger(ABC):
    """Decides whether retraining can pay off.

    All triggers are due when nothing was trained yet; subclasses say when they are due again. They
    are frozen dataclasses whose fields are their settings; a ``kind`` makes them known by name, see
    `trigger`.
    """

    #: Name by which settings refer to this trigger.
    kind: ClassVar[str | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "kind" in vars(cls) and cls.kind is not None:
            named_triggers[cls.kind] = cls

    def __post_init__(self) -> None:
        check_fields(self)

    def settings(self) -> dict[str, Any]:
        """What `trigger` needs to make an equal one: its kind and its fields, JSON values.

        Fields that do not count when triggers are compared are left out.
        """
        kind = vars(type(self)).get("kind")  # a subclass is another kind than its parent
        return {"kind": kind or type(self).__qualname__, **described(self)}

    def keeps(self) -> Arrivals | None:
        """Where arrivals are kept for this trigger, empty; None: it needs none."""
        return None

    def decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        """Look at a situation.

        Args:
            situation: It is not changed, except for ``evidence`` and ``renew`` of its arrivals.
            rng: For triggers that draw at random.
        """
        if situation.trained_at is None:
            return Decision(True, "nothing was trained yet")
        return self._decide(situation, rng)

    @abstractmethod
    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        """The same once something was trained."""

    def _kept(self, situation: Situation) -> Arrivals:
        """The arrivals, for triggers that cannot do without."""
        if situation.arrivals is None:
            name = type(self).__name__
            raise SettingError(
                f"{name} compares what comes in, and no arrivals were kept; use it in memento.run, "
                f"or keep them with {name}().keeps()"
            )
        return situation.arrivals


def trigger_or_default(given: Trigger | None) -> Trigger:
    """What decides: the trigger that was given, or `OnArrivals` where none was.

    Raises:
        SettingError: It is no trigger.
    """
    chosen = OnArrivals() if given is None else given
    require("trigger", chosen, instance(Trigger, "a Trigger, such as OnArrivals()"))
    return chosen


def trigger(kind: str, **settings: Any) -> Trigger:
    """The trigger of a kind, such as one that `Trigger.settings` described.

    Args:
        kind: ``"on-arrivals"``, ``"coverage"``, ``"loss"``, ``"count"``, ``"every"``, ``"never"``,
            or what another distribution adds as an entry point of ``memento.triggers``.
        **settings: Of it; what is left out has its default.

    Raises:
        SettingError: There is no such kind, or a setting does not fit.

    Example:
        >>> trigger("every", units=7)
        Every(units=7)
        >>> trigger(**OnCount(samples=50).settings())
        OnCount(samples=50)
    """
    remedy = "Import the module that defines it"
    found = class_of("trigger", kind, named_triggers, Trigger, remedy)
    space = settings.get("space")
    if isinstance(space, Mapping):
        settings["space"] = _space_from(space)
    own: dict[str, Field[Any]] = {f.name: f for f in fields(found)} if is_dataclass(found) else {}
    unknown = sorted(set(settings) - set(own))
    if unknown:
        raise SettingError(
            f"trigger {kind!r}: unknown setting {unknown[0]!r}; known are "
            f"{', '.join(own) or 'none'}: rename it, or take it out"
        )
    lacking = [n for n, f in own.items() if n not in settings and _required(f)]
    if lacking:
        raise SettingError(
            f"trigger {kind!r} needs {lacking[0]!r}; give it, such as {lacking[0]} = 10000"
        )
    try:
        return found(**settings)
    except SettingError as error:
        raise SettingError(f"trigger {kind!r}: {error}") from error


def _required(setting: Field[Any]) -> bool:
    return setting.default is MISSING and setting.default_factory is MISSING


def _space_from(settings: Mapping[str, Any]) -> SampleSpace:
    if "kind" in settings:
        space = policy_from_settings(settings)
        if not isinstance(space, SampleSpace):
            raise SettingError(f"space is {space!r}; expected a policy with distances")
        return space
    own = settings_of("space", settings)
    distances = [distance_from_settings(distance) for distance in own.pop("distances", [])]
    return SampleSpace(distances, **own)


@dataclass(frozen=True)
class OnCoverage(Trigger):
    """Due when the memory covers more than at the last training (paper, section 3.5).

    The content of the memory is compared with that of the last training, both predicted by the
    deployed model. What is new is diluted by what the memory keeps, selection moves the memory on
    quiet days too, and the model was trained on one of the two: prefer `OnArrivals` where a missed
    change or a false alarm costs something. So that a class which the model has never seen is not
    missed, retraining is also due when such classes make up ``new_labels`` of what is held.

    Args:
        threshold: Least relative coverage increase, in [0, 1].
        significance: Largest p-value, where one is stated: not for two contents of one memory, see
            `coverage_increase`. 1 ignores it. Only for the calibrated estimator.
        space: How samples are compared; the memory's policy if left out, which then has to be one
            with distances.
        estimator: See `coverage_increase`; ``"plain"`` is the formula of the paper.
        permutations: See `coverage_increase`; ignored where ``significance`` is 1.
        new_labels: Least share of what is held, in (0, 1], whose label the last training set lacks;
            1 looks at coverage alone, as in the paper.

    Example:
        >>> OnCoverage(threshold=0.05).threshold
        0.05
    """

    kind: ClassVar[str | None] = "coverage"
    threshold: Annotated[float, number(0, 1, words="a share from 0 to 1")] = 0.1
    significance: Annotated[float, number(most=1, above=0, words="a value in (0, 1]")] = 0.05
    space: Space | None = None
    estimator: Estimator = "calibrated"
    permutations: Annotated[int, whole(0)] = 39
    new_labels: Annotated[float, number(most=1, above=0, words="a share in (0, 1]")] = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
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
        # What has not come yet (labels, predictions) compares with nothing.
        names = [name for distance in space.distances for name in distance.columns]
        held, reference = memory.samples, memory.reference
        now = without_gaps(held, names)
        before = None if reference is None else without_gaps(reference, names)
        for what, whole_set, part in (("held", held, now), ("trained on", reference, before)):
            if part is not None and not part.size and whole_set is not None and whole_set.size:
                columns = ", ".join(map(repr, dict.fromkeys(names)))
                reason = f"no sample {what} has all of {columns} yet"
                return Decision(False, reason, threshold=self.threshold)
        rise = coverage_increase(
            now,
            before,
            space,
            estimator=self.estimator,
            permutations=self.permutations if self._tests else 0,
            rng=rng,
        )
        stated = self._tests and not math.isnan(rise.p_value)
        parts = [f"coverage rose by {rise:.3f} (threshold {self.threshold:g}"]
        if stated:
            parts.append(f", noise {rise.noise:.3f}, p = {rise.p_value:.3f}")
        parts.append(")")
        due = rise >= self.threshold and not (stated and rise.p_value > self.significance)
        if memory.reference is not None and memory.reference.size and self.new_labels < 1:
            new = share_of_unseen(space, memory.samples, memory.reference)
            if new >= self.new_labels:
                due = True
                parts.append(f", and {new:.1%} of what is held has labels that were not there then")
        return Decision(due, "".join(parts), float(rise), self.threshold, rise.noise, rise.p_value)


def _least_permutations(significance: float) -> int:
    """The smallest number, from 1, with which ``1 / (10 * number + 10)`` is not above."""
    return max(1, int(np.ceil(0.1 / significance - 1e-9)) - 1)


@dataclass(frozen=True)
class OnArrivals(Trigger):
    """Due when arrivals differ from earlier ones in a way that costs something.

    Every unit is compared with earlier arrivals that the deployed model was not trained on either
    (see `memento.arrivals`): are there new regions of labels and predictions, labels that were not
    there, or more large losses? One exact permutation test answers; its p-values are gathered over
    units as e-values in a Shiryaev-Roberts sum ``R <- (1 + R) e(p)``, which is 0 at each training
    (see `memento.newness`). If nothing changes, R reaches ``run_length`` on average not before so
    many units. Retraining is due when it does *and* the change matters: it is new beside the whole
    history, or it is predicted worse. A change that does no harm is reported, and what came with it
    is then what later units are compared with.

    The price: of every unit a fifth of the clusters (``witnesses``) enters the memory one unit
    late, a quarter of these never.

    Args:
        run_length: Units, above 1: without a change a false alarm comes on average not earlier.
        cluster: Column that says what belongs together (sessions, customers, days): rows of one
            cluster are alike, so that the cluster counts as one piece of evidence. None: rows are
            independent. If they are not, this trigger raises false alarms.
        effect: Least share of arrivals, in [0, 1], in regions that the history covers at less than
            a quarter of their density.
        worse: Least relative increase of how often losses are large (above the earlier 90 % or 95 %
            quantile).
        witnesses: Share of a unit's clusters held back, in [0, 1). 0 uses only units since the
            training, and is blind for the first of them.
        draws: Most permutations, the observation included; so many that the smallest p-value alone
            can reach ``run_length``.
        space: How arrivals are compared; the memory's policy if left out, or where it has no
            distances, label and prediction.

    Example:
        >>> OnArrivals(cluster="session").run_length
        200
    """

    kind: ClassVar[str | None] = "on-arrivals"
    run_length: Annotated[float, number(above=1, words="a number of units above 1")] = 200
    cluster: str | None = None
    effect: Annotated[float, number(0, 1, words="a share from 0 to 1")] = 0.02
    worse: Annotated[float, number(0, words="a relative increase, 0 or more")] = 0.10
    witnesses: float = 0.2
    draws: Annotated[int, whole(99)] = 19_999
    space: Space | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.keeps()

    def keeps(self) -> Arrivals:
        """Where arrivals are kept for this trigger, empty."""
        return Arrivals(witnesses=self.witnesses, cluster=self.cluster)

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        arrivals = self._kept(situation)
        unit, reference = arrivals.unit, arrivals.reference
        if not unit.size:
            return self._decision(arrivals, False, "no samples came")
        if not reference.size:
            return self._decision(
                arrivals, False, "the first arrivals since the training: nothing to compare with"
            )
        space = self.space or space_of(situation.memory, unit.samples, situation.label)
        trained = situation.memory.reference
        found = compare(space, unit, reference, draws=self.draws, rng=rng, trained=trained)
        if not found.z:
            return self._decision(
                arrivals, False, f"too few to tell ({self._sides(found)}; expected 2 or more each)"
            )
        arrivals.evidence = min((1 + arrivals.evidence) * e_value(found.p_value), 1e30)
        history = arrivals.history if arrivals.history.size else reference
        new = new_share(space, unit.samples, history.samples, tolerance=_TOLERANCE, rng=rng)
        worse = excess(space, unit.samples, reference.samples, trained)
        # No model can predict a class that it was not trained on, however long it has been there.
        known = [trained] if trained is not None and trained.size else [reference.samples]
        labels = unseen_labels(space, unit.samples, known)
        changed = arrivals.evidence >= self.run_length
        harm = bool(labels) or new >= self.effect or worse >= self.worse
        decision = self._decision(
            arrivals,
            changed and harm,
            self._sentence(found, arrivals.evidence, new, worse, labels, harm),
            found,
            {"new": new, "worse": worse, "labels": float(len(labels))},
        )
        if changed and not harm:
            # Another stream, as well predicted: it is what later arrivals are compared with, or
            # the first noise in the effect would be an alarm.
            arrivals.evidence, arrivals.renew = 0.0, True
        return decision

    def _decision(
        self,
        arrivals: Arrivals,
        due: bool,
        reason: str,
        found: Comparison | None = None,
        effects: Mapping[str, float] | None = None,
    ) -> Decision:
        """A decision with the figures of a comparison."""
        figures = dict(effects or {})
        if found is not None:
            figures |= {f"z_{name}": z for name, z in found.z.items()}
            figures |= {
                "rise": found.rise,
                "rise_noise": found.rise_noise,
                "draws": float(found.draws),
                "clusters": float(found.clusters[0]),
                "clusters_before": float(found.clusters[1]),
            }
        return Decision(
            due,
            reason,
            arrivals.evidence,
            float(self.run_length),
            p_value=math.nan if found is None else found.p_value,
            figures=figures,
        )

    def _sentence(
        self,
        found: Comparison,
        evidence: float,
        new: float,
        worse: float,
        labels: list[object],
        harm: bool,
    ) -> str:
        """What was seen, how much of it is new, with what error rate."""
        effects = [f"{max(new, 0):.1%} of the arrivals are new"]
        if labels:
            shown = ", ".join(map(str, labels[:3])) + (", ..." if len(labels) > 3 else "")
            effects.append(f"there are labels that were not there before ({shown})")
        if not math.isnan(worse):
            more = "more" if worse >= 0 else "less"
            effects.append(f"large losses are {abs(worse):.0%} {more} frequent than before")
        seen = " and ".join([", ".join(effects[:-1]), effects[-1]] if effects[1:] else effects)
        rate = (
            f"p = {found.p_value:.2g} between {self._sides(found)}; evidence {evidence:.3g} of "
            f"{self.run_length:g}, which without a change is reached once in {self.run_length:g} "
            "units or more seldom"
        )
        if evidence < self.run_length:
            return f"no change that chance could not make: {seen} ({rate})"
        if harm:
            return f"arrivals have changed: {seen} ({rate})"
        return f"arrivals have changed, but it does no harm: {seen} ({rate})"

    def _sides(self, found: Comparison) -> str:
        """How many independent ones there are on both sides, as the user knows them."""
        what = "samples" if self.cluster is None else f"clusters ({self.cluster})"
        return f"{found.clusters[0]:,} {what} that came and {found.clusters[1]:,} before"


#: What the history covers at this part of the arrivals' density is no news: 1 / 4.
_TOLERANCE = 4.0


def space_of(memory: Memory | Group, samples: Samples, label: str = "y") -> SampleSpace:
    """How a memory's samples are compared: by its policy, or by their label and prediction.

    Args:
        memory: Its policy is taken if it has distances.
        samples: Where it has none, their columns say what label and prediction are.
        label: Name of the column of labels; ``yhat`` holds predictions.

    Raises:
        SchemaError: There is neither.
    """
    policy = getattr(memory, "policy", None)
    if isinstance(policy, SampleSpace) and policy.distances:
        return policy
    distances: list[Distance] = []
    values = "yhat" in samples and samples["yhat"].ndim == 1
    if "yhat" in samples:
        distances.append(
            JensenShannon.of_values("yhat") if values else JensenShannon.of_probabilities("yhat")
        )
    if label in samples and samples[label].ndim == 1:
        if values and samples[label].dtype.kind == "f":
            distances.append(JensenShannon.of_values(label))
        else:
            distances.append(JensenShannon.of_labels(label))
    if not distances:
        raise SchemaError(
            f"there is neither a column {label!r} nor 'yhat' to compare arrivals by, only "
            f"{sorted(samples)}; give OnArrivals(space=SampleSpace([...]))"
        )
    return SampleSpace(distances)


@dataclass(frozen=True)
class OnLoss(Trigger):
    """Due when the model's mean loss on arrivals exceeds that on earlier ones.

    Both are losses on samples that the model was not trained on: those of a unit, and those of all
    units since the training. The first unit after a training is only compared with. There is no
    test: noise alone can reach the increase where units are small.

    Args:
        increase: Least relative increase, above 0: 0.1 is 10 %.
        column: Column of losses, by the deployed model.
    """

    kind: ClassVar[str | None] = "loss"
    increase: Annotated[float, number(above=0, words="a number above 0")] = 0.1
    column: Column = "loss"

    def keeps(self) -> Arrivals:
        """Where arrivals are kept for this trigger, empty."""
        return Arrivals(witnesses=0.0)

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        arrivals = self._kept(situation)
        if not arrivals.unit.size:
            return Decision(False, "no samples came", threshold=self.increase)
        now = self._mean(arrivals.unit.samples)
        if not arrivals.reference.size:
            return Decision(
                False,
                f"mean loss {now:.4g} on the first arrivals since the training: later ones are "
                "compared with it",
                threshold=self.increase,
            )
        then = self._mean(arrivals.reference.samples)
        if np.isnan(now) or not np.isfinite(then):
            raise DomainError(
                f"column {self.column!r} has a mean of {now:.4g} in what came in, of {then:.4g} "
                "before; expected finite losses"
            )
        # Losses are not negative; where there was none before, any is an infinite increase.
        value = (now - then) / then if then > 0 else (np.inf if now > 0 else 0.0)
        return Decision(
            value >= self.increase,
            f"mean loss {now:.4g} on arrivals against {then:.4g} on those since the training: "
            f"{value:+.1%} (threshold {self.increase:+.1%})",
            value,
            self.increase,
        )

    def _mean(self, samples: Samples) -> float:
        if self.column not in samples:
            raise SchemaError(
                f"column {self.column!r} is missing in what came in; have the learner annotate it"
            )
        losses = samples[self.column]
        known = losses[~np.isnan(losses)]  # labels may come later
        return float(known.mean()) if len(known) else float(losses.mean())


@dataclass(frozen=True)
class OnCount(Trigger):
    """Due when enough samples have come since the last training.

    Args:
        samples: How many, at least 1.
    """

    kind: ClassVar[str | None] = "count"
    samples: Count

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

    kind: ClassVar[str | None] = "every"
    units: Count = 1

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

    kind: ClassVar[str | None] = "never"

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        return Decision(False, "trained once and never again")
