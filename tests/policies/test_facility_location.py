"""Facility location against plain greedy, and against the best there is."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from memento import FacilityLocation, Memory
from memento.errors import DomainError, SchemaError, SettingError
from memento.policies._features import regions


def value(distances, weights, far: float, picked) -> float:
    """F of the definition."""
    return float((weights * (far - distances[:, list(picked)].min(axis=1))).sum())


def all_distances(points, groups, far: float):
    """(n, n), with ``far`` between groups."""
    distances = np.full((len(points), len(points)), far)
    for group in groups:
        own = points[group]
        distances[np.ix_(group, group)] = np.linalg.norm(own[:, None] - own[None], axis=2)
    return distances


def naive_greedy(distances, weights, far: float, count: int) -> list[int]:
    nearest = np.full(len(distances), far)
    picked: list[int] = []
    for _ in range(count):
        gains = (weights[:, None] * np.maximum(0, nearest[:, None] - distances)).sum(axis=0)
        gains[picked] = -1
        picked.append(int(gains.argmax()))
        nearest = np.minimum(nearest, distances[:, picked[-1]])
    return picked


def cloud(size: int, width: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((size, width)) + 3 * rng.integers(0, 2, (size, 1))
    return (points - points.mean(axis=0)).astype(np.float32)


@pytest.mark.parametrize(("size", "width", "most"), [(40, 1, 100), (300, 3, 1000), (300, 20, 64)])
def test_picks_of_plain_greedy(size, width, most):
    from memento._kernels import covering

    points = cloud(size, width)
    weights = np.random.default_rng(1).integers(1, 5, size).astype(float)
    groups = regions(points, np.arange(size), most)
    far = 2 * float(np.linalg.norm(points, axis=1).max())
    distances = all_distances(points.astype(float), groups, far)
    found, owners = covering.facilities(points, groups, weights, size // 3)
    expected = naive_greedy(distances, weights, far, size // 3)
    # Rounding may decide between two of almost the same gain, but not change what is gained.
    assert value(distances, weights, far, found) == pytest.approx(
        value(distances, weights, far, expected), rel=1e-6
    )
    assert len(set(found[: size // 6]) & set(expected[: size // 6])) >= 0.9 * (size // 6)
    nearest = distances[:, found].min(axis=1)
    np.testing.assert_allclose(distances[np.arange(size), owners], nearest, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_close_to_the_best(seed):
    points = cloud(12, 2, seed)
    far = 2 * float(np.linalg.norm(points, axis=1).max())
    distances = all_distances(points.astype(float), [np.arange(12)], far)
    best = max(value(distances, 1.0, far, picked) for picked in combinations(range(12), 3))
    memory = Memory(3, FacilityLocation("x"))
    memory.insert(x=points, number=np.arange(12))
    assert value(distances, 1.0, far, memory.samples["number"]) >= (1 - 1 / math.e) * best


@pytest.mark.compiled
def test_regions_cost_little():
    """With regions of 100 of 2,000, the mean distance grows by less than a tenth."""
    points = cloud(2000, 3)
    means = []
    for region in (2000, 100):
        memory = Memory(200, FacilityLocation("x", region=region))
        memory.insert(x=points)
        held = memory.samples["x"]
        means.append(np.linalg.norm(points[:, None] - held[None], axis=2).min(axis=1).mean())
    assert means[0] <= means[1] * (1 + 1e-6)
    assert means[1] < 1.1 * means[0]


def test_weights_count_the_stream():
    rng = np.random.default_rng(2)
    memory = Memory(50, FacilityLocation("x", region=64))
    assert memory.weights.shape == (0,)
    for seen in (30, 430, 830):
        memory.insert(x=rng.standard_normal((30 if seen == 30 else 400, 2)))
        assert memory.weights.sum() == pytest.approx(seen)
        assert (memory.weights >= 1).all()


def test_weights_of_clusters_and_of_duplicates():
    memory = Memory(4, FacilityLocation("x"))
    memory.insert(x=[[0.0]] * 7 + [[10.0]] * 5 + [[-30.0]])
    found = dict.fromkeys([0.0, 10.0, -30.0], 0.0)
    for x, weight in zip(memory.samples["x"][:, 0], memory.weights, strict=True):
        found[float(x)] += weight
    assert found == {0.0: 7, 10.0: 5, -30.0: 1}
    memory.insert(x=[[0.0]] * 3)
    assert memory.weights.sum() == 16


def test_labels_do_not_stand_for_each_other():
    """The three at the place of others save nothing, unless they are of another label."""
    x = np.repeat([0.0, 0.0, 5.0], [50, 3, 50])
    y = np.repeat([0, 1, 0], [50, 3, 50])
    for label, kept in ((None, 0), ("y", 1)):
        memory = Memory(3, FacilityLocation("x", label=label))
        memory.insert(x=x, y=y)
        assert (memory.samples["y"] == 1).any() == kept


def test_fewer_kept_than_regions():
    """Regions without a pick of their own count for the nearest one elsewhere."""
    from memento._kernels import covering

    points = np.array([[0.0], [0.1], [9.0], [9.1], [9.2]], np.float32)
    found, owners = covering.facilities(points, [np.arange(2), np.arange(2, 5)], np.ones(5), 1)
    assert found.tolist() == [3]
    assert owners.tolist() == [3] * 5
    memory = Memory(1, FacilityLocation("x", label="y", region=1))
    memory.insert(x=points, y=np.arange(5))
    assert memory.weights.tolist() == [5.0]


def test_without_features_a_random_sample_stays_until_there_are_some():
    memory = Memory(50, FacilityLocation(missing="random"), seed=1)
    for start in range(0, 400, 100):
        memory.insert(number=np.arange(start, start + 100))
    np.testing.assert_allclose(memory.weights, 8.0)
    memory.annotate(embedding=np.arange(50.0))
    memory.insert(number=[500, 501], embedding=[1e6, 7.0])
    assert 500 in memory.samples["number"]
    assert memory.weights.sum() == pytest.approx(402)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"y": [1]}, SchemaError, "'embedding' is missing"),
        ({"embedding": [1.0]}, SchemaError, "'y' is missing"),
        ({"y": [1.5], "embedding": [1.0]}, SchemaError, "expected one integer"),
        ({"y": [1, 1], "embedding": [1.0, np.inf]}, DomainError, "embedding"),
    ],
)
def test_bad_columns(columns, error, message):
    with pytest.raises(error, match=message):
        Memory(5, FacilityLocation(label="y")).insert(columns)


@pytest.mark.parametrize("settings", [{"region": 0}, {"region": 2.5}, {"missing": "drop"}])
def test_bad_settings(settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))} is"):
        FacilityLocation(**settings)
