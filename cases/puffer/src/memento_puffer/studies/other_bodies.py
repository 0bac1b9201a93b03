"""Bodies of the other experiments: analyses of days, the daily job over a period, the demo."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memento.arguments import require, whole
from memento.days import day_of
from memento.errors import StorageError
from memento.runner.spec import Run, checked, located
from memento_puffer.data.features import Features
from memento_puffer.data.schema import Day
from memento_puffer.deployment.deploy_settings import DeploymentSettings
from memento_puffer.streaming.traces import Population, Shift
from memento_puffer.studies.contents import Period
from memento_puffer.studies.day_bodies import check_period, simulation_of, stored_days

if TYPE_CHECKING:
    from memento_puffer.studies.closed_loop import ClosedLoop

__all__ = ["analyse", "analyse_simulated", "demo", "deploy", "published_record"]


def analyse(run: Run) -> None:
    """What viewers got on the days needed, by scheme; ``missing`` says which are empty, and why."""
    days, missing = [], {}
    for key, folder in run.needs.items():
        name = key.partition("/")[2]
        try:
            days.append(Day.find(folder, name))
        except StorageError as error:  # known not to be published, or the download had failed
            missing[name] = str(error).replace(str(folder), "the download")
    if missing:
        run.write("missing.csv", {"day": list(missing), "reason": list(missing.values())})
    if days:
        _write_analysis(run, days)


def _check_simulated(*, first: str, days: int, viewers: int, seed: int) -> None:
    check_period(first=first, days=days, viewers=viewers, shifts=(), seed=seed)


@checked(_check_simulated)
def analyse_simulated(run: Run, *, first: str, days: int, viewers: int, seed: int) -> None:
    """Simulate days in the release's files, analyse them, and compare with published figures."""
    from memento_puffer.data.release import write_simulated_day
    from memento_puffer.streaming.calibration import calibrate

    simulation = simulation_of((), seed)
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
    require("days", days, whole())
    _deployed(**given)


@checked(_check_deploy)
def deploy(
    run: Run, *, capacity: int, batch_size: int, days: int, training: Mapping[str, Any]
) -> None:
    """The daily job over the first days of a period, with three variants."""
    from memento_puffer.deployment.deploy import Deployment
    from memento_puffer.deployment.record import summary

    folders = dict(list(stored_days(run.needs).items())[:days])
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
    from memento_puffer.studies.outcomes import summary

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
