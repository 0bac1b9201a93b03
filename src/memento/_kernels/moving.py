"""Moving rows of a column, also within the column itself.

Rows are moved as machine words, whatever they hold. Within a column, row numbers ascend, so row
``rows[i] >= i`` is read no later than place ``i`` is written: going forwards never overwrites what
is still needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel


@kernel()
def _shift(words, rows, moved):  # type: ignore[no-untyped-def]
    width = words.shape[1]
    for i in range(rows.shape[0]):
        r = rows[i]
        if r != i:
            for w in range(width):
                words[i, w] = words[r, w]
    moved[0] = 1


@kernel()
def _move(source, rows, target, start):  # type: ignore[no-untyped-def]
    width = source.shape[1]
    for i in range(rows.shape[0]):
        r = rows[i]
        for w in range(width):
            target[start + i, w] = source[r, w]


@kernel()
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


def shift_rows(
    column: npt.NDArray[Any], rows: npt.NDArray[np.int64], moved: npt.NDArray[np.uint8]
) -> None:
    """``column[i] = column[rows[i]]`` for all i, in place.

    Args:
        column: (n, ...) C-contiguous, of any type without Python objects.
        rows: (m,) ascending.
        moved: (1,) is 1 as soon as it is done; set within the loop, between which and its caller
            an interrupt may come.
    """
    _shift(_words(column), rows, moved)


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
        target: (>= start + m, ...) C-contiguous, of the same type, and another array.
        start: the first place to write to.
    """
    if source[:1].nbytes:
        _move(_words(source), rows, _words(target), start)


def _words(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The bytes of each row, as the widest machine words that divide it."""
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    word = next(w for w in (8, 4, 2, 1) if row_bytes % w == 0)
    flat = array.reshape(-1).view(np.uint8).reshape(len(array), row_bytes)
    return flat.view(f"u{word}")
