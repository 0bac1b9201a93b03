"""Coverage increase: the published formula, the calibrated one, and its false alarms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from chances import assert_counts
from memento import (
    CoverageIncrease,
    JensenShannon,
    Memento,
    Memory,
    Samples,
    SampleSpace,
    coverage_increase,
)
from memento.errors import DomainError, SchemaError, SettingError

CLASSES = 21
DISTANCES = (JensenShannon.of_labels("y", CLASSES), JensenShannon.of_probabilities("p"))
SHARES = 0.95 ** np.arange(CLASSES) / (0.95 ** np.arange(CLASSES)).sum()


def space(batch_size=8, **settings):
    return SampleSpace(
        DISTANCES, batch_size, **{"sort_by": ("y", "p"), "remainder": "drop", **settings}
    )


def stream(rows, seed, *, drifted=0.0):
    """Labels, and predictions around them; a share of drifted samples is of the last class."""
    rng = np.random.default_rng(seed)
    y = rng.choice(CLASSES, rows, p=SHARES)
    y[rng.random(rows) < drifted] = CLASSES - 1
    around = np.exp(-0.5 * (np.arange(CLASSES) - y[:, None]) ** 2)
    p = rng.gamma(0.05 + 5 * around)
    return Samples(y=y, p=p / p.sum(axis=1, keepdims=True))


def summaries(samples, size):
    batches = naive.cut(naive.sort_order([samples["y"], samples["p"]]), size)
    labels = [naive.frequencies(samples["y"][rows], CLASSES) for rows in batches]
    return labels, [naive.mixture(samples["p"][rows]) for rows in batches]


def expected(now, before, size, *, alone):
    mine, theirs = summaries(now, size), summaries(before, size)
    own = [np.array([naive.jensen_shannon_row(p, np.array(a)) for p in a]) for a in mine]
    cross = [
        np.array([naive.jensen_shannon_row(p, np.array(b)) for p in a])
        for a, b in zip(mine, theirs, strict=True)
    ]
    return naive.relative_coverage_increase(own, cross, alone=alone)


# -------------------------------------------------------------------------------------------- value


@pytest.mark.parametrize("estimator", ["plain", "calibrated"])
@pytest.mark.parametrize(("rows", "others"), [(240, 240), (168, 331), (400, 80)])
def test_values_are_those_of_the_oracle(estimator, rows, others):
    now, before = stream(rows, 1), stream(others, 2)
    found = coverage_increase(now, before, space(), estimator=estimator, permutations=0)
    value = expected(now, before, 8, alone=estimator == "calibrated")
    assert float(found) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert found.estimator == estimator
    assert found.batches == (rows // 8, others // 8)


@pytest.mark.compiled
@pytest.mark.parametrize("estimator", ["plain", "calibrated"])
def test_fast_values_are_close(estimator):
    now, before = stream(1500, 1, drifted=0.1), stream(1600, 2)
    exact, fast = (
        float(
            coverage_increase(now, before, space(precision=p), estimator=estimator, permutations=0)
        )
        for p in ("exact", "fast")
    )
    assert fast == pytest.approx(exact, abs=1e-4)


def test_calibrated_is_the_default_and_lower_than_plain():
    now, before = stream(400, 3), stream(400, 4)
    default = coverage_increase(now, before, space(), permutations=0)
    plain = coverage_increase(now, before, space(), estimator="plain", permutations=0)
    assert default.estimator == "calibrated"
    assert float(default) < float(plain)


def test_the_floor_of_the_plain_estimate_comes_from_own_kernels():
    """Two draws of one distribution, 60 batches each: 0.2 against 0.02."""
    values = {"plain": [], "calibrated": []}
    for seed in range(5):
        now, before = stream(960, 2 * seed), stream(960, 2 * seed + 1)
        for estimator, found in values.items():
            found.append(
                coverage_increase(now, before, space(16), estimator=estimator, permutations=0)
            )
    assert np.mean(values["plain"]) > 0.15
    assert np.mean(values["calibrated"]) < 0.03


def test_same_region_is_no_increase():
    samples = stream(200, 5)
    for estimator in ("plain", "calibrated"):
        found = coverage_increase(samples, samples, space(), estimator=estimator, permutations=0)
        assert float(found) == pytest.approx(0, abs=1e-12)


def test_a_new_region_is_all_new():
    before, now = Samples(y=[0] * 64), Samples(y=[1] * 64)
    only = SampleSpace(DISTANCES[:1], 8, sort_by=["y"])
    for estimator in ("plain", "calibrated"):
        found = coverage_increase(now, before, only, estimator=estimator)
        assert float(found) == pytest.approx(1)
        assert found.p_value == 1 / 400


def test_less_coverage_is_no_increase():
    before, now = Samples(y=[0, 1] * 64), Samples(y=[1] * 64)
    only = SampleSpace(DISTANCES[:1], 8, sort_by=["y"])
    assert float(coverage_increase(before, now, only, permutations=0)) == pytest.approx(0.5)
    # The share of the class grew, from a half to all, and so did its density.
    assert float(coverage_increase(now, before, only, permutations=0)) == pytest.approx(0.5)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32), st.integers(1, 16))
def test_increase_is_between_zero_and_one(rows, others, seed, size):
    now, before = stream(rows, seed), stream(others, seed + 1)
    for estimator in ("plain", "calibrated"):
        found = coverage_increase(now, before, space(size), estimator=estimator, permutations=2)
        assert 0 <= float(found) <= 1
        assert ((found.null >= 0) & (found.null <= 1)).all()
        assert found.p_value * 30 == pytest.approx(max(1, round(found.p_value * 30)))


# -------------------------------------------------------------------------------- little or nothing


@pytest.mark.parametrize("reference", [None, {}, Samples(), {"y": np.empty(0, int)}])
def test_before_anything_was_trained_all_is_new(reference):
    found = coverage_increase(stream(50, 0), reference, space())
    assert float(found) == 1
    assert found.p_value == 0
    assert math.isnan(found.noise)


def test_without_samples_nothing_is_new():
    assert float(coverage_increase(Samples(), stream(50, 0), space())) == 0


@pytest.mark.parametrize(("rows", "others"), [(3, 50), (50, 3), (1, 1), (8, 8)])
def test_sets_smaller_than_a_batch_make_one(rows, others):
    found = coverage_increase(stream(rows, 0), stream(others, 1), space(), permutations=3)
    assert 0 <= float(found) <= 1
    assert found.batches == (max(1, rows // 8), max(1, others // 8))


def test_a_lone_batch_is_compared_with_its_own_kernel():
    same, other = Samples(y=[0] * 8), Samples(y=[1] * 8)
    only = SampleSpace(DISTANCES[:1], 8, sort_by=["y"])
    assert float(coverage_increase(same, same, only, permutations=0)) == 0
    assert float(coverage_increase(same, other, only, permutations=0)) == pytest.approx(1)


def test_neighbours_too_far_to_matter_are_none():
    """Leaving own kernels out must not leave the value to rounding."""
    rng = np.random.default_rng(0)
    only = SampleSpace(DISTANCES[1:], 1, sort_by=["p"])
    for _ in range(20):
        centres = np.eye(CLASSES)[rng.permutation(CLASSES)[:8]]
        p = 0.9 * centres + 0.1 * rng.dirichlet(np.ones(CLASSES), 8)
        now, before = Samples(p=p[:4]), Samples(p=p[4:])
        assert float(coverage_increase(now, before, only, permutations=0)) > 0.9


def test_batches_without_neighbours_still_cover_something():
    only = SampleSpace(DISTANCES[:1], 1, sort_by=["y"])
    before, now = Samples(y=[0, 1, 2]), Samples(y=[3, 4, 5])
    assert float(coverage_increase(now, before, only, permutations=0)) == pytest.approx(1)
    assert float(coverage_increase(now, now, only, permutations=0)) == 0


@pytest.mark.parametrize(("gone", "left"), [("p", 0), ("y", 1)])
@pytest.mark.filterwarnings("ignore:missing columns")
def test_outputs_or_predictions_alone(gone, left):
    now, before = stream(100, 1, drifted=0.3).without(gone), stream(100, 2).without(gone)
    only = SampleSpace([DISTANCES[left]], 8, remainder="drop")
    expected_value = float(coverage_increase(now, before, only, permutations=0))
    assert float(coverage_increase(now, before, space(), permutations=0)) == expected_value
    # A column that one of the two lacks cannot be compared.
    whole = stream(100, 2)
    assert float(coverage_increase(now, whole, space(), permutations=0)) == expected_value
    with pytest.raises(SchemaError, match="is missing"):
        coverage_increase(now, before, space(missing="error"))


def test_a_derived_grid_is_that_of_both_sets():
    rng = np.random.default_rng(0)
    before, now = {"v": rng.normal(0, 1, 200)}, {"v": rng.normal(3, 1, 200)}
    every = np.concatenate([before["v"], now["v"]])
    low, high = naive.quantile(every, 0.0005), naive.quantile(every, 0.9995)
    given_grid = JensenShannon.of_values("v", np.linspace(low, high, 32))
    derived = JensenShannon.of_values("v", points=32)
    found = [
        float(coverage_increase(now, before, SampleSpace([d], 10, sort_by=["v"]), permutations=0))
        for d in (given_grid, derived)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)
    assert found[0] > 0.5


# -------------------------------------------------------------------------------------------- noise


def test_permutations_can_be_left_out():
    now, before = stream(80, 1), stream(80, 2)
    values = {float(coverage_increase(now, before, space(), permutations=n)) for n in (0, None, 5)}
    assert len(values) == 1
    for none in (0, None):
        found = coverage_increase(now, before, space(), permutations=none)
        assert math.isnan(found.p_value)
        assert math.isnan(found.noise)
        assert len(found.null) == 0


def test_same_seed_same_noise():
    now, before = stream(80, 1), stream(80, 2)
    first, again, other = (
        coverage_increase(now, before, space(), permutations=9, rng=rng)
        for rng in (4, np.random.default_rng(4), 5)
    )
    np.testing.assert_array_equal(first.null, again.null)
    assert (first.noise, first.p_value) == (again.noise, again.p_value)
    assert (first.null != other.null).any()


def test_permutations_exchange_samples_and_batch_anew():
    """The null is what two random halves of the pooled samples would give."""
    now, before = stream(240, 1), stream(320, 2, drifted=0.1)
    pooled = Samples.concat([now, before])
    found = coverage_increase(now, before, space(), permutations=60, rng=0)
    rng = np.random.default_rng(1)
    null = []
    for _ in range(60):
        rows = rng.permutation(560)
        null.append(expected(pooled.take(rows[:240]), pooled.take(rows[240:]), 8, alone=True))
    deviation = np.sqrt(np.var(null) / 60 + np.var(found.null) / 60)
    assert abs(np.mean(null) - found.null.mean()) < 4 * deviation  # one in 16,000
    assert found.null.min() < np.median(null) < found.null.max()


def test_order_of_samples_does_not_matter():
    now, before = stream(80, 1), stream(80, 2)
    turned = now.take(np.arange(80)[::-1])
    values = [float(coverage_increase(s, before, space(), permutations=0)) for s in (now, turned)]
    assert values[0] == values[1]


def test_statement_of_noise():
    null = np.arange(1.0, 40.0) / 100
    found = CoverageIncrease(0.385, null=null[::-1], p_value=0.05, batches=(3, 4))
    assert found.noise == pytest.approx(0.38)  # two of 39 lie at or above it
    np.testing.assert_array_equal(found.null, null)
    assert repr(found) == "CoverageIncrease(0.3850, calibrated, noise=0.3800, p_value=0.050)"
    assert repr(CoverageIncrease(0.5, estimator="plain")) == "CoverageIncrease(0.5000, plain)"


def cells_of(pooled, size):
    """Cells of pooled samples in sorted order, and the distances between them."""
    order = naive.sort_order([pooled["y"], pooled["p"]])
    cells = naive.cut(order, size, keep=True)
    labels = [naive.frequencies(pooled["y"][rows], CLASSES) for rows in cells]
    means = [naive.mixture(pooled["p"][rows]) for rows in cells]
    return cells, [naive.matrix(s, s, naive.jensen_shannon) for s in (labels, means)]


def newness(cells, distances, mine):
    counts = [np.array([sum(mine[r] == side for r in rows) for rows in cells]) for side in (1, 0)]
    return naive.newness(distances, *counts)


def test_p_value_is_that_of_all_ways_to_split():
    """Against all 924 ways to split 12 samples in two halves; false-alarm rate 1e-4."""
    now, before = stream(6, 3), stream(6, 8)
    cells, distances = cells_of(Samples.concat([now, before]), 2)
    splits = []
    for chosen in itertools.combinations(range(12), 6):
        mine = np.isin(np.arange(12), chosen).astype(int)
        splits.append(newness(cells, distances, mine))
    observed = newness(cells, distances, (np.arange(12) < 6).astype(int))
    exact = np.mean(np.round(splits, 12) >= round(observed, 12))
    assert 0.05 < exact < 0.95
    found = coverage_increase(now, before, space(1), permutations=199)
    larger = round(found.p_value * 2000) - 1
    assert_counts([larger, 1999 - larger], [1999 * exact, 1999 * (1 - exact)], 1e-4)


@pytest.mark.compiled
def test_false_alarms_are_as_rare_as_promised():
    """P-values of 200 quiet pairs are uniform (chi-square over quarters, false-alarm rate 1e-4).

    At most 5 % are 0.05 or less: of 200, more than 22 would be by chance once in 10,000 times.
    """
    values = np.array(
        [
            coverage_increase(
                stream(320, 2 * i), stream(320, 2 * i + 1), space(), permutations=1, rng=i
            ).p_value
            for i in range(200)
        ]
    )
    assert (values <= 0.05).sum() <= 22
    assert_counts(np.histogram(values, [0, 0.26, 0.51, 0.76, 1.01])[0], np.full(4, 50), 1e-4)


@pytest.mark.compiled
def test_noise_is_rarely_exceeded():
    """Of 100 quiet pairs 5 exceed the 95 % quantile of 19 draws; more than 15 once in 27,000."""
    exceeded = 0
    for i in range(100):
        found = coverage_increase(
            stream(320, 2 * i), stream(320, 2 * i + 1), space(), permutations=19, rng=i
        )
        exceeded += float(found) > found.noise
    assert exceeded <= 15


@pytest.mark.compiled
@pytest.mark.slow
def test_drift_of_three_percent_is_seen():
    """200 batches of 64; the plain estimate stays within what it is without a drift."""
    seen, plain, quiet = 0, [], []
    for i in range(10):
        before, now = stream(12_800, 3 * i), stream(12_800, 3 * i + 1, drifted=0.03)
        seen += coverage_increase(now, before, space(64), permutations=4, rng=i).p_value <= 0.05
        for found, samples in ((plain, now), (quiet, stream(12_800, 3 * i + 2))):
            found.append(
                coverage_increase(samples, before, space(64), estimator="plain", permutations=0)
            )
    assert seen >= 9
    assert min(plain) < max(quiet) + 0.03


def test_progress_is_reported():
    calls = []
    coverage_increase(
        stream(40, 0),
        stream(40, 1),
        space(),
        permutations=3,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_inputs_are_not_changed():
    now, before = dict(stream(60, 0)), dict(stream(60, 1))
    copies = [{n: a.copy() for n, a in part.items()} for part in (now, before)]
    coverage_increase(now, before, space(), permutations=2)
    for part, copy in zip((now, before), copies, strict=True):
        for name, array in part.items():
            np.testing.assert_array_equal(array, copy[name])


def test_policies_are_spaces():
    now, before = stream(80, 1), stream(80, 2)
    policy = Memento(DISTANCES, batch_size=8, sort_by=("y", "p"), remainder="drop")
    assert float(coverage_increase(now, before, policy, permutations=0)) == float(
        coverage_increase(now, before, space(), permutations=0)
    )


# ------------------------------------------------------------------------------------------- errors


def test_what_is_refused():
    now, before = stream(20, 0), stream(20, 1)
    with pytest.raises(SettingError, match="estimator is 'raw'; expected one of 'calibrated'"):
        coverage_increase(now, before, space(), estimator="raw")
    with pytest.raises(SettingError, match="permutations is -1; expected 0 or more"):
        coverage_increase(now, before, space(), permutations=-1)
    for pair in (({"y": [99], "p": [[1.0]]}, before), (now, {"y": [99], "p": [[1.0]]})):
        with pytest.raises(DomainError, match="labels are out of range, the first is 99"):
            coverage_increase(*pair, space())
    with pytest.raises(SchemaError, match="none of the columns that the distances need"):
        coverage_increase({"z": [1]}, before, space(missing="skip"))


# --------------------------------------------------------------------------------- ties, one memory


def of_labels(rng, size):
    return {"y": rng.integers(0, 5, size)}


def of_trees(rng, size, trees=10):
    share = rng.binomial(trees, 0.5, size) / trees
    return {"y": rng.integers(0, 2, size), "yhat": np.stack([share, 1 - share], axis=1)}


def of_many_trees(rng, size):
    return of_trees(rng, size, 100)


def repeated(rng, size):
    return {"y": np.repeat(rng.integers(0, 5, size // 5 + 1), 5)[:size]}


TIED = SampleSpace([JensenShannon.of_labels("y", 5)], batch_size=8, sort_by=["y"])
TREES = SampleSpace(
    [JensenShannon.of_labels("y", 2), JensenShannon.of_probabilities("yhat")],
    batch_size=8,
    sort_by=["y", "yhat"],
)


@pytest.mark.parametrize(
    ("space", "draw"),
    [(TIED, of_labels), (TREES, of_trees), (TREES, of_many_trees)],
    ids=["labels only", "ten trees", "a hundred trees"],
)
def test_p_values_where_samples_are_equal(space, draw):
    """Of 120 p-values without a change at most 15 are <= 0.05: P = 8e-4 if the level holds."""
    rng = np.random.default_rng(0)
    small = 0
    for seed in range(120):
        rise = coverage_increase(draw(rng, 400), draw(rng, 400), space, permutations=9, rng=seed)
        small += rise.p_value <= 0.05
    assert small <= 15


@pytest.mark.parametrize("space", [TIED, replace(TIED, remainder="drop")], ids=["even", "drop"])
def test_a_drift_is_seen_where_samples_are_equal(space):
    rng = np.random.default_rng(1)
    for seed in range(10):
        now, before = rng.integers(0, 4, 4000), rng.integers(0, 4, 4000)
        now[:120] = 4
        rise = coverage_increase({"y": now}, {"y": before}, space, permutations=9, rng=seed)
        assert rise.p_value <= 0.05


def test_two_contents_of_one_memory_are_no_independent_draws():
    rng = np.random.default_rng(2)
    memory = Memory(400, Memento(TIED.distances, batch_size=8))
    for day in range(4):
        memory.insert(of_labels(rng, 500))
        if day == 1:
            memory.mark_trained()
    rise = coverage_increase(memory.samples, memory.reference, memory.policy)
    assert np.isnan(rise.p_value)
    assert np.isnan(rise.noise)
    other = Memory(400, memory.policy)
    other.insert(of_labels(rng, 500))
    assert coverage_increase(other.samples, memory.samples, TIED, permutations=9).p_value > 0


def test_of_many_batches_fewer_draws_are_made_for_the_noise(monkeypatch):
    """Each takes as long as the estimate; the p-value rests on as many draws as ever."""
    rng = np.random.default_rng(0)
    space = SampleSpace([JensenShannon.of_values("v")], batch_size=10, sort_by=["v"])
    sets = [{"v": rng.normal(size=300)} for _ in range(2)]
    told = []
    whole = coverage_increase(*sets, space, permutations=9)
    monkeypatch.setattr("memento.coverage._NOISE_PAIRS", 3 * 60**2)
    fewer = coverage_increase(*sets, space, permutations=9, progress=lambda *at: told.append(at))
    assert (len(whole.null), len(fewer.null)) == (9, 3)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert float(fewer) == float(whole)
    assert fewer.p_value * 100 == pytest.approx(round(fewer.p_value * 100)), "of 100 draws"
