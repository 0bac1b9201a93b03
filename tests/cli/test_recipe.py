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


def recipe(kind: str, name: str) -> str:
    """A file that the documentation shows."""
    text = DOCUMENTATION.read_text(encoding="utf-8")
    return text.partition(f"```{kind}\n# {name}\n")[2].partition("```")[0]


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
    (tmp_path / "predictor.py").write_text(recipe("python", "predictor.py"))
    (tmp_path / "daily.sh").write_text(recipe("sh", "daily.sh DAY"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def call(number: int, columns: dict[str, np.ndarray]) -> str:
        name = f"2026-01-{number:02d}"
        np.savez(tmp_path / "days" / f"{name}.npz", **columns)
        done = subprocess.run(
            ["sh", "daily.sh", name], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return call


@pytest.mark.slow
def test_ten_days(run, tmp_path):
    model, trained = tmp_path / "model.npz", []
    for number in range(1, 11):
        before = model.read_bytes() if number > 1 else None
        run(number, make_day(number, 900, changed=number >= 7, seed=0))
        trained += [number] if model.read_bytes() != before else []
        if number == 4:  # cron ran twice
            before = Memory.load(tmp_path / "mem").dump()
            said = run(number, make_day(number, 900, changed=False, seed=0))
            assert "2026-01-04 went in already, with insert 4" in said
            assert repr(Memory.load(tmp_path / "mem").dump()) == repr(before)
    assert trained[0] == 1
    assert not {*range(2, 7)} & {*trained}, trained
    assert {7, 8} & {*trained}, trained
    memory = Memory.load(tmp_path / "mem")
    assert memory.seen == 9000
    assert memory.model == memory.reference_model is not None
    assert "yhat" in memory.samples
