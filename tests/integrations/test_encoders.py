"""Functions and layers as the space that samples are compared in."""

from __future__ import annotations

import numpy as np
import pytest

from memento import Every, Memento, Memory, Samples, SlicedWasserstein, run
from memento.errors import ModelError, SchemaError, SettingError
from memento.integrations.encoders import Encoded, Encoder
from memento.integrations.sklearn import SklearnLearner
from memento.integrations.torch_encoder import torch_encoder
from memento.learner import digest_of_state

torch = pytest.importorskip("torch")
LogisticRegression = pytest.importorskip("sklearn.linear_model").LogisticRegression


def net():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2)
    )


def test_a_layer_is_what_comes_out_of_it():
    module, x = net(), np.random.default_rng(1).normal(size=(10, 4))
    expected = np.maximum(
        x @ module[0].weight.detach().numpy().T + module[0].bias.detach().numpy(), 0
    )
    encoder = torch_encoder(module, "1", rows=3)
    np.testing.assert_allclose(encoder.encode(x), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(x.astype(np.float32)), expected, atol=1e-6)
    assert encoder.encode(x[:0]).shape == (0, 3)
    assert torch_encoder(module).encode(x).shape == (10, 2)
    assert module.training  # as it was; dropout would have changed what came out
    assert not module[1]._forward_hooks


def test_the_version_is_that_of_the_weights():
    module = net()
    encoder = torch_encoder(module, "1")
    before = encoder.version
    assert torch_encoder(net(), "1").version == before
    assert torch_encoder(net(), "0").version != before
    with torch.no_grad():
        module[0].weight += 1
    assert encoder.version != before


def test_a_layer_that_works_in_place_behind_it_changes_nothing():
    torch.manual_seed(1)
    linear = torch.nn.Linear(4, 3)
    module = torch.nn.Sequential(linear, torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 2))
    x = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    expected = linear(torch.from_numpy(x)).detach().numpy()
    assert expected.min() < 0
    np.testing.assert_allclose(torch_encoder(module, "0").encode(x), expected, atol=1e-6)


def test_what_is_frozen_stays_so():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    module[1].eval()
    torch_encoder(module).encode(np.ones((5, 4)))
    assert [part.training for part in module.modules()] == [True, True, False]


def test_weights_of_types_that_numpy_lacks():
    def halved(value):
        torch.manual_seed(1)
        module = torch.nn.Linear(4, 3).to(torch.bfloat16)
        module.register_buffer("count", torch.tensor(value, dtype=torch.bfloat16))
        return torch_encoder(module)

    assert halved(1.0).encode(np.ones((2, 4))).shape == (2, 3)
    assert halved(1.0).version == halved(1.0).version != halved(2.0).version


@pytest.mark.parametrize(("module", "layer"), [(5, ""), (net(), "9"), (net(), "head")])
def test_what_is_no_layer(module, layer):
    with pytest.raises(SettingError, match=r"expected a torch\.nn\.Module|there are '0', '1'"):
        torch_encoder(module, layer)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x[:, 0], r"float64 of shape \(4,\)"),
        (lambda x: x[:1], "for 4 inputs"),
        (lambda x: x * np.nan, "NaN or infinite"),
        (lambda x: x.nothing, "failed on inputs of shape"),
        (lambda x: x.astype(str), "expected a row of numbers"),
    ],
)
def test_functions_that_encode_nothing(function, words):
    with pytest.raises(ModelError, match=words):
        Encoder(function, version="bad").encode(np.ones((4, 2)))


def test_parts_of_other_widths():
    encoder = Encoder(lambda x: np.ones((len(x), len(x))), version="v", rows=3)
    with pytest.raises(ModelError, match="vectors of 2 and 3 numbers for parts of 3 inputs"):
        encoder.encode(np.ones((5, 4)))


def test_a_version_that_is_no_text():
    with pytest.raises(ModelError, match=r"version gives 3; expected a text"):
        Encoder(np.abs, version=lambda: 3).version  # noqa: B018


def test_settings_of_an_encoder():
    with pytest.raises(SettingError, match="tells this encoder from others"):
        Encoder(np.mean, version="")
    with pytest.raises(SettingError, match="function is 5; expected a function"):
        Encoder(5, version="five")
    with pytest.raises(SettingError, match="expected a Learner"):
        Encoded(LogisticRegression(), Encoder(np.abs, version="abs"))
    with pytest.raises(SchemaError, match=r"no column 'x' \(the inputs of the encoder\)"):
        Encoder(np.abs, version="abs").add(Samples(y=[1]))


def days(count=4):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(count, 60, 4))
    return [(str(i), {"x": unit, "y": (unit[:, 0] > 0).astype(int)}) for i, unit in enumerate(x)]


def parts(version="first two"):
    policy = Memento([SlicedWasserstein.of_vectors("z", 8, 2)], batch_size=2, missing="skip")
    encoder = Encoder(lambda x: x[:, :2], version)
    return Memory(50, policy, seed=0), Encoded(SklearnLearner(LogisticRegression()), encoder)


def test_in_the_loop(tmp_path):
    memory, learner = parts()
    list(run(days(), memory, learner, Every(2), checkpoint=tmp_path / "run"))
    assert np.array_equal(memory.samples["z"], memory.samples["x"][:, :2])
    assert {"yhat", "loss"} <= set(memory.samples)
    again, other = parts()
    steps = list(run(days(), again, other, Every(2), checkpoint=tmp_path / "run"))
    assert all(step.restored for step in steps)
    assert np.array_equal(again.samples["z"], memory.samples["z"])
    with pytest.raises(ModelError, match="of the encoder 'first two', this one is 'others'"):
        list(run(days(), *parts("others"), Every(2), checkpoint=tmp_path / "run"))


def test_models_with_another_encoder_are_others():
    _, first = parts()
    _, second = parts("others")
    for learner in (first, second):
        learner.fit(Samples(days(1)[0][1]))
    assert digest_of_state(first.learner.state()) == digest_of_state(second.learner.state())
    assert digest_of_state(first.state()) != digest_of_state(second.state())
