"""Notebooks that read results of the Puffer case show what they say."""

from __future__ import annotations

import pytest
import small_results as small

from run_notebooks import executed


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("polars")
    return small.prepared(tmp_path_factory)


@pytest.mark.slow
def test_replay(made, tmp_path):
    out, figures = executed("replay.py", made / "results", tmp_path)
    assert figures == [
        "tiny-figure-freeze", "tiny-table-batch-size", "tiny-table-batch-size-courses",
        "tiny-table-batch-size-courses-memento", "tiny-table-batch-size-insert",
        "tiny-table-freeze", "tiny-table-freeze-courses", "tiny-table-repeatability",
        "tiny-table-repeatability-courses",
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
def test_demo(made, tmp_path):
    out, figures = executed("demo.py", made / "results", tmp_path)
    assert "demo-scores" in figures
    assert "static" in out
