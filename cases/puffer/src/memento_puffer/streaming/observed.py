"""What is known of a day that is compared with published numbers: of files, or of a simulation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memento.errors import SchemaError
from memento.samples import Samples
from memento_puffer.data.blocks import BlockSource, Names
from memento_puffer.data.chunks import DaySource, chunks_of, floats
from memento_puffer.data.joins import client_events, viewers_of
from memento_puffer.data.layout import CHUNK_INPUTS
from memento_puffer.data.schema import Day, polars
from memento_puffer.quality import qoe
from memento_puffer.streaming.traces import Traces

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Observed"]

Floats = npt.NDArray[np.float64]

MB = 1e6
_COLUMNS = (*CHUNK_INPUTS, "ssim_index")
_PLAYED = ("startup", "watch", "stall", "considered")


@dataclass(frozen=True, eq=False)
class Observed:
    """What is known of a day; parts that are not known are None.

    Attributes:
        chunks: Sorted by stream and sending: ``stream`` (row of ``streams``), ``video_ts``,
            ``sent`` (ns), ``trans_time`` (s, NaN: not acknowledged), ``size`` (bytes),
            ``ssim_index``, ``cwnd``, ``in_flight`` (packets), ``min_rtt``, ``rtt`` (us),
            ``delivery_rate`` (bytes/s).
        streams: ``session`` (number), ``cold`` (the first of its session), ``scheme`` (name),
            ``startup``, ``watch``, ``stall`` (s, NaN if it never played) and ``considered``, as
            ``qoe.stream_statistics`` has them. Only those of which a chunk was sent.
        visits: How many sessions and streams began, also those without any chunk.
        encoded: Of each channel (chunks, formats) bytes and (chunks, formats) SSIM index, formats
            from small to large; NaN where missing.
        mean_rates: Mean rate of each session's path in bytes/s, which only a simulation knows.
        played: Whether startup, watch and stall are known.
    """

    chunks: Samples
    streams: Samples
    visits: tuple[int, int]
    encoded: Mapping[str, tuple[Floats, Floats]] | None = None
    mean_rates: Floats | None = None
    played: bool = True

    @classmethod
    def of_day(cls, day: Day | str | Path) -> Observed:
        """Read a day's files; those of clients and encodings may be absent.

        Raises:
            SchemaError, DamagedError, StorageError: As ``Features.of_day``.
        """
        pl = polars("calibrating a day")
        day = day if isinstance(day, Day) else Day(day)
        table, streams, _ = chunks_of(DaySource(day, _COLUMNS))
        m = len(streams)
        sessions = streams["session_id"].rank("dense").to_numpy().astype(np.int64) - 1
        streams = streams.with_columns(pl.Series("session", sessions))
        columns: dict[str, np.ndarray] = {
            "session": sessions,
            "cold": _first_of_session(streams),
            "scheme": np.array([name or "?" for name in streams["abr"].to_list()], dtype=str),
            **{name: np.full(m, np.nan) for name in ("startup", "watch", "stall")},
            "considered": np.zeros(m, bool),
        }
        played = "client_buffer" in day.files
        visits = (streams["session"].n_unique(), m)
        if played:
            statistics = qoe.statistics_of_events(client_events(day, streams))
            for name in _PLAYED:
                columns[name][statistics["stream"]] = statistics[name]
            both = day.scan("client_buffer").select("session_id", "index").unique()
            counts = both.select(pl.col("session_id").n_unique(), pl.len())
            visits = day.collect("client_buffer", counts).row(0)
        truth = viewers_of(day)
        rates = None
        if truth is not None and "mean_rate" in truth.columns:
            rates = truth["mean_rate"].to_numpy()
        encoded = _encoded_channels(day) if {"video_size", "ssim"} <= set(day.files) else None
        chunks = _chunk_columns(
            table.filter(pl.all_horizontal(pl.col(*CHUNK_INPUTS).is_not_null()))
        )
        return cls(chunks, Samples.borrow(columns), visits, encoded, rates, played)

    @classmethod
    def of_blocks(
        cls, blocks: Iterable[Any], simulation: Any, number: int | None = None
    ) -> Observed:
        """Take what a simulation gives; no files are written.

        Args:
            blocks: As ``simulation.day`` returns them, recorded "chunks" or "all".
            simulation: Names the schemes, and knows the content.
            number: Which day it is, to look at all of its content; None looks at none.
        """
        pl = polars("calibrating a day")
        parts: list[Any] = []
        rates = [np.empty(0)]

        def noted(blocks: Iterable[Any]) -> Iterator[Any]:
            for block in blocks:
                names = ("session", "index", *_PLAYED)
                parts.append(pl.DataFrame({name: block.streams[name] for name in names}))
                rates.append(np.asarray(block.sessions["mean_rate"], np.float64))
                yield block

        table, streams, _ = chunks_of(BlockSource(noted(blocks), Names(None, None, 0), _COLUMNS))
        if not parts:
            raise SchemaError("no blocks; simulate at least one session")
        begun = pl.concat(parts)
        # By session, not by time: a simulation's streams have numbers of their own.
        key = ["session", "index"]
        streams = streams.with_columns(pl.col("session_id").cast(pl.Int64).alias("session"))
        streams = streams.sort(key).join(begun, on=key, how="left", maintain_order="left")
        if streams["considered"].null_count():
            raise SchemaError("a chunk was sent to a stream that is not among the block's streams")
        place = np.empty(len(streams), np.int64)
        place[streams["stream"].to_numpy()] = np.arange(len(streams))
        labels = np.array([scheme.name for scheme in simulation.schemes], dtype=str)
        columns = {
            "session": streams["session"].to_numpy(),
            "cold": _first_of_session(streams),
            "scheme": labels[streams["expt_id"].to_numpy()],
            **{name: streams[name].to_numpy() for name in _PLAYED},
        }
        encoded = None
        if number is not None:
            encoded = {
                channel: simulation.content.day(number, position)
                for position, channel in enumerate(simulation.channels)
            }
        visits = (begun["session"].n_unique(), len(begun))
        chunks, mean_rates = _chunk_columns(table, place), np.concatenate(rates)
        return cls(chunks, Samples.borrow(columns), visits, encoded, mean_rates)

    def traces(self) -> Traces:
        """Send times and readings of every stream with a chunk."""
        chunks = self.chunks
        if not chunks.size:
            raise SchemaError("no chunks; calibrate a day on which some were sent")
        stream = chunks["stream"]
        starts = np.flatnonzero(np.diff(stream, prepend=-1))
        length = np.diff(np.r_[starts, len(stream)])
        begin = np.repeat(chunks["sent"][starts], length)
        return Traces(stream, (chunks["sent"] - begin) / 1e9, chunks["delivery_rate"] / MB)


def _first_of_session(streams: pl.DataFrame) -> np.ndarray:
    """Whether a stream has the least index of its session."""
    pl = polars("calibrating a day")
    least = pl.col("index") == pl.col("index").min().over("session")
    return streams.select(least).to_series().to_numpy()


def _chunk_columns(table: pl.DataFrame, place: np.ndarray | None = None) -> Samples:
    """Columns of chunks by stream, time of sending and video_ts.

    Args:
        table: See ``chunks.chunks_of``.
        place: Another number for each stream.
    """
    stream, sent = table["stream"].to_numpy(), table["time"].to_numpy()
    acked = table["acked"].fill_null(-1).to_numpy()
    columns = {
        "stream": stream if place is None else place[stream],
        "video_ts": table["video_ts"].to_numpy(),
        "sent": sent,
        "trans_time": np.where(acked >= 0, (acked - sent) / 1e9, np.nan),
        "ssim_index": floats(table["ssim_index"]),
        **{name: table[name].to_numpy() for name in CHUNK_INPUTS},
    }
    order = np.lexsort((columns["video_ts"], sent, columns["stream"]))
    return Samples.borrow({name: column[order] for name, column in columns.items()})


def _encoded_channels(day: Day) -> dict[str, tuple[Floats, Floats]]:
    """Sizes and SSIM of each channel as (chunks, formats), in the order of video_ts."""
    sizes = day.collect("video_size", day.scan("video_size").drop("time"))
    ssim = day.collect("ssim", day.scan("ssim").drop("time"))
    key = ["channel", "video_ts", "format"]
    table = sizes.unique(key, keep="last").join(ssim.unique(key, keep="last"), on=key, how="left")
    out = {}
    for (channel,), part in sorted(table.group_by("channel"), key=lambda pair: str(pair[0])):
        pl = polars("calibrating a day")
        ladder = part.group_by("format").agg(pl.mean("size")).sort("size", "format")["format"]
        wide = (
            part.pivot("format", index="video_ts", values=name).sort("video_ts")
            for name in ("size", "ssim_index")
        )
        by_format = [frame.select(ladder.to_list()).cast(pl.Float64).to_numpy() for frame in wide]
        out[str(channel)] = (by_format[0], by_format[1])
    return out
