"""Intervals against known quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memento.errors import SettingError
from memento.study import interval, paired


@pytest.mark.parametrize(
    ("count", "level", "quantile"),
    [(2, 0.9, 6.3138), (5, 0.9, 2.1318), (5, 0.95, 2.7764), (11, 0.9, 1.8125), (31, 0.99, 2.7500)],
)
def test_interval_has_quantiles_of_student(count, level, quantile):
    """Quantiles from tables of Student's distribution."""
    values = np.random.default_rng(count).normal(size=count)
    mean, low, high = interval(values, level)
    half = values.std(ddof=1) / math.sqrt(count)
    assert mean == pytest.approx(values.mean())
    assert (high - mean) / half == pytest.approx(quantile, rel=2e-4)
    assert (mean - low) / half == pytest.approx(quantile, rel=2e-4)


def test_interval_of_few():
    assert all(math.isnan(v) for v in interval([]))
    mean, low, high = interval([2.0, math.nan])
    assert (mean, math.isnan(low), math.isnan(high)) == (2.0, True, True)
    with pytest.raises(SettingError, match="level"):
        interval([1.0], 90)


def test_two_units_say_nothing():
    """There is one block of two, which never varies: chance had an interval of no width."""
    found = paired(np.array([[1.0, -0.98], [1.0, -0.98]]))
    assert found.gain == pytest.approx(0.01)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
