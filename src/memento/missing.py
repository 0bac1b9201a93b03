"""Values that have not come yet: what marks them, and how columns that have some go together.

A missing number is NaN, a missing date NaT, a missing text the empty one; a row of numbers is
missing if all of it is NaN. Whole numbers and bools have no such mark, so a column of them is
float64 for as long as some are missing, which is refused where that would change one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from memento.casting import type_for
from memento.errors import ColumnTypeError, SchemaError
from memento.samples import Samples

__all__ = ["blank", "join", "lacking", "rows_lacking", "whole_again", "without_gaps"]

# Beyond it float64 cannot tell all whole numbers apart.
_EXACT = 2**53


def lacking(column: np.ndarray) -> np.ndarray:
    """``(n,)`` bool: rows in which a column's value is missing.

    Example:
        >>> lacking(np.array([1.0, np.nan])), lacking(np.array(["", "b"]))
        (array([False,  True]), array([ True, False]))
    """
    kind = column.dtype.kind
    if kind in "fc" and column.ndim >= 1:
        rows = column.reshape(len(column), -1) if column.size else column[:, None]
        found: np.ndarray = np.isnan(rows[:, 0]) if len(rows) else np.zeros(0, bool)
        if rows.shape[1] > 1 and found.any():
            found[found] = np.isnan(rows[found]).all(axis=1)
        return found
    if kind in "Mm" and column.ndim == 1:
        return np.isnat(column)
    if kind in "US" and column.ndim == 1:
        return np.asarray(column == column.dtype.type())
    return np.zeros(len(column), bool)


def without_gaps(samples: Samples, names: Iterable[str]) -> Samples:
    """Samples that lack none of these columns, as far as there are such; themselves if none does.

    Example:
        >>> without_gaps(Samples(y=[1.0, np.nan], x=[1, 2]), ["y", "z"])["x"]
        array([1])
    """
    gaps = rows_lacking(samples, names)
    return samples.take(~gaps).owned_by(samples.owner) if gaps.any() else samples


def rows_lacking(samples: Samples, names: Iterable[str]) -> np.ndarray:
    """``(n,)`` bool: samples that lack one of these columns, as far as there are such."""
    found = np.zeros(samples.size, bool)
    for name in names:
        if name in samples:
            found |= lacking(samples[name])
    return found


def blank(name: str, size: int, like: np.ndarray) -> np.ndarray:
    """A column of missing values.

    Args:
        name: Of the column, for the message.
        size: Number of rows.
        like: A column of the same type and shape; whole numbers and bools give float64.

    Raises:
        SchemaError: The type has no mark for what is missing.
    """
    kind, shape = like.dtype.kind, (size, *like.shape[1:])
    if kind in "biu":
        return np.full(shape, np.nan)
    if kind in "fc":
        return np.full(shape, np.nan, like.dtype)
    if kind in "Mm":
        return np.full(shape, "NaT", like.dtype)
    if kind in "US" and like.ndim == 1:
        return np.zeros(shape, like.dtype)
    raise SchemaError(
        f"column {name!r} of type {like.dtype} and shape {like.shape} cannot be missing in some "
        "rows; give it for all, or as numbers, dates or texts"
    )


@np.errstate(invalid="ignore")  # of NaN that signals, which a cast only makes quiet
def join(
    name: str, held: np.ndarray, fresh: np.ndarray, *, was: str | None, appended: bool
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Make what is held of a column and what comes fit each other.

    Values decide: the type held stays where it holds what comes exactly, or else becomes one that
    holds both.

    Args:
        name: Of the column, for messages.
        held: ``(m, ...)`` values of the samples held.
        fresh: ``(n, ...)`` values of the samples that come.
        was: Type of the column's whole numbers or bools, if some are missing and so it is float64.
        appended: Whether rows may get longer by zeros: probabilities of classes, to which new ones
            were added.

    Returns:
        Both, changed where they have to be, and ``was`` as it is for both.

    Raises:
        SchemaError: They do not fit; with what to do. A ColumnTypeError if no type holds both.
    """
    if held.shape[1:] != fresh.shape[1:]:
        held, fresh = _of_one_width(name, held, fresh, appended)
    if held.dtype == fresh.dtype:
        return held, fresh, was
    if len(held) and lacking(held).all():
        if fresh.dtype.kind in "biu":
            return held.astype(np.float64), _as_float(name, fresh), str(fresh.dtype)
        return blank(name, len(held), fresh), fresh, None
    if lacking(fresh).all() and len(fresh):
        if held.dtype.kind in "biu":
            was, held = str(held.dtype), _as_float(name, held)
        return held, blank(name, len(fresh), held), was
    if was is not None and fresh.dtype.kind in "biu":
        return held, _as_float(name, fresh), str(np.result_type(np.dtype(was), fresh.dtype))
    if held.dtype.kind in "biu" and fresh.dtype.kind == "f" and lacking(fresh).any():
        fresh = fresh.astype(np.float64)  # in which 2**53 has a place
        known = fresh[~np.isnan(fresh)]
        if (known == np.trunc(known)).all() and (np.abs(known) <= _EXACT).all():
            return _as_float(name, held), fresh, str(held.dtype)
    dtype = type_for(name, held, fresh)
    if dtype.kind in "US":  # as long as the longest, which room is made for later
        return held, fresh, was
    if dtype != held.dtype:
        held = held.astype(dtype)
    return held, fresh.astype(dtype, copy=False), was


def _of_one_width(
    name: str, held: np.ndarray, fresh: np.ndarray, appended: bool
) -> tuple[np.ndarray, np.ndarray]:
    if appended and held.ndim == fresh.ndim == 2:
        width = max(held.shape[1], fresh.shape[1])
        return _widened(held, width), _widened(fresh, width)
    if len(held) and lacking(held).all():
        return blank(name, len(held), fresh), fresh
    raise SchemaError(
        f"column {name!r} has rows of shape {fresh.shape[1:]}; this memory holds {held.shape[1:]}. "
        f"Give what is held the new shape with memory.annotate({name}=...), or use one shape"
    )


def _widened(rows: np.ndarray, width: int) -> np.ndarray:
    """Rows with zeros appended; what is missing stays missing."""
    if rows.shape[1] == width:
        return rows
    wide = np.zeros((len(rows), width), rows.dtype)
    wide[:, : rows.shape[1]] = rows
    if rows.dtype.kind == "f":
        wide[lacking(rows)] = np.nan
    return wide


def _as_float(name: str, numbers: np.ndarray) -> np.ndarray:
    """Whole numbers as float64, unless one would change."""
    whole = numbers.dtype.kind in "iu" and numbers.size > 0
    if whole and (numbers.min() < -_EXACT or numbers.max() > _EXACT):
        raise ColumnTypeError(
            name,
            f"column {name!r} holds whole numbers beyond 2**53, which cannot be held beside "
            "missing ones",
            "give it as text (.astype(str)), or complete",
        )
    return numbers.astype(np.float64)


def whole_again(column: np.ndarray, was: str) -> np.ndarray:
    """A float64 column as what it was before some values were missing; itself if it cannot be."""
    if column.dtype.kind != "f" or lacking(column).any():
        return column
    with np.errstate(invalid="ignore"):
        found = column.astype(was)
    return found if (found == column).all() else column
