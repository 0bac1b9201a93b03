"""Fugu's window: exact counts for each day, and random samples within the days."""

from __future__ import annotations

import numpy as np
import pytest

from chances import assert_counts, follow
from memento import DailyWindow, Memory
from memento.errors import DomainError, SchemaError, SettingError

FUGU = [129662, 116696, 105026, 94524, 85071, 76564, 68908, 62017, 55815, 50233, 45210, 40689,
        36620, 32958]  # fmt: skip


def ages(memory: Memory, latest: int) -> np.ndarray:
    return np.bincount(latest - memory.samples["day"])


def test_quotas_of_the_deployment():
    assert DailyWindow().quotas(1_000_000).tolist() == FUGU
    assert sum(FUGU) == 999_993


def test_quotas_of_equal_days_are_exact():
    for days in range(1, 60):
        assert DailyWindow(days, decay=1.0).quotas(days * 7).tolist() == [7] * days


def test_counts_in_a_memory():
    memory = Memory(10_000, DailyWindow(), seed=0)
    for day in range(20):
        memory.insert(day=np.full(2000, day))
        quotas = DailyWindow().quotas(10_000)[: day + 1]
        np.testing.assert_array_equal(ages(memory, day), quotas)


@pytest.mark.slow
def test_counts_of_the_deployment():
    memory = Memory(1_000_000, DailyWindow(), seed=0)
    for day in range(15):
        memory.insert(day=np.full(130_000, day, dtype=np.int8))
    assert ages(memory, 14).tolist() == FUGU


def test_small_days_leave_their_places_empty():
    memory = Memory(1000, DailyWindow(days=2, decay=1.0))
    memory.insert(day=np.zeros(1000, int))
    memory.insert(day=np.ones(10, int))
    assert ages(memory, 1).tolist() == [10, 500]


def test_each_day_s_samples_have_the_same_chance_also_after_its_quota_shrank():
    """40 numbers of one day, quotas 16, then 8, then 4, over 1,000 memories; alarm 1e-4 each."""
    rng = np.random.default_rng(5)
    counts = np.zeros((3, 40))
    units = [{"number": np.arange(40) + 40 * age} for age in range(3)]
    for age in range(3):
        for _ in range(1000):
            numbers = follow(DailyWindow(days=3, decay=0.5), units[: age + 1], 28, rng)["number"]
            counts[age, numbers[numbers < 40]] += 1
    for age, quota in enumerate([16, 8, 4]):
        expected = np.full(40, 1000 * quota / 40)
        # drawn without replacement: counts vary less by (40 - 1) / (40 - quota)
        assert_counts(expected + (counts[age] - expected) * np.sqrt(39 / (40 - quota)), expected)


def test_parts_of_a_day_are_one_day():
    """Inserts of the same day, and late ones, leave what one insert of that day would."""
    whole = Memory(70, DailyWindow(days=3, decay=0.5, day="day"), seed=1)
    parts = Memory(70, DailyWindow(days=3, decay=0.5, day="day"), seed=1)
    number = np.arange(300)
    whole.insert(day=number // 100, number=number)
    for start in range(0, 300, 25):
        part = number[start : start + 25]
        parts.insert(day=part // 100, number=part)
    np.testing.assert_array_equal(whole.samples["number"], parts.samples["number"])


def test_late_samples_compete_with_their_day():
    memory = Memory(70, DailyWindow(days=3, decay=0.5, day="day"), seed=1)
    memory.insert(day=np.full(100, 5))
    memory.insert(day=np.repeat([4, 2, 5], [100, 100, 50]))
    assert ages(memory, 5).tolist() == [40, 20]


def test_days_without_samples_count():
    memory = Memory(70, DailyWindow(days=3, decay=0.5, day="day"))
    memory.insert(day=np.zeros(100, int))
    memory.insert(day=np.full(100, 2))
    assert ages(memory, 2).tolist() == [40, 0, 10]
    memory.insert(day=np.full(100, 9))
    assert set(memory.samples["day"]) == {9}


def test_datetimes_are_days_of_utc():
    memory = Memory(6, DailyWindow(days=2, decay=0.5, day="time"), seed=0)
    times = np.array(["2024-01-01T00:00", "2024-01-01T23:59"], "datetime64[m]")
    memory.insert(time=np.repeat(times, 10))
    assert len(memory) == 4
    memory.insert(time=np.repeat(times + np.timedelta64(1, "D"), 10))
    days = memory.samples["time"].astype("datetime64[D]")
    assert np.unique(days, return_counts=True)[1].tolist() == [2, 4]


def test_no_weights_as_they_would_undo_the_decay():
    memory = Memory(500, DailyWindow(days=4))
    memory.insert(y=np.zeros(900))
    assert memory.weights is None


def test_without_a_capacity_the_window_is_whole():
    memory = Memory(None, DailyWindow(days=2))
    for _ in range(3):
        memory.insert(y=np.zeros(50))
    assert len(memory) == 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"days": 0}, "days is 0; expected a whole number above 0"),
        ({"days": 1.5}, "days is 1.5"),
        ({"days": True}, "days is True"),
        ({"decay": 0.0}, r"decay is 0.0; expected a share in \(0, 1\]"),
        ({"decay": 1.1}, "decay is 1.1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(SettingError, match=message):
        DailyWindow(**settings)


def test_capacity_too_small_for_one_sample():
    with pytest.raises(SettingError, match="give at least 8"):
        Memory(7, DailyWindow())
    Memory(8, DailyWindow())


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"y": [1]}, SchemaError, "column 'day' is missing"),
        ({"day": [0.5]}, SchemaError, "expected one integer"),
        ({"day": [[1]]}, SchemaError, "expected one integer"),
        ({"day": ["2024-01-01"]}, SchemaError, "datetime64"),
        ({"day": np.array(["NaT"], "M8[D]")}, DomainError, "no time in row 0"),
    ],
)
def test_bad_days(columns, error, message):
    with pytest.raises(error, match=message):
        Memory(100, DailyWindow(day="day")).insert(columns)
