"""Figures of the data-centre case, from the tables of its replays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.report import drawing
from memento.report.tables import Columns

__all__ = ["held", "shift"]

_SHADES = ("#0072B2", "#E69F00", "#009E73")


def shift(
    path: Path,
    table: Columns,
    *,
    ylabel: str,
    title: str = "",
    rises: Columns | None = None,
    scale: float = 1.0,
    level: float = 0.9,
) -> None:
    """A score of each memory over the iterations of a scenario, and where coverage rises.

    Args:
        path: PNG file to write.
        table: A row per memory and iteration: ``memory``, ``iteration``, ``settings`` (joined by
            +), ``value``, ``low``, ``high``; bands are left out where the ends are NaN.
        ylabel: What the values are, with their unit.
        title: Of the figure.
        rises: The same columns with relative coverage increases, for a panel below.
        scale: Values are multiplied by it.
        level: Of the bands, for the legend.
    """
    rows = 1 if rises is None else 2
    figure, axes = drawing.panels(
        rows,
        1,
        (9, 4.2 if rises is None else 5.6),
        height_ratios=[1] if rises is None else [2.6, 1],
        sharex=True,
    )
    upper = axes[0][0]
    names = list(dict.fromkeys(map(str, table["memory"])))
    for place, name in enumerate(names):
        _course(upper, table, name, place, scale)
    upper.set(ylabel=ylabel, title=title)
    if rises is not None:
        lower = axes[1][0]
        for name in dict.fromkeys(map(str, rises["memory"])):
            _course(lower, rises, name, names.index(name) if name in names else 0, 1.0)
        lower.set(ylabel="coverage increase", ylim=(0, 1))
    for axis in axes[:, 0]:
        _mark_changes(axis, table, label=axis is upper)
        drawing.open_axes(axis)
    axes[-1][0].set_xlabel("iteration")
    axes[-1][0].locator_params(axis="x", integer=True)
    banded = any(not math.isnan(low) for low in map(float, table["low"]))
    note = f"band: {level:.0%} interval over seeds" if banded else None
    drawing.legend(figure, [upper], loc="outside right upper", ncols=1, fontsize=None, title=note)
    drawing.save(figure, path)


def held(path: Path, table: Columns, *, title: str = "") -> None:
    """What memories hold at the end, by workload, as stacked bars; a panel per scenario.

    Args:
        path: PNG file to write.
        table: A row per scenario, memory and workload: ``scenario``, ``memory``, ``workload``,
            ``value`` (samples).
        title: Of the figure.
    """
    scenarios = list(dict.fromkeys(map(str, table["scenario"])))
    workloads = list(dict.fromkeys(map(str, table["workload"])))
    memories = list(dict.fromkeys(map(str, table["memory"])))
    figure, axes = drawing.panels(
        1,
        len(scenarios),
        (2 + 3.4 * max(1, len(scenarios)), 1.2 + 0.34 * len(memories)),
        sharey=True,
    )
    for axis, scenario in zip(axes[0], scenarios, strict=False):
        values = {
            (str(table["memory"][i]), str(table["workload"][i])): float(table["value"][i])
            for i in range(len(table["value"]))
            if str(table["scenario"][i]) == scenario
        }
        left = [0.0] * len(memories)
        for workload, colour in zip(workloads, _SHADES * len(workloads), strict=False):
            widths = []
            for memory in memories:
                total = sum(values.get((memory, w), 0.0) for w in workloads)
                widths.append(values.get((memory, workload), 0.0) / total if total else 0.0)
            axis.barh(memories, widths, left=left, color=colour, label=workload)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axis.set(title=scenario, xlabel="share of the memory", xlim=(0, 1))
        drawing.open_axes(axis)
    axes[0][0].invert_yaxis()
    drawing.legend(figure, axes[0][:1], loc="outside right upper", ncols=1, fontsize=None)
    drawing.save(figure, path, title)


def _course(axis: Any, table: Columns, name: str, place: int, scale: float) -> None:
    """One memory's line, with its band."""
    x, *bounds = drawing.series(
        table, "iteration", "value", "low", "high", by="iteration", memory=name
    )
    value, low, high = (scale * np.array(column) for column in bounds)
    # The first ones stand out; black is for the first.
    colours = ("#D55E00", "#CC79A7", "#000000", "#999999", *_SHADES)
    colour = colours[place % len(colours)]
    style = drawing.LINES[(place // len(colours)) % len(drawing.LINES)]
    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(
        x,
        value,
        color=colour,
        linestyle=style,
        linewidth=2.2 if place == 0 else 1.3,
        label=name,
    )


def _mark_changes(axis: Any, table: Columns, *, label: bool) -> None:
    """A line where other settings come in than in the iteration before."""
    settings = dict(
        sorted((int(i), str(s)) for i, s in zip(table["iteration"], table["settings"], strict=True))
    )
    before = ""
    for iteration, names in settings.items():
        new = [n for n in names.split("+") if n not in before.split("+")]
        if new:
            axis.axvline(iteration, color="#bbbbbb", linewidth=0.8, linestyle=":")
            if label:
                axis.annotate(
                    _short(new),
                    *((iteration, 1.0),),
                    xycoords=("data", "axes fraction"),
                    xytext=(2, -9),
                    textcoords="offset points",
                    fontsize=7,
                    color="#555555",
                )
        before = names


def _short(names: Sequence[str]) -> str:
    """Names of settings that came new: w1, w3, or the load that they share."""
    loads = {name.partition("_c")[2] for name in names}
    if len(names) > 1 and len(loads) == 1 and "" not in loads:
        return f"{loads.pop()} %"
    return ", ".join(names)
