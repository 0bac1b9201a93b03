"""On a Slurm cluster whose nodes share the folder of results.

Two ways, by the user's settings. Through dask-jobqueue, batch jobs are Dask workers that take one
experiment after the other: few jobs for many short experiments. Or by ``sbatch``, one batch job an
experiment, with its own resources, which goes on when we are gone and is found again by the next
call. States are read from ``squeue``, since clusters without accounting have no ``sacct``.
"""

# ruff: noqa: D102 (the base class documents what is overridden)
from __future__ import annotations

import contextlib
import getpass
import json
import logging
import math
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento.errors import SettingError, needs
from memento.files import atomic_write, readable_json, storage_errors
from memento.runner.executors import Executor
from memento.runner.executors.dask import DaskExecutor
from memento.runner.job import Job, Outcome, thread_environment
from memento.runner.results import mark_failed, write_json
from memento.runner.settings import SlurmSettings
from memento.runner.spec import Resources

__all__ = ["SbatchExecutor", "SlurmExecutor", "largest", "script"]

_LOGGER = logging.getLogger(__name__)
_WARNING = 60  # seconds before the time limit at which Slurm asks a job to stop
_VISIBLE = 30.0  # seconds that a shared file system may take to show what a node wrote
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_ACTIVE = (*_WAITING, "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING",
           "STAGE_OUT", "REVOKED")  # fmt: skip


def largest(jobs: Sequence[Job]) -> Resources:
    """Resources with room for any of the jobs.

    Example:
        >>> largest([]).threads
        1
    """
    found = [job.experiment.resources for job in jobs] or [Resources()]
    return Resources(
        max([job.threads for job in jobs], default=1),
        max(one.memory_GB for one in found),
        max(one.hours for one in found),
    )


class SlurmExecutor(DaskExecutor):
    """Runs jobs on Dask workers that are Slurm jobs, through dask-jobqueue.

    Args:
        settings: The user's.
        resources: Of each worker: enough for any experiment. Its hours are the worker's: what does
            not fit any more goes on, from its checkpoint, on another worker.
        root: Folder of all results; the workers' own output goes to ``.slurm`` in it.
        jobs: Workers.

    Raises:
        MissingExtraError: dask-jobqueue is not installed.
        SettingError: This machine has no ``sbatch``.
    """

    name = "Slurm through Dask"

    def __init__(
        self, settings: SlurmSettings, resources: Resources, root: Path, jobs: int = 1
    ) -> None:
        super().__init__("local", jobs, resources.threads)
        handler = signal.getsignal(signal.SIGINT)
        with needs("dask_jobqueue", "dask", "running on Slurm"):
            import dask_jobqueue

            # Its import installs a handler that exits at once; Ctrl-C has to reach the schedule.
            with contextlib.suppress(ValueError):  # not in the main thread: it did not either
                signal.signal(signal.SIGINT, handler)
        self._jobqueue: Any = dask_jobqueue
        self._settings = settings
        self._resources = resources
        self._folder = root.absolute() / ".slurm"

    def script(self) -> str:
        """The batch script of a worker, for a look before anything is submitted."""
        with self._build() as cluster:
            return str(cluster.job_script())

    def _start(self) -> Any:
        _find("sbatch")
        cluster = self._build()
        cluster.scale(jobs=self._jobs)
        return cluster

    def _build(self) -> Any:
        """A cluster of Dask whose workers are jobs of Slurm."""
        settings, resources = self._settings, self._resources
        with storage_errors("make the folder", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        directives = [f"--{name}={value}" for name, value in _asked(settings)]
        return self._jobqueue.SLURMCluster(
            cores=resources.threads,
            processes=1,
            memory=f"{_megabytes(resources)} MiB",
            walltime=_clock(resources),
            job_name="memento",
            python=settings.python or sys.executable,
            interface=settings.interface or None,
            shebang="#!/bin/bash",
            log_directory=str(self._folder),
            local_directory=str(self._folder),
            job_extra_directives=[*directives, *settings.directives],
            job_script_prologue=list(settings.prologue),
            worker_extra_args=["--resources", f"threads={resources.threads}", "--no-dashboard"],
            # No dashboard, and its server where nobody looks and on any free port.
            scheduler_options={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            death_timeout=120,
        )

    def describe(self, job: Job) -> str:
        return f"{self.name}, {self._jobs} worker(s) of {_described(self._resources)}"


class SbatchExecutor(Executor):
    """Runs each job as a Slurm job of its own.

    Args:
        settings: The user's.
        jobs: Most jobs in the queue at a time.
        interval: Seconds between looks at the queue.

    Raises:
        SettingError: This machine has no ``sbatch`` or ``squeue``.
    """

    name = "Slurm"

    def __init__(self, settings: SlurmSettings, jobs: int = 200, interval: float = 2.0) -> None:
        if jobs < 1:
            raise SettingError(f"{jobs} jobs at a time; expected 1 or more")
        for command in ("sbatch", "squeue", "scancel"):
            _find(command)
        self._settings = settings
        self._jobs = jobs
        self._interval = interval
        self._submitted: dict[str, _Submitted] = {}
        self._ended: list[tuple[str, Outcome]] = []
        self._looked = -math.inf

    def __exit__(self, *exception: object) -> None:
        self.stop(0.0)

    def free(self) -> int:
        return self._jobs - len(self._submitted)

    def submit(self, job: Job) -> str:
        if (number := self._found_again(job)) is None:
            try:
                number = self._submit(job)
            except subprocess.CalledProcessError as error:
                said = (error.stderr or error.stdout or "").strip().splitlines() or [str(error)]
                self._ended.append((job.key, Outcome("failed", f"sbatch refused: {said[-1]}")))
                return self.name
        self._submitted[job.key] = _Submitted(job, number)
        return f"{self.name}, job {number}"

    def _submit(self, job: Job) -> int:
        """Submit an experiment as a job; its number."""
        place = job.place
        place.check_ours()
        with storage_errors("submit a job", place.folder):
            place.folder.mkdir(parents=True, exist_ok=True)
            document = {**job.document(), "where": self.name}
            atomic_write(place.folder / "batch-job.json", json.dumps(document).encode())
            atomic_write(place.folder / "batch.sh", script(job, self._settings).encode())
        # Paths stand behind options, not in the script, where Slurm has quoting rules of its own.
        output = str(place.folder / "slurm").replace("%", "%%") + "-%j.txt"
        command = ["sbatch", "--parsable", f"--output={output}", f"--chdir={place.folder}"]
        said = _call([*command, str(place.folder / "batch.sh")])
        number = int(said.strip().split(";")[0])  # "number;cluster" where there are several
        write_json(place.batch, {"job": number, "digest": job.digest, "submitted": time.time()})
        return number

    def _found_again(self, job: Job) -> int | None:
        """The Slurm job that an earlier call, since gone, submitted for the same."""
        known = readable_json(job.place.batch)
        if known is None or known.get("digest") != job.digest:
            return None
        if job.forced_at is not None and known["submitted"] < job.forced_at:
            return None
        state = (self._states() or {}).get(int(known["job"]), "")
        return int(known["job"]) if state in _ACTIVE else None

    def poll(self, timeout: float) -> list[tuple[str, Outcome]]:
        end = time.monotonic() + timeout
        while not self._ended:
            if self._submitted and time.monotonic() - self._looked >= self._interval:
                self._look()
            if self._ended or time.monotonic() >= end:
                break
            time.sleep(0.1)
        found, self._ended = self._ended, []
        return found

    def _look(self) -> None:
        """Ask Slurm for the states of jobs, and note which have ended."""
        states = self._states()
        self._looked = time.monotonic()
        if states is None:
            return
        for key, submitted in list(self._submitted.items()):
            state = states.get(submitted.number, "GONE")
            if state in _ACTIVE:
                submitted.ended = None
                continue
            if submitted.ended is None:
                submitted.ended = time.monotonic()
            outcome = _outcome(submitted, state)
            if outcome is not None:
                del self._submitted[key]
                self._ended.append((key, outcome))

    def _states(self) -> dict[int, str] | None:
        """States of all jobs of this user, also of those that ended a while ago."""
        try:
            said = _call(["squeue", "-h", "-t", "all", "-u", getpass.getuser(), "-o", "%i %T"])
        except subprocess.CalledProcessError as error:
            # A controller that restarts is no reason to give up jobs that run.
            _LOGGER.warning("squeue: %s", (error.stderr or "").strip() or error)
            return None
        pairs = [line.split() for line in said.splitlines()]
        return {int(pair[0]): pair[1] for pair in pairs if len(pair) == 2 and pair[0].isdigit()}

    def stop(self, grace: float) -> None:
        if not self._submitted:
            return
        numbers = [str(submitted.number) for submitted in self._submitted.values()]
        jobs = [submitted.job for submitted in self._submitted.values()]
        self._submitted.clear()
        # To the shell of the batch script, which has become the job. Pending ones just go.
        subprocess.run(["scancel", "--batch", "--signal=INT", *numbers], capture_output=True)
        subprocess.run(["scancel", "--state=PENDING", *numbers], capture_output=True)
        end = time.monotonic() + grace
        while time.monotonic() < end and any(job.status().state == "running" for job in jobs):
            time.sleep(0.1)
        subprocess.run(["scancel", *numbers], capture_output=True)

    def describe(self, job: Job) -> str:
        asked = Resources(
            job.threads, job.experiment.resources.memory_GB, job.experiment.resources.hours
        )
        return f"{self.name}, {_described(asked)}"


@dataclass
class _Submitted:
    job: Job
    number: int
    ended: float | None = None


def _outcome(submitted: _Submitted, state: str) -> Outcome | None:
    """How a Slurm job that is not active any more ended; None to look again a little later."""
    job, place = submitted.job, submitted.job.place
    found = job.status()
    ours = f"job {submitted.number}," in found.where
    if job.settled(found):
        return Outcome("done")
    if found.state == "failed" and ours:
        return Outcome("failed", found.reason)
    if found.state == "running" and not ours:
        return Outcome("elsewhere")
    waited = time.monotonic() - (submitted.ended or time.monotonic())
    if state in ("COMPLETED", "FAILED", "GONE") and waited < (_VISIBLE if state != "FAILED" else 5):
        return None
    why = f"Slurm job {submitted.number}: {state}"
    if state == "TIMEOUT":
        why += f" after {job.experiment.resources.hours:g} h; give it more `hours`"
    elif state == "OUT_OF_MEMORY":
        why += f" with {job.experiment.resources.memory_GB:g} GB; give it more `memory_GB`"
    elif state == "GONE":
        why = f"Slurm does not know job {submitted.number} any more, and it left no result"
    else:
        why += f"; see {place.folder / f'slurm-{submitted.number}.txt'}"
    attempt = readable_json(place.state) or {}
    if attempt.get("state") == "running" and ours:
        mark_failed(place, (attempt["host"], attempt["pid"]), why)
    return Outcome("failed", why)


def script(job: Job, settings: SlurmSettings) -> str:
    """The batch script of one job.

    Args:
        job: What to run; the script reads it from ``batch-job.json`` in its folder.
        settings: The user's.
    """
    resources = Resources(
        job.threads, job.experiment.resources.memory_GB, job.experiment.resources.hours
    )
    directives = [
        f"--job-name=memento-{job.experiment.group}-{job.experiment.name}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={resources.threads}",
        f"--mem={_megabytes(resources)}M",
        f"--time={_clock(resources)}",
        f"--signal=B:TERM@{_WARNING}",
        "--no-requeue",
        *(f"--{name}={value}" for name, value in _asked(settings)),
        *settings.directives,
    ]
    exports = [f"export {name}={value}" for name, value in thread_environment(job.threads).items()]
    python = shlex.quote(settings.python or sys.executable)
    file = shlex.quote(str(job.place.folder / "batch-job.json"))
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {directive}" for directive in directives),
        *exports,
        *settings.prologue,
        # exec, so that signals sent to the shell reach the job
        f"exec {python} -m memento.runner.job {file}",
    ]
    return "\n".join(lines) + "\n"


def _asked(settings: SlurmSettings) -> list[tuple[str, str]]:
    names = ("partition", "account", "qos", "constraint")
    return [(name, getattr(settings, name)) for name in names if getattr(settings, name)]


def _megabytes(resources: Resources) -> int:
    return math.ceil(resources.memory_GB * 1e9 / 2**20)


def _clock(resources: Resources) -> str:
    """Hours as Slurm writes them; whole minutes, since it counts in minutes."""
    minutes = max(math.ceil(resources.hours * 60), 1)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def _described(resources: Resources) -> str:
    return f"{resources.threads} thread(s), {resources.memory_GB:g} GB, {resources.hours:g} h"


def _call(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _find(command: str) -> None:
    if shutil.which(command) is None:
        raise SettingError(
            f"--slurm needs the command {command}, which is not on the path; run this on a login "
            "node of the cluster"
        )
