"""Kernel sums through landmarks: pairs of a few landmarks a cell in place of all pairs.

**Cells** are a net: every distribution lies within a radius of the leader of its cell. The distance
is a metric, so a cell has at most twice this width.

**Landmarks** are members of a cell that stand for all of it. They are chosen one after the other
by a Cholesky factorisation of the kernel matrix of the cell, pivoted by the largest residual
``1 - k_iR K_RR^-1 k_Ri`` (Fine and Scheinberg, "Efficient SVM training using low-rank kernel
representations", 2001), until none is above a limit. With ``W = K_gR K_RR^-1`` for a cell g and its
landmarks R, the kernel between members of the cells g and g' is ``W K_RR' W'^T`` (an interpolative
decomposition, as of hierarchical matrices), so sums over n distributions are

    S = W (K (W^T c)) + residual * c,

K being the kernels between all landmarks; the last term makes each one's own kernel exactly 1.

**Cost.** A cell of N members and p landmarks takes N p kernels and N p^2 / 2 multiplications, so
all cells together about n; what is left are the pairs of landmarks.

The factor of a cell lies in rows: ``factors[offsets[g] + q * N :][:N]`` is what landmark q of cell
g explains of each of its N members.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel
from memento._kernels.jensen_shannon import (
    TILE,
    Packed,
    binary,
    empty_aligned,
    empty_packed,
    move_columns,
    tile_kernels,
)

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_f4 = np.float32
# Numbers of all factors together, for each distribution: 1 kB. Where that is not enough, cells have
# no structure that a few landmarks could stand for.
_MOST_FACTORS = 256


class Skeleton(NamedTuple):
    """Cells and their landmarks.

    Attributes:
        order: (n,) distributions in the order of cells.
        starts: (cells + 1,) where in that order each cell begins.
        pivots: (m,) places of the landmarks in that order.
        firsts: (cells + 1,) the number of each cell's first landmark.
        factors: float32, see above.
        offsets: (cells + 1,) where in the factors those of each cell begin.
        residuals: (n,) what landmarks do not explain of each distribution, in that order.
    """

    order: Rows
    starts: Rows
    pivots: Rows
    firsts: Rows
    factors: npt.NDArray[np.float32]
    offsets: Rows
    residuals: Floats


@kernel()
def _cover(packed, factor, threshold, state, chosen, chosen_halves, groups):  # type: ignore[no-untyped-def]
    """Go on covering; ``state`` holds the next distribution, the leaders and the tile hit last.

    Returns when all are covered, or ``chosen`` is full.
    """
    out = np.empty(TILE, np.float32)
    room = chosen.shape[0] * TILE
    count = state[1]
    last = state[2]
    for i in range(state[0], packed.size):
        t = i // TILE
        lane = i % TILE
        half = packed.halves[t, lane]
        filled = (count + TILE - 1) // TILE
        leader = np.int64(-1)
        for step in range(filled):  # neighbours in the order of batches are alike
            c = (last + step) % filled
            tile_kernels(packed.tiles[t], lane, half, chosen[c], chosen_halves[c], factor, out)
            best = 0
            for j in range(1, TILE):
                if out[j] > out[best]:
                    best = j
            if out[best] >= threshold:
                leader = c * TILE + best
                last = c
                break
        if leader < 0:
            if count == room:
                state[0], state[1], state[2] = i, count, last
                return
            last = count // TILE
            for b in range(packed.tiles.shape[1]):
                chosen[last, b, count % TILE] = packed.tiles[t, b, lane]
            chosen_halves[last, count % TILE] = half
            leader = count
            count += 1
        groups[i] = leader
    state[0], state[1], state[2] = packed.size, count, last


@kernel()
def _kernels_of(packed, i, start, stop, factor, out, row):  # type: ignore[no-untyped-def]
    """Fill row with the kernels of distribution i to those from start to stop."""
    own = packed.tiles[i // TILE]
    half = packed.halves[i // TILE, i % TILE]
    for t in range(start // TILE, (stop - 1) // TILE + 1):
        tile_kernels(own, i % TILE, half, packed.tiles[t], packed.halves[t], factor, out)
        for j in range(max(start, t * TILE), min(stop, (t + 1) * TILE)):
            row[j - start] = out[j - t * TILE]


@kernel()
def _reduce(  # type: ignore[no-untyped-def]
    packed, starts, factor, limit, most, factors, offsets, pivots, firsts, residuals
):
    """Choose the landmarks of all cells; return (how many or -1 if above most, factors)."""
    out = np.empty(TILE, np.float32)
    used = 0
    count = 0
    for g in range(starts.shape[0] - 1):
        start = starts[g]
        size = starts[g + 1] - start
        firsts[g] = count
        offsets[g] = used
        residuals[start : start + size] = 1.0
        chosen = 0
        while True:
            best = np.argmax(residuals[start : start + size])
            left = residuals[start + best]
            if chosen > 0 and left <= limit:
                break
            if count == most or used + size > _MOST_FACTORS * packed.size:
                return -1, factors
            if used + size > factors.shape[0]:
                larger = np.empty(2 * (used + size), np.float32)
                larger[:used] = factors[:used]
                factors = larger
            row = factors[used : used + size]
            _kernels_of(packed, start + best, start, start + size, factor, out, row)
            for q in range(chosen):
                before = factors[offsets[g] + q * size : offsets[g] + (q + 1) * size]
                share = before[best]
                for j in range(size):
                    row[j] -= share * before[j]
            scale = _f4(1.0 / np.sqrt(left))
            for j in range(size):
                row[j] *= scale
                explained = np.float64(row[j])
                residuals[start + j] = max(residuals[start + j] - explained * explained, 0.0)
            residuals[start + best] = 0.0
            pivots[count] = start + best
            count += 1
            chosen += 1
            used += size
    firsts[starts.shape[0] - 1] = count
    offsets[starts.shape[0] - 1] = used
    return count, factors


@kernel()
def _collect(starts, pivots, firsts, factors, offsets, weights, out):  # type: ignore[no-untyped-def]
    """Fill out (m,) with W^T weights."""
    for g in range(starts.shape[0] - 1):
        start = starts[g]
        size = starts[g + 1] - start
        first = firsts[g]
        count = firsts[g + 1] - first
        for q in range(count):
            row = factors[offsets[g] + q * size : offsets[g] + (q + 1) * size]
            total = 0.0
            for j in range(size):
                total += np.float64(row[j]) * weights[start + j]
            out[first + q] = total
        for q in range(count - 1, -1, -1):  # back through the triangle of the landmarks' own rows
            row = factors[offsets[g] + q * size : offsets[g] + (q + 1) * size]
            total = out[first + q]
            for other in range(q + 1, count):
                total -= np.float64(row[pivots[first + other] - start]) * out[first + other]
            out[first + q] = total / np.float64(row[pivots[first + q] - start])


@kernel()
def _spread(starts, pivots, firsts, factors, offsets, sums, out):  # type: ignore[no-untyped-def]
    """Fill out (n,), in the order of cells, with W sums; ``sums`` (m,) is used up."""
    for g in range(starts.shape[0] - 1):
        start = starts[g]
        size = starts[g + 1] - start
        first = firsts[g]
        out[start : start + size] = 0.0
        for q in range(firsts[g + 1] - first):
            row = factors[offsets[g] + q * size : offsets[g] + (q + 1) * size]
            value = sums[first + q] / np.float64(row[pivots[first + q] - start])
            for other in range(first + q + 1, firsts[g + 1]):
                sums[other] -= np.float64(row[pivots[other] - start]) * value
            for j in range(size):
                out[start + j] += np.float64(row[j]) * value


# ----------------------------------------------------------------------------------------------
# The doors


def cells(packed: Packed, scale: float, radius: float, most: int) -> Rows | None:
    """Return the cell (n,) of each distribution, numbered from 0; None if they are above ``most``.

    Args:
        packed: n distributions.
        scale: 1 / (2 h^2) for the bandwidth h.
        radius: in bandwidths; each member is so near to the leader of its cell, or nearer.
        most: cells that are too many.
    """
    groups = np.empty(packed.size, np.int64)
    state = np.zeros(3, np.int64)
    bins = packed.tiles.shape[1]
    leaders = empty_packed(0, bins)
    tiles, halves = leaders.tiles, leaders.halves
    threshold = _f4(np.exp(-0.5 * radius * radius))
    while state[0] < packed.size:
        if state[1] > most:
            return None
        count = max(1, 2 * len(tiles))
        larger, larger_halves = empty_aligned((count, bins, TILE)), empty_aligned((count, TILE))
        larger_halves[:] = -1e6  # nothing is near to what is not there
        larger[: len(tiles)], larger_halves[: len(tiles)] = tiles, halves
        tiles, halves = larger, larger_halves
        _cover(packed, binary(scale), threshold, state, tiles, halves, groups)
    return None if state[1] > most else groups


def skeleton(
    packed: Packed, scale: float, groups: Rows, limit: float, most: int
) -> Skeleton | None:
    """Return landmarks of cells; None if more than ``most`` are needed, or too many a cell.

    Args:
        packed: n distributions.
        scale: 1 / (2 h^2) for the bandwidth h.
        groups: (n,) the cell of each, numbered from 0.
        limit: the largest residual, in (0, 1).
        most: landmarks that are too many.
    """
    order, starts = by_cell(groups)
    ordered = empty_packed(0, packed.tiles.shape[1])._replace(
        tiles=empty_aligned(packed.tiles.shape),
        halves=empty_aligned(packed.halves.shape),
        size=packed.size,
    )
    move_columns(packed.tiles, packed.halves, order, ordered.tiles, ordered.halves)
    count = len(starts) - 1
    offsets, firsts = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    pivots, residuals = np.empty(min(most, packed.size), np.int64), np.empty(packed.size)
    found, factors = _reduce(
        ordered,
        starts,
        binary(scale),
        limit,
        len(pivots),
        np.empty(16 * packed.size, np.float32),
        offsets,
        pivots,
        firsts,
        residuals,
    )
    if found < 0:
        return None
    used = factors[: offsets[-1]].copy()
    return Skeleton(order, starts, pivots[:found].copy(), firsts, used, offsets, residuals)


def by_cell(groups: Rows) -> tuple[Rows, Rows]:
    """Return (n,) numbers in the order of their cells, and where in it each cell begins."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(groups))])
    return np.argsort(groups, kind="stable"), starts.astype(np.int64)


def collect(skeleton: Skeleton, weights: Floats) -> Floats:
    """Return (m,) weights of the landmarks that stand for weights (n,) of all distributions."""
    out = np.empty(len(skeleton.pivots))
    _collect(*_loops(skeleton), weights[skeleton.order], out)
    return out


def spread(skeleton: Skeleton, sums: Floats) -> Floats:
    """Return (n,) what values at the landmarks (m,) are at all distributions."""
    ordered = np.empty(len(skeleton.order))
    _spread(*_loops(skeleton), sums.copy(), ordered)
    out = np.empty(len(ordered))
    out[skeleton.order] = ordered
    return out


def _loops(cells: Skeleton) -> tuple[Any, ...]:
    return (cells.starts, cells.pivots, cells.firsts, cells.factors, cells.offsets)
