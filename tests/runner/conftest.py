"""Plans of the page of experiments that tests run."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memento.runner import schedule
from memento.runner.registry import Registry

PAGE = Path(__file__).with_name("counting.py")


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Python's own handler, whoever started the tests, and whatever a test imported.

    A shell starts what runs in the background with SIGINT ignored, and importing dask-jobqueue
    installs a handler that exits.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def page() -> Path:
    """The page of experiments."""
    return PAGE


@pytest.fixture
def plan(tmp_path):
    """Maker of plans: `plan("counting", "walk-*")`."""

    def make(group: str, *patterns: str, root: Path | None = None, **options):
        return schedule.make(
            Registry([PAGE]), group, patterns, root=root or tmp_path / "results", **options
        )

    return make


@pytest.fixture
def outputs():
    """Reader of all results of a plan: bytes by experiment and file."""

    def read(plan) -> dict[str, bytes]:
        found = {}
        for key, job in plan.jobs.items():
            folder = job.status().output
            assert folder is not None, f"{key} is {job.status()}"
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    found[f"{key}/{path.relative_to(folder)}"] = path.read_bytes()
        return found

    return read


@pytest.fixture
def until():
    """Wait for something to become true, with a clear failure if it never does."""

    def wait(condition, seconds: float = 20.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} s")

    return wait
