"""Disks, limits, clocks and surroundings that fail; several writers at once."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from memento import FIFO, LossReservoir, Memory, Reservoir
from memento.errors import LockedError, StorageError
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
        for count in (2, 6):
            for kind in TOGETHER:
                yield f"faults/{kind}/{count}/{number}"
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
        before = trial.fingerprint(folder, subject.ignored)
        process = trial.fork(subject.act, folder, treat=treat)
        code = trial.end_of(process)
        text = trial.said(folder)
        if code and not text:  # who writes down what is said may be behind
            time.sleep(1)
            text = trial.said(folder)
        # Of those libraries that end a process where memory is short nothing can be caught; what
        # they leave has to be whole all the same.
        gave_up = kind == "memory" and (
            code == -signal.SIGABRT or (code == 127 and "ABORT" in text)
        )
        if code < 0 and not gave_up:
            raise Violation(f"ended by signal {-code}: {text[-800:]}")
        if not callable(subject.act):
            trial.unbroken(text)
            if (
                code
                and not gave_up
                and "error" not in text
                and "failed" not in text
                and "stopped" not in text
            ):
                raise Violation(f"ends with {code} and says nothing of it: {text[-400:]!r}")
        if kind == "read-only":
            what = trial.difference(trial.fingerprint(folder, subject.ignored), before)
            # What other processes of the command's own write is not refused.
            if straight.operations and subject.alone and (what or not code):
                raise Violation(f"ends with {code} where nothing can be written; {what}")
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


def _little_memory(chance: random.Random, straight: Straight) -> Callable[[], None]:
    """Addresses end a little above what the process has, so that some allocation fails."""
    more = chance.choice([0, 2, 8, 32, 128]) * 2**20 + chance.randrange(2**20)

    def treat() -> None:
        trial.stop_the_clock()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

    return treat


def _read_only(chance: random.Random, straight: Straight) -> Callable[[], None]:
    """Nothing in the folder may change; elsewhere, as among temporary files, all is well."""

    def treat() -> None:
        trial.stop_the_clock()
        here = os.getcwd()

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            paths = arguments[: 2 if event in ("os.rename", "os.link") else 1]
            if trial.file_operation(event, arguments) and any(
                os.path.abspath(os.fsdecode(path)).startswith(here)
                for path in paths
                if isinstance(path, (str, bytes, os.PathLike))
            ):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), paths[-1])

        sys.addaudithook(hook)

    return treat


def _clock(chance: random.Random, straight: Straight) -> Callable[[], None]:
    def treat() -> None:
        time.time = lambda: NOW + chance.choice([-1, 1]) * chance.uniform(0, 1e7)

    return treat


KINDS: dict[str, Callable[[random.Random, Straight], Callable[[], None]]] = {
    "size": _small_files,
    "sync": _unsynced,
    "descriptors": _few_descriptors,
    "memory": _little_memory,
    "read-only": _read_only,
    "clock": _clock,
}


# -------------------------------------------------------------------------------- several at once

TOGETHER = ("writers", "threads", "forked")


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


def _true(samples: Mapping[str, np.ndarray]) -> None:
    """Rows are those of `subjects.day`, column by column."""
    for number in np.unique(samples["id"] // 1000):
        mine = samples["id"] // 1000 == number
        day, row = subjects.day(int(number)), samples["id"][mine] % 1000
        for name in day:
            if not np.array_equal(samples[name][mine], day[name][row]):
                raise Violation(f"{name} is of other samples than id")


def _again(act: Callable[[], None]) -> None:
    """Until nobody else writes to the folder, or wrote since it was read."""
    end = time.monotonic() + trial.PATIENCE
    while True:
        try:
            return act()
        except (LockedError, StorageError):
            if time.monotonic() > end:
                raise
            time.sleep(0.002)


def _threads(count: int, chance: random.Random) -> None:
    """Threads fill one memory and save it, or each its own copy of one folder; others read."""
    memory = Memory(60, chance.choice([Reservoir, LossReservoir, FIFO])(), seed=1)
    memory.insert(subjects.day(0))
    memory.save("mem")
    shared, units = chance.random() < 0.5, 3 * count

    def fill(unit: int) -> None:
        one = memory if shared else Memory.load("mem")
        one.insert(subjects.day(unit))
        one.save("mem")

    def write(unit: int) -> None:
        if shared:  # who saves at the same time is refused; what was inserted stays
            memory.insert(subjects.day(unit))
            _again(lambda: memory.save("mem"))
        else:
            _again(lambda: fill(unit))

    def read(_: int) -> None:
        for samples in (memory.samples, Memory.load("mem").samples):
            _true(samples)

    with ThreadPoolExecutor(2 * count) as pool:
        done = [pool.submit(act, n) for n in range(1, units + 1) for act in (write, read)]
        for future in done:
            future.result()
    if shared:
        memory.save("mem")
    found = Memory.load("mem")
    if found.seen != 120 * (units + 1):
        raise Violation(f"{found.seen} of {120 * (units + 1)} samples")


def _forked(count: int, chance: random.Random) -> None:
    """Workers that are forked from a process with a memory and an open reader of its folder."""
    memory = Memory(chance.choice([300, 1000]), Reservoir(), seed=1)
    for number in range(9):
        memory.insert(subjects.day(number))
    memory.save("mem")
    held, kept = memory.samples["id"].copy(), Memory.load("mem", mapped=True)
    readers: list[Callable[[Any], Mapping[str, Any]]] = [
        lambda rows, one=one: {name: column[rows] for name, column in one.samples.items()}
        for one in (memory, kept)
    ]
    with contextlib.suppress(ModuleNotFoundError):
        import torch

        from memento.integrations.torch import MemoryDataset

        torch.set_num_threads(1)
        readers += [MemoryDataset(memory).__getitem__, MemoryDataset("mem").__getitem__]
    for reader in readers:
        reader(slice(5))  # open before the fork, so that what is open is shared

    def work(worker: int) -> None:
        rng = np.random.default_rng(worker)
        for _ in range(50):
            rows = np.sort(rng.choice(len(held), 20, replace=False))
            for reader in readers:
                found = {name: np.asarray(column) for name, column in reader(rows).items()}
                if not np.array_equal(found["id"], held[rows]):
                    raise Violation(f"rows {rows} of {reader!r:.60}")
                _true(found)
        for one in (memory, kept):
            one.insert(subjects.day(100 + worker))
            _true(one.samples)

    processes = [trial.fork(lambda worker=n: work(worker), Path.cwd()) for n in range(count)]
    if any(code := trial.end_of(process) for process in processes):
        raise Violation(f"a worker ended with {code}")
    if len(readers) > 2:
        loader = torch.utils.data.DataLoader(
            MemoryDataset("mem"), 7, num_workers=count, multiprocessing_context="fork"
        )
        if not np.array_equal(np.concatenate([batch["id"] for batch in loader]), held):
            raise Violation("a loader gives other samples")
    if not all(np.array_equal(one.samples["id"], held) for one in (memory, kept)):
        raise Violation("what a worker inserted is in the memory of its parent")


def together(name: str, root: Path) -> None:
    """Threads or forked workers share a memory and its folder.

    Raises:
        Violation: A sample is lost or mixed with others, or something ends with an error.
    """
    _, kind, count, _ = name.split("/")
    folder = root / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.with_name(f"{kind}.{trial.LOG}").unlink(missing_ok=True)
    act = {"threads": _threads, "forked": _forked}[kind]
    process = trial.fork(lambda: act(int(count), random.Random(name)), folder)
    if code := trial.end_of(process):
        raise Violation(f"ended with {code}: {trial.said(folder)[-1500:]}")


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
    "other-processor": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    "closed-output": {},
    "broken-pipe": {},
    "dumb-terminal": {"TERM": "dumb", "COLUMNS": "1"},
}
#: Those that meet compiled code of an earlier run.
CACHES = ("damaged-cache", "other-processor")


def surroundings(name: str, subject: Subject, straight: Straight, root: Path) -> None:
    """The same command in a process of its own, in surroundings that nobody planned for.

    Raises:
        Violation: It fails, or what it leaves is not what it leaves elsewhere.
    """
    kind = name.split("/")[2]
    assert not callable(subject.act)
    with trial.place(root, subject, straight) as folder:
        variables = SURROUNDINGS[kind]
        if kind in CACHES:
            cache = folder.with_name(kind)
            other = folder.with_name("elsewhere")
            trial.copy(straight.folder, other)
            _elsewhere(subject, other, kind, {**variables, "NUMBA_CACHE_DIR": str(cache)})
            subject.check(other)
            if trial.fingerprint(other, subject.ignored).keys() != straight.result.keys():
                raise Violation("another processor leaves other files")
            variables = {"NUMBA_CACHE_DIR": str(cache)}
            for file in cache.rglob("*.nb?") if kind == "damaged-cache" else ():
                file.write_bytes(file.read_bytes()[:100] + b"?" * 100)
        if not _elsewhere(subject, folder, kind, variables):
            return
        subject.check(folder)
        if what := trial.difference(trial.fingerprint(folder, subject.ignored), straight.result):
            raise Violation(f"not what is left elsewhere; {what}")


def _elsewhere(subject: Subject, folder: Path, kind: str, variables: dict[str, str | None]) -> bool:
    """Run a command there; whether it worked, or said beforehand that it cannot."""
    everything = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    code = f"import time; time.time = lambda: {NOW}\nfrom memento.cli.main import main\n"
    code += f"from torture import standins; standins.start({subject.act!r})\n"
    code += "import sys; sys.argv[0] = 'memento'; main(sys.argv[1:])"
    if kind == "closed-output":
        code = "import os; os.close(1)\n" + code
    reading, writing = os.pipe()
    if kind == "broken-pipe":
        os.close(reading)
    process = subprocess.run(
        [sys.executable, "-c", code, *subject.act],
        cwd=folder,
        env={k: v for k, v in everything.items() if v is not None},
        stdout=writing if kind == "broken-pipe" else subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=trial.PATIENCE,
    )
    os.close(writing)
    with contextlib.suppress(OSError):
        os.close(reading)
    text = process.stderr.decode(errors="replace")
    trial.unbroken(text)
    if kind == "optimised" and process.returncode == 2 and "PYTHONOPTIMIZE=2" in text:
        return False
    if process.returncode:
        raise Violation(f"ends with {process.returncode}: {text[-800:]}")
    return True
