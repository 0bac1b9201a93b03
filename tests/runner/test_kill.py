"""A command killed at any moment: the same command goes on, and the result is the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from killed_runs import Plan, killed

PAGE = str(Path(__file__).with_name("counting.py"))


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "kills"), [(0, 40), (2, 12)], ids=["process", "pool"])
def test_killed_at_random_moments(tmp_path, jobs, kills):
    killed(tmp_path, Plan(PAGE, ("counting",), jobs, kills))
