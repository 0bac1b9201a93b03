"""Samples of a run: sliding windows over the packets of each application.

Two tasks (Memento's data-centre case): tell the workload from packet sizes, and predict how long
the current packet took from packet sizes and the delays of those before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from memento.arguments import require, whole
from memento.samples import Samples
from memento_datacenter.schema import Run

__all__ = ["WINDOW", "origins", "transmission_samples", "workload_samples"]

WINDOW = 128


def workload_samples(runs: Run | Sequence[Run], window: int = WINDOW) -> Samples:
    """Samples to tell which workload a packet belongs to.

    Every packet with ``window - 1`` earlier ones of its application gives a sample. Those of
    several runs are merged in order of arrival, as if the runs had happened at the same time.

    Args:
        runs: One run, or several.
        window: How many packets a sample sees, the current one included; at least 1.

    Returns:
        x: (n, window) float32, packet sizes in bytes, oldest first, the current packet last.
        y: (n,) int64, the class: label of the workload less 1, so 0, 1 and 2 for w1, w2 and w3.

    Raises:
        SettingError: A window that is no positive integer.

    Example:
        >>> run = Run([1, 2, 3], [9, 9, 9], [60, 1500, 700], [0, 0, 0], {"label": 2})
        >>> samples = workload_samples(run, window=2)
        >>> samples["x"], samples["y"]
        (array([[  60., 1500.],
                [1500.,  700.]], dtype=float32), array([1, 1]))
    """
    runs, window = _checked(runs, window)
    found = [_windows(run, window) for run in runs]
    order = _merged(runs, found)
    x = np.empty((order.size, window), dtype=np.float32)
    y = np.empty(order.size, dtype=np.int64)
    for place, run, (rows, starts, by_application) in _places(order, runs, found):
        if not len(rows):
            continue
        sizes = run.size[by_application].astype(np.float32)
        x[place] = sliding_window_view(sizes, window)[starts]
        y[place] = run.about["label"] - 1
    return Samples.borrow(x=x, y=y)


def transmission_samples(runs: Run | Sequence[Run], window: int = WINDOW) -> Samples:
    """Samples to predict how long the current packet takes.

    As for ``workload_samples``, with other columns.

    Args:
        runs: One run, or several.
        window: How many packets a sample sees, the current one included; at least 1.

    Returns:
        x: (n, 2 * window - 1) float32: ``window`` packet sizes in bytes, oldest first, the current
            packet's last; then the delays of the ``window - 1`` earlier ones in seconds, oldest
            first.
        y: (n,) float64, delay of the current packet in seconds.

    Raises:
        SettingError: A window that is no positive integer.

    Example:
        >>> run = Run([1, 2], [15_000_000, 20_000_000], [60, 1500], [0, 0], {"label": 2})
        >>> samples = transmission_samples(run, window=2)
        >>> samples["x"].round(3), samples["y"]
        (array([[6.0e+01, 1.5e+03, 1.5e-02]], dtype=float32), array([0.02]))
    """
    runs, window = _checked(runs, window)
    found = [_windows(run, window) for run in runs]
    order = _merged(runs, found)
    x = np.empty((order.size, 2 * window - 1), dtype=np.float32)
    y = np.empty(order.size, dtype=np.float64)
    for place, run, (rows, starts, by_application) in _places(order, runs, found):
        if not len(rows):
            continue
        sizes = run.size[by_application].astype(np.float32)
        delays = run.delay[by_application].astype(np.float32)
        x[place, :window] = sliding_window_view(sizes, window)[starts]
        x[place, window:] = sliding_window_view(delays, window)[starts, :-1]
        y[place] = run.delay[rows]
    return Samples.borrow(x=x, y=y)


def origins(runs: Run | Sequence[Run], window: int = WINDOW) -> npt.NDArray[np.int64]:
    """Which run each sample is of, in the order in which samples of several runs are merged.

    Args:
        runs: One run, or several.
        window: How many packets a sample sees, the current one included; at least 1.

    Returns:
        (n,) int64, places in ``runs``.

    Raises:
        SettingError: A window that is no positive integer.

    Example:
        >>> early = Run([1, 4], [9, 9], [60, 60], [0, 0], {"label": 1})
        >>> late = Run([2, 3], [9, 9], [60, 60], [0, 0], {"label": 2})
        >>> origins([early, late], window=1)
        array([0, 1, 1, 0])
    """
    runs, window = _checked(runs, window)
    found = [_windows(run, window) for run in runs]
    of = np.empty(sum(len(rows) for rows, _, _ in found), dtype=np.int64)
    counts = np.array([len(rows) for rows, _, _ in found], dtype=np.int64)
    of[_merged(runs, found)] = np.repeat(np.arange(len(runs)), counts)
    return of


# Packets that end a window, where their windows start, and the packets sorted by application.
_Windows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _windows(run: Run, window: int) -> _Windows:
    """Where the windows of a run lie: rows in order of arrival."""
    by_application = np.argsort(run.application, kind="stable")
    sorted_by = run.application[by_application]
    ends = sorted_by[window - 1 :]
    starts = np.flatnonzero(sorted_by[: len(ends)] == ends)
    rows = by_application[starts + window - 1]
    arrived = np.argsort(rows, kind="stable")
    return rows[arrived], starts[arrived], by_application


def _merged(runs: Sequence[Run], found: Sequence[_Windows]) -> npt.NDArray[np.int64]:
    """Which place in order of arrival each sample gets, runs one after the other."""
    times = [run.arrival_ns[rows] for run, (rows, _, _) in zip(runs, found, strict=True)]
    place = np.empty(sum(map(len, times)), dtype=np.int64)
    if len(times) == 1:
        place[:] = np.arange(place.size)
    elif place.size:
        place[np.argsort(np.concatenate(times), kind="stable")] = np.arange(place.size)
    return place


def _places(
    order: npt.NDArray[np.int64], runs: Sequence[Run], found: Sequence[_Windows]
) -> list[tuple[npt.NDArray[np.int64] | slice, Run, _Windows]]:
    """Where the samples of each run go."""
    ends = np.cumsum([0, *(len(rows) for rows, _, _ in found)])
    if len(runs) == 1:
        return [(slice(None), runs[0], found[0])]  # in one piece: no rows are scattered
    pairs = zip(runs, found, strict=True)
    return [(order[ends[i] : ends[i + 1]], run, windows) for i, (run, windows) in enumerate(pairs)]


def _checked(runs: Run | Sequence[Run], window: int) -> tuple[Sequence[Run], int]:
    require("window", window, whole(words="how many packets a sample sees, at least 1"))
    return ([runs] if isinstance(runs, Run) else list(runs)), int(window)
