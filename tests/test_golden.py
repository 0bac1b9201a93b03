"""Everything that the published artefact computed: same inputs, same numbers.

Distances, densities and coverage agree to rounding, orders and choices exactly; what was drawn at
random agrees in distribution, with the stated rate of false alarms.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import naive
from memento import (
    JensenShannon,
    Memento,
    Minkowski,
    Samples,
    Wasserstein,
    batch_densities,
    coverage_increase,
    make_batches,
    sort_order,
)
from memento.policies import State

ROUNDING = 1e-12
SELECTIONS = ["selection_a", "selection_b"]


def samples_of(data):
    return Samples({name: data[name] for name in ("x", "y", "yhat")})


def distances_of(data):
    return [
        JensenShannon.of_labels("y", int(data["n_classes"])),
        JensenShannon.of_probabilities("yhat"),
    ]


def policy_of(data, **settings):
    """As published: everything that a default might say otherwise is given."""
    return Memento(
        distances_of(data),
        batch_size=int(data["batch_size"]),
        bandwidth=0.1,
        sort_by=("y", "yhat", "x"),
        remainder="drop",
        **settings,
    )


def chosen(policy, data, seed=0):
    samples = samples_of(data)
    choice = policy.choose(
        Samples(), samples, int(data["capacity"]), State(), np.random.default_rng(seed)
    )
    return choice.rows


# ---------------------------------------------------------------------------------------- distances


def test_jensen_shannon_of_probabilities(golden):
    data = golden("distances")
    found = JensenShannon.of_probabilities("p").matrix(data["P"], others=data["Q"])
    np.testing.assert_allclose(found, data["jsd_PQ"], atol=ROUNDING)


def test_jensen_shannon_of_densities(golden):
    data = golden("distances")
    found = JensenShannon.of_densities("pdf", data["support"]).matrix(data["pdf"])
    np.testing.assert_allclose(found, data["jsd_pdf"], atol=ROUNDING)


def test_wasserstein_of_cdfs(golden):
    data = golden("distances")
    found = Wasserstein.of_cdfs("cdf", data["support"]).matrix(data["cdf"])
    np.testing.assert_allclose(found, data["wasserstein1"], atol=ROUNDING)


def test_wasserstein_of_normals(golden):
    data = golden("distances")
    found = Wasserstein.of_normals("mu", "sigma").matrix({"mu": data["mu"], "sigma": data["sigma"]})
    np.testing.assert_allclose(found, data["wasserstein2_normal"], atol=ROUNDING)


def test_euclidean(golden):
    data = golden("distances")
    np.testing.assert_allclose(
        Minkowski("vec").matrix(data["vec"]), data["euclidean"], atol=ROUNDING
    )


def test_densities_and_distances_of_values(golden):
    """The artefact cuts kernels off at 5 widths and clips 1e-6 inside the grid: 1e-5 and 3e-3."""
    data = golden("continuous")
    samples = Samples(y=data["y"])
    batches = make_batches(samples, int(data["batch_size"]), ["y"], remainder="drop")
    distance = JensenShannon.of_values("y", support=data["support"], bandwidth="silverman")
    expected = data["pdf_y_sorted"]
    peaks = expected.max(axis=1, keepdims=True)
    found = distance.summarise(batches)
    np.testing.assert_allclose(found / peaks, expected / peaks, atol=3e-3)
    np.testing.assert_allclose(found[:-1] / peaks[:-1], expected[:-1] / peaks[:-1], atol=3e-6)
    np.testing.assert_allclose(distance.matrix(batches), data["jsd_y_sorted"], atol=1e-5)


def test_distances_of_given_densities_on_an_even_number_of_points(golden):
    data = golden("continuous")
    distance = JensenShannon.of_densities("pdf", data["support"])
    np.testing.assert_allclose(
        distance.matrix(data["pdf_y_sorted"]), data["jsd_y_sorted"], atol=ROUNDING
    )


# ---------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize("name", SELECTIONS)
def test_batch_order(golden, name):
    data = golden(name)
    np.testing.assert_array_equal(
        sort_order(samples_of(data), ["y", "yhat", "x"]), data["batch_order"]
    )


@pytest.mark.parametrize("name", SELECTIONS)
def test_distances_between_batches(golden, name):
    data = golden(name)
    batches = make_batches(
        samples_of(data), int(data["batch_size"]), ["y", "yhat", "x"], remainder="drop"
    )
    of_labels, of_probabilities = distances_of(data)
    np.testing.assert_allclose(of_labels.matrix(batches), data["jsd_y"], atol=ROUNDING)
    np.testing.assert_allclose(of_probabilities.matrix(batches), data["jsd_yhat"], atol=ROUNDING)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("precision", ["auto", "exact"])
def test_density(golden, name, precision):
    data = golden(name)
    order, density = batch_densities(samples_of(data), policy_of(data, precision=precision))
    np.testing.assert_array_equal(order, data["batch_order"])
    np.testing.assert_allclose(density, data["density"], rtol=ROUNDING)


@pytest.mark.compiled
@pytest.mark.parametrize("name", SELECTIONS)
def test_fast_density(golden, name):
    data = golden(name)
    _, density = batch_densities(samples_of(data), policy_of(data, precision="fast"))
    np.testing.assert_allclose(density, data["density"], rtol=1e-4)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("precision", ["auto", "exact"])
def test_rows_kept_at_temperature_zero(golden, name, precision):
    data = golden(name)
    rows = chosen(policy_of(data, temperature=0, precision=precision), data)
    np.testing.assert_array_equal(rows, data["kept_T0"])


@pytest.mark.compiled
@pytest.mark.parametrize("name", SELECTIONS)
def test_fast_rows_kept_at_temperature_zero(golden, name):
    """Nothing in the goldens hangs on less than the error of the fast path."""
    data = golden(name)
    rows = chosen(policy_of(data, temperature=0, precision="fast"), data)
    np.testing.assert_array_equal(rows, data["kept_T0"])


def fisher_p_value(a, n, b, m):
    """Two-sided p-value that a of n and b of m come from one proportion (Fisher's exact test)."""
    total, successes = math.comb(n + m, a + b), a + b
    support = range(max(0, successes - m), min(n, successes) + 1)
    chances = [math.comb(n, i) * math.comb(m, successes - i) / total for i in support]
    seen = math.comb(n, a) * math.comb(m, b) / total
    return sum(chance for chance in chances if chance <= seen * (1 + 1e-9))


def test_fisher_p_value():
    assert fisher_p_value(3, 4, 1, 4) == pytest.approx(34 / 70)  # the lady tasting tea


@pytest.mark.compiled
@pytest.mark.parametrize("name", SELECTIONS)
def test_frequency_of_keeping_at_temperature_001(golden, name):
    """False-alarm rate 1e-4 over all batches (Bonferroni), if seeds were drawn anew."""
    data = golden(name)
    policy, size = policy_of(data, temperature=0.01), int(data["batch_size"])
    runs, their_runs = 400, int(data["keep_frequency_runs"])
    kept = np.zeros(len(data["y"]), dtype=int)
    for seed in range(runs):
        kept[chosen(policy, data, seed)] += 1
    by_batch = kept[data["batch_order"]].reshape(-1, size)
    assert (by_batch == by_batch[:, :1]).all(), "batches are kept or discarded as a whole"
    assert by_batch[:, 0].sum() == runs * int(data["capacity"]) // size
    theirs = np.rint(data["keep_frequency_T001"] * their_runs).astype(int)
    p_values = [
        fisher_p_value(int(a), runs, int(b), their_runs)
        for a, b in zip(by_batch[:, 0], theirs, strict=True)
    ]
    assert min(p_values) > 1e-4 / len(p_values)


@pytest.mark.parametrize("name", SELECTIONS)
def test_relative_coverage_increase_as_published(golden, name):
    data = golden(name)
    samples = samples_of(data)
    half = samples.size // 2
    found = coverage_increase(
        samples.rows(half, samples.size),
        samples.rows(0, half),
        policy_of(data),
        estimator="plain",
        permutations=0,
    )
    assert float(found) == pytest.approx(float(data["rci_half"]), rel=1e-12)
    increase, total = float(data["rci_total_increase"]), float(data["rci_total"])
    assert increase / total == pytest.approx(float(found), rel=1e-12)


# ------------------------------------------------------------------------- the oracles hold as well


def test_oracles_agree_on_distances(golden):
    data = golden("distances")
    grid = data["support"]
    found = naive.matrix(data["P"], data["Q"], naive.jensen_shannon)
    np.testing.assert_allclose(found, data["jsd_PQ"], atol=ROUNDING)
    rows = np.array([naive.jensen_shannon_row(p, data["Q"]) for p in data["P"]])
    np.testing.assert_allclose(rows, data["jsd_PQ"], atol=ROUNDING)
    found = naive.matrix(data["pdf"], data["pdf"], lambda p, q: naive.jensen_shannon(p, q, grid))
    np.testing.assert_allclose(found, data["jsd_pdf"], atol=ROUNDING)
    found = naive.matrix(data["cdf"], data["cdf"], lambda p, q: naive.wasserstein_cdfs(p, q, grid))
    np.testing.assert_allclose(found, data["wasserstein1"], atol=ROUNDING)
    normals = np.stack([data["mu"], data["sigma"]], axis=1)
    found = naive.matrix(normals, normals, lambda p, q: naive.wasserstein_normals(*p, *q))
    np.testing.assert_allclose(found, data["wasserstein2_normal"], atol=ROUNDING)
    found = naive.matrix(data["vec"], data["vec"], lambda p, q: naive.minkowski(p, q, 2))
    np.testing.assert_allclose(found, data["euclidean"], atol=ROUNDING)


def test_oracles_agree_on_values(golden):
    data = golden("continuous")
    y, grid = data["y"], data["support"]
    batches = naive.cut(naive.sort_order([y]), int(data["batch_size"]))
    found = np.array([naive.kde(y[rows], grid) for rows in batches])
    peaks = data["pdf_y_sorted"].max(axis=1, keepdims=True)
    np.testing.assert_allclose(found / peaks, data["pdf_y_sorted"] / peaks, atol=3e-3)


def test_oracles_agree_on_selection(golden):
    data = golden("selection_a")
    size = int(data["batch_size"])
    order = naive.sort_order([data["y"], data["yhat"], data["x"]])
    np.testing.assert_array_equal(order, data["batch_order"])
    batches = naive.cut(order, size)
    labels = [naive.frequencies(data["y"][rows], int(data["n_classes"])) for rows in batches]
    means = [naive.mixture(data["yhat"][rows]) for rows in batches]
    distances = [naive.matrix(s, s, naive.jensen_shannon) for s in (labels, means)]
    np.testing.assert_allclose(naive.density(distances), data["density"], rtol=ROUNDING)
    kept, _ = naive.keep(distances, [size] * len(batches), int(data["capacity"]), 0)
    rows = np.sort(np.concatenate([batches[i] for i in kept]))
    np.testing.assert_array_equal(rows, data["kept_T0"])
