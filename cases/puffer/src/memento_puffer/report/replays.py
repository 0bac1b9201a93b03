"""Sections of replays: each table and figure of the paper's evaluation, ours and the paper's.

`SECTIONS` has an entry for each table and figure that the experiments of the Puffer case declare.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import DamagedError
from memento.files import readable_json
from memento.report import figures
from memento.report.ordering import RULE, ordering
from memento.report.sections import Chart, Listing, Report, Section
from memento.report.tables import Columns, columns_of, flags, read
from memento.settings import read as read_toml
from memento_puffer.report import sweeps
from memento_puffer.report.comparison import (
    PAPERS,
    SWEEPS,
    Arms,
    beside,
    daily,
    dots,
    inserts,
    losses,
    places,
    selected,
    sweep,
    trainings,
    wide,
)
from memento_puffer.report.published import CONDITIONS, NOTE, published
from memento_puffer.studies.arms import renamed

__all__ = [
    "SECTIONS",
    "of_replay",
    "replay_section",
    "selection_section",
    "with_names_of_today",
]

SECTIONS: Mapping[str, tuple[str, str]] = {
    name: (section["title"], section["about"])
    for name, section in read_toml(Path(__file__).with_name("sections.toml")).items()
}
"""By name of the table or figure: its title, and what the paper shows with it."""

_NATS = "nats of log score gained"
_IMPROVED = (
    "Log scores as difference to {against}, in nats: mean over days ± standard error over days. "
    "Tail: the 1st percentile. Above 0 is better."
)
_VIDEO = "stream_years: in all; mean and percentiles (p10 to p100): of a day's stream-years."
_PREDICTORS = {"memento": ("oracle", "static"), "committee": ("oracle",)}
_REFERENCES = ("daily", "static", "published")


def replay_section(
    topic: str, tables: Mapping[str, Columns], prefix: str = "", arms: Arms = PAPERS
) -> Section:
    """The section of one table or figure.

    Args:
        topic: Of `SECTIONS`.
        tables: By name, as the experiment of that name wrote them: ``improvement``, ``levels``,
            ``decisions``, ``insert``; for figure-freeze ``densities``, for table-video ``periods``.
        prefix: In front of the names of this scale's experiments.
        arms: Parameters of what was replayed, by arm.

    Raises:
        SchemaError: A table lacks a column.
    """
    title, about = SECTIONS[topic]
    name = f"{prefix}{topic}"
    parts: list[str | Chart | Listing] = [about]
    if topic == "figure-freeze":
        parts.append(_densities(name, tables["densities"]))
    elif topic == "table-video":
        parts.append(Listing(name, _VIDEO, tables["periods"]))
    else:
        if topic == "figure-loss-over-time":
            parts += _courses(name, tables["levels"])
        parts += _improvements(name, topic, tables["improvement"], tables.get("levels"), arms)
        if topic != "figure-loss-over-time" and "levels" in tables:
            parts += _evolutions(name, topic, tables["levels"], arms)
        if topic == "table-batch-size" and "insert" in tables:
            parts += _insert_times(name, tables["insert"], arms)
        if topic == "table-decisions" and "decisions" in tables:
            parts += _trainings(name, tables["decisions"], arms)
        if topic == "table-repeatability":
            caption = "The paper's default in four of its sweeps, against daily training."
            parts.append(Listing(f"{name}-published", caption, wide(topic, against="daily")))
    if prefix:
        title = f"{title} ({prefix.rstrip('-')})"
    return Section(name, title, parts)


def _improvements(
    name: str,
    topic: str,
    improvement: Columns,
    levels: Columns | None,
    arms: Arms = PAPERS,
) -> list[str | Chart | Listing]:
    """Charts over the first reference and a table over each, beside the published numbers."""
    known = set(map(str, columns_of(improvement, "against")["against"]))
    references = [r for r in _REFERENCES if r in known] + sorted(known - set(_REFERENCES))
    parts: list[str | Chart | Listing] = []
    for against in references:
        compared = beside(topic, improvement, against, arms)
        keep = ~((compared["arm"] == against) & (compared["predictor"] == "own"))
        shown = {column: values[keep] for column, values in compared.items()}
        if not parts:
            parts += _charts(name, topic, improvement, levels, against, arms)
        for column in [c for c in shown if c.startswith("paper")]:
            if np.isnan(shown[column]).all():
                del shown[column]
        caption = _IMPROVED.format(against=_named(against))
        parts.append(Listing(f"{name}-{against}", caption, shown))
    return parts


def _named(against: str) -> str:
    words = {"daily": "Fugu's daily training", "static": "the static model"}
    return words.get(against, f"the {against} model")


def _charts(
    name: str,
    topic: str,
    improvement: Columns,
    levels: Columns | None,
    against: str,
    arms: Arms,
) -> list[str | Chart | Listing]:
    """An experiment's chart over the parameter that was swept, over its arms, and their orders."""
    ylabel = f"nats above {against}"
    parts: list[str | Chart | Listing] = []
    tables = []
    if topic in SWEEPS:
        swept = sweep(topic, improvement, against, arms)
        if len(swept["x"]):
            draw = functools.partial(sweeps.sweep, xlabel=SWEEPS[topic], ylabel=ylabel)
            caption = f"Improvement over {_named(against)}. {_origins(swept)}"
            parts.append(Chart(name, caption, swept, draw))
            tables.append(swept)
    others = dots(topic, improvement, against, arms)
    if topic not in SWEEPS or topic == "table-decisions":
        draw = functools.partial(figures.arms, xlabel=f"{_NATS}, above {against}")
        place = f"{name}-arms" if parts or "figure-" in name else name
        caption = f"Improvement over {_named(against)}. {_origins(others)}"
        parts.append(Chart(place, caption, others, draw))
        if topic not in SWEEPS:
            tables.append(others)
    for table in tables:
        order = ordering(table, None if levels is None else daily(levels))
        if len(order["score"]):
            parts.append(Listing(f"{name}-ordering", RULE, order))
    return parts


def _origins(table: Columns) -> str:
    if "paper" in set(map(str, table["origin"])):
        return "Colour: this folder, with standard errors over days; hollow and grey: the paper."
    return "Colour: this folder, with standard errors over days; nothing is published beside it."


def _courses(name: str, levels: Columns) -> list[str | Chart | Listing]:
    """The tail of the loss day by day, with the paper's levels on an axis of their own."""
    courses = losses(levels, _PREDICTORS)
    # Each arm carries its own record of the static model, all alike: one of them is enough.
    paper = published("figure-loss-over-time")
    draw = functools.partial(
        sweeps.courses, ylabel="99th percentile of the loss (nats)", paper=paper
    )
    caption = (
        "99th percentile of the loss (minus the 1st percentile of the log score) on each day; less "
        "is better. The paper's levels were read off its plots, and have an axis of their own: "
        "levels of different days cannot be compared, their order can."
    )
    listed = {f"paper {n}": paper[n] for n in ("subject", "part", "low", "high")}
    return [
        Chart(name, caption, courses, draw),
        Listing(f"{name}-published", "The paper's levels in nats, read off its plots.", listed),
    ]


def _evolutions(name: str, topic: str, levels: Columns, arms: Arms) -> list[Chart]:
    """The tail of the loss day by day, of a sweep a chart for each series: figures 22 to 25."""
    table = losses(levels, _PREDICTORS)
    at = places(topic, arms)
    series = [at.get(label.partition(", ")[0], ("", 0))[0] for label in table["label"].tolist()]
    if topic not in SWEEPS:
        series = [""] * len(series)
    charts = []
    for one in dict.fromkeys(series):
        shown = {n: column[np.array(series) == one] for n, column in table.items()}
        of = f" of {one}" if one else ""
        caption = (
            f"99th percentile of the loss{of} on each day, as in figures 22 to 25; less is better."
        )
        draw = functools.partial(sweeps.courses, ylabel="99th percentile of the loss (nats)")
        charts.append(Chart(f"{name}-courses{'-' if one else ''}{one}", caption, shown, draw))
    return charts


def _insert_times(name: str, table: Columns, arms: Arms) -> list[str | Chart | Listing]:
    times = inserts(table, arms)
    if not len(times["x"]):
        return []
    caption = (
        "Seconds of an insert, mean and standard deviation over days. The paper's are of a memory "
        "of a million samples."
    )
    return [
        Chart(f"{name}-insert", caption, times, sweeps.insert_times),
        Listing(f"{name}-insert", caption, times),
    ]


def _trainings(name: str, decisions: Columns, arms: Arms = PAPERS) -> list[str | Chart | Listing]:
    columns = columns_of(decisions, "arm", "day", "trained")
    period = decisions["period"] if "period" in decisions else [""] * len(columns["arm"])
    days = {"period": np.asarray(period, str), **columns}
    caption = (
        "Trainings, and days for each of them. The paper's counts, read off a plot, are of 24 "
        "weeks in which every day could bring one."
    )
    return [
        Chart(f"{name}-days", "Days of training; one row an arm.", days, sweeps.training_days),
        Listing(f"{name}-trainings", caption, trainings(decisions, arms)),
    ]


def _densities(name: str, table: Columns) -> Chart:
    names = ("period", "day", "batch_size", "of", "metric", "value")
    columns = {n: np.asarray(c) for n, c in columns_of(table, *names).items()}
    keep = np.isin(columns["metric"].astype(str), ("q0.01", "q0.1", "q0.5", "q0.9"))
    caption = (
        "Quantiles over batches of the density in the frozen memory: solid, of each new day's "
        "batches; dotted, of the memory's own."
    )
    return Chart(name, caption, {n: c[keep] for n, c in columns.items()}, sweeps.densities)


def selection_section(tables: Mapping[str, Columns]) -> Section:
    """The selection study.

    Args:
        tables: By period, a row for each policy and batch.
    """
    name = "figure-selection"
    title, about = SECTIONS[name]
    parts: list[str | Chart | Listing] = [about]
    for period, table in tables.items():
        groups = selected(table)
        caption = (
            f"{period}: left, mean loss and density of batches by the rank of their density; "
            "middle, the share of each that a policy keeps; right, by how much the loss changes "
            "when a model is trained on what was kept. Nothing is published in numbers."
        )
        parts.append(Chart(f"{name}-{period}", caption, groups, sweeps.selection))
        parts.append(_kept(f"{name}-{period}", period, groups))
    return Section(name, title, parts)


def _kept(name: str, period: str, groups: Columns) -> Listing:
    """By policy: the rarest and the densest tenth of batches."""
    rows: dict[str, list[Any]] = {"policy": []}
    for policy in dict.fromkeys(groups["policy"].tolist()):
        of_policy = groups["policy"] == policy
        rows["policy"].append(policy)
        for words, part in (("rarest", groups["rank"] <= 0.1), ("densest", groups["rank"] >= 0.9)):
            at = of_policy & part
            for column in ("kept", "change"):
                values = groups[column][at]
                mean = float(values.mean()) if len(values) else math.nan
                rows.setdefault(f"{words}: {column}", []).append(mean)
    caption = f"{period}: share kept and change of the loss of the rarest and densest tenth."
    return Listing(name, caption, rows)


# ----------------------------------------------------------------------- one replay's own folder


def with_names_of_today(table: Columns) -> dict[str, np.ndarray]:
    """A table of until 0.1.0 with the names that arms have now."""
    columns = {n: np.asarray(table[n]) for n in ("arm", "policy", "against") if n in table}
    now = {n: np.array([renamed(str(arm)) for arm in c], str) for n, c in columns.items()}
    return {**table, **now}


def _is_former(folder: Path) -> bool:
    """Whether replays in a folder are of until 0.1.0."""
    for path in sorted(folder.glob("*/replay.json")):
        document = readable_json(path)
        if document is not None:  # tables are read whatever it is
            return bool(document.get("format") == "memento-replay")
    return False


def of_replay(folder: str | Path) -> Report:
    """What `memento puffer replay --out` left.

    Raises:
        DamagedError: A table is missing or cannot be read.
        SchemaError: A table lacks a column.
    """
    folder = Path(folder)
    place = folder / "tables"
    remedy = f"repeat memento puffer replay ... --out {folder}, which goes on where it was"
    if not (place / "steps.csv").is_file():
        raise DamagedError(
            f"{place / 'steps.csv'} is missing: the replay has not come to its end; {remedy}"
        )
    former = _is_former(folder)

    def table(name: str) -> Columns:
        columns = read(place / name, remedy)
        return with_names_of_today(columns) if former else columns

    steps = table("steps.csv")
    columns_of(steps, "arm", "name", "trained")
    decisions = {
        "arm": steps["arm"].astype(str),
        "day": steps["name"].astype(str),
        "trained": flags(steps["trained"]),
    }
    sections, missing = [], {}
    if (place / "scores.csv").is_file():
        levels = _log_scores(table("scores.csv"))
        improvement = table("improvement.csv")
        parts: list[str | Chart | Listing] = [
            "Memories and schedules over the same days. The paper's numbers are those of its "
            "baselines.",
            *_improvements("replay", "table-baselines", improvement, levels),
        ]
        sections.append(Section("replay", "Arms", parts))
        name = "figure-loss-over-time"
        title, about = SECTIONS[name]
        sections.append(Section(name, title, [about, *_courses(name, levels)]))
    else:
        missing["replay"] = "no day was judged: a model has to be trained on the day before"
    title, about = SECTIONS["table-decisions"]
    days = _trainings("table-decisions", decisions)
    sections.append(Section("table-decisions", title, [about, *days]))
    if (place / "densities.csv").is_file():
        densities = table("densities.csv")
        columns_of(densities, "arm")
        title, about = SECTIONS["figure-freeze"]
        chart = _densities("figure-freeze", {**densities, "period": densities["arm"]})
        sections.append(Section("figure-freeze", title, [about, chart]))
    title = f"Replays in {folder.resolve().name}"
    return Report("replay", folder, title, [NOTE, CONDITIONS], sections, missing)


def _log_scores(scores: Columns) -> dict[str, np.ndarray]:
    """The rows of a replay's scores that are about the log score."""
    names = ("arm", "predictor", "day", "variable", "metric", "value")
    columns = {n: np.asarray(c) for n, c in columns_of(scores, *names).items()}
    keep = columns["variable"].astype(str) == "logscore"
    return {name: column[keep] for name, column in columns.items()}
