"""Memories judged by what viewers get: simulated days, the daily loop, and models back in control.

The days of telemetry are the same for all arms: viewers stream over a population of paths (or real
traces) with ordinary controllers, and with Fugu once the first day's predictor is there. Each arm
then keeps samples and retrains in its own way, one memory and one network for each horizon. In the
end every arm's predictor drives Fugu for the same viewers of one more day, so that the differences
between arms are not hidden behind the differences between viewers, which are far larger.

Everything is kept in a folder, and what is there is not computed again.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.errors import SettingError
from memento.files import storage_errors
from memento.loop import Step, run
from memento.memory import Memory
from memento.retrain import Every, OnCoverage, Trigger
from memento.samples import Samples
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.data.layout import CHUNK_SECONDS
from memento_puffer.predictor.scores import score
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp import Network, Ttp
from memento_puffer.predictor.ttp_training import (
    AFFORDABLE,
    Training,
    TrainingSettings,
    TtpLearner,
)
from memento_puffer.quality import aggregates
from memento_puffer.quality.qoe import SLOW_RATE
from memento_puffer.streaming.abr import BBA, BOLA, MPC, Fugu, RobustMPC
from memento_puffer.streaming.paths import TracePaths
from memento_puffer.streaming.simulator import Block, Scheme, Simulation
from memento_puffer.streaming.traces import Population, Traces
from memento_puffer.studies.arms import ARMS, CONTROLLED, named, policy_of
from memento_puffer.studies.claims import claim

__all__ = [
    "ArmResult",
    "ClosedLoop",
    "Outcome",
    "summary",
]

Report = Callable[[str, int, int], None]
Job = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class ArmResult:
    """What one arm did, and what became of its models.

    Attributes:
        name: Of the arm.
        steps: By horizon, one step for each day.
        networks: By horizon, after the last day.
        ages: ``(days,)`` samples of each day that the memory of the first horizon holds at the end.
        classes: ``(21,)`` samples of each class, likewise.
    """

    name: str
    steps: list[list[Step]]
    networks: list[Network] = field(repr=False)
    ages: np.ndarray = field(repr=False)
    classes: np.ndarray = field(repr=False)

    @property
    def ttp(self) -> Ttp:
        """Its predictor, for Fugu.

        Raises:
            SettingError: Not all horizons were run.
        """
        if len(self.networks) < HORIZONS:
            raise SettingError(
                f"arm {self.name!r} has networks for {len(self.networks)} of {HORIZONS} horizons; "
                f"Fugu needs all: run it with horizons={HORIZONS}"
            )
        return Ttp(tuple(self.networks))


@dataclass(frozen=True)
class Outcome:
    """What the same viewers got from each arm's predictor.

    Attributes:
        streams: A row per stream: ``day``, ``scheme`` (the arm), ``viewer``, ``index``,
            ``considered``, ``slow``, ``startup``, ``watch``, ``stall``, ``stall_capped`` (s),
            ``ssim`` (mean index), ``delta_ssim`` (dB), ``bitrate`` (bit/s).
        scores: By arm, ``p01``, ``median``, ``mean`` log score at horizon 0 of the chunks that it
            sent itself.
    """

    streams: Samples
    scores: Mapping[str, Mapping[str, float]]

    @property
    def hours(self) -> float:
        """Watched under each arm, on average."""
        watched = self.streams["watch"][self.streams["considered"]]
        return float(watched.sum() / 3600 / max(len(self.scores), 1))

    def levels(self, *, slow: bool = False, seed: int = 0) -> Samples:
        """Stall ratio and SSIM of each arm with Puffer's intervals, see ``aggregates.official``."""
        rng = np.random.default_rng(seed)
        return aggregates.official(self.streams, rng=rng, slow=slow, realisations=2000)

    def differences(self, reference: str, *, seed: int = 0, level: float = 0.95) -> Samples:
        """To a reference arm, over the same viewers, see ``aggregates.paired``."""
        rng = np.random.default_rng(seed)
        return aggregates.paired(self.streams, reference, rng=rng, level=level)

    def level_rows(self) -> dict[str, dict[str, float]]:
        """``levels`` by arm, in the order of the arms."""
        table = self.levels()
        names = table["scheme"].tolist()
        return {
            name: {
                column: float(table[column][names.index(name)])
                for column in table
                if column != "scheme"
            }
            for name in self.scores
            if name in names
        }

    def difference_rows(self, reference: str) -> dict[str, dict[str, tuple[float, float, float]]]:
        """``differences`` by arm and variable: value, low, high."""
        table = self.differences(reference)
        rows: dict[str, dict[str, tuple[float, float, float]]] = {}
        for i in range(table.size):
            value, low, high = (float(table[c][i]) for c in ("value", "low", "high"))
            own = rows.setdefault(str(table["first"][i]), {})
            own[str(table["variable"][i])] = (value, low, high)
        return rows


@dataclass(frozen=True)
class ClosedLoop:
    """A comparison of arms.

    Args:
        population: Of paths; with its scripted shifts.
        traces: Real paths instead: the traces of each day, one more than ``days`` (the last is for
            the day under control).
        days: Of telemetry, at least 3.
        viewers: Sessions of a day.
        judges: Sessions of the day under control, for each arm.
        capacity: Of each memory, in samples.
        batch_size: Of policies with distances.
        trigger: Of the arms that wait for coverage.
        horizons: How many networks, 1 to 5; fewer than 5 cannot control.
        training: How networks are trained; those of arms start from the first day's.
        seed: Of everything random.

    Raises:
        SettingError: A setting out of its range.
    """

    population: Population = field(default_factory=Population)
    traces: Sequence[Traces] | None = field(default=None, repr=False)
    days: int = 8
    viewers: int = 100
    judges: int = 200
    capacity: int = 20_000
    batch_size: int = 64
    trigger: Trigger = field(default_factory=lambda: OnCoverage(0.05, new_labels=1.0))
    horizons: int = HORIZONS
    training: TrainingSettings = AFFORDABLE
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("days", 3), ("viewers", 1), ("judges", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"{name}={getattr(self, name)}; give at least {least}")
        if not 1 <= self.horizons <= HORIZONS:
            raise SettingError(f"horizons={self.horizons}; give 1 to {HORIZONS}")
        if self.traces is not None and len(self.traces) < self.days + 1:
            raise SettingError(
                f"traces of {len(self.traces)} days; {self.days} days of telemetry and one under "
                "control need one more than days"
            )
        for name in CONTROLLED:  # what is wrong with numbers shows before anything is computed
            self.memory(name)

    def memory(self, name: str, horizon: int = 0) -> Memory:
        """The memory of an arm, empty.

        Args:
            name: One of `memento_puffer.studies.arms.CONTROLLED`.
            horizon: Of the network that is trained on it.

        Raises:
            SettingError: There is none of this name.
        """
        name = named(name, CONTROLLED)
        capacity = round(ARMS[name].share * self.capacity)
        seed = np.random.default_rng([self.seed, horizon])
        return Memory(capacity, policy_of(name, batch_size=self.batch_size), seed=seed)

    def simulation(
        self, schemes: Sequence[Scheme], day: int, *, paired: bool = False
    ) -> Simulation:
        """The viewers and paths of a day under some schemes."""
        paths: Any = self.population
        if self.traces is not None:
            paths = TracePaths(self.traces[day], population=self.population)
        return Simulation(schemes, population=paths, paired=paired, seed=self.seed)

    def simulate_day(self, day: int, base: Ttp | None) -> Features:
        """The telemetry of one day.

        Args:
            day: From 0.
            base: The predictor that Fugu uses; without one there is no Fugu that day.
        """
        schemes = [
            Scheme("linear_bba", BBA()),
            Scheme("mpc", MPC()),
            Scheme("robust_mpc", RobustMPC()),
            Scheme("bola_basic_v1", BOLA()),
        ]
        if base is not None:
            schemes.append(Scheme("fugu_first_day", Fugu(), base))
        blocks = self.simulation(schemes, day).day(day, sessions=self.viewers, record="chunks")
        return Features.of_blocks(blocks)

    # ------------------------------------------------------------------ the steps, each in a folder

    def prepare(
        self, folder: str | Path, *, workers: int = 2, report: Report | None = None
    ) -> list[int]:
        """Simulate the days and train the first predictor.

        Args:
            folder: Made if it is not there; what it holds already is used.
            workers: Processes.
            report: Called with what is being done, how much of it is done and of how much.

        Returns:
            Samples of each day, at horizon 0.

        Raises:
            ForeignError: The folder is of a comparison with other settings.
            StorageError: It cannot be written.
        """
        folder = Path(folder)
        self._claim(folder)
        with _processes(workers) as pool:
            _each(pool, report, "first day", [(_simulate, (self, 0, folder))])
            first = [(_first_network, (self, h, folder)) for h in range(self.horizons)]
            _each(pool, report, "first predictor", first)
            rest = [(_simulate, (self, day, folder)) for day in range(1, self.days)]
            _each(pool, report, "days", rest)
        return [
            len(Features.read(_day_folder(folder, day)).samples(0)[0]) for day in range(self.days)
        ]

    def compare(
        self,
        folder: str | Path,
        arms: Iterable[str] = ("static", "random", "memento", "density-reservoir"),
        *,
        workers: int = 2,
        report: Report | None = None,
    ) -> dict[str, ArmResult]:
        """Run the daily loop of each arm and horizon over the prepared days.

        A run that was stopped goes on after its last day.

        Raises:
            SettingError: An unknown arm.
            StorageError: The days are not there; call ``prepare`` first.
        """
        folder, names = Path(folder), [named(name, CONTROLLED) for name in arms]
        self._claim(folder)
        jobs: list[Job] = [
            (_run_arm, (self, name, h, folder)) for name in names for h in range(self.horizons)
        ]
        with _processes(workers) as pool:
            found = iter(_each(pool, report, "daily loop", jobs))
        results = {}
        for name in names:
            own = [next(found) for _ in range(self.horizons)]
            results[name] = ArmResult(
                name, [o[0] for o in own], [o[1] for o in own], own[0][2], own[0][3]
            )
        return results

    def control(
        self,
        folder: str | Path,
        results: Mapping[str, ArmResult],
        *,
        workers: int = 2,
        report: Report | None = None,
        parts: int = 4,
    ) -> Outcome:
        """Let each arm's predictor drive Fugu for the same viewers of the day after the last.

        Args:
            folder: Of ``prepare``.
            results: Of ``compare``, with all horizons.
            workers: Processes.
            report: See ``prepare``.
            parts: Pieces that an arm's viewers are cut into, for the processes; results do not
                depend on it.

        Raises:
            SettingError: An arm without all horizons.
        """
        folder = Path(folder)
        self._claim(folder)
        jobs: list[Job] = [
            (_control, (self, name, result.ttp, part, parts))
            for name, result in results.items()
            for part in range(parts)
        ]
        with _processes(workers) as pool:
            found = iter(_each(pool, report, "in control", jobs))
        tables, scores = [], {}
        for name in results:
            own = [next(found) for _ in range(parts)]
            tables += [streams for streams, _ in own if streams.size]
            logs = np.concatenate([logs for _, logs in own])
            p01, median = np.quantile(logs, [0.01, 0.5]) if len(logs) else (np.nan, np.nan)
            scores[name] = {"p01": float(p01), "median": float(median), "mean": float(logs.mean())}
        return Outcome(Samples.concat(tables), scores)

    def _claim(self, folder: Path) -> None:
        """Write what the folder is of, or check it."""
        with storage_errors("make the folder", folder):
            folder.mkdir(parents=True, exist_ok=True)
        claim(folder / "closed_loop.json", self._description(), "comparison")

    def _description(self) -> dict[str, str]:
        """What the days depend on."""
        if self.traces is None:
            source = repr(self.population)
        else:
            digest = hashlib.sha256()
            for traces in self.traces:
                digest.update(traces.seconds.tobytes() + traces.rate.tobytes())
            source = f"traces {digest.hexdigest()[:16]}"
        return {
            "format": "memento-closed-loop",
            "source": source,
            "days": str(self.days),
            "viewers": str(self.viewers),
            "seed": str(self.seed),
            "training": repr(self.training),
        }


def _day_folder(folder: Path, day: int) -> Path:
    return folder / f"day-{day:03d}"


def _simulate(loop: ClosedLoop, day: int, folder: Path) -> None:
    place = _day_folder(folder, day)
    if not (place / "features.json").exists():
        base = _base(folder) if day and loop.horizons == HORIZONS else None
        loop.simulate_day(day, base).write(place)


def _base(folder: Path) -> Ttp:
    return Ttp(tuple(_base_network(folder, h) for h in range(HORIZONS)))


def _base_network(folder: Path, horizon: int) -> Network:
    return Network.of_arrays(snapshot.read(folder / f"first-{horizon}", _KIND).arrays)


_KIND = "memento-closed-loop"


def _first_network(loop: ClosedLoop, horizon: int, folder: Path) -> None:
    place = folder / f"first-{horizon}"
    if snapshot.exists(place):
        return
    columns = Features.read(_day_folder(folder, 0)).columns(horizon, sentinels="clamp")
    settings = replace(loop.training, seed=loop.training.seed + loop.seed)
    network = Training(None, columns["x"], columns["y_bin"], None, settings).run()
    snapshot.write(place, _KIND, network.arrays(), {})


def _days(folder: Path, days: int, horizon: int) -> Iterator[tuple[str, Samples]]:
    for day in range(days):
        columns = Features.read(_day_folder(folder, day)).columns(horizon, sentinels="clamp")
        kept = {name: columns[name] for name in ("x", "y", "y_bin")}
        yield f"day {day + 1}", Samples.borrow(kept)


def _run_arm(
    loop: ClosedLoop, name: str, horizon: int, folder: Path
) -> tuple[list[Step], Network, np.ndarray, np.ndarray]:
    """One arm at one horizon: steps, the last network, and what the memory holds."""
    arm, base = ARMS[name], _base_network(folder, horizon)
    settings = replace(loop.training, seed=loop.training.seed + loop.seed, start="base")
    learner = _Softened(base, settings, arm.softened)
    # In use from the first day on: it predicted what that day's samples are selected by.
    learner.restore(base.arrays())
    memory = loop.memory(name, horizon)
    steps = list(
        run(
            _days(folder, loop.days, horizon),
            memory,
            learner,
            loop.trigger if arm.waits else Every(1),
            weighted=arm.weighted,
            freeze_after=0 if arm.frozen else None,
            checkpoint=folder / "arms" / f"{name}-{loop.capacity}-{loop.batch_size}" / str(horizon),
            rng=loop.seed,
        )
    )
    ages = np.bincount(memory.arrivals, minlength=loop.days + 1)[1:]
    held = memory.samples["y_bin"] if len(memory) else np.empty(0, np.int64)
    return (
        steps,
        learner.network.softened(arm.softened),
        ages,
        np.bincount(held, minlength=CLASSES),
    )


class _Softened(TtpLearner):
    """Predicts less certainly than it was trained to; fits go on from what was trained."""

    def __init__(self, base: Network, settings: TrainingSettings, temperature: float) -> None:
        super().__init__(base, settings)
        self.temperature = temperature

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        other = TtpLearner(self.base, self.settings)
        other.restore(self.network.softened(self.temperature).arrays())
        return other.annotate(samples)


def _control(
    loop: ClosedLoop, name: str, ttp: Ttp, part: int, parts: int
) -> tuple[Samples, np.ndarray]:
    """The streams of some of the viewers under one arm, and the log scores of their chunks."""
    simulation = loop.simulation([Scheme(name, Fugu(), ttp)], loop.days, paired=True)
    streams, logs = [], [np.empty(0)]
    viewers: dict[str, Any] = {"sessions": loop.judges, "part": (part, parts)}
    for block in simulation.day(loop.days, record="chunks", **viewers):
        streams.append(_as_analysed(block, name, loop.days))
        columns = Features.of_blocks([block]).columns(0, sentinels="clamp")
        if len(columns["y"]):
            logs.append(score(ttp[0].probabilities(columns["x"]), columns["y"])["logscore"])
    empty = Samples.borrow({})
    return (Samples.concat(streams) if streams else empty), np.concatenate(logs)


def _as_analysed(block: Block, name: str, day: int) -> Samples:
    """A block's streams with the columns that the analysis of days has."""
    found = block.streams
    count = len(found["viewer"])
    return Samples.borrow(
        day=np.full(count, day, np.int64),
        scheme=np.full(count, name, "U64"),
        viewer=found["viewer"].astype(np.int64),
        index=found["index"].astype(np.int64),
        considered=found["considered"].astype(bool),
        slow=found["delivery_rate"] <= SLOW_RATE,
        startup=found["startup"],
        watch=found["watch"],
        stall=found["stall"],
        stall_capped=np.minimum(found["stall"], found["watch"]),
        ssim=found["ssim_index"],
        delta_ssim=found["delta_ssim"],
        bitrate=8 * found["bytes"] / (CHUNK_SECONDS * np.maximum(found["chunks"], 1)),
    )


# ------------------------------------------------------------------------------------- processes


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes of their own, or None for this one."""
    if workers < 1:
        raise SettingError(f"{workers} workers; give at least one process")
    if workers == 1:
        yield None
        return
    # Fresh processes: forking one with compiled kernels' threads in it may hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _each(
    pool: ProcessPoolExecutor | None, report: Report | None, what: str, jobs: Sequence[Job]
) -> list[Any]:
    """Results of all jobs in order; reports as they end."""

    def ended(count: int) -> None:
        if report is not None:
            report(what, count, len(jobs))

    ended(0)
    results = []
    if pool is None:
        for work, arguments in jobs:
            results.append(work(*arguments))
            ended(len(results))
        return results
    futures = [pool.submit(work, *arguments) for work, arguments in jobs]
    for done, future in enumerate(as_completed(futures), 1):
        future.result()
        ended(done)
    return [future.result() for future in futures]


# --------------------------------------------------------------------------------------- summary


def summary(
    results: Mapping[str, ArmResult], reference: str, horizon: int = 0
) -> dict[str, dict[str, float]]:
    """Mean difference of each arm's daily log scores from those of a reference arm, in nats.

    Returns:
        For each arm ``p01``, ``median``, ``mean`` at this horizon, each with ``..._error``, the
        standard error over the days, and ``retrained``, the number of trainings.

    Raises:
        SettingError: The reference is not among the results.
    """
    if reference not in results:
        raise SettingError(f"no arm {reference!r}; there are {sorted(results)}")
    base = _scores(results[reference], horizon)
    rows: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        rows[name] = {}
        for key, values in _scores(result, horizon).items():
            change = values - base[key]
            error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else float("nan")
            rows[name] |= {key: float(change.mean()), f"{key}_error": float(error)}
        rows[name]["retrained"] = sum(step.trained for step in result.steps[horizon])
    return rows


def _scores(result: ArmResult, horizon: int) -> dict[str, np.ndarray]:
    evaluated = [step for step in result.steps[horizon] if step.evaluated_on is not None]
    return {s: np.array([step.scores[s] for step in evaluated]) for s in ("p01", "median", "mean")}
