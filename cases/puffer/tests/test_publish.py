"""Publication of models: whole generations, a switch, a way back, and what killed writers leave."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from memento import files
from memento.deployment import git as git_module
from memento.deployment import publication as module
from memento.deployment.git import mirror_to_git
from memento.errors import (
    DamagedError,
    ForeignError,
    LockedError,
    ModelError,
    SettingError,
    SpaceError,
    StorageError,
)
from memento_puffer.deployment.publish import Publication, digest_of
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp import Ttp, read_cpp, read_meta

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here


@pytest.fixture
def models(tmp_path):
    return Publication(tmp_path / "models", keep=3)


def tree(folder):
    """Every file below a folder with its content; links with where they lead."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_a_version_is_complete(models):
    ttp = Ttp.fresh(seed=1, dtype="float64")
    version = models.publish(ttp, "v1", day="2022-09-20", facts={"variant": "default"})
    names = {f"{p}-{h}.{s}" for h in range(5) for p, s in [("py", "pt"), ("cpp", "pt")]}
    names |= {f"cpp-meta-{h}.json" for h in range(5)} | {"manifest.json"}
    assert {path.name for path in models.link.iterdir()} == names
    assert version.manifest["facts"] == {"variant": "default"}
    assert version.identity == [digest_of(network) for network in ttp]
    for mine, read, other in zip(ttp, version.read(), Ttp.read(models.link), strict=True):
        for name, array in mine.arrays().items():
            np.testing.assert_array_equal(read.arrays()[name], array)
            np.testing.assert_array_equal(other.arrays()[name], array)


def test_a_server_loads_what_was_published(models):
    version = models.publish(Ttp.fresh(seed=1), "v1")
    x = np.random.default_rng(0).normal(size=(7, 62))
    program = torch.jit.load(version.folder / "cpp-3.pt")
    network = version.read()[3]
    z = network.moments.standardise(x, np.float64)
    np.testing.assert_allclose(program(torch.from_numpy(z)).numpy(), network.logits(x), atol=1e-12)


def test_the_same_model_gives_the_same_bytes_however_many_were_written_before(tmp_path):
    """PyTorch numbers the classes of a process; a job that did many days at once would differ."""
    ttp = Ttp.fresh(seed=1)
    for name in ("a", "b"):
        Publication(tmp_path / name).publish(ttp, "v1")
        Publication(tmp_path / f"between-{name}").publish(Ttp.fresh(seed=2), "v1")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    program = torch.jit.load(io.BytesIO((tmp_path / "b/current/cpp-0.pt").read_bytes()))
    assert program(torch.zeros((1, 62), dtype=torch.float64)).shape == (1, 21)


def test_publishing_again_changes_nothing(models):
    models.publish(Ttp.fresh(seed=1), "v1")
    models.publish(Ttp.fresh(seed=2), "v2")
    models.rollback("tests")
    before = tree(models.root)
    assert models.publish(Ttp.fresh(seed=2), "v2").name == "v2"
    assert tree(models.root) == before
    assert models.current().name == "v1", "what a person rolled back must not come again"
    with pytest.raises(ForeignError, match="another model was published as 'v2'"):
        models.publish(Ttp.fresh(seed=3), "v2")


def test_versions_are_kept_and_removed(models):
    for seed in range(6):
        models.publish(Ttp.fresh(seed), f"v{seed}")
    assert [version.name for version in models.versions()] == ["v3", "v4", "v5"]
    models.rollback("tests", to="v3")
    for seed in range(6, 9):
        models.publish(Ttp.fresh(seed), f"v{seed}")
    assert [version.name for version in models.versions()] == ["v6", "v7", "v8"]
    assert len(models.history()) == 10


def test_what_serves_is_never_removed(tmp_path):
    models = Publication(tmp_path, keep=1)
    models.publish(Ttp.fresh(1), "v1")
    models.publish(Ttp.fresh(2), "v2")
    assert models.previous() is None
    with pytest.raises(StorageError, match="no version before"):
        models.rollback("tests")
    assert models.current().name == "v2"


def test_rollback(models):
    for seed in range(3):
        models.publish(Ttp.fresh(seed), f"v{seed}")
    assert models.rollback("stalls doubled", day="2022-09-20").name == "v1"
    assert os.readlink(models.link) == "versions/v1"
    last = models.history()[-1]
    assert (last.action, last.version, last.replaces) == ("rollback", "v1", "v2")
    assert (last.day, last.reason) == ("2022-09-20", "stalls doubled")
    assert models.rollback("again").name == "v0"
    assert models.rollback("there", to="v2").name == "v2"
    with pytest.raises(StorageError, match="no version 'v9'; there are: v0, v1, v2"):
        models.rollback("nowhere", to="v9")


def test_no_rollback_to_a_damaged_version(models):
    for seed in range(2):
        models.publish(Ttp.fresh(seed), f"v{seed}")
    path = models.root / "versions/v0/cpp-meta-2.json"
    path.write_bytes(path.read_bytes().replace(b"1.0", b"2.0"))
    with pytest.raises(DamagedError, match=r"cpp-meta-2\.json differs from the manifest"):
        models.rollback("tests")
    assert models.current().name == "v1"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "x.tmp", "a b", "v1/.."])
def test_names_that_are_no_folders(models, name):
    with pytest.raises(SettingError):
        models.publish(Ttp.fresh(1), name)
    assert not models.root.exists()


def test_nothing_is_switched_when_the_check_refuses(models):
    models.publish(Ttp.fresh(1), "v1")
    before = tree(models.root)

    def refuse(networks):
        assert len(networks) == 5
        raise ModelError("stalls would double")

    with pytest.raises(ModelError, match="stalls would double"):
        models.publish(Ttp.fresh(2), "v2", validate=refuse)
    assert tree(models.root) == before
    assert models.publish(Ttp.fresh(2), "v2").name == "v2"


def test_a_network_that_predicts_nonsense_is_not_published(models):
    good = Ttp.fresh(1, dtype="float64")
    weights = tuple(1e200 * array for array in good[3].weights)
    broken = Network(weights, good[3].moments)
    with pytest.raises(ModelError, match="network 3"), np.errstate(all="ignore"):
        models.publish(Ttp((*good.networks[:3], broken, good[4])), "v1")
    assert models.current() is None
    assert not models.link.is_symlink()


read_manifest = module.read_manifest


class Killed(BaseException):
    """As if the process had gone: no handler may tidy up, so tests make them do nothing."""


def interrupt_at(monkeypatch, count):
    """Stop at the `count`-th change of the disk, without any clearing up afterwards."""
    calls = 0

    def guard(name, original):
        def call(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls > count:
                raise Killed
            return original(*arguments, **keywords)

        return call

    for owner, name in (
        (os, "rename"), (os, "replace"), (os, "symlink"), (module, "erase"), (os, "mkdir"),
        (os, "unlink"), (module.shutil, "rmtree"), (files, "write_synced"),
        (Path, "write_bytes"), (Path, "write_text"), (module, "sync_folder"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, guard(name, getattr(owner, name)))


@pytest.mark.slow
def test_interrupted_at_every_change_of_the_disk(tmp_path, monkeypatch):
    """Every reader sees the old or the new generation, and the next run comes to the same bytes."""
    straight = Publication(tmp_path / "straight", keep=2)
    for seed in range(3):
        straight.publish(Ttp.fresh(seed), f"v{seed}")
    start = tmp_path / "start"
    shutil.copytree(straight.root, start, symlinks=True)
    straight.publish(Ttp.fresh(3), "v3")
    wanted = tree(straight.root)
    count, finished = 0, False
    while not finished:
        models = Publication(tmp_path / f"m{count}", keep=2)
        shutil.copytree(start, models.root, symlinks=True)
        with monkeypatch.context() as patched:
            interrupt_at(patched, count)
            try:
                models.publish(Ttp.fresh(3), "v3")
                finished = True
            except Killed:
                pass
        served = models.link.resolve()
        assert served.name in ("v2", "v3")
        models.version(served.name).verify()
        assert models.current().name in ("v2", "v3")
        models.publish(Ttp.fresh(3), "v3")
        assert tree(models.root) == wanted, f"after {count} changes"
        count += 1
    assert count > 15


@pytest.mark.parametrize("step", range(0, 40, 7))
def test_a_full_disk_leaves_what_served(models, monkeypatch, step):
    models.publish(Ttp.fresh(1), "v1")
    before = tree(models.root)
    calls = 0

    def filling(original):
        def full(path, content):
            nonlocal calls
            calls += 1
            if calls > step:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(path, content)

        return full

    with monkeypatch.context() as patched:
        for owner, name in ((files, "write_synced"), (Path, "write_bytes"), (Path, "write_text")):
            patched.setattr(owner, name, filling(getattr(owner, name)))
        try:
            models.publish(Ttp.fresh(2), "v2")
        except SpaceError:
            assert tree(models.root) == before
        else:
            assert step >= 22, "15 files, 5 of them again, manifest and history"


def test_failure_04_left_over_temporary_files_are_cleared(models):
    """Killed writers of the real deployment left temporary files in folders that servers read."""
    models.publish(Ttp.fresh(1), "v1")
    clean = tree(models.root)
    (models.root / ".history.json.77.tmp").write_text("[")
    (models.root / ".current.77.tmp").symlink_to("versions/v0")
    half = models.root / "versions" / ".v2.77.tmp"
    half.mkdir()
    (half / "py-0.pt").write_bytes(b"half")
    unnamed = models.root / "versions" / "v2"  # renamed by a writer that was killed
    unnamed.mkdir()
    assert models.current().name == "v1"
    models.publish(Ttp.fresh(1), "v1")
    assert tree(models.root) == clean
    assert not unnamed.exists()


def test_failure_03_generations_never_mix(models):
    """Five horizons, weights and moments apart: a server could pair new weights with old moments.

    A reader that resolves the link once always finds 15 files of one generation, while versions
    are published as fast as can be.
    """
    marks = {}
    for seed in range(5):
        ttp = Ttp.fresh(seed)
        marks[f"v{seed}"] = {digest_of(network) for network in ttp}
    models = Publication(models.root, keep=4)
    models.publish(Ttp.fresh(0), "v0")
    stop, seen, problems = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            folder = models.link.resolve()
            try:
                found = {
                    digest_of(Network(read_cpp(folder / f"cpp-{h}.pt"), moments))
                    for h in range(5)
                    for moments in [read_meta(folder / f"cpp-meta-{h}.json")]
                }
            except StorageError as error:
                problems.append(error)
                continue
            if found != marks[folder.name]:
                problems.append(folder.name)
            seen.add(folder.name)

    reader = threading.Thread(target=read)
    reader.start()
    for seed in range(1, 5):
        models.publish(Ttp.fresh(seed), f"v{seed}")
    stop.set()
    reader.join()
    assert not problems
    assert seen


def test_a_second_writer_is_refused(models):
    models.publish(Ttp.fresh(1), "v1")
    with models.lock():
        with pytest.raises(LockedError):
            models.publish(Ttp.fresh(2), "v2")
        with pytest.raises(LockedError):
            models.rollback("tests")
    assert models.publish(Ttp.fresh(2), "v2").name == "v2"


@pytest.mark.parametrize(
    "text", ["{}", "[", '[{"action": "publish"}]', '[{"action": "x", "version": 1}]', "null"]
)
def test_a_history_that_is_none(models, text):
    models.publish(Ttp.fresh(1), "v1")
    (models.root / "history.json").write_text(text)
    if text == "{}":
        assert models.history() == []
        return
    with pytest.raises(DamagedError, match=r"no history|no JSON"):
        models.current()


def test_a_manifest_that_was_changed(models):
    version = models.publish(Ttp.fresh(1), "v1")
    path = version.folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["facts"] = {"variant": "other"}
    path.write_text(json.dumps(manifest))
    with pytest.raises(DamagedError, match="was changed"):
        models.current()
    path.unlink()
    with pytest.raises(DamagedError, match="is missing"):
        models.current()


# git


def git(folder, *words):
    result = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A bare repository and a clone of it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    origin, work = tmp_path / "origin.git", tmp_path / "work"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    subprocess.run(["git", "clone", "-q", str(origin), str(work)], check=True, capture_output=True)
    git(work, "symbolic-ref", "HEAD", "refs/heads/main")
    return origin, work


def test_a_generation_is_one_commit(models, clone):
    origin, work = clone
    for seed in range(2):
        version = models.publish(Ttp.fresh(seed), f"v{seed}")
        commit = mirror_to_git(version, work, "models/default", remote="origin")
        assert git(origin, "rev-parse", "main") == commit
        assert mirror_to_git(version, work, "models/default", remote="origin") is None
    assert git(origin, "rev-list", "--count", "main") == "2"
    names = git(origin, "ls-tree", "--name-only", "-r", "main").splitlines()
    assert len(names) == 16
    data = subprocess.run(
        ["git", "-C", str(origin), "show", "main:models/default/cpp-4.pt"], capture_output=True
    ).stdout
    assert data == (version.folder / "cpp-4.pt").read_bytes()


def test_others_push_at_the_same_time(models, clone, tmp_path):
    origin, work = clone
    mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, "a", remote="origin")
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(origin), str(other)], check=True)
    (other / "README").write_text("theirs")
    git(other, "add", "README")
    git(other, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "theirs")
    git(other, "push", "-q")
    mirror_to_git(models.publish(Ttp.fresh(1), "v1"), work, "a", remote="origin")
    assert git(origin, "rev-list", "--count", "main") == "3"
    assert (work / "README").read_text() == "theirs"


def test_what_a_killed_publisher_left_in_the_work_tree(models, clone):
    origin, work = clone
    version = models.publish(Ttp.fresh(0), "v0")
    mirror_to_git(version, work, "a", remote="origin")
    (work / "a" / "py-0.pt").write_bytes(b"half")
    (work / "a" / ".py-1.pt.77.tmp").write_bytes(b"half")
    git(work, "add", "--all")
    version = models.publish(Ttp.fresh(1), "v1")
    mirror_to_git(version, work, "a", remote="origin")
    assert git(origin, "rev-list", "--count", "main") == "2"
    assert len(git(origin, "ls-tree", "--name-only", "-r", "main").splitlines()) == 16


def test_what_a_person_changed_elsewhere_stays(models, clone, tmp_path):
    """Uncommitted work in the same clone is nobody's but theirs."""
    origin, work = clone
    for name in ("README", "notes", "plan"):
        (work / name).write_text("before")
    git(work, "add", "--all")
    git(work, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "theirs")
    git(work, "push", "-q", "--set-upstream", "origin", "main")
    (work / "README").write_text("edited")
    (work / "notes").write_text("staged")
    (work / "draft").write_text("untracked")
    (work / "plan").unlink()
    git(work, "add", "notes")
    state = git(work, "status", "--porcelain")
    for seed in range(2):
        version = models.publish(Ttp.fresh(seed), f"v{seed}")
        commit = mirror_to_git(version, work, "models/a", remote="origin")
        assert git(origin, "rev-parse", "main") == commit
        assert git(work, "status", "--porcelain") == state
    changed = git(work, "log", "-2", "--name-only", "--format=").split()
    assert all(name.startswith("models/a/") for name in changed)
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(origin), str(other)], check=True)
    (other / "README").write_text("also edited")
    git(other, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-a", "-m", "more")
    git(other, "push", "-q")
    with pytest.raises(StorageError, match=r"git rebase failed: .*commit or stash them"):
        mirror_to_git(models.publish(Ttp.fresh(2), "v2"), work, "models/a", remote="origin")
    assert git(work, "status", "--porcelain") == state
    assert (work / "README").read_text() == "edited"


def test_commits_of_both_sides(models, clone, tmp_path):
    """Ours could not be pushed, others have pushed since, and nobody has said who commits here."""
    origin, work = clone
    mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, "a", remote="origin")
    mirror_to_git(models.publish(Ttp.fresh(1), "v1"), work, "a")
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(origin), str(other)], check=True)
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    (other / "README").write_text("theirs")
    git(other, "add", "README")
    git(other, *who, "commit", "-q", "-m", "theirs")
    git(other, "push", "-q")
    version = models.version("v1")
    assert mirror_to_git(version, work, "a", remote="origin") == git(origin, "rev-parse", "main")
    assert git(origin, "rev-list", "--count", "main") == "3"
    # The same file changed on both sides is for a person to look at, not to be left halfway.
    mirror_to_git(models.publish(Ttp.fresh(2), "v2"), work, "a")
    git(other, "pull", "-q")
    (other / "a" / "manifest.json").write_text("{}")
    git(other, *who, "commit", "-q", "-a", "-m", "theirs")
    git(other, "push", "-q")
    with pytest.raises(StorageError, match="git rebase failed"):
        mirror_to_git(models.version("v2"), work, "a", remote="origin")
    assert git(work, "status", "--porcelain") == ""
    assert git(work, "log", "-1", "--format=%s") == "a: model v2"


def test_a_rebase_of_a_person_is_not_aborted(models, clone):
    _, work = clone
    mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, "a")
    (work / ".git" / "rebase-merge").mkdir()
    with pytest.raises(StorageError, match="a rebase is going on; finish or abort it"):
        mirror_to_git(models.publish(Ttp.fresh(1), "v1"), work, "a")
    assert (work / ".git" / "rebase-merge").is_dir()


def test_variables_of_another_repository_lead_nowhere(models, clone, tmp_path, monkeypatch):
    _, work = clone
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True)
    with monkeypatch.context() as patched:
        patched.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
        commit = mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, "a")
    assert git(work, "rev-parse", "HEAD") == commit


def test_a_damaged_version_is_not_committed(models, clone):
    _, work = clone
    version = models.publish(Ttp.fresh(0), "v0")
    (version.folder / "cpp-0.pt").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"cpp-0\.pt differs"):
        mirror_to_git(version, work, "a")
    assert not (work / "a").exists()


def test_a_push_that_failed_is_made_up_for(models, clone, tmp_path):
    origin, work = clone
    mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, "a", remote="origin")
    moved = tmp_path / "away.git"
    origin.rename(moved)
    version = models.publish(Ttp.fresh(1), "v1")
    with pytest.raises(StorageError, match="git fetch failed"):
        mirror_to_git(version, work, "a", remote="origin")
    moved.rename(origin)
    mirror_to_git(version, work, "a", remote="origin")
    assert git(origin, "rev-list", "--count", "main") == "2"


def test_failure_07_the_lock_is_released_whatever_happens(models, clone, monkeypatch):
    """Jobs of five horizons pushed to one repository; one that failed kept the lock for good."""
    _, work = clone
    version = models.publish(Ttp.fresh(0), "v0")
    original = git_module._Git.__call__

    def fails(self, *words):
        if words[0] == "add":
            raise KeyboardInterrupt
        return original(self, *words)

    with monkeypatch.context() as patched:
        patched.setattr(git_module._Git, "__call__", fails)
        with pytest.raises(KeyboardInterrupt):
            mirror_to_git(version, work, "a")
    with files.Lock(work / ".git" / "memento-publish.lock"), pytest.raises(LockedError):
        mirror_to_git(version, work, "a")  # one publisher at a time
    assert mirror_to_git(version, work, "a") is not None
    lock = work / ".git" / "index.lock"
    lock.touch()
    with pytest.raises(LockedError, match=r"index\.lock exists"):
        mirror_to_git(version, work, "a")
    os.utime(lock, (0, 0))  # left when the machine went down
    assert mirror_to_git(version, work, "a") is None


@pytest.mark.parametrize(
    "folder", ["", ".", "../a", "/tmp/a", "a/../..", ".git", ".git/hooks", "link/a"]
)
def test_folders_outside_of_the_work_tree(models, clone, folder):
    _, work = clone
    (work / "link").symlink_to(work.parent)
    version = models.publish(Ttp.fresh(0), "v0")
    with pytest.raises(SettingError):
        mirror_to_git(version, work, folder)


def test_no_work_tree(models, tmp_path):
    version = models.publish(Ttp.fresh(0), "v0")
    with pytest.raises(StorageError, match="no clone of a git repository"):
        mirror_to_git(version, tmp_path, "a")


@pytest.mark.parametrize("folder", ["*", ":/", "[a-z]*", "?", "-f", ":(top)x", "a\\b", "x/.git/y"])
def test_folders_that_git_reads_as_something_else(models, clone, folder):
    """Nothing of a person's is touched: git's own patterns would clear away all of the tree."""
    _, work = clone
    (work / "precious").write_text("untracked")
    with pytest.raises(SettingError, match="by its plain path"):
        mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, folder)
    assert (work / "precious").read_text() == "untracked"


@pytest.mark.parametrize("remote", ["--upload-pack=touch {}", "elsewhere", "ext::touch {}", ""])
def test_a_remote_is_one_that_git_lists(models, clone, tmp_path, remote):
    _, work = clone
    remote = remote.format(tmp_path / "ran")
    with pytest.raises(SettingError, match="expected one that git remote lists"):
        mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, "a", remote=remote)
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_a_person_s_is_left_alone(models, clone):
    _, work = clone
    (work / "src").mkdir()
    (work / "src" / "thesis.tex").write_text("mine")
    with pytest.raises(ForeignError, match=r"holds other things \(thesis\.tex\)"):
        mirror_to_git(models.publish(Ttp.fresh(0), "v0"), work, "src")
    assert (work / "src" / "thesis.tex").read_text() == "mine"
