"""What policies check about the columns they read."""

from __future__ import annotations

import numpy as np

from memento.distances import check_finite
from memento.errors import DomainError, SchemaError
from memento.samples import Samples

__all__ = ["flags", "labels", "numbers", "require"]


def require(samples: Samples, name: str, axes: int, kinds: str, expected: str) -> np.ndarray:
    """A column of the right form, as it lies in the samples.

    Args:
        samples: Samples with the column.
        name: Name of the column.
        axes: Axes of one sample: 0 for a single value, 1 for a row.
        kinds: Kinds of dtypes that will do, as in ``"biuf"``.
        expected: What these are, in words.

    Raises:
        SchemaError: The column is missing, or of another form.
    """
    if name not in samples:
        raise SchemaError(f"column {name!r} is missing; there are {sorted(samples)}")
    column = samples[name]
    if column.dtype.kind not in kinds:
        raise SchemaError(
            f"column {name!r} is of type {column.dtype}; expected {expected}; "
            "convert it with .astype"
        )
    if column.ndim != axes + 1:
        raise SchemaError(
            f"column {name!r} has the shape {column.shape}; expected {expected} a sample, so "
            f"{axes + 1} axes"
        )
    return column


def numbers(samples: Samples, name: str) -> np.ndarray:
    """``(n,)`` finite numbers.

    Raises:
        SchemaError: The column is missing, or of another form.
        DomainError: It holds NaN or infinite values.
    """
    column = require(samples, name, 0, "biuf", "one number")
    check_finite(name, column)
    return column


def labels(samples: Samples, name: str) -> np.ndarray:
    """``(n,)`` integers, bools or strings.

    Raises:
        SchemaError: The column is missing, or of another form.
    """
    return require(samples, name, 0, "biuUS", "one integer, bool or string")


def flags(samples: Samples, name: str) -> np.ndarray:
    """``(n,)`` bools, or numbers that are 0 or 1.

    Raises:
        SchemaError: The column is missing, or of another form.
        DomainError: It holds other numbers.
    """
    column = numbers(samples, name)
    bad = np.flatnonzero((column != 0) & (column != 1))
    if len(bad):
        raise DomainError(
            f"column {name!r} holds {column[bad[0]]} in row {bad[0]:,} (and {len(bad) - 1:,} more "
            "rows); a flag is True or False, 1 or 0"
        )
    found: np.ndarray = column != 0
    return found
