"""What a simulated session is: the columns of its state, its plans, and room for its rows.

All is numbers in arrays, which kernels read and fill by the positions named here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memento_puffer._kernels.hashing import Keys
from memento_puffer.data.layout import CHUNK_INPUTS, CHUNK_SECONDS, EVENTS

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CHUNK = CHUNK_SECONDS
AUDIO = 4.8  # s
FULL = 15.0  # s, buffer up to which the server sends
HEAD_START = 15  # chunks between the newest one and where playback begins
EMPTY = 0.1  # s, buffer below which the player is rebuffering
POLL = 0.05  # s between looks
TIMER = 0.25  # s between messages
PAST = 10  # chunks that a connection remembers
KNOWN = len(CHUNK_INPUTS) + 1  # about each: what predictors take, and the time
NOW = CHUNK_INPUTS.index("size")  # of these are known before the next size
FORMATS = 10

# Kinds of events, as rows name them.
INIT, STARTUP, REBUFFER, PLAY, TICK = (
    EVENTS.index(name) for name in ("init", "startup", "rebuffer", "play", "timer")
)
# What a session waits for.
RUNNING, DECISION, OVER = range(3)

# What a session is: the columns of ``states``. Names with OWN_ are what the player knows, those
# with NET_ the network; the rest the server.
(
    STATUS, STREAM, OWN_TIME, OWN_BEGAN, OWN_PLAYED, OWN_VIDEO, OWN_AUDIO, OWN_WAITING,
    OWN_WAITS_SINCE, OWN_STALLED, OWN_STARTED, OWN_TIMER, OWN_POLL, OWN_VIDEO_DUE, OWN_AUDIO_DUE,
    CLOCK, VIDEO_BUFFER, AUDIO_BUFFER, STALLED, FIRST, NEXT, NEXT_AUDIO, VIDEO_OUT, AUDIO_OUT,
    OLD_VIDEO, CHUNKS, AUDIOS, REMEMBERED, LAST_SSIM, NEWEST, SENT_AT, SENT_SIZE,
    RATE, CWND, IN_FLIGHT, MIN_RTT, RTT,
    NET_FREE, NET_ARRIVED, NET_RAMP, NET_PIECE, NET_CAPACITY, NET_FAST, NET_SLOW, NET_LEVEL,
    NET_OUT_UNTIL, NET_RATE, NET_PEAK, NET_READING, NET_ACKED, NET_LAST_BYTES, NET_RTT, NET_LEAST,
    NET_LEAST_BEFORE, NET_WINDOW,
    LOW_SINCE, CUT, LAST_BUFFER, LAST_STALLED, LAST_CONTROL, BEGAN_PLAY, PLAY_STALLED, LAST_PLAY,
    LAST_PLAY_STALLED, SLOW_DECODER, FIRST_EVENT,
    WIDTH,
) = range(67)  # fmt: skip

# What is constant about a session's path: the columns of ``paths``.
(
    MEAN, LEAST_RTT, NOISE, LOW, STICKY, OUTAGE, SLOW, TRACE_START, TRACE_STEPS, PATH_WIDTH,
) = range(10)  # fmt: skip

# What is said of a stream: the columns of ``streams``.
(
    S_STARTUP, S_WATCH, S_STALL, S_CHUNKS, S_BYTES, S_SSIM, S_CHANGE, S_CHANGES, S_RATE, S_BAD,
    S_TRUNCATED, S_WIDTH,
) = range(12)  # fmt: skip
GOOD, NEVER_STARTED, SLOW_DECODED, NOTHING_PLAYED, NEGATIVE = range(5)

# Purposes of random numbers; those above 100 belong to whoever makes sessions.
(
    H_FAST, H_SLOW, H_JUMPS, H_LEVEL, H_OUT, H_LASTS, H_QUEUE, H_APPEND, H_READING,
    H_LOW, H_DEPTH, H_STICKY, H_FLIGHT, H_FLIGHT_SIZE, H_UNMEASURED, H_JITTER, H_FIRST,
    H_AUDIO_QUEUE, H_AUDIO_APPEND, H_AUDIO_SIZE, H_TIMER, H_CWND, H_BEFORE, H_BURST,
    H_START,
) = range(1, 26)  # fmt: skip


class Plans(NamedTuple):
    """What viewers want, and where they sit; n sessions with m streams in all."""

    keys: Keys  # (n,)
    start: Floats  # (n,) s since the day began, whole ms
    offsets: Integers  # (n + 1,) streams of session i: offsets[i] to offsets[i + 1]
    begins: Floats  # (m,) s since the session began
    ends: Floats  # (m,)
    channels: Integers  # (m,)
    paths: Floats  # (n, PATH_WIDTH); capacity in bytes/s
    traces: Floats  # bytes/s per step of 2 s, of those whose TRACE_START is not below 0


class Video(NamedTuple):
    """What is on: all channels of the day."""

    sizes: npt.NDArray[np.int32]  # (channels, chunks, FORMATS)
    ssim: npt.NDArray[np.float32]  # the same
    quality: Floats  # dB, unbounded
    audio: Floats  # (bitrates,) bytes of a chunk, ascending


class Settings(NamedTuple):
    """Constants of the network that no path has of its own."""

    queue: float  # s, part of the mean background queue that all paths have
    queue_bytes: float  # bytes at the path's capacity, the part that slow paths have more of
    queue_spread: float  # standard deviation of its log
    own_queue: float  # share of the queue that a chunk builds up itself which acks see on average
    own_queue_limit: float  # s
    append: float  # s, median
    append_spread: float  # of the log
    jitter: float  # s, mean
    busy: float  # chance of packets in flight without a reason
    unmeasured: float  # chance that a connection's first chunk has no min_rtt
    bursts: float  # chance that a reading is far above the rate
    burst: float  # mean of the log of that factor
    headroom: float  # capacity over what readings say on average
    window: float  # congestion window over what the peak rate carries in the least round trip
    start: float  # s that a player takes longer for the first chunk of a session, median
    start_spread: float  # of the log


class Rows(NamedTuple):
    """Room for what is recorded, see ``layout.records``, and how much of it is used."""

    sent: npt.NDArray[np.void]
    acked: npt.NDArray[np.void]
    events: npt.NDArray[np.void]
    used: Integers  # (3,) rows of each


def new_states(n: int) -> tuple[Floats, Floats]:
    """Return states and histories of n sessions that have not begun."""
    states = np.zeros((n, WIDTH))
    states[:, OWN_BEGAN] = -1.0
    states[:, NET_PIECE] = -1.0
    states[:, NET_LEAST_BEFORE] = np.inf
    states[:, NET_OUT_UNTIL] = -1.0
    states[:, LAST_SSIM] = np.nan
    return states, np.full((n, PAST, KNOWN), np.nan)
