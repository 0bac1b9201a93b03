"""Distances between batches of vectors, such as the outputs of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from memento.arguments import Column, whole
from memento.batching import Batches
from memento.distances import Distance, by_size, in_blocks, quantiles_of

__all__ = ["SlicedWasserstein"]


class SlicedWasserstein(Distance):
    """Earth mover's distance between batches of vectors, by their shadows on many lines.

    For vectors such as the outputs of an encoder: it sees how a batch is spread, not its mean
    alone. In the unit of the vectors, so scale the bandwidth.

    Example:
        >>> batches = np.array([[[0.0, 0.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> SlicedWasserstein.of_vectors("z").matrix(batches).round(2)
        array([[0.  , 0.74],
               [0.74, 0.  ]])
    """

    metric = True

    @staticmethod
    def of_vectors(
        column: str, directions: int = 64, levels: int = 16, seed: int = 0
    ) -> SlicedWasserstein:
        """Of second order (Bonneel et al., "Sliced and Radon Wasserstein barycenters", 2015).

        The root of the mean, over directions drawn uniformly at random once and for all, of the
        squared second Wasserstein distances between the projections on them.

        Args:
            column: ``(n, d)`` finite numbers.
            directions: Lines that vectors are projected on.
            levels: Quantiles that each projection of a batch is summarised by; exact for batches
                whose size divides it.
            seed: Of the directions.
        """
        return _OfVectors(column, directions, levels, seed)


@dataclass(frozen=True)
class _OfVectors(SlicedWasserstein):
    kind: ClassVar[str] = "sliced-wasserstein"
    column: Column
    directions: Annotated[int, whole(most=10_000)]
    levels: Annotated[int, whole(most=10_000)]
    seed: Annotated[int, whole(0)]

    @property
    def axes(self) -> Mapping[str, int]:
        return {self.column: 1}

    def summarise(self, batches: Batches) -> np.ndarray:
        vectors = batches.column(self.column).astype(np.float64)
        drawn = np.random.default_rng(self.seed).normal(size=(self.directions, vectors.shape[1]))
        lines = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        found = np.empty((len(batches), self.directions, self.levels))
        for i, line in enumerate(lines):  # one at a time, so that memory stays small
            found[:, i] = by_size(quantiles_of(self.levels), vectors @ line, batches)
        return found.reshape(len(batches), -1)

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return in_blocks(lambda a: np.sqrt(((a - second) ** 2).mean(axis=-1)), first, second)
