"""Disks, limits, clocks and surroundings that fail; several writers at once."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from memento import Memory, Reservoir
from torture import subjects, trial
from torture.trial import NOW, Straight, Subject, Violation

#: What the system answers to a file operation.
ANSWERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE)


def names(there: dict[str, Subject]) -> Iterator[str]:
    """Names of all trials, without end; each fault in turn for each subject in turn."""
    number = 0
    while True:
        for name in there:
            kinds = ("operation", "operation", "operation", *KINDS)
            yield f"faults/{name}/{kinds[number % len(kinds)]}/{number}"
        for writers in (2, 6):
            yield f"faults/writers/{writers}/{number}"
        for surroundings in SURROUNDINGS:
            yield f"faults/surroundings/{surroundings}/{number}"
        number += 1


def attempt(name: str, subject: Subject, straight: Straight, root: Path) -> None:
    """One fault, and what comes of it: a message and nothing changed, or the work is done.

    Raises:
        Violation: A trace is shown, something is lost or half-written, or the same command does
            not complete the work once the fault is over.
    """
    _, _, kind, number = name.split("/")
    chance = random.Random(name)
    treat = (
        _failing(int(number), straight) if kind == "operation" else KINDS[kind](chance, straight)
    )
    with trial.place(root, subject, straight) as folder:
        process = trial.fork(subject.act, folder, treat=treat)
        code = trial.end_of(process)
        text = trial.said(folder)
        if code < 0:
            raise Violation(f"ended by signal {-code}: {text[-800:]}")
        if not callable(subject.act):
            trial.unbroken(text)
            if code and "error" not in text and "failed" not in text and "stopped" not in text:
                raise Violation(f"ends with {code} and says nothing of it: {text[-400:]!r}")
        # What the clock showed is written down, so that only what can be read is compared.
        if kind == "clock":
            subject.check(folder)
        else:
            trial.go_on(subject, straight, folder)


def _failing(number: int, straight: Straight) -> Callable[[], None]:
    """A file operation is refused, and so is each after it, as on a full disk; or only the one."""
    answer = ANSWERS[number % len(ANSWERS)]
    first, alone = 1 + number // 2 % max(straight.operations, 1), number % 2 == 1

    def treat() -> None:
        trial.stop_the_clock()
        seen, here = [0], os.getpid()

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if os.getpid() != here or not trial.file_operation(event, arguments):
                return
            seen[0] += 1
            removes = event in ("os.remove", "os.rmdir")
            if seen[0] == first or (seen[0] > first and not alone and not removes):
                raise OSError(answer, os.strerror(answer))

        sys.addaudithook(hook)

    return treat


def _small_files(chance: random.Random, straight: Straight) -> Callable[[], None]:
    """No file may become larger than so many bytes: what is written ends in the middle."""
    most = chance.choice([0, 1, 64, 130, 500, 1000, 4000, 20_000])

    def treat() -> None:
        trial.stop_the_clock()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        # What is said goes to a file as well, which may not be refused: the log is a pipe to it.
        _say_by_pipe()
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return treat


def _say_by_pipe() -> None:
    """Let a process without limits write what this one says."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        os.chdir("/")
        while part := os.read(reading, 65536):
            os.write(1, part)
        os._exit(0)
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)


def _unsynced(chance: random.Random, straight: Straight) -> Callable[[], None]:
    answer = chance.choice([errno.EINVAL, errno.EIO, errno.ENOSYS])

    def treat() -> None:
        trial.stop_the_clock()

        def refuse(descriptor: int) -> None:
            raise OSError(answer, os.strerror(answer))

        os.fsync = refuse

    return treat


def _few_descriptors(chance: random.Random, straight: Straight) -> Callable[[], None]:
    used = len(os.listdir("/proc/self/fd"))

    def treat() -> None:
        trial.stop_the_clock()
        most = used + chance.randrange(1, 12)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return treat


def _clock(chance: random.Random, straight: Straight) -> Callable[[], None]:
    def treat() -> None:
        time.time = lambda: NOW + chance.choice([-1, 1]) * chance.uniform(0, 1e7)

    return treat


KINDS: dict[str, Callable[[random.Random, Straight], Callable[[], None]]] = {
    "size": _small_files,
    "sync": _unsynced,
    "descriptors": _few_descriptors,
    "clock": _clock,
}


# -------------------------------------------------------------------------------- several at once


def writers(name: str, root: Path) -> None:
    """Writers of one memory, each with units of its own, beside a reader: nothing gets lost.

    Raises:
        Violation: A unit is missing or in twice, or a reader met something that was not whole.
    """
    count = name.split("/")[2]
    folder = root / "writers"
    trial.copy(_shared(root, int(count)), folder)
    act = lambda unit: ("memory", "insert", "mem", f"day-{unit}.npz", "--unit", f"day-{unit}")  # noqa: E731
    waiting = list(range(int(count)))
    going: dict[int, int] = {}
    end = time.monotonic() + trial.PATIENCE
    while waiting or going:
        if time.monotonic() > end:
            raise Violation("writers do not get through")
        for unit in waiting:
            going[trial.fork(act(unit), folder)] = unit
        waiting = []
        try:
            Memory.load(folder / "mem")
        except Exception as error:
            raise Violation(f"a reader met {error!r}") from error
        for process in list(going):
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                unit, code = going.pop(process), os.waitstatus_to_exitcode(status)
                if code not in (0, 2):
                    raise Violation(f"ended with {code}: {trial.said(folder)[-800:]}")
                if code == 2:  # another one writes
                    waiting.append(unit)
    trial.unbroken(trial.said(folder))
    memory = Memory.load(folder / "mem")
    rows = sum(len(subjects.day(unit, 30)["id"]) for unit in range(int(count)))
    if memory.seen != rows or not {f"day-{unit}" for unit in range(int(count))} <= {*memory.units}:
        raise Violation(f"{memory.seen} of {rows} samples, units {sorted(memory.units)}")


def _shared(root: Path, count: int) -> Path:
    folder = root / f"writers-{count}"
    if not folder.exists():
        folder.mkdir(parents=True)
        Memory(50, Reservoir()).save(folder / "mem")
        for unit in range(count):
            np.savez(folder / f"day-{unit}.npz", **subjects.day(unit, 30))
    return folder


# ------------------------------------------------------------------------------------ surroundings

SURROUNDINGS: dict[str, dict[str, str | None]] = {
    "no-home": {"HOME": None, "XDG_CACHE_HOME": None},
    "home-that-is-not": {"HOME": "/nonexistent"},
    "locale-c": {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
    "no-tmpdir": {"TMPDIR": "/nonexistent"},
    "optimised": {"PYTHONOPTIMIZE": "2"},
    "hash-seed-1": {"PYTHONHASHSEED": "1"},
    "hash-seed-2": {"PYTHONHASHSEED": "2"},
    "two-threads": {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"},
    "damaged-cache": {},
    "closed-output": {},
    "broken-pipe": {},
    "dumb-terminal": {"TERM": "dumb", "COLUMNS": "1"},
}


def surroundings(name: str, subject: Subject, straight: Straight, root: Path) -> None:
    """The same command in a process of its own, in surroundings that nobody planned for.

    Raises:
        Violation: It fails, or what it leaves is not what it leaves elsewhere.
    """
    kind = name.split("/")[2]
    assert not callable(subject.act)
    with trial.place(root, subject, straight) as folder:
        variables = {k: v for k, v in {**os.environ, **SURROUNDINGS[kind]}.items() if v is not None}
        if kind == "damaged-cache":
            cache = folder.parent / "cache"
            variables["NUMBA_CACHE_DIR"] = str(cache)
            for file in cache.rglob("*.nb?") if cache.exists() else ():
                file.write_bytes(file.read_bytes()[:100] + b"?" * 100)
        code = f"import time; time.time = lambda: {NOW}\nfrom memento.cli.main import main\n"
        code += "import sys; sys.argv[0] = 'memento'; main(sys.argv[1:])"
        if kind == "closed-output":
            code = "import os; os.close(1)\n" + code
        reading, writing = os.pipe()
        if kind == "broken-pipe":
            os.close(reading)
        process = subprocess.run(
            [sys.executable, "-c", code, *subject.act],
            cwd=folder,
            env=variables,
            stdout=writing if kind == "broken-pipe" else subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=trial.PATIENCE,
        )
        os.close(writing)
        with contextlib.suppress(OSError):
            os.close(reading)
        text = process.stderr.decode(errors="replace")
        trial.unbroken(text)
        if process.returncode:
            raise Violation(f"ends with {process.returncode}: {text[-800:]}")
        subject.check(folder)
        if what := trial.difference(trial.fingerprint(folder, subject.ignored), straight.result):
            raise Violation(f"not what is left elsewhere; {what}")
