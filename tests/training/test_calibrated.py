"""Temperatures: against a slow oracle, through the loop, stopped and gone on."""

from __future__ import annotations

import numpy as np
import pytest

from memento import Every, JensenShannon, Memento, Memory, OnArrivals, Samples, run
from memento.errors import InputError, SchemaError, SettingError
from memento.integrations.sklearn import SklearnLearner
from memento.learner import digest_of_state
from memento.testing import ConstantLearner, ToyStream
from memento.training import Calibrated, Ensemble, JustTrainTwice
from memento.training.calibrated import fitted_temperature, softened

GRID = np.geomspace(0.4, 6, 14)


def slow_loss(row, label, temperature):
    odds = [max(p, 1e-6) ** (1 / temperature) for p in row]
    return -np.log(odds[label] / sum(odds))


@pytest.mark.parametrize("tail", [0.0, 2.0])
def test_the_fit_is_the_best_of_the_grid(tail):
    rng = np.random.default_rng(3)
    yhat = rng.dirichlet([0.3] * 4, 500)
    labels = rng.integers(0, 4, 500)
    costs = []
    for temperature in GRID:
        losses = sorted(slow_loss(r, y, temperature) for r, y in zip(yhat, labels, strict=True))
        costs.append(np.mean(losses) + tail * np.mean(losses[-5:]))
    logscore = np.log(np.maximum(yhat[np.arange(500), labels], 1e-300))
    assert fitted_temperature(yhat, logscore, tail) == pytest.approx(GRID[np.argmin(costs)])


def test_softened_columns_agree_with_each_other():
    rng = np.random.default_rng(4)
    yhat = rng.dirichlet([1.0] * 3, 50).astype(np.float32)
    labels = rng.integers(0, 3, 50)
    logscore = np.log(yhat[np.arange(50), labels])
    logscore[7] = np.nan
    given = {"yhat": yhat, "logscore": logscore, "loss": -logscore, "other": labels}
    found = softened(given, 2.5)
    np.testing.assert_allclose(found["yhat"].sum(axis=1), 1, rtol=1e-6)
    assert (found["yhat"].argmax(axis=1) == yhat.argmax(axis=1)).all()
    expected = [-slow_loss(r, y, 2.5) for r, y in zip(yhat, labels, strict=True)]
    expected[7] = np.nan
    np.testing.assert_allclose(found["logscore"], expected, rtol=1e-5)
    np.testing.assert_array_equal(found["loss"], -found["logscore"])
    assert found["other"] is labels
    assert softened(given, 1.0) == given
    assert {found[n].dtype for n in ("yhat", "logscore")} == {np.dtype(np.float32)}


def test_no_rows():
    assert softened({"yhat": np.empty((0, 3))}, 2.0)["yhat"].shape == (0, 3)


def test_few_labels_and_none_change_nothing():
    learner = Calibrated(ConstantLearner(classes=2))
    learner.fit(Samples(label=[0] * 9 + [1]))
    assert not learner.adapt(Samples(label=[0, 1] * 99))
    assert learner.temperature == 1


def test_it_moves_half_of_the_way():
    learner = Calibrated(ConstantLearner(classes=2))
    learner.fit(Samples(label=[0] * 9 + [1]))
    learner.adapt(Samples(label=[0, 1] * 100))
    assert learner.temperature == pytest.approx(6)
    learner.adapt(Samples(label=[0] * 200))
    assert learner.temperature == pytest.approx(np.sqrt(6 * 0.4))


def test_numbers_are_refused_before_anything_is_computed():
    linear = pytest.importorskip("sklearn.linear_model")
    with pytest.raises(SettingError, match="predicts numbers"):
        Calibrated(SklearnLearner(linear.Ridge()))
    with pytest.raises(SettingError, match="tail is -1"):
        Calibrated(ConstantLearner(), tail=-1)


def test_learners_without_probabilities_or_scores_are_refused():
    class Numbers(ConstantLearner):
        def annotate(self, samples):
            return {"yhat": np.zeros(samples.size)}

    class Silent(ConstantLearner):
        def annotate(self, samples):
            return {"yhat": np.full((samples.size, 2), 0.5)}

    for kind, words in ((Numbers, "a probability for each class"), (Silent, "no 'logscore'")):
        learner = Calibrated(kind())
        learner.fit(Samples(label=[0]))
        with pytest.raises(SchemaError, match=words):
            learner.adapt(Samples(label=[0] * 300))


def stream(seed=5):
    return ToyStream(days=6, size=300, seed=seed)


def memory():
    space = [JensenShannon.of_probabilities("yhat")]
    return Memory(400, Memento(space, batch_size=16, missing="skip"), seed=1)


def test_the_order_of_a_unit_is_judge_then_fit_then_insert():
    seen = []

    class Watched(Calibrated):
        def adapt(self, samples):
            seen.append(("adapt", len(held), self.temperature))
            return super().adapt(samples)

    held = memory()
    learner = Watched(ConstantLearner())

    def judge(moment):
        seen.append(("judge", len(held), learner.temperature))
        return {}

    list(run(stream(), held, learner, Every(1), judge={"before": judge}))
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert len(pairs) == 5
    assert all(a[0] == "judge" and b[0] == "adapt" and a[1:] == b[1:] for a, b in pairs)


def test_all_that_is_kept_is_predicted_at_the_same_temperature():
    held, learner = memory(), Calibrated(ConstantLearner())
    list(run(stream(), held, learner, OnArrivals(witnesses=0.2)))
    assert learner.temperature != 1
    expected = learner.annotate(held.samples)["yhat"]
    np.testing.assert_array_equal(held.samples["yhat"], expected)


def test_a_run_that_was_stopped_goes_on_with_its_temperature(tmp_path):
    straight = Calibrated(ConstantLearner())
    steps = [str(s.row()) for s in run(stream(), memory(), straight, Every(2))]
    for days in range(1, 6):
        part = list(stream())[:days]
        list(run(part, memory(), Calibrated(ConstantLearner()), Every(2), checkpoint=tmp_path))
    again = Calibrated(ConstantLearner())
    found = run(stream(), memory(), again, Every(2), checkpoint=tmp_path)
    assert [str(step.row()) for step in found] == steps
    assert again.temperature == straight.temperature
    before, after = straight.state(), again.state()
    assert {n: a.tobytes() for n, a in before.items()} == {n: a.tobytes() for n, a in after.items()}


def test_a_checkpoint_needs_a_learner_with_a_state(tmp_path):
    class Bare:
        trained = False

        def fit(self, samples, weights=None):
            self.trained = True

        def annotate(self, samples):
            return {"yhat": np.full((samples.size, 2), 0.5)}

    with pytest.raises(SettingError, match=r"Bare has no state\(\)"):
        list(run(stream(), memory(), Calibrated(Bare()), checkpoint=tmp_path))


class Counted(Calibrated):
    asked = 0

    def adapt(self, samples):
        type(self).asked += 1
        return super().adapt(samples)


def test_a_late_unit_is_not_adapted_to():
    units = list(stream())
    Counted.asked = 0
    late = [units[0], (units[1][0], None), units[2], units[1]]
    list(run(late, memory(), Counted(ConstantLearner()), Every(1)))
    assert Counted.asked == 1  # on the third


def test_a_unit_that_is_refused_changes_neither_learner_nor_memory():
    (first, samples), (second, other) = list(stream())[:2]
    held, learner = memory(), Calibrated(ConstantLearner())
    broken = dict(other) | {"x": other["x"].astype(str)}
    steps = run([(first, samples), (second, broken)], held, learner, Every(1), judge={})
    next(steps)
    before = held.samples["yhat"].copy()
    with pytest.raises(InputError):
        next(steps)
    assert learner.temperature == 1
    np.testing.assert_array_equal(held.samples["yhat"], before)


def test_the_state_changes_only_with_the_predictions():
    learner = Calibrated(ConstantLearner(classes=2))
    learner.fit(Samples(label=[0] * 9 + [1]))
    assert learner.adapt(Samples(label=[0, 1] * 100))
    before = digest_of_state(learner.state())
    assert not learner.adapt(Samples(label=[0, 1] * 100))
    assert digest_of_state(learner.state()) == before


@pytest.mark.parametrize("wrapper", [lambda inner: JustTrainTwice(inner, 2), Ensemble])
def test_what_would_hide_it_is_refused(wrapper):
    with pytest.raises(SettingError, match="put it outside: Calibrated"):
        wrapper(Calibrated(ConstantLearner()))


def test_networks_of_numbers_are_refused_too():
    pytest.importorskip("torch")
    from memento.integrations.torch import TorchLearner

    assert TorchLearner(classes=2).kind == "classifier"
    with pytest.raises(SettingError, match="predicts numbers"):
        Calibrated(TorchLearner(loss="squared"))
