"""Summaries and distances against the slow oracles, their properties, and what they refuse."""

from __future__ import annotations

import json
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from memento import (
    Custom,
    JensenShannon,
    Memento,
    Memory,
    Minkowski,
    Samples,
    SlicedWasserstein,
    Wasserstein,
    make_batches,
)
from memento.batching import Batches
from memento.distances import (
    Distance,
    distance_from_settings,
    named_distances,
)
from memento.errors import DomainError, MissingExtraError, SchemaError, SettingError
from memento.grids import simpson_weights, support_of
from memento.widths import WIDTH_RULES

GRID = np.array([-1.0, -0.4, 0.0, 0.1, 0.7, 1.5, 2.0])
# On an uneven grid Simpson's rule may weigh a point negatively, and then nothing is a metric.
EVEN = np.linspace(-2, 2, 7)


@pytest.fixture
def rng_of():
    """Generators that differ by case and not by the order of tests."""
    return lambda case: np.random.default_rng(zlib.crc32(repr(case).encode()))


def ragged(draw, sizes=(1, 5, 2, 17, 9)):
    """Batches of different sizes."""
    return [draw(size) for size in sizes]


# ---------------------------------------------------------------------------------- against oracles


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32])
def test_labels(rng_of, dtype):
    rng = rng_of(dtype)
    batches = ragged(lambda n: rng.integers(0, 6, n).astype(dtype))
    frequencies = [naive.frequencies(batch, 6) for batch in batches]
    expected = naive.matrix(frequencies, frequencies, naive.jensen_shannon)
    found = JensenShannon.of_labels("y", 6).matrix(batches)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_labels_may_be_bool():
    found = JensenShannon.of_labels("y", 2).matrix([np.array([True, False]), np.array([True])])
    expected = naive.jensen_shannon(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    assert found[0, 1] == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities(rng_of, dtype):
    rng = rng_of(dtype)
    batches = ragged(lambda n: rng.dirichlet(np.full(4, 0.3), n).astype(dtype))
    means = [naive.mixture(batch) for batch in batches]
    expected = naive.matrix(means, means, naive.jensen_shannon)
    found = JensenShannon.of_probabilities("p").matrix(batches)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_negligible_probabilities_count_as_zero():
    p = np.array([[1 - 2e-7, 2e-7, 0.0], [1 - 9e-7, 0.0, 9e-7], [1 - 3e-6, 3e-6, 0.0]])
    found = JensenShannon.of_probabilities("p").matrix(p)
    np.testing.assert_allclose(found, naive.matrix(p, p, naive.jensen_shannon), atol=1e-12)


@pytest.mark.parametrize("bandwidth", ["silverman", 0.25])
@pytest.mark.parametrize("grid", [GRID, np.linspace(-1, 2, 12)], ids=["uneven", "even"])
@pytest.mark.parametrize("sizes", [(1, 5, 2, 17, 9), (9, 9, 9)], ids=["ragged", "equal"])
def test_values(rng_of, bandwidth, grid, sizes):
    rng = rng_of((bandwidth, len(grid), sizes))
    batches = ragged(lambda n: rng.normal(0.3, 0.8, n), sizes)
    if len(set(sizes)) > 1:
        batches += [np.full(6, 0.1), np.full(3, 99.0), np.array([0.2] * 5 + [1.0])]
    width = None if bandwidth == "silverman" else bandwidth
    densities = [naive.kde(batch, grid, width) for batch in batches]
    distance = JensenShannon.of_values("v", grid, bandwidth)
    summaries = distance.summarise(Batches.of(batches, {"v": 0}))
    np.testing.assert_allclose(summaries, densities, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        distance.matrix(batches),
        naive.matrix(densities, densities, lambda p, q: naive.jensen_shannon(p, q, grid)),
        atol=1e-9,
    )


def test_rules_for_the_width_are_those_of_their_package():
    """KDEpy's, where no rule needs what stands in for it; it has all three."""
    rules = pytest.importorskip("KDEpy.bw_selection")
    rng = np.random.default_rng(0)
    two = rng.normal(0, 0.2, (6, 200)) + rng.choice([-1.0, 1.0], (6, 200))
    expected = {
        "silverman": rules.silvermans_rule,
        "scott": rules.scotts_rule,
        "isj": rules.improved_sheather_jones,
    }
    widths = {name: rule(two) for name, rule in WIDTH_RULES.items()}
    for name, rule in expected.items():
        np.testing.assert_allclose(widths[name], [rule(row[:, None]) for row in two], rtol=1e-12)
    assert (widths["isj"] < widths["scott"] / 2).all()  # two modes
    assert (widths["scott"] < widths["silverman"]).all()


@pytest.mark.parametrize("rule", ["scott", "isj"])
def test_rules_for_the_width_of_few_and_equal_values(rule):
    pytest.importorskip("KDEpy")
    batches = [np.array([0.3]), np.array([0.1, 0.2]), np.full(50, 0.2), np.array([0.2] * 9 + [1.0])]
    distance = JensenShannon.of_values("v", np.linspace(-1, 2, 64), rule)
    summaries = distance.summarise(Batches.of(batches, {"v": 0}))
    assert np.isfinite(summaries).all()
    assert (summaries >= 0).all()
    made = distance_from_settings(json.loads(json.dumps(distance.settings())))
    assert made == distance


def test_a_rule_of_a_package_that_is_absent(monkeypatch):
    for name in ("KDEpy", "KDEpy.bw_selection"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"memento-replay\[kde\]"):
        JensenShannon.of_values("v", bandwidth="isj")
    JensenShannon.of_values("v", bandwidth="scott")


def test_densities_are_estimated_in_pieces(monkeypatch):
    batches = np.random.default_rng(0).normal(size=(11, 20))
    distance = JensenShannon.of_values("v", np.linspace(-3, 3, 32))
    whole = distance.matrix(batches)
    monkeypatch.setattr("memento.grids._ROWS", 4)
    np.testing.assert_allclose(distance.matrix(batches), whole, atol=1e-9)


def test_densities_of_values_integrate_to_one(rng_of):
    rng = rng_of(0)
    batches = make_batches(Samples(v=rng.standard_normal(90)), 30, ["v"])
    found = JensenShannon.of_values("v", GRID).summarise(batches)
    assert [naive.integral(density, GRID) for density in found] == pytest.approx([1, 1, 1])


def test_kernel_narrower_than_the_grid_is_not_lost():
    grid = np.linspace(0, 1, 11)
    found = JensenShannon.of_values("v", grid, 1e-4).matrix([[0.55, 0.55], [0.55], [0.75]])
    assert found[0, 1] == 0
    assert found[0, 2] == pytest.approx(1)


def test_grid_is_derived_from_all_the_data(rng_of):
    rng = rng_of(1)
    first = [rng.normal(0, 1, 40) for _ in range(3)]
    second = [rng.normal(5, 1, 40) for _ in range(2)]
    every = np.concatenate(first + second)
    low, high = naive.quantile(every, 0.05), naive.quantile(every, 0.95)
    grid = np.linspace(low, high, 17)
    derived = JensenShannon.of_values("v", mass=0.9, points=17)
    given_one = JensenShannon.of_values("v", grid)
    np.testing.assert_allclose(
        derived.matrix(first, second), given_one.matrix(first, second), atol=1e-9
    )


def test_given_densities(rng_of):
    rng = rng_of(2)
    batches = ragged(lambda n: rng.dirichlet(np.ones(len(GRID)), n))
    means = [naive.mixture(batch) for batch in batches]
    np.testing.assert_allclose(
        JensenShannon.of_densities("d", GRID).matrix(batches),
        naive.matrix(means, means, lambda p, q: naive.jensen_shannon(p, q, GRID)),
        atol=1e-12,
    )


@pytest.mark.parametrize("sizes", [(8, 8, 8), (1, 2, 4), (64, 16, 1)])
def test_wasserstein_of_values(rng_of, sizes):
    rng = rng_of(sizes)
    batches = ragged(lambda n: rng.normal(0, 3, n), sizes)
    expected = naive.matrix(batches, batches, naive.wasserstein_values)
    found = Wasserstein.of_values("v", levels=64).matrix(batches)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_wasserstein_of_values_is_close_for_other_sizes(rng_of):
    rng = rng_of(3)
    batches = ragged(lambda n: rng.uniform(0, 1, n), (7, 30, 101))
    expected = naive.matrix(batches, batches, naive.wasserstein_values)
    found = Wasserstein.of_values("v").matrix(batches)
    np.testing.assert_allclose(found, expected, atol=1 / 256)


def test_wasserstein_of_cdfs(rng_of):
    rng = rng_of(4)
    batches = ragged(lambda n: np.cumsum(rng.dirichlet(np.ones(len(GRID)), n), axis=1), (3, 1, 2))
    means = [naive.mixture(batch) for batch in batches]
    np.testing.assert_allclose(
        Wasserstein.of_cdfs("c", GRID).matrix(batches),
        naive.matrix(means, means, lambda p, q: naive.wasserstein_cdfs(p, q, GRID)),
        atol=1e-12,
    )


def test_wasserstein_of_normals_sees_the_mixture(rng_of):
    rng = rng_of(5)
    samples = [{"mu": rng.normal(0, 2, n), "sigma": rng.uniform(0, 1, n)} for n in (1, 6, 3)]
    moments = []
    for batch in samples:
        mean = sum(batch["mu"]) / len(batch["mu"])
        second = sum(batch["sigma"] ** 2 + batch["mu"] ** 2) / len(batch["mu"])
        moments.append((mean, np.sqrt(second - mean**2)))
    expected = [[naive.wasserstein_normals(*a, *b) for b in moments] for a in moments]
    found = Wasserstein.of_normals("mu", "sigma").matrix(samples)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3.5, np.inf])
def test_minkowski(rng_of, p):
    rng = rng_of(p)
    batches = ragged(lambda n: rng.normal(0, 1, (n, 3)))
    means = [naive.mixture(batch) for batch in batches]
    expected = naive.matrix(means, means, lambda a, b: naive.minkowski(a, b, p))
    np.testing.assert_allclose(Minkowski("x", p).matrix(batches), expected, atol=1e-12)


def test_large_comparisons_are_done_in_blocks(rng_of, monkeypatch):
    rng = rng_of(6)
    x = rng.normal(0, 1, (30, 3))
    whole = Minkowski("x").matrix(x)
    monkeypatch.setattr("memento.distances._BLOCK", 100)
    np.testing.assert_array_equal(Minkowski("x").matrix(x), whole)


@given(st.integers(3, 12), st.integers(0, 2**32))
def test_simpson_weights(points, seed):
    rng = np.random.default_rng(seed)
    grid = np.cumsum(rng.uniform(0.2, 2, points)) - 3
    values = rng.standard_normal(points)
    weights = simpson_weights(grid)
    assert weights @ values == pytest.approx(naive.integral(values, grid), rel=1e-9, abs=1e-9)
    parabola = 3 * grid**2 - grid + 2
    exact = grid**3 - grid**2 / 2 + 2 * grid
    assert weights @ parabola == pytest.approx(exact[-1] - exact[0], rel=1e-9)


def test_support_covers_the_mass():
    values = np.arange(1001.0)
    np.testing.assert_allclose(support_of(values, 0.9, 3), [50, 500, 950])
    grid = support_of(np.full(5, 7.0), points=4)
    assert grid[0] < 7 < grid[-1]
    assert len(grid) == 4


def test_two_parts_are_summarised_like_one(rng_of):
    rng = rng_of(7)
    n = 60
    samples = Samples(
        y=rng.integers(0, 5, n),
        p=rng.dirichlet(np.ones(3), n),
        v=rng.standard_normal(n),
        d=rng.dirichlet(np.ones(len(GRID)), n),
        s=rng.uniform(0, 1, n),
    )
    one = make_batches(samples, 8, ["v"])
    two = make_batches((samples.rows(0, 25), samples.rows(25, n)), 8, ["v"])
    for distance in (*EVERY, Custom("v", np.ptp, lambda a, b: abs(a - b.T))):
        np.testing.assert_array_equal(distance.summarise(one), distance.summarise(two))


# --------------------------------------------------------------------------------------- properties

EVERY = [
    JensenShannon.of_labels("y", 5),
    JensenShannon.of_probabilities("p"),
    JensenShannon.of_values("v", EVEN),
    JensenShannon.of_values("v", bandwidth=0.2, mass=0.99, points=16),
    JensenShannon.of_densities("d", EVEN),
    Wasserstein.of_values("v", 32),
    Wasserstein.of_cdfs("d", EVEN),
    Wasserstein.of_normals("v", "s"),
    Minkowski("p"),
    Minkowski("d", 1),
    SlicedWasserstein.of_vectors("p", 8, 3),
]
weights = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any)


def assert_metric(matrix, slack=1e-7):
    np.testing.assert_array_equal(np.diag(matrix), 0)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert (matrix >= 0).all()
    through = (matrix[:, :, None] + matrix[None]).min(axis=1)
    assert (matrix <= through + slack).all()


@given(st.lists(weights, min_size=1, max_size=7))
def test_jensen_shannon_is_a_metric_within_one(counts):
    rows = np.array(counts) / np.sum(counts, axis=1, keepdims=True)
    distance = JensenShannon.of_probabilities("p")
    matrix = distance.matrix(rows)
    assert_metric(matrix)
    assert (matrix <= 1 + 1e-12).all()
    np.testing.assert_allclose(distance.matrix(rows, rows), matrix, atol=1e-12)
    labels = [np.repeat(np.arange(4), row) for row in counts]
    np.testing.assert_allclose(JensenShannon.of_labels("y", 4).matrix(labels), matrix, atol=1e-7)


@pytest.mark.parametrize("distance", EVERY, ids=repr)
def test_every_distance_is_a_metric(rng_of, distance):
    rng = rng_of(8)
    n = 48
    samples = Samples(
        y=rng.integers(0, 5, n),
        p=rng.dirichlet(np.ones(3), n),
        v=rng.standard_normal(n),
        d=rng.dirichlet(np.ones(len(GRID)), n),
        s=rng.uniform(0, 1, n),
    )
    batches = make_batches(samples, 6, ["v"])
    slack = 1e-3 if distance.axes == {"v": 0} else 1e-7  # densities far below 1e-6 are cut off
    matrix = distance.matrix(batches)
    assert matrix.dtype == np.float64
    assert_metric(matrix, slack)
    np.testing.assert_allclose(distance.matrix(batches, batches), matrix, atol=1e-12)


def test_disjoint_and_equal():
    found = JensenShannon.of_labels("y", 3).matrix([[0, 0], [1, 2], [2, 1]])
    assert found.tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_inputs_are_not_changed(rng_of):
    rng = rng_of(9)
    rows = rng.dirichlet(np.ones(3), 8)
    rows[0] = [1 - 1e-7, 1e-7, 0]
    before = rows.copy()
    JensenShannon.of_probabilities("p").matrix(rows)
    np.testing.assert_array_equal(rows, before)


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("distance", EVERY, ids=repr)
def test_settings_survive_json(distance):
    settings = json.loads(json.dumps(distance.settings()))
    assert settings["kind"] in named_distances
    assert distance_from_settings(settings) == distance


def test_names_lead_to_kinds():
    assert {kind.kind for kind in named_distances.values()} == set(named_distances)
    assert {distance.kind for distance in EVERY} == set(named_distances)


def test_unknown_settings():
    with pytest.raises(SettingError, match=r"unknown distance 'cosine'; known are jensen"):
        distance_from_settings({"kind": "cosine"})
    with pytest.raises(SettingError, match="settings of the distance 'minkowski' do not fit"):
        distance_from_settings({"kind": "minkowski", "col": "x"})
    with pytest.raises(SettingError, match="unknown distance None"):
        distance_from_settings(Custom("y", np.ptp, np.subtract).settings())


def test_repr_can_be_read():
    assert repr(EVERY[0]) == "JensenShannon.of_labels('y', classes=5)"
    assert repr(EVERY[1]) == "JensenShannon.of_probabilities('p')"
    assert repr(EVERY[3]) == "JensenShannon.of_values('v', support=None, 0.2)"
    assert "7 points" in repr(EVERY[2])
    assert "7 points" in repr(EVERY[4])


# --------------------------------------------------------------------------------------- extensions


def test_custom_functions():
    middle = Custom("x", summary=lambda x: x.mean(axis=0), distance=chebyshev, sample_axes=1)
    x = np.array([[[0.0, 0.0], [2.0, 0.0]], [[4.0, 1.0], [4.0, 1.0]]])
    np.testing.assert_array_equal(middle.matrix(x), [[0, 3], [3, 0]])
    assert middle.columns == ("x",)


def chebyshev(first, second):
    return abs(first[:, None] - second).max(axis=-1)


def test_custom_distance_of_the_wrong_shape():
    wrong = Custom("y", summary=np.mean, distance=lambda a, b: a)
    with pytest.raises(SettingError, match=r"returned the shape \(2, 1\); expected \(2, 2\)"):
        wrong.matrix([[1], [2]])


def test_subclasses_join_in():
    class Largest(Distance):
        @property
        def axes(self):
            return {"y": 0}

        def summarise(self, batches):
            return np.array([[batch["y"].max()] for batch in batches], dtype=float)

        def compare(self, first, second):
            return abs(first - second.T)

    np.testing.assert_array_equal(Largest().matrix([[1, 5], [2]]), [[0, 3], [3, 0]])


# ------------------------------------------------------------------------------------------- errors

NAN = float("nan")
LABELS, PROBABILITIES = JensenShannon.of_labels("y", 3), JensenShannon.of_probabilities("p")


@pytest.mark.parametrize(
    ("distance", "columns", "error", "message"),
    [
        (LABELS, {"z": [1]}, SchemaError, r"column 'y' is missing; there are \['z'\]"),
        (
            LABELS,
            {"y": ["a"]},
            SchemaError,
            "column 'y' is of type <U1; with classes=3 labels are integers",
        ),
        (LABELS, {"y": [[1, 2]]}, SchemaError, r"the shape \(1, 2\); expected one label a sample"),
        (LABELS, {"y": [1.5]}, SchemaError, "labels are integers or texts"),
        (
            LABELS,
            {"y": [0, 3, -1]},
            DomainError,
            "2 of 3 labels are out of range, the first is 3 in row 1; expected 0 to 2",
        ),
        (PROBABILITIES, {"p": [0.5]}, SchemaError, "expected one row of numbers a sample"),
        (
            PROBABILITIES,
            {"p": [[1.0, 0.0], [NAN, 1.0], [0.5, np.inf]]},
            DomainError,
            "2 of 3 rows hold NaN or infinite values, the first is row 1; drop or fill them",
        ),
        (
            PROBABILITIES,
            {"p": [[0.5, 0.5], [1.2, -0.2]]},
            DomainError,
            "1 of 2 rows hold negative probabilities, row 1 the lowest, -0.2; expected values",
        ),
        (
            PROBABILITIES,
            {"p": [[0.5, 0.502], [0.5, 0.5005]]},
            DomainError,
            "1 of 2 rows do not sum to 1 within 0.001, the furthest is row 0 with 1.002; normalise",
        ),
        (PROBABILITIES, {"p": np.empty((2, 0))}, SchemaError, "'p' has no classes"),
        (JensenShannon.of_values("v"), {"v": [1.0, NAN]}, DomainError, "1 of 2 rows hold NaN"),
        (JensenShannon.of_values("v"), {"v": [[1.0]]}, SchemaError, "expected one number"),
        (
            JensenShannon.of_densities("d", [0, 1, 2]),
            {"d": [[1.0, 2.0]]},
            SchemaError,
            "'d' has 2 values a row; the support has 3 points",
        ),
        (
            JensenShannon.of_densities("d", [0, 1, 2]),
            {"d": [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [0.0, -1.0, 3.0]]},
            DomainError,
            "2 of 3 densities are negative somewhere or 0 everywhere, the first is row 1",
        ),
        (
            Wasserstein.of_cdfs("c", [0, 1, 2]),
            {"c": [[0.5, 1.0]]},
            SchemaError,
            "'c' has 2 values a row; the support has 3 points",
        ),
        (
            Wasserstein.of_normals("m", "s"),
            {"m": [0.0, 1.0], "s": [1.0, -2.0]},
            DomainError,
            "1 standard deviations are negative, the first is -2 in row 1",
        ),
        (Wasserstein.of_normals("m", "s"), {"m": [0.0]}, SchemaError, "'s' is missing"),
        (Minkowski("x"), {"x": [[np.inf]]}, DomainError, "hold NaN or infinite"),
    ],
)
def test_data_that_is_refused(distance, columns, error, message):
    with pytest.raises(error, match=message):
        distance.check(Samples(columns))


@pytest.mark.parametrize(
    ("distance", "columns"),
    [
        (LABELS, {"y": np.empty(0, dtype=int)}),
        (PROBABILITIES, {"p": np.empty((0, 3))}),
        (PROBABILITIES, {"p": [[0.5, 0.5009]]}),
        (PROBABILITIES, {"p": np.array([[1, 0], [0, 1]])}),
        (Minkowski("x"), {"x": np.full((3, 2), 1e308)}),  # the sum overflows, the values do not
        (JensenShannon.of_values("v"), {"v": [1, 2, 3]}),
    ],
)
def test_data_that_is_accepted(distance, columns):
    distance.check(Samples(columns))


def test_matrix_checks_both_sides():
    for arguments in (([[0], [7]],), ([[0]], [[7]])):
        with pytest.raises(DomainError, match="labels are out of range"):
            LABELS.matrix(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JensenShannon.of_labels("y", 0), "classes is 0; expected a whole number above 0"),
        (lambda: JensenShannon.of_values("v", bandwidth="Scott"), "bandwidth is 'Scott'; expected"),
        (
            lambda: JensenShannon.of_values("v", bandwidth=0.0),
            "bandwidth is 0.0; expected .silverman., .scott., .isj. or a pos",
        ),
        (
            lambda: JensenShannon.of_values("v", bandwidth=NAN),
            "bandwidth is nan; expected .silverman., .scott., .isj. or a pos",
        ),
        (lambda: JensenShannon.of_values("v", mass=0.0), "mass is 0.0; expected a share"),
        (lambda: JensenShannon.of_values("v", mass=1.1), "mass is 1.1; expected a share"),
        (
            lambda: JensenShannon.of_values("v", points=2),
            "points is 2; expected a whole number from 3",
        ),
        (lambda: JensenShannon.of_values("v", [0, 1]), r"expected at least 3"),
        (lambda: JensenShannon.of_values("v", [0, 2, 1]), "expected at least 3 increasing"),
        (lambda: JensenShannon.of_values("v", [0, 1, NAN]), "expected at least 3 increasing"),
        (lambda: JensenShannon.of_values("v", [0, 1, np.inf]), "increasing, finite numbers"),
        (lambda: JensenShannon.of_values("v", [-np.inf, 0, 1]), "increasing, finite numbers"),
        (lambda: JensenShannon.of_densities("d", [[0, 1, 2]]), "expected at least 3 increasing"),
        (lambda: Wasserstein.of_values("v", 0), "levels is 0; expected a whole number above 0"),
        (lambda: Minkowski("x", 0.5), "p is 0.5; expected the order of a norm, at least 1"),
        (lambda: Minkowski("x", NAN), "p is nan"),
    ],
)
def test_settings_that_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    "labels",
    [
        np.array([-128, 127, 100], np.int8),
        np.array([-32768, 32767, 0], np.int16),
        np.array([0, 255], np.uint8),
        np.array([2**63, 2**64 - 1], np.uint64),
        np.array([2**63 + 1, 2**63], np.uint64),
        np.array([-(2**63), 5 - 2**63]),
        np.array([3, 2**63, 2**63 + 1], np.uint64),
    ],
    ids=str,
)
def test_labels_at_the_ends_of_their_types(labels):
    distance = JensenShannon.of_labels("y")
    memory = Memory(8 * len(labels), Memento([distance]))
    for _ in range(2):
        memory.insert(y=np.repeat(labels, 8))
    held, counts = np.unique(memory.samples["y"], return_counts=True)
    np.testing.assert_array_equal(held, np.unique(labels))
    assert counts.sum() == 8 * len(labels)


def test_texts_beside_a_number_of_classes_are_told_both_remedies():
    labels = JensenShannon.of_labels("y", classes=2)
    texts = np.array(["fine", "fraud"])
    with pytest.raises(SchemaError, match="Leave classes out") as refused:
        Memory(10, Memento([labels])).insert(y=texts)
    assert "np.unique(y, return_inverse=True)[1]" in str(refused.value)
    assert np.unique(texts, return_inverse=True)[1].tolist() == [0, 1]  # what the message says
