"""Herding against the definition, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento import Herding, Memory
from memento.errors import DomainError, SchemaError, SettingError
from memento.policies.herding import balanced_shares


def naive_herding(points, weights, count: int) -> list[int]:
    """iCaRL, Algorithm 4: always the point that brings the mean closest to that of all."""
    mean = np.average(points, axis=0, weights=weights)
    picked: list[int] = []
    for k in range(1, count + 1):
        total = points[picked].sum(axis=0)
        distance = np.linalg.norm(mean - (total + points) / k, axis=1)
        distance[picked] = np.inf
        picked.append(int(distance.argmin()))
    return picked


def unit(points):
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("size", "width"),
    [(30, 1), (600, 3), pytest.param(1100, 40, marks=pytest.mark.compiled)],
)
def test_picks_of_the_definition(size, width):
    from memento._kernels import herding

    rng = np.random.default_rng(size)
    points = rng.standard_normal((size, width)).astype(np.float32)
    weights = rng.integers(1, 9, size).astype(float)
    found = herding.herd(points, weights, size // 4)
    expected = naive_herding(points.astype(np.float64), weights, size // 4)
    assert found.tolist() == expected


def test_all_can_be_picked_and_equal_points_in_their_order():
    from memento._kernels import herding

    points = np.ones((5, 2), np.float32)
    assert herding.herd(points, np.ones(5), 5).tolist() == [0, 1, 2, 3, 4]


def test_each_label_is_herded_apart():
    rng = np.random.default_rng(3)
    y = rng.choice(3, 400, p=[0.7, 0.28, 0.02])
    x = (rng.standard_normal((400, 5)) + y[:, None]).astype(np.float32)
    memory = Memory(90, Herding("x"))
    memory.insert(x=x, y=y, number=np.arange(400))
    counts = np.bincount(y)
    for label, share in enumerate(balanced_shares(counts, 90)):
        own = np.flatnonzero(y == label)
        expected = own[naive_herding(unit(x[own].astype(float)), np.ones(len(own)), share)]
        held = memory.samples["number"][memory.samples["y"] == label]
        assert set(held) == set(expected)
    assert memory.weights.sum() == pytest.approx(400)


def test_the_mean_is_kept_far_better_than_by_chance():
    """The mean of 50 random ones of 2,000 is off by 0.45 (sqrt(10 / 50)); herded ones by 0.02."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2000, 10)) + np.arange(10)
    memory = Memory(50, Herding("x", label=None, normalise=False))
    memory.insert(x=x)
    assert np.linalg.norm(memory.samples["x"].mean(axis=0) - x.mean(axis=0)) < 0.1


def test_held_samples_count_for_those_they_stand_for():
    """The mean over many inserts is that of the whole stream, not of the last insert."""
    rng = np.random.default_rng(5)
    memory = Memory(40, Herding("x", label=None, normalise=False))
    means = []
    for day in range(6):
        x = rng.standard_normal((500, 4)) + day
        memory.insert(x=x)
        means.append(x.mean(axis=0))
    assert np.linalg.norm(memory.samples["x"].mean(axis=0) - np.mean(means, axis=0)) < 0.3
    assert memory.weights.sum() == pytest.approx(3000)


def test_a_label_without_news_keeps_its_first_picks():
    rng = np.random.default_rng(6)
    memory = Memory(30, Herding("x"))
    memory.insert(x=rng.standard_normal((200, 3)), y=np.zeros(200, int))
    picks = memory.state.marks["pick"]
    kept = memory.samples["x"][picks < 10]
    for label in (1, 2):
        memory.insert(x=rng.standard_normal((200, 3)), y=np.full(200, label))
    held = memory.samples
    assert np.bincount(held["y"]).tolist() == [10, 10, 10]
    np.testing.assert_array_equal(held["x"][held["y"] == 0], kept)
    np.testing.assert_allclose(memory.weights, 20.0)


def test_without_features_a_random_sample_stays_until_there_are_some():
    memory = Memory(50, Herding(label=None, missing="random"), seed=1)
    for start in range(0, 400, 100):
        memory.insert(number=np.arange(start, start + 100))
    assert 130 < memory.samples["number"].mean() < 270  # 200 +- 16
    np.testing.assert_allclose(memory.weights, 8.0)
    memory.annotate(embedding=np.ones((50, 2)))
    memory.insert(number=[1, 2], embedding=np.zeros((2, 2)))
    assert memory.weights.sum() == pytest.approx(402)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.data())
def test_shares_are_as_equal_as_they_can_be(counts, data):
    counts = np.array(counts)
    capacity = data.draw(st.integers(0, int(counts.sum())))
    shares = balanced_shares(counts, capacity)
    assert shares.sum() == capacity
    assert (shares <= counts).all()
    for label in np.flatnonzero(shares < counts):  # who wants more has as much as anyone, but for 1
        assert shares[label] >= shares.max() - 1


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"y": [1]}, SchemaError, "'embedding' is missing; .* missing='random'"),
        ({"embedding": [1.0]}, SchemaError, "'y' is missing"),
        ({"y": [1], "embedding": ["a"]}, SchemaError, "expected numbers"),
        ({"y": [1], "embedding": np.empty((1, 0))}, SchemaError, "at least one number"),
        ({"y": [1, 1], "embedding": [1.0, np.nan]}, DomainError, "embedding"),
    ],
)
def test_bad_columns(columns, error, message):
    with pytest.raises(error, match=message):
        Memory(5, Herding()).insert(columns)


def test_bad_settings():
    with pytest.raises(SettingError, match="missing is 'drop'"):
        Herding(missing="drop")
