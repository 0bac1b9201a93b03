"""Kernel sums through landmarks, with a measured error: time grows with the number of summaries.

Summaries that are alike are put into cells, a few landmarks stand for the members of each, and
kernels are summed up between landmarks only (`memento._kernels.landmarks` says how). Whether that
is right to a tolerance is measured at *probes*: batches drawn at random whose sums are exact. If
none of q is off by more, then with 95 % confidence at most 1 % of all are, as
``0.99^q <= 0.05 / tries`` (so many times are the same probes looked at, each time with a lower
limit for what landmarks leave unexplained). What never passes is summed up exactly.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from memento.distances import Distance

if TYPE_CHECKING:  # numba is loaded by whoever has many summaries
    from memento._kernels.landmarks import Skeleton

__all__ = ["Approximation", "Landmarks", "Points", "Probes", "Rows", "Tiles", "approximate"]

_log = logging.getLogger("memento")

#: With fewer distinct summaries exact sums take no longer than probes do.
FEWEST = 2048
#: From so many on landmarks are several times as fast, whatever the data.
MANY = 16_384
_RADIUS = 1.0  # of cells, in bandwidths; 0.7 to 1.4 took as long
# Residuals that landmarks may leave, as shares of the tolerance, one try after the other: the first
# mostly gives a largest error of half the tolerance. Below the finest there is only rounding, which
# leaves errors of 0.2 %.
_RESIDUALS = (0.01, 0.003)
_FINEST = 3e-5
# At most one in so many summaries becomes a landmark, or exact sums are about as fast.
_MOST_LANDMARKS = 2
_SHARE, _CONFIDENCE = 0.01, 0.95
# Kernels of so many pairs at a time, where distances are compared by numpy (32 MB).
_BLOCK_PAIRS = 4_000_000

P = TypeVar("P", bound="Points")


@dataclass(frozen=True)
class Approximation:
    """How the kernel sums under one distance were made.

    Attributes:
        distance: Name of the distance.
        batches: Distinct summaries of batches.
        tolerance: Largest relative error that was asked for.
        reason: Why sums are exact; empty where they are approximate.
        cells: Cells that the summaries lie in.
        radius: Of these, in bandwidths: how far a member is from the first of its cell at most.
        landmarks: Summaries that stand for the others.
        residual: What landmarks leave unexplained of the kernel of any summary, at most.
        probes: Batches whose exact sums were compared.
        error: Largest relative error among these, also where sums are exact because of it.
    """

    distance: str
    batches: int
    tolerance: float
    reason: str = ""
    cells: int = 0
    radius: float = _RADIUS
    landmarks: int = 0
    residual: float = 0.0
    probes: int = 0
    error: float = math.nan

    @property
    def exact(self) -> bool:
        """Whether sums are exact after all."""
        return bool(self.reason)

    def __str__(self) -> str:
        if self.exact:
            return f"{self.distance}: exact sums, as {self.reason}"
        return (
            f"{self.distance}: {self.landmarks:,} landmarks in {self.cells:,} cells of radius "
            f"{self.radius:g} bandwidths stand for {self.batches:,} batches. Of {self.probes} "
            f"probes none is off by more than {self.error:.2%}: with {_CONFIDENCE:.0%} confidence "
            f"at most {_SHARE:.0%} of the densities are off by more than {self.tolerance:.2%}"
        )


class Probes:
    """Where random probes come from, one distance after the other.

    Args:
        rng: One number is drawn of it, when the first probes are; None: always the same probes.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        self._rng = rng
        self._sequence: np.random.SeedSequence | None = None

    def generator(self) -> np.random.Generator:
        """The generator for the next distance."""
        if self._sequence is None:
            seed = 0 if self._rng is None else int(self._rng.integers(1 << 63))
            self._sequence = np.random.SeedSequence(seed)
        return np.random.default_rng(self._sequence.spawn(1)[0])


class Points(ABC):
    """Summaries that kernels are taken between.

    Attributes:
        size: Number of summaries.
    """

    size: int

    @abstractmethod
    def take(self: P, rows: np.ndarray) -> P:
        """Some of them, by ascending numbers."""

    @abstractmethod
    def sums(self, weights: np.ndarray) -> np.ndarray:
        """``(n,)`` sums of the kernels to all of them, times weights ``(n,)``."""

    @abstractmethod
    def cross(self: P, others: P, weights: np.ndarray) -> np.ndarray:
        """``(n,)`` sums of the kernels to others, times their weights ``(m,)``."""

    @abstractmethod
    def skeleton(self, residual: float, most: int) -> Skeleton | None:
        """Landmarks that leave at most a residual, or None if they would be more than ``most``."""


class Tiles(Points):
    """Distributions packed for the loops in float32.

    Args:
        packed: ``memento._kernels.jensen_shannon.Packed``.
        bandwidth: Of the kernel.
    """

    def __init__(self, packed: Any, bandwidth: float) -> None:
        self.packed = packed
        self.bandwidth = bandwidth
        self.scale = 0.5 / bandwidth**2
        self.size = packed.size
        self._cells: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Tiles:
        from memento._kernels import jensen_shannon

        return Tiles(jensen_shannon.compact(self.packed, rows), self.bandwidth)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        from memento._kernels import jensen_shannon

        return jensen_shannon.kernel_sums(self.packed, self.scale, weights)

    def cross(self, others: Tiles, weights: np.ndarray) -> np.ndarray:
        from memento._kernels import jensen_shannon

        return jensen_shannon.cross_sums(self.packed, others.packed, self.scale, weights)

    def skeleton(self, residual: float, most: int) -> Skeleton | None:
        from memento._kernels import landmarks

        if self._cells is None:
            self._cells = landmarks.cells(self.packed, self.scale, _RADIUS, most)
        if self._cells is None:
            return None
        return landmarks.skeleton(self.packed, self.scale, self._cells, residual, most)


class Rows(Points):
    """Summaries under any distance, compared in float64.

    Args:
        distance: Bound to what the summaries are of.
        rows: ``(n, ...)`` summaries.
        bandwidth: Of the kernel, in the unit of the distance.
    """

    def __init__(self, distance: Distance, rows: np.ndarray, bandwidth: float) -> None:
        self.distance = distance
        self.rows = rows
        self.bandwidth = bandwidth
        self.size = len(rows)

    def take(self, rows: np.ndarray) -> Rows:
        return Rows(self.distance, self.rows[rows], self.bandwidth)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        return self.cross(self, weights)

    def cross(self, others: Rows, weights: np.ndarray) -> np.ndarray:
        step = max(1, _BLOCK_PAIRS // max(1, others.size))
        sums = np.empty(self.size)
        for start in range(0, self.size, step):
            sums[start : start + step] = self.kernel(start, start + step, others) @ weights
        return sums

    def kernel(self, start: int, stop: int, others: Rows | None = None) -> np.ndarray:
        """Kernel values of some, from start to stop, to others or to all of these."""
        compared = self.rows if others is None else others.rows
        return self._values(self.distance.compare(self.rows[start:stop], compared))

    def matrix(self) -> np.ndarray:
        """``(n, n)`` kernel values between all of them."""
        return self._values(self.distance.compare(self.rows, self.rows))

    def _values(self, distances: np.ndarray) -> np.ndarray:
        scaled = distances / self.bandwidth
        values: np.ndarray = np.exp(-0.5 * scaled * scaled)
        return values

    def skeleton(self, residual: float, most: int) -> Skeleton | None:
        from memento._kernels import landmarks

        groups = self._cells(most)
        if groups is None:
            return None
        order, starts = landmarks.by_cell(groups)
        pivots: list[int] = []
        firsts, factors, residuals = [0], [], np.ones(self.size)
        for start, stop in pairwise(starts.tolist()):
            members = self.take(order[start:stop])
            left = residuals[start:stop]
            own = np.empty((0, len(left)))
            while not len(own) or left.max() > residual:
                best = int(left.argmax())
                row = members.kernel(best, best + 1)[0] - own[:, best] @ own
                row /= math.sqrt(left[best])
                own = np.concatenate([own, row[None]])
                left -= row**2
                np.maximum(left, 0.0, out=left)
                left[best] = 0.0
                pivots.append(start + best)
                if len(pivots) > most:
                    return None
            firsts.append(len(pivots))
            factors.append(own.astype(np.float32).reshape(-1))
        offsets = np.cumsum([0, *map(len, factors)])
        return landmarks.Skeleton(
            order,
            starts,
            np.array(pivots),
            np.array(firsts),
            np.concatenate(factors),
            offsets,
            residuals,
        )

    def _cells(self, most: int) -> np.ndarray | None:
        """``(n,)`` the cell of each, or None if there are more than ``most``."""
        groups = np.empty(self.size, np.int64)
        leaders: list[int] = []
        reach = _RADIUS * self.bandwidth
        for start in range(0, self.size, 256):
            left = np.arange(start, min(start + 256, self.size))
            if leaders:
                distances = self.distance.compare(self.rows[left], self.rows[leaders])
                nearest = distances.argmin(axis=1)
                groups[left] = nearest
                left = left[distances[np.arange(len(left)), nearest] > reach]
            while len(left):
                distances = self.distance.compare(self.rows[left[:1]], self.rows[left])[0]
                near = distances <= reach
                near[0] = True
                groups[left[near]] = len(leaders)
                leaders.append(int(left[0]))
                left = left[~near]
            if len(leaders) > most:
                return None
        return groups


class Landmarks:
    """Sums of all summaries through those of a few.

    Args:
        points: ``n`` distinct summaries.
        skeleton: Their cells and landmarks.
    """

    def __init__(self, points: Points, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        rows = skeleton.order[skeleton.pivots]
        # In the order of batches, in which neighbours are alike and far tiles can be left out.
        self._order = np.argsort(rows)
        self._points = points.take(rows[self._order])

    def collected(self, weights: np.ndarray) -> np.ndarray:
        """``(m,)`` weights of the landmarks that stand for weights ``(n,)`` of all."""
        from memento._kernels import landmarks

        return landmarks.collect(self.skeleton, weights)[self._order]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """``(n,)`` what values ``(m,)`` at the landmarks are at all summaries."""
        from memento._kernels import landmarks

        placed = np.empty(len(values))
        placed[self._order] = values
        return landmarks.spread(self.skeleton, placed)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """``(n,)`` kernel sums with weights ``(n,)``, each one's own kernel included."""
        found = self.spread(self._points.sums(self.collected(weights)))
        order = self.skeleton.order
        found[order] += self.skeleton.residuals * weights[order]
        return np.clip(found, weights, weights.sum())

    def cross(self, others: Landmarks, weights: np.ndarray) -> np.ndarray:
        """``(n,)`` kernel sums over others with weights ``(m,)``."""
        found = self.spread(self._points.cross(others._points, others.collected(weights)))
        return np.clip(found, 0.0, weights.sum())


def approximate(
    points: Points,
    weights: np.ndarray,
    groups: np.ndarray,
    tolerance: float,
    rng: np.random.Generator,
    name: str,
    others: Points | None = None,
) -> tuple[Landmarks | None, np.ndarray, Approximation]:
    """Kernel sums that are within a tolerance at all probes.

    Args:
        points: ``n`` distinct summaries whose sums are asked for.
        weights: ``(n,)`` how much each counts; ``(m,)`` of the others, if there are others.
        groups: ``(batches,)`` the summary of each batch.
        tolerance: Largest relative error; of sums below one kernel, in units of that.
        rng: Draws the probes.
        name: Of the distance.
        others: ``m`` distinct summaries that sums are over; the same ones if left out.

    Returns:
        Landmarks, sums and how they came about; None and no sums where they have to be exact.
    """
    limits = list(dict.fromkeys(max(share * tolerance, _FINEST) for share in _RESIDUALS))
    count = math.ceil(math.log((1 - _CONFIDENCE) / len(limits)) / math.log(1 - _SHARE))
    probes = np.unique(groups[rng.choice(len(groups), min(count, len(groups)), replace=False)])
    expected = points.take(probes).cross(points if others is None else others, weights)
    error, sums = math.nan, np.empty(0)
    best: Landmarks | None = None
    facts: dict[str, Any] = {}
    reason = "landmarks are too many to gain anything"
    for limit in limits:
        pair = [_landmarks(each, limit) for each in (points, others) if each is not None]
        own, their = pair[0], pair[-1]
        if own is None or their is None:
            break
        found = own.sums(weights) if others is None else own.cross(their, weights)
        off = float(np.max(np.abs(found[probes] - expected) / np.maximum(expected, 1.0)))
        if off <= tolerance:
            best, error, sums = own, off, found
            facts = {
                "cells": sum(len(each.skeleton.starts) - 1 for each in dict.fromkeys((own, their))),
                "landmarks": sum(len(e.skeleton.pivots) for e in dict.fromkeys((own, their))),
                "residual": limit,
            }
        elif best is None:
            error = off
            reason = f"with landmarks a probe is off by {off:.2%}, more than {tolerance:.2%}"
        # The largest error of all is above that of the probes: aim at half, where that is cheap.
        costly = len(own.skeleton.pivots) > points.size // 16
        if off <= tolerance / 2 or (off <= tolerance and costly):
            break
    known = Approximation(
        name, points.size, tolerance, "" if best else reason, probes=count, error=error, **facts
    )
    return best, sums, known


def _landmarks(points: Points, residual: float) -> Landmarks | None:
    skeleton = points.skeleton(residual, points.size // _MOST_LANDMARKS)
    return None if skeleton is None else Landmarks(points, skeleton)


def tell(approximations: tuple[Approximation, ...]) -> None:
    """Log how sums were made."""
    for each in approximations:
        _log.info("%s", each)
