"""Small inputs in numpy come out as from the compiled kernels of the same name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento import _kernels
from memento._kernels import drawing, jensen_shannon, moving, plain, sorting, summaries

SEEDS = st.integers(0, 2**32 - 1)


def special(rng, shape, dtype):
    """Numbers with ties, zeros of both signs, and where there are, infinities."""
    if np.dtype(dtype).kind == "f":
        values = rng.normal(size=shape).round(1).astype(dtype)
        return np.where(rng.random(shape) < 0.1, rng.choice([0.0, -0.0, np.inf, -np.inf]), values)
    return rng.integers(0, 3, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u8", "?", "M8[s]"])
def test_keys(dtype):
    rng = np.random.default_rng(0)
    values = special(rng, 200, dtype)
    if values.dtype.kind == "f":
        values[::17] = np.nan
    for name in ("ascending", "descending"):
        expected = getattr(sorting, name)(values)
        found = getattr(plain, name)(values)
        np.testing.assert_array_equal(found, expected, strict=True)


@given(seed=SEEDS, n=st.integers(0, 60), kinds=st.lists(st.booleans(), max_size=4))
def test_order(seed, n, kinds):
    rng = np.random.default_rng(seed)
    keys = []
    for lazy in kinds:
        column = rng.integers(0, 3, n).astype(rng.choice(["u1", "u4", "u8"]))
        keys.append((lambda rows, column=column: column[rows]) if lazy else column)
    expected = sorting.order(keys, n)
    np.testing.assert_array_equal(plain.order(keys, n), expected, strict=True)


def test_lazy_keys_are_asked_for_tied_rows_only():
    asked = []

    def key(rows):
        asked.append(sorted(rows.tolist()))
        return rows.astype(np.uint64)[::1]

    found = plain.order([np.array([1, 0, 1, 2], np.uint8), key], 4)
    assert found.tolist() == [1, 0, 2, 3]
    assert asked == [[0, 2]]


@given(
    seed=SEEDS,
    n=st.integers(1, 70),
    k=st.integers(1, 9),
    dtype=st.sampled_from(["f2", "f4", "f8", "i2", "u1"]),
    broken=st.sampled_from([None, np.nan, np.inf, -np.inf]),
)
def test_mode_and_value(seed, n, k, dtype, broken):
    rng = np.random.default_rng(seed)
    rows = special(rng, (n, k), dtype)
    if np.dtype(dtype).kind == "f":
        rows[~np.isfinite(rows)] = 0.0
        if broken is not None:
            rows[rng.random((n, k)) < 0.1] = broken
    expected, found = sorting.mode_and_value(rows), plain.mode_and_value(rows)
    np.testing.assert_array_equal(found.position, expected.position, strict=True)
    np.testing.assert_array_equal(found.value, expected.value, strict=True)
    assert found.nonfinite_row == expected.nonfinite_row
    if expected.nonfinite_row < 0:
        assert found.minimum == expected.minimum
        assert found.minimum_row == expected.minimum_row
        assert found.deviation == pytest.approx(expected.deviation, rel=1e-2, abs=1e-5)


@given(seed=SEEDS, dtype=st.sampled_from(["f4", "f8"]))
def test_summaries(seed, dtype):
    rng = np.random.default_rng(seed)
    a, b = rng.random((30, 4)).astype(dtype), rng.random((11, 4)).astype(dtype)
    y, z = rng.integers(0, 5, 30), rng.integers(0, 5, 11)
    rows = rng.permutation(41)[: rng.integers(1, 42)]
    cuts = np.sort(rng.integers(0, len(rows) + 1, 5))  # some are empty
    offsets = np.concatenate([[0], cuts, [len(rows)]]).astype(np.int64)
    for name, halves, width in (("mean_rows", (a, b), 4), ("label_frequencies", (y, z), 5)):
        expected, found = np.full((2, 6, width), np.nan)
        getattr(summaries, name)(*halves, rows, offsets, expected)
        getattr(plain, name)(*halves, rows, offsets, found)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@given(seed=SEEDS, n=st.integers(1, 9), m=st.integers(1, 9), weighted=st.booleans())
def test_exact_matrix(seed, n, m, weighted):
    rng = np.random.default_rng(seed)
    first = rng.dirichlet(np.full(6, 0.2), n)
    second = rng.dirichlet(np.full(6, 0.2), m)
    second[: m // 2] = first[rng.integers(0, n, m // 2)] * (1 + 1e-9 * rng.random((m // 2, 6)))
    second[rng.random(second.shape) < 0.1] = 9e-7
    weights = rng.random(6) if weighted else None
    for pair in ((first, second), (first, first)):
        expected, found = np.empty((2, n, len(pair[1])))
        jensen_shannon.exact_matrix(*pair, weights, expected)
        plain.exact_matrix(*pair, weights, found)
        np.testing.assert_allclose(found, expected, atol=3e-8)
        far = expected > 1e-6
        np.testing.assert_allclose(found[far], expected[far], atol=1e-12)
    assert (np.diag(found) == 0).all()


@given(
    seed=SEEDS,
    n=st.integers(2, 40),
    temperature=st.sampled_from([0.0, 0.01, np.inf]),
    grouped=st.booleans(),
)
def test_discard(seed, n, temperature, grouped):
    rng = np.random.default_rng(seed)
    points = rng.random((n // 2 + 1 if grouped else n, 2))
    group = rng.permutation(np.arange(n) % len(points)).astype(np.int32) if grouped else None
    kernels = [np.exp(-9 * (points[:, d, None] - points[:, d]) ** 2) for d in (0, 1)]
    counts = np.ones(n) if group is None else np.bincount(group, minlength=len(points))
    sums = [kernel @ counts for kernel in kernels]
    sizes, us = rng.integers(1, 4, n), rng.random(n)
    results = [
        module.discard(
            kernels, [s.copy() for s in sums], [group] * 2, 1.0, temperature, us, sizes, n // 2
        )
        for module in (plain, drawing)
    ]
    np.testing.assert_array_equal(*results, strict=True)


@pytest.mark.parametrize("dtype", ["f4", "M8[s]", "U3", "?"])
def test_moving(dtype):
    rng = np.random.default_rng(0)
    source = rng.integers(0, 2, (9, 2)).astype(dtype)
    rows = np.array([1, 2, 5, 8])
    for module in (moving, plain):
        target, column = np.zeros((6, 2), dtype), source.copy()
        moved = np.zeros(1, np.uint8)
        module.move_rows(source, rows, target, 1)
        np.testing.assert_array_equal(target[1:5], source[rows])
        module.shift_rows(column, rows, moved)
        np.testing.assert_array_equal(column[:4], source[rows])
        assert moved[0] == 1
        module.gather_rows(source[:4], source[4:], rows, target[:4])
        np.testing.assert_array_equal(target[:4], source[rows])


@pytest.mark.compiled
def test_size_alone_decides():
    assert _kernels.fitting("sorting", _kernels.SMALL_ROWS) is plain
    assert _kernels.fitting("sorting", _kernels.SMALL_ROWS + 1) is sorting
    assert _kernels.fitting("drawing", 3, 2) is drawing


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["Memento", "DensityReservoir"])
@pytest.mark.parametrize(
    "column", ["of_labels('y', 21)", "of_probabilities('yhat')", "of_values('v')"]
)
def test_small_inserts_load_no_compiler(policy, column):
    """10,000 rows into a memory that discards: the first insert of a job is as fast as any."""
    script = f"""
import sys, numpy as np
from memento import DensityReservoir, JensenShannon, Memento, Memory
rng, n = np.random.default_rng(0), 10_000
day = {{"x": rng.normal(size=(n, 30)), "y": rng.integers(0, 21, n), "v": rng.normal(size=n),
       "yhat": rng.dirichlet(np.ones(21), n)}}
memory = Memory(5_000, {policy}([JensenShannon.{column}]))
memory.insert(day)
memory.insert(day)
assert 0 < len(memory) <= 5_000
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
