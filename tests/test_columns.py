"""Columns of every library: what they hold arrives as it is, or is refused."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento import Samples
from memento.columns import as_column
from memento.errors import ColumnTypeError, InputError, MementoError, SchemaError

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
torch = pytest.importorskip("torch")

BIG = 2**53 + 1
ZONE = dt.timezone(dt.timedelta(hours=2))
NOON = dt.datetime(2024, 1, 1, 12, tzinfo=ZONE)  # 10 o'clock in UTC


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2**63], np.array([1, 2**63], np.uint64)),
        ([BIG, -1], np.array([BIG, -1])),
        ([1e300, 0.5, 3], np.array([1e300, 0.5, 3])),
        (pd.Series([BIG, 1], dtype=object), np.array([BIG, 1])),
        ([dt.date(2024, 1, 1)], np.array(["2024-01-01"], "M8[D]")),
        ([dt.timedelta(seconds=1)], np.array([1_000_000], "m8[us]")),
        ([dt.date(2024, 1, 1), NOON], np.array(["2024-01-01", "2024-01-01T10"], "M8[us]")),
        (np.ma.array([1.0, 2.0]), np.array([1.0, 2.0])),
        (pd.array([1, 2], "Int64"), np.array([1, 2])),
        (pd.Series(pd.arrays.SparseArray([0.0, np.nan])), np.array([0.0, np.nan])),
        (pd.Series([np.array([1, 2]), np.array([0.5, 3])]), np.array([[1, 2], [0.5, 3]])),
        (pl.Series(["a"], dtype=pl.Enum(["a"])), np.array(["a"])),
        (pl.Series([dt.date(2024, 1, 1), None]), np.array(["2024-01-01", "NaT"], "M8[D]")),
        (torch.ones(2, dtype=torch.bfloat16), np.ones(2, np.float32)),
        (torch.tensor([1 + 1j]).conj(), np.array([1 - 1j], np.complex64)),
        (torch.eye(2).to_sparse(), np.eye(2, dtype=np.float32)),
        ([torch.ones(2), torch.ones(2)], np.ones((2, 2), np.float32)),
        (np.array(["a", "bc"], np.dtypes.StringDType()), np.array(["a", "bc"])),
        (pa.array(["a", "b"], pa.string_view()), np.array(["a", "b"])),
        (pa.array([b"ab"], pa.binary(2)), np.array([b"ab"])),
        (pa.array([[1], [2]], pa.list_view(pa.int64())), np.array([[1], [2]])),
        (pa.array([[]] * 2, pa.list_(pa.int64(), 0)), np.empty((2, 0), int)),
        (pa.array([decimal.Decimal(15)]), np.array([15])),
        (pa.array([None], pa.timestamp("s")), np.array(["NaT"], "M8[s]")),
        (pa.array(["a", "bc", "a"]).dictionary_encode(), np.array(["a", "bc", "a"])),
        (
            pa.chunked_array([pa.array([word]).dictionary_encode() for word in "ab"]),
            np.array(["a", "b"]),
        ),
        (
            pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([1, 2])),
            np.array([1, 1, 2]),
        ),
        (
            pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8.0).reshape(2, 2, 2)),
            np.arange(8.0).reshape(2, 2, 2),
        ),
        (pa.chunked_array([], pa.int32()), np.empty(0, np.int32)),
        (pa.chunked_array([pa.array(["a"]), pa.array(["bcd"])]), np.array(["a", "bcd"])),
    ],
)  # fmt: skip
def test_kept_as_they_are(values, expected):
    found = as_column("x", values)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([BIG, 0.5], "mixes fractions with integers above"),
        ([[BIG, 1], [0.5, 2]], "mixes fractions with integers above"),
        ([BIG, 1j], "mixes fractions with integers above"),
        (pd.Series([BIG, 0.5], dtype=object), "mixes fractions with integers above"),
        (pd.Series([np.array([BIG]), np.array([0.5])]), "no type keeps all values"),
        ([-1, 2**63], "integers beyond 64 bits"),
        ([np.int64(-1), np.uint64(2**63)], "integers beyond 64 bits"),
        ([2**70], "integers beyond 64 bits"),
        (pl.Series([2**70], dtype=pl.Int128), "cannot be read"),
        ([1, "a"], r"Python objects \(int, str\)"),
        (["a", b"a"], r"Python objects \(bytes, str\)"),
        ([True, "a"], r"Python objects \(bool, str\)"),
        ([np.timedelta64(1, "s"), 5], "Python objects"),
        ([dt.time(1)], "Python objects"),
        ([decimal.Decimal("1.1")], "Python objects"),
        (["a\0"], "zero byte"),
        ([b"a\0"], "zero byte"),
        (pa.array([b"a\0"]), "zero byte"),
        (pl.Series([b"a\0"]), "zero byte"),
        ([np.datetime64("3000", "D"), np.datetime64(1, "ns")], "no type keeps all values"),
        (np.zeros(2, [("a", object)]), "cannot be stored"),
        (torch.ones(2, device="meta"), "'x' .Tensor. cannot be read"),
        (pd.Series(pd.period_range("2024", periods=2, freq="D")), "Period"),
        (pa.array([{"a": 1}]), "make each of its fields a column"),
        (pa.array([decimal.Decimal("1.5")]), "decimal128"),
        (pa.array([dt.time(1)]), "time64"),
        (pa.array([b"0123456789abcdef"], pa.uuid()), "uuid"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "map<"),
        (pa.scalar(1), "Python objects"),
        ((i for i in range(3)), "Python objects"),
    ],
)
def test_refused_by_their_type(values, message):
    with pytest.raises(ColumnTypeError, match=message) as caught:
        as_column("x", values)
    assert "'x'" in str(caught.value)
    assert caught.value.column == "x"


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        (np.ma.array([1.0, 999.0], mask=[0, 1]), 1),
        (np.ma.array([(1, 2.0), (3, 4.0)], mask=[(1, 1), (0, 1)], dtype="i4,f8"), 3),
        ([np.ma.array([1.0, 2.0], mask=[0, 1]), np.ma.array([1.0, 2.0])], 1),
        (pd.Series([np.ma.array([1, 2], mask=[1, 1]), np.ma.array([1, 2])]), 2),
        ([1.0, np.ma.masked], 1),
        ([1, None], 1),
        (pd.Series(["a", np.nan, None], dtype=object), 2),
        (pd.Series([1, None], dtype="Int64"), 1),
        (pd.Series(["a", None]).astype("category"), 1),
        (pl.Series([None, None]), 2),
        (pa.nulls(3), 3),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])), 1),
        (np.array(["a", None], np.dtypes.StringDType(na_object=None)), 1),
    ],
)
def test_refused_as_missing(values, missing):
    with pytest.raises(SchemaError, match=f"'x' has {missing} missing values of"):
        as_column("x", values)


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([[1, None]]),
        pl.Series([[1, None]], dtype=pl.Array(pl.Int64, 2)),
        pa.array([[1, None]]),
    ],
)  # fmt: skip
def test_missing_inside_of_lists(values):
    with pytest.raises(SchemaError, match="'x' has missing values in its lists"):
        as_column("x", values)


def test_times_with_a_zone_are_instants_in_utc_whatever_library():
    frame = pd.DataFrame({"t": [pd.Timestamp(NOON)]})
    sources = [
        frame["t"],
        frame["t"].astype(object),
        frame["t"].astype("category"),
        pd.DatetimeIndex(frame["t"]),
        pa.Table.from_pandas(frame)["t"],
        pl.from_pandas(frame)["t"],
        frame["t"].convert_dtypes(dtype_backend="pyarrow"),
        [NOON],
    ]
    for source in sources:
        found = as_column("t", source)
        assert found.dtype.kind == "M"
        assert found.astype("M8[s]").tolist() == [dt.datetime(2024, 1, 1, 10)]


def test_long_texts_are_not_padded_without_end():
    longest = "word" * 50_000
    for values in (["a"] * 10_000 + [longest], pa.array(["a"] * 10_000 + [longest])):
        with pytest.raises(ColumnTypeError, match=r"200,000 characters.*10,001 .*8\.0 GB"):
            as_column("x", values)
    codes = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000), pa.array([longest]))
    with pytest.raises(ColumnTypeError, match="200,000 characters"):
        as_column("x", codes)


def test_types_of_other_packages():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(ColumnTypeError, match="type bfloat16, which cannot be stored"):
        as_column("x", np.array([1.5], ml_dtypes.bfloat16))
    with pytest.raises(ColumnTypeError, match="cannot be stored"):
        as_column("x", np.zeros(2, [("a", ml_dtypes.bfloat16)]))


class Broken:
    """An array-like whose library raises what it likes."""

    dtype = "any"
    shape = (2,)

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("out of order\nsecond line")


def test_what_other_libraries_raise_is_said_with_the_column():
    with pytest.raises(ColumnTypeError, match=r"'x' \(Broken\) cannot be read: out of order; conv"):
        Samples(x=Broken())


PYTHON = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(max_size=3),
    st.binary(max_size=3), st.dates(), st.datetimes(), st.timedeltas(), st.decimals(),
)  # fmt: skip


@given(st.lists(st.one_of(PYTHON, st.lists(PYTHON, max_size=2)), max_size=4))
def test_any_list_is_kept_exactly_or_refused(values):
    try:
        found = as_column("x", values)
    except MementoError as error:
        found = error
    if isinstance(found, MementoError):
        assert isinstance(found, InputError)
        assert "'x'" in str(found)
        return
    assert len(found) == len(values)
    for value, kept in zip(values, found.tolist(), strict=True):
        if isinstance(value, list | dt.timedelta | dt.date):  # numpy gives other objects back
            continue
        assert value == kept or (value != value and kept != kept)
        assert isinstance(kept, str) == isinstance(value, str)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None], [1.0, np.nan]),
        ([None, None], [np.nan, np.nan]),
        (["a", None], ["a", ""]),
        ([[1, None], [2, 3]], [[1, np.nan], [2, 3]]),
        (pd.Series([1, None], dtype="Int64"), [1.0, np.nan]),
        (pd.Series(["a", None]), ["a", ""]),
        (pd.Series([1, None], dtype=pd.ArrowDtype(pa.int64())), [1.0, np.nan]),
        (pl.Series([1, None]), [1.0, np.nan]),
        (pl.Series(["a", None]), ["a", ""]),
        (pl.Series([None, None]), [np.nan, np.nan]),
        (pa.array([1, None], pa.int8()), [1.0, np.nan]),
        (pa.array(["a", None]).dictionary_encode(), ["a", ""]),
        (pa.chunked_array([[True], [None]], pa.bool_()), [1.0, np.nan]),
        (pa.nulls(2), [np.nan, np.nan]),
        (np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]]), [[1, np.nan], [3, 4]]),
        (np.ma.array([1.5, 999], np.float32, mask=[0, 1]), np.array([1.5, np.nan], np.float32)),
        ([np.ma.array([1.0, 2.0], mask=[0, 1]), np.ma.array([1.0, 2.0])], [[1, np.nan], [1, 2]]),
        ([dt.date(2024, 1, 1), None], np.array(["2024-01-01", "NaT"], "M8[D]")),
    ],
)
def test_marked_as_missing(values, expected):
    found = as_column("x", values, mark=True)
    expected = np.asarray(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([BIG, None], f"no mark for them that keeps the others .such as {BIG}"),
        (pa.array([BIG, None]), f"no mark for them that keeps the others .such as {BIG}"),
        ([1, "a", None], "Python objects"),
        (pa.array([[1], None]), "missing values"),
        (pa.array([[1, None]]), "missing values in its lists"),
        ([[1, 2], None], "ragged"),
    ],
)
def test_no_mark(values, message):
    with pytest.raises(SchemaError, match=message):
        as_column("x", values, mark=True)
