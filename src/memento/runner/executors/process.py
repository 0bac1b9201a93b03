"""In this process: nothing to start, and a debugger sees the body."""

# ruff: noqa: D102 (the base class documents what is overridden)
from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from memento.runner.executors import Executor
from memento.runner.job import Job, Outcome, execute, thread_environment

__all__ = ["ProcessExecutor"]


class ProcessExecutor(Executor):
    """Runs one job after the other in this process.

    Threads of libraries that are loaded already can be bounded only where they offer it (numba,
    torch); the pool bounds all of them.

    Args:
        echo: Whether output of the bodies is shown as well as logged.
        captured: Whether output is logged at all, and errors of the bodies become outcomes. If not,
            both are left alone, and so are threads.
        on_report: Called with the key of a job and what its body reports of its progress.
    """

    name = "this process"

    def __init__(
        self,
        echo: bool = False,
        *,
        captured: bool = True,
        on_report: Callable[[str, float, float, str], object] | None = None,
    ) -> None:
        self._echo = echo
        self._captured = captured
        self._on_report = on_report
        self._next: Job | None = None

    def free(self) -> int:
        return 0 if self._next else 1

    def submit(self, job: Job) -> str:
        self._next = job
        return self.name

    def poll(self, timeout: float) -> list[tuple[str, Outcome]]:
        job, self._next = self._next, None
        if job is None:
            return []
        tell = None if self._on_report is None else functools.partial(self._on_report, job.key)
        with _bounded(job.threads) if self._captured else contextlib.nullcontext():
            outcome = execute(
                job, self.name, echo=self._echo, captured=self._captured, on_report=tell
            )
        if outcome.state == "interrupted":
            raise KeyboardInterrupt
        return [(job.key, outcome)]

    def stop(self, grace: float) -> None:
        self._next = None


@contextlib.contextmanager
def _bounded(threads: int) -> Iterator[None]:
    """Bound the threads of what is loaded, and of what the body starts."""
    undo: list[tuple[Callable[[int], Any], int]] = []
    numba, torch = sys.modules.get("numba"), sys.modules.get("torch")
    if numba is not None:
        undo.append((numba.set_num_threads, numba.get_num_threads()))
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if torch is not None:
        undo.append((torch.set_num_threads, torch.get_num_threads()))
        torch.set_num_threads(threads)
    before = dict(os.environ)
    os.environ.update(thread_environment(threads))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        for change, value in undo:
            change(value)
