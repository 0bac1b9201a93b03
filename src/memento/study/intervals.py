"""How sure the difference of two arms is that saw the same units with the same seeds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memento import arguments
from memento.errors import SettingError

__all__ = ["Gain", "interval", "paired"]

_NORMAL = 1.645  # 95 % quantile: both sides together are a 90 % interval
_STUDENT = 6.314  # the same of two seeds, whose variance is known badly
_DRAWS = 2_000
_BLOCK = 2  # units that follow each other are alike


class Gain(NamedTuple):
    """A mean difference and its 90 % interval; NaN where it cannot be told."""

    gain: float
    low: float
    high: float

    def __str__(self) -> str:
        half = "" if math.isnan(self.low) else f" ± {(self.high - self.low) / 2:.3f}"
        return f"{self.gain:+.3f}{half}"


@arguments.checked
def paired(differences: np.ndarray) -> Gain:
    """The mean of paired differences, with an interval over units and seeds.

    Units are drawn in moving blocks of two; the variance of the means of seeds is added.

    Args:
        differences: ``(seeds, units)``, one arm minus the other. Units with NaN are left out.

    Returns:
        Without interval for a single seed, or for fewer than three units.

    Example:
        >>> paired(np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))
        Gain(gain=1.0, low=1.0, high=1.0)
    """
    differences = arguments.numbers("differences", differences, 2)
    known = differences[:, ~np.isnan(differences).any(axis=0)]
    seeds, units = known.shape
    if not known.size:
        return Gain(math.nan, math.nan, math.nan)
    gain = float(known.mean())
    if seeds < 2 or units < 3:  # of two units there is one block, which never varies
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


@arguments.checked
def interval(values: npt.ArrayLike, level: float = 0.9) -> tuple[float, float, float]:
    """The mean of independent values with its interval by Student's t distribution.

    Args:
        values: (n,), such as one for each seed; NaN are left out.
        level: In (0, 1).

    Returns:
        Mean, lower and upper end; the ends are NaN for fewer than two values.

    Raises:
        SettingError: A level outside (0, 1).

    Example:
        >>> mean, low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> round(mean, 3), round(low, 3), round(high, 3)
        (3.0, 1.493, 4.507)
    """
    if not 0 < level < 1:
        raise SettingError(f"level is {level}; expected a probability between 0 and 1")
    found = arguments.numbers("values", values, 1)
    found = found[~np.isnan(found)]
    if not len(found):
        return float("nan"), float("nan"), float("nan")
    mean = float(found.mean())
    if len(found) < 2:
        return mean, float("nan"), float("nan")
    half = _student((1 + level) / 2, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return mean, mean - float(half), mean + float(half)


def _student(probability: float, freedom: int) -> float:
    """A quantile, above the median, of Student's t distribution.

    With ``x = tan(u) * sqrt(freedom)`` its density is proportional to ``cos(u)^(freedom - 1)``, so
    the integral has finite ends.
    """
    u = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(u) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    share = 0.5 + 0.5 * mass / mass[-1]
    return math.tan(float(np.interp(probability, share, u))) * math.sqrt(freedom)
