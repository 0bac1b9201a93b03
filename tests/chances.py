"""Bounds on what chance can do, so that tests of random behaviour can say how rarely they err."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from memento import Policy, Samples, State

#: How often a test with a fresh seed would fail although the code is right. Seeds are fixed, so a
#: test that passed keeps passing until the code draws its numbers differently.
ALARM = 1e-4


def chi_square_limit(freedom: int, alarm: float = ALARM) -> float:
    """What a chi-square variable exceeds with probability ``alarm`` (Wilson and Hilferty 1931)."""
    z = NormalDist().inv_cdf(1 - alarm)
    return freedom * (1 - 2 / (9 * freedom) + z * (2 / (9 * freedom)) ** 0.5) ** 3


def assert_counts(counts, expected, alarm: float = ALARM) -> None:
    """Counts of independent events in classes agree with what is expected of each class."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    assert abs(counts.sum() - expected.sum()) < 1e-6 * expected.sum()
    possible = expected > 0
    assert not counts[~possible].any(), "something impossible happened"
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    limit = chi_square_limit(int(possible.sum()) - 1, alarm)
    assert statistic < limit, (
        f"chi-square {statistic:.1f}, at most {limit:.1f}: {counts}, {expected}"
    )


def assert_same_law(first, second, alarm: float = ALARM) -> None:
    """Counts of two samples over the same classes come from one law."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    both = first + second
    rare = both < 10  # too few for the chi-square approximation: taken together
    first = np.append(first[~rare], first[rare].sum())
    second = np.append(second[~rare], second[rare].sum())
    both = first + second
    first, second, both = first[both > 0], second[both > 0], both[both > 0]
    ratio = (second.sum() / first.sum()) ** 0.5
    statistic = ((ratio * first - second / ratio) ** 2 / both).sum()
    limit = chi_square_limit(len(both) - 1, alarm)
    assert statistic < limit, f"chi-square {statistic:.1f}, at most {limit:.1f}: {first}, {second}"


def assert_mean(values, expected: float, deviation: float, alarm: float = ALARM) -> None:
    """The mean of independent values agrees with the one expected; two-sided."""
    z = abs(np.mean(values) - expected) / (deviation / len(values) ** 0.5)
    limit = NormalDist().inv_cdf(1 - alarm / 2)
    assert z < limit, f"mean {np.mean(values)}, expected {expected}: {z:.1f} sigma"


def follow(policy: Policy, units, capacity: int, rng: np.random.Generator) -> Samples:
    """What a memory holds after these units, without its checks: for thousands of runs."""
    held, state = Samples(), State()
    for unit in units:
        fresh = Samples.borrow(unit)
        choice = policy.choose(held, fresh, capacity, state, rng)
        held = (Samples.concat([held, fresh]) if held.size else fresh).take(choice.rows)
        state = State(choice.counters, choice.marks)
    return held
