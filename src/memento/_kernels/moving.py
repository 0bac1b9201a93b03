"""Moving rows of a column, also within the column itself.

Rows are moved as machine words, whatever they hold. Row numbers ascend, so row ``rows[i] >= i`` is
read no later than place ``i`` is written: going forwards never overwrites what is still needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit


@njit(cache=True, nogil=True)
def _move(source, rows, first, target, start):  # type: ignore[no-untyped-def]
    width = source.shape[1]
    for i in range(first, rows.shape[0]):
        r = rows[i]
        for w in range(width):
            target[start + i, w] = source[r, w]


@njit(cache=True, nogil=True)
def _gather(first, second, rows, target):  # type: ignore[no-untyped-def]
    held = first.shape[0]
    width = target.shape[1]
    for i in range(rows.shape[0]):
        r = rows[i]
        if r < held:
            for w in range(width):
                target[i, w] = first[r, w]
        else:
            for w in range(width):
                target[i, w] = second[r - held, w]


def gather_rows(
    first: npt.NDArray[Any],
    second: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    target: npt.NDArray[Any],
) -> None:
    """``target[i]`` = row ``rows[i]`` of both, numbered through.

    Args:
        first: (n, ...) C-contiguous.
        second: (m, ...) C-contiguous, of the same type.
        rows: (k,) from 0 to n + m - 1.
        target: (k, ...) C-contiguous, of the same type.
    """
    if len(rows) and target[:1].nbytes:
        _gather(_words(first), _words(second), rows, _words(target))


def move_rows(
    source: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    target: npt.NDArray[Any],
    start: int,
) -> None:
    """``target[start + i] = source[rows[i]]`` for all i.

    Args:
        source: (n, ...) C-contiguous, of any type without Python objects.
        rows: (m,) ascending.
        target: (>= start + m, ...) C-contiguous, of the same type; with start 0 it may
            be the source.
        start: the first place to write to.
    """
    first = 0
    if source is target:  # what is in its place already stays there
        away = np.flatnonzero(rows != np.arange(len(rows)))
        first = int(away[0]) if len(away) else len(rows)
    if first < len(rows) and source[:1].nbytes:
        _move(_words(source), rows, first, _words(target), start)


def _words(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The bytes of each row, as the widest machine words that divide it."""
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    word = next(w for w in (8, 4, 2, 1) if row_bytes % w == 0)
    flat = array.reshape(-1).view(np.uint8).reshape(len(array), row_bytes)
    return flat.view(f"u{word}")
