"""Commands that are killed before each file operation and at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from torture import trial
from torture.trial import Straight, Subject, Violation

#: Those that end a process, and one that halts it for a while.
SIGNALS = (
    signal.SIGKILL,
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGSTOP,
)


def names(subjects: dict[str, Subject]) -> Iterator[str]:
    """Names of all trials, those of each subject in turn, without end."""
    number = 0
    while True:
        for name in subjects:
            yield f"kills/{name}/{number}"
        number += 1


def attempt(name: str, subject: Subject, straight: Straight, root: Path) -> None:
    """One kill, and what comes of it.

    Raises:
        Violation: Something is lost, half-written, left over or other than in an undisturbed run.
    """
    number = int(name.rpartition("/")[2])
    chance = random.Random(name)
    with trial.place(root, subject, straight) as folder:
        if number % 2 == 0 and straight.operations:
            _before_operation(subject, folder, 1 + number // 2 % straight.operations)
        else:
            _at_a_moment(subject, straight, folder, chance)
        trial.go_on(subject, straight, folder)


def _before_operation(subject: Subject, folder: Path, number: int) -> None:
    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    code = trial.end_of(trial.fork(subject.act, folder, treat=trial.at_operation(number, kill)))
    if code not in (0, -signal.SIGKILL):
        raise Violation(f"ended with {code}: {trial.said(folder)[-1500:]}")


def _at_a_moment(subject: Subject, straight: Straight, folder: Path, chance: random.Random) -> None:
    number = chance.choice(SIGNALS)
    process = trial.fork(subject.act, folder, treat=trial.stop_the_clock)
    time.sleep(chance.uniform(0, 1.1 * straight.seconds))
    os.kill(process, number)
    if number == signal.SIGSTOP:
        time.sleep(0.05)
        os.kill(process, signal.SIGCONT)
    code = trial.end_of(process)
    if number == signal.SIGSTOP and code:
        raise Violation(f"halted for a moment, it ends with {code}: {trial.said(folder)[-1500:]}")
    if number != signal.SIGKILL:
        trial.unbroken(trial.said(folder))
        if left := [path.name for path in trial.temporary(folder).iterdir()]:
            raise Violation(f"{left} stay among temporary files")
