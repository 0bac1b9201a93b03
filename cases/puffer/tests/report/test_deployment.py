"""The figure of a deployment."""

from __future__ import annotations

import numpy as np
import pytest

from memento_puffer.report import deployment

pytest.importorskip("matplotlib")


def table(days=20, variants=("default", "deterministic"), horizons=5):
    rng = np.random.default_rng(0)
    rows = [(v, h, d) for v in variants for h in range(horizons) for d in range(days)]
    n = len(rows)
    return {
        "variant": np.array([row[0] for row in rows], str),
        "horizon": np.array([row[1] for row in rows]),
        "day": np.datetime64("2022-09-01") + np.array([row[2] for row in rows], "timedelta64[D]"),
        "retrained": rng.random(n) < 0.1,
        "coverage_increase": rng.uniform(0.03, 0.2, n),
        "total_coverage": np.where(rng.random(n) < 0.1, np.nan, rng.uniform(10, 60, n)),
    }


@pytest.mark.parametrize("variants", [("default",), ("default", "deterministic"), ()])
def test_draws(tmp_path, variants):
    path = tmp_path / "figure.png"
    deployment.coverage_and_trainings(
        path, table(variants=variants), title="own", new_metric=np.datetime64("2022-09-10")
    )
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 5000


def test_lines_stop_where_numbers_do_not_compare():
    days = np.array(["2022-09-01", "2022-09-02", "2022-09-03", "2022-09-06"], "datetime64[D]")
    found = deployment._unbroken(days, np.datetime64("2022-09-03"))
    assert found == [slice(0, 2), slice(2, 3), slice(3, 4)]
    assert deployment._unbroken(days, None) == [slice(0, 3), slice(3, 4)]
    assert deployment._unbroken(days[:0], None) == []
