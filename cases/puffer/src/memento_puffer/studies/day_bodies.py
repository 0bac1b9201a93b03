"""Bodies of experiments that make days: downloaded, simulated, as features; and static models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.days import day_of
from memento.errors import SettingError, StorageError
from memento.runner.spec import Run, checked
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.data.schema import Day
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp_training import TrainingSettings
from memento_puffer.streaming.simulator import Simulation, ordinary_schemes
from memento_puffer.streaming.traces import Population, Shift
from memento_puffer.studies.contents import Period
from memento_puffer.studies.days import first_network, with_stalls
from memento_puffer.studies.replay_settings import ReplaySettings

__all__ = [
    "at_least",
    "check_period",
    "download_day",
    "features_of_simulated",
    "move_results",
    "preprocess_day",
    "simulate_period",
    "simulation_of",
    "static_network",
    "stored_days",
    "train_static",
    "training_of",
]


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
    move_results(place, run.folder)


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


def check_period(
    *, first: str, days: int, viewers: int, shifts: Sequence[Sequence[Any]], seed: int
) -> None:
    """Raise `SettingError` where a simulated period cannot be made like this."""
    at_least(1, days=days, viewers=viewers)
    simulation_of(shifts, seed)
    day_of(first, "first")


@checked(check_period)
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
    simulation = simulation_of(shifts, seed)
    names = Period("", first, days).dates
    for number, name in enumerate(names):
        run.report(number, days, name)
        if not (run.checkpoint / "days" / name / "features.json").is_file():
            features = features_of_simulated(simulation, number, viewers)
            (run.checkpoint / "days").mkdir(parents=True, exist_ok=True)
            features.write(run.checkpoint / "days" / name)
    move_results(run.checkpoint / "days", run.folder)


def features_of_simulated(simulation: Simulation, number: int, viewers: int) -> Features:
    """A simulated day, with the column ``stalled`` among its streams.

    Args:
        simulation: Whose.
        number: Which day, from 0.
        viewers: How many sessions.
    """
    stalled: dict[tuple[str, int], bool] = {}

    def watched() -> Iterator[Any]:
        for block in simulation.day(number, sessions=viewers, record="chunks"):
            streams = block.streams
            columns = (streams[n].tolist() for n in ("session", "index", "stall"))
            for session, index, stall in zip(*columns, strict=True):
                stalled[str(session), int(index)] = stall > 0  # False for NaN: it never played
            yield block

    features = Features.of_blocks(watched())
    ids = features.streams["session_id"].to_list()
    flags = [
        stalled.get((session, int(index)), False)
        for session, index in zip(ids, features.streams["index"].to_list(), strict=True)
    ]
    return with_stalls(features, np.array(flags, bool))


def simulation_of(shifts: Sequence[Sequence[Any]], seed: int) -> Simulation:
    """Four ordinary controllers over a population of paths.

    Args:
        shifts: Pairs of a name and a day, see `Period`.
        seed: Of everything random.

    Raises:
        SettingError: An unknown shift.
    """
    made = []
    for kind, day in shifts:
        constructor = getattr(Shift, str(kind), None)
        if kind not in ("new_access", "halved_capacity", "new_congestion_control"):
            raise SettingError(
                f"shift {kind!r}; give new_access, halved_capacity or new_congestion_control"
            )
        assert constructor is not None
        made.append(constructor(int(day)))
    schemes = ordinary_schemes()
    return Simulation(schemes, population=Population(seed=seed, shifts=tuple(made)), seed=seed)


def _check_static(*, horizons: int, training: Mapping[str, Any]) -> None:
    at_least(1, horizons=horizons)
    if horizons > HORIZONS:
        raise SettingError(f"horizons={horizons}; give 1 to {HORIZONS}")
    training_of(training)


def training_of(document: Mapping[str, Any]) -> TrainingSettings:
    """Settings from JSON, on top of `AFFORDABLE`."""
    return ReplaySettings.of_document({"training": document}).training


def at_least(least: int, **values: int) -> None:
    """Raise `SettingError` for a value that is less."""
    for name, value in values.items():
        if value < least:
            raise SettingError(f"{name}={value}; give at least {least}")


_STATIC = "memento-static-model"


@checked(_check_static)
def train_static(run: Run, *, horizons: int, training: Mapping[str, Any]) -> None:
    """The model that trainings start from: the first day of a period, all samples."""
    settings = training_of(training)
    days = stored_days(run.needs)
    name = next(iter(days))
    features = Features.read(days[name])
    for horizon in range(horizons):
        run.report(horizon, horizons, f"horizon {horizon}")
        place = run.checkpoint / "static" / f"horizon-{horizon}"
        if not snapshot.exists(place):
            network = first_network(features, horizon, settings)
            place.parent.mkdir(parents=True, exist_ok=True)
            snapshot.write(place, _STATIC, network.arrays(), {"day": name})
    move_results(run.checkpoint / "static", run.folder)


def static_network(folder: Path, horizon: int) -> Network:
    """The static model of one horizon that `train_static` left."""
    return Network.of_arrays(snapshot.read(folder / f"horizon-{horizon}", _STATIC).arrays)


def stored_days(needs: Mapping[str, Path]) -> dict[str, Path]:
    """All stored days in what an experiment needs, in their order."""
    found = {
        path.parent.name: path.parent
        for folder in needs.values()
        for path in folder.glob("*/features.json")
    }
    if not found:
        raise StorageError(f"no stored days in {', '.join(map(str, needs.values()))}")
    return dict(sorted(found.items()))


def move_results(source: Path, target: Path) -> None:
    """What is complete goes from the checkpoint to the results."""
    for path in sorted(source.iterdir()):
        path.rename(target / path.name)
