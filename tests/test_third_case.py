"""A case of somebody else's: nothing outside its folder knows it, and `memento` has all of it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("typer")
pytest.importorskip("pyarrow")

from memento import Memory

PACKAGE = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memento import Choice, Decision, Distance, Policy, Trigger
from memento.report.kinds import Kind, Reports
from memento.report.sections import Listing, Report, Section
from memento.runner.spec import Experiment


@dataclass(frozen=True)
class Oldest(Policy):
    kind: ClassVar[str] = "oldest"
    spare: int = 0

    def choose(self, held, fresh, capacity, state, rng):
        size = held.size + fresh.size
        return Choice(np.arange(size if capacity is None else min(size, capacity - self.spare)))


@dataclass(frozen=True)
class Gap(Distance):
    kind: ClassVar[str] = "gap"
    column: str

    @property
    def axes(self):
        return {self.column: 0}

    def summarise(self, batches):
        return np.array([[batch[self.column].mean()] for batch in batches])

    def compare(self, first, second):
        return abs(first - second.T)


@dataclass(frozen=True)
class Fewer(Trigger):
    kind: ClassVar[str] = "fewer"
    units: int = 2

    def _decide(self, situation, rng):
        since = situation.unit - situation.trained_at
        return Decision(since >= self.units, "units since the last training", since, self.units)


def open_third(folder):
    table = {"number": [int((folder / "third.txt").read_text())]}
    section = Section("numbers", "Numbers", [Listing("numbers", "All.", table)])
    return Report("third", folder, "Third", (), (section,))


def is_third(folder):
    return (folder / "third.txt").is_file()


reports = Reports({"third": Kind("memento third", is_third, open_third)})


def greet(name: str) -> None:
    print(f"hello {name}")


def experiments():
    yield Experiment("third", "small", ":body", {"number": 3})


def body(run, number):
    return {"twice": 2 * number}
"""

POINTS = """
[memento.commands]
third = third_case:greet
[memento.experiments]
third = third_case
[memento.reports]
third = third_case:reports
[memento.policies]
oldest = third_case:Oldest
misnamed = third_case:Oldest
broken = third_case:nothing
[memento.distances]
gap = third_case:Gap
[memento.triggers]
fewer = third_case:Fewer
"""


@pytest.fixture
def cli(tmp_path):
    """Run `memento` in a folder, by default with the third case installed."""
    site = tmp_path / "site"
    info = site / "third_case-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "third_case.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-case\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "x.csv").write_text("y\n" + "".join(f"{i}\n" for i in range(20)))

    def call(*words: object, installed: bool = True) -> tuple[int, str]:
        path = os.pathsep.join(
            [*([str(site)] if installed else []), os.environ.get("PYTHONPATH", "")]
        )
        done = subprocess.run(
            [sys.executable, "-c", "from memento.cli.main import main; main()", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path.strip(os.pathsep), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    return call


def test_command_and_experiment(cli):
    assert cli("third", "world") == (0, "hello world")
    code, said = cli("run", "third")
    assert code == 0, said


def test_report(cli, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "third.txt").write_text("4711")
    code, said = cli("report", "there")
    assert code == 0, said
    assert "4711" in (tmp_path / "there" / "report.html").read_text()


def test_policy_and_distance(cli, tmp_path):
    code, said = cli(
        "memory", "init", "m", "--capacity", 5, "--policy", "oldest", "--set", "spare=1"
    )
    assert (code, "Oldest(spare=1)" in said) == (0, True), said
    code, said = cli("memory", "insert", "m", "x.csv")
    assert (code, "kept 4" in said) == (0, True), said
    assert json.loads(cli("memory", "status", "m", "--json")[1])["size"] == 4
    code, said = cli(
        *("memory", "init", "d", "--capacity", 5, "--set", 'distances=[{kind="gap", column="y"}]')
    )
    assert (code, "Gap(column='y')" in said) == (0, True), said
    assert cli("memory", "insert", "d", "x.csv")[0] == 0


MODEL = """
from memento.testing import ConstantLearner

def make(seed):
    return ConstantLearner(classes=2, label="y")
"""
DEPLOYMENT = """
[data]
folder = "days"
inputs = ["a"]
[model]
factory = "model:make"
[variants.installed]
capacity = 30
policy = { kind = "oldest", spare = 1 }
trigger = { kind = "fewer", units = 3 }
[variants.imported]
capacity = 30
policy = "mine:Oldest"
trigger = { kind = "mine:Fewer", units = 5 }
"""


def write_own(folder):
    """Six units of four samples, a file each, and a module that is not installed."""
    (folder / "days").mkdir(parents=True)
    for unit in range(6):
        rows = "".join(f"{unit + row / 4},{row % 2}\n" for row in range(4))
        (folder / "days" / f"2026-01-{unit + 1:02d}.csv").write_text("a,y\n" + rows)
    text = PACKAGE.replace('"oldest"', '"my-oldest"').replace('"fewer"', '"my-fewer"')
    (folder / "mine.py").write_text(text)


def test_trigger_of_a_back_test(cli, tmp_path):
    pytest.importorskip("sklearn")
    write_own(tmp_path)
    code, said = cli(
        *("backtest", *sorted((tmp_path / "days").iterdir()), "--json", "--capacity", 30),
        *("--model", "logistic", "--seeds", 1, "--policies", "oldest,mine:Oldest"),
        *("--triggers", "fewer,mine:Fewer"),
    )
    assert code == 0, said
    found, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    assert list(found["arms"])[2:4] == ["oldest", "my-oldest"]
    assert list(found["triggers"]) == ["daily", "never", "fewer", "my-fewer"]
    assert found["triggers"]["fewer"]["trainings"] == 3  # after units 0, 2 and 4


def test_trigger_of_a_deployment(cli, tmp_path):
    home = tmp_path / "home"
    write_own(home)
    (home / "deployment.toml").write_text(DEPLOYMENT)
    (home / "model.py").write_text(MODEL)
    for words in (
        ("deploy", "init", "d", "--config", home / "deployment.toml"),
        ("deploy", "run", "d"),
        ("deploy", "record", "d", "--out", "days.csv"),
    ):
        code, said = cli(*words)
        assert code == 0, said
    with (tmp_path / "days.csv").open(newline="") as days:
        rows = list(csv.DictReader(days))
    trained = {(r["variant"], r["day"][-2:]) for r in rows if r["trained"] == "True"}
    assert trained == {
        *(("installed", "01"), ("installed", "04")),
        *(("imported", "01"), ("imported", "06")),
    }
    code, said = cli("deploy", "run", "d", installed=False)  # what the settings name is gone
    assert (code, "[variants.installed]: unknown trigger 'fewer'" in said) == (2, True), said


def test_entry_points_that_are_wrong_name_their_distribution(cli):
    for kind, words in (("misnamed", "of the kind 'oldest'"), ("broken", "third-case")):
        code, said = cli("memory", "init", "m", "--capacity", 5, "--policy", kind)
        assert (code, words in said) == (2, True), said


def test_module_named_on_the_command_line(cli, tmp_path):
    (tmp_path / "mine.py").write_text(PACKAGE)
    code, said = cli(
        *("memory", "init", "m", "--capacity", 5, "--policy", "mine:Oldest"), installed=False
    )
    assert code == 0, said
    # A folder alone makes nothing run: what is held is shown, and what would choose is refused.
    code, said = cli("memory", "status", "m", installed=False)
    assert (code, "--import mine:Oldest" in said) == (0, True), said
    code, said = cli("memory", "insert", "m", "x.csv", installed=False)
    assert (code, "--import mine:Oldest" in said) == (2, True), said
    assert Memory.load(tmp_path / "m", _same(tmp_path)).seen == 0
    code, said = cli("memory", "insert", "m", "x.csv", "--import", "mine:Oldest", installed=False)
    assert (code, "kept 5" in said) == (0, True), said
    code, said = cli("--import=mine", "memory", "check", "m", installed=False)
    assert (code, "warning" in said) == (0, False), said
    assert cli("memory", "export", "m", "out.npz", installed=False)[0] == 0


def _same(folder):
    """The policy of the folder, made without its code."""
    from memento.cli.folders import Unopened

    (document,) = folder.glob("m/generation-*/policy.json")
    return Unopened(json.loads(document.read_text()))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no_such_module:Mine", "importing 'no_such_module' failed"),
        ("mine:Other", "it has"),
        ("mine:greet", "expected a subclass of memento.Policy"),
        ("mine:Bare", "write kind = 'bare'"),
        ("failing:Mine", "out of luck"),
        (":Mine", "expected module or module:NAME"),
    ],
)
def test_what_is_no_policy_is_refused(cli, tmp_path, spec, words):
    (tmp_path / "mine.py").write_text(PACKAGE + "\n\nclass Bare(Oldest):\n    pass\n")
    (tmp_path / "failing.py").write_text("raise RuntimeError('out of luck')")
    code, said = cli("memory", "init", "m", "--capacity", 5, "--policy", spec, installed=False)
    assert (code, words in said) == (2, True), said
    assert not (tmp_path / "m").exists()


def test_import_names_no_module(cli):
    code, said = cli("memory", "status", "m", "--import", installed=False)
    assert (code, "give MODULE" in said) == (2, True), said
