from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import ModelError, SchemaError, SettingError
from memento.loop import run
from memento.memory import Memory
from memento.policies import QueryByCommittee, Reservoir
from memento.policies.committee import committee_entropy
from memento.retrain import Every
from memento.samples import Samples
from memento.testing import ConstantLearner, ToyStream
from memento.training import Ensemble, JustTrainTwice

CLASSES = 3


class Bins:
    """Frequencies of labels in each of three ranges of an input: a model that sees the input."""

    label = "label"

    def __init__(self) -> None:
        self.counts: np.ndarray | None = None
        self.fits = 0

    @property
    def trained(self) -> bool:
        return self.counts is not None

    def fit(self, samples, weights=None):
        counts = np.full((3, CLASSES), 0.1)
        weights = np.ones(samples.size) if weights is None else weights
        np.add.at(counts, (self._bin(samples), samples["label"]), weights)
        self.counts = counts / counts.sum(axis=1, keepdims=True)
        self.fits += 1

    def annotate(self, samples):
        if self.counts is None:
            raise ModelError("fit first")
        columns = {"yhat": self.counts[self._bin(samples)]}
        if "label" in samples:
            p = columns["yhat"][np.arange(samples.size), samples["label"]]
            columns["logscore"] = np.log(p)
        return columns

    def state(self):
        return {} if self.counts is None else {"counts": self.counts.copy()}

    def restore(self, state):
        self.counts = np.array(state["counts"]) if state else None

    @staticmethod
    def _bin(samples):
        return np.clip(samples["x"][:, 0], 0, 2.9).astype(int)


def day(seed: int, size: int = 90, of: int | None = None) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 3, (size, 1)) if of is None else rng.uniform(of, of + 1, (size, 1))
    y = (x[:, 0].astype(int) + (rng.random(size) < 0.2)) % CLASSES
    return Samples(x=x, label=y)


def fitted(seeds, **arguments) -> Ensemble:
    ensemble = Ensemble(Bins(), **arguments)
    for seed in seeds:
        ensemble.fit(day(seed))
    return ensemble


def alone(seed) -> Bins:
    learner = Bins()
    learner.fit(day(seed))
    return learner


def test_the_last_models_are_remembered_and_the_newest_predicts():
    ensemble = fitted(range(5), members=3)
    samples = day(9)
    found = [columns["yhat"] for columns in ensemble.each(samples)]
    assert len(found) == len(ensemble) == 3
    for seed, yhat in zip((2, 3, 4), found, strict=True):
        np.testing.assert_array_equal(yhat, alone(seed).annotate(samples)["yhat"])
    np.testing.assert_array_equal(ensemble.annotate(samples)["yhat"], found[-1])


def test_the_first_model_may_stay():
    samples = day(9)
    ensemble = fitted(range(5), members=3, keep_first=True)
    for seed, columns in zip((0, 3, 4), ensemble.each(samples), strict=True):
        np.testing.assert_array_equal(columns["yhat"], alone(seed).annotate(samples)["yhat"])


def test_asking_old_models_leaves_the_newest_in_charge():
    ensemble = fitted(range(3))
    samples = day(9)
    before = ensemble.annotate(samples)["yhat"]
    iterator = ensemble.each(samples)
    next(iterator)
    np.testing.assert_array_equal(ensemble.annotate(samples)["yhat"], before)
    ensemble.oracle(samples)
    ensemble.matched(samples)
    np.testing.assert_array_equal(ensemble.annotate(samples)["yhat"], before)


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_the_oracle_is_the_best_model_of_each_sample(members, seed):
    """Against a plain loop; and no member scores better on any sample."""
    ensemble = fitted(range(seed, seed + members))
    samples = day(seed + 99, size=40)
    chances = np.array([c["yhat"][np.arange(40), samples["label"]] for c in ensemble.each(samples)])
    found = ensemble.oracle(samples)
    np.testing.assert_array_equal(found["logscore"], np.log(chances.max(axis=0)))
    for row in range(40):
        best = max(range(members), key=lambda m: (chances[m, row], m))  # the newest of equals
        assert found["member"][row] == best
        np.testing.assert_array_equal(
            found["yhat"][row], list(ensemble.each(samples))[best]["yhat"][row]
        )


def test_matching_asks_the_model_whose_training_set_is_most_alike():
    """Each model was trained on one range of inputs; predictions tell the ranges apart."""
    ensemble = Ensemble(Bins(), sketch=60, prototypes=10)
    for of in range(3):
        ensemble.fit(day(of, of=of))
    # The newest model knows the last range alone, so it is shown everything once more.
    ensemble.fit(day(5, size=300))
    member = ensemble.match(day(7, size=50, of=2))
    assert (member == 2).mean() > 0.9  # rather than 3, which saw other ranges as well
    assert (ensemble.match(day(8, size=50, of=0)) == 0).mean() > 0.9


def test_matching_against_a_plain_loop():
    ensemble = fitted(range(4), sketch=30, prototypes=5, bandwidth=0.3)
    samples = day(11, size=25)
    p = ensemble.annotate(samples)["yhat"]
    densities = np.zeros((4, 25))
    for m in range(4):
        rows = np.arange(30) * 90 // 30
        seen = ensemble.learner.annotate(day(m).select(["x"]).take(rows))["yhat"]
        # In sorted order: by the most likely class, most certain first, in groups of six.
        order = sorted(range(30), key=lambda i: (seen[i].argmax(), -seen[i].max(), i))
        q = seen[order].reshape(5, 6, CLASSES).mean(axis=1)
        for i in range(25):
            hellinger = 1 - np.sqrt(p[i] * q).sum(axis=1)
            densities[m, i] = np.exp(-hellinger / (2 * 0.3**2)).mean()
    ordered = np.sort(densities, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-4  # float32 decides between the others
    assert clear.sum() > 10
    np.testing.assert_array_equal(ensemble.match(samples)[clear], densities.argmax(axis=0)[clear])


def test_matched_columns_are_those_of_the_chosen_member_without_labels():
    ensemble = fitted(range(4), sketch=50)
    samples = day(3, size=70).select(["x"])
    found = ensemble.matched(samples)
    each = [columns["yhat"] for columns in ensemble.each(samples)]
    for row, member in enumerate(found["member"]):
        np.testing.assert_array_equal(found["yhat"][row], each[member][row])
    assert set(found) == {"yhat", "member"}
    assert ensemble.matched(samples.rows(0, 0))["yhat"].shape == (0, CLASSES)


def test_votes_and_their_mean_have_the_same_entropy():
    samples = day(9)
    votes = fitted(range(4), committee="members").annotate(samples)["committee"]
    mean = fitted(range(4), committee="mean").annotate(samples)["committee"]
    assert votes.shape == (90, 4, CLASSES)
    assert mean.shape == (90, 1, CLASSES)
    np.testing.assert_array_equal(votes[:, -1], alone(3).annotate(samples)["yhat"])
    np.testing.assert_allclose(committee_entropy(votes), committee_entropy(mean), atol=1e-12)


def test_a_learner_trained_elsewhere_is_a_committee_of_one():
    learner = alone(1)
    ensemble = Ensemble(learner, committee="mean")
    assert ensemble.trained
    assert ensemble.annotate(day(2))["committee"].shape == (90, 1, CLASSES)
    with pytest.raises(ModelError, match="no model"):
        ensemble.oracle(day(2))
    other = Ensemble(Bins(), committee="mean")
    other.restore(ensemble.state())
    np.testing.assert_array_equal(other.annotate(day(2))["yhat"], ensemble.annotate(day(2))["yhat"])


@pytest.mark.parametrize("fits", range(5))
@pytest.mark.parametrize("sketch", [0, 40])
def test_a_state_goes_on_exactly(fits, sketch):
    ensemble = fitted(range(fits), members=3, sketch=sketch)
    copy = Ensemble(Bins(), members=3, sketch=sketch)
    state = {name: np.array(array) for name, array in ensemble.state().items()}
    copy.restore(state)
    for one in (ensemble, copy):
        one.fit(day(20, size=35))
    assert {n: a.tobytes() for n, a in ensemble.state().items()} == {
        n: a.tobytes() for n, a in copy.state().items()
    }
    samples = day(9)
    ways = ["oracle", "matched"] if sketch else ["oracle"]
    for way in ways:
        mine, theirs = (getattr(one, way)(samples) for one in (ensemble, copy))
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])


def test_states_that_do_not_fit_are_refused_and_change_nothing():
    ensemble = fitted(range(2), sketch=30)
    before = {n: a.tobytes() for n, a in ensemble.state().items()}
    good = ensemble.state()
    for bad in (
        {"nonsense": np.zeros(2)},
        {n: a for n, a in good.items() if not n.startswith("seen")},
        {n: a for n, a in good.items() if not n.endswith("#shapes")},
        {**good, "model/counts": good["model/counts"][:-1]},
        fitted(range(2), sketch=0).state(),
    ):
        with pytest.raises(ModelError):
            ensemble.restore(bad)
    assert {n: a.tobytes() for n, a in ensemble.state().items()} == before


def test_a_training_that_fails_changes_nothing():
    ensemble = fitted(range(2))
    before = {n: a.tobytes() for n, a in ensemble.state().items()}
    with pytest.raises(SchemaError, match="'x'"):
        ensemble.fit(Samples(label=[1]))

    def fail(samples, weights=None):
        ensemble.learner.counts = np.ones((3, CLASSES))
        raise ModelError("no")

    ensemble.learner.fit = fail
    with pytest.raises(ModelError):
        ensemble.fit(day(3))
    assert {n: a.tobytes() for n, a in ensemble.state().items()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"members": 0},
        {"members": True},
        {"members": 1, "keep_first": True},
        {"committee": "all"},
        {"sketch": -1},
        {"prototypes": 0},
        {"bandwidth": 0.0},
    ],
)
def test_settings_out_of_range(arguments):
    with pytest.raises(SettingError):
        Ensemble(Bins(), **arguments)


def test_what_is_not_there_is_said():
    with pytest.raises(SettingError, match="sketch=0"):
        fitted(range(2), sketch=0).matched(day(1))
    with pytest.raises(SchemaError, match="label"):
        fitted(range(2)).oracle(day(1).select(["x"]))
    with pytest.raises(SchemaError, match="'p'"):
        fitted(range(2), sketch=0, prediction="p").oracle(day(1))


@pytest.mark.parametrize("policy", [QueryByCommittee(), Reservoir(forget=0.1)])
def test_it_runs_in_the_loop_with_just_train_twice(policy, tmp_path):
    """A committee chooses, its models are trained twice, and a checkpoint holds all of it."""

    def steps(count, folder):
        stream = [(n, s.select(["x", "label"])) for n, s in ToyStream(days=count, size=60)]
        learner = Ensemble(
            JustTrainTwice(ConstantLearner(), 3), members=3, committee="mean", sketch=20
        )
        found = list(run(stream, Memory(80, policy), learner, Every(1), checkpoint=folder))
        return repr([s.row() for s in found]), {n: a.tobytes() for n, a in learner.state().items()}

    for done in (1, 3):
        steps(done, tmp_path / f"{done}")
        assert steps(6, tmp_path / f"{done}") == steps(6, tmp_path / f"straight-{done}")
