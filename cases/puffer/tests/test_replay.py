"""Replays of hand-made days: the order of things, what is recorded, and that they go on exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import replayed_days as helpers

pytest.importorskip("polars")

from memento.coverage import coverage_increase
from memento.density import SampleSpace
from memento.errors import ForeignError, LockedError, SchemaError, SettingError
from memento.files import Lock
from memento.memory import Memory
from memento.policies import FIFO, DailyWindow, QueryByCommittee, named_policies
from memento.retrain import Every, OnCount, OnCoverage, OnLoss, Situation
from memento.samples import Samples
from memento_puffer.data.features import Features
from memento_puffer.predictor.scores import QUANTILES, quantiles, score
from memento_puffer.predictor.training_sets import learner_for, training_set
from memento_puffer.predictor.ttp_training import TtpLearner
from memento_puffer.studies import replay as module
from memento_puffer.studies.arms import ARMS, FORMER, REPLAYED, named
from memento_puffer.studies.days import LazyDay, columns_of
from memento_puffer.studies.improvements import improvements
from memento_puffer.studies.replay import Replay
from memento_puffer.studies.replay_settings import (
    TRIGGERS,
    OnAllowedDays,
    ReplaySettings,
    arm,
    fixed,
)
from memento_puffer.studies.selection import selection_study

SCRIPT = Path(__file__).with_name("replayed_days.py")


@pytest.fixture(scope="module")
def base():
    return helpers.base()


@pytest.fixture(scope="module")
def days():
    return helpers.days()


def settings(name: str = "memento", **changes) -> ReplaySettings:
    return arm(name, {**helpers.GIVEN, **changes}, batch_size=8)


# -------------------------------------------------------------------------------- order of days


def test_days_one_by_one_by_hand(tmp_path, base, days):
    """The random arm, written out: insert, train on every second day, judge the next day."""
    given = settings("random")
    steps = Replay(tmp_path / "r", given, days, base).run()
    memory = Memory(96, given.policy, seed=0)
    learner = TtpLearner(base, given.training)
    names = list(days)
    for unit, name in enumerate(names):
        columns = Samples(columns_of(days[name], 0, unit))
        memory.insert(
            columns.with_columns(learner.annotate(columns)) if learner.trained else columns
        )
        if unit % 2 == 1:
            learner.fit(memory.samples, memory.weights)
            memory.annotate(learner.annotate(memory.samples))
        step = steps[unit]
        assert (step.name, step.trained) == (name, unit % 2 == 1)
        assert (step.offered, step.held) == (144, 96)
        if unit == 0 or unit == len(names) - 1:
            assert step.evaluated_on is None
            continue
        following = columns_of(days[names[unit + 1]], 0)
        yhat = learner.annotate(following)["yhat"]
        expected = quantiles(score(yhat, following["y"])["logscore"], (0.01, 0.5))
        assert step.evaluated_on == names[unit + 1]
        assert (step.scores["p01"], step.scores["median"]) == tuple(expected)


def test_everything_of_a_day_is_recorded(tmp_path, base, days):
    steps = Replay(tmp_path / "r", settings(members=3), days, base, lambda day: base).run()
    tables = Replay(tmp_path / "r", settings(members=3), days, base).tables()
    scores, evaluated = tables["scores"], [s.evaluated_on for s in steps if s.evaluated_on]
    assert evaluated == list(days)[2:]
    assert set(scores["day"]) == set(evaluated)
    assert set(scores["predictor"]) == {"own", "oracle", "matched", "static", "published"}
    own = scores.take(scores["predictor"] == "own")
    assert set(own["variable"]) == {"y", "p", "logscore", "err", "err_abs", "err_sqr"}
    metrics = {"mean", "std", "rms", "count", *(f"q{q:g}" for q in QUANTILES)}
    assert set(own["metric"]) == metrics
    # The published model is the static one here, so its rows are the same.
    static, same = (scores.take(scores["predictor"] == n) for n in ("static", "published"))
    np.testing.assert_array_equal(static["value"], same["value"])
    # Against a computation of its own, from the static model.
    columns = columns_of(days[evaluated[0]], 0)
    scored = score(base.probabilities(columns["x"]), columns["y"])
    for variable in ("p", "logscore", "err", "err_abs", "err_sqr"):
        rows = (scores["day"] == evaluated[0]) & (scores["predictor"] == "static")
        rows &= scores["variable"] == variable
        by_metric = dict(zip(scores["metric"][rows], scores["value"][rows], strict=True))
        assert by_metric["mean"] == pytest.approx(scored[variable].mean(), rel=1e-9)
        assert by_metric["q0.5"] == pytest.approx(np.quantile(scored[variable], 0.5), rel=1e-9)
    classes = tables["classes"]
    part = classes.take((classes["day"] == evaluated[0]) & (classes["predictor"] == "static"))
    assert part["count"].sum() == 144
    for label in np.flatnonzero(part["count"]):
        errors = scored["err"][columns["y_bin"] == label]
        assert part["err"][label] == pytest.approx(errors.mean(), rel=1e-6, abs=1e-9)
    assert tables["steps"]["coverage_plain"][0] == 1.0
    assert np.isfinite(tables["steps"]["coverage_calibrated"]).all()
    held = tables["memory"]
    for step in steps:
        assert held["held"][held["day"] == step.name].sum() == step.held
        assert tables["ages"]["held"][tables["ages"]["day"] == step.name].sum() == step.held
    assert {"annotate", "insert", "decide", "train", "judge"} == set(tables["times"]["what"])
    assert (tables["times"]["seconds"] >= 0).all()


def test_the_oracle_is_never_worse_and_improvements_are_differences(tmp_path, base, days):
    made = Replay(tmp_path / "r", settings(members=3), days, base)
    made.run()
    tables = made.tables()
    scores, gains = tables["scores"], tables["improvement"]

    def value(day, predictor, metric):
        rows = (scores["day"] == day) & (scores["predictor"] == predictor)
        rows &= (scores["variable"] == "logscore") & (scores["metric"] == metric)
        return float(scores["value"][rows][0])

    for day in set(scores["day"]):
        for metric in ("q0.01", "q0.5", "mean"):
            assert value(day, "oracle", metric) >= value(day, "own", metric) - 1e-12
    for i in range(gains.size):
        day, who = gains["day"][i], gains["predictor"][i]
        expected = value(day, who, "q0.01") - value(day, "static", "q0.01")
        assert gains["tail"][i] == pytest.approx(expected, abs=1e-12)
    table = improvements({"memento": scores}, "static")
    rows = dict(zip(table["predictor"].tolist(), table["tail"].tolist(), strict=True))
    mine = gains["tail"][gains["predictor"] == "own"]
    assert rows["own"] == pytest.approx(mine.mean(), abs=1e-12)
    assert table["days"].tolist() == [4, 4, 4]


@pytest.mark.parametrize("name", sorted(REPLAYED))
def test_every_arm_runs_with_every_combination(name, tmp_path, base, days):
    """Just Train Twice, oracle and matchmaker go with every memory."""
    asked = {"members": 3, "jtt": 4.0, **fixed(name)}
    given = settings(name, **asked)
    assert all(getattr(given, key) == value for key, value in asked.items())
    runs_over(given, dict(list(days.items())[:4]), base, tmp_path)


def test_a_fitted_temperature_is_the_only_difference(tmp_path, base):
    """A random memory chooses the same samples; the network is the same but for its temperature."""
    large = {name: helpers.features(i, streams=30) for i, name in enumerate(helpers.NAMES[:6])}
    plain, calibrated = (
        Replay(tmp_path / name, settings(name), large, base).run()
        for name in ("random", "random-calibrated")
    )
    for before, after in zip(plain, calibrated, strict=True):
        assert (before.held, before.trained) == (after.held, after.trained)
    scores = [[s.scores["mean"] for s in steps if s.scores] for steps in (plain, calibrated)]
    assert scores[0][0] == scores[1][0]  # nothing was fitted yet
    assert scores[0][1] != scores[1][1]


def test_a_replay_from_before_there_were_temperatures_goes_on(tmp_path, base, days):
    Replay(tmp_path, settings("random"), days, base).run()
    document = json.loads((tmp_path / "replay.json").read_text())
    assert document.pop("calibrated") is False
    (tmp_path / "replay.json").write_text(json.dumps(document))
    assert Replay(tmp_path, settings("random"), days, base).run()
    with pytest.raises(ForeignError, match="calibrated"):
        Replay(tmp_path, settings("random-calibrated"), days, base).run()


@pytest.mark.parametrize("kind", sorted(named_policies))
def test_every_policy_runs_with_every_combination(kind, tmp_path, base, days):
    """Nothing but what it cannot do without is said of a policy."""
    needed = {"metric": {"column": "loss", "measure": "negative"}}
    fields = {
        **({"batch_size": 8} if issubclass(named_policies[kind], SampleSpace) else {}),
        **needed.get(kind, {}),
    }
    document = {
        **helpers.GIVEN,
        "capacity": None if kind == "unbounded" else 96,
        "policy": {"kind": kind, **fields},
        "members": 3,
        "jtt": 4.0,
        "predict_first": True,
    }
    given = ReplaySettings.of_document(document)
    assert ReplaySettings.of_document(json.loads(json.dumps(given.document()))) == given
    runs_over(given, dict(list(days.items())[:4]), base, tmp_path)


def runs_over(given, days, base, folder) -> None:
    steps = Replay(folder, given, days, base).run()
    assert steps[1].trained
    assert steps[-1].held <= (given.capacity or 4 * 144)
    assert given.capacity is not None or steps[-1].held == 4 * 144
    assert all(np.isfinite(v) for s in steps for v in s.scores.values())


def test_embeddings_and_gradients_are_of_the_last_layer(base, days):
    """Written out: the layer's 64 units, projected; p - onehot(y) times them."""
    columns = columns_of(next(iter(days.values())), 0)
    learner = learner_for(settings("gradient").policy, base)
    learner.restore(base.arrays())
    found = learner.annotate(columns)
    W1, b1, W2, b2, *_ = base.weights
    x = base.moments.standardise(columns["x"], base.dtype)
    hidden = np.maximum(np.maximum(x @ W1.T + b1, 0) @ W2.T + b2, 0)
    projection = np.random.default_rng(1).standard_normal((16, 64)) / 4
    expected = hidden @ projection.T
    np.testing.assert_allclose(found["embedding"], expected, rtol=1e-4, atol=1e-5)
    error = base.probabilities(columns["x"]) - np.eye(21)[columns["y_bin"]]
    outer = np.einsum("nc,ne->nce", error, expected[:, :4]).reshape(len(x), -1)
    np.testing.assert_allclose(found["gradient"], outer, rtol=1e-3, atol=1e-5)
    assert found["gradient"].dtype == found["embedding"].dtype == np.float32
    for name, wanted in (("herding", {"embedding"}), ("memento", set())):
        other = learner_for(settings(name).policy, base)
        other.restore(base.arrays())
        got = other.annotate(columns)
        assert set(got) == {"yhat", "logscore", "loss"} | wanted
        np.testing.assert_array_equal(got["yhat"], found["yhat"])


def test_a_training_set_can_be_chosen_by_embeddings(base, days):
    policy = settings("k-center").policy
    memory = training_set(list(days.values())[:2], 0, policy, 50, network=base)
    assert memory.samples["embedding"].shape == (50, 16)


@pytest.mark.parametrize("horizon", range(5))
def test_all_horizons(horizon, tmp_path, days):
    network = helpers.base(horizon)
    steps = Replay(tmp_path, settings("random", horizon=horizon), days, network).run()
    assert steps[0].offered == 12 * (12 - horizon)
    assert steps[2].scores


def test_a_frozen_replay_only_judges(tmp_path, base, days):
    made = Replay(tmp_path, settings(freeze_after=2, densities=[8, 16]), days, base)
    steps = made.run()
    assert [s.frozen for s in steps] == [False, False, True, True, True, True]
    assert sum(s.trained for s in steps) == 1
    tables = made.tables()
    held = tables["memory"]
    last = [held["held"][held["day"] == name] for name in list(days)[1:]]
    assert all(np.array_equal(last[0], one) for one in last)
    found = tables["densities"]
    assert set(found["batch_size"]) == {8, 16}
    assert set(found["of"]) == {"memory", "day"}
    assert found["value"][found["metric"] == "q1"].max() <= 1 / np.sqrt(2 * np.pi) + 1e-9


def test_empty_days_are_no_days(tmp_path, base, days):
    whole = list(days.items())
    one = whole[0][1]
    nothing = Features(
        one.values[:0], one.stream[:0], one.video_ts[:0], one.sent[:0], one.acked[:0], one.streams
    )
    with_gap = dict([*whole[:2], ("2022-01-02b", nothing), *whole[2:]])
    found = Replay(tmp_path / "gap", settings(), with_gap, base).run()
    assert repr(found) == repr(Replay(tmp_path / "none", settings(), days, base).run())


def test_predictions_before_the_first_training(tmp_path, base, days):
    steps = Replay(tmp_path, settings(predict_first=True), days, base).run()
    assert steps[0].evaluated_on == list(days)[1]
    assert steps[0].scores["p01"] == pytest.approx(steps[0].scores["static_p01"], rel=1e-4)
    assert not steps[0].trained


# ------------------------------------------------------------------------------------- going on


def test_it_goes_on_after_any_day_and_when_days_are_added(tmp_path, base, days):
    given = settings(members=3, jtt=3.0)
    straight = Replay(tmp_path / "straight", given, days, base).run()
    expected = helpers.record_of(tmp_path / "straight")
    for done in (1, 2, 5):
        part = dict(list(days.items())[:done])
        Replay(tmp_path / f"{done}", given, part, base).run()
        assert repr(Replay(tmp_path / f"{done}", given, days, base).run()) == repr(straight)
        assert helpers.record_of(tmp_path / f"{done}") == expected


def test_what_is_done_is_not_read_again(tmp_path, base, days):
    stored = dict(days)
    first = Replay(tmp_path, settings(), stored, base).run()
    reads = []
    original = module.columns_of

    def counted(*arguments, **more):
        reads.append(1)
        return original(*arguments, **more)

    module.columns_of, before = counted, module.columns_of
    try:
        # As text: steps hold NaN, which equals nothing.
        assert repr(Replay(tmp_path, settings(), stored, base).run()) == repr(first)
    finally:
        module.columns_of = before
    assert not reads


def test_no_more_than_two_days_are_in_memory():
    made = []

    def reader(number):
        def read():
            made.append(number)
            return {"x": np.full(3, number)}

        return read

    days = [LazyDay(reader(0), None)]
    for number in range(
        4
    ):  # as the loop goes: the next day comes, this one is inserted, that judged
        days.append(LazyDay(reader(number + 1), days[-1]))
        for used in (number, number + 1):
            assert Samples.borrow(days[used])["x"].tolist() == [used] * 3
        assert sum(bool(day._columns) for day in days) <= 2
    assert made == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"capacity": 80}, "has capacity 96, not 80; use the same"),
        ({"jtt": 2.0}, r"jtt 1\.0, not 2\.0"),
        ({"interval": 3}, "interval 2, not 3"),
        ({"jtt": 2.0, "interval": 3}, r"has interval 2, not 3; use"),
        ({"training": {**helpers.TRAINING, "epochs": 3}}, r"training\.epochs 2, not 3"),
    ],
)
def test_a_folder_of_another_replay_is_refused(change, word, tmp_path, base, days):
    part = dict(list(days.items())[:2])
    Replay(tmp_path, settings(), part, base).run()
    with pytest.raises(ForeignError, match=word):
        Replay(tmp_path, settings(**change), part, base).run()
    with pytest.raises(ForeignError, match="starts from another static model; use"):
        Replay(tmp_path, settings(), part, helpers.base(1)).run()
    other = arm("memento", helpers.GIVEN, batch_size=16)
    with pytest.raises(ForeignError, match=r"has policy\.batch_size 8, not 16; use"):
        Replay(tmp_path, other, part, base).run()


def test_a_replay_of_another_version_is_refused_with_what_to_do(tmp_path, base, days):
    """Until 0.1.0 days were recorded in files of their own, and `random` meant forgetting."""
    (tmp_path / "days").mkdir()
    old = {"format": "memento-replay", "base": None, **settings("forgetting").document()}
    (tmp_path / "replay.json").write_text(json.dumps(old))
    for use in (Replay.run, Replay.tables):
        with pytest.raises(ForeignError, match=r"of another version .* choose another folder"):
            use(Replay(tmp_path, settings("random"), days, base))


def test_strangers_and_company_are_refused(tmp_path, base, days):
    with pytest.raises(ForeignError, match="no replay"):
        Replay(tmp_path / "absent", settings(), days, base).tables()
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ForeignError, match=r"mine\.txt"):
        Replay(tmp_path, settings(), days, base).run()
    (tmp_path / "mine.txt").unlink()
    with Lock(tmp_path / "lock"), pytest.raises(LockedError):
        Replay(tmp_path, settings(), days, base).run()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """At least 40 real processes; byte for byte what a straight replay leaves."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "40", "400"],
        capture_output=True,
        text=True,
        timeout=580,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
             "NUMBA_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    counts = json.loads(result.stdout)
    assert counts["kills"] >= 40, counts
    assert counts["completed"] >= 3, counts
    assert counts["interrupted"] >= 10, counts


# ------------------------------------------------------------------------------------- settings


def test_settings_as_json_and_back():
    for name in REPLAYED:
        one = arm(name, {"capacity": 500, "threshold": 0.3, "densities": [4]}, batch_size=16)
        assert ReplaySettings.of_document(json.loads(json.dumps(one.document()))) == one


def test_one_name_for_each_memory():
    """Two memories were called random; former names mean what they meant."""
    assert (arm("random").policy.forget, arm("forgetting").policy.forget) == (0, 0.1)
    assert arm("reservoir") == arm("random")
    assert arm("daily-window") == arm("daily") == arm("window")
    assert not set(FORMER) & set(ARMS)
    with pytest.raises(SettingError, match="no arm 'static'; there are random, memento,"):
        named("static")  # a replay judges the static model anyhow
    with pytest.raises(SettingError, match="no arm 'mementos'; there are static, random,"):
        named("mementos", ARMS)


def test_arms_are_what_they_are_called():
    assert arm("random-triple", {"capacity": 100}).capacity == 300
    assert not arm("density-reservoir-unweighted").weighted
    assert arm("memento-defaults", None, batch_size=9).policy.batch_size is None
    assert arm("daily", {"interval": 7}).interval == 1  # the default, as if it were not given
    assert arm("class-balanced").policy.label == "y_bin"
    assert (
        ReplaySettings.of_document(
            {"policy": {"kind": "class-balanced-reservoir", "label": "other"}}
        ).policy.label
        == "other"
    )
    assert arm("unbounded", {"capacity": 96}).capacity is None
    assert isinstance(arm("daily").policy, DailyWindow)
    assert isinstance(arm("committee").policy, QueryByCommittee)
    assert isinstance(arm("fifo", None, batch_size=9, temperature=3.0).policy, FIFO)
    assert arm("memento-T0").policy.temperature == 0
    assert (
        arm("memento", None, temperature=0.5, bandwidth=0.2, batch_size=9).policy.bandwidth == 0.2
    )
    assert arm("loss", None, temperature=None).policy.temperature == 0.1
    assert arm("stalled").policy.temperature == 0.01
    assert arm("labels", None, batch_size=64).policy.batch_size is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"jtt": 10.0}, r"the arm 'daily' has jtt = 1\.0, not 10\.0; leave jtt out"),
        ({"members": 7}, "members = 1, not 7"),
        ({"interval": 3}, "interval = 1, not 3"),
        ({"trigger": "coverage"}, "trigger = 'always', not 'coverage'"),
    ],
)
def test_what_an_arm_is_known_by_cannot_be_given_otherwise(given, words):
    with pytest.raises(SettingError, match=words):
        arm("daily", given)
    assert arm("daily", {**given, **fixed("daily")}) == arm("daily")


@pytest.mark.parametrize(
    ("trigger", "threshold", "kind"),
    [
        ("always", 0.1, Every),
        ("coverage", 0.2, OnCoverage),
        ("coverage-calibrated", 0.2, OnCoverage),
        ("loss", 0.1, OnLoss),
        ("count", 500, OnCount),
        ("period", 3, Every),
    ],
)
def test_triggers(trigger, threshold, kind):
    found = settings(trigger=trigger, threshold=threshold).decision.trigger
    assert isinstance(found, kind)
    if kind is OnCoverage:
        assert found.estimator == ("plain" if trigger == "coverage" else "calibrated")
        assert found.threshold == 0.2


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_trigger_decides(trigger, tmp_path, base, days):
    threshold = {"count": 200, "period": 2}.get(trigger, 0.05)
    given = settings(trigger=trigger, threshold=threshold, interval=1)
    steps = Replay(tmp_path, given, days, base).run()
    assert steps[0].trained
    for step in steps[1:]:
        if trigger in ("coverage", "loss", "count"):
            assert step.trained == (step.decision.value >= step.decision.threshold)
    if trigger == "coverage":
        table = Replay(tmp_path, given, days, base).tables()["steps"]
        np.testing.assert_array_equal(table["value"][1:], table["coverage_plain"][1:])
    assert trigger != "never" or sum(s.trained for s in steps) == 1
    assert trigger != "always" or all(s.trained for s in steps)


def test_coverage_is_measured_on_days_without_training():
    space = settings().space
    memory = Memory(64, FIFO())
    rng = np.random.default_rng(0)
    columns = {"y": rng.random(64), "y_bin": rng.integers(0, 3, 64), "x": rng.random((64, 2))}
    memory.insert(columns)
    memory.mark_trained()
    memory.insert({**columns, "y_bin": rng.integers(5, 9, 64)})
    trigger = OnAllowedDays(3, Every(1), space)
    decision = trigger.decide(Situation(memory, 3, 2), rng)
    assert not decision.due
    expected = coverage_increase(memory.samples, memory.reference, space, permutations=0)
    assert decision.figures["coverage_calibrated"] == float(expected) > 0.5
    assert trigger.decide(Situation(memory, 5, 2), rng).due


@pytest.mark.parametrize(
    "document",
    [
        {"capacity": 0},
        {"horizon": 5},
        {"interval": 0},
        {"trigger": "sometimes"},
        {"trigger": "count", "threshold": 0.1},
        {"threshold": 2.0, "trigger": "coverage"},
        {"jtt": 0.5},
        {"members": 0},
        {"freeze_after": 0},
        {"policy": {"kind": "query-by-committee"}, "members": 1},
        {"policy": {"kind": "memento", "colour": "red"}},
        {"training": {"epochs": -1}},
        {"training": {"colour": "red"}},
        {"colour": "red"},
        {"capacity": 5, "policy": {"kind": "memento", "batch_size": 8}},
        {"capacity": 5, "policy": {"kind": "unbounded"}},
    ],
)
def test_settings_that_do_not_fit(document):
    with pytest.raises(SettingError):
        ReplaySettings.of_document(document)


def test_what_a_policy_needs_is_asked_for(tmp_path, base, days):
    with pytest.raises(SettingError, match="no arm"):
        arm("mementos")
    with pytest.raises(SettingError, match="no days"):
        Replay(tmp_path, settings(), {}, base)
    for name in ("loss", "euclidean-inputs"):
        with pytest.raises(SettingError, match="base"):
            Replay(tmp_path, settings(name), days, None)
    plain = {
        name: dataclasses.replace(day, streams=day.streams.drop("stalled"))
        for name, day in days.items()
    }
    with pytest.raises(SchemaError, match="stalled"):
        Replay(tmp_path / "s", settings("stalled"), plain, base).run()


# ---------------------------------------------------------------------------------- comparisons


def test_improvements_against_a_plain_computation():
    rng = np.random.default_rng(3)

    def table(days):
        rows = [(d, p, "logscore", m, rng.normal()) for d in days for p in ("own", "static")
                for m in ("q0.01", "q0.5", "mean", "std")]  # fmt: skip
        names = ("day", "predictor", "variable", "metric", "value")
        return Samples(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))

    one, other = table(["a", "b", "c"]), table(["b", "c", "d"])

    def value(t, day, who, metric):
        rows = (t["day"] == day) & (t["predictor"] == who) & (t["metric"] == metric)
        return t["value"][rows][0]

    found = improvements({"one": one, "other": other}, "other")
    gains = [value(one, d, "own", "q0.01") - value(other, d, "own", "q0.01") for d in "bc"]
    assert found["days"].tolist() == [2, 3]
    assert found["tail"].tolist() == pytest.approx([np.mean(gains), 0.0])
    assert found["tail_error"][0] == pytest.approx(np.std(gains, ddof=1) / np.sqrt(2))
    found = improvements({"one": one}, "static")
    gains = [value(one, d, "own", "mean") - value(one, d, "static", "mean") for d in "abc"]
    assert found["mean"][0] == pytest.approx(np.mean(gains))
    assert improvements({"one": one}, "published")["days"].tolist() == [0]
    with pytest.raises(SettingError, match="no arm"):
        improvements({"one": one}, "two")


def test_selection_study(base):
    columns = columns_of(helpers.features(5, streams=60), 0)
    policies = {name: settings(name).policy for name in ("memento", "loss", "random")}
    found = selection_study(columns, base, policies, 96, batch_size=8, training=settings().training)
    batches = len(columns["y"]) // 8
    assert found.size == 3 * batches
    for name in policies:
        part = found.take(found["policy"] == name)
        kept = 8 * part["kept"].sum()  # samples; a remainder lies in no batch
        assert 96 - 8 < kept <= 96
        assert ((part["kept"] >= 0) & (part["kept"] <= 1)).all()
        np.testing.assert_array_equal(
            part["loss_before"], found["loss_before"][found["policy"] == "memento"]
        )
        assert not np.array_equal(part["loss_before"], part["loss_after"])
    memento, loss = (found.take(found["policy"] == n) for n in ("memento", "loss"))
    # Memento keeps or discards whole batches, here of the same size and order.
    assert set(memento["kept"]) <= {0.0, 1.0}

    def weighted(table, column):
        return np.average(table[column], weights=table["kept"])

    assert weighted(memento, "density") < memento["density"].mean()
    assert weighted(loss, "loss_before") > weighted(memento, "loss_before")
    with pytest.raises(SchemaError, match="one batch"):
        selection_study({n: c[:5] for n, c in columns.items()}, base, policies, 96, batch_size=8)


@pytest.mark.parametrize("document", [{"training": "fast"}, {"training": 5}, {"policy": "memento"}])
def test_settings_that_are_no_tables_are_refused(document):
    (name,) = document
    with pytest.raises(SettingError, match=f"{name} is .*expected .*a table of"):
        ReplaySettings.of_document(document)
