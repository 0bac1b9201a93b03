"""Samples: equal-length named columns of any type and trailing shape."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from memento import arguments, arrow
from memento.casting import common_type
from memento.columns import as_column
from memento.errors import (
    ColumnTypeError,
    MementoError,
    RowError,
    SchemaError,
    needs,
    reason_of,
)

__all__ = ["Samples"]

_ROW = arguments.whole(0)
_PARTS = arguments.Expected("a list of Samples", lambda parts: _are_samples(parts))


class Samples(Mapping[str, np.ndarray]):
    """Read-only columns of equal length; row ``i`` of every column is sample ``i``.

    As a mapping it goes from column names to numpy arrays, so ``len(samples)`` is the number of
    columns; the number of rows is ``samples.size``. A column may have any dtype that can be stored
    without pickling (numbers, bool, strings, datetimes, structured) and any trailing shape, such as
    ``(n, 62)`` inputs or ``(n, 28, 28)`` images.

    Args:
        data: A mapping of names to array-likes, a pandas or polars DataFrame, an Arrow table,
            anything with ``__arrow_c_stream__`` or ``__arrow_c_array__`` (DuckDB's relations,
            readers of batches), a dataset of pyarrow's, or another ``Samples``; array-likes include
            torch tensors, Series and Arrow columns.
        **columns: Further columns by name.

    The data is copied: neither changes to the caller's arrays nor to these can reach the other. No
    value changes on the way: what has no exact place is refused. Times with a zone are kept as
    instants in UTC, lists of one length are further axes. NaN and NaT are values; what is missing
    otherwise (None, nulls, masks) is refused.

    Raises:
        SchemaError: Columns differ in length, a name stands there twice, a column has no rows axis,
            has missing values, or holds Python objects.
        ColumnTypeError: It is a SchemaError as well: numpy has no type that keeps the values.
        MissingExtraError: Data that speaks only Arrow, and pyarrow is not installed.

    Example:
        >>> samples = Samples(y=[0, 1, 1], name=["a", "b", "c"])
        >>> samples.size, list(samples)
        (3, ['y', 'name'])
        >>> samples.take([2, 0])["y"]
        array([1, 0])
    """

    __slots__ = ("_columns", "_size", "owner", "parts")

    #: The memory that this is the content of, or nothing: two contents of one memory are no
    #: independent samples, which tests have to know. What is made from them has none.
    owner: object | None
    #: Names that the columns of a table had of which one of rows was made; only as it was read.
    parts: Mapping[str, Sequence[str]]

    def __init__(self, data: Any = None, /, **columns: Any) -> None:
        borrowed = Samples.borrow(data, **columns)
        self._columns = {name: _frozen(array.copy()) for name, array in borrowed.items()}
        self._size = borrowed.size
        self.owner = None
        self.parts = {}

    @classmethod
    def borrow(cls, data: Any = None, /, **columns: Any) -> Samples:
        """The same without copying: for code that reads at once and keeps nothing.

        Args and errors are those of the constructor.
        """
        return cls._read(data, columns, mark=False)

    @classmethod
    def borrow_marked(cls, data: Any = None, /, **columns: Any) -> Samples:
        """The same without copying, and with marks for what is missing instead of a refusal.

        A missing number is NaN, and whole numbers are then float64; a missing time is NaT, a
        missing text the empty one. Args and other errors are those of the constructor.

        Example:
            >>> Samples.borrow_marked(y=[1, None])["y"]
            array([ 1., nan])
        """
        return cls._read(data, columns, mark=True)

    @classmethod
    @arguments.checked
    def borrow_identified(cls, ids: str, data: Any, columns: Mapping[str, Any]) -> Samples:
        """As `borrow_marked` where there is a column of ids, as `borrow` where there is none.

        What is missing can come later only for samples that are told apart.

        Example:
            >>> Samples.borrow_identified("id", {"id": [7, 8], "y": [None, 1]}, {})["y"]
            array([nan,  1.])
        """
        return cls._read(data, columns, mark=ids)

    @classmethod
    def _read(cls, data: Any, columns: Mapping[str, Any], mark: bool | str) -> Samples:
        """Columns as arrays; ``mark``: whether missing values are marked, or by which column."""
        arrays: dict[str, np.ndarray] = {}
        items = [*_items(data), *columns.items()]
        if isinstance(mark, str):
            mark = any(isinstance(name, str) and name == mark for name, _ in items)
        for name, values in items:
            if not isinstance(name, str) or not name:
                raise SchemaError(
                    f"a column is called {name!r}; names are non-empty strings, so rename it"
                )
            if name in arrays:
                raise SchemaError(f"column {name!r} is given twice; rename one or drop it")
            arrays[name] = _frozen(as_column(name, values, mark=mark))
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name}: {size:,}" for name, size in sizes.items())
            raise SchemaError(f"columns differ in length ({listed}); all need the same rows")
        samples = cls.__new__(cls)
        samples._columns = arrays
        samples._size = next(iter(sizes.values()), 0)
        samples.owner = None
        samples.parts = {}
        return samples

    def owned_by(self, owner: object) -> Samples:
        """The same, as the content of a memory; nothing is copied."""
        samples = Samples.borrow(self)
        samples.owner = owner
        return samples

    @classmethod
    def concat(cls, parts: Sequence[Samples]) -> Samples:
        """One after the other; all parts need the same columns.

        Types may differ as long as one holds all values exactly.

        Raises:
            SettingError: They are no samples.
            SchemaError: A column is missing somewhere, or differs in its trailing shape, or no type
                holds all its values.

        Example:
            >>> Samples.concat([Samples(y=[1]), Samples(y=[2, 3])])["y"]
            array([1, 2, 3])
        """
        parts = list(parts) if isinstance(parts, Collection | Iterator) else parts
        arguments.require("parts", parts, _PARTS)
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
            arrays = [part[name] for part in parts]
            joined[name] = np.concatenate(arrays, dtype=common_type(name, arrays), casting="unsafe")
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

        Raises:
            RowError: They are something else; also an ``IndexError``.
        """
        rows = self._checked_rows(rows)
        return Samples.borrow({name: array[rows] for name, array in self._columns.items()})

    def _checked_rows(self, rows: Any) -> np.ndarray:
        """Row numbers, or a mask, as an array."""
        try:
            rows = np.asarray(rows)
        except ValueError:
            rows = np.empty((0, 0), object)
        if rows.size == 0 and rows.ndim == 1 and rows.dtype != bool:
            return rows.astype(np.int64)
        if rows.ndim != 1 or rows.dtype.kind not in "biu":
            raise RowError(
                f"rows of type {rows.dtype} and shape {rows.shape}; give a list of row numbers, or "
                f"a mask of shape ({self._size},)"
            )
        if rows.dtype == bool and len(rows) != self._size:
            raise RowError(f"a mask of {len(rows):,} values for {self._size:,} rows; give one each")
        if rows.dtype != bool and (int(rows.max()) >= self._size or int(rows.min()) < -self._size):
            raise RowError(
                f"rows from {rows.min():,} to {rows.max():,} of {self._size:,}; count from 0 to "
                f"{self._size - 1:,}, or from -1 backwards"
            )
        return rows

    def rows(self, start: int, stop: int) -> Samples:
        """The rows from ``start`` up to ``stop``, without copying.

        Raises:
            SettingError: They are no whole numbers, 0 or more.
        """
        for name, value in (("start", start), ("stop", stop)):
            arguments.require(name, value, _ROW)
        return Samples.borrow({name: array[start:stop] for name, array in self._columns.items()})

    def chunks(self, size: int) -> Iterator[Samples]:
        """Consecutive pieces of ``size`` rows (the last may be shorter), without copying.

        Example:
            >>> [chunk.size for chunk in Samples(y=range(5)).chunks(2)]
            [2, 2, 1]
        """
        arguments.require("size", size, arguments.whole())
        for start in range(0, self._size, size):
            yield self.rows(start, start + size)

    def select(self, names: Iterable[str]) -> Samples:
        """Only the named columns, without copying.

        Raises:
            SettingError: They are no names.
            SchemaError: There is no column of a name.
        """
        listed = list(names) if isinstance(names, (Set, Mapping, Iterator)) else names
        chosen = arguments.names("names", listed)
        if unknown := [name for name in chosen if name not in self._columns]:
            raise SchemaError(f"no column {unknown[0]!r}; there are {sorted(self)}")
        return Samples.borrow({name: self[name] for name in chosen})

    def without(self, *names: str) -> Samples:
        """All but the named columns, without copying."""
        rest = Samples.borrow({n: array for n, array in self._columns.items() if n not in names})
        rest.parts = {n: parts for n, parts in self.parts.items() if n not in names}
        return rest

    def with_columns(self, data: Any = None, /, **columns: Any) -> Samples:
        """These columns with some added or replaced; nothing is copied.

        Raises:
            SchemaError: A new column has another length.
        """
        return Samples.borrow({**self._columns, **Samples.borrow(data, **columns)})

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table``; columns of shape ``(n, k)`` are lists of a fixed size.

        Raises:
            ColumnTypeError: Arrow has no such type (complex numbers, structures).
            MissingExtraError: pyarrow is not installed.

        Example:
            >>> Samples(y=[0, 1], x=[[0.5, 1.5], [2.5, 3.5]]).to_arrow().schema.names
            ['y', 'x']
        """
        return arrow.to_table(self._columns)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``; columns of shape ``(n, k)`` hold a list in each row.

        Raises:
            ColumnTypeError: pandas has no such type.
            MissingExtraError: pandas is not installed.

        Example:
            >>> Samples(y=[0, 1], x=[[0.5, 1.5], [2.5, 3.5]]).to_pandas()["x"].tolist()
            [[0.5, 1.5], [2.5, 3.5]]
        """
        with needs("pandas", None, "to_pandas()"):
            import pandas as pd
        made = {}
        for name, array in self._columns.items():
            listed = array.ndim > 1 or array.dtype.names
            try:
                made[name] = pd.Series(array.tolist(), dtype=object) if listed else array
                pd.Series(made[name][:1])
            except Exception as error:
                raise ColumnTypeError(
                    name,
                    f"column {name!r} of type {array.dtype} has no type of pandas' that keeps it",
                    "convert it first, or leave it out with samples.without(...)",
                ) from error
        return pd.DataFrame(made)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The columns as an Arrow stream, as `to_arrow`: polars, DuckDB and others read it."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Refused: `pandas.DataFrame` asks for it, and would show the names as data."""
        raise SchemaError(
            "samples are a table, not an array; take samples[name], or samples.to_pandas(), "
            "to_arrow() or polars.DataFrame(samples)"
        )


def _frozen(array: np.ndarray) -> np.ndarray:
    """A view that refuses to be written to; the array itself stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view


def _items(data: Any) -> Iterable[tuple[Any, Any]]:
    """Names and columns of any table-like, recognised by what it can do, not by its type.

    So neither pandas nor polars has to be imported, or even installed; pyarrow only where what
    comes speaks nothing but Arrow.
    """
    if data is None:
        return ()
    if isinstance(data, Samples):
        return data.items()
    try:
        found = _columns(data)
    except (MementoError, MemoryError):
        raise
    except Exception as error:  # whatever a foreign library raises about its own table
        reason = reason_of(error)
        raise SchemaError(
            f"cannot read columns from {type(data).__name__}: {reason}; {_TABLES}"
        ) from error
    if found is None:
        raise SchemaError(f"cannot read columns from {type(data).__name__}; {_TABLES}")
    return found


_TABLES = (
    "give a mapping of names to arrays, a DataFrame, an Arrow table, a list of rows that are "
    "mappings, or columns by keyword"
)


def _columns(data: Any) -> list[tuple[Any, Any]] | None:
    """Names and columns of a table of any library; None if it is none."""
    if hasattr(data, "iloc") and hasattr(data, "columns"):  # pandas; names may stand there twice
        return [(name, data.iloc[:, i]) for i, name in enumerate(data.columns)]
    if hasattr(data, "get_columns"):  # polars
        return [(column.name, column) for column in data.get_columns()]
    if hasattr(data, "with_format") and hasattr(data, "column_names"):  # Hugging Face's datasets
        data = data.with_format("arrow")[:]
    if not hasattr(data, "__arrow_c_stream__") and hasattr(data, "to_table"):
        data = data if isinstance(data, Mapping) else data.to_table()  # a dataset of pyarrow's
    if not hasattr(data, "column_names") and (
        hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")
    ):
        data = arrow.table_of(data)
    if hasattr(data, "column_names") and hasattr(data, "column"):  # a table or a batch of pyarrow's
        return [(name, data.column(i)) for i, name in enumerate(data.column_names)]
    if isinstance(data, Mapping):
        return list(data.items())
    if isinstance(data, np.ndarray) and data.dtype.names:
        return [(name, data[name]) for name in data.dtype.names]
    if isinstance(data, (list, tuple)) and data and all(isinstance(row, Mapping) for row in data):
        return _of_rows(data)
    return None


def _of_rows(rows: Sequence[Mapping[Any, Any]]) -> list[tuple[Any, Any]]:
    """Names and columns of rows that are mappings, which all have the same names."""
    first = rows[0]
    for number, row in enumerate(rows):
        if row.keys() != first.keys():
            raise SchemaError(
                f"row {number} has {list(row)}, row 0 has {list(first)}; give all rows the same "
                "names, with NaN or '' for what is missing"
            )
    return [(name, [row[name] for row in rows]) for name in first]


def _are_samples(parts: Any) -> bool:
    return isinstance(parts, list) and all(isinstance(part, Samples) for part in parts)
