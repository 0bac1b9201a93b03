"""`memento puffer`: days simulated, downloaded, turned into features, predictors and pages."""

from __future__ import annotations

import contextlib
import errno
import http.server
import io
import json
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

pytest.importorskip("polars")
pytest.importorskip("matplotlib")
pytest.importorskip("torch")

import published_tree
from days import Short

from memento.cli.main import main
from memento.errors import SchemaError
from memento_puffer.data.features import Features
from memento_puffer.data.inspection import inspect
from memento_puffer.data.release import VARIANTS, write_simulated_day
from memento_puffer.data.schema import Day, range_of
from memento_puffer.predictor.ttp import Ttp

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
        main(["puffer", "simulate", DAYS, "--to", str(folder), "--sessions", "8", "--no-content"])
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


def test_days_over_traces_in_text(tmp_path, capsys):
    (tmp_path / "norway").write_text("".join(f"{t}.0\t{1 + t % 3}.25\n" for t in range(300)))
    words = ("simulate", NAMES[0], "--sessions", 2, "--no-content", "--traces", tmp_path / "norway")
    code, _, err = command(capsys, *words, "--to", tmp_path / "days")
    assert code == 0, err
    assert Day.find(tmp_path / "days", NAMES[0]).read("video_sent")["delivery_rate"].max() < 2e6
    code, _, err = command(capsys, *words, "--to", tmp_path / "none", "--format", "mahimahi")
    assert (code, "holds seconds and Mbit/s, and mahimahi is packets" in err) == (2, True)
    code, _, err = command(capsys, *words[:-2], "--to", tmp_path / "none", "--format", "mahimahi")
    assert (code, "name their file in --traces" in err) == (2, True)
    assert not (tmp_path / "none").exists()


def test_a_day_more_with_the_same_origin(made, tmp_path, capsys):
    """The second day, made alone, is the second day of two."""
    words = ("2021-10-18", "--to", tmp_path, "--sessions", 8, "--origin", "2021-10-17",
             "--no-content", "--json")  # fmt: skip
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


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    """What the three commands make of a day in today's form."""
    return through(tmp_path_factory.mktemp("today"), "current", "csv")


def through(root: Path, variant: str, form: str) -> dict:
    """A tiny day of a form of the release, its files in one folder, through all commands."""
    day = write_simulated_day(
        root / "made", NAMES[0], Short(), 2, variant=variant, form=form, sessions=14
    )
    flat = root / "flat"
    flat.mkdir()
    for path in day.folder.rglob("*"):
        if path.is_file() and not path.name.startswith("sessions_"):
            path.rename(flat / path.name)
    found = {}
    for name, words in {
        "features": ("--to", root / "features"),
        "train": ("--to", root / "ttp", "--epochs", 1, "--capacity", 256),
        "analyze": ("--out", root / "out", "--model", f"bola_basic_v1={root / 'ttp'}"),
    }.items():
        source = root / "features" if name == "train" else flat
        words = ("puffer", name, NAMES[0], "--from", source, *words, "--json")
        out = io.StringIO()
        with pytest.raises(SystemExit) as done, contextlib.redirect_stdout(out):
            main([str(word) for word in words])
        assert not done.value.code, name
        found[name] = json.loads(out.getvalue().splitlines()[-1])
    found["values"] = np.array(Features.read(root / "features" / NAMES[0]).values)
    assert len(Ttp.read(root / "ttp").networks) == 5
    assert "bola_basic_v1" in (root / "out" / "scores.csv").read_text()
    return found


@pytest.mark.parametrize(
    ("variant", "form"),
    [*((variant, "csv") for variant in VARIANTS if variant != "current"), ("current", "csv.gz")],
)
def test_files_of_every_time_go_through_all_commands(variant, form, today, tmp_path):
    """Features, training and analysis say the same of a day, whatever form its files have."""
    found = through(tmp_path, variant, form)
    np.testing.assert_array_equal(found["values"], today["values"])
    assert found["features"]["days"] == today["features"]["days"]
    assert found["train"]["horizons"] == today["train"]["horizons"]
    for one, now in zip(found["analyze"]["schemes"], today["analyze"]["schemes"], strict=True):
        assert one["scheme"] in ("bba", "bola_basic_v1")
        for name, value in now.items():
            assert one[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_analysis_over_days(made, tmp_path, capsys):
    code, result, _ = command(
        capsys, "analyze", DAYS, "--from", made, "--out", tmp_path / "out", "--json"
    )
    assert code == 0
    assert sum(row["streams"] for row in result["schemes"]) > 10
    assert all(row["days"] <= 2 for row in result["schemes"])


def test_analysis_with_the_published_models(made, tmp_path, capsys):
    """A day before the first training has no predictor, a later one that of the training."""
    published_tree.small(tmp_path / "tree", ("default",), {NAMES[1]: True, "2021-10-20": False})
    words = ("analyze", DAYS, "--from", made, "--out", tmp_path / "out")
    code, _, err = command(capsys, *words, "--model", f"mpc={tmp_path / 'tree/default'}", "--json")
    assert code == 0, err
    scores = (tmp_path / "out/scores.csv").read_text().splitlines()[1:]
    assert {tuple(line.split(",")[:2]) for line in scores} == {(NAMES[1], "mpc")}
    shutil.rmtree(tmp_path / "tree/default/4")
    code, _, err = command(capsys, *words, "--model", f"mpc={tmp_path / 'tree/default'}")
    assert (code, "default lacks the horizons 4; a predictor has 5" in err) == (2, True)


def test_analysis_with_a_model_for_each_day(made, tmp_path, capsys):
    """A folder of days, as they are downloaded; a day that is not there has no scores."""
    Ttp.fresh(0).write(tmp_path / NAMES[0])
    words = ("analyze", DAYS, "--from", made, "--out", tmp_path / "out")
    code, _, err = command(capsys, *words, "--model", f"mpc={tmp_path}")
    assert code == 0, err
    scores = (tmp_path / "out/scores.csv").read_text().splitlines()[1:]
    assert {tuple(line.split(",")[:2]) for line in scores} == {(NAMES[0], "mpc")}


def test_the_record_beside_the_other_commands(tmp_path, capsys):
    published_tree.write(tmp_path, published_tree.row())
    code, found, _ = command(capsys, "record", tmp_path, "--json")
    assert code == 0
    assert [row["retrained"] for row in found["rows"]] == [1]


def bare(folder: Path) -> None:
    """Leave the header of each table: a day on which nobody streamed."""
    for path in folder.rglob("*.csv"):
        path.write_text(path.read_text().partition("\n")[0] + "\n")


def test_a_day_that_cannot_be_used_is_an_outcome(made, tmp_path, capsys):
    """Of several days: it is left out with its reason; alone it is an error."""
    days = tmp_path / "days"
    shutil.copytree(made, days)
    (sent,) = (days / NAMES[0]).glob("video_sent_*.csv")
    sent.write_text(
        sent.read_text().replace(",univision,", ",univision,x").replace(",abc,", ",abc,x")
    )
    words = ("--from", days, "--to", tmp_path / "features", "--json")
    code, result, err = command(capsys, "features", DAYS, *words)
    assert (code, list(result["days"])) == (1, [NAMES[1]])
    assert f"{sent}: could not parse" in result["left_out"][NAMES[0]]
    assert f"{NAMES[0]} is left out" in err
    words = ("--from", days, "--out", tmp_path / "out", "--json")
    code, result, _ = command(capsys, "analyze", DAYS, *words)
    assert (code, list(result["left_out"])) == (1, [NAMES[0]])
    assert {row["days"] for row in result["schemes"]} == {1}
    code, _, err = command(capsys, "analyze", NAMES[0], *words)
    assert (code, "could not parse" in err) == (2, True)
    bare(days / NAMES[1])
    words = ("--from", days, "--to", tmp_path / "bare")
    code, _, err = command(capsys, "features", NAMES[1], *words)
    assert (code, f"{NAMES[1]}: nobody streamed" in err) == (0, True)


def test_days_on_which_nobody_streamed(made, tmp_path, capsys):
    """Such days are in releases: beside others they are no obstacle, alone they are named."""
    days = tmp_path / "days"
    shutil.copytree(made, days)
    bare(days / NAMES[0])
    code, result, err = command(
        capsys, "analyze", DAYS, "--from", days, "--out", tmp_path / "both", "--json"
    )
    assert code == 0, err
    assert all(row["days"] == 1 for row in result["schemes"])
    bare(days)
    code, _, err = command(capsys, "analyze", DAYS, "--from", days, "--out", tmp_path / "none")
    assert code == 2
    assert f"nobody streamed on {NAMES[0]}, {NAMES[1]}" in err
    assert not (tmp_path / "none").exists()
    code, result, _ = command(
        capsys, "features", DAYS, "--from", days, "--to", tmp_path / "features", "--json"
    )
    assert code == 0
    assert result["days"][NAMES[0]]["streams"] == 0
    for words in (
        ("train", DAYS, "--from", days, "--to", tmp_path / "m", "--epochs", 1),
        ("replay", DAYS, "--from", days, "--out", tmp_path / "r", "--no-daily"),
    ):
        assert command(capsys, *words)[0] == 2


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
        (
            ["simulate", NAMES[0], "--to", "x/y", "--sessions", 0],
            "--sessions is 0; expected",
        ),
        (
            ["simulate", NAMES[0], "--to", "x", "--traces", "no.parquet", "--drift", 0],
            "--drift changes paths of the model, and --traces plays recorded ones",
        ),
        (
            [
                "simulate",
                NAMES[0],
                "--to",
                "x",
                "--traces",
                "no.parquet",
                "--shift",
                f"new-access:{NAMES[0]}",
            ],
            "--shift changes paths",
        ),
        (["features", NAMES[0], "--from", "nowhere", "--to", "x"], "nowhere: no such folder"),
        (["analyze", NAMES[0], "--from", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["analyze", NAMES[0], "--from", ".", "--out", "x", "--skip-missing"], "none of the days"),
        (["train", NAMES[0], "--from", "nowhere", "--to", "x"], "nowhere: no such folder"),
        (["train", NAMES[0], "--from", ".", "--to", "x", "--as", "magic"], "give one of quick,"),
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


@pytest.mark.parametrize("place", ["full", "file", "below/file"])
def test_a_model_that_cannot_be_written_is_not_trained(made, place, tmp_path, capsys, monkeypatch):
    """What is at the target is found before any day is read."""
    from memento_puffer.predictor import training_sets

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "file").touch()
    target = tmp_path / ("file/model" if place == "below/file" else place)
    monkeypatch.setattr(training_sets, "train", None)
    monkeypatch.setattr(training_sets, "training_set", None)
    code, _, err = command(capsys, "train", NAMES[0], "--from", made, "--to", target)
    assert code == 2
    assert ("name a new folder" if place != "below/file" else "cannot write the model") in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_folders_for_a_model_are_made_and_go_if_nothing_comes_of_it(
    made, tmp_path, capsys, monkeypatch
):
    from memento_puffer.predictor import training_sets

    def fails(*_: object, **__: object) -> None:
        assert (tmp_path / "new" / "models").is_dir()
        raise SchemaError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(training_sets, "training_set", fails)
        words = ("train", NAMES[0], "--from", made, "--to", tmp_path / "new" / "models" / "one")
        code, _, err = command(capsys, *words, "--epochs", 1, "--capacity", 256)
    assert (code, "on purpose" in err) == (2, True)
    assert not list(tmp_path.iterdir())
    code, _, _ = command(capsys, *words, "--epochs", 1, "--capacity", 256)
    assert code == 0
    assert len(Ttp.read(tmp_path / "new" / "models" / "one").networks) == 5


def test_a_day_without_settings(made, tmp_path, capsys):
    """Features say that schemes are unknown; an analysis of them is refused before it begins."""
    for path in Day.find(made, NAMES[0]).folder.glob("*.csv"):
        (tmp_path / path.name).symlink_to(path)
    store = tmp_path / "store"
    code, result, err = command(
        capsys, "features", NAMES[0], "--from", tmp_path, "--to", store, "--json"
    )
    assert code == 0
    counts = result["days"][NAMES[0]]
    assert counts["unknown_experiment"] == counts["streams"] > 0
    assert "unknown_experiment" in err
    assert f"warning: {NAMES[0]}: no logs/expt_settings" in err
    out = tmp_path / "new" / "out"
    code, _, err = command(capsys, "analyze", NAMES[0], "--from", tmp_path, "--out", out)
    assert code == 2
    assert "no logs/expt_settings, which says what scheme each expt_id is" in err
    assert not (tmp_path / "new").exists()


def test_the_whole_quality_report(made, tmp_path, capsys):
    words = ("features", NAMES[0], "--from", made, "--to", tmp_path, "--quality", "--json")
    code, result, err = command(capsys, *words)
    assert code == 0
    report = result["days"][NAMES[0]]["quality"]
    assert report == json.loads(json.dumps(inspect(Day.find(made, NAMES[0])).to_json()))
    err = err.replace("│ ", "")
    assert "video_size no such file" in err  # as the days were made
    for name in ("unacked", "client_buffer rows"):
        assert name in err


@pytest.mark.parametrize("option", ["--model", "--reference"])
def test_a_scheme_that_is_not_there_is_named_before_the_analysis(
    made, model, option, tmp_path, capsys, monkeypatch
):
    from memento_puffer.quality import analysis

    monkeypatch.setattr(analysis, "analyze_day", None)
    value = f"fugu={model / 'ttp'}" if option == "--model" else "fugu"
    words = ("--from", made, "--out", tmp_path / "out", option, value)
    code, _, err = command(capsys, "analyze", NAMES[0], *words)
    assert code == 2
    assert f"{option} 'fugu'; there are bba, bola_basic_v1, mpc, robust_mpc" in err
    assert not list(tmp_path.iterdir())


def test_a_report_is_whole_or_the_one_before(made, tmp_path, capsys, monkeypatch):
    """What fails changes nothing; what succeeds leaves nothing of the report before it."""
    from memento.report import page

    out = tmp_path / "out"
    out.mkdir()
    for name in ("thesis.txt", "paired.csv", "ssim_mean_differences.png", "report.html"):
        (out / name).write_text("old")
    (out / ".new").mkdir()
    (out / ".new" / "half").touch()  # of a run that was killed

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    words = ("analyze", NAMES[0], "--from", made, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(page, "write_page", full)
        code, _, err = command(capsys, *words)
    assert (code, "No space left" in err) == (2, True)
    left = {path.name: path.read_text() for path in out.iterdir()}
    assert left.pop("report.html") == left["thesis.txt"] == "old"
    assert set(left) == {"thesis.txt", "paired.csv", "ssim_mean_differences.png"}
    code, _, _ = command(capsys, *words)
    assert code == 0
    names = {path.name for path in out.iterdir()}
    assert {"thesis.txt", "report.html", "deployment.csv", "streams.parquet"} <= names
    assert not names & {"paired.csv", "ssim_mean_differences.png", ".new"}
    assert (out / "report.html").read_text() != "old"


def test_bars_name_their_day(made, tmp_path, monkeypatch):
    """Each day of several has its own bar, and an analysis moves within a day."""
    from memento.cli import ui

    seen: list[tuple[str, float]] = []

    class Bars(ui.Progress):
        def update(self, task_id, **changes):
            super().update(task_id, **changes)
            task = self.tasks[task_id]
            seen.append((task.description, task.completed))

    monkeypatch.setattr(ui, "Progress", Bars)
    for words in (
        ("simulate", DAYS, "--to", tmp_path / "d", "--sessions", 1, "--schemes", "linear_bba",
         "--no-content"),
        ("analyze", NAMES[0], "--from", made, "--out", tmp_path / "out"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as done:
            main(["puffer", *map(str, words)])
        assert not done.value.code
    assert {name for name, _ in seen} >= {
        *(f"{day}: {stage}" for day in NAMES for stage in ("simulate", "write")),
        f"{NAMES[0]}: analysis",
    }
    assert any(0 < done < 1 for name, done in seen if name.endswith("analysis"))


def test_schemes_and_their_predictors(model):
    """Names may have spaces between them; what is Fugu says the table of controllers."""
    from memento_puffer.cli.main import _schemes
    from memento_puffer.streaming.abr import Fugu, named_controllers

    folder = str(model / "ttp")
    fugus = {n: c for n, c in named_controllers.items() if isinstance(c, Fugu)}
    assert len(fugus) > 2
    for name, controller in fugus.items():
        found = _schemes(f"linear_bba, {name}", [folder])
        assert [(s.name, s.controller) for s in found[1:]] == [(name, controller)]
        assert [s.name for s in _schemes(name, [f"mine={folder}"])] == ["mine"]
    both = _schemes(" puffer_ttp , puffer_ttp_mle", [f"mine={folder}", f"other={folder}"])
    assert [s.name for s in both] == ["mine", "mine_mle", "other", "other_mle"]
    assert [s.name for s in _schemes("mpc", [f"mine={folder}"])] == ["mpc", "mine"]


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
