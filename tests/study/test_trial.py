"""What is said of triggers: by figures made by hand."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from memento.study.trial import TriggerFigures, _trigger, shuffled, try_stream
from memento.testing import ConstantLearner


def figures(trainings, cost, false_alarms=0.0):
    return TriggerFigures(trainings, cost, false_alarms, units=10, seconds=1.0)


DAILY = figures(11, 0.0, 10)


def test_the_fewest_trainings_that_cost_little_and_are_quiet():
    never, some = figures(1, 0.08), figures(3, 0.004)
    loud = figures(2, 0.0, false_alarms=2)
    chosen, text = _trigger({"daily": DAILY, "never": never, "some": some, "loud": loud})
    assert chosen == "some"
    assert text.startswith("Retrain by some: 3.0 trainings instead of 11, for +0.004 of the mean")


def test_never_is_said_with_what_training_would_gain():
    for cost, words in ((-0.05, "gains -0.050"), (0.008, "gains +0.008")):
        chosen, text = _trigger({"daily": DAILY, "never": figures(1, cost)})
        assert chosen == "never"
        assert words in text


def test_daily_where_nothing_else_will_do():
    chosen, text = _trigger({"daily": DAILY, "never": figures(1, 0.5)})
    assert chosen == "daily"
    assert "Train after every unit (11 times)" in text


@pytest.mark.parametrize("sizes", [(50, 50), (47, 61)])
def test_shuffled_units_hold_the_same_samples_and_pieces_of_clusters(sizes):
    """A cluster that comes in every unit does so in shuffled order, too: else it were a change."""
    unit = np.repeat(np.arange(2), sizes)
    cluster = np.arange(sum(sizes)) // 5 % 6  # six users, who come in both
    units = [(str(i), {"y": np.flatnonzero(unit == i), "c": cluster[unit == i]}) for i in range(2)]
    found = shuffled(units, "c", seed=1)
    assert [(name, len(columns["y"])) for name, columns in found] == [
        ("0", sizes[0]), ("1", sizes[1])
    ]  # fmt: skip
    y = np.concatenate([columns["y"] for _, columns in found])
    assert sorted(y.tolist()) == list(range(sum(sizes)))
    assert y.tolist() != list(range(sum(sizes)))
    pieces = list(zip(unit[y].tolist(), cluster[y].tolist(), strict=True))
    changes = sum(a != b for a, b in itertools.pairwise(pieces))
    assert changes == len(set(pieces)) - 1  # each stays together
    assert all(len(set(columns["c"].tolist())) >= 3 for _, columns in found)


def test_a_budget_counts_what_was_there_already(tmp_path):
    """A seed that is stored takes no time now, and says what another one would take."""
    pytest.importorskip("psutil")
    units = [(str(i), {"label": np.arange(300) % 3}) for i in range(7)]

    class Slow(ConstantLearner):
        def fit(self, samples, weights=None):
            time.sleep(0.05)
            super().fit(samples, weights)

    def tried(**more):
        return try_stream(
            units, lambda seed: Slow(), {}, {}, capacity=50, folder=tmp_path, **more
        ).seeds

    assert tried(seeds=1) == 1
    assert tried(seeds=30, budget=0.8) == 1
    assert tried(seeds=2) == 2
