from __future__ import annotations

import builtins
import warnings
from typing import Any

import numpy as np
import pytest

from memento import Every, JensenShannon, Memento, Memory, Reservoir, run
from memento.errors import DomainError, MissingExtraError, ModelError, SchemaError, SettingError
from memento.learner import digest_of_state
from memento.samples import Samples

pytest.importorskip("sklearn")

from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils import all_estimators

from memento.integrations.sklearn import SklearnLearner

CLASSIFIERS = [
    LogisticRegression(),
    GaussianNB(),
    RandomForestClassifier(5, random_state=0),
    HistGradientBoostingClassifier(max_iter=5),
    KNeighborsClassifier(3),
    make_pipeline(StandardScaler(), LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    CalibratedClassifierCV(LinearSVC(), cv=2),
    OneVsRestClassifier(LinearSVC()),
    VotingClassifier([("a", GaussianNB()), ("b", LogisticRegression())]),
    VotingClassifier([("a", GaussianNB()), ("b", RidgeClassifier())], voting="hard"),
    SVC(),
    SVC(decision_function_shape="ovo"),
    RidgeClassifier(),
    MLPClassifier((4,), solver="lbfgs", max_iter=2000, random_state=0),
]
REGRESSORS = [
    Ridge(),
    RandomForestRegressor(5, random_state=0),
    GradientBoostingRegressor(n_estimators=5),
    HistGradientBoostingRegressor(max_iter=5),
    KNeighborsRegressor(3),
    make_pipeline(StandardScaler(), Ridge()),
    GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
]


def name_of(estimator: Any) -> str:
    return type(estimator).__name__


def clusters(count: int, labels: tuple[int, ...] = (1, 4), seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    y = rng.choice(labels, count)
    return Samples(x=rng.normal(y[:, None], 1.0, (count, 3)), y=y)


def numbers(count: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    return Samples(x=x, y=x[:, 0] * 10 + rng.normal(size=count))


# --- classes


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=name_of)
@pytest.mark.parametrize("labels", ["numbers", "texts", "bools", "floats", "negative"])
def test_any_classifier_learns_any_labels(estimator: Any, labels: str) -> None:
    samples = clusters(120, (0, 1))
    y = samples["y"]
    given = {
        "numbers": y,
        "texts": np.where(y, "fraud", "fine"),
        "bools": y == 1,
        "floats": np.where(np.arange(120) < 5, np.nan, y),
        "negative": 2 * y - 1,
    }[labels]
    learner = SklearnLearner(estimator)
    learner.fit(samples.with_columns(y=given))
    columns = learner.annotate(samples.with_columns(y=given))
    assert learner.classes_ is not None
    assert learner.classes_.tolist() == sorted({v for v in given.tolist() if v == v})
    assert columns["yhat"].shape == (120, 2)
    np.testing.assert_allclose(columns["yhat"].sum(axis=1), 1, atol=1e-6)
    right = columns["yhat"].argmax(axis=1) == (y == 1)
    assert right.mean() > 0.7
    known = ~np.isnan(columns["logscore"])
    assert known.sum() == (115 if labels == "floats" else 120)
    chosen = columns["yhat"][np.arange(120), y]
    np.testing.assert_allclose(
        columns["logscore"][known], np.log(chosen)[known], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(columns["loss"], -columns["logscore"])


@pytest.mark.parametrize("estimator", [LogisticRegression(), SVC(), RidgeClassifier()], ids=name_of)
def test_three_classes(estimator: Any) -> None:
    samples = clusters(300, (0, 3, 6))
    learner = SklearnLearner(estimator)
    learner.fit(samples)
    yhat = learner.annotate(samples)["yhat"]
    assert yhat.shape == (300, 7), "integers are columns of their own number"
    assert (yhat.argmax(axis=1) == samples["y"]).mean() > 0.7


def test_probabilities_are_spread_over_all_classes() -> None:
    samples = clusters(300)
    learner = SklearnLearner(LogisticRegression(), classes=6)
    assert not learner.trained
    learner.fit(samples)
    columns = learner.annotate(samples)
    assert learner.trained
    assert columns["yhat"].shape == (300, 6)
    assert columns["yhat"].dtype == columns["logscore"].dtype == columns["loss"].dtype == np.float32
    assert columns["yhat"][:, [0, 2, 3, 5]].max() == pytest.approx(1e-4 / 6)
    assert (columns["yhat"].argmax(axis=1) == samples["y"]).mean() > 0.9
    assert list(learner.annotate(samples.select(["x"]))) == ["yhat"]
    assert learner.annotate(samples.rows(0, 0))["yhat"].shape == (0, 6)


def test_classes_that_appear_are_appended() -> None:
    words = SklearnLearner(LogisticRegression())
    samples = clusters(100, (0, 1))
    words.fit(samples.with_columns(y=np.where(samples["y"], "m", "c")))
    words.fit(samples.with_columns(y=np.where(samples["y"], "z", "a")))
    assert words.classes_ is not None
    assert words.classes_.tolist() == ["c", "m", "a", "z"]
    found = words.annotate(samples)["yhat"]
    assert found[:, :2].max() == pytest.approx(1e-4 / 4)
    whole = SklearnLearner(LogisticRegression())
    whole.fit(samples)
    whole.fit(clusters(100, (0, 4)))
    assert whole.classes_ is not None
    assert whole.classes_.tolist() == [0, 1, 2, 3, 4]
    large = SklearnLearner(LogisticRegression())
    large.fit(clusters(100, (700, 90_000)))
    large.fit(clusters(100, (3, 90_000)))
    assert large.classes_ is not None
    assert large.classes_.tolist() == [700, 90_000, 3]


def test_a_label_that_was_never_learned_scores_the_floor() -> None:
    learner = SklearnLearner(GaussianNB(), floor=0.01)
    learner.fit(clusters(100, (0, 1)))
    found = learner.annotate(clusters(3, (7, 7)))
    np.testing.assert_allclose(found["logscore"], np.log(0.01 / 2), rtol=1e-5)


@pytest.mark.parametrize("estimator", CLASSIFIERS[:6], ids=name_of)
def test_a_single_class_is_predicted_constantly(estimator: Any) -> None:
    learner = SklearnLearner(estimator)
    samples = clusters(20, (1, 1))
    learner.fit(samples, weights=np.ones(20))
    np.testing.assert_allclose(learner.annotate(samples)["yhat"], [[5e-5, 1 - 5e-5]] * 20)
    learner.fit(clusters(50, (0, 1)))
    assert learner.annotate(clusters(50, (0, 1)))["yhat"][:, 1].std() > 0.1


def test_classes_that_are_given() -> None:
    learner = SklearnLearner(LogisticRegression(), classes=["fraud", "fine", "other"])
    samples = clusters(100, (0, 1))
    learner.fit(samples.with_columns(y=np.where(samples["y"], "fraud", "fine")))
    found = learner.annotate(samples)["yhat"]
    assert ((found[:, 0] > found[:, 1]) == samples["y"]).mean() > 0.7
    with pytest.raises(DomainError, match="holds 'new', which is not among the 3"):
        learner.fit(samples.with_columns(y=np.where(samples["y"], "new", "fine")))
    with pytest.raises(SchemaError, match="the classes so far are"):
        learner.fit(samples)


def test_certainty_costs_no_infinity_unless_asked_for() -> None:
    samples = clusters(60)
    wrong = samples.with_columns(y=np.full(60, 3))
    floored, bare = (
        SklearnLearner(KNeighborsClassifier(1), classes=6, floor=floor) for floor in (1e-4, 0.0)
    )
    for learner in (floored, bare):
        learner.fit(samples)
    assert floored.annotate(wrong)["logscore"].min() == pytest.approx(np.log(1e-4 / 6))
    assert np.isneginf(bare.annotate(wrong)["logscore"]).all()


# --- numbers


@pytest.mark.parametrize("estimator", REGRESSORS, ids=name_of)
def test_any_regressor(estimator: Any) -> None:
    samples = numbers(150)
    learner = SklearnLearner(estimator)
    y = samples["y"].copy()
    y[:10] = np.nan
    learner.fit(samples.with_columns(y=y))
    found = learner.annotate(samples.with_columns(y=y))
    assert sorted(found) == ["loss", "yhat"]
    assert found["yhat"].shape == (150,)
    assert np.isnan(found["loss"][:10]).all()
    np.testing.assert_allclose(found["loss"][10:], np.abs(found["yhat"] - y)[10:])
    assert np.corrcoef(found["yhat"], samples["y"])[0, 1] > 0.7
    assert list(learner.annotate(samples.select(["x"]))) == ["yhat"]
    assert learner.annotate(samples.rows(0, 0))["yhat"].shape == (0,)
    with pytest.raises(DomainError, match="infinite in 1 of 150 rows"):
        learner.fit(samples.with_columns(y=np.where(np.arange(150) == 3, np.inf, y)))
    with pytest.raises(SchemaError, match="expected one number per row"):
        learner.fit(samples.with_columns(y=samples["y"].astype(str)))


def test_labels_of_a_name_that_goes_on() -> None:
    samples = clusters(50, (0, 1))
    named = Samples(x=samples["x"], y_class=samples["y"])
    learner, other = SklearnLearner(LogisticRegression()), SklearnLearner(LogisticRegression())
    with pytest.warns(UserWarning, match="labels are taken from 'y_class'"):
        learner.fit(named)
    other.restore(learner.state())
    assert sorted(other.annotate(named)) == ["logscore", "loss", "yhat"]
    with pytest.raises(SchemaError, match="no column 'y'"):
        SklearnLearner(LogisticRegression()).fit(named.with_columns(y_other=samples["y"]))


# --- weights


@pytest.mark.parametrize(
    "estimator",
    [
        GaussianNB(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=2),
    ],
    ids=name_of,
)
def test_weights_reach_the_estimator(estimator: Any) -> None:
    labels = np.arange(400) % 2
    samples = Samples(x=np.random.default_rng(0).normal(size=400), y=labels)
    learner = SklearnLearner(estimator)
    learner.fit(samples, weights=np.where(labels == 1, 3.0, 1.0))
    assert learner.annotate(samples)["yhat"][:, 1].mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    "estimator",
    [
        KNeighborsClassifier(1),
        make_pipeline(StandardScaler(), KNeighborsClassifier(1)),
        VotingClassifier([("a", KNeighborsClassifier(1)), ("b", GaussianNB())]),
    ],
    ids=name_of,
)
def test_weights_that_the_estimator_cannot_use_are_ignored_with_one_warning(estimator: Any) -> None:
    learner = SklearnLearner(estimator)
    with pytest.warns(UserWarning, match="takes no sample_weight") as found:
        learner.fit(clusters(20), weights=np.ones(20))
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.fit(clusters(20), weights=np.ones(20))


# --- checkpoints


@pytest.mark.parametrize("estimator", [*CLASSIFIERS, *REGRESSORS], ids=name_of)
def test_state_goes_round(estimator: Any, tmp_path: Any) -> None:
    samples = numbers(60) if estimator in REGRESSORS else clusters(60, (0, 1))
    learner = SklearnLearner(estimator)
    learner.check_checkpoint()
    learner.fit(samples)
    path = tmp_path / "state.npz"
    state = learner.state()
    np.savez(path, **{name.replace("/", "|"): array for name, array in state.items()})
    other = SklearnLearner(estimator)
    with np.load(path, allow_pickle=False) as saved:
        other.restore({name.replace("|", "/"): array for name, array in saved.items()})
    assert digest_of_state(other.state()) == digest_of_state(state)
    for name, column in learner.annotate(samples).items():
        np.testing.assert_array_equal(other.annotate(samples)[name], column)
    other.restore({})
    assert not other.trained
    assert other.state() == {}


def test_state_of_a_single_class_goes_round() -> None:
    learner, other = (SklearnLearner(LogisticRegression()) for _ in range(2))
    learner.fit(clusters(20, (1, 1)))
    other.restore(learner.state())
    np.testing.assert_array_equal(
        other.annotate(clusters(5))["yhat"], learner.annotate(clusters(5))["yhat"]
    )


class Own(LogisticRegression):
    """A class that nobody but its author has."""


def plus_one(x: np.ndarray) -> np.ndarray:
    return x + 1


@pytest.mark.parametrize(
    "estimator",
    [Own(), make_pipeline(FunctionTransformer(plus_one), LogisticRegression())],
    ids=name_of,
)
def test_what_only_code_could_keep_is_refused_before_the_first_unit(
    estimator: Any, tmp_path: Any
) -> None:
    learner = SklearnLearner(estimator)
    with pytest.raises(ModelError, match="a checkpoint could keep only as code"):
        learner.check_checkpoint()
    learner.fit(clusters(50))
    assert learner.annotate(clusters(5))["yhat"].shape == (5, 5)
    with pytest.raises(ModelError, match="a checkpoint could keep only as code"):
        learner.state()


def test_a_foreign_state_is_refused() -> None:
    learner = SklearnLearner(LogisticRegression())
    with pytest.raises(ModelError, match="no 'schema'"):
        learner.restore({"mean": np.zeros(3)})
    bayes = SklearnLearner(GaussianNB())
    bayes.fit(clusters(50))
    with pytest.raises(ModelError, match="of a GaussianNB, this learner of a LogisticRegression"):
        learner.restore(bayes.state())
    damaged = bayes.state()
    damaged["schema"] = damaged["schema"][:-9]
    with pytest.raises(ModelError, match="cannot be read"):
        bayes.restore(damaged)
    code = damaged["schema"].tobytes().replace(b"sklearn.naive_bayes", b"os" + b" " * 17)
    with pytest.raises(ModelError, match="cannot be read"):
        bayes.restore({**damaged, "schema": np.frombuffer(code, np.uint8)})
    assert not learner.trained


# --- the loop


def days(number: int = 4, size: int = 200, labels: tuple[int, ...] = (0, 1)) -> Any:
    for day in range(number):
        yield f"day-{day}", clusters(size, labels, seed=day)


@pytest.mark.parametrize("estimator", [CLASSIFIERS[i] for i in (0, 2, 3, 4, 5, 6)], ids=name_of)
def test_the_loop_runs_and_resumes_with(estimator: Any, tmp_path: Any) -> None:
    policy = Memento(
        [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y")],
        batch_size=16,
        sort_by=["y", "yhat"],
        missing="skip",
    )

    def steps(stream: Any, **settings: Any) -> list[Any]:
        learner = SklearnLearner(estimator)
        return list(run(stream, Memory(128, policy), learner, Every(2), **settings))

    plain = steps(days())
    assert [step.trained for step in plain] == [True, False, True, False]
    steps(list(days())[:2], checkpoint=tmp_path)
    resumed = steps(days(), checkpoint=tmp_path)
    assert [step.scores for step in resumed] == [step.scores for step in plain]


@pytest.mark.parametrize("estimator", [REGRESSORS[i] for i in (0, 1, 3)], ids=name_of)
def test_the_loop_runs_with_numbers(estimator: Any, tmp_path: Any) -> None:
    policy = Memento(
        [JensenShannon.of_values("y"), JensenShannon.of_values("yhat")],
        batch_size=16,
        sort_by=["y", "yhat"],
        missing="skip",
    )
    stream = [(str(day), numbers(200, seed=day)) for day in range(3)]
    memory = Memory(128, policy)
    steps = list(run(stream, memory, SklearnLearner(estimator), Every(1), checkpoint=tmp_path))
    assert [step.trained for step in steps] == [True, True, True]
    assert np.isfinite(memory.samples["loss"]).all()


def test_the_loop_with_labels_that_are_words_and_a_class_that_appears() -> None:
    policy = Memento(
        [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y")],
        batch_size=16,
        sort_by=["y", "yhat"],
        missing="skip",
    )
    stream = []
    for day in range(4):
        samples = clusters(200, (0, 1) if day < 2 else (0, 1, 2), seed=day)
        words = np.array(["fine", "fraud", "new"])[samples["y"]]
        stream.append((str(day), samples.with_columns(y=words)))
    memory = Memory(128, policy)
    learner = SklearnLearner(RandomForestClassifier(5, random_state=0))
    list(run(stream, memory, learner, Every(1)))
    assert memory.samples["yhat"].shape == (len(memory), 3)
    assert "new" in memory.samples["y"]


def test_the_loop_with_labels_that_come_two_days_late() -> None:
    """Nothing is trained before there is a label, and then on those that have one."""
    memory = Memory(300, Reservoir())
    learner = SklearnLearner(LogisticRegression())
    truth = {}

    def stream() -> Any:
        for day in range(5):
            samples = clusters(100, (0, 1), seed=day)
            ids = np.arange(100) + 100 * day
            truth[day] = ids, samples["y"]
            if day >= 2:
                ids_known, y = truth[day - 2]
                memory.label(ids_known, y=y)
            yield str(day), samples.with_columns(id=ids, y=np.full(100, np.nan))

    steps = list(run(stream(), memory, learner, Every(1)))
    trained = [step.trained for step in steps]
    assert trained[0] is False
    assert trained[-1] is True


# --- what is refused


def test_inputs_with_more_axes_are_flattened() -> None:
    samples = clusters(50).with_columns(x=np.random.default_rng(0).normal(size=(50, 2, 2)))
    learner = SklearnLearner(LinearDiscriminantAnalysis(), classes=5)
    learner.fit(samples)
    assert learner.annotate(samples)["yhat"].shape == (50, 5)


def test_the_estimator_given_is_never_changed() -> None:
    estimator = LogisticRegression()
    SklearnLearner(estimator).fit(clusters(50))
    assert not hasattr(estimator, "coef_")


def test_bad_input() -> None:
    learner = SklearnLearner(LogisticRegression(), classes=5)
    samples = clusters(20)
    with pytest.raises(ModelError, match="call fit first"):
        learner.annotate(samples)
    with pytest.raises(SchemaError, match="no column 'x'"):
        learner.fit(samples.without("x"))
    with pytest.raises(SchemaError, match="no column 'y'"):
        learner.fit(samples.without("y"))
    with pytest.raises(SchemaError, match="none of 0 has a label"):
        learner.fit(samples.rows(0, 0))
    with pytest.raises(SchemaError, match="none of 20 has a label"):
        learner.fit(samples.with_columns(y=np.full(20, np.nan)))
    with pytest.raises(SchemaError, match="holds fractions"):
        learner.fit(samples.with_columns(y=samples["y"] + 0.5))
    with pytest.raises(DomainError, match="holds 9, which is not among the 5"):
        learner.fit(clusters(20, (1, 9)))
    with pytest.raises(ModelError, match="LogisticRegression refuses the samples"):
        learner.fit(samples.with_columns(x=np.full((20, 3), np.nan)))
    learner.fit(samples)
    with pytest.raises(ModelError, match="LogisticRegression refuses the inputs"):
        learner.annotate(samples.with_columns(x=np.zeros((20, 9))))


@pytest.mark.parametrize(
    ("estimator", "settings", "message"),
    [
        (KMeans(), {}, "neither a classifier nor a regressor"),
        (IsolationForest(), {}, "neither a classifier nor a regressor"),
        (MultiOutputClassifier(GaussianNB()), {}, "predicts several outputs"),
        (GaussianNB, {}, "expected a scikit-learn estimator"),
        ("GaussianNB", {}, "expected a scikit-learn estimator"),
        (GaussianNB(), {"classes": 1}, "classes is 1"),
        (GaussianNB(), {"classes": ["a", "a"]}, "different labels"),
        (GaussianNB(), {"floor": 1.0}, "floor is 1.0"),
        (GaussianNB(), {"label": 3}, "label is 3"),
    ],
)
def test_settings_that_are_refused(estimator: Any, settings: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SklearnLearner(estimator, **settings)


@pytest.mark.parametrize("missing", ["sklearn", "skops"])
def test_without_a_package(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__
    learner = SklearnLearner(GaussianNB())

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(missing):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[sklearn\]"'):
        learner.check_checkpoint() if missing == "skops" else SklearnLearner(GaussianNB())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_all_estimators_of_scikit_learn(kind: str) -> None:
    """What is accepted is fitted, predicts, and its state goes round; the rest says why."""
    samples = clusters(60, (0, 1)) if kind == "classifier" else numbers(60)
    samples = samples.with_columns(x=np.abs(samples["x"]))
    accepted, refused = [], []
    for name, make in all_estimators(type_filter=kind):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                estimator = make()
            except TypeError:
                continue  # needs another estimator
            try:
                learner = SklearnLearner(estimator)
                learner.fit(samples)
            except (SettingError, ModelError) as error:
                refused.append((name, str(error)))
                continue
            found = learner.annotate(samples)
            assert np.isfinite(found["loss"]).all(), name
            if kind == "classifier":
                np.testing.assert_allclose(found["yhat"].sum(axis=1), 1, atol=1e-5, err_msg=name)
            other = SklearnLearner(estimator)
            other.restore(learner.state())
            again = other.annotate(samples)["yhat"]
            np.testing.assert_allclose(again, found["yhat"], rtol=1e-6, atol=1e-9, err_msg=name)
            accepted.append(name)
    assert len(accepted) > 25, refused
