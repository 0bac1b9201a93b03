"""Densities of batches: exact and fast against the oracle, and after batches have left."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from memento import (
    Custom,
    JensenShannon,
    Memento,
    Minkowski,
    Samples,
    SampleSpace,
    batch_densities,
    coverage_increase,
    make_batches,
)
from memento.density import cross_density
from memento.errors import DomainError, SchemaError, SettingError

LABELS, PROBABILITIES = JensenShannon.of_labels("y", 4), JensenShannon.of_probabilities("p")
BOTH = (LABELS, PROBABILITIES)


def space(distances=BOTH, **settings):
    settings = {"batch_size": 5, "sort_by": ("y", "p"), "remainder": "drop", **settings}
    return SampleSpace(distances, **settings)


def stream(rows, seed, classes=4, concentration=0.5):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, concentration), rows)
    y = (rng.random(rows)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return Samples(y=y, p=p)


def oracle(samples, batches):
    """The matrices of both distances between batches (lists of rows)."""
    labels = [naive.frequencies(samples["y"][rows], 4) for rows in batches]
    means = [naive.mixture(samples["p"][rows]) for rows in batches]
    return labels, means


def matrices(first, second):
    return [naive.matrix(a, b, naive.jensen_shannon) for a, b in zip(first, second, strict=True)]


def singles(summaries, precision, bandwidth=0.1):
    """A space in which every row of probabilities is a batch, and these in order of arrival."""
    samples = Samples(p=summaries)
    one = SampleSpace(
        [PROBABILITIES], batch_size=1, bandwidth=bandwidth, sort_by=(), precision=precision
    )
    return one, one.batches(samples)


# -------------------------------------------------------------------------------------------- exact


@given(st.integers(5, 60), st.integers(0, 2**32), st.sampled_from([0.05, 0.1, 0.7]))
def test_densities_are_those_of_the_oracle(rows, seed, bandwidth):
    samples = stream(rows, seed)
    order, density = batch_densities(samples, space(bandwidth=bandwidth))
    expected_order = naive.sort_order([samples["y"], samples["p"]])
    batches = naive.cut(expected_order, 5)
    np.testing.assert_array_equal(order, expected_order[: len(batches) * 5])
    summaries = oracle(samples, batches)
    np.testing.assert_allclose(
        density, naive.density(matrices(summaries, summaries), bandwidth), rtol=1e-9
    )
    assert density.dtype == np.float64
    assert (density > 0).all()
    assert (density <= naive.PEAK + 1e-12).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 7))
def test_densities_are_positive_and_at_most_the_peak(labels, size):
    for precision in ("exact", "auto"):
        _, density = batch_densities(
            {"y": labels}, space([LABELS], batch_size=size, sort_by=["y"], precision=precision)
        )
        assert len(density) == len(labels) // size
        assert ((density > 0) & (density <= naive.PEAK + 1e-12)).all()


def test_density_of_a_lone_batch_is_the_peak():
    _, density = batch_densities({"y": [1] * 5}, space([LABELS], sort_by=["y"]))
    assert density == pytest.approx([0.39894228])


def test_rare_in_either_space_is_rare():
    samples = stream(200, 0)
    _, of_labels = batch_densities(samples, space([LABELS]))
    _, of_probabilities = batch_densities(samples, space([PROBABILITIES]))
    _, of_both = batch_densities(samples, space())
    np.testing.assert_allclose(of_both, np.minimum(of_labels, of_probabilities), rtol=1e-12)


def test_one_bandwidth_for_each_distance():
    samples = stream(100, 1)
    _, density = batch_densities(samples, space(bandwidth=[0.05, 0.3]))
    _, of_labels = batch_densities(samples, space([LABELS], bandwidth=0.05))
    _, of_probabilities = batch_densities(samples, space([PROBABILITIES], bandwidth=0.3))
    np.testing.assert_allclose(density, np.minimum(of_labels, of_probabilities), rtol=1e-12)


def test_any_distance_will_do():
    samples = stream(60, 2)
    spread = Custom("y", np.ptp, lambda a, b: abs(a - b.T))
    _, density = batch_densities(samples, space([spread, Minkowski("p")], bandwidth=0.5))
    batches = naive.cut(naive.sort_order([samples["y"], samples["p"]]), 5)
    ranges = [np.ptp(samples["y"][rows]) for rows in batches]
    means = [naive.mixture(samples["p"][rows]) for rows in batches]
    expected = naive.density(
        [
            naive.matrix(ranges, ranges, lambda a, b: abs(a - b)),
            naive.matrix(means, means, lambda a, b: naive.minkowski(a, b, 2)),
        ],
        0.5,
    )
    np.testing.assert_allclose(density, expected, rtol=1e-9)


def test_densities_of_values():
    rng = np.random.default_rng(4)
    values, grid = rng.gamma(1.0, 1.0, 120), np.linspace(0, 6, 20)
    for precision in ("exact", "fast"):
        policy = SampleSpace(
            [JensenShannon.of_values("v", grid)], 12, sort_by=["v"], precision=precision
        )
        _, density = batch_densities({"v": values}, policy)
        estimates = [naive.kde(v, grid) for v in np.sort(values).reshape(-1, 12)]
        distances = naive.matrix(
            estimates, estimates, lambda p, q: naive.jensen_shannon(p, q, grid)
        )
        rtol = 1e-9 if precision == "exact" else 2e-4
        np.testing.assert_allclose(density, naive.density([distances]), rtol=rtol)


def test_policies_are_spaces():
    samples = stream(60, 3)
    policy = Memento(BOTH, batch_size=5, sort_by=("y", "p"), temperature=0.5, remainder="drop")
    for a, b in zip(
        batch_densities(samples, policy), batch_densities(samples, space()), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_fewer_samples_than_a_batch():
    order, density = batch_densities(stream(4, 0), space())
    assert (order.tolist(), density.tolist()) == ([], [])
    order, density = batch_densities(stream(4, 0), space(remainder="keep"))
    assert len(order) == 4
    assert density == pytest.approx([naive.PEAK])


def test_samples_are_not_changed():
    samples = dict(stream(50, 5))
    before = {name: array.copy() for name, array in samples.items()}
    batch_densities({name: array.copy() for name, array in samples.items()}, space())
    for name, array in before.items():
        np.testing.assert_array_equal(samples[name], array)


# -------------------------------------------------------------------------------------------- parts


@given(st.integers(0, 60), st.integers(0, 2**32))
def test_held_and_fresh_make_the_field_of_both(split, seed):
    samples, policy = stream(60, seed), space()
    whole = policy.field(policy.batches(samples)).density()
    parts = (samples.rows(0, split), samples.rows(split, 60))
    np.testing.assert_allclose(policy.field(policy.batches(parts)).density(), whole, rtol=1e-12)


@pytest.mark.parametrize(("gone", "left"), [("p", LABELS), ("y", PROBABILITIES)])
def test_what_is_missing_is_left_out(gone, left):
    samples = stream(60, 6).without(gone)
    with pytest.warns(UserWarning, match=f"missing columns: {gone!r}. Until they come") as warned:
        order, density = batch_densities(samples, space())
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert f"out of the density and {gone!r} out of the order" in str(warned[0].message)
    column = left.columns[0]
    expected = batch_densities(samples, space([left], sort_by=[column]))
    np.testing.assert_array_equal(order, expected[0])
    np.testing.assert_array_equal(density, expected[1])
    skipped = batch_densities(samples, space(missing="skip"))
    np.testing.assert_array_equal(density, skipped[1])
    with pytest.raises(SchemaError, match=f"column {gone!r}, which .* needs, is missing"):
        batch_densities(samples, space(missing="error"))


def test_nothing_to_see():
    with pytest.raises(
        SchemaError, match=r"none of the columns .* is there \('y'; 'p'\); found \['x'\]"
    ):
        batch_densities({"x": [1] * 9}, space(missing="skip"))


def test_values_outside_their_domain():
    with pytest.raises(DomainError, match="labels are out of range, the first is 9 in row 1"):
        batch_densities({"y": [0, 9], "p": [[1.0], [1.0]]}, space())


def test_missing_group():
    with pytest.raises(SchemaError, match="'app', which group_by names, is missing"):
        batch_densities(stream(20, 0), space(group_by="app"))
    with pytest.raises(SchemaError, match="'app', which group_by names, is missing"):
        space(group_by="app").check(stream(20, 0))


# ----------------------------------------------------------------------------------- fast and exact


def summaries_of(kind, n, k):
    rng = np.random.default_rng([n, k, len(kind)])
    if kind == "spread":
        return rng.dirichlet(np.ones(k), n)
    if kind == "sparse":
        return rng.dirichlet(np.full(k, 0.05), n)
    if kind == "sorted":  # like batches of sorted labels: one or two classes each
        counts = np.zeros((n, k))
        np.add.at(counts, (np.arange(n), np.sort(rng.integers(0, k, n))), rng.integers(1, 257, n))
        counts[np.arange(n), rng.integers(0, k, n)] += rng.integers(0, 20, n)
        return counts / counts.sum(axis=1, keepdims=True)
    if kind == "near-identical":
        rows = rng.dirichlet(np.ones(k)) * (1 + 1e-4 * rng.standard_normal((n, k)))
        return rows / rows.sum(axis=1, keepdims=True)
    if kind == "one-hot":
        return np.eye(k)[rng.integers(0, k, n)]
    if kind == "tiny":  # entries around the threshold below which they count as 0
        rows = 10.0 ** rng.uniform(-9, -3, (n, k))
        rows[np.arange(n), rng.integers(0, k, n)] = 1
        return rows / rows.sum(axis=1, keepdims=True)
    raise AssertionError(kind)


KINDS = ["spread", "sparse", "sorted", "near-identical", "one-hot", "tiny"]


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "n"), [(2, 2000), (21, 1500), (128, 1000)])
def test_fast_densities_are_right_to_one_in_ten_thousand(k, n, kind):
    summaries = summaries_of(kind, n, k)
    policy, batches = singles(summaries, "fast")
    density = policy.field(batches).density()
    some = np.random.default_rng(0).choice(n, 150, replace=False)
    expected = [
        naive.kernel(naive.jensen_shannon_row(summaries[i], summaries)).mean() * naive.PEAK
        for i in some
    ]
    rtol = 1e-4 + negligible(summaries) if kind == "tiny" else 1e-4
    np.testing.assert_allclose(density[some], expected, rtol=rtol)
    assert (density > 0).all()
    assert (density <= naive.PEAK * (1 + 1e-6)).all()


def negligible(summaries, bandwidth=0.1):
    """What it can cost that entries q below 1e-6 are 0 in m = (p + q) / 2 as well.

    A squared distance grows by p log2(1 + q/p) / 2 < q / (2 ln 2) for each of them, on both sides.
    """
    most = np.where(summaries < naive.TINY, summaries, 0).sum(axis=1).max()
    return 2 * most / (2 * np.log(2)) / (2 * bandwidth**2)


@pytest.mark.compiled
@pytest.mark.parametrize("kind", KINDS)
def test_fast_density_with_respect_to_others(kind):
    summaries = summaries_of(kind, 1300, 21)
    policy, batches = singles(summaries[:700], "fast")
    others = policy.batches(Samples(p=summaries[700:]))
    density = cross_density(policy, batches, others)
    some = np.random.default_rng(0).choice(700, 100, replace=False)
    expected = [
        naive.kernel(naive.jensen_shannon_row(summaries[i], summaries[700:])).mean() * naive.PEAK
        for i in some
    ]
    # Without the own kernel, which is exact, all of a density may come from the far side of
    # kernels, where an error of 4e-6 in a squared distance is one of 2e-4 in the kernel.
    rtol = 2e-4 + negligible(summaries)
    np.testing.assert_allclose(density[some], expected, rtol=rtol, atol=1e-12)


def test_exact_is_taken_for_small_inputs():
    summaries = summaries_of("spread", 40, 6)
    found = {p: singles(summaries, p) for p in ("auto", "exact", "fast")}
    density = {p: one.field(batches).density() for p, (one, batches) in found.items()}
    np.testing.assert_array_equal(density["auto"], density["exact"])
    assert (density["fast"] != density["exact"]).any()
    np.testing.assert_allclose(density["fast"], density["exact"], rtol=1e-4)


@pytest.mark.compiled
def test_fast_is_taken_for_large_inputs():
    summaries = summaries_of("spread", 1300, 21)
    found = {p: singles(summaries, p) for p in ("auto", "fast")}
    density = {p: one.field(batches).density() for p, (one, batches) in found.items()}
    np.testing.assert_array_equal(density["auto"], density["fast"])


THREADS = """
import sys, hashlib, numba, numpy as np
from memento import JensenShannon, Memento, SampleSpace, Samples, coverage_increase
from memento.policies import State
assert numba.get_num_threads() == int(sys.argv[1])
rng = np.random.default_rng(0)
n = 6000
samples = Samples(y=rng.integers(0, 21, n), p=rng.dirichlet(np.full(21, 0.3), n))
policy = Memento(
    [JensenShannon.of_labels("y", 21), JensenShannon.of_probabilities("p")],
    batch_size=4, sort_by=("y", "p"), precision="fast")
field = policy.field(policy.batches(samples))
digest = hashlib.sha256(field.density().tobytes())
digest.update(policy.choose(Samples(), samples, 4000, State(), rng).rows.tobytes())
rise = coverage_increase(samples.rows(0, n // 2), samples.rows(n // 2, n), policy, permutations=1)
digest.update(repr((float(rise), rise.null.tolist())).encode())
print(digest.hexdigest())
"""


@pytest.mark.compiled
def test_results_do_not_depend_on_the_number_of_threads():
    found = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "NUMBA_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", THREADS, threads],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


# ------------------------------------------------------------------------------------------ removal


def with_repeats(summaries, rng):
    """Some rows given several times, as sorted labels are."""
    return summaries[rng.integers(0, len(summaries), 2 * len(summaries))]


@pytest.mark.parametrize("way", ["matrix", "on demand", "fast"])
@given(seed=st.integers(0, 2**32), count=st.integers(1, 9))
def test_removing_batches_leaves_the_field_of_the_rest(way, seed, count):
    rng = np.random.default_rng(seed)
    summaries = with_repeats(rng.dirichlet(np.full(3, 0.5), 5), rng)
    policy, batches = singles(summaries, "fast" if way == "fast" else "exact")
    with pytest.MonkeyPatch.context() as patch:
        if way == "on demand":
            patch.setattr("memento.field._MATRIX_PAIRS", 4)
        field = policy.field(batches)
        gone = rng.permutation(len(summaries))[:count]
        for batch in gone:
            field.remove(int(batch))
    rest = np.setdiff1d(np.arange(len(summaries)), gone)
    _, remaining = singles(summaries[rest], "exact")
    rtol = 2e-4 if way == "fast" else 1e-9
    np.testing.assert_allclose(field.density()[rest], policy.field(remaining).density(), rtol=rtol)


@pytest.mark.compiled
def test_removing_many_from_a_fast_field():
    rng = np.random.default_rng(1)
    summaries = summaries_of("sorted", 900, 21)
    policy, batches = singles(summaries, "fast")
    field = policy.field(batches)
    gone = rng.permutation(900)[:700]
    for batch in gone:
        field.remove(int(batch))
    rest = np.setdiff1d(np.arange(900), gone)
    expected = [
        naive.kernel(naive.jensen_shannon_row(summaries[i], summaries[rest])).mean() * naive.PEAK
        for i in rest
    ]
    np.testing.assert_allclose(field.density()[rest], expected, rtol=1e-4)


def test_many_pairs_under_any_distance(monkeypatch):
    """Beyond a matrix' size rows are computed when they are needed; the numbers are the same."""
    samples = stream(100, 8)
    policy = space([LABELS, Minkowski("p")], precision="exact")
    whole = policy.field(policy.batches(samples))
    monkeypatch.setattr("memento.field._MATRIX_PAIRS", 16)
    piecewise = policy.field(policy.batches(samples))
    for field in (whole, piecewise):
        field.remove(3)
    np.testing.assert_allclose(piecewise.density(), whole.density(), rtol=1e-12)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_weights_count_batches(precision):
    rng = np.random.default_rng(2)
    summaries = rng.dirichlet(np.ones(4), 12)
    weights = rng.integers(1, 4, 12)
    policy, batches = singles(summaries, precision)
    weighted = policy.field(batches, weights.astype(float))
    _, repeated = singles(np.repeat(summaries, weights, axis=0), precision)
    first = np.cumsum(weights) - weights
    rtol = 1e-9 if precision == "exact" else 1e-4
    expected = policy.field(repeated).density()[first]
    np.testing.assert_allclose(weighted.density(), expected, rtol=rtol)
    weighted.remove(5)
    kept = np.delete(np.arange(12), 5)
    _, rest = singles(np.repeat(summaries[kept], weights[kept], axis=0), precision)
    first = np.cumsum(weights[kept]) - weights[kept]
    np.testing.assert_allclose(
        weighted.density()[kept], policy.field(rest).density()[first], rtol=rtol
    )


def test_leave_one_out():
    samples = stream(100, 9)
    policy = space()
    summaries = oracle(samples, naive.cut(naive.sort_order([samples["y"], samples["p"]]), 5))
    found = policy.field(policy.batches(samples)).density(leave_one_out=True)
    expected = naive.leave_one_out(matrices(summaries, summaries))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_leave_one_out_of_a_lonely_batch_is_nothing():
    policy, batches = singles(np.eye(3), "exact")
    found = policy.field(batches).density(leave_one_out=True)
    np.testing.assert_allclose(found, 0, atol=1e-12)


def test_density_with_respect_to_others():
    first, second = stream(60, 10), stream(85, 11)
    policy = space()
    found = cross_density(policy, policy.batches(first), policy.batches(second))
    rows = [naive.cut(naive.sort_order([s["y"], s["p"]]), 5) for s in (first, second)]
    cross = matrices(oracle(first, rows[0]), oracle(second, rows[1]))
    expected = np.min([naive.kernel(d).mean(axis=1) * naive.PEAK for d in cross], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distances": []}, "no distances; give at least one"),
        ({"distances": ["jsd"]}, "'jsd' is not a Distance; wrap a function in memento.Custom"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number above 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5; expected a whole number"),
        ({"batch_size": True}, "batch_size is True; expected a whole number"),
        ({"batch_size": "16"}, "batch_size is '16'; expected a whole number"),
        ({"batch_size": float("nan")}, "batch_size is nan; expected a whole number"),
        ({"bandwidth": 0.0}, "bandwidth is 0.0; expected a positive number"),
        ({"bandwidth": -0.1}, "bandwidth is -0.1; expected a positive number"),
        ({"bandwidth": float("nan")}, "bandwidth is nan; expected a positive number"),
        ({"bandwidth": float("inf")}, "bandwidth is inf; expected a positive number"),
        ({"bandwidth": [0.1]}, "1 bandwidths for 2 distances; give one for each"),
        ({"remainder": "pad"}, "remainder is 'pad'; expected one of .even., .drop., .keep."),
        ({"missing": "ignore"}, "missing is 'ignore'; expected one of .warn., .error., .skip."),
        ({"precision": "double"}, "precision is 'double'; expected one of .auto., .exact., .fast."),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        space(**{"distances": BOTH, **settings})


def test_single_values_stand_for_one():
    policy = SampleSpace(LABELS, batch_size=2, sort_by="y")
    assert policy.distances == (LABELS,)
    assert policy.sort_by == ("y",)
    assert policy == SampleSpace([LABELS], batch_size=2, sort_by=["y"])
    assert SampleSpace([LABELS], bandwidth=np.float32(0.25)).present([Samples(y=[1])]) == [
        (LABELS, 0.25)
    ]


def test_batches_of_a_space_follow_its_settings():
    samples = Samples(app=["b", "a", "b", "a", "a"], y=[0, 1, 2, 3, 0])
    policy = SampleSpace([LABELS], batch_size=2, sort_by=["y"], group_by="app", remainder="keep")
    batches = policy.batches(samples)
    assert [batches.rows(i).tolist() for i in range(len(batches))] == [[4, 1], [3], [0, 2]]
    again = policy.cut((samples,), policy.order(samples))
    np.testing.assert_array_equal(again.order, batches.order)
    np.testing.assert_array_equal(again.offsets, batches.offsets)
    assert len(make_batches(samples, 2, ["y"], remainder="drop")) == 2


@pytest.mark.parametrize("policy", [None, "memento", Samples(y=[1])])
def test_a_policy_without_distances_is_none_to_compare_by(policy):
    for compare in (
        lambda: batch_densities({"y": [0, 1]}, policy),
        lambda: coverage_increase({"y": [0, 1]}, {"y": [0, 1]}, policy),
    ):
        with pytest.raises(SettingError, match=r"policy is .*expected one with distances"):
            compare()
