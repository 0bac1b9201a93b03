"""`memento report` in this process, for tests of the library and of the cases."""

from __future__ import annotations

import pytest

from memento.cli.main import main


@pytest.fixture
def call(capsys):
    """Run the command in this process; returns exit code, output and error stream."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()  # what came before
        code = 0
        try:
            main(["report", *map(str, words)])
        except SystemExit as done:
            code = done.code or 0
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return run


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
