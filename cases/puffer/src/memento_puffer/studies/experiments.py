"""The experiments of the Puffer case: this page is the paper's table of contents.

    puffer-download     two real days, with their models
    puffer-preprocess   simulated periods and real days as features; static models
    puffer-analysis     what viewers got, by scheme; the simulator against published figures
    puffer-replay       memories, replayed; a table or figure for each question of the paper
    puffer-deployment   the daily job over a simulated period; the published record
    demo                a week of it all, with models back in control

`CONTENTS` lists every table and figure with the arms it compares, `STUDIES` those with a body of
their own. What is declared by default is `REDUCED`: three simulated periods of two weeks. Days
three times as large are `LARGE`, the paper's own three periods of real days `PAPER`; a page of
your own declares them:

    from memento_puffer.studies.experiments import PAPER, declared
    experiments = lambda: declared(PAPER)

Any value can be overridden from a file of settings, see docs/experiments.md.

Source: the Memento paper, sections 5 and 6.
"""

from __future__ import annotations

import datetime as dt
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memento import snapshot
from memento.days import day_of, days_from
from memento.errors import DamagedError, SettingError, StorageError
from memento.runner.spec import Experiment, Resources, Run, checked, located
from memento.samples import Samples
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.data.schema import Day, polars
from memento_puffer.deployment.deploy_settings import DeploymentSettings
from memento_puffer.predictor.ttp import Network, read_py
from memento_puffer.predictor.ttp_training import TrainingSettings
from memento_puffer.streaming.abr import BBA, BOLA, MPC, RobustMPC
from memento_puffer.streaming.simulator import Scheme, Simulation
from memento_puffer.streaming.traces import Population, Shift
from memento_puffer.studies.replay import (
    AFFORDABLE,
    ARMS,
    Replay,
    ReplaySettings,
    arm,
    first_network,
    improvements,
    published_models,
    selection_study,
    with_stalls,
)

if TYPE_CHECKING:
    from memento_puffer.studies.closed_loop import ClosedLoop

__all__ = [
    "CONTENTS",
    "LARGE",
    "PACKAGES",
    "PAPER",
    "REDUCED",
    "STUDIES",
    "Contents",
    "Period",
    "Scale",
    "arms_of",
    "declared",
    "experiments",
    "features_of_simulated",
    "static_network",
]

# What groups need beyond the library, by the beginnings of their names.
PACKAGES = {
    "puffer-download": (),
    "puffer-": ("polars", "matplotlib"),
    "demo": ("polars", "matplotlib"),
}

# ---------------------------------------------------------------------------- periods and scales


@dataclass(frozen=True)
class Period:
    """Days in a row that replays run over.

    Attributes:
        name: In names of experiments.
        first: Its first day, as 2021-01-01.
        days: How many.
        shifts: Of a simulated period, what changes on which day: name of a constructor of `Shift`
            and the day, from 0. None: real days.
        seed: Of a simulated period.
    """

    name: str
    first: str
    days: int
    shifts: tuple[tuple[str, int], ...] | None = None
    seed: int = 0

    @property
    def simulated(self) -> bool:
        """Whether it is made here."""
        return self.shifts is not None

    @property
    def dates(self) -> list[str]:
        """Its days by name."""
        return days_from(self.first, self.days)


@dataclass(frozen=True)
class Scale:
    """How large experiments are.

    Attributes:
        prefix: In front of the names of tables and figures.
        periods: What is replayed. The first day of a simulated one only trains its static model.
        viewers: Sessions of a simulated day; about 1,200 samples each.
        capacity: Of memories, in samples; the paper's is a third of a day.
        batch_size: Samples in a batch.
        batches: The sizes that are compared.
        interval: Days between trainings, to judge memories.
        freeze_after: Days, in the freeze study.
        members: Models that ensembles remember.
        training: How networks are trained.
        base: Folder of the static model of real days (Fugu-Feb), 15 files.
        hours: That a replay may take.
    """

    prefix: str
    periods: tuple[Period, ...]
    viewers: int
    capacity: int
    batch_size: int
    batches: tuple[int, ...]
    interval: int
    freeze_after: int
    members: int = 7
    training: TrainingSettings = AFFORDABLE
    base: str = "fugu-feb"
    hours: float = 1.0


REDUCED = Scale(
    prefix="",
    periods=(
        Period("sim-1", "2024-01-01", 15, (), seed=1),
        Period("sim-2", "2024-02-01", 15, (("new_access", 5), ("halved_capacity", 10)), seed=2),
        Period("sim-3", "2024-03-01", 15, (("new_congestion_control", 7),), seed=3),
    ),
    viewers=40,
    capacity=15_000,
    batch_size=64,
    batches=(32, 64, 128, 256, 512),
    interval=2,
    freeze_after=6,
)
"""Two weeks of about 50,000 samples a day, three times; minutes for each replay."""

LARGE = Scale(
    prefix="large-",
    periods=(Period("large-1", "2024-06-01", 15, (), seed=4),),
    viewers=120,
    capacity=50_000,
    batch_size=128,
    batches=(64, 128, 256, 512, 1024),
    interval=2,
    freeze_after=6,
)
"""Two weeks of about 150,000 samples a day without a shift; declared on demand."""

PAPER = Scale(
    prefix="paper-",
    periods=(
        Period("2021-01", "2021-01-01", 181),
        Period("2021-07", "2021-07-01", 184),
        Period("2022-01", "2022-01-01", 151),
    ),
    viewers=0,
    capacity=1_000_000,
    batch_size=256,
    batches=(128, 256, 512, 1024, 2048),
    interval=7,
    freeze_after=21,
    training=TrainingSettings(),
    hours=72.0,
)
"""The paper's three runs of real days; 3 million samples a day."""

#: Real days that the reduced set downloads and analyses.
REAL_DAYS = ("2021-10-17", "2022-02-18")

# ------------------------------------------------------------------------------ table of contents

_TEMPERATURES = (1e-5, 1e-4, 1e-3, 5e-3, 0.05, 0.1, 1.0, 10.0, 100.0)
_BANDWIDTHS = (0.001, 0.01, 0.05, 0.08, 0.125, 0.2, 0.5, 1.0, 10.0)
_FACTORS = (2, 5, 10, 20, 50, 100)
_LOSS = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
_OTHERS = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0)
_THRESHOLDS = (0.05, 0.1, 0.2)
_DAYS = (2, 7)


@dataclass(frozen=True)
class Contents:
    """A table or figure of the paper, and what it compares.

    Attributes:
        title: What it shows.
        arms: Replays of each period, by name, see `arms_of`.
        against: What improvements are measured from: an arm, or "static".
    """

    title: str
    arms: tuple[str, ...]
    against: tuple[str, ...] = ("daily", "static")
    where: str = field(default="", compare=False)


def _names(pattern: str, values: Iterable[object]) -> tuple[str, ...]:
    return tuple(pattern.format(value) for value in values)


CONTENTS: Mapping[str, Contents] = {
    "table-baselines": Contents(
        "Memento, Euclidean distances, random selection, twice the random memory",
        ("memento", "euclidean", "euclidean-inputs", "random", "random-double", "reservoir",
         "density-reservoir", "loss-aware", "fifo"),
    ),
    "table-batch-size": Contents(
        "Batch size: the tail, the median, and the time of an insert",
        ("memento", *_names("memento-batch={}", ("half", "double", "fourfold", "eightfold"))),
    ),
    "table-bandwidth": Contents(
        "Bandwidth of the kernel", ("memento", *_names("memento-h={:g}", _BANDWIDTHS))
    ),
    "table-temperature": Contents(
        "Temperature: deterministic, tempered, random",
        ("memento", "memento-T0", *_names("memento-T={:g}", _TEMPERATURES)),
    ),
    "table-other-metrics": Contents(
        "Selection by loss, confidence, frequency of the class, stalled sessions",
        ("memento", "random", *_names("loss-T={:g}", _LOSS), *_names("confidence-T={:g}", _OTHERS),
         *_names("labels-T={:g}", _OTHERS), *_names("stalled-T={:g}", _OTHERS)),
    ),
    "table-jtt": Contents(
        "Just Train Twice by factor, with random memory and Memento, alone and with the oracle",
        ("random", *_names("random-jtt={}", _FACTORS),
         "memento", *_names("memento-jtt={}", _FACTORS)),
    ),
    "table-matchmaker": Contents(
        "Matchmaker: oracle and deployable form; query by committee alone and with both",
        ("memento", "random", "density-reservoir", "committee", "committee-jtt=10"),
    ),
    "table-decisions": Contents(
        "When to retrain: coverage, calibrated coverage, loss, count, period",
        (*_names("memento-coverage={:g}", _THRESHOLDS),
         *_names("memento-calibrated={:g}", _THRESHOLDS), *_names("memento-loss={:g}", _THRESHOLDS),
         "memento-count", *_names("memento-period={}", _DAYS), "memento-always", "memento-never"),
    ),
    "figure-loss-over-time": Contents(
        "99th percentile of the loss day by day",
        ("memento", "random", "random-double", "euclidean", "committee", "memento-T0"),
    ),
    "table-freeze": Contents(
        "Frozen memories and models: whether patterns recur", ("memento-frozen", "random-frozen",
        "memento"),
    ),
    "table-repeatability": Contents(
        "The same with other seeds: noise of the numbers above",
        ("memento", *_names("memento-seed={}", (1, 2))),
    ),
    "table-horizons": Contents(
        "The other four networks of the predictor",
        tuple(f"{name}-horizon={h}" for name in ("memento", "random", "daily")
              for h in range(1, HORIZONS)),
        ("static",),
    ),
}  # fmt: skip

#: Figures with a body of their own.
STUDIES: Mapping[str, str] = {
    "figure-freeze": "Density of each new day with respect to a frozen memory, two batch sizes",
    "figure-selection": "What density and loss keep of one set of samples, batch by batch",
}


def arms_of(scale: Scale) -> dict[str, dict[str, Any]]:
    """All arms that tables compare, with the settings that differ from the scale's.

    Returns:
        By name: parameters of the body `replay`.

    Example:
        >>> arms_of(REDUCED)["memento-T=0.1"]
        {'arm': 'memento', 'temperature': 0.1}
    """
    found: dict[str, dict[str, Any]] = {name: {"arm": name} for name in ARMS}
    found["daily"]["interval"] = 1  # instead of the scale's
    # Ensembles tell what oracle and matchmaker would have done, too.
    for name in ("memento", "random", "density-reservoir", "committee"):
        found[name]["members"] = scale.members
    found["random-double"] = {"arm": "random", "capacity": 2 * scale.capacity}
    for word, factor in (("half", 0.5), ("double", 2), ("fourfold", 4), ("eightfold", 8)):
        size = max(1, int(scale.batch_size * factor))
        found[f"memento-batch={word}"] = {"arm": "memento", "batch_size": size}
    for h in _BANDWIDTHS:
        found[f"memento-h={h:g}"] = {"arm": "memento", "bandwidth": h}
    for temperature in _TEMPERATURES:
        found[f"memento-T={temperature:g}"] = {"arm": "memento", "temperature": temperature}
    for metric, temperatures in (
        ("loss", _LOSS),
        ("confidence", _OTHERS),
        ("labels", _OTHERS),
        ("stalled", _OTHERS),
    ):
        for temperature in temperatures:
            found[f"{metric}-T={temperature:g}"] = {"arm": metric, "temperature": temperature}
    for factor in _FACTORS:
        for name in ("random", "memento", "committee"):
            found[f"{name}-jtt={factor}"] = {**found[name], "jtt": float(factor)}
    daily = {"arm": "memento", "interval": 1}
    for threshold in _THRESHOLDS:
        for word, trigger in (
            ("coverage", "coverage"),
            ("calibrated", "coverage-calibrated"),
            ("loss", "loss"),
        ):
            rule = {"trigger": trigger, "threshold": threshold}
            found[f"memento-{word}={threshold:g}"] = {**daily, **rule}
    samples = float(4 * scale.capacity)
    found["memento-count"] = {**daily, "trigger": "count", "threshold": samples}
    for days in _DAYS:
        found[f"memento-period={days}"] = {**daily, "trigger": "period", "threshold": float(days)}
    found["memento-always"] = dict(daily)
    found["memento-never"] = {**daily, "trigger": "never"}
    for name in ("memento", "random"):
        found[f"{name}-frozen"] = {"arm": name, "freeze_after": scale.freeze_after}
    found["memento-frozen"]["densities"] = [scale.batch_size, 4 * scale.batch_size]
    for seed in (1, 2):
        found[f"memento-seed={seed}"] = {"arm": "memento", "seed": seed}
    for h in range(1, HORIZONS):
        for name in ("memento", "random", "daily"):
            found[f"{name}-horizon={h}"] = {**found[name], "horizon": h}
            found[f"{name}-horizon={h}"].pop("members", None)
    return found


# ---------------------------------------------------------------------------------- declarations


def experiments() -> Iterator[Experiment]:
    """What `memento run` offers: the reduced set, two real days, a deployment, the demo."""
    for day in REAL_DAYS:
        yield from _of_real_day(day)
        yield Experiment(
            "puffer-analysis", day, ":analyse", needs=(f"puffer-download/{day}",),
            resources=Resources(memory_GB=8.0),
            description=f"What viewers got on {day}, by scheme",
        )  # fmt: skip
    yield Experiment(
        "puffer-analysis", "simulated", ":analyse_simulated",
        {"first": "2024-01-01", "days": 2, "viewers": 60, "seed": 1},
        description="The same of simulated days; the simulator against Puffer's published figures",
    )  # fmt: skip
    yield from declared(REDUCED)
    for period in REDUCED.periods:
        yield Experiment(
            "puffer-deployment", period.name, ":deploy",
            {"capacity": 5000, "batch_size": 32, "days": 7, "training": _document(AFFORDABLE)},
            needs=(f"puffer-preprocess/{period.name}",),
            description="The daily job, five horizons and three variants, over simulated days",
        )  # fmt: skip
    yield Experiment(
        "puffer-deployment", "record", ":published_record", {"record": "puffer-deployment.csv"},
        files=("{record}",), optional=True,
        description="Retrainings and coverage of the deployment of 2022-2023",
    )  # fmt: skip
    yield Experiment(
        "demo", "week", ":demo",
        {"days": 8, "viewers": 60, "judges": 80, "capacity": 25_000, "seed": 0},
        resources=Resources(threads=1, memory_GB=4.0),
        description="A week of telemetry, four memories, and models back in control",
    )  # fmt: skip


def declared(scale: Scale) -> Iterator[Experiment]:
    """Periods, replays, tables and figures of a scale.

    Example:
        >>> found = {e.key: e for e in declared(REDUCED)}
        >>> found["puffer-replay/table-jtt"].needs[:2]
        ('sim-1+random', 'sim-1+random-jtt=2')
        >>> found["puffer-replay/sim-2+memento"].parameters["capacity"]
        15000
    """
    training = _document(scale.training)
    for period in scale.periods:
        if period.simulated:
            yield Experiment(
                "puffer-preprocess", period.name, f"{__name__}:simulate_period",
                {"first": period.first, "days": period.days, "viewers": scale.viewers,
                 "shifts": [list(shift) for shift in period.shifts or ()], "seed": period.seed},
                description=f"{period.days} simulated days of {scale.viewers} viewers",
            )  # fmt: skip
            yield Experiment(
                "puffer-preprocess", f"{period.name}-static", f"{__name__}:train_static",
                {"horizons": HORIZONS, "training": training}, needs=(period.name,),
                description="The static model: trained on the first day, from random weights",
            )  # fmt: skip
        else:
            for day in period.dates:
                if scale is not REDUCED and day not in REAL_DAYS:
                    yield from _of_real_day(day)
    arms = arms_of(scale)
    used = dict.fromkeys(name for part in CONTENTS.values() for name in (*part.arms, "daily"))
    for period in scale.periods:
        for name in used:
            yield _replay(scale, period, name, arms[name])
    for name, part in CONTENTS.items():
        wanted = dict.fromkeys((*part.arms, *(a for a in part.against if a in arms)))
        yield Experiment(
            "puffer-replay", f"{scale.prefix}{name}", f"{__name__}:compare",
            {"arms": list(wanted), "against": list(part.against)},
            needs=tuple(f"{period.name}+{a}" for period in scale.periods for a in wanted),
            description=part.title,
        )  # fmt: skip
    for period in scale.periods:
        yield Experiment(
            "puffer-replay", f"{period.name}+figure-selection", f"{__name__}:study_selection",
            {"samples": 5 * scale.capacity, "capacity": scale.capacity, "training": training,
             "batch_size": scale.batch_size, **_static_parameters(scale, period)},
            resources=_resources(scale), needs=_needs(period), files=_files(period),
            description=STUDIES["figure-selection"],
        )  # fmt: skip
    yield Experiment(
        "puffer-replay", f"{scale.prefix}figure-freeze", f"{__name__}:gather_densities",
        needs=tuple(f"{period.name}+memento-frozen" for period in scale.periods),
        description=STUDIES["figure-freeze"],
    )  # fmt: skip


def _replay(scale: Scale, period: Period, name: str, changes: Mapping[str, Any]) -> Experiment:
    parameters: dict[str, Any] = {
        "capacity": scale.capacity,
        "interval": scale.interval,
        "batch_size": scale.batch_size,
        "training": _document(scale.training),
        **_static_parameters(scale, period),
        **changes,
    }
    return Experiment(
        "puffer-replay",
        f"{period.name}+{name}",
        f"{__name__}:replay",
        parameters,
        resources=_resources(scale),
        needs=_needs(period),
        files=_files(period),
        description=f"Replay of {name} over {period.name}",
    )


def _static_parameters(scale: Scale, period: Period) -> dict[str, Any]:
    return {} if period.simulated else {"base": scale.base}


def _files(period: Period) -> tuple[str, ...]:
    return () if period.simulated else ("{base}",)


def _needs(period: Period) -> tuple[str, ...]:
    if period.simulated:
        names: Sequence[str] = (period.name, f"{period.name}-static")
    else:
        names = period.dates
    return tuple(f"puffer-preprocess/{name}" for name in names)


def _resources(scale: Scale) -> Resources:
    return Resources(memory_GB=2.0 + 8e-6 * scale.capacity, hours=scale.hours)


def _of_real_day(day: str) -> Iterator[Experiment]:
    yield Experiment(
        "puffer-download", day, f"{__name__}:download_day", {"day": day},
        resources=Resources(hours=6.0), description="All tables of the day, and its model",
    )  # fmt: skip
    yield Experiment(
        "puffer-preprocess", day, f"{__name__}:preprocess_day", {"day": day},
        needs=(f"puffer-download/{day}",), resources=Resources(memory_GB=8.0),
        description="Features of the day, which streams stalled, and its model",
    )  # fmt: skip


def _document(training: TrainingSettings) -> dict[str, Any]:
    return asdict(training)


# ------------------------------------------------------------------ bodies: days and static models


def download_day(run: Run, *, day: str) -> None:
    """Fetch a day. One that Puffer is known not to have published leaves an empty folder."""
    from memento_puffer.data.download import DEFAULT_KINDS, MODEL, download

    place = run.checkpoint / "days"  # parts of files survive an attempt that was stopped
    place.mkdir(parents=True, exist_ok=True)
    found = download(
        day,
        place,
        kinds=(*DEFAULT_KINDS, MODEL),
        progress=lambda done, total, label: run.report(done, total or 2 * done + 1, label),
    )
    if found.state != "done":
        wrong = [r for r in found.records if r.state in ("failed", "late", "missing")]
        raise StorageError(
            f"{day}: {wrong[0].kind} is {wrong[0].state} ({wrong[0].error}); run it again later"
        )
    _move(place, run.folder)


def preprocess_day(run: Run, *, day: str) -> None:
    """Features of a real day and its model, from what was downloaded; nothing where it is empty."""
    source = next(iter(run.needs.values()))
    models = source / "models" / day
    if models.is_dir():
        (run.folder / "models" / day).mkdir(parents=True)
        for path in sorted(models.glob("py-*.pt")):
            shutil.copyfile(path, run.folder / "models" / day / path.name)
    try:
        found = Day.find(source, day)
    except StorageError:
        return  # known to be missing, or the download would have failed
    features = Features.of_day(found)
    if features.size:
        with_stalls(features, found).write(run.folder / day)


def _check_period(
    *, first: str, days: int, viewers: int, shifts: Sequence[Sequence[Any]], seed: int
) -> None:
    _at_least(1, days=days, viewers=viewers)
    _simulation(shifts, seed)
    day_of(first, "first")


@checked(_check_period)
def simulate_period(
    run: Run,
    *,
    first: str,
    days: int,
    viewers: int,
    shifts: Sequence[Sequence[Any]] = (),
    seed: int = 0,
) -> None:
    """Simulate days and store their features, each in a folder called by its date."""
    simulation = _simulation(shifts, seed)
    names = Period("", first, days).dates
    for number, name in enumerate(names):
        run.report(number, days, name)
        if not (run.checkpoint / "days" / name / "features.json").is_file():
            features = features_of_simulated(simulation, number, viewers)
            (run.checkpoint / "days").mkdir(parents=True, exist_ok=True)
            features.write(run.checkpoint / "days" / name)
    _move(run.checkpoint / "days", run.folder)


def features_of_simulated(simulation: Simulation, number: int, viewers: int) -> Features:
    """A simulated day, with the column ``stalled`` among its streams.

    Args:
        simulation: Whose.
        number: Which day, from 0.
        viewers: How many sessions.
    """
    from memento_puffer.data.release import features_of_blocks

    stalled: dict[tuple[str, int], bool] = {}

    def watched() -> Iterator[Any]:
        for block in simulation.day(number, sessions=viewers, record="chunks"):
            streams = block.streams
            columns = (streams[n].tolist() for n in ("session", "index", "stall"))
            for session, index, stall in zip(*columns, strict=True):
                stalled[str(session), int(index)] = stall > 0  # False for NaN: it never played
            yield block

    features = features_of_blocks(watched())
    ids = features.streams["session_id"].to_list()
    flags = [
        stalled.get((session, int(index)), False)
        for session, index in zip(ids, features.streams["index"].to_list(), strict=True)
    ]
    return with_stalls(features, np.array(flags, bool))


def _simulation(shifts: Sequence[Sequence[Any]], seed: int) -> Simulation:
    made = []
    for kind, day in shifts:
        constructor = getattr(Shift, str(kind), None)
        if kind not in ("new_access", "halved_capacity", "new_congestion_control"):
            raise SettingError(
                f"shift {kind!r}; give new_access, halved_capacity or new_congestion_control"
            )
        assert constructor is not None
        made.append(constructor(int(day)))
    schemes = [
        Scheme("linear_bba", BBA()),
        Scheme("mpc", MPC()),
        Scheme("robust_mpc", RobustMPC()),
        Scheme("bola_basic_v1", BOLA()),
    ]
    return Simulation(schemes, population=Population(seed=seed, shifts=tuple(made)), seed=seed)


def _check_static(*, horizons: int, training: Mapping[str, Any]) -> None:
    _at_least(1, horizons=horizons)
    if horizons > HORIZONS:
        raise SettingError(f"horizons={horizons}; give 1 to {HORIZONS}")
    _training(training)


def _training(document: Mapping[str, Any]) -> TrainingSettings:
    return ReplaySettings.of_document({"training": document}).training


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise SettingError(f"{name}={value}; give at least {least}")


_STATIC = "memento-static-model"


@checked(_check_static)
def train_static(run: Run, *, horizons: int, training: Mapping[str, Any]) -> None:
    """The model that trainings start from: the first day of a period, all samples."""
    settings = _training(training)
    days = _days(run.needs)
    name = next(iter(days))
    features = Features.read(days[name])
    for horizon in range(horizons):
        run.report(horizon, horizons, f"horizon {horizon}")
        place = run.checkpoint / "static" / f"horizon-{horizon}"
        if not snapshot.exists(place):
            network = first_network(features, horizon, settings)
            place.parent.mkdir(parents=True, exist_ok=True)
            snapshot.write(place, _STATIC, network.arrays(), {"day": name})
    _move(run.checkpoint / "static", run.folder)


def static_network(folder: Path, horizon: int) -> Network:
    """The static model of one horizon that `train_static` left."""
    return Network.of_arrays(snapshot.read(folder / f"horizon-{horizon}", _STATIC).arrays)


def _days(needs: Mapping[str, Path]) -> dict[str, Path]:
    """All stored days in what an experiment needs, in their order."""
    found = {
        path.parent.name: path.parent
        for folder in needs.values()
        for path in folder.glob("*/features.json")
    }
    if not found:
        raise StorageError(f"no stored days in {', '.join(map(str, needs.values()))}")
    return dict(sorted(found.items()))


def _move(source: Path, target: Path) -> None:
    """What is complete goes from the checkpoint to the results."""
    for path in sorted(source.iterdir()):
        path.rename(target / path.name)


# ------------------------------------------------------------------------------- bodies: replays


def _replay_settings(
    *,
    arm: str,
    temperature: float | None,
    bandwidth: float | None,
    batch_size: int,
    base: str | None,
    **given: Any,
) -> ReplaySettings:
    """The settings that parameters of the body `replay` stand for."""
    from memento_puffer.studies.replay import arm as settings_of

    given["densities"] = list(given["densities"])
    given["training"] = dict(given["training"])
    return settings_of(
        arm,
        {**given, "coverage_batch": batch_size},
        temperature=temperature,
        bandwidth=bandwidth,
        batch_size=batch_size,
    )


def _check_replay(**parameters: Any) -> Iterator[str]:
    settings = _replay_settings(**parameters)
    own = settings.policy.settings()
    yield from (name for name in ("temperature", "bandwidth") if name not in own)
    if settings.trigger in ("always", "never"):
        yield "threshold"


@checked(_check_replay)
def replay(
    run: Run,
    *,
    arm: str,
    capacity: int,
    interval: int,
    batch_size: int,
    training: Mapping[str, Any],
    temperature: float | None = None,
    bandwidth: float | None = None,
    horizon: int = 0,
    trigger: str = "always",
    threshold: float = 0.1,
    jtt: float = 1.0,
    members: int = 1,
    freeze_after: int | None = None,
    densities: Sequence[int] = (),
    seed: int = 0,
    base: str | None = None,
) -> None:
    """Replay one arm over a period; goes on after its last day.

    Args:
        run: Needs stored days, and the static model of simulated ones.
        arm: See `memento_puffer.studies.replay.ARMS`.
        capacity: And the others: see `ReplaySettings`.
        interval: Likewise.
        batch_size: Of the policy, where it has batches, and for coverage.
        training: Likewise.
        temperature: Of the policy, where it has one; None for the arm's.
        bandwidth: Likewise.
        horizon: See `ReplaySettings`.
        trigger: Likewise.
        threshold: Likewise.
        jtt: Likewise.
        members: Likewise.
        freeze_after: Likewise.
        densities: Likewise.
        seed: Likewise.
        base: Folder of the static model of real days.
    """
    settings = _replay_settings(
        arm=arm,
        capacity=capacity,
        interval=interval,
        batch_size=batch_size,
        training=training,
        temperature=temperature,
        bandwidth=bandwidth,
        horizon=horizon,
        trigger=trigger,
        threshold=threshold,
        jtt=jtt,
        members=members,
        freeze_after=freeze_after,
        densities=densities,
        seed=seed,
        base=base,
    )
    days, network, published = _replayed(run, horizon, base)
    made = Replay(run.checkpoint / "replay", settings, days, network, published)
    made.run(run.report)
    for name, table in made.tables().items():
        if table.size:
            run.write(f"{name}.parquet", table)


def _replayed(run: Run, horizon: int, base: str | None) -> tuple[dict[str, Path], Network, Any]:
    """Days, static model and published models of a period."""
    days = _days(run.needs)
    if base is not None:
        models = {
            path.parent.name: path.parent.parent
            for folder in run.needs.values()
            for path in folder.glob(f"models/*/py-{horizon}.pt")
        }

        def published(day: str) -> Network | None:
            return published_models(models[day], horizon)(day) if day in models else None

        return days, read_py(located(base) / f"py-{horizon}.pt"), published
    folder = next(f for key, f in run.needs.items() if key.endswith("-static"))
    days.pop(next(iter(days)))  # the static model has seen it
    return days, static_network(folder, horizon), None


_STUDIED = ("memento", "memento-T0", "density-reservoir", "loss", "random")


def _check_selection(
    *,
    samples: int,
    capacity: int,
    batch_size: int,
    training: Mapping[str, Any],
    base: str | None,
    seed: int,
) -> None:
    _at_least(1, samples=samples)
    for name in _STUDIED:
        given = {"capacity": capacity, "training": dict(training), "seed": seed}
        arm(name, given, batch_size=batch_size)


@checked(_check_selection)
def study_selection(
    run: Run,
    *,
    samples: int,
    capacity: int,
    batch_size: int,
    training: Mapping[str, Any],
    base: str | None = None,
    seed: int = 0,
) -> None:
    """What density and loss keep of the first samples of a period."""
    days, network, _ = _replayed(run, 0, base)
    parts: list[Samples] = []
    for name, place in days.items():
        run.report(sum(p.size for p in parts), samples, name)
        columns = Features.read(place).columns(0, sentinels="clamp")
        part = Samples.borrow({n: columns[n] for n in ("x", "y", "y_bin")})
        parts.append(part.rows(0, samples - sum(p.size for p in parts)))
        if sum(p.size for p in parts) >= samples:
            break
    chosen = {
        name: arm(name, {"capacity": capacity}, batch_size=batch_size).policy for name in _STUDIED
    }
    found = selection_study(
        Samples.concat(parts),
        network,
        chosen,
        capacity,
        batch_size=batch_size,
        training=_training(training),
        seed=seed,
    )
    run.write("selection.parquet", found)


# ---------------------------------------------------------------------- bodies: tables and figures


def compare(run: Run, *, arms: Sequence[str], against: Sequence[str]) -> None:
    """Put replays side by side.

    Writes ``improvement`` (by period and over all days of all periods: tail, median and mean of the
    log scores against each reference, with standard errors over days), ``levels`` (each day's
    quantiles of the log score), ``decisions`` (trainings, and coverage, by day) and ``insert``
    (seconds of an insert).
    """
    by_period: dict[str, dict[str, Path]] = {}
    for key, folder in run.needs.items():
        period, _, name = key.partition("/")[2].partition("+")
        by_period.setdefault(period, {})[name] = folder
    improved: dict[str, list[Any]] = {}
    everything: dict[str, list[Samples]] = {name: [] for name in arms}
    for period, folders in by_period.items():
        scores = {name: _table(folders[name] / "scores.parquet") for name in arms}
        for name, table in scores.items():
            # One name for each day of each period, so that all of them can be put together.
            day = np.char.add(f"{period} ", table["day"].astype(str))
            everything[name].append(table.with_columns(day=day))
        _add_improvements(improved, period, scores, against)
    whole = {name: Samples.concat(parts) for name, parts in everything.items() if parts}
    _add_improvements(improved, "all", whole, against)
    run.write("improvement.csv", improved)
    levels, decisions, inserts = _side_by_side(by_period, arms)
    for name, rows in (("levels", levels), ("decisions", decisions), ("insert", inserts)):
        run.write(f"{name}.parquet", rows)


def _add_improvements(
    rows: dict[str, list[Any]], period: str, scores: Mapping[str, Samples], against: Sequence[str]
) -> None:
    for reference in against:
        found = improvements(scores, reference)
        rows.setdefault("period", []).extend([period] * found.size)
        rows.setdefault("against", []).extend([reference] * found.size)
        for name in found:
            rows.setdefault(name, []).extend(found[name].tolist())


def _side_by_side(
    by_period: Mapping[str, Mapping[str, Path]], arms: Sequence[str]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]], dict[str, list[Any]]]:
    wanted = ("q0.001", "q0.01", "q0.1", "q0.5", "mean")
    levels: dict[str, list[Any]] = {
        n: [] for n in ("period", "arm", "predictor", "day", "metric", "value")
    }
    decisions: dict[str, list[Any]] = {
        **{n: [] for n in ("period", "arm", "day", "trained", "value", "threshold", "p_value")},
        **{n: [] for n in ("coverage_plain", "coverage_calibrated")},
    }
    inserts: dict[str, list[Any]] = {n: [] for n in ("period", "arm", "days", "mean", "std")}
    for period, folders in by_period.items():
        for name in arms:
            scores = _table(folders[name] / "scores.parquet")
            chosen = (scores["variable"] == "logscore") & np.isin(scores["metric"], wanted)
            part = scores.take(chosen)
            steps = _table(folders[name] / "steps.parquet")
            for target, table in ((levels, part), (decisions, steps)):
                target["period"] += [period] * table.size
                target["arm"] += [name] * table.size
            for column in ("predictor", "day", "metric", "value"):
                levels[column] += part[column].tolist()
            decisions["day"] += steps["name"].tolist()
            for column in [*decisions][3:]:
                decisions[column] += steps[column].tolist()
            times = _table(folders[name] / "times.parquet")
            seconds = times["seconds"][times["what"] == "insert"]
            row = (period, name, len(seconds), _mean(seconds), _std(seconds))
            for column, value in zip(inserts, row, strict=True):
                inserts[column].append(value)
    return levels, decisions, inserts


def gather_densities(run: Run) -> None:
    """Densities of the frozen memories and of the days after, of all periods."""
    rows: dict[str, list[Any]] = {}
    for key, folder in run.needs.items():
        table = _table(folder / "densities.parquet")
        period = key.partition("/")[2].partition("+")[0]
        rows.setdefault("period", []).extend([period] * table.size)
        for name in table:
            rows.setdefault(name, []).extend(table[name].tolist())
    run.write("densities.parquet", rows)


def _table(path: Path) -> Samples:
    pl = polars("reading tables of results")
    if not path.is_file():
        raise DamagedError(f"{path} is missing; run the experiment it belongs to again")
    return Samples(pl.read_parquet(path))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


# --------------------------------------------------------- bodies: analysis, deployment, demo


def analyse(run: Run) -> None:
    """What viewers got on the days needed, by scheme."""
    days = [Day.find(folder, key.partition("/")[2]) for key, folder in run.needs.items()]
    _write_analysis(run, days)


def _check_simulated(*, first: str, days: int, viewers: int, seed: int) -> None:
    _check_period(first=first, days=days, viewers=viewers, shifts=(), seed=seed)


@checked(_check_simulated)
def analyse_simulated(run: Run, *, first: str, days: int, viewers: int, seed: int) -> None:
    """Simulate days in the release's files, analyse them, and compare with published figures."""
    from memento_puffer.data.release import write_simulated_day
    from memento_puffer.streaming.calibration import calibrate

    simulation = _simulation((), seed)
    found = []
    for number, name in enumerate(Period("", first, days).dates):
        run.report(number, days + 1, name)
        folder = run.checkpoint / "days" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            day = Day.find(folder, name)  # a day appears whole or not at all
        except StorageError:
            day = write_simulated_day(folder, name, simulation, number, sessions=viewers)
        found.append(day)
    _write_analysis(run, found)
    table = calibrate(found[0]).table
    run.write("calibration.csv", {name: table[name] for name in table})


def _write_analysis(run: Run, days: Sequence[Day]) -> None:
    from memento_puffer.quality import aggregates
    from memento_puffer.quality.analysis import analyze, gather

    tables = gather(analyze(days))
    official = aggregates.official(tables["streams"], rng=np.random.default_rng(0))
    run.write("schemes.csv", official)
    for name, table in tables.items():
        if table.size:
            run.write(f"{name}.parquet", table)


def _deployed(*, capacity: int, batch_size: int, training: Mapping[str, Any]) -> DeploymentSettings:
    variants = {
        "default": {"policy": {"kind": "memento", "batch_size": batch_size}},
        "deterministic": {
            "policy": {"kind": "memento", "batch_size": batch_size, "temperature": 0.0}
        },
        "density-reservoir": {
            "policy": {"kind": "density-reservoir", "batch_size": batch_size},
            "estimator": "calibrated",
        },
    }
    return DeploymentSettings.of_document(
        {"variants": variants, "capacity": capacity, "training": dict(training)}
    )


def _check_deploy(*, days: int, **given: Any) -> None:
    _at_least(1, days=days)
    _deployed(**given)


@checked(_check_deploy)
def deploy(
    run: Run, *, capacity: int, batch_size: int, days: int, training: Mapping[str, Any]
) -> None:
    """The daily job over the first days of a period, with three variants."""
    from memento_puffer.deployment.deploy import Deployment
    from memento_puffer.deployment.record import summary

    folders = dict(list(_days(run.needs).items())[:days])
    settings = _deployed(capacity=capacity, batch_size=batch_size, training=training)
    state = run.checkpoint / "state"
    if not (state / "deployment.json").is_file():
        Deployment.create(state, settings)
    deployment = Deployment(state)

    def source(day: dt.date) -> Features | None:
        place = folders.get(str(day))
        return Features.read(place) if place is not None else None

    first = day_of(next(iter(folders)))
    last = first + dt.timedelta(days=len(folders))
    for number in range(len(folders)):
        today = first + dt.timedelta(days=number + 1)
        run.report(number, len(folders), str(today))
        deployment.run(source, today=last, until=today, start=first + dt.timedelta(days=1))
    table = deployment.table()
    run.write("days.parquet", table)
    run.write("summary.csv", summary(table))


def published_record(run: Run, *, record: str) -> None:
    """The deployment of 2022 and 2023: its days, and retrainings by variant and horizon."""
    from memento_puffer.deployment.record import NEW_METRIC, between, read_record, summary

    table = read_record(located(record))
    run.write("days.parquet", table)
    run.write("summary.csv", summary(table))
    run.write("summary-since-fix.csv", summary(between(table, NEW_METRIC)))


def _loop(*, days: int, viewers: int, judges: int, capacity: int, seed: int) -> ClosedLoop:
    from memento_puffer.studies.closed_loop import ClosedLoop

    shifts = (Shift.new_access(days * 3 // 8), Shift.halved_capacity(days * 6 // 8))
    return ClosedLoop(
        population=Population(seed=seed, shifts=shifts),
        days=days,
        viewers=viewers,
        judges=judges,
        capacity=capacity,
        seed=seed,
    )


def _check_demo(**parameters: int) -> None:
    _loop(**parameters)


@checked(_check_demo)
def demo(run: Run, *, days: int, viewers: int, judges: int, capacity: int, seed: int) -> None:
    """The week of `memento demo`: tables of scores, streams and what viewers got."""
    from memento_puffer.studies.closed_loop import summary

    loop = _loop(days=days, viewers=viewers, judges=judges, capacity=capacity, seed=seed)
    folder = run.checkpoint / "loop"
    stages = {"first day": 0, "first predictor": 1, "days": 2, "daily loop": 3, "in control": 4}

    def report(what: str, done: int, total: int) -> None:
        run.report(stages[what] + done / max(total, 1), len(stages), what)

    loop.prepare(folder, workers=run.threads, report=report)
    results = loop.compare(folder, workers=run.threads, report=report)
    outcome = loop.control(folder, results, workers=run.threads, report=report)
    rows = summary(results, "static")
    columns = {"arm": list(rows)}
    names = next(iter(rows.values()))
    run.write("scores.csv", {**columns, **{n: [row[n] for row in rows.values()] for n in names}})
    run.write("control.csv", outcome.levels())
    run.write("differences.csv", outcome.differences("random"))
    run.write("streams.parquet", outcome.streams)
