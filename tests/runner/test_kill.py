"""A command killed at any moment: the same command goes on, and the result is the same bytes.

Run as a script, this file is the server: it imports everything once and forks commands, so that
many real processes are killed without starting Python for each.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COUNTING, PUFFER = (Path(__file__).with_name(f"{name}.py") for name in ("counting", "tiny_puffer"))
KILLS = {"process": 40, "pool": 12, "puffer": 18}
# Page, group with patterns, and jobs at a time; 0: in the process of the command.
PLANS = {
    "process": (COUNTING, ("counting",), 0),
    "pool": (COUNTING, ("counting",), 2),
    "puffer": (PUFFER, ("puffer-replay", "tiny+memento-frozen", "tiny-figure-freeze"), 0),
}
TOKEN = re.compile(r"-[0-9a-f]{8}(\.npy|\.parquet)")
CLOCKED = "times.parquet"  # seconds, which differ from run to run


def serve(folder: Path, place: str) -> dict[str, int]:
    """Kill commands at random moments, until so many; compare whatever they complete."""
    from memento.cli.main import main
    from memento.runner import registry, schedule

    page, asked, jobs = PLANS[place]
    group, *patterns = asked
    if place == "puffer":
        import memento_puffer.data.release
        import memento_puffer.studies.replay  # noqa: F401
    known = registry.Registry([page])
    words = ["run", *asked, "--experiments", str(page), "-j", str(jobs)]
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
    expected = _outputs(schedule.make(known, group, patterns, root=straight))
    rng = random.Random(0)
    counts = {"kills": 0, "rounds": 0, "interrupted": 0, "resumed": 0, "bodies": 0}
    bodies: set[str] = set()
    while counts["kills"] < KILLS[place]:
        counts["rounds"] += 1
        root = folder / f"round-{counts['rounds']}"
        plan = schedule.make(known, group, patterns, root=root)
        done: set[str] = set()
        tries = dict.fromkeys(plan.jobs, 0)  # attempts that were killed
        attempts: dict[str, int] = {}
        for number in range(8 if place != "puffer" else 10):
            child = command(root)
            if place == "puffer":
                # What was killed three times gets through, so that it is the turn of the next body.
                through = [job for key, job in plan.jobs.items() if tries[key] >= 3]
                wait(lambda through=through: all(job.status().state == "done" for job in through))
            # Half of the kills come from the start on, and half once an experiment is at work.
            at_work = place == "puffer" or number % 2 == 1
            if at_work:
                wait(lambda plan=plan, child=child: works(plan) or ended(child))
            time.sleep(rng.uniform(0, (0.06 if at_work else 0.4) * lasting))
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
            hit = {
                key
                for key, found in states.items()
                if found.reason.startswith(("was killed", "interrupted"))
                and found.attempt > attempts.get(key, 0)
            }
            for key in hit:
                tries[key] += 1
            attempts = {key: found.attempt for key, found in states.items()}
            counts["interrupted"] += bool(hit)
            bodies |= hit
            done = now
        finish(root)
        assert _outputs(plan) == expected, "other bytes than the undisturbed run"
        for job in plan.jobs.values():
            names = sorted(path.name for path in job.place.folder.iterdir())
            attempt = job.status().attempt
            counts["resumed"] += attempt > 1
            kept = {"experiment.json", "lock", "log.txt", "result.json", "state.json"}
            assert set(names) - {"log.previous.txt"} == kept | {f"output-{attempt}"}, names
    counts["bodies"] = len(bodies)
    return counts


def wait(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "an experiment does not get through"
        time.sleep(0.005)


def works(plan) -> bool:
    return any(job.status().state == "running" for job in plan.jobs.values())


def ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


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
            if path.is_file() and path.name != CLOCKED:
                # Files of stored features have a word of their own in their names, drawn anew.
                name = TOKEN.sub(r"\1", f"{key}/{path.relative_to(folder)}")
                content = path.read_bytes()
                if path.name == "features.json":
                    content = TOKEN.sub(r"\1", content.decode()).encode()
                found[name] = content.hex()
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
    if place == "puffer":
        assert counts["bodies"] >= 3, counts  # a simulation, a training and a replay


if __name__ == "__main__":
    sys.stdout.write(json.dumps(serve(Path(sys.argv[1]), sys.argv[2])))
