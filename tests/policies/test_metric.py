"""Discards follow softmax(metric / temperature), all drawn at once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from chances import assert_counts
from memento import Memory, Metric
from memento.errors import DomainError, SchemaError, SettingError
from memento.policies._draw import discards

METRIC = np.array([0.3, 0.0, 0.1, 0.25])


def one_by_one(metric: np.ndarray, order: tuple[int, ...], temperature: float) -> float:
    """Probability of drawing exactly these, one after the other, from the softmax of the rest."""
    weights = np.exp(metric / temperature)
    probability, left = 1.0, weights.sum()
    for i in order:
        probability *= weights[i] / left
        left -= weights[i]
    return probability


@pytest.mark.parametrize("temperature", [0.05, 0.2, 5.0, math.inf])
def test_the_law_of_drawing_one_after_the_other(temperature):
    """All ordered pairs of 4 in 20,000 draws; alarm 1e-4 each."""
    rng = np.random.default_rng(21)
    pairs = list(itertools.permutations(range(4), 2))
    drawn = [tuple(discards(METRIC, 2, temperature, rng).tolist()) for _ in range(20_000)]
    counts = [drawn.count(pair) for pair in pairs]
    expected = [20_000 * one_by_one(METRIC, pair, temperature) for pair in pairs]
    # pairs too rare for the chi-square approximation are taken together
    frequent = np.array(expected) >= 10
    rest = [np.sum(np.array(x)[~frequent]) for x in (counts, expected)]
    assert_counts(
        np.append(np.array(counts)[frequent], rest[0]),
        np.append(np.array(expected)[frequent], rest[1]),
    )


def test_no_temperature_takes_the_largest_and_of_equals_the_first():
    metric = np.array([1.0, 3.0, 3.0, 2.0, 3.0])
    assert discards(metric, 2, 0.0, np.random.default_rng(0)).tolist() == [1, 2]
    assert discards(metric, 5, 0.0, np.random.default_rng(0)).tolist() == [1, 2, 4, 3, 0]


@pytest.mark.parametrize("temperature", [1e-300, 1e-15, 1e-5])
def test_far_more_discards_than_probabilities_that_are_not_zero(temperature):
    """``exp(-1 / T)`` is 0 here: after the likely ones the next likely follow, equals at random."""
    metric = np.repeat([0.0, 1.0, 2.0], 200)
    first = discards(metric, 500, temperature, np.random.default_rng(0))
    assert len(set(first.tolist())) == 500
    assert set(first[:200]) == set(range(400, 600))
    assert set(first[200:400]) == set(range(200, 400))
    assert not np.array_equal(np.sort(first[400:]), np.arange(100))


def test_equals_go_at_random_in_the_cold():
    """50 equals, 20 of which go, 2,000 times at T = 1e-300; alarm 1e-4."""
    rng = np.random.default_rng(22)
    counts = np.zeros(50)
    for _ in range(2000):
        counts[discards(np.append(np.zeros(50), 1.0), 21, 1e-300, rng)[1:]] += 1
    expected = np.full(50, 800.0)
    assert_counts(expected + (counts - expected) * np.sqrt(49 / 30), expected)


def test_nothing_to_draw():
    assert discards(np.empty(0), 0, 0.1, np.random.default_rng(0)).tolist() == []
    assert discards(METRIC, 0, 0.1, np.random.default_rng(0)).tolist() == []


def kept(policy: Metric, capacity: int, **columns) -> list[int]:
    memory = Memory(capacity, policy, seed=0)
    size = len(next(iter(columns.values())))
    memory.insert(columns, number=np.arange(size))
    return memory.samples["number"].tolist()


def test_named_metrics_at_no_temperature():
    losses = [0.1, 3.0, 0.2, 2.0]
    assert kept(Metric.of_loss(temperature=0.0), 2, loss=losses) == [1, 3]
    sure = [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.4, 0.6]]
    assert kept(Metric.of_confidence(temperature=0.0), 2, yhat=sure) == [1, 3]
    labels = ["a", "b", "a", "a", "b", "c"]
    assert kept(Metric.of_label_frequency(temperature=0.0), 3, y=labels) == [1, 4, 5]
    stalled = [False, True, False, True]
    assert kept(Metric.of_flag("stalled", temperature=0.0), 2, stalled=stalled) == [1, 3]
    assert kept(Metric.of_flag("stalled", keep=False, temperature=0.0), 2, stalled=stalled) == [
        0,
        2,
    ]
    assert kept(Metric("age", temperature=0.0), 2, age=[5, 1, 4, 2]) == [1, 3]


def test_frequencies_count_what_is_held_and_what_is_new():
    memory = Memory(4, Metric.of_label_frequency(temperature=0.0))
    memory.insert(y=[0, 0, 1, 1])
    memory.insert(y=[1])
    assert memory.samples["y"].tolist() == [0, 0, 1, 1]


def test_loss_at_a_temperature_keeps_the_hard_ones():
    rng = np.random.default_rng(0)
    memory = Memory(500, Metric.of_loss(temperature=0.1), seed=0)
    for _ in range(4):
        memory.insert(loss=rng.exponential(size=500))
    assert memory.samples["loss"].min() > 0.5
    hot = Memory(500, Metric.of_loss(temperature=math.inf), seed=0)
    hot.insert(loss=rng.exponential(size=5000))
    assert abs(hot.samples["loss"].mean() - 1) < 0.3


def test_batches_go_by_their_mean():
    policy = Metric("cost", temperature=0.0, batch_size=2, sort_by=["y"], remainder="drop")
    cost = [9, 2, 1, 1, 5, 5, 0]
    assert kept(policy, 4, y=[0, 0, 1, 1, 2, 2, 3], cost=cost) == [2, 3, 4, 5]


def test_batches_with_a_remainder():
    policy = Metric("cost", temperature=0.0, batch_size=2, sort_by=["y"], remainder="keep")
    assert kept(policy, 3, y=[0, 0, 1, 1, 2], cost=[0, 0, 5, 5, 9]) == [0, 1]
    assert kept(policy, 4, y=[0, 0, 1, 1, 2], cost=[0, 0, 5, 5, 9]) == [0, 1, 2, 3]


def test_dropped_remainders_can_be_enough():
    policy = Metric("cost", temperature=0.0, batch_size=4, sort_by="y", remainder="drop")
    assert kept(policy, 6, y=np.arange(7), cost=np.arange(7)) == [0, 1, 2, 3]


@pytest.mark.parametrize("temperature", [0.0, 0.5, math.inf])
def test_batches_lose_no_end_of_the_order_and_fill_the_memory(temperature):
    """The highest label is in batches of its own, and the largest losses there are."""
    policy = Metric.of_loss(batch_size=8, sort_by=["y"], temperature=temperature)
    memory = Memory(100, policy, seed=0)
    rng = np.random.default_rng(1)
    y = np.array([0] * 120 + [1] * 6)
    memory.insert(y=y, loss=np.where(y, 9.0, rng.exponential(size=126)))
    assert len(memory) == 100
    assert temperature == math.inf or memory.samples["y"].sum() == 6


@pytest.mark.parametrize("temperature", [0.0, 0.5, math.inf])
def test_batches_fill_the_memory_with_whole_ones(temperature):
    policy = Metric.of_loss(batch_size=8, sort_by=["y"], temperature=temperature, remainder="drop")
    memory = Memory(100, policy, seed=0)
    rng = np.random.default_rng(1)
    for _ in range(3):
        memory.insert(y=rng.integers(0, 5, 90), loss=rng.exponential(size=90))
        assert len(memory) in (90, 96)


@pytest.mark.parametrize(
    ("policy", "columns", "error", "message"),
    [
        (Metric("a"), {"b": [1]}, SchemaError, "'a' is missing"),
        (Metric("a"), {"a": [np.nan]}, DomainError, "a"),
        (Metric("a"), {"a": ["b"]}, SchemaError, "expected one number"),
        (Metric("a"), {"a": [[1]]}, SchemaError, "has the shape"),
        (Metric.of_confidence(), {"yhat": [0.5]}, SchemaError, "row of probabilities"),
        (Metric.of_confidence(), {"yhat": [[0.5, 0.9]]}, DomainError, "sum"),
        (Metric.of_label_frequency(), {"y": [0.5]}, SchemaError, "integer"),
        (Metric.of_flag("f"), {"f": [0, 2, 2]}, DomainError, "holds 2 in row 1"),
    ],
)
def test_bad_columns(policy, columns, error, message):
    with pytest.raises(error, match=message):
        Memory(5, policy).insert(columns)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"measure": "size"}, "measure is 'size'; expected one of .value., .negative."),
        ({"remainder": "lose"}, "remainder is 'lose'"),
        ({"missing": "no"}, "missing is 'no'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(SettingError, match=message):
        Metric("loss", **settings)


def test_capacity_below_one_batch():
    with pytest.raises(SettingError, match="less than one batch of 8"):
        Memory(7, Metric("loss", batch_size=8, remainder="drop"))
    Memory(7, Metric("loss", batch_size=8, remainder="keep"))
