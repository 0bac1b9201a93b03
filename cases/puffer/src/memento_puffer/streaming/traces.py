"""Throughput traces of video streams: real ones from Parquet, or a synthetic population of paths.

A trace has one row for every video chunk sent: when it was sent, and the delivery rate that TCP
reported just before. The synthetic population follows published statistics of the Puffer platform
(Yan et al., "Learning in situ", NSDI 2020, and the traces of two Puffer days): a heavy-tailed
throughput over sessions, slow changes, regime jumps and outages within a session, readings that
are noisy, sticky and sometimes far too low, and gaps between chunks that follow the player.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from memento.arguments import Count, NotNegative, Positive, Seed, check_fields, number, whole
from memento.errors import (
    DamagedError,
    DomainError,
    SchemaError,
    SettingError,
    StorageError,
    needs,
)

__all__ = ["Paths", "Population", "Shift", "Traces", "days"]

COLUMNS = ("trace_id", "seconds", "rate")


@dataclass(frozen=True, eq=False, repr=False)
class Traces:
    """Streams one after the other, the chunks of each in the order in which they were sent.

    Args:
        trace_id: (n,) integers (or strings, which are numbered in order of appearance); rows of one
            stream that stand apart are moved together.
        seconds: (n,) s since the stream's first chunk was sent, never decreasing in a stream.
        rate: (n,) delivery rate in MB/s (10^6 bytes per second) reported before sending, >= 0.
        source: Where they come from, for error messages.

    Raises:
        SchemaError: No rows, columns of different lengths or of a type that holds no numbers.
        DomainError: A time or rate that is not finite, a negative rate, a time that decreases.

    Example:
        >>> traces = Traces([7, 7, 9], [0.0, 2.0, 0.0], [1.5, 1.2, 0.3])
        >>> traces
        <Traces of 2 streams, 3 chunks>
        >>> traces.take([1]).rate
        array([0.3], dtype=float32)
    """

    trace_id: np.ndarray
    seconds: np.ndarray
    rate: np.ndarray
    source: str = "the traces"

    def __post_init__(self) -> None:
        ids = _integer_ids(np.asarray(self.trace_id), self.source)
        seconds = _number_column("seconds", self.seconds, np.float64, self.source)
        rate = _number_column("rate", self.rate, np.float32, self.source)
        if not len(ids) == len(seconds) == len(rate):
            raise SchemaError(
                f"{self.source}: trace_id, seconds and rate have {len(ids):,}, {len(seconds):,} "
                f"and {len(rate):,} rows; give one of each for every chunk"
            )
        if not len(ids):
            raise SchemaError(f"{self.source}: no rows; expected at least one chunk")
        order = _grouping_order(ids)
        if order is not None:
            ids, seconds, rate = ids[order], seconds[order], rate[order]
        back = np.flatnonzero((np.diff(seconds) < 0) & (np.diff(ids) == 0))
        if len(back):
            row = int(back[0])
            raise DomainError(
                f"{self.source}: 'seconds' goes back from {seconds[row]:g} to {seconds[row + 1]:g} "
                f"inside trace {ids[row]} ({len(back):,} such rows); sort each trace by time"
            )
        for name, array in (("trace_id", ids), ("seconds", seconds), ("rate", rate)):
            array = array.view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def read(cls, path: str | Path) -> Traces:
        """Read the columns trace_id, seconds, rate of a Parquet file; others are ignored.

        Raises:
            SchemaError: A column is missing, holds no numbers or has missing values; no rows.
            DomainError: As for the class.
            DamagedError: The file is truncated or is not Parquet.
            StorageError: There is no such file, or it cannot be opened.
            MissingExtraError: pyarrow is not installed.
        """
        with needs("pyarrow", "cli", "reading traces from Parquet"):
            import pyarrow as pa
            from pyarrow import parquet
        path = Path(path)
        try:
            with parquet.ParquetFile(path) as file:
                found = file.schema_arrow.names
                absent = [name for name in COLUMNS if name not in found]
                if absent:
                    raise SchemaError(
                        f"{path}: no column {', '.join(map(repr, absent))} among {found}; traces "
                        "need trace_id, seconds (since the first chunk) and rate (MB/s)"
                    )
                table = file.read(columns=list(COLUMNS))
        except SchemaError:
            raise
        except FileNotFoundError as error:
            raise StorageError(f"{path}: no such file; check the path") from error
        except (pa.ArrowException, EOFError) as error:
            size = path.stat().st_size if path.is_file() else 0
            raise DamagedError(
                f"{path}: {size:,} bytes that are no complete Parquet file ({error}); "
                "fetch it again, or convert it to Parquet"
            ) from error
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({error}); check the path") from error
        columns = {}
        for name in COLUMNS:
            column = table.column(name)
            if column.null_count:
                raise SchemaError(
                    f"{path}: column {name!r} has {column.null_count:,} missing values of "
                    f"{len(column):,}; fill them or drop their rows"
                )
            columns[name] = column.to_numpy()
        return cls(**columns, source=str(path))

    @cached_property
    def offsets(self) -> np.ndarray:
        """(streams + 1,) int64: rows ``offsets[i]`` up to ``offsets[i + 1]`` are stream ``i``."""
        starts = np.flatnonzero(np.diff(self.trace_id)) + 1
        return np.concatenate(([0], starts, [len(self.trace_id)])).astype(np.int64)

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self.offsets) - 1

    @property
    def size(self) -> int:
        """How many chunks there are in all."""
        return len(self.trace_id)

    def take(self, streams: Sequence[int] | np.ndarray) -> Traces:
        """Some of the streams, by their position, in the order given.

        Raises:
            SchemaError: None is asked for.
        """
        chosen = np.asarray(streams, dtype=np.int64)
        lengths = np.diff(self.offsets)[chosen]
        ends = np.cumsum(lengths)
        rows = np.repeat(self.offsets[chosen] - ends + lengths, lengths) + np.arange(lengths.sum())
        return Traces(self.trace_id[rows], self.seconds[rows], self.rate[rows], self.source)

    def renumbered(self, first: int) -> Traces:
        """The same with the trace ids ``first, first + 1, ...`` in order of appearance."""
        ids = np.repeat(np.arange(first, first + self.streams), np.diff(self.offsets))
        return Traces(ids, self.seconds, self.rate, self.source)

    def __repr__(self) -> str:
        return f"<Traces of {self.streams:,} streams, {self.size:,} chunks>"


def days(
    source: Population | Sequence[str | Path],
    count: int = 14,
    *,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[str, Traces]]:
    """Name and traces of consecutive days; trace ids are unique over all of them.

    Files are consecutive periods. Each is cut between streams into days of about equal numbers of
    chunks, as many for each file as possible (the first files get one more where ``count`` does
    not divide). The streams stay in their order in the file: in Puffer's files neighbours resemble
    each other (correlation of their mean rates 0.2, the same viewers) while there is no trend, so
    shuffling would put the same viewer into several days and make tomorrow easier than it is.

    Args:
        source: A population, or the paths of Parquet files (see ``Traces.read``).
        count: How many days in all.
        rng: Shuffles the streams of each file first; without it nothing is random.

    Raises:
        SettingError: Fewer days than files, or a file with fewer streams than days.
        InputError, StorageError: As ``Traces.read``; a file is read when its first day is due.

    Example:
        >>> for name, traces in days(Population(chunks=1000), 2):
        ...     print(name, traces.size, traces.trace_id[0])
        day 1 1000 0
        day 2 1000 1000000
    """
    if count < 1:
        raise SettingError(f"{count} days; ask for at least one")
    if isinstance(source, Population):
        return ((f"day {day + 1}", source.day(day)) for day in range(count))
    if isinstance(source, (str, Path)):
        source = [source]
    paths = [Path(path) for path in source]
    if not paths or count < len(paths):
        raise SettingError(
            f"{count} days of {len(paths)} files; give at least one file, and a day for each"
        )
    return _days_of_files(paths, count, rng)


def _days_of_files(
    paths: list[Path], count: int, rng: np.random.Generator | None
) -> Iterator[tuple[str, Traces]]:
    """Days cut from files, one file in memory at a time; see `days`."""
    first = 0
    for position, path in enumerate(paths):
        share = count // len(paths) + (position < count % len(paths))
        traces = Traces.read(path)
        if traces.streams < share:
            raise SettingError(
                f"{path}: {traces.streams} streams cannot fill {share} days; ask for fewer days"
            )
        if rng is not None:
            traces = traces.take(rng.permutation(traces.streams))
        traces = traces.renumbered(first)
        first += traces.streams
        # Cut where the chunks so far come closest to their share, but leave no day empty.
        ideal = traces.size * np.arange(1, share) / share
        cuts = [0]
        for day, end in enumerate(np.abs(traces.offsets[:, None] - ideal).argmin(axis=0), 1):
            cuts.append(min(max(int(end), cuts[-1] + 1), traces.streams - share + day))
        cuts.append(traces.streams)
        for day in range(share):
            yield f"{path.stem} {day + 1}/{share}", traces.take(range(cuts[day], cuts[day + 1]))


#: Names of shifts that have one.
SHIFTS = ("new_access", "halved_capacity", "new_congestion_control")


@dataclass(frozen=True)
class Shift:
    """A lasting change of the population from a given day on.

    Args:
        day: The first day that it holds, counted from 0.
        share: The part of the streams it reaches, in (0, 1].
        rate_factor: What their capacity is multiplied with, > 0.
        extra_rtt: s added to their round-trip time, >= 0.
        noise_factor: What the spread of their readings is multiplied with, > 0.
        low_odds: What the odds of a reading that is far too low are multiplied with, > 0.
        sticky_odds: Likewise, of a reading that repeats the one before.
        until: The first day that it does not hold any more; None if it stays.

    Raises:
        SettingError: A number out of its range.

    Example:
        >>> Shift.halved_capacity(day=9)
        Shift(day=9, share=1.0, rate_factor=0.5, extra_rtt=0.0, noise_factor=1.0,
              low_odds=1.0, sticky_odds=1.0, until=None)
    """

    day: int
    share: Annotated[float, number(above=0, most=1, words="a number in (0, 1]")] = 1.0
    rate_factor: Positive = 1.0
    extra_rtt: NotNegative = 0.0
    noise_factor: Positive = 1.0
    low_odds: Positive = 1.0
    sticky_odds: Positive = 1.0
    until: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def named(cls, kind: str, day: int) -> Shift:
        """One of the shifts below, with its usual numbers.

        Raises:
            SettingError: There is none of this name.
        """
        if kind not in SHIFTS:
            raise SettingError(f"shift {kind!r}; give {', '.join(SHIFTS[:-1])} or {SHIFTS[-1]}")
        shift: Shift = getattr(cls, kind)(day)
        return shift

    @classmethod
    def new_access(cls, day: int, share: float = 0.15, until: int | None = None) -> Shift:
        """Some viewers come over a new access network, as over a geostationary satellite.

        Their round trip takes 0.6 s more, and they have a tenth of the rate.
        """
        return cls(day, share, rate_factor=0.1, extra_rtt=0.6, until=until)

    @classmethod
    def halved_capacity(cls, day: int, until: int | None = None) -> Shift:
        """Everybody has half the capacity."""
        return cls(day, rate_factor=0.5, until=until)

    @classmethod
    def new_congestion_control(cls, day: int, until: int | None = None) -> Shift:
        """The servers' readings get smoother, stickier and seldom far too low.

        By about as much as between two real Puffer days, 2021-10-17 and 2022-02-18. Unlike the
        other shifts it changes what follows from a history, not only how often histories occur.
        """
        return cls(day, noise_factor=0.6, low_odds=0.3, sticky_odds=5.0, until=until)

    def holds(self, day: int) -> bool:
        """Whether the change is in force on a day."""
        return self.day <= day and (self.until is None or day < self.until)


# fmt: off
# Session mean throughput over all Puffer sessions: inverse CDF in Mbit/s (Yan et al., NSDI 2020,
# read off their figure); both ends (0 and 1) are ours.
_MEAN_MBIT = {
    0.0: 0.06, 0.001: 0.08, 0.002: 0.10, 0.005: 0.17, 0.01: 0.32, 0.02: 0.58, 0.05: 2.11,
    0.1: 4.15, 0.2: 8.22, 0.25: 10.2, 0.3: 12.7, 0.4: 17.7, 0.5: 23.1, 0.6: 28.8, 0.7: 35.7,
    0.75: 40.3, 0.8: 46.5, 0.9: 67.3, 0.95: 95.7, 0.98: 146.0, 0.99: 223.0, 1.0: 400.0,
}
# Chunks per stream: inverse CDF over the streams of two Puffer days with at least 50 chunks.
_LENGTH = {
    0.0: 50, 0.01: 51, 0.05: 57, 0.1: 66, 0.25: 106, 0.5: 267, 0.75: 999, 0.9: 3070,
    0.95: 5160, 0.99: 9100, 1.0: 20000,
}
# Outages per 1000 chunks by the stream's mean rate in MB/s, on the same days; the last is ours.
_OUTAGES = {0.4: 12.5, 0.62: 8.5, 1.0: 6.9, 1.6: 2.4, 2.4: 1.0, 3.2: 0.9, 10.0: 0.5}
# fmt: on

_CHUNK = 2.002  # s of video in a chunk
_BUFFER = 15.0  # s of video above which the server waits
_STEP = 2.0  # s, resolution of a path's capacity
_SMALLEST, _LARGEST = 0.044, 0.89  # MB, mean chunk of the lowest and highest quality
_LOWEST_READING = 0.002  # MB/s


@dataclass(frozen=True)
class Population:
    """A seeded population of network paths, each watched by one player.

    Day ``t`` depends on the settings and on ``t`` alone, not on which other days were made.

    Args:
        seed: Of everything random, >= 0.
        chunks: Number of chunks in each day, >= 1.
        shifts: Changes of the population, each from its day on.
        drift: Scale of the daily random walk of the population's parameters and of its weekly
            term; 0 for a stationary population, 1 for about what lies between two real days.
        longest: Most chunks of a stream; 3,600 are two hours.

    Raises:
        SettingError: A number out of its range.

    Example:
        >>> quiet = Population(seed=1, chunks=5000, drift=0.0)
        >>> slower = Population(seed=1, chunks=5000, drift=0.0, shifts=(Shift.halved_capacity(3),))
        >>> bool(np.array_equal(quiet.day(2).rate, slower.day(2).rate))
        True
        >>> bool(np.median(quiet.day(3).rate) > np.median(slower.day(3).rate))
        True
    """

    seed: Seed = 0
    chunks: Count = 150_000
    shifts: tuple[Shift, ...] = ()
    drift: NotNegative = 1.0
    longest: Annotated[int, whole(50)] = 3_600

    def __post_init__(self) -> None:
        check_fields(self)

    def day(self, number: int) -> Traces:
        """The traces of one day.

        Args:
            number: Which day, from 0 on.

        Returns:
            ``chunks`` rows; trace ids start at ``number * 1_000_000``.

        Raises:
            SettingError: A negative number.
        """
        if number < 0:
            raise SettingError(f"day {number}; days count from 0")
        conditions = self._conditions(number)
        # A key for each purpose keeps days apart from each other and from the random walk.
        rng = np.random.default_rng([self.seed, 1, number])
        lengths = self._lengths(rng)
        paths = Paths.draw(len(lengths), conditions, rng)
        for index, shift in enumerate(self.shifts):
            # Its own generator, so that a shift changes nothing but what it says it changes.
            reached = np.random.default_rng([self.seed, 2, number, index]).random(len(lengths))
            if shift.holds(number):
                paths = paths.shifted(shift, reached < shift.share)
        sent, rate = _watch_streams(paths, lengths, rng)
        first = number * 1_000_000
        ids = np.repeat(np.arange(first, first + len(lengths)), lengths)
        return Traces(ids, sent, rate, f"synthetic day {number}")

    def paths(self, number: int, normals: np.ndarray, uniforms: np.ndarray) -> Paths:
        """The paths of n sessions on a day, from random numbers of the caller.

        Args:
            number: The day, from 0 on.
            normals: (6, n) standard normal.
            uniforms: (shifts, n) in (0, 1): which sessions a shift reaches.

        Raises:
            SettingError: A negative day.
        """
        if number < 0:
            raise SettingError(f"day {number}; days count from 0")
        paths = Paths.of(self._conditions(number), normals)
        for shift, drawn in zip(self.shifts, uniforms, strict=True):
            if shift.holds(number):
                paths = paths.shifted(shift, drawn < shift.share)
        return paths

    def _conditions(self, number: int) -> _Conditions:
        """The population's parameters on a day: a random walk from day 0 plus a weekly wave."""
        scale = np.array([0.03, 0.06, 0.11, 0.15, 0.10, 0.06])
        weekly = np.array([-0.06, 0.0, 0.1, 0.0, 0.2, 0.05])
        # Row by row, so the first rows are the same however many days are asked for.
        steps = np.random.default_rng([self.seed, 0]).standard_normal((number + 1, len(scale)))
        steps[0] = 0.0
        wave = math.sin(2 * math.pi * number / 7)
        rate, noise, low, sticky, outages, slow = self.drift * (
            scale * steps.sum(axis=0) + weekly * wave
        )
        return _Conditions(
            rate=math.exp(rate),
            noise=0.45 * math.exp(noise),
            low=_logistic(_logit(0.06) + low),
            sticky=_logistic(_logit(0.05) + sticky),
            outages=math.exp(outages),
            slow=0.35 * math.exp(slow),
        )

    def _lengths(self, rng: np.random.Generator) -> np.ndarray:
        """Chunks of each stream: heavy-tailed, cut at ``longest``, ``chunks`` in total."""
        lengths = np.empty(0, np.int64)
        while lengths.sum() < self.chunks:
            more = np.exp(_interpolate_table(rng.random(256), _LENGTH, np.log))
            lengths = np.concatenate((lengths, np.minimum(more, self.longest).astype(np.int64)))
        ends = np.minimum(np.cumsum(lengths), self.chunks)
        return np.diff(ends[: np.searchsorted(ends, self.chunks) + 1], prepend=0)


@dataclass(frozen=True)
class _Conditions:
    """What a day's streams have in common; medians over streams."""

    rate: float  # factor on capacity
    noise: float  # standard deviation of the log of a reading
    low: float  # share of readings that are far too low
    sticky: float  # share of readings that repeat the one before
    outages: float  # factor on their frequency
    slow: float  # standard deviation of the log of the slow part of capacity


@dataclass(frozen=True)
class Paths:
    """What is constant about network paths.

    Attributes:
        mean: (n,) mean capacity, MB/s.
        min_rtt: (n,) least round-trip time, s.
        noise: (n,) standard deviation of the log of a reading of the delivery rate.
        low: (n,) share of readings that are far too low.
        sticky: (n,) share of readings that repeat the one before.
        outage: (n,) probability that an outage begins in a step of 2 s.
        slow: (n,) standard deviation of the log of the slow part of capacity.
    """

    mean: np.ndarray
    min_rtt: np.ndarray
    noise: np.ndarray
    low: np.ndarray
    sticky: np.ndarray
    outage: np.ndarray
    slow: np.ndarray

    @classmethod
    def draw(cls, count: int, conditions: _Conditions, rng: np.random.Generator) -> Paths:
        """Streams of a day."""
        rate_and_rtt, spread = rng.standard_normal((2, count)), rng.standard_normal((4, count))
        return cls.of(conditions, np.concatenate((rate_and_rtt, spread)))

    @classmethod
    def of(cls, conditions: _Conditions, normals: np.ndarray) -> Paths:
        """Of (6, n) standard normal numbers; slow paths tend to have long round trips (-0.4)."""
        z, w, *spread = normals
        share = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in z])
        mbit = np.exp(_interpolate_table(share, _MEAN_MBIT, np.log))
        mean = conditions.rate * mbit / 8
        outages = conditions.outages * _interpolate_table(mean, _OUTAGES) / 1000
        return cls(
            mean=mean,
            min_rtt=0.051 * np.exp(0.64 * (-0.4 * z + math.sqrt(1 - 0.16) * w)),
            noise=conditions.noise * np.exp(0.35 * spread[0]),
            low=_logistic(_logit(conditions.low) + 0.9 * spread[1]),
            sticky=_logistic(_logit(conditions.sticky) + 1.1 * spread[2]),
            outage=outages,
            slow=np.minimum(conditions.slow * np.exp(0.82 * spread[3]), 1.5),
        )

    def shifted(self, shift: Shift, reached: np.ndarray) -> Paths:
        """The same with a shift in force on some of them."""
        return Paths(
            mean=np.where(reached, self.mean * shift.rate_factor, self.mean),
            min_rtt=np.where(reached, self.min_rtt + shift.extra_rtt, self.min_rtt),
            noise=np.where(reached, self.noise * shift.noise_factor, self.noise),
            low=np.where(reached, _with_odds(self.low, shift.low_odds), self.low),
            sticky=np.where(reached, _with_odds(self.sticky, shift.sticky_odds), self.sticky),
            outage=self.outage,
            slow=self.slow,
        )

    def take(self, rows: np.ndarray) -> Paths:
        """Some of them, by position."""
        return Paths(**{name: values[rows] for name, values in vars(self).items()})


def _capacity_of(paths: Paths, steps: int, rng: np.random.Generator) -> np.ndarray:
    """(streams, steps) MB/s: mean times slow part times outages.

    The log of the slow part is a sum of two AR(1) (lag-1 correlation 0.85 and 0.98 per step of 2 s)
    and of a level that jumps once in ten minutes (Laplace, standard deviation 0.7). An outage
    leaves a fiftieth of the capacity for a Pareto-distributed time of at least one step.
    """
    count = len(paths.mean)
    log = np.zeros((steps, count))
    for memory in (0.85, 0.98):
        # Both parts have half the variance, and start in their stationary state.
        noise = rng.standard_normal((steps, count), dtype=np.float32)
        part = noise[0] * paths.slow * math.sqrt(0.5)
        innovation = paths.slow * math.sqrt(0.5 * (1 - memory**2))
        for step in range(steps):
            if step:
                part = memory * part + innovation * noise[step]
            log[step] += part
    jumps = rng.random((steps, count), dtype=np.float32) < _STEP / 600
    latest = np.maximum.accumulate(np.where(jumps, np.arange(steps)[:, None], 0), axis=0)
    level = rng.laplace(0.0, 0.7 / math.sqrt(2), (steps, count))
    level[0] = 0.0
    log += np.take_along_axis(level, latest, axis=0)
    # Keeps the mean of the capacity near the mean of the path.
    log -= 0.5 * paths.slow**2
    begins = rng.random((steps, count), dtype=np.float32) < paths.outage
    lasts = (1 - rng.random((steps, count), dtype=np.float32)) ** (-1 / 2.2)  # steps, >= 1
    ends = np.where(begins, np.arange(steps)[:, None] + lasts, 0)
    out = np.maximum.accumulate(ends, axis=0) > np.arange(steps)[:, None]
    capacity = paths.mean * np.exp(np.clip(log, -5.0, 2.0)) * np.where(out, 0.02, 1.0)
    return np.ascontiguousarray(capacity.T)


def _watch_streams(
    paths: Paths, lengths: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Let every player watch its stream; all of them advance by one chunk at a time.

    Returns:
        When each chunk was sent, in s, and the rate reported before, in MB/s; stream after stream.
    """
    order = np.argsort(-lengths, kind="stable")  # longest first: the active ones are a prefix
    paths = paths.take(order)
    sorted_lengths = lengths[order]
    count, longest = len(lengths), int(sorted_lengths[0])
    active = np.searchsorted(-sorted_lengths, -np.arange(longest), side="left")

    steps = int(1.25 * longest) + 30
    capacity = _capacity_of(paths, steps, rng)
    # MB that the path can have carried before each step; streams are stacked into one increasing
    # array, so that a single search finds when all transfers of a round end.
    carried = np.cumsum(capacity * _STEP, axis=1)
    carried = np.concatenate((np.zeros((count, 1)), carried[:, :-1]), axis=1)
    base = np.arange(count) * (carried.max() + capacity.max() * _STEP + 1.0)
    stacked = (carried + base[:, None]).ravel()
    capacity = capacity.ravel()

    shape = (longest, count)
    noise = rng.standard_normal(shape, dtype=np.float32)
    scene_noise = rng.standard_normal(shape, dtype=np.float32)
    append = 0.030 * np.exp(0.7 * rng.standard_normal(shape, dtype=np.float32))
    queue = rng.standard_exponential(shape, dtype=np.float32) * 0.034
    is_low = rng.random(shape, dtype=np.float32) < paths.low
    depth = rng.random(shape, dtype=np.float32)
    is_sticky = rng.random(shape, dtype=np.float32) < paths.sticky
    # The server acts on a message of the player, which comes every 250 ms at the latest.
    late = np.where(rng.random(shape) < 0.2, 0.25 * rng.random(shape), 0.004 * rng.random(shape))

    sent = np.zeros(shape)
    rate = np.zeros(shape)
    now = np.zeros(count)
    buffered = np.zeros(count)
    scene = 0.55 * rng.standard_normal(count)
    # Before the first chunk TCP has seen no more than a window of ten packets per round trip.
    measured = 0.015 / paths.min_rtt
    reading = measured.copy()
    for i in range(longest):
        k = int(active[i])
        now, buffered, scene = now[:k], buffered[:k], scene[:k]
        measured, reading, min_rtt = measured[:k], reading[:k], paths.min_rtt[:k]

        fresh = measured * np.exp(paths.noise[:k] * noise[i, :k])
        floor = np.minimum(_LOWEST_READING, fresh)
        fresh = np.where(is_low[i, :k], floor * (fresh / floor) ** depth[i, :k], fresh)
        reading = np.where(is_sticky[i, :k], reading, fresh) if i else fresh
        sent[i, :k], rate[i, :k] = now, reading

        scene = 0.8 * scene + 0.33 * scene_noise[i, :k]
        # A controller that plans with the rate seen last and dares more with a full buffer.
        wanted = measured * _CHUNK * (0.3 + 0.7 * buffered / _BUFFER)
        size = np.clip(wanted, _SMALLEST, _LARGEST) * np.exp(scene)
        at = np.minimum((now / _STEP).astype(np.int64), steps - 1) + np.arange(k) * steps
        start = stacked[at] + capacity[at] * (now - (at - np.arange(k) * steps) * _STEP)
        end = np.searchsorted(stacked, start + size, side="right") - 1
        end = np.minimum(end, np.arange(1, k + 1) * steps - 1)
        transfer = (end - np.arange(k) * steps) * _STEP - now
        transfer += (start + size - stacked[end]) / capacity[end]
        # The congestion window doubles each round trip until it has caught up with the path.
        trips = 1 + (np.maximum(np.log2(size / (0.015 * 4.0**i)), 0) if i < 4 else 0)
        busy = transfer + min_rtt * trips + queue[i, :k]
        measured = size / busy
        took = busy + append[i, :k]

        buffered = np.maximum(buffered - took, 0) + _CHUNK
        wait = np.maximum(buffered - _BUFFER, 0)
        wait = np.where(wait > 0, wait + late[i, :k], 0)
        buffered = buffered - wait
        now = now + took + wait

    keep = np.arange(longest)[:, None] < sorted_lengths
    back = np.argsort(order)
    rows = keep[:, back].T
    milliseconds = np.round(sent[:, back].T[rows], 3)
    return milliseconds, np.round(rate[:, back].T[rows], 6).astype(np.float32)


def _interpolate_table(
    at: np.ndarray, table: Mapping[float, float], scale: Callable[..., Any] = np.asarray
) -> np.ndarray:
    """Linear between the entries of a table, on a scale of its values; constant outside."""
    return np.asarray(np.interp(at, list(table), scale(list(table.values()))))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _logistic(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def _with_odds(share: np.ndarray, factor: float) -> np.ndarray:
    """A probability whose odds are multiplied with a factor."""
    return factor * share / (1 - share + factor * share)


def _integer_ids(ids: np.ndarray, source: str) -> np.ndarray:
    """Trace ids as int64; strings are numbered in order of appearance."""
    if ids.dtype.kind in "iub":
        return ids.astype(np.int64)
    if ids.dtype.kind in "fc" or ids.ndim != 1:
        raise SchemaError(
            f"{source}: 'trace_id' holds {ids.dtype} of shape {ids.shape}; "
            "give one integer or string per chunk"
        )
    _, first, inverse = np.unique(ids.astype(str), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _number_column(name: str, values: Any, dtype: type, source: str) -> np.ndarray:
    """A column of finite numbers; rates also have to be non-negative."""
    array = np.asarray(values)
    if array.dtype.kind not in "iuf" or array.ndim != 1:
        raise SchemaError(
            f"{source}: {name!r} holds {array.dtype} of shape {array.shape}; "
            "give one number per chunk"
        )
    array = array.astype(dtype)
    bad = ~np.isfinite(array)
    if name == "rate":
        bad |= array < 0
    if bad.any():
        row = int(bad.argmax())
        raise DomainError(
            f"{source}: {name!r} is {array[row]} in row {row:,} ({int(bad.sum()):,} such rows); "
            "expected finite numbers" + (" of at least 0" if name == "rate" else "")
        )
    return array


def _grouping_order(ids: np.ndarray) -> np.ndarray | None:
    """Rows in an order that has each stream in one piece, by first appearance; None if they are."""
    runs = np.count_nonzero(np.diff(ids)) + (len(ids) > 0)
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    if runs == len(first):
        return None
    return np.argsort(first[inverse], kind="stable")
