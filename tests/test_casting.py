"""Casts that change no value, against Python's own exact numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memento import casting
from memento.errors import ColumnTypeError

BIG = 2**53 + 1
NUMBERS = ["?", "i1", "u1", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g", "c8", "c16", ">i8"]
TIMES = [f"M8[{unit}]" for unit in ("Y", "M", "D", "h", "s", "ms", "us", "ns", "10us")]
DURATIONS = [f"m8[{unit}]" for unit in ("Y", "D", "s", "us", "ns")]


def exact(value):
    """A number of any type as one that Python compares exactly; NaN as a word."""
    if isinstance(value, (complex, np.complexfloating)):
        return exact(value.real), exact(value.imag)
    if value != value:
        return "nan", 0
    if isinstance(value, np.floating) and not np.isfinite(value):
        return ("inf" if value > 0 else "-inf"), 0
    if isinstance(value, np.floating) and value == 0 and np.signbit(value):
        return "-0", 0
    if isinstance(value, np.floating):
        return Fraction(*value.as_integer_ratio()), 0
    return Fraction(int(value)), 0


@given(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS), st.data())
def test_numbers_stay_the_same_or_are_refused(given_type, wanted, data):
    edges = [0, 1, -1, 2**11 + 1, 2**24 + 1, 2**53, BIG, 2**63 - 1, 2**63, 2**64 - 1, 0.5, -0.0]
    array = data.draw(hnp.arrays(given_type, st.integers(0, 4)))
    with np.errstate(all="ignore"):
        try:
            more = np.array([data.draw(st.sampled_from(edges))]).astype(given_type)
        except (OverflowError, ValueError):
            more = array[:0]
    array = np.concatenate([array, more]).astype(given_type)
    cast = casting.exactly(array, np.dtype(wanted))
    if cast is not None:
        assert cast.dtype == np.dtype(wanted)
        zero = np.dtype(wanted).kind in "c"  # a real -0.0 has no other imaginary part
        assert zero or [*map(exact, cast)] == [*map(exact, array)]
        assert (cast == array)[~np.isnan(array)].all()


@given(st.sampled_from([TIMES, DURATIONS]), st.data())
def test_times_stay_the_same_or_are_refused(types, data):
    array = data.draw(hnp.arrays(data.draw(st.sampled_from(types)), st.integers(0, 5)))
    wanted = np.dtype(data.draw(st.sampled_from(types)))
    cast = casting.exactly(array, wanted)
    if cast is not None:
        assert cast.dtype == wanted
        assert cast.astype(array.dtype).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("array", "wanted", "kept"),
    [
        ([2**53], "f8", True),
        ([BIG], "f8", False),
        ([-BIG], "c16", False),
        ([2**63 - 1], "f8", False),  # comes back from float64 as itself on some processors
        ([2**24], "f4", True),
        ([300], "u1", False),
        ([1.0, 0.0], "i8", True),
        ([1.0], "?", True),
        ([2.0], "?", False),
        ([-0.0], "i8", False),
        ([np.nan], "i8", False),
        ([2.0**63], "i8", False),
        ([2.0**63], "u8", True),
        ([0.1], "f4", False),
        ([0.5, np.nan, np.inf], "f4", True),
        ([1e300], "f4", False),
        ([1 + 0j], "f8", False),
        (["1"], "i8", False),
        ([1], "U5", False),
        ([b"a"], "U5", False),
        (["abc"], "U2", False),
        (["ab", ""], "U2", True),
        (np.array(["3000-01-01"], "M8[D]"), "M8[ns]", False),
        (np.array(["3000-01-01", "NaT"], "M8[D]"), "M8[us]", True),
        (np.array(["2024-01-01"], "M8[ns]"), "M8[D]", True),
        (np.array(["2024-01-01T01"], "M8[ns]"), "M8[D]", False),
        (np.array([1], "m8[Y]"), "m8[D]", False),
        (np.array([5], "m8"), "m8[s]", False),
        ([5], "m8[s]", False),
        (np.array(["2024-01-01"], "M8[D]"), "m8[D]", False),
    ],
)
def test_casts(array, wanted, kept):
    assert (casting.exactly(np.asarray(array), np.dtype(wanted)) is not None) is kept


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["i4", "i8"], "i8"),
        (["i1", "u1"], "i2"),
        (["i8", "f8"], "f8"),
        (["u8", "i8"], "i8"),  # of small numbers: never floats
        (["f4", "f8"], "f8"),
        (["?", "i8"], "i8"),
        (["U2", "U5"], "U5"),
        (["M8[D]", "M8[s]"], "M8[s]"),
        ([">i8", ">i8"], "i8"),
    ],
)
def test_common_types(parts, expected):
    arrays = [np.ones(2, part) if part[0] != "M" else np.zeros(2, part) for part in parts]
    assert casting.common_type("x", arrays) == np.dtype(expected)


@pytest.mark.parametrize(
    "parts",
    [
        [np.array([BIG]), np.array([0.5])],
        [np.array([0.5]), np.array([BIG])],
        [np.array([-1]), np.array([2**63], np.uint64)],
        [np.array(["3000"], "M8[D]"), np.array(["2024-01-01T00:00:00.000000001"], "M8[ns]")],
        [np.array([1]), np.array(["a"])],
        [np.array([b"a"]), np.array(["a"])],
        [np.array([1]), np.array([1], "m8[s]")],
        [np.zeros(1, "i4,f8"), np.zeros(1, "i8,f8")],
    ],
)
def test_no_common_type(parts):
    with pytest.raises(ColumnTypeError, match=r"'x' is .* and .*no type keeps all"):
        casting.common_type("x", parts)
    with pytest.raises(ColumnTypeError, match=r"'x' is of type .* this memory holds"):
        casting.type_for("x", parts[0], parts[1])


@pytest.mark.parametrize(
    ("held", "offered", "expected"),
    [
        ([1], [2.0], "i8"),
        ([1], [2.5], "f8"),
        (np.array([1], "i1"), [200], "i8"),
        (np.array([1], "f4"), [0.5], "f4"),
        (np.array([1], "f4"), [0.1], "f8"),
        ([True], [0, 1], "?"),
        ([True], [2], "i8"),
        (["a"], ["abc"], "U3"),
        (["abc"], ["a"], "U3"),
        (np.array(["2024-01-01"], "M8[ns]"), np.array(["2024-01-02"], "M8[D]"), "M8[ns]"),
        (np.array(["2024-01-01"], "M8[ns]"), np.array(["9999-12-31"], "M8[us]"), "M8[us]"),
    ],
)
def test_types_to_go_on_with(held, offered, expected):
    assert casting.type_for("x", np.asarray(held), np.asarray(offered)) == np.dtype(expected)


def test_a_long_text_among_many():
    held = np.full(2_000_000, "word")
    with pytest.raises(ColumnTypeError, match="'x' has texts of up to 100,000 characters"):
        casting.type_for("x", held, np.array(["long" * 25_000]))
