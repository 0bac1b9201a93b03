"""The page of a daily job, from the record that it keeps."""

from __future__ import annotations

import json
import os

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")
pytest.importorskip("skops")

import called
from browser import CHROMIUM, DRIVER, MISSING, browser
from deployment import stranger
from memento.cli.deploy import _read
from memento.deployment import Deployment, from_toml
from memento.report.folders import kind_of, open_report
from read_reports import listing

call, content = called.report, called.content
TWO = stranger.CONFIG.replace('policy = "fifo"', 'policy = "memento"').replace(
    "[gate]", '[variants.random]\ncapacity = 60\npolicy = "reservoir"\ntrigger = "every"\n[gate]'
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """Six days of two variants; the fourth is missing."""
    folder = tmp_path_factory.mktemp("job")
    module = f"page_stranger_{os.getpid()}"
    settings = from_toml(stranger.prepare(folder, module, config=TWO))
    deployment = Deployment.create(folder / "state", settings)
    for day in (1, 2, 3, 5, 6):
        stranger.write_day(folder / "days", day)
    for _ in deployment.run(_read):
        pass
    return folder / "state"


def test_what_it_says_is_the_record(state):
    assert kind_of(state) == "daily-job"
    report = open_report(state)
    deployment = Deployment(state)
    serving = listing(report.section("serving"), "serving")
    assert serving["variant"] == ["main", "random"]
    for i, name in enumerate(serving["variant"]):
        records = deployment.state(name).days.values()
        assert serving["serves"][i] == deployment.serving(name)
        assert serving["trained"][i] == sum(record.trained for record in records)
        assert serving["published"][i] == sum(record.published for record in records)
        assert serving["refused"][i] == sum(record.state == "refused" for record in records)
        assert serving["missing"][i] == 1
    days = listing(report.section("days"), "days")
    assert len(days["day"]) == 12
    assert days["state"].count("missing") == 2
    (scores,) = report.section("scores").charts
    found = {(v, d): s for v, d, s in zip(*(scores.table[n] for n in ("variant", "day", "score")),
                                          strict=True)}  # fmt: skip
    for name in ("main", "random"):
        for record in deployment.state(name).days.values():
            if "score_mean" in record.figures:
                assert found[name, record.day] == record.figures["score_mean"]
    (reasons,) = report.section("reasons").charts
    assert sum(reasons.table["trained"]) == sum(serving["trained"])
    assert report.section("main:-kept").charts


def test_the_command(call, state):
    before = content(state)
    code, out, err = call(state, "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "daily-job"
    after = content(state)
    assert set(after) - set(before) == {"report.html"}
    assert all(after[name] == data for name, data in before.items())


def test_before_the_first_day(tmp_path):
    settings = from_toml(stranger.prepare(tmp_path, f"page_before_{os.getpid()}"))
    Deployment.create(tmp_path / "state", settings)
    report = open_report(tmp_path / "state")
    assert report.sections == []
    assert "memento deploy run" in report.missing["days"]
    report.write(tmp_path / "page.html")


@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=MISSING)
def test_in_a_browser(state, tmp_path):
    page = tmp_path / "page.html"
    open_report(state).write(page)
    with browser(tmp_path) as window:
        for width in (390, 1200):
            found = window.look(page, width)
            assert (found["errors"], found["chartOverflow"]) == ([], [])
            assert found["charts"] == found["drawn"] >= 4
            assert found["wide"] <= width
