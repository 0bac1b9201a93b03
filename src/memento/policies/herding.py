"""Herding: samples whose mean is that of the stream, label by label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Column
from memento.policies._columns import labels
from memento.policies._features import (
    Missing,
    centred,
    check_features,
    directions,
    random_rows,
)
from memento.policies._policy import (
    Choice,
    Policy,
    State,
    column_of,
    everything,
    extend_mark,
    take_marks,
)
from memento.samples import Samples

__all__ = ["Herding", "balanced_shares"]


@dataclass(frozen=True)
class Herding(Policy):
    """Keeps, of each label, samples whose mean features follow the mean of all that came.

    Welling, "Herding dynamical weights to learn", ICML 2009, as iCaRL picks exemplars (Rebuffi et
    al., "iCaRL: incremental classifier and representation learning", CVPR 2017, Algorithms 4
    and 5). Labels get equal shares of the memory; what a rare one cannot fill goes to the others.
    Of a label with mean features ``mu``, the k-th sample is the one not yet picked that minimises

        || mu - (x_1 + ... + x_k) / k ||.

    Both papers pick once, from all samples of a label. Here more may come of every label: then it
    is picked anew from what is held and fresh, where a held sample counts in ``mu`` for as many as
    it stands for. A label of which nothing comes and whose share shrinks keeps those that were
    picked first.

    Args:
        features: Column of numbers, one or more a sample, such as a network's last hidden layer.
        label: Column of integers, bools or strings; None for no labels (then all are one).
        normalise: Whether features are divided by their length first, as in iCaRL (which also
            divides their means; here means stay as they are).
        missing: For samples without features, as before the first training: "error", or "random"
            for a random sample (Vitter 1985) until there are any.

    The weights say how many samples of its label each one stands for. Training with them undoes
    the balance of labels.

    Time grows with ``picks * samples * features`` of each label, memory with
    ``samples * features``: keep features to some tens, by a random projection if need be. There is
    no randomness, except with missing features. Between inserts two numbers a sample are
    remembered.

    Raises:
        SettingError: An unknown value of ``missing``.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(2, Herding("x", label=None, normalise=False))
        >>> report = memory.insert(x=[0.0, 1.0, 2.0, 5.0])  # mean 2
        >>> memory.samples["x"]  # 2, then of 0, 1 and 5 that with the better mean
        array([1., 2.])
    """

    kind: ClassVar[str] = "herding"
    mark_types: ClassVar[Mapping[str, str]] = {"stands_for": "f", "pick": "i"}

    features: Column = "embedding"
    label: Column | None = "y"
    normalise: bool = True
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
        marks = {
            "stands_for": extend_mark(state, "stands_for", held, np.ones(fresh.size)),
            "pick": extend_mark(state, "pick", held, np.full(fresh.size, -1)),
        }
        rows = everything(held, fresh)
        if capacity is None or len(rows) <= capacity:
            return Choice(rows, counters, marks)
        if self.features not in fresh:
            rows = random_rows(held, fresh, capacity, seen, rng)
            return Choice(
                rows,
                counters,
                {
                    "stands_for": np.full(capacity, counters["seen"] / capacity),
                    "pick": np.full(capacity, -1),
                },
            )
        marks = {name: mark.copy() for name, mark in marks.items()}
        codes = np.zeros(len(rows), np.int64)
        if self.label is not None:
            codes = np.unique(column_of(self.label, held, fresh), return_inverse=True)[1]
        counts = np.bincount(codes)
        points = (directions if self.normalise else centred)(self.features, held, fresh)
        kept = []
        for code, share in enumerate(balanced_shares(counts, capacity)):
            own = np.flatnonzero(codes == code)
            if share < len(own):
                own = self._picked(points, own, int(share), held.size, marks)
            elif own[-1] >= held.size:
                marks["pick"][own] = -1  # an order of only some of them means nothing
            kept.append(own)
        rows = np.sort(np.concatenate(kept))
        return Choice(rows, counters, take_marks(marks, rows))

    def _picked(
        self,
        points: np.ndarray,
        own: np.ndarray,
        share: int,
        held: int,
        marks: dict[str, np.ndarray],
    ) -> np.ndarray:
        """Of a label's rows those that stay; brings their marks up to date."""
        from memento._kernels import herding

        total = marks["stands_for"][own].sum()
        picks = marks["pick"][own]
        if own[-1] < held and picks.min() >= 0:
            picked = own[np.argsort(picks)[:share]]
        else:
            picked = own[herding.herd(points[own], marks["stands_for"][own], share)]
        marks["pick"][picked] = np.arange(share)
        marks["stands_for"][picked] = total / max(1, share)
        return picked

    def weights(self, state: State, size: int) -> np.ndarray:
        return np.array(state.marks["stands_for"]) if size else np.empty(0)


def balanced_shares(counts: np.ndarray, capacity: int) -> np.ndarray:
    """Equal shares of a capacity; what the small cannot fill goes to the others in equal parts.

    Args:
        counts: ``(labels,)`` how many there are.
        capacity: To be filled, at most the sum of all counts.

    Returns:
        ``(labels,)`` int64, at most ``counts``, together ``capacity``. What does not divide
        evenly goes to the most frequent.

    Example:
        >>> balanced_shares(np.array([50, 3, 40]), 20)
        array([9, 3, 8])
    """
    shares = np.zeros(len(counts), np.int64)
    left = capacity
    order = np.argsort(counts, kind="stable")
    for place, label in enumerate(order):
        shares[label] = min(int(counts[label]), left // (len(order) - place))
        left -= int(shares[label])
    return shares
