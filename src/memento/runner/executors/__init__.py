"""Places where jobs run. Each hands the same job to `memento.runner.job.execute`.

`process` runs it right here, `pool` in processes of this machine, `dask` on the workers of a Dask
cluster, `slurm` in batch jobs of a Slurm cluster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from memento.runner.job import Job, Outcome

__all__ = ["Executor"]


class Executor(ABC):
    """Takes jobs and says how they ended. Used in a ``with`` block, by one thread."""

    name: str

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(0.0)

    @abstractmethod
    def free(self) -> int:
        """How many more jobs it takes now."""

    @abstractmethod
    def submit(self, job: Job) -> str:
        """Take a job; returns where it will run, for people. Does not wait for others."""

    @abstractmethod
    def poll(self, timeout: float) -> list[tuple[str, Outcome]]:
        """Keys and outcomes of jobs that have ended since the last call.

        Args:
            timeout: Most seconds to wait for the first one.
        """

    @abstractmethod
    def stop(self, grace: float) -> None:
        """Ask all jobs to end, wait ``grace`` seconds, then end them. Their checkpoints stay."""

    def describe(self, job: Job) -> str:
        """Where a job would run and with what, for a dry run."""
        return f"{self.name}, {job.threads} thread(s)"
