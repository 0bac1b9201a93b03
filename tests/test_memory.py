"""Memories: what they hold, whose arrays these are, and that failures leave no trace."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import memento.contents
from memento import (
    FIFO,
    Choice,
    DensityReservoir,
    Group,
    JensenShannon,
    LossAwareReservoir,
    LossReservoir,
    Memory,
    Policy,
    Report,
    Reservoir,
    Samples,
    Unbounded,
)
from memento.arrivals import Arrivals
from memento.errors import (
    ColumnTypeError,
    DamagedError,
    DomainError,
    ForeignError,
    LockedError,
    RowError,
    SchemaError,
    SettingError,
    SpaceError,
    StorageError,
)
from memento.files import Lock
from memento.testing import ToyStream


def state_of(memory: Memory) -> str:
    arrays, documents = memory.dump()
    listed = {name: (str(a.dtype), a.shape, a.tobytes().hex()) for name, a in arrays.items()}
    return json.dumps([listed, documents], sort_keys=True)


class Scripted(Policy):
    """Chooses what a test says, and draws a number each time."""

    def __init__(self, *choices):
        self.choices = list(choices)

    def settings(self):
        return {"kind": "Scripted"}

    def choose(self, held, fresh, capacity, state, rng):
        rng.random()
        choice = self.choices.pop(0)
        if isinstance(choice, BaseException):
            raise choice
        return (
            choice
            if isinstance(choice, Choice)
            else Choice(np.asarray(choice, None if len(choice) else int))
        )


# ------------------------------------------------------------------------------------- contents


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.randoms(use_true_random=False), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_contents_are_the_chosen_rows_in_order_of_arrival(steps):
    """Against lists; some steps hold on to what was lent, so both ways of storing are taken."""
    policy = Scripted()
    memory = Memory(12, policy)
    expected: list[int] = []
    arrivals: list[int] = []
    borrowed = []
    start = 0
    for number, (size, random, lend) in enumerate(steps, 1):
        offered = expected + list(range(start, start + size))
        came = arrivals + [number] * size
        kept = sorted(random.sample(range(len(offered)), random.randint(0, min(12, len(offered)))))
        policy.choices.append(np.array(kept, dtype=np.int64))
        fresh = np.arange(start, start + size)
        report = memory.insert(
            number=fresh,
            wide=np.repeat(fresh[:, None], 3, 1),
            text=np.array([f"{n}" for n in fresh]),
        )
        assert report == Report(
            size, sum(k >= len(expected) for k in kept), len(offered) - len(kept)
        )
        expected = [offered[k] for k in kept]
        arrivals = [came[k] for k in kept]
        start += size
        held = memory.samples
        assert held["number"].tolist() == expected
        assert held["wide"].tolist() == [[n] * 3 for n in expected]
        assert held["text"].tolist() == [f"{n}" for n in expected]
        assert memory.arrivals.tolist() == arrivals
        assert (len(memory), memory.seen, memory.inserts) == (len(expected), start, number)
        if lend:
            borrowed.append((held, list(expected)))
        del held
        for samples, then in borrowed:
            assert samples["number"].tolist() == then
            assert samples["text"].tolist() == [f"{n}" for n in then]


def full(policy: Policy | None = None, size: int = 100) -> Memory:
    memory = Memory(size, policy or FIFO())
    memory.insert(x=np.arange(2.0 * size).reshape(-1, 2), y=np.arange(size))
    return memory


def test_samples_stay_what_they_are():
    memory = full()
    before = memory.samples
    view = before["x"][3:5]
    memory.insert(x=np.full((60, 2), -1.0), y=np.full(60, -1))
    np.testing.assert_array_equal(before["y"], np.arange(100))
    np.testing.assert_array_equal(view, [[6, 7], [8, 9]])
    np.testing.assert_array_equal(memory.samples["y"], [*range(60, 100), *[-1] * 60])


def test_a_view_of_a_lent_array_is_enough_to_protect_it():
    memory = full()
    view = memory.samples["y"][10:20:3]
    memory.insert(x=np.zeros((100, 2)), y=np.zeros(100, int))
    np.testing.assert_array_equal(view, [10, 13, 16, 19])


def test_only_large_columns_in_use_are_copied():
    """A full memory changes in place, unless somebody holds on to its arrays."""
    memory = full(size=10_000)
    places = {name: array.ctypes.data for name, array in memory.samples.items()}
    memory.insert(x=np.zeros((10, 2)), y=np.zeros(10, int))
    assert {name: array.ctypes.data for name, array in memory.samples.items()} == places
    lent = memory.samples["y"]
    memory.insert(x=np.zeros((10, 2)), y=np.ones(10, int))
    assert memory.samples["x"].ctypes.data == places["x"]
    assert memory.samples["y"].ctypes.data != lent.ctypes.data
    assert lent[-1] == 0


def test_samples_are_read_only():
    samples = full().samples
    with pytest.raises(ValueError, match="read-only"):
        samples["y"][0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        samples["y"].flags.writeable = True


def test_the_caller_s_arrays_stay_the_caller_s():
    mine = np.arange(10)
    memory = Memory(20, FIFO())
    memory.insert(y=mine)
    mine[:] = -1
    assert memory.samples["y"].tolist() == list(range(10))
    mine = np.arange(5)
    memory.insert(y=mine)
    assert mine.flags.writeable
    assert mine.tolist() == [0, 1, 2, 3, 4]


def test_inserting_its_own_samples():
    memory = full(size=4)
    memory.insert(memory.samples.take([3, 0]))
    memory.insert(memory.samples)
    assert memory.samples["y"].tolist() == [2, 3, 3, 0]


def test_strings_get_longer_and_shorter():
    memory = Memory(3, FIFO())
    for text in ("a", "long enough", "b"):
        memory.insert(text=[text])
    assert memory.samples["text"].tolist() == ["a", "long enough", "b"]


def test_narrow_numbers_become_those_that_are_held():
    memory = Memory(5, FIFO())
    memory.insert(x=np.array([0.5]), y=np.array([1], np.int64))
    memory.insert(x=np.array([0.25], np.float32), y=np.array([2], np.uint8))
    assert memory.samples["x"].dtype == np.float64
    assert memory.samples["y"].tolist() == [1, 2]


def test_nothing_offered_changes_nothing():
    memory = full(Reservoir())
    before = state_of(memory)
    assert memory.insert(x=np.empty((0, 2)), y=np.empty(0, int)) == Report(0, 0, 0)
    assert state_of(memory) == before
    assert Memory(4, FIFO()).insert(y=[]) == Report(0, 0, 0)


def test_an_empty_choice_empties_the_memory():
    memory = Memory(3, Scripted([0, 1], [], [0]))
    memory.insert(y=[1, 2])
    assert memory.insert(y=[3]) == Report(1, 0, 3)
    assert len(memory) == 0
    assert memory.samples["y"].shape == (0,)
    memory.insert(y=[4])
    assert memory.samples["y"].tolist() == [4]


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "many", float("nan"), float("inf")])
def test_capacities_that_make_no_sense(capacity):
    with pytest.raises(SettingError, match="capacity"):
        Memory(capacity, FIFO())


def test_a_policy_is_needed():
    with pytest.raises(SettingError, match="expected a Policy"):
        Memory(5, FIFO)


def test_a_generator_can_be_given():
    one = Memory(5, Reservoir(), np.random.default_rng(3))
    other = Memory(5, Reservoir(), 3)
    for memory in (one, other):
        memory.insert(y=np.arange(50))
    assert state_of(one) == state_of(other)


def test_it_describes_itself():
    assert repr(full()) == "<Memory of 100 samples (capacity 100) by FIFO()>"
    assert "no limit" in repr(Memory(None, Unbounded()))


# ------------------------------------------------------------------------------------- failures


BIG = 2**53 + 1


@pytest.mark.parametrize(
    ("held", "offered", "dtype"),
    [
        ([10], [10.5], "f8"),
        ([10], [10.0], "i8"),
        (np.array([1, 2], np.int8), [200], "i8"),
        (np.array([0.5], np.float32), [0.1], "f8"),
        (np.array([0.5], np.float32), [0.25], "f4"),
        ([True, False], [0, 1], "?"),
        ([1], np.array([2**63], np.uint64), "u8"),
        (["a"], ["longer"], "U6"),
        (np.array(["2024-01-01"], "M8[D]"), np.array(["2024-01-01T05"], "M8[h]"), "M8[h]"),
        (np.array([5]), np.array([7], ">i8"), "i8"),
    ],
)
@pytest.mark.parametrize("lent", [False, True])
def test_types_grow_where_that_changes_nothing(held, offered, dtype, lent, tmp_path):
    memory = Memory(10, FIFO())
    memory.insert(x=held)
    before = memory.samples if lent else None
    memory.insert(x=offered)
    memory.insert(x=held)
    expected = [
        *np.asarray(held).tolist(),
        *np.asarray(offered).tolist(),
        *np.asarray(held).tolist(),
    ]
    assert memory.samples["x"].dtype == np.dtype(dtype)
    assert memory.samples["x"].astype(dtype).tolist() == np.array(expected, dtype).tolist()
    if before is not None:
        np.testing.assert_array_equal(before["x"], held)
    memory.save(tmp_path / "m")
    assert Memory.load(tmp_path / "m").samples["x"].tolist() == memory.samples["x"].tolist()


@pytest.mark.parametrize(
    ("held", "offered"),
    [
        ([0.5], [BIG]),
        ([BIG], [0.5]),
        ([-1], np.array([2**63], np.uint64)),
        (["1"], [1]),
        ([1], ["1"]),
        ([b"a"], ["a"]),
        (np.array(["3000-01-01"], "M8[D]"), np.array([1], "M8[ns]")),
        ([5], np.array([5], "m8[s]")),
    ],
)
def test_no_type_for_both(held, offered):
    memory = Memory(10, FIFO())
    memory.insert(x=held)
    before = state_of(memory)
    with pytest.raises(
        ColumnTypeError, match=r"'x' is of type .*no type keeps all values"
    ) as caught:
        memory.insert(x=offered)
    assert "astype" not in str(caught.value)
    assert state_of(memory) == before


SIGNALLING = np.array([0x7F800001], np.uint32).view("f4")  # a NaN


@pytest.mark.parametrize(
    "parts",
    [
        [np.array([2**30, -7], "i4"), np.array([4.944e4, np.nan], "f2")],
        [SIGNALLING, np.array([0.5, -6.0])],
        [np.array([-3.0, np.nan], "f4"), SIGNALLING, np.array([0, 0])],
    ],
    ids=["beyond float16", "signals", "in the record of what was offered"],
)
def test_numbers_join_without_a_warning(parts):
    memory = Memory(None, Unbounded())
    for part in parts:
        memory.insert(x=part)
    held = memory.samples["x"].tolist()
    assert str(held) == str([float(value) for part in parts for value in part.tolist()])


def test_whole_numbers_that_missing_ones_would_change():
    memory = Memory(None, Unbounded())
    memory.insert(x=np.array([2**53 + 1]))
    with pytest.raises(ColumnTypeError, match=r"'x' holds whole numbers beyond 2\*\*53"):
        memory.insert(x=[np.nan])
    assert memory.samples["x"].tolist() == [2**53 + 1]


@given(st.data())
def test_numbers_are_held_as_they_were_offered(data):
    """Whatever types come in whatever order, over three inserts."""
    types = ["?", "i1", "u1", "i4", "i8", "u8", "f2", "f4", "f8"]
    memory, offered = Memory(None, Unbounded()), []
    for _ in range(3):
        column = data.draw(hnp.arrays(data.draw(st.sampled_from(types)), st.integers(1, 3)))
        try:
            memory.insert(x=column)
        except ColumnTypeError:
            continue
        offered += column.tolist()
    for value, kept in zip(offered, memory.samples["x"].tolist(), strict=True):
        assert value == kept or (value != value and kept != kept)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": np.zeros((2, 2))}, "missing y"),
        ({"x": np.zeros((2, 2)), "z": [1, 2]}, "missing y; unknown z"),
        ({"x": np.zeros((2, 3)), "y": [1, 2]}, r"'x' has rows of shape \(3,\)"),
        ({"x": np.zeros(2), "y": [1, 2]}, r"'x' has rows of shape \(\)"),
        (
            {"x": np.zeros((2, 2)), "y": np.array([1, 2], "m8[s]")},
            r"'y' is of type timedelta64\[s\], this memory holds int64",
        ),
        ({"x": np.zeros((2, 2)), "y": ["a", "b"]}, "'y' is of type <U1"),
        ({"x": np.zeros((2, 2)), "y": [1, 2, 3]}, "differ in length"),
        ({}, "no columns"),
    ],
)
def test_samples_that_do_not_fit(columns, message):
    memory = full(Reservoir())
    before = state_of(memory)
    for offer in (memory.insert, memory.check):
        with pytest.raises(SchemaError, match=message):
            offer(columns)
    assert state_of(memory) == before


def test_values_that_the_policy_cannot_use():
    memory = Memory(10, LossAwareReservoir())
    memory.insert(y=np.zeros(20, int), loss=np.ones(20))
    before = state_of(memory)
    with pytest.raises(DomainError):
        memory.insert(y=[1], loss=[np.nan])
    with pytest.raises(DomainError):
        memory.annotate(loss=np.full(10, np.inf))
    assert state_of(memory) == before


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (np.array([2, 1]), "not ascending"),
        (np.array([2, 1], np.uint64), "not ascending"),
        (np.array([1, 1]), "not ascending"),
        (np.array([-1, 1]), "not ascending within 0 to 101"),
        (np.array([1, 102]), "not ascending within 0 to 101"),
        (np.arange(101), "chose 101 rows; the capacity is 100"),
        (np.ones(102, bool), "rows of type bool"),
        (np.zeros((2, 2), int), r"shape \(2, 2\)"),
        (Choice(np.arange(5), marks={"key": np.zeros(4)}), "4 marks 'key' for 5 rows"),
    ],
)
def test_choices_that_make_no_sense(choice, message):
    memory = full(Scripted(np.arange(100), choice))
    before = state_of(memory)
    with pytest.raises(SettingError, match=message):
        memory.insert(x=np.zeros((2, 2)), y=[1, 2])
    assert state_of(memory) == before


@pytest.mark.parametrize("failure", [RuntimeError("broken"), KeyboardInterrupt(), MemoryError()])
def test_a_policy_that_fails_leaves_everything(failure):
    memory = full(Scripted(np.arange(100), failure))
    before = state_of(memory)
    with pytest.raises(type(failure)):
        memory.insert(x=np.zeros((2, 2)), y=[1, 2])
    assert state_of(memory) == before


def test_no_room_for_the_new_contents_leaves_everything(monkeypatch):
    memory = full(Reservoir())
    held = memory.samples  # in use, so new room is needed
    before = state_of(memory)

    def no_room(*arguments):
        raise MemoryError

    monkeypatch.setattr(memento.contents, "_room", no_room)
    with pytest.raises(MemoryError):
        memory.insert(x=np.zeros((2, 2)), y=[1, 2])
    monkeypatch.undo()
    assert state_of(memory) == before
    assert held["y"].size == 100


def test_an_interrupt_while_rows_are_moved_does_not_tear_the_memory(monkeypatch):
    """It is raised when the insert is complete: the same as without, generator included."""
    memory, undisturbed = full(Reservoir(), 10_000), full(Reservoir(), 10_000)
    fresh = {"x": np.zeros((5000, 2)), "y": np.zeros(5000, int)}
    undisturbed.insert(fresh)
    apply, interrupts = memento.contents.Overwrite.apply, []

    def interrupted(overwrite):
        apply(overwrite)
        if len(interrupts) < 3:
            interrupts.append(overwrite)
            raise KeyboardInterrupt

    monkeypatch.setattr(memento.contents.Overwrite, "apply", interrupted)
    with pytest.raises(KeyboardInterrupt):
        memory.insert(fresh)
    assert len(interrupts) == 3
    assert memory.inserts == 2
    assert state_of(memory) == state_of(undisturbed)


# ------------------------------------------------------------------- annotations, the reference


def test_annotations_replace_and_add_columns():
    memory = full(size=4)
    before = memory.samples
    memory.annotate(y=[4, 3, 2, 1], new=np.ones((4, 2)))
    assert memory.samples["y"].tolist() == [4, 3, 2, 1]
    assert memory.samples["new"].shape == (4, 2)
    assert "new" not in before
    assert before["y"].tolist() == [0, 1, 2, 3]
    memory.insert(x=np.zeros((1, 2)), y=[9], new=np.zeros((1, 2)))
    assert memory.samples["y"].tolist() == [3, 2, 1, 9]


def test_annotations_need_a_row_for_each_sample():
    memory = full()
    with pytest.raises(SchemaError, match="99 rows for 100 samples"):
        memory.annotate(new=np.zeros(99))


def test_annotations_are_copied():
    memory = full(size=4)
    mine = np.ones(4)
    memory.annotate(loss=mine)
    mine[:] = 5
    assert memory.samples["loss"].tolist() == [1, 1, 1, 1]


def test_the_reference_is_what_was_held_at_the_last_training():
    memory = full(size=4)
    assert memory.reference is None
    with pytest.raises(SchemaError, match="nothing was trained"):
        memory.annotate_reference(loss=np.zeros(4))
    memory.mark_trained()
    memory.insert(x=np.zeros((4, 2)), y=np.zeros(4, int))
    assert memory.reference["y"].tolist() == [0, 1, 2, 3]
    memory.annotate_reference(y=[7, 7, 7, 7], loss=[1.0, 2.0, 3.0, 4.0])
    assert memory.reference["y"].tolist() == [7, 7, 7, 7]
    assert memory.reference["loss"].tolist() == [1, 2, 3, 4]
    with pytest.raises(SchemaError, match="length"):
        memory.annotate_reference(loss=np.zeros(3))
    assert memory.samples["y"].tolist() == [0, 0, 0, 0]


# -------------------------------------------------------------------------- dumped and on disk


def test_a_restored_memory_has_nothing_in_common_with_the_one_dumped():
    memory = full(size=5)
    twin = Memory.restore(*memory.dump())
    twin.insert(x=np.ones((3, 2)), y=[7, 8, 9])
    assert twin.samples["y"].tolist() == [3, 4, 7, 8, 9]
    assert memory.samples["y"].tolist() == [0, 1, 2, 3, 4]


def test_loading_gives_back_everything(tmp_path):
    memory = full(Reservoir())
    memory.mark_trained()
    memory.annotate(loss=np.zeros(100))
    memory.model = "digest"
    memory.save(tmp_path / "deep" / "er")
    loaded = Memory.load(tmp_path / "deep" / "er")
    assert state_of(loaded) == state_of(memory)
    assert (loaded.capacity, loaded.policy, loaded.model) == (100, Reservoir(), "digest")


def wide(size, seed=0):
    """Samples whose columns are large enough to be written over where they lie."""
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(size, 40)), "y": rng.integers(0, 3, size), "t": ["a"] * size}


def on_disk(memory, name):
    """Whether a column of a memory lies in a file."""
    held = memory._contents.columns[name].buffer
    while isinstance(held, np.ndarray) and not isinstance(held, np.memmap):
        held = held.base
    return isinstance(held, np.memmap)


def test_a_mapped_memory_goes_on_as_a_loaded_one(tmp_path):
    memory = Memory(2_000, DensityReservoir([JensenShannon.of_labels("y", 3)]), seed=3)
    memory.insert(wide(1_500))
    memory.mark_trained()
    memory.save(tmp_path / "m")
    mapped, loaded = Memory.load(tmp_path / "m", mapped=True), Memory.load(tmp_path / "m")
    assert state_of(mapped) == state_of(loaded)
    assert on_disk(mapped, "x")
    assert not on_disk(loaded, "x")
    there = sorted(path.name for path in tmp_path.rglob("*"))
    before = mapped.samples
    for seed in (1, 2, 3):  # beyond the capacity from the first on
        reports = [each.insert(wide(1_000, seed)) for each in (mapped, loaded)]
        assert reports[0] == reports[1]
        assert state_of(mapped) == state_of(loaded)
        assert on_disk(mapped, "x")
    for each in (mapped, loaded):
        each.annotate(t=["bb"] * 2_000)
    np.testing.assert_array_equal(before["x"], wide(1_500)["x"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == there
    loaded.save(tmp_path / "n")
    mapped.save(tmp_path / "m")
    assert state_of(Memory.load(tmp_path / "m")) == state_of(Memory.load(tmp_path / "n"))
    mapped.insert(wide(1_000, 4))
    loaded.insert(wide(1_000, 4))
    assert state_of(mapped) == state_of(loaded)


def test_a_mapped_memory_outlives_its_folder(tmp_path):
    memory = full()
    memory.save(tmp_path)
    mapped = Memory.load(tmp_path, mapped=True)
    state = state_of(memory)
    memory.insert(x=np.ones((100, 2)), y=np.arange(100))
    memory.save(tmp_path)
    assert state_of(mapped) == state
    assert state_of(Memory.load(tmp_path, mapped=True)) == state_of(memory)
    with pytest.raises(StorageError, match="was changed since this memory was loaded"):
        mapped.save(tmp_path)


def test_no_room_for_a_mapped_memory(tmp_path, monkeypatch):
    memory = Memory(1_000, FIFO())
    memory.insert(wide(1_000))
    memory.save(tmp_path)
    mapped = Memory.load(tmp_path, mapped=True)

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(SpaceError, match="make room at"):
        mapped.insert(wide(10, 1))
    assert state_of(mapped) == state_of(memory)


def test_damage_in_a_mapped_memory(tmp_path):
    full().save(tmp_path)
    (file,) = tmp_path.glob("generation-*/*column*y.npy")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedError, match="differs from the manifest"):
        Memory.load(tmp_path, mapped=True)
    with pytest.raises(SettingError, match="mapped is 1; expected"):
        Memory.load(tmp_path, mapped=1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux' counters")
def test_a_mapped_memory_takes_no_memory(tmp_path):
    rows = 40_000
    memory = Memory(rows, FIFO())
    memory.insert(x=np.zeros((rows, 200)), y=np.zeros(rows))  # 64 MB
    memory.save(tmp_path)
    script = f"""
import sys
import numpy as np
from memento import FIFO, Memory
def megabytes():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024
fresh = dict(x=np.ones((100, 200)), y=np.ones(100))
small = Memory(50_000, FIFO())  # compiles, and imports
small.insert(x=np.zeros((500, 200)), y=np.zeros(500))
small.insert(fresh)
before = megabytes()
memory = Memory.load({str(tmp_path)!r}, mapped=sys.argv[1] == "mapped")
memory.insert(fresh)
memory.insert(fresh)
assert memory.samples["x"][-1, 0] == 1
print(megabytes() - before)
"""

    def growth(how):
        command = [sys.executable, "-c", script, how]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert growth("mapped") < 16
    assert growth("loaded") > 48  # or the counter says nothing


def test_a_setting_that_is_younger_than_the_folder_had_its_default():
    policy = DensityReservoir([JensenShannon.of_labels("y", 3)], gamma=0.5)
    memory = Memory(10, policy)
    arrays, documents = memory.dump()
    del documents["policy"]["tolerance"]
    assert Memory.restore(arrays, documents, policy).policy == policy
    other = DensityReservoir([JensenShannon.of_labels("y", 3)], gamma=0.5, tolerance=0.02)
    with pytest.raises(ForeignError, match=r"in tolerance: saved 0\.01, given 0\.02"):
        Memory.restore(arrays, documents, other)


def test_an_empty_memory_can_be_saved(tmp_path):
    Memory(5, FIFO()).save(tmp_path)
    assert len(Memory.load(tmp_path)) == 0


def test_two_that_loaded_the_same_cannot_both_save(tmp_path):
    full().save(tmp_path)
    first, second = Memory.load(tmp_path), Memory.load(tmp_path)
    first.insert(x=np.zeros((1, 2)), y=[1])
    first.save(tmp_path)
    first.save(tmp_path)
    with pytest.raises(StorageError, match="was changed since this memory was loaded"):
        second.save(tmp_path)
    second.save(tmp_path / "elsewhere")


def test_a_policy_of_one_s_own_has_to_be_given(tmp_path):
    Memory(3, Scripted()).save(tmp_path)
    with pytest.raises(SettingError, match="unknown policy 'Scripted'"):
        Memory.load(tmp_path)
    assert isinstance(Memory.load(tmp_path, Scripted()).policy, Scripted)


def test_another_policy_than_the_saved_one_is_refused(tmp_path):
    Memory(3, Reservoir(forget=0.5)).save(tmp_path)
    with pytest.raises(ForeignError, match=r"differs from the one given in forget: saved 0.5"):
        Memory.load(tmp_path, Reservoir())


def test_a_save_needs_the_lock(tmp_path):
    memory = full()
    memory.save(tmp_path)
    with Lock(tmp_path / "lock") as lock:
        with pytest.raises(LockedError):
            Memory.load(tmp_path).save(tmp_path)
        Memory.load(tmp_path).save(tmp_path, lock=lock)


def test_a_save_without_room_keeps_the_last_one(tmp_path, monkeypatch):
    memory = full()
    memory.save(tmp_path)
    before = state_of(memory)
    memory.insert(x=np.zeros((5, 2)), y=np.zeros(5, int))

    def no_room(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(SpaceError, match="free some space"):
            memory.save(tmp_path)
    assert state_of(Memory.load(tmp_path)) == before
    memory.save(tmp_path)
    assert state_of(Memory.load(tmp_path)) == state_of(memory)


def test_damage_is_named(tmp_path):
    full().save(tmp_path)
    file = next(tmp_path.glob("generation-*/*y.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedError, match=file.name):
        Memory.load(tmp_path)


def test_adopting_another_capacity_is_refused():
    with pytest.raises(ForeignError, match="capacity 3, this one 4"):
        Memory(4, FIFO()).adopt(Memory(3, FIFO()))


# --------------------------------------------------------------------------------------- groups


def make_group() -> Group:
    members = {"new": Memory(30, FIFO()), "any": Memory(60, Reservoir(), seed=1)}
    return Group(members, {"new": 1, "any": 3}, seed=2)


def test_a_group_feeds_all():
    group = make_group()
    reports = group.insert(y=np.arange(100))
    assert (reports.offered, reports.kept, reports.discarded) == (100, 90, 110)
    assert reports.memories == {"new": Report(100, 30, 70), "any": Report(100, 60, 40)}
    assert (len(group), group.capacity, group.samples.size) == (90, 90, 90)
    assert group.samples["y"][:30].tolist() == list(range(70, 100))


def test_a_group_without_a_limit():
    assert Group({"a": Memory(3, FIFO()), "b": Memory(None, Unbounded())}).capacity is None


def test_a_group_samples_by_its_weights():
    group = make_group()
    group.insert(y=np.arange(100))
    drawn = group.sample(41)
    assert drawn.size == 41
    new = set(group.memories["new"].samples["y"].tolist())
    assert set(drawn["y"][:10].tolist()) <= new
    assert len(set(drawn["y"][10:].tolist())) == 31
    assert group.sample(1000).size == 90
    assert make_group().samples.size == 0


def test_equal_groups_sample_equally(tmp_path):
    group = make_group()
    group.insert(y=np.arange(100))
    group.sample(7)
    group.save(tmp_path)
    loaded = Group.load(tmp_path)
    for _ in range(3):
        np.testing.assert_array_equal(group.sample(20)["y"], loaded.sample(20)["y"])
        group.insert(y=np.arange(50))
        loaded.insert(y=np.arange(50))
    for name, memory in group.memories.items():
        assert state_of(loaded.memories[name]) == state_of(memory)


def test_weights_of_a_group_give_each_its_share():
    group = Group({"a": Memory(10, Reservoir()), "b": Memory(30, Reservoir())}, {"a": 1, "b": 3})
    group.insert(y=np.arange(100))
    assert group.weights[:10].sum() == pytest.approx(10)
    assert group.weights.sum() == pytest.approx(40)
    assert make_group().weights is None
    full_group = make_group()
    full_group.insert(y=np.arange(100))
    assert full_group.weights is None  # FIFO states none


@pytest.mark.parametrize("failing", ["first", "second"])
def test_a_group_fails_as_a_whole(failing):
    """Also after the failure it works on as if nothing had happened."""
    picky = Memory(20, LossAwareReservoir())
    easy = Memory(20, Reservoir(), seed=5)
    members = {"a": picky, "b": easy} if failing == "first" else {"a": easy, "b": picky}
    group, sane = Group(members), Memory(20, Reservoir(), seed=5)
    good = {"y": np.zeros(30, int), "loss": np.ones(30)}
    group.insert(good)
    sane.insert(good)
    before = {name: state_of(memory) for name, memory in members.items()}
    with pytest.raises(DomainError):
        group.insert(y=[1], loss=[np.nan])
    assert {name: state_of(memory) for name, memory in group.memories.items()} == before
    group.insert(good)
    sane.insert(good)
    assert state_of(easy) == state_of(sane)


def test_a_group_s_failing_choice_restores_those_that_had_chosen():
    easy = Memory(20, Reservoir(), seed=5)
    group = Group(
        {"a": easy, "b": Memory(20, Scripted(np.arange(20), RuntimeError(), np.arange(20)))}
    )
    group.insert(y=np.arange(30))
    held, before = easy.samples, state_of(easy)
    with pytest.raises(RuntimeError):
        group.insert(y=np.arange(30))
    assert state_of(easy) == before
    group.insert(y=np.arange(100, 130))
    assert easy.seen == 60
    assert held["y"].max() < 30


def test_a_group_is_annotated_and_trained():
    group = make_group()
    group.insert(y=np.arange(100))
    group.mark_trained()
    group.insert(y=np.arange(100))
    group.annotate(lambda samples: {"double": 2 * samples["y"]})
    for memory in group.memories.values():
        np.testing.assert_array_equal(memory.samples["double"], 2 * memory.samples["y"])
        np.testing.assert_array_equal(memory.reference["double"], 2 * memory.reference["y"])


@pytest.mark.parametrize(
    ("members", "weights"),
    [({}, None), ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 0}), ({"a": 1}, {"a": float("nan")})],
)
def test_groups_that_make_no_sense(members, weights):
    memories = {name: Memory(5, FIFO()) for name in members}
    with pytest.raises(SettingError):
        Group(memories, weights)


def test_a_toy_stream_goes_through():
    memory = Memory(150, Reservoir())
    for _, samples in ToyStream(days=3):
        memory.insert(samples)
    assert isinstance(memory.samples, Samples)
    assert np.unique(memory.samples["day"]).tolist() == [0, 1, 2]


def test_memories_of_a_group_need_no_names():
    group = Group([Memory(2, FIFO()), Memory(4, FIFO())], weights=[1, 3])
    group.insert(y=np.arange(6))
    assert list(group.memories) == ["0", "1"]
    assert group.sample(4).size == 4
    with pytest.raises(SettingError, match="expected a positive one for each"):
        Group([Memory(2, FIFO())], weights=[1, 1])


def test_merging_keeps_count_of_what_was_seen():
    policy = DensityReservoir(density="rho", identify_by="id")
    left, right, empty = Memory(5, policy), Memory(5, policy), Memory(5, policy)
    left.insert(id=np.arange(8), rho=np.full(8, 0.1))
    right.insert(id=np.arange(8, 20), rho=np.full(12, 0.1))
    before = state_of(right)
    left.merge(right)
    assert (len(left), left.seen, left.inserts) == (5, 20, 1)
    assert state_of(right) == before
    left.merge(empty)
    assert (len(left), left.seen) == (5, 20)


def test_memories_of_other_kinds_do_not_merge():
    memory, other = Memory(2, FIFO()), Memory(2, FIFO())
    other.insert(y=[1])
    memory.insert(y=[1])
    with pytest.raises(SettingError, match="FIFO cannot merge"):
        memory.merge(other)
    with pytest.raises(SettingError, match="use one policy"):
        Memory(2, FIFO()).merge(Memory(2, Reservoir()))


def test_a_unit_goes_in_once_under_any_of_its_names(tmp_path):
    memory = Memory(50, Reservoir(), seed=3)
    assert memory.insert_unit(["monday", "file:1"], {"y": np.arange(40)}).kept == 40
    memory.save(tmp_path / "m")
    memory = Memory.load(tmp_path / "m")
    before = memory.dump()
    assert memory.insert_unit("file:1", {"y": np.arange(40)}) == Report(40, 0, 0)
    assert memory.insert_unit("monday", {"y": np.arange(3)}) == Report(3, 0, 0)
    assert repr(memory.dump()) == repr(before)
    memory.insert_unit("tuesday", {"y": np.arange(40)})
    assert memory.units == {"monday": 1, "file:1": 1, "tuesday": 2}


def test_a_unit_that_was_refused_may_come_again():
    memory = Memory(5, FIFO())
    memory.insert(y=[1])
    with pytest.raises(SchemaError):
        memory.insert_unit("monday", {"z": [1.0]})
    assert memory.units == {}
    assert memory.insert_unit("monday", {"y": [2]}).kept == 1


def test_units_are_remembered_for_long_but_not_for_ever(monkeypatch):
    monkeypatch.setattr("memento.contents._UNITS", 3)
    memory = Memory(5, FIFO())
    for number in range(5):
        memory.insert_unit(str(number), {"y": [number]})
    assert memory.units == {"2": 3, "3": 4, "4": 5}


def test_a_folder_from_before_units_loads():
    arrays, documents = Memory(5, FIFO()).dump()
    older = {n: v for n, v in documents["memory"].items() if n not in ("units", "reference_model")}
    memory = Memory.restore(arrays, {**documents, "memory": older})
    assert memory.units == {}
    assert memory.reference_model is None


def test_what_came_in_lately_is_saved_with_the_memory(tmp_path):
    memory = Memory(5, FIFO())
    memory.recent = Arrivals(cluster="c")
    rng = np.random.default_rng(0)
    for start in (0, 20):
        for part in memory.recent.arrive(Samples(c=np.arange(start, start + 20)), rng):
            memory.insert(part)
    memory.recent.evidence = 1.5
    memory.save(tmp_path / "m")
    loaded = Memory.load(tmp_path / "m").recent
    assert loaded is not None
    assert loaded.evidence == 1.5
    assert loaded.cluster == "c"
    (arrays, document), (again, document_again) = memory.recent.dump(), loaded.dump()
    assert document == document_again
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, again[name])


# ------------------------------------------------------------------------------- reading at random


def test_some_of_what_is_held_is_drawn_without_replacement():
    memory = Memory(None, Unbounded())
    memory.insert(y=np.arange(50), x=np.arange(50) / 2)
    before = state_of(memory)
    found = memory.get(20, rng=np.random.default_rng(0))
    assert found.size == 20
    assert (np.diff(found["y"]) > 0).all()
    np.testing.assert_array_equal(found["x"], found["y"] / 2)
    assert found["y"].tolist() == memory.get(20, rng=0)["y"].tolist()
    assert found["y"].tolist() != memory.get(20, rng=1)["y"].tolist()
    for count in (None, 50, 51, 10**9):
        assert memory.get(count)["y"].tolist() == list(range(50))
    assert memory.get(0, rng=0).size == 0
    assert state_of(memory) == before


def test_each_sample_is_as_likely_to_be_drawn():
    """4,000 times 5 of 20: binomial counts; |z| > 4.3 for one of 20 once in 3,000 runs."""
    memory = Memory(None, Unbounded())
    memory.insert(y=np.arange(20))
    rng = np.random.default_rng(3)
    counts = np.zeros(20)
    for _ in range(4000):
        counts[memory.get(5, rng=rng)["y"]] += 1
    assert np.abs((counts - 1000) / np.sqrt(4000 * 0.25 * 0.75)).max() < 4.3


def test_minibatches_follow_the_weights():
    """20,000 draws: binomial counts; |z| > 4.3 for one of 40 once in 1,500 runs."""
    memory = Memory(40, LossReservoir(), seed=0)
    rng = np.random.default_rng(1)
    memory.insert(y=np.arange(400), loss=rng.gamma(0.5, size=400))
    shares = memory.weights / memory.weights.sum()
    assert shares.max() > 2 * shares.min()
    before = state_of(memory)
    drawn = memory.sample(20_000, rng=rng)["y"]
    counts = (drawn[:, None] == memory.samples["y"]).sum(axis=0)
    z = (counts - 20_000 * shares) / np.sqrt(20_000 * shares * (1 - shares))
    assert np.abs(z).max() < 4.3
    assert state_of(memory) == before
    equal = Memory(None, Unbounded())
    equal.insert(y=[7])
    assert equal.sample(3, rng=0)["y"].tolist() == [7, 7, 7]


def test_draws_that_cannot_be_made():
    memory = Memory(None, Unbounded())
    assert memory.get().size == memory.get(3).size == memory.sample(0, rng=0).size == 0
    with pytest.raises(RowError, match="nothing is held"):
        memory.sample(1, rng=0)
    memory.insert(y=[1, 2, 3])
    for draw in (memory.get, memory.sample):
        for wrong in (-1, 1.5, "2", True):
            with pytest.raises(SettingError, match="count is"):
                draw(wrong, rng=0)
        with pytest.raises(SettingError, match="rng is 'x'; expected"):
            draw(1, rng="x")
    with pytest.raises(SettingError, match="rng is None; expected"):
        memory.get(1)


@pytest.mark.parametrize("other", ["mem", None, {"y": [1]}])
def test_what_is_no_memory_cannot_be_merged(other):
    with pytest.raises(SettingError, match=r"other is .*expected another memory"):
        Memory(5, DensityReservoir(density="rho", identify_by="id")).merge(other)
