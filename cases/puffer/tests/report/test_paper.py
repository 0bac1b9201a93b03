"""Sections that the paper's table of contents names are ones that pages can have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from memento_puffer.report import over_days, replays, viewers

PAGE = Path(__file__).parents[4] / "docs" / "paper.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="needs the whole checkout")


def test_sections_exist():
    known = {*over_days.SECTIONS, "trade-off", *replays.SECTIONS, "deployment-record"}
    known.add(viewers.system_section().name)
    scenarios = pytest.importorskip("memento_datacenter.report.scenarios")
    simulations = pytest.importorskip("memento_datacenter.report.simulations")
    known |= {*scenarios.SCENARIOS, scenarios.LARGER, scenarios.networks().name}
    known |= {simulations.setup().name, simulations.message_sizes().name, "-courses"}
    cells = [line.split(" | ")[3] for line in PAGE.read_text().splitlines() if " | " in line]
    named = {name for cell in cells for name in re.findall("`([^`]+)`", cell)}
    assert named <= known
    assert len(named) > 20
    assert set(over_days.SECTIONS) <= named
