"""Cells, landmarks and what they leave unexplained, against whole matrices."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from memento._kernels import jensen_shannon as kernels
from memento._kernels import landmarks

SIZE = 60 if numba.config.DISABLE_JIT else 900
SCALE, RADIUS = 50.0, 1.0


def case(size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    place = np.sort(rng.random(size))[:, None]
    rows = np.exp(-0.5 * ((place * 5 - np.arange(6)) / (0.6 + 0.2 * rng.random((size, 1)))) ** 2)
    rows /= rows.sum(axis=1, keepdims=True)
    packed = kernels.pack(rows)
    matrix = np.empty((size, size))
    for i, row in enumerate(matrix):
        kernels.kernel_row(packed, i, SCALE, row)
    return packed, matrix


def found(packed, limit=0.01):
    groups = landmarks.cells(packed, SCALE, RADIUS, packed.size)
    return groups, landmarks.skeleton(packed, SCALE, groups, limit, packed.size)


def test_every_member_is_near_to_the_first_of_its_cell():
    packed, matrix = case()
    groups = landmarks.cells(packed, SCALE, RADIUS, packed.size)
    numbers, firsts = np.unique(groups, return_index=True)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert 2 < len(numbers) < SIZE / 2
    nearest = np.exp(-0.5 * RADIUS**2)
    assert (matrix[np.arange(SIZE), firsts[groups]] > nearest - 1e-4).all()
    between = matrix[np.ix_(firsts, firsts)][~np.eye(len(firsts), dtype=bool)]
    assert between.max() < nearest + 1e-4


def test_factors_and_residuals_are_those_of_the_matrices_of_cells():
    packed, matrix = case()
    groups, skeleton = found(packed)
    assert skeleton.residuals.max() <= 0.01
    for g in range(groups.max() + 1):
        start, stop = skeleton.starts[g : g + 2]
        rows = skeleton.order[start:stop]
        assert (groups[rows] == g).all()
        own = skeleton.factors[skeleton.offsets[g] : skeleton.offsets[g + 1]]
        own = own.reshape(-1, len(rows)).astype(float)
        left = matrix[np.ix_(rows, rows)] - own.T @ own
        np.testing.assert_allclose(np.diag(left), skeleton.residuals[start:stop], atol=1e-4)
        places = skeleton.pivots[skeleton.firsts[g] : skeleton.firsts[g + 1]] - start
        np.testing.assert_allclose(left[places], 0, atol=1e-3)


def test_weights_of_landmarks_and_values_everywhere():
    packed, matrix = case()
    groups, skeleton = found(packed)
    weights = np.random.default_rng(1).random(SIZE)
    rows = skeleton.order[skeleton.pivots]
    interpolation = np.zeros((SIZE, len(rows)))
    for g in range(groups.max() + 1):
        members = np.flatnonzero(groups == g)
        own = np.arange(skeleton.firsts[g], skeleton.firsts[g + 1])
        between = matrix[np.ix_(rows[own], rows[own])]
        share = np.linalg.solve(between, matrix[np.ix_(rows[own], members)]).T
        interpolation[np.ix_(members, own)] = share
    collected = landmarks.collect(skeleton, weights)
    np.testing.assert_allclose(collected, weights @ interpolation, rtol=2e-2, atol=2e-2)
    values = np.cos(np.arange(len(rows)))
    given = values.copy()
    spread = landmarks.spread(skeleton, values)
    np.testing.assert_array_equal(values, given)
    np.testing.assert_allclose(spread, interpolation @ values, rtol=2e-2, atol=2e-2)


def test_too_many_cells_or_landmarks():
    packed, _ = case()
    groups = landmarks.cells(packed, SCALE, RADIUS, packed.size)
    count = groups.max() + 1
    assert landmarks.cells(packed, SCALE, RADIUS, int(count)) is not None
    assert landmarks.cells(packed, SCALE, RADIUS, int(count) - 1) is None
    needed = len(landmarks.skeleton(packed, SCALE, groups, 0.01, SIZE).pivots)
    assert landmarks.skeleton(packed, SCALE, groups, 0.01, needed) is not None
    assert landmarks.skeleton(packed, SCALE, groups, 0.01, needed - 1) is None


@pytest.mark.parametrize("size", [1, 2, 9])
def test_few_and_equal(size):
    rows = np.full((size, 6), 1 / 6)
    groups, skeleton = found(kernels.pack(rows))
    np.testing.assert_array_equal(groups, 0)
    assert len(skeleton.pivots) == 1
    np.testing.assert_allclose(landmarks.collect(skeleton, np.ones(size)), size, rtol=1e-6)
