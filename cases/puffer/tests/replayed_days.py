"""Small days for tests of replays; and, run as a script, replays that are killed at random moments.

The script imports everything once and forks, so many real processes are killed without starting
Python each time.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memento_puffer.data.features import STEP, Features
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp_training import AFFORDABLE
from memento_puffer.studies.days import first_network
from memento_puffer.studies.replay import Replay
from memento_puffer.studies.replay_settings import arm

TRAINING = asdict(
    replace(
        AFFORDABLE, epochs=2, scratch_epochs=4, batch_size=64, learning_rate=3e-3,
        held_out=0.0, patience=None,
    )
)  # fmt: skip
GIVEN: dict[str, Any] = {
    "capacity": 96,
    "interval": 2,
    "training": TRAINING,
    "coverage_batch": 8,
}
NAMES = [f"2022-01-{i + 1:02d}" for i in range(8)]


def features(number: int, streams: int = 12, length: int = 12, seed: int = 0) -> Features:
    """A day of streams, every fifth of them slow, every fourth with stalls."""
    rng = np.random.default_rng([seed, number])
    n = streams * length
    stream = np.repeat(np.arange(streams, dtype=np.int32), length)
    position = np.tile(np.arange(length), streams)
    rate = np.where(np.arange(streams) % 5 == 0, 150.0, 3000.0) * rng.lognormal(0, 0.4, streams)
    rate = rate[stream] * rng.lognormal(0, 0.2, n)
    rtt = rng.uniform(0.02, 0.2, streams)[stream]
    size = rng.lognormal(6, 0.5, n)
    seconds = np.round(size / rate + rtt, 6)
    tcp = [rate, rate * rtt, rng.integers(0, 5, n), rtt * 0.8, rtt]
    values = np.column_stack([*tcp, size, seconds]).astype(np.float32)
    sent = (1_640_995_200 + 86_400 * number) * 10**9 + (position * 2 * 10**9).astype(np.int64)
    acked = sent + np.round(seconds * 1e9).astype(np.int64)
    table = pl.DataFrame({"stream": np.arange(streams), "stalled": np.arange(streams) % 4 == 0})
    return Features(values, stream, position.astype(np.int64) * STEP, sent, acked, table)


def days(count: int = 6) -> dict[str, Features]:
    """The first so many days."""
    return {NAMES[i]: features(i) for i in range(count)}


def base(horizon: int = 0) -> Network:
    """A static model."""
    settings = replace(AFFORDABLE, **{**TRAINING, "scratch_epochs": 8})
    return first_network(features(99), horizon, settings)


def record_of(folder: Path) -> dict[str, bytes]:
    """What a replay left, byte for byte, but for times and the count of writes."""
    manifest = json.loads((folder / "state" / "manifest.json").read_text())
    state = folder / "state" / f"generation-{manifest['generation']:06d}"
    found = {f"state/{path.name}": path.read_bytes() for path in sorted(state.iterdir())}
    found["replay.json"] = (folder / "replay.json").read_bytes()
    return found


ARMS: dict[str, dict[str, Any]] = {
    "memento": {"members": 3, "jtt": 3.0},
    "committee": {"members": 3},
    "density-reservoir": {"trigger": "coverage-calibrated", "threshold": 0.01, "interval": 1},
}


def writes(folder: Path) -> bool:
    """Whether a replay is in the midst of writing down a day or its state."""
    states = list(folder.glob("state/generation-*")) + list(folder.glob("state/.*"))
    return len(states) > 1 or any(folder.glob(".times.json*"))


def kill(folder: Path, kills: int, seconds: float) -> dict[str, int]:
    """Kill replays at random moments until there were enough kills; check each that completes."""
    network, stored = base(), days(5)
    replays = {name: arm(name, {**GIVEN, **more}, batch_size=8) for name, more in ARMS.items()}
    expected = {}
    began = time.monotonic()
    for name, settings in replays.items():
        Replay(folder / f"straight-{name}", settings, stored, network).run()
        expected[name] = record_of(folder / f"straight-{name}")
    lasting = (time.monotonic() - began) / len(replays)
    rng = random.Random(0)
    counts = {"kills": 0, "completed": 0, "interrupted": 0}
    began = time.monotonic()
    number = 0
    while counts["completed"] < len(replays) or counts["kills"] < kills:
        name = list(replays)[number % len(replays)]
        place = folder / f"{number}-{name}"
        # The test would prove nothing if no kill had met a replay that was writing.
        met = counts["kills"] >= kills and counts["interrupted"] >= kills // 4
        enough = met or time.monotonic() - began > seconds
        child = os.fork()
        if child == 0:
            code = 3
            try:
                Replay(place, replays[name], stored, network).run()
                code = 0
            finally:
                os._exit(code)
        ended = 0
        if not enough:
            moment = time.monotonic() + rng.uniform(0, lasting)
            at_work = rng.random() < 0.5  # then, from that moment on, as soon as it writes
            while time.monotonic() < moment:
                time.sleep(0.001)
            while at_work and not writes(place) and time.monotonic() < moment + lasting:
                if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    break
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                os.kill(child, signal.SIGKILL)
        if not ended:
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            counts["kills"] += 1
            lasting *= 1.02
            counts["interrupted"] += writes(place)
            continue
        assert os.WEXITSTATUS(status) == 0, "a replay failed instead of being killed"
        assert record_of(place) == expected[name], f"{place} differs from a straight replay"
        counts["completed"] += 1
        number += 1
        # So that most are killed, however busy the machine is.
        lasting *= 0.7
        if enough and counts["completed"] >= len(replays):
            break
    return counts


if __name__ == "__main__":
    found = kill(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    sys.stdout.write(json.dumps(found))
