"""Sort samples by their columns and cut the order into batches (specification: batching).

Samples are grouped by what matters most, so that a batch holds samples that are alike and can be
kept or discarded as one. Nothing here moves a sample: a batch is a range of row numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from memento.errors import SchemaError, SettingError
from memento.samples import Samples

__all__ = ["Batches", "cut", "make_batches", "sort_order"]

Missing = Literal["warn", "error", "skip"]
Remainder = Literal["drop", "keep"]

# Rows of a tie-break column that are gathered at a time.
_PIECE = 1 << 16

# A sort key: unsigned numbers, one a row; or how to get them for some rows only.
_Key = np.ndarray | Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Batches:
    """Row numbers of one or two sets of samples, cut into batches.

    Attributes:
        parts: One or more ``Samples`` that are numbered through: row ``r`` is row ``r`` of the
            first part if it has that many, otherwise row ``r - parts[0].size`` of the second.
        order: ``(m,)`` int64 row numbers, batch after batch.
        offsets: ``(n + 1,)`` int64; batch ``i`` is ``order[offsets[i]:offsets[i + 1]]``.

    Example:
        >>> batches = make_batches(Samples(y=[3, 1, 2, 0]), 2, ["y"])
        >>> len(batches), batches[0]["y"], batches.rows(1)
        (2, array([0, 1]), array([2, 0]))
    """

    parts: tuple[Samples, ...]
    order: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Samples]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Samples:
        if not -len(self) <= i < len(self):
            raise IndexError(f"batch {i} of {len(self)}")
        rows = self.rows(i % len(self))
        return Samples.borrow({name: self._gather(name, rows) for name in self.parts[0]})

    @property
    def sizes(self) -> np.ndarray:
        """``(n,)`` samples in each batch."""
        return np.diff(self.offsets)

    def rows(self, i: int) -> np.ndarray:
        """Row numbers of batch ``i``."""
        return self.order[self.offsets[i] : self.offsets[i + 1]]

    def has(self, name: str) -> bool:
        """Whether every part has this column."""
        return all(name in part for part in self.parts)

    def halves(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A column as it lies in the two parts; the second may be empty. Nothing is copied."""
        if len(self.parts) > 2:
            raise SettingError(f"{len(self.parts)} parts; concatenate them into at most two")
        first = self.parts[0][name]
        return first, self.parts[1][name] if len(self.parts) == 2 else first[:0]

    def column(self, name: str) -> np.ndarray:
        """A column in batch order: ``(m, ...)``, copied."""
        return self._gather(name, self.order)

    def _gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        if len(self.parts) == 1:
            return self.parts[0][name][rows]
        first, second = self.halves(name)
        if first.dtype == second.dtype and first.flags.c_contiguous and second.flags.c_contiguous:
            from memento._kernels import moving

            found = np.empty((len(rows), *first.shape[1:]), first.dtype)
            moving.gather_rows(first, second, rows, found)
            return found
        late = rows >= len(first)
        shape = (len(rows), *first.shape[1:])
        gathered = np.empty(shape, np.promote_types(first.dtype, second.dtype))
        gathered[~late] = first[rows[~late]]
        gathered[late] = second[rows[late] - len(first)]
        return gathered

    @classmethod
    def of(cls, data: Any, dimensions: Mapping[str, int]) -> Batches:
        """Batches from what a caller has at hand.

        Args:
            data: ``Batches``; a sequence of mappings (one a batch); a mapping of stacked columns;
                or, for a single column, an array or a sequence of arrays.
            dimensions: For each column, the number of axes of one sample: 0 for a label, 1 for a
                row of probabilities. An array with one axis more is taken as one sample a batch,
                with two more as ``(batches, samples, ...)``.

        Raises:
            SchemaError: The data has another form, or a column is missing.

        Example:
            >>> len(Batches.of([[0, 1], [1, 1, 2]], {"y": 0}))
            2
        """
        if isinstance(data, Batches):
            return data
        if isinstance(data, Mapping):
            columns = {name: _stacked(name, data, axes) for name, axes in dimensions.items()}
            return cls._from_lists(columns)
        if isinstance(data, np.ndarray) or not _holds_mappings(data):
            if len(dimensions) != 1:
                raise SchemaError(
                    f"this distance reads the columns {sorted(dimensions)}; give batches as "
                    "mappings with these names"
                )
            ((name, axes),) = dimensions.items()
            return cls._from_lists({name: _split(name, data, axes)})
        return cls._from_lists(
            {name: [_entry(name, batch) for batch in data] for name in dimensions}
        )

    @classmethod
    def _from_lists(cls, columns: Mapping[str, list[np.ndarray]]) -> Batches:
        joined = {name: np.concatenate(pieces) for name, pieces in columns.items()}
        sizes = [len(piece) for piece in next(iter(columns.values()))]
        samples = Samples.borrow(joined)
        return cls((samples,), np.arange(samples.size), np.concatenate([[0], np.cumsum(sizes)]))


def _holds_mappings(data: Any) -> bool:
    return isinstance(data, Sequence) and len(data) > 0 and isinstance(data[0], Mapping)


def _stacked(name: str, data: Mapping[str, Any], axes: int) -> list[np.ndarray]:
    return _split(name, _value(name, data), axes)


def _entry(name: str, batch: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(_value(name, batch))


def _value(name: str, data: Mapping[str, Any]) -> Any:
    if name not in data:
        raise SchemaError(f"no column {name!r}; there are {sorted(data)}")
    return data[name]


def _split(name: str, data: Any, axes: int) -> list[np.ndarray]:
    """One array a batch, from stacked batches, single samples, or a sequence of arrays."""
    if not isinstance(data, np.ndarray):
        pieces = [np.asarray(piece) for piece in data]
        if not pieces:
            raise SchemaError(f"no batches of {name!r}; give at least one")
        return [piece if piece.ndim > axes else piece[None] for piece in pieces]
    if data.ndim == axes + 1:
        return list(data[:, None])
    if data.ndim == axes + 2:
        return list(data)
    raise SchemaError(
        f"{name!r} has the shape {data.shape}; expected (batches, samples, ...) with {axes} "
        "further axes, or one sample a batch"
    )


def make_batches(
    samples: Samples | Sequence[Samples],
    batch_size: int,
    sort_by: Sequence[str],
    *,
    group_by: str | None = None,
    remainder: Remainder = "drop",
    missing: Missing = "warn",
) -> Batches:
    """Sort by the given columns and cut into consecutive batches.

    Args:
        samples: One set of samples, or two that are treated as one (nothing is copied).
        batch_size: Samples in a batch, at least 1.
        sort_by: Columns, most important first; see `sort_order`.
        group_by: A column that batches never straddle, such as an application's id: each of its
            values gets batches of its own.
        remainder: ``"drop"`` leaves out the samples at the end that do not fill a batch (of each
            group); ``"keep"`` makes a smaller batch of them.
        missing: What a missing sort column does: a warning, an error, or nothing.

    Raises:
        SchemaError: A sort column is missing with ``missing="error"``, or ``group_by`` is missing.
        SettingError: ``batch_size`` below 1, or an unknown ``remainder`` or ``missing``.

    Example:
        >>> len(make_batches(Samples(y=[2, 0, 1, 1, 0]), 2, ["y"]))
        2
        >>> make_batches(Samples(y=[2, 0, 1, 1, 0]), 2, ["y"], remainder="keep").sizes
        array([2, 2, 1])
    """
    parts = (samples,) if isinstance(samples, Samples) else tuple(p for p in samples if p.size)
    parts = parts or (Samples(),)
    if group_by is not None:
        _require(group_by, parts)
        sort_by = (group_by, *(name for name in sort_by if name != group_by))
    order = sort_order(parts, sort_by, missing=missing)
    return cut(parts, order, batch_size, group_by=group_by, remainder=remainder)


def cut(
    parts: tuple[Samples, ...],
    order: np.ndarray,
    batch_size: int,
    *,
    group_by: str | None = None,
    remainder: Remainder = "drop",
) -> Batches:
    """Cut sorted rows into batches; `make_batches` without the sorting.

    Args:
        parts: The samples that the rows refer to.
        order: ``(m,)`` row numbers, sorted as `sort_order` does (by ``group_by`` first, if given).
        batch_size: As for `make_batches`.
        group_by: As for `make_batches`.
        remainder: As for `make_batches`.

    Raises:
        SettingError: ``batch_size`` below 1, or an unknown ``remainder``.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}; it has to be at least 1")
    if remainder not in ("drop", "keep"):
        raise SettingError(f'remainder is {remainder!r}; expected "drop" or "keep"')
    if group_by is None or not len(order):
        starts = np.array([0, len(order)])
    else:
        _require(group_by, parts)
        groups = Batches(parts, order, np.array([0, len(order)])).column(group_by)
        starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1], [True]]))
    pieces, lengths = [], []
    for start, stop in pairwise(starts):
        full, rest = divmod(int(stop - start), batch_size)
        rest = rest if remainder == "keep" else 0
        pieces.append(order[start : start + full * batch_size + rest])
        lengths.append(np.repeat([batch_size, rest], [full, int(rest > 0)]))
    # One group, the usual case, needs no copy of the order.
    kept = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return Batches(parts, kept, offsets)


def _require(group_by: str, parts: Sequence[Samples]) -> None:
    """Batches that must not straddle groups cannot do without the group."""
    for part in parts:
        if part.size and group_by not in part:
            raise SchemaError(
                f"column {group_by!r}, which group_by names, is missing; there are {sorted(part)}"
            )


def sort_order(
    samples: Samples | Sequence[Samples], sort_by: Sequence[str], *, missing: Missing = "warn"
) -> np.ndarray:
    """Row numbers in the order in which samples are batched.

    A column of single values sorts ascending. A column of rows sorts by the position of the largest
    absolute entry, ascending, then by that entry, descending: for probabilities by the most likely
    class, the most certain first. The sort is stable: equal samples keep their order.

    Args:
        samples: One set of samples, or two that are numbered through.
        sort_by: Columns, most important first.
        missing: What a missing sort column does: a warning, an error, or nothing.

    Returns:
        ``(size,)`` int64 row numbers.

    Raises:
        SchemaError: A column is missing with ``missing="error"``.
        SettingError: An unknown ``missing``.

    Example:
        >>> sort_order(Samples(p=[[0.4, 0.6], [0.9, 0.1], [0.2, 0.8]]), ["p"])
        array([1, 2, 0])
    """
    from memento._kernels import sorting

    if missing not in ("warn", "error", "skip"):
        raise SettingError(f'missing is {missing!r}; expected "warn", "error" or "skip"')
    given = (samples,) if isinstance(samples, Samples) else samples
    parts = [part for part in given if part.size]
    size = sum(part.size for part in parts)
    names = [name for name in sort_by if _present(name, parts, missing)]
    keys: list[_Key] = []
    unique = False  # whether the keys so far leave few ties
    for name in names:
        if unique:
            keys.extend(_on_demand(parts, name))
        else:
            arrays = _keys([part[name] for part in parts])
            unique = any(key.itemsize >= 4 for key in arrays)
            keys.extend(arrays)
    return sorting.order(keys, size)


def _present(name: str, parts: Sequence[Samples], missing: Missing) -> bool:
    if all(name in part for part in parts):
        return bool(parts)
    if missing == "error":
        listed = sorted({column for part in parts for column in part})
        raise SchemaError(f"sort column {name!r} is missing; there are {listed}")
    if missing == "warn":
        warnings.warn(
            f"sort column {name!r} is missing and left out of the order; leave it out of sort_by, "
            'or set missing="skip"',
            stacklevel=4,
        )
    return False


def _on_demand(parts: Sequence[Samples], name: str) -> list[_Key]:
    """Keys that are computed for the few rows that are still tied, one after the other."""
    flat = parts[0][name].ndim == 1

    def key(index: int) -> Callable[[np.ndarray], np.ndarray]:
        def of_rows(rows: np.ndarray) -> np.ndarray:
            found = np.empty(len(rows), np.uint64)
            for start in range(0, len(rows), _PIECE):  # wide rows are gathered a few at a time
                piece = slice(start, start + _PIECE)
                gathered = Batches(tuple(parts), rows[piece], rows[:0]).column(name)
                # Not narrowed: a row's key must not depend on the rows that it is asked with.
                found[piece] = _plain_keys([gathered])[index]
            return found

        return of_rows

    if not _orderable(parts[0][name]):
        return list(_keys([part[name] for part in parts]))  # ranks need all the values at once
    return [key(0)] if flat else [key(0), key(1)]


def _orderable(array: np.ndarray) -> bool:
    return array.dtype.kind in "biufMm"


def _keys(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Unsigned keys of a column that lies in one or more pieces: one key, or mode and value."""
    first, *value = _plain_keys(columns)
    return [_narrow(first), *value]


def _plain_keys(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    from memento._kernels import sorting

    kinds = {column.dtype for column in columns}
    if len(kinds) > 1:  # bits are comparable within one type only
        common = np.result_type(*kinds)
        columns = [column.astype(common) for column in columns]
    if columns[0].ndim == 1:
        return [np.concatenate(_ranks(columns))]
    modes, values = [], []
    for column in columns:
        if not _orderable(column):
            column = np.concatenate(_ranks([column.reshape(-1)])).reshape(column.shape)
        rows = column.reshape(len(column), int(np.prod(column.shape[1:])))
        if rows.dtype.kind in "bMm":
            rows = rows.view(np.uint8 if rows.dtype.kind == "b" else np.int64)
        found = sorting.mode_and_value(rows)
        modes.append(found.position)
        values.append(sorting.descending(found.value))
    return [np.concatenate(modes), np.concatenate(values)]


def _ranks(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Order-preserving unsigned numbers of one-dimensional values."""
    from memento._kernels import sorting

    if _orderable(columns[0]):
        return [
            sorting.ascending(column.view(np.int64) if column.dtype.kind in "Mm" else column)
            for column in columns
        ]
    _, inverse = np.unique(np.concatenate(columns), return_inverse=True)
    return [inverse.astype(np.uint64)]


def _narrow(key: np.ndarray) -> np.ndarray:
    """The same order in as few bytes as the range of the key needs: less to sort, less to hold."""
    if not len(key):
        return key.astype(np.uint8)
    low, high = key.min(), key.max()
    span = int(high) - int(low)
    for kind in (np.uint8, np.uint16, np.uint32):
        if span <= np.iinfo(kind).max:
            return (key - low).astype(kind)
    return key
