"""What is kept beside a memory: whole clusters, uniformly, and the same after a stop."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memento import Samples
from memento.arrivals import DECIDED, Arrivals, Clusters
from memento.errors import DamagedError, SchemaError, SettingError


def units(count, clusters=20, rows=3, start=0):
    for unit in range(start, start + count):
        cluster = np.repeat(np.arange(clusters) + 1000 * unit, rows)
        yield Samples(x=np.arange(len(cluster)) + 10_000 * unit, c=cluster)


def nothing(samples):
    return samples


def test_every_row_enters_once_but_for_those_that_never_do():
    arrivals, rng = Arrivals(cluster="c"), np.random.default_rng(0)
    entered, offered = [], []
    for unit in units(30):
        offered.append(unit["x"])
        entered += [part["x"] for part in arrivals.arrive(unit, rng)]
    entered = np.concatenate(entered)
    assert len(np.unique(entered)) == len(entered)
    late = np.concatenate(offered[:-1])
    never = np.setdiff1d(late, entered)
    assert len(never) / len(late) == pytest.approx(0.05, abs=0.02)
    np.testing.assert_array_equal(
        np.sort(arrivals.history.samples["x"]), np.setdiff1d(never, arrivals._late["x"])
    )


def test_clusters_are_never_torn():
    arrivals, rng = Arrivals(cluster="c", rows=40), np.random.default_rng(1)
    for number, unit in enumerate(units(12)):
        parts = Samples.concat(arrivals.arrive(unit, rng))
        for samples in (parts, *(c.samples for c in arrivals._parts().values() if c.size)):
            _, counts = np.unique(samples["c"], return_counts=True)
            assert (counts == 3).all()
        assert arrivals.unit.size <= 40
        assert arrivals.reference.size <= 40
        if number == 5:
            arrivals.trained(nothing)


def test_the_reference_is_of_witnesses_then_of_units_since():
    arrivals, rng = Arrivals(cluster="c"), np.random.default_rng(2)
    first, second, third = units(3)
    entering = arrivals.arrive(first, rng)
    arrivals.trained(lambda samples: samples.with_columns(model=np.full(samples.size, 1)))
    witnesses = arrivals.reference.samples
    assert not np.isin(witnesses["x"], entering[0]["x"]).any(), "the model was trained on them"
    assert witnesses.size == 12  # a fifth of 20 clusters of 3 rows
    assert (witnesses["model"] == 1).all()
    arrivals.arrive(second.with_columns(model=np.full(second.size, 1)), rng)
    assert arrivals.reference.samples["x"].tolist() == witnesses["x"].tolist()
    arrivals.arrive(third.with_columns(model=np.full(third.size, 1)), rng)
    assert arrivals.reference.size == witnesses.size + second.size


def test_a_change_that_does_no_harm_renews_the_reference():
    arrivals, rng = Arrivals(cluster="c"), np.random.default_rng(3)
    first, second, third = units(3)
    arrivals.arrive(first, rng)
    arrivals.arrive(second, rng)
    arrivals.renew = True
    arrivals.arrive(third, rng)
    np.testing.assert_array_equal(np.sort(arrivals.reference.samples["x"]), np.sort(second["x"]))
    assert arrivals.renew is False


def test_a_sample_of_clusters_is_uniform():
    """Each of 200 clusters is in a quarter of 400 samples: chi-square at 1e-4 (199 degrees)."""
    rng = np.random.default_rng(4)
    hits = np.zeros(200)
    cluster = np.arange(200)
    for _ in range(400):
        whole = Clusters(Samples(c=cluster), rng.random(200))
        hits[whole.at_most(50).samples["c"]] += 1
    statistic = ((hits - 100) ** 2 / (100 * 0.75)).sum()
    assert statistic < 282


@given(st.integers(2, 30), st.integers(1, 50), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_at_most_takes_whole_clusters_with_the_smallest_keys(count, rows, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, count)
    key = np.repeat(rng.random(count), sizes)
    taken = Clusters(Samples(x=np.arange(len(key))), key).at_most(rows)
    assert set(taken.key) == set(np.unique(key)[: taken.count])
    assert taken.size <= rows or taken.count == 2
    assert taken.count >= min(2, count)


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_stop_changes_nothing(stop):
    def end(stopped):
        arrivals, rng = Arrivals(cluster="c"), np.random.default_rng(5)
        for number, unit in enumerate(units(6)):
            arrivals.arrive(unit, rng)
            if number == 2:
                arrivals.trained(nothing)
            if stopped and number == stop:
                arrays, document = arrivals.dump()
                arrivals = Arrivals.restore(arrays, json.loads(json.dumps(document)))
        return arrivals.dump()

    (arrays, document), (again, document_again) = end(False), end(True)
    assert document == document_again
    assert set(arrays) == set(again)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, again[name])


def decided(arrivals, count=1, **figures):
    for _ in range(count):
        arrivals.arrive(Samples(y=[1, 2, 3]), np.random.default_rng(0))
        numbers = {"value": 1.0, "threshold": 200.0, "p_value": 0.5, "due": False}
        arrivals.decided({**numbers, "figures": figures}, at=7.0 * arrivals.units)


def test_decisions_are_written_down_and_bounded():
    arrivals = Arrivals(witnesses=0.0)
    arrivals.decided({"figures": {}})
    assert not len(arrivals.decisions), "no unit has come"
    decided(arrivals, 510, rise=0.25)
    log = dict(zip(DECIDED, arrivals.decisions.T, strict=True))
    assert log["unit"].tolist() == list(range(11, 511))
    assert log["at"][-1] == 7 * 510
    assert (log["rise"] == 0.25).all()
    assert np.isnan(log["newness"]).all()
    assert arrivals.decisions.nbytes <= 40_000
    arrivals.decided({"due": True, "p_value": 0.01, "figures": {"z_newness": 3}})
    *_, last = arrivals.decisions
    assert len(arrivals.decisions) == 500, "in place of what was decided on this unit before"
    assert dict(zip(DECIDED, last, strict=True))["at"] == 7 * 510, "when it came stays"
    before = arrivals.copy()
    arrivals.trained(nothing)
    assert (arrivals.decisions[:, -1] == [0] * 499 + [1]).all()
    assert not before.decisions[:, -1].any(), "a copy is another"


def test_arrivals_of_before_decisions_were_written_down():
    arrivals = Arrivals()
    decided(arrivals, 2)
    arrays, document = arrivals.dump()
    found = Arrivals.restore(arrays, document)
    np.testing.assert_array_equal(found.decisions, arrivals.decisions)
    del arrays["decisions"]
    old = Arrivals.restore(arrays, document)
    assert old.decisions.shape == (0, len(DECIDED))
    decided(old)
    assert old.decisions[:, 0].tolist() == [3]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(10), np.zeros((1, 9)), np.ones((1, 10), int), np.ones((501, 10)), np.ones((2, 10)),
     np.full((1, 10), 3.0), np.full((1, 10), np.nan), np.zeros((1, 10))],
)  # fmt: skip
def test_decisions_that_are_none(wrong):
    arrivals = Arrivals()
    decided(arrivals, 2)
    arrays, document = arrivals.dump()
    with pytest.raises(DamagedError, match="decisions are"):
        Arrivals.restore({**arrays, "decisions": wrong}, document)


def test_predictions_that_get_wider_start_anew():
    arrivals, rng = Arrivals(), np.random.default_rng(6)
    for width in (2, 3, 3):
        arrivals.arrive(Samples(yhat=np.full((10, width), 1 / width)), rng)
    assert arrivals.reference.samples["yhat"].shape == (10, 3)


def test_few_clusters_are_not_held_back():
    arrivals, rng = Arrivals(cluster="c"), np.random.default_rng(7)
    for unit in units(5, clusters=4):
        (entering,) = arrivals.arrive(unit, rng)
        assert entering.size == unit.size


def test_nothing_to_keep():
    arrivals = Arrivals(witnesses=0.0)
    (entering,) = arrivals.arrive(Samples(y=[1, 2]), np.random.default_rng(0))
    assert entering.size == 2
    assert not arrivals.history.size
    (entering,) = arrivals.arrive(Samples(y=[]), np.random.default_rng(0))
    assert entering.size == 0
    assert arrivals.unit.size == 2, "a unit without samples is none"


def test_a_missing_column_of_clusters():
    with pytest.raises(SchemaError, match="column 'session', which says what belongs together"):
        Arrivals(cluster="session").arrive(Samples(y=[1]), np.random.default_rng(0))
    with pytest.raises(SchemaError, match=r"of shape \(1, 2\); expected one value a sample"):
        Arrivals(cluster="session").arrive(Samples(session=[[1, 2]]), np.random.default_rng(0))


@pytest.mark.parametrize("wrong", [{"witnesses": 1.0}, {"witnesses": -0.1}, {"rows": 1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(SettingError):
        Arrivals(**wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evidence", "x"),
        ("evidence", None),
        ("renew", 1),
        ("units", -1),
        ("witnesses", 2),
        ("rows", {}),
    ],
)
def test_a_document_that_describes_none(name, value):
    arrays, document = Arrivals().dump()
    with pytest.raises((SettingError, DamagedError)):
        Arrivals.restore(arrays, {**document, name: value})
    with pytest.raises(DamagedError, match="incomplete"):
        Arrivals.restore(arrays, {key: v for key, v in document.items() if key != name})
    with pytest.raises(DamagedError, match="keys of unit"):
        Arrivals.restore({**arrays, "unit-key": np.zeros(3)}, document)
