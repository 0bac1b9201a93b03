"""How good predictions of transmission times were, per sample and horizon.

    score              the scores of each sample
    summarise          their means, spreads and quantiles for each horizon, as a tidy table
    errors_by_class    the mean error for each true class

Two signs of the error are in use, so each has its own name here: ``error`` is predicted - actual
(as in the daily analysis of the deployment; above 0: arrived sooner than predicted) and ``err`` is
actual - predicted (as in the replay evaluation). Log scores are natural logarithms; higher is
better, 0 is best.

Source: Yan et al., "Learning in situ: a randomized experiment in video streaming", NSDI 2020
(classes); the Memento paper and its artefact (scores, quantiles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memento.errors import DomainError, SchemaError, SettingError
from memento.samples import Samples
from memento_puffer.predictor.network import CLASS_VALUES
from memento_puffer.predictor.transmission import CLASSES, class_of

__all__ = [
    "QUANTILES",
    "SCORES",
    "errors_by_class",
    "quantiles",
    "score",
    "statistics",
    "summarise",
]

Floats = npt.NDArray[np.float64]

QUANTILES = (0.0, 0.001, 0.01, *(i / 10 for i in range(1, 10)), 0.99, 0.999, 1.0)
SCORES = ("y", "y_hat", "p", "logscore", "error", "error_rel", "err", "err_abs", "err_sqr")

_SUM_ERROR = 1e-3  # float32 probabilities sum to 1 within much less
_ROWS_AT_ONCE = 1 << 16  # a few products of (rows, horizons, 21) float64 at a time


def score(probabilities: npt.ArrayLike, seconds: npt.ArrayLike) -> Samples:
    """Score predicted distributions of the class of transmission times.

    With ``p_k`` the probability and ``c_k`` the time of class ``k`` (0.125 s, then 0.5 k s), ``y``
    the actual time and ``b`` its class:

        p          p_b
        logscore   ln p_b, -inf where p_b = 0
        y_hat      sum_k p_k c_k
        error      y_hat - y               the sign of the daily analysis
        error_rel  error / y, NaN where y = 0
        err        y - y_hat = sum_k p_k (y - c_k)   the sign of the replay evaluation
        err_abs    sum_k p_k |y - c_k|
        err_sqr    sum_k p_k (y - c_k)^2

    Args:
        probabilities: (n, 21) or (n, horizons, 21), in [0, 1], each distribution with the sum 1;
            not read where ``seconds`` is NaN.
        seconds: (n,) or (n, horizons) transmission times in s, >= 0; NaN where a sample has no
            chunk so far ahead.

    Returns:
        ``label`` int64, -1 where missing, and the columns above, float64, NaN where missing; all of
        the shape of ``seconds``.

    Raises:
        SchemaError: Shapes do not fit.
        DomainError: Negative or endless times, or no distribution.

    Example:
        >>> import numpy as np
        >>> chances = np.zeros((1, 21))
        >>> chances[0, [0, 2]] = 0.5  # 0.125 s or 1 s
        >>> scores = score(chances, [1.0])
        >>> scores["y_hat"], scores["error"], scores["err"]
        (array([0.5625]), array([-0.4375]), array([0.4375]))
        >>> scores["logscore"].round(4)
        array([-0.6931])
    """
    y = np.asarray(seconds, dtype=np.float64)
    chances = np.asarray(probabilities)
    if y.ndim not in (1, 2) or chances.shape != (*y.shape, CLASSES):
        raise SchemaError(
            f"probabilities of shape {chances.shape} and seconds of shape {y.shape}; expected "
            f"(n, {CLASSES}) with (n,), or (n, horizons, {CLASSES}) with (n, horizons)"
        )
    missing = np.isnan(y)
    wrong = ~missing & ((y < 0) | np.isinf(y))
    if wrong.any():
        raise DomainError(
            f"seconds: found {y[wrong][0]} ({wrong.sum():,} such values); transmission times are "
            "finite and >= 0, or NaN where missing"
        )
    label = np.where(missing, -1, class_of(np.where(missing, 0.0, y)))
    names = ("p", "y_hat", "err_abs", "err_sqr")
    out = {name: np.full(y.shape, np.nan) for name in names}
    for start in range(0, len(y), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        there = ~missing[part]
        p = chances[part][there].astype(np.float64)  # (m, 21)
        _check_distributions(p)
        off = y[part][there][:, None] - CLASS_VALUES
        out["p"][part][there] = np.take_along_axis(p, label[part][there][:, None], 1)[:, 0]
        out["y_hat"][part][there] = p @ CLASS_VALUES
        out["err_abs"][part][there] = (p * np.abs(off)).sum(axis=1)
        out["err_sqr"][part][there] = (p * off**2).sum(axis=1)
    error = out["y_hat"] - y
    with np.errstate(divide="ignore"):
        logscore = np.log(out["p"])
    relative = np.divide(error, y, out=np.full(y.shape, np.nan), where=y > 0)
    columns = {"label": label, "y": y, "error": error, "error_rel": relative, "err": -error}
    return Samples.borrow({**columns, **out, "logscore": logscore})


def summarise(
    scores: Mapping[str, Any],
    *,
    variables: Sequence[str] = SCORES,
    skip_impossible: bool = False,
) -> Samples:
    """Statistics of scores for each horizon, and of each sample's average over its horizons.

    Args:
        scores: As ``score`` returns them; NaN where missing.
        variables: Which of the columns.
        skip_impossible: Leave rows with p = 0 out of ``p`` and ``logscore``, as the replay
            evaluation does; the daily analysis keeps them.

    Returns:
        One row for each horizon, variable and metric: ``horizon`` (-1: averaged over horizons,
        missing ones skipped; only there if scores have several), ``variable``, ``metric`` (mean,
        std, rms, q0, q0.001, ..., q1, see ``QUANTILES``, and count), ``value``.

    Raises:
        SchemaError: A variable is not among the columns.

    Example:
        >>> import numpy as np
        >>> chances = np.full((2, 21), 1 / 21)
        >>> table = summarise(score(chances, [0.1, 4.0]), variables=["y"])
        >>> for metric, value in zip(table["metric"][:3], table["value"], strict=False):
        ...     print(metric, value.round(3))
        mean 2.05
        std 1.95
        rms 2.829
    """
    columns = _chosen_columns(scores, variables)
    possible = None
    if skip_impossible:
        possible = np.asarray(_chosen_columns(scores, ["p"])["p"]) > 0
    rows: list[tuple[int, str, str, float]] = []
    for name, values in columns.items():
        if possible is not None and name in ("p", "logscore"):
            values = np.where(possible, values, np.nan)
        by_horizon = {0: values} if values.ndim == 1 else dict(enumerate(values.T))
        if values.ndim == 2:
            by_horizon = {-1: mean_of_present(values), **by_horizon}
        for horizon, one in by_horizon.items():
            rows += [(horizon, name, *pair) for pair in statistics(one).items()]
    horizons, names, metrics, found = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Samples(
        horizon=np.array(horizons, np.int64),
        variable=np.array(names, str),
        metric=np.array(metrics, str),
        value=np.array(found, np.float64),
    )


def errors_by_class(scores: Mapping[str, Any]) -> Samples:
    """Mean errors for each true class, all horizons together.

    Args:
        scores: As ``score`` returns them.

    Returns:
        21 rows: ``label``, ``count`` of samples, mean ``err`` (actual - predicted), ``err_abs`` and
        ``err_sqr``; NaN for classes without samples.

    Example:
        >>> import numpy as np
        >>> sure = np.eye(21)[[0, 2]]
        >>> table = errors_by_class(score(sure, [0.125, 1.25]))  # 1.25 s is class 3
        >>> table["count"][:4], table["err"][3]
        (array([1, 0, 0, 1]), np.float64(0.25))
    """
    columns = _chosen_columns(scores, ["label", "err", "err_abs", "err_sqr"])
    label = columns.pop("label").reshape(-1).astype(np.int64)
    there = label >= 0
    counts = np.bincount(label[there], minlength=CLASSES)
    means = {}
    for name, values in columns.items():
        sums = np.bincount(label[there], values.reshape(-1)[there], minlength=CLASSES)
        means[name] = np.divide(sums, counts, out=np.full(CLASSES, np.nan), where=counts > 0)
    return Samples(label=np.arange(CLASSES), count=counts, **means)


def statistics(values: npt.ArrayLike) -> dict[str, float]:
    """Mean, standard deviation, root mean square, quantiles and count of what is not NaN.

    Args:
        values: Of any shape. Infinite ones count: then std and perhaps the mean are NaN or
            infinite, and quantiles stay defined.

    Example:
        >>> found = statistics([3.0, 1.0, float("nan"), 2.0])
        >>> found["mean"], found["q0.5"], found["count"]
        (2.0, 2.0, 3.0)
    """
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    flat = flat[~np.isnan(flat)]
    found = {"mean": np.nan, "std": np.nan, "rms": np.nan}
    if len(flat):
        with np.errstate(invalid="ignore"):
            found = {
                "mean": float(flat.mean()),
                "std": float(flat.std()),
                "rms": float(np.sqrt(np.mean(flat**2))),
            }
    named = zip(QUANTILES, quantiles(flat), strict=True)
    return {**found, **{f"q{q:g}": float(v) for q, v in named}, "count": float(len(flat))}


def quantiles(values: npt.ArrayLike, shares: Sequence[float] = QUANTILES) -> Floats:
    """Quantiles of what is not NaN, interpolated linearly, and defined with -inf among values.

    numpy's own are NaN beside an infinite value, and log scores may be -inf.

    Args:
        values: Of any shape.
        shares: In [0, 1].

    Returns:
        float64 (shares,); NaN without values.

    Raises:
        SettingError: A share outside [0, 1].

    Example:
        >>> quantiles([-np.inf, 0.0, 1.0], (0.0, 0.25, 0.5, 0.75))
        array([-inf, -inf,  0. ,  0.5])
    """
    at = np.asarray(shares, dtype=np.float64)
    if not ((at >= 0) & (at <= 1)).all():
        raise SettingError(f"shares={shares}; quantiles lie within 0 and 1")
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    flat = np.sort(flat[~np.isnan(flat)])
    if not len(flat):
        return np.full(len(at), np.nan)
    place = at * (len(flat) - 1)
    below = np.floor(place).astype(np.int64)
    low, high = flat[below], flat[np.minimum(below + 1, len(flat) - 1)]
    inside = (place > below) & (low != high)
    with np.errstate(invalid="ignore"):
        between = low + (high - low) * (place - below)
    # Anything between -inf and a number is -inf; a NaN would hide that.
    between = np.where(np.isneginf(low), low, np.where(np.isposinf(high), high, between))
    return np.where(inside, between, low)


def mean_of_present(values: Floats) -> Floats:
    """Mean of each row of (n, m), NaN skipped; NaN for rows without any value."""
    there = ~np.isnan(values)
    counts = there.sum(axis=1)
    sums = np.where(there, values, 0.0).sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _chosen_columns(scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    missing = [name for name in names if name not in scores]
    if missing:
        raise SchemaError(
            f"scores lack {missing}; found {sorted(scores)}; hand in what `score` returns"
        )
    return {name: np.asarray(scores[name]) for name in names}


def _check_distributions(p: Floats) -> None:
    if not ((p >= 0) & (p <= 1 + _SUM_ERROR)).all():  # NaN as well
        raise DomainError("probabilities hold values outside [0, 1], or NaN, where time is known")
    sums = p.sum(axis=1)
    wrong = np.abs(sums - 1) > _SUM_ERROR
    if wrong.any():
        raise DomainError(
            f"probabilities of a chunk sum to {sums[wrong][0]:.4g} ({wrong.sum():,} such rows); "
            "expected 1; hand in probabilities, not logits"
        )
