"""Speed and memory of Memento, as a table: `make bench`.

Times are medians of several runs on one thread, with the smallest and largest. Ratios are against
the same work written plainly in numpy (all pairs of batches, one matrix, one softmax a discard),
run in the same process; it is timed on fewer batches and scaled by the square of their number,
because at full size it takes minutes and gigabytes. Nothing here is a test: machines differ and are
shared.
"""

from __future__ import annotations

import argparse
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import gc
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import memento
from memento import JensenShannon, Memento, Memory, coverage_increase

if TYPE_CHECKING:
    from memento_puffer.data.features import Features
    from memento_puffer.predictor.network import Network

CLASSES = 21
DISTANCES = [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", CLASSES)]
PUBLISHED = {"temperature": 0.01, "sort_by": ("y", "yhat", "x"), "remainder": "drop"}


class Row(NamedTuple):
    """One line of the table."""

    work: str
    measured: str
    budget: str
    baseline: str


def stream(size: int, seed: int, dtype: type) -> dict[str, np.ndarray]:
    """Samples like those of a transmission time predictor: 62 inputs, 21 classes, skewed."""
    rng = np.random.default_rng(seed)
    centres = np.log(np.r_[0.125, np.arange(1, CLASSES) * 0.5])
    y, yhat = np.empty(size, np.int64), np.empty((size, CLASSES), dtype)
    for start in range(0, size, 200_000):
        stop = min(size, start + 200_000)
        mean = rng.normal(-1.0, 1.0, stop - start)
        width = 0.35 + 0.25 * np.abs(rng.standard_normal(stop - start))
        seconds = np.exp(mean + width * rng.standard_normal(stop - start))
        y[start:stop] = np.clip((seconds + 0.25) // 0.5, 0, CLASSES - 1)
        odds = np.exp(-0.5 * ((centres - mean[:, None]) / width[:, None]) ** 2) + 1e-9
        yhat[start:stop] = odds / odds.sum(axis=1, keepdims=True)
    return {
        "x": rng.standard_normal((size, 62), dtype=np.float32).astype(dtype),
        "y": y,
        "yhat": yhat,
    }


def resident() -> float:
    """Resident memory of this process, in GB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e9


class Peak:
    """The most memory that was resident inside a ``with`` block, above what was before, in GB."""

    def __enter__(self) -> Peak:
        gc.collect()
        self.before = self.highest = resident()
        self._going = True
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while self._going:
            self.highest = max(self.highest, resident())
            time.sleep(0.002)

    def __exit__(self, *exception: object) -> None:
        self._going = False
        self._watcher.join()
        self.extra = self.highest - self.before


def timed(action: Callable[[], Any]) -> float:
    """Seconds of wall time."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def spread(seconds: list[float]) -> str:
    """Median, and the range."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def naive_seconds(batch_size: int, batches: int, count: int) -> float:
    """Density and discards of ``batches`` batches in plain numpy, scaled to ``count`` batches."""
    samples = stream(batches * batch_size, 7, np.float64)
    order = np.lexsort((-samples["yhat"].max(axis=1), samples["yhat"].argmax(axis=1), samples["y"]))
    rows = order.reshape(batches, batch_size)
    start = time.perf_counter()
    mixtures = samples["yhat"][rows].mean(axis=1)
    labels = np.stack([np.bincount(r, minlength=CLASSES) / batch_size for r in samples["y"][rows]])
    kernels = [naive_kernel(mixtures), naive_kernel(labels)]
    sums = [kernel.sum(axis=1) for kernel in kernels]
    rng, alive = np.random.default_rng(0), np.ones(batches, dtype=bool)
    for left in range(batches, batches // 2, -1):
        density = np.where(alive, np.minimum(*sums) / left / np.sqrt(2 * np.pi), -np.inf)
        odds = np.exp((density - density.max()) / 0.01)
        gone = rng.choice(batches, p=odds / odds.sum())
        alive[gone] = False
        for total, kernel in zip(sums, kernels, strict=True):
            total -= kernel[gone]
    return (time.perf_counter() - start) * (count / batches) ** 2


def naive_kernel(rows: np.ndarray) -> np.ndarray:
    """Gaussian kernel of Jensen-Shannon distances, row by row."""
    kernel = np.empty((len(rows), len(rows)))
    for i, p in enumerate(rows):
        middle = (p + rows) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            of_p = np.where(p > 1e-6, p * np.log2(p / middle), 0).sum(axis=1)
            of_q = np.where(rows > 1e-6, rows * np.log2(rows / middle), 0).sum(axis=1)
        kernel[i] = np.exp(-0.5 * np.maximum(0, (of_p + of_q) / 2) / 0.1**2)
    return kernel


def warm_up() -> None:
    """Have everything compiled (or loaded from the cache) before anything is timed."""
    for precision in ("exact", "fast"):
        for settings in (PUBLISHED, {}):
            policy = Memento(DISTANCES, batch_size=64, precision=precision, **settings)
            for seed in range(2):
                for dtype in (np.float64, np.float32):
                    Memory(100_000, policy).insert(stream(200_000, seed, dtype))


def insert_rows(runs: int, naive: bool) -> list[Row]:
    """1,000,000 samples into a full memory of 1,000,000."""
    rows = []
    for name, policy, budget in (
        ("b = 256", Memento(DISTANCES, batch_size=256, **PUBLISHED), 1.0),
        ("b = 128", Memento(DISTANCES, batch_size=128, **PUBLISHED), 1.6),
        ("defaults", Memento(DISTANCES), 1.0),
    ):
        memory = Memory(1_000_000, policy)
        memory.insert(stream(1_000_000, 1, np.float64))
        seconds, extra = [], []
        for run in range(runs):
            fresh = stream(1_000_000, 2 + run, np.float64)
            with Peak() as peak:
                seconds.append(timed(lambda fresh=fresh, memory=memory: memory.insert(fresh)))
            extra.append(peak.extra)
        baseline = ""
        if naive and (batch_size := policy.batch_size):
            count = 2_000_000 // batch_size
            plain = naive_seconds(batch_size, 1000, count)
            baseline = f"{plain:.0f} s: {plain / statistics.median(seconds):.0f} times"
        rows.append(
            Row(
                f"insert 1M into a full 1M, {name}",
                f"{spread(seconds)}, +{max(extra):.2f} GB",
                f"{budget} s, +0.3 GB",
                baseline,
            )
        )
    return rows


def large_row() -> Row:
    """9,000,000 samples into a full memory of 1,000,000, in one call."""
    memory = Memory(1_000_000, Memento(DISTANCES, batch_size=256, **PUBLISHED))
    memory.insert(stream(1_000_000, 1, np.float32))
    fresh = stream(9_000_000, 2, np.float32)
    with Peak() as peak:
        seconds = timed(lambda: memory.insert(fresh))
    return Row(
        "insert 9M into a full 1M, b = 256",
        f"{seconds:.1f} s, +{peak.extra:.2f} GB",
        "12 s, +0.3 GB",
        "",
    )


def kernel_row(runs: int) -> Row:
    """One pair and bin of the Jensen-Shannon kernel."""
    from memento._kernels import jensen_shannon

    count = 7812
    rows = np.sort(np.random.default_rng(0).dirichlet(np.full(CLASSES, 0.3), count), axis=0)
    packed = jensen_shannon.pack(rows / rows.sum(axis=1, keepdims=True))
    weights = np.ones(count)
    jensen_shannon.kernel_sums(packed, 50.0, weights)
    seconds = [
        timed(lambda: jensen_shannon.kernel_sums(packed, 50.0, weights)) for _ in range(3 * runs)
    ]
    each = [1e9 * s / (count**2 / 2 * CLASSES) for s in seconds]
    start = time.perf_counter()
    naive_kernel(rows[:600])
    plain = 1e9 * (time.perf_counter() - start) / (600**2 * CLASSES)
    median = statistics.median(each)
    return Row(
        "Jensen-Shannon, one pair and bin",
        f"{median:.3f} ns ({min(each):.3f}-{max(each):.3f})",
        "0.3 ns",
        f"{plain:.0f} ns: {plain / median:.0f} times",
    )


def controller_rows(runs: int) -> list[Row]:
    """Decisions of bitrate controllers, for 4,000 sessions at a time."""
    from memento_puffer.predictor.transmission import LADDER_MB
    from memento_puffer.streaming.abr import BBA, Fugu

    rng, count = np.random.default_rng(0), 4000
    sizes = 1e6 * np.array(LADDER_MB) * rng.lognormal(0, 0.5, (count, 10, 1))
    ssim = np.broadcast_to(np.linspace(0.91, 0.983, 10), sizes.shape).copy()
    buffer, last = rng.uniform(0, 16, count), rng.choice(ssim[0, 0], count)
    classes = np.abs(np.arange(CLASSES) - rng.uniform(0, 6, (count, 5, 10, 1)))
    odds = np.exp(1.5 * rng.standard_normal((count, 5, 10, CLASSES)) - classes)
    given = {"last_ssim": last, "probabilities": odds / odds.sum(axis=-1, keepdims=True)}
    rows = []
    for controller, budget in ((Fugu(), "5,000 a second"), (BBA(), "200,000 a second")):
        controller.decide(buffer, sizes, ssim, **given)
        seconds = [
            timed(lambda c=controller: c.decide(buffer, sizes, ssim, **given)) for _ in range(runs)
        ]
        rate = count / statistics.median(seconds)
        name = type(controller).__name__
        rows.append(Row(f"decisions of {name}", f"{rate:,.0f} a second", budget, ""))
    return rows


def streaming_rows(quick: bool, large: bool) -> list[Row]:
    """Simulated days of video streaming, and what the predictor learns from such days."""
    from pathlib import Path

    import polars as pl

    from memento_puffer.data.features import Features
    from memento_puffer.data.release import write_simulated_day
    from memento_puffer.data.schema import write_day
    from memento_puffer.predictor.ttp import Ttp
    from memento_puffer.predictor.ttp_training import Training, TrainingSettings
    from memento_puffer.streaming.abr import BBA, BOLA, MPC, Fugu, RobustMPC
    from memento_puffer.streaming.simulator import Scheme, Simulation

    others = [
        Scheme("linear_bba", BBA()),
        Scheme("mpc", MPC()),
        Scheme("robust_mpc", RobustMPC()),
        Scheme("bola_basic_v1", BOLA()),
    ]
    plain = Simulation(others)
    features = Features.of_blocks(plain.day(0, sessions=40, record="chunks"))
    settings = TrainingSettings(scratch_epochs=15, learning_rate=1e-3)
    networks = []
    for horizon in range(5):
        columns = features.columns(horizon, sentinels="clamp")
        networks.append(Training(None, columns["x"], columns["y_bin"], None, settings).run())
    fugu = Scheme("fugu", Fugu(), Ttp(tuple(networks)))

    def chunks(simulation: Simulation, sessions: int, record: str) -> int:
        blocks = simulation.day(1, sessions=sessions, record=record)
        return sum(int(block.streams["chunks"].sum()) for block in blocks)

    simulation = Simulation([fugu])
    chunks(simulation, 4, "streams")  # compiles
    with Peak() as peak:
        start = time.perf_counter()
        count = chunks(simulation, 60, "streams")
        seconds = time.perf_counter() - start
    scaled = f"{seconds * 43_000 / count:.1f} s ({count:,} chunks in {seconds:.1f} s)"
    name = "a stream-day (43,000 chunks) of Fugu"
    rows = [Row(name, f"{scaled}, +{peak.extra:.2f} GB", "10 s", "")]

    # Twice as many sessions need as much memory: a day is simulated and written in blocks.
    simulation = Simulation([*others, fugu])
    for sessions in (600, 1200):
        with tempfile.TemporaryDirectory() as folder, Peak() as peak:
            start = time.perf_counter()
            day = write_simulated_day(folder, "2021-10-17", simulation, 1, sessions=sessions)
            seconds = time.perf_counter() - start
            count = pl.scan_csv(day.path("video_sent")).select(pl.len()).collect().item()
        measured = f"{seconds * 2_300_000 / count:.0f} s ({count:,} chunks in {seconds:.1f} s)"
        name = f"a day of 2.3M chunks, five schemes, as CSV: from {sessions} sessions"
        rows.append(Row(name, f"{measured}, +{peak.extra:.2f} GB", "900 s", ""))
    if quick:
        return rows

    with tempfile.TemporaryDirectory() as folder:
        options = {"sessions": 300, "form": "parquet", "content": False}
        day = write_simulated_day(folder, "2021-10-17", plain, 0, **options)
        small = {kind: day.read(kind) for kind in ("video_sent", "video_acked")}
    kept = {}
    for million, budget in ((0.3, ""), (3, "15 s, 4 GB"), *(((12, "12 GB"),) if large else ())):
        times = math.ceil(million * 1_000_000 / len(small["video_sent"]))
        tables = {
            kind: pl.concat(
                # The same day again and again, of people with other names.
                small[kind].with_columns(session_id=pl.format("{}{}", "session_id", pl.lit(i)))
                for i in range(times)
            )
            for kind in ("video_sent", "video_acked")
        }
        with tempfile.TemporaryDirectory() as folder:
            day = write_day(Path(folder), "2021-10-17", tables)
            count = len(tables["video_sent"])
            del tables
            with Peak() as peak:
                seconds = timed(lambda day=day: Features.of_day(day).columns(0))
            if million <= 3:
                kept[million] = Features.of_day(day)
        measured = f"{seconds:.1f} s, +{peak.extra:.2f} GB"
        if budget:
            rows.append(Row(f"{count:,} chunks, CSV to arrays", measured, budget, ""))
    for million, capacity, counted in ((0.3, 100_000, True), (3, 1_000_000, False)):
        with Peak() as peak:
            seconds = replay_seconds(kept[million], networks[0], capacity, counted)
        name = f"a replayed day of {kept[million].size:,} samples into {capacity:,}"
        name += ", training included" if counted else ", training aside"
        rows.append(Row(name, f"{seconds:.1f} s, +{peak.extra:.2f} GB", "60 s", ""))
    return rows


def replay_seconds(
    features: Features, network: Network, capacity: int, training_counts: bool
) -> float:
    """A day of a replay with a full memory and a new model."""
    from dataclasses import asdict, replace

    from memento_puffer.predictor.ttp_training import AFFORDABLE
    from memento_puffer.studies.replay import Replay
    from memento_puffer.studies.replay_settings import arm

    training = asdict(AFFORDABLE if training_counts else replace(AFFORDABLE, epochs=1))
    given = {"capacity": capacity, "interval": 1, "training": training}
    days = {f"2021-10-{17 + i}": features for i in range(4)}
    with tempfile.TemporaryDirectory() as folder:
        made = Replay(folder, arm("memento", given, batch_size=256), days, network)
        made.run()
        table = made.tables()["times"]
    taken = dict(zip(zip(table["day"], table["what"], strict=True), table["seconds"], strict=True))
    # The first day fills the memory, and after the last there is nothing to judge on.
    return max(
        taken[d, "day"] - (0.0 if training_counts else taken.get((d, "train"), 0.0))
        for d in [*days][1:-1]
    )


def datacenter_rows(runs: int) -> list[Row]:
    """Packets to windows, and a memory of peers beside Memento."""
    from memento import LossAwareReservoir
    from memento_datacenter.features import workload_samples
    from memento_datacenter.schema import Run

    rng, count = np.random.default_rng(0), 166_000
    columns = {
        "arrival_ns": np.sort(rng.integers(0, 60 * 10**9, count)),
        "delay_ns": rng.integers(15 * 10**6, 60 * 10**6, count).astype(np.uint32),
        "size": rng.integers(54, 1500, count).astype(np.uint16),
        "application": rng.integers(0, 20, count).astype(np.uint16),
    }
    run = Run(**columns, about={"setting": "w2", "label": 2})
    workload_samples(run)
    seconds = [timed(lambda: workload_samples(run)) for _ in range(runs)]
    rows = [Row(f"windows of 128 of {count:,} packets", spread(seconds), "1 s", "")]
    distances = [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", 3)]
    for capacity in (20_000, 60_000, 200_000):
        offered = max(count, capacity)  # a run of w2 and more
        taken = {}
        published = {**PUBLISHED, "batch_size": 256, "sort_by": ("y", "yhat")}
        for policy in (LossAwareReservoir(), Memento(distances, **published)):
            memory = Memory(capacity, policy)
            own = []
            for _ in range(runs + 1):
                odds = rng.random((offered, 3))
                yhat = odds / odds.sum(axis=1, keepdims=True)
                y = rng.integers(0, 3, offered)
                loss = -np.log(yhat[np.arange(offered), y])
                fresh = {"yhat": yhat, "y": y, "loss": loss}
                own.append(timed(lambda f=fresh, m=memory: m.insert(f)))
            taken[type(policy).__name__] = own[1:]  # the first one finds room
        lars, plain = (statistics.median(own) for own in taken.values())
        rows.append(
            Row(
                f"LARS, insert {offered:,} into {capacity:,}",
                f"{spread(taken['LossAwareReservoir'])}, Memento {plain:.2f} s",
                "Memento's time",
                f"{lars / plain:.1f} times Memento's",
            )
        )
    return rows


def import_row(runs: int) -> Row:
    """`import memento` in a new process, less the start of Python itself."""

    def start(code: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    bare = statistics.median(start("pass") for _ in range(runs))
    seconds = [start("import memento") - bare for _ in range(runs)]
    return Row("import memento", spread(seconds), "0.3 s", "")


# In a process of its own: 10,000 rows into a memory that has to discard, without what it takes to
# import memento and to make the rows.
_FIRST = """
import json, time, warnings
import numpy as np, memento
from memento import DensityReservoir, JensenShannon, Memento, Memory
warnings.simplefilter("ignore")
rng, n = np.random.default_rng(0), 10_000
day = {"y": rng.integers(0, 21, n), "yhat": rng.dirichlet(np.ones(21), n), "v": rng.normal(size=n)}
labels, values = JensenShannon.of_labels("y", classes=21), JensenShannon.of_values("v")
both = [JensenShannon.of_probabilities("yhat"), labels]
took = []
for policy in (Memento(both), Memento([labels]), Memento([values]), DensityReservoir(both)):
    start = time.perf_counter()
    Memory(5000, policy).insert(day)
    took.append(time.perf_counter() - start)
print(json.dumps([took[0], sum(took)]))
"""


def first_rows(runs: int) -> list[Row]:
    """The first inserts of a process, without and with compiled code that earlier ones left."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = [], []
        for run in range(runs):
            for found, place in ((cold, f"{folder}/{run}"), (warm, f"{folder}/0")):
                environment = {**os.environ, "NUMBA_CACHE_DIR": place}
                done = subprocess.run(
                    [sys.executable, "-c", _FIRST],
                    check=True, env=environment, stdout=subprocess.PIPE,
                )  # fmt: skip
                found.append(json.loads(done.stdout))
    for name, found, budget in (("cold", cold, "3 s"), ("warm", warm, "0.5 s")):
        one, four = ([seconds[i] for seconds in found] for i in range(2))
        text = f"{spread(one)}; of four policies {spread(four)}"
        rows.append(Row(f"first insert of a process, 10,000 rows, {name} cache", text, budget, ""))
    return rows


def values_rows(runs: int) -> list[Row]:
    """Densities of real values: an insert beside one under probabilities, and a decision."""
    rng, n, count = np.random.default_rng(0), 100_000, 3900
    day = {"v": rng.normal(size=n), "yhat": rng.dirichlet(np.ones(CLASSES), n)}
    took = []
    for distance in (JensenShannon.of_values("v"), JensenShannon.of_probabilities("yhat")):
        policy = Memento([distance], sort_by=["v"], batch_size=256)
        seconds = []
        for _ in range(runs):
            memory = Memory(n // 2, policy)
            seconds.append(timed(lambda memory=memory: memory.insert(day)))
        took.append(seconds)
    ratio = statistics.median(took[0]) / statistics.median(took[1])
    rows = [
        Row(
            "insert 100,000 under of_values",
            spread(took[0]),
            f"4 x of_probabilities: {ratio:.1f}",
            "",
        )
    ]
    space = Memento([JensenShannon.of_values("v")], batch_size=256)
    now, before = ({"v": rng.normal(size=count * 256)} for _ in range(2))
    seconds = [
        timed(lambda: coverage_increase(now, before, space)) for _ in range(max(2, runs // 2))
    ]
    rows.append(Row("coverage under of_values, 3,900 batches", spread(seconds), "2 s", ""))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of everything that is repeated")
    parser.add_argument(
        "--quick", action="store_true", help="without the baseline and the 9M insert"
    )
    parser.add_argument("--large", action="store_true", help="also a day of 12M chunks (10 GB)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    warm_up()
    rows = [kernel_row(options.runs), import_row(options.runs), *first_rows(options.runs)]
    rows += values_rows(options.runs)
    rows += controller_rows(options.runs)
    rows += streaming_rows(options.quick, options.large)
    rows += datacenter_rows(options.runs)
    rows += insert_rows(options.runs, naive=not options.quick)
    if not options.quick:
        rows.append(large_row())
    if options.json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return
    print(
        f"memento {memento.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}, {os.environ['NUMBA_NUM_THREADS']} thread; "
        f"median (range) of {options.runs} runs"
    )
    header = Row("work", "measured", "budget", "plain numpy, scaled")
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    main()
