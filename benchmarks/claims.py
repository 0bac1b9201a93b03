"""What the documentation claims, run again: `make claims`.

    python benchmarks/claims.py                  # all of it, some five minutes on one idle core
    python benchmarks/claims.py --list
    python benchmarks/claims.py policies record  # some

A claim names a page and words on it, in which # stands for a figure. The figures are read from the
page, measured anew and compared: times (of the processor) may be so many times as long, as machines
differ and are shared; all else may be off by so much. The exit code is 1 if a claim does not hold.
What takes longer than minutes has its command on its page and is not run here.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import datetime as dt
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memento import DensityReservoir, JensenShannon, Memento, Memory, coverage_increase
from memento.policies import (
    ClassBalancedReservoir,
    FacilityLocation,
    GradientSampleSelection,
    Herding,
    KCenterGreedy,
)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))
NUMBER = r"([+-]?\d[\d,]*(?:\.\d+)?)"


class MissingError(Exception):
    """What a claim needs is not here."""


class Claim(NamedTuple):
    """Figures of a page, and what measures them.

    Attributes:
        page: Below the root.
        text: Words in a row, whatever the line breaks; # stands for a figure.
        measure: Gives as many figures.
        times: How many times as large a figure may be; smaller is fine. None: `off` counts.
        off: By how much a figure may differ.
    """

    page: str
    text: str
    measure: Callable[[], Sequence[float]]
    times: float | None = None
    off: float = 0.0

    def stated(self) -> list[float]:
        """The figures on the page.

        Raises:
            LookupError: They are not there, or more than once.
        """
        page = " ".join((ROOT / self.page).read_text(encoding="utf-8").split())
        pattern = re.escape(self.text).replace(r"\ ", " ").replace(r"\#", NUMBER)
        found = re.findall(pattern, page)
        if len(found) != 1:
            raise LookupError(f"{self.page}: {len(found)} places that read {self.text!r}")
        one = found[0]
        return [float(x.replace(",", "")) for x in ((one,) if isinstance(one, str) else one)]

    def holds(self, stated: float, measured: float) -> bool:
        """Whether a measured figure is within what a stated one allows."""
        if self.times is not None:
            return measured <= self.times * stated
        return abs(measured - stated) <= self.off + 1e-9

    @property
    def allowed(self) -> str:
        """The tolerance in words."""
        return f"up to {self.times:g} times" if self.times is not None else f"± {self.off:g}"


def seconds(action: Callable[[], Any], runs: int = 1) -> float:
    """The least processor time of some runs."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


# ---------------------------------------------------------------------------------------- measured


def false_alarms() -> list[float]:
    """Of `notebooks/coverage_noise.py`, with 40 draws."""
    command = [sys.executable, str(ROOT / "notebooks" / "coverage_noise.py")]
    environment = {**os.environ, "DRAWS": "40"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(x) for x in re.findall(r"([\d.]+)% of 40 draws", done.stdout)]


def kernel() -> list[float]:
    """One pair and bin of the Jensen-Shannon kernel, in ns."""
    from memento._kernels import jensen_shannon

    count, classes = 7812, 21
    rows = np.sort(np.random.default_rng(0).dirichlet(np.full(classes, 0.3), count), axis=0)
    packed = jensen_shannon.pack(rows / rows.sum(axis=1, keepdims=True))
    weights = np.ones(count)
    jensen_shannon.kernel_sums(packed, 50.0, weights)  # compiles
    took = seconds(lambda: jensen_shannon.kernel_sums(packed, 50.0, weights), 5)
    return [1e9 * took / (count**2 / 2 * classes)]


def importing() -> list[float]:
    """Seconds of `import memento` in a new process, less the start of Python itself."""

    def start(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare, whole = (min(start(code) for _ in range(3)) for code in ("pass", "import memento"))
    return [whole - bare]


def inserts() -> list[float]:
    """Seconds of an insert of a million samples into a full memory of a million, b = 256."""
    import run

    policy = Memento(run.DISTANCES, batch_size=256, **run.PUBLISHED)
    memory = Memory(1_000_000, policy)
    memory.insert(run.stream(1_000_000, 1, np.float64))
    fresh = [run.stream(1_000_000, seed, np.float64) for seed in (2, 3)]
    return [seconds(lambda: memory.insert(fresh.pop()), 2)]


def policies() -> list[float]:
    """Seconds of an insert of 100,000 samples of 32 features into a full memory of 20,000."""
    rng = np.random.default_rng(0)

    def samples(count: int) -> dict[str, np.ndarray]:
        gradient = rng.normal(size=(count, 32))
        return {"y": rng.integers(0, 21, count), "z": rng.normal(size=(count, 32)), "g": gradient}

    took = []
    for policy in (
        ClassBalancedReservoir("y"),
        GradientSampleSelection("g"),
        Herding("z", "y"),
        KCenterGreedy("z"),
        FacilityLocation("z", "y"),
    ):
        memory = Memory(20_000, policy, seed=0)
        memory.insert(samples(2000))  # compiles
        memory.insert(samples(20_000))
        fresh = samples(100_000)
        took.append(seconds(lambda memory=memory, fresh=fresh: memory.insert(fresh)))
    return took


def new_class() -> list[float]:
    """In how many of 20 runs no sample of a new class stays, at T = 0.01; and at the default."""
    lost, held = [], []
    for classes in (9, 20, 50):
        distances = [
            JensenShannon.of_labels("y", classes + 1),
            JensenShannon.of_probabilities("yhat"),
        ]
        for settings, found in (({"temperature": 0.01}, lost), ({}, held)):
            kept = []
            for seed in range(20):
                rng = np.random.default_rng([seed, classes])
                memory = Memory(1024, Memento(distances, **settings), seed=seed)
                for rare in (0, 0, 20):
                    memory.insert(_unknown_class(rng, rare, classes))
                kept.append(int((memory.samples["y"] == classes).sum()))
            found.append(float(kept.count(0)) if settings else float(min(kept)))
    return [*lost, min(held)]


def _unknown_class(rng: np.random.Generator, rare: int, classes: int) -> dict[str, np.ndarray]:
    """3,000 samples; the last class is new, and looks to the model like another one."""
    y = np.concatenate([np.full(rare, classes), rng.integers(0, classes, 3000 - rare)])
    guess = np.where(y == classes, rng.integers(0, classes, 3000), y)
    logits = rng.normal(size=(3000, classes + 1)) - 4 * (np.arange(classes + 1) == classes)
    logits[np.arange(3000), guess] += 3
    odds = np.exp(logits)
    order = rng.permutation(3000)
    return {"y": y[order], "yhat": (odds / odds.sum(axis=1, keepdims=True))[order]}


def reservoirs() -> list[float]:
    """Of 14 days of one distribution: total weight over samples seen, and the share of day 1."""
    distances = [JensenShannon.of_labels("y", 21), JensenShannon.of_probabilities("yhat")]
    totals, shares = [], []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        odds = rng.dirichlet(np.full(21, 0.4))
        policy = DensityReservoir(distances, uniform=0.5, batch_size=16)
        memory = Memory(2000, policy, seed=seed)
        sizes = (6000 * np.exp(rng.uniform(np.log(0.5), np.log(2), 14))).astype(int)
        for size in sizes.tolist():
            y = rng.choice(21, size, p=odds)
            logits = rng.normal(size=(size, 21))
            logits[np.arange(size), y] += 2
            yhat = np.exp(logits)
            memory.insert(y=y, yhat=yhat / yhat.sum(axis=1, keepdims=True))
        totals.append(memory.weights.sum() / sizes.sum())
        shares.append(np.mean(memory.arrivals == 1) * sizes.sum() / sizes[0])
    return [float(np.mean(shares)), float(np.mean(totals))]


def explained() -> list[float]:
    """Seconds of a coverage increase over a million samples on either side, and its attribution."""
    import run

    space = Memento(run.DISTANCES, batch_size=256)
    now, before = (run.stream(10**6, seed, np.float64) for seed in (1, 2))
    found: list[Any] = []
    rise = seconds(lambda: found.append(coverage_increase(now, before, space)))
    return [seconds(lambda: found[0].attribution.size), rise]


def one_decision() -> list[float]:
    """Milliseconds of a decision of Fugu for a single session."""
    from memento_puffer.predictor.transmission import LADDER_MB
    from memento_puffer.streaming.abr import Fugu

    rng = np.random.default_rng(0)
    sizes = 1e6 * np.array(LADDER_MB) * rng.lognormal(0, 0.5, (1, 10, 1))
    ssim = np.broadcast_to(np.linspace(0.91, 0.983, 10), sizes.shape).copy()
    given = {
        "last_ssim": np.array([0.95]),
        "probabilities": rng.dirichlet(np.ones(21), (1, 5, 10)),
    }
    fugu, buffer = Fugu(), np.array([8.0])
    fugu.decide(buffer, sizes, ssim, **given)
    return [1e3 * seconds(lambda: fugu.decide(buffer, sizes, ssim, **given), 200)]


# A command, and the largest memory that it had in kB: that of the process that `getrusage` gives
# would be at least what its parent had.
_PEAK = r"""
import re, sys
from memento.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    if done.code:
        raise
print(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
"""


def memory_of_insert() -> list[float]:
    """GB that an insert of 4 million rows of ten numbers takes beyond one of 10,000."""
    import pyarrow as pa
    from pyarrow import parquet

    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (10_000, 4_000_000):
            rng = np.random.default_rng(count)
            columns = {f"f{i}": rng.random(count) for i in range(9)}
            file, memory = f"{folder}/{count}.parquet", f"{folder}/mem-{count}"
            parquet.write_table(pa.table({"y": rng.integers(0, 5, count), **columns}), file)
            for words in (
                ["init", memory, "--capacity", "2000", "--labels", "y"],
                ["insert", memory, file],
            ):
                command = [sys.executable, "-c", _PEAK, "memory", *words]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peaks.append(int(said.splitlines()[-1]) / 1e6)
    return [peaks[1] - peaks[0]]


def record() -> list[float]:
    """Trainings of the first horizon's two variants, since September 2022 and before."""
    from memento.errors import StorageError
    from memento.runner.spec import located
    from memento_puffer.deployment.record import between, read_record, summary

    try:
        table = read_record(located("puffer-deployment.csv"))
    except StorageError as error:
        raise MissingError(str(error)) from error
    counts = []
    for days in ((dt.date(2022, 9, 19), dt.date(2023, 7, 16)), (None, dt.date(2022, 9, 18))):
        rows = summary(between(table, *days))
        for variant in ("default", "deterministic"):
            at = (rows["horizon"] == 0) & (rows["variant"] == variant)
            counts.append(float(rows["retrained"][at][0]))
    return counts


def since_2022() -> list[float]:
    """The first two."""
    return record()[:2]


def before_2022() -> list[float]:
    """The others."""
    return record()[2:]


def message_sizes() -> list[float]:
    """By how many per cent means differ at most from the published ones."""
    from memento_datacenter.workloads import published

    known = {"w1": 62_874, "w2": 1_745, "w3": 127_797}
    return [max(100 * abs(w.mean / known[name] - 1) for name, w in published().items())]


CLAIMS = {
    "false-alarms": Claim(
        "docs/method.md",
        "`p_value` ≤ 0.05 | # % (nominal 5.0 ± 1.5 %) | # %",
        false_alarms,
        off=7.5,
    ),
    "kernel": Claim("docs/results.md", "one pair and bin | # ns |", kernel, times=3),
    "import": Claim("docs/results.md", "| `import memento` | # s", importing, times=6),
    "inserts": Claim(
        "docs/results.md", "insert 1M into a full memory of 1M, b = 256 | # s", inserts, times=3
    ),
    "readme-inserts": Claim(
        "README.md", "a full memory of a million in # s on one core", inserts, times=3
    ),
    "policies": Claim(
        "docs/method.md",
        "class-balanced reservoir # s, gradient sample selection # s, herding # s, "
        "k-center greedy # s, facility location # s",
        policies,
        times=3,
    ),
    "new-class": Claim(
        "docs/choosing.md",
        "all lost in #, # and # of 20 runs. At the default all # were held in every run",
        new_class,
        off=2,
    ),
    "reservoirs": Claim(
        "docs/density_reservoir.md",
        "| the same with `uniform=0.5` | # | 1.00 | 0.99 | 0.99 | # ±",
        reservoirs,
        off=0.05,
    ),
    "explained": Claim(
        "docs/explain.md",
        "`attribution` takes # s beside the # s of `coverage_increase`",
        explained,
        times=3,
    ),
    "one-decision": Claim(
        "docs/puffer/puffer_abr.md", "a Fugu decision takes # ms", one_decision, times=3
    ),
    "memory-of-insert": Claim(
        "docs/command_line.md", "took # GB more than 10,000 rows did", memory_of_insert, off=0.3
    ),
    "record": Claim("docs/paper.md", "# and # trainings since September 2022", since_2022),
    "record-before": Claim(
        "docs/paper.md", "# with T = 0.01 and # with T = 0 before 19 September 2022", before_2022
    ),
    "message-sizes": Claim(
        "docs/paper.md", "means within # % of the published ones", message_sizes, off=0.1
    ),
}
"""By name, the cheap ones: each takes from seconds to two minutes."""


def main() -> None:
    """Compare, print a table, and exit with 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=", ".join(CLAIMS))
    parser.add_argument(
        "--list", action="store_true", help="say what is claimed, and measure nothing"
    )
    options = parser.parse_args()
    if unknown := set(options.claims) - set(CLAIMS):
        parser.error(f"no claim {', '.join(sorted(unknown))}; there are {', '.join(CLAIMS)}")
    failed = []
    for name in options.claims or CLAIMS:
        claim = CLAIMS[name]
        stated = claim.stated()
        words = f"{name}: {claim.page}: {', '.join(f'{x:g}' for x in stated)} ({claim.allowed})"
        if options.list:
            print(words)
            continue
        start = time.monotonic()
        try:
            measured = list(claim.measure())
        except MissingError as reason:
            print(f"{words}; not run: {reason}", flush=True)
            continue
        right = [claim.holds(*pair) for pair in zip(stated, measured, strict=True)]
        if not all(right):
            failed.append(name)
        verdict = "holds" if all(right) else "DOES NOT HOLD"
        shown = ", ".join(f"{x:.3g}" for x in measured)
        print(
            f"{words}; measured {shown}: {verdict} ({time.monotonic() - start:.0f} s)", flush=True
        )
    if failed:
        sys.exit(f"{len(failed)} claims do not hold: {', '.join(failed)}")


if __name__ == "__main__":
    main()
