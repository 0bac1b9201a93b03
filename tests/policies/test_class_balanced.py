"""CBRS against the plain loop that its definition is."""

from __future__ import annotations

import numpy as np
import pytest

from chances import assert_counts, assert_same_law, follow
from memento import ClassBalancedReservoir, Memory, Samples
from memento.errors import SchemaError, SettingError


def naive_cbrs(labels, capacity: int, rng: np.random.Generator) -> list[int]:
    """Numbers of the samples that are held after all have come, one after the other."""
    held: list[int] = []
    full: set = set()
    for i, label in enumerate(labels):
        if len(held) < capacity:
            held.append(i)
            continue
        counts = {c: sum(labels[j] == c for j in held) for c in set(labels)}
        largest = {c for c, count in counts.items() if count == max(counts.values())}
        full |= largest
        if label not in full:
            victims = [j for j in held if labels[j] in largest]
        elif rng.random() < counts[label] / (labels[: i + 1] == label).sum():
            victims = [j for j in held if labels[j] == label]
        else:
            continue
        held[held.index(victims[rng.integers(len(victims))])] = i
    return sorted(held)


@pytest.mark.parametrize("capacity", [1, 2, 5, 9])
def test_the_law_of_the_whole_stream(capacity):
    """How often each of 18 samples is held in the end, 1,500 runs of each; alarm 1e-4."""
    rng = np.random.default_rng(5)
    labels = np.array([0] * 10 + [1] * 5 + [2] * 3)[rng.permutation(18)]
    columns = {"label": labels, "number": np.arange(18)}
    parts = (slice(0, 4), slice(4, 5), slice(5, 18))
    units = [{name: column[part] for name, column in columns.items()} for part in parts]
    ours, naive = np.zeros(18), np.zeros(18)
    for _ in range(1500):
        ours[follow(ClassBalancedReservoir("label"), units, capacity, rng)["number"]] += 1
        naive[naive_cbrs(labels, capacity, rng)] += 1
    assert_same_law(ours, naive)


def test_each_label_s_share_is_a_random_sample_of_it():
    """Label 0 comes 40 times, before and after it is full: all equally often; alarm 1e-4."""
    rng = np.random.default_rng(6)
    labels = np.array([0] * 15 + [1] * 6 + [0] * 5 + [1] * 4 + [0] * 20)
    whole = Samples(y=labels, number=np.arange(50))
    units = [whole.rows(0, 18), whole.rows(18, 30), whole.rows(30, 50)]
    times = np.zeros(50)
    for _ in range(2000):
        times[follow(ClassBalancedReservoir(), units, 10, rng)["number"]] += 1
    for label in (0, 1):
        found = times[labels == label]
        assert_counts(found, np.full(len(found), found.mean()))


def test_labels_are_as_equal_as_they_can_be():
    rng = np.random.default_rng(0)
    memory = Memory(300, ClassBalancedReservoir())
    for _ in range(4):
        memory.insert(y=rng.choice(["a", "b", "c"], 2000, p=[0.97, 0.02, 0.01]))
    counts = {name: (memory.samples["y"] == name).sum() for name in "abc"}
    assert counts["c"] == min(memory.state.counters["seen/c"], 100)
    assert abs(counts["a"] - counts["b"]) <= 1
    assert sum(counts.values()) == 300


def test_a_label_that_is_not_full_loses_nothing():
    rng = np.random.default_rng(0)
    memory = Memory(100, ClassBalancedReservoir())
    y = np.append(np.zeros(1000, int), np.ones(30, int))[rng.permutation(1030)]
    for part in np.array_split(y, 7):
        memory.insert(y=part)
    assert memory.samples["y"].sum() == 30


def test_weights_are_those_of_each_label():
    rng = np.random.default_rng(1)
    memory = Memory(50, ClassBalancedReservoir())
    assert memory.weights.shape == (0,)
    seen = np.zeros(3)
    for size in (20, 200, 300):
        y = rng.choice(3, size, p=[0.8, 0.15, 0.05])
        seen += np.bincount(y, minlength=3)
        memory.insert(y=y)
        totals = np.bincount(memory.samples["y"], memory.weights, minlength=3)
        np.testing.assert_allclose(totals, seen)
        assert len(np.unique(memory.weights)) <= 3


def test_labels_that_come_and_go():
    """Counts of labels that are absent for a while are not lost; more labels than places."""
    memory = Memory(4, ClassBalancedReservoir())
    for label in (3, 5, 3, 7, 8, 9, 3):
        memory.insert(y=[label] * 6)
    counters = memory.state.counters
    assert counters["seen/3"] == 18
    assert counters["seen/9"] == 6
    assert len(memory) == 4


@pytest.mark.parametrize("kind", [bool, np.uint8, "U5", "S3"])
def test_labels_of_any_kind(kind):
    memory = Memory(10, ClassBalancedReservoir(), seed=2)
    values = np.array([True, False] * 3 + [False] * 94) if kind is bool else None
    if values is None:
        values = np.array([1] * 5 + [20] * 95).astype(kind)
    for part in np.array_split(values, 3):
        memory.insert(y=part)
    _, counts = np.unique(memory.samples["y"], return_counts=True)
    assert sorted(counts) in ([5, 5], [3, 7])
    assert sum(v for k, v in memory.state.counters.items() if k.startswith("seen/")) == 100


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1]}, "'y' is missing"),
        ({"y": [0.5]}, "expected one integer, bool or string"),
        ({"y": [[1]]}, "has the shape"),
    ],
)
def test_bad_columns(columns, message):
    with pytest.raises(SchemaError, match=message):
        Memory(5, ClassBalancedReservoir()).insert(columns)


def test_numbers_are_balanced_by_quantiles():
    """The same whether they come at once or in parts; the tails are held as often as the middle."""
    rng = np.random.default_rng(0)
    y = rng.exponential(size=4000)
    memory = Memory(200, ClassBalancedReservoir(bins=4), seed=1)
    memory.insert(y=y[:50])
    memory.insert(y=y[50:150])
    for start in range(150, 4000, 350):
        memory.insert(y=y[start : start + 350])
    edges = [memory.state.counters[f"edge/{i}"] for i in (1, 2, 3)]
    counts = np.bincount(np.searchsorted(edges, memory.samples["y"], side="right"))
    assert counts.tolist() == [50, 50, 50, 50]
    assert memory.weights.sum() == pytest.approx(4000)
    with pytest.raises(SchemaError, match="one number"):
        Memory(9, ClassBalancedReservoir(bins=4)).insert(y=["a"])
    with pytest.raises(SettingError, match="bins is 1"):
        ClassBalancedReservoir(bins=1)
    waiting = Memory(100, ClassBalancedReservoir(bins=4))
    waiting.insert(id=np.arange(90), y=np.full(90, np.nan))
    assert waiting.label(np.arange(90), y=y[:90]) == 90
    waiting.insert(id=np.arange(90, 200), y=y[90:200])
    assert len(waiting) == 100
