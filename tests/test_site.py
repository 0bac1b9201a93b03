"""The site of the documentation: it builds without a warning, is whole, and needs no network."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import memento
from browser import CHROMIUM, DRIVER, MISSING, browser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIG = ROOT / "mkdocs.yml"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CONFIG.exists(), reason="needs the whole checkout"),
]

ENTRIES = {
    line.removeprefix("::: ")
    for page in (DOCS / "api").glob("*.md")
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("::: ")
}
# How many results there are; they lie in the shadow of the search's element.
RESULTS = """
const results = root => [...root.querySelectorAll('*')].map(
  e => e.shadowRoot ? results(e.shadowRoot) : e.localName == 'mark').reduce((a, b) => a + b, 0);
return results(document);
"""
MODULES = ["memento.study", "memento.training", "memento.scale", "memento.deployment"]
MODULES += ["memento.testing", "memento.errors", "memento.runner.spec", "memento.report.kinds"]
MODULES += [f"memento.integrations.{name}" for name in ("torch", "sklearn", "arrow", "encoders")]
MODULES += [f"memento.integrations.{name}" for name in ("sql", "imblearn", "river")]
MODULES += [f"memento.integrations.{name}" for name in ("torchrl", "tracking")]
# What `Memory.why` gives; a function that is named like its module; what cannot be imported here.
SINGLE = ["memento.explain.Held", "memento.scale.rewrite.rewrite"]
SINGLE += ["memento.integrations.avalanche.MementoBuffer"]


def test_pages_of_the_cases_are_there_one_by_one():
    """They are links to files, as the generator follows none to folders."""
    theirs = list(ROOT.glob("cases/*/docs/*.md"))
    for page in theirs:
        here = DOCS / page.relative_to(ROOT / "cases").parts[0] / page.name
        assert here.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_the_reference_has_every_public_name():
    names = {f"memento.{name}" for name in memento.__all__ if name != "__version__"}
    assert names | {*MODULES, *SINGLE} == ENTRIES


def test_the_site_builds_without_a_warning_and_is_whole(tmp_path):
    """One test, as the site is built once: `make docs`, elsewhere."""
    site = built(tmp_path)
    check_pages(site)
    check_that_nothing_is_fetched(site)
    check_the_reference(site)
    if CHROMIUM and DRIVER:
        check_in_a_browser(site, tmp_path / "browser")
    else:
        pytest.skip(f"what a browser makes of it {MISSING}")


def built(folder: Path) -> Path:
    shutil.copy(CONFIG, folder)
    for part in (DOCS, *ROOT.glob("cases/*/docs")):
        shutil.copytree(part, folder / part.relative_to(ROOT), symlinks=True)
    (folder / "src").symlink_to(ROOT / "src")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "griffe:" not in done.stdout + done.stderr, "docstrings that cannot be read"
    return folder / "site"


def check_pages(site: Path) -> None:
    """Every page is built and found in the navigation."""
    pages = [page.relative_to(DOCS) for page in DOCS.glob("**/*.md")]
    assert len(pages) > 25
    nav = CONFIG.read_text(encoding="utf-8").partition("\nnav:")[2]
    assert {page.as_posix() for page in pages} == set(re.findall(r"[\w/-]+\.md", nav))
    for page in pages:
        assert (site / page.with_suffix(".html")).is_file(), page


def check_that_nothing_is_fetched(site: Path) -> None:
    for page in site.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', text)
        fetched += re.findall(
            r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="([^"]+)"', text
        )
        assert fetched
        assert not [address for address in fetched if ":" in address or address.startswith("//")]


def check_the_reference(site: Path) -> None:
    """It shows what modules export, and examples of docstrings as code."""
    shown = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    for name in MODULES:
        module = importlib.import_module(name)
        things = {n: getattr(module, n) for n in module.__all__}
        exported = [n for n, it in things.items() if inspect.isclass(it) or inspect.isfunction(it)]
        assert exported
        # `scale.rewrite` is the function's module to a reader of files, and shown as such.
        ids = {n: (f'id="{name}.{n}"', f'id="{name}.{n}.{n}"') for n in exported}
        assert not [n for n in exported if not any(found in shown for found in ids[n])], name
    assert not [name for name in SINGLE if f'id="{name}"' not in shown]
    assert "<blockquote>" not in shown
    assert 'class="gp">&gt;&gt;&gt; </span>' in shown


def check_in_a_browser(site: Path, folder: Path) -> None:
    """Pages fit a phone, and search works from disk."""
    folder.mkdir()
    with browser(folder) as chromium:
        for name in ("index", "choosing", "results", "api/memory"):  # tables wider than a phone
            seen = chromium.look(site / f"{name}.html", 390, dark=True)
            assert seen["wide"] == 390, name
            assert seen["errors"] == []
        assert seen["background"] != "rgb(255, 255, 255)"

        def ask(script):
            return chromium.ask("POST", "/execute/sync", {"script": script, "args": []})

        loaded = ask("return performance.getEntriesByType('resource').map(e => e.name)")
        assert all(address.startswith("file:") for address in loaded)
        chromium.look(site / "index.html", 1300)
        ask("document.querySelector('.md-search__button').click()")
        keys = [{"type": kind, "value": c} for c in "reservoir" for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keys", "actions": keys}]
        chromium.ask("POST", "/actions", {"actions": actions})
        end = time.monotonic() + 60
        while not ask(RESULTS) and time.monotonic() < end:  # the index is read by a worker
            time.sleep(0.1)
        assert ask(RESULTS) > 5
