"""Streams of runs whose traffic shifts, replayed through the loop with different memories.

Three scenarios of the Memento paper (section 5 and appendix C): a workload that is common and two
that are rare; one workload after the other; and traffic that gets more and more congested. In each
iteration the samples of runs that were not used before come in, the memory chooses, the network is
trained anew on what is held, and judged on runs that no memory sees.

A result is a table with a row for each iteration. Results are kept in a folder, and what is there
is not computed again; a replay that was stopped goes on after its last iteration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from memento.distances import JensenShannon
from memento.errors import DamagedError, ForeignError, SettingError
from memento.files import atomic_write, digest, storage_errors
from memento.loop import Step, run
from memento.memory import Memory, Report
from memento.policies import (
    FIFO,
    ClassBalancedReservoir,
    FacilityLocation,
    GradientSampleSelection,
    Herding,
    KCenterGreedy,
    LossAwareReservoir,
    Memento,
    Policy,
    Reservoir,
)
from memento.retrain import Every, OnCoverage
from memento.samples import Samples
from memento_datacenter.features import (
    WINDOW,
    origins,
    transmission_samples,
    workload_samples,
)
from memento_datacenter.models import (
    CLASSIFICATION,
    REGRESSION,
    DelayRegressor,
    NetworkSettings,
    WorkloadClassifier,
)
from memento_datacenter.schema import Run, Runs, difference
from memento_datacenter.scores import LOADS, WORKLOADS, accuracies, weighted_quantile
from memento_datacenter.simulate import SETTINGS

__all__ = [
    "MEMORIES",
    "PEERS",
    "REDUCED",
    "SCENARIOS",
    "Plan",
    "Results",
    "Scenario",
    "compare",
    "memories_of",
    "replay",
    "scenario",
]

Task = Literal["classification", "regression"]
Progress = Callable[[int, int, str], None]
_Key = tuple[str, str, int]  # scenario, memory and seed of a replay

SCENARIOS = ("rare-patterns", "incremental", "congestion")
_TUNING, _JUDGING, _FIRST = 0, 1, 2  # numbers of runs: for tuning, for evaluation, from here on
_GRID = np.linspace(0.0, 0.1, 128)  # seconds
_EMBEDDING = 16  # numbers that peers compare samples by
_CLASSES = len(WORKLOADS)


# --------------------------------------------------------------------------------------- scenarios


@dataclass(frozen=True)
class Scenario:
    """What comes when.

    Attributes:
        name: One of `SCENARIOS`.
        task: What is learned: "classification" of workloads or "regression" of delays.
        capacity: Samples in memory.
        arrivals: For each iteration the settings of which a run comes in.
        judged: For each iteration the settings whose runs the network is judged on.
    """

    name: str
    task: Task
    capacity: int
    arrivals: tuple[tuple[str, ...], ...]
    judged: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.arrivals)

    @property
    def needs(self) -> dict[str, int]:
        """How many runs of each setting come in."""
        names = [name for arriving in self.arrivals for name in arriving]
        return {name: names.count(name) for name in dict.fromkeys(names)}


def scenario(name: str, phase: int = 10) -> Scenario:
    """A scenario by its name.

    ``rare-patterns``: w2 in each of two phases' iterations, w1 as well in each first one of half a
    phase, w3 at the beginning of both phases. ``incremental``: a phase of w1, then one of w2, then
    one of w3. ``congestion``: a phase of all three workloads at each load, 66, 100 and 133 %.

    Args:
        name: One of `SCENARIOS`.
        phase: Iterations of a phase, at least 2; 10 in the paper.

    Raises:
        SettingError: An unknown name, or a phase that is too short.

    Example:
        >>> scenario("rare-patterns").arrivals[:6]
        (('w1', 'w2', 'w3'), ('w2',), ('w2',), ('w2',), ('w2',), ('w1', 'w2'))
        >>> scenario("congestion", phase=2).arrivals[2]
        ('w1_c100', 'w2_c100', 'w3_c100')
    """
    if isinstance(phase, bool) or not isinstance(phase, int | np.integer) or phase < 2:
        raise SettingError(f"phase {phase!r}; give how many iterations a phase has, at least 2")
    if name == "rare-patterns":
        arrivals = []
        for i in range(2 * phase):
            rare = {"w1": i % max(phase // 2, 1) == 0, "w3": i % phase == 0, "w2": True}
            arrivals.append(tuple(w for w in WORKLOADS if rare[w]))
        return Scenario(name, "classification", 20_000, tuple(arrivals), (WORKLOADS,) * 2 * phase)
    if name == "incremental":
        single = tuple((w,) for w in WORKLOADS for _ in range(phase))
        return Scenario(name, "classification", 20_000, single, (WORKLOADS,) * 3 * phase)
    if name == "congestion":
        suffixes = [f"_c{load}" if load != LOADS[0] else "" for load in LOADS]
        loaded = tuple(tuple(w + s for w in WORKLOADS) for s in suffixes for _ in range(phase))
        return Scenario(name, "regression", 60_000, loaded, loaded)
    raise SettingError(f"scenario {name!r}; give one of {', '.join(SCENARIOS)}")


# ---------------------------------------------------------------------------------------- memories


def _space(task: Task, batch_size: int) -> dict[str, Any]:
    distances = (
        [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", _CLASSES)]
        if task == "classification"
        else [JensenShannon.of_values("yhat", _GRID), JensenShannon.of_values("y", _GRID)]
    )
    return {
        "distances": distances,
        "batch_size": batch_size,
        "bandwidth": 0.1,
        "sort_by": ("y", "yhat", "x"),
        "remainder": "drop",
    }


def _label(task: Task) -> str | None:
    return "y" if task == "classification" else None


#: Memories by name, from the task and the size of a batch; the first ones are the paper's.
MEMORIES: Mapping[str, Callable[[Task, int], Policy]] = MappingProxyType(
    {
        "memento": lambda task, b: Memento(**_space(task, b), temperature=0.01),
        "memento-T0": lambda task, b: Memento(**_space(task, b), temperature=0.0),
        "random": lambda task, b: Reservoir(),
        "fifo": lambda task, b: FIFO(),
        "lars": lambda task, b: LossAwareReservoir(missing="equal", scale="published"),
        "class-balanced": lambda task, b: ClassBalancedReservoir(),
        "herding": lambda task, b: Herding(label=_label(task), missing="random"),
        "k-center": lambda task, b: KCenterGreedy(missing="random"),
        "facility-location": lambda task, b: FacilityLocation(label=_label(task), missing="random"),
        "gss": lambda task, b: GradientSampleSelection(missing="random"),
    }
)
#: Those that are not in the paper.
PEERS = ("class-balanced", "herding", "k-center", "facility-location", "gss")
_LABELLED = ("lars", "class-balanced")  # they need classes
_EMBEDDED = ("herding", "k-center", "facility-location", "gss")
_LONGEST = ("herding", "k-center", "facility-location")  # minutes a replay, in this order


def memories_of(task: Task) -> tuple[str, ...]:
    """The memories that apply to a task: those that balance classes need classes.

    Example:
        >>> memories_of("regression")[:5]
        ('memento', 'memento-T0', 'random', 'fifo', 'herding')
    """
    return tuple(m for m in MEMORIES if task == "classification" or m not in _LABELLED)


# ------------------------------------------------------------------------------------------- plans


@dataclass(frozen=True)
class Plan:
    """What all replays of a comparison have in common.

    Args:
        phase: Iterations of a phase, at least 2; see `scenario`.
        window: Packets that a sample sees, at least 2.
        stride: Keep every so-manieth sample of each iteration, at least 1. Neighbouring samples
            share all but one packet of their window, so little is lost. Capacities, sizes of
            batches and of the network's batches are divided by it, so that memories have as many
            batches and trainings as many steps as with all samples.
        runs: Runs of each setting for training, numbered from 2; which of them come when depends on
            the seed.
        judged: At most so many samples of each setting to judge on, evenly over its run 1.
        batch_size: Of memories that compare batches.
        capacities: Samples in memory by scenario, where it is another number than the paper's.
        classification: The network that tells workloads, and its training.
        regression: The network that predicts delays, and its training.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> Plan(stride=4).capacity(scenario("congestion"))
        15000
    """

    phase: int = 10
    window: int = WINDOW
    stride: int = 1
    runs: int = 20
    judged: int = 5000
    batch_size: int = 256
    capacities: Mapping[str, int] = dataclasses.field(default_factory=dict)
    classification: NetworkSettings = CLASSIFICATION
    regression: NetworkSettings = REGRESSION

    def __post_init__(self) -> None:
        for name, least in (
            *(("phase", 2), ("window", 2), ("stride", 1), ("runs", 1), ("judged", 1)),
            ("batch_size", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise SettingError(f"{name}={value!r}; give a whole number of at least {least}")
        for name, value in self.capacities.items():
            if name not in SCENARIOS:
                raise SettingError(f"capacity of {name!r}; scenarios are {', '.join(SCENARIOS)}")
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingError(f"capacity {value!r} of {name}; give a whole number from 1")
        object.__setattr__(self, "capacities", MappingProxyType(dict(self.capacities)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "capacities": dict(self.capacities)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["capacities"] = MappingProxyType(state["capacities"])
        self.__dict__.update(state)

    def capacity(self, shift: Scenario) -> int:
        """Samples in memory in a scenario."""
        return max(1, self.capacities.get(shift.name, shift.capacity) // self.stride)

    def policy(self, memory: str, task: Task) -> Policy:
        """A memory's policy.

        Raises:
            SettingError: An unknown name, or a memory that does not apply to the task.
        """
        if memory not in MEMORIES:
            raise SettingError(f"memory {memory!r}; give one of {', '.join(MEMORIES)}")
        if memory not in memories_of(task):
            raise SettingError(
                f"memory {memory!r} needs classes; for {task} there are "
                f"{', '.join(memories_of(task))}"
            )
        return MEMORIES[memory](task, max(1, self.batch_size // self.stride))

    def network(self, task: Task) -> NetworkSettings:
        """The network of a task, with its batches divided by the stride."""
        settings = self.classification if task == "classification" else self.regression
        batch_size = max(2, settings.batch_size // self.stride)
        return dataclasses.replace(settings, batch_size=batch_size)

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found["capacities"] = dict(self.capacities)
        for task in ("classification", "regression"):
            found[task] = dataclasses.asdict(found[task])
        return found

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Plan:
        """The plan that `document` wrote down, or one that differs from the default in it.

        Raises:
            SettingError: A setting that there is not, or a value out of its range.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        unknown = [name for name in document if name not in names]
        if unknown:
            raise SettingError(f"plan with {unknown[0]!r}; it has {', '.join(names)}")
        values = dict(document)
        for task, default in (("classification", CLASSIFICATION), ("regression", REGRESSION)):
            if task in values:
                try:
                    values[task] = dataclasses.replace(default, **values[task])
                except TypeError as error:
                    raise SettingError(f"plan with {task}: {error}") from error
        return cls(**values)

    def needed(self, shift: Scenario, seed: int) -> list[list[tuple[str, int]]]:
        """For each iteration the runs that come in, as setting and number; none comes twice.

        Raises:
            SettingError: There are fewer runs than the scenario needs.
        """
        numbers: dict[str, Iterator[int]] = {}
        for name, count in shift.needs.items():
            if count > self.runs:
                raise SettingError(
                    f"{shift.name} needs {count} runs of {name}, the plan has {self.runs}; raise "
                    "runs, or shorten the phases"
                )
            # Of its own for each setting, so that scenarios with the same seed share their runs.
            rng = np.random.default_rng([seed, SETTINGS.index(name)])
            numbers[name] = iter((_FIRST + rng.permutation(self.runs)).tolist())
        return [[(name, next(numbers[name])) for name in names] for names in shift.arrivals]


#: A small variant that takes seconds, with short simulations: to see that everything works.
REDUCED = Plan(
    phase=3,
    window=32,
    runs=6,
    judged=1000,
    batch_size=32,
    capacities=dict.fromkeys(SCENARIOS, 1500),
    classification=NetworkSettings(units=32, epochs=8, batch_size=64),
    regression=NetworkSettings(units=32, epochs=8, batch_size=64, standardise=False),
)


# ------------------------------------------------------------------------------------------ replay


def replay(
    name: str,
    memory: str,
    runs: str | Path,
    seed: int = 0,
    plan: Plan | None = None,
    *,
    checkpoint: str | Path | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Samples:
    """Replay a scenario with one memory.

    Before there is a network all predictions are alike, so a memory that compares predictions
    and labels compares labels alone, LARS balances them, and those that need more choose at random.

    Args:
        name: One of `SCENARIOS`.
        memory: One of `MEMORIES`.
        runs: Folder of simulated runs.
        seed: Of the order of runs, the memory and the network.
        plan: ``Plan()`` if None.
        checkpoint: Folder to save everything to after each iteration, and to go on from.
        on_step: Called with the step of each new iteration.

    Returns:
        A row per iteration: ``scenario``, ``memory``, ``seed``, ``iteration`` (from 1),
        ``settings`` (joined by +), ``offered``, ``kept``, ``held`` (samples), ``rci`` (calibrated
        coverage increase since the last training; NaN for memories without distances, and at
        first), ``select`` (CPU seconds of the insert; NaN if a checkpoint already had it);
        ``held_w1``, ``held_w2``, ``held_w3``; for classification ``balanced_accuracy`` and
        ``accuracy_w1``, ...; for regression ``error_p99``, the 99th percentile of the absolute
        error [s] on the settings that came in, in proportion to their samples, ``error_p99_w1``,
        ..., ``error_mean``, and ``held_66``, ``held_100``, ``held_133`` by load.

    Raises:
        SettingError: An unknown name, or one that does not fit.
        StorageError: A run is missing; the message says how to simulate it.
        DamagedError: A run is damaged.
        ForeignError: The checkpoint is of another replay, or runs were made in different ways.
    """
    plan = Plan() if plan is None else plan
    shift = scenario(name, plan.phase)
    policy = plan.policy(memory, shift.task)
    needed = plan.needed(shift, seed)
    folder = Runs(runs)
    _described(folder, _needed(shift, needed))
    held = _TimedMemory(plan.capacity(shift), policy, seed=np.random.default_rng([seed, 1]))
    learner = _learner(plan, shift.task, memory, seed)
    judge = _Judge(plan, shift, folder, learner, held)
    compares = isinstance(policy, Memento)
    steps = run(
        _stream(plan, shift, folder, needed),
        held,
        learner,
        # Always due, and it says by how much coverage has risen.
        OnCoverage(0.0, significance=1.0, new_labels=1.0) if compares else Every(1),
        scores=judge,
        weighted=False,  # weights of balanced memories would undo the balance
        checkpoint=checkpoint,
        on_train=judge.trained,
        on_step=on_step,
        rng=seed,
    )
    rows: list[dict[str, Any]] = []
    for step in steps:
        rows.append(
            {
                "scenario": name,
                "memory": memory,
                "seed": seed,
                "iteration": step.unit + 1,
                "settings": step.name,
                "offered": step.offered,
                "kept": step.kept,
                "held": step.held,
                "rci": step.decision.value if compares else math.nan,
                "select": math.nan if step.restored else held.seconds,
                **step.scores,
            }
        )
        # The unit after the last iteration is there to be evaluated on, and does not come in.
        # Without scores something went wrong, which the loop raises next.
        if len(rows) == len(shift) and step.scores:
            break
    return Samples.borrow({column: np.array([r[column] for r in rows]) for column in rows[0]})


class _TimedMemory(Memory):
    """Knows how long its last insert took."""

    seconds = math.nan

    def insert(self, data: Any = None, /, **columns: Any) -> Report:
        before = time.process_time()
        report = super().insert(data, **columns)
        self.seconds = time.process_time() - before
        return report


def _learner(plan: Plan, task: Task, memory: str, seed: int) -> WorkloadClassifier | DelayRegressor:
    settings = plan.network(task)
    embedding = _EMBEDDING if memory in _EMBEDDED else 0
    if task == "classification":
        return WorkloadClassifier(settings, classes=_CLASSES, embedding=embedding, seed=seed)
    return DelayRegressor(settings, embedding=embedding, seed=seed)


def _stream(
    plan: Plan, shift: Scenario, folder: Runs, needed: Sequence[Sequence[tuple[str, int]]]
) -> Iterator[tuple[str, Samples]]:
    for runs in needed:
        packets = [folder.read(*one) for one in runs]
        samples = samples_of(packets, shift.task, plan.window)
        samples = samples.take(np.arange(0, samples.size, plan.stride))
        yield "+".join(name for name, _ in runs), samples
    yield "end", samples.rows(0, 1)


def samples_of(packets: Sequence[Run], task: Task, window: int) -> Samples:
    """Samples of runs that happen at the same time, with what nothing is predicted yet by.

    Args:
        packets: The runs, at least one.
        task: "classification" or "regression".
        window: Packets that a sample sees.

    Returns:
        Columns of `features`; ``setting``, which of ``simulate.SETTINGS`` (int16); and ``yhat``,
        the same prediction for all: equal probabilities, or a delay of 0.
    """
    make = workload_samples if task == "classification" else transmission_samples
    samples = make(packets, window)
    settings = np.array([SETTINGS.index(_of(p)) for p in packets], dtype=np.int16)
    setting = settings[origins(packets, window)]
    shape = (samples.size, _CLASSES) if task == "classification" else (samples.size,)
    kind = np.float32 if task == "classification" else np.float64
    constant = np.full(shape, 1 / _CLASSES if task == "classification" else 0.0, kind)
    return samples.with_columns(Samples.borrow(setting=setting, yhat=constant))


def _of(packets: Run) -> str:
    name = str(packets.about.get("setting"))
    if name not in SETTINGS:
        raise SettingError(f"a run of {name!r}; scenarios have runs of {', '.join(SETTINGS)}")
    return name


class _Judge:
    """Scores of the network after each iteration, on runs of its own, and what the memory holds.

    The loop evaluates on the unit that comes next; here what counts are the settings of the
    scenario, so that unit is left aside.
    """

    def __init__(
        self,
        plan: Plan,
        shift: Scenario,
        folder: Runs,
        learner: WorkloadClassifier | DelayRegressor,
        memory: Memory,
    ) -> None:
        self._plan = plan
        self._shift = shift
        self._folder = folder
        self._learner = learner
        self._memory = memory
        self._unit = 0
        self._samples: dict[str, tuple[Samples, float]] = {}

    def trained(self, step: Step, learner: Any) -> None:
        """Learn which iteration it is."""
        self._unit = step.unit

    def __call__(self, following: Samples) -> dict[str, float]:
        settings = self._shift.judged[self._unit]
        found = [self._of(setting) for setting in settings]
        annotated = [self._learner.annotate(samples) for samples, _ in found]
        if self._shift.task == "classification":
            scores = self._accuracy(found, annotated)
        else:
            weights = [weight for _, weight in found]
            scores = self._errors(settings, [a["error"] for a in annotated], weights)
        return scores | self._held()

    def _of(self, setting: str) -> tuple[Samples, float]:
        """Samples to judge on, and how many of their run each stands for."""
        if setting not in self._samples:
            run = self._folder.read(setting, _JUDGING)
            samples = samples_of([run], self._shift.task, self._plan.window)
            count = min(samples.size, self._plan.judged)
            rows = np.linspace(0, samples.size, count, endpoint=False).astype(np.int64)
            self._samples[setting] = samples.take(rows), samples.size / max(count, 1)
        return self._samples[setting]

    @staticmethod
    def _accuracy(
        found: Sequence[tuple[Samples, float]], annotated: Sequence[Mapping[str, np.ndarray]]
    ) -> dict[str, float]:
        labels = np.concatenate([samples["y"] for samples, _ in found])
        predicted = np.concatenate([a["yhat"] for a in annotated])
        shares = accuracies(labels, predicted, _CLASSES)
        return {
            "balanced_accuracy": float(shares.mean()),
            **{f"accuracy_{w}": float(s) for w, s in zip(WORKLOADS, shares, strict=True)},
        }

    @staticmethod
    def _errors(
        settings: Sequence[str], errors: Sequence[np.ndarray], weights: Sequence[float]
    ) -> dict[str, float]:
        spread = [np.full(len(e), w) for e, w in zip(errors, weights, strict=True)]
        everything, weight = np.concatenate(errors), np.concatenate(spread)
        return {
            "error_p99": weighted_quantile(everything, weight, 0.99),
            "error_mean": float(np.average(everything, weights=weight)),
            **{
                f"error_p99_{setting.partition('_')[0]}": weighted_quantile(e, w, 0.99)
                for setting, e, w in zip(settings, errors, spread, strict=True)
            },
        }

    def _held(self) -> dict[str, float]:
        counts = np.bincount(self._memory.samples["setting"], minlength=len(SETTINGS))
        table = counts.reshape(len(LOADS), len(WORKLOADS))  # settings are ordered by load
        found = {f"held_{w}": float(n) for w, n in zip(WORKLOADS, table.sum(axis=0), strict=True)}
        if self._shift.task == "regression":
            loads = zip(LOADS, table.sum(axis=1), strict=True)
            found |= {f"held_{load}": float(n) for load, n in loads}
        return found


def _needed(shift: Scenario, needed: Sequence[Sequence[tuple[str, int]]]) -> list[tuple[str, int]]:
    """The runs that come in and those that are judged on, by setting and number."""
    judged = {(name, _JUDGING) for names in shift.judged for name in names}
    return sorted({one for runs in needed for one in runs} | judged)


#: What all runs of a replay have in common, as far as results depend on it.
_SHARED = ("seed", "network", "ns3", "source")


def _described(
    folder: Runs,
    wanted: Sequence[tuple[str, int]],
    known: dict[tuple[str, int], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What runs are: how all of them were made, and a digest of what each of them holds.

    Raises before anything is computed if one is missing or cut off, or if they do not belong
    together. Descriptions are read once if ``known`` is handed from call to call.
    """
    folder.require(wanted)
    known = {} if known is None else known
    for one in wanted:
        if one not in known:
            known[one] = folder.describe(*one)
    first = known[wanted[0]]
    common = {name: first.get(name) for name in _SHARED}
    sizes: dict[Any, tuple[tuple[str, int], Any]] = {}
    for one in wanted:
        about = known[one]
        _check_alike(folder, one, about, wanted[0], common)
        # Settings share their workload, and with it the sizes of messages.
        like, digested = sizes.setdefault(about.get("workload"), (one, about.get("sizes")))
        _check_alike(folder, one, about, like, {"sizes": digested})
    everything = json.dumps([known[one] for one in wanted], sort_keys=True)
    return {**common, "digest": digest(everything.encode())}


def _check_alike(
    folder: Runs,
    one: tuple[str, int],
    about: Mapping[str, Any],
    other: tuple[str, int],
    common: Mapping[str, Any],
) -> None:
    differs = difference(about, common)
    if differs is not None:
        name, found, wanted = differs
        raise ForeignError(
            f"{folder.path(*one)}: made with {name} = {found!r}, {folder.path(*other)} with "
            f"{wanted!r}; runs of one replay are made in one way: remove those that are not, and "
            "simulate them again"
        )


# ----------------------------------------------------------------------------------------- results

_FORMAT = 1


@dataclass(frozen=True)
class Results:
    """A folder of results: ``<scenario>/<memory>-<seed>.json``, and checkpoints of unfinished ones.

    Args:
        folder: Where they are, or will be.

    Example:
        >>> Results(Path("replayed")).path("incremental", "memento", 3).as_posix()
        'replayed/incremental/memento-3.json'
    """

    folder: Path

    def path(self, name: str, memory: str, seed: int) -> Path:
        """The file of a result."""
        return Path(self.folder) / name / f"{memory}-{seed}.json"

    def checkpoint(self, name: str, memory: str, seed: int) -> Path:
        """The folder of a replay that is not finished."""
        return self.unfinished / f"{name}-{memory}-{seed}"

    @property
    def unfinished(self) -> Path:
        """The folder of all checkpoints, there as long as there are some."""
        return Path(self.folder) / "unfinished"

    def write(self, table: Samples, about: Mapping[str, Any]) -> Path:
        """Write the table of one replay, whole or not at all.

        Args:
            table: Of `replay`.
            about: What made it; JSON values.

        Raises:
            StorageError: The file cannot be written.
        """
        name, memory = (str(table[c][0]) for c in ("scenario", "memory"))
        path = self.path(name, memory, int(table["seed"][0]))
        columns = {c: [_plain(v) for v in table[c].tolist()] for c in table}
        document = {"format": _FORMAT, "about": dict(about), "columns": columns}
        document["digest"] = _digest(document)
        with storage_errors("write a result", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(document, indent=1).encode())
        return path

    def read(
        self, name: str, memory: str, seed: int, about: Mapping[str, Any] | None = None
    ) -> Samples:
        """The table of one replay.

        Args:
            name: Of the scenario.
            memory: Its name.
            seed: Of the replay.
            about: What has to have made it; None for anything.

        Raises:
            DamagedError: The file is cut off, or differs from its digest.
            ForeignError: It is no result, or was made in another way.
            StorageError: It cannot be read.
        """
        path = self.path(name, memory, seed)
        with storage_errors("read a result", path):
            text = path.read_bytes()
        try:
            document = json.loads(text)
        except ValueError as error:
            raise DamagedError(
                f"{path}: {len(text):,} bytes that are no complete result ({error}); remove the "
                "file and replay again"
            ) from error
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise ForeignError(f"{path}: no result of this version; remove the file")
        if document.get("digest") != _digest(document):
            raise DamagedError(
                f"{path}: its content differs from its digest; remove the file and replay again"
            )
        for key, value in (about or {}).items():
            there, asked = document["about"].get(key), json.loads(json.dumps(value))
            differs = difference({key: there}, {key: asked})
            if differs is not None:
                name, found, wanted = differs
                named = key if name == key else f"{key}.{name}"
                raise ForeignError(
                    f"{path}: made with {named} = {found}, now asked for with {wanted}; give "
                    "another folder, or remove the results that are there"
                )
        columns = document["columns"]
        return Samples({c: [math.nan if v is None else v for v in columns[c]] for c in columns})


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _digest(document: Mapping[str, Any]) -> str:
    content = {key: document.get(key) for key in ("format", "about", "columns")}
    return digest(json.dumps(content, sort_keys=True).encode())


def compare(
    runs: str | Path,
    results: str | Path,
    scenarios: Iterable[str] = SCENARIOS,
    memories: Iterable[str] | None = None,
    seeds: Iterable[int] = (0,),
    plan: Plan | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Samples:
    """Replay scenarios with memories and seeds; what is in the folder is not done again.

    Args:
        runs: Folder of simulated runs.
        results: Folder for results.
        scenarios: Which ones, of `SCENARIOS`.
        memories: Which ones, of `MEMORIES`; all that apply to a scenario if None. Of those given,
            the ones that do not apply are left out.
        seeds: Each gives a replay of its own.
        plan: ``Plan()`` if None.
        jobs: Processes at a time; results do not depend on it.
        progress: Called with (done, total, what was last) at the beginning and after each
            iteration; both count the iterations of all replays.

    Returns:
        The rows of all replays, as `replay` gives them; columns that a task has not are NaN.

    Raises:
        SettingError: A name that is unknown or given twice, a seed below 0, no process, or nothing
            to do.
        StorageError: A run is missing, or a folder cannot be written to.
        ForeignError: A result that is there was made in another way or from other runs; or runs of
            one replay were made in different ways.
        DamagedError: A result that is there is damaged, or a run.
    """
    plan = Plan() if plan is None else plan
    if isinstance(jobs, bool) or not isinstance(jobs, int | np.integer) or jobs < 1:
        raise SettingError(f"jobs {jobs!r}; give how many processes run at a time, at least 1")
    work = _work(list(scenarios), memories, list(seeds), plan)
    folder, packets = Results(Path(results)), Runs(runs)
    needed = {}
    for name, seed in dict.fromkeys((name, seed) for name, _, seed in work):
        shift = scenario(name, plan.phase)
        needed[name, seed] = _needed(shift, plan.needed(shift, seed))
    packets.require(sorted({one for wanted in needed.values() for one in wanted}))
    known: dict[tuple[str, int], dict[str, Any]] = {}
    about = {
        pair: {"plan": plan.document(), "runs": _described(packets, wanted, known)}
        for pair, wanted in needed.items()
    }
    tables: dict[_Key, Samples] = {}
    for one in work:
        if folder.path(*one).is_file():
            tables[one] = folder.read(*one, about=about[one[0], one[2]])
    absent = [one for one in work if one not in tables]
    if jobs > 1:
        absent.sort(key=_longest_first)
    length = {name: len(scenario(name, plan.phase)) for name, _, _ in work}
    done = {one: length[one[0]] if one in tables else 0 for one in work}

    def tell(last: str) -> None:
        if progress is not None:
            progress(sum(done.values()), sum(length[name] for name, _, _ in work), last)

    def report(one: _Key, iterations: int) -> None:
        if done[one] < iterations:
            done[one] = iterations
            tell(" ".join(map(str, one)))

    tell("already there" if tables else "")
    arguments = [(*one, Path(runs), folder, plan, about[one[0], one[2]]) for one in absent]
    for one in _each(jobs, absent, arguments, report):
        tables[one] = folder.read(*one)
        report(one, length[one[0]])
    with contextlib.suppress(OSError):  # another call is not done
        folder.unfinished.rmdir()
    return _joined([tables[one] for one in work])


def _work(
    scenarios: Sequence[str], memories: Iterable[str] | None, seeds: Sequence[int], plan: Plan
) -> list[_Key]:
    """What `compare` replays, checked: scenario by scenario, seed by seed."""
    wanted = tuple(memories) if memories is not None else tuple(MEMORIES)
    for memory in wanted:
        plan.policy(memory, "classification")
    for what, given, example in (
        ("scenarios", scenarios, ", ".join(SCENARIOS)),
        ("memories", wanted, ", ".join(MEMORIES)),
        ("seeds", seeds, "0"),
    ):
        if not given:
            raise SettingError(f"no {what}; name at least one, such as {example}")
        if len(set(given)) < len(given):
            raise SettingError(f"{what} {', '.join(map(str, given))}; name each once")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise SettingError(f"seed {seed!r}; give a whole number from 0")
    work = []
    for name in scenarios:
        applying = [m for m in wanted if m in memories_of(scenario(name, plan.phase).task)]
        work += [(name, m, int(seed)) for seed, m in itertools.product(seeds, applying)]
    if not work:
        raise SettingError(
            f"memories {', '.join(wanted)} need classes, and {', '.join(scenarios)} has none; "
            f"give some of {', '.join(memories_of('regression'))}"
        )
    return work


def _longest_first(one: _Key) -> tuple[int, int]:
    """Orders replays so that no long one is left for a single process at the end."""
    name, memory, _ = one
    rank = _LONGEST.index(memory) if memory in _LONGEST else len(_LONGEST)
    return -SCENARIOS.index(name), rank


def _each(
    jobs: int,
    keys: Sequence[_Key],
    arguments: Sequence[tuple[Any, ...]],
    report: Callable[[_Key, int], None],
) -> Iterator[_Key]:
    """Keys of replays as they are done; reports how many iterations are."""
    if jobs == 1 or len(keys) < 2:
        for key, values in zip(keys, arguments, strict=True):
            _replay(*values, report=functools.partial(report, key))
            yield key
        return
    # Fresh processes: forking one with compiled kernels' threads in it may hang.
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    with ProcessPoolExecutor(jobs, context, _begin, (told,)) as pool:
        try:
            waiting = {
                pool.submit(_replay_there, v): k for k, v in zip(keys, arguments, strict=True)
            }
            while waiting:
                done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                while not told.empty():
                    report(*told.get())
                for future in done:
                    future.result()
                    yield waiting.pop(future)
        except BaseException:
            # Replays that are under way would go on to their end; their checkpoints are whole.
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


_told: Any = None  # in a process of the pool: where iterations are reported


def _begin(told: Any) -> None:
    """Prepare a process of the pool."""
    global _told
    _told = told
    # Ctrl-C reaches all processes of a terminal; the one that waits ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _replay_there(values: tuple[Any, ...]) -> None:
    """One replay in a process of the pool."""
    _replay(*values, report=lambda done: _told.put((values[:3], done)))


def _replay(
    name: str,
    memory: str,
    seed: int,
    runs: Path,
    folder: Results,
    plan: Plan,
    about: Mapping[str, Any],
    *,
    report: Callable[[int], None],
) -> None:
    """One replay into the folder of results."""
    checkpoint = folder.checkpoint(name, memory, seed)
    # A checkpoint of another plan or other runs would go on with these.
    key = digest(json.dumps(dict(about), sort_keys=True).encode())[:16]
    table = replay(
        *(name, memory, runs, seed, plan),
        checkpoint=checkpoint / key,
        on_step=lambda step: report(step.unit + 1),
    )
    folder.write(table, about)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _joined(tables: Sequence[Samples]) -> Samples:
    names = list(dict.fromkeys(name for table in tables for name in table))
    return Samples.borrow(
        {
            name: np.concatenate(
                [t[name] if name in t else np.full(t.size, math.nan) for t in tables]
            )
            for name in names
        }
    )
