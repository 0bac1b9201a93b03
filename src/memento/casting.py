"""Casting without loss: types that hold the values of several arrays.

Values decide, never types alone: an array is cast where every value stays what it is, and refused
where one would change. numpy's own rules call casts safe that change values (int64 to float64, days
to nanoseconds, numbers to text).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memento.errors import ColumnTypeError

__all__ = ["check_width", "common_type", "exactly", "type_for", "with_marks"]

# Texts of one column take the room of its longest. Beyond so many bytes, and so many times what
# they hold, this is refused.
_PADDED, _PADDING = 1 << 30, 16


def exactly(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray | None:
    """An array as another type, or None if that would change a value.

    Booleans are the numbers 0 and 1; -0.0 is no integer; NaN and NaT stay what they are.

    Example:
        >>> exactly(np.array([1.0, 2.0]), np.dtype(np.int8))
        array([1, 2], dtype=int8)
        >>> exactly(np.array([2**53 + 1]), np.dtype(float)) is None
        True
    """
    given, wanted = array.dtype, dtype
    if given == wanted:
        return array
    if given.kind in "biufc" and wanted.kind in "biufc":
        return _number(array, wanted)
    if given.kind != wanted.kind:
        return None
    if given.kind in "Mm":
        return _time(array, wanted)
    if given.kind in "US":
        cast = array.astype(wanted)
        return cast if wanted.itemsize >= given.itemsize or (cast == array).all() else None
    return array.astype(wanted) if np.can_cast(given, wanted, "equiv") else None


def common_type(name: str, arrays: Sequence[np.ndarray]) -> np.dtype[Any]:
    """A type that holds every value of all arrays, in native byte order.

    It is numpy's common type where that changes nothing. Integers stay integers.

    Args:
        name: The column's, for messages.
        arrays: At least one part of the column.

    Raises:
        ColumnTypeError: There is none.

    Example:
        >>> parts = [np.array([1, 2]), np.array([2**63], np.uint64)]
        >>> common_type("id", parts)
        dtype('uint64')
    """
    types = list(dict.fromkeys(array.dtype.newbyteorder("=") for array in arrays))
    if len(types) == 1:
        return types[0]
    candidates = [_promoted(types), *types]
    if all(dtype.kind in "biu" for dtype in types):
        candidates[1:] = [np.dtype(np.int64), np.dtype(np.uint64)]
    for candidate in candidates:
        if candidate is not None and _holds(candidate, arrays):
            return candidate
    raise ColumnTypeError(
        name,
        f"column {name!r} is {_listed(types)}, and no type keeps all values{_hint(arrays)}",
        "give all parts one type",
    )


def type_for(name: str, held: np.ndarray, offered: np.ndarray) -> np.dtype[Any]:
    """The type in which a column goes on: the one held, or a wider one that changes nothing.

    Args:
        name: The column's, for messages.
        held: ``(m, ...)`` the column of the samples held.
        offered: ``(n, ...)`` the column of the samples that come.

    Raises:
        ColumnTypeError: No type holds the values of both.

    Example:
        >>> type_for("x", np.array([10]), np.array([10.5])), type_for("x", np.array([10]), [True])
        (dtype('float64'), dtype('int64'))
    """
    offered = np.asarray(offered)
    if offered.dtype == held.dtype:
        return held.dtype
    grows = held.dtype.kind in "US" and offered.dtype.itemsize > held.dtype.itemsize
    if not grows and exactly(offered, held.dtype) is not None:
        return held.dtype
    try:
        dtype = common_type(name, [held, offered])
    except ColumnTypeError:
        raise ColumnTypeError(
            name,
            f"column {name!r} is of type {offered.dtype}, this memory holds {held.dtype}, and no "
            f"type keeps all values of both{_hint([held, offered])}",
            f"offer {held.dtype}, or begin a new memory with text or another type that keeps both",
        ) from None
    if dtype.kind in "US":
        width = dtype.itemsize // (4 if dtype.kind == "U" else 1)
        check_width(name, width, held.size + offered.size, held.nbytes + offered.nbytes)
    return dtype


def with_marks(name: str, known: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """A column with marks in the places of what is missing.

    NaN among numbers, of which whole ones become float64; NaT among times; the empty text.

    Args:
        name: The column's, for messages.
        known: The values that are not missing, in order.
        missing: ``(n, ...)`` bool, with one False for each of them.

    Raises:
        ColumnTypeError: The type has no mark, or whole numbers would change.

    Example:
        >>> with_marks("y", np.array([3, 4]), np.array([False, True, False]))
        array([ 3., nan,  4.])
    """
    dtype: np.dtype[Any] = known.dtype if known.size else np.dtype(float)
    if dtype.kind in "biu":
        dtype = np.dtype(float)
    cast = exactly(known, dtype) if dtype.kind != "V" and known.ndim == 1 else None
    if cast is None and known.size:
        raise ColumnTypeError(
            name,
            f"column {name!r} of type {known.dtype} has {missing.sum():,} missing values of "
            f"{missing.size:,}, and no mark for them that keeps the others{_hint([known])}",
            "fill or drop them first",
        )
    column = np.zeros(missing.shape, dtype)  # of texts: empty ones
    if dtype.kind in "fcmM":
        column[missing] = np.nan if dtype.kind in "fc" else np.array("NaT", dtype)
    if cast is not None and known.size:
        column[~missing] = cast
    return column


def check_width(name: str, width: int, count: int, content: int) -> None:
    """Refuse texts that would take many times the room of their content.

    Args:
        name: The column's, for messages.
        width: Characters of the longest, which is the room that each takes.
        count: How many there are.
        content: Bytes of all of them as they are now.

    Raises:
        ColumnTypeError: They would.
    """
    padded = width * count * 4
    if padded > max(_PADDED, _PADDING * content):
        raise ColumnTypeError(
            name,
            f"column {name!r} has texts of up to {width:,} characters; as each takes the room of "
            f"the longest, {count:,} of them would take {padded / 1e9:,.1f} GB",
            "shorten the longest, or leave the column out",
        )


def _holds(dtype: np.dtype[Any], arrays: Sequence[np.ndarray]) -> bool:
    return all(_always(array.dtype, dtype) or exactly(array, dtype) is not None for array in arrays)


def _always(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether no value of one type can change on the way to the other."""
    if given.kind in "iu" and wanted.kind in "fc":
        return int(np.iinfo(given).max) <= _limits(wanted)[1]
    return (
        given.kind not in "MmV" and _group(given) == _group(wanted) and np.can_cast(given, wanted)
    )


def _group(dtype: np.dtype[Any]) -> str:
    """Types whose values may be the same."""
    return "n" if dtype.kind in "biufc" else dtype.kind


def _promoted(types: Sequence[np.dtype[Any]]) -> np.dtype[Any] | None:
    """The common type of numpy, unless it is one of another kind: no text of numbers.

    Integers do not become floats. A unit of time may not hold all values, so try it like others.
    """
    if len({_group(dtype) for dtype in types}) > 1:
        return None
    try:
        promoted = np.result_type(*types)
    except (TypeError, ValueError, OverflowError):
        return None
    if promoted.kind in "fc" and all(dtype.kind in "biu" for dtype in types):
        return None
    return promoted


def _number(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray | None:
    """Numbers as another type of numbers, or None if that would change one."""
    if array.dtype.kind in "biu":
        return array.astype(dtype) if _within(array, dtype) else None
    if array.dtype.kind == "c" and dtype.kind != "c":
        return None
    if dtype.kind in "fc":
        with np.errstate(all="ignore"):
            cast = array.astype(dtype)
            parts = [(array.real, cast.real), (array.imag, cast.imag)]
            same = all(((a == b) | (np.isnan(a) & np.isnan(b))).all() for a, b in parts)
        return cast if same else None
    whole = np.isfinite(array).all() and (np.trunc(array) == array).all()
    if not whole or (np.signbit(array) & (array == 0)).any() or not _within(array, dtype):
        return None
    return array.astype(dtype)


def _within(array: np.ndarray, dtype: np.dtype[Any]) -> bool:
    low, high = _limits(dtype)
    return not array.size or (int(array.min()) >= low and int(array.max()) <= high)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Between these every integer has a place of its own."""
    if dtype.kind == "b":
        return 0, 1
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    mantissa = int(np.finfo(dtype).nmant) + 1  # of the real part, where there are two
    return -(2**mantissa), 2**mantissa


def _time(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray | None:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if "generic" in (np.datetime_data(array.dtype)[0], np.datetime_data(dtype)[0]):
        return array.astype(dtype) if np.isnat(array).all() else None
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        return None
    try:
        cast = array.astype(dtype)
        back = cast.astype(array.dtype)
    except OverflowError:
        return None
    return cast if (back.view(np.int64) == array.view(np.int64)).all() else None


def _listed(types: Sequence[np.dtype[Any]]) -> str:
    return " and ".join(str(dtype) for dtype in types)


def _hint(arrays: Sequence[np.ndarray]) -> str:
    """The largest integer, where integers are what cannot be kept."""
    largest = max(
        (abs(int(limit)) for a in arrays if a.dtype.kind in "iu" and a.size
         for limit in (a.min(), a.max())),
        default=0,
    )  # fmt: skip
    return f" (such as {largest})" if largest > 2**53 else ""
