"""Layouts: how rows of numbers lie in Parquet files, and how they become arrays and back.

    binary   one column of a fixed length, the numbers as they are in memory: read without decoding
    lists    one column of lists, of a fixed size or not
    wide     a column a number: ``yhat_0``, ``yhat_1``, ...

The first is the fast one (`rewrite` writes it); all three are read.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memento import arguments, arrow
from memento.casting import common_type
from memento.columns import as_column
from memento.errors import SchemaError, SettingError

__all__ = ["Source", "binary", "binary_type", "check_same", "decoded", "source_of", "stored"]

_DTYPE = b"memento.dtype"
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Source:
    """Where a column comes from.

    Attributes:
        name: The column's name for the policy.
        columns: Columns of the file.
        form: ``"plain"`` (one column as it is, lists included), ``"wide"`` or ``"binary"``.
        dtype: Of the numbers in a binary column.
    """

    name: str
    columns: tuple[str, ...]
    form: str = "plain"
    dtype: str = ""


def source_of(name: str, schema: Any, maps: Mapping[str, Sequence[str]]) -> Source | None:
    """Where a column of the policy's comes from, in files of this schema.

    Args:
        name: The column.
        schema: Arrow schema of the files.
        maps: For some names the columns, or patterns of columns, that they are made of.

    Returns:
        None if there is no such column, and none ``NAME_0``, ``NAME_1`` and so on.

    Raises:
        SchemaError: A column of the map is not there.
    """
    types = arrow.import_arrow("reading Parquet files").types
    known = list(schema.names)
    if name in maps:
        found = [column for pattern in maps[name] for column in _matching(name, pattern, known)]
        if len(found) > 1 or _WILD.search(maps[name][0]):
            return Source(name, tuple(found), "wide")
    elif name in known:
        found = [name]
    else:
        wide: list[str] = []
        while f"{name}_{len(wide)}" in known:
            wide.append(f"{name}_{len(wide)}")
        return Source(name, tuple(wide), "wide") if wide else None
    field = schema.field(found[0])
    if not types.is_fixed_size_binary(field.type):
        return Source(name, (found[0],))
    stated = (field.metadata or {}).get(_DTYPE)
    dtype = "float32" if stated is None else stated.decode()
    try:
        width = np.dtype(dtype).itemsize
    except TypeError:
        width = 0
    if not width or field.type.byte_width % width:
        raise SchemaError(
            f"column {found[0]!r} has {field.type.byte_width} bytes a row, which are no numbers of "
            f"type {dtype!r}; state another in the field's metadata as {_DTYPE.decode()!r}"
        )
    return Source(name, (found[0],), "binary", dtype)


def _matching(name: str, pattern: str, known: Sequence[str]) -> list[str]:
    found = [column for column in known if fnmatch.fnmatchcase(column, pattern)]
    if not found:
        raise SchemaError(
            f"no column {pattern!r}, which {name!r} is made of; there are {', '.join(known)}"
        )
    return sorted(found, key=_natural)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which p_2 comes before p_10."""
    parts = [part for part in re.split(r"(\d+)", name) if part]
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def decoded(table: Any, source: Source) -> np.ndarray:
    """A column of the policy's as an array, from a table that was read.

    Raises:
        SchemaError: Missing values, ragged lists, or types that are no numbers.
    """
    if source.form == "binary":
        return _from_binary(source, table.column(source.columns[0]))
    if source.form == "plain":
        return as_column(source.name, table.column(source.columns[0]))
    parts = [as_column(column, table.column(column)) for column in source.columns]
    for column, part in zip(source.columns, parts, strict=True):
        if part.ndim != 1 or part.dtype.kind not in "biuf":
            raise SchemaError(
                f"column {column!r} is {part.dtype} of shape {part.shape}; columns that make "
                f"{source.name!r} hold one number a row"
            )
    stacked = np.empty((len(table), len(parts)), common_type(source.name, parts))
    for i, part in enumerate(parts):
        stacked[:, i] = part
    return stacked


def _from_binary(source: Source, column: Any) -> np.ndarray:
    """``(n, k)`` of a column of a fixed length: chunks are copied once, nothing is decoded."""
    if column.null_count:
        raise SchemaError(
            f"column {source.name!r} has {column.null_count:,} missing values of {len(column):,}; "
            "fill or drop them first"
        )
    dtype = np.dtype(source.dtype)
    width = column.type.byte_width // dtype.itemsize
    found = np.empty((len(column), width), dtype)
    at = 0
    for chunk in column.chunks:
        size = len(chunk)
        offset = chunk.offset * column.type.byte_width
        values = np.frombuffer(chunk.buffers()[1], dtype, size * width, offset)
        found[at : at + size] = values.reshape(size, width)
        at += size
    return found


# --- and back ---------------------------------------------------------------------------------


def binary_type(name: str, width: int, dtype: np.dtype[Any]) -> Any:
    """The field of a column in the fast layout."""
    pa = arrow.import_arrow("writing Parquet files")
    kind = pa.binary(width * dtype.itemsize)
    return pa.field(name, kind, nullable=False, metadata={_DTYPE: dtype.name.encode()})


def binary(rows: np.ndarray) -> Any:
    """``(n, k)`` numbers as an Arrow array of a fixed length; nothing is copied."""
    pa = arrow.import_arrow("writing Parquet files")
    rows = np.ascontiguousarray(rows)
    kind = pa.binary(rows.shape[1] * rows.dtype.itemsize)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(rows), [None, pa.py_buffer(rows)])


def stored(array: np.ndarray, source: Source, schema: Any) -> dict[str, Any]:
    """The columns of files of this schema that hold an array: the reverse of `decoded`.

    Raises:
        SchemaError: They cannot: another width or type.
    """
    pa = arrow.import_arrow("writing Parquet files")
    if source.form == "wide":
        if array.ndim != 2 or array.shape[1] != len(source.columns):
            raise SchemaError(
                f"column {source.name!r} has the shape {array.shape}; the files have "
                f"{len(source.columns)} columns for it"
            )
        made = {column: pa.array(array[:, i]) for i, column in enumerate(source.columns)}
    elif source.form == "binary":
        rows = array.astype(source.dtype, copy=False)
        made = {source.columns[0]: binary(rows.reshape(len(rows), -1))}
    else:
        made = {source.columns[0]: arrow.to_table({source.name: array}).column(0)}
    try:
        return {column: data.cast(schema.field(column).type) for column, data in made.items()}
    except (ValueError, NotImplementedError) as error:
        raise SchemaError(
            f"column {source.name!r} of type {array.dtype} and shape {array.shape} does not fit "
            f"the files: {error}"
        ) from error


def check_same(first: tuple[str, Any], other: tuple[str, Any], columns: Sequence[str]) -> None:
    """Raise unless two files, each by its path and schema, have the same columns.

    Args:
        first: One file.
        other: The other.
        columns: Those that count.

    Raises:
        SchemaError: With the file and the column.
    """
    (path, schema), (where, found) = first, other
    missing = [name for name in columns if name not in found.names]
    if missing:
        raise SchemaError(
            f"{where} lacks the column {missing[0]!r}, which {path} has; give all files the same "
            "columns, or name with columns=[...] (--columns) those that all have"
        )
    for name in columns:
        kind, wanted = found.field(name).type, schema.field(name).type
        if kind != wanted:
            raise SchemaError(
                f"{where}: column {name!r} is of type {kind}, in {path} of type {wanted}; write "
                "all files with one type"
            )


def check_widths(places: Sequence[str], found: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Raise unless arrays of all places are as wide: rows of numbers may be of other lengths."""
    first: dict[str, tuple[str, np.ndarray]] = {}
    for place, arrays in zip(places, found, strict=True):
        for name, array in arrays.items():
            before, other = first.setdefault(name, (place, array))
            if array.shape[1:] != other.shape[1:]:
                raise SchemaError(
                    f"{place}: rows of numbers are of another length than in {before}: "
                    f"{array.shape[1:]} and {other.shape[1:]}; give all rows one length"
                )


def check_maps(maps: Any) -> dict[str, tuple[str, ...]]:
    """Columns by the names or patterns that they are made of, checked."""
    if not isinstance(maps, Mapping):
        raise SettingError(f"maps is {maps!r}; expected names, each with columns or a pattern")
    return {name: _patterns(name, value) for name, value in maps.items()}


def _patterns(name: Any, value: Any) -> tuple[str, ...]:
    found = arguments.names(f"maps[{name!r}]", value)
    if not found:
        raise SettingError(f"maps[{name!r}] is empty; expected columns or a pattern")
    return found
