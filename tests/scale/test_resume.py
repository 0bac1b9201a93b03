"""What a killed selection leaves is taken up by the same call alone, and never as input."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from memento import DensityReservoir, JensenShannon, Memento, Reservoir, scale
from memento.errors import InputError, SchemaError, SettingError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

import tiny  # noqa: E402 - needs pyarrow

pytestmark = pytest.mark.compiled  # blocks are sorted again and again
POLICY = Memento(tiny.DISTANCES, batch_size=16)


class KilledError(Exception):
    """Ends a selection in the middle."""


def kill(paths, to, *args, stage="take", **more):
    """A selection that ends after the first block of a stage."""

    def progress(name, done, total):
        if name == stage and done:
            raise KilledError

    with pytest.raises(KilledError):
        scale.select(paths, 500, *args, to=to, block_rows=400, progress=progress, **more)
    assert not to.exists()


def select(paths, to, policy=POLICY, **more):
    return scale.select(paths, 500, policy, to, block_rows=400, **more)


def ids(report):
    found = [np.asarray(pq.read_table(path)["id"]) for path in report.parts()]
    return np.concatenate(found)


def test_parts_of_other_columns_are_not_taken_up(tmp_path):
    folder, to = tiny.write(tmp_path / "days"), tmp_path / "out"
    kill(folder, to, POLICY, columns=["id"])
    report = select(folder, to)
    assert {tuple(pq.read_schema(path).names) for path in report.parts()} == {
        ("id", "y", "yhat", "x")
    }
    assert report.seconds["summarise"]["stored"] == report.document["blocks"]


def test_a_part_that_was_cut_short_is_written_again(tmp_path):
    folder, to = tiny.write(tmp_path / "days"), tmp_path / "out"
    kill(folder, to, POLICY)
    (part,) = (tmp_path / "out.partial").glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-40])
    report = select(folder, to)
    assert len(report.samples()["id"]) == report.kept == 500


def test_more_files_may_be_named_than_in_the_killed_call(tmp_path):
    tiny.write(tmp_path / "a" / "one", files=1)
    tiny.write(tmp_path / "a" / "two", files=1)
    one = tmp_path / "a" / "one" / "part-0.parquet"
    # Labels alone leave many rows equal, whose order is drawn by the file's name.
    policy = Memento([JensenShannon.of_labels("y", tiny.CLASSES)], batch_size=16)
    kill(one, tmp_path / "out", policy)
    report = select(tmp_path / "a", tmp_path / "out", policy)
    assert report.digest == select(tmp_path / "a", tmp_path / "fresh", policy).digest


def test_what_selections_wrote_is_no_input(tmp_path):
    folder = tiny.write(tmp_path / "days")
    before = select(folder, tmp_path / "before")
    for to in ("held", "deep/held"):
        kill([folder / "part-0.parquet", folder / "part-1.parquet"], folder / to, POLICY)
    select([folder / "part-0.parquet"], folder / "kept")
    for paths in (folder, [folder], str(folder / "**/*.parquet"), str(folder / "*")):
        report = select(paths, tmp_path / "after")
        assert report.digest == before.digest, paths
        shutil.rmtree(tmp_path / "after")
    # Named themselves, they are files like any others.
    assert select(folder / "kept", tmp_path / "after").offered == 500
    with pytest.raises(InputError, match="nothing but what selections wrote"):
        select(str(folder / "k*"), tmp_path / "none")


def test_a_result_below_its_files_is_refused(tmp_path):
    folder = tiny.write(tmp_path / "days")
    with pytest.raises(SettingError, match="is below the folder"):
        select(folder, folder / "held")
    select(folder / "part-0.parquet", folder / "held")
    later = tiny.write(folder / "later", files=1)
    pq.write_table(tiny.table(tiny.columns(900, 9)), later / "part-0.parquet")
    report = select(later, folder / "held", held=folder / "held")
    assert report.document["seen"] == 2100


@pytest.mark.parametrize("policy", [POLICY, Reservoir(), DensityReservoir(tiny.DISTANCES)])
def test_a_completed_call_with_what_is_held_gives_its_report(tmp_path, policy):
    first = select(tiny.write(tmp_path / "one", files=1), tmp_path / "held", policy)
    (tmp_path / "two").mkdir()
    pq.write_table(tiny.table(tiny.columns(1200, 8)), tmp_path / "two" / "later.parquet")
    report = select(tmp_path / "two", tmp_path / "next", policy, held=first.folder)
    assert select(tmp_path / "two", tmp_path / "next", policy, held=first.folder) == report


def test_what_is_needed_need_not_be_written(tmp_path):
    folder = tiny.write(tmp_path / "days")
    whole = select(folder, tmp_path / "whole", Reservoir(), identify_by="id")
    some = select(folder, tmp_path / "some", Reservoir(), identify_by="id", columns=["x"])
    assert list(some.samples()) == ["x"]
    assert np.array_equal(some.samples()["x"], whole.samples()["x"])
    (tmp_path / "next").mkdir()
    pq.write_table(tiny.table(tiny.columns(1200, 8)), tmp_path / "next" / "later.parquet")
    held = select(folder, tmp_path / "held")
    report = select(tmp_path / "next", tmp_path / "out", held=held.folder, columns=["id"])
    assert report.document["seen"] == 4800
    full = select(tmp_path / "next", tmp_path / "full", held=held.folder)
    assert np.array_equal(ids(report), ids(full))


@pytest.mark.parametrize(
    ("before", "after"), [(pa.float64(), pa.int64()), (pa.float64(), pa.float32())]
)
def test_another_type_than_what_is_held_has(tmp_path, before, after):
    for name, kind, seed in (("one", before, 1), ("two", after, 2)):
        made = tiny.table(tiny.columns(900, seed))
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"{name}.parquet"
        pq.write_table(
            made.append_column("z", pa.array(np.arange(900) / 3).cast(kind, False)), path
        )
    held = select(tmp_path / "one", tmp_path / "held")
    with pytest.raises(SchemaError, match=r"held/part-.*column 'z' is of type double, in .*two"):
        select(tmp_path / "two", tmp_path / "out", held=held.folder)
    assert not (tmp_path / "out").exists()


def test_what_a_call_left_that_was_killed_at_its_end_goes_with_the_same_call(tmp_path):
    folder, to = tiny.write(tmp_path / "days"), tmp_path / "out"
    report = select(folder, to)
    left = tmp_path / "out.partial"
    left.mkdir()
    (left / "part-00000-0.npz").write_bytes(b"cut")
    assert select(folder, to).digest == report.digest
    assert not left.exists()
