"""The network between a server and a player: one bottleneck, which serves what is sent in order.

In a piece of half a second its capacity c is constant, and bytes leave at ``min(c, ramp)``, where
the ramp doubles each round trip until it reaches c, which has a closed form. What is left of
earlier chunks is in the way of later ones.
"""

from __future__ import annotations

import math

import numpy as np

from memento._kernels import kernel
from memento_puffer._kernels import sessions as of
from memento_puffer._kernels.hashing import normal, uniform
from memento_puffer._kernels.sessions import Floats
from memento_puffer.data.layout import (
    NOT_MEASURED,
    PACKET,
)  # fmt: skip

_PIECE = 0.5  # s
_PIECES = 4  # in a step of 2 s
_LN2 = math.log(2.0)
_JUMPS = 2.0 / 600  # per step
_JUMP = 0.7 / math.sqrt(2.0)
_OUT = 0.02  # what an outage leaves of capacity
_LEAST_CAPACITY = 250.0  # bytes/s; slower is as good as nothing
_WINDOW = 150.0  # s; the least round trip is that of one or two of these


@kernel()
def _step_capacity(s, p, key, step):  # type: ignore[no-untyped-def]
    """Move the slow part of capacity on by one step of 2 s, which is ``step`` then."""
    sd = p[of.SLOW] * math.sqrt(0.5)
    fast = normal(key, of.H_FAST, step)
    slow = normal(key, of.H_SLOW, step)
    if step == 0:
        s[of.NET_FAST] = sd * fast
        s[of.NET_SLOW] = sd * slow
        s[of.NET_LEVEL] = 0.0
        return
    s[of.NET_FAST] = 0.85 * s[of.NET_FAST] + sd * math.sqrt(1.0 - 0.85 * 0.85) * fast
    s[of.NET_SLOW] = 0.98 * s[of.NET_SLOW] + sd * math.sqrt(1.0 - 0.98 * 0.98) * slow
    if uniform(key, of.H_JUMPS, step) < _JUMPS:
        u = uniform(key, of.H_LEVEL, step) - 0.5
        s[of.NET_LEVEL] = -math.copysign(_JUMP, u) * math.log(1.0 - 2.0 * abs(u))


@kernel()
def _reach_piece(s, p, key, traces, piece):  # type: ignore[no-untyped-def]
    """Move capacity on to a piece of half a second, one after the other."""
    k = int(s[of.NET_PIECE])
    while k < piece:
        k += 1
        if p[of.TRACE_START] >= 0.0:
            k = piece
        else:
            if k % _PIECES == 0:
                _step_capacity(s, p, key, k // _PIECES)
            if uniform(key, of.H_OUT, k) < p[of.OUTAGE] / _PIECES:
                lasts = 2.0 * uniform(key, of.H_LASTS, k) ** (-1.0 / 2.2)
                s[of.NET_OUT_UNTIL] = max(s[of.NET_OUT_UNTIL], k * _PIECE + lasts)
    s[of.NET_PIECE] = k
    if p[of.TRACE_START] >= 0.0:
        at = int(p[of.TRACE_START]) + (k // _PIECES) % int(p[of.TRACE_STEPS])
        capacity = traces[at]
    else:
        log = s[of.NET_FAST] + s[of.NET_SLOW] + s[of.NET_LEVEL] - 0.5 * p[of.SLOW] * p[of.SLOW]
        capacity = p[of.MEAN] * math.exp(min(max(log, -5.0), 2.0))
        if k * _PIECE < s[of.NET_OUT_UNTIL]:
            capacity *= _OUT
    s[of.NET_CAPACITY] = max(capacity, _LEAST_CAPACITY)


@kernel()
def _carry_bytes(s, p, key, traces, begin, size, limit):  # type: ignore[no-untyped-def]
    """Return when the last byte has left the bottleneck; inf if that is after the limit."""
    t = begin
    left = size
    ramp = s[of.NET_RAMP]
    growth = _LN2 / p[of.LEAST_RTT]
    piece = int(t / _PIECE)
    _reach_piece(s, p, key, traces, piece)
    while True:
        if t > limit:
            s[of.NET_RAMP] = ramp
            return np.inf
        capacity = s[of.NET_CAPACITY]
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
            _reach_piece(s, p, key, traces, piece)
    lasted = t - begin
    # A sample is at most what there was to send in a round trip, and then it cannot lower the rate.
    sample = min(ramp, s[of.NET_CAPACITY])
    within = size / p[of.LEAST_RTT]
    s[of.NET_RATE] = sample if within >= sample else min(max(s[of.NET_RATE], within), sample)
    if lasted > 10.0 * p[of.LEAST_RTT]:
        # Ten round trips are the memory of BBR's estimate of the bottleneck.
        ramp = min(ramp, max(2.0 * size / lasted, 4.0 * PACKET / p[of.LEAST_RTT]))
    s[of.NET_RAMP] = ramp
    return t


@kernel()
def _background_queue(p, settings, z):  # type: ignore[no-untyped-def]
    spread = settings.queue_spread
    mean = settings.queue + settings.queue_bytes / p[of.MEAN]
    return min(mean * math.exp(spread * z - 0.5 * spread * spread), 3.0)


@kernel()
def transmit(s, p, key, traces, settings, at, size, z, limit):  # type: ignore[no-untyped-def]
    """Send bytes and return when the player has the last one."""
    begin = max(at, s[of.NET_FREE])
    queue = _background_queue(p, settings, z)
    end = _carry_bytes(s, p, key, traces, begin, size, limit) if begin <= limit else np.inf
    s[of.NET_FREE] = end
    s[of.NET_LAST_BYTES] = size
    if end == np.inf:
        return np.inf
    least = p[of.LEAST_RTT]
    rate = s[of.NET_RATE]
    s[of.NET_PEAK] = max(rate, 0.9 * s[of.NET_PEAK])
    own = min(2.0 * s[of.NET_PEAK] * least, size) / s[of.NET_CAPACITY] - least
    own = settings.own_queue * min(max(own, 0.0), settings.own_queue_limit)
    sample = least + queue + own
    trips = min(max((end - begin) / sample, 1.0), 60.0)
    weight = 1.0 - 0.875**trips
    s[of.NET_RTT] += (
        weight * (sample - s[of.NET_RTT]) if s[of.NET_ACKED] > 0 else sample - s[of.NET_RTT]
    )
    s[of.NET_ACKED] += size / PACKET
    window = math.floor(end / _WINDOW)
    lowest = least + 0.1 * queue
    if window > s[of.NET_WINDOW]:
        s[of.NET_LEAST_BEFORE] = s[of.NET_LEAST] if window == s[of.NET_WINDOW] + 1 else np.inf
        s[of.NET_LEAST] = lowest
        s[of.NET_WINDOW] = window
    s[of.NET_LEAST] = min(s[of.NET_LEAST], lowest)
    s[of.NET_ARRIVED] = max(s[of.NET_ARRIVED], end + 0.5 * least + queue)
    return s[of.NET_ARRIVED]


@kernel()
def read_state(s, p, key, settings, at):  # type: ignore[no-untyped-def]
    """Fill in what TCP says before a chunk is chosen, and before audio is sent with it."""
    chunk = int(s[of.CHUNKS])
    least = p[of.LEAST_RTT]
    if s[of.NET_ACKED] == 0.0:
        # The page was small: a few packets in a round trip.
        s[of.NET_RATE] = PACKET * (1.0 + 9.0 * uniform(key, of.H_FIRST, 0)) / least
        s[of.NET_PEAK] = s[of.NET_RATE]
        s[of.NET_RTT] = least + _background_queue(p, settings, normal(key, of.H_BEFORE, 0))
        s[of.NET_LEAST] = s[of.NET_RTT]
        s[of.NET_WINDOW] = 0.0
    if chunk == 0 or uniform(key, of.H_STICKY, chunk) >= p[of.STICKY]:
        noise = math.exp(p[of.NOISE] * normal(key, of.H_READING, chunk))
        fresh = s[of.NET_RATE] / settings.headroom * noise
        u = uniform(key, of.H_BURST, chunk)
        if u < settings.bursts:
            fresh *= math.exp(-settings.burst * math.log(u / settings.bursts))
        if uniform(key, of.H_LOW, chunk) < p[of.LOW]:
            floor = min(2000.0, fresh)
            fresh = floor * (fresh / floor) ** uniform(key, of.H_DEPTH, chunk)
        s[of.NET_READING] = min(fresh, 4e9)
    s[of.RATE] = math.floor(s[of.NET_READING])
    window = settings.window * s[of.NET_PEAK] * least / PACKET
    window *= math.exp(0.15 * normal(key, of.H_CWND, chunk))
    cwnd = math.floor(min(max(10.0, window), 10.0 + s[of.NET_ACKED]))
    s[of.CWND] = cwnd
    flight = 0.0
    if s[of.NET_FREE] > at:
        flight = (s[of.NET_FREE] - at) * s[of.NET_RATE] / PACKET
    elif at - s[of.NET_FREE] < s[of.NET_RTT]:
        last = min(s[of.NET_LAST_BYTES], s[of.NET_RATE] * s[of.NET_RTT])
        flight = last / PACKET * (1.0 - (at - s[of.NET_FREE]) / s[of.NET_RTT])
    if uniform(key, of.H_FLIGHT, chunk) < settings.busy:
        flight += math.exp(math.log(100.0) * uniform(key, of.H_FLIGHT_SIZE, chunk))
    s[of.IN_FLIGHT] = math.floor(min(flight, cwnd))
    s[of.MIN_RTT] = math.floor(1e6 * min(s[of.NET_LEAST], s[of.NET_LEAST_BEFORE]))
    s[of.RTT] = math.floor(1e6 * s[of.NET_RTT])
    if chunk == 0 and uniform(key, of.H_UNMEASURED, 0) < settings.unmeasured:
        s[of.MIN_RTT] = NOT_MEASURED


def begin_ramps(states: Floats, paths: Floats) -> None:
    """Let connections begin with ten packets in a round trip."""
    states[:, of.NET_RAMP] = 10 * PACKET / paths[:, of.LEAST_RTT]
