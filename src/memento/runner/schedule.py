"""Many experiments, in the order of their needs, each once.

`make` looks at everything before anything starts: groups, needs, the user's settings, cycles. `run`
hands jobs to an executor as their needs are done. A failure does not stop the rest; only what needs
the failed one is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

from memento.errors import SettingError
from memento.runner.executors import Executor
from memento.runner.job import GRACE, Job, Outcome
from memento.runner.registry import Registry
from memento.runner.results import State, Status, tidy
from memento.runner.settings import Overrides

__all__ = ["Event", "Plan", "Report", "make", "obstacles", "run"]

_LOOK = 1.0  # seconds between looks at what other processes run


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        jobs: By key, needs before what needs them.
        asked: Keys that the user selected; the others are needed by them.
        notes: Things to tell the user.
    """

    jobs: Mapping[str, Job]
    asked: tuple[str, ...]
    notes: tuple[str, ...] = ()


def make(
    registry: Registry,
    group: str,
    patterns: Sequence[str] = (),
    *,
    root: Path,
    overrides: Overrides | None = None,
    threads: int | None = None,
    forced_at: float | None = None,
    debug: bool = False,
) -> Plan:
    """Plan the experiments of a group that match, and all that they need.

    Args:
        registry: Where experiments are declared.
        group: Name of the group.
        patterns: UNIX globs on names; all if there is none.
        root: Folder of all results.
        overrides: The user's values.
        threads: For each experiment; as its resources say if left out.
        forced_at: Unix time; results of the selected experiments begun before do not count.
        debug: Whether logs hold messages of level DEBUG.

    Raises:
        SettingError: A group, pattern, need or setting names nothing, or needs go in a circle.
    """
    overrides = overrides or Overrides()
    overrides.check_groups(registry.groups)
    declared = {experiment.key: experiment for experiment in registry.group(group).values()}
    asked = [experiment.key for experiment in registry.select(group, patterns)]
    edges: dict[str, list[str]] = {}
    waiting = list(asked)
    while waiting:
        key = waiting.pop()
        if key in edges:
            continue
        edges[key] = registry.needs(declared[key])
        for need in edges[key]:
            if need not in declared:
                other = registry.group(need.partition("/")[0])
                declared |= {experiment.key: experiment for experiment in other.values()}
        waiting += edges[key]
    wanted = overrides.apply(declared)
    jobs: dict[str, Job] = {}
    for key in _in_order(edges, asked):
        experiment = wanted[key]
        needs = {need: jobs[need].digest for need in edges[key]}
        jobs[key] = Job(
            experiment,
            experiment.digest(needs),
            root.absolute(),
            needs,
            threads or experiment.resources.threads,
            forced_at if key in asked else None,
            debug,
        )
    notes = (*registry.notes, *overrides.unreached(wanted, jobs))
    return Plan(jobs, tuple(asked), notes)


def obstacles(plan: Plan) -> dict[str, str]:
    """Why experiments that are asked for and not done cannot be run as things stand, by key.

    What they need has failed, or a file is not there. A failed one is run again all the same.
    """
    known: dict[str, tuple[Status, str]] = {}
    for key, job in plan.jobs.items():  # needs come first
        status, why = job.status(), ""
        if not job.settled(status) and status.state in ("missing", "stale"):
            for need in job.needs:
                before, reason = known[need]
                if before.state == "failed" or reason:
                    why = f"needs {need}, which {reason or 'failed'}"
                    break
            why = why or job.experiment.absent()
        known[key] = (status, why)
    return {key: known[key][1] for key in plan.asked if known[key][1]}


def _in_order(edges: Mapping[str, Sequence[str]], asked: Sequence[str]) -> list[str]:
    """Needs first; otherwise the order in which experiments are declared."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise SettingError(f"needs go in a circle: {circle}; remove one of them") from None
    order: dict[str, None] = {}
    stack = [(key, False) for key in reversed(asked)]
    while stack:
        key, ready = stack.pop()
        if ready:
            order[key] = None
        elif key not in order:
            stack.append((key, True))
            stack += [(need, False) for need in reversed(edges[key])]
    return list(order)


@dataclass(frozen=True)
class Report:
    """How one experiment of a plan ended.

    Attributes:
        state: As a `Status` has it.
        error: Why it is not done.
        ran: Whether this call ran it.
        status: All that is on disk.
    """

    state: State
    error: str = ""
    ran: bool = False
    status: Status = field(default_factory=lambda: Status("missing"))


@dataclass(frozen=True)
class Event:
    """What happened, for whoever shows progress.

    Attributes:
        kind: ``"started"``, ``"ended"``, ``"elsewhere"`` (another process runs it: we wait for it)
            or ``"tick"`` (nothing, for a while; without a key).
        key: Of the experiment.
        where: On what it was started.
        report: Of what has ended.
    """

    kind: Literal["started", "ended", "elsewhere", "tick"]
    key: str = ""
    where: str = ""
    report: Report | None = None


def run(
    plan: Plan,
    executor: Executor,
    on_event: Callable[[Event], object] = lambda event: None,
    *,
    grace: float = GRACE,
) -> dict[str, Report]:
    """Run a plan to its end.

    Args:
        plan: What `make` returned.
        executor: Where jobs run; entered already.
        on_event: Called for everything that happens, in this thread.
        grace: Seconds that running jobs have to end after an interrupt.

    Returns:
        A report for every job of the plan.

    Raises:
        KeyboardInterrupt: After all that ran was stopped; the same plan goes on from there.
    """
    return _Course(plan, executor, on_event).run(grace)


class _Course:
    """A plan on its way: every job waits, runs here, runs elsewhere, or has a report."""

    def __init__(self, plan: Plan, executor: Executor, on_event: Callable[[Event], object]) -> None:
        self._jobs = plan.jobs
        self._executor = executor
        self._tell = on_event
        self._waiting = dict.fromkeys(plan.jobs)
        self._seen: set[str] = set()
        self._running: set[str] = set()
        self._elsewhere: dict[str, int] = {}  # key -> attempts known before
        self._reports: dict[str, Report] = {}
        self._looked = 0.0

    def run(self, grace: float) -> dict[str, Report]:
        """Run all jobs, in the order of their needs; what became of each."""
        try:
            while len(self._reports) < len(self._jobs):
                moved = self._start_ready()
                busy = bool(self._running)
                finished = self._executor.poll(0.0 if moved else 0.2) if busy else []
                for key, outcome in finished:
                    self._finish(key, outcome)
                self._look_elsewhere()
                if not moved and not finished:
                    self._tell(Event("tick"))
                    if not busy:
                        time.sleep(0.2)
        except BaseException:
            self._executor.stop(grace)
            raise
        return {key: self._reports[key] for key in self._jobs}

    def _start_ready(self) -> bool:
        """Start jobs whose needs are done; whether anything moved."""
        moved = False
        for key in list(self._waiting):
            job = self._jobs[key]
            needs = [self._reports.get(need) for need in job.needs]
            if any(need is None for need in needs):
                continue
            if key in self._seen and self._executor.free() < 1:
                continue  # it was looked at, and nothing has changed
            self._seen.add(key)
            failed = [n for n, r in zip(job.needs, needs, strict=True) if r and r.state != "done"]
            status = job.status()
            if not failed and job.settled(status):
                tidy(job.place)
                self._end(key, Report("done", status=status))
            elif failed:
                self._end(key, Report("missing", f"needs {failed[0]}, which is not done", False))
            elif absent := job.experiment.absent():
                self._end(key, Report("missing", absent, False))
            elif status.state == "running":
                self._wait_elsewhere(key, status.attempt - 1)
            elif self._executor.free() > 0:
                del self._waiting[key]
                self._running.add(key)
                where = self._executor.submit(job)
                self._tell(Event("started", key, where))
            else:
                continue
            moved = True
        return moved

    def _finish(self, key: str, outcome: Outcome) -> None:
        """Take note of a job that has ended."""
        self._running.discard(key)
        status = self._jobs[key].status()
        if outcome.state == "elsewhere":
            # It may have ended since: then the next look says so.
            before = status.attempt - 1 if status.state == "running" else status.attempt
            self._wait_elsewhere(key, before)
        elif outcome.state == "done" and status.state == "done":
            self._end(key, Report("done", ran=outcome.ran, status=status))
        elif outcome.state == "done":
            self._end(key, Report(status.state, f"ended, but is {status.reason}", True, status))
        elif outcome.state == "interrupted":
            self._end(key, Report("missing", outcome.error or "interrupted", True, status))
        else:
            self._end(key, Report("failed", outcome.error or status.reason, True, status))

    def _wait_elsewhere(self, key: str, before: int) -> None:
        self._waiting.pop(key, None)
        self._elsewhere[key] = before
        self._tell(Event("elsewhere", key, self._jobs[key].status().where))

    def _look_elsewhere(self) -> None:
        """Look at jobs that other commands run: those left by them are ours."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        for key, before in list(self._elsewhere.items()):
            status = self._jobs[key].status()
            if status.state == "running":
                continue
            del self._elsewhere[key]
            if self._jobs[key].settled(status):
                self._end(key, Report("done", status=status))
            elif status.state == "failed" and status.attempt > before:
                self._end(key, Report("failed", status.reason, False, status))
            else:  # whoever ran it was stopped: it is ours now
                self._waiting[key] = None

    def _end(self, key: str, report: Report) -> None:
        self._waiting.pop(key, None)
        self._reports[key] = report
        self._tell(Event("ended", key, report.status.where, report))
