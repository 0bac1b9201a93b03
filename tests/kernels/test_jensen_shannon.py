"""Fast sums against float64 oracles; the same on any number of threads, and in any order of use."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from memento._kernels import jensen_shannon as kernels

UNCOMPILED = numba.config.DISABLE_JIT
SIZE = 20 if UNCOMPILED else 700  # a little more than two tiles
SCALE = 50.0  # bandwidth 0.1


def dense(rng, n, k):
    rows = 1e-5 + rng.random((n, k))
    return rows / rows.sum(axis=1, keepdims=True)


def sparse(rng, n, k):
    rows = rng.random((n, k)) * (rng.random((n, k)) < 3 / k)
    rows[np.arange(n), rng.integers(0, k, n)] += 0.1
    return rows / rows.sum(axis=1, keepdims=True)


def one_hot(rng, n, k):
    return np.eye(k)[rng.integers(0, k, n)]


def alike(rng, n, k):
    rows = dense(rng, 1, k) * (1 + 0.01 * rng.random((n, k)))
    return rows / rows.sum(axis=1, keepdims=True)


def certain(rng, n, k):
    rows = 0.01 ** (1 + rng.random((n, k)) * 3) + np.eye(k)[rng.integers(0, k, n)]
    rows /= rows.sum(axis=1, keepdims=True)
    rows[rows < 1e-6] = 0.0
    return rows


def kernel_matrix(first, second, scale=SCALE):
    """Two divergences as they are defined; what is too small to count is zero already."""
    mixtures = (first[:, None] + second[None]) / 2
    square = np.zeros(mixtures.shape[:2])
    for rows in (first[:, None], second[None]):
        ratios = np.divide(rows, mixtures, out=np.ones_like(mixtures), where=rows > 0)
        square += (rows * np.log2(ratios)).sum(axis=2) / 2
    return np.exp(-scale * np.maximum(square, 0))


@pytest.mark.parametrize("make", [dense, sparse, one_hot, alike, certain])
@pytest.mark.parametrize("k", [1, 2, 5, 21, 128])
def test_sums_are_within_1e_4(make, k):
    rng = np.random.default_rng(k)
    if UNCOMPILED and k == 128:
        k = 7
    rows = make(rng, SIZE if k < 128 else 300, k)
    weights = rng.integers(1, 9, len(rows)).astype(float)
    expected = kernel_matrix(rows, rows) @ weights
    sums = kernels.kernel_sums(kernels.pack(rows), SCALE, weights)
    np.testing.assert_allclose(sums, expected, rtol=1e-4)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 255, 256, 257])
def test_sizes_around_a_tile(n):
    if UNCOMPILED and n > 9:
        n //= 12
    rows = dense(np.random.default_rng(n), n, 4)
    packed = kernels.pack(rows.astype(np.float32))
    expected = kernel_matrix(rows, rows)
    np.testing.assert_allclose(
        kernels.kernel_sums(packed, SCALE, np.ones(n)), expected.sum(axis=1), rtol=1e-4
    )
    row = np.full(n + 1, -7.0)
    kernels.kernel_row(packed, n // 2, SCALE, row[:n])
    np.testing.assert_allclose(row[:n], expected[n // 2], rtol=1e-3, atol=1e-9)
    assert row[n] == -7.0


def test_a_distribution_has_kernel_one_with_itself():
    rng = np.random.default_rng(0)
    rows = np.concatenate([dense(rng, 5, 21), sparse(rng, 5, 21), one_hot(rng, 5, 21)])
    packed = kernels.pack(rows)
    row = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        kernels.kernel_row(packed, i, SCALE, row)
        assert row[i] == 1.0


def test_densities_enter_with_their_quadrature():
    rng = np.random.default_rng(3)
    grid = np.linspace(0.0, 2.0, 9)
    width = np.full(9, 0.25)
    rows = dense(rng, 10, 9) / width
    exact = np.empty((10, 10))
    kernels.exact_matrix(rows, rows, width, exact)
    packed = kernels.pack(rows * width)
    row = np.empty(10)
    kernels.kernel_row(packed, 4, SCALE, row)
    np.testing.assert_allclose(row, np.exp(-SCALE * exact[4] ** 2), rtol=1e-3, atol=1e-9)
    assert len(grid) == packed.tiles.shape[1]


def test_cross_sums():
    rng = np.random.default_rng(1)
    first, second = dense(rng, SIZE // 2, 5), certain(rng, SIZE, 5)
    weights = rng.random(len(second))
    sums = kernels.cross_sums(kernels.pack(first), kernels.pack(second), SCALE, weights)
    np.testing.assert_allclose(sums, kernel_matrix(first, second) @ weights, rtol=1e-4)


def test_subtracting_everything_leaves_nothing():
    rng = np.random.default_rng(2)
    rows = dense(rng, SIZE, 5)
    weights = 1.0 + rng.random(SIZE)
    packed = kernels.pack(rows)
    sums = kernels.kernel_sums(packed, SCALE, weights)
    for i in range(SIZE):
        kernels.subtract_row(packed, i, SCALE, weights[i], sums)
    np.testing.assert_allclose(sums, 0.0, atol=1e-9)


def test_compact_is_packing_anew():
    rng = np.random.default_rng(4)
    rows = sparse(rng, SIZE, 7)
    keep = np.flatnonzero(rng.random(SIZE) < 0.6)
    new = kernels.pack(rows[keep])
    for made, expected in zip(kernels.compact(kernels.pack(rows), keep), new, strict=True):
        np.testing.assert_array_equal(made, expected)


def test_far_tiles_change_nothing_beyond_rounding():
    """In sorted order with many tiles, far ones are left out, and every way to the sums agrees."""
    rng = np.random.default_rng(5)
    n = kernels.TILE * (kernels.MANY + 1) + 3
    k = 4 if UNCOMPILED else 21
    rows = certain(rng, n, k) / 20 + np.eye(k)[np.sort(rng.integers(0, 3, n))]
    rows /= rows.sum(axis=1, keepdims=True)
    packed = kernels.pack(rows)
    nothing_left_out = packed._replace(radii=np.zeros(0))
    weights = rng.random(n) + 0.5
    sums = kernels.kernel_sums(packed, SCALE, weights)
    full = kernels.kernel_sums(nothing_left_out, SCALE, weights)
    bound = weights.sum() * 2.0**-32
    assert np.all(np.abs(sums - full) <= bound + 1e-12 * full)
    some = kernels.pack(rows[: kernels.TILE + 1])
    np.testing.assert_allclose(
        kernels.cross_sums(some, packed, SCALE, weights), full[: some.size], atol=bound, rtol=1e-12
    )
    row, expected = np.empty(n), np.empty(n)
    left_out = 0
    for i in range(0, n, n // 13):
        kernels.kernel_row(packed, i, SCALE, row)
        kernels.kernel_row(nothing_left_out, i, SCALE, expected)
        differs = row != expected
        assert np.all(row[differs] == 0.0)
        assert np.all(expected[differs] < 2.0**-32)
        left_out += differs.sum()
        kernels.subtract_row(packed, i, SCALE, 2.0, full)
        full += 2.0 * row
    assert left_out > n
    np.testing.assert_allclose(sums, full, atol=bound, rtol=1e-12)


@pytest.mark.compiled
def test_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(6)
    packed, weights = kernels.pack(dense(rng, 3000, 5)), rng.random(3000)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(numba, "get_num_threads", lambda threads=threads: threads)
        results.append(
            (
                kernels.kernel_sums(packed, SCALE, weights),
                kernels.cross_sums(packed, packed, SCALE, weights),
            )
        )
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 1.0, 1.0, 0.5])])
def test_exact_matrix(weights):
    rng = np.random.default_rng(7)
    first, second = dense(rng, 6, 5), certain(rng, 4, 5)
    second[0, 1] = 5e-7  # below what counts
    expected = np.zeros((6, 4))
    for i, p in enumerate(first):
        for j, q in enumerate(second):
            m = (p + q) / 2
            terms = [
                x * np.log2(x / m) if x >= 1e-6 and m >= 1e-6 else 0.0
                for x, m in [*zip(p, m, strict=True), *zip(q, m, strict=True)]
            ]
            w = np.ones(5) if weights is None else weights
            expected[i, j] = np.sqrt(max(0.0, np.dot(terms, [*w, *w]) / 2))
    out = np.empty((6, 4))
    kernels.exact_matrix(first, second, weights, out)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)
    square = np.empty((6, 6))
    kernels.exact_matrix(first, first, weights, square)
    both = np.empty((6, 6))
    kernels.exact_matrix(first, first.copy(), weights, both)
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_allclose(square, both, atol=1e-12)


def test_polynomials_keep_their_stated_errors():
    t = np.linspace(1.0, 2.0, 10_001)
    fit = sum(c * (t - 1.5) ** power for power, c in enumerate(kernels._LOG2))
    assert np.abs(fit - np.log2(t)).max() < 3e-7
    z = -np.linspace(0.0, 126.0, 500).astype(np.float32)
    powers = np.array([kernels.power_of_two(x) for x in z], np.float64)
    np.testing.assert_allclose(powers, 2.0 ** z.astype(np.float64), rtol=4e-7)
    assert kernels.power_of_two(np.float32(-1e9)) == 2.0**-126
