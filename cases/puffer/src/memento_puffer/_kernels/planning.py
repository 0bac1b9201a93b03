r"""Which format to send next, for many sessions one after the other.

**Plans.** A plan picks one format for each of the next H chunks. With ``q`` the quality of a chunk,
its value is the sum over chunks of

    q_i - switching |q_i - q_(i-1)| - stalling * (seconds without video),

and the buffer is counted in whole units, so that the best plan follows from a recursion backwards
over chunks. ``value[f, b]`` is what chunks i, i+1, ... are worth if chunk i came in format f and
left b units in the buffer; ``gain[g, b]`` is what the chunks after i are worth, less the stalls, if
chunk i+1 is requested in format g with b units left:

    value[f, b] = max_g  q_i,f - switching |q_i,f - q_(i+1),g| + gain[g, b].

How ``gain`` follows from the next ``value`` is where controllers differ: by the chances of classes
of transmission time, or by one predicted time.

**Ties.** With ``switching`` = 1 exact ties are common (any step up costs what it brings), so they
must not be left to rounding: values within 1e-9 are tied, and the first format wins.

A format whose size is NaN is never chosen; chunks count up to the first without any known size.
"""

from __future__ import annotations

import numpy as np

from memento._kernels import kernel

_TIE = 1e-9
_LEAST_CHANCE = 1e-5  # smaller chances are not followed
_LEAST_GOOD = 0.5  # a format that arrives in time less often than this is banned


@kernel()
def _count_steps(sizes):  # type: ignore[no-untyped-def]
    """Return how many chunks from the first on have a format of known size."""
    for i in range(sizes.shape[0]):
        known = False
        for f in range(sizes.shape[1]):
            if not np.isnan(sizes[i, f]):
                known = True
        if not known:
            return i
    return sizes.shape[0]


@kernel()
def _smallest(sizes):  # type: ignore[no-untyped-def]
    """Return the first format of the smallest known size."""
    best = -1
    for f in range(sizes.shape[0]):
        if not np.isnan(sizes[f]) and (best < 0 or sizes[f] < sizes[best]):
            best = f
    return best


@kernel()
def _step_back(before, quality, allowed, gain, switching, low, value):  # type: ignore[no-untyped-def]
    """Fill value[f, low:] for the formats of one chunk, given what follows the next chunk."""
    for f in range(before.shape[0]):
        for b in range(low, value.shape[1]):
            value[f, b] = -np.inf
        for g in range(quality.shape[0]):
            if allowed[g]:
                worth = before[f] - switching * abs(before[f] - quality[g])
                for b in range(low, value.shape[1]):
                    candidate = worth + gain[g, b]
                    current = value[f, b]
                    value[f, b] = candidate if candidate > current else current


@kernel()
def _first_step(last, quality, allowed, gain, switching, b):  # type: ignore[no-untyped-def]
    """Return the best format of the first chunk; no switching cost if ``last`` is NaN."""
    best = -1
    most = -np.inf
    for g in range(quality.shape[0]):
        if allowed[g]:
            switch = 0.0 if np.isnan(last) else switching * abs(last - quality[g])
            candidate = gain[g, b] - switch
            if best < 0 or candidate > most + _TIE:
                most = candidate
                best = g
    return best


# ----------------------------------------------------------------------------------------------
# By the chances of classes


@kernel()
def _clean_chances(given, sizes, point, chances, allowed):  # type: ignore[no-untyped-def]
    """Fill the chances that are followed, and which formats may be used.

    What is too unlikely moves to the last class. If no format may be used, the smallest one is,
    as if it arrived in the last class.
    """
    formats, classes = given.shape
    worst = classes - 1
    some = False
    for f in range(formats):
        allowed[f] = False
        if np.isnan(sizes[f]):
            continue
        likeliest = 0
        if point:
            for k in range(1, classes):
                if given[f, k] > given[f, likeliest]:
                    likeliest = k
        good = 0.0
        for k in range(worst):
            chance = given[f, k]
            if point:
                chance = 1.0 if k == likeliest else 0.0
            chances[f, k] = chance if chance >= _LEAST_CHANCE else 0.0
            good += chances[f, k]
        chances[f, worst] = 1.0 - good
        allowed[f] = good >= _LEAST_GOOD
        some = some or allowed[f]
    if not some:
        f = _smallest(sizes)
        allowed[f] = True
        chances[f, :worst] = 0.0
        chances[f, worst] = 1.0


@kernel()
def _blur(shares, sizes, blurred, chances):  # type: ignore[no-untyped-def]
    """Replace the chances of each format of known size by shares @ chances, with the sum 1.

    Chances of which nothing would be left stay as they are.
    """
    for f in range(chances.shape[0]):
        if np.isnan(sizes[f]):
            continue
        total = 0.0
        for k in range(chances.shape[1]):
            blurred[k] = 0.0
            for j in range(chances.shape[1]):
                blurred[k] += shares[k, j] * chances[f, j]
            total += blurred[k]
        if total > 0:
            for k in range(chances.shape[1]):
                chances[f, k] = blurred[k] / total


@kernel()
def _gain_by_chances(  # type: ignore[no-untyped-def]
    chances, allowed, value, chunk, stall, low, high, gain
):
    """Fill gain[g, low:high]; class k takes k units, ``stall`` is the cost of a unit."""
    full = value.shape[1] - 1
    for g in range(chances.shape[0]):
        if not allowed[g]:
            continue
        for b in range(low, high):
            gain[g, b] = 0.0
        for k in range(chances.shape[1]):
            chance = chances[g, k]
            if chance < _LEAST_CHANCE:
                continue
            for b in range(low, high):
                left = b - k
                waiting = -left if left < 0 else 0
                after = min(max(left, 0) + chunk, full)
                gain[g, b] += chance * (value[g, after] - stall * waiting)


@kernel()
def plan_by_chances(  # type: ignore[no-untyped-def]
    buffers, sizes, qualities, last, given, point, shares, switching, stall, chunk, full, out
):
    """Fill out with the first format of the plan with the best expected value.

    Args:
        buffers: int64 (n,), units of video left, at most ``full``.
        sizes: (n, steps, formats), only told apart by order; NaN if unknown. The first step of
            each session has a known one.
        qualities: (n, steps, formats).
        last: (n,), quality of the chunk before, NaN if there is none.
        given: (n, steps, formats, classes), distributions where the size is known. Class k takes
            k units, the last one counts as too late.
        point: use the likeliest class only.
        shares: (classes, classes), what of each class (column) goes to which (row) after formats
            were banned; (0, 0) to leave chances as they are.
        switching: cost of a change of quality by 1.
        stall: cost of a unit without video.
        chunk: units of video that a chunk brings, at most ``full``.
        full: units that the buffer can hold.
        out: int64 (n,).
    """
    formats, classes = given.shape[2:]
    blurs = shares.shape[0] > 0
    blurred = np.empty(classes)
    chances = np.empty((formats, classes))
    allowed = np.empty(formats, np.bool_)
    value = np.empty((formats, full + 1))
    gain = np.empty((formats, full + 1))
    for s in range(buffers.shape[0]):
        quality = qualities[s]
        steps = _count_steps(sizes[s])
        for f in range(formats):
            value[f, :] = quality[steps - 1, f]
        for i in range(steps - 1, 0, -1):
            _clean_chances(given[s, i], sizes[s, i], point, chances, allowed)
            if blurs:
                _blur(shares, sizes[s, i], blurred, chances)
            # after a chunk the buffer holds at least that chunk
            _gain_by_chances(chances, allowed, value, chunk, stall, chunk, full + 1, gain)
            _step_back(quality[i - 1], quality[i], allowed, gain, switching, chunk, value)
        b = buffers[s]
        _clean_chances(given[s, 0], sizes[s, 0], point, chances, allowed)
        if blurs:
            _blur(shares, sizes[s, 0], blurred, chances)
        _gain_by_chances(chances, allowed, value, chunk, stall, b, b + 1, gain)
        out[s] = _first_step(last[s], quality[0], allowed, gain, switching, b)


# ----------------------------------------------------------------------------------------------
# By one predicted time


@kernel()
def _mean(values, start, stop):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(start, stop):
        total += values[j]
    return total / (stop - start)


@kernel()
def _predict_paces(paces, window, robust, unknown, predicted):  # type: ignore[no-untyped-def]
    """Fill predicted with the seconds per byte of the next chunks; NaN in paces is not there."""
    past = paces.shape[0]
    start = past
    while start > 0 and not np.isnan(paces[start - 1]):
        start -= 1
    known = min(past - start, window)
    if known == 0:
        predicted[:] = unknown
        return
    error = 0.0
    if robust:
        for j in range(max(past - window, start + 1), past):
            expected = _mean(paces, max(j - window, start), j)
            error = max(error, abs(1.0 - paces[j] / expected))
    # each prediction enters the window of the next one, in place of the oldest pace
    recent = np.empty(known + predicted.shape[0])
    recent[:known] = paces[past - known :]
    for i in range(predicted.shape[0]):
        recent[known + i] = _mean(recent, i, i + known) * (1.0 + error)
        predicted[i] = recent[known + i]


@kernel()
def _gain_by_time(sizes, pace, value, unit, chunk, stalling, low, high, gain):  # type: ignore[no-untyped-def]
    full = value.shape[1] - 1
    for g in range(sizes.shape[0]):
        if np.isnan(sizes[g]):
            continue
        seconds = sizes[g] * pace
        for b in range(low, high):
            left = unit * b - seconds
            units = np.int64((max(left, 0.0) + chunk + 0.5 * unit) / unit)
            gain[g, b] = value[g, min(units, full)] - stalling * max(-left, 0.0)


@kernel()
def plan_by_time(  # type: ignore[no-untyped-def]
    buffers, sizes, qualities, last, paces, window, robust, unknown, switching, stalling, unit,
    chunk, full, out,
):  # fmt: skip
    """Fill out with the first format of the best plan if times are as predicted.

    Args:
        buffers: int64 (n,), units of video left, at most ``full``.
        sizes: (n, steps, formats) bytes, NaN if unknown. The first step of each session has a
            known one.
        qualities: (n, steps, formats).
        last: (n,), quality of the chunk before, NaN if there is none.
        paces: (n, past) seconds per byte of past chunks, oldest first; what lies before a NaN does
            not count. With ``robust``, chunks older than the window give the first predictions.
        window: how many past chunks are averaged.
        robust: multiply predictions by 1 + the largest relative error in the window.
        unknown: seconds per byte where no past chunk is known.
        switching: cost of a change of quality by 1.
        stalling: cost of a second without video.
        unit: seconds in a unit.
        chunk: seconds of video that a chunk brings.
        full: units that the buffer can hold.
        out: int64 (n,).
    """
    steps_at_most, formats = sizes.shape[1:]
    predicted = np.empty(steps_at_most)
    value = np.empty((formats, full + 1))
    gain = np.empty((formats, full + 1))
    low = min(np.int64((chunk + 0.5 * unit) / unit), full)
    for s in range(buffers.shape[0]):
        quality = qualities[s]
        steps = _count_steps(sizes[s])
        _predict_paces(paces[s], window, robust, unknown, predicted)
        for f in range(formats):
            value[f, :] = quality[steps - 1, f]
        for i in range(steps - 1, 0, -1):
            allowed = ~np.isnan(sizes[s, i])
            _gain_by_time(
                sizes[s, i], predicted[i], value, unit, chunk, stalling, low, full + 1, gain
            )
            _step_back(quality[i - 1], quality[i], allowed, gain, switching, low, value)
        b = buffers[s]
        allowed = ~np.isnan(sizes[s, 0])
        _gain_by_time(sizes[s, 0], predicted[0], value, unit, chunk, stalling, b, b + 1, gain)
        out[s] = _first_step(last[s], quality[0], allowed, gain, switching, b)


# ----------------------------------------------------------------------------------------------
# By the buffer alone


@kernel()
def follow_buffer(buffers, sizes, qualities, low, high, out):  # type: ignore[no-untyped-def]
    """Fill out with the best format below a size that grows with the buffer.

    Args:
        buffers: (n,) seconds.
        sizes: (n, formats), NaN if unknown; each session has a known one.
        qualities: (n, formats).
        low: buffer up to which the smallest format is sent.
        high: buffer from which on the largest is, above ``low``.
        out: int64 (n,).
    """
    for s in range(buffers.shape[0]):
        smallest = -1
        largest = -1
        for f in range(sizes.shape[1]):
            size = sizes[s, f]
            if np.isnan(size):
                continue
            if smallest < 0 or size < sizes[s, smallest]:
                smallest = f
            if largest < 0 or size > sizes[s, largest]:
                largest = f
        if buffers[s] >= high:
            out[s] = largest
            continue
        best = smallest
        if buffers[s] > low:
            least = sizes[s, smallest]
            share = (buffers[s] - low) / (high - low)
            limit = least + (sizes[s, largest] - least) * share
            best = -1
            for f in range(sizes.shape[1]):
                # a size that is NaN is not below the limit
                if sizes[s, f] <= limit and (best < 0 or qualities[s, f] > qualities[s, best]):
                    best = f
        out[s] = best


@kernel()
def score_formats(chunks, sizes, utilities, weight, offset, best_if_negative, out):  # type: ignore[no-untyped-def]
    """Fill out with the format of the largest ``(weight * (utility + offset) - chunks) / size``.

    Args:
        chunks: (n,) video left, in chunks.
        sizes: (n, formats), NaN if unknown; each session has a known one.
        utilities: (n, formats).
        weight: of utility against buffer.
        offset: added to utilities.
        best_if_negative: take the largest utility where no score reaches 0.
        out: int64 (n,).
    """
    for s in range(chunks.shape[0]):
        best = -1
        useful = -1
        most = -np.inf
        for f in range(sizes.shape[1]):
            if np.isnan(sizes[s, f]):
                continue
            score = (weight * (utilities[s, f] + offset) - chunks[s]) / sizes[s, f]
            if best < 0 or score > most:
                best = f
                most = score
            if useful < 0 or utilities[s, f] > utilities[s, useful]:
                useful = f
        out[s] = useful if best_if_negative and most < 0.0 else best
