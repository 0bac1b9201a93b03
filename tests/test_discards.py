"""Discards of very many batches: the law of the exact loop, through cells.

Kept rates are compared by deciles of density and by cells. Draws within one run depend on each
other, so z is taken from the variance between runs with different seeds. With 27 to 40 rates in
each of four comparisons, |z| < 4 fails by chance once in 100 times if the seeds were drawn anew;
they are fixed.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from memento import JensenShannon, Memento, Memory, Samples, SampleSpace, discards
from memento._kernels import jensen_shannon, landmarks
from memento.density import Field
from memento.policies.memento import thin
from test_landmarks import sharp

pytestmark = pytest.mark.compiled
DISTANCES = (JensenShannon.of_probabilities("p"), JensenShannon.of_probabilities("l"))


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    """Cells discard down to 256 batches, so that small inputs show what they do."""
    monkeypatch.setattr("memento.discards.FEWEST", 256)
    monkeypatch.setattr("memento.field.FEWEST", 1024)


def day(n, seed):
    """Predictions and shares of few labels, a quarter of them mixed with the next."""
    rng = np.random.default_rng(seed)
    p = sharp(n, seed)
    labels = p.argmax(axis=1)
    shares = np.eye(8)[labels]
    mixed = rng.random(n) < 0.25
    shares[mixed] = (3 * shares[mixed] + np.eye(8)[(labels[mixed] + 1) % 8]) / 4
    return Samples(p=p, l=shares)


def field_of(samples, precision) -> Field:
    space = SampleSpace(DISTANCES, batch_size=1, sort_by=(), remainder="keep", precision=precision)
    return space.field(space.batches(samples))


def kept(field, sizes, seeds, temperature=0.01, share=0.0):
    """``(seeds, n)`` what stays of half of the samples, for one seed after the other."""
    found = []
    for seed in seeds:
        fresh = copy.copy(field)
        fresh.terms = [copy.copy(term) for term in field.terms]
        for term in fresh.terms:
            term.values = term.values.copy()
        half = int(sizes.sum()) // 2
        alive, gone = thin(fresh, sizes, half, temperature, np.random.default_rng(seed), share)
        left = int(sizes[alive].sum())
        assert left <= half < left + sizes[gone[-1]]
        assert len(gone) == len(set(gone)) == np.count_nonzero(~alive)
        found.append(alive)
    return np.array(found)


def parts_of(samples, density):
    """Deciles of density, and the cells with at least a hundredth of the batches."""
    n = len(density)
    deciles = np.argsort(np.argsort(density)) * 10 // n
    cells = landmarks.cells(jensen_shannon.pack(samples["p"]), 50.0, 1.0, n)
    large = np.flatnonzero(np.bincount(cells) >= n / 100)
    return [deciles == d for d in range(10)] + [cells == c for c in large]


def deviations(ours, exact, parts):
    """z of the kept rate of each part."""
    found = []
    for part in parts:
        a, b = ours[:, part].mean(axis=1), exact[:, part].mean(axis=1)
        spread = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
        found.append((a.mean() - b.mean()) / max(spread, 1e-6))
    return np.array(found)


LAWS = [
    (2048, 0.01, 0.0, False),
    pytest.param(2048, 0.01, 0.1, True, marks=pytest.mark.slow),
    pytest.param(8192, 0.01, 0.0, True, marks=pytest.mark.slow),
    pytest.param(8192, 0.01, 0.1, False, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("n", "temperature", "share", "unequal"), LAWS)
def test_kept_rates_are_those_of_the_exact_loop(n, temperature, share, unequal, monkeypatch):
    stages = []
    discard = discards.discard
    monkeypatch.setattr(discards, "discard", lambda *a: stages.append(discard(*a)) or stages[-1])
    samples = day(n, 100 + n)
    sizes = np.random.default_rng(n).integers(1, 5, n) if unequal else np.ones(n, np.int64)
    fast, cells = field_of(samples, "fast"), field_of(samples, "approximate")
    assert any(not known.exact for known in cells.approximations)
    exact = kept(fast, sizes, range(1000, 1050), temperature, share)
    ours = kept(cells, sizes, range(50), temperature, share)
    assert sum(map(len, stages)) > 50 * n // 4
    parts = parts_of(samples, fast.density())
    assert len(parts) > 15
    off = deviations(ours, exact, parts)
    assert np.abs(off).max() < 4, off.round(1)


def test_coarse_cells_fail():
    """What the comparison above is able to see: batches in the place of their cell's first one."""
    n = 2048
    samples = day(n, 100 + n)
    fast = field_of(samples, "fast")
    packed = jensen_shannon.pack(samples["p"])
    cells = landmarks.cells(packed, 50.0, 0.64, n)
    _, firsts = np.unique(cells, return_index=True)
    coarse = field_of(Samples(p=samples["p"][firsts[cells]], l=samples["l"]), "fast")
    ones = np.ones(n, np.int64)
    exact = kept(fast, ones, range(1000, 1050), share=0.1)
    theirs = kept(coarse, ones, range(50), share=0.1)
    off = deviations(theirs, exact, parts_of(samples, fast.density())[:10])
    assert np.abs(off).max() > 5, off.round(1)


def test_one_seed_makes_one_choice():
    samples, ones = day(3000, 5), np.ones(3000, np.int64)
    field = field_of(samples, "approximate")
    first, same, other = kept(field, ones, [7, 7, 8])
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_one_number_is_drawn_a_discard():
    field, ones = field_of(day(2048, 5), "approximate"), np.ones(2048, np.int64)
    ours, plain = np.random.default_rng(3), np.random.default_rng(3)
    _, gone = thin(field, ones, 700, 0.01, ours)
    plain.random(len(gone))
    assert ours.random() == plain.random()


@pytest.mark.parametrize("capacity", [40, 1500, 2047])
def test_any_number_may_stay(capacity):
    ones = np.ones(2048, np.int64)
    alive, _ = thin(
        field_of(day(2048, 6), "approximate"), ones, capacity, 0.01, np.random.default_rng(1)
    )
    assert np.count_nonzero(alive) == capacity


def test_cold_draws_are_left_to_the_exact_loop(monkeypatch):
    """At so low a temperature the last digits of sums would choose."""
    monkeypatch.setattr("memento._kernels.thinning.thin", None)
    samples, ones = day(2048, 7), np.ones(2048, np.int64)
    chosen = [
        thin(field_of(samples, p), ones, 1000, 1e-6, np.random.default_rng(1))[0]
        for p in ("approximate", "fast")
    ]
    np.testing.assert_array_equal(*chosen)


def test_a_memory_keeps_its_capacity():
    policy = Memento(
        [JensenShannon.of_probabilities("p"), JensenShannon.of_labels("y", 8)],
        batch_size=2,
        precision="approximate",
    )
    rows = sharp(9000, 4)
    columns = {"p": rows, "y": rows.argmax(axis=1)}
    memories = []
    for _ in range(2):
        memory = Memory(3000, policy, seed=2)
        report = memory.insert(columns)
        assert len(memory) == 3000
        assert not all(known.exact for known in report.approximations)
        memories.append(memory.samples["p"])
    np.testing.assert_array_equal(*memories)
