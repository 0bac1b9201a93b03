r"""Replacing samples one after the other, so that labels become balanced.

``m_c`` samples of label ``c`` are held and ``n_c`` came. A label is full once it is among those
with the largest ``m_c``. A sample whose label is not full takes the place of any of the most
frequent labels; one whose label is full enters with probability ``m_c / n_c`` (``n_c`` counting
itself), in the place of any of its own label.

What is held of a label is a list without order, so a step costs O(1), and O(labels) where counts
change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel


@kernel()
def _mark_largest(counts, full):  # type: ignore[no-untyped-def]
    """Mark the labels with the largest count as full; return that count."""
    largest = 0
    for c in range(counts.shape[0]):
        largest = max(largest, counts[c])
    for c in range(counts.shape[0]):
        if counts[c] == largest:
            full[c] = True
    return largest


@kernel()
def _balance(codes, starts, size, seen, full, drawn, kept):  # type: ignore[no-untyped-def]
    """Let samples enter one after the other; see `balance`, which makes the arrays."""
    labels = starts.shape[0] - 1
    counts = np.zeros(labels, np.int64)
    members = np.empty(codes.shape[0], np.int64)
    for row in range(size):
        c = codes[row]
        members[starts[c] + counts[c]] = row
        counts[c] += 1
        kept[row] = True
    largest = _mark_largest(counts, full)
    for e in range(drawn.shape[0]):
        row = size + e
        c = codes[row]
        seen[c] += 1
        if full[c]:
            if drawn[e, 0] * seen[c] < counts[c]:
                place = starts[c] + np.int64(drawn[e, 1] * counts[c])
                kept[members[place]] = False
                kept[row] = True
                members[place] = row
            continue
        tied = 0
        for v in range(labels):
            if counts[v] == largest:
                tied += 1
        rank = np.int64(drawn[e, 1] * (tied * largest))
        victim = 0
        for v in range(labels):
            if counts[v] == largest:
                if rank < largest:
                    victim = v
                    break
                rank -= largest
        place = starts[victim] + rank
        kept[members[place]] = False
        members[place] = members[starts[victim] + counts[victim] - 1]
        counts[victim] -= 1
        kept[row] = True
        members[starts[c] + counts[c]] = row
        counts[c] += 1
        largest = _mark_largest(counts, full)


def balance(
    codes: npt.NDArray[np.int64],
    size: int,
    seen: npt.NDArray[np.int64],
    full: npt.NDArray[np.bool_],
    drawn: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Let samples come one after the other to a memory that is full.

    Args:
        codes: (n,) labels from 0 up.
        size: The first so many samples are held, at least 1; the others come in their order.
        seen: (labels,) how many came before those; brought up to date in place.
        full: (labels,) which labels are full; likewise.
        drawn: (n - size, 2) uniform in [0, 1).

    Returns:
        (n,) which samples are held in the end.
    """
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(seen)))])
    kept = np.zeros(len(codes), bool)
    _balance(codes, starts, size, seen, full, drawn, kept)
    return kept
