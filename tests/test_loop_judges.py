"""The loop's judges, gate and missing units, and steps that are read back."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from memento import FIFO, Every, Memory, OnArrivals, read_steps, run, snapshot, table
from memento.errors import ForeignError, SchemaError, SettingError, StorageError
from memento.learner import digest_of_state
from memento.testing import ConstantLearner, ToyStream
from stateless import Stateless


def units(days=5):
    stream = ToyStream(days=days, size=40, seed=3)
    return [(name, samples.select(["x", "label", "day"])) for name, samples in stream]


def plain(steps):
    return [repr(replace(step, restored=False)) for step in steps]


def mean(name):
    return lambda moment: {name: moment.samples["logscore"].mean()}


def test_judged_before_after_and_on_the_next():
    """Each by hand: by the model then, on the samples then."""
    seen = []

    def look(moment):
        day = None if not moment.samples.size else int(moment.samples["day"][0])
        served = moment.served is not None and float(moment.served["logscore"].mean())
        found = float(moment.learner.annotate(moment.samples)["logscore"].mean())
        assert found == moment.samples["logscore"].mean()
        held = 0 if moment.when == "next" else len(moment.memory)
        seen.append((moment.when, moment.unit, day, held, served))
        return {moment.when: found}

    judge = {"before": look, "after": look, "next": look}
    steps = list(run(units(3), Memory(500, FIFO()), ConstantLearner(), Every(2), judge=judge))
    assert [entry[:4] for entry in seen] == [
        ("after", 0, 0, 40),
        ("next", 0, 1, 0),
        ("before", 1, 1, 40),
        ("after", 1, 1, 80),
        ("next", 1, 2, 0),
        ("before", 2, 2, 80),
        ("after", 2, 2, 120),
    ]
    assert seen[0][4] is False, "nobody predicted the first unit"
    assert [sorted(step.scores) for step in steps] == [
        ["after", "next"],
        ["after", "before", "next"],
        ["after", "before"],
    ]
    first, second, third = (step.scores for step in steps)
    assert first["next"] == second["before"] == second["after"]
    assert second["next"] == third["before"] == seen[-1][4]
    assert third["after"] != third["before"], "it was trained on what came"


def test_a_function_alone_judges_the_next_unit():
    expected = list(run(units(), Memory(500, FIFO()), ConstantLearner(), Every(2)))
    steps = run(units(), Memory(500, FIFO()), ConstantLearner(), Every(2), judge=mean("mean"))
    for step, other in zip(steps, expected, strict=True):
        assert step.evaluated_on == other.evaluated_on
        assert step.scores.get("mean") == other.scores.get("mean")


def test_a_step_waits_for_the_next_unit_only_if_it_is_judged_on_it():
    def stream():
        yield from units(1)
        raise AssertionError("tomorrow")

    steps = run(stream(), Memory(9, FIFO()), ConstantLearner(), judge={"after": mean("a")})
    assert next(steps).scores.keys() == {"a"}
    with pytest.raises(AssertionError, match="tomorrow"):
        next(run(stream(), Memory(9, FIFO()), ConstantLearner()))


def test_judges_that_do_not_fit():
    def steps(**settings):
        return list(run(units(2), Memory(9, FIFO()), ConstantLearner(), Every(), **settings))

    with pytest.raises(SettingError, match="judge has 'later'"):
        steps(judge={"later": mean("a")})
    with pytest.raises(SettingError, match="give one of them"):
        steps(judge=mean("a"), scores=lambda samples: {})
    with pytest.raises(SettingError, match="two judges give the score 'a'"):
        steps(judge={"before": mean("a"), "after": mean("a")})

    def note(moment):
        moment.notes["what"] = object()
        return {}

    with pytest.raises(SchemaError, match="cannot be stored"):
        steps(judge=note)


def test_seconds_and_notes(tmp_path):
    def judge(moment):
        moment.notes["shape"] = moment.samples["x"].shape
        return mean("a")(moment)

    settings = {"judge": {"after": judge}, "checkpoint": tmp_path}
    steps = list(run(units(), Memory(500, FIFO()), ConstantLearner(), Every(2), **settings))
    assert [step.notes for step in steps] == [{"shape": [40, 3]}] * 5
    for step in steps:
        stages = {"annotate", "insert", "decide", "judge"} | ({"train"} if step.trained else set())
        assert set(step.seconds) == stages
        assert all(value >= 0 for value in step.seconds.values())
    assert not any("second" in name for name in table(steps))
    restored = read_steps(tmp_path)
    assert plain(restored) == plain(steps)
    assert [step.seconds for step in restored] == [{}] * 5
    assert all(step.restored for step in restored)


def test_steps_of_what_is_no_run(tmp_path):
    Memory(5, FIFO()).save(tmp_path / "memory")
    with pytest.raises(ForeignError, match="memento-loop"):
        read_steps(tmp_path / "memory")
    with pytest.raises(StorageError):
        read_steps(tmp_path / "nothing")


# --------------------------------------------------------------------------------------------- gate


@pytest.mark.parametrize("make", [ConstantLearner, Stateless])
def test_a_refused_model_leaves_everything_as_it_was(make):
    learner, asked = make(), []

    def gate(moment):
        better = moment.served is None or (
            moment.samples["logscore"].mean() > moment.served["logscore"].mean()
        )
        asked.append((moment.unit, better))
        return "it is unit 2" if moment.unit == 2 else None

    published, predicted, steps = [], [], []
    memory = Memory(500, FIFO())
    probe = units(1)[0][1]
    stream = run(
        units(),
        memory,
        learner,
        Every(2),
        gate=gate,
        on_train=lambda step, _: published.append(step.unit),
    )
    for step in stream:
        steps.append(step)
        predicted.append(learner.annotate(probe)["yhat"][0])
        held = learner.annotate(memory.samples.select(["label"]))["yhat"]
        if step.unit == 2:
            np.testing.assert_array_equal(memory.samples["yhat"], held)
            assert memory.reference.size == 40
    # What is refused is tried again with the next unit.
    assert [step.trained for step in steps] == [True, False, False, True, False]
    assert [step.refused for step in steps] == [None, None, "it is unit 2", None, None]
    assert [unit for unit, _ in asked] == [0, 2, 3]
    assert published == [0, 3]
    np.testing.assert_array_equal(predicted[1], predicted[2])
    assert (predicted[2] != predicted[3]).any()
    assert table(steps)["refused"].tolist() == ["", "", "it is unit 2", "", ""]


def test_the_first_model_can_be_refused(tmp_path):
    learner, memory = ConstantLearner(), Memory(500, FIFO())
    settings = {"gate": lambda moment: "" if moment.unit < 2 else None, "checkpoint": tmp_path}
    steps = list(run(units(), memory, learner, Every(9), **settings))
    assert [step.refused for step in steps] == ["refused", "refused", None, None, None]
    assert [step.evaluated_on for step in steps[:3]] == [None, None, "day-003"]


def test_a_gate_that_fails_or_says_nothing_useful():
    learner = ConstantLearner()
    for gate, error in ((lambda moment: True, SettingError), (lambda moment: 1 / 0, Exception)):
        with pytest.raises(error, match=r"the gate gave True|division"):
            list(run(units(), Memory(500, FIFO()), learner, gate=gate))
        assert not learner.trained


def test_a_learner_that_cannot_go_back_is_refused_before_the_first_unit():
    class Slotted(Stateless):
        def __init__(self):
            super().__init__()
            self.lock = (line for line in ())  # cannot be copied

    memory = Memory(500, FIFO())
    with pytest.raises(SettingError, match=r"Slotted cannot go back .* give it state\(\)"):
        next(run(units(), memory, Slotted(), gate=lambda moment: None))
    assert len(memory) == 0


# ---------------------------------------------------------------------------- missing, late, resume


def test_a_missing_unit_changes_nothing():
    """The same as without it, but for the step that says so."""
    with_gap = [*units()[:2], ("gone", None), *units()[2:]]
    settings = {"trigger": OnArrivals(draws=99, run_length=3), "rng": 1}
    memory, learner = Memory(500, FIFO()), ConstantLearner()
    steps = list(run(with_gap, memory, learner, **settings))
    other, another = Memory(500, FIFO()), ConstantLearner()
    straight = list(run(units(), other, another, **settings))
    assert digest_of_state(memory.dump()[0]) == digest_of_state(other.dump()[0])
    assert digest_of_state(learner.state()) == digest_of_state(another.state())
    gap = steps.pop(2)
    assert (gap.missing, gap.offered, gap.held, gap.trained) == (True, 0, steps[1].held, False)
    assert gap.decision.reason == "the unit is missing"
    # The model that was to be judged on it is judged on the one that comes.
    assert steps[1].evaluated_on is None
    assert (gap.evaluated_on, gap.scores) == ("day-002", straight[1].scores)
    for step, expected in zip(steps, straight, strict=True):
        assert (step.kept, step.held, step.trained) == (
            expected.kept,
            expected.held,
            expected.trained,
        )
    assert table([gap, *steps])["missing"].tolist() == [True] + [False] * 5


def test_a_late_unit_is_inserted_and_nothing_else():
    late = [*units()[:1], ("day-001", None), *units()[2:4], units()[1], *units()[4:]]
    memory = Memory(500, FIFO())
    steps = list(run(late, memory, ConstantLearner(), Every(1), judge=mean("a")))
    step = steps[4]
    assert (step.late, step.name, step.kept, step.trained) == (True, "day-001", 40, False)
    assert steps[3].evaluated_on is None, "nobody is judged on the past"
    assert step.evaluated_on == "day-004"
    assert len(memory) == 200
    assert [step.late for step in steps] == [False] * 4 + [True, False]


def note_and_mean(moment):
    moment.notes[f"mean {moment.when}"] = float(moment.samples["logscore"].mean())
    return {f"rows {moment.when}": moment.samples.size}


def test_resume_with_judges_gate_and_gaps_at_every_step(tmp_path):
    stream = [*units()[:2], ("gone", None), *units()[2:4], ("gone", units()[0][1]), units()[4]]
    settings = {
        "judge": dict.fromkeys(("before", "after", "next"), note_and_mean),
        "gate": lambda moment: "not today" if moment.unit in (1, 3) else None,
        "rng": 4,
    }

    def make():
        return Memory(96, FIFO(), seed=2), ConstantLearner(), Every(1)

    memory, learner, trigger = make()
    straight, states = [], []
    for step in run(stream, memory, learner, trigger, **settings):
        straight.append(step)
        states.append((digest_of_state(memory.dump()[0]), digest_of_state(learner.state())))
    assert [step.unit for step in straight if step.refused] == [1, 3]
    for number in range(len(stream)):
        memory, learner, trigger = make()
        steps = run(stream, memory, learner, trigger, checkpoint=tmp_path, **settings)
        found = list(islice(steps, number + 1))
        steps.close()
        assert [step.restored for step in found] == [True] * number + [False]
        assert plain(found) == plain(straight[: number + 1])
        assert digest_of_state(memory.dump()[0]) == states[number][0]
        assert digest_of_state(learner.state()) == states[number][1]


def test_other_judges_are_another_run(tmp_path):
    settings = {"checkpoint": tmp_path}
    list(run(units(2), Memory(9, FIFO()), ConstantLearner(), Every(), **settings))
    for other in ({"judge": {"after": mean("a")}}, {"gate": lambda moment: None}):
        with pytest.raises(ForeignError, match=r"judged|gate"):
            list(run(units(2), Memory(9, FIFO()), ConstantLearner(), Every(), **settings, **other))


def test_a_checkpoint_of_before_judges_goes_on(tmp_path):
    """As it was written then: a trigger by its looks, steps without the newer fields."""
    straight = list(run(units(), Memory(96, FIFO()), ConstantLearner(), Every(2)))
    list(run(units(3), Memory(96, FIFO()), ConstantLearner(), Every(2), checkpoint=tmp_path))
    found = snapshot.read(tmp_path, "memento-loop")
    documents = json.loads(json.dumps(dict(found.documents)))
    loop = documents["loop"]
    loop["settings"] = {"trigger": "Every(units=2)", "weighted": True, "freeze_after": None}
    for row in loop["steps"]:
        for name in ("refused", "missing", "late", "notes", "seconds"):
            del row[name]
    snapshot.write(tmp_path, "memento-loop", found.arrays, documents)
    with pytest.raises(
        ForeignError, match=r"trigger = 'Every\(units=2\)', this one 'Every\(units=3"
    ):
        list(run(units(), Memory(96, FIFO()), ConstantLearner(), Every(3), checkpoint=tmp_path))
    steps = run(units(), Memory(96, FIFO()), ConstantLearner(), Every(2), checkpoint=tmp_path)
    assert plain(steps) == plain(straight)
