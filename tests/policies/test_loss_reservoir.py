"""LossReservoir: inclusion probabilities that are known, neutral to age, mergeable.

Seeds are fixed. Where a test is statistical, its false-alarm rate is stated: how often it would
fail over other choices of seeds, were all well.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from memento import LossReservoir, Memory
from memento.errors import DomainError, SchemaError, SettingError
from memento.policies import policy_from_settings, usual_policy
from memento.policies._policy import State
from memento.samples import Samples


def weights_of(policy: LossReservoir, columns: dict[str, np.ndarray]) -> np.ndarray:
    fresh = Samples.borrow(columns)
    nothing, rng = Samples.borrow({}), np.random.default_rng(0)
    return policy.fresh_weights(nothing, fresh, 10, State({}, {}), rng)


def expected(losses: np.ndarray, uniform: float, *, log: bool) -> list[float]:
    """The formula, sample by sample."""
    if log:
        difficulty = [1 - math.exp(-loss) + 1e-3 for loss in losses]
    else:
        difficulty = [loss + 1e-3 * sum(losses) / len(losses) for loss in losses]
    mean = sum(difficulty) / len(difficulty)
    difficulty = [min(one, 20 * mean) for one in difficulty]
    mean = sum(difficulty) / len(difficulty)
    return [uniform + (1 - uniform) * one / mean for one in difficulty]


@pytest.mark.parametrize("scale", ["log", "absolute"])
@pytest.mark.parametrize("uniform", [0.0, 0.3, 1.0])
def test_weights_are_the_formula(scale, uniform):
    losses = np.random.default_rng(1).exponential(1.0, 200)
    losses[:3] = 0.0, 500.0, 1e-9
    found = weights_of(LossReservoir(scale=scale, uniform=uniform), {"loss": losses})
    np.testing.assert_allclose(found, expected(losses, uniform, log=scale == "log"), rtol=1e-12)
    assert found.mean() == pytest.approx(1)


@pytest.mark.parametrize("scale", ["log", "absolute"])
@pytest.mark.parametrize("losses", [[], [0.0, 0.0], [1e308, 1e308], [math.nan, math.nan]])
def test_losses_that_say_nothing_weigh_the_same(scale, losses):
    found = weights_of(LossReservoir(scale=scale), {"loss": np.array(losses, float)})
    np.testing.assert_allclose(found, np.ones(len(losses)))


def test_samples_without_a_loss_weigh_one():
    policy = LossReservoir(uniform=0.0)
    np.testing.assert_array_equal(weights_of(policy, {"x": np.arange(4)}), np.ones(4))
    losses = np.array([np.nan, 0.1, np.nan, 3.0])
    found = weights_of(policy, {"loss": losses})
    np.testing.assert_array_equal(found[[0, 2]], [1, 1])
    assert found[1] < 1 < found[3]


@pytest.mark.filterwarnings("ignore:.*does without it")
@pytest.mark.parametrize("without", [0, 2])
def test_an_insert_without_losses_does_not_hide_those_of_others(without):
    """Through a memory; of a hundred samples held about 35 of 100 are difficult, at random 2."""
    memory = Memory(100, LossReservoir(uniform=0.0), seed=0)
    for day in range(6):
        hard = np.arange(1000) % 50 == 0
        columns = {"hard": hard, "day": np.full(1000, day), "loss": np.where(hard, 3.0, 0.05)}
        if day == without:
            del columns["loss"]
        memory.insert(columns)
    later = memory.samples["day"] > without
    assert memory.samples["hard"][later].mean() > 0.15


def stream(rng: np.random.Generator, size: int = 300) -> dict[str, np.ndarray]:
    hard = rng.random(size) < 0.1
    return {"loss": np.where(hard, rng.exponential(3.0, size), 0.05), "hard": hard.astype(float)}


@pytest.mark.parametrize("scale", ["log", "absolute"])
def test_sums_over_the_stream_are_estimated_without_bias(scale):
    """Numbers of samples, and of the difficult; false alarms of 4.5 sigmas: 1e-5 each."""
    counts, difficult, of_random = [], [], []
    for seed in range(150):
        memory = Memory(60, LossReservoir(scale=scale), seed=seed)
        rng = np.random.default_rng(seed + 1000)
        seen = 0.0
        for _ in range(4):
            day = stream(rng)
            seen += day["hard"].sum()
            memory.insert(day)
        counts.append(memory.weights.sum() / 1200)
        difficult.append((memory.weights * memory.samples["hard"]).sum() / seen)
        of_random.append(memory.samples["hard"].mean())
    for values in (counts, difficult):
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        assert abs(np.mean(values) - 1) < 4.5 * error
    assert np.mean(of_random) > 0.25  # where a random memory holds a tenth


def test_neutral_to_age_while_the_model_gets_better():
    """Shares of four inserts, though losses fall; standard error 0.01, so 1e-5 false alarms."""
    shares = np.zeros(4)
    for seed in range(120):
        memory = Memory(80, LossReservoir(scale="absolute", uniform=0.0), seed=seed)
        rng = np.random.default_rng(seed)
        for day in range(4):
            losses = rng.exponential(2.0, 300) * 0.5**day
            memory.insert(loss=losses, day=np.full(300, day))
        shares += np.bincount(memory.samples["day"], minlength=4) / 80 / 120
    np.testing.assert_allclose(shares, 0.25, atol=0.045)


@pytest.mark.parametrize("half_life", [None, 2.0])
def test_merging_gives_the_memory_of_the_joint_stream(half_life):
    """Exactly, as keys are hashed and both parts of an insert have the same mean loss."""
    policy = LossReservoir(identify_by="id", half_life=half_life)
    rng = np.random.default_rng(3)
    days = [rng.exponential(1.0, 200) for _ in range(3)]
    parts = [Memory(50, policy, seed=seed) for seed in (0, 1)]
    joint = Memory(50, policy, seed=9)
    for number, losses in enumerate(days):
        ids = 400 * number + np.arange(400)
        for memory, half in zip(parts, (ids[:200], ids[200:]), strict=True):
            memory.insert(loss=losses, id=half)
        joint.insert(loss=np.tile(losses, 2), id=ids)
    merged = parts[0]
    merged.merge(parts[1])
    order, expected_order = (np.argsort(m.samples["id"]) for m in (merged, joint))
    np.testing.assert_array_equal(merged.samples["id"][order], joint.samples["id"][expected_order])
    np.testing.assert_allclose(merged.weights[order], joint.weights[expected_order])


def test_exponent_is_for_training_only():
    day = stream(np.random.default_rng(4))
    whole, half = (Memory(40, LossReservoir(exponent=e), seed=1) for e in (1.0, 0.5))
    for memory in (whole, half):
        memory.insert(day)
    np.testing.assert_array_equal(whole.samples["loss"], half.samples["loss"])
    np.testing.assert_allclose(np.sqrt(whole.weights), half.weights)


def test_settings_make_an_equal_policy():
    policy = LossReservoir("cost", "absolute", 0.5, 0.9, 4.0, "id")
    assert policy_from_settings(policy.settings()) == policy


def test_the_usual_one_knows_what_losses_are_of():
    assert usual_policy("loss-reservoir") == LossReservoir()
    assert usual_policy("loss-reservoir", numbers=True) == LossReservoir(scale="absolute")


@pytest.mark.parametrize(
    "settings",
    [{"uniform": 1.1}, {"uniform": -0.1}, {"scale": "square"}, {"exponent": 2}, {"half_life": 0}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        LossReservoir(**settings)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"loss": [-0.1, 1.0]}, DomainError, r"-0\.1 in row 0"),
        ({"loss": [0.1, math.inf]}, DomainError, "inf in row 1"),
        ({"loss": ["a", "b"]}, SchemaError, "expected one number"),
        ({"loss": [[1.0], [2.0]]}, SchemaError, "2"),
    ],
)
def test_columns_that_make_no_sense_are_refused(columns, error, message):
    memory = Memory(5, LossReservoir(), seed=0)
    with pytest.raises(error, match=message):
        memory.insert(columns)
    assert memory.samples.size == 0
