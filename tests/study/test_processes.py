"""A study in several processes finds what one finds, and goes on where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import study_parts as parts
from memento import FIFO, Reservoir, backtest
from memento.errors import DomainError, SettingError
from memento.files import readable_json
from memento.retrain import Every, Never
from memento.study import run_all

pytest.importorskip("psutil")
ARMS = {
    "policies": {"fifo": FIFO(), "own/one": parts.OurOwn()},
    "capacity": 100,
    "seeds": 2,
    "controls": False,
}


def equal(a, b):
    assert (a.baseline, a.units, a.trainings) == (b.baseline, b.units, b.trainings)
    for name in a.table:
        np.testing.assert_array_equal(a.table[name], b.table[name])


def test_two_processes_find_the_same_as_one(tmp_path):
    one = backtest(
        parts.units(), lambda seed: parts.make(seed), wrappers={"same": lambda x: x}, **ARMS
    )
    told = []
    two = backtest(
        *(parts.units(), parts.make),
        wrappers={"same": parts.same},
        folder=tmp_path,
        workers=2,
        progress=lambda *at: told.append(at[:2]),
        **ARMS,
    )
    equal(one, two)
    assert two.units == ("003", "004", "005", "006")
    assert told == [(i, 12) for i in range(13)]
    # The one layout: parameters are read, nothing is parsed from names.
    asked = [json.loads(p.read_text())["parameters"] for p in tmp_path.glob("*/*/experiment.json")]
    assert len(asked) == 12
    assert {(a["arm"], a["seed"]) for a in asked} >= {("own/one+same", 1), ("random", 0)}
    # Nothing is left to do, not even with functions that only this process knows.
    again = backtest(
        *(parts.units(), lambda seed: pytest.fail("made")),
        wrappers={"same": lambda x: x},
        folder=tmp_path,
        **ARMS,
    )
    equal(again, two)


@pytest.mark.parametrize("make", [parts.make_plain, parts.make])
def test_learners_with_and_without_state(make, tmp_path):
    one = backtest(parts.stream(), make, seeds=1)
    equal(one, backtest(parts.stream(), make, seeds=1, folder=tmp_path))
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_what_cannot_be_sent_is_refused_with_a_remedy(tmp_path):
    class Local(FIFO):
        kind = "tests-local"

    class Nameless(FIFO):
        kind = None

    for stated, make, policy in (
        ("make_learner", lambda seed: None, FIFO()),
        ("Local", parts.make, Local()),
        ("Nameless", parts.make, Nameless()),
    ):
        with pytest.raises(SettingError, match=rf"{stated}.*workers=1"):
            backtest(parts.units(), make, {"a": policy}, workers=2, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SettingError, match="workers is 0"):
        backtest(parts.units(), parts.make, workers=0)


def test_an_error_in_another_process_is_raised_here(tmp_path):
    with pytest.raises(DomainError, match=r"no good; give others; .*log\.txt"):
        backtest(parts.units(), parts.make_broken, seeds=1, workers=2, folder=tmp_path)
    with pytest.raises(DomainError, match="no good; give others") as caught:
        backtest(parts.units(), parts.make_broken, seeds=1, folder=tmp_path)
    assert any("unit 0" in note for note in caught.value.__notes__)


STUDY = """
import sys
from pathlib import Path
import study_parts as parts
from memento import FIFO, Reservoir, backtest
backtest(parts.units(), parts.make_slow, {"fifo": FIFO(), "random": Reservoir()},
         capacity=100, seeds=2, controls=False, workers=int(sys.argv[2]), folder=sys.argv[1])
"""


def _started(folder: Path, workers: int, sleep: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", STUDY, str(folder), str(workers)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "MEMENTO_TEST_SLEEP": str(sleep),
        },
        stderr=subprocess.PIPE,
    )


def _steps_saved(folder: Path) -> int:
    """How many steps the checkpoints of unfinished runs hold, read while they may be replaced."""
    while True:
        try:
            documents = list(folder.glob("backtest/*/checkpoint-*/loop/*/loop.json"))
            return sum(len((readable_json(path) or {}).get("steps", [])) for path in documents)
        except FileNotFoundError:  # a generation was replaced between two looks
            continue


@pytest.mark.compiled
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_within_an_arm_it_goes_on_and_finds_the_same(workers, tmp_path):
    straight = backtest(
        *(parts.units(), parts.make_slow, {"fifo": FIFO(), "random": Reservoir()}),
        capacity=100,
        seeds=2,
        controls=False,
    )
    for steps in (1, 3, 5):
        process = _started(tmp_path, workers, 0.3)
        end = time.monotonic() + 120
        while (saved := _steps_saved(tmp_path)) < steps and time.monotonic() < end:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert saved >= steps  # counted before: an arm that ends takes its checkpoint with it
    process = _started(tmp_path, 3 - workers, 0.0)  # the other way than before
    complaint = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, complaint
    found = backtest(
        *(parts.units(), lambda seed: pytest.fail("made"), {"fifo": FIFO(), "random": Reservoir()}),
        capacity=100,
        seeds=2,
        controls=False,
        folder=tmp_path,
    )
    equal(found, straight)
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_a_study_of_nothing(tmp_path):
    assert run_all([], tmp_path) == {}


def test_triggers_are_sent_by_their_settings(tmp_path):
    triggers = {"every": Every(2), "never": Never()}
    one = backtest(parts.units(), parts.make, triggers=triggers, seeds=1)
    equal(one, backtest(parts.units(), parts.make, triggers=triggers, seeds=1, workers=2))
