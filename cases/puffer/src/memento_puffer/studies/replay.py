"""Replays of the daily loop: which samples are kept, when a model is trained, how good it is.

Day t is inserted, coverage is compared with the last training's, a training follows or not, and the
model is judged on all samples of day t + 1, beside others on the same samples: the static one that
all trainings start from, the one that Puffer published that day, and, of an ensemble, its oracle
and its matchmaker. Everything is recorded day by day in a folder, from which a replay that was
stopped goes on exactly.

    Replay            one memory, one learner, many days
    ARMS              memories and schedules by name
    improvements      by how much replays of the same days beat each other
    selection_study   what density and loss keep of one set of samples

Source: the Memento paper, sections 5 and 6, and its artefact.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from memento.arrivals import Arrivals
from memento.coverage import coverage_increase
from memento.density import SampleSpace, cross_density
from memento.distances import Minkowski
from memento.errors import DamagedError, ForeignError, SchemaError, SettingError
from memento.files import Lock, atomic_write, storage_errors
from memento.group import Group
from memento.learner import Learner, digest_of_state
from memento.loop import Step, run, table
from memento.memory import Memory, Report
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
from memento.samples import Samples
from memento.training import Ensemble, JustTrainTwice
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.data.schema import Day, polars
from memento_puffer.deployment.deploy_settings import puffer_policy
from memento_puffer.predictor.scores import QUANTILES, errors_by_class, quantiles, score, summarise
from memento_puffer.predictor.training_sets import learner_for
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp import Network, clamp_sentinels, read_py, selected_inputs
from memento_puffer.predictor.ttp_training import Training, TrainingSettings, TtpLearner

__all__ = [
    "AFFORDABLE",
    "ARMS",
    "TRIGGERS",
    "OnAllowedDays",
    "Replay",
    "ReplaySettings",
    "arm",
    "extra_columns",
    "first_network",
    "fixed",
    "improvements",
    "published_models",
    "selection_study",
    "with_stalls",
]

Published = Callable[[str], "Network | None"]
Progress = Callable[[int, int, str], None]
Days = Mapping[str, "Features | Path | Callable[[], Features]"]

AFFORDABLE = TrainingSettings(
    epochs=60, scratch_epochs=200, learning_rate=1e-3, patience=8, moments="estimate"
)
"""Trainings of seconds instead of hours: ten times the artefact's rate, and impatient."""

TRIGGERS = ("always", "coverage", "coverage-calibrated", "loss", "count", "period", "never")

_VARIABLES = ("y", "p", "logscore", "err", "err_abs", "err_sqr")
_HEADLINES = {"p01": "q0.01", "median": "q0.5", "mean": "mean"}
_FORMAT = "memento-replay"
_STUDY_ROWS = 1 << 18


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
        training: How.
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
    capacity: int | None = 1_000_000
    horizon: int = 0
    interval: int = 7
    trigger: str = "always"
    threshold: float = 0.1
    significance: float = 0.05
    jtt: float = 1.0
    members: int = 1
    freeze_after: int | None = None
    predict_first: bool = False
    weighted: bool = True
    training: TrainingSettings = AFFORDABLE
    coverage_batch: int = 256
    densities: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "densities", tuple(self.densities))
        whole = {"capacity": 1, "interval": 1, "members": 1, "coverage_batch": 1, "seed": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if name == "capacity" and value is None:
                continue  # the policy says below whether it can do without
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SettingError(f"{name}={value!r}; give a whole number of at least {least}")
        if self.freeze_after is not None and self.freeze_after < 1:
            raise SettingError(f"freeze_after={self.freeze_after}; give at least 1 day, or None")
        if self.horizon not in range(HORIZONS):
            raise SettingError(f"horizon={self.horizon}; give 0 to {HORIZONS - 1}")
        if self.trigger not in TRIGGERS:
            raise SettingError(f"trigger={self.trigger!r}; give one of {', '.join(TRIGGERS)}")
        if not 1 <= self.jtt < math.inf:
            raise SettingError(f"jtt={self.jtt}; give a factor of at least 1 (which is none)")
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
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **found,
            "policy": self.policy.settings(),
            "training": dataclasses.asdict(self.training),
            "densities": list(self.densities),
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> ReplaySettings:
        """From JSON; what is left out has its default.

        Args:
            document: Values by name. ``policy`` is a mapping with ``kind`` and the policy's
                settings, ``training`` one of `TrainingSettings`, on top of `AFFORDABLE`.

        Raises:
            SettingError: An unknown name, or a value that does not fit.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(document) - set(names))
        if unknown:
            raise SettingError(f"unknown setting {unknown[0]!r}; there are {', '.join(names)}")
        values = dict(document)
        if "policy" in values:
            policy = dict(values["policy"])
            values["policy"] = puffer_policy(policy.pop("kind", "memento"), **policy)
        if "training" in values:
            try:
                values["training"] = replace(AFFORDABLE, **values["training"])
            except TypeError as error:
                raise SettingError(f"training: {error}; see TrainingSettings") from error
        return cls(**values)


# ------------------------------------------------------------------------------------------ arms

_EUCLIDEAN = {
    "euclidean": [Minkowski("yhat").settings(), Minkowski("seconds").settings()],
    "euclidean-inputs": [Minkowski("z").settings(), Minkowski("seconds").settings()],
}

#: Memories and schedules by name: what each changes of given settings.
ARMS: dict[str, dict[str, Any]] = {
    "memento": {"policy": {"kind": "memento"}},
    "memento-T0": {"policy": {"kind": "memento", "temperature": 0.0}},
    "density-reservoir": {"policy": {"kind": "density-reservoir"}},
    # What the paper compares with; Fugu's own scheme, trained daily; and without forgetting.
    "random": {"policy": {"kind": "reservoir", "forget": 0.1}},
    "daily": {
        "policy": {"kind": "daily-window", "days": 14, "decay": 0.9},
        "interval": 1,
        "trigger": "always",
        "jtt": 1.0,
        "members": 1,
    },
    "reservoir": {"policy": {"kind": "reservoir"}},
    "fifo": {"policy": {"kind": "fifo"}},
    # Batch means instead of distributions; of predictions, or of inputs without any model.
    "euclidean": {"policy": {"kind": "memento", "distances": _EUCLIDEAN["euclidean"]}},
    "euclidean-inputs": {
        "policy": {
            "kind": "memento",
            "distances": _EUCLIDEAN["euclidean-inputs"],
            "sort_by": ["y", "x"],
        }
    },
    "loss": {"policy": {"kind": "metric", "column": "loss", "measure": "negative"}},
    "confidence": {"policy": {"kind": "metric", "column": "yhat", "measure": "confidence"}},
    "labels": {"policy": {"kind": "metric", "column": "y_bin", "measure": "frequency"}},
    "stalled": {"policy": {"kind": "metric", "column": "stalled", "measure": "unset"}},
    "loss-aware": {
        "policy": {"kind": "loss-aware-reservoir", "label": "y_bin", "missing": "random"}
    },
    "class-balanced": {"policy": {"kind": "class-balanced-reservoir", "label": "y_bin"}},
    # By what the predictor's last hidden layer makes of samples; until there is one, at random.
    "herding": {"policy": {"kind": "herding", "missing": "random"}},
    "k-center": {"policy": {"kind": "k-center-greedy", "missing": "random"}},
    "facility-location": {"policy": {"kind": "facility-location", "missing": "random"}},
    "gradient": {"policy": {"kind": "gradient-sample-selection", "missing": "random"}},
    "unbounded": {"policy": {"kind": "unbounded"}, "capacity": None},
    "committee": {"policy": {"kind": "query-by-committee"}, "members": 7},
}
for _name in ("loss", "confidence"):  # they know no sample without a prediction
    ARMS[_name]["predict_first"] = True
for _name in ("labels", "stalled"):  # base temperatures of the paper
    ARMS[_name]["policy"]["temperature"] = 0.01
del _name

_SCHEDULE = ("interval", "trigger", "jtt", "members")


def fixed(name: str) -> dict[str, Any]:
    """What a named arm is known by, beside its policy: none of it can be given otherwise.

    Example:
        >>> fixed("daily")
        {'interval': 1, 'trigger': 'always', 'jtt': 1.0, 'members': 1}
    """
    changes = ARMS.get(name, {})
    return {key: changes[key] for key in _SCHEDULE if key in changes and name != "committee"}


def arm(name: str, given: Mapping[str, Any] | None = None, **fields: Any) -> ReplaySettings:
    """Settings of a named arm.

    Args:
        name: One of `ARMS`.
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
    if name not in ARMS:
        raise SettingError(f"no arm {name!r}; there are {', '.join(ARMS)}")
    defaults = {f.name: f.default for f in dataclasses.fields(ReplaySettings)}
    for key, value in fixed(name).items():
        if (given or {}).get(key, value) not in (value, defaults[key]):
            raise SettingError(
                f"the arm {name!r} has {key} = {value!r}, not {(given or {})[key]!r}; leave {key} "
                "out, or choose another arm"
            )
    changes = {**ARMS[name], "policy": dict(ARMS[name]["policy"])}
    kind = changes["policy"].pop("kind")
    known = puffer_policy(kind, **changes["policy"]).settings()
    own = {key: value for key, value in fields.items() if key in known and value is not None}
    if kind == "metric":
        own.pop("batch_size", None)  # the paper's metrics judge single samples
    if kind == "query-by-committee" and (given or {}).get("members", 1) > 1:
        del changes["members"]  # a committee of another size
    changes["policy"] = {"kind": kind, **changes["policy"], **own}
    return ReplaySettings.of_document({**(given or {}), **changes})


# --------------------------------------------------------------------------------------- trigger


@dataclass(frozen=True)
class OnAllowedDays(Trigger):
    """Asks another trigger, but only on every ``interval``-th day; and measures coverage each day.

    Args:
        interval: Units: with 7, the first training is on the 7th.
        trigger: Decides on these; the first is always due.
        space: How coverage is measured.

    Attributes:
        notes: Of the last decision, ``coverage_plain`` and ``coverage_calibrated``; 1 before the
            first training.

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
    notes: dict[str, float] = field(default_factory=dict, compare=False, repr=False)

    def keeps(self) -> Arrivals | None:
        """See `Trigger.keeps`."""
        return self.trigger.keeps()

    def decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        """See `Trigger.decide`."""
        self._measure(situation.memory)
        if (situation.unit + 1) % self.interval:
            return Decision(
                False, f"day {situation.unit + 1}: trainings only every {self.interval} days"
            )
        return super().decide(situation, rng)

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        return self.trigger.decide(situation, rng)

    def _measure(self, memory: Memory | Group) -> None:
        self.notes.clear()
        for estimator in ("plain", "calibrated"):
            rise = 1.0
            if memory.reference is not None and len(memory):
                rise = float(
                    coverage_increase(
                        memory.samples,
                        memory.reference,
                        self.space,
                        estimator=estimator,
                        permutations=0,
                    )
                )
            self.notes[f"coverage_{estimator}"] = rise


# ------------------------------------------------------------------------------------------ days


class _Day(Mapping[str, np.ndarray]):
    """Columns of a day, made when they are asked for: a replay that goes on skips what it knows.

    A day is judged first and inserted then, so its columns are kept until the next one is judged;
    then they go, since two days of millions of samples need not be in memory at once.
    """

    def __init__(self, make: Callable[[], dict[str, np.ndarray]], before: _Day | None) -> None:
        self._make = make
        self._before = before
        if before is not None:
            before._before = None  # no chain: each holds its day's files open
        self._columns: dict[str, np.ndarray] = {}

    def _made(self) -> dict[str, np.ndarray]:
        if not self._columns:
            if self._before is not None:
                self._before._columns = {}
                self._before = None
            self._columns = self._make()
        return self._columns

    def __getitem__(self, name: str) -> np.ndarray:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())


def _open(source: Features | Path | Callable[[], Features]) -> Features:
    if isinstance(source, Features):
        return source
    return source() if callable(source) else Features.read(source)


def columns_of(
    features: Features,
    horizon: int,
    number: int = 0,
    *,
    extra: Sequence[str] = (),
    base: Network | None = None,
) -> dict[str, np.ndarray]:
    """Samples of a day as a replay sees them.

    Args:
        features: The day.
        horizon: 0 to 4.
        number: Of the day.
        extra: Further columns, for policies that look at them: ``seconds``, ``z``, ``stalled``.
        base: Its moments make ``z``.

    Returns:
        x (n, 62) float32, min_rtt not measured clamped to rtt; y (n,) float64 s; y_bin; day; and
        those asked for: seconds (n, 1), y as a row; z (n, 62) x standardised; stalled, whether the
        sample's stream ever stalled.

    Raises:
        SchemaError: The day does not know which streams stalled.
    """
    found = features.columns(horizon, dtype=np.float32, sentinels="clamp")
    _, targets = features.samples(horizon)
    # From the times themselves: float32 could put one that lies on a boundary into another class.
    y = (features.acked[targets] - features.sent[targets]) / 1e9
    columns = {"x": found["x"], "y": y, "y_bin": found["y_bin"]}
    columns["day"] = np.full(len(y), number, np.int64)
    if "seconds" in extra:
        columns["seconds"] = y[:, None].astype(np.float32)
    if "z" in extra:
        if base is None:
            raise SchemaError("column 'z' is made with the moments of the static model; give one")
        x = selected_inputs(clamp_sentinels(found["x"]), base.inputs)
        columns["z"] = base.moments.standardise(x, np.float32)
    if "stalled" in extra:
        if "stalled" not in features.streams.columns:
            raise SchemaError(
                "column 'stalled' of the streams is missing; give the day's files instead of its "
                "features, or features of `with_stalls`"
            )
        flags = features.streams["stalled"].to_numpy()
        columns["stalled"] = flags[found["stream"]].astype(bool)
    return columns


def with_stalls(features: Features, stalled: Day | np.ndarray) -> Features:
    """Features that know which of their streams stalled after the startup: column ``stalled``.

    Args:
        features: Of a day.
        stalled: (streams,) bool; or the day they are of, which is then analysed.

    Raises:
        SchemaError, DamagedError, StorageError: Of the day's files.
    """
    if isinstance(stalled, Day):
        from memento_puffer.quality.analysis import analyze_day

        stalled = np.asarray(analyze_day(stalled).streams["stall"] > 0)
    pl = polars("marking streams that stalled")
    column = pl.Series("stalled", np.asarray(stalled, bool))
    return replace(features, streams=features.streams.with_columns(column))


def first_network(
    features: Features, horizon: int, settings: TrainingSettings = AFFORDABLE
) -> Network:
    """A predictor from random weights, trained on all samples of one day.

    What a replay of simulated days takes for its static model, as Fugu-Feb is for real ones.

    Raises:
        SchemaError: The day holds no samples.
    """
    columns = columns_of(features, horizon)
    return Training(None, columns["x"], columns["y_bin"], None, settings).run()


def published_models(folder: str | Path, horizon: int) -> Published:
    """Models that were published day by day, as `download` leaves them.

    Args:
        folder: With a folder for each day, as ``2022-03-01/py-0.pt``.
        horizon: Which of the five networks.

    Returns:
        A function from a day's name to the network that served on it; None where there is none.
    """

    def of(day: str) -> Network | None:
        path = Path(folder) / day / f"py-{horizon}.pt"
        return read_py(path) if path.is_file() else None

    return of


# ---------------------------------------------------------------------------------------- replay


class Replay:
    """One memory and one learner over many days.

    Args:
        folder: Receives the state and the record of each day; a replay goes on from what is there.
        settings: What is replayed.
        days: Name -> features, or where these are stored, or a function that gives them; in order.
            Days without chunks are no days.
        base: The static model: trainings start from it (see ``settings.training.start``), and it is
            judged on every day. None: random weights, and no static model.
        published: From a day's name to the model that was published for it, or None.

    Raises:
        SettingError: No days, or a policy that needs a base without one.

    Example:
        >>> import tempfile
        >>> import polars as pl
        >>> from memento_puffer.data.features import STEP
        >>> rng = np.random.default_rng(0)
        >>> def day() -> Features:
        ...     n = 300
        ...     values = rng.uniform(1, 2, (n, 7))
        ...     sent = np.arange(n) * 2 * 10**9
        ...     acked = sent + (values[:, -1] * 1e9).astype(np.int64)
        ...     ts, streams = np.arange(n) * STEP, pl.DataFrame({"stream": [0]})
        ...     return Features(values, np.zeros(n, np.int32), ts, sent, acked, streams)
        >>> fast = replace(AFFORDABLE, epochs=2, scratch_epochs=2)
        >>> settings = arm("random", {"capacity": 200, "interval": 2, "training": {"epochs": 2}})
        >>> days = {f"2022-01-0{i}": day() for i in range(1, 5)}
        >>> base = first_network(day(), 0, fast)
        >>> steps = Replay(tempfile.mkdtemp(), settings, days, base).run()
        >>> [step.trained for step in steps], steps[1].evaluated_on
        ([False, True, False, True], '2022-01-03')
    """

    def __init__(
        self,
        folder: str | Path,
        settings: ReplaySettings,
        days: Days,
        base: Network | None = None,
        published: Published | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.settings = settings
        self.base = base
        self.published = published
        self._days = dict(days)
        if not self._days:
            raise SettingError("no days to replay; give at least one")
        self._extra = extra_columns(settings.policy)
        if base is None and ("z" in self._extra or settings.predict_first):
            raise SettingError(
                "this policy needs the static model from the first day on; give base"
            )
        self._names: list[str] = []
        self._found: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}

    def run(self, progress: Progress | None = None) -> list[Step]:
        """Replay all days that were not replayed yet.

        A process may be killed at any moment; the next call goes on after the last day that was
        complete, with the result of an undisturbed replay, byte for byte.

        Args:
            progress: Called after each day with the number of days done, of all, and its name.

        Returns:
            A step for each day, see `memento.loop.Step`.

        Raises:
            ForeignError: The folder is of a replay with other settings or another base.
            LockedError: Another process replays in this folder.
            InputError: A day cannot be used; a note names it.
        """
        with storage_errors("make the folder", self.folder):
            (self.folder / "days").mkdir(parents=True, exist_ok=True)
            (self.folder / "times").mkdir(exist_ok=True)
        with Lock(self.folder / "lock"):
            self._claim()
            for place in ("days", "times"):
                for path in (self.folder / place).glob(".*.tmp"):
                    path.unlink(missing_ok=True)
            return self._run(progress)

    def _run(self, progress: Progress | None) -> list[Step]:
        settings = self.settings
        learner = self._learner()
        trigger = settings.decision
        timed = _TimedLearner(learner, self._seconds)
        memory = _TimedMemory(settings.capacity, settings.policy, settings.seed)
        memory.seconds = self._seconds
        clock = [time.perf_counter()]

        def on_step(step: Step) -> None:
            self._record(step, memory, trigger)
            now = time.perf_counter()
            self._seconds["day"] = now - clock[0]
            clock[0] = now
            self._write("times", step.unit, dict(self._seconds))
            self._seconds.clear()

        steps = []
        for step in run(
            self._stream(),
            memory,
            timed,
            trigger,
            scores=lambda samples: self._evaluate(samples, memory, learner),
            weighted=settings.weighted,
            freeze_after=settings.freeze_after,
            checkpoint=self.folder / "state",
            on_step=on_step,
            rng=np.random.default_rng([settings.seed, 1]),
        ):
            steps.append(replace(step, restored=False))
            if progress is not None:
                progress(len(steps), len(self._days), step.name)
        return steps

    def _learner(self) -> Learner:
        settings = self.settings
        training = replace(settings.training, seed=settings.training.seed + settings.seed)
        learner: Any = learner_for(settings.policy, self.base, training)
        if settings.predict_first and self.base is not None:
            learner.restore(self.base.arrays())
        if settings.jtt > 1:
            learner = JustTrainTwice(learner, settings.jtt)
        if settings.members > 1:
            asked = isinstance(settings.policy, QueryByCommittee)
            learner = Ensemble(learner, settings.members, committee="mean" if asked else "none")
        return cast(Learner, learner)

    def _stream(self) -> Iterator[tuple[str, _Day]]:
        self._names.clear()
        day: _Day | None = None
        for name, source in self._days.items():
            features = _open(source)
            if not features.size:
                continue
            number = len(self._names)
            self._names.append(name)
            day = _Day(self._reader(features, number), day)
            yield name, day

    def _reader(self, features: Features, number: int) -> Callable[[], dict[str, np.ndarray]]:
        def read() -> dict[str, np.ndarray]:
            with _timed(self._seconds, "read"):
                return columns_of(
                    features,
                    self.settings.horizon,
                    number,
                    extra=self._extra,
                    base=self.base,
                )

        return read

    def _evaluate(self, samples: Samples, memory: Memory, learner: Learner) -> Mapping[str, float]:
        """Everything that is known of the next day; the headlines go into the step."""
        if not samples.size:
            return {}
        with _timed(self._seconds, "evaluate"):
            day = self._names[int(samples["day"][0])]
            predictors = {"own": samples["yhat"]}
            if isinstance(learner, Ensemble) and len(learner):
                plain = samples.without("committee")
                predictors["oracle"] = learner.oracle(plain)["yhat"]
                predictors["matched"] = learner.matched(plain)["yhat"]
            if self.base is not None:
                predictors["static"] = self.base.probabilities(samples["x"])
            if self.published is not None and (model := self.published(day)) is not None:
                predictors["published"] = model.probabilities(samples["x"])
            found: dict[str, Any] = {"day": day, "scores": {}, "errors": {}}
            headlines = {}
            for name, yhat in predictors.items():
                scored = score(yhat, samples["y"])
                variables = _VARIABLES if name == "own" else _VARIABLES[1:]
                rows = _by_variable(summarise(scored, variables=variables, skip_impossible=True))
                found["scores"][name] = rows
                errors = errors_by_class(scored)
                found["errors"][name] = {
                    column: errors[column].tolist()
                    for column in ("count", "err", "err_abs", "err_sqr")
                }
                prefix = "" if name == "own" else f"{name}_"
                for short, metric in _HEADLINES.items():
                    headlines[f"{prefix}{short}"] = rows["logscore"][metric]
            found["densities"] = self._densities(samples, memory)
            self._found = found
        return headlines

    def _densities(self, samples: Samples, memory: Memory) -> dict[str, Any]:
        """How dense the memory is where a new day's batches are, and among its own."""
        found: dict[str, Any] = {}
        for size in self.settings.densities:
            space = replace(self.settings.space, batch_size=size)
            own, fresh = space.batches(memory.samples), space.batches(samples)
            if not len(own) or not len(fresh):
                continue
            found[str(size)] = {
                "memory": _spread(space.field(own).density()),
                "day": _spread(cross_density(space, fresh, own)),
            }
        return found

    def _record(self, step: Step, memory: Memory, trigger: OnAllowedDays) -> None:
        """Write down a day; again, when the next one came later and it can be judged at last."""
        if step.restored:
            document = self._read(step.unit)
        else:
            notes = {} if step.frozen else dict(trigger.notes)
            held = memory.samples["y_bin"] if len(memory) else np.empty(0, np.int64)
            days = memory.samples["day"] if len(memory) else np.empty(0, np.int64)
            document = {
                "name": step.name,
                "notes": notes,
                "classes": np.bincount(held, minlength=CLASSES).tolist(),
                "ages": np.bincount(days, minlength=step.unit + 1).tolist(),
            }
        document["evaluation"] = self._found if step.scores else {}
        self._found = {}
        self._write("days", step.unit, document)

    def tables(self) -> dict[str, Samples]:
        """What was recorded so far, as tidy tables.

        Returns:
            steps: A row for each day: what came, was kept and decided, both coverage increases,
                headlines of the scores.
            scores: ``day`` (that was predicted), ``predictor``, ``variable`` (y in s; p; logscore
                in nats; err = actual - predicted in s, err_abs, err_sqr), ``metric`` (mean, std,
                rms, quantiles q0 to q1, count), ``value``. Rows with p = 0 are left out of p and
                logscore.
            classes: ``day``, ``predictor``, ``label``: ``count`` and mean errors of each true
                class.
            improvement: ``day``, ``predictor``, ``against``, ``tail``, ``median``, ``mean``: the
                difference of the log scores' quantiles and means, above 0 where better.
            memory: ``day`` after which, ``label``: ``held`` samples.
            ages: ``day`` after which, ``of``: ``held`` samples of that day.
            densities: ``day``, ``batch_size``, ``of`` (memory or day), ``metric``, ``value``.
            times: ``day``, ``what``, ``seconds``. The only ones that differ from run to run.

        Raises:
            ForeignError: The folder is of another replay.
        """
        if not (self.folder / "replay.json").is_file():
            raise ForeignError(f"{self.folder} holds no replay; call run() first")
        self._claim()
        steps = self._steps()
        documents = [self._read(step.unit) for step in steps]
        rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _HEADERS}
        for step, document in zip(steps, documents, strict=True):
            held = document["classes"]
            rows["memory"] += [(step.name, k, count) for k, count in enumerate(held)]
            names = [other.name for other in steps]
            rows["ages"] += [
                (step.name, names[i], count) for i, count in enumerate(document["ages"]) if count
            ]
            path = self._path("times", step.unit)
            times = json.loads(path.read_text()) if path.is_file() else {}
            rows["times"] += [(step.name, what, s) for what, s in sorted(times.items())]
            if document["evaluation"]:
                _add_evaluation(rows, document["evaluation"])
        found = {"steps": _with_notes(table(steps), documents)}
        for name, header in _HEADERS.items():
            columns = list(zip(*rows[name], strict=True)) if rows[name] else [()] * len(header)
            found[name] = Samples(
                {
                    column: np.array(values, kind)
                    for (column, kind), values in zip(header.items(), columns, strict=True)
                }
            )
        return found

    def _steps(self) -> list[Step]:
        from memento import snapshot

        folder = self.folder / "state"
        if not snapshot.exists(folder):
            return []
        loop = snapshot.read(folder, "memento-loop").documents["loop"]
        return [Step(**{**row, "decision": Decision(**row["decision"])}) for row in loop["steps"]]

    def _claim(self) -> None:
        """Write what the folder is of, or check it."""
        base = None if self.base is None else digest_of_state(self.base.arrays())
        own = {"format": _FORMAT, "base": base, **self.settings.document()}
        own = json.loads(json.dumps(own))
        path = self.folder / "replay.json"
        if not path.is_file():
            strangers = sorted(
                p.name
                for p in self.folder.iterdir()
                if p.name not in ("lock", "days", "times") and not p.name.startswith(".replay.json")
            )
            if strangers:
                raise ForeignError(
                    f"{self.folder} holds {strangers[0]!r} and no replay; choose a new folder"
                )
            with storage_errors("write the settings", path):
                atomic_write(path, json.dumps(own, indent=1).encode())
            return
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise DamagedError(f"{path} is not readable ({error}); remove the folder") from error
        differing = list(_differences(found, own))
        if differing:
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise ForeignError(
                f"{self.folder}: the replay there has {'; '.join(differing[:3])}{more}; use the "
                "same settings, or another folder"
            )

    def _path(self, place: str, unit: int) -> Path:
        return self.folder / place / f"{unit:04d}.json"

    def _write(self, place: str, unit: int, document: Mapping[str, Any]) -> None:
        path = self._path(place, unit)
        with storage_errors("write the record", path):
            atomic_write(path, (json.dumps(document) + "\n").encode())

    def _read(self, unit: int) -> dict[str, Any]:
        path = self._path("days", unit)
        try:
            with storage_errors("read the record", path):
                return dict(json.loads(path.read_text()))
        except ValueError as error:
            raise DamagedError(
                f"{path} is not readable ({error}); remove the folder and replay again"
            ) from error


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """What differs of two JSON values, leaf by leaf: "policy.batch_size 64, not 256"."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in here:
            yield from _differences(there.get(key), here[key], f"{name}.{key}" if name else key)
    elif there != here:
        if name == "base":
            yield "base: another static model"
        else:
            yield f"{name} {_short(there)}, not {_short(here)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_HEADERS: dict[str, dict[str, Any]] = {
    "scores": {
        "day": "U32",
        "predictor": "U16",
        "variable": "U16",
        "metric": "U16",
        "value": np.float64,
    },
    "classes": {
        "day": "U32",
        "predictor": "U16",
        "label": np.int64,
        "count": np.int64,
        "err": np.float64,
        "err_abs": np.float64,
        "err_sqr": np.float64,
    },
    "improvement": {
        "day": "U32",
        "predictor": "U16",
        "against": "U16",
        "tail": np.float64,
        "median": np.float64,
        "mean": np.float64,
    },
    "memory": {"day": "U32", "label": np.int64, "held": np.int64},
    "ages": {"day": "U32", "of": "U32", "held": np.int64},
    "densities": {
        "day": "U32",
        "batch_size": np.int64,
        "of": "U16",
        "metric": "U16",
        "value": np.float64,
    },
    "times": {"day": "U32", "what": "U16", "seconds": np.float64},
}
_REFERENCES = ("static", "published")


def _add_evaluation(rows: dict[str, list[tuple[Any, ...]]], found: Mapping[str, Any]) -> None:
    day = found["day"]
    for predictor, variables in found["scores"].items():
        rows["scores"] += [
            (day, predictor, variable, metric, value)
            for variable, metrics in variables.items()
            for metric, value in metrics.items()
        ]
        errors = found["errors"][predictor]
        rows["classes"] += [
            (day, predictor, label, *values)
            for label, values in enumerate(zip(*errors.values(), strict=True))
        ]
        if predictor in _REFERENCES:
            continue
        for against in _REFERENCES:
            if against in found["scores"]:
                own, other = (found["scores"][p]["logscore"] for p in (predictor, against))
                gains = (own[metric] - other[metric] for metric in _HEADLINES.values())
                rows["improvement"].append((day, predictor, against, *gains))
    for size, kinds in found["densities"].items():
        rows["densities"] += [
            (day, int(size), of, metric, value)
            for of, metrics in kinds.items()
            for metric, value in metrics.items()
        ]


def _with_notes(steps: Samples, documents: Sequence[Mapping[str, Any]]) -> Samples:
    names = ("coverage_plain", "coverage_calibrated")
    return steps.with_columns(
        {n: np.array([d["notes"].get(n, math.nan) for d in documents], float) for n in names}
    )


def _by_variable(rows: Samples) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    columns = (rows[name].tolist() for name in ("variable", "metric", "value"))
    for variable, metric, value in zip(*columns, strict=True):
        found.setdefault(variable, {})[metric] = value
    return found


def _spread(values: np.ndarray) -> dict[str, float]:
    named = zip(QUANTILES, quantiles(values), strict=True)
    return {
        "mean": float(values.mean()),
        "count": float(len(values)),
        **{f"q{q:g}": float(value) for q, value in named},
    }


def extra_columns(policy: Policy) -> tuple[str, ...]:
    """Columns that a policy looks at and that are not always there."""
    names = {getattr(policy, "column", "")}
    if isinstance(policy, SampleSpace):
        names |= {column for distance in policy.distances for column in distance.columns}
    return tuple(sorted(names & {"seconds", "z", "stalled"}))


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - start


class _TimedMemory(Memory):
    """A memory that says how long inserts took."""

    seconds: dict[str, float]

    def insert(self, data: Any = None, /, **columns: Any) -> Report:
        with _timed(self.seconds, "insert"):
            return super().insert(data, **columns)


class _TimedLearner:
    """A learner that says how long it took."""

    def __init__(self, learner: Any, seconds: dict[str, float]) -> None:
        self._learner, self._seconds = learner, seconds

    @property
    def trained(self) -> bool:
        return bool(self._learner.trained)

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        with _timed(self._seconds, "train"):
            self._learner.fit(samples, weights)

    def annotate(self, samples: Samples) -> Mapping[str, Any]:
        with _timed(self._seconds, "predict"):
            return cast(Mapping[str, Any], self._learner.annotate(samples))

    def state(self) -> Mapping[str, np.ndarray]:
        return cast(Mapping[str, np.ndarray], self._learner.state())

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._learner.restore(state)


# ----------------------------------------------------------------------------------- comparisons


def improvements(scores: Mapping[str, Samples], reference: str, predictor: str = "own") -> Samples:
    """By how much replays of the same days beat one of them, or the static or published model.

    Each day's improvement is the difference of the log scores' quantiles (or means) on that day;
    the summary is their plain mean over the days that both know, as in the paper.

    Args:
        scores: By arm, the table ``scores`` of `Replay.tables`.
        reference: An arm; or "static" or "published", then each arm's own record of it.
        predictor: Of the reference, if it is an arm.

    Returns:
        A row for each arm and predictor of its own: ``arm``, ``predictor``, ``days``, ``tail`` (1st
        percentile), ``median``, ``mean``, and ``..._error``, standard errors over days; NaN without
        a common day.

    Raises:
        SettingError: No such reference.

    Example:
        >>> one = {"day": ["d"] * 3, "predictor": ["own"] * 3, "variable": ["logscore"] * 3}
        >>> one["metric"] = ["q0.01", "q0.5", "mean"]
        >>> good = Samples(**one, value=[-2.0, -1.0, -1.1])
        >>> bad = Samples(**one, value=[-3.0, -1.0, -1.5])
        >>> improvements({"good": good, "bad": bad}, "bad")["tail"]
        array([0., 1.])
    """
    if reference not in (*scores, *_REFERENCES):
        raise SettingError(f"no arm {reference!r}; there are {', '.join((*scores, *_REFERENCES))}")
    found: dict[str, list[Any]] = {"arm": [], "predictor": [], "days": []}
    for name in _IMPROVEMENTS:
        found[name], found[f"{name}_error"] = [], []
    for name in sorted(scores):
        daily = _daily(scores[name])
        if reference in scores:
            others = _daily(scores[reference]).get(predictor, {})
        else:
            others = daily.get(reference, {})
        for own in [p for p in daily if p not in _REFERENCES]:
            days = sorted(set(daily[own]) & set(others))
            found["arm"].append(name)
            found["predictor"].append(own)
            found["days"].append(len(days))
            gains = [
                [daily[own][d][metric] - others[d][metric] for metric in _HEADLINES.values()]
                for d in days
            ]
            values = np.array(gains).reshape(len(days), len(_HEADLINES))
            for i, what in enumerate(_IMPROVEMENTS):
                column = values[:, i]
                found[what].append(float(column.mean()) if len(days) else math.nan)
                spread = float(column.std(ddof=1)) if len(days) > 1 else math.nan
                found[f"{what}_error"].append(spread / math.sqrt(max(len(days), 1)))
    return Samples(
        {
            name: np.array(values, "U64" if name in ("arm", "predictor") else None)
            for name, values in found.items()
        }
    )


_IMPROVEMENTS = ("tail", "median", "mean")


def _daily(scores: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Predictor -> day -> metric -> value, of the log scores."""
    rows = scores.take(scores["variable"] == "logscore")
    found: dict[str, dict[str, dict[str, float]]] = {}
    names = ("predictor", "day", "metric", "value")
    for who, day, metric, value in zip(*(rows[n].tolist() for n in names), strict=True):
        found.setdefault(who, {}).setdefault(day, {})[metric] = value
    return found


def selection_study(
    samples: Mapping[str, Any],
    base: Network,
    policies: Mapping[str, Policy],
    capacity: int,
    *,
    batch_size: int = 256,
    training: TrainingSettings = AFFORDABLE,
    seed: int = 0,
) -> Samples:
    """What policies keep of one set of samples, batch by batch, and what training on it does.

    The paper looks at 5 million samples in this way to see why density and loss differ: density
    keeps what is rare, loss what is hard, noise included.

    Args:
        samples: Columns x, y, y_bin, as `Features.columns` has them; all are offered at once.
        base: Predicts them, and is what trainings start from.
        policies: By name.
        capacity: Most samples that each keeps.
        batch_size: Samples are sorted and cut into batches of this size, to be looked at.
        training: How.
        seed: Of memories and trainings.

    Returns:
        A row for each policy and batch: ``policy``, ``batch`` (in sorted order), ``label`` (its
        mean class), ``density`` (among all batches), ``loss_before`` (mean, of the base),
        ``kept`` (share of its samples), ``loss_after`` (of a network trained on what was kept).

    Raises:
        SchemaError: Less than one batch of samples.
    """
    learner = TtpLearner(base, replace(training, start="base"))
    learner.restore(base.arrays())
    plain = Samples.borrow({name: samples[name] for name in ("x", "y", "y_bin")})
    rows = np.arange(plain.size)
    offered = plain.with_columns(learner.annotate(plain)).with_columns(row=rows)
    space = cast(SampleSpace, puffer_policy("memento", batch_size=batch_size))
    batches = space.batches(offered)
    if not len(batches):
        raise SchemaError(f"{plain.size:,} samples; give at least one batch of {batch_size:,}")
    density = space.field(batches).density()

    def means(values: np.ndarray) -> np.ndarray:
        sums = np.add.reduceat(values[batches.order].astype(np.float64), batches.offsets[:-1])
        return np.asarray(sums / batches.sizes)

    labels, before = means(plain["y_bin"]), means(offered["loss"])
    parts = []
    for name, policy in policies.items():
        memory = Memory(capacity, policy, seed)
        memory.insert(offered)
        held = memory.samples
        kept = np.zeros(plain.size, bool)
        kept[held["row"]] = True
        learner.fit(held, memory.weights)
        after = np.empty(plain.size, np.float32)
        for start in range(0, plain.size, _STUDY_ROWS):
            piece = plain.rows(start, start + _STUDY_ROWS)
            after[start : start + piece.size] = learner.annotate(piece)["loss"]
        learner.restore(base.arrays())
        parts.append(
            Samples(
                policy=np.full(len(batches), name, "U64"),
                batch=np.arange(len(batches)),
                label=labels,
                density=density,
                loss_before=before,
                kept=means(kept),
                loss_after=means(after),
            )
        )
    return Samples.concat(parts)
