"""The steps of the paper's demo, over three of its days and without a network."""

from __future__ import annotations

import http.server
import shutil
import socket
import threading
from functools import partial

import pytest

pytest.importorskip("polars")
pytest.importorskip("matplotlib")

from memento.cli.main import main
from memento.report import folders
from memento_puffer.cli import demo_week
from memento_puffer.data import download
from memento_puffer.data.schema import range_of

DAYS = "2023-07-03..2023-07-05"


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["demo", *map(str, words)])
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def short_week():
    patch = pytest.MonkeyPatch()
    patch.setattr(demo_week, "WEEK", DAYS)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def week(short_week, tmp_path_factory):
    place = tmp_path_factory.mktemp("week") / "demo-week"
    assert call("download", "--ask", 0, "--viewers", 5, "--out", place) == 0
    assert call("analysis", "--out", place) == 0
    return place


def test_a_week_is_simulated_where_nobody_is_asked(week, capsys):
    assert sorted(p.name for p in (week / "days").iterdir()) == [
        "2023-07-03", "2023-07-04", "2023-07-05",
    ]  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in week.rglob("*.csv")}
    assert call("download", "--ask", 0, "--viewers", 5, "--out", week) == 0
    assert "holds the week" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in week.rglob("*.csv")} == before


def test_a_week_that_was_stopped_is_completed(week, tmp_path, capsys):
    place = shutil.copytree(week, tmp_path / "copy")
    shutil.rmtree(place / "days" / "2023-07-05")
    assert call("download", "--ask", 0, "--viewers", 5, "--out", place) == 0
    assert "not there yet: 2023-07-05..2023-07-05" in capsys.readouterr().err
    for path in sorted((week / "days").rglob("*.csv")):
        assert (place / path.relative_to(week)).read_bytes() == path.read_bytes(), path.name


def test_a_page_is_written_where_a_day_cannot_be_used(week, tmp_path):
    place = shutil.copytree(week, tmp_path / "copy")
    (place / "report.html").unlink()
    for path in (place / "days" / "2023-07-04").glob("video_sent*"):
        path.write_bytes(b"damaged")
    assert call("analysis", "--out", place) == 1
    assert (place / "report.html").exists()


@pytest.mark.parametrize("ask", ["nan", "inf", "-1", "1e9"])
def test_seconds_that_nobody_waits(ask, tmp_path, capsys):
    assert call("download", "--ask", ask, "--out", tmp_path / "none") == 2
    assert "--ask" in capsys.readouterr().err


def test_each_step_adds_to_the_page(week):
    assert folders.kind_of(week) == "week"
    report = folders.open_report(week)
    names = [section.name for section in report.sections]
    assert {"analysis", "totals", "weeks", "days"} <= set(names)
    assert report.missing == {"replay": f"memento demo replay --out {week}"}
    assert "What viewers got" in (week / "report.html").read_text()


def test_memories_are_replayed(week, tmp_path):
    place = shutil.copytree(week, tmp_path / "copy")
    assert call("replay", "--capacity", 2000, "--out", place) == 0
    report = folders.open_report(place)
    assert report.missing == {}
    assert "replay" in [section.name for section in report.sections]
    assert (place / "report.html").read_text().count("<h2") == len(report.sections)


def test_days_come_first(tmp_path, capsys):
    for step in ("analysis", "replay"):
        assert call(step, "--out", tmp_path / "none") == 2
        assert f"memento demo download --out {tmp_path / 'none'}" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [("--days", 9), ("--json",), ("--workers", 1)])
def test_options_that_no_step_follows_are_refused(words, week, capsys):
    assert call("analysis", "--out", week, *words) == 2
    assert f"analysis has no use for {words[0]}; leave that out" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("downlod",), ("download", "analysis")])
def test_other_steps_are_refused(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    assert f"unexpected argument {words[-1]!r}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------- real days


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A folder that is served as Puffer's storage."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(download, "DATA_URL", f"http://127.0.0.1:{server.server_address[1]}/")
    yield tmp_path
    server.shutdown()
    server.server_close()


def test_real_days_where_the_storage_answers(bucket, monkeypatch, tmp_path, capsys):
    settings = bucket / range_of("2023-07-03") / "logs" / "expt_settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('1 {"abr": "linear_bba", "cc": "bbr"}\n')
    assert demo_week.unreachable(30.0) == ""
    asked = []
    monkeypatch.setattr(demo_week, "download", lambda *a, **k: asked.append((a, k)))
    assert call("download", "--ask", 30, "--out", tmp_path / "out") == 0
    ((days, to), how) = asked[0]
    assert (days, to, how["models"]) == (demo_week.WEEK, tmp_path / "out" / "days", True)
    assert "the week is downloaded" in capsys.readouterr().err


def test_a_storage_without_the_week(bucket):
    assert "gives no day (missing" in demo_week.unreachable(30.0)


def test_a_storage_that_does_not_answer(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(download, "DATA_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert "Puffer's storage" in demo_week.unreachable(0.2)
