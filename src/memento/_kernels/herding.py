r"""Picking points whose running mean follows a given mean.

With ``w = k mu - (x_1 + ... + x_{k-1})``, the k-th point to pick minimises ``||w - x||^2``, so it
has the largest ``2 w . x - ||x||^2`` of those not picked yet.

Points lie in blocks of `BLOCK`, each block coordinate by coordinate, so that the scores of a block
stay in the nearest cache while the coordinates are added up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel

#: Points in a block.
BLOCK = 512


@kernel()
def _herd(blocks, halves, n, mean, out):  # type: ignore[no-untyped-def]
    """Fill out with the picks; halves hold ||x||^2 / 2, infinity where there is no point."""
    count, width, _ = blocks.shape
    wanted = mean.copy()
    w = np.empty(width, np.float32)
    scores = np.empty(BLOCK, np.float32)
    for k in range(out.shape[0]):
        for d in range(width):
            w[d] = wanted[d]
        best = -np.inf
        chosen = -1
        for b in range(count):
            half = halves[b]
            for i in range(BLOCK):
                scores[i] = -half[i]
            for d in range(width):
                x = blocks[b, d]
                wd = w[d]
                for i in range(BLOCK):
                    scores[i] += wd * x[i]
            largest = scores[0]
            for i in range(BLOCK):
                s = scores[i]
                largest = s if s > largest else largest
            if largest > best:
                i = 0
                while scores[i] != largest:
                    i += 1
                best = largest
                chosen = b * BLOCK + i
        out[k] = chosen
        b = chosen // BLOCK
        i = chosen % BLOCK
        halves[b, i] = np.inf
        for d in range(width):
            wanted[d] += mean[d] - np.float64(blocks[b, d, i])


def herd(
    points: npt.NDArray[np.float32], weights: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.int64]:
    """Pick points one by one, so that their mean follows the weighted mean of all.

    Args:
        points: (n, d) float32, sizes of order 1 at most.
        weights: (n,) what each counts in the mean, above 0.
        count: How many to pick, at most n.

    Returns:
        (count,) row numbers in the order in which they are picked; of equals the first.
    """
    n, width = points.shape
    blocks = in_blocks(points)
    halves = np.full(blocks.shape[::2], np.inf, np.float32)
    halves.reshape(-1)[:n] = 0.5 * np.einsum("ij,ij->i", points, points)
    mean = np.zeros(width)
    for start in range(0, n, 1 << 16):
        stop = start + (1 << 16)
        mean += weights[start:stop] @ points[start:stop].astype(np.float64)
    out = np.empty(count, np.int64)
    _herd(blocks, halves, n, mean / weights.sum(), out)
    return out


def in_blocks(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(blocks, d, `BLOCK`) float32 of (n, d) points, zeros where there are none."""
    n, width = points.shape
    blocks = np.zeros((-(-n // BLOCK), width, BLOCK), np.float32)
    for b in range(len(blocks)):
        part = points[b * BLOCK : (b + 1) * BLOCK]
        blocks[b, :, : len(part)] = part.T
    return blocks
