"""Sections of the data-centre case: shifts that are made, with the paper's numbers beside."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from memento.report.figures import arms
from memento.report.ordering import RULE, ordering
from memento.report.sections import Chart, Listing, Report, Section
from memento.report.tables import Columns, Published, columns_of, read
from memento_datacenter.report import figures
from memento_datacenter.scores import courses

__all__ = ["SCENARIOS", "of_datacenter"]

published = Published(Path(__file__).with_name("published.csv"))
"""The paper's numbers by scenario: its simulations, each with its figure or table."""

SCENARIOS = {
    "rare-patterns": (
        "Rare patterns",
        "Figure 11(a) and table 2. Two workloads come now and then only, and are a small share of "
        "all samples. In the paper Memento and LARS keep enough of them, a random memory too few, "
        "FIFO forgets.",
    ),
    "incremental": (
        "Incremental learning",
        "Figure 11(b) and table 2. One workload after the other. In the paper Memento knows the "
        "third two iterations after it appears; random and LARS are slow to take it in.",
    ),
    "congestion": (
        "Congestion",
        "Figure 11(c). Delays are predicted while the load grows; the 99th percentile of the error "
        "on the current load. In the paper Memento's is lowest, FIFO's unstable at 133 %.",
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
        folder: Which.

    Raises:
        DamagedError: A table is missing or cannot be read.
        SchemaError: A table lacks a column.
    """
    folder = Path(folder)
    remedy = f"repeat memento datacenter replay ... --out {folder}, which replays nothing twice"
    iterations = read(folder / "iterations.csv", remedy)
    summary = read(folder / "summary.csv", remedy)
    held = read(folder / "held.csv", remedy)
    columns_of(summary, "scenario", "memory", "score", "value", "low", "high", "seeds")
    columns_of(held, "scenario", "memory", "workload", "value", "low", "high")
    scenarios = columns_of(iterations, "scenario")["scenario"].astype(str)
    sections = []
    for name in dict.fromkeys(scenarios.tolist()):
        own = {n: c[scenarios == name] for n, c in iterations.items()}
        sections.append(_section(name, own, summary, held))
    missing = {
        name: f"memento datacenter replay {name} ... --out {folder}"
        for name in SCENARIOS
        if name not in scenarios
    }
    if (folder / "targets.csv").is_file():
        caption = "What the paper's figures ask for; at least, but where a target says at most."
        targets = Listing("targets", caption, read(folder / "targets.csv", remedy))
        sections.append(Section("targets", "Targets", [targets]))
    title = "Data-centre traffic: memories on shifts"
    return Report("datacenter", folder, title, [_NOTE], sections, missing)


def _section(name: str, own: Columns, summary: Columns, held: Columns) -> Section:
    delays = name == "congestion"
    title, about = SCENARIOS.get(name, (name, ""))
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
    dots = _dots(name, summary)
    if len(dots["value"]):
        caption = "Means over iterations; colour: this folder, hollow and grey: the paper."
        scores = functools.partial(arms, xlabel="minus ms" if delays else "")
        parts.append(Chart(f"{name}-scores", caption, dots, scores))
    parts.append(Listing(f"{name}-scores", caption, _beside(name, summary)))
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


def _own(name: str, summary: Columns) -> list[int]:
    return [i for i, scenario in enumerate(summary["scenario"]) if str(scenario) == name]


def _theirs(name: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    table = published(name)
    names = ("subject", "quantity", "part", "value", "low", "high")
    return {
        (subject, quantity if quantity != "held" else part): (value, low, high)
        for subject, quantity, part, value, low, high in zip(
            *(table[n].tolist() for n in names), strict=True
        )
    }


def _beside(name: str, summary: Columns) -> dict[str, Any]:
    theirs = _theirs(name) if name in SCENARIOS else {}
    rows = _own(name, summary)
    found: dict[str, Any] = {}
    for column in ("memory", "score", "value", "low", "high", "seeds"):
        place = f"value_{column}" if column in ("low", "high") else column
        found[place] = [summary[column][i] for i in rows]
    keys = [(str(summary["memory"][i]), str(summary["score"][i])) for i in rows]
    nothing = (math.nan,) * 3
    for i, column in enumerate(("paper value", "paper value_low", "paper value_high")):
        found[column] = [theirs.get(key, nothing)[i] for key in keys]
    return found


def _dots(name: str, summary: Columns) -> dict[str, Any]:
    """Scores of which something is published; errors with their sign turned."""
    theirs = _theirs(name) if name in SCENARIOS else {}
    wanted = {score for _, score in theirs} & {str(s) for s in summary["score"]}
    rows = []
    for i in _own(name, summary):
        memory, score = str(summary["memory"][i]), str(summary["score"][i])
        if score in wanted:
            sign = -1.0 if score.startswith("error") else 1.0
            half = (float(summary["high"][i]) - float(summary["low"][i])) / 2
            error = half / _STUDENT.get(int(summary["seeds"][i]), 1.8)
            rows.append((memory, "ours", score, sign * float(summary["value"][i]), error))
    for (memory, score), (value, _, _) in theirs.items():
        if score in wanted:
            sign = -1.0 if score.startswith("error") else 1.0
            rows.append((memory, "paper", score, sign * value, math.nan))
    names = ("label", "origin", "score", "value", "error")
    return {n: [row[i] for row in rows] for i, n in enumerate(names)}


def _held(name: str, held: Columns) -> dict[str, Any]:
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
