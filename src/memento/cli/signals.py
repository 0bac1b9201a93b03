"""Signals that end a command: SIGTERM as Ctrl-C, so that whatever runs is stopped and kept."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["as_before", "end_in_order", "held_back", "terminated_like_interrupted"]


#: What ends a command from outside, beside Ctrl-C; a closed terminal where the system has that.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def end_in_order() -> None:
    """From here on SIGTERM and SIGHUP unwind what runs, so that what is temporary goes with it."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, stop)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Signals wait for the end of the block: compiled packages swallow what they raise in imports.

    Where signals cannot be held back (Windows), they do not wait.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, *_ENDING])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """What signals do stays as it was, whatever `end_in_order` does."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)


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
