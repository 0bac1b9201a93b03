"""To Arrow and back without a change of a value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memento import Samples, arrow
from memento.errors import ColumnTypeError

pa = pytest.importorskip("pyarrow")

TYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.datetime64_dtypes(max_period="Y", min_period="ns"),
    hnp.timedelta64_dtypes(max_period="D", min_period="ns"),
    hnp.unicode_string_dtypes(max_len=5),
    hnp.byte_string_dtypes(max_len=5),
)


@given(TYPES, st.data())
def test_through_arrow_and_back(dtype, data):
    shape = (data.draw(st.integers(0, 4)), *data.draw(st.lists(st.integers(0, 2), max_size=2)))
    array = data.draw(hnp.arrays(dtype, shape))
    try:
        table = arrow.to_table({"x": array})
    except (ColumnTypeError, UnicodeEncodeError):
        assert dtype.kind in "mMU"  # beyond any unit of Arrow's; half of a character
        return
    table.validate(full=True)
    back = arrow.numpy_of("x", table["x"])
    assert back.shape == array.shape
    assert back.dtype.kind == dtype.kind
    if dtype.kind in "mM":
        same = back.astype(dtype.newbyteorder("=")).astype("i8") == array.astype("i8")
    else:
        same = (back == array) | (back != back)
    assert same.all()


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array(["2024-01-01"], "M8[D]"), pa.date32()),
        (np.array(["2024-01-01"], "M8[M]"), pa.date32()),
        (np.array(["2024-01-01T05"], "M8[h]"), pa.timestamp("s")),
        (np.array([10**10], "M8[D]"), pa.timestamp("s")),  # dates of Arrow's have 32 bits
        (np.array([1], "m8[D]"), pa.duration("s")),
        (np.array([1000], "m8[ps]"), pa.duration("ns")),
        (np.array([1, 2], ">i8"), pa.int64()),
        (np.zeros((2, 0)), pa.list_(pa.float64(), 0)),
    ],
)
def test_types_there(array, kind):
    assert arrow.to_table({"x": array}).schema.field("x").type == kind


@pytest.mark.parametrize(
    "array", [np.array([1j]), np.zeros(1, "i4,f8"), np.array([1], "m8[ps]"), np.ones(1, "g")]
)
def test_types_that_arrow_lacks(array):
    with pytest.raises(ColumnTypeError, match=r"'x' of type .* Arrow's"):
        Samples(x=array).to_arrow()
