"""A learner for tests of what needs a state."""

from __future__ import annotations

from memento.testing import ConstantLearner


class Stateless:
    """A learner that cannot be saved."""

    def __init__(self):
        self.inner = ConstantLearner()

    @property
    def trained(self):
        return self.inner.trained

    def fit(self, samples, weights=None):
        self.inner.fit(samples, weights)

    def annotate(self, samples):
        return self.inner.annotate(samples)
