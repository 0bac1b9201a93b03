"""Files that are whole or absent: atomic writes, digests, a lock for writers."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from memento.errors import LockedError, SpaceError, StorageError

__all__ = ["Lock", "atomic_write", "digest", "storage_errors", "sync_folder", "write_synced"]

# Errors that mean "no room": disk full, quota used up, file size limit of the process.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def storage_errors(what: str, path: Path) -> Iterator[None]:
    """Turn errors of the operating system into ours, with the path and a remedy.

    Args:
        what: What was being done, as in "write the memory".
        path: Where.

    Raises:
        SpaceError: The disk (or quota, or file size limit) is full.
        StorageError: Anything else the operating system refuses.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            raise SpaceError(
                f"cannot {what} at {path}: {reason}; free some space and repeat; what was there "
                "before is unchanged"
            ) from error
        raise StorageError(
            f"cannot {what} at {path}: {reason}; check the path and its rights"
        ) from (error)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable: without it a power cut may undo them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, write: Callable[[IO[bytes]], object]) -> tuple[int, str]:
    """Write a new file, wait until it is on the disk, and describe it.

    Args:
        path: A file that no reader knows of yet.
        write: Receives the open binary file.

    Returns:
        The size in bytes and the SHA-256 digest in hexadecimal, of the bytes as they were written
        (not read back), so that damage on the way to the disk shows later.
    """
    with path.open("wb") as file:
        tee = _Tee(file)
        write(tee)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    return tee.size, tee.sha.hexdigest()


class _Tee:
    """A file to write to that also counts and digests."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.sha = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data)
        self.sha.update(view)
        self.size += view.nbytes
        self._file.write(view)
        return view.nbytes


def atomic_write(path: Path, data: bytes) -> None:
    """Replace a file so that readers see the old or the new content, never a mixture.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> atomic_write(target, b"kept")
        >>> target.read_bytes()
        b'kept'
    """
    # In the same folder, because a rename is atomic only inside one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_synced(temporary, lambda file: file.write(data))
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def digest(source: Path | bytes) -> str:
    """SHA-256 of a file or of bytes, in hexadecimal.

    Example:
        >>> digest(b"")[:16]
        'e3b0c44298fc1c14'
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Lock:
    """One writer at a time: an advisory lock on a file, held inside a ``with`` block.

    The lock belongs to the process and goes away with it, so a killed writer leaves none behind.

    Raises:
        LockedError: On entry, when another process holds it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> with Lock(path):
        ...     pass
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> Lock:
        import fcntl

        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise LockedError(
                    f"{self._path.parent} is being written by another process; "
                    "wait until it has finished, then repeat"
                ) from error
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing releases the lock
            self._descriptor = None
