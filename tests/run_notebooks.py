"""Runs notebooks as scripts, for tests of what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def run_script(name: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(NOTEBOOKS / name)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def executed(name, results, tmp_path):
    """What a notebook prints, and the figures that it draws."""
    figures = tmp_path / "figures"
    out = run_script(name, RESULTS=str(results), FIGURES=str(figures))
    found = sorted(path.stem for path in figures.glob("*.png"))
    for path in figures.glob("*.png"):
        assert path.stat().st_size > 5000
        assert str(path) in out
    return out, found
