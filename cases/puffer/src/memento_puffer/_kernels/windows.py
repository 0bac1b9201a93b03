"""Windows over a sequence with gaps: which row lies a fixed step before or after, and what it held.

Rows are sorted by stream and, in it, by time; no two are equal in both. A row is usable if its
values are known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel


@kernel()
def _link(stream, position, usable, step, link):  # type: ignore[no-untyped-def]
    """Fill link; rows of a stream are passed once."""
    n = stream.shape[0]
    j = 0
    if step < 0:
        for i in range(n):
            wanted = position[i] + step
            # Never behind the stream of row i: rows of earlier streams are passed over.
            while stream[j] < stream[i] or position[j] < wanted:
                j += 1
            link[i] = j if position[j] == wanted and usable[j] else -1
    else:
        for i in range(n):
            wanted = position[i] + step
            j = max(j, i)
            while j < n and stream[j] == stream[i] and position[j] < wanted:
                j += 1
            hit = j < n and stream[j] == stream[i] and position[j] == wanted and usable[j]
            link[i] = j if hit else -1


@kernel()
def _fill(values, before, rows, targets, history, now, windows):  # type: ignore[no-untyped-def]
    """Fill windows, newest slot first."""
    width = values.shape[1]
    for i in range(rows.shape[0]):
        r = rows[i]
        source = before[r]
        for slot in range(history - 1, -1, -1):
            start = slot * width
            if source >= 0:
                for c in range(width):
                    windows[i, start + c] = values[source, c]
                newest = source
                source = before[newest]
            elif slot == history - 1:  # nothing past: the state now, nothing sent
                for c in range(now):
                    windows[i, start + c] = values[r, c]
                for c in range(now, width):
                    windows[i, start + c] = 0
            else:
                for c in range(width):
                    windows[i, start + c] = windows[i, start + width + c]
        for c in range(now):
            windows[i, history * width + c] = values[r, c]
        windows[i, history * width + now] = values[targets[i], now]


def link(
    stream: npt.NDArray[Any], position: npt.NDArray[np.int64], usable: npt.NDArray[np.bool_],
    step: int,
) -> npt.NDArray[np.int32]:  # fmt: skip
    """Find the row of the same stream that lies a step away.

    Args:
        stream: (n,) integers, ascending.
        position: (n,) strictly ascending within a stream.
        usable: (n,) rows that may be found.
        step: What is added to a row's position, not 0.

    Returns:
        (n,) int32: the row, -1 if there is none or it is not usable.
    """
    found = np.empty(len(stream), dtype=np.int32)
    _link(stream, position, usable, step, found)
    return found


def fill(
    values: npt.NDArray[Any], before: npt.NDArray[np.int32], rows: npt.NDArray[Any],
    targets: npt.NDArray[Any], history: int, now: int, windows: npt.NDArray[Any],
) -> None:  # fmt: skip
    """Fill windows: the past rows, oldest first, the values known now, one value of the target.

    A past that ends early repeats its oldest row. Without any past, its slot holds the values known
    now and 0 for the others.

    Args:
        values: (n, width) of which the first ``now`` are known of the row itself.
        before: (n,) the row before each, or -1.
        rows: (m,) rows that get a window.
        targets: (m,) rows of which the value ``now`` comes last.
        history: How many past rows.
        now: How many values are known of the row itself.
        windows: (m, history * width + now + 1), filled.
    """
    _fill(values, before, rows, targets, history, now, windows)
