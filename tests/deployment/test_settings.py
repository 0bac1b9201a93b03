from __future__ import annotations

import pytest

pytest.importorskip("msgspec")

from memento.deployment import DeploymentSettings, from_toml
from memento.distances import JensenShannon
from memento.errors import SettingError, StorageError
from memento.retrain import Every, OnArrivals

LEAST = """
[data]
folder = "days"
inputs = ["f*"]
[model]
factory = "my_model:make"
[variants.main]
capacity = 2000
"""


def read(tmp_path, text):
    (tmp_path / "deployment.toml").write_text(text)
    return from_toml(tmp_path / "deployment.toml")


def test_defaults(tmp_path):
    settings = read(tmp_path, LEAST)
    assert (settings.data.late, settings.model.seed, settings.gate.rollback_after) == (
        "state",
        0,
        0,
    )
    assert settings.labels == ("y",)
    assert settings.folder == tmp_path / "days"
    assert settings.variants["main"].trigger == OnArrivals()
    memory = settings.variants["main"].memory("y", numbers=False, seed=0)
    assert memory.policy.reads == ("yhat", "y")
    again = DeploymentSettings.of(settings.document()["tables"], tmp_path, "again")
    assert again == settings


def test_settings_of_triggers_and_policies(tmp_path):
    variant = (
        'trigger = { kind = "every", units = 7 }\npolicy = { kind = "reservoir", forget = 0.1 }'
    )
    settings = read(tmp_path, LEAST + variant)
    assert settings.variants["main"].trigger == Every(7)
    memory = settings.variants["main"].memory("y", numbers=False, seed=0)
    assert memory.policy.forget == 0.1


def test_distances_have_the_short_names_of_the_command_line(tmp_path):
    short = 'policy = { kind = "memento", labels = ["site", "y:3"], values = "f1" }'
    settings = read(tmp_path, LEAST + short)
    policy = settings.variants["main"].memory("y", numbers=False, seed=0).policy
    assert policy.distances == (
        JensenShannon.of_labels("site"),
        JensenShannon.of_labels("y", classes=3),
        JensenShannon.of_values("f1"),
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[data]", "[data", "no TOML"),
        ("[data]", "[dat]", "unknown key 'dat'; known are data, model, gate, publish, variants"),
        ("folder =", "foldr =", r"\[data\]: unknown key 'foldr'; known are folder, label"),
        ('folder = "days"', "", r"\[data\] has no 'folder'; add it"),
        ('folder = "days"', "folder = 3", r"folder is 3; expected the folder of the days"),
        ('folder = "days"', 'folder = "s3://b/days"', "an address; give a local path"),
        ('["f*"]', '"f*"', r"inputs is 'f\*'; expected a list of names"),
        ('["f*"]', '["y"]', "names the label 'y'; take it out"),
        ('["f*"]', '["f*"]\nlabel = "x"', "label is 'x', which names the inputs"),
        ('["f*"]', '["f*"]\nlabel = ["y", "y"]', r"label is \['y', 'y'\]; expected the name"),
        ('["f*"]', '["f*"]\nlabel = ["a/b"]', "or a list of such names"),
        ('["f*"]', '["f*"]\nlabel = [["a"]]', "or a list of such names"),
        ("2000", "2000\n[gate]\nrollback_after = -1", "rollback_after is -1; expected"),
        ('["f*"]', '["f*"]\nlate = "no"', "late is 'no'; expected one of 'state', 'insert'"),
        ("my_model:make", "my_model.py", "expected MODULE:FUNCTION"),
        ("[variants.main]\ncapacity = 2000", "", "no variants; add one, such as"),
        ("[variants.main]", '[variants."a/b"]', "a variant's name is letters"),
        ("capacity = 2000", "capacity = 0", "capacity is 0; expected a whole number above 0"),
        ("capacity = 2000", "", "has no 'capacity'; add it"),
        ("2000", '2000\npolicy = "best"', r"\[variants.main\]: unknown policy 'best'; known are"),
        ("2000", '2000\npolicy = { kind = "fifo", k = 1 }', "policy 'fifo' has no setting 'k'"),
        ("2000", '2000\ntrigger = "often"', "unknown trigger 'often'; known are count, coverage"),
        ("2000", '2000\ntrigger = "count"', "trigger 'count' needs 'samples'; give it"),
        ("2000", '2000\ntrigger = { kind = "every", days = 2 }', "unknown setting 'days'"),
        ("2000", '2000\ntrigger = { kind = "every", units = 0 }', "units is 0; expected"),
        ("2000", '2000\n[gate]\ntolerance = "low"', "tolerance is 'low'; expected a number"),
        ("2000", "2000\n[gate]\ntolerance = inf", "inf is no setting"),
        ("2000", "2000\n[gate]\ntolerance = 2026-01-01", "is no setting"),
        ("2000", "2000\n[publish]\nkeep = 1", r"\[publish\]: keep is 1; expected a whole number"),
        ("2000", '2000\n[publish]\ngit_folder = "../x"', "name one inside the work tree"),
        ("[model]", "[[model]]", r"model is \[.*expected a table \[model\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, old, new, message):
    with pytest.raises(SettingError, match=message) as found:
        read(tmp_path, LEAST.replace(old, new))
    assert "deployment.toml" in str(found.value)


def test_no_file(tmp_path):
    with pytest.raises(StorageError, match=r"cannot read the settings at .*nothing.toml"):
        from_toml(tmp_path / "nothing.toml")
