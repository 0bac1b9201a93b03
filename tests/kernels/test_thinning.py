"""What cells keep of the sums of batches while batches leave, against whole matrices."""

from __future__ import annotations

import numba
import numpy as np

from memento import discards
from memento._kernels import jensen_shannon as kernels
from memento._kernels import thinning
from memento.landmarks import Tiles

SIZE = 64 if numba.config.DISABLE_JIT else 600
GO = SIZE // 8
BANDWIDTH = 0.1


def space_of(rows, groups):
    points = Tiles(kernels.pack(rows), BANDWIDTH)
    counts = np.bincount(groups, minlength=len(rows)).astype(float)
    return discards.Space(groups.astype(np.int32), points, None, points.sums(counts))


def stage_of(seed=0):
    """Distinct predictions under one distance, three labels under another."""
    rng = np.random.default_rng(seed)
    place = np.sort(rng.random(SIZE))[:, None]
    rows = np.exp(-0.5 * ((place * 2 - np.arange(6)) / 0.8) ** 2)
    rows /= rows.sum(axis=1, keepdims=True)
    spaces = [space_of(rows, np.arange(SIZE)), space_of(np.eye(3), np.arange(SIZE) * 3 // SIZE)]
    return discards._Stage(spaces, np.ones(SIZE, np.int64)), spaces


def exact(spaces, alive):
    """``(n,)`` smallest sums of the batches that are left."""
    smallest = np.full(SIZE, np.inf)
    for space in spaces:
        counts = np.bincount(space.groups[alive], minlength=space.points.size).astype(float)
        np.minimum(smallest, space.points.sums(counts)[space.groups], out=smallest)
    return smallest[alive]


def test_what_is_left_has_the_sums_that_it_has():
    stage, spaces = stage_of()
    drawn = np.random.default_rng(1).random(GO)
    gone, places = stage.thin(drawn, SIZE, SIZE, 0.05, 0.0, SIZE)
    assert (len(np.unique(gone)), places) == (GO, SIZE)
    alive = np.ones(SIZE, bool)
    alive[gone] = False
    out = np.empty(kernels.TILE, np.float32)
    for g in range(stage.cells):
        thinning._refresh(stage._layers, stage._joint, g, GO, 1.0, 0.0, out)
    values = np.empty(SIZE)
    values[stage._order] = stage._joint.values
    np.testing.assert_allclose(values[alive], exact(spaces, alive), rtol=0.03)
    assert stage._joint.sizes.sum() == SIZE - GO
    stage.sum_up()
    again, _ = stage.thin(drawn[:1], SIZE - GO, SIZE, 0.05, 0.0, SIZE)
    assert alive[again].all()


def test_it_ends_when_enough_have_gone():
    stage, _ = stage_of()
    drawn = np.random.default_rng(1).random(GO)
    gone, _ = stage.thin(drawn, SIZE, SIZE, 0.05, 0.1, 3)
    assert len(gone) == 3


def test_it_is_left_alone_where_it_is_too_cold():
    stage, _ = stage_of()
    gone, _ = stage.thin(np.zeros(2), SIZE, SIZE, 1e-6, 0.0, 3)
    assert not len(gone)
