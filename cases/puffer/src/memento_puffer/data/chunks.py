"""The chunks of a day, each with its acknowledgement, from files or from a simulation.

Of rows for the same chunk the last one counts. What cannot be is taken as not known, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from memento.errors import DamagedError, StorageError
from memento_puffer.data.layout import CHUNK_INPUTS, TABLES
from memento_puffer.data.schema import DAY, Day, Experiment, polars

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CHUNK_TABLE", "DaySource", "Source", "chunk_table", "chunks_of", "described", "floats"]

CHUNK_TABLE = ("channel", "format", "ssim_index", *CHUNK_INPUTS, "buffer", "cum_rebuf")
_STREAM = ["session_id", "index"]
_MARGIN = DAY // 2  # ns before and after a day: files may have been put together by hand


class Source(Protocol):
    """Where the rows of chunks come from."""

    @property
    def span(self) -> tuple[int, int] | None:
        """When the day begins and ends, ns; None if that is not known."""

    def sent(self) -> pl.DataFrame:
        """Chunks sent: row (position), time (ns), session_id, index, video_ts, expt_id and more."""

    def acked(self) -> pl.DataFrame:
        """Acknowledgements: row, time (ns), session_id, index, video_ts."""

    def experiments(self) -> Mapping[int, Experiment]:
        """What each expt_id stands for.

        Raises:
            StorageError: Nothing says it.
        """

    def named(self, streams: pl.DataFrame) -> pl.DataFrame:
        """Streams with the names of their sessions."""


class DaySource:
    """The files of a day as a source of chunks.

    Args:
        day: The day or its folder.
        columns: Those of video_sent to read besides what names a chunk.
    """

    def __init__(self, day: Day | str | Path, columns: Iterable[str] = CHUNK_INPUTS) -> None:
        self.day = day if isinstance(day, Day) else Day(day)
        self.columns = tuple(columns)

    @property
    def span(self) -> tuple[int, int] | None:
        """See `Source`."""
        return self.day.span

    def sent(self) -> pl.DataFrame:
        """See `Source`.

        Raises:
            SchemaError, DamagedError, StorageError: As ``Day.scan`` and ``Day.collect``; a time,
                session, index or video_ts is missing.
        """
        return self._rows("video_sent", "expt_id", *self.columns)

    def acked(self) -> pl.DataFrame:
        """See `Source`, and `sent` for errors."""
        return self._rows("video_acked")

    def experiments(self) -> Mapping[int, Experiment]:
        """See `Source`."""
        return self.day.experiments

    def named(self, streams: pl.DataFrame) -> pl.DataFrame:
        """See `Source`."""
        return streams.cast({"session_id": polars("reading a Puffer day").String})

    def _rows(self, kind: str, *columns: str) -> pl.DataFrame:
        pl = polars("reading a Puffer day")
        session = pl.col("session_id").cast(pl.Categorical)
        frame = self.day.scan(kind).select("time", session, "index", "video_ts", *columns)
        table = self.day.collect(kind, frame.with_row_index("row"))
        for name in ("time", "session_id", "index", "video_ts"):
            if table[name].null_count():
                row = int(np.flatnonzero(table[name].is_null().to_numpy())[0])
                raise DamagedError(
                    f"{self.day.path(kind)}: row {row + 1:,} has no {name} "
                    f"({table[name].null_count():,} such rows); fetch the file again or remove them"
                )
        return table


def chunks_of(
    source: Source, cc: str | None = None
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """The chunks sent, each with its acknowledgement.

    Args:
        source: Where rows come from.
        cc: Keep only streams over this congestion control.

    Returns:
        The chunks, sorted by stream and video_ts: stream, video_ts, time and acked (ns, null
        without acknowledgement), and the source's columns; the streams in the order of their first
        chunks, as ``Features.streams``; and what ``Features.of_day`` counts.
    """
    counts: dict[str, int] = {}
    sent = source.sent()
    counts["sent"] = len(sent)
    streams = _streams(source, sent, cc, counts)
    sent = sent.join(streams.select(*_STREAM, "stream", "kept"), on=_STREAM, how="left")
    sent = sent.drop(*_STREAM, "expt_id")
    counts["other_cc"] = 0
    if cc is not None:
        sent = sent.filter("kept")
        counts["other_cc"] = counts["sent"] - len(sent)
    sent = sent.drop("kept").sort("stream", "video_ts", "row").drop("row")
    sent, counts["sent_twice"] = _last_rows(sent)

    acks = source.acked()
    counts["acked"] = len(acks)
    acks = acks.join(streams.select(*_STREAM, "stream", "kept"), on=_STREAM, how="inner")
    unsent = counts["acked"] - len(acks)
    acks = acks.filter("kept").sort("stream", "video_ts", "row")
    acks, counts["acked_twice"] = _last_rows(acks)
    acks = acks.rename({"time": "acked"}).select("stream", "video_ts", "acked")
    table = sent.join(acks, on=["stream", "video_ts"], how="left", maintain_order="left")
    del sent
    # Each chunk sent and each acknowledgement is there once, so those without a chunk are the rest.
    matched = len(table) - table["acked"].null_count()
    counts["unsent"] = unsent + len(acks) - matched
    table = _possible(source.span, table, counts)
    if counts["chunks"] and counts["outside"] == counts["chunks"]:
        when = np.datetime64(int(streams["first_sent"][0]), "ns").astype("datetime64[s]")
        raise DamagedError(
            f"no chunk was sent on the day, the first of {counts['sent']:,} at {when} (UTC), if "
            "that is ns since 1970; give the files of this day, with times in ns, us, ms or as "
            "2021-10-17T11:00:00.123Z"
        )
    return table, source.named(streams.filter("kept").drop("kept")), counts


def _streams(
    source: Source, sent: pl.DataFrame, cc: str | None, counts: dict[str, int]
) -> pl.DataFrame:
    """Streams with abr, cc, their number and whether they are kept; those are numbered from 0."""
    pl = polars("reading a Puffer day")
    # Numbered by the first chunk sent: which code a session id got may differ between runs.
    streams = (
        sent.group_by(_STREAM)
        .agg(pl.min("time").alias("first_sent"), pl.min("row"), pl.last("expt_id"))
        .sort("first_sent", "row")
    )
    try:
        experiments = source.experiments()
    except DamagedError:
        raise
    except StorageError:
        if cc is not None:
            raise
        experiments = {}
    of_stream = [experiments.get(number) for number in streams["expt_id"].to_list()]
    counts["unknown_experiment"] = sum(experiment is None for experiment in of_stream)
    over = [experiment.cc if experiment else None for experiment in of_stream]
    kept = np.array([cc is None or name == cc for name in over], dtype=bool)
    return streams.select(
        pl.Series("stream", np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)),
        *_STREAM,
        "expt_id",
        pl.Series("abr", [e.abr if e else None for e in of_stream], dtype=pl.String),
        pl.Series("cc", over, dtype=pl.String),
        "first_sent",
        pl.Series("kept", kept),
    )


def _possible(
    span: tuple[int, int] | None, table: pl.DataFrame, counts: dict[str, int]
) -> pl.DataFrame:
    """Values and acknowledgements that cannot be become null, and are counted."""
    pl = polars("reading a Puffer day")
    below = {
        column.name: (pl.col(column.name) < column.least).fill_null(False)
        for column in TABLES["video_sent"].columns
        if column.name in CHUNK_INPUTS and column.least is not None
    }
    sent, acked = pl.col("time"), pl.col("acked")
    start, end = span or (_MARGIN, np.iinfo(np.int64).max - _MARGIN)
    outside = ~sent.is_between(start - _MARGIN, end + _MARGIN)
    there = acked.is_not_null()
    early, late = there & (acked < sent), there & (acked - sent > DAY)
    counts |= {
        "chunks": len(table),
        **table.select(
            (~there & ~outside).sum().alias("unacked"),
            outside.sum().alias("outside"),
            (early & ~outside).sum().alias("acked_early"),
            (late & ~outside).sum().alias("acked_late"),
            pl.any_horizontal(below.values()).sum().alias("impossible"),
            pl.any_horizontal(pl.col(*CHUNK_INPUTS).is_null()).sum().alias("incomplete"),
        ).row(0, named=True),
    }
    unusable = outside | early | late
    return table.with_columns(
        pl.when(~unusable).then(acked).alias("acked"),
        *(pl.when(~wrong).then(name).alias(name) for name, wrong in below.items()),
    )


def _last_rows(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The last of equal rows (stream, video_ts) of a sorted table, and how many went."""
    stream, video_ts = table["stream"].to_numpy(), table["video_ts"].to_numpy()
    last = np.ones(len(table), dtype=bool)
    last[:-1] = (stream[1:] != stream[:-1]) | (video_ts[1:] != video_ts[:-1])
    gone = int(len(table) - last.sum())
    return (table.filter(last) if gone else table), gone


def described(table: pl.DataFrame, streams: pl.DataFrame) -> pl.DataFrame:
    """What `chunks_of` gives, with `CHUNK_TABLE` among the columns, as `chunk_table` has it."""
    pl = polars("reading a Puffer day")
    names = streams.select("stream", "abr", "cc")
    return table.join(names, on="stream", how="left", maintain_order="left").select(
        "stream",
        "video_ts",
        pl.col("time").alias("sent"),
        "acked",
        ((pl.col("acked") - pl.col("time")) / 1e9).alias("trans_time"),
        *CHUNK_TABLE,
        "abr",
        "cc",
    )


def chunk_table(day: Day | str | Path, *, cc: str | None = None) -> pl.DataFrame:
    """The chunks of a day with all that is known of them, in the units of the files.

    Args:
        day: The day or its folder.
        cc: Keep only streams over this congestion control.

    Returns:
        The same rows in the same order as ``Features.of_day``: stream, video_ts, sent and acked in
        ns, trans_time in s (the last two null where no acknowledgement came, or one at an
        impossible time), channel, format, size, ssim_index, the state of TCP, buffer and cum_rebuf
        as in the file (so with the startup delay; null before 2021-06-12), abr, cc.

    Raises:
        SchemaError, DamagedError, StorageError: As ``Features.of_day``.
    """
    table, streams, _ = chunks_of(DaySource(day, CHUNK_TABLE), cc)
    return described(table, streams)


def floats(column: pl.Series) -> np.ndarray:
    """Float64, missing values NaN."""
    pl = polars("reading a Puffer day")
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
