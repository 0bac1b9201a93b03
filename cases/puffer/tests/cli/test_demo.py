"""`memento demo`: the real command with a handful of viewers, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

pytest.importorskip("polars")
pytest.importorskip("matplotlib")

from memento.cli.main import main
from memento_puffer.streaming.traces import Population

ARMS = ["static", "random", "memento", "density-reservoir"]
PICTURES = ("control", "paired", "scores", "coverage", "memory")
FILES = {"report.html", "steps.csv", "streams.csv", "summary.json", *(f"{n}.png" for n in PICTURES)}


def run_command(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from memento.cli.main import main; main()", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Run the command line in this process; returns the error stream of a call with code 2."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> str:
        with pytest.raises(SystemExit) as done:
            main(["demo", *map(str, words)])
        out, err = capsys.readouterr()
        assert (done.value.code, out) == (2, "")
        assert "unexpected" not in err.replace("unexpected argument", "")
        return err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    words = (
        "--days",
        3,
        "--viewers",
        5,
        "--judges",
        6,
        "--workers",
        1,
        "--json",
        "--out",
        "some/where",
    )
    return folder / "some" / "where", run_command("demo", *words, cwd=folder)


def test_ends_with_one_json_object(finished):
    _, result = finished
    assert result.returncode == 0, result.stderr
    *rest, last = result.stdout.splitlines()
    assert rest == []  # progress and tables are on the error stream
    found = json.loads(last)
    assert list(found) == ["arms"]
    assert list(found["arms"]) == ARMS
    for row in found["arms"].values():
        assert set(row) == {"p01", "median", "mean", "retrained", "stall_ratio", "ssim"}
        assert all(np.isfinite(value) for value in row.values())
        assert 0 <= row["stall_ratio"] < 0.5
        assert 5 < row["ssim"] < 25
    static = found["arms"]["static"]
    expected = {"p01": 0.0, "median": 0.0, "mean": 0.0, "retrained": 0}
    assert {name: static[name] for name in expected} == expected
    assert found["arms"]["random"]["retrained"] == 3


def test_files(finished):
    out, result = finished
    assert {path.name for path in out.iterdir()} == FILES
    for name in PICTURES:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    page = (out / "report.html").read_text()
    assert page.count("<table>") == 4
    assert page.count("data:image/png;base64,") == len(PICTURES)
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["against"]) == {"static", "random"}
    assert summary["against"]["static"] == summary["arms"]
    said = json.loads(result.stdout.splitlines()[-1])["arms"]
    for name, row in said.items():
        shared = row.keys() - {"stall_ratio", "ssim"}
        assert {key: summary["arms"][name][key] for key in shared} == {k: row[k] for k in shared}
        assert summary["control"]["levels"][name]["ssim"] == row["ssim"]


def test_steps_and_summary_agree(finished):
    """The numbers of the summary, from the table of all steps."""
    out, _ = finished
    with (out / "steps.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["horizon"] == "0"]
    assert [(row["arm"], row["name"]) for row in rows] == [
        (arm, f"day {day}") for arm in ARMS for day in (1, 2, 3)
    ]
    arms = json.loads((out / "summary.json").read_text())["arms"]
    for score in ("p01", "median", "mean"):
        values = {
            arm: [float(r[f"score_{score}"]) for r in rows if r["arm"] == arm and r["evaluated_on"]]
            for arm in ARMS
        }
        for arm in ARMS:
            change = np.subtract(values[arm], values["static"])
            assert len(change) == 2
            assert arms[arm][score] == pytest.approx(change.mean(), abs=1e-12)
    for arm in ARMS:
        trained = [row["trained"] == "True" for row in rows if row["arm"] == arm]
        assert arms[arm]["retrained"] == sum(trained)


def test_what_it_tells(finished):
    _, result = finished
    text = " ".join(result.stderr.split())
    assert "6 viewers" in text
    # The first stage is always said, later ones if there was none within the second before.
    for word in ("first day", "in control", "against static", "trainings"):
        assert word in text
    for arm in ARMS:
        assert arm in text


# ------------------------------------------------------------------------------------------- traces


def write_traces(path: Path, seed: int, chunks: int = 900) -> Path:
    traces = Population(seed=seed, chunks=chunks).day(0)
    columns = {"trace_id": traces.trace_id, "seconds": traces.seconds, "rate": traces.rate}
    pa.parquet.write_table(pa.table(columns), path)
    return path


def test_traces(tmp_path, capsys):
    """Two files, in the words that the README uses; 2 days each, the last under control."""
    first = write_traces(tmp_path / "autumn.parquet", 1, 1600)
    second = write_traces(tmp_path / "winter.parquet", 2, 4000)
    words = ["--traces", first, second, "--days", 3, "--workers", 1, "--capacity", 128]
    words += ["--viewers", 4, "--judges", 4]
    with pytest.raises(SystemExit) as done:
        main(["demo", *map(str, words), "--out", str(tmp_path / "out"), "--json"])
    assert done.value.code in (0, None)
    out, err = capsys.readouterr()
    assert list(json.loads(out)["arms"]) == ARMS
    facts = " ".join(err.split())
    assert "autumn.parquet, winter.parquet" in facts
    assert "memories of 128 samples" in facts
    lines = (tmp_path / "out" / "steps.csv").read_text().splitlines()[1:4]
    assert [line.split(",")[3] for line in lines] == ["day 1", "day 2", "day 3"]


def test_traces_that_cannot_be_read(refused, tmp_path):
    assert "nope.parquet: no such file" in refused("--traces", "nope.parquet")
    good = write_traces(tmp_path / "good.parquet", 1)
    (tmp_path / "half.parquet").write_bytes(good.read_bytes()[:1000])
    err = refused("--traces", "half.parquet")
    assert "half.parquet" in err
    assert "1,000 bytes that are no complete Parquet file" in " ".join(err.split())
    pa.parquet.write_table(pa.table({"trace_id": [1], "seconds": [0.0]}), "thin.parquet")
    assert "no column 'rate'" in refused("--traces", "thin.parquet")
    # The second of two files, after the first was read.
    assert "nope.parquet: no such file" in refused(
        "--days", 3, "--traces", "good.parquet", "nope.parquet"
    )


# ---------------------------------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--days", 2], "--days is 2; expected at least 3, to compare anything"),
        (["--retrain", "weekly"], '--retrain is \'weekly\'; expected "coverage" or "always"'),
        (["--seed", -1], "--seed is -1; expected 0 or more"),
        (
            ["somewhere"],
            "unexpected argument 'somewhere'; a step is one of download, analysis, replay",
        ),
        (["--viewers", 0], "viewers is 0; expected a whole number above 0"),
        (["--judges", 0], "judges is 0; expected a whole number above 0"),
        (["--capacity", 0], "capacity is 0; expected a whole number above 0"),
        (["--capacity", 5], "capacity 5 is less than one batch of 64"),
        (["--workers", 0], "--workers is 0; expected at least one process"),
        (["--days", "three"], "Invalid value for '--days'"),
        (["--dayz", 3], "No such option"),
    ],
)
def test_wrong_use(refused, words, message):
    assert message in " ".join(refused("--days", 3, *words).split())


def test_a_folder_that_cannot_be_made(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    err = " ".join(refused("--out", "file").split())
    assert "file" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_help(capsys):
    with pytest.raises(SystemExit) as done:
        main(["demo", "--help"])
    assert done.value.code in (0, None)
    text = " ".join(capsys.readouterr().out.split())
    for word in (
        "--days",
        "--out",
        "--traces",
        "--viewers",
        "--judges",
        "--capacity",
        "--retrain",
        "--json",
    ):
        assert word in text
    assert "what viewers get" in text
