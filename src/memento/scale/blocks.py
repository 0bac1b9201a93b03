"""Blocks: which files there are, and the pieces of them that one worker reads at a time.

A block is a row group of a Parquet file: a large one is split, neighbours that are tiny are joined.
Which blocks there are, and in which order, depends on the files and their names alone.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from memento import arrow
from memento.errors import (
    DamagedError,
    InputError,
    MementoError,
    NewLabelError,
    SchemaError,
    SettingError,
    StorageError,
    reason_of,
)
from memento.files import local_path, read_json, storage_errors

__all__ = ["BLOCK_ROWS", "Block", "File", "blocks_of", "find", "located", "parquet", "read"]

#: Most rows of a block; row groups of less than a quarter of it are joined.
BLOCK_ROWS = 1 << 20
_ENDINGS = (".parquet", ".pq")
_WILD = re.compile(r"[*?\[]")
#: What the report of a selection says that it is, and its name; `memento.scale.result` reads it.
KIND, REPORT = "memento-selection", "report.json"
# Rows that a selection under way keeps in TO.partial.
_UNDER_WAY = re.compile(r"(part-\d{5}|held)-[0-9a-f]{24}\.parquet")
# Rows that are decoded at a time where only some are wanted.
_PIECE = 1 << 16


@dataclass(frozen=True)
class File:
    """A file of the input, as it was when the work began.

    Attributes:
        path: Where it lies, absolute.
        name: Its path below the folder that all files have in common.
        size: Bytes.
        changed: When it was last written, in nanoseconds.
        partitions: Columns that its folders state (``day=2026-01-07``), and their values.
        held: Whether it holds what an earlier selection kept.
    """

    path: str
    name: str
    size: int
    changed: int
    partitions: tuple[tuple[str, int | str], ...] = ()
    held: bool = False

    def check(self) -> None:
        """Raise if the file is another one by now.

        Raises:
            StorageError: It is gone, or was written since.
        """
        with storage_errors("read", Path(self.path)):
            about = os.stat(self.path)
        if (about.st_size, about.st_mtime_ns) != (self.size, self.changed):
            raise StorageError(
                f"{self.path} was written while it was being selected from; leave the files alone "
                "until the selection has ended, then repeat"
            )


@dataclass(frozen=True)
class Block:
    """Rows that one worker reads at a time.

    Attributes:
        file: Where they lie.
        groups: Row groups of the file that hold them.
        start: First row, counted from the first of these row groups.
        rows: Number of rows.
        first: Number of the first row in the file.
        whole: Whether these are all rows of the row groups.
    """

    file: File
    groups: tuple[int, ...]
    start: int
    rows: int
    first: int
    whole: bool = True

    def __str__(self) -> str:
        groups = f"{self.groups[0]}"
        if len(self.groups) > 1:
            groups = f"{groups}-{self.groups[-1]}"
        part = "" if self.whole else f", rows {self.start:,}-{self.start + self.rows - 1:,} of it"
        several = "s" * (len(self.groups) > 1)
        return f"{self.file.path}, row group{several} {groups}{part}"

    def generator(self, seed: int, purpose: str) -> np.random.Generator:
        """Random numbers of this block alone, whoever works on it and whenever."""
        words = f"{seed}/{purpose}/{self.file.name}/{self.first}".encode()
        return np.random.default_rng(list(words))


def parquet(purpose: str = "selecting from Parquet files") -> Any:
    """The module of pyarrow for Parquet.

    Raises:
        MissingExtraError: It is not installed.
    """
    arrow.import_arrow(purpose)
    import pyarrow.parquet

    return pyarrow.parquet


# --- which files ------------------------------------------------------------------------------


def find(paths: Any) -> list[File]:
    """The Parquet files that are meant, in the order of their names.

    Args:
        paths: A file, a folder (with all that lies below it but for what selections wrote there), a
            pattern (``days/*/*.parquet``), or a list of these.

    Raises:
        InputError: A file is there twice; a pattern or a folder has none.
        StorageError: A file does not exist.
    """
    listed = [match for one in given(paths) for match in _matches(one)]
    seen: dict[tuple[int, int], Path] = {}
    files = []
    root = Path(os.path.commonpath([path.absolute().parent for path, _ in listed]))
    for path, top in listed:
        with storage_errors("read", path):
            about = os.stat(path)
        key = about.st_dev, about.st_ino
        if key in seen:
            raise InputError(
                f"{path} is given twice (as {seen[key]}); its rows would count twice, give it once"
            )
        seen[key] = path
        absolute = path.absolute()
        name = absolute.relative_to(root).as_posix()
        stated = _partitions(absolute, top.absolute())
        files.append(File(str(absolute), name, about.st_size, about.st_mtime_ns, stated))
    files.sort(key=lambda file: PurePath(file.name).parts)
    return _typed(files)


def check_apart(paths: Sequence[Path], to: Path, held: Path | None) -> None:
    """Raise if the folder of a result is below one that it is chosen from.

    What was kept would be offered again by later calls. A folder that is held already may lie
    below the others: it is left out of what is found there.

    Args:
        paths: What the user gave.
        to: The folder of the result.
        held: The folder of what is held.

    Raises:
        SettingError: It is.
    """
    target = to.resolve()
    if held is not None and held.resolve() == target:
        return
    for one in paths:
        if one.is_dir() and one.resolve() in target.parents:
            raise SettingError(
                f"{to}, where the result is to lie, is below the folder {one} of the files; choose "
                "a folder beside it, or name the files by a pattern"
            )


def given(paths: Any) -> list[Path]:
    """The paths that a user gives, one or several."""
    one = isinstance(paths, (str, os.PathLike)) or not isinstance(paths, Iterable)
    found = [local_path(path, "the file") for path in ([paths] if one else paths)]
    if not found:
        raise InputError("no files; give at least one Parquet file, folder or pattern")
    return found


def _matches(path: Path) -> list[tuple[Path, Path]]:
    """The files that one path of the user's stands for, and the folder that each was found from."""
    top = path
    if path.is_dir():
        there = _below(path)
    elif path.exists():
        return [(path, path.parent)]
    elif not _WILD.search(str(path)):
        raise StorageError(f"{path}: no such file or folder; check the name")
    else:
        # Of what is below the part of the name that is fixed, as of what is below a folder.
        top = _fixed(path)
        matching = [Path(name) for name in glob.glob(str(path), recursive=True)]
        if not matching:
            raise InputError(f"no file matches '{path}'; check the folder and the pattern")
        there = [file for each in matching for file in (_below(each) if each.is_dir() else [each])]
    found = [(file, top) for file in there if not _selected(file, top)]
    if not found:
        raise InputError(
            f"{path} stands for nothing but what selections wrote; name their folders, to select "
            "from what they kept"
        )
    return found


def _below(folder: Path) -> list[Path]:
    """All files in a folder, however deep, that are called Parquet."""
    found = [
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _ENDINGS
        and not any(part[0] in "._" for part in file.relative_to(folder).parts)
        and file.is_file()
    ]
    if not found:
        raise InputError(f"{folder} holds no files that end in {' or '.join(_ENDINGS)}")
    return found


def _fixed(pattern: Path) -> Path:
    """The folder of a pattern down to where it may vary."""
    parts = itertools.takewhile(lambda part: not _WILD.search(part), pattern.parts)
    return Path(*parts)


def _selected(file: Path, top: Path) -> bool:
    """Whether a selection wrote a file, into a folder below the one that was given.

    Its rows are of the files that lie there, too, and would count twice.
    """
    if file.parent != top and file.parent.suffix == ".partial" and _UNDER_WAY.fullmatch(file.name):
        return True
    below = len(file.parent.parts) - len(top.parts)
    return any(_is_selection(folder) for folder in [file.parent, *file.parent.parents][:below])


def _is_selection(folder: Path) -> bool:
    """Whether a folder is one that `select` wrote."""
    report = folder / REPORT
    try:
        about = read_json(report) if report.is_file() else None
    except MementoError:
        return False
    return isinstance(about, dict) and about.get("kind") == KIND


def _partitions(path: Path, top: Path) -> tuple[tuple[str, int | str], ...]:
    """What the names of folders state: ``day=2026-01-07`` is a column ``day``.

    Args:
        path: A file, absolute.
        top: The folder that it was found from, absolute. Above it count only the folders of an
            unbroken row that ends with it, so that paths may be written in any way.
    """
    above = list(itertools.takewhile(_states, reversed(top.parts)))[::-1]
    below = [part for part in path.parent.relative_to(top).parts if _states(part)]
    pairs = [part.partition("=") for part in (*above, *below)]
    return tuple((name, value) for name, _, value in pairs)


def _states(part: str) -> bool:
    name, _, value = part.partition("=")
    return bool(name and value)


def _typed(files: Sequence[File]) -> list[File]:
    """The same with whole numbers for partitions that are such in all files."""
    names = [tuple(name for name, _ in file.partitions) for file in files]
    for file, found in zip(files, names, strict=True):
        if found != names[0] or len(set(found)) < len(found):
            raise SchemaError(
                f"{file.path} lies in folders that state the columns {list(found)}, "
                f"{files[0].path} in such that state {list(names[0])}; give files of one scheme"
            )
    columns = list(zip(*(file.partitions for file in files), strict=True))
    whole = {c[0][0] for c in columns if all(re.fullmatch(r"-?\d{1,18}", str(v)) for _, v in c)}
    return [
        File(
            file.path,
            file.name,
            file.size,
            file.changed,
            tuple((name, int(v) if name in whole else v) for name, v in file.partitions),
            file.held,
        )
        for file in files
    ]


# --- which blocks -----------------------------------------------------------------------------


def blocks_of(file: File, groups: Sequence[int], most: int = BLOCK_ROWS) -> list[Block]:
    """The blocks of a file.

    Args:
        file: The file.
        groups: Rows of each of its row groups.
        most: Most rows of a block. Larger row groups are split evenly; neighbours of which one has
            less than a quarter of it are joined, as far as they fit.

    Example:
        >>> [block.rows for block in blocks_of(File("a", "a", 0, 0), [10, 3, 40, 2, 2], 16)]
        [13, 13, 13, 14, 4]
    """
    blocks: list[Block] = []
    first = 0
    for number, rows in enumerate(groups):
        before = blocks[-1] if blocks else None
        small = before is not None and 4 * min(rows, before.rows) < most
        if before is not None and small and before.whole and before.rows + rows <= most:
            joined = (*before.groups, number)
            blocks[-1] = Block(file, joined, 0, before.rows + rows, before.first)
        elif rows:
            pieces = -(-rows // most)
            edges = [rows * i // pieces for i in range(pieces + 1)]
            blocks += [
                Block(file, (number,), start, stop - start, first + start, pieces == 1)
                for start, stop in pairwise(edges)
            ]
        first += rows
    return blocks


# --- reading one ------------------------------------------------------------------------------


@contextlib.contextmanager
def located(block: Block | File) -> Iterator[None]:
    """Whatever is raised about a block names it, and is one of our errors."""
    where = block.path if isinstance(block, File) else str(block)
    if isinstance(block, Block) and block.first:
        where += f" (rows count from row {block.first:,} of the file)"
    try:
        yield
    except NewLabelError as error:
        error.found = f"{where}: {error.found}"
        error.args = (f"{where}: {error.args[0]}",)
        raise
    except MementoError as error:
        path = block.path if isinstance(block, File) else block.file.path
        if path in str(error) or not isinstance(error, (InputError, StorageError)):
            raise
        kind = SchemaError if isinstance(error, SchemaError) else type(error)
        raise kind(f"{where}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            with storage_errors("read", Path(where)):
                raise
        raise _damaged(where, error) from error
    except (ValueError, ArithmeticError, LookupError) as error:  # pyarrow's errors derive from them
        if not type(error).__module__.startswith("pyarrow"):
            raise
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> DamagedError:
    return DamagedError(
        f"{where} cannot be read as Parquet: {reason_of(error)}; it is truncated or damaged, write "
        "or fetch it again"
    )


def read(block: Block, names: Sequence[str], rows: np.ndarray | None = None) -> Any:
    """Columns of a block as an Arrow table.

    Args:
        block: What to read.
        names: Columns of the file.
        rows: Ascending numbers of the rows that are wanted; all if left out.

    Raises:
        StorageError: The file is not what it was.
        DamagedError: It cannot be read.
    """
    pa = arrow.import_arrow("reading Parquet files")
    block.file.check()
    names = list(names)
    with parquet().ParquetFile(block.file.path, page_checksum_verification=True) as file:
        if block.whole and rows is None:
            return file.read_row_groups(list(block.groups), columns=names, use_threads=False)
        tables, at = [], -block.start
        for piece in _pieces(file, block, names):
            low, high = max(0, -at), min(len(piece), block.rows - at)
            if low < high:
                kept = piece.slice(low, high - low)
                if rows is not None:
                    here = rows[slice(*np.searchsorted(rows, [at + low, at + high]))]
                    kept = kept.take(pa.array(here - (at + low)))
                tables.append(kept)
            at += len(piece)
            if at >= block.rows:
                break
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        return pa.concat_tables(tables) if tables else schema.empty_table()


def _pieces(file: Any, block: Block, names: list[str]) -> Iterator[Any]:
    """Tables of the block's row groups, a few rows at a time: as fast as at once, in less room."""
    pa = arrow.import_arrow("reading Parquet files")
    for batch in file.iter_batches(
        _PIECE, row_groups=list(block.groups), columns=names, use_threads=False
    ):
        yield pa.Table.from_batches([batch])
