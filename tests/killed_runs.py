"""Runs of experiments that are killed at random moments, and what they come to in the end.

Run as a script, this file is the server: it imports everything once and forks commands, so that
many real processes are killed without starting Python for each.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

TOKEN = re.compile(r"-[0-9a-f]{8}(\.npy|\.parquet)")
CLOCKED = "times.parquet"  # seconds, which differ from run to run
PATIENCE = 400  # s, in which kills must have met what they are meant to meet


class Plan(NamedTuple):
    """What is run: a page of experiments, group and patterns, and how it is killed.

    Attributes:
        page: The file.
        asked: Group, then patterns.
        jobs: At a time; 0: in the process of the command.
        kills: So many.
        long: Whether experiments are long: all kills come when one is at work, and what was killed
            three times gets through, so that it is the turn of the next.
        imports: Modules that the server imports before it forks.
        bodies: So many different experiments are met at work, or the killing goes on.
    """

    page: str
    asked: tuple[str, ...]
    jobs: int
    kills: int
    long: bool = False
    imports: tuple[str, ...] = ()
    bodies: int = 1


def serve(folder: Path, planned: Plan) -> dict[str, int]:
    """Kill commands at random moments, until so many; compare whatever they complete."""
    from memento.cli.main import main
    from memento.runner import registry, schedule

    group, *patterns = planned.asked
    for module in planned.imports:
        importlib.import_module(module)
    known = registry.Registry([Path(planned.page)])
    words = ["run", *planned.asked, "--experiments", planned.page, "-j", str(planned.jobs)]
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
    # How long a kill waits at most once an experiment is at work: less whenever one came too late,
    # so that kills meet experiments on a fast machine as on a busy one.
    reach = 0.06 * lasting
    begun = time.monotonic()

    def met() -> bool:
        """Whether enough was killed, and at work: a test proves nothing where no kill met any."""
        assert time.monotonic() - begun < PATIENCE, f"kills do not meet what is at work: {counts}"
        few = counts["interrupted"] < 3 or counts["resumed"] < 1
        return counts["kills"] >= planned.kills and not few and len(bodies) >= planned.bodies

    while not met():
        counts["rounds"] += 1
        root = folder / f"round-{counts['rounds']}"
        plan = schedule.make(known, group, patterns, root=root)
        done: set[str] = set()
        tries = dict.fromkeys(plan.jobs, 0)  # attempts that were killed
        attempts: dict[str, int] = {}
        for number in range(10 if planned.long else 8):
            child = command(root)
            if planned.long:
                # What was killed three times gets through, so that it is the turn of the next body.
                through = [job for key, job in plan.jobs.items() if tries[key] >= 3]
                wait(lambda through=through: all(job.status().state == "done" for job in through))
            # Half of the kills come from the start on, and half once an experiment is at work.
            at_work = planned.long or number % 2 == 1
            if at_work:
                wait(lambda plan=plan, child=child: works(plan) or ended(child))
            time.sleep(rng.uniform(0, reach if at_work else 0.4 * lasting))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                counts["kills"] += 1
            else:
                assert os.waitstatus_to_exitcode(status) == 0, "a command failed"
                reach *= 0.8 if at_work else 1.0
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


def killed(folder: Path, plan: Plan) -> dict[str, int]:
    """Counts of `serve`, in a process of its own."""
    result = subprocess.run(
        [sys.executable, __file__, str(folder), json.dumps(plan)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    counts = json.loads(result.stdout)
    assert counts["kills"] >= plan.kills
    return counts


if __name__ == "__main__":
    sys.stdout.write(json.dumps(serve(Path(sys.argv[1]), Plan(*json.loads(sys.argv[2])))))
