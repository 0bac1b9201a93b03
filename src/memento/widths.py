"""How wide the kernel of a density estimate should be: rules by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from memento.errors import needs

__all__ = ["WIDTH_RULES", "check_rule"]


def silverman(values: np.ndarray) -> np.ndarray:
    """The spread times ``(3n/4)^(-1/5)``.

    Source: Silverman, "Density estimation for statistics and data analysis", 1986, section 3.4.2.
    """
    return np.asarray(_spread(values) * (max(1, values.shape[1]) * 3 / 4) ** (-1 / 5))


def scott(values: np.ndarray) -> np.ndarray:
    """The spread times ``n^(-1/5)``: 6 % less than Silverman's.

    Source: Scott, "Multivariate density estimation", 1992, chapter 6.
    """
    return np.asarray(_spread(values) * max(1, values.shape[1]) ** (-1 / 5))


def improved_sheather_jones(values: np.ndarray) -> np.ndarray:
    """By a fixed point, with no normal distribution assumed.

    Right for several modes, where the others are too wide. Where it finds none, as in few values,
    it is Silverman's rule.

    Source: Botev, Grotowski and Kroese, "Kernel density estimation via diffusion", Annals of
    Statistics 38(5), 2010.
    """
    with needs("KDEpy", "kde", 'bandwidth="isj"'):
        from KDEpy.bw_selection import improved_sheather_jones as estimate
    widths = silverman(values)
    for i, row in enumerate(values):
        if widths[i] > 0:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                try:
                    found = float(estimate(row[:, None]))
                except ValueError:  # no fixed point
                    continue
            widths[i] = found if np.isfinite(found) else widths[i]
    return widths


#: Rules by name: each maps ``(n, size)`` values, a batch a row, to ``(n,)`` widths in their unit.
WIDTH_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silverman": silverman,
    "scott": scott,
    "isj": improved_sheather_jones,
}


def check_rule(name: str) -> None:
    """Raise what the rule would raise for want of a package.

    Raises:
        MissingExtraError: The rule is a package's, which is not installed.
    """
    if name == "isj":
        improved_sheather_jones(np.empty((0, 0)))


def _spread(values: np.ndarray) -> np.ndarray:
    """``(n,)`` the smaller of two measures of spread.

    Where the middle half of the values are equal, the range of the middle 98 % takes its place; 0
    if these are equal, too. Ranges are scaled to the standard deviation of a normal distribution.
    """
    if values.shape[1] < 2:
        return np.zeros(len(values))
    ordered = np.sort(values, axis=1)
    low, lower, upper, high = (_quantile(ordered, level) for level in (0.01, 0.25, 0.75, 0.99))
    spread = np.minimum(values.std(axis=1, ddof=1), (upper - lower) / 1.3489795003921634)
    return np.where(spread > 0, spread, (high - low) / 4.6526957480816815)


def _quantile(ordered: np.ndarray, level: float) -> np.ndarray:
    """``(n,)`` quantile of each ascending row, linear between the two values around it."""
    place = level * (ordered.shape[1] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[1] - 1)
    step = ordered[:, above] - ordered[:, below]
    return np.asarray(ordered[:, below] + step * (place - below))
