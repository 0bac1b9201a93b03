"""Many runs of one study through the runner: in this process or in several, in its one layout.

What is done is not done again, what was stopped goes on from its checkpoint, and what was made in
another way is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memento import arguments, errors
from memento.errors import DamagedError, ForeignError, MementoError
from memento.files import readable_json

if TYPE_CHECKING:
    from memento.runner.executors import Executor
    from memento.runner.job import Job
    from memento.runner.schedule import Event
    from memento.runner.spec import Experiment

__all__ = ["Progress", "difference", "finished", "read_results", "run_all"]

#: Called with how much is done, of how much, and what was last.
Progress = Callable[[int, int, str], object]


@arguments.checked
def run_all(
    experiments: Sequence[Experiment],
    root: Path,
    *,
    workers: int = 1,
    places: Collection[str] = (),
    lengths: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Run experiments that do not need each other, unless they are done.

    Args:
        experiments: In the order in which they are to begin.
        root: Folder of all results, in the runner's layout.
        workers: Processes at a time. 1: in this process, where output and errors of a body are left
            alone; results do not depend on it.
        places: Parameters that only say where something is: they may differ between calls.
        lengths: Steps of each experiment, by key, for the progress of those that report it; 1 if
            left out.
        progress: Called in the beginning and when more is done.

    Returns:
        The folder of results of each, by key.

    Raises:
        SettingError: No worker.
        ForeignError: Results that are there were made with other parameters; the message names one.
        DamagedError: They are damaged.
        MementoError: An experiment failed in another process; of the class that it raised there, if
            that is one of ours.

    Example:
        >>> run_all([], Path("results"))
        {}
    """
    from memento.runner import schedule
    from memento.runner.job import Job
    from memento.runner.spec import Experiment

    arguments.require("workers", workers, arguments.whole())
    expected = arguments.instance(Experiment, "an Experiment")
    arguments.require("experiments", experiments, arguments.ITERABLE)
    root = Path(root).absolute()
    jobs = {}
    for experiment in experiments:
        arguments.require("one of experiments", experiment, expected)
        identity = experiment.with_parameters(dict.fromkeys(places, ""))
        jobs[experiment.key] = Job(experiment, identity.digest(), root)
    pending = [key for key, job in jobs.items() if not _is_done(job, places)]
    steps = {key: (lengths or {}).get(key, 1) for key in jobs}
    done = {key: 0 if key in pending else steps[key] for key in jobs}

    def at(key: str, reached: float, total: float, note: str = "") -> None:
        count = int(steps[key] * reached / total) if total > 0 else 0
        if done[key] < count:
            done[key] = count
            if progress is not None:
                progress(sum(done.values()), sum(steps.values()), key)

    def on_event(event: Event) -> None:
        report = event.report
        if report is None:
            for key in pending if event.kind == "tick" and progress is not None else ():
                reported = jobs[key].status().progress if done[key] < steps[key] else None
                if reported is not None:
                    at(key, *reported)
        elif report.state != "done":
            raise _failure(jobs[event.key], report.error)
        else:
            at(event.key, 1, 1)

    if progress is not None:
        last = "already there" if any(done.values()) else ""
        progress(sum(done.values()), sum(steps.values()), last)
    if pending:
        with _executor(min(workers, len(pending)), at) as executor:
            plan = schedule.Plan({key: jobs[key] for key in pending}, tuple(pending))
            schedule.run(plan, executor, on_event)
    found = {key: job.status().output for key, job in jobs.items()}
    return {key: output for key, output in found.items() if output is not None}


@contextlib.contextmanager
def _executor(workers: int, on_report: Callable[..., object]) -> Iterator[Executor]:
    from memento.runner.executors.pool import PoolExecutor
    from memento.runner.executors.process import ProcessExecutor

    executor: Executor = (
        PoolExecutor(workers)
        if workers > 1
        else ProcessExecutor(captured=False, on_report=on_report)
    )
    with executor:
        yield executor


def _is_done(job: Job, places: Collection[str]) -> bool:
    """Whether there is nothing left to do; raises where results are of something else."""
    from memento.runner import results

    job.place.check_ours()
    result = readable_json(job.place.result)
    asked = readable_json(job.place.experiment)
    if result is None or asked is None:
        return False
    if result.get("digest") != job.digest:
        there, wanted = asked.get("parameters", {}), job.experiment.document()["parameters"]
        for name in places:
            there[name] = wanted[name] = ""
        name, found, value = difference(there, wanted) or ("version", "another", "this")
        raise ForeignError(
            f"{job.place.folder}: made with {name} = {found!r}, now asked for with {value!r}; "
            "give another folder, or remove the results that are there"
        )
    if not job.settled(job.status()):
        return False
    try:
        results.check(job.place)
    except DamagedError as error:
        raise DamagedError(
            f"{job.place.folder}: its files differ from what was written; remove the folder, and "
            "they are computed again"
        ) from error
    return True


@arguments.checked
def difference(
    found: Mapping[str, Any], wanted: Mapping[str, Any], within: str = ""
) -> tuple[str, Any, Any] | None:
    """The first entry that two descriptions do not share.

    Args:
        found: What is there.
        wanted: What is asked for; entries that it lacks are not compared. Tables in it are compared
            as wholes; what one of them lacks is None.
        within: What the name of the entry begins with.

    Returns:
        Its name, as in ``"network.queue"``; the value found (None if there is none) and the one
        wanted. None if all agree.

    Example:
        >>> difference({"network": {"end": 6.0, "queue": 9}}, {"network": {"end": 6.0, "queue": 5}})
        ('network.queue', 9, 5)
    """
    for name, value in wanted.items():
        there = found.get(name)
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            inner = {**dict.fromkeys(there), **value}
            differs = difference(there, inner, f"{within}{name}.")
            if differs is not None:
                return differs
        elif there != value:
            return within + name, there, value
    return None


def _failure(job: Job, error: str) -> MementoError:
    """What a body raised in another process."""
    kind, _, text = error.partition(": ")
    found = getattr(errors, kind, None)
    where = f"this was about {job.key}, its log is {job.place.log}"
    ours = isinstance(found, type) and issubclass(found, MementoError)
    if found is not None and ours and "__init__" not in vars(found):  # it takes a text
        made: MementoError = found(f"{text}; {where}")
        return made
    return MementoError(f"{error}; {where}")


@arguments.checked
def read_results(folder: Path, name: str, text: Collection[str] = ()) -> dict[str, np.ndarray]:
    """A table that a run wrote.

    Args:
        folder: One of those that `run_all` returned.
        name: Of the table.
        text: Columns that are strings whatever they look like.
    """
    from memento.runner.results import read_table

    return read_table(Path(folder) / name, text)


@arguments.checked
def finished(root: Path, group: str) -> dict[str, tuple[dict[str, Any], Path]]:
    """Parameters and folders of the results that there are of a group, by name of experiment.

    Args:
        root: Folder of all results.
        group: Of the experiments.
    """
    from memento.runner import results

    root, found = Path(root), {}
    for path in sorted((root / group).glob("*/result.json")):
        place = results.Place(root, group, path.parent.name)
        asked, result = readable_json(place.experiment), readable_json(path)
        if asked is not None and result is not None:
            found[place.name] = asked["parameters"], place.output(int(result["attempt"]))
    return found
