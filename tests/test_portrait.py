"""What a memory looks like: every number beside a plain count."""

from __future__ import annotations

import numpy as np
import pytest

from memento import (
    FIFO,
    DensityReservoir,
    JensenShannon,
    Memento,
    Memory,
    Reservoir,
    Samples,
    coverage_increase,
)
from memento.arrivals import Arrivals
from memento.portrait import holds_memory, portrait

CLASSES = 6
DISTANCES = [JensenShannon.of_labels("y", CLASSES), JensenShannon.of_probabilities("p")]


def stream(seed, rows=600, new=0.0):
    rng = np.random.default_rng(seed)
    y = rng.choice(CLASSES - 1, rows, p=[0.6, 0.25, 0.1, 0.03, 0.02])
    y[rng.random(rows) < new] = CLASSES - 1
    p = rng.gamma(0.05 + 5 * np.exp(-0.5 * (np.arange(CLASSES) - y[:, None]) ** 2))
    return Samples(
        id=seed * 10_000 + np.arange(rows),
        y=y,
        p=p / p.sum(axis=1, keepdims=True),
        v=rng.random(rows),
    )


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    """A memory that was trained once, with something new since, and a copy of before."""
    folder = tmp_path_factory.mktemp("memories")
    memory = Memory(300, Memento(DISTANCES), seed=0)
    recent = Arrivals()
    for day in range(6):
        for part in recent.arrive(stream(day, new=0.1 * (day > 3)), np.random.default_rng(day)):
            memory.insert_unit(f"day {day}", part)
        if day == 3:
            memory.mark_trained()
            memory.save(folder / "before")
    memory.recent = recent
    return memory, Memory.load(folder / "before")


def shares(part, which):
    table = part.table
    return {
        value: share
        for value, name, share in zip(table["value"], table["set"], table["share"], strict=True)
        if name == which
    }


def test_shares_are_counts(memories):
    found = portrait(memories[0])
    assert list(found.kept) == ["y", "p: which"]
    sets = {
        "offered": memories[0].offered.samples["y"],
        "kept": memories[0].samples["y"],
        "at the last training": memories[0].reference["y"],
    }
    for which, column in sets.items():
        expected = {str(label): np.mean(column == label) for label in range(CLASSES)}
        assert shares(found.kept["y"], which) == pytest.approx(expected)
    which = memories[0].samples["p"].argmax(axis=1)
    expected = {str(label): np.mean(which == label) for label in range(CLASSES)}
    assert shares(found.kept["p: which"], "kept") == pytest.approx(expected)


def test_the_sentence_says_what_is_rare(memories):
    part = portrait(memories[0]).kept["y"]
    offered, kept = shares(part, "offered"), shares(part, "kept")
    rare = [value for value in offered if offered[value] <= 0.05]
    for which in (offered, kept):
        assert f"{sum(which[value] for value in rare):.1%}" in part.words
    assert sum(kept[v] for v in rare) > 2 * sum(offered[v] for v in rare), "what the method is for"


def test_intervals_of_what_was_offered_hold_the_truth():
    """95 % intervals of 5 shares in 40 streams: at least 170 of 200, alarm below 1 in 10,000."""
    inside = 0
    for seed in range(40):
        memory = Memory(50, Reservoir(), seed=seed)
        y = np.random.default_rng(seed).choice(5, 4000, p=[0.5, 0.3, 0.1, 0.07, 0.03])
        memory.insert(y=y, row=np.arange(4000) * 1.0)
        table = portrait(memory).kept["y"].table
        for value, which, low, high in zip(
            *(table[n] for n in ("value", "set", "low", "high")), strict=True
        ):
            if which == "offered":
                inside += low <= np.mean(y == int(value)) <= high
    assert inside >= 170


def test_inserts(memories):
    memory = memories[0]
    table = portrait(memory).inserts.table
    held = [
        samples
        for samples, which in zip(table["samples"], table["set"], strict=True)
        if which == "held now"
    ]
    assert held == np.bincount(memory.arrivals, minlength=memory.inserts + 1)[1:].tolist()
    offered = [s for s, w in zip(table["samples"], table["set"], strict=True) if w == "offered"]
    assert offered == memory.offered.log[:, 1].tolist()


def test_many_inserts_are_taken_together():
    memory = Memory(100, FIFO())
    for number in range(450):
        memory.insert(y=[number % 3] * 2)
    found = portrait(memory).inserts
    assert len(found.table["insert"]) <= 200
    for which, total in (("offered", 900), ("held now", 100)):
        rows = zip(found.table["samples"], found.table["set"], strict=True)
        assert sum(samples for samples, name in rows if name == which) == total
    assert "the last 25 of 450" in found.words or "the last 26 of 450" in found.words


def test_coverage_and_newness(memories):
    memory = memories[0]
    found = portrait(memory)
    rise = coverage_increase(memory.samples, memory.reference, memory.policy)
    assert found.coverage.table["increase (%)"][0] == pytest.approx(100 * rise)
    assert found.coverage.table["noise (%)"][0] is None, "two contents of one memory"
    assert found.coverage.table["p-value"][1] is not None
    assert found.newness.table["statistic"][:2] == ["new regions", "new labels"]


def test_cells_are_those_of_the_attribution(memories):
    memory = memories[0]
    found = portrait(memory)
    rise = coverage_increase(memory.samples, memory.reference, memory.policy)
    assert found.cells.table["share"] == pytest.approx(
        rise.attribution["share"][: len(found.cells.table["share"])], rel=1e-6
    )
    assert found.cells.table["cell"][0].startswith("y 5, p 5 (")
    held = {
        (int(i), int(y)) for i, y in zip(memory.samples["id"], memory.samples["y"], strict=True)
    }
    examples = found.examples.table
    assert {(int(i), int(y)) for i, y in zip(examples["id"], examples["y"], strict=True)} <= held
    assert set(examples["y"]) == {"5"}


def test_examples_have_the_names_of_inputs():
    """Rows of numbers are shown one by one: by the name that each had, if it is known."""
    memory = Memory(200, Memento([JensenShannon.of_labels("y")]), seed=0)
    rng = np.random.default_rng(0)
    memory.insert(x=rng.normal(size=(200, 3)), y=rng.integers(0, 2, 200))
    memory.mark_trained()
    memory.insert(x=rng.normal(size=(200, 3)), y=rng.integers(2, 4, 200))
    assert list(portrait(memory).examples.table)[2:] == ["y", "x[0]", "x[1]", "x[2]"]
    memory.stacked = {"x": ["amount", "hour", "abroad"]}
    table = portrait(memory).examples.table
    assert list(table)[2:] == ["y", "amount", "hour", "abroad"]
    assert np.abs(memory.samples["x"][:, 0] - float(table["amount"][0])).min() < 1e-3


def test_against_another(memories):
    memory, before = memories
    whole = portrait(memory, before)
    found = whole.against
    both = len(np.intersect1d(memory.samples["id"], before.samples["id"]))
    assert found["samples"].words.startswith(f"{both:,} samples are in both (by their id)")
    assert "5 differs most" in whole.kept_against["y"].words
    assert found["cells"].table["cell"][0].startswith("y 5")
    same = portrait(before, before).against
    assert "300 samples are in both" in same["samples"].words
    assert "0.0% more" in same["cells"].words


def test_without_ids_samples_are_matched_by_inserts():
    memory = Memory(30, FIFO())
    memory.insert(y=np.zeros(30))
    before = Memory.restore(*memory.dump())
    memory.insert(y=np.ones(10))
    words = portrait(memory, before).against["samples"].words
    assert words == (
        "20 samples are in both (that came up to insert 1, when the other ends): "
        "10 are new here, 10 have gone."
    )


@pytest.mark.parametrize(
    "policy", [FIFO(), Reservoir(), DensityReservoir(DISTANCES), DensityReservoir(density="v")]
)
def test_any_policy(policy):
    memory = Memory(50, policy)
    empty = portrait(memory)
    assert empty.kept == {}
    memory.insert(stream(1))
    found = portrait(memory, memory)
    assert found.kept
    assert found.inserts.table
    assert "coverage since the last training" in found.missing
    memory.mark_trained()
    assert portrait(memory).facts["trained on"] == "50 samples"


def test_texts_numbers_gaps_and_many_values():
    memory = Memory(400, FIFO())
    rng = np.random.default_rng(0)
    v = rng.normal(size=400)
    v[:40] = np.nan
    many = np.array([f"t{i}" for i in rng.integers(60, size=400)])
    memory.insert(v=v, t=many, b=rng.random(400) < 0.5)
    found = portrait(memory)
    values = found.kept["v"].table["value"]
    assert len(values) == 2 * 13
    assert shares(found.kept["v"], "kept")["missing"] == pytest.approx(0.1)
    assert len(shares(found.kept["t"], "kept")) == 24
    assert shares(found.kept["t"], "kept")["others"] > 0.3
    for part in found.kept.values():
        for which in ("kept", "offered"):
            assert sum(shares(part, which).values()) == pytest.approx(1)


def values(**columns):
    memory = Memory(20_000, FIFO())
    memory.insert(columns)
    (part,) = portrait(memory).kept.values()
    names = part.table["value"][: len(part.table["value"]) // 2]
    assert len(set(names)) == len(names)
    assert sum(shares(part, "kept").values()) == pytest.approx(1)
    return names


@pytest.mark.parametrize(
    "column",
    [
        np.arange(1980, 2025),
        1234567.0 + np.arange(20),
        np.float32(0.1) * np.arange(1, 200),
        np.append(np.zeros(10_000), np.arange(40)),
        2**60 + np.arange(40),
        1.7e308 * np.linspace(-1, 1, 40),
        np.array(["missing", "others", "", "'missing'"] * 9),
        np.array(["missing", "", *(f"t{i}" for i in range(40)), "others", "others"]),
        np.array([b"a", b"b", b""]),
    ],
)
def test_no_two_bars_have_one_name(column):
    values(y=column)


def test_ranges_are_named_by_their_ends():
    assert values(year=np.arange(1980, 2025))[::11] == ["1980 to 1984", "2020 to 2024"]
    with_infinite = values(x=np.r_[np.arange(101.0), np.inf, -np.inf])
    assert with_infinite == values(x=np.arange(101.0))
    assert values(y=["missing", "", "a"] * 2) == ["a", "'missing'", "missing"]


def test_columns_that_are_called_as_ours():
    memory = Memory(60, Memento([JensenShannon.of_labels("y", 3)], batch_size=5), seed=0)
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        memory.insert(y=rng.integers(classes, size=100), cell=["phone"] * 100, insert=[5.5] * 100)
        if classes == 2:
            memory.mark_trained()
    table = portrait(memory).examples.table
    assert set(table["insert"]) == {2}
    assert set(table["insert (value)"]) == {"5.5"}
    assert all(isinstance(cell, int) for cell in table["cell"])
    assert set(table["cell (value)"]) == {"phone"}


def test_another_memory_with_columns_of_any_name_and_kind():
    memory, other = Memory(60, FIFO()), Memory(60, FIFO())
    memory.insert(id=[1, 2], cells=[1, 2], samples=[0, 1], d=np.zeros(2, "M8[D]"))
    other.insert(id=np.zeros(2, "M8[D]"), cells=[1, 2], samples=[0.5, 1], d=[0.5, 1])
    found = portrait(memory, other)
    assert list(found.against) == ["samples"]
    assert "that came up to insert 1" in found.against["samples"].words, "ids are of two kinds"
    assert list(found.kept_against) == ["cells", "samples", "d"]
    assert "differs most" in found.kept_against["cells"].words
    words = "It is datetime64[D] here and float64 in the other memory: that cannot be compared."
    assert found.kept_against["d"].words == words
    assert set(found.kept_against["d"].table["set"]) == {"kept"}
    nothing = portrait(memory, Memory(60, FIFO())).kept_against
    assert nothing["d"].words == "The other memory holds nothing."


def test_what_was_offered_may_be_of_another_kind():
    memory = Memory(60, FIFO())
    memory.insert(id=[1, 2], y=[1.0, 2.0])
    memory.annotate(y=["a", "b"])
    part = portrait(memory).kept["y"]
    assert "Left out: offered, where it is float64, not <U1." in part.words
    assert set(part.table["set"]) == {"kept"}


def test_a_folder_of_before_says_what_it_does_not_know(tmp_path):
    memory = Memory(40, FIFO())
    memory.insert(y=[0] * 30)
    arrays, documents = memory.dump()
    del documents["offered"]
    old = Memory.restore(arrays, documents)
    found = portrait(old)
    new = portrait(Memory(40, FIFO())).missing["what was offered"]
    assert new.startswith("nothing was offered yet")
    assert "written before that was recorded" in found.missing["what was offered"]
    assert set(found.kept["y"].table["set"]) == {"kept"}
    old.insert(y=[1] * 5)
    found = portrait(old)
    assert "before insert 2 was not recorded" in found.inserts.words
    assert holds_memory(tmp_path) is False
    old.save(tmp_path / "m")
    assert holds_memory(tmp_path / "m") is True
