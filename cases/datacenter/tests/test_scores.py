"""Scores against slow definitions, targets on made-up tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import DomainError, SchemaError, SettingError
from memento_datacenter import scores


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 5))
def test_accuracies_are_shares_of_each_class(seed, size, classes):
    rng = np.random.default_rng(seed)
    y, p = rng.integers(0, classes, size), rng.random((size, classes))
    found = scores.accuracies(y, p, classes)
    for k in range(classes):
        own = [int(np.argmax(row)) == k for row, label in zip(p, y, strict=True) if label == k]
        assert found[k] == pytest.approx(np.mean(own)) if own else math.isnan(found[k])


def test_nothing_to_judge():
    assert np.isnan(scores.accuracies([], np.empty((0, 3)), 3)).all()


@pytest.mark.parametrize(("y", "p"), [([0], [0.5, 0.5]), ([[0]], [[1, 0]]), ([0], [[1, 0, 0]])])
def test_shapes_have_to_fit(y, p):
    with pytest.raises(SchemaError, match="expected"):
        scores.accuracies(y, p, 2)


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 6)), min_size=1, max_size=30).filter(
        lambda rows: sum(w for _, w in rows) > 0
    ),
    st.floats(0, 1),
)
def test_weighted_quantile_is_that_of_repeated_values(rows, q):
    values, weights = zip(*rows, strict=True)
    repeated = np.sort(np.repeat(values, weights))
    # Weights that are whole numbers: as often as they say.
    place = max(math.ceil(q * len(repeated) * (1 - 1e-12)) - 1, 0)
    expected = repeated[place] if q > 0 else min(values)
    assert scores.weighted_quantile(values, weights, q) == expected


def test_weighted_quantile_refuses():
    with pytest.raises(SettingError, match="from 0 to 1"):
        scores.weighted_quantile([1.0], [1.0], 99)
    with pytest.raises(SchemaError, match="at least one"):
        scores.weighted_quantile([], [], 0.5)
    with pytest.raises(DomainError, match="weights"):
        scores.weighted_quantile([1.0, 2.0], [0.0, 0.0], 0.5)


# ------------------------------------------------------------------------------- tables of replays


def rows_of(scenario, memory, settings, seed=0, **columns):
    """A table of one replay; columns are lists, or one value for all iterations."""
    size = len(settings)
    table = {
        "scenario": [scenario] * size, "memory": [memory] * size, "seed": [seed] * size,
        "iteration": list(range(1, size + 1)), "settings": settings, "rci": [math.nan] * size,
        "select": [0.5] * size, "balanced_accuracy": [math.nan] * size,
        "error_p99": [math.nan] * size, "held_w1": [0.0] * size, "held_w2": [0.0] * size,
        "held_w3": [0.0] * size,
    }  # fmt: skip
    for name, values in columns.items():
        table[name] = values if isinstance(values, list) else [values] * size
    return table


def joined(*tables):
    return {name: np.concatenate([np.array(t[name]) for t in tables]) for name in tables[0]}


STEPS = ["w1"] * 2 + ["w2"] * 2 + ["w3"] * 4


def test_scores_over_iterations_and_seeds():
    table = joined(
        rows_of("incremental", "memento", STEPS, 0, balanced_accuracy=[0.1] * 6 + [0.5, 0.7]),
        rows_of("incremental", "memento", STEPS, 1, balanced_accuracy=[0.3] * 6 + [0.7, 0.9]),
    )
    found = scores.summary(table)
    values = dict(zip(found["score"].tolist(), found["value"].tolist(), strict=True))
    assert values["accuracy"] == pytest.approx((0.1 * 6 + 1.2 + 0.3 * 6 + 1.6) / 16)
    # w3 appears in iteration 5; from two later on, so in 7 and 8.
    assert values["accuracy_after_w3"] == pytest.approx((0.5 + 0.7 + 0.7 + 0.9) / 4)
    assert found["seeds"].tolist() == [2] * found.size
    assert (found["low"] <= found["value"]).all()


def test_errors_by_load_in_milliseconds():
    settings = ["w1+w2+w3"] * 2 + ["w1_c100+w2_c100+w3_c100", "w1_c133+w2_c133+w3_c133"]
    table = rows_of("congestion", "fifo", settings, error_p99=[0.01, 0.02, 0.03, 0.04])
    found = scores.summary(table)
    values = dict(zip(found["score"].tolist(), found["value"].tolist(), strict=True))
    assert values["error_66"] == pytest.approx(15)
    assert values["error_100"] == pytest.approx(30)
    assert values["error_133"] == pytest.approx(40)
    assert values["error_before_133"] == pytest.approx(20)


def test_composition_is_that_of_the_last_iteration():
    table = joined(
        rows_of("incremental", "fifo", STEPS, 0, held_w3=list(range(8))),
        rows_of("incremental", "fifo", STEPS, 1, held_w3=[9.0] * 8),
    )
    found = scores.composition(table)
    assert found["workload"].tolist() == ["w1", "w2", "w3"]
    assert found["value"].tolist() == [0.0, 0.0, 8.0]


def test_courses_leave_out_what_has_no_value():
    table = rows_of("incremental", "memento", STEPS, rci=[math.nan, 0.1] + [0.2] * 6)
    found = scores.courses(table, "rci")
    assert found["iteration"].tolist() == list(range(2, 9))
    with pytest.raises(SchemaError, match="no column 'nonsense'"):
        scores.courses(table, "nonsense")
    with pytest.raises(SchemaError, match="table of replays"):
        scores.courses({"rci": [1.0]}, "rci")


def judged(**changes):
    rare = ["w1+w2+w3", "w2", "w2"]
    loads = ["w1+w2+w3", "w1_c100+w2_c100+w3_c100", "w1_c133+w2_c133+w3_c133"]
    values = {
        "rare": 0.9, "random": 0.7, "steps": [0.1] * 6 + [0.9, 0.9], "w1": 30.0, "lars": 0.4,
        "rci": [math.nan, 0.1, 0.5, 0.1, 0.4, 0.1, 0.1, 0.1], "error": [0.01, 0.01, 0.9],
        **changes,
    }  # fmt: skip
    held = {"held_w1": values["w1"], "held_w2": 40.0, "held_w3": 30.0}
    table = joined(
        rows_of("rare-patterns", "memento", rare, balanced_accuracy=values["rare"], **held),
        rows_of("rare-patterns", "random", rare, balanced_accuracy=values["random"], **held),
        rows_of(
            "rare-patterns", "lars", rare, balanced_accuracy=0.9, select=values["lars"], **held
        ),
        rows_of(
            *("incremental", "memento", STEPS),
            balanced_accuracy=values["steps"], rci=values["rci"], **held,
        ),
        rows_of("congestion", "memento", loads, error_p99=values["error"], **held),
        rows_of("congestion", "random", loads, error_p99=[0.02, 0.02, 0.0], **held),
        rows_of("congestion", "fifo", loads, error_p99=[0.015, 0.01, 0.0], **held),
    )  # fmt: skip
    found = scores.targets(table)
    return dict(zip(found["target"].tolist(), found["holds"].tolist(), strict=True))


def test_all_targets_can_hold():
    found = judged()
    assert len(found) == 11
    assert all(found.values())


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"rare": 0.85}, {"rare patterns: accuracy"}),
        ({"random": 0.82}, {"rare patterns: accuracy above random"}),
        ({"steps": [0.1] * 6 + [0.87, 0.99]}, {"incremental: lowest accuracy once w3 is known"}),
        ({"w1": 5.0}, {"rare patterns: share of w1 in memory",
                       "incremental: share of w1 in memory"}),
        ({"rci": [math.nan, 0.3, 0.5, 0.1, 0.4, 0.1, 0.1, 0.1]},
         {"incremental: coverage increase where w2 and w3 appear"}),
        ({"error": [0.0134, 0.0134, 0.0]},
         {"congestion: error up to 100 %, of the best other (at most)"}),
        ({"error": [0.019, 0.019, 0.0]},
         {"congestion: error up to 100 %, of the best other (at most)",
          "congestion: error up to 100 %, of nine tenths of random's (at most)"}),
        ({"lars": 0.6}, {"rare patterns: seconds that LARS takes for an insert (at most)"}),
    ],
)  # fmt: skip
def test_targets_that_are_missed_are_told(changes, missed):
    found = judged(**changes)
    assert {target for target, holds in found.items() if not holds} == missed


def test_targets_without_their_replays_are_left_out():
    table = rows_of("rare-patterns", "fifo", ["w2"])
    assert scores.targets(table).size == 0
