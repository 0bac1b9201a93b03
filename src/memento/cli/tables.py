"""Files of columns: Parquet, CSV, Arrow and NPZ to `Samples`, and back.

The only place of the command line that knows file formats. Every error names the file; the checks
of the core, which know no files, are repeated under `in_file`.
"""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import glob
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import (
    DamagedError,
    InputError,
    MementoError,
    MissingExtraError,
    ModelError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import local_path, replacing, storage_errors
from memento.samples import Samples

__all__ = ["Mapped", "check_ending", "expand", "in_file", "join", "parse_map", "read", "write"]

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Mapped:
    """One column of a memory and the columns of a file that it comes from.

    Attributes:
        name: The column's name in the memory.
        sources: Names or patterns (``p_*``) in the file.

    A single name renames a column. Patterns, or several names, stack columns into one of shape
    ``(n, k)``: names in the order given, what a pattern finds in natural order (p_2 before p_10).
    """

    name: str
    sources: tuple[str, ...]

    @property
    def stacks(self) -> bool:
        """Whether the result is two-dimensional."""
        return len(self.sources) > 1 or bool(_WILD.search(self.sources[0]))

    def find(self, names: Sequence[str]) -> list[str]:
        """The columns of a file that this one is made of.

        Raises:
            SchemaError: A source is not there.
        """
        if not self.stacks:
            return [_existing(self.sources[0], names)]
        found: list[str] = []
        for source in self.sources:
            if _WILD.search(source):
                matching = [name for name in names if fnmatch.fnmatchcase(name, source)]
                if not matching:
                    raise SchemaError(
                        f"no column matches {source!r} of --map {self}; there are {_listed(names)}"
                    )
                found += sorted(matching, key=_natural)
            else:
                found.append(_existing(source, names))
        return found

    def __str__(self) -> str:
        return f"{self.name}={','.join(self.sources)}"


def parse_map(text: str) -> Mapped:
    """``NAME=SOURCE[,SOURCE...]`` as given on the command line.

    Raises:
        SettingError: The text has another form.

    Example:
        >>> parse_map("yhat=p_*").stacks, parse_map("y=label").stacks
        (True, False)
    """
    name, equals, sources = text.partition("=")
    parts = tuple(part.strip() for part in sources.split(","))
    if not equals or not name.strip() or not all(parts):
        raise SettingError(
            f"--map {text!r} has another form than NAME=SOURCE; for example --map y=label, or "
            "--map 'yhat=p_*' to stack columns"
        )
    return Mapped(name.strip(), parts)


def expand(patterns: Sequence[str]) -> list[Path]:
    """Files from names and patterns, each pattern's matches in natural order.

    Raises:
        InputError: A pattern matches nothing, a file is named twice, or a folder is named.
        StorageError: A file does not exist.
    """
    files: list[Path] = []
    for pattern in patterns:
        with storage_errors("read", Path(pattern)):
            files += _matches(pattern)
    seen: set[Path] = set()
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder; name its files, as in '{file}/*.parquet'")
        if file.resolve() in seen:
            raise InputError(f"{file} is named twice; its samples would count twice, name it once")
        seen.add(file.resolve())
    return files


def _matches(pattern: str) -> list[Path]:
    if Path(pattern).exists():
        return [Path(pattern)]
    if not _WILD.search(pattern):
        raise StorageError(f"{pattern}: no such file; check the name and the folder")
    found = sorted(glob.glob(pattern, recursive=True), key=_natural)
    if not found:
        raise InputError(f"no file matches {pattern!r}; check the folder and the pattern")
    return [Path(name) for name in found]


def read(
    file: Path,
    maps: Sequence[Mapped] = (),
    columns: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> Samples:
    """The columns of one file.

    Args:
        file: ``.parquet``, ``.pq``, ``.csv``, ``.tsv`` (also ``.gz``), ``.arrow``, ``.feather``,
            ``.ipc`` or ``.npz``.
        maps: Columns to rename or stack; all others keep their names.
        columns: Names, after mapping, to keep; all if left out. Others are not even read where the
            format allows it.
        optional: Names to keep as well where the file has them.

    Returns:
        At least one row. Lists of one length are columns of shape ``(n, k)``. Missing values are
        NaN in columns of floats, and refused elsewhere.

    Raises:
        SchemaError: A column is missing, given twice, ragged, or has missing values; no rows.
        DamagedError: The file is truncated or of another type than its name says.
        StorageError: The file cannot be read.
        SettingError: The type of the file is unknown.
    """
    reader = _reader(file)
    with in_file(file):
        if not file.is_file():
            raise StorageError("no such file; check the name and the folder")
        with storage_errors("read", file):
            if file.stat().st_size == 0:
                raise SchemaError("the file is empty (0 bytes); write it again")
            with _damage(file), reader(file) as source:
                plan = _plan(source.names, maps, columns, optional)
                raw = source.columns(sorted({name for names in plan.values() for name in names[0]}))
        arrays = {
            name: _stacked(name, sources, raw) if stacks else raw[sources[0]]
            for name, (sources, stacks) in plan.items()
        }
        samples = Samples.borrow(arrays)
        if samples.size == 0:
            raise SchemaError(f"the file has no rows (columns {_listed(source.names)})")
    return samples


def join(files: Sequence[Path], parts: Sequence[Samples]) -> Samples:
    """All files' rows, one after the other.

    Raises:
        SchemaError: Two files differ in their columns, or in the shape or kind of one.
    """
    first = parts[0]
    for file, part in zip(files[1:], parts[1:], strict=True):
        with in_file(file, part.size):
            if set(part) != set(first):
                raise SchemaError(
                    f"columns {_listed(sorted(part))} differ from {_listed(sorted(first))} in "
                    f"{files[0]}; keep what both have with --columns"
                )
            for name in first:
                here, there = part[name], first[name]
                if here.shape[1:] != there.shape[1:] or _family(here) != _family(there):
                    raise SchemaError(
                        f"column {name!r} is {_described(here)}, but {_described(there)} in "
                        f"{files[0]}; give all files one type and width"
                    )
    return first if len(parts) == 1 else Samples.concat(parts)


def check_ending(file: Path) -> None:
    """Refuse a name that `write` would, and a missing package, before there is anything to write.

    Raises:
        SettingError: The type of the file is unknown.
        MissingExtraError: What writes it is not installed.
    """
    if _writer(file) in (_write_parquet, _write_arrow):
        _arrow("lib")


def write(file: Path, samples: Samples) -> None:
    """Write columns to ``.parquet``, ``.arrow``, ``.npz`` or ``.csv``; the file is whole or absent.

    Columns of shape ``(n, k)`` become fixed-size lists, deeper ones lists of lists.

    Raises:
        SettingError: The type of the file is unknown.
        StorageError: The file cannot be written; an older one of this name stays as it was.
    """
    writer = _writer(local_path(file, "the file"))
    with storage_errors("write", file), replacing(file) as temporary:
        writer(temporary, samples)


@contextlib.contextmanager
def in_file(file: Path, rows: int | None = None) -> Iterator[None]:
    """Put the file's name, and its number of rows, before the message of whatever is raised."""
    where = f"{file}" if rows is None else f"{file} ({rows:,} rows)"
    try:
        yield
    except (InputError, ModelError, StorageError) as error:
        message = str(error)
        if str(file) in message:
            raise
        raise type(error)(f"{where}: {message}") from error


# --- reading ---------------------------------------------------------------------------------


class _Source:
    """An open file: its names, and columns on demand."""

    def __init__(self, names: Sequence[str], columns: Callable[[list[str]], Mapping[str, Any]]):
        self.names = list(names)
        self._columns = columns

    def columns(self, names: list[str]) -> dict[str, np.ndarray]:
        raw = self._columns(names)
        return {name: _filled(name, raw[name]) for name in names}


@contextlib.contextmanager
def _parquet(file: Path) -> Iterator[_Source]:
    parquet = _arrow("parquet")
    # ParquetFile, not read_table: that one takes folders like day=3/ for further columns.
    with parquet.ParquetFile(file, page_checksum_verification=True) as opened:
        names = opened.schema_arrow.names
        _unique(names)
        yield _Source(names, lambda wanted: _table(opened.read(columns=wanted)))


@contextlib.contextmanager
def _csv(file: Path) -> Iterator[_Source]:
    csv = _arrow("csv")
    delimiter = "\t" if ".tsv" in file.suffixes else ","
    parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=False)
    with csv.open_csv(file, parse_options=parsing) as opened:
        names = opened.schema.names
    _unique(names)

    def columns(wanted: list[str]) -> dict[str, Any]:
        converting = csv.ConvertOptions(include_columns=wanted)
        return _table(csv.read_csv(file, parse_options=parsing, convert_options=converting))

    yield _Source(names, columns)


@contextlib.contextmanager
def _ipc(file: Path) -> Iterator[_Source]:
    feather = _arrow("feather")
    ipc = _arrow("ipc")
    with file.open("rb") as opened:
        magic = opened.read(6)
    if magic == b"ARROW1":
        with ipc.open_file(str(file)) as opened_file:
            names = opened_file.schema.names
        _unique(names)
        yield _Source(names, lambda wanted: _table(feather.read_table(file, columns=wanted)))
    else:  # a stream of record batches has no such mark
        with file.open("rb") as opened, ipc.open_stream(opened) as stream:
            _unique(stream.schema.names)
            yield _Source(
                stream.schema.names, lambda wanted: _table(stream.read_all().select(wanted))
            )


@contextlib.contextmanager
def _npz(file: Path) -> Iterator[_Source]:
    if not zipfile.is_zipfile(file):  # numpy would take it for a pickle and say so
        raise zipfile.BadZipFile("no archive of numpy.savez")
    with np.load(file, allow_pickle=False) as archive:

        def columns(wanted: list[str]) -> dict[str, Any]:
            arrays = {}
            for name in wanted:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    if "pickle" not in str(error):
                        raise
                    raise SchemaError(
                        f"column {name!r} holds Python objects, which are never read from disk; "
                        "save it as numbers, strings or datetimes"
                    ) from error
            return arrays

        yield _Source(archive.files, columns)


_READERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[_Source]]] = {
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


def _reader(file: Path) -> Callable[[Path], contextlib.AbstractContextManager[_Source]]:
    for ending in ("".join(file.suffixes[-2:]).lower(), file.suffix.lower()):
        if ending in _READERS:
            return _READERS[ending]
    raise SettingError(
        f"{file}: unknown type of file {file.suffix or '(no ending)'!r}; known are "
        f"{', '.join(_READERS)}"
    )


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
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedError(_broken(file, error)) from error


def _broken(file: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"cannot be read as {file.suffix.lstrip('.')}: {reason}; it is truncated or of another "
        "type, write or fetch it again"
    )


def _arrow(module: str) -> Any:
    try:
        import importlib

        return importlib.import_module(f"pyarrow.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "cli", "reading and writing such files") from error


def _table(table: Any) -> dict[str, Any]:
    return {name: table.column(name) for name in table.column_names}


def _filled(name: str, column: Any) -> Any:
    """Missing floats become NaN, since only columns that a distance needs must be complete."""
    if isinstance(column, np.ndarray) or not column.null_count:
        return column
    if str(column.type) in ("halffloat", "float", "double"):
        return column.to_numpy()
    missing = np.asarray(column.is_null())
    raise SchemaError(
        f"column {name!r}: {column.null_count:,} of {len(column):,} values are missing, the first "
        f"is row {int(missing.argmax())}; fill or drop them, or leave the column out with --columns"
    )


def _plan(
    names: Sequence[str],
    maps: Sequence[Mapped],
    columns: Sequence[str] | None,
    optional: Sequence[str] = (),
) -> dict[str, tuple[list[str], bool]]:
    """For every column of the result: the columns of the file, and whether they are stacked."""
    plan: dict[str, tuple[list[str], bool]] = {}
    used: set[str] = set()
    for mapped in maps:
        if mapped.name in plan:
            raise SettingError(f"--map gives {mapped.name!r} twice; give it once")
        found = mapped.find(names)
        plan[mapped.name] = (found, mapped.stacks)
        used.update(found)
    for name in names:
        if name in used:
            continue
        if name in plan:
            raise SchemaError(
                f"column {name!r} is in the file and also the name of --map {name}=...; rename "
                f"the one in the file, as in --map {name}_raw={name}"
            )
        plan[name] = ([name], False)
    if columns is None:
        return plan
    for name in columns:
        _existing(name, list(plan))
    there = [name for name in optional if name in plan]
    return {name: plan[name] for name in dict.fromkeys([*columns, *there])}


def _stacked(name: str, sources: Sequence[str], raw: Mapping[str, Any]) -> np.ndarray:
    pieces = Samples.borrow({source: raw[source] for source in sources})
    for source, piece in pieces.items():
        if piece.ndim != 1 or piece.dtype.kind not in "biuf":
            raise SchemaError(
                f"column {source!r} is {_described(piece)}; columns that are stacked into {name!r} "
                "hold one number a row"
            )
    kind = np.result_type(*pieces.values())
    stacked = np.empty((pieces.size, len(pieces)), kind)
    for i, piece in enumerate(pieces.values()):
        stacked[:, i] = piece
    return stacked


# --- writing ---------------------------------------------------------------------------------


def _write_npz(file: Path, samples: Samples) -> None:
    with file.open("wb") as opened:
        np.savez(opened, **samples)  # type: ignore[arg-type]


def _write_parquet(file: Path, samples: Samples) -> None:
    _arrow("parquet").write_table(_arrow_table(samples), file)


def _write_arrow(file: Path, samples: Samples) -> None:
    _arrow("feather").write_feather(_arrow_table(samples), str(file))


def _write_csv(file: Path, samples: Samples) -> None:
    """Columns of shape (n,) only."""
    wide = [name for name, array in samples.items() if array.ndim > 1]
    if wide:
        raise SettingError(f"{file}: column {wide[0]!r} has more than one dimension; not for CSV")
    columns = [
        array.astype(str) if array.dtype.kind in "mM" else array for array in samples.values()
    ]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(samples)
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))


def _arrow_table(samples: Samples) -> Any:
    arrow = _arrow("lib")

    def column(name: str, array: np.ndarray) -> Any:
        if array.dtype.names:
            raise SettingError(f"column {name!r} is structured; export to .npz")
        if array.ndim == 1:
            return arrow.array(array)
        flat = column(name, np.ascontiguousarray(array).reshape(-1, *array.shape[2:]))
        return arrow.FixedSizeListArray.from_arrays(flat, array.shape[1])

    return arrow.table({name: column(name, array) for name, array in samples.items()})


_WRITERS = {
    ".npz": _write_npz,
    ".parquet": _write_parquet,
    ".pq": _write_parquet,
    ".arrow": _write_arrow,
    ".feather": _write_arrow,
    ".csv": _write_csv,
}


def _writer(file: Path) -> Callable[[Path, Samples], None]:
    try:
        return _WRITERS[file.suffix.lower()]
    except KeyError:
        raise SettingError(
            f"{file}: unknown type of file {file.suffix or '(no ending)'!r}; known are "
            f"{', '.join(_WRITERS)}"
        ) from None


# --- words -----------------------------------------------------------------------------------


def _existing(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise SchemaError(
            f"column {name!r} is missing; there are {_listed(names)}; rename or stack columns with "
            f"--map {name}=SOURCE"
        )
    return name


def _unique(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SchemaError(f"columns {_listed(twice)} stand in the file twice; rename one of each")


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which p_2 comes before p_10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _family(array: np.ndarray) -> str:
    """Types that can stand in one column: numbers (a CSV may show 1.0 as 1), strings, ..."""
    return "number" if array.dtype.kind in "iuf" else array.dtype.kind


def _described(array: np.ndarray) -> str:
    width = "" if array.ndim == 1 else f" of width {'x'.join(map(str, array.shape[1:]))}"
    return f"{array.dtype}{width}"
