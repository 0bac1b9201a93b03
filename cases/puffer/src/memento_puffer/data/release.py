"""Simulated days in the form of Puffer's data release, on disk or in memory.

    write_simulated_day   the files of a day, in any of the forms they have had
    frames                the tables of a small day, in memory
    features_of_blocks    inputs of the predictor straight from the simulation, without files
    joined                the chunks of a block with their acknowledgements

A reader cannot tell such a folder from a real day: names, columns, units and order are the
release's (the Puffer project's data description). Beside them lies ``sessions_<range>.parquet``
with what a deployment can never know, which readers of days do not look at.

A day may be larger than memory. Rows are put into parts by time on disk while the simulation goes
on, and sorted part by part, so memory is bounded by a block and by the busiest part.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memento.errors import ForeignError, SettingError, StorageError
from memento.files import Lock, storage_errors, sync_folder, write_synced
from memento_puffer.data.features import CHUNK_COLUMNS, STEP, Features
from memento_puffer.data.joins import EVENTS
from memento_puffer.data.schema import (
    NOT_MEASURED,
    TABLES,
    Day,
    made_folder,
    polars,
    range_of,
    read_experiments,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "VARIANTS",
    "Variant",
    "features_of_blocks",
    "frames",
    "joined",
    "write_simulated_day",
]

_DAY = 86_400 * 10**9  # ns
_PART = 900 * 10**9  # ns: of a day with 16 million messages, 170,000
_FORMS = ("csv", "csv.gz", "parquet")
_ROWS = 100_000  # written at a time
_CONTENT_CHUNKS = 2000  # of each channel, written at a time
_EVENT_TABLES = ("video_sent", "video_acked", "client_buffer")
_TCP = ("cwnd", "in_flight", "min_rtt", "rtt", "delivery_rate")
_TIME = "time (ns GMT)"
# In the order of CHUNK_COLUMNS, what the release's units are divided by.
_SCALES = (1500.0, 1.0, 1.0, 1e6, 1e6, 1500.0)

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


# ----------------------------------------------------------------------------------------------
# In memory


def joined(block: Any) -> dict[str, np.ndarray]:
    """The chunks sent in a block, each with its acknowledgement.

    Args:
        block: A part of a simulated day with the tables video_sent and video_acked.

    Returns:
        The columns of ``block.video_sent`` in the same order, with ``sent`` (ns) for ``time``,
        ``acked`` (ns, -1 if none came, or before the chunk was sent) and ``trans_time`` (s, NaN
        likewise). Of several acknowledgements the latest counts.
    """
    sent, acks = block.video_sent, block.video_acked
    n, m = len(sent["time"]), len(acks["time"])
    both = {k: np.concatenate((acks[k], sent[k])) for k in ("session", "index", "video_ts", "time")}
    is_sent = np.arange(m + n) >= m
    order = np.lexsort(
        (both["time"], is_sent, both["video_ts"], both["index"], both["session"])
    )  # fmt: skip
    new = np.ones(m + n, bool)
    for name in ("session", "index", "video_ts"):
        values = both[name][order]
        new[1:] = (values[1:] != values[:-1]) | (new[1:] if name != "session" else False)
    at = np.arange(m + n)
    last_ack = np.maximum.accumulate(np.where(~is_sent[order], at, -1))
    begin = np.maximum.accumulate(np.where(new, at, 0))
    matched = is_sent[order] & (last_ack >= begin)
    acked = np.full(n, -1, np.int64)
    acked[order[matched] - m] = both["time"][order[last_ack[matched]]]
    times = np.asarray(sent["time"], np.int64)
    acked[acked < times] = -1
    out = {name: np.asarray(column) for name, column in sent.items() if name != "time"}
    took = np.where(acked >= 0, (acked - times) / 1e9, np.nan)
    return {**out, "sent": times, "acked": acked, "trans_time": took}


def features_of_blocks(
    blocks: Iterable[Any],
    simulation: Any = None,
    day: str | None = None,
    number: int = 0,
    *,
    dtype: npt.DTypeLike = np.float32,
    cc: str | None = None,
) -> Features:
    """The chunks of a simulated day, equal to what ``Features.of_day`` reads from its files.

    Args:
        blocks: As ``simulation.day`` returns them, recorded "chunks" or "all".
        simulation: Names sessions and schemes. Without it a session is called by its number,
            ``expt_id`` is the position of its scheme, and ``abr`` and ``cc`` are not known.
        day: The date that the times count from, as 2021-10-17; None for 1970-01-01 0:00.
        number: Which day of the simulation it is.
        dtype: float32 or float64.
        cc: Keep only sessions over this congestion control; needs the simulation.

    Raises:
        SettingError: Another dtype, or a ``cc`` without a simulation.
    """
    pl = polars("making features of a simulation")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise SettingError(f"dtype={np.dtype(dtype)}; give float32 or float64")
    if cc is not None and simulation is None:
        raise SettingError(f"cc={cc!r}; hand in the simulation too, which knows it")
    names = _Names.of(simulation, day, number)
    parts: dict[str, list[np.ndarray]] = {
        k: [] for k in ("session", "index", "scheme", "video_ts", "sent", "acked", *CHUNK_COLUMNS)
    }
    counts = dict.fromkeys(("sent", "acked", "acked_early"), 0)
    matched = acks_apart = 0
    for block in blocks:
        table = joined(block)
        counts["sent"] += len(table["sent"])
        counts["acked"] += len(block.video_acked["time"])
        early, found, apart = _acks(block)
        counts["acked_early"] += early
        matched, acks_apart = matched + found, acks_apart + apart
        table["scheme"] = names.scheme_of(block, table["session"])
        for name, column in parts.items():
            column.append(table[name])
    columns = {name: np.concatenate(c) if c else np.empty(0) for name, c in parts.items()}
    if cc is not None:
        over = np.array([s.get("cc") for s in names.settings], dtype=object)
        kept = over[columns["scheme"].astype(np.int64)] == cc
        columns = {name: column[kept] for name, column in columns.items()}
    # As rows stand in the file: by time, those of equal times as they come.
    order = np.argsort(columns["sent"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    n = len(order)
    key = np.lexsort((np.arange(n), columns["index"], columns["session"]))
    s, i = columns["session"][key], columns["index"][key]
    new = np.ones(n, bool)
    new[1:] = (s[1:] != s[:-1]) | (i[1:] != i[:-1])
    first = np.sort(key[new])  # a stream's first row in the file, in the order of the streams
    rank = np.empty(n, np.int64)
    rank[first] = np.arange(len(first))
    stream = np.empty(n, np.int64)
    stream[key] = rank[key[new]][np.cumsum(new) - 1]
    rows = np.lexsort((np.arange(n), columns["video_ts"], stream))
    last = np.ones(n, bool)
    ts = columns["video_ts"][rows]
    last[:-1] = (stream[rows][1:] != stream[rows][:-1]) | (ts[1:] != ts[:-1])
    rows = rows[last]
    values = np.empty((len(rows), len(CHUNK_COLUMNS)), dtype=dtype)
    for position, scale in enumerate(_SCALES):
        values[:, position] = columns[CHUNK_COLUMNS[position]][rows].astype(np.float64) / scale
    values[:, -1] = columns["trans_time"][rows]
    acked = columns["acked"][rows].astype(np.int64)
    scheme = columns["scheme"][first].astype(np.int64)
    streams = pl.DataFrame(
        {
            "stream": np.arange(len(first), dtype=np.int32),
            "session_id": names.sessions(columns["session"][first].astype(np.int64)),
            "index": columns["index"][first].astype(np.int64),
            "expt_id": names.experiments[scheme] if len(names.experiments) else scheme,
            "abr": [names.label(k) for k in scheme],
            "cc": [names.settings[k].get("cc") if names.settings else None for k in scheme],
            "first_sent": columns["sent"][first].astype(np.int64) + names.start,
        },
        schema_overrides={"abr": pl.String, "cc": pl.String, "session_id": pl.String},
    )
    counts |= {
        "sent_twice": n - len(rows),
        "acked_twice": acks_apart,
        "unsent": counts["acked"] - acks_apart - matched,
        "other_cc": counts["sent"] - n,
        "not_measured": int((columns["min_rtt"][rows] == NOT_MEASURED).sum()),
        "chunks": len(rows),
        "unacked": int((acked < 0).sum()) - counts["acked_early"],
        "incomplete": int((~np.isfinite(values[:, :-1]).all(axis=1)).sum()),
        "unknown_experiment": 0 if simulation is not None else len(first),
        # What a simulation never does.
        **dict.fromkeys(("acked_late", "outside", "impossible"), 0),
    }
    return Features(
        values,
        stream[rows].astype(np.int32),
        columns["video_ts"][rows].astype(np.int64),
        columns["sent"][rows].astype(np.int64) + names.start,
        np.where(acked >= 0, acked + names.start, -1),
        streams,
        counts,
    )


def frames(
    blocks: Iterable[Any], simulation: Any, day: str, number: int = 0
) -> dict[str, pl.DataFrame]:
    """The tables of a small simulated day as ``write_simulated_day`` would write them.

    Args:
        blocks: As ``simulation.day`` returns them, recorded "all".
        simulation: Names sessions, schemes, channels and formats.
        day: The date, as 2021-10-17.
        number: Which day of the simulation it is.

    Returns:
        video_sent, video_acked and client_buffer by their names, with the columns of
        ``schema.TABLES``, sorted by time.

    Raises:
        SettingError: There is no such day.
    """
    names = _Names.of(simulation, day, number)
    parts: dict[str, list[np.ndarray]] = {kind: [] for kind in _EVENT_TABLES}
    for block in blocks:
        for kind in _EVENT_TABLES:
            parts[kind].append(_records(getattr(block, kind), block, names))
    out = {}
    for kind, found in parts.items():
        records = np.concatenate(found) if found else np.empty(0, dtype=[("time", np.int64)])
        if len(records):
            out[kind] = names.table(kind, records[np.argsort(records["time"], kind="stable")])
    return out


# ----------------------------------------------------------------------------------------------
# On disk


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
    names = _Names.of(simulation, day, number, variant)
    tell = progress or (lambda stage, share: None)
    more: dict[str, Any] = {} if sessions is None else {"sessions": sessions}
    with (
        storage_errors("write the day", folder),
        made_folder(folder.parent),
        _workplace(folder, span) as work,
    ):
        settings = _settings(folder, names, span)
        spills = _Spills(work / "parts")
        for block in simulation.day(number, record="all", **more, **options):
            for kind in _EVENT_TABLES:
                records = _records(getattr(block, kind), block, names)
                spills.add(kind, records, records["time"] // _PART)
            records = _as_records(block.sessions, _SESSION_COLUMNS)
            spills.add("sessions", records, np.zeros(len(records), np.int64))
            if len(records):
                tell("simulate", min(1.0, float(records["start"][-1]) / _DAY))
        tell("simulate", 1.0)
        made = work / "new"
        (made / "logs").mkdir(parents=True)
        _write_tables(made, span, form, names, spills, tell)
        if content:
            _write_content(made, span, form, names, simulation)
        write_synced(made / "logs" / "expt_settings", lambda file: file.write(settings))
        shutil.rmtree(work / "parts")
        for place in (made / "logs", made):
            sync_folder(place)
        _publish(work, folder)
    tell("write", 1.0)
    return Day(folder, day)


_SESSION_COLUMNS = ("session", "viewer", "scheme", "start", "mean_rate", "min_rtt")


@dataclass(frozen=True)
class _Names:
    """What the numbers of a simulation stand for in the release."""

    simulation: Any
    number: int
    start: int  # of the day, ns since the epoch
    experiments: np.ndarray  # id of each scheme
    settings: tuple[Mapping[str, Any], ...]
    variant: Variant

    @classmethod
    def of(
        cls, simulation: Any, day: str | None, number: int, variant: Variant | None = None
    ) -> _Names:
        start = 0
        if day is not None:
            range_of(day)
            start = int(dt.datetime.fromisoformat(f"{day}T11:00:00+00:00").timestamp()) * 10**9
        experiments = dict(simulation.experiments) if simulation is not None else {}
        return cls(
            simulation,
            number,
            start,
            np.array(list(experiments), np.int64),
            tuple(experiments.values()),
            variant or Variant(),
        )

    def scheme_of(self, block: Any, session: np.ndarray) -> np.ndarray:
        """Position of the scheme of each row's session."""
        known = np.asarray(block.sessions["session"])
        order = np.argsort(known)
        place = np.searchsorted(known[order], session)
        return np.asarray(block.sessions["scheme"])[order[place]]

    def label(self, scheme: int) -> str | None:
        if not self.settings:
            return None
        entry = self.settings[scheme]
        return next((entry[k] for k in ("abr_name", "abr_algorithm", "abr") if entry.get(k)), None)

    def sessions(self, session: np.ndarray) -> list[str]:
        """session_id of each row; every session is asked for once."""
        if self.simulation is None:
            return [str(number) for number in session.tolist()]
        different, place = np.unique(session, return_inverse=True)
        ids = np.array(list(self.simulation.session_ids(self.number, different)), dtype=object)
        return list(ids[place])

    def table(self, kind: str, records: np.ndarray) -> pl.DataFrame:
        """Rows in the columns of ``schema.TABLES``; SSIM that is missing is null."""
        pl = polars("writing a Puffer day")
        channels = self.simulation.channels
        channel = records["channel"].astype(np.int64)
        columns: dict[str, Any] = {
            "time": records["time"] + self.start,
            "session_id": self.sessions(records["session"]),
            "index": records["index"].astype(np.int64),
            "expt_id": self.experiments[records["scheme"]],
            "channel": np.array(channels, dtype=object)[channel],
        }
        if kind == "client_buffer":
            columns["event"] = np.array(EVENTS, dtype=object)[records["event"]]
        else:
            columns["video_ts"] = records["video_ts"].astype(np.int64)
        if kind == "video_sent":
            formats = self.simulation.formats
            starts = np.cumsum([0, *map(len, formats)])
            every = np.array([name for ladder in formats for name in ladder], dtype=object)
            columns["format"] = every[starts[channel] + records["format"]]
            columns["size"] = records["size"].astype(np.int64)
            columns["ssim_index"] = pl.Series(records["ssim_index"].astype(np.float64)).fill_nan(
                None
            )
            columns |= {name: records[name].astype(np.int64) for name in _TCP}
        columns |= {name: records[name].astype(np.float64) for name in ("buffer", "cum_rebuf")}
        types = {"int": pl.Int64, "float": pl.Float64, "str": pl.String}
        schema = {c.name: types[c.kind] for c in TABLES[kind].columns}
        return pl.DataFrame(columns, schema_overrides=schema).select(list(schema))

    def as_published(self, kind: str, table: pl.DataFrame) -> pl.DataFrame:
        """The same in the form that files of this variant have."""
        pl = polars("writing a Puffer day")
        variant = self.variant
        if variant.side_table and kind in ("video_sent", "video_acked"):
            table = table.drop("buffer", "cum_rebuf")
        if variant.decibels and "ssim_index" in table.columns:
            index = pl.col("ssim_index")
            table = table.with_columns((-10.0 * (1.0 - index).log10()).alias("ssim_index"))
            table = table.rename({"ssim_index": "ssim"})
        names = {"time": _TIME, "cum_rebuf": variant.stalled}
        return table.rename({old: new for old, new in names.items() if old in table.columns})


def _acks(block: Any) -> tuple[int, int, int]:
    """Chunks acknowledged before they were sent; with any acknowledgement; repeated ones."""
    sent, acks = block.video_sent, block.video_acked
    keys = ("session", "index", "video_ts")
    both = np.stack([np.concatenate((sent[k], acks[k])).astype(np.int64) for k in keys], axis=1)
    times = np.concatenate((sent["time"], acks["time"]))
    n = len(sent["time"])
    _, of = np.unique(both, axis=0, return_inverse=True)
    of = of.reshape(-1)
    m = int(of.max()) + 1 if len(of) else 0
    was_sent = np.bincount(of[:n], minlength=m) > 0
    number = np.bincount(of[n:], minlength=m)
    last_sent, last_ack = np.full(m, -1, np.int64), np.full(m, -1, np.int64)
    np.maximum.at(last_sent, of[:n], times[:n])
    np.maximum.at(last_ack, of[n:], times[n:])
    both_there = was_sent & (number > 0)
    repeated = int(np.maximum(number - 1, 0).sum())
    return int((both_there & (last_ack < last_sent)).sum()), int(both_there.sum()), repeated


def _records(table: Mapping[str, np.ndarray], block: Any, names: _Names) -> np.ndarray:
    """Rows of a block's table with the scheme of their session."""
    columns = {name: np.asarray(column) for name, column in table.items() if name != "scheme"}
    columns["scheme"] = names.scheme_of(block, columns["session"]).astype(np.int64)
    return _as_records(columns, tuple(columns))


def _as_records(columns: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    arrays = {name: np.asarray(columns[name]) for name in names}
    size = len(next(iter(arrays.values())))
    out = np.empty(size, dtype=[(name, array.dtype) for name, array in arrays.items()])
    for name, array in arrays.items():
        out[name] = array
    return out


class _Spills:
    """Rows on disk in parts, each with its rows in the order in which they were added."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._types: dict[str, np.dtype[Any]] = {}
        self._parts: dict[str, set[int]] = {}

    def add(self, kind: str, records: np.ndarray, part: np.ndarray) -> None:
        self._types.setdefault(kind, records.dtype)
        records = records.astype(self._types[kind], copy=False)
        order = np.argsort(part, kind="stable")
        ranked = part[order]
        for rows in np.split(order, np.flatnonzero(np.diff(ranked)) + 1):
            if len(rows):
                number = int(part[rows[0]])
                self._parts.setdefault(kind, set()).add(number)
                with self._path(kind, number).open("ab") as file:
                    file.write(records[rows].tobytes())

    def parts(self, kind: str) -> Iterator[np.ndarray]:
        """The parts in ascending order."""
        for number in sorted(self._parts.get(kind, ())):
            yield np.fromfile(self._path(kind, number), dtype=self._types[kind])

    def count(self, kind: str) -> int:
        return len(self._parts.get(kind, ()))

    def _path(self, kind: str, number: int) -> Path:
        return self._folder / f"{kind}-{number}"


def _write_tables(
    made: Path,
    span: str,
    form: str,
    names: _Names,
    spills: _Spills,
    tell: Progress,
) -> None:
    """What sessions left behind, and who they were."""
    pl = polars("writing a Puffer day")
    total = sum(spills.count(kind) for kind in _EVENT_TABLES) + 1
    done = 0
    for kind in _EVENT_TABLES:
        kinds = [kind]
        if names.variant.side_table and kind == "video_sent":
            kinds.append("buf_video_sent")
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(_File(made / f"{name}_{span}.{form}", form)) for name in kinds
            ]
            for records in spills.parts(kind):
                records = records[np.argsort(records["time"], kind="stable")]
                for start in range(0, len(records), _ROWS):
                    table = names.table(kind, records[start : start + _ROWS])
                    files[0].write(names.as_published(kind, table))
                    for side in files[1:]:
                        own = [c.name for c in TABLES["buf_video_sent"].columns]
                        side.write(names.as_published("buf_video_sent", table.select(own)))
                done += 1
                tell("write", done / total)
            for name, file in zip(kinds, files, strict=True):
                if not file.began:  # a day on which nothing was sent has headers all the same
                    types = {"int": pl.Int64, "float": pl.Float64, "str": pl.String}
                    empty = pl.DataFrame(
                        schema={c.name: types[c.kind] for c in TABLES[name].columns}
                    )
                    file.write(names.as_published(name, empty))
    with _File(made / f"sessions_{span}.parquet", "parquet") as file:
        for records in spills.parts("sessions"):
            for start in range(0, len(records), _ROWS):
                part = records[start : start + _ROWS]
                file.write(
                    pl.DataFrame(
                        {
                            "session_id": names.sessions(part["session"]),
                            "viewer": part["viewer"].astype(np.int64),
                            "scheme": part["scheme"].astype(np.int64),
                            "start": part["start"].astype(np.int64) + names.start,
                            "mean_rate": part["mean_rate"].astype(np.float64),
                            "min_rtt": part["min_rtt"].astype(np.float64),
                        }
                    )
                )


def _write_content(made: Path, span: str, form: str, names: _Names, simulation: Any) -> None:
    """video_size and ssim: every chunk of every channel in all its formats, as it was encoded."""
    pl = polars("writing a Puffer day")
    channels = list(simulation.channels)
    ladders = [list(ladder) for ladder in simulation.formats]
    content = [simulation.content.day(names.number, k) for k in range(len(channels))]
    longest = max(len(sizes) for sizes, _ in content)
    with (
        _File(made / f"video_size_{span}.{form}", form) as of_size,
        _File(made / f"ssim_{span}.{form}", form) as of_ssim,
    ):
        for start in range(0, longest, _CONTENT_CHUNKS):
            parts = []
            for k, (sizes, ssim) in enumerate(content):
                part = slice(start, min(start + _CONTENT_CHUNKS, len(sizes)))
                chunk = np.arange(part.start, max(part.start, part.stop))
                width = len(ladders[k])
                parts.append(
                    pl.DataFrame(
                        {
                            "time": np.repeat(_encoded_at(chunk) + names.start, width),
                            "format": np.tile(np.array(ladders[k], dtype=object), len(chunk)),
                            "channel": [channels[k]] * (len(chunk) * width),
                            "video_ts": np.repeat(chunk * STEP, width),
                            "size": sizes[part].reshape(-1).astype(np.float64),
                            "ssim_index": ssim[part].reshape(-1).astype(np.float64),
                        },
                        schema_overrides={"format": pl.String, "channel": pl.String},
                    )
                )
            table = pl.concat(parts).sort("time", maintain_order=True)
            known = table.filter(pl.col("size").is_finite()).with_columns(pl.col("size").cast(int))
            of_size.write(names.as_published("video_size", known.drop("ssim_index")))
            known = table.filter(pl.col("ssim_index").is_finite())
            of_ssim.write(names.as_published("ssim", known.drop("size")))


def _encoded_at(chunk: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """When the chunks of a day are complete, ns since its start: live television, 90 kHz."""
    return np.asarray((chunk + 1) * STEP // 90 * 10**6)


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
            _move(work, folder)
        for path in work.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield work
        finally:
            if not (work / "ready").exists():
                shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, folder: Path) -> None:
    """From here on the day is complete: a run that is killed is finished by the next one."""
    write_synced(work / "ready", lambda file: file.write(b""))
    sync_folder(work)
    _move(work, folder)
    (work / "ready").unlink()


def _move(work: Path, folder: Path) -> None:
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


def _settings(folder: Path, names: _Names, span: str) -> bytes:
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
    for number, entry in zip(names.experiments.tolist(), names.settings, strict=True):
        mine = dict(entry)
        if not names.variant.abr_names:
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
