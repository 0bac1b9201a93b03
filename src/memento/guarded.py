"""Objects that several threads may use at once, and that no interrupt leaves half changed."""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["Guarded", "guarded", "to_the_end"]

# An interrupted change is gone on with so often, before its interrupt is let through all the same.
_TRIES = 1000

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Owner = TypeVar("_Owner", bound="Guarded")


class Guarded(ABC):
    """Has a lock that every call holds, and finishes what an interrupted call has begun.

    Attributes:
        lock: Others wait while it is held; hold it around calls that belong together, as in
            ``with memory.lock: train(memory.samples, memory.weights)``.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            self._settle()
            return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.RLock())

    @abstractmethod
    def _settle(self) -> None:
        """Take a change that was interrupted to its end."""


def guarded(
    method: Callable[Concatenate[_Owner, _Arguments], _Result],
) -> Callable[Concatenate[_Owner, _Arguments], _Result]:
    """A method of a `Guarded` for one thread at a time, and never in the middle of a change."""

    @functools.wraps(method)
    def alone(self: _Owner, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with self.lock:  # of C: no interrupt comes between taking it and the block
            self._settle()
            return method(self, *args, **kwargs)

    return alone


def to_the_end(steps: Callable[[], None]) -> None:
    """Take steps that may be taken again from anywhere to their end, whatever interrupts them.

    Raises:
        KeyboardInterrupt: Or what else came from outside meanwhile, after the end.
        MemoryError, RecursionError: The end could not be reached.

    Example:
        >>> left = [InterruptedError(), MemoryError()]
        >>> def steps():
        ...     if left:
        ...         raise left.pop()
        ...     print("done")
        >>> to_the_end(steps)
        Traceback (most recent call last):
        InterruptedError
    """
    interrupt: BaseException | None = None
    failure: BaseException | None = None
    tries = 0
    while True:
        try:
            while tries < _TRIES:
                tries += 1
                try:
                    steps()
                except (MemoryError, RecursionError) as error:
                    failure = error
                except BaseException as error:
                    failure = interrupt = error
                else:
                    failure = None
                    break
        except BaseException as error:  # it came between two tries
            interrupt = error
        else:
            break
    if failure is not None:
        raise failure
    if interrupt is not None:
        raise interrupt
