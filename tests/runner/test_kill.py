"""A command killed at any moment: the same command goes on, and the result is the same bytes.

Run as a script, this file is the server: it imports everything once and forks commands, so that
many real processes are killed without starting Python for each.
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

import pytest

PAGE = Path(__file__).with_name("counting.py")
KILLS = {"process": 40, "pool": 12}


def serve(folder: Path, place: str) -> dict[str, int]:
    """Kill commands at random moments, until so many; compare whatever they complete."""
    from memento.cli.main import main
    from memento.runner import registry, schedule

    known = registry.Registry([PAGE])
    words = [
        "run",
        "counting",
        "--experiments",
        str(PAGE),
        "-j",
        {"process": "0", "pool": "2"}[place],
    ]
    devnull = os.open(os.devnull, os.O_WRONLY)

    def command(root: Path) -> int:
        """Start the command; returns its process."""
        child = os.fork()
        if child:
            return child
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        code = 99
        try:
            main([*words, "--results", str(root)])
        except SystemExit as done:
            code = int(done.code or 0)
        finally:
            os._exit(code)

    def finish(root: Path) -> float:
        begun = time.monotonic()
        _, status = os.waitpid(command(root), 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"exit code {status}"
        return time.monotonic() - begun

    straight = folder / "straight"
    lasting = finish(straight)
    expected = _outputs(schedule.make(known, "counting", root=straight))
    rng = random.Random(0)
    counts = {"kills": 0, "rounds": 0, "interrupted": 0, "resumed": 0}
    while counts["kills"] < KILLS[place]:
        counts["rounds"] += 1
        root = folder / f"round-{counts['rounds']}"
        plan = schedule.make(known, "counting", root=root)
        done: set[str] = set()
        for _ in range(8):
            child = command(root)
            time.sleep(rng.uniform(0, 0.4 * lasting))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                counts["kills"] += 1
            else:
                assert os.waitstatus_to_exitcode(status) == 0, "a command failed"
            _settle(plan)
            states = {key: job.status() for key, job in plan.jobs.items()}
            assert {found.state for found in states.values()} <= {"done", "missing"}, states
            now = {key for key, found in states.items() if found.state == "done"}
            assert done <= now, "what was done is done no more"
            counts["interrupted"] += any(
                f.reason.startswith(("was killed", "interrupted")) for f in states.values()
            )
            done = now
        finish(root)
        assert _outputs(plan) == expected, "other bytes than the undisturbed run"
        for job in plan.jobs.values():
            names = sorted(path.name for path in job.place.folder.iterdir())
            attempt = job.status().attempt
            counts["resumed"] += attempt > 1
            kept = {"experiment.json", "lock", "log.txt", "result.json", "state.json"}
            assert set(names) - {"log.previous.txt"} == kept | {f"output-{attempt}"}, names
    return counts


def _settle(plan) -> None:
    """Processes of a killed command follow it, without being told."""
    end = time.monotonic() + 20
    while any(job.status().state == "running" for job in plan.jobs.values()):
        assert time.monotonic() < end, "an experiment outlives its command"
        time.sleep(0.02)


def _outputs(plan) -> dict[str, str]:
    found = {}
    for key, job in plan.jobs.items():
        folder = job.status().output
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found[f"{key}/{path.relative_to(folder)}"] = path.read_bytes().hex()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("place", list(KILLS))
def test_killed_at_random_moments(tmp_path, place):
    result = subprocess.run(
        [sys.executable, __file__, str(tmp_path), place],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    counts = json.loads(result.stdout)
    assert counts["kills"] >= KILLS[place]
    # The test would prove nothing if no kill had met an experiment at work.
    assert counts["interrupted"] >= 3, counts
    assert counts["resumed"] >= 1, counts


if __name__ == "__main__":
    sys.stdout.write(json.dumps(serve(Path(sys.argv[1]), sys.argv[2])))
