"""Commands whose output nobody can read: the work is done, and the exit code says so."""

from __future__ import annotations

import shlex
import subprocess
import sys

import numpy as np
import pytest

from memento import FIFO, Memory


def run(words: str, folder) -> subprocess.CompletedProcess[str]:
    command = f"{shlex.quote(sys.executable)} -m memento {words}"
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(
    "output",
    ["> /dev/full", ">&-", ">&- 2>&-", "> /dev/full 2> /dev/full", "| true; exit $PIPESTATUS"],
)
def test_an_insert_that_cannot_be_told_is_done(tmp_path, output):
    Memory(9, FIFO()).save(tmp_path / "m")
    np.savez(tmp_path / "day.npz", y=np.arange(4))
    done = run(f"memory insert m day.npz {output}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(Memory.load(tmp_path / "m")) == 4
    assert "Traceback" not in done.stderr
    if output == "> /dev/full":
        assert "output could not be written: No space left" in done.stderr


@pytest.mark.parametrize("output", ["> /dev/full", ">&- 2>&-"])
def test_errors_keep_their_exit_code(tmp_path, output):
    assert run(f"memory status nowhere {output}", tmp_path).returncode == 2


def test_output_that_can_be_written_is(tmp_path):
    done = run("--version", tmp_path)
    assert done.stdout.startswith("memento ")
    assert not done.stderr
