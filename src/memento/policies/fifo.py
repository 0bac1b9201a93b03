"""First in, first out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.policies._policy import Choice, Policy, State, everything
from memento.samples import Samples

__all__ = ["FIFO"]


@dataclass(frozen=True)
class FIFO(Policy):
    """Keeps the newest samples.

    It states no weights: older samples had no chance to be held, so nothing stands for them.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(2, FIFO())
        >>> memory.insert(y=[0, 1, 2])
        Report(offered=3, kept=2, discarded=1)
        >>> memory.samples["y"]
        array([1, 2])
    """

    kind: ClassVar[str] = "fifo"

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        return Choice(newest(held, fresh, capacity))


def newest(held: Samples, fresh: Samples, capacity: int | None) -> np.ndarray:
    """The last ``capacity`` rows of held and fresh."""
    rows = everything(held, fresh)
    return rows if capacity is None else rows[max(0, len(rows) - capacity) :]
