"""The task: how long will the next chunk of video take to arrive?

From the last eight chunks of a stream (delivery rate, gap to the next send) to the class of the
next chunk's transmission time, for a stated chunk size. A small form of the transmission time
predictor of Fugu (Yan et al., "Learning in situ", NSDI 2020), for traces that hold no more than
rates and times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memento.errors import SettingError
from memento_puffer.streaming.traces import Traces

__all__ = ["CLASSES", "LADDER_MB", "class_of", "samples_of"]

CLASSES = 21
# Mean chunk sizes of the ten qualities over six stations, in MB.
LADDER_MB = (
    *(0.044319, 0.093355, 0.115601, 0.142904, 0.196884),
    *(0.263965, 0.353752, 0.494902, 0.632193, 0.889893),
)

# Readings of 0 happen and have no logarithm; 100 B/s is below all others in the real traces.
_LEAST_RATE = 1e-4  # MB/s
_LEAST_GAP = 1e-2  # s


def class_of(seconds: np.ndarray) -> np.ndarray:
    """Class of a transmission time: half seconds, centred on multiples, the last one open.

    Args:
        seconds: Of any shape, >= 0.

    Returns:
        int64 of the same shape: ``clip(floor((T + 0.25) / 0.5), 0, 20)``.

    Example:
        >>> class_of(np.array([0.1, 0.25, 9.74, 9.75, 1000.0]))
        array([ 0,  1, 19, 20, 20])
    """
    # Clipped first: the quotient of an endless transmission does not fit an integer.
    halves = np.floor((np.asarray(seconds, dtype=np.float64) + 0.25) / 0.5)
    return np.clip(halves, 0, CLASSES - 1).astype(np.int64)


def samples_of(
    traces: Traces,
    *,
    size_MB: float | Sequence[float] = 0.25,
    history: int = 8,
    rng: np.random.Generator | None = None,
) -> dict[str, np.ndarray]:
    """Inputs and outputs of the task, one sample for each chunk but the first of a stream.

    Sample ``i`` of a stream knows the rates reported before the sends ``i - history ... i - 1``,
    and for each the time until the following send, the last of which ends now. What it is asked
    for is the time that ``size_MB`` take at the rate reported with send ``i``. Where a stream is
    younger than ``history``, its oldest chunk is repeated (as Puffer's server does).

    Args:
        traces: Of at least one stream with two chunks, else there are no samples.
        size_MB: The size of the next chunk in MB; several sizes are drawn from with equal
            probability by ``rng``, and are an input then.
        history: How many past chunks are known.
        rng: Draws the sizes; needed only for several.

    Returns:
        Columns of n rows:
            x: (n, 2 * history) float32, oldest chunk first: ln(rate in MB/s), ln(gap in s); with
                several sizes one column more, ln(size in MB). Rates below 1e-4 MB/s and gaps below
                0.01 s count as that.
            y: float32, transmission time in s.
            y_bin: int64, its class, see ``class_of``.
            stream: int64, the trace id.

    Raises:
        SettingError: A size that is not above 0, no history, several sizes without a generator.

    Example:
        >>> traces = Traces([0, 0, 0], [0.0, 1.0, 3.0], [1.0, 0.5, 0.1])
        >>> columns = samples_of(traces, size_MB=0.25, history=2)
        >>> columns["y"], columns["y_bin"]
        (array([0.5, 2.5], dtype=float32), array([1, 5]))
        >>> np.exp(columns["x"]).round(3)
        array([[1. , 1. , 1. , 1. ],
               [1. , 1. , 0.5, 2. ]], dtype=float32)
    """
    sizes = np.atleast_1d(np.asarray(size_MB, dtype=np.float64))
    if sizes.ndim != 1 or not len(sizes) or not ((sizes > 0) & np.isfinite(sizes)).all():
        raise SettingError(f"size_MB={size_MB}; give a size above 0, or several")
    if history < 1:
        raise SettingError(f"history={history}; give at least one past chunk")
    if len(sizes) > 1 and rng is None:
        raise SettingError(f"{len(sizes)} sizes are drawn at random; give a generator as rng")

    lengths = np.diff(traces.offsets)
    starts = np.repeat(traces.offsets[:-1], lengths)
    rows = np.flatnonzero(np.arange(traces.size) > starts)  # all chunks but the first
    lags = np.arange(history, 0, -1)
    past = np.maximum(rows[:, None] - lags, starts[rows, None])  # (n, history), oldest first

    rate = np.maximum(traces.rate, _LEAST_RATE)
    gap = np.maximum(np.diff(traces.seconds, append=0.0), _LEAST_GAP)  # to the following send
    chosen = sizes[0] if len(sizes) == 1 or rng is None else rng.choice(sizes, len(rows))
    x = np.empty((len(rows), 2 * history + (len(sizes) > 1)), dtype=np.float32)
    x[:, 0 : 2 * history : 2] = np.log(rate)[past]
    x[:, 1 : 2 * history : 2] = np.log(gap)[past]
    if len(sizes) > 1:
        x[:, -1] = np.log(chosen)
    y = (chosen / rate[rows]).astype(np.float32)
    return {"x": x, "y": y, "y_bin": class_of(y), "stream": traces.trace_id[rows]}
