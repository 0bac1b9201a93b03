"""Why samples are held: every column beside an oracle of plain loops."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

import naive
from memento import (
    FIFO,
    DensityReservoir,
    JensenShannon,
    LossReservoir,
    Memento,
    Memory,
    Reservoir,
)
from memento.errors import RowError
from memento.printing import Table

CLASSES = 4
LABELS = JensenShannon.of_labels("y", CLASSES)
VALUES = JensenShannon.of_values("v", support=np.linspace(-4, 4, 32))


def fill(policy, capacity=60, units=3, rows=50, **settings):
    """A memory after some units with names, in which label 3 is rare."""
    memory = Memory(capacity, policy, seed=1, **settings)
    rng = np.random.default_rng(5)
    for unit in range(units):
        y = rng.choice(CLASSES, rows, p=[0.6, 0.3, 0.08, 0.02])
        data = {"y": y, "v": rng.normal(size=rows), "loss": rng.random(rows)}
        memory.insert_unit(f"day {unit}", data)
    return memory


def cells_of(y, size):
    """Rows of cells of labels alone: labels apart, sizes as equal as can be."""
    cells = []
    for label in range(CLASSES):
        rows = np.flatnonzero(y == label)
        if len(rows):
            cells += np.array_split(rows, naive.even_count(len(rows), size))
    return cells


def distances(y, cells):
    summaries = [naive.frequencies(y[rows], CLASSES) for rows in cells]
    return naive.matrix(summaries, summaries, naive.jensen_shannon)


@pytest.mark.parametrize("temperature", [0.0, 0.05, np.inf])
def test_memento(temperature):
    memory = fill(Memento([LABELS], batch_size=5, temperature=temperature))
    found = memory.why()
    y = memory.samples["y"]
    cells = cells_of(y, 5)
    density = naive.density([distances(y, cells)])
    chance = naive.discard_probabilities(density, temperature)
    assert found["row"].tolist() == list(range(60))
    assert found["insert"].tolist() == memory.arrivals.tolist()
    assert found["age"].tolist() == [3 - i for i in memory.arrivals]
    assert found["unit"].tolist() == [f"day {i - 1}" for i in memory.arrivals]
    whole = np.empty(60)
    for cell, rows in enumerate(cells):
        whole[rows] = density[cell]
        assert found["cell"][rows].tolist() == [cell] * len(rows)
        assert found["cell_size"][rows].tolist() == [len(rows)] * len(rows)
        assert found["chance"][rows] == pytest.approx(chance[cell], abs=1e-12)
    assert found["density"] == pytest.approx(whole)
    denser = [sum(other > mine + 1e-12 for other in whole) / 60 for mine in whole]
    assert found["denser"] == pytest.approx(denser)
    assert "weight" not in found
    assert "Memento keeps no count of what it discards" in found.note


def test_the_default_temperature_is_that_of_the_discards():
    memory = fill(Memento([LABELS], batch_size=5))
    found, y = memory.why(), memory.samples["y"]
    d = distances(y, cells := cells_of(y, 5))
    cold = min(0.01, 0.1 * float(np.mean(naive.leave_one_out([d]))))
    chance = naive.discard_probabilities(naive.density([d]), cold)
    for cell, rows in enumerate(cells):
        assert found["chance"][rows] == pytest.approx(chance[cell], abs=1e-9)


def test_density_reservoir():
    memory = fill(DensityReservoir([LABELS], batch_size=5, uniform=0.3))
    found, y, stands = memory.why(), memory.samples["y"], memory.weights
    assert found["weight"] == pytest.approx(stands)
    assert found["stands_for"] == pytest.approx(stands)
    d = distances(y, cells := cells_of(y, 5))
    counts = [sum(stands[row] for row in rows) for rows in cells]
    for cell, rows in enumerate(cells):
        others = [j for j in range(len(cells)) if j != cell]
        near = sum(counts[j] * np.exp(-((d[cell, j] / 0.1) ** 2) / 2) for j in others)
        density = naive.PEAK * near / sum(counts[j] for j in others)
        assert found["density"][rows] == pytest.approx(density, rel=1e-9, abs=1e-12)
    assert "chance" not in found
    drawn = np.exp(memory.state.marks["log_weight"])
    assert found["favoured"] == pytest.approx(drawn)
    assert found["favoured"][y == 3].min() > found["favoured"][y == 0].max()


def test_a_half_life_and_an_exponent():
    policy = DensityReservoir([LABELS], batch_size=5, half_life=1.0, exponent=0.5)
    found = fill(policy).why()
    assert found["weight"] == pytest.approx(found["stands_for"] ** 0.5)
    assert 0.5 < np.median(found["favoured"]) < 2, "the age is not part of it"


def test_densities_that_are_given():
    memory = Memory(20, DensityReservoir(density="rho"))
    memory.insert(rho=np.linspace(0.01, 0.3, 50))
    found = memory.why()
    assert found["density"].tolist() == memory.samples["rho"].tolist()
    assert "cell" not in found
    assert "'rho'" in found.note


@pytest.mark.parametrize(
    ("policy", "columns", "words"),
    [
        (FIFO(), {"row", "insert", "age", "unit"}, "FIFO compares no densities"),
        (Reservoir(), {"row", "insert", "age", "unit", "weight"}, "Reservoir compares no"),
        (
            LossReservoir(),
            {"row", "insert", "age", "unit", "stands_for", "weight", "favoured"},
            "LossReservoir compares no",
        ),
    ],
)
def test_what_other_policies_can_say(policy, columns, words):
    found = fill(policy).why()
    assert set(found) == columns
    assert words in found.note


def test_rows():
    memory = fill(Memento([LABELS, VALUES], batch_size=5))
    whole = memory.why()
    mask = np.arange(60) % 7 == 0
    for rows, wanted in (
        (3, [3]),
        ([-1, 2, 2], [59, 2, 2]),
        (slice(50, None), list(range(50, 60))),
        (mask, np.flatnonzero(mask).tolist()),
        ([], []),
        (np.int64(4), [4]),
    ):
        found = memory.why(rows)
        assert found["row"].tolist() == wanted
        for name in whole:
            assert np.array_equal(found[name], whole[name][wanted]), name
    for wrong in (60, [-61], "a", [0.5], [[1]], [True], {"a": 1}):
        with pytest.raises(RowError):
            memory.why(wrong)


def test_nothing_is_changed():
    memory = fill(Memento([LABELS], batch_size=5))
    before = memory.dump()
    memory.why()["insert"][:] = -1
    after = memory.dump()
    assert before[1] == after[1]
    assert all(np.array_equal(before[0][name], after[0][name]) for name in before[0])


def test_samples_that_wait_for_a_label():
    for policy in (Memento([LABELS], batch_size=5), DensityReservoir([LABELS], batch_size=5)):
        memory = Memory(40, policy)
        y = np.arange(60) % CLASSES * 1.0
        memory.insert(id=np.arange(60), y=np.where(np.arange(60) % 3 == 0, np.nan, y))
        found = memory.why()
        unlabelled = np.isnan(memory.samples["y"])
        assert unlabelled.any()
        assert ((found["cell"] == -1) == unlabelled).all()
        assert (np.isnan(found["density"]) == unlabelled).all()
        assert (found["cell_size"][unlabelled] == 0).all()
        if "waiting" in found:
            assert found["waiting"].tolist() == memory.waiting.tolist()


def test_columns_that_are_not_there_yet():
    memory = Memory(10, Memento([JensenShannon.of_probabilities("yhat")], missing="skip"))
    memory.insert(y=[0, 1] * 20)
    found = memory.why()
    assert "density" not in found
    assert "not there yet" in found.note
    empty = Memory(10, Memento([LABELS]))
    assert empty.why().size == 0
    with pytest.raises(RowError):
        empty.why(0)


def test_a_saved_memory_says_the_same(tmp_path):
    memory = fill(DensityReservoir([LABELS], batch_size=5))
    memory.save(tmp_path / "m")
    for mapped in (False, True):
        found = Memory.load(tmp_path / "m", mapped=mapped).why()
        for name, column in memory.why().items():
            assert np.array_equal(found[name], column), name


def test_the_page_is_right():
    page = Path(__file__).parents[1] / "docs" / "explain.md"
    if not page.exists():
        pytest.skip("needs the whole checkout")
    text = page.read_text(encoding="utf-8").replace("```", "\n```")
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    failed, tried = doctest.DocTestRunner().run(test)
    assert (failed, tried > 10) == (0, True)


def test_as_a_table():
    table = Table({"row": np.arange(50), "x": np.full(50, np.nan), "k": np.ones((50, 2))}, "Note.")
    text = str(table).splitlines()
    assert len(text) == 1 + 20 + 1 + 1
    assert text[11] == "... 30 more ..."
    assert text[1].split() == ["0", "-", "1", "1"]
    assert text[-1] == "Note."
    assert table.head(2).size == 2
    assert str(Table({})) == ""
