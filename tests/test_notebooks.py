"""Notebooks run as scripts and show what they say."""

from __future__ import annotations

import re

import pytest

from run_notebooks import NOTEBOOKS, run_script


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
