"""Signals that end a command: SIGTERM as Ctrl-C, so that whatever runs is stopped and kept."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["terminated_like_interrupted"]


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[Callable[[], int | None]]:
    """SIGTERM stops the work as Ctrl-C does; the value says which signal came."""
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        with contextlib.suppress(ValueError):  # not in the main thread: embedded in something else
            signal.signal(number, stop)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):
                signal.signal(number, handler)
