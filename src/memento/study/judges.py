"""How well a unit was predicted: larger is better, whatever the measure."""

from __future__ import annotations

from typing import Any

import numpy as np

from memento import arguments
from memento.errors import SchemaError
from memento.samples import Samples
from memento.scores import scores_of

__all__ = ["measures"]

_LEAST = 20  # samples of a group that counts


@arguments.checked
def measures(
    samples: Samples, label: str = "y", group: str | None = None, classes: Any = None
) -> dict[str, float]:
    """Measures of one unit.

    Args:
        samples: Annotated: ``logscore`` [nats] and ``yhat``, ``(n, classes)``; for numbers
            ``yhat``, ``(n,)``, and ``loss``, the absolute error. Rows without a label do not count.
        label: Column of the labels.
        group: Column of groups, for ``worst_group``.
        classes: Labels in the order of the columns of ``yhat``; None: 0, 1, ...

    Returns:
        ``mean``, ``median``, ``worst1``, ``worst5`` (mean of the worst 1 % and 5 %, at least one
        sample) of log scores, or of minus the absolute error in units of the interquartile range of
        the labels; ``balanced_accuracy``, over classes that are present; ``worst_group``, the
        lowest mean of a group of 20 samples or more. What cannot be told is left out.

    Raises:
        SchemaError: There are no scores, or no groups.

    Example:
        >>> round(measures(Samples(logscore=np.log([0.5, 0.5, 0.25])))["median"], 3)
        -0.693
    """
    scores = scores_of(samples, label)
    if scores is None:
        raise SchemaError(
            f"there is neither 'logscore' nor 'loss' with one 'yhat' a sample and {label!r}, only "
            f"{sorted(samples)}; have the learner annotate one of them"
        )
    known = ~np.isnan(scores)
    scores = scores[known]
    if not len(scores):
        return {}
    worst = np.sort(scores)
    found = {
        "mean": scores.mean(),
        "median": np.median(scores),
        "worst1": worst[: max(1, len(worst) // 100)].mean(),
        "worst5": worst[: max(1, len(worst) // 20)].mean(),
    }
    if label in samples and "yhat" in samples and samples["yhat"].ndim == 2:
        answers = samples["yhat"][known].argmax(axis=1)
        answers = answers if classes is None else np.asarray(classes)[answers]
        labels = samples[label][known]
        shares = [(answers[labels == one] == one).mean() for one in np.unique(labels)]
        found["balanced_accuracy"] = np.mean(shares)
    if group is not None:
        if group not in samples:
            raise SchemaError(f"no column {group!r} (of groups) among {sorted(samples)}")
        groups = samples[group][known]
        names, counts = np.unique(groups, return_counts=True)
        means = [scores[groups == name].mean() for name in names[counts >= _LEAST]]
        if means:
            found["worst_group"] = min(means)
    return {name: float(value) for name, value in found.items()}
