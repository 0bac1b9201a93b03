"""The dataset over a memory, with PyTorch's own loaders, workers and samplers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memento
from memento.errors import DomainError, RowError, SchemaError, SettingError, StorageError
from memento.samples import Samples

torch = pytest.importorskip("torch")

from memento.integrations.torch import MemoryDataset  # noqa: E402

DataLoader = torch.utils.data.DataLoader


def table(count: int) -> Samples:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 2)).astype(np.float32)
    return Samples(x=x, y=rng.integers(0, 3, count), stream=np.arange(count) // 20)


@pytest.fixture
def weighted() -> memento.Memory:
    """Half of what is held is rare in the stream, so it weighs little."""
    memory = memento.Memory(100, memento.ClassBalancedReservoir("y"), seed=0)
    y = (np.arange(1000) % 10 == 0).astype(int)
    memory.insert(x=np.arange(1000.0)[:, None], y=y)
    return memory


def doubled(item: Any) -> Any:
    return {**item, "x": 2 * item["x"], "text": str(int(item["y"]))}


def test_serves_a_loader() -> None:
    samples = table(10)
    loader = DataLoader(MemoryDataset(samples, ("x", "y")), batch_size=4)
    batches = list(loader)
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    np.testing.assert_array_equal(torch.cat([x for x, _ in batches]).numpy(), samples["x"])
    np.testing.assert_array_equal(torch.cat([y for _, y in batches]).numpy(), samples["y"])


def test_reads_a_memory_as_it_is_now() -> None:
    class Held:
        samples = table(5)

    held = Held()
    dataset = MemoryDataset(held, columns=("y",))
    held.samples = table(7)
    assert len(dataset) == 5
    assert len(dataset[0]) == 1


def test_rows_out_of_range() -> None:
    dataset = MemoryDataset(table(3), ("x", "y"))
    assert torch.equal(dataset[-1][0], dataset[2][0])
    with pytest.raises(IndexError, match="row 3 of 3"):
        dataset[3]


def test_missing_column() -> None:
    with pytest.raises(SchemaError, match=r"no columns \['z'\]"):
        MemoryDataset(table(3), columns=("x", "z"))


def test_dicts_of_all_columns() -> None:
    days = np.arange("2024-01-01", "2024-01-05", dtype="M8[D]")
    big = np.array([1, 2, 3, 4], ">i4")
    dataset = MemoryDataset({"x": np.ones((4, 2)), "name": ["a", "b", "c", "d"], "day": days,
                             "big": big})  # fmt: skip
    item = dataset[1]
    assert [*item] == ["x", "name", "day", "big"]
    assert (item["name"], item["day"], int(item["big"])) == ("b", days[1], 2)
    assert dataset[1:3]["x"].shape == (2, 2)
    assert dataset[[3, 0]]["name"].tolist() == ["d", "a"]
    for batch in DataLoader(dataset, batch_size=3):
        assert isinstance(batch["x"], torch.Tensor)
        np.testing.assert_array_equal(batch["day"], days[: len(batch["day"])])
        break


def test_slices_are_whole_columns() -> None:
    samples = table(6)
    x, y = MemoryDataset(samples, ("x", "y"))[2:4]
    np.testing.assert_array_equal(x, samples["x"][2:4])
    np.testing.assert_array_equal(y, samples["y"][2:4])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_whoever_asks(workers: int) -> None:
    """Whole batches by default; items for a collate_fn of the user's own."""
    dataset = MemoryDataset(table(5), ("x", "stream"))
    plain = [(x.tolist(), int(s)) for x, s in (dataset[i] for i in range(5))]
    loader = DataLoader(dataset, batch_size=2, num_workers=workers)
    found = [(x.tolist(), int(s)) for b in loader for x, s in zip(*b, strict=True)]
    assert found == plain
    own = DataLoader(dataset, batch_size=2, collate_fn=list)
    assert [(x.tolist(), int(s)) for batch in own for x, s in batch] == plain
    part = torch.utils.data.Subset(dataset, [4, 2])
    (batch,) = DataLoader(part, batch_size=2)
    assert [(x.tolist(), int(s)) for x, s in zip(*batch, strict=True)] == [plain[4], plain[2]]


def test_datasets_are_added() -> None:
    dataset = MemoryDataset({"x": [0.5, 1.5], "name": ["a", "b"]})
    both = dataset + dataset
    assert len(both) == 4
    loader = DataLoader(both, batch_size=4, collate_fn=MemoryDataset.collate)
    (batch,) = loader
    assert batch["x"].tolist() == [0.5, 1.5, 0.5, 1.5]
    assert batch["name"].tolist() == ["a", "b", "a", "b"]


@pytest.mark.parametrize("workers", [None, "fork", "spawn"])
def test_of_a_folder(workers: str | None, tmp_path: Path) -> None:
    """The same as of the memory; what workers get is the name of the folder."""
    size = 4_000
    memory = memento.Memory(size, memento.FIFO())
    x = np.random.default_rng(0).normal(size=(size, 50))
    memory.insert(x=x, y=np.arange(size), day=np.full(size, "2024-01-01", "M8[D]"),
                  name=["a", "b"] * (size // 2))  # fmt: skip
    memory.save(tmp_path)
    held, stored = MemoryDataset(memory), MemoryDataset(str(tmp_path))
    assert len(pickle.dumps(stored)) < 10_000
    for rows in (3, -1, slice(2, 5), [7, 1]):
        for name, part in held[rows].items():
            found = stored[rows][name]
            assert type(found) is type(part), name
            np.testing.assert_array_equal(found, part)
    stored[0:2]["x"][:] = 0.0  # a copy, which anybody may change
    loader = DataLoader(
        stored,
        batch_size=1_000,
        num_workers=0 if workers is None else 2,
        multiprocessing_context=workers,
    )
    for one, other in zip(DataLoader(held, batch_size=1_000), loader, strict=True):
        assert torch.equal(one["x"], other["x"])
        assert torch.equal(one["y"], other["y"])


def test_of_a_folder_that_was_saved_to_since(tmp_path: Path) -> None:
    memory = memento.Memory(10, memento.FIFO())
    memory.insert(x=[[1.0]], y=[1])
    memory.save(tmp_path)
    dataset = MemoryDataset(tmp_path)
    pickled = pickle.dumps(dataset)
    memory.insert(x=[[2.0]], y=[2])
    memory.save(tmp_path)
    assert dataset[0]["y"] == 1
    assert len(dataset) == 1
    with pytest.raises(StorageError, match="generation 2, the dataset was made of 1"):
        pickle.loads(pickled)  # noqa: S301
    with pytest.raises(StorageError, match="does not exist"):
        MemoryDataset(tmp_path / "absent")


def test_nothing_at_all() -> None:
    with pytest.raises(SchemaError, match="there are no samples"):
        MemoryDataset({})
    assert len(MemoryDataset({"x": []})) == 0


def test_a_table_with_a_column_called_samples() -> None:
    pd = pytest.importorskip("pandas")
    dataset = MemoryDataset(pd.DataFrame({"samples": [1, 2], "weights": [3, 4]}))
    assert dataset[1] == {"samples": 2, "weights": 4}
    with pytest.raises(SettingError, match="no weights are known"):
        _ = dataset.weights


@pytest.mark.parametrize("columns", [None, ("x", "y")])
def test_rows_in_every_form(columns: tuple[str, ...] | None) -> None:
    samples = table(6)
    dataset = MemoryDataset(samples, columns)
    mask = [True, False, False, True, False, True]
    for rows in ([0, 3, 5], mask, torch.tensor([0, 3, 5]), np.array([0, -3, -1], np.int8)):
        found = dataset[rows]
        x = found["x"] if columns is None else found[0]
        np.testing.assert_array_equal(x, samples["x"][[0, 3, 5]])
    (backwards,) = MemoryDataset(samples, ("y",))[::-2]
    assert backwards.tolist() == samples["y"][::-2].tolist()
    (nothing,) = MemoryDataset(samples, ("x",))[[]]
    assert nothing.shape == (0, 2)
    assert int(MemoryDataset(samples, ("y",))[torch.tensor(2)][0]) == samples["y"][2]
    for wrong in ([0, 6], [-7], 6, [[0]], [0.5], "x", [True], None):
        with pytest.raises(RowError):
            dataset[wrong]


@pytest.mark.parametrize("stored", [False, True])
def test_weights_of_the_memory(stored: bool, weighted: memento.Memory, tmp_path: Path) -> None:
    weighted.save(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    data = tmp_path if stored else weighted
    dataset = MemoryDataset(data, weights=True)
    np.testing.assert_array_equal(dataset.weights, weighted.weights)
    assert [*dataset[0]] == ["x", "y", "weight"]
    assert dataset[:]["weight"].dtype == torch.float32
    np.testing.assert_allclose(dataset[:]["weight"], weighted.weights)
    pair = MemoryDataset(data, ("x", "y"), weights=True)
    assert [float(part) for part in pair[7]][2] == pytest.approx(weighted.weights[7])
    again = pickle.loads(pickle.dumps(pair))  # noqa: S301
    assert torch.equal(again[:][2], pair[:][2])
    (batch,) = DataLoader(pair, batch_size=200)
    assert torch.equal(batch[2], pair[:][2])
    assert [*MemoryDataset(data)[0]] == ["x", "y"]
    np.testing.assert_array_equal(MemoryDataset(data).weights, weighted.weights)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_weights_of_the_caller(weighted: memento.Memory, tmp_path: Path) -> None:
    own = np.arange(100.0)
    weighted.save(tmp_path)
    for data in (weighted, tmp_path, weighted.samples):
        dataset = MemoryDataset(data, weights=own)
        own[0] = 5.0  # a copy was taken
        dataset = pickle.loads(pickle.dumps(dataset))  # noqa: S301
        assert dataset[:]["weight"].tolist() == list(range(100))
        own[0] = 0.0


def test_weights_that_are_none(weighted: memento.Memory) -> None:
    fifo = memento.Memory(10, memento.Reservoir(forget=0.5))
    fifo.insert(x=[1.0, 2.0])
    assert fifo.weights is None
    for data in (fifo, {"x": [1.0, 2.0]}):
        with pytest.raises(SettingError, match="no weights are known"):
            MemoryDataset(data, weights=True)
        with pytest.raises(SettingError, match="no weights are known"):
            MemoryDataset(data).sampler()
    with pytest.raises(SchemaError, match="give 100 numbers"):
        MemoryDataset(weighted, weights=[1.0])
    for wrong in (["a"] * 100, np.ones((100, 2)), None):
        with pytest.raises(SchemaError, match="weights"):
            MemoryDataset(weighted, weights=wrong)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(DomainError, match="finite"):
            MemoryDataset(weighted, weights=[bad] + [1.0] * 99)
    with pytest.raises(SchemaError, match="'weight' already"):
        MemoryDataset({"weight": [1.0]}, weights=[1.0])
    assert len(MemoryDataset({"weight": [1.0]}, ("weight",), weights=[2.0])[0]) == 2


def test_a_sampler_undoes_the_choice(weighted: memento.Memory, tmp_path: Path) -> None:
    """One in ten of the stream is rare, and half of what is held."""
    weighted.save(tmp_path)
    assert weighted.samples["y"].mean() == 0.5
    for data in (weighted, tmp_path):
        dataset = MemoryDataset(data)
        sampler = dataset.sampler(5000, generator=torch.Generator().manual_seed(0))
        assert isinstance(sampler, torch.utils.data.WeightedRandomSampler)
        loader = DataLoader(dataset, batch_size=1000, sampler=sampler)
        rare = torch.cat([batch["y"] for batch in loader]).double()
        assert len(rare) == 5000
        # Of the seed: a binomial with a standard deviation of 0.0042.
        assert float(rare.mean()) == pytest.approx(0.1, abs=5 * 0.0042)
    assert len(dataset.sampler()) == 100
    for size in (0, -1, 1.5, "many"):
        with pytest.raises(SettingError, match="size"):
            dataset.sampler(size)
    with pytest.raises(SettingError, match="0 rows to draw from"):
        MemoryDataset({"x": []}, weights=[]).sampler()
    with pytest.raises(SettingError, match="all weights are 0"):
        MemoryDataset({"x": [1.0]}, weights=[0]).sampler()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_of_items(workers: int, weighted: memento.Memory) -> None:
    dataset = MemoryDataset(weighted, transform=doubled)
    plain = MemoryDataset(weighted)
    assert dataset[3]["x"] == 2 * plain[3]["x"]
    assert dataset[1:4]["text"] == [str(int(y)) for y in plain[1:4]["y"]]
    # Spawned, which TorchRL makes the default, workers could not import the transform.
    start = "fork" if workers else None
    loader = DataLoader(dataset, 40, num_workers=workers, multiprocessing_context=start)
    batches = list(loader)
    assert [len(batch["text"]) for batch in batches] == [40, 40, 20]
    assert torch.equal(torch.cat([batch["x"] for batch in batches]), 2 * plain[:]["x"])


def test_a_transform_makes_anything() -> None:
    """Numbers, texts and tensors are put together as PyTorch does it; tuples stay lists."""
    samples = {"x": np.arange(4.0), "day": np.arange("2024-01-01", "2024-01-05", dtype="M8[D]")}
    makes = {
        "number": lambda item: float(item["x"]),
        "text": lambda item: str(item["day"]),
        "tensor": lambda item: item["x"].repeat(2),
        "array": lambda item: np.full(2, item["day"]),
        "pair": lambda item: (item["x"], np.float32(1), item["day"]),
        "nested": lambda item: {"a": {"b": item["x"]}},
    }
    found = {}
    for name, transform in makes.items():
        dataset = MemoryDataset(samples, transform=transform)
        (found[name],) = DataLoader(
            dataset,
            batch_size=4,
            collate_fn=MemoryDataset.collate if name == "array" else None,
        )
    assert torch.equal(found["number"], torch.arange(4.0, dtype=torch.float64))
    assert found["text"] == [f"2024-01-0{i}" for i in range(1, 5)]
    assert found["tensor"].shape == (4, 2)
    assert found["array"].dtype == "M8[D]"
    x, one, day = found["pair"]
    assert (x.tolist(), one.dtype, day.dtype) == ([0, 1, 2, 3], torch.float32, np.dtype("M8[D]"))
    assert found["nested"]["a"]["b"].tolist() == [0, 1, 2, 3]


def test_pickled_it_is_the_name_of_a_folder(tmp_path: Path) -> None:
    """However large: here 8 MB, with the weights of the memory."""
    memory = memento.Memory(100_000, memento.Reservoir(), seed=0)
    memory.insert(x=np.zeros((100_000, 10)), y=np.arange(100_000))
    memory.save(tmp_path)
    dataset = MemoryDataset(tmp_path, weights=True)
    assert len(pickle.dumps(dataset)) < 10_000
    assert pickle.loads(pickle.dumps(dataset))[99_999]["y"] == 99_999  # noqa: S301


def test_a_folder_with_a_policy_that_is_not_known(tmp_path: Path) -> None:
    """Rows are read whoever chose them; only its weights need the policy."""
    mine = memento.Custom("x", np.mean, lambda a, b: abs(a - b.T))
    memory = memento.Memory(10, memento.Memento([mine], batch_size=2), seed=0)
    memory.insert(x=[1.0, 2.0])
    memory.save(tmp_path)
    assert MemoryDataset(tmp_path)[1]["x"] == 2.0
    with pytest.raises(SettingError, match=r"Memory\.load"):
        MemoryDataset(tmp_path, weights=True)
    assert MemoryDataset(tmp_path, weights=[1, 2])[1]["weight"] == 2.0
