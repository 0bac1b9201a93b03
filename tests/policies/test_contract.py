"""Every policy keeps to the contract, and the suite that says so catches those that do not."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from memento import (
    FIFO,
    Choice,
    ClassBalancedReservoir,
    DailyWindow,
    DensityReservoir,
    FacilityLocation,
    GradientSampleSelection,
    Herding,
    JensenShannon,
    KCenterGreedy,
    LossAwareReservoir,
    LossReservoir,
    Memento,
    Memory,
    Metric,
    Minkowski,
    Policy,
    QueryByCommittee,
    Reservoir,
    Samples,
    Unbounded,
    named_policies,
    policies,
)
from memento.errors import SettingError
from memento.testing import ToyStream, assert_resumes_exactly, check_policy

LABELS = JensenShannon.of_labels("label", classes=5)
PREDICTIONS = JensenShannon.of_probabilities("yhat")


@dataclass(frozen=True)
class Lottery(Policy):
    """As a user writes one: registered by name, with a mark, a counter and weights."""

    kind: ClassVar[str] = "test-lottery"

    prizes: float = 0.5

    def choose(self, held, fresh, capacity, state, rng):
        old = state.marks["ticket"] if held.size else np.empty(0)
        tickets = np.concatenate([old, rng.random(fresh.size) ** self.prizes])
        rows = np.sort(np.argsort(tickets)[:capacity])
        draws = state.counters.get("draws", 0) + fresh.size
        return Choice(rows, {"draws": draws}, {"ticket": tickets[rows]})

    def weights(self, state, size):
        return np.full(size, 1.0 + state.counters.get("draws", 0))


class Alternate(Policy):
    """The least that a user has to write: no dataclass, no name, no settings of its own."""

    def choose(self, held, fresh, capacity, state, rng):
        rows = np.arange(held.size + fresh.size)
        return Choice(rows[::-1][::2][:capacity][::-1])

    def settings(self):
        return {"kind": "Alternate"}


POLICIES = {
    "memento": Memento([LABELS, PREDICTIONS], batch_size=8),
    "memento, deterministic": Memento([LABELS], batch_size=8, temperature=0.0, sort_by=["y"]),
    "memento, remainder and fill": Memento(
        [LABELS, Minkowski("x")], batch_size=7, temperature=np.inf, remainder="keep", fill=True
    ),
    "memento, defaults": Memento([LABELS, PREDICTIONS]),
    "density reservoir": DensityReservoir([LABELS, PREDICTIONS], batch_size=8),
    "density reservoir, ageing": DensityReservoir([LABELS], batch_size=8, half_life=2.0),
    "reservoir": Reservoir(),
    "reservoir, forgetting": Reservoir(forget=0.3),
    "fifo": FIFO(),
    "unbounded": Unbounded(),
    "window": DailyWindow(days=3),
    "window, by column": DailyWindow(days=3, decay=0.5, day="day"),
    "loss aware": LossAwareReservoir(label="label", loss="loss"),
    "loss aware, none yet": LossAwareReservoir("label", "harm", missing="random"),
    "loss reservoir": LossReservoir(),
    "loss reservoir, ageing": LossReservoir(scale="absolute", half_life=2.0),
    "loss reservoir, none yet": LossReservoir("harm"),
    "class balanced": ClassBalancedReservoir("label"),
    "herding": Herding("x", "label"),
    "herding, no labels": Herding("yhat", label=None, normalise=False),
    "herding, none yet": Herding(label="label", missing="random"),
    "k-center": KCenterGreedy("x"),
    "k-center, one feature": KCenterGreedy("y"),
    "k-center, none yet": KCenterGreedy(missing="random"),
    "facility location": FacilityLocation("x"),
    "facility location, regions": FacilityLocation("x", label="label", region=5),
    "facility location, none yet": FacilityLocation(missing="random"),
    "gradients": GradientSampleSelection("x"),
    "gradients, any": GradientSampleSelection("committee", compared=3, threshold=1.0),
    "gradients, none yet": GradientSampleSelection(missing="random"),
    "committee": QueryByCommittee(members=2, always_first=True),
    "committee, none yet": QueryByCommittee(column="votes"),
    "loss": Metric.of_loss(),
    "loss of batches": Metric.of_loss(batch_size=8, temperature=0.0),
    "confidence": Metric.of_confidence(),
    "label frequency": Metric.of_label_frequency("label"),
    "flag": Metric.of_flag("correct", keep=False),
    "any column, batches": Metric("y", batch_size=6, remainder="keep", sort_by=["label"]),
    "a user's": Lottery(),
    "a user's, minimal": Alternate(),
}


@pytest.mark.parametrize("name", POLICIES)
def test_contract(name):
    check_policy(POLICIES[name])


def test_every_exported_policy_is_covered():
    exported = {
        thing
        for thing in vars(policies).values()
        if inspect.isclass(thing) and issubclass(thing, Policy) and thing is not Policy
    }
    assert exported <= {type(policy) for policy in POLICIES.values()}
    assert exported <= set(named_policies.values())


@pytest.mark.parametrize("name", ["reservoir", "memento", "a user's"])
def test_resume_with_generators_of_all_kinds(name):
    for bits in (np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM):
        assert_resumes_exactly(
            lambda bits=bits: Memory(40, POLICIES[name], np.random.Generator(bits(4))),
            ToyStream(days=3, size=30),
        )


# ------------------------------------------------------------------------- what the suite catches


class Broken(Policy):
    """Keeps the newest; each subclass does one thing wrong."""

    def settings(self):
        return {"kind": type(self).__name__}

    def choose(self, held, fresh, capacity, state, rng):
        size = held.size + fresh.size
        rows = self.rows(np.arange(size)[-capacity:], size, rng)
        marks = {name: np.asarray(mark) for name, mark in self.marks(rows).items()}
        return Choice(rows, self.counters(rows), marks)

    def rows(self, rows, size, rng):
        return rows

    def marks(self, rows):
        return {"mark": np.arange(len(rows))[::-1]}

    def counters(self, rows):
        return {}


class TooMany(Broken):
    def rows(self, rows, size, rng):
        return np.arange(size)


class Descending(Broken):
    def rows(self, rows, size, rng):
        return rows[::-1]


class Repeating(Broken):
    def rows(self, rows, size, rng):
        return np.sort(np.append(rows[1:], rows[-1:]))


class OutOfRange(Broken):
    def rows(self, rows, size, rng):
        return rows + 1


class Negative(Broken):
    def rows(self, rows, size, rng):
        return rows - size


class FloatRows(Broken):
    def rows(self, rows, size, rng):
        return rows.astype(float)


class MaskRows(Broken):
    def rows(self, rows, size, rng):
        return np.isin(np.arange(size), rows)


class ShortMarks(Broken):
    def marks(self, rows):
        return {"mark": np.zeros(max(0, len(rows) - 1))}


class ObjectMarks(Broken):
    def marks(self, rows):
        return {"mark": np.array([None] * len(rows), dtype=object)}


class NumpyCounters(Broken):
    def counters(self, rows):
        return {"seen": np.int64(len(rows))}


class NeedsHeldColumns(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        held["y"].sum()
        return super().choose(held, fresh, capacity, state, rng)


class NeedsTwo(Broken):
    def check(self, fresh):
        if fresh.size < 2:
            raise ValueError("too few")


class WritesFresh(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        fresh["loss"].flags.writeable = True
        fresh["loss"].sort()
        return super().choose(held, fresh, capacity, state, rng)


class WritesHeld(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        if held.size:
            held["y"].flags.writeable = True
            held["y"][0] += 1
        return super().choose(held, fresh, capacity, state, rng)


class WritesMarks(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        for mark in state.marks.values():
            mark.sort()
        return super().choose(held, fresh, capacity, state, rng)


class WritesCounters(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        state.counters["inserts"] = state.counters.get("inserts", 0) + 1
        return super().choose(held, fresh, capacity, state, rng)


class AddsMarks(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        state.marks["more"] = np.zeros(3)
        return super().choose(held, fresh, capacity, state, rng)


def _origin(rng):
    """Tells generators apart by where they began, which copies share."""
    return str(rng.bit_generator.seed_seq.entropy)


class KeepsInput(Broken):
    """Looks at what came last time, which by now belongs to the caller again."""

    def __init__(self):
        self.last = {}

    def choose(self, held, fresh, capacity, state, rng):
        before = self.last.get(_origin(rng))
        self.last[_origin(rng)] = fresh
        rows = np.arange(held.size + fresh.size)[-capacity:]
        if before is not None and before["loss"][0] == before["loss"][-1]:
            rows = rows[1:]
        return Choice(rows)


class OnlyNumbers(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        for column in fresh.values():
            column.astype(float)
        return super().choose(held, fresh, capacity, state, rng)


class OwnRandomness(Broken):
    def rows(self, rows, size, rng):
        return rows[np.random.default_rng().random(len(rows)) < 0.5]


class OwnState(Broken):
    """Counts in itself, so that other memories and earlier runs interfere."""

    def __init__(self):
        self.inserts = 0

    def rows(self, rows, size, rng):
        self.inserts += 1
        return rows[self.inserts % 3 :]


class OtherErrors(Broken):
    def choose(self, held, fresh, capacity, state, rng):
        if np.isnan(fresh["loss"]).any():
            raise ArithmeticError("NaN")
        return super().choose(held, fresh, capacity, state, rng)


class SettingsNotJSON(Broken):
    def settings(self):
        return {"kind": "x", "function": len}


class ShortWeights(Broken):
    def weights(self, state, size):
        return np.ones(max(0, size - 1))


class NegativeWeights(Broken):
    def weights(self, state, size):
        return np.ones(size) - 1


class IntegerWeights(Broken):
    def weights(self, state, size):
        return np.ones(size, int)


class HiddenState(Broken):
    """Knows a generator from disk, whose origin is 0, so only a restored memory differs."""

    def rows(self, rows, size, rng):
        return rows[int(_origin(rng) == "0") :]


CAUGHT = {
    TooMany: "choice: with units, unit 2: found 96 rows, expected at most the capacity",
    Descending: "choice: .* found row .* after row .*, expected ascending",
    Repeating: "choice: .* without repetition",
    OutOfRange: "choice: .* found rows from .* to .*, expected 0 to",
    Negative: "choice: .* found rows from -",
    FloatRows: "choice: .* type float64",
    MaskRows: "choice: .* type bool",
    ShortMarks: "choice: .* found marks 'mark' .* expected one entry for each",
    ObjectMarks: "choice: .* without Python objects",
    NumpyCounters: "choice: .* counter 'seen', expected an int or a float",
    NeedsHeldColumns: "choice: with units, unit 0: found KeyError",
    NeedsTwo: "choice: with all at once, unit 1: found ValueError",
    WritesFresh: "inputs: .* fresh values of 'loss' were changed",
    WritesHeld: "inputs: .* held values of 'y' were changed",
    WritesMarks: "inputs: .* marks 'mark' were changed",
    WritesCounters: "inputs: .* counters were changed",
    AddsMarks: "inputs: .* new entries",
    KeepsInput: "aliasing: unit 1: after the caller overwrote",
    OnlyNumbers: "columns: found ",
    OwnRandomness: "(determinism|aliasing): ",
    OwnState: "(determinism|aliasing): ",
    OtherErrors: "failure: NaN in 'loss': found ArithmeticError.* expected an InputError",
    SettingsNotJSON: "settings: .* expected JSON",
    ShortWeights: r"weights: .* shape .*, expected \(.*,\) floats",
    NegativeWeights: "weights: .* expected positive",
    IntegerWeights: "weights: .* type int64",
    HiddenState: "resume: unit 0: saved and loaded before this insert, the memory differs",
}


@pytest.mark.parametrize("broken", CAUGHT, ids=lambda broken: broken.__name__)
def test_broken_policies_are_caught(broken):
    with pytest.raises(AssertionError, match=re.compile(CAUGHT[broken], re.DOTALL)):
        check_policy(broken())


def test_every_broken_policy_is_tried():
    here = [b for b in Broken.__subclasses__() if b.__qualname__ == b.__name__]
    assert set(CAUGHT) == set(here)
    check_policy(Broken())


@dataclass(frozen=True)
class Forgetful(Policy):
    """Registered by name, with settings that are set by the test."""

    kind: ClassVar[str] = "test-forgetful"

    share: float = 0.5

    def choose(self, held, fresh, capacity, state, rng):
        return Choice(np.arange(held.size + fresh.size)[-capacity:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "test-forgetful", "part": 0.5}, "settings: found SettingError"),
        ({"kind": "test-forgetful", "share": np.pi}, "settings: found .* after a round trip"),
    ],
)
def test_settings_that_do_not_make_an_equal_policy_are_caught(monkeypatch, settings, message):
    check_policy(Forgetful())
    sane = Forgetful.settings
    monkeypatch.setattr(
        Forgetful, "settings", lambda self: settings if self.share == 0.5 else sane(Forgetful(0.1))
    )
    with pytest.raises(AssertionError, match=message):
        check_policy(Forgetful())


def test_what_is_no_policy_is_caught():
    with pytest.raises(AssertionError, match="policy: found <class"):
        check_policy(FIFO)


def test_a_stream_needs_two_units():
    with pytest.raises(AssertionError, match="stream: found 1 units"):
        check_policy(FIFO(), [{"y": [1]}])


def test_no_capacity_will_do():
    class Picky(Broken):
        def check_capacity(self, capacity):
            raise SettingError("no")

    with pytest.raises(AssertionError, match="capacity: found none"):
        check_policy(Picky())


def test_a_memory_that_resumes_only_almost_is_caught():
    """The seed differs each time, which only the generator's state shows."""
    seeds = iter(range(100))
    with pytest.raises(AssertionError, match=r"resume: .* differs in"):
        assert_resumes_exactly(
            lambda: Memory(10, Reservoir(), seed=next(seeds)), ToyStream(days=3, size=20)
        )


def test_samples_in_any_form_make_a_stream():
    assert_resumes_exactly(
        lambda: Memory(3, FIFO()), [("monday", {"y": [1, 2]}), Samples(y=[3]), {"y": [4, 5]}]
    )
