"""Charts from tidy tables: differences, distributions, days, settings beside what was published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.report import drawing
from memento.report.tables import Columns

__all__ = ["arms", "arrows", "diagram", "distributions", "forest", "time_series"]


def distributions(
    path: Path,
    table: Columns,
    *,
    by: str = "scheme",
    xlabel: str,
    ylabel: str = "share of the time streamed",
    zero: bool = True,
    log: bool = False,
) -> None:
    """Weighted distributions, such as of daily differences between two schemes.

    Args:
        path: PNG file to write.
        table: ``value``, ascending in each distribution, ``share`` at or below it, up to 1, and a
            column of names.
        by: The column of names, a distribution for each.
        xlabel: What the values are, with their unit.
        ylabel: Of what the share is.
        zero: Mark 0, and say in the legend what share lies above it.
        log: Whether values are drawn by their logarithms.
    """
    figure, axis = drawing.pyplot().subplots(figsize=(6, 4), layout="constrained")
    if zero:
        axis.axvline(0, color="#bbbbbb", linewidth=1)
    for i, (name, colour) in enumerate(drawing.coloured(dict.fromkeys(table[by]), skip=2)):
        values, shares = drawing.series(table, "value", "share", **{by: str(name)})
        label = str(name)
        if zero and values:
            below = max((s for v, s in zip(values, shares, strict=True) if v <= 0), default=0.0)
            label = f"{name} ({1 - below:.0%} above 0)"
        style = drawing.LINES[i % len(drawing.LINES)]
        # From a share of 0 at the least value on, as a distribution starts.
        axis.step(
            values[:1] + values,
            [0.0, *shares] if values else [],
            where="post",
            color=colour,
            linestyle=style,
            linewidth=1.8,
            label=label,
        )
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1.02))
    if log:
        axis.set_xscale("log")
    axis.legend(frameon=False, fontsize=8)
    drawing.open_axes(axis)
    drawing.save(figure, path)


def time_series(
    path: Path,
    table: Columns,
    *,
    ylabel: str,
    title: str = "",
    level: float = 0.9,
    zero: bool = False,
) -> None:
    """A statistic of each scheme over days, with a band of its interval.

    Args:
        path: PNG file to write.
        table: A row per day and scheme: ``day`` (date or datetime64), ``scheme``, ``value``,
            ``low``, ``high``; gaps and NaN interrupt lines.
        ylabel: What the values are, with their unit.
        title: Title of the figure.
        level: Of the band, for the legend.
        zero: Whether to draw a line at 0.
    """
    figure, axis = drawing.pyplot().subplots(figsize=(9, 3.6), layout="constrained")
    if zero:
        axis.axhline(0, color="#bbbbbb", linewidth=1)
    by_scheme: dict[str, dict[Any, tuple[float, float, float]]] = {}
    columns = (table["day"], table["scheme"], table["value"], table["low"], table["high"])
    for day, scheme, value, low, high in zip(*columns, strict=True):
        by_scheme.setdefault(str(scheme), {})[_date(day)] = (value, low, high)
    for i, (name, colour) in enumerate(drawing.coloured(by_scheme, skip=2)):
        rows = by_scheme[name]
        days = _without_gaps(list(rows))
        nothing = (float("nan"),) * 3
        value, low, high = (
            list(c) for c in zip(*(rows.get(d, nothing) for d in days), strict=True)
        )
        axis.fill_between(days, low, high, color=colour, alpha=0.15, linewidth=0)
        style, marker = drawing.LINES[i % len(drawing.LINES)], "o" if len(days) == 1 else None
        axis.plot(
            days, value, color=colour, linestyle=style, marker=marker, linewidth=1.8, label=name
        )
    axis.set(title=title, ylabel=ylabel)
    note = f"band: {level:.0%} interval"
    drawing.legend(figure, [axis], loc="outside right upper", ncols=1, fontsize=None, title=note)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_formatter(_concise_dates(axis))
    drawing.open_axes(axis)
    drawing.save(figure, path)


def forest(
    path: Path,
    table: Columns,
    *,
    level: float = 0.95,
    title: str = "",
    better: Mapping[str, str] | None = None,
) -> None:
    """Differences with their intervals, a panel per variable and a line per pair of schemes.

    Args:
        path: PNG file to write.
        table: A row per difference: ``first``, ``second``, ``variable``, ``unit``, ``value``,
            ``low``, ``high``. An interval without 0 is drawn full, one with 0 hollow.
        level: Of the intervals, for the axes' labels.
        title: Title of the figure.
        better: By variable "less" or "more", noted below its axis.
    """
    variables = list(dict.fromkeys(table["variable"]))
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    wanted = better or {}
    figure, axes = drawing.panels(
        1, len(variables), (2.2 + 3 * max(1, len(variables)), 1.5 + 0.38 * len(pairs)), sharey=True
    )
    places = {pair: len(pairs) - 1 - i for i, pair in enumerate(pairs)}
    colours = dict(drawing.coloured(dict.fromkeys(first for first, _ in pairs), skip=2))
    columns = ("first", "second", "variable", "value", "low", "high")
    for axis, variable in zip(axes[0], variables, strict=False):
        axis.axvline(0, color="#999999", linewidth=1)
        unit = ""
        for i, (first, second, name, value, low, high) in enumerate(
            zip(*(table[c] for c in columns), strict=True)
        ):
            if name != variable:
                continue
            unit = table["unit"][i]
            colour, y = colours[first], places[first, second]
            axis.plot([low, high], [y, y], color=colour, linewidth=2)
            face = "white" if low <= 0 <= high else colour
            axis.plot(value, y, "s", color=colour, markerfacecolor=face, markersize=7)
        note = f"\n{wanted[variable]} is better" if variable in wanted else ""
        axis.set(title=variable, xlabel=f"difference ({unit})\n{level:.0%} interval{note}")
        axis.set_ylim(-0.6, len(pairs) - 0.4)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8)
        drawing.open_axes(axis, left=False)
    axes[0][0].set_yticks(list(places.values()), [f"{a} - {b}" for a, b in places])
    figure.supxlabel("hollow: the interval holds 0", fontsize=8, color="#555555")
    drawing.save(figure, path, title)


def _date(day: Any) -> dt.date:
    return dt.date.fromisoformat(str(day)[:10])


def _without_gaps(days: Sequence[dt.date]) -> list[dt.date]:
    """All days of the calendar from the first to the last."""
    first, last = min(days), max(days)
    return [first + dt.timedelta(days=i) for i in range((last - first).days + 1)]


def _concise_dates(axis: Any) -> Any:
    from matplotlib import dates

    kit: Any = dates  # without types of its own
    locator = kit.AutoDateLocator(minticks=3, maxticks=9)
    axis.xaxis.set_major_locator(locator)
    return kit.ConciseDateFormatter(locator)


def arms(path: Path, table: Columns, *, xlabel: str, title: str = "") -> None:
    """Arms below each other, a panel for each score.

    Args:
        path: PNG file to write.
        table: ``label``, ``origin`` ("ours", "paper"), ``score``, ``value``, ``error`` (NaN: none).
        xlabel: What the values are, with their unit.
        title: Title of the figure.
    """
    labels, scores = drawing.names_of(table, "label"), drawing.names_of(table, "score")
    figure, axes = drawing.panels(
        1, len(scores), (2.5 + 3.4 * max(1, len(scores)), 1.6 + 0.27 * len(labels)), sharey=True
    )
    for axis, score in zip(axes[0], scores, strict=False):
        axis.axvline(0, color="#dddddd", linewidth=1)
        values = []
        for origin in ("paper", "ours"):
            shown, x, error = drawing.series(
                table, "label", "value", "error", score=score, origin=origin
            )
            places = [labels.index(label) for label in shown]
            values += [value for value in x if value == value]
            if origin == "paper":
                y = [place + 0.18 for place in places]
                if x:
                    axis.plot(x, y, "D", label="paper", markersize=6, **drawing.HOLLOW)
                continue
            axis.errorbar(
                *(x, places),
                xerr=np.nan_to_num(error),
                color=drawing.OURS[0],
                marker="o",
                linestyle="none",
                capsize=3,
                label="this folder, ± standard error",
            )
        if values and max(map(abs, values)) > 5 and min(map(abs, values)) < 1:
            axis.set_xscale("symlog", linthresh=1.0)
        axis.set(title=drawing.TITLES.get(score, score), xlabel=xlabel)
        axis.grid(axis="y", color="#f0f0f0")
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8)
        drawing.open_axes(axis)
    axes[0][0].set_yticks(range(len(labels)), labels)
    axes[0][0].set_ylim(len(labels) - 0.4, -0.6)
    drawing.legend(figure, axes.flat)
    drawing.save(figure, path, title)


def diagram(path: Path, table: Columns) -> None:
    """Boxes and what goes from one to another.

    Args:
        path: PNG file to write.
        table: A row per arrow: ``source`` and ``target`` (texts in boxes), ``label`` (beside the
            arrow), and the boxes' places ``source_x``, ``source_y``, ``target_x``, ``target_y``,
            from 0 to 1.
    """
    figure, axis = drawing.pyplot().subplots(figsize=(8, 3.4), layout="constrained")
    axis.set_axis_off()
    axis.set(xlim=(0, 1), ylim=(0, 1))
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": drawing.GREY}
    names = ("source", "target", "label", "source_x", "source_y", "target_x", "target_y")
    for source, target, label, *places in zip(*(table[name] for name in names), strict=True):
        here, there = (places[0], places[1]), (places[2], places[3])
        # The texts of an arrow's ends keep it off their boxes.
        ends = [
            axis.text(*place, text, ha="center", va="center", bbox=box, zorder=3, fontsize=9)
            for place, text in ((here, source), (there, target))
        ]
        arrow = {"arrowstyle": "-|>", "color": drawing.OURS[0], "patchB": ends[1].get_bbox_patch()}
        arrow |= {"patchA": ends[0].get_bbox_patch(), "shrinkA": 2, "shrinkB": 2}
        axis.annotate("", there, here, arrowprops=arrow)
        middle = ((places[0] + places[2]) / 2, (places[1] + places[3]) / 2)
        if label:
            plain = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axis.text(*middle, label, ha="center", va="center", fontsize=8, bbox=plain, zorder=4)
    drawing.save(figure, path)


def arrows(
    boxes: Mapping[str, tuple[float, float]], links: Sequence[tuple[int, int, str]]
) -> dict[str, list[Any]]:
    """The table that `diagram` draws.

    Args:
        boxes: Places by text.
        links: Numbers of two boxes, and what goes from one to the other.
    """
    names = list(boxes)
    table: dict[str, list[Any]] = {"label": [label for _, _, label in links]}
    ends = {"source": [a for a, _, _ in links], "target": [b for _, b, _ in links]}
    for end, numbers in ends.items():
        table[end] = [names[number] for number in numbers]
        for axis, letter in enumerate("xy"):
            table[f"{end}_{letter}"] = [boxes[text][axis] for text in table[end]]
    return table
