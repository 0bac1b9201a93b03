"""DensityReservoir against a random sample of equal size on real traces, day by day.

    python benchmarks/density_reservoir_study.py --traces FILE... [--seeds 3] [--rows 60000]

Every day is offered to a memory a third of its size; a network is trained from scratch on what the
memory holds, with its weights, and scored on the next day. Differences to the random memory of the
same seed; the standard error is over seeds.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

from memento import JensenShannon, Memento, Memory
from memento.integrations.torch import TorchLearner
from memento.policies import Policy, Reservoir
from memento.policies.density_reservoir import DensityReservoir
from memento.samples import Samples
from memento_puffer.predictor.transmission import CLASSES, class_of
from memento_puffer.streaming.traces import Traces, days

DISTANCES = [JensenShannon.of_labels("y_bin", CLASSES), JensenShannon.of_probabilities("yhat")]
SPACE = {
    "distances": DISTANCES,
    "batch_size": 256,
    "sort_by": ("y_bin", "yhat"),
    "remainder": "keep",
    "missing": "skip",
}
ARMS: dict[str, Policy] = {
    "random": Reservoir(),
    "density-reservoir": DensityReservoir(**SPACE),
    "exponent=0.9": DensityReservoir(**SPACE, exponent=0.9),
    "uniform=0": DensityReservoir(**SPACE, uniform=0.0),
    "memento": Memento(**{**SPACE, "remainder": "drop"}, temperature=0.01),
    "density-reservoir, defaults": DensityReservoir(DISTANCES, missing="skip"),
    "memento, defaults": Memento(DISTANCES, missing="skip"),
}


def scores(stream: list[Samples], policy: Policy, capacity: int, seed: int) -> np.ndarray:
    """``(days - 1, 3)``: 1st percentile, median and mean log score on the following day."""
    memory, learner = (
        Memory(capacity, policy, seed=seed),
        TorchLearner(CLASSES, label="y_bin", seed=seed),
    )
    rows = []
    for today, tomorrow in itertools.pairwise(stream):
        fresh = today.with_columns(yhat=_predicted(learner, today)) if learner.trained else today
        memory.insert(fresh)
        learner.fit(memory.samples, memory.weights)
        memory.annotate(yhat=_predicted(learner, memory.samples))
        score = learner.annotate(tomorrow)["logscore"]
        rows.append([np.quantile(score, 0.01), np.median(score), np.mean(score)])
    return np.array(rows)


def _samples_of(traces: Traces, size_MB: float = 0.25, history: int = 8) -> Samples:
    """How long the next chunk takes to arrive, from the last eight; not of the first of a stream.

    Inputs are, oldest first, the logarithms of the rates reported before the sends i - 8 to i - 1
    (MB/s, at least 1e-4) and of the times until the following sends (s, at least 0.01); where a
    stream is younger, its oldest chunk is repeated, as Puffer's server does. The label is the class
    of the time that 0.25 MB take at the rate reported with send i.
    """
    lengths = np.diff(traces.offsets)
    starts = np.repeat(traces.offsets[:-1], lengths)
    rows = np.flatnonzero(np.arange(traces.size) > starts)
    past = np.maximum(rows[:, None] - np.arange(history, 0, -1), starts[rows, None])
    rate = np.maximum(traces.rate, 1e-4)
    gap = np.maximum(np.diff(traces.seconds, append=0.0), 1e-2)
    x = np.empty((len(rows), 2 * history), dtype=np.float32)
    x[:, ::2], x[:, 1::2] = np.log(rate)[past], np.log(gap)[past]
    return Samples(x=x, y_bin=class_of((size_MB / rate[rows]).astype(np.float32)))


def _predicted(learner: TorchLearner, samples: Samples) -> np.ndarray:
    return np.asarray(learner.annotate(samples)["yhat"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--traces", nargs="+", required=True)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--rows", type=int, default=60_000)
    arguments = parser.parse_args()
    rng, stream = np.random.default_rng(0), []
    for _, traces in days(arguments.traces, arguments.days):
        samples = _samples_of(traces)
        rows = np.sort(rng.permutation(samples.size)[: arguments.rows])
        stream.append(samples.take(rows))
    capacity = int(np.median([samples.size for samples in stream])) // 3
    print(f"{len(stream)} days of at most {arguments.rows:,} samples, capacity {capacity:,}")
    results: dict[str, list[np.ndarray]] = {}
    for name in dict.fromkeys(["random", *arguments.arms]):
        start = time.perf_counter()
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        results[name] = [scores(stream, ARMS[name], capacity, seed) for seed in seeds]
        gains = np.array(results[name]) - np.array(results["random"])
        mean, error = gains.mean((0, 1)), gains.mean(1).std(0, ddof=1) / arguments.seeds**0.5
        listed = "  ".join(
            f"{what} {m:+.4f} ± {e:.4f}"
            for what, m, e in zip(("p01", "median", "mean"), mean, error, strict=True)
        )
        won = (gains.mean(0)[:, 0] > 0).sum()
        took = time.perf_counter() - start
        print(
            f"{name:18} {listed}  p01 better on {won}/{gains.shape[1]} days  ({took:.0f} s)",
            flush=True,
        )
    print("random itself:", np.mean(results["random"], (0, 1)).round(4))


if __name__ == "__main__":
    main()
