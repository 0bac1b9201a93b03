"""What else a day knows of its chunks: how they were encoded, and what the viewer's player did.

    with_encodings   size and SSIM as the encoder noted them, of the same chunk and format
    client_events    the messages of the clients, compact, sorted by stream and time
    startup_delays   how long each stream took until it played
    with_client      buffer and stalls at the time a chunk was sent, and the startup delay in them
    viewers_of       who watched, where a day was simulated

The released ``cum_rebuf`` contains the startup delay. Here it always comes with a column
``startup`` that says how much of it is that delay: ``cum_rebuf - startup`` is the time stalled.

Sources: the Puffer project's data description; Yan et al., "Learning in situ: a randomized
experiment in video streaming", NSDI 2020; the data preparation of the Memento paper's artefact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memento.errors import DamagedError, SchemaError, SettingError, StorageError, reason_of
from memento_puffer.data.layout import EVENTS
from memento_puffer.data.schema import Day, polars, range_of

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "EVENTS",
    "ClientEvents",
    "client_events",
    "startup_delays",
    "viewers_of",
    "with_client",
    "with_encodings",
]

Floats = npt.NDArray[np.float64]

_INIT, _STARTUP, _REBUFFER, _PLAY, _TIMER = range(5)
_SOURCES = ("auto", "file", "side", "events")
_WINDOW = 600.0  # s; an encoder that restarts uses its timestamps again hours later


def with_encodings(
    chunks: pl.DataFrame, day: Day, *, previous: Day | None = None, window: float = _WINDOW
) -> pl.DataFrame:
    """Add what the encoder noted of each chunk in the format in which it was sent.

    Channel, timestamp and format name an encoding only for a while: timestamps start again with the
    encoder. So it is the last one noted before the chunk was sent, and not more than ``window``
    before.

    Args:
        chunks: As ``features.chunk_table`` has them.
        day: Its files video_size and ssim are read; one that is absent leaves its column null.
        previous: The day before, whose last encodings were sent as this day's first chunks.
        window: Seconds, > 0.

    Returns:
        The same rows in the same order with ``encoded_size`` (bytes) and ``encoded_ssim`` (index),
        null where nothing was noted.

    Raises:
        SettingError: A window that is not above 0.
        SchemaError, DamagedError, StorageError: As ``Day.scan`` and ``Day.collect``.
    """
    pl = polars("joining encodings")
    if not 0 < window < float("inf"):
        raise SettingError(f"window={window}; give a number of seconds above 0")
    key = ["channel", "video_ts", "format"]
    reach = round(window * 1e9)
    added = []
    for kind, value, name in (
        ("video_size", "size", "encoded_size"),
        ("ssim", "ssim_index", "encoded_ssim"),
    ):
        empty = pl.Series(name, [], dtype=pl.Int64 if value == "size" else pl.Float64)
        parts = []
        for source in (previous, day):
            if source is None or kind not in source.files or not len(chunks):
                continue
            frame = source.scan(kind).select(*key, pl.col("time").alias("noted"), value)
            # Of the day before only what can still be sent on this one.
            first, last = chunks["sent"].min(), chunks["sent"].max()
            frame = frame.filter(pl.col("noted").is_between(first - reach, last))  # type: ignore[operator]
            parts.append(source.collect(kind, frame))
        noted = pl.concat(parts) if parts else None
        if noted is None or not len(noted):
            added.append(empty.extend_constant(None, len(chunks)))
            continue
        # Few timestamps come twice in a day, so all pairs of a chunk and an encoding fit easily.
        pairs = (
            chunks.select(*key, "sent")
            .with_row_index("row")
            .join(noted, on=key, how="inner")
            .filter(pl.col("noted").is_between(pl.col("sent") - reach, pl.col("sent")))
            .sort("row", "noted", maintain_order=True)
            .unique("row", keep="last", maintain_order=True)
        )
        values = pl.DataFrame({"row": np.arange(len(chunks), dtype=np.uint32)}).join(
            pairs.select("row", value), on="row", how="left", maintain_order="left"
        )
        added.append(values[value].alias(name))
    return chunks.with_columns(added)


@dataclass(frozen=True, eq=False)
class ClientEvents:
    """The messages of a day's clients, sorted by stream and time (ties: as in the file).

    Attributes:
        stream: (n,) int32, ascending, as numbered by ``features``.
        time: (n,) int64, ns since the Unix epoch.
        event: (n,) int8, positions in ``EVENTS``.
        buffer: (n,) s of video held.
        cum_rebuf: (n,) s stalled so far, startup delay included.
        streams: How many streams the day has; some may have no messages.
        counts: ``events`` (rows in the file), ``other_streams`` (rows of streams of which no chunk
            was sent, or that were left out), ``incomplete`` (rows without buffer or cum_rebuf).
    """

    stream: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    event: npt.NDArray[np.int8]
    buffer: Floats
    cum_rebuf: Floats
    streams: int
    counts: dict[str, int] = field(default_factory=dict)

    def bounds(self, kept: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(streams + 1,) where the messages of each stream begin, among those ``kept``."""
        stream = self.stream if kept is None else self.stream[kept]
        return np.searchsorted(stream, np.arange(self.streams + 1)).astype(np.int64)


def client_events(day: Day, streams: pl.DataFrame) -> ClientEvents:
    """Read a day's client_buffer.

    Args:
        day: The day.
        streams: ``Features.streams``: messages of other streams are counted and left out.

    Raises:
        SchemaError, StorageError: As ``Day.scan`` and ``Day.collect``.
        DamagedError: Also a row without session, index or time, and an unknown event.
    """
    pl = polars("reading a Puffer day")
    codes = {name: code for code, name in enumerate(EVENTS)}
    frame = day.scan("client_buffer").select(
        "time",
        pl.col("session_id").cast(pl.Categorical),
        pl.col("index"),
        pl.col("event").replace_strict(codes, default=None, return_dtype=pl.Int8).alias("code"),
        "buffer",
        "cum_rebuf",
    )
    table = day.collect("client_buffer", frame.with_row_index("row"))
    counts = {"events": len(table)}
    for name in ("time", "session_id", "index", "code"):
        if table[name].null_count():
            row = int(np.flatnonzero(table[name].is_null().to_numpy())[0])
            what = f"an event other than {', '.join(EVENTS)}" if name == "code" else f"no {name}"
            raise DamagedError(
                f"{day.path('client_buffer')}: row {row + 1:,} has {what} "
                f"({table[name].null_count():,} such rows); fetch the file again or remove them"
            )
    known = streams.select("stream", pl.col("session_id").cast(pl.Categorical), "index")
    table = table.join(known, on=["session_id", "index"], how="inner").drop("session_id", "index")
    counts["other_streams"] = counts["events"] - len(table)
    whole = table.filter(
        pl.col("buffer").is_finite().fill_null(False)
        & pl.col("cum_rebuf").is_finite().fill_null(False)
    )
    counts["incomplete"] = len(table) - len(whole)
    del table
    whole = whole.sort("stream", "time", "row").drop("row")
    return ClientEvents(
        whole["stream"].to_numpy(),
        whole["time"].to_numpy(),
        whole["code"].to_numpy(),
        whole["buffer"].to_numpy(),
        whole["cum_rebuf"].to_numpy(),
        len(streams),
        counts,
    )


def startup_delays(events: ClientEvents) -> tuple[Floats, dict[str, int]]:
    """How much of ``cum_rebuf`` is no stall: of each stream, the seconds until it first played.

    That is ``cum_rebuf`` at its first ``startup``. A stream that never played has not stalled: all
    that it waited is startup delay. One that began before the day's first message (so it has
    neither ``init`` nor ``startup``) starts with what it had waited and stalled until then.

    Returns:
        (streams,) s, NaN for streams without messages; and counts of streams: ``started``,
        ``never_started``, ``began_before``, ``silent``.
    """
    m = events.streams
    bounds = events.bounds()
    there = np.flatnonzero(np.diff(bounds))
    delay = np.full(m, np.nan)
    counts = dict.fromkeys(("started", "never_started", "began_before"), 0)
    counts["silent"] = m - len(there)
    if len(there):
        starts = bounds[there]
        n = len(events.time)
        at = np.where(events.event == _STARTUP, np.arange(n), n)
        first = np.minimum.reduceat(at, starts)
        started = first < n
        began = ~started & ~np.logical_or.reduceat(events.event == _INIT, starts)
        never = ~started & ~began
        found = np.maximum.reduceat(events.cum_rebuf, starts)
        found[began] = events.cum_rebuf[starts[began]]
        found[started] = events.cum_rebuf[first[started]]
        delay[there] = found
        counts |= {
            "started": int(started.sum()),
            "never_started": int(never.sum()),
            "began_before": int(began.sum()),
        }
    return delay, counts


def with_client(
    chunks: pl.DataFrame,
    events: ClientEvents,
    *,
    day: Day | None = None,
    streams: pl.DataFrame | None = None,
    source: str = "auto",
) -> pl.DataFrame:
    """What the client had when each chunk was sent: ``buffer``, ``cum_rebuf`` and ``startup``.

    There are three sources. From 2021-06-12 on video_sent itself has both columns ("file"), with
    the startup delay in ``cum_rebuf``. Before, the table buf_video_sent has them likewise ("side").
    Where that is not at hand, the client's messages say it ("events"), as the artefact did: of each
    stream the ``startup``, ``timer`` and ``play`` events after the first ``startup``, their
    ``cum_rebuf`` less the startup delay, if any of these is above 0; the last one before the chunk
    was sent counts, and 0 where there is none.

    Args:
        chunks: As ``features.chunk_table`` has them.
        events: Of the same day and streams.
        day: Needed for "side", and for "auto" to look for it.
        streams: ``Features.streams``, needed for "side".
        source: "file", "side", "events", or "auto": the first of these that is there.

    Returns:
        The chunks with these columns replaced or added. ``startup`` is what to subtract from
        ``cum_rebuf``: the stream's delay, or 0 where it is subtracted already ("events"). Where no
        message says it, it is the largest ``cum_rebuf``: nothing counts as stalled. Chunks of which
        the source says nothing have null ``buffer``, and what the stream's last known chunk had as
        ``cum_rebuf`` (0 before any).

    Raises:
        SettingError: Another source, or one that lacks its arguments.
        StorageError: There is no such source on this day.
    """
    pl = polars("joining the client's state")
    if source not in _SOURCES:
        raise SettingError(f"source={source!r}; give one of {', '.join(_SOURCES)}")
    in_file = chunks["cum_rebuf"].null_count() < len(chunks) or not len(chunks)
    has_side = day is not None and streams is not None and "buf_video_sent" in day.files
    if source == "auto":
        source = "file" if in_file else "side" if has_side else "events"
    if source == "file" and not in_file:
        raise StorageError("video_sent has no cum_rebuf on this day; use source='auto'")
    if source == "side":
        if day is None or streams is None:
            raise SettingError("source='side' needs day= and streams=")
        chunks = _with_side_table(chunks, day, streams)
    if source == "events":
        return _from_events(chunks, events)
    delay, _ = startup_delays(events)
    rebuffered = pl.col("cum_rebuf").forward_fill().over("stream").fill_null(0.0)
    chunks = chunks.with_columns(rebuffered.alias("cum_rebuf"))
    stream = chunks["stream"].to_numpy()
    most = np.zeros(events.streams)
    np.maximum.at(most, stream, chunks["cum_rebuf"].to_numpy())
    delay = np.where(np.isnan(delay), most, delay)
    return chunks.with_columns(pl.Series("startup", delay[stream]))


def viewers_of(day: Day) -> pl.DataFrame | None:
    """Who watched which session, where the day was simulated; None where nobody can know.

    Returns:
        Columns ``session_id`` and ``viewer`` (int), and whatever else the simulation noted.

    Raises:
        DamagedError: The table sessions_<range>.parquet cannot be read.
        SchemaError: It lacks one of the two columns.
    """
    pl = polars("reading a Puffer day")
    if day.name is None:
        return None
    path = day.folder / f"sessions_{range_of(day.name)}.parquet"
    if not path.is_file():
        return None
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedError(f"{path}: {reason_of(error)}; simulate the day again") from error
    if missing := [name for name in ("session_id", "viewer") if name not in table.columns]:
        raise SchemaError(f"{path}: no column {missing[0]!r} among {table.columns}")
    return table


def _with_side_table(chunks: pl.DataFrame, day: Day, streams: pl.DataFrame) -> pl.DataFrame:
    """Buffer and cum_rebuf of buf_video_sent; of equal chunks the last row counts."""
    pl = polars("joining the client's state")
    session = pl.col("session_id").cast(pl.Categorical)
    frame = day.scan("buf_video_sent").select(
        session, "index", "video_ts", "buffer", "cum_rebuf"
    )  # fmt: skip
    side = day.collect("buf_video_sent", frame)
    known = streams.select("stream", session, "index")
    side = side.join(known, on=["session_id", "index"], how="inner", maintain_order="left")
    side = side.select("stream", "video_ts", "buffer", "cum_rebuf").unique(
        ["stream", "video_ts"], keep="last", maintain_order=True
    )
    return chunks.drop("buffer", "cum_rebuf").join(
        side, on=["stream", "video_ts"], how="left", maintain_order="left"
    )


def _from_events(chunks: pl.DataFrame, events: ClientEvents) -> pl.DataFrame:
    """Buffer and stalls as the last message before each chunk has them."""
    pl = polars("joining the client's state")
    stream, sent = chunks["stream"].to_numpy(), chunks["sent"].to_numpy()
    last = _last_before(events.bounds(), events.time, stream, sent)
    buffer = np.full(len(chunks), np.nan)
    buffer[last >= 0] = events.buffer[last[last >= 0]]

    stalls = _stalls_of_events(events)
    kept = stalls > 0
    some = np.zeros(events.streams, bool)
    some[events.stream[kept]] = True
    kept = ~np.isnan(stalls) & some[events.stream]
    last = _last_before(events.bounds(kept), events.time[kept], stream, sent)
    rebuffered = np.zeros(len(chunks))
    rebuffered[last >= 0] = stalls[kept][last[last >= 0]]
    return chunks.with_columns(
        pl.Series("buffer", buffer).fill_nan(None),
        pl.Series("cum_rebuf", rebuffered),
        pl.lit(0.0).alias("startup"),
    )


def _stalls_of_events(events: ClientEvents) -> Floats:
    """cum_rebuf less the startup delay, NaN except for the events that count."""
    n = len(events.time)
    bounds = events.bounds()
    first = np.full(events.streams, n)
    there = np.flatnonzero(np.diff(bounds))
    if len(there):
        at = np.where(events.event == _STARTUP, np.arange(n), n)
        first[there] = np.minimum.reduceat(at, bounds[there])
    first_of = first[events.stream]
    delay = events.cum_rebuf[np.minimum(first_of, n - 1)] if n else events.cum_rebuf
    counts = np.isin(events.event, (_STARTUP, _PLAY, _TIMER)) & (np.arange(n) > first_of)
    return np.where(counts, events.cum_rebuf - delay, np.nan)


def _last_before(
    bounds: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    stream: npt.NDArray[np.int32],
    when: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Row of the last time <= when in the stream, -1 if there is none; all bisected at once."""
    starts = bounds[stream]
    low, high = starts.copy(), bounds[stream + 1].copy()
    open_ = np.flatnonzero(low < high)
    while len(open_):
        middle = (low[open_] + high[open_]) >> 1
        passed = times[middle] <= when[open_]
        low[open_] = np.where(passed, middle + 1, low[open_])
        high[open_] = np.where(passed, high[open_], middle)
        open_ = open_[low[open_] < high[open_]]
    return np.where(low > starts, low - 1, -1)
