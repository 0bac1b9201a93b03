"""From Arrow and back: columns of any library that speaks it.

Needs pyarrow, which is imported only when something of Arrow's comes or is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np

from memento.casting import check_width, common_type, exactly, with_marks
from memento.errors import ColumnTypeError, MementoError, SchemaError, needs

__all__ = [
    "array_of",
    "import_arrow",
    "is_numeric",
    "is_time",
    "numbers_of",
    "numpy_of",
    "refuse_nul",
    "table_of",
    "texts_of",
    "to_table",
]


def import_arrow(purpose: str) -> Any:
    """The package pyarrow.

    Args:
        purpose: What needs it, for the message.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs("pyarrow", "cli", purpose):
        import pyarrow as pa
        import pyarrow.compute
    return pa


def table_of(data: Any) -> Any:
    """A table of pyarrow from anything with ``__arrow_c_stream__``, or ``__arrow_c_array__``."""
    arrow = import_arrow(f"reading a {type(data).__name__} through Arrow")
    if hasattr(data, "__arrow_c_stream__"):
        return arrow.RecordBatchReader.from_stream(data).read_all()
    return arrow.record_batch(data)


def array_of(values: Any) -> Any:
    """An array of pyarrow from anything with ``__arrow_c_array__``, or ``__arrow_c_stream__``."""
    arrow = import_arrow(f"reading a {type(values).__name__} through Arrow")
    if hasattr(values, "__arrow_c_array__"):
        return arrow.array(values)
    return arrow.chunked_array(values)


def numpy_of(name: str, values: Any, *, mark: bool = False) -> np.ndarray:
    """An array of pyarrow, chunked or not, as one of numpy.

    Args:
        name: The column's, for messages.
        values: An array of pyarrow, chunked or not.
        mark: Whether missing values are marked, see `memento.casting.with_marks`, not refused.

    Returns:
        ``(n, ...)``; lists of one length are further axes, times with a zone instants in UTC.

    Raises:
        ColumnTypeError: numpy has no such type.
        SchemaError: Missing values, or lists of several lengths.
    """
    if values.null_count and mark and not import_arrow("reading").types.is_nested(values.type):
        return with_marks(
            name,
            numpy_of(name, values.drop_null()),
            np.asarray(values.is_null()),
        )
    if values.null_count and not is_time(values.type):  # a time has a place for it, NaT
        raise SchemaError(
            f"column {name!r} has {values.null_count:,} missing values of {len(values):,}; "
            "fill or drop them first"
        )
    if hasattr(values, "chunks"):
        if values.num_chunks == 1:
            return numpy_of(name, values.chunk(0))
        if not values.num_chunks:
            return numpy_of(name, values.combine_chunks())
        parts = [numpy_of(name, chunk) for chunk in values.chunks]
        shapes = {part.shape[1:] for part in parts if len(part)}
        if len(shapes) > 1:
            _refuse_ragged(name, [shape[0] for shape in shapes])
        parts = [part for part in parts if len(part)] or parts[:1]
        return np.concatenate(parts, dtype=common_type(name, parts))
    return _plain(name, values)


def _plain(name: str, values: Any) -> np.ndarray:
    """One array without missing values."""
    arrow = import_arrow("reading Arrow data")
    types, kind = arrow.types, values.type
    if _is_list(types, kind):
        return _lists(name, values)
    if types.is_dictionary(kind):
        return _dictionary(name, values)
    if types.is_run_end_encoded(kind):
        return numpy_of(name, arrow.compute.run_end_decode(values))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _text(name, arrow, values, arrow.large_string())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return _text(name, arrow, values, arrow.large_binary())
    if types.is_fixed_size_binary(kind):
        return _text(name, arrow, values, arrow.large_binary())
    if types.is_decimal(kind) and kind.scale <= 0:
        return np.asarray(values.cast(arrow.int64()).to_numpy())
    if is_numeric(kind):
        return np.asarray(numbers_of(name, values))
    if types.is_null(kind):
        return np.empty(0)
    if hasattr(values, "to_numpy_ndarray"):  # tensors of one shape
        if values.storage.flatten().null_count:
            _refuse_inner(name)
        return np.asarray(values.to_numpy_ndarray())
    plain = types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    if plain or is_time(kind):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    remedy = "cast it to a type of numbers, text or times"
    if types.is_struct(kind):
        remedy = "make each of its fields a column"
    raise ColumnTypeError(name, f"column {name!r} is of Arrow's type {kind}", remedy)


def is_numeric(kind: Any) -> bool:
    """Whether an Arrow type is PostgreSQL's numeric, which its driver gives as texts."""
    return getattr(kind, "type_name", None) == "numeric" and hasattr(kind, "storage_type")


def numbers_of(name: str, values: Any) -> Any:
    """PostgreSQL's numeric as an array of float64, if that changes no value.

    Raises:
        ColumnTypeError: It does.
    """
    arrow = import_arrow("reading Arrow data")
    texts = texts_of(values)
    numbers = texts.cast(arrow.float64())
    for text, number in zip(texts.to_pylist(), numbers.to_pylist(), strict=True):
        if text is not None and number == number and Decimal(text) != Decimal(repr(number)):
            raise ColumnTypeError(
                name,
                f"column {name!r} is of the type numeric, and float64 does not keep its {text}",
                f"make it one in the query, as in {name}::float8",
            )
    return numbers


def texts_of(values: Any) -> Any:
    """The texts that PostgreSQL's numeric comes as."""
    arrow = import_arrow("reading Arrow data")
    chunks = values.chunks if hasattr(values, "chunks") else [values]
    return arrow.chunked_array([chunk.storage for chunk in chunks], values.type.storage_type)


def is_time(kind: Any) -> bool:
    """Whether an Arrow type is one of dates, times or durations that numpy has, too."""
    types = import_arrow("reading Arrow data").types
    return bool(types.is_timestamp(kind) or types.is_date(kind) or types.is_duration(kind))


def _is_list(types: Any, kind: Any) -> bool:
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _lists(name: str, values: Any) -> np.ndarray:
    width = getattr(values.type, "list_size", None)
    if width is None:
        lengths = np.asarray(values.value_lengths())
        if len(lengths) and lengths.min() != lengths.max():
            _refuse_ragged(name, [int(lengths.min()), int(lengths.max())])
        width = int(lengths[0]) if len(lengths) else 0
    flat = values.flatten()
    if flat.null_count and not is_time(flat.type):
        _refuse_inner(name)
    inner = numpy_of(name, flat)
    return inner.reshape(len(values), width, *inner.shape[1:])


def _refuse_ragged(name: str, widths: list[int]) -> NoReturn:
    raise SchemaError(
        f"column {name!r} is ragged: lists of {min(widths)} to {max(widths)} values; "
        "pad them or split the column"
    )


def _refuse_inner(name: str) -> NoReturn:
    raise SchemaError(f"column {name!r} has missing values in its lists; fill them first")


def _dictionary(name: str, values: Any) -> np.ndarray:
    """Categories by their codes, so that long ones are not repeated before they are measured."""
    codes = np.asarray(values.indices.to_numpy(zero_copy_only=False))
    if values.dictionary.null_count:
        return numpy_of(name, values.dictionary_decode())
    categories = numpy_of(name, values.dictionary)
    if categories.dtype.kind in "US":
        width = categories.dtype.itemsize // (4 if categories.dtype.kind == "U" else 1)
        check_width(name, width, len(codes), categories.nbytes + codes.nbytes)
    return np.asarray(categories[codes])


def _text(name: str, arrow: Any, values: Any, kind: Any) -> np.ndarray:
    """Strings or bytes, at the width of the longest."""
    compute = arrow.compute
    values = values.cast(kind)
    text = arrow.types.is_large_string(kind)
    lengths = compute.utf8_length(values) if text else compute.binary_length(values)
    width = compute.max(lengths).as_py() or 1
    if compute.any(compute.ends_with(values, pattern="\0")).as_py():
        refuse_nul(name)
    check_width(name, width, len(values), values.nbytes)
    found = values.to_numpy(zero_copy_only=False)
    return np.asarray(found.astype(f"{'U' if text else 'S'}{width}"))


def refuse_nul(name: str) -> NoReturn:
    """Raise that numpy's texts lose zero bytes at their end."""
    raise ColumnTypeError(
        name,
        f"column {name!r} has values that end with a zero byte, which would be lost",
        "store them as hexadecimal text",
    )


# --- and back --------------------------------------------------------------------------------


def to_table(columns: Mapping[str, np.ndarray]) -> Any:
    """A table of pyarrow; columns of shape ``(n, k)`` are lists of a fixed size.

    Raises:
        ColumnTypeError: Arrow has no such type (complex numbers, structures).
        MissingExtraError: pyarrow is not installed.
    """
    arrow = import_arrow("making an Arrow table")
    made = {}
    for name, array in columns.items():
        try:
            made[name] = _to_arrow(arrow, array)
        except (MementoError, MemoryError):
            raise
        except Exception as error:
            raise ColumnTypeError(
                name,
                f"column {name!r} of type {array.dtype} has no type of Arrow's that keeps it",
                "convert it first, or leave it out (NPZ files hold every type)",
            ) from error
    return arrow.table(made)


def _to_arrow(arrow: Any, array: np.ndarray) -> Any:
    if array.ndim > 1:
        rows = array.shape[0] * array.shape[1]
        flat = _to_arrow(arrow, np.ascontiguousarray(array).reshape(rows, *array.shape[2:]))
        kind = arrow.list_(flat.type, array.shape[1])
        return arrow.FixedSizeListArray.from_buffers(kind, len(array), [None], children=[flat])
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind in "Mm":
        array = _known_unit(array)
    if array.dtype.kind == "S":  # Arrow ends numpy's bytes at the first zero
        return arrow.array(array.tolist(), arrow.binary())
    return arrow.array(array)


def _known_unit(array: np.ndarray) -> np.ndarray:
    """Times in the coarsest unit of Arrow's that keeps them."""
    kind = array.dtype.kind
    units = ["D", "s", "ms", "us", "ns"] if kind == "M" else ["s", "ms", "us", "ns"]
    unit, count = np.datetime_data(array.dtype)
    if count == 1 and unit in units[1:]:
        return array
    for unit in units:
        cast = exactly(array, np.dtype(f"{kind}8[{unit}]"))
        if cast is not None and (unit != "D" or _is_date(cast)):
            return cast
    raise ValueError(f"no unit of Arrow's keeps {array.dtype}")


def _is_date(days: np.ndarray) -> bool:
    """Whether Arrow's dates, of 32 bits, hold these."""
    numbers = days[~np.isnat(days)].view(np.int64)
    return not numbers.size or bool(np.abs(numbers).max() < 2**31)
