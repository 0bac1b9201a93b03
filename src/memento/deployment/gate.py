"""Whether a new model may serve: held against the one that does, on the latest day."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from memento import arguments
from memento.learner import Learner
from memento.loop import log_scores
from memento.samples import Samples
from memento.step import annotated

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: Whether the new model may serve.
        reason: One sentence.
        score: Mean log score of the new model in nats (of numbers: minus the absolute error in
            interquartile ranges); NaN if unknown.
        serving: The same of the model that serves.
    """

    passed: bool
    reason: str
    score: float = math.nan
    serving: float = math.nan


@arguments.checked
def judge(
    candidate: Learner, before: Samples | None, samples: Samples, label: str, tolerance: float
) -> Verdict:
    """Hold a new model against the one that serves.

    Some of the latest day may be among what the new model was trained on, so the gate keeps broken
    models out; it is no fair comparison of two good ones.

    Args:
        candidate: The new model.
        before: The latest day, annotated by the model that serves; None: none does.
        samples: The latest day as it came.
        label: Column of the labels.
        tolerance: Nats that the new model may lose there.

    Example:
        >>> from memento.step import annotated
        >>> from memento.testing import ConstantLearner
        >>> day = Samples(y=[0, 0, 0, 1])
        >>> good, bad = ConstantLearner("y", classes=2), ConstantLearner("y", classes=2)
        >>> good.fit(day), bad.fit(Samples(y=[1] * 98))
        (None, None)
        >>> judge(bad, annotated(good, day), day, "y", 0.02).reason
        'it loses 2.878 nats on the latest day against the model that serves (tolerance 0.02)'
    """
    after = annotated(candidate, samples)
    for name in ("yhat", "loss", "logscore"):
        column = after.get(name)
        if column is None or column.dtype.kind != "f":
            continue
        # A label that is missing has no score, which says nothing about the model.
        bad = ~np.isfinite(column) if name == "yhat" else np.isinf(column)
        if bad.any():
            return Verdict(False, f"its column {name!r} is not finite everywhere")
    score = log_scores(after, label).get("mean", math.nan)
    if before is None:
        return Verdict(True, "there was no model before", score)
    serving = log_scores(before, label).get("mean", math.nan)
    if math.isnan(score) or math.isnan(serving):
        return Verdict(True, "there are no scores on the latest day to judge by", score, serving)
    lost = serving - score
    word = "loses" if lost > 0 else "gains"
    reason = (
        f"it {word} {abs(lost):.3f} nats on the latest day against the model that serves "
        f"(tolerance {tolerance:g})"
    )
    return Verdict(lost <= tolerance, reason, score, serving)
