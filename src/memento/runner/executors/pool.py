"""In processes of this machine: one for each experiment, so many at a time.

A fresh process costs a fraction of a second and buys what experiments of minutes need: libraries
that read the number of threads when they are loaded get the right one, memory is given back, and
what crashes takes nothing with it.
"""

# ruff: noqa: D102 (the base class documents what is overridden)
from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from memento.errors import SettingError
from memento.runner.executors import Executor
from memento.runner.job import Job, Outcome, thread_environment
from memento.runner.results import mark_failed

__all__ = ["JobProcess", "PoolExecutor"]


class JobProcess:
    """A process that runs one job, and dies with this one.

    Args:
        job: What to run.
        where: Of this place, for people.
    """

    def __init__(self, job: Job, where: str) -> None:
        self.job = job
        self._stopped = False
        # Files, not pipes: whatever the body leaves behind may hold them open.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by _close)
        self._complaint = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "memento.runner.job"],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._complaint,
            env={**os.environ, **thread_environment(job.threads)},
            start_new_session=True,  # Ctrl-C reaches it through us, and once
        )
        assert self._process.stdin is not None  # stays open: it is the lifeline
        self._lifeline = self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it died at once; its outcome will say so
            self._lifeline.write((json.dumps({**job.document(), "where": where}) + "\n").encode())
            self._lifeline.flush()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def wait(self, timeout: float | None = 0.0) -> Outcome | None:
        """How it ended; None if it has not within so many seconds (None: for ever)."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return self._outcome()

    def interrupt(self) -> None:
        """Ask it to stop."""
        self._stopped = True
        self._process.send_signal(signal.SIGINT)  # does nothing once it has ended

    def kill(self) -> None:
        """End it and all that it started."""
        self._stopped = True
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _outcome(self) -> Outcome:
        """What became of an experiment whose process has ended."""
        code = self._process.returncode
        said, complaint = self._close()
        if said:
            return Outcome(**json.loads(said[-1]))
        if self._stopped:
            return Outcome("interrupted", "interrupted")
        why = f"its process ended without a word: exit code {code}"
        if code < 0:
            why = f"its process was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            why += " (by hand, or out of memory)"
        if complaint:
            why += f": {complaint[-1]}"
        mark_failed(self.job.place, (socket.gethostname(), self.pid), why)
        return Outcome("failed", why)

    def _close(self) -> tuple[list[str], list[str]]:
        """What it wrote to standard output and standard error; closes all files."""
        with contextlib.suppress(BrokenPipeError):
            self._lifeline.close()
        found = []
        for file in (self._output, self._complaint):
            lines: list[str] = []
            if not file.closed:
                file.seek(0)
                lines = file.read().decode(errors="replace").split("\n")
                file.close()
            found.append([line for line in lines if line.strip()])
        return found[0], found[1]


class PoolExecutor(Executor):
    """Runs so many jobs at a time, each in a process of its own.

    Args:
        jobs: At a time.

    Raises:
        SettingError: There is room for none.
    """

    name = "local pool"

    def __init__(self, jobs: int = 1) -> None:
        if jobs < 1:
            raise SettingError(f"{jobs} jobs at a time; expected 1 or more")
        self._jobs = jobs
        self._slots: dict[str, JobProcess] = {}

    def free(self) -> int:
        return self._jobs - len(self._slots)

    def submit(self, job: Job) -> str:
        self._slots[job.key] = process = JobProcess(job, self.name)
        return f"process {process.pid}"

    def poll(self, timeout: float) -> list[tuple[str, Outcome]]:
        end = time.monotonic() + timeout
        while True:
            ended = {key: out for key, job in self._slots.items() if (out := job.wait())}
            if ended or time.monotonic() >= end:
                break
            time.sleep(0.02)
        for key in ended:
            del self._slots[key]
        return list(ended.items())

    def stop(self, grace: float) -> None:
        for process in self._slots.values():
            process.interrupt()
        end = time.monotonic() + grace
        try:
            for process in self._slots.values():
                process.wait(max(0.0, end - time.monotonic()))
        finally:
            for process in self._slots.values():
                process.kill()
            self._slots.clear()
