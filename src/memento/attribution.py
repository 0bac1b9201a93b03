"""Which cells make a rise of coverage: the rise is a sum over cells, so each has its part of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from memento.batching import Batches, leading
from memento.density import SampleSpace
from memento.printing import Table, free_name
from memento.samples import Samples

__all__ = ["CELL_COLUMNS", "attributed", "cell_of"]

CELL_COLUMNS = (
    *("cell", "rise", "share", "samples", "reference", "density", "density_before", "rows"),
)
"""Columns of an attribution that say something of a cell itself."""

# Rows that are shown of each cell.
_EXAMPLES = 3


def attributed(
    space: SampleSpace,
    parts: tuple[Samples, Samples],
    order: np.ndarray,
    cells: Batches,
    own: np.ndarray,
    before: np.ndarray,
) -> Table:
    """A row for each cell, the largest part of the rise first.

    Args:
        space: Whose columns are shown.
        parts: Samples and reference.
        order: ``(m,)`` rows of both, sorted.
        cells: ``n`` batches of the samples.
        own: ``(n,)`` density of each cell among the samples.
        before: ``(n,)`` the same among the reference.

    Returns:
        ``cell`` (number in sorted order), ``rise`` (its part; they add up to the rise), ``share``
        (the same of the rise, 0 without one), ``samples`` and ``reference`` (how many lie in it),
        ``density`` and ``density_before``, typical values of what the distances compare (the most
        frequent label, the median of numbers; of probabilities the most likely class by the mean,
        and that mean, under ``name_mean``), and ``rows`` (``(n, 3)`` numbers of samples in it). Of
        columns whose names are taken by these, the values stand under ``name (value)``.
    """
    part = np.maximum(0.0, own - before) / own.sum() if len(own) else own
    total = float(part.sum())
    table = {
        "cell": np.arange(len(cells)),
        "rise": part,
        "share": part / total if total else np.zeros(len(part)),
        "samples": cells.sizes,
        "reference": _counted(space, parts, order, cells),
        "density": own,
        "density_before": before,
        **_typical(space, cells),
        "rows": _examples(cells),
    }
    first = np.lexsort((table["cell"], -part))
    note = f"The cells' parts add up to a rise of {total:.4g}."
    return Table({name: column[first] for name, column in table.items()}, note)


def cell_of(batches: Batches, size: int) -> np.ndarray:
    """``(size,)`` the batch of each row; -1 for a row that is in none."""
    cell = np.full(size, -1, np.int64)
    cell[batches.order] = np.repeat(np.arange(len(batches)), batches.sizes)
    return cell


def _counted(
    space: SampleSpace, parts: tuple[Samples, Samples], order: np.ndarray, cells: Batches
) -> np.ndarray:
    """``(n,)`` rows of the reference that lie in each cell.

    A row lies in the cell between whose first and last row it is sorted. Between two cells it lies
    in the one before it, unless labels (or groups) tell it from that one; then in the next one or,
    where they tell it from that one as well, in none.
    """
    count = len(cells)
    size = parts[0].size
    theirs = np.flatnonzero(order >= size)
    if not count or not len(theirs):
        return np.zeros(count, np.int64)
    place = np.empty(size + parts[1].size, np.int64)
    place[order] = np.arange(len(order))
    firsts, lasts = cells.order[cells.offsets[:-1]], cells.order[cells.offsets[1:] - 1]
    cell = np.searchsorted(place[firsts], theirs, side="right") - 1
    before, after = np.maximum(cell, 0), np.minimum(cell + 1, count - 1)
    names = leading(space.sort_columns, space.label_columns, parts)
    names += [] if space.group_by is None else [space.group_by]
    rows = order[theirs]
    inside = (cell >= 0) & (
        (theirs <= place[lasts[before]]) | _same(parts, names, rows, lasts[before])
    )
    found = np.where(inside, before, np.where(_same(parts, names, rows, firsts[after]), after, -1))
    return np.bincount(found[found >= 0], minlength=count)


def _same(
    parts: tuple[Samples, Samples], names: Sequence[str], rows: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """``(m,)`` whether rows agree with others in all of these columns."""
    same = np.ones(len(rows), bool)
    for name in names:
        left, right = (Batches(parts, r, r[:0]).column(name) for r in (rows, others))
        same &= left == right
    return same


def _typical(space: SampleSpace, cells: Batches) -> dict[str, np.ndarray]:
    """What samples of each cell are like, in the columns that distances compare."""
    found: dict[str, np.ndarray] = {}
    if not len(cells):
        return found
    starts = cells.offsets[:-1]
    compared = dict.fromkeys(c for d, _ in space.present(cells.parts) for c in d.columns)
    for column_name, name in _headings(compared).items():
        column = cells.column(column_name)
        if column.ndim == 2 and column.dtype.kind == "f":
            mean = np.add.reduceat(column.astype(np.float64), starts) / cells.sizes[:, None]
            # Rows that are no probabilities (features, say) have no typical value of one number.
            if (mean >= 0).all() and np.allclose(mean.sum(axis=1), 1, atol=1e-3):
                found[name], found[f"{name}_mean"] = mean.argmax(axis=1), mean.max(axis=1)
        elif column.ndim == 1:
            label = column_name in space.label_columns or column.dtype.kind != "f"
            pieces = np.split(column, starts[1:])
            found[name] = np.array([_mode(p) if label else np.median(p) for p in pieces])
    return found


def _headings(names: Iterable[str]) -> dict[str, str]:
    """What columns are called in the table, so that neither ours nor a mean is replaced."""
    names = list(names)
    taken = {*CELL_COLUMNS, *(f"{name}_mean" for name in names)}
    found = dict.fromkeys(names, "")
    for name in sorted(names, key=lambda name: name not in taken):  # first those that give way
        found[name] = heading = free_name(name, taken)
        taken |= {heading, f"{heading}_mean"}
    return found


def _mode(values: np.ndarray) -> np.generic:
    """The most frequent value; of several the smallest."""
    distinct, counts = np.unique(values, return_counts=True)
    most: np.generic = distinct[counts.argmax()]
    return most


def _examples(cells: Batches) -> np.ndarray:
    """``(n, 3)`` rows of each cell, spread over it; some twice where it has fewer."""
    steps = (2 * np.arange(_EXAMPLES) + 1)[None] * cells.sizes[:, None] // (2 * _EXAMPLES)
    rows: np.ndarray = cells.order[cells.offsets[:-1, None] + steps]
    return rows
