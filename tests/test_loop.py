"""The daily loop: the order of things, and that a run which was stopped goes on as if it was not.

Run as a script, this file is the server of the test that kills processes: it imports everything
once and forks runs, so that many real processes are killed without starting Python as often.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from memento import (
    FIFO,
    Choice,
    Decision,
    DensityReservoir,
    Every,
    Group,
    JensenShannon,
    Memento,
    Memory,
    OnArrivals,
    OnCount,
    OnCoverage,
    OnLoss,
    Policy,
    Reservoir,
    Samples,
    Step,
    Trigger,
    log_scores,
    run,
    snapshot,
    table,
)
from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.learner import digest_of_state
from memento.loop import read_steps
from memento.testing import ConstantLearner, ToyStream
from stateless import Stateless

CLASSES = 5
DISTANCES = (
    JensenShannon.of_probabilities("yhat"),
    JensenShannon.of_labels("label", CLASSES),
)
SPACE = {"distances": DISTANCES, "batch_size": 8, "sort_by": ("label", "x"), "missing": "skip"}


class Softmax:
    """Softmax regression by stochastic gradient descent, with a generator of its own.

    Every fit goes on where the last one ended, with weights and with the generator: a run that lost
    either would end elsewhere.
    """

    def __init__(self, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.w: np.ndarray | None = None

    @property
    def trained(self):
        return self.w is not None

    def fit(self, samples, weights=None):
        x, y = self._inputs(samples), samples["label"]
        if y.max() >= CLASSES:
            raise DomainError(f"column 'label' has the label {y.max()}")
        weights = np.ones(len(x)) if weights is None else weights / weights.mean()
        w = self.rng.normal(0, 0.1, (x.shape[1], CLASSES)) if self.w is None else self.w
        for rows in np.array_split(self.rng.permutation(len(x)), max(1, len(x) // 8)):
            wrong = self._predict(x[rows], w) - np.eye(CLASSES)[y[rows]]
            w = w - 0.05 * x[rows].T @ (wrong * weights[rows, None]) / len(rows)
        self.w = w

    def annotate(self, samples):
        yhat = self._predict(self._inputs(samples), self.w)
        if samples["label"].size and samples["label"].max() >= CLASSES:
            raise DomainError(f"column 'label' has the label {samples['label'].max()}")
        logscore = np.log(yhat[np.arange(len(yhat)), samples["label"]])
        return {"yhat": yhat, "logscore": logscore, "loss": -logscore}

    def state(self):
        generator = json.dumps(self.rng.bit_generator.state).encode()
        found = {"generator": np.frombuffer(generator, np.uint8)}
        return found if self.w is None else {**found, "w": self.w}

    def restore(self, state):
        self.rng.bit_generator.state = json.loads(state["generator"].tobytes())
        self.w = state.get("w")

    @staticmethod
    def _inputs(samples):
        return np.column_stack([np.ones(samples.size), samples["x"]])

    @staticmethod
    def _predict(x, w):
        # Products summed row by row, so that a prediction does not depend on its neighbours.
        logits = (x[:, :, None] * w).sum(axis=1)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def raw(days=6, size=48, *, start=0, seed=2, drift=0.5):
    """Units as they come from outside: no predictions."""
    stream = ToyStream(days=days, size=size, seed=seed, drift=drift)
    units = [(name, samples.select(["x", "label", "day"])) for name, samples in stream]
    return units[start:]


def arm(name):
    """New objects for one arm, equal each time."""
    policy, trigger = {
        "memento": (Memento(**SPACE), OnCoverage(0.05, 0.2, permutations=3)),
        "density reservoir": (DensityReservoir(**SPACE), OnCoverage(0.02, 1.0)),
        "reservoir": (Reservoir(), OnLoss(0.05)),
        "fifo": (FIFO(), Every(2)),
        "by count": (Reservoir(forget=0.2), OnCount(100)),
        "arrivals": (Memento(**SPACE), OnArrivals(run_length=3, draws=99)),
    }[name]
    return Memory(96, policy, seed=5), Softmax(seed=7), trigger


def fingerprint(memory, learner=None):
    """Everything that later steps depend on, as text."""
    arrays, documents = memory.dump()
    documents["memory"] = {**documents["memory"], "model": None}  # known with a checkpoint only
    state = digest_of_state(learner.state()) if learner is not None else None
    return json.dumps([digest_of_state(arrays), documents, state], sort_keys=True)


def plain(steps):
    """Steps as text, so that NaN equals NaN, whether they were restored or not."""
    return [repr(replace(step, restored=False)) for step in steps]


# ------------------------------------------------------------------------------------------- order


class Diary(ConstantLearner):
    """Writes down what it is asked, as the days that the samples came from."""

    def __init__(self, events, **settings):
        super().__init__(**settings)
        self.events = events
        self.weights = []

    def fit(self, samples, weights=None):
        super().fit(samples, weights)
        self.events.append(("fit", days_of(samples)))
        self.weights.append(None if weights is None else weights.copy())

    def annotate(self, samples):
        self.events.append(("annotate", days_of(samples)))
        return super().annotate(samples)


def days_of(samples):
    return "".join(str(day) for day in np.unique(samples["day"]))


class Watching(Policy):
    """Keeps the newest, and writes down what it was offered."""

    def __init__(self, events):
        self.events = events

    def settings(self):
        return {"kind": "Watching"}

    def choose(self, held, fresh, capacity, state, rng):
        predicted = "predicted" if "yhat" in fresh else "bare"
        self.events.append(("insert", days_of(fresh), predicted))
        size = held.size + fresh.size
        return Choice(np.arange(max(0, size - capacity), size))


class Asking(Every):
    """Writes down that it was asked, and what was held then."""

    def _decide(self, situation, rng):
        EVENTS.append(("decide", days_of(situation.memory.samples)))
        return super()._decide(situation, rng)


EVENTS: list = []


def test_order_of_things(tmp_path):
    EVENTS.clear()
    memory = Memory(96, Watching(EVENTS))
    folder = tmp_path / "run"
    steps = run(
        raw(4),
        memory,
        Diary(EVENTS),
        Asking(2),
        checkpoint=folder,
        on_train=lambda step, learner: EVENTS.append(
            ("publish", step.name, learner.trained, step.evaluated_on)
        ),
        on_step=lambda step: EVENTS.append(
            ("step", step.name, step.evaluated_on, snapshot.generation_of(folder))
        ),
    )
    EVENTS.extend(("yield", step.name, snapshot.generation_of(folder)) for step in steps)
    assert EVENTS == [
        # The first training: nobody was there to annotate what came in.
        ("insert", "0", "bare"),
        ("fit", "0"),
        ("annotate", "0"),
        ("publish", "day-000", True, None),
        ("annotate", "1"),  # the evaluation
        ("step", "day-000", "day-001", 0),
        ("yield", "day-000", 1),
        # Not due.
        ("annotate", "1"),
        ("insert", "1", "predicted"),
        ("decide", "01"),
        ("annotate", "2"),
        ("step", "day-001", "day-002", 1),
        ("yield", "day-001", 2),
        # Due: what is held, and no longer day 0, is fitted and annotated anew.
        ("annotate", "2"),
        ("insert", "2", "predicted"),
        ("decide", "12"),
        ("fit", "12"),
        ("annotate", "12"),
        ("publish", "day-002", True, None),
        ("annotate", "3"),
        ("step", "day-002", "day-003", 2),
        ("yield", "day-002", 3),
        # The last: nothing to be evaluated on.
        ("annotate", "3"),
        ("insert", "3", "predicted"),
        ("decide", "23"),
        ("step", "day-003", None, 3),
        ("yield", "day-003", 4),
    ]


@pytest.mark.parametrize("name", ["memento", "density reservoir", "reservoir", "fifo"])
def test_predictions_are_those_of_the_current_model(name):
    """Of what is held and of the reference, after every step: as if all were predicted anew."""
    memory, learner, trigger = arm(name)
    trained = 0
    for step in run(raw(), memory, learner, trigger, rng=3):
        trained += step.trained
        for samples in (memory.samples, memory.reference):
            assert samples is not None
            expected = learner.annotate(samples.select(["x", "label", "day"]))
            assert set(samples) == {"x", "label", "day", *expected}
            for column, values in expected.items():
                np.testing.assert_array_equal(samples[column], values)
        assert memory.model is None, "a digest is for checkpoints, and costs a state"
        if step.trained:
            np.testing.assert_array_equal(memory.reference["x"], memory.samples["x"])
    assert 1 < trained < 6, "the test would prove little otherwise"


def test_the_reference_is_what_was_trained_on():
    memory, learner, _ = arm("fifo")
    held = []
    for step in run(raw(), memory, learner, Every(3)):
        held.append(memory.samples["x"].copy())
        last = step.unit // 3 * 3
        np.testing.assert_array_equal(memory.reference["x"], held[last])


@pytest.mark.parametrize(
    ("policy", "weighted", "expected"),
    [
        (DensityReservoir(**SPACE), True, True),
        (DensityReservoir(**SPACE), False, False),
        (FIFO(), True, False),  # it cannot state any
    ],
)
def test_weights_in_training(policy, weighted, expected):
    memory, learner = Memory(96, policy, seed=1), Diary([])
    held = [memory.weights for _ in run(raw(4), memory, learner, Every(), weighted=weighted)]
    assert len(learner.weights) == 4
    for given, then in zip(learner.weights, held, strict=True):
        if expected:
            np.testing.assert_array_equal(given, then)
        else:
            assert given is None


def test_hooks_only_for_what_happened():
    trained, seen = [], []
    memory, learner, trigger = arm("fifo")
    steps = list(
        run(
            raw(),
            memory,
            learner,
            trigger,
            on_train=lambda step, given: trained.append((step.name, given is learner)),
            on_step=seen.append,
        )
    )
    assert trained == [(step.name, True) for step in steps if step.trained]
    assert [step.unit for step in steps if step.trained] == [0, 2, 4]
    assert seen == steps


def test_what_a_step_says():
    memory, learner, trigger = Memory(60, FIFO()), ConstantLearner(), OnCount(100)
    steps = list(run(raw(3), memory, learner, trigger))
    assert [(s.unit, s.name, s.offered, s.kept, s.held) for s in steps] == [
        (0, "day-000", 48, 48, 48),
        (1, "day-001", 48, 48, 60),
        (2, "day-002", 48, 48, 60),
    ]
    assert [step.trained for step in steps] == [True, False, False]
    decision = steps[2].decision
    assert (decision.due, decision.value, decision.threshold) == (False, 96.0, 100.0)
    assert decision.reason == "96 new samples (threshold 100)"
    assert not any(step.frozen or step.restored for step in steps)


def test_no_stream_no_steps():
    memory, learner, trigger = arm("fifo")
    assert list(run([], memory, learner, trigger)) == []


def test_nothing_to_train_on():
    """A first unit without samples is no reason to fit on nothing."""
    memory, learner, trigger = arm("fifo")
    nothing = ("holiday", raw(1)[0][1].rows(0, 0))
    steps = list(run([nothing, *raw(2)], memory, learner, trigger))
    assert [step.trained for step in steps] == [False, True, False]
    assert steps[0].decision.reason == "the memory is empty"
    assert (steps[0].evaluated_on, steps[0].scores) == (None, {})


# -------------------------------------------------------------------------------------- evaluation


def test_evaluation_on_the_next_unit():
    """Every step's model, by hand, on the day after."""
    units = raw()
    memory, learner, trigger = arm("fifo")
    for step in run(units, memory, learner, trigger):
        if step.unit == len(units) - 1:
            assert (step.evaluated_on, step.scores) == (None, {})
            continue
        name, samples = units[step.unit + 1]
        scores = np.sort(learner.annotate(samples)["logscore"])
        place = 0.01 * (len(scores) - 1)  # linear between the two neighbours
        p01 = scores[0] + (scores[1] - scores[0]) * place
        assert step.evaluated_on == name
        assert step.scores == pytest.approx(
            {"p01": p01, "median": scores[23:25].mean(), "mean": scores.sum() / 48}, rel=1e-12
        )


def test_scores_of_one_s_own():
    def share_right(samples):
        right = samples["yhat"].argmax(axis=1) == samples["label"]
        return {"right": np.float32(right.mean()), "rows": np.int64(samples.size)}

    memory, learner, trigger = arm("fifo")
    steps = list(run(raw(3), memory, learner, trigger, scores=share_right))
    assert [set(step.scores) for step in steps] == [{"right", "rows"}, {"right", "rows"}, set()]
    assert {type(value) for step in steps for value in step.scores.values()} == {float}


def test_no_log_scores_no_scores():
    assert log_scores(Samples(y=[1, 2])) == {}
    assert log_scores(Samples(logscore=np.empty(0))) == {}


def test_frozen():
    """Memory and model stay as they are, and are still evaluated."""
    memory, learner, trigger = arm("fifo")
    states, steps = [], []
    for step in run(raw(), memory, learner, trigger, freeze_after=3):
        states.append(fingerprint(memory, learner))
        steps.append(step)
    assert len(set(states[:3])) == 3
    assert len(set(states[2:])) == 1
    for step in steps[3:]:
        assert (step.frozen, step.trained, step.kept, step.held) == (True, False, 0, 96)
        assert step.offered == 48
        assert step.decision.reason == "frozen after 3 units"
        assert not step.decision.due
    assert [step.evaluated_on for step in steps] == [f"day-{i:03d}" for i in range(1, 6)] + [None]
    assert len({step.scores["mean"] for step in steps[2:5]}) == 3
    straight = list(islice(run(raw(), *arm("fifo")), 3))
    assert plain(steps[:3]) == plain(straight)


def test_frozen_from_the_start():
    memory, learner, trigger = arm("fifo")
    steps = list(run(raw(2), memory, learner, trigger, freeze_after=0))
    assert [step.frozen for step in steps] == [True, True]
    assert len(memory) == 0
    assert [step.evaluated_on for step in steps] == [None, None]  # there is no model
    learner.fit(raw(1)[0][1])  # a model from elsewhere
    assert next(run(raw(2), memory, learner, trigger, freeze_after=0)).evaluated_on == "day-001"


def test_columns_for_another_number_of_samples():
    class Faulty(ConstantLearner):
        def annotate(self, samples):
            return {"yhat": np.ones((3, 2))}

    learner = Faulty()
    learner.fit(raw(1)[0][1])
    with pytest.raises(SchemaError, match=r"Faulty.annotate gave 3 rows for 48 samples"):
        list(run(raw(2), Memory(96, FIFO()), learner, Every()))


# ----------------------------------------------------------------------------------- table, logging


def test_table():
    memory, learner, trigger = arm("fifo")
    steps = list(run(raw(), memory, learner, trigger))
    found = table(steps)
    assert found.size == 6
    for i, step in enumerate(steps):
        assert found["name"][i] == step.name
        assert found["trained"][i] == step.trained == found["due"][i]
        assert found["reason"][i] == step.decision.reason
        assert found["evaluated_on"][i] == (step.evaluated_on or "")
        for score in ("p01", "median", "mean"):
            expected = step.scores.get(score, np.nan)
            np.testing.assert_equal(found[f"score_{score}"][i], expected)
    assert "restored" not in found
    kinds = {name: column.dtype.kind for name, column in found.items()}
    assert kinds["trained"] == kinds["frozen"] == "b"
    assert kinds["unit"] == kinds["offered"] == kinds["kept"] == kinds["held"] == "i"
    assert kinds["value"] == kinds["score_p01"] == "f"


def test_table_of_nothing():
    assert table([]).size == 0
    only = table([Step(0, "mon", 1, 1, 1, Decision(True, "first"), True)])
    assert only["evaluated_on"].tolist() == [""]
    assert not any(name.startswith("score_") for name in only)


def test_structured_log(caplog):
    with caplog.at_level(logging.INFO, logger="memento.loop"):
        steps = list(run(raw(3), *arm("fifo")))
    assert [record.name for record in caplog.records] == ["memento.loop"] * 3
    for record, step in zip(caplog.records, steps, strict=True):
        assert record.getMessage() == f"{step.name}: {step.decision.reason}"
        assert repr(record.step) == repr(step.row())
        json.dumps(record.step)


# ----------------------------------------------------------------------------------------- arrivals


def test_arrivals_are_the_default_and_some_enter_late():
    memory = Memory(10_000, FIFO())
    steps = list(run(raw(4), memory, Softmax()))
    assert steps[0].decision.reason == "nothing was trained yet"
    assert "chance" in steps[2].decision.reason or "changed" in steps[2].decision.reason
    assert [step.offered for step in steps] == [48] * 4
    # Of 48 rows 9 are held back; of these 2 or 3 for good.
    assert 4 * 48 - len(memory) in range(9 + 3 * 2, 9 + 3 * 3 + 1)
    assert {name for step in steps[1:] for name in step.decision.figures} >= {"new", "worse"}
    assert "figure_z_newness" in table(steps)


def test_arrivals_are_predicted_by_the_deployed_model():
    """Of everything that is kept: as if all were predicted anew."""
    seen = []

    class Looking(OnArrivals):
        def _decide(self, situation, rng):
            parts = (situation.arrivals.unit, situation.arrivals.reference)
            seen.append([part.samples for part in (*parts, situation.arrivals.history)])
            return Decision(len(seen) % 2 == 0, "every second unit")

    learner = Softmax()
    for step in run(raw(6), Memory(96, FIFO()), learner, Looking()):
        if seen and not step.trained:
            for samples in seen[-1]:
                if samples.size:
                    expected = learner.annotate(samples.select(["x", "label"]))
                    for column, values in expected.items():
                        np.testing.assert_array_equal(samples[column], values)
    assert len(seen) == 5


def test_a_bad_unit_holds_nothing_back():
    memory, good = Memory(96, FIFO()), raw(2)
    bad = [*good, ("bad", good[1][1].with_columns(label=np.full(48, CLASSES)))]
    steps = run(bad, memory, Softmax(), OnArrivals(draws=99))
    next(steps)
    before = next(steps)
    held = fingerprint(memory)
    with pytest.raises(DomainError, match="has the label 5"):
        list(steps)
    assert before.name == good[1][0]
    assert fingerprint(memory) == held


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["trees", "linear"])
def test_false_alarms_of_the_whole_loop(learner):
    """60 quiet units, three seeds, sessions as clusters: at a run length of 200 at most one alarm.

    Without a change 0.3 alarms are expected at most, so two or more have a probability below 4 %.
    """
    sklearn = pytest.importorskip("sklearn")
    assert sklearn
    alarms = 0
    for seed in range(3):
        steps = run(
            sessions(seed, 21),
            Memory(1500, Reservoir(), seed=seed),
            learner_of(learner, seed),
            OnArrivals(cluster="session"),
            rng=seed,
        )
        alarms += sum(step.decision.due for step in list(steps)[1:])
    assert alarms <= 1


@pytest.mark.parametrize("learner", ["trees", "linear"])
def test_a_new_minority_is_seen(learner):
    """15 % of 300 sessions mean something else from the fourth unit on: due there or one later."""
    pytest.importorskip("sklearn")
    for seed in range(3):
        steps = run(
            sessions(seed, 6, new_at=4),
            Memory(1500, Reservoir(), seed=seed),
            learner_of(learner, seed),
            OnArrivals(cluster="session"),
            rng=seed,
        )
        due = [step.unit for step in steps if step.decision.due]
        assert due in ([0, 4], [0, 5])


def sessions(seed, units, *, new_at=None, count=300, rows=5, classes=4):
    """Units of sessions whose rows are alike; from ``new_at`` on 15 % of them have other labels."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(classes, 4)) * 1.5
    for unit in range(units):
        session = np.repeat(np.arange(count), rows)
        y = rng.integers(0, classes, len(session))
        x = centre[y] + rng.normal(size=(count, 4))[session] + rng.normal(size=(len(y), 4))
        if new_at is not None and unit >= new_at:
            moved = (rng.random(count) < 0.15)[session]
            x, y = np.where(moved[:, None], x + 4, x), np.where(moved, (y + 1) % classes, y)
        yield str(unit), {"x": x, "y": y, "session": session + unit * count}


def learner_of(kind, seed):
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    from memento.integrations.sklearn import SklearnLearner

    estimator = {
        "trees": RandomForestClassifier(10, min_samples_leaf=5, random_state=seed),
        "linear": LogisticRegression(max_iter=200),
    }[kind]
    return SklearnLearner(estimator, label="y", classes=4)


# ------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    "name", ["memento", "density reservoir", "reservoir", "fifo", "by count", "arrivals"]
)
def test_resume_at_every_step(tmp_path, name):
    """One run straight through without checkpoints, one that starts anew at every single step."""
    assert_resumes(tmp_path, lambda: arm(name), raw(7))


def test_resume_with_a_network(tmp_path):
    pytest.importorskip("torch")
    from memento.integrations.torch import TorchLearner

    def make():
        learner = TorchLearner(CLASSES, label="label", epochs=4, warm_start=True, seed=3)
        return Memory(96, DensityReservoir(**SPACE), seed=5), learner, OnCoverage(0.02, 1.0)

    assert_resumes(tmp_path, make, raw(5))


def assert_resumes(folder, make, units):
    memory, learner, trigger = make()
    straight, states = [], []
    for step in run(units, memory, learner, trigger, rng=9):
        straight.append(step)
        states.append(fingerprint(memory, learner))
    assert 1 < sum(step.trained for step in straight) < len(straight)
    for number in range(len(units)):
        memory, learner, trigger = make()  # nothing is handed on but the folder
        steps = run(units, memory, learner, trigger, rng=9, checkpoint=folder)
        found = list(islice(steps, number + 1))
        steps.close()
        assert [step.restored for step in found] == [True] * number + [False]
        assert plain(found) == plain(straight[: number + 1])
        assert fingerprint(memory, learner) == states[number]
    # All is done: nothing is computed again.
    memory, learner, trigger = make()
    again = list(run(units, memory, learner, trigger, rng=9, checkpoint=folder))
    assert all(step.restored for step in again)
    assert plain(again) == plain(straight)
    assert fingerprint(memory, learner) == states[-1]


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_stop_within_a_step_loses_that_step_alone(tmp_path, stop):
    """Stopped by an error at the last moment before it is saved."""

    class StopError(Exception):
        pass

    def fall(step):
        if step.unit == stop:
            raise StopError

    straight = list(run(raw(), *arm("density reservoir")))
    with pytest.raises(StopError):
        list(run(raw(), *arm("density reservoir"), checkpoint=tmp_path, on_step=fall))
    steps = list(run(raw(), *arm("density reservoir"), checkpoint=tmp_path))
    assert [step.restored for step in steps] == [True] * stop + [False] * (6 - stop)
    assert plain(steps) == plain(straight)


def test_saves_may_be_rare(tmp_path, monkeypatch):
    """A step is saved only some seconds after the one before; what comes out is the same."""
    clock = iter(range(0, 10_000, 4))
    monkeypatch.setattr("memento.loop.time.monotonic", lambda: float(next(clock)))

    def go(**settings):
        memory = Memory(100, FIFO(), seed=1)
        return run(ToyStream(days=6, size=40), memory, ConstantLearner(), Every(1), **settings)

    saved = []
    for step in go(checkpoint=tmp_path, save_every=9.0):
        saved.append(len(read_steps(tmp_path)) if snapshot.exists(tmp_path) else 0)
        if step.unit == 4:
            break
    assert saved[0] == 0
    assert 0 < max(saved) < 5  # some steps were not saved
    found, expected = go(checkpoint=tmp_path, save_every=9.0), go()
    assert [str(step.row()) for step in found] == [str(step.row()) for step in expected]
    with pytest.raises(SettingError, match="save_every is -1"):
        list(go(save_every=-1))


def test_a_published_model_is_published_again_after_a_crash(tmp_path):
    published = []

    def publish(step, learner):
        published.append((step.unit, digest_of_state(learner.state())))
        if len(published) == 2:
            raise OSError("the network is down")

    arguments = {"checkpoint": tmp_path, "on_train": publish}
    with pytest.raises(OSError, match="network is down"):
        list(run(raw(), *arm("fifo"), **arguments))
    list(run(raw(), *arm("fifo"), **arguments))
    assert [unit for unit, _ in published] == [0, 2, 2, 4]
    assert published[1] == published[2]


def test_a_stream_that_grows(tmp_path):
    """Day by day, as a cron job does it: each step is completed when the next day is there."""
    straight = list(run(raw(), *arm("memento"), rng=1))
    calls = []
    for days in range(1, 7):
        memory, learner, trigger = arm("memento")
        steps = run(
            raw(days),
            memory,
            learner,
            trigger,
            rng=1,
            checkpoint=tmp_path,
            on_step=lambda step: calls.append((step.unit, step.evaluated_on, step.restored)),
        )
        found = list(steps)
        assert len(found) == days
        assert plain(found[:-1]) == plain(straight[: days - 1])
        assert found[-1].evaluated_on is None
        assert plain([replace(straight[days - 1], evaluated_on=None, scores={})]) == plain(
            found[-1:]
        )
    expected = [(0, None, False)]
    for unit in range(1, 6):
        expected += [(unit - 1, f"day-{unit:03d}", True), (unit, None, False)]
    assert calls == expected


def test_the_late_evaluation_is_saved(tmp_path):
    list(run(raw(3), *arm("fifo"), checkpoint=tmp_path))
    first = next(islice(run(raw(4), *arm("fifo"), checkpoint=tmp_path), 2, None))
    assert first.evaluated_on == "day-003"
    calls = []
    steps = run(raw(4), *arm("fifo"), checkpoint=tmp_path, on_step=calls.append)
    assert plain(islice(steps, 2, 3)) == plain([first])
    steps.close()
    assert calls == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"trigger": Every(3)},
            r"trigger = \{'kind': 'every', 'units': 2\}, this one \{'kind': 'every', 'units': 3\}",
        ),
        ({"weighted": False}, "weighted = True, this one False"),
        ({"freeze_after": 2}, "freeze_after = None, this one 2"),
        ({"memory": Memory(95, FIFO(), seed=5)}, "capacity 96, this one 95"),
        (
            {"memory": Memory(96, Reservoir(), seed=5)},
            "policy differs from the one given in .*kind",
        ),
        ({"stream": raw(6, start=1)}, "unit 0 was 'day-000', in this stream it is 'day-001'"),
        ({"stream": [*raw(2), ("x", raw(1)[0][1])]}, "unit 2 was 'day-002', .* it is 'x'"),
        ({"stream": [*raw(3), ("x", raw(1)[0][1])]}, "unit 3 was 'day-003', .* it is 'x'"),
        ({"stream": raw(3)}, "unit 3 was 'day-003', in this stream there is none"),
        ({"stream": raw(2)}, "unit 2 was 'day-002', in this stream there is none"),
        ({"stream": []}, "unit 0 was 'day-000', in this stream there is none"),
    ],
)
def test_another_run_is_refused(tmp_path, changed, message):
    memory, learner, trigger = arm("fifo")
    list(islice(run(raw(), memory, learner, trigger, checkpoint=tmp_path), 3))
    before = (tmp_path / "manifest.json").read_bytes()
    memory, learner, trigger = arm("fifo")
    arguments = {"stream": raw(), "memory": memory, "learner": learner, "trigger": trigger}
    with pytest.raises(ForeignError, match=message):
        list(run(**{**arguments, **changed}, checkpoint=tmp_path))
    assert (tmp_path / "manifest.json").read_bytes() == before
    straight = list(run(raw(), *arm("fifo")))
    assert plain(run(raw(), *arm("fifo"), checkpoint=tmp_path)) == plain(straight)


def test_somebody_else_s_folder_is_refused(tmp_path):
    Memory(5, FIFO()).save(tmp_path / "memory")
    with pytest.raises(ForeignError, match="'memento-memory'; expected 'memento-loop'"):
        list(run(raw(), *arm("fifo"), checkpoint=tmp_path / "memory"))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ForeignError, match=r"thesis\.txt"):
        list(run(raw(), *arm("fifo"), checkpoint=tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_trigger_of_one_s_own_without_a_representation(tmp_path):
    class Wednesday(Trigger):
        def _decide(self, situation, rng):
            return Decision(np.bool_(situation.unit % 7 == 2), "it is Wednesday")

    memory, learner, _ = arm("fifo")
    list(islice(run(raw(), memory, learner, Wednesday(), checkpoint=tmp_path), 3))
    memory, learner, _ = arm("fifo")
    steps = list(run(raw(), memory, learner, Wednesday(), checkpoint=tmp_path))
    assert [step.restored for step in steps] == [True] * 3 + [False] * 3
    assert [step.unit for step in steps if step.trained] == [0, 2]


def test_a_state_is_asked_for_only_with_a_checkpoint(tmp_path):
    class Asked(Softmax):
        asked = 0

        def state(self):
            Asked.asked += 1
            return super().state()

    list(run(raw(3), Memory(96, FIFO()), Asked(), Every(1)))
    assert Asked.asked == 0
    memory, learner = Memory(96, FIFO()), Asked()
    list(run(raw(3), memory, learner, Every(1), checkpoint=tmp_path / "run"))
    assert Asked.asked > 0
    assert memory.model == digest_of_state(learner.state())


def test_a_learner_that_cannot_be_saved(tmp_path):
    memory = Memory(96, FIFO())
    steps = run(raw(3), memory, Stateless(), Every(), checkpoint=tmp_path / "run")
    with pytest.raises(SettingError, match=r"Stateless has no state\(\) and restore\(\)"):
        next(steps)
    assert not (tmp_path / "run").exists()
    assert len(memory) == 0
    memory.model = "of somebody else"
    assert len(list(run(raw(3), memory, Stateless(), Every()))) == 3
    assert memory.model is None


def test_settings_out_of_range():
    with pytest.raises(SettingError, match="freeze_after is -1; expected 0 or more units"):
        list(run(raw(1), *arm("fifo"), freeze_after=-1))
    for wrong in (1.5, True, "3"):
        with pytest.raises(SettingError, match=r"freeze_after is .*; expected 0 or more units"):
            list(run(raw(1), *arm("fifo"), freeze_after=wrong))


def test_what_is_no_stream():
    unit = next(iter(raw(1)))[1]
    for stream in (3, None, {"mon": unit}):
        with pytest.raises(SettingError, match="expected pairs of a name and samples"):
            list(run(stream, *arm("fifo")))
    for stream in ([unit], ["mo"], [("mon", unit, 1)], [3]):
        with pytest.raises(SchemaError, match="expected a pair of its name and its samples"):
            list(run(stream, *arm("fifo")))
    with pytest.raises(SettingError, match="rng is 'x'; expected a whole number"):
        list(run(raw(1), *arm("fifo"), rng="x"))


@pytest.mark.parametrize("learner", [object(), ConstantLearner, None])
def test_what_is_no_learner(learner):
    with pytest.raises(SettingError, match=r"learner is .*SklearnLearner\(estimator\)"):
        list(run(raw(1), Memory(10, FIFO()), learner))


class Silent:
    """Learns something, and says nothing about samples."""

    trained = False

    def fit(self, samples, weights=None):
        self.trained = True

    def annotate(self, samples):
        return {}


def test_a_learner_without_columns():
    for memory in (Memory(96, FIFO()), Group([Memory(96, FIFO()), Memory(96, FIFO())])):
        steps = list(run(raw(3), memory, Silent(), Every(1)))
        assert [step.trained for step in steps] == [True] * 3


@pytest.mark.parametrize("policy", [Memento, DensityReservoir])
def test_policies_that_see_predictions_only_begin_without_a_model(policy):
    seen = policy([JensenShannon.of_probabilities("yhat")])
    with pytest.warns(UserWarning, match="so that chance decides what is kept") as said:
        steps = list(run(raw(3), Memory(96, seen), ConstantLearner(), Every(1)))
    assert len(said) == 1
    assert steps[-1].held == 96
    strict = policy([JensenShannon.of_probabilities("yhat")], missing="error")
    with pytest.raises(SchemaError, match=r"column 'yhat', which .* needs, is missing"):
        list(run(raw(3), Memory(96, strict), ConstantLearner(), Every(1)))


# ---------------------------------------------------------------------------------------- bad units


def spoilt(samples, how):
    if how == "width":
        return samples.with_columns(x=samples["x"][:, :2])
    if how == "label":
        return samples.with_columns(label=np.full(samples.size, 99))
    if how == "lengths":
        return {"x": samples["x"], "label": samples["label"][:-1], "day": samples["day"]}
    return samples.without("day")


@pytest.mark.parametrize("how", ["width", "label", "lengths", "column"])
def test_a_bad_unit(tmp_path, how):
    """The steps before it are given, saved and kept; the memory is as after them."""
    error = DomainError if how == "label" else SchemaError
    if how == "width":
        error = ValueError  # the learner's own complaint about the width
    units = raw()
    bad = [*units[:3], ("bad day", spoilt(units[3][1], how)), *units[4:]]
    straight, states = [], []
    memory, learner, trigger = arm("density reservoir")
    for step in run(units, memory, learner, trigger):
        straight.append(step)
        states.append(fingerprint(memory, learner))
    for _ in range(2):  # the second time from the checkpoint, with the bad unit still there
        memory, learner, trigger = arm("density reservoir")
        steps = run(bad, memory, learner, trigger, checkpoint=tmp_path)
        found = [next(steps) for _ in range(3)]
        with pytest.raises(error) as caught:
            next(steps)
        assert caught.value.__notes__ == ["This was about unit 3 of the stream, 'bad day'."]
        assert fingerprint(memory, learner) == states[2]
        assert plain(found[:2]) == plain(straight[:2])
        if how == "column":  # one that can be predicted and scored, but not inserted
            assert found[2].evaluated_on == "bad day"
        else:
            assert plain(found[2:]) == plain([replace(straight[2], evaluated_on=None, scores={})])
    if how != "column":  # with the unit put right the run goes on as if nothing had been
        assert plain(run(units, *arm("density reservoir"), checkpoint=tmp_path)) == plain(straight)


def test_a_bad_first_unit(tmp_path):
    memory, learner, trigger = arm("fifo")
    before = fingerprint(memory, learner)
    with pytest.raises(SchemaError, match="label"):
        list(run([("bad", {"x": [1.0], "label": [1, 2]})], memory, learner, trigger))
    assert fingerprint(memory, learner) == before


# --------------------------------------------------------------------------------------- real kills

KILLS = 15
LONG = 12


def run_to_the_end(folder: Path | None, result: Path) -> None:
    memory, learner, trigger = arm("memento")
    steps = list(run(raw(LONG), memory, learner, trigger, rng=4, checkpoint=folder))
    found = {"steps": plain(steps), "state": fingerprint(memory, learner)}
    result.write_text(json.dumps(found))


def fork(folder: Path | None, result: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 3
        try:
            run_to_the_end(folder, result)
            code = 0
        finally:
            os._exit(code)
    return child


def wait_for(disk: Path, steps: int, child: int) -> float:
    """Wait until so many steps are saved, or the child has ended; returns s a step took."""
    began, first = time.monotonic(), None
    while (saved := snapshot.generation_of(disk)) < steps:
        if first is None and saved:
            began, first = time.monotonic(), saved
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(0.0005)
    return (time.monotonic() - began) / max(1, saved - (first or 0))


def serve(folder: Path) -> dict[str, list[int]]:
    """Kill runs at random moments and start them again, until so many were killed at work."""
    from memento import _kernels  # noqa: F401 - imported before any fork

    rng = random.Random(1)
    expected = folder / "straight.json"
    assert os.waitpid(fork(None, expected), 0)[1] == 0
    timed = fork(folder / "timed", folder / "timed.json")
    lasting = wait_for(folder / "timed", LONG, timed)  # about what a step takes
    assert os.waitpid(timed, 0)[1] == 0
    assert (folder / "timed.json").read_text() == expected.read_text()
    kills: list[int] = []
    ends, number = [], 0
    # The test would prove nothing if the kills had met runs at one step only, or none had ended.
    while len(kills) < KILLS or len(set(kills)) < 3 or not ends:
        assert len(kills) < 10 * KILLS, f"kills do not meet runs at work: {kills}"
        disk, result = folder / f"run-{number}", folder / f"run-{number}.json"
        child = fork(disk, result)
        if len(kills) < KILLS or len(set(kills)) < 3:
            wait_for(disk, snapshot.generation_of(disk) + rng.randint(0, 3), child)
            time.sleep(rng.uniform(0, 2 * lasting))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            saved = snapshot.generation_of(disk)  # reads it, too
            kills += [saved] * (saved < LONG)
            continue
        assert status == 0, "a run failed instead of being killed"
        assert result.read_text() == expected.read_text(), "a killed run ended elsewhere"
        ends.append(len(kills))
        number += 1
    return {"kills": kills, "ends": ends}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_random_moments(tmp_path):
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    result = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **dict.fromkeys(threads, "1")},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    counts = json.loads(result.stdout)
    assert len(counts["kills"]) >= KILLS
    assert counts["ends"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(serve(Path(sys.argv[1]))))


# --------------------------------------------------------------------------------- several memories


def test_a_group_runs_and_resumes(tmp_path):
    def group():
        return Group({"new": Memory(60, FIFO()), "any": Memory(60, Reservoir(), seed=3)}, seed=1)

    def steps(memories, units, **settings):
        return [str(s.row()) for s in run(units, memories, ConstantLearner(), Every(2), **settings)]

    units = list(ToyStream(days=4, seed=1))
    straight, saved = group(), group()
    plain = steps(straight, units)
    steps(group(), units[:2], checkpoint=tmp_path)
    assert steps(saved, units, checkpoint=tmp_path) == plain
    assert digest_of_state(saved.dump()[0]) == digest_of_state(straight.dump()[0])
    assert all("yhat" in memory.samples for memory in straight.memories.values())
    other = Group({"old": Memory(60, FIFO())})
    with pytest.raises(ForeignError, match="has the memories"):
        steps(other, units, checkpoint=tmp_path)


def test_scores_of_numbers_are_errors_in_units_of_the_middle_half():
    y = np.arange(101.0)
    found = log_scores(Samples(target=y, yhat=y + 5, loss=np.full(101, 5.0)), "target")
    assert found == pytest.approx({"p01": -0.1, "median": -0.1, "mean": -0.1})
    assert log_scores(Samples(y=y, yhat=y, loss=np.full(101, np.nan))) == {}
    assert log_scores(Samples(y=[2.0, 2.0], yhat=[1.5, 0.0], loss=[0.5, np.nan]))["mean"] == -0.5
    assert log_scores(Samples(logscore=[-1.0, np.nan]))["mean"] == -1.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda loop: loop.pop("steps"),
        lambda loop: loop.update(steps=[{}]),
        lambda loop: loop.update(steps=3),
        lambda loop: loop["steps"][0].update(decision=None),
        lambda loop: loop["steps"][0].update(colour="red"),
        lambda loop: loop.update(settings=[]),
        lambda loop: loop.update(trained_at="yesterday"),
        lambda loop: loop.update(seen_at=-1),
        lambda loop: loop.update(generator={}),
    ],
)
def test_a_checkpoint_that_was_tampered_with(tmp_path, spoil):
    list(run(raw(3), *arm("fifo"), checkpoint=tmp_path))
    found = snapshot.read(tmp_path, "memento-loop")
    documents = copy.deepcopy(dict(found.documents))
    spoil(documents["loop"])
    snapshot.write(tmp_path, "memento-loop", found.arrays, documents)
    with pytest.raises(StorageError, match=re.escape(str(tmp_path)) + r"|loop\.json|generator"):
        list(run(raw(3), *arm("fifo"), checkpoint=tmp_path))


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8])
def test_pages_of_steps(monkeypatch, tmp_path, stop):
    """Wherever a run stops; a page that is full is written as it was."""
    monkeypatch.setattr("memento.loop._PAGE", 2)
    straight = list(run(raw(9), *arm("fifo"), checkpoint=tmp_path / "straight"))
    list(run(raw(stop), *arm("fifo"), checkpoint=tmp_path / "resumed"))
    assert len(read_steps(tmp_path / "resumed")) == stop
    again = list(run(raw(9), *arm("fifo"), checkpoint=tmp_path / "resumed"))
    assert plain(again) == plain(straight)
    assert plain(read_steps(tmp_path / "resumed")) == plain(straight)
    found = [snapshot.read(tmp_path / n, "memento-loop").documents for n in ("straight", "resumed")]
    assert found[0] == found[1]
    assert [len(found[0][f"steps/{number}"]) for number in range(4)] == [2] * 4
    assert len(found[0]["loop"]["steps"]) == 1


def test_a_missing_page_of_steps(monkeypatch, tmp_path):
    monkeypatch.setattr("memento.loop._PAGE", 2)
    list(run(raw(5), *arm("fifo"), checkpoint=tmp_path))
    found = snapshot.read(tmp_path, "memento-loop")
    documents = {name: page for name, page in found.documents.items() if name != "steps/1"}
    snapshot.write(tmp_path, "memento-loop", found.arrays, documents)
    for read in (read_steps, lambda folder: list(run(raw(5), *arm("fifo"), checkpoint=folder))):
        with pytest.raises(DamagedError, match="describes no run"):
            read(tmp_path)


def test_an_empty_unit_is_no_evidence():
    """It was decided on the unit before once more, so that its evidence counted twice."""
    units = list(ToyStream(days=4, size=300, seed=2))
    empty = [(f"empty-{i}", samples.rows(0, 0)) for i, (_, samples) in enumerate(units)]

    def decisions(stream):
        steps = run(stream, Memory(500, FIFO()), ConstantLearner(), OnArrivals())
        return [step.decision for step in steps]

    found = decisions([*units[:3], *empty])
    assert [one.reason for one in found[3:]] == ["no samples came"] * 4
    assert str(found[:3]) == str(decisions(units[:3]))
