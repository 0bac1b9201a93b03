"""Arms and seeds over one stream."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np

from memento import arguments
from memento.errors import ForeignError, MementoError, SettingError
from memento.files import digest, local_path
from memento.learner import Checkpointable, Learner, digest_of_state
from memento.loop import Moment, pairs_of, table
from memento.loop import run as run_loop
from memento.memory import Memory
from memento.policies import FIFO, Policy, Reservoir, policy_from_settings
from memento.retrain import Every, Trigger
from memento.retrain import trigger as make_trigger
from memento.samples import Samples
from memento.study.intervals import Gain, paired
from memento.study.judges import measures
from memento.study.runs import Progress, read_results, run_all
from memento.study.sending import Units, receive, send
from memento.study.verdict import TEMPERATURES, frontier, measure_at, verdict
from memento.training.calibrated import Calibrated, softened

if TYPE_CHECKING:
    from memento.runner.spec import Run

__all__ = ["Backtest", "backtest", "course"]

_WARM_UP = 3  # units before the first that counts
_RANDOM = "random"
_TABLE = "steps.csv"
_SAVE_EVERY = 2.0  # seconds; a save takes longer than a step of few samples

Wrapper = Callable[[Learner], Learner]


class _Arm(NamedTuple):
    policy: Policy
    trigger: Trigger
    wrapper: Wrapper | None
    wrapped: str = ""
    share: int = 1  # of the capacity
    temperatures: tuple[float, ...] = ()  # at which it is judged, too


class _Given(NamedTuple):
    """What the runs of a study in this process are made of."""

    stream: Iterable[tuple[str, Any]]
    make_learner: Callable[[int], Learner]
    arms: Mapping[str, _Arm]


#: By a name of its own, what `course` is called for in this process.
_GIVEN: dict[str, _Given] = {}


@dataclass(frozen=True)
class _Course:
    """What one arm achieved with one seed: names of units, measures of each, trainings, time."""

    units: list[str]
    scores: list[dict[str, float]]
    trainings: int
    seconds: float

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray]) -> _Course:
        """From the table of its steps."""
        counted = np.flatnonzero(columns["counted"])
        prefix = "score_"
        scores = {n.removeprefix(prefix): c for n, c in columns.items() if n.startswith(prefix)}
        seconds = columns["seconds"].astype(np.float64)
        known = seconds[~np.isnan(seconds)]  # those of steps before a stop are not
        return cls(
            [str(columns["name"][i]) for i in counted],
            [{n: float(c[i]) for n, c in scores.items() if not np.isnan(c[i])} for i in counted],
            int(columns["trained"].sum()),
            float(known.mean() * len(seconds)) if len(known) else math.nan,
        )


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
        frontier: What a temperature on the baseline's predictions does: ``temperature``, and the
            gain of each measure. Empty where predictions are no probabilities.
        above: By arm, how far its worst 1 % is above that of the baseline at the temperature that
            costs as much of the mean, with its interval.
        recommended: Name of the arm to use, which may be the baseline.
        verdict: Why, in plain words.
    """

    table: Samples
    baseline: str
    units: tuple[str, ...]
    trainings: Mapping[str, float]
    seconds: Mapping[str, float]
    frontier: Sequence[Mapping[str, float]]
    above: Mapping[str, Gain]
    recommended: str
    verdict: str


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
    controls: bool = True,
    group: str | None = None,
    folder: str | Path | None = None,
    learner: str = "",
    workers: int = 1,
    progress: Progress | None = None,
) -> Backtest:
    """Compare ways to remember and to retrain on a stream that is known.

    Every arm is a policy with a trigger, and a wrapper of the learner where some are given. Each
    unit is predicted before anything of it is trained on; the first three do not count.

    Args:
        stream: Pairs of a name and samples, as for `memento.run`; iterators are kept as a list.
        make_learner: Makes an untrained learner from a seed.
        policies: By name; ``random`` (a reservoir) and ``fifo`` if left out. A reservoir
            joins as ``random`` where that is the baseline and is not given.
        triggers: By name; training after every unit if left out. Arms are named
            ``policy/trigger`` where there are several, else as the policy.
        wrappers: From a learner to another, by name, beside the learner as it is; such arms are
            named ``policy+wrapper``.
        capacity: Samples in memory.
        seeds: How many, or which ones.
        baseline: Name of an arm, or of a policy: then its arm with the first trigger.
        controls: Whether to compare with what needs no selection: ``random-triple``, the baseline
            with three times the capacity, and ``random+T``, the baseline with a fitted
            temperature (`memento.training.Calibrated`), unless the learner predicts numbers.
        group: Column of groups, for the measure ``worst_group``; see `measures`.
        folder: Results of each arm and seed are kept there, in the layout of experiments, and not
            computed again, so that a comparison which was stopped goes on where it was, or seconds
            before: within an arm, too, if the learner has ``state`` and ``restore``. They know the
            stream, policies and triggers, not the code of learners and wrappers: take another
            folder when that changes, or another ``learner``.
        learner: What learners are called; results in the folder under another name are refused.
        workers: Processes at a time. For more than one, ``make_learner`` and wrappers are functions
            or classes of modules; policies and triggers have a ``kind``.
        progress: Called in the beginning, and after each run, with runs done, runs in all, and the
            name of the last one.

    Raises:
        SettingError: There is no such baseline, nothing to compare, or no unit counts; or something
            cannot be sent to other processes.
        ForeignError: The folder is of another comparison.
        DamagedError: Results in it are damaged.

    Example:
        >>> from memento.testing import ConstantLearner, ToyStream
        >>> result = backtest(
        ...     ToyStream(days=6, size=50), lambda seed: ConstantLearner(), capacity=100, seeds=2
        ... )
        >>> sorted(set(result.table["arm"].tolist())), result.baseline
        (['fifo', 'random', 'random+T', 'random-triple'], 'random')
        >>> len(result.frontier), result.recommended in result.trainings
        (8, True)
    """
    numbers = _seeds(seeds)
    arguments.require("capacity", capacity, arguments.whole())
    arguments.require("workers", workers, arguments.whole())
    arguments.require("baseline", baseline, arguments.text("the name of an arm"))
    arguments.require("group", group, arguments.optional(arguments.text()))
    arguments.require("stream", stream, arguments.ITERABLE)
    arguments.require("controls", controls, arguments.flag())
    arguments.require("progress", progress, arguments.optional(arguments.FUNCTION))
    arguments.require("make_learner", make_learner, arguments.FUNCTION)
    for name, wrap in (wrappers or {}).items() if isinstance(wrappers, Mapping) else ():
        arguments.require(f"wrapper {name!r}", wrap, arguments.FUNCTION)
    arms = _arms(policies, triggers, wrappers, baseline)
    reference = _reference(arms, baseline)
    arms[reference] = arms[reference]._replace(temperatures=TEMPERATURES)
    rivals = _controls(arms[reference], reference, make_learner, numbers[0]) if controls else {}
    rivals = {name: arm for name, arm in rivals.items() if name not in arms}
    arms |= rivals
    if iter(stream) is stream:
        stream = list(stream)
    given = _Given(stream, make_learner, arms)
    runs = list(itertools.product(arms, numbers))
    about: dict[str, Any] = {"capacity": capacity, "group": group}
    if folder is None and workers == 1:
        tables = []
        for done, (name, seed) in enumerate(runs, 1):
            tables.append(_steps(given, name, seed, **about))
            if progress is not None:
                progress(done, len(runs), f"{name}, seed {seed}")
        return _compared(runs, tables, reference, list(rivals), None)
    place = None if folder is None else local_path(folder, "folder")
    with tempfile.TemporaryDirectory(prefix="memento-study-") as scratch:
        tables = _through_runner(
            given, runs, about, learner, place or Path(scratch), workers, Path(scratch), progress
        )
    return _compared(runs, tables, reference, list(rivals), place)


def _through_runner(
    given: _Given,
    runs: Sequence[tuple[str, int]],
    about: Mapping[str, Any],
    learner: str,
    place: Path,
    workers: int,
    scratch: Path,
    progress: Progress | None,
) -> list[dict[str, np.ndarray]]:
    """The tables of steps of all runs, in order; what is in the folder is not computed again."""
    from memento.runner.spec import Experiment

    if any(place.glob("*/seed-*.json")):
        raise ForeignError(
            f"{place} holds results of an earlier version, which this one does not read; give "
            "another folder"
        )
    stream = _identity(given.stream)
    key = uuid.uuid4().hex
    if workers > 1:
        sent = scratch / "sent"
        sent.mkdir()
        key = str(sent)
        functions = {f"+{arm.wrapped}": arm.wrapper for arm in given.arms.values()}
        kinds = [kind for arm in given.arms.values() for kind in (arm.policy, arm.trigger)]
        for arm in given.arms.values():
            _check_storable(arm)
        send(sent, given.stream, {"make_learner": given.make_learner, **functions}, kinds)
    experiments = [
        Experiment(
            "backtest",
            _experiment_name(name, seed),
            "memento.study.engine:course",
            {
                "arm": name,
                "seed": seed,
                "policy": given.arms[name].policy.settings(),
                "trigger": given.arms[name].trigger.settings(),
                "wrapper": given.arms[name].wrapped,
                "share": given.arms[name].share,
                "temperatures": list(given.arms[name].temperatures),
                **about,
                "learner": learner,
                "stream": stream,
                "given": key,
            },
        )
        for name, seed in runs
    ]
    words = {e.key: f"{n}, seed {s}" for e, (n, s) in zip(experiments, runs, strict=True)}

    def tell(done: int, total: int, name: str) -> None:
        if progress is not None:
            progress(done, total, words.get(name, name))

    _GIVEN[key] = given
    try:
        outputs = run_all(experiments, place, workers=workers, places=("given",), progress=tell)
    finally:
        del _GIVEN[key]
    return [read_results(outputs[e.key], _TABLE, text=("name",)) for e in experiments]


def course(
    run: Run,
    *,
    arm: str,
    seed: int,
    policy: Mapping[str, Any],
    trigger: Mapping[str, Any],
    wrapper: str,
    share: int,
    temperatures: Sequence[float],
    capacity: int,
    group: str | None,
    learner: str,
    stream: str,
    given: str,
) -> None:
    """The body of a run: one arm with one seed; writes ``steps.csv``.

    Args:
        run: Its folders of results and of checkpoints.
        arm: Name of the arm.
        seed: Of memory, learner and trigger.
        policy: Settings of the memory's policy.
        trigger: Settings of the trigger.
        wrapper: Name of a wrapper; empty for none.
        share: Times the capacity.
        temperatures: At which the predictions are judged, too.
        capacity: Samples in memory.
        group: Column of groups, or None.
        learner: What learners are called, by which results of others are told apart.
        stream: A digest, by which results of another stream are told apart.
        given: Where the stream and functions are: a folder that was sent, or what this process has.
    """
    task = _GIVEN.get(given)
    if task is None:
        functions = receive(Path(given))
        made = _Arm(
            policy_from_settings(policy),
            make_trigger(**trigger),
            functions[f"+{wrapper}"],
            wrapper,
            share,
            tuple(temperatures),
        )
        task = _Given(Units(Path(given)), functions["make_learner"], {arm: made})
    table = _steps(
        task, arm, seed, capacity=capacity, group=group, checkpoint=run.checkpoint / "loop"
    )
    run.write(_TABLE, table)


def _check_storable(arm: _Arm) -> None:
    """Raise unless another process can make an equal policy and trigger from their settings."""
    for what, value, make in (
        ("policy", arm.policy, policy_from_settings),
        ("trigger", arm.trigger, lambda settings: make_trigger(**settings)),
    ):
        settings = json.loads(json.dumps(value.settings()))
        try:
            equal = make(settings).settings() == value.settings()
        except (SettingError, TypeError) as error:
            raise SettingError(
                f"{what} {value!r} cannot be sent to other processes ({error}); give its class a "
                "kind, or run with workers=1"
            ) from error
        if not equal:
            raise SettingError(
                f"{what} {value!r}: its settings do not make an equal one; give fields that are "
                "JSON values, or run with workers=1"
            )


def _experiment_name(arm: str, seed: int) -> str:
    """A name that is a folder's as well; different ones for different arms."""
    text = quote(arm, safe="+,=").replace("%", "@").replace("~", "@7E")
    if len(text) > 100:
        text = f"{text[:60]}@{digest(arm.encode())[:16]}"
    return f"seed-{seed}-{text}"


def _identity(stream: Iterable[tuple[str, Any]]) -> str:
    """A digest of names and samples of all units."""
    units = [
        [str(name), None if data is None else digest_of_state(Samples.borrow(data))]
        for name, data in pairs_of(stream)
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


_BY_NAME = arguments.instance(Mapping, "a mapping, as in {'density': DensityReservoir(...)}")


def _arms(
    policies: Mapping[str, Policy] | None,
    triggers: Mapping[str, Trigger] | None,
    wrappers: Mapping[str, Wrapper] | None,
    baseline: str,
) -> dict[str, _Arm]:
    """Every policy with every trigger and wrapper, by name, checked."""
    for name, named in (("policies", policies), ("triggers", triggers), ("wrappers", wrappers)):
        arguments.require(name, named, arguments.optional(_BY_NAME))
    policies = {_RANDOM: Reservoir(), "fifo": FIFO()} if policies is None else dict(policies)
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
        arms[name + (f"+{wrapper}" if wrapper else "")] = _Arm(chosen, decides, wrap, wrapper)
    return arms


def _controls(
    arm: _Arm, name: str, make_learner: Callable[[int], Learner], seed: int
) -> dict[str, _Arm]:
    """What an arm is compared with beside other ways to select."""
    found = {f"{name}-triple": arm._replace(share=3, temperatures=())}
    if arm.wrapper is None and getattr(make_learner(seed), "kind", None) != "regressor":
        softer = arm._replace(wrapper=Calibrated, wrapped="T", temperatures=())
        found[f"{name}+T"] = softer
    return found


def _reference(arms: Mapping[str, _Arm], baseline: str) -> str:
    for name in arms:
        if name == baseline or name.startswith(f"{baseline}/"):
            return name
    raise SettingError(f"baseline {baseline!r} is no arm; there are {', '.join(arms)}")


def _steps(
    given: _Given,
    name: str,
    seed: int,
    *,
    capacity: int,
    group: str | None,
    checkpoint: Path | None = None,
) -> dict[str, np.ndarray]:
    """The steps of one run, as columns: those of `loop.table`, ``seconds`` and ``counted``."""
    arm = given.arms[name]
    learner = given.make_learner(seed)
    learner = learner if arm.wrapper is None else arm.wrapper(learner)

    def judge(moment: Moment) -> Mapping[str, float]:
        samples = moment.samples
        label, classes = getattr(learner, "label", "y"), getattr(learner, "classes_", None)
        found = measures(samples, label, group, classes)
        if "logscore" in samples and "yhat" in samples and samples["yhat"].ndim == 2:
            for temperature in arm.temperatures:
                other = samples.with_columns(softened(samples, temperature))
                for name, value in measures(other, label, group, classes).items():
                    found[measure_at(name, temperature)] = value
        return found

    steps = list(
        run_loop(
            given.stream,
            Memory(arm.share * capacity, arm.policy, seed=seed),
            learner,
            arm.trigger,
            judge={"before": judge},
            checkpoint=checkpoint if _can_be_saved(learner) else None,
            save_every=_SAVE_EVERY,
            rng=seed,
        )
    )
    counted = [i >= _WARM_UP and not (s.missing or s.late) for i, s in enumerate(steps)]
    seconds = [math.nan if s.restored else sum(s.seconds.values()) for s in steps]
    columns = dict(table(steps)) if steps else {}
    for flag in ("due", "trained", "frozen", "missing", "late"):
        if flag in columns:
            columns[flag] = columns[flag].astype(np.int64)
    return {
        **columns,
        "name": np.array([str(step.name) for step in steps], np.str_),
        "trained": np.array([step.trained for step in steps], np.int64),
        "counted": np.array(counted, np.int64),
        "seconds": np.array(seconds, np.float64),
    }


def _can_be_saved(learner: Learner) -> bool:
    """Whether a run may stop on the way; others begin again."""
    if not isinstance(learner, Checkpointable):
        return False
    try:
        getattr(learner, "check_checkpoint", lambda: None)()
    except MementoError:
        return False
    return True


def _courses(
    runs: Sequence[tuple[str, int]],
    tables: Sequence[Mapping[str, np.ndarray]],
    reference: str,
    folder: Path | None,
) -> tuple[dict[str, list[_Course]], Sequence[str]]:
    """The courses of each arm, a seed each, and the units that all of them count.

    Raises:
        SettingError: No unit counts.
        ForeignError: The arms saw other units.
    """
    courses: dict[str, list[_Course]] = {}
    for (name, _), columns in zip(runs, tables, strict=True):
        courses.setdefault(name, []).append(_Course.of(columns))
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
    return courses, units


def _compared(
    runs: Sequence[tuple[str, int]],
    tables: Sequence[Mapping[str, np.ndarray]],
    reference: str,
    controls: Sequence[str],
    folder: Path | None,
) -> Backtest:
    """The arms' courses over the same units, compared with those of the baseline."""
    courses, units = _courses(runs, tables, reference, folder)
    names = dict.fromkeys(
        measure for several in courses.values() for c in several for s in c.scores for measure in s
    )
    values = {arm: {m: _values(several, m) for m in names} for arm, several in courses.items()}
    for arm in values:
        values[arm] = {m: v for m, v in values[arm].items() if not np.isnan(v).all()}
    rows: list[tuple[str, str, float, float, float, float]] = []
    for arm, measure in itertools.product(courses, (name for name in names if "@" not in name)):
        own, others = (_values(courses[name], measure) for name in (arm, reference))
        known = own[~np.isnan(own)]
        gain = Gain(0.0, 0.0, 0.0) if arm == reference else paired(own - others)
        rows.append((arm, measure, float(known.mean()) if len(known) else math.nan, *gain))
    said = verdict(values, reference, controls, len(courses[reference]))
    header = ("arm", "measure", "value", "gain", "low", "high")
    found: dict[str, Any] = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else {}
    return Backtest(
        Samples({name: list(column) for name, column in found.items()}),
        reference,
        tuple(units),
        {arm: float(np.mean([c.trainings for c in several])) for arm, several in courses.items()},
        {arm: float(np.mean([c.seconds for c in several])) for arm, several in courses.items()},
        frontier(values[reference]),
        said.above,
        said.recommended,
        said.text,
    )


def _values(courses: Sequence[_Course], measure: str) -> np.ndarray:
    """``(seeds, units)``; NaN where it could not be told."""
    return np.array([[s.get(measure, math.nan) for s in c.scores] for c in courses])
