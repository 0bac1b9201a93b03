"""Trackers of experiments: the steps of the loop as curves in TensorBoard or MLflow.

A tracker is called with each new step, so it is what `memento.run` takes as ``on_step``. A run that
goes on from its checkpoint goes on with its curves, too: their horizontal axis is the number of the
unit, and steps of an earlier run are not logged again.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any

from memento import arguments
from memento.errors import SettingError, StorageError, needs, reason_of
from memento.files import local_path, storage_errors
from memento.loop import Step

__all__ = ["MLflowTracker", "TensorBoardTracker", "scalars"]


@arguments.checked
def scalars(step: Step) -> dict[str, float]:
    """The numbers of a step.

    Args:
        step: A step of `memento.run`.

    Returns:
        ``offered``, ``kept`` and ``held`` (samples); ``retrained`` (0 or 1); ``decision/value``,
        which is the coverage increase with `OnCoverage`, with its ``decision/threshold``,
        ``decision/noise`` and ``decision/p_value``; ``scores/...``. What is not finite is left out,
        and of a step that an earlier run logged, all but its scores, which are new.

    Example:
        >>> from memento import FIFO, Every, Memory, run
        >>> from memento.testing import ConstantLearner, ToyStream
        >>> steps = run(ToyStream(days=2, seed=1), Memory(500, FIFO()), ConstantLearner(), Every(2))
        >>> found = scalars(next(steps))
        >>> found["held"], found["retrained"], "scores/p01" in found
        (200.0, 1.0, True)
    """
    numbers: dict[str, float] = {}
    if not step.restored:
        numbers |= {"offered": step.offered, "kept": step.kept, "held": step.held}
        numbers["retrained"] = step.trained
        for name in ("value", "threshold", "noise", "p_value"):
            numbers[f"decision/{name}"] = getattr(step.decision, name)
    numbers |= {f"scores/{name}": value for name, value in step.scores.items()}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _require_methods(name: str, value: Any, *methods: str) -> None:
    has_all = all(callable(getattr(value, method, None)) for method in methods)
    words = f"something with {', '.join(methods)}"
    arguments.require(name, value, arguments.Expected(words, lambda _: has_all))


class _Tracker(ABC):
    """What both have in common: they are called, and closed by ``with``."""

    @abstractmethod
    def __call__(self, step: Step) -> None:
        """Log the numbers of a step; see `scalars`."""

    @abstractmethod
    def close(self, failed: bool = False) -> None:
        """End the log."""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=error is not None)


@arguments.checked
class TensorBoardTracker(_Tracker):
    """Logs steps for TensorBoard: ``tensorboard --logdir FOLDER`` shows them.

    Args:
        folder: Receives event files; a folder for each run, side by side, are compared.
        writer: What to write with instead: anything with ``add_scalar(name, value, step)``,
            ``flush()`` and ``close()``, such as PyTorch's ``SummaryWriter``.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        SettingError: Neither or both of folder and writer.
        StorageError: The folder cannot be written to.
    """

    def __init__(self, folder: str | Path | None = None, *, writer: Any = None) -> None:
        if (folder is None) == (writer is None):
            raise SettingError("give a folder for event files, or a writer, and not both")
        if folder is not None:
            with needs("tensorboard", "tracking", "logging for TensorBoard"):
                from tensorboard.summary import Writer
            place = local_path(folder, "folder")
            with storage_errors("log steps", place):
                writer = Writer(str(place))
        _require_methods("writer", writer, "add_scalar", "flush", "close")
        self._writer = writer
        self._closed = False

    def __call__(self, step: Step) -> None:
        """Log the numbers of a step; see `scalars`."""
        if self._closed:
            raise SettingError("the tracker is closed; make another one to go on with the folder")
        for name, value in scalars(step).items():
            self._writer.add_scalar(name, value, step.unit)
        self._writer.flush()  # so that a run can be watched, and a kill costs nothing

    def close(self, failed: bool = False) -> None:
        """End the log."""
        if not self._closed:
            self._closed = True
            self._writer.close()


@arguments.checked
class MLflowTracker(_Tracker):
    """Logs steps as metrics of one MLflow run, by default to files and without a server.

    Args:
        folder: MLflow's file store, made if it is not there: ``mlflow ui --backend-store-uri
            FOLDER`` shows it. Newer versions of MLflow refuse file stores unless
            ``MLFLOW_ALLOW_FILE_STORE`` says otherwise, and report their use to their makers unless
            ``MLFLOW_DISABLE_TELEMETRY`` does; where they are not set in the environment, this sets
            both to "true".
        run: Name of the run. One of this name in the experiment is gone on with.
        experiment: Name of the experiment, made if it is not there.
        client: What to log with instead of files: an ``mlflow.MlflowClient`` of a server, say.

    Raises:
        MissingExtraError: MLflow is not installed.
        SettingError: Neither or both of folder and client; a name with quotation marks.
        StorageError: The folder cannot be written to, or MLflow refuses a name.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        run: str = "run",
        *,
        experiment: str = "memento",
        client: Any = None,
    ) -> None:
        if (folder is None) == (client is None):
            raise SettingError("give a folder for MLflow's files, or a client, and not both")
        if not run or set(run) & set("'\"`"):
            raise SettingError(f"run {run!r}; give a name without quotation marks")
        if folder is not None:
            # Before the import, which reads them.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            with needs("mlflow-skinny", "tracking", "logging to MLflow"):
                from mlflow import MlflowClient
            place = local_path(folder, "folder")
            with storage_errors("log steps", place):
                client = MlflowClient(tracking_uri=place.absolute().as_uri())
        _require_methods("client", client, "log_metric", "get_experiment_by_name", "search_runs")
        self._client = client
        try:
            self._run = self._begun(experiment, run)
        except Exception as error:  # of MLflow, or of a server
            raise StorageError(f"MLflow does not begin run {run!r}: {reason_of(error)}") from error

    def _begun(self, experiment: str, run: str) -> str:
        """The run of this name, gone on with or made."""
        client = self._client
        known = client.get_experiment_by_name(experiment)
        place = client.create_experiment(experiment) if known is None else known.experiment_id
        same = client.search_runs([place], f"attributes.run_name = '{run}'")
        if not same:
            return str(client.create_run(place, run_name=run).info.run_id)
        client.update_run(same[0].info.run_id, status="RUNNING")
        return str(same[0].info.run_id)

    def __call__(self, step: Step) -> None:
        """Log the numbers of a step; see `scalars`."""
        for name, value in scalars(step).items():
            self._client.log_metric(self._run, name, value, step=step.unit)

    def close(self, failed: bool = False) -> None:
        """End the run, as finished or as failed."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
