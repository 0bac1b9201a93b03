"""The comparison of arrivals: exact under ties and clusters, against a slow version; its power."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memento import JensenShannon, Samples, SampleSpace
from memento.arrivals import Clusters
from memento.errors import SchemaError
from memento.newness import (
    _newness,
    compare,
    e_value,
    excess,
    losses_of,
    new_share,
    share_of_unseen,
    unseen_labels,
)

LABELS = SampleSpace([JensenShannon.of_labels("y", 19)], batch_size=8, sort_by="y")
VALUES = SampleSpace([JensenShannon.of_values("y"), JensenShannon.of_values("yhat")], batch_size=8)


def rows(rng, samples):
    """Each row a cluster of its own."""
    return Clusters(samples, rng.random(samples.size))


def sessions(rng, count, size=5):
    """Rows of one session share their label mostly, and their loss."""
    kind = rng.integers(0, 9, count)
    y = np.where(rng.random((count, size)) < 0.8, kind[:, None], rng.integers(0, 9, (count, size)))
    loss = np.repeat(rng.exponential(size=count), size).round(1)
    return Clusters(Samples(y=y.reshape(-1), loss=loss), np.repeat(rng.random(count), size))


def labels_only(rng, size):
    return Samples(y=rng.integers(0, 3, size))


def with_losses(rng, size):
    return Samples(y=rng.integers(0, 3, size), loss=rng.integers(0, 4, size).astype(float))


def forest(rng, size):
    """Probabilities of ten trees: few distinct rows."""
    share = rng.integers(0, 11, size) / 10
    return Samples(yhat=np.stack([share, 1 - share], axis=1))


def duplicated(rng, size):
    return Samples(y=np.repeat(rng.integers(0, 9, -(-size // 20)), 20)[rng.permutation(size)])


FOREST = SampleSpace([JensenShannon.of_probabilities("yhat")], batch_size=8)


@pytest.mark.parametrize(
    ("space", "draw"),
    [(LABELS, labels_only), (LABELS, with_losses), (FOREST, forest)],
    ids=["labels only", "integer losses", "forest"],
)
def test_p_values_are_uniform_or_larger_under_ties(space, draw):
    """Of 150 p-values without a change at most 17 are <= 0.05 (P = 6e-4 if the level holds)."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(150):
        found = compare(
            space, rows(rng, draw(rng, 120)), rows(rng, draw(rng, 240)), draws=199, rng=rng
        )
        small += found.p_value <= 0.05
    assert small <= 17


def test_p_values_by_session():
    """Rows of a session are alike: exchanging rows would see a change in nearly every pair."""
    rng = np.random.default_rng(1)
    by_session = by_row = 0
    for _ in range(100):
        a, s = sessions(rng, 30), sessions(rng, 60)
        by_session += compare(LABELS, a, s, draws=199, rng=rng).p_value <= 0.05
        by_row += (
            compare(LABELS, rows(rng, a.samples), rows(rng, s.samples), draws=199, rng=rng).p_value
            <= 0.05
        )
    assert by_session <= 13  # P = 1e-3 at 5 %
    assert by_row >= 25, "the test would prove little otherwise"


@pytest.mark.parametrize("space", [LABELS, VALUES], ids=["labels", "values"])
def test_a_change_is_seen(space):
    rng = np.random.default_rng(2)

    def draw(size, new):
        y = rng.integers(0, 8, size)
        y = np.where(rng.random(size) < new, 18, y)
        return rows(rng, Samples(y=y, yhat=y + rng.normal(size=size)))

    seen = [
        compare(space, draw(1000, 0.05), draw(2000, 0.0), draws=999, rng=rng).p_value
        for _ in range(10)
    ]
    assert max(seen) <= 0.002


def test_statistics_against_plain_loops():
    """What is observed, recomputed from the samples: the share of labels that are not there."""
    rng = np.random.default_rng(3)
    a, s = labels_only(rng, 200), Samples(y=rng.integers(0, 2, 400))
    found = compare(LABELS, rows(rng, a), rows(rng, s), draws=1000, rng=rng)
    assert found.z["labels"] == max(found.z.values()) > 5
    assert unseen_labels(LABELS, a, [s]) == [2]
    assert found.draws == 1000
    assert found.clusters == (200, 400)
    ours, theirs = np.array([[4.0, 6.0, 0.0]]), np.array([[8.0, 2.0, 10.0]])
    kernel = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.1], [0.0, 0.1, 1.0]])
    expected = 0.0
    for c in range(3):
        mine = sum(ours[0, i] / 10 * kernel[c, i] for i in range(3))
        before = sum(theirs[0, i] / 20 * kernel[c, i] for i in range(3))
        expected += ours[0, c] / 10 * max(0, 1 - before / mine) ** 2
    assert _newness(ours, theirs, kernel)[0] == pytest.approx(expected, abs=1e-11)


def test_nothing_unusual_is_told_early():
    rng = np.random.default_rng(4)
    found = compare(
        LABELS,
        rows(rng, labels_only(rng, 50)),
        rows(rng, labels_only(rng, 50)),
        draws=10**6,
        rng=rng,
    )
    assert found.draws < 10_000


def test_one_cluster_tells_nothing():
    rng = np.random.default_rng(5)
    one = Clusters(labels_only(rng, 5), np.full(5, 0.5))
    found = compare(LABELS, one, rows(rng, labels_only(rng, 50)), draws=99, rng=rng)
    assert np.isnan(found.p_value)
    assert found.z == {}


def test_labels_that_are_still_to_come_are_left_out():
    rng = np.random.default_rng(6)
    space = SampleSpace(
        [JensenShannon.of_values("y"), JensenShannon.of_values("yhat")], batch_size=8
    )
    late = Samples(y=np.full(50, np.nan), yhat=rng.normal(size=50), loss=np.full(50, np.nan))
    before = Samples(y=rng.normal(size=80), yhat=rng.normal(size=80), loss=rng.random(80))
    found = compare(space, rows(rng, late), rows(rng, before), draws=199, rng=rng)
    assert 0 < found.p_value <= 1
    assert "labels" not in found.z
    with pytest.raises(SchemaError, match="arrivals cannot be compared"):
        compare(
            SampleSpace([JensenShannon.of_values("y")], batch_size=8),
            rows(rng, late),
            rows(rng, before),
            draws=199,
            rng=rng,
        )


def test_e_values_integrate_to_one():
    """From p on they integrate to 1 - (1 - p) / -ln p, which is 1 for p = 0."""
    grid = np.geomspace(1e-9, 1, 20_001)
    values = np.array([e_value(p) for p in grid])
    total = ((values[1:] + values[:-1]) / 2 * np.diff(grid)).sum()
    assert total == pytest.approx(1 - (1 - 1e-9) / -np.log(1e-9), abs=1e-4)
    assert (np.diff(values) < 0).all()


def test_the_run_length_holds_for_uniform_p_values():
    """Of 4,000 runs over 40 units at most a fifth reach 200, since E[R] <= 40."""
    rng = np.random.default_rng(7)
    evidence, alarmed = np.zeros(4000), np.zeros(4000, bool)
    for _ in range(40):
        p = rng.random(4000)
        evidence = (1 + evidence) * np.array([e_value(value) for value in p])
        alarmed |= evidence >= 200
    assert alarmed.mean() <= 0.2 + 3 * np.sqrt(0.16 / 4000)


def test_newness_beside_a_history_is_about_what_is_new():
    rng = np.random.default_rng(8)
    history = Samples(y=rng.integers(0, 8, 5000))
    y = rng.integers(0, 8, 2000)
    assert abs(new_share(LABELS, Samples(y=y), history, tolerance=4, rng=rng)) < 0.01
    y[:200] = 8
    share = new_share(LABELS, Samples(y=y), history, tolerance=4, rng=rng)
    assert share == pytest.approx(0.1, abs=0.02)


def test_excess_of_large_losses():
    loss = np.arange(1000.0)
    assert excess(LABELS, Samples(loss=loss), Samples(loss=loss)) == pytest.approx(0, abs=0.02)
    assert excess(LABELS, Samples(loss=loss + 50), Samples(loss=loss)) == pytest.approx(
        1.0, abs=0.05
    )
    assert np.isnan(excess(LABELS, Samples(y=[1]), Samples(loss=loss)))


def test_losses_follow_from_label_and_prediction():
    space = SampleSpace([*FOREST.distances, JensenShannon.of_labels("y", 3)], batch_size=8)
    samples = Samples(y=[0, 1, 2], yhat=[[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]])
    floor = -np.log(1e-6)
    np.testing.assert_allclose(losses_of(space, samples), [np.log(2), floor, floor])
    waiting = samples.with_columns(y=[0.0, np.nan, np.nan])
    np.testing.assert_allclose(losses_of(space, waiting), [np.log(2), np.nan, np.nan])
    np.testing.assert_array_equal(losses_of(LABELS, samples), np.full(3, np.nan))
    np.testing.assert_array_equal(
        losses_of(LABELS, samples.with_columns(loss=[1, 2, 3])), [1, 2, 3]
    )
    for other in (["fire", "theft", "fire"], np.ones((3, 2))):
        found = losses_of(space, samples.with_columns(loss=other))
        np.testing.assert_allclose(found, [np.log(2), floor, floor])


def test_whose_columns_are_follows_from_what_was_trained_on():
    space = SampleSpace([*FOREST.distances, JensenShannon.of_labels("y")], batch_size=8)
    yhat = [[0.9, 0.1], [0.2, 0.8]]
    right = -np.log([0.9, 0.8])
    texts = Samples(y=["a", "b"], yhat=yhat)
    np.testing.assert_allclose(losses_of(space, texts, trained=texts), right)
    assert np.isnan(losses_of(space, texts)).all()
    for unknown in (["a", "a"], ["a", "b", "c"], [0, 1]):
        assert np.isnan(losses_of(space, texts, trained=Samples(y=unknown))).all()
    late = Samples(y=["", "c"], yhat=yhat)
    np.testing.assert_allclose(losses_of(space, late, trained=texts), [np.nan, -np.log(1e-6)])
    from_one = Samples(y=[1, 2], yhat=yhat)  # as scikit-learn's classes_ are
    np.testing.assert_allclose(losses_of(space, from_one, trained=from_one), right)


def test_share_of_unseen_labels():
    assert share_of_unseen(LABELS, Samples(y=[0, 1, 5, 5]), Samples(y=[0, 1, 2])) == 0.5
    assert share_of_unseen(FOREST, Samples(y=[5]), Samples(y=[0])) == 0.0


def test_standardised_statistics_are_those_of_the_draws():
    """The p-value of labels alone, beside the exact hypergeometric tail."""
    rng = np.random.default_rng(9)
    a, s = Samples(y=[0] * 20 + [1] * 6), Samples(y=[0] * 60)
    found = compare(LABELS, rows(rng, a), rows(rng, s), draws=4000, rng=rng)
    exact = math.comb(26, 6) / math.comb(86, 6)  # all six among the 26 arrivals of 86
    assert found.p_value == pytest.approx(max(exact, 1 / 4000), abs=0.002)
