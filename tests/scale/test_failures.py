"""What goes wrong with files, values and disks: said with the place, and nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memento import DensityReservoir, JensenShannon, Memento, scale
from memento.errors import (
    DamagedError,
    DomainError,
    InputError,
    LockedError,
    MementoError,
    ModelError,
    NewLabelError,
    SchemaError,
    SpaceError,
    StorageError,
)
from memento.files import Lock
from memento.scale import passes
from memento.scale.predictions import model_of

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

import tiny  # noqa: E402 - needs pyarrow

pytestmark = pytest.mark.compiled  # blocks are sorted again and again
POLICY = Memento(tiny.DISTANCES)


@pytest.fixture
def folder(tmp_path):
    return tiny.write(tmp_path / "days", files=5)


def selected(folder, tmp_path, policy=POLICY, **options):
    return scale.select(folder, 300, policy, tmp_path / "out", block_rows=400, **options)


def stored(tmp_path):
    return sorted(path.name for path in (tmp_path / "out.partial").glob("summarise-*"))


def replaced(path: Path, **changed):
    """The same file with some columns changed."""
    made = pq.read_table(path)
    for name, column in changed.items():
        place = made.column_names.index(name)
        made = made.set_column(place, name, column)
    pq.write_table(made, path, row_group_size=400)


def test_a_file_that_ends_early(folder, tmp_path):
    path = folder / "part-3.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedError, match=r"part-3.parquet cannot be read as Parquet"):
        selected(folder, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_page_that_is_damaged_leaves_what_was_found(folder, tmp_path):
    path = folder / "part-3.parquet"
    pq.write_table(
        pq.read_table(path), path, row_group_size=400, compression="none", write_page_checksum=True
    )
    about = pq.read_metadata(path).row_group(1).column(1)
    content = bytearray(path.read_bytes())
    start = about.data_page_offset + 60
    content[start : start + 40] = bytes(40)
    whole = path.read_bytes()
    path.write_bytes(bytes(content))
    with pytest.raises(MementoError, match=r"part-3.parquet, row group 1"):
        selected(folder, tmp_path)
    assert not (tmp_path / "out").exists()
    assert len(stored(tmp_path)) == 10
    path.write_bytes(whole)
    report = selected(folder, tmp_path)
    # Three files are as they were; what was found of the one that was written anew is not used.
    assert report.seconds["summarise"]["stored"] == 9


def test_a_file_without_a_column_or_with_another_type(folder, tmp_path):
    path = folder / "part-3.parquet"
    made = pq.read_table(path)
    pq.write_table(made.drop_columns(["x"]), path)
    with pytest.raises(SchemaError, match=r"part-3.parquet lacks the column 'x'"):
        selected(folder, tmp_path)
    selected(folder, tmp_path, columns=["id", "y"])
    shutil.rmtree(tmp_path / "out")
    pq.write_table(made.set_column(1, "y", made["y"].cast(pa.float64())), path)
    with pytest.raises(SchemaError, match=r"part-3.parquet: column 'y' is of type double"):
        selected(folder, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("policy", [POLICY, DensityReservoir(tiny.DISTANCES)])
def test_values_that_cannot_be_compared(folder, tmp_path, policy):
    path = folder / "part-3.parquet"
    good = pq.read_table(path)
    yhat = tiny.columns(1200, 3)["yhat"].copy()
    yhat[777, 2] = np.nan
    replaced(path, yhat=tiny.table({"yhat": yhat})["yhat"])
    with pytest.raises(DomainError, match=r"part-3.parquet, row group 1 .*row 377"):
        selected(folder, tmp_path, policy)
    pq.write_table(good, path, row_group_size=400)
    y = tiny.columns(1200, 3)["y"].copy()
    y[1000] = 4
    replaced(path, y=pa.array(y))
    with pytest.raises(NewLabelError, match=r"part-3.parquet, row group 2 .*row 200"):
        selected(folder, tmp_path, policy)
    replaced(path, y=pa.array([None, *y[1:]]))
    with pytest.raises(SchemaError, match=r"part-3.parquet, row group 0.* missing"):
        selected(folder, tmp_path, policy)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("policy", [POLICY, DensityReservoir(tiny.DISTANCES)])
def test_rows_of_other_lengths_in_another_row_group(tmp_path, policy):
    folder = tmp_path / "days"
    folder.mkdir()
    yhat = [[0.5, 0.5]] * 400 + [[0.1, 0.4, 0.5]] * 400
    made = pa.table({"yhat": pa.array(yhat), "y": [0, 1] * 400})
    pq.write_table(made, folder / "part-0.parquet", row_group_size=400)
    with pytest.raises(
        SchemaError, match=r"row group 1: rows .* of another length than in .*row group 0"
    ):
        selected(folder, tmp_path, policy)
    assert not (tmp_path / "out").exists()


def test_columns_of_names_that_are_taken(tmp_path):
    (tmp_path / "days").mkdir()
    path = tmp_path / "days" / "part-0.parquet"
    made = tiny.table(tiny.columns(400, 0))
    pq.write_table(made.append_column("memento:stands-for", made["id"]), path)
    with pytest.raises(SchemaError, match="memento:stands-for"):
        selected(path, tmp_path)
    assert selected(path, tmp_path, columns=["id"]).kept
    shutil.rmtree(tmp_path / "out")
    pq.write_table(made.append_column("y", made["id"]), path)
    with pytest.raises(SchemaError, match=r"part-0.parquet.*several columns 'y'"):
        selected(path, tmp_path)
    with pytest.raises(SchemaError, match=r"part-0.parquet.*several columns 'y'"):
        scale.rewrite(path, tmp_path / "fast")


def test_a_file_twice(folder, tmp_path):
    with pytest.raises(InputError, match="given twice"):
        selected([folder, folder / "part-1.parquet"], tmp_path)
    os.link(folder / "part-1.parquet", folder / "other.parquet")
    with pytest.raises(InputError, match="given twice"):
        selected(folder, tmp_path)


def test_files_without_rows(tmp_path):
    tiny.write(tmp_path / "days", rows=0)
    with pytest.raises(InputError, match="no rows"):
        selected(tmp_path / "days", tmp_path)


@pytest.mark.parametrize("stage", ["summarise", "take"])
def test_a_file_that_is_written_meanwhile(folder, tmp_path, stage):
    path = folder / "part-4.parquet"

    def touching(said, done, total):
        if said == stage and done == 0:
            content = path.read_bytes()
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))

    with pytest.raises(StorageError, match=r"part-4.parquet was written while"):
        selected(folder, tmp_path, progress=touching)
    assert not (tmp_path / "out").exists()


def test_a_model_that_changes_its_mind(folder, tmp_path):
    """The sort of the second pass would differ, so it is refused."""
    calls = []

    def moody(x):
        calls.append(1)
        found = tiny.predicted(x)
        return found[:, ::-1] if len(calls) > 20 else found

    with pytest.raises(ModelError, match="differ from those of the first pass"):
        selected(folder, tmp_path, predict=moody)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("predict", "words"),
    [
        (lambda x: x / 0 * np.inf, "NaN or infinite"),
        (lambda x: x[:-1], "expected one number"),
        (lambda x: {}[0], "predict failed"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_model_that_fails(folder, tmp_path, predict, words):
    with pytest.raises(ModelError, match=words):
        selected(folder, tmp_path, predict=predict)


def test_a_network_keeps_the_mode_of_each_of_its_parts():
    """A frozen part of a network in training stays frozen after predictions."""
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    network.train()
    network[1].eval()
    model = model_of(network, "x", "yhat")
    assert model is not None
    assert model.outputs(np.ones((5, 3), np.float32)).shape == (5, 4)
    assert [part.training for part in network.modules()] == [True, True, False]


def test_no_room_is_said_before_anything_is_taken(folder, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(SpaceError, match=r"1,000 bytes left.*takes about"):
        selected(folder, tmp_path)
    assert not (tmp_path / "out").exists()
    assert len(stored(tmp_path)) == 15


LIMITED = """
import resource, sys
import tiny
from memento import Memento, scale
from memento.errors import SpaceError
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    scale.select(sys.argv[1], 2000, Memento(tiny.DISTANCES), sys.argv[2], block_rows=1200)
except SpaceError as error:
    print(error)
    sys.exit(7)
"""


def test_a_disk_that_gets_full_meanwhile(folder, tmp_path):
    """A limit on the size of files is met like a full disk, here by the second pass."""
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    words = [sys.executable, "-c", LIMITED, str(folder), str(tmp_path / "out")]
    ran = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 7, ran.stderr
    assert "cannot write the selection" in ran.stdout
    assert not (tmp_path / "out").exists()
    assert len(stored(tmp_path)) == 15
    left = [path for path in (tmp_path / "out.partial").iterdir() if path.suffix == ".parquet"]
    assert sum(pq.read_metadata(path).num_rows for path in left) < 2000
    assert not list((tmp_path / "out.partial").glob(".*"))
    report = scale.select(folder, 2000, POLICY, tmp_path / "out", block_rows=1200)
    assert report.seconds["summarise"]["stored"] == 15


def test_a_disk_that_cannot_be_written(folder, tmp_path, monkeypatch):
    def full(plan, block, kept, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(passes, "take", lambda *given: _with_errors(full, *given))
    with pytest.raises(SpaceError, match="No space left"):
        selected(folder, tmp_path)


def _with_errors(function, plan, block, kept, target):
    from memento.files import storage_errors

    with storage_errors("write the selection", Path(target).parent):
        return function(plan, block, kept, target)


def test_two_at_once(folder, tmp_path):
    (tmp_path / "out.partial").mkdir()
    with Lock(tmp_path / "out.partial" / "lock"), pytest.raises(LockedError):
        selected(folder, tmp_path)


def test_stored_summaries_that_are_damaged_are_made_again(folder, tmp_path):
    def stop(stage, done, total):
        if stage == "decide":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        selected(folder, tmp_path, progress=stop)
    for name in stored(tmp_path)[:3]:
        (tmp_path / "out.partial" / name).write_bytes(b"half")
    report = selected(folder, tmp_path)
    assert report.seconds["summarise"]["stored"] == 12
    assert report.digest == scale.select(folder, 300, POLICY, tmp_path / "b", block_rows=400).digest


def test_other_settings_use_no_summaries_of_before(folder, tmp_path):
    def stop(stage, done, total):
        if stage == "decide":
            raise KeyboardInterrupt

    for policy in (POLICY, Memento(tiny.DISTANCES, batch_size=8)):
        with pytest.raises(KeyboardInterrupt):
            selected(folder, tmp_path, policy, progress=stop)
    assert len(stored(tmp_path)) == 30
    labels = Memento([JensenShannon.of_labels("y", 4)])
    assert selected(folder, tmp_path, labels).seconds["summarise"]["stored"] == 0
