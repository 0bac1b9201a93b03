"""What a comparison says: a control that every tail has to beat, and one sentence at the end.

A softmax temperature on the baseline's predictions buys tail for median without any selection. An
arm is above this frontier if its worst 1 % exceeds that of the baseline at the temperature that
costs as much of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from memento.study.intervals import Gain, paired

__all__ = ["TEMPERATURES", "Verdict", "frontier", "measure_at", "verdict"]

#: At which the baseline is judged beside 1.
TEMPERATURES = (1.1, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)

_MEAN, _TAIL = "mean", "worst1"
_COSTS = -0.02  # of the mean that a recommended memory may cost
_SEEDS = 3  # without which an interval says little
_BETTER = ("mean", "balanced_accuracy", "worst_group")

#: ``(seeds, units)`` by measure.
Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """What to do.

    Attributes:
        recommended: Name of an arm.
        text: Why, in plain words.
        above: By arm, how far its worst 1 % is above the frontier; empty without probabilities.
    """

    recommended: str
    text: str
    above: Mapping[str, Gain]


def measure_at(measure: str, temperature: float) -> str:
    """Name of a measure of the baseline at a temperature.

    Example:
        >>> measure_at("mean", 1.5), measure_at("mean", 1)
        ('mean@1.5', 'mean')
    """
    return measure if temperature == 1 else f"{measure}@{temperature:g}"


def frontier(baseline: Values) -> list[dict[str, float]]:
    """What temperatures do to the baseline: gains of each measure, by temperature.

    Args:
        baseline: With its measures at `TEMPERATURES`; without them there is no frontier.
    """
    points = []
    for temperature in (1.0, *TEMPERATURES) if measure_at(_MEAN, 1.1) in baseline else ():
        point = {"temperature": temperature}
        for measure, values in baseline.items():
            at = measure_at(measure, temperature)
            if "@" not in measure and at in baseline:
                point[measure] = paired(baseline[at] - values).gain
        points.append(point)
    return points


def verdict(
    arms: Mapping[str, Values], baseline: str, controls: Sequence[str], seeds: int
) -> Verdict:
    """Recommend an arm.

    Another memory than the baseline is recommended only if its mean is at most 0.02 below, and the
    mean, the worst group, the balanced accuracy or the tail above the frontier is better by more
    than chance does in roughly one of twenty comparisons of so many arms; of these the one of the
    best mean. With fewer than three seeds the text calls it a hint.

    Args:
        arms: Of every arm, its measures.
        baseline: Name of an arm.
        controls: Names of arms that are no ways to select: more capacity, a temperature.
        seeds: How many there were.
    """
    base = arms[baseline]
    gains = {
        name: {m: paired(v - base[m]) for m, v in values.items() if m in base and "@" not in m}
        for name, values in arms.items()
    }
    above = {
        name: _above(values, base)
        for name, values in arms.items()
        if name not in (baseline, *controls) and measure_at(_MEAN, 1.1) in base and _TAIL in values
    }
    candidates = [name for name in arms if name not in (baseline, *controls)]
    wider = _widening(len(candidates) * (len(_BETTER) + 1))
    reasons = {}
    for name in candidates:
        found = gains[name]
        if not found.get(_MEAN, _NONE).gain >= _COSTS:
            continue
        better = [
            f"{measure.replace('_', ' ')} {found[measure]}"
            for measure in _BETTER
            if measure in found and _is_sure(found[measure], wider)
        ]
        if _is_sure(above.get(name, _NONE), wider):
            better.append(f"worst 1 % {above[name]} above what a temperature gives")
        if better:
            reasons[name] = " and ".join(better)
    if reasons:
        best = max(reasons, key=lambda name: gains[name][_MEAN].gain)
        text = f"{best} is worth it: against {baseline}, {reasons[best]}"
        beside = [f"{n} {gains[n][_MEAN]}" for n in controls if _MEAN in gains.get(n, {})]
        if beside:
            text += f"; mean without selecting: {', '.join(beside)}"
    else:
        best, text = _nothing(gains, baseline, controls)
    if seeds < _SEEDS:
        text = f"a hint only, as few seeds ran ({seeds}; {_SEEDS} say something): {text}"
    ran = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return Verdict(best, f"{text} ({len(candidates)} arms compared, {ran}).", above)


def _widening(comparisons: int) -> float:
    """By what an interval of one comparison is widened to hold for all of them (Bonferroni)."""
    normal = NormalDist()
    return normal.inv_cdf(1 - 0.05 / max(1, comparisons)) / normal.inv_cdf(0.95)


def _is_sure(gain: Gain, wider: float) -> bool:
    return gain.gain - wider * (gain.gain - gain.low) > 0


_NONE = Gain(math.nan, math.nan, math.nan)


def _nothing(
    gains: Mapping[str, Mapping[str, Gain]], baseline: str, controls: Sequence[str]
) -> tuple[str, str]:
    """No way to select is worth it; a control may be."""
    text = f"no way to select samples is better than {baseline} beyond chance"
    softened = next((name for name in controls if name.endswith("+T") and name in gains), None)
    if softened is None or not gains[softened].get(_MEAN, _NONE).gain >= _COSTS / 2:
        return baseline, f"keep a {baseline} memory: {text}"
    found = gains[softened]
    return softened, (
        f"keep a {baseline} memory and fit a temperature ({softened}: mean "
        f"{found[_MEAN]}, worst 1 % {found[_TAIL]}): {text}"
    )


def _above(arm: Values, base: Values) -> Gain:
    """The tail over that of the baseline at the temperature that costs as much of the mean."""
    means = {t: np.nanmean(base[measure_at(_MEAN, t)]) for t in (1.0, *TEMPERATURES)}
    fair = [t for t, mean in means.items() if mean >= np.nanmean(arm[_MEAN])]
    fair = fair or [max(means, key=lambda t: means[t])]
    rival = max(fair, key=lambda t: np.nanmean(base[measure_at(_TAIL, t)]))
    return paired(arm[_TAIL] - base[measure_at(_TAIL, rival)])
