"""A stranger's model, deployed by the command over ten days: with real processes, some killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployment import stranger

ROLLBACK = 8  # the day after which a person goes back
SECOND = '\n[variants.second]\ncapacity = 200\npolicy = "density-reservoir"\n'


def _process(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "memento", "deploy", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _call(*words: object) -> str:
    process = _process(*words)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    return out


def _done(state: Path) -> list[int]:
    """When what a variant holds was last replaced; read while a process may be replacing it."""
    times = []
    for folder in sorted((state / "variants").glob("*")):
        with contextlib.suppress(FileNotFoundError):
            times.append((folder / "manifest.json").stat().st_mtime_ns)
    return times


def _run_killed(state: Path, rng: random.Random, most: int) -> int:
    """Run, and kill so many runs a moment after they have got on; returns how many were killed."""
    kills = 0
    while kills < most:
        process, before = _process("run", state), _done(state)
        while process.poll() is None and _done(state) == before:
            time.sleep(0.002)
        try:
            process.wait(rng.random() * 0.15)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        _, error = process.communicate()
        assert process.returncode in (0, -9), error
        if process.returncode == 0:
            return kills
    _call("run", state)
    return kills


def _content(state: Path) -> dict[str, str]:
    """All that a deployment holds, but for how often its folders were written."""
    content = {}
    for path in sorted(state.rglob("*")):
        name = path.relative_to(state).as_posix()
        if path.is_symlink():
            content[name] = os.readlink(path)
        elif path.is_file() and not (
            name.startswith("variants") and name.endswith("manifest.json")
        ):
            name = "/".join(p for p in name.split("/") if not p.startswith("generation-"))
            content[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return content


@pytest.mark.slow
def test_ten_days_of_a_killed_job_are_those_of_one_left_alone(tmp_path):
    """One day is missing, one model is refused, and one day a person goes back."""
    pytest.importorskip("skops")
    file = stranger.prepare(tmp_path, "stranger_killed", config=stranger.CONFIG + SECOND)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    rng, kills = random.Random(5), 0
    for state in (straight, killed):
        _call("init", state, "--config", file)
    for first, last in ((1, ROLLBACK), (ROLLBACK + 1, 10)):
        for day in range(first, last + 1):
            if day != stranger.MISSING:
                stranger.write_day(tmp_path / "days", day)
        _call("run", straight)
        kills += _run_killed(killed, rng, 3)
        for state in (straight, killed) if last == ROLLBACK else ():
            _call("rollback", state, "main", stranger.name(2))
            assert os.readlink(state / "published/main/current").endswith(stranger.name(2))
    assert kills >= 3
    assert _content(straight) == _content(killed)
    assert json.loads(_call("run", killed, "--json")) == {"days": []}
    facts = json.loads(_call("status", killed, "--json"))["variants"]["main"]
    states = {row["day"][-2:]: row["state"] for row in facts["days"]}
    expected = {f"{day:02d}": "done" for day in range(1, 11)}
    assert states == expected | {"04": "missing", "06": "refused"}
    assert facts["serving"] == stranger.name(10)
    assert stranger.name(6) not in facts["versions"]
    rows = [json.loads(line) for line in _call("record", killed).splitlines()]
    served = {row["day"]: row["served"] for row in rows if row["variant"] == "main"}
    assert served[stranger.name(ROLLBACK + 1)] == stranger.name(2)
