"""`memento report`: the page of results of `memento run`, and what it refuses."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

import called

pytest.importorskip("matplotlib")

from memento.cli.main import main
from memento.report.page import GENERATOR

call, content = called.report, called.content

PAGE = Path(__file__).parents[1] / "runner" / "counting.py"


def run(root, *names, group="counting"):
    """Results of small experiments; exit codes do not matter."""
    with contextlib.suppress(SystemExit):
        main(["run", group, *names, "-j", "0", "--experiments", str(PAGE), "--results", str(root)])


def test_results_of_run(call, tmp_path):
    root = tmp_path / "results"
    run(root, "sum")
    run(root, "raises", group="trouble")
    before = content(root)
    code, out, err = call(root, "--json")
    assert code == 0, err
    after = content(root)
    assert set(after) - set(before) == {"report.html"}
    assert all(after[name] == data for name, data in before.items())
    found = json.loads(out)
    assert (found["kind"], found["out"]) == ("results", str(root / "report.html"))
    (section,) = found["sections"]
    tables = {table["name"]: table["rows"] for table in section["tables"]}
    counts = {row["group"]: (row["done"], row["failed"]) for row in tables["experiments"]}
    assert counts == {"counting": (5, 0), "trouble": (0, 1)}
    (failed,) = tables["open"]
    assert failed["experiment"] == "trouble/raises"
    assert "no luck" in failed["what to do"]
    assert "no luck" in (root / "report.html").read_text()
    assert call(root)[0] == 0  # a page of ours is replaced


def test_pages_of_others_are_left_alone(call, tmp_path):
    root = tmp_path / "results"
    run(root, "base")
    page = root / "report.html"
    page.write_text("my own notes")
    code, _, err = call(root)
    assert code == 2
    assert "report.html was not written by memento report" in err
    assert page.read_text() == "my own notes"
    assert call(root, "--out", page)[0] == 0  # named: meant
    assert GENERATOR in page.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nowhere does not exist; give a folder of results"),
        (("empty",), "empty is empty; expected a folder made by memento run"),
        (("strange",), "holds no results that are known"),
        (("results", "--out", "page.pdf"), "ends with .html"),
        (("results", "--out", "no/page.html"), "there is no folder no; make it first"),
        (("results", "--out", "folder.html"), "is a folder"),
    ],
)
def test_what_is_refused(call, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "results", "sum")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "notes.txt").write_text("nothing")
    before = content(tmp_path)
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "unexpected" not in err
    assert content(tmp_path) == before
