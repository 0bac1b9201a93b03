"""The user's file: every value typed, every wrong name answered with the right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from memento.errors import SettingError, StorageError
from memento.runner.registry import Registry
from memento.runner.settings import Overrides, RunSettings, SlurmSettings, from_toml
from memento.runner.spec import Experiment
from memento.settings import convert


@pytest.fixture
def read(tmp_path):
    def make(text: str) -> RunSettings:
        (tmp_path / "run.toml").write_text(text)
        return from_toml(tmp_path / "run.toml")

    return make


def test_everything(read, tmp_path):
    found = read("""
        results = "out"
        experiments = ["mine.py"]
        jobs = 0
        threads = 2
        [parameters."counting/walk-*"]
        steps = 8
        [resources.counting]
        memory_GB = 3
        [dask]
        scheduler = "tcp://host:1"
        [slurm]
        submit = "sbatch"
        jobs = 7
        partition = "p"
        directives = ["--exclude=n1"]
        prologue = ["module load x"]
    """)
    assert found == RunSettings(
        results=tmp_path / "out",
        experiments=(tmp_path / "mine.py",),
        jobs=0,
        threads=2,
        scheduler="tcp://host:1",
        overrides=Overrides(
            (("counting/walk-*", {"steps": 8}),),
            (("counting", {"memory_GB": 3}),),
            str(tmp_path / "run.toml"),
        ),
        slurm=SlurmSettings(
            "sbatch", 7, "p", directives=("--exclude=n1",), prologue=("module load x",)
        ),
    )
    assert read("") == RunSettings(
        results=tmp_path / "results", overrides=Overrides(source=str(tmp_path / "run.toml"))
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("job = 1", "unknown key 'job'; known are results, experiments, jobs"),
        ("jobs = true", "jobs is True; expected a whole number from 0"),
        ("threads = 0", "threads is 0; expected a whole number from 1"),
        ("results = 1", "results is 1; expected text"),
        ("experiments = 'a.py'", "experiments is 'a.py'; expected a list"),
        ("experiments = [1]", "expected text"),
        ("parameters = 1", r"expected a table \[parameters\]"),
        ("parameters.x = 1", "expected a table"),
        (
            "[slurm]\npartitions = 'x'",
            "unknown key 'partitions'; known are submit, jobs, partition",
        ),
        ("[slurm]\nsubmit = 'qsub'", "expected one of dask-jobqueue, sbatch"),
        ("[slurm]\njobs = 0", "from 1"),
        ("[slurm]\npartition = 3", "partition is 3; expected text"),
        ("[slurm]\ndirectives = ['exclude']", "options of sbatch"),
        ('[slurm]\nconstraint = "a\\nb"', "at most one line"),
        ("[dask]\naddress = 'x'", "unknown key 'address'; known are scheduler"),
        ("jobs = ", "is no TOML"),
    ],
)
def test_wrong_files(read, text, words):
    with pytest.raises(SettingError, match=words):
        read(text)


def test_absent_file(tmp_path):
    with pytest.raises(StorageError, match=r"absent\.toml"):
        from_toml(tmp_path / "absent.toml")


def apply(table: str, pattern: str, values: dict, *parameters: dict) -> list:
    declared = {
        f"g/e{i}": Experiment("g", f"e{i}", "m:f", given) for i, given in enumerate(parameters)
    }
    overrides = Overrides(**{table: ((pattern, values),)}, source="run.toml")
    return [experiment.document()[table] for experiment in overrides.apply(declared).values()]


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        (1, 2, 2), (1.5, 2, 2.0), (True, False, False), ("a", "b", "b"), (None, [1], [1]),
        ([1, 2], [3], [3]), ([], ["any"], ["any"]), ([1.5], [2], [2.0]), ([1, "a"], ["b"], ["b"]),
        ({"x": 1, "y": 2.0}, {"y": 3}, {"x": 1, "y": 3.0}), ({}, {"new": 1}, {"new": 1}),
    ],
)  # fmt: skip
def test_values_take_the_declared_type(declared, given, expected):
    (found,) = apply("parameters", "g/*", {"a": given}, {"a": declared})
    assert found == {"a": expected}
    assert type(found["a"]) is type(expected)


@pytest.mark.parametrize(
    ("declared", "given", "words"),
    [
        (1, 2.5, r'run.toml: parameters."g/\*".a is 2.5; expected a whole number, such as 1'),
        (1, True, "expected a whole number"),
        (1.5, "x", "expected a number"),
        (1.5, False, "expected a number"),
        (True, 1, "expected true or false"),
        ("a", 1, "expected text"),
        ([1], 2, "expected a list"),
        ([1], ["x"], r"a\[0\] is 'x'; expected a whole number"),
        ({"x": 1}, {"z": 1}, "no entry 'z'; there are x"),
        ({"x": 1}, {"x": "1"}, r"a\.x is '1'"),
        ({"x": 1}, 3, "expected a table"),
    ],
)
def test_values_of_other_types_are_refused(declared, given, words):
    with pytest.raises(SettingError, match=words):
        apply("parameters", "g/*", {"a": given}, {"a": declared})


def test_names_that_no_experiment_has_are_answered_with_those_there_are():
    with pytest.raises(SettingError, match="no parameter 'c'; there are a, b"):
        apply("parameters", "g", {"c": 1}, {"a": 1}, {"b": 2})
    assert apply("parameters", "g", {"b": 3}, {"a": 1}, {"b": 2}) == [{"a": 1}, {"b": 3}]
    with pytest.raises(SettingError, match="unknown key 'memory'; known are threads, memory_GB"):
        apply("resources", "g", {"memory": 1}, {})
    with pytest.raises(SettingError, match="threads is 0"):
        apply("resources", "g", {"threads": 0}, {})
    with pytest.raises(SettingError, match="matches no experiment; there are g/e0"):
        apply("parameters", "g/x*", {"a": 1}, {"a": 1})


def tuned(page, values: dict, pattern: str = "tuned/*"):
    declared = {e.key: e for e in Registry([page]).group("tuned").values()}
    overrides = Overrides(((pattern, values),), source="run.toml")
    found = overrides.apply(declared)
    return found, overrides.unreached(found, found), declared


def test_keywords_of_a_body_need_no_declaration(page):
    """Their defaults and annotations say of which type they are."""
    found, notes, declared = tuned(page, {"label": "x", "rate": 1}, "tuned/one")
    assert found["tuned/one"].parameters == {"rate": 1.0, "label": "x"}
    assert not notes
    # What the body does anyway makes no other experiment of it.
    found, _, _ = tuned(page, {"steps": 3}, "tuned/one")
    assert found["tuned/one"].digest() == declared["tuned/one"].digest()
    found, _, _ = tuned(page, {"steps": 4}, "tuned/one")
    assert found["tuned/one"].digest() != declared["tuned/one"].digest()
    for values, words in (
        ({"steps": "x"}, "steps is 'x'; expected a whole number, such as 3"),
        ({"label": 1}, "label is 1; expected text"),
        ({"labels": "x"}, "no parameter 'labels'; there are label, rate, steps"),
    ):
        with pytest.raises(SettingError, match=words):
            tuned(page, values, "tuned/one")


def test_what_a_key_does_not_reach_is_said(page):
    found, notes, _ = tuned(page, {"rate": 0.25, "steps": 5})
    assert "rate" not in found["tuned/other"].parameters
    assert found["tuned/other"].parameters["steps"] == 5
    assert notes == ['run.toml: parameters."tuned/*".rate changes nothing for tuned/other']
    # What the body's check says to change nothing, too; and only of experiments that matter.
    found, notes, _ = tuned(page, {"rate": 0, "label": "x"}, "tuned/one")
    assert notes == ['run.toml: parameters."tuned/one".label changes nothing for tuned/one']
    overrides = Overrides((("tuned/*", {"rate": 0.25}),), source="run.toml")
    assert not overrides.unreached(found, ["tuned/one"])


def test_a_body_checks_values_before_anything_is_run(page):
    with pytest.raises(SettingError, match=r"run\.toml: parameters of tuned/one: steps=0; give at"):
        tuned(page, {"steps": 0}, "tuned/one")


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (float | None, [1.5, 2], "x"),
        (int | None, [3], 1.5),
        (str, ["x"], 1),
        (bool | None, [True], 1),
        (Sequence[int] | None, [[1]], 1),
        (Mapping[str, int], [{"a": 1}], [1]),
        (int | str, [1, "x"], 1.5),
    ],
)
def test_annotations_tell_types(hint, good, bad):
    for value in good:
        assert convert(value, hint, "here") == value
    with pytest.raises(SettingError, match=r"here is .*; expected"):
        convert(bad, hint, "here")
    assert convert(bad, object, "here") is bad
    assert type(convert(2, float | None, "here")) is float


def test_later_tables_win_and_digests_follow(page):
    declared = {e.key: e for e in Registry([page]).group("counting").values()}
    found = Overrides(
        (("counting/walk-*", {"steps": 8}), ("counting/walk-2", {"steps": 9})),
        (("*", {"hours": 5}),),
    ).apply(declared)
    assert [found[f"counting/walk-{i}"].parameters["steps"] for i in (1, 2, 3)] == [8, 9, 8]
    assert found["counting/base"].resources.hours == 5.0
    assert found["counting/base"].digest() == declared["counting/base"].digest()
    assert found["counting/walk-1"].digest() != declared["counting/walk-1"].digest()


def test_groups_that_do_not_exist():
    with pytest.raises(
        SettingError, match=r'parameters."gg/x": there is no group \'gg\'; there are a, b'
    ):
        Overrides((("gg/x", {}),)).check_groups(["a", "b"])
    Overrides((("*/x", {}),)).check_groups(["a", "b"])
