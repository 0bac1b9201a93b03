"""What reads a file of columns: one reader a format.

A file is not trusted: sizes that it states are held against its own before anything is made of
them, and whatever a library raises on a damaged file is a DamagedError.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from memento import arrow
from memento.casting import exactly
from memento.cli import delimited
from memento.columns import as_column
from memento.errors import (
    ColumnTypeError,
    DamagedError,
    MementoError,
    SchemaError,
    SettingError,
    reason_of,
)
from memento.samples import Samples

__all__ = [
    "ENDINGS",
    "TYPES",
    "Reading",
    "Source",
    "cast_numpy",
    "module",
    "opened",
    "parse_reading",
]

#: What ``--types`` takes.
TYPES = (
    *("text", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64", "date", "datetime"),
)
_NUMPY = {"text": "U", "date": "M8[D]", "datetime": "M8[us]"}
_HEADER = 10_000  # bytes that numpy takes for the header of an array


@dataclass(frozen=True)
class Reading:
    """What a user says about files.

    Attributes:
        types: Of columns, by their names after mapping; see `TYPES`.
        separator: Of delimited text; found if left out.
        encoding: Of delimited text; found if left out.
        texts: Columns, after mapping, that are text where the format does not tell types.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    separator: str | None = None
    encoding: str | None = None
    texts: frozenset[str] = frozenset()

    def like(self, held: Samples) -> Reading:
        """The same, with columns as text that are text among those held."""
        texts = {name for name, column in held.items() if column.dtype.kind == "U"}
        return replace(self, texts=self.texts | texts)


@dataclass(frozen=True)
class Source:
    """An open file.

    Attributes:
        names: Of its columns, in order.
        columns: From names, types for some, and names of likely texts, to arrays of numpy.
    """

    names: list[str]
    columns: Callable[[list[str], Mapping[str, str], set[str]], dict[str, np.ndarray]]


def parse_reading(types: Sequence[str], separator: str | None, encoding: str | None) -> Reading:
    r"""What is given on the command line.

    Args:
        types: Of the form ``NAME=TYPE[,NAME=TYPE...]``.
        separator: One character, or ``tab``.
        encoding: As Python calls it.

    Raises:
        SettingError: Another form, an unknown type, separator or encoding.

    Example:
        >>> parse_reading(["id=text,x=float64"], "tab", None).types
        {'id': 'text', 'x': 'float64'}
    """
    separator = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
    if separator is not None and (len(separator) != 1 or not separator.isascii()):
        raise SettingError(f"--separator {separator!r} is not one character, or tab")
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise SettingError(
                f"--encoding {encoding!r} is not known; others are utf-8, utf-16 and latin-1"
            ) from error
    return Reading(_parsed_types(types), separator, encoding)


def _parsed_types(texts: Sequence[str]) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for part in (part for text in texts for part in text.split(",")):
        name, _, kind = (word.strip() for word in part.rpartition("="))
        if not name or kind not in TYPES:
            raise SettingError(
                f"--types {part!r} has another form than NAME=TYPE with a TYPE of "
                f"{', '.join(TYPES)}; for example --types id=text"
            )
        kinds[name] = kind
    return kinds


@contextlib.contextmanager
def opened(file: Path, reading: Reading) -> Iterator[Source]:
    """A file's reader, by its ending.

    Raises:
        SettingError: The type of the file is unknown.
        DamagedError: The file is truncated, or of another type than its name says.
        SchemaError: A column has missing values, or values that no type keeps.
    """
    with _damage(file), _reader(file)(file, reading) as source:
        yield source


@contextlib.contextmanager
def _damage(file: Path) -> Iterator[None]:
    """What the readers raise on broken files, as one kind of error."""
    try:
        yield
    except (MementoError, OSError) as error:
        # pyarrow raises a plain OSError without a number for broken pages inside a Parquet file.
        if isinstance(error, MementoError) or error.errno is not None:
            raise
        raise DamagedError(_broken(file, error)) from error
    except Exception as error:  # of pyarrow, zipfile, zlib, numpy: whatever they stumble over
        raise DamagedError(_broken(file, error)) from error


def _broken(file: Path, error: Exception) -> str:
    reason = reason_of(error)
    if isinstance(error, MemoryError):
        reason = "it would take more memory than there is"
    return (
        f"cannot be read as {file.suffix.lstrip('.')}: {reason}; it is truncated or of another "
        "type, write or fetch it again"
    )


def check_room(file: Path, size: int) -> None:
    """Refuse content that is out of all proportion to its file, before there is room made for it.

    Args:
        file: The file.
        size: Bytes that its columns would take.

    Raises:
        SchemaError: They are.
    """
    limit = max(delimited.LARGE, delimited.EXPANSION * file.stat().st_size)
    if size > limit:
        raise SchemaError(
            f"its columns would take {size / 1e9:,.1f} GB, over {delimited.EXPANSION} times its "
            "size; leave some out with --columns, split it, or write it without compression"
        )


# --- one format each -------------------------------------------------------------------------


@contextlib.contextmanager
def _parquet(file: Path, reading: Reading) -> Iterator[Source]:
    """A Parquet file, whose pages are checked."""
    parquet = module("parquet")
    # ParquetFile, not read_table: that one takes folders like day=3/ for further columns.
    with parquet.ParquetFile(file, page_checksum_verification=True) as open_file:

        def columns(
            names: list[str], types: Mapping[str, str], texts: set[str]
        ) -> dict[str, np.ndarray]:
            about = open_file.metadata
            cells = about.num_rows * about.num_columns
            groups = [about.row_group(i) for i in range(about.num_row_groups)]
            nested = sum(g.column(j).num_values for g in groups for j in range(g.num_columns))
            check_room(file, 8 * max(cells, nested))
            return _from_table(file, open_file.read(columns=names), names, types)

        yield Source(open_file.schema_arrow.names, columns)


@contextlib.contextmanager
def _csv(file: Path, reading: Reading) -> Iterator[Source]:
    module("csv")
    header = delimited.header_of(file, reading.separator, reading.encoding)

    def columns(
        names: list[str], types: Mapping[str, str], texts: set[str]
    ) -> dict[str, np.ndarray]:
        kinds = {name: _arrow_type(word) for name, word in types.items()}
        kinds |= {name: _arrow_type("text") for name in texts if name not in kinds}
        arrays = delimited.columns_of(file, header, names, kinds)
        return {name: as_column(name, arrays[name], mark=True) for name in names}

    yield Source(header.names, columns)


@contextlib.contextmanager
def _ipc(file: Path, reading: Reading) -> Iterator[Source]:
    """An Arrow file or stream."""
    ipc, base = module("ipc"), module("lib")
    # Mapped, so that no size in the file makes room for itself before it is known to be true.
    with base.memory_map(os.fspath(file)) as mapped:
        stream = mapped.read(6) != b"ARROW1"
        mapped.seek(0)
        open_ = ipc.open_stream if stream else ipc.open_file
        with open_(mapped) as first:
            names = first.schema.names

        def columns(
            wanted: list[str], types: Mapping[str, str], texts: set[str]
        ) -> dict[str, np.ndarray]:
            mapped.seek(0)
            places = [names.index(name) for name in wanted]
            options = ipc.IpcReadOptions(included_fields=sorted(places))
            with open_(mapped, options=options) as again:
                table = again.read_all()
            arrays = _from_table(file, table, wanted, types)
            # Nothing of the file itself is kept, which may change later.
            return {n: a if a.flags.writeable else a.copy() for n, a in arrays.items()}

        yield Source(list(names), columns)


@contextlib.contextmanager
def _npz(file: Path, reading: Reading) -> Iterator[Source]:
    """A file of numpy arrays, which are never unpickled."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        names = [info.filename.removesuffix(".npy") for info in archive.infolist()]

        def columns(
            wanted: list[str], types: Mapping[str, str], texts: set[str]
        ) -> dict[str, np.ndarray]:
            check_room(file, sum(members[name].file_size for name in wanted))
            arrays = {}
            for name in wanted:
                array = _npy(name, archive.read(members[name]), file.stat().st_size)
                arrays[name] = cast_numpy(name, array, types.get(name))
            return arrays

        yield Source(names, columns)


def _npy(name: str, data: bytes, size: int) -> np.ndarray:
    """An array of numpy's format, which is as large as its header says."""
    if data[:6] != b"\x93NUMPY" or not 1 <= data[6] <= 3:
        raise ValueError(f"column {name!r} is no array of numpy's")
    start = 10 if data[6] == 1 else 12
    end = start + int.from_bytes(data[8:start], "little")
    if end > len(data) or end > start + _HEADER:
        raise ValueError(f"column {name!r} has a header of {end - start:,} bytes")
    header = ast.literal_eval(data[start:end].decode("utf-8" if data[6] == 3 else "latin-1"))
    dtype = np.lib.format.descr_to_dtype(header["descr"])
    if dtype.hasobject:
        raise SchemaError(
            f"column {name!r} holds Python objects, which are never read from disk; save it as "
            "numbers, strings or datetimes"
        )
    shape = tuple(map(int, header["shape"]))
    count = int(np.prod(np.array(shape, object), initial=1))
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(data) - end:
        raise ValueError(f"column {name!r} states a shape of {shape} for {len(data) - end:,} bytes")
    if (count and not dtype.itemsize) or (not count and max(shape, default=0) > 1000 * size):
        raise ValueError(f"column {name!r} states a shape of {shape} for no bytes")
    array = np.frombuffer(data, dtype, count, end) if count else np.empty(0, dtype)
    return array.reshape(shape, order="F" if header["fortran_order"] else "C")


# By the end of a name; .gz is told by what reads the text.
_READERS: dict[str, Callable[[Path, Reading], contextlib.AbstractContextManager[Source]]] = {
    ".parquet": _parquet,
    ".pq": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".csv.gz": _csv,
    ".tsv.gz": _csv,
    ".arrow": _ipc,
    ".feather": _ipc,
    ".ipc": _ipc,
    ".npz": _npz,
}
#: What names of files may end in.
ENDINGS = tuple(_READERS)


def _reader(file: Path) -> Callable[[Path, Reading], contextlib.AbstractContextManager[Source]]:
    for ending in ("".join(file.suffixes[-2:]).lower(), file.suffix.lower()):
        if ending in _READERS:
            return _READERS[ending]
    raise SettingError(
        f"{file}: unknown type of file {file.suffix or '(no ending)'!r}; known are "
        f"{', '.join(_READERS)}"
    )


# --- arrays of pyarrow and numpy -------------------------------------------------------------


def module(name: str) -> Any:
    """A module of pyarrow's.

    Raises:
        MissingExtraError: It is not installed.
    """
    import importlib

    arrow.import_arrow("reading and writing such files")
    return importlib.import_module(f"pyarrow.{name}")


def _from_table(
    file: Path, table: Any, names: Sequence[str], types: Mapping[str, str]
) -> dict[str, np.ndarray]:
    table.validate(full=True)
    columns = {name: table.column(name) for name in names}
    check_room(file, sum(8 * _cells(column) for column in columns.values()))
    return {
        name: as_column(name, _cast(name, column, types.get(name)), mark=True)
        for name, column in columns.items()
    }


def _cells(column: Any) -> int:
    """Values of a column, those in its lists counted each."""
    from pyarrow import compute

    count = len(column)
    while "list" in str(column.type).split("<")[0]:
        column = compute.list_flatten(column)
        count = max(count, len(column))
    return count


def _arrow_type(word: str) -> Any:
    base = module("lib")
    if word == "datetime":
        return base.timestamp("us")
    names = {"text": "large_string", "bool": "bool_", "date": "date32"}
    return getattr(base, names.get(word, word))()


def _cast(name: str, column: Any, word: str | None) -> Any:
    """An array of pyarrow as another type, if that changes no value."""
    if arrow.is_numeric(column.type):
        if word is None:
            try:
                return arrow.numbers_of(name, column)
            except ColumnTypeError as error:
                raise SchemaError(f"{error}, or round it with --types {name}=float64") from error
        column = arrow.texts_of(column)
    if word is None:
        return column
    try:
        return column.cast(_arrow_type(word))
    except (ValueError, NotImplementedError) as error:
        raise _cannot(name, str(column.type), word, error) from error


def cast_numpy(name: str, array: np.ndarray, word: str | None) -> np.ndarray:
    """An array of numpy as another type, if that changes no value."""
    if word is None:
        return array
    dtype = np.dtype(_NUMPY.get(word, word))
    try:
        texts = array.dtype.kind == "U" or dtype.kind == "U"
        cast = array.astype(dtype) if texts and word != "bool" else exactly(array, dtype)
    except ValueError as error:
        raise _cannot(name, str(array.dtype), word, error) from error
    if cast is None:
        raise _cannot(name, str(array.dtype), word, "a value would change")
    return cast


def _cannot(name: str, kind: str, word: str, reason: object) -> SchemaError:
    first = str(reason).splitlines()[0]
    return SchemaError(
        f"column {name!r} of type {kind} cannot be read as {word}: {first}; give another type with "
        "--types"
    )
