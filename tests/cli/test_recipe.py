"""The daily job of the documentation, day after day: it retrains when something changed only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memento import Memory

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "command_line.md"
MODEL = """
import numpy as np


def scores(x, weights):
    logits = np.column_stack([x, x**2, np.ones(len(x))]) @ weights
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


def predict(x):
    return scores(x, np.load("model.npz")["weights"])
"""
# Softmax regression by gradient descent; the file of trainings tells the test when it ran.
RETRAIN = """
import os
import sys

import numpy as np

from predictor import scores

held = np.load(sys.argv[1])
x, y = held["x"], np.eye(3)[held["y"]]
weights = np.zeros((2 * x.shape[1] + 1, 3))
for _ in range(300):
    error = scores(x, weights) - y
    weights -= 0.3 * np.column_stack([x, x**2, np.ones(len(x))]).T @ error / len(x)
np.savez("model.npz", weights=weights)
with open("trainings", "a") as file:
    print(os.environ["DAY"], file=file)
"""


def recipe() -> str:
    """The script in the documentation."""
    text = DOCUMENTATION.read_text(encoding="utf-8")
    return text.partition("```sh\n# daily.sh DAY\n")[2].partition("```")[0]


def make_day(number: int, rows: int, *, changed: bool, seed: int) -> dict[str, np.ndarray]:
    """Two classes; where something changed, a third of the samples is of a third one elsewhere."""
    rng = np.random.default_rng([seed, number])
    x = rng.normal(size=(rows, 2))
    y = (x[:, 0] + rng.normal(scale=0.5, size=rows) > 0).astype(np.int64)
    if changed:
        new = rng.random(rows) < 1 / 3
        x[new] = rng.normal([3, 3], 0.5, (int(new.sum()), 2))
        y[new] = 2
    return {"x": x, "y": y}


@pytest.fixture
def run(tmp_path):
    """Run the script for a day; returns what it said."""
    (tmp_path / "days").mkdir()
    (tmp_path / "predictor.py").write_text(MODEL)
    (tmp_path / "retrain.py").write_text(RETRAIN)
    (tmp_path / "daily.sh").write_text(recipe())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def call(number: int, columns: dict[str, np.ndarray]) -> str:
        name = f"2026-01-{number:02d}"
        np.savez(tmp_path / "days" / f"{name}.npz", **columns)
        done = subprocess.run(
            ["sh", "daily.sh", name], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PATH": path, "DAY": name},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return call


@pytest.mark.slow
def test_ten_days(run, tmp_path):
    for number in range(1, 11):
        run(number, make_day(number, 900, changed=number >= 7, seed=0))
        if number == 4:  # cron ran twice
            before = Memory.load(tmp_path / "mem").dump()
            said = run(number, make_day(number, 900, changed=False, seed=0))
            assert "2026-01-04 went in already, with insert 4" in said
            assert repr(Memory.load(tmp_path / "mem").dump()) == repr(before)
    trained = (tmp_path / "trainings").read_text().split()
    assert trained[0] == "2026-01-01"
    assert not {f"2026-01-{day:02d}" for day in range(2, 7)} & {*trained}, trained
    assert {"2026-01-07", "2026-01-08"} & {*trained}, trained
    memory = Memory.load(tmp_path / "mem")
    assert memory.seen == 9000
    assert memory.model == memory.reference_model is not None
    assert "yhat" in memory.samples
