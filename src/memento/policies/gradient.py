"""GSS: samples whose gradients point in different directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Column, number, whole
from memento.policies._features import (
    Missing,
    check_features,
    directions,
    random_rows,
)
from memento.policies._policy import Choice, Policy, State, everything, extend_mark, take_marks
from memento.samples import Samples

__all__ = ["GradientSampleSelection"]

# Samples times numbers for which random numbers are drawn at a time.
_DRAWS = 1 << 20


@dataclass(frozen=True)
class GradientSampleSelection(Policy):
    """Keeps samples whose gradients differ in direction (GSS-Greedy).

    Aljundi, Lin, Goujaud and Bengio, "Gradient based sample selection for online continual
    learning", NeurIPS 2019, Algorithm 2. The score of a sample is

        c = 1 + max over j in a random subset of those held of cos(g, g_j),

    with its gradient g: small if none of them is like it. It is computed when the sample comes. As
    long as there is room every sample enters. Then one enters only if ``c < 1 + threshold``: a
    victim i is drawn with probability proportional to its score ``c_i``, and replaced with
    probability ``c_i / (c_i + c)``.

    Args:
        gradients: Column of numbers, one or more a sample: the gradient of its loss by parameters
            of the model. That of the last layer will do, ``(p - onehot(y))`` for its biases, times
            the layer's inputs for its weights.
        compared: With how many of those held a sample is compared, at least 1.
        threshold: Cosine in ``(-1, 1]`` that a sample must stay below to enter; 0 in the paper.
        missing: For samples without gradients, as before the first training: "error", or "random"
            for a random sample (Vitter 1985, scores of 1) until there are any.

    Samples come one after the other, in the order of rows. Gradients and scores are those of the
    model of their time, as in the paper; held ones may be annotated again, which changes gradients
    but not scores. A gradient of 0 has the cosine 0 to all, as has the very first sample. There are
    no weights: the probability to be held is not known.

    Time grows with ``samples * (compared * numbers + log(capacity))``, memory with
    ``samples * numbers``. Between inserts one number a sample is remembered.

    Raises:
        SettingError: A setting is out of its range.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(4, GradientSampleSelection("g"), seed=0)
        >>> gradients = [[1.0, 0.0]] * 20 + [[-1.0, 0.1]] * 2
        >>> memory.insert(g=gradients).kept
        4
        >>> memory.samples["g"][:, 0].min()
        np.float64(-1.0)
    """

    kind: ClassVar[str] = "gradient-sample-selection"
    mark_types: ClassVar[Mapping[str, str]] = {"score": "f"}

    gradients: Column = "gradient"
    compared: Annotated[int, whole(most=1_000_000)] = 10
    threshold: Annotated[float, number(most=1, above=-1, words="a cosine in (-1, 1]")] = 0.0
    missing: Missing = "error"

    def check(self, fresh: Samples) -> None:
        check_features(fresh, self.gradients, self.missing)

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        seen = int(state.counters.get("seen", 0))
        counters = {"seen": seen + fresh.size}
        scores = extend_mark(state, "score", held, np.ones(fresh.size))
        rows = everything(held, fresh)
        if self.gradients not in fresh:
            if capacity is not None and len(rows) > capacity:
                rows = random_rows(held, fresh, capacity, seen, rng)
            return Choice(rows, counters, take_marks({"score": scores}, rows))
        from memento._kernels import gradients

        points = directions(self.gradients, held, fresh)
        limit = len(rows) if capacity is None else capacity
        selection = gradients.Selection(points, scores.copy(), held.size, limit)
        step = max(1, _DRAWS // (self.compared + 2))
        for start in range(held.size, len(rows), step):
            size = min(step, len(rows) - start)
            selection.offer(start, rng.random((size, self.compared + 2)), 1.0 + self.threshold)
        rows = np.sort(selection.held)
        return Choice(rows, counters, take_marks({"score": selection.scores}, rows))
