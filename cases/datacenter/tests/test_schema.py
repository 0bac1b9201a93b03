from __future__ import annotations

import contextlib
import io
import json
import shlex
import zipfile

import numpy as np
import pytest

from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento_datacenter import schema
from memento_datacenter.schema import COLUMNS, Run, Runs


def make(n=500, seed=0, **about):
    rng = np.random.default_rng(seed)
    return Run(
        np.sort(rng.integers(0, 10**10, n)),
        rng.integers(15_000_000, 90_000_000, n),
        rng.integers(55, 1501, n),
        rng.integers(0, 20, n),
        {"label": 3, **about},
    )


def test_a_run_is_the_same_after_writing(tmp_path):
    run = make(setting="w3", run=4, network={"queue": 100})
    path = tmp_path / "new" / "run.npz"
    run.write(path)
    read = Run.read(path)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(read, name), getattr(run, name))
        assert getattr(read, name).dtype == np.dtype(COLUMNS[name][0])
    assert read.digest == run.digest
    assert {name: read.about[name] for name in run.about} == dict(run.about)
    assert Run.describe(path) == read.about
    assert [p.name for p in path.parent.iterdir()] == ["run.npz"]


def test_units_and_classes():
    run = Run([2_000_000_000], [15_484_800], [606], [3], {"label": 2})
    assert run.delay[0] == pytest.approx(0.0154848, abs=1e-12)


def test_an_empty_run_is_a_run(tmp_path):
    make(0).write(tmp_path / "run.npz")
    assert len(Run.read(tmp_path / "run.npz")) == 0


def test_arrays_are_copies_that_refuse_writing():
    sizes = np.array([100, 200], dtype=np.uint16)
    run = Run([1, 2], [3, 4], sizes, [0, 0], {"label": 1})
    sizes[0] = 7
    assert run.size[0] == 100
    with pytest.raises(ValueError, match="read-only"):
        run.size[0] = 7


def test_missing_runs_are_asked_for_as_their_neighbours_were_made(tmp_path):
    folder = Runs(tmp_path / "my runs")
    to = shlex.quote(str(folder.folder))

    def asked(*wanted):
        with pytest.raises(StorageError) as caught:
            folder.require(wanted)
        return str(caught.value).partition(": ")[2]

    def made(setting, **about):
        run = make(setting=setting, run=0)
        columns = (getattr(run, name) for name in COLUMNS)
        Run(*columns, about={**run.about, **about}).write(folder.path(setting, 0))

    plain = f"no such run; make it with `memento datacenter simulate w2 --runs 3 --to {to}`"
    assert asked(("w2", 3)) == plain
    made("w2", network={"messages": "refused", "end": 6.0}, seed=1)
    made("w1", network={"messages": "buffered", "end": 60.0, "start_window": 1.0}, seed=5)
    assert asked(("w2", 0), ("w2", 1), ("w2", 2), ("w2_c100", 9)) == (
        "no such run, and 2 more are missing; make them with `memento datacenter simulate w2 "
        f"w2_c100 --runs 1-2,9 --to {to} --messages refused --seconds 6`"
    )
    assert asked(("w1", 1)).endswith(f"--to {to} --start-window 1 --seed 5`")
    # What cannot be read is no example.
    folder.path("w2", 0).write_bytes(b"")
    assert asked(("w2", 3)) == plain


def test_a_run_in_another_runs_place_is_refused(tmp_path):
    folder = Runs(tmp_path)
    make(setting="w2", run=4).write(folder.path("w1", 4))
    for look in (folder.read, folder.describe):
        with pytest.raises(ForeignError, match="holds run 4 of w2"):
            look("w1", 4)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "run.npz"
    make().write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for read in (Run.read, Run.describe):
        with pytest.raises(DamagedError, match=r"run\.npz.*simulate it again"):
            read(path)


def test_changed_bytes_are_noticed(tmp_path):
    path = tmp_path / "run.npz"
    make().write(path)
    whole = path.read_bytes()
    for position in range(200, len(whole) - 400, 97):  # the archive's index itself is behind these
        changed = bytearray(whole)
        changed[position] ^= 0x55
        path.write_bytes(changed)
        # Some bytes mean nothing, such as times of the archive's members.
        with contextlib.suppress(StorageError):
            assert Run.read(path).digest == make().digest


def test_records_that_differ_from_their_digest(tmp_path):
    path = tmp_path / "run.npz"
    make().write(path)
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["size"][0] ^= 1
    np.savez(path, **arrays)
    with pytest.raises(DamagedError, match="differ from the digest"):
        Run.read(path)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    np.savez(path, x=[1])
    with pytest.raises(ForeignError, match="no run"):
        Run.read(path)
    single = io.BytesIO()
    np.save(single, np.arange(3))
    path.write_bytes(single.getvalue())
    with pytest.raises(ForeignError, match=r"run\.npz: a NumPy file that is no run"):
        Run.read(path)
    path.write_bytes(b"time,size\n1,2\n")
    with pytest.raises(DamagedError, match=r"run\.npz: 14 bytes that are no complete run"):
        Run.read(path)
    text = json.dumps({"format": 99, "label": 1}).encode()
    np.savez(path, about=np.frombuffer(text, dtype=np.uint8))
    with pytest.raises(ForeignError, match="format 99, this version reads 1"):
        Run.read(path)
    text = json.dumps({"format": 1, "label": 1}).encode()
    np.savez(path, about=np.frombuffer(text, dtype=np.uint8))
    with pytest.raises(ForeignError, match="no array arrival_ns"):
        Run.read(path)


def test_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "run.npz"
    np.savez(path, about=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DamagedError, match="no complete run"):
        Run.read(path)


def test_files_that_are_zip_and_no_arrays(tmp_path):
    path = tmp_path / "run.npz"
    for content in (b"raw", b"", b"\x93NUMPY"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.npy", content)
        with pytest.raises(DamagedError, match="no complete run"):
            Run.read(path)
    np.savez(path, about=np.frombuffer(b"[" * 100_000, dtype=np.uint8))
    with pytest.raises(DamagedError, match="no complete run"):
        Run.describe(path)


def test_a_run_that_unpacks_without_end(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    make().write(path)
    monkeypatch.setattr(schema, "_LARGE", 1000)
    Run.read(path)
    np.savez_compressed(path, about=np.zeros(1_000_000, np.uint8))
    with pytest.raises(ForeignError, match="as no run does"):
        Run.read(path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"size": [1]}, SchemaError, "differ in length"),
        ({"size": [1.5, 2.0]}, SchemaError, "one row of integers"),
        ({"size": [1, 70_000]}, DomainError, "size goes from 1 to 70,000 bytes"),
        ({"delay_ns": [-1, 5]}, DomainError, "delay_ns goes from -1"),
        ({"arrival_ns": [5, 4]}, DomainError, "packet 2 arrived before"),
        ({"about": {}}, SchemaError, "label None"),
        ({"about": {"label": 0}}, SchemaError, "label 0"),
    ],
)
def test_bad_columns_are_refused(change, error, message):
    good = {"arrival_ns": [1, 2], "delay_ns": [1, 1], "size": [9, 9], "application": [0, 0]}
    with pytest.raises(error, match=message):
        Run(**{**good, "about": {"label": 1}, **change})


def test_runs_of_a_folder(tmp_path):
    runs = Runs(tmp_path / "runs")
    assert runs.available() == {}
    for setting, number in (("w1", 3), ("w1", 12), ("w2_c133", 0), ("w1", 105)):
        make(20, setting=setting, run=number).write(runs.path(setting, number))
    (tmp_path / "runs" / "w1" / "notes.txt").write_text("mine")
    assert runs.available() == {"w1": [3, 12, 105], "w2_c133": [0]}
    assert len(runs.read("w1", 12)) == 20
    runs.path("w1", 12).rename(runs.path("w1", 13))
    with pytest.raises(ForeignError, match="holds run 12 of w1"):
        runs.read("w1", 13)


def test_a_missing_run_says_how_to_make_it(tmp_path):
    with pytest.raises(
        StorageError, match=r"`memento datacenter simulate w3_c100 --runs 7 --to .*`"
    ):
        Runs(tmp_path).read("w3_c100", 7)
    with pytest.raises(StorageError, match="no such file"):
        Run.read(tmp_path / "none.npz")


@pytest.mark.parametrize(("setting", "number"), [("../w1", 1), ("W1", 1), ("w1", -1), ("w1", "1")])
def test_names_that_are_none(tmp_path, setting, number):
    with pytest.raises(SettingError, match=r"give|expected"):
        Runs(tmp_path).path(setting, number)
