"""Query by committee: keep what models disagree about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Column, check, whole
from memento.distances import check_probabilities
from memento.errors import SchemaError
from memento.policies._columns import require
from memento.policies._policy import Choice, Policy, State, everything
from memento.policies.fifo import newest
from memento.samples import Samples

__all__ = ["QueryByCommittee", "committee_entropy"]

# Smaller probabilities count as 0, as in the distances.
_TINY = 1e-6
# Rows that are averaged at a time, so that a large memory needs no second copy of its predictions.
_ROWS = 1 << 16


@dataclass(frozen=True)
class QueryByCommittee(Policy):
    """Keeps the samples with the highest entropy of what a committee predicts.

    The committee are the last models that were trained: a column holds the probabilities that each
    of them predicts, newest model last. Their mean is the prediction of the committee; its entropy
    in bits says how little the models agree, or how unsure they are. As long as there is no such
    column (no model was trained yet) the newest samples stay, as in `FIFO`; of equals, too.

    Args:
        column: Probabilities of shape ``(n, members, classes)``.
        members: At most so many of the members vote, the last ones; at least 1.
        always_first: Whether the first member always has one of these votes, such as a model that
            was trained once with care.

    Raises:
        SettingError: ``members`` is below 1, or below 2 with ``always_first``.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(1, QueryByCommittee())
        >>> agree, differ = [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
        >>> memory.insert(y=[0, 1, 2], committee=[agree, differ, agree]).kept
        1
        >>> memory.samples["y"]
        array([1])
    """

    kind: ClassVar[str] = "query-by-committee"

    column: Column = "committee"
    members: int = 7
    always_first: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        least = 2 if self.always_first else 1
        check(self, members=whole(least, words=f"a whole number, at least {least}"))

    def check(self, fresh: Samples) -> None:
        if self.column not in fresh:
            return
        column = require(fresh, self.column, 2, "f", "one row of probabilities a member")
        if not column.shape[1]:
            raise SchemaError(f"column {self.column!r} has no members; expected at least one")
        if fresh.size:
            check_probabilities(self.column, column.reshape(-1, column.shape[2]))

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        rows = everything(held, fresh)
        if capacity is None or len(rows) <= capacity:
            return Choice(rows)
        if self.column not in fresh:
            return Choice(newest(held, fresh, capacity))
        parts = [part for part in (held, fresh) if part.size]
        entropy = np.concatenate([self._entropy(part[self.column]) for part in parts])
        newest_first = rows[::-1]
        best = np.argsort(-entropy[newest_first], kind="stable")[:capacity]
        return Choice(np.sort(newest_first[best]))

    def _entropy(self, column: np.ndarray) -> np.ndarray:
        if column.shape[1] > self.members:
            first = 1 if self.always_first else 0
            last = np.arange(column.shape[1] - self.members + first, column.shape[1])
            votes = np.concatenate([np.arange(first), last])
        else:
            votes = np.arange(column.shape[1])
        chunks = range(0, len(column), _ROWS)
        return np.concatenate([committee_entropy(column[i : i + _ROWS, votes]) for i in chunks])


def committee_entropy(predictions: np.ndarray) -> np.ndarray:
    """Entropy of the mean prediction, in bits.

    Args:
        predictions: ``(n, members, classes)`` probabilities.

    Returns:
        ``(n,)`` float64 in ``[0, log2(classes)]``.

    Example:
        >>> committee_entropy(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
        array([1.])
    """
    mean = predictions.mean(axis=1, dtype=np.float64)
    mean[mean < _TINY] = 1.0  # whose logarithm is 0
    entropy: np.ndarray = -(mean * np.log2(mean)).sum(axis=1)
    return entropy + 0.0  # not -0.0
