"""Several memories that are fed with one stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from memento import arguments, snapshot
from memento.contents import Change
from memento.errors import SettingError
from memento.files import Lock
from memento.guarded import Guarded, guarded, to_the_end
from memento.memory import Memory, Report
from memento.policies._policy import Policy
from memento.samples import Samples

__all__ = ["Group"]

_KIND = "memento-group"

_Result = TypeVar("_Result")


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
    def insert(self, data: Any = None, /, **columns: Any) -> dict[str, Report]:
        """Offer new samples to every memory.

        Raises:
            InputError: One of the memories cannot take them; then none has changed.
        """
        fresh = Samples.borrow(data, **columns)
        for memory in self.memories.values():
            memory.check(fresh)
        if not fresh.size:
            return dict.fromkeys(self.memories, Report(0, 0, 0))

        def insert() -> dict[str, Report]:
            made = {name: memory._insertion(fresh) for name, memory in self.memories.items()}
            self._take({name: change for name, (change, _) in made.items()})
            return {name: report for name, (_, report) in made.items()}

        return self._all_locked(insert)

    @guarded
    def annotate(self, predict: Callable[[Samples], Mapping[str, Any]]) -> None:
        """Replace or add columns in every memory, for its samples and its reference.

        Args:
            predict: From samples to columns for them, as `Learner.annotate`. If it fails, nothing
                is annotated.
        """

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

    @guarded
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
        snapshot.write(Path(path), _KIND, arrays, documents, lock=lock)

    @classmethod
    def load(cls, path: str | Path, policies: Mapping[str, Policy] | None = None) -> Group:
        """Read a group that `save` wrote; arguments and errors as for `Memory.load`."""
        found = snapshot.read(Path(path), _KIND)
        settings = found.documents["group"]
        memories = {}
        for name in settings["shares"]:
            memories[name] = Memory.restore(
                snapshot.with_prefix(found.arrays, f"{name}/"),
                snapshot.with_prefix(found.documents, f"{name}/"),
                (policies or {}).get(name),
            )
        return cls(memories, settings["shares"], snapshot.generator_from(settings["generator"]))

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
        self._changes = changes
        to_the_end(self._settle)

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
