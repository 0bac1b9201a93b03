r"""Replacing samples one after the other, with scores that change at every step.

Held sample ``i`` has loss ``l_i`` and label ``c(i)``; ``n_c`` samples of label ``c`` are held. The
score is

    s_i = n_c(i) - a l_i,    a = sum_j n_c(j) / sum_j |l_j|,

and the victim is drawn with probability ``s_i - min_j s_j``, normalised (any if all scores are
equal). Factors common to all scores do not matter.

**Places.** All samples that are ever held get a place, sorted by label, then by loss, the largest
first. A label is a range of places, whose first and last filled place bound its scores. With the
number of filled places and the sum of their losses known for any beginning of a range (two Fenwick
trees), the total probability of a label is one expression, and a victim within it is found by
descending its tree: ``sum over filled places of (n_c - m) - a l``, with ``m`` the smallest score,
grows from place to place. So a step costs O(labels + log(samples)).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

# Scores that differ by less, relative to their size, are equal but for rounding.
_EQUAL = 1e-12


@njit(cache=True, nogil=True)
def _add(counts, sums, start, stop, place, count, loss):  # type: ignore[no-untyped-def]
    """Fill (count 1) or empty (count -1, negative loss) a place of the label in start:stop."""
    i = place - start + 1
    while i <= stop - start:
        counts[start + i - 1] += count
        sums[start + i - 1] += loss
        i += i & -i


@njit(cache=True, nogil=True)
def _place_of_rank(counts, start, stop, rank):  # type: ignore[no-untyped-def]
    """Return the rank-th filled place of start:stop, counted from 1."""
    size = stop - start
    step = 1
    while step * 2 <= size:
        step *= 2
    before = 0
    while step > 0:
        if before + step <= size and counts[start + before + step - 1] < rank:
            before += step
            rank -= counts[start + before - 1]
        step //= 2
    return start + before


@njit(cache=True, nogil=True)
def _rank_of_share(counts, sums, start, stop, offset, slope, share):  # type: ignore[no-untyped-def]
    """Return the filled place, from 1, at which ``offset - slope * loss`` adds up to the share."""
    size = stop - start
    step = 1
    while step * 2 <= size:
        step *= 2
    before = 0
    rank = 0
    while step > 0:
        if before + step <= size:
            count = counts[start + before + step - 1]
            weight = offset * count - slope * sums[start + before + step - 1]
            if weight <= share:
                before += step
                rank += count
                share -= weight
        step //= 2
    return rank + 1


@njit(cache=True, nogil=True)
def _bound(losses, counts, starts, held, largest, smallest, c):  # type: ignore[no-untyped-def]
    """Find the largest and the smallest loss that are held of a label."""
    if held[c] > 0:
        largest[c] = losses[_place_of_rank(counts, starts[c], starts[c + 1], 1)]
        smallest[c] = losses[_place_of_rank(counts, starts[c], starts[c + 1], held[c])]


@njit(cache=True, nogil=True)
def _replace(losses, starts, filled, entering, drawn):  # type: ignore[no-untyped-def]
    labels = starts.shape[0] - 1
    counts = np.zeros(losses.shape[0], np.int64)
    sums = np.zeros(losses.shape[0], np.float64)
    held = np.zeros(labels, np.int64)
    loss = np.zeros(labels, np.float64)
    size = np.zeros(labels, np.float64)  # of the losses: sum of their absolute values
    largest = np.zeros(labels, np.float64)
    smallest = np.zeros(labels, np.float64)
    weights = np.empty(labels, np.float64)
    label_of = np.empty(losses.shape[0], np.int64)
    for c in range(labels):
        for p in range(starts[c], starts[c + 1]):
            label_of[p] = c
            if filled[p]:
                _add(counts, sums, starts[c], starts[c + 1], p, 1, losses[p])
                held[c] += 1
                loss[c] += losses[p]
                size[c] += abs(losses[p])
        _bound(losses, counts, starts, held, largest, smallest, c)
    for e in range(entering.shape[0]):
        squares = 0.0
        sizes = 0.0
        for c in range(labels):
            squares += float(held[c]) * held[c]
            sizes += size[c]
        a = squares / sizes if sizes > 0.0 else 0.0
        lowest = np.inf
        highest = -np.inf
        for c in range(labels):
            if held[c] > 0:
                lowest = min(lowest, held[c] - a * largest[c])
                highest = max(highest, held[c] - a * smallest[c])
        equal = highest - lowest <= _EQUAL * max(abs(highest), abs(lowest))
        weight = 0.0
        for c in range(labels):
            if held[c] == 0:
                weights[c] = 0.0
            elif equal:
                weights[c] = held[c]
            else:
                weights[c] = max(0.0, held[c] * (held[c] - lowest) - a * loss[c])
            weight += weights[c]
        share = drawn[e] * weight
        chosen = -1
        for c in range(labels):
            if weights[c] > 0.0:
                chosen = c
                if share < weights[c]:
                    break
                share -= weights[c]
        start = starts[chosen]
        stop = starts[chosen + 1]
        if equal:
            rank = int(share) + 1
        else:
            rank = _rank_of_share(counts, sums, start, stop, held[chosen] - lowest, a, share)
        # rounding can lead past the last one
        victim = _place_of_rank(counts, start, stop, min(rank, held[chosen]))
        filled[victim] = False
        _add(counts, sums, start, stop, victim, -1, -losses[victim])
        held[chosen] -= 1
        loss[chosen] -= losses[victim]
        size[chosen] = size[chosen] - abs(losses[victim]) if held[chosen] > 0 else 0.0
        _bound(losses, counts, starts, held, largest, smallest, chosen)
        p = entering[e]
        c = label_of[p]
        filled[p] = True
        _add(counts, sums, starts[c], starts[c + 1], p, 1, losses[p])
        held[c] += 1
        loss[c] += losses[p]
        size[c] += abs(losses[p])
        _bound(losses, counts, starts, held, largest, smallest, c)


def replace(
    labels: npt.NDArray[np.int64],
    losses: npt.NDArray[np.float64],
    held: int,
    drawn: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Let samples enter one after the other, each in the place of a victim.

    Args:
        labels: (n,) from 0 up.
        losses: (n,) finite.
        held: The first so many samples are held, the others enter in their order.
        drawn: (n - held,) uniform in [0, 1), one for each that enters.

    Returns:
        (n,) which samples are held in the end.
    """
    # The law depends on ratios of losses only; so scaled, no sum of them can overflow.
    losses = losses / (np.abs(losses).max() or 1.0)
    order = np.lexsort((-losses, labels))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    filled = order < held
    _replace(losses[order], starts, filled, place[held:], drawn)
    return filled[place]
