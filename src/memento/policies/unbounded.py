"""No selection at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.errors import SettingError
from memento.policies._policy import Choice, Policy, State, everything
from memento.samples import Samples

__all__ = ["Unbounded"]


@dataclass(frozen=True)
class Unbounded(Policy):
    """Keeps everything, in a memory without a capacity. All weights are 1.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(None, Unbounded())
        >>> memory.insert(y=[0, 1, 2])
        Report(offered=3, kept=3, discarded=0)
    """

    kind: ClassVar[str] = "unbounded"

    def check_capacity(self, capacity: int | None) -> None:
        if capacity is not None:
            raise SettingError(
                f"capacity is {capacity:,}, and Unbounded keeps everything; give capacity=None, or "
                "another policy, such as Reservoir()"
            )

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        return Choice(everything(held, fresh))

    def weights(self, state: State, size: int) -> np.ndarray | None:
        return np.ones(size)
