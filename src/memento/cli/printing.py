"""Output of commands that nobody may read: a closed pipe, a full disk of the log, no output at all.

A command's work is done whether or not it can be told. So what cannot be written is dropped, said
once where that is possible, and changes neither the work nor the exit code.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["forgiving_output"]


class _Forgiving(io.RawIOBase):
    """An open file that takes what cannot be written as written, and remembers why."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.failure = self.failure or error
                return memoryview(data).nbytes


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Inside, writing to the standard output and to the standard error does not fail."""
    _occupy_descriptors()
    before = sys.stdout, sys.stderr
    raw_out, sys.stdout = _forgiving(sys.stdout, sys.__stdout__, 1)
    raw_error, sys.stderr = _forgiving(sys.stderr, sys.__stderr__, 2)
    try:
        yield
    finally:
        if raw_out is not None:
            sys.stdout.flush()
            failure = raw_out.failure
            if failure is not None and failure.errno != errno.EPIPE:  # a reader may well stop
                reason = failure.strerror or failure
                sys.stderr.write(f"memento: warning: output could not be written: {reason}\n")
        if raw_error is not None:
            sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _occupy_descriptors() -> None:
    """Open what was closed by the caller, so that no file of ours gets the output's number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _forgiving(stream: Any, original: Any, descriptor: int) -> tuple[_Forgiving | None, Any]:
    """A stream to the same place; one that is not the process's own (a test's, say) stays."""
    if stream is not original:
        return None, stream
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    raw = _Forgiving(descriptor)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # Another encoding, as that of the C locale, lacks signs that we print.
    unicode = encoding.lower().replace("-", "") == "utf8"
    errors = getattr(stream, "errors", None) if unicode else None
    return raw, io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=errors or "backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )
