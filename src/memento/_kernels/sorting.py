r"""Order of rows by several keys, and the keys themselves.

**The order.** ``order`` sorts row numbers lexicographically by unsigned integer keys. One 64-bit
number per row holds, from the top: as many leading bits of the keys as fit, and the row's number in
the lowest bits. Sorting these numbers sorts the rows, stably (equal keys are ordered by the row
number), and it is numpy's vectorised sort of plain integers, without an indirection. A key counts
only the bits between its smallest and its largest value, so a label takes 5 bits, the position of
the mode 5, and 33 of 64 bits are left for the leading part of a value with 2 million rows (21
bits). Rows whose packed bits are equal are few; they are taken out and ordered in the same way by
the number of their run and the bits that did not fit, until nothing is tied or no bit is left.

**Keys.** ``ascending`` and ``descending`` map numbers to unsigned integers of the same order. For
floats: flip all bits of negative numbers and the sign bit of the others. NaN comes last in both
directions, -0.0 equals 0.0.

**Rows of a matrix** are ordered by the position of their largest entry and by its value.
``mode_and_value`` finds both for blocks of 64 rows, turned so that vectors run across rows, and
looks at what makes rows probabilities on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from memento._kernels import kernel
from memento._kernels.plain import Key, LazyKey, Modes, Rows, unsigned_keys

# ----------------------------------------------------------------------------------------------
# Keys


@kernel()
def _float_keys(bits, sign, infinity, descending, keys):  # type: ignore[no-untyped-def]
    """Fill keys from the bits of floats, all of one unsigned type."""
    for i in range(bits.shape[0]):
        b = bits[i]
        magnitude = b & ~sign
        if magnitude > infinity:  # NaN
            keys[i] = ~(sign ^ sign)
        else:
            # -0.0 counts as 0.0: only a magnitude makes a number negative
            key = ~b if (b & sign) and magnitude else magnitude | sign
            keys[i] = ~key if descending else key


def ascending(values: npt.NDArray[Any]) -> Key:
    """Return unsigned integers, as wide as the values, whose order is the values' ascending order.

    Args:
        values: (n,) of float16, float32, float64, a signed or unsigned integer, bool, datetime64 or
            timedelta64 (their "not a time" comes first).
    """
    return unsigned_keys(values, False, _float_keys)


def descending(values: npt.NDArray[Any]) -> Key:
    """Return unsigned integers whose order is the values' descending order; NaN is last too."""
    return unsigned_keys(values, True, _float_keys)


# ----------------------------------------------------------------------------------------------
# Largest entries

_BLOCK = 8 if numba.config.DISABLE_JIT else 64  # type: ignore[attr-defined]


@kernel()
def _modes(rows, block, position, value):  # type: ignore[no-untyped-def]
    """Fill position and value, return the rest of ``Modes``; block (k, 64) holds rows, turned."""
    n, k = rows.shape
    # one array each, not rows of one: the compiler must see that they do not overlap
    best = np.zeros(_BLOCK, block.dtype)
    size = np.zeros(_BLOCK, block.dtype)
    at = np.zeros(_BLOCK, block.dtype)  # exact below 2^24
    least = np.zeros(_BLOCK, block.dtype)
    total = np.zeros(_BLOCK, block.dtype)
    minimum = np.inf
    minimum_row = 0
    deviation = -1.0
    deviation_row = 0
    nonfinite_row = -1
    for start in range(0, n, _BLOCK):
        filled = min(_BLOCK, n - start)
        for r in range(filled):
            for b in range(k):
                block[b, r] = rows[start + r, b]
        for r in range(_BLOCK):
            x = block[0, r]
            best[r] = x
            size[r] = abs(x)
            at[r] = 0
            least[r] = x
            total[r] = x
        for b in range(1, k):
            for r in range(_BLOCK):
                x = block[b, r]
                before = size[r]
                larger = abs(x) > before
                best[r] = x if larger else best[r]
                size[r] = abs(x) if larger else before
                at[r] = b if larger else at[r]
                lowest = least[r]
                least[r] = x if x < lowest else lowest
                total[r] += x
        for r in range(filled):
            position[start + r] = np.int64(at[r])
            value[start + r] = best[r]
        for r in range(filled):
            if least[r] < minimum:
                minimum = np.float64(least[r])
                minimum_row = start + r
            off = abs(np.float64(total[r]) - 1.0)
            if off > deviation and off < np.inf:
                deviation = off
                deviation_row = start + r
            if not off < np.inf and nonfinite_row < 0:
                # a sum may also overflow: look at the entries
                for b in range(k):
                    if not np.isfinite(rows[start + r, b]):
                        nonfinite_row = start + r
    return minimum, minimum_row, deviation, deviation_row, nonfinite_row


def mode_and_value(rows: npt.NDArray[Any]) -> Modes:
    """Return position and value of each row's largest entry, in absolute value, and some checks.

    Args:
        rows: (n, k) with n, k >= 1, of floats (their type is kept) or integers (taken as float64).
    """
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float32 if rows.dtype.itemsize <= 2 else np.float64)
    n, k = rows.shape
    position = np.empty(n, np.min_scalar_type(k - 1))
    value = np.empty(n, rows.dtype)
    block = np.zeros((k, _BLOCK), rows.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # uncompiled sums would report
        return Modes(position, value, *_modes(rows, block, position, value))


# ----------------------------------------------------------------------------------------------
# Order


@kernel()
def _bounds(keys, base, mask):  # type: ignore[no-untyped-def]
    """Return the smallest and the largest of (keys - base) & mask, modulo 2^64."""
    smallest = (np.uint64(keys[0]) - base) & mask
    largest = smallest
    for i in range(keys.shape[0]):
        rest = (np.uint64(keys[i]) - base) & mask
        smallest = min(smallest, rest)
        largest = max(largest, rest)
    return smallest, largest


@kernel()
def _append_bits(packed, shift, keys, base, mask, low, drop):  # type: ignore[no-untyped-def]
    """Shift packed up and append the leading bits of (keys - base) & mask, counted from low."""
    for i in range(packed.shape[0]):
        rest = (np.uint64(keys[i]) - base) & mask
        packed[i] = (packed[i] << shift) | ((rest - low) >> drop)


@kernel()
def _append_rows(packed, shift):  # type: ignore[no-untyped-def]
    for i in range(packed.shape[0]):
        packed[i] = (packed[i] << shift) | np.uint64(i)


@kernel()
def _count_tied(packed, shift):  # type: ignore[no-untyped-def]
    """Return how many entries of sorted packed share all bits above the shift with a neighbour."""
    count = 0
    n = packed.shape[0]
    tied_before = False
    for i in range(n):
        tied_after = i + 1 < n and packed[i] >> shift == packed[i + 1] >> shift
        count += tied_before or tied_after
        tied_before = tied_after
    return count


@kernel()
def _list_tied(packed, shift, places, runs):  # type: ignore[no-untyped-def]
    """Fill the places of tied entries and the numbers of their runs of equal leading bits."""
    count = 0
    n = packed.shape[0]
    tied_before = False
    run = -1
    for i in range(n):
        tied_after = i + 1 < n and packed[i] >> shift == packed[i + 1] >> shift
        if tied_after and not tied_before:
            run += 1
        if tied_before or tied_after:
            places[count] = i
            runs[count] = run
            count += 1
        tied_before = tied_after


@kernel()
def _keep_low(packed, mask):  # type: ignore[no-untyped-def]
    for i in range(packed.shape[0]):
        packed[i] &= mask


class _Rest(NamedTuple):
    """What is left to compare of a key: (key - base) & mask, modulo 2^64."""

    key: Key | LazyKey
    base: int = 0
    mask: int = (1 << 64) - 1


def order(keys: Sequence[Key | LazyKey], n: int) -> Rows:
    """Return the rows 0 ... n - 1 in lexicographic order of the keys, most important first.

    Stable: rows equal in all keys stay in ascending order. Takes 8 bytes per row and about 50 per
    tied row.

    Args:
        keys: each an array (n,) of unsigned integers of any width, or a function that is given the
            numbers (m,) of the rows that all keys before it left tied and returns their keys (m,).
            A function may be asked again about a part of these rows.
        n: the number of rows, below 2^32.
    """
    with np.errstate(over="ignore"):  # numbers wrap around, which uncompiled code would report
        return _order([_Rest(key) for key in keys], n, None, None)


def _order(keys: list[_Rest], n: int, rows: Rows | None, runs: Key | None) -> Rows:
    """Return positions 0 ... n - 1 by run, then by the keys of rows[position] (None: all rows)."""
    if n == 0:
        return np.empty(0, np.int64)
    row_bits = (n - 1).bit_length()
    free = 64 - row_bits
    packed = np.zeros(n, np.uint64)
    if runs is not None:
        free = _take(packed, runs, _Rest(runs), free)[0]
    rest = list(keys)
    while rest and free:
        key = rest[0].key
        if callable(key):
            if rows is None and len(rest) < len(keys):
                break  # wait for what turns out to be tied
            column = key(np.arange(n) if rows is None else rows)
        else:
            column = key if rows is None else key[rows]
        free, left = _take(packed, column, rest.pop(0), free)
        if left is not None:
            rest.insert(0, left)
    _append_rows(packed, np.uint64(row_bits))
    packed.sort()
    tied = int(_count_tied(packed, np.uint64(row_bits))) if rest else 0
    places, next_runs = np.empty(tied, np.int64), np.empty(tied, np.uint32)
    if tied:
        _list_tied(packed, np.uint64(row_bits), places, next_runs)
    _keep_low(packed, np.uint64((1 << row_bits) - 1))
    result = packed.view(np.int64)
    if tied:
        members = result[places]
        inner = members if rows is None else rows[members]
        result[places] = members[_order(rest, tied, inner, next_runs)]
    return result


def _take(packed: Key, column: Key, rest: _Rest, free: int) -> tuple[int, _Rest | None]:
    """Append up to ``free`` leading bits; return how many stay free and what did not fit.

    With equal leading bits, the order of the numbers is the order of their remaining bits.
    """
    base, mask = np.uint64(rest.base), np.uint64(rest.mask)
    low, high = (int(bound) for bound in _bounds(column, base, mask))
    bits = (high - low).bit_length()
    taken = min(bits, free)
    drop = bits - taken
    if taken:
        _append_bits(packed, np.uint64(taken), column, base, mask, np.uint64(low), np.uint64(drop))
    left = _Rest(rest.key, (rest.base + low) % (1 << 64), (1 << drop) - 1) if drop else None
    return free - taken, left
