"""Archives of models, from a place that anybody may stand in for: read without trust.

An archive is read whole into memory, up to a bound, and checked to its end. Only then is a folder
written, under another name, and moved to its place.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from pathlib import Path

from memento.errors import DamagedError, ForeignError
from memento.files import storage_errors
from memento_puffer.data.layout import HORIZONS

__all__ = ["MODEL_FILES", "model_files", "read_model_archive", "unpacked"]


# What makes a model; pictures of the losses may come with it.
def model_files(horizon: int) -> tuple[str, str, str]:
    """Names of a network's files: for trainers, for servers, and its moments.

    Example:
        >>> model_files(0)
        ('py-0.pt', 'cpp-0.pt', 'cpp-meta-0.json')
    """
    return f"py-{horizon}.pt", f"cpp-{horizon}.pt", f"cpp-meta-{horizon}.json"


MODEL_FILES = tuple(name for horizon in range(HORIZONS) for name in model_files(horizon))
_PICTURES = tuple(f"loss{horizon}.png" for horizon in range(HORIZONS))
_ENTRY = re.compile(r"(?:\./)?([A-Za-z0-9_][A-Za-z0-9._-]*)/([^/\\\0]+)")
_FOLDER = re.compile(r"\.?/?|(?:\./)?[A-Za-z0-9_][A-Za-z0-9._-]*/?")
_MOST_ENTRIES = 64
# A real archive unpacks to about a megabyte.
LARGEST_MODEL = 16 << 20


def read_model_archive(path: Path, *, largest: int = LARGEST_MODEL) -> dict[str, bytes]:
    """Read a model of Puffer's from its .tar.gz: one folder with the files, and nothing else.

    Args:
        path: The archive.
        largest: Bytes that it may unpack to, in all.

    Returns:
        Content by name: the 15 files of `MODEL_FILES`, and loss0.png to loss4.png if they are
        there.

    Raises:
        ForeignError: It holds something else: other names, links, devices, paths that lead out of
            the folder, a file twice, or more than ``largest`` bytes. Nothing is written.
        DamagedError: It is cut off or changed, or lacks files.
        StorageError: It cannot be read from the disk.
    """
    data = unpacked(path, largest, "fetch it again")
    try:
        with tarfile.open(fileobj=_Bounded(data), mode="r:") as archive:
            contents = _contents_of(path.name, archive, largest)
    except (tarfile.TarError, _EndlessError, ValueError, EOFError, OverflowError) as error:
        raise DamagedError(f"{path.name} is no whole archive ({error}); fetch it again") from None
    absent = [name for name in MODEL_FILES if name not in contents]
    if absent:
        raise DamagedError(
            f"{path.name} lacks {', '.join(absent)}; a model is {len(MODEL_FILES)} files"
        )
    return contents


def unpacked(path: Path, largest: int, remedy: str) -> bytes:
    """The whole content of a gzip file, of one member or several.

    Args:
        path: The file.
        largest: Bytes that it may have, packed and unpacked.
        remedy: What to do if it is damaged.

    Raises:
        ForeignError: It has more bytes.
        DamagedError: It is cut off or changed.
        StorageError: It cannot be read from the disk.
    """
    too_large = ForeignError(
        f"{path} has more than {largest:,} bytes, packed or unpacked; no real one has. Nothing was "
        "unpacked"
    )
    with storage_errors("read", path), path.open("rb") as packed_file:
        packed = packed_file.read(largest + 1)
    if len(packed) > largest:
        raise too_large
    try:
        if not packed:
            raise EOFError("it is empty")
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            data = file.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedError(f"{path} is no whole gzip file ({error}); {remedy}") from None
    if len(data) > largest:
        raise too_large
    return data


def _contents_of(name: str, archive: tarfile.TarFile, largest: int) -> dict[str, bytes]:
    """Content of each file of an archive by name; every entry is checked before it is read."""
    contents: dict[str, bytes] = {}
    folder = None
    for count, member in enumerate(archive, 1):
        if count > _MOST_ENTRIES:
            raise _foreign_entry(name, member, f"is entry number {count}; a model has about 20")
        _check_by_tarfile(name, member)
        if member.isdir():
            if not _FOLDER.fullmatch(member.name) or ".." in member.name:
                raise _foreign_entry(name, member, "is no plain folder")
            continue
        if not member.isreg() or member.issparse():
            raise _foreign_entry(name, member, "is a link, a device or another special file")
        match = _ENTRY.fullmatch(member.name)
        if not match or match[2] not in (*MODEL_FILES, *_PICTURES):
            raise _foreign_entry(
                name, member, f"is none of <folder>/{', '.join(MODEL_FILES[:3])}, ..."
            )
        if folder not in (None, match[1]):
            raise _foreign_entry(name, member, f"lies in another folder than {folder}")
        if match[2] in contents:
            raise _foreign_entry(name, member, "is there twice")
        if not 0 <= member.size <= largest:
            raise _foreign_entry(name, member, f"claims {member.size:,} bytes")
        folder = match[1]
        file = archive.extractfile(member)
        content = file.read() if file else b""
        if len(content) != member.size:
            raise DamagedError(f"{name} is cut off in {match[2]}; fetch it again")
        contents[match[2]] = content
    return contents


def _check_by_tarfile(name: str, member: tarfile.TarInfo) -> None:
    """Python's own rules for data; they came with 3.11.4 and stand beside ours."""
    data_filter = getattr(tarfile, "data_filter", None)
    if data_filter is None:
        return
    try:
        data_filter(member, "/nowhere")
    except tarfile.TarError as error:
        raise _foreign_entry(
            name, member, f"is refused by Python ({type(error).__name__})"
        ) from None


def _foreign_entry(archive: str, member: tarfile.TarInfo, why: str) -> ForeignError:
    return ForeignError(f"{archive}: entry {member.name[:100]!r} {why}; nothing was unpacked")


class _EndlessError(Exception):
    """Reading an archive takes more steps than any real one."""


class _Bounded(io.BytesIO):
    """Bytes that may be read a limited number of times: headers can send a reader in circles."""

    _left = 20_000

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise _EndlessError("its headers lead in circles")
        return super().read(size)
