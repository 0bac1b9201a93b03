"""Threads and interrupts: a memory is whole at any moment, and no call waits for ever."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import memento
from memento import FIFO, DensityReservoir, Group, Memory, Reservoir
from memento.errors import MementoError
from memento.guarded import to_the_end


def rows_of(start: int, size: int) -> dict[str, np.ndarray]:
    """Columns that all say which sample a row is."""
    number = np.arange(start, start + size)
    return {
        "number": number,
        "wide": np.repeat(number[:, None] * 2.0, 3, 1),
        "text": number.astype(str),
        "loss": number * 0.5,
    }


def mixed_rows(samples) -> int:
    """Rows whose columns are of different samples."""
    if not samples.size:
        return 0
    number = samples["number"]
    wrong = (samples["wide"] != number[:, None] * 2.0).any(axis=1)
    return int((wrong | (samples["text"] != number.astype(str))).sum())


@pytest.mark.parametrize("kind", ["small", "large", "group"])
def test_threads_find_and_leave_whole_samples(kind, tmp_path):
    """Rows come, are looked at, annotated, saved, merged and weighed at once."""
    capacity, size = (200, 300) if kind == "small" else (9000, 12_000)
    policy = Reservoir()
    memory = Memory(capacity, policy)
    shared = memory if kind != "group" else Group({"a": memory, "b": Memory(capacity, FIFO())})
    shared.insert(rows_of(0, size))
    wrong: list[object] = []
    until = time.monotonic() + 1.5
    numbers = iter(range(size, 10**9, size))

    def insert() -> None:
        shared.insert(rows_of(next(numbers), size))

    def look() -> None:
        wrong.extend([mixed_rows(shared.samples)] * bool(mixed_rows(shared.samples)))

    def annotate() -> None:
        with memory.lock:
            memory.annotate(loss=memory.samples["number"] * 0.5)

    def weigh() -> None:
        with memory.lock:
            assert len(memory.weights) == memory.samples.size == len(memory.arrivals)

    def save() -> None:
        memory.save(tmp_path / "m")
        assert not mixed_rows(Memory.load(tmp_path / "m").samples)

    def duplicate() -> None:
        twin = copy.deepcopy(memory)
        assert not mixed_rows(twin.samples)

    def work(action) -> None:
        while time.monotonic() < until:
            try:
                action()
            except Exception as error:
                wrong.append(error)
                return

    actions = (insert, insert, look, look, annotate, weigh, save, duplicate)
    threads = [threading.Thread(target=work, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert memory.seen == sum(1 for _ in range(memory.inserts)) * size


def test_copies_share_nothing_that_an_insert_changes():
    memory = Memory(9000, FIFO())
    memory.insert(rows_of(0, 9000))
    for twin in (copy.copy(memory), copy.deepcopy(memory), pickle.loads(pickle.dumps(memory, 5))):  # noqa: S301
        for one in (memory, twin):
            start = int(one.samples["number"][-1]) + 1
            one.insert(rows_of(start, 100))
            assert not mixed_rows(memory.samples)
            assert not mixed_rows(twin.samples)
            assert one.samples["number"].tolist() == list(range(start - 8900, start + 100))


def test_memories_that_merge_each_other_do_not_wait_for_ever():
    policy = DensityReservoir(density="rho", identify_by="id")
    left, right = Memory(50, policy), Memory(50, policy)
    for start, memory in enumerate((left, right)):
        memory.insert(id=np.arange(start, 200, 2), rho=np.full(100, 0.1))

    def merge(one, other):
        for _ in range(50):
            one.merge(other)

    threads = [threading.Thread(target=merge, args=pair) for pair in ((left, right), (right, left))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


_INTERRUPTED = """
import signal, sys, time
import numpy as np
from memento import FIFO, Group, Memory, Reservoir
sys.path.insert(0, {folder!r})
from test_guarded import mixed_rows, rows_of

SIZE = 20_000
def make():
    memories = {{"a": Memory(SIZE, Reservoir(), seed=3), "b": Memory(SIZE, FIFO())}}
    group = Group(memories)
    group.insert(rows_of(0, SIZE))
    return group, memories

def act(group, number):
    if number % 3 == 2:
        group.annotate(lambda samples: {{"loss": samples["number"] * (number + 1.0)}})
    else:
        group.insert(rows_of(SIZE * (number + 1), SIZE))

def picture(memories):
    return [
        (m.inserts, m.arrivals.tobytes(), *(m.samples[n].tobytes() for n in ("number", "loss")))
        for m in memories.values()
    ]

def stop(number, frame):
    raise KeyboardInterrupt

group, memories = make()
plain, expected = make()
rng = np.random.default_rng({seed})
signal.signal(signal.SIGALRM, stop)
interrupted, end = 0, time.monotonic() + 60
for number in range({actions}):
    if interrupted and time.monotonic() > end:
        break
    before = picture(expected)
    begun = time.monotonic()
    act(plain, number)
    # Where others take the processor, a change must still be able to end between two signals.
    took = time.monotonic() - begun
    after = picture(expected)
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.exponential(0.01) + 1e-5, max(1e-3, took))
        act(group, number)
    except KeyboardInterrupt:
        interrupted += 1
    finally:
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except KeyboardInterrupt:
                pass
    now = picture(memories)
    assert not any(mixed_rows(m.samples) for m in memories.values())
    if now != after:
        assert now == before, "neither before nor after"
        act(group, number)
assert interrupted > 0
print("interrupted", interrupted)
"""


# Rows are moved by one compiled call, which no interrupt enters; as plain Python it has lines.
@pytest.mark.compiled
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupts_at_any_moment_leave_before_or_after(seed):
    """Signals come at random moments, and go on coming while a change is taken to its end."""
    folder = __file__.rpartition("/")[0]
    script = _INTERRUPTED.format(folder=folder, seed=seed, actions=30 if seed == 0 else 300)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]


class _FailsAtLine:
    """A tracer that counts the library's lines, and fails at one of them."""

    def __init__(self, line: int, failure: type[BaseException]) -> None:
        self.lines = 0
        self._line = line
        self._failure = failure

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(memento.__path__[0]):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._line:
                raise self._failure
        return self


# Rows are moved by one compiled call, which no interrupt enters; as plain Python it has lines.
@pytest.mark.compiled
@pytest.mark.parametrize("grouped", [False, True], ids=["memory", "group"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, RecursionError, RuntimeError])
def test_a_failure_in_any_line_leaves_before_or_after(failure, grouped):
    """Raised by the tracer, as if by an interrupt, at one line of the library after the other."""

    def make() -> Memory | Group:
        memory = Memory(9000, Reservoir(), seed=1)
        made = Group({"any": memory, "new": Memory(9000, FIFO())}) if grouped else memory
        made.insert(rows_of(0, 9000))
        return made

    def picture(made: Memory | Group):
        # Members are looked at themselves, as their owner may, and not through the group.
        members = made.memories.values() if isinstance(made, Group) else [made]
        dumps = [memory.dump() for memory in members]
        return [
            (str(documents), {name: array.tobytes() for name, array in arrays.items()})
            for arrays, documents in dumps
        ]

    plain = make()
    before = picture(plain)
    fresh = rows_of(9000, 5000)
    plain.insert(fresh)
    after = picture(plain)
    interrupt_at, total = 0, 10**9
    while interrupt_at < total:
        memory, tracer = make(), _FailsAtLine(interrupt_at, failure)
        sys.settrace(tracer)
        try:
            memory.insert(fresh)
        except (failure, MementoError):  # readers of columns make one of any
            pass
        finally:
            sys.settrace(None)
        now = picture(memory)
        assert now in (before, after)
        if now == before:
            memory.insert(fresh)
            assert picture(memory) == after
        total = tracer.lines if interrupt_at == 0 else total
        interrupt_at += random.Random(interrupt_at).randint(1, max(1, total // 40))
    assert total > 30


def test_what_cannot_be_ended_is_gone_on_with_at_the_next_call(monkeypatch):
    memory, plain = Memory(9000, Reservoir(), seed=1), Memory(9000, Reservoir(), seed=1)
    for one in (memory, plain):
        one.insert(rows_of(0, 9000))
    plain.insert(rows_of(9000, 100))

    def no_room(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(memento.contents.Overwrite, "apply", no_room)
        with pytest.raises(MemoryError):
            memory.insert(rows_of(9000, 100))
        with pytest.raises(MemoryError):
            _ = memory.samples
    assert memory.inserts == 2
    assert memory.samples["number"].tolist() == plain.samples["number"].tolist()


def test_interrupts_are_raised_once_the_steps_are_done():
    left: list[BaseException] = [MemoryError(), KeyboardInterrupt(), KeyboardInterrupt()]

    def steps():
        if left:
            raise left.pop()

    with pytest.raises(KeyboardInterrupt):
        to_the_end(steps)
    assert not left
    left.append(MemoryError())
    to_the_end(steps)


def test_an_interrupt_before_the_first_step_leaves_nothing_to_come(monkeypatch):
    """Members looked as before, and an insert that was tried again came twice."""
    group = Group({"any": Memory(50, Reservoir()), "new": Memory(50, FIFO())})
    group.insert(rows_of(0, 60))

    def interrupted(steps):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(memento.group, "to_the_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            group.insert(rows_of(60, 60))
    assert [memory.inserts for memory in group.memories.values()] == [1, 1]
    group.insert(rows_of(60, 60))
    assert [memory.inserts for memory in group.memories.values()] == [2, 2]


def test_an_interrupt_between_two_tries_does_not_end_them(monkeypatch):
    """One comes while another is dealt with: both are raised after the steps, as one."""
    done = []

    class Tries(int):
        """The limit; comparing with it is what happens between two tries."""

        def __gt__(self, tries):
            if tries == 1 and not done:
                done.append("interrupted")
                raise InterruptedError
            return True

    def steps():
        done.append("step")
        if done == ["step"]:
            done.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(memento.guarded, "_TRIES", Tries(1000))
    with pytest.raises(InterruptedError):
        to_the_end(steps)
    assert done == ["interrupted", "step"]
