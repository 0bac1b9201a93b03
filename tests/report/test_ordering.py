"""Orders: ranks against a slow count, and the rule for best settings and reversed pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.report.ordering import chance, ordering, rank_correlation


def slow_ranks(values):
    return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9))
def test_rank_correlation(pairs):
    x, y = zip(*pairs, strict=True)
    found = rank_correlation(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found)
        return
    assert found == pytest.approx(np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1], abs=1e-9)


@pytest.mark.parametrize("settings", [3, 5, 7])
def test_chance_counts_all_orders(settings):
    straight = list(range(settings))
    found = [rank_correlation(straight, o) for o in itertools.permutations(straight)]
    for wanted in sorted(set(found)):
        share = np.mean([f >= wanted - 1e-9 for f in found])
        assert chance(wanted, settings) == pytest.approx(share)
    assert math.isnan(chance(math.nan, settings))


def test_chance_of_many_settings_is_near_what_is_drawn():
    """20,000 draws: five standard errors are 0.01 at most."""
    rng = np.random.default_rng(1)
    found = np.array([rank_correlation(range(12), rng.permutation(12)) for _ in range(20_000)])
    for wanted in (0.2, 0.5, 0.7):
        assert chance(wanted, 12) == pytest.approx((found >= wanted).mean(), abs=0.02)


def sweep(ours, theirs, error=0.1, score="tail"):
    rows = [("s", x, "ours", score, v, error) for x, v in ours.items()]
    rows += [("s", x, "paper", score, v, math.nan) for x, v in theirs.items()]
    names = ("series", "x", "origin", "score", "value", "error")
    table = {n: [row[i] for row in rows] for i, n in enumerate(names)}
    arms = {"arm": [f"a{x:g}" for x in table["x"]], "predictor": ["own"] * len(rows)}
    return {**table, **arms}


def only(table):
    assert all(len(column) == 1 for column in table.values())
    return {name: column[0] for name, column in table.items()}


def test_the_same_order():
    found = only(ordering(sweep({1: 5, 2: 9, 3: 7}, {1: 0.1, 2: 0.3, 3: 0.2})))
    assert (found["settings"], found["correlation"], found["reversed"]) == (3, 1.0, 0)
    assert (found["best"], found["paper best"], bool(found["best_agrees"])) == ("2", "2", True)
    assert found["chance"] == pytest.approx(1 / 6)


def test_best_within_one_standard_error():
    theirs = {1: 0.3, 2: 0.2, 3: 0.1}
    near = only(ordering(sweep({1: 1.0, 2: 1.1, 3: 0.0}, theirs)))
    assert bool(near["best_agrees"])  # 0.1 short, error of the difference 0.14
    assert near["short"] == pytest.approx(0.1)
    far = only(ordering(sweep({1: 1.0, 2: 1.3, 3: 0.0}, theirs)))
    assert not bool(far["best_agrees"])
    assert far["reversed"] == 1  # 0.3 is more than twice 0.14
    unknown = only(ordering(sweep({1: 1.0, 2: 1.1, 3: 0.0}, theirs, error=math.nan)))
    assert not bool(unknown["best_agrees"])
    assert unknown["reversed"] == 0


def test_equal_ones_of_the_paper_count_as_the_best_alike():
    found = only(ordering(sweep({1: 1.0, 2: 5.0, 3: 0.0}, {1: 0.3, 2: 0.3, 3: 0.1})))
    assert found["paper best"] == "2"


def test_paired_differences_see_what_independent_errors_hide():
    """Days differ by far more than settings do on the same day."""
    rng = np.random.default_rng(2)
    level = rng.normal(0, 10, 30)
    names = [f"p day {i}" for i in range(30)]
    days = {
        (f"a{x}", "own", "tail"): dict(zip(names, level + change, strict=True))
        for x, change in ((1, 0.0), (2, 0.5), (3, 1.0))
    }
    means = {x: float(np.mean(list(days[f"a{x}", "own", "tail"].values()))) for x in (1, 2, 3)}
    table = sweep(means, {1: 0.3, 2: 0.2, 3: 0.1}, error=10 / math.sqrt(30))
    assert only(ordering(table))["reversed"] == 0
    found = only(ordering(table, days))
    assert found["reversed"] == 3
    assert found["short"] == pytest.approx(1.0)
    assert found["short_error"] == pytest.approx(0.0, abs=1e-9)


def test_too_few_settings_say_nothing():
    found = ordering(sweep({1: 1.0, 2: 2.0}, {1: 1.0, 2: 2.0}))
    assert len(found["series"]) == 0
    assert "paper best" in found


def test_values_that_are_not_known_are_left_out():
    found = only(ordering(sweep({1: 1.0, 2: 2.0, 3: math.nan, 4: 3.0}, {1: 1, 2: 2, 3: 3, 4: 4})))
    assert found["settings"] == 3
