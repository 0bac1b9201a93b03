"""`memento run`: experiments of a group, each done once, wherever there is room."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import progress

from memento.cli import completion, packages, ui
from memento.cli.options import AsJson
from memento.errors import SettingError

if TYPE_CHECKING:
    from memento.runner.executors import Executor
    from memento.runner.registry import Registry
    from memento.runner.results import Status
    from memento.runner.schedule import Event, Plan, Report
    from memento.runner.settings import RunSettings

__all__ = ["run"]

FAILED = 1


@dataclass(frozen=True)
class PlaceOptions:
    """Where experiments run, and how many at a time.

    Attributes:
        jobs (--jobs, -j): Experiments at a time; 0: one, in this process.
        slurm: Run on the Slurm cluster.
        scheduler: Run on the Dask scheduler at tcp://HOST:PORT, or "local".
    """

    jobs: int | None = None
    slurm: bool = False
    scheduler: str | None = None


def run(
    place: PlaceOptions,
    group: Annotated[str | None, typer.Argument(autocompletion=completion.groups)] = None,
    patterns: Annotated[list[str] | None, typer.Argument()] = None,
    listing: bool = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True)] = 0,
    workers: int | None = None,
    config: Path | None = None,
    experiments: list[Path] | None = None,
    results: Path | None = None,
    force: bool = False,
    dry_run: bool = False,
    as_json: AsJson = False,
) -> None:
    """Run the experiments of a group that are not done yet, and what they need.

    Failures keep their log and do not stop the rest. After Ctrl-C the same command goes on. Exit
    codes: 0 all done, 1 some failed, 2 wrong use, 130 and 143 stopped by Ctrl-C and SIGTERM. What
    is optional and lacks its file fails nothing, unless a pattern asks for it.

    Args:
        group: Group of experiments; -l lists them.
        patterns ([PATTERN]...): UNIX globs on names, as in "sim-1+*".
        listing (--list, -l): List with states, and run nothing.
        verbose: Show logs; -vv: in detail.
        workers (--workers, -w): Threads each. Default: as declared.
        config: Settings, a TOML file.
        experiments: A Python file that declares experiments.
        results: Folder of all results. Default: results.
        force: Also what is done (but not what it needs).
        dry_run: Say what would run, where and why.

    Example:
        memento run -l
        memento run puffer-replay 'table-*' -j 2
        memento run mine --experiments page.py --dry-run
    """
    from memento.runner import registry, schedule
    from memento.runner.settings import RunSettings, from_toml

    given = from_toml(config) if config else RunSettings()
    place = replace(place, jobs=given.jobs if place.jobs is None else place.jobs)
    workers = given.threads if workers is None else workers
    _check_options(place, workers)
    known = registry.Registry([*given.experiments, *(experiments or [])])
    if group is None:
        _list_groups(known, listing, as_json)
        return
    plan = schedule.make(
        known,
        group,
        patterns or [],
        root=results or given.results,
        overrides=given.overrides,
        threads=workers,
        forced_at=time.time() if force else None,
        debug=verbose > 1,
    )
    for note in plan.notes:
        ui.say(f"memento: {note}", err=True)
    if listing:
        _list(plan, as_json)
        return
    with ui.stoppable():
        if dry_run:
            _dry_run(plan, given, place, as_json)
            return
        pending = [job for job in plan.jobs.values() if not job.settled(job.status())]
        for name in dict.fromkeys(job.experiment.group for job in pending):
            packages.require_group(name, known.packages(name))
        with (
            _Screen(plan, verbose) as screen,
            _executor(plan, given, place, verbose) as executor,
        ):
            reports = schedule.run(plan, executor, screen.show)
    _conclude(plan, reports, as_json, all_asked=not patterns)


def _check_options(place: PlaceOptions, workers: int | None) -> None:
    if place.jobs is not None and place.jobs < 0:
        raise SettingError(f"-j is {place.jobs}; expected 0 (in this process) or more")
    if workers is not None and workers < 1:
        raise SettingError(f"-w is {workers}; expected 1 or more threads")
    if place.slurm and place.scheduler:
        raise SettingError("--slurm and --scheduler are two places; give one of them")
    if place.jobs == 0 and (place.slurm or place.scheduler):
        raise SettingError("-j 0 is this process; leave --slurm and --scheduler out, or give -j 1")


def _executor(plan: Plan, given: RunSettings, place: PlaceOptions, verbose: int = 0) -> Executor:
    """Where to run, by what was asked for; started only when entered."""
    from memento.runner.executors.dask import DaskExecutor
    from memento.runner.executors.pool import PoolExecutor
    from memento.runner.executors.process import ProcessExecutor
    from memento.runner.executors.slurm import SbatchExecutor, SlurmExecutor, largest

    count = sum(not job.settled(job.status()) for job in plan.jobs.values())
    if not count:
        return ProcessExecutor()
    everything = list(plan.jobs.values())
    if place.slurm:
        most = place.jobs or given.slurm.jobs
        if given.slurm.submit == "sbatch":
            return SbatchExecutor(given.slurm, min(count, most or 200))
        root = everything[0].root
        return SlurmExecutor(given.slurm, largest(everything), root, min(count, most or 10))
    address = place.scheduler if place.scheduler is not None else given.scheduler
    if place.jobs == 0:
        return ProcessExecutor(echo=verbose > 0)
    if address:
        return DaskExecutor(address, place.jobs, largest(everything).threads)
    return PoolExecutor(place.jobs or 1)


# --- progress --------------------------------------------------------------------------------


class _Screen(ui.Progress):
    """What runs where, on standard error: live on a terminal, line by line elsewhere."""

    def __init__(self, plan: Plan, verbose: int) -> None:
        super().__init__(
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[where]}", style="dim", markup=False),
            stages=False,  # `show` says them
        )
        self._plan = plan
        self._verbose = verbose
        self._total = self.add_task("experiments", total=len(plan.jobs), where="")
        self._running: dict[str, progress.TaskID] = {}
        self._read: dict[str, tuple[int, int]] = {}  # attempt, and bytes of its log shown
        self._looked = 0.0

    def show(self, event: Event) -> None:
        if event.kind == "started":
            self._running[event.key] = self.add_task(
                event.key, total=None, where=f"queued: {event.where}"
            )
            self.say(f"start   {event.key}  ({event.where})")
        elif event.kind == "elsewhere":
            self.say(f"wait    {event.key}: runs already ({event.where})")
        elif event.kind == "ended" and event.report is not None:
            self._end(event.key, event.report)
        elif time.monotonic() - self._looked > 0.5:
            self._looked = time.monotonic()
            for key in self._running:
                self._look(key)

    def _look(self, key: str) -> None:
        status = self._plan.jobs[key].status()
        if status.state == "running":
            done, total, note = status.progress or (0, None, "")
            where = ui.visible(f"{status.where}  {note}")
            self.update(self._running[key], completed=done, total=total, where=where)
            self._tail(key, status)

    def _end(self, key: str, report: Report) -> None:
        if key in self._running:
            self._tail(key, report.status)
            self.remove_task(self._running.pop(key))
        self.advance(self._total)
        if report.state == "done" and report.ran:
            self.say(f"done    {key}  ({report.status.seconds:.1f} s)")
        elif report.state == "failed":
            self.say(f"failed  {key}: {report.error}; see {self._plan.jobs[key].place.log}")
        elif report.state != "done":
            self.say(f"not run {key}: {report.error}")

    def _tail(self, key: str, status: Status) -> None:
        """Show what is new in a log."""
        if not self._verbose:
            return
        attempt, start = self._read.get(key, (status.attempt, 0))
        start = start if attempt == status.attempt else 0
        try:
            with self._plan.jobs[key].place.log.open("rb") as log:
                log.seek(start)
                text = log.read()
        except OSError:
            return
        complete = text.rfind(b"\n") + 1
        self._read[key] = (status.attempt, start + complete)
        for line in text[:complete].decode(errors="replace").splitlines():
            self.say(f"{key}: {line}")


# --- lists -----------------------------------------------------------------------------------


def _list_groups(known: Registry, listing: bool, as_json: bool) -> None:
    if not listing:
        raise SettingError(
            f"say which group to run: {', '.join(known.groups)}; memento run -l counts them"
        )
    counts = {name: len(known.select(name)) for name in known.groups}
    on_demand = {name: len(known.group(name)) - count for name, count in counts.items()}
    if as_json:
        ui.print_json({"groups": counts, "on_demand": on_demand})
        return
    ui.print_table(
        ["group", "experiments", "more by a pattern"],
        [[name, str(count), f"{on_demand[name]:,}" or ""] for name, count in counts.items()],
    )


def _list(plan: Plan, as_json: bool) -> None:
    """Say where each experiment stands, and why."""
    from memento.runner.schedule import obstacles

    rows = {key: plan.jobs[key].status() for key in plan.asked}
    reasons = {
        key: "; ".join(part for part in (rows[key].reason, why) if part)
        for key, why in obstacles(plan).items()
    }
    if as_json:
        ui.print_json(_document(plan, rows, reasons))
        return
    ui.print_table(
        ["experiment", "state", "time", "where and why"],
        [
            [key, status.state, _seconds(status), reasons.get(key) or _remark(status)]
            for key, status in rows.items()
        ],
    )
    ui.say(_counted([status.state for status in rows.values()]))


def _dry_run(plan: Plan, given: RunSettings, place: PlaceOptions, as_json: bool) -> None:
    """Say what would run, where, and why."""
    executor = _executor(plan, given, place)
    rows, would = [], {}
    for key, job in plan.jobs.items():
        status = job.status()
        if job.settled(status):
            continue
        why = [status.state + (f" ({status.reason})" if status.reason else "")]
        if job.outdated(status):
            why = ["--force"]
        if key not in plan.asked:
            users = [other for other, user in plan.jobs.items() if key in user.needs]
            why.append(f"needed by {users[0]}")
        why += [absent] if (absent := job.experiment.absent()) else []
        would[key] = {"where": executor.describe(job), "why": "; ".join(why)}
        rows.append([key, would[key]["where"], would[key]["why"]])
    if as_json:
        ui.print_json({"would_run": would, "of": len(plan.jobs)})
        return
    if rows:
        ui.print_table(["experiment", "would run on", "because"], rows)
    ui.say(f"{len(rows)} of {len(plan.jobs)} experiments would run")


def _conclude(plan: Plan, reports: Mapping[str, Report], as_json: bool, *, all_asked: bool) -> None:
    """Say what came of a run, and exit with 1 if an experiment is not done."""
    if as_json:
        rows = {key: report.status for key, report in reports.items()}
        errors = {key: report.error for key, report in reports.items() if report.state != "done"}
        document = _document(plan, rows, errors)
        for row in document["experiments"]:
            row["state"] = reports[f"{row['group']}/{row['name']}"].state
            row["ran"] = reports[f"{row['group']}/{row['name']}"].ran
        document["counts"] = _counts([report.state for report in reports.values()])
        ui.print_json(document)
    else:
        ran = sum(report.ran for report in reports.values())
        states = [report.state for report in reports.values()]
        ui.say(f"{_counted(states)}; {ran} run now")
    for key, report in reports.items():
        asked = plan.jobs[key].experiment
        left_out = all_asked and asked.optional and report.state == "missing" and asked.absent()
        if report.state != "done" and not left_out:
            raise typer.Exit(FAILED)


def _document(plan: Plan, rows: Mapping[str, Status], errors: Mapping[str, str]) -> dict[str, Any]:
    """Where experiments stand, as a JSON object."""
    experiments = []
    for key, status in rows.items():
        job = plan.jobs[key]
        known = status.seconds == status.seconds  # not NaN, which JSON lacks
        experiments.append(
            {
                "group": job.experiment.group,
                "name": job.experiment.name,
                "state": status.state,
                "reason": errors.get(key, status.reason),
                "seconds": status.seconds if known else None,
                "where": status.where,
                "attempt": status.attempt,
                "folder": str(job.place.folder),
                "output": str(status.output) if status.output else None,
                "log": str(job.place.log) if job.place.log.exists() else None,
                "parameters": job.experiment.document()["parameters"],
            }
        )
    counts = _counts([status.state for status in rows.values()])
    return {"experiments": experiments, "counts": counts}


def _counts(states: Sequence[str]) -> dict[str, int]:
    from memento.runner.results import STATES

    return {state: sum(known == state for known in states) for state in STATES}


def _counted(states: Sequence[str]) -> str:
    counts = _counts(states)
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    return ", ".join(parts) or "no experiments"


def _seconds(status: Status) -> str:
    return f"{status.seconds:.1f} s" if status.seconds == status.seconds else ""


def _remark(status: Status) -> str:
    parts = [status.reason]
    if status.state == "running":
        done, total, note = status.progress or (0, 0, "")
        parts = [status.where, f"{done:g} of {total:g} {note}".strip() if total else ""]
    return "; ".join(part for part in parts if part)
