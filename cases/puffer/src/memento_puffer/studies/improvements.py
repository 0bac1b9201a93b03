"""By how much replays of the same days beat each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from memento.errors import SettingError
from memento.samples import Samples

__all__ = ["HEADLINES", "REFERENCES", "improvements"]

HEADLINES = {"tail": "q0.01", "median": "q0.5", "mean": "mean"}
"""What of a day's log scores replays are compared by."""

REFERENCES = ("static", "published")
"""Predictors that are no replay's own; each replay records what they did on its days."""


def improvements(scores: Mapping[str, Samples], reference: str, predictor: str = "own") -> Samples:
    """By how much replays of the same days beat one of them, or the static or published model.

    Each day's improvement is the difference of the log scores' quantiles (or means) on that day;
    the summary is their plain mean over the days that both know, as in the paper.

    Args:
        scores: By arm, the table ``scores`` of `Replay.tables`.
        reference: An arm; or "static" or "published", then each arm's own record of it.
        predictor: Of the reference, if it is an arm.

    Returns:
        A row for each arm and predictor of its own: ``arm``, ``predictor``, ``days``, ``tail`` (1st
        percentile), ``median``, ``mean``, and ``..._error``, standard errors over days; NaN without
        a common day.

    Raises:
        SettingError: No such reference.

    Example:
        >>> one = {"day": ["d"] * 3, "predictor": ["own"] * 3, "variable": ["logscore"] * 3}
        >>> one["metric"] = ["q0.01", "q0.5", "mean"]
        >>> good = Samples(**one, value=[-2.0, -1.0, -1.1])
        >>> bad = Samples(**one, value=[-3.0, -1.0, -1.5])
        >>> improvements({"good": good, "bad": bad}, "bad")["tail"]
        array([0., 1.])
    """
    if reference not in (*scores, *REFERENCES):
        raise SettingError(f"no arm {reference!r}; there are {', '.join((*scores, *REFERENCES))}")
    found: dict[str, list[Any]] = {"arm": [], "predictor": [], "days": []}
    for name in HEADLINES:
        found[name], found[f"{name}_error"] = [], []
    for name in sorted(scores):
        daily = _daily(scores[name])
        if reference in scores:
            others = _daily(scores[reference]).get(predictor, {})
        else:
            others = daily.get(reference, {})
        for own in [p for p in daily if p not in REFERENCES]:
            days = sorted(set(daily[own]) & set(others))
            found["arm"].append(name)
            found["predictor"].append(own)
            found["days"].append(len(days))
            gains = [
                [daily[own][d][metric] - others[d][metric] for metric in HEADLINES.values()]
                for d in days
            ]
            values = np.array(gains).reshape(len(days), len(HEADLINES))
            for i, what in enumerate(HEADLINES):
                column = values[:, i]
                found[what].append(float(column.mean()) if len(days) else math.nan)
                spread = float(column.std(ddof=1)) if len(days) > 1 else math.nan
                found[f"{what}_error"].append(spread / math.sqrt(max(len(days), 1)))
    return Samples(
        {
            name: np.array(values, "U64" if name in ("arm", "predictor") else None)
            for name, values in found.items()
        }
    )


def _daily(scores: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Predictor -> day -> metric -> value, of the log scores."""
    rows = scores.take(scores["variable"] == "logscore")
    found: dict[str, dict[str, dict[str, float]]] = {}
    names = ("predictor", "day", "metric", "value")
    for who, day, metric, value in zip(*(rows[n].tolist() for n in names), strict=True):
        found.setdefault(who, {}).setdefault(day, {})[metric] = value
    return found
