"""Just Train Twice: train, see what went wrong, and train again with more weight on that.

Liu et al., "Just Train Twice: Improving Group Robustness without Training Group Information", ICML
2021. It changes how samples are weighted, not which there are, so it goes with every memory and
every learner that can return to where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any

import numpy as np

from memento.arguments import Column, check_fields, checked, number
from memento.errors import SchemaError
from memento.learner import Learner, label_of
from memento.samples import Samples
from memento.training._wrapper import Wrapper

__all__ = ["JustTrainTwice"]


@checked
@dataclass(eq=False, repr=False)
class JustTrainTwice(Wrapper):
    """A learner that trains another one twice; samples it got wrong count more the second time.

    Both trainings start where the learner was before. The weights that a memory states stay: they
    are multiplied. Where the first training got everything right, the second is left out, for it
    would be the same.

    Args:
        learner: Anything that fits, annotates, and has ``state`` and ``restore``.
        factor: What weights of wrong samples are multiplied with, >= 1; 1 trains once. The paper of
            Memento tries 2 to 100.
        label: Column of the right answers, ``(n,)`` integers; None: the learner's ``label``, or
            ``y`` where it names none.
        prediction: Column that the learner annotates: ``(n, classes)`` probabilities, of which the
            largest is the answer, or ``(n,)`` answers.

    Attributes:
        learner: As given.
        factor: As given: what weights of wrong samples are multiplied with.
        wrong: Share of samples that the last first training got wrong; NaN before.

    Raises:
        SettingError: The factor is below 1 or not finite, or the learner cannot go back.

    Example:
        >>> from memento.testing import ConstantLearner
        >>> samples = Samples(label=[0, 0, 0, 1])
        >>> learner = JustTrainTwice(ConstantLearner(classes=2), factor=5)
        >>> learner.fit(samples)  # the 1 was wrong and now counts as five
        >>> learner.annotate(samples)["yhat"][0], learner.wrong
        (array([0.4, 0.6]), 0.25)
    """

    learner: Learner
    factor: Annotated[float, number(1, words="a finite number of at least 1")]
    _: KW_ONLY
    label: Column | None = None
    prediction: Column = "yhat"

    def __post_init__(self) -> None:
        check_fields(self)
        self.label = self._label = self.label or label_of(self.learner)
        self._checkpoints = self._going_back("it cannot start twice from the same weights")
        self.wrong = math.nan

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        """Train, find the errors, and train again from the same start.

        If it raises, the learner is as it was.

        Args:
            samples: Samples with the column of labels.
            weights: ``(n,)`` > 0 for the first training, or None for equal ones.

        Raises:
            SchemaError: No label, or no prediction of the learner's, of a form that compares.
        """
        before = {name: np.array(array) for name, array in self._checkpoints.state().items()}
        try:
            self.learner.fit(samples, weights)
            if self.factor == 1:
                return
            wrong = self._wrong(samples)
            self.wrong = float(wrong.mean()) if len(wrong) else math.nan
            if not wrong.any():
                return
            self._checkpoints.restore(before)
            base = np.ones(samples.size) if weights is None else weights
            self.learner.fit(samples, np.where(wrong, self.factor * base, base))
        except BaseException:
            self._checkpoints.restore(before)
            raise

    def annotate(self, samples: Samples) -> Mapping[str, Any]:
        """Columns of the learner."""
        return self.learner.annotate(samples)

    def state(self) -> Mapping[str, np.ndarray]:
        """That of the learner; nothing else decides what follows."""
        return self._checkpoints.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state."""
        self._checkpoints.restore(state)

    def _wrong(self, samples: Samples) -> np.ndarray:
        """``(n,)`` bool: whose answer is not its label."""
        if self._label not in samples:
            raise SchemaError(f"no column {self._label!r} (the label) among {sorted(samples)}")
        found = self._predictions(self.learner.annotate(samples))
        labels = samples[self._label]
        answers = found.argmax(axis=1) if found.ndim == 2 else found
        if answers.shape != labels.shape:
            raise SchemaError(
                f"predictions of shape {found.shape} and labels of shape {labels.shape}; expected "
                "one answer, or one row of probabilities, for each label"
            )
        return np.asarray(answers != labels)
