"""The network path of each session: drawn from a population, or a recorded trace played again.

A path is a function of the session's key and of time. What is constant about it is found here; how
its capacity changes is hashed where it is needed (``_kernels.streaming``), so it never depends on
what is sent over it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from memento.errors import SettingError
from memento_puffer.streaming.traces import Paths, Population, Traces

__all__ = ["TracePaths"]

_STEP = 2.0  # s
_MB = 1e6
_NORMALS, _REACHED, _TRACE = 121, 141, 161  # purposes of random numbers
_LOW_READING = 0.02  # MB/s; so low a reading is not the path's rate
_GAP = 4.0  # s; a longer pause between two chunks is an outage
_WINDOW = 15  # chunks
_OUT = 0.02


@dataclass(frozen=True)
class TracePaths:
    """Paths of recorded streams, one drawn for each session and repeated as long as it takes.

    Args:
        traces: The recorded streams.
        readings: Whether rates are what TCP reported between chunks, as in Puffer's traces: noisy
            samples, of which the capacity is the slow part. It is their median over 15 chunks,
            without those below 20 kB/s, and a fiftieth of it in outages: pauses of more than 4 s,
            but for the 2 s that a chunk plays. How noisy, low and sticky readings are is taken from
            each stream, too. Otherwise rates are capacities, from their time to the next, and
            readings of them as noisy as those of the population.
        population: Of round-trip times, and of readings where ``readings`` is False.

    Raises:
        SettingError: Traces that are something else.

    Example:
        >>> traces = Traces([0] * 4 + [1] * 3, [0, 2, 4, 6, 0, 2, 12], [1.0] * 4 + [0.2] * 3)
        >>> TracePaths(traces).capacity[1].round(3)
        array([0.2  , 0.004, 0.004, 0.004, 0.004, 0.2  , 0.2  ])
    """

    traces: Traces
    readings: bool = True
    population: Population = field(default_factory=Population)

    def __post_init__(self) -> None:
        if not isinstance(self.traces, Traces):
            raise SettingError(f"traces={type(self.traces).__name__}; give memento's Traces")

    @cached_property
    def capacity(self) -> list[npt.NDArray[np.float64]]:
        """Of each trace, MB/s for each 2 s."""
        offsets = self.traces.offsets
        pieces = [slice(a, b) for a, b in pairwise(offsets)]
        return [self._of(self.traces.seconds[p], self.traces.rate[p]) for p in pieces]

    def _of(
        self, seconds: npt.NDArray[np.float64], rate: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """One trace in MB/s for each 2 s; readings are smoothed, and low where they have gaps."""
        seconds = seconds - seconds[0]
        steps = np.arange(math.ceil(seconds[-1] / _STEP) + 1) * _STEP
        level = np.asarray(rate, dtype=np.float64)
        if not self.readings:
            # The mean of each step: what was carried until its end, less what until its beginning.
            until = np.append(steps, steps[-1] + _STEP)
            carried = np.append(0.0, np.cumsum(level[:-1] * np.diff(seconds)))
            beyond = np.maximum(until - seconds[-1], 0.0) * level[-1]
            return np.diff(np.interp(until, seconds, carried) + beyond) / _STEP
        level = _running_median(np.where(level < _LOW_READING, np.nan, level))
        row = np.searchsorted(seconds, steps, side="right") - 1
        ends = seconds + np.append(np.diff(seconds), 0.0)
        out = ((ends - seconds)[row] > _GAP) & (steps < ends[row] - _STEP)
        return np.where(out, _OUT * level[row], level[row])

    def draw(self, day: int, keys: npt.NDArray[np.uint64]) -> tuple[Paths, npt.NDArray[np.int64]]:
        """Paths of sessions, and which trace each one plays."""
        from memento_puffer._kernels.hashing import uniforms

        chosen = np.floor(self.traces.streams * uniforms(keys, _TRACE)).astype(np.int64)
        drawn = drawn_paths(self.population, day, keys)
        columns: dict[str, Any] = dict(vars(drawn))
        columns["mean"] = np.array([c.mean() for c in self.capacity])[chosen]
        if self.readings:
            for name, values in zip(("noise", "low", "sticky"), self._habits, strict=True):
                columns[name] = values[chosen]
        return Paths(**columns), chosen

    @cached_property
    def _habits(self) -> npt.NDArray[np.float64]:
        """(3, traces): noise of readings, share of low ones, share of repeated ones."""
        offsets = self.traces.offsets
        habits = np.empty((3, len(offsets) - 1))
        for i, (a, b) in enumerate(pairwise(offsets)):
            rate = self.traces.rate[a:b].astype(np.float64)
            low = rate < _LOW_READING
            slow = _running_median(np.where(low, np.nan, rate))
            away = np.abs(np.log(rate[~low] / slow[~low])) if (~low).any() else np.zeros(1)
            habits[0, i] = min(np.median(away) / 0.6745, 1.5)
            habits[1, i] = low.mean()
            habits[2, i] = (np.diff(rate) == 0).mean() if len(rate) > 1 else 0.0
        return habits


def drawn_paths(population: Population, day: int, keys: npt.NDArray[np.uint64]) -> Paths:
    """Paths of sessions from a population."""
    from memento_puffer._kernels.hashing import normals, uniforms

    z = np.array([normals(keys, _NORMALS, k) for k in range(6)]).reshape(6, len(keys))
    u = np.array([uniforms(keys, _REACHED, k) for k in range(len(population.shifts))])
    return population.paths(day, z, u.reshape(len(population.shifts), len(keys)))


def _running_median(rate: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Over 15 values around each, fewer at the ends, without NaN; NaN only if all are."""
    half = _WINDOW // 2
    padded = np.concatenate((np.full(half, np.nan), rate, np.full(half, np.nan)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)
    known = np.isfinite(windows).any(axis=1)
    if not known.any():
        return np.full(len(rate), _LOW_READING)
    median = np.empty(len(rate))
    median[known] = np.nanmedian(windows[known], axis=1)
    # Where nothing is known, what was known last (or first).
    at = np.maximum.accumulate(np.where(known, np.arange(len(rate)), -1))
    return np.asarray(median[np.where(at < 0, np.flatnonzero(known)[0], at)])
