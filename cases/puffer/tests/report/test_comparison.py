"""Tables beside the paper's: nothing is mixed, nothing is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memento.errors import SchemaError
from memento_puffer.report.comparison import (
    SWEEPS,
    beside,
    daily,
    dots,
    inserts,
    losses,
    places,
    records,
    selected,
    sweep,
    trainings,
)
from memento_puffer.studies.experiments import CONTENTS

SCORES = ("tail", "median", "mean")


def improvement_of(arms, against="daily", period="all", predictors=("own",)):
    """A table as `compare` writes it; the value of row i is i, with an error of 0.5."""
    keys = [(arm, p) for arm in arms for p in predictors]
    table = {
        "period": np.array([period] * len(keys)),
        "against": np.array([against] * len(keys)),
        "arm": np.array([arm for arm, _ in keys]),
        "predictor": np.array([p for _, p in keys]),
        "days": np.full(len(keys), 10),
    }
    for score in SCORES:
        table[score] = np.arange(len(keys), dtype=float)
        table[f"{score}_error"] = np.full(len(keys), 0.5)
    return table


def below(*tables):
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}


@pytest.mark.parametrize("topic", SWEEPS)
def test_every_arm_of_a_sweep_has_its_place(topic):
    arms, at = CONTENTS[topic].arms, places(topic)
    numbers = [at[arm] for arm in arms if arm in at]
    assert len(set(numbers)) == len(numbers)
    others = {arm for arm in arms if arm not in at}
    rules = ("count", "period=2", "period=7", "always", "never")
    assert others <= {"memento", "forgetting", *(f"memento-{rule}" for rule in rules)}


def test_places():
    def at(topic, arm):
        return places(topic).get(arm)

    assert at("table-batch-size", "memento-batch=half") == ("memento", 0.5)
    assert at("table-batch-size", "memento") == ("memento", 1.0)
    assert at("table-temperature", "memento-T0") == ("memento", 0.0)
    assert at("table-temperature", "memento") == ("memento", 0.01)
    assert at("table-other-metrics", "labels-T=0.001") == ("labels", 0.001)
    assert at("table-decisions", "memento-calibrated=0.1") == ("calibrated", 0.1)
    assert at("table-jtt", "forgetting-jtt=50") == ("forgetting", 50.0)
    assert at("table-bandwidth", "daily") is None
    assert places("table-baselines") == {}


def test_places_are_read_from_parameters_and_not_from_names():
    """What a file of settings changed counts, whatever an experiment is called."""
    arms = {
        "memento": {"arm": "memento", "batch_size": 64},
        "memento-h=0.5": {"arm": "memento", "batch_size": 32, "bandwidth": 0.25},
        "mine": {"arm": "somebody's", "batch_size": 64},
    }
    assert places("table-bandwidth", arms) == {
        "memento": ("memento", 0.1),
        "memento-h=0.5": ("memento", 0.25),
    }
    assert places("table-batch-size", arms)["memento-h=0.5"] == ("memento", 0.5)
    table = improvement_of(["memento", "memento-h=0.5"])
    found = sweep("table-bandwidth", table, arms=arms)
    ours = (found["origin"] == "ours") & (found["score"] == "tail")
    assert found["x"][ours].tolist() == [0.1, 0.25]


def test_ours_and_theirs_stand_in_columns_of_their_own():
    found = beside(
        "table-temperature", improvement_of(["memento", "memento-T=1", "memento-T0"]), "daily"
    )
    assert found["arm"].tolist() == ["memento-T0", "memento", "memento-T=1"]
    assert found["tail"].tolist() == [2.0, 0.0, 1.0]
    np.testing.assert_array_equal(found["paper tail"], [math.nan, 0.699, -0.034])
    np.testing.assert_array_equal(found["paper median"], [math.nan, -0.171, -0.005])


def test_only_all_periods_together_and_this_reference():
    table = below(
        improvement_of(["memento"]), improvement_of(["random"], period="sim-1"),
        improvement_of(["fifo"], against="static"),
    )  # fmt: skip
    assert beside("table-baselines", table, "daily")["arm"].tolist() == ["memento"]
    assert beside("table-baselines", table, "static")["arm"].tolist() == ["fifo"]
    without = {name: column for name, column in table.items() if name != "period"}
    assert beside("table-baselines", without, "daily")["arm"].tolist() == ["memento", "random"]


def test_a_sweep_has_rows_of_both_origins():
    arms = ["memento", "memento-jtt=2", "memento-jtt=5", "forgetting", "daily"]
    table = improvement_of(arms, predictors=("own", "oracle", "matched"))
    found = sweep("table-jtt", table)
    assert set(found["series"].tolist()) == {
        "memento",
        "memento, oracle",
    }  # the other has one
    ours = (found["origin"] == "ours") & (found["series"] == "memento") & (found["score"] == "tail")
    assert found["x"][ours].tolist() == [1.0, 2.0, 5.0]
    assert found["error"][ours].tolist() == [0.5] * 3
    theirs = (found["origin"] == "paper") & (found["series"] == "memento, oracle")
    chosen = theirs & (found["score"] == "tail")
    assert found["value"][chosen].tolist() == [1.335, 1.582, 1.645, 1.704, 1.609, 1.504, 1.377]
    assert np.isnan(found["error"][theirs]).all()


def test_arms_side_by_side_leave_the_reference_out():
    table = improvement_of(["memento", "daily", "committee"], predictors=("own", "oracle"))
    found = dots("table-matchmaker", table)
    ours = found["label"][found["origin"] == "ours"].tolist()
    assert ours[::2] == ["committee", "committee, oracle", "memento", "memento, oracle"]
    theirs = found["label"][found["origin"] == "paper"].tolist()
    assert set(theirs) == {"memento", "memento, oracle", "forgetting"}


def test_arms_without_a_common_day_are_not_drawn():
    table = improvement_of(["memento", "memento-h=1", "memento-h=10"])
    table["days"][2] = 0
    found = sweep("table-bandwidth", table)
    assert found["x"][(found["origin"] == "ours") & (found["score"] == "tail")].tolist() == [
        0.1,
        1.0,
    ]


def test_seconds_of_inserts_are_put_together_over_periods():
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 1, 8), rng.normal(5, 2, 5)]
    table = {
        "arm": ["memento"] * 2 + ["memento-batch=half", "daily"],
        "days": [8, 5, 0, 4],
        "mean": [p.mean() for p in parts] + [math.nan, 1.0],
        "std": [p.std(ddof=1) for p in parts] + [math.nan, 1.0],
    }
    found = inserts(table)
    assert found["arm"].tolist() == ["memento"]
    whole = np.concatenate(parts)
    assert found["mean"][0] == pytest.approx(whole.mean())
    assert found["std"][0] == pytest.approx(whole.std(ddof=1))
    assert (found["paper mean"][0], found["paper std"][0]) == (57.2, 42.8)


def test_trainings_are_counted():
    table = {
        "arm": ["memento-loss=0.1"] * 4 + ["memento-never"] * 4,
        "trained": [True, False, True, False] + [False] * 4,
    }
    found = trainings(table)
    assert found["arm"].tolist() == ["memento-loss=0.1", "memento-never"]
    assert found["trainings"].tolist() == [2, 0]
    assert found["each"][0] == 2
    assert math.isnan(found["each"][1])
    assert found["paper trainings"][0] == 5.5
    assert (found["paper trainings_low"][0], found["paper trainings_high"][0]) == (5, 6)


def levels():
    rows = [
        (arm, predictor, day, metric, -float(i))
        for i, (arm, predictor, day, metric) in enumerate(
            (a, p, d, m)
            for a in ("memento", "random")
            for p in ("own", "oracle", "static")
            for d in ("2024-01-01", "2024-01-02")
            for m in ("q0.01", "q0.5", "mean")
        )
    ]
    names = ("arm", "predictor", "day", "metric", "value")
    return {n: np.array([row[i] for row in rows]) for i, n in enumerate(names)}


def test_losses_are_minus_the_tail():
    found = losses(levels(), {"memento": ("oracle", "static")})
    assert list(dict.fromkeys(found["label"].tolist())) == [
        "memento", "memento, oracle", "static", "random",
    ]  # fmt: skip
    assert found["value"][:2].tolist() == [0.0, 3.0]


def test_daily_values_by_arm_and_score():
    found = daily({**levels(), "period": np.array(["p"] * 36)})
    assert found["memento", "own", "median"] == {"p 2024-01-01": -1.0, "p 2024-01-02": -4.0}
    assert found["memento", "own", "mean"]["p 2024-01-02"] == -5.0


def test_selection_is_grouped_by_density():
    n = 40
    density = np.random.default_rng(3).permutation(n) / n
    table = {
        "policy": ["a"] * n + ["b"] * n,
        "batch": [*range(n)] * 2,
        "density": [*density] * 2,
        "loss_before": [*(1 - density)] * 2,
        "kept": [*(density < 0.25).astype(float), *np.full(n, 0.5)],
        "loss_after": [*(2 - density)] * 2,
    }
    found = selected(table, groups=4)
    assert found["policy"].tolist() == ["a"] * 4 + ["b"] * 4
    np.testing.assert_allclose(found["rank"][:4], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(found["kept"], [1, 0, 0, 0] + [0.5] * 4)
    np.testing.assert_allclose(found["change"], 1.0)
    assert (np.diff(found["density"][:4]) > 0).all()
    assert len(selected(table, groups=100)["rank"]) == 2 * n


def test_records_of_variants_that_nobody_published():
    days = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "datetime64[D]")
    table = {
        "variant": np.array(["own"] * 3), "horizon": np.zeros(3, int), "day": days[::-1],
        "retrained": np.array([False, True, True]), "coverage_increase": np.array([0.1, 0.3, 1.0]),
        "total_coverage": np.array([9.0, 8.0, 7.0]),
    }  # fmt: skip
    found = records(table, first="2024-01-02", since="2024-01-02")
    assert (found["days"][0], found["retrained"][0]) == (2, 1)
    assert (found["median"][0], found["largest"][0]) == (pytest.approx(0.2), 0.3)
    assert found["total_coverage"][0] == 9.0  # of the last day
    assert math.isnan(found["paper median"][0])
    assert math.isnan(records(table, first="2025-01-01")["p10"][0])


def test_a_missing_column_is_named():
    table = improvement_of(["memento"])
    del table["tail_error"]
    with pytest.raises(SchemaError, match="'tail_error'"):
        sweep("table-jtt", table)
    with pytest.raises(SchemaError, match="'kept'"):
        selected({"policy": [], "density": [], "loss_before": [], "loss_after": []})
