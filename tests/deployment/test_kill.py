"""A job killed at any moment, and run again, comes to what an undisturbed one comes to.

Run as a script, this file is the server: it imports everything once and forks real processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DAYS, KILLS = 10, 12


def _command(*words: str) -> int:
    """Exit code of a command in a process of its own."""
    from memento.cli.main import main

    child = os.fork()
    if not child:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
            code = 0
            try:
                main(list(words))
            except SystemExit as done:
                code = int(done.code or 0)
            finally:
                os._exit(code)
    return child


def _wait(child: int, seconds: float | None = None) -> int | None:
    """Its exit code; None if it was killed after some time."""
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


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


def serve(folder: Path) -> dict[str, object]:
    """Kill and repeat; returns what differs."""
    sys.path.insert(0, str(Path(__file__).parent))
    import stranger

    from memento.cli import deploy  # noqa: F401 - loaded once
    from memento.cli.main import main  # noqa: F401

    config = stranger.CONFIG + '\n[variants.second]\ncapacity = 200\npolicy = "density-reservoir"\n'
    file = stranger.prepare(folder, "stranger_killed", config=config)
    for state in ("straight", "killed"):
        assert _wait(_command("deploy", "init", str(folder / state), "--config", str(file))) == 0
    for day in range(1, DAYS + 1):
        if day != stranger.MISSING:
            stranger.write_day(folder / "days", day)
    start = time.monotonic()
    assert _wait(_command("deploy", "run", str(folder / "straight"))) == 0
    whole = time.monotonic() - start
    rng, kills, problems = random.Random(5), 0, []
    for attempt in range(KILLS):
        seconds = rng.random() * whole * min(1.0, 0.15 + attempt / KILLS)
        kills += _wait(_command("deploy", "run", str(folder / "killed")), seconds) is None
        if _wait(_command("deploy", "status", str(folder / "killed"), "--json")) != 0:
            problems.append(f"status after kill {attempt}")
    assert _wait(_command("deploy", "run", str(folder / "killed"))) == 0
    straight, killed = _content(folder / "straight"), _content(folder / "killed")
    differing = sorted(n for n in {*straight, *killed} if straight.get(n) != killed.get(n))
    assert _wait(_command("deploy", "run", str(folder / "killed"))) == 0
    if _content(folder / "killed") != killed:
        problems.append("a run with nothing to do changed something")
    return {"kills": kills, "differing": differing, "problems": problems}


@pytest.mark.slow
def test_a_killed_job_goes_on(tmp_path):
    pytest.importorskip("skops")
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] > 3
    assert not found["problems"]
    assert not found["differing"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(serve(Path(sys.argv[1]))))
