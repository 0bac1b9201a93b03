"""K-center greedy: a core-set that leaves no sample far from all that is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Column
from memento.policies._features import (
    Missing,
    centred,
    check_features,
    random_rows,
    regions,
)
from memento.policies._policy import Choice, Policy, State, everything
from memento.samples import Samples

__all__ = ["KCenterGreedy"]


@dataclass(frozen=True)
class KCenterGreedy(Policy):
    """Keeps samples so that every sample offered has one nearby (k-center greedy, core-set).

    Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach",
    ICLR 2018, Algorithm 1. One sample is picked at random, then always the one whose distance to
    the nearest picked one is largest. The largest such distance that is left is at most twice the
    smallest possible (Gonzalez 1985), with respect to what was held and fresh at each insert.

    Args:
        features: Column of numbers, one or more a sample, such as a network's last hidden layer.
            Distances are Euclidean, so units matter.
        missing: For samples without features, as before the first training: "error", or "random"
            for a random sample (Vitter 1985) until there are any.

    It keeps outliers first, as these are far from everything, and duplicates last. There are no
    weights: what is kept is not meant to resemble the stream.

    Time grows with ``capacity * samples * features`` at most. Groups of neighbours that a new
    centre cannot be nearest to (triangle inequality) are skipped, without changing the result:
    with few features, or clusters, most are. Memory grows with ``samples * features``.

    Raises:
        SettingError: An unknown value of ``missing``.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(3, KCenterGreedy("x"), seed=0)
        >>> memory.insert(x=[0.0, 0.1, 0.2, 5.0, 5.1, 9.0]).kept
        3
        >>> memory.samples["x"]
        array([0., 5., 9.])
    """

    kind: ClassVar[str] = "k-center-greedy"

    features: Column = "embedding"
    missing: Missing = "error"

    def check(self, fresh: Samples) -> None:
        check_features(fresh, self.features, self.missing)

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        seen = int(state.counters.get("seen", 0))
        counters = {"seen": seen + fresh.size}
        rows = everything(held, fresh)
        if capacity is None or len(rows) <= capacity:
            return Choice(rows, counters)
        if self.features not in fresh:
            return Choice(random_rows(held, fresh, capacity, seen, rng), counters)
        from memento._kernels import covering

        points = centred(self.features, held, fresh)
        groups = regions(points, rows, covering.GROUP)
        first = int(rng.integers(len(rows)))
        return Choice(np.sort(covering.centres(points, groups, first, capacity)), counters)
