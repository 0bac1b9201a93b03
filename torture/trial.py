"""One trial: a command in a process of its own, what is done to it, and what it leaves behind."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torture import standins

#: Seconds after which what still runs is said to hang.
PATIENCE = 180
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ROOM = 2 << 30  # bytes that a trial of bad input may add to the address space of its process
LOG = "said.log"  # beside the folder of a trial: what the command printed
NOW = 1_800_000_000.0  # what the clock shows, so that two runs may write the same bytes
#: File operations that processes are killed before, and that are made to fail.
OPERATIONS = frozenset(
    [
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
    ]
)


class Violation(Exception):  # noqa: N818 - what a campaign counts
    """Something that must not happen did."""


@dataclass(frozen=True)
class Subject:
    """A command that is ill-treated.

    Attributes:
        name: What reports call it.
        prepare: Makes in an empty folder whatever the command works on.
        act: Words of `memento`, or a function; works in the current folder.
        check: Raises if what is there is not whole; called after each kill.
        ignored: Patterns of files whose content differs from run to run, such as times.
        idempotent: Whether the same command may run once more when it is done.
        alone: Whether one process does all of the work.
    """

    name: str
    prepare: Callable[[Path], None]
    act: tuple[str, ...] | Callable[[], None]
    check: Callable[[Path], None] = lambda folder: None
    ignored: tuple[str, ...] = ()
    idempotent: bool = True
    alone: bool = True


@dataclass
class Straight:
    """What a subject does when it is left alone."""

    folder: Path  # as prepared, to be copied
    seconds: float
    operations: int
    result: Mapping[str, str]
    before: Mapping[str, str]


def file_operation(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an audit event is about to change something on the disk."""
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and not str(path).startswith(("/dev/", "/proc/"))
    return event in OPERATIONS


def fork(
    act: tuple[str, ...] | Callable[[], None],
    folder: Path,
    *,
    treat: Callable[[], None] = lambda: None,
) -> int:
    """Start a command in a folder, as the leader of a group of processes; returns its process."""
    log = folder.with_name(folder.name + "." + LOG)
    process = os.fork()
    if process:
        return process
    code, begun = 70, False
    try:
        os.setsid()
        os.chdir(folder)
        signal.set_wakeup_fd(-1)
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        sys.argv = ["memento"]
        if not callable(act):  # what stands in for others is not what is tried
            os.environ["TMPDIR"] = tempfile.tempdir = str(temporary(folder))
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
            standins.start(act)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        treat()
        begun = True
        code = _call(act)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:
        # A command has an answer of its own; a function has none, nor has what came before.
        mute = callable(act) or not begun
        code = 130 if mute and isinstance(error, KeyboardInterrupt) else 99
        if code == 99:
            traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def temporary(folder: Path) -> Path:
    """Where the commands of a folder put what is temporary."""
    place = folder.with_name(folder.name + ".tmp")
    place.mkdir(exist_ok=True)
    return place


def _call(act: tuple[str, ...] | Callable[[], None]) -> int:
    if callable(act):
        act()
        return 0
    from memento.cli.main import main

    main(list(act))
    return 0


def stop_the_clock() -> None:
    """Times that are written to disk are the same in all runs of this process."""
    time.time = lambda: NOW


def end_of(process: int, seconds: float = PATIENCE) -> int:
    """The exit code; minus the signal if one ended it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise Violation(f"still at work after {seconds:.0f} s")


def followers(folder: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            at = (entry / "cwd").readlink()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and (at == folder or folder in at.parents):
                found.append(int(entry.name))
    return found


def wait_for_followers(folder: Path, seconds: float = 30) -> None:
    """What a command started ends with it, without being told."""
    end = time.monotonic() + seconds
    while left := followers(folder):
        if time.monotonic() > end:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            raise Violation(f"{len(left)} processes outlive their command")
        time.sleep(0.01)


def said(folder: Path) -> str:
    """What the commands of a folder printed."""
    with contextlib.suppress(FileNotFoundError):
        return folder.with_name(folder.name + "." + LOG).read_text(errors="replace")
    return ""


_TOKEN = re.compile(r"-[0-9a-f]{8}(?=\.npy|\.parquet)|(?<=generation-)\d{6}|(?<=output-)\d+")
_LOOSE = {
    "given",
    "generation",
    "sha256",
    "attempt",
    "seconds",
    "process",
    "host",
    "started",
    "ended",
    "url",
    "when",
}


def fingerprint(folder: Path, ignored: tuple[str, ...] = ()) -> dict[str, str]:
    """Each file with a digest of its content, without what counts how often it was written."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "log.previous.txt":  # what an attempt before has said is kept
            continue
        name = _TOKEN.sub("", path.relative_to(folder).as_posix())
        if path.is_symlink():
            found[name] = _TOKEN.sub("", os.readlink(path))
        elif path.is_file():
            loose = any(re.search(pattern, name) for pattern in ignored)
            found[name] = "" if loose else _digest(path, str(folder).encode())
    return found


def _digest(path: Path, folder: bytes) -> str:
    content = path.read_bytes().replace(folder, b".")
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            content = json.dumps(_without(json.loads(content)), sort_keys=True).encode()
            content = _TOKEN.sub("", content.decode()).encode()
    if path.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(content.decode())))
        kept = [i for i, name in enumerate(rows[0]) if "seconds" not in name] if rows else []
        content = repr([[row[i] for i in kept if i < len(row)] for row in rows]).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without(part) for key, part in value.items() if key not in _LOOSE}
    return [_without(part) for part in value] if isinstance(value, list) else value


def difference(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """What differs, in words; empty if nothing does."""
    parts = {
        "missing": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "other content": sorted(
            k for k in found.keys() & expected.keys() if found[k] != expected[k]
        ),
    }
    return "; ".join(f"{what}: {', '.join(names[:4])}" for what, names in parts.items() if names)


def measure(subject: Subject, root: Path) -> Straight:
    """Run a subject undisturbed, twice; where the two differ nothing could be compared."""
    folder = root / subject.name / "prepared"
    folder.mkdir(parents=True)
    made = fork(lambda: subject.prepare(folder), folder, treat=stop_the_clock)
    if code := end_of(made):
        raise RuntimeError(f"{subject.name} cannot be prepared ({code}): {said(folder)[-2000:]}")
    results, seconds, operations = [], [], 0
    for number in range(2):
        place = root / subject.name / f"straight-{number}"
        copy(folder, place)
        reading, writing = os.pipe()
        begun = time.monotonic()
        code = end_of(fork(subject.act, place, treat=lambda w=writing: _count(w)))
        seconds.append(time.monotonic() - begun)
        os.close(writing)
        if code:
            raise RuntimeError(
                f"{subject.name} fails when left alone ({code}): {said(place)[-2000:]}"
            )
        with os.fdopen(reading, "rb") as pipe:
            operations = len(pipe.read())
        wait_for_followers(place)
        subject.check(place)
        results.append(fingerprint(place, subject.ignored))
    if what := difference(*results):
        raise RuntimeError(f"two undisturbed runs of {subject.name} differ: {what}")
    before = fingerprint(folder, subject.ignored)
    return Straight(folder, min(seconds), operations, results[0], before)


def _count(pipe: int) -> None:
    stop_the_clock()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if file_operation(event, arguments):
            os.write(pipe, b".")

    sys.addaudithook(hook)


def at_operation(number: int, then: Callable[[], None]) -> Callable[[], None]:
    """A treatment: something happens right before a file operation, counted from 1."""
    left = [number]
    here = os.getpid

    def treat() -> None:
        stop_the_clock()
        process = here()

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if here() == process and file_operation(event, arguments):
                left[0] -= 1
                if left[0] == 0:
                    then()

        sys.addaudithook(hook)

    return treat


def copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.with_name(target.name + "." + LOG).unlink(missing_ok=True)
    shutil.rmtree(temporary(target), ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


@contextlib.contextmanager
def place(root: Path, subject: Subject, straight: Straight) -> Iterator[Path]:
    """A fresh copy of what a subject works on; removed unless the trial ends in a violation."""
    folder = root / subject.name / "trial"
    copy(straight.folder, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def go_on(subject: Subject, straight: Straight, folder: Path) -> None:
    """After a disturbance: all that is there is whole, and the same command completes it.

    Raises:
        Violation: Something cannot be read, the command fails, or the end is not that of an
            undisturbed run.
    """
    wait_for_followers(folder)
    subject.check(folder)
    found = fingerprint(folder, subject.ignored)
    if found == straight.result and not subject.idempotent:
        return
    code = end_of(fork(subject.act, folder, treat=stop_the_clock))
    if code:
        raise Violation(f"the same command then fails ({code}): {said(folder)[-1500:]}")
    wait_for_followers(folder)
    if what := difference(fingerprint(folder, subject.ignored), straight.result):
        raise Violation(f"not what an undisturbed run leaves; {what}")


def unbroken(text: str) -> None:
    """No trace of Python reaches a user."""
    if "Traceback (most recent call last)" in text:
        raise Violation(f"a trace is shown: {text[-1500:]}")


def import_all() -> None:
    """Import once what processes would import one by one, so that trials are short."""
    from memento.cli.main import application

    application()
    for module in ("pyarrow.parquet", "sklearn.linear_model", "memento.scale", "memento.testing"):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut, repeated, swapped or put in."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 8, 40])):
        at = chance.randrange(len(data) + 1) if data else 0
        way = chance.randrange(6)
        if way == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            data[at:] = b"" if chance.random() < 0.3 else data[at:]
        elif way == 2:
            data[at:at] = bytes(chance.randrange(256) for _ in range(chance.choice([1, 4, 64])))
        elif way == 3:
            data[at : at + chance.choice([1, 8, 100])] = b""
        elif way == 4:
            number = chance.choice(
                [b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"-1", b"1e999", b"NaN", b"9" * 30]
            )
            data[at : at + len(number)] = number
        else:
            data[at:at] = data[: chance.randrange(200)]
    return bytes(data)


def command(*words: object) -> tuple[int, str]:
    """A command in this process: its exit code and all that it said.

    Raises:
        Violation: It failed in a way that is no answer, or wrote what steers a terminal.
    """
    from memento.cli.main import main

    out = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    text = out.getvalue()
    if "unexpected error" in text or "Traceback (most recent" in text:
        raise Violation(f"memento {' '.join(map(repr, map(str, words)))[:300]}: {text[-800:]}")
    if any(sign in text for sign in ("\x1b", "\x07", "\x9b", "\0", "\u202e")):
        raise Violation(f"signs that steer a terminal: {text[-500:]!r}")
    return code, text


def limit(room: int | None) -> None:
    """Let this process take so many more addresses than it has; None for any number."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = resource.RLIM_INFINITY if room is None else taken + room
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
