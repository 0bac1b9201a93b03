"""What every command promises: help with examples and valid names, completion, `--json`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

pytest.importorskip("typer")

from typer.main import get_command

from memento.cli.completion import SELECTING
from memento.cli.main import application, main
from memento.distances import named_distances
from memento.integrations.tabular import MODELS
from memento.policies import named_policies
from memento.retrain import named_triggers


def leaves(command, words=()):
    """Each command of the tree with its words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words, command
    for name, one in (inner or {}).items():
        yield from leaves(one, (*words, name))


TREE = get_command(application())
LEAVES = list(leaves(TREE))
EACH = pytest.mark.parametrize(
    ("words", "command"), LEAVES, ids=[" ".join(words) for words, _ in LEAVES]
)


def examples(command) -> list[str]:
    return (command.epilog or "").split("\n\n")[1:]


def place(command) -> tuple[str, str]:
    """Where the function of a command stands."""
    return command.callback.__module__, command.callback.__qualname__


def help_of(words: str, option: str) -> str:
    command = dict(LEAVES)[tuple(words.split())]
    (parameter,) = [p for p in command.params if option in p.opts]
    return parameter.help


@EACH
def test_it_says_what_it_does_and_shows_how(words, command):
    assert command.help
    assert examples(command)
    for example in examples(command):
        program, *rest = shlex.split(example)
        assert program == "memento"
        # A command of two names may be shown by either.
        names = [name for name, other in LEAVES if place(other) == place(command)]
        (own,) = [name for name in names if tuple(rest[: len(name)]) == name] or [words]
        assert tuple(rest[: len(own)]) == own, example
        # Its own words are understood, with all that is required, and nothing is done.
        command.make_context(" ".join(own), rest[len(own) :])


@EACH
def test_every_argument_and_option_has_help(words, command):
    del words
    assert [p.name for p in command.params if not (p.hidden or p.help)] == []


@EACH
def test_its_result_can_be_had_as_json(words, command):
    del words
    (option,) = [p for p in command.params if "--json" in p.opts]
    assert option.is_flag
    assert not option.default
    assert option.help == "Print one JSON object."


def test_groups_say_what_they_are_for():
    def groups(command, words=()):
        for name, one in getattr(command, "commands", {}).items():
            if hasattr(one, "commands"):
                yield (*words, name), one
                yield from groups(one, (*words, name))

    found = dict(groups(TREE))
    assert {("memory",), ("deploy",)} <= set(found)
    assert all(group.help for group in found.values())


def test_help_shows_the_examples(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as done:
        main(["memory", "status", "--help"])
    assert not done.value.code
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert "memento memory status mem --decide" in out


@pytest.mark.parametrize(
    ("words", "option", "names"),
    [
        ("memory init", "--policy", named_policies),
        ("memory init", "--config", named_distances),
        ("select", "--policy", SELECTING),
        ("backtest", "--model", MODELS),
        ("backtest", "--triggers", ["every-N", *(set(named_triggers) - {"every"})]),
    ],
)
def test_valid_names_are_listed(words, option, names):
    own = [name for name in names if name not in of_tests()]
    said = set(re.findall(r"[\w-]+", help_of(words, option)))
    assert set(own) <= said


def of_tests():
    """Kinds that other tests define in this process, by now."""
    return {
        kind
        for table in (named_policies, named_distances, named_triggers)
        for kind, made in table.items()
        if not made.__module__.startswith("memento.")
    }


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("mem", ["memory"]),
        ("memory in", ["init", "insert"]),
        ("memory init mem --pol", ["--policy"]),
        ("memory init mem --policy class", ["class-balanced-reservoir"]),
        ("select days --policy density", ["density-reservoir"]),
        ("backtest --policies fifo,un", ["fifo,unbounded"]),
        ("backtest --triggers on-", ["on-arrivals"]),
        ("backtest --model log", ["logistic"]),
        ("backtest --model nothing-like-it", []),
    ],
)
def test_the_shell_completes(capsys, monkeypatch, typed, expected):
    words = ["memento", *typed.split(" ")]
    monkeypatch.setenv("_MEMENTO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as done:
        main([])
    assert not done.value.code
    assert capsys.readouterr().out.split() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_the_shell_can_be_had(capsys, monkeypatch, shell):
    monkeypatch.setenv("_MEMENTO_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit) as done:
        main([])
    assert not done.value.code
    assert "_MEMENTO_COMPLETE" in capsys.readouterr().out


SHOW = """
import sys, typer
from memento.cli.main import application
from typer.main import get_command

def show(command, words=()):
    for name, inner in getattr(command, "commands", {}).items():
        show(inner, (*words, name))
    for p in command.params:
        print(*words, p.name, p.opts, getattr(p, "help", None), p.metavar)

show(get_command(application()))
"""


def test_options_are_the_same_without_docstrings():
    """Names of options stand in docstrings, which `PYTHONOPTIMIZE=2` takes away."""
    shown = [
        subprocess.run(
            [sys.executable, "-c", SHOW],
            env={**os.environ, "PYTHONOPTIMIZE": level},
            capture_output=True,
            text=True,
            check=True,
            timeout=200,
        ).stdout
        for level in ("0", "2")
    ]
    assert "--id" in shown[0]
    assert shown[0] == shown[1]
