"""The deployment as it was published: a tree of statistics and models."""

from __future__ import annotations

import gzip
import json
import re
import shutil

import numpy as np
import pytest
from published_tree import DAYS, FIRST, row, small, write

from memento.errors import DamagedError, ForeignError, SettingError, StorageError
from memento_puffer.deployment.record import COLUMNS, between, read_record
from memento_puffer.deployment.tree import LAYOUT, PublishedModels, is_tree, read_densities


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("published") / "memento-deployment"
    return folder, small(folder)


@pytest.fixture
def tree(whole, tmp_path):
    """One that a test may change."""
    shutil.copytree(whole[0], tmp_path / "tree")
    return tmp_path / "tree"


def read(folder):
    told = []
    return read_record(folder, told.append), told


def test_a_tree_is_the_record_that_was_made_of_it(data_folder, tmp_path):
    record = read_record(data_folder / "puffer-deployment.csv")
    days = between(record, *np.array(["2022-05-01", "2022-05-03"], "datetime64[D]").tolist())
    for i in range(days.size):
        one = {name: days[name][i].item() for name in COLUMNS}
        numbers = {n: None if value != value else value for n, value in one.items()}
        write(tmp_path / "tree", numbers)
    found, _ = read(tmp_path / "tree")
    assert found.size == 30
    for name in COLUMNS:
        np.testing.assert_array_equal(found[name], days[name], strict=True)


def test_the_published_tree_is_the_published_record(data_folder):
    if not (data_folder / "memento-deployment").is_dir():
        pytest.skip("the piece of the published tree is not there")
    record = read_record(data_folder / "puffer-deployment.csv")
    found, told = read(data_folder / "memento-deployment")
    keys = {key: i for i, key in enumerate(zip(*(record[n] for n in COLUMNS[:3]), strict=True))}
    at = [keys[key] for key in zip(*(found[n] for n in COLUMNS[:3]), strict=True)]
    for name in COLUMNS:
        np.testing.assert_array_equal(found[name], record[name][at])
    assert [sentence.split(": ")[1] for sentence in told] == [
        "default lacks the horizons 2, 3, 4",
        "deterministic lacks the horizons 1, 2, 3, 4",
    ]


def test_strangers_in_a_tree_are_passed_over(tree):
    for place in (tree, tree / "default", tree / "default/0", tree / f"default/0/{FIRST}"):
        (place / "tmpabc").write_bytes(b"\0")
        (place / ".git").mkdir()
        (place / "7").mkdir()
    assert read(tree)[0].size == 2 * 5 * len(DAYS)
    assert read(tree)[1] == []


def test_one_variant_is_a_tree(tree):
    found, told = read(tree / "default")
    assert set(found["variant"]) == {"default"}
    assert told == [
        f"{tree / 'default'}: there is no variant deterministic, which was published as well"
    ]


def test_gaps_are_told(tree):
    shutil.rmtree(tree / "deterministic/3")
    shutil.rmtree(tree / "default/1/2022-09-27")
    (tree / "default/2/2022-09-27/stats_2.json.gz").unlink()
    shutil.rmtree(tree / f"default/4/{FIRST}/model")
    found, told = read(tree)
    assert found.size == 2 * 5 * len(DAYS) - 3 - 2
    assert [sentence.removeprefix(f"{tree}: ") for sentence in told] == [
        "default lacks statistics of 2022-09-27 (horizon 1), 2022-09-27 (horizon 2)",
        f"default lacks the models that were trained on {FIRST} (horizon 4)",
        "deterministic lacks the horizons 3",
    ]


def stats(folder, horizon=0, day=FIRST):
    return folder / f"default/{horizon}/{day}/stats_{horizon}.json.gz"


DOCUMENT = {"day": FIRST, "retrain": True, "coverage_increase": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no whole gzip file"),
        (b"{}", "no whole gzip file"),
        (gzip.compress(json.dumps(DOCUMENT).encode() * 99, mtime=0)[:60], "no whole gzip file"),
        (gzip.compress(b"{", mtime=0), "holds no JSON"),
        (gzip.compress(b"\xff\xfe\xfd", mtime=0), "holds no JSON"),
        (gzip.compress(b"[" * 100_000, mtime=0), "holds no JSON"),
        (gzip.compress(b"[1]", mtime=0), "no JSON object"),
        ({"day": "2022-09-25"}, f"day is '2022-09-25', in the folder of {FIRST}"),
        ({"day": None}, "day is None"),
        ({"retrain": "None"}, "retrain is 'None'; expected true or false"),
        ({"retrain": 1}, "retrain is 1"),
        ({"coverage_increase": None}, "coverage_increase is nan"),
        ({"coverage_increase": 1.5}, "coverage_increase is 1.5; expected 0 to 1"),
        ({"coverage_increase": True}, "coverage_increase is 'True'; expected a number"),
        ({"coverage_increase": 10**400}, "expected a number"),
        ({"total_coverage": "much"}, "total_coverage is 'much'; expected a number"),
        ({"total_coverage": float("inf")}, "total_coverage is 'inf'"),
        ({"total_coverage_increase": [1]}, "total_coverage_increase is '"),
    ],
)
def test_statistics_that_are_none(tmp_path, content, message):
    write(tmp_path, row())
    path = stats(tmp_path)
    if isinstance(content, dict):
        content = gzip.compress(json.dumps(DOCUMENT | content).encode())
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=message) as found:
        read_record(tmp_path)
    assert str(path) in str(found.value)
    assert path.read_bytes() == content


def test_statistics_of_several_members(tmp_path):
    write(tmp_path, row())
    whole = json.dumps(DOCUMENT).encode()
    stats(tmp_path).write_bytes(gzip.compress(whole[:9]) + gzip.compress(whole[9:]))
    assert read_record(tmp_path)["coverage_increase"].tolist() == [0.5]


def test_statistics_without_end(tmp_path):
    write(tmp_path, row())
    stats(tmp_path).write_bytes(gzip.compress(b" " * (65 << 20), 1))
    with pytest.raises(ForeignError, match="has more than 67,108,864 bytes"):
        read_record(tmp_path)


@pytest.mark.parametrize("made", ["", "default", "default/0", f"default/7/{FIRST}", f"0/{FIRST}"])
def test_folders_that_are_no_tree(tmp_path, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    assert is_tree(tmp_path) == made.startswith("0")
    with pytest.raises(ForeignError, match=re.escape(LAYOUT)):
        read_record(tmp_path)


def test_densities_of_the_last_day(tree):
    stats(tree, day="2022-09-29").write_bytes(gzip.compress(b'{"densities": "(0.5, 0.25)"}'))
    found = read_densities(tree, "2022-12-31")
    assert {name: values.tolist() for name, values in found.items()} == {
        "default": [0.5, 0.25], "deterministic": [0.02, 0.01],
    }  # fmt: skip
    assert read_densities(tree, "2022-09-28")["default"].tolist() == [0.02, 0.01]
    assert read_densities(tree, "2021-01-01") == {}
    stats(tree, day="2022-09-29").write_bytes(gzip.compress(b'{"densities": "(0.5, x)"}'))
    with pytest.raises(DamagedError, match="densities: could not convert"):
        read_densities(tree, "2022-12-31")


def same(one, other):
    return all(map(np.array_equal, one.weights, other.weights))


def test_the_model_of_a_day_is_that_of_the_last_training(whole):
    folder, models = whole
    served = PublishedModels(folder / "default")
    assert served("2022-09-25") is None
    first, last = models[FIRST], models["2022-09-29"]
    for day in (FIRST, "2022-09-27", "2022-09-28"):  # a training, none, and a day that is not there
        assert all(map(same, served(day), first)), day
    assert same(served("2022-09-29")[0], last[0])
    assert all(map(same, list(served("2023-01-01"))[1:], list(first)[1:]))


def test_a_day_without_statistics_whose_model_is_there(tree):
    """Its model says that there was a training."""
    stats(tree, day="2022-09-29").unlink()
    before = PublishedModels(tree / "default")("2022-09-28")
    assert not same(PublishedModels(tree / "default")("2022-09-29")[0], before[0])


def broken(tree, name, content=None):
    """A file of the horizon 3 that is not there, or holds other things."""
    path = tree / f"default/3/{FIRST}/{name}"
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("place", "change", "error", "message"),
    [
        ("", lambda tree: None, SettingError, "give the folder of one: .*tree/default"),
        ("default/0", lambda tree: None, ForeignError, "no published deployment"),
        ("default", lambda tree: shutil.rmtree(tree / "default/3"), ForeignError, "horizons 3"),
        ("default", lambda tree: shutil.rmtree(tree / f"default/3/{FIRST}/model"), ForeignError,
         "lacks the folder model"),
        ("default", lambda tree: broken(tree, "model/py-3.pt"), StorageError, "py-3.pt"),
        ("default", lambda tree: broken(tree, "model/cpp-3.pt", b"PK"), DamagedError,
         "cpp-3.pt cannot be read"),
        ("default", lambda tree: broken(tree, "stats_3.json.gz", b""), DamagedError,
         "no whole gzip file"),
    ],
)  # fmt: skip
def test_models_that_cannot_serve(tree, place, change, error, message):
    change(tree)
    with pytest.raises(error, match=message):
        PublishedModels(tree / place)
