"""Memento: discard where samples are dense, keep where they are rare (paper, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memento.arguments import check, flag, number
from memento.batching import Batches
from memento.density import Field, SampleSpace
from memento.errors import SettingError
from memento.policies._policy import Choice, Policy, State, everything
from memento.samples import Samples

__all__ = ["Memento"]


@dataclass(frozen=True)
class Memento(SampleSpace, Policy):
    """Keeps samples such that they cover the sample space.

    When held and fresh samples exceed the capacity, all are sorted into batches, and batches are
    discarded one at a time, each drawn with probability ``softmax(density / temperature)``; the
    densities of the others follow.

    Args:
        temperature: 0 always discards the densest batch (of equals the last in batch order);
            ``math.inf`` discards at random; between, rare batches are discarded with some
            probability too, so that noise is forgotten. Default 0.01.
        fill: Whether the memory is filled up to its capacity with single samples (drawn from the
            batch discarded last, then from the remainder that filled no batch). By default only
            whole batches are kept, so up to ``batch_size - 1`` places stay free.

    The other arguments are those of `SampleSpace`. Time grows with the square of the number of
    batches, memory with their number.

    Raises:
        SettingError: A setting is out of its range.

    Example:
        >>> from memento import JensenShannon, Memory
        >>> policy = Memento(
        ...     [JensenShannon.of_labels("y", 2)], batch_size=2, sort_by=["y"], temperature=0.0
        ... )
        >>> memory = Memory(4, policy)
        >>> memory.insert(y=[0, 0, 0, 0, 0, 0, 1, 1])
        Report(offered=8, kept=4, discarded=4)
        >>> memory.samples["y"]
        array([0, 0, 1, 1])
    """

    kind: ClassVar[str] = "memento"
    thins: ClassVar[bool] = True

    temperature: float = 0.01
    fill: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self,
            temperature=number(0, infinite=True, words="0 (always the densest) or more"),
            fill=flag(),
        )

    def check_capacity(self, capacity: int | None) -> None:
        if capacity is not None and capacity < self.batch_size and self.remainder == "drop":
            raise SettingError(
                f"capacity {capacity:,} is less than one batch of {self.batch_size}: nothing could "
                "be kept; raise the capacity or lower batch_size"
            )

    def choose(
        self,
        held: Samples,
        fresh: Samples,
        capacity: int | None,
        state: State,
        rng: np.random.Generator,
    ) -> Choice:
        if capacity is None or held.size + fresh.size <= capacity:
            return Choice(everything(held, fresh))
        batches = self.batches((held, fresh))
        kept, discarded = thin(self.field(batches), batches.sizes, capacity, self.temperature, rng)
        rows = batches.order[np.repeat(kept, batches.sizes)]
        if self.fill and len(rows) < capacity:
            spare = self._spare(batches, discarded, held.size + fresh.size, rng)
            rows = np.concatenate([rows, spare[: capacity - len(rows)]])
        rows.sort()
        return Choice(rows)

    @staticmethod
    def _spare(
        batches: Batches, discarded: list[int], size: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Single rows to fill up with: of the batch discarded last, then of no batch."""
        outside = np.ones(size, dtype=bool)
        outside[batches.order] = False
        last = batches.rows(discarded[-1]) if discarded else batches.order[:0]
        return np.concatenate([rng.permutation(last), rng.permutation(np.flatnonzero(outside))])


def thin(
    field: Field,
    sizes: np.ndarray,
    capacity: int,
    temperature: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[int]]:
    """Discard batches by density until at most ``capacity`` samples are left.

    Args:
        field: The density of ``n`` batches; it is used up.
        sizes: ``(n,)`` samples in each batch.
        capacity: Most samples to keep.
        temperature: As for `Memento`.
        rng: One number is drawn a discard; none at temperature 0.

    Returns:
        ``(n,)`` bool, which batches stay, and those that were discarded, in that order.
    """
    alive = np.ones(len(sizes), dtype=bool)
    left = int(sizes.sum())
    if left <= capacity:
        return alive, []
    if (sizes == sizes[0]).all():  # so it is known how many have to go
        count = -((capacity - left) // int(sizes[0]))
        count = min(count, len(sizes))
        before = rng.bit_generator.state
        drawn = np.zeros(count) if temperature == 0 else rng.random(count)
        if count < len(sizes):
            gone = field.discard(count, temperature, drawn)
            if gone is not None:
                alive[gone] = False
                return alive, gone.tolist()
        rng.bit_generator.state = before
    discarded = []
    while left > capacity:
        batch = field.draw(alive, temperature, 0.0 if temperature == 0 else rng.random())
        field.remove(batch)
        alive[batch] = False
        left -= int(sizes[batch])
        discarded.append(batch)
    return alive, discarded
