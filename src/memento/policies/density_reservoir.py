"""Random sampling that favours the rare, and knows by how much: weights for training come with it.

A weighted bottom-k sample (Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007;
Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006) whose weights are the
rarer the sample the larger. Sample ``i`` has a key ``e_i ~ Exp(1)`` and a weight ``w_i``, both for
life. The ``C`` samples with the smallest ranks ``e_i / w_i`` are held. With ``tau`` the smallest
rank that was ever turned away, sample ``i`` was held with probability
``pi_i = 1 - exp(-tau * w_i)``, and ``1 / pi_i`` is how many samples of the stream it stands for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from numpy.random import Generator

from memento import missing
from memento.arguments import Column, Share, check_fields, number
from memento.batching import Batches, scrambled
from memento.density import SampleSpace
from memento.distances import Distance
from memento.errors import DamagedError, DomainError, SettingError
from memento.policies._columns import numbers, require
from memento.policies._policy import Choice, Policy, State, extend_mark, take_marks
from memento.samples import Samples

__all__ = ["DensityReservoir"]


@dataclass(frozen=True)
class DensityReservoir(SampleSpace, Policy):
    """Keeps a random sample of the stream in which what is rare is over-represented.

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
    waits: ClassVar[bool] = False
    mark_types: ClassVar[Mapping[str, str]] = {"key": "f", "log_weight": "f", "insert": "i"}

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
        if self.density is None:
            super().check(samples)
        else:
            given = numbers(samples, self.density)
            if given.size and given.min() < 0:
                row = int(given.argmin())
                raise DomainError(
                    f"column {self.density!r} holds {given[row]} in row {row:,}; a density is 0 "
                    "or more"
                )
        if self.identify_by is not None:
            require(samples, self.identify_by, 0, "iu", "one integer")

    def check_state(self, state: State, size: int) -> None:
        super().check_state(state, size)
        if size and "inserts" not in state.counters:
            raise DamagedError(f"the counter 'inserts' of {self!r} is missing")

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        now = int(state.counters.get("inserts", 0))
        # Forward decay (Cormode et al. 2009): instead of making all that is held lighter, make what
        # comes heavier. Ranks then never change.
        log_fresh = np.log(self._all_weights(held, fresh, capacity, state, rng)) + now * self._decay
        marks = {
            "key": extend_mark(state, "key", held, self._keys(fresh, rng)),
            "log_weight": extend_mark(state, "log_weight", held, log_fresh),
            "insert": extend_mark(state, "insert", held, np.full(fresh.size, now)),
        }
        return _smallest_ranks(marks, _threshold(state), capacity, now + 1)

    def weights(self, state: State, size: int) -> np.ndarray:
        """``(size,)`` training weights, ``(decay / pi) ** exponent``; see `Policy.weights`."""
        stands_for: np.ndarray = self.stands_for(state, size) ** self.exponent
        return stands_for

    def stands_for(self, state: State, size: int) -> np.ndarray:
        """``(size,)`` how many samples of the stream each one held stands for: ``1 / pi``.

        With a half-life those of the stream count by their age, from 1 for the last insert's.
        """
        if not size:
            return np.empty(0)
        log_weight = state.marks["log_weight"]
        ages = int(state.counters["inserts"]) - 1 - state.marks["insert"]
        with np.errstate(over="ignore"):  # an endless threshold makes the probability 1
            included = -np.expm1(-np.exp(_threshold(state) + log_weight))
        result: np.ndarray = np.exp(-self._decay * ages) / included
        return result

    def merge(self, first: State, second: State, capacity: int | None) -> Choice:
        """Join two memories of streams that have no sample in common.

        The result is what one memory of both streams would hold: exactly that where weights and
        keys depend on the sample alone (``density`` and ``identify_by``) and no capacity differs.
        Otherwise it is a sample of the joint stream nevertheless, with each sample's inclusion
        probability, and each keeps the weight that its own memory gave it.

        Args:
            first: State of a memory with this policy.
            second: State of another one. With a half-life, both end now: the later number of
                inserts is that of both.
            capacity: Of the joint memory; None for any. If it is larger than one of the two, the
                result may hold less: what a memory turned away is gone.

        Returns:
            ``rows`` count through the rows of the first memory, then those of the second; the
            counters and marks are those of the joint memory.
        """
        inserts = [int(state.counters.get("inserts", 0)) for state in (first, second)]
        marks, threshold = [], math.inf
        for state, own in zip((first, second), inserts, strict=True):
            late = max(inserts) - own
            if "key" in state.marks:
                marks.append(
                    {
                        "key": state.marks["key"],
                        "log_weight": state.marks["log_weight"] + late * self._decay,
                        "insert": state.marks["insert"] + late,
                    }
                )
            threshold = min(threshold, _threshold(state) - late * self._decay)
        if not marks:
            return Choice(np.empty(0, np.int64))
        joint = {name: np.concatenate([mark[name] for mark in marks]) for name in marks[0]}
        return _smallest_ranks(joint, threshold, capacity, max(inserts))

    @property
    def _decay(self) -> float:
        """Natural logarithm by which a sample gets lighter with every insert."""
        return 0.0 if self.half_life is None else math.log(2) / self.half_life

    def _all_weights(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> np.ndarray:
        """Weights of fresh samples, of which some may lack what a distance reads (a late label).

        Those are compared by what they have, with all samples that have as much.
        """
        names = sorted({name for distance in self.distances for name in distance.columns})
        names = [name for name in names if name in fresh]
        lacks = np.array([missing.lacking(fresh[name]) for name in names], bool)
        lacked = np.array([missing.lacking(held[name]) for name in names if name in held], bool)
        if not lacks.any() and not lacked.any():
            return self._fresh_weights(held, fresh, capacity, state, rng)
        weights = np.ones(fresh.size)
        for pattern in np.unique(lacks, axis=1).T:
            had = np.flatnonzero(pattern == 0)
            if not len(had):
                continue  # nothing is known of these
            here = np.flatnonzero(~lacked[had].any(axis=0)) if held.size else np.arange(0)
            come = np.flatnonzero(~lacks[had].any(axis=0))
            left = [name for name in fresh if name not in np.array(names)[pattern]]
            marks = take_marks(state.marks, here)
            found = replace(self, missing="skip")._fresh_weights(
                held.select(left).take(here) if held.size else held,
                fresh.select(left).take(come),
                capacity,
                State(state.counters, marks),
                rng,
            )
            same = (lacks[:, come] == pattern[:, None]).all(axis=0)
            weights[come[same]] = found[same]
        return weights

    def _fresh_weights(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> np.ndarray:
        if self.density is not None:
            rarity = np.maximum(fresh[self.density], self.floor) ** -self.gamma
        elif self.gamma == 0 or self.uniform == 1 or not self.sees((fresh,)):
            rarity = np.ones(fresh.size)
        else:
            size = self.size_for(held.size + fresh.size if capacity is None else capacity)
            ties = rng if self.remainder == "even" else None
            batches = self.batches((held, fresh), size=size, rng=ties)
            rarity = self._estimated_rarity(batches, held.size, state)
        weights: np.ndarray = self.uniform + (1 - self.uniform) * rarity
        return weights

    def _estimated_rarity(self, batches: Batches, held: int, state: State) -> np.ndarray:
        """``(fresh,)`` rarity of the fresh rows, relative to the stream so far."""
        fresh = len(batches.order) - held
        stream = np.concatenate([self.stands_for(state, held), np.ones(fresh)])
        counts = np.add.reduceat(stream[batches.order], batches.offsets[:-1])
        # A batch's own kernel is the larger part of a small density, the larger the younger the
        # memory: with it, rare samples of the first inserts would look less rare than later ones.
        density = self.field(batches, counts).density(leave_one_out=True)
        rarity = np.maximum(density, self.floor) ** -self.gamma
        # Relative to the stream so far, under the same estimate. Estimates change as the memory
        # fills and as models (so predictions) change; what they do to all samples alike would
        # otherwise favour some inserts over others.
        rarity /= np.average(rarity, weights=counts)
        of_rows = np.empty(len(stream))
        of_rows[batches.order] = np.repeat(rarity, batches.sizes)
        return of_rows[held:]

    def _keys(self, fresh: Samples, rng: Generator) -> np.ndarray:
        if self.identify_by is None:
            return rng.standard_exponential(fresh.size)
        return _hashed_exponential(fresh[self.identify_by])


def _threshold(state: State) -> float:
    """Logarithm of the smallest rank ever turned away; infinite as long as none was."""
    return float(state.counters.get("log_threshold", math.inf))


def _smallest_ranks(
    marks: dict[str, np.ndarray], threshold: float, capacity: int | None, inserts: int
) -> Choice:
    """Rows with ranks below the threshold, and only the smallest if these exceed the capacity."""
    # The smallest key is about 1 / seen; where a generator returns 0, any number below will do.
    ranks = np.log(np.maximum(marks["key"], 1e-300)) - marks["log_weight"]
    # What an earlier threshold turned away would not be here, so what comes now must not be either.
    rows = np.flatnonzero(ranks < threshold)
    if capacity is not None and len(rows) > capacity:
        order = rows[np.argpartition(ranks[rows], capacity)]
        threshold = float(ranks[order[capacity]])
        rows = np.sort(order[:capacity])
    counters: dict[str, int | float] = {"inserts": inserts}
    if math.isfinite(threshold):
        counters["log_threshold"] = threshold
    return Choice(rows, counters, take_marks(marks, rows))


def _hashed_exponential(numbers: np.ndarray) -> np.ndarray:
    """Integers to numbers that behave like draws from Exp(1)."""
    shares = (scrambled(numbers.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) + 0.5
    keys: np.ndarray = -np.log(shares * 2.0**-53)
    return keys
