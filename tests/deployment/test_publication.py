from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

pytest.importorskip("msgspec")

from memento.deployment import Publication
from memento.deployment.git import mirror_to_git
from memento.deployment.model_files import LearnerFiles
from memento.errors import ForeignError, SettingError, StorageError

TASKS = ["y", "late_y"]


def model(number, *, late=True):
    return [{"p": np.array([number])}, {"p": np.array([-number])} if late else {}]


@pytest.fixture
def models(tmp_path):
    return Publication(tmp_path / "models", LearnerFiles(TASKS), keep=2)


def test_the_version_before_is_what_served_before(models):
    for number, name in enumerate("AB"):
        models.publish(model(number), name)
    models.rollback("B is bad")
    models.publish(model(2), "C")
    assert models.names() == ["A", "B", "C"]
    assert models.previous().name == "A"
    assert models.rollback("C as well").name == "A"
    assert models.previous() is None
    models.publish(model(3), "D")
    models.publish(model(4), "E")
    assert (models.names(), models.previous().name) == (["D", "E"], "D")


def test_what_served_before_a_version_that_is_gone(models):
    models = Publication(models.root, models.files)
    for number, name in enumerate("ABC"):
        models.publish(model(number), name)
    models.version("B").folder.rename(models.root.parent / "B")
    assert models.previous().name == "A"


def test_versions_of_other_files_follow_each_other_in_git(models, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
    without = models.publish(model(1, late=False), "A")
    whole = models.publish(model(2), "B")
    for version in (without, whole, without):
        assert mirror_to_git(version, tree, "main")
        names = {path.name for path in (tree / "main").iterdir()}
        assert names == {"manifest.json", *version.manifest["files"]}
    (tree / "main" / "thesis.tex").write_text("mine")
    with pytest.raises(ForeignError, match=r"thesis\.tex"):
        mirror_to_git(whole, tree, "main")


def test_folders_that_no_clone_can_have(models, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
    (tree / "loop").symlink_to("loop")
    (tree / "hooked").symlink_to(".git/hooks")
    version = models.publish(model(1), "A")
    for folder in ("loop/x", "hooked/x", "m/" * 2000, "\ud800"):
        with pytest.raises(SettingError, match="inside the work tree"):
            mirror_to_git(version, tree, folder)


def test_what_git_quotes_of_a_damaged_clone_need_not_be_text(models, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
    subprocess.run(["git", "-C", tree, "remote", "add", "origin", "../gone"], check=True)
    (tree / ".git" / "HEAD").write_bytes(b"ref: refs/heads/\xe9\n")
    with pytest.raises(StorageError, match="git push failed"):
        mirror_to_git(models.publish(model(1), "A"), tree, "main", remote="origin")


def test_hooks_of_a_clone_are_run(models, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
    hook = tree / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/run'\n")
    hook.chmod(0o755)
    assert mirror_to_git(models.publish(model(1), "A"), tree, "main")
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize("remote", ["ext::touch run", "--upload-pack=touch run", "../up", "evil"])
def test_remotes_are_known_names(models, tmp_path, monkeypatch, remote):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    tree = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", "-b", "main", tree], check=True)
    subprocess.run(["git", "-C", tree, "remote", "add", "evil", "ext::touch run"], check=True)
    error = StorageError if remote == "evil" else SettingError  # git refuses such an address
    with pytest.raises(error):
        mirror_to_git(models.publish(model(1), "A"), tree, "main", remote=remote)
    assert not list(tmp_path.rglob("run"))
