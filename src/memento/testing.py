"""For tests, also yours: what policies have to keep to, proof that a memory resumes, a toy stream.

Example:
    >>> from memento import Reservoir
    >>> check_policy(Reservoir())
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from memento import arguments
from memento.arguments import Seed, check_fields, checked, require, whole
from memento.errors import InputError, SettingError
from memento.learner import labels_of, weights_of
from memento.memory import Memory
from memento.policies import Choice, Policy, State, named_policies, policy_from_settings
from memento.samples import Samples

__all__ = ["ConstantLearner", "ToyStream", "assert_resumes_exactly", "check_policy"]


@dataclass(frozen=True)
class ToyStream:
    """A small stream that drifts: days of samples with labels and correct predictions.

    The class of a sample is drawn from probabilities that depend on its inputs alone; these are its
    predictions. The inputs drift, so the classes that were rare at first become frequent.

    Args:
        days: How many units there are.
        size: Samples of each day.
        classes: How many labels there are, at least 2.
        drift: By how much the first input moves a day; the classes are 1 apart.
        seed: Equal seeds give equal streams.

    Iterating gives pairs of a name (``"day-000"``) and `Samples` with the columns

    - ``x``, ``(n, 3)`` float64: inputs;
    - ``y``, ``(n,)`` float64 in ``[0, classes)``, and ``label``, int64, its integer part: outputs;
    - ``yhat``, ``(n, classes)`` float64: the probabilities with which ``label`` was drawn;
    - ``loss``, float64: ``-ln`` of the probability of ``label``; ``correct``, bool: whether that is
      the largest;
    - ``committee``, ``(n, 3, classes)`` float64: predictions of three models that err;
    - ``day``, int64: from 0.

    Raises:
        SettingError: A number is out of its range.

    Example:
        >>> stream = ToyStream(days=3, size=10)
        >>> [(name, samples.size) for name, samples in stream]
        [('day-000', 10), ('day-001', 10), ('day-002', 10)]
    """

    days: Annotated[int, whole(0)] = 7
    size: Annotated[int, whole(0)] = 200
    classes: Annotated[int, whole(2)] = 5
    drift: Annotated[float, arguments.number(words="a finite number")] = 0.2
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def __len__(self) -> int:
        return self.days

    def __iter__(self) -> Iterator[tuple[str, Samples]]:
        return ((f"day-{day:03d}", self.day(day)) for day in range(self.days))

    @checked
    def day(self, day: Seed) -> Samples:
        """Samples of one day, the same ones every time."""
        rng = np.random.default_rng([self.seed, day])
        x = rng.normal(size=(self.size, 3))
        x[:, 0] += 1 + self.drift * day
        yhat = self._probabilities(x)
        drawn = rng.random((self.size, 1))
        label = (yhat.cumsum(axis=1)[:, :-1] < drawn).sum(axis=1)
        members = [self._probabilities(x + rng.normal(0, 0.5, size=x.shape)) for _ in range(3)]
        return Samples.borrow(
            x=x,
            y=label + rng.random(self.size),
            label=label,
            yhat=yhat,
            loss=-np.log(yhat[np.arange(self.size), label]),
            correct=yhat.argmax(axis=1) == label,
            committee=np.stack(members, axis=1),
            day=np.full(self.size, day, dtype=np.int64),
        )

    def _probabilities(self, x: np.ndarray) -> np.ndarray:
        distance = (x[:, :1] + 0.5 * x[:, 1:2]) - np.arange(self.classes)
        weights = np.exp(-0.5 * np.minimum(distance**2, 50.0))
        probabilities: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return probabilities


@checked
class ConstantLearner:
    """Predicts for every sample how frequent the labels were in training, whatever the inputs.

    Args:
        label: Column of integers from 0 to ``classes - 1``.
        classes: How many there are.

    Example:
        >>> learner = ConstantLearner(classes=2)
        >>> learner.fit(Samples(label=[0, 0, 1, 0, 0, 0]))
        >>> learner.annotate(Samples(label=[1]))["yhat"]
        array([[0.75, 0.25]])
    """

    def __init__(self, label: str = "label", classes: int = 5) -> None:
        self.label = label
        self.classes = classes
        self._probabilities: np.ndarray | None = None

    @property
    def trained(self) -> bool:
        """Whether `fit` was called."""
        return self._probabilities is not None

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        """Count labels, each with one added so that none is impossible."""
        labels = labels_of(samples, self.label, self.classes)
        if weights is not None:
            weights = weights_of(weights, len(labels))
        counts = np.bincount(labels, weights, minlength=self.classes) + 1.0
        self._probabilities = counts / counts.sum()

    def annotate(self, samples: Samples) -> Mapping[str, np.ndarray]:
        """Columns ``yhat`` and, where there are labels, ``logscore`` and ``loss`` [nats]."""
        if self._probabilities is None:
            raise SettingError("this learner predicts only after fit()")
        columns = {"yhat": np.tile(self._probabilities, (samples.size, 1))}
        if self.label in samples:
            labels = labels_of(samples, self.label, self.classes)
            columns["logscore"] = np.log(self._probabilities[labels])
            columns["loss"] = -columns["logscore"]
        return columns

    def state(self) -> Mapping[str, np.ndarray]:
        """What was counted."""
        return {} if self._probabilities is None else {"probabilities": self._probabilities}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what `state` described."""
        self._probabilities = state.get("probabilities")


@checked
def assert_resumes_exactly(make_memory: Callable[[], Memory], stream: Iterable[Any]) -> None:
    """Prove that a memory which is stopped goes on as if it had not been.

    Three memories get the same stream: one runs straight through, one is saved to disk and loaded
    after every insert, one goes through ``dump`` and ``restore``. After every insert their
    contents, marks, counters, references and generators have to be the same, bit for bit. Halfway
    through, all are declared trained.

    Args:
        make_memory: Makes the memory, equal each time, with a policy of its own.
        stream: Units of samples (anything that `Samples` accepts), or pairs of a name and samples.

    Raises:
        AssertionError: With the unit, what differs, and both values.

    Example:
        >>> from memento import Reservoir
        >>> assert_resumes_exactly(lambda: Memory(50, Reservoir(), seed=1), ToyStream(days=4))
    """
    units = _units(stream)
    straight, restored = make_memory(), make_memory()
    with tempfile.TemporaryDirectory() as name:
        make_memory().save(name)
        for number, unit in enumerate(units):
            loaded = _load(Path(name), make_memory)
            restored = _restore(restored, make_memory)
            for memory in (straight, loaded, restored):
                memory.insert(unit)
                if number == len(units) // 2:
                    memory.mark_trained()
            loaded.save(name)
            for how, memory in (("saved and loaded", loaded), ("dumped and restored", restored)):
                _assert_equal(
                    memory, straight, f"resume: unit {number}: {how} before this insert, the memory"
                )
        _assert_equal(_load(Path(name), make_memory), straight, "resume: at the end, loaded, it")


def _policy_to_load(make_memory: Callable[[], Memory]) -> Policy | None:
    """None where the policy is found by its name, as in ``Memory.load(path)``."""
    policy = make_memory().policy
    return None if named_policies.get(str(policy.kind)) is type(policy) else policy


def _load(folder: Path, make_memory: Callable[[], Memory]) -> Memory:
    return Memory.load(folder, _policy_to_load(make_memory))


def _restore(memory: Memory, make_memory: Callable[[], Memory]) -> Memory:
    arrays, documents = memory.dump()
    # Through JSON, and with copies: nothing may be handed on in any other way.
    copies = {name: array.copy() for name, array in arrays.items()}
    documents = json.loads(json.dumps(documents))
    return Memory.restore(copies, documents, _policy_to_load(make_memory))


def check_policy(
    policy: Policy, stream: Iterable[Any] | None = None, *, capacity: int | None = None
) -> None:
    """Check that a policy keeps to everything that a memory relies on.

    - *choice*: at most ``capacity`` rows, ascending, without repetition; one mark for every row, no
      Python objects; counters that are numbers. From an empty memory, with large inserts, single
      samples and, where the policy allows it, a capacity of 1.
    - *inputs*: neither samples nor state are changed.
    - *aliasing*: what callers do to their arrays after an insert has no effect.
    - *columns*: further columns (strings, datetimes, bools, images, structured rows) go along.
    - *determinism*: the same seed gives the same memory, with other memories served in between.
    - *failure*: bad values are accepted or raise an `InputError`; afterwards the memory, including
      its generator, is as before. So it is when a choice is interrupted.
    - *settings*: they are JSON and make an equal policy.
    - *weights*: None, or one positive number for each row.
    - *resume*: see `assert_resumes_exactly`.

    Args:
        policy: The policy to be checked.
        stream: Units of samples with the columns that the policy needs, together more than
            ``capacity``; or pairs of a name and samples. A `ToyStream` if left out.
        capacity: Of the memories; if left out, the smallest power of 2 from 64 that the policy
            allows, or None if it allows only that.

    Raises:
        AssertionError: The name of the clause, what was found, and what was expected.

    Example:
        >>> from memento import FIFO
        >>> check_policy(FIFO(), [{"y": [1, 2]}, {"y": [3]}], capacity=2)
    """
    if not isinstance(policy, Policy):
        raise AssertionError(f"policy: found {policy!r}, expected an instance of a Policy")
    require("capacity", capacity, arguments.optional(whole()))
    if capacity is None:
        capacity = _allowed_capacity(policy)
    if stream is None:
        stream = ToyStream(days=5, size=64 if capacity is None else max(24, capacity // 2))
    case = _Case(policy, _units(stream), capacity)
    for clause in (
        _check_choices,
        _check_settings,
        _check_aliasing,
        _check_columns,
        _check_determinism,
        _check_failure,
        _check_resume,
    ):
        clause(case)


@dataclass(frozen=True)
class _Case:
    policy: Policy
    units: list[Samples]
    capacity: int | None

    def memory(self, capacity: int | None = None, policy: Policy | None = None) -> Memory:
        return Memory(capacity or self.capacity, policy or self.policy, seed=3)

    def filled(self) -> Memory:
        memory = self.memory()
        for unit in self.units[:-1]:
            memory.insert(unit)
        return memory


def _allowed_capacity(policy: Policy) -> int | None:
    capacities: list[int | None] = [*(1 << i for i in range(6, 21)), None]
    for capacity in capacities:
        if _allows(policy, capacity):
            return capacity
    raise AssertionError(
        "capacity: found none from 64 to 1,048,576 that check_capacity allows; give one"
    )


def _allows(policy: Policy, capacity: int | None) -> bool:
    try:
        policy.check_capacity(capacity)
    except SettingError:
        return False
    return True


def _units(stream: Iterable[Any]) -> list[Samples]:
    require("stream", stream, arguments.ITERABLE)
    units = [
        Samples(unit[1] if isinstance(unit, tuple) and isinstance(unit[0], str) else unit)
        for unit in stream
    ]
    units = [unit for unit in units if unit.size]
    if len(units) < 2:
        raise AssertionError(f"stream: found {len(units)} units with samples, expected 2 or more")
    return units


def _check_choices(case: _Case) -> None:
    """Clauses choice, inputs and weights, on the policy alone."""
    whole = Samples.concat(case.units)
    singles = list(Samples.concat([unit.rows(0, 8) for unit in case.units]).chunks(1))
    _follow(case, case.units, case.capacity, "units")
    _follow(case, [whole, whole.rows(0, 1)], case.capacity, "all at once")
    _follow(case, [case.units[0], *singles], case.capacity, "single samples")
    _follow(case, singles, case.capacity, "single samples from the start")
    if _allows(case.policy, 1):
        _follow(case, [*singles[:8], *case.units[1:]], 1, "a capacity of 1")


def _follow(case: _Case, units: list[Samples], capacity: int | None, where: str) -> None:
    """Do what a memory does, with checks at every step."""
    policy = case.policy
    held, state, rng = Samples(), State(), np.random.default_rng(5)
    _check_weights(policy.weights(state, 0), 0, f"with {where}, before the first insert")
    for number, unit in enumerate(units):
        here = f"with {where}, unit {number}"
        fresh = Samples(unit)
        before = _content(held, fresh, state)
        try:
            policy.check(fresh)
            choice = policy.choose(held, fresh, capacity, state, rng)
        except Exception as error:
            raise AssertionError(
                f"choice: {here}: found {error!r}, expected a choice: these samples are valid"
            ) from error
        after = _content(held, fresh, state)
        for name, value in before.items():
            if name not in after or not _equal(after[name], value):
                raise AssertionError(
                    f"inputs: {here}: {name} were changed: found {after.get(name)!r}, expected "
                    f"{value!r}"
                )
        if len(after) != len(before):
            raise AssertionError(
                f"inputs: {here}: found the new entries {sorted(set(after) - set(before))} in what "
                "was handed in, expected none"
            )
        _check_choice(choice, held.size + fresh.size, capacity, here)
        joined = Samples.concat([held, fresh]) if held.size else fresh
        held = joined.take(choice.rows)
        marks = {name: np.array(mark) for name, mark in choice.marks.items()}
        state = State(dict(choice.counters), marks)
        _check_weights(policy.weights(state, held.size), held.size, here)


def _content(held: Samples, fresh: Samples, state: State) -> dict[str, Any]:
    """Copies of everything that is handed to a policy."""
    return {
        **{f"held values of {name!r}": array.copy() for name, array in held.items()},
        **{f"fresh values of {name!r}": array.copy() for name, array in fresh.items()},
        **{f"marks {name!r}": np.array(mark) for name, mark in state.marks.items()},
        "counters": dict(state.counters),
    }


def _check_choice(choice: Choice, size: int, capacity: int | None, here: str) -> None:
    """Clause choice, of one choice among ``size`` rows."""
    rows = np.asarray(choice.rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise AssertionError(
            f"choice: {here}: found rows of type {rows.dtype} and shape {rows.shape}, expected "
            "integers with one axis"
        )
    rows = rows.astype(np.int64)
    if capacity is not None and len(rows) > capacity:
        raise AssertionError(
            f"choice: {here}: found {len(rows)} rows, expected at most the capacity, {capacity}"
        )
    if len(rows) and (rows[0] < 0 or rows.max() >= size):
        raise AssertionError(
            f"choice: {here}: found rows from {rows.min()} to {rows.max()}, expected 0 to "
            f"{size - 1}"
        )
    if (np.diff(rows) <= 0).any():
        place = int(np.argmax(np.diff(rows) <= 0))
        raise AssertionError(
            f"choice: {here}: found row {rows[place + 1]} after row {rows[place]}, expected "
            "ascending rows without repetition"
        )
    for name, mark in choice.marks.items():
        mark = np.asarray(mark)
        if mark.ndim < 1 or len(mark) != len(rows) or mark.dtype.hasobject:
            raise AssertionError(
                f"choice: {here}: found marks {name!r} of type {mark.dtype} and shape "
                f"{mark.shape}, expected one entry for each of {len(rows)} rows, without Python "
                "objects"
            )
    for name, value in choice.counters.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise AssertionError(
                f"choice: {here}: found {value!r} of type {type(value).__name__} as counter "
                f"{name!r}, expected an int or a float (of Python, so that it can be saved)"
            )


def _check_weights(weights: np.ndarray | None, size: int, here: str) -> None:
    if weights is None:
        return
    weights = np.asarray(weights)
    if weights.shape != (size,) or weights.dtype.kind != "f":
        raise AssertionError(
            f"weights: {here}: found type {weights.dtype} and shape {weights.shape}, expected "
            f"({size},) floats, or None"
        )
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise AssertionError(
            f"weights: {here}: found values from {weights.min()} to {weights.max()}, expected "
            "positive finite numbers"
        )


def _check_aliasing(case: _Case) -> None:
    straight, abused = case.memory(), case.memory()
    for number, unit in enumerate(case.units):
        straight.insert(unit)
        columns = {name: array.copy() for name, array in unit.items()}
        abused.insert(columns)
        for array in columns.values():
            array[...] = array[::-1].copy()
            array[len(array) // 2 :] = array[:1]
        _assert_equal(
            abused,
            straight,
            f"aliasing: unit {number}: after the caller overwrote what it had inserted, the memory",
        )


def _check_columns(case: _Case) -> None:
    """Clause columns: those of any type go along with their samples."""
    straight, laden = case.memory(), case.memory()
    for unit in case.units:
        straight.insert(unit)
    inserted: list[Samples] = []
    for unit in case.units:
        inserted.append(unit.with_columns(_luggage(sum(p.size for p in inserted), unit.size)))
        try:
            laden.insert(inserted[-1])
        except Exception as error:
            raise AssertionError(
                f"columns: found {error!r}, expected that columns of any type go along: "
                f"{inserted[-1]!r}"
            ) from error
    whole = Samples.concat(inserted)
    held = laden.samples
    expected = whole.take(held["_number"])
    for name, array in held.items():
        if not _equal(array, expected[name]):
            raise AssertionError(
                f"columns: found other values of {name!r} in the memory, expected those that came "
                "with the same samples"
            )


def _luggage(start: int, size: int) -> dict[str, np.ndarray]:
    """Columns of all kinds, with values that tell the rows apart."""
    numbers = np.arange(start, start + size)
    images = np.repeat((numbers % 251).astype(np.uint8), 12).reshape(size, 3, 4)
    rows = np.zeros(size, dtype=[("id", "i8"), ("share", "f4"), ("name", "U4")])
    rows["id"], rows["share"], rows["name"] = numbers, numbers / 7, "row"
    return {
        "_number": numbers,
        "_string": np.array([f"{n}" * (1 + n % 3) for n in numbers], dtype=np.str_),
        "_bytes": np.array([b"%d" % n for n in numbers], dtype=np.bytes_),
        "_time": np.datetime64("2024-01-01T00:00:00", "ns") + numbers.astype("timedelta64[h]"),
        "_flag": numbers % 3 == 0,
        "_image": images,
        "_row": rows,
        "_half": numbers.astype(np.float16),
        "_complex": numbers * (1 + 2j),
        "_nothing": np.empty((size, 0)),
    }


def _check_determinism(case: _Case) -> None:
    first, again, besides = case.memory(), case.memory(), case.memory()
    for unit in case.units:
        first.insert(unit)
    for unit in case.units:
        again.insert(unit)
        besides.insert(unit.take(np.arange(unit.size)[::-1]))
    _assert_equal(again, first, "determinism: with the same seed, the memory")


def _check_failure(case: _Case) -> None:
    """Clause failure: what is refused or interrupted changes nothing."""
    memory = case.filled()
    before = memory.dump()
    unit = case.units[-1]
    for what, bad in _bad_units(unit):
        trial = Memory.restore(*_copy(before), case.policy)
        try:
            with warnings.catch_warnings():  # that a column is missing, say
                warnings.simplefilter("ignore")
                trial.insert(bad)
        except InputError:
            _assert_same_dump(
                trial.dump(), before, f"failure: after {what} were refused, the memory"
            )
        except Exception as error:
            raise AssertionError(
                f"failure: {what}: found {error!r}, expected an InputError (raised by check), or "
                "that they are accepted"
            ) from error
    interrupted = Memory.restore(*_copy(before), _Interrupted(case.policy))
    with contextlib.suppress(_InterruptionError):
        interrupted.insert(unit)
    _assert_same_dump(
        interrupted.dump(), before, "failure: after a choice was interrupted, the memory"
    )


def _bad_units(unit: Samples) -> Iterator[tuple[str, Samples]]:
    for name in unit:
        if len(unit) > 1:
            yield f"samples without {name!r}", unit.without(name)
    for name, array in unit.items():
        if array.dtype.kind == "f" and array.size:
            bad = array.copy()
            bad[len(bad) // 2] = np.nan
            yield f"NaN in {name!r}", unit.with_columns({name: bad})
        yield f"another width of {name!r}", unit.with_columns({name: np.stack([array, array], 1)})


class _InterruptionError(Exception):
    """Stands for whatever stops an insert."""


@dataclass(frozen=True)
class _Interrupted(Policy):
    """Chooses as another policy does, and then fails."""

    policy: Policy

    def settings(self) -> dict[str, Any]:
        return self.policy.settings()

    def check(self, fresh: Samples) -> None:
        self.policy.check(fresh)

    def choose(
        self,
        held: Samples,
        fresh: Samples,
        capacity: int | None,
        state: State,
        rng: np.random.Generator,
    ) -> Choice:
        self.policy.choose(held, fresh, capacity, state, rng)
        raise _InterruptionError


def _check_settings(case: _Case) -> None:
    """Clause settings: they are JSON and make an equal policy."""
    settings = case.policy.settings()
    try:
        stored = json.loads(json.dumps(settings))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"settings: found {settings!r}, expected JSON values") from error
    if named_policies.get(str(case.policy.kind)) is not type(case.policy):
        return  # not registered by name: handed to Memory.load by the caller
    try:
        made = policy_from_settings(stored)
    except Exception as error:
        raise AssertionError(
            f"settings: found {error!r} when making a policy of {stored!r}, expected "
            f"{case.policy!r}"
        ) from error
    if type(made) is not type(case.policy) or made.settings() != settings:
        raise AssertionError(
            f"settings: found {made!r} after a round trip, expected {case.policy!r}"
        )


def _check_resume(case: _Case) -> None:
    def make_memory() -> Memory:
        try:
            policy = policy_from_settings(case.policy.settings())
        except SettingError:
            policy = case.policy
        return case.memory(policy=policy)

    assert_resumes_exactly(make_memory, case.units)


def _copy(
    dump: tuple[dict[str, np.ndarray], dict[str, Any]],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, documents = dump
    return {name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(documents))


def _assert_equal(found: Memory, expected: Memory, what: str) -> None:
    _assert_same_dump(found.dump(), expected.dump(), what)


def _assert_same_dump(
    found: tuple[Mapping[str, np.ndarray], Mapping[str, Any]],
    expected: tuple[Mapping[str, np.ndarray], Mapping[str, Any]],
    what: str,
) -> None:
    """Compare everything that makes a memory, bit for bit."""
    for got, wanted in zip(found, expected, strict=True):
        if set(got) != set(wanted):
            raise AssertionError(f"{what} has {sorted(got)}, expected {sorted(wanted)}")
        for name, value in wanted.items():
            if not _equal(got[name], value):
                raise AssertionError(
                    f"{what} differs in {name!r}: found {_short(got[name])}, expected "
                    f"{_short(value)}"
                )


def _equal(found: Any, expected: Any) -> bool:
    """Whether two values are the same, bit for bit; NaN equals NaN."""
    if not isinstance(expected, np.ndarray):
        return bool(json.dumps(found) == json.dumps(expected))
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    return bool(np.ascontiguousarray(found).tobytes() == np.ascontiguousarray(expected).tobytes())


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)} {np.array2string(value, threshold=6)}"
    return repr(value)
