"""Figures from result tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memento.errors import MissingExtraError

__all__ = ["composition", "coverage", "scores"]

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
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=130)
    _pyplot().close(figure)
