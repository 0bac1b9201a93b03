"""The classes of transmission times, and the sizes of chunks.

Source: Yan et al., "Learning in situ: a randomized experiment in video streaming", NSDI 2020.
"""

from __future__ import annotations

import numpy as np

__all__ = ["CLASSES", "LADDER_MB", "class_of"]

CLASSES = 21
# Mean chunk sizes of the ten qualities over six stations, in MB.
LADDER_MB = (
    *(0.044319, 0.093355, 0.115601, 0.142904, 0.196884),
    *(0.263965, 0.353752, 0.494902, 0.632193, 0.889893),
)


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
