"""A stranger's deployment: days of tables, a model in a module of its own, a TOML file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

PIPELINE = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def make(seed):
    return make_pipeline(StandardScaler(), LogisticRegression(random_state=seed))
"""
MEAN = """
import numpy as np

class Frequencies:
    label = "y"

    def __init__(self, seed):
        self._p = None

    @property
    def trained(self):
        return self._p is not None

    def fit(self, samples, weights=None):
        counts = np.bincount(samples["y"], minlength=2) + 1.0
        self._p = counts / counts.sum()

    def annotate(self, samples):
        columns = {"yhat": np.tile(self._p, (len(samples["x"]), 1))}
        if "y" in samples:
            columns["logscore"] = np.log(self._p[samples["y"]])
            columns["loss"] = -columns["logscore"]
        return columns

    def state(self):
        return {} if self._p is None else {"p": self._p}

    def restore(self, state):
        self._p = state.get("p")
"""
#: A memory of the last rows: those of a sorted file are of one class.
CONFIG = """
[data]
folder = "days"
label = "y"
inputs = ["f*"]
[model]
factory = "{module}:make"
[variants.main]
capacity = 60
policy = "fifo"
trigger = "every"
[gate]
tolerance = 0.02
"""
SORTED = 6  # the day whose file is sorted by label
MISSING = 4


def name(day: int) -> str:
    return f"2026-01-{day:02d}"


def write_day(folder: Path, day: int, *, rows: int = 120, numbers: bool = False) -> None:
    """Odd days as Parquet, even ones as CSV."""
    rng = np.random.default_rng(day)
    x = rng.normal(size=(rows, 3))
    y = x[:, 0] + rng.normal(size=rows) * 0.3
    y = y if numbers else (y > 0).astype(np.int64)
    order = np.argsort(y, kind="stable") if day == SORTED else np.arange(rows)
    columns = {"x": np.arange(rows), "y": y[order]}
    columns |= {f"f{i}": x[order, i] for i in range(3)}
    folder.mkdir(exist_ok=True)
    if day % 2:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table(columns), folder / f"{name(day)}.parquet")
        return
    with (folder / f"{name(day)}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def prepare(folder: Path, module: str, model: str = PIPELINE, config: str = CONFIG) -> Path:
    """Model and settings in a folder; returns the settings' file."""
    (folder / f"{module}.py").write_text(model)
    (folder / "days").mkdir(exist_ok=True)
    (folder / "deployment.toml").write_text(config.replace("{module}", module))
    return folder / "deployment.toml"
