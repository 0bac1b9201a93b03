"""Discarding very many batches at a temperature above 0, through cells and their landmarks.

Which batch goes is drawn as `memento._kernels.drawing` says; how, `memento._kernels.thinning` does.
Batches are discarded in *stages*, each until half of them are left: their cells and landmarks are
found anew. Within a stage sums are made anew after every sixth part of the batches has gone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from memento.landmarks import Landmarks, Tiles

if TYPE_CHECKING:
    from memento._kernels.thinning import Joint, Layer

__all__ = ["Space", "discard"]

#: With fewer batches left the exact loop is as fast.
FEWEST = 8192
# Sums are off by some tenths of a percent; so that weights are not off by more than a half, the
# largest density may be so many temperatures.
_COLDEST = 200.0
_CHUNKS = 6  # sums are made anew after this part of the batches has gone
# What landmarks may leave unexplained of what a batch loses between two sums.
_RESIDUAL = 0.005
_ROOT_TWO_PI = math.sqrt(2 * math.pi)


class Space(NamedTuple):
    """Batches under one distance.

    Attributes:
        groups: ``(n,)`` the distinct summary of each batch.
        points: Distinct summaries.
        landmarks: They stand for the others in sums; None: sums are over all.
        sums: ``(distinct,)`` kernel sums.
    """

    groups: np.ndarray
    points: Tiles
    landmarks: Landmarks | None
    sums: np.ndarray


def discard(
    spaces: Sequence[Space],
    sizes: np.ndarray,
    excess: int,
    temperature: float,
    share: float,
    drawn: np.ndarray,
) -> np.ndarray:
    """Discard batches until half of them are left, or enough samples have gone, or it is too cold.

    Args:
        spaces: One for each distance.
        sizes: ``(n,)`` samples in each batch.
        excess: Samples that have to go at least.
        temperature: Above 0, finite.
        share: As for `memento.field.Field.discard`.
        drawn: Uniform numbers in [0, 1), at least one for each batch that goes.

    Returns:
        Those that went, in order; none where there are too many cells.
    """
    n = len(sizes)
    stage = _Stage(spaces, sizes)
    gone: list[np.ndarray] = []
    left, places = n, n
    while stage.cells and excess > 0 and left > max(n // 2, FEWEST):
        if gone:
            stage.sum_up()
        some = drawn[n - left :][: -(-left // _CHUNKS)]
        batches, places = stage.thin(some, left, places, temperature, share, excess)
        if not len(batches):
            break
        gone.append(batches)
        left -= len(batches)
        excess -= int(sizes[batches].sum())
    return np.concatenate(gone) if gone else np.empty(0, np.int64)


class _Stage:
    """Cells of batches, and what they have lost."""

    def __init__(self, spaces: Sequence[Space], sizes: np.ndarray) -> None:
        self._spaces = spaces
        self._alive = np.ones(len(sizes), bool)
        self.cells = 0
        layers = [_layer(space, len(sizes)) for space in spaces]
        if any(layer is None for layer in layers):
            return
        self._layers: tuple[Layer, ...] = tuple(layers)  # type: ignore[arg-type]
        of_batches = [layer.cells[s.groups] for layer, s in zip(self._layers, spaces, strict=True)]
        joint, order, starts = _joint(of_batches)
        if len(starts) - 1 > len(sizes) // 4:
            return
        self.cells = len(starts) - 1
        self._order = order
        self._sizes = sizes[order]
        self._joint: Joint = joint._replace(
            groups=np.stack([space.groups[order] for space in spaces]).astype(np.int64)
        )

    def sum_up(self) -> None:
        """Sum up anew what is left."""
        for layer, space in zip(self._layers, self._spaces, strict=True):
            weights = np.bincount(space.groups[self._alive], minlength=len(layer.base))
            weights = weights.astype(np.float64)
            summed = space.points if space.landmarks is None else space.landmarks
            layer.base[:] = np.maximum(summed.sums(weights), 1.0)
            for array in (layer.drops, layer.solved, layer.since, layer.leads):
                array[:] = 0

    def thin(
        self,
        drawn: np.ndarray,
        left: int,
        places: int,
        temperature: float,
        share: float,
        excess: int,
    ) -> tuple[np.ndarray, int]:
        """Discard a part of the batches.

        Args:
            drawn: Uniform in [0, 1), one for each batch to go.
            left: Batches that are left.
            places: How many were left when the temperature followed the density last.
            temperature: As for `discard`, like ``share`` and ``excess``.
            share: See there.
            excess: See there.

        Returns:
            Their numbers, none where it is too cold; and the new places.
        """
        from memento._kernels import thinning

        values = np.full(int(self._alive.sum()), np.inf)
        for layer, space in zip(self._layers, self._spaces, strict=True):
            np.minimum(values, layer.base[space.groups[self._alive]], out=values)
        now = temperature
        if share:
            mean = (values.sum() / left - 1) / (max(left - 1, 1) * _ROOT_TWO_PI)
            now = min(temperature, max(1e-9, share * mean))
        c = 1 / (left * _ROOT_TWO_PI * now)
        shift = float(c * values.max())
        if shift > _COLDEST:
            return np.empty(0, np.int64), places
        thinning.refresh_all(self._layers, self._joint, c, shift)
        chosen = np.empty(len(drawn), np.int64)
        went, places = thinning.thin(
            self._layers,
            self._joint,
            left,
            places,
            float(temperature),
            float(share),
            shift,
            drawn,
            self._sizes,
            excess,
            chosen,
        )
        batches = self._order[chosen[:went]]
        self._alive[batches] = False
        return batches, places


def _layer(space: Space, batches: int) -> Layer | None:
    """Cells and landmarks of one distance; None if they are too many to gain anything."""
    from memento._kernels import jensen_shannon, thinning

    points = space.points
    most = max(points.size // 2, 1) if space.landmarks is not None else points.size
    skeleton = points.skeleton(_RESIDUAL, most)
    if skeleton is None:
        return None
    sizes = np.diff(skeleton.starts)
    cells, places = np.empty(points.size, np.int64), np.empty(points.size, np.int64)
    cells[skeleton.order] = np.repeat(np.arange(len(sizes)), sizes)
    places[skeleton.order] = np.arange(points.size) - np.repeat(skeleton.starts[:-1], sizes)
    marks = skeleton.order[skeleton.pivots]
    packed = jensen_shannon.compact(points.packed, marks)
    leaders = jensen_shannon.compact(points.packed, marks[skeleton.firsts[:-1]])
    room = -(-batches // _CHUNKS) // jensen_shannon.TILE + 1
    recent = jensen_shannon.empty_aligned((room, *points.packed.tiles.shape[1:]))
    recent_halves = jensen_shannon.empty_aligned((room, jensen_shannon.TILE))
    count = len(marks)
    return thinning.Layer(
        points.packed.tiles,
        points.packed.halves,
        np.array([jensen_shannon.binary(points.scale)]),
        cells,
        places,
        skeleton.starts,
        skeleton.pivots,
        skeleton.firsts,
        skeleton.factors,
        skeleton.offsets,
        packed.tiles,
        packed.halves,
        leaders.tiles,
        leaders.halves,
        np.maximum(space.sums, 1.0),
        np.zeros(count),
        np.zeros(count),
        np.zeros(len(sizes), np.int64),
        np.zeros(len(sizes)),
        recent,
        recent_halves,
    )


def _joint(cells: Sequence[np.ndarray]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Batches that are in the same cell under every distance."""
    from memento._kernels import thinning

    keys = np.zeros(len(cells[0]), np.int64)
    for of_batches in cells:
        _, keys = np.unique(keys * (int(of_batches.max()) + 1) + of_batches, return_inverse=True)
    order = np.argsort(keys, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys))]).astype(np.int64)
    count, n = len(starts) - 1, len(order)
    firsts = order[starts[:-1]]
    joint = thinning.Joint(
        starts,
        np.empty((0, 0), np.int64),
        np.stack([of_batches[firsts] for of_batches in cells]),
        np.empty(n),
        np.ones(n),
        np.empty(n),
        np.empty(count),
        np.empty(count, np.int64),
        np.empty(count),
        np.empty(count),
        np.empty(count),
        np.empty((len(cells), count)),
        np.empty((len(cells), count)),
    )
    return joint, order, starts
