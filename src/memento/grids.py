"""Densities on a grid: kernel density estimates of values, and integrals over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from memento.arguments import shown
from memento.errors import SettingError

__all__ = ["grid_of", "simpson_weights", "smoothed", "spread", "support_of"]

# Batches whose densities are estimated at a time, so that what is needed on the way stays small.
_ROWS = 4096


def grid_of(support: Any) -> tuple[float, ...]:
    """A grid that a user gives, checked.

    Raises:
        SettingError: It is not made of at least three increasing, finite numbers.
    """
    try:
        grid = np.asarray(support, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        grid = np.empty(0)
    shaped = grid.ndim == 1 and len(grid) >= 3 and np.isfinite(grid).all()
    if not shaped or not np.all(np.diff(grid) > 0):
        raise SettingError(
            f"support is {shown(support)}; expected at least 3 increasing, finite numbers"
        )
    return tuple(grid.tolist())


def support_of(values: Any, mass: float = 0.999, points: int = 128) -> np.ndarray:
    """An even grid that covers a share of the data, the same share cut off at both ends.

    Args:
        values: ``(n,)`` finite numbers, in any unit.
        mass: Share to cover, in (0, 1].
        points: Points of the grid.

    Returns:
        ``(points,)`` increasing float64.

    Example:
        >>> support_of(range(101), mass=1.0, points=5)
        array([  0.,  25.,  50.,  75., 100.])
    """
    values = np.asarray(values, dtype=np.float64)
    low, high = np.quantile(values, [(1 - mass) / 2, (1 + mass) / 2])
    if not high > low:  # constant data: any grid around it will do
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, points)


def simpson_weights(grid: np.ndarray) -> np.ndarray:
    """Weights w such that ``w @ f`` is the integral of f by the composite Simpson rule.

    With an even number of points the last interval is integrated over the parabola through the last
    three (K. V. Cartwright, "Simpson's rule cumulative integration with MS Excel and irregularly
    spaced data", J. Math. Sci. Math. Educ. 12(2), 2017).

    Args:
        grid: ``(g,)`` increasing, at least 3 points.

    Example:
        >>> (simpson_weights(np.arange(5.0)) * 3).round(6)
        array([1., 4., 2., 4., 1.])
    """
    steps = np.diff(grid)
    weights = np.zeros(len(grid))
    for i in range(0, len(grid) - 2, 2):
        a, b = steps[i], steps[i + 1]
        weights[i] += (a + b) / 6 * (2 - b / a)
        weights[i + 1] += (a + b) ** 3 / (6 * a * b)
        weights[i + 2] += (a + b) / 6 * (2 - a / b)
    if len(grid) % 2 == 0:
        a, b = steps[-2], steps[-1]
        weights[-1] += (2 * b**2 + 3 * a * b) / (6 * (a + b))
        weights[-2] += (b**2 + 3 * a * b) / (6 * a)
        weights[-3] -= b**3 / (6 * a * (a + b))
    return weights


def spread(values: np.ndarray, sizes: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Share each value between the two points of the grid around it: linear binning.

    So the kernel has to be known between points of the grid only, and one narrower than the grid
    still leaves a density (Jones and Lotwick, "On the errors involved in computing the empirical
    characteristic function", 1983).

    Args:
        values: ``(m,)`` within the grid, batch after batch.
        sizes: ``(n,)`` values of each batch.
        grid: ``(g,)`` increasing grid.

    Returns:
        ``(n, g)`` counts, which need not be whole.
    """
    points = len(grid)
    if _is_even(grid):
        share = (values - grid[0]) * ((points - 1) / (grid[-1] - grid[0]))
        left = np.minimum(share.astype(np.int64), points - 2)
        share -= left
    else:
        left = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, points - 2)
        share = (values - grid[left]) / (grid[left + 1] - grid[left])
    left += np.repeat(np.arange(len(sizes)) * points, sizes)
    counts = np.bincount(left, 1 - share, minlength=len(sizes) * points)
    left += 1
    counts += np.bincount(left, share, minlength=len(sizes) * points)
    return counts.reshape(len(sizes), points)


def _is_even(grid: np.ndarray) -> bool:
    steps = np.diff(grid)
    return bool(np.ptp(steps) <= 1e-9 * steps[0])


def smoothed(counts: np.ndarray, widths: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Replace each count by a Gaussian kernel of its row's width.

    Args:
        counts: ``(n, g)`` at the points of a grid.
        widths: ``(n,)`` in the unit of the grid.
        grid: ``(g,)`` increasing grid.

    Returns:
        ``(n, g)`` sums of kernels, which are 1 at their centres.
    """
    scale = -0.5 / widths**2
    points = len(grid)
    sums = np.empty(counts.shape)
    if not _is_even(grid):
        gaps = (grid[:, None] - grid) ** 2
        for i, row in enumerate(counts):
            sums[i] = np.exp(gaps * scale[i]) @ row
        return sums
    # The kernel is the same at every point: a convolution, by way of the Fourier transform.
    for start in range(0, len(counts), _ROWS):
        rows = slice(start, start + _ROWS)
        half = np.exp(scale[rows, None] * (grid - grid[0]) ** 2)
        around = np.concatenate([half, np.zeros((len(half), 1)), half[:, :0:-1]], axis=1)
        product = np.fft.rfft(counts[rows], 2 * points) * np.fft.rfft(around).real
        sums[rows] = np.fft.irfft(product, 2 * points)[:, :points]
    return np.maximum(sums, 0.0)  # rounding can leave a hair below nothing
