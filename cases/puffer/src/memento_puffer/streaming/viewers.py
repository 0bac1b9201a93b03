"""Who watches: when sessions of a day begin, which channels they select, and for how long.

A *session* is a visit to the page, a *stream* a channel watched in it. How long a viewer means to
stay does not depend on what happens. Distributions follow what is published about Puffer: time on
the site, streams of a session, and the share that is zapped away within four seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt

from memento.arguments import NotNegative, Positive, check_fields, number
from memento_puffer.streaming.content import CHANNELS

__all__ = ["Viewers", "Visits"]

DAY = 86400.0  # s
_LAST = 2.0  # s before the day's end at which everybody has left: what is under way arrives

# Time on the site: inverse CDF in s over the sessions of Puffer's primary experiment.
_TIME_ON_SITE = {
    0.0: 0.4, 0.01: 0.87, 0.05: 3.5, 0.1: 8.7, 0.25: 32, 0.5: 150, 0.75: 1361, 0.9: 5300,
    0.95: 9451, 0.99: 29000, 0.999: 73800, 1.0: 86400,
}  # fmt: skip
# Purposes of random numbers (those up to 100 belong to the network).
_ARRIVAL, _TIME, _LONG, _ZAPS, _ORDER, _SHARE, _ZAP, _CHANNEL = range(101, 109)
_MOST_STREAMS = 64
_HOURS = np.arange(25.0)


class Visits(NamedTuple):
    """Sessions in the order in which they begin; n sessions with m streams in all.

    Attributes:
        start: (n,) s since the day began, whole milliseconds.
        offsets: (n + 1,) int64: streams ``offsets[i]`` up to ``offsets[i + 1]`` are session i's.
        begins: (m,) s since the session began.
        ends: (m,) the same, above ``begins``.
        channels: (m,) int64.
    """

    start: npt.NDArray[np.float64]
    offsets: npt.NDArray[np.int64]
    begins: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    channels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Viewers:
    """The sessions of a day.

    Args:
        evening: How much busier the busiest hour is than the mean, as a share in [0, 1); a day
            begins at 11:00 UTC, and the busiest hour is 02:00 UTC, the evening in America.
        long_streams: Mean number of streams watched for a while in a session of the median length;
            longer sessions have more, >= 1.
        zaps: Mean number of streams left within 4 s, for each of the others, >= 0.
        stay: What times on the site are multiplied with, above 0.

    Raises:
        SettingError: A setting out of its range.
    """

    evening: Annotated[float, number(0, math.nextafter(1, 0), words="a share in [0, 1)")] = 0.6
    long_streams: Annotated[float, number(1, words="a finite number of at least 1")] = 3.0
    zaps: NotNegative = 1.25
    stay: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def visits(
        self,
        keys: npt.NDArray[np.uint64],
        numbers: npt.NDArray[np.int64],
        sessions: int,
        patience: npt.NDArray[np.float64] | float = 1.0,
    ) -> Visits:
        """What some sessions of a day intend.

        Session number i of N begins where the i-th N-th of the day's viewers is, so that sessions
        are in order; everything else follows from its key.

        Args:
            keys: (n,) of the sessions.
            numbers: (n,) their numbers, ascending, below ``sessions``.
            sessions: N.
            patience: What times on the site are multiplied with, for each or for all.

        Returns:
            The visits; who has not left by the end of the day leaves then.
        """
        from memento_puffer._kernels.hashing import uniforms

        n = len(keys)
        clock = np.interp(
            (numbers + uniforms(keys, _ARRIVAL)) / sessions, self._arrived(), 3600 * _HOURS
        )
        start = np.floor(1e3 * np.minimum(clock, DAY - 60)) / 1e3
        shares, seconds = list(_TIME_ON_SITE), np.log(list(_TIME_ON_SITE.values()))
        stays = patience * self.stay * np.exp(np.interp(uniforms(keys, _TIME), shares, seconds))

        # Longer sessions have more streams; geometric numbers, so that some have many.
        length = np.maximum(np.log(stays / 4) / math.log(150 / 4), 0.0)
        mean_long = 1 + (self.long_streams - 1) * length
        long = 1 + _geometric(uniforms(keys, _LONG), mean_long - 1)
        long = np.minimum(long, np.maximum(stays / 4, 1).astype(np.int64))
        zaps = _geometric(uniforms(keys, _ZAPS), self.zaps * mean_long * (stays > 8))
        long = np.minimum(long, _MOST_STREAMS // 2)
        zaps = np.minimum(zaps, np.minimum(_MOST_STREAMS // 2, (stays / 4).astype(np.int64)))

        count = long + zaps
        offsets = np.concatenate(([0], np.cumsum(count))).astype(np.int64)
        owner = np.repeat(np.arange(n), count)
        place = np.arange(offsets[-1]) - offsets[owner]
        theirs = keys[owner]
        # Those with the lowest draws are zapped, the first stream less often than the others.
        draw = uniforms(theirs, _ORDER, place)
        rank = np.empty(len(owner), np.int64)
        rank[np.lexsort((draw, owner))] = place
        zapped = rank < zaps[owner]
        brief = np.exp(np.log(0.35) + uniforms(theirs, _ZAP, place) * np.log(3.9 / 0.35))
        share = np.where(zapped, 0.0, -np.log(uniforms(theirs, _SHARE, place)))
        total = np.bincount(owner, share, minlength=n)
        for_zaps = np.bincount(owner, np.where(zapped, brief, 0.0), minlength=n)
        left = np.maximum(stays - for_zaps, 0.3)
        lasts = np.where(zapped, brief, left[owner] * share / total[owner])
        # Whole milliseconds add up to the same in any company.
        until = np.cumsum(np.maximum(np.rint(1e3 * lasts), 50).astype(np.int64))
        until -= np.concatenate(([0], until))[offsets[owner]]
        ends = np.minimum(until / 1e3, (DAY - _LAST - start)[owner])
        begins = np.where(place > 0, np.concatenate(([0.0], ends[:-1])), 0.0)
        channels = np.floor(len(CHANNELS) * uniforms(theirs, _CHANNEL, place)).astype(np.int64)

        kept = (begins < ends) | (place == 0)
        offsets = np.concatenate(([0], np.cumsum(np.bincount(owner[kept], minlength=n))))
        return Visits(start, offsets.astype(np.int64), begins[kept], ends[kept], channels[kept])

    def _arrived(self) -> npt.NDArray[np.float64]:
        """Share of a day's sessions that have begun by each full hour."""
        wave = 1 + self.evening * np.cos(2 * np.pi * (_HOURS - 15) / 24)
        arrived = np.concatenate(([0.0], np.cumsum(0.5 * (wave[1:] + wave[:-1]))))
        return np.asarray(arrived / arrived[-1])


def _geometric(u: npt.NDArray[np.float64], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Numbers from 0 on with P(k) proportional to (mean / (1 + mean))^k."""
    positive = np.maximum(mean, 1e-12)
    return np.floor(np.log(u) / np.log(positive / (1 + positive))).astype(np.int64)
