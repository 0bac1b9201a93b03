"""How good predictions are, and what tables of replays say: means with intervals, and targets.

Tables have a row per scenario, memory, seed and iteration, as `replay.compare` makes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memento.errors import DomainError, SchemaError, SettingError
from memento.samples import Samples
from memento.study import interval

__all__ = [
    "accuracies",
    "composition",
    "courses",
    "summary",
    "targets",
    "weighted_quantile",
]

WORKLOADS = ("w1", "w2", "w3")
LOADS = (66, 100, 133)
_INTERVAL = ("value", "low", "high", "seeds")
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


# ------------------------------------------------------------------------------- tables of replays


def stacked(tables: Sequence[Mapping[str, Any]]) -> Samples:
    """Tables of replays below each other; columns that one has not are NaN.

    Example:
        >>> stacked([{"iteration": [1], "rci": [0.5]}, {"iteration": [1]}])["rci"]
        array([0.5, nan])
    """
    sizes = [len(table["iteration"]) for table in tables]
    names = dict.fromkeys(name for table in tables for name in table)
    return Samples.borrow(
        {
            name: np.concatenate(
                [t.get(name, np.full(n, math.nan)) for t, n in zip(tables, sizes, strict=True)]
            )
            for name in names
        }
    )


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
        ``select``, seconds of an insert by the clock (other processes count), the median over
        iterations (the first compiles).
    """
    rows = [
        (scenario, memory, score, *interval(values, level), len(values))
        for scenario, memory, group in _groups(table)
        for score, values in _scores(scenario, group).items()
    ]
    return _table(rows, ("scenario", "memory", "score", *_INTERVAL))


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
    for scenario, memory, group in _groups(table):
        last = group["iteration"] == group["last"]
        for workload in WORKLOADS:
            values = group[f"held_{workload}"][last]
            rows.append((scenario, memory, workload, *interval(values, level), len(values)))
    return _table(rows, ("scenario", "memory", "workload", *_INTERVAL))


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
    for scenario, memory, group in _groups(table):
        for iteration in np.unique(group["iteration"]).tolist():
            here = group["iteration"] == iteration
            values = group[score][here]
            values = values[~np.isnan(values)]
            if len(values):
                names = group["settings"][here][0]
                made = interval(values, level)
                rows.append((scenario, memory, iteration, names, *made, len(values)))
    return _table(rows, ("scenario", "memory", "iteration", "settings", *_INTERVAL))


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
    groups = {(scenario, name): group for scenario, name, group in _groups(table)}
    means = {
        key: {score: float(np.mean(v)) for score, v in _scores(key[0], group).items()}
        for key, group in groups.items()
    }
    rare, steps = ((name, memory) for name in ("rare-patterns", "incremental"))
    there = [key for key in (rare, steps) if key in groups]
    rows: list[_Target] = []
    if rare in groups:
        accuracy = means[rare]["accuracy"]
        rows.append(_least("rare patterns: accuracy", accuracy, 0.88))
        if (random := ("rare-patterns", "random")) in groups:
            ahead = accuracy - means[random]["accuracy"]
            rows.append(_least("rare patterns: accuracy above random", ahead, 0.10))
    if steps in groups:
        group = groups[steps]
        after = _over_seeds(group, "balanced_accuracy", _known(group))
        lowest = min(after.values(), default=math.nan)
        rows.append(_least("incremental: lowest accuracy once w3 is known", lowest, 0.88))
    for key in there:
        rows += _shares(key, table)
    if steps in groups:
        rows.append(_rises(groups[steps]))
    rows += _errors(memory, means)
    for key in there:
        if (lars := (key[0], "lars")) in groups:
            words = f"{key[0].replace('-', ' ')}: seconds that LARS takes for an insert"
            rows.append(_most(words, means[lars]["select"], means[key]["select"], "s"))
    return _table(rows, ("target", "value", "bound", "unit", "holds"))


_Target = tuple[str, float, float, str, bool]


def _least(target: str, value: float, bound: float) -> _Target:
    return target, value, bound, "", value >= bound


def _most(target: str, value: float, bound: float, unit: str) -> _Target:
    return f"{target} (at most)", value, bound, unit, value <= bound


def _shares(key: tuple[str, str], table: Mapping[str, Any]) -> list[_Target]:
    """What is held of the rare workloads in the end."""
    held = composition({name: np.asarray(c)[_of(table, *key)] for name, c in table.items()})
    total = max(float(held["value"].sum()), 1.0)
    scenario = key[0].replace("-", " ")
    return [
        _least(f"{scenario}: share of {workload} in memory", float(value) / total, 0.2)
        for workload, value in zip(held["workload"], held["value"], strict=True)
        if workload != "w2"
    ]


def _rises(group: Mapping[str, Any]) -> _Target:
    """Coverage increase where a workload is new (the least), and elsewhere (the most)."""
    rises = _over_seeds(group, "rci")
    new = {iteration for w in ("w2", "w3") for iteration in group[f"{w}_from"].tolist()}
    jump = min((v for i, v in rises.items() if i in new), default=math.nan)
    rest = max((v for i, v in rises.items() if i not in new), default=0.0)
    return _least("incremental: coverage increase where w2 and w3 appear", jump, 2 * rest)


def _errors(memory: str, means: Mapping[tuple[str, str], Mapping[str, float]]) -> list[_Target]:
    """Errors of delays, up to a load of 100 %, beside those of the other memories."""
    error = "error_before_133"
    errors = {name: m.get(error, math.nan) for (s, name), m in means.items() if s == "congestion"}
    others = [value for name, value in errors.items() if name != memory]
    if memory not in errors or not others:
        return []
    words = "congestion: error up to 100 %, of"
    rows = [_most(f"{words} the best other", errors[memory], min(others), "ms")]
    if "random" in errors:
        bound = 0.9 * errors["random"]
        rows.append(_most(f"{words} nine tenths of random's", errors[memory], bound, "ms"))
    return rows


def _scores(scenario: str, group: Mapping[str, Any]) -> dict[str, list[float]]:
    """The values of each score, one for each seed."""
    score, scale = "balanced_accuracy", 1.0
    parts = {"accuracy": np.ones(len(group["seed"]), bool)}
    if scenario == "incremental":
        parts["accuracy_after_w3"] = _known(group)
    if scenario == "congestion":
        score, scale = "error_p99", 1e3
        loads = np.array([_load(names) for names in group["settings"].tolist()])
        parts = {f"error_{load}": loads == load for load in LOADS}
        parts["error_before_133"] = loads < LOADS[-1]
    found: dict[str, list[float]] = {}
    for seed in np.unique(group["seed"]):
        mine = group["seed"] == seed
        for name, part in parts.items():
            if (mine & part).any():
                mean = float(np.mean(group[score][mine & part])) * scale
                found.setdefault(name, []).append(mean)
        seconds = group["select"][mine].astype(np.float64)
        if not np.isnan(seconds).all():
            found.setdefault("select", []).append(float(np.nanmedian(seconds)))
    return found


def _known(group: Mapping[str, Any]) -> np.ndarray:
    """Where w3 came long enough before."""
    return np.asarray(group["iteration"] >= group["w3_from"] + _AFTER)


def _load(settings: str) -> int:
    """Load of the bottleneck in per cent, from names such as w1_c133+w2_c133."""
    _, _, load = settings.partition("+")[0].partition("_c")
    return int(load) if load else LOADS[0]


def _over_seeds(group: Mapping[str, Any], score: str, rows: Any = True) -> dict[int, float]:
    """By iteration the mean of a score over seeds, where there is one."""
    there = rows & ~np.isnan(group[score])
    iterations = group["iteration"]
    return {
        iteration: float(np.mean(group[score][there & (iterations == iteration)]))
        for iteration in np.unique(iterations[there]).tolist()
    }


def _of(table: Mapping[str, Any], scenario: str, memory: str) -> np.ndarray:
    is_mine = (np.asarray(table["scenario"]) == scenario) & (np.asarray(table["memory"]) == memory)
    return np.asarray(is_mine)


def _groups(table: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Rows of each scenario and memory, with where it ends and workloads first appear."""
    for name in ("scenario", "memory", "seed", "iteration", "settings"):
        if name not in table:
            raise SchemaError(
                f"no column {name!r} among {sorted(table)}; is it a table of replays?"
            )
    columns = {name: np.asarray(table[name]) for name in table}
    pairs = zip(columns["scenario"].tolist(), columns["memory"].tolist(), strict=True)
    groups = []
    for scenario, memory in dict.fromkeys(pairs):
        rows = _of(columns, scenario, memory)
        group = {name: column[rows] for name, column in columns.items()}
        names = ("last", *(f"{w}_from" for w in WORKLOADS))
        marks = {name: group["iteration"].copy() for name in names}
        for seed in np.unique(group["seed"]):
            mine = group["seed"] == seed
            iterations, settings = group["iteration"][mine], group["settings"][mine].tolist()
            marks["last"][mine] = iterations.max()
            for workload in WORKLOADS:
                here = [workload in re.findall(r"\bw\d+", text) for text in settings]
                first = iterations[here].min() if any(here) else iterations.max() + 1
                marks[f"{workload}_from"][mine] = first
        groups.append((scenario, memory, group | marks))
    return groups


def _table(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> Samples:
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return Samples.borrow({n: np.array(c) for n, c in zip(names, columns, strict=True)})
