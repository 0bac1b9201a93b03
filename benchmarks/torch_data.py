"""What a DataLoader over a memory costs in time, against bare tensors, and in memory, a worker.

    python benchmarks/torch_data.py [--rows 60000] [--rounds 7] [--megabytes 1000]

Times are ratios in one run: an epoch of a shuffled `DataLoader` over a `MemoryDataset`, divided by
an epoch of `tensor[rows]` over the same columns in batches of the same size; the median of several
rounds. `nothing` is a `DataLoader` over a dataset whose batches are made already: what PyTorch
itself takes, which no dataset can go below.

Memory is the proportional set size of this process and its workers while they read a whole epoch:
pages that several share count once. Of the sum with two workers the sum without any is subtracted,
and what two workers add that read a memory of ten rows: Python and PyTorch themselves. Linux only.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from memento import FIFO, Memory
from memento.integrations.torch import MemoryDataset

INPUTS, CLASSES = 62, 21


class Nothing(Dataset):
    """As many rows, and batches that cost nothing."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitems__(self, rows: list[int]) -> list[int]:
        return rows


def first_of(batch: list[int]) -> int:
    return batch[0]


def memory_of(rows: int) -> Memory:
    rng = np.random.default_rng(0)
    memory = Memory(rows, FIFO())
    x = rng.standard_normal((rows, INPUTS), np.float32)
    memory.insert(
        x=x, y=rng.integers(0, CLASSES, rows), yhat=rng.random((rows, CLASSES), np.float32)
    )
    return memory


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def read(loader: Any) -> None:
    for _ in loader:
        pass


def times(rows: int, rounds: int) -> None:
    memory = memory_of(rows)
    print(f"{rows:,} rows; times of tensor[rows]; the median of {rounds} rounds (lowest, highest)")
    with tempfile.TemporaryDirectory() as folder:
        memory.save(folder)
        for columns in (("x", "y"), None):
            names = columns or tuple(memory.samples)
            tensors = [torch.from_numpy(memory.samples[name].copy()) for name in names]
            datasets = {
                "memory": MemoryDataset(memory, columns),
                "folder": MemoryDataset(folder, columns),
                "nothing": Nothing(rows),
            }
            for size in (64, 128, 256, 1024):
                ratios: dict[str, list[float]] = {name: [] for name in datasets}

                def bare(tensors: Any = tensors, size: int = size) -> None:
                    for part in torch.randperm(rows).split(size):
                        _ = [tensor[part] for tensor in tensors]

                for _ in range(rounds):
                    least = seconds(bare)
                    for name, dataset in datasets.items():
                        collate = first_of if name == "nothing" else None
                        loader = DataLoader(
                            dataset, batch_size=size, shuffle=True, collate_fn=collate
                        )
                        ratios[name].append(seconds(lambda loader=loader: read(loader)) / least)
                said = "  ".join(
                    f"{name} {statistics.median(found):.2f} ({min(found):.2f}, {max(found):.2f})"
                    for name, found in ratios.items()
                )
                print(f"{', '.join(names):12}  batches of {size:4}  {said}")


def megabytes_of_all() -> float:
    """Proportional set size of this process and its children."""
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    total = 0
    for process in (str(me), *children):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def peak(folder: str, workers: int, start: str | None) -> float:
    """The most that is in use while an epoch is read."""
    loader = DataLoader(
        MemoryDataset(folder),
        batch_size=1024,
        num_workers=workers,
        multiprocessing_context=start,
    )
    found = 0.0
    for number, _ in enumerate(loader):
        if number % 20 == 0:
            found = max(found, megabytes_of_all())
    return max(found, megabytes_of_all())


def in_a_process(folder: str, workers: int, start: str) -> float:
    """`peak` in a process of its own, so that nothing is left from before."""
    command = [sys.executable, __file__, "--peak", folder, str(workers), start]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory(megabytes: int) -> None:
    row = 4 * (INPUTS + CLASSES) + 8
    rows = megabytes * 2**20 // row
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as small:
        memory_of(rows).save(folder)
        memory_of(10).save(small)
        for start in ("fork", "spawn"):
            alone, with_two = (in_a_process(folder, workers, start) for workers in (0, 2))
            base, base_two = (in_a_process(small, workers, start) for workers in (0, 2))
            added, own = with_two - alone, base_two - base
            print(
                f"{start:5}  {megabytes:,} MB of columns: {alone:,.0f} MB alone, two workers add "
                f"{added:,.0f} MB, of which {own:,.0f} MB are Python and PyTorch: the others are "
                f"{(added - own) / megabytes:.1%} of the columns"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--peak", nargs=3, metavar=("DIR", "WORKERS", "START"), help="for itself")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        folder, workers, start = options.peak
        print(peak(folder, int(workers), start if int(workers) else None))
        return
    times(options.rows, options.rounds)
    memory(options.megabytes)


if __name__ == "__main__":
    main()
