"""The discard loop against one that keeps whole matrices and recomputes everything."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from memento._kernels import drawing, plain
from memento._kernels import jensen_shannon as kernels

UNCOMPILED = numba.config.DISABLE_JIT
SIZE = 30 if UNCOMPILED else 530
GO = SIZE // 4
SCALE = 50.0


def packed_case(n=SIZE, seed=0):
    """Distinct distributions under one distance, seven groups under another."""
    rng = np.random.default_rng(seed)
    rows = rng.random((n, 5)) ** 3
    rows /= rows.sum(axis=1, keepdims=True)
    few = rng.random((7, 3))
    few /= few.sum(axis=1, keepdims=True)
    groups = rng.integers(0, 7, n).astype(np.int32)
    counts = np.bincount(groups, minlength=7).astype(float)
    packs = [kernels.pack(rows), kernels.pack(few)]
    sums = [
        kernels.kernel_sums(packs[0], SCALE, np.ones(n)),
        kernels.kernel_sums(packs[1], SCALE, counts),
    ]
    return packs, sums, [None, groups]


def matrix_of(packed):
    rows = np.empty((packed.size, packed.size))
    for i, row in enumerate(rows):
        kernels.kernel_row(packed, i, SCALE, row)
    return rows


def discard(kernels, sums, groups, temperature, us, rows=None, excess=None, share=0.0):
    n = len(sums[0]) if groups[0] is None else len(groups[0])
    rows = np.ones(n, np.int64) if rows is None else rows
    excess = n if excess is None else excess
    return drawing.discard(kernels, sums, groups, SCALE, temperature, us, rows, excess, share)


def slow_discard(matrices, temperature, us):
    """Matrices are (n, n), over batches; every sum is made anew at every step."""
    alive = np.arange(len(matrices[0]))
    gone = []
    for u in us:
        sums = np.min([m[np.ix_(alive, alive)].sum(axis=1) for m in matrices], axis=0)
        rho = sums / len(alive) / np.sqrt(2 * np.pi)
        if temperature == 0:
            place = np.flatnonzero(rho >= rho.max() * (1 - 1e-9))[-1]
        elif temperature == np.inf:
            place = int(u * len(alive))
        else:
            running = np.cumsum(np.exp((rho - rho.max()) / temperature))
            place = np.searchsorted(running, u * running[-1], side="right")
        gone.append(alive[place])
        alive = np.delete(alive, place)
    return gone


@pytest.mark.parametrize("temperature", [0.0, 0.01, 1.0, np.inf])
@pytest.mark.parametrize("form", ["packed", "matrix", "mixed"])
def test_discard_is_the_slow_loop(temperature, form):
    packs, sums, groups = packed_case()
    first, second = matrix_of(packs[0]), matrix_of(packs[1])
    us = np.random.default_rng(1).random(GO)
    expected = slow_discard([first, second[np.ix_(groups[1], groups[1])]], temperature, us)
    given = {"packed": packs, "matrix": [first, second], "mixed": [packs[0], second]}[form]
    gone = discard(given, sums, groups, temperature, us)
    assert gone.tolist() == expected
    left = np.setdiff1d(np.arange(SIZE), gone)
    np.testing.assert_allclose(
        sums[0][left], first[np.ix_(left, left)].sum(axis=1), rtol=1e-9, atol=1e-9
    )
    living = np.unique(groups[1][left])
    np.testing.assert_allclose(
        sums[1][living], second[np.ix_(living, groups[1][left])].sum(axis=1), rtol=1e-9
    )


@pytest.mark.parametrize("form", ["packed", "matrix"])
def test_it_ends_when_enough_samples_have_gone(form):
    packs, sums, groups = packed_case()
    kernels = packs if form == "packed" else [matrix_of(pack) for pack in packs]
    us = np.random.default_rng(1).random(SIZE)
    rows = np.random.default_rng(2).integers(1, 9, SIZE)
    most = [total.copy() for total in sums]
    all_gone = discard(kernels, most, groups, 0.01, us)
    for excess in (0, 1, int(rows.sum()) // 3, int(rows.sum())):
        given = [total.copy() for total in sums]
        gone = discard(kernels, given, groups, 0.01, us, rows, excess)
        running = np.cumsum(rows[all_gone])
        count = int(np.searchsorted(running, excess)) + 1 if excess else 0
        assert gone.tolist() == all_gone[:count].tolist()


@pytest.mark.parametrize("form", ["packed", "matrix"])
def test_temperature_follows_what_is_left(form):
    packs, sums, groups = packed_case(60)
    kernels = packs if form == "packed" else [matrix_of(pack) for pack in packs]
    us = np.random.default_rng(1).random(40)
    own = [matrix_of(packs[0]), matrix_of(packs[1])[np.ix_(groups[1], groups[1])]]
    alive, expected = np.arange(60), []
    for u in us:  # of 60 batches, every one that goes is more than a 64th
        left = np.min([m[np.ix_(alive, alive)].sum(axis=1) for m in own], axis=0)
        mean = (left - 1).mean() / (len(alive) - 1) / np.sqrt(2 * np.pi)
        temperature = min(0.01, max(1e-9, 0.1 * mean))
        rho = left / len(alive) / np.sqrt(2 * np.pi)
        running = np.cumsum(np.exp((rho - rho.max()) / temperature))
        place = int(np.searchsorted(running, u * running[-1], side="right"))
        expected.append(alive[place])
        alive = np.delete(alive, place)
    gone = discard(kernels, sums, groups, 0.01, us, share=0.1)
    assert gone.tolist() == expected


def test_draw_is_one_step_of_it():
    packs, sums, groups = packed_case(seed=2)
    second = matrix_of(packs[1])
    us = np.random.default_rng(3).random(10)
    expected = discard(packs, [s.copy() for s in sums], groups, 0.01, us)
    alive = np.ones(SIZE, bool)
    for step, u in enumerate(us):
        i = plain.draw(sums, groups, alive, SIZE - step, 0.01, u)
        assert i == expected[step]
        alive[i] = False
        kernels.subtract_row(packs[0], i, SCALE, 1.0, sums[0])
        sums[1] -= second[groups[1][i]]


@pytest.mark.parametrize("temperature", [0.0, 0.01, np.inf])
def test_all_may_go_and_none_twice(temperature):
    n = 12
    packs, sums, groups = packed_case(n)
    gone = discard(packs, sums, groups, temperature, np.full(n, 0.999_999))
    assert sorted(gone.tolist()) == list(range(n))


def test_ties_go_from_the_end():
    """Equal summaries are one group; sums that differ by rounding count as equal."""
    sums = np.array([2.0, 2.0 + 1e-12, 2.0 - 1e-12, 1.0])
    assert plain.draw([sums], [None], np.ones(4, bool), 4, 0.0, 0.0) == 2
    gone = discard(
        [kernels.pack(np.eye(2))],
        [np.array([3.0, 2.0])],
        [np.array([0, 1, 0, 1, 0], np.int32)],
        0.0,
        np.zeros(5),
    )
    assert gone.tolist() == [4, 3, 2, 1, 0]


def test_probabilities_are_the_softmax():
    """Draws over a fine lattice of u, which makes frequencies exact to one part in the lattice."""
    sums = np.array([3.0, 5.0, 4.9, 1.0, 4.0])
    alive = np.array([True, True, True, True, False])
    temperature, m = 0.1, 4
    steps = 400 if UNCOMPILED else 20_000
    us = (np.arange(steps) + 0.5) / steps
    drawn = [plain.draw([sums], [None], alive, m, temperature, u) for u in us]
    weights = np.exp(sums / m / np.sqrt(2 * np.pi) / temperature) * alive
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=5) / steps, weights / weights.sum(), atol=1.5 / steps
    )


def test_extremes_of_u_stay_inside():
    sums = np.array([1.0, 1.0, 9.0, 1.0])
    alive = np.array([False, True, True, False])
    for temperature in (1e-6, 0.01, 10.0, np.inf):
        assert plain.draw([sums], [None], alive, 2, temperature, 0.0) in (1, 2)
        for last in (np.nextafter(1.0, 0.0), 1.0):  # 1.0: as if rounding had lost the last share
            assert plain.draw([sums], [None], alive, 2, temperature, last) == 2


def test_many_tiles_give_the_same_as_few():
    """Far tiles are left out and described anew as batches go; drawn is what a matrix draws."""
    n = kernels.TILE * (kernels.MANY + 1)
    rng = np.random.default_rng(8)
    rows = 0.05 ** (rng.random((n, 5)) * 3) + 5 * np.eye(5)[np.sort(rng.integers(0, 5, n))]
    rows /= rows.sum(axis=1, keepdims=True)
    packed = kernels.pack(rows)
    sums = kernels.kernel_sums(packed, SCALE, np.ones(n))
    us = rng.random(n // 2)
    full = matrix_of(packed._replace(radii=np.zeros(0)))
    expected = discard([full], [full.sum(axis=1)], [None], 0.01, us)
    gone = discard([packed], [sums], [None], 0.01, us)
    np.testing.assert_array_equal(gone, expected)
