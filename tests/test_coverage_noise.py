"""What the retraining signal claims, at the size it was claimed for: 200 batches of 64, k = 21.

Seeds are fixed. Each test states how often it would fail, with fresh seeds, though the claim holds.
"""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from memento import JensenShannon, SampleSpace, coverage_increase

CLASSES, BATCHES, BATCH = 21, 200, 64
ROWS = BATCHES * BATCH
SPACE = SampleSpace(
    [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", CLASSES)],
    batch_size=BATCH,
    sort_by=("y", "yhat"),
)
pytestmark = [pytest.mark.compiled, pytest.mark.slow]


def binomial_limits(draws: int, rate: float, alarm: float) -> tuple[int, int]:
    """Fewest and most successes; fewer come with probability <= alarm / 2, more likewise.

    Exact: sums of the probabilities themselves.
    """
    odds = [comb(draws, k) * rate**k * (1 - rate) ** (draws - k) for k in range(draws + 1)]
    below, above = np.cumsum(odds), np.cumsum(odds[::-1])[::-1]
    low = int(np.argmax(below > alarm / 2))  # P(X < low) <= alarm / 2
    high = draws - int(np.argmax(above[::-1] > alarm / 2))  # P(X > high) <= alarm / 2
    return low, high


def test_binomial_limits():
    """Against values worked out by hand: 10 tosses of a coin."""
    assert binomial_limits(10, 0.5, 2 * 1 / 1024) == (1, 9)
    assert binomial_limits(10, 0.5, 2 * 11 / 1024) == (2, 8)
    assert binomial_limits(10, 0.5, 1e-9) == (0, 10)


def draw(rng, shares, new=0.0):
    """Labels, and predictions that are now better, now worse; a share has the rarest label."""
    y = rng.choice(CLASSES, ROWS, p=shares)
    y[rng.random(ROWS) < new] = shares.argmin()
    logits = rng.normal(size=(ROWS, CLASSES))
    logits[np.arange(ROWS), y] += rng.choice([0.0, 1.5, 4.0, 8.0], ROWS)
    odds = np.exp(logits)
    return {"y": y, "yhat": odds / odds.sum(axis=1, keepdims=True)}


def p_values(seeds, new, permutations):
    """Of pairs of sets, each pair of a population of its own."""
    found = []
    for seed in seeds:
        rng = np.random.default_rng([2024, seed])
        shares = rng.dirichlet(np.full(CLASSES, 0.4))
        before, now = draw(rng, shares), draw(rng, shares, new)
        rise = coverage_increase(now, before, SPACE, permutations=permutations, rng=rng)
        assert min(rise.batches) >= BATCHES - CLASSES
        found.append(rise.p_value)
    return np.array(found)


def test_false_alarms_are_nominal():
    """150 pairs of one distribution; false-alarm rate of the test 1e-3.

    With one permutation the p-value rests on 19 draws, so p <= 0.05 where the pair is newer than
    all of them: 1 in 20, if it is exchangeable with them and there are no ties. Both limits count:
    a test that never alarms would be just as wrong.
    """
    low, high = binomial_limits(150, 0.05, 1e-3)
    alarms = int((p_values(range(150), 0.0, permutations=1) <= 0.05).sum())
    assert low <= alarms <= high, f"{alarms} false alarms in 150; expected {low} to {high}"


def test_a_drift_of_three_percent_is_seen():
    """In at least 85 % of 60 pairs.

    What is claimed is the share itself, not a limit around it. If it were no more than 96 %, fewer
    than 51 of 60 would come by chance once in 7,000 times.
    """
    seen = (p_values(range(1000, 1060), 0.03, permutations=4) <= 0.05).mean()
    assert seen >= 0.85, f"seen in {seen:.0%}"
