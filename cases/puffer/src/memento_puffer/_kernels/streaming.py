"""Players, a server and the network between them: sessions, each until its next decision.

A session is one row of numbers. It is advanced from message to message of the player until the
server has to choose the format of a chunk of video, or until the viewer leaves; so many sessions
move in lock step, one decision each. Sessions know nothing of each other, and everything random is
hashed (see ``hashing``): a session is the same in whatever company, in one piece or in many.

**Time** is in seconds since the session began. The way up takes half of the least round trip, and
messages stay in order, so what the server does about a message is worked out with the message: what
it sends reaches the player later than anything the player does before. Rows carry the server's
clock, in whole milliseconds of the day.

**Network.** One bottleneck serves what is sent in order. In a piece of half a second its capacity c
is constant, and bytes leave at ``min(c, ramp)``, where the ramp doubles each round trip until it
reaches c, which has a closed form. What is left of earlier chunks is in the way of later ones.

**Player.** Video and audio play while both have something left. Every 50 ms the player looks: with
less than 0.1 s of either it is rebuffering, and the time between such looks is what counts as
stalled. Between changes these looks are skipped, as nothing happens there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel
from memento_puffer._kernels.hashing import Keys, normal, uniform

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CHUNK = 180180 / 90000  # s
AUDIO = 4.8  # s
TICKS = 180180
FULL = 15.0  # s, buffer up to which the server sends
HEAD_START = 15  # chunks between the newest one and where playback begins
EMPTY = 0.1  # s, buffer below which the player is rebuffering
POLL = 0.05  # s between looks
TIMER = 0.25  # s between messages
PAST = 10  # chunks that a connection remembers
KNOWN = 7  # about each: delivery rate, cwnd, in flight, min rtt, rtt, size, time
NOT_MEASURED = 4294967295.0  # us
PACKET = 1500.0  # bytes
FORMATS = 10

# Kinds of events, as rows name them.
INIT, STARTUP, REBUFFER, PLAY, TICK = range(5)
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

# The columns of rows.
(
    R_TIME, R_SESSION, R_INDEX, R_CHANNEL, R_CHUNK, R_FORMAT, R_SIZE, R_CWND, R_IN_FLIGHT,
    R_MIN_RTT, R_RTT, R_RATE, R_WIDTH,
) = range(13)  # fmt: skip

# Purposes of random numbers; those above 100 belong to whoever makes sessions.
(
    _H_FAST, _H_SLOW, _H_JUMPS, _H_LEVEL, _H_OUT, _H_LASTS, _H_QUEUE, _H_APPEND, _H_READING,
    _H_LOW, _H_DEPTH, _H_STICKY, _H_FLIGHT, _H_FLIGHT_SIZE, _H_UNMEASURED, _H_JITTER, _H_FIRST,
    _H_AUDIO_QUEUE, _H_AUDIO_APPEND, _H_AUDIO_SIZE, _H_TIMER, _H_CWND, _H_BEFORE, _H_BURST,
    _H_START,
) = range(1, 26)  # fmt: skip

_PIECE = 0.5  # s
_PIECES = 4  # in a step of 2 s
_LN2 = math.log(2.0)
_JUMPS = 2.0 / 600  # per step
_JUMP = 0.7 / math.sqrt(2.0)
_OUT = 0.02  # what an outage leaves of capacity
_LEAST_CAPACITY = 250.0  # bytes/s; slower is as good as nothing
_WINDOW = 150.0  # s; the least round trip is that of one or two of these
_MILLION = 1e6


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
    """Room for what is recorded, and how much of it is used."""

    sent: Integers  # (rows, R_WIDTH)
    sent_reals: Floats  # (rows, 3): ssim, buffer, stalled
    acked: Integers  # (rows, 5), the first columns of ``sent``
    acked_reals: Floats  # (rows, 2): buffer, stalled
    events: Integers  # (rows, 5): time, session, index, channel, event
    event_reals: Floats  # (rows, 2)
    used: Integers  # (3,) rows of each


# ----------------------------------------------------------------------------------------------
# Network


@kernel()
def _step(s, p, key, step):  # type: ignore[no-untyped-def]
    """Move the slow part of capacity on by one step of 2 s, which is ``step`` then."""
    sd = p[SLOW] * math.sqrt(0.5)
    fast = normal(key, _H_FAST, step)
    slow = normal(key, _H_SLOW, step)
    if step == 0:
        s[NET_FAST] = sd * fast
        s[NET_SLOW] = sd * slow
        s[NET_LEVEL] = 0.0
        return
    s[NET_FAST] = 0.85 * s[NET_FAST] + sd * math.sqrt(1.0 - 0.85 * 0.85) * fast
    s[NET_SLOW] = 0.98 * s[NET_SLOW] + sd * math.sqrt(1.0 - 0.98 * 0.98) * slow
    if uniform(key, _H_JUMPS, step) < _JUMPS:
        u = uniform(key, _H_LEVEL, step) - 0.5
        s[NET_LEVEL] = -math.copysign(_JUMP, u) * math.log(1.0 - 2.0 * abs(u))


@kernel()
def _reach(s, p, key, traces, piece):  # type: ignore[no-untyped-def]
    """Move capacity on to a piece of half a second, one after the other."""
    k = int(s[NET_PIECE])
    while k < piece:
        k += 1
        if p[TRACE_START] >= 0.0:
            k = piece
        else:
            if k % _PIECES == 0:
                _step(s, p, key, k // _PIECES)
            if uniform(key, _H_OUT, k) < p[OUTAGE] / _PIECES:
                lasts = 2.0 * uniform(key, _H_LASTS, k) ** (-1.0 / 2.2)
                s[NET_OUT_UNTIL] = max(s[NET_OUT_UNTIL], k * _PIECE + lasts)
    s[NET_PIECE] = k
    if p[TRACE_START] >= 0.0:
        at = int(p[TRACE_START]) + (k // _PIECES) % int(p[TRACE_STEPS])
        capacity = traces[at]
    else:
        log = s[NET_FAST] + s[NET_SLOW] + s[NET_LEVEL] - 0.5 * p[SLOW] * p[SLOW]
        capacity = p[MEAN] * math.exp(min(max(log, -5.0), 2.0))
        if k * _PIECE < s[NET_OUT_UNTIL]:
            capacity *= _OUT
    s[NET_CAPACITY] = max(capacity, _LEAST_CAPACITY)


@kernel()
def _carry(s, p, key, traces, begin, size, limit):  # type: ignore[no-untyped-def]
    """Return when the last byte has left the bottleneck; inf if that is after the limit."""
    t = begin
    left = size
    ramp = s[NET_RAMP]
    growth = _LN2 / p[LEAST_RTT]
    piece = int(t / _PIECE)
    _reach(s, p, key, traces, piece)
    while True:
        if t > limit:
            s[NET_RAMP] = ramp
            return np.inf
        capacity = s[NET_CAPACITY]
        room = (piece + 1) * _PIECE - t
        if ramp < capacity:
            span = min(room, math.log(capacity / ramp) / growth)
            bytes_ = ramp * math.expm1(growth * span) / growth
            if bytes_ >= left:
                span = math.log1p(left * growth / ramp) / growth
                bytes_ = left
            ramp = min(ramp * math.exp(growth * span), capacity)
        else:
            span = room
            bytes_ = capacity * span
            if bytes_ >= left:
                span = left / capacity
                bytes_ = left
        left -= bytes_
        t += span
        if left <= 0.0:
            break
        if span >= room:
            piece += 1
            t = piece * _PIECE
            _reach(s, p, key, traces, piece)
    lasted = t - begin
    # A sample is at most what there was to send in a round trip, and then it cannot lower the rate.
    sample = min(ramp, s[NET_CAPACITY])
    within = size / p[LEAST_RTT]
    s[NET_RATE] = sample if within >= sample else min(max(s[NET_RATE], within), sample)
    if lasted > 10.0 * p[LEAST_RTT]:
        # Ten round trips are the memory of BBR's estimate of the bottleneck.
        ramp = min(ramp, max(2.0 * size / lasted, 4.0 * PACKET / p[LEAST_RTT]))
    s[NET_RAMP] = ramp
    return t


@kernel()
def _background_queue(p, settings, z):  # type: ignore[no-untyped-def]
    spread = settings.queue_spread
    mean = settings.queue + settings.queue_bytes / p[MEAN]
    return min(mean * math.exp(spread * z - 0.5 * spread * spread), 3.0)


@kernel()
def _transmit(s, p, key, traces, settings, at, size, z, limit):  # type: ignore[no-untyped-def]
    """Send bytes and return when the player has the last one."""
    begin = max(at, s[NET_FREE])
    queue = _background_queue(p, settings, z)
    end = _carry(s, p, key, traces, begin, size, limit) if begin <= limit else np.inf
    s[NET_FREE] = end
    s[NET_LAST_BYTES] = size
    if end == np.inf:
        return np.inf
    least = p[LEAST_RTT]
    rate = s[NET_RATE]
    s[NET_PEAK] = max(rate, 0.9 * s[NET_PEAK])
    own = min(2.0 * s[NET_PEAK] * least, size) / s[NET_CAPACITY] - least
    own = settings.own_queue * min(max(own, 0.0), settings.own_queue_limit)
    sample = least + queue + own
    trips = min(max((end - begin) / sample, 1.0), 60.0)
    weight = 1.0 - 0.875**trips
    s[NET_RTT] += weight * (sample - s[NET_RTT]) if s[NET_ACKED] > 0 else sample - s[NET_RTT]
    s[NET_ACKED] += size / PACKET
    window = math.floor(end / _WINDOW)
    lowest = least + 0.1 * queue
    if window > s[NET_WINDOW]:
        s[NET_LEAST_BEFORE] = s[NET_LEAST] if window == s[NET_WINDOW] + 1 else np.inf
        s[NET_LEAST] = lowest
        s[NET_WINDOW] = window
    s[NET_LEAST] = min(s[NET_LEAST], lowest)
    s[NET_ARRIVED] = max(s[NET_ARRIVED], end + 0.5 * least + queue)
    return s[NET_ARRIVED]


@kernel()
def _read_state(s, p, key, settings, at):  # type: ignore[no-untyped-def]
    """Fill in what TCP says before a chunk is chosen, and before audio is sent with it."""
    chunk = int(s[CHUNKS])
    least = p[LEAST_RTT]
    if s[NET_ACKED] == 0.0:
        # The page was small: a few packets in a round trip.
        s[NET_RATE] = PACKET * (1.0 + 9.0 * uniform(key, _H_FIRST, 0)) / least
        s[NET_PEAK] = s[NET_RATE]
        s[NET_RTT] = least + _background_queue(p, settings, normal(key, _H_BEFORE, 0))
        s[NET_LEAST] = s[NET_RTT]
        s[NET_WINDOW] = 0.0
    if chunk == 0 or uniform(key, _H_STICKY, chunk) >= p[STICKY]:
        noise = math.exp(p[NOISE] * normal(key, _H_READING, chunk))
        fresh = s[NET_RATE] / settings.headroom * noise
        u = uniform(key, _H_BURST, chunk)
        if u < settings.bursts:
            fresh *= math.exp(-settings.burst * math.log(u / settings.bursts))
        if uniform(key, _H_LOW, chunk) < p[LOW]:
            floor = min(2000.0, fresh)
            fresh = floor * (fresh / floor) ** uniform(key, _H_DEPTH, chunk)
        s[NET_READING] = min(fresh, 4e9)
    s[RATE] = math.floor(s[NET_READING])
    window = settings.window * s[NET_PEAK] * least / PACKET
    window *= math.exp(0.15 * normal(key, _H_CWND, chunk))
    cwnd = math.floor(min(max(10.0, window), 10.0 + s[NET_ACKED]))
    s[CWND] = cwnd
    flight = 0.0
    if s[NET_FREE] > at:
        flight = (s[NET_FREE] - at) * s[NET_RATE] / PACKET
    elif at - s[NET_FREE] < s[NET_RTT]:
        last = min(s[NET_LAST_BYTES], s[NET_RATE] * s[NET_RTT])
        flight = last / PACKET * (1.0 - (at - s[NET_FREE]) / s[NET_RTT])
    if uniform(key, _H_FLIGHT, chunk) < settings.busy:
        flight += math.exp(math.log(100.0) * uniform(key, _H_FLIGHT_SIZE, chunk))
    s[IN_FLIGHT] = math.floor(min(flight, cwnd))
    s[MIN_RTT] = math.floor(_MILLION * min(s[NET_LEAST], s[NET_LEAST_BEFORE]))
    s[RTT] = math.floor(_MILLION * s[NET_RTT])
    if chunk == 0 and uniform(key, _H_UNMEASURED, 0) < settings.unmeasured:
        s[MIN_RTT] = NOT_MEASURED


# ----------------------------------------------------------------------------------------------
# Statistics of streams; as Puffer counts them (see ``qoe.stream_statistics``)


@kernel()
def _count_event(s, time, event, buffer, stalled):  # type: ignore[no-untyped-def]
    if s[CUT] > 0.0:
        return
    if buffer <= 0.3:
        if s[LOW_SINCE] < 0.0:
            s[LOW_SINCE] = time
        elif time - s[LOW_SINCE] > 20000.0:
            s[CUT] = 1.0
            return
    else:
        s[LOW_SINCE] = -1.0
    grown = stalled - s[LAST_STALLED] > 0.15
    if grown and s[FIRST_EVENT] == 0.0 and s[LAST_BUFFER] > 5.0 and buffer > 5.0:
        s[SLOW_DECODER] = 1.0
    s[LAST_BUFFER] = buffer
    s[LAST_STALLED] = stalled
    s[FIRST_EVENT] = 0.0
    if event in (STARTUP, PLAY, REBUFFER):
        s[LAST_CONTROL] = event
    if event == STARTUP and s[BEGAN_PLAY] < 0.0:
        s[BEGAN_PLAY] = time
        s[PLAY_STALLED] = stalled
    if event != INIT and s[LAST_CONTROL] >= 0.0 and s[LAST_CONTROL] != REBUFFER:
        s[LAST_PLAY] = time
        s[LAST_PLAY_STALLED] = stalled


@kernel()
def _close_stream(s, row):  # type: ignore[no-untyped-def]
    """Fill in a stream's row from the counts."""
    row[S_TRUNCATED] = s[CUT]
    if s[BEGAN_PLAY] < 0.0:
        row[S_STARTUP] = np.nan
        row[S_WATCH] = np.nan
        row[S_STALL] = np.nan
        row[S_BAD] = NEVER_STARTED
        return
    row[S_STARTUP] = s[PLAY_STALLED]
    row[S_WATCH] = (s[LAST_PLAY] - s[BEGAN_PLAY]) / 1e3
    row[S_STALL] = s[LAST_PLAY_STALLED] - s[PLAY_STALLED]
    if s[SLOW_DECODER] > 0.0:
        row[S_BAD] = SLOW_DECODED
    elif row[S_WATCH] <= 0.0:
        row[S_BAD] = NOTHING_PLAYED
    elif row[S_STALL] < 0.0:
        row[S_BAD] = NEGATIVE
    else:
        row[S_BAD] = GOOD


# ----------------------------------------------------------------------------------------------
# Player


@kernel()
def _play_until(s, t):  # type: ignore[no-untyped-def]
    """Let time pass for the player, without anything happening."""
    left = min(s[OWN_VIDEO], s[OWN_AUDIO]) - s[OWN_PLAYED]
    if left > 0.0:
        s[OWN_PLAYED] += min(t - s[OWN_TIME], left)
    s[OWN_TIME] = t


@kernel()
def _next_poll(s):  # type: ignore[no-untyped-def]
    """Find the next look at which the player may see a change."""
    left = min(s[OWN_VIDEO], s[OWN_AUDIO]) - s[OWN_PLAYED]
    if s[OWN_WAITING] > 0.0:
        if left >= EMPTY:
            s[OWN_POLL] = (math.floor(s[OWN_TIME] / POLL + 1e-9) + 1.0) * POLL
        else:
            s[OWN_POLL] = np.inf
    else:
        at = s[OWN_TIME] + max(left - EMPTY, 0.0)
        s[OWN_POLL] = (math.floor(at / POLL + 1e-9) + 1.0) * POLL


@kernel()
def _begin_stream(s, plans, i):  # type: ignore[no-untyped-def]
    """Select the next channel: empty buffers, the same connection."""
    j = plans.offsets[i] + int(s[STREAM])
    t = plans.begins[j]
    s[OWN_TIME] = t
    s[OWN_BEGAN] = t
    s[OWN_PLAYED] = 0.0
    s[OWN_VIDEO] = 0.0
    s[OWN_WAITING] = 1.0
    s[OWN_WAITS_SINCE] = t
    s[OWN_STALLED] = 0.0
    s[OWN_STARTED] = 0.0
    s[OWN_POLL] = np.inf
    s[OWN_VIDEO_DUE] = np.inf
    s[OWN_AUDIO_DUE] = np.inf
    if s[STREAM] == 0.0:
        s[OWN_TIMER] = t + TIMER * (1.0 + uniform(plans.keys[i], _H_TIMER, 0))
    newest = math.floor((plans.start[i] + t) / CHUNK) - 1.0
    s[FIRST] = max(newest - HEAD_START, 0.0)
    s[NEXT] = s[FIRST]
    # Audio begins with the chunk that is on when the video begins.
    s[OWN_AUDIO] = math.floor(s[FIRST] * CHUNK / AUDIO) * AUDIO - s[FIRST] * CHUNK
    s[NEXT_AUDIO] = s[OWN_AUDIO]
    s[VIDEO_OUT] = 0.0
    s[AUDIO_OUT] = 0.0
    s[LOW_SINCE] = -1.0
    s[CUT] = 0.0
    s[LAST_BUFFER] = 0.0
    s[LAST_STALLED] = 0.0
    s[LAST_CONTROL] = -1.0
    s[BEGAN_PLAY] = -1.0
    s[LAST_PLAY] = -1.0
    s[SLOW_DECODER] = 0.0
    s[FIRST_EVENT] = 1.0


@kernel()
def _stalled_at(s, t):  # type: ignore[no-untyped-def]
    """Return what the player has counted as stalled, up to its last look."""
    if s[OWN_WAITING] == 0.0:
        return s[OWN_STALLED]
    look = math.floor(t / POLL + 1e-9) * POLL
    return s[OWN_STALLED] + max(look - s[OWN_WAITS_SINCE], 0.0)


@kernel()
def _thousandths(x):  # type: ignore[no-untyped-def]
    return math.floor(1e3 * x + 0.5) / 1e3


@kernel()
def _hear(s, plans, i, settings, t):  # type: ignore[no-untyped-def]
    """Take a message that the player sent now; return the server's time in ms of the day."""
    late = -settings.jitter * math.log(uniform(plans.keys[i], _H_JITTER, int(1e3 * t + 0.5)))
    arrived = plans.start[i] + t + 0.5 * plans.paths[i, LEAST_RTT] + late
    time = max(math.floor(1e3 * arrived), s[CLOCK])
    s[VIDEO_BUFFER] = _thousandths(max(s[OWN_VIDEO] - s[OWN_PLAYED], 0.0))
    s[AUDIO_BUFFER] = _thousandths(max(s[OWN_AUDIO] - s[OWN_PLAYED], 0.0))
    s[STALLED] = _thousandths(_stalled_at(s, t))
    return time


# ----------------------------------------------------------------------------------------------
# Server


@kernel()
def _remember(past, s, time):  # type: ignore[no-untyped-def]
    """Take an acknowledged chunk into the history, in the units of predictors, oldest first."""
    for j in range(PAST - 1):
        for c in range(KNOWN):
            past[j, c] = past[j + 1, c]
    _describe(s, past[PAST - 1])
    past[PAST - 1, 5] = s[SENT_SIZE] / PACKET
    past[PAST - 1, 6] = max(time - s[SENT_AT], 1.0) / 1e3
    s[REMEMBERED] = min(s[REMEMBERED] + 1.0, PAST)


@kernel()
def _describe(s, out):  # type: ignore[no-untyped-def]
    out[0] = s[RATE] / PACKET
    out[1] = s[CWND]
    out[2] = s[IN_FLIGHT]
    # A predictor takes what was never measured for its upper bound (see ``clamp_sentinels``).
    out[3] = (s[RTT] if s[MIN_RTT] == NOT_MEASURED else s[MIN_RTT]) / _MILLION
    out[4] = s[RTT] / _MILLION


@kernel()
def _attempt(s, plans, video, settings, i, limit):  # type: ignore[no-untyped-def]
    """Let the server send audio and see whether it can send video, which is to be decided on."""
    p = plans.paths[i]
    key = plans.keys[i]
    at = s[CLOCK] / 1e3 - plans.start[i]
    position = (s[NEXT] - s[FIRST]) * CHUNK
    newest = math.floor((plans.start[i] + at) / CHUNK) - 1.0
    newest = min(newest, video.sizes.shape[1] - 1.0)
    if s[VIDEO_OUT] == 0.0 and s[VIDEO_BUFFER] <= FULL and s[NEXT] <= newest:
        s[NEWEST] = newest
        _read_state(s, p, key, settings, at)
        s[STATUS] = DECISION
    if s[AUDIO_OUT] == 0.0 and s[AUDIO_BUFFER] <= FULL and s[NEXT_AUDIO] <= position + 1e-9:
        count = int(s[AUDIOS])
        largest = video.audio.shape[0] - 1
        chosen = 0
        share = (s[AUDIO_BUFFER] - 0.1 * FULL) / (0.8 * FULL)
        allowed = video.audio[0] + (video.audio[largest] - video.audio[0]) * min(share, 1.0)
        for k in range(1, largest + 1):
            if share > 0.0 and video.audio[k] <= allowed:
                chosen = k
        size = video.audio[chosen] * (0.98 + 0.04 * uniform(key, _H_AUDIO_SIZE, count))
        z = normal(key, _H_AUDIO_QUEUE, count)
        arrives = _transmit(s, p, key, plans.traces, settings, at, size, z, limit)
        spread = settings.append_spread * normal(key, _H_AUDIO_APPEND, count)
        s[OWN_AUDIO_DUE] = arrives + settings.append * math.exp(spread)
        s[AUDIO_OUT] = 1.0
        s[NEXT_AUDIO] += AUDIO
        s[AUDIOS] += 1.0
        if s[STATUS] == DECISION:
            # It is on its way when the server looks.
            s[IN_FLIGHT] = min(s[IN_FLIGHT] + math.floor(size / PACKET), s[CWND])


@kernel()
def _send(s, plans, video, settings, i, format_, rows, streams, limit):  # type: ignore[no-untyped-def]
    """Send the chunk that was decided on."""
    key = plans.keys[i]
    p = plans.paths[i]
    j = plans.offsets[i] + int(s[STREAM])
    channel = plans.channels[j]
    chunk = int(s[NEXT])
    size = np.float64(video.sizes[channel, chunk, format_])
    ssim = np.float64(video.ssim[channel, chunk, format_])
    at = s[CLOCK] / 1e3 - plans.start[i]
    if rows.sent.shape[0] > 0:
        r = rows.used[0]
        rows.used[0] += 1
        row = rows.sent[r]
        row[R_TIME] = int(s[CLOCK])
        row[R_SESSION] = i
        row[R_INDEX] = int(s[STREAM])
        row[R_CHANNEL] = channel
        row[R_CHUNK] = chunk
        row[R_FORMAT] = format_
        row[R_SIZE] = int(size)
        row[R_CWND] = int(s[CWND])
        row[R_IN_FLIGHT] = int(s[IN_FLIGHT])
        row[R_MIN_RTT] = int(s[MIN_RTT])
        row[R_RTT] = int(s[RTT])
        row[R_RATE] = int(s[RATE])
        rows.sent_reals[r, 0] = ssim
        rows.sent_reals[r, 1] = s[VIDEO_BUFFER]
        rows.sent_reals[r, 2] = s[STALLED]
    out = streams[j]
    if out[S_CHUNKS] > 0.0:
        before = video.quality[channel, chunk - 1, int(s[OLD_VIDEO])]
        out[S_CHANGE] += abs(video.quality[channel, chunk, format_] - before)
        out[S_CHANGES] += 1.0
    out[S_CHUNKS] += 1.0
    out[S_BYTES] += size
    out[S_SSIM] += ssim
    out[S_RATE] += s[RATE]
    count = int(s[CHUNKS])
    z = normal(key, _H_QUEUE, count)
    arrives = _transmit(s, p, key, plans.traces, settings, at, size, z, limit)
    spread = settings.append_spread * normal(key, _H_APPEND, count)
    s[OWN_VIDEO_DUE] = arrives + settings.append * math.exp(spread)
    if count == 0:
        spread = settings.start_spread * normal(key, _H_START, 0)
        s[OWN_VIDEO_DUE] += min(settings.start * math.exp(spread), 10.0)
    s[SENT_AT] = s[CLOCK]
    s[SENT_SIZE] = size
    s[OLD_VIDEO] = format_
    s[VIDEO_OUT] = 1.0
    s[NEXT] += 1.0
    s[CHUNKS] += 1.0
    s[LAST_SSIM] = ssim
    s[STATUS] = RUNNING


@kernel()
def _note(s, plans, settings, i, event, t, rows):  # type: ignore[no-untyped-def]
    """Send an event to the server, which counts and records it."""
    time = _hear(s, plans, i, settings, t)
    _count_event(s, time, event, s[VIDEO_BUFFER], s[STALLED])
    s[CLOCK] = time
    if rows.events.shape[0] > 0:
        r = rows.used[2]
        rows.used[2] += 1
        row = rows.events[r]
        row[0] = int(time)
        row[1] = i
        row[2] = int(s[STREAM])
        row[3] = plans.channels[plans.offsets[i] + int(s[STREAM])]
        row[4] = event
        rows.event_reals[r, 0] = s[VIDEO_BUFFER]
        rows.event_reals[r, 1] = s[STALLED]


@kernel()
def _acknowledge(s, plans, settings, i, past, rows):  # type: ignore[no-untyped-def]
    """Let the player take the chunk of video that is due, and tell the server."""
    t = s[OWN_VIDEO_DUE]
    s[OWN_VIDEO_DUE] = np.inf
    s[OWN_VIDEO] += CHUNK
    time = _hear(s, plans, i, settings, t)
    s[CLOCK] = time
    s[VIDEO_OUT] = 0.0
    _remember(past, s, time)
    if rows.acked.shape[0] > 0:
        r = rows.used[1]
        rows.used[1] += 1
        row = rows.acked[r]
        row[R_TIME] = int(time)
        row[R_SESSION] = i
        row[R_INDEX] = int(s[STREAM])
        row[R_CHANNEL] = plans.channels[plans.offsets[i] + int(s[STREAM])]
        row[R_CHUNK] = int(s[NEXT]) - 1
        rows.acked_reals[r, 0] = s[VIDEO_BUFFER]
        rows.acked_reals[r, 1] = s[STALLED]


@kernel()
def _look(s):  # type: ignore[no-untyped-def]
    """Let the player look whether it rebuffers; return the event that follows, or -1."""
    t = s[OWN_POLL]
    empty = min(s[OWN_VIDEO], s[OWN_AUDIO]) - s[OWN_PLAYED] < EMPTY - 1e-9
    event = -1
    if s[OWN_WAITING] > 0.0:
        if not empty:
            s[OWN_STALLED] += t - s[OWN_WAITS_SINCE]
            s[OWN_WAITING] = 0.0
            event = PLAY if s[OWN_STARTED] > 0.0 else STARTUP
            s[OWN_STARTED] = 1.0
    elif empty:
        s[OWN_WAITING] = 1.0
        s[OWN_WAITS_SINCE] = t
        event = REBUFFER
    _next_poll(s)
    return event


@kernel()
def _is_full(table, used):  # type: ignore[no-untyped-def]
    return table.shape[0] > 0 and used >= table.shape[0]


@kernel()
def _run(s, past, plans, video, settings, i, rows, streams):  # type: ignore[no-untyped-def]
    """Advance a session to its next decision or its end; return False if there is no room left."""
    last = plans.offsets[i + 1] - 1
    limit = plans.ends[last]
    while s[STATUS] == RUNNING:
        if _is_full(rows.acked, rows.used[1]) or _is_full(rows.events, rows.used[2]):
            return False
        j = plans.offsets[i] + int(s[STREAM])
        if s[OWN_BEGAN] < 0.0:
            _begin_stream(s, plans, i)
            _note(s, plans, settings, i, INIT, s[OWN_TIME], rows)
            _attempt(s, plans, video, settings, i, limit)
            continue
        end = plans.ends[j]
        t = min(min(s[OWN_VIDEO_DUE], s[OWN_AUDIO_DUE]), min(s[OWN_POLL], s[OWN_TIMER]))
        if t >= end:
            _close_stream(s, streams[j])
            s[STREAM] += 1.0
            s[OWN_BEGAN] = -1.0
            if j == last:
                s[STATUS] = OVER
            continue
        _play_until(s, t)
        if t == s[OWN_VIDEO_DUE]:
            _acknowledge(s, plans, settings, i, past, rows)
            _next_poll(s)
        elif t == s[OWN_AUDIO_DUE]:
            s[OWN_AUDIO_DUE] = np.inf
            s[OWN_AUDIO] += AUDIO
            s[AUDIO_OUT] = 0.0
            s[CLOCK] = _hear(s, plans, i, settings, t)
            _next_poll(s)
        elif t == s[OWN_POLL]:
            event = _look(s)
            if event < 0:
                continue
            _note(s, plans, settings, i, event, t, rows)
        else:
            s[OWN_TIMER] += TIMER
            _note(s, plans, settings, i, TICK, t, rows)
        _attempt(s, plans, video, settings, i, limit)
    return True


@kernel()
def _advance(states, past, plans, video, settings, active, decisions, rows, streams):  # type: ignore[no-untyped-def]
    for k in range(active.shape[0]):
        i = active[k]
        s = states[i]
        if s[STATUS] == DECISION:
            if _is_full(rows.sent, rows.used[0]):
                return k
            limit = plans.ends[plans.offsets[i + 1] - 1]
            _send(s, plans, video, settings, i, decisions[k], rows, streams, limit)
        if not _run(s, past[i], plans, video, settings, i, rows, streams):
            return k
    return active.shape[0]


def new_states(n: int) -> tuple[Floats, Floats]:
    """Return states and histories of n sessions that have not begun."""
    states = np.zeros((n, WIDTH))
    states[:, OWN_BEGAN] = -1.0
    states[:, NET_PIECE] = -1.0
    states[:, NET_LEAST_BEFORE] = np.inf
    states[:, NET_OUT_UNTIL] = -1.0
    states[:, LAST_SSIM] = np.nan
    return states, np.full((n, PAST, KNOWN), np.nan)


def begin_ramps(states: Floats, paths: Floats) -> None:
    """Let connections begin with ten packets in a round trip."""
    states[:, NET_RAMP] = 10 * PACKET / paths[:, LEAST_RTT]


def advance(
    states: Floats,
    past: Floats,
    plans: Plans,
    video: Video,
    settings: Settings,
    active: Integers,
    decisions: Integers,
    rows: Rows,
    streams: Floats,
) -> int:
    """Send what was decided and run on to the next decisions, or to the end.

    Args:
        states: (n, WIDTH) of ``new_states``.
        past: (n, PAST, KNOWN) the chunks acknowledged last, oldest first, NaN where there was none.
        plans: Of the sessions.
        video: Of the day.
        settings: Of the network.
        active: sessions to advance, which wait for a decision, or run since there was no room.
        decisions: the format for each of those that wait; not looked at for the others.
        rows: where rows are written, from ``used`` on. Tables without room are not written.
        streams: (m, S_WIDTH) sums and statistics of streams.

    Returns:
        How many of the active ones are done with. If not all, empty ``rows`` and call again with
        the rest, of which the first may have gone on.
    """
    with np.errstate(over="ignore"):  # uncompiled, numpy warns of what hashing means
        return int(_advance(states, past, plans, video, settings, active, decisions, rows, streams))


# ----------------------------------------------------------------------------------------------
# What a controller is asked


@kernel()
def _look_ahead(states, plans, video, active, sizes, ssim):  # type: ignore[no-untyped-def]
    for k in range(active.shape[0]):
        i = active[k]
        s = states[i]
        channel = plans.channels[plans.offsets[i] + int(s[STREAM])]
        first = int(s[NEXT])
        known = int(s[NEWEST]) - first + 1
        for h in range(sizes.shape[1]):
            for f in range(sizes.shape[2]):
                if h < known:
                    sizes[k, h, f] = video.sizes[channel, first + h, f]
                    ssim[k, h, f] = video.ssim[channel, first + h, f]
                else:
                    sizes[k, h, f] = np.nan
                    ssim[k, h, f] = np.nan


def look_ahead(
    states: Floats, plans: Plans, video: Video, active: Integers, sizes: Floats, ssim: Floats
) -> None:
    """Fill sizes and ssim (sessions, steps, FORMATS) of the next chunks, NaN beyond the newest."""
    _look_ahead(states, plans, video, active, sizes, ssim)


@kernel()
def _recall(states, past, active, window, inputs):  # type: ignore[no-untyped-def]
    for k in range(active.shape[0]):
        s = states[active[k]]
        history = past[active[k]]
        known = int(s[REMEMBERED])
        now = inputs[k, window * KNOWN : window * KNOWN + 5]
        _describe(s, now)
        for slot in range(window):
            at = inputs[k, slot * KNOWN : (slot + 1) * KNOWN]
            if known == 0:
                at[:5] = now
                at[5] = 0.0
                at[6] = 0.0
            else:
                # The oldest one again where there are fewer.
                source = PAST - min(window - slot, known)
                for c in range(KNOWN):
                    at[c] = history[source, c]


def recall(states: Floats, past: Floats, active: Integers, window: int, inputs: Floats) -> None:
    """Fill the inputs of predictors but for the size asked about.

    Args:
        states: Of sessions that wait for a decision.
        past: Their histories.
        active: which of them, (k,).
        window: past chunks of an input, at most PAST.
        inputs: (k, window * KNOWN + 5 or more) float64.
    """
    _recall(states, past, active, window, inputs)


# ----------------------------------------------------------------------------------------------
# Content


@kernel()
def _smooth(noise, memory, out):  # type: ignore[no-untyped-def]
    scale = math.sqrt(1.0 - memory * memory)
    value = noise[0]
    out[0] = value
    for i in range(1, noise.shape[0]):
        value = memory * value + scale * noise[i]
        out[i] = value


def smooth(noise: Floats, memory: float) -> Floats:
    """Return a first-order autoregression of variance 1 from (n,) standard normal numbers."""
    out = np.empty_like(noise)
    if len(noise):
        _smooth(noise, float(memory), out)
    return out
