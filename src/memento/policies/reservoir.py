"""Random selection: reservoir sampling by keys drawn for life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Share
from memento.policies._policy import Choice, Policy, State, extend_mark, take_marks
from memento.samples import Samples

__all__ = ["Reservoir", "smallest"]


@dataclass(frozen=True)
class Reservoir(Policy):
    """Keeps a uniform random sample of the stream (Vitter 1985; here by keys).

    Every sample gets a uniform key for life, and the smallest keys stay. So what is held depends on
    the stream only, not on how it is split into inserts.

    Args:
        forget: Share of the samples held, in ``[0, 1]``, that goes at random before an insert; at
            most as many as come in. One insert forgets once, however large it is. With 0.1 and an
            insert of equal size every day, in the long run about 10 % of a full memory are of the
            last day, and a day d back has 10 % times 0.9 to the power of d.

    Without forgetting every sample held stands for ``seen / held`` samples of the stream: these are
    the weights. With forgetting there are none: to forget says that old samples shall count less,
    and weights that make the memory stand for the whole stream again would undo it.

    Raises:
        SettingError: ``forget`` is not in ``[0, 1]``.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(2, Reservoir(), seed=1)
        >>> memory.insert(y=[0, 1, 2, 3, 4])
        Report(offered=5, kept=2, discarded=3)
        >>> memory.weights
        array([2.5, 2.5])
    """

    kind: ClassVar[str] = "reservoir"
    mark_types: ClassVar[Mapping[str, str]] = {"key": "f"}

    forget: Share = 0.0

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        keys = extend_mark(state, "key", held, rng.random(fresh.size))
        forgotten = min(int(self.forget * held.size), fresh.size)
        rows = np.arange(len(keys))
        if forgotten:
            rows = np.delete(rows, rng.choice(held.size, forgotten, replace=False))
        if capacity is not None:
            rows = smallest(keys, rows, capacity)
        counters = {"seen": state.counters.get("seen", 0) + fresh.size}
        return Choice(rows, counters, take_marks({"key": keys}, rows))

    def weights(self, state: State, size: int) -> np.ndarray | None:
        if self.forget > 0:
            return None
        return np.full(size, state.counters.get("seen", 0) / max(1, size))


def smallest(keys: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Of the given rows the ``count`` with the smallest keys, ascending.

    Example:
        >>> smallest(np.array([0.5, 0.1, 0.9, 0.3]), np.array([0, 1, 2]), 2)
        array([0, 1])
    """
    if count >= len(rows):
        return rows
    if count == 0:
        return rows[:0]
    return np.sort(rows[np.argpartition(keys[rows], count - 1)[:count]])
