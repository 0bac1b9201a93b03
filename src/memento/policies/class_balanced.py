"""CBRS, the class-balancing reservoir."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Column, whole
from memento.policies._columns import labels, numbers
from memento.policies._policy import Choice, Policy, State, column_of, everything
from memento.samples import Samples

__all__ = ["ClassBalancedReservoir"]


@dataclass(frozen=True)
class ClassBalancedReservoir(Policy):
    """Keeps as many samples of each label as it can, and of each label a random sample (CBRS).

    Chrysakis and Moens, "Online continual learning from imbalanced data", ICML 2020, Algorithm 1.
    A label is *full* from the moment at which the memory is full and holds of no label more. A
    sample with a label that is not full always enters, in the place of any sample of the most
    frequent labels. One with a full label enters with probability ``held / seen`` of its label, as
    in a reservoir (Vitter 1985), in the place of any sample of its own label.

    Args:
        label: Column of integers, bools or strings, one a sample; with ``bins`` of numbers.
        bins: For numbers: so many bins with equal shares of the samples (quantiles) are the labels.
            Their edges are those of all samples that have come when the memory is first full, and
            stay.

    What is held of a label is a uniform random sample of all that came with it, so each sample
    stands for ``seen / held`` of its label: these are the weights. Training with them undoes the
    balance, as they give each label the share that it has in the stream.

    Time grows with the samples that come, times the number of labels where a label is not full yet.
    Between inserts two numbers a label are remembered. A label that was full and of which nothing
    is held, which takes more labels than places, does not come back.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(4, ClassBalancedReservoir(label="y"), seed=0)
        >>> report = memory.insert(y=[0] * 98 + [1] * 2)
        >>> memory.samples["y"], memory.weights
        (array([0, 0, 1, 1]), array([49., 49.,  1.,  1.]))
    """

    kind: ClassVar[str] = "class-balanced-reservoir"
    mark_types: ClassVar[Mapping[str, str]] = {"stands_for": "f"}

    label: Column = "y"
    bins: Annotated[int, whole(2)] | None = None

    def check(self, fresh: Samples) -> None:
        if self.bins is None:
            labels(fresh, self.label)
        else:
            numbers(fresh, self.label)

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        rows = everything(held, fresh)
        counters = dict(state.counters)
        found = column_of(self.label, held, fresh)
        if self.bins is not None:
            if "edge/1" not in counters:  # all that came is here: it is counted anew
                edges = np.quantile(found, np.arange(1, self.bins) / self.bins)
                inner = np.searchsorted(edges, found[: held.size], side="right")
                counters = {
                    f"seen/{number}": int(count)
                    for number, count in enumerate(np.bincount(inner, minlength=self.bins))
                }
                if capacity is not None and len(rows) > capacity:
                    counters |= {f"edge/{i}": float(edge) for i, edge in enumerate(edges, 1)}
            else:
                edges = np.array([counters[f"edge/{i}"] for i in range(1, self.bins)])
            found = np.searchsorted(edges, found, side="right")
        names, codes = np.unique(found, return_inverse=True)
        keys = [str(name.item()) for name in names]
        seen = np.array([counters.get(f"seen/{key}", 0) for key in keys], np.int64)
        full = np.array([counters.get(f"full/{key}", 0) for key in keys], bool)
        if capacity is None or len(rows) <= capacity:
            seen += np.bincount(codes[held.size :], minlength=len(keys))
        else:
            from memento._kernels import balancing

            early = max(0, capacity - held.size)  # those that find room
            seen += np.bincount(codes[held.size : held.size + early], minlength=len(keys))
            drawn = rng.random((fresh.size - early, 2))
            kept = balancing.balance(codes, capacity, seen, full, drawn)
            rows = np.flatnonzero(kept)
        counters |= {f"seen/{key}": int(count) for key, count in zip(keys, seen, strict=True)}
        counters |= {f"full/{key}": 1 for key, was in zip(keys, full, strict=True) if was}
        stands_for = seen / np.maximum(np.bincount(codes[rows], minlength=len(keys)), 1)
        return Choice(rows, counters, {"stands_for": stands_for[codes[rows]]})

    def weights(self, state: State, size: int) -> np.ndarray:
        return np.array(state.marks["stands_for"]) if size else np.empty(0)
