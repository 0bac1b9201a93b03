"""Where the files of a command come from: this machine, an address, standard input, a database.

What is elsewhere is fetched into a temporary folder piece by piece, so the readers, which check a
file before they believe it, need not know.
"""

from __future__ import annotations

import functools
import http.client
import re
import shutil
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from memento.addresses import public, without_secrets
from memento.cli.readers import module
from memento.errors import (
    InputError,
    SchemaError,
    SettingError,
    SpaceError,
    StorageError,
    reason_of,
)
from memento.files import storage_errors
from memento.integrations.arrow import ADDRESS, filesystem, storage_of
from memento.integrations.sql import query

__all__ = ["Found", "elsewhere", "identity", "in_folder", "of_query", "partitions", "tell_apart"]

STDIN = "-"
_SECONDS = 60  # without a byte
_PIECE = 1 << 20
_SHARE = 0.9  # of the free disk is what a file may take
# How files begin: Parquet, Arrow, NPZ (a ZIP file) and what gzip wrote.
_BEGINS = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow", b"PK": "npz",
           b"\x1f\x8b": "csv.gz"}  # fmt: skip


class Found(type(Path())):  # type: ignore[misc]
    """A file that is known by another name than its place on this machine's disk.

    Attributes:
        address: What it is called, in messages and results.
        columns: Texts that all its rows have in columns of their own, from names of folders.
        origin: The whole address where it was fetched from; none for a file of this machine.
    """

    address: str
    columns: dict[str, str]
    origin: str | None

    @classmethod
    def at(
        cls,
        place: Path,
        address: str,
        columns: dict[str, str] | None = None,
        origin: str | None = None,
    ) -> Found:
        """A file at a place, called by its address."""
        found = cls(place)
        found.address, found.columns, found.origin = address, columns or {}, origin
        return found

    # What pathlib makes of one, and what is unpickled, are paths like others.
    def __str__(self) -> str:
        return self.__dict__.get("address") or super().__str__()

    def __fspath__(self) -> str:
        return super().__str__()

    def __reduce__(self) -> tuple[Any, ...]:
        return Path, (super().__str__(),), None

    def with_segments(self, *segments: Any) -> Path:
        """What pathlib makes of it, from Python 3.12 on."""
        return Path(*segments)


def identity(file: Path) -> object:
    """What two files have in common only if they are one."""
    return getattr(file, "origin", None) or file.resolve()


def tell_apart(files: Iterable[Path]) -> None:
    """Number those that are called alike, as their addresses differ in what is not shown."""
    called: Counter[str] = Counter()
    for file in files:
        name = str(file)
        called[name] += 1
        if called[name] > 1 and isinstance(file, Found):
            file.address = f"{name} ({called[name]})"


def elsewhere(name: str) -> list[Path] | None:
    """Files at an address, or standard input, fetched; None for a name on this machine.

    Args:
        name: An address of a file or folder, with patterns or without; ``-`` for standard input.

    Raises:
        InputError: A pattern that matches nothing, or an address of the web with one.
        StorageError: It cannot be fetched.
        MissingExtraError: A package that reaches it is not installed.
    """
    if name == STDIN:
        return [_standard_input()]
    address = ADDRESS.match(name)
    if address is None or address[1].lower() == "file":
        return None
    if address[1].lower() in ("http", "https"):
        return [_of_web(name)]
    fs, path = filesystem(name)
    with storage_of(name):
        if re.search(r"[*?\[]", path):
            paths = sorted(fs.glob(path))
        elif fs.isdir(path):
            # Not what programs leave beside their results, such as _SUCCESS.
            paths = [p for p in sorted(fs.find(path)) if p.rpartition("/")[2][:1] not in "._"]
        else:
            paths = [path]
        found: list[Path] = []
        for each in paths:
            place = _room() / (each.rpartition("/")[2] or "file")
            with fs.open(each, "rb") as answer, place.open("wb") as file:
                _copy(answer, file, place, public(name))
            origin = f"{address[0]}{each.lstrip('/')}"
            found.append(Found.at(place, public(origin), partitions(each), origin))
    if not found:
        raise InputError(f"no file matches {public(name)!r}; check the folder and the pattern")
    return found


def partitions(path: str) -> dict[str, str]:
    """Columns that names of folders are, as in ``day=2026-01-07/part-0.parquet``.

    Example:
        >>> partitions("days/day=7/city=New%20York/part-0.parquet")
        {'day': '7', 'city': 'New York'}
    """
    folders = [part.partition("=") for part in path.split("/")[:-1]]
    return {name: unquote(value) for name, equals, value in folders if name and equals}


def in_folder(folder: Path, endings: Iterable[str]) -> list[Path]:
    """Files in folders like ``day=2026-01-07/`` below a folder; none if there is no such folder."""
    found = [
        Found.at(file, str(file), partitions(file.relative_to(folder).as_posix()))
        for file in sorted(folder.glob("*=*/**/*"))
        if file.is_file() and file.name.lower().endswith(tuple(endings))
    ]
    return list(found)


def of_query(sql: str | None, uri: str | None) -> list[Path]:
    """What a query of a database gives, as a file; none where there is no query.

    Args:
        sql: The query.
        uri: Address of the database.

    Raises:
        SettingError: Only one of both is given, or an address of another kind.
        MissingExtraError: The driver is not installed.
        StorageError: The database refuses, or is not there.
    """
    if sql is None and uri is None:
        return []
    if sql is None or uri is None:
        raise SettingError("give --sql with --from: a query, and the address of a database")
    with query(sql, uri) as found:
        place = _room() / "query.arrow"
        with (
            storage_errors("write", place),
            module("ipc").new_file(str(place), found.schema) as writer,
        ):
            for batch in found:
                writer.write_batch(batch)
    return [Found.at(place, f"--sql {sql!r}")]


@functools.cache
def _temporary() -> Any:
    return tempfile.TemporaryDirectory(prefix="memento-")  # removed when the command ends


def _room() -> Path:
    """A new folder for a file."""
    return Path(tempfile.mkdtemp(dir=_temporary().name))


def _standard_input() -> Found:
    place = _room() / "standard input"
    with storage_errors("write", place), place.open("wb") as file:
        _copy(sys.stdin.buffer, file, place, "standard input")
        size = file.tell()
    if not size:
        raise SchemaError("standard input is empty; pipe a file into the command")
    with place.open("rb") as file:
        start = file.read(6)
    ending = next((e for mark, e in _BEGINS.items() if start.startswith(mark)), "csv")
    return Found.at(place.rename(place.with_name(f"stdin.{ending}")), STDIN)


def _of_web(address: str) -> Found:
    """A file of the web, with the name that its address ends in."""
    shown = public(address)
    try:
        name = unquote(urlsplit(address).path).rpartition("/")[2]
    except ValueError as error:
        raise InputError(
            f"{shown} is no address: {without_secrets(reason_of(error), address)}; correct it"
        ) from error
    if name in ("", ".", ".."):
        raise InputError(f"{shown} names no file; give the address of one, such as .../day.csv")
    place = _room() / name
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer, place.open("wb") as file:
            _copy(answer, file, place, shown)
            stated = answer.headers.get("Content-Length")
            if stated is not None and int(stated) != file.tell():
                raise OSError(f"{file.tell():,} bytes came of {int(stated):,}")
    except StorageError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = without_secrets(reason_of(error), address)
        raise StorageError(f"{shown} cannot be fetched: {reason}; check the address") from error
    return Found.at(place, shown, origin=address)


def _copy(source: IO[bytes], file: IO[bytes], place: Path, name: str) -> None:
    """All bytes of a source, unless they would fill the disk."""
    limit = int(_SHARE * shutil.disk_usage(place.parent).free)
    while piece := source.read(_PIECE):
        if file.tell() + len(piece) > limit:
            raise SpaceError(
                f"{name} is larger than {limit:,} bytes, which is {_SHARE:.0%} of what is free at "
                f"{place.parent.parent.parent}; free some space, or name another folder in TMPDIR"
            )
        file.write(piece)
