"""Samples as points: what policies do that compare rows of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from memento.distances import check_finite
from memento.errors import SchemaError
from memento.policies._policy import everything
from memento.samples import Samples

__all__ = [
    "Missing",
    "centred",
    "check_features",
    "directions",
    "random_rows",
    "regions",
]

#: What to do while samples lack the column: refuse them, or keep a random sample.
Missing = Literal["error", "random"]

# Rows that are converted at a time, so that no second copy of them all is needed.
_ROWS = 1 << 14


def check_features(samples: Samples, name: str, missing: str) -> None:
    """Raise if a column holds no finite numbers, one or more a sample.

    Raises:
        SchemaError: The column is missing (unless ``missing`` is "random"), or of another form.
        DomainError: It holds NaN or infinite values.
    """
    if name not in samples:
        if missing == "random":
            return
        raise SchemaError(
            f"column {name!r} is missing; there are {sorted(samples)}; add it, or give "
            "missing='random' to keep a random sample for as long as there is none"
        )
    column = samples[name]
    if column.dtype.kind not in "biuf":
        raise SchemaError(
            f"column {name!r} is of type {column.dtype}; expected numbers; convert it with .astype"
        )
    if not int(np.prod(column.shape[1:])):
        raise SchemaError(
            f"column {name!r} has the shape {column.shape}; expected at least one number a sample"
        )
    check_finite(name, column)


def centred(name: str, held: Samples, fresh: Samples) -> np.ndarray:
    """Held and fresh rows as points around their mean.

    Returns:
        ``(n, d)`` float32, all divided by one number, so that none exceeds 2 in size: distances
        keep their ratios, and neither large offsets nor large units cost digits.
    """
    parts = [part[name] for part in (held, fresh) if part.size]
    width = int(np.prod(parts[0].shape[1:]))
    size = max(float(np.abs(piece).max()) for piece in _pieces(parts)) or 1.0
    total = np.zeros(width)
    for piece in _pieces(parts):
        total += (piece / size).sum(axis=0)
    points = np.empty((held.size + fresh.size, width), np.float32)
    mean = total / len(points)
    start = 0
    for piece in _pieces(parts):
        points[start : start + len(piece)] = piece / size - mean
        start += len(piece)
    return points


def directions(name: str, held: Samples, fresh: Samples) -> np.ndarray:
    """Held and fresh rows, each divided by its length.

    Returns:
        ``(n, d)`` float32; a row of zeros stays one.
    """
    parts = [part[name] for part in (held, fresh) if part.size]
    width = int(np.prod(parts[0].shape[1:]))
    points = np.empty((held.size + fresh.size, width), np.float32)
    start = 0
    for piece in _pieces(parts):
        largest = np.abs(piece).max(axis=1, keepdims=True)
        scaled = piece / np.where(largest > 0, largest, 1.0)  # whose squares cannot overflow
        length = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
        points[start : start + len(piece)] = scaled / np.where(length > 0, length, 1.0)
        start += len(piece)
    return points


def _pieces(parts: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Some rows at a time, as (rows, d) float64."""
    for part in parts:
        flat = part.reshape(len(part), -1)
        for start in range(0, len(flat), _ROWS):
            yield flat[start : start + _ROWS].astype(np.float64)


def regions(points: np.ndarray, rows: np.ndarray, most: int) -> list[np.ndarray]:
    """Split points into groups of neighbours: halves, at the median of the widest coordinate.

    The leaves of a k-d tree (Bentley 1975).

    Args:
        points: ``(n, d)`` coordinates.
        rows: Row numbers of the points to split.
        most: Points in a group, at least 1. All groups but one hold as many.

    Returns:
        Row numbers of each group, ascending within it.

    Example:
        >>> regions(np.array([[0.0], [9.0], [1.0], [8.0]]), np.arange(4), 2)
        [array([0, 2]), array([1, 3])]
    """
    if len(rows) <= most:
        return [np.sort(rows)]
    here = points[rows]
    axis = int(here.var(axis=0).argmax())
    half = -(-len(rows) // most) // 2 * most
    order = np.argpartition(here[:, axis], half)
    del here
    return [
        *regions(points, rows[order[:half]], most),
        *regions(points, rows[order[half:]], most),
    ]


def random_rows(
    held: Samples, fresh: Samples, capacity: int, seen: int, rng: np.random.Generator
) -> np.ndarray:
    """A uniform random sample of the stream, if what is held is one (Vitter 1985, Algorithm R).

    Args:
        held: Samples held, at most ``capacity``.
        fresh: New samples.
        capacity: Samples to keep, at least 1.
        seen: Samples of the stream before ``fresh``.
        rng: Draws two numbers at most for each fresh sample.

    Returns:
        Rows of held and fresh together, ascending.
    """
    rows = everything(held, fresh)
    late = rows[capacity:]
    late = late[rng.random(len(late)) < capacity / (seen + late - held.size + 1)]
    places = rows[:capacity].copy()
    places[rng.integers(0, capacity, len(late))] = late  # of several in one place, the last stays
    return np.sort(places)
