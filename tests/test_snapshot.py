"""Folders: whole at any moment, refused when damaged, foreign or in use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from memento import snapshot
from memento.errors import (
    DamagedError,
    ForeignError,
    LockedError,
    SchemaError,
    SpaceError,
    StorageError,
)
from memento.files import digest

KIND = "test-things"
ARRAYS = {
    "numbers": np.arange(12.0).reshape(3, 4),
    "texts": np.array(["a", "longer"]),
    "times": np.array(["2024-01-01", "NaT"], "M8[ns]"),
    "nothing": np.empty((0, 3), np.uint8),
    "rows": np.array([(1, 0.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "zero": np.array(7.0),
    "big-endian": np.arange(3, dtype=">i4"),
    "a/b c:ü": np.array([True, False]),
}
DOCUMENTS = {"settings": {"a": [1, 2.5, None, "ü"], "inf": float("inf")}, "name/other": "text"}


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "some" / "folder"
    snapshot.write(path, KIND, ARRAYS, DOCUMENTS)
    return path


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def forge(folder: Path, **changes) -> None:
    """A manifest with other content whose own digest is right."""
    content = {**manifest(folder), **changes}
    content.pop("sha256")
    content["sha256"] = digest(json.dumps(content, sort_keys=True).encode())
    (folder / "manifest.json").write_text(json.dumps(content))


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("generation-*/*"))


def assert_intact(folder: Path, generation: int = 1) -> None:
    found = snapshot.read(folder, KIND)
    assert found.generation == generation
    assert found.documents == DOCUMENTS
    assert set(found.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_what_was_written_is_read(folder):
    assert_intact(folder)
    assert snapshot.exists(folder)
    assert snapshot.generation_of(folder) == 1


def test_writing_again_replaces_everything(folder):
    assert snapshot.write(folder, KIND, {"x": np.ones(2)}, {}) == 2
    found = snapshot.read(folder, KIND)
    assert (found.generation, list(found.arrays), dict(found.documents)) == (2, ["x"], {})
    assert sorted(p.name for p in folder.iterdir()) == [
        "generation-000002",
        "lock",
        "manifest.json",
    ]


def test_arrays_are_plain_npy_files(folder):
    for path in files_of(folder):
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)
    with pytest.raises(SchemaError, match="Python objects"):
        snapshot.write(folder, KIND, {"x": np.array([None])}, {})
    assert_intact(folder)


def test_names_do_not_leave_the_folder(tmp_path):
    snapshot.write(tmp_path / "f", KIND, {"../../evil": np.ones(1), "/x": np.ones(1)}, {"../up": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert set(snapshot.read(tmp_path / "f", KIND).arrays) == {"../../evil", "/x"}


NAMES = [f"{i:03d}" for i in range(len(ARRAYS))] + ["settings", "name"]


@pytest.mark.parametrize("start", NAMES)
@pytest.mark.parametrize("harm", ["flip", "truncate", "extend", "remove", "replace"])
def test_damage_to_any_file_is_found_and_named(folder, start, harm):
    (path,) = [p for p in files_of(folder) if p.name.startswith(start)]
    data = path.read_bytes()
    if harm == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "extend":
        path.write_bytes(data + b"\0")
    elif harm == "remove":
        path.unlink()
    else:
        path.write_bytes(b"x" * len(data))
    with pytest.raises(DamagedError, match=path.name.split("-")[0]):
        snapshot.read(folder, KIND)


def test_sizes_are_checked_without_digests_too(folder):
    path = files_of(folder)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match="bytes, the manifest says"):
        snapshot.read(folder, KIND, verify=False)


def test_a_file_of_another_type_than_the_manifest_says(folder):
    """Right size, right digest, other content: a manifest that was put together from two."""
    facts = manifest(folder)["files"]
    name = next(name for name, fact in facts.items() if fact.get("array") == "numbers")
    facts[name]["dtype"] = "float32"
    forge(folder, files=facts)
    with pytest.raises(DamagedError, match="float64 of shape"):
        snapshot.read(folder, KIND)


def test_a_generation_that_is_gone(folder):
    shutil.rmtree(folder / "generation-000001")
    with pytest.raises(DamagedError, match="missing"):
        snapshot.read(folder, KIND)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", ForeignError),
        (b"{", ForeignError),
        (b"\xff\xfe", ForeignError),
        (b"[1, 2]", ForeignError),
        (b'{"format": "test-things"}', ForeignError),
        (b'"text"', ForeignError),
    ],
)
def test_a_manifest_that_is_none(folder, text, error):
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(error, match=r"manifest\.json"):
        snapshot.read(folder, KIND)
    before = sorted(folder.rglob("*"))
    with pytest.raises(error):
        snapshot.write(folder, KIND, {}, {})
    assert sorted(folder.rglob("*")) == before


def test_a_changed_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"generation": 1', '"generation": 2'))
    with pytest.raises(DamagedError, match="sha256"):
        snapshot.read(folder, KIND)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other-things"}, "'format' is 'other-things'; expected 'test-things'"),
        ({"version": 2}, "'version' is 2; this Memento reads up to 1; update it"),
    ],
)
def test_foreign_folders_are_neither_read_nor_written(folder, changes, message):
    forge(folder, **changes)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ForeignError, match=message):
        snapshot.read(folder, KIND)
    with pytest.raises(ForeignError, match=message):
        snapshot.write(folder, KIND, {}, {})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_folders_with_other_things_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ForeignError, match=r"thesis\.tex"):
        snapshot.write(tmp_path, KIND, ARRAYS, DOCUMENTS)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(ForeignError, match=r"has no manifest\.json"):
        snapshot.read(tmp_path, KIND)


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        snapshot.read(tmp_path / "nowhere", KIND)
    assert snapshot.generation_of(tmp_path / "nowhere") == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        snapshot.write(tmp_path / "file", KIND, {}, {})
    with pytest.raises(StorageError):
        snapshot.read(tmp_path / "file", KIND)


def test_one_writer_at_a_time(folder):
    with snapshot.lock_of(folder) as lock:
        with pytest.raises(LockedError, match="by another process"):
            snapshot.write(folder, KIND, {}, {})
        assert_intact(folder)  # readers need no lock
        snapshot.write(folder, KIND, ARRAYS, DOCUMENTS, lock=lock)
    snapshot.write(folder, KIND, ARRAYS, DOCUMENTS)
    assert_intact(folder, 3)


def test_a_lock_goes_with_its_process(folder):
    code = (
        "import os, sys; from pathlib import Path; from memento import snapshot\n"
        "with snapshot.lock_of(Path(sys.argv[1])): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=dict(os.environ))
    assert snapshot.write(folder, KIND, ARRAYS, DOCUMENTS) == 2


def test_leftovers_of_killed_writers_are_harmless_and_cleared(folder):
    half = folder / "generation-000002"
    half.mkdir()
    (half / "000-numbers.npy").write_bytes(b"half a fi")
    (folder / ".manifest.json.0123456789abcdef.tmp").write_text('{"format"')
    old = folder / "generation-000000"
    old.mkdir()
    assert_intact(folder)
    snapshot.write(folder, KIND, ARRAYS, DOCUMENTS)
    assert_intact(folder, 2)
    assert sorted(p.name for p in folder.iterdir()) == [
        "generation-000002",
        "lock",
        "manifest.json",
    ]


def test_a_first_writer_that_was_killed(tmp_path):
    (tmp_path / "generation-000001").mkdir()
    (tmp_path / "lock").touch()
    (tmp_path / ".manifest.json.9.tmp").touch()
    with pytest.raises(ForeignError, match="never completed"):
        snapshot.read(tmp_path, KIND)
    snapshot.write(tmp_path, KIND, ARRAYS, DOCUMENTS)
    assert_intact(tmp_path)


def test_an_error_at_any_step_leaves_the_old_generation(folder, monkeypatch):
    """Each call that changes the disk fails once, in turn."""
    for name in ("fsync", "replace", "mkdir"):
        real, fail_at = getattr(os, name), 0
        while True:
            calls = 0

            def failing(*arguments, real=real, fail_at=fail_at, **keywords):
                nonlocal calls
                calls += 1
                if calls == fail_at + 1:
                    raise OSError(5, "Input/output error")
                return real(*arguments, **keywords)

            generation = snapshot.generation_of(folder)
            monkeypatch.setattr(os, name, failing)
            try:
                snapshot.write(folder, KIND, ARRAYS, DOCUMENTS)
            except StorageError as error:
                assert "Input/output error" in str(error)  # noqa: PT017 - also no error is right
            monkeypatch.undo()
            # after the manifest was replaced, the new generation counts even if an error follows
            assert_intact(folder, snapshot.generation_of(folder))
            assert snapshot.generation_of(folder) in (generation, generation + 1)
            if calls <= fail_at:
                break
            fail_at += 1
        assert fail_at > 0 or name == "mkdir"


def test_a_limit_on_file_sizes(folder):
    """As on a full disk; in a process of its own, whose limit this is."""
    code = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from memento import snapshot
from memento.errors import SpaceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    snapshot.write(Path(sys.argv[1]), "test-things", {"x": np.zeros(50_000)}, {})
except SpaceError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True
    )
    assert "free some space" in done.stdout
    assert_intact(folder)
    assert [p.name for p in folder.glob("generation-*")] == ["generation-000001"]


def test_no_space(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpaceError, match=f"{folder}: No space left"):
        snapshot.write(folder, KIND, ARRAYS, DOCUMENTS)
    monkeypatch.undo()
    assert_intact(folder)


def test_readers_during_writes_see_one_generation(tmp_path):
    """Every number in every array and document is that of the generation."""

    def write(number: int) -> None:
        arrays = {name: np.full(2000, number) for name in "abcd"}
        snapshot.write(tmp_path, KIND, arrays, {"number": number})

    write(1)
    stop = threading.Event()
    failures, reads = [], []

    def read() -> None:
        try:
            while not stop.is_set():
                found = snapshot.read(tmp_path, KIND)
                numbers = {int(n) for array in found.arrays.values() for n in np.unique(array)}
                assert numbers == {found.documents["number"]} == {found.generation}
                reads.append(found.generation)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    number = 1
    while number < 30 or (len(set(reads)) < 3 and not failures):
        number += 1
        write(number)
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert reads == sorted(reads) or len(readers) > 1


def test_numpy_values_in_documents_are_refused(tmp_path):
    with pytest.raises(SchemaError, match="'a' cannot be stored"):
        snapshot.write(tmp_path, KIND, {}, {"a": np.int64(1)})
    assert not snapshot.exists(tmp_path)
