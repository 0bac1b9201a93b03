"""Slow, obvious float64 oracles of the method, written from its description and from nothing else.

Everything here is loops and plain numpy; no function knows of the package that is tested. Where the
method leaves a choice open (which parabola covers the last interval of Simpson's rule, how a kernel
is put on a grid), the choice is named. Fast code is right if it agrees with this.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

TINY = 1e-6
PEAK = 1 / math.sqrt(2 * math.pi)  # the density of a batch whose like is all there is: 0.3989

# ----------------------------------------------------------------------------------------- batching


def sort_key(column: np.ndarray, row: int) -> tuple:
    """What a row is sorted by: its value; or position and negated value of its largest entry."""
    if column.ndim == 1:
        return (column[row],)
    entries = column[row].reshape(-1).tolist()
    best = 0
    for position, entry in enumerate(entries):
        if abs(entry) > abs(entries[best]):
            best = position
    return (best, -entries[best])


def sort_order(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Row numbers sorted by the columns, most important first. Python's sort is stable."""
    rows = range(len(columns[0]))
    keys = [tuple(part for column in columns for part in sort_key(column, r)) for r in rows]
    return np.array(sorted(rows, key=lambda row: keys[row]), dtype=np.int64)


def cut(
    order: Sequence[int], size: int, *, keep: bool = False, groups: np.ndarray | None = None
) -> list[list[int]]:
    """Consecutive batches of ``size`` rows; with groups (row -> group), apart for each of them."""
    batches: list[list[int]] = []
    current: list[int] = []
    for row in [int(r) for r in order]:
        if current and groups is not None and groups[row] != groups[current[0]]:
            if keep:
                batches.append(current)
            current = []
        current.append(row)
        if len(current) == size:
            batches.append(current)
            current = []
    if current and keep:
        batches.append(current)
    return batches


def even_cut(
    order: Sequence[int],
    size: int,
    labels: Sequence[np.ndarray] = (),
    groups: np.ndarray | None = None,
) -> list[list[int]]:
    """All rows in batches of nearly ``size``, none of which straddles groups or, mostly, labels.

    A run of m equal rows makes m / size batches, rounded, but at least one. If that were more than
    1.5 times as many as m / size would be in all (and 16), the last label column is not regarded;
    of a single one, neighbours of less than half a batch that begin in the same cell of 2, 4, 8 ...
    such rows are joined, until there are no more batches than that.
    """
    rows = [int(row) for row in order]
    most = 3 * len(rows) // (2 * size) + 16
    group = [None if groups is None else groups[row] for row in rows]
    for depth in range(len(labels), -1, -1):
        keys = [(g, *(c[r] for c in labels[:depth])) for g, r in zip(group, rows, strict=True)]
        runs = [len(list(run)) for _, run in itertools.groupby(keys)]
        if sum(even_count(run, size) for run in runs) <= most or depth <= 1:
            break
    cell = 1
    joined = runs
    while labels and cell < size and sum(even_count(run, size) for run in joined) > most:
        cell *= 2
        joined, start, before = [], 0, None
        for run in runs:
            small = (group[start], start // cell) if 2 * run < size else None
            if small is not None and small == before:
                joined[-1] += run
            else:
                joined.append(run)
            start, before = start + run, small
    batches, start = [], 0
    for run in joined:
        count = even_count(run, size)
        for i in range(count):
            length = run // count + (i < run % count)
            batches.append(rows[start : start + length])
            start += length
    return batches


def even_count(run: int, size: int) -> int:
    return max(1, math.floor(run / size + 0.5))


# ---------------------------------------------------------------------------------------- summaries


def frequencies(labels: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros(classes)
    for label in labels:
        counts[int(label)] += 1
    return counts / len(labels)


def mixture(rows: np.ndarray) -> np.ndarray:
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row.astype(np.float64)
    return total / len(rows)


def silverman(values: np.ndarray) -> float:
    """(4 / 3n)^(1/5) times the spread: the smaller of standard deviation and interquartile range.

    The range is scaled as that of a normal distribution; where it is 0, the range from the 1st to
    the 99th percentile takes its place. 0 if that is 0, too.
    """
    n = len(values)
    if n < 2:
        return 0.0
    mean = sum(values.tolist()) / n
    variance = sum((v - mean) ** 2 for v in values.tolist()) / (n - 1)
    quartile, percentile = 0.6744897501960817, 2.3263478740408408  # of a standard normal
    spread = min(
        math.sqrt(variance), (quantile(values, 0.75) - quantile(values, 0.25)) / 2 / quartile
    )
    if spread == 0:
        spread = (quantile(values, 0.99) - quantile(values, 0.01)) / 2 / percentile
    return (4 / (3 * n)) ** 0.2 * spread


def quantile(values: np.ndarray, level: float) -> float:
    """Linear between the two ordered values around (n - 1) * level."""
    ordered = sorted(values.tolist())
    place = (len(ordered) - 1) * level
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def kde(values: np.ndarray, grid: np.ndarray, width: float | None = None) -> np.ndarray:
    """Gaussian density estimate on the grid: values clipped, integral 1 by Simpson's rule.

    Values are shared out between the two points of the grid next to them, so that a kernel narrower
    than the grid is not lost between points.
    """
    clipped = np.array([min(max(float(v), grid[0]), grid[-1]) for v in values])
    width = silverman(clipped) if width is None else width
    if width < 1e-12 * (grid[-1] - grid[0]):  # constant values, up to rounding
        width = (grid[-1] - grid[0]) / 10
    density = np.zeros(len(grid))
    for value in clipped:
        left = max(i for i in range(len(grid) - 1) if grid[i] <= value)
        share = (value - grid[left]) / (grid[left + 1] - grid[left])
        density += (1 - share) * np.exp(-(((grid - grid[left]) / width) ** 2) / 2)
        density += share * np.exp(-(((grid - grid[left + 1]) / width) ** 2) / 2)
    return density / integral(density, grid)


def parabola_integral(x: np.ndarray, y: np.ndarray, low: float, high: float) -> float:
    """Integral from low to high of the parabola through three points, from its coefficients."""
    middle = x[1]  # shifted, so that the powers stay small
    coefficients = np.linalg.solve(np.vander(x - middle, 3), y)
    antiderivative = np.polyint(coefficients)
    return float(
        np.polyval(antiderivative, high - middle) - np.polyval(antiderivative, low - middle)
    )


def integral(y: np.ndarray, x: np.ndarray) -> float:
    """Simpson's rule: a parabola through every three points.

    With an even number of points the last interval is left over; there the parabola through the
    last three points is integrated over that interval only.
    """
    total = 0.0
    for i in range(0, len(x) - 2, 2):
        total += parabola_integral(x[i : i + 3], y[i : i + 3], x[i], x[i + 2])
    if len(x) % 2 == 0:
        total += parabola_integral(x[-3:], y[-3:], x[-2], x[-1])
    return total


# ---------------------------------------------------------------------------------------- distances


def divergence_terms(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p log2(p/m) + q log2(q/m) by bin, where terms with p (or q) or m below 1e-6 count as 0."""
    terms = np.zeros(len(p))
    for b, (pb, qb) in enumerate(zip(p.tolist(), q.tolist(), strict=True)):
        m = (pb + qb) / 2
        if pb >= TINY and m >= TINY:
            terms[b] += pb * math.log2(pb / m)
        if qb >= TINY and m >= TINY:
            terms[b] += qb * math.log2(qb / m)
    return terms


def jensen_shannon(p: np.ndarray, q: np.ndarray, grid: np.ndarray | None = None) -> float:
    """Jensen-Shannon distance in base 2: a sum; over a grid, Simpson's rule."""
    terms = divergence_terms(p, q)
    total = float(terms.sum()) if grid is None else integral(terms, grid)
    return math.sqrt(max(total / 2, 0.0))


def jensen_shannon_row(p: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The same from one discrete distribution to many at once, for tests with many batches."""
    m = (p + rows) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where((p >= TINY) & (m >= TINY), p * np.log2(p / m), 0.0)
        other = np.where((rows >= TINY) & (m >= TINY), rows * np.log2(rows / m), 0.0)
    return np.sqrt(np.maximum((own + other).sum(axis=1) / 2, 0.0))


def wasserstein_values(first: np.ndarray, second: np.ndarray) -> float:
    """Area between two empirical cumulative distributions."""
    places = sorted({*first.tolist(), *second.tolist()})
    area = 0.0
    for left, right in itertools.pairwise(places):
        below = sum(v <= left for v in first.tolist()) / len(first)
        other = sum(v <= left for v in second.tolist()) / len(second)
        area += abs(below - other) * (right - left)
    return area


def wasserstein_cdfs(first: np.ndarray, second: np.ndarray, grid: np.ndarray) -> float:
    return integral(np.abs(first - second), grid)


def wasserstein_normals(mu1: float, sigma1: float, mu2: float, sigma2: float) -> float:
    return math.sqrt((mu1 - mu2) ** 2 + (sigma1 - sigma2) ** 2)


def minkowski(first: np.ndarray, second: np.ndarray, p: float) -> float:
    if math.isinf(p):
        return max(abs(a - b) for a, b in zip(first.tolist(), second.tolist(), strict=True))
    total = sum(abs(a - b) ** p for a, b in zip(first.tolist(), second.tolist(), strict=True))
    return float(total ** (1 / p))


def matrix(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], distance: Callable[..., float]
) -> np.ndarray:
    """Distances of all pairs."""
    return np.array([[distance(p, q) for q in second] for p in first])


# -------------------------------------------------------------------------- density, selection, RCI


def kernel(distances: np.ndarray, bandwidth: float = 0.1) -> np.ndarray:
    return np.exp(-((distances / bandwidth) ** 2) / 2)


def density(distances: Sequence[np.ndarray], bandwidth: float = 0.1) -> np.ndarray:
    """Density of every batch among all, itself included: the minimum over the distances.

    ``distances`` holds one matrix (n, n) for each distance.
    """
    return np.min([kernel(d, bandwidth).mean(axis=1) * PEAK for d in distances], axis=0)


def leave_one_out(distances: Sequence[np.ndarray], bandwidth: float = 0.1) -> np.ndarray:
    """Density of every batch among the others."""
    n = len(distances[0])
    found = []
    for d in distances:
        k = kernel(d, bandwidth)
        found.append([sum(k[i, j] for j in range(n) if j != i) / (n - 1) * PEAK for i in range(n)])
    return np.min(found, axis=0)


def discard_probabilities(rho: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(rho / T): all to the last of the largest at 0, uniform at infinity."""
    if temperature == 0:
        last = max(i for i in range(len(rho)) if rho[i] == rho.max())
        return np.eye(len(rho))[last]
    if math.isinf(temperature):
        return np.full(len(rho), 1 / len(rho))
    odds = np.exp((rho - rho.max()) / temperature)
    return odds / odds.sum()


def keep(
    distances: Sequence[np.ndarray],
    sizes: Sequence[int],
    capacity: int,
    temperature: float,
    uniforms: Iterator[float] | None = None,
    bandwidth: float = 0.1,
) -> tuple[list[int], list[int]]:
    """Batches left when one at a time has gone until at most ``capacity`` samples are left.

    Densities are computed anew, from the distances of those still in play, before each discard.
    A uniform number u takes the first batch at which the running total of probabilities exceeds u.
    Also returned: the batches discarded, in that order.
    """
    alive, gone = list(range(len(sizes))), []
    while sum(sizes[i] for i in alive) > capacity:
        rho = density([d[np.ix_(alive, alive)] for d in distances], bandwidth)
        chances = discard_probabilities(rho, temperature)
        if uniforms is None:
            place = int(chances.argmax())
        else:
            u, running, place = next(uniforms), 0.0, -1
            while running <= u and place < len(alive) - 1:
                place += 1
                running += chances[place]
        gone.append(alive.pop(place))
    return alive, gone


def keep_frequency(
    distances: Sequence[np.ndarray],
    discards: int,
    temperature: float,
    runs: int,
    rng: np.random.Generator,
    bandwidth: float = 0.1,
) -> np.ndarray:
    """How often each batch survives; all runs go side by side, for speed alone."""
    kernels = [kernel(d, bandwidth) for d in distances]
    n = len(kernels[0])
    alive = np.ones((runs, n), dtype=bool)
    for gone in range(discards):
        sums = np.min([alive @ k for k in kernels], axis=0)  # only those alive count
        rho = sums / (n - gone) * PEAK
        exponents = np.where(alive, rho / temperature, -np.inf)
        chances = np.exp(exponents - exponents.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        for run in range(runs):
            alive[run, rng.choice(n, p=chances[run])] = False
    return alive.mean(axis=0)


def relative_coverage_increase(
    own: Sequence[np.ndarray],
    cross: Sequence[np.ndarray],
    bandwidth: float = 0.1,
    *,
    alone: bool = False,
) -> float:
    """RCI of B with respect to R.

    Args:
        own: For each distance, the matrix (n, n) within B.
        cross: For each distance, the matrix (n, m) from B to R.
        bandwidth: Of the kernel.
        alone: Whether the own kernel of a batch is left out of its density in B.
    """
    rho = leave_one_out(own, bandwidth) if alone else density(own, bandwidth)
    reference = np.min([kernel(d, bandwidth).mean(axis=1) * PEAK for d in cross], axis=0)
    rise = sum(max(0.0, r - s) for r, s in zip(rho.tolist(), reference.tolist(), strict=True))
    return rise / float(rho.sum())


def newness(
    distances: Sequence[np.ndarray],
    mine: np.ndarray,
    theirs: np.ndarray,
    bandwidth: float = 0.1,
) -> float:
    """Mean over my samples of the squared share by which theirs are thinner in the same cell.

    Args:
        distances: For each distance, the matrix between cells of pooled samples.
        mine: How many of my samples lie in each cell.
        theirs: How many of theirs.
        bandwidth: Of the kernel.
    """
    kernels = [kernel(d, bandwidth) for d in distances]
    total = 0.0
    for cell in range(len(mine)):
        ours = min(float(k[cell] @ mine) / mine.sum() for k in kernels)
        other = min(float(k[cell] @ theirs) / theirs.sum() for k in kernels)
        if mine[cell]:
            total += mine[cell] / mine.sum() * max(0.0, 1 - other / ours) ** 2
    return total
