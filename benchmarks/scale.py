"""Selection from more rows than memory: throughput by stage, growth, and what blocks change.

    python benchmarks/scale.py make FOLDER --files 50 --rows 1048576 [--layout binary]
    python benchmarks/scale.py run PATHS --capacity 1000000 [--workers 2] [--predict]
    python benchmarks/scale.py layouts [--rows 1048576]
    python benchmarks/scale.py blocks [--rows 2097152] [--seeds 5]
    python benchmarks/scale.py peers [--rows 20000]

`run` compares with the floor of reading each column once, in the same run, and says what a billion
rows would take. `blocks` compares what is kept of blocks that are sorted by themselves with what a
memory keeps that sorts all rows at once. `peers` needs apricot-select and scikit-activeml.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import pyarrow.parquet as pq

from memento import DensityReservoir, JensenShannon, Memento, Memory, Reservoir, scale
from memento.density import SampleSpace
from memento.samples import Samples
from memento.scale.blocks import blocks_of, find, read
from memento.scale.layouts import binary, binary_type, decoded, source_of
from memento.scale.planning import footer

CLASSES, INPUTS = 21, 62
DISTANCES = [
    JensenShannon.of_probabilities("yhat"),
    JensenShannon.of_labels("y", classes=CLASSES),
]
BINS = np.arange(CLASSES) * 0.5
BINS[0] = 0.125


def columns(rows: int, seed: int, inputs: int = INPUTS) -> dict[str, np.ndarray]:
    """Skewed transmission times in 21 classes, predictions of varying sharpness, inputs."""
    rng = np.random.default_rng(seed)
    z = rng.lognormal(-1.8, 1, rows).astype(np.float32)
    times = np.minimum(z * rng.lognormal(0, 0.4, rows), 30)
    width = (0.35 + 0.25 * np.abs(rng.standard_normal(rows))).astype(np.float32)
    yhat = np.empty((rows, CLASSES), np.float32)
    for start in range(0, rows, 1 << 16):
        part = slice(start, start + (1 << 16))
        scaled = (np.log(BINS).astype(np.float32) - np.log(z[part])[:, None]) / width[part, None]
        likely = np.exp(-0.5 * (scaled**2 - (scaled**2).min(axis=1, keepdims=True)))
        yhat[part] = likely / likely.sum(axis=1, keepdims=True)
    found = {
        "id": np.arange(rows) + seed * rows,
        "y": np.clip(np.floor((times + 0.25) / 0.5), 0, CLASSES - 1).astype(np.int64),
        "yhat": yhat,
    }
    if inputs:
        x = rng.standard_normal((rows, inputs), np.float32)
        x[:, 0] = np.log(z)
        found["x"] = x
    return found


def write(path: Path, data: dict[str, np.ndarray], layout: str, group: int) -> None:
    import pyarrow as pa

    fields, arrays = [], []
    for name, array in data.items():
        if array.ndim == 1:
            fields.append(pa.field(name, pa.from_numpy_dtype(array.dtype), nullable=False))
            arrays.append(pa.array(array))
        elif layout == "binary":
            fields.append(binary_type(name, array.shape[1], array.dtype))
            arrays.append(binary(array))
        elif layout == "lists":
            flat = pa.array(array.reshape(-1))
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, array.shape[1]))
            fields.append(pa.field(name, arrays[-1].type))
        else:
            for i in range(array.shape[1]):
                fields.append(pa.field(f"{name}_{i}", pa.float32(), nullable=False))
                arrays.append(pa.array(np.ascontiguousarray(array[:, i])))
    pq.write_table(
        pa.table(arrays, schema=pa.schema(fields)), path, row_group_size=group,
        compression="none", use_dictionary=False, write_statistics=False,
    )  # fmt: skip


def make(folder: Path, files: int, rows: int, layout: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = folder / f"part-{number:05d}.parquet"
        if not path.exists():
            write(path, columns(rows, number), layout, rows)
        print(f"{path}: {rows:,} rows", flush=True)


def network(x: np.ndarray) -> np.ndarray:
    """62-64-64-21 with fixed weights, in float32."""
    rng = np.random.default_rng(7)
    sizes = (INPUTS, 64, 64, CLASSES)
    for i, (a, b) in enumerate(pairwise(sizes)):
        x = x @ (rng.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32)
        x = np.maximum(x, 0) if i < 2 else x
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


# --- throughput ------------------------------------------------------------------------------


def floor(paths: str, most: int) -> tuple[float, float, int]:
    """CPU seconds of reading keys, and all columns, once; of some blocks, with their rows."""
    blocks = [b for file in find(paths)[:most] for b in blocks_of(file, footer(file)[1])][:most]
    names = pq.read_schema(blocks[0].file.path).names
    keys = [name for name in names if name.startswith(("y", "yhat"))]
    spent = []
    for wanted in (keys, names):
        start = time.process_time()
        for block in blocks:
            read(block, wanted)
        spent.append(time.process_time() - start)
    return spent[0], spent[1], sum(block.rows for block in blocks)


def run(paths: str, capacity: int, workers: int, name: str, predict: bool) -> None:
    policies = {
        "memento": Memento(DISTANCES),
        "published": Memento(
            DISTANCES, batch_size=256, temperature=0.01, sort_by=("y", "yhat"), remainder="drop",
            precision="approximate",
        ),
        "density": DensityReservoir(DISTANCES, identify_by="id"),
        "reservoir": Reservoir(),
    }  # fmt: skip
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # its memory does not count
        keys, everything, rows = apart.submit(floor, paths, 4).result()
    print(f"floor of {rows:,} rows, CPU s a million: keys {1e6 * keys / rows:.3f}, "
          f"all columns {1e6 * everything / rows:.3f}")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=Path(paths).parent) as place:
        start = time.perf_counter()
        report = scale.select(
            paths, capacity, policies[name], Path(place) / "out", workers=workers,
            predict=network if predict else None, identify_by="id",
        )  # fmt: skip
        wall = time.perf_counter() - start
    million = report.offered / 1e6
    print(f"{name}: {report.kept:,} of {report.offered:,} rows, {report.document['batches']:,} "
          f"batches, {wall:.1f} s on the clock with {workers} workers, "
          f"{report.offered / wall:,.0f} rows/s; digest {report.digest[:16]}")  # fmt: skip
    print(f"{'stage':12s} {'clock s':>9s}  CPU s a million rows, by step")
    total = alone = 0.0
    for stage, spent in report.seconds.items():
        steps = {k: v for k, v in spent.items() if k not in ("clock", "stored")}
        total += sum(steps.values())
        alone += steps.get("client", 0.0)
        words = ", ".join(f"{step} {seconds / million:.3f}" for step, seconds in steps.items())
        print(f"{stage:12s} {spent.get('clock', 0):9.1f}  {words}")
    times = total * rows / everything / report.offered
    billion = 1000 / million * ((total - alone) / 2 + alone)
    print(
        f"all: {total / million:.2f} CPU s a million rows, {times:.1f} times the floor; a billion "
        f"on two cores: {billion / 60:.0f} min"
    )
    memory = report.memory
    print(f"peak memory: client {memory['client'] / 1e9:.2f} GB, worker "
          f"{memory['worker'] / 1e9:.2f} GB")  # fmt: skip
    for note in report.density:
        print(f"density: {note}")


def layouts(rows: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        data = columns(rows, 1)
        print(
            f"{'layout':15s} {'y, yhat':>9s} {'x':>9s}   CPU s a million rows to arrays, best of 3"
        )
        for layout in ("wide", "lists", "binary"):
            for plain in (True, False) if layout != "binary" else (True,):
                path = Path(place) / "a.parquet"
                write(path, data, layout, rows)
                if not plain:  # as pyarrow and pandas write it if nothing is said
                    pq.write_table(pq.read_table(path), path, row_group_size=rows)
                spent = [arrays_of(path, names) for names in (("y", "yhat"), ("x",))]
                name = layout + ("" if plain else ", defaults")
                print(f"{name:15s} {1e6 * spent[0] / rows:9.3f} {1e6 * spent[1] / rows:9.3f}")


def arrays_of(path: Path, names: tuple[str, ...]) -> float:
    """CPU seconds of reading columns to arrays, the best of three."""
    best = np.inf
    for _ in range(3):
        start = time.process_time()
        (file,) = find(path)
        schema, groups, _ = footer(file)
        sources = [source_of(name, schema, {}) for name in names]
        for block in blocks_of(file, groups):
            table = read(block, [column for source in sources for column in source.columns])
            for source in sources:
                decoded(table, source)
        best = min(best, time.process_time() - start)
    return best


# --- blocks against one sort ------------------------------------------------------------------


def shares(kept: np.ndarray, cells: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(cells[kept], minlength=count) / np.bincount(cells, minlength=count)


def blocks(rows: int, seeds: int, capacity: int) -> None:
    """Kept share by decile of density and by class, of blocks and of one sort, T = 0.01."""
    count = 8
    parts = [columns(rows // count, number, inputs=0) for number in range(count)]
    data = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    samples = Samples.borrow({name: data[name] for name in ("y", "yhat")})
    space = SampleSpace(DISTANCES, batch_size=256)
    batches = space.batches(samples)
    density = np.empty(rows)
    density[batches.order] = np.repeat(space.field(batches).density(), batches.sizes)
    deciles = np.minimum((np.argsort(np.argsort(density)) * 10) // rows, 9)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "days"
        folder.mkdir()
        for number, part in enumerate(parts):
            write(folder / f"{number}.parquet", part, "binary", rows // count)
        for words, settings in (
            ("defaults, T = 0.01", {"temperature": 0.01, "batch_size": 256}),
            ("remainder=drop, T = 0.01",
             {"temperature": 0.01, "batch_size": 256, "remainder": "drop"}),
        ):  # fmt: skip
            policy = Memento(DISTANCES, **settings)
            found: dict[str, list[np.ndarray]] = {"one sort": [], "blocks": []}
            for seed in range(seeds):
                memory = Memory(capacity, policy, seed=seed)
                memory.insert(data)
                found["one sort"].append(memory.samples["id"])
                report = scale.select(folder, capacity, policy, f"{place}/{seed}", seed=seed)
                found["blocks"].append(report.samples()["id"])
                shutil.rmtree(f"{place}/{seed}")
            print(f"\n{words}: {capacity:,} of {rows:,} rows, {count} blocks, {seeds} seeds; "
                  "share kept, mean and deviation over seeds")  # fmt: skip
            for title, cells, most in (("decile", deciles, 10), ("class", data["y"], CLASSES)):
                rates = {
                    way: np.array([shares(ids, cells, most) for ids in kept])
                    for way, kept in found.items()
                }
                print(f"{title:8s} {'one sort':>18s} {'blocks':>18s} {'z':>6s}")
                for cell in range(most):
                    a, b = rates["one sort"][:, cell], rates["blocks"][:, cell]
                    noise = (
                        np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / seeds) if seeds > 1 else np.nan
                    )
                    z = (b.mean() - a.mean()) / noise if noise else np.nan
                    print(f"{cell:<8d} {a.mean():9.4f} +- {a.std():6.4f} {b.mean():9.4f} +- "
                          f"{b.std():6.4f} {z:6.1f}")  # fmt: skip


# --- peers ------------------------------------------------------------------------------------


def peers(rows: int, share: float) -> None:
    """Choosing a twentieth of few rows, in one process: those who compare all rows with all."""
    data = columns(rows, 3, inputs=0)
    capacity = int(rows * share)
    features = np.concatenate([data["yhat"], np.eye(CLASSES, dtype=np.float32)[data["y"]]], axis=1)
    density = density_of(data)
    rare = density <= np.quantile(density, 0.1)

    def shown(name: str, seconds: float, chosen: np.ndarray) -> None:
        print(f"{name:34s} {seconds:8.2f} s  {len(chosen):6,} kept, of the rarest tenth "
              f"{rare[chosen].sum() / rare.sum():.3f}", flush=True)  # fmt: skip

    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "a.parquet", data, "binary", rows)
        for name, policy in (("memento", Memento(DISTANCES)), ("reservoir", Reservoir())):
            for attempt in ("cold", "warm"):
                start = time.perf_counter()
                report = scale.select(
                    f"{place}/a.parquet", capacity, policy, f"{place}/{name} {attempt}"
                )
                seconds = time.perf_counter() - start
            shown(f"memento.scale.select, {name}", seconds, report.samples()["id"] - 3 * rows)
    try:
        from apricot import FacilityLocationSelection, FeatureBasedSelection
    except ImportError as error:
        print(f"apricot: {error}")
    else:
        for made in (FeatureBasedSelection, FacilityLocationSelection):
            start = time.perf_counter()
            ranking = made(capacity).fit(features.astype(np.float64)).ranking
            shown(f"apricot, {made.__name__}", time.perf_counter() - start, np.asarray(ranking))
    try:
        from skactiveml.pool import CoreSet
    except ImportError as error:
        print(f"scikit-activeml: {error}")
    else:
        start = time.perf_counter()
        y = np.full(rows, np.nan)
        y[0] = 0
        chosen = CoreSet(random_state=0).query(features, y, batch_size=capacity)
        shown("scikit-activeml, CoreSet", time.perf_counter() - start, np.asarray(chosen))


def density_of(data: dict[str, np.ndarray]) -> np.ndarray:
    space = SampleSpace(DISTANCES, batch_size=64)
    batches = space.batches(Samples.borrow({name: data[name] for name in ("y", "yhat")}))
    found = np.empty(len(data["y"]))
    found[batches.order] = np.repeat(space.field(batches).density(), batches.sizes)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    given = commands.add_parser("make")
    given.add_argument("folder", type=Path)
    given.add_argument("--files", type=int, default=8)
    given.add_argument("--rows", type=int, default=1 << 20)
    given.add_argument("--layout", choices=("binary", "lists", "wide"), default="binary")
    given = commands.add_parser("run")
    given.add_argument("paths")
    given.add_argument("--capacity", type=int, default=1_000_000)
    given.add_argument("--workers", type=int, default=0)
    given.add_argument("--policy", default="memento")
    given.add_argument("--predict", action="store_true")
    given = commands.add_parser("layouts")
    given.add_argument("--rows", type=int, default=1 << 20)
    given = commands.add_parser("blocks")
    given.add_argument("--rows", type=int, default=1 << 21)
    given.add_argument("--seeds", type=int, default=5)
    given.add_argument("--capacity", type=int, default=200_000)
    given = commands.add_parser("peers")
    given.add_argument("--rows", type=int, default=20_000)
    given.add_argument("--share", type=float, default=0.05)
    asked = parser.parse_args()
    if asked.what == "make":
        make(asked.folder, asked.files, asked.rows, asked.layout)
    elif asked.what == "run":
        run(asked.paths, asked.capacity, asked.workers, asked.policy, asked.predict)
    elif asked.what == "layouts":
        layouts(asked.rows)
    elif asked.what == "blocks":
        blocks(asked.rows, asked.seeds, asked.capacity)
    else:
        peers(asked.rows, asked.share)


if __name__ == "__main__":
    sys.exit(main())
