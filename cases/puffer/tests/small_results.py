"""Results at a scale that takes seconds, made for real, for reports and notebooks to read.

`prepared` makes them once for all processes of a test run. As a page of experiments, this file
declares what is run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from memento.errors import LockedError
from memento.files import Lock
from memento.runner.spec import Experiment
from memento.samples import Samples
from memento_puffer.predictor.ttp_training import TrainingSettings
from memento_puffer.studies.experiments import Period, Scale, declared

SCALE = Scale(
    prefix="tiny-",
    periods=(Period("tiny", "2024-01-01", 6, (("halved_capacity", 3),), seed=1),),
    viewers=4,
    capacity=800,
    batch_size=16,
    batches=(8, 16, 32, 64, 128),
    interval=1,
    freeze_after=2,
    members=2,
    training=TrainingSettings(epochs=2, scratch_epochs=3, held_out=0.0, patience=None),
)
MODULE = "memento_puffer.studies.experiments"
RUNS = {
    "puffer-replay": ("tiny-table-repeatability", "tiny-table-batch-size", "tiny-table-freeze",
                      "tiny-figure-freeze", "tiny+figure-selection", "tiny-broken"),
    "puffer-analysis": ("tiny",),
    "demo": ("tiny",),
}  # fmt: skip
TABLES = ("table-repeatability", "table-batch-size", "table-freeze", "figure-freeze")


def experiments() -> Iterator[Experiment]:
    yield from declared(SCALE)
    yield Experiment(
        "puffer-analysis", "tiny", f"{MODULE}:analyse_simulated",
        {"first": "2024-01-01", "days": 1, "viewers": 6, "seed": 1},
    )  # fmt: skip
    yield Experiment(
        "demo", "tiny", f"{MODULE}:demo",
        {"days": 3, "viewers": 4, "judges": 3, "capacity": 300, "seed": 3},
    )  # fmt: skip
    yield Experiment("puffer-replay", "tiny-broken", ":broken")


def broken(run: object) -> None:
    raise RuntimeError("broken on purpose")


def prepared(factory) -> Path:
    """A folder with ``results`` and ``replayed``; read only: tests copy what they change."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root = base / "small-results"
    root.mkdir(exist_ok=True)
    began = time.monotonic()
    while not (root / "done").exists():
        try:
            with Lock(root / "lock"):
                if not (root / "done").exists():
                    _make(root)
                    (root / "done").touch()
        except LockedError:  # another process of this test run is at it
            assert time.monotonic() - began < 600
            time.sleep(0.2)
    return root


def _make(root: Path) -> None:
    """In one process, which imports everything once."""
    stored = root / "results/puffer-preprocess/tiny/output-1"
    calls = [
        ["run", group, *names, "-j", "0", "--experiments", __file__,
         "--results", str(root / "results")]
        for group, names in RUNS.items()
    ]  # fmt: skip
    calls.append(
        ["run", "puffer-deployment", "record", "-j", "0", "--config", str(_record(root)),
         "--results", str(root / "results")]
    )  # fmt: skip
    calls.append(
        ["puffer", "replay", "2024-01-01..2024-01-05", "--from", str(stored), "--arm", "forgetting",
         "--arm", "fifo", "--out", str(root / "replayed"), "--epochs", "2", "--interval", "1",
         "--batch-size", "16"]
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _CALLS, json.dumps(calls)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [1, 0, 0, 0, 0], done.stderr  # one is broken


def _record(root: Path) -> Path:
    """A deployment's record of two variants and horizons, and settings that name it."""
    rows = [
        "variant,horizon,day,retrained,coverage_increase,total_coverage_increase,total_coverage"
    ]
    days = [np.datetime64(f) + i for f in ("2022-09-19", "2023-07-10") for i in range(7)]
    for place, variant in enumerate(("default", "deterministic")):
        for horizon in (0, 1):
            for number, day in enumerate(days):
                rise = 0.02 * (1 + number % (5 + horizon)) + 0.03 * place
                rows.append(f"{variant},{horizon},{day},{rise >= 0.1},{rise:.3f},,{40 + number}")
    (root / "record.csv").write_text("\n".join(rows) + "\n")
    settings = root / "run.toml"
    settings.write_text(
        f'[parameters."puffer-deployment/record"]\nrecord = "{root / "record.csv"}"\n'
    )
    return settings


_CALLS = """
import json, sys
from memento.cli.main import main
codes = []
for words in json.loads(sys.argv[1]):
    try:
        main(words)
        codes.append(0)
    except SystemExit as done:
        codes.append(done.code or 0)
print(json.dumps(codes))
"""


# ----------------------------------------------------- folders in the exact form of other commands


def demo(folder: Path) -> Path:
    """What `memento demo` leaves, as far as reports read it."""
    levels = {
        name: {"streams": 40, "stall_ratio": 0.01 * (i + 1), "stall_low": 0.005 * (i + 1),
               "stall_high": 0.02 * (i + 1), "ssim": 15.0 - i, "ssim_low": 14.5 - i,
               "ssim_high": 15.5 - i}
        for i, name in enumerate(("static", "random", "memento"))
    }  # fmt: skip
    arms = {
        name: {"p01": 0.1 * i, "p01_error": 0.05, "median": -0.01 * i, "median_error": 0.01,
               "mean": 0.0, "mean_error": 0.02, "retrained": i}
        for i, name in enumerate(levels)
    }  # fmt: skip
    differences = {
        name: {"stalled": [-0.2, -0.5, 0.1], "ssim": [0.1, -0.1, 0.3]}
        for name in ("static", "memento")
    }
    control = {"levels": levels, "scores": {}, "differences": differences}
    document = {"facts": "3 days.", "arms": arms, "against": {}, "control": control}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(document))
    (folder / "steps.csv").write_text("arm,horizon\n")
    (folder / "report.html").write_text("<!doctype html><title>A week of video streaming</title>")
    return folder


def analysis(folder: Path, results: Path) -> Path:
    """What `memento puffer analyze` leaves, of the day that was analysed in the small results."""
    from memento.runner.results import read_table
    from memento_puffer.cli import analysis_report

    (place,) = (results / "puffer-analysis" / "tiny").glob("output-*")
    found = {path.stem: Samples(read_table(path)) for path in place.glob("*.parquet")}
    folder.mkdir(parents=True, exist_ok=True)
    analysis_report.write_report(folder, found, None, np.random.default_rng(0))
    return folder
