"""Samples: equal-length named columns of any type and trailing shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from memento.errors import SchemaError

__all__ = ["Samples"]


class Samples(Mapping[str, np.ndarray]):
    """Read-only columns of equal length; row ``i`` of every column is sample ``i``.

    As a mapping it goes from column names to numpy arrays, so ``len(samples)`` is the number of
    columns; the number of rows is ``samples.size``. A column may have any dtype that can be stored
    without pickling (numbers, bool, strings, datetimes, structured) and any trailing shape, such as
    ``(n, 62)`` inputs or ``(n, 28, 28)`` images.

    Args:
        data: A mapping of names to array-likes, a pandas or polars DataFrame, an Arrow table, or
            another ``Samples``; array-likes include torch tensors, Series and Arrow columns.
        **columns: Further columns by name.

    The data is copied: neither changes to the caller's arrays nor to these can reach the other.

    Raises:
        SchemaError: Columns differ in length, a column has no rows axis, or holds Python objects.

    Example:
        >>> samples = Samples(y=[0, 1, 1], name=["a", "b", "c"])
        >>> samples.size, list(samples)
        (3, ['y', 'name'])
        >>> samples.take([2, 0])["y"]
        array([1, 0])
    """

    __slots__ = ("_columns", "_size")

    def __init__(self, data: Any = None, /, **columns: Any) -> None:
        borrowed = Samples.borrow(data, **columns)
        self._columns = {name: _frozen(array.copy()) for name, array in borrowed.items()}
        self._size = borrowed.size

    @classmethod
    def borrow(cls, data: Any = None, /, **columns: Any) -> Samples:
        """The same without copying: for code that reads at once and keeps nothing.

        Args and errors are those of the constructor.
        """
        arrays: dict[str, np.ndarray] = {}
        for name, values in (*_items(data), *columns.items()):
            if not isinstance(name, str) or not name:
                raise SchemaError(f"a column is called {name!r}; names are non-empty strings")
            if name in arrays:
                raise SchemaError(f"column {name!r} is given twice; give it once")
            arrays[name] = _frozen(_array(name, values))
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name}: {size:,}" for name, size in sizes.items())
            raise SchemaError(f"columns differ in length ({listed}); all need the same rows")
        samples = cls.__new__(cls)
        samples._columns = arrays
        samples._size = next(iter(sizes.values()), 0)
        return samples

    @classmethod
    def concat(cls, parts: Sequence[Samples]) -> Samples:
        """One after the other; all parts need the same columns.

        Raises:
            SchemaError: A column is missing somewhere, or differs in its trailing shape.

        Example:
            >>> Samples.concat([Samples(y=[1]), Samples(y=[2, 3])])["y"]
            array([1, 2, 3])
        """
        parts = list(parts)
        if not parts:
            return cls()
        names = list(parts[0])
        for part in parts[1:]:
            if set(part) != set(names):
                raise SchemaError(
                    f"parts have the columns {sorted(names)} and {sorted(part)}; "
                    "give every part the same columns"
                )
        joined = {}
        for name in names:
            shapes = {part[name].shape[1:] for part in parts}
            if len(shapes) > 1:
                raise SchemaError(
                    f"column {name!r} has rows of the shapes {sorted(shapes)}; use one shape"
                )
            joined[name] = np.concatenate([part[name] for part in parts])
        return cls.borrow(joined)

    @property
    def size(self) -> int:
        """The number of rows."""
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of all columns together."""
        return sum(array.nbytes for array in self._columns.values())

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            return self._columns[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; there are {sorted(self._columns)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        columns = ", ".join(
            f"{name}: {array.dtype}{list(array.shape[1:]) or ''}"
            for name, array in self._columns.items()
        )
        return f"<Samples of {self._size:,} rows ({columns})>"

    def take(self, rows: Any) -> Samples:
        """The given rows, in the given order, copied.

        Args:
            rows: Integers in ``[-size, size)`` or a boolean mask of shape ``(size,)``.
        """
        rows = np.asarray(rows)
        if rows.size == 0 and rows.dtype != bool:
            rows = rows.astype(np.int64)
        return Samples.borrow({name: array[rows] for name, array in self._columns.items()})

    def rows(self, start: int, stop: int) -> Samples:
        """The rows from ``start`` up to ``stop``, without copying."""
        return Samples.borrow({name: array[start:stop] for name, array in self._columns.items()})

    def chunks(self, size: int) -> Iterator[Samples]:
        """Consecutive pieces of ``size`` rows (the last may be shorter), without copying.

        Example:
            >>> [chunk.size for chunk in Samples(y=range(5)).chunks(2)]
            [2, 2, 1]
        """
        for start in range(0, self._size, size):
            yield self.rows(start, start + size)

    def select(self, names: Iterable[str]) -> Samples:
        """Only the named columns, without copying."""
        return Samples.borrow({name: self[name] for name in names})

    def without(self, *names: str) -> Samples:
        """All but the named columns, without copying."""
        return Samples.borrow({n: array for n, array in self._columns.items() if n not in names})

    def with_columns(self, data: Any = None, /, **columns: Any) -> Samples:
        """These columns with some added or replaced; nothing is copied.

        Raises:
            SchemaError: A new column has another length.
        """
        return Samples.borrow({**self._columns, **Samples.borrow(data, **columns)})


def _frozen(array: np.ndarray) -> np.ndarray:
    """A view that refuses to be written to; the array itself stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def _items(data: Any) -> Iterable[tuple[str, Any]]:
    """Names and columns of any table-like, recognised by what it can do, not by its type.

    So neither pandas nor polars nor pyarrow has to be imported, or even installed.
    """
    if data is None:
        return ()
    if isinstance(data, Samples):
        return data.items()
    if hasattr(data, "column_names") and hasattr(data, "column"):  # Arrow table or record batch
        return [(name, data.column(i)) for i, name in enumerate(data.column_names)]
    if hasattr(data, "columns") and hasattr(data, "dtypes"):  # pandas or polars DataFrame
        return [(name, data[name]) for name in data.columns]
    if isinstance(data, Mapping):
        return data.items()
    if isinstance(data, np.ndarray) and data.dtype.names:
        return [(name, data[name]) for name in data.dtype.names]
    raise SchemaError(
        f"cannot read columns from {type(data).__name__}; give a mapping of names to arrays, a "
        "DataFrame, an Arrow table, or columns by keyword"
    )


def _array(name: str, values: Any) -> np.ndarray:
    if hasattr(values, "detach"):  # torch tensor
        values = values.detach().cpu().numpy()
    elif hasattr(values, "combine_chunks"):  # Arrow chunked array
        values = values.combine_chunks()
        if hasattr(values, "chunks"):
            values = values.chunk(0) if values.num_chunks else values.to_pylist()
    if missing := _missing(values):
        raise SchemaError(
            f"column {name!r} has {missing:,} missing values of {len(values):,}; "
            "fill or drop them first"
        )
    if hasattr(values, "buffers") and hasattr(values, "type"):  # Arrow array
        values = _arrow(name, values)
    elif not isinstance(values, np.ndarray) and hasattr(values, "to_numpy"):
        values = values.to_numpy()  # pandas or polars Series
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise SchemaError(
            f"column {name!r} is ragged: its rows differ in shape; pad them or split the column"
        ) from error
    if array.ndim == 0:
        raise SchemaError(f"column {name!r} is a single value; give one value for every row")
    if array.dtype.hasobject:
        array = _without_objects(name, array)
    return array


def _missing(values: Any) -> int:
    """How many values of a column are missing, where its library tells that apart from NaN."""
    nulls = getattr(values, "null_count", 0)
    if nulls or callable(nulls):
        return (
            int(nulls()) if callable(nulls) else int(nulls)
        )  # polars has a method, Arrow a number
    if hasattr(values, "isna") and not isinstance(values.dtype, np.dtype):  # pandas' own types
        return int(values.isna().sum())
    return 0


def _arrow(name: str, values: Any) -> np.ndarray:
    """An Arrow array as numpy; lists of equal length become further axes."""
    kind = str(values.type)
    if kind.startswith(("list", "large_list", "fixed_size_list")):
        lengths = np.unique(np.asarray(values.value_lengths()))
        if len(lengths) > 1:
            raise SchemaError(
                f"column {name!r} is ragged: lists of {lengths.min()} to {lengths.max()} values; "
                "pad them or split the column"
            )
        if values.flatten().null_count:
            raise SchemaError(f"column {name!r} has missing values in its lists; fill them first")
        inner = _arrow(name, values.flatten())
        width = int(lengths[0]) if len(lengths) else 0
        return inner.reshape(len(values), width, *inner.shape[1:])
    if kind.startswith("dictionary"):
        values = values.dictionary_decode()
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _without_objects(name: str, array: np.ndarray) -> np.ndarray:
    """Python strings become numpy strings, equal-shaped rows an axis; anything else is refused."""
    flat = array.reshape(-1)
    if all(isinstance(value, str) for value in flat):
        return array.astype(str)
    if all(isinstance(value, (list, tuple, np.ndarray)) for value in flat) and array.ndim == 1:
        try:
            stacked = np.asarray([np.asarray(value) for value in flat])
        except ValueError as error:
            raise SchemaError(
                f"column {name!r} is ragged: its rows differ in shape; pad them or split the column"
            ) from error
        if not stacked.dtype.hasobject:
            return stacked
    kinds = sorted({type(value).__name__ for value in flat[:1000]})
    raise SchemaError(
        f"column {name!r} holds Python objects ({', '.join(kinds)}), which cannot be stored; "
        "convert it to numbers, strings or datetimes"
    )
