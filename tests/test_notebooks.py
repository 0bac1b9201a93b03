"""Notebooks run as scripts and show what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.compiled
@pytest.mark.slow
def test_coverage_noise():
    """Twelve draws show that it runs and is not absurd; the rates are tested elsewhere.

    In 12 quiet draws 5 false alarms or more come by chance once in 5,000 times.
    """
    alarms, seen, *plain = run_script("coverage_noise.py", DRAWS="12").splitlines()
    found = re.fullmatch(
        r"false alarms: ([\d.]+)% of 12 draws \(nominal 5\.0 % ± [\d.]+%\)", alarms
    )
    assert found, alarms
    assert float(found[1]) < 100 * 5 / 12
    found = re.fullmatch(r"detected: ([\d.]+)% of 12 draws", seen)
    assert found, seen
    assert float(found[1]) >= 75
    assert plain[0].startswith("plain estimate: quiet 0.")
    assert plain[1].startswith("calibrated:     quiet 0.")
