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
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento.addresses import public
from memento.casting import common_type
from memento.cli import sources
from memento.cli.readers import (
    ENDINGS,
    TYPES,
    Reading,
    Source,
    cast_numpy,
    module,
    opened,
    parse_reading,
)
from memento.errors import (
    ColumnTypeError,
    InputError,
    ModelError,
    NewLabelError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import is_there, local_path, replacing, storage_errors, write_npz
from memento.samples import Samples

__all__ = [
    "TYPES",
    "Mapped",
    "Reading",
    "check_ending",
    "expand",
    "in_file",
    "join",
    "parse_map",
    "parse_reading",
    "read",
    "write",
]

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

    @property
    def option(self) -> str:
        """What the user wrote, for messages."""
        return f"--map {self}"

    def find(self, names: Mapping[str, Any]) -> list[str]:
        """The columns of a file that this one is made of.

        Raises:
            SchemaError: A source is not there.
        """
        if not self.stacks:
            return [self._existing(self.sources[0], names)]
        columns: list[str] = []
        for source in self.sources:
            if _WILD.search(source):
                matching = [name for name in names if fnmatch.fnmatchcase(name, source)]
                if not matching:
                    raise SchemaError(
                        f"no column matches {source!r} of {self.option}; there are {_listed(names)}"
                    )
                columns += sorted(matching, key=_natural)
            else:
                columns.append(self._existing(source, names))
        return columns

    def _existing(self, source: str, names: Mapping[str, Any]) -> str:
        if source not in names:
            raise SchemaError(
                f"column {source!r}, which {self.option} names, is missing; there are "
                f"{_listed(names)}"
            )
        return source

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

    Args:
        patterns: Also addresses, ``-`` for standard input, and folders of folders such as
            ``day=2026-01-07/``, which are columns then; see `memento.cli.sources`.

    Raises:
        InputError: A pattern matches nothing, a file is named twice, or another folder is named.
        StorageError: A file does not exist, or cannot be fetched.
    """
    files: list[Path] = []
    for number, pattern in enumerate(patterns):
        if pattern in patterns[:number]:
            raise _twice(public(pattern))
        fetched = sources.elsewhere(pattern)
        if fetched is not None:
            files += fetched
            continue
        local_path(pattern, "the file")
        with storage_errors("read", Path(pattern)):
            found = _matches(pattern)
            for file in found:
                files += (sources.in_folder(file, ENDINGS) if file.is_dir() else ()) or [file]
    seen: set[object] = set()
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder; name its files, as in '{file}/*.parquet'")
        if (which := sources.identity(file)) in seen:
            raise _twice(file)
        seen.add(which)
    sources.tell_apart(files)
    return files


def _twice(file: Path | str) -> InputError:
    return InputError(f"{file} is named twice; its samples would count twice, name it once")


def _matches(pattern: str) -> list[Path]:
    with storage_errors("read", Path(pattern)):
        there = is_there(Path(pattern))
    if there:
        return [Path(pattern)]
    if not _WILD.search(pattern):
        raise StorageError(f"{pattern}: no such file; check the name and the folder")
    names = sorted(glob.glob(pattern, recursive=True), key=_natural)
    if not names:
        raise InputError(f"no file matches {pattern!r}; check the folder and the pattern")
    return [Path(name) for name in names]


def read(
    file: Path,
    maps: Sequence[Mapped] = (),
    columns: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    reading: Reading | None = None,
) -> Samples:
    """The columns of one file.

    Args:
        file: ``.parquet``, ``.pq``, ``.csv``, ``.tsv`` (also ``.gz``), ``.arrow``, ``.feather``,
            ``.ipc`` or ``.npz``, in small letters or capitals.
        maps: Columns to rename or stack; all others keep their names.
        columns: Names, after mapping, to keep; all if left out. Others are not even read where the
            format allows it.
        optional: Names to keep as well where the file has them.
        reading: Types of columns, and how a text is written.

    Returns:
        At least one row. Lists of one length are columns of shape ``(n, k)``. Missing values are
        NaN among numbers (whole ones are float64 then), NaT among times, the empty text.

    Raises:
        SchemaError: A column is missing, given twice, ragged, or has values that no type keeps; no
            rows.
        DamagedError: The file is truncated or of another type than its name says.
        StorageError: The file cannot be read.
        SettingError: The type of the file is unknown.
    """
    reading = reading or Reading()
    with in_file(file):
        with storage_errors("read", file):
            if not (is_there(file) and file.is_file()):
                raise StorageError("no such file; check the name and the folder")
            if file.stat().st_size == 0:
                raise SchemaError("the file is empty (0 bytes); write it again")
            with opened(file, reading) as inside:
                source = _with_folders(inside, getattr(file, "columns", {}))
                plan = _plan(source.names, maps, columns, optional)
                wanted = list(dict.fromkeys(n for names, _ in plan.values() for n in names))
                _check_names(wanted, source.names)
                types = _types(plan, reading.types)
                raw = source.columns(wanted, types, _texts(plan, reading.texts))
        arrays = {
            name: _stacked(name, sources, raw) if stacks else raw[sources[0]]
            for name, (sources, stacks) in plan.items()
        }
        samples = Samples.borrow(arrays)
        if samples.size == 0:
            raise SchemaError(f"the file has no rows (columns {_listed(source.names)})")
        samples.parts = {name: names for name, (names, stacks) in plan.items() if stacks}
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
                if here.shape[1:] != there.shape[1:]:
                    raise SchemaError(
                        f"column {name!r} is {_described(here)}, but {_described(there)} in "
                        f"{files[0]}; give all files one width"
                    )
                try:
                    common_type(name, [there, here])
                except ColumnTypeError:
                    raise SchemaError(
                        f"column {name!r} is {_described(here)}, but {_described(there)} in "
                        f"{files[0]}, and no type keeps all values of both; give one for all "
                        f"files, as in --types {name}=text"
                    ) from None
    if len(parts) == 1:
        return first
    with _remedy():
        return Samples.concat(parts)


def check_ending(file: Path) -> None:
    """Refuse a name that `write` would, and a missing package, before there is anything to write.

    Raises:
        SettingError: The type of the file is unknown.
        MissingExtraError: What writes it is not installed.
    """
    if _writer(file) in (_write_parquet, _write_arrow):
        module("lib")


def write(file: Path, samples: Samples) -> None:
    """Write columns to ``.parquet``, ``.arrow``, ``.npz`` or ``.csv``; the file is whole or absent.

    Columns of shape ``(n, k)`` become fixed-size lists, deeper ones lists of lists.

    Raises:
        SettingError: The type of the file is unknown.
        StorageError: The file cannot be written; an older one of this name stays as it was.
    """
    writer = _writer(local_path(file, "the file"))
    with storage_errors("write", file), replacing(file) as temporary:
        try:
            writer(temporary, samples)
        except SettingError as error:
            raise SettingError(f"{file}: {error}") from error


@contextlib.contextmanager
def in_file(file: Path | str, rows: int | None = None) -> Iterator[None]:
    """Put the file's name, and its number of rows, before the message of whatever is raised."""
    called = public(str(file))
    where = called if rows is None else f"{called} ({rows:,} rows)"
    try:
        with _remedy():
            yield
    except (InputError, ModelError, StorageError) as error:
        message = str(error)
        if called in message:
            raise
        if isinstance(error, NewLabelError):
            error.found = f"{where}: {error.found}"
            raise
        raise type(error)(f"{where}: {message}") from error


@contextlib.contextmanager
def _remedy() -> Iterator[None]:
    """Types that do not fit, with what helps on the command line."""
    try:
        yield
    except ColumnTypeError as error:
        raise SchemaError(
            f"{error.found}; give the column another type, as in --types {error.column}=text "
            "(from the first insert on), or leave it out with --columns"
        ) from error


# --- what is read ----------------------------------------------------------------------------


def _with_folders(source: Source, given: Mapping[str, str]) -> Source:
    """A source with columns that names of folders are, which hold whole numbers or texts."""
    further = {name: text for name, text in given.items() if name not in source.names}
    if not further:
        return source

    def columns(
        names: list[str], types: Mapping[str, str], texts: set[str]
    ) -> dict[str, np.ndarray]:
        inside = [name for name in names if name not in further] or source.names[:1]
        arrays = source.columns(inside, types, texts)
        rows = len(next(iter(arrays.values())))
        for name in names:
            if name in further:
                text = further[name]
                number = re.fullmatch(r"-?\d{1,18}", text) and name not in texts
                value = np.array(int(text) if number else text)
                arrays[name] = cast_numpy(name, np.repeat(value, rows), types.get(name))
        return arrays

    return Source([*source.names, *further], columns)


def _plan(
    names: Sequence[str],
    maps: Sequence[Mapped],
    columns: Sequence[str] | None,
    optional: Sequence[str] = (),
) -> dict[str, tuple[list[str], bool]]:
    """For every column of the result: the columns of the file, and whether they are stacked."""
    plan: dict[str, tuple[list[str], bool]] = {}
    used: set[str] = set()
    there = dict.fromkeys(names)
    for mapped in maps:
        if mapped.name in plan:
            raise SettingError(f"--map gives {mapped.name!r} twice; give it once")
        sources = mapped.find(there)
        plan[mapped.name] = (sources, mapped.stacks)
        used.update(sources)
    for name in there:
        if name in used:
            continue
        if name in plan:
            raise SchemaError(
                f"column {name!r} is in the file and also the name of --map {name}=...; rename "
                f"the one in the file, as in --map {name}_raw={name}"
            )
        plan[name] = ([name], False)
    columns = list(plan) if columns is None else columns
    for name in columns:
        if name not in plan and name not in there:
            raise SchemaError(
                f"column {name!r} is missing; there are {_listed(list(plan))}; rename or stack "
                f"columns with --map {name}=SOURCE"
            )
    # What --map has taken may be wanted by itself as well.
    kept = dict.fromkeys([*columns, *(n for n in optional if n in plan or n in there)])
    return {name: plan.get(name, ([name], False)) for name in kept}


def _types(plan: Mapping[str, tuple[list[str], bool]], types: Mapping[str, str]) -> dict[str, str]:
    """Types of the columns of the file, from those of the result."""
    return {source: types[name] for name in plan if name in types for source in plan[name][0]}


def _texts(plan: Mapping[str, tuple[list[str], bool]], texts: Collection[str]) -> set[str]:
    return {source for name in plan if name in texts for source in plan[name][0]}


def _check_names(wanted: Sequence[str], names: Sequence[str]) -> None:
    """Refuse names that do not tell which column is meant."""
    if "" in wanted:
        raise SchemaError(
            f"column {names.index('') + 1} has no name (is it the index of a pandas table?); name "
            "it in the file, or leave it out with --columns"
        )
    counts = Counter(names)
    twice = sorted(name for name in wanted if counts[name] > 1)
    if twice:
        raise SchemaError(
            f"columns {_listed(twice)} stand in the file twice; rename one of each, or leave them "
            "out with --columns"
        )


def is_number_or_gap(text: str) -> bool:
    """Whether a text is a number, or empty.

    Example:
        >>> is_number_or_gap("1e3"), is_number_or_gap(""), is_number_or_gap("twelve")
        (True, True, False)
    """
    try:
        float(text)
    except ValueError:
        return text == ""
    return True


def _stacked(name: str, sources: Sequence[str], raw: Mapping[str, Any]) -> np.ndarray:
    """``(n, k)`` columns of numbers side by side."""
    pieces = Samples.borrow({source: raw[source] for source in sources})
    for source, piece in pieces.items():
        if piece.ndim != 1 or piece.dtype.kind not in "biuf":
            found = f"is {_described(piece)}"
            if piece.ndim == 1 and piece.dtype.kind == "U":
                row = next((i for i, text in enumerate(piece) if not is_number_or_gap(text)), 0)
                found = f"holds text, such as {str(piece[row])!r} in row {row}"
            raise SchemaError(
                f"column {source!r} {found}; columns that are stacked into {name!r} hold one "
                "number a row: mend the value, or encode texts as numbers first"
            )
    kind = common_type(name, list(pieces.values()))
    stacked = np.empty((pieces.size, len(pieces)), kind)
    for i, piece in enumerate(pieces.values()):
        stacked[:, i] = piece
    return stacked


# --- writing ---------------------------------------------------------------------------------


def _write_npz(file: Path, samples: Samples) -> None:
    for name in samples:
        if "\0" in name:
            raise SettingError(f"column {name!r} has a zero byte in its name; not for NPZ")
    write_npz(file, samples)


def _write_parquet(file: Path, samples: Samples) -> None:
    module("parquet").write_table(samples.to_arrow(), file)


def _write_arrow(file: Path, samples: Samples) -> None:
    module("feather").write_feather(samples.to_arrow(), str(file))


def _write_csv(file: Path, samples: Samples) -> None:
    """Columns of shape (n,) only."""
    wide = [name for name, array in samples.items() if array.ndim > 1]
    if wide:
        raise SettingError(
            f"column {wide[0]!r} has more than one dimension; not for CSV, use .npz or .parquet"
        )
    odd = [name for name, array in samples.items() if array.dtype.kind in "cSV"]
    if odd:
        kind = samples[odd[0]].dtype
        raise SettingError(f"column {odd[0]!r} is of type {kind}; not for CSV, use .npz")
    columns = [
        array.astype(str) if array.dtype.kind in "mM" else array for array in samples.values()
    ]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(samples)
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))


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


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which p_2 comes before p_10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def _listed(names: Collection[str], most: int = 12) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _described(array: np.ndarray) -> str:
    width = "" if array.ndim == 1 else f" of width {'x'.join(map(str, array.shape[1:]))}"
    return f"{array.dtype}{width}"
