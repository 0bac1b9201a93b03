"""How a day compares with what is published about Puffer: a tidy table of quantities.

    calibrate       a day's files, blocks of a simulation, or traces -> ``Calibration``
    Observed        what is compared: chunks, streams, sessions and content of a day
    selected        the streams that the published traces hold
    readings        delivery rates: spread, autocorrelation, repetitions, slow part
    gaps            times between the chunks sent to a stream
    outages         gaps after which a player catches up
    stalls          what players must have stalled, reconstructed from send times

``Calibration.table`` has a row for each published number: what was found, how the two compare, and
whether that lies within the stated tolerance. Nothing is fitted here: a simulator is tuned until
its rows hold, and a new day of real data is read the same way.

Sources: Yan et al., "Learning in situ: a randomized experiment in video streaming", NSDI 2020; the
normaliser of the predictor that Puffer trained on 2019-02-02 (moments of 13.5 million samples); the
chunk sizes in Puffer's server; the delivery rates of two Puffer days, 2021-10-17 and 2022-02-18.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memento.errors import SchemaError, SettingError
from memento.samples import Samples
from memento_puffer.data.features import STEP, features_and_chunks
from memento_puffer.data.joins import EVENTS, client_events, viewers_of
from memento_puffer.data.release import joined
from memento_puffer.data.schema import NOT_MEASURED, Day, polars
from memento_puffer.predictor.scores import quantiles
from memento_puffer.predictor.transmission import CLASSES, class_of
from memento_puffer.published import FOLDER, PRIMARY
from memento_puffer.quality import qoe
from memento_puffer.streaming.abr import BUFFER_SECONDS, CHUNK_SECONDS
from memento_puffer.streaming.traces import Traces

__all__ = [
    "Calibration",
    "Observed",
    "calibrate",
    "gaps",
    "outages",
    "readings",
    "selected",
    "stalls",
]

Floats = npt.NDArray[np.float64]
Found = dict[tuple[str, str, str], float]

MB = 1e6
_PACKET = 1500.0
# The published traces hold streams of at least this many chunks, of these mean rates in MB/s.
_LEAST_CHUNKS, _RATES = 50, (0.3, 3.6)
_LEAST_READING = 1e-4  # MB/s: readings of 0 have no logarithm
_LOW_READING = 0.02  # MB/s
_LAGS = (1, 2, 5, 10, 20)
_BLOCK = 30  # chunks: a minute
_LEAST_BLOCKS = 8  # of a stream whose slow part is looked at: of fewer, the correlation is biased
_SHORT_BLOCK, _SHORT_LEAST = 15, 120  # chunks: half a minute, four minutes
_LONG_GAP = 4.0  # s: two chunks' worth of video was played, none was asked for
_CATCH_UP, _CATCH_UP_GAPS = 1.8, 5  # s: mean of so many gaps of a player that is filling up
_WAITING = (1.9, 2.1)  # s: gaps of a player that waits for room in its buffer
_FILLED = 13.0  # s of video: the first fill is over
_BUCKETS = (0.5, 0.75, 1.25, 2.0, 2.75)  # MB/s, limits between groups of streams
_BUCKET_NAMES = ("0.3-0.5", "0.5-0.75", "0.75-1.25", "1.25-2", "2-2.75", "2.75-3.6")
_EVENTS_AT_ONCE = 1 << 20

_FUGU = "Yan et al. 2020"
# Shares of sessions whose mean rates are published.
_PATHS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8),
    *(0.9, 0.95, 0.98, 0.99),
)
_UNITS = {"stall ratio": "%", "SSIM": "dB"}


class Published(NamedTuple):
    """A published number.

    Attributes:
        section: What it is about.
        quantity: What it says, with its unit.
        group: A scheme, or a range of rates in MB/s; "" for all.
        value: The number.
        tolerance: The largest factor between the two numbers ("ratio"), or the largest absolute
            difference ("difference").
        how: "ratio" or "difference".
        source: Where it is published.
        low: Lower end of its 95 % interval; NaN if none is published.
        high: Upper end.
    """

    section: str
    quantity: str
    group: str
    value: float
    tolerance: float
    how: str
    source: str
    low: float = np.nan
    high: float = np.nan


# ----------------------------------------------------------------------------------------------
# Traces: send times and readings of streams


def selected(traces: Traces) -> Traces | None:
    """The streams that the published traces hold: >= 50 chunks, mean rate in [0.3, 3.6) MB/s.

    Returns:
        They in their order; None if there are none.

    Example:
        >>> traces = Traces([1] * 50 + [2] * 50, np.r_[0:50, 0:50], [1.0] * 50 + [9.0] * 50)
        >>> selected(traces)
        <Traces of 1 streams, 50 chunks>
    """
    length, mean = np.diff(traces.offsets), _per_stream(traces, traces.rate).mean
    rows = np.flatnonzero((length >= _LEAST_CHUNKS) & (mean >= _RATES[0]) & (mean < _RATES[1]))
    return traces.take(rows) if len(rows) else None


def readings(traces: Traces) -> dict[str, float]:
    """Statistics of delivery rates, over streams unless they are named otherwise.

    Args:
        traces: Of streams with two chunks or more.

    Returns:
        By name, NaN where no stream is long enough: ``mean``, ``CV`` (standard deviation over
        mean), ``sd of log``, ``chunks``, each ``p1`` to ``p99``; ``share below`` 0.5, 0.75, 1 MB/s;
        ``rate, lag k`` and ``log rate, lag k``, autocorrelations, ``p25``, ``p50``, ``p75``;
        ``ratio to median`` (over readings); ``low``, share below 20 kB/s in the median stream;
        ``repeated`` (over readings), ``repeated, streams``; ``first`` reading (MB/s); ``change of
        log``, its sd where readings are not repeated; ``slow sd`` (of the log of medians of 30
        chunks), ``slow lag 1`` and ``slow change`` (|change| from one to the next), in streams with
        at least 8 of these; ``low blocks`` (share of medians of 15 chunks below a quarter of the
        stream's median, in streams of at least 120 chunks) and ``streams with low blocks``; ``Hill
        exponent`` of the longest tenth of durations.
    """
    out: dict[str, float] = {}
    rate = traces.rate.astype(np.float64)
    log = np.log(np.maximum(rate, _LEAST_READING))
    offsets = traces.offsets
    length, count = np.diff(offsets), traces.streams
    of_rate, of_log = _per_stream(traces, rate), _per_stream(traces, log)
    spread = (1, 5, 10, 25, 50, 75, 90, 95, 99)
    _spread(out, "mean", of_rate.mean, spread)
    _spread(out, "CV", of_rate.sd / np.where(of_rate.mean > 0, of_rate.mean, np.nan), spread)
    _spread(out, "sd of log", of_log.sd, spread)
    _spread(out, "chunks", length, spread)
    for limit in (0.5, 0.75, 1.0):
        out[f"share below {limit:g}"] = float((of_rate.mean < limit).mean())
    stream = np.repeat(np.arange(count), length)
    for name, values, moments in (("rate", rate, of_rate), ("log rate", log, of_log)):
        centred = values - moments.mean[stream]
        power = np.bincount(stream, centred**2, minlength=count)
        for lag in _LAGS:
            same = stream[lag:] == stream[:-lag]
            product = np.where(same, centred[lag:] * centred[:-lag], 0.0)
            there = (length > lag + 1) & (power > 1e-12 * length)
            above = np.bincount(stream[lag:], product, minlength=count)[there]
            _spread(out, f"{name}, lag {lag}", above / power[there], (25, 50, 75))

    median = _medians(traces, rate)
    ratio = rate / np.where(median > 0, median, np.nan)[stream]
    _spread(out, "ratio to median", ratio, (0.1, 1, 5, 10, 25, 75, 90, 95, 99))
    share = np.bincount(stream, rate < _LOW_READING, minlength=count) / length
    _spread(out, "low", share, (50,))
    later = stream[1:] == stream[:-1]
    same_again = later & (traces.rate[1:] == traces.rate[:-1])
    out["repeated"] = _mean(same_again[later])
    several = length > 1
    repeats = np.bincount(stream[1:], same_again, minlength=count)[several] / (length[several] - 1)
    _spread(out, "repeated, streams", repeats, (50, 75, 95))
    _spread(out, "first", rate[offsets[:-1]], (5, 25, 50, 75, 95))
    changes = np.diff(log)[later & ~same_again]
    out["change of log"] = float(changes.std()) if len(changes) else np.nan

    log_median, owner = _blocks(
        np.where(rate > _LEAST_READING, rate, _LEAST_READING), traces, _BLOCK
    )
    log_median = np.log(log_median)
    blocks = np.bincount(owner, minlength=count)
    long = blocks >= _LEAST_BLOCKS
    kept = long[owner]
    log_median, owner = log_median[kept], owner[kept]
    centre = _ratios(np.bincount(owner, log_median, minlength=count), blocks)
    off = log_median - centre[owner]
    power = np.bincount(owner, off**2, minlength=count)
    _spread(out, "slow sd", np.sqrt(power[long] / blocks[long]), (10, 50, 90))
    same = owner[1:] == owner[:-1]
    product = np.bincount(owner[1:], np.where(same, off[1:] * off[:-1], 0.0), minlength=count)
    moves = long & (power > 1e-12)
    _spread(out, "slow lag 1", product[moves] / power[moves], (50,))
    _spread(out, "slow change", np.abs(np.diff(log_median))[same], (50, 90, 99, 99.9))

    short, owner = _blocks(rate, traces, _SHORT_BLOCK)
    kept = length[owner] >= _SHORT_LEAST
    low = short[kept] < 0.25 * median[owner[kept]]
    out["low blocks"] = _mean(low)
    some = np.bincount(owner[kept], low, minlength=count) > 0
    out["streams with low blocks"] = _mean(some[length >= _SHORT_LEAST])
    duration = np.sort(traces.seconds[offsets[1:] - 1])
    tail = count // 10
    out["Hill exponent"] = np.nan
    if tail and duration[-tail - 1] > 0:
        excess = np.log(duration[-tail:] / duration[-tail - 1]).mean()
        out["Hill exponent"] = float(1 / excess) if excess > 0 else np.nan
    return out


def gaps(traces: Traces) -> dict[str, float]:
    """Statistics of the times between chunks of a stream, in s.

    Returns:
        By name: ``gap`` ``p0.1`` to ``p99.99``; ``P(gap > x)``; ``streams with a gap > x``; ``first
        seven gaps``; ``first fill``, gaps until 13 s of video are buffered (each chunk brings
        2.002 s, and a gap takes its own length), and ``chunks until filled``. NaN without any.
    """
    out: dict[str, float] = {}
    stream, start, gap = _gaps(traces)
    _spread(out, "gap", gap, (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99))
    for limit in (2.5, 3, 4, 5, 7, 10, 15, 30):
        out[f"P(gap > {limit:g})"] = _mean(gap > limit)
    for limit in (4, 10, 15, 30):
        some = np.bincount(stream, gap > limit, minlength=traces.streams) > 0
        out[f"streams with a gap > {limit:g}"] = _mean(some)
    position = start - traces.offsets[stream]
    _spread(out, "first seven gaps", gap[position < 7], (5, 25, 50, 75, 90, 95, 99, 99.9))
    buffered = _buffered(stream, gap, np.zeros(len(gap), bool))
    first_gap = position == 0
    left = np.where(first_gap, 0.0, np.maximum(buffered - gap, 0.0))
    full = left + CHUNK_SECONDS >= _FILLED  # after the gap
    first = np.full(traces.streams, np.iinfo(np.int64).max)
    np.minimum.at(first, stream[full], position[full])
    filled = first < np.iinfo(np.int64).max
    filling = filled[stream] & (position <= first[stream])
    _spread(out, "first fill", gap[filling], (1, 5, 25, 50, 75, 90, 95, 99, 99.9))
    _spread(out, "chunks until filled", first[filled] + 1, (10, 50, 90, 99))
    return out


def outages(traces: Traces) -> Samples:
    """Gaps of more than 4 s after which the player catches up.

    It catches up if the following gaps, five of them or as many as there are, take less than 1.8 s
    in the mean: a chunk holds 2.002 s of video, so the buffer grows by a second or more. A pause
    looks otherwise.

    Returns:
        A row for each: ``stream`` (position in ``traces``), ``row`` (of the chunk that was sent
        last before it), ``duration`` in s.

    Example:
        >>> times = np.r_[0:20:2, 30.0, 30.5, 31.0, 31.5, 32.0, 32.5]
        >>> outages(Traces(np.zeros(16, int), times, np.ones(16)))["duration"]
        array([12.])
    """
    stream, start, gap = _gaps(traces)
    rows = np.flatnonzero((gap > _LONG_GAP) & _catches_up(stream, gap))
    return Samples.borrow(stream=stream[rows], row=start[rows], duration=gap[rows])


def stalls(traces: Traces) -> Samples:
    """Gaps longer than what was buffered, after which the player catches up (see ``outages``).

    The buffer is empty when the first chunk is sent, gains 2.002 s with each chunk and loses the
    length of each gap. A gap of 1.9 to 2.1 s says that the player waits for room: then 15 s are
    buffered, whatever was counted before. What a gap lasts beyond the buffer was a stall.

    Returns:
        A row for each: ``stream``, ``row`` as for ``outages``, ``duration`` in s.

    Example:
        >>> times = np.r_[0:20:2, 38.0, 38.5, 39.0, 39.5, 40.0, 40.5]
        >>> stalls(Traces(np.zeros(16, int), times, np.ones(16)))["duration"]
        array([5.])
    """
    stream, start, gap = _gaps(traces)
    waiting = (gap >= _WAITING[0]) & (gap <= _WAITING[1])
    short = gap - _buffered(stream, gap, waiting)
    first = start == traces.offsets[stream]  # nothing plays before the first chunk is there
    stalled = _catches_up(stream, gap) & (short > 0) & ~first
    rows = np.flatnonzero(stalled)
    return Samples.borrow(stream=stream[rows], row=start[rows], duration=short[rows])


# ----------------------------------------------------------------------------------------------
# What is compared


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
        features, table = features_and_chunks(day)
        streams = features.streams
        sessions = streams["session_id"].rank("dense").to_numpy().astype(np.int64) - 1
        whole = table.filter(
            pl.all_horizontal(pl.col(*_TCP, "size").is_not_null())
        )  # fmt: skip
        chunks = {
            name: whole[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            for name in ("trans_time", "ssim_index")
        }
        whole_numbers = ("stream", "video_ts", "sent", "size", *_TCP)
        chunks |= {name: whole[name].to_numpy() for name in whole_numbers}
        del table, whole, features
        m = len(streams)
        columns: dict[str, np.ndarray] = {
            "session": sessions,
            "cold": _first_of_each(sessions, streams["index"].to_numpy()),
            "scheme": np.array([name or "?" for name in streams["abr"].to_list()], dtype=str),
            **{name: np.full(m, np.nan) for name in ("startup", "watch", "stall")},
            "considered": np.zeros(m, bool),
        }
        played = "client_buffer" in day.files
        visits = (len(np.unique(sessions)), m)
        if played:
            _add_statistics(columns, day, streams)
            both = day.scan("client_buffer").select("session_id", "index").unique()
            counts = both.select(pl.col("session_id").n_unique(), pl.len())
            visits = day.collect("client_buffer", counts).row(0)
        truth = viewers_of(day)
        rates = None
        if truth is not None and "mean_rate" in truth.columns:
            rates = truth["mean_rate"].to_numpy()
        encoded = None
        if {"video_size", "ssim"} <= set(day.files):
            encoded = _encoded(day)
        return cls(_in_order(chunks), Samples.borrow(columns), visits, encoded, rates, played)

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
        sent, found, rates = [], [], []
        before = sessions = begun = 0
        for block in blocks:
            table, streams = joined(block), block.streams
            sessions += len(np.unique(streams["session"]))
            begun += len(streams["session"])
            here = _numbered(table["session"], table["index"])
            # Streams without any chunk are left out, as they are where files are read.
            key = np.stack((streams["session"], streams["index"]))
            order = np.lexsort(key[::-1])
            place = _positions(here.session, here.place, key[:, order])
            rows = order[place]
            part = {name: table[name] for name in _CHUNK_NAMES if name != "stream"}
            sent.append({**part, "stream": here.of_row + before})
            found.append({name: np.asarray(streams[name])[rows] for name in _STREAM_NAMES})
            rates.append(np.asarray(block.sessions["mean_rate"], np.float64))
            before += len(rows)
        if not sent:
            raise SchemaError("no blocks; simulate at least one session")
        chunks = {name: np.concatenate([part[name] for part in sent]) for name in sent[0]}
        columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        labels = np.array([scheme.name for scheme in simulation.schemes], dtype=str)
        columns["scheme"] = labels[columns["scheme"]]
        columns["cold"] = _first_of_each(columns["session"], columns.pop("index"))
        encoded = None
        if number is not None:
            encoded = {}
            for position, channel in enumerate(simulation.channels):
                sizes, ssim = simulation.content.day(number, position)
                encoded[channel] = (sizes, ssim)
        mean_rates = np.concatenate(rates)
        visits = (sessions, begun)
        return cls(_in_order(chunks), Samples.borrow(columns), visits, encoded, mean_rates)

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


_TCP = ("cwnd", "in_flight", "min_rtt", "rtt", "delivery_rate")
_CHUNK_NAMES = ("stream", "video_ts", "sent", "trans_time", "size", "ssim_index", *_TCP)
_STREAM_NAMES = ("session", "index", "scheme", "startup", "watch", "stall", "considered")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Published numbers beside what was found.

    Attributes:
        table: A row for each published number: ``section``, ``quantity``, ``group`` (scheme or
            range of rates, "" for all), ``published``, ``found`` (NaN where the day does not say),
            ``low`` and ``high`` (95 % interval of what was found, NaN where none was made),
            ``ratio`` found / published, ``difference`` found - published, ``how`` ("ratio" or
            "difference": by which of the two it is judged), ``tolerance``, ``within``, ``source``.
    """

    table: Samples = field(repr=False)

    @property
    def within(self) -> tuple[int, int]:
        """How many rows lie within their tolerance, and how many were found at all."""
        there = ~np.isnan(self.table["found"])
        return int((self.table["within"] & there).sum()), int(there.sum())

    @property
    def disagreements(self) -> list[str]:
        """Pairs of schemes that do not stand in the published order, "measure: a < b"."""
        rows = (self.table["section"] == "orderings") & ~self.table["within"]
        rows &= ~np.isnan(self.table["found"])
        table = self.table.take(rows)
        return [f"{q}: {g}" for q, g in zip(table["quantity"], table["group"], strict=True)]

    def to_table(self) -> dict[str, list[Any]]:
        """Columns as lists of plain values."""
        return {name: column.tolist() for name, column in self.table.items()}

    def to_markdown(self, *sections: str) -> str:
        """The table, one heading and a table for each section.

        Args:
            sections: Which; all if none is named.

        Raises:
            SettingError: There is no such section.
        """
        known = list(dict.fromkeys(self.table["section"].tolist()))
        if unknown := [name for name in sections if name not in known]:
            raise SettingError(f"section {unknown[0]!r}; give some of {', '.join(known)}")
        lines = []
        for section in sections or known:
            lines += ["", f"### {section.capitalize()}", ""]
            lines += ["| quantity | group | published | found | compared | | source |"]
            lines += ["|---|---|---|---|---|---|---|"]
            part = self.table.take(self.table["section"] == section)
            for i in range(part.size):
                row = {name: part[name][i] for name in part}
                found = "-" if np.isnan(row["found"]) else f"{row['found']:.4g}"
                if not np.isnan(row["low"]):
                    found += f" [{row['low']:.4g}, {row['high']:.4g}]"
                compared, verdict = "-", "not known"
                if not np.isnan(row["found"]):
                    times = row["how"] == "ratio"
                    compared = f"x {row['ratio']:.2f}" if times else f"{row['difference']:+.3g}"
                    verdict = "within" if row["within"] else "**off**"
                cells = (row["quantity"], row["group"], f"{row['published']:.4g}", found)
                lines.append(f"| {' | '.join(map(str, cells))} | {compared} | {verdict} | "
                             f"{row['source']} |")  # fmt: skip
        return "\n".join(lines).lstrip("\n") + "\n"

    def __repr__(self) -> str:
        within, found = self.within
        return f"<Calibration: {within} of {found} numbers within their tolerance>"


def calibrate(
    source: Observed | Traces | Day | str | Path,
    *,
    rng: np.random.Generator | None = None,
    realisations: int = 1000,
    schemes: Mapping[str, str] = PRIMARY,
) -> Calibration:
    """Compare a day with what is published.

    Args:
        source: A day or its folder; what ``Observed.of_blocks`` made; or ``Traces``, for the
            numbers that follow from send times and readings alone.
        rng: Draws the intervals of schemes; a generator seeded with 0 if left out.
        realisations: How many, see ``qoe.scheme_statistics``.
        schemes: What the schemes of the settings are called in the published comparison.

    Raises:
        SchemaError, DamagedError, StorageError: As ``Observed.of_day``.
        SettingError: No realisations.

    Example:
        >>> times = np.tile(np.arange(60) * 2.0, 3)
        >>> traces = Traces(np.repeat([0, 1, 2], 60), times, np.full(180, 1.5))
        >>> table = calibrate(traces).table
        >>> row = table["quantity"] == "gap p50, s"
        >>> table["published"][row], table["found"][row], table["within"][row]
        (array([2.]), array([2.]), array([ True]))
    """
    found: Found = {}
    intervals: dict[tuple[str, str, str], tuple[float, float]] = {}
    published = list(PUBLISHED)
    if isinstance(source, (str, Path, Day)):
        source = Observed.of_day(source)
    if isinstance(source, Observed):
        rng = rng if rng is not None else np.random.default_rng(0)
        _find_chunks(source, found)
        _find_content(source, found)
        _find_viewers(source, found)
        _find_paths(source, found)
        _find_schemes(source, found, intervals, published, schemes, rng, realisations)
        traces = selected(source.traces())
    else:
        traces = selected(source)
    if traces is not None:
        _find_traces(traces, found)
    rows: dict[str, list[Any]] = {name: [] for name in _TABLE}
    for one in published:
        key = (one.section, one.quantity, one.group)
        value = found.get(key, np.nan)
        low, high = intervals.get(key, (np.nan, np.nan))
        ratio = value / one.value if one.value else np.nan
        difference = value - one.value
        if one.how == "ratio":
            within = 1 / one.tolerance <= ratio <= one.tolerance
        else:
            within = abs(difference) <= one.tolerance
        cells: list[Any] = [one.section, one.quantity, one.group, one.value, value, low, high]
        cells += [ratio, difference, one.how, one.tolerance, bool(within), one.source]
        for name, cell in zip(_TABLE, cells, strict=True):
            rows[name].append(cell)
    return Calibration(Samples.borrow({name: np.array(cells) for name, cells in rows.items()}))


_TABLE = (
    *("section", "quantity", "group", "published", "found", "low", "high", "ratio"),
    *("difference", "how", "tolerance", "within", "source"),
)


# ----------------------------------------------------------------------------------------------
# What was found


def _find_chunks(observed: Observed, found: Found) -> None:
    chunks = observed.chunks
    took = chunks["trans_time"]
    acked = ~np.isnan(took)
    units = {
        "delivery_rate, packets/s": ("delivery_rate", _PACKET),
        "cwnd, packets": ("cwnd", 1.0),
        "in_flight, packets": ("in_flight", 1.0),
        "min_rtt, s": ("min_rtt", 1e6),
        "rtt, s": ("rtt", 1e6),
        "size, packets": ("size", _PACKET),
    }
    for quantity, (name, unit) in units.items():
        rows = acked & (chunks[name] != NOT_MEASURED) if name == "min_rtt" else acked
        values = chunks[name][rows] / unit
        if len(values):
            found["chunks", f"{quantity}, mean", ""] = float(values.mean())
            found["chunks", f"{quantity}, sd", ""] = float(values.std())
    # As in inputs of the predictor: 0 where there is no chunk before.
    before = np.zeros(len(took))
    follows = np.zeros(len(took), bool)
    follows[1:] = (chunks["stream"][1:] == chunks["stream"][:-1]) & acked[:-1]
    follows[1:] &= np.diff(chunks["video_ts"]) == STEP
    before[1:] = np.where(follows[1:], took[:-1], 0.0)
    if acked.any():
        found["chunks", "previous trans_time, s, mean", ""] = float(before[acked].mean())
        found["chunks", "previous trans_time, s, sd", ""] = float(before[acked].std())
        classes = np.bincount(class_of(took[acked]), minlength=CLASSES) / acked.sum()
        for k in (0, 1, 2, 20):
            found["chunks", f"trans_time, share of class {k}", ""] = float(classes[k])


def _find_content(observed: Observed, found: Found) -> None:
    if not observed.encoded:
        return
    tables = list(observed.encoded.values())
    rungs = min(sizes.shape[1] for sizes, _ in tables)
    smallest, adjacent, correlations, spreads, with_quality = [], [], [], [], []
    size_means = np.array([np.nanmean(sizes[:, :rungs], axis=0) for sizes, _ in tables])
    ssim_means = np.array([np.nanmean(ssim[:, :rungs], axis=0) for _, ssim in tables])
    for k in range(rungs):
        found["content", f"rung {k}, mean bytes", ""] = float(size_means[:, k].mean())
        mean = ssim_means[:, k].mean()
        found["content", f"rung {k}, dB of mean SSIM", ""] = float(qoe.quality(mean))
    for sizes, ssim in tables:
        q = qoe.quality(ssim[:, 0])
        smallest.append(q[np.isfinite(q)])
        log = np.log(sizes)
        adjacent.append(np.diff(log, axis=1).ravel())
        scene = log.mean(axis=1)
        there = np.isfinite(scene) & np.isfinite(q)
        # Encoders that skip a chunk leave a hole; few enough to close it.
        scene, q = scene[there], q[there]
        if len(scene) > 2:
            spreads.append(scene.std())
            correlations.append(np.corrcoef(scene[1:], scene[:-1])[0, 1])
            with_quality.append(np.corrcoef(scene, q)[0, 1])
    low = np.concatenate(smallest)
    part: dict[str, float] = {}
    _spread(part, "smallest rung, dB", low, (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9))
    for name, value in part.items():
        found["content", name, ""] = value
    found["content", "smallest rung, dB, mean", ""] = _mean(low)
    found["content", "smallest rung, dB, sd", ""] = float(low.std()) if len(low) else np.nan
    steps = np.exp(np.concatenate(adjacent))
    steps = steps[np.isfinite(steps)]
    inside = (steps >= 1.2) & (steps <= 2.9)
    found["content", "size of a rung / the one below in [1.2, 2.9], share", ""] = _mean(inside)
    found["content", "log scene factor, sd", ""] = _mean(np.array(spreads))
    found["content", "log scene factor, lag 1", ""] = _mean(np.array(correlations))
    found["content", "log scene factor with dB, correlation", ""] = _mean(np.array(with_quality))


def _find_viewers(observed: Observed, found: Found) -> None:
    streams = observed.streams
    if not observed.played or not streams.size:
        return
    there = np.where(np.isnan(streams["watch"]), 0.0, streams["watch"] + streams["startup"])
    session = np.unique(streams["session"], return_inverse=True)[1]
    on_site = np.bincount(session, there)
    on_site = on_site[on_site > 0]
    part: dict[str, float] = {}
    _spread(part, "time on site, s", on_site, (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9))
    part["time on site, s, mean"] = _mean(on_site)
    sessions, begun = observed.visits
    part["streams per session"] = begun / sessions
    part["streams watched < 4 s, share"] = 1 - streams["considered"].sum() / begun
    considered = streams.take(streams["considered"])
    part["watch of considered streams, s, mean"] = _mean(considered["watch"])
    part["considered streams with a stall, share"] = _mean(considered["stall"] > 0)
    cold = streams["startup"][streams["cold"]]
    cold = cold[~np.isnan(cold)]
    _spread(part, "startup delay, s", cold, (5, 25, 50, 75, 90, 95, 99, 99.9))
    part["startup delay, s, mean"] = _mean(cold)
    for name, value in part.items():
        found["viewers", name, ""] = value


def _find_paths(observed: Observed, found: Found) -> None:
    chunks, streams = observed.chunks, observed.streams
    m = streams.size
    rate, count = chunks["delivery_rate"].astype(np.float64), chunks["stream"]
    total = np.bincount(count, rate, minlength=m)
    number = np.bincount(count, minlength=m)
    means = observed.mean_rates
    if means is None:
        session = np.unique(streams["session"], return_inverse=True)[1]
        means = _ratios(np.bincount(session, total), np.bincount(session, number))
    part: dict[str, float] = {}
    _spread(part, "session mean, Mbit/s", 8 * means / MB, tuple(100 * p for p in _PATHS))
    for name, value in part.items():
        found["paths", name, ""] = value
    if not observed.played:
        return
    kept = streams["considered"] & (number > 0)
    slow = kept & (_ratios(total, number) <= qoe.SLOW_RATE)
    watch, stall = streams["watch"], streams["stall"]
    found["paths", "slow streams, share", ""] = _share(slow, kept, np.ones(m))
    found["paths", "slow streams, share of watch time", ""] = _share(slow, kept, watch)
    found["paths", "slow streams, share of stall time", ""] = _share(slow, kept, stall)


def _find_traces(traces: Traces, found: Found) -> None:
    for name, value in readings(traces).items():
        found["readings", name, ""] = value
    for name, value in gaps(traces).items():
        found["gaps", f"{name}, s" if _is_seconds(name) else name, ""] = value
    mean = _per_stream(traces, traces.rate).mean
    bucket = np.digitize(mean, _BUCKETS)
    length = np.diff(traces.offsets)
    duration = traces.seconds[traces.offsets[1:] - 1]
    events, part = outages(traces), {}
    some = np.bincount(events["stream"], minlength=traces.streams)
    part["streams with one, share"] = _mean(some > 0)
    part["per 1000 chunks"] = 1000 * events.size / traces.size
    part["per hour"] = 3600 * events.size / duration.sum() if duration.sum() else np.nan
    _spread(part, "duration, s", events["duration"], (50, 75, 90, 99))
    for name, value in part.items():
        found["outages", name, ""] = value
    stalled = stalls(traces)
    time = np.bincount(stalled["stream"], stalled["duration"], minlength=traces.streams)
    for k, group in enumerate(_BUCKET_NAMES):
        own = bucket == k
        if not own.any():
            continue
        found["outages", "per 1000 chunks", group] = 1000 * some[own].sum() / length[own].sum()
        found["stalls", "streams with one, share", group] = _mean(time[own] > 0)
        found["stalls", "% of time", group] = _percent(time[own].sum(), duration[own].sum())
    part = {"streams with one, share": _mean(time > 0)}
    part["% of time"] = _percent(time.sum(), duration.sum())
    _spread(part, "duration, s", stalled["duration"], (50, 75, 90, 99))
    worst = np.sort(time)[::-1][: max(1, len(time) // 100)]
    part["share of the worst 1 % of streams"] = worst.sum() / time.sum() if time.any() else np.nan
    for name, value in part.items():
        found["stalls", name, ""] = value


def _find_schemes(
    observed: Observed,
    found: Found,
    intervals: dict[tuple[str, str, str], tuple[float, float]],
    published: list[Published],
    names: Mapping[str, str],
    rng: np.random.Generator,
    realisations: int,
) -> None:
    if not observed.played:
        return
    chunks, streams = observed.chunks, observed.streams
    with_chunks = np.unique(chunks["stream"])
    kept = np.zeros(streams.size, bool)
    kept[with_chunks] = streams["considered"][with_chunks] & (streams["stall"][with_chunks] >= 0)
    if not kept.any():
        return
    rows = kept[chunks["stream"]]
    own = Samples.borrow(
        {name: chunks[name][rows] for name in ("stream", "ssim_index", "size", "delivery_rate")}
    )
    of = qoe.quality_statistics(own)
    part = streams.take(of["stream"]).select(("scheme", "watch", "stall", "cold"))
    part = part.with_columns({n: of[n] for n in ("ssim", "delta_ssim", "slow", "bitrate")})
    part = part.take(~np.isnan(part["ssim"]))
    first = np.flatnonzero(np.diff(chunks["stream"], prepend=-1))
    first = first[streams["cold"][chunks["stream"][first]]]
    first_q = qoe.quality(chunks["ssim_index"][first])
    first_scheme = streams["scheme"][chunks["stream"][first]]
    measured: dict[str, dict[str, tuple[float, float, float]]] = {"stall ratio": {}, "SSIM": {}}
    for suffix, table in (("", part), (", slow paths", part.take(part["slow"]))):
        if not table.size:
            continue
        one = qoe.scheme_statistics(
            table.select(("scheme", "watch", "stall", "ssim", "delta_ssim")),
            rng=rng,
            realisations=realisations,
            watch_times=None,
        )
        for i, scheme in enumerate(one["scheme"]):
            scheme = str(scheme)
            columns = {
                f"stall ratio{suffix}, %": ("stall_ratio", "stall_low", "stall_high", 100.0),
                f"SSIM{suffix}, dB": ("ssim", "ssim_low", "ssim_high", 1.0),
            }
            if not suffix:
                columns["change of SSIM, dB"] = (
                    *("delta_ssim", "delta_ssim_low", "delta_ssim_high"), 1.0,
                )  # fmt: skip
            for quantity, (value, low, high, scale) in columns.items():
                key = ("schemes", quantity, scheme)
                found[key] = scale * float(one[value][i])
                intervals[key] = (scale * float(one[low][i]), scale * float(one[high][i]))
                short = quantity.split(",")[0]
                if not suffix and short in measured:
                    measured[short][scheme] = (found[key], *intervals[key])
    for scheme in np.unique(part["scheme"]):
        name, mine = str(scheme), part["scheme"] == scheme
        rate = np.average(part["bitrate"][mine], weights=part["watch"][mine]) / MB
        found["schemes", "bitrate, Mbit/s", name] = float(rate)
        q = first_q[(first_scheme == scheme) & np.isfinite(first_q)]
        found["schemes", "first chunk, dB", name] = _mean(q)
        delay = streams["startup"][streams["cold"] & (streams["scheme"] == scheme)]
        found["schemes", "startup delay, s", name] = _mean(delay[~np.isnan(delay)])
    present = [str(s) for s in np.unique(streams["scheme"]) if str(s) in names]
    for scheme in present:
        rows = [row for row in _SCHEMES if row.group == names[scheme]]
        published += [row._replace(group=scheme, low=np.nan, high=np.nan) for row in rows]
    for measure, found_here in measured.items():
        bounds = {
            row.group: row for row in _SCHEMES if row.quantity == f"{measure}, {_UNITS[measure]}"
        }
        for a in present:
            for b in present:
                # Only what is told apart by the published intervals is an order.
                if bounds[names[a]].high >= bounds[names[b]].low:
                    continue
                key = ("orderings", measure, f"{a} < {b}")
                published.append(Published(*key, 1.0, 0.0, "difference", _FUGU))
                if a in found_here and b in found_here:
                    found[key] = float(found_here[a][0] < found_here[b][0])


# ----------------------------------------------------------------------------------------------
# Parts of the above


class _Moments(NamedTuple):
    mean: Floats
    sd: Floats


def _per_stream(traces: Traces, values: np.ndarray) -> _Moments:
    offsets, x = traces.offsets, np.asarray(values, np.float64)
    length = np.diff(offsets)
    mean = np.add.reduceat(x, offsets[:-1]) / length
    off = x - np.repeat(mean, length)
    return _Moments(mean, np.sqrt(np.add.reduceat(off**2, offsets[:-1]) / length))


def _medians(traces: Traces, values: Floats) -> Floats:
    offsets = traces.offsets
    length = np.diff(offsets)
    stream = np.repeat(np.arange(traces.streams), length)
    ranked = values[np.lexsort((values, stream))]
    low, high = offsets[:-1] + (length - 1) // 2, offsets[:-1] + length // 2
    return np.asarray((ranked[low] + ranked[high]) / 2)


def _blocks(values: Floats, traces: Traces, size: int) -> tuple[Floats, np.ndarray]:
    """Medians of ``size`` consecutive chunks of a stream, and the stream of each."""
    offsets = traces.offsets
    number = np.diff(offsets) // size
    of = np.repeat(np.arange(traces.streams), number)
    within = np.arange(len(of)) - np.repeat(np.cumsum(number) - number, number)
    first = offsets[of] + within * size
    if not len(of):
        return np.empty(0), of
    return np.median(values[first[:, None] + np.arange(size)], axis=1), of


def _gaps(traces: Traces) -> tuple[np.ndarray, np.ndarray, Floats]:
    """Stream of each gap, the row of the chunk sent before it, and its length in s."""
    stream = np.repeat(np.arange(traces.streams), np.diff(traces.offsets))
    start = np.flatnonzero(stream[1:] == stream[:-1])
    return stream[start], start, traces.seconds[start + 1] - traces.seconds[start]


def _catches_up(stream: np.ndarray, gap: Floats) -> np.ndarray:
    """Whether the gaps after each one are those of a player that is filling up."""
    n = len(gap)
    upto = np.r_[0.0, np.cumsum(gap)]
    end = np.searchsorted(stream, stream, side="right")  # of the stream
    last = np.minimum(np.arange(n) + 1 + _CATCH_UP_GAPS, end)
    number = last - np.arange(n) - 1
    total = upto[last] - upto[np.arange(1, n + 1)]
    return (number > 0) & (total < _CATCH_UP * number)


def _buffered(stream: np.ndarray, gap: Floats, waiting: np.ndarray) -> Floats:
    """Seconds of video buffered when each gap begins.

    Above what the newest chunk brings it is a queue, c' = max(c + 2.002 - gap, 0), whose solution
    is a sum less its running minimum (Lindley). Runs begin with a stream, empty, and after each gap
    spent waiting, full.
    """
    n = len(gap)
    if not n:
        return np.empty(0)
    begins = np.ones(n, bool)
    new = np.ones(n, bool)
    new[1:] = stream[1:] != stream[:-1]
    begins[1:] = new[1:] | (waiting[:-1] & ~new[:-1])
    starts = np.flatnonzero(begins)
    # A stream's first chunk finds nothing, so its gap ends with what that chunk brought.
    level = np.where(new[starts], 0.0, BUFFER_SECONDS - CHUNK_SECONDS)
    change = CHUNK_SECONDS - gap
    change[new] = 0.0
    run = np.cumsum(begins) - 1
    total = np.cumsum(change) - change
    total = total - total[starts][run] + level[run]  # at the beginning of each gap, had it no floor
    # Each run lies below all before, so that one running minimum serves all.
    reach = np.add.reduceat(np.abs(change), starts) + BUFFER_SECONDS
    base = reach - np.cumsum(reach)
    # The floor of 0 holds within the run only, from its second gap on.
    floor = np.minimum(total, 0.0) + base[run]
    lowest = np.minimum.accumulate(floor) - base[run]
    buffered = total - lowest + CHUNK_SECONDS
    buffered[new] = 0.0
    return np.asarray(buffered)


def _spread(
    out: dict[str, float], name: str, values: npt.ArrayLike, percent: Sequence[float]
) -> None:
    """Quantiles of what is not NaN, by name."""
    for p, value in zip(percent, quantiles(values, [p / 100 for p in percent]), strict=True):
        out[f"{name} p{p:g}"] = float(value)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _ratios(above: np.ndarray, below: np.ndarray) -> Floats:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _percent(above: float, below: float) -> float:
    return float(100 * above / below) if below > 0 else float("nan")


def _share(part: np.ndarray, whole: np.ndarray, weight: Floats) -> float:
    total = weight[whole].sum()
    return float(weight[part].sum() / total) if total > 0 else float("nan")


def _is_seconds(name: str) -> bool:
    return name.startswith(("gap p", "first seven gaps", "first fill"))


def _in_order(chunks: Mapping[str, np.ndarray]) -> Samples:
    order = np.lexsort((chunks["video_ts"], chunks["sent"], chunks["stream"]))
    return Samples.borrow({name: column[order] for name, column in chunks.items()})


class _Numbered(NamedTuple):
    of_row: np.ndarray
    session: np.ndarray
    place: np.ndarray


def _numbered(session: np.ndarray, index: np.ndarray) -> _Numbered:
    """Number the pairs that occur, in ascending order."""
    order = np.lexsort((index, session))
    s, i = session[order], index[order]
    new = np.ones(len(s), bool)
    new[1:] = (s[1:] != s[:-1]) | (i[1:] != i[:-1])
    of_row = np.empty(len(s), np.int64)
    of_row[order] = np.cumsum(new) - 1
    return _Numbered(of_row, s[new], i[new])


def _positions(session: np.ndarray, index: np.ndarray, sorted_pairs: np.ndarray) -> np.ndarray:
    """Where pairs stand among sorted ones.

    Raises:
        SchemaError: One is not there.
    """
    factor = 1 + max((int(a.max()) for a in (index, sorted_pairs[1]) if len(a)), default=0)
    wanted = session.astype(np.int64) * factor + index
    there = sorted_pairs[0].astype(np.int64) * factor + sorted_pairs[1]
    place = np.minimum(np.searchsorted(there, wanted), max(0, len(there) - 1))
    if len(wanted) and (not len(there) or (there[place] != wanted).any()):
        raise SchemaError("a chunk was sent to a stream that is not among the block's streams")
    return place


def _first_of_each(session: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Whether a stream has the least index of its session."""
    order = np.lexsort((index, session))
    first = np.zeros(len(session), bool)
    first[order[np.flatnonzero(np.diff(session[order], prepend=-1))]] = True
    return first


def _add_statistics(columns: dict[str, np.ndarray], day: Day, streams: Any) -> None:
    """Watch and stall times from the messages of clients, some streams at a time."""
    events = client_events(day, streams)
    bounds, names = events.bounds(), np.array(EVENTS)
    for first, last in _parts(bounds, _EVENTS_AT_ONCE):
        part = slice(bounds[first], bounds[last])
        if part.start == part.stop:
            continue
        found = qoe.stream_statistics(
            {
                "stream": events.stream[part],
                "time": events.time[part],
                "event": names[events.event[part]],
                "buffer": events.buffer[part],
                "cum_rebuf": events.cum_rebuf[part],
            }
        )
        rows = found["stream"]
        for name in ("startup", "watch", "stall", "considered"):
            columns[name][rows] = found[name]


def _parts(bounds: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of streams with about ``size`` rows, one stream at least."""
    first, count = 0, len(bounds) - 1
    while first < count:
        last = int(np.searchsorted(bounds, bounds[first] + size, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def _encoded(day: Day) -> dict[str, tuple[Floats, Floats]]:
    """Sizes and SSIM of each channel as (chunks, formats), in the order of video_ts."""
    pl = polars("calibrating a day")
    sizes = day.collect("video_size", day.scan("video_size").drop("time"))
    ssim = day.collect("ssim", day.scan("ssim").drop("time"))
    key = ["channel", "video_ts", "format"]
    table = sizes.unique(key, keep="last").join(ssim.unique(key, keep="last"), on=key, how="left")
    out = {}
    for (channel,), part in sorted(table.group_by("channel"), key=lambda pair: str(pair[0])):
        ladder = part.group_by("format").agg(pl.mean("size")).sort("size", "format")["format"]
        _, row = np.unique(part["video_ts"].to_numpy(), return_inverse=True)
        place = {name: k for k, name in enumerate(ladder)}
        column = part["format"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
        shape = (int(row.max()) + 1, len(ladder))
        both = []
        for name in ("size", "ssim_index"):
            values = np.full(shape, np.nan)
            values[row, column] = part[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            both.append(values)
        out[str(channel)] = (both[0], both[1])
    return out


# ----------------------------------------------------------------------------------------------
# What is published


def _read() -> Iterator[Published]:
    with open(FOLDER / "calibration.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = ("value", "tolerance", "low", "high")
            typed: dict[str, Any] = {**row, **{name: float(row[name] or "nan") for name in numbers}}
            yield Published(**typed)


_ALL = tuple(_read())
PUBLISHED = tuple(row for row in _ALL if row.section != "schemes")
_SCHEMES = tuple(row for row in _ALL if row.section == "schemes")
