"""Columns of every kind, and what it means that columns or tables are the same."""

from __future__ import annotations

import numpy as np

KINDS = {
    "float": np.array([0.5, np.nan, -0.0]),
    "half": np.array([1, 2, 3], np.float16),
    "int": np.array([1, -2, 3]),
    "byte": np.array([255, 0, 1], np.uint8),
    "big-endian": np.array([1, 2, 3], ">i8"),
    "bool": np.array([True, False, True]),
    "complex": np.array([1j, 2, 3]),
    "string": np.array(["a", "längst", ""]),
    "bytes": np.array([b"a", b"bc", b""]),
    "datetime": np.array(["2024-01-01T10", "NaT", "1969-12-31T23"], "M8[ns]"),
    "duration": np.array([1, 2, 3], "m8[s]"),
    "matrix": np.arange(6.0).reshape(3, 2),
    "image": np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28),
    "words": np.array([["a", "b"], ["c", "dd"], ["", "e"]]),
    "structured": np.array([(1, 0.5, "a"), (2, 1.5, "b"), (3, 2.5, "c")], "i4,f8,U3"),
    "nothing": np.empty((3, 0)),
    "fortran": np.asfortranarray(np.arange(6).reshape(3, 2)),
    "strided": np.arange(12)[::4],
    "backwards": np.arange(3)[::-1],
}


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def assert_same_bytes(found, expected) -> None:
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert found[name].shape == expected[name].shape
        assert found[name].tobytes() == expected[name].tobytes()
