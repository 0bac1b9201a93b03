"""Brings days of Puffer's data release, and the models of its daily training, to this disk.

A day is a folder, as `schema.Day` reads it, and a model a folder, as `ttp.Ttp.read` opens it.
What stands there under its own name is whole and has the digest that Puffer's storage gave; what
is on its way has a name with a dot in front. A run may be ended at any moment: the same call
goes on where it stopped, and a call with nothing left to do asks no server.

Puffer publishes late, leaves days out, and has days whose files hold a header alone. Each file
therefore comes out as a record that says what became of it.
"""

from __future__ import annotations

import concurrent.futures
import csv
import datetime as dt
import functools
import importlib.resources
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memento.arguments import generator, require, whole
from memento.days import parse_days
from memento.errors import DamagedError, ForeignError, SettingError
from memento.files import (
    Lock,
    atomic_write,
    clear_temporaries,
    digest,
    replace_folder,
    storage_errors,
)
from memento_puffer.data.archives import (
    LARGEST_MODEL,
    MODEL_FILES,
    read_model_archive,
)
from memento_puffer.data.layout import TABLES
from memento_puffer.data.schema import range_of
from memento_puffer.data.transfer import (
    AbsentError,
    Clock,
    Entity,
    FailedError,
    Part,
    Patience,
    Web,
)

__all__ = [
    "DATA_URL",
    "DEFAULT_KINDS",
    "KINDS",
    "MODELS_URL",
    "STATES",
    "Clock",
    "Download",
    "MissingDays",
    "Patience",
    "Record",
    "download",
    "known_missing",
]

DATA_URL = "https://storage.googleapis.com/puffer-data-release/"
MODELS_URL = "https://storage.googleapis.com/puffer-models/puffer-ttp/"
SETTINGS, MODEL = "expt_settings", "model"
KINDS = (*TABLES, SETTINGS, MODEL)
DEFAULT_KINDS = (*TABLES, SETTINGS)
STATES = ("fetched", "present", "missing", "late", "failed")
# From this day on, video_sent and video_acked say themselves what buf_video_sent says.
_BUFFER_IN_SENT = "2021-06-12"
_MOST_VERSIONS = 20  # of a day's model
_HEADER = 1 << 16  # no header is longer
_FORM = 1


@dataclass(frozen=True)
class MissingDays:
    """Days that Puffer is known not to have published, or not wholly.

    Attributes:
        first, last: Days, both included; ``last`` is empty if it never ended.
        what: "csv" (tables and settings), "model", or "either": one of the two, or both.
        reason: Why it is believed.
    """

    first: str
    last: str
    what: str
    reason: str

    def covers(self, day: str, kind: str) -> bool:
        """Whether a file of this day and kind may be absent because of it."""
        fits = self.what == "either" or (self.what == "model") == (kind == MODEL)
        return fits and self.first <= day and (not self.last or day <= self.last)


@functools.cache
def known_missing() -> tuple[MissingDays, ...]:
    """What is known to be missing, from missing_days.csv beside this module.

    Example:
        >>> [m.last for m in known_missing() if m.covers("2022-02-01", "video_sent")]
        ['2022-02-15']
    """
    source = importlib.resources.files("memento_puffer.data") / "missing_days.csv"
    rows = csv.DictReader(source.read_text(encoding="utf-8").splitlines())
    return tuple(MissingDays(**row) for row in rows)


@dataclass(frozen=True)
class Record:
    """What became of a file.

    Attributes:
        day: As 2021-10-17.
        kind: One of `KINDS`.
        state: "fetched"; "present" (was there, and is whole); "missing" (the server has none);
            "late" (likewise, but the day is young: it may still come); "failed".
        bytes: Its size; of a model that of all files; 0 if there is none.
        seconds: Spent on it, without waiting for late days.
        error: Why there is none; empty otherwise.
        known: Whether a missing file was known to be.
        empty: Whether a table holds a header alone, or nothing.
        path: Where it is; of a model the folder. Empty if there is none.
    """

    day: str
    kind: str
    state: str
    bytes: int = 0
    seconds: float = 0.0
    error: str = ""
    known: bool = False
    empty: bool = False
    path: str = ""


@dataclass(frozen=True)
class Download:
    """What became of all files, by day and kind.

    Attributes:
        folder: Where they are.
        records: One per file.
    """

    folder: Path
    records: tuple[Record, ...]

    @property
    def state(self) -> str:
        """The worst: "failed", "late", "missing" (and not known to be), or "done"."""
        for state in ("failed", "late", "missing"):
            if any(r.state == state and not r.known for r in self.records):
                return state
        return "done"

    @property
    def bytes(self) -> int:
        """Fetched in this run."""
        return sum(record.bytes for record in self.records if record.state == "fetched")

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat dict per file, for a table."""
        return [asdict(record) for record in self.records]


@dataclass(frozen=True)
class _File:
    """Something to fetch: a table, the settings, or a model (whose version is found out)."""

    day: str
    kind: str
    url: str
    name: str

    @property
    def label(self) -> str:
        return f"{self.day}/{self.name}"


def download(
    days: str | Iterable[str],
    folder: str | Path,
    *,
    kinds: Sequence[str] = DEFAULT_KINDS,
    data_url: str = DATA_URL,
    models_url: str = MODELS_URL,
    parallel: int = 4,
    patience: Patience | None = None,
    seed: int | np.random.Generator = 0,
    missing: Sequence[MissingDays] | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
    clock: Clock | None = None,
) -> Download:
    """Bring days of Puffer's to a folder, so that each file is whole or absent.

    Files are ``<folder>/<day>/<kind>_<range>.csv`` and ``<folder>/<day>/logs/expt_settings``;
    models are ``<folder>/models/<day>/py-N.pt`` and so on, of the highest version of that day.
    A manifest.json in each folder holds sizes, SHA-256, versions and times. With it a second call
    checks what is there and fetches what is absent or changed. Nothing else is overwritten: a
    file that is not in the manifest is somebody else's.

    Args:
        days: See `parse_days`. A day lasts from 11:00 to the next day's 11:00 (UTC).
        folder: Made if it is not there; its parent exists.
        kinds: Some of `KINDS`. buf_video_sent is published for days before 2021-06-12 only, and
            left out for later ones.
        data_url: Where the tables are, http or https.
        models_url: Where the archives of models are, likewise.
        parallel: Files at a time, 1 to 64.
        patience: How long to wait for what; default `Patience()`.
        seed: Of the random share of pauses between attempts.
        missing: Days known to be missing; default `known_missing()`.
        progress: Called with bytes so far, bytes in all (None: unknown) and ``<day>/<name>`` after
            every block and at the end of a file; by several threads, but never by two at once.
        clock: Where time comes from; default the system's.

    Returns:
        A record per file, by day and then in the order of ``kinds``. Files that are missing, late
        or cannot be had are no errors here: see `Download.state`.

    Raises:
        SettingError: An argument out of its range.
        LockedError: Another process is downloading to this folder.
        SpaceError: The disk is full. The run ends; what is whole stays, as do parts.
        StorageError: The disk refuses otherwise.
    """
    names = parse_days(days)
    _check_settings(kinds, parallel, data_url, models_url)
    rng = generator(seed)
    folder = Path(folder)
    files = [
        _file_of(day, kind, data_url)
        for day in names
        for kind in dict.fromkeys(kinds)
        if kind != "buf_video_sent" or day < _BUFFER_IN_SENT
    ]
    with storage_errors("make the folder of the download", folder):
        folder.mkdir(exist_ok=True)
        lock = Lock(folder / ".lock")
        lock.__enter__()
    try:
        run = _Run(
            folder,
            Web(patience or Patience(), clock, threading.Event()),
            models_url,
            known_missing() if missing is None else missing,
            progress,
        )
        records = run.all(files, parallel, rng)
    finally:
        lock.__exit__()
    return Download(folder, tuple(records))


def _check_settings(kinds: Sequence[str], parallel: int, *urls: str) -> None:
    """Refuse kinds, numbers and addresses that are none."""
    if isinstance(kinds, str) or not kinds:
        raise SettingError(f"kinds={kinds!r}; give a list of some of {', '.join(KINDS)}")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SettingError(f"kind {unknown[0]!r}; give some of {', '.join(KINDS)}")
    require("parallel", parallel, whole(1, 64))
    for url in urls:
        try:
            parts = urllib.parse.urlsplit(url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            good = False
        if not good:
            raise SettingError(f"{url!r} is no address; give one such as {DATA_URL}")


def _file_of(day: str, kind: str, data_url: str) -> _File:
    """Where a file is, there and here."""
    span, base = range_of(day), data_url.rstrip("/")
    if kind == MODEL:
        return _File(day, kind, "", f"bbr-{day.replace('-', '')}")
    if kind == SETTINGS:
        return _File(day, kind, f"{base}/{span}/logs/expt_settings", "logs/expt_settings")
    name = f"{kind}_{span}.csv"
    place = kind if kind == "buf_video_sent" else span
    return _File(day, kind, f"{base}/{place}/{name}", name)


class _Run:
    """One call: threads that share a folder, a way to the web and the word to stop."""

    def __init__(
        self,
        folder: Path,
        web: Web,
        models_url: str,
        missing: Sequence[MissingDays],
        progress: Callable[[int, int | None, str], None] | None,
    ) -> None:
        self.folder = folder
        self.web = web
        self.models_url = models_url.rstrip("/")
        self.missing = missing
        self._progress = progress
        self._telling = threading.Lock()
        self._manifests: dict[str, _Manifest] = {}
        self._opening = threading.Lock()

    def all(self, files: list[_File], parallel: int, rng: np.random.Generator) -> list[Record]:
        """Fetch everything; then, while time is left, ask again for what is late."""
        clock, patience = self.web.clock, self.web.patience
        self._clear_leftovers({file.day for file in files})
        randoms = rng.spawn(len(files))  # pauses do not depend on which thread is faster
        records: dict[_File, Record] = {}
        open_files = dict(zip(files, randoms, strict=True))
        deadline = clock.monotonic() + patience.wait
        while True:
            for record, file in self._fetch_round(open_files, parallel):
                seconds = record.seconds + (records[file].seconds if file in records else 0.0)
                records[file] = replace(record, seconds=seconds)
            open_files = {f: r for f, r in open_files.items() if records[f].state == "late"}
            left = deadline - clock.monotonic()
            if not open_files or left <= 0:
                return [records[file] for file in files]
            self.web.sleep(min(patience.poll, left))

    def _fetch_round(
        self, files: Mapping[_File, np.random.Generator], parallel: int
    ) -> list[tuple[Record, _File]]:
        """Fetch files side by side; whatever stops one stops all, and their parts stay."""
        pool = concurrent.futures.ThreadPoolExecutor(parallel, "download")
        try:
            futures = {
                pool.submit(self._fetch_file, file, rng): file for file, rng in files.items()
            }
            for future in concurrent.futures.as_completed(futures):
                future.result()  # the first error of the disk ends the run
            return [(future.result(), file) for future, file in futures.items()]
        except BaseException:
            self.web.stop.set()
            raise
        finally:
            # Who is in the middle of a file ends at its next block and keeps its part.
            pool.shutdown(wait=True, cancel_futures=True)

    def _fetch_file(self, file: _File, rng: np.random.Generator) -> Record:
        """What becomes of one file; only errors of this disk are raised."""
        clock = self.web.clock
        start = clock.monotonic()
        known = False
        try:
            bring = self._fetch_model if file.kind == MODEL else self._fetch_table
            found = bring(file, rng)
        except AbsentError as error:
            known = any(row.covers(file.day, file.kind) for row in self.missing)
            state = "missing" if known or not self._is_young(file.day) else "late"
            found = _Outcome(state, error=str(error))
            if state == "missing":
                try:
                    self._manifest_of(file.day).note_missing(file, str(error), known, clock.now())
                except (ForeignError, DamagedError) as damage:
                    found, known = _Outcome("failed", error=str(damage)), False
        except (FailedError, ForeignError, DamagedError) as error:
            found = _Outcome("failed", error=str(error))
        if self._progress is not None and found.state in ("fetched", "present"):
            self._tell_progress(file.label, found.size, found.size)
        seconds = clock.monotonic() - start
        return Record(
            file.day, file.kind, found.state, found.size, seconds, found.error, known, found.empty,
            str(found.path or ""),
        )  # fmt: skip

    def _fetch_table(self, file: _File, rng: np.random.Generator) -> _Outcome:
        """A table or the settings."""
        manifest, clock = self._manifest_of(file.day), self.web.clock
        target = manifest.folder / file.name
        entry = manifest.files.get(file.name)
        part = Part(target)
        if entry is None and (target.exists() or target.is_symlink()):
            raise ForeignError(
                f"{target} is there, but not in {manifest.path.name}; move it away, or name "
                "another folder"
            )
        if entry is not None:
            if _is_whole(target, entry):
                part.discard()
                return _Outcome("present", entry["size"], entry.get("empty", False), path=target)
            if not target.exists() and _is_whole(part.path, entry):
                part.finish()  # the run ended between the manifest and the rename
                return _Outcome("fetched", entry["size"], entry.get("empty", False), path=target)
        with storage_errors("make the folder of a day", target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        entity, sha256 = self.web.fetch(
            file.url,
            part,
            rng,
            largest=self.web.patience.largest,
            progress=functools.partial(self._tell_progress, file.label),
        )
        empty = file.kind in TABLES and _holds_no_row(part.path)
        entry = _manifest_entry(entity, part.size, sha256, clock.now()) | {"kind": file.kind}
        manifest.note(file, entry | ({"empty": True} if empty else {}))
        part.finish()
        return _Outcome("fetched", entry["size"], empty, path=target)

    def _fetch_model(self, file: _File, rng: np.random.Generator) -> _Outcome:
        """The model of a day, of its highest version."""
        folder = self.folder / "models" / file.day
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ForeignError(f"{folder} is there and no folder; move it away")
        if folder.is_dir():
            old = _Manifest(folder, file.day, must_exist=True)
            if set(MODEL_FILES) <= set(old.files) and all(
                _is_whole(folder / name, entry) for name, entry in old.files.items()
            ):
                for left in folder.parent.glob(f".{file.name}-*.part*"):  # of a killed run
                    left.unlink(missing_ok=True)
                size = sum(entry["size"] for entry in old.files.values())
                return _Outcome("present", size, path=folder)
        url = self._highest_version(file, rng)
        with storage_errors("make the folder of models", folder.parent):
            folder.parent.mkdir(exist_ok=True)
        part = Part(folder.parent / url.rpartition("/")[2])
        entity, sha256 = self.web.fetch(
            url,
            part,
            rng,
            largest=LARGEST_MODEL,
            progress=functools.partial(self._tell_progress, file.label),
        )
        archive = _manifest_entry(entity, part.size, sha256, self.web.clock.now())
        try:
            contents = read_model_archive(part.path)
        except (ForeignError, DamagedError):
            part.discard()  # it is what the server has: the same again would not help
            raise
        entries = {
            name: {"kind": MODEL, "size": len(data), "sha256": digest(data)}
            for name, data in contents.items()
        }
        manifest = _Manifest.form(file.day, entries) | {"archive": archive}
        contents |= {"manifest.json": _json_bytes(manifest)}
        with storage_errors("write the model", folder), replace_folder(folder) as new:
            for name, data in contents.items():
                (new / name).write_bytes(data)
        part.discard()
        self._manifest_of(file.day).forget_missing(file)
        size = sum(entry["size"] for entry in entries.values())
        return _Outcome("fetched", size, path=folder)

    def _highest_version(self, file: _File, rng: np.random.Generator) -> str:
        """The address of the last of a day's models: trainings that were repeated count up."""
        urls = [f"{self.models_url}/{file.name}-{v}.tar.gz" for v in range(1, _MOST_VERSIONS + 1)]
        highest = None
        for version, url in enumerate(urls, 1):
            if self.web.exists(url, rng):
                highest = url
            elif version > 1:  # the first may have been withdrawn for the second
                break
        if highest is None:
            raise AbsentError(f"{urls[0]}: no such archive, nor a second version")
        return highest

    def _manifest_of(self, day: str) -> _Manifest:
        with self._opening:
            if day not in self._manifests:
                self._manifests[day] = _Manifest(self.folder / day, day)
            return self._manifests[day]

    def _is_young(self, day: str) -> bool:
        """Whether a day ended so recently that it may still be published."""
        end = dt.datetime.fromisoformat(f"{range_of(day)[-13:-3]}T11:00:00+00:00")
        return (self.web.clock.now() - end).total_seconds() < self.web.patience.late

    def _tell_progress(self, label: str, done: int, total: int | None) -> None:
        if self._progress is not None:
            with self._telling:
                self._progress(done, total, label)

    def _clear_leftovers(self, days: set[str]) -> None:
        """Remove what killed runs left of their smallest writes; parts are kept."""
        clear_temporaries(self.folder / "models")
        for day in days:
            clear_temporaries(self.folder / day)
            clear_temporaries(self.folder / day / "logs")


@dataclass
class _Outcome:
    state: str
    size: int = 0
    empty: bool = False
    error: str = ""
    path: Path | None = None


class _Manifest:
    """What a folder holds by its manifest.json: the files of a day, or those of a model.

    A file is entered when all of its bytes are in its part and right before that gets its name.

    Args:
        folder: Need not be there.
        day: Whose it should be.
        must_exist: Whether a folder without manifest is somebody else's.

    Raises:
        DamagedError: It cannot be read.
        ForeignError: It is of something else.
    """

    def __init__(self, folder: Path, day: str, must_exist: bool = False) -> None:
        self.folder, self.day = folder, day
        self.path = folder / "manifest.json"
        self._writing = threading.Lock()
        self.files: dict[str, dict[str, Any]] = {}
        self._missing: dict[str, dict[str, Any]] = {}
        if not self.path.exists():
            if must_exist:
                raise ForeignError(
                    f"{folder} has no manifest.json, so it is not of a download; move it away"
                )
            return
        with storage_errors("read the manifest", self.path):
            data = self.path.read_bytes()
        try:
            content = json.loads(data)
            ours = content.get("form") == _FORM and content.get("day") == day
            self.files, self._missing = content["files"], content["missing"]
            sound = all(
                isinstance(entry["size"], int) and isinstance(entry["sha256"], str)
                for entry in self.files.values()
            ) and isinstance(self._missing, dict)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{self.path} cannot be read ({error}); {_MOVE}") from error
        if not ours or not sound or not all(map(_stays_inside, self.files)):
            raise ForeignError(f"{self.path} is no manifest of the day {day}; {_MOVE}")

    @staticmethod
    def form(
        day: str, files: Mapping[str, Any], missing: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The content of the file."""
        return {"form": _FORM, "day": day, "files": dict(files), "missing": dict(missing or {})}

    def note(self, file: _File, entry: dict[str, Any]) -> None:
        """Enter a file; it is missing no more."""
        with self._writing:
            missing = {kind: row for kind, row in self._missing.items() if kind != file.kind}
            self._write_manifest(self.files | {file.name: entry}, missing)

    def note_missing(self, file: _File, error: str, known: bool, now: dt.datetime) -> None:
        """Enter that the server has no such file, and when that was first found."""
        row = {"url": file.url, "known": known, "error": error}
        with self._writing:
            before = {k: v for k, v in self._missing.get(file.kind, {}).items() if k != "when"}
            if before != row:
                row["when"] = _utc_text(now)
                self._write_manifest(self.files, self._missing | {file.kind: row})

    def forget_missing(self, file: _File) -> None:
        """Enter that a file came after all."""
        with self._writing:
            if file.kind in self._missing:
                self._write_manifest(
                    self.files, {k: v for k, v in self._missing.items() if k != file.kind}
                )

    def _write_manifest(self, files: dict[str, Any], missing: dict[str, Any]) -> None:
        with storage_errors("write the manifest", self.path):
            self.folder.mkdir(exist_ok=True)
            atomic_write(self.path, _json_bytes(self.form(self.day, files, missing)))
        self.files, self._missing = files, missing


_MOVE = "move the folder away, or name another"


def _manifest_entry(entity: Entity, size: int, sha256: str, now: dt.datetime) -> dict[str, Any]:
    """What a manifest says of a file that came over the web."""
    said = {k: v for k, v in asdict(entity).items() if v is not None}
    return said | {"size": size, "sha256": sha256, "when": _utc_text(now)}


def _utc_text(now: dt.datetime) -> str:
    return now.astimezone(dt.UTC).isoformat(timespec="seconds")


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _stays_inside(name: str) -> bool:
    """Whether a name from a manifest stays inside its folder."""
    return bool(re.fullmatch(r"(logs/)?[A-Za-z0-9_][A-Za-z0-9_.-]*", name))


def _is_whole(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a file is there, and is what the manifest says."""
    with storage_errors("check a file", path):
        if path.is_symlink() or not path.is_file() or path.stat().st_size != entry["size"]:
            return False
        return digest(path) == entry["sha256"]


def _holds_no_row(path: Path) -> bool:
    """Whether a table is a header alone, or not even that."""
    with storage_errors("read a table", path), path.open("rb") as file:
        file.readline(_HEADER)
        return not file.read(_HEADER).strip()
