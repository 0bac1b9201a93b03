"""The transmission time predictor: what Fugu-Feb believes, training, and files old and new."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import itertools
import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import memento
from memento import errors
from memento_puffer.predictor.network import (
    CLASS_VALUES,
    SHAPES,
    Moments,
    Network,
    clamp_sentinels,
    expected_time,
)
from memento_puffer.predictor.ttp import Ttp, read_cpp, read_meta, read_py
from memento_puffer.predictor.ttp_training import (
    ARTEFACT,
    PUFFER,
    Training,
    TrainingSettings,
    TtpLearner,
)

torch = pytest.importorskip("torch")

QUICK = TrainingSettings(epochs=4, batch_size=32, learning_rate=1e-3)
SENTINEL = (2**32 - 1) / 1e6

# delivery_rate, cwnd, in_flight, min_rtt, rtt; E[T] for the sizes; P(class 20) for the last one
SIZES_KB = (44, 93, 143, 264, 495, 890, 1500, 3000)
BELIEFS = {
    "fast": ((5000, 800, 0, 0.02, 0.03), ".13 .13 .13 .13 .13 .15 .22 .49", "3e-05"),
    "typical": ((2083, 500, 0, 0.04, 0.06), ".16 .18 .20 .26 .38 .50 .59 .88", "5e-05"),
    "slowish": ((667, 150, 0, 0.05, 0.09), ".15 .18 .28 .51 .55 1.04 1.57 3.20", ".0095"),
    "slow": ((250, 80, 0, 0.06, 0.15), ".36 .50 .57 .98 1.55 2.73 4.35 6.65", ".248"),
    "very slow": ((83, 40, 2, 0.08, 0.30), "1.15 1.34 1.56 2.39 3.68 4.70 6.85 9.01", ".768"),
}


def inputs(state, sizes, past, seconds):
    """Eight equal chunks, TCP as it was then, and the sizes asked about, in packets."""
    return np.array([[*state, past, seconds] * 8 + [*state, size] for size in sizes])


@pytest.fixture(scope="session")
def fugu_feb(data_folder):
    return data_folder / "fugu-feb"


@pytest.fixture(scope="session")
def feb(fugu_feb):
    return Ttp.read(fugu_feb)


@pytest.fixture
def data():
    """Samples whose class the last column decides."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((500, 62)) * 3 + 1
    return x, np.clip((x[:, -1] + 6) // 2, 0, 20).astype(np.int64)


# What Fugu-Feb believes


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", BELIEFS)
def test_fugu_feb_believes(feb, name, dtype):
    state, expected, worst = BELIEFS[name]
    past = 500_000 / 1500
    x = inputs(state, np.array(SIZES_KB) / 1.5, past, past / state[0] + 2 * state[4])
    network = feb[0].astype(dtype)
    printed = [float(value) for value in expected.split()]
    np.testing.assert_array_equal(network.expected(x).round(2), printed)
    digits = {"3e-05": 5, "5e-05": 5, ".0095": 4}.get(worst, 3)
    assert round(float(network.probabilities(x)[-1, 20]), digits) == float(worst)


def test_fugu_feb_believes_of_a_typical_state(feb):
    x = inputs(BELIEFS["typical"][0], [333], 333, 0.5)
    masses = feb[0].probabilities(x)[0]
    np.testing.assert_array_equal(masses[:6].round(3), [0.047, 0.837, 0.101, 0.009, 0.003, 0.001])
    times = [float(network.expected(x)[0].round(3)) for network in feb]
    assert times == [0.555, 0.578, 0.580, 0.624, 0.554]


def test_fugu_feb_moments(feb):
    moments = feb[0].moments
    assert moments.count == 13_489_635
    np.testing.assert_allclose(moments.mean[[56, 61]], [5399, 644.7], rtol=1e-4)
    assert feb[0].dtype == np.float64


def in_another_order(network, seed=0):
    """The same network with its hidden units dealt out anew, so with other orders of sums."""
    W1, b1, W2, b2, W3, b3 = network.weights
    first, second = np.random.default_rng(seed).permuted(np.tile(np.arange(64), (2, 1)), axis=1)
    weights = (W1[first], b1[first], W2[second][:, first], b2[second], W3[:, second], b3)
    return Network(weights, network.moments)


@pytest.mark.parametrize("factor", [1, 6])
@pytest.mark.parametrize("inputs", [62, 17])
def test_rounding_covers_orders_of_sums_and_nothing_else(factor, inputs):
    rng = np.random.default_rng(3)
    fresh = Network.fresh(1, Moments(9, np.full(inputs, 40.0), np.full(inputs, 7.0)))
    network = Network(tuple(factor * array for array in fresh.weights), fresh.moments)
    x = rng.normal(40, 7, (300, inputs)).astype(np.float32)
    allowed = network.rounding(x)
    exact = network.astype(np.float64).probabilities(x)
    singly = np.concatenate([network.probabilities(row[None]) for row in x])
    others = [in_another_order(network, seed).probabilities(x) for seed in range(9)]
    assert any((found != others[0]).any() for found in others), "orders of sums differ"
    for found in (singly, *others):
        assert (np.abs(found - exact).max(axis=1) <= allowed).all()
    assert allowed.max() < (3e-4 if factor == 1 else 5e-2)
    assert (network.astype(np.float64).rounding(x) < 1e-6 * allowed).all()
    elsewhere = np.abs(np.roll(exact, 1, axis=0) - exact).max(axis=1)
    assert (elsewhere > allowed).mean() > 0.8, "predictions of other rows are told apart"


def test_class_values():
    assert CLASS_VALUES[:3].tolist() == [0.125, 0.5, 1.0]
    assert CLASS_VALUES[20] == 10.0
    np.testing.assert_array_equal(expected_time(np.eye(21)), CLASS_VALUES)
    with pytest.raises(errors.SchemaError, match="expected 21 classes"):
        expected_time(np.ones(20))


# Moments


def test_moments_of_rows_in_parts_are_those_of_all():
    rng = np.random.default_rng(1)
    x = rng.lognormal(5, 1, (5000, 62))
    x[:, 2] = 0.1  # constant: std is exactly 0
    parts = [Moments.of(part) for part in np.split(x, [1, 700, 3000])]
    merged = parts[0].merged(parts[1]).merged(parts[2]).merged(parts[3])
    assert merged.count == 5000
    np.testing.assert_allclose(merged.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.std, x.std(axis=0), rtol=1e-10, atol=1e-14)
    assert Moments.of(x).std[2] == 0
    np.testing.assert_array_equal(Moments.of(x).standardise(x)[:, 2], 0)


def test_merge_is_puffers_formula():
    rng = np.random.default_rng(2)
    old, x = Moments.of(rng.random((300, 62))), rng.random((200, 62)) + 0.5
    merged = old.merged(Moments.of(x))
    n, m = 300, 200
    mean = (n * old.mean + x.sum(axis=0)) / (n + m)
    squares = n * (old.std**2 + old.mean**2) + (x**2).sum(axis=0)
    np.testing.assert_allclose(merged.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(merged.std, np.sqrt(squares / (n + m) - mean**2), rtol=1e-9)


def test_moments_of_float32_rows_do_not_drift():
    x = np.full((300_000, 62), 5000.0, dtype=np.float32)
    x[::2] += 1
    moments = Moments.of(x)
    np.testing.assert_allclose(moments.mean, 5000.5, rtol=1e-12)
    np.testing.assert_allclose(moments.std, 0.5, rtol=1e-12)


def test_rebased_network_is_the_same_function(feb):
    rng = np.random.default_rng(3)
    x = np.abs(rng.normal(feb[0].moments.mean, 0.1 * feb[0].moments.mean, (50, 62)))
    other = feb[0].rebased(Moments.of(x))
    np.testing.assert_allclose(other.logits(x), feb[0].logits(x), rtol=1e-9, atol=1e-9)
    assert other.moments.std[59] < 0.1 < 1 < feb[0].moments.std[59]


# Sentinels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sentinels_are_clamped_to_rtt(dtype):
    x = np.random.default_rng(4).random((5, 62)).astype(dtype)
    before = x.copy()
    x[1, 3] = x[4, 59] = SENTINEL
    clamped = clamp_sentinels(x)
    before[1, 3], before[4, 59] = before[1, 4], before[4, 60]
    np.testing.assert_array_equal(clamped, before)
    assert x[1, 3] > 4294  # the caller's array is left alone
    assert clamp_sentinels(before) is before
    network = Network.fresh(0, dtype=dtype)
    np.testing.assert_array_equal(network.logits(x), network.logits(before))
    assert (network.logits(x, sentinels="keep")[1] != network.logits(before)[1]).all()
    with pytest.raises(errors.SettingError, match="'clamp' or 'keep'"):
        network.logits(x, sentinels="drop")


@pytest.mark.parametrize(("way", "count", "std"), [("keep", 500, 1.0), ("clamp", 500, 0.0)])
def test_sentinels_in_training(data, way, count, std):
    x, y = data
    x[:, 3::7] = x[:, 4::7] = 0.05
    x[10, 59] = SENTINEL
    settings = dataclasses.replace(QUICK, sentinels=way, held_out=0.0, patience=None, epochs=1)
    moments = Training(None, x, y, settings=settings).run().moments
    assert moments.count == count
    assert moments.std[59] >= std
    assert bool(moments.std[59] == 0) is (way == "clamp")
    settings = dataclasses.replace(settings, sentinels="drop")
    assert Training(None, x, y, settings=settings).run().moments.count == 499
    x[:, 3] = SENTINEL
    with pytest.raises(errors.SchemaError, match="no samples"):
        Training(None, x, y, settings=settings)


# Training


def test_settings_are_those_of_puffer_and_of_the_artefact():
    assert (PUFFER.epochs, PUFFER.scratch_epochs, PUFFER.batch_size) == (300, 500, 32)
    assert (PUFFER.held_out, PUFFER.patience, PUFFER.start) == (0, None, "last")
    assert (ARTEFACT.epochs, ARTEFACT.batch_size, ARTEFACT.patience) == (3000, 512, 50)
    assert (ARTEFACT.held_out, ARTEFACT.min_delta, ARTEFACT.start) == (0.2, 1e-6, "base")
    for settings in (PUFFER, ARTEFACT):
        assert settings.learning_rate == settings.weight_decay == 1e-4
        assert (settings.moments, settings.sentinels) == ("merge", "keep")
        assert (settings.dtype, settings.seed) == ("float64", 42)
    assert TrainingSettings() == dataclasses.replace(ARTEFACT, sentinels="clamp", dtype="float32")
    assert Training(None, np.zeros((1, 62)), np.array([0]), settings=PUFFER).epochs == 500
    assert (
        Training(Network.fresh(), np.zeros((1, 62)), np.array([0]), settings=PUFFER).epochs == 300
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_training_does_what_torch_does(data, weighted):
    """Same batches, same start: Adam and cross-entropy of torch give the same weights."""
    x, y = data
    weights = np.random.default_rng(5).random(len(x)) if weighted else None
    settings = dataclasses.replace(
        QUICK, dtype="float64", held_out=0.0, patience=None, epochs=3, weight_decay=0.01
    )
    start = Network.fresh(1, Moments.of(x), "float64")
    settings = dataclasses.replace(settings, moments="keep")
    found = Training(start, x, y, weights, settings).run()

    net = torch.nn.Sequential(
        *(torch.nn.Linear(62, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()),
        torch.nn.Linear(64, 21),
    ).double()
    with torch.no_grad():
        for parameter, array in zip(net.parameters(), start.weights, strict=True):
            parameter.copy_(torch.from_numpy(array.copy()))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=0.01)
    inputs = torch.from_numpy((x - start.moments.mean) / start.moments.std)
    labels = torch.from_numpy(y)
    w = torch.from_numpy(np.ones(len(x)) if weights is None else weights)
    for epoch in range(3):
        order = torch.from_numpy(np.random.default_rng([42, epoch]).permutation(len(x)))
        for rows in order.split(32):
            losses = torch.nn.functional.cross_entropy(
                net(inputs[rows]), labels[rows], reduction="none"
            )
            adam.zero_grad()
            ((w[rows] * losses).sum() / w[rows].sum()).backward()
            adam.step()
    for array, parameter in zip(found.weights, net.parameters(), strict=True):
        np.testing.assert_allclose(array, parameter.detach().numpy(), rtol=1e-8, atol=1e-10)


def test_logits_are_those_of_torch(fugu_feb, feb):
    x = np.random.default_rng(6).random((20, 62)) * feb[2].moments.mean * 2
    W = [torch.from_numpy(a.copy()) for a in feb[2].weights]
    z = torch.from_numpy((x - feb[2].moments.mean) / feb[2].moments.std)
    for i in (0, 2):
        z = torch.relu(z @ W[i].T + W[i + 1])
    np.testing.assert_allclose(feb[2].logits(x), (z @ W[4].T + W[5]).numpy(), rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_network(data, dtype):
    settings = dataclasses.replace(QUICK, dtype=dtype)
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_before = torch.random.get_rng_state()
    first, second = (Training(None, *data, settings=settings).run() for _ in range(2))
    other = Training(None, *data, settings=dataclasses.replace(settings, seed=1)).run()
    assert first.dtype == dtype
    for a, b, c in zip(first.weights, second.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_before)


@pytest.mark.parametrize(
    "settings",
    [
        dataclasses.replace(QUICK, epochs=6),
        dataclasses.replace(QUICK, epochs=6, dtype="float64", patience=2, learning_rate=0.2),
        dataclasses.replace(PUFFER, epochs=6, scratch_epochs=6),
    ],
    ids=["float32", "stops early", "puffer"],
)
def test_resume_at_every_epoch_bit_for_bit(data, tmp_path, settings):
    x, y = data
    weights = np.random.default_rng(8).random(len(x))
    straight = Training(None, x, y, weights, settings)
    states = [straight.state()]
    while not straight.done:
        straight.epoch()
        states.append(straight.state())
    for number, state in enumerate(states):
        np.savez(tmp_path / "state.npz", **state)
        resumed = Training(None, x, y, weights, settings)
        with np.load(tmp_path / "state.npz", allow_pickle=False) as kept:
            resumed.restore(dict(kept))
        network = resumed.run() if number < len(states) - 1 else resumed.network
        assert resumed.losses == straight.losses
        assert resumed.done
        for ours, theirs in zip(network.weights, straight.network.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_state_of_something_else_is_refused(data):
    x, y = data
    training = Training(None, x, y, settings=QUICK)
    training.epoch()
    state, loss = training.state(), training.losses
    others = [
        Training(None, x + 1, y, settings=QUICK),
        Training(None, x, np.roll(y, 1), settings=QUICK),
        Training(None, x, y, np.linspace(0, 1, len(x)), QUICK),
        Training(None, x, y, settings=dataclasses.replace(QUICK, batch_size=64)),
    ]
    for other in others:
        with pytest.raises(errors.ModelError, match="other samples, settings"):
            other.restore(state)
        assert other.losses == []
    Training(None, x, y, settings=dataclasses.replace(QUICK, epochs=99)).restore(state)
    with pytest.raises(errors.ModelError, match="lacks first"):
        training.restore({name: v for name, v in state.items() if name != "first"})
    with pytest.raises(errors.ModelError, match="float64"):
        training.restore({**state, "weights": state["weights"].astype("f8")})
    assert training.losses == loss


def test_early_stop_goes_back_to_the_best_epoch(data):
    x, _ = data
    y = np.random.default_rng(9).integers(0, 21, len(x))  # nothing to learn: overfits at once
    settings = TrainingSettings(epochs=300, patience=5, learning_rate=3e-3, batch_size=32)
    training = Training(None, x, y, settings=settings)
    network = training.run()
    best = int(np.argmin(training.losses))
    assert len(training.losses) == best + 6 < 300
    again = Training(None, x, y, settings=dataclasses.replace(settings, epochs=best + 1))
    again.run()
    np.testing.assert_array_equal(again.network.weights[0], network.weights[0])


def test_weights_count_as_repetitions(data):
    """In one batch of all samples, a weight of 2 is a sample seen twice, and 0 one left out."""
    x, y = data[0][:60], data[1][:60]
    counts = np.arange(60) % 3
    settings = dataclasses.replace(
        QUICK,
        epochs=5,
        batch_size=1000,
        held_out=0.0,
        patience=None,
        dtype="float64",
        moments="keep",
    )
    start = Network.fresh(0, Moments.of(x), "float64")
    weighted = Training(start, x, y, counts, settings).run()
    repeated = Training(start, x.repeat(counts, 0), y.repeat(counts), None, settings).run()
    for a, b in zip(weighted.weights, repeated.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_moments_of_a_fit(feb, data):
    x, y = data
    one = dataclasses.replace(QUICK, epochs=1)
    merged = Training(feb[0], x, y, settings=one).run()
    assert merged.moments.count == 13_489_635 + 400  # of the training split only
    kept = Training(feb[0], x, y, settings=dataclasses.replace(one, moments="keep")).run()
    assert kept.moments is feb[0].moments
    anew = Training(feb[0], x, y, settings=dataclasses.replace(one, moments="estimate")).run()
    assert anew.moments.count == 400


def test_a_small_training_learns(data):
    settings = TrainingSettings(epochs=200, learning_rate=3e-3, batch_size=64, patience=20)
    x = np.random.default_rng(10).standard_normal((3000, 62))
    y = np.clip(x[:, -1] * 2 + 5, 0, 20).astype(int)
    network = Training(None, x[:2000], y[:2000], settings=settings).run()
    hit = network.logits(x[2000:]).argmax(axis=1) == y[2000:]
    assert hit.mean() > 0.5  # by chance a fifth


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 1.5},
        {"learning_rate": float("nan")},
        {"weight_decay": -1},
        {"held_out": 1.0},
        {"held_out": 0.0},
        {"patience": 0},
        {"start": "fugu"},
        {"moments": "new"},
        {"sentinels": "ignore"},
        {"dtype": "float16"},
        {"seed": -1},
    ],
    ids=str,
)
def test_settings_out_of_range(change):
    name = next(iter(change))
    with pytest.raises(errors.SettingError, match=name):
        dataclasses.replace(TrainingSettings(), **change)


@pytest.mark.parametrize(
    ("x", "y", "weights", "error", "message"),
    [
        (np.zeros((3, 61)), [0, 1, 2], None, errors.SchemaError, r"\(3, 61\); expected numbers"),
        (np.full((3, 62), "a"), [0, 1, 2], None, errors.SchemaError, "expected numbers"),
        (np.zeros((0, 62)), np.zeros(0, int), None, errors.SchemaError, "no samples"),
        (np.full((3, 62), np.nan), [0, 1, 2], None, errors.DomainError, "3 of 3 rows"),
        (np.zeros((3, 62)), [0, 1], None, errors.SchemaError, "expected 3 integers"),
        (np.zeros((3, 62)), [0.0, 1, 2], None, errors.SchemaError, "float64"),
        (np.zeros((3, 62)), [0, 1, 21], None, errors.DomainError, "expected 0 to 20"),
        (np.zeros((3, 62)), [0, 1, 2], [1, 1], errors.SchemaError, "weights of shape"),
        (np.zeros((3, 62)), [0, 1, 2], [1, -1, 1], errors.DomainError, "none below 0"),
        (np.zeros((3, 62)), [0, 1, 2], [0, 0, 0], errors.DomainError, "all weights"),
    ],
)
def test_bad_samples(x, y, weights, error, message):
    with pytest.raises(error, match=message):
        Training(None, x, np.array(y), weights, QUICK)


def test_a_loss_that_is_never_finite(data):
    x, y = data
    learner = TtpLearner(settings=dataclasses.replace(QUICK, epochs=1))
    learner.fit({"x": x, "y_bin": y})
    before = learner.network
    broken = TtpLearner(
        Network(tuple(a * np.float32(1e30) for a in before.weights), before.moments), QUICK
    )
    broken.restore(learner.state())
    with pytest.raises(errors.ModelError, match="lower learning_rate"):
        broken.fit({"x": x, "y_bin": y})
    np.testing.assert_array_equal(broken.network.weights[0], before.weights[0])


# Learner


def test_learner_satisfies_the_protocols(data):
    learner = TtpLearner(settings=QUICK)
    assert isinstance(learner, memento.Learner)
    assert isinstance(learner, memento.Checkpointable)
    assert not learner.trained
    assert learner.state() == {}
    with pytest.raises(errors.ModelError, match="call fit first"):
        learner.annotate({"x": data[0]})
    with pytest.raises(errors.SchemaError, match="no column 'y_bin'"):
        learner.fit({"x": data[0]})


def test_learner_annotates_and_comes_back(data):
    x, y = data
    learner, other = TtpLearner(settings=QUICK), TtpLearner(settings=QUICK)
    learner.fit({"x": x, "y_bin": y})
    columns = learner.annotate({"x": x, "y_bin": y})
    assert {name: (c.dtype, c.shape) for name, c in columns.items()} == {
        "yhat": (np.float32, (500, 21)),
        "logscore": (np.float32, (500,)),
        "loss": (np.float32, (500,)),
    }
    np.testing.assert_allclose(columns["yhat"].sum(axis=1), 1, rtol=1e-5)
    off = np.abs(columns["yhat"] - learner.network.probabilities(x)).max(axis=1)
    assert (off <= learner.network.rounding(x)).all()
    # The exponential of a number near -100 is off by a hundred roundings of single precision.
    np.testing.assert_allclose(
        np.exp(columns["logscore"]), columns["yhat"][np.arange(500), y], rtol=1e-4, atol=1e-30
    )
    assert sorted(learner.annotate({"x": x})) == ["yhat"]
    other.restore(learner.state())
    assert other.trained
    np.testing.assert_array_equal(other.annotate({"x": x})["yhat"], columns["yhat"])
    with pytest.raises(errors.ModelError, match="expected"):
        other.restore({**learner.state(), "0.weight": np.zeros((3, 3), dtype="f4")})
    np.testing.assert_array_equal(other.annotate({"x": x})["yhat"], columns["yhat"])
    other.restore({})
    assert not other.trained


def test_a_log_score_does_not_underflow():
    weights = [np.zeros(shape, dtype="f4") for shape in SHAPES]
    weights[-1] = np.where(np.arange(21) == 0, 500, 0).astype("f4")
    learner = TtpLearner()
    learner.restore(Network(tuple(weights), Network.fresh().moments).arrays())
    columns = learner.annotate({"x": np.zeros((1, 62)), "y_bin": np.array([3])})
    assert columns["logscore"][0] == -500


def test_start_of_a_fit(data):
    x, y = data
    base = Training(None, x, y, settings=QUICK).run()
    samples = {"x": x, "y_bin": y}
    one = dataclasses.replace(QUICK, epochs=1)
    counts = {}
    for start in ("base", "last", "scratch"):
        learner = TtpLearner(base, dataclasses.replace(one, start=start))
        assert not learner.trained
        learner.fit(samples)
        learner.fit(samples)
        counts[start] = learner.network.moments.count
    assert counts == {"base": 800, "last": 1200, "scratch": 400}


def test_the_daily_loop_can_use_it(data):
    x, y = data
    days = [(f"day {i}", {"x": x[i::5], "y_bin": y[i::5]}) for i in range(5)]
    policy = memento.Memento(
        [
            memento.JensenShannon.of_probabilities("yhat"),
            memento.JensenShannon.of_labels("y_bin", classes=21),
        ],
        sort_by=("y_bin", "yhat"),
        missing="skip",
        batch_size=16,
    )
    memory = memento.Memory(200, policy, seed=0)
    steps = list(memento.run(days, memory, TtpLearner(settings=QUICK), memento.Every(2)))
    assert sum(step.decision.due for step in steps) >= 2
    assert memory.samples["yhat"].shape == (len(memory), 21)


# Files


def same(first, second):
    for a, b in zip(first, second, strict=True):
        for name, array in a.arrays().items():
            np.testing.assert_array_equal(array, b.arrays()[name], strict=True)


def test_files_round_trip(feb, tmp_path):
    folder = tmp_path / "bbr-20220101-1"
    feb.write(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{kind}-{h}.{end}" for kind, end in (("py", "pt"), ("cpp", "pt")) for h in range(5)]
        + [f"cpp-meta-{h}.json" for h in range(5)]
    )
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    same(Ttp.read(folder), feb)
    small = Ttp.fresh(3)
    small.write(tmp_path / "small")
    back = Ttp.read(tmp_path / "small")
    assert back[0].dtype == np.float64
    same(back.astype("float32"), small)


def test_a_server_loads_what_was_written(feb, tmp_path):
    """As Puffer's server does: the trace, float64 in, logits out; moments from JSON."""
    feb.write(tmp_path / "model")
    x = inputs(BELIEFS["slow"][0], [300, 2000], 333, 1.6)
    for h, network in enumerate(feb):
        loaded = torch.jit.load(tmp_path / "model" / f"cpp-{h}.pt")
        meta = json.loads((tmp_path / "model" / f"cpp-meta-{h}.json").read_text())
        assert list(meta) == ["obs_size", "obs_mean", "obs_std"]
        z = torch.from_numpy((x - np.array(meta["obs_mean"])) / np.array(meta["obs_std"]))
        for row in (z[:1], z):
            logits = loaded(row)
            assert logits.dtype == torch.float64
            np.testing.assert_allclose(logits.numpy(), network.logits(x[: len(row)]), rtol=1e-9)


def test_a_trainer_loads_what_was_written(feb, tmp_path):
    """As Puffer's trainer does, which trusts its files; numpy 1 knows the names in them."""
    feb.write(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.load(tmp_path / "model" / "py-1.pt", weights_only=False)
    assert list(content) == ["model_state_dict", "obs_size", "obs_mean", "obs_std"]
    assert type(content["obs_size"]) is int
    assert isinstance(content["obs_mean"], np.ndarray)
    assert content["obs_std"].dtype == np.float64
    net = torch.nn.Sequential(
        *(torch.nn.Linear(62, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()),
        torch.nn.Linear(64, 21),
    ).double()
    net.load_state_dict(content["model_state_dict"])
    with zipfile.ZipFile(tmp_path / "model" / "py-1.pt") as archive:
        assert b"numpy._core" not in archive.read("archive/data.pkl")
    with zipfile.ZipFile(tmp_path / "model" / "cpp-1.pt") as archive:
        assert archive.read("archive/version").strip() == b"3"  # the oldest there is
    for name in ("py-1.pt", "cpp-1.pt"):
        assert b"site-packages" not in (tmp_path / "model" / name).read_bytes()


def plain(network):
    """What torch of today writes for a py-N.pt."""
    return {
        "model_state_dict": {
            name: torch.from_numpy(array.copy())
            for name, array in network.arrays().items()
            if name[0].isdigit()
        },
        "obs_size": network.moments.count,
        "obs_mean": network.moments.mean,
        "obs_std": network.moments.std,
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_py_files_of_any_year(feb, tmp_path, zipped):
    path = tmp_path / "py-0.pt"
    torch.save(plain(feb[0]), path, _use_new_zipfile_serialization=zipped)
    same([read_py(path)], [feb[0]])


def test_cpp_files_of_any_year(feb, fugu_feb, tmp_path):
    feb.write(tmp_path / "model")
    for path in (fugu_feb / "cpp-0.pt", tmp_path / "model" / "cpp-0.pt"):
        for ours, theirs in zip(read_cpp(path), feb[0].weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert read_meta(fugu_feb / "cpp-meta-0.json").count == feb[0].moments.count


class Nasty:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_are_not_unpickled(feb, tmp_path, zipped):
    path, trap = tmp_path / "py-0.pt", tmp_path / "trap"
    torch.save(
        {**plain(feb[0]), "obs_size": Nasty(trap)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(errors.ForeignError, match=r"py-0\.pt holds objects other .* nothing"):
        read_py(path)
    assert not trap.exists()


@pytest.fixture
def copied(fugu_feb, tmp_path):
    return shutil.copytree(fugu_feb, tmp_path / "model", copy_function=shutil.copyfile)


def test_missing_files(copied, tmp_path):
    (copied / "cpp-meta-3.json").unlink()
    (copied / "py-1.pt").unlink()
    with pytest.raises(errors.ForeignError, match=r"lacks py-1\.pt, cpp-meta-3\.json; .* copy all"):
        Ttp.read(copied)
    with pytest.raises(errors.StorageError, match="nowhere: No such file"):
        Ttp.read(tmp_path / "nowhere")
    with pytest.raises(errors.StorageError, match=r"py-1\.pt: No such file"):
        read_py(copied / "py-1.pt")


@pytest.mark.parametrize("name", ["py-2.pt", "cpp-2.pt", "cpp-meta-2.json"])
def test_damaged_files_are_named(copied, name):
    path = copied / name
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for part in (b"", whole[: len(whole) // 2], whole[:-20], rng.bytes(3000), b"<html>404</html>"):
        path.write_bytes(part)
        with pytest.raises(errors.StorageError, match=name.replace(".", r"\.")):
            Ttp.read(copied)
    # One byte in the middle: of a weight, or of a digit.
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(errors.MementoError, match=name.replace(".", r"\.")):
        Ttp.read(copied)


def test_flipped_bytes_never_leak_other_errors(copied):
    """Whatever a byte is changed to, the three readers answer with a value or an error of ours."""
    rng = np.random.default_rng(11)
    for name, read in (
        ("py-0.pt", read_py),
        ("cpp-0.pt", read_cpp),
        ("cpp-meta-0.json", read_meta),
    ):
        whole = (copied / name).read_bytes()
        ends = [*rng.integers(0, len(whole), 15), *rng.integers(0, 900, 30)]
        for place in [*ends, *(len(whole) - 1 - rng.integers(0, 900, 15))]:
            changed = bytearray(whole)
            changed[int(place)] ^= 1 << int(rng.integers(8))
            (copied / name).write_bytes(changed)
            with contextlib.suppress(errors.MementoError):
                read(copied / name)


def test_files_that_disagree(copied):
    shutil.copy(copied / "cpp-1.pt", copied / "cpp-2.pt")
    shutil.copy(copied / "cpp-meta-1.json", copied / "cpp-meta-2.json")
    with pytest.raises(errors.DamagedError, match=r"cpp-2\.pt has other weights .* cpp-meta-2"):
        Ttp.read(copied)


def test_models_of_another_shape(copied, feb, tmp_path):
    content = plain(feb[0])
    content["model_state_dict"]["2.weight"] = torch.zeros((32, 64), dtype=torch.float64)
    torch.save(content, copied / "py-0.pt")
    with pytest.raises(errors.ModelError, match=r"py-0\.pt: 2\.weight has shape \(32, 64\)"):
        Ttp.read(copied)
    content = plain(feb[0])
    content["obs_std"] = -content["obs_std"]
    torch.save(content, copied / "py-0.pt")
    with pytest.raises(errors.ModelError, match=r"py-0\.pt: a standard deviation of -"):
        read_py(copied / "py-0.pt")
    torch.save([1, 2], copied / "py-0.pt")
    with pytest.raises(errors.ForeignError, match="no predictor"):
        read_py(copied / "py-0.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.nn.Sequential(torch.nn.Linear(10, 2)).double()
        trace = torch.jit.trace(small, torch.zeros((1, 10), dtype=torch.float64))
        torch.jit.save(trace, copied / "cpp-0.pt")
    with pytest.raises(errors.ForeignError, match=r"cpp-0\.pt: holds the tensors \['0', '1'\]"):
        read_cpp(copied / "cpp-0.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"obs_size": 3, "obs_mean": [0.0] * 62}, "expected obs_size, obs_mean, obs_std"),
        ({"obs_size": 3, "obs_mean": [0.0] * 61, "obs_std": [1.0] * 62}, r"shape \(61,\)"),
        ({"obs_size": 3, "obs_mean": [float("nan")] * 62, "obs_std": [1.0] * 62}, "not finite"),
        ({"obs_size": 3, "obs_mean": ["a"] * 62, "obs_std": [1.0] * 62}, "array of numbers"),
        ({"obs_size": "3", "obs_mean": [0.0] * 62, "obs_std": [1.0] * 62}, "whole number"),
        ({"obs_size": 0, "obs_mean": [0.0] * 62, "obs_std": [1.0] * 62}, "0 rows"),
        ([1], "expected obs_size"),
    ],
)
def test_bad_normalisers(tmp_path, content, message):
    path = tmp_path / "cpp-meta-0.json"
    path.write_text(json.dumps(content))
    with pytest.raises(errors.MementoError, match=rf"cpp-meta-0\.json.*{message}"):
        read_meta(path)


def test_weights_that_are_no_numbers(feb, tmp_path):
    arrays = dict(feb[0].arrays())
    arrays["0.bias"] = np.full(64, np.inf)
    with pytest.raises(errors.ModelError, match=r"0\.bias is not finite in 64 places"):
        Network.of_arrays(arrays)
    with pytest.raises(errors.ModelError, match=r"no 0\.bias"):
        Network.of_arrays({name: a for name, a in arrays.items() if name != "0.bias"})
    with pytest.raises(errors.ModelError, match="all float32 or all float64"):
        Network(tuple(a.astype(int) for a in feb[0].weights), feb[0].moments)
    with pytest.raises(errors.ModelError, match="4 networks; expected 5"):
        Ttp(feb.networks[:4])


def test_a_write_is_whole_or_absent(feb, tmp_path, monkeypatch):
    real, calls = Path.write_bytes, itertools.count()

    def full(path, data):
        if next(calls) == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(errors.SpaceError, match="No space left"):
        feb.write(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.StorageError, match="No such file"):
        feb.write(tmp_path / "absent" / "model")


def test_a_model_is_never_overwritten(feb, tmp_path):
    (tmp_path / "model").mkdir()
    feb.write(tmp_path / "model")  # an empty folder is as good as none
    before = (tmp_path / "model" / "py-0.pt").read_bytes()
    (tmp_path / "file").touch()
    for name in ("model", "file"):
        with pytest.raises(errors.ForeignError, match="is there already"):
            Ttp.fresh().write(tmp_path / name)
    assert (tmp_path / "model" / "py-0.pt").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["file", "model"]


def test_a_read_only_value(feb):
    for array in (*feb[0].weights, feb[0].moments.mean):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert [network.dtype for network in feb] == [np.float64] * 5
    buffer = io.BytesIO()
    np.savez(buffer, **feb[0].arrays())  # arrays without Python objects
    with np.load(io.BytesIO(buffer.getvalue()), allow_pickle=False) as kept:
        same([Network.of_arrays(kept)], [feb[0]])


# ----------------------------------------------------------------------------------------------
# Without the state of TCP


def without_tcp(x):
    """Size and time of each past chunk, and the size asked about, picked by hand."""
    columns = [c for k in range(8) for c in (7 * k + 5, 7 * k + 6)] + [61]
    return x[:, columns]


def test_seventeen_inputs_are_picked_from_sixty_two():
    x = np.random.default_rng(1).lognormal(0, 1, (40, 62))
    network = Network.fresh(3, Moments.of(x, 17), inputs=17)
    assert (network.inputs, network.moments.inputs) == (17, 17)
    np.testing.assert_array_equal(network.moments.mean, Moments.of(without_tcp(x)).mean)
    found = network.probabilities(x)
    np.testing.assert_array_equal(found, network.probabilities(without_tcp(x)))
    changed = x.copy()
    changed[:, [0, 3, 4, 8, 56, 60]] = 4294.967295  # TCP may say what it likes
    np.testing.assert_array_equal(found, network.probabilities(changed))
    other = x.copy()
    other[:, 61] += 1
    assert (found != network.probabilities(other)).any()
    again = Network.of_arrays(network.arrays())
    np.testing.assert_array_equal(found, again.probabilities(x))


@pytest.mark.parametrize("start", [None, 17])
def test_seventeen_inputs_are_trained(start):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((800, 62))
    y = np.where(x[:, 61] + x[:, 54] > 0, 4, 0)
    settings = dataclasses.replace(QUICK, inputs=17, epochs=30, learning_rate=3e-3)
    first = None if start is None else Network.fresh(1, inputs=start)
    training = Training(first, x, y, settings=settings)
    while not training.done:
        training.epoch()
        if len(training.losses) == 2:
            kept = training.state()
    network = training.network
    assert network.inputs == 17
    assert training.losses[-1] < 0.4 * training.losses[0]
    np.testing.assert_array_equal(
        network.probabilities(x),
        Training(first, without_tcp(x), y, settings=settings).run().probabilities(x),
    )
    resumed = Training(first, x, y, settings=settings)
    resumed.restore(kept)
    np.testing.assert_array_equal(resumed.run().weights[0], network.weights[0])
    learner = TtpLearner(first, settings)
    learner.fit({"x": x, "y_bin": y})
    np.testing.assert_array_equal(learner.network.weights[4], network.weights[4])


def test_samples_with_sentinels_are_dropped_for_any_network():
    x = np.random.default_rng(5).random((50, 62))
    x[:10, 3] = 4294.967295
    settings = dataclasses.replace(
        QUICK, sentinels="drop", inputs=17, epochs=1, held_out=0.0, patience=None
    )
    network = Training(None, x, np.zeros(50, int), settings=settings).run()
    assert network.moments.count == 40


def test_seventeen_inputs_in_files(tmp_path):
    rng = np.random.default_rng(3)
    moments = Moments.of(rng.random((30, 17)))
    ttp = Ttp(tuple(Network.fresh(h, moments, "f8") for h in range(5)))
    assert ttp.inputs == 17
    ttp.write(tmp_path / "model")
    same(Ttp.read(tmp_path / "model"), ttp)
    scripted = torch.jit.load(tmp_path / "model" / "cpp-2.pt")
    x = rng.random((4, 17))
    row = torch.from_numpy(ttp[2].moments.standardise(x, np.float64))
    np.testing.assert_allclose(scripted(row).numpy(), ttp[2].logits(x), rtol=1e-9)
    meta = json.loads((tmp_path / "model" / "cpp-meta-2.json").read_text())
    assert len(meta["obs_mean"]) == len(meta["obs_std"]) == 17


def test_networks_of_different_inputs_do_not_mix():
    wide, narrow = Network.fresh(), Network.fresh(inputs=17)
    with pytest.raises(errors.ModelError, match="have the same"):
        Ttp((*[wide] * 4, narrow))
    with pytest.raises(errors.ModelError, match="of 17 inputs meet those of 62"):
        narrow.moments.merged(wide.moments)
    with pytest.raises(errors.ModelError, match="meet those of"):
        narrow.rebased(wide.moments)
    with pytest.raises(errors.ModelError, match=r"0\.weight has shape \(64, 62\); expected"):
        Network(wide.weights, narrow.moments)
    with pytest.raises(errors.SchemaError, match=r"shape \(2, 17\); expected .*\(n, 62\)"):
        wide.logits(np.zeros((2, 17)))
    with pytest.raises(errors.SettingError, match="inputs=20"):
        Network.fresh(inputs=20)
    with pytest.raises(errors.SettingError, match="inputs is 20; expected 62 or 17"):
        dataclasses.replace(QUICK, inputs=20)
    with pytest.raises(errors.ModelError, match=r"std has shape \(17,\); expected \(62,\)"):
        Moments(1, np.zeros(62), np.ones(17))
