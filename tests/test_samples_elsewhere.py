"""Samples from other libraries and back to them, whatever these hold."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memento import Samples
from memento.errors import MissingExtraError, SchemaError
from same_samples import KINDS, assert_same_bytes

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
torch = pytest.importorskip("torch")

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


class Speaks:
    """What another library's table or column may show of itself, and nothing else."""

    def __init__(self, source, *names):
        for name in names:
            setattr(self, name, getattr(source, name))


STREAM, ARRAY = "__arrow_c_stream__", "__arrow_c_array__"


WIDE = {"y": [0, 1, 2], "x": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}


def wide_dataset():
    import pyarrow.dataset

    return pyarrow.dataset.dataset(pa.table(WIDE))


@pytest.mark.parametrize(
    "source",
    [
        lambda: Speaks(pa.table(WIDE), STREAM),
        lambda: Speaks(pa.table(WIDE).to_batches()[0], ARRAY),
        lambda: Speaks(pl.DataFrame(WIDE), STREAM),
        lambda: Speaks(pl.DataFrame(WIDE), STREAM, "columns", "dtypes"),  # as DuckDB's relations
        lambda: pa.table(WIDE).to_reader(),
        lambda: wide_dataset(),
        lambda: wide_dataset().scanner(),
        lambda: {
            "y": Speaks(pa.array(WIDE["y"]), ARRAY),
            "x": Speaks(pa.chunked_array([WIDE["x"]]), STREAM),
        },
    ],
)
def test_whatever_speaks_arrow(source):
    samples = Samples(source())
    assert samples["y"].tolist() == WIDE["y"]
    assert samples["x"].tolist() == WIDE["x"]


def test_arrow_without_pyarrow(monkeypatch):
    source = Speaks(pa.table(WIDE), STREAM)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"reading a Speaks.*memento-replay\[cli\]"):
        Samples(source)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        Samples(y=[1]).to_arrow()


def test_empty_tables():
    for source in (pd.DataFrame(PLAIN)[:0], pl.DataFrame(PLAIN)[:0], pa.table(PLAIN)[:0]):
        samples = Samples(source)
        assert samples.size == 0
        assert samples["x"].dtype == np.float64
    assert Samples().size == 0
    assert Samples(y=[]).size == 0


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
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' is given twice"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), "'a' is given twice"),
        (pd.DataFrame([[1, 2]]), "called 0; names are non-empty strings"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "called .'a', 'b'."),
        (pl.LazyFrame({"a": [1]}), "cannot read columns from LazyFrame"),
        ((name for name in "ab"), "cannot read columns from generator"),
    ],
)
def test_what_cannot_be_samples(data, message):
    with pytest.raises(SchemaError, match=message):
        Samples(data)


def test_out_to_other_libraries():
    samples = Samples({**PLAIN, "image": np.arange(12.0, dtype="f4").reshape(3, 2, 2)})
    assert samples.to_arrow().schema.field("x").type == pa.float64()
    assert samples.to_arrow()["image"].to_pylist() == samples["image"].tolist()
    for there in (samples.to_arrow(), pa.table(samples), pl.DataFrame(samples), samples):
        back = Samples(there)
        for name, expected in samples.items():
            assert back[name].dtype.kind == expected.dtype.kind
            np.testing.assert_array_equal(back[name], expected)
    frame = samples.to_pandas()
    assert frame.columns.tolist() == list(samples)
    assert frame["image"].tolist() == samples["image"].tolist()
    assert frame["time"].tolist() == [pd.Timestamp(day) for day in PLAIN["time"]]
    np.testing.assert_array_equal(Samples(frame)["image"], samples["image"])


def test_no_array_of_a_table():
    """pandas would ask for one, and show the names of the columns as data."""
    for make in (pd.DataFrame, np.asarray):
        with pytest.raises(SchemaError, match=r"samples\.to_pandas\(\)"):
            make(Samples(y=[1]))


def test_pandas_of_odd_columns():
    zeros = Samples(v=[b"a\0b", b"c"], w=[[b"a\0b", b"c"]] * 2)
    assert zeros.to_arrow()["v"].to_pylist() == [b"a\0b", b"c"]
    assert_same_bytes(Samples(zeros.to_arrow()), zeros)
    samples = Samples({name: KINDS[name] for name in ("structured", "complex", "bytes", "nothing")})
    frame = samples.to_pandas()
    assert frame["structured"].tolist() == KINDS["structured"].tolist()
    assert frame["complex"].tolist() == KINDS["complex"].tolist()
    assert frame["nothing"].tolist() == [[], [], []]
    assert len(Samples().to_pandas()) == 0


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
