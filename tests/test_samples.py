"""Columns of any kind from any source, neither changed nor shared."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memento import Samples
from memento.errors import (
    ColumnTypeError,
    MissingExtraError,
    RowError,
    SchemaError,
    SettingError,
)
from same_samples import KINDS, assert_same_bytes, same


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


def test_structured_arrays_are_tables():
    rows = np.array([(1, 0.5), (2, 1.5)], dtype=[("y", "i4"), ("x", "f8")])
    samples = Samples(rows)
    assert samples["y"].tolist() == [1, 2]
    assert samples["x"].dtype == np.float64


# ------------------------------------------------------------------------------------------ errors


def test_a_column_given_twice():
    with pytest.raises(SchemaError, match="'y' is given twice"):
        Samples({"y": [1]}, y=[2])


def test_parts_that_do_not_match():
    with pytest.raises(SchemaError, match="parts have the columns"):
        Samples.concat([Samples(x=[1]), Samples(y=[1])])
    with pytest.raises(SchemaError, match="rows of the shapes"):
        Samples.concat([Samples(x=[1]), Samples(x=[[1]])])
    assert Samples.concat([]).size == 0


def test_parts_of_several_types():
    big = 2**53 + 1
    joined = Samples.concat([Samples(id=np.array([big])), Samples(id=np.array([1], np.uint64))])
    assert joined["id"].tolist() == [big, 1]
    joined = Samples.concat([Samples(id=[1]), Samples(id=np.array([2**63], np.uint64))])
    assert joined["id"].tolist() == [1, 2**63]
    joined = Samples.concat([Samples(id=[1, 2]), Samples(id=[0.5])])
    assert joined["id"].tolist() == [1, 2, 0.5]
    with pytest.raises(ColumnTypeError, match=f"'id' is int64 and float64.*{big}"):
        Samples.concat([Samples(id=np.array([big])), Samples(id=[0.5])])
    with pytest.raises(ColumnTypeError, match="'id' is int64 and <U1"):
        Samples.concat([Samples(id=[1]), Samples(id=["a"])])


def test_a_column_that_is_not_there():
    with pytest.raises(KeyError, match="no column 'z'; there are"):
        Samples(x=[1])["z"]
    with pytest.raises(IndexError):
        Samples(x=[1]).take([1])


@pytest.mark.parametrize(
    "rows",
    [[3], [-4], [0.5], [[0]], [True], None, 1, slice(0, 2), "a", [1, None], [[1], [2, 3]], [2**63]],
)
def test_rows_that_are_not_there(rows):
    with pytest.raises(RowError, match=r"of 3;|give"):
        Samples(x=[1, 2, 3]).take(rows)


def test_chunks_of_no_rows():
    with pytest.raises(SettingError, match="size is 0; expected a whole number above 0"):
        list(Samples(x=[1]).chunks(0))


# ----------------------------------------------------------------------------------------- ways out


def test_pandas_is_not_needed_otherwise(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"to_pandas\(\) needs .*pip install pandas"):
        Samples(y=[1]).to_pandas()


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
