"""From the files of a day to inputs and labels of the transmission time predictor.

First a table of chunks: those sent, each with its acknowledgement. Then, for each horizon, one
sample per chunk: the eight chunks before it, the state of TCP now, the size of the chunk that is
asked for, and how long that one took (Yan et al., "Learning in situ", NSDI 2020, section 4.3).

The chunks of a day fit in memory many times over, the windows of all five horizons do not. So
chunks are kept, and the windows of a horizon are made when they are asked for, which takes about a
second for three million.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import atomic_write, storage_errors, write_synced
from memento_puffer.data.schema import NOT_MEASURED, TABLES, Day, made_folder, polars
from memento_puffer.predictor.transmission import class_of

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "CHUNK_COLUMNS",
    "HISTORY",
    "HORIZONS",
    "STEP",
    "Features",
    "chunk_table",
    "features_and_chunks",
    "features_of",
]

HISTORY = 8  # past chunks in an input
HORIZONS = 5
STEP = 180180  # ticks of 1/90000 s from chunk to chunk

# In the order of the predictor's inputs, with what the file's units are divided by: bytes to
# packets, microseconds to seconds. The first five are the state of TCP.
_SCALES = {
    "delivery_rate": 1500.0,
    "cwnd": 1.0,
    "in_flight": 1.0,
    "min_rtt": 1e6,
    "rtt": 1e6,
    "size": 1500.0,
}
CHUNK_COLUMNS = (*_SCALES, "trans_time")
_NOW = 5
_WIDTH = len(CHUNK_COLUMNS)
_ARRAYS = ("values", "stream", "video_ts", "sent", "acked")
_FORMAT = 1
_EVERYTHING = ("channel", "format", "ssim_index", *_SCALES, "buffer", "cum_rebuf")
_SENTINELS = ("keep", "clamp", "drop")
_RULES = 2  # of what is usable; stored features made by other rules are made again
_DAY = 86_400 * 10**9  # ns
_MARGIN = _DAY // 2  # before and after a day: files may have been put together by hand


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """The chunks of a day, sorted by stream and presentation time.

    Args:
        values: (n, 7) float32 or float64, the ``CHUNK_COLUMNS``: delivery rate in packets of 1500
            bytes per s, cwnd and in_flight in packets, min_rtt and rtt in s, size in packets,
            transmission time in s. NaN where it is not known, such as the time of a chunk without
            acknowledgement.
        stream: (n,) int32, ascending: row of ``streams``.
        video_ts: (n,) int64, in 1/90000 s, strictly ascending within a stream.
        sent: (n,) int64, ns since the Unix epoch.
        acked: (n,) int64 likewise, -1 without acknowledgement.
        streams: A row for each stream, in the order of their first chunks: stream, session_id,
            index, expt_id, abr, cc (None if unknown), first_sent.
        counts: What was met on the way, see ``of_day``.

    Raises:
        SchemaError: Arrays of other shapes.
        DomainError: Chunks that are not sorted, or equal ones.
    """

    values: np.ndarray
    stream: np.ndarray
    video_ts: np.ndarray
    sent: np.ndarray
    acked: np.ndarray
    streams: pl.DataFrame
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.stream)
        for name in _ARRAYS:
            array = np.asarray(getattr(self, name)).view(np.ndarray)
            shape = (n, _WIDTH) if name == "values" else (n,)
            if array.shape != shape:
                raise SchemaError(f"{name} of shape {array.shape}; expected {shape}")
            # Read-only in any case: whether built or read back, kernels see one type.
            array = array.view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.values.dtype not in (np.float32, np.float64):
            raise SchemaError(f"values of type {self.values.dtype}; expected float32 or float64")
        same = self.stream[1:] == self.stream[:-1]
        back = (self.stream[1:] < self.stream[:-1]) | (
            same & (self.video_ts[1:] <= self.video_ts[:-1])
        )
        if back.any():
            row = int(np.flatnonzero(back)[0])
            raise DomainError(
                f"chunk {row + 1} does not come after chunk {row}; sort the chunks by stream and "
                "video_ts and keep one of those that are equal"
            )

    @classmethod
    def of_day(
        cls, day: Day | str | Path, *, dtype: npt.DTypeLike = np.float32, cc: str | None = None
    ) -> Features:
        """Read a day's video_sent and video_acked.

        Of rows for the same chunk the last one in the file counts. What cannot be is taken as not
        known: an acknowledgement from before the chunk was sent or more than a day after, or of a
        chunk sent more than 12 h before or after the day; a size below 1, and a value of TCP below
        the least in ``schema.TABLES``.

        Args:
            day: The day or its folder.
            dtype: float32 or float64.
            cc: Keep only streams over this congestion control ("bbr" as Puffer's own training
                does); needs the experiment settings.

        Returns:
            The chunks, with these counts: ``sent`` and ``acked`` (rows in the files),
            ``sent_twice`` and ``acked_twice`` (rows that a later one replaced), ``unsent`` (rows of
            video_acked whose chunk was not sent on this day), ``other_cc`` (rows of video_sent of
            other streams), ``chunks`` (what is left), ``unacked``, ``acked_early`` (before they
            were sent), ``acked_late`` (more than a day after), ``outside`` (sent at a time far from
            the day; each chunk is in one of these four at most), ``impossible`` (a value is), and
            ``incomplete`` (a value is missing; a chunk of these two is in no input and no label),
            ``not_measured`` (chunks with a min_rtt of 2^32 - 1), ``unknown_experiment`` (streams).

        Raises:
            SchemaError, DamagedError, StorageError: As ``Day.scan`` and ``Day.collect``; a time,
                session, index or video_ts is missing.
            SettingError: Another dtype.
        """
        day = day if isinstance(day, Day) else Day(day)
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise SettingError(f"dtype={np.dtype(dtype)}; give float32 or float64")
        counts: dict[str, int] = {}
        sent, streams = _read_sent(day, cc, counts)
        table = _with_acks(day, sent, streams, counts)
        del sent
        return cls._of_table(table, streams, counts, dtype)

    @classmethod
    def _of_table(
        cls,
        table: pl.DataFrame,
        streams: pl.DataFrame,
        counts: dict[str, int],
        dtype: npt.DTypeLike,
    ) -> Features:
        """From chunks with their acknowledgements."""
        n = len(table)
        values = np.empty((n, _WIDTH), dtype=dtype)
        counts["not_measured"] = int((table["min_rtt"] == NOT_MEASURED).sum())
        for position, (name, scale) in enumerate(_SCALES.items()):
            values[:, position] = _floats(table[name]) / scale
        times = table["time"].to_numpy()
        acked = table["acked"].fill_null(-1).to_numpy()
        values[:, -1] = np.where(acked >= 0, (acked - times) / 1e9, np.nan)
        stream, video_ts = table["stream"].to_numpy(), table["video_ts"].to_numpy()
        kept = streams.filter("kept").drop("kept").cast({"session_id": polars("reading").String})
        return cls(values, stream, video_ts, times, acked, kept, counts)

    @property
    def size(self) -> int:
        """How many chunks there are."""
        return len(self.stream)

    @cached_property
    def _usable(self) -> np.ndarray:
        return np.isfinite(self.values).all(axis=1)

    @cached_property
    def _before(self) -> np.ndarray:
        from memento_puffer._kernels import windows

        return windows.link(self.stream, self.video_ts, self._usable, -STEP)

    def samples(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """The chunks n that samples are made of, and the chunks n + horizon they are asked for.

        Both have to be acknowledged, and their values known. Chunk n + h is the one of the same
        stream that is h * 180180 ticks later.

        Args:
            horizon: 0 to 4.

        Returns:
            Two arrays (m,) of rows, in ascending order.

        Raises:
            SettingError: Another horizon.
        """
        if horizon not in range(HORIZONS):
            raise SettingError(f"horizon={horizon}; give 0 to {HORIZONS - 1}")
        if horizon == 0:
            rows = np.flatnonzero(self._usable).astype(np.int32)
            return rows, rows
        from memento_puffer._kernels import windows

        ahead = windows.link(self.stream, self.video_ts, self._usable, horizon * STEP)
        rows = np.flatnonzero(self._usable & (ahead >= 0)).astype(np.int32)
        return rows, ahead[rows]

    def columns(
        self,
        horizon: int = 0,
        take: npt.ArrayLike | None = None,
        *,
        dtype: npt.DTypeLike | None = None,
        sentinels: str = "keep",
    ) -> dict[str, np.ndarray]:
        """Inputs and labels of a horizon, as columns of a memory or a training set.

        Walking back from chunk n, the first one that is missing or not acknowledged ends the
        history: older slots repeat the oldest chunk found. Without any, all of them hold the state
        of TCP now, with size and time 0.

        Args:
            horizon: h from 0 to 4: asked for is the time of chunk n + h.
            take: Positions of the samples wanted, among all of this horizon; None for all.
            dtype: Of x and y, float32 or float64; None for that of ``values``. (What x
                is made of was rounded before if ``values`` is float32.)
            sentinels: What becomes of a min_rtt not measured yet (2^32 - 1 us): "keep" it, "clamp"
                it to the rtt beside it, or "drop" the samples that hold one.

        Returns:
            Columns of m rows:
                x: (m, 62) eight past chunks, oldest first, each as ``CHUNK_COLUMNS``; the first
                    five of these of chunk n; the size of chunk n + h in packets.
                y: seconds that chunk n + h took.
                y_bin: int64, its class, see ``transmission.class_of``.
                stream: int64, row of ``streams``.
                time: int64, ns, when chunk n + h was sent.

        Raises:
            SettingError: Another horizon, dtype or word for sentinels.
            DomainError: A position that is not there.

        Example:
            >>> import polars as pl
            >>> chunk = [3000.0, 10, 0, 0.02, 0.03, 100]
            >>> day = Features(
            ...     np.array([[*chunk, 0.4], [*chunk, 0.8]]),
            ...     np.array([0, 0], np.int32),
            ...     np.array([0, 180180]),
            ...     np.array([0, 2 * 10**9]),
            ...     np.array([4 * 10**8, 28 * 10**8]),
            ...     pl.DataFrame({"stream": [0]}),
            ... )
            >>> day.columns(0)["y_bin"], day.columns(1)["y"]
            (array([1, 2]), array([0.8]))
        """
        from memento_puffer._kernels import windows
        from memento_puffer.predictor.ttp import clamp_sentinels, sentinel_rows

        dtype = self.values.dtype if dtype is None else np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise SettingError(f"dtype={dtype}; give float32 or float64")
        if sentinels not in _SENTINELS:
            raise SettingError(f"sentinels={sentinels!r}; give one of {', '.join(_SENTINELS)}")
        rows, targets = self.samples(horizon)
        if take is not None:
            rows, targets = _taken(np.asarray(take), rows, targets)
        x = np.empty((len(rows), HISTORY * _WIDTH + _NOW + 1), dtype=dtype)
        windows.fill(self.values, self._before, rows, targets, HISTORY, _NOW, x)
        if sentinels == "clamp":
            x = clamp_sentinels(x)
        elif sentinels == "drop":
            kept = ~sentinel_rows(x)
            if not kept.all():
                x, targets = x[kept], targets[kept]
        # From the times themselves: rounded to float32, 0.7499999999 s would change its class.
        y = (self.acked[targets] - self.sent[targets]) / 1e9
        return {
            "x": x,
            "y": y.astype(dtype),
            "y_bin": class_of(y),
            "stream": self.stream[targets].astype(np.int64),
            "time": self.sent[targets],
        }

    def write(self, folder: str | Path, source: Mapping[str, Any] | None = None) -> None:
        """Store the chunks as NPY files, the streams as Parquet.

        What was in the folder before stays valid until the new content is whole; the file
        ``features.json`` says which files belong together and is replaced last.

        Args:
            folder: Made if it is not there.
            source: What they were made of, for ``features_of``.

        Raises:
            ForeignError: The folder holds other things.
            SpaceError: The disk is full.
            StorageError: Anything else that the file system refuses.
        """
        folder = Path(folder)
        with storage_errors("write features", folder), made_folder(folder):
            present = sorted(path.name for path in folder.iterdir())
            strangers = [name for name in present if not _is_ours(name)]
            if strangers:
                raise ForeignError(
                    f"{folder}: holds {strangers[0]!r}, which is no part of stored features; "
                    "give a folder of their own"
                )
            token = secrets.token_hex(4)
            files, made = {}, []
            try:
                for name in _ARRAYS:
                    path = folder / f"{name}-{token}.npy"
                    made.append(path)
                    array = getattr(self, name)
                    size, _ = write_synced(path, lambda f, a=array: np.save(f, a))  # type: ignore[misc]
                    files[name] = {"file": path.name, "bytes": size}
                table = io.BytesIO()
                self.streams.write_parquet(table)
                path = folder / f"streams-{token}.parquet"
                made.append(path)
                size, _ = write_synced(path, lambda f: f.write(table.getbuffer()))
                files["streams"] = {"file": path.name, "bytes": size}
                manifest = {
                    "format": _FORMAT,
                    "files": files,
                    "counts": dict(self.counts),
                    "source": source,
                }
                text = json.dumps(manifest, indent=1)
                atomic_write(folder / "features.json", text.encode())
            except BaseException:
                for path in made:
                    path.unlink(missing_ok=True)
                raise
            for name in present:
                if name != "features.json":
                    (folder / name).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: str | Path) -> Features:
        """Open what ``write`` stored; the arrays stay on disk until they are used.

        Raises:
            StorageError: There are no features in the folder.
            DamagedError: A file is missing, or has another size or content than it should.
            ForeignError: A format of a later version.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        if manifest is None:
            raise StorageError(
                f"{folder}: no features.json; make it with Features.of_day and write"
            )
        pl = polars("reading features")
        try:
            for entry in manifest["files"].values():
                size = (folder / entry["file"]).stat().st_size
                if size != entry["bytes"]:
                    raise ValueError(
                        f"{entry['file']} has {size:,} bytes instead of {entry['bytes']:,}"
                    )
            arrays = {}
            for name in _ARRAYS:
                path = folder / manifest["files"][name]["file"]
                arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            streams = pl.read_parquet(folder / manifest["files"]["streams"]["file"])
            return cls(**arrays, streams=streams, counts=manifest["counts"])
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise DamagedError(
                f"{folder}: {str(error).splitlines()[0]}; remove the folder and make it again"
            ) from error

    def __repr__(self) -> str:
        return f"<Features of {len(self.streams):,} streams, {self.size:,} chunks>"


def chunk_table(day: Day | str | Path, *, cc: str | None = None) -> pl.DataFrame:
    """The chunks of a day with all that is known of them, in the units of the files.

    Args:
        day: The day or its folder.
        cc: See ``Features.of_day``.

    Returns:
        The same rows in the same order as ``Features.of_day``: stream, video_ts, sent and acked in
        ns, trans_time in s (the last two null where no acknowledgement came, or one at an
        impossible time), channel, format, size, ssim_index, the state of TCP, buffer and cum_rebuf
        as in the file (so with the startup delay; null before 2021-06-12), abr, cc.

    Raises:
        SchemaError, DamagedError, StorageError: As ``Features.of_day``.
    """
    day = day if isinstance(day, Day) else Day(day)
    counts: dict[str, int] = {}
    sent, streams = _read_sent(day, cc, counts, _EVERYTHING)
    return _chunks(_with_acks(day, sent, streams, counts), streams)


def features_and_chunks(
    day: Day | str | Path, *, dtype: npt.DTypeLike = np.float32, cc: str | None = None
) -> tuple[Features, pl.DataFrame]:
    """``Features.of_day`` and ``chunk_table`` of one day, which is read once.

    Args:
        day: The day or its folder.
        dtype: See ``Features.of_day``.
        cc: See there.

    Returns:
        Both with the same rows in the same order.

    Raises:
        SchemaError, DamagedError, StorageError, SettingError: As ``Features.of_day``.
    """
    day = day if isinstance(day, Day) else Day(day)
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise SettingError(f"dtype={np.dtype(dtype)}; give float32 or float64")
    counts: dict[str, int] = {}
    sent, streams = _read_sent(day, cc, counts, _EVERYTHING)
    table = _with_acks(day, sent, streams, counts)
    del sent
    return Features._of_table(table, streams, counts, dtype), _chunks(table, streams)


def features_of(
    day: Day | str | Path,
    store: str | Path,
    *,
    dtype: npt.DTypeLike = np.float32,
    cc: str | None = None,
) -> Features:
    """Features of a day, from the store if they were made before of the same files.

    Args:
        day: The day or its folder.
        store: Folder for the features of this day.
        dtype: float32 or float64.
        cc: See ``Features.of_day``.

    Raises:
        InputError, StorageError: As ``Features.of_day`` and ``Features.write``. A store that is
            damaged is made again.
    """
    day = day if isinstance(day, Day) else Day(day)
    source: dict[str, Any] = {"dtype": str(np.dtype(dtype)), "cc": cc, "rules": _RULES}
    settings = (day.folder / "logs" / "expt_settings", day.folder / "expt_settings")
    for path in (day.path("video_sent"), day.path("video_acked"), *settings):
        if path.is_file():
            status = path.stat()
            source[path.name] = [status.st_size, status.st_mtime_ns]
    store = Path(store)
    with contextlib.suppress(DamagedError):
        manifest = _manifest(store)
        if manifest is not None and manifest.get("source") == source:
            return Features.read(store)
    features = Features.of_day(day, dtype=dtype, cc=cc)
    features.write(store, source)
    return features


def _read_sent(
    day: Day, cc: str | None, counts: dict[str, int], columns: Iterable[str] = tuple(_SCALES)
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The chunks sent, sorted by stream and video_ts, and the streams."""
    pl = polars("reading a Puffer day")
    session = pl.col("session_id").cast(pl.Categorical)
    frame = day.scan("video_sent").select(
        "time", session, "index", "expt_id", "video_ts", *columns
    )  # fmt: skip
    sent = day.collect("video_sent", frame.with_row_index("row"))
    _refuse_missing(day, "video_sent", sent)
    counts["sent"] = len(sent)
    # Numbered by the first chunk sent: which code a session id got may differ between runs.
    viewer = ["session_id", "index"]
    streams = (
        sent.group_by(viewer)
        .agg(pl.min("time").alias("first_sent"), pl.min("row"), pl.last("expt_id"))
        .sort("first_sent", "row")
        .drop("row")
    )
    streams = _with_settings(day, streams, cc, counts)
    sent = sent.join(streams.select(*viewer, "stream", "kept"), on=viewer, how="left")
    sent = sent.drop(*viewer, "expt_id")
    counts["other_cc"] = 0
    if cc is not None:
        sent = sent.filter("kept")
        counts["other_cc"] = counts["sent"] - len(sent)
    sent = sent.drop("kept").sort("stream", "video_ts", "row").drop("row")
    sent, counts["sent_twice"] = _last_ones(sent)
    return sent, streams


def _with_settings(
    day: Day, streams: pl.DataFrame, cc: str | None, counts: dict[str, int]
) -> pl.DataFrame:
    """Add abr, cc, the stream's number and whether it is kept; those kept are numbered from 0."""
    pl = polars("reading a Puffer day")
    try:
        experiments = day.experiments
    except DamagedError:
        raise
    except StorageError:
        if cc is not None:
            raise
        experiments = {}
    expt = streams["expt_id"].to_list()
    found = [experiments.get(number) for number in expt]
    counts["unknown_experiment"] = sum(experiment is None for experiment in found)
    over = [experiment.cc if experiment else None for experiment in found]
    kept = np.array([cc is None or name == cc for name in over], dtype=bool)
    return streams.select(
        pl.Series("stream", np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)),
        pl.col("session_id").cast(pl.Categorical),
        "index",
        "expt_id",
        pl.Series("abr", [e.abr if e else None for e in found], dtype=pl.String),
        pl.Series("cc", over, dtype=pl.String),
        "first_sent",
        pl.Series("kept", kept),
    )


def _with_acks(
    day: Day, sent: pl.DataFrame, streams: pl.DataFrame, counts: dict[str, int]
) -> pl.DataFrame:
    """Add the column acked, null where no acknowledgement came."""
    pl = polars("reading a Puffer day")
    session = pl.col("session_id").cast(pl.Categorical)
    frame = day.scan("video_acked").select("time", session, "index", "video_ts")
    acks = day.collect("video_acked", frame.with_row_index("row"))
    _refuse_missing(day, "video_acked", acks)
    counts["acked"] = len(acks)
    viewer = ["session_id", "index"]
    acks = acks.join(streams.select(*viewer, "stream", "kept"), on=viewer, how="inner")
    unsent = counts["acked"] - len(acks)
    acks = acks.filter("kept").sort("stream", "video_ts", "row")
    acks, counts["acked_twice"] = _last_ones(acks)
    acks = acks.select("stream", "video_ts", pl.col("time").alias("acked"))
    table = sent.join(acks, on=["stream", "video_ts"], how="left", maintain_order="left")
    # Each chunk sent and each acknowledgement is there once, so those without a chunk are the rest.
    matched = len(table) - table["acked"].null_count()
    counts["unsent"] = unsent + len(acks) - matched
    return _possible(day, table, counts)


def _possible(day: Day, table: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Values and acknowledgements that cannot be become null, and are counted."""
    pl = polars("reading a Puffer day")
    least = {
        column.name: column.least
        for column in TABLES["video_sent"].columns
        if column.name in _SCALES and column.least is not None
    }
    below = {name: (pl.col(name) < bound).fill_null(False) for name, bound in least.items()}
    sent, acked = pl.col("time"), pl.col("acked")
    start, end = day.span or (_MARGIN, np.iinfo(np.int64).max - _MARGIN)
    outside = ~sent.is_between(start - _MARGIN, end + _MARGIN)
    there = acked.is_not_null()
    early, late = there & (acked < sent), there & (acked - sent > _DAY)
    counts |= {
        "chunks": len(table),
        **table.select(
            (~there & ~outside).sum().alias("unacked"),
            outside.sum().alias("outside"),
            (early & ~outside).sum().alias("acked_early"),
            (late & ~outside).sum().alias("acked_late"),
            pl.any_horizontal(below.values()).sum().alias("impossible"),
            pl.any_horizontal(pl.col(*_SCALES).is_null()).sum().alias("incomplete"),
        ).row(0, named=True),
    }
    unusable = outside | early | late
    return table.with_columns(
        pl.when(~unusable).then(acked).alias("acked"),
        *(pl.when(~wrong).then(name).alias(name) for name, wrong in below.items()),
    )


def _chunks(table: pl.DataFrame, streams: pl.DataFrame) -> pl.DataFrame:
    """The columns of ``chunk_table``."""
    pl = polars("reading a Puffer day")
    table = table.join(
        streams.filter("kept").select("stream", "abr", "cc"),
        on="stream",
        how="left",
        maintain_order="left",
    )
    return table.select(
        "stream",
        "video_ts",
        pl.col("time").alias("sent"),
        "acked",
        ((pl.col("acked") - pl.col("time")) / 1e9).alias("trans_time"),
        *_EVERYTHING,
        "abr",
        "cc",
    )


def _last_ones(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The last of equal rows (stream, video_ts) of a sorted table, and how many went."""
    stream, video_ts = table["stream"].to_numpy(), table["video_ts"].to_numpy()
    last = np.ones(len(table), dtype=bool)
    last[:-1] = (stream[1:] != stream[:-1]) | (video_ts[1:] != video_ts[:-1])
    gone = int(len(table) - last.sum())
    return (table.filter(last) if gone else table), gone


def _refuse_missing(day: Day, kind: str, table: pl.DataFrame) -> None:
    for name in ("time", "session_id", "index", "video_ts"):
        if table[name].null_count():
            row = int(np.flatnonzero(table[name].is_null().to_numpy())[0])
            raise DamagedError(
                f"{day.path(kind)}: row {row + 1:,} has no {name} "
                f"({table[name].null_count():,} such rows); fetch the file again or remove them"
            )


def _floats(column: pl.Series) -> np.ndarray:
    """Float64, missing values NaN."""
    pl = polars("reading a Puffer day")
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _taken(
    take: np.ndarray, rows: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if take.size == 0:
        take = take.astype(np.int64)
    if take.ndim != 1 or take.dtype.kind not in "iu":
        raise SettingError(
            f"take of shape {take.shape} and type {take.dtype}; give a row of positions"
        )
    if take.size and (take.min() < 0 or take.max() >= len(rows)):
        raise DomainError(
            f"take goes from {take.min():,} to {take.max():,}; there are {len(rows):,} samples"
        )
    return rows[take], targets[take]


def _is_ours(name: str) -> bool:
    """Whether a file of this name is one that ``write`` makes."""
    stem, _, rest = name.lstrip(".").partition("-")
    return (
        name == "features.json"
        or name.startswith(".features.json.")
        or (stem in (*_ARRAYS, "streams") and os.path.splitext(rest)[1] in (".npy", ".parquet"))
    )


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The content of features.json; None if there is none."""
    path = folder / "features.json"
    if not path.is_file():
        return None
    with storage_errors("read features", path):
        text = path.read_bytes()
    try:
        manifest = json.loads(text)
        found = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path}: not readable ({error}); remove the folder and make it again"
        ) from error
    if found != _FORMAT:
        raise ForeignError(
            f"{path}: format {found}, this version reads {_FORMAT}; make the features again"
        )
    return dict(manifest)
