"""river, both ways: its detectors as triggers, our triggers as detectors, one sample at a time.

river's models and detectors see one sample after the other; a memory takes whole units, since it
compares many samples at once. So what comes here is gathered, and every so many samples are a unit.
"""

from __future__ import annotations

import importlib
import inspect
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from memento import arguments
from memento.arguments import Column, instance, require, shown, whole
from memento.arrivals import Arrivals
from memento.density import SampleSpace
from memento.distances import JensenShannon
from memento.errors import DomainError, SchemaError, SettingError, needs
from memento.integrations.sklearn import SklearnLearner
from memento.memory import Memory, Report
from memento.missing import blank
from memento.observe import observe, retrained
from memento.policies import FIFO, Policy, recommended_policy
from memento.retrain import Decision, OnArrivals, Situation, Trigger
from memento.samples import Samples

with needs("river", "river", "memento.integrations.river"):
    from river import base

__all__ = ["Feed", "OnDetector", "ReplayClassifier", "ReplayRegressor", "TriggerDetector"]

# Where a detector is looked for by its name.
_HOMES = ("river.drift", "river.drift.binary")


@dataclass(frozen=True)
class OnDetector(Trigger):
    """Due when one of river's drift detectors finds a drift in a column of the arrivals.

    The detector begins anew with every training. At each unit it is shown all that came since, in
    order (beyond 20,000 rows a uniform sample of it), so it has no state of its own to be kept:
    stopped and gone on with, it decides alike.

    Args:
        detector: Its class in ``river.drift`` or ``river.drift.binary`` by name, such as
            ``"ADWIN"`` or ``"DDM"``; or a detector, of which the settings are taken.
        parameters: Of the detector by name, JSON values; what is left out has river's default.
        column: Numbers to watch, such as losses by the deployed model; for binary detectors 0 and
            1. Missing ones are passed over.

    Raises:
        MissingExtraError: river is not installed.
        SettingError: river has no such detector, or it takes no such parameters; a detector of
            somebody else's, which settings on disk could not refer to.

    Example:
        >>> from river import drift
        >>> OnDetector(drift.ADWIN(delta=0.01)).settings()["parameters"]["delta"]
        0.01
        >>> OnDetector("PageHinkley", {"threshold": 10.0}).made().threshold
        10.0
    """

    kind: ClassVar[str] = "river"
    detector: Any = "ADWIN"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    column: Column = "loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.detector
        if isinstance(given, base.Base):
            own = {**_settings(given), **self.parameters}
            object.__setattr__(self, "detector", type(given).__name__)
            object.__setattr__(self, "parameters", own)
            if type(given) is not self._kind_of_detector():
                raise SettingError(
                    f"detector is {shown(given)}, which is none of river.drift's; derive a trigger "
                    "from memento.Trigger that asks it, see OnDetector"
                )
        require("detector", self.detector, arguments.text("a detector of river.drift"))
        require("parameters", self.parameters, instance(Mapping, "a mapping"))
        # A copy, which nobody changes.
        object.__setattr__(self, "parameters", dict(self.parameters))
        self.made()

    def __hash__(self) -> int:
        return hash((self.detector, *sorted(self.parameters), self.column))

    def keeps(self) -> Arrivals:
        """Where arrivals are kept for this trigger, empty."""
        return Arrivals(witnesses=0.0)

    def settings(self) -> dict[str, Any]:
        """Its kind and its fields, JSON values."""
        return {**super().settings(), "parameters": dict(self.parameters)}

    def made(self) -> Any:
        """A new detector of river's.

        Raises:
            SettingError: The parameters do not fit.
        """
        made, parameters = self._kind_of_detector(), dict(self.parameters)
        if parameters.get("seed") is None and "seed" in inspect.signature(made).parameters:
            parameters["seed"] = 0  # what it draws is the same at every look
        try:
            return made(**parameters)
        except (TypeError, ValueError) as error:
            raise SettingError(
                f"river's {self.detector} does not take {shown(dict(self.parameters))}: {error}"
            ) from error

    def _kind_of_detector(self) -> type[Any]:
        known: dict[str, type[Any]] = {}
        for home in _HOMES:
            module = importlib.import_module(home)
            found = {name: getattr(module, name, None) for name in module.__all__}
            known |= {n: k for n, k in found.items() if isinstance(k, type) and _detects(k)}
        if self.detector not in known:
            raise SettingError(
                f"detector is {shown(self.detector)}; river has {', '.join(sorted(known))}"
            )
        made: type[Any] = known[self.detector]
        return made

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        arrivals = self._kept(situation)
        if not arrivals.unit.size:
            return Decision(False, "no samples came")
        detector, seen = self.made(), 0
        binary = not isinstance(detector, base.DriftDetector)
        for part in (arrivals.reference, arrivals.unit):
            values = self._values(part.samples, binary) if part.size else []
            for value in values:
                seen += 1
                detector.update(value)
                if detector.drift_detected:
                    return Decision(
                        True,
                        f"{self.detector} found a drift in {self.column!r} at sample {seen:,} "
                        "since the training",
                        1.0,
                        1.0,
                    )
        return Decision(
            False,
            f"{self.detector} found no drift in {self.column!r} in {seen:,} samples since the "
            "training",
            0.0,
            1.0,
        )

    def _values(self, samples: Any, binary: bool) -> list[float]:
        """What the detector is shown: Python's numbers, or truth values."""
        if self.column not in samples:
            raise SchemaError(
                f"column {self.column!r} is missing in what came in, among {sorted(samples)}; have "
                "the learner annotate it, or name another"
            )
        values = samples[self.column]
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise SchemaError(
                f"column {self.column!r} holds {values.dtype} of shape {values.shape}; expected "
                "one number a sample"
            )
        known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
        if binary and not np.isin(known, (0, 1)).all():
            raise DomainError(
                f"{self.detector} watches truth values, and column {self.column!r} goes from "
                f"{known.min():.4g} to {known.max():.4g}; name a column of 0 and 1, or take a "
                "detector of numbers, such as ADWIN"
            )
        found: list[float] = (known.astype(bool) if binary else known).tolist()
        return found


def _settings(detector: Any) -> dict[str, Any]:
    """What a detector was made with."""
    found = {}
    for name, value in detector._get_params().items():
        if value is None or isinstance(value, (bool, int, float, str)):
            found[name] = value
        elif not (isinstance(value, Sized) and not len(value)):  # KSWIN's window, before any number
            raise SettingError(
                f"river's {type(detector).__name__} has {name}={shown(value)}, which settings "
                "cannot hold; give one that has seen nothing, with numbers and texts for settings"
            )
    return found


def _detects(kind: type) -> bool:
    return issubclass(kind, (base.DriftDetector, base.BinaryDriftDetector))


class TriggerDetector(base.DriftDetector):
    """One of our triggers as a drift detector of river's, wherever that takes one.

    Every ``unit`` samples are compared with those before, so a drift is found at the end of a unit.
    Then the detector begins anew: the next unit is what later ones are compared with.

    Args:
        trigger: Decides; `OnArrivals` if left out, which counts every change of the numbers that
            it sees as one.
        unit: Samples that are compared at once, at least 2.
        column: Name that a number gets which is handed to `update`.
        seed: Of the permutations.

    Attributes:
        decision: The newest decision with its reason and figures; None before the first.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> detector = TriggerDetector(unit=100)
        >>> for i, loss in enumerate([*rng.normal(size=1000), *rng.normal(1.0, size=1000)]):
        ...     detector.update(float(loss))
        ...     if detector.drift_detected:
        ...         print("drift at", i + 1)
        drift at 1100
    """

    def __init__(
        self,
        trigger: Trigger | None = None,
        unit: int = 250,
        column: str = "loss",
        seed: int = 0,
    ) -> None:
        super().__init__()
        require("trigger", trigger, arguments.optional(instance(Trigger, "a Trigger")))
        require("unit", unit, whole(2))
        require("column", column, arguments.text())
        self.trigger, self.unit, self.column, self.seed = trigger, unit, column, seed
        self._reset()

    def _reset(self) -> None:
        super()._reset()
        self.decision: Decision | None = None
        self._trigger = self.trigger or OnArrivals(
            effect=0.0, worse=0.0, space=SampleSpace([JensenShannon.of_values(self.column)])
        )
        kept = self._trigger.keeps()
        # Nothing is held back: there is no model that could be trained on it.
        self._arrivals = Arrivals(witnesses=0.0, cluster=kept.cluster if kept else None)
        self._arrivals.trained_at = 0
        self._feed = Feed(Memory(8 * self.unit, FIFO()), self.unit)
        self._rng = arguments.generator(self.seed)

    def update(self, x: Any) -> None:
        """Look at one more sample.

        Args:
            x: A number; or, as no detector of river's takes it, a mapping of columns to values.

        Raises:
            DomainError: A number that is not finite.
        """
        sample = x if isinstance(x, Mapping) else {self.column: x}
        bad = [n for n, v in sample.items() if isinstance(v, (float, np.floating)) and v - v != 0]
        if bad:
            raise DomainError(f"{bad[0]!r} is {sample[bad[0]]}; expected finite numbers")
        self._drift_detected = False
        unit = self._feed.gather(sample)
        if unit is None:
            return
        memory, arrivals = self._feed.memory, self._arrivals
        (entering,) = arrivals.arrive(Samples.borrow(unit), self._rng)
        memory.insert(entering)
        if memory.reference is None:
            memory.mark_trained()
        situation = Situation(
            memory, arrivals.units, arrivals.trained_at, arrivals.seen_at, arrivals
        )
        self.decision = self._trigger.decide(situation, self._rng)
        if self.decision.due:
            self._drift_detected = True
            memory.mark_trained()
            arrivals.trained(None, memory.seen)


class Feed:
    """A memory that is fed one sample at a time.

    Args:
        memory: Receives the samples, a unit at once.
        unit: Samples that are gathered before they are inserted.
        trigger: Asked after each unit, see `memento.observe`; None: nobody is.

    Attributes:
        decision: What the trigger said of the newest unit; None before the first.

    Example:
        >>> from memento import Reservoir
        >>> feed = Feed(Memory(100, Reservoir()), unit=50)
        >>> for i in range(120):
        ...     feed.learn_one({"age": i, "height": 1.5}, y=i % 2 == 0)
        >>> feed.memory.seen, feed.waiting
        (100, 20)
        >>> feed.flush().offered
        20
    """

    @arguments.checked
    def __init__(
        self, memory: Memory, unit: arguments.Count = 250, trigger: Trigger | None = None
    ) -> None:
        self.memory, self.unit, self.trigger = memory, unit, trigger
        self.decision: Decision | None = None
        self._rows: list[dict[str, Any]] = []

    @property
    def waiting(self) -> int:
        """Samples that are gathered and not inserted yet."""
        return len(self._rows)

    @arguments.checked
    def learn_one(self, x: Mapping[str, Any], y: Any = None) -> None:
        """Take one sample, and insert what was gathered where that is a whole unit.

        Args:
            x: Values by name, each of which becomes a column: numbers, texts or arrays. What one
                sample of a unit lacks is missing there (NaN, an empty text).
            y: Label, for the column ``y``; None: there is none.

        Raises:
            InputError: The memory refuses the unit, of which this is the last sample. The memory is
                as it was, and the unit is lost.
        """
        unit = self.gather(x if y is None else {**x, "y": y})
        if unit is not None:
            self._insert(unit)

    def flush(self) -> Report:
        """Insert what is gathered, though it is no whole unit.

        Returns:
            What the insert did.
        """
        rows, self._rows = self._rows, []
        return self._insert(_columns(rows))

    @arguments.checked
    def gather(self, sample: Mapping[str, Any]) -> dict[str, Any] | None:
        """Keep a sample; the columns of the unit that it completes, which then is not kept."""
        self._rows.append(dict(sample))
        if len(self._rows) < self.unit:
            return None
        rows, self._rows = self._rows, []
        return _columns(rows)

    def _insert(self, unit: dict[str, Any]) -> Report:
        if not unit:
            return Report(0, 0, 0)
        size = len(next(iter(unit.values())))
        for name, column in self.memory.samples.items():
            if name not in unit:
                unit[name] = blank(name, size, column)
        if self.trigger is None:
            return self.memory.insert(unit)
        report, self.decision = observe(self.memory, unit, self.trigger)
        return report


def _columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Columns of samples that need not have the same names."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {}
    for name in names:
        there = [row[name] for row in rows if name in row]
        if len(there) < len(rows):
            gap = "" if isinstance(there[0], str) else float("nan")
            there = [row.get(name, gap) for row in rows]
        columns[str(name)] = there
    return columns


class _Replay(base.Estimator):
    """What both models have in common: a memory, a learner, and the order of a unit."""

    def __init__(
        self,
        estimator: Any = None,
        policy: Policy | None = None,
        trigger: Trigger | None = None,
        capacity: int = 1000,
        unit: int = 250,
        seed: int = 0,
    ) -> None:
        require("trigger", trigger, arguments.optional(instance(Trigger, "a Trigger")))
        require("policy", policy, arguments.optional(instance(Policy, "a Policy")))
        require("unit", unit, whole(2))
        self.estimator, self.policy, self.trigger = estimator, policy, trigger
        self.capacity, self.unit, self.seed = capacity, unit, seed
        self.memory = Memory(capacity, policy or self._policy(), seed)
        self.learner = SklearnLearner(self._estimator() if estimator is None else estimator)
        self.decision: Decision | None = None
        self._names: list[Hashable] = []
        self._rows: list[tuple[dict[Hashable, float], float]] = []
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """Nothing has been seen yet."""

    @abstractmethod
    def _policy(self) -> Policy:
        """What decides about samples if nothing was given."""

    @abstractmethod
    def _estimator(self) -> Any:
        """What learns if nothing was given."""

    def _learn(self, x: Mapping[Hashable, Any], number: float) -> None:
        """Gather a sample with its label as a number; learn from a unit that is whole."""
        self._rows.append((_numbers(x), number))
        if len(self._rows) < self.unit:
            return
        rows, self._rows = self._rows, []
        if not self._names:
            self._names = sorted({name for row, _ in rows for name in row}, key=str)
        labels = [label for _, label in rows]
        samples = Samples(x=[self._vector(row) for row, _ in rows], y=labels)
        if self.learner.trained:
            samples = samples.with_columns(self.learner.annotate(samples))
        _, self.decision = observe(self.memory, samples, self.trigger)
        if self.decision.due:
            self.learner.fit(self.memory.samples, self.memory.weights)
            retrained(self.memory, self.learner.annotate)

    def _vector(self, x: Mapping[Hashable, float]) -> list[float]:
        return [x.get(name, 0.0) for name in self._names]

    def _predict(self, x: Mapping[Hashable, Any]) -> Any:
        """What the learner predicts for one sample."""
        return self.learner.annotate(Samples(x=[self._vector(_numbers(x))]))["yhat"][0]

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {"unit": 50, "capacity": 100}


def _numbers(x: Mapping[Hashable, Any]) -> dict[Hashable, float]:
    try:
        return {name: float(value) for name, value in x.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise SchemaError(
            f"a feature is no number ({error}); put one of river's transformers before the model, "
            "such as OneHotEncoder() | ReplayClassifier()"
        ) from error


class ReplayClassifier(_Replay, base.Classifier):
    """A classifier of river's that learns anew from a memory, when that can pay off.

    Every ``unit`` samples are a unit of the daily loop: predicted by the current model, inserted
    into the memory, and compared with those before; where the trigger says so, the estimator is
    trained on what is held. Until the first unit is whole, predictions are the shares of labels.

    Features are those of the first unit; later ones are passed over, and one that a sample lacks is
    0 there, as in river's linear models.

    Args:
        estimator: A scikit-learn classifier; a standardised logistic regression if left out.
        policy: Of the memory; what `memento.recommended_policy` says if left out.
        trigger: Decides; `OnArrivals()` if left out.
        capacity: Samples that the memory holds at most.
        unit: Samples that are gathered before any of them is learned from, at least 2.
        seed: Of the memory.

    Attributes:
        memory: Columns ``x``, ``y`` (labels, numbered in the order in which they came), ``yhat``,
            ``loss``.
        learner: The model as our loop sees it.
        decision: What the trigger said of the newest unit; None before the first.

    Example:
        >>> from river import datasets, evaluate, metrics
        >>> model = ReplayClassifier(unit=100, capacity=300)
        >>> evaluate.progressive_val_score(
        ...     datasets.Phishing(), model, metrics.Accuracy()
        ... ).get() > 0.8
        True
    """

    def _begin(self) -> None:
        self._labels: dict[Hashable, int] = {}
        self._counts: list[int] = []

    def _policy(self) -> Policy:
        return recommended_policy(self.capacity, classes=2)

    def _estimator(self) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))

    @property
    def _multiclass(self) -> bool:
        return True

    def learn_one(self, x: Mapping[Hashable, Any], y: Any) -> None:
        """Take one sample, and learn from the unit that it completes.

        Args:
            x: Numbers by name.
            y: Label, anything that a mapping takes for a key.
        """
        require("y", y, instance(Hashable, "a label that a mapping takes for a key"))
        number = self._labels.setdefault(y, len(self._labels))
        self._counts += [0] * (len(self._labels) - len(self._counts))
        self._counts[number] += 1
        self._learn(x, number)

    def predict_proba_one(self, x: Mapping[Hashable, Any], **kwargs: Any) -> dict[Any, float]:
        """Probabilities by label; of one that was not learned yet, 0. Without any label: empty."""
        found = np.zeros(len(self._labels))
        if self.learner.trained:
            assert self.learner.classes_ is not None
            found[self.learner.classes_] = self._predict(x)
        else:
            found += self._counts
        return dict(zip(self._labels, (found / (found.sum() or 1.0)).tolist(), strict=True))


class ReplayRegressor(_Replay, base.Regressor):
    """The same for numbers; before the first unit is whole it predicts their mean.

    Args:
        estimator: A scikit-learn regressor; a standardised ridge regression if left out.
        policy: As for `ReplayClassifier`.
        trigger: As for `ReplayClassifier`.
        capacity: As for `ReplayClassifier`.
        unit: As for `ReplayClassifier`.
        seed: As for `ReplayClassifier`.

    Example:
        >>> from river import datasets, evaluate, metrics
        >>> model = ReplayRegressor(unit=50, capacity=300)
        >>> evaluate.progressive_val_score(datasets.TrumpApproval(), model, metrics.MAE()).get() < 2
        True
    """

    def _begin(self) -> None:
        self._sum, self._count = 0.0, 0

    def _policy(self) -> Policy:
        return recommended_policy(self.capacity)

    def _estimator(self) -> Any:
        from sklearn.linear_model import Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        return make_pipeline(StandardScaler(), Ridge())

    def learn_one(self, x: Mapping[Hashable, Any], y: Any) -> None:
        """Take one sample, and learn from the unit that it completes.

        Args:
            x: Numbers by name.
            y: Number to predict.
        """
        try:
            number = float(y)
        except (TypeError, ValueError) as error:
            raise SchemaError(f"y is {shown(y)}; expected a number") from error
        self._sum, self._count = self._sum + number, self._count + 1
        self._learn(x, number)

    def predict_one(self, x: Mapping[Hashable, Any], **kwargs: Any) -> float:
        """A number."""
        return float(self._predict(x)) if self.learner.trained else self._sum / max(self._count, 1)
