"""Kernel sums of batches, and how they change while batches leave.

Only sums over rows of the kernel are kept. A row is computed again when a batch leaves, so memory
grows with the number of batches, not with its square.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from memento import discards
from memento._kernels import SMALL_BATCHES, SMALL_TERMS, fitting
from memento._kernels.plain import collapse, draw
from memento.batching import Batches
from memento.distances import Distance
from memento.landmarks import (
    FEWEST,
    MANY,
    Approximation,
    Landmarks,
    Points,
    Probes,
    Rows,
    Tiles,
    approximate,
    tell,
)

__all__ = ["Field", "Precision", "Settings", "density_over", "points_of", "term_of"]

Precision = Literal["auto", "exact", "fast", "approximate"]

ROOT_TWO_PI = math.sqrt(2 * math.pi)
# Kernels of up to this many pairs are kept as a matrix (128 MB); beyond, rows are computed again.
_MATRIX_PAIRS = 16_000_000


class Field:
    """Kernel sums of batches under one or more distances, kept right while batches are removed.

    Batches are numbered as they were at the start, also after others have left.

    Attributes:
        terms: One for each distance.
        size: Batches at the start.
    """

    def __init__(self, terms: list[_Term], size: int, weights: np.ndarray | None = None) -> None:
        self.terms = terms
        self.size = size
        self._weights = weights
        self.total = float(size) if weights is None else float(np.sum(weights))
        tell(self.approximations)

    @classmethod
    def of_equals(cls, size: int) -> Field:
        """The density of equal batches, for draws in which it has no say."""
        one = _Matrix(np.zeros(size, np.int32), np.array([float(size)]), np.ones((1, 1)))
        return cls([one], size)

    @property
    def approximations(self) -> tuple[Approximation, ...]:
        """How sums were made, for each distance that they might be approximate under."""
        return tuple(term.known for term in self.terms if term.known is not None)

    def sum_exactly(self) -> None:
        """Make approximate sums exact; no batch may have been removed."""
        for term in self.terms:
            term.sum_exactly("at temperature 0 the densest batch goes")

    def sums(self) -> np.ndarray:
        """``(n,)`` smallest kernel sum of each batch, over the distances."""
        return np.minimum.reduce([term.spread() for term in self.terms])

    def density(self, *, leave_one_out: bool = False) -> np.ndarray:
        """``(n,)`` densities.

        Args:
            leave_one_out: Without the batch's own kernel, which says nothing about the others.
        """
        if not leave_one_out:
            return self.sums() / (self.total * ROOT_TWO_PI)
        own = 1.0 if self._weights is None else self._weights
        # Rounding can leave a lonely batch a hair below nothing.
        others = np.maximum(self.sums() - own, 0.0)
        return others / (np.maximum(self.total - own, 1e-9) * ROOT_TWO_PI)

    def mean_of_others(self, alive: np.ndarray) -> float:
        """Mean density of the batches that are left, each without its own kernel."""
        return float(self.density(leave_one_out=True)[alive].mean())

    def discard(
        self,
        rows: np.ndarray,
        excess: int,
        temperature: float,
        drawn: np.ndarray,
        share: float = 0.0,
    ) -> np.ndarray | None:
        """Remove batches, each drawn by softmax(density / temperature), in one go.

        Args:
            rows: ``(n,)`` int64 samples in each batch.
            excess: How many samples have to go at least.
            temperature: 0 to inf.
            drawn: Uniform numbers in [0, 1), at least one for each batch to go.
            share: The temperature is at most this share of `mean_of_others`; 0: it stays as given.

        Returns:
            The batches, in the order in which they went; None if these distances have to be asked
            one by one.
        """
        approximate = any(term.landmarks is not None for term in self.terms)
        if self._weights is None and approximate and 0 < temperature < math.inf:
            went = self._discard_in_stages(rows, excess, temperature, drawn, share)
            if went is not None:
                if len(went) and rows[went].sum() >= excess:
                    return went
                # The rest by exact sums, so that what is subtracted adds up to what there is.
                rest = np.delete(np.arange(self.size), went)
                others = self.restricted(rest, approximated=False).discard(
                    rows[rest],
                    excess - int(rows[went].sum()),
                    temperature,
                    drawn[len(went) :],
                    share,
                )
                return None if others is None else np.concatenate([went, rest[others]])
        kernels = [term.kernel for term in self.terms]
        # The compiled loop knows one bandwidth; matrices have theirs worked in.
        packed = {term.scale for term in self.terms if isinstance(term, _Packed)}
        if self._weights is not None or len(packed) > 1 or any(k is None for k in kernels):
            return None
        matrices = not any(isinstance(term, _Packed) for term in self.terms)
        drawing = fitting("drawing", self.size, SMALL_BATCHES if matrices else -1)
        gone: np.ndarray = drawing.discard(
            kernels,
            [term.values for term in self.terms],
            [term.own_groups() for term in self.terms],
            packed.pop() if packed else 1.0,
            temperature,
            drawn,
            rows,
            excess,
            share,
        )
        return gone

    def _discard_in_stages(
        self, rows: np.ndarray, excess: int, temperature: float, drawn: np.ndarray, share: float
    ) -> np.ndarray | None:
        """The first batches to go, as long as cells discard them faster than single batches do.

        None if a distance has no cells that could.
        """
        gone = np.empty(0, np.int64)
        field, left = self, np.arange(self.size)
        while True:
            spaces = [term.space() for term in field.terms]
            given = [space for space in spaces if space is not None]
            if len(given) < len(spaces):
                return gone if len(gone) else None
            if len(left) <= discards.FEWEST or not any(space.landmarks for space in given):
                return gone
            some = drawn[len(gone) :]
            went = discards.discard(given, rows[left], excess, temperature, share, some)
            excess -= int(rows[left[went]].sum())
            gone = np.concatenate([gone, left[went]])
            stays = np.delete(np.arange(len(left)), went)
            left = left[stays]
            if excess <= 0 or not len(went):
                return gone
            field = field.restricted(stays)

    def restricted(self, batches: np.ndarray, *, approximated: bool = True) -> Field:
        """The density that some of the batches make, summed up anew.

        Args:
            batches: ``(m,)`` their numbers, ascending.
            approximated: As for `SampleSpace.field`.
        """
        weights = None if self._weights is None else self._weights[batches]
        return Field(
            [term.restricted(batches, weights, approximated) for term in self.terms],
            len(batches),
            weights,
        )

    def draw(self, alive: np.ndarray, temperature: float, drawn: float) -> int:
        """One batch among those alive, by softmax(density / temperature); it is not removed."""
        count = int(np.count_nonzero(alive))
        if self._weights is not None:  # sums are then of what is left of the weights
            temperature *= max(self.total, 1.0) / count
        return draw(
            [term.values for term in self.terms],
            [term.own_groups() for term in self.terms],
            alive,
            count,
            temperature,
            drawn,
        )

    def remove(self, batch: int) -> None:
        """Take the kernel of one batch out of all sums."""
        weight = 1.0 if self._weights is None else float(self._weights[batch])
        for term in self.terms if weight else ():
            term.subtract(batch, weight)
        self.total -= weight


class _Term(ABC):
    """Kernel sums under one distance, over distinct summaries.

    Identical summaries (sorted labels make almost only those) are counted, not repeated:
    ``groups[i]`` is the distinct summary of batch i, and ``values`` holds one sum for each of
    these.
    """

    #: What a compiled loop can subtract rows of: a matrix, or packed summaries; None: neither.
    kernel: Any = None
    #: How sums came about that might be approximate, and the landmarks of those that are.
    known: Approximation | None = None
    landmarks: Landmarks | None = None
    #: The distinct summaries, how much each counted at the start, and what made this.
    points: Points
    counts: np.ndarray
    distance: Distance
    settings: Settings

    def __init__(self, groups: np.ndarray, values: np.ndarray) -> None:
        self.groups = groups
        self.values = values

    def spread(self) -> np.ndarray:
        """``(n,)`` the sum of each batch."""
        return self.values[self.groups]

    def own_groups(self) -> np.ndarray | None:
        """The groups; None where every batch is one of its own."""
        return None if len(self.values) == len(self.groups) else self.groups

    @abstractmethod
    def subtract(self, batch: int, weight: float) -> None:
        """Take one batch out of all sums."""

    def restricted(
        self, batches: np.ndarray, weights: np.ndarray | None, approximated: bool
    ) -> _Term:
        """The same of some batches, as `Field.restricted` says."""
        settings = self.settings if approximated else self.settings.exactly()
        keep, groups = np.unique(self.groups[batches], return_inverse=True)
        points = self.points.take(keep)
        return _summed(self.distance, points, groups.astype(np.int32), weights, settings)

    def space(self) -> discards.Space | None:
        """What discards in stages read; None if the distance is none of Jensen and Shannon's."""
        points = self.points
        if isinstance(points, Rows):
            rows = self.distance.simplex(points.rows)
            if rows is None:
                return None
            from memento._kernels import jensen_shannon

            points = Tiles(jensen_shannon.pack(rows), points.bandwidth)
        assert isinstance(points, Tiles)
        if self.landmarks is None and points.size > discards.FEWEST:
            return None
        return discards.Space(self.groups, points, self.landmarks, self.values)

    def sum_exactly(self, reason: str) -> None:
        """Replace approximate sums, as long as no batch was removed, by exact ones."""
        if self.landmarks is not None and self.known is not None:
            self.values = self.points.sums(self.counts)
            self.known = replace(self.known, reason=reason)
            self.landmarks = None


class _Matrix(_Term):
    """All values of the kernel at hand: exact, for few batches or any distance."""

    def __init__(self, groups: np.ndarray, counts: np.ndarray, kernel: np.ndarray) -> None:
        self.kernel = np.ascontiguousarray(kernel)
        super().__init__(groups, self.kernel @ counts)

    def subtract(self, batch: int, weight: float) -> None:
        self.values -= weight * self.kernel[:, self.groups[batch]]


class _OnDemand(_Term):
    """Rows of the kernel computed when they are needed: for many batches under any distance."""

    def __init__(self, groups: np.ndarray, points: Rows, sums: np.ndarray) -> None:
        super().__init__(groups, sums)
        self._points = points

    def subtract(self, batch: int, weight: float) -> None:
        group = int(self.groups[batch])
        self.values -= weight * self._points.kernel(group, group + 1)[0]


class _Packed(_Term):
    """Jensen-Shannon kernels in float32, vectorised; right to 1e-4."""

    def __init__(self, groups: np.ndarray, points: Tiles, sums: np.ndarray) -> None:
        super().__init__(groups, sums)
        self.kernel = points.packed
        self.scale = points.scale

    def subtract(self, batch: int, weight: float) -> None:
        from memento._kernels import jensen_shannon

        group = int(self.groups[batch])
        jensen_shannon.subtract_row(self.kernel, group, self.scale, weight, self.values)


class Settings(NamedTuple):
    """How precise sums have to be, and where probes come from."""

    precision: Precision
    tolerance: float
    probes: Probes
    fewest: float = MANY  # distinct summaries that "auto" sums up approximately

    def exactly(self) -> Settings:
        """The same without approximate sums."""
        precision: Precision = "auto" if self.precision == "approximate" else self.precision
        return self._replace(precision=precision, fewest=math.inf)


def term_of(
    distance: Distance,
    summaries: np.ndarray,
    bandwidth: float,
    weights: np.ndarray | None,
    settings: Settings,
) -> _Term:
    """The kernel sums of summaries, in the form that their number and the precision ask for."""
    groups, distinct = _collapse(summaries)
    (points,) = points_of(distance, bandwidth, settings, distinct)
    return _summed(distance, points, groups, weights, settings)


def _summed(
    distance: Distance,
    points: Points,
    groups: np.ndarray,
    weights: np.ndarray | None,
    settings: Settings,
) -> _Term:
    """The kernel sums of distinct summaries that batches have."""
    counts = np.bincount(groups, weights, minlength=points.size).astype(np.float64)
    landmarks, sums, known = _approximate(distance, groups, counts, settings, points)
    term: _Term
    if isinstance(points, Rows) and landmarks is None and points.size**2 <= _MATRIX_PAIRS:
        term = _Matrix(groups, counts, points.matrix())
    else:
        if landmarks is None:
            some = np.flatnonzero(counts)
            few = len(some) < len(counts)
            sums = points.cross(points.take(some), counts[some]) if few else points.sums(counts)
        packed = isinstance(points, Tiles)
        term = _Packed(groups, points, sums) if packed else _OnDemand(groups, points, sums)  # type: ignore[arg-type]
    term.known, term.landmarks = known, landmarks
    term.points, term.counts = points, counts
    term.distance, term.settings = distance, settings
    return term


def points_of(
    distance: Distance, bandwidth: float, settings: Settings, *sets: np.ndarray
) -> list[Tiles] | list[Rows]:
    """One set of distinct summaries, or two that are compared, as loops in float32 or numpy do."""
    large = len(sets[0]) * sets[-1].size > SMALL_TERMS
    if settings.precision == "approximate":
        large |= min(map(len, sets)) >= FEWEST
    fast = large if settings.precision in ("auto", "approximate") else settings.precision == "fast"
    rows = [distance.simplex(summaries) if fast else None for summaries in sets]
    if any(simplex is None for simplex in rows):
        return [Rows(distance, summaries, bandwidth) for summaries in sets]
    from memento._kernels import jensen_shannon

    return [Tiles(jensen_shannon.pack(each), bandwidth) for each in rows if each is not None]


def _approximate(
    distance: Distance,
    groups: np.ndarray,
    counts: np.ndarray,
    settings: Settings,
    points: Points,
    others: Points | None = None,
) -> tuple[Landmarks | None, np.ndarray, Approximation | None]:
    """Approximate sums, where they are asked for or worth while; see `memento.landmarks`."""
    wanted = settings.precision == "approximate"
    fewest = min(points.size, points.size if others is None else others.size)
    if not wanted and not (settings.precision == "auto" and fewest >= settings.fewest):
        return None, counts, None
    reason = ""
    if not distance.metric:
        reason = "it is not known to be a metric"
    elif fewest < FEWEST:
        reason = f"{fewest:,} different batches are few"
    if reason:
        known = Approximation(repr(distance), points.size, settings.tolerance, reason)
        return None, counts, known
    rng = settings.probes.generator()
    return approximate(points, counts, groups, settings.tolerance, rng, repr(distance), others)


def _collapse(summaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the distinct summaries each batch has, and these, in order of appearance."""
    flat = np.ascontiguousarray(summaries.reshape(len(summaries), -1), dtype=np.float64)
    groups, firsts = collapse(flat)
    return groups, summaries[firsts]


def density_over(
    distance: Distance,
    summaries: np.ndarray,
    batches: Batches,
    bandwidth: float,
    settings: Settings,
) -> np.ndarray:
    """``(n,)`` density of summaries with respect to other batches, under one distance."""
    groups, distinct = _collapse(summaries)
    other_groups, others = _collapse(distance.summarise(batches))
    counts = np.bincount(other_groups, minlength=len(others)).astype(np.float64)
    ours, theirs = points_of(distance, bandwidth, settings, distinct, others)
    landmarks, sums, known = _approximate(distance, groups, counts, settings, ours, theirs)
    if known is not None:
        tell((known,))
    if landmarks is None:
        sums = ours.cross(theirs, counts)  # type: ignore[arg-type]
    return np.asarray(sums[groups] / (len(batches) * ROOT_TWO_PI))
