"""Memories judged by what viewers get: simulated days, the daily loop, and models back in control.

The days of telemetry are the same for all arms: viewers stream over a population of paths (or real
traces) with ordinary controllers, and with Fugu once the first day's predictor is there. Each arm
then keeps samples and retrains in its own way, one memory and one network for each horizon. In the
end every arm's predictor drives Fugu for the same viewers of one more day, so that the differences
between arms are not hidden behind the differences between viewers, which are far larger.

Every day, network, arm and day under control is an experiment; a folder keeps their results, and
what is there is not computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from memento import retrain, snapshot
from memento.arguments import check_fields, whole
from memento.errors import ForeignError, SettingError
from memento.memory import Memory
from memento.retrain import OnCoverage, Trigger
from memento.runner.spec import Experiment
from memento.samples import Samples
from memento.study.runs import run_all
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.predictor.ttp import Ttp
from memento_puffer.predictor.ttp_training import AFFORDABLE, TrainingSettings
from memento_puffer.streaming.abr import Fugu
from memento_puffer.streaming.paths import TracePaths
from memento_puffer.streaming.simulator import Scheme, Simulation, ordinary_schemes
from memento_puffer.streaming.traces import Population, Shift, Traces
from memento_puffer.studies.arms import ARMS, CONTROLLED, named, policy_of
from memento_puffer.studies.outcomes import ArmResult, Outcome

__all__ = ["ClosedLoop"]

Report = Callable[[str, int, int], None]

_GROUP = "closed-loop"
_BODIES = "memento_puffer.studies.closed_loop_bodies"
# Parameters that only say where something is, and how work is cut.
_PLACES = ("traces", "days", "first", "result", "parts")
_OF_DAYS = ("population", "traces", "days", "viewers", "horizons", "training", "seed")
_OF_ARMS = (*_OF_DAYS, "capacity", "batch_size", "trigger")
_TRACES = "memento-traces"


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
    days: Annotated[int, whole(3)] = 8
    viewers: Annotated[int, whole()] = 100
    judges: Annotated[int, whole()] = 200
    capacity: int = 20_000
    batch_size: int = 64
    trigger: Trigger = field(default_factory=lambda: OnCoverage(0.05, new_labels=1.0))
    horizons: Annotated[int, whole(1, HORIZONS, f"a whole number from 1 to {HORIZONS}")] = HORIZONS
    training: TrainingSettings = AFFORDABLE
    seed: Annotated[int, whole(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
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
        schemes = ordinary_schemes()
        if base is not None:
            schemes.append(Scheme("fugu_first_day", Fugu(), base))
        blocks = self.simulation(schemes, day).day(day, sessions=self.viewers, record="chunks")
        return Features.of_blocks(blocks)

    def document(self, names: Sequence[str] = (*_OF_ARMS, "judges")) -> dict[str, Any]:
        """These settings as JSON, traces by their digest; `of_document` reads it."""
        whole = {
            **{name: getattr(self, name) for name in names},
            "population": asdict(self.population),
            "traces": None if self.traces is None else self._digest(self.traces),
            "training": asdict(self.training),
            "trigger": self.trigger.settings(),
        }
        return {name: whole[name] for name in names}

    @classmethod
    def of_document(cls, document: Mapping[str, Any], traces: str = "") -> ClosedLoop:
        """From what `document` gave, and the folder where traces are, if they are needed."""
        values = dict(document)
        shifts = tuple(Shift(**shift) for shift in values["population"]["shifts"])
        values["population"] = Population(**{**values["population"], "shifts": shifts})
        values["training"] = TrainingSettings(**values["training"])
        if "trigger" in values:
            values["trigger"] = retrain.trigger(**values["trigger"])
        values["traces"] = None
        if traces:
            places = sorted(Path(traces).iterdir())
            found = [snapshot.read(place, _TRACES).arrays for place in places]
            values["traces"] = [Traces(t["trace_id"], t["seconds"], t["rate"]) for t in found]
        return cls(**values)

    @staticmethod
    def _digest(several: Sequence[Traces]) -> str:
        digest = hashlib.sha256()
        for traces in several:
            for array in (traces.trace_id, traces.seconds, traces.rate):
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def _stored_traces(self, folder: Path) -> str:
        """Where other processes find the traces; "" where there are none."""
        if self.traces is None:
            return ""
        place = folder / f"traces-{self._digest(self.traces)}"
        for day, traces in enumerate(self.traces):
            if not snapshot.exists(place / f"{day:04d}"):
                columns = {n: getattr(traces, n) for n in ("trace_id", "seconds", "rate")}
                snapshot.write(place / f"{day:04d}", _TRACES, columns, {})
        return str(place)

    # ------------------------------------------------------------------------------- the stages

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
            SettingError: No workers.
            ForeignError: The folder is of a comparison with other settings.
            StorageError: It cannot be written.
        """
        days, _ = self._prepared(Path(folder), workers, report)
        return [len(Features.read(day).samples(0)[0]) for day in days]

    def telemetry(self, folder: str | Path, day: int) -> Features:
        """A day that was prepared in a folder."""
        return Features.read(self._prepared(Path(folder), 1, None)[0][day])

    def compare(
        self,
        folder: str | Path,
        arms: Iterable[str] = ("static", "random", "memento", "density-reservoir"),
        *,
        workers: int = 2,
        report: Report | None = None,
    ) -> dict[str, ArmResult]:
        """Run the daily loop of each arm and horizon over the days, prepared if they are not yet.

        A run that was stopped goes on after its last day.

        Raises:
            SettingError: An unknown arm, or no workers.
            ForeignError: The folder is of a comparison with other settings.
        """
        folder, names = Path(folder), [named(name, CONTROLLED) for name in arms]
        days, first = self._prepared(folder, workers, None)
        places = {"days": [str(day) for day in days], "first": first}
        experiments = [
            self._experiment(f"arm-{name}", "run_arm", _OF_ARMS, arm=name, **places)
            for name in names
        ]
        found = self._run("daily loop", experiments, folder, workers, report, self.horizons)
        return {name: ArmResult.read(name, place) for name, place in zip(names, found, strict=True)}

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
            parts: Pieces that an arm's viewers are cut into, which bounds the memory; results
                depend on it by rounding only.

        Raises:
            SettingError: An arm without all horizons, or no workers.
        """
        folder = Path(folder)
        for result in results.values():
            _ = result.ttp  # says what is wrong
        experiments = [
            self._experiment(
                f"control-{name}",
                "control",
                (*_OF_ARMS, "judges"),
                arm=name,
                parts=parts,
                result=str(result.folder),
                traces=self._stored_traces(folder),
            )
            for name, result in results.items()
        ]
        found = self._run("in control", experiments, folder, workers, report, parts)
        tables, scores = [], {}
        for name, place in zip(results, found, strict=True):
            arrays = dict(snapshot.read(place / "streams", _GROUP).arrays)
            logs = arrays.pop("logs")
            tables += [Samples.borrow(arrays)] if arrays else []
            p01, median = np.quantile(logs, [0.01, 0.5]) if len(logs) else (np.nan, np.nan)
            scores[name] = {"p01": float(p01), "median": float(median), "mean": float(logs.mean())}
        return Outcome(Samples.concat(tables), scores)

    def _prepared(
        self, folder: Path, workers: int, report: Report | None
    ) -> tuple[list[Path], list[str]]:
        """Folders of all days and of the first day's networks."""

        def day(number: int, first: Sequence[str] = ()) -> Experiment:
            more = {"day": number, "traces": self._stored_traces(folder), "first": list(first)}
            return self._experiment(f"day-{number:03d}", "simulate_day", _OF_DAYS, **more)

        (start,) = self._run("first day", [day(0)], folder, workers, report)
        networks = [
            self._experiment(f"first-{h}", "train_first", _OF_DAYS, horizon=h, days=[str(start)])
            for h in range(self.horizons)
        ]
        first = [
            str(place / "network")
            for place in self._run("first predictor", networks, folder, workers, report)
        ]
        rest = [day(number, first) for number in range(1, self.days)]
        return [start, *self._run("days", rest, folder, workers, report)], first

    def _experiment(
        self, name: str, body: str, settings: Sequence[str], **parameters: Any
    ) -> Experiment:
        parameters["loop"] = self.document(settings)
        return Experiment(_GROUP, name, f"{_BODIES}:{body}", parameters)

    def _run(
        self,
        what: str,
        experiments: Sequence[Experiment],
        folder: Path,
        workers: int,
        report: Report | None,
        length: int = 1,
    ) -> list[Path]:
        """Results of experiments, in their order."""
        if (folder / "closed_loop.json").exists():
            raise ForeignError(
                f"{folder} holds a comparison of an earlier version, which this one does not read; "
                "give another folder, or remove it"
            )

        def progress(done: int, total: int, key: str) -> None:
            if report is not None:
                report(what, done, total)

        found = run_all(
            experiments,
            folder,
            workers=workers,
            places=_PLACES,
            lengths={experiment.key: length for experiment in experiments},
            progress=progress,
        )
        return [found[experiment.key] for experiment in experiments]
