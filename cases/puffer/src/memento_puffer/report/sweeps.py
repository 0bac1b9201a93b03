"""Figures of replays: sweeps, arms side by side, courses over days, what is kept.

What the paper reports is drawn hollow and grey, ours in colour with standard errors over days.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.report import drawing
from memento.report.tables import Columns

__all__ = [
    "courses",
    "densities",
    "insert_times",
    "quality",
    "selection",
    "sweep",
    "training_days",
]

_TICKS = 7  # settings from which on not all of them are labelled


def sweep(path: Path, table: Columns, *, xlabel: str, ylabel: str) -> None:
    """Tail and median by a number on a logarithmic axis; a column for each series.

    Args:
        path: PNG file to write.
        table: ``series``, ``x`` (0 stands leftmost), ``origin`` ("ours", "paper"), ``score``,
            ``value``, ``error`` (NaN: none).
        xlabel: What ``x`` is.
        ylabel: What the values are, with their unit.
    """
    series = drawing.names_of(table, "series")
    scores = drawing.names_of(table, "score", ("tail", "median"))
    figure, axes = drawing.panels(
        len(scores),
        len(series),
        (2.2 + 3.3 * max(1, len(series)), 1 + 2.5 * max(1, len(scores))),
        sharex="col",
    )
    for row, score in enumerate(scores):
        for column, name in enumerate(series):
            axis = axes[row][column]
            axis.axhline(0, color="#dddddd", linewidth=1)
            spread = []
            for origin in ("paper", "ours"):
                wanted = {"series": name, "score": score, "origin": origin}
                x, y, error = drawing.series(table, "x", "value", "error", by="x", **wanted)
                x = _logarithmic(x)
                spread += [value for value in y if value == value]
                if origin == "paper":
                    style = {"marker": "o", "linestyle": ":", **drawing.HOLLOW}
                    if x:
                        axis.plot(x, y, label="paper (real days)", **style)
                    continue
                axis.errorbar(
                    *(x, y),
                    yerr=np.nan_to_num(error),
                    color=drawing.OURS[0],
                    marker="o",
                    capsize=3,
                    linewidth=1.6,
                    label="this folder, ± standard error",
                )
            _number_ticks(axis, sorted({*drawing.series(table, "x", series=name)[0]}))
            if spread and max(map(abs, spread)) > 5:  # a collapse beside gains of a few tenths
                axis.set_yscale("symlog", linthresh=1.0)
            if row == 0:
                axis.set_title(name)
            if column == 0:
                axis.set_ylabel(f"{drawing.TITLES.get(score, score)}\n{ylabel}", fontsize=9)
            axis.tick_params(labelsize=8)
            drawing.open_axes(axis)
    for axis in axes[-1]:
        axis.set_xlabel(xlabel, fontsize=8)
    drawing.legend(figure, axes.flat)
    drawing.save(figure, path)


def _number_ticks(axis: Any, x: Sequence[float]) -> None:
    """A logarithmic axis with the settings themselves as ticks; of many, the powers of ten."""
    places = dict(zip(x, _logarithmic(x), strict=True))
    if len(x) > _TICKS:
        places = {
            v: at for v, at in places.items() if v == 0 or math.log10(v) == round(math.log10(v))
        }
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xticks(list(places.values()), [f"{value:g}" for value in places])


def _logarithmic(x: Sequence[float]) -> list[float]:
    """Values for a logarithmic axis, on which 0 stands a decade before the least."""
    least = min((value for value in x if value > 0), default=1.0)
    return [value if value > 0 else least / 10 for value in x]


def courses(
    path: Path, table: Columns, *, ylabel: str, paper: Columns | None = None, title: str = ""
) -> None:
    """A score of each arm day by day, a panel for each period; the paper's levels apart.

    Args:
        path: PNG file to write.
        table: ``period``, ``day``, ``label``, ``value``.
        ylabel: What the values are, with their unit.
        paper: ``subject``, ``part``, ``low``, ``high``: levels, in a panel with its own axis.
        title: Of the figure.
    """
    periods, labels = drawing.names_of(table, "period"), drawing.names_of(table, "label")
    aside = paper is not None and len(paper["subject"]) > 0
    figure, axes = drawing.panels(
        1,
        len(periods) + aside or 1,
        (1.5 + 4 * max(1, len(periods)) + 2 * aside, 4.2),
        width_ratios=[4.0] * (len(periods) or 1 - aside) + [1.6] * aside,
    )
    colours = dict(drawing.with_colours(labels))
    for axis, period in zip(axes[0], periods, strict=False):
        days = _days(table, period)
        for place, label in enumerate(labels):
            when, y = drawing.series(table, "day", "value", by="day", period=period, label=label)
            axis.plot(
                [days.index(day) for day in when],
                y,
                color=colours[label],
                linestyle=drawing.LINES[(place // len(drawing.OURS)) % len(drawing.LINES)],
                marker="." if len(days) < 40 else None,
                linewidth=1.4,
                label=label,
            )
        axis.set_title(period)
        drawing.label_days(axis, days)
    known = [float(v) for v in table["value"] if float(v) > 0]
    if known and max(known) > 20 * min(known):  # some arms collapse, on some days
        for axis in axes[0][: len(periods)]:
            axis.set_yscale("log")
    if len(periods) > 1:
        low = min(axis.get_ylim()[0] for axis in axes[0][: len(periods)])
        high = max(axis.get_ylim()[1] for axis in axes[0][: len(periods)])
        for axis in axes[0][: len(periods)]:
            axis.set_ylim(low, high)
    axes[0][0].set_ylabel(ylabel)
    if aside and paper is not None:
        _levels(axes[0][-1], paper)
    drawing.legend(figure, axes.flat)
    drawing.save(figure, path, title)


def _days(table: Columns, period: str) -> list[str]:
    return sorted({*drawing.series(table, "day", period=period)[0]})


def _levels(axis: Any, paper: Columns) -> None:
    names = [f"{s}\n{p}" for s, p in zip(paper["subject"], paper["part"], strict=True)]
    for i in range(len(names)):
        low, high = float(paper["low"][i]), float(paper["high"][i])
        axis.plot([i, i], [low, high], color=drawing.GREY, linewidth=1.2)
        axis.plot([i], [(low + high) / 2], "D", markersize=5, **drawing.HOLLOW)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    axis.set_title("paper\n(own axis)", fontsize=9, color=drawing.GREY)
    axis.yaxis.tick_right()
    axis.tick_params(axis="y", labelsize=8, colors=drawing.GREY)
    axis.margins(x=0.2)


def training_days(path: Path, table: Columns) -> None:
    """On which days each arm was trained; a panel for each period.

    Args:
        path: PNG file to write.
        table: ``period``, ``arm``, ``day``, ``trained``.
    """
    periods, names = drawing.names_of(table, "period"), drawing.names_of(table, "arm")
    figure, axes = drawing.panels(
        1, len(periods), (2.5 + 3.2 * max(1, len(periods)), 1.4 + 0.25 * len(names)), sharey=True
    )
    for axis, period in zip(axes[0], periods, strict=False):
        days = _days(table, period)
        for place, (arm, colour) in enumerate(drawing.with_colours(names)):
            when, trained = drawing.series(table, "day", "trained", period=period, arm=arm)
            x = [days.index(day) for day, due in zip(when, trained, strict=True) if due]
            axis.plot(x, [place] * len(x), "o", color=colour, markersize=4)
        axis.set(title=period, xlim=(-0.7, max(len(days), 1) - 0.3))
        axis.grid(axis="y", color="#f0f0f0")
        axis.set_axisbelow(True)
        drawing.label_days(axis, days)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].set_ylim(len(names) - 0.4, -0.6)
    drawing.save(figure, path)


def densities(path: Path, table: Columns) -> None:
    """How dense a frozen memory is where each new day's batches are; a panel per batch size.

    Args:
        path: PNG file to write.
        table: ``period``, ``day``, ``batch_size``, ``of`` ("memory", "day"), ``metric`` (quantiles
            such as q0.5), ``value``.
    """
    sizes = sorted({int(size) for size in table["batch_size"]})
    periods = drawing.names_of(table, "period")
    wanted = ("q0.01", "q0.1", "q0.5", "q0.9")
    figure, axes = drawing.panels(
        len(sizes),
        len(periods),
        (1.8 + 3.6 * max(1, len(periods)), 1 + 2.6 * max(1, len(sizes))),
        sharey="row",
        sharex="col",
    )
    for row, size in enumerate(sizes):
        for axis, period in zip(axes[row], periods, strict=False):
            panel = {"period": period, "batch_size": str(size)}
            days = sorted({*drawing.series(table, "day", **panel)[0]})
            for (metric, colour), of in itertools.product(
                drawing.with_colours(wanted), ("day", "memory")
            ):
                line = {**panel, "metric": metric, "of": of}
                when, y = drawing.series(table, "day", "value", by="day", **line)
                axis.plot(
                    [days.index(day) for day in when],
                    y,
                    color=colour,
                    linestyle="-" if of == "day" else ":",
                    linewidth=1.4,
                    label=f"{metric}, {'new days' if of == 'day' else 'the memory itself'}",
                )
            axis.set_yscale("log")
            if row == 0:
                axis.set_title(period)
            drawing.label_days(axis, days)
        axes[row][0].set_ylabel(f"density, batches of {size}")
    drawing.legend(figure, axes.flat, ncols=4)
    drawing.save(figure, path)


def selection(path: Path, table: Columns) -> None:
    """What policies keep of batches from rare to dense, and what training on it does to the loss.

    Args:
        path: PNG file to write.
        table: ``policy``, ``rank`` (0 rarest, 1 densest), ``density``, ``loss_before``, ``kept``,
            ``change``.
    """
    figure, axes = drawing.pyplot().subplots(1, 3, figsize=(13, 3.9), layout="constrained")
    policies = drawing.names_of(table, "policy")
    for place, (policy, colour) in enumerate(drawing.with_colours(policies)):
        names = ("rank", "loss_before", "density", "kept", "change")
        rank, before, density, kept, change = drawing.series(
            table, *names, by="rank", policy=policy
        )
        if place == 0:
            axes[0].plot(rank, before, color="black", label="loss before")
            twin = axes[0].twinx()
            twin.plot(rank, density, color="black", linestyle=":", label="density")
            twin.set(ylabel="density (dotted)", yscale="log")
            twin.tick_params(labelsize=8)
        style = drawing.LINES[place % len(drawing.LINES)]
        for axis, y in ((axes[1], kept), (axes[2], change)):
            axis.plot(rank, y, color=colour, linestyle=style, linewidth=1.8, label=policy)
    axes[2].axhline(0, color="#bbbbbb", linewidth=1)
    axes[0].set(title="loss and density of batches", ylabel="mean loss (nats)")
    axes[1].set(title="share that is kept", ylim=(0, 1.02))
    axes[2].set(title="loss after training on it - before", ylabel="nats; below 0 is better")
    axes[2].set_yscale("symlog", linthresh=0.5)
    for axis in axes:
        axis.set_xlabel("batches from rare (0) to dense (1)", fontsize=9)
        axis.tick_params(labelsize=8)
    drawing.legend(figure, axes[1:])
    drawing.save(figure, path)


def insert_times(path: Path, table: Columns) -> None:
    """Seconds of an insert by batch size; the paper's on an axis of their own.

    Args:
        path: PNG file to write.
        table: ``x``, ``mean``, ``std``, ``paper mean``, ``paper std``.
    """
    figure, axes = drawing.pyplot().subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    x = [float(value) for value in table["x"]]
    for axis, prefix, title in (
        (axes[0], "", "this folder"),
        (axes[1], "paper ", "paper (a million samples)"),
    ):
        style: dict[str, Any] = dict(drawing.HOLLOW) if prefix else {"color": drawing.OURS[0]}
        mean, std = (np.asarray(table[f"{prefix}{n}"], np.float64) for n in ("mean", "std"))
        spread = np.nan_to_num([np.minimum(std, mean), std])
        axis.errorbar(x, mean, yerr=spread, marker="o", capsize=3, **style)
        axis.set(title=title, xscale="log", ylabel="s for an insert, ± deviation over days")
        axis.set_xlabel("batch size, multiple of the default")
        axis.set_xticks(x, [f"{value:g}" for value in x])
        axis.minorticks_off()
        axis.set_ylim(0, None)
        drawing.open_axes(axis)
    drawing.save(figure, path)


def quality(path: Path, table: Columns, *, title: str = "") -> None:
    """Quality against stalls, ours and the paper's in panels of their own.

    Args:
        path: PNG file to write.
        table: ``origin`` ("ours", "paper"), ``scheme``, ``stalled`` (%) and ``ssim`` (dB), each
            with ``_low`` and ``_high`` (NaN: none).
        title: Of the figure.
    """
    figure, axes = drawing.pyplot().subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for axis, origin, heading in (
        (axes[0], "ours", "this folder"),
        (axes[1], "paper", "published (real viewers)"),
    ):
        rows = drawing.rows_of(table, origin=origin)
        for place, i in enumerate(rows):
            colour = drawing.OURS[place % len(drawing.OURS)]
            style = {"color": colour} if origin == "ours" else drawing.HOLLOW
            x, y = float(table["stalled"][i]), float(table["ssim"][i])
            xerr, yerr = (
                np.nan_to_num(drawing.error_bars(table, name, i)) for name in ("stalled", "ssim")
            )
            marker = drawing.MARKERS[place % len(drawing.MARKERS)]
            axis.errorbar(x, y, xerr=xerr, yerr=yerr, marker=marker, capsize=3, **style)
            axis.annotate(
                str(table["scheme"][i]),
                *((x, y),),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=8,
                color=style["color"],
            )
        if rows:
            axis.invert_xaxis()
        axis.margins(0.15)
        axis.set(title=heading, xlabel="time stalled (%); better to the right", ylabel="SSIM (dB)")
        axis.grid(color="#eeeeee", linewidth=0.8)
        axis.set_axisbelow(True)
        drawing.open_axes(axis)
    drawing.save(figure, path, title)
