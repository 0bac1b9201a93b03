"""`memento puffer`: days simulated, downloaded, turned into features, predictors and pages."""

from __future__ import annotations

import http.server
import json
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

pytest.importorskip("polars")
pytest.importorskip("matplotlib")
pytest.importorskip("torch")

from memento.cases.puffer.features import Features
from memento.cases.puffer.schema import Day, inspect, range_of
from memento.cases.puffer.ttp import Ttp
from memento.cli.main import main

DAYS = "2021-10-17..2021-10-18"
NAMES = ("2021-10-17", "2021-10-18")


def command(capsys, *words: object) -> tuple[int, dict, str]:
    """Exit code, the JSON object at the end of standard output (or {}), and standard error."""
    with pytest.raises(SystemExit) as done:
        main(["puffer", *map(str, words)])
    out, err = capsys.readouterr()
    code = done.value.code or 0
    return int(code), json.loads(out.splitlines()[-1]) if out.strip() else {}, " ".join(err.split())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two days, simulated by the command."""
    folder = tmp_path_factory.mktemp("puffer") / "days"
    with pytest.raises(SystemExit) as done:
        main(["puffer", "simulate", DAYS, "--to", str(folder), "--sessions", "8"])
    assert not done.value.code
    return folder


@pytest.fixture(scope="module")
def model(made, tmp_path_factory):
    """A predictor, trained by the command on what another command stored."""
    root = tmp_path_factory.mktemp("model")
    for words in (
        ("features", DAYS, "--from", made, "--to", root / "features"),
        ("train", DAYS, "--from", root / "features", "--to", root / "ttp", "--epochs", 3,
         "--capacity", 3000, "--learning-rate", 1e-3, "--checkpoint", root / "state"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as done:
            main(["puffer", *map(str, words)])
        assert not done.value.code
    return root


def test_simulated_days_are_days_of_the_release(made):
    for name in NAMES:
        day = Day.find(made, name)
        assert day.path("video_sent").name == f"video_sent_{range_of(name)}.csv"
        quality = inspect(day)
        assert quality.tables["video_sent"].rows > 100
        assert {e.abr for e in day.experiments.values()} == {
            "linear_bba", "mpc", "robust_mpc", "bola_basic_v1",
        }  # fmt: skip


def test_a_day_more_with_the_same_origin(made, tmp_path, capsys):
    """The second day, made alone, is the second day of two."""
    words = ("2021-10-18", "--to", tmp_path, "--sessions", 8, "--origin", "2021-10-17", "--json")
    code, result, _ = command(capsys, "simulate", *words)
    assert code == 0
    assert list(result["days"]) == ["2021-10-18"]
    name = f"2021-10-18/video_sent_{range_of('2021-10-18')}.csv"
    assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_features_and_training(made, model):
    for name in NAMES:
        features = Features.read(model / "features" / name)
        assert features.size == Features.of_day(Day.find(made, name)).size
    ttp = Ttp.read(model / "ttp")
    assert ttp[4].probabilities(np.zeros((1, 62))).shape == (1, 21)


def test_training_that_is_done_is_not_done_again(made, model, tmp_path, capsys):
    words = ("train", DAYS, "--from", model / "features", "--to", tmp_path / "again", "--epochs", 3,
             "--capacity", 3000, "--learning-rate", 1e-3, "--json",
             "--checkpoint", model / "state")  # fmt: skip
    code, result, _ = command(capsys, *words)
    assert code == 0
    assert [row["epochs"] for row in result["horizons"]] == [0] * 5
    one, two = Ttp.read(model / "ttp"), Ttp.read(tmp_path / "again")
    for a, b in zip(one, two, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.weights, b.weights, strict=True))


def test_training_on_files_put_there_by_hand(made, model, tmp_path, capsys):
    """The files of a day in a folder of their own, and selection by Memento."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in Day.find(made, NAMES[0]).folder.rglob("*"):
        if path.is_file():
            (flat / path.name).write_bytes(path.read_bytes())
    words = ("--from", flat, "--to", tmp_path / "m", "--start", model / "ttp",
             "--select", "memento", "--capacity", 1024, "--epochs", 1, "--json")  # fmt: skip
    code, result, _ = command(capsys, "train", NAMES[0], *words)
    assert code == 0
    assert all(0 < row["samples"] <= 1024 for row in result["horizons"])


def test_analysis_of_paired_days(model, tmp_path, capsys):
    days = tmp_path / "paired"
    words = ("--sessions", 6, "--schemes", "linear_bba", "--model", f"mine={model / 'ttp'}",
             "--paired", "--calibrate", "--form", "parquet", "--json")  # fmt: skip
    code, result, _ = command(capsys, "simulate", NAMES[0], "--to", days, *words)
    assert code == 0
    assert {"quantity", "published", "found"} <= set(result["days"][NAMES[0]]["calibration"])
    words = ("--from", days, "--out", tmp_path / "out", "--model", f"mine={model / 'ttp'}",
             "--reference", "bba", "--json")  # fmt: skip
    code, result, err = command(capsys, "analyze", NAMES[0], *words)
    assert code == 0
    assert [row["scheme"] for row in result["schemes"]] == ["bba", "mine"]
    assert "mine" in err
    out = tmp_path / "out"
    made = {path.name for path in out.iterdir()}
    assert {
        "report.html",
        "deployment.csv",
        "official.csv",
        "paired.csv",
        "streams.parquet",
    } <= made
    streams = pyarrow.parquet.read_table(out / "streams.parquet").to_pydict()
    assert set(streams["scheme"]) == {"bba", "mine"}
    scores = (out / "scores.csv").read_text()
    assert "mine" in scores
    assert "bba" not in scores
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page


def test_analysis_over_days(made, tmp_path, capsys):
    code, result, _ = command(
        capsys, "analyze", DAYS, "--from", made, "--out", tmp_path / "out", "--json"
    )
    assert code == 0
    assert sum(row["streams"] for row in result["schemes"]) > 10
    assert all(row["days"] <= 2 for row in result["schemes"])


def test_download_from_a_server(made, tmp_path, capsys):
    """Simulated days, served as the bucket serves its own."""
    root = tmp_path / "bucket"
    for name in NAMES:
        (root / range_of(name)).mkdir(parents=True)
        for path in Day.find(made, name).folder.rglob("*"):
            if path.is_file() and not path.name.startswith(("sessions_", ".")):
                relative = path.relative_to(Day.find(made, name).folder)
                target = root / range_of(name) / relative
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(path.read_bytes())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        words = ("--to", tmp_path / "days", "--data-url", url, "--kinds",
                 "video_sent,video_acked,expt_settings", "--json")  # fmt: skip
        code, result, _ = command(capsys, "download", DAYS, *words)
        assert code == 0
        assert result["state"] == "done"
        assert {row["state"] for row in result["files"]} == {"fetched"}
        code, result, _ = command(capsys, "download", DAYS, *words)
        assert {row["state"] for row in result["files"]} == {"present"}
        code, result, _ = command(capsys, "download", "2021-10-19", *words)
        assert code == 1
        assert {row["state"] for row in result["files"]} == {"missing"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    for name in NAMES:
        fetched, served = (Day.find(p, name).path("video_sent") for p in (tmp_path / "days", made))
        assert fetched.read_bytes() == served.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["simulate", "2021-02-30", "--to", "x"], "2021-02-30"),
        (["simulate", "2021-10-18..2021-10-17", "--to", "x"], "runs backwards"),
        (
            ["simulate", NAMES[0], "--to", "x", "--schemes", "best"],
            "no scheme 'best'; give some of",
        ),
        (["simulate", NAMES[0], "--to", "x", "--schemes", "puffer_ttp"], "needs a predictor"),
        (["simulate", NAMES[0], "--to", "x", "--schemes", ""], "no scheme to assign sessions to"),
        (["simulate", NAMES[0], "--to", "x", "--shift", "flood:2021-10-18"], "'flood:2021-10-18'"),
        (["simulate", NAMES[0], "--to", "x", "--origin", "2021-10-18"], "is before 2021-10-18"),
        (["simulate", NAMES[0], "--to", "x", "--form", "xml"], "form='xml'"),
        (["simulate", NAMES[0], "--to", "x", "--traces", "no.parquet"], "no.parquet: no such file"),
        (["features", NAMES[0], "--from", "nowhere", "--to", "x"], "nowhere: no such folder"),
        (["analyze", NAMES[0], "--from", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["analyze", NAMES[0], "--from", ".", "--out", "x", "--skip-missing"], "none of the days"),
        (["train", NAMES[0], "--from", "nowhere", "--to", "x"], "nowhere: no such folder"),
        (["train", NAMES[0], "--from", ".", "--to", "x", "--as", "magic"], "give one of memento,"),
        (["train", NAMES[0], "--from", ".", "--to", "x", "--select", "memento"], "with --start"),
        (["train", NAMES[0], "--from", ".", "--to", "x", "--start", "gone"], "gone"),
        (["download", "2021-13-01", "--to", "x"], "2021-13-01"),
        (["download", NAMES[0], "--to", "x", "--kinds", "gossip"], "kind 'gossip'"),
        (["download", NAMES[0], "--to", "x", "--wait", -1], "--wait is -1"),
        (["download", NAMES[0], "--to", "x", "--data-url", "ftp://x"], "'ftp://x' is no address"),
    ],
)
def test_wrong_use(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, result, err = command(capsys, *words)
    assert (code, result) == (2, {})
    assert message in err
    assert "unexpected error" not in err
    assert not Path("x").exists()


def test_a_damaged_day_is_named(made, tmp_path, capsys):
    folder = tmp_path / NAMES[0]
    folder.mkdir()
    for path in Day.find(made, NAMES[0]).folder.glob("video_*.csv"):
        (folder / path.name).write_bytes(path.read_bytes()[:-40])
    code, _, err = command(
        capsys, "features", NAMES[0], "--from", tmp_path, "--to", tmp_path / "store"
    )
    assert code == 2
    assert "video_sent" in err
    assert not (tmp_path / "store" / NAMES[0] / "features.json").exists()
