"""One unit at a time: decides as the loop does, keeps what it needs in the memory, errs like it."""

from __future__ import annotations

import numpy as np
import pytest

from memento import (
    FIFO,
    Every,
    JensenShannon,
    Memory,
    OnArrivals,
    OnCount,
    Reservoir,
    SampleSpace,
    observe,
    reconsider,
    retrained,
)
from memento.errors import SchemaError, SettingError

SPACE = SampleSpace([JensenShannon.of_labels("y", 9), JensenShannon.of_probabilities("yhat")])


def unit(rng, size=600, new=0.0, sharp=2.0):
    y = rng.integers(0, 3, size)
    logits = rng.normal(size=(size, 4))
    logits[np.arange(size), y] += sharp
    yhat = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {"y": np.where(rng.random(size) < new, 3, y), "yhat": yhat}


def model(samples):
    return {"yhat": np.tile([0.4, 0.3, 0.2, 0.1], (samples.size, 1))}


@pytest.mark.parametrize("stop", [False, True])
def test_over_a_fortnight(tmp_path, stop):
    """Quiet for nine units, then a new class: due then, and neither before nor after a training."""
    rng, memory, due = np.random.default_rng(0), Memory(2000, Reservoir()), []
    for number in range(12):
        data = unit(rng, new=0.05 if number >= 9 else 0.0)
        _, decision = observe(memory, data, OnArrivals(space=SPACE))
        if decision.due:
            due.append(number)
            retrained(memory)
        if stop:
            memory.save(tmp_path / "m")
            memory = Memory.load(tmp_path / "m")
    assert due == [0, 9]


def test_a_stop_changes_nothing(tmp_path):
    decisions = []
    for stop in (False, True):
        rng, memory = np.random.default_rng(1), Memory(500, FIFO())
        found = []
        for number in range(5):
            found.append(observe(memory, unit(rng, 200), OnArrivals(space=SPACE, draws=199))[1])
            if number == 1:
                retrained(memory, model)
            if stop:
                memory.save(tmp_path / "m")
                memory = Memory.load(tmp_path / "m")
        decisions.append([repr(decision) for decision in found])
    assert decisions[0] == decisions[1]


def test_what_is_held_back_enters_a_unit_later():
    rng, memory = np.random.default_rng(2), Memory(10_000, FIFO())
    first, _ = observe(memory, unit(rng, 100))
    assert first.offered == len(memory) == 80
    second, _ = observe(memory, unit(rng, 100), OnArrivals())
    assert second.offered == len(memory) - 80 == 95
    third, _ = observe(memory, unit(rng, 100), OnArrivals(witnesses=0.0))
    assert third.offered == 115


def test_everything_kept_is_predicted_by_the_new_model():
    rng, memory = np.random.default_rng(3), Memory(1000, FIFO())
    for _ in range(2):
        observe(memory, unit(rng, 100), OnArrivals(space=SPACE))
    retrained(memory, model)
    recent = memory.recent
    for samples in (recent.reference.samples, recent.history.samples, memory.samples):
        assert samples.size
        np.testing.assert_array_equal(samples["yhat"], model(samples)["yhat"])


def test_without_the_new_model_nothing_of_the_old_one_is_compared():
    rng, memory = np.random.default_rng(4), Memory(1000, FIFO())
    for _ in range(2):
        observe(memory, unit(rng, 100), OnArrivals(space=SPACE))
    memory.mark_trained()
    assert not memory.recent.reference.size
    _, decision = observe(memory, unit(rng, 100), OnArrivals(space=SPACE))
    assert "nothing to compare with" in decision.reason


def test_other_triggers():
    memory = Memory(1000, FIFO())
    found = []
    for number in range(6):
        _, decision = observe(memory, {"y": [number] * 10}, Every(2))
        found.append(decision.due)
        if decision.due:
            retrained(memory)
    assert found == [True, False, True, False, True, False]
    assert observe(memory, {"y": [0] * 10}, OnCount(21))[1].value == 20


def test_a_refused_unit_changes_nothing():
    memory = Memory(10, FIFO())
    observe(memory, {"y": [1, 2, 3]})
    before = memory.dump()[1]
    with pytest.raises(SchemaError, match="z"):
        observe(memory, {"z": [1]})
    assert memory.dump()[1] == before


def test_what_cannot_be_compared_is_no_error_of_the_insert():
    memory = Memory(100, FIFO())
    for _ in range(3):
        report, decision = observe(memory, {"x": np.zeros(10)})
        if memory.reference is None:
            retrained(memory)
    assert report.offered > 0
    assert decision.due is False
    assert "it cannot be told" in decision.reason


def test_no_samples():
    memory = Memory(100, FIFO())
    observe(memory, {"y": [1]})
    assert observe(memory, {"y": np.empty(0, int)})[1].reason == "no samples came"


def test_labels_that_come_late_reach_what_is_kept():
    rng, memory = np.random.default_rng(6), Memory(1000, FIFO())
    for number in range(3):
        data = unit(rng, 100)
        y, ids = data.pop("y"), np.arange(100) + 100 * number
        observe(memory, {**data, "y": np.full(100, np.nan), "id": ids}, OnArrivals(space=SPACE))
        if number == 0:
            retrained(memory, model)
    memory.label(ids, y=y)
    kept = memory.recent.unit.samples
    np.testing.assert_array_equal(kept["y"], y[kept["id"] - 200])
    assert np.isnan(memory.recent.reference.samples["y"]).all()
    late = {**unit(rng, 100), "id": np.arange(900, 1000)}
    assert "no change" in observe(memory, late, OnArrivals(space=SPACE))[1].reason


@pytest.mark.parametrize(("size", "new"), [(400, 12), (2000, 20), (2000, 40)])
def test_a_new_class_is_due_at_once_by_labels_alone(size, new):
    """What is held back of the unit itself must not make the class look known."""
    for seed in range(4):
        rng, memory, due = np.random.default_rng(seed), Memory(400, Reservoir(), seed=seed), []
        for number in range(6):
            y = rng.integers(0, 5, size)
            if number >= 4:
                y[:new] = 5
            _, decision = observe(memory, {"y": y})
            due.append(decision.due)
            if number == 1:
                retrained(memory, lambda samples: {})
        assert due[:4] == [True, True, False, False], "due until something is trained"
        assert due[4], decision.reason


def test_the_history_lacks_the_unit_that_is_compared():
    rng, memory = np.random.default_rng(7), Memory(1000, FIFO())
    for number in range(4):
        observe(memory, {**unit(rng, 200), "n": np.full(200, number)}, OnArrivals(space=SPACE))
        assert number not in memory.recent.history.samples.get("n", ())
    retrained(memory, model)
    assert 3 in memory.recent.history.samples["n"]


def test_labels_that_come_a_day_late_are_decided_on():
    """Losses grow fivefold while predictions stay: seen when the labels are there."""
    rng, memory = np.random.default_rng(8), Memory(1000, FIFO())
    trigger, found = OnArrivals(space=SPACE), []
    for number in range(5):
        data = unit(rng, 400)
        ids, labels = np.arange(400) + 400 * number, data["y"]
        if number == 4:
            labels = rng.permutation(labels)
        late = {**data, "y": np.full(400, np.nan), "id": ids}
        first = observe(memory, late, trigger)[1]
        memory.label(ids, y=labels)
        again = reconsider(memory, trigger)
        found.append((first.due, None if again is None else again.due))
        if number == 1:
            retrained(memory, lambda samples: {"yhat": samples["yhat"]})
    assert found[2:] == [(False, False), (False, False), (False, True)]
    evidence = memory.recent.evidence
    reconsider(memory, trigger)
    assert memory.recent.evidence == evidence, "each unit counts once"


@pytest.mark.parametrize("trigger", ["every", OnArrivals, 3])
def test_a_trigger_that_is_none(trigger):
    memory = Memory(10, FIFO())
    with pytest.raises(SettingError, match=r"trigger is .*expected a Trigger, such as OnArrivals"):
        observe(memory, {"y": [0, 1]}, trigger)
    assert memory.inserts == 0
    with pytest.raises(SettingError, match="trigger"):
        reconsider(memory, trigger)
