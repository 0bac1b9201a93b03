"""Order against numpy's lexsort, keys against comparison, largest entries against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento._kernels import sorting

widths = st.sampled_from([np.uint8, np.uint64])


@st.composite
def key_lists(draw):
    n = draw(st.integers(0, 30))
    keys = []
    for _ in range(draw(st.integers(0, 4))):
        width = draw(widths)
        largest = int(np.iinfo(width).max)
        few = draw(st.lists(st.integers(0, largest), min_size=1, max_size=4))
        keys.append(
            np.array(draw(st.lists(st.sampled_from(few), min_size=n, max_size=n)), dtype=width)
        )
    return n, keys


@given(key_lists(), st.integers(0, 15))
def test_order_is_lexsort(case, lazy):
    n, keys = case
    expected = np.lexsort(keys[::-1]) if keys else np.arange(n)
    given_keys = [
        (lambda rows, key=key: key[rows]) if lazy >> place & 1 else key
        for place, key in enumerate(keys)
    ]
    found = sorting.order(given_keys, n)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_refinement_needs_several_rounds():
    rng = np.random.default_rng(0)
    n = 300
    keys = [rng.integers(0, 2**63, 4).astype(np.uint64)[rng.integers(0, 4, n)] for _ in range(6)]
    np.testing.assert_array_equal(sorting.order(keys, n), np.lexsort(keys[::-1]))


def test_a_lazy_key_is_asked_about_tied_rows_only():
    asked = []

    def last(rows):
        asked.extend(rows.tolist())
        return np.array([9, 1, 5, 3, 7], np.uint64)[rows]

    first = np.array([2, 1, 2, 0, 1], np.uint8)
    np.testing.assert_array_equal(sorting.order([first, last], 5), [3, 1, 4, 2, 0])
    assert sorted(set(asked)) == [0, 1, 2, 4]


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.5, -0.0, 0.0, -np.inf, np.inf, 1e-310, -1e-310, -1.5, 3.0]),
        np.array([1.5, -0.0, 0.0, -np.inf, np.inf, 1e-40, -2.5], np.float32),
        np.array([0.5, -0.25, 3.0], np.float16),
        np.array([5, -3, 0, 127, -128], np.int8),
        np.array([5, -3, 0, 2**62, -(2**63)], np.int64),
        np.array([5, 0, 2**64 - 1], np.uint64),
        np.array([True, False, True]),
        np.array([3.0, -1.0, 2.0], ">f8"),
        np.arange(10.0)[::-2],
    ],
    ids=str,
)
def test_keys_compare_like_values(values):
    up, down = sorting.ascending(values), sorting.descending(values)
    for keys in (up, down):
        assert keys.dtype.kind == "u"
        assert keys.dtype.itemsize == values.dtype.itemsize
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            assert (up[i] < up[j]) == (a < b)
            assert (down[i] < down[j]) == (a > b)


def test_nan_is_last_both_ways():
    negative_nan = np.array([-1], np.int64).view(np.float64)[0]
    values = np.array([np.nan, np.inf, -np.inf, negative_nan, 1.0])
    assert np.argsort(sorting.ascending(values), kind="stable").tolist() == [2, 4, 1, 0, 3]
    assert np.argsort(sorting.descending(values), kind="stable").tolist() == [1, 4, 2, 0, 3]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (8, 5), (70, 3), (9, 21)])
def test_mode_and_value(dtype, shape):
    rng = np.random.default_rng(shape[0])
    rows = rng.integers(-3, 4, shape).astype(dtype)
    strided = [np.asfortranarray(rows), rows[::-1, ::-1]] if dtype == np.float64 else []
    for given_rows in [rows, *strided]:
        found = sorting.mode_and_value(given_rows)
        position = np.abs(given_rows).argmax(axis=1)
        np.testing.assert_array_equal(found.position, position)
        np.testing.assert_array_equal(found.value, given_rows[np.arange(shape[0]), position])
        assert found.minimum == given_rows.min()
        assert given_rows[found.minimum_row].min() == found.minimum
        deviation = np.abs(given_rows.sum(axis=1, dtype=np.float64) - 1)
        assert found.deviation == deviation.max()
        assert deviation[found.deviation_row] == found.deviation
        assert found.nonfinite_row == -1


def test_positions_beyond_a_byte():
    rows = np.zeros((2, 300))
    rows[0, 299] = -1.0
    found = sorting.mode_and_value(rows)
    assert found.position.tolist() == [299, 0]
    assert found.value.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found(bad):
    rows = np.full((75, 4), 0.25)
    rows[40, 2] = bad
    rows[70, 0] = bad
    assert sorting.mode_and_value(rows).nonfinite_row == 40
    assert sorting.mode_and_value(np.full((2, 3), 1e308)).nonfinite_row == -1
