"""The page of a comparison: what to do on top, then charts to point at, and all figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memento.errors import DamagedError, MissingExtraError
from memento.files import atomic_write, storage_errors
from memento.report.page import GENERATOR, Heading, Interactive, Table, write_page
from memento.report.sections import Listing, Report, Section

__all__ = ["FILE", "claims", "of_backtest", "write"]

FILE = "backtest.json"

_NAMES = {
    "mean": "mean",
    "median": "median",
    "worst1": "worst 1 %",
    "worst5": "worst 5 %",
    "balanced_accuracy": "balanced accuracy",
    "worst_group": "worst group",
}


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the page, and beside it what `of_backtest` reads.

    Args:
        document: What `memento backtest --json` prints.
        path: HTML file, replaced at once. It needs no other file, and no network.

    Raises:
        MissingExtraError: Altair is not installed.
        StorageError: The file cannot be written.
    """
    baseline, arms = document["baseline"], document["arms"]
    measures = [m for m in _NAMES if any(m in arm["measures"] for arm in arms.values())]
    gains = [
        [name, *(_gain(arm["measures"].get(m)) for m in measures), _gain(arm.get("above_frontier"))]
        for name, arm in arms.items()
    ]
    times = [
        [name, f"{arm['trainings']:.1f}", f"{arm['seconds']:.2f}"] for name, arm in arms.items()
    ]
    triggers = [
        [name, f"{one['trainings']:.1f}", f"{one['cost']:+.4f}", f"{one['false_alarms']:.1f}"]
        for name, one in document["triggers"].items()
    ]
    parts = [
        document["verdict"],
        f"Each figure is a gain over {baseline} with the same seeds and units, larger is better, "
        "with its 90 % interval; scores are log scores in nats, or minus the absolute error in "
        f"interquartile ranges. {document['seeds']} seeds, {len(document['units'])} units count.",
        Heading("Which samples to keep", "policies"),
        Interactive(_charts(document), "Point at a mark to see its name. Left: what arms gain in "
                    "the tail and lose in the median, and what a temperature on the baseline "
                    "does (line). Right: trainings, and what they cost of the mean."),
        Table(["memory", *(_NAMES[m] for m in measures), "tail above the frontier"], gains,
              "The frontier: the baseline at the temperature that costs as much of the mean."),
        Heading("When to retrain", "triggers"),
        Table(["trigger", "trainings", "cost of the mean", "false alarms"], triggers,
              "Cost: against training after every unit. False alarms: trainings after the first "
              "on the stream in shuffled order, where nothing changes."),
        Heading("What it takes", "seconds"),
        Table(["memory", "trainings", "seconds"], times, "Of one run, by the clock."),
    ]  # fmt: skip
    write_page(path, "Does it pay on this stream?", parts, contents=True, generator=GENERATOR)
    with storage_errors("write the results", path.parent):
        atomic_write(path.parent / FILE, json.dumps(document, indent=1).encode())


def claims(folder: Path) -> bool:
    """Whether a folder is of a comparison."""
    return (folder / FILE).is_file()


def of_backtest(folder: Path) -> Report:
    """What a comparison said, from the folder that it left.

    Raises:
        DamagedError: Its file cannot be read.
    """
    path = folder / FILE
    try:
        with storage_errors("read the results", path):
            document = json.loads(path.read_bytes())
        arms, triggers = document["arms"], document["triggers"]
        policies: dict[str, list[Any]] = {"memory": list(arms)}
        for measure, name in _NAMES.items():
            if any(measure in arm["measures"] for arm in arms.values()):
                policies[name] = [_gain(arm["measures"].get(measure)) for arm in arms.values()]
        policies["tail above the frontier"] = [
            _gain(arm.get("above_frontier")) for arm in arms.values()
        ]
        figures: dict[str, list[Any]] = {"trigger": list(triggers)}
        for name in ("trainings", "cost", "false_alarms"):
            figures[name] = [one[name] for one in triggers.values()]
        verdict = document["verdict"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{path} is not readable ({error!r}); run memento backtest again with the same --out"
        ) from error
    sections = [
        Section("policies", "Which samples to keep", [Listing("policies", "Gains.", policies)]),
        Section("triggers", "When to retrain", [Listing("triggers", "By trigger.", figures)]),
    ]
    return Report("backtest", folder, "Does it pay on this stream?", [verdict], sections)


def _gain(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("gain") is None:
        return ""
    if found.get("low") is None:
        return f"{found['gain']:+.3f}"
    return f"{found['gain']:+.3f} ± {(found['high'] - found['low']) / 2:.3f}"


def _charts(document: Mapping[str, Any]) -> Any:
    """Altair's description of the tail-median plane and the curve of costs."""
    try:
        import altair as alt
    except ModuleNotFoundError:
        raise MissingExtraError("altair", "figures", "drawing charts") from None
    points = [
        {"arm": name, **{m: one["gain"] for m, one in arm["measures"].items()}}
        for name, arm in document["arms"].items()
        if {"median", "worst1"} <= set(arm["measures"])
    ]
    axes = {
        "x": alt.X("median:Q", title="median, gain"),
        "y": alt.Y("worst1:Q", title="worst 1 %, gain"),
    }
    marks = alt.Chart({"values": points}).mark_circle(size=90)
    plane = marks.encode(
        **axes, color=alt.Color("arm:N"), tooltip=["arm:N", "median:Q", "worst1:Q"]
    )
    frontier = [dict(point) for point in document["frontier"]]
    if frontier:
        line = alt.Chart({"values": frontier}).mark_line(color="#999999", point=True)
        plane += line.encode(**axes, order="temperature:Q", tooltip=["temperature:Q", "mean:Q"])
    costs = [{"trigger": name, **one} for name, one in document["triggers"].items()]
    curve = (
        alt.Chart({"values": costs})
        .mark_point(filled=True, size=90)
        .encode(
            x=alt.X("trainings:Q", title="trainings"),
            y=alt.Y("cost:Q", title="cost of the mean"),
            shape=alt.Shape("trigger:N"),
            tooltip=["trigger:N", "trainings:Q", "cost:Q", "false_alarms:Q", "seconds:Q"],
        )
    )
    size = {"width": 360, "height": 280}
    return (plane.properties(**size) | curve.properties(**size)).resolve_scale(shape="independent")
