"""A table that can be read where it is printed, and worked with where it is not."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np

__all__ = ["Table", "free_name"]

# Rows that are printed; of a longer table the first and the last ones.
_SHOWN = 20


class Table(dict[str, np.ndarray]):
    """Columns of equal length by name, which print as a table; ``pd.DataFrame(table)`` works.

    Args:
        columns: Arrays by name, ``(n, ...)`` each.
        note: A sentence that is printed below.

    Example:
        >>> print(Table({"cell": np.array([3, 1]), "share": np.array([0.75, 0.25])}, "In all 1."))
        cell  share
           3   0.75
           1   0.25
        In all 1.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], note: str = "") -> None:
        super().__init__(columns)
        self.note = note

    @property
    def size(self) -> int:
        """Rows."""
        return len(next(iter(self.values()), ()))

    def head(self, rows: int) -> Table:
        """The first rows."""
        return Table({name: column[:rows] for name, column in self.items()}, self.note)

    def __repr__(self) -> str:
        size, half = self.size, _SHOWN // 2
        rows = range(size)
        if size > _SHOWN:
            rows = [*range(half), *range(size - half, size)]  # type: ignore[assignment]
        lines = [list(self), *([_text(c[row]) for c in self.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        ]
        if size > _SHOWN:
            text.insert(half + 1, f"... {size - _SHOWN:,} more ...")
        return "\n".join([*text, self.note] if self.note else text)

    __str__ = __repr__


def free_name(name: str, taken: Container[str]) -> str:
    """A name for a column of the user's beside columns of ours.

    Example:
        >>> free_name("y", {"cell"}), free_name("cell", {"cell"})
        ('y', 'cell (value)')
    """
    while name in taken:
        name += " (value)"
    return name


def _text(value: Any) -> str:
    """A cell: four digits that count, "-" for what is not known."""
    if isinstance(value, np.ndarray):
        return " ".join(_text(each) for each in value.reshape(-1)[:8])
    if isinstance(value, (float, np.floating)):
        return "-" if np.isnan(value) else f"{value:.4g}"
    return str(value) or "-"
