"""Experiments of the case killed at any moment end with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from killed_runs import Plan, killed

PAGE = str(Path(__file__).with_name("tiny_experiments.py"))
ASKED = ("puffer-replay", "tiny+memento-frozen", "tiny-figure-freeze")
IMPORTS = ("memento_puffer.data.release", "memento_puffer.studies.replay")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    # Three bodies are met at work: a simulation, a training and a replay.
    counts = killed(tmp_path, Plan(PAGE, ASKED, 0, 18, long=True, imports=IMPORTS, bodies=3))
    assert counts["bodies"] >= 3, counts
