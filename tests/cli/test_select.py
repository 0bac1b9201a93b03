"""`memento select`: from files and words to a folder, and what goes wrong on the way."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from called import code_of, content
from memento import scale
from memento.errors import WorkerError

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq
import tiny

ASKED = ("--capacity", 300, "--labels", "y:4", "--probabilities", "yhat", "--block-rows", 400)


@pytest.fixture
def folder(tmp_path):
    return tiny.write(tmp_path / "days", layout="wide")


def test_the_command_selects_what_the_function_does(folder, tmp_path, capsys):
    assert code_of("select", folder, "--to", tmp_path / "out", *ASKED, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    from memento import JensenShannon, Memento

    policy = Memento([JensenShannon.of_labels("y", 4), JensenShannon.of_probabilities("yhat")])
    report = scale.select(folder, 300, policy, tmp_path / "again", block_rows=400)
    assert said["digest"] == report.digest
    assert said["kept"] == 300
    assert said["offered"] == 3600
    assert len(said["files"]) == 3
    again = code_of("select", *sorted(folder.iterdir()), "--to", tmp_path / "out", *ASKED)
    assert again == 0
    said = capsys.readouterr()
    assert re.search(r"kept 300 of 3,600 rows \(3 files\)", said.out)


def test_stages_are_said_where_there_is_no_terminal(folder, tmp_path, capsys):
    assert code_of("select", folder, "--to", tmp_path / "out", *ASKED) == 0
    assert "memento: opening files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--policy", "density-reservoir", "--set", "uniform=0.5", "--id", "id"),
        ("--policy", "memento", "--set", "batch_size=16", "--columns", "y,id,yhat_0"),
        ("--set", "remainder=drop", "--seed", 3),
    ],
)
def test_policies_take_their_settings(folder, tmp_path, words):
    if "--columns" in words:
        words = (*words[:-1], "y,id,yhat_0,yhat_1,yhat_2,yhat_3")
    assert code_of("select", folder, "--to", tmp_path / "out", *ASKED, *words) == 0


def test_other_policies_need_no_columns_to_compare(folder, tmp_path):
    for name, further in (("reservoir", ()), ("class-balanced-reservoir", ("--set", "label=y"))):
        words = ("--policy", name, *further, "--capacity", 100)
        assert code_of("select", folder, "--to", tmp_path / name, *words) == 0
        assert scale.Selected.read(tmp_path / name).kept == 100


def test_a_held_selection_goes_on(folder, tmp_path, capsys):
    first, *others = sorted(folder.iterdir())
    out = tmp_path / "held"
    assert code_of("select", first, "--to", out, *ASKED) == 0
    assert code_of("select", *others, "--to", out, "--held", out, *ASKED) == 0
    assert scale.Selected.read(out).document["seen"] == 3600
    before = content(out)
    assert code_of("select", *others, "--to", out, "--held", out, *ASKED) == 0  # as it was
    assert content(out) == before
    assert code_of("select", others[0], "--to", out, "--held", out, *ASKED) == 2
    assert "went into what is held already" in capsys.readouterr().err
    assert content(out) == before


def test_predictions_by_a_function_of_the_user(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_model.py").write_text("from tiny import predicted as predict\n")
    lists = tiny.write(tmp_path / "lists")
    words = ("--model", "own_model:predict", *ASKED)
    assert code_of("select", lists, "--to", tmp_path / "out", *words) == 0
    samples = scale.Selected.read(tmp_path / "out").samples()
    assert np.array_equal(samples["yhat"], tiny.predicted(samples["x"]))
    assert code_of("select", lists, "--to", tmp_path / "b", *ASKED, "--softmax") == 2
    assert "belong to --model" in capsys.readouterr().err


def test_files_are_rewritten(folder, tmp_path, capsys):
    words = ("--rewrite", "--to", tmp_path / "fast", "--json")
    assert code_of("select", folder, *words) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["files"]) == 3
    assert "fixed_size_binary" in str(pq.read_schema(said["files"][0]).field("yhat").type)
    assert code_of("select", tmp_path / "fast", "--to", tmp_path / "out", *ASKED) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--labels", "y:4"), "no --capacity"),
        (("--capacity", 10), "--labels NAME"),
        (("--capacity", 10, "--labels", "z"), "--map z="),
        (("--capacity", 10, "--labels", "y:2"), "labels are out of range"),
        (("--capacity", 10, "--policy", "fifo"), "chooses row by row"),
        (("--capacity", 10, "--policy", "nonsense"), "unknown policy"),
        (("--capacity", 10, "--labels", "y", "--dask", "tcp://x:1", "--workers", 2), "give one"),
        (("--capacity", 10, "--labels", "y", "--dask", "nonsense"), "tcp://10.0.0.1:8786"),
        (("--capacity", 10, "--labels", "y", "--config", "x.toml"), "is for --slurm"),
        (("--capacity", 10, "--probabilities", "yhat", "--model", "no.onnx"), "no such file"),
        (("--capacity", 10, "--labels", "y", "--columns", "q"), "no column 'q'"),
    ],
)
def test_wrong_use_is_said_and_leaves_nothing(folder, tmp_path, capsys, words, said):
    assert code_of("select", folder, "--to", tmp_path / "out", *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_slurm_gives_a_client(folder, tmp_path, monkeypatch):
    """Workers are what `memento run` starts on Slurm; here they are this process."""
    from contextlib import contextmanager

    from memento.scale import selection
    from memento.scale.workers import Here

    asked = []

    class Executor:
        client = object()

        def __init__(self, settings, resources, root, jobs):
            asked.append((settings.partition, root, jobs))

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            asked.append("closed")

    @contextmanager
    def workers(client, count):
        assert client is Executor.client
        yield Here()

    monkeypatch.setattr("memento.runner.executors.slurm.SlurmExecutor", Executor)
    monkeypatch.setattr(selection, "_workers", workers)
    (tmp_path / "run.toml").write_text('[slurm]\npartition = "long"\n')
    words = ("--slurm", "--workers", 3, "--config", tmp_path / "run.toml", *ASKED)
    assert code_of("select", folder, "--to", tmp_path / "out", *words) == 0
    assert asked == [("long", tmp_path, 3), "closed"]


def test_lack_of_workers_and_of_room_is_a_failure(folder, tmp_path, capsys, monkeypatch):
    def gone(*_, **__):
        raise WorkerError("no Dask worker was there for 60 s")

    monkeypatch.setattr("memento.scale.select", gone)
    assert code_of("select", folder, "--to", tmp_path / "out", *ASKED) == 1
    assert "no Dask worker" in capsys.readouterr().err
    monkeypatch.undo()

    class Usage:
        free = 10

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    assert code_of("select", folder, "--to", tmp_path / "out", *ASKED) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "10 bytes left" in said
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert code_of("select", folder, "--to", tmp_path / "out", *ASKED) == 0
