"""What charts have in common: colours, marks, panels, legends; and that each is a PNG file.

What was published is drawn hollow and grey, what a folder holds in colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import needs
from memento.report.tables import Columns

__all__ = [
    "COLOURS",
    "GREY",
    "HOLLOW",
    "LINES",
    "MARKERS",
    "OURS",
    "TITLES",
    "coloured",
    "error_bars",
    "label_days",
    "legend",
    "names_of",
    "open_axes",
    "panels",
    "pyplot",
    "rows_of",
    "save",
    "series",
    "with_colours",
]

# Beside colours, for print without them.
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
# Colours that are told apart with any colour vision (Okabe and Ito, 2008).
COLOURS = ("#000000", "#999999", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
GREY = "#888888"
OURS = (*COLOURS[2:], COLOURS[0])  # without grey, which is for what was published
HOLLOW = {"color": GREY, "markerfacecolor": "white", "markeredgecolor": GREY}
TITLES = {"tail": "tail: 1st percentile", "median": "median", "mean": "mean"}


def panels(rows: int, columns: int, size: tuple[float, float], **more: Any) -> tuple[Any, Any]:
    """A figure and its panels, one at least.

    Args:
        rows: Panels below each other.
        columns: Panels beside each other.
        size: Width and height in inches.
        more: As ``matplotlib.pyplot.subplots`` takes it.

    Returns:
        Figure; array of axes of shape (rows, columns).
    """
    shape = max(1, rows), max(1, columns)
    made: tuple[Any, Any] = pyplot().subplots(
        *shape, figsize=size, squeeze=False, layout="constrained", **more
    )
    return made


def pyplot() -> Any:
    """Matplotlib's interface, drawing to files.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    with needs("matplotlib", "figures", "drawing figures"):
        import matplotlib as mpl
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def coloured(names: Mapping[str, Any], skip: int = 0) -> list[tuple[str, str]]:
    """Names with colours, from the one of this number on."""
    return [(n, COLOURS[(i + skip) % len(COLOURS)]) for i, n in enumerate(names)]


def label_days(axis: Any, days: Sequence[str]) -> None:
    """Names of days below an axis, of some if there are many."""
    step = max(1, len(days) // 7)
    axis.set_xticks(range(0, len(days), step), list(days)[::step], rotation=30, ha="right")
    axis.tick_params(labelsize=8)
    open_axes(axis)


def open_axes(axis: Any, left: bool = True) -> None:
    """No frame but the axes."""
    for side in ("top", "right") if left else ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def error_bars(table: Columns, name: str, row: int) -> list[list[float]]:
    """What error bars take: how far below and above the value its bounds lie."""
    prefix = f"{name}_" if name else ""
    value = float(table[name or "value"][row])
    low, high = (float(table[f"{prefix}{side}"][row]) for side in ("low", "high"))
    # A mean over resamples may lie a little outside.
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def names_of(table: Columns, column: str, first: Sequence[str] = ()) -> list[str]:
    """Values of a column of text in the order they come in, some of them first."""
    names = list(dict.fromkeys(map(str, table[column])))
    return [name for name in first if name in names] + [n for n in names if n not in first]


def with_colours(names: Sequence[str]) -> list[tuple[str, str]]:
    """Names with colours of ours."""
    return [(name, OURS[i % len(OURS)]) for i, name in enumerate(names)]


def rows_of(table: Columns, **wanted: str) -> list[int]:
    """Numbers of the rows with these values."""
    size = len(next(iter(table.values())))
    return [i for i in range(size) if all(str(table[n][i]) == v for n, v in wanted.items())]


def series(table: Columns, *names: str, by: str = "", **wanted: str) -> list[list[Any]]:
    """Columns of the rows with some values.

    Args:
        table: Columns of equal length.
        names: Of the columns wanted: numbers become floats, all else text.
        by: Column in whose order the rows are; "" for that of the table.
        **wanted: Values of columns.

    Example:
        >>> table = {"arm": ["a", "b", "a"], "x": [3, 2, 1], "day": ["mo", "tu", "we"]}
        >>> series(table, "x", "day", by="x", arm="a")
        [[1.0, 3.0], ['we', 'mo']]
    """
    rows = rows_of(table, **wanted)
    if by:
        (keys,) = series(table, by)
        rows.sort(key=lambda row: keys[row])
    kinds = [float if np.asarray(table[name]).dtype.kind in "biuf" else str for name in names]
    return [
        [kind(table[name][row]) for row in rows] for name, kind in zip(names, kinds, strict=True)
    ]


def legend(figure: Any, axes: Any, **style: Any) -> None:
    """One for all panels, below them.

    Args:
        figure: Receives it.
        axes: The panels.
        **style: As ``matplotlib.figure.Figure.legend`` takes it, such as another place.
    """
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        usual = {"loc": "outside lower center", "ncols": 5, "frameon": False, "fontsize": 8}
        figure.legend([*handles.values()], [*handles], **{**usual, **style})


def save(figure: Any, path: Path, title: str = "") -> None:
    """Write a figure to a PNG file and forget it."""
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=130)
    pyplot().close(figure)
