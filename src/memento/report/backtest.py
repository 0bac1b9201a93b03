"""The page of a comparison: what to do on top, then charts to point at, and all figures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memento.errors import DamagedError
from memento.files import atomic_write, storage_errors
from memento.report import live
from memento.report.sections import Listing, LiveChart, Report, Section

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
    _report(document, path.parent).write(path)


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
        return _report(document, folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{path} is not readable ({error!r}); run memento backtest again with the same --out"
        ) from error


def _report(document: Mapping[str, Any], folder: Path) -> Report:
    sections = [Section("charts", "At a glance", _charts(document)), *_sections(document)]
    return Report("backtest", folder, _TITLE, _text(document), sections)


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
    figures = {"trigger": list(triggers)} | {
        n.replace("_", " "): [t[n] for t in triggers.values()] for n in names
    }
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


def _charts(document: Mapping[str, Any]) -> list[LiveChart]:
    """The tail-median plane and the curve of costs; every arm has one colour on the page."""
    baseline = document["baseline"]
    plane = [
        {"arm": name, **{n: one["measures"][m]["gain"] for m, n in _PLANE.items()}}
        for name, one in document["arms"].items()
        if set(_PLANE) <= set(one["measures"])
    ]
    softened = f"{baseline}, with a temperature"
    plane += [
        {"arm": softened, **{name: point.get(m) for m, name in _PLANE.items()}}
        for point in document["frontier"]
    ]
    costs = [
        {
            "trigger": name,
            "trainings": one["trainings"],
            "cost of the mean": one["cost"],
            "false alarms": one["false_alarms"],
        }
        for name, one in document["triggers"].items()
    ]
    charts = []
    if plane:
        charts.append(LiveChart(
            "plane", f"{_best(plane)} Right is better for usual samples, up for the worst 1 %; all "
            f"are gains over {baseline}.", _columns(plane), _draw_plane
        ))  # fmt: skip
    if costs:
        charts.append(LiveChart(
            "costs", f"{_cheapest(costs)} Left are fewer trainings, down is a lower cost of the "
            "mean against training after every unit.", _columns(costs), _draw_costs
        ))  # fmt: skip
    return charts


_PLANE = {"median": "gain of the median", "worst1": "gain of the worst 1 %"}


def _draw_plane(rows: list[dict[str, Any]]) -> Any:
    x, y = _PLANE.values()
    return live.points(rows, x=x, y=y, x_unit=f"{x} (score)", y_unit=f"{y} (score)", arm="arm")


def _draw_costs(rows: list[dict[str, Any]]) -> Any:
    return live.points(
        rows,
        x="trainings",
        y="cost of the mean",
        x_unit="trainings (number)",
        y_unit="cost of the mean (score)",
        arm="trigger",
    )


def _best(rows: Sequence[Mapping[str, Any]]) -> str:
    tail = _PLANE["worst1"]
    known = [row for row in rows if row[tail] is not None]
    if not known:
        return "No arm's tail is known."
    first = max(known, key=lambda row: row[tail])
    return f"The tail gains most with {first['arm']}: {first[tail]:+.3f}."


def _cheapest(rows: Sequence[Mapping[str, Any]]) -> str:
    known = [row for row in rows if row["trainings"] is not None]
    if not known:
        return "What trainings cost is not known."
    first = min(known, key=lambda row: row["trainings"])
    cost = first["cost of the mean"]
    said = "" if cost is None else f", for {cost:.3f} of the mean"
    return f"{first['trigger']} trains least: {first['trainings']:g} times{said}."


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns; what is not known is NaN."""
    return {
        name: [math.nan if row[name] is None else row[name] for row in rows] for name in rows[0]
    }
