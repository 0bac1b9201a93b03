"""Columns: anything array-like as a numpy array.

No value is changed on the way, and one rule holds whatever library a column comes from: times with
a zone are instants in UTC, lists of one length are further axes, and what is missing is refused,
but for NaN among floats and NaT among times.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from memento import arrow
from memento.casting import check_width, common_type, with_marks
from memento.errors import ColumnTypeError, MementoError, SchemaError, reason_of

__all__ = ["as_column"]

_CONVERT = "convert it to numbers, text or datetimes"
_AS_TEXT = "no type of numbers keeps all of them; make them text"
_RAGGED = "is ragged: its rows differ in shape; pad them or split the column"


def as_column(name: str, values: Any, *, mark: bool = False) -> np.ndarray:
    """A column as a numpy array, not copied where that can be.

    Args:
        name: The column's, for messages.
        values: An array-like: of numpy, a list, a Series, an Arrow array, a torch tensor.
        mark: Whether missing values are marked, see `memento.casting.with_marks`, not refused.

    Returns:
        ``(n, ...)``, of a type that can be stored without pickling.

    Raises:
        ColumnTypeError: There is no such type, or values would change on the way to one.
        SchemaError: Missing values, rows of several shapes, or no rows axis.

    Example:
        >>> as_column("x", [[0.5, 1.5], [2.5, 3.5]]).shape
        (2, 2)
    """
    try:
        array = _converted(name, values, mark)
    except (MementoError, MemoryError):
        raise
    except Exception as error:  # whatever a foreign library raises about its own arrays
        reason = reason_of(error)
        raise ColumnTypeError(
            name, f"column {name!r} ({type(values).__name__}) cannot be read: {reason}", _CONVERT
        ) from error
    if array.ndim == 0:
        raise SchemaError(f"column {name!r} is a single value; give one value for every row")
    return array


def _converted(name: str, values: Any, mark: bool) -> np.ndarray:
    """An array of numpy's, by what the values can do, so that no library has to be imported."""
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        if mark and mask.dtype == bool and values.ndim and mask.any():
            return with_marks(name, values.compressed(), mask)
        _refuse_missing(name, int(np.frombuffer(mask.tobytes(), bool).sum()), values.size)
        values = values.data
    if isinstance(values, np.ndarray):
        return _storable(name, np.asarray(values), mark)
    if hasattr(values, "detach"):
        return _tensor(name, values)
    if hasattr(values, "type") and (hasattr(values, "buffers") or hasattr(values, "chunks")):
        return arrow.numpy_of(name, values, mark=mark)
    if hasattr(values, "isna") and hasattr(values, "dtype"):
        return _pandas(name, values, mark)
    if callable(getattr(values, "null_count", None)) and hasattr(values, "to_numpy"):
        return _polars(name, values, mark)
    if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
        return arrow.numpy_of(name, arrow.array_of(values), mark=mark)
    return _sequence(name, values, mark)


def _refuse_missing(name: str, missing: int, size: int) -> None:
    if missing:
        raise SchemaError(
            f"column {name!r} has {missing:,} missing values of {size:,}; fill or drop them first"
        )


def _refuse_type(name: str, what: str) -> NoReturn:
    raise ColumnTypeError(name, f"column {name!r} {what}", _CONVERT)


# --- numpy's arrays, lists and objects -------------------------------------------------------


def _storable(name: str, array: np.ndarray, mark: bool) -> np.ndarray:
    """An array of numpy's, if it can be stored without pickling; objects become what they are."""
    if array.dtype.kind == "T":  # strings of any length
        array = array.astype(object)
    if array.dtype == object:
        return _objects(name, array, mark)
    if array.dtype.hasobject or _foreign(array.dtype):
        _refuse_type(name, f"is of type {array.dtype}, which cannot be stored")
    return array


def _foreign(dtype: np.dtype[Any]) -> bool:
    """Whether reading such an array back would need another package."""
    if dtype.names:
        return any(_foreign(dtype[name]) for name in dtype.names)
    return dtype.base.isbuiltin == 2


def _sequence(name: str, values: Any, mark: bool) -> np.ndarray:
    """Lists, and what else numpy reads. Its choice of a type is not trusted with mixed lists."""
    if isinstance(values, (list, tuple)) and len(values):
        if isinstance(values[0], (str, bytes)):
            return _objects(name, _object_array(values), mark)
        if any(isinstance(value, np.ma.MaskedArray) for value in values):
            return _objects(name, _object_array(values), mark)
    try:
        array = np.asarray(values)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise SchemaError(f"column {name!r} {_RAGGED}") from error
    if array.ndim and not hasattr(values, "__array__") and _doubtful(array):
        array = np.asarray(values, dtype=object)
    return _storable(name, array, mark)


def _doubtful(array: np.ndarray) -> bool:
    """Whether numpy may have changed values: numbers to text or to times, integers to floats."""
    if array.dtype.kind in "fc" and array.size:
        with np.errstate(invalid="ignore"):
            return bool((np.abs(array) >= 2**53).any())
    return array.dtype.kind in "USMm"


def _object_array(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _objects(name: str, array: np.ndarray, mark: bool) -> np.ndarray:
    """Python objects of one kind as what they are; lists of one shape become further axes."""
    flat = list(array.flat)
    kinds = set(map(type, flat))

    def all_of(*allowed: type) -> bool:
        return all(issubclass(kind, allowed) for kind in kinds)

    if all_of(str) or all_of(bytes):
        return _text(name, flat).reshape(array.shape)
    if all_of(np.timedelta64, dt.timedelta) or all_of(np.datetime64, dt.date):
        return _times(name, flat).reshape(array.shape)
    numbers = all_of(bool, int, float, complex, np.number, np.bool_)
    if numbers and np.timedelta64 not in kinds:  # which numpy counts among the integers
        return _numbers(name, flat).reshape(array.shape)
    if array.ndim == 1 and all_of(list, tuple):
        return _sequence(name, flat, mark)
    if array.ndim == 1 and all_of(list, tuple, np.ndarray) and not any(map(_is_missing, flat)):
        rows = [_converted(name, row, mark) for row in flat]
        if len({row.shape for row in rows}) > 1:
            raise SchemaError(f"column {name!r} {_RAGGED}")
        return np.stack(rows, dtype=common_type(name, rows))
    known = [value for value in flat if not _is_missing(value)]
    if len(known) < len(flat):
        rest = _objects(name, _object_array(known), mark)  # says what is wrong with others
        if mark:
            missing = np.array([_is_missing(value) for value in flat])
            return with_marks(name, rest, missing.reshape(array.shape))
        _refuse_missing(name, len(flat) - len(known), len(flat))
    shown = ", ".join(sorted({kind.__name__ for kind in kinds})[:5])
    _refuse_type(name, f"holds Python objects ({shown}), which cannot be stored")


def _is_missing(value: Any) -> bool:
    """None, the missing values of pandas and numpy, and NaN, which pandas puts among texts."""
    return (
        value is None
        or value is np.ma.masked
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and value != value)
    )


def _text(name: str, flat: list[Any]) -> np.ndarray:
    """Strings, or bytes."""
    if not flat:
        return np.empty(0, "U1")
    lengths = list(map(len, flat))
    check_width(name, max(lengths), len(flat), sum(lengths))
    if any(value.endswith("\0" if isinstance(value, str) else b"\0") for value in flat):
        arrow.refuse_nul(name)
    return np.array(flat)


def _numbers(name: str, flat: list[Any]) -> np.ndarray:
    """Python's numbers as an array that holds each exactly."""
    array = np.array(flat)
    if array.dtype.kind in "iub":
        return array
    large = [v for v in flat if isinstance(v, (int, np.integer)) and abs(int(v)) > 2**53]
    if large and all(isinstance(value, (int, np.integer)) for value in flat):
        if min(flat) >= 0 and max(flat) < 2**64:
            return np.array(flat, np.uint64)
        raise ColumnTypeError(
            name, f"column {name!r} holds integers beyond 64 bits, or signs beside", _AS_TEXT
        )
    if large or array.dtype == object:
        raise ColumnTypeError(
            name, f"column {name!r} mixes fractions with integers above 2^53", _AS_TEXT
        )
    return array


def _times(name: str, flat: list[Any]) -> np.ndarray:
    """Dates, times or durations, of Python, numpy or pandas; those with a zone in UTC."""
    values = [_time(value) for value in flat]
    types = dict.fromkeys(value.dtype for value in values)
    parts = [np.array([v for v in values if v.dtype == kind]) for kind in types]
    return np.array(values, common_type(name, parts))


def _time(value: Any) -> np.generic:
    if hasattr(value, "to_numpy"):  # pandas, to the nanosecond
        value = value.to_numpy()
    if isinstance(value, dt.timedelta):
        return np.timedelta64(value, "us")
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
        return np.datetime64(value, "us")
    return np.datetime64(value, "D") if isinstance(value, dt.date) else value


# --- columns of other libraries --------------------------------------------------------------


def _tensor(name: str, values: Any) -> np.ndarray:
    """A tensor of torch; bfloat16, which numpy lacks, becomes float32."""
    if hasattr(values, "get_mask"):
        mask = values.get_mask()
        _refuse_missing(name, int((~mask).sum()), mask.numel())
        values = values.get_data()
    values = values.detach().cpu()
    if values.is_sparse:
        values = values.to_dense()
    if str(values.dtype) == "torch.bfloat16":
        values = values.float()
    return np.asarray(values.resolve_conj().resolve_neg().numpy())


def _pandas(name: str, values: Any, mark: bool) -> np.ndarray:
    """A Series, an index or an array of pandas."""
    dtype = values.dtype
    if hasattr(dtype, "pyarrow_dtype"):
        return arrow.numpy_of(name, getattr(values, "array", values).__arrow_array__(), mark=mark)
    if getattr(dtype, "tz", None) is not None:
        return np.asarray(values, dtype=f"M8[{dtype.unit}]")
    sparse = hasattr(dtype, "subtype") and hasattr(dtype, "fill_value")
    if not isinstance(dtype, np.dtype) and not sparse:
        missing = np.asarray(values.isna())
        if mark and missing.any():
            return with_marks(name, _pandas(name, values.dropna(), mark), missing)
        _refuse_missing(name, int(missing.sum()), len(values))
        if isinstance(numpy_type := getattr(dtype, "numpy_dtype", None), np.dtype):
            values = values.to_numpy(dtype=numpy_type)
    return _storable(name, np.asarray(values), mark)


def _polars(name: str, values: Any, mark: bool) -> np.ndarray:
    """A Series of polars; nested ones through Arrow, as numpy would get NaN for nulls."""
    if values.dtype.is_nested():
        return arrow.numpy_of(name, arrow.array_of(values), mark=mark)
    if mark and values.null_count():
        known = np.asarray(values.drop_nulls().to_numpy())
        missing = np.asarray(values.is_null().to_numpy())
        return with_marks(name, _storable(name, known, mark), missing)
    if not values.dtype.is_temporal():
        _refuse_missing(name, int(values.null_count()), len(values))
    return _storable(name, np.asarray(values.to_numpy()), mark)
