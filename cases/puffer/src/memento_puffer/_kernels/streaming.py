"""Players, a server and the network between them: sessions, each until its next decision.

A session is one row of numbers. It is advanced from message to message of the player until the
server has to choose the format of a chunk of video, or until the viewer leaves; so many sessions
move in lock step, one decision each. Sessions know nothing of each other, and everything random is
hashed (see ``hashing``): a session is the same in whatever company, in one piece or in many.

**Time** is in seconds since the session began. The way up takes half of the least round trip, and
messages stay in order, so what the server does about a message is worked out with the message: what
it sends reaches the player later than anything the player does before. Rows carry the server's
clock, in whole milliseconds of the day.

**Player.** Video and audio play while both have something left. Every 50 ms the player looks: with
less than 0.1 s of either it is rebuffering, and the time between such looks is what counts as
stalled. Between changes these looks are skipped, as nothing happens there.
"""

from __future__ import annotations

import math

import numpy as np

from memento._kernels import kernel
from memento_puffer._kernels import sessions as of
from memento_puffer._kernels.hashing import normal, uniform
from memento_puffer._kernels.network import read_state, transmit
from memento_puffer._kernels.sessions import Floats, Integers, Plans, Rows, Settings, Video
from memento_puffer.data.layout import (
    CHUNK_INPUTS,
    CHUNK_TICKS,
    NOT_MEASURED,
    PACKET,
)  # fmt: skip

_RATE_AT, _CWND_AT, _IN_FLIGHT_AT, _MIN_RTT_AT, _RTT_AT = (
    CHUNK_INPUTS.index(name) for name in ("delivery_rate", "cwnd", "in_flight", "min_rtt", "rtt")
)


# ----------------------------------------------------------------------------------------------
# Statistics of streams; as Puffer counts them (see ``qoe.stream_statistics``)


@kernel()
def _count_event(s, time, event, buffer, stalled):  # type: ignore[no-untyped-def]
    """Take an event into what is counted of the stream."""
    if s[of.CUT] > 0.0:
        return
    if buffer <= 0.3:
        if s[of.LOW_SINCE] < 0.0:
            s[of.LOW_SINCE] = time
        elif time - s[of.LOW_SINCE] > 20000.0:
            s[of.CUT] = 1.0
            return
    else:
        s[of.LOW_SINCE] = -1.0
    grown = stalled - s[of.LAST_STALLED] > 0.15
    if grown and s[of.FIRST_EVENT] == 0.0 and s[of.LAST_BUFFER] > 5.0 and buffer > 5.0:
        s[of.SLOW_DECODER] = 1.0
    s[of.LAST_BUFFER] = buffer
    s[of.LAST_STALLED] = stalled
    s[of.FIRST_EVENT] = 0.0
    if event in (of.STARTUP, of.PLAY, of.REBUFFER):
        s[of.LAST_CONTROL] = event
    if event == of.STARTUP and s[of.BEGAN_PLAY] < 0.0:
        s[of.BEGAN_PLAY] = time
        s[of.PLAY_STALLED] = stalled
    if event != of.INIT and s[of.LAST_CONTROL] >= 0.0 and s[of.LAST_CONTROL] != of.REBUFFER:
        s[of.LAST_PLAY] = time
        s[of.LAST_PLAY_STALLED] = stalled


@kernel()
def _close_stream(s, row):  # type: ignore[no-untyped-def]
    """Fill in a stream's row from the counts."""
    row[of.S_TRUNCATED] = s[of.CUT]
    if s[of.BEGAN_PLAY] < 0.0:
        row[of.S_STARTUP] = np.nan
        row[of.S_WATCH] = np.nan
        row[of.S_STALL] = np.nan
        row[of.S_BAD] = of.NEVER_STARTED
        return
    row[of.S_STARTUP] = s[of.PLAY_STALLED]
    row[of.S_WATCH] = (s[of.LAST_PLAY] - s[of.BEGAN_PLAY]) / 1e3
    row[of.S_STALL] = s[of.LAST_PLAY_STALLED] - s[of.PLAY_STALLED]
    if s[of.SLOW_DECODER] > 0.0:
        row[of.S_BAD] = of.SLOW_DECODED
    elif row[of.S_WATCH] <= 0.0:
        row[of.S_BAD] = of.NOTHING_PLAYED
    elif row[of.S_STALL] < 0.0:
        row[of.S_BAD] = of.NEGATIVE
    else:
        row[of.S_BAD] = of.GOOD


# ----------------------------------------------------------------------------------------------
# Player


@kernel()
def _play_until(s, t):  # type: ignore[no-untyped-def]
    """Let time pass for the player, without anything happening."""
    left = min(s[of.OWN_VIDEO], s[of.OWN_AUDIO]) - s[of.OWN_PLAYED]
    if left > 0.0:
        s[of.OWN_PLAYED] += min(t - s[of.OWN_TIME], left)
    s[of.OWN_TIME] = t


@kernel()
def _next_poll(s):  # type: ignore[no-untyped-def]
    """Find the next look at which the player may see a change."""
    left = min(s[of.OWN_VIDEO], s[of.OWN_AUDIO]) - s[of.OWN_PLAYED]
    if s[of.OWN_WAITING] > 0.0:
        if left >= of.EMPTY:
            s[of.OWN_POLL] = (math.floor(s[of.OWN_TIME] / of.POLL + 1e-9) + 1.0) * of.POLL
        else:
            s[of.OWN_POLL] = np.inf
    else:
        at = s[of.OWN_TIME] + max(left - of.EMPTY, 0.0)
        s[of.OWN_POLL] = (math.floor(at / of.POLL + 1e-9) + 1.0) * of.POLL


@kernel()
def _begin_stream(s, plans, i):  # type: ignore[no-untyped-def]
    """Select the next channel: empty buffers, the same connection."""
    j = plans.offsets[i] + int(s[of.STREAM])
    t = plans.begins[j]
    s[of.OWN_TIME] = t
    s[of.OWN_BEGAN] = t
    s[of.OWN_PLAYED] = 0.0
    s[of.OWN_VIDEO] = 0.0
    s[of.OWN_WAITING] = 1.0
    s[of.OWN_WAITS_SINCE] = t
    s[of.OWN_STALLED] = 0.0
    s[of.OWN_STARTED] = 0.0
    s[of.OWN_POLL] = np.inf
    s[of.OWN_VIDEO_DUE] = np.inf
    s[of.OWN_AUDIO_DUE] = np.inf
    if s[of.STREAM] == 0.0:
        s[of.OWN_TIMER] = t + of.TIMER * (1.0 + uniform(plans.keys[i], of.H_TIMER, 0))
    newest = math.floor((plans.start[i] + t) / of.CHUNK) - 1.0
    s[of.FIRST] = max(newest - of.HEAD_START, 0.0)
    s[of.NEXT] = s[of.FIRST]
    # Audio begins with the chunk that is on when the video begins.
    s[of.OWN_AUDIO] = (
        math.floor(s[of.FIRST] * of.CHUNK / of.AUDIO) * of.AUDIO - s[of.FIRST] * of.CHUNK
    )
    s[of.NEXT_AUDIO] = s[of.OWN_AUDIO]
    s[of.VIDEO_OUT] = 0.0
    s[of.AUDIO_OUT] = 0.0
    s[of.LOW_SINCE] = -1.0
    s[of.CUT] = 0.0
    s[of.LAST_BUFFER] = 0.0
    s[of.LAST_STALLED] = 0.0
    s[of.LAST_CONTROL] = -1.0
    s[of.BEGAN_PLAY] = -1.0
    s[of.LAST_PLAY] = -1.0
    s[of.SLOW_DECODER] = 0.0
    s[of.FIRST_EVENT] = 1.0


@kernel()
def _stalled_at(s, t):  # type: ignore[no-untyped-def]
    """Return what the player has counted as stalled, up to its last look."""
    if s[of.OWN_WAITING] == 0.0:
        return s[of.OWN_STALLED]
    look = math.floor(t / of.POLL + 1e-9) * of.POLL
    return s[of.OWN_STALLED] + max(look - s[of.OWN_WAITS_SINCE], 0.0)


@kernel()
def _thousandths(x):  # type: ignore[no-untyped-def]
    return math.floor(1e3 * x + 0.5) / 1e3


@kernel()
def _hear_player(s, plans, i, settings, t):  # type: ignore[no-untyped-def]
    """Take a message that the player sent now; return the server's time in ms of the day."""
    late = -settings.jitter * math.log(uniform(plans.keys[i], of.H_JITTER, int(1e3 * t + 0.5)))
    arrived = plans.start[i] + t + 0.5 * plans.paths[i, of.LEAST_RTT] + late
    time = max(math.floor(1e3 * arrived), s[of.CLOCK])
    s[of.VIDEO_BUFFER] = _thousandths(max(s[of.OWN_VIDEO] - s[of.OWN_PLAYED], 0.0))
    s[of.AUDIO_BUFFER] = _thousandths(max(s[of.OWN_AUDIO] - s[of.OWN_PLAYED], 0.0))
    s[of.STALLED] = _thousandths(_stalled_at(s, t))
    return time


# ----------------------------------------------------------------------------------------------
# Server


@kernel()
def _fill_row(row, s, i, channel, time):  # type: ignore[no-untyped-def]
    """Fill what all rows have; time in ms of the day."""
    row["time"] = int(time) * 1_000_000
    row["session"] = i
    row["index"] = int(s[of.STREAM])
    row["channel"] = channel
    row["buffer"] = s[of.VIDEO_BUFFER]
    row["cum_rebuf"] = s[of.STALLED]


@kernel()
def _remember_chunk(past, s, time):  # type: ignore[no-untyped-def]
    """Take an acknowledged chunk into the history, in the units of predictors, oldest first."""
    for j in range(of.PAST - 1):
        for c in range(of.KNOWN):
            past[j, c] = past[j + 1, c]
    _describe_tcp(s, past[of.PAST - 1])
    past[of.PAST - 1, of.NOW] = s[of.SENT_SIZE] / PACKET
    past[of.PAST - 1, of.NOW + 1] = max(time - s[of.SENT_AT], 1.0) / 1e3
    s[of.REMEMBERED] = min(s[of.REMEMBERED] + 1.0, of.PAST)


@kernel()
def _describe_tcp(s, out):  # type: ignore[no-untyped-def]
    out[_RATE_AT] = s[of.RATE] / PACKET
    out[_CWND_AT] = s[of.CWND]
    out[_IN_FLIGHT_AT] = s[of.IN_FLIGHT]
    # A predictor takes what was never measured for its upper bound (see ``clamp_sentinels``).
    out[_MIN_RTT_AT] = (s[of.RTT] if s[of.MIN_RTT] == NOT_MEASURED else s[of.MIN_RTT]) / 1e6
    out[_RTT_AT] = s[of.RTT] / 1e6


@kernel()
def _attempt_to_send(s, plans, video, settings, i, limit):  # type: ignore[no-untyped-def]
    """Let the server send audio and see whether it can send video, which is to be decided on."""
    p = plans.paths[i]
    key = plans.keys[i]
    at = s[of.CLOCK] / 1e3 - plans.start[i]
    position = (s[of.NEXT] - s[of.FIRST]) * of.CHUNK
    newest = math.floor((plans.start[i] + at) / of.CHUNK) - 1.0
    newest = min(newest, video.sizes.shape[1] - 1.0)
    if s[of.VIDEO_OUT] == 0.0 and s[of.VIDEO_BUFFER] <= of.FULL and s[of.NEXT] <= newest:
        s[of.NEWEST] = newest
        read_state(s, p, key, settings, at)
        s[of.STATUS] = of.DECISION
    if (
        s[of.AUDIO_OUT] == 0.0
        and s[of.AUDIO_BUFFER] <= of.FULL
        and s[of.NEXT_AUDIO] <= position + 1e-9
    ):
        count = int(s[of.AUDIOS])
        largest = video.audio.shape[0] - 1
        chosen = 0
        share = (s[of.AUDIO_BUFFER] - 0.1 * of.FULL) / (0.8 * of.FULL)
        allowed = video.audio[0] + (video.audio[largest] - video.audio[0]) * min(share, 1.0)
        for k in range(1, largest + 1):
            if share > 0.0 and video.audio[k] <= allowed:
                chosen = k
        size = video.audio[chosen] * (0.98 + 0.04 * uniform(key, of.H_AUDIO_SIZE, count))
        z = normal(key, of.H_AUDIO_QUEUE, count)
        arrives = transmit(s, p, key, plans.traces, settings, at, size, z, limit)
        spread = settings.append_spread * normal(key, of.H_AUDIO_APPEND, count)
        s[of.OWN_AUDIO_DUE] = arrives + settings.append * math.exp(spread)
        s[of.AUDIO_OUT] = 1.0
        s[of.NEXT_AUDIO] += of.AUDIO
        s[of.AUDIOS] += 1.0
        if s[of.STATUS] == of.DECISION:
            # It is on its way when the server looks.
            s[of.IN_FLIGHT] = min(s[of.IN_FLIGHT] + math.floor(size / PACKET), s[of.CWND])


@kernel()
def _send_video(s, plans, video, settings, i, format_, rows, streams, limit):  # type: ignore[no-untyped-def]
    """Send the chunk that was decided on."""
    key = plans.keys[i]
    p = plans.paths[i]
    j = plans.offsets[i] + int(s[of.STREAM])
    channel = plans.channels[j]
    chunk = int(s[of.NEXT])
    size = np.float64(video.sizes[channel, chunk, format_])
    ssim = np.float64(video.ssim[channel, chunk, format_])
    at = s[of.CLOCK] / 1e3 - plans.start[i]
    if rows.sent.shape[0] > 0:
        r = rows.used[0]
        rows.used[0] += 1
        row = rows.sent[r]
        _fill_row(row, s, i, channel, s[of.CLOCK])
        row["video_ts"] = chunk * CHUNK_TICKS
        row["format"] = format_
        row["size"] = int(size)
        row["cwnd"] = int(s[of.CWND])
        row["in_flight"] = int(s[of.IN_FLIGHT])
        row["min_rtt"] = int(s[of.MIN_RTT])
        row["rtt"] = int(s[of.RTT])
        row["delivery_rate"] = int(s[of.RATE])
        row["ssim_index"] = ssim
    out = streams[j]
    if out[of.S_CHUNKS] > 0.0:
        before = video.quality[channel, chunk - 1, int(s[of.OLD_VIDEO])]
        out[of.S_CHANGE] += abs(video.quality[channel, chunk, format_] - before)
        out[of.S_CHANGES] += 1.0
    out[of.S_CHUNKS] += 1.0
    out[of.S_BYTES] += size
    out[of.S_SSIM] += ssim
    out[of.S_RATE] += s[of.RATE]
    count = int(s[of.CHUNKS])
    z = normal(key, of.H_QUEUE, count)
    arrives = transmit(s, p, key, plans.traces, settings, at, size, z, limit)
    spread = settings.append_spread * normal(key, of.H_APPEND, count)
    s[of.OWN_VIDEO_DUE] = arrives + settings.append * math.exp(spread)
    if count == 0:
        spread = settings.start_spread * normal(key, of.H_START, 0)
        s[of.OWN_VIDEO_DUE] += min(settings.start * math.exp(spread), 10.0)
    s[of.SENT_AT] = s[of.CLOCK]
    s[of.SENT_SIZE] = size
    s[of.OLD_VIDEO] = format_
    s[of.VIDEO_OUT] = 1.0
    s[of.NEXT] += 1.0
    s[of.CHUNKS] += 1.0
    s[of.LAST_SSIM] = ssim
    s[of.STATUS] = of.RUNNING


@kernel()
def _note_event(s, plans, settings, i, event, t, rows):  # type: ignore[no-untyped-def]
    """Send an event to the server, which counts and records it."""
    time = _hear_player(s, plans, i, settings, t)
    _count_event(s, time, event, s[of.VIDEO_BUFFER], s[of.STALLED])
    s[of.CLOCK] = time
    if rows.events.shape[0] > 0:
        r = rows.used[2]
        rows.used[2] += 1
        row = rows.events[r]
        _fill_row(row, s, i, plans.channels[plans.offsets[i] + int(s[of.STREAM])], time)
        row["event"] = event


@kernel()
def _take_video(s, plans, settings, i, past, rows):  # type: ignore[no-untyped-def]
    """Let the player take the chunk of video that is due, and tell the server."""
    t = s[of.OWN_VIDEO_DUE]
    s[of.OWN_VIDEO_DUE] = np.inf
    s[of.OWN_VIDEO] += of.CHUNK
    time = _hear_player(s, plans, i, settings, t)
    s[of.CLOCK] = time
    s[of.VIDEO_OUT] = 0.0
    _remember_chunk(past, s, time)
    if rows.acked.shape[0] > 0:
        r = rows.used[1]
        rows.used[1] += 1
        row = rows.acked[r]
        _fill_row(row, s, i, plans.channels[plans.offsets[i] + int(s[of.STREAM])], time)
        row["video_ts"] = (int(s[of.NEXT]) - 1) * CHUNK_TICKS


@kernel()
def _look_at_buffers(s):  # type: ignore[no-untyped-def]
    """Let the player look whether it rebuffers; return the event that follows, or -1."""
    t = s[of.OWN_POLL]
    empty = min(s[of.OWN_VIDEO], s[of.OWN_AUDIO]) - s[of.OWN_PLAYED] < of.EMPTY - 1e-9
    event = -1
    if s[of.OWN_WAITING] > 0.0:
        if not empty:
            s[of.OWN_STALLED] += t - s[of.OWN_WAITS_SINCE]
            s[of.OWN_WAITING] = 0.0
            event = of.PLAY if s[of.OWN_STARTED] > 0.0 else of.STARTUP
            s[of.OWN_STARTED] = 1.0
    elif empty:
        s[of.OWN_WAITING] = 1.0
        s[of.OWN_WAITS_SINCE] = t
        event = of.REBUFFER
    _next_poll(s)
    return event


@kernel()
def _is_full(table, used):  # type: ignore[no-untyped-def]
    return table.shape[0] > 0 and used >= table.shape[0]


@kernel()
def _run_session(s, past, plans, video, settings, i, rows, streams):  # type: ignore[no-untyped-def]
    """Advance a session to its next decision or its end; return False if there is no room left."""
    last = plans.offsets[i + 1] - 1
    limit = plans.ends[last]
    while s[of.STATUS] == of.RUNNING:
        if _is_full(rows.acked, rows.used[1]) or _is_full(rows.events, rows.used[2]):
            return False
        j = plans.offsets[i] + int(s[of.STREAM])
        if s[of.OWN_BEGAN] < 0.0:
            _begin_stream(s, plans, i)
            _note_event(s, plans, settings, i, of.INIT, s[of.OWN_TIME], rows)
            _attempt_to_send(s, plans, video, settings, i, limit)
            continue
        end = plans.ends[j]
        t = min(min(s[of.OWN_VIDEO_DUE], s[of.OWN_AUDIO_DUE]), min(s[of.OWN_POLL], s[of.OWN_TIMER]))
        if t >= end:
            _close_stream(s, streams[j])
            s[of.STREAM] += 1.0
            s[of.OWN_BEGAN] = -1.0
            if j == last:
                s[of.STATUS] = of.OVER
            continue
        _play_until(s, t)
        if t == s[of.OWN_VIDEO_DUE]:
            _take_video(s, plans, settings, i, past, rows)
            _next_poll(s)
        elif t == s[of.OWN_AUDIO_DUE]:
            s[of.OWN_AUDIO_DUE] = np.inf
            s[of.OWN_AUDIO] += of.AUDIO
            s[of.AUDIO_OUT] = 0.0
            s[of.CLOCK] = _hear_player(s, plans, i, settings, t)
            _next_poll(s)
        elif t == s[of.OWN_POLL]:
            event = _look_at_buffers(s)
            if event < 0:
                continue
            _note_event(s, plans, settings, i, event, t, rows)
        else:
            s[of.OWN_TIMER] += of.TIMER
            _note_event(s, plans, settings, i, of.TICK, t, rows)
        _attempt_to_send(s, plans, video, settings, i, limit)
    return True


@kernel()
def _advance_sessions(states, past, plans, video, settings, active, decisions, rows, streams):  # type: ignore[no-untyped-def]
    for k in range(active.shape[0]):
        i = active[k]
        s = states[i]
        if s[of.STATUS] == of.DECISION:
            if _is_full(rows.sent, rows.used[0]):
                return k
            limit = plans.ends[plans.offsets[i + 1] - 1]
            _send_video(s, plans, video, settings, i, decisions[k], rows, streams, limit)
        if not _run_session(s, past[i], plans, video, settings, i, rows, streams):
            return k
    return active.shape[0]


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
        return int(
            _advance_sessions(
                states, past, plans, video, settings, active, decisions, rows, streams
            )
        )


# ----------------------------------------------------------------------------------------------
# What a controller is asked


@kernel()
def look_ahead(states, plans, video, active, sizes, ssim):  # type: ignore[no-untyped-def]
    """Fill sizes and ssim (sessions, steps, FORMATS) of the next chunks, NaN beyond the newest."""
    for k in range(active.shape[0]):
        i = active[k]
        s = states[i]
        channel = plans.channels[plans.offsets[i] + int(s[of.STREAM])]
        first = int(s[of.NEXT])
        known = int(s[of.NEWEST]) - first + 1
        for h in range(sizes.shape[1]):
            for f in range(sizes.shape[2]):
                if h < known:
                    sizes[k, h, f] = video.sizes[channel, first + h, f]
                    ssim[k, h, f] = video.ssim[channel, first + h, f]
                else:
                    sizes[k, h, f] = np.nan
                    ssim[k, h, f] = np.nan


@kernel()
def recall(states, past, active, window, inputs):  # type: ignore[no-untyped-def]
    """Fill the inputs of predictors but for the size asked about.

    Args:
        states: Of sessions that wait for a decision.
        past: Their histories.
        active: which of them, (k,).
        window: past chunks of an input, at most PAST.
        inputs: (k, window * KNOWN + NOW or more) float64.
    """
    for k in range(active.shape[0]):
        s = states[active[k]]
        history = past[active[k]]
        known = int(s[of.REMEMBERED])
        now = inputs[k, window * of.KNOWN : window * of.KNOWN + of.NOW]
        _describe_tcp(s, now)
        for slot in range(window):
            at = inputs[k, slot * of.KNOWN : (slot + 1) * of.KNOWN]
            if known == 0:
                at[: of.NOW] = now
                at[of.NOW :] = 0.0
            else:
                # The oldest one again where there are fewer.
                source = of.PAST - min(window - slot, known)
                for c in range(of.KNOWN):
                    at[c] = history[source, c]


# ----------------------------------------------------------------------------------------------
# Content


@kernel()
def _fill_smooth(noise, memory, out):  # type: ignore[no-untyped-def]
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
        _fill_smooth(noise, float(memory), out)
    return out
