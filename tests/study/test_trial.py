"""What is said of triggers: by figures made by hand."""

from __future__ import annotations

import numpy as np

from memento.study.trial import TriggerFigures, _trigger, shuffled


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


def test_shuffled_units_hold_the_same_samples_and_whole_clusters():
    cluster = np.repeat(np.arange(20), 5)
    units = [(str(i), {"y": np.arange(50 * i, 50 * i + 50), "c": cluster[50 * i : 50 * i + 50]})
             for i in range(2)]  # fmt: skip
    found = shuffled(units, "c", seed=1)
    assert [name for name, _ in found] == ["0", "1"]
    y, c = (np.concatenate([columns[n] for _, columns in found]) for n in ("y", "c"))
    assert sorted(y.tolist()) == list(range(100))
    assert (cluster[y] == c).all()
    assert (np.flatnonzero(np.diff(c)) + 1).tolist() == list(range(5, 100, 5))
    assert y.tolist() != list(range(100))
