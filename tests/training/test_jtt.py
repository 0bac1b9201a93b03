from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import ModelError, SchemaError, SettingError
from memento.loop import run
from memento.memory import Memory
from memento.policies import DensityReservoir, Reservoir
from memento.retrain import Every
from memento.samples import Samples
from memento.testing import ConstantLearner, ToyStream
from memento.training import JustTrainTwice


class Recorder(ConstantLearner):
    """Remembers with which weights, and from which start, it was trained."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__(classes=3)
        self.calls: list[np.ndarray | None] = []
        self.starts: list[dict[str, np.ndarray]] = []
        self.fail_at = fail_at

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        self.starts.append({n: np.array(a) for n, a in self.state().items()})
        self.calls.append(None if weights is None else np.array(weights))
        super().fit(samples, weights)
        if self.fail_at == len(self.calls):
            raise ModelError("no")


LABELS = Samples(label=[0, 0, 0, 1, 2, 0])


def test_only_wrong_samples_count_more_the_second_time():
    inner = Recorder()
    JustTrainTwice(inner, 7).fit(LABELS)
    assert inner.calls[0] is None
    np.testing.assert_array_equal(inner.calls[1], [1, 1, 1, 7, 7, 1])


def test_weights_of_a_memory_are_multiplied():
    inner = Recorder()
    weights = np.array([1.0, 2, 3, 4, 5, 6])
    JustTrainTwice(inner, 2).fit(LABELS, weights)
    np.testing.assert_array_equal(inner.calls[0], [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(inner.calls[1], [1, 2, 3, 8, 10, 6])
    np.testing.assert_array_equal(weights, [1, 2, 3, 4, 5, 6])


def test_both_trainings_start_where_the_learner_was():
    inner = Recorder()
    learner = JustTrainTwice(inner, 2)
    learner.fit(LABELS)
    learner.fit(LABELS)
    assert len(inner.calls) == 4
    for first, second in ((0, 1), (2, 3)):
        assert inner.starts[first].keys() == inner.starts[second].keys()
        for name, array in inner.starts[first].items():
            np.testing.assert_array_equal(array, inner.starts[second][name])
    assert not inner.starts[0]
    assert inner.starts[2]


@pytest.mark.parametrize(("factor", "labels"), [(1, [0, 1, 0]), (50, [0, 0, 0])])
def test_one_training_where_a_second_would_change_nothing(factor, labels):
    inner = Recorder()
    learner = JustTrainTwice(inner, factor)
    learner.fit(Samples(label=labels))
    assert len(inner.calls) == 1
    assert learner.trained


@given(st.floats(1, 1e6), st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_it_is_a_weighted_training_by_hand(factor, labels):
    samples = Samples(label=labels)
    learner = JustTrainTwice(ConstantLearner(classes=3), factor)
    learner.fit(samples)
    by_hand = ConstantLearner(classes=3)
    by_hand.fit(samples)
    wrong = by_hand.annotate(samples)["yhat"].argmax(axis=1) != samples["label"]
    by_hand.fit(samples, np.where(wrong, factor, 1.0))
    np.testing.assert_allclose(
        learner.annotate(samples)["yhat"], by_hand.annotate(samples)["yhat"], rtol=1e-12
    )


@pytest.mark.parametrize("fail_at", [1, 2])
def test_a_training_that_fails_leaves_the_learner_as_it_was(fail_at):
    inner = Recorder()
    learner = JustTrainTwice(inner, 3)
    learner.fit(Samples(label=[2, 2, 1]))
    before = {n: np.array(a) for n, a in learner.state().items()}
    inner.fail_at = len(inner.calls) + fail_at
    with pytest.raises(ModelError):
        learner.fit(LABELS)
    for name, array in learner.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_answers_instead_of_probabilities():
    class Answers(ConstantLearner):
        def annotate(self, samples):
            return {"yhat": super().annotate(samples)["yhat"].argmax(axis=1)}

    learner = JustTrainTwice(Answers(classes=3), 4)
    learner.fit(LABELS)
    assert learner.wrong == pytest.approx(1 / 3)


@pytest.mark.parametrize("factor", [0.5, 0, -1, math.inf, math.nan])
def test_factors_below_one_are_refused(factor):
    with pytest.raises(SettingError, match="factor"):
        JustTrainTwice(ConstantLearner(), factor)


def test_learners_that_cannot_go_back_are_refused():
    class Forgetful:
        trained = False

        def fit(self, samples, weights=None):
            pass

        def annotate(self, samples):
            return {}

    with pytest.raises(SettingError, match="state"):
        JustTrainTwice(Forgetful(), 2)


def test_missing_columns_are_named():
    with pytest.raises(SchemaError, match="'label'"):
        JustTrainTwice(ConstantLearner(classes=3), 2, label="other").fit(LABELS)
    with pytest.raises(SchemaError, match="'p'"):
        JustTrainTwice(ConstantLearner(classes=3), 2, prediction="p").fit(LABELS)


@pytest.mark.parametrize("policy", [Reservoir(), DensityReservoir(density="loss")])
def test_it_runs_in_the_loop_and_goes_on_from_a_checkpoint(policy, tmp_path):
    def days(count):
        # The policy may look at losses, which are there before any model.
        return [(n, s.without("yhat")) for n, s in ToyStream(days=count, size=60)]

    def steps(count, folder):
        memory = Memory(80, policy, seed=1)
        learner = JustTrainTwice(ConstantLearner(), 5)
        found = list(run(days(count), memory, learner, Every(1), checkpoint=folder))
        return [step.row() for step in found], learner.state()

    steps(2, tmp_path / "a")
    resumed, state = steps(4, tmp_path / "a")
    straight, other = steps(4, tmp_path / "b")
    assert repr(resumed) == repr(straight)
    np.testing.assert_array_equal(state["probabilities"], other["probabilities"])
