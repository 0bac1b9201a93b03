"""The page of a daily job: what serves, how it scores, why it was trained, what it keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from memento.deployment import DayRecord, Deployment
from memento.files import readable_json
from memento.portrait import portrait
from memento.report import live
from memento.report.memory import sections_of
from memento.report.sections import Listing, LiveChart, Report, Section

__all__ = ["claims", "of_deployment"]

_NAN = math.nan
_BY_DAY: dict[str, Any] = {"x": "day", "label": "day", "arm": "variant"}


def claims(folder: Path) -> bool:
    """Whether a folder is one that ``memento deploy init`` made."""
    document = readable_json(folder / "deployment.json") or {}
    return document.get("format") == Deployment.kind


def of_deployment(folder: Path) -> Report:
    """What became of the days of a deployment; only read.

    Raises:
        DamagedError: Its state or its settings cannot be read.
    """
    deployment = Deployment(folder)
    title = f"The daily job {folder.resolve().name}"
    states = {name: deployment.state(name) for name in deployment.variants}
    days = {name: [state.days[day] for day in sorted(state.days)] for name, state in states.items()}
    if not any(days.values()):
        missing = {"days": f"no day is done yet: memento deploy run {folder}"}
        return Report("daily-job", folder, title, ["No day is done yet."], [], missing)
    sections = [_serving(deployment, days), _scores(days), _reasons(days), _days(days)]
    missing = {}
    for name, state in states.items():
        for label, task in state.tasks.items():
            if task.memory is None:
                continue
            who = name if len(state.tasks) == 1 else f"{name}, {label}"
            found = portrait(task.memory)
            missing |= {f"{who}: {what}": why for what, why in found.missing.items()}
            sections += sections_of(found, prefix=f"{who}: ")
    text = [f"{len(days)} variants, days {_first(days)} to {_last(days)}."]
    return Report("daily-job", folder, title, text, sections, missing)


Days = Mapping[str, Sequence[DayRecord]]


def _first(days: Days) -> str:
    return min(record.day for records in days.values() for record in records)


def _last(days: Days) -> str:
    return max(record.day for records in days.values() for record in records)


def _serving(deployment: Deployment, days: Days) -> Section:
    """What serves now, and how many days came to what."""
    table: dict[str, list[Any]] = {"variant": list(days)}
    table["serves"] = [deployment.serving(name) or "nothing" for name in days]
    counted = {
        "days": lambda r: r.counts,
        "trained": lambda r: r.trained,
        "published": lambda r: r.published,
        "refused": lambda r: r.state == "refused",
        "missing": lambda r: r.state == "missing",
        "late": lambda r: r.state == "late",
        "failed": lambda r: r.state == "failed",
        "rolled back": lambda r: r.rolled_back is not None,
    }
    for what, holds in counted.items():
        table[what] = [sum(map(holds, records)) for records in days.values()]
    switches = [(name, s) for name in days for s in deployment.publication(name).history()]
    history = {
        "variant": [name for name, _ in switches],
        "day": [switch.day or "" for _, switch in switches],
        "what": [{"publish": "published"}.get(s.action, "rolled back to") for _, s in switches],
        "version": [switch.version for _, switch in switches],
        "reason": [switch.reason for _, switch in switches],
    }
    return Section("serving", "What serves", [
        Listing("serving", "Days by what became of them.", table),
        Listing("history", "Every change of what serves.", history),
    ])  # fmt: skip


def _scores(days: Days) -> Section:
    """The mean score of what served, day by day."""
    table: dict[str, list[Any]] = {n: [] for n in ("day", "variant", "score", "published")}
    for who, record, figures in _figures(days):
        table["day"].append(record.day)
        table["variant"].append(who)
        table["score"].append(figures.get("score_mean", _NAN))
        table["published"].append(record.published)
    known = {who: _known(table, who) for who in dict.fromkeys(table["variant"])}
    means = {who: sum(scores) / len(scores) for who, scores in known.items() if scores}
    if not means:
        return Section("scores", "How it predicts", ["No day was scored: nothing served yet."])
    best = max(means, key=lambda who: means[who])
    words = (
        f"What {best} serves scored {means[best]:.3f} on average over {len(known[best])} days"
        f"{', the most' if len(means) > 1 else ''}. Each day is scored before it is learned from; "
        "large dots: a new model was published that day. Scores are log scores (nats), or minus "
        "the absolute error in interquartile ranges of the label."
    )
    unit = "mean score (nats, or ranges)"
    build = partial(live.lines, y="score", unit=unit, marked="published", **_BY_DAY)
    return Section("scores", "How it predicts", [LiveChart("scores", words, table, build)])


def _known(table: Mapping[str, list[Any]], who: str) -> list[float]:
    pairs = zip(table["variant"], table["score"], strict=True)
    return [score for name, score in pairs if name == who and not math.isnan(score)]


def _reasons(days: Days) -> Section:
    """How near each day came to a training."""
    table: dict[str, list[Any]] = {n: [] for n in ("day", "variant", "reached", "trained")}
    for who, record, figures in _figures(days):
        value, threshold = figures.get("value", _NAN), figures.get("threshold", _NAN)
        table["day"].append(record.day)
        table["variant"].append(who)
        table["reached"].append(value / threshold if threshold else _NAN)
        table["trained"].append(record.trained)
    trained = sum(record.trained for records in days.values() for record in records)
    done = sum(record.counts for records in days.values() for record in records)
    if all(math.isnan(value) for value in table["reached"]):
        words = f"Trained on {trained} of {done} days; triggers gave no numbers."
        return Section("reasons", "When it was trained", [words])
    words = (
        f"Trained on {trained} of {done} days (large dots). At 100 % of its threshold a trigger "
        "asks for a training."
    )
    unit = "share of the threshold (%)"
    build = partial(live.lines, y="reached", unit=unit, percent=True, marked="trained", **_BY_DAY)
    return Section("reasons", "When it was trained", [LiveChart("reasons", words, table, build)])


def _days(days: Days) -> Section:
    """All that is a word or a count of every day."""
    rows = [(name, record) for name, records in days.items() for record in records]
    table = {
        "variant": [name for name, _ in rows],
        **{
            what: [getattr(record, what) for _, record in rows]
            for what in ("day", "state", "trained", "published")
        },
        "served": [record.served or "" for _, record in rows],
        "offered": [record.offered for _, record in rows],
        "held": [record.held for _, record in rows],
        "reason": [record.reason for _, record in rows],
    }
    return Section("days", "Day by day", [Listing("days", "Offered, held: samples.", table)])


def _figures(days: Days) -> Iterator[tuple[str, DayRecord, dict[str, float]]]:
    """Variant, or variant and label, with the figures of each day that counts."""
    for name, records in days.items():
        for record in records:
            if not record.counts:
                continue
            by_label: dict[str, dict[str, float]] = {}
            for figure, value in record.figures.items():
                label, _, what = figure.rpartition(".")
                by_label.setdefault(label, {})[what] = value
            for label, figures in (by_label or {"": {}}).items():
                yield f"{name}, {label}" if label else name, record, figures
