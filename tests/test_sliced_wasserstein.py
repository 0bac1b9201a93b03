"""The sliced Wasserstein distance against an oracle, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from memento import Memento, Memory, SlicedWasserstein, named_distances
from memento.distances import distance_from_settings
from memento.errors import DomainError, SchemaError, SettingError


def oracle(first, second, directions, seed):
    """By its definition, for batches of one size: matched in order on every line."""
    rng = np.random.default_rng(seed)
    lines = rng.normal(size=(directions, first.shape[1]))
    squares = []
    for line in lines:
        unit = line / np.sqrt(sum(value**2 for value in line))
        one = sorted(sum(u * v for u, v in zip(unit, row, strict=True)) for row in first)
        two = sorted(sum(u * v for u, v in zip(unit, row, strict=True)) for row in second)
        squares.append(sum((a - b) ** 2 for a, b in zip(one, two, strict=True)) / len(one))
    return np.sqrt(sum(squares) / directions)


def test_it_is_what_its_definition_says():
    batches = np.random.default_rng(1).normal(size=(5, 8, 3)) * [1.0, 2.0, 5.0]
    distance = SlicedWasserstein.of_vectors("z", directions=7, levels=8, seed=3)
    expected = [[oracle(a, b, 7, 3) for b in batches] for a in batches]
    np.testing.assert_allclose(distance.matrix(batches), expected, atol=1e-12)


def test_other_sizes_are_close():
    rng = np.random.default_rng(2)
    distance = SlicedWasserstein.of_vectors("z", levels=64)
    same = [rng.normal(size=(n, 4)) for n in (300, 500)]
    apart = [same[0], same[1] + 3.0]
    assert distance.matrix(same)[0, 1] < 0.25
    # A shift by a vector s is |s| / sqrt(d) on average over the sphere: here 3.
    assert distance.matrix(apart)[0, 1] == pytest.approx(3.0, rel=0.15)


def test_it_is_a_metric():
    batches = np.random.default_rng(3).normal(size=(12, 4, 5))
    found = SlicedWasserstein.of_vectors("z").matrix(batches)
    assert (np.diag(found) == 0).all()
    assert np.array_equal(found, found.T)
    assert (found[:, None] <= found[:, :, None] + found[None] + 1e-12).all()


def test_it_sees_what_means_do_not():
    rng = np.random.default_rng(4)
    ring = rng.normal(size=(64, 2))
    ring /= np.linalg.norm(ring, axis=1, keepdims=True)
    ring -= ring.mean(axis=0)
    assert SlicedWasserstein.of_vectors("z").matrix([ring, ring * 0])[0, 1] > 0.5


def test_settings_come_back():
    distance = SlicedWasserstein.of_vectors("z", 5, 4, 3)
    assert distance_from_settings(distance.settings()) == distance
    assert named_distances["sliced-wasserstein"] is type(distance)
    for given in ({"directions": 0}, {"levels": 0}, {"seed": -1}):
        with pytest.raises(SettingError):
            SlicedWasserstein.of_vectors("z", **given)


def test_a_memory_by_it(tmp_path):
    """Vectors far from all others are kept, and the memory is read back."""
    rng = np.random.default_rng(5)
    policy = Memento([SlicedWasserstein.of_vectors("z", 16, 4)], batch_size=4, bandwidth=2.0)
    memory = Memory(200, policy, seed=0)
    z = rng.normal(size=(2000, 3))
    z[990:1010] += 12.0
    memory.insert(z=z)
    assert (memory.samples["z"][:, 0] > 6).sum() >= 16  # a random memory holds 2
    memory.save(tmp_path / "m")
    assert Memory.load(tmp_path / "m").policy == policy
    with pytest.raises(SchemaError, match="one row of numbers"):
        Memory(200, policy).insert(z=[1.0, 2.0])
    with pytest.raises(DomainError, match="NaN or infinite"):
        memory.insert(z=[[1.0, 2.0, np.nan]])
