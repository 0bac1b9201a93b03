"""Sorting and cutting, against Python's own sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from memento import Batches, Samples, make_batches, sort_order
from memento.batching import cut
from memento.errors import SchemaError, SettingError

# Sums of infinite entries, which nobody reads; compiled code says nothing about them.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in scalar:RuntimeWarning")

# Few different values, so that ties reach the next column.
FEW = [-2.5, -1.0, -0.0, 0.0, 1e-300, 0.5, 1.0, 2.5, np.inf, -np.inf]
WIDE = st.floats(allow_nan=False, width=32)


def column(kind, n, draw):
    """A column of n rows of one kind."""

    def values(dtype, elements, *shape):
        count = n * int(np.prod(shape))
        drawn = draw(st.lists(elements, min_size=count, max_size=count))
        return np.array(drawn, dtype=dtype).reshape(n, *shape)

    width = draw(st.integers(1, 5))
    few = st.sampled_from(FEW)
    return {
        "label": lambda: values(np.int64, st.integers(0, 2)),
        "int8": lambda: values(np.int8, st.sampled_from([-128, -1, 0, 127])),
        "int64": lambda: values(np.int64, st.integers(-(2**63), 2**63 - 1)),
        "uint64": lambda: values(np.uint64, st.integers(0, 2**64 - 1)),
        "bool": lambda: values(bool, st.booleans()),
        "float64": lambda: values(np.float64, few),
        "float32": lambda: values(np.float32, WIDE),
        "float16": lambda: values(np.float16, few),
        "text": lambda: values("U2", st.sampled_from(["", "a", "ab", "b"])),
        "time": lambda: values(np.int64, st.integers(-5, 5)).astype("datetime64[s]"),
        "rows": lambda: values(np.float64, few, width),
        "rows32": lambda: values(np.float32, WIDE, width),
        "rows_int8": lambda: values(np.int8, st.integers(-128, 127), width),
        "image": lambda: values(np.uint8, st.integers(0, 3), 2, 3),
        "rows_bool": lambda: values(bool, st.booleans(), width),
    }[kind]()


KINDS = [
    "label", "int8", "int64", "uint64", "bool", "float64", "float32", "float16", "text", "time",
    "rows", "rows32", "rows_int8", "image", "rows_bool",
]  # fmt: skip


@st.composite
def tables(draw, min_size=0, max_size=24):
    n = draw(st.integers(min_size, max_size))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    return {f"c{i}": column(kind, n, draw) for i, kind in enumerate(kinds)}


def spec_keys(array):
    """The keys of the specification, for numpy's lexsort."""
    if array.ndim == 1:
        return [array]
    wide = array.reshape(len(array), int(np.prod(array.shape[1:]))).astype(np.float64)
    mode = np.abs(wide).argmax(axis=1)
    return [mode, -wide[np.arange(len(wide)), mode]]


@given(tables())
def test_order_is_a_stable_sort_by_the_columns(table):
    samples = Samples(table)
    order = sort_order(samples, list(table))
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(samples.size))
    np.testing.assert_array_equal(order, naive.sort_order(list(table.values())))
    keys = [key for array in table.values() for key in spec_keys(array)]
    np.testing.assert_array_equal(order, np.lexsort(keys[::-1]))


@given(tables(), st.data())
def test_two_parts_are_sorted_like_one(table, data):
    samples = Samples(table)
    split = data.draw(st.integers(0, samples.size))
    parts = (samples.rows(0, split), samples.rows(split, samples.size))
    np.testing.assert_array_equal(sort_order(parts, list(table)), sort_order(samples, list(table)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.array([3, -1, 2], np.int32), np.array([2, -5, 7], np.int64)),
        (np.array([3, -1, 2], np.int64), np.array([2.5, -0.5, 7.0])),
        (np.array([1.5, -1.0], np.float32), np.array([1.25, -2.0], np.float64)),
        (np.array([3, 250], np.uint8), np.array([-3, 4], np.int16)),
        (np.array(["b", "a"]), np.array(["abc", "aa"])),
        (np.array([[1, 0], [0, 1]], np.float32), np.array([[0.3, 0.7], [0.9, 0.1]])),
        (np.array([[1, 0], [0, 7]]), np.array([[0.3, 0.7], [0.9, 0.1]])),
        (np.array(["2020-01-02"], "datetime64[D]"), np.array(["2020-01-01T05"], "datetime64[s]")),
    ],
    ids=lambda a: str(a.dtype),
)
def test_parts_of_different_types_are_sorted_by_value(first, second):
    joined = np.concatenate([first, second])
    order = sort_order((Samples(c=first), Samples(c=second)), ["c"])
    np.testing.assert_array_equal(order, naive.sort_order([joined]))


def test_equal_samples_keep_their_order():
    samples = Samples(y=np.zeros(1000), p=np.full((1000, 3), 1 / 3))
    np.testing.assert_array_equal(sort_order(samples, ["y", "p"]), np.arange(1000))


def test_first_of_equal_entries_is_the_mode():
    samples = Samples(p=[[0.4, 0.2, 0.4], [0.2, 0.4, 0.4], [0.5, 0.0, 0.5]])
    assert sort_order(samples, ["p"]).tolist() == [2, 0, 1]


def test_mode_is_largest_in_absolute_value_and_sorted_by_signed_value():
    samples = Samples(p=[[-3.0, 1.0], [2.0, 1.0], [-9.0, 8.0], [1.0, -1.5]])
    assert sort_order(samples, ["p"]).tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize("rows", [40, 3000])
def test_ties_that_differ_in_their_last_bits_only(rows):
    """What is left to compare of a key does not depend on which rows are still tied."""
    rng = np.random.default_rng(rows)
    y = rng.permutation(np.repeat([0.0, 1.0], rows // 2))
    x = 1.0 + rng.integers(0, 300, rows) * np.finfo(float).eps
    x[:: rows // 10] = 1e9 * rng.standard_normal(len(x[:: rows // 10]))
    samples = Samples(y=y, x=x)
    np.testing.assert_array_equal(sort_order(samples, ["y", "x"]), naive.sort_order([y, x]))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_values_a_hair_apart_after_a_wide_column(dtype):
    rng = np.random.default_rng(0)
    y = rng.choice(np.array([0.1, 5e7, -3e-5]), 500)
    base = {"f": 1e15, "i": 2**62, "u": 2**63}[np.dtype(dtype).kind]
    x = np.array([int(base) + int(k) for k in rng.integers(0, 2000, 500)], dtype=dtype)
    x[:3] = 7
    samples = Samples(y=y, x=x)
    np.testing.assert_array_equal(sort_order(samples, ["y", "x"]), naive.sort_order([y, x]))


@pytest.mark.compiled
def test_order_of_many_rows():
    rng = np.random.default_rng(3)
    n = 200_000
    y = rng.integers(0, 21, n)
    yhat = rng.dirichlet(np.full(21, 0.3), 50)[rng.integers(0, 50, n)]  # ties down to x
    x = rng.integers(0, 5, (n, 3)).astype(np.float32)
    order = sort_order(Samples(y=y, yhat=yhat, x=x), ["y", "yhat", "x"])
    keys = [key for array in (y, yhat, x) for key in spec_keys(array)]
    np.testing.assert_array_equal(order, np.lexsort(keys[::-1]))


# ------------------------------------------------------------------------------------------ missing


def test_missing_sort_column_warns_by_default():
    with pytest.warns(UserWarning, match=r"sort column 'yhat' is missing.*missing=\"skip\""):
        order = sort_order(Samples(y=[1, 0]), ["y", "yhat"])
    assert order.tolist() == [1, 0]


def test_missing_sort_column_can_be_skipped():
    assert sort_order(Samples(y=[1, 0]), ["yhat", "y"], missing="skip").tolist() == [1, 0]


def test_missing_sort_column_can_be_an_error():
    with pytest.raises(SchemaError, match=r"sort column 'yhat' is missing; there are \['x', 'y'\]"):
        sort_order(Samples(y=[1, 0], x=[0, 0]), ["y", "yhat"], missing="error")


def test_sort_column_missing_in_one_part_is_missing():
    parts = (Samples(y=[1, 0], x=[2, 1]), Samples(y=[0, 1]))
    with pytest.raises(SchemaError, match="'x' is missing"):
        sort_order(parts, ["y", "x"], missing="error")
    with pytest.warns(UserWarning, match="'x' is missing"):
        assert sort_order(parts, ["y", "x"]).tolist() == [1, 2, 0, 3]


def test_an_empty_part_misses_nothing():
    assert sort_order((Samples(), Samples(y=[1, 0])), ["y"], missing="error").tolist() == [1, 0]


# ------------------------------------------------------------------------------------------ cutting


@given(tables(), st.integers(1, 9), st.booleans())
def test_batches_partition_the_order(table, size, keep):
    samples = Samples(table)
    batches = make_batches(samples, size, list(table), remainder="keep" if keep else "drop")
    expected = naive.cut(naive.sort_order(list(table.values())), size, keep=keep)
    assert [batches.rows(i).tolist() for i in range(len(batches))] == expected
    assert batches.sizes.tolist() == [len(rows) for rows in expected]
    left = samples.size if keep else samples.size // size * size
    assert len(batches.order) == len(set(batches.order.tolist())) == left
    assert batches.offsets.dtype == batches.order.dtype == np.int64
    for batch, rows in zip(batches, expected, strict=True):
        for name, array in table.items():
            np.testing.assert_array_equal(batch[name], array[rows])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=30),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
)
def test_batches_never_straddle_groups(rows, size, keep, listed):
    app = np.array([a for a, _ in rows], dtype="<U1")
    y = np.array([b for _, b in rows], dtype=np.int64)
    batches = make_batches(
        Samples(app=app, y=y),
        size,
        ["y", "app"] if listed else ["y"],
        group_by="app",
        remainder="keep" if keep else "drop",
    )
    assert all(len(set(batch["app"])) == 1 for batch in batches)
    expected = naive.cut(naive.sort_order([app, y]), size, keep=keep, groups=app) if rows else []
    assert [batches.rows(i).tolist() for i in range(len(batches))] == expected


def test_groups_of_two_parts():
    held, fresh = Samples(app=["a", "b", "a"], y=[2, 1, 0]), Samples(app=["b", "a"], y=[0, 1])
    batches = make_batches((held, fresh), 2, ["y"], group_by="app", remainder="drop")
    assert [batches.rows(i).tolist() for i in range(len(batches))] == [[2, 4], [3, 1]]
    assert [batch["y"].tolist() for batch in batches] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("missing", ["warn", "error", "skip"])
def test_missing_group_is_an_error(missing):
    with pytest.raises(SchemaError, match="'app'"):
        make_batches(Samples(y=[1, 2]), 1, ["y"], group_by="app", missing=missing)


def test_no_samples_make_no_batches():
    for samples in (Samples(), (), (Samples(), Samples()), Samples(y=np.empty(0))):
        assert len(make_batches(samples, 2, ["y"], missing="skip", remainder="keep")) == 0


def test_two_parts_make_the_batches_of_one():
    rng = np.random.default_rng(1)
    samples = Samples(y=rng.integers(0, 4, 50), x=rng.standard_normal((50, 2)))
    one = make_batches(samples, 7, ["y", "x"])
    two = make_batches((samples.rows(0, 20), samples.rows(20, 50)), 7, ["y", "x"])
    np.testing.assert_array_equal(one.order, two.order)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a["x"], b["x"])
    np.testing.assert_array_equal(one.column("y"), two.column("y"))


def test_samples_are_not_changed():
    y = np.array([3, 1, 2, 0])
    samples = Samples.borrow(y=y)
    make_batches(samples, 2, ["y"])
    assert y.tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("size", [0, -3])
def test_batch_size_below_one(size):
    with pytest.raises(SettingError, match=rf"batch_size is {size}; expected a whole number"):
        make_batches(Samples(y=[1]), size, ["y"])


def test_unknown_options():
    with pytest.raises(SettingError, match="remainder is 'pad'; expected one of 'even', 'drop'"):
        make_batches(Samples(y=[1]), 1, ["y"], remainder="pad")
    with pytest.raises(SettingError, match="missing is 'ignore'"):
        make_batches(Samples(y=[1]), 1, ["z"], missing="ignore")


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 30), st.integers(0, 30)),
        min_size=1,
        max_size=90,
    ),
    st.integers(1, 12),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([1, 3, 1000]),
)
def test_even_batches_are_those_of_the_oracle(rows, size, depth, grouped, few):
    """With few different labels and with many, of one column, two or none."""
    g, a, b = (np.array(column) for column in zip(*rows, strict=True))
    a, b = a % few, b % few
    samples = Samples(g=g, a=a, b=b)
    labels = ["a", "b"][:depth]
    group_by = "g" if grouped else None
    batches = make_batches(samples, size, ["a", "b"], group_by=group_by, labels=labels)
    order = naive.sort_order([g, a, b] if grouped else [a, b])
    expected = naive.even_cut(order, size, [a, b][:depth], g if grouped else None)
    assert [batches.rows(i).tolist() for i in range(len(batches))] == expected


@given(st.lists(st.integers(0, 60), min_size=1, max_size=300), st.integers(1, 40))
def test_even_batches_drop_nothing_and_stay_few(labels, size):
    batches = make_batches(Samples(y=labels), size, ["y"], labels=["y"])
    assert sorted(batches.order.tolist()) == list(range(len(labels)))
    assert (batches.sizes > 0).all()
    assert (batches.sizes < 2 * size).all()
    straddling = [len(set(batch["y"].tolist())) > 1 for batch in batches]
    counts = np.unique(labels, return_counts=True)[1]
    if sum(naive.even_count(int(m), size) for m in counts) <= 1.5 * len(labels) / size + 15:
        assert not any(straddling)
        for m in counts[counts >= size]:  # of a label that fills a batch none is smaller than 2/3
            assert naive.even_count(int(m), size) <= m / (size * 2 / 3)
    assert len(batches) <= 3 * len(labels) / size + 17


def test_labels_that_are_all_different_share_batches():
    batches = make_batches(Samples(y=np.arange(10_000)), 64, ["y"], labels=["y"])
    assert 156 <= len(batches) <= 250
    assert batches.sizes.max() < 128


@pytest.mark.parametrize("missing", ["", np.nan, np.datetime64("NaT")])
def test_missing_labels_are_one_label(missing):
    values = {"": ["b", "a"], "nan": [1.0, 2.0]}.get(str(missing), [np.datetime64(1, "s")] * 2)
    y = np.array([missing, *values, missing, missing] * 8)
    batches = make_batches(Samples(y=y), 4, ["y"], labels=["y"])
    unknown = [np.isin(batch["y"], values).any() for batch in batches]
    assert unknown.count(False) == 6
    assert [
        len(batch["y"]) for batch, known in zip(batches, unknown, strict=True) if not known
    ] == [4] * 6


def test_labels_that_do_not_lead_the_order_are_not_regarded():
    samples = Samples(x=np.arange(40), y=np.arange(40) % 2)
    batches = make_batches(samples, 8, ["x", "y"], labels=["y"])
    assert batches.sizes.tolist() == [8] * 5
    with_gap = make_batches(samples, 8, ["z", "y", "x"], labels=["y", "z"], missing="skip")
    assert all(len(set(batch["y"])) == 1 for batch in with_gap)


@pytest.mark.parametrize("columns", [["y"], ["y", "p"]])
def test_equal_samples_in_random_order(columns):
    samples = Samples(y=np.arange(600) % 3, p=np.full((600, 3), 1 / 3))
    rng = np.random.default_rng(0)
    orders = [sort_order(samples, columns, rng=rng) for _ in range(3)]
    for order in orders:
        np.testing.assert_array_equal(samples["y"][order], np.repeat([0, 1, 2], 200))
        assert len(set(order.tolist())) == 600
        # Rank correlation of what should be unrelated; 0.25 is 3.5 standard deviations.
        assert abs(np.corrcoef(order[:200], np.arange(200))[0, 1]) < 0.25
    assert (orders[0] != orders[1]).mean() > 0.9
    again = sort_order(samples, columns, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again, orders[0])


def test_few_ties_in_random_order():
    p = np.random.default_rng(1).dirichlet(np.ones(4), 500)[np.arange(1000) % 500]
    firsts = []
    for seed in range(20):
        order = sort_order(Samples(p=p), ["p"], rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(order[::2] % 500, order[1::2] % 500)
        firsts.append(order[::2] < 500)
    shares = np.mean(firsts, axis=0)
    assert abs(shares.mean() - 0.5) < 0.02  # 4 standard deviations
    assert 0.09 < shares.std() < 0.14  # of 20 tosses: 0.112


def test_cut_needs_no_sorting():
    samples = Samples(y=[5, 6, 7])
    assert cut((samples,), np.array([2, 0, 1]), 2).rows(0).tolist() == [2, 0]


# ------------------------------------------------------------------------------------------ Batches


def test_indexing():
    batches = make_batches(Samples(y=[3, 1, 2, 0]), 2, ["y"])
    assert batches[-1]["y"].tolist() == [2, 3]
    assert batches[-2]["y"].tolist() == batches[0]["y"].tolist() == [0, 1]
    for wrong in (2, -3):
        with pytest.raises(IndexError, match=f"batch {wrong} of 2"):
            batches[wrong]


def test_columns_of_parts():
    batches = make_batches((Samples(y=[3, 1], z=[0, 0]), Samples(y=[2.5, 0.5])), 2, ["y"])
    assert batches.has("y")
    assert not batches.has("z")
    assert batches.column("y").tolist() == [0.5, 1.0, 2.5, 3.0]
    first, second = batches.halves("y")
    assert (first.tolist(), second.tolist()) == ([3, 1], [2.5, 0.5])
    first, second = make_batches(Samples(y=[1]), 1, ["y"]).halves("y")
    assert (first.tolist(), second.tolist()) == ([1], [])


def test_halves_of_three_parts():
    part = Samples(y=[1])
    batches = Batches((part, part, part), np.arange(3), np.array([0, 3]))
    with pytest.raises(SettingError, match="3 parts; concatenate them into at most two"):
        batches.halves("y")


@pytest.mark.parametrize(
    ("data", "axes", "expected"),
    [
        (np.array([[0, 1], [1, 1]]), 0, [[0, 1], [1, 1]]),
        (np.array([0, 1]), 0, [[0], [1]]),
        ([[0, 1, 2], [1]], 0, [[0, 1, 2], [1]]),
        ([{"c": [0, 1], "d": 5}, {"c": [2]}], 0, [[0, 1], [2]]),
        ({"c": np.array([[0, 1]])}, 0, [[0, 1]]),
        ({"c": [[0, 1], [2]]}, 0, [[0, 1], [2]]),
        (np.array([[0.5, 0.5], [0.0, 1.0]]), 1, [[[0.5, 0.5]], [[0.0, 1.0]]]),
        ([[0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]]], 1, [[[0.5, 0.5]], [[0.0, 1.0], [1.0, 0.0]]]),
    ],
)
def test_batches_of_what_is_at_hand(data, axes, expected):
    batches = Batches.of(data, {"c": axes})
    assert [batch["c"].tolist() for batch in batches] == expected
    assert Batches.of(batches, {"c": axes}) is batches


def test_batches_of_the_wrong_form():
    with pytest.raises(SchemaError, match=r"reads the columns \['a', 'b'\]; give batches as"):
        Batches.of([[1, 2]], {"a": 0, "b": 0})
    with pytest.raises(SchemaError, match=r"no column 'a'; there are \['b'\]"):
        Batches.of({"b": [[1]]}, {"a": 0})
    with pytest.raises(SchemaError, match="no column 'a'"):
        Batches.of([{"b": [1]}], {"a": 0})
    with pytest.raises(SchemaError, match="no batches of 'a'; give at least one"):
        Batches.of([], {"a": 0})
    with pytest.raises(SchemaError, match=r"'a' has the shape \(1, 1, 1\); expected"):
        Batches.of(np.zeros((1, 1, 1)), {"a": 0})


@pytest.mark.parametrize("samples", [{"y": [1]}, 3, [{"y": [1]}], "y"])
def test_samples_that_are_none(samples):
    with pytest.raises(SettingError, match=r"samples is .*expected Samples, or a list of Samples"):
        make_batches(samples, 2, ["y"])


@pytest.mark.parametrize("names", [3, [1], None, {"y": 1}])
def test_columns_to_sort_by_that_are_no_names(names):
    with pytest.raises(SettingError, match=r"sort_by is .*expected the name of a column"):
        sort_order(Samples(y=[1]), names)
    with pytest.raises(SettingError, match="sort_by"):
        make_batches(Samples(y=[1]), 2, names)


@pytest.mark.parametrize("size", ["2", None, 2.5, [2]])
def test_batch_sizes_that_are_no_numbers(size):
    with pytest.raises(SettingError, match=r"batch_size is .*expected a whole number"):
        make_batches(Samples(y=[1]), size, ["y"])
