"""The notebook that reads results of the data-centre case shows what it says."""

from __future__ import annotations

import pytest
import small_scenarios as small

from run_notebooks import executed


@pytest.mark.slow
def test_datacenter(tmp_path):
    pytest.importorskip("matplotlib")
    results = small.datacenter(tmp_path / "replayed")
    out, figures = executed("datacenter.py", results, tmp_path)
    assert len(figures) == 6
    assert "5,696" in out
    assert "incremental: memento datacenter replay incremental" in out
