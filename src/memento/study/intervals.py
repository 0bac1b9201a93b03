"""How sure the difference of two arms is that saw the same units with the same seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["Gain", "paired"]

_NORMAL = 1.645  # 95 % quantile: both sides together are a 90 % interval
_STUDENT = 6.314  # the same of two seeds, whose variance is known badly
_DRAWS = 2_000
_BLOCK = 2  # units that follow each other are alike


class Gain(NamedTuple):
    """A mean difference and its 90 % interval; NaN where it cannot be told."""

    gain: float
    low: float
    high: float


def paired(differences: np.ndarray) -> Gain:
    """The mean of paired differences, with an interval over units and seeds.

    Units are drawn in moving blocks of two; the variance of the means of seeds is added.

    Args:
        differences: ``(seeds, units)``, one arm minus the other. Units with NaN are left out.

    Returns:
        Without interval for a single seed or a single unit.

    Example:
        >>> paired(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))
        Gain(gain=1.0, low=1.0, high=1.0)
    """
    known = differences[:, ~np.isnan(differences).any(axis=0)]
    seeds, units = known.shape
    if not known.size:
        return Gain(math.nan, math.nan, math.nan)
    gain = float(known.mean())
    if seeds < 2 or units < 2:
        return Gain(gain, math.nan, math.nan)
    of_units = known.mean(axis=0)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, units - _BLOCK + 1, size=(_DRAWS, -(-units // _BLOCK)))
    rows = (starts[:, :, None] + np.arange(_BLOCK)).reshape(_DRAWS, -1)[:, :units]
    over_units = of_units[rows].mean(axis=1).var()
    over_seeds = known.mean(axis=1).var(ddof=1) / seeds
    quantile = _STUDENT if seeds == 2 else _NORMAL
    half = math.sqrt(_NORMAL**2 * over_units + quantile**2 * over_seeds)
    return Gain(gain, gain - half, gain + half)
