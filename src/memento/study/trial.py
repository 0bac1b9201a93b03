"""Does it pay on this stream, with which policy and trigger: three comparisons and a verdict.

Policies are compared while training after every unit; triggers with the baseline's memory; and
triggers once more on the stream in shuffled order, where nothing changes and every training after
the first is a false alarm.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento import arguments
from memento.learner import Learner
from memento.policies import FIFO, Policy, Reservoir
from memento.retrain import Every, Never, Trigger
from memento.samples import Samples
from memento.study.engine import Backtest, backtest
from memento.study.runs import Progress

__all__ = ["Trial", "TriggerFigures", "shuffled", "try_stream"]

_DAILY, _NEVER = "daily", "never"
_CHEAP = 0.01  # of the mean a unit: what trainings that are saved may cost
_CALM = 0.02  # false alarms a unit

Unit = tuple[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class TriggerFigures:
    """What a trigger did.

    Attributes:
        trainings: In all, the first included; mean over seeds.
        cost: Mean score of training after every unit, minus that with this trigger; above 0: worse.
        false_alarms: Trainings after the first on the shuffled stream; mean over seeds.
        units: At which there could have been one.
        seconds: Of a run.
    """

    trainings: float
    cost: float
    false_alarms: float
    units: int
    seconds: float


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        comparison: Of the policies.
        triggers: By name, with the baseline's memory.
        trigger: Name of the one to use.
        seeds: How many there was time for.
        verdict: What to do, in plain words.
    """

    comparison: Backtest
    triggers: Mapping[str, TriggerFigures]
    trigger: str
    seeds: int
    verdict: str

    def document(self) -> dict[str, Any]:
        """As one JSON object."""
        table, found = self.comparison.table, self.comparison
        arms: dict[str, Any] = {}
        for row in zip(*(table[n].tolist() for n in table), strict=True):
            arm, measure, *numbers = row
            values = dict(zip(("value", "gain", "low", "high"), map(_finite, numbers), strict=True))
            arms.setdefault(arm, {"measures": {}})["measures"][measure] = values
        for name, row in arms.items():
            row |= {"trainings": found.trainings[name], "seconds": found.seconds[name]}
            if name in found.above:
                gain = found.above[name]._asdict()
                row["above_frontier"] = {key: _finite(value) for key, value in gain.items()}
        return {
            "baseline": found.baseline,
            "arms": arms,
            "frontier": [dict(point) for point in found.frontier],
            "triggers": {
                name: {
                    "trainings": figures.trainings,
                    "cost": _finite(figures.cost),
                    "false_alarms": figures.false_alarms,
                    "units": figures.units,
                    "seconds": figures.seconds,
                }
                for name, figures in self.triggers.items()
            },
            "units": list(found.units),
            "seeds": self.seeds,
            "recommended": {"memory": found.recommended, "trigger": self.trigger},
            "verdict": self.verdict,
        }


@arguments.checked
def try_stream(
    units: Sequence[Unit],
    make_learner: Callable[[int], Learner],
    policies: Mapping[str, Policy],
    triggers: Mapping[str, Trigger],
    *,
    capacity: int,
    seeds: arguments.Count = 5,
    group: str | None = None,
    cluster: str | None = None,
    folder: Path | None = None,
    learner: str = "",
    workers: int = 1,
    budget: float = math.inf,
    progress: Callable[[str], Progress] | None = None,
) -> Trial:
    """Compare policies and triggers on a stream, beside what needs neither.

    Args:
        units: The stream.
        make_learner: Makes an untrained learner from a seed.
        policies: By name; ``random`` and ``fifo`` join.
        triggers: By name; ``daily`` (after every unit) and ``never`` (once) join.
        capacity: Samples in memory.
        seeds: Most seeds.
        group: Column of groups, for the worst group.
        cluster: Column of what stays together when the stream is shuffled.
        folder: Keeps results, so that what was stopped goes on; see `backtest`.
        learner: What learners are called; results in the folder under another name are refused.
        workers: Processes at a time.
        budget: Seconds, by the clock: more seeds begin only while there is time for them. The first
            is always completed.
        progress: From the name of a comparison to what is told of it.

    Raises:
        SettingError, ForeignError, DamagedError: As for `backtest`.
    """
    begun = time.monotonic()
    policies = {"random": Reservoir(), "fifo": FIFO(), **policies}
    triggers = {_DAILY: Every(1), _NEVER: Never(), **triggers}
    numbers = list(range(seeds)) if budget == math.inf else [0]
    with tempfile.TemporaryDirectory(prefix="memento-trial-") as scratch:
        # Further seeds go on from what was found; where there are none, nothing need be kept.
        kept = Path(scratch) if budget < math.inf else None
        root = kept if folder is None else Path(folder)

        def compared(
            part: str, stream: Sequence[Unit], over: Sequence[int], **arms: Any
        ) -> Backtest:
            return backtest(
                stream,
                make_learner,
                capacity=capacity,
                seeds=over,
                group=group,
                folder=None if root is None else root / part,
                learner=learner,
                workers=workers,
                progress=None if progress is None else progress(part),
                **arms,
            )

        while True:
            comparison = compared("policies", units, numbers, policies=policies)
            memory = {"random": Reservoir()}
            timed = compared(
                *("triggers", units, numbers), policies=memory, triggers=triggers, controls=False
            )
            quiet = [
                compared(
                    *(f"quiet-{seed}", shuffled(units, cluster, seed), [seed]),
                    policies=memory,
                    triggers=triggers,
                    controls=False,
                )
                for seed in numbers
            ]
            spent = time.monotonic() - begun
            # What was there already took no time now, and says in its results what a seed takes.
            courses = [*comparison.seconds.values(), *timed.seconds.values()]
            recorded = sum([*courses, *quiet[0].seconds.values()]) / workers
            cost = max(spent / len(numbers), recorded)
            if len(numbers) == seeds or not spent + cost <= budget:
                break
            numbers = [*numbers, len(numbers)]
    figures = _figures(timed, quiet, list(triggers), len(units))
    chosen, why = _trigger(figures)
    text = f"{comparison.verdict} {why}"
    return Trial(comparison, figures, chosen, len(numbers), text[0].upper() + text[1:])


def shuffled(units: Sequence[Unit], cluster: str | None, seed: int) -> list[Unit]:
    """The same samples in random order, in units of the same sizes: nothing ever changes.

    Args:
        units: The stream.
        cluster: Column of what belongs together: what a unit has of one stays together, but for
            where a unit ends.
        seed: Of the order.
    """
    joined = Samples.concat([Samples.borrow(dict(columns)) for _, columns in units])
    sizes = [len(next(iter(columns.values()))) for _, columns in units]
    rng = np.random.default_rng(seed)
    if cluster is None:
        order = rng.permutation(joined.size)
    else:
        _, names = np.unique(joined[cluster], return_inverse=True)
        # Of a cluster that comes in many units, each has its piece: whole, it would be a change.
        pieces = names * len(units) + np.repeat(np.arange(len(units)), sizes)
        _, pieces = np.unique(pieces, return_inverse=True)
        order = np.argsort(rng.permutation(pieces.max() + 1)[pieces], kind="stable")
    ends = np.cumsum(sizes)
    found: list[Unit] = []
    for (name, _), end, start in zip(units, ends, [0, *ends[:-1]], strict=True):
        rows = order[start:end]
        found.append((name, {column: joined[column][rows] for column in joined}))
    return found


def _figures(
    timed: Backtest, quiet: Sequence[Backtest], names: Sequence[str], units: int
) -> dict[str, TriggerFigures]:
    """What triggers did on the stream, and in shuffled order, by name."""
    table = timed.table
    gains = {
        str(arm): float(gain)
        for arm, measure, gain in zip(table["arm"], table["measure"], table["gain"], strict=True)
        if measure == "mean"
    }
    return {
        name: TriggerFigures(
            trainings=timed.trainings[f"random/{name}"],
            cost=-gains.get(f"random/{name}", math.nan) + 0.0,
            false_alarms=float(
                np.mean([course.trainings[f"random/{name}"] - 1 for course in quiet])
            ),
            units=units - 1,
            seconds=timed.seconds[f"random/{name}"],
        )
        for name in names
    }


def _trigger(figures: Mapping[str, TriggerFigures]) -> tuple[str, str]:
    """The trigger of the fewest trainings that costs little and is quiet where nothing changes."""
    good = {
        name: figure
        for name, figure in figures.items()
        if figure.cost <= _CHEAP and figure.false_alarms <= max(_CALM * figure.units, 0.5)
    }
    daily = figures[_DAILY].trainings
    if not good:
        return _DAILY, (
            f"Train after every unit ({daily:.0f} times): fewer trainings cost more than {_CHEAP} "
            "of the mean, or came where nothing changes."
        )
    best = min(good, key=lambda name: good[name].trainings)  # not by the clock: always the same
    figure = good[best]
    if best == _NEVER:
        return best, f"Train once: training after every unit gains {figure.cost:+.3f} of the mean."
    return best, (
        f"Retrain by {best}: {figure.trainings:.1f} trainings instead of {daily:.0f}, for "
        f"{figure.cost:+.3f} of the mean, and {figure.false_alarms:.1f} false alarms in "
        f"{figure.units} units where nothing changes."
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
