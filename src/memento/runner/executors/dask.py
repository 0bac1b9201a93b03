"""On the workers of a Dask cluster, local or anywhere that shares the folder of results.

A task starts the job as a process of its own on the worker and waits for it. So the job has the
threads it asked for, writes its own log, can be interrupted, and ends when its worker does. Only
the job's text and its outcome travel over the network.
"""

# ruff: noqa: D102 (the base class documents what is overridden)
from __future__ import annotations

import contextlib
import json
import time
import uuid
from typing import Any

from memento.errors import SettingError, StorageError, needs
from memento.runner.executors import Executor
from memento.runner.executors.pool import JobProcess
from memento.runner.job import Job, Outcome

__all__ = ["DaskExecutor"]

_CONNECT = "20s"


class DaskExecutor(Executor):
    """Runs jobs on a Dask cluster.

    Where workers announce a resource ``threads`` (``dask worker --resources threads=4``), a job
    takes as many as it uses; elsewhere it takes one of the worker's threads.

    Args:
        address: Of a scheduler, as in ``"tcp://10.0.0.1:8786"``; ``"local"`` for a cluster of
            processes on this machine, reachable from nowhere else.
        jobs: Workers of a local cluster; of another, jobs handed over at a time (None: all).
        threads: Of each worker of a local cluster.

    Raises:
        MissingExtraError: Dask is not installed.
        StorageError: On entry: the scheduler does not answer.
    """

    name = "Dask"

    def __init__(self, address: str = "local", jobs: int | None = None, threads: int = 1) -> None:
        if address != "local" and "://" not in address:
            raise SettingError(
                f"scheduler is {address!r}; expected an address such as tcp://10.0.0.1:8786, or "
                '"local"'
            )
        if jobs is not None and jobs < 1:
            raise SettingError(f"{jobs} jobs at a time; expected 1 or more")
        with needs("distributed", "dask", "running experiments on Dask"):
            import distributed
        self._distributed: Any = distributed
        self._address = address
        self._jobs = jobs
        self._threads = threads
        self._client: Any = None
        self._cluster: Any = None
        self._futures: dict[str, tuple[Job, Any]] = {}

    def __enter__(self) -> DaskExecutor:
        self._cluster = self._start()
        try:
            self._client = self._distributed.Client(
                self._cluster or self._address, timeout=_CONNECT, set_as_default=False
            )
        except (OSError, TimeoutError) as error:
            raise StorageError(
                f"the Dask scheduler at {self._address} does not answer: {error}; check the "
                "address and that it runs"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(0.0)
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()
        self._client = self._cluster = None

    @property
    def client(self) -> Any:
        """The client of Dask's, inside the ``with`` block: for work that is no experiment."""
        return self._client

    def _start(self) -> Any:
        """The cluster that lives as long as this executor; None if it is somebody else's."""
        if self._address != "local":
            return None
        return self._distributed.LocalCluster(
            n_workers=self._jobs or 1,
            threads_per_worker=self._threads,
            resources={"threads": self._threads},
            host="127.0.0.1",
            # None would still open a server, on port 8787 of all interfaces.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
        )

    def free(self) -> int:
        limit = 100_000 if self._jobs is None or self._address != "local" else 2 * self._jobs
        return limit - len(self._futures)

    def submit(self, job: Job) -> str:
        document = json.dumps({**job.document(), "where": self.name})
        future = self._client.submit(
            _work,
            document,
            # Unique, since a name that was seen before stands for its earlier outcome.
            key=f"{job.key}-{uuid.uuid4().hex[:8]}",
            pure=False,
            resources=self._share(job),
        )
        self._futures[job.key] = (job, future)
        return f"{self.name}, {self._client.scheduler.address}"

    def _share(self, job: Job) -> dict[str, int] | None:
        """What a job takes of a worker: never more than one has, or it would wait for ever."""
        if self._address == "local":
            return {"threads": min(job.threads, self._threads)}
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        announced = [worker["resources"].get("threads", 0) for worker in workers]
        if not announced or not all(announced):
            return None
        return {"threads": min(job.threads, int(max(announced)))}

    def poll(self, timeout: float) -> list[tuple[str, Outcome]]:
        end = time.monotonic() + timeout
        while True:
            ended = [key for key, (_, future) in self._futures.items() if future.done()]
            if ended or time.monotonic() >= end:
                break
            time.sleep(0.05)
        return [(key, self._outcome(self._futures.pop(key)[1])) for key in ended]

    def _outcome(self, future: Any) -> Outcome:
        try:
            return Outcome(**json.loads(future.result()))
        except Exception as error:  # whatever goes wrong in a cluster: workers lost, cancelled, ...
            return Outcome("failed", f"Dask: {type(error).__name__}: {error}".splitlines()[0])
        finally:
            future.release()

    def stop(self, grace: float) -> None:
        if not self._futures:
            return
        jobs = [job for job, _ in self._futures.values()]
        # What waits is taken back; what runs cannot be reached by Dask, only through its folder.
        self._client.cancel([future for _, future in self._futures.values()], force=True)
        self._futures.clear()
        end = time.monotonic() + grace
        while running := [job for job in jobs if job.status().state == "running"]:
            for job in running:
                with contextlib.suppress(OSError):
                    job.place.stop.touch()
            if time.monotonic() >= end:
                break
            time.sleep(0.1)


def _work(document: str) -> str:
    """The task: runs on a worker, in one of its threads."""
    values = json.loads(document)
    where = values.pop("where")
    process = JobProcess(Job.from_document(values), where)
    try:
        outcome = process.wait(None)
    finally:
        process.kill()
    return json.dumps(outcome.document() if outcome else None)
