"""`memento datacenter`: from simulations to tables and figures, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from called import code_of
from memento.errors import MementoError
from memento_datacenter import simulate as simulation
from memento_datacenter.schema import Run, Runs

CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
FILES = {
    "iterations.csv", "summary.csv", "held.csv", "targets.csv", "held.png", "rare-patterns.png",
    "incremental.png", "congestion.png",
}  # fmt: skip


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command in this process; returns exit code, output and error stream."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> tuple[int, str, str]:
        code = code_of("datacenter", *words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.slow
@pytest.mark.compiled
def test_the_whole_path_with_real_simulations(call, tmp_path):
    """Short runs of ns-3, all scenarios and memories reduced, and a search; nothing is made up."""
    try:
        simulation.build()
    except MementoError as error:
        if CI:
            pytest.fail(str(error))  # in continuous integration nothing is left out unnoticed
        pytest.skip(str(error))
    simulated, replayed = tmp_path / "simulated", tmp_path / "replayed"
    short = ("--runs", "0-7", "--seconds", 6, "--messages", "refused", "--to", simulated)
    code, out, err = call("simulate", *short, "-j", 2, "--json")
    assert code == 0, err
    found = json.loads(out)["settings"]
    assert [row["setting"] for row in found] == list(simulation.SETTINGS)
    assert all(row["runs"] == 8 and row["packets"] > 200 for row in found)
    arguments = ("--from", simulated, "--out", replayed, "--reduced", "-j", 2, "--json")
    code, out, err = call("replay", *arguments)
    assert code == 0, err
    document = json.loads(out)
    assert {path.name for path in replayed.iterdir() if path.is_file()} == FILES
    for name in FILES:
        if name.endswith(".png"):
            assert (replayed / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    rows = rows_of(replayed / "iterations.csv")
    pairs = {(row["scenario"], row["memory"]) for row in rows}
    assert len(pairs) == 10 + 10 + 8
    assert len(rows) == 10 * 6 + 10 * 9 + 8 * 9
    for row in rows:
        score = row["error_p99" if row["scenario"] == "congestion" else "balanced_accuracy"]
        assert 0 < float(score) < 1
    held = {(r["scenario"], r["memory"], r["workload"]): r["value"] for r in document["held"]}
    assert held["incremental", "fifo", "w1"] == 0
    assert held["rare-patterns", "class-balanced", "w3"] > held["rare-patterns", "random", "w3"]
    assert len(document["targets"]) == 12
    assert "which memory is best they do not" in document["notes"][0]
    assert document["notes"][0] in err
    # The second time there is nothing to do, and the same comes out.
    before = (replayed / "iterations.csv").read_bytes()
    code, again, err = call("replay", *arguments)
    assert code == 0, err
    assert json.loads(again) == document
    assert (replayed / "iterations.csv").read_bytes() == before
    code, out, err = call(
        *("tune", "classification", "--from", simulated, "--out", tmp_path / "tuned"),
        *("--trials", 2, "--splits", 1, "--samples", 100, "--window", 32, "--units", "8-16"),
        *("--layers", "1-2", "--epochs", 1, "--json"),
    )
    if code == 0:  # Optuna is there
        assert json.loads(out)["classification"]["trials"] == 2
    else:
        assert "memento-replay[tuning]" in err


# ------------------------------------------------------------------------------ what is made up


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of w1, w2 and w3 without ns-3."""
    folder = Runs(tmp_path_factory.mktemp("runs"))
    for label, setting in enumerate(("w1", "w2", "w3"), 1):
        for number in range(1, 8):
            rng = np.random.default_rng([label, number])
            arrival = np.sort(rng.integers(0, 10**9, 400))
            about = {"setting": setting, "run": number, "label": label}
            delay = rng.integers(15_000_000, 20_000_000, 400)
            size = rng.choice([60, 300 * label, 1500], 400)
            run = Run(arrival, delay, size, rng.integers(0, 2, 400), about)
            run.write(folder.path(setting, number))
    return folder.folder


def test_replay_of_some_memories(call, runs, tmp_path):
    code, out, err = call(
        *("replay", "incremental", "--from", runs, "--out", tmp_path, "--reduced", "--stride", 2),
        *("--memories", "fifo,random", "--seeds", "0-1", "--epochs", 1, "--json"),
        *("--capacity", "incremental=400"),
    )
    assert code == 0, err
    document = json.loads(out)
    assert {row["memory"] for row in document["summary"]} == {"fifo", "random"}
    assert {row["seeds"] for row in document["summary"]} == {2}
    assert all(row["low"] <= row["value"] <= row["high"] for row in document["summary"])
    # The capacity by the stride, once as many have come.
    rows = rows_of(tmp_path / "iterations.csv")
    assert {int(row["held"]) for row in rows if row["iteration"] == "9"} == {200}
    assert document["targets"] == []
    assert (tmp_path / "incremental.png").is_file()
    assert "fifo" in err  # the table for people is on the error stream


def test_standardised_inputs_are_another_replay(call, runs, tmp_path):
    arguments = ("replay", "incremental", "--from", runs, "--out", tmp_path, "--reduced")
    arguments += ("--memories", "fifo", "--epochs", 1, "--json")
    code, _, err = call(*arguments, "--standardise")
    assert code == 0, err
    asked = tmp_path / "datacenter-replay" / "incremental-fifo-0" / "experiment.json"
    plan = json.loads(asked.read_text())["parameters"]["plan"]
    assert plan["regression"]["standardise"] is True
    assert plan["classification"]["standardise"] is True
    code, _, err = call(*arguments)
    assert code == 2
    assert "standardise = True, now asked for with False" in err


def test_workloads_from_files(call, tmp_path):
    file = tmp_path / "sizes.txt"
    file.write_text("150\n100 0.5\n200 nonsense\n")
    code, _, err = call("simulate", "mine", "--sizes", f"mine={file}", "--to", tmp_path)
    assert code == 2
    assert f"{file}, line 3" in err
    file.write_text("150\n100 0.5\n200 1\n")
    code, _, err = call("simulate", "w9", "--sizes", f"mine={file}", "--to", tmp_path)
    assert code == 2
    assert "setting 'w9'; there are w1" in err
    assert "mine_c133" in err
    file.write_text("100\n200\nmany\n")
    words = ("simulate", "w9", "--recorded", f"mine={file}", "--to", tmp_path)
    assert f"{file}, line 3" in call(*words)[2]
    file.write_text("100\n200\n")
    assert "mine_c133" in call(*words)[2]


def test_sigterm_stops_simulations_and_leaves_nothing(tmp_path):
    """A program that sleeps for an hour stands for ns-3; see also Ctrl-C, which is the same."""
    program, pid = tmp_path / "program", tmp_path / "pid"
    program.write_text(f"#!/bin/sh\necho $$ > {pid}.new\nmv {pid}.new {pid}\nexec sleep 3600\n")
    program.chmod(0o755)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = (
        "from pathlib import Path; from memento_datacenter import simulate as case; "
        f"case.build = lambda: case.Program(Path({str(program)!r}), '3.44', ''); "
        "from memento.cli.main import main; "
        f"main(['datacenter', 'simulate', 'w1', '--runs', '0', '--to', {str(tmp_path / 'runs')!r}])"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(scratch)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not pid.exists():
            assert command.poll() is None, command.communicate()[1]
            time.sleep(0.02)
        assert len(list(scratch.iterdir())) == 1
        command.terminate()
        _, err = command.communicate(timeout=120)
    finally:
        command.kill()
    assert command.returncode == 128 + signal.SIGTERM
    assert "stopped; the same command goes on from here" in err
    assert list(scratch.iterdir()) == []
    assert not list((tmp_path / "runs").rglob("*.npz"))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate", "w1_c50"), "setting 'w1_c50'"),
        (("simulate", "w1", "--runs", "5-2"), "--runs '5-2'"),
        (("simulate", "w1", "--messages", "lost"), "messages is 'lost'; expected"),
        (("simulate", "w1", "--sizes", "mine"), "give NAME=FILE"),
        (("simulate", "w1", "--sizes", "w2=some.txt"), "already"),
        (("simulate", "w1", "--sizes", "mine=absent.txt"), "absent.txt"),
        (("simulate", "w1", "--recorded", "mine"), "--recorded 'mine'; give NAME=FILE"),
        (("simulate", "w1", "--seconds", "0.5"), "--seconds 0.5; senders start from 1 s on"),
        (("simulate", "w1", "--seconds", "nan"), "--seconds nan; "),
        (("replay", "nonsense"), "scenario 'nonsense'"),
        (("replay", "--memories", ","), "--memories ','; give some of memento"),
        (("replay", "congestion", "--memories", "lars"), "memories lars need classes"),
        (("replay", "--seeds", "-1"), "--seeds '-1'; give numbers"),
        (("replay", "--memories", "nonsense"), "memory 'nonsense'"),
        (("replay", "--stride", "0"), "stride is 0"),
        (("replay", "--as", "someone"), "memento or paper"),
        (("replay", "--capacity", "incremental"), "SCENARIO=SAMPLES"),
        (("replay", "--seeds", "x"), "'x'"),
        (
            ("replay", "incremental", "--from", "absent"),
            "--to absent`",
        ),
        (("tune", "nonsense"), "task is 'nonsense'"),
        (("tune", "--layers", "3to4"), "--layers '3to4'"),
        (("tune", "--setting", "w9"), "setting 'w9'; give some of w1"),
        (("tune", "--from", "absent"), "no such run"),
    ],
)
def test_bad_input_is_told(call, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    if words[0] == "tune" and "absent" in words:
        pytest.importorskip("optuna")
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_damaged_result_is_told(call, runs, tmp_path):
    words = ("replay", "incremental", "--from", runs, "--out", tmp_path, "--reduced")
    words = (*words, "--memories", "fifo", "--epochs", 1)
    assert call(*words)[0] == 0
    file = next((tmp_path / "datacenter-replay").rglob("iterations.csv"))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"fifo", b"fofi"))
    code, _, err = call(*words)
    assert code == 2
    assert "incremental-fifo-0: its files differ" in err
    file.write_bytes(whole[:50])  # what is cut off is not done, and computed again
    assert call(*words)[0] == 0
    assert len(next((tmp_path / "datacenter-replay").rglob("iterations.csv")).read_bytes()) > 50
