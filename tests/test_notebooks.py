"""Notebooks run as scripts and show what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import small_results as small

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


# ------------------------------------------------------------- notebooks that read results


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("polars")
    return small.prepared(tmp_path_factory)


def executed(name, results, tmp_path):
    """What a notebook prints, and the figures that it draws."""
    figures = tmp_path / "figures"
    out = run_script(name, RESULTS=str(results), FIGURES=str(figures))
    found = sorted(path.stem for path in figures.glob("*.png"))
    for path in figures.glob("*.png"):
        assert path.stat().st_size > 5000
        assert str(path) in out
    return out, found


@pytest.mark.slow
def test_replay(made, tmp_path):
    out, figures = executed("replay.py", made / "results", tmp_path)
    assert figures == [
        "tiny-figure-freeze", "tiny-table-batch-size", "tiny-table-batch-size-insert",
        "tiny-table-freeze", "tiny-table-repeatability",
    ]  # fmt: skip
    assert "paper tail" in out
    assert "real days of Puffer" in out


@pytest.mark.slow
def test_replay_of_one_replay(made, tmp_path):
    out, figures = executed("replay.py", made / "replayed", tmp_path)
    assert figures == ["figure-loss-over-time", "replay", "table-decisions-days"]
    assert "not there: nothing" in out


@pytest.mark.slow
def test_selection(made, tmp_path):
    out, figures = executed("selection.py", made / "results", tmp_path)
    assert figures == ["figure-selection-tiny"]
    assert "rarest: kept" in out


@pytest.mark.slow
def test_analysis(made, tmp_path):
    out, figures = executed("analysis.py", made / "results", tmp_path)
    assert "Puffer's primary experiment" in out
    assert "132,621" in out
    assert figures == ["analysis-tiny", "deployment-record"]
    assert "Trainings of the first horizon" in out
    assert "not run" not in out


@pytest.mark.slow
def test_datacenter(made, tmp_path):
    results = small.datacenter(tmp_path / "replayed")
    out, figures = executed("datacenter.py", results, tmp_path)
    assert len(figures) == 6
    assert "5,696" in out
    assert "incremental: memento datacenter replay incremental" in out


@pytest.mark.slow
def test_demo(made, tmp_path):
    out, figures = executed("demo.py", made / "results", tmp_path)
    assert "demo-scores" in figures
    assert "static" in out


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.name)
def test_format(path):
    """What jupytext needs to open them: a header, cells, Markdown as comments."""
    header, *cells = re.split(r"^# %%", path.read_text(), flags=re.MULTILINE)
    assert "format_name: percent" in header
    assert all(line.startswith("#") for line in header.splitlines())
    assert len(cells) >= 4
    for cell in cells:
        first, _, rest = cell.partition("\n")
        assert first in ("", " [markdown]")
        if first:
            assert all(line.startswith("#") for line in rest.strip().splitlines())
    compile(path.read_text(), path.name, "exec")
