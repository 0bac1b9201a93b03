"""Whether settings stand in the order that the paper found: what can be compared across data.

Levels cannot be compared between simulated and real days, the order of settings can. The rule, for
each series of a sweep and each score:

- rank correlation (Spearman's, ties averaged) of our values with the paper's over all settings
  that both have, and how often a random order has at least as high a one;
- the best setting agrees if our value of the paper's best is our best, or below it by no more than
  one standard error of the difference;
- pairs are reversed that stand in the other order here than in the paper by more than two standard
  errors of their difference.

Where scores of each day are known, differences and their errors are over the days that both
settings have, paired; else errors are taken as independent, which makes them larger.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RULE", "Days", "chance", "ordering", "rank_correlation"]

RULE = (
    "Order of settings: Spearman's rank correlation with the paper's values; chance: how often a "
    "random order does as well; the best setting agrees if ours at the paper's best lies at most "
    "one standard error of the difference below our best; reversed: pairs of settings in the other "
    "order by more than two standard errors. Standard errors are over days, of paired differences."
)

_LEAST = 3  # settings below which an order says nothing
_EXACT = 8  # up to as many settings all orders are counted


Days = Mapping[tuple[str, str, str], Mapping[str, float]]
"""By arm, predictor and score: the values of days by name."""


def ordering(table: Mapping[str, Any], days: Days | None = None) -> dict[str, np.ndarray]:
    """Compare orders, series by series.

    Args:
        table: Of ``comparison.sweep`` (settings are ``x``) or ``comparison.dots`` (one series,
            settings are labels).
        days: Of ``comparison.daily``, for paired differences of the table's ``arm`` and
            ``predictor``; None where no daily values are known.

    Returns:
        A row per series and score with three settings or more: ``series``, ``score``,
        ``settings``, ``correlation`` in [-1, 1], ``chance``, ``best`` (ours), ``best_agrees``,
        ``short`` (by how much ours at the paper's best lies below our best, nats), ``short_error``,
        ``pairs``, ``reversed``, ``paper best``.

    Example:
        >>> table = {"label": list("abc") * 2, "origin": ["ours"] * 3 + ["paper"] * 3}
        >>> table |= {"score": ["tail"] * 6, "value": [1, 2, 3, 0.1, 0.4, 0.3], "error": [0.1] * 6}
        >>> found = ordering(table)
        >>> found["correlation"], found["best_agrees"]
        (array([0.5]), array([False]))
    """
    settings = "x" if "x" in table else "label"
    size = len(table["value"])
    series = table["series"] if "series" in table else ["all"] * size
    values: dict[tuple[str, str], dict[str, dict[Any, tuple[float, float]]]] = {}
    courses: dict[tuple[str, str], dict[Any, Mapping[str, float]]] = {}
    for i in range(size):
        key = str(series[i]), str(table["score"][i])
        setting = table[settings][i]
        setting = float(setting) if settings == "x" else str(setting)
        measured = float(table["value"][i]), float(table["error"][i])
        if not math.isnan(measured[0]):
            values.setdefault(key, {}).setdefault(str(table["origin"][i]), {})[setting] = measured
        if days is not None and str(table["origin"][i]) == "ours":
            whose = str(table["arm"][i]), str(table["predictor"][i]), key[1]
            courses.setdefault(key, {})[setting] = days.get(whose, {})
    rows = []
    for (name, score), origins in values.items():
        ours, theirs = origins.get("ours", {}), origins.get("paper", {})
        common = sorted(set(ours) & set(theirs))
        if len(common) >= _LEAST:
            found_days = courses.get((name, score), {})
            rows.append((name, score, *_compared(common, ours, theirs, found_days)))
    names = (
        *("series", "score", "settings", "correlation", "chance", "best", "best_agrees"),
        *("short", "short_error", "pairs", "reversed", "paper best"),
    )
    kinds = {"series": str, "score": str, "settings": np.int64, "best": str, "best_agrees": bool}
    kinds |= {"pairs": np.int64, "reversed": np.int64, "paper best": str}
    return {
        column: np.array([row[i] for row in rows], kinds.get(column, np.float64))
        for i, column in enumerate(names)
    }


def _compared(
    common: list[Any],
    ours: Mapping[Any, tuple[float, float]],
    theirs: Mapping[Any, tuple[float, float]],
    days: Mapping[Any, Mapping[str, float]],
) -> tuple[Any, ...]:
    """One row of `ordering`, without series and score."""
    mine = [ours[setting][0] for setting in common]
    published = [theirs[setting][0] for setting in common]
    correlation = rank_correlation(mine, published)
    best = common[int(np.argmax(mine))]
    # Of the paper's best ones, if several are equal, the one that is best here.
    tied = [setting for setting in common if theirs[setting][0] == max(published)]
    wanted = max(tied, key=lambda setting: ours[setting][0])
    short, error = _difference(ours, days, best, wanted)
    agrees = best == wanted or short <= error  # never where an error is not known
    pairs = list(itertools.combinations(common, 2))
    turned = 0
    for a, b in pairs:
        change, noise = _difference(ours, days, a, b)
        turned += change * (theirs[a][0] - theirs[b][0]) < 0 and abs(change) > 2 * noise
    text = [f"{s:g}" if isinstance(s, float) else s for s in (best, wanted)]
    probability = chance(correlation, len(common))
    numbers = (len(common), correlation, probability, text[0], agrees, short, error)
    return (*numbers, len(pairs), turned, text[1])


def _difference(
    values: Mapping[Any, tuple[float, float]],
    days: Mapping[Any, Mapping[str, float]],
    a: Any,
    b: Any,
) -> tuple[float, float]:
    """Of two settings, with its standard error."""
    if a == b:
        return 0.0, 0.0
    both = sorted(set(days.get(a, ())) & set(days.get(b, ())))
    if len(both) > 1:
        changes = np.array([days[a][day] - days[b][day] for day in both])
        return float(changes.mean()), float(changes.std(ddof=1)) / math.sqrt(len(both))
    return values[a][0] - values[b][0], math.hypot(values[a][1], values[b][1])


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rank correlation; NaN where one side is constant.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
        0.8
    """
    a, b = _ranks(np.asarray(x, np.float64)), _ranks(np.asarray(y, np.float64))
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return round(float(a @ b) / norm, 12) if norm else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1, equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray(((ends - count + 1 + ends) / 2)[place])


def chance(correlation: float, settings: int) -> float:
    """Probability that a random order of so many settings correlates at least as much.

    All orders are counted up to eight settings, else the normal approximation is used.

    Example:
        >>> round(chance(1.0, 5), 4)
        0.0083
    """
    if math.isnan(correlation):
        return math.nan
    if settings > _EXACT:
        return 0.5 * math.erfc(correlation * math.sqrt((settings - 1) / 2))
    return float((_of_all_orders(settings) >= correlation - 1e-9).mean())


@functools.cache
def _of_all_orders(settings: int) -> np.ndarray:
    straight = np.arange(settings)
    orders = np.array(list(itertools.permutations(range(settings))))
    squares = ((orders - straight) ** 2).sum(axis=1)
    return np.asarray(1 - 6 * squares / (settings * (settings**2 - 1)))
