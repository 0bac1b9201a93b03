"""The page of a memory, as HTML and in a real browser."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

import called
from browser import CHROMIUM, DRIVER, MISSING, browser
from memento import FIFO, JensenShannon, Memento, Memory, OnArrivals, observe, retrained
from memento.arrivals import Arrivals
from memento.errors import SettingError
from memento.report import live
from memento.report.folders import kind_of, open_report

call, content = called.report, called.content
NASTY = "</script><script>alert(1)</script>"


def memory_in(folder, days=4, seed=0):
    """A memory with predictions, texts, something new, and arrivals kept apart."""
    memory, recent, rng = Memory(200, Memento(
        [JensenShannon.of_labels("y", 5), JensenShannon.of_probabilities("yhat")])
    ), Arrivals(), np.random.default_rng(seed)  # fmt: skip
    for day in range(days):
        y = rng.choice(5, 500, p=[0.6, 0.3, 0.07, 0.03, 0] if day < 3 else [0.5, 0.3, 0.1, 0, 0.1])
        yhat = rng.gamma(0.05 + 5 * np.exp(-0.5 * (np.arange(5) - y[:, None]) ** 2))
        texts = np.array([NASTY, "usual"])[rng.integers(2, size=500)]
        data = {"y": y, "yhat": yhat / yhat.sum(axis=1, keepdims=True), "text": texts}
        from memento import Samples

        for part in recent.arrive(Samples(data), np.random.default_rng(day)):
            memory.insert_unit(f"day {day}", part)
        if day == 2:
            memory.mark_trained()
    memory.recent = recent
    memory.save(folder)
    return memory


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("memories")
    memory_in(root / "now")
    memory_in(root / "before", days=3)
    return root


def test_a_page_beside_the_memory(call, folders):
    before = content(folders)
    assert kind_of(folders / "now") == "memory"
    code, out, err = call(folders / "now", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["kind"] == "memory"
    assert found["out"] == str(folders / "now-report.html")
    names = [section["name"] for section in found["sections"]]
    assert names == ["kept", "ages", "coverage", "new"]
    after = content(folders)
    assert set(after) - set(before) == {"now-report.html"}
    assert all(after[name] == data for name, data in before.items()), "the memory is only read"
    page = (folders / "now-report.html").read_text()
    assert page.count('class="chart"') == sum(len(s["figures"]) for s in found["sections"])
    assert page.count("</script>") == 1
    assert "alert(1)</script>" not in page
    assert call(folders / "now")[0] == 0, "a page of ours is replaced"
    (folders / "now-report.html").unlink()


def test_against_another_memory(folders):
    report = open_report(folders / "now", folders / "before")
    section = report.section("against")
    assert [chart.name for chart in section.charts] == [
        "against-kept-0", "against-kept-1", "against-cells",
    ]  # fmt: skip
    with pytest.raises(SettingError, match="holds no memory; give the folder of one"):
        open_report(folders / "now", folders)


def test_names_of_columns_change_no_table(tmp_path):
    """Neither of what two memories have in common, nor of examples, whatever their endings."""
    memory = Memory(60, Memento([JensenShannon.of_labels("y", 3)], batch_size=5), seed=0)
    rng = np.random.default_rng(0)
    prices = {"price": [0.5], "price_low": [0.25], "price_high": [0.125], "price_error": [2]}
    for classes in (2, 3):
        data = {name: np.repeat(value, 100) for name, value in prices.items()}
        data["samples"] = data["cells"] = rng.integers(2, size=100)
        memory.insert(y=rng.integers(classes, size=100), **data)
        memory.save(tmp_path / str(classes))
        memory.mark_trained()
    memory.use(FIFO())
    memory.insert(y=rng.integers(3, size=100), **data)
    memory.save(tmp_path / "fifo")
    report = open_report(tmp_path / "3", tmp_path / "2")
    (table,) = report.section("against").listings
    assert table.shown().header == ["", "here", "the other"]
    for folder in ("3", "fifo"):
        open_report(tmp_path / folder, tmp_path / "2").write(tmp_path / "page.html")
    (table,) = open_report(tmp_path / "3").section("new").listings
    header, first = table.shown().header, table.shown().rows[0]
    row = dict(zip(header, first, strict=True))
    assert {name: row[name] for name in prices} == {n: str(v[0]) for n, v in prices.items()}


def test_a_folder_in_the_way_of_the_page(call, tmp_path):
    Memory(10, FIFO()).save(tmp_path / "m")
    (tmp_path / "m-report.html").mkdir()
    code, _, err = call(tmp_path / "m")
    assert code == 2
    assert "m-report.html is a folder; give another name with --out" in err


def test_only_memories_are_compared(call, tmp_path, folders):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "backtest.json").write_text("{}")
    code, _, err = call(tmp_path / "kept", "--against", folders / "now")
    assert code == 2
    assert "only two memories are compared" in err


def test_charts_become_pictures_for_notebooks(folders, tmp_path):
    report = open_report(folders / "now")
    for section in report.sections:
        for chart in section.charts:
            assert chart.save(tmp_path).read_bytes().startswith(b"\x89PNG")


def test_an_arm_has_one_colour(folders):
    found = {}
    for section in open_report(folders / "now", folders / "before").sections:
        for chart in section.charts:
            text = json.dumps(chart.chart.to_dict())
            for scale in _scales(json.loads(text)):
                for name, colour in zip(scale["domain"], scale["range"], strict=True):
                    found.setdefault(name, set()).add(colour)
    assert {"kept", "offered", "held now", "the other"} <= set(found)
    assert all(len(colours) == 1 for colours in found.values())
    assert len(set(live.colours(["a", "b", "random", "memento"]).values())) == 4


def _scales(node):
    if isinstance(node, dict):
        if {"domain", "range"} <= set(node):
            yield node
        for value in node.values():
            yield from _scales(value)
    elif isinstance(node, list):
        for value in node:
            yield from _scales(value)


def test_captions_have_units_and_a_sentence(folders):
    for section in open_report(folders / "now").sections:
        for chart in section.charts:
            assert chart.caption.endswith(".")
            assert "(" in json.dumps(chart.chart.to_dict()), "an axis says its unit"
            assert "_" not in chart.caption, "no code names"


def test_a_memory_of_nothing(tmp_path):
    Memory(10, FIFO()).save(tmp_path / "m")
    report = open_report(tmp_path / "m")
    assert [section.charts for section in report.sections] == [[], [], [], []]
    report.write(tmp_path / "page.html")
    assert "what was offered" in report.missing


def observed(folder, days=6):
    """A memory that decides on every unit, of which the fifth brings a label that was not there."""
    memory, rng = Memory(100, Memento([JensenShannon.of_labels("y", 4)], batch_size=4)), (
        np.random.default_rng(0)
    )  # fmt: skip
    for day in range(days):
        y = rng.integers(2, size=300) + (rng.random(300) < 0.3) * 2 * (day >= 4)
        observe(memory, {"y": y}, OnArrivals(), at=1_700_000_000 + 86_400 * day)
        if day in (0, 4):
            retrained(memory, lambda samples: {})
    memory.save(folder)
    return memory


def test_decisions_over_time(tmp_path):
    memory = observed(tmp_path / "m")
    section = open_report(tmp_path / "m").section("coverage")
    charts = {chart.name: chart for chart in section.charts}
    table = charts["coverage-by-unit"].table
    assert table["unit"] == [2, 3, 4, 5, 6], "the first is compared with nothing"
    assert table["when"][0] == "2023-11-15 22:13:20"
    assert table["trained"] == [False, False, False, True, False]
    share, noise = np.array(table["value"]), np.array(table["high"])
    assert share[3] == pytest.approx(0.3, abs=0.1), "of the fifth unit 30 % are new"
    assert share[3] > 3 * noise[3]
    assert "Trained after unit 5" in charts["coverage-by-unit"].caption
    assert charts["newness-by-unit"].table["value"][3] > 5
    for chart in charts.values():
        assert chart.save(tmp_path).read_bytes().startswith(b"\x89PNG")
    memory.recent = None
    memory.save(tmp_path / "none")
    assert not open_report(tmp_path / "none").section("coverage").charts


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)
def test_decisions_in_a_browser(tmp_path):
    observed(tmp_path / "m")
    page = tmp_path / "page.html"
    open_report(tmp_path / "m").write(page)
    with browser(tmp_path) as window:
        found = window.look(page, 390, dark=True)
    assert found["errors"] == []
    assert found["charts"] == found["drawn"] >= 5
    assert found["chartOverflow"] == []


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)
def test_in_a_browser(folders, tmp_path):
    """Something is drawn, nothing runs over the edge, no errors: on a phone at night, and wide."""
    page = tmp_path / "page.html"
    open_report(folders / "now", folders / "before").write(page)
    with browser(tmp_path) as window:
        for width, dark in ((390, True), (1200, False)):
            found = window.look(page, width, dark=dark)
            assert found["errors"] == []
            assert found["charts"] == found["drawn"] >= 7
            assert found["text"] > 1000
            assert found["wide"] <= width
            assert found["chartOverflow"] == []
            light = sum(int(n) for n in found["background"][4:-1].split(",")) > 380
            assert light is not dark
