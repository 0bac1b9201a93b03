r"""Replacing samples one after the other by others whose gradients point elsewhere.

Held sample ``i`` has the score ``c_i``, 1 plus the largest cosine between its gradient and some of
those held when it came. A sample with score c that may enter replaces one drawn with probability
``c_i / sum_j c_j``, with probability ``c_i / (c_i + c)``. Sums of scores over ranges of places lie
in a Fenwick tree, so that a draw costs O(log(places)).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel


@kernel()
def _add(tree, place, value):  # type: ignore[no-untyped-def]
    i = place + 1
    while i <= tree.shape[0]:
        tree[i - 1] += value
        i += i & -i


@kernel()
def _place_of_share(tree, size, share):  # type: ignore[no-untyped-def]
    """Return the place at which the running total of the scores exceeds the share."""
    step = 1
    while step * 2 <= tree.shape[0]:
        step *= 2
    place = 0
    while step > 0:
        if place + step <= tree.shape[0] and tree[place + step - 1] <= share:
            place += step
            share -= tree[place - 1]
        step //= 2
    return min(place, size - 1)  # rounding can lead past the last one


@kernel(fastmath={"reassoc"})
def _cosine(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for d in range(a.shape[0]):
        total += a[d] * b[d]
    return np.float64(total)


@kernel()
def _offer(  # type: ignore[no-untyped-def]
    points, scores, slots, order, tree, size, total, first, drawn, limit
):
    """Offer rows from ``first`` on, one for each row of drawn; return places filled and total."""
    compared = drawn.shape[1] - 2
    for e in range(drawn.shape[0]):
        row = first + e
        likest = -1.0
        asked = min(compared, size)
        for k in range(asked):
            # the next of a random order (Fisher-Yates), so that none is asked twice
            other = k + np.int64(drawn[e, k] * (size - k))
            order[k], order[other] = order[other], order[k]
            likest = max(likest, _cosine(points[row], points[slots[order[k]]]))
        score = min(max(1.0 + likest, 0.0), 2.0) if asked > 0 else 1.0
        if size < slots.shape[0]:
            slots[size] = row
            order[size] = size
            scores[row] = score
            _add(tree, size, score)
            total += score
            size += 1
            continue
        if score >= limit:
            continue
        if total > 0.0:
            victim = _place_of_share(tree, size, drawn[e, compared] * total)
        else:
            victim = np.int64(drawn[e, compared] * size)
        old = scores[slots[victim]]
        share = old / (old + score) if old + score > 0.0 else 0.5
        if drawn[e, compared + 1] < share:
            slots[victim] = row
            scores[row] = score
            _add(tree, victim, score - old)
            total += score - old
    return size, total


class Selection:
    """What is held while samples come.

    Args:
        points: (n, d) float32 gradients of length 1 or 0.
        scores: (n,) scores of those held; the others' are filled in when they come.
        held: The first so many samples are held.
        capacity: Most to hold, at least ``held`` and 1.
    """

    def __init__(
        self,
        points: npt.NDArray[np.float32],
        scores: npt.NDArray[np.float64],
        held: int,
        capacity: int,
    ) -> None:
        self.scores = scores
        self._points = points
        self._slots = np.arange(capacity)
        self._order = np.arange(capacity)
        self._size = held
        places = np.zeros(capacity)
        places[:held] = scores[:held]
        self._total = float(places.sum())
        self._tree = _fenwick(places)

    @property
    def held(self) -> npt.NDArray[np.int64]:
        """Row numbers of what is held, in no order."""
        return self._slots[: self._size]

    def offer(self, first: int, drawn: npt.NDArray[np.float64], limit: float) -> None:
        """Let samples come one after the other.

        Args:
            first: Row number of the first; one comes for each row of ``drawn``.
            drawn: (samples, compared + 2) uniform in [0, 1).
            limit: Score below which a sample may enter a full memory.
        """
        self._size, self._total = _offer(
            self._points,
            self.scores,
            self._slots,
            self._order,
            self._tree,
            self._size,
            self._total,
            first,
            drawn,
            limit,
        )


def _fenwick(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums of the (i & -i) values up to the i-th, counted from 1."""
    ends = np.arange(1, len(values) + 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return sums[ends] - sums[ends - (ends & -ends)]
