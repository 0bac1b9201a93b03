"""Files in the fast layout: every value as it was, and never those of another file."""

from __future__ import annotations

import numpy as np
import pytest

from memento import Reservoir, scale
from memento.errors import SchemaError, SettingError, StorageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(folder, name="part-0.parquet", group=None, **columns):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / name, row_group_size=group)
    return folder


def rewritten(folder, to, **options):
    (path,) = scale.rewrite(folder, to, **options)
    return pq.read_table(path)


@pytest.mark.parametrize("other", [["a", "bb"], [5, 6], [0.5, 1.5]])
def test_numbered_columns_beside_one_of_their_name_stay(tmp_path, other):
    columns = {"price_0": [1.0, 2.0], "price_1": [2.0, 3.0], "price": other}
    folder = write(tmp_path / "days", **columns)
    assert rewritten(folder, tmp_path / "fast").to_pydict() == columns


def test_a_map_to_a_name_that_is_taken_is_refused(tmp_path):
    folder = write(tmp_path / "days", p_0=[1.0], p_1=[2.0], yhat=["a"], q=[0.5])
    with pytest.raises(SchemaError, match="'yhat' is there already"):
        scale.rewrite(folder, tmp_path / "fast", maps={"yhat": "p_*"})
    assert not list((tmp_path / "fast").iterdir())
    made = rewritten(folder, tmp_path / "fast", maps={"z": "p_*"})
    assert made.column_names == ["z", "yhat", "q"]
    assert made["q"].to_pylist() == [0.5]
    with pytest.raises(SettingError, match=r"maps\['z'\] is empty"):
        scale.rewrite(folder, tmp_path / "fast", maps={"z": []})


def test_a_file_without_rows_is_like_the_others(tmp_path):
    folder = tmp_path / "days"
    write(folder, "a.parquet", x=pa.array([], pa.list_(pa.float32())), y=pa.array([], pa.int64()))
    (alone,) = scale.rewrite(folder, tmp_path / "alone")
    assert pq.read_table(alone).num_rows == 0
    write(folder, "b.parquet", x=pa.array([[1, 2]], pa.list_(pa.float32())), y=[3])
    none, one = scale.rewrite(folder, tmp_path / "fast")
    assert pq.read_schema(none).equals(pq.read_schema(one))
    report = scale.select(tmp_path / "fast", 5, Reservoir(), tmp_path / "out")
    assert report.kept == report.offered == 1


def test_what_was_made_of_another_state_is_made_anew(tmp_path):
    folder, fast = write(tmp_path / "days", y=[1, 2, 3]), tmp_path / "fast"
    assert rewritten(folder, fast)["y"].to_pylist() == [1, 2, 3]
    before = (fast / "part-0.parquet").stat()
    rewritten(folder, fast)
    assert (fast / "part-0.parquet").stat().st_ino == before.st_ino  # left alone
    rewritten(folder, fast, block_rows=np.int64(2))
    assert pq.read_metadata(fast / "part-0.parquet").num_row_groups == 2
    write(folder, y=[7, 8, 9, 10])
    assert rewritten(folder, fast)["y"].to_pylist() == [7, 8, 9, 10]


def test_what_was_made_of_another_file_is_left_alone(tmp_path):
    fast = tmp_path / "fast"
    rewritten(write(tmp_path / "one", y=[1]), fast)
    with pytest.raises(StorageError, match=r"was not made of .*two"):
        scale.rewrite(write(tmp_path / "two", y=[2]), fast)
    assert pq.read_table(fast / "part-0.parquet")["y"].to_pylist() == [1]
    write(tmp_path / "own", y=[3])
    with pytest.raises(StorageError, match="was not made of"):
        scale.rewrite(tmp_path / "two", tmp_path / "own")


def test_rows_of_another_length_in_a_later_row_group(tmp_path):
    folder = write(tmp_path / "days", group=10, x=[[1.0, 2.0]] * 10 + [[1.0]] * 10)
    with pytest.raises(SchemaError, match=r"part-0.parquet, row group 1.*'x' are of another"):
        scale.rewrite(folder, tmp_path / "fast", block_rows=10)
    assert not list((tmp_path / "fast").iterdir())


def test_lists_without_a_value_are_refused(tmp_path):
    folder = write(tmp_path / "days", x=pa.array([[], []], pa.list_(pa.float32())))
    with pytest.raises(SchemaError, match="'x' has lists without a value"):
        scale.rewrite(folder, tmp_path / "fast")
