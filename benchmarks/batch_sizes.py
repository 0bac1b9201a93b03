"""How large batches should be: memories with batches of several sizes, on streams of your own.

    python benchmarks/batch_sizes.py STREAM.parquet ... [--capacity N] [--seeds 5]

A stream is a Parquet file with columns `unit` (an integer; below 0: left out), `y` (integer
classes, or floats for regression) and inputs `f0`, `f1`, ... Gradient-boosted trees are trained on
the memory after every unit and judged on the next one. Printed are gains over a random memory,
larger is better, with 90 % intervals over units (moving blocks of two) and seeds: log score in
nats, or minus the absolute error in the unit of y; their mean, the mean of the worst 5 %, and the
balanced accuracy.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from memento import DensityReservoir, JensenShannon, Memento, Memory, Reservoir, SampleSpace
from memento.distances import Distance
from memento.policies import Policy

MEASURES = ("mean", "worst 5 %", "balanced accuracy")
WARM_UP = 3  # units that are not counted
TREES = {"max_iter": 30, "max_leaf_nodes": 12, "learning_rate": 0.15, "early_stopping": False}


class Stream:
    """Units of inputs and outcomes.

    Attributes:
        units: Pairs of ``x`` (n, d) float32 and ``y`` (n,).
        classes: How many there are; 0 in regression.
    """

    def __init__(self, path: Path) -> None:
        table = pq.read_table(path)
        names = [name for name in table.column_names if name[:1] == "f" and name[1:].isdigit()]
        x = np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float32)
        y, unit = table["y"].to_numpy(), table["unit"].to_numpy()
        self.classes = 0 if y.dtype.kind == "f" else int(y.max()) + 1
        y = y.astype(np.float64 if self.classes == 0 else np.int64)
        self.units = [(x[unit == u], y[unit == u]) for u in np.unique(unit[unit >= 0])]

    def distances(self) -> list[Distance]:
        if self.classes:
            labels = JensenShannon.of_labels("y", classes=self.classes)
            return [JensenShannon.of_probabilities("yhat"), labels]
        return [JensenShannon.of_values("y"), JensenShannon.of_values("yhat")]

    def untrained(self, size: int) -> np.ndarray:
        return np.full((size, self.classes), 1 / self.classes) if self.classes else np.zeros(size)

    def predict(self, model: Any, x: np.ndarray) -> np.ndarray:
        if not self.classes:
            return np.asarray(model.predict(x))
        chances = np.full((len(x), self.classes), 1e-6)
        known = model.classes_.astype(np.int64)
        chances[:, known] += model.predict_proba(x)[:, : len(known)] if len(known) > 1 else 1.0
        result: np.ndarray = chances / chances.sum(axis=1, keepdims=True)
        return result

    def judge(self, yhat: np.ndarray, y: np.ndarray) -> list[float]:
        if not self.classes:
            score = -np.abs(yhat - y)
            return [score.mean(), _worst(score), np.nan]
        score = np.log(yhat[np.arange(len(y)), y])
        hit = yhat.argmax(axis=1) == y
        return [score.mean(), _worst(score), np.mean([hit[y == c].mean() for c in np.unique(y)])]


def _worst(score: np.ndarray) -> float:
    return float(np.sort(score)[: max(1, len(score) // 20)].mean())


def play(stream: Stream, policy: Policy, capacity: int, seed: int) -> list[list[float]]:
    """``(units, measures)`` of one memory."""
    memory, model, rows = Memory(capacity, policy, seed=seed), None, []
    make = HistGradientBoostingClassifier if stream.classes else HistGradientBoostingRegressor
    for number, (x, y) in enumerate(stream.units):
        yhat = stream.untrained(len(y)) if model is None else stream.predict(model, x)
        if number >= WARM_UP:
            rows.append(stream.judge(yhat, y))
        memory.insert(x=x, y=y, yhat=yhat)
        held = memory.samples
        model = make(random_state=seed, **TREES)
        model.fit(held["x"], held["y"], sample_weight=memory.weights)
        memory.annotate(yhat=stream.predict(model, held["x"]))
    return rows


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Mean of ``(seeds, units)`` paired differences and half of its 90 % interval."""
    rng, of_units = np.random.default_rng(0), differences.mean(axis=0)
    count = len(of_units)
    starts = rng.integers(0, count - 1, (2000, -(-count // 2)))
    blocks = np.stack([starts, starts + 1], axis=-1).reshape(2000, -1)[:, :count]
    of_seeds = differences.mean(axis=1)
    error = of_units[blocks].mean(axis=1).var() + of_seeds.var(ddof=1) / len(of_seeds)
    return float(differences.mean()), float(1.645 * np.sqrt(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("streams", nargs="+", type=Path, metavar="STREAM")
    parser.add_argument("--capacity", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128, 256])
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # that some of these memories have few batches
    for path in options.streams:
        stream, capacity = Stream(path), options.capacity
        arms: dict[str, tuple[Policy, int]] = {
            "random": (Reservoir(), capacity),
            "random, twice the capacity": (Reservoir(), 2 * capacity),
        }
        given: list[Mapping[str, Any]] = [{}, *({"batch_size": size} for size in options.sizes)]
        for kind, settings in itertools.product((Memento, DensityReservoir), given):
            policy = kind(stream.distances(), **settings)
            arms[f"{policy.kind}, {settings.get('batch_size', 'default')}"] = (policy, capacity)
        base = None
        size = SampleSpace(stream.distances()).size_for(capacity)
        print(f"### {path.stem}, capacity {capacity:,}, default batch size {size}")
        print(f"| memory, batch size | {' | '.join(MEASURES)} | seconds |")
        print("| --- " * (2 + len(MEASURES)) + "|")
        for name, (policy, size) in arms.items():
            begun = time.perf_counter()
            found = np.array([play(stream, policy, size, s) for s in range(options.seeds)])
            base = found if base is None else base
            cells = (
                f"{value:.3f}" if base is found else "{:+.3f} ± {:.3f}".format(*interval(change))
                for value, change in zip(
                    found.mean(axis=(0, 1)), np.moveaxis(found - base, 2, 0), strict=True
                )
            )
            print(
                f"| {name} | {' | '.join(cells)} | {time.perf_counter() - begun:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
