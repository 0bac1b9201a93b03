"""Sections of what viewers got: analyses of days, the demo, and what Puffer published."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import DamagedError
from memento.report import figures
from memento.report.sections import Chart, Listing, Report, Section
from memento.report.tables import Columns, columns_of, flags, read, read_document
from memento_puffer.published import PRIMARY
from memento_puffer.report import over_days, sweeps
from memento_puffer.report.comparison import wide
from memento_puffer.report.figures import BETTER, levels_of, trade_off
from memento_puffer.report.published import CONDITIONS, NOTE, published

__all__ = ["analysis_section", "demo_section", "of_analysis", "of_demo"]

# Further numbers of 2019 and what they are of.
_STUDIES = {
    "puffer-vintages": "Fugu with predictors trained up to another month, 2019.",
    "puffer-predictors": "Fugu with other predictors, and Fugu as it is at the same time, 2019.",
    "puffer-first-chunk": "First chunks: SSIM (dB) and startup delay (s), 2019.",
    "puffer-bitrate": "Mean bitrate (Mbit/s), weighted by time watched: range of schemes, 2019.",
}


def analysis_section(
    name: str, schemes: Columns, calibration: Columns | None = None, title: str = ""
) -> Section:
    """Quality against stalls of each scheme, and Puffer's primary experiment beside it.

    Args:
        name: Of the section.
        schemes: ``scheme``, ``streams``, ``stall_ratio`` with ``stall_low`` and ``stall_high``;
            and where known ``ssim`` and ``delta_ssim`` (dB) with ``_low`` and ``_high``.
        calibration: A row per published number: ``section``, ``quantity``, ``group``,
            ``published``, ``found``, ``low``, ``high``, ``within``, ``source``.
        title: Of the section.
    """
    ours = levels_of(schemes)
    theirs = _primary()
    parts: list[str | Chart | Listing] = [
        "Figures 17 and 18 of the paper, in the style of Puffer's own: quality against the share "
        "of time stalled, better to the top right. Published beside it: Puffer's primary "
        "experiment of 2019 with real viewers (Yan et al., NSDI 2020)."
    ]
    both = {
        "origin": np.array(["ours"] * len(ours["scheme"]) + ["paper"] * len(theirs["scheme"])),
        **{n: np.concatenate([ours[n], theirs[n]]) for n in ours},
    }
    caption = (
        "Left, this folder's schemes with Puffer's 95 % intervals; right, hollow and grey, what "
        "was published. Levels depend on the viewers' paths; compare the places of schemes."
    )
    if not np.isnan(ours["ssim"]).all():
        parts.append(Chart(name, caption, both, sweeps.quality))
    parts.append(Listing(f"{name}-schemes", "Streams that Puffer counts.", _beside(ours, schemes)))
    parts.append(
        Listing(
            f"{name}-puffer",
            "Puffer's primary experiment, 2019; with real viewers.",
            wide("puffer"),
        )
    )
    for topic, caption in _STUDIES.items():
        parts.append(Listing(f"{name}-{topic}", caption, wide(topic)))
    if calibration is not None:
        parts.append(_calibration(name, calibration))
    return Section(name, title or "What viewers got", parts)


def _primary() -> dict[str, np.ndarray]:
    table = published("puffer", part="")
    subjects = list(dict.fromkeys(table["subject"].tolist()))
    levels: dict[str, np.ndarray] = {"scheme": np.array(subjects, str)}
    for quantity in ("stalled", "ssim"):
        rows = table["quantity"] == quantity
        for end, column in (("", "value"), ("_low", "low"), ("_high", "high")):
            levels[f"{quantity}{end}"] = table[column][rows]
    return levels


def _beside(ours: Mapping[str, np.ndarray], schemes: Columns) -> dict[str, Any]:
    """Our schemes with the same controller's numbers of 2019."""
    theirs = _primary()
    place = {name: i for i, name in enumerate(theirs["scheme"].tolist())}
    at = [place.get(PRIMARY.get(name, ""), -1) for name in ours["scheme"].tolist()]
    both: dict[str, Any] = {"scheme": ours["scheme"]}
    if "streams" in schemes:
        both["streams"] = np.asarray(schemes["streams"])
    both |= {name: values for name, values in ours.items() if name != "scheme"}
    both["paper scheme"] = np.array([theirs["scheme"][i] if i >= 0 else "" for i in at], str)
    for name, values in theirs.items():
        if name != "scheme":
            both[f"paper {name}"] = np.array([values[i] if i >= 0 else math.nan for i in at])
    return both


def _calibration(name: str, table: Columns) -> Listing:
    names = ("section", "quantity", "group", "found", "low", "high", "within", "published")
    columns = columns_of(table, *names, "source")
    shown = {
        **{n: columns[n] for n in ("section", "quantity", "group", "found")},
        "found_low": columns["low"],
        "found_high": columns["high"],
        "within": flags(columns["within"]),
        "paper published": columns["published"],
        "paper source": columns["source"],
    }
    caption = "The simulator against what is published about Puffer; within: within its tolerance."
    return Listing(f"{name}-calibration", caption, shown)


def of_analysis(folder: str | Path) -> Report:
    """What `memento puffer analyze --out` left.

    Raises:
        DamagedError: A table cannot be read.
        SchemaError: A table lacks a column.
    """
    folder = Path(folder)
    remedy = f"repeat memento puffer analyze ... --out {folder}"
    totals = read(folder / "deployment.csv", remedy)
    parts: list[str | Chart | Listing] = [
        "All streams of all days; SSIM is the plain mean of daily means. Published beside it: the "
        "deployment of 2022 and 2023 on Puffer, with its stalls including the startup."
    ]
    caption = "Totals of each scheme."
    parts.append(Listing("totals", caption, totals))
    parts += deployed()
    sections = [Section("totals", "Totals", parts)]
    missing = {}
    official = folder / "official.csv"
    if official.is_file():
        schemes = read(official, remedy)
        sections.insert(0, analysis_section("analysis", schemes))
    else:
        missing["analysis"] = "no stream was long enough to count; analyse more days"
    if (folder / "paired.csv").is_file():
        sections.append(_differences("paired", read(folder / "paired.csv", remedy)))
    sections += over_days.sections(over_days.daily_of([read(folder / "daily.parquet", remedy)]))
    return Report("analysis", folder, "What viewers got", [NOTE], sections, missing)


def deployed() -> list[Listing]:
    """What is published of the deployment on Puffer: totals, differences and scores."""
    return [
        Listing(
            "published-totals",
            "The deployment on Puffer: all streams, stalls with the startup, mean SSIM.",
            wide("deployment"),
        ),
        Listing(
            "published-differences",
            "The same relative to Fugu-Feb: change of SSIM and of stalls in %, share of days "
            "(weighted) with as many stalls or more; log scores in nats, read off plots.",
            wide("deployment", against="Fugu-Feb"),
        ),
    ]


def _differences(name: str, table: Columns, title: str = "The same viewers") -> Section:
    names = ("first", "second", "variable", "unit", "value", "low", "high")
    columns = columns_of(table, *names)
    listed = {n: columns[n] for n in ("first", "second", "variable", "unit", "value")}
    listed |= {f"value_{end}": columns[end] for end in ("low", "high")}
    caption = "Differences between schemes over the same viewers, with 95 % intervals over viewers."
    parts: list[str | Chart | Listing] = [
        Chart(name, caption, columns, functools.partial(figures.forest, better=BETTER)),
        Listing(name, caption, listed),
    ]
    return Section(name, title, parts)


# -------------------------------------------------------------------------------------------- demo

_SHORT = {"p01": "tail", "median": "median"}
_UNITS = {"stalled": "%", "ssim": "dB", "delta_ssim": "dB"}


def demo_section(scores: Columns, control: Columns) -> Section:
    """The demo: predictors after a week, and back in control.

    Args:
        scores: ``arm``; ``p01``, ``median``, ``mean`` over the static model (nats) with
            ``_error``; ``retrained``.
        control: ``scheme``, ``stall_ratio``, ``ssim``, with ``_low`` and ``_high``.
    """
    names = [f"{n}{e}" for n in ("p01", "median", "mean") for e in ("", "_error")]
    columns = columns_of(scores, "arm", "retrained", *names)
    arms = [str(arm) for arm in columns["arm"]]
    known = published.by("subject", "quantity", topic="table-baselines", against="static")
    theirs = {key: value for key, value in known.items() if key[0] in arms}
    rows = [
        (arm, "ours", score, float(columns[short][i]), float(columns[f"{short}_error"][i]))
        for i, arm in enumerate(arms)
        if arm != "static"
        for short, score in _SHORT.items()
    ]
    rows += [(arm, "paper", score, value, math.nan) for (arm, score), value in theirs.items()]
    table = dict(zip(("label", "origin", "score", "value", "error"), zip(*rows, strict=True),
                     strict=True)) if rows else {}  # fmt: skip
    listed: dict[str, Any] = {"arm": arms, "trainings": columns["retrained"]}
    for short, name in {**_SHORT, "mean": "mean"}.items():
        listed[name] = columns[short]
        listed[f"{name}_error"] = columns[f"{short}_error"]
    for name in _SHORT.values():
        listed[f"paper {name}"] = [theirs.get((arm, name), math.nan) for arm in arms]
    level = levels_of(control)
    parts: list[str | Chart | Listing] = [
        "Viewers stream over changing paths; memories select from the same telemetry, and each "
        "predictor is retrained when due. In the end each chooses the bitrates for the same "
        "viewers. The paper's demo replays a week of real days and publishes no numbers; beside "
        "ours stand its replays' improvements over the static model (Fugu-Feb)."
    ]
    if table:
        caption = "Log scores over the static model's, mean over days."
        draw = functools.partial(figures.arms, xlabel="nats above static")
        parts.append(Chart("demo-scores", caption, table, draw))
    caption = (
        "Log scores on the following day as difference to the static model, in nats, first "
        "horizon, mean over days ± standard error over days. Tail: the 1st percentile."
    )
    parts.append(Listing("demo-scores", caption, listed))
    caption = "Fugu with each predictor in control, for the same viewers; 95 % intervals."
    draw = functools.partial(trade_off, level=0.95)
    if not np.isnan(level["ssim"]).all():
        parts.append(Chart("demo-control", caption, level, draw))
    parts.append(Listing("demo-control", caption, level))
    return Section("demo", "A week, and back in control", parts)


# Figure 3 of the paper: boxes with their places, and arrows between them.
_PLACES = {
    "viewers": (0.08, 0.75),
    "server: controller\nand predictor": (0.34, 0.75),
    "Memento:\nsamples in memory": (0.8, 0.75),
    "training": (0.8, 0.2),
}
_ARROWS = (
    (0, 1, "telemetry"),
    (1, 2, "samples"),
    (2, 3, "what is held,\nif coverage rose"),
    (3, 1, "new predictor"),
)


def system_section() -> Section:
    """How selection fits into a service that streams video."""
    table = figures.arrows(_PLACES, _ARROWS)
    caption = "Figure 3 of the paper: which samples a predictor is trained on, and when."
    return Section("system", "How it works", [Chart("system", caption, table, figures.diagram)])


def demo_differences(table: Columns) -> Section:
    """Differences between predictors in control, over the same viewers."""
    return _differences("demo-differences", table, "The same viewers under each predictor")


def of_demo(folder: str | Path) -> Report:
    """What `memento demo --out` left.

    Raises:
        DamagedError: ``summary.json`` cannot be read, or lacks something.
    """
    folder = Path(folder)
    path = folder / "summary.json"
    remedy = f"repeat memento demo --out {folder}"
    document = read_document(path, remedy)
    try:
        arms, control = document["arms"], document["control"]
        scores = {"arm": list(arms), **_columns(arms.values())}
        levels = {"scheme": list(control["levels"]), **_columns(control["levels"].values())}
        rows = [
            (arm, "random", variable, _UNITS.get(variable, ""), *map(float, values))
            for arm, variables in control["differences"].items()
            for variable, values in variables.items()
        ]
        names = ("first", "second", "variable", "unit", "value", "low", "high")
        differences = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        sections = [demo_section(scores, levels), system_section()]
        if rows:
            sections.append(demo_differences(differences))
        text = [str(document.get("facts", "")), NOTE, CONDITIONS]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged ({error!r}); {remedy}") from error
    return Report("demo", folder, "A week of video streaming, with the paper", text, sections)


def _columns(rows: Any) -> dict[str, list[Any]]:
    rows = list(rows)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
