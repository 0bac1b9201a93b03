"""Columns of any kind from any source, neither changed nor shared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memento import Samples
from memento.errors import SchemaError

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


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_every_kind(kind):
    original = KINDS[kind].copy()
    samples = Samples({kind: original})
    same(samples[kind], original)
    assert samples.size == 3
    same(samples.take([2, 0])[kind], original[[2, 0]])
    same(samples.take(np.array([True, False, True]))[kind], original[[0, 2]])
    same(samples.rows(1, 3)[kind], original[1:3])
    joined = Samples.concat([samples, samples.take([1])])[kind]  # in native byte order
    same(joined, original[[0, 1, 2, 1]].astype(joined.dtype))
    assert not np.shares_memory(samples[kind], original)
    assert original.flags.writeable


def test_all_at_once():
    samples = Samples(KINDS)
    assert (len(samples), samples.size) == (len(KINDS), 3)
    assert list(samples) == list(KINDS)
    assert samples.nbytes == sum(array.nbytes for array in KINDS.values())
    assert "image: uint8[28, 28]" in repr(samples)


def test_neither_side_reaches_the_other():
    mine = np.arange(3)
    samples = Samples(y=mine)
    mine[0] = 9
    assert samples["y"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        samples["y"][0] = 5
    with pytest.raises(TypeError):
        samples["y"] = mine


def test_borrowing_copies_nothing_and_changes_nothing():
    mine = np.arange(3)
    samples = Samples.borrow(y=mine)
    assert np.shares_memory(samples["y"], mine)
    assert mine.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        samples["y"][0] = 5


# ---------------------------------------------------------------------------------------- sources

PLAIN = {
    "x": np.array([0.5, 1.5, 2.5]),
    "y": np.array([1, 0, 2]),
    "flag": np.array([True, False, True]),
    "name": np.array(["a", "bcd", ""]),
    "time": np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "M8[ns]"),
}


SOURCES = {
    "dict": lambda: dict(PLAIN),
    "samples": lambda: Samples(PLAIN),
    "pandas": lambda: pd.DataFrame(PLAIN),
    "pandas, arrow types": lambda: pd.DataFrame(PLAIN).convert_dtypes(dtype_backend="pyarrow"),
    "pandas, nullable types": lambda: pd.DataFrame(PLAIN).convert_dtypes(),
    "pandas, other index": lambda: pd.DataFrame(PLAIN, index=[5, 3, 1]),
    "pandas, categories": lambda: pd.DataFrame(PLAIN).astype({"name": "category"}),
    "polars": lambda: pl.DataFrame(PLAIN),
    "polars, categories": lambda: pl.DataFrame(PLAIN).with_columns(
        pl.col("name").cast(pl.Categorical)
    ),
    "polars, chunks": lambda: pl.concat(
        [pl.DataFrame(PLAIN)[:2], pl.DataFrame(PLAIN)[2:]], rechunk=False
    ),
    "arrow": lambda: pa.table(PLAIN),
    "arrow, chunks": lambda: pa.concat_tables([pa.table(PLAIN)[:1], pa.table(PLAIN)[1:]]),
    "arrow, slice": lambda: pa.concat_tables([pa.table(PLAIN), pa.table(PLAIN)]).slice(3, 3),
    "arrow, batch": lambda: pa.table(PLAIN).to_batches()[0],
    "arrow, dictionary": lambda: pa.table(
        {**PLAIN, "name": pa.array(PLAIN["name"]).dictionary_encode()}
    ),
    "series": lambda: {name: pd.Series(values) for name, values in PLAIN.items()},
    "polars series": lambda: {name: pl.Series(values) for name, values in PLAIN.items()},
    "arrow arrays": lambda: {name: pa.array(values) for name, values in PLAIN.items()},
    "chunked arrays": lambda: {name: pa.chunked_array([values]) for name, values in PLAIN.items()},
    "lists": lambda: {n: v.tolist() if n != "time" else v for n, v in PLAIN.items()},
    "objects": lambda: {**PLAIN, "name": PLAIN["name"].astype(object)},
    "tensors": lambda: {
        **PLAIN,
        **{n: torch.from_numpy(PLAIN[n].copy()) for n in ("x", "y", "flag")},
    },
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same(source):
    samples = Samples(SOURCES[source]())
    assert list(samples) == list(PLAIN)
    for name, expected in PLAIN.items():
        found = samples[name]
        assert found.dtype.kind == expected.dtype.kind, name
        np.testing.assert_array_equal(found, expected)


def test_structured_arrays_are_tables():
    rows = np.array([(1, 0.5), (2, 1.5)], dtype=[("y", "i4"), ("x", "f8")])
    samples = Samples(rows)
    assert samples["y"].tolist() == [1, 2]
    assert samples["x"].dtype == np.float64


def test_keywords_add_to_a_table():
    samples = Samples(pd.DataFrame({"y": [1, 2]}), x=np.zeros((2, 3)))
    assert samples["x"].shape == (2, 3)


def test_arrow_lists_are_axes():
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    for kind in (
        pa.list_(pa.float64()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float64(), 2),
    ):
        samples = Samples(x=pa.chunked_array([pa.array(rows[:1], kind), pa.array(rows[1:], kind)]))
        np.testing.assert_array_equal(samples["x"], rows)
    images = np.arange(12.0).reshape(3, 2, 2)
    nested = pa.array(images.tolist(), pa.list_(pa.list_(pa.float64())))
    np.testing.assert_array_equal(Samples(x=nested)["x"], images)
    sliced = pa.array(rows, pa.list_(pa.float64(), 2)).slice(1, 2)
    np.testing.assert_array_equal(Samples(x=sliced)["x"], rows[1:])


def test_lists_of_rows_are_axes():
    expected = [[1.0, 2.0], [3.0, 4.0]]
    np.testing.assert_array_equal(Samples(x=expected)["x"], expected)
    np.testing.assert_array_equal(Samples(x=pd.Series(expected))["x"], expected)
    np.testing.assert_array_equal(Samples(x=pl.Series(expected))["x"], expected)
    arrays = np.empty(2, object)
    arrays[:] = [np.array([1.0, 2.0]), np.array([3.0, 4.0])]
    np.testing.assert_array_equal(Samples(x=arrays)["x"], expected)


def test_tensors_with_gradients():
    samples = Samples(x=torch.ones(2, 3, requires_grad=True))
    assert samples["x"].dtype == np.float32
    assert samples["x"].shape == (2, 3)


def test_empty_tables():
    for source in (pd.DataFrame(PLAIN)[:0], pl.DataFrame(PLAIN)[:0], pa.table(PLAIN)[:0]):
        samples = Samples(source)
        assert samples.size == 0
        assert samples["x"].dtype == np.float64
    assert Samples().size == 0
    assert Samples(y=[]).size == 0


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": [1, 2], "y": [1]}, r"differ in length \(x: 2, y: 1\)"),
        ({"x": [[1, 2], [3]]}, "'x' is ragged"),
        ({"x": pd.Series([[1, 2], [3]])}, "'x' is ragged"),
        ({"x": pl.Series([[1, 2], [3]])}, "'x' is ragged"),
        ({"x": pa.array([[1, 2], [3]])}, "'x' is ragged: lists of 1 to 2"),
        ({"x": pa.array([1, None])}, "'x' has 1 missing values of 2"),
        ({"x": pa.array([[1, None]])}, "'x' has missing values in its lists"),
        ({"x": pa.array([[1], None])}, "'x' has 1 missing"),
        ({"x": pl.Series([[1], None])}, "'x' has 1 missing"),
        ({"x": pl.Series([1.0, None, None])}, "'x' has 2 missing"),
        (pl.DataFrame({"x": ["a", None]}), "'x' has 1 missing"),
        (pd.DataFrame({"x": ["a", None]}), "'x' (has 1 missing|holds Python objects)"),
        (pd.DataFrame({"x": pd.array([1, None], "Int64")}), "'x' has 1 missing"),
        ({"x": [1, "a", None]}, "'x' holds Python objects"),
        ({"x": [object()]}, r"'x' holds Python objects \(object\)"),
        ({"x": [{"a": 1}]}, "'x' holds Python objects"),
        ({"x": 3.0}, "'x' is a single value"),
        ({"x": "text"}, "'x' is a single value"),
        ({1: [1]}, "called 1"),
        ({"": [1]}, "non-empty strings"),
        ([1, 2, 3], "cannot read columns from list"),
        (np.zeros(3), "cannot read columns from ndarray"),
        ("file.csv", "cannot read columns from str"),
    ],
)
def test_what_cannot_be_samples(data, message):
    with pytest.raises(SchemaError, match=message):
        Samples(data)


def test_a_column_given_twice():
    with pytest.raises(SchemaError, match="'y' is given twice"):
        Samples({"y": [1]}, y=[2])


def test_parts_that_do_not_match():
    with pytest.raises(SchemaError, match="parts have the columns"):
        Samples.concat([Samples(x=[1]), Samples(y=[1])])
    with pytest.raises(SchemaError, match="rows of the shapes"):
        Samples.concat([Samples(x=[1]), Samples(x=[[1]])])
    assert Samples.concat([]).size == 0


def test_a_column_that_is_not_there():
    with pytest.raises(KeyError, match="no column 'z'; there are"):
        Samples(x=[1])["z"]
    with pytest.raises(IndexError):
        Samples(x=[1]).take([1])


# -------------------------------------------------------------------------------------- round trips

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="="),
    hnp.unsigned_integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="="),
    hnp.complex_number_dtypes(endianness="="),
    hnp.datetime64_dtypes(endianness="="),
    hnp.timedelta64_dtypes(endianness="="),
    hnp.unicode_string_dtypes(endianness="=", max_len=5),
    hnp.byte_string_dtypes(max_len=5),
)


@st.composite
def tables(draw):
    size = draw(st.integers(0, 12))
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
    shapes = st.lists(st.integers(0, 3), max_size=2).map(lambda tail: (size, *tail))
    return {name: draw(hnp.arrays(draw(DTYPES), draw(shapes))) for name in names}


def assert_same_bytes(found, expected) -> None:
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert found[name].shape == expected[name].shape
        assert found[name].tobytes() == expected[name].tobytes()


@given(tables())
def test_any_table_is_kept_bit_for_bit(table):
    samples = Samples(table)
    assert_same_bytes(samples, table)
    assert_same_bytes(Samples(samples), table)
    assert_same_bytes(samples.with_columns(samples), table)
    assert_same_bytes(samples.select(list(table)), table)
    assert len(samples.without(*table)) == 0


@given(tables(), st.integers(1, 5))
def test_chunks_put_together_are_the_whole(table, size):
    samples = Samples(table)
    chunks = list(samples.chunks(size))
    assert sum(chunk.size for chunk in chunks) == samples.size
    assert all(chunk.size == size for chunk in chunks[:-1])
    if chunks:
        assert_same_bytes(Samples.concat(chunks), table)


@given(tables(), st.data())
def test_taking_is_what_numpy_does(table, data):
    samples = Samples(table)
    rows = data.draw(st.lists(st.integers(0, max(0, samples.size - 1)), max_size=15))
    rows = rows if samples.size else []
    taken = samples.take(rows)
    assert_same_bytes(taken, {n: a[np.array(rows, dtype=int)] for n, a in table.items()})


@given(
    hnp.arrays(st.sampled_from([np.int64, np.float64, np.float32, np.uint8]), st.integers(0, 20))
)
def test_through_every_library_and_back(column):
    for source in (
        pd.DataFrame({"c": column}),
        pl.DataFrame({"c": column}),
        pa.table({"c": column}),
        {"c": torch.from_numpy(column.copy())},
    ):
        assert_same_bytes(Samples(source), {"c": column})
