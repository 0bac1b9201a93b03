"""Files and folders that are whole or absent: atomic writes, digests, a lock for writers."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from memento.addresses import public
from memento.arguments import shown
from memento.errors import DamagedError, LockedError, SettingError, SpaceError, StorageError

__all__ = [
    "Lock",
    "atomic_write",
    "clear_temporaries",
    "digest",
    "is_plain_file",
    "is_shortage",
    "is_there",
    "local_path",
    "read_json",
    "readable_json",
    "replace_folder",
    "replacing",
    "scratch",
    "storage_errors",
    "sync_folder",
    "temporary_of",
    "write_json",
    "write_npz",
    "write_synced",
]

# Errors that mean "no room": disk full, quota used up, file size limit of the process.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Errors that say nothing of the data: the machine is short of something.
_SHORT = _NO_ROOM | {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
# How Python, the loader of libraries and C++ say so where they have no number for it.
_SHORT_OF = (
    "can't start new thread",
    "annot allocate memory",
    "failed to map segment",
    "bad_alloc",
)
# Errors that mean "not on this file system", which lacks what was asked for (CIFS, FUSE).
_CANNOT = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.ENOLCK}
# Of folders also these: they cannot be opened, or not be synced through what was opened.
_NOT_FOLDERS = {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
_NPY_HEADER = 1 << 16  # bytes, at most
# Schemes of more than one letter, so that no drive of Windows is taken for one.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of a name.

    `Path.exists` says no, from Python 3.14 on, where a folder may not be read.

    Raises:
        OSError: It cannot be known.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a zero byte in it
        return False
    return True


def local_path(path: Any, name: str = "path") -> Path:
    """The file or folder that a user means.

    Args:
        path: Text, or a path.
        name: Of the argument, for the message.

    Raises:
        SettingError: It is no path, or an address like ``s3://bucket/memory``, which would become
            a local folder of that name.

    Example:
        >>> local_path("day.csv").name
        'day.csv'
        >>> local_path("s3://bucket/memory")
        Traceback (most recent call last):
        memento.errors.SettingError: path is 's3://bucket/memory', an address; give a local path: \
mount the place, or copy from or to it
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        raise SettingError(f"{name} is {shown(path)}; expected the path of a file or folder")
    if not text or "\0" in text or not _can_be_named(text):
        raise SettingError(
            f"{name} is {shown(text)}; expected the path of a file or folder, each name of which "
            f"has at most {_LONGEST} bytes"
        )
    if address := _ADDRESS.match(text):
        if address[1].lower() == "file":
            raise SettingError(
                f"{name} is {public(text)!r}; leave {address[0]!r} out: give the path alone"
            )
        raise SettingError(
            f"{name} is {public(text)!r}, an address; give a local path: mount the place, or copy "
            "from or to it"
        )
    return Path(path)


_LONGEST = 255  # bytes of a name, in the file systems that are common


def _can_be_named(text: str) -> bool:
    """Whether a file can have a name: half of a surrogate pair is none, nor is a longer one."""
    try:
        return all(len(os.fsencode(part)) <= _LONGEST for part in Path(text).parts)
    except UnicodeEncodeError:
        return False


@contextlib.contextmanager
def storage_errors(what: str, path: Path) -> Iterator[None]:
    """Turn errors of the operating system into ours, with the path and a remedy.

    Args:
        what: What was being done, as in "write the memory".
        path: File or folder, for the message.

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


def scratch(folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that lies in a file without a name, which goes with it, at the latest when killed.

    The operating system keeps as much of it in memory as there is room.

    Args:
        folder: Where the file is; it has to have the room.
        shape: Of the array.
        dtype: Of the array.

    Raises:
        SpaceError: There is no room.
    """
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    with storage_errors("make room", folder), tempfile.TemporaryFile(dir=folder) as file:
        # Not only as long: a page that finds no room when it is written kills the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            for start in range(0, size, 1 << 24):
                file.write(bytes(min(1 << 24, size - start)))
            file.flush()
        return np.asarray(np.memmap(file, dtype, "r+", 0, shape))


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable (or a file's bytes): a power cut may undo them.

    File systems that cannot sync a folder are left at that.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT | _NOT_FOLDERS:
            raise


def is_shortage(error: BaseException | None) -> bool:
    """Whether room, memory, threads or descriptors ran out: that says nothing of the data."""
    while error is not None:
        if isinstance(error, (MemoryError, SpaceError)):
            return True
        if isinstance(error, OSError) and error.errno in _SHORT:
            return True
        if any(words in str(error) for words in _SHORT_OF):
            return True
        error = error.__cause__ or error.__context__
    return False


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

    Several threads, processes and machines may do so at once; one of their contents stays.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> atomic_write(target, b"kept")
        >>> target.read_bytes()
        b'kept'
    """
    with replacing(path) as temporary:
        write_synced(temporary, lambda file: file.write(data))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write to, which takes the place of another when the block has ended.

    If it ends with an error the temporary goes. One of a killed process is cleared away by the
    next that writes to the same path.

    Args:
        path: What is to be replaced, or made.

    Yields:
        A path in the same folder, because a rename is atomic only inside one file system.
    """
    clear_temporaries(path.parent, path.name)
    temporary, descriptor = _make_temporary(path)
    try:
        try:
            yield temporary
            os.fsync(descriptor)
            os.replace(temporary, path)
        except OSError as error:
            if temporary.name not in str(error):
                raise
            reason = error.strerror or str(error)
            reason = reason.replace(str(temporary), str(path)).replace(temporary.name, path.name)
            raise OSError(error.errno or errno.EIO, reason) from error
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replace_folder(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of another when the block has ended.

    All of it is on the disk before it takes that place. If the block ends with an error, what was
    there stays. Who is killed between the two renames of a replacement leaves no folder there;
    what killed processes left is cleared away by the next that writes to the same path.

    Args:
        folder: What is to be made, or replaced; its parent exists.
        replace: Whether a folder with content may be there; an empty one always may.

    Yields:
        A folder on the same file system.

    Raises:
        OSError: As the file system says, also where something is there that may not be replaced.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "pair"
        >>> with replace_folder(target) as new:
        ...     size = (new / "a").write_bytes(b"1")
        >>> [path.name for path in target.iterdir()]
        ['a']
    """
    clear_temporaries(folder.parent, folder.name)
    temporary, descriptor = _make_temporary(folder, is_folder=True)
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        yield new
        for path in (*new.rglob("*"), new):
            sync_folder(path)
        try:
            if replace and folder.is_dir() and not folder.is_symlink():
                os.rename(folder, old)
            os.rename(new, folder)
        except BaseException:
            if old.is_dir() and not folder.exists():
                os.rename(old, folder)
            raise
        sync_folder(folder.parent)
    finally:
        try:
            shutil.rmtree(temporary, ignore_errors=True)
        finally:
            os.close(descriptor)


def temporary_of(path: Path) -> Path:
    """A name beside a file or folder that nobody else has, for what is to take its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _make_temporary(path: Path, *, is_folder: bool = False) -> tuple[Path, int]:
    """A new file or folder, locked as long as the descriptor is open: others leave it alone."""
    while True:
        temporary = temporary_of(path)
        if is_folder:
            temporary.mkdir()
        flags = os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(temporary, flags | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            if is_folder and path.parent.is_dir():
                continue  # somebody took it for a dead one's before it was locked
            raise
        try:
            if _try_lock(descriptor) is not False and _is_at(descriptor, temporary):
                return temporary, descriptor
        except BaseException:
            os.close(descriptor)
            _erase(temporary)
            raise
        os.close(descriptor)  # somebody took it for a dead one's in the meantime


def clear_temporaries(folder: Path, name: str | None = None) -> None:
    """Remove what writers left in a folder that no longer live: nobody has it locked.

    Args:
        folder: Folder that they were written to.
        name: Of the file or folder that was to be replaced; any if left out.
    """
    target = r".+" if name is None else re.escape(name)
    ours = re.compile(rf"\.{target}\.[0-9a-f]{{16}}\.tmp")
    try:
        left = [entry for entry in os.scandir(folder) if ours.fullmatch(entry.name)]
    except OSError:
        return  # whatever it is, who writes will meet it
    for entry in left:
        with contextlib.suppress(OSError):
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.is_file(follow_symlinks=False):
                continue
            flags = os.O_RDONLY if is_folder else os.O_RDWR
            descriptor = os.open(entry.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _try_lock(descriptor):
                    _erase(Path(entry.path))
            finally:
                os.close(descriptor)


def _erase(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _try_lock(descriptor: int) -> bool | None:
    """Lock a file: False if somebody else has it, None if this file system has no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in _CANNOT | {errno.EBADF}:  # of folders on NFS
            return None
        raise
    return True


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
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o644)
            try:
                locked = _try_lock(descriptor)
                current = locked is None or _is_at(descriptor, self._path)
            except BaseException:
                os.close(descriptor)
                raise
            if locked is False:
                os.close(descriptor)
                raise LockedError(
                    f"{self._path.parent} is being written by another process; "
                    "wait until it has finished, then repeat"
                )
            if current:
                break
            os.close(descriptor)  # its last holder has removed it
        if locked is None:
            warnings.warn(
                f"{self._path.parent} is on a file system without locks; make sure that only one "
                "process writes there at a time",
                RuntimeWarning,
                stacklevel=2,
            )
        self._descriptor = descriptor
        return self

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing releases the lock
            self._descriptor = None


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that a path leads to."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def is_plain_file(path: Path) -> bool:
    """Whether there is a file of its own, neither a link nor a pipe or device."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def read_json(path: Path) -> Any:
    """The JSON value in a file."""
    with storage_errors("read", path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:
        raise DamagedError(f"{path} is no JSON ({error}); restore it from a copy") from error


def readable_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none, or none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, document: Any) -> None:
    """Replace a file by a JSON value, all at once."""
    with storage_errors("write", path):
        atomic_write(path, json.dumps(document, indent=1, allow_nan=False).encode())


def write_npz(file: Path | IO[bytes], arrays: Mapping[str, Any]) -> None:
    """Write arrays as NPZ; the same arrays give the same bytes.

    Args:
        file: A path, or a file that is open for writing.
        arrays: By name. `numpy.savez` would take some of the names for its own arguments.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in arrays.items():
            array = np.asarray(value)
            member = zipfile.ZipInfo(f"{name}.npy")
            member.file_size = array.nbytes + _NPY_HEADER  # says whether 4 GiB suffice
            with archive.open(member, "w") as out:
                np.lib.format.write_array(out, array, allow_pickle=False)
