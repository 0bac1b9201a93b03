"""Several memories that are fed with one stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from memento import arguments, snapshot
from memento.contents import Change
from memento.errors import ForeignError, SchemaError, SettingError
from memento.files import Lock, local_path
from memento.guarded import Guarded, guarded, to_the_end
from memento.memory import Memory, Report
from memento.policies._policy import Policy
from memento.samples import Samples

__all__ = ["Group", "GroupReport"]

_KIND = "memento-group"
_MAPPING = arguments.instance(dict, "a mapping")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class GroupReport(Report):
    """What an insert into a group did; numbers kept and discarded are those of all memories.

    Attributes:
        memories: The report of each memory, by name; also ``report[name]``.
    """

    memories: Mapping[str, Report] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Report:
        return self.memories[name]


class Group(Guarded):
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
        super().__init__()
        self.memories = _members(memories)
        self.shares = _shares(self.memories, weights)
        self._rng = arguments.generator(seed)
        self._changes: dict[str, Change] = {}  # on the way

    @property
    def policy(self) -> Policy:
        """The policy of the first memory that has distances, otherwise of the first."""
        policies = [memory.policy for memory in self.memories.values()]
        return next((p for p in policies if getattr(p, "distances", ())), policies[0])

    @property
    def ids(self) -> str:
        """Column that tells samples apart in the first memory, for `label`."""
        return next(iter(self.memories.values())).ids

    @property
    def seen(self) -> int:
        """Samples offered so far to the memory that was offered most."""
        return max(memory.seen for memory in self.memories.values())

    @property
    def inserts(self) -> int:
        """Inserts so far, of the memory that had most."""
        return max(memory.inserts for memory in self.memories.values())

    @property
    def model(self) -> str | None:
        """Digest of the model that made the predictions held; None: unknown, or not one."""
        models = {memory.model for memory in self.memories.values()}
        return models.pop() if len(models) == 1 else None

    @model.setter
    def model(self, digest: str | None) -> None:
        for memory in self.memories.values():
            memory.model = digest

    @property
    @guarded
    def reference(self) -> Samples | None:
        """What was held at the last training, one memory after the other; None before the first."""
        found = [m.reference for m in self.memories.values() if m.reference is not None]
        return Samples.concat([part for part in found if part.size]) if found else None

    def __len__(self) -> int:
        return sum(len(memory) for memory in self.memories.values())

    @property
    def capacity(self) -> int | None:
        """Sum of the capacities; None if one has no limit."""
        known = [m.capacity for m in self.memories.values() if m.capacity is not None]
        return sum(known) if len(known) == len(self.memories) else None

    @property
    @guarded
    def samples(self) -> Samples:
        """What all memories hold, one after the other; a sample may be held by several."""
        return Samples.concat([memory.samples for memory in self.memories.values() if len(memory)])

    @property
    @guarded
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

    @guarded
    def insert(self, data: Any = None, /, **columns: Any) -> GroupReport:
        """Offer new samples to every memory.

        Raises:
            InputError: One of the memories cannot take them; then none has changed.
        """
        fresh = Samples.borrow_identified(self.ids, data, columns)
        for memory in self.memories.values():
            memory.check(fresh)
        if not fresh.size:
            nothing = dict.fromkeys(self.memories, Report(0, 0, 0))
            return GroupReport(0, 0, 0, memories=nothing)

        def insert() -> GroupReport:
            made = {name: memory._insertion(fresh) for name, memory in self.memories.items()}
            for name, (change, _) in made.items():
                self.memories[name]._warn(change)
            self._take({name: change for name, (change, _) in made.items()})
            reports = {name: report for name, (_, report) in made.items()}
            kept = sum(report.kept for report in reports.values())
            discarded = sum(report.discarded for report in reports.values())
            return GroupReport(fresh.size, kept, discarded, memories=reports)

        return self._all_locked(insert)

    @guarded
    def check(self, data: Any = None, /, **columns: Any) -> None:
        """Raise what `insert` would raise about these samples, and change nothing."""
        fresh = Samples.borrow_identified(self.ids, data, columns)
        for memory in self.memories.values():
            memory.check(fresh)

    @guarded
    def label(self, ids: Any, data: Any = None, /, **columns: Any) -> int:
        """Give samples what has become known of them, in every memory; as `Memory.label`.

        Returns:
            How many of the ids the memory holds that holds most of them.
        """
        given = Samples.borrow_marked(data, **columns)

        def label() -> int:
            made = {name: memory._labelling(ids, given) for name, memory in self.memories.items()}
            self._take({name: change for name, (change, _) in made.items()})
            return max(found for _, found in made.values())

        return self._all_locked(label)

    @guarded
    def annotate(self, data: Any = None, /, **columns: Any) -> None:
        """Replace or add columns in every memory.

        Args:
            data: Columns with a row for each of `samples`, in their order; or a function from
                samples to columns for them, as `Learner.annotate`, which is asked for every
                memory's samples and for its reference.
            **columns: Columns by name, instead or in addition.

        If it fails, nothing is annotated.

        Raises:
            SchemaError: Another number of rows.
        """
        if callable(data):
            self._annotate_by(data)
            return
        fresh = Samples.borrow(data, **columns)
        if len(fresh) and fresh.size != len(self):
            raise SchemaError(
                f"{fresh.size:,} rows for {len(self):,} samples held; give one row for each, in "
                "the order of group.samples"
            )

        def annotate() -> None:
            sizes = [len(memory) for memory in self.memories.values()]
            parts = self._parts(fresh, sizes)
            self._take({name: self.memories[name]._annotation(part) for name, part in parts})

        self._all_locked(annotate)

    @guarded
    def annotate_reference(self, data: Any = None, /, **columns: Any) -> None:
        """Replace or add columns of every reference; rows are in the order of `reference`.

        Raises:
            SchemaError: There is no reference, or it has another number of rows.
        """
        fresh = Samples.borrow(data, **columns)
        before = self.reference
        if before is None or fresh.size != before.size:
            raise SchemaError(
                f"{fresh.size:,} rows for {0 if before is None else before.size:,} samples of the "
                "reference; give one row for each, in the order of group.reference"
            )
        sizes = [0 if m.reference is None else m.reference.size for m in self.memories.values()]
        for name, part in self._parts(fresh, sizes):
            self.memories[name].annotate_reference(part)

    def _parts(self, samples: Samples, sizes: Sequence[int]) -> Iterator[tuple[str, Samples]]:
        """The rows of each memory that has some."""
        ends = np.cumsum(sizes)
        for name, size, end in zip(self.memories, sizes, ends, strict=True):
            if size:
                yield name, samples.rows(int(end) - size, int(end))

    def _annotate_by(self, predict: Callable[[Samples], Mapping[str, Any]]) -> None:
        """Annotate what every memory holds, and its reference, by a function; all or none."""

        def annotate() -> None:
            changes = {}
            for name, memory in self.memories.items():
                if len(memory):
                    change = memory._annotation(Samples.borrow(predict(memory.samples)))
                else:
                    change = Change(memory._contents, memory._contents)
                if (reference := memory.reference) is not None:
                    reference = reference.with_columns(Samples(predict(reference)))
                    after = replace(change.after, reference=reference)
                    change = replace(change, after=after)
                changes[name] = change
            self._take(changes)

        self._all_locked(annotate)

    @guarded
    def mark_trained(self) -> None:
        """Declare that a model was trained on what is held now."""
        for memory in self.memories.values():
            memory.mark_trained()

    @guarded
    def sample(self, size: int) -> Samples:
        """Draw samples at random, without replacement within a memory, split by the weights.

        Args:
            size: How many; fewer come where a memory holds fewer than its share.

        Returns:
            Rows of the memories, one memory after the other.

        Raises:
            SettingError: ``size`` is no whole number, 0 or more.
        """
        arguments.require("size", size, arguments.whole(0))
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
            drawn.append(held.take(np.sort(self._rng.permutation(held.size)[:count])))
        return Samples.concat(drawn)

    @guarded
    def save(self, path: str | Path, *, lock: Lock | None = None) -> None:
        """Write all memories to one folder, at once; errors as for `Memory.save`."""
        snapshot.write(local_path(path), _KIND, *self.dump(), lock=lock)

    @guarded
    def dump(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON documents from which `restore` makes an equal group."""
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
        return arrays, documents

    @classmethod
    @arguments.checked
    def load(cls, path: str | Path, policies: Mapping[str, Policy] | None = None) -> Group:
        """Read a group that `save` wrote; arguments and errors as for `Memory.load`."""
        found = snapshot.read(local_path(path), _KIND)
        return cls.restore(found.arrays, found.documents, policies)

    @classmethod
    @arguments.checked
    def restore(
        cls,
        arrays: Mapping[str, np.ndarray],
        documents: Mapping[str, Any],
        policies: Mapping[str, Policy] | None = None,
    ) -> Group:
        """The group that `dump` described; arguments and errors as for `load`."""
        settings = documents.get("group", {})
        share = arguments.number(above=0, words="a number above 0")
        shares = snapshot.field_of(settings, "shares", _MAPPING, "group.json")
        snapshot.field_of(settings, "generator", _MAPPING, "group.json")
        for name in shares:
            snapshot.field_of(shares, name, share, "group.json, shares")
        memories = {
            name: Memory.restore(
                snapshot.with_prefix(arrays, f"{name}/"),
                snapshot.with_prefix(documents, f"{name}/"),
                (policies or {}).get(name),
            )
            for name in shares
        }
        return cls(memories, shares, snapshot.generator_from(settings["generator"]))

    @guarded
    @arguments.checked
    def resume(self, arrays: Mapping[str, np.ndarray], documents: Mapping[str, Any]) -> None:
        """Become the group that `dump` described, which had this one's memories.

        Raises:
            ForeignError: Its memories have other names, capacities or policies.
        """
        settings = documents.get("group", {})
        names = list(snapshot.field_of(settings, "shares", _MAPPING, "group.json"))
        if names != list(self.memories):
            raise ForeignError(
                f"the saved group has the memories {names}, this one {list(self.memories)}; "
                "make it with those that were saved"
            )
        policies = {name: memory.policy for name, memory in self.memories.items()}
        found = Group.restore(arrays, documents, policies)
        for name, memory in self.memories.items():
            memory.adopt(found.memories[name])
        self.shares, self._rng = found.shares, found._rng

    def _all_locked(self, action: Callable[[], _Result]) -> _Result:
        """Do something while no other thread can reach any of the memories."""
        memories = list(self.memories.values())

        def locked(number: int) -> _Result:
            if number == len(memories):
                return action()
            with memories[number].lock:
                memories[number]._settle()
                return locked(number + 1)

        return locked(0)

    def _take(self, changes: dict[str, Change]) -> None:
        def steps() -> None:
            # Not before: who looks at a memory does not see what waits in its group.
            self._changes = changes
            self._settle()

        to_the_end(steps)

    def _settle(self) -> None:
        """Take changes that were interrupted to their end."""
        for name, change in self._changes.items():
            self.memories[name]._take(change)
        self._changes = {}


def _members(memories: Any) -> dict[str, Memory]:
    if not isinstance(memories, (Mapping, Sequence)) or isinstance(memories, str):
        raise SettingError(
            f"memories is {arguments.shown(memories)}; expected several, by name or in a list"
        )
    named = _by_name(memories)
    for name, memory in named.items():
        if not isinstance(name, str) or not isinstance(memory, Memory):
            raise SettingError(f"memory {name!r} is {arguments.shown(memory)}; expected a Memory")
    if not named:
        raise SettingError("a group of no memories; give at least one")
    return named


def _shares(memories: Mapping[str, Memory], weights: Any) -> dict[str, float]:
    if weights is None:
        return dict.fromkeys(memories, 1.0)
    positive = arguments.number(above=0, words="a number above 0")
    named = isinstance(weights, (Mapping, Sequence)) and not isinstance(weights, str)
    shares = _by_name(weights) if named else {}
    if set(shares) != set(memories) or not all(map(positive.holds, shares.values())):
        raise SettingError(
            f"weights are {arguments.shown(weights)}; expected a positive one for each of "
            f"{sorted(memories)}"
        )
    return {name: float(shares[name]) for name in memories}


def _by_name(values: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(values, Mapping):
        return dict(values)
    return {str(number): value for number, value in enumerate(values)}
