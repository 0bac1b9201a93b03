"""How well samples were predicted: one number a sample, larger is better, and what sums them up."""

from __future__ import annotations

import numpy as np

from memento import arguments, missing
from memento.samples import Samples

__all__ = ["class_losses", "classes_of", "log_scores", "scores_of"]


def classes_of(labels: np.ndarray, width: int) -> np.ndarray | None:
    """Whose the columns of predicted probabilities are, by what their model was trained on.

    Args:
        labels: Labels that the model was trained on; missing ones do not count.
        width: Number of columns.

    Returns:
        ``(width,)`` labels, ascending. Where all are whole numbers from 0 to ``width - 1``, each
        has the column of its own number; else the columns are the labels in ascending order, as
        those of scikit-learn's ``predict_proba``. None: they are not as many as the columns.

    Example:
        >>> classes_of(np.array(["fraud", "fine", "fraud"]), 2)
        array(['fine', 'fraud'], dtype='<U5')
        >>> classes_of(np.array([0, 2]), 3), classes_of(np.array([1, 3]), 2)
        (array([0, 1, 2]), array([1, 3]))
    """
    known = np.unique(labels[~missing.lacking(labels)])
    if known.dtype.kind in "biuf" and len(known) and known[0] >= 0 and known[-1] < width:
        return np.arange(width) if (known == np.trunc(known)).all() else None
    return known if len(known) == width else None


def class_losses(
    labels: np.ndarray, probabilities: np.ndarray, trained: np.ndarray | None
) -> np.ndarray:
    """``(n,)`` log losses [nats], ``-ln max(p, 1e-6)`` of each label's probability p.

    Args:
        labels: ``(n,)`` numbers or texts.
        probabilities: ``(n, k)`` predictions.
        trained: Labels that their model was trained on, see `classes_of`; None: not known. Numbers
            are column numbers where it cannot be told.

    Returns:
        NaN where the label is missing, or where it cannot be told which columns are whose.

    Example:
        >>> class_losses(np.array(["b", ""]), np.array([[0.0, 1.0]] * 2), np.array(["a", "b"]))
        array([-0., nan])
    """
    losses = np.full(len(labels), np.nan)
    rows = np.flatnonzero(~missing.lacking(labels))
    own, width = labels[rows], probabilities.shape[1]
    if own.dtype.kind not in "biufUS":
        return losses
    classes = None if trained is None else classes_of(trained, width)
    if own.dtype.kind not in "US" and (classes is None or classes.dtype.kind in "US"):
        classes = np.arange(width)
    if classes is None or not width or (own.dtype.kind in "US") != (classes.dtype.kind in "US"):
        return losses
    place = np.minimum(np.searchsorted(classes, own), width - 1)
    # A class that the model has no column for has no probability.
    found = np.where(classes[place] == own, probabilities[rows, place], 0.0)
    losses[rows] = -np.log(np.maximum(found, 1e-6))
    return losses


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


@arguments.checked
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
    arguments.require("label", label, arguments.text())
    scores = scores_of(Samples.borrow(samples), label)
    if scores is None:
        return {}
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return {}
    p01, median = np.quantile(scores, [0.01, 0.5])
    return {"p01": float(p01), "median": float(median), "mean": float(np.mean(scores))}
