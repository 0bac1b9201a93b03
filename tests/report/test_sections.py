"""Reports as text, JSON and pages."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re

import numpy as np
import pytest

from memento.errors import SettingError, StorageError
from memento.report.page import GENERATOR
from memento.report.sections import Chart, Listing, Report, Section

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
LISTING = Listing(
    "scores",
    "What came out.",
    {
        "arm": ["a", "b"],
        "tail": [0.12345, math.nan],
        "tail_error": [0.0456, 0.1],
        "trained": [True, False],
        "samples": np.array([12_345, 7]),
        "paper tail": [0.704, math.nan],
        "paper tail_low": [0.7, math.nan],
        "paper tail_high": [0.71, math.nan],
    },
)


def draw(path, table):
    path.write_bytes(PNG)


@pytest.fixture
def report(tmp_path):
    days = np.array(["2024-01-01", "NaT"], "datetime64[D]")
    chart = Chart("figure", "A figure.", {"day": days, "value": np.array([1.0, np.inf])}, draw)
    sections = [Section("first", "First part", ["Words & <more>.", chart, LISTING])]
    return Report("results", tmp_path, "Title", ["Before."], sections, {"second": "run it"})


def test_a_listing_as_text():
    shown = LISTING.shown()
    assert shown.header == ["arm", "tail", "trained", "samples", "paper tail"]
    assert shown.rows == [
        ["a", "0.123 ± 0.0456", "yes", "12,345", "0.704 [0.7, 0.71]"],
        ["b", "", "no", "7", ""],
    ]
    assert " ".join(str(LISTING).split("\n")[0].split()) == "arm tail trained samples paper tail"
    assert str(LISTING).endswith("What came out.")
    assert Listing("none", "", {}).shown().rows == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (100.0, "100"), (17.081, "17.08"), (3.0, "3"),
     (0.000123, "0.000123"), (-0.5, "-0.5"),
     (dt.date(2024, 1, 2), "2024-01-02"), (np.float32(0.25), "0.25"), ("x", "x"), (math.inf, "")],
)  # fmt: skip
def test_cells(value, text):
    assert Listing("t", "", {"a": [value]}).shown().rows == [[text]]


def test_as_json(report):
    found = json.loads(json.dumps(report.document(), allow_nan=False))
    (section,) = found["sections"]
    assert section["text"] == ["Words & <more>."]
    assert section["figures"][0]["rows"] == [
        {"day": "2024-01-01", "value": 1.0}, {"day": None, "value": None},
    ]  # fmt: skip
    assert section["tables"][0]["rows"][1]["tail"] is None
    assert section["tables"][0]["rows"][0]["paper tail_high"] == 0.71
    assert found["missing"] == {"second": "run it"}


def test_as_a_page(report, tmp_path):
    told = []
    report.write(tmp_path / "page.html", lambda *words: told.append(words))
    text = (tmp_path / "page.html").read_text()
    assert GENERATOR in text
    assert told == [(0, 1, "figure"), (1, 1, "")]
    assert re.findall(r'href="#([^"]*)"', text) == ["first", "missing"]
    assert re.findall(r'h2 id="([^"]*)"', text) == ["first", "missing"]
    assert "Words &amp; &lt;more&gt;." in text
    assert '<th class="paper">paper tail</th>' in text
    assert '<td class="paper">0.704 [0.7, 0.71]</td>' in text
    assert "<td>0.123 ± 0.0456</td>" in text
    assert base64.b64encode(PNG).decode() in text
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_page_that_fails_leaves_the_one_before(report, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")

    def fail(path, table):
        raise StorageError("no room")

    broken = Section("b", "B", [Chart("c", "", {}, fail)])
    wrong = Report("results", tmp_path, "T", [], [*report.sections, broken])
    with pytest.raises(StorageError, match="no room"):
        wrong.write(path)
    assert path.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_section_by_name(report):
    assert report.section("first").listings == [LISTING]
    with pytest.raises(SettingError, match="'second'; run it"):
        report.section("second")
    with pytest.raises(SettingError, match="there are first"):
        report.section("third")


def test_shown_in_a_script(report, tmp_path, capsys):
    report.section("first").show(tmp_path / "figures")
    out = capsys.readouterr().out
    assert (tmp_path / "figures" / "figure.png").read_bytes() == PNG
    for words in ("First part", "figure.png: A figure.", "paper tail", "What came out."):
        assert words in out
