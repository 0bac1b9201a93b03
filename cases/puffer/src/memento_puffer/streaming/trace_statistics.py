"""Statistics of throughput traces: what send times and readings say of paths and players.

``readings`` looks at delivery rates (spread, autocorrelation, repetitions, slow part), ``gaps`` at
times between the chunks sent to a stream, ``outages`` at gaps after which a player catches up, and
``stalls`` at what players must have stalled, reconstructed from send times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memento.samples import Samples
from memento_puffer.data.layout import CHUNK_SECONDS
from memento_puffer.predictor.scores import quantiles
from memento_puffer.quality.qoe import ratios_of
from memento_puffer.streaming.abr import BUFFER_SECONDS
from memento_puffer.streaming.traces import Traces

__all__ = ["gaps", "outages", "readings", "selected", "stalls"]

Floats = npt.NDArray[np.float64]

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


def selected(traces: Traces) -> Traces | None:
    """The streams that the published traces hold: >= 50 chunks, mean rate in [0.3, 3.6) MB/s.

    Returns:
        They in their order; None if there are none.

    Example:
        >>> traces = Traces([1] * 50 + [2] * 50, np.r_[0:50, 0:50], [1.0] * 50 + [9.0] * 50)
        >>> selected(traces)
        <Traces of 1 streams, 50 chunks>
    """
    length, mean = np.diff(traces.offsets), moments_of(traces, traces.rate).mean
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
    of_rate, of_log = moments_of(traces, rate), moments_of(traces, log)
    spread = (1, 5, 10, 25, 50, 75, 90, 95, 99)
    out |= spread_of("mean", of_rate.mean, spread)
    out |= spread_of("CV", of_rate.sd / np.where(of_rate.mean > 0, of_rate.mean, np.nan), spread)
    out |= spread_of("sd of log", of_log.sd, spread)
    out |= spread_of("chunks", length, spread)
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
            out |= spread_of(f"{name}, lag {lag}", above / power[there], (25, 50, 75))

    median = _medians(traces, rate)
    ratio = rate / np.where(median > 0, median, np.nan)[stream]
    out |= spread_of("ratio to median", ratio, (0.1, 1, 5, 10, 25, 75, 90, 95, 99))
    share = np.bincount(stream, rate < _LOW_READING, minlength=count) / length
    out |= spread_of("low", share, (50,))
    later = stream[1:] == stream[:-1]
    same_again = later & (traces.rate[1:] == traces.rate[:-1])
    out["repeated"] = mean_of(same_again[later])
    several = length > 1
    repeats = np.bincount(stream[1:], same_again, minlength=count)[several] / (length[several] - 1)
    out |= spread_of("repeated, streams", repeats, (50, 75, 95))
    out |= spread_of("first", rate[offsets[:-1]], (5, 25, 50, 75, 95))
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
    centre = ratios_of(np.bincount(owner, log_median, minlength=count), blocks)
    off = log_median - centre[owner]
    power = np.bincount(owner, off**2, minlength=count)
    out |= spread_of("slow sd", np.sqrt(power[long] / blocks[long]), (10, 50, 90))
    same = owner[1:] == owner[:-1]
    product = np.bincount(owner[1:], np.where(same, off[1:] * off[:-1], 0.0), minlength=count)
    moves = long & (power > 1e-12)
    out |= spread_of("slow lag 1", product[moves] / power[moves], (50,))
    out |= spread_of("slow change", np.abs(np.diff(log_median))[same], (50, 90, 99, 99.9))

    short, owner = _blocks(rate, traces, _SHORT_BLOCK)
    kept = length[owner] >= _SHORT_LEAST
    low = short[kept] < 0.25 * median[owner[kept]]
    out["low blocks"] = mean_of(low)
    some = np.bincount(owner[kept], low, minlength=count) > 0
    out["streams with low blocks"] = mean_of(some[length >= _SHORT_LEAST])
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
    out |= spread_of("gap", gap, (0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99))
    for limit in (2.5, 3, 4, 5, 7, 10, 15, 30):
        out[f"P(gap > {limit:g})"] = mean_of(gap > limit)
    for limit in (4, 10, 15, 30):
        some = np.bincount(stream, gap > limit, minlength=traces.streams) > 0
        out[f"streams with a gap > {limit:g}"] = mean_of(some)
    position = start - traces.offsets[stream]
    out |= spread_of("first seven gaps", gap[position < 7], (5, 25, 50, 75, 90, 95, 99, 99.9))
    buffered = _buffered(stream, gap, np.zeros(len(gap), bool))
    first_gap = position == 0
    left = np.where(first_gap, 0.0, np.maximum(buffered - gap, 0.0))
    full = left + CHUNK_SECONDS >= _FILLED  # after the gap
    first = np.full(traces.streams, np.iinfo(np.int64).max)
    np.minimum.at(first, stream[full], position[full])
    filled = first < np.iinfo(np.int64).max
    filling = filled[stream] & (position <= first[stream])
    out |= spread_of("first fill", gap[filling], (1, 5, 25, 50, 75, 90, 95, 99, 99.9))
    out |= spread_of("chunks until filled", first[filled] + 1, (10, 50, 90, 99))
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


class Moments(NamedTuple):
    """Of each stream."""

    mean: Floats
    sd: Floats


def moments_of(traces: Traces, values: np.ndarray) -> Moments:
    """Mean and standard deviation of the values of each stream."""
    offsets, x = traces.offsets, np.asarray(values, np.float64)
    length = np.diff(offsets)
    mean = np.add.reduceat(x, offsets[:-1]) / length
    off = x - np.repeat(mean, length)
    return Moments(mean, np.sqrt(np.add.reduceat(off**2, offsets[:-1]) / length))


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


def spread_of(name: str, values: npt.ArrayLike, percent: Sequence[float]) -> dict[str, float]:
    """Quantiles of what is not NaN, by name and percentage.

    Example:
        >>> spread_of("gap", [1.0, 2.0, 3.0], (50,))
        {'gap p50': 2.0}
    """
    found = quantiles(values, [p / 100 for p in percent])
    return {f"{name} p{p:g}": float(value) for p, value in zip(percent, found, strict=True)}


def mean_of(values: np.ndarray) -> float:
    """The mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")
