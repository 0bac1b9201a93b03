"""Random draws from what a memory holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from memento import arguments
from memento.errors import RowError
from memento.samples import Samples

__all__ = ["drawn", "subset"]


def subset(held: Samples, count: int | None, rng: Any) -> Samples:
    """``count`` of the samples without replacement, in their order; see `Memory.get`."""
    if count is None:
        return held
    arguments.require("count", count, arguments.whole(0))
    if count >= held.size:
        return held
    rows = arguments.generator(rng, "rng").permutation(held.size)[:count]
    return held.take(np.sort(rows))


def drawn(held: Samples, weights: np.ndarray | None, count: int, rng: Any) -> Samples:
    """``count`` draws with replacement, in proportion to the weights; see `Memory.sample`."""
    arguments.require("count", count, arguments.whole(0))
    generator = arguments.generator(rng, "rng")
    if not count:
        return held.take([])
    if not held.size:
        raise RowError("nothing is held, so nothing can be drawn; insert samples first")
    shares = None if weights is None else weights / weights.sum()
    return held.take(generator.choice(held.size, count, p=shares))
