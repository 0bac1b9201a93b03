"""Which cells make a rise: their parts add up to it, beside an oracle of plain loops."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

import naive
from memento import (
    CoverageIncrease,
    JensenShannon,
    Memento,
    Memory,
    Minkowski,
    Samples,
    SampleSpace,
    coverage_increase,
)
from memento.attribution import CELL_COLUMNS, _headings
from memento.errors import SettingError

CLASSES, SIZE = 5, 8
DISTANCES = (JensenShannon.of_labels("y", CLASSES), JensenShannon.of_probabilities("p"))


def stream(rows, seed, new=0.0):
    """Labels 0 to 3 and predictions around them; a share is of label 4."""
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(rows) < new, 4, rng.integers(4, size=rows))
    p = rng.gamma(0.05 + 5 * np.exp(-0.5 * (np.arange(CLASSES) - y[:, None]) ** 2))
    return Samples(y=y, p=p / p.sum(axis=1, keepdims=True))


def key(samples, row):
    """What a sample is sorted by."""
    p = samples["p"][row]
    return int(samples["y"][row]), int(p.argmax()), -float(p.max())


def cells_of(samples):
    """Rows of each cell: sorted, labels apart, sizes as equal as can be."""
    order = sorted(range(samples.size), key=lambda row: key(samples, row))
    cells = []
    for label in range(CLASSES):
        rows = [row for row in order if samples["y"][row] == label]
        count = naive.even_count(len(rows), SIZE) if rows else 0
        for i in range(count):
            length = len(rows) // count + (i < len(rows) % count)
            start = sum(len(rows) // count + (j < len(rows) % count) for j in range(i))
            cells.append(rows[start : start + length])
    return cells


def densities(now, before, estimator):
    """Of each cell among all of its own and among those of the reference."""
    mine, theirs = cells_of(now), cells_of(before)
    own, cross = [], []
    for distance in range(2):

        def summary(samples, rows, distance=distance):
            if distance == 0:
                return naive.frequencies(samples["y"][rows], CLASSES)
            return naive.mixture(samples["p"][rows])

        a = [summary(now, rows) for rows in mine]
        b = [summary(before, rows) for rows in theirs]
        own.append(naive.matrix(a, a, naive.jensen_shannon))
        cross.append(naive.matrix(a, b, naive.jensen_shannon))
    among = naive.leave_one_out(own) if estimator == "calibrated" else naive.density(own)
    reference = np.min([naive.kernel(d).mean(axis=1) * naive.PEAK for d in cross], axis=0)
    return mine, np.array(among), reference


def counted(now, before, mine):
    """How many of the reference lie in each cell, sample by sample."""
    counts = [0] * len(mine)
    firsts = [key(now, rows[0]) for rows in mine]
    lasts = [key(now, rows[-1]) for rows in mine]
    for row in range(before.size):
        at = key(before, row)
        for i in range(len(mine)):
            if firsts[i] <= at <= lasts[i]:
                counts[i] += 1
                break
        else:  # between two cells
            earlier = [i for i in range(len(mine)) if lasts[i] < at]
            later = [i for i in range(len(mine)) if firsts[i] > at]
            if earlier and lasts[earlier[-1]][0] == at[0]:
                counts[earlier[-1]] += 1
            elif later and firsts[later[0]][0] == at[0]:
                counts[later[0]] += 1
    return counts


@pytest.mark.parametrize("estimator", ["calibrated", "plain"])
@pytest.mark.parametrize(("seed", "new"), [(1, 0.0), (2, 0.2)])
def test_every_column_is_the_oracle_s(estimator, seed, new):
    now, before = stream(150, seed, new), stream(170, seed + 10)
    space = SampleSpace(DISTANCES, SIZE)
    rise = coverage_increase(now, before, space, estimator=estimator, permutations=0)
    found = rise.attribution
    mine, own, reference = densities(now, before, estimator)
    part = np.maximum(0, own - reference) / own.sum()
    cell = found["cell"]
    assert sorted(cell) == list(range(len(mine)))
    assert found["rise"] == pytest.approx(part[cell], abs=1e-12)
    assert (np.diff(found["rise"]) <= 0).all()
    assert found["rise"].sum() == pytest.approx(float(rise), abs=1e-12)
    assert found["share"].sum() == pytest.approx(1)
    assert found["density"] == pytest.approx(own[cell])
    assert found["density_before"] == pytest.approx(reference[cell])
    assert found["samples"].tolist() == [len(mine[c]) for c in cell]
    assert found["reference"].tolist() == [counted(now, before, mine)[c] for c in cell]
    for i, c in enumerate(cell):
        labels, means = now["y"][mine[c]], now["p"][mine[c]].mean(axis=0)
        assert {found["y"][i]} == set(labels)
        assert found["p"][i] == means.argmax()
        assert found["p_mean"][i] == pytest.approx(means.max())
        assert set(found["rows"][i]) <= set(mine[c])
    if new:
        assert found["y"][0] == 4
        assert found["reference"][found["y"] == 4].sum() == 0
        assert found["share"][found["y"] == 4].sum() > 0.5


def test_values_have_a_median():
    rng = np.random.default_rng(0)
    space = SampleSpace([JensenShannon.of_values("v", support=np.linspace(-3, 9, 64))], 20)
    now = np.concatenate([rng.normal(size=200), rng.normal(6, 0.5, size=60)])
    found = coverage_increase({"v": now}, {"v": rng.normal(size=200)}, space).attribution
    assert 5 < found["v"][0] < 7
    assert found["samples"].sum() == 260
    assert found["reference"].sum() == 200, "without labels every sample lies in a cell"


def test_features_that_are_no_probabilities_have_no_typical_value():
    rng = np.random.default_rng(0)
    space = SampleSpace([Minkowski("z")], 8, bandwidth=1.0, sort_by=["z"])
    now, before = ({"z": rng.normal(shift, size=(64, 3))} for shift in (2, 0))
    found = coverage_increase(now, before, space, permutations=0).attribution
    assert not {"z", "z_mean"} & set(found)
    assert found["share"].sum() == pytest.approx(1)


def test_equal_samples_lie_where_chance_puts_them():
    """In two cells of one label and 400 equal samples: each half, within 5 standard errors."""
    space = SampleSpace([JensenShannon.of_labels("y", 2)], batch_size=100)
    found = coverage_increase({"y": [1] * 200}, {"y": [1] * 400}, space, rng=3).attribution
    assert found["reference"].sum() == 400
    assert abs(found["reference"] - 200).max() < 5 * (400 * 0.25 * 3) ** 0.5


def test_without_a_reference_everything_is_new():
    space, now = SampleSpace(DISTANCES, SIZE), stream(60, 3)
    for nothing in (None, Samples()):
        found = coverage_increase(now, nothing, space).attribution
        assert found["rise"].sum() == pytest.approx(1)
        assert found["reference"].sum() == 0
    assert coverage_increase(Samples(), now, space).attribution.size == 0


def test_less_than_a_cell_and_what_fills_none():
    space = SampleSpace(DISTANCES, 100, remainder="drop")
    rise = coverage_increase(stream(30, 1, 0.5), stream(230, 2), space, permutations=0)
    assert rise.attribution["samples"].tolist() == [30]
    rise = coverage_increase(stream(230, 1, 0.5), stream(30, 2), space, permutations=0)
    assert rise.attribution["samples"].tolist() == [100, 100]
    assert rise.attribution["rise"].sum() == pytest.approx(float(rise))


def test_groups_are_kept_apart():
    now, before = stream(90, 1).with_columns({"g": np.arange(90) % 3}), stream(60, 2)
    before = before.with_columns({"g": np.arange(60) % 2})
    space = SampleSpace(DISTANCES[:1], SIZE, group_by="g")
    found = coverage_increase(now, before, space, permutations=0).attribution
    groups = now["g"][found["rows"]]
    assert (groups == groups[:, :1]).all()
    assert found["reference"][groups[:, 0] == 2].sum() == 0
    assert found["reference"].sum() > 50


def test_of_a_memory_and_its_reference():
    memory = Memory(100, Memento(DISTANCES))
    memory.insert(stream(300, 1))
    memory.mark_trained()
    memory.insert(stream(300, 2, new=0.1))
    rise = coverage_increase(memory.samples, memory.reference, memory.policy)
    before = rise.attribution["rows"].copy()
    assert (memory.samples["y"][before[rise.attribution["y"] == 4]] == 4).all()
    memory.insert(stream(300, 3))
    assert (rise.attribution["rows"] == before).all(), "of what was held when it was asked"


@pytest.mark.parametrize("name", CELL_COLUMNS)
def test_columns_that_are_called_as_ours_replace_none(name):
    rng = np.random.default_rng(0)
    now, before = rng.integers(3, size=200), rng.integers(2, size=200)
    distance = JensenShannon.of_labels

    def found(column):
        space = SampleSpace([distance(column, 3)], SIZE)
        return coverage_increase({column: now}, {column: before}, space, rng=0).attribution

    plain, taken = found("y"), found(name)
    assert list(taken) == [f"{name} (value)" if column == "y" else column for column in plain]
    for mine, theirs in zip(plain.values(), taken.values(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_mean_replaces_no_column():
    now, before = (
        stream(100, seed).with_columns({"p_mean": np.full(100, seed)}) for seed in (1, 2)
    )
    distances = [*DISTANCES, JensenShannon.of_labels("p_mean", 3)]
    found = coverage_increase(now, before, SampleSpace(distances, SIZE)).attribution
    assert set(found["p_mean (value)"]) == {1}
    assert (found["p_mean"] < 1).all()


def test_headings_are_distinct():
    names = ["p", "p_mean", "share (value)_mean", "share", "share (value)", "p_mean (value)_mean"]
    for order in itertools.permutations(names):
        headings = list(_headings(order).values())
        every = {*CELL_COLUMNS, *headings, *(f"{heading}_mean" for heading in headings)}
        assert len(every) == len(CELL_COLUMNS) + 2 * len(names)


def test_the_samples_are_not_pickled():
    now = stream(40, 1)
    rise = coverage_increase(now, stream(40, 2), SampleSpace(DISTANCES, SIZE), permutations=3)
    again = pickle.loads(pickle.dumps(rise))  # noqa: S301 - our own
    assert (float(again), again.p_value, again.noise) == (float(rise), rise.p_value, rise.noise)
    for lost in (again, CoverageIncrease(0.1)):
        with pytest.raises(SettingError, match="not at hand; ask what coverage_increase returned"):
            lost.attribution  # noqa: B018
