"""Random sampling that favours the rare, and knows by how much: weights for training come with it.

A `WeightedReservoir` whose weights are the rarer the sample the larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from numpy.random import Generator

from memento import missing
from memento.arguments import Column, Share, check_fields, number
from memento.batching import Batches
from memento.density import Field, SampleSpace
from memento.distances import Distance
from memento.errors import DomainError, SettingError
from memento.landmarks import Approximation
from memento.policies._columns import numbers
from memento.policies._policy import State, take_marks
from memento.policies._weighted import WeightedReservoir
from memento.samples import Samples

__all__ = ["DensityReservoir"]


@dataclass(frozen=True)
class DensityReservoir(SampleSpace, WeightedReservoir):
    """Keeps a random sample of the stream in which what is rare is over-represented.

    A weighted bottom-k sample (Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007).
    Samples that arrive are batched together with what is held, and the density of a batch is
    estimated with respect to the stream so far: what is held counts by its weight, what is fresh
    once, the batch itself not at all. Fresh samples then get the weight
    ``w = uniform + (1 - uniform) * rarity``, where ``rarity = max(density, floor) ** -gamma``,
    divided by its mean over the stream so far. Weights stay the same for life, which makes the
    inclusion probabilities exact and the memory neutral to age: if the stream does not change, each
    insert's share of the memory is its share of the stream.

    The memory estimates the stream: a sum over the samples held, each times its weight (with
    ``exponent=1``), is on average the sum over all samples seen. Train with these weights: without
    them a model learns that rare outcomes are common.

    Args:
        distances: As for `SampleSpace`. May be left out if ``density`` is given.
        gamma: How strongly rarity counts, at least 0.
        uniform: Share of the weight, in ``[0, 1]``, that is the same for all. Of any part of the
            stream at least about this share of what a random sample holds is held, and training
            weights stay below about ``1 / uniform`` times those of a random sample. At 1 this is a
            random sample; at 0 so few common samples are left that the average suffers.
        floor: Smallest density that is told apart, above 0; densities lie in ``[0, 0.3989]``.
        exponent: In ``[0, 1]``. Training weights are ``(1 / pi) ** exponent``. Below 1, training
            itself favours the rare: a better tail for a worse average.
        half_life: Inserts after which a sample counts half, in what is kept and in the weights;
            None: never.
        density: A column with densities that the caller knows (at least 0). They are used instead
            of estimates, and ``rarity`` is not divided by its mean: it depends on the sample alone.
        identify_by: A column of integers that tell samples apart. Keys are then a hash of them
            instead of being drawn, so the same sample has the same key in every memory.

    The other arguments are those of `SampleSpace`, except that every sample needs a batch, so no
    remainder is dropped.

    Raises:
        SettingError: A setting is out of its range.

    Example:
        >>> from memento import JensenShannon, Memory
        >>> policy = DensityReservoir([JensenShannon.of_labels("y", 2)], uniform=0.0)
        >>> memory = Memory(100, policy, seed=1)
        >>> memory.insert(y=np.arange(1000) % 50 == 0)
        Report(offered=1000, kept=100, discarded=900)
        >>> int(memory.samples["y"].sum())  # of 20; a random sample holds 2
        20
    """

    kind: ClassVar[str] = "density-reservoir"

    distances: Sequence[Distance] = ()
    gamma: Annotated[float, number(0, words="0 or more")] = 1.0
    uniform: Share = 0.7
    floor: Annotated[float, number(above=0, words="a density above 0")] = 1e-3
    exponent: Annotated[float, number(0, 1, words="a number in [0, 1]")] = 1.0
    half_life: Annotated[float, number(above=0, words="inserts, above 0")] | None = None
    density: Column | None = None
    identify_by: Column | None = None

    def __post_init__(self) -> None:
        without = isinstance(self.distances, (list, tuple)) and not self.distances
        if self.density is None or not without:
            super().__post_init__()
        check_fields(self)
        if self.remainder == "drop":
            raise SettingError(
                "remainder is 'drop'; a sample outside of all batches has no density, so expected "
                '"even" or "keep"'
            )

    def check(self, samples: Samples) -> None:
        WeightedReservoir.check(self, samples)
        if self.density is None:
            SampleSpace.check(self, samples)
        else:
            given = numbers(samples, self.density)
            if given.size and given.min() < 0:
                row = int(given.argmin())
                raise DomainError(
                    f"column {self.density!r} holds {given[row]} in row {row:,}; a density is 0 "
                    "or more"
                )

    def fresh_weights(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> np.ndarray:
        return self.weighed(held, fresh, capacity, state, rng)[0]

    def weighed(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> tuple[np.ndarray, tuple[Approximation, ...]]:
        """Weights of fresh samples, of which some may lack what a distance reads (a late label).

        Those are compared by what they have, with all samples that have as much.
        """
        names = sorted({name for distance in self.distances for name in distance.columns})
        names = [name for name in names if name in fresh]
        lacks = np.array([missing.lacking(fresh[name]) for name in names], bool)
        lacked = np.array([missing.lacking(held[name]) for name in names if name in held], bool)
        if not lacks.any() and not lacked.any():
            return self._weighed(held, fresh, capacity, state, rng)
        weights = np.ones(fresh.size)
        approximations: list[Approximation] = []
        for pattern in np.unique(lacks, axis=1).T:
            had = np.flatnonzero(pattern == 0)
            if not len(had):
                continue  # nothing is known of these
            here = np.flatnonzero(~lacked[had].any(axis=0)) if held.size else np.arange(0)
            come = np.flatnonzero(~lacks[had].any(axis=0))
            left = [name for name in fresh if name not in np.array(names)[pattern]]
            marks = take_marks(state.marks, here)
            found, known = replace(self, missing="skip")._weighed(
                held.select(left).take(here) if held.size else held,
                fresh.select(left).take(come),
                capacity,
                State(state.counters, marks),
                rng,
            )
            same = (lacks[:, come] == pattern[:, None]).all(axis=0)
            weights[come[same]] = found[same]
            approximations += known
        return weights, tuple(approximations)

    def _weighed(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> tuple[np.ndarray, tuple[Approximation, ...]]:
        """As `weighed`, of samples that all have what is read."""
        known: tuple[Approximation, ...] = ()
        if self.density is not None:
            rarity = np.maximum(fresh[self.density], self.floor) ** -self.gamma
        elif self.gamma == 0 or self.uniform == 1 or not self.sees((fresh,)):
            rarity = np.ones(fresh.size)
        else:
            size = self.size_for(held.size + fresh.size if capacity is None else capacity)
            ties = rng if self.remainder == "even" else None
            batches = self.batches((held, fresh), size=size, rng=ties)
            rarity, known = self._estimated_rarity(batches, held.size, state, rng)
        weights: np.ndarray = self.uniform + (1 - self.uniform) * rarity
        return weights, known

    def _estimated_rarity(
        self, batches: Batches, held: int, state: State, rng: Generator
    ) -> tuple[np.ndarray, tuple[Approximation, ...]]:
        """``(fresh,)`` rarity of the fresh rows, relative to the stream so far."""
        fresh = len(batches.order) - held
        stream = np.concatenate([self.stands_for(state, held), np.ones(fresh)])
        counts = np.add.reduceat(stream[batches.order], batches.offsets[:-1])
        # A batch's own kernel is the larger part of a small density, the larger the younger the
        # memory: with it, rare samples of the first inserts would look less rare than later ones.
        field = self.field(batches, counts, rng)
        rarity = self.rarity_of(field, counts)
        of_rows = np.empty(len(stream))
        of_rows[batches.order] = np.repeat(rarity, batches.sizes)
        return of_rows[held:], field.approximations

    def rarity_of(self, field: Field, counts: np.ndarray) -> np.ndarray:
        """``(n,)`` rarity of batches that count ``(n,)`` samples of the stream each.

        Relative to the stream so far, under the same estimate. Estimates change as the memory fills
        and as models (so predictions) change; what they do to all samples alike would otherwise
        favour some inserts over others.
        """
        rarity = np.maximum(field.density(leave_one_out=True), self.floor) ** -self.gamma
        return np.asarray(rarity / np.average(rarity, weights=counts))
