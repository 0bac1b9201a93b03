"""Commands whose output nobody can read: the work is done, and the exit code says so."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict", "utf-8"])
def test_signs_that_an_encoding_lacks(tmp_path, encoding):
    """In the C locale a command did all its work, and then failed at the sign ±."""
    (tmp_path / "odd.py").write_text("print('0.5 ± 0.1, β')\n")
    done = subprocess.run(
        [sys.executable, "-m", "memento", "--import", "odd", "memory", "status", "nowhere"],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    expected = {"ascii": b"0.5 \\xb1 0.1, \\u03b2", "utf-8": "0.5 ± 0.1, β".encode()}
    assert expected.get(encoding, b"0.5 \xb1 0.1, \\u03b2") in done.stdout
    assert b"Unicode" not in done.stderr


def test_a_panic_of_native_code_is_an_unexpected_error(tmp_path):
    """Of Rust's packages: it is no Exception, so that its trace was shown."""
    code = (
        "class PanicException(BaseException): pass\nraise PanicException('too many open files')\n"
    )
    (tmp_path / "odd.py").write_text(code)
    done = run("--import odd memory status nowhere", tmp_path)
    assert done.returncode == 1
    assert "unexpected error: PanicException: too many open files" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lack_of_memory_is_said(monkeypatch, capsys):
    from memento.cli import main

    def lacks():
        raise MemoryError("Unable to allocate 1.00 GiB")

    monkeypatch.setattr(main, "application", lacks)
    with pytest.raises(SystemExit) as ended:
        main.main(["memory", "status", "nowhere"])
    assert ended.value.code == 1
    assert "error: memory ran out: Unable to allocate 1.00 GiB; free" in capsys.readouterr().err
