"""Folders of results: their states, that they are whole or absent, and their tables."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from memento.errors import DamagedError, ForeignError, SchemaError, SettingError, StorageError
from memento.runner import results
from memento.runner.results import Attempt, Place, check, status

ASKED = {"group": "g", "name": "n"}


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path, "g", "n")


def begin(place: Place, digest: str = "a" * 64) -> Attempt:
    place.folder.mkdir(parents=True, exist_ok=True)
    attempt = Attempt(place, ASKED, digest, "a test")
    attempt.begin()
    return attempt


def pretend(place: Place, **facts) -> None:
    """Change who is said to run the last attempt."""
    state = json.loads(place.state.read_text())
    place.state.write_text(json.dumps({**state, **facts}))


class States(RuleBasedStateMachine):
    """Any course of attempts, against a model of three facts: result, last end, who lives."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.temporary = tempfile.TemporaryDirectory()
        self.place = Place(Path(self.temporary.name), "g", "n")
        self.attempt: Attempt | None = None
        self.result: tuple[str, bytes] | None = None  # digest and content
        self.last: tuple[str, str] | None = None  # end and digest of the last attempt
        self.count = 0

    def teardown(self) -> None:
        self.temporary.cleanup()

    @initialize()
    def nothing(self) -> None:
        assert status(self.place, "a").state == "missing"

    @precondition(lambda self: self.attempt is None)
    @rule(digest=st.sampled_from(["a", "b"]))
    def start(self, digest: str) -> None:
        self.attempt = begin(self.place, digest)
        self.count += 1
        assert self.attempt.number == self.count
        (self.attempt.output / "x.csv").write_bytes(b"%d" % self.count)
        (self.attempt.checkpoint / "step").write_text("1")

    @precondition(lambda self: self.attempt is not None)
    @rule()
    def complete(self) -> None:
        self.attempt.commit([])
        self.result = (self.attempt.digest, b"%d" % self.count)
        self._end("done")

    @precondition(lambda self: self.attempt is not None)
    @rule()
    def fail(self) -> None:
        self.attempt.fail("ValueError: no")
        self._end("failed")

    @precondition(lambda self: self.attempt is not None)
    @rule()
    def interrupt(self) -> None:
        self.attempt.interrupt()
        self._end("interrupted")

    @precondition(lambda self: self.attempt is not None)
    @rule()
    def die(self) -> None:
        pretend(self.place, born="1")
        self._end("killed")

    @precondition(lambda self: self.attempt is not None)
    @rule()
    def beat(self) -> None:
        self.attempt.beat((1, 3, "x"))
        assert status(self.place, "a").progress == (1, 3, "x")

    def _end(self, how: str) -> None:
        self.last = (how, self.attempt.digest)
        self.attempt = None

    @invariant()
    def is_what_the_model_says(self) -> None:
        for digest in ("a", "b"):
            found = status(self.place, digest)
            if self.attempt is not None:
                expected = "running"
            elif self.last == ("failed", digest):
                expected = "failed"
            elif self.result is not None:
                expected = "done" if self.result[0] == digest else "stale"
            else:
                expected = "missing"
            assert found.state == expected, (found, self.result, self.last)
            if self.result is None:
                assert found.output is None
            else:  # a result once made stays readable until a better one is
                assert (found.output / "x.csv").read_bytes() == self.result[1]
                check(self.place)

    @invariant()
    def nothing_is_left_over(self) -> None:
        if self.attempt is None and self.last is not None and self.last[0] != "killed":
            names = {path.name for path in self.place.folder.iterdir()}
            outputs = {name for name in names if name.startswith("output-")}
            assert len(outputs) == (self.result is not None)
            checkpoints = {name for name in names if name.startswith("checkpoint-")}
            assert len(checkpoints) == (self.last[0] != "done")


TestStates = States.TestCase
TestStates.settings = settings(max_examples=25, stateful_step_count=12)


def test_a_process_that_was_killed_is_no_running_one(place):
    code = (
        "import os, sys; from pathlib import Path; from memento.runner.results import *\n"
        "from memento.runner.results import Attempt\n"
        "p = Place(Path(sys.argv[1]), 'g', 'n'); p.folder.mkdir(parents=True)\n"
        "Attempt(p, {}, 'a', 'w').begin(); print('begun', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(place.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"begun\n"
    assert status(place, "a").state == "running"
    process.kill()
    process.wait()
    found = status(place, "a")
    assert (found.state, found.reason) == ("missing", "was killed; goes on from its checkpoint")
    process.stdin.close()
    process.stdout.close()


def test_another_host_is_believed_as_long_as_it_gives_signs_of_life(place):
    attempt = begin(place)
    attempt.beat()
    pretend(place, host="elsewhere", pid=1)
    assert status(place, "a").state == "running"
    long_ago = time.time() - results.SILENCE - 60
    place.heartbeat.write_text(json.dumps({"attempt": 1, "time": long_ago, "progress": None}))
    os.utime(place.heartbeat, (long_ago, long_ago))
    pretend(place, started=long_ago)
    found = status(place, "a" * 64)
    assert found.state == "missing"
    assert "no sign of life for" in found.reason
    os.utime(place.heartbeat)  # by the clock of the file server
    assert status(place, "a").state == "running"


def test_a_machine_that_was_started_again_runs_nothing(place):
    begin(place)
    pretend(place, boot="an earlier one")
    assert status(place, "a").reason.startswith("was killed when the machine stopped")


def test_killed_between_the_result_and_the_state_it_is_done(place):
    attempt = begin(place)
    state = place.state.read_bytes()
    attempt.commit([])
    place.state.write_bytes(state)
    pretend(place, born="1")
    assert status(place, "a" * 64).state == "done"


def test_a_changed_input_makes_stale_and_a_deleted_one_does_not(place, tmp_path):
    source = tmp_path / "raw.csv"
    source.write_text("1")
    begin(place).commit([source])
    assert status(place, "a" * 64).state == "done"
    source.write_text("12")
    found = status(place, "a" * 64)
    assert (found.state, found.reason) == ("stale", f"{source} has changed")
    source.unlink()
    assert status(place, "a" * 64).state == "done"


@pytest.mark.parametrize("damage", ["gone", "shorter", "folder"])
def test_results_that_were_tampered_with_are_missing(place, damage):
    attempt = begin(place)
    file = attempt.output / "x.csv"
    file.write_text("12345")
    attempt.commit([])
    if damage == "folder":
        file.unlink()
        attempt.output.rmdir()
    elif damage == "gone":
        file.unlink()
    else:
        file.write_text("1")
    found = status(place, "a" * 64)
    assert found.state == "missing"
    assert "output-1/x.csv" in found.reason
    with pytest.raises(DamagedError, match=r"x\.csv"):
        check(place)


def test_check_finds_what_sizes_do_not_show(place):
    with pytest.raises(StorageError, match="no completed result"):
        check(place)
    attempt = begin(place)
    (attempt.output / "x.csv").write_text("12345")
    attempt.commit([])
    check(place)
    (attempt.output / "x.csv").write_text("12346")
    with pytest.raises(DamagedError, match="--force"):
        check(place)


def test_files_that_cannot_be_read_count_as_absent(place):
    begin(place)
    place.state.write_text("{half")
    assert status(place, "a").state == "missing"


def test_a_folder_of_somebody_else_is_left_alone(place):
    place.folder.mkdir(parents=True)
    (place.folder / "thesis.tex").write_text("x")
    with pytest.raises(ForeignError, match=r"thesis\.tex"):
        place.check_ours()
    place.experiment.write_text('{"format": "other"}')
    with pytest.raises(ForeignError, match="'other'"):
        place.check_ours()


def test_a_failure_is_written_for_a_process_that_cannot(place):
    begin(place)
    me = (socket.gethostname(), os.getpid())
    assert not results.mark_failed(place, (me[0], me[1] + 1), "killed")
    assert status(place, "a").state == "running"
    assert results.mark_failed(place, me, "killed")
    found = status(place, "a" * 64)
    assert (found.state, found.reason) == ("failed", "killed")
    assert "killed" in place.log.read_text()
    assert not results.mark_failed(place, me, "again")


def test_what_was_asked_is_written_down(place):
    begin(place)
    asked = json.loads(place.experiment.read_text())
    assert asked["format"] == "memento-experiment"
    assert asked["digest"] == "a" * 64
    assert set(asked["versions"]) == {"memento", "python", "numpy"}


# --- tables ----------------------------------------------------------------------------------

COLUMNS = {"day": [1, 2], "score": np.array([0.5, -1.25]), "name": ["a", "b,c"]}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_come_back_and_are_the_same_bytes_again(tmp_path, ending):
    for name in (f"one.{ending}", f"deep/two.{ending}"):
        results.write_table(tmp_path, name, COLUMNS)
    assert (tmp_path / f"one.{ending}").read_bytes() == (
        tmp_path / "deep" / f"two.{ending}"
    ).read_bytes()
    found = results.read_table(tmp_path / f"one.{ending}")
    assert list(found) == list(COLUMNS)
    for name, column in COLUMNS.items():
        assert found[name].tolist() == np.asarray(column).tolist()


@pytest.mark.parametrize(
    ("name", "columns", "error", "words"),
    [
        ("x.csv", {"a": [1], "b": [1, 2]}, SchemaError, "a: 1, b: 2"),
        ("x.csv", {"a": [[1]]}, SchemaError, "one dimension"),
        ("x.csv", {}, SchemaError, "one dimension"),
        ("x.csv", {"a": [None, "x"]}, SchemaError, "'a' mixes types"),
        ("x.txt", {"a": [1]}, SettingError, "'.txt'"),
        ("../x.csv", {"a": [1]}, SettingError, "outside"),
    ],
)
def test_wrong_tables(tmp_path, name, columns, error, words):
    with pytest.raises(error, match=words):
        results.write_table(tmp_path, name, columns)
    assert list(tmp_path.iterdir()) == []


def test_tables_of_a_group(tmp_path):
    assert results.tables(tmp_path, "g", "x.csv") == {}
    for number, name in enumerate("ab"):
        attempt = begin(Place(tmp_path, "g", name))
        results.write_table(attempt.output, "x.csv", {"v": [number, number + 10]})
        attempt.commit([])
    begin(Place(tmp_path, "g", "unfinished"))
    found = results.tables(tmp_path, "g", "x.csv")
    assert {name: column.tolist() for name, column in found.items()} == {
        "experiment": ["a", "a", "b", "b"],
        "v": [0, 10, 1, 11],
    }
    attempt = begin(Place(tmp_path, "g", "c"))
    results.write_table(attempt.output, "x.csv", {"w": [1]})
    attempt.commit([])
    with pytest.raises(SchemaError, match=r"x\.csv of c has columns \['w'\]"):
        results.tables(tmp_path, "g", "x.csv")
