"""Simulated days on disk, in the form of Puffer's data release.

A reader cannot tell such a folder from a real day: names, columns, units and order are the
release's (see ``layout``). Beside the tables lies ``sessions_<range>.parquet`` with what a
deployment can never know, which readers of days do not look at.

A day may be larger than memory. Rows are put into parts by time on disk while the simulation goes
on, and sorted part by part, so memory is bounded by a block and by the busiest part.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memento.errors import ForeignError, SettingError, StorageError
from memento.files import Lock, storage_errors, sync_folder, write_synced
from memento_puffer.data.blocks import Names, rows_of
from memento_puffer.data.layout import CHUNK_TICKS, EVENT_TABLES, TABLES, TIME
from memento_puffer.data.schema import (
    DAY,
    Day,
    made_folder,
    polars,
    range_of,
    read_experiments,
    types_of,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = ["VARIANTS", "Variant", "write_simulated_day"]

_PART = 900 * 10**9  # ns: of a day with 16 million messages, 170,000
_FORMS = ("csv", "csv.gz", "parquet")
_ROWS = 100_000  # written at a time
_CONTENT_CHUNKS = 2000  # of each channel, written at a time
_SIDE = "buf_video_sent"
# What is noted of each session; deployments know none of it.
_SESSIONS = {
    "session": np.int64,
    "viewer": np.int64,
    "scheme": np.int64,
    "start": np.int64,
    "mean_rate": np.float64,
    "min_rtt": np.float64,
}

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Variant:
    """A form that the files of a day once had.

    Args:
        side_table: The client's buffer and stalls are not in video_sent and video_acked, but of
            chunks sent in a table buf_video_sent (before 2021-06-12).
        abr_names: Whether the settings have ``abr_name``; early ones say only ``abr``.
        stalled: Name of the column of stalled time: "cum_rebuf", or "cum_rebuffer" as in the
            database that the files are exported from.
        decibels: SSIM is in dB, in a column ``ssim`` (very early).
    """

    side_table: bool = False
    abr_names: bool = True
    stalled: str = "cum_rebuf"
    decibels: bool = False


VARIANTS: Mapping[str, Variant] = {
    "current": Variant(),
    "before 2021-06-12": Variant(side_table=True),
    "without abr_name": Variant(side_table=True, abr_names=False),
    "database": Variant(stalled="cum_rebuffer"),
    "early 2019": Variant(side_table=True, abr_names=False, decibels=True),
}


def write_simulated_day(
    folder: str | Path,
    day: str,
    simulation: Any,
    number: int,
    *,
    sessions: int | None = None,
    form: str = "csv",
    variant: str | Variant = "current",
    content: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Day:
    """Simulate a day and write it in the form in which Puffer publishes days.

    The day appears as a whole: everything is made in a folder beside the target, whose name begins
    with a dot, and moved when it is complete. What a killed run left is removed (or, if only the
    moving was left to do, finished) by the next one that writes to the same folder.

    Args:
        folder: Made if it is not there; may hold other days, or an earlier simulation of this one.
        day: The date, as 2021-10-17: times count from 11:00 (UTC).
        simulation: A ``Simulation``.
        number: Which of its days.
        sessions: How many sessions; the simulation's own number if left out.
        form: "csv", "csv.gz" or "parquet".
        variant: One of ``VARIANTS`` by name, or a ``Variant``.
        content: Whether to write video_size and ssim, which hold all that was on: about 0.3 GB of
            CSV a day, however few watch it.
        progress: Called with a stage ("simulate", "write") and the share of it that is done.
        **options: Further ones of ``simulation.day``.

    Returns:
        The day. Its folder also holds ``sessions_<range>.parquet``: session_id, viewer, scheme
        (position), start (ns since the epoch), mean_rate (bytes/s) and min_rtt (s) of the paths.

    Raises:
        SettingError: Another form or variant; a day that does not exist.
        ForeignError: The folder holds this day from elsewhere, or other experiments by the same
            ids.
        LockedError: Another process is writing to the same folder.
        SpaceError: The disk is full.
        StorageError: Anything else that the file system refuses.
    """
    folder, span = Path(folder), range_of(day)
    if form not in _FORMS:
        raise SettingError(f"form={form!r}; give {', '.join(_FORMS)}")
    if isinstance(variant, str):
        if variant not in VARIANTS:
            raise SettingError(f"variant={variant!r}; give one of {', '.join(VARIANTS)}")
        variant = VARIANTS[variant]
    names = Names(simulation, day, number)
    tell = progress or (lambda stage, share: None)
    more: dict[str, Any] = {} if sessions is None else {"sessions": sessions}
    with (
        storage_errors("write the day", folder),
        made_folder(folder.parent),
        _workplace(folder, span) as work,
    ):
        settings = _experiment_lines(folder, names, span, variant)
        spills = _Spills(work / "parts")
        for block in simulation.day(number, record="all", **more, **options):
            for kind in EVENT_TABLES:
                rows = rows_of(block, kind)
                spills.add(kind, rows, rows["time"] // _PART)
            start = block.sessions["start"]
            columns = [block.sessions[name] for name in _SESSIONS]
            rows = np.rec.fromarrays(columns, dtype=[*_SESSIONS.items()])
            spills.add("sessions", rows, np.zeros(len(rows), np.int64))
            if len(rows):
                tell("simulate", min(1.0, float(start[-1]) / DAY))
        tell("simulate", 1.0)
        made = work / "new"
        (made / "logs").mkdir(parents=True)
        path = _Paths(made, span, form)
        _write_tables(path, names, variant, spills, tell)
        _write_sessions(made / f"sessions_{span}.parquet", names, spills)
        if content:
            _write_content(path, names, variant)
        write_synced(made / "logs" / "expt_settings", lambda file: file.write(settings))
        shutil.rmtree(work / "parts")
        for place in (made / "logs", made):
            sync_folder(place)
        _publish_day(work, folder)
    tell("write", 1.0)
    return Day(folder, day)


def _published_form(kind: str, table: pl.DataFrame, variant: Variant) -> pl.DataFrame:
    """A table in the form that files of a variant have."""
    pl = polars("writing a Puffer day")
    table = table.select([name for name in TABLES[kind].names if name in table.columns])
    if variant.side_table and kind in ("video_sent", "video_acked"):
        table = table.drop("buffer", "cum_rebuf")
    names = {"time": TIME, "cum_rebuf": variant.stalled}
    if variant.decibels and "ssim_index" in table.columns:
        index = pl.col("ssim_index")
        table = table.with_columns((-10.0 * (1.0 - index).log10()).alias("ssim_index"))
        names["ssim_index"] = "ssim"
    return table.rename({old: new for old, new in names.items() if old in table.columns})


class _Spills:
    """Rows on disk in parts, each with its rows in the order in which they were added."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._types: dict[str, np.dtype[Any]] = {}
        self._parts: dict[str, set[int]] = {}

    def add(self, kind: str, rows: np.ndarray, part: np.ndarray) -> None:
        self._types.setdefault(kind, rows.dtype)
        rows = rows.astype(self._types[kind], copy=False)
        order = np.argsort(part, kind="stable")
        ranked = part[order]
        for places in np.split(order, np.flatnonzero(np.diff(ranked)) + 1):
            if len(places):
                number = int(part[places[0]])
                self._parts.setdefault(kind, set()).add(number)
                with self._path(kind, number).open("ab") as file:
                    file.write(rows[places].tobytes())

    def parts(self, kind: str) -> Iterator[np.ndarray]:
        """The parts in ascending order."""
        for number in sorted(self._parts.get(kind, ())):
            yield np.fromfile(self._path(kind, number), dtype=self._types[kind])

    def count(self, kind: str) -> int:
        return len(self._parts.get(kind, ()))

    def _path(self, kind: str, number: int) -> Path:
        return self._folder / f"{kind}-{number}"


class _Paths:
    """Where the tables of a day are written, and in which form."""

    def __init__(self, folder: Path, span: str, form: str) -> None:
        self._folder, self._span, self._form = folder, span, form

    def file(self, kind: str) -> _File:
        return _File(self._folder / f"{kind}_{self._span}.{self._form}", self._form)


def _write_tables(
    paths: _Paths, names: Names, variant: Variant, spills: _Spills, tell: Progress
) -> None:
    """What sessions left behind."""
    pl = polars("writing a Puffer day")
    total = sum(spills.count(kind) for kind in EVENT_TABLES) + 1
    done = 0
    for kind in EVENT_TABLES:
        kinds = [kind, _SIDE] if variant.side_table and kind == "video_sent" else [kind]
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(paths.file(name)) for name in kinds}
            for part in spills.parts(kind):
                for rows in _pieces_of(part[np.argsort(part["time"], kind="stable")]):
                    table = names.table(kind, rows)
                    for name, file in files.items():
                        file.write(_published_form(name, table, variant))
                done += 1
                tell("write", done / total)
            for name, file in files.items():
                if not file.began:  # a day on which nothing was sent has headers all the same
                    file.write(_published_form(name, pl.DataFrame(schema=types_of(name)), variant))


def _pieces_of(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))


def _write_sessions(path: Path, names: Names, spills: _Spills) -> None:
    """Who sessions were."""
    pl = polars("writing a Puffer day")
    with _File(path, "parquet") as file:
        for rows in (rows for part in spills.parts("sessions") for rows in _pieces_of(part)):
            columns: dict[str, Any] = {name: np.ascontiguousarray(rows[name]) for name in _SESSIONS}
            columns["start"] = columns["start"] + names.start
            ids = names.sessions(columns.pop("session"))
            file.write(pl.DataFrame({"session_id": ids, **columns}))


def _write_content(paths: _Paths, names: Names, variant: Variant) -> None:
    """video_size and ssim: every chunk of every channel in all its formats, as it was encoded."""
    pl = polars("writing a Puffer day")
    channels = list(names.simulation.channels)
    ladders = [list(ladder) for ladder in names.simulation.formats]
    content = [names.simulation.content.day(names.number, k) for k in range(len(channels))]
    longest = max(len(sizes) for sizes, _ in content)
    with paths.file("video_size") as of_size, paths.file("ssim") as of_ssim:
        for start in range(0, longest, _CONTENT_CHUNKS):
            parts = []
            for channel, ladder, (sizes, ssim) in zip(channels, ladders, content, strict=True):
                part = slice(start, min(start + _CONTENT_CHUNKS, len(sizes)))
                chunk = np.arange(part.start, max(part.start, part.stop))
                width = len(ladder)
                parts.append(
                    pl.DataFrame(
                        {
                            "time": np.repeat(_encoded_at(chunk) + names.start, width),
                            "format": np.tile(np.array(ladder, dtype=object), len(chunk)),
                            "channel": [channel] * (len(chunk) * width),
                            "video_ts": np.repeat(chunk * CHUNK_TICKS, width),
                            "size": sizes[part].reshape(-1).astype(np.float64),
                            "ssim_index": ssim[part].reshape(-1).astype(np.float64),
                        },
                        schema_overrides={"format": pl.String, "channel": pl.String},
                    )
                )
            table = pl.concat(parts).sort("time", maintain_order=True)
            for kind, value, file in (
                ("video_size", "size", of_size),
                ("ssim", "ssim_index", of_ssim),
            ):
                known = table.filter(pl.col(value).is_finite()).cast(
                    {"size": pl.Int64}, strict=False
                )
                file.write(_published_form(kind, known, variant))


def _encoded_at(chunk: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """When the chunks of a day are complete, ns since its start: live television, 90 kHz."""
    return np.asarray((chunk + 1) * CHUNK_TICKS // 90 * 10**6)


class _File:
    """A table that is written piece by piece."""

    def __init__(self, path: Path, form: str) -> None:
        self._path, self._form = path, form
        self.began = False

    def __enter__(self) -> _File:
        self._file: IO[bytes] = self._path.open("wb")
        self._out: Any = self._file
        if self._form == "csv.gz":
            # No time in the header: the same day is the same bytes.
            self._out = gzip.GzipFile("", "wb", 4, self._file, mtime=0)
        self._writer: Any = None
        return self

    def write(self, table: pl.DataFrame) -> None:
        if self._form == "parquet":
            import pyarrow as pa
            from pyarrow import parquet

            arrow = table.to_arrow()
            if self._writer is None:
                # Python's own file, so that a full disk is an OSError with its number.
                sink = pa.PythonFile(self._file, mode="w")
                self._writer = parquet.ParquetWriter(sink, arrow.schema, compression="zstd")
            self._writer.write_table(arrow)
        else:
            self._out.write(table.write_csv(include_header=not self.began).encode())
        self.began = True

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if self._out is not self._file:
                self._out.close()
            self._file.flush()
            if kind is None:
                os.fsync(self._file.fileno())
        except OSError:
            if kind is None:
                raise
        finally:
            with contextlib.suppress(OSError):
                self._file.close()


# ----------------------------------------------------------------------------------------------
# All or nothing


@contextlib.contextmanager
def _workplace(folder: Path, span: str) -> Iterator[Path]:
    """A folder of one's own beside the target; gone at the end, whatever happened."""
    work = folder.parent / f".{folder.name}.{span}.work"
    work.mkdir(exist_ok=True)
    with Lock(work / "lock"):
        if (work / "ready").exists():
            _move_day(work, folder)
        for path in work.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield work
        finally:
            if not (work / "ready").exists():
                shutil.rmtree(work, ignore_errors=True)


def _publish_day(work: Path, folder: Path) -> None:
    """From here on the day is complete: a run that is killed is finished by the next one."""
    write_synced(work / "ready", lambda file: file.write(b""))
    sync_folder(work)
    _move_day(work, folder)
    (work / "ready").unlink()


def _move_day(work: Path, folder: Path) -> None:
    """Move finished files to where days are; what makes a folder a day comes last."""
    made = work / "new"
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    new = sorted(made.iterdir()) if made.is_dir() else []
    span = next((p.name.split("_")[-2:] for p in new if p.is_file()), None)
    if span is not None:
        keep = {path.name for path in new}
        stem = "_".join(span).split(".")[0]
        for path in _of_day(folder, stem):  # of another form or variant
            if path.name not in keep:
                path.unlink()
    # What makes a folder a day comes last.
    for path in sorted(new, key=lambda p: p.name.startswith("video_sent")):
        if path.is_file():
            os.replace(path, folder / path.name)
    settings = made / "logs" / "expt_settings"
    if settings.exists():
        os.replace(settings, folder / "logs" / "expt_settings")
    sync_folder(folder / "logs")
    sync_folder(folder)


def _of_day(folder: Path, span: str) -> list[Path]:
    """Files of a day in a folder, whatever their form."""
    kinds = (*TABLES, "sessions")
    names = [f"{kind}_{span}.{form}" for kind in kinds for form in _FORMS]
    return [folder / name for name in names if (folder / name).is_file()]


def _experiment_lines(folder: Path, names: Names, span: str, variant: Variant) -> bytes:
    """Lines of expt_settings: those there, and ours.

    Raises:
        ForeignError: The folder holds this day from elsewhere, or other experiments by our ids.
    """
    found = _of_day(folder, span)
    if found and not (folder / f"sessions_{span}.parquet").is_file():
        raise ForeignError(
            f"{folder}: {found[0].name} is there and was not simulated; give another folder"
        )
    entries: dict[int, dict[str, Any]] = {}
    path = folder / "logs" / "expt_settings"
    others = any(span not in p.name for p in folder.glob("video_sent_*"))
    if path.is_file() and others:
        entries = {k: dict(e.settings) for k, e in read_experiments(path).items()}
    for number, entry in names.settings.items():
        mine = dict(entry)
        if not variant.abr_names:
            mine.pop("abr_name", None)
        if entries.get(number, mine) != mine:
            raise ForeignError(
                f"{path}: experiment {number} is {entries[number]}, here it is {mine}; "
                "give the simulation a folder of its own"
            )
        entries[number] = mine
    if not entries:
        raise StorageError(f"{folder}: the simulation has no experiments; give it a scheme")
    return "".join(f"{n} {json.dumps(e)}\n" for n, e in sorted(entries.items())).encode()
