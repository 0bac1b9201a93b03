"""Commands from functions: options from docstrings and from the fields of dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

pytest.importorskip("typer")

import typer
from typer.testing import CliRunner

from memento.cli import tables
from memento.cli.commands import Commands, with_options
from memento.cli.options import FileOptions

called: list[object] = []


@dataclass(frozen=True)
class Base:
    """Where it comes from.

    Attributes:
        source (--from DIR): Where it is,
            on two lines.
        again: Once more.
    """

    source: Path
    again: bool = False


@dataclass(frozen=True)
class Draw(Base):
    """How it is drawn.

    Attributes:
        seed: Of the draw.
        again: Draw once more.
    """

    seed: int = 0


@dataclass(frozen=True)
class Bare:
    """Nothing is said of its fields."""

    size: int = 2


def sample(
    folder: Path,
    draw: Draw,
    names: Annotated[list[str] | None, typer.Argument()] = None,
    workers: int = 1,
    set_: list[str] | None = None,
    warm: bool = True,
    level: Annotated[int, typer.Option("-v", count=True)] = 0,
    plain: Annotated[str, typer.Option(help="As ever.")] = "a",
) -> None:
    """Draw.

    In two paragraphs.

    Args:
        folder (DIR): Of a memory.
        names: Of samples.
        workers (--workers, -j): Processes.
        set_ (--set NAME=VALUE): A setting. Repeatable.
        warm: Go on.
        level: Say more.

    Raises:
        SettingError: Never shown to users.
    """
    called.append((folder, draw, names, workers, set_, warm, level, plain))


@pytest.fixture
def run():
    called.clear()
    app = Commands()
    assert app.command()(sample) is sample
    return lambda *words: CliRunner().invoke(app, [*words], env={"COLUMNS": "200"})


def test_defaults(run):
    assert run("m", "--from", "days").exit_code == 0
    assert called == [(Path("m"), Draw(Path("days")), None, 1, None, True, 0, "a")]


def test_every_option(run):
    words = "m a b --from d --again --seed 3 -j 2 --set x=1 --set y=2 --no-warm -vv --plain z"
    assert run(*words.split()).exit_code == 0
    draw = Draw(Path("d"), True, 3)
    assert called == [(Path("m"), draw, ["a", "b"], 2, ["x=1", "y=2"], False, 2, "z")]


@pytest.mark.parametrize("words", [["m"], ["--from", "d"], ["m", "--from", "d", "--no-again"]])
def test_what_is_needed_and_what_is_unknown(run, words):
    assert run(*words).exit_code == 2
    assert not called


def test_help(run):
    text = " ".join(run("--help").output.split())
    for words in ("In two paragraphs.", "Where it is, on two lines.", "Draw once more.", "--from",
                  "DIR", "Processes.", "NAME=VALUE", "Say more.", "As ever."):  # fmt: skip
        assert words in text, text
    assert "Never shown" not in text
    assert "Once more." not in text  # what a derived class says counts


def test_a_function_without_descriptions_is_as_with_typer_alone():
    def plain(name: str, flag: bool = False) -> None:
        """Do."""

    app = Commands()
    app.command()(plain)
    assert CliRunner().invoke(app, ["a", "--no-flag"]).exit_code == 0
    assert with_options(plain).__doc__ == "Do."


def test_options_said_by_typer_alone_are_left_as_they_are():
    """As functions of other distributions may be written."""

    def other(bare: Bare, seed: int = typer.Option(0, help="Seed.")) -> None:
        """Do.

        Args:
            seed: Of what is drawn.
        """
        called.append((bare.size, seed))

    app = Commands()
    app.command()(other)
    called.clear()
    assert CliRunner().invoke(app, ["--seed", "3", "--size", "4"]).exit_code == 0
    assert called == [(4, 3)]


def test_types_of_columns_are_all_named():
    told = FileOptions.__doc__.partition("types (NAME=TYPE)")[2].partition("separator")[0]
    assert all(kind in told for kind in tables.TYPES)
