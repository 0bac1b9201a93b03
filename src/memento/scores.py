"""How well samples were predicted: one number a sample, larger is better, and what sums them up."""

from __future__ import annotations

import numpy as np

from memento import missing
from memento.samples import Samples

__all__ = ["log_scores", "scores_of"]


def scores_of(samples: Samples, label: str = "y") -> np.ndarray | None:
    """One score a sample.

    Args:
        samples: Samples with predictions and labels.
        label: Column of the labels.

    Returns:
        ``(n,)``: the column ``logscore`` [nats]; or, where ``yhat`` is one number a sample, minus
        ``loss``, the absolute error, in units of the interquartile range of the labels. NaN for
        rows whose label is not known; None where there is neither.

    Example:
        >>> scores_of(Samples(logscore=[-1.0]))
        array([-1.])
    """
    if "logscore" in samples:
        return samples["logscore"]
    if {"loss", "yhat", label} <= set(samples) and samples["yhat"].ndim == 1:
        labels = samples[label][~missing.lacking(samples[label])]
        low, high = np.quantile(labels, [0.25, 0.75]) if len(labels) else (0.0, 0.0)
        errors: np.ndarray = -samples["loss"] / (high - low if high > low else 1.0)
        return errors
    return None


def log_scores(samples: Samples, label: str = "y") -> dict[str, float]:
    """Tail, median and mean of how well samples were predicted; higher is better.

    Of classes it is the column ``logscore`` (natural logarithms of probabilities). Of numbers,
    where ``yhat`` is one number a sample, it is minus ``loss``, the absolute error, in units of
    the interquartile range of the labels.

    Args:
        samples: Annotated samples; rows without a score (as their label is not known) do not count,
            and without any there are no scores.
        label: Column of the labels.

    Returns:
        ``p01`` (1st percentile), ``median``, ``mean``.

    Example:
        >>> round(log_scores(Samples(logscore=np.log([0.5, 0.5, 0.5])))["median"], 3)
        -0.693
        >>> log_scores(Samples(y=[0.0, 1.0, 2.0, 3.0], yhat=[1.0] * 4, loss=[0.75] * 4))["mean"]
        -0.5
    """
    scores = scores_of(samples, label)
    if scores is None:
        return {}
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return {}
    p01, median = np.quantile(scores, [0.01, 0.5])
    return {"p01": float(p01), "median": float(median), "mean": float(np.mean(scores))}
