"""river, both ways, with the real one."""

from __future__ import annotations

import copy
import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("river")
from river import base, checks, drift, evaluate, forest, metrics, tree
from sklearn.linear_model import LogisticRegression

from memento import (
    FIFO,
    JensenShannon,
    Memento,
    Memory,
    Never,
    OnArrivals,
    OnCount,
    OnCoverage,
    Reservoir,
    Samples,
    Situation,
    named_triggers,
    read_steps,
    run,
    trigger,
)
from memento.errors import DomainError, MissingExtraError, SchemaError, SettingError
from memento.integrations.river import (
    Feed,
    OnDetector,
    ReplayClassifier,
    ReplayRegressor,
    TriggerDetector,
)

CHECKED = [ReplayClassifier(unit=50, capacity=100), ReplayRegressor(unit=50, capacity=100)]
CHECKS = [(model, check) for model in CHECKED for check in checks.yield_checks(model)]


@pytest.mark.parametrize(
    ("model", "check"), CHECKS, ids=[f"{type(m).__name__}-{c.__name__}" for m, c in CHECKS]
)
def test_every_check_of_river(model, check):
    check(model.clone())


# --- a detector of theirs as a trigger ---------------------------------------------------------


class Losses:
    """A learner whose loss is what it is shown."""

    label = "y"

    def __init__(self):
        self.trained = False

    def fit(self, samples, weights=None):
        self.trained = True

    def annotate(self, samples):
        return {"loss": samples["x"]}

    def state(self):
        return {"trained": np.array([self.trained])}

    def restore(self, state):
        self.trained = bool(state) and bool(state["trained"][0])


def days(changes=(), count=12, size=150, seed=0):
    """Units of losses, 1 higher from each of the units that are named."""
    rng = np.random.default_rng(seed)
    return [
        (f"day {i}", {"x": rng.normal(sum(i >= c for c in changes), 0.3, size), "y": [0] * size})
        for i in range(count)
    ]


def trained(stream, by, **options):
    steps = run(stream, Memory(300, FIFO()), Losses(), by, judge={}, **options)
    return [step.unit for step in steps if step.trained]


def test_adwin_says_what_it_says_by_itself():
    stream = days(changes=(4, 9))
    detector, expected = drift.ADWIN(), [0]
    for unit, (_, samples) in enumerate(stream[1:], 1):
        found = False
        for loss in samples["x"].tolist():
            detector.update(loss)
            found |= detector.drift_detected
        if found:
            expected.append(unit)
            detector = drift.ADWIN()
    assert trained(stream, OnDetector("ADWIN")) == expected == [0, 4, 9]
    assert trained(days(), OnDetector("ADWIN")) == [0]


def test_a_stopped_run_goes_on_with_it(tmp_path):
    stream, by = days(changes=(3,), count=6, size=60), OnDetector(drift.KSWIN(window_size=60))
    whole = trained(stream, by)
    assert len(whole) > 1
    for stop in (3, 4):
        folder = tmp_path / str(stop)
        trained(stream[:stop], by, checkpoint=folder)
        assert trained(stream, by, checkpoint=folder) == whole
        assert len(read_steps(folder)) == len(stream)


@pytest.mark.parametrize(
    "detector",
    [drift.ADWIN(delta=0.01), drift.PageHinkley(), drift.KSWIN(), drift.binary.DDM()],
    ids=lambda detector: type(detector).__name__,
)
def test_it_can_be_stored(detector):
    by = OnDetector(detector, column="wrong")
    again = trigger(**by.settings())
    assert again == by
    assert hash(again) == hash(by)
    assert type(again.made()) is type(detector)
    mine, theirs = again.made()._get_params(), detector._get_params()
    assert {**mine, "seed": None} == {**theirs, "seed": None}


def test_stored_settings_need_no_import(monkeypatch):
    """A file of settings that names the kind loads it, or says what to install."""
    stored = OnDetector("ADWIN", {"delta": 0.01}).settings()
    monkeypatch.delitem(named_triggers, "river")
    assert trigger(**stored) == OnDetector("ADWIN", {"delta": 0.01})
    monkeypatch.delitem(named_triggers, "river")
    monkeypatch.delitem(sys.modules, "memento.integrations.river")
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[river\]"'):
        trigger(**stored)


def test_binary_detectors_watch_truth_values():
    rng = np.random.default_rng(2)

    def stream(levels):
        return [
            (str(i), {"x": (rng.random(200) < level).astype(float), "y": [0] * 200})
            for i, level in enumerate(levels)
        ]

    assert trained(stream([0.1] * 4 + [0.6] * 2), OnDetector("DDM")) == [0, 4]
    with pytest.raises(DomainError, match=r"DDM watches truth values.*'loss' goes from"):
        trained(days(), OnDetector("DDM"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"detector": "ADVIN"}, r"'ADVIN'; river has ADWIN, .*PageHinkley"),
        ({"detector": 3}, r"detector is 3; river has|detector is 3; expected"),
        ({"detector": "ADWIN", "parameters": {"alpha": 1}}, "does not take .*alpha"),
        ({"detector": "ADWIN", "parameters": 3}, "parameters is 3; expected a mapping"),
        ({"detector": TriggerDetector()}, "river has ADWIN"),
        ({"column": ""}, "column is ''"),
    ],
)
def test_what_is_no_detector(given, words):
    with pytest.raises(SettingError, match=words):
        OnDetector(**given)


def test_a_detector_that_has_a_state_is_refused():
    detector = drift.KSWIN()
    detector.update(1.0)
    with pytest.raises(SettingError, match=r"has window=.*give one that has seen nothing"):
        OnDetector(detector)


def test_an_own_detector_cannot_pass_for_one_of_theirs():
    mine = type("ADWIN", (drift.ADWIN,), {})
    with pytest.raises(SettingError, match=r"none of river\.drift's"):
        OnDetector(mine())


def test_columns_that_cannot_be_watched():
    with pytest.raises(SchemaError, match="'mistake' is missing in what came in"):
        trained(days(), OnDetector("ADWIN", column="mistake"))
    stream = [(name, {**unit, "two": np.zeros((150, 2))}) for name, unit in days()]
    with pytest.raises(SchemaError, match=r"float64 of shape \(150, 2\); expected one number"):
        trained(stream, OnDetector("ADWIN", column="two"))
    with pytest.raises(SettingError, match="no arrivals were kept"):
        OnDetector().decide(Situation(Memory(3, FIFO()), trained_at=0), np.random.default_rng(0))


# --- a trigger of ours as a detector -----------------------------------------------------------


def alarms(detector, values):
    found = []
    for i, value in enumerate(values, 1):
        detector.update(value)
        if detector.drift_detected:
            found.append(i)
    return found


def test_false_alarms_are_as_seldom_as_the_trigger_says():
    """In 200 units with a run length of 200, at most 1 on average: more than 5 in 1 of 1,700."""
    rng = np.random.default_rng(5)
    found = [alarms(TriggerDetector(unit=50, seed=s), rng.normal(size=2000)) for s in range(5)]
    assert sum(map(len, found)) <= 5


def test_it_finds_a_change_soon():
    rng = np.random.default_rng(6)
    values = np.concatenate([rng.normal(size=1000), rng.normal(0.7, size=1000)])
    found = alarms(TriggerDetector(unit=100), values.tolist())
    assert 1000 < found[0] <= 1300
    mistakes = np.concatenate([rng.random(1000) < 0.2, rng.random(1000) < 0.5]).astype(int)
    found = alarms(TriggerDetector(unit=100), mistakes.tolist())
    assert 1000 < found[0] <= 1400


def test_it_sees_whole_samples_too():
    space = Memento([JensenShannon.of_labels("kind"), JensenShannon.of_values("size")])
    detector = TriggerDetector(OnArrivals(space=space), unit=100)
    usual = [{"kind": "ab"[i % 2], "size": i % 7} for i in range(500)]
    new = [{"kind": "c", "size": i % 7} for i in range(200)]
    assert alarms(detector, usual) == []
    assert alarms(detector, new[:100]) == [100]
    assert "labels that were not there before (c)" in detector.decision.reason


def test_other_triggers():
    assert alarms(TriggerDetector(OnCount(300), unit=100), [0.5] * 1000) == [300, 600, 900]
    assert alarms(TriggerDetector(Never(), unit=100), [0.5] * 500) == []
    space = Memento([JensenShannon.of_values("loss")], batch_size=16)
    rng = np.random.default_rng(7)
    values = np.concatenate([rng.normal(size=1000), rng.normal(9, size=1000)])
    found = alarms(TriggerDetector(OnCoverage(0.3, space=space), unit=100), values.tolist())
    assert any(1000 < i <= 1800 for i in found)


def test_where_river_takes_a_detector():
    """The labels of a stream turn round, and a forest notices."""
    rng = np.random.default_rng(8)
    points = rng.random((1000, 2))
    stream = [
        ({"a": a, "b": b}, bool((a > 0.5) ^ (i >= 500))) for i, (a, b) in enumerate(points.tolist())
    ]
    detector = TriggerDetector(unit=100)
    model = forest.ARFClassifier(
        n_models=2, seed=1, drift_detector=detector, warning_detector=TriggerDetector(unit=50)
    )
    evaluate.progressive_val_score(stream, model, metrics.Accuracy())
    assert model.n_drifts_detected() >= 1
    single = drift.DriftRetrainingClassifier(
        tree.HoeffdingTreeClassifier(), detector.clone(), train_in_background=False
    )
    found = evaluate.progressive_val_score(stream, single, metrics.Accuracy()).get()
    alone = evaluate.progressive_val_score(
        stream, tree.HoeffdingTreeClassifier(), metrics.Accuracy()
    ).get()
    assert found > alone + 0.1
    assert detector.decision is None  # they worked with clones


def test_a_detector_is_one_of_theirs():
    detector = TriggerDetector(OnCount(100), unit=50)
    assert isinstance(detector, base.DriftDetector)
    alarms(detector, [1.0] * 120)
    again = detector.clone()
    assert again.decision is None
    assert again.trigger == detector.trigger
    kept = copy.deepcopy(detector)
    assert alarms(kept, [1.0] * 100) == alarms(detector, [1.0] * 100) != []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"loss": float("nan")}])
def test_numbers_that_are_none(value):
    with pytest.raises(DomainError, match="expected finite numbers"):
        TriggerDetector().update(value)


@pytest.mark.parametrize("given", [{"unit": 1}, {"trigger": drift.ADWIN()}, {"column": 3}])
def test_settings_of_a_detector(given):
    with pytest.raises(SettingError):
        TriggerDetector(**given)


# --- one sample at a time ----------------------------------------------------------------------


def test_a_fed_memory_is_one_of_units():
    rng = np.random.default_rng(9)
    x, y = rng.random(230), rng.integers(0, 3, 230)
    feed, memory = Feed(Memory(50, Reservoir(), seed=1), unit=100), Memory(50, Reservoir(), seed=1)
    for value, label in zip(x.tolist(), y.tolist(), strict=True):
        feed.learn_one({"x": value}, label)
    assert feed.waiting == 30
    feed.flush()
    assert feed.flush().offered == feed.waiting == 0
    for rows in (slice(0, 100), slice(100, 200), slice(200, 230)):
        memory.insert(x=x[rows], y=y[rows])
    assert all(np.array_equal(feed.memory.samples[n], memory.samples[n]) for n in ("x", "y"))


def test_features_come_and_go():
    feed = Feed(Memory(10, FIFO()), unit=2)
    for sample in (
        {"a": 1, "text": "one"},
        {"a": 2},
        {"b": 3.5, "v": np.zeros(2)},
        {"b": 4.5, "v": np.ones(2)},
    ):
        feed.learn_one(sample)
    held = feed.memory.samples
    assert held["text"].tolist() == ["one", "", "", ""]
    assert np.array_equal(held["a"], [1, 2, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(held["b"], [np.nan, np.nan, 3.5, 4.5], equal_nan=True)
    assert held["v"].shape == (4, 2)


def test_a_fed_memory_asks_its_trigger():
    feed = Feed(Memory(100, FIFO()), unit=50, trigger=OnCount(10))
    for i in range(50):
        feed.learn_one({"x": i}, i % 2)
    assert feed.decision.reason == "nothing was trained yet"


def test_a_refused_unit_leaves_the_memory_as_it_was():
    feed = Feed(Memory(100, Memento([JensenShannon.of_labels("y", classes=2)])), unit=2)
    feed.learn_one({}, 0)
    feed.learn_one({}, 1)
    feed.learn_one({}, 7)
    with pytest.raises(DomainError):
        feed.learn_one({}, 0)
    assert len(feed.memory) == 2
    feed.learn_one({}, 1)
    feed.learn_one({}, 1)
    assert len(feed.memory) == 4


def test_a_classifier_learns_again_when_the_stream_turns():
    rng = np.random.default_rng(10)
    points = rng.random((2000, 2))
    stream = [
        ({"a": a, "b": b}, "yes" if (a > 0.5) ^ (i >= 1000) else "no")
        for i, (a, b) in enumerate(points.tolist())
    ]

    def accuracy(by):
        model = ReplayClassifier(LogisticRegression(), FIFO(), by, capacity=80, unit=100)
        right = []
        for x, y in stream:
            right.append(model.predict_one(x) == y)
            model.learn_one(x, y)
        return model, np.mean(right[:1000]), np.mean(right[1400:])

    model, before, after = accuracy(OnArrivals())
    _, _, never = accuracy(Never())
    assert before > 0.85
    assert after > 0.8 > 0.3 > never
    assert set(model.memory.samples) >= {"x", "y", "yhat", "loss"}
    assert model.predict_proba_one({"a": 0.1, "new": 3.0}).keys() == {"yes", "no"}


def test_a_text_is_no_number():
    with pytest.raises(SchemaError, match="OneHotEncoder"):
        ReplayClassifier().learn_one({"colour": "red"}, True)


def test_samples_are_not_changed_by_a_regressor():
    model = ReplayRegressor(unit=10, capacity=20)
    assert model.predict_one({"a": 1.0}) == 0.0
    for i in range(10):
        model.learn_one({"a": float(i)}, 2.0 * i)
    assert model.predict_one({"a": 4.0}) == pytest.approx(8.0, abs=1.5)
    assert isinstance(model.memory.samples, Samples)


def test_without_river(monkeypatch):
    monkeypatch.setitem(sys.modules, "river", None)
    monkeypatch.delitem(sys.modules, "memento.integrations.river")
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[river\]"'):
        importlib.import_module("memento.integrations.river")
