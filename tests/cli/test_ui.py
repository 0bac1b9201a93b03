"""What commands show: the user's words as they are, and signs of life without a terminal."""

from __future__ import annotations

import _thread
import json
import os
import pty
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from memento import Samples
from memento.cli import tables, ui
from memento.cli.main import main

HOSTILE = [
    "[/nope]",
    "[bold red]x",
    "\x1b]0;gotcha\x07",
    "a\x9b31mb",
    "a\nb\tc",
    "\u202egpj",
    "a\\[",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("err", [False, True])
def test_tables_show_names_literally(capsys, name, err):
    ui.print_table(["n", name], [[1, name], [2, "x"]], err=err, right=[0])
    shown = capsys.readouterr()[err]
    literal = name.translate(
        {0x1B: r"\x1b", 7: r"\x07", 0x9B: r"\x9b", 10: r"\n", 9: r"\t", 0x202E: r"\u202e"}
    )
    assert shown.count(literal) == 2
    assert len(shown.splitlines()) == 3
    assert not {*shown} & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_bytes_that_are_no_text_are_shown_and_do_not_fail(capsys):
    ui.say("day-\udcff.csv")
    ui.warn("[/b] \x1b[2J")
    out, err = capsys.readouterr()
    assert out == "day-\\udcff.csv\n"
    assert err == "memento: warning: [/b] \\x1b[2J\n"


def test_long_tables_have_whole_lines_without_a_terminal(capsys):
    ui.print_table((), [["held", "x" * 3000]])
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_every_command_of_a_memory_shows_hostile_names(capsys, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    day = {"y": np.arange(60) % 5, "id": np.arange(60)}
    np.savez("day.npz", **day)
    tables.write(tmp_path / "day.parquet", Samples({**day, name: np.zeros(60)}))

    def call(*words: str) -> str:
        with pytest.raises(SystemExit) as done:
            main(["memory", *words])
        out, err = capsys.readouterr()
        assert not {*(out + err)} & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert done.value.code in (0, 2), err
        return out + err

    call("init", "m", "--capacity", "100", "--set", "batch_size=4", "--labels", "y:5")
    assert "offered 60" in call("insert", "m", "day.parquet")
    assert "60 of 100" in call("status", "m")
    call("trained", "m")
    call("status", "m")
    call("export", "m", "out.parquet")
    call("insert", "m", "day.npz")  # lacks the column: named in the message
    call("status", name)
    call("init", "m")


def test_stages_are_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(ui.Progress, "every", 0.05)
    with ui.Progress() as bar:
        task = bar.add_task("[b]reading", total=4)
        bar.update(task, completed=1)
        time.sleep(0.3)
        bar.say("a remark")
        monkeypatch.setattr(bar, "_next", 0.0)
        bar.update(task, description="writing \x1b[2J")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "memento: [b]reading"
    assert any(line.startswith("memento: [b]reading, 25 %, ") for line in lines)
    assert "a remark" in lines
    assert lines[-1] == "memento: writing \\x1b[2J"


def test_short_work_says_nothing(capsys):
    with ui.Progress(after=5.0) as bar:
        bar.add_task("comparing")
    assert capsys.readouterr() == ("", "")


def test_a_stage_a_second_and_no_more(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(ui, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with ui.Progress() as bar:
        for i in range(20):  # eight a second
            bar.add_task(f"file {i}")
            now[0] += 0.125
    said = [line for line in capsys.readouterr().err.splitlines() if "so far" not in line]
    assert said == ["memento: file 0", "memento: file 8", "memento: file 16"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("refused", [False, True])
def test_a_thread_that_never_begins_keeps_nobody_waiting(monkeypatch, refused):
    """As where memory is short: of threads that start, some end at once without a word."""

    def start(*_):
        if refused:
            raise RuntimeError("can't start new thread")

    for module, name in ((threading, "_start_new_thread"), (_thread, "start_new_thread")):
        monkeypatch.setattr(module, name, start)
    with ui.Progress() as bar:
        bar.add_task("comparing")


def test_a_terminal_gets_bars(tmp_path):
    script = (
        "from memento.cli import ui\n"
        "with ui.Progress() as bar:\n"
        "    bar.update(bar.add_task('[b]stage', total=2), completed=2)\n"
        "ui.print_table(['a'], [['[/b]']], err=True)\n"
    )
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", script], stderr=theirs, env=env)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "[b]stage" in shown
    assert "2/2" in shown
    assert "[/b]" in shown
    assert "memento:" not in shown


def test_json_is_one_line(capsys):
    ui.print_json({"name": "\x1b[/b]\n", "path": tuple("ab")})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["name"] == "\x1b[/b]\n"
