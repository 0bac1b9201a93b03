"""Thousands of units through a loop and a deployment: what they take does not grow."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from memento import DensityReservoir, Every, JensenShannon, Memory, run
from memento.testing import ConstantLearner
from torture import subjects
from torture.trial import Violation

UNITS = 2000
PARTS = 4  # the first is not looked at: caches fill


def _facts(folder: Path) -> dict[str, float]:
    """What the process and a folder take; pages of past steps, a record, apart from the rest."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = {p: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    record = {p for p in files if p.name.startswith("steps%2F")}
    disk = sum(size for p, size in files.items() if p not in record)
    return {"memory": pages * resource.getpagesize() / 2**20, "disk": disk / 2**20,
            "record": sum(files[p] for p in record) / 2**20, "files": len(files) - len(record),
            "descriptors": len(os.listdir("/proc/self/fd")), "cpu": time.process_time()}  # fmt: skip


def loop(folder: Path, units: int = UNITS) -> list[dict[str, float]]:
    """Units through `memento.run` with a checkpoint after each; facts at the end of each part."""
    policy = DensityReservoir([JensenShannon.of_labels("y", subjects.CLASSES)], batch_size=2)
    stream = ((str(number), subjects.day(number, 60)) for number in range(units))
    memory = Memory(100, policy, seed=1)
    learner = ConstantLearner("y", subjects.CLASSES)
    facts = []
    steps = run(stream, memory, learner, Every(2), checkpoint=folder)
    for number, _ in enumerate(steps, 1):
        if number % (units // PARTS) == 0:
            facts.append(_facts(folder))
    return facts


def deployment(folder: Path, days: int = 200) -> list[dict[str, float]]:
    """Days through `memento deploy run`, a call for each.

    Raises:
        Violation: A call fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        return list(_deployed(folder, days))


def _deployed(folder: Path, days: int) -> Iterator[dict[str, float]]:
    from deployment import stranger
    from memento.cli.main import main

    _call(lambda: subjects.deployment(folder))
    dates = np.datetime64("2026-02-01") + np.arange(days)
    for number, date in enumerate(dates, 1):
        made = folder / "days" / f"{stranger.name(1)}.parquet"
        (folder / "days" / f"{date}.parquet").write_bytes(made.read_bytes())
        _call(lambda: main(["deploy", "run", "state"]))
        if number % (days // PARTS) == 0:
            yield _facts(folder / "state" / "variants")


def _call(command: Callable[[], object]) -> None:
    """A command ends its process, which goes on here."""
    try:
        command()
    except SystemExit as ended:
        if ended.code:
            raise Violation(f"exit code {ended.code}") from None


def grown(facts: list[dict[str, float]]) -> list[str]:
    """What grows from the second part to the last by more than it may."""
    first, last = facts[1], facts[-1]
    spent = [b["cpu"] - a["cpu"] for a, b in pairwise(facts)]
    more = {
        "memory": last["memory"] > first["memory"] + 32,  # MB
        "disk": last["disk"] > 1.2 * first["disk"] + 0.1,  # MB
        "record": last["record"] > 2.5 * first["record"] + 0.1,  # MB; twice the units
        "files": last["files"] > first["files"] + 20,
        "descriptors": last["descriptors"] > first["descriptors"],
        "cpu": spent[-1] > 1.5 * spent[0] + 0.5,  # s for all units of a part
    }
    return [name for name, grows in more.items() if grows]


def lines(facts: list[dict[str, float]]) -> Iterator[str]:
    """The facts as rows of a table."""
    for number, part in enumerate(facts, 1):
        yield f"| {number} | " + " | ".join(f"{value:,.1f}" for value in part.values()) + " |"
