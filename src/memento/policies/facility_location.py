"""Facility location: samples that stand for those around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Column, Count
from memento.policies._columns import labels
from memento.policies._features import (
    Missing,
    centred,
    check_features,
    random_rows,
    regions,
)
from memento.policies._policy import Choice, Policy, State, column_of, everything, extend_mark
from memento.samples import Samples

__all__ = ["FacilityLocation"]

# A region gives at least about this many samples; else where few are kept, some would give none.
_LEAST = 16


@dataclass(frozen=True)
class FacilityLocation(Policy):
    """Keeps samples that are near, on average, to those that they stand for.

    The set ``S`` that is kept is picked greedily for the submodular function

        F(S) = sum over samples i of w_i (L - min over j in S of ||x_i - x_j||),

    with ``L`` above all distances: the facility location function (Wei, Iyer and Bilmes,
    "Submodularity in data subset selection and active learning", ICML 2015), with distances as in
    CRAIG (Mirzasoleiman, Bilmes and Leskovec, "Coresets for data-efficient training of machine
    learning models", ICML 2020). ``w_i`` is 1 for a fresh sample and for one held the number of
    samples that it stands for, so that S represents the stream. Lazy evaluation (Minoux 1978)
    finds what plain greedy would, which reaches ``1 - 1/e`` of the best F at least (Nemhauser,
    Wolsey and Fisher 1978).

    All pairs would be too many for large memories. Samples are split into regions of neighbours,
    and one stands only for others of its region, so distances between regions count as L (sparse
    similarities, as in Lindgren, Wu and Dimakis, "Leveraging sparsity for efficient submodular
    data summarization", NIPS 2016). With at most ``region`` samples, held and fresh, nothing is
    left out.

    Args:
        features: Column of numbers, one or more a sample, such as a network's last hidden layer,
            or gradients as in CRAIG. Distances are Euclidean, so units matter.
        label: Column of integers, bools or strings: samples then stand only for those of the same
            label. None for no labels.
        region: Samples in a region, at least 1. Regions are larger where less than 16 of each
            would be kept.
        missing: For samples without features, as before the first training: "error", or "random"
            for a random sample (Vitter 1985) until there are any.

    The weights say how many samples of the stream are nearest to each one (gamma in CRAIG), and sum
    up to the samples seen.

    Time grows with ``samples * region * features`` before the first pick, and with several times
    ``region * features`` for each pick; memory with ``samples * features``. There is no randomness,
    except with missing features. Between inserts one number a sample is remembered.

    Raises:
        SettingError: ``region`` is below 1; an unknown value of ``missing``.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(2, FacilityLocation("x"))
        >>> report = memory.insert(x=[0.0, 0.1, 0.2, 0.3, 0.4, 5.0, 5.1, 5.2])
        >>> memory.samples["x"], memory.weights
        (array([0.3, 5.1]), array([5., 3.]))
    """

    kind: ClassVar[str] = "facility-location"
    mark_types: ClassVar[Mapping[str, str]] = {"stands_for": "f"}

    features: Column = "embedding"
    label: Column | None = None
    region: Count = 2048
    missing: Missing = "error"

    def check(self, fresh: Samples) -> None:
        check_features(fresh, self.features, self.missing)
        if self.label is not None:
            labels(fresh, self.label)

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        seen = int(state.counters.get("seen", 0))
        counters = {"seen": seen + fresh.size}
        stands_for = extend_mark(state, "stands_for", held, np.ones(fresh.size))
        rows = everything(held, fresh)
        if capacity is None or len(rows) <= capacity:
            return Choice(rows, counters, {"stands_for": stands_for})
        if self.features not in fresh:
            rows = random_rows(held, fresh, capacity, seen, rng)
            each = np.full(capacity, counters["seen"] / capacity)
            return Choice(rows, counters, {"stands_for": each})
        from memento._kernels import covering

        points = centred(self.features, held, fresh)
        most = max(self.region, _LEAST * -(-len(rows) // capacity))
        if self.label is None:
            groups = regions(points, rows, most)
        else:
            codes = np.unique(column_of(self.label, held, fresh), return_inverse=True)[1]
            order = np.argsort(codes, kind="stable")
            parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
            groups = [group for part in parts for group in regions(points, part, most)]
        kept, owners = covering.facilities(points, groups, stands_for, capacity)
        kept = np.sort(kept)
        served = np.bincount(np.searchsorted(kept, owners), stands_for, minlength=capacity)
        return Choice(kept, counters, {"stands_for": served})

    def weights(self, state: State, size: int) -> np.ndarray:
        return np.array(state.marks["stands_for"]) if size else np.empty(0)
