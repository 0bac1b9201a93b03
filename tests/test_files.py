"""Files: whole or absent for any number of writers, on file systems as they are."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from memento import FIFO, Group, Memory, files, snapshot
from memento.errors import ForeignError, LockedError, SettingError, StorageError
from memento.files import Lock, atomic_write, local_path, replacing


def filled() -> Memory:
    memory = Memory(5, FIFO())
    memory.insert(y=[1, 2])
    return memory


def test_threads_that_write_one_file_leave_one_of_their_contents(tmp_path):
    target, wrong = tmp_path / "state", set()
    contents = {bytes([65 + k]) * 100_000 for k in range(4)}

    def write(data: bytes) -> None:
        for _ in range(15):
            try:
                atomic_write(target, data)
                if target.read_bytes() not in contents:
                    wrong.add("mixed")
            except Exception as error:
                wrong.add(repr(error))

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_what_a_killed_writer_left_is_cleared_by_the_next(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from memento.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as made: made.write_bytes(b'half'); os._exit(0)"
    )
    target = tmp_path / "train.npz"
    subprocess.run([sys.executable, "-c", code, str(target)], check=True)
    assert len(list(tmp_path.iterdir())) == 1
    others = (".train.npz.backup.tmp", ".train.npz.123.tmp", "other.0123456789abcdef.tmp")
    for name in others:
        (tmp_path / name).touch()
    with replacing(target) as living:
        atomic_write(target, b"other")  # leaves alone what another one is writing
        assert living.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"train.npz", *others}


def test_a_failure_names_what_was_asked_for(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "a.npz") as made:
        raise OSError(errno.ENOSPC, "No space left on device", str(made))
    assert ".tmp" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_folders_that_cannot_be_synced(tmp_path, monkeypatch, number):
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    filled().save(tmp_path / "m")
    assert len(Memory.load(tmp_path / "m")) == 2


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_file_systems_without_locks(tmp_path, monkeypatch, number):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(RuntimeWarning, match="without locks; make sure that only one process"):
        filled().save(tmp_path / "m")
    assert len(Memory.load(tmp_path / "m")) == 2


def test_a_lock_that_was_removed_meanwhile_is_made_again(tmp_path):
    path = tmp_path / "lock"
    with Lock(path):
        path.unlink()
        with Lock(path), pytest.raises(LockedError), Lock(path):
            pass


ADDRESSES = ["s3://bucket/memory", "gs://b/m", "https://a.b/c", "hdfs://a/b", "file:///tmp/m"]


NO_PATHS = ["", "a\0b", "\ud800", "a/" + "x" * 256, 5, None]


@pytest.mark.parametrize("address", [*ADDRESSES, Path("s3://bucket/memory"), *NO_PATHS])
def test_addresses_are_no_paths(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for use in (filled().save, Memory.load, Group.load, Group([filled()]).save, local_path):
        with pytest.raises(SettingError, match="path is"):
            use(address)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "memory init s3://b/m --policy fifo --capacity 5",
        "memory status gs://b/m",
        "memory export m https://a.b/day.csv",
        "memory export m s3://b/day.csv",
        "report s3://b/results",
        "puffer deploy status s3://b/state",
    ],
)
def test_addresses_are_no_paths_for_commands(words, tmp_path, monkeypatch, capsys):
    pytest.importorskip("typer")
    from memento.cli.main import main

    monkeypatch.chdir(tmp_path)
    filled().save("m")
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert "an address; give a local path" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_paths_are_paths(tmp_path):
    for text in ("a", "./s3:", "/a/b", "C:/data", "dir/with:colon/x", "..", "a:b"):
        assert local_path(text) == Path(text)


# ------------------------------------------------------------------- what is not ours in a folder


def test_nothing_of_the_user_s_in_the_folder_is_touched(tmp_path):
    filled().save(tmp_path)
    mine = {
        "generation-backup/photo.jpg": b"1",
        "generation-000000/notes.txt": b"2",
        "generation-000002/thesis.tex": b"3",
        "generation-000099/000-y.npy": b"4",
        "generation-notes.txt": b"5",
        ".manifest.json.mine.tmp": b"6",
        "notes.md": b"7",
    }
    for name, content in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "generation-000003").symlink_to(tmp_path / "generation-backup")
    for _ in range(3):
        memory = Memory.load(tmp_path)
        memory.insert(y=[3])
        memory.save(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in mine} == mine
    assert (tmp_path / "generation-000003").is_symlink()
    assert len(Memory.load(tmp_path)) == 5
    ours = [p for p in tmp_path.glob("generation-*") if list(p.glob("*.json"))]
    assert len(ours) == 1


@pytest.mark.parametrize("name", ["thesis.tex", "lock", "generation-notes", "generation-000001"])
def test_a_refusal_leaves_a_folder_as_it_was(tmp_path, name):
    """Also where what is in it looks like ours."""
    if name == "generation-000001":
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.jpg").touch()
    else:
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for use in (lambda: filled().save(tmp_path), lambda: snapshot.lock_of(tmp_path)):
        with pytest.raises(ForeignError, match="holds other things"):
            use()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_first_write_that_fails_leaves_no_folder(tmp_path, monkeypatch):
    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageError, match="No space"):
        filled().save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_long_names_in_a_group_do_not_share_a_file(tmp_path):
    start = "a name that is rather long, " * 5
    group = Group({f"{start}{k}": Memory(5, FIFO(), seed=k) for k in range(3)})
    group.insert(y=[1, 2])
    group.save(tmp_path / "g")
    assert list(Group.load(tmp_path / "g").memories) == list(group.memories)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "pair"
    with files.replace_folder(target) as new:
        (new / "inner").mkdir()
        (new / "inner/a").write_bytes(b"1")
        assert not target.exists()
    with pytest.raises(FileExistsError), files.replace_folder(target) as new:
        new.mkdir()
    assert [path.name for path in target.rglob("*")] == ["inner", "a"]
    with pytest.raises(OSError, match="not empty"), files.replace_folder(target, replace=False):
        pass
    assert (target / "inner/a").read_bytes() == b"1"
    with files.replace_folder(target) as new:
        (new / "b").write_bytes(b"2")
    assert [path.name for path in target.rglob("*")] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    target, rename = tmp_path / "pair", os.rename
    target.mkdir()
    (target / "a").write_bytes(b"1")

    def fails(source, to):
        if Path(source).name == "new":
            raise OSError(28, "No space left on device")
        rename(source, to)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="No space"), files.replace_folder(target):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["pair", "a"]


def test_temporary_folders_of_the_living_stay_and_those_of_the_dead_go(tmp_path):
    dead = tmp_path / ".pair.0123456789abcdef.tmp"
    (dead / "new").mkdir(parents=True)
    (dead / "new/a").write_bytes(b"1")
    (tmp_path / ".pair.mine.tmp").mkdir()
    with files.replace_folder(tmp_path / "pair") as one:
        assert not dead.exists()
        with files.replace_folder(tmp_path / "pair") as other:
            files.clear_temporaries(tmp_path)
            assert one.is_dir()
            (other / "b").write_bytes(b"2")
        (one / "a").write_bytes(b"1")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".pair.mine.tmp", "a", "pair"]
