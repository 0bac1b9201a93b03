"""What came out: one folder an experiment, whole or absent.

    ROOT/GROUP/NAME/experiment.json    what was asked, by which versions
                    state.json         the last attempt: running, failed, interrupted or done
                    heartbeat.json     sign of life and progress of a running attempt
                    result.json        the last attempt that was completed: digests of its files
                    output-3/          its files (attempt 3)
                    checkpoint-1f.../  left by an interrupted attempt of the declaration 1f...
                    log.txt            of the last attempt, with the traceback of a failure
                    lock               held while an attempt runs

An attempt writes to an output folder of its own; then ``result.json`` is replaced, which is the
moment the experiment is done; then the output of earlier attempts goes. A process killed anywhere
leaves the earlier result or the new one. Readers take no lock.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from memento.errors import (
    DamagedError,
    ForeignError,
    SchemaError,
    SettingError,
    StorageError,
    needs,
)
from memento.files import (
    Lock,
    atomic_write,
    digest,
    readable_json,
    storage_errors,
    sync_folder,
    temporary_of,
)

__all__ = [
    "STATES",
    "Place",
    "State",
    "Status",
    "check",
    "read_table",
    "status",
    "tables",
    "this_process",
    "write_table",
]

State = Literal["done", "running", "failed", "missing", "stale"]
STATES: tuple[State, ...] = ("done", "running", "failed", "missing", "stale")

BEAT = 5.0  # seconds between signs of life
SILENCE = 120.0  # seconds without one after which a process on another host counts as dead

_FORMAT = "memento-experiment"


@dataclass(frozen=True)
class Place:
    """Every path of one experiment. Nobody else builds one.

    Args:
        root: Folder of all results.
        group: Of the experiment.
        name: Of the experiment.

    Example:
        >>> Place(Path("results"), "mine", "b256").output(3).as_posix()
        'results/mine/b256/output-3'
    """

    root: Path
    group: str
    name: str

    @property
    def folder(self) -> Path:
        """Of everything below."""
        return self.root / self.group / self.name

    @property
    def experiment(self) -> Path:
        """What was asked."""
        return self.folder / "experiment.json"

    @property
    def state(self) -> Path:
        """The last attempt."""
        return self.folder / "state.json"

    @property
    def result(self) -> Path:
        """The last attempt that was completed."""
        return self.folder / "result.json"

    @property
    def heartbeat(self) -> Path:
        """Sign of life and progress."""
        return self.folder / "heartbeat.json"

    @property
    def log(self) -> Path:
        """Of the last attempt."""
        return self.folder / "log.txt"

    @property
    def previous_log(self) -> Path:
        """Of the attempt before."""
        return self.folder / "log.previous.txt"

    @property
    def stop(self) -> Path:
        """Made to ask a running attempt, wherever it runs, to stop."""
        return self.folder / "stop"

    @property
    def batch(self) -> Path:
        """The batch job that was submitted for it."""
        return self.folder / "batch.json"

    def output(self, attempt: int) -> Path:
        """Files of one attempt."""
        return self.folder / f"output-{attempt}"

    def checkpoint(self, digest: str) -> Path:
        """What attempts of one declaration hand on to the next."""
        return self.folder / f"checkpoint-{digest[:16]}"

    def lock(self) -> Lock:
        """Held while an attempt runs. Makes the folder."""
        with storage_errors("make the folder", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return Lock(self.folder / "lock")

    def check_ours(self) -> None:
        """Raise rather than mix with what somebody else put there.

        Raises:
            ForeignError: The folder holds something else.
        """
        if not self.folder.exists():
            return
        asked = readable_json(self.experiment)
        if asked is not None:
            if asked.get("format") != _FORMAT:
                raise ForeignError(
                    f"{self.experiment}: the field 'format' is {asked.get('format')!r}; expected "
                    f"{_FORMAT!r}; choose another folder of results"
                )
            return
        ours = {path.name for path in (self.state, self.heartbeat, self.log, self.previous_log)}
        ours |= {"lock", "stop", self.experiment.name}
        strangers = sorted(
            path.name
            for path in self.folder.iterdir()
            if path.name not in ours
            and not path.name.startswith((".", "output-", "checkpoint-", "batch", "slurm-"))
        )
        if strangers:
            raise ForeignError(
                f"{self.folder} holds other things ({', '.join(strangers[:3])}) and no "
                f"{self.experiment.name}; choose another folder of results"
            )


@dataclass(frozen=True)
class Status:
    """Where an experiment stands.

    Attributes:
        state: ``"done"``; ``"stale"``: done, but something else than what is asked now;
            ``"running"``; ``"failed"``: the last attempt; ``"missing"``: never completed, or
            stopped on the way.
        reason: Why, in a few words; empty where there is nothing to say.
        attempt: Number of the last attempt, from 1; 0 if there was none.
        where: On what the last attempt ran, such as ``"process 4711 on box"``.
        started: Unix time of the last attempt; NaN if there was none.
        seconds: The last attempt took, or has taken so far; NaN if unknown.
        progress: ``(done, total, note)`` of a running attempt that reported.
        output: Folder of the current result, also while ``"stale"``.
    """

    state: State
    reason: str = ""
    attempt: int = 0
    where: str = ""
    started: float = float("nan")
    seconds: float = float("nan")
    progress: tuple[float, float, str] | None = None
    output: Path | None = None


def status(place: Place, digest: str) -> Status:
    """Read where an experiment stands, without a lock and while it may be running.

    Args:
        place: Of the experiment.
        digest: Of the declaration as it is now, with its needs.
    """
    # The attempt first: a result that comes in between is newer than what the attempt says.
    attempt = readable_json(place.state) or {}
    result = readable_json(place.result)
    number = int(attempt.get("attempt", 0))
    facts: dict[str, Any] = {
        "attempt": number,
        "where": str(attempt.get("where", "")),
        "started": float(attempt.get("started", "nan")),
        "seconds": float(attempt.get("seconds", "nan")),
    }
    done = _done(place, result, digest)
    output = place.output(int(result["attempt"])) if result and done.state != "missing" else None
    if result is not None and int(result["attempt"]) >= number:
        # Killed after the result was committed and before the attempt said so, it is done as well.
        facts["seconds"] = float(result.get("seconds", "nan"))
        return Status(done.state, done.reason, output=output, **facts)
    if attempt.get("state") == "running":
        beat = readable_json(place.heartbeat) or {}
        if beat.get("attempt") != number:
            beat = {}
        dead = _death(attempt, beat, place.heartbeat)
        if dead is None:
            progress = beat.get("progress")
            facts["seconds"] = time.time() - facts["started"]
            return Status(
                "running",
                output=output,
                progress=(progress[0], progress[1], progress[2]) if progress else None,
                **facts,
            )
        ended = dead
    else:
        ended = "interrupted" if attempt.get("state") == "interrupted" else ""
    if attempt.get("state") == "failed" and attempt.get("digest") == digest:
        return Status("failed", str(attempt.get("error", "")), output=output, **facts)
    if done.state != "missing":
        return Status(done.state, done.reason, output=output, **facts)
    if attempt.get("state") == "failed":
        ended = "failed with other settings"
    if ended and place.checkpoint(digest).is_dir():
        ended += "; goes on from its checkpoint"
    return Status("missing", ended or done.reason, **facts)


def _done(place: Place, result: Mapping[str, Any] | None, digest: str) -> Status:
    """Done, stale or missing, by the completed result alone."""
    if result is None:
        return Status("missing")
    folder = place.output(int(result["attempt"]))
    for name, facts in result["files"].items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            return Status("missing", f"{folder.name}/{name} is gone")
        if size != facts["bytes"]:
            return Status("missing", f"{folder.name}/{name} was changed")
    if not folder.is_dir():
        return Status("missing", f"{folder.name} is gone")
    if result["digest"] != digest:
        return Status("stale", "made with other settings, another version or other needs")
    for name, facts in result["inputs"].items():
        # A file that is gone (raw data is deleted once it was read) does not change the result.
        if (found := input_facts(Path(name))) is not None and found != facts:
            return Status("stale", f"{name} has changed")
    return Status("done")


def input_facts(path: Path) -> list[int] | None:
    """Size in bytes and time of change in nanoseconds; None if there is no such file.

    Of a folder, only that it exists.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return [0, 0] if path.is_dir() else [found.st_size, found.st_mtime_ns]


def check(place: Place) -> None:
    """Compare the files of a result with the digests taken when it was made.

    Raises:
        DamagedError: A file is missing or differs; the message names it.
        StorageError: There is no result.
    """
    result = readable_json(place.result)
    if result is None:
        raise StorageError(f"{place.folder} holds no completed result; run the experiment first")
    folder = place.output(int(result["attempt"]))
    for name, facts in result["files"].items():
        path = folder / name
        if not path.is_file() or digest(path) != facts["sha256"]:
            raise DamagedError(
                f"{path} is missing or differs from what was written; run the experiment again "
                "with --force"
            )


# --- processes -------------------------------------------------------------------------------


def this_process() -> dict[str, Any]:
    """What tells this process from all others that ever were, on any host."""
    return {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "born": _born()}


def _death(attempt: Mapping[str, Any], beat: Mapping[str, Any], file: Path) -> str | None:
    """How a process that says it is running has ended; None while it lives.

    On this host the kernel knows. Of another host only the signs of life do.
    """
    here = this_process()
    if attempt.get("host") == here["host"] and attempt.get("boot") == here["boot"]:
        alive = _born(int(attempt["pid"])) == attempt.get("born")
        return None if alive else "was killed"
    if attempt.get("host") == here["host"]:
        return "was killed when the machine stopped"
    last = max(float(attempt.get("started", 0)), float(beat.get("time", 0)))
    with contextlib.suppress(OSError):  # the file server's clock, where the hosts' own differ
        last = max(last, file.stat().st_mtime)
    silent = time.time() - last
    return None if silent < SILENCE else f"no sign of life for {silent:.0f} s"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _born(pid: int | None = None) -> str:
    """When a process was started, in 1/100 s since the machine was; empty if there is none."""
    with needs("psutil", "cli", "running experiments"):
        import psutil
    boot = psutil.boot_time()  # of the same clock as what follows: it may be set in between
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return ""  # does nothing any more
        return str(round(100 * (process.create_time() - boot)))
    except psutil.NoSuchProcess:
        return ""


# --- one attempt -----------------------------------------------------------------------------


class Attempt:
    """One attempt at an experiment, from the first file to the last. The lock has to be held.

    Args:
        place: Of the experiment.
        asked: Its declaration.
        digest: Of the declaration with its needs.
        where: On what it runs.
    """

    def __init__(self, place: Place, asked: Mapping[str, Any], digest: str, where: str) -> None:
        self.place = place
        self.digest = digest
        self._asked = asked
        self._where = where
        before = readable_json(place.state) or {}
        result = readable_json(place.result) or {}
        self.number = 1 + max(int(before.get("attempt", 0)), int(result.get("attempt", 0)))
        self.output = place.output(self.number)
        self.checkpoint = place.checkpoint(digest)
        self._facts: dict[str, Any] = {}
        self._clock = time.monotonic()

    def begin(self) -> None:
        """Make room and say that it is running."""
        with storage_errors("begin an experiment", self.place.folder):
            self._clear()
            self.place.stop.unlink(missing_ok=True)
            if self.place.log.exists():
                self.place.log.replace(self.place.previous_log)
            self.output.mkdir()
            self.checkpoint.mkdir(exist_ok=True)
            self._facts = {
                "attempt": self.number,
                "digest": self.digest,
                "where": self._where,
                **this_process(),
                "started": time.time(),
            }
            asked = {
                "format": _FORMAT,
                "digest": self.digest,
                **self._asked,
                "versions": _versions(),
            }
            write_json(self.place.experiment, asked)
            self._write("running")

    def beat(self, progress: tuple[float, float, str] | None = None) -> None:
        """Give a sign of life; a full disk must not stop the body."""
        beat = {"attempt": self.number, "time": time.time(), "progress": progress}
        temporary = temporary_of(self.place.heartbeat)
        try:
            temporary.write_text(json.dumps(beat))
            temporary.replace(self.place.heartbeat)  # not synced: it matters only while we live
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def commit(self, inputs: Iterable[Path]) -> None:
        """Make the output the result of the experiment."""
        with storage_errors("complete an experiment", self.place.folder):
            files = {}
            for path in sorted(self.output.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
                    name = path.relative_to(self.output).as_posix()
                    files[name] = {"bytes": path.stat().st_size, "sha256": digest(path)}
                elif path.is_dir():
                    sync_folder(path)
            sync_folder(self.output)
            sync_folder(self.place.folder)
            found = {str(path.absolute()): input_facts(path) for path in inputs}
            result = {
                "attempt": self.number,
                "digest": self.digest,
                "seconds": self._seconds(),
                "files": files,
                "inputs": {name: facts for name, facts in found.items() if facts is not None},
                "versions": _versions(),
            }
            write_json(self.place.result, result)  # from here on it is done
            self._write("done", seconds=self._seconds())
            self._clear()

    def fail(self, error: str) -> None:
        """Keep the log and the reason; what was half written goes, the checkpoint stays."""
        self._write("failed", seconds=self._seconds(), error=error)
        self._clear()

    def interrupt(self) -> None:
        """Stopped from outside: the next attempt goes on from the checkpoint."""
        self._write("interrupted", seconds=self._seconds())
        self._clear()

    def _seconds(self) -> float:
        return round(time.monotonic() - self._clock, 3)

    def _write(self, state: str, **facts: Any) -> None:
        with storage_errors("write the state", self.place.state):
            write_json(self.place.state, {"state": state, **self._facts, **facts})

    def _clear(self) -> None:
        """Remove what is neither the result nor of use to the next attempt."""
        result = readable_json(self.place.result) or {}
        kept = {self.place.output(int(result.get("attempt", 0)))}
        if result.get("attempt") != self.number or not self._facts:
            kept |= {self.checkpoint}
        for path in self.place.folder.glob("*-*"):
            if path.name.startswith(("output-", "checkpoint-")) and path not in kept:
                shutil.rmtree(path, ignore_errors=True)
        if self.checkpoint.is_dir() and self._facts and not any(self.checkpoint.iterdir()):
            self.checkpoint.rmdir()
        for path in self.place.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        if self._facts:
            self.place.heartbeat.unlink(missing_ok=True)


def forget_checkpoints(place: Place) -> None:
    """Begin anew: what earlier attempts handed on goes. The lock has to be held."""
    for path in place.folder.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def tidy(place: Place) -> None:
    """Remove what a kill just after the completion of an experiment left beside its result."""
    from memento.errors import LockedError

    def left() -> list[Path]:
        return [p for pattern in (".*.tmp", "heartbeat.json") for p in place.folder.glob(pattern)]

    if not left() and not any(place.folder.glob("checkpoint-*")):
        return
    try:
        with place.lock():
            result = readable_json(place.result) or {}
            if (readable_json(place.state) or {}).get("attempt") != result.get("attempt"):
                return  # a later attempt has begun: all of it is in use
            forget_checkpoints(place)
            for path in left():
                path.unlink(missing_ok=True)
    except LockedError:
        return


def mark_failed(place: Place, host_pid: tuple[str, int], error: str) -> bool:
    """Say that a running attempt has failed, for its process that cannot any more.

    Args:
        place: Of the experiment.
        host_pid: The process, so that no other attempt is touched.
        error: Why.

    Returns:
        Whether there was such an attempt.
    """
    from memento.errors import LockedError

    try:
        with place.lock():
            found = readable_json(place.state) or {}
            result = readable_json(place.result) or {}
            if found.get("state") != "running" or (found["host"], found["pid"]) != host_pid:
                return False
            if int(result.get("attempt", 0)) >= int(found["attempt"]):
                return False
            seconds = round(time.time() - found["started"], 3)
            write_json(
                place.state, {**found, "state": "failed", "error": error, "seconds": seconds}
            )
            with place.log.open("a", encoding="utf-8") as log:
                log.write(f"\n{error}\n")
            return True
    except LockedError:
        return False


def _versions() -> dict[str, str]:
    import importlib.metadata

    try:
        own = importlib.metadata.version("memento-replay")
    except importlib.metadata.PackageNotFoundError:
        own = "unknown"
    return {"memento": own, "python": platform.python_version(), "numpy": np.__version__}


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a file by a JSON document, all at once."""
    atomic_write(path, (json.dumps(document, indent=1) + "\n").encode())


# --- tables ----------------------------------------------------------------------------------


def write_table(folder: Path, name: str, columns: Mapping[str, Any]) -> None:
    """Write a tidy table; the same columns give the same bytes. See `Run.write`."""
    path = folder / name
    if path.resolve().parent != folder.resolve() and folder.resolve() not in path.resolve().parents:
        raise SettingError(f"table {name!r} lies outside the folder of results; give a plain name")
    arrays = {key: np.asarray(column) for key, column in columns.items()}
    lengths = {key: array.shape for key, array in arrays.items()}
    if not arrays or any(array.ndim != 1 for array in arrays.values()):
        raise SchemaError(f"table {name}: columns are {lengths}; expected one dimension each")
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{key}: {shape[0]}" for key, shape in lengths.items())
        raise SchemaError(f"table {name}: columns differ in length ({found})")
    if any(array.dtype.hasobject for array in arrays.values()):
        wrong = next(key for key, array in arrays.items() if array.dtype.hasobject)
        raise SchemaError(
            f"table {name}: column {wrong!r} mixes types; give numbers, strings or dates"
        )
    with storage_errors("write a table", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            arrow = _arrow()
            buffer = io.BytesIO()
            arrow[1].write_table(arrow[0].table(arrays), buffer)
            atomic_write(path, buffer.getvalue())
        elif path.suffix == ".csv":
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(arrays)
            writer.writerows(zip(*(array.tolist() for array in arrays.values()), strict=True))
            atomic_write(path, text.getvalue().encode())
        else:
            raise SettingError(f"table {name!r} ends with {path.suffix!r}; use .parquet or .csv")


def read_table(path: Path, text: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Columns of a table by name.

    Args:
        path: A ``.parquet`` or ``.csv`` file.
        text: Columns that are strings whatever they look like. Others of a CSV file are integers or
            floats where all values are, strings otherwise.

    Raises:
        StorageError: The file cannot be read.
        SettingError: It is of another type.
    """
    with storage_errors("read", path):
        if path.suffix == ".parquet":
            table = _arrow()[1].read_table(path)
            return {name: table[name].to_numpy() for name in table.column_names}
        if path.suffix != ".csv":
            raise SettingError(f"{path}: expected .parquet or .csv")
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    names, values = rows[0], rows[1:]
    columns = {name: [row[i] for row in values] for i, name in enumerate(names)}
    return {
        name: np.array(column, np.str_) if name in text else _typed(column)
        for name, column in columns.items()
    }


def tables(root: Path, group: str, file: str) -> dict[str, np.ndarray]:
    """One table of all completed experiments of a group, below each other.

    Args:
        root: Folder of all results.
        group: Name of the experiments' group.
        file: Name of the table, such as ``"scores.parquet"``; experiments without it are left out.

    Returns:
        The columns, and ``experiment`` with the name each row comes from. Empty if there is none.

    Raises:
        SchemaError: Experiments disagree about the columns.
    """
    parts: list[tuple[str, dict[str, np.ndarray]]] = []
    folder = root / group
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        place = Place(root, group, path.name)
        result = readable_json(place.result)
        if result is None or file not in result["files"]:
            continue
        parts.append((path.name, read_table(place.output(int(result["attempt"])) / file)))
    if not parts:
        return {}
    first, expected = parts[0]
    for name, part in parts:
        if list(part) != list(expected):
            raise SchemaError(
                f"{group}: {file} of {name} has columns {list(part)}, that of {first} "
                f"{list(expected)}; run one of them again"
            )
    found = {key: np.concatenate([part[key] for _, part in parts]) for key in expected}
    sizes = [next(iter(part.values())).size for _, part in parts]
    return {"experiment": np.repeat([name for name, _ in parts], sizes), **found}


def _typed(texts: list[str]) -> np.ndarray:
    for kind in (np.int64, np.float64):
        try:
            return np.array(texts, kind)
        except (ValueError, OverflowError):
            continue
    return np.array(texts, np.str_)


def _arrow() -> tuple[Any, Any]:
    with needs("pyarrow", "cli", "a Parquet table"):
        import pyarrow as pa
        import pyarrow.parquet
    return pa, pa.parquet
