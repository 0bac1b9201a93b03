"""The library's defaults in replays of simulated days without a shift, beside what selects nothing.

    python benchmarks/puffer_defaults.py FOLDER [--days 15] [--viewers 40] [--seeds 0-4] [--arms A]

For each seed another period is simulated; the first day trains the static model, the others are
replayed by every arm, which trains every second day. Temperatures are applied to the random
memory's predictions. Everything is kept in FOLDER, so a run that was stopped goes on. Prints a
table for docs/results.md: differences to the random memory on the day after, means over days, and
half of their 90 % interval over seeds (Student's t).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np

from memento.step import Moment
from memento.study import interval
from memento.training.calibrated import softened
from memento_puffer.data.features import Features
from memento_puffer.predictor.scores import score
from memento_puffer.studies.contents import Period
from memento_puffer.studies.day_bodies import features_of_simulated, simulation_of
from memento_puffer.studies.days import first_network
from memento_puffer.studies.replay import Replay
from memento_puffer.studies.replay_settings import arm

CAPACITY, BATCH = 15_000, 64
ARMS = ("random", "memento", "memento-defaults", "density-reservoir", "density-reservoir-defaults",
        "random-triple", "forgetting", "random-calibrated", "memento-calibrated",
        "density-reservoir-calibrated")  # fmt: skip
TEMPERATURES = (1.25, 1.5, 2.0)
MEASURES = ("p01", "median", "mean")


class Softer(Replay):
    """Judges the predictions at other temperatures, too."""

    def _judge(self, moment: Moment) -> Mapping[str, float]:
        found = dict(super()._judge(moment))
        samples = moment.samples
        for temperature in TEMPERATURES if samples.size else ():
            yhat = softened({"yhat": samples["yhat"]}, temperature)["yhat"]
            logscore = score(yhat, samples["y"])["logscore"]
            values = (*np.quantile(logscore, [0.01, 0.5]), logscore.mean())
            for name, value in zip(MEASURES, values, strict=True):
                found[f"T{temperature:g}_{name}"] = float(value)
        return found


def replayed(
    folder: Path, seed: int, days: int, viewers: int, arms: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Scores of every arm with one seed, by day."""
    dates = Period("", "2024-01-01", days, (), seed=100 + seed).dates
    simulation = simulation_of((), 100 + seed)
    places = {}
    for number, name in enumerate(dates):
        places[name] = folder / "days" / name
        if not (places[name] / "features.json").is_file():
            places[name].parent.mkdir(parents=True, exist_ok=True)
            features_of_simulated(simulation, number, viewers).write(places[name])
    base = first_network(Features.read(places[dates[0]]), 0)
    found = {}
    for name in arms:
        given = {"interval": 2, "coverage_batch": BATCH, "seed": seed, "capacity": CAPACITY}
        own = {} if name.endswith("-defaults") else {"batch_size": BATCH}
        kind = Softer if name == "random" else Replay
        stream = {day: places[day] for day in dates[1:]}
        steps = kind(folder / name, arm(name, given, **own), stream, base).run()
        found[name] = {s.name: {**s.scores, "trained": s.trained} for s in steps if s.scores}
        print(f"seed {seed}: {name}", flush=True)
    return found


def differences(
    seeds: list[dict[str, dict[str, Any]]], name: str, prefix: str, measure: str
) -> str:
    """One arm's difference to the random memory, as a cell of the table."""
    found = []
    for one in seeds:
        base = one["random"]
        days = [day for day in one[name] if day in base and f"{prefix}{measure}" in one[name][day]]
        found.append(np.mean([one[name][d][f"{prefix}{measure}"] - base[d][measure] for d in days]))
    mean, low, high = interval(found)
    return f"{mean:+.3f} ± {(high - low) / 2:.3f}"


def main() -> None:
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=15)
    parser.add_argument("--viewers", type=int, default=40)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="with random")
    given = parser.parse_args()
    if "random" not in given.arms:
        parser.error("--arms needs random, which the others are compared with")
    first, _, last = given.seeds.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    seeds = [
        replayed(given.folder / f"seed-{n}", n, given.days, given.viewers, given.arms)
        for n in numbers
    ]
    print("| arm | tail | median | mean |\n| --- | --- | --- | --- |")
    rows = [(name, name, "") for name in given.arms if name != "random"]
    rows += [(f"random, T = {t:g}", "random", f"T{t:g}_") for t in TEMPERATURES]
    for title, name, prefix in rows:
        cells = [differences(seeds, name, prefix, measure) for measure in MEASURES]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
