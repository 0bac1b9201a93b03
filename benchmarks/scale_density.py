"""How CPU time of densities and discards grows with the number of batches.

    python benchmarks/scale_density.py [--kinds synthetic,puffer] [--batches 16384,65536,262144]
                                       [--exact 16384] [--model DIR] [--size 16]

"synthetic" are skewed transmission times and predictions of varying sharpness, batches of 256 cut
per block of 2^20 rows. "puffer" are simulated days (two controllers) with the predictions of a
published predictor (``--model``, such as fugu-feb of Puffer's release), sorted by transmission time
and cut into batches of ``--size``. One thread; ratios to exact sums (``precision="fast"``) and to
the exact loop up to ``--exact`` batches; errors of 1,000 random batches. Prints a table for docs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np

from memento import JensenShannon, Samples, SampleSpace
from memento.density import Field
from memento.policies.memento import thin

CLASSES = 21
BLOCK = 1 << 20
BINS = np.where(np.arange(CLASSES) == 0, 0.125, np.arange(CLASSES) * 0.5)
DISTANCES = (JensenShannon.of_probabilities("yhat"), JensenShannon.of_probabilities("shares"))


def summarised(seconds: np.ndarray, yhat: np.ndarray, size: int) -> Samples:
    """Mean predictions and shares of labels of batches, sorted by time and then prediction."""
    count = len(seconds) // size
    order = np.lexsort((-yhat.max(axis=1), yhat.argmax(axis=1), seconds))[: count * size]
    labels = np.clip(np.floor((seconds + 0.25) / 0.5), 0, CLASSES - 1).astype(np.int64)
    shares = np.zeros((count, CLASSES))
    np.add.at(shares, (np.repeat(np.arange(count), size), labels[order]), 1 / size)
    means = yhat[order].reshape(count, size, CLASSES).mean(axis=1, dtype=np.float64)
    return Samples(yhat=means / means.sum(axis=1, keepdims=True), shares=shares)


def synthetic(count: int, _: argparse.Namespace) -> Samples:
    parts = []
    for block in range(-(-count * 256 // BLOCK)):
        rng = np.random.default_rng(100 + block)
        z = rng.lognormal(-1.8, 1, BLOCK)
        seconds = np.minimum(z * rng.lognormal(0, 0.4, BLOCK), 30)
        width = 0.35 + 0.25 * np.abs(rng.standard_normal(BLOCK))
        exponents = (np.log(BINS)[None] - np.log(z)[:, None]) / width[:, None]
        yhat = np.exp(-0.5 * np.minimum(exponents**2, 200)).astype(np.float32)
        yhat /= yhat.sum(axis=1, keepdims=True)
        parts.append(summarised(seconds, yhat, 256))
    return Samples.concat(parts).rows(0, count)


def puffer(count: int, given: argparse.Namespace) -> Samples:
    if not CHUNKS:
        CHUNKS.extend(simulated(max(given.batches) * given.size, given.model))
    seconds, yhat = CHUNKS
    rows = np.random.default_rng(0).permutation(len(seconds))[: count * given.size]
    return summarised(seconds[rows], yhat[rows], given.size)


CHUNKS: list[np.ndarray] = []


def simulated(chunks: int, model: Path) -> list[np.ndarray]:
    """Transmission times of so many simulated chunks, and predictions of them."""
    from memento_puffer.data.features import Features
    from memento_puffer.predictor.ttp import Ttp
    from memento_puffer.streaming.abr import BBA, BOLA
    from memento_puffer.streaming.simulator import Scheme, Simulation

    network = Ttp.read(model).networks[0].astype(np.float32)
    simulation = Simulation([Scheme("linear_bba", BBA()), Scheme("bola", BOLA())])
    seconds: list[np.ndarray] = []
    yhat: list[np.ndarray] = []
    for day in itertools.count():
        blocks = simulation.day(day, sessions=800, record="chunks")
        columns = Features.of_blocks(blocks).columns(0, sentinels="clamp")
        seconds.append(columns["y"])
        yhat.append(network.probabilities(columns["x"]).astype(np.float32))
        if sum(map(len, seconds)) >= chunks:
            return [np.concatenate(seconds), np.concatenate(yhat)]
    raise AssertionError


def field_of(samples: Samples, precision: str) -> tuple[Field, float]:
    """A field, and the CPU seconds that it took."""
    space = SampleSpace(DISTANCES, batch_size=1, sort_by=(), remainder="keep", precision=precision)
    batches = space.batches(samples)
    start = time.process_time()
    field = space.field(batches, rng=np.random.default_rng(0))
    return field, time.process_time() - start


def thinned(field: Field, share: float) -> float:
    """CPU seconds to discard half of the batches."""
    sizes = np.ones(field.size, np.int64)
    start = time.process_time()
    thin(field, sizes, field.size // 2, 0.01, np.random.default_rng(1), share)
    return time.process_time() - start


def largest_error(field: Field) -> float:
    """Of 1,000 random batches, whose sums are made exactly."""
    chosen = np.sort(np.random.default_rng(9).choice(field.size, 1000, replace=False))
    off = []
    for term in field.terms:
        rows = np.unique(term.groups[chosen])
        exact = term.points.take(rows).cross(term.points, term.counts)
        off.append(np.abs(term.values[rows] / exact - 1).max())
    return float(max(off))


def row(kind: str, samples: Samples, exact: bool) -> tuple[str, list[float]]:
    """A line of the table, and CPU seconds of density and both kinds of discards."""
    field, density = field_of(samples, "approximate")
    error, known = largest_error(field), field.approximations
    cpu = [density, thinned(field, 0.0), thinned(field_of(samples, "approximate")[0], 0.1)]
    ratios = ["-"] * 3
    if exact:
        fast, seconds = field_of(samples, "fast")
        others = [seconds, thinned(fast, 0.0), thinned(field_of(samples, "fast")[0], 0.1)]
        ratios = [f"{b / a:.1f}" for a, b in zip(cpu, others, strict=True)]
    marks = " + ".join(f"{each.landmarks:,}" if not each.exact else "exact" for each in known)
    cells = " | ".join(f"{c:.2f} ({r})" for c, r in zip(cpu, ratios, strict=True))
    probes = max((each.error for each in known if not each.exact), default=math.nan)
    return (
        f"| {kind} | {field.size:,} | {marks} | {cells} | {probes:.2%} / {error:.2%} |",
        cpu,
    )


def main() -> None:
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--kinds", default="synthetic,puffer")
    parser.add_argument("--batches", default="16384,65536,262144")
    parser.add_argument("--exact", type=int, default=16_384)
    parser.add_argument("--model", type=Path, default=Path("data/fugu-feb"))
    parser.add_argument("--size", type=int, default=16)
    given = parser.parse_args()
    given.batches = [int(count) for count in given.batches.split(",")]
    print(
        "| data | batches | landmarks | density, CPU s (exact / this) | discards of half, T = 0.01 "
        "| the same, default T | largest error: probes / 1,000 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    makers = {"synthetic": synthetic, "puffer": puffer}
    for kind in given.kinds.split(","):
        row(kind, makers[kind](min(given.batches), given), False)  # compiles
        found = []
        for count in given.batches:
            line, cpu = row(kind, makers[kind](count, given), count <= given.exact)
            print(line, flush=True)
            found.append(cpu)
        if len(found) > 1:
            factor = math.log(given.batches[-1] / given.batches[0])
            powers = [math.log(b / a) / factor for a, b in zip(found[0], found[-1], strict=True)]
            print(f"{kind}: grows as n^{', n^'.join(f'{power:.2f}' for power in powers)}")


if __name__ == "__main__":
    main()
