"""The sample of what was offered: uniform, small, and of no influence on what is held."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from chances import assert_counts
from memento import FIFO, DensityReservoir, JensenShannon, Memento, Memory, Reservoir, Samples
from memento.errors import DamagedError
from memento.offered import Offered, single_values

POLICY = Memento([JensenShannon.of_labels("y", 3), JensenShannon.of_probabilities("p")])


def offered(sizes, start=0):
    """Numbered samples in inserts of these sizes."""
    found, number = Offered(), start
    for insert, size in enumerate(sizes, 1):
        fresh = Samples(number=np.arange(number, number + size))
        found = found.updated(fresh, insert, size // 2, (), "id")
        number += size
    return found


def test_all_are_there_until_there_are_too_many():
    found = offered([400, 600])
    assert sorted(found.samples["number"]) == list(range(1000))
    assert found.came.tolist() == [1] * 400 + [2] * 600
    assert found.log.tolist() == [[1, 400, 200], [2, 600, 300]]


@pytest.mark.parametrize("sizes", [[5000], [10] * 300, [2000, 1, 1999, 3000]])
def test_every_sample_is_as_likely(sizes):
    """Shares of ten equal parts of the stream, over 60 streams; false alarms: 1 in 10,000."""
    total, counts = sum(sizes), np.zeros(10)
    for start in range(60):
        found = Offered()
        number = 0
        for insert, size in enumerate(sizes, 1 + 1000 * start):  # other numbers, another draw
            rows = Samples(number=np.arange(number, number + size))
            found = found.updated(rows, insert, 0, (), "id")
            number += size
        assert len(found.came) == 1000
        assert len(set(found.samples["number"])) == 1000
        counts += np.bincount(found.samples["number"] * 10 // total, minlength=10)
    # Without replacement: less spread than that of independent draws, so the test is on the safe
    # side.
    assert_counts(counts, np.full(10, 6000))


def test_two_streams_weigh_by_their_lengths():
    """9,000 and 3,000 samples: 750 of 1,000 on average, within 5 standard errors of 20 merges."""
    shares = []
    for seed in range(20):
        first, second = offered([9000 + seed]), offered([3000], start=20_000)
        found = first.merged(second)
        assert (len(found.came), found.seen) == (1000, 12_000 + seed)
        shares.append((found.samples["number"] < 20_000).mean())
    assert abs(np.mean(shares) - 0.75) < 5 * (0.75 * 0.25 / 1000 / 20) ** 0.5


def test_small_streams_are_merged_whole():
    found = offered([30]).merged(offered([20], start=100))
    assert sorted(found.samples["number"]) == [*range(30), *range(100, 120)]


def test_the_log_stays_short_and_loses_no_sample():
    found = offered([3] * 2500)
    assert len(found.log) <= 1000
    assert found.log[:, 1].sum() == found.seen == 7500
    assert (np.diff(found.log[:, 0]) > 0).all()
    assert found.log[-1, 0] == 2500


def test_single_values():
    p = np.array([[0.2, 0.8, np.nan], [np.nan] * 3])
    found = single_values(Samples(y=["a", "b"], p=p, t=np.zeros((2, 2, 2))))
    assert found["p: which"][0] == 1
    assert found["p: value"][0] == 0.8
    assert np.isnan(found["p: value"][1])
    assert set(found) == {"y", "p: which", "p: value"}


def stream(rng, rows):
    y = rng.choice(3, rows, p=[0.8, 0.15, 0.05])
    p = np.eye(3)[y] * 0.7 + 0.1
    return {"y": y, "p": p, "x": rng.normal(size=(rows, 5)), "note": np.full(rows, "n" * 70)}


def test_what_of_a_sample_is_recorded():
    memory = Memory(50, POLICY)
    memory.insert(stream(np.random.default_rng(0), 3000))
    found = memory.offered.samples
    assert set(found) == {"y", "p: which", "p: value"}, "no inputs, no long texts"
    assert memory.offered.log.tolist() == [[1, 3000, 50]]
    memory = Memory(50, FIFO())
    memory.insert({f"c{i}": np.zeros(10) for i in range(30)})
    assert len(memory.offered.samples) == 8


def test_columns_that_come_and_go():
    memory = Memory(50, FIFO())
    memory.insert(id=[1, 2], y=[np.nan, 1.0])
    memory.insert(id=[3], y=[0.0], z=[5])
    assert memory.offered.samples["y"].tolist()[1:] == [1.0, 0.0]
    memory.label([1], y=[7.0])
    assert memory.offered.samples["y"].tolist() == [7.0, 1.0, 0.0]
    assert np.isnan(memory.offered.samples["z"][:2]).all()
    found = (
        Offered().updated(Samples(a=[1]), 1, 1, (), "id").updated(Samples(a=["x"]), 2, 1, (), "id")
    )
    assert "a" not in found.samples
    assert found.seen == 2
    found = (
        Offered()
        .updated(Samples(t=["x" * 99]), 1, 1, (), "id")
        .updated(Samples(a=[1.0]), 2, 1, (), "id")
    )
    assert (len(found.came), found.samples["a"].tolist()[1:]) == (2, [1.0])
    assert np.isnan(found.samples["a"][0])


@pytest.mark.parametrize("policy", [POLICY, Reservoir(), DensityReservoir(POLICY.distances)])
def test_going_on_from_a_folder(tmp_path, policy):
    straight, resumed = Memory(40, policy, seed=3), Memory(40, policy, seed=3)
    rng = np.random.default_rng(1)
    for i in range(5):
        data = stream(rng, 700)
        straight.insert(data)
        resumed.insert(data)
        resumed.save(tmp_path / str(i))
        resumed = Memory.load(tmp_path / str(i))
        assert set(resumed.offered.samples) == set(straight.offered.samples)
        for name, column in straight.offered.samples.items():
            assert np.array_equal(resumed.offered.samples[name], column)
        assert np.array_equal(resumed.offered.came, straight.offered.came)
        assert np.array_equal(resumed.offered.log, straight.offered.log)
    assert np.array_equal(resumed.samples["y"], straight.samples["y"])


def test_a_folder_of_before_is_read_and_the_record_begins_then():
    memory = Memory(40, POLICY)
    memory.insert(stream(np.random.default_rng(0), 100))
    arrays, documents = memory.dump()
    del documents["offered"]
    arrays = {name: array for name, array in arrays.items() if not name.startswith("offered")}
    old = Memory.restore(arrays, documents)
    assert (old.offered.since, old.offered.seen) == (1, 0)
    old.insert(stream(np.random.default_rng(1), 30))
    assert old.offered.log.tolist()[0][:2] == [2, 30]
    assert len(old.offered.came) == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("came", np.zeros(3, np.int64)),
        ("came", np.zeros(100)),
        ("log", np.zeros((1, 2), np.int64)),
        ("values/y", np.zeros(7)),
    ],
)
def test_what_is_damaged_is_refused(name, value):
    memory = Memory(40, POLICY)
    memory.insert(stream(np.random.default_rng(0), 100))
    arrays, documents = memory.dump()
    with pytest.raises(DamagedError, match="what was offered"):
        Memory.restore({**arrays, f"offered/{name}": value}, documents)
    for document in ({}, {"since": -1, "seen": 100}, {"since": 0, "seen": "x"}, None):
        with pytest.raises(DamagedError, match="what was offered"):
            Memory.restore(arrays, {**documents, "offered": document})
    json.dumps(documents)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("values/y", np.ones((1000, 3))),
        ("values/y", np.zeros(1000, [("a", int)])),
        ("values/y", np.zeros(1000, complex)),
        ("values/z", np.zeros(1000, "V4")),
        ("came", np.full(1000, -1)),
        ("came", np.full(1000, 4)),
        ("log", np.array([[1, 700, 40], [2, 700, -1], [3, 700, 9]])),
        ("log", np.array([[1, 700, 40], [2, 2101, 9]])),
        ("log", np.array([[-1, 700, 40], [2, 700, 9]])),
        ("log", np.array([[1, 700, 40], [4, 700, 9]])),
        ("log", np.array([[2, 700, 40], [2, 700, 9]])),
        ("log", np.ones((1001, 3), np.int64).cumsum(axis=0)),
        ("document", {"since": 4, "seen": 2100}),
        ("document", {"since": 0, "seen": 2101}),
    ],
)
def test_what_fits_no_such_memory_is_refused(name, value):
    """Of three inserts of 700 samples, which are themselves read."""
    memory = Memory(40, POLICY)
    for day in range(3):
        memory.insert(stream(np.random.default_rng(day), 700))
    arrays, documents = memory.dump()
    again = Memory.restore(arrays, documents)
    assert again.insert(stream(np.random.default_rng(3), 700)).offered == 700
    if name == "document":
        documents = {**documents, "offered": value}
    else:
        arrays = {**arrays, f"offered/{name}": value}
    with pytest.raises(DamagedError, match="what was offered"):
        Memory.restore(arrays, documents)


@pytest.mark.parametrize(
    "column",
    [
        np.full(100, b"\xff"),
        np.zeros(100, "M8[D]"),
        np.full(100, "q"),
        np.full(100, 9**15, "M8[Y]"),
    ],
)
def test_columns_of_another_kind_stop_no_insert(column):
    """Such as a record may hold whose memory has texts and times."""
    memory = Memory(40, FIFO())
    data = {"id": range(100), "y": ["a", "é"] * 50, "t": np.zeros(100, "M8[ns]")}
    memory.insert(data)
    for name in ("y", "t"):
        arrays, documents = memory.dump()
        again = Memory.restore({**arrays, f"offered/values/{name}": column}, documents)
        again.insert(data)
        again.label([1], y=["é"])
        assert again.offered.seen == 200


@pytest.mark.parametrize(
    "again",
    [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],  # noqa: S301
)
def test_looking_changes_nothing(again):
    memory = Memory(40, FIFO())
    memory.insert(y=[0, 1])
    memory = again(memory)
    for array in (memory.offered.log, memory.offered.came, memory.offered.samples["y"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    assert memory.offered.log.tolist() == [[1, 2, 2]]


def test_merging_a_memory_that_holds_nothing_any_more():
    """What it was offered came with inserts that the other one has to count, too."""
    left, right = (Memory(20, DensityReservoir(density="rho")) for _ in range(2))
    left.insert(rho=np.linspace(0.1, 0.3, 5))
    arrays, documents = right.dump()
    documents["memory"] = {**documents["memory"], "seen": 7, "inserts": 3}
    arrays |= {"offered/came": np.full(7, 3), "offered/log": np.array([[3, 7, 0]])}
    documents["offered"] = {"since": 0, "seen": 7}
    left.merge(Memory.restore(arrays, documents))
    assert (left.seen, left.inserts) == (12, 3)
    assert Memory.restore(*left.dump()).offered.seen == 12


def test_merging_memories():
    left, right = (Memory(20, DensityReservoir(density="rho")) for _ in range(2))
    left.insert(rho=np.linspace(0.1, 0.3, 60))
    right.insert(rho=np.linspace(0.1, 0.3, 40))
    left.merge(right)
    assert left.offered.seen == 100
    assert len(left.offered.samples["rho"]) == 100
