"""Commands and code that the documentation shows work as printed."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("typer")

from memento.cli import packages
from memento.cli.main import main
from run_pages import blocks_of, run_page

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
ENDS = {"|", "||", "&&", ";", "&", ">", "2>", "then", "do"}  # where the shell goes on


def blocks(text: str) -> Iterator[str]:
    """Contents of the fenced blocks of a page."""
    for number, part in enumerate(text.split("```")):
        language, _, content = part.partition("\n")
        if number % 2 and language != "text":  # that is what something prints
            yield content


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each `memento ...` in a page's blocks."""
    for block in blocks(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            if not line.startswith("memento "):
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


# Those of the cases come with packages of their own, which say what they need.
OWN = {name: needed for name, needed in packages.COMMANDS.items() if "puffer" not in name}
OWN = {name: needed for name, needed in OWN.items() if "datacenter" not in name and name != "demo"}


def test_pages_name_the_extras_that_their_commands_need():
    """Where a page says what to install, that is enough for what it goes on with."""
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        said = {
            e
            for extras in re.findall(r"memento-replay\[([\w,]+)\]", text)
            for e in extras.split(",")
        }
        if not said or "all" in said:
            continue
        needed: set[str] = set()
        for words in commands(page):
            command = " ".join(words[: 1 if words[0] in OWN else 2])
            for need in OWN.get(command, ()):
                package, _, option = need.partition(" if ")
                if not option or f"--{option}" in words:
                    needed.add(packages.EXTRAS[package])
        if any(True for _ in commands(page)):
            assert needed <= said, f"{page.name} does not name {sorted(needed - said)}"
            found += 1
    assert found > 4


CODE = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
# Services need processes, time limits and packages of their own: tests/integrations/test_recipes.py
CODE = [page for page in CODE if page.stem != "recipes_services"]


def followed(page: Path) -> bool:
    """Whether its commands are run as well, not only understood."""
    return "tutorials" in page.parts or page.stem == "recipes"


@pytest.mark.compiled
@pytest.mark.slow  # some pages take ten seconds
@pytest.mark.filterwarnings("ignore:capacity .* fewer than 32 batches:UserWarning")
@pytest.mark.parametrize("page", CODE, ids=[page.stem for page in CODE])
def test_code_of_a_page_runs_and_prints_what_stands_there(monkeypatch, tmp_path, page):
    monkeypatch.chdir(tmp_path)
    blocks = list(blocks_of(page.read_text(encoding="utf-8")))
    left_out = sum(block.language == "python" and bool(block.skipped) for block in blocks)
    assert run_page(page, tmp_path, shell=followed(page)) + left_out


def test_settings_on_pages_are_toml():
    found = 0
    for page in PAGES:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.language == "toml":
                tomllib.loads(block.code)
                found += 1
    assert found > 5


def test_other_commands_on_pages_exist():
    """Targets of make, and scripts with their options."""
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    found = 0
    for page in PAGES:
        for line in "\n".join(blocks(page.read_text(encoding="utf-8"))).splitlines():
            words = (
                shlex.split(line, comments=True) if re.match(r"(\$ )?(make|python) ", line) else []
            )
            words = words[words[:1] == ["$"] :]
            if words[:1] == ["make"]:
                assert words[1] in targets, f"{page.name}: {line}"
            elif len(words) > 1 and words[1].startswith(("benchmarks/", "notebooks/")):
                script = (ROOT / words[1]).read_text(encoding="utf-8")
                options = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
                assert all(option in script for option in options), f"{page.name}: {line}"
            else:
                continue
            found += 1
    assert found > 5
