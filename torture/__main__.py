"""`python -m torture`: kills, faults and bad input, until their numbers or the minutes are over.

What was tried stands in ``OUT/journal.jsonl``; the same call goes on from there. The last line
counts violations, each of which ``--repeat NAME`` brings again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from torture import faults, inputs, kills, soak, subjects, trial
from torture.trial import Straight, Violation

#: How many trials of each part make a full run, and their share of the time.
FULL = {"kills": 1000, "faults": 1000, "inputs": 10_000}
SHARES = {"kills": 0.45, "faults": 0.3, "inputs": 0.25}
BATCH = 50  # inputs that share a process


class Campaign:
    """Trials by name, each once.

    Args:
        out: Folder of the journal.
        root: Where trials work; temporary.
        only: Subjects to ill-treat; all if empty.
    """

    def __init__(self, out: Path, root: Path, only: frozenset[str] = frozenset()) -> None:
        self.out, self.root = out, root
        there = {s.name: s for s in subjects.subjects()}
        self.subjects = {n: s for n, s in there.items() if not only or n in only}
        self.journal = out / "journal.jsonl"
        self.done: dict[str, str] = {}
        self.seconds: Counter[str] = Counter()
        self._straight: dict[str, Straight] = {}
        if self.journal.exists():
            for line in self.journal.read_text().splitlines():
                name, found, seconds = json.loads(line)
                self._count(name, found, seconds)

    def _count(self, name: str, found: str, seconds: float) -> None:
        self.done[name] = found
        self.seconds[name.partition("/")[0]] += seconds

    def record(self, name: str, found: str, seconds: float) -> None:
        """Write down what came of a trial."""
        with self.journal.open("a") as file:
            file.write(json.dumps([name, found, round(seconds, 3)]) + "\n")
        self._count(name, found, seconds)
        if found:
            say(f"violation in {name}: {found[-1500:]}")

    def tried(self, part: str) -> int:
        return sum(name.startswith(f"{part}/") for name in self.done)

    def straight(self, name: str) -> Straight:
        if name not in self._straight:
            self._straight[name] = trial.measure(self.subjects[name], self.root)
        return self._straight[name]

    def one(self, name: str) -> str:
        """Try one kill or fault; what was violated, or an empty text."""
        part, subject, *rest = name.split("/")
        try:
            if subject == "writers":
                faults.writers(name, self.root)
            elif subject in faults.TOGETHER:
                faults.together(name, self.root)
            elif subject == "surroundings":
                commands = [n for n, s in self.subjects.items() if not callable(s.act)]
                chosen = commands[int(rest[-1]) % len(commands)]
                faults.surroundings(name, self.subjects[chosen], self.straight(chosen), self.root)
            else:
                attempt = {"kills": kills.attempt, "faults": faults.attempt}[part]
                attempt(name, self.subjects[subject], self.straight(subject), self.root)
        except Violation as violation:
            return str(violation)
        return ""

    def left(self, part: str) -> Iterator[str]:
        """Names of trials that were not made, without end."""
        orders: dict[str, Callable[[], Iterator[str]]] = {
            "kills": lambda: kills.names(self.subjects),
            "faults": lambda: faults.names(self.subjects),
            "inputs": inputs.order,
        }
        return (name for name in orders[part]() if name not in self.done)

    def run(self, minutes: float, wanted: dict[str, int]) -> None:
        """Go on with whatever had the least of its time, until all is done or time is over."""
        left = {part: self.left(part) for part in wanted}
        end = time.monotonic() + 60 * minutes
        shown = time.monotonic()
        while time.monotonic() < end:
            parts = [part for part in wanted if self.tried(part) < wanted[part]]
            if not parts:
                break
            part = min(parts, key=lambda part: self.seconds[part] / SHARES[part])
            begun = time.monotonic()
            if part == "inputs":
                for name, found in inputs.attempts(list(islice(left[part], BATCH)), self.root):
                    self.record(name, found, time.monotonic() - begun)
                    begun = time.monotonic()
            else:
                name = next(left[part])
                self.record(name, self.one(name), time.monotonic() - begun)
            if time.monotonic() > shown + 30:
                shown = time.monotonic()
                say(", ".join(f"{self.tried(p):,} of {wanted[p]:,} {p}" for p in wanted))

    def report(self) -> str:
        """What was tried, as a table, and each violation with what repeats it."""
        rows = Counter("/".join(name.split("/")[:2]) for name in self.done)
        bad = Counter("/".join(n.split("/")[:2]) for n, found in self.done.items() if found)
        lines = ["| tried on | trials | survived | violations |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {name} | {rows[name]:,} | {rows[name] - bad[name]:,} | {bad[name]} |"
            for name in sorted(rows)
        ]
        lines += ["", *(f"- `--repeat {n}`: {f[:300]!r}" for n, f in self.done.items() if f)]
        return "\n".join(lines) + "\n"


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="time for all (default: 60)")
    parser.add_argument("--out", type=Path, default=Path("torture-results"), help="journal, report")
    parser.add_argument("--only", default="", help="subjects, with commas between")
    parser.add_argument("--parts", default="kills,faults,inputs", help="with commas between")
    parser.add_argument("--repeat", metavar="NAME", help="one trial, as a report names it")
    parser.add_argument("--soak", action="store_true", help="2,000 units and 200 days instead")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="memento-torture-") as folder:
        root = Path(folder).resolve()
        if asked.soak:
            return _soak(root)
        asked.out.mkdir(parents=True, exist_ok=True)
        campaign = Campaign(asked.out, root, frozenset(filter(None, asked.only.split(","))))
        trial.import_all()
        if asked.repeat:
            name = asked.repeat
            kind = name.partition("/")[0]
            found = (
                dict(inputs.attempts([name], root))[name]
                if kind == "inputs"
                else campaign.one(name)
            )
            say(found or "survived")
            return int(bool(found))
        campaign.run(asked.minutes, {part: FULL[part] for part in asked.parts.split(",")})
        report = campaign.report()
        (asked.out / "report.md").write_text(report)
        say(report)
        violations = sum(map(bool, campaign.done.values()))
        say(
            f"{len(campaign.done):,} tried, {len(campaign.done) - violations:,} survived, {violations} violations"
        )
        return int(violations > 0)


def _soak(root: Path) -> int:
    """Both parts; what grows is a violation."""
    say("| part | MB of memory | MB on disk | MB of past steps | files | descriptors | CPU s |")
    say("| --- | --- | --- | --- | --- | --- | --- |")
    violations = 0
    for what, facts in (
        ("loop", soak.loop(root / "loop")),
        ("deployment", soak.deployment(root / "d")),
    ):
        say(f"| {what} | | | | | | |")
        for line in soak.lines(facts):
            say(line)
        if grown := soak.grown(facts):
            violations += 1
            say(f"violation: {', '.join(grown)} of the {what} grow")
    say(f"2 tried, {2 - violations} survived, {violations} violations")
    return int(violations > 0)


if __name__ == "__main__":
    sys.exit(main())
