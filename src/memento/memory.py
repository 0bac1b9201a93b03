"""Memory: contents, a policy and a generator, joined by arguments."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.errors import ForeignError, SchemaError, SettingError, StorageError
from memento.files import Lock
from memento.policies._policy import Choice, Policy, State, policy_from_settings
from memento.samples import Samples

__all__ = ["Group", "Memory", "Report"]

_KIND = "memento-memory"
_GROUP_KIND = "memento-group"
# Rows that need a conversion are moved in pieces of about this many bytes: small beside the data.
_PIECE = 1 << 25
# Units that are remembered: thirty years of days.
_UNITS = 10_000


@dataclass(frozen=True)
class Report:
    """What an insert did.

    Attributes:
        offered: Samples that came.
        kept: How many of these were kept.
        discarded: Samples that went, of those offered and of those held before.
    """

    offered: int
    kept: int
    discarded: int


class Memory:
    """Holds at most ``capacity`` samples of an endless stream, chosen by a policy.

    Args:
        capacity: Most samples to hold, at least 1; None for no limit (only with policies that keep
            everything).
        policy: Decides what stays, such as `Memento`.
        seed: Of the memory's own generator: an integer, or a ``numpy.random.Generator``, which then
            belongs to the memory.

    Raises:
        SettingError: The capacity is not positive, or too small for the policy.

    Example:
        >>> from memento import FIFO, Memory
        >>> memory = Memory(capacity=3, policy=FIFO(), seed=0)
        >>> memory.insert(x=[[0.0], [1.0]], y=[0, 1])
        Report(offered=2, kept=2, discarded=0)
        >>> memory.insert(x=[[2.0], [3.0]], y=[1, 0]).discarded
        1
        >>> memory.samples["y"], len(memory), memory.seen
        (array([1, 1, 0]), 3, 4)
    """

    def __init__(
        self, capacity: int | None, policy: Policy, seed: int | np.random.Generator = 0
    ) -> None:
        if not isinstance(policy, Policy):
            raise SettingError(f"policy is {policy!r}; expected a Policy, such as memento.FIFO()")
        if capacity is not None:
            number = isinstance(capacity, (int, float, np.integer))
            if not number or capacity is True or not (capacity >= 1 and capacity % 1 == 0):
                raise SettingError(f"capacity is {capacity!r}; expected a whole number above 0")
            capacity = int(capacity)
        policy.check_capacity(capacity)
        self._capacity = capacity
        self._policy = policy
        self._rng = np.random.default_rng(seed)
        self._buffers: dict[str, np.ndarray] = {}
        self._leases: dict[str, weakref.ref[_Lease]] = {}
        self._size = 0
        self._arrivals = np.empty(0, np.int64)
        self._state = State()
        self._seen = 0
        self._inserts = 0
        self._last_size = 0
        self._reference: Samples | None = None
        self._origin: tuple[Path, int] | None = None
        #: Digest of the model that made the predictions held, for the caller to set; None: unknown.
        self.model: str | None = None
        #: The same of the predictions in `reference`; `mark_trained` makes it unknown.
        self.reference_model: str | None = None
        self._units: dict[str, int] = {}

    @property
    def capacity(self) -> int | None:
        """Most samples to hold; None for no limit."""
        return self._capacity

    @property
    def policy(self) -> Policy:
        """What decides which samples stay."""
        return self._policy

    @property
    def seen(self) -> int:
        """Samples offered so far."""
        return self._seen

    @property
    def inserts(self) -> int:
        """Inserts so far."""
        return self._inserts

    @property
    def units(self) -> Mapping[str, int]:
        """Names given to `insert_unit`, the last 10,000, and with which insert each came."""
        return dict(self._units)

    @property
    def state(self) -> State:
        """What the policy remembers; not to be changed."""
        return self._state

    @property
    def arrivals(self) -> np.ndarray:
        """``(len,)`` int64: with which insert each sample came, from 1."""
        return self._arrivals.copy()

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        limit = "no limit" if self._capacity is None else f"{self._capacity:,}"
        return f"<Memory of {self._size:,} samples (capacity {limit}) by {self._policy!r}>"

    @property
    def samples(self) -> Samples:
        """What is held, in order of arrival: read-only, and unaffected by later inserts.

        Nothing is copied now; an insert makes a copy only if these arrays are still in use then.
        """
        return Samples.borrow({name: self._lend(name) for name in self._buffers})

    @property
    def weights(self) -> np.ndarray | None:
        """``(len,)`` weights for training, or None if the policy cannot state any.

        Estimates of how many samples of the stream each sample stands for: 1 / its probability to
        be held.
        """
        return self._policy.weights(self._state, self._size)

    def insert(self, data: Any = None, /, **columns: Any) -> Report:
        """Offer new samples; the policy decides what stays.

        Args:
            data: A mapping, DataFrame, Arrow table or `Samples`; see `Samples`.
            **columns: Columns by name, instead or in addition.

        Returns:
            What happened. No rows at all change nothing.

        Raises:
            SchemaError: Columns are missing or unknown, or of another type, width or length.
            DomainError: Values that the policy cannot work with.

        If it raises, the memory is as it was; only an interrupt from the keyboard may be raised
        when the insert is complete (`inserts` tells).
        """
        fresh = Samples.borrow(data, **columns)
        self.check(fresh)
        if not fresh.size:
            return Report(0, 0, 0)
        before, inserts = self._rng.bit_generator.state, self._inserts
        try:
            choice = self._policy.choose(
                self._held(), fresh, self._capacity, self._state, self._rng
            )
            self._check_choice(choice, fresh.size)
            _uninterrupted(lambda: self._commit(choice, fresh))
        except BaseException:
            # An interrupt that came during the commit is raised after it, and then nothing is
            # undone.
            if self._inserts == inserts:
                self._rng.bit_generator.state = before
            raise
        kept = int(np.count_nonzero(self._arrivals == self._inserts))
        discarded = int(self._last_size + fresh.size - self._size)
        return Report(fresh.size, kept, discarded)

    def insert_unit(self, names: str | Sequence[str], data: Any) -> Report:
        """Insert a unit of the stream, a day say, unless it went in before: safe to repeat.

        Args:
            names: What the unit is called; several names if it goes by any of them.
            data: As for `insert`, which says what is raised.

        Returns:
            What happened. Where a name is among `units`, nothing did: none kept, none discarded.

        Example:
            >>> from memento import FIFO, Memory
            >>> memory = Memory(10, FIFO())
            >>> memory.insert_unit("2026-01-07", {"y": [0, 1]})
            Report(offered=2, kept=2, discarded=0)
            >>> memory.insert_unit("2026-01-07", {"y": [0, 1]}), len(memory)
            (Report(offered=2, kept=0, discarded=0), 2)
        """
        names = [names] if isinstance(names, str) else list(names)
        fresh = Samples.borrow(data)
        if any(name in self._units for name in names):
            return Report(fresh.size, 0, 0)
        inserts = self._inserts
        try:
            return self.insert(fresh)
        finally:
            if self._inserts != inserts:  # also when an interrupt is raised after the insert
                self._remember(dict.fromkeys(names, self._inserts))

    def check(self, data: Any = None, /, **columns: Any) -> None:
        """Raise what `insert` would raise about these samples, and change nothing.

        Args and errors are those of `insert`.
        """
        fresh = Samples.borrow(data, **columns)
        self._check_schema(fresh)
        if fresh.size:
            self._policy.check(fresh)

    def merge(self, other: Memory) -> None:
        """Take in what another memory holds, of a stream that shares no sample with this one's.

        Args:
            other: With an equal policy; it is not changed.

        Raises:
            SettingError: The policies differ, or cannot merge (`DensityReservoir` can).
            SchemaError: The columns do not fit.

        Example:
            >>> from memento import DensityReservoir, Memory
            >>> policy = DensityReservoir(density="rho", identify_by="id")
            >>> whole, left, right = (Memory(5, policy) for _ in range(3))
            >>> rho, number = np.linspace(0.01, 0.3, 20), np.arange(20)
            >>> for memory, rows in ((whole, number), (left, number[:8]), (right, number[8:])):
            ...     report = memory.insert(id=rows, rho=rho[rows])
            >>> left.merge(right)
            >>> np.array_equal(left.samples["id"], whole.samples["id"]), left.seen
            (True, 20)
        """
        if other.policy.settings() != self._policy.settings():
            raise SettingError(
                f"cannot merge {other.policy!r} into {self._policy!r}; use one policy"
            )
        if not len(other):
            self._seen += other.seen
            self._remember(other.units)
            return
        samples = other.samples
        self._check_schema(samples)
        choice = self._policy.merge(self._state, other.state, self._capacity)
        self._check_choice(choice, samples.size)
        seen, inserts = self._seen + other.seen, max(self._inserts, other.inserts)
        arrivals = np.concatenate([self._arrivals, other.arrivals])[choice.rows]
        self._commit(choice, samples)
        self._seen, self._inserts, self._arrivals = seen, inserts, arrivals
        self._remember(other.units)

    def annotate(self, data: Any = None, /, **columns: Any) -> None:
        """Replace columns, or add them, for everything that is held.

        For predictions after the model has changed. Rows are in the order of `samples`.

        Raises:
            SchemaError: Another number of rows.
            DomainError: Values that the policy cannot work with.
        """
        fresh = Samples.borrow(data, **columns)
        if fresh.size != self._size:
            raise SchemaError(
                f"{fresh.size:,} rows for {self._size:,} samples held; give one row for each, in "
                "the order of memory.samples"
            )
        self._policy.check(self._held().with_columns(fresh))
        for name, array in fresh.items():
            self._buffers[name] = array.copy()
            self._leases.pop(name, None)

    @property
    def reference(self) -> Samples | None:
        """What was held at the last training; None before the first."""
        return self._reference

    def mark_trained(self) -> None:
        """Declare that a model was trained on what is held now: it becomes the reference."""
        self._reference = self.samples
        self.reference_model = None

    def annotate_reference(self, data: Any = None, /, **columns: Any) -> None:
        """Replace columns of the reference, or add them; like `annotate`.

        Raises:
            SchemaError: There is no reference, or it has another number of rows.
        """
        if self._reference is None:
            raise SchemaError("nothing was trained yet, so there is no reference to annotate")
        self._reference = self._reference.with_columns(Samples(data, **columns))

    def save(self, path: str | Path, *, lock: Lock | None = None) -> None:
        """Write everything to a folder, from which `load` goes on exactly.

        Args:
            path: Made if it does not exist; what it holds is replaced at once, or not at all.
            lock: The folder's lock (``memento.snapshot.lock_of``), if the caller holds it.

        Raises:
            ForeignError: The folder holds something else.
            LockedError: Another process is writing to it.
            StorageError: It was written by somebody else since this memory was loaded from it.
            SpaceError: No room; the folder is as it was.
        """
        folder = Path(path)
        if self._origin is not None and self._origin[0] == folder.absolute():
            current = snapshot.generation_of(folder)
            if current != self._origin[1]:
                raise StorageError(
                    f"{folder} was changed since this memory was loaded (generation {current}, "
                    f"loaded {self._origin[1]}); load it again and repeat the insert"
                )
        generation = snapshot.write(folder, _KIND, *self.dump(), lock=lock)
        self._origin = (folder.absolute(), generation)

    @classmethod
    def load(cls, path: str | Path, policy: Policy | None = None) -> Memory:
        """Read a memory that `save` wrote.

        Args:
            path: The folder.
            policy: Needed if the policy or a distance is one of your own that is not registered by
                name; has to have the settings that were saved.

        Raises:
            ForeignError: The folder holds no memory, or one with another policy.
            DamagedError: Its content differs from its manifest.
            SettingError: The policy is unknown here.
        """
        folder = Path(path)
        found = snapshot.read(folder, _KIND)
        memory = cls.restore(found.arrays, found.documents, policy)
        memory._origin = (folder.absolute(), found.generation)
        return memory

    def dump(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON documents from which `restore` makes an equal memory."""
        arrays = {f"column/{name}": array for name, array in self._held().items()}
        arrays["arrivals"] = self._arrivals
        arrays |= {f"mark/{name}": mark for name, mark in self._state.marks.items()}
        if self._reference is not None:
            arrays |= {f"reference/{name}": array for name, array in self._reference.items()}
        contents = {
            "capacity": self._capacity,
            "size": self._size,
            "seen": self._seen,
            "inserts": self._inserts,
            "counters": dict(self._state.counters),
            "trained": self._reference is not None,
            "model": self.model,
            "reference_model": self.reference_model,
            "units": dict(self._units),
        }
        generator = snapshot.generator_document(self._rng)
        return arrays, {
            "memory": contents,
            "policy": self._policy.settings(),
            "generator": generator,
        }

    @classmethod
    def restore(
        cls,
        arrays: Mapping[str, np.ndarray],
        documents: Mapping[str, Any],
        policy: Policy | None = None,
    ) -> Memory:
        """The memory that `dump` described; arguments and errors as for `load`."""
        contents = documents["memory"]
        if policy is None:
            policy = policy_from_settings(documents["policy"])
        elif (given := _through_json(policy.settings())) != documents["policy"]:
            differing = [
                name
                for name in {*given, *documents["policy"]}
                if given.get(name) != documents["policy"].get(name)
            ]
            raise ForeignError(
                f"the memory's policy differs from the one given in {', '.join(sorted(differing))}:"
                f" saved {documents['policy'].get(differing[0])!r}, given "
                f"{given.get(differing[0])!r}"
            )
        memory = cls(contents["capacity"], policy, snapshot.generator_from(documents["generator"]))
        memory._size = contents["size"]
        memory._seen = contents["seen"]
        memory._inserts = contents["inserts"]
        memory.model = contents["model"]
        # Folders that were written before these were known lack them.
        memory.reference_model = contents.get("reference_model")
        memory._units = dict(contents.get("units", {}))
        memory._arrivals = arrays["arrivals"]
        # What cannot be written to belongs to somebody else, such as a memory that was dumped.
        memory._buffers = {
            name: array if array.flags.writeable else array.copy()
            for name, array in snapshot.with_prefix(arrays, "column/").items()
        }
        memory._state = State(contents["counters"], snapshot.with_prefix(arrays, "mark/"))
        if contents["trained"]:
            memory._reference = Samples.borrow(snapshot.with_prefix(arrays, "reference/"))
        return memory

    def adopt(self, other: Memory) -> None:
        """Become equal to another memory, which is used up.

        Raises:
            ForeignError: It has another capacity.
        """
        if other.capacity != self._capacity:
            raise ForeignError(
                f"the saved memory has capacity {other.capacity}, this one {self._capacity}; "
                "make it with the capacity that was saved"
            )
        self.__dict__.update(other.__dict__)

    def _held(self) -> Samples:
        """The rows held, without protection from later changes: for use inside one call."""
        return Samples.borrow(
            {name: buffer[: self._size] for name, buffer in self._buffers.items()}
        )

    def _lend(self, name: str) -> np.ndarray:
        """A read-only view that keeps its lease alive for as long as anything made from it."""
        reference = self._leases.get(name)
        lease = reference() if reference is not None else None
        if lease is None:
            lease = _Lease(self._buffers[name][: self._size])
            self._leases[name] = weakref.ref(lease)
        return np.asarray(lease)

    def _is_lent(self, name: str) -> bool:
        reference = self._leases.get(name)
        return reference is not None and reference() is not None

    def _remember(self, units: Mapping[str, int]) -> None:
        self._units = dict([*self._units.items(), *units.items()][-_UNITS:])

    def _check_schema(self, fresh: Samples) -> None:
        if not len(fresh):
            raise SchemaError("no columns; give at least one")
        if not self._buffers:
            return
        missing = sorted(set(self._buffers) - set(fresh))
        unknown = sorted(set(fresh) - set(self._buffers))
        if missing or unknown:
            found = [f"missing {', '.join(missing)}"] * bool(missing)
            found += [f"unknown {', '.join(unknown)}"] * bool(unknown)
            raise SchemaError(
                f"columns differ from those held: {'; '.join(found)}; this memory holds "
                f"{', '.join(self._buffers)}"
            )
        for name, array in fresh.items():
            held = self._buffers[name]
            if array.shape[1:] != held.shape[1:]:
                raise SchemaError(
                    f"column {name!r} has rows of shape {array.shape[1:]}; this memory holds "
                    f"{held.shape[1:]}"
                )
            if not _fits(array.dtype, held.dtype):
                raise SchemaError(
                    f"column {name!r} is of type {array.dtype}, this memory holds {held.dtype} and "
                    f"a conversion could lose something; "
                    f"convert it with .astype({held.dtype.name!r})"
                )

    def _check_choice(self, choice: Choice, fresh: int) -> None:
        """Catch faulty policies (a user's, say) before they can do damage."""
        rows = choice.rows
        limit = self._size + fresh
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise SettingError(
                f"{self._policy!r} chose rows of type {rows.dtype}, shape {rows.shape}; expected "
                "a one-dimensional array of integers"
            )
        if len(rows) and (rows[0] < 0 or rows[-1] >= limit or not (rows[1:] > rows[:-1]).all()):
            raise SettingError(
                f"{self._policy!r} chose rows that are not ascending within 0 to {limit - 1}"
            )
        if self._capacity is not None and len(rows) > self._capacity:
            raise SettingError(
                f"{self._policy!r} chose {len(rows):,} rows; the capacity is {self._capacity:,}"
            )
        for name, mark in choice.marks.items():
            if len(mark) != len(rows):
                raise SettingError(
                    f"{self._policy!r} gave {len(mark):,} marks {name!r} for {len(rows):,} rows"
                )

    def _commit(self, choice: Choice, fresh: Samples) -> None:
        """Make the chosen rows the contents. What can fail (allocation) comes first."""
        rows = choice.rows
        split = int(np.searchsorted(rows, self._size))
        old, new = rows[:split], rows[split:] - self._size
        if not self._buffers:
            self._buffers = {name: array[:0].copy() for name, array in fresh.items()}
        targets = {name: self._room(name, len(rows), fresh[name].dtype) for name in self._buffers}
        arrivals = np.concatenate(
            [self._arrivals[old], np.full(len(new), self._inserts + 1, np.int64)]
        )
        state = State(
            dict(choice.counters), {name: np.array(mark) for name, mark in choice.marks.items()}
        )
        for name, target in targets.items():
            _move(self._buffers[name], old, target, 0)
            _move(fresh[name], new, target, split)
            if target is not self._buffers[name]:
                self._leases.pop(name, None)
                self._buffers[name] = target
        self._last_size = self._size
        self._size = len(rows)
        self._arrivals = arrivals
        self._state = state
        self._seen += fresh.size
        self._inserts += 1

    def _room(self, name: str, size: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Where a column's new content goes: into its buffer, unless that is lent or too small."""
        buffer = self._buffers[name]
        dtype = np.promote_types(buffer.dtype, dtype) if buffer.dtype.kind in "US" else buffer.dtype
        if len(buffer) >= size and dtype == buffer.dtype and not self._is_lent(name):
            return buffer
        room = size
        if size > len(buffer) > 0:  # growing: leave room for more, but never beyond the capacity
            room = max(size, len(buffer) * 3 // 2)
            room = room if self._capacity is None else max(size, min(room, self._capacity))
        return np.empty((room, *buffer.shape[1:]), dtype)


class _Lease:
    """Memory lent out: alive as long as any array made from it, which holds a reference to it.

    numpy keeps the object behind ``__array_interface__`` as the base of the array, and of every
    view of that array.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array  # keeps the memory itself alive
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], True)  # read-only
        self.__array_interface__ = interface


class Group:
    """Several memories side by side, fed with the same stream.

    Args:
        memories: By name, at least one; without names they are called "0", "1", and so on.
        weights: Share of each in what `sample` draws, above 0, by name or in the same order; equal
            if left out.
        seed: Of the generator that `sample` draws with.

    Raises:
        SettingError: No memory, or weights that do not fit.

    Example:
        >>> from memento import FIFO, Group, Memory, Reservoir
        >>> group = Group(
        ...     {"new": Memory(2, FIFO()), "any": Memory(2, Reservoir())}, {"new": 3, "any": 1}
        ... )
        >>> group.insert(y=[0, 1, 2, 3])["new"].kept
        2
        >>> group.sample(3).size, len(group)
        (3, 4)
    """

    def __init__(
        self,
        memories: Mapping[str, Memory] | Sequence[Memory],
        weights: Mapping[str, float] | Sequence[float] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        memories = _by_name(memories)
        if not memories:
            raise SettingError("a group of no memories; give at least one")
        shares = dict.fromkeys(memories, 1.0) if weights is None else _by_name(weights)
        if set(shares) != set(memories) or not all(share > 0 for share in shares.values()):
            raise SettingError(
                f"weights for {sorted(shares)}; expected a positive one for each of "
                f"{sorted(memories)}"
            )
        self.memories = dict(memories)
        self.shares = {name: float(shares[name]) for name in memories}
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return sum(len(memory) for memory in self.memories.values())

    @property
    def capacity(self) -> int | None:
        """Sum of the capacities; None if one has no limit."""
        total = 0
        for memory in self.memories.values():
            if memory.capacity is None:
                return None
            total += memory.capacity
        return total

    @property
    def samples(self) -> Samples:
        """What all memories hold, one after the other; a sample may be held by several."""
        return Samples.concat([memory.samples for memory in self.memories.values() if len(memory)])

    @property
    def weights(self) -> np.ndarray | None:
        """``(len,)`` training weights that give each memory its share; None if one has none.

        Within a memory they are in proportion to its own weights, and its total is its share of
        the number of samples held.
        """
        held = [memory for memory in self.memories.values() if len(memory)]
        found = [memory.weights for memory in held]
        if not found or any(weights is None for weights in found):
            return None
        shares = np.array([s for n, s in self.shares.items() if len(self.memories[n])])
        parts = len(self) * shares / shares.sum()
        return np.concatenate(
            [w / w.sum() * part for w, part in zip(found, parts, strict=True) if w is not None]
        )

    def insert(self, data: Any = None, /, **columns: Any) -> dict[str, Report]:
        """Offer new samples to every memory.

        Raises:
            InputError: One of the memories cannot take them; then none has changed.
        """
        fresh = Samples.borrow(data, **columns)
        before = {name: memory.dump() for name, memory in self.memories.items()}
        reports: dict[str, Report] = {}
        # Held for the time of the insert, so that no buffer is changed in place.
        held = [memory.samples for memory in self.memories.values()]
        try:
            for name, memory in self.memories.items():
                reports[name] = memory.insert(fresh)
        except BaseException:
            for name in reports:
                memory = self.memories[name]
                arrays, documents = before[name]
                memory.adopt(Memory.restore(arrays, documents, memory.policy))
            raise
        finally:
            del held
        return reports

    def annotate(self, predict: Callable[[Samples], Mapping[str, Any]]) -> None:
        """Replace or add columns in every memory, for its samples and its reference.

        Args:
            predict: From samples to columns for them, as `Learner.annotate`.
        """
        for memory in self.memories.values():
            if len(memory):
                memory.annotate(predict(memory.samples))
            if memory.reference is not None:
                memory.annotate_reference(predict(memory.reference))

    def mark_trained(self) -> None:
        """Declare that a model was trained on what is held now."""
        for memory in self.memories.values():
            memory.mark_trained()

    def sample(self, size: int) -> Samples:
        """Draw samples at random, without replacement within a memory, split by the weights.

        Args:
            size: How many; fewer come where a memory holds fewer than its share.

        Returns:
            Rows of the memories, one memory after the other.
        """
        names = [name for name in self.memories if len(self.memories[name])]
        shares = np.array([self.shares[name] for name in names])
        exact = size * shares / shares.sum()
        counts = np.floor(exact).astype(int)
        # What rounding left over goes to the largest fractions.
        for i in np.argsort(counts - exact, kind="stable")[: size - counts.sum()]:
            counts[i] += 1
        drawn = []
        for name, count in zip(names, counts, strict=True):
            held = self.memories[name].samples
            drawn.append(
                held.take(np.sort(self._rng.permutation(held.size)[: min(count, held.size)]))
            )
        return Samples.concat(drawn)

    def save(self, path: str | Path, *, lock: Lock | None = None) -> None:
        """Write all memories to one folder, at once; errors as for `Memory.save`."""
        arrays: dict[str, np.ndarray] = {}
        documents: dict[str, Any] = {
            "group": {
                "shares": self.shares,
                "generator": snapshot.generator_document(self._rng),
            }
        }
        for name, memory in self.memories.items():
            found, texts = memory.dump()
            arrays |= {f"{name}/{key}": array for key, array in found.items()}
            documents |= {f"{name}/{key}": text for key, text in texts.items()}
        snapshot.write(Path(path), _GROUP_KIND, arrays, documents, lock=lock)

    @classmethod
    def load(cls, path: str | Path, policies: Mapping[str, Policy] | None = None) -> Group:
        """Read a group that `save` wrote; arguments and errors as for `Memory.load`."""
        found = snapshot.read(Path(path), _GROUP_KIND)
        settings = found.documents["group"]
        memories = {}
        for name in settings["shares"]:
            memories[name] = Memory.restore(
                snapshot.with_prefix(found.arrays, f"{name}/"),
                snapshot.with_prefix(found.documents, f"{name}/"),
                (policies or {}).get(name),
            )
        return cls(memories, settings["shares"], snapshot.generator_from(settings["generator"]))


def _by_name(values: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(values, Mapping):
        return dict(values)
    return {str(number): value for number, value in enumerate(values)}


def _move(source: np.ndarray, rows: np.ndarray, target: np.ndarray, start: int) -> None:
    """``target[start:start + len(rows)] = source[rows]``, also where target is source."""
    if source.dtype == target.dtype and source.flags.c_contiguous:
        from memento._kernels import moving

        moving.move_rows(source, rows, target, start)
        return
    row_bytes = max(1, target.dtype.itemsize * int(np.prod(target.shape[1:])))
    step = max(1, _PIECE // row_bytes)
    for i in range(0, len(rows), step):
        piece = rows[i : i + step]
        target[start + i : start + i + len(piece)] = source[piece]


def _fits(given: np.dtype[Any], held: np.dtype[Any]) -> bool:
    if given.kind in "US" and given.kind == held.kind:
        return True  # strings get longer as needed
    return bool(np.can_cast(given, held, "safe"))


def _uninterrupted(action: Callable[[], None]) -> None:
    """Run something that an interrupt from the keyboard must not tear apart.

    Interrupts reach the main thread; the work is done in another, and waited for.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    done = threading.Event()
    interrupt: BaseException | None = None
    try:
        threading.Thread(target=run).start()
    except RuntimeError:  # no thread can be had
        run()
    except BaseException as error:
        interrupt = error
    while not done.is_set():
        try:
            done.wait()
        except BaseException as error:
            interrupt = error
    if failure:
        raise failure[0]
    if interrupt is not None:
        raise interrupt


def _through_json(settings: Mapping[str, Any]) -> Any:
    import json

    return json.loads(json.dumps(settings))
