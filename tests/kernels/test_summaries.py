"""Summaries of batches against plain numpy on the joined samples."""

from __future__ import annotations

import numpy as np
import pytest

from memento._kernels import plain, summaries

rng = np.random.default_rng(0)
HELD, FRESH = 23, 31
OFFSETS = np.array([0, 7, 7, 30, 50])
ROWS = rng.permutation(HELD + FRESH)[:50]


@pytest.mark.parametrize("types", [("f8", "f8"), ("f4", "f8")])
@pytest.mark.parametrize("k", [1, 5, 21])
def test_mean_rows(types, k):
    a = (rng.random((HELD, k)) * 9).astype(types[0])
    b = (rng.random((FRESH, k)) * 9).astype(types[1])
    joined = np.concatenate([a, b]).astype(np.float64)
    expected = np.zeros((4, k))
    for i in (0, 2, 3):
        rows = ROWS[OFFSETS[i] : OFFSETS[i + 1]]
        expected[i] = joined[rows].mean(axis=0)
    out = np.full((4, k), np.nan)
    summaries.mean_rows(a, b, ROWS, OFFSETS, out)
    np.testing.assert_allclose(out, expected, rtol=1e-14)


@pytest.mark.parametrize("held", [0, HELD + FRESH])
def test_one_part_may_be_empty(held):
    joined = rng.random((HELD + FRESH, 3))
    out = np.empty((4, 3))
    summaries.mean_rows(joined[:held], joined[held:], ROWS, OFFSETS, out)
    np.testing.assert_allclose(out[0], joined[ROWS[:7]].mean(axis=0), rtol=1e-14)


@pytest.mark.parametrize("types", [("i8", "i8"), ("u1", "i8")])
def test_label_frequencies(types):
    a = rng.integers(0, 4, HELD).astype(types[0])
    b = rng.integers(0, 4, FRESH).astype(types[1])
    joined = np.concatenate([a, b]).astype(np.int64)
    expected = np.zeros((4, 5))
    for i in (0, 2, 3):
        for row in ROWS[OFFSETS[i] : OFFSETS[i + 1]]:
            expected[i, joined[row]] += 1
        expected[i] /= expected[i].sum()
    out = np.full((4, 5), np.nan)
    summaries.label_frequencies(a, b, ROWS, OFFSETS, out)
    np.testing.assert_allclose(out, expected, rtol=1e-14)


@pytest.mark.parametrize("n", [0, 1, 60])
def test_collapse_numbers_rows_by_first_appearance(n):
    distinct = np.concatenate([rng.random((40, 3)), [[0.0, 0.0, 0.0], [0.0, -0.0, 0.0]]])
    rows = distinct[rng.integers(0, len(distinct), n)]
    seen: dict[bytes, int] = {}
    expected = [seen.setdefault(row.tobytes(), len(seen)) for row in rows]
    groups, firsts = plain.collapse(rows)
    assert groups.tolist() == expected
    assert firsts.tolist() == [expected.index(g) for g in range(len(seen))]
