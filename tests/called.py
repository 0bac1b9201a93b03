"""Commands in this process, for tests of the library and of the cases."""

from __future__ import annotations

import pytest

from memento.cli.main import main


def code_of(*words: object) -> int:
    """Run a command; returns its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@pytest.fixture
def report(capsys):
    """Run `memento report`; returns exit code, output and error stream."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()  # what came before
        code = code_of("report", *words)
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return run


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
