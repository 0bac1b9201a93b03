"""Small days of rows in Parquet files, and what predicts them, for tests of selection."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from memento import JensenShannon

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

CLASSES = 4
DISTANCES = [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", CLASSES)]
SHARES = [0.7, 0.2, 0.08, 0.02]


def columns(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Rows with an id, a label, a prediction that is mostly right, and inputs."""
    rng = np.random.default_rng(seed)
    y = rng.choice(CLASSES, rows, p=SHARES)
    weight = rng.dirichlet(np.ones(CLASSES), rows)
    yhat = (0.5 * np.eye(CLASSES)[y] + 0.5 * weight).astype(np.float32)
    x = rng.standard_normal((rows, 3)).astype(np.float32)
    x[:, 0] = y
    return {"id": np.arange(rows) + seed * 1_000_000, "y": y, "yhat": yhat, "x": x}


def table(data: dict[str, np.ndarray], layout: str = "lists") -> pa.Table:
    """The same as an Arrow table in one of the layouts."""
    made: dict[str, pa.Array] = {}
    fields = []
    for name, array in data.items():
        if array.ndim == 1:
            made[name] = pa.array(array)
        elif layout == "wide":
            for i in range(array.shape[1]):
                made[f"{name}_{i}"] = pa.array(array[:, i])
        elif layout == "binary":
            width = array.shape[1] * array.itemsize
            buffers = [None, pa.py_buffer(np.ascontiguousarray(array))]
            made[name] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(array), buffers)
        elif layout == "ragged":
            made[name] = pa.array(list(array))
        else:
            flat = pa.array(array.reshape(-1))
            made[name] = pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    fields = [pa.field(name, data.type) for name, data in made.items()]
    return pa.table(list(made.values()), schema=pa.schema(fields))


def write(
    folder: Path, files: int = 3, rows: int = 1200, group: int = 400, layout: str = "lists"
) -> Path:
    """Files of some rows in row groups of some; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        made = table(columns(rows, number), layout)
        pq.write_table(made, folder / f"part-{number}.parquet", row_group_size=group)
    return folder


def joined(files: int = 3, rows: int = 1200) -> dict[str, np.ndarray]:
    """All rows that `write` wrote, in the order of blocks."""
    parts = [columns(rows, number) for number in range(files)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# --- predictions that die -----------------------------------------------------------------------


class Dying:
    """Predicts, and ends its own process by SIGKILL at stated calls.

    Args:
        folder: Where calls are counted and deaths are remembered, for all processes.
        calls: Numbers of the calls, from 1, that are not survived, the first time.
    """

    def __init__(self, folder: Path, calls: tuple[int, ...] = ()) -> None:
        self.folder, self.calls = str(folder), calls
        folder.mkdir(exist_ok=True)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        number = 1
        while True:  # the next number that nobody has taken
            try:
                os.close(os.open(f"{self.folder}/call-{number}", os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                number += 1
        if number in self.calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return predicted(x)

    @property
    def count(self) -> int:
        """How often it was called, in all processes."""
        return len(os.listdir(self.folder))


def predicted(x: np.ndarray) -> np.ndarray:
    """Probabilities from the first input, the same on every machine."""
    right = np.eye(CLASSES, dtype=np.float32)[x[:, 0].astype(int)]
    second = np.eye(CLASSES, dtype=np.float32)[(x[:, 1] > 0).astype(int)]
    return (right + second) / np.float32(2)
