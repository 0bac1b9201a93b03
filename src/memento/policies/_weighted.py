"""Weighted random sampling that knows by how much: weights for training come with it.

A weighted bottom-k sample (Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007;
Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006). Sample ``i`` has a key
``e_i ~ Exp(1)`` and a weight ``w_i``, both for life. The ``C`` samples with the smallest ranks
``e_i / w_i`` are held. With ``tau`` the smallest rank that was ever turned away, sample ``i`` was
held with probability ``pi_i = 1 - exp(-tau * w_i)``, and ``1 / pi_i`` is how many samples of the
stream it stands for.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from memento.batching import scrambled
from memento.errors import DamagedError
from memento.landmarks import Approximation
from memento.policies._columns import require
from memento.policies._policy import Choice, Policy, State, extend_mark, take_marks
from memento.samples import Samples

__all__ = ["WeightedReservoir", "hashed_exponential", "smallest_ranks", "threshold_of"]


class WeightedReservoir(Policy):
    """Keeps samples with probabilities that their weights say, which a subclass gives.

    Attributes:
        exponent: Training weights are ``(1 / pi) ** exponent``.
        half_life: Inserts after which a sample counts half; None: never.
        identify_by: Column that keys are a hash of; None: they are drawn.
    """

    waits: ClassVar[bool] = False
    mark_types: ClassVar[Mapping[str, str]] = {"key": "f", "log_weight": "f", "insert": "i"}

    exponent: float
    half_life: float | None
    identify_by: str | None

    @abstractmethod
    def fresh_weights(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> np.ndarray:
        """``(fresh,)`` weights of what comes, above 0; arguments as for `choose`."""

    def check(self, fresh: Samples) -> None:
        if self.identify_by is not None:
            require(fresh, self.identify_by, 0, "iu", "one integer")

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
        weights, approximations = self.weighed(held, fresh, capacity, state, rng)
        log_fresh = np.log(weights) + now * self._decay
        marks = {
            "key": extend_mark(state, "key", held, self._keys(fresh, rng)),
            "log_weight": extend_mark(state, "log_weight", held, log_fresh),
            "insert": extend_mark(state, "insert", held, np.full(fresh.size, now)),
        }
        choice = smallest_ranks(marks, threshold_of(state), capacity, now + 1)
        return replace(choice, approximations=approximations)

    def weighed(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> tuple[np.ndarray, tuple[Approximation, ...]]:
        """What `fresh_weights` returns, and how densities behind that were made."""
        return self.fresh_weights(held, fresh, capacity, state, rng), ()

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
            included = -np.expm1(-np.exp(threshold_of(state) + log_weight))
        result: np.ndarray = np.exp(-self._decay * ages) / included
        return result

    def drawn_weights(self, state: State) -> np.ndarray:
        """``(n,)`` weights that the samples held were given when they came; 1 is usual."""
        decayed = state.marks["log_weight"] - state.marks["insert"] * self._decay
        weights: np.ndarray = np.exp(decayed)
        return weights

    def merge(self, first: State, second: State, capacity: int | None) -> Choice:
        """Join two memories of streams that have no sample in common.

        The result is what one memory of both streams would hold: exactly that where weights and
        keys depend on the sample alone (``identify_by``) and no capacity differs.
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
            threshold = min(threshold, threshold_of(state) - late * self._decay)
        if not marks:
            return Choice(np.empty(0, np.int64))
        joint = {name: np.concatenate([mark[name] for mark in marks]) for name in marks[0]}
        return smallest_ranks(joint, threshold, capacity, max(inserts))

    @property
    def _decay(self) -> float:
        """Natural logarithm by which a sample gets lighter with every insert."""
        return 0.0 if self.half_life is None else math.log(2) / self.half_life

    def _keys(self, fresh: Samples, rng: Generator) -> np.ndarray:
        if self.identify_by is None:
            return rng.standard_exponential(fresh.size)
        return hashed_exponential(fresh[self.identify_by])


def threshold_of(state: State) -> float:
    """Logarithm of the smallest rank ever turned away; infinite as long as none was."""
    return float(state.counters.get("log_threshold", math.inf))


def smallest_ranks(
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


def hashed_exponential(numbers: np.ndarray) -> np.ndarray:
    """Integers to numbers that behave like draws from Exp(1)."""
    shares = (scrambled(numbers.astype(np.uint64)) >> np.uint64(11)).astype(np.float64) + 0.5
    keys: np.ndarray = -np.log(shares * 2.0**-53)
    return keys
