"""Who works on blocks: this process, processes of this machine, or a cluster of Dask.

Results come in any order, each with the number of its task. A task whose worker dies is given to
another one, three times at most.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any

from memento import arguments
from memento.errors import SettingError, WorkerError, reason_of
from memento.scale.blocks import Block
from memento.scale.passes import Done, Plan, Task

__all__ = ["RETRIES", "Here", "Processes", "Work", "Workers"]

#: How often a block is given to another worker after one died of it.
RETRIES = 3

#: A block, and what its task is called with beside the plan and the block.
Work = tuple[Block, tuple[Any, ...]]


class Workers(ABC):
    """Works on blocks. Used in a ``with`` block."""

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:  # noqa: B027 - some start nothing
        """End what was started."""

    @abstractmethod
    def results(self, task: Task, plan: Plan, work: Sequence[Work]) -> Iterator[tuple[int, Done]]:
        """Results of a task for some blocks, as they come, each with its place in ``work``.

        Raises:
            MementoError: What a task raised.
            WorkerError: Workers die again and again.
        """


class Here(Workers):
    """This process, one block after the other."""

    def results(  # noqa: D102
        self, task: Task, plan: Plan, work: Sequence[Work]
    ) -> Iterator[tuple[int, Done]]:
        for number, (block, given) in enumerate(work):
            yield number, task(plan, block, *given)


class Processes(Workers):
    """So many processes of this machine, with one thread each."""

    def __init__(self, count: int) -> None:
        arguments.require("workers", count, arguments.whole())
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __exit__(self, *exception: object) -> None:
        self._end()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, initializer=_begin)
        return self._pool

    def _end(self) -> None:
        if self._pool is not None:
            processes = list((getattr(self._pool, "_processes", None) or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:  # what they work on is not wanted any more
                with contextlib.suppress(OSError, ValueError):
                    process.terminate()
            for process in processes:
                process.join()
            self._pool = None

    def results(  # noqa: D102
        self, task: Task, plan: Plan, work: Sequence[Work]
    ) -> Iterator[tuple[int, Done]]:
        deaths = dict.fromkeys(range(len(work)), 0)
        left = list(range(len(work)))[::-1]
        running: dict[Future[Done], int] = {}
        while left or running:
            try:
                while left and len(running) < self._count:
                    block, given = work[left[-1]]
                    running[self._started().submit(task, plan, block, *given)] = left[-1]
                    left.pop()
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    done = _result_of(future)
                    yield running.pop(future), done
            except BrokenProcessPool as error:
                # All that run are lost with the pool, and any of them may be what killed it.
                self._end()
                for number in running.values():
                    deaths[number] += 1
                    if deaths[number] > RETRIES:
                        raise WorkerError(
                            f"workers died {deaths[number]} times at {work[number][0]}: killed, or "
                            "out of memory; give them more, take fewer workers, or see what is "
                            "wrong with workers=0. What was found so far is kept, and the same "
                            "call goes on from there. (A script that takes workers has to begin "
                            'below if __name__ == "__main__":)'
                        ) from error
                left += sorted(running.values(), reverse=True)
                running.clear()


def _result_of(future: Future[Done]) -> Done:
    """What a task gave; what cannot be sent to another process is said so."""
    try:
        return future.result()
    except (AttributeError, TypeError) as error:
        if "pickle" not in str(error):
            raise
        raise unsendable(error) from error
    except Exception as error:
        if type(error).__name__ == "PicklingError":
            raise unsendable(error) from error
        raise


def unsendable(error: Exception) -> SettingError:
    """That a function of the user's cannot be handed to workers."""
    return SettingError(
        f"the policy or predict cannot be handed to workers ({reason_of(error)}); define functions "
        "at the top of a module that the workers can import, give the path of an ONNX file, or "
        "take workers=0"
    )


def _begin() -> None:
    """A worker's first act: it ends with whoever started it, and leaves Ctrl-C to them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
