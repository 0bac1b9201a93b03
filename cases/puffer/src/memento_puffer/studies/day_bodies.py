"""Bodies of experiments that make days: downloaded, simulated, as features; and static models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.arguments import require, whole
from memento.days import day_of
from memento.errors import SettingError, StorageError
from memento.runner.spec import Run, checked, located
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.data.schema import Day
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp_training import TrainingSettings
from memento_puffer.streaming.simulator import Simulation, ordinary_schemes
from memento_puffer.streaming.traces import Population, Shift
from memento_puffer.studies.contents import Period
from memento_puffer.studies.days import first_network, with_stalls
from memento_puffer.studies.replay_settings import ReplaySettings

# Simulated days are numbered from here, before the release's first day (26 January 2019).
_FIRST = "2019-01-01"

__all__ = [
    "check_period",
    "download_day",
    "download_model",
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


def _check_download(*, day: str, viewers: int, seed: int) -> None:
    require("viewers", viewers, whole(0))
    require("seed", seed, whole(0))
    if day_of(day, "day") < day_of(_FIRST):
        raise SettingError(f"day={day}; give one from {_FIRST} on")


@checked(_check_download)
def download_day(run: Run, *, day: str, viewers: int = 0, seed: int = 1) -> None:
    """Fetch a day, or simulate it.

    One that Puffer is known not to have published leaves an empty folder.

    Args:
        run: Where to.
        day: The date.
        viewers: Sessions of a simulated day, which is written as Puffer would; 0: the real day.
        seed: Of the simulation; days of one seed belong to one stream.
    """
    from memento_puffer.data.download import DEFAULT_KINDS, MODEL, download
    from memento_puffer.data.release import write_simulated_day

    place = run.checkpoint / "days"  # parts of files survive an attempt that was stopped
    place.mkdir(parents=True, exist_ok=True)
    if viewers:
        number = (day_of(day) - day_of(_FIRST)).days
        made = simulation_of((), seed)
        write_simulated_day(place, day, made, number, sessions=viewers, content=False)
        move_results(place, run.folder)
        return
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


def _check_model(*, day: str, folder: str) -> None:
    day_of(day, "day")


@checked(_check_model)
def download_model(run: Run, *, day: str, folder: str = "") -> None:
    """Fetch the archived model of a day, as ``py-N.pt`` and so on.

    Args:
        run: Where to.
        day: Of its training.
        folder: Where it lies already, beside the run or in ``data`` of ``MEMENTO_DATA``; empty: it
            is fetched.
    """
    from memento_puffer.data.download import MODEL, download

    if folder:
        source = located(folder)
        paths = sorted(source.glob("*.pt"))
        if not any(path.name == "py-0.pt" for path in paths):
            raise StorageError(f"{source} holds no py-0.pt; name the folder of an archived model")
        for path in paths:
            shutil.copyfile(path, run.folder / path.name)
        return
    place = run.checkpoint / "days"
    place.mkdir(parents=True, exist_ok=True)
    found = download(day, place, kinds=(MODEL,))
    if found.state != "done" or not (place / "models" / day).is_dir():
        raise StorageError(f"the model of {day} is {found.state}; run it again later")
    move_results(place / "models" / day, run.folder)


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
    require("days", days, whole())
    require("viewers", viewers, whole())
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
        if not Features.stored(run.checkpoint / "days" / name):
            features = features_of_simulated(simulation, number, viewers)
            (run.checkpoint / "days").mkdir(parents=True, exist_ok=True)
            features.write(run.checkpoint / "days" / name)
    move_results(run.checkpoint / "days", run.folder)


def features_of_simulated(simulation: Simulation, number: int, viewers: int) -> Features:
    """A simulated day, with the column ``stalled`` among its streams.

    Args:
        simulation: Paths and controllers of its viewers.
        number: Of the day, from 0.
        viewers: Number of sessions.
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
    made = tuple(Shift.named(kind, int(day)) for kind, day in shifts)
    schemes = ordinary_schemes()
    return Simulation(schemes, population=Population(seed=seed, shifts=made), seed=seed)


def _check_static(*, horizons: int, training: Mapping[str, Any]) -> None:
    require("horizons", horizons, whole(1, HORIZONS))
    training_of(training)


def training_of(document: Mapping[str, Any]) -> TrainingSettings:
    """Settings from JSON, on top of `AFFORDABLE`."""
    return ReplaySettings.of_document({"training": document}).training


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
        path.name: path
        for folder in needs.values()
        for path in folder.glob("*")
        if Features.stored(path)
    }
    if not found:
        raise StorageError(f"no stored days in {', '.join(map(str, needs.values()))}")
    return dict(sorted(found.items()))


def move_results(source: Path, target: Path) -> None:
    """What is complete goes from the checkpoint to the results."""
    for path in sorted(source.iterdir()):
        path.rename(target / path.name)
