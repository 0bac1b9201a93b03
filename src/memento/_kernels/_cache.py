"""Machine code of kernels on disk: a mere convenience, so nothing that happens to it may matter.

What cannot be kept, found or trusted is compiled in memory instead, with one warning a process.
Each piece of code is one file, named for all that it depends on: the kernel, the types of its
arguments, the processor, the versions, and the text of all kernels, as code holds copies of what it
calls in other files. So there is no index that two processes could write at the same time, and code
of another processor is never looked at. A digest in front of the code tells a damaged file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

_log = logging.getLogger(__name__)
_NOTABLE = 1.0  # s of compiling that are worth a word
_DIGEST = hashlib.sha256().digest_size


class KernelCache(_Cache):
    """What numba asks before it compiles a kernel, and hands what it compiled.

    Args:
        function: The kernel as a Python function, before it is compiled.
    """

    def __init__(self, function: Any) -> None:
        self._name = function.__qualname__.rpartition(".")[2]
        self._source = Path(function.__code__.co_filename)
        self._line = function.__code__.co_firstlineno
        self._missed = 0.0

    @property
    def cache_path(self) -> str | None:
        """The folder of compiled code; None if there is no place for it."""
        folder = folder_of_code()
        return None if folder is None else str(folder)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Code for arguments of these types; None if there is none, or none that is whole."""
        target_context.refresh()
        try:
            compiled = self._read(sig, target_context)
        except Exception as error:  # whatever a file may hold
            compiled = None
            _news.unusable(error)
        if compiled is None:
            self._missed = time.perf_counter()
        return compiled

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, if there is a place for it."""
        _news.compiled(self._missed)
        try:
            self._write(sig, data)
        except Exception as error:
            _news.unusable(error)

    def _read(self, sig: Any, target_context: Any) -> Any:
        path = self._path(sig, target_context.codegen())
        try:
            content = b"" if path is None else path.read_bytes()
        except FileNotFoundError:
            content = b""
        if not content:
            return None
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            raise ValueError(f"{path} is damaged")
        reduced = pickle.loads(content[_DIGEST:])  # noqa: S301 - code, from a folder of code
        return CompileResult._rebuild(target_context, *reduced)  # type: ignore[no-untyped-call]

    def _write(self, sig: Any, compiled: Any) -> None:
        path = self._path(sig, compiled.codegen)
        if path is None or compiled.library.has_dynamic_globals:
            return
        content = dumps(compiled._reduce())  # type: ignore[no-untyped-call]
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _path(self, sig: Any, codegen: Any) -> Path | None:
        folder = folder_of_code()
        if folder is None:
            return None
        place = (self._source.name, self._line)
        versions = (numba.__version__, sys.version)
        depends_on = (place, sig, codegen.magic_tuple(), versions, _text_beside(self._source))
        digest = hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]
        return folder / f"{self._name}.{digest}.nbc"

    def enable(self) -> None:
        """Nothing to switch on."""

    def disable(self) -> None:
        """Nothing to switch off."""

    def flush(self) -> None:
        """Nothing is held back."""


@cache
def _text_beside(source: Path) -> str:
    """Digest of the text of a kernel's file and of all files beside it."""
    text = b"".join(file.read_bytes() for file in sorted(source.parent.glob("*.py")))
    return hashlib.sha256(text).hexdigest()


@cache
def folder_of_code() -> Path | None:
    """Where compiled code is kept, found once a process; None, after a warning, if nowhere."""
    for folder in _places():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            # One that was filled before (in an image, say) serves as well.
            if not any(folder.glob("*.nbc")):
                reason = error
                continue
        return folder.absolute()
    _news.unusable(reason)
    return None


def _places() -> Iterator[Path]:
    """The folder that the user names, and no other; else beside the source, or among caches."""
    if numba.config.CACHE_DIR:  # type: ignore[attr-defined]
        yield Path(numba.config.CACHE_DIR) / "memento-kernels"  # type: ignore[attr-defined]
        return
    yield Path(__file__).parent / "__pycache__"
    folders = AppDirs("memento-kernels", appauthor=False)  # type: ignore[no-untyped-call]
    user = Path(folders.user_cache_dir)
    if user.is_absolute():  # not so without a home
        yield user


class _News:
    """What a process says once: that compiling takes long, that code is not kept."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last = 0.0
        self._said: set[str] = set()

    def compiled(self, began: float) -> None:
        """Count the time since a kernel was found missing, less that of kernels it calls."""
        now = time.perf_counter()
        self._seconds += now - max(began, self._last)
        self._last = now
        folder = folder_of_code()
        if folder is not None and self._seconds > _NOTABLE and self._first("compiling"):
            _log.info("compiling for this processor, once; the code is kept in %s", folder)

    def unusable(self, error: Exception) -> None:
        """Warn that code is compiled in memory."""
        if self._first("unusable"):
            _log.warning(
                "compiled code is not kept or not used (%s: %s), so this process compiles what it "
                "needs; the folder for it can be named in NUMBA_CACHE_DIR",
                type(error).__name__,
                error,
            )

    def _first(self, what: str) -> bool:
        if what in self._said:
            return False
        self._said.add(what)
        return True


_news = _News()
