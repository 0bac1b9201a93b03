"""A page of experiments for tests: bodies that count, fail, crash and go on from checkpoints."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from memento.errors import SettingError
from memento.files import atomic_write
from memento.runner.results import read_table
from memento.runner.spec import Experiment, Resources, Run, checked

STEPS = {"steps": 6, "pause": 0.005}


def experiments():
    yield Experiment("counting", "base", ":count", {**STEPS, "seed": 0})
    for seed in (1, 2, 3):
        yield Experiment(
            "counting", f"walk-{seed}", ":count", {**STEPS, "seed": seed}, needs=("base",)
        )
    yield Experiment("counting", "sum", ":add_up", needs=("walk-*",))

    yield Experiment("trouble", "fine", ":count", {**STEPS, "seed": 9})
    yield Experiment("trouble", "raises", ":raise_error", {"message": "no luck\nat all"})
    yield Experiment("trouble", "after", ":count", {**STEPS, "seed": 1}, needs=("raises",))
    yield Experiment("trouble", "crashes", ":crash")
    yield Experiment("trouble", "exits", ":leave")
    yield Experiment("trouble", "no-file", ":add_up", files=("no/such/file.csv",))
    yield Experiment("trouble", "wrong-call", ":count", {"step": 1})

    yield Experiment("facts", "threads", ":threads", resources=Resources(threads=2))
    yield Experiment("tuned", "one", ":tune", {"rate": 0.5})
    yield Experiment("tuned", "other", ":count", {**STEPS, "seed": 0})
    yield Experiment(
        "files", "optional", ":tune", {"rate": 0.5, "label": "no/such/file.csv"},
        files=("{label}",), optional=True,
    )  # fmt: skip
    yield Experiment("files", "other", ":tune", {"rate": 0.5})
    yield Experiment("slow", "long", ":count", {"steps": 400, "pause": 0.05, "seed": 0})
    yield Experiment("slow", "deaf", ":ignore_signals", {"seconds": 60.0})


def count(run: Run, *, steps: int, pause: float, seed: int) -> None:
    """A random walk that saves its generator after every step."""
    saved = run.checkpoint / "state.json"
    rng, values = random.Random(seed), []
    if saved.exists():
        found = json.loads(saved.read_text())
        values = found["values"]
        version, numbers, gauss = found["generator"]
        rng.setstate((version, tuple(numbers), gauss))
    print(f"begins at step {len(values)} of {steps}")  # noqa: T201 (the log is what a test reads)
    while len(values) < steps:
        values.append((values[-1] if values else 0.0) + rng.gauss(0, 1))
        time.sleep(pause)
        atomic_write(saved, json.dumps({"values": values, "generator": rng.getstate()}).encode())
        run.report(len(values), steps, f"step {len(values)}")
    run.write("walk.csv", {"step": list(range(steps)), "value": values})
    run.write("nested/walk.parquet", {"value": values})


def check_tune(*, rate: float, steps: int, label: str | None) -> list[str]:
    if steps < 1:
        raise SettingError(f"steps={steps}; give at least 1")
    return ["label"] if rate == 0 else []


@checked(check_tune)
def tune(run: Run, *, rate: float, steps: int = 3, label: str | None = None) -> None:
    run.write("tuned.csv", {"rate": [rate] * steps, "label": [str(label)] * steps})


def add_up(run: Run) -> None:
    sums = {key: sum(read_table(folder / "walk.csv")["value"]) for key, folder in run.needs.items()}
    run.write("sum.csv", {"of": list(sums), "sum": list(sums.values())})


def raise_error(run: Run, *, message: str) -> None:
    (run.folder / "half-written.csv").write_text("x\n1")
    raise ValueError(message)


def crash(run: Run) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(run: Run) -> None:
    sys.exit(7)


def threads(run: Run) -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
    said = subprocess.run(["sh", "-c", "echo to the log"], stdout=None, check=True)
    values = [int(os.environ[name]) for name in names] + [run.threads, said.returncode]
    run.write("threads.csv", {"name": [*names, "run", "child"], "value": values})


def ignore_signals(run: Run, *, seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(run.checkpoint / "begun").touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
