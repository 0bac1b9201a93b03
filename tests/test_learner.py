"""What the loop asks of a learner, and the digest that says whether two are equal."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento import Checkpointable, Learner, Samples
from memento.errors import SettingError
from memento.learner import digest_of_state
from memento.testing import ConstantLearner


class Bare:
    """No base class, no registration: only what the loop calls."""

    trained = False

    def fit(self, samples, weights=None):
        pass

    def annotate(self, samples):
        return {}


def test_what_is_a_learner():
    assert isinstance(Bare(), Learner)
    assert not isinstance(Bare(), Checkpointable)
    assert isinstance(ConstantLearner(), Learner)
    assert isinstance(ConstantLearner(), Checkpointable)
    assert not isinstance(object(), Learner)


def test_the_ready_made_ones_are():
    pytest.importorskip("torch")
    from memento.integrations.torch import TorchLearner

    learner = TorchLearner(3)
    assert isinstance(learner, Learner)
    assert isinstance(learner, Checkpointable)


# ------------------------------------------------------------------------------------------- digest


def test_digest_is_sha_256_of_what_it_says():
    array = np.array([[1.0, 2.0]])
    expected = hashlib.sha256(b"w:float64:(1, 2);" + array.tobytes()).hexdigest()
    assert digest_of_state({"w": array}) == expected
    assert digest_of_state({}) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.array([1.0, 2.5]), "b": np.zeros(2)},
        {"w": np.array([[1.0, 2.0]]), "b": np.zeros(2)},
        {"w": np.array([1.0, 2.0], np.float32), "b": np.zeros(2)},
        {"w": np.array([1.0, 2.0]), "c": np.zeros(2)},
        {"w": np.array([1.0, 2.0])},
        {"w": np.zeros(2), "b": np.array([1.0, 2.0])},
        {"w": np.array([1.0, 2.0]), "b": np.zeros(2), "d": np.zeros(0)},
    ],
)
def test_other_states_have_other_digests(other):
    assert digest_of_state({"w": np.array([1.0, 2.0]), "b": np.zeros(2)}) != digest_of_state(other)


def test_a_number_is_no_array_of_one():
    assert digest_of_state({"w": np.array(1.0)}) != digest_of_state({"w": np.array([1.0])})


@given(st.permutations(["a", "b", "c", "d"]))
def test_order_and_layout_do_not_matter(names):
    arrays = {
        "a": np.arange(12.0).reshape(3, 4),
        "b": np.array(3),
        "c": np.array(["x", "yz"]),
        "d": np.arange(4)[::-1],
    }
    copies = {name: np.asfortranarray(arrays[name]) for name in names}
    copies = {name: array.reshape(arrays[name].shape) for name, array in copies.items()}
    assert digest_of_state(copies) == digest_of_state(arrays)


# ---------------------------------------------------------------------------------- a constant one


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.booleans())
def test_constant_learner_counts(labels, weighted):
    weights = np.linspace(0.5, 2.0, len(labels)) if weighted else None
    learner = ConstantLearner("label", classes=4)
    assert not learner.trained
    learner.fit(Samples(label=labels), weights)
    counts = [1.0] * 4
    for i, label in enumerate(labels):
        counts[label] += 1.0 if weights is None else weights[i]
    expected = [count / sum(counts) for count in counts]
    columns = learner.annotate(Samples(label=[3, 0], x=[0.0, 1.0]))
    np.testing.assert_allclose(columns["yhat"], [expected] * 2, rtol=1e-12)
    np.testing.assert_allclose(columns["logscore"], np.log([expected[3], expected[0]]))
    np.testing.assert_array_equal(columns["loss"], -columns["logscore"])
    assert set(learner.annotate(Samples(x=[0.0]))) == {"yhat"}


def test_constant_learner_resumes():
    learner, other = ConstantLearner(classes=2), ConstantLearner(classes=2)
    other.restore(learner.state())
    assert not other.trained
    learner.fit(Samples(label=[0, 1, 1]))
    other.restore(learner.state())
    assert digest_of_state(other.state()) == digest_of_state(learner.state())


def test_constant_learner_before_fit():
    with pytest.raises(SettingError, match=r"predicts only after fit\(\)"):
        ConstantLearner().annotate(Samples(label=[1]))
