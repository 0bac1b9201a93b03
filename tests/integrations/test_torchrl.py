"""The writer in real replay buffers of TorchRL."""

from __future__ import annotations

import importlib
import pickle
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("torchrl")
import torch
from tensordict import TensorDict
from torchrl.data import (
    LazyMemmapStorage,
    LazyTensorStorage,
    ListStorage,
    TensorDictReplayBuffer,
)

from memento import (
    FIFO,
    ClassBalancedReservoir,
    DensityReservoir,
    JensenShannon,
    KCenterGreedy,
    Memento,
    Memory,
    Reservoir,
)
from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    MissingExtraError,
    SchemaError,
    SettingError,
)
from memento.integrations.torchrl import MementoWriter


def transitions(count: int, seed: int = 0, start: int = 0) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    observation = torch.rand(count, 2, generator=generator)
    return TensorDict(
        {
            "observation": observation,
            "number": torch.arange(start, start + count),
            "next": {
                "observation": observation + 0.1,
                "reward": torch.rand(count, 1, generator=generator),
                "done": torch.arange(count)[:, None] % 10 == 0,
            },
        },
        [count],
    )


def buffer(policy: Any, capacity: int = 50, storage: Any = None, **settings: Any) -> Any:
    settings = {"batch_size": 8, **settings}
    columns = settings.pop("columns", None)
    return TensorDictReplayBuffer(
        storage=LazyTensorStorage(capacity) if storage is None else storage,
        writer=MementoWriter(policy, columns, seed=3),
        **settings,
    )


POLICIES = [
    (KCenterGreedy("observation"), None),
    (Reservoir(), {}),
    (FIFO(), {}),
    (ClassBalancedReservoir("done"), {"done": ("next", "done")}),
    (
        DensityReservoir([JensenShannon.of_values("reward")], batch_size=4),
        {"reward": ("next", "reward")},
    ),
    # Drops whole batches, so it holds fewer than it may, now and then fewer than before.
    (
        Memento([JensenShannon.of_values("reward")], batch_size=16, remainder="drop"),
        {"reward": ("next", "reward")},
    ),
]
each_policy = pytest.mark.parametrize(
    ("policy", "columns"), POLICIES, ids=[type(policy).__name__ for policy, _ in POLICIES]
)


@each_policy
def test_it_holds_what_a_memory_holds(policy: Any, columns: Any) -> None:
    """All keys of what is kept lie in the storage, once each and without gaps."""
    kept = buffer(policy, columns=columns)
    memory = Memory(50, policy, seed=3)
    for i, count in enumerate([30, 7, 40, 100, 1, 60]):
        data = transitions(count, seed=i, start=1000 * i)
        places = kept.extend(data)
        memory.insert(
            observation=data["observation"],
            number=data["number"],
            reward=data["next", "reward"][:, 0],
            done=data["next", "done"][:, 0],
        )
        assert len(kept) == len(memory)
        held = kept[:]
        order = held["number"].argsort()
        want = np.argsort(memory.samples["number"])
        for found, column in (
            (held["number"], "number"),
            (held["observation"], "observation"),
            (held["next", "reward"][:, 0], "reward"),
        ):
            assert np.array_equal(found[order], memory.samples[column][want])
        assert np.allclose(held["next", "observation"], held["observation"] + 0.1)
        # Places are those where the fresh samples lie now.
        chosen = places[places >= 0]
        assert torch.equal(kept[:]["number"][chosen], data["number"][places >= 0])
        assert int((held["number"] >= 1000 * i).sum()) == len(chosen)
    if policy.kind not in ("k-center-greedy", "memento", "fifo"):
        weights = kept.writer.weights
        found = dict(zip(kept[:]["number"].tolist(), weights.tolist(), strict=True))
        wanted = dict(zip(memory.samples["number"].tolist(), memory.weights, strict=True))
        assert found == pytest.approx(wanted)


def test_coverage_outlives_a_round_robin() -> None:
    kept, latest = (
        buffer(KCenterGreedy("observation")),
        TensorDictReplayBuffer(storage=LazyTensorStorage(50), batch_size=8),
    )
    early, late = transitions(50), transitions(500, seed=1)
    early["observation"] += 10
    for memory in (kept, latest):
        memory.extend(early.clone())
        memory.extend(late.clone())
    assert int((latest[:]["observation"] > 5).all(dim=1).sum()) == 0
    assert int((kept[:]["observation"] > 5).all(dim=1).sum()) >= 10
    assert kept.writer.weights is None


def test_one_at_a_time() -> None:
    kept = buffer(FIFO(), 3, columns={})
    assert [kept.add(row) for row in transitions(5).unbind(0)] == [0, 1, 2, 0, 1]
    assert kept[:]["number"].tolist() == [3, 4, 2]
    balanced = buffer(ClassBalancedReservoir("number"), 2)
    row = transitions(1)[0]
    found = [balanced.add(row.clone()) for _ in range(20)]
    assert None in found
    assert len(balanced) == 2
    assert balanced.write_count == sum(place is not None for place in found)


def test_memmap_storages_and_samples(tmp_path: Path) -> None:
    storage = LazyMemmapStorage(20, scratch_dir=tmp_path)
    kept = buffer(Reservoir(), storage=storage, columns={}, batch_size=200)
    for i in range(5):
        kept.extend(transitions(13, seed=i, start=100 * i))
    batch = kept.sample()
    assert set(batch["number"].tolist()) <= set(kept[:]["number"].tolist())
    assert np.allclose(batch["next", "observation"], batch["observation"] + 0.1)


def test_who_watches_the_storage_hears_what_was_written() -> None:
    """Priorities, say, of samples that stay where they are are left alone."""

    class Watcher:
        marked: ClassVar[list[int]] = []

        def mark_update(self, index: Any) -> None:
            self.marked += index.tolist()

    kept = buffer(FIFO(), 20, columns={})
    kept._storage.attach(Watcher())
    kept.extend(transitions(20))
    assert sorted(Watcher.marked) == list(range(20))
    Watcher.marked.clear()
    places = kept.extend(transitions(4, start=50))
    assert Watcher.marked == places.tolist() == [0, 1, 2, 3]
    # Only one in ten of these is kept, and the others have no place.
    picky = buffer(Reservoir(), 20, columns={})
    picky.extend(transitions(180))
    picky._storage.attach(Watcher())
    Watcher.marked.clear()
    places = picky.extend(transitions(20))
    assert sorted(Watcher.marked) == sorted(places[places >= 0].tolist())
    assert len(Watcher.marked) < 15


@each_policy
@pytest.mark.parametrize("way", ["state_dict", "torch.save", "dumps", "pickle"])
def test_it_goes_on_exactly(policy: Any, columns: Any, way: str, tmp_path: Path) -> None:
    straight = buffer(policy, columns=columns)
    for i in range(3):
        straight.extend(transitions(40, seed=i, start=100 * i))
    other = buffer(policy, columns=columns)
    if way == "state_dict":
        other.load_state_dict(straight.state_dict())
    elif way == "torch.save":
        torch.save(straight.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    elif way == "dumps":
        straight.dumps(tmp_path)
        straight.dumps(tmp_path)
        other.loads(tmp_path)
        assert len(Memory.load(tmp_path / "writer" / "memory")) == len(straight)
    else:
        other = pickle.loads(pickle.dumps(straight))  # noqa: S301
    for i in range(3, 6):
        data = transitions(40, seed=i, start=100 * i)
        assert torch.equal(straight.extend(data.clone()), other.extend(data))
    assert torch.equal(straight[:]["number"], other[:]["number"])
    assert straight.write_count == other.write_count > 0


def test_an_emptied_buffer() -> None:
    kept = buffer(KCenterGreedy("observation"))
    kept.extend(transitions(80))
    kept.empty()
    assert len(kept) == len(kept.writer.memory) == kept.write_count == 0
    kept.extend(transitions(7))
    assert len(kept) == 7
    kept.empty(empty_write_count=False)
    assert kept.write_count == 7
    MementoWriter(FIFO())._empty()


def test_what_goes_wrong_changes_nothing() -> None:
    kept = buffer(KCenterGreedy("observation"))
    kept.extend(transitions(60))
    before, memory = kept[:].clone(), kept.writer.memory.samples
    bad = transitions(30, seed=1)
    bad["observation"][3] = torch.nan
    with pytest.raises(DomainError, match="observation"):
        kept.extend(bad)
    narrow = transitions(30, seed=1)
    narrow["next", "reward"] = torch.zeros(30, 2)
    with pytest.raises(SchemaError, match=r"reward.*of shape \(2,\)"):
        kept.extend(narrow)
    with pytest.raises(SchemaError, match="'number' is absent"):
        kept.extend(transitions(30).exclude("number"))
    with pytest.raises(SchemaError, match=r"reads 'observation'.*next.*columns="):
        kept.extend(transitions(30).exclude("observation"))
    for wrong in (torch.zeros(3), [1, 2], TensorDict({"observation": torch.zeros(2)}, [])):
        with pytest.raises(SchemaError, match="offer a tensordict"):
            kept.writer.extend(wrong)
    with pytest.raises(SchemaError, match="offer a tensordict"):
        kept.writer.add(torch.zeros(3))
    assert (kept[:] == before).all()
    assert np.array_equal(kept.writer.memory.samples["slot"], memory["slot"])
    assert kept.write_count == 60 - 10
    assert kept.extend(transitions(0)).shape == (0,)


def test_a_storage_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = buffer(KCenterGreedy("observation"))
    kept.extend(transitions(60))
    memory = kept.writer.memory.samples

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kept._storage, "set", full)
        with pytest.raises(OSError, match="No space"):
            kept.extend(transitions(60, seed=1))
    assert np.array_equal(kept.writer.memory.samples["slot"], memory["slot"])
    assert np.array_equal(kept.writer.memory.samples["observation"], memory["observation"])
    straight = buffer(KCenterGreedy("observation"))
    straight.extend(transitions(60))
    for one in (kept, straight):
        one.extend(transitions(60, seed=2))
    assert torch.equal(kept[:]["observation"], straight[:]["observation"])


def test_wrong_settings() -> None:
    with pytest.raises(SettingError, match="policy"):
        MementoWriter("fifo")  # type: ignore[arg-type]
    for columns in ({"slot": "observation"}, ["observation"], {1: "observation"}):
        with pytest.raises(SettingError, match="columns"):
            MementoWriter(FIFO(), columns)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="no storage yet"):
        _ = MementoWriter(FIFO()).memory
    for storage in (ListStorage(10), LazyTensorStorage(10, ndim=2)):
        with pytest.raises(SettingError, match="LazyTensorStorage or LazyMemmapStorage"):
            buffer(FIFO(), storage=storage)
    filled = LazyTensorStorage(10)
    TensorDictReplayBuffer(storage=filled).extend(transitions(4))
    with pytest.raises(SettingError, match="holds 4 samples that the writer never saw"):
        buffer(FIFO(), storage=filled)
    writer = MementoWriter(FIFO())
    writer.register_storage(LazyTensorStorage(10))
    with pytest.raises(SettingError, match="one writer a buffer"):
        writer.register_storage(LazyTensorStorage(11))
    assert repr(writer).startswith("MementoWriter(FIFO()")


def test_states_of_others(tmp_path: Path) -> None:
    kept = buffer(KCenterGreedy("observation"))
    kept.extend(transitions(60))
    state, writer = kept.state_dict(), kept.writer.state_dict()
    with pytest.raises(ForeignError, match="policy differs"):
        buffer(KCenterGreedy("number")).load_state_dict(state)
    with pytest.raises(ForeignError, match="50 places with 50 samples, this one has 40 with 0"):
        buffer(KCenterGreedy("observation"), 40).writer.load_state_dict(writer)
    for bad in ({}, {**writer, "arrays": torch.zeros(3, dtype=torch.uint8)},
                {**writer, "documents": "{"}, {**writer, "documents": 3}):  # fmt: skip
        with pytest.raises(DamagedError, match="no state of a MementoWriter"):
            kept.writer.load_state_dict(bad)
    with pytest.raises(SettingError, match="write_count"):
        kept.writer.load_state_dict({**writer, "write_count": -1})
    kept.dumps(tmp_path)
    (tmp_path / "writer" / "writer.json").write_text("[]")
    with pytest.raises(DamagedError, match="holds no count"):
        kept.writer.loads(tmp_path / "writer")
    other = buffer(KCenterGreedy("observation"))
    other.extend(transitions(60))
    other.writer.memory.annotate(slot=np.zeros(50, int))
    with pytest.raises(DamagedError, match="places"):
        kept.writer.load_state_dict(other.writer.state_dict())
    assert len(kept) == 50  # as it was after all of that


def test_workers_cannot_share_it() -> None:
    writer = MementoWriter(FIFO())
    process = torch.multiprocessing.get_context("spawn").Process(target=print, args=(writer,))
    with pytest.raises(SettingError, match="cannot be shared between processes"):
        process.start()


def test_without_torchrl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchrl.data", None)
    monkeypatch.delitem(sys.modules, "memento.integrations.torchrl")
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[torchrl\]"'):
        importlib.import_module("memento.integrations.torchrl")


def test_the_example_trains(capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/integrations.md says: with coverage, an agent knows both rooms."""
    page = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (example,) = [block for block in blocks if "MementoWriter" in block]
    exec(compile(example, "the example", "exec"), {})  # noqa: S102
    last = capsys.readouterr().out.strip().splitlines()[-1]
    left, right = map(int, re.fullmatch(r"MementoWriter .*: (\d+).*: (\d+)}", last).groups())
    assert min(left, right) >= 80
