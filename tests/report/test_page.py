"""Reports: one file that needs no other, and in which no text becomes markup."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import StorageError
from memento.report.page import Interactive, Picture, Table, write_page

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
NASTY = "<script>alert(\"1\")</script> & 'so on' </p>"


class Reader(HTMLParser):
    """Tags in order, text by tag, attributes; complains about tags that are not closed in order."""

    empty = ("meta", "img")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.attributes = [], [], {}, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.empty:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text[self.open[-1]][-1] += data


def written(tmp_path, title, parts):
    path = tmp_path / "report.html"
    write_page(path, title, parts)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".png"] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "dot.png"
    path.write_bytes(PNG)
    return path


def test_parts_in_order(tmp_path, picture):
    table = Table(("a", "b"), [("1", "2"), ("3", "4")], "Of numbers.")
    text = written(tmp_path, "Title", ["First.", table, Picture(picture, "A dot."), "Last."])
    page = Reader(text)
    assert text.startswith("<!doctype html>")
    assert page.text["title"] == page.text["h1"] == ["Title"]
    assert page.text["p"] == ["First.", "Of numbers.", "Last."]
    assert (page.text["th"], page.text["td"]) == (["a", "b"], ["1", "2", "3", "4"])
    assert page.text["figcaption"] == ["A dot."]
    order = [tag for tag in page.tags if tag in ("p", "table", "figure")]
    assert order == ["p", "table", "p", "figure", "p"]


def test_needs_no_other_file(tmp_path, picture):
    text = written(tmp_path, "Title", [Picture(picture, "A dot.")])
    page = Reader(text)
    (source,) = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    kind, data = source.split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == PNG
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "http" not in text
    assert "url(" not in text
    picture.unlink()
    assert Reader((tmp_path / "report.html").read_text()).tags == page.tags


def test_text_stays_text(tmp_path, picture):
    table = Table((NASTY,), [(NASTY,)], NASTY)
    page = Reader(written(tmp_path, NASTY, [NASTY, table, Picture(picture, NASTY)]))
    assert "script" not in page.tags
    for tag in ("title", "h1", "th", "td", "figcaption"):
        assert page.text[tag] == [NASTY]
    assert page.text["p"] == [NASTY, NASTY]
    assert ("img", "alt", NASTY) in page.attributes


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=30))
def test_any_text(tmp_path_factory, words):
    page = Reader(written(tmp_path_factory.mktemp("page"), "Title", [words]))
    assert page.text["p"] == [words]


def test_bytes_that_are_no_text(tmp_path):
    assert Reader(written(tmp_path, "a\udcff", ["b\udc80"])).text["p"] == ["b?"]


class Drawn:
    """In place of Altair's chart."""

    def to_dict(self):
        return {"data": {"values": [{"y": "<!--<script>"}, {"y": "</script><b>"}]}}


def test_no_text_ends_or_opens_a_script(tmp_path):
    """Behind "<!--<script>" browsers take the end of a script for text."""
    pytest.importorskip("vl_convert")
    text = written(tmp_path, "Title", [Interactive(Drawn(), "A chart.")])
    specs = text[text.index("const specs = ") :]
    assert specs.lower().count("<!--") == specs.count("<script") == 0
    assert specs.count("</script") == 1
    line = specs[len("const specs = ") : specs.index(", night = ")]
    assert json.loads(line) == [Drawn().to_dict()]


def test_replaced_at_once(tmp_path):
    path = tmp_path / "report.html"
    write_page(path, "Old", [])
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"gone\.png"):
        write_page(path, "New", [Picture(tmp_path / "gone.png", "")])
    assert path.read_bytes() == before
    write_page(path, "New", [])
    assert Reader(path.read_text()).text["h1"] == ["New"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="report"):
        write_page(tmp_path / "nowhere" / "report.html", "Title", [])
