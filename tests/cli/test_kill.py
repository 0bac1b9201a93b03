"""A process killed at any moment leaves the last complete generation readable.

Run as a script, this file is the server: it imports everything once and forks writers, so 200 real
processes are killed without starting Python 200 times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

KILLS = 200
ROWS = 400
CAPACITY = 1000


def _day(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {"x": rng.normal(size=(ROWS, 20)), "y": rng.integers(0, 5, ROWS)}


def serve(folder: Path) -> dict[str, int]:
    """Kill writers of one memory at random moments; check it after every kill."""
    from memento import OnArrivals, observe, snapshot
    from memento.cli.main import main
    from memento.memory import Memory
    from memento.policies import policy_from_settings

    file = folder / "day.npz"
    np.savez(file, **_day(0))
    disk = folder / "memory"
    straight = Memory(CAPACITY, policy_from_settings({"kind": "reservoir"}), seed=0)
    straight.save(disk)
    devnull = os.open(os.devnull, os.O_WRONLY)
    rng = random.Random(0)
    counts = {"kills": 0, "interrupted": 0, "inserts": 0}
    _insert(main, disk, file, devnull)  # imports what is imported late, before any fork
    lasting = 0.05  # about how long an insert takes, in seconds; found out along the way
    # The test would prove nothing if no kill had met a writer at work.
    while counts["kills"] < KILLS or counts["interrupted"] < 10 or counts["inserts"] < 10:
        assert counts["kills"] < 5 * KILLS, f"kills do not meet writers at work: {counts}"
        writer = os.fork()
        if writer == 0:
            try:
                while True:
                    _insert(main, disk, file, devnull)
            finally:
                os._exit(3)  # a failed insert, never reached by a killed one
        time.sleep(rng.uniform(0, 2 * lasting))
        os.kill(writer, signal.SIGKILL)
        _, status = os.waitpid(writer, 0)
        assert os.WIFSIGNALED(status), "an insert failed instead of being killed"
        counts["kills"] += 1
        left = {path.name for path in disk.iterdir()} - {"lock", "manifest.json"}
        counts["interrupted"] += len(left) > 1
        found = Memory.load(disk)  # verifies sizes and digests
        assert found.inserts >= counts["inserts"], "a complete generation was lost"
        # So that about half of the writers complete an insert, however busy the machine is: then
        # the moments are spread over all that a writer does.
        lasting *= 0.95 if found.inserts > counts["inserts"] else 1.05
        counts["inserts"] = found.inserts
        while straight.inserts < found.inserts:
            observe(straight, _day(0), OnArrivals(witnesses=0.0))
        for name, column in straight.samples.items():
            np.testing.assert_array_equal(found.samples[name], column)
        documents = [memory.dump()[1] for memory in (found, straight)]
        documents[0]["memory"].pop("units"), documents[1]["memory"].pop("units")
        assert len({json.dumps(d) for d in documents}) == 1, "counters or generator differ"
    _insert(main, disk, file, devnull)  # no lock and no leftover stands in the way
    assert Memory.load(disk).inserts == counts["inserts"] + 1
    left = {path.name for path in disk.iterdir()}
    assert left == {"lock", "manifest.json", f"generation-{snapshot.generation_of(disk):06d}"}, left
    return counts


def _insert(main, disk: Path, file: Path, devnull: int) -> None:
    kept = os.dup(1)
    os.dup2(devnull, 1)
    try:
        main(["memory", "insert", str(disk), str(file), "--again"])
    except SystemExit as done:
        if done.code:
            raise RuntimeError(f"the insert failed with exit code {done.code}") from done
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def test_killed_at_200_random_moments(tmp_path):
    result = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    counts = json.loads(result.stdout)
    assert counts["kills"] >= KILLS


if __name__ == "__main__":
    counted = serve(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(counted))
