from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from memento.errors import DomainError, MissingExtraError, ModelError, SchemaError, SettingError
from memento.samples import Samples

pytest.importorskip("sklearn")

from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from memento.integrations.sklearn import SklearnLearner


def clusters(count: int, labels: tuple[int, ...] = (1, 4), seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    y_bin = rng.choice(labels, count)
    return Samples(x=rng.normal(y_bin[:, None], 1.0, (count, 3)), y_bin=y_bin)


def test_probabilities_are_spread_over_all_classes() -> None:
    samples = clusters(300)
    learner = SklearnLearner(LogisticRegression(), classes=6)
    assert not learner.trained
    learner.fit(samples)
    columns = learner.annotate(samples)
    assert learner.trained
    assert columns["yhat"].shape == (300, 6)
    assert columns["yhat"].dtype == columns["logscore"].dtype == columns["loss"].dtype == np.float32
    np.testing.assert_allclose(columns["yhat"].sum(axis=1), 1, atol=1e-6)
    assert columns["yhat"][:, [0, 2, 3, 5]].max() == pytest.approx(1e-4 / 6)
    assert (columns["yhat"].argmax(axis=1) == samples["y_bin"]).mean() > 0.9
    chosen = columns["yhat"][np.arange(300), samples["y_bin"]]
    np.testing.assert_allclose(columns["logscore"], np.log(chosen), rtol=1e-4, atol=1e-6)
    assert list(learner.annotate(samples.select(["x"]))) == ["yhat"]
    assert learner.annotate(samples.rows(0, 0))["yhat"].shape == (0, 6)


def test_certainty_costs_no_infinity_unless_asked_for() -> None:
    samples = clusters(60)
    wrong = samples.with_columns(y_bin=np.full(60, 3))
    floored, bare = (
        SklearnLearner(KNeighborsClassifier(1), classes=6, floor=floor) for floor in (1e-4, 0.0)
    )
    for learner in (floored, bare):
        learner.fit(samples)
    assert floored.annotate(wrong)["logscore"].min() == pytest.approx(np.log(1e-4 / 6))
    assert np.isneginf(bare.annotate(wrong)["logscore"]).all()


def test_the_estimator_given_is_never_changed() -> None:
    estimator = LogisticRegression()
    SklearnLearner(estimator).fit(clusters(50))
    assert not hasattr(estimator, "coef_")


@pytest.mark.parametrize(
    "estimator", [GaussianNB(), make_pipeline(StandardScaler(), LogisticRegression())]
)
def test_weights_reach_the_estimator(estimator: Any) -> None:
    labels = np.arange(400) % 2
    samples = Samples(x=np.random.default_rng(0).normal(size=400), y_bin=labels)
    learner = SklearnLearner(estimator, classes=2)
    learner.fit(samples, weights=np.where(labels == 1, 3.0, 1.0))
    assert learner.annotate(samples)["yhat"][:, 1].mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    "estimator", [KNeighborsClassifier(1), make_pipeline(StandardScaler(), KNeighborsClassifier(1))]
)
def test_weights_that_the_estimator_cannot_use(estimator: Any) -> None:
    with pytest.raises(ModelError, match="takes no sample_weight"):
        SklearnLearner(estimator).fit(clusters(20), weights=np.ones(20))


@pytest.mark.parametrize("estimator", [LogisticRegression(), GaussianNB()])
def test_state_goes_round(estimator: Any, tmp_path: Any) -> None:
    samples = clusters(100)
    learner = SklearnLearner(estimator)
    learner.fit(samples)
    path = tmp_path / "state.npz"
    np.savez(path, **learner.state())
    other = SklearnLearner(estimator)
    with np.load(path, allow_pickle=False) as state:
        other.restore(dict(state))
    np.testing.assert_array_equal(
        other.annotate(samples)["yhat"], learner.annotate(samples)["yhat"]
    )
    other.restore({})
    assert not other.trained
    assert other.state() == {}


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(n_estimators=2),
        MLPClassifier((4, 3), max_iter=300, tol=0.1),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
)
def test_state_that_only_pickling_could_keep(estimator: Any) -> None:
    learner = SklearnLearner(estimator)
    learner.fit(clusters(50))
    with pytest.raises(ModelError, match="cannot be stored as numbers; for checkpoints use"):
        learner.state()


def test_a_foreign_state_is_refused() -> None:
    learner = SklearnLearner(LogisticRegression())
    with pytest.raises(ModelError, match="no 'classes_'"):
        learner.restore({"mean": np.zeros(3)})
    bayes = SklearnLearner(GaussianNB())
    bayes.fit(clusters(50))
    with pytest.raises(ModelError, match="does not fit LogisticRegression"):
        learner.restore(bayes.state())
    assert not learner.trained


def test_inputs_with_more_axes_are_flattened() -> None:
    samples = clusters(50).with_columns(x=np.random.default_rng(0).normal(size=(50, 2, 2)))
    learner = SklearnLearner(LinearDiscriminantAnalysis())
    learner.fit(samples)
    assert learner.annotate(samples)["yhat"].shape == (50, 21)


def test_bad_input() -> None:
    learner = SklearnLearner(LogisticRegression(), classes=5)
    samples = clusters(20)
    with pytest.raises(ModelError, match="call fit first"):
        learner.annotate(samples)
    with pytest.raises(SchemaError, match="no column 'x'"):
        learner.fit(samples.without("x"))
    with pytest.raises(SchemaError, match="no column 'y_bin'"):
        learner.fit(samples.without("y_bin"))
    with pytest.raises(SchemaError, match="no samples"):
        learner.fit(samples.rows(0, 0))
    with pytest.raises(SchemaError, match="one integer per row"):
        learner.fit(samples.with_columns(y_bin=samples["y_bin"] * 1.0))
    with pytest.raises(DomainError, match="goes from 1 to 9"):
        learner.fit(clusters(20, (1, 9)))
    with pytest.raises(ModelError, match="LogisticRegression refuses the samples"):
        learner.fit(samples.with_columns(x=np.full((20, 3), np.nan)))


def test_settings_out_of_range() -> None:
    with pytest.raises(SettingError, match="LinearRegression has no fit or no predict_proba"):
        SklearnLearner(LinearRegression())
    with pytest.raises(SettingError, match="classes=1"):
        SklearnLearner(GaussianNB(), classes=1)
    with pytest.raises(SettingError, match="floor=1"):
        SklearnLearner(GaussianNB(), floor=1.0)


def test_without_sklearn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[sklearn\]"'):
        SklearnLearner(GaussianNB())
