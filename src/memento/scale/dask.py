"""Blocks on the workers of a Dask cluster, which see the files under the same paths."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from memento.errors import MementoError, StorageError, WorkerError, needs, reason_of
from memento.scale.blocks import Block
from memento.scale.passes import Done, Plan, Task
from memento.scale.workers import RETRIES, Work, Workers, unsendable

__all__ = ["Cluster"]

_CONNECT = "20s"


class Cluster(Workers):
    """Works on blocks through a client of Dask's.

    Args:
        client: A ``distributed.Client``, which stays open, or the address of a scheduler.
        patience: Seconds after which a cluster without workers is given up.

    Raises:
        MissingExtraError: Dask is not installed.
        StorageError: On entry: the scheduler does not answer.
    """

    def __init__(self, client: Any, patience: float = 60.0) -> None:
        with needs("distributed", "dask", "selecting on Dask"):
            import distributed
        self._distributed: Any = distributed
        self._given = client
        self._client: Any = None
        self._patience = patience

    def __enter__(self) -> Cluster:
        if not isinstance(self._given, str):
            self._client = self._given
            return self
        try:
            self._client = self._distributed.Client(
                self._given, timeout=_CONNECT, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise StorageError(
                f"the Dask scheduler at {self._given} does not answer: {reason_of(error)}; check "
                "the address, such as tcp://10.0.0.1:8786, and that it runs"
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._given, str) and self._client is not None:
            self._client.close()

    def results(  # noqa: D102
        self, task: Task, plan: Plan, work: Sequence[Work]
    ) -> Iterator[tuple[int, Done]]:
        left = list(range(len(work)))[::-1]
        running: dict[Any, int] = {}
        try:
            while left or running:
                room = max(2, 2 * self._threads())
                while left and len(running) < room:
                    block, given = work[left[-1]]
                    running[self._submitted(task, plan, block, given)] = left.pop()
                for future in self._ended(running):
                    number = running.pop(future)
                    yield number, self._result(future, work[number][0])
        finally:
            if running and self._alive():
                self._client.cancel(list(running), force=True)

    def _submitted(self, task: Task, plan: Plan, block: Block, given: tuple[Any, ...]) -> Any:
        try:
            given = (task, plan, block, given)
            return self._client.submit(_worked, *given, pure=False, retries=RETRIES)
        except (TypeError, AttributeError) as error:
            raise unsendable(error) from error

    def _ended(self, running: dict[Any, int]) -> list[Any]:
        """Futures that have ended, once there are any."""
        since = time.monotonic()
        while True:
            ended = [future for future in running if future.done()]
            if ended:
                return ended
            if not self._alive():
                raise WorkerError(f"the Dask scheduler is gone; {_GOES_ON}")
            if self._threads():
                since = time.monotonic()
            elif time.monotonic() - since > self._patience:
                raise WorkerError(
                    f"no Dask worker was there for {self._patience:.0f} s; start some, then "
                    f"repeat: {_GOES_ON}"
                )
            time.sleep(0.02)

    def _alive(self) -> bool:
        return bool(self._client.status == "running")

    def _threads(self) -> int:
        """Threads of all workers that there are now."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        return sum(worker["nthreads"] for worker in workers)

    def _result(self, future: Any, block: Block) -> Done:
        """What a task gave; what went wrong with it, or with its workers, is raised."""
        try:
            kind, value = future.result()
        except MementoError:
            raise
        except Exception as error:  # of the task itself, or of Dask: workers that died, lost data
            name = type(error).__name__
            if name == "KilledWorker":
                raise WorkerError(
                    f"workers died again and again at {block}: killed, or out of memory; give them "
                    f"more memory. {_GOES_ON}"
                ) from error
            if name in ("CancelledError", "FutureCancelledError", "CommClosedError"):
                raise WorkerError(f"the Dask scheduler is gone; {_GOES_ON}") from error
            raise WorkerError(
                f"{block} failed {RETRIES + 1} times: {name}: {reason_of(error)}; {_GOES_ON}"
            ) from error
        finally:
            future.release()
        if kind == "error":
            raise value
        done: Done = value
        return done


_GOES_ON = "what was found so far is kept, and the same call goes on from there"


def _worked(task: Task, plan: Plan, block: Block, given: tuple[Any, ...]) -> tuple[str, Any]:
    """A task on a worker. Errors of ours are results: to try again would end the same way."""
    try:
        return "done", task(plan, block, *given)
    except MementoError as error:
        return "error", error
