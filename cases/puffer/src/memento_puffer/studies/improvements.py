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


def improvements(scores: Mapping[str, Samples], reference: str) -> Samples:
    """By how much replays of the same days beat one of them, or the static or published model.

    Each day's improvement is the difference of the log scores' quantiles (or means) on that day;
    the summary is their plain mean over the days that both know, as in the paper.

    Args:
        scores: By arm, the table ``scores`` of `Replay.tables`.
        reference: An arm; or "static" or "published", then each arm's own record of it.

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
    rows: list[dict[str, Any]] = []
    for name in sorted(scores):
        daily = _daily(scores[name])
        others = daily.get(reference, {})
        if reference in scores:
            others = _daily(scores[reference]).get("own", {})
        for mine in [p for p in daily if p not in REFERENCES]:
            days = sorted(set(daily[mine]) & set(others))
            row: dict[str, Any] = {"arm": name, "predictor": mine, "days": len(days)}
            for what, metric in HEADLINES.items():
                gains = np.array([daily[mine][d][metric] - others[d][metric] for d in days])
                spread = float(gains.std(ddof=1)) if len(days) > 1 else math.nan
                row[what] = float(gains.mean()) if len(days) else math.nan
                row[f"{what}_error"] = spread / math.sqrt(max(len(days), 1))
            rows.append(row)
    kinds: dict[str, Any] = {"arm": "U64", "predictor": "U64", "days": np.int64}
    kinds |= {f"{what}{end}": np.float64 for what in HEADLINES for end in ("", "_error")}
    return Samples({n: np.array([row[n] for row in rows], kind) for n, kind in kinds.items()})


def _daily(scores: Samples) -> dict[str, dict[str, dict[str, float]]]:
    """Predictor -> day -> metric -> value, of the log scores."""
    rows = scores.take(scores["variable"] == "logscore")
    found: dict[str, dict[str, dict[str, float]]] = {}
    names = ("predictor", "day", "metric", "value")
    for who, day, metric, value in zip(*(rows[n].tolist() for n in names), strict=True):
        found.setdefault(who, {}).setdefault(day, {})[metric] = value
    return found
