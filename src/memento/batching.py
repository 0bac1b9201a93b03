"""Sort samples by their columns and cut the order into batches (specification: batching).

Samples are grouped by what matters most, so that a batch holds samples that are alike and can be
kept or discarded as one. By default every sample is in a batch, batches have nearly the same size,
and none straddles a label, so that a class of few samples makes a batch of its own. Nothing here
moves a sample: a batch is a range of row numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any, Literal, get_args

import numpy as np

from memento import arguments
from memento._kernels import fitting
from memento.errors import RowError, SchemaError, SettingError, warn
from memento.samples import Samples

__all__ = [
    "Batches",
    "cut",
    "default_batch_size",
    "make_batches",
    "parts_of",
    "run_starts",
    "scrambled",
    "sort_order",
]

Missing = Literal["warn", "error", "skip"]
Remainder = Literal["even", "drop", "keep"]

# Rows of a tie-break column that are gathered at a time.
_PIECE = 1 << 16
# Sorted labels are looked at every so many rows; only between two that differ is every row.
_STRIDE = 256

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

    @arguments.checked
    def rows(self, i: int) -> np.ndarray:
        """Row numbers of batch ``i``.

        Raises:
            RowError: There are not as many batches.
        """
        if not 0 <= i < len(self):
            raise RowError(f"batch {i} of {len(self)}; count from 0")
        return self.order[self.offsets[i] : self.offsets[i + 1]]

    @arguments.checked
    def has(self, name: str) -> bool:
        """Whether every part has this column."""
        return all(name in part for part in self.parts)

    @arguments.checked
    def halves(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A column as it lies in the two parts; the second may be empty. Nothing is copied."""
        if len(self.parts) > 2:
            raise SettingError(f"{len(self.parts)} parts; concatenate them into at most two")
        _require(name, self.parts)
        first = self.parts[0][name]
        return first, self.parts[1][name] if len(self.parts) == 2 else first[:0]

    @arguments.checked
    def column(self, name: str) -> np.ndarray:
        """A column in batch order: ``(m, ...)``, copied."""
        _require(name, self.parts)
        return self._gather(name, self.order)

    def _gather(self, name: str, rows: np.ndarray) -> np.ndarray:
        if len(self.parts) == 1:
            return self.parts[0][name][rows]
        first, second = self.halves(name)
        if first.dtype == second.dtype and first.flags.c_contiguous and second.flags.c_contiguous:
            found = np.empty((len(rows), *first.shape[1:]), first.dtype)
            fitting("moving", len(rows)).gather_rows(first, second, rows, found)
            return found
        late = rows >= len(first)
        shape = (len(rows), *first.shape[1:])
        gathered = np.empty(shape, np.promote_types(first.dtype, second.dtype))
        gathered[~late] = first[rows[~late]]
        gathered[late] = second[rows[late] - len(first)]
        return gathered

    @classmethod
    @arguments.checked
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
            columns = {n: _split(n, _value(n, data), axes) for n, axes in dimensions.items()}
            return cls._from_lists(columns)
        mappings = isinstance(data, Sequence) and len(data) > 0 and isinstance(data[0], Mapping)
        if not mappings:
            if len(dimensions) != 1:
                raise SchemaError(
                    f"this distance reads the columns {sorted(dimensions)}; give batches as "
                    "mappings with these names"
                )
            ((name, axes),) = dimensions.items()
            return cls._from_lists({name: _split(name, data, axes)})
        return cls._from_lists(
            {name: [np.asarray(_value(name, batch)) for batch in data] for name in dimensions}
        )

    @classmethod
    def _from_lists(cls, columns: Mapping[str, list[np.ndarray]]) -> Batches:
        joined = {name: np.concatenate(pieces) for name, pieces in columns.items()}
        sizes = [len(piece) for piece in next(iter(columns.values()))]
        samples = Samples.borrow(joined)
        return cls((samples,), np.arange(samples.size), np.concatenate([[0], np.cumsum(sizes)]))


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


def default_batch_size(samples: int) -> int:
    """Samples in a batch where none is given: so many that 64 batches hold all samples.

    Args:
        samples: The capacity of a memory; or how many samples there are.

    Returns:
        ``samples // 64``, but at least 1 and at most 256.

    Example:
        >>> [default_batch_size(samples) for samples in (100, 1000, 10_000, 1_000_000)]
        [1, 15, 156, 256]
    """
    return max(1, min(samples // 64, 256))


_GENERATOR = arguments.optional(arguments.instance(np.random.Generator, "a numpy.random.Generator"))


def make_batches(
    samples: Samples | Sequence[Samples],
    batch_size: int,
    sort_by: Sequence[str],
    *,
    group_by: str | None = None,
    labels: Sequence[str] = (),
    remainder: Remainder = "even",
    missing: Missing = "warn",
    rng: np.random.Generator | None = None,
) -> Batches:
    """Sort by the given columns and cut into consecutive batches.

    Args:
        samples: One set of samples, or two that are treated as one (nothing is copied).
        batch_size: Samples in a batch, at least 1.
        sort_by: Columns, most important first; see `sort_order`.
        group_by: A column that batches never straddle, such as an application's id: each of its
            values gets batches of its own.
        labels: Columns of which the same holds as long as it makes no more than about half as many
            batches again, with ``remainder="even"``. They have to lead ``sort_by``; those that do
            not are not regarded. See `cut`.
        remainder: What happens where samples do not fill whole batches (of a group, or a label).
            ``"even"``: batches get a little smaller or larger; ``"drop"`` leaves out the samples at
            the end; ``"keep"`` makes a smaller batch of them.
        missing: What a missing sort column does: a warning, an error, or nothing.
        rng: Puts samples with equal keys in random order; None leaves them in theirs.

    Raises:
        SchemaError: A sort column is missing with ``missing="error"``, or ``group_by`` is missing.
        SettingError: ``batch_size`` below 1, or an unknown ``remainder`` or ``missing``.

    Example:
        >>> samples = Samples(y=[1, 0, 1, 1, 0, 0, 1])
        >>> make_batches(samples, 3, ["y"]).sizes
        array([4, 3])
        >>> make_batches(samples, 3, ["y"], labels=["y"]).sizes
        array([3, 4])
        >>> make_batches(samples, 3, ["y"], remainder="drop").sizes
        array([3, 3])
    """
    parts = tuple(parts_of(samples)) or (Samples(),)
    sort_by = arguments.names("sort_by", sort_by)
    arguments.require("rng", rng, _GENERATOR)
    arguments.require("batch_size", batch_size, arguments.whole())
    arguments.require("group_by", group_by, arguments.optional(arguments.text()))
    arguments.require("remainder", remainder, arguments.one_of(get_args(Remainder)))
    if group_by is not None:
        _require(group_by, parts, ", which group_by names,")
        sort_by = (group_by, *(name for name in sort_by if name != group_by))
    order = sort_order(parts, sort_by, missing=missing, rng=rng)
    first = leading([name for name in sort_by if name != group_by], labels, parts)
    return cut(parts, order, batch_size, group_by=group_by, labels=first, remainder=remainder)


def parts_of(samples: Samples | Sequence[Samples]) -> list[Samples]:
    """Those of one or several sets of samples that have rows.

    Raises:
        SettingError: They are something else.
    """
    parts = [samples] if isinstance(samples, Samples) else samples
    if not isinstance(parts, (list, tuple)) or not all(isinstance(p, Samples) for p in parts):
        shown = arguments.shown(samples)
        raise SettingError(f"samples is {shown}; expected Samples, or a list of Samples")
    return [part for part in parts if part.size]


def leading(sort_by: Sequence[str], labels: Sequence[str], parts: Sequence[Samples]) -> list[str]:
    """The labels that samples are sorted by first; columns that are missing do not count."""
    there = [name for name in sort_by if all(name in part for part in parts)]
    return list(takewhile(lambda name: name in labels, there))


def cut(
    parts: tuple[Samples, ...],
    order: np.ndarray,
    batch_size: int,
    *,
    group_by: str | None = None,
    labels: Sequence[str] = (),
    remainder: Remainder = "even",
) -> Batches:
    """Cut sorted rows into batches; `make_batches` without the sorting.

    With ``remainder="even"``, ``m`` rows of a label make ``round(m / batch_size)`` batches, at
    least one, whose sizes differ by one at most. Where labels are so many that this would make more
    than about ``1.5 * len(order) / batch_size`` batches, the last of several label columns is not
    regarded; of a single one, neighbours of less than half a batch share batches.

    Args:
        parts: The samples that the rows refer to.
        order: ``(m,)`` row numbers, sorted as `sort_order` does (by ``group_by`` first, if given,
            then by ``labels``).
        batch_size: As for `make_batches`.
        group_by: As for `make_batches`.
        labels: As for `make_batches`.
        remainder: As for `make_batches`.

    Raises:
        SettingError: ``batch_size`` below 1, or an unknown ``remainder``.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size is {batch_size}; it has to be at least 1")
    if group_by is not None:
        _require(group_by, parts, ", which group_by names,")
    starts = run_starts(parts, order, () if group_by is None else (group_by,))
    if remainder == "even":
        even = _even_lengths(parts, order, batch_size, starts, group_by, labels)
        return Batches(parts, order, _offsets(even))
    pieces, lengths = [], []
    for start, stop in pairwise(starts):
        full, rest = divmod(int(stop - start), batch_size)
        rest = rest if remainder == "keep" else 0
        pieces.append(order[start : start + full * batch_size + rest])
        lengths.append(np.repeat([batch_size, rest], [full, int(rest > 0)]))
    # One group, the usual case, needs no copy of the order.
    kept = pieces[0] if len(pieces) == 1 else np.concatenate([order[:0], *pieces])
    return Batches(parts, kept, _offsets(np.concatenate([[], *lengths])))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def run_starts(parts: tuple[Samples, ...], order: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Where in the order another value of the columns begins; first 0, last its length.

    The order is sorted by these columns, so where two rows are equal all between them are.
    """
    size = len(order)
    if not names or not size:
        return np.array([0, size][: 1 + (size > 0)])
    heads = np.append(np.arange(0, size - 1, _STRIDE), size - 1)
    blocks = heads[:-1][_changes(parts, order[None, heads], names)[0]]
    places = np.minimum(blocks[:, None] + np.arange(_STRIDE + 1), size - 1)
    inner = places[:, 1:][_changes(parts, order[places], names)]
    return np.concatenate([[0], inner, [size]])


def _changes(parts: tuple[Samples, ...], rows: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Whether rows ``(n, m)`` differ from those before them, ``(n, m - 1)``; NaN equals NaN."""
    differs = np.zeros((len(rows), rows.shape[1] - 1), dtype=bool)
    for name in names:
        values = Batches(parts, rows, rows[:0])._gather(name, rows.reshape(-1))
        values = values.reshape(*rows.shape, int(np.prod(values.shape[1:])))
        changed = values[:, 1:] != values[:, :-1]
        if values.dtype.kind in "fcmM":
            unknown = values != values  # NaN and "not a time"
            changed &= ~(unknown[:, 1:] & unknown[:, :-1])
        differs |= changed.any(axis=2)
    return differs


def _even_lengths(
    parts: tuple[Samples, ...],
    order: np.ndarray,
    batch_size: int,
    starts: np.ndarray,
    group_by: str | None,
    labels: Sequence[str],
) -> np.ndarray:
    """Sizes of batches of nearly ``batch_size`` that respect groups and, if not too many, labels.

    Args:
        parts: As for `cut`.
        order: As for `cut`.
        batch_size: As for `cut`.
        starts: Of the groups, as `run_starts` finds them.
        group_by: As for `cut`.
        labels: As for `cut`.
    """
    most = len(order) * 3 // (2 * batch_size) + 16
    groups = [] if group_by is None else [group_by]
    runs = np.diff(starts)
    for depth in range(len(labels), 0, -1):
        edges = run_starts(parts, order, [*groups, *labels[:depth]])
        runs = np.diff(edges)
        if _counts(runs, batch_size).sum() <= most:
            break
        if depth == 1:
            runs = _join(runs, np.isin(edges[:-1], starts), batch_size, most)
    counts = _counts(runs, batch_size)
    lengths = np.repeat(runs // counts, counts)
    within = np.arange(len(lengths)) - np.repeat(np.cumsum(counts) - counts, counts)
    lengths += within < np.repeat(runs % counts, counts)
    return lengths


def _counts(runs: np.ndarray, batch_size: int) -> np.ndarray:
    """Batches for each run of rows: its length in batches, rounded, but at least one."""
    counts: np.ndarray = np.maximum((2 * runs + batch_size) // (2 * batch_size), 1)
    return counts


def _join(runs: np.ndarray, apart: np.ndarray, batch_size: int, most: int) -> np.ndarray:
    """Join neighbours of less than half a batch, no more of them than needed.

    Args:
        runs: ``(n,)`` numbers of rows in each run.
        apart: ``(n,)`` whether a run must not join the one before.
        batch_size: Of the batches that the runs are cut into.
        most: How many batches there should be at most.

    Returns:
        Lengths with the same sum.
    """
    small = 2 * runs < batch_size
    joins = small[1:] & small[:-1] & ~apart[1:]
    joined, share = runs, 1
    while share < batch_size and _counts(joined, batch_size).sum() > most:
        share *= 2
        cell = (np.cumsum(runs) - runs) // share
        first = np.concatenate([[True], ~joins | (cell[1:] != cell[:-1])])
        joined = np.add.reduceat(runs, np.flatnonzero(first))
    return joined


def _require(name: str, parts: Sequence[Samples], why: str = "") -> None:
    """Raise if a part lacks a column that cannot be done without."""
    for part in parts:
        if part.size and name not in part:
            raise SchemaError(f"column {name!r}{why} is missing; there are {sorted(part)}")


def sort_order(
    samples: Samples | Sequence[Samples],
    sort_by: Sequence[str],
    *,
    missing: Missing = "warn",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Row numbers in the order in which samples are batched.

    A column of single values sorts ascending. A column of rows sorts by the position of the largest
    absolute entry, ascending, then by that entry, descending: for probabilities by the most likely
    class, the most certain first. By default the sort is stable: equal samples keep their order.

    Args:
        samples: One set of samples, or two that are numbered through.
        sort_by: Columns, most important first.
        missing: What a missing sort column does: a warning, an error, or nothing.
        rng: Puts equal samples in random order, so that it does not matter which part they are of.

    Returns:
        ``(size,)`` int64 row numbers.

    Raises:
        SchemaError: A column is missing with ``missing="error"``.
        SettingError: An unknown ``missing``.

    Example:
        >>> sort_order(Samples(p=[[0.4, 0.6], [0.9, 0.1], [0.2, 0.8]]), ["p"])
        array([1, 2, 0])
    """
    arguments.require("missing", missing, arguments.one_of(get_args(Missing)))
    parts = parts_of(samples)
    sort_by = arguments.names("sort_by", sort_by)
    arguments.require("rng", rng, _GENERATOR)
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
    if rng is not None:
        keys.append(_at_random(size, few=unique, rng=rng))
    order: np.ndarray = fitting("sorting", size).order(keys, size)
    return order


def _at_random(size: int, few: bool, rng: np.random.Generator) -> _Key:
    """Random keys for all rows; or, where few rows are tied, only for those."""
    if not few:
        return rng.integers(1 << 32, size=size, dtype=np.uint32)
    salt = rng.integers(1 << 64, dtype=np.uint64)
    return lambda rows: scrambled(rows.astype(np.uint64) ^ salt)


def scrambled(numbers: np.ndarray) -> np.ndarray:
    """Uint64 to uint64 that look drawn at random (splitmix64, Steele et al. 2014); one to one."""
    with np.errstate(over="ignore"):
        mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return result


def _present(name: str, parts: Sequence[Samples], missing: Missing) -> bool:
    if all(name in part for part in parts):
        return bool(parts)
    if missing == "error":
        listed = sorted({column for part in parts for column in part})
        raise SchemaError(f"sort column {name!r} is missing; there are {listed}")
    if missing == "warn":
        warn(
            f"sort column {name!r} is missing and left out of the order; leave it out of sort_by, "
            'or set missing="skip"'
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
    """Unsigned keys of a column in one or more pieces, as wide as its values."""
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
        sorting = fitting("sorting", len(rows))
        found = sorting.mode_and_value(rows)
        modes.append(found.position)
        values.append(sorting.descending(found.value))
    return [np.concatenate(modes), np.concatenate(values)]


def _ranks(columns: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Order-preserving unsigned numbers of one-dimensional values."""
    if _orderable(columns[0]):
        sorting = fitting("sorting", sum(map(len, columns)))
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
