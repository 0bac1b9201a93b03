from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import DamagedError, DomainError, SchemaError, SettingError, StorageError
from memento_datacenter.workloads import Workload, published

# Montazeri et al. (2018): quantiles of message sizes in bytes, and their means.
PROBABILITIES = (0.01, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
QUANTILES = {
    "w1": (54, 120, 750, 3405, 31480, 268074, 344102, 552298, 1000000),
    "w2": (1, 4, 16, 48, 1000, 3333, 13333, 18666, 20000),
    "w3": (124, 314, 460, 654, 42270, 119335, 269286, 3094208, 10000000),
}
MEANS = {"w1": 62874, "w2": 1745, "w3": 127797}
FILES = {"w1": "w1-facebook-webserver", "w2": "w2-dctcp", "w3": "w3-facebook-hadoop"}


@pytest.mark.parametrize("name", QUANTILES)
def test_published_quantiles_and_means(name):
    workload = published()[name]
    assert np.floor(workload.quantile(PROBABILITIES)).tolist() == list(QUANTILES[name])
    assert workload.mean == pytest.approx(MEANS[name], rel=0.022)
    assert workload.label == int(name[1])


@pytest.mark.parametrize("name", QUANTILES)
def test_published_agree_with_the_whole_tables(name, data_folder):
    whole = Workload.read(
        data_folder / "message-sizes" / f"{FILES[name]}.txt", label=1, interpolate=True
    )
    probabilities = np.linspace(0, 1, 101)
    np.testing.assert_allclose(
        published()[name].quantile(probabilities), whole.quantile(probabilities), atol=1, rtol=1e-4
    )


@pytest.mark.parametrize("name", QUANTILES)
def test_files_have_the_mean_they_state(name, data_folder):
    path = data_folder / "message-sizes" / f"{FILES[name]}.txt"
    workload = Workload.read(path, label=7)
    assert workload.mean == pytest.approx(float(path.read_text().split()[0]), rel=1e-4)
    assert (workload.name, workload.label, workload.interpolate) == (FILES[name], 7, False)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_recorded_messages(sizes):
    workload = Workload.of_messages(sizes, label=9, name="mine")
    assert workload.mean == pytest.approx(np.mean(sizes))
    for probability in (0.0, 0.3, 0.5, 1.0):
        expected = np.quantile(sizes, probability, method="inverted_cdf")
        assert workload.quantile(probability) == expected


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30, unique=True), st.booleans())
def test_mean_is_that_of_the_quantiles(sizes, interpolate):
    sizes = sorted(sizes)
    cumulative = np.arange(1, len(sizes) + 1) / len(sizes)
    workload = Workload("any", 1, sizes, cumulative, interpolate)
    middles = (np.arange(20_000) + 0.5) / 20_000
    assert workload.mean == pytest.approx(workload.quantile(middles).mean(), rel=1e-2, abs=0.5)


def test_rows_that_add_nothing_are_left_out():
    workload = Workload("any", 1, [10, 20, 30, 40], [0.5, 0.5, 0.5, 1.0])
    assert workload.table == "10.0 0.5\n40.0 1.0\n"
    with pytest.raises(DomainError, match=r"row 2: probability 0\.5 again"):
        Workload("any", 1, [10, 20, 40], [0.5, 0.5, 1.0], interpolate=True)


def test_input_is_not_changed_and_not_shared():
    sizes = np.array([10.0, 20.0])
    workload = Workload("any", 1, sizes, [0.5, 1.0])
    sizes[0] = 5
    assert workload.sizes[0] == 10
    with pytest.raises(ValueError, match="read-only"):
        workload.sizes[0] = 1


def test_equality_is_of_content():
    one, same = (Workload("any", 1, [1, 2], [0.5, 1]) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != Workload("any", 1, [1, 2], [0.5, 1], interpolate=True)
    assert one != Workload("any", 2, [1, 2], [0.5, 1])
    assert one != "any"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 lines"),
        ("100\n", "1 lines"),
        ("mean\n10 1\n", "line 1: 'mean' is not the mean size"),
        ("100\n10 0.5\n", "line 2: the last probability is 0.5; .*cut off"),
        ("100\n10\n", "line 2: '10' is not a size and a probability"),
        ("100\n10 x\n", "line 2: '10 x'"),
        ("100\n10 nan\n", "line 2: '10 nan'"),
        ("15\n10 0.5\n\n20 0.4\n30 1\n", "line 4: size 20 with probability 0.4 after 10"),
        ("15\n20 0.5\n10 1\n", "line 3: size 10 with probability 1 after 20"),
        ("15\n0 0.5\n10 1\n", "line 2: size 0"),
        ("15\n5 0.5\n10 1.5\n", "line 3: size 10 with probability 1.5"),
        ("90\n10 0.5\n20 1\n", "line 1: the mean is given as 90 bytes, .* is 15"),
    ],
)
def test_malformed_files_are_refused_by_line(tmp_path, text, message):
    path = tmp_path / "sizes.txt"
    path.write_text(text)
    with pytest.raises(DamagedError, match=message) as caught:
        Workload.read(path, label=4)
    assert str(path) in str(caught.value)


def test_recorded_messages_from_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("300\n100\n\n100.0\n100\n")
    expected = Workload.of_messages([300, 100, 100, 100], label=4, name="mine")
    assert Workload.read_messages(path, label=4) == expected
    assert Workload.read_messages(path, label=4, name="other").name == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no lines; give one size"),
        ("100\n\nmany\n", "line 3: 'many' is not the size of a message"),
        ("100\n200 0.5\n", "line 2: '200 0.5'"),
        ("100\n0\n", "line 2: a message of 0 bytes; give one size from 1"),
    ],
)
def test_malformed_recordings_are_refused_by_line(tmp_path, text, message):
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(DamagedError, match=message) as caught:
        Workload.read_messages(path, label=4)
    assert str(path) in str(caught.value)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match=r"none\.txt"):
        Workload.read(tmp_path / "none.txt", label=4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("Big", 1, [1], [1]), SettingError, "lower-case"),
        (("a_b", 1, [1], [1]), SettingError, "lower-case"),
        (("a", 0, [1], [1]), SettingError, "from 1 to 255"),
        (("a", 1, [], []), SchemaError, "at least one row"),
        (("a", 1, [1, 2], [1]), SchemaError, "2 sizes and 1 prob"),
        (("a", 1, [[1]], [1]), SchemaError, "one row of numbers"),
        (("a", 1, ["1"], [1]), SchemaError, "one row of numbers"),
        (("a", 1, [float("nan")], [1]), DomainError, "row 1: size nan"),
    ],
)
def test_bad_tables_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Workload(*arguments)


def test_bad_messages_and_probabilities_are_refused():
    with pytest.raises(SchemaError, match="no sizes"):
        Workload.of_messages([], label=1, name="mine")
    with pytest.raises(DomainError, match=r"message 2 has 0 bytes \(1 such\)"):
        Workload.of_messages([5, 0], label=1, name="mine")
    with pytest.raises(DomainError, match="from 0 to 1"):
        published()["w1"].quantile(1.5)
