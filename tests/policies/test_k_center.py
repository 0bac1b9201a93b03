"""K-center greedy against the definition, and against what it promises."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from memento import KCenterGreedy, Memory
from memento.errors import DomainError, SchemaError, SettingError
from memento.policies._features import centred, directions, random_rows, regions
from memento.samples import Samples


def naive_centres(points, first: int, count: int) -> list[int]:
    picked = [first]
    nearest = ((points - points[first]) ** 2).sum(axis=1)
    while len(picked) < count:
        nearest[picked] = -1
        picked.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((points - points[picked[-1]]) ** 2).sum(axis=1))
    return picked


def radius(points, picked) -> float:
    return max(min(np.linalg.norm(p - points[c]) for c in picked) for p in points)


def cloud(size: int, width: int, seed: int = 0):
    """Clusters of several sizes, with outliers: where skipping groups can go wrong."""
    rng = np.random.default_rng(seed)
    middle = 3 * rng.standard_normal((8, width))
    spread = np.array([1, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 2.0])
    of = rng.integers(0, 8, size)
    return middle[of] + spread[of, None] * rng.standard_normal((size, width))


@pytest.mark.parametrize(("size", "width"), [(5, 1), (300, 2), (1500, 3), (1100, 30)])
def test_picks_of_the_definition(size, width):
    from memento._kernels import covering

    points = cloud(size, width).astype(np.float32)
    groups = regions(points, np.arange(size), covering.GROUP)
    count = min(size, 200)
    found = covering.centres(points, groups, size // 2, count)
    # float64 decides as float32 does, except between neighbours closer than its rounding
    expected = naive_centres(points.astype(np.float64), size // 2, count)
    assert found.tolist() == expected


def test_duplicates_come_last_and_in_order():
    from memento._kernels import covering

    points = np.repeat(np.array([[0.0], [4.0], [9.0]], np.float32), 3, axis=0)
    found = covering.centres(points, regions(points, np.arange(9), 4), 0, 9)
    assert sorted(found.tolist()) == list(range(9))
    assert found[:3].tolist() == [0, 6, 3]
    assert found[3:].tolist() == [1, 2, 4, 5, 7, 8]


@pytest.mark.parametrize("seed", range(5))
def test_at_most_twice_the_best_radius(seed):
    points = cloud(14, 2, seed)
    best = min(radius(points, picked) for picked in combinations(range(14), 4))
    memory = Memory(4, KCenterGreedy("x"), seed=seed)
    memory.insert(x=points, number=np.arange(14))
    assert radius(points, memory.samples["number"]) <= 2 * best + 1e-9


@pytest.mark.compiled
def test_the_rare_is_kept():
    """Of 5,000 samples 10 are far away, each from the others too."""
    rng = np.random.default_rng(0)
    memory = Memory(100, KCenterGreedy("x"))
    far = 50 * np.eye(10)
    memory.insert(x=np.concatenate([rng.random((5000, 10)), far]), far=[0] * 5000 + [1] * 10)
    for _ in range(3):
        memory.insert(x=rng.random((2000, 10)), far=np.zeros(2000, int))
    assert memory.samples["far"].sum() == 10
    assert memory.weights is None


def test_units_and_offsets_do_not_matter():
    points = cloud(400, 3).astype(np.float32).astype(np.float64)
    kept = []
    for scale, offset in ((1.0, 0.0), (2.0**30, 0.0), (2.0**-900, 0.0), (1.0, 2.0**8)):
        memory = Memory(60, KCenterGreedy("x"), seed=1)
        memory.insert(x=points * scale + offset, number=np.arange(400))
        kept.append(memory.samples["number"])
    for other in kept[1:]:
        assert len(np.intersect1d(kept[0], other)) >= 58


def test_without_features_a_random_sample_stays_until_there_are_some():
    memory = Memory(50, KCenterGreedy(missing="random"), seed=1)
    for start in range(0, 400, 100):
        memory.insert(number=np.arange(start, start + 100))
    assert 130 < memory.samples["number"].mean() < 270  # 200 +- 16
    memory.annotate(embedding=np.zeros(50))
    memory.insert(number=[500, 501], embedding=[7.0, 0.0])
    assert 500 in memory.samples["number"]
    assert len(memory) == 50


def test_random_rows_are_a_uniform_sample():
    """Each of 12 samples in 4 of 12 runs, over three inserts; 3,000 runs, alarm 1e-4."""
    from chances import assert_counts

    rng = np.random.default_rng(2)
    times = np.zeros(12)
    for _ in range(3000):
        held, seen = Samples(number=np.arange(4)), 4
        for start in (4, 6):
            fresh = Samples(number=np.arange(start, 6 if start == 4 else 12))
            rows = random_rows(held, fresh, 4, seen, rng)
            held = Samples.concat([held, fresh]).take(rows)
            seen += fresh.size
        times[held["number"]] += 1
    assert_counts(times, np.full(12, 1000.0))


def test_points_are_centred_and_directions_have_length_1():
    rng = np.random.default_rng(0)
    held = Samples(x=rng.standard_normal((20_000, 2, 3)) + 5)
    fresh = Samples(x=np.zeros((3, 2, 3)))
    both = np.concatenate([held["x"], fresh["x"]]).reshape(-1, 6)
    points = centred("x", held, fresh)
    expected = (both - both.mean(axis=0)) / np.abs(both).max()
    np.testing.assert_allclose(points, expected, atol=1e-6)
    lengths = np.linalg.norm(directions("x", held, fresh), axis=1)
    np.testing.assert_allclose(lengths, [1.0] * 20_000 + [0.0] * 3, atol=1e-6)
    np.testing.assert_allclose(
        directions("x", Samples(), Samples(x=[[3e300, 4e300], [3e-300, -4e-300]])),
        [[0.6, 0.8], [0.6, -0.8]],
        atol=1e-6,
    )


def test_regions_are_disjoint_and_full():
    points = cloud(1003, 4)
    parts = regions(points, np.arange(1003), 100)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1003))
    assert sorted(len(part) for part in parts) == [3] + [100] * 10
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"y": [1]}, SchemaError, "'embedding' is missing"),
        ({"embedding": [True, False], "y": [1]}, SchemaError, "length"),
        ({"embedding": [1 + 2j]}, SchemaError, "expected numbers"),
        ({"embedding": [1.0, np.inf]}, DomainError, "embedding"),
    ],
)
def test_bad_columns(columns, error, message):
    with pytest.raises(error, match=message):
        Memory(5, KCenterGreedy()).insert(columns)


def test_bad_settings():
    with pytest.raises(SettingError, match="missing is 'drop'"):
        KCenterGreedy(missing="drop")
