"""Sections of deployments: coverage and trainings, with the published record's numbers beside."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from memento.report.sections import Chart, Listing, Report, Section
from memento.report.tables import Columns, columns_of, flags
from memento_puffer.deployment.record import NEW_METRIC
from memento_puffer.report.comparison import record_days, records, wide
from memento_puffer.report.deployment import coverage_and_trainings
from memento_puffer.report.published import DEPLOYED, NOTE, RECORD_PERIOD, published
from memento_puffer.report.viewers import deployed

__all__ = ["deployment_section", "of_deployment"]

_COLUMNS = ("variant", "horizon", "day", "retrained", "coverage_increase", "total_coverage")


def deployment_section(
    name: str,
    days: Columns,
    *,
    record: bool = False,
    densities: Mapping[str, np.ndarray] | None = None,
    title: str = "",
) -> Section:
    """Coverage and trainings of a deployment.

    Args:
        name: Of the section.
        days: A row per day, variant and horizon: ``variant``, ``horizon``, ``day``, ``retrained``,
            ``coverage_increase``, ``total_coverage``.
        record: It is the published record: trainings count since the deployment that the paper
            reports on, coverage is summed up over the days that published quantiles are of.
        densities: Of its first horizon's batches, by variant, at the end of these days.
        title: Of the section.
    """
    table = {n: np.asarray(c) for n, c in columns_of(days, *_COLUMNS).items()}
    table["variant"] = table["variant"].astype(str)
    table["day"] = table["day"].astype("datetime64[D]")
    table["retrained"] = flags(table["retrained"])
    new_metric = np.datetime64(NEW_METRIC) if record else None
    draw = functools.partial(coverage_and_trainings, title=title, new_metric=new_metric)
    first, last = RECORD_PERIOD if record else (None, None)
    summary = records(table, first, last, since=DEPLOYED if record else None)
    about = (
        "Figures 6(b) and 13 of the paper: the coverage increase since the last training, the "
        "threshold from which on a training is due, and the trainings; a variant with temperature "
        "0 collects noise and trains more often. Paper columns: the deployment on Puffer, "
        f"trainings since {DEPLOYED}, quantiles of the coverage increase {RECORD_PERIOD[0]} to "
        f"{RECORD_PERIOD[1]}, total coverage on its last day."
    )
    caption = "Coverage increase (a dot: trained) and total coverage, by variant and horizon."
    parts: list[str | Chart | Listing] = [
        about,
        Chart(name, caption, table, draw),
        Listing(f"{name}-summary", "Trainings and coverage increases.", summary),
    ]
    if record:
        caption = f"Trainings of the first horizon, in days since {DEPLOYED}."
        parts.append(Listing(f"{name}-days", caption, record_days(table, DEPLOYED)))
        parts += deployed()
        parts.append(
            Listing(
                f"{name}-densities",
                "Densities among the batches of the first horizon's memory, on the last day; paper "
                f"{RECORD_PERIOD[1]}.",
                _densities(densities) if densities else wide("densities"),
            )
        )
        caption = (
            "What the first horizon's models were trained on, by day of training: time of the "
            "chunk before (s), size of the current one (packets), delivery rate (packets/s), "
            "congestion window and packets in flight, RTT (s), with deviations where known."
        )
        parts.append(Listing(f"{name}-content", caption, wide("content")))
    return Section(name, title or "Deployment", parts)


def _densities(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How densities spread, with what is published."""
    shares = {"min": 0.0, "q0.01": 0.01, "median": 0.5, "max": 1.0}
    theirs = published.by("subject", "quantity", topic="densities")
    table = {
        "variant": np.array(list(found), str),
        "batches": np.array(list(map(len, found.values()))),
    }
    for name, share in shares.items():
        table[name] = np.array([np.quantile(values, share) for values in found.values()])
        table[f"paper {name}"] = np.array([theirs.get((v, name), math.nan) for v in found])
    return table


def of_deployment(folder: str | Path, days: Columns) -> Report:
    """A deployment's state.

    Args:
        folder: Of the deployment.
        days: ``deployment.deploy.Deployment.table``; may be empty.
    """
    folder = Path(folder)
    title = f"Deployment {folder.resolve().name}"
    if not len(days["day"]):
        missing = {"deployment": f"no day is done yet; memento puffer deploy run {folder} DAYS"}
        return Report("deployment", folder, title, [NOTE], [], missing)
    section = deployment_section("deployment", days, title="Coverage and trainings")
    return Report("deployment", folder, title, [NOTE], [section])
