"""Figures of a deployment, the published one's or one's own, from a table of its days."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from memento.report import drawing

__all__ = ["coverage_and_trainings"]


def coverage_and_trainings(
    path: Path,
    table: Mapping[str, np.ndarray],
    *,
    threshold: float = 0.1,
    title: str = "",
    new_metric: np.datetime64 | None = None,
) -> None:
    """Coverage increase of each day, trainings, and total coverage; a column for each variant.

    Args:
        path: PNG file to write.
        table: Columns of ``n`` rows: variant (text), horizon (integers), day (datetime64[D]),
            retrained (bool), coverage_increase in [0, 1], total_coverage (NaN where not known).
        threshold: From which on a training is due.
        title: What deployment this is.
        new_metric: First day from which on coverage is measured in another way, if there is one:
            lines stop before it and start again.
    """
    variants = sorted(set(table["variant"].tolist()))
    figure, axes = drawing.panels(
        2, len(variants), (5.5 * max(1, len(variants)), 5.5), sharex=True, sharey="row"
    )
    for column, variant in enumerate(variants):
        upper, lower = axes[:, column]
        upper.axhline(threshold, color="#bbbbbb", linewidth=1, linestyle="--", label="threshold")
        rows_of = np.flatnonzero(table["variant"] == variant)
        for number, horizon in enumerate(sorted(set(table["horizon"][rows_of].tolist()))):
            rows = rows_of[table["horizon"][rows_of] == horizon]
            rows = rows[np.argsort(table["day"][rows], kind="stable")]
            colour = drawing.COLOURS[(number + 2) % len(drawing.COLOURS)]
            for part in _unbroken(table["day"][rows], new_metric):
                at = rows[part]
                days = table["day"][at].astype("datetime64[s]").astype(object)
                label = f"horizon {horizon}" if part.start == 0 else None
                upper.plot(
                    days, table["coverage_increase"][at], color=colour, linewidth=0.9, label=label
                )
                lower.plot(days, table["total_coverage"][at], color=colour, linewidth=0.9)
            at = rows[table["retrained"][rows]]
            days = table["day"][at].astype("datetime64[s]").astype(object)
            upper.plot(days, table["coverage_increase"][at], "o", color=colour, markersize=3)
        upper.set(title=variant, yscale="log", ylim=(0.02, 1.2))
        for axis in (upper, lower):
            axis.tick_params(labelsize=8)
            if new_metric is not None:
                axis.axvline(
                    new_metric.astype("datetime64[s]").astype(object), color="#bbbbbb", linewidth=1
                )
            drawing.open_axes(axis)
        for label in lower.get_xticklabels():
            label.set(rotation=30, ha="right")
    axes[0, 0].set_ylabel("relative coverage increase")
    axes[1, 0].set_ylabel("total coverage")
    drawing.legend(figure, [axes[0, 0]], ncols=6, fontsize=None, title="dot: trained")
    drawing.save(figure, path, title)


def _unbroken(days: np.ndarray, new_metric: np.datetime64 | None) -> list[slice]:
    """Stretches of consecutive days on one side of a change of the metric."""
    if not len(days):
        return []
    breaks = np.diff(days) != np.timedelta64(1, "D")
    if new_metric is not None:
        breaks |= (days[1:] >= new_metric) & (days[:-1] < new_metric)
    ends = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(days)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]
