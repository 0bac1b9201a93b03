"""Downloads that are killed at random moments; run as a script by test_download.py.

Everything is imported once, and each download is a process of its own, forked from here.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from memento_puffer.data.download import KINDS, Patience, download

KILLS = 20


def fetch(url: str, folder: Path, days: list[str]) -> bool:
    patience = Patience(attempts=2, first_pause=0.0)
    result = download(
        days, folder, kinds=KINDS, data_url=url, models_url=f"{url}/models", patience=patience
    )
    return result.state == "done"


def main(url: str, folder: Path, expected: dict[str, str], days: list[str]) -> dict[str, int]:
    """Kill; check that what has a name of its own is whole; go on."""
    rng = random.Random(0)
    counts = {"kills": 0, "finished": 0, "whole": 0, "parts": 0}
    begin = time.monotonic()
    assert fetch(url, folder.with_name("measured"), days)
    lasting = time.monotonic() - begin  # on this machine, as busy as it is now
    while counts["kills"] < KILLS or not counts["whole"] or not counts["parts"]:
        assert time.monotonic() - begin < 100, f"kills do not meet downloads at work: {counts}"
        child = os.fork()
        if child == 0:
            code = 3
            try:
                code = 0 if fetch(url, folder, days) else 4
            finally:
                os._exit(code)
        time.sleep(rng.uniform(0.0, 0.8 * lasting))
        os.kill(child, signal.SIGKILL)
        _, end = os.waitpid(child, 0)
        assert os.WIFSIGNALED(end) or os.WEXITSTATUS(end) == 0, f"failed: {end}"
        counts["kills" if os.WIFSIGNALED(end) else "finished"] += 1
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            hidden = any(part.startswith(".") for part in Path(name).parts)
            counts["parts"] += name.endswith(".part")
            if path.is_file() and not hidden and path.name != "manifest.json":
                counts["whole"] += 1
                found = hashlib.sha256(path.read_bytes()).hexdigest()
                assert found == expected[name], f"{name} is not whole"
            if not hidden and path.name == "manifest.json":
                json.loads(path.read_bytes())
        if os.WIFEXITED(end):
            # All there: begin anew, so that every kill meets a download at work, and kill earlier.
            lasting *= 0.8
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert fetch(url, folder, days)
    return counts


if __name__ == "__main__":
    task = json.loads(sys.stdin.read())
    counts = main(task["url"], Path(task["folder"]), task["expected"], task["days"])
    sys.stdout.write(json.dumps(counts))
