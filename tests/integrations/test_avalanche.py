"""The storage policy in real strategies of Avalanche, where that is: `make unit-avalanche`.

Avalanche imports torchvision, and the wheel on the package index is built for CUDA: beside a
PyTorch without it, its operators are missing. Nothing here uses them, so the two that are asked for
while it is imported are declared.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import re
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

if importlib.util.find_spec("avalanche") is None:
    pytest.skip("Avalanche is not here: make unit-avalanche", allow_module_level=True)
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Avalanche imports of old
    DECLARED = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            DECLARED.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import (
        _make_taskaware_classification_dataset,
        _make_taskaware_tensor_classification_dataset,
    )
    from avalanche.training import Naive
    from avalanche.training.plugins import ReplayPlugin

from memento import (
    FIFO,
    ClassBalancedReservoir,
    JensenShannon,
    KCenterGreedy,
    Memento,
    Memory,
)
from memento.errors import ForeignError, MissingExtraError, SchemaError, SettingError
from memento.integrations.avalanche import MementoBuffer

pytestmark = pytest.mark.filterwarnings("ignore:::avalanche")

CENTRES = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])


def data(classes: tuple[int, ...], count: int, seed: int = 0, task: int = 0, **transforms: Any):
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes)[torch.randint(len(classes), (count,), generator=generator)]
    x = CENTRES[y] + 0.3 * torch.randn(count, 2, generator=generator)
    return _make_taskaware_tensor_classification_dataset(
        x, y, task_labels=[task] * count, targets=y.tolist(), **transforms
    )


def benchmark(count: int = 200) -> Any:
    """Two classes, then two others."""
    return benchmark_from_datasets(
        train=[data((0, 1), count), data((2, 3), count, seed=1)],
        test=[data((0, 1), 100, seed=2), data((2, 3), 100, seed=3)],
    )


def strategy(buffer: MementoBuffer | None) -> Any:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    plugins = []
    if buffer is not None:
        plugins = [ReplayPlugin(mem_size=buffer.max_size, storage_policy=buffer)]
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train_mb_size=20,
        train_epochs=15,
        plugins=plugins,
    )


def accuracy(model: Any, dataset: Any) -> float:
    x, y = zip(*[(item[0], item[1]) for item in dataset], strict=True)
    return float((model(torch.stack(x)).argmax(1) == torch.tensor(y)).double().mean())


def test_replay_with_it_does_not_forget() -> None:
    stream = benchmark()
    found = {}
    for name, buffer in (("none", None), ("ours", MementoBuffer(40))):
        learner = strategy(buffer)
        for experience in stream.train_stream:
            learner.train(experience)
        found[name] = [accuracy(learner.model, e.dataset) for e in stream.test_stream]
    assert found["none"][0] < 0.7
    assert min(found["ours"]) > 0.9
    assert np.bincount(buffer.memory.samples["y"]).tolist() == [10, 10, 10, 10]
    assert len(buffer.buffer) == 40


@pytest.mark.parametrize("policy", [FIFO(), ClassBalancedReservoir("y"), KCenterGreedy("x")])
def test_it_holds_what_a_memory_holds(policy: Any) -> None:
    buffer, memory = MementoBuffer(30, policy, seed=5), Memory(30, policy, seed=5)
    for experience in benchmark(100).train_stream:
        buffer.post_adapt(None, experience)
        items = [experience.dataset[i] for i in range(100)]
        memory.insert(
            x=torch.stack([item[0] for item in items]),
            y=np.array([int(item[1]) for item in items]),
            task=np.zeros(100, int),
        )
    assert np.array_equal(buffer.memory.samples["x"], memory.samples["x"])
    held = buffer.buffer
    assert list(held.targets) == memory.samples["y"].tolist()
    x, y, task = held[3]
    assert (int(y), int(task)) == (memory.samples["y"][3], 0)
    assert np.array_equal(x, memory.samples["x"][3])


def test_annotations_are_made_anew() -> None:
    seen: list[int] = []

    def annotate(learner: Any, samples: Any) -> dict[str, Any]:
        seen.append(samples.size)
        with torch.no_grad():
            logits = learner.model(torch.tensor(samples["x"]))
        return {"yhat": torch.softmax(logits, 1)}

    policy = Memento([JensenShannon.of_probabilities("yhat")], batch_size=4)
    buffer = MementoBuffer(40, policy, annotate=annotate)
    learner = strategy(buffer)
    for experience in benchmark(100).train_stream:
        learner.train(experience)
    assert seen == [100, 40, 100]
    assert np.allclose(
        buffer.memory.samples["yhat"], annotate(learner, buffer.memory.samples)["yhat"]
    )


def test_transforms() -> None:
    """Kept as evaluation sees them; or raw, and transformed when they are replayed."""
    groups = {"train": (lambda x: x + 100, None), "eval": (lambda x: 2 * x, None)}
    raw = data((0, 1), 50)
    source = data((0, 1), 50, transform_groups=groups)

    class Experience:
        dataset = source

    evaluated, own = MementoBuffer(50), MementoBuffer(50, transform=lambda x: -x)
    for buffer in (evaluated, own):
        buffer.post_adapt(None, Experience)
    x = torch.stack([item[0] for item in raw])
    assert torch.equal(torch.tensor(evaluated.memory.samples["x"]), 2 * x)
    assert torch.equal(torch.tensor(own.memory.samples["x"]), x)
    assert torch.equal(own.buffer[7][0], -x[7])


def test_pictures() -> None:
    """They become tensors with the colours first, which the transform gets."""
    image = pytest.importorskip("PIL.Image")

    class Pictures(torch.utils.data.Dataset):
        targets: ClassVar[list[int]] = [0, 1, 1]

        def __len__(self) -> int:
            return 3

        def __getitem__(self, row: int) -> Any:
            return image.new("RGB", (5, 4), (10 * row, 0, 255)), self.targets[row]

    class Experience:
        dataset = _make_taskaware_classification_dataset(Pictures(), task_labels=7)

    buffer = MementoBuffer(10, transform=lambda x: x / 255)
    buffer.post_adapt(None, Experience)
    x, y, task = buffer.buffer[1]
    assert (x.shape, x[0, 0, 0] * 255, x[2, 0, 0], y, task) == ((3, 4, 5), 10, 1, 1, 7)


def test_experiences_can_go() -> None:
    """Avalanche's own buffers keep the whole datasets of all experiences."""

    class Experience:
        dataset = data((0, 1), 50)

    buffer, alive = MementoBuffer(10), weakref.ref(Experience.dataset)
    buffer.post_adapt(None, Experience)
    del Experience.dataset
    gc.collect()
    assert alive() is None
    assert len(buffer.buffer) == 10


def test_a_strategy_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """As docs/integrations.md says: the buffer as a folder, the rest by PyTorch."""
    first, second = benchmark().train_stream
    straight = strategy(MementoBuffer(40, seed=1))
    straight.train(first)
    buffer = straight.plugins[0].storage_policy
    buffer.save(tmp_path / "buffer")
    torch.save(straight.model.state_dict(), tmp_path / "model.pt")

    again = strategy(MementoBuffer(40, seed=9))
    again.model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    again.plugins[0].storage_policy.load(tmp_path / "buffer")
    for learner in (straight, again):
        torch.manual_seed(7)
        learner.train(second)
    held = [learner.plugins[0].storage_policy.memory.samples for learner in (straight, again)]
    assert np.array_equal(held[0]["x"], held[1]["x"])
    for one, other in zip(straight.model.parameters(), again.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    for other in (MementoBuffer(41), MementoBuffer(40, FIFO())):
        with pytest.raises(ForeignError):
            other.load(tmp_path / "buffer")


def test_what_goes_wrong() -> None:
    buffer = MementoBuffer(10)
    for wrong in ({"max_size": 0}, {"max_size": 5, "policy": "fifo"},
                  {"max_size": 5, "annotate": 3}, {"max_size": 5, "transform": 3}):  # fmt: skip
        with pytest.raises(SettingError):
            MementoBuffer(**wrong)
    with pytest.raises(SettingError, match="cannot become one of 20"):
        buffer.resize(None, 20)
    buffer.resize(None, 10)
    with pytest.raises(SettingError, match="chosen by the policy"):
        buffer.buffer = [1]

    class Experience:
        dataset = data((0, 1), 20, transform_groups={
            "train": (None, None), "eval": (lambda x: x[: 1 + int(x[0] > 0)], None)})  # fmt: skip

    with pytest.raises(SchemaError, match="one shape"):
        buffer.post_adapt(None, Experience)
    assert len(buffer.memory) == len(buffer.buffer) == 0


def test_without_avalanche(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "avalanche.benchmarks.utils", None)
    monkeypatch.delitem(sys.modules, "memento.integrations.avalanche")
    with pytest.raises(MissingExtraError, match="avalanche-lib"):
        importlib.import_module("memento.integrations.avalanche")


def test_the_example(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    """That of docs/integrations.md, which runs only where Avalanche is."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (example,) = [block for block in blocks if "MementoBuffer" in block]
    exec(compile(example, "the example", "exec"), {})  # noqa: S102
    assert "held [50 50 50 50]" in capsys.readouterr().out
