"""The table of the paper's figures: none is missing, no cell is empty, and every command is one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("typer")

from memento.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
VERDICTS = ("Same", "Smaller", "Not found", "Not tried here")


def rows() -> dict[str, list[str]]:
    """Cells by the first one."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("| "): row[1:] for row in cells if not set(row[0]) <= set("| -")}


ROWS = rows()
COMMANDS = sorted(
    {
        command
        for _, command, *_ in ROWS.values()
        for command in re.findall(r"`(memento [^`]+)`", command)
    }
)


def test_every_figure_and_table_has_a_row():
    parts = {"6": "abcd", "7": "abc", "11": "abc"}
    figures = [
        f"{number}({part})" if part else str(number)
        for number in range(1, 26)
        for part in parts.get(str(number), ("",))
    ]
    assert [name for name in ROWS if name[0].isdigit() and "." not in name] == figures
    assert {"Table 1", "Table 2"} < set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_no_cell_is_empty(name):
    about, command, section, verdict = ROWS[name]
    assert about
    assert "`" in section
    found = re.match(r"\*\*([^*]+)\*\*", verdict)
    assert found
    assert found[1].startswith(VERDICTS)
    referred = re.search(r"as (.*)", command)
    if "`memento " not in command:
        assert referred
        named = re.findall(r"\d+(?:\([a-d]\))?", referred[1])
        assert named
        assert set(named) <= set(ROWS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(capsys, monkeypatch, tmp_path, command):
    """Words and options are known; patterns match experiments, named ones are there."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    with pytest.raises(SystemExit) as done:
        main([*words, "--dry-run" if words[0] == "run" else "--help"])
    assert not done.value.code, capsys.readouterr().err


def test_there_are_commands():
    assert len(COMMANDS) > 15
