"""Declarations: what they refuse, that they cannot change, and what their digest is made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import SettingError
from memento.runner.spec import Experiment, Resources, Run, canonical, seed_from

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda name: name not in ("run",) and name.isidentifier()
)


def make(**changes) -> Experiment:
    return Experiment(**{"group": "g", "name": "n", "body": "package.module:body", **changes})


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_document_brings_back_the_same(parameters):
    experiment = make(parameters=parameters, needs=("other",), resources=Resources(2, 3, 4))
    text = json.dumps(experiment.document())
    found = Experiment.from_document(json.loads(text))
    assert found == experiment
    assert found.digest() == experiment.digest()
    assert hash(found) == hash(experiment)


@given(st.dictionaries(NAMES, JSON, min_size=2, max_size=4))
def test_digest_does_not_depend_on_the_order_of_names(parameters):
    backwards = dict(reversed(parameters.items()))
    assert make(parameters=parameters).digest() == make(parameters=backwards).digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"group": "h"}, {"name": "m"}, {"body": "package.module:other"}, {"parameters": {"a": 2}},
        {"parameters": {"a": 1.0}}, {"parameters": {}}, {"files": ("x",)}, {"version": 2},
    ],
)  # fmt: skip
def test_digest_changes_with_all_that_decides_a_result(changes):
    assert (
        make(parameters={"a": 1}).digest() != make(**{"parameters": {"a": 1}, **changes}).digest()
    )


def test_digest_changes_with_needs_and_not_with_resources_or_the_place_of_a_file():
    plain = make()
    assert plain.digest({"g/other": "1"}) != plain.digest({"g/other": "2"})
    assert plain.digest() == make(resources=Resources(8), description="better words").digest()
    assert make(body="/a/mine.py:f").digest() == make(body="/b/mine.py:f").digest()
    assert make(body="/a/mine.py:f").digest() != make(body="/a/yours.py:f").digest()


def test_parameters_are_copied_and_cannot_change():
    inner = [1, {"x": 2}]
    experiment = make(parameters={"a": inner})
    inner.append(3)
    assert experiment.document()["parameters"] == {"a": [1, {"x": 2}]}
    with pytest.raises(TypeError):
        experiment.parameters["a"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../up"}, "letters"),
        ({"name": ""}, "letters"),
        ({"name": "a b"}, "letters"),
        ({"name": "x" * 151}, "150"),
        ({"group": "a/b"}, "letters"),
        ({"body": "nothing"}, "module:function"),
        ({"body": "a b:c"}, "module:function"),
        ({"body": print}, "module:function"),
        ({"parameters": {"run": 1}}, "run is taken"),
        ({"parameters": {"a-b": 1}}, "keyword"),
        ({"parameters": {"a": float("nan")}}, "finite"),
        ({"parameters": {"a": {1: 2}}}, "string"),
        ({"parameters": {"a": {"b": object()}}}, r"parameters\.a\.b is of type object"),
        ({"needs": "other"}, "list of strings"),
        ({"needs": ("a/b/c",)}, "group/name"),
        ({"files": ("{absent}/x",)}, "absent"),
        ({"version": "1"}, "whole number"),
        ({"resources": 3}, "Resources"),
    ],
)
def test_what_is_refused(changes, words):
    with pytest.raises(SettingError, match=words):
        make(**changes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": True}, "whole number"),
        ({"memory_GB": -1}, "above 0"),
        ({"hours": float("inf")}, "finite"),
        ({"hours": "1"}, "number"),
    ],
)
def test_resources_out_of_range(values, words):
    with pytest.raises(SettingError, match=words):
        Resources(**values)


def test_files_follow_parameters():
    experiment = make(parameters={"data": "raw", "day": 3}, files=("{data}/{day}.csv",))
    assert [path.as_posix() for path in experiment.paths()] == ["raw/3.csv"]
    moved = experiment.with_parameters({"data": "cooked"})
    assert [path.as_posix() for path in moved.paths()] == ["cooked/3.csv"]


def test_seeds_are_in_range_and_differ():
    seeds = {seed_from("replay", name, i) for name in "abc" for i in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'


def test_progress_is_passed_on_but_not_for_every_step(tmp_path):
    heard = []
    run = Run(tmp_path, tmp_path, on_report=lambda *words: heard.append(words))
    for step in range(1, 10_001):
        run.report(step, 10_000, "walking")
    assert heard[0] == (1.0, 10_000.0, "walking")
    assert heard[-1] == (10_000.0, 10_000.0, "walking")
    assert len(heard) < 100


def test_files_are_looked_for_among_the_data_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = Experiment("g", "n", "m:f", {"table": "day.csv"}, files=("{table}", "fixed.csv"))
    assert experiment.paths() == (Path("day.csv"), Path("fixed.csv"))
    assert experiment.absent() == (
        "needs day.csv, which does not exist; put it there, or name it: "
        '[parameters."g/n"] table = "PATH"'
    )
    (tmp_path / "mine/data").mkdir(parents=True)
    (tmp_path / "mine/data/day.csv").touch()
    monkeypatch.setenv("MEMENTO_DATA", str(tmp_path / "mine"))
    assert experiment.paths() == (tmp_path / "mine/data/day.csv", Path("fixed.csv"))
    assert experiment.absent() == "needs fixed.csv, which does not exist; put it there"
    (tmp_path / "day.csv").touch()  # what is named comes first
    assert experiment.paths()[0] == Path("day.csv")
