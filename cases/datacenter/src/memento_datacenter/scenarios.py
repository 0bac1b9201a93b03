"""What is compared: streams of runs whose traffic shifts, memories, and what all replays share.

Three scenarios of the Memento paper (section 5 and appendix C): a workload that is common and two
that are rare; one workload after the other; and traffic that gets more and more congested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np

from memento import settings
from memento.arguments import Count, check_fields, require, whole
from memento.distances import JensenShannon
from memento.errors import SettingError
from memento.policies import (
    FIFO,
    ClassBalancedReservoir,
    FacilityLocation,
    GradientSampleSelection,
    Herding,
    KCenterGreedy,
    LossAwareReservoir,
    Memento,
    Policy,
    Reservoir,
)
from memento_datacenter.features import WINDOW
from memento_datacenter.models import CLASSIFICATION, REGRESSION, NetworkSettings
from memento_datacenter.scores import LOADS, WORKLOADS
from memento_datacenter.simulate import SETTINGS

__all__ = [
    "JUDGED_RUN",
    "MEMORIES",
    "REDUCED",
    "SCENARIOS",
    "TASKS",
    "Plan",
    "Scenario",
    "Task",
    "memories_of",
    "scenario",
]

Task = Literal["classification", "regression"]

#: What is learned, and the network for it.
TASKS: Mapping[Task, NetworkSettings] = {"classification": CLASSIFICATION, "regression": REGRESSION}
SCENARIOS = ("rare-patterns", "incremental", "congestion")
JUDGED_RUN = 1  # of each setting; run 0 is for tuning
_FIRST_RUN = 2  # from here on runs are trained on
_GRID = np.linspace(0.0, 0.1, 128)  # seconds


@dataclass(frozen=True)
class Scenario:
    """What comes when.

    Attributes:
        name: One of `SCENARIOS`.
        task: What is learned: "classification" of workloads or "regression" of delays.
        capacity: Samples in memory.
        arrivals: For each iteration the settings of which a run comes in.
        judged: For each iteration the settings whose runs the network is judged on.
    """

    name: str
    task: Task
    capacity: int
    arrivals: tuple[tuple[str, ...], ...]
    judged: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.arrivals)


def scenario(name: str, phase: int = 10) -> Scenario:
    """A scenario by its name.

    ``rare-patterns``: w2 in each of two phases' iterations, w1 as well in each first one of half a
    phase, w3 at the beginning of both phases. ``incremental``: a phase of w1, then one of w2, then
    one of w3. ``congestion``: a phase of all three workloads at each load, 66, 100 and 133 %.

    Args:
        name: One of `SCENARIOS`.
        phase: Iterations of a phase, at least 2; 10 in the paper.

    Raises:
        SettingError: An unknown name, or a phase that is too short.

    Example:
        >>> scenario("rare-patterns").arrivals[:6]
        (('w1', 'w2', 'w3'), ('w2',), ('w2',), ('w2',), ('w2',), ('w1', 'w2'))
        >>> scenario("congestion", phase=2).arrivals[2]
        ('w1_c100', 'w2_c100', 'w3_c100')
    """
    require("phase", phase, whole(2))
    if name == "rare-patterns":
        every = {"w1": max(phase // 2, 1), "w2": 1, "w3": phase}
        arrivals = tuple(tuple(w for w in WORKLOADS if i % every[w] == 0) for i in range(2 * phase))
        return Scenario(name, "classification", 20_000, arrivals, (WORKLOADS,) * 2 * phase)
    if name == "incremental":
        single = tuple((w,) for w in WORKLOADS for _ in range(phase))
        return Scenario(name, "classification", 20_000, single, (WORKLOADS,) * 3 * phase)
    if name == "congestion":
        suffixes = [f"_c{load}" if load != LOADS[0] else "" for load in LOADS]
        loaded = tuple(tuple(w + s for w in WORKLOADS) for s in suffixes for _ in range(phase))
        return Scenario(name, "regression", 60_000, loaded, loaded)
    raise SettingError(f"scenario {name!r}; give one of {', '.join(SCENARIOS)}")


# ---------------------------------------------------------------------------------------- memories


@dataclass(frozen=True)
class _Memory:
    """A memory of the comparison.

    Attributes:
        policy: Its policy, from the task and the size of a batch.
        published: Whether it is in the paper.
        classes: Whether it needs classes, and so does not apply to delays.
        embedding: Numbers that it compares samples by, of the network's last hidden layer.
        minutes: Of a replay of congestion, roughly: the longest begin first.
    """

    policy: Callable[[Task, int], Policy]
    published: bool = False
    classes: bool = False
    embedding: int = 0
    minutes: int = 2


def _space(task: Task, batch_size: int) -> dict[str, Any]:
    of_labels = JensenShannon.of_labels("y", len(WORKLOADS))
    return {
        "distances": (
            [JensenShannon.of_probabilities("yhat"), of_labels]
            if task == "classification"
            else [JensenShannon.of_values("yhat", _GRID), JensenShannon.of_values("y", _GRID)]
        ),
        "batch_size": batch_size,
        "bandwidth": 0.1,
        "sort_by": ("y", "yhat", "x"),
        "remainder": "drop",
    }


def _label(task: Task) -> str | None:
    return "y" if task == "classification" else None


#: Memories by name: the arms of every comparison.
MEMORIES: Mapping[str, _Memory] = MappingProxyType(
    {
        "memento": _Memory(lambda task, b: Memento(**_space(task, b), temperature=0.01), True),
        "memento-T0": _Memory(lambda task, b: Memento(**_space(task, b), temperature=0.0), True),
        "random": _Memory(lambda task, b: Reservoir(), True),
        "fifo": _Memory(lambda task, b: FIFO(), True),
        "lars": _Memory(
            lambda task, b: LossAwareReservoir(missing="equal", scale="published"), True, True
        ),
        "class-balanced": _Memory(lambda task, b: ClassBalancedReservoir(), classes=True),
        "herding": _Memory(
            lambda task, b: Herding(label=_label(task), missing="random"), embedding=16, minutes=17
        ),
        "k-center": _Memory(
            lambda task, b: KCenterGreedy(missing="random"), embedding=16, minutes=10
        ),
        "facility-location": _Memory(
            lambda task, b: FacilityLocation(label=_label(task), missing="random"),
            embedding=16,
            minutes=8,
        ),
        "gss": _Memory(lambda task, b: GradientSampleSelection(missing="random"), embedding=16),
    }
)


def memories_of(task: Task) -> tuple[str, ...]:
    """The memories that apply to a task: those that balance classes need classes.

    Example:
        >>> memories_of("regression")[:5]
        ('memento', 'memento-T0', 'random', 'fifo', 'herding')
    """
    return tuple(n for n, m in MEMORIES.items() if task == "classification" or not m.classes)


# ------------------------------------------------------------------------------------------- plans


@dataclass(frozen=True)
class Plan:
    """What all replays of a comparison have in common.

    Args:
        phase: Iterations of a phase, at least 2; see `scenario`.
        window: Packets that a sample sees, at least 2.
        stride: Keep every so-manieth sample of each iteration, at least 1. Neighbouring samples
            share all but one packet of their window, so little is lost. Capacities, sizes of
            batches and of the network's batches are divided by it, so that memories have as many
            batches and trainings as many steps as with all samples.
        runs: Runs of each setting for training, numbered from 2; which of them come when depends on
            the seed.
        judged: At most so many samples of each setting to judge on, evenly over its run 1.
        batch_size: Of memories that compare batches.
        capacities: Samples in memory by scenario, where it is another number than the paper's.
        classification: The network that tells workloads, and its training.
        regression: The network that predicts delays, and its training.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> Plan(stride=4).capacity(scenario("congestion"))
        15000
    """

    phase: Annotated[int, whole(2)] = 10
    window: Annotated[int, whole(2)] = WINDOW
    stride: Count = 1
    runs: Count = 20
    judged: Count = 5000
    batch_size: Count = 256
    capacities: Mapping[str, int] = dataclasses.field(default_factory=dict)
    classification: NetworkSettings = CLASSIFICATION
    regression: NetworkSettings = REGRESSION

    def __post_init__(self) -> None:
        check_fields(self)
        settings.check_names(self.capacities, SCENARIOS, "capacities", "scenario")
        for name, value in self.capacities.items():
            require(f"the capacity of {name}", value, whole())
        object.__setattr__(self, "capacities", dict(self.capacities))

    def capacity(self, shift: Scenario) -> int:
        """Samples in memory in a scenario."""
        return max(1, self.capacities.get(shift.name, shift.capacity) // self.stride)

    def policy(self, memory: str, task: Task) -> Policy:
        """A memory's policy.

        Raises:
            SettingError: An unknown name, or a memory that does not apply to the task.
        """
        if memory not in MEMORIES:
            raise SettingError(f"memory {memory!r}; give one of {', '.join(MEMORIES)}")
        if memory not in memories_of(task):
            raise SettingError(
                f"memory {memory!r} needs classes; for {task} there are "
                f"{', '.join(memories_of(task))}"
            )
        return MEMORIES[memory].policy(task, max(1, self.batch_size // self.stride))

    def network(self, task: Task) -> NetworkSettings:
        """The network of a task, with its batches divided by the stride."""
        network = self.classification if task == "classification" else self.regression
        return dataclasses.replace(network, batch_size=max(2, network.batch_size // self.stride))

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Plan:
        """The plan that `document` wrote down, or one that differs from the default in it.

        Raises:
            SettingError: A setting that there is not, or a value out of its range.
        """
        networks = {
            task: {**dataclasses.asdict(default), **document[task]}
            for task, default in TASKS.items()
            if isinstance(document.get(task), Mapping)
        }
        return settings.build(cls, {**document, **networks}, "plan", noun="setting")

    def needed(self, shift: Scenario, seed: int) -> list[list[tuple[str, int]]]:
        """For each iteration the runs that come in, as setting and number; none comes twice.

        Raises:
            SettingError: There are fewer runs than the scenario needs.
        """
        arriving = [name for names in shift.arrivals for name in names]
        numbers: dict[str, Iterator[int]] = {}
        for name in dict.fromkeys(arriving):
            if arriving.count(name) > self.runs:
                raise SettingError(
                    f"{shift.name} needs {arriving.count(name)} runs of {name}, the plan has "
                    f"{self.runs}; raise runs, or shorten the phases"
                )
            # Of its own for each setting, so that scenarios with the same seed share their runs.
            rng = np.random.default_rng([seed, SETTINGS.index(name)])
            numbers[name] = iter((_FIRST_RUN + rng.permutation(self.runs)).tolist())
        return [[(name, next(numbers[name])) for name in names] for names in shift.arrivals]


#: A small variant that takes seconds, with short simulations: to see that everything works.
REDUCED = Plan(
    phase=3,
    window=32,
    runs=6,
    judged=1000,
    batch_size=32,
    capacities=dict.fromkeys(SCENARIOS, 1500),
    classification=NetworkSettings(units=32, epochs=8, batch_size=64),
    regression=NetworkSettings(units=32, epochs=8, batch_size=64, standardise=False),
)
