"""Memento: discard where samples are dense, keep where they are rare (paper, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Share, number
from memento.batching import Batches
from memento.density import Field, SampleSpace
from memento.landmarks import Approximation
from memento.policies._policy import Choice, Policy, State, everything
from memento.samples import Samples

__all__ = ["MOST_BATCHES", "Memento"]

_TEMPERATURE = 0.01
# Of the mean density of a batch among the others: a batch that is all alone is then discarded
# about e^10 times more rarely than one of that density, wherever densities are small, too.
_SHARE = 0.1
# Not 0, at which the last of equals goes, so the end of the order; equals go at random.
_COLDEST = 1e-9
#: So many batches are thinned at a time, as time grows with their square.
MOST_BATCHES = 8192


@dataclass(frozen=True)
class Memento(SampleSpace, Policy):
    """Keeps samples such that they cover the sample space.

    When held and fresh samples exceed the capacity, all are sorted into batches, and batches are
    discarded one at a time, each drawn with probability ``softmax(density / temperature)``; the
    densities of the others follow.

    Args:
        temperature: 0 always discards the densest batch (of equals the last in batch order);
            ``math.inf`` discards at random; between, rare batches are discarded with some
            probability too, so that noise is forgotten. None, the default, is 0.01, but at most a
            tenth of the mean density of a batch among the others that are left: where samples are
            spread out, 0.01 would discard what is rare almost as often as what is dense.
        fill: Whether the memory is filled up to its capacity with single samples (drawn from the
            batch discarded last, then from the remainder that filled no batch). False keeps whole
            batches only. None, the default, fills with ``remainder="even"``.
        forget: Share of the samples held, in [0, 1], that goes at random before an insert; at most
            as many as come in, and once an insert, however large it is. 0: none.
        distance_sample_fraction: Share of the batches, above 0 and at most 1, that densities are
            estimated from, drawn at random each time: unbiased under one distance, with a standard
            error that falls with the root of how many are drawn. It saves time where sums are exact
            (``precision="exact"``, distances of your own) and not beside fast ones;
            ``precision="approximate"`` has a bounded error.

    The other arguments are those of `SampleSpace`. Time grows with the square of the number of
    batches, memory with their number; with ``remainder="even"``, what is offered beyond 8192
    batches comes in parts drawn at random, so that time grows with their number. With
    ``precision="approximate"`` all comes at once. At temperature 0 sums are exact whatever the
    precision, as the densest batch is a matter of their last digits. As published:
    ``Memento(distances, batch_size=256, bandwidth=0.1, temperature=0.01,
    sort_by=("y", "yhat", "x"), remainder="drop")``.

    Raises:
        SettingError: A setting is out of its range.

    Example:
        >>> from memento import JensenShannon, Memory
        >>> policy = Memento([JensenShannon.of_labels("y", 2)], batch_size=2, temperature=0.0)
        >>> memory = Memory(4, policy)
        >>> memory.insert(y=[0, 0, 0, 0, 0, 0, 1, 1])
        Report(offered=8, kept=4, discarded=4)
        >>> memory.samples["y"]
        array([0, 0, 1, 1])
    """

    kind: ClassVar[str] = "memento"
    thins: ClassVar[bool] = True

    temperature: (
        Annotated[float, number(0, infinite=True, words="0 (always the densest) or more")] | None
    ) = None
    fill: bool | None = None
    forget: Share = 0.0
    distance_sample_fraction: Annotated[
        float, number(most=1, above=0, words="a share above 0 and at most 1")
    ] = 1.0

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        forgotten = min(int(self.forget * held.size), fresh.size)
        if forgotten:
            rest = np.sort(rng.permutation(held.size)[forgotten:])
            choice = self._choose(held.take(rest), fresh, capacity, rng)
            rows = np.concatenate([rest, np.arange(held.size, held.size + fresh.size)])
            return replace(choice, rows=rows[choice.rows])
        return self._choose(held, fresh, capacity, rng)

    def _choose(
        self, held: Samples, fresh: Samples, capacity: int | None, rng: Generator
    ) -> Choice:
        """What stays, once what is forgotten has gone."""
        if capacity is None or held.size + fresh.size <= capacity:
            return Choice(everything(held, fresh))
        parts = tuple(part for part in (held, fresh) if part.size)
        if not self.sees(parts):
            return Choice(np.sort(rng.permutation(held.size + fresh.size)[:capacity]))
        even, size = self.remainder == "even", self.size_for(capacity)
        order = self.order(parts, rng=rng if even else None)
        stays = np.arange(len(order)) < held.size
        pieces = self._pieces(held.size, fresh.size, size, rng)
        approximations: list[Approximation] = []
        for piece in pieces:
            stays[piece] = True
            there = order if len(pieces) == 1 else order[stays[order]]
            if len(there) > capacity:
                batches = self.cut(parts, there, size=size)
                rows, known = self._thinned(batches, capacity, len(stays), rng)
                approximations += known
                stays[:] = False
                stays[rows] = True
        return Choice(np.flatnonzero(stays), approximations=tuple(approximations))

    def _pieces(
        self, held: int, fresh: int, size: int, rng: Generator
    ) -> Sequence[np.ndarray | slice]:
        """Fresh rows in the parts that are offered one after the other; mostly a single one."""
        room = MOST_BATCHES * size
        whole = self.remainder != "even" or self.precision == "approximate"
        if whole or held + fresh <= room:
            return [slice(held, None)]
        count = -(-fresh // max(room - held, room // 2))
        return np.array_split(held + rng.permutation(fresh), count)

    def _thinned(
        self, batches: Batches, capacity: int, total: int, rng: Generator
    ) -> tuple[np.ndarray, tuple[Approximation, ...]]:
        """Rows of the batches that stay, with what fills the memory up; how densities were made."""
        temperature, _ = self._cooling()
        sizes = batches.sizes
        if temperature == math.inf:
            field = Field.of_equals(len(sizes))
        else:
            weights = self.sampled(len(sizes), rng)
            field = self.field(batches, weights, rng, approximated=temperature != 0)
        kept, discarded = self.thin(field, sizes, capacity, rng)
        rows = batches.order[np.repeat(kept, sizes)]
        if self.fills and len(rows) < capacity:
            spare = self._spare(batches, discarded, total, rng)
            rows = np.concatenate([rows, spare[: capacity - len(rows)]])
        return rows, field.approximations

    def sampled(self, count: int, rng: Generator) -> np.ndarray | None:
        """``(count,)`` how much each batch counts in densities; None: all the same.

        With a ``distance_sample_fraction`` most count nothing, and those that do count for them.
        """
        if self.distance_sample_fraction == 1.0 or count < 2:
            return None
        some = min(count, max(2, math.ceil(self.distance_sample_fraction * count)))
        weights = np.zeros(count)
        weights[rng.permutation(count)[:some]] = count / some
        return weights

    def _cooling(self) -> tuple[float, float]:
        """Highest temperature, and its most as a share of the mean density of the others."""
        if self.temperature is None:
            return _TEMPERATURE, _SHARE
        return self.temperature, 0.0

    @property
    def fills(self) -> bool:
        """Whether single samples fill the memory up to its capacity."""
        return self.remainder == "even" if self.fill is None else self.fill

    def thin(
        self, field: Field, sizes: np.ndarray, capacity: int, rng: Generator
    ) -> tuple[np.ndarray, list[int]]:
        """Discard batches at this policy's temperature; see the function `thin`."""
        temperature, share = self._cooling()
        return thin(field, sizes, capacity, temperature, rng, share)

    def _spare(
        self, batches: Batches, discarded: list[int], size: int, rng: Generator
    ) -> np.ndarray:
        """Single rows to fill up with: of the batch discarded last, then of no batch."""
        last = rng.permutation(batches.rows(discarded[-1]) if discarded else batches.order[:0])
        if len(batches.order) == size or self.remainder == "even":
            return last
        outside = np.ones(size, dtype=bool)
        outside[batches.order] = False
        return np.concatenate([last, rng.permutation(np.flatnonzero(outside))])


def going_next(policy: Memento, field: Field) -> np.ndarray:
    """``(n,)`` probability of each batch to be discarded next, by `thin`; they add up to 1."""
    density = field.density()
    temperature, share = policy._cooling()
    if share:
        everything = np.ones(field.size, bool)
        temperature = min(temperature, max(_COLDEST, share * field.mean_of_others(everything)))
    if temperature == 0:
        odds = np.zeros(field.size)
        odds[field.draw(np.ones(field.size, bool), 0.0, 0.0)] = 1.0
        return odds
    odds = np.exp((density - density.max()) / temperature)
    chances: np.ndarray = odds / odds.sum()
    return chances


def thin(
    field: Field,
    sizes: np.ndarray,
    capacity: int,
    temperature: float,
    rng: Generator,
    share: float = 0.0,
) -> tuple[np.ndarray, list[int]]:
    """Discard batches by density until at most ``capacity`` samples are left.

    Args:
        field: The density of ``n`` batches; it is used up.
        sizes: ``(n,)`` samples in each batch.
        capacity: Most samples to keep.
        temperature: As for `Memento`.
        rng: One number is drawn a discard; none at temperature 0.
        share: The temperature is at most this share of the mean density of a batch among the
            others that are left; 0: it stays as given.

    Returns:
        ``(n,)`` bool, which batches stay, and those that were discarded, in that order.
    """
    alive = np.ones(len(sizes), dtype=bool)
    left = int(sizes.sum())
    if left <= capacity:
        return alive, []
    if temperature == 0:
        field.sum_exactly()  # which of two batches is the denser depends on the last digits
    before = rng.bit_generator.state
    drawn = np.zeros(len(sizes)) if temperature == 0 else rng.random(len(sizes))
    gone = field.discard(sizes, left - capacity, temperature, drawn, share)
    rng.bit_generator.state = before
    if gone is not None:
        if temperature != 0:
            rng.random(len(gone))  # as if each number had been drawn when it was needed
        alive[gone] = False
        return alive, gone.tolist()
    discarded = []
    while left > capacity:
        cold = max(_COLDEST, share * field.mean_of_others(alive)) if share else temperature
        drawn_now = 0.0 if temperature == 0 else rng.random()
        batch = field.draw(alive, min(temperature, cold), drawn_now)
        field.remove(batch)
        alive[batch] = False
        left -= int(sizes[batch])
        discarded.append(batch)
    return alive, discarded
