"""Triggers: due or not at the very boundary, for the reason they state."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import memento
from memento import (
    FIFO,
    Decision,
    Every,
    JensenShannon,
    Memento,
    Memory,
    Never,
    OnArrivals,
    OnCount,
    OnCoverage,
    OnLoss,
    Samples,
    SampleSpace,
    Situation,
    Trigger,
    coverage_increase,
)
from memento.arrivals import Arrivals, Clusters
from memento.errors import DomainError, SchemaError, SettingError

SPACE = SampleSpace([JensenShannon.of_labels("y", 6)], batch_size=4, sort_by=["y"])
POLICY = Memento(SPACE.distances, batch_size=4, sort_by=["y"])
TRIGGERS = [OnArrivals(draws=99), OnCoverage(), OnLoss(), OnCount(10), Every(3), Never()]


def decide(trigger, memory, *, unit=1, trained_at=0, seen_at=0, seed=0, arrivals=None):
    if arrivals is None:
        arrivals = arrived(Samples(y=[0, 1], loss=[1.0, 1.0]), Samples(y=[0, 1], loss=[1.0, 1.0]))
    situation = Situation(memory, unit, trained_at, seen_at, arrivals)
    return trigger.decide(situation, np.random.default_rng(seed))


def arrived(before, now):
    """Arrivals with a reference and a newest unit; each row is a cluster."""
    arrivals = Arrivals()
    arrivals.reference = Clusters(before, np.linspace(0, 0.4, before.size))
    arrivals.unit = Clusters(now, np.linspace(0.5, 0.9, now.size))
    return arrivals


def moved(before, now, policy=POLICY):
    """A memory that was trained with the one content and has the other, as many rows."""
    memory = Memory(max(4, before.size), policy)
    memory.insert(before)
    memory.mark_trained()
    memory.annotate(now)
    return memory


def labels(*values):
    return Samples(y=np.array(values))


def losses(*values):
    return Samples(loss=np.array(values, float))


HELD = Memory(4, FIFO())


# ------------------------------------------------------------------------------------- all triggers


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_the_first_training_is_always_due(trigger):
    decision = decide(trigger, Memory(5, FIFO()), unit=0, trained_at=None)
    assert decision.due is True
    assert decision.reason == "nothing was trained yet"
    numbers = (decision.value, decision.threshold, decision.noise, decision.p_value)
    assert all(math.isnan(number) for number in numbers)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_the_situation_stays_as_it_is(trigger):
    memory = moved(
        Samples(y=[0, 1] * 20, loss=np.ones(40)), Samples(y=[0, 2] * 20, loss=np.ones(40))
    )
    held, reference = (
        {name: column.copy() for name, column in samples.items()}
        for samples in (memory.samples, memory.reference)
    )
    generator = memory.dump()[1]["generator"]
    decision = decide(trigger, memory)
    assert isinstance(decision.due, bool)
    assert isinstance(decision.reason, str)
    assert len(decision.reason) > 10
    assert memory.dump()[1]["generator"] == generator
    for copies, samples in ((held, memory.samples), (reference, memory.reference)):
        for name, column in copies.items():
            np.testing.assert_array_equal(samples[name], column)


@pytest.mark.parametrize("trigger", TRIGGERS, ids=repr)
def test_equal_settings_show_equally(trigger):
    again = type(trigger)(**vars(trigger))
    assert again == trigger
    assert repr(again) == repr(trigger)  # the loop compares checkpoints by this


def test_triggers_are_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Trigger()


# ------------------------------------------------------------------------------------ counts, units


@pytest.mark.parametrize(("seen_at", "due"), [(3, False), (2, True), (0, True)])
def test_on_count(seen_at, due):
    memory = Memory(4, FIFO())
    memory.insert(y=np.arange(12))
    decision = decide(OnCount(10), memory, seen_at=seen_at)
    new = 12 - seen_at
    assert decision.due is due
    assert (decision.value, decision.threshold) == (new, 10)
    assert decision.reason == f"{new} new samples (threshold 10)"


@pytest.mark.parametrize(
    ("period", "trained_at", "unit", "due"),
    [(1, 0, 1, True), (7, 0, 6, False), (7, 0, 7, True), (7, 3, 9, False), (7, 3, 10, True)],
)
def test_every(period, trained_at, unit, due):
    decision = decide(Every(period), Memory(4, FIFO()), trained_at=trained_at, unit=unit)
    assert decision.due is due
    assert (decision.value, decision.threshold) == (unit - trained_at, period)
    assert decision.reason == (
        f"{unit - trained_at} units since the last training (period {period})"
    )


def test_never():
    decision = decide(Never(), Memory(4, FIFO()), unit=10**6)
    assert decision.due is False
    assert decision.reason == "trained once and never again"


# --------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize(
    ("then", "now", "value", "due"),
    [
        ([1.0, 3.0], [2.0, 2.0], 0.0, False),
        ([1.0, 1.0], [1.0, 1.5], 0.25, True),  # exactly the threshold; representable
        ([1.0, 1.0], [1.0, 1.4999], 0.24995, False),
        ([2.0, 2.0], [1.0, 1.0], -0.5, False),
        ([0.0, 0.0], [0.0, 0.0], 0.0, False),  # no loss before, none now
        ([0.0, 0.0], [0.0, 1e-9], math.inf, True),  # none before, some now
        ([1.0, 1.0], [1.0, math.inf], math.inf, True),
    ],
)
def test_on_loss(then, now, value, due):
    decision = decide(OnLoss(0.25), HELD, arrivals=arrived(losses(*then), losses(*now)))
    assert decision.due is due
    assert decision.value == pytest.approx(value)
    assert decision.threshold == 0.25
    assert decision.reason == (
        f"mean loss {np.mean(now):.4g} on arrivals against {np.mean(then):.4g} on those since the "
        f"training: {value:+.1%} (threshold +25.0%)"
    )


def test_on_loss_of_another_column():
    arrivals = arrived(Samples(error=[1.0], loss=[1.0]), Samples(error=[3.0], loss=[1.0]))
    assert decide(OnLoss(column="error"), HELD, arrivals=arrivals).due
    assert not decide(OnLoss(), HELD, arrivals=arrivals).due


@pytest.mark.parametrize("where", ["neither", "now", "then"])
def test_on_loss_without_losses(where):
    then, now = (losses(1) if where == side else labels(1) for side in ("then", "now"))
    with pytest.raises(SchemaError, match=r"'loss' is missing .* have the learner annotate it"):
        decide(OnLoss(), HELD, arrivals=arrived(then, now))


def test_on_loss_right_after_a_training():
    arrivals = arrived(Samples(), losses(1, 3))
    decision = decide(OnLoss(), HELD, arrivals=arrivals)
    assert decision.due is False
    assert "mean loss 2 on the first arrivals since the training" in decision.reason


@pytest.mark.parametrize("trigger", [OnLoss(), OnArrivals()], ids=repr)
def test_triggers_that_compare_arrivals_say_so_where_none_were_kept(trigger):
    situation = Situation(HELD, 1, 0)
    with pytest.raises(SettingError, match=r"no arrivals were kept; use it in memento.run, or"):
        trigger.decide(situation, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("then", "now"), [([1.0], [np.nan]), ([np.nan], [1.0]), ([np.inf], [1.0]), ([np.inf], [np.inf])]
)
def test_on_loss_that_is_no_number(then, now):
    """Never due for a reason that nobody sees: a loss that is NaN compares as not larger."""
    with pytest.raises(DomainError, match=r"column 'loss' has a mean of .* finite losses"):
        decide(OnLoss(), HELD, arrivals=arrived(losses(*then), losses(*now)))


def test_on_loss_leaves_out_what_waits_for_its_label():
    arrivals = arrived(losses(1, np.nan, 1), losses(np.nan, 1))
    assert decide(OnLoss(), HELD, arrivals=arrivals).value == 0


# ----------------------------------------------------------------------------------------- arrivals


def predicted(rng, size, *, classes=3, new=0.0, sharp=2.0):
    """Labels, predictions and losses; a share of the labels is one more than the model knows."""
    y = rng.integers(0, classes, size)
    logits = rng.normal(size=(size, classes + 1)) - 8 * (np.arange(classes + 1) == classes)
    logits[np.arange(size), y] += sharp
    yhat = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y[rng.random(size) < new] = classes
    return Samples(y=y, yhat=yhat, loss=-np.log(yhat[np.arange(size), y]))


SEEN = SampleSpace([JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", 4)])


def test_on_arrivals_without_a_change():
    """False alarms: of 40 units at a run length of 20 at most 2 would be expected; 8 have p < 1e-3.

    Each unit is compared alone, from evidence 0, so an alarm needs e(p) >= 20: p < 0.0011.
    """
    rng = np.random.default_rng(1)
    trigger = OnArrivals(run_length=20, draws=1999, space=SEEN)
    due = [
        decide(trigger, HELD, arrivals=arrived(predicted(rng, 600), predicted(rng, 300))).due
        for _ in range(40)
    ]
    assert sum(due) <= 2


def test_on_arrivals_of_a_new_label():
    rng = np.random.default_rng(2)
    trigger = OnArrivals(space=SEEN)
    arrivals = arrived(predicted(rng, 2000), predicted(rng, 1500, new=0.02))
    decision = decide(trigger, HELD, arrivals=arrivals)
    assert decision.due is True
    assert decision.value == arrivals.evidence >= 200 == decision.threshold
    assert decision.p_value == 1 / 19_999
    assert decision.figures["labels"] == 1
    assert "there are labels that were not there before (3)" in decision.reason
    assert "once in 200 units or more seldom" in decision.reason


def test_on_arrivals_of_larger_losses():
    rng = np.random.default_rng(3)
    arrivals = arrived(predicted(rng, 2000), predicted(rng, 1500, sharp=1.0))
    decision = decide(OnArrivals(space=SEEN), HELD, arrivals=arrivals)
    assert decision.due is True
    assert decision.figures["worse"] > 0.1
    assert "large losses are" in decision.reason


def test_on_arrivals_of_a_change_that_does_no_harm():
    """Better predicted than before and nothing that the history lacks: reported, and no more."""
    rng = np.random.default_rng(4)
    arrivals = arrived(predicted(rng, 2000), predicted(rng, 1500, sharp=4.0))
    trigger = OnArrivals(space=SEEN, effect=1.0)
    decision = decide(trigger, HELD, arrivals=arrivals)
    assert decision.due is False
    assert decision.reason.startswith("arrivals have changed, but it does no harm")
    assert arrivals.renew
    assert arrivals.evidence == 0


@pytest.mark.parametrize(
    ("cluster", "says"),
    [(None, "300 samples that came and 300 before"), ("user", "300 clusters (user) that came")],
)
def test_on_arrivals_speaks_of_clusters_where_some_were_named(cluster, says):
    rng = np.random.default_rng(6)
    arrivals = arrived(predicted(rng, 300), predicted(rng, 300))
    decision = decide(OnArrivals(space=SEEN, cluster=cluster), HELD, arrivals=arrivals)
    assert says in decision.reason
    assert ("cluster" in decision.reason) == (cluster is not None)


@pytest.mark.parametrize("sides", [(1, 5), (5, 1)])
def test_on_arrivals_with_too_few_to_tell(sides):
    rng = np.random.default_rng(5)
    arrivals = arrived(*(predicted(rng, size) for size in sides))
    arrivals.evidence = 3.0
    decision = decide(OnArrivals(space=SEEN), HELD, arrivals=arrivals)
    assert decision.due is False
    assert "too few to tell" in decision.reason
    assert arrivals.evidence == 3.0


# ----------------------------------------------------------------------------------------- coverage

OLD = labels(*[0, 1] * 100)
NEW = labels(*[0, 1, 2, 2] * 50)


def test_on_coverage_of_the_same_content():
    decision = decide(OnCoverage(), moved(OLD, OLD))
    assert decision.due is False
    assert decision.value == 0
    assert decision.threshold == 0.1
    assert decision.reason == "coverage rose by 0.000 (threshold 0.1)"


def test_on_coverage_of_something_new():
    decision = decide(OnCoverage(), moved(OLD, NEW))
    expected = coverage_increase(NEW, OLD, POLICY, rng=0)
    assert decision.due is True
    assert decision.value == float(expected) > 0.5
    assert decision.reason == (
        f"coverage rose by {expected:.3f} (threshold 0.1), and 50.0% of what is held has labels "
        "that were not there then"
    )


def test_noise_and_p_value_are_not_stated_for_two_contents_of_one_memory():
    decision = decide(OnCoverage(), moved(OLD, NEW))
    assert math.isnan(decision.noise)
    assert math.isnan(decision.p_value)


def test_on_coverage_at_the_boundary():
    memory = moved(OLD, NEW)
    value = float(coverage_increase(NEW, OLD, POLICY, permutations=0))
    above = math.nextafter(value, 1)
    assert decide(OnCoverage(value, new_labels=1), memory).due
    assert not decide(OnCoverage(above, new_labels=1), memory).due
    assert decide(OnCoverage(0.0), moved(OLD, OLD)).due  # 0 is not below 0


def test_on_coverage_of_a_new_class_of_a_few():
    """Two of 200 are 1 %; coverage hardly moves."""
    now = labels(*[0, 1] * 99, 2, 2)
    decision = decide(OnCoverage(), moved(OLD, now))
    assert decision.value < 0.1
    assert decision.due is True
    assert not decide(OnCoverage(new_labels=0.011), moved(OLD, now)).due
    assert not decide(OnCoverage(new_labels=1), moved(OLD, now)).due


@pytest.mark.parametrize("settings", [{"significance": 1.0}, {"estimator": "plain"}])
def test_on_coverage_without_a_test_of_noise(settings):
    decision = decide(OnCoverage(0.2, new_labels=1, **settings), moved(OLD, NEW))
    estimator = settings.get("estimator", "calibrated")
    value = coverage_increase(NEW, OLD, POLICY, estimator=estimator, permutations=0)
    assert decision.due is True
    assert decision.value == float(value)
    assert math.isnan(decision.noise)
    assert math.isnan(decision.p_value)
    assert decision.reason == f"coverage rose by {value:.3f} (threshold 0.2)"


def test_on_coverage_with_a_space_of_its_own():
    """Whatever the policy is; here one that knows of no distances."""
    found = decide(OnCoverage(space=SPACE), moved(OLD, NEW, FIFO()))
    assert repr(found) == repr(decide(OnCoverage(), moved(OLD, NEW)))
    coarse = SampleSpace([JensenShannon.of_labels("y", 6)], batch_size=50, sort_by=["y"])
    assert decide(OnCoverage(space=coarse), moved(OLD, NEW)).value == float(
        coverage_increase(NEW, OLD, coarse, permutations=0)
    )


def test_on_coverage_without_distances():
    with pytest.raises(SettingError, match=r"FIFO.* has no distances .* OnCoverage\(space="):
        decide(OnCoverage(), moved(OLD, NEW, FIFO()))


def test_on_coverage_without_a_reference():
    """Something was trained, but nobody knows on what: all is new."""
    memory = Memory(200, POLICY)
    memory.insert(OLD)
    decision = decide(OnCoverage(), memory)
    assert (decision.due, decision.value) == (True, 1.0)


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnCoverage(-0.1), "threshold is -0.1; expected a share from 0 to 1"),
        (lambda: OnCoverage(1.1), "threshold is 1.1"),
        (lambda: OnCoverage(math.nan), "threshold is nan"),
        (
            lambda: OnCoverage(significance=0.0),
            r"significance is 0.0; expected a value in \(0, 1\]",
        ),
        (lambda: OnCoverage(significance=1.5), "significance is 1.5"),
        (lambda: OnCoverage(significance=math.nan), "significance is nan"),
        (lambda: OnCoverage(estimator="raw"), "estimator is 'raw'; expected one of 'calibrated'"),
        (lambda: OnCoverage(permutations=0), "0 permutations cannot .* ask for at least 1$"),
        (lambda: OnCoverage(permutations=-1), "permutations is -1; expected"),
        (lambda: OnCoverage(significance=0.001), "39 permutations .* at least 99$"),
        (lambda: OnLoss(0.0), "increase is 0.0; expected a number above 0"),
        (lambda: OnLoss(math.nan), "increase is nan"),
        (lambda: OnCount(0), "samples is 0; expected a whole number"),
        (lambda: Every(0), "units is 0; expected a whole number"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@given(st.floats(1e-4, 0.999))
def test_the_least_number_of_permutations_is_the_least(significance):
    """The p-value rests on 10 (n + 1) - 1 draws, so it can be as small as 1 / (10 n + 10)."""
    with pytest.raises(SettingError) as caught:
        OnCoverage(significance=significance, permutations=0)
    least = int(str(caught.value).split()[-1])
    OnCoverage(significance=significance, permutations=least)
    assert 1 / (10 * least + 10) <= significance * (1 + 1e-7)
    assert least == 1 or 1 / (10 * (least - 1) + 10) > significance * (1 - 1e-7)


def test_permutations_do_not_matter_where_nothing_is_tested():
    OnCoverage(significance=1.0, permutations=0)
    OnCoverage(estimator="plain", permutations=0)


def test_decisions_default_to_nothing_compared():
    decision = Decision(False, "because")
    assert math.isnan(decision.value)
    assert math.isnan(decision.p_value)


@pytest.mark.parametrize(
    "trigger",
    [*TRIGGERS, OnCoverage(0.2, space=SPACE), OnArrivals(cluster="day", draws=99, space=POLICY)],
)
def test_settings_make_an_equal_trigger(trigger):
    stored = json.loads(json.dumps(trigger.settings()))
    made = memento.trigger(**stored)
    assert type(made) is type(trigger)
    assert made.settings() == trigger.settings()


def test_triggers_by_kind_say_what_is_wrong():
    with pytest.raises(SettingError, match="unknown trigger 'weekly'; known are count, coverage"):
        memento.trigger("weekly")
    with pytest.raises(SettingError, match="trigger 'every': unknown setting"):
        memento.trigger("every", weeks=1)
    with pytest.raises(SettingError, match="units"):
        memento.trigger("every", units=0)


def test_a_subclass_is_a_kind_of_its_own():
    @dataclass(frozen=True)
    class Sometimes(Every):
        chance: float = 0.5

    assert Sometimes().settings()["kind"].endswith("Sometimes")
    assert memento.trigger("every") == Every()
