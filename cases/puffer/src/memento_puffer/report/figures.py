"""Charts of the demo and of analyses: scores by day, coverage, memories, quality against stalls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from memento.report import drawing
from memento.report.tables import Columns, columns_of

__all__ = ["BETTER", "composition", "coverage", "levels_of", "scores", "trade_off"]

BETTER = {"stalled": "less", "ssim": "more", "delta_ssim": "less"}
"""Which way differences between schemes are better."""


def scores(
    path: Path,
    days: Sequence[str],
    changes: Mapping[str, Mapping[str, Sequence[float]]],
    trained: Mapping[str, Sequence[bool]],
    reference: str,
) -> None:
    """Tail and median log score of each arm, day by day, as difference to a reference.

    Args:
        path: PNG file to write.
        days: Names of the ``n`` days that were evaluated on.
        changes: By arm, ``p01`` and ``median``: ``n`` differences in nats each.
        trained: By arm, whether the model was trained before each of these days.
        reference: Name of the reference, for the title.
    """
    figure, axes = drawing.pyplot().subplots(1, 2, figsize=(10, 4), layout="constrained")
    places = range(len(days))
    for axis, (score, title) in zip(
        axes, (("p01", "tail: 1st percentile"), ("median", "median")), strict=True
    ):
        axis.axhline(0, color="#bbbbbb", linewidth=1)
        for name, colour in drawing.coloured(changes):
            values = changes[name][score]
            axis.plot(places, values, color=colour, label=name, linewidth=1.6)
            marked = [i for i, flag in enumerate(trained[name]) if flag]
            axis.plot(marked, [values[i] for i in marked], "o", color=colour, markersize=4)
        axis.set(
            title=f"{title} log score", ylabel=f"nats above {reference}", xlabel="evaluated on"
        )
        drawing.label_days(axis, days)
    note = "dot: trained on the evening before"
    drawing.legend(figure, axes[:1], ncols=7, fontsize=None, title=note)
    drawing.save(figure, path)


def coverage(
    path: Path,
    days: Sequence[str],
    increases: Mapping[str, Sequence[float]],
    noise: Mapping[str, Sequence[float]],
    trained: Mapping[str, Sequence[bool]],
    threshold: float,
) -> None:
    """Relative coverage increase since the last training, with its noise.

    Args:
        path: PNG file to write.
        days: Names of ``n`` days.
        increases: By arm, ``n`` values, NaN where nothing was compared.
        noise: By arm, the 95 % quantile if nothing had changed.
        trained: By arm, whether the model was retrained on each day.
        threshold: From which on retraining is due.
    """
    figure, axes = drawing.panels(
        1,
        len(increases),
        (5 * len(increases), 3.2),
    )
    places = range(len(days))
    for axis, (name, colour) in zip(axes[0], drawing.coloured(increases, skip=2), strict=True):
        axis.axhline(threshold, color="#bbbbbb", linewidth=1, linestyle="--", label="threshold")
        axis.fill_between(places, noise[name], color=colour, alpha=0.15, label="noise (95 %)")
        axis.plot(places, increases[name], color=colour, linewidth=1.6, label="coverage increase")
        marked = [i for i, flag in enumerate(trained[name]) if flag]
        axis.plot(
            marked, [increases[name][i] for i in marked], "o", color=colour, label="retrained"
        )
        axis.set(title=name, ylabel="relative coverage increase", ylim=(0, None))
        axis.legend(frameon=False, fontsize=8)
        drawing.label_days(axis, days)
    drawing.save(figure, path)


def composition(
    path: Path,
    days: Sequence[str],
    ages: Mapping[str, Sequence[int]],
    classes: Mapping[str, Sequence[int]],
) -> None:
    """What the memories hold at the end: samples of each day, and of each class.

    Args:
        path: PNG file to write.
        days: Names of ``n`` days.
        ages: By arm, ``n`` numbers of samples.
        classes: By arm, numbers of samples of each class.
    """
    figure, axes = drawing.pyplot().subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for name, colour in drawing.coloured(ages, skip=1):
        total = max(1, sum(ages[name]))
        axes[0].plot(range(len(days)), [a / total for a in ages[name]], color=colour, label=name)
        axes[1].plot(
            range(len(classes[name])), [max(c, 0.5) / total for c in classes[name]], color=colour
        )
    axes[0].set(title="share of each day in the memory", ylim=(0, None))
    axes[0].legend(frameon=False, fontsize=8)
    drawing.label_days(axes[0], days)
    axes[1].set(
        title="share of each class", yscale="log", xlabel="class of transmission time (0.5 s each)"
    )
    drawing.save(figure, path)


def levels_of(schemes: Columns) -> dict[str, np.ndarray]:
    """Quality and stalls of schemes, as `trade_off` draws them.

    Args:
        schemes: ``scheme``, ``stall_ratio`` with ``stall_low`` and ``stall_high``; and where known
            ``ssim`` (dB) with ``_low`` and ``_high``.

    Returns:
        ``scheme``; ``stalled`` (%) and ``ssim`` (dB, NaN where not known) with ``_low``, ``_high``.

    Raises:
        SchemaError: A column is missing.
    """
    columns = columns_of(schemes, "scheme", "stall_ratio", "stall_low", "stall_high")
    levels = {"scheme": np.asarray(columns["scheme"]).astype(str)}
    for end, column in (("", "stall_ratio"), ("_low", "stall_low"), ("_high", "stall_high")):
        levels[f"stalled{end}"] = 100 * np.asarray(columns[column], np.float64)
    unknown = np.full(len(levels["scheme"]), math.nan)
    for column in ("ssim", "ssim_low", "ssim_high"):
        levels[column] = np.asarray(schemes.get(column, unknown), np.float64)
    return levels


def trade_off(path: Path, table: Columns, *, level: float = 0.9, title: str = "") -> None:
    """Quality against stalls of each scheme, better to the top right.

    Args:
        path: PNG file to write.
        table: A row per scheme: ``scheme``; ``stalled``, in % of the time streamed, and ``ssim``,
            in dB, each with bounds ``_low`` and ``_high``.
        level: Of the intervals, for the axes' labels.
        title: Of the figure.
    """
    figure, axis = drawing.pyplot().subplots(figsize=(7, 4.2), layout="constrained")
    names = list(table["scheme"])
    for i, (name, colour) in enumerate(drawing.coloured(dict.fromkeys(names), skip=2)):
        x, y = float(table["stalled"][i]), float(table["ssim"][i])
        axis.errorbar(
            x,
            y,
            xerr=drawing.error_bars(table, "stalled", i),
            yerr=drawing.error_bars(table, "ssim", i),
            color=colour,
            marker=drawing.MARKERS[i % len(drawing.MARKERS)],
            markersize=7,
            capsize=3,
            linewidth=1.4,
            label=name,
        )
    axis.invert_xaxis()
    axis.margins(0.1)
    axis.locator_params(axis="x", nbins=6)
    drawing.legend(figure, [axis], loc="outside right upper", ncols=1, fontsize=None)
    axis.set(
        title=title,
        xlabel=f"time stalled (%), {level:.0%} intervals; better to the right",
        ylabel="mean SSIM (dB); better to the top",
    )
    drawing.open_axes(axis)
    axis.grid(color="#eeeeee", linewidth=0.8)
    axis.set_axisbelow(True)
    drawing.save(figure, path)
