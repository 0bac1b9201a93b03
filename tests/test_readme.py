"""The README: its links, its length, and that its picture shows what its example does."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SCRIPT = ROOT / "benchmarks" / "readme_picture.py"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them, and those set by hand."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"(?m)^#+ (.*)$", text):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def test_links_are_absolute_and_lead_somewhere():
    """A package index shows the page without the files beside it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = project["urls"]["Homepage"] + "/blob/main/"
    links = LINK.findall(README.read_text(encoding="utf-8"))
    assert len(links) > 20
    for link in links:
        assert link.startswith(base), link
        path, _, anchor = link.removeprefix(base).partition("#")
        target = ROOT / path.removesuffix("?raw=true")
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_it_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert text.index("pip install memento-replay") < text.index("```python")
    code = text.partition("```python\n")[2].partition("```")[0].splitlines()
    assert len([line for line in code if line]) <= 20


@pytest.mark.compiled
def test_the_picture_shows_what_the_example_does(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("readme_picture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["readme_picture"] = module
    spec.loader.exec_module(module)
    shares, evidence, trained = module.draw(tmp_path / "example.png")
    assert (tmp_path / "example.png").stat().st_size > 20_000
    came, random, memento = shares.values()
    assert came[2:].sum() < 0.04
    assert random[2:].sum() < 0.06
    assert memento[2:].sum() > 0.35
    assert [day for day, yes in enumerate(trained, 1) if yes] == [1, module.NEW]
    assert max(value for day, value in enumerate(evidence, 1) if day not in (1, module.NEW)) < 200
