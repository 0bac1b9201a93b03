"""The streaming kernel against a player that looks every 50 ms and a server that waits for mail."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento_puffer._kernels import hashing, network, sessions
from memento_puffer._kernels import streaming as kernels
from memento_puffer.data.layout import CHUNK_TICKS, EVENT_TABLES, NOT_MEASURED, records

MASK = 2**64 - 1
SETTINGS = sessions.Settings(
    queue=0.008,
    queue_bytes=12e3,
    queue_spread=1.0,
    own_queue=0.4,
    own_queue_limit=1.5,
    append=0.03,
    append_spread=0.7,
    jitter=0.002,
    busy=0.1,
    unmeasured=0.3,
    bursts=0.1,
    burst=0.8,
    headroom=1.3,
    window=2.5,
    start=0.05,
    start_spread=1.0,
)


# ----------------------------------------------------------------------------------------------
# Random numbers


def slow_hash(key, purpose, counter):
    def mixed(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        return z ^ (z >> 31)

    first = mixed((key + purpose * 0xD1342543DE82EF95) & MASK)
    return mixed((first + (counter + 1) * 0x9E3779B97F4A7C15) & MASK)


@given(st.integers(0, MASK), st.integers(0, 200), st.integers(0, 2**40))
def test_hashes_are_those_of_whole_numbers(key, purpose, counter):
    keys = np.array([key], np.uint64)
    bits = slow_hash(key, purpose, counter)
    u = hashing.uniforms(keys, purpose, np.array([counter]))[0]
    assert 0 < u < 1
    assert u == ((bits >> 11) + 0.5) * 2.0**-53
    radius = math.sqrt(-2 * math.log(((bits >> 32) + 0.5) * 2.0**-32))
    z = radius * math.cos(2 * math.pi * (bits & 0xFFFFFFFF) * 2.0**-32)
    assert hashing.normals(keys, purpose, np.array([counter]))[0] == pytest.approx(z, abs=1e-12)


@pytest.mark.compiled
def test_random_numbers_are_uniform_normal_and_not_correlated():
    """Fixed seed; each bound is 5 standard errors: one false alarm in 10^5 seeds or so."""
    n = 200_000
    keys = hashing.session_keys(3, 5, np.arange(n))
    assert len(np.unique(keys)) == n
    for values in (
        hashing.uniforms(keys, 7),
        hashing.uniforms(np.full(n, keys[0]), 7, np.arange(n)),
    ):
        counts = np.bincount((values * 100).astype(int), minlength=100)
        assert ((counts - n / 100) ** 2 / (n / 100)).sum() < 99 + 5 * math.sqrt(2 * 99)
    first, second = hashing.normals(keys, 1), hashing.normals(keys, 2)
    following = hashing.normals(keys, 1, 1)
    for z in (first, second, following):
        assert abs(z.mean()) < 5 / math.sqrt(n)
        assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
        assert abs((np.abs(z) > 1.959964).mean() - 0.05) < 5 * math.sqrt(0.05 * 0.95 / n)
    for other in (second, following):
        assert abs((first * other).mean()) < 5 / math.sqrt(n)


# ----------------------------------------------------------------------------------------------
# Network


def path(rate=0.4e6, rtt=0.05, outage=0.0, slow=0.4, trace=None, sticky=0.1):
    start, steps = (-1, 1) if trace is None else (0, len(trace))
    return np.array([rate, rtt, 0.4, 0.05, sticky, outage, slow, start, steps], dtype=np.float64)


@pytest.mark.parametrize("begin", [0.0, 0.3, 1.99])
@pytest.mark.parametrize("size", [2e3, 80e3, 1.5e6])
def test_a_transfer_takes_as_long_as_tiny_steps_say(begin, size):
    trace = np.array([2e5, 9e5, 5e4, 4e5])
    states, _ = sessions.new_states(1)
    p = path(trace=trace)
    network.begin_ramps(states, p[None])
    assert states[0, sessions.NET_RAMP] == pytest.approx(15000 / 0.05)
    end = network._carry_bytes(states[0], p, np.uint64(1), trace, begin, size, 1e9)

    step, t, left, ramp = 1e-4, begin, size, 15000 / 0.05
    while left > 0:
        capacity = trace[int(t / 2 + 1e-9) % len(trace)]
        left -= min(ramp, capacity) * step
        if ramp < capacity:
            ramp = min(ramp * 2 ** (step / 0.05), capacity)
        t += step
    assert end == pytest.approx(t, abs=2e-3 * (1 + end - begin))


def test_a_transfer_that_ends_too_late_never_arrives():
    states, _ = sessions.new_states(1)
    trace = np.array([1000.0])
    p = path(trace=trace)
    network.begin_ramps(states, p[None])
    args = (states[0], p, np.uint64(1), trace, SETTINGS)
    assert network.transmit(*args, 0.0, 1e6, 0.0, 60.0) == np.inf
    assert network.transmit(*args, 1.0, 10.0, 0.0, 60.0) == np.inf  # behind the other


def test_capacity_depends_on_time_alone():
    """However it is reached: in one go, or in many."""
    key, p = np.uint64(77), path(outage=0.05)
    found = []
    for stops in (range(400), [399], [3, 4, 250, 399]):
        states, _ = sessions.new_states(1)
        with np.errstate(over="ignore"):
            for piece in stops:
                network._reach_piece(states[0], p, key, np.zeros(1), piece)
        found.append(states[0, sessions.NET_CAPACITY])
    assert found[0] == found[1] == found[2] > 0


@pytest.mark.compiled
def test_capacity_has_the_mean_spread_and_outages_it_should():
    """Over 4,000 paths at one time; bounds are 5 standard errors and fixed seeds."""
    n, p = 4000, path(rate=1e6, outage=0.02, slow=0.35)
    keys = hashing.session_keys(0, 0, np.arange(n))
    states, _ = sessions.new_states(n)
    out = np.empty(n)
    for i in range(n):
        network._reach_piece(states[i], p, keys[i], np.zeros(1), 60)
        out[i] = states[i, sessions.NET_OUT_UNTIL] > 30.0
    # Two autoregressions of half the variance each; a level that has jumped in 30 s only rarely.
    log = states[:, sessions.NET_FAST] + states[:, sessions.NET_SLOW]
    assert abs(log.var() - 0.35**2) < 5 * 0.35**2 * math.sqrt(2 / n)
    jumped = (states[:, sessions.NET_LEVEL] != 0).mean()
    expected = 1 - (1 - 2 / 600) ** 15
    assert abs(jumped - expected) < 5 * math.sqrt(expected / n)
    # At rate 0.01 per s and a mean of 2 * 2.2 / 1.2 s, about 3.6 % of the time.
    share = 1 - math.exp(-0.01 * 2 * 2.2 / 1.2)
    assert abs(out.mean() - share) < 5 * math.sqrt(share / n) + 0.003


# ----------------------------------------------------------------------------------------------
# A session


def case(rate=0.4e6, rtt=0.05, outage=0.0, streams=((0.0, 40.0, 1),), seed=0, slow=0.4, trace=None):
    """Plans of one session and a little television."""
    rng = np.random.default_rng(seed)
    ladder = np.array([44, 93, 115, 143, 197, 264, 354, 495, 632, 890]) * 1e3
    shape = (6, 200)
    sizes = ladder * np.exp(0.5 * rng.standard_normal(shape))[..., None]
    quality = 10 + np.arange(10) * 0.8 + rng.standard_normal(shape)[..., None]
    ssim = (1 - 10 ** (-quality / 10)).astype(np.float32)
    video = sessions.Video(sizes.astype(np.int32), ssim, quality, np.array([19200.0, 38400, 76800]))
    begins, ends, channels = (np.array(column) for column in zip(*streams, strict=True))
    plans = sessions.Plans(
        hashing.session_keys(seed, 0, np.arange(1)),
        np.array([100.25]),
        np.array([0, len(streams)]),
        begins.astype(float),
        ends.astype(float),
        channels.astype(np.int64),
        path(rate, rtt, outage, slow, trace)[None],
        np.zeros(1) if trace is None else trace,
    )
    return plans, video


def choice(chunk):
    return (7 * chunk + chunk // 3) % 10


def run_kernel(plans, video, room=100_000):
    states, past = sessions.new_states(1)
    network.begin_ramps(states, plans.paths)
    tables = [np.zeros(room, records(kind)) for kind in EVENT_TABLES]
    rows = sessions.Rows(*tables, np.zeros(3, np.int64))
    pieces = [[] for _ in tables]

    def empty():
        for piece, table, used in zip(pieces, tables, rows.used, strict=True):
            piece.append(table[:used].copy())
        rows.used[:] = 0

    streams = np.zeros((len(plans.begins), sessions.S_WIDTH))
    active, calls = np.zeros(1, np.int64), 0
    while states[0, sessions.STATUS] != sessions.OVER:
        chosen = np.array([choice(int(states[0, sessions.CHUNKS]))])
        done = kernels.advance(states, past, plans, video, SETTINGS, active, chosen, rows, streams)
        calls += 1
        if not done:
            empty()
    empty()
    return [np.concatenate(piece) for piece in pieces], streams, states, past


class SlowSession:
    """Player and server with a queue of everything that happens, in the order of time."""

    def __init__(self, plans, video):
        self.plans, self.video = plans, video
        self.net = sessions.new_states(1)[0]
        network.begin_ramps(self.net, plans.paths)
        self.net = self.net[0]
        self.key, self.p = plans.keys[0], plans.paths[0]
        self.limit = plans.ends[-1]
        self.queue, self.tie = [], 0
        self.sent, self.acked, self.events = [], [], []
        self.clock, self.timer, self.chunks, self.audios = 0.0, None, 0, 0
        self.server, self.mail = None, 0.0
        self.stream = -1
        self.push(plans.begins[0], 0, self.select, 0)
        while self.queue:
            t, _, _, do, args = heapq.heappop(self.queue)
            do(t, *args)

    def push(self, t, rank, do, *args):
        self.tie += 1
        if t < np.inf:
            heapq.heappush(self.queue, (t, rank, self.tie, do, args))

    # player: ranks say what comes first at equal times; those of a stream that ended do nothing

    def select(self, t, j):
        self.stream = j
        if j == len(self.plans.begins):
            return
        self.now, self.played, self.has_video, self.has_audio = t, 0.0, 0.0, None
        self.waiting, self.since, self.stalled, self.started = True, t, 0.0, False
        newest = math.floor((self.plans.start[0] + t) / sessions.CHUNK) - 1
        first = max(newest - 15, 0)
        self.has_audio = math.floor(first * sessions.CHUNK / 4.8) * 4.8 - first * sessions.CHUNK
        self.end = self.plans.ends[j]
        self.push(self.end, -1, self.select, j + 1)
        self.tell(t, 0, "event", (first, self.has_audio))
        self.push((math.floor(t / 0.05 + 1e-9) + 1) * 0.05, 2, self.look, j)
        if self.timer is None:
            with np.errstate(over="ignore"):
                self.timer = t + 0.25 * (1 + hashing.uniform(self.key, sessions.H_TIMER, 0))
            self.push(self.timer, 3, self.tick)

    def play(self, t):
        self.played += min(
            t - self.now, max(min(self.has_video, self.has_audio) - self.played, 0.0)
        )
        self.now = t

    def look(self, t, j):
        if self.stream != j:
            return
        self.play(t)
        empty = min(self.has_video, self.has_audio) - self.played < 0.1 - 1e-9
        if self.waiting and not empty:
            self.stalled += t - self.since
            self.waiting = False
            self.tell(t, 3 if self.started else 1, "event")
            self.started = True
        elif not self.waiting and empty:
            self.waiting, self.since = True, t
            self.tell(t, 2, "event")
        self.push((math.floor(t / 0.05 + 1e-9) + 1) * 0.05, 2, self.look, j)

    def tick(self, t):
        if self.stream < len(self.plans.begins):
            self.play(t)
            self.tell(t, 4, "event")
            self.timer += 0.25
            self.push(self.timer, 3, self.tick)

    def take(self, t, kind, j):
        if self.stream != j:
            return
        self.play(t)
        if kind == "video":
            self.has_video += sessions.CHUNK
        else:
            self.has_audio += 4.8
        self.tell(t, -1, kind)

    def tell(self, t, event, kind, start=None):
        stalled = self.stalled
        if self.waiting:
            stalled += max(math.floor(t / 0.05 + 1e-9) * 0.05 - self.since, 0.0)
        report = [
            round(1e3 * max(has - self.played, 0.0)) / 1e3
            for has in (self.has_video, self.has_audio)
        ]
        with np.errstate(over="ignore"):
            late = -math.log(hashing.uniform(self.key, sessions.H_JITTER, int(1e3 * t + 0.5)))
        arrives = self.plans.start[0] + t + 0.5 * self.p[sessions.LEAST_RTT] + 0.002 * late
        self.mail = arrives = max(arrives, self.mail)  # one connection keeps the order
        self.push(
            arrives - self.plans.start[0], 0, self.hear, event, kind, report,
            round(1e3 * stalled) / 1e3, self.stream, start, math.floor(1e3 * arrives),
        )  # fmt: skip

    # server

    def hear(self, t, event, kind, report, stalled, j, start, clock):
        if start is not None:
            first, audio = start
            self.server = {"stream": j, "first": first, "next": first, "audio": audio}
            self.video_out = self.audio_out = False
        self.clock = max(clock, self.clock)
        channel = int(self.plans.channels[j])
        if kind == "event":
            self.events.append((self.clock, j, channel, event, report[0], stalled))
        elif kind == "video":
            self.acked.append((self.clock, j, channel, self.server["next"] - 1, report[0], stalled))
            self.video_out = False
        else:
            self.audio_out = False
        self.attempt(report, stalled)

    def transmit(self, at, size, purpose, count):
        with np.errstate(over="ignore"):
            z = hashing.normal(self.key, purpose, count)
            return network.transmit(
                self.net, self.p, self.key, self.plans.traces, SETTINGS, at, size, z, self.limit
            )

    def append(self, purpose, count):
        with np.errstate(over="ignore"):
            return 0.03 * math.exp(0.7 * hashing.normal(self.key, purpose, count))

    def attempt(self, report, stalled):
        server = self.server
        at = self.clock / 1e3 - self.plans.start[0]
        sending = not self.video_out and report[0] <= 15
        newest = math.floor((self.plans.start[0] + at) / sessions.CHUNK) - 1
        sending &= server["next"] <= newest
        if sending:
            self.net[sessions.CHUNKS] = self.chunks
            with np.errstate(over="ignore"):
                network.read_state(self.net, self.p, self.key, SETTINGS, at)
        position = (server["next"] - server["first"]) * sessions.CHUNK
        if not self.audio_out and report[1] <= 15 and server["audio"] <= position + 1e-9:
            levels = [19200.0, 38400.0, 76800.0]
            share = (report[1] - 1.5) / 12
            limit = 19200 + 57600 * min(share, 1)
            size = max(b for b in levels if b == 19200 or (share > 0 and b <= limit))
            with np.errstate(over="ignore"):
                size *= 0.98 + 0.04 * hashing.uniform(self.key, sessions.H_AUDIO_SIZE, self.audios)
            arrives = self.transmit(at, size, sessions.H_AUDIO_QUEUE, self.audios)
            due = arrives + self.append(sessions.H_AUDIO_APPEND, self.audios)
            self.push(due, 1, self.take, "audio", server["stream"])
            self.audio_out, self.audios = True, self.audios + 1
            server["audio"] += 4.8
            if sending:
                packets = self.net[sessions.IN_FLIGHT] + math.floor(size / 1500)
                self.net[sessions.IN_FLIGHT] = min(packets, self.net[sessions.CWND])
        if sending:
            channel = int(self.plans.channels[server["stream"]])
            format_ = choice(self.chunks)
            size = int(self.video.sizes[channel, server["next"], format_])
            self.sent.append(
                (self.clock, server["stream"], channel, server["next"], format_, size,
                 *(int(self.net[k]) for k in (sessions.CWND, sessions.IN_FLIGHT, sessions.MIN_RTT,
                                              sessions.RTT, sessions.RATE)),
                 report[0], stalled)
            )  # fmt: skip
            arrives = self.transmit(at, float(size), sessions.H_QUEUE, self.chunks)
            due = arrives + self.append(sessions.H_APPEND, self.chunks)
            if self.chunks == 0:
                with np.errstate(over="ignore"):
                    due += 0.05 * math.exp(hashing.normal(self.key, sessions.H_START, 0))
            self.push(due, 0, self.take, "video", server["stream"])
            server["next"] += 1
            self.video_out, self.chunks = True, self.chunks + 1


CASES = {
    "plenty": {},
    "slow": {"rate": 60e3, "seed": 1},
    "hardly anything": {"rate": 15e3, "rtt": 0.3, "seed": 2},
    "far away": {"rate": 2e6, "rtt": 0.65, "seed": 3},
    "outages": {"rate": 300e3, "outage": 0.3, "seed": 4, "streams": ((0.0, 150.0, 2),)},
    "zapping": {
        "streams": ((0.0, 1.3, 0), (1.3, 9.0, 4), (9.0, 9.02, 3), (9.02, 60.0, 5)),
        "seed": 5,
        "rate": 150e3,
    },
    "zapping far away": {
        "streams": ((0.0, 0.4, 0), (0.4, 0.7, 1), (0.7, 30.0, 2), (30.0, 44.0, 3)),
        "rtt": 0.9,
        "seed": 6,
    },
    "trace": {"trace": np.array([4e5, 5e3, 5e3, 5e3, 5e3, 5e3, 5e3, 8e5]), "seed": 7,
              "streams": ((0.0, 100.0, 2),)},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_session_is_that_of_a_queue_of_events(name):
    plans, video = case(**CASES[name])
    (sent, acked, events), _, _, _ = run_kernel(plans, video)
    slow = SlowSession(plans, video)
    tcp = ("cwnd", "in_flight", "min_rtt", "rtt", "delivery_rate")
    for found, rows, names in (
        (events, slow.events, ("event",)),
        (acked, slow.acked, ("video_ts",)),
        (sent, slow.sent, ("video_ts", "format", "size", *tcp)),
    ):
        names = ("time", "index", "channel", *names, "buffer", "cum_rebuf")
        assert len(found) == len(rows)
        for name, expected in zip(names, np.array(rows).reshape(-1, len(names)).T, strict=True):
            unit = {"time": 10**6, "video_ts": CHUNK_TICKS}.get(name, 1)
            atol = 1e-9 if name in ("buffer", "cum_rebuf") else 0
            np.testing.assert_allclose(found[name] / unit, expected, rtol=0, atol=atol)
    assert len(acked) >= (1 if name != "hardly anything" else 0)


@pytest.mark.parametrize("room", [1, 7])
def test_rows_do_not_depend_on_room(room):
    plans, video = case(**CASES["zapping"])
    whole, streams, _, _ = run_kernel(plans, video)
    pieces, streams_in_pieces, _, _ = run_kernel(plans, video, room=room)
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(streams, streams_in_pieces)


def test_what_the_player_and_the_server_keep_to():
    plans, video = case(streams=((0.0, 300.0, 1),), rate=1e6, slow=0.2)
    (sent, acked, events), _, _, _ = run_kernel(plans, video)
    time = sent["time"]
    assert (np.diff(sent["video_ts"]) == CHUNK_TICKS).all()
    assert sent["video_ts"][0] == (int((100.25) / sessions.CHUNK) - 1 - 15) * CHUNK_TICKS
    assert (sent["buffer"] <= 15).all()
    assert events["buffer"].max() < 15 + sessions.CHUNK
    assert (time[1:] >= acked["time"][: len(time) - 1]).all()  # one chunk at a time
    steady = np.diff(time)[20:]
    assert np.median(steady) / 1e9 == pytest.approx(2.0, abs=0.02)
    assert steady.mean() / 1e9 == pytest.approx(2.002, abs=0.02)
    assert events["event"][:2].tolist() == [sessions.INIT, sessions.STARTUP]
    ticks = events["time"][events["event"] == sessions.TICK]
    assert np.diff(ticks).mean() / 1e6 == pytest.approx(250, abs=0.2)
    stalled = events["cum_rebuf"][events["event"] == sessions.STARTUP]
    assert 0 < stalled[0] < 1
    assert (np.diff(events["cum_rebuf"]) >= 0).all()


def test_a_connection_outlives_a_channel():
    plans, video = case(streams=((0.0, 20.0, 0), (20.0, 40.0, 1)))
    (sent, _, events), _, states, past = run_kernel(plans, video)
    second = sent["index"] == 1
    # The window goes on where it was, playback starts anew.
    assert sent["cwnd"][second][0] > sent["cwnd"][0]
    init = events[events["event"] == sessions.INIT]
    assert init[["buffer", "cum_rebuf"]].tolist() == [(0, 0), (0, 0)]
    assert states[0, sessions.REMEMBERED] == sessions.PAST
    assert np.isfinite(past).all()


def test_the_first_chunk_of_a_stream_left_early_is_not_acknowledged():
    plans, video = case(rate=20e3, streams=((0.0, 2.0, 0), (2.0, 30.0, 1)))
    (sent, acked, _), _, _, _ = run_kernel(plans, video)
    assert (sent["index"] == 0).sum() == 1
    assert (acked["index"] == 0).sum() == 0


# ----------------------------------------------------------------------------------------------
# What a controller is asked


def test_histories_are_those_of_acknowledged_chunks():
    plans, video = case(rate=900e3)
    (sent, acked, _), _, states, past = run_kernel(plans, video)
    took = acked["time"] - sent["time"][: len(acked)]
    n = len(acked)
    for k in range(1, 6):
        row = sent[n - k]
        known = past[0, -k]
        rates = row["delivery_rate"] / 1500, row["cwnd"], row["in_flight"]
        assert known[:3] == pytest.approx(rates)
        least = row["min_rtt"] if row["min_rtt"] != NOT_MEASURED else row["rtt"]
        assert known[3:5] == pytest.approx((least / 1e6, row["rtt"] / 1e6))
        assert known[5:] == pytest.approx((row["size"] / 1500, took[n - k] / 1e9))
    inputs = np.empty((1, 62))
    kernels.recall(states, past, np.array([0]), 8, inputs)
    np.testing.assert_array_equal(inputs[0, :56].reshape(8, 7), past[0, -8:])


def test_short_histories_repeat_the_oldest_and_empty_ones_the_state():
    states, past = sessions.new_states(2)
    states[:, [sessions.RATE, sessions.CWND, sessions.RTT]] = 3e6, 20, 5e4
    states[:, sessions.MIN_RTT] = NOT_MEASURED
    states[1, sessions.REMEMBERED] = 2
    past[1, -2:] = [[1] * 7, [2] * 7]
    inputs = np.full((2, 62), -1.0)
    kernels.recall(states, past, np.arange(2), 8, inputs)
    now = [2000, 20, 0, 0.05, 0.05]  # what was not measured is its upper bound
    assert inputs[0].tolist() == [*([*now, 0, 0] * 8), *now, -1]
    assert inputs[1].tolist() == [*([1] * 7 * 7), *([2] * 7), *now, -1]


def test_looking_ahead_ends_with_the_newest_chunk():
    plans, video = case()
    states, _ = sessions.new_states(1)
    states[0, [sessions.NEXT, sessions.NEWEST]] = 50, 51
    sizes, ssim = np.empty((1, 5, 10)), np.empty((1, 5, 10))
    kernels.look_ahead(states, plans, video, np.array([0]), sizes, ssim)
    np.testing.assert_array_equal(sizes[0, :2], video.sizes[1, 50:52])
    np.testing.assert_array_equal(ssim[0, :2], video.ssim[1, 50:52])
    assert np.isnan(sizes[0, 2:]).all()
    assert np.isnan(ssim[0, 2:]).all()


def test_autoregression():
    noise = np.random.default_rng(0).standard_normal(50)
    value, expected = noise[0], [noise[0]]
    for z in noise[1:]:
        value = 0.8 * value + 0.6 * z
        expected.append(value)
    np.testing.assert_allclose(kernels.smooth(noise, 0.8), expected, rtol=1e-12)
    assert len(kernels.smooth(noise[:0], 0.8)) == 0
