"""Approximate densities: what is asked for, what is measured, and when sums are exact after all."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest

from memento import (
    Custom,
    DensityReservoir,
    JensenShannon,
    Memento,
    Memory,
    Minkowski,
    Samples,
    SampleSpace,
    Wasserstein,
    batch_densities,
    coverage_increase,
)
from memento.density import cross_density
from memento.errors import SettingError
from memento.testing import check_policy

PROBABILITIES = JensenShannon.of_probabilities("p")
LABELS = JensenShannon.of_labels("y", 8)


def sharp(n, seed, classes=8):
    """Predictions along a line, of varying sharpness: few landmarks."""
    rng = np.random.default_rng(seed)
    place = np.log(rng.lognormal(-0.5, 1, n))[:, None]
    width = 0.5 + 0.3 * np.abs(rng.standard_normal((n, 1)))
    rows = np.exp(-0.5 * ((place - np.linspace(-3, 2, classes)) / width) ** 2)
    return rows / rows.sum(axis=1, keepdims=True)


def spread_out(n, seed, classes=12):
    """Some of them drawn to others: many landmarks, and some batches without any neighbour."""
    rng = np.random.default_rng(seed)
    share = np.minimum(0.002 * rng.standard_cauchy((n, 1)) ** 2, 1)
    others = rng.dirichlet(np.full(3, 0.3), n)[:, np.arange(classes) % 3] * 3 / classes
    return (1 - share) * sharp(n, seed, classes) + share * others


def near(n, seed):
    """Nearly identical ones."""
    rows = 0.2 + 1e-3 * np.random.default_rng(seed).random((n, 5))
    return rows / rows.sum(axis=1, keepdims=True)


def far_cluster(n, seed):
    """All but five along a line, and these, which are alike, far away."""
    rows = sharp(n, seed, 10)
    rows[:, -2:] = 0
    rows /= rows.sum(axis=1, keepdims=True)
    rows[7:12] = 0
    rows[7:12, -2:] = 0.5 + 0.01 * np.linspace(-1, 1, 5)[:, None] * [1, -1]
    return rows


KINDS = {"sharp": sharp, "spread out": spread_out, "near": near, "far cluster": far_cluster}


def space(distances=(PROBABILITIES,), **settings):
    """Every sample is a batch, in order of arrival."""
    return SampleSpace(
        distances, **{"batch_size": 1, "sort_by": (), "remainder": "keep", **settings}
    )


def field(rows, precision, seed=0, **settings):
    one = space(precision=precision, **settings)
    rng = np.random.default_rng(seed)
    weights = settings.pop("weights", None)
    return one.field(one.batches(Samples(p=rows)), weights, rng)


# --------------------------------------------------------------------------------------- densities


@pytest.mark.compiled
@pytest.mark.parametrize("n", [4096, pytest.param(16_384, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_densities_are_within_the_tolerance(kind, n):
    """At most 1 % of them are off by more; here not one by twice as much."""
    rows = KINDS[kind](n, 1)
    found, exact = field(rows, "approximate"), field(rows, "fast")
    (known,) = found.approximations
    # Of few that are spread out too many would be landmarks.
    assert known.exact == (kind == "spread out" and n < 10_000), known
    if not known.exact:
        assert known.landmarks < n / 2
        assert known.error <= 0.01
    off = np.abs(found.density() / exact.density() - 1)
    assert np.mean(off > 0.01) <= 0.01
    assert off.max() <= 0.02
    assert not exact.approximations


@pytest.mark.compiled
def test_what_is_known_of_an_approximation(caplog):
    rows = sharp(4096, 2)
    with caplog.at_level(logging.INFO, logger="memento"):
        (known,) = field(rows, "approximate").approximations
    assert (known.batches, known.radius, known.probes) == (4096, 1.0, 368)
    assert 0 < known.cells < known.landmarks
    said = str(known)
    assert caplog.messages == [said]
    assert f"{known.landmarks:,} landmarks in {known.cells:,} cells" in said
    assert "with 95% confidence at most 1% of the densities are off by more than 1.00%" in said
    assert f"none is off by more than {known.error:.2%}" in said


@pytest.mark.compiled
def test_a_smaller_tolerance_takes_more_landmarks():
    rows = sharp(4096, 3)
    exact = field(rows, "fast").density()
    landmarks = []
    for tolerance in (0.2, 0.02, 0.005):
        found = field(rows, "approximate", tolerance=tolerance)
        (known,) = found.approximations
        assert known.error <= tolerance
        off = np.abs(found.density() / exact - 1)
        assert np.mean(off > tolerance) <= 0.01
        landmarks.append(known.landmarks)
    assert landmarks == sorted(landmarks)
    assert landmarks[0] < landmarks[2]


@pytest.mark.compiled
def test_sums_are_exact_where_no_landmarks_are_good_enough():
    rows = sharp(4096, 3)
    found = field(rows, "approximate", tolerance=1e-7)
    (known,) = found.approximations
    assert known.exact
    assert "a probe is off by" in str(known)
    assert known.error > 1e-7
    np.testing.assert_array_equal(found.density(), field(rows, "fast").density())


@pytest.mark.compiled
def test_sums_are_exact_where_all_are_different():
    rows = np.random.default_rng(1).dirichlet(np.full(64, 0.05), 4096)
    found = field(rows, "approximate")
    (known,) = found.approximations
    assert known.exact
    assert "too many" in str(known)
    np.testing.assert_array_equal(found.density(), field(rows, "fast").density())


@pytest.mark.parametrize(
    "rows",
    [
        np.eye(5)[np.arange(900) % 5],
        np.tile(np.full(6, 1 / 6), (700, 1)),
        sharp(60, 1),
    ],
    ids=["one-hot", "all equal", "few"],
)
def test_few_different_batches_are_summed_up_exactly(rows):
    found = field(rows, "approximate")
    (known,) = found.approximations
    assert known.exact
    assert "are few" in str(known)
    np.testing.assert_array_equal(found.density(), field(rows, "exact").density())


@pytest.mark.slow
@pytest.mark.compiled
def test_what_probes_say_holds_for_99_percent():
    """Of 100 draws of the probes at most 5 may let more than 1 % be off by more than the tolerance.

    Sums are the same for the same residual, so draws decide which residual is good enough. By
    chance more than 12 of 100 do with a probability below 0.1 %.
    """
    rows = spread_out(3000, 5)
    exact = field(rows, "fast").density()
    wrong = 0
    for seed in range(100):
        off = np.abs(field(rows, "approximate", seed, tolerance=0.003).density() / exact - 1)
        wrong += np.mean(off > 0.003) > 0.01
    assert wrong <= 12


@pytest.mark.compiled
def test_weights_count_batches():
    rows = sharp(2500, 3)
    weights = np.random.default_rng(4).integers(1, 5, len(rows)).astype(float)
    one = space(precision="approximate")
    batches = one.batches(Samples(p=rows))
    found = one.field(batches, weights)
    assert not found.approximations[0].exact
    exact = replace(one, precision="fast").field(batches, weights)
    np.testing.assert_allclose(found.density(), exact.density(), rtol=0.02)
    repeated = field(np.repeat(rows, weights.astype(int), axis=0), "approximate")
    np.testing.assert_allclose(
        found.sums(), repeated.sums()[np.cumsum(weights).astype(int) - 1], rtol=0.02
    )


@pytest.mark.compiled
def test_the_probes_come_from_the_generator_in_order():
    rows = sharp(2500, 3)
    one = space(precision="approximate")
    batches = one.batches(Samples(p=rows))
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    found = one.field(batches, rng=first).approximations
    assert found == one.field(batches, rng=second).approximations
    assert first.random() == second.random() != np.random.default_rng(1).random()
    assert found != one.field(batches, rng=np.random.default_rng(2)).approximations
    assert one.field(batches).approximations == one.field(batches).approximations
    untouched = np.random.default_rng(1)
    replace(one, precision="auto").field(batches, rng=untouched)
    one.field(batches, rng=untouched, approximated=False)
    assert untouched.random() == np.random.default_rng(1).random()


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("distance", "columns", "bandwidth"),
    [
        (Minkowski("v"), 2, 0.5),
        (Wasserstein.of_normals("v", "s"), 0, 0.5),
        (Wasserstein.of_values("v", levels=4), 0, 0.3),
        (Wasserstein.of_cdfs("v", np.linspace(0, 1, 6)), 6, 0.05),
        (Custom("v", np.ravel, lambda a, b: np.abs(a - b[:, 0]), metric=True), 0, 0.3),
    ],
    ids=["Euclidean", "normals", "Wasserstein", "cdfs", "custom"],
)
def test_other_metrics(distance, columns, bandwidth):
    rng = np.random.default_rng(6)
    values = rng.normal(size=(2400, columns) if columns else 2400)
    if columns == 6:
        values = np.sort(rng.random((2400, 6)), axis=1).mean(axis=1, keepdims=True)
        values = np.clip(np.linspace(0, 1, 6) + values - 0.5, 0, 1)
    one = space([distance], bandwidth=bandwidth, precision="approximate")
    batches = one.batches(Samples(v=values, s=rng.random(2400)))
    found = one.field(batches)
    (known,) = found.approximations
    assert not known.exact, known
    exact = replace(one, precision="exact").field(batches)
    np.testing.assert_allclose(found.density(), exact.density(), rtol=0.02)
    found.remove(3)
    exact.remove(3)
    np.testing.assert_allclose(found.density(), exact.density(), rtol=0.02)


@pytest.mark.compiled
@pytest.mark.parametrize("p", [1, 3, math.inf])
def test_metrics_whose_kernels_have_no_landmarks_are_summed_up_exactly(p):
    """Their kernel is not positive definite in the plane; probes see what becomes of it."""
    rows = np.random.default_rng(6).normal(size=(2400, 2))
    one = space([Minkowski("p", p=p)], bandwidth=0.5, precision="approximate")
    batches = one.batches(Samples(p=rows))
    found = one.field(batches)
    assert "a probe is off by" in str(found.approximations[0])
    exact = replace(one, precision="exact").field(batches)
    np.testing.assert_array_equal(found.density(), exact.density())


def test_what_is_no_metric_is_refused():
    custom = Custom("v", np.mean, lambda a, b: (a - b.T) ** 2)
    with pytest.raises(SettingError, match=r'not known to be a metric.*precision="auto"'):
        SampleSpace([custom], precision="approximate")
    assert SampleSpace([custom]).precision == "auto"
    for share in (0, -0.1, 0.6, math.nan, "1 %"):
        with pytest.raises(SettingError, match="tolerance"):
            SampleSpace([PROBABILITIES], tolerance=share)


# -------------------------------------------------------------------------------------------- auto


@pytest.mark.compiled
def test_auto_is_exact_below_its_limit_and_approximate_beyond(monkeypatch):
    rows = sharp(3000, 7)
    fast = field(rows, "fast")
    assert not field(rows, "auto").approximations
    monkeypatch.setattr("memento.field.Settings.__new__.__defaults__", (3000,))
    monkeypatch.setattr("memento.field.SMALL_TERMS", 1000)
    found = field(rows, "auto")
    assert not found.approximations[0].exact
    np.testing.assert_allclose(found.density(), fast.density(), rtol=0.02)
    found.sum_exactly()
    assert "densest" in str(found.approximations[0])
    np.testing.assert_array_equal(found.density(), fast.density())
    assert not field(rows[1:], "auto").approximations


# ---------------------------------------------------------------------------- two sets of batches


@pytest.mark.compiled
def test_density_with_respect_to_others(caplog):
    rows, others = sharp(3000, 8), sharp(2600, 9)
    one = space(precision="approximate")
    batches, theirs = one.batches(Samples(p=rows)), one.batches(Samples(p=others))
    with caplog.at_level(logging.INFO, logger="memento"):
        found = cross_density(one, batches, theirs)
    assert "landmarks in" in caplog.text
    exact = cross_density(replace(one, precision="fast"), batches, theirs)
    least = 1 / (len(others) * math.sqrt(2 * math.pi))  # one kernel
    assert (np.abs(found - exact) <= 0.02 * np.maximum(exact, least)).all()
    auto = cross_density(replace(one, precision="auto"), batches, theirs)
    np.testing.assert_array_equal(auto, exact)


@pytest.mark.compiled
def test_coverage_is_approximate_only_if_asked():
    first, second = Samples(p=sharp(3000, 10)), Samples(p=sharp(3000, 11))
    rises = {
        precision: coverage_increase(first, second, space(precision=precision), permutations=0)
        for precision in ("approximate", "fast", "auto")
    }
    assert rises["auto"] == rises["fast"]
    assert float(rises["approximate"]) == pytest.approx(float(rises["fast"]), abs=0.01)


# ----------------------------------------------------------------------------- policies and reports


def day(n, seed):
    rows = sharp(n, seed)
    rng = np.random.default_rng(seed)
    labels = (rng.random(n)[:, None] > rows.cumsum(axis=1)).sum(axis=1).clip(0, 7)
    return {"p": rows, "y": labels}


@pytest.mark.compiled
@pytest.mark.parametrize("kind", [Memento, DensityReservoir])
def test_an_insert_reports_how_densities_were_made(kind, tmp_path):
    policy = kind([PROBABILITIES, LABELS], batch_size=2, precision="approximate")
    memory = Memory(4000, policy, seed=1)
    first = memory.insert(day(5000, 1))
    by_distance = {known.distance: known for known in first.approximations}
    assert not by_distance[repr(PROBABILITIES)].exact
    assert by_distance[repr(LABELS)].exact
    assert "landmarks=" in repr(first)
    assert repr(LABELS) not in repr(first)
    memory.save(tmp_path / "memory")
    again = Memory.load(tmp_path / "memory")
    assert again.policy == policy
    assert memory.insert(day(3000, 2)) == again.insert(day(3000, 2))
    np.testing.assert_array_equal(memory.samples["p"], again.samples["p"])
    same = Memory(4000, policy, seed=1)
    same.insert(day(5000, 1))
    same.insert(day(3000, 2))
    np.testing.assert_array_equal(memory.samples["p"], same.samples["p"])
    exact = Memory(4000, replace(policy, precision="fast"), seed=1)
    assert repr(exact.insert(day(5000, 1))) == repr(first).split(", approx")[0] + ")"


@pytest.mark.compiled
def test_at_temperature_zero_approximate_is_exact():
    kept = []
    for precision in ("approximate", "fast"):
        policy = Memento([PROBABILITIES], batch_size=1, temperature=0.0, precision=precision)
        memory = Memory(2000, policy, seed=1)
        assert not memory.insert(day(2500, 3)).approximations
        kept.append(memory.samples["p"])
    np.testing.assert_array_equal(*kept)


@pytest.mark.parametrize("precision", ["approximate", "exact"])
def test_at_temperature_infinity_nothing_is_summed_up(precision, monkeypatch):
    policy = Memento([PROBABILITIES], batch_size=1, temperature=math.inf, precision=precision)
    monkeypatch.delattr("memento.density.SampleSpace.field_of")
    memory = Memory(200, policy, seed=1)
    memory.insert(day(300, 3))
    assert len(memory) == 200


@pytest.mark.parametrize("kind", [Memento, DensityReservoir])
def test_the_contract_of_policies(kind):
    distances = [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("label", 5)]
    check_policy(kind(distances, batch_size=2, precision="approximate"))


@pytest.mark.compiled
def test_densities_of_samples():
    samples = day(9000, 5)
    policy = Memento([PROBABILITIES, LABELS], batch_size=3, precision="approximate")
    order, density = batch_densities(samples, policy)
    again, exact = batch_densities(samples, replace(policy, precision="fast"))
    np.testing.assert_array_equal(order, again)
    np.testing.assert_allclose(density, exact, rtol=0.02)
