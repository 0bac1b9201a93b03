from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

pytest.importorskip("msgspec")

from memento.deployment import Publication
from memento.deployment.git import mirror_to_git
from memento.deployment.model_files import LearnerFiles
from memento.errors import ForeignError

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
