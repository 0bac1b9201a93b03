"""The tempered draw: which of many to discard, all at once."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["discards"]

# Scores up to this size leave a random term of order 1 enough digits to decide between equals.
_FINE = 1e9


def discards(
    metric: np.ndarray, count: int, temperature: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw without replacement with probabilities ``softmax(metric / temperature)``.

    The law is that of drawing one after the other, each time among those left. It is drawn at once:
    the largest ``metric / temperature + g`` win, with ``g`` from the standard Gumbel distribution
    (Efraimidis and Spirakis 2006 in logarithms; Kool, van Hoof and Welling 2019). In logarithms no
    probability is rounded to 0, so the draw never runs out of candidates.

    Args:
        metric: ``(n,)`` finite numbers, large for what shall go.
        count: How many to draw, at most ``n``.
        temperature: 0 takes the largest (of equals the first); ``math.inf`` any.
        rng: Draws ``n`` numbers; none at temperature 0.

    Returns:
        ``(count,)`` int64 positions in ``metric``, in the order in which they are drawn.

    Example:
        >>> discards(np.array([0.1, 0.9, 0.5]), 2, 0.0, np.random.default_rng(0))
        array([1, 2])
    """
    if temperature == 0:
        return np.argsort(-metric, kind="stable")[:count]
    noise = rng.gumbel(size=len(metric))
    if math.isinf(temperature):
        return _largest(noise, count)
    with np.errstate(over="ignore"):
        scores = (metric - metric.max(initial=-math.inf)) / temperature
    if scores.min(initial=0.0) >= -_FINE:
        return _largest(scores + noise, count)
    # So cold that rounding swallows the noise: equals are told apart by the noise alone.
    return np.lexsort((-noise, -metric, -(scores + noise)))[:count]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the largest values, largest first."""
    top = np.arange(len(values))
    if count < len(values):
        top = np.argpartition(-values, count)[:count]
    return top[np.argsort(-values[top], kind="stable")]
