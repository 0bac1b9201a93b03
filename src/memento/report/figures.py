"""Figures from result tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memento.errors import MissingExtraError

__all__ = [
    "composition",
    "coverage",
    "distributions",
    "forest",
    "scores",
    "scores_by_day",
    "time_series",
    "trade_off",
]

Columns = Mapping[str, Any]

# Beside colours, for print without them.
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_LINES = ("-", "--", "-.", ":")
# Colours that are told apart with any colour vision (Okabe and Ito, 2008).
_COLOURS = ("#000000", "#999999", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


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
    figure, axes = _pyplot().subplots(1, 2, figsize=(10, 4), layout="constrained")
    places = range(len(days))
    for axis, (score, title) in zip(
        axes, (("p01", "tail: 1st percentile"), ("median", "median")), strict=True
    ):
        axis.axhline(0, color="#bbbbbb", linewidth=1)
        for name, colour in _coloured(changes):
            values = changes[name][score]
            axis.plot(places, values, color=colour, label=name, linewidth=1.6)
            marked = [i for i, flag in enumerate(trained[name]) if flag]
            axis.plot(marked, [values[i] for i in marked], "o", color=colour, markersize=4)
        axis.set(
            title=f"{title} log score", ylabel=f"nats above {reference}", xlabel="evaluated on"
        )
        _label_days(axis, days)
    handles, labels = axes[0].get_legend_handles_labels()
    title = "dot: trained on the evening before"
    figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False, title=title)
    _save(figure, path)


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
    figure, axes = _pyplot().subplots(
        1, len(increases), figsize=(5 * len(increases), 3.2), layout="constrained", squeeze=False
    )
    places = range(len(days))
    for axis, (name, colour) in zip(axes[0], _coloured(increases, skip=2), strict=True):
        axis.axhline(threshold, color="#bbbbbb", linewidth=1, linestyle="--", label="threshold")
        axis.fill_between(places, noise[name], color=colour, alpha=0.15, label="noise (95 %)")
        axis.plot(places, increases[name], color=colour, linewidth=1.6, label="coverage increase")
        marked = [i for i, flag in enumerate(trained[name]) if flag]
        axis.plot(
            marked, [increases[name][i] for i in marked], "o", color=colour, label="retrained"
        )
        axis.set(title=name, ylabel="relative coverage increase", ylim=(0, None))
        axis.legend(frameon=False, fontsize=8)
        _label_days(axis, days)
    _save(figure, path)


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
    figure, axes = _pyplot().subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for name, colour in _coloured(ages, skip=1):
        total = max(1, sum(ages[name]))
        axes[0].plot(range(len(days)), [a / total for a in ages[name]], color=colour, label=name)
        axes[1].plot(
            range(len(classes[name])), [max(c, 0.5) / total for c in classes[name]], color=colour
        )
    axes[0].set(title="share of each day in the memory", ylim=(0, None))
    axes[0].legend(frameon=False, fontsize=8)
    _label_days(axes[0], days)
    axes[1].set(
        title="share of each class", yscale="log", xlabel="class of transmission time (0.5 s each)"
    )
    _save(figure, path)


def trade_off(path: Path, table: Columns, *, level: float = 0.9, title: str = "") -> None:
    """Quality against stalls of each scheme, better to the top right.

    Args:
        path: PNG file to write.
        table: A row per scheme: ``scheme``; ``stalled``, in % of the time streamed, and ``ssim``,
            in dB, each with bounds ``_low`` and ``_high``.
        level: Of the intervals, for the axes' labels.
        title: Of the figure.
    """
    figure, axis = _pyplot().subplots(figsize=(7, 4.2), layout="constrained")
    names = list(table["scheme"])
    for i, (name, colour) in enumerate(_coloured(dict.fromkeys(names), skip=2)):
        x, y = float(table["stalled"][i]), float(table["ssim"][i])
        axis.errorbar(
            x,
            y,
            xerr=_bars(table, "stalled", i),
            yerr=_bars(table, "ssim", i),
            color=colour,
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=7,
            capsize=3,
            linewidth=1.4,
            label=name,
        )
    axis.invert_xaxis()
    axis.margins(0.1)
    axis.locator_params(axis="x", nbins=6)
    if names:
        figure.legend(loc="outside right upper", frameon=False)
    axis.set(
        title=title,
        xlabel=f"time stalled (%), {level:.0%} intervals; better to the right",
        ylabel="mean SSIM (dB); better to the top",
    )
    _open(axis)
    axis.grid(color="#eeeeee", linewidth=0.8)
    axis.set_axisbelow(True)
    _save(figure, path)


def distributions(
    path: Path, curves: Mapping[str, Columns], *, xlabel: str, title: str = "", zero: bool = True
) -> None:
    """Weighted distributions, such as of daily differences between two schemes.

    Args:
        path: PNG file to write.
        curves: By name, ``value`` ascending, and ``share`` at or below it, up to 1.
        xlabel: What the values are, with their unit.
        title: Of the figure.
        zero: Mark 0, and say in the legend what share lies above it.
    """
    figure, axis = _pyplot().subplots(figsize=(6, 4), layout="constrained")
    if zero:
        axis.axvline(0, color="#bbbbbb", linewidth=1)
    for i, (name, colour) in enumerate(_coloured(curves, skip=2)):
        values, shares = list(curves[name]["value"]), list(curves[name]["share"])
        label = name
        if zero and values:
            below = max((s for v, s in zip(values, shares, strict=True) if v <= 0), default=0.0)
            label = f"{name} ({1 - below:.0%} above 0)"
        style = _LINES[i % len(_LINES)]
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
    axis.set(title=title, xlabel=xlabel, ylabel="share of the time streamed", ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize=8)
    _open(axis)
    _save(figure, path)


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
        title: Of the figure.
        level: Of the band, for the legend.
        zero: Mark 0.
    """
    figure, axis = _pyplot().subplots(figsize=(9, 3.6), layout="constrained")
    if zero:
        axis.axhline(0, color="#bbbbbb", linewidth=1)
    by_scheme: dict[str, dict[Any, tuple[float, float, float]]] = {}
    columns = (table["day"], table["scheme"], table["value"], table["low"], table["high"])
    for day, scheme, value, low, high in zip(*columns, strict=True):
        by_scheme.setdefault(str(scheme), {})[_date(day)] = (value, low, high)
    for i, (name, colour) in enumerate(_coloured(by_scheme, skip=2)):
        rows = by_scheme[name]
        days = _without_gaps(list(rows))
        nothing = (float("nan"),) * 3
        value, low, high = (
            list(c) for c in zip(*(rows.get(d, nothing) for d in days), strict=True)
        )
        axis.fill_between(days, low, high, color=colour, alpha=0.15, linewidth=0)
        style, marker = _LINES[i % len(_LINES)], "o" if len(days) == 1 else None
        axis.plot(
            days, value, color=colour, linestyle=style, marker=marker, linewidth=1.8, label=name
        )
    axis.set(title=title, ylabel=ylabel)
    if by_scheme:
        handles, labels = axis.get_legend_handles_labels()
        note = f"band: {level:.0%} interval"
        figure.legend(handles, labels, loc="outside right upper", frameon=False, title=note)
    axis.tick_params(labelsize=8)
    axis.xaxis.set_major_formatter(_concise_dates(axis))
    _open(axis)
    _save(figure, path)


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
        title: Of the figure.
        better: By variable "less" or "more", noted below its axis.
    """
    variables = list(dict.fromkeys(table["variable"]))
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    wanted = better or {}
    figure, axes = _pyplot().subplots(
        1,
        max(1, len(variables)),
        figsize=(2.2 + 3 * max(1, len(variables)), 1.5 + 0.38 * len(pairs)),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    places = {pair: len(pairs) - 1 - i for i, pair in enumerate(pairs)}
    colours = dict(_coloured(dict.fromkeys(first for first, _ in pairs), skip=2))
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
        _open(axis, left=False)
    axes[0][0].set_yticks(list(places.values()), [f"{a} - {b}" for a, b in places])
    figure.suptitle(title)
    figure.supxlabel("hollow: the interval holds 0", fontsize=8, color="#555555")
    _save(figure, path)


def scores_by_day(path: Path, table: Columns, *, ylabel: str, title: str = "") -> None:
    """A score of each arm on each day, as points beside each other.

    Args:
        path: PNG file to write.
        table: A row per arm and day: ``day``, ``arm``, ``value``; optional ``low`` and ``high``.
        ylabel: What the values are, with their unit.
        title: Of the figure.
    """
    days, arms = (list(dict.fromkeys(map(str, table[c]))) for c in ("day", "arm"))
    figure, axis = _pyplot().subplots(
        figsize=(min(12.0, 3 + 0.5 * max(len(days), 6)), 3.8), layout="constrained"
    )
    axis.axhline(0, color="#bbbbbb", linewidth=1)
    for place in range(1, len(days), 2):  # every other day shaded, so that arms of a day group
        axis.axvspan(place - 0.5, place + 0.5, color="#f5f5f5", zorder=0)
    width = 0.7 / max(1, len(arms))
    for i, (arm, colour) in enumerate(_coloured(dict.fromkeys(arms), skip=2)):
        rows = [k for k, name in enumerate(table["arm"]) if str(name) == arm]
        shift = (i - (len(arms) - 1) / 2) * width
        x = [days.index(str(table["day"][k])) + shift for k in rows]
        y = [float(table["value"][k]) for k in rows]
        bars = [_bars(table, "", k) for k in rows] if "low" in table else []
        axis.errorbar(
            x,
            y,
            yerr=[[b[side][0] for b in bars] for side in (0, 1)] if bars else None,
            color=colour,
            marker=_MARKERS[i % len(_MARKERS)],
            linestyle="none",
            markersize=5.5,
            linewidth=1.2,
            label=arm,
        )
    axis.set(title=title, ylabel=ylabel, xlim=(-0.6, max(len(days), 1) - 0.4))
    _label_days(axis, days)
    if arms:
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    _save(figure, path)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "figures", "drawing figures") from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _coloured(names: Mapping[str, Any], skip: int = 0) -> list[tuple[str, str]]:
    return [(n, _COLOURS[(i + skip) % len(_COLOURS)]) for i, n in enumerate(names)]


def _label_days(axis: Any, days: Sequence[str]) -> None:
    step = max(1, len(days) // 7)
    axis.set_xticks(range(0, len(days), step), list(days)[::step], rotation=30, ha="right")
    axis.tick_params(labelsize=8)
    _open(axis)


def _open(axis: Any, left: bool = True) -> None:
    """No frame but the axes."""
    for side in ("top", "right") if left else ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _bars(table: Columns, name: str, row: int) -> list[list[float]]:
    """What error bars take: how far below and above the value its bounds lie."""
    prefix = f"{name}_" if name else ""
    value = float(table[name or "value"][row])
    low, high = (float(table[f"{prefix}{side}"][row]) for side in ("low", "high"))
    # A mean over resamples may lie a little outside.
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


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


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
    _pyplot().close(figure)
