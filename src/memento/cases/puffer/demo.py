"""Two weeks of the daily loop: memories compared on the transmission-time task.

Every arm is the same network with the same seed, trained on what its own memory holds, and
evaluated on the day that follows. Arms are independent of each other, so they run in processes of
their own.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from memento.cases.puffer.traces import Traces
from memento.cases.puffer.transmission import CLASSES, samples_of
from memento.distances import JensenShannon
from memento.errors import SettingError
from memento.loop import Step, run
from memento.memory import Memory
from memento.policies import DensityReservoir, Memento, Policy, Reservoir
from memento.retrain import Every, Never, OnCoverage, Trigger
from memento.samples import Samples

__all__ = ["ARMS", "REFERENCES", "ArmResult", "compare", "prepare", "run_arm", "summary"]

#: Arms by name; the first two are what the others are held against.
REFERENCES = ("static", "random")
ARMS = (*REFERENCES, "memento", "density-reservoir")

_BATCH = 64
# Least coverage increase worth a training; about the noise at this size, so the p-value decides.
THRESHOLD = 0.01


@dataclass(frozen=True)
class ArmResult:
    """What one arm did.

    Attributes:
        name: Of the arm.
        steps: One for each day.
        ages: ``(days,)`` how many samples of each day the memory holds at the end.
        classes: ``(21,)`` how many samples of each class it holds at the end.
    """

    name: str
    steps: list[Step]
    ages: np.ndarray = field(repr=False)
    classes: np.ndarray = field(repr=False)


def prepare(
    days: Iterable[tuple[str, Traces]], folder: Path, *, size_MB: float = 0.25
) -> Iterator[tuple[str, int]]:
    """Make the samples of each day, once for all arms.

    Args:
        days: Names and traces.
        folder: Receives one file a day; has to exist.
        size_MB: Size of the chunk that is asked for, in MB.

    Yields:
        Name and number of samples of each day.
    """
    for number, (name, traces) in enumerate(days):
        columns = samples_of(traces, size_MB=size_MB)
        if not len(columns["y"]):
            raise SettingError(
                f"{name}: no stream of two chunks or more, so no sample; ask for fewer days"
            )
        np.savez(folder / f"{number:04d}.npz", **columns, name=np.array(name))  # type: ignore[arg-type]
        yield name, len(columns["y"])


def _days(folder: Path) -> Iterator[tuple[str, Samples]]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as columns:
            found = {name: columns[name] for name in columns.files if name != "name"}
            yield str(columns["name"]), Samples.borrow(found)


def _space() -> dict[str, Any]:
    return {
        "distances": [
            JensenShannon.of_probabilities("yhat"),
            JensenShannon.of_labels("y_bin", CLASSES),
        ],
        "batch_size": _BATCH,
        "sort_by": ("y_bin", "yhat", "x"),
        "missing": "skip",  # before the first model there are no predictions
    }


def _arm(name: str, retrain: str) -> tuple[Policy, Trigger, int | None]:
    """Policy, trigger, and after how many days to freeze."""
    if retrain not in ("coverage", "always"):
        raise SettingError(f'retrain is {retrain!r}; expected "coverage" or "always"')
    trigger: Trigger = OnCoverage(THRESHOLD) if retrain == "coverage" else Every(1)
    if name == "static":
        return Reservoir(), Never(), 1
    if name == "random":
        return Reservoir(), Every(1), None
    if name == "memento":
        return Memento(**_space()), trigger, None
    if name == "density-reservoir":
        return DensityReservoir(**_space()), trigger, None
    raise SettingError(f"unknown arm {name!r}; expected one of {', '.join(ARMS)}")


def run_arm(
    name: str,
    folder: Path,
    *,
    capacity: int,
    retrain: str = "coverage",
    seed: int = 0,
    on_step: Callable[[str, Step], None] | None = None,
) -> ArmResult:
    """Run the daily loop with one memory.

    Args:
        name: One of `ARMS`.
        folder: Of days, by `prepare`.
        capacity: Of the memory, in samples.
        retrain: ``"coverage"``: when coverage has risen; ``"always"``: every day. The random memory
            retrains every day, as is the practice, the static one never.
        seed: Of the memory and the network.
        on_step: Called with the arm's name and each step.

    Raises:
        SettingError: An unknown arm.
    """
    from memento.integrations.torch import TorchLearner

    policy, trigger, freeze = _arm(name, retrain)
    memory = Memory(capacity, policy, seed=seed)
    learner = TorchLearner(CLASSES, seed=seed)
    steps = []
    for step in run(_days(folder), memory, learner, trigger, freeze_after=freeze, rng=seed):
        steps.append(step)
        if on_step is not None:
            on_step(name, step)
    ages = np.bincount(memory.arrivals, minlength=len(steps) + 1)[1:]
    classes = np.bincount(memory.samples["y_bin"], minlength=CLASSES)
    return ArmResult(name, steps, ages, classes)


def compare(
    folder: Path,
    *,
    capacity: int,
    arms: Iterable[str] = ARMS,
    retrain: str = "coverage",
    seed: int = 0,
    workers: int = 2,
    on_step: Callable[[str, Step], None] | None = None,
) -> dict[str, ArmResult]:
    """Run several arms side by side.

    Args:
        folder: Of days, by `prepare`.
        arms: Names from `ARMS`.
        workers: Processes; 1 runs everything in this one. Results do not depend on it.
        capacity: As for `run_arm`.
        retrain: As for `run_arm`.
        seed: As for `run_arm`.
        on_step: As for `run_arm`.

    Returns:
        By name, in the order asked for.

    Raises:
        SettingError: An unknown arm or schedule, or no worker.
    """
    if workers < 1:
        raise SettingError(f"{workers} workers; give at least one process")
    names = list(arms)
    for name in names:
        # What is wrong with names and numbers shows before anything is computed.
        Memory(capacity, _arm(name, retrain)[0])
    settings = {"capacity": capacity, "retrain": retrain, "seed": seed}
    if workers == 1:
        return {n: run_arm(n, folder, on_step=on_step, **settings) for n in names}  # type: ignore[arg-type]
    # Fresh processes: forking one with compiled kernels' threads in it may hang.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        queue = manager.Queue()
        # The arms that train most go first, so that no worker waits long for the last one.
        order = sorted(
            dict.fromkeys(names),
            key=lambda n: ("random", "memento", "density-reservoir").count(n) == 0,
        )
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = {n: pool.submit(_report_arm, n, folder, settings, queue) for n in order}
            _forward(queue, list(futures.values()), on_step)
            return {name: futures[name].result() for name in names}


def _report_arm(name: str, folder: Path, settings: Mapping[str, Any], queue: Any) -> ArmResult:
    return run_arm(name, folder, on_step=lambda n, step: queue.put((n, step)), **settings)


def _forward(
    queue: Any,
    futures: Sequence[Future[ArmResult]],
    on_step: Callable[[str, Step], None] | None,
) -> None:
    """Pass on what the arms report until all have ended, be it that their process was killed."""
    while True:
        ended = all(future.done() for future in futures)  # before looking: then nothing is missed
        try:
            message = queue.get(timeout=0.01 if ended else 0.2)
        except Empty:
            if ended:
                return
        else:
            if on_step is not None:
                on_step(*message)


def summary(results: Mapping[str, ArmResult], reference: str) -> dict[str, dict[str, float]]:
    """Mean difference of each arm's daily log scores from those of a reference arm, in nats.

    Returns:
        For each arm ``p01``, ``median``, ``mean``, each with ``..._error``, the standard error over
        the days, and ``retrained``, the number of trainings.

    Raises:
        SettingError: The reference is not among the results.
    """
    if reference not in results:
        raise SettingError(f"no arm {reference!r}; there are {sorted(results)}")
    base = _scores(results[reference])
    rows: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        rows[name] = {}
        for score, values in _scores(result).items():
            change = values - base[score]
            error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else float("nan")
            rows[name] |= {score: float(change.mean()), f"{score}_error": float(error)}
        rows[name]["retrained"] = sum(step.trained for step in result.steps)
    return rows


def _scores(result: ArmResult) -> dict[str, np.ndarray]:
    evaluated = [step for step in result.steps if step.evaluated_on is not None]
    return {s: np.array([step.scores[s] for step in evaluated]) for s in ("p01", "median", "mean")}
