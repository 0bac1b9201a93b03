"""Columns that come later, labels that come late, and what waits for them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from memento import (
    FIFO,
    ClassBalancedReservoir,
    DensityReservoir,
    Group,
    JensenShannon,
    LossAwareReservoir,
    Memento,
    Memory,
    Reservoir,
)
from memento.errors import DomainError, InputError, SchemaError, SettingError

LABELS = JensenShannon.of_labels("y", classes=3)
OUTPUTS = JensenShannon.of_probabilities("yhat")


def space(*distances, **settings):
    settings = {"batch_size": 16, "sort_by": ["y", "yhat"], "missing": "skip", **settings}
    return Memento(list(distances or (OUTPUTS, LABELS)), **settings)


def day(number, size=300, classes=2, **columns):
    rng = np.random.default_rng(number)
    y = rng.integers(0, classes, size)
    ids = np.arange(size) + number * size
    return {"id": ids, "x": rng.normal(size=(size, 2)), "y": y, **columns}


def outputs(size=300, classes=2):
    return np.full((size, classes), 1 / classes)


def without(samples, *names):
    return {name: values for name, values in samples.items() if name not in names}


# --- columns that come later


def test_predictions_that_come_on_the_second_day_are_used_once_all_have_them():
    memory = Memory(128, space())
    memory.insert(without(day(0), "id"))
    assert "yhat" not in memory.samples
    memory.insert(without(day(1, yhat=outputs()), "id"))
    held = memory.samples["yhat"]
    lacking = np.isnan(held).all(axis=1)
    assert 0 < lacking.sum() < len(memory), "rows of the first day are held, not annotated"
    memory.annotate(yhat=outputs(len(memory)))
    report = memory.insert(without(day(2, yhat=outputs()), "id"))
    assert report.kept > 0
    assert np.isfinite(memory.samples["yhat"]).all()


def test_a_column_that_is_left_out_is_told_once():
    memory = Memory(128, space(missing="warn", sort_by=["y"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        memory.insert(without(day(0), "id"))
    with pytest.warns(UserWarning) as found:  # noqa: PT030 - also those of the distances
        memory.insert(without(day(1, yhat=outputs()), "id"))
    (one,) = [one for one in found if "memory.annotate(yhat=...)" in str(one.message)]
    assert one.filename == __file__
    with warnings.catch_warnings(record=True) as again:
        warnings.simplefilter("always")
        memory.insert(without(day(2, yhat=outputs()), "id"))
    assert not any("memory.annotate(yhat=...)" in str(one.message) for one in again)


@pytest.mark.parametrize("late", [[0.5, 1.5], ["a", "b"], np.array(["2026-01-01"] * 2, "M8[s]")])
def test_columns_that_nobody_reads_may_come_later(late):
    memory = Memory(10, FIFO())
    memory.insert(x=[[0.0], [1.0]])
    memory.insert(x=[[2.0], [3.0]], note=late)
    assert memory.samples["note"][2:].tolist() == np.asarray(late).tolist()


def test_whole_numbers_that_come_later_are_whole_once_none_is_missing():
    memory = Memory(4, FIFO())
    memory.insert(x=[0.0, 1.0])
    memory.insert(x=[2.0, 3.0], n=[2, 3])
    np.testing.assert_array_equal(memory.samples["n"], [np.nan, np.nan, 2, 3])
    memory.insert(x=[4.0, 5.0], n=[4, 5])
    assert memory.samples["n"].dtype == np.int64
    assert memory.samples["n"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("late", "message"),
    [([2**60, 2**60 + 1], "as text"), (np.zeros(2, "i8,f4"), "cannot be missing")],
)
def test_columns_that_have_no_mark_for_what_is_missing(late, message):
    memory = Memory(10, FIFO())
    memory.insert(x=[0.0, 1.0])
    if "text" in message:  # whole numbers beside missing ones would change
        memory.insert(x=[0.0, 1.0], n=[1, 2])
    before = len(memory)
    with pytest.raises(SchemaError, match=message):
        memory.insert(x=[2.0, 3.0], n=late)
    assert len(memory) == before


def test_a_column_that_no_policy_reads_has_to_come_again():
    memory = Memory(10, Reservoir())
    memory.insert(x=[0.0, 1.0], z=[1, 2])
    with pytest.raises(SchemaError, match="missing z; unknown zz"):
        memory.insert(x=[0.0, 1.0], zz=[1, 2])


def test_an_id_cannot_come_later_by_insert():
    memory = Memory(10, Reservoir())
    memory.insert(x=[0.0, 1.0])
    with pytest.raises(SchemaError, match=r"memory.annotate\(id=...\)"):
        memory.insert(x=[0.0, 1.0], id=[1, 2])
    memory.annotate(id=[5, 6])
    memory.insert(x=[0.0, 1.0], id=[1, 2])
    assert memory.samples["id"].tolist() == [5, 6, 1, 2]


def test_predictions_with_a_new_class_widen_those_held():
    memory = Memory(256, space())
    memory.insert(day(0, yhat=outputs()))
    memory.insert(day(1, yhat=outputs(classes=3)))
    held = memory.samples["yhat"]
    assert held.shape == (len(memory), 3)
    np.testing.assert_allclose(held.sum(axis=1), 1)
    memory.insert(day(2, yhat=outputs()))  # of an older model
    assert memory.samples["yhat"].shape[1] == 3
    with pytest.raises(SchemaError, match=r"memory.annotate\(x=...\)"):
        memory.insert(day(3, yhat=outputs()) | {"x": np.zeros((300, 3))})


# --- late labels


POLICIES = {
    "memento": space(),
    "memento, remainder": space(remainder="keep"),
    "density reservoir": DensityReservoir([OUTPUTS, LABELS], batch_size=16, missing="skip"),
    "class balanced": ClassBalancedReservoir(),
    "loss aware": LossAwareReservoir(missing="equal"),
    "reservoir": Reservoir(),
    "values": Memento([JensenShannon.of_values("y")], batch_size=16, sort_by=["y"]),
}


def late(number, how="nan", size=300):
    samples = day(number, size, yhat=outputs(size))
    if how == "absent":
        return without(samples, "y")
    blank = np.full(size, np.nan) if how == "nan" else np.full(size, "")
    return {**samples, "y": blank}


@pytest.mark.parametrize("how", ["nan", "absent"])
@pytest.mark.parametrize("name", POLICIES)
def test_labels_that_come_two_days_late(name, how, tmp_path):
    """By every policy, also after saving and loading; the same as without."""
    memory, saved = Memory(200, POLICIES[name], seed=3), Memory(200, POLICIES[name], seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(8):
            memory.insert(late(number, how))
            saved.insert(late(number, how))
            saved.save(tmp_path / name)
            saved = Memory.load(tmp_path / name)
            if number >= 2:
                known = day(number - 2)
                found = memory.label(known["id"], y=known["y"])
                assert found == np.isin(memory.samples["id"], known["id"]).sum()
                assert saved.label(known["id"], y=known["y"]) == found
            assert len(memory) <= 200
            held = memory.samples
            known = ~np.isnan(held["y"].astype(float)) if "y" in held else np.zeros(len(memory))
            if "y" in held:
                expected = np.concatenate([day(n)["y"] for n in range(8)])[held["id"]]
                rows = known.astype(bool)
                np.testing.assert_array_equal(held["y"][rows], expected[rows])
    assert known.sum() > 30, "what has a label is held as well"
    assert (~known.astype(bool)).sum() > 20, "what waits for one is held as well"
    for column in memory.samples:
        np.testing.assert_array_equal(memory.samples[column], saved.samples[column])
    weights = memory.weights
    assert weights is None or (weights.shape == (len(memory),) and (weights > 0).all())


def test_integers_stay_integers_once_all_labels_are_known():
    memory = Memory(1000, space())
    memory.insert(day(0, yhat=outputs()))
    assert memory.samples["y"].dtype == np.int64
    memory.insert(late(1))
    assert memory.samples["y"].dtype == np.float64
    assert memory.label(day(1)["id"], y=day(1)["y"]) == 300
    assert memory.samples["y"].dtype == np.int64
    np.testing.assert_array_equal(memory.samples["y"], np.concatenate([day(0)["y"], day(1)["y"]]))


@pytest.mark.parametrize("policy", [ClassBalancedReservoir(), space(batch_size=2)], ids=repr)
def test_labels_that_are_floats_only_as_some_are_missing(policy):
    memory = Memory(10, policy)
    memory.insert(id=[1, 2, 3], y=[0.0, np.nan, 1.0], yhat=outputs(3))
    assert memory.label([2], y=[1.0]) == 1
    assert memory.samples["y"].tolist() == [0, 1, 1]
    assert memory.samples["y"].dtype == np.int64


def test_labels_that_are_none():
    memory = Memory(10, space(batch_size=2))
    memory.insert(id=[1, 2, 3], y=[None, 1, 0], yhat=outputs(3))
    assert memory.label([1, 2], y=[1, None]) == 2
    assert memory.samples["y"].tolist() == [1, 1, 0]
    words = Memory(10, Reservoir())
    words.insert(id=["a", "b"], y=[None, "fraud"])
    assert words.samples["y"].tolist() == ["", "fraud"]
    with pytest.raises(SchemaError, match="missing"):
        Memory(10, Reservoir()).insert(x=[1.0, 2.0], y=[None, 1])


@pytest.mark.parametrize("wrong", ["", 3, None])
def test_what_names_no_column_of_ids(wrong):
    with pytest.raises(SettingError, match=r"ids is .*; expected the name of a column"):
        Memory(10, Reservoir(), ids=wrong)


def test_ids_of_text_and_labels_of_text():
    memory = Memory(10, Reservoir(), ids="key")
    memory.insert(key=["a", "b", "c"], y=["", "", ""])
    assert memory.label(["c", "zz"], y=["fraud", "fine"]) == 1
    assert memory.samples["y"].tolist() == ["", "", "fraud"]
    assert memory.label(["a", "c"], y=["", "fine"]) == 2
    assert memory.samples["y"].tolist() == ["", "", "fine"], "labelled twice: the last counts"


def test_labels_of_text_where_numbers_were_missing():
    memory = Memory(10, Reservoir())
    memory.insert(id=[1, 2], y=[np.nan, np.nan])
    assert memory.label([2], y=["fraud"]) == 1
    assert memory.samples["y"].tolist() == ["", "fraud"]


def test_several_columns_at_once():
    memory = Memory(10, Reservoir())
    memory.insert(id=[1, 2], y=[np.nan, np.nan], z=[np.nan, 0.5])
    assert memory.label([1, 2], {"y": [1, 0], "z": [2.5, np.nan]}) == 2
    assert memory.samples["y"].tolist() == [1, 0]
    assert memory.samples["z"].tolist() == [2.5, 0.5]


@pytest.mark.parametrize(
    ("ids", "labels", "error", "message"),
    [
        ([1, 1], {"y": [0, 1]}, DomainError, "id 1 is given twice"),
        ([1, 2], {"y": [0]}, SchemaError, "1 rows of labels for 2 ids"),
        ([1, 2], {}, SchemaError, "one label an id"),
        ([1.5, 2], {"y": [0, 1]}, SchemaError, "one integer or one text"),
        (["a", "b"], {"y": [0, 1]}, SchemaError, "one integer or one text"),
        ([1, 2], {"yy": [0, 1]}, SchemaError, "unknown column 'yy'"),
        ([1, 2], {"id": [3, 4]}, SchemaError, "stays as it is"),
        ([1, 2], {"y": ["a", "b"]}, SchemaError, "is of type <U1"),
        ([1, 2], {"y": [0, 7]}, DomainError, "out of range"),
    ],
)
def test_labels_that_are_refused(ids, labels, error, message):
    memory = Memory(10, space(batch_size=4))
    memory.insert(id=[1, 2, 3], y=[np.nan, np.nan, 1.0], yhat=outputs(3))
    with pytest.raises(error, match=message):
        memory.label(ids, labels)
    np.testing.assert_array_equal(memory.samples["y"], [np.nan, np.nan, 1.0])


def test_labels_without_ids():
    memory = Memory(10, Reservoir())
    assert memory.label([1], y=[0]) == 0, "nothing is held yet"
    memory.insert(x=[0.0, 1.0])
    with pytest.raises(SchemaError, match="no column 'id'"):
        memory.label([1], y=[0])
    strict = Memory(10, Memento([JensenShannon.of_values("y")], batch_size=2, sort_by=["y"]))
    with pytest.raises(InputError):
        strict.insert(y=[np.nan, 1.0])


def test_ids_of_other_integer_types():
    memory = Memory(10, Reservoir())
    memory.insert(id=np.array([1, 2**62 + 1], np.int64), y=[np.nan, np.nan])
    ids = np.array([2**63 + 5, 2**62 + 1, 2**62], np.uint64)
    assert memory.label(ids, y=[0, 1, 0]) == 1
    np.testing.assert_array_equal(memory.samples["y"], [np.nan, 1])


def test_those_that_wait_are_neutral_to_age():
    memory = Memory(400, space(), seed=1)
    for number in range(10):
        memory.insert(late(number))
    assert len(memory) == 400, "nothing else is there, so all places are theirs"
    counts = np.bincount(memory.samples["id"] // 300, minlength=10)
    assert counts.min() > 20
    assert counts.max() < 70


def test_a_fair_share_of_what_is_held_has_a_label_in_the_end():
    """5,000 samples a day, 2,000 places, labels three days late; a class of 0.2 % survives."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(60_000) < 0.002, 2, rng.integers(0, 2, 60_000))
    yhat = rng.dirichlet(np.ones(3), 60_000)
    policy = Memento([OUTPUTS, LABELS], batch_size=32, sort_by=["y", "yhat"], remainder="keep")
    at_once, delayed = Memory(2000, policy), Memory(2000, policy)
    for number in range(12):
        rows = slice(number * 5000, (number + 1) * 5000)
        ids = np.arange(60_000)[rows]
        at_once.insert(id=ids, y=y[rows], yhat=yhat[rows])
        delayed.insert(id=ids, y=np.full(5000, np.nan), yhat=yhat[rows])
        if number >= 3:
            known = ids - 15_000
            delayed.label(known, y=y[known])
    held = delayed.samples["y"]
    assert len(delayed) > 1900
    assert np.isfinite(held).sum() > 900, "half of the places, or more"
    share = (held == 2).sum() / np.isfinite(held).sum()
    assert share > (y == 2).mean() * 5, "rare labels are favoured as with labels at once"
    assert (at_once.samples["y"] == 2).sum() > 20


# --- another policy


def test_a_memory_in_use_takes_another_policy():
    memory = Memory(128, space(JensenShannon.of_labels("y", classes=2), sort_by=["y"]))
    memory.insert(without(day(0), "id"))
    third = without(day(1, classes=3), "id")
    with pytest.raises(DomainError, match="classes=3"):
        memory.insert(third)
    memory.use(space(JensenShannon.of_labels("y", classes=3), sort_by=["y"]))
    memory.insert(third)
    assert 2 in memory.samples["y"]


def test_policies_that_remember_cannot_take_over():
    memory = Memory(10, FIFO())
    memory.insert(y=[0, 1])
    with pytest.raises(SettingError, match="make a new Memory"):
        memory.use(Reservoir())
    with pytest.raises(SettingError, match="expected a Policy"):
        memory.use("fifo")
    with pytest.raises(InputError):
        memory.use(Memento([JensenShannon.of_values("z")], batch_size=2, missing="error"))
    assert isinstance(memory.policy, FIFO)
    Memory(10, FIFO()).use(Reservoir())  # nothing is held yet


# --- a group


def test_a_group_is_labelled_and_annotated_by_columns():
    group = Group({"new": Memory(4, FIFO()), "any": Memory(3, Reservoir())})
    group.insert(id=[1, 2, 3, 4, 5], y=np.full(5, np.nan))
    assert group.label([5, 4, 1, 2, 3], y=[5, 4, 1, 2, 3]) == 4
    np.testing.assert_array_equal(group.samples["y"], group.samples["id"])
    group.annotate(loss=group.samples["id"] * 2.0)
    np.testing.assert_array_equal(group.samples["loss"], group.samples["id"] * 2.0)
    with pytest.raises(SchemaError, match=r"in the order of group\.samples"):
        group.annotate(loss=[1.0])
    with pytest.raises(SchemaError, match=r"in the order of group\.reference"):
        group.annotate_reference(loss=[1.0])
    group.mark_trained()
    group.annotate_reference(loss=np.zeros(7))
    assert group.reference["loss"].tolist() == [0.0] * 7
    assert group.seen == 5
    assert group.inserts == 1
    group.model = "abc"
    assert group.memories["any"].model == group.model == "abc"
