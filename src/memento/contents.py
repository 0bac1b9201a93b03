"""What a memory holds, and the way from one content to the next.

A content is one object, so a memory changes from one to the next by one assignment, before or after
which an interrupt may come, but not within. Large columns are written over where they lie, as there
may be no room for a second copy. This is a `Change`: all that can fail is done before, and its
steps may be taken again from any point, so an interrupted one is taken to its end.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memento._kernels import fitting
from memento.arrivals import Arrivals
from memento.files import scratch
from memento.offered import Offered
from memento.policies._policy import State
from memento.samples import Samples
from memento.schema import Schema

__all__ = ["Change", "Column", "Contents", "Overwrite", "columns_of", "latest", "taken_rows"]

# Units that are remembered: thirty years of days.
_UNITS = 10_000
# Rows that need a conversion are moved in pieces of about this many bytes: small beside the data.
_PIECE = 1 << 25
# A column of fewer bytes is written anew.
_SMALL = 1 << 16


class Column:
    """A column's buffer, and whether any array of it is in use outside.

    Args:
        buffer: The values, and room for more behind them.
        folder: Where the buffers lie that follow this one, if not in main memory.
    """

    def __init__(self, buffer: np.ndarray, folder: Path | None = None) -> None:
        self.buffer = buffer
        self.folder = folder
        self._lease: weakref.ref[_Lease] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self.buffer,)

    def another(self, rows: int, dtype: np.dtype) -> Column:
        """One with room for so many rows, where buffers of this one lie."""
        shape = (rows, *self.buffer.shape[1:])
        if self.folder is None:
            return Column(np.empty(shape, dtype))
        return Column(scratch(self.folder, shape, dtype), self.folder)

    def lend(self, size: int) -> np.ndarray:
        """A read-only view that counts as in use for as long as anything made from it."""
        lease = self._lease() if self._lease is not None else None
        if lease is None:
            lease = _Lease(self.buffer[:size])
            self._lease = weakref.ref(lease)
        return np.asarray(lease)

    @property
    def lent(self) -> bool:
        """Whether something made from what was lent is in use."""
        return self._lease is not None and self._lease() is not None


class _Lease:
    """Memory lent out: alive as long as any array made from it, which holds a reference to it.

    numpy keeps the object behind ``__array_interface__`` as the base of the array, and of every
    view of that array.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # keeps the memory itself alive
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], True)  # read-only
        self.__array_interface__ = interface


@dataclass(frozen=True)
class Contents:
    """All that a memory holds and remembers at one moment.

    Attributes:
        rng: The generator, with the state it has then.
        columns: By name; each has room for ``size`` rows at least.
        size: Number of rows held.
        arrivals: ``(size,)`` int64, with which insert each came.
        state: What the policy remembers.
        seen: Number of samples offered so far.
        inserts: How many there were.
        reference: What was held at the last training.
        model: Digest of the model that made the predictions held.
        reference_model: The same of the predictions in the reference.
        units: Names of inserted units, and with which insert each came.
        recent: What came in lately, kept apart for a trigger.
        offered: A small sample of all that was offered, to compare with what is held.
        schema: What is known of the columns beyond their types.
        keys: ``(size,)`` float64 of samples that wait, NaN for those that the policy has chosen;
            None: none waits.
        origin: Folder that it was loaded from or saved to, and the generation there.
    """

    rng: np.random.Generator
    columns: Mapping[str, Column] = field(default_factory=dict)
    size: int = 0
    arrivals: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    state: State = field(default_factory=State)
    seen: int = 0
    inserts: int = 0
    reference: Samples | None = None
    model: str | None = None
    reference_model: str | None = None
    units: Mapping[str, int] = field(default_factory=dict)
    recent: Arrivals | None = None
    offered: Offered = field(default_factory=Offered)
    schema: Schema = field(default_factory=Schema)
    keys: np.ndarray | None = None
    origin: tuple[Path, int] | None = None

    def held(self) -> Samples:
        """The rows held, without protection from later changes: for use inside one call."""
        return Samples.borrow({n: c.buffer[: self.size] for n, c in self.columns.items()})

    def lend(self) -> Samples:
        """The rows held, which a later change copies if they are still in use then."""
        return Samples.borrow({n: c.lend(self.size) for n, c in self.columns.items()})


@dataclass(frozen=True)
class Overwrite:
    """Chosen rows of one column, to be moved within its buffer, and fresh ones behind them.

    Attributes:
        buffer: Memory of the column, with room for all rows.
        old: Rows of it that stay, ascending.
        moved: ``(1,)`` uint8, set to 1 by the loop that moves them: it cannot be done twice.
        fresh: The column of the fresh samples.
        new: Rows of it that are kept.
    """

    buffer: np.ndarray
    old: np.ndarray
    fresh: np.ndarray
    new: np.ndarray
    moved: np.ndarray

    def prepare(self) -> None:
        """Have the loops compiled, so that nothing is left that takes long or may fail."""
        moving = fitting("moving", len(self.old))
        moving.shift_rows(self.buffer, self.old[:0], np.zeros(1, np.uint8))
        fill_rows(self.fresh, self.new[:0], self.buffer, 0)

    def apply(self) -> None:
        """Move the rows; from anywhere where it stopped before."""
        if not self.moved[0]:
            fitting("moving", len(self.old)).shift_rows(self.buffer, self.old, self.moved)
        fill_rows(self.fresh, self.new, self.buffer, len(self.old))


@dataclass(frozen=True)
class Change:
    """The way from one content to the next.

    Attributes:
        before: Contents at the start.
        after: Where it ends, once the columns are overwritten.
        overwrites: Columns that are written over where they lie.
    """

    before: Contents
    after: Contents
    overwrites: tuple[Overwrite, ...] = ()

    def apply(self) -> None:
        """Write over the columns; from anywhere where it stopped before."""
        for overwrite in self.overwrites:
            overwrite.apply()


def columns_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Column]:
    """Arrays as columns of a memory."""
    return {name: Column(array) for name, array in arrays.items()}


def latest(units: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Names of units, and more of them, as far as they are remembered."""
    return dict([*units.items(), *more.items()][-_UNITS:])


def taken_rows(
    before: Contents, fresh: Samples, rows: np.ndarray, capacity: int | None
) -> tuple[dict[str, Column], tuple[Overwrite, ...]]:
    """Columns of the chosen rows, as far as they can be made without touching those held.

    Args:
        before: Contents at the start; its columns are not touched.
        fresh: Samples that came, with the same columns (any, at the first insert).
        rows: Ascending; numbers from ``before.size`` on are rows of the fresh samples.
        capacity: Most rows that there will ever be, if known.

    Returns:
        The columns, and what of them is still to be written over.
    """
    split = int(np.searchsorted(rows, before.size))
    old, new = rows[:split], rows[split:] - before.size
    columns, overwrites = {}, []
    for name in before.columns or fresh:
        column = before.columns.get(name)
        held = fresh[name][:0] if column is None else column.buffer
        dtype = held.dtype
        if dtype.kind in "US":  # as long as the longest
            dtype = np.promote_types(dtype, fresh[name].dtype)
        if (
            column is not None
            and held.nbytes >= _SMALL
            and len(held) >= len(rows)
            and dtype == held.dtype
            and not column.lent
            and held.flags.writeable
        ):
            overwrite = Overwrite(held, old, fresh[name], new, np.zeros(1, np.uint8))
            overwrite.prepare()
            overwrites.append(overwrite)
            columns[name] = column
        else:
            made = column or Column(held)
            made = made.another(_room(len(held), len(rows), capacity), dtype)
            fill_rows(held, old, made.buffer, 0)
            fill_rows(fresh[name], new, made.buffer, split)
            columns[name] = made
    return columns, tuple(overwrites)


def _room(before: int, size: int, capacity: int | None) -> int:
    """Rows to make room for: growing, for more than there are, but never beyond the capacity."""
    if not size > before > 0:
        return size
    room = max(size, before * 3 // 2)
    return room if capacity is None else max(size, min(room, capacity))


def fill_rows(source: np.ndarray, rows: np.ndarray, target: np.ndarray, start: int) -> None:
    """``target[start:start + len(rows)] = source[rows]``, where target is not source."""
    if source.dtype == target.dtype and source.flags.c_contiguous:
        # Not by the rows that are moved: before an insert is applied, it is tried with none.
        fitting("moving", len(source)).move_rows(source, rows, target, start)
        return
    row_bytes = max(1, target.dtype.itemsize * int(np.prod(target.shape[1:])))
    step = max(1, _PIECE // row_bytes)
    i = 0
    while i < len(rows):
        piece = rows[i : i + step]
        try:
            target[start + i : start + i + len(piece)] = source[piece]
        except MemoryError:
            if step == 1:
                raise
            step = max(1, step // 16)
        else:
            i += len(piece)
