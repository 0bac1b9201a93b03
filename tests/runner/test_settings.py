"""The user's file: every value typed, every wrong name answered with the right ones."""

from __future__ import annotations

import pytest

from memento.errors import SettingError, StorageError
from memento.runner.registry import Registry
from memento.runner.settings import Overrides, RunSettings, SlurmSettings, from_toml
from memento.runner.spec import Experiment


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
        ('[slurm]\nconstraint = "a\\nb"', "more than one line"),
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
