"""Commands that the documentation shows work as printed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from memento.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PAGES += sorted((ROOT / "cases").glob("*/docs/*.md"))
ENDS = {"|", "||", "&&", ";", "&", ">", "2>", "then", "do"}  # where the shell goes on


def blocks(text: str) -> Iterator[str]:
    """Contents of the fenced blocks of a page."""
    for number, part in enumerate(text.split("```")):
        if number % 2:
            yield part.partition("\n")[2]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each `memento ...` in a page's blocks."""
    for block in blocks(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.strip().startswith("memento "):
                continue
            words = shlex.split(line, comments=True)[1:]
            stop = next((i for i, word in enumerate(words) if word in ENDS), len(words))
            words = [w.rstrip(";") for w in words[:stop] if w != "$model"]
            if not {"...", "GROUP", "DIR"} & set(words):
                yield words


FOUND = [(page.name, words) for page in PAGES for words in commands(page)]


def test_there_are_commands():
    assert len(FOUND) > 30
    assert ["memory", "status", "mem", "--decide"] in [words for _, words in FOUND]


@pytest.mark.parametrize(("page", "words"), FOUND, ids=[f"{p}:{' '.join(w)}" for p, w in FOUND])
def test_a_command_is_understood(capsys, monkeypatch, tmp_path, page, words):
    """Words and options are known; patterns of experiments match some."""
    monkeypatch.chdir(tmp_path)
    own = "--experiments" in words or "--config" in words  # a page that the reader writes
    checked = [*words, "--dry-run"] if words[0] == "run" and not own else [*words, "--help"]
    with pytest.raises(SystemExit) as done:
        main(checked)
    said = capsys.readouterr()
    assert not done.value.code, f"{page}: {said.err}"
