from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from memento.errors import (
    DomainError,
    MissingExtraError,
    ModelError,
    SchemaError,
    SettingError,
)
from memento.samples import Samples

torch = pytest.importorskip("torch")

from memento.integrations.torch import MemoryDataset, TorchLearner  # noqa: E402


def overlapping(count: int, seed: int = 0) -> Samples:
    """Two inputs, three classes whose true probabilities are a softmax of linear functions."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 2))
    logits = np.stack([2 * x[:, 0], x[:, 1], -x[:, 0]], axis=1)
    noise = rng.gumbel(size=logits.shape)
    return Samples(
        x=x.astype(np.float32),
        y=(logits + noise).argmax(axis=1),
        true=np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        stream=np.arange(count) // 20,
    )


def quick(**settings: Any) -> TorchLearner:
    return TorchLearner(**{"classes": 3, "epochs": 15, **settings})


@pytest.fixture(scope="module")
def fitted() -> TorchLearner:
    learner = quick()
    learner.fit(overlapping(4000))
    return learner


def test_learns_the_true_probabilities(fitted: TorchLearner) -> None:
    fresh = overlapping(5000, seed=1)
    columns = fitted.annotate(fresh)
    assert np.abs(columns["yhat"] - fresh["true"]).mean() < 0.04
    best = np.log(fresh["true"][np.arange(5000), fresh["y"]]).mean()
    assert best - 0.03 < columns["logscore"].mean() < best + 0.01


def test_columns(fitted: TorchLearner) -> None:
    fresh = overlapping(5000, seed=1)  # more than one piece of 4096
    columns = fitted.annotate(fresh)
    assert {name: str(column.dtype) for name, column in columns.items()} == dict.fromkeys(
        ("yhat", "logscore", "loss"), "float32"
    )
    assert columns["yhat"].shape == (5000, 3)
    np.testing.assert_allclose(columns["yhat"].sum(axis=1), 1, atol=1e-5)
    assert columns["yhat"].min() > 0
    chosen = columns["yhat"][np.arange(5000), fresh["y"]]
    np.testing.assert_allclose(columns["logscore"], np.log(chosen), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(columns["loss"], -columns["logscore"])
    without = fitted.annotate(fresh.select(["x"]))
    assert list(without) == ["yhat"]
    np.testing.assert_array_equal(without["yhat"], columns["yhat"])
    assert fitted.annotate(fresh.rows(0, 0))["yhat"].shape == (0, 3)


def test_same_seed_same_network_and_nothing_global_moves() -> None:
    samples = overlapping(600)
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    np_before = np.random.get_state()[1].copy()  # noqa: NPY002
    learners = [quick(epochs=3, threads=1, seed=seed) for seed in (1, 1, 2)]
    for learner in learners:
        learner.fit(samples)
    first, second, third = (learner.annotate(samples)["yhat"] for learner in learners)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(np.random.get_state()[1], np_before)  # noqa: NPY002


def test_threads_come_back_after_an_error() -> None:
    threads = torch.get_num_threads()
    with pytest.raises(ModelError):
        quick(model=lambda features, classes: torch.nn.Linear(5, 5), threads=threads + 1).fit(
            overlapping(50)
        )
    assert torch.get_num_threads() == threads


def test_weights_shift_the_probabilities() -> None:
    # One input value, two classes equally often; weights say three to one.
    labels = np.arange(3000) % 2
    samples = Samples(x=np.zeros(3000), y=labels)
    learner = quick(classes=2, epochs=40)
    learner.fit(samples, weights=np.where(labels == 1, 3.0, 1.0))
    assert learner.annotate(samples)["yhat"][0, 1] == pytest.approx(0.75, abs=0.02)


def test_a_weight_of_zero_means_absent() -> None:
    samples = overlapping(2000)
    broken = np.where(np.arange(2000) < 1000, samples["y"], 0)
    learner = quick()
    learner.fit(samples.with_columns(y=broken), weights=(np.arange(2000) < 1000) * 1.0)
    fresh = overlapping(2000, seed=1)
    assert np.abs(learner.annotate(fresh)["yhat"] - fresh["true"]).mean() < 0.06


def test_groups_stay_together() -> None:
    samples = overlapping(400)
    train, rest = quick(group="stream").split(samples)
    assert not set(samples["stream"][train]) & set(samples["stream"][rest])
    assert sorted([*train, *rest]) == list(range(400))
    assert 60 <= len(rest) <= 100  # a fifth, give or take a group of 20
    train, rest = quick().split(samples)
    assert len(rest) == 80


@pytest.mark.parametrize("group", [None, "stream"])
@pytest.mark.parametrize("count", [1, 2, 3, 25])
def test_few_samples_are_enough(count: int, group: str | None) -> None:
    learner = quick(epochs=2, group=group)
    samples = overlapping(count)
    learner.fit(samples)
    assert np.isfinite(learner.annotate(samples)["loss"]).all()


def test_a_giant_group_does_not_swallow_everything() -> None:
    samples = Samples(x=np.zeros((101, 1)), y=np.zeros(101, int), stream=[0] * 100 + [1])
    for seed in range(4):
        train, rest = quick(group="stream", seed=seed).split(samples)
        assert len(train)
        assert len(rest)


def test_calibration_repairs_a_distorted_network() -> None:
    # Logits three times too large: the best temperature is 3.
    class Loud(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: Any) -> Any:
            logits = torch.stack([2 * x[:, 0], x[:, 1], -x[:, 0]], dim=1)
            return 3 * logits * (1 + 0 * self.idle)

    samples = overlapping(6000)
    scale = samples["x"].std(axis=0).mean()
    learner = quick(model=lambda features, classes: Loud(), epochs=1)
    learner.fit(samples)
    assert learner.temperature == pytest.approx(3 / scale, rel=0.15)
    raw = quick(model=lambda features, classes: Loud(), epochs=1, calibrate=False)
    raw.fit(samples)
    assert (raw.temperature, raw.floor) == (1.0, 0.0)
    gain = learner.annotate(samples)["logscore"] - raw.annotate(samples)["logscore"]
    assert gain.mean() > 0.1


def test_a_calibrated_network_is_left_alone(fitted: TorchLearner) -> None:
    assert (fitted.temperature, fitted.floor) == (1.0, 1e-4)


def test_the_best_epoch_is_restored() -> None:
    # At this learning rate the loss goes up again; the network kept must be better than the last.
    samples = overlapping(300)
    settings: dict[str, Any] = {"learning_rate": 0.05, "averaging": 0.0, "calibrate": False}
    patient = quick(epochs=60, patience=60, **settings)
    patient.fit(samples)
    _, rest = patient.split(samples)
    held_out = float(patient.annotate(samples.take(rest))["loss"].mean())
    for epochs in (1, 5, 60):
        other = quick(epochs=epochs, patience=60, **settings)
        other.fit(samples)
        assert held_out <= float(other.annotate(samples.take(rest))["loss"].mean()) + 1e-3


def test_stops_early() -> None:
    calls = []

    class Counting(torch.nn.Linear):
        def train(self, mode: bool = True) -> Any:
            calls.append(mode)
            return super().train(mode)

    learner = quick(model=Counting, epochs=500, patience=2)
    learner.fit(overlapping(500))
    assert sum(calls) < 200


def test_warm_start_goes_on_from_the_last_weights() -> None:
    samples = overlapping(1000)
    learner = quick(epochs=10, warm_start=True)
    learner.fit(samples)
    before = learner.annotate(samples)["loss"].mean()
    cold = quick(epochs=1)
    cold.fit(samples)
    learner.epochs = 1
    learner.fit(samples)
    assert learner.annotate(samples)["loss"].mean() == pytest.approx(before, abs=0.02)
    assert cold.annotate(samples)["loss"].mean() > before + 0.05


def test_inputs_of_any_scale_and_outliers() -> None:
    samples = overlapping(4000)
    x = samples["x"].astype(float) * [1e6, 1e-6] + [1e7, 0]
    constant = np.full((4000, 1), 3.0)
    scaled = samples.with_columns(x=np.concatenate([x, constant], axis=1))
    learner = quick()
    learner.fit(scaled)
    assert np.abs(learner.annotate(scaled)["yhat"] - samples["true"]).mean() < 0.05
    outlier = scaled.take([0]).with_columns(x=[[1e30, 0.0, -1e30]])
    assert np.isfinite(learner.annotate(outlier)["loss"]).all()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "bool"])
def test_inputs_of_any_type_and_shape(dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (60, 4, 4)).astype(dtype)
    samples = Samples(image=images, label=images[:, 0, 0].astype(int))

    def model(features: int, classes: int) -> Any:
        assert features == 16
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, classes))

    learner = TorchLearner(2, model, inputs="image", label="label", epochs=2)
    learner.fit(samples)
    assert learner.annotate(samples)["yhat"].shape == (60, 2)
    flat = Samples(x=images[:, 0, 0].astype(float), y=images[:, 0, 0].astype(int))
    quick(epochs=1).fit(flat)


def test_state_goes_round(fitted: TorchLearner, tmp_path: Any) -> None:
    samples = overlapping(100)
    path = tmp_path / "state.npz"
    np.savez(path, **fitted.state())
    other = quick(seed=9)
    with np.load(path, allow_pickle=False) as state:
        other.restore(dict(state))
    assert other.trained
    for name, column in fitted.annotate(samples).items():
        np.testing.assert_array_equal(other.annotate(samples)[name], column)


def test_state_is_a_copy(fitted: TorchLearner) -> None:
    samples = overlapping(10)
    before = fitted.annotate(samples)["yhat"]
    for array in fitted.state().values():
        array += 1
    np.testing.assert_array_equal(fitted.annotate(samples)["yhat"], before)


def test_nothing_learned_is_a_state_too(fitted: TorchLearner) -> None:
    blank = quick()
    assert not blank.trained
    assert blank.state() == {}
    other = quick()
    other.restore(fitted.state())
    other.restore({})
    assert not other.trained
    with pytest.raises(ModelError, match="call fit first"):
        blank.annotate(overlapping(3))


def test_a_warm_start_goes_on_from_a_restored_state() -> None:
    samples = overlapping(500)
    straight = quick(epochs=2, warm_start=True)
    straight.fit(samples)
    resumed = quick(epochs=2, warm_start=True)
    resumed.restore(straight.state())
    for learner in (straight, resumed):
        learner.fit(samples)
    np.testing.assert_array_equal(
        straight.annotate(samples)["yhat"], resumed.annotate(samples)["yhat"]
    )


def test_a_foreign_state_is_refused(fitted: TorchLearner) -> None:
    state = fitted.state()
    learner = quick()
    with pytest.raises(ModelError, match="lacks"):
        learner.restore({"coef_": np.zeros(3)})
    with pytest.raises(ModelError, match="3 classes, this learner 4"):
        quick(classes=4).restore(state)
    with pytest.raises(ModelError, match=r"network's 1.weight, expected shape \(64, 2\)"):
        learner.restore({**state, "network/1.weight": np.zeros((64, 5), np.float32)})
    with pytest.raises(ModelError, match=r"nothing for the network's 5.bias"):
        learner.restore({name: value for name, value in state.items() if "5.bias" not in name})
    with pytest.raises(ModelError, match="another network"):
        learner.restore({**state, "network/9.bias": np.zeros(2, np.float32)})
    assert not learner.trained


def test_numbers_that_numpy_lacks() -> None:
    class Half(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x.bfloat16())

    learner = quick(model=lambda features, classes: Half(features, classes).bfloat16(), epochs=1)
    learner.fit(overlapping(50))
    with pytest.raises(ModelError, match="bfloat16"):
        learner.state()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[np.nan, 0]] * 4}, DomainError, "'x' is not finite in 4 of 4 rows"),
        ({"x": ["a"] * 4}, SchemaError, "'x' holds <U1; expected numbers"),
        ({"y": [0, 1, 2, 3]}, DomainError, "'y' goes from 0 to 3"),
        ({"y": [0, 1, 2, -1]}, DomainError, "'y' goes from -1 to 2"),
        ({"y": [0.5, 1, 2, 1]}, SchemaError, "holds fractions"),
        ({"y": ["a", "b", "c", "d"]}, SchemaError, "expected one integer per row"),
        ({"y": [np.nan] * 4}, SchemaError, "none of 4 has a label"),
    ],
)
def test_bad_columns(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quick().fit(overlapping(4).with_columns(change))


def test_missing_columns(fitted: TorchLearner) -> None:
    samples = overlapping(4)
    with pytest.raises(SchemaError, match="no column 'x'"):
        quick().fit(samples.without("x"))
    with pytest.raises(SchemaError, match="no column 'y'"):
        quick().fit(samples.without("y"))
    with pytest.raises(SchemaError, match="no column 'viewer'"):
        quick(group="viewer").fit(samples)
    with pytest.raises(SchemaError, match="none of 0 has a label"):
        quick().fit(samples.rows(0, 0))
    with pytest.raises(SchemaError, match=r"rows of shape \(3,\); the model was fitted on \(2,\)"):
        fitted.annotate({"x": np.zeros((4, 3))})


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ([1.0], SchemaError),
        ([0.0] * 4, DomainError),
        ([1.0, 1, 1, -1], DomainError),
        ([1.0, 1, 1, np.nan], DomainError),
    ],
)
def test_bad_weights(weights: list[float], error: type[Exception]) -> None:
    with pytest.raises(error, match="weights"):
        quick().fit(overlapping(4), np.array(weights))


def test_a_failed_fit_leaves_the_learner_as_it_was() -> None:
    samples = overlapping(200)
    learner = quick(epochs=2)
    learner.fit(samples)
    before = learner.annotate(samples)["yhat"]
    with pytest.raises(DomainError):
        learner.fit(samples.with_columns(x=np.full((200, 2), np.inf)))
    learner.model = lambda features, classes: torch.nn.Linear(features, classes + 1)
    with pytest.raises(ModelError, match=r"outputs of shape \(1, 4\) for one row"):
        learner.fit(samples)
    learner.model = lambda features, classes: torch.nn.Linear(7, classes)
    with pytest.raises(ModelError, match="refuses inputs of shape"):
        learner.fit(samples)
    np.testing.assert_array_equal(learner.annotate(samples)["yhat"], before)


def test_a_loss_that_is_never_finite() -> None:
    class Broken(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * float("nan")

    with pytest.raises(ModelError, match="not finite in any of"):
        quick(model=Broken, epochs=3).fit(overlapping(50))


@pytest.mark.parametrize(
    "settings",
    [
        {"classes": 1},
        {"epochs": 0},
        {"batch_size": 0},
        {"threads": 0},
        {"seed": -1},
        {"weight_decay": -1.0},
        {"learning_rate": 0.0},
        {"held_out": 1.0},
        {"averaging": 1.0},
        {"patience": 0},
        {"min_delta": -1.0},
    ],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        quick(**settings)


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[torch\]"'):
        TorchLearner(classes=2)
    with pytest.raises(MissingExtraError, match="MemoryDataset needs"):
        MemoryDataset({"x": [1.0], "y": [0]})


# --- numbers


def line(count: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2))
    return Samples(x=x, y=1e4 + 500 * x[:, 0] + 10 * rng.standard_normal(count))


@pytest.mark.parametrize("loss", ["squared", "absolute"])
def test_numbers_are_learned_in_their_own_unit(loss: str) -> None:
    learner = TorchLearner(loss=loss, epochs=40)
    samples = line(2000)
    y = samples["y"].copy()
    y[::3] = np.nan
    learner.fit(samples.with_columns(y=y), weights=np.ones(2000))
    found = learner.annotate(samples)
    assert sorted(found) == ["loss", "yhat"]
    assert found["yhat"].shape == (2000,)
    assert found["loss"].mean() < 60, "of a spread of 500"
    np.testing.assert_allclose(found["loss"], np.abs(found["yhat"] - samples["y"]))
    partly = learner.annotate(samples.with_columns(y=y))
    assert np.isnan(partly["loss"][::3]).all()
    assert list(learner.annotate(samples.select(["x"]))) == ["yhat"]
    other = TorchLearner(loss=loss, epochs=40)
    other.restore(learner.state())
    np.testing.assert_array_equal(other.annotate(samples)["yhat"], found["yhat"])
    with pytest.raises(ModelError, match="lacks"):
        quick().restore(learner.state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "log"}, "classes is None"),
        ({"loss": "squared", "classes": 3}, "classes is 3; expected None for numbers"),
        ({"loss": "huber", "classes": 3}, "loss is 'huber'"),
    ],
)
def test_losses_and_classes_that_do_not_go_together(settings: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        TorchLearner(**settings)


def test_late_labels_of_classes() -> None:
    samples = overlapping(300)
    y = np.where(np.arange(300) < 100, np.nan, samples["y"])
    learner = quick()
    learner.fit(samples.with_columns(y=y))
    found = learner.annotate(samples.with_columns(y=y))
    np.testing.assert_array_equal(np.isnan(found["logscore"]), np.arange(300) < 100)


def test_without_samples_held_out_the_last_epoch_stays() -> None:
    samples = overlapping(300)
    settings: dict[str, Any] = {"held_out": 0.0, "calibrate": False, "averaging": 0.0}
    learner = quick(epochs=3, **settings)
    learner.fit(samples)
    train, rest = learner.split(samples)
    assert (len(train), len(rest)) == (300, 0)
    columns = learner.annotate(samples)
    np.testing.assert_allclose(columns["yhat"].sum(axis=1), 1, atol=1e-6)
    with pytest.raises(SettingError, match="calibrate=False"):
        quick(held_out=0.0)


def test_inputs_in_their_units() -> None:
    learner = quick(standardise=False)
    learner.fit(overlapping(300))
    assert not learner.state()["mean"].any()
    assert (learner.state()["std"] == 1).all()


@pytest.mark.parametrize("settings", [{"classes": 3}, {"classes": None, "loss": "squared"}])
def test_the_gradient_is_that_of_the_last_layer(settings: dict[str, Any]) -> None:
    samples = overlapping(400)
    learner = TorchLearner(
        epochs=3, embedding=5, calibrate=False, averaging=0.0, clip=float("inf"), **settings
    )
    learner.fit(samples)
    one = samples.rows(7, 8)
    columns = learner.annotate(one)
    fitted, network = learner._fitted, learner._network
    x = torch.from_numpy(((one["x"] - fitted["mean"]) / fitted["std"]).astype(np.float32))
    if settings["classes"]:
        target = torch.from_numpy(np.asarray(one["y"], np.int64).copy())
        loss = torch.nn.functional.cross_entropy(network(x), target)
    else:
        center, scale = fitted["shift"]
        loss = (network(x)[0, 0] - float((one["y"][0] - center) / scale)) ** 2
    (expected,) = torch.autograd.grad(loss, [network[-1].weight])
    projection = np.random.default_rng([0, 1]).standard_normal((64, 5)) / np.sqrt(5)
    np.testing.assert_allclose(
        columns["gradient"].reshape(-1, 5), expected.numpy() @ projection, rtol=1e-3, atol=1e-4
    )
    late = learner.annotate(samples.with_columns(y=np.full(400, np.nan)))
    assert np.isnan(late["gradient"]).all()
    assert sorted(learner.annotate(samples.without("y"))) == ["embedding", "yhat"]
    assert learner.annotate(samples.rows(0, 0))["gradient"].shape[0] == 0


def test_an_embedding_needs_a_linear_layer() -> None:
    class Plain(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(inputs, outputs))

        def forward(self, x: Any) -> Any:
            return x @ self.weight

    learner = TorchLearner(3, Plain, embedding=2, epochs=1)
    learner.fit(overlapping(60))
    with pytest.raises(ModelError, match="leave embedding out"):
        learner.annotate(overlapping(5))
