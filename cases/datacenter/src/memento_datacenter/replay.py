"""One scenario with one memory, through the loop.

In each iteration the samples of runs that were not used before come in, the memory chooses, the
network is trained anew on what is held, and judged on runs that no memory sees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import ForeignError, SettingError
from memento.files import digest
from memento.loop import Moment, Step, run
from memento.memory import Memory
from memento.policies import Memento
from memento.retrain import Every, OnCoverage
from memento.samples import Samples
from memento.study import difference
from memento_datacenter.features import origins, transmission_samples, workload_samples
from memento_datacenter.scenarios import JUDGED_RUN, MEMORIES, Plan, Scenario, Task, scenario
from memento_datacenter.schema import Run, Runs
from memento_datacenter.scores import LOADS, WORKLOADS, accuracies, weighted_quantile
from memento_datacenter.simulate import SETTINGS

__all__ = ["described", "evenly", "replay", "runs_of", "samples_of"]

_CLASSES = len(WORKLOADS)


def replay(
    name: str,
    memory: str,
    runs: str | Path,
    seed: int = 0,
    plan: Plan | None = None,
    *,
    checkpoint: str | Path | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Samples:
    """Replay a scenario with one memory.

    Before there is a network all predictions are alike, so a memory that compares predictions
    and labels compares labels alone, LARS balances them, and those that need more choose at random.

    Args:
        name: One of `scenarios.SCENARIOS`.
        memory: One of `scenarios.MEMORIES`.
        runs: Folder of simulated runs.
        seed: Of the order of runs, the memory and the network.
        plan: ``Plan()`` if None.
        checkpoint: Folder to save everything to after each iteration, and to go on from.
        on_step: Called with the step of each new iteration.

    Returns:
        A row per iteration: ``scenario``, ``memory``, ``seed``, ``iteration`` (from 1),
        ``settings`` (joined by +), ``offered``, ``kept``, ``held`` (samples), ``rci`` (calibrated
        coverage increase since the last training; NaN for memories without distances, and at
        first), ``select`` (seconds of the insert, by the clock; NaN if a checkpoint already had
        it); ``held_w1``, ``held_w2``, ``held_w3``; for classification ``balanced_accuracy`` and
        ``accuracy_w1``, ...; for regression ``error_p99``, the 99th percentile of the absolute
        error [s] on the settings that came in, in proportion to their samples, ``error_p99_w1``,
        ..., ``error_mean``, and ``held_66``, ``held_100``, ``held_133`` by load.

    Raises:
        SettingError: An unknown name, or one that does not fit.
        StorageError: A run is missing; the message says how to simulate it.
        DamagedError: A run is damaged.
        ForeignError: The checkpoint is of another replay, or runs were made in different ways.
    """
    from memento_datacenter.learner import WindowLearner  # loads PyTorch

    plan = Plan() if plan is None else plan
    shift = scenario(name, plan.phase)
    policy = plan.policy(memory, shift.task)
    folder = Runs(runs)
    described(folder, shift, plan, seed)
    compares = isinstance(policy, Memento)
    steps = run(
        _stream(plan, shift, folder, seed),
        Memory(plan.capacity(shift), policy, seed=np.random.default_rng([seed, 1])),
        WindowLearner(
            shift.task, plan.network(shift.task), embedding=MEMORIES[memory].embedding, seed=seed
        ),
        # Always due, and it says by how much coverage has risen.
        OnCoverage(0.0, significance=1.0, new_labels=1.0) if compares else Every(1),
        judge={"after": _Judge(plan, shift, folder)},
        weighted=False,  # weights of balanced memories would undo the balance
        checkpoint=checkpoint,
        on_step=on_step,
        rng=seed,
    )
    rows: list[dict[str, Any]] = [
        {
            "scenario": name,
            "memory": memory,
            "seed": seed,
            "iteration": step.unit + 1,
            "settings": step.name,
            "offered": step.offered,
            "kept": step.kept,
            "held": step.held,
            "rci": step.decision.value if compares else math.nan,
            "select": step.seconds.get("insert", math.nan),
            **step.scores,
        }
        for step in steps
    ]
    return Samples.borrow({column: np.array([r[column] for r in rows]) for column in rows[0]})


def _stream(plan: Plan, shift: Scenario, folder: Runs, seed: int) -> Iterator[tuple[str, Samples]]:
    for runs in plan.needed(shift, seed):
        packets = [folder.read(*one) for one in runs]
        samples = samples_of(packets, shift.task, plan.window)
        name = "+".join(setting for setting, _ in runs)
        yield name, samples.take(np.arange(0, samples.size, plan.stride))


def samples_of(packets: Sequence[Run], task: Task, window: int) -> Samples:
    """Samples of runs that happen at the same time, with what nothing is predicted yet by.

    Args:
        packets: The runs, at least one.
        task: "classification" or "regression".
        window: Packets that a sample sees.

    Returns:
        Columns of `features`; ``setting``, which of ``simulate.SETTINGS`` (int16); and ``yhat``,
        the same prediction for all: equal probabilities, or a delay of 0.
    """
    make = workload_samples if task == "classification" else transmission_samples
    samples = make(packets, window)
    settings = np.array([SETTINGS.index(_setting_of(p)) for p in packets], dtype=np.int16)
    constant = (
        np.full((samples.size, _CLASSES), 1 / _CLASSES, np.float32)
        if task == "classification"
        else np.zeros(samples.size)
    )
    return samples.with_columns(
        Samples.borrow(setting=settings[origins(packets, window)], yhat=constant)
    )


def evenly(samples: Samples, most: int) -> Samples:
    """At most so many of the samples, evenly over all of them."""
    count = min(most, samples.size)
    return samples.take(np.linspace(0, samples.size, count, endpoint=False).astype(np.int64))


def _setting_of(packets: Run) -> str:
    name = str(packets.about.get("setting"))
    if name not in SETTINGS:
        raise SettingError(f"a run of {name!r}; scenarios have runs of {', '.join(SETTINGS)}")
    return name


class _Judge:
    """Scores of the network after each iteration, on runs of its own, and what the memory holds."""

    def __init__(self, plan: Plan, shift: Scenario, folder: Runs) -> None:
        self._plan = plan
        self._shift = shift
        self._folder = folder
        self._samples: dict[str, tuple[Samples, float]] = {}

    def __call__(self, moment: Moment) -> dict[str, float]:
        settings = self._shift.judged[moment.unit]
        judged = [self._judged(setting) for setting in settings]
        annotated = [moment.learner.annotate(samples) for samples, _ in judged]
        if self._shift.task == "classification":
            labels = np.concatenate([samples["y"] for samples, _ in judged])
            predicted = np.concatenate([columns["yhat"] for columns in annotated])
            shares = accuracies(labels, predicted, _CLASSES)
            scores = {"balanced_accuracy": float(shares.mean())}
            scores |= {f"accuracy_{w}": float(s) for w, s in zip(WORKLOADS, shares, strict=True)}
        else:
            weights = [weight for _, weight in judged]
            scores = _errors(settings, [columns["loss"] for columns in annotated], weights)
        return scores | self._held(moment.memory)

    def _judged(self, setting: str) -> tuple[Samples, float]:
        """Samples to judge on, and how many of their run each stands for."""
        if setting not in self._samples:
            run = self._folder.read(setting, JUDGED_RUN)
            samples = samples_of([run], self._shift.task, self._plan.window)
            judged = evenly(samples, self._plan.judged)
            self._samples[setting] = judged, samples.size / max(judged.size, 1)
        return self._samples[setting]

    def _held(self, memory: Any) -> dict[str, float]:
        counts = np.bincount(memory.samples["setting"], minlength=len(SETTINGS))
        table = counts.reshape(len(LOADS), len(WORKLOADS))  # settings are ordered by load
        found = {f"held_{w}": float(n) for w, n in zip(WORKLOADS, table.sum(axis=0), strict=True)}
        if self._shift.task == "regression":
            loads = zip(LOADS, table.sum(axis=1), strict=True)
            found |= {f"held_{load}": float(n) for load, n in loads}
        return found


def _errors(
    settings: Sequence[str], errors: Sequence[np.ndarray], weights: Sequence[float]
) -> dict[str, float]:
    spread = [np.full(len(e), w) for e, w in zip(errors, weights, strict=True)]
    everything, weight = np.concatenate(errors), np.concatenate(spread)
    return {
        "error_p99": weighted_quantile(everything, weight, 0.99),
        "error_mean": float(np.average(everything, weights=weight)),
        **{
            f"error_p99_{setting.partition('_')[0]}": weighted_quantile(e, w, 0.99)
            for setting, e, w in zip(settings, errors, spread, strict=True)
        },
    }


def runs_of(shift: Scenario, plan: Plan, seed: int) -> list[tuple[str, int]]:
    """The runs that come in and those that are judged on, by setting and number."""
    judged = {(name, JUDGED_RUN) for names in shift.judged for name in names}
    return sorted({one for runs in plan.needed(shift, seed) for one in runs} | judged)


#: What all runs of a replay have in common, as far as results depend on it.
_SHARED = ("seed", "network", "ns3", "source")


def described(
    folder: Runs,
    shift: Scenario,
    plan: Plan,
    seed: int,
    known: dict[tuple[str, int], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """What the runs of a replay are: how all of them were made, and a digest of what they hold.

    Args:
        folder: Of simulated runs.
        shift: What comes in and is judged on.
        plan: Of the comparison.
        seed: Of the order of runs.
        known: Descriptions that were read before, by setting and number; new ones are added.

    Raises:
        StorageError: A run is missing; the message says how to simulate it.
        DamagedError: A run is cut off.
        ForeignError: They do not belong together.
    """
    wanted = runs_of(shift, plan, seed)
    folder.require(wanted)
    known = {} if known is None else known
    known |= {one: folder.describe(*one) for one in wanted if one not in known}
    common = {name: known[wanted[0]].get(name) for name in _SHARED}
    sizes: dict[Any, tuple[tuple[str, int], Any]] = {}
    for one in wanted:
        about = known[one]
        _check_alike(folder, one, about, wanted[0], common)
        # Settings share their workload, and with it the sizes of messages.
        like, digested = sizes.setdefault(about.get("workload"), (one, about.get("sizes")))
        _check_alike(folder, one, about, like, {"sizes": digested})
    everything = json.dumps([known[one] for one in wanted], sort_keys=True)
    return {**common, "digest": digest(everything.encode())}


def _check_alike(
    folder: Runs,
    one: tuple[str, int],
    about: Mapping[str, Any],
    other: tuple[str, int],
    common: Mapping[str, Any],
) -> None:
    """Raise `ForeignError` where a run was made in another way than the one it goes with."""
    differs = difference(about, common)
    if differs is not None:
        name, found, wanted = differs
        raise ForeignError(
            f"{folder.path(*one)}: made with {name} = {found!r}, {folder.path(*other)} with "
            f"{wanted!r}; runs of one replay are made in one way: remove those that are not, and "
            "simulate them again"
        )
