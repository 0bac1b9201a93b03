"""One horizon of one variant on one day: the loop's step, and what has to be kept between two days.

STATE/variants/NAME/H/           memory, reference and state of horizon H after its last day
STATE/training/NAME-H/           a training in progress
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.density import batch_densities
from memento.deployment.driver import Done
from memento.errors import (
    DamagedError,
    ForeignError,
    InputError,
    ModelError,
    SettingError,
    StorageError,
)
from memento.files import storage_errors
from memento.memory import Memory
from memento.retrain import Decision, Situation, Trigger
from memento.settings import build
from memento.step import Moment, Pieces, Stepper
from memento_puffer.data.features import Features
from memento_puffer.deployment.checks import check_candidate, check_predictions, differences, losses
from memento_puffer.deployment.deploy_settings import METRIC, DeploymentSettings, Gate, Variant
from memento_puffer.deployment.publish import digest_of
from memento_puffer.predictor.network import INPUTS, Network
from memento_puffer.predictor.ttp_training import Training, TtpLearner

__all__ = ["KIND", "TRAINING_KIND", "Horizon", "HorizonLearner", "State"]

KIND = "memento-puffer-deployment"
TRAINING_KIND = "memento-puffer-training"
_ROWS_SCORED = 20_000
_PAST_TIMES = slice(6, 56, 7)  # of the inputs: transmission times of past chunks
_GATE = ("loss", "tail", "reference_loss", "reference_tail")
_SCORES = ("loss", "tail", "previous_loss", "previous_tail")


@dataclass(frozen=True)
class State:
    """What a horizon has to remember besides its memory; every value of its own type."""

    day: dt.date
    unit: int
    trained: dt.date | None
    trained_unit: int | None
    seen_at: int
    streak: int
    metric: Mapping[str, Any]
    row: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found["day"] = self.day.isoformat()
        found["trained"] = None if self.trained is None else self.trained.isoformat()
        return found

    @classmethod
    def of_document(cls, document: Any, where: Path) -> State:
        """Raises DamagedError, with the field, where a value is missing or of another type."""
        try:
            state = build(cls, document, str(where), "state", "field")
        except SettingError as error:
            raise DamagedError(f"{error}; restore the folder from a copy") from error
        if (state.trained is None) != (state.trained_unit is None):
            raise DamagedError(f"{where}: 'trained' and 'trained_unit' contradict each other")
        return state


class HorizonLearner(TtpLearner):
    """A learner that saves its training while it goes on, and says why one failed.

    Args:
        base: As for `TtpLearner`.
        settings: Of the deployment.
        folder: Where the training is saved.
    """

    def __init__(self, base: Network | None, settings: DeploymentSettings, folder: Path) -> None:
        super().__init__(base, settings.training)
        self._folder = folder
        self._seconds = settings.checkpoint_seconds
        self.failure: str | None = None

    def fit(self, samples: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Train; a training that was interrupted goes on.

        What would fail in the same way again is no error, but the ``failure`` that the gate refuses
        the network with.
        """
        start = {"base": self.base, "last": self._network, "scratch": None}[self.settings.start]
        try:
            self._network = self.train(
                Training(start, samples["x"], samples["y_bin"], weights, self.settings)
            )
        except (InputError, ModelError) as error:
            self.failure = f"the training failed: {error}"

    def train(self, training: Training) -> Network:
        """All epochs that are left."""
        if snapshot.exists(self._folder):
            try:
                training.restore(snapshot.read(self._folder, TRAINING_KIND).arrays)
            except (ModelError, StorageError):
                shutil.rmtree(self._folder)  # of another day
        saved = time.monotonic()
        while not training.done:
            training.epoch()
            if time.monotonic() - saved >= self._seconds:
                snapshot.write(self._folder, TRAINING_KIND, training.state(), {})
                saved = time.monotonic()
        return training.network

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The predictions alone: memories here keep no losses."""
        return {"yhat": super().annotate({"x": samples["x"]})["yhat"]}


class _Rule(Trigger):
    """The trigger of a variant with its ``confirm`` and ``rest``, and what it saw."""

    def __init__(self, variant: Variant, state: State | None, day: dt.date, first: bool) -> None:
        self._variant = variant
        self._first = first
        self.streak = 0 if state is None else state.streak
        self.total = 0.0  # coverage
        trained = None if state is None else state.trained
        self._rested = trained is None or (day - trained).days >= variant.rest

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        raise NotImplementedError

    def decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        """Due only after so many days in a row, and so long after the last training."""
        decision = self._variant.trigger.decide(situation, rng)
        if not len(situation.memory):
            self.streak = 0
            return dataclasses.replace(decision, due=False, reason="the memory is empty", value=0.0)
        self.streak = self.streak + 1 if decision.due else 0
        space = self._variant.space
        self.total = float(batch_densities(situation.memory.samples, space)[1].sum())
        due = self._first or (self.streak >= self._variant.confirm and self._rested)
        return dataclasses.replace(decision, due=due)


@dataclass(frozen=True)
class Horizon:
    """One memory and its network.

    Attributes:
        settings: Of the deployment.
        variant: Name of its variant.
        h: Number of the horizon.
        root: Folder of the deployment.
        base: What trainings start from; None for random weights.
    """

    settings: DeploymentSettings
    variant: str
    h: int
    root: Path
    base: Network | None

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.root / "variants" / self.variant / str(self.h)

    @property
    def training(self) -> Path:
        """Where a training in progress is kept."""
        return self.root / "training" / f"{self.variant}-{self.h}"

    def last(self) -> dt.date | None:
        """The last day whose data it has; None before the first."""
        if not snapshot.exists(self.folder):
            return None
        found = snapshot.read(self.folder, KIND, verify=False)
        return State.of_document(found.documents.get("state"), self.folder).day

    def step(
        self,
        day: dt.date,
        data: Mapping[dt.date, Features],
        serving: Network | None,
        older: Network | None,
        version: str | None,
    ) -> Done:
        """The loop's step on a day's data: insert, decide, train, and keep all that at once.

        Args:
            day: The day that the step is recorded under.
            data: By day of data, in order.
            serving: What serves, or the base before there is any.
            older: What served before.
            version: Name of what serves.
        """
        memory, state, arrays = self._load()
        pending = snapshot.with_prefix(arrays, "candidate/")
        waiting = Network.of_arrays(pending) if pending else None
        if state is not None and state.day == day:
            shutil.rmtree(self.training, ignore_errors=True)
            return _done(state.row, waiting)
        if state is not None and state.day > day:
            raise DamagedError(
                f"{self.folder} is at {state.day}, after {day}; restore it from a copy"
            )
        # Without a base, what waits for the other horizons is better than no predictions at all.
        current = waiting if serving is None else serving
        learner = HorizonLearner(self.base, self.settings, self.training)
        if current is not None:
            learner.restore(current.astype(self.settings.training.dtype).arrays())
            _attach(memory, learner, current, self.folder)
        unit, first = 0 if state is None else state.unit + 1, memory.reference is None
        rule = _Rule(self.settings.variants[self.variant], state, day, first)
        work = _Work(self, data, snapshot.with_prefix(arrays, "gate/"), [current, older])
        stepper = Stepper(
            memory,
            learner,
            rule,
            {"before": work.judge},
            work.gate,
            weighted=self.settings.variants[self.variant].weighted,
            rng=np.random.default_rng([self.settings.seed, self.h, day.toordinal(), 1]),
        )
        if state is not None:
            stepper.trained_at = None if first else state.trained_unit
            stepper.seen_at = state.seen_at
        inserts = memory.inserts
        step = stepper.advance(unit, day.isoformat(), Pieces(work.pieces()))
        candidate = learner.network if step.trained else None
        if candidate is not None:
            memory.model = memory.reference_model = digest_of(candidate)
        increase = 1.0 if first and len(memory) else step.decision.value
        row = {
            "variant": self.variant,
            "horizon": self.h,
            "day": day.isoformat(),
            "offered": step.offered,
            "kept": int(np.count_nonzero(memory.arrivals > inserts)),
            "held": step.held,
            "dropped": work.dropped,
            "retrained": step.trained,
            "refused": step.refused,
            "reason": step.decision.reason,
            "streak": 0 if step.trained else rule.streak,
            "coverage_increase": increase,
            "total_coverage": rule.total,
            "total_coverage_increase": increase * rule.total,
            **{n: getattr(step.decision, n) for n in ("threshold", "noise", "p_value")},
            **{n: step.scores.get(n, math.nan) for n in _SCORES},
            **{f"gate_{n}": step.notes.get(n, math.nan) for n in _GATE},
            "model": version,
            "model_digest": None if current is None else digest_of(current),
            "candidate": None if candidate is None else digest_of(candidate),
            "metric": self.settings.metric,
        }
        if candidate is None and version is None:
            candidate = waiting  # still, for the other horizons
        self._save(day, memory, state, stepper, rule, row, candidate, work.recent)
        return _done({name: _without_nan(value) for name, value in row.items()}, candidate)

    def _save(
        self,
        day: dt.date,
        memory: Memory,
        before: State | None,
        stepper: Stepper,
        rule: _Rule,
        row: Mapping[str, Any],
        candidate: Network | None,
        recent: Mapping[str, np.ndarray],
    ) -> None:
        """Keep memory, candidate, rows of the gate and the day's record, all by one switch."""
        trained = None if before is None else before.trained
        trained = day if row["retrained"] else trained
        state = State(
            day=day,
            unit=0 if before is None else before.unit + 1,
            trained=trained,
            trained_unit=stepper.trained_at if trained else None,
            seen_at=stepper.seen_at,
            streak=row["streak"],
            metric=self.settings.variants[self.variant].metric(self.settings.metric),
            row={name: _without_nan(value) for name, value in row.items()},
        )
        held, described = memory.dump()
        arrays = {f"memory/{n}": array for n, array in held.items()}
        if candidate is not None:
            arrays |= {f"candidate/{n}": array for n, array in candidate.arrays().items()}
        arrays |= {f"gate/{n}": array for n, array in recent.items()}
        documents = {f"memory/{n}": document for n, document in described.items()}
        with storage_errors("save the state", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        snapshot.write(self.folder, KIND, arrays, {**documents, "state": state.document()})
        shutil.rmtree(self.training, ignore_errors=True)

    def _load(self) -> tuple[Memory, State | None, dict[str, np.ndarray]]:
        """Memory, state and the other arrays of a horizon; new ones on its first day."""
        settings, folder = self.settings, self.folder
        variant = settings.variants[self.variant]
        if not snapshot.exists(folder):
            seed = np.random.default_rng([settings.seed, self.h])
            return Memory(settings.capacity, variant.policy, seed), None, {}
        found = snapshot.read(folder, KIND)
        state = State.of_document(found.documents.get("state"), folder)
        arrays, documents = dict(found.arrays), dict(found.documents)
        metric = variant.metric(settings.metric)
        contents = dict(documents["memory/memory"])
        if state.metric != metric:
            if not settings.metric > state.metric["epoch"]:
                raise ForeignError(
                    f"{folder}: coverage was measured in another way up to {state.day} (code "
                    f"{state.metric['code']}, now {METRIC}); raise the setting metric, which "
                    "resets the reference and trains"
                )
            # What follows is not to be compared with what was before: everything is new.
            arrays = {n: a for n, a in arrays.items() if not n.startswith("memory/reference/")}
            contents["trained"] = False
            state = dataclasses.replace(state, trained=None, trained_unit=None, streak=0)
        contents["capacity"] = settings.capacity
        documents["memory/memory"] = contents
        documents["memory/policy"] = variant.policy.settings()
        memory = Memory.restore(
            snapshot.with_prefix(arrays, "memory/"),
            snapshot.with_prefix(documents, "memory/"),
            None,
        )
        return memory, state, arrays


class _Work:
    """What a day's data is to a step: pieces to insert, rows to judge by, rows kept for the gate.

    Args:
        horizon: The task that the day is worked on for: settings and folder of one horizon.
        data: Of the day.
        apart: Rows of earlier days that no memory got.
        networks: What serves, and what served before.
    """

    def __init__(
        self,
        horizon: Horizon,
        data: Mapping[dt.date, Features],
        apart: Mapping[str, np.ndarray],
        networks: Sequence[Network | None],
    ) -> None:
        self._horizon = horizon
        self._data = data
        self._apart = [apart]
        self._networks = networks
        self.dropped = 0

    def pieces(self) -> Iterator[dict[str, Any]]:
        """Samples to insert."""
        settings, h = self._horizon.settings, self._horizon.h
        for day, features in self._data.items():
            seed = [settings.seed, h, day.toordinal()]
            for columns, apart, lost in _pieces(features, h, day, settings, seed):
                self.dropped += lost
                self._apart.append(apart)
                if len(columns["y"]):
                    yield columns

    @property
    def recent(self) -> dict[str, np.ndarray]:
        """Rows that no memory got, of the last days."""
        return _recent(self._apart, self._horizon.settings.gate.days)

    def judge(self, moment: Moment) -> dict[str, float]:
        """Losses of what serves, and of what served before, on samples that came after both."""
        newest = self._data[max(self._data)]
        return _scores(newest, self._horizon.h, self._horizon.settings, self._networks)

    def gate(self, moment: Moment) -> str | None:
        """Why a network is refused."""
        learner = moment.learner
        assert isinstance(learner, HorizonLearner)
        if learner.failure is not None:
            return learner.failure
        references = [network for network in self._networks if network is not None]
        recent = self.recent
        try:
            refused, facts = check_candidate(
                learner.network,
                references,
                recent["x"],
                recent["y_bin"],
                self._horizon.settings.gate,
            )
        except (InputError, ModelError) as error:
            return f"the training failed: {error}"
        moment.notes.update({name: value for name, value in facts.items() if math.isfinite(value)})
        return refused


def _done(row: Mapping[str, Any], candidate: Network | None) -> Done:
    """What a step came to, as the driver of days sees it."""
    known = row["loss"] is not None and row["previous_loss"] is not None
    lost = [row[n] - row[f"previous_{n}"] for n in ("loss", "tail")] if known else None
    return Done(dict(row), row["model"], candidate, lost)


def _attach(memory: Memory, learner: TtpLearner, network: Network, where: Path) -> None:
    """Make all predictions held those of a network, and see that they are.

    Predictions on disk are those of the model that served when they were made, so never trusted:
    if it is the same model, they have to agree; in any case they are made again.
    """
    name = digest_of(network)
    for samples, annotate in (
        (memory.samples, memory.annotate),
        (memory.reference, memory.annotate_reference),
    ):
        if samples is None or not samples.size:
            continue
        if memory.model == name and "yhat" in samples:
            off, within = differences(samples, network, np.arange(samples.size))
            if not (off <= within).all():
                raise DamagedError(
                    f"{where}: predictions that were stored differ by up to {off.max():.3g} from "
                    "those of the model they name; restore the folder from a copy"
                )
        annotate(yhat=learner.annotate({"x": samples["x"]})["yhat"])
    memory.model = name
    for samples in (memory.samples, memory.reference):
        if samples is not None and samples.size:
            check_predictions(samples, network)


def _pieces(
    features: Features, h: int, day: dt.date, settings: DeploymentSettings, seed: Sequence[int]
) -> Iterable[tuple[dict[str, Any], dict[str, np.ndarray], int]]:
    """A day's samples in pieces of bounded size: to insert, held out, and how many were dropped."""
    _, targets = features.samples(h)
    streams = features.stream[targets]
    apart = _held_out(streams, settings.gate, np.random.default_rng(list(seed)))
    for begin in range(0, len(targets), settings.insert_rows):
        take = np.arange(begin, min(begin + settings.insert_rows, len(targets)))
        columns = features.columns(h, take, sentinels=settings.training.sentinels)
        lost = len(take) - len(columns["y"])
        out = np.isin(columns["stream"], apart)
        x, y = columns["x"], columns["y"]
        sane = (y <= settings.longest) & (x[:, _PAST_TIMES] <= settings.longest).all(axis=1)
        lost += int(np.count_nonzero(~sane))
        stay, out = sane & ~out, sane & out
        number = (day - dt.date(1970, 1, 1)).days
        fresh = {
            **{name: columns[name][stay] for name in ("x", "y", "y_bin", "time")},
            "day": np.full(int(stay.sum()), number, np.int32),
        }
        gate = {
            **{name: columns[name][out] for name in ("x", "y_bin")},
            "day": np.full(int(out.sum()), number, np.int32),
        }
        yield fresh, gate, lost


def _held_out(streams: np.ndarray, gate: Gate, rng: np.random.Generator) -> np.ndarray:
    """Streams that no memory gets: whole ones, because the chunks of a stream are alike."""
    names, counts = np.unique(streams, return_counts=True)
    if len(names) < 2:
        return names[:0]
    wanted = min(gate.held_out * len(streams), gate.samples)
    order = rng.permutation(len(names))
    count = int(np.searchsorted(np.cumsum(counts[order]), wanted)) + 1
    return names[order[: min(count, len(names) // 2)]]


def _recent(parts: Sequence[Mapping[str, np.ndarray]], days: int) -> dict[str, np.ndarray]:
    """Held-out samples of the last days."""
    present = [part for part in parts if part]
    if not present:
        return {"x": np.empty((0, INPUTS)), "y_bin": np.empty(0, int), "day": np.empty(0, int)}
    joined = {n: np.concatenate([part[n] for part in present]) for n in ("x", "y_bin", "day")}
    last = np.unique(joined["day"])[-days:]
    stay = np.isin(joined["day"], last)
    return {name: column[stay] for name, column in joined.items()}


def _scores(
    features: Features, h: int, settings: DeploymentSettings, networks: Sequence[Network | None]
) -> dict[str, float]:
    """Losses of what serves, and of what served before, on samples that came after both."""
    count = len(features.samples(h)[0])
    take = np.unique(np.linspace(0, count - 1, min(count, _ROWS_SCORED)).astype(np.int64))
    found: dict[str, float] = {}
    columns = features.columns(h, take, sentinels="clamp")
    sane = columns["y"] <= settings.longest
    x, y_bin = columns["x"][sane], columns["y_bin"][sane]
    for prefix, network in zip(("", "previous_"), networks, strict=True):
        loss, tail = math.nan, math.nan
        if network is not None and len(x):
            loss, tail = losses(network.astype(settings.training.dtype), x, y_bin)
        found |= {f"{prefix}loss": loss, f"{prefix}tail": tail}
    return found


def _without_nan(value: Any) -> Any:
    """JSON knows no number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
