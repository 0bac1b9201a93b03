"""How good predictions are, and what tables of replays say: means with intervals, and targets.

Tables have a row per scenario, memory, seed and iteration, as `replay.compare` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memento.errors import DomainError, SchemaError, SettingError
from memento.samples import Samples

__all__ = [
    "accuracies",
    "balanced_accuracy",
    "composition",
    "courses",
    "interval",
    "summary",
    "targets",
    "weighted_quantile",
]

WORKLOADS = ("w1", "w2", "w3")
LOADS = (66, 100, 133)
_AFTER = 2  # iterations after a workload appears from which on a model has to know it


def accuracies(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, classes: int
) -> npt.NDArray[np.float64]:
    """The share of each class that is recognised.

    Args:
        labels: (n,) integers in ``[0, classes)``.
        probabilities: (n, classes); the largest is what is predicted.
        classes: How many there are.

    Returns:
        (classes,) in [0, 1]; NaN for a class without samples.

    Raises:
        SchemaError: Arrays of other shapes.

    Example:
        >>> accuracies([0, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], 2)
        array([0.5, 1. ])
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    whole = y.dtype.kind in "iu" or not y.size
    if not whole or y.ndim != 1 or p.shape != (len(y), classes):
        raise SchemaError(
            f"labels of type {y.dtype} and shape {y.shape}, probabilities of shape {p.shape}; "
            f"expected integers of shape (n,) and (n, {classes})"
        )
    y = y.astype(np.int64)
    right = np.bincount(y[p.argmax(axis=1) == y], minlength=classes).astype(np.float64)
    count = np.bincount(y, minlength=classes)
    return np.divide(right, count, out=np.full(classes, np.nan), where=count > 0)


def balanced_accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike, classes: int) -> float:
    """The mean of `accuracies` over the classes that have samples; NaN without samples.

    Example:
        >>> balanced_accuracy([0, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], 2)
        0.75
    """
    found = accuracies(labels, probabilities, classes)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else float("nan")


def weighted_quantile(values: npt.ArrayLike, weights: npt.ArrayLike, q: float) -> float:
    """The least value up to which at least a share ``q`` of the weight lies.

    Args:
        values: (n,) numbers, at least one.
        weights: (n,) not negative, with a sum above 0.
        q: In [0, 1].

    Raises:
        SchemaError: No values, or another number of weights.
        DomainError: Weights below 0 or all 0.
        SettingError: A share outside [0, 1].

    Example:
        >>> weighted_quantile([3.0, 1.0, 2.0], [1, 1, 8], 0.5)
        2.0
    """
    if not 0 <= q <= 1:
        raise SettingError(f"q is {q}; expected a share from 0 to 1")
    v, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if v.ndim != 1 or v.shape != w.shape or not len(v):
        raise SchemaError(
            f"values of shape {v.shape} and weights of shape {w.shape}; give one weight for each "
            "value, and at least one value"
        )
    if not (w >= 0).all() or not w.sum() > 0:
        raise DomainError("weights are negative, NaN or all 0; give some above 0, none below")
    order = np.argsort(v, kind="stable")
    reached = np.cumsum(w[order])
    # The sum may be a rounding error short of the share that is asked for.
    place = np.searchsorted(reached, q * reached[-1] * (1 - 1e-12))
    return float(v[order[min(int(place), len(v) - 1)]])


def interval(values: npt.ArrayLike, level: float = 0.9) -> tuple[float, float, float]:
    """The mean of independent values with its interval by Student's t distribution.

    Args:
        values: (n,), such as one for each seed; NaN are left out.
        level: In (0, 1).

    Returns:
        Mean, lower and upper end; the ends are NaN for fewer than two values.

    Raises:
        SettingError: A level outside (0, 1).

    Example:
        >>> mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(mean, 3), round(low, 3), round(high, 3)
        (3.0, 1.493, 4.507)
    """
    if not 0 < level < 1:
        raise SettingError(f"level is {level}; expected a probability between 0 and 1")
    found = np.asarray(values, dtype=np.float64)
    found = found[~np.isnan(found)]
    if not len(found):
        return float("nan"), float("nan"), float("nan")
    mean = float(found.mean())
    if len(found) < 2:
        return mean, float("nan"), float("nan")
    half = _student((1 + level) / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return mean, mean - float(half), mean + float(half)


def _student(probability: float, freedom: int) -> float:
    """A quantile, above the median, of Student's t distribution.

    With ``x = tan(u) * sqrt(freedom)`` its density is proportional to ``cos(u)^(freedom - 1)``, so
    the integral has finite ends.
    """
    u = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(u) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    share = 0.5 + 0.5 * mass / mass[-1]
    return math.tan(float(np.interp(probability, share, u))) * math.sqrt(freedom)


# ------------------------------------------------------------------------------- tables of replays


def summary(table: Mapping[str, Any], level: float = 0.9) -> Samples:
    """What each memory achieved in each scenario, over seeds.

    Args:
        table: Of ``replay.compare``.
        level: Of the intervals.

    Returns:
        A row per scenario, memory and score: ``scenario``, ``memory``, ``score``, ``value``,
        ``low``, ``high``, ``seeds``. Scores are ``accuracy``, mean balanced accuracy over the
        iterations; ``accuracy_after_w3``, the same from two iterations after w3 first appears, in
        the incremental scenario; ``error_66``, ``error_100`` and ``error_133``, the mean 99th
        percentile of the error [ms] at each load, and ``error_before_133`` over the first two;
        ``select``, CPU seconds of an insert, the median over iterations (the first compiles).
    """
    rows = []
    for scenario, memory in _pairs(table):
        for score, values in _scores(table, scenario, memory).items():
            mean, low, high = interval(values, level)
            rows.append((scenario, memory, score, mean, low, high, len(values)))
    return _table(rows, ("scenario", "memory", "score", "value", "low", "high", "seeds"))


def composition(table: Mapping[str, Any], level: float = 0.9) -> Samples:
    """What memories hold at the end, by workload.

    Args:
        table: Of ``replay.compare``.
        level: Of the intervals.

    Returns:
        A row per scenario, memory and workload: ``scenario``, ``memory``, ``workload``, ``value``
        (samples), ``low``, ``high``, ``seeds``.
    """
    rows = []
    for scenario, memory in _pairs(table):
        own = _rows(table, scenario, memory)
        for workload in WORKLOADS:
            last = [r[f"held_{workload}"] for r in own if r["iteration"] == r["last"]]
            mean, low, high = interval(last, level)
            rows.append((scenario, memory, workload, mean, low, high, len(last)))
    return _table(rows, ("scenario", "memory", "workload", "value", "low", "high", "seeds"))


def courses(table: Mapping[str, Any], score: str, level: float = 0.9) -> Samples:
    """A score over the iterations, over seeds.

    Args:
        table: Of ``replay.compare``.
        score: A column, such as balanced_accuracy, error_p99 or rci.
        level: Of the intervals.

    Returns:
        A row per scenario, memory and iteration where there is a value: ``scenario``, ``memory``,
        ``iteration``, ``settings``, ``value``, ``low``, ``high``, ``seeds``.

    Raises:
        SchemaError: There is no such column.
    """
    if score not in table:
        raise SchemaError(f"no column {score!r} among {sorted(table)}")
    rows = []
    for scenario, memory in _pairs(table):
        own = _rows(table, scenario, memory)
        for iteration in sorted({r["iteration"] for r in own}):
            here = [r for r in own if r["iteration"] == iteration]
            values = np.array([r[score] for r in here], dtype=np.float64)
            values = values[~np.isnan(values)]
            if not len(values):
                continue
            mean, low, high = interval(values, level)
            names = here[0]["settings"]
            rows.append((scenario, memory, iteration, names, mean, low, high, len(values)))
    return _table(
        rows, ("scenario", "memory", "iteration", "settings", "value", "low", "high", "seeds")
    )


def targets(table: Mapping[str, Any], memory: str = "memento") -> Samples:
    """What a memory should reach, from the figures that the paper reports.

    Args:
        table: Of ``replay.compare``; targets whose scenarios or memories are absent are left out.
        memory: Which one is judged.

    Returns:
        A row per target: ``target``, ``value``, ``bound``, ``unit`` (empty for shares), ``holds``.
        All are means over seeds. A value has to be at least its bound, except where the target says
        at most. That coverage rises where w2 and w3 appear and nowhere else is judged by one
        number: the lesser of these two increases has to be at least twice the largest one of all
        other iterations.
    """
    rows: list[tuple[str, float, float, str, bool]] = []

    def least(target: str, value: float, bound: float, unit: str = "") -> None:
        rows.append((target, value, bound, unit, value >= bound))

    def most(target: str, value: float, bound: float, unit: str = "") -> None:
        rows.append((f"{target} (at most)", value, bound, unit, value <= bound))

    there = _pairs(table)
    means = {
        (scenario, name): {k: float(np.mean(v)) for k, v in _scores(table, scenario, name).items()}
        for scenario, name in there
    }
    held = composition(table)
    rare, steps, load = "rare-patterns", "incremental", "congestion"
    if (rare, memory) in there:
        least("rare patterns: accuracy", means[rare, memory]["accuracy"], 0.88)
        if (rare, "random") in there:
            ahead = means[rare, memory]["accuracy"] - means[rare, "random"]["accuracy"]
            least("rare patterns: accuracy above random", ahead, 0.10)
    if (steps, memory) in there:
        after = [r for r in _rows(table, steps, memory) if _known(r)]
        least("incremental: lowest accuracy once w3 is known", _lowest(after), 0.88)
    for scenario in (rare, steps):
        if (scenario, memory) not in there:
            continue
        own = [i for i in range(held.size) if (held["scenario"][i], held["memory"][i]) == (
            scenario, memory)]  # fmt: skip
        total = float(held["value"][own].sum())
        for i in own:
            if held["workload"][i] != "w2":
                share = float(held["value"][i]) / max(total, 1.0)
                words = scenario.replace("-", " ")
                least(f"{words}: share of {held['workload'][i]} in memory", share, 0.2)
    if (steps, memory) in there:
        jump, rest = _jumps(_rows(table, steps, memory))
        least("incremental: coverage increase where w2 and w3 appear", jump, 2 * rest)
    others = [name for scenario, name in there if scenario == load and name != memory]
    if (load, memory) in there and others:
        error = means[load, memory].get("error_before_133", float("nan"))
        best = min(means[load, name].get("error_before_133", float("nan")) for name in others)
        most("congestion: error up to 100 %, of the best other", error, best, "ms")
        if "random" in others:
            most(
                "congestion: error up to 100 %, of nine tenths of random's",
                *(error, 0.9 * means[load, "random"].get("error_before_133", float("nan"))),
                unit="ms",
            )
    for scenario in (rare, steps):
        if (scenario, memory) in there and (scenario, "lars") in there:
            words = scenario.replace("-", " ")
            most(
                f"{words}: seconds that LARS takes for an insert",
                *(means[scenario, "lars"]["select"], means[scenario, memory]["select"]),
                unit="s",
            )
    return _table(rows, ("target", "value", "bound", "unit", "holds"))


def _scores(table: Mapping[str, Any], scenario: str, memory: str) -> dict[str, list[float]]:
    """The values of each score, one for each seed."""
    own = _rows(table, scenario, memory)
    found: dict[str, list[float]] = {}
    for seed in sorted({r["seed"] for r in own}):
        here = [r for r in own if r["seed"] == seed]
        parts: dict[str, list[dict[str, Any]]] = {}
        score, scale = "balanced_accuracy", 1.0
        if scenario == "congestion":
            score, scale = "error_p99", 1e3
            parts = {f"error_{load}": [r for r in here if _load(r) == load] for load in LOADS}
            parts["error_before_133"] = [r for r in here if _load(r) < LOADS[-1]]
        else:
            parts["accuracy"] = here
            if scenario == "incremental":
                parts["accuracy_after_w3"] = [r for r in here if _known(r)]
        for name, rows in parts.items():
            if rows:
                mean = float(np.mean([r[score] for r in rows])) * scale
                found.setdefault(name, []).append(mean)
        seconds = np.array([r["select"] for r in here], dtype=np.float64)
        if not np.isnan(seconds).all():
            found.setdefault("select", []).append(float(np.nanmedian(seconds)))
    return found


def _known(row: Mapping[str, Any]) -> bool:
    """Whether w3 came long enough before this iteration."""
    return bool(row["iteration"] >= row["w3_from"] + _AFTER)


def _load(row: Mapping[str, Any]) -> int:
    """Load of the bottleneck in per cent, from names such as w1_c133+w2_c133."""
    _, _, load = str(row["settings"]).partition("+")[0].partition("_c")
    return int(load) if load else LOADS[0]


def _lowest(rows: Sequence[Mapping[str, Any]]) -> float:
    """The lowest mean over seeds of all iterations."""
    means = [
        float(np.mean([r["balanced_accuracy"] for r in rows if r["iteration"] == iteration]))
        for iteration in sorted({r["iteration"] for r in rows})
    ]
    return min(means, default=float("nan"))


def _jumps(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Coverage increase where a workload is new (the least), and elsewhere (the most)."""
    new: list[float] = []
    old: list[float] = []
    for iteration in sorted({r["iteration"] for r in rows}):
        here = [r for r in rows if r["iteration"] == iteration]
        values = [r["rci"] for r in here if not math.isnan(r["rci"])]
        if values:
            first = all(r["iteration"] in (r["w2_from"], r["w3_from"]) for r in here)
            (new if first else old).append(float(np.mean(values)))
    return min(new, default=float("nan")), max(old, default=0.0)


def _pairs(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Scenarios and memories, in the order of the table."""
    for name in ("scenario", "memory", "seed", "iteration", "settings"):
        if name not in table:
            raise SchemaError(
                f"no column {name!r} among {sorted(table)}; is it a table of replays?"
            )
    found = zip(table["scenario"], table["memory"], strict=True)
    return list(dict.fromkeys((str(s), str(m)) for s, m in found))


def _rows(table: Mapping[str, Any], scenario: str, memory: str) -> list[dict[str, Any]]:
    """Rows of one memory, with where its scenario ends and workloads first appear."""
    columns = {name: np.asarray(table[name]) for name in table}
    mine = np.flatnonzero((columns["scenario"] == scenario) & (columns["memory"] == memory))
    rows = [{name: column[i].item() for name, column in columns.items()} for i in mine]
    for seed in {r["seed"] for r in rows}:
        own = [r for r in rows if r["seed"] == seed]
        last = max(r["iteration"] for r in own)
        firsts = {
            f"{w}_from": min(
                (r["iteration"] for r in own if w in _workloads(r["settings"])), default=last + 1
            )
            for w in WORKLOADS
        }
        for row in own:
            row |= {"last": last, **firsts}
    return rows


def _workloads(settings: str) -> set[str]:
    return {name.partition("_")[0] for name in settings.split("+")}


def _table(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> Samples:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return Samples.borrow({n: np.array(c) for n, c in zip(names, columns, strict=True)})
