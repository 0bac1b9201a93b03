"""The two networks: what they learn, what they say, and that it is the same every time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from memento.errors import ModelError, SchemaError, SettingError
from memento.learner import Checkpointable, Learner, digest_of_state
from memento.samples import Samples

torch = pytest.importorskip("torch")

from memento_datacenter.learner import WindowLearner  # noqa: E402
from memento_datacenter.models import (  # noqa: E402
    CLASSIFICATION,
    PUBLISHED_CLASSIFICATION,
    PUBLISHED_REGRESSION,
    REGRESSION,
    NetworkSettings,
)

SMALL = NetworkSettings(layers=2, units=32, batch_size=64, epochs=10)


def packets(size: int, seed: int = 0) -> Samples:
    """Windows of 16 packets of three workloads, which differ in how often a packet is small."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, size)
    small = rng.random((size, 16)) < np.array([0.1, 0.5, 0.9])[y, None]
    return Samples(x=np.where(small, 60.0, 1500.0).astype(np.float32), y=y)


def delays(size: int, seed: int = 0) -> Samples:
    """The delay follows those before it: their mean, and the size of the packet."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([60.0, 1500.0], (size, 4))
    level = 0.02 + 0.03 * rng.random((size, 1))
    before = level + rng.normal(0, 0.002, (size, 3))
    y = level[:, 0] + 1e-6 * sizes[:, -1]
    return Samples(x=np.concatenate([sizes, before], axis=1).astype(np.float32), y=y)


@pytest.fixture(scope="module")
def classifier() -> WindowLearner:
    learner = WindowLearner("classification", SMALL, embedding=6)
    learner.fit(packets(3000))
    return learner


@pytest.fixture(scope="module")
def regressor() -> WindowLearner:
    learner = WindowLearner("regression", SMALL, embedding=5)
    learner.fit(delays(3000))
    return learner


def test_they_are_learners(classifier, regressor):
    for learner in (classifier, regressor):
        assert isinstance(learner, Learner)
        assert isinstance(learner, Checkpointable)
        assert learner.trained
    assert not WindowLearner("classification", SMALL).trained


def test_workloads_are_told_apart_as_well_as_they_can_be(classifier):
    fresh = packets(5000, seed=1)
    likelihood = np.log(
        [
            [0.1**k * 0.9 ** (16 - k), 0.5**16, 0.9**k * 0.1 ** (16 - k)]
            for k in (fresh["x"] < 100).sum(axis=1)
        ]
    )
    best = (likelihood.argmax(axis=1) == fresh["y"]).mean()
    found = (classifier.annotate(fresh)["yhat"].argmax(axis=1) == fresh["y"]).mean()
    assert best - 0.02 < found < best + 0.01


def test_delays_are_predicted(regressor):
    """The mean of three delays is off by 2 ms / sqrt(3) = 1.2 ms, so by 0.9 ms on average."""
    columns = regressor.annotate(delays(5000, seed=1))
    assert columns["loss"].mean() < 1.2e-3
    assert np.abs(delays(5000)["y"] - delays(3000)["y"].mean()).mean() > 6e-3  # without a network


def test_columns_of_the_classifier(classifier):
    fresh = packets(5000, seed=1)  # more than one piece of 4096
    columns = classifier.annotate(fresh)
    assert {name: (column.shape, str(column.dtype)) for name, column in columns.items()} == {
        "yhat": ((5000, 3), "float32"),
        "logscore": ((5000,), "float32"),
        "loss": ((5000,), "float32"),
        "embedding": ((5000, 6), "float32"),
        "gradient": ((5000, 18), "float32"),
    }
    np.testing.assert_allclose(columns["yhat"].sum(axis=1), 1, atol=1e-5)
    chosen = columns["yhat"][np.arange(5000), fresh["y"]]
    np.testing.assert_allclose(columns["loss"], -np.log(chosen), atol=1e-4)
    slope = columns["yhat"] - np.eye(3)[fresh["y"]]
    expected = slope[:, :, None] * columns["embedding"][:, None, :]
    np.testing.assert_allclose(columns["gradient"], expected.reshape(5000, 18), atol=1e-5)
    unlabelled = classifier.annotate(fresh.without("y"))
    assert sorted(unlabelled) == ["embedding", "yhat"]
    np.testing.assert_array_equal(unlabelled["yhat"], columns["yhat"])


def test_columns_of_the_regressor(regressor):
    fresh = delays(300, seed=1)
    columns = regressor.annotate(fresh)
    assert {name: (column.shape, str(column.dtype)) for name, column in columns.items()} == {
        "yhat": ((300,), "float64"),
        "loss": ((300,), "float64"),
        "embedding": ((300, 5), "float32"),
        "gradient": ((300, 5), "float32"),
    }
    np.testing.assert_allclose(columns["loss"], np.abs(columns["yhat"] - fresh["y"]))
    assert sorted(regressor.annotate(fresh.without("y"))) == ["embedding", "yhat"]
    assert sorted(WindowLearner("regression", SMALL).state()) == []


def test_the_gradient_is_that_of_the_last_layer(classifier, regressor):
    """What autograd says of one sample's loss, projected."""
    functional = torch.nn.functional
    for learner, fresh in ((classifier, packets(1, seed=3)), (regressor, delays(1, seed=3))):
        network, fitted = learner._network, learner._fitted
        x = torch.from_numpy(((fresh["x"] - fitted["mean"]) / fitted["std"]).astype(np.float32))
        if learner is classifier:
            loss = functional.cross_entropy(network(x), torch.from_numpy(fresh["y"].copy()))
        else:
            center, scale = fitted["shift"]
            loss = (network(x)[0, 0] - float((fresh["y"][0] - center) / scale)) ** 2
        (expected,) = torch.autograd.grad(loss, [network[-1].weight])
        columns = learner.annotate(fresh)
        with torch.inference_mode():
            hidden = network[:-1](x).numpy()
        size = learner.embedding
        projection = np.random.default_rng([0, 1]).standard_normal((32, size)) / np.sqrt(size)
        close = {"rtol": 1e-3, "atol": 1e-4}
        np.testing.assert_allclose(columns["embedding"], hidden @ projection, **close)
        np.testing.assert_allclose(
            columns["gradient"].reshape(-1, size),
            expected.numpy() @ projection,
            rtol=1e-3,
            atol=1e-4,
        )


def test_no_samples_have_columns_without_rows(classifier):
    found = classifier.annotate({name: column[:0] for name, column in packets(2).items()})
    assert found["gradient"].shape == (0, 18)
    assert found["yhat"].shape == (0, 3)


def test_embeddings_keep_distances_on_average(classifier):
    learner = WindowLearner("classification", SMALL, embedding=2000)
    learner.restore(classifier.state())
    fresh = packets(60, seed=5)
    inputs = (fresh["x"] - learner._fitted["mean"]) / learner._fitted["std"]
    with torch.inference_mode():
        hidden = learner._network[:-1](torch.from_numpy(inputs.astype(np.float32))).numpy()
    found = learner.annotate(fresh)["embedding"]
    pairs = [
        np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(60, 1)]
        for points in (hidden, found)
    ]
    apart = pairs[0] > 1e-3
    ratio = pairs[1][apart] / pairs[0][apart]
    assert abs(ratio.mean() - 1) < 0.03  # each within sqrt(1 / (2 * 2000)) = 1.6 %
    assert ratio.std() < 0.04


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_same_seed_same_network_and_nothing_global_moves(task):
    samples = packets(500) if task == "classification" else delays(500)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    digests = []
    for seed in (1, 1, 2):
        learner = WindowLearner(task, SMALL, seed=seed)
        learner.fit(samples)
        digests.append(digest_of_state(learner.state()))
    assert digests[0] == digests[1] != digests[2]
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_second_fit_starts_anew(classifier):
    other = WindowLearner("classification", SMALL)
    other.fit(packets(400, seed=9))
    other.fit(packets(3000))
    assert digest_of_state(other.state()) == digest_of_state(classifier.state())


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_state_goes_round(task, classifier, regressor):
    fitted = classifier if task == "classification" else regressor
    fresh = (packets if task == "classification" else delays)(50, seed=2)
    other = WindowLearner(task, SMALL, embedding=fitted.embedding)
    other.restore(fitted.state())
    for name, column in fitted.annotate(fresh).items():
        np.testing.assert_array_equal(other.annotate(fresh)[name], column)
    state = other.state()
    for array in state.values():
        array[...] = 0
    np.testing.assert_array_equal(other.annotate(fresh)["yhat"], fitted.annotate(fresh)["yhat"])
    other.restore({})
    assert not other.trained
    with pytest.raises(ModelError, match="before its first fit"):
        other.annotate(fresh)


def test_a_foreign_state_is_refused(classifier, regressor):
    wider = WindowLearner("classification", dataclasses.replace(SMALL, units=33))
    with pytest.raises(ModelError, match=r"shape \(32, 16\) .* expected shape \(33, 16\)"):
        wider.restore(classifier.state())
    deeper = WindowLearner("classification", dataclasses.replace(SMALL, layers=3))
    with pytest.raises(ModelError, match=r"expected shape"):
        deeper.restore(classifier.state())
    with pytest.raises(ModelError, match=r"the state lacks .*'mean'"):
        deeper.restore({"w": np.zeros(2)})
    with pytest.raises(ModelError, match=r"the state lacks .*'marginal'"):
        WindowLearner("classification", SMALL).restore(regressor.state())
    assert not wider.trained


def test_weights_shift_the_probabilities():
    """Inputs that say nothing, labels half and half: weights of 4 to 1 make it 80 %."""
    samples = Samples(x=np.random.default_rng(0).random((4000, 3)), y=np.arange(4000) % 2)
    learner = WindowLearner("classification", SMALL)
    for weights, expected in ((None, 0.5), (np.where(samples["y"] == 0, 4.0, 1.0), 0.8)):
        learner.fit(samples, weights)
        mean = learner.annotate(samples)["yhat"][:, 0].mean()
        assert mean == pytest.approx(expected, abs=0.07)


def test_a_weight_of_zero_means_absent():
    samples = delays(1000)
    wrong = samples["y"].copy()
    wrong[::2] += 5.0
    weights = np.ones(1000)
    weights[::2] = 0
    learner = WindowLearner("regression", dataclasses.replace(SMALL, held_out=0.2))
    learner.fit(samples.with_columns(y=wrong), weights)
    assert np.median(learner.annotate(samples)["loss"]) < 0.2  # of 5 s


def test_in_their_units_a_network_hardly_sees_delays(regressor):
    """Sizes in bytes drown delays in seconds; it is why the published regression errs so much."""
    samples, fresh = delays(3000), delays(1000, seed=1)
    blind = WindowLearner("regression", dataclasses.replace(SMALL, standardise=False))
    blind.fit(samples)
    assert not blind.state()["mean"].any()
    assert (blind.state()["std"] == 1).all()
    np.testing.assert_array_equal(blind.state()["shift"], [0, 1])
    spread = np.abs(fresh["y"] - np.median(samples["y"])).mean()
    assert regressor.annotate(fresh)["loss"].mean() < 0.3 * spread
    assert blind.annotate(fresh)["loss"].mean() > 0.7 * spread


def test_to_the_classifier_units_are_all_the_same(classifier):
    fresh = packets(1000, seed=1)
    plain = WindowLearner("classification", dataclasses.replace(SMALL, standardise=False))
    plain.fit(packets(3000))
    right = [
        (learner.annotate(fresh)["yhat"].argmax(axis=1) == fresh["y"]).mean()
        for learner in (plain, classifier)
    ]
    assert right[0] == pytest.approx(right[1], abs=0.03)


def test_settings_of_the_paper():
    published, counted = PUBLISHED_CLASSIFICATION, PUBLISHED_CLASSIFICATION.parameters(128, 3)
    assert (published.layers, published.units, published.batch_size) == (3, 512, 512)
    assert (published.learning_rate, published.epochs) == (5.91e-5, 200)
    assert (PUBLISHED_REGRESSION.layers, PUBLISHED_REGRESSION.units) == (4, 362)
    assert (PUBLISHED_REGRESSION.held_out, PUBLISHED_REGRESSION.patience) == (0.2, 50)
    # It decides how memories compare, so ours is the paper's in this.
    assert REGRESSION.standardise is PUBLISHED_REGRESSION.standardise is False
    assert published.rate(7, 1000) == published.rate(999, 1000) == 5.91e-5
    assert CLASSIFICATION.parameters(128, 3) < counted / 5
    assert REGRESSION.parameters(255, 1) < PUBLISHED_REGRESSION.parameters(255, 1) / 5


def test_parameters_are_counted():
    learner = WindowLearner("classification", NetworkSettings(layers=3, units=7))
    network = learner._build((11,))
    expected = sum(values.numel() for values in network.parameters())
    assert learner.network.parameters(11, 3) == expected
    kinds = [type(layer).__name__ for layer in network]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 3 + ["Linear"]


@pytest.mark.parametrize("count", [2, 63, 65, 1000])
def test_batches_have_about_the_size_that_is_asked_for(count):
    batches = WindowLearner("classification", SMALL).batches(count)
    assert batches == max(1, round(count / 64))


def test_published_regression_holds_samples_out():
    samples = delays(1000)
    learner = WindowLearner("regression", PUBLISHED_REGRESSION)
    train, rest = learner.split(samples)
    assert (len(train), len(rest)) == (800, 200)
    assert np.array_equal(np.sort(np.r_[train, rest]), np.arange(1000))
    assert [len(part) for part in WindowLearner("regression", REGRESSION).split(samples)] == [
        1000,
        0,
    ]


def test_the_rate_rises_and_falls_once():
    rates = [SMALL.rate(step, 100) for step in range(100)]
    assert max(rates) == rates[19] == SMALL.learning_rate
    assert (np.diff(rates[:20]) > 0).all()
    assert (np.diff(rates[20:]) < 0).all()
    assert 0 < rates[-1] < 1e-2 * SMALL.learning_rate
    assert NetworkSettings().rate(0, 1) == NetworkSettings().learning_rate


@pytest.mark.parametrize("size", [2, 3, 65])
def test_few_samples_are_enough(size):
    for held_out in (0.0, 0.5):
        learner = WindowLearner(
            "classification", dataclasses.replace(SMALL, held_out=held_out, epochs=2)
        )
        learner.fit(packets(size))
        assert np.isfinite(learner.annotate(packets(4))["yhat"]).all()
    assert learner.annotate(packets(0))["yhat"].shape == (0, 3)


@pytest.mark.parametrize("kind", [np.uint16, np.float64, bool])
def test_inputs_of_any_type(kind):
    samples = packets(200)
    learner = WindowLearner("classification", dataclasses.replace(SMALL, epochs=1))
    learner.fit(samples.with_columns(x=samples["x"].astype(kind)))
    assert np.isfinite(learner.annotate(samples)["loss"]).all()


def test_missing_columns_and_too_few_samples(classifier, regressor):
    for learner in (WindowLearner("classification", SMALL), WindowLearner("regression", SMALL)):
        with pytest.raises(SchemaError, match="the inputs"):
            learner.fit(Samples(y=[1]))
        with pytest.raises(SchemaError, match="no column 'y'"):
            learner.fit(Samples(x=[[1.0]]))
        with pytest.raises(SchemaError, match="at least 2"):
            learner.fit(Samples(x=[[1.0]], y=[1]))
    with pytest.raises(SchemaError, match="fitted on"):
        classifier.annotate(Samples(x=np.ones((2, 5))))


@pytest.mark.parametrize("held_out", [0.0, 0.2])
def test_a_training_that_breaks_leaves_the_learner_as_it_was(held_out):
    settings = dataclasses.replace(SMALL, held_out=held_out, epochs=2)
    learner = WindowLearner("regression", settings)
    samples = delays(300)
    learner.fit(samples)
    before = digest_of_state(learner.state())
    x = samples["x"].copy()
    x[:, 0] = 0
    x[::3, 0] = 3e38  # whose squares overflow
    learner.network = dataclasses.replace(settings, learning_rate=1e38)
    with pytest.raises(ModelError, match="not finite in any"):
        learner.fit(samples.with_columns(x=x))
    assert digest_of_state(learner.state()) == before


@pytest.mark.parametrize(
    "change",
    [
        *({"layers": 0}, {"units": 1.5}, {"batch_size": 1}, {"epochs": True}, {"patience": 0}),
        *({"learning_rate": 0}, {"learning_rate": np.nan}, {"held_out": 1}),
        *({"schedule": "cosine"}, {"standardise": 1}),
    ],
)
def test_network_settings_out_of_range(change):
    with pytest.raises(SettingError, match=f"{next(iter(change))} is"):
        NetworkSettings(**change)
