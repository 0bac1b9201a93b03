"""Sections of the data-centre case: shifts that are made, with the paper's numbers beside."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from memento.report.experiments import Results
from memento.report.figures import arms
from memento.report.ordering import RULE, ordering
from memento.report.sections import Chart, Listing, Report, Section
from memento.report.tables import Columns, Published, columns_of, read
from memento.settings import read as read_toml
from memento_datacenter.models import (
    CLASSIFICATION,
    PUBLISHED_CLASSIFICATION,
    PUBLISHED_REGRESSION,
    REGRESSION,
)
from memento_datacenter.report import figures
from memento_datacenter.scenarios import TASKS
from memento_datacenter.scores import composition, courses, stacked, summary

__all__ = ["LARGER", "SCENARIOS", "of_datacenter", "replays"]

published = Published(Path(__file__).with_name("published.csv"))
"""The paper's numbers by scenario: its simulations, each with its figure or table."""

SCENARIOS = {
    name: (section["title"], section["about"])
    for name, section in read_toml(Path(__file__).with_name("sections.toml")).items()
}
"""By name of the scenario: its title, and what the paper shows with it."""

LARGER = "congestion-80000"
"""Congestion with memories of 80,000 samples, among experiments."""

_TITLES = {
    **SCENARIOS,
    LARGER: (
        "Congestion, memories of 80,000",
        "As figure 11(c), with a third more room. The paper's artefact has it among its settings "
        "and publishes no numbers.",
    ),
}

# Half a 90 % interval in standard errors, by the number of seeds (Student's t).
_STUDENT = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132, 6: 2.015, 7: 1.943, 8: 1.895, 9: 1.860}

_NOTE = (
    "Columns headed paper, and hollow grey marks, are the paper's: from its own simulations, in "
    "which messages larger than the send buffer were refused. All other numbers come from this "
    "folder; they can be compared where it was simulated with --messages refused."
)


def of_datacenter(folder: str | Path) -> Report:
    """What `memento datacenter replay --out` left.

    Args:
        folder: Its tables ``iterations.csv``, ``summary.csv`` and ``held.csv`` are read.

    Raises:
        DamagedError: A table is missing or cannot be read.
        SchemaError: A table lacks a column.
    """
    folder = Path(folder)
    remedy = f"repeat memento datacenter replay ... --out {folder}, which replays nothing twice"
    iterations = read(folder / "iterations.csv", remedy)
    totals = read(folder / "summary.csv", remedy)
    held = read(folder / "held.csv", remedy)
    columns_of(totals, "scenario", "memory", "score", "value", "low", "high", "seeds")
    columns_of(held, "scenario", "memory", "workload", "value", "low", "high")
    scenarios = columns_of(iterations, "scenario")["scenario"].astype(str)
    sections = []
    for name in dict.fromkeys(scenarios.tolist()):
        own = {n: c[scenarios == name] for n, c in iterations.items()}
        sections.append(_section(name, own, totals, held))
    missing = {
        name: f"memento datacenter replay {name} ... --out {folder}"
        for name in SCENARIOS
        if name not in scenarios
    }
    if (folder / "targets.csv").is_file():
        caption = "What the paper's figures ask for; at least, but where a target says at most."
        targets = Listing("targets", caption, read(folder / "targets.csv", remedy))
        sections.append(Section("targets", "Targets", [targets]))
    sections.append(networks())
    title = "Data-centre traffic: memories on shifts"
    return Report("datacenter", folder, title, [_NOTE], sections, missing)


def replays(results: Results) -> None:
    """Sections about the experiments that replay scenarios."""
    group = "datacenter-replay"
    tables: dict[tuple[str, str], list[Columns]] = {}
    for name in results.standing.get(group, {}):
        asked = results.asked(group, name).get("parameters", {})
        table = results.table(group, name, "iterations.csv")
        if table is None:
            results.missing[f"datacenter-{name}"] = results.remedy(group, name)
        elif {"scenario", "memory", "seed"} <= asked.keys():
            topic = name.removesuffix(f"-{asked['memory']}-{asked['seed']}")
            tables.setdefault((topic, asked["scenario"]), []).append(table)
    for (topic, scenario), of_topic in tables.items():
        own = stacked(of_topic)
        made = [dict(summary(own)), dict(composition(own))]
        for table in made:
            names = np.asarray(table["scenario"])
            table["scenario"] = np.where(names == scenario, topic, names)
        results.sections.append(_section(topic, own, *made))
    if tables:
        results.sections.append(networks())
    if group not in results.standing:
        results.missing["datacenter"] = results.remedy(group)


def networks() -> Section:
    """What is trained, ours and the paper's."""
    pairs = ((CLASSIFICATION, PUBLISHED_CLASSIFICATION), (REGRESSION, PUBLISHED_REGRESSION))
    table: dict[str, Any] = {"network": list(TASKS)}
    for place, prefix in enumerate(("", "paper ")):
        for name in ("layers", "units", "batch_size", "learning_rate", "epochs"):
            table[f"{prefix}{name}"] = [getattr(pair[place], name) for pair in pairs]
    caption = (
        "Defaults; --as paper trains the paper's. memento datacenter tune searches for others."
    )
    listing = Listing("networks", caption, table)
    return Section("networks", "The networks", ["Table 1 of the paper.", listing])


def _section(name: str, own: Columns, totals: Columns, held: Columns) -> Section:
    """One scenario: its course, scores and their order beside the paper's, and what was held."""
    delays = name.startswith("congestion")
    title, about = _TITLES.get(name, (name, ""))
    course = courses(own, "error_p99" if delays else "balanced_accuracy")
    rises = courses(own, "rci")
    ylabel = "99th percentile of the error (ms)" if delays else "balanced accuracy"
    draw = functools.partial(
        figures.shift,
        ylabel=ylabel,
        rises=rises if len(rises["value"]) else None,
        scale=1e3 if delays else 1.0,
    )
    caption = f"{ylabel} over the iterations, and below where coverage rises."
    parts: list[str | Chart | Listing] = [about, Chart(f"{name}-course", caption, course, draw)]
    dots = _dots(name, totals)
    if len(dots["value"]):
        caption = "Means over iterations; colour: this folder, hollow and grey: the paper."
        scores = functools.partial(arms, xlabel="minus ms" if delays else "")
        parts.append(Chart(f"{name}-scores", caption, dots, scores))
    parts.append(Listing(f"{name}-scores", caption, _beside(name, totals)))
    order = ordering(dots)
    if len(order["score"]):
        note = f"{RULE} Of errors, less is better: their sign is turned."
        parts.append(Listing(f"{name}-ordering", note, order))
    here = np.asarray(held["scenario"]).astype(str) == name
    kept = {n: np.asarray(c)[here] for n, c in held.items()}
    caption = "In memory after the last iteration, by workload."
    parts.append(Chart(f"{name}-held", caption, kept, figures.held))
    parts.append(Listing(f"{name}-held", f"{caption} Samples.", _held(name, kept)))
    return Section(name, title, parts)


def _own(name: str, totals: Columns) -> list[int]:
    return [i for i, scenario in enumerate(totals["scenario"]) if str(scenario) == name]


def _theirs(name: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    table = published(name)
    names = ("subject", "quantity", "part", "value", "low", "high")
    return {
        (subject, quantity if quantity != "held" else part): (value, low, high)
        for subject, quantity, part, value, low, high in zip(
            *(table[n].tolist() for n in names), strict=True
        )
    }


def _beside(name: str, totals: Columns) -> dict[str, Any]:
    theirs = _theirs(name) if name in SCENARIOS else {}
    rows = _own(name, totals)
    found: dict[str, Any] = {}
    for column in ("memory", "score", "value", "low", "high", "seeds"):
        place = f"value_{column}" if column in ("low", "high") else column
        found[place] = [totals[column][i] for i in rows]
    keys = [(str(totals["memory"][i]), str(totals["score"][i])) for i in rows]
    nothing = (math.nan,) * 3
    for i, column in enumerate(("paper value", "paper value_low", "paper value_high")):
        found[column] = [theirs.get(key, nothing)[i] for key in keys]
    return found


def _dots(name: str, totals: Columns) -> dict[str, Any]:
    """Scores of which something is published; errors with their sign turned."""
    theirs = _theirs(name) if name in SCENARIOS else {}
    wanted = {score for _, score in theirs} & {str(s) for s in totals["score"]}
    rows = []
    for i in _own(name, totals):
        memory, score = str(totals["memory"][i]), str(totals["score"][i])
        if score in wanted:
            sign = -1.0 if score.startswith("error") else 1.0
            half = (float(totals["high"][i]) - float(totals["low"][i])) / 2
            error = half / _STUDENT.get(int(totals["seeds"][i]), 1.8)
            rows.append((memory, "ours", score, sign * float(totals["value"][i]), error))
    for (memory, score), (value, _, _) in theirs.items():
        if score in wanted:
            sign = -1.0 if score.startswith("error") else 1.0
            rows.append((memory, "paper", score, sign * value, math.nan))
    names = ("label", "origin", "score", "value", "error")
    return {n: [row[i] for row in rows] for i, n in enumerate(names)}


def _held(name: str, held: Columns) -> dict[str, Any]:
    """Samples of each workload in each memory, with the paper's beside them where it has any."""
    theirs = _theirs(name) if name in SCENARIOS else {}
    workloads = list(dict.fromkeys(map(str, held["workload"])))
    memories = list(dict.fromkeys(map(str, held["memory"])))
    values = {
        (str(m), str(w)): float(v)
        for m, w, v in zip(held["memory"], held["workload"], held["value"], strict=True)
    }
    found: dict[str, Any] = {"memory": memories}
    for workload in workloads:
        found[workload] = [values.get((memory, workload), math.nan) for memory in memories]
    for workload in workloads:
        known = [theirs.get((memory, workload), (math.nan,))[0] for memory in memories]
        if any(value == value for value in known):
            found[f"paper {workload}"] = known
    return found
