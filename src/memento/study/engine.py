"""Arms and seeds over one stream."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from memento import arguments
from memento.errors import DamagedError, ForeignError, SettingError
from memento.files import atomic_write, digest, local_path, storage_errors
from memento.learner import Learner, digest_of_state
from memento.loop import Moment, run
from memento.memory import Memory
from memento.policies import FIFO, Policy, Reservoir
from memento.retrain import Every, Trigger
from memento.samples import Samples
from memento.study.intervals import Gain, paired
from memento.study.judges import measures

__all__ = ["Backtest", "backtest"]

_FORMAT = 1
_WARM_UP = 3  # units before the first that counts
_RANDOM = "random"

Wrapper = Callable[[Learner], Learner]
Progress = Callable[[int, int, str], object]


class _Arm(NamedTuple):
    policy: Policy
    trigger: Trigger
    wrapper: Wrapper | None


@dataclass(frozen=True)
class _Course:
    """What one arm achieved with one seed: names of units, measures of each, trainings, time."""

    units: list[str]
    scores: list[dict[str, float]]
    trainings: int
    seconds: float


@dataclass(frozen=True)
class Backtest:
    """What arms achieved.

    Attributes:
        table: Tidy, a row an arm and measure: ``arm``, ``measure``, ``value`` (mean over seeds and
            units), ``gain`` over the baseline with the same seeds and units, and ``low`` and
            ``high``, its 90 % interval; NaN for a single seed.
        baseline: Name of the arm that others are compared with.
        units: Names of the units that count.
        trainings: Mean number of trainings by arm.
        seconds: Mean time of a whole run by arm, by the clock.
    """

    table: Samples
    baseline: str
    units: tuple[str, ...]
    trainings: Mapping[str, float]
    seconds: Mapping[str, float]


def backtest(
    stream: Iterable[tuple[str, Any]],
    make_learner: Callable[[int], Learner],
    policies: Mapping[str, Policy] | None = None,
    triggers: Mapping[str, Trigger] | None = None,
    *,
    wrappers: Mapping[str, Wrapper] | None = None,
    capacity: int = 1000,
    seeds: int | Sequence[int] = 5,
    baseline: str = _RANDOM,
    group: str | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Backtest:
    """Compare ways to remember and to retrain on a stream that is known.

    Every arm is a policy with a trigger, and a wrapper of the learner where some are given. Each
    unit is predicted before anything of it is trained on; the first three do not count.

    Args:
        stream: Pairs of a name and samples, as for `memento.run`; iterators are kept as a list.
        make_learner: Makes an untrained learner from a seed.
        policies: By name; ``random`` (a reservoir) and ``newest`` if left out. A reservoir
            joins as ``random`` where that is the baseline and is not given.
        triggers: By name; training after every unit if left out. Arms are named
            ``policy/trigger`` where there are several, else as the policy.
        wrappers: From a learner to another, by name, beside the learner as it is; such arms are
            named ``policy+wrapper``.
        capacity: Samples in memory.
        seeds: How many, or which ones.
        baseline: Name of an arm, or of a policy: then its arm with the first trigger.
        group: Column of groups, for the measure ``worst_group``; see `measures`.
        folder: Results of each arm and seed are kept there and not computed again, so that
            a comparison which was stopped goes on. They know the stream, policies and triggers,
            not the code of learners and wrappers: take another folder when that changes.
        progress: Called with runs done, runs in all, and the name of the last one.

    Raises:
        SettingError: There is no such baseline, nothing to compare, or no unit counts.
        ForeignError: The folder is of another comparison.

    Example:
        >>> from memento.testing import ConstantLearner, ToyStream
        >>> result = backtest(
        ...     ToyStream(days=6, size=50), lambda seed: ConstantLearner(), capacity=100, seeds=2
        ... )
        >>> sorted(set(result.table["arm"].tolist())), result.baseline
        (['newest', 'random'], 'random')
    """
    numbers = _seeds(seeds)
    arms = _arms(policies, triggers, wrappers, baseline)
    reference = _reference(arms, baseline)
    if iter(stream) is stream:
        stream = list(stream)
    place = None if folder is None else local_path(folder, "folder")
    identity = None if place is None else _identity(stream)
    courses: dict[str, list[_Course]] = {name: [] for name in arms}
    runs = list(itertools.product(arms.items(), numbers))
    for done, ((name, arm), seed) in enumerate(runs, 1):
        about = {
            "policy": arm.policy.settings(),
            "trigger": arm.trigger.settings(),
            "capacity": capacity,
            "group": group,
            "stream": identity,
        }
        path = None if place is None else place / quote(name, safe="+") / f"seed-{seed}.json"
        course = None if path is None else _read(path, about)
        if course is None:
            learner = make_learner(seed)
            learner = learner if arm.wrapper is None else arm.wrapper(learner)
            course = _course(
                stream, Memory(capacity, arm.policy, seed=seed), learner, arm, seed, group
            )
            if path is not None:
                _write(path, about, course)
        courses[name].append(course)
        if progress is not None:
            progress(done, len(runs), f"{name}, seed {seed}")
    return _compared(courses, reference, place)


def _identity(stream: Iterable[tuple[str, Any]]) -> str:
    """A digest of names and samples of all units."""
    units = [
        [str(name), None if data is None else digest_of_state(Samples.borrow(data))]
        for name, data in stream
    ]
    return digest(json.dumps(units).encode())


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if not isinstance(seeds, Sequence):
        arguments.require("seeds", seeds, arguments.whole())
        return list(range(seeds))
    for seed in seeds:
        arguments.require("a seed", seed, arguments.whole(0))
    if not seeds or len(set(seeds)) < len(seeds):
        raise SettingError(f"seeds are {list(seeds)}; give each once, at least one")
    return list(seeds)


def _arms(
    policies: Mapping[str, Policy] | None,
    triggers: Mapping[str, Trigger] | None,
    wrappers: Mapping[str, Wrapper] | None,
    baseline: str,
) -> dict[str, _Arm]:
    policies = {_RANDOM: Reservoir(), "newest": FIFO()} if policies is None else dict(policies)
    triggers = {"every": Every(1)} if triggers is None else triggers
    if baseline == _RANDOM:
        policies.setdefault(_RANDOM, Reservoir())
    for what, given, kind in (("policy", policies, Policy), ("trigger", triggers, Trigger)):
        if not given:
            raise SettingError(f"there is no {what} to compare; give one by name")
        for name, value in given.items():
            if not isinstance(name, str) or not name or not isinstance(value, kind):
                raise SettingError(f"{what} {name!r} is {value!r}; expected a {kind.__name__}")
    arms = {}
    for (policy, chosen), (trigger, decides), (wrapper, wrap) in itertools.product(
        policies.items(), triggers.items(), [("", None), *(wrappers or {}).items()]
    ):
        name = policy + (f"/{trigger}" if len(triggers) > 1 else "")
        arms[name + (f"+{wrapper}" if wrapper else "")] = _Arm(chosen, decides, wrap)
    return arms


def _reference(arms: Mapping[str, _Arm], baseline: str) -> str:
    for name in arms:
        if name == baseline or name.startswith(f"{baseline}/"):
            return name
    raise SettingError(f"baseline {baseline!r} is no arm; there are {', '.join(arms)}")


def _course(
    stream: Iterable[tuple[str, Any]],
    memory: Memory,
    learner: Learner,
    arm: _Arm,
    seed: int,
    group: str | None,
) -> _Course:
    def judge(moment: Moment) -> Mapping[str, float]:
        label, classes = getattr(learner, "label", "y"), getattr(learner, "classes_", None)
        return measures(moment.samples, label, group, classes)

    steps = list(run(stream, memory, learner, arm.trigger, judge={"before": judge}, rng=seed))
    counted = [step for step in steps[_WARM_UP:] if not (step.missing or step.late)]
    return _Course(
        [step.name for step in counted],
        [dict(step.scores) for step in counted],
        sum(step.trained for step in steps),
        sum(sum(step.seconds.values()) for step in steps),
    )


def _compared(
    courses: Mapping[str, Sequence[_Course]], reference: str, folder: Path | None
) -> Backtest:
    units = courses[reference][0].units
    if not units:
        raise SettingError(
            f"no unit counts, as the first {_WARM_UP} never do; give a stream of more units"
        )
    for name, several in courses.items():
        if any(course.units != units for course in several):
            raise ForeignError(
                f"{folder or 'the stream'}: {name!r} saw other units than {reference!r}; use "
                "another folder, and a stream that gives the same units each time"
            )
    names = dict.fromkeys(
        measure for several in courses.values() for c in several for s in c.scores for measure in s
    )
    rows: list[tuple[str, str, float, float, float, float]] = []
    for arm, measure in itertools.product(courses, names):
        values, others = (_values(courses[name], measure) for name in (arm, reference))
        known = values[~np.isnan(values)]
        gain = Gain(0.0, 0.0, 0.0) if arm == reference else paired(values - others)
        rows.append((arm, measure, float(known.mean()) if len(known) else math.nan, *gain))
    header = ("arm", "measure", "value", "gain", "low", "high")
    columns: dict[str, Any] = (
        dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
    )
    return Backtest(
        Samples({name: list(column) for name, column in columns.items()}),
        reference,
        tuple(units),
        {arm: float(np.mean([c.trainings for c in several])) for arm, several in courses.items()},
        {arm: float(np.mean([c.seconds for c in several])) for arm, several in courses.items()},
    )


def _values(courses: Sequence[_Course], measure: str) -> np.ndarray:
    """``(seeds, units)``; NaN where it could not be told."""
    return np.array([[s.get(measure, math.nan) for s in c.scores] for c in courses])


def _read(path: Path, about: Mapping[str, Any]) -> _Course | None:
    """What is stored; None if nothing is."""
    with storage_errors("read a result", path):
        if not path.is_file():
            return None
        text = path.read_bytes()
    try:
        document = json.loads(text)
        stored, course = document["about"], _Course(**document["course"])
        version = document["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is no result ({error!r}); remove it, and it is computed again"
        ) from error
    for name, value in json.loads(json.dumps({**about})).items():
        if version != _FORMAT or stored.get(name) != value:
            raise ForeignError(
                f"{path}: made with {name} = {stored.get(name)!r}, now asked for with {value!r}; "
                "give another folder"
            )
    return course


def _write(path: Path, about: Mapping[str, Any], course: _Course) -> None:
    document = {"format": _FORMAT, "about": about, "course": vars(course)}
    with storage_errors("write a result", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(document, indent=1).encode())
