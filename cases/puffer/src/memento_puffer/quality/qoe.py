"""What viewers got: stalls and quality of streams, per scheme and across days, with intervals.

    stream_statistics    watch time, stall time and exclusions of each stream, as Puffer counts them
    quality_statistics   SSIM, its changes, bitrate and delivery rate of each stream
    scheme_statistics    both per scheme, with Puffer's intervals
    daily_statistics     the daily long table of the Memento paper
    weighted_intervals   weighted means across days (or viewers) with bootstrap intervals
    difference           the same for the difference of two schemes, paired or not
    time_series          weighted_intervals of the last days before each day
    weighted_ecdf        distribution of values over days, weighted

SSIM means average the index; the mean is converted to dB.

Sources: Yan et al., "Learning in situ: a randomized experiment in video streaming", NSDI 2020, and
the statistics that Puffer publishes daily; the daily analysis of the Memento paper.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memento.errors import DomainError, SchemaError, SettingError
from memento.samples import Samples
from memento_puffer.data.layout import CHUNK_SECONDS, EVENTS
from memento_puffer.predictor.scores import QUANTILES, mean_of_present, quantiles, statistics

if TYPE_CHECKING:
    from memento_puffer.data.joins import ClientEvents

__all__ = [
    "common_days",
    "daily_statistics",
    "difference",
    "quality",
    "quality_statistics",
    "scheme_statistics",
    "statistics_of_events",
    "stream_statistics",
    "time_series",
    "weighted_ecdf",
    "weighted_intervals",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEAST_WATCH = 4.0  # s; shorter streams are zapping
SLOW_RATE = 750_000.0  # bytes/s, 6 Mbit/s
_GAP = 8.0  # s without an event: the viewer's machine slept, or the connection is gone
_LOW_BUFFER, _LOW_LASTS = 0.3, 20.0  # s; later the viewer has left a stalled tab open
_FULL_BUFFER, _SLOW_GROWTH = 5.0, 0.15  # s; stalling with video at hand is the decoder's fault
_LARGEST_STALL = 20.0  # s from one event to the next: longer ones would have ended the stream
_BINS = range(2, 21)  # of log2(watch / s)
_PERFECT = 0.99999  # an index above it says the chunk was copied, or black
_DAILY_CHUNK = 2.001  # s; the artefact's, not 2.002
_EVENTS_AT_ONCE = 1 << 21
_CELLS = 1 << 22  # random numbers at a time
_SCORES = ("y", "y_hat", "logscore", "error", "error_rel")


def quality(ssim: npt.ArrayLike) -> Floats:
    """SSIM index as dB, ``-10 log10(1 - ssim)``, unbounded: infinite at 1.

    Example:
        >>> quality([0.9, 0.98, 1.0]).round(2)
        array([10.  , 16.99,   inf])
    """
    with np.errstate(divide="ignore"):
        return np.asarray(-10.0 * np.log10(1.0 - np.asarray(ssim, dtype=np.float64)) + 0.0)


def stream_statistics(events: Any) -> Samples:
    """Watch and stall time of each stream from its client_buffer events, as Puffer counts them.

    A stream ends before the event that follows the one before by more than 8 s, and before the
    event at which a buffer of <= 0.3 s has lasted for more than 20 s. Playing events are
    ``startup``, ``play``, and ``timer`` unless the last of these or ``rebuffer`` was ``rebuffer``.
    Watch and stall time are those between the first ``startup`` and the last playing event.

    Args:
        events: Columns, rows in any order (ties in time: as given): ``stream`` (any labels),
            ``time`` (ns), ``event`` (init, startup, rebuffer, play, timer), ``buffer`` (s),
            ``cum_rebuf`` (s, cumulative, with startup delay).

    Returns:
        One row per stream, ascending: ``stream``; ``events`` kept; ``truncated`` ("", "gap", "low
        buffer"); ``bad`` ("", "never started", "slow decoder", "nothing played", "negative
        rebuffer": the first that holds); ``startup`` delay (s), ``watch`` (s), ``stall`` (s,
        startup delay subtracted), ``stall_with_startup`` (s, the contaminated number beside it:
        cum_rebuf at the last playing event), all NaN where never started; ``considered``: not bad
        and watched for >= 4 s.

        Two more stall times hold where a client reports nonsense, such as hours in a stream of
        minutes. ``stall_capped`` (s) is ``stall``, but from one event to the next not more than 20
        s count, and in all not more than ``watch``. ``stall_limit`` (s) is the same up to the end
        of the stream, unfinished stalls included, from its first event if it never started: what
        ``daily_statistics`` lets a stream count at most.

    Raises:
        SchemaError: A column is missing.
        DomainError: An unknown event, or a value that is not finite.

    Example:
        >>> table = stream_statistics(
        ...     {
        ...         "stream": [7, 7, 7],
        ...         "time": [0, 1_000_000_000, 6_000_000_000],
        ...         "event": ["init", "startup", "timer"],
        ...         "buffer": [0.0, 2.0, 4.0],
        ...         "cum_rebuf": [0.0, 0.5, 0.75],
        ...     }
        ... )
        >>> for name in "startup", "watch", "stall", "stall_with_startup":
        ...     print(name, float(table[name][0]))
        startup 0.5
        watch 5.0
        stall 0.25
        stall_with_startup 0.75
    """
    columns = _columns_of(events, "stream", "time", "event", "buffer", "cum_rebuf")
    _check_finite(columns, "time", "buffer", "cum_rebuf")
    names, stream = np.unique(columns["stream"], return_inverse=True)
    order = np.lexsort((columns["time"], stream))
    stream = stream[order]
    n = len(stream)
    begin = columns["time"].min() if n else 0
    since_begin = columns["time"][order] - begin  # ns: limits are exact, and seconds precise
    time = since_begin / 1e9
    buffer, rebuffered = columns["buffer"][order], columns["cum_rebuf"][order]
    event = columns["event"][order]
    is_a = {kind: event == kind for kind in EVENTS}
    unknown = ~np.logical_or.reduce(list(is_a.values()))
    if unknown.any():
        raise DomainError(
            f"event: found {str(event[unknown][0])!r} ({unknown.sum():,} rows); expected {[*is_a]}"
        )

    at = np.arange(n)
    new = np.ones(n, bool)
    new[1:] = stream[1:] != stream[:-1]
    starts = at[new]
    first = starts[stream] if n else at  # of the stream of each row
    gap = ~new & (np.diff(since_begin, prepend=0) > _GAP * 1e9)
    low = buffer <= _LOW_BUFFER
    was_low = np.r_[False, low[:-1]][:n] & ~new
    since = np.maximum.accumulate(np.where(low & ~was_low, at, 0))
    stuck = low & (since_begin - since_begin[since] > _LOW_LASTS * 1e9)
    stops = np.r_[starts[1:], n][: len(starts)]
    cut = np.minimum(_reduce_streams(np.minimum, np.where(gap | stuck, at, n), starts), stops)
    kept = at < cut[stream]

    control = is_a["startup"] | is_a["play"] | is_a["rebuffer"]
    last_control = np.maximum.accumulate(np.where(control, at, -1))
    waits = is_a["rebuffer"][last_control] if n else low
    playing = (last_control >= first) & ~waits & ~is_a["init"] & kept
    startup = _reduce_streams(np.minimum, np.where(is_a["startup"] & kept, at, n), starts)
    last = _reduce_streams(np.maximum, np.where(playing, at, -1), starts)
    started = startup < n
    both_full = (buffer > _FULL_BUFFER) & (np.r_[0.0, buffer[:-1]][:n] > _FULL_BUFFER)
    growth = np.diff(rebuffered, prepend=0.0) > _SLOW_GROWTH
    slow = _reduce_streams(np.logical_or, both_full & growth & ~new & kept, starts)

    def between(values: Floats) -> Floats:
        span = np.full(len(starts), np.nan)
        span[started] = values[last[started]] - values[startup[started]]
        return span

    watch, stall = between(time), between(rebuffered)
    delay, dirty = np.full(len(starts), np.nan), np.full(len(starts), np.nan)
    delay[started] = rebuffered[startup[started]]
    dirty[started] = rebuffered[last[started]]
    steps = np.clip(np.diff(rebuffered, prepend=0.0), 0.0, _LARGEST_STALL)
    possible = np.cumsum(np.where(new, 0.0, steps))

    def up_to(end: np.ndarray, begin: np.ndarray) -> Floats:
        return np.minimum(possible[end] - possible[begin], time[end] - time[begin])

    capped = stall.copy()
    capped[started] = up_to(last[started], startup[started])
    capped = np.where(capped < stall - 1e-6, capped, stall)  # sums of many steps are rounded
    limit = up_to(np.maximum(cut - 1, starts), np.where(started, startup, starts))
    bad = np.select(
        [~started, slow, watch <= 0, stall < 0],
        ["never started", "slow decoder", "nothing played", "negative rebuffer"],
        "",
    )
    ended = cut < stops
    why = np.where(gap[np.where(ended, cut, 0)] if n else ended, "gap", "low buffer")
    return Samples.borrow(
        stream=names,
        events=cut - starts,
        truncated=np.where(ended, why, ""),
        bad=bad,
        startup=delay,
        watch=watch,
        stall=stall,
        stall_with_startup=dirty,
        stall_capped=capped,
        stall_limit=limit,
        considered=(bad == "") & (watch >= LEAST_WATCH),
    )


def statistics_of_events(events: ClientEvents) -> Samples:
    """`stream_statistics` of a day's messages, a few million of whole streams at a time.

    Args:
        events: Of the clients, see ``joins.client_events``.

    Returns:
        A row per stream with messages, ascending.
    """
    bounds, names = events.bounds(), np.array(EVENTS)
    parts: list[Samples] = []
    begin = 0
    while begin < events.streams or not parts:
        end = int(np.searchsorted(bounds, bounds[begin] + _EVENTS_AT_ONCE, "right")) - 1
        end = min(max(end, begin + 1), events.streams)
        rows = slice(int(bounds[begin]), int(bounds[end]))
        columns = {n: getattr(events, n)[rows] for n in ("stream", "time", "buffer", "cum_rebuf")}
        parts.append(stream_statistics({**columns, "event": names[events.event[rows]]}))
        begin = end
        if not events.streams:
            break
    return Samples.concat(parts)


def quality_statistics(chunks: Any) -> Samples:
    """Quality of each stream from the chunks sent to it.

    Args:
        chunks: Columns, rows of a stream in order of sending: ``stream``, ``ssim_index`` (in [-1,
            1], NaN if missing), ``size`` (bytes), ``delivery_rate`` (bytes/s).

    Returns:
        One row per stream, ascending: ``stream``, ``chunks``; ``ssim``, the mean index, and
        ``delta_ssim``, the mean |change| in dB, without what is missing or above 0.99999;
        ``delta_ssim_published``: the same sum divided by one less, as Puffer's code does;
        ``bitrate`` (bit/s), ``delivery_rate`` (bytes/s, mean), ``slow``: <= 750,000 bytes/s.
        NaN where nothing is left to average.

    Raises:
        SchemaError: A column is missing.
        DomainError: SSIM outside [-1, 1], or sizes and rates that are not finite.

    Example:
        >>> table = quality_statistics(
        ...     {
        ...         "stream": ["a"] * 3,
        ...         "ssim_index": [0.9, 0.99, 0.9],
        ...         "size": [1e6] * 3,
        ...         "delivery_rate": [1e6] * 3,
        ...     }
        ... )
        >>> for name in "ssim", "delta_ssim", "delta_ssim_published", "bitrate":
        ...     print(name, table[name][0].round(2))
        ssim 0.93
        delta_ssim 10.0
        delta_ssim_published 20.0
        bitrate 3996004.0
    """
    columns = _columns_of(chunks, "stream", "ssim_index", "size", "delivery_rate")
    _check_finite(columns, "size", "delivery_rate")
    names, stream = np.unique(columns["stream"], return_inverse=True)
    m = len(names)
    index = _ssim_index(columns)
    index = np.where(index > _PERFECT, np.nan, index)
    usable = ~np.isnan(index)
    change, of = _quality_changes(stream, index)
    steps = np.bincount(of, minlength=m)
    sums = np.bincount(of, change, minlength=m)
    count = np.bincount(stream, minlength=m)
    rate = ratios_of(np.bincount(stream, columns["delivery_rate"], minlength=m), count)
    total = np.bincount(stream[usable], index[usable], minlength=m)
    return Samples.borrow(
        stream=names,
        chunks=count,
        ssim=ratios_of(total, np.bincount(stream[usable], minlength=m)),
        delta_ssim=ratios_of(sums, steps),
        delta_ssim_published=ratios_of(sums, steps - 1),
        bitrate=8 * np.bincount(stream, columns["size"], minlength=m) / (CHUNK_SECONDS * count),
        delivery_rate=rate,
        slow=rate <= SLOW_RATE,
    )


def common_days(streams: Any) -> np.ndarray:
    """Rows of the days on which every scheme ran, (n,) bool; Puffer compares only on those.

    Args:
        streams: Columns ``day`` and ``scheme``.

    Example:
        >>> common_days({"day": [1, 1, 2], "scheme": ["a", "b", "a"]})
        array([ True,  True, False])
    """
    columns = _columns_of(streams, "day", "scheme")
    days, day = np.unique(columns["day"], return_inverse=True)
    schemes, scheme = np.unique(columns["scheme"], return_inverse=True)
    ran = np.zeros((len(days), len(schemes)), bool)
    ran[day, scheme] = True
    return np.asarray(np.asarray(ran.all(axis=1))[day])


def scheme_statistics(
    streams: Any,
    *,
    rng: np.random.Generator,
    watch_times: npt.ArrayLike | None = None,
    realisations: int = 10_000,
) -> Samples:
    """Stall ratio and SSIM of schemes with Puffer's intervals.

    A realisation draws as many streams as there are: a watch time from a list common to all
    schemes, and with it the stall ratio of one of the scheme's own streams in the same bin of
    floor(log2(watch)), else of the nearest pair of bins that is not empty.

    Args:
        streams: Columns, one row per stream that is considered: ``scheme``, ``watch`` (s, >= 4),
            ``stall`` (s, >= 0); and if known ``ssim`` (mean index), ``delta_ssim`` (dB).
        rng: Generator that draws the realisations.
        watch_times: The common list, s, >= 4; those of all ``streams`` if left out.
        realisations: Number of draws of all streams, >= 1.

    Returns:
        One row per scheme: ``scheme``, ``streams``, ``watch`` (s), ``stall`` (s), ``stall_ratio``,
        ``stall_mean`` over realisations, ``stall_low`` and ``stall_high`` (2.5 and 97.5 %); with
        ``ssim``: ``ssim`` (dB of the mean index weighted by watch time), ``ssim_sem`` (of the
        index), ``ssim_low``, ``ssim_high`` (dB, +- 2 SEM); with ``delta_ssim``: its plain mean over
        streams, ``delta_ssim_low``, ``delta_ssim_high`` (+- 2 SEM).

    Raises:
        SchemaError: A column is missing.
        DomainError: Streams that are too short, or negative stalls.
        SettingError: No realisations.

    Example:
        >>> import numpy as np
        >>> streams = {"scheme": ["a", "a"], "watch": [10.0, 30.0], "stall": [1.0, 3.0]}
        >>> table = scheme_statistics(streams, rng=np.random.default_rng(0), realisations=100)
        >>> table["stall_ratio"], table["stall_high"].round(6)
        (array([0.1]), array([0.1]))
    """
    given = Samples.borrow(streams)
    columns = _columns_of(given, "scheme", "watch", "stall")
    if realisations < 1:
        raise SettingError(f"realisations={realisations}; draw at least one")
    _check_finite(columns, "watch", "stall")
    watch, stall = columns["watch"], columns["stall"]
    pool = watch if watch_times is None else np.asarray(watch_times, dtype=np.float64).reshape(-1)
    for name, values in {"watch": watch, "watch_times": pool}.items():
        if not (values >= LEAST_WATCH).all():
            raise DomainError(f"{name}: found streams below 4 s; keep those that are considered")
    if not (stall >= 0).all():
        raise DomainError(f"stall: found {stall.min()}; leave bad streams out")
    rows = []
    names, scheme = np.unique(columns["scheme"], return_inverse=True)
    for k in range(len(names)):
        of_scheme = scheme == k
        row = {
            "streams": of_scheme.sum(),
            "watch": watch[of_scheme].sum(),
            "stall": stall[of_scheme].sum(),
            "stall_ratio": stall[of_scheme].sum() / watch[of_scheme].sum(),
        }
        drawn = _stall_ratios(watch[of_scheme], stall[of_scheme], pool, realisations, rng)
        row["stall_mean"] = drawn.mean()
        row["stall_low"], row["stall_high"] = np.quantile(drawn, [0.025, 0.975])
        if "ssim" in given:
            mean, sem = _mean_and_sem(given["ssim"][of_scheme], watch[of_scheme])
            row["ssim"], row["ssim_sem"] = quality(mean), sem
            # Not above an index of 1, where there are no dB.
            row["ssim_low"] = quality(mean - 2 * sem)
            row["ssim_high"] = quality(np.minimum(mean + 2 * sem, 1.0))
        if "delta_ssim" in given:
            mean, sem = _mean_and_sem(given["delta_ssim"][of_scheme], np.ones(of_scheme.sum()))
            row["delta_ssim"] = mean
            row["delta_ssim_low"], row["delta_ssim_high"] = mean - 2 * sem, mean + 2 * sem
        rows.append(row)
    table = {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return Samples.borrow({"scheme": names, **table})


def daily_statistics(chunks: Any, day: Any) -> Samples:
    """The daily analysis of the Memento paper: one long table for one day.

    Three selections of streams: all, stalled (stall time above 0) and unstalled, each without
    chunks that were not acknowledged and then without streams of fewer than two chunks.

    Args:
        chunks: Columns, rows of a stream in order of sending: ``stream``, ``abr``, ``ssim_index``,
            ``cum_rebuf`` (s), ``startup`` (s: the stream's startup delay in ``cum_rebuf``; 0 where
            that is subtracted already), ``trans_time`` (s, NaN: not acknowledged); if known
            ``stall_limit`` (s, one value for all rows of a stream, see ``stream_statistics``; inf
            for none); if known ``y``, ``y_hat``, ``logscore``, ``error``, ``error_rel``, (n,) or
            (n, horizons), see ``scores.score`` (``error`` is predicted - actual).
        day: A value for the column ``day``.

    Returns:
        ``day``, ``abr``, ``selection``, ``variable``, ``metric``, ``value``:
            ssim: mean and quantiles of the index, then in dB
            delta_ssim: mean, std, rms, quantiles of the |change| in dB between chunks of a stream
            stream: playtime, rebuftime, streamtime (s), stalled (%), chunks, streams; and
                rebuftime, streamtime, stalled once more ``_with_startup``, as the artefact has
                them, and with ``stall_limit`` once more ``_capped``, without nonsense
            y, ..., error_rel: averaged over horizons, and with suffix ``_0`` the first alone

    Raises:
        SchemaError: A column is missing.
        DomainError: SSIM outside [-1, 1], ``cum_rebuf`` and ``startup`` that are not finite, or a
            ``stall_limit`` below 0.

    Example:
        >>> table = daily_statistics(
        ...     {
        ...         "stream": [1, 1],
        ...         "abr": ["bba", "bba"],
        ...         "ssim_index": [0.9, 0.9],
        ...         "cum_rebuf": [0.5, 1.5],
        ...         "startup": [0.5, 0.5],
        ...         "trans_time": [0.1, 0.1],
        ...     },
        ...     day="2022-10-01",
        ... )
        >>> rows = (table["metric"] == "rebuftime") & (table["selection"] == "all")
        >>> table["value"][rows]
        array([1.])
    """
    given = Samples.borrow(chunks)
    columns = _columns_of(
        given, "stream", "abr", "ssim_index", "cum_rebuf", "startup", "trans_time"
    )
    _check_finite(columns, "cum_rebuf", "startup")
    _ssim_index(columns)
    arrived = ~np.isnan(columns["trans_time"])
    _, stream, count = np.unique(
        columns["stream"][arrived], return_inverse=True, return_counts=True
    )
    rows = np.flatnonzero(arrived)[count[stream] >= 2]
    table = given.take(rows)
    _, stream = np.unique(table["stream"], return_inverse=True)
    m = int(stream.max()) + 1 if len(stream) else 0
    dirty, clean = np.zeros(m), np.zeros(m)  # stall times are not below 0
    np.maximum.at(dirty, stream, table["cum_rebuf"])
    np.maximum.at(clean, stream, table["cum_rebuf"] - table["startup"])
    totals = {"": clean, "_with_startup": dirty}
    if "stall_limit" in table:
        if not (table["stall_limit"] >= 0).all():
            raise DomainError("stall_limit: found values below 0, or NaN; give seconds, or inf")
        limit = np.full(m, np.inf)
        np.minimum.at(limit, stream, table["stall_limit"])
        totals["_capped"] = np.minimum(clean, limit)
    stalls = clean[stream] > 0
    found: list[tuple[str, str, str, str, float]] = []
    for abr in np.unique(table["abr"]):
        of_scheme = table["abr"] == abr
        for selection, mask in {
            "all": of_scheme,
            "stalled": of_scheme & stalls,
            "unstalled": of_scheme & ~stalls,
        }.items():
            part = np.flatnonzero(mask)
            for variable, metrics in _daily_metrics(table, part, stream, totals).items():
                found += [(str(abr), selection, variable, *pair) for pair in metrics.items()]
    names = ("abr", "selection", "variable", "metric", "value")
    kinds = (str, str, str, str, np.float64)
    values = list(zip(*found, strict=True)) if found else [()] * 5
    made: dict[str, np.ndarray] = {
        n: np.array(v, k) for n, v, k in zip(names, values, kinds, strict=True)
    }
    return Samples.borrow({"day": np.full(len(found), day), **made})


def weighted_intervals(
    table: Any,
    *,
    rng: np.random.Generator,
    unit: str = "day",
    resamples: int = 1000,
    level: float = 0.9,
    joint: bool = True,
) -> Samples:
    """Weighted mean of each scheme with a percentile bootstrap interval over days.

    Days are drawn with replacement; a day comes with its value, its weight and all its schemes. The
    stall ratio is the mean of daily ratios weighted by stream time.

    Args:
        table: Columns, one row per day and scheme: ``day``, ``scheme``, ``value`` (finite),
            ``weight`` (>= 0).
        rng: Generator that draws the days.
        unit: The column to draw by, say "viewer" for paired runs.
        resamples: Number of draws, >= 1.
        level: Share of resamples inside the interval, in (0, 1).
        joint: False draws values and weights apart, as the artefact does: for comparison only.

    Returns:
        ``scheme``, ``units``, ``value``, ``low``, ``high``; NaN where all weights are 0.

    Raises:
        SchemaError: A column is missing, or a day has a scheme twice.
        DomainError: Values that are not finite, or negative weights.
        SettingError: No resamples, or a level outside (0, 1).

    Example:
        >>> import numpy as np
        >>> table = {"day": [1, 2], "scheme": ["a"] * 2, "value": [1.0, 3.0], "weight": [3.0, 1.0]}
        >>> weighted_intervals(table, rng=np.random.default_rng(0))["value"]
        array([1.5])
    """
    names, values, weights, there = _by_unit_and_scheme(table, unit)
    _check_bootstrap(resamples, level)
    drawn = _resampled_means(values, weights, there, resamples, rng, joint)
    low, high = _bounds_of_draws(drawn, level)
    means = ratios_of((values * weights).sum(axis=0), weights.sum(axis=0))
    return Samples.borrow(scheme=names, units=there.sum(axis=0), value=means, low=low, high=high)


def difference(
    table: Any,
    first: Any,
    second: Any,
    *,
    rng: np.random.Generator,
    unit: str = "day",
    resamples: int = 1000,
    level: float = 0.9,
    joint: bool = True,
    relative: bool = False,
    paired: bool = False,
    transform: Callable[[Floats], Floats] | None = None,
) -> Samples:
    """Difference of the weighted means of two schemes, first - second, with an interval.

    Args:
        table: As for ``weighted_intervals``. For stall ratios of paired runs: a row per viewer and
            scheme, stall / watch as value and watch as weight.
        first: Name of a scheme.
        second: Name of the scheme to compare it with.
        rng: Generator that draws the days.
        unit: The column to draw by.
        resamples: Number of draws, >= 1.
        level: Share of resamples inside the interval, in (0, 1).
        joint: False draws values, weights and both schemes apart, as the artefact does: for
            comparison only; for paired runs it wastes the pairing.
        relative: 100 (x - y) / max(|x|, |y|), in %, 0 for 0 and 0.
        paired: Demand that every unit has both schemes.
        transform: Applied to means before they are subtracted, such as ``quality`` to means of the
            SSIM index.

    Returns:
        One row: ``first``, ``second``, ``units`` with both, ``value``, ``low``, ``high``.

    Raises:
        SchemaError: A scheme is not there, or not everywhere although ``paired``; and as above.
        DomainError, SettingError: As for ``weighted_intervals``.

    Example:
        >>> import numpy as np
        >>> table = {
        ...     "day": [1, 1, 2, 2],
        ...     "scheme": ["a", "b", "a", "b"],
        ...     "value": [1.0, 2.0, 5.0, 6.0],
        ...     "weight": [1.0] * 4,
        ... }
        >>> found = difference(table, "b", "a", rng=np.random.default_rng(0))
        >>> float(found["low"][0]), float(found["high"][0])
        (1.0, 1.0)
    """
    names, values, weights, there = _by_unit_and_scheme(table, unit)
    _check_bootstrap(resamples, level)
    places = []
    for scheme in (first, second):
        at = np.flatnonzero(names == scheme)
        if not len(at):
            raise SchemaError(f"no scheme {scheme!r}; there are {names.tolist()}")
        places.append(int(at[0]))
    values, weights, there = values[:, places], weights[:, places], there[:, places]
    somewhere = there.any(axis=1)
    values, weights, there = values[somewhere], weights[somewhere], there[somewhere]
    if paired and not there.all():
        raise SchemaError(
            f"{(~there.all(axis=1)).sum():,} of {len(there):,} values of {unit!r} have only one of "
            f"{first!r} and {second!r}; paired runs have both for all"
        )

    def apart(means: Floats) -> Floats:
        means = means if transform is None else transform(means)
        x, y = means[:, 0], means[:, 1]
        if not relative:
            return x - y
        scale = np.maximum(np.abs(x), np.abs(y))
        return 100 * np.divide(x - y, scale, out=np.zeros(len(x)), where=scale != 0)

    drawn = apart(_resampled_means(values, weights, there, resamples, rng, joint))
    low, high = _bounds_of_draws(drawn[:, None], level)
    mean = ratios_of((values * weights).sum(axis=0), weights.sum(axis=0))
    return Samples.borrow(
        first=[first],
        second=[second],
        units=[there.all(axis=1).sum()],
        value=apart(mean[None]),
        low=low,
        high=high,
    )


def time_series(
    table: Any,
    *,
    rng: np.random.Generator,
    window: int = 14,
    resamples: int = 1000,
    level: float = 0.9,
    joint: bool = True,
    statistic: Callable[[Samples], Samples] | None = None,
) -> Samples:
    """For each day ``weighted_intervals`` of it and the days before, ``window`` days in all.

    Args:
        table: As for ``weighted_intervals``, with ``day`` as integers or datetime64[D].
        rng: Generator that draws the days.
        window: Days of the calendar to pool, >= 1.
        resamples: Number of draws, >= 1.
        level: Share of resamples inside the interval, in (0, 1).
        joint: As for ``weighted_intervals``.
        statistic: Of a window's rows, instead of ``weighted_intervals``.

    Returns:
        ``day`` and the columns of ``weighted_intervals``, for each day and scheme in its window.

    Raises:
        SettingError: No day in the window; and as for ``weighted_intervals``.
    """
    if window < 1:
        raise SettingError(f"window={window}; pool at least one day")
    columns = Samples.borrow(_columns_of(table, "day", "scheme", "value", "weight"))
    pooled = statistic or functools.partial(
        weighted_intervals, rng=rng, resamples=resamples, level=level, joint=joint
    )
    parts = []
    for day in np.unique(columns["day"]):
        inside = (columns["day"] <= day) & (columns["day"] > day - window)
        part = pooled(columns.take(inside))
        parts.append(part.with_columns(day=np.full(part.size, day)))
    return Samples.concat(parts)


def weighted_ecdf(values: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Samples:
    """Weighted distribution of values, such as differences between schemes over days.

    Args:
        values: (n,) finite.
        weights: (n,) >= 0, with a sum above 0 unless there are no values; None for equal ones.

    Returns:
        ``value``, ascending, each once, and ``share``: of the weight, what lies at or below it.

    Raises:
        SchemaError: Other shapes.
        DomainError: Values that are not finite, weights below 0 or without sum.

    Example:
        >>> found = weighted_ecdf([2.0, -1.0, 2.0], [1.0, 2.0, 1.0])
        >>> found["value"], found["share"]
        (array([-1.,  2.]), array([0.5, 1. ]))
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(x.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or w.shape != x.shape:
        raise SchemaError(f"values of shape {x.shape}, weights of {w.shape}; expected (n,) both")
    _check_finite({"values": x, "weights": w}, "values", "weights")
    if (w < 0).any() or (len(w) and not w.sum() > 0):
        raise DomainError("weights: found values below 0, or only 0; weights are times or counts")
    found, of = np.unique(x, return_inverse=True)
    total = np.cumsum(np.bincount(of, w, minlength=len(found)))
    return Samples.borrow(value=found, share=total / total[-1:])


# ----------------------------------------------------------------------------------------------
# Parts of the above


def _columns_of(data: Any, *names: str) -> dict[str, np.ndarray]:
    table = Samples.borrow(data)
    if missing := [name for name in names if name not in table]:
        raise SchemaError(f"columns {missing} are missing; found {sorted(table)}; add them")
    return {name: table[name] for name in names}


def _check_finite(columns: Mapping[str, np.ndarray], *names: str) -> None:
    for name in names:
        wrong = ~np.isfinite(columns[name])
        if wrong.any():
            raise DomainError(
                f"{name}: {wrong.sum():,} values are not finite; drop or repair these rows"
            )


def _ssim_index(columns: Mapping[str, np.ndarray]) -> Floats:
    index = np.asarray(columns["ssim_index"], dtype=np.float64)
    wrong = np.abs(index) > 1
    if wrong.any():
        raise DomainError(
            f"ssim_index: found {index[wrong][0]}; expected an index within -1 and 1, not dB"
        )
    return index


def _reduce_streams(how: np.ufunc, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.asarray(how.reduceat(values, starts)) if len(starts) else values[:0]


def ratios_of(above: np.ndarray, below: np.ndarray) -> Floats:
    """Quotients; NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _quality_changes(stream: np.ndarray, index: Floats) -> tuple[Floats, np.ndarray]:
    """|change| in dB between consecutive chunks of a stream, and the stream of each."""
    order = np.argsort(stream, kind="stable")
    of, q = stream[order], quality(index[order])
    q = np.where(np.isinf(q), np.nan, q)
    change = np.abs(np.diff(q))
    within = (of[1:] == of[:-1]) & ~np.isnan(change)
    return change[within], of[1:][within]


def _mean_and_sem(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and sd * sqrt(sum w^2) / sum w, of what is not NaN."""
    there = ~np.isnan(values)
    x, w = values[there], weights[there]
    if not len(x):
        return np.array(np.nan), np.array(np.nan)
    mean = (w * x).sum() / w.sum()
    sd = np.sqrt((w * (x - mean) ** 2).sum() / w.sum())
    return mean, sd * np.sqrt((w**2).sum()) / w.sum()


def _watch_bins(watch: np.ndarray) -> Integers:
    exponent = np.frexp(watch)[1] - 1  # floor(log2), exact
    return np.asarray(np.clip(exponent, _BINS[0], _BINS[-1]) - _BINS[0], dtype=np.int64)


def _stall_ratios(
    watch: Floats, stall: Floats, pool: Floats, realisations: int, rng: np.random.Generator
) -> Floats:
    """Stall ratio of each realisation."""
    n = len(watch)
    ratios, bins_of = stall / watch, _watch_bins(watch)
    groups = [ratios[bins_of == b] for b in range(len(_BINS))]
    lists = []
    for b in range(len(_BINS)):
        found, away = groups[b], 0
        while not len(found):
            away += 1
            pair = [groups[c] for c in (b - away, b + away) if 0 <= c < len(_BINS)]
            found = np.concatenate(pair)
        lists.append(found)
    every = np.concatenate(lists)
    counts = np.array([len(one) for one in lists])
    starts = np.cumsum(counts) - counts
    bins = _watch_bins(pool)
    out = np.empty(realisations)
    at_once = max(1, _CELLS // n)
    for start in range(0, realisations, at_once):
        m = min(at_once, realisations - start)
        drawn = rng.integers(len(pool), size=(m, n))
        of, w = bins[drawn], pool[drawn]
        ratios_drawn = every[starts[of] + (rng.random((m, n)) * counts[of]).astype(np.int64)]
        out[start : start + m] = (w * ratios_drawn).sum(axis=1) / w.sum(axis=1)
    return out


def _daily_metrics(
    table: Samples, part: np.ndarray, stream: np.ndarray, totals: Mapping[str, Floats]
) -> dict[str, dict[str, float]]:
    """Variables and metrics of the chunks ``part``."""
    found: dict[str, dict[str, float]] = {}
    index = table["ssim_index"][part].astype(np.float64)
    index = index[~np.isnan(index)]
    # Spreads of the index have no meaning in dB, so there are none.
    of_index = [index.mean() if len(index) else np.nan, *quantiles(index)]
    names = ("mean", *(f"q{q:g}" for q in QUANTILES))
    found["ssim"] = dict(zip(names, map(float, quality(of_index)), strict=True))
    change, _ = _quality_changes(stream[part], table["ssim_index"][part].astype(np.float64))
    found["delta_ssim"] = statistics(change)
    streams = np.unique(stream[part])
    playtime = _DAILY_CHUNK * len(part)
    summary = {"playtime": playtime, "chunks": float(len(part)), "streams": float(len(streams))}
    for suffix, stalls in totals.items():
        total = float(stalls[streams].sum())
        summary[f"rebuftime{suffix}"] = total
        summary[f"streamtime{suffix}"] = playtime + total
        summary[f"stalled{suffix}"] = 100 * total / (playtime + total) if len(part) else np.nan
    found["stream"] = summary
    for name in _SCORES:
        if name in table:
            values = table[name][part].astype(np.float64)
            values = values.reshape(len(part), int(np.prod(values.shape[1:])))
            found[name] = statistics(mean_of_present(values))
            found[f"{name}_0"] = statistics(values[:, 0])
    return found


def _by_unit_and_scheme(table: Any, unit: str) -> tuple[np.ndarray, Floats, Floats, np.ndarray]:
    """Schemes; values, weights and presence as (units, schemes), 0 where absent."""
    columns = _columns_of(table, unit, "scheme", "value", "weight")
    _check_finite(columns, "value", "weight")
    if not (columns["weight"] >= 0).all():
        raise DomainError("weight: found values below 0; weights are times or counts")
    units, row = np.unique(columns[unit], return_inverse=True)
    names, column = np.unique(columns["scheme"], return_inverse=True)
    there = np.zeros((len(units), len(names)), bool)
    there[row, column] = True
    if there.sum() < len(row):
        raise SchemaError(f"a {unit} has a scheme twice; give one row for each {unit} and scheme")
    values, weights = np.zeros(there.shape), np.zeros(there.shape)
    values[row, column] = columns["value"]
    weights[row, column] = columns["weight"]
    return names, values, weights, there


def _check_bootstrap(resamples: int, level: float) -> None:
    if resamples < 1:
        raise SettingError(f"resamples={resamples}; draw at least one")
    if not 0 < level < 1:
        raise SettingError(f"level={level}; give a share between 0 and 1, such as 0.9")


def _resampled_means(
    values: Floats,
    weights: Floats,
    there: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
    joint: bool,
) -> Floats:
    """Weighted means of (resamples, schemes)."""
    out = np.full((resamples, values.shape[1]), np.nan)
    if joint:
        # What was drawn how often is all that matters, so a draw is two products of matrices.
        above, below = values * weights, weights
        for part, counts in _draw_counts(len(values), resamples, rng):
            out[part] = ratios_of(counts @ above, counts @ below)
        return out
    for k in range(values.shape[1]):
        v, w = values[there[:, k], k], weights[there[:, k], k]
        at_once = max(1, _CELLS // max(1, len(v)))
        for start in range(0, resamples, at_once):
            m = min(at_once, resamples - start)
            drawn = v[rng.integers(len(v), size=(m, len(v)))]
            apart = w[rng.integers(len(w), size=(m, len(w)))]
            out[start : start + m, k] = ratios_of((drawn * apart).sum(axis=1), apart.sum(axis=1))
    return out


def _draw_counts(
    units: int, resamples: int, rng: np.random.Generator
) -> Iterator[tuple[slice, Floats]]:
    """How often each unit is drawn, (m, units) for m resamples at a time."""
    at_once = max(1, _CELLS // max(1, units))
    for start in range(0, resamples if units else 0, at_once):
        m = min(at_once, resamples - start)
        drawn = rng.integers(units, size=(m, units)) + units * np.arange(m)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=m * units).reshape(m, units)
        yield slice(start, start + m), counts.astype(np.float64)


def _bounds_of_draws(drawn: Floats, level: float) -> tuple[Floats, Floats]:
    """Bounds of (resamples, k); draws without any weight do not count."""
    tail = (1 - level) / 2
    bounds = np.array([quantiles(one, (tail, 1 - tail)) for one in drawn.T]).reshape(-1, 2)
    return bounds[:, 0], bounds[:, 1]
