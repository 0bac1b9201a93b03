"""Where experiments come from: pages of the package, files of the user, patterns, needs."""

from __future__ import annotations

import sys

import pytest

from memento.errors import SettingError, StorageError
from memento.runner import registry
from memento.runner.registry import Registry, installed_pages

HEAD = "from memento.runner.spec import Experiment\n"


@pytest.fixture
def write(tmp_path):
    def make(text: str, name: str = "mine.py"):
        (tmp_path / name).write_text(HEAD + text)
        return tmp_path / name

    return make


def test_groups_of_the_package():
    expected = [
        "puffer-download", "puffer-preprocess", "puffer-analysis", "puffer-replay",
        "puffer-deployment", "datacenter-replay", "datacenter-tuning", "demo",
    ]  # fmt: skip
    assert sorted(installed_pages()) == sorted(expected)
    assert Registry().groups == tuple(sorted(expected))


def test_a_missing_page_is_an_empty_group_with_a_reason():
    known = Registry(pages={"mine": "memento.no_such_page"})
    assert known.group("mine") == {}
    assert known.notes == ["group mine is empty: this installation has no memento.no_such_page"]


def test_a_page_that_lacks_a_package_says_which(write, tmp_path, monkeypatch):
    write("import no_such_package\n", "lacking_page.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingError, match="no_such_package"):
        Registry(pages={"mine": "lacking_page"}).group("mine")


def test_pages_are_imported_only_when_asked_for(write, tmp_path, monkeypatch):
    write("def experiments():\n    yield Experiment('mine', 'a', ':f')\n", "lazy_page.py")
    monkeypatch.syspath_prepend(tmp_path)
    known = Registry(pages={"mine": "lazy_page", "other": "lazy_page"})
    assert "lazy_page" not in sys.modules
    assert known.group("mine")["a"].body == "lazy_page:f"
    assert known.group("other") == {}


def test_bodies_of_a_file_are_found_from_anywhere(write, tmp_path):
    file = write(
        "def experiments():\n"
        "    yield Experiment('mine', 'a', ':f')\n"
        "    yield Experiment('mine', 'b', 'beside.py:f')\n"
        "    yield Experiment('mine', 'c', 'json:dumps')\n"
    )
    bodies = {name: e.body for name, e in Registry([file]).group("mine").items()}
    assert bodies == {"a": f"{file}:f", "b": f"{tmp_path / 'beside.py'}:f", "c": "json:dumps"}


def test_patterns(page):
    known = Registry([page])
    assert [e.name for e in known.select("counting", ["walk-[12]", "b*"])] == [
        "base", "walk-1", "walk-2",
    ]  # fmt: skip
    assert len(known.select("counting")) == 5
    with pytest.raises(SettingError, match=r"matches 'x\*'; there are base, walk-1"):
        known.select("counting", ["base", "x*"])
    with pytest.raises(SettingError, match="no group 'count'; there are datacenter-replay"):
        known.select("count")


def test_needs_with_patterns(page):
    known = Registry([page])
    assert known.needs(known.group("counting")["sum"]) == [f"counting/walk-{i}" for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1 +\n", "line 2: SyntaxError"),
        ("\n\nraise KeyError('x')\n", "line 4: KeyError"),
        ("x = 1\n", r"no function experiments\(\)"),
        ("def experiments():\n    return [1]\n", "yields 1, no Experiment"),
        (
            "def experiments():\n    return [Experiment('a', 'b', ':f')] * 2\n",
            "declares a/b twice",
        ),
    ],
)
def test_wrong_files(write, text, words):
    with pytest.raises(SettingError, match=words):
        Registry([write(text)])


def test_absent_file(tmp_path):
    with pytest.raises(StorageError, match="no such file of experiments"):
        Registry([tmp_path / "absent.py"])


def test_a_need_that_is_not_there(write):
    known = Registry([write(
        "def experiments():\n    yield Experiment('mine', 'a', ':f', needs=('demo/x',))\n"
    )])  # fmt: skip
    with pytest.raises(SettingError, match="needs 'demo/x', and there is no such experiment"):
        known.needs(known.group("mine")["a"])


def test_a_file_is_run_once(write):
    file = write("import random\nMARK = random.random()\n")
    assert registry.load_file(file).MARK == registry.load_file(file).MARK
