"""A Slurm without Slurm, at the boundary of processes: sbatch, squeue and scancel in one script.

Jobs run at once, as processes of this machine. State lies in the folder FAKE_SLURM names.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("FAKE_SLURM", "."))


def sbatch(words: list[str]) -> None:
    if (FOLDER / "refuse").exists():
        sys.exit("sbatch: error: Batch job submission failed: Invalid partition name specified")
    options = dict(
        word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word
    )
    number = 1 + len(list(FOLDER.glob("*.json")))
    record = {"script": words[-1], "words": words, "text": Path(words[-1]).read_text()}
    (FOLDER / f"{number}.json").write_text(json.dumps(record))
    output = re.sub(
        "%[%j]", lambda found: {"%%": "%", "%j": str(number)}[found[0]], options["output"]
    )
    if not (FOLDER / "hold").exists():
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                "supervise",
                str(number),
                words[-1],
                output,
                options["chdir"],
            ],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    sys.stdout.write(f"{number}\n")


def supervise(words: list[str]) -> None:
    number, script, output, folder = words
    with open(output, "wb") as file:
        process = subprocess.Popen(
            ["bash", script], stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=folder,
            env={**os.environ, "SLURM_JOB_ID": number},
        )  # fmt: skip
    write(f"{number}.pid", str(process.pid))
    write(f"{number}.code", str(process.wait()))


def squeue(words: list[str]) -> None:
    assert words[:3] == ["-h", "-t", "all"], words
    if (FOLDER / "down").exists():
        (FOLDER / "down").unlink()
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
    for record in FOLDER.glob("*.json"):
        if not (FOLDER / f"{record.stem}.forgotten").exists():
            sys.stdout.write(f"{record.stem} {state(record.stem)}\n")


def state(number: str) -> str:
    said = FOLDER / f"{number}.state"
    if said.exists():
        return said.read_text()
    code = FOLDER / f"{number}.code"
    if code.exists():
        return "COMPLETED" if code.read_text() == "0" else "FAILED"
    return "RUNNING" if (FOLDER / f"{number}.pid").exists() else "PENDING"


def scancel(words: list[str]) -> None:
    given = signal.SIGINT if "--signal=INT" in words else signal.SIGTERM
    for number in (word for word in words if word.isdigit()):
        pid = FOLDER / f"{number}.pid"
        if pid.exists() and not (FOLDER / f"{number}.code").exists():
            os.kill(int(pid.read_text()), given)
        elif not pid.exists():
            write(f"{number}.state", "CANCELLED")


def write(name: str, text: str) -> None:
    (FOLDER / f".{name}").write_text(text)
    (FOLDER / f".{name}").replace(FOLDER / name)


if __name__ == "__main__":
    {"sbatch": sbatch, "squeue": squeue, "scancel": scancel, "supervise": supervise}[sys.argv[1]](
        sys.argv[2:]
    )
