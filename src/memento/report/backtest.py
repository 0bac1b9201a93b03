"""The page of a comparison: what to do on top, then charts to point at, and all figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memento.errors import DamagedError, needs
from memento.files import atomic_write, storage_errors
from memento.report.page import GENERATOR, Heading, Interactive, Part, write_page
from memento.report.sections import Listing, Report, Section

__all__ = ["FILE", "claims", "gain_text", "of_backtest", "write"]

FILE = "backtest.json"
_TITLE = "Does it pay on this stream?"

_NAMES = {
    "mean": "mean",
    "median": "median",
    "worst1": "worst 1 %",
    "worst5": "worst 5 %",
    "balanced_accuracy": "balanced accuracy",
    "worst_group": "worst group",
}


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write what `of_backtest` reads, and the page beside it.

    Args:
        document: What `memento backtest --json` prints.
        path: HTML file, replaced at once. It needs no other file, and no network.

    Raises:
        MissingExtraError: Altair or what inlines its charts is not installed.
        StorageError: A file cannot be written.
    """
    with storage_errors("write the results", path.parent):
        atomic_write(path.parent / FILE, json.dumps(document, indent=1).encode())
    chart = Interactive(
        _charts(document),
        "Point at a mark to see its name. Left: what arms gain in the tail and lose in the median, "
        "and what a temperature on the baseline does (line). Right: trainings, and what they cost "
        "of the mean.",
    )
    parts: list[Part] = [*_text(document), chart]
    for section in _sections(document):
        parts.append(Heading(section.title, section.name))
        parts += [listing.shown() for listing in section.listings]
    write_page(path, _TITLE, parts, contents=True, generator=GENERATOR)


def claims(folder: Path) -> bool:
    """Whether a folder is of a comparison."""
    return (folder / FILE).is_file()


def of_backtest(folder: Path) -> Report:
    """What a comparison said, from the folder that it left.

    Raises:
        DamagedError: Its file cannot be read.
        StorageError: There is none.
    """
    path = folder / FILE
    try:
        with storage_errors("read the results", path):
            document = json.loads(path.read_bytes())
        return Report("backtest", folder, _TITLE, _text(document), _sections(document))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{path} is not readable ({error!r}); run memento backtest again with the same --out"
        ) from error


def gain_text(found: Mapping[str, Any] | None) -> str:
    """A gain with half of its interval; empty where it is not known.

    Example:
        >>> gain_text({"gain": 0.1, "low": 0.05, "high": 0.15}), gain_text(None)
        ('+0.100 ± 0.050', '')
    """
    if not found or found.get("gain") is None:
        return ""
    if found.get("low") is None:
        return f"{found['gain']:+.3f}"
    return f"{found['gain']:+.3f} ± {(found['high'] - found['low']) / 2:.3f}"


def _text(document: Mapping[str, Any]) -> list[str]:
    """The verdict, and how to read what follows."""
    return [
        document["verdict"],
        f"Each figure is a gain over {document['baseline']} with the same seeds and units, larger "
        "is better, with half of its 90 % interval; scores are log scores in nats, or minus the "
        "absolute error in interquartile ranges. "
        f"{document['seeds']} seeds, {len(document['units'])} units count.",
    ]


def _sections(document: Mapping[str, Any]) -> list[Section]:
    """All figures."""
    arms, triggers = document["arms"], document["triggers"]
    gains: dict[str, list[Any]] = {"memory": list(arms)}
    for measure, name in _NAMES.items():
        if any(measure in arm["measures"] for arm in arms.values()):
            gains[name] = [gain_text(arm["measures"].get(measure)) for arm in arms.values()]
    gains["tail above the frontier"] = [gain_text(a.get("above_frontier")) for a in arms.values()]
    names = ("trainings", "cost", "false_alarms", "units")
    figures = {"trigger": list(triggers)} | {n: [t[n] for t in triggers.values()] for n in names}
    taken = {"memory": list(arms)} | {
        name: [arm[name] for arm in arms.values()] for name in ("trainings", "seconds")
    }
    return [
        Section("policies", "Which samples to keep", [
            Listing("policies", "The frontier: the baseline at the temperature that costs as much "
                    "of the mean.", gains),
        ]),
        Section("triggers", "When to retrain", [
            Listing("triggers", "Cost: of the mean, against training after every unit. False "
                    "alarms: trainings after the first on the stream in shuffled order, where "
                    "nothing changes, of so many units.", figures),
        ]),
        Section("seconds", "What it takes", [
            Listing("seconds", "Of one run, by the clock.", taken),
        ]),
    ]  # fmt: skip


def _charts(document: Mapping[str, Any]) -> Any:
    """Altair's description of the tail-median plane and the curve of costs."""
    with needs("altair", "figures", "drawing charts"):
        import altair as alt
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
