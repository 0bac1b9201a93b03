"""`memento memory` day after day: safe to repeat, and predictions held are of one model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from memento import DensityReservoir, JensenShannon, Memento, Memory
from memento.cli.main import main

INIT = ["--capacity", "400", "--labels", "y:3", "--probabilities", "yhat", "--set", "batch_size=8"]


def day(seed: int, n: int = 120, **others: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    yhat = rng.dirichlet(np.ones(3), n)
    return {"x": rng.normal(size=(n, 3)), "y": rng.integers(0, 3, n), "yhat": yhat,
            "id": np.arange(n) + 1000 * seed, **others}  # fmt: skip


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run a command of `memento memory`; returns exit code, output, error stream."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["memory", *map(str, words)])
        out, err = capsys.readouterr()
        return int(done.value.code or 0), out, err

    return call


@pytest.fixture
def ok(cli):
    """The same where all has to be well; returns the JSON object."""

    def call(*words: object) -> dict:
        code, out, err = cli(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture
def mem(ok) -> Path:
    ok("init", "mem", *INIT)
    np.savez("1.npz", **day(1))
    ok("insert", "mem", "1.npz")
    return Path("mem")


@pytest.fixture
def refused(cli, mem):
    """Something that has to fail, and leaves the folder as it is."""

    def call(*words: object, says: list[str]) -> None:
        before = state(mem)
        code, out, err = cli(*words)
        assert (code, out) == (2, ""), err
        for word in says:
            assert word in err
        assert state(mem) == before

    return call


def state(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_module(name: str, weights: str = "weights.npy", more: str = "") -> str:
    """A model whose code stays the same while the file that it reads changes."""
    Path(f"{name}.py").write_text(
        f"import numpy as np\n{more}\n"
        f"def predict(x):\n    p = np.load({weights!r})\n    return np.tile(p, (len(x), 1))\n"
    )
    return f"{name}:predict"


# --- units -----------------------------------------------------------------------------------


def test_a_file_goes_in_once(cli, ok, mem):
    before = state(mem)
    code, _, err = cli("insert", mem, "1.npz")
    assert code == 0
    assert "1.npz went in already, with insert 1" in err
    assert "--again" in err
    Path("1.npz").rename("other.npz")  # content counts, not the name
    said = ok("insert", mem, "other.npz")
    assert said["already"] == {"other.npz": 1}
    assert (said["offered"], said["seen"]) == (0, 120)
    assert state(mem) == before
    said = ok("insert", mem, "other.npz", "--again")
    assert (said["offered"], said["seen"], said["already"]) == (120, 240, {})


def test_what_a_killed_writer_left_goes_with_the_next_call(ok, mem):
    """It had written the new generation and was killed while it removed the one before."""
    left = Path(mem) / "generation-000000"
    left.mkdir()
    np.save(left / "000-column%2Fy.npy", np.arange(3))
    assert ok("insert", mem, "1.npz")["already"] == {"1.npz": 1}
    assert not left.exists()


def test_files_that_are_new_go_in_beside_those_that_are_not(cli, mem):
    np.savez("2.npz", **day(2))
    code, out, err = cli("insert", mem, "1.npz", "2.npz")
    assert code == 0
    assert "offered 120" in out
    assert "1.npz went in already, with insert 1, so it is left out" in err
    assert Memory.load(mem).seen == 240


def test_a_unit_goes_in_once_whatever_its_files_are(cli, ok, mem):
    np.savez("2.npz", **day(2))
    assert ok("insert", mem, "2.npz", "--unit", "2026-01-07")["offered"] == 120
    before = state(mem)
    np.savez("2.npz", **day(3))
    code, _, err = cli("insert", mem, "2.npz", "--unit", "2026-01-07")
    assert code == 0
    assert "2026-01-07 went in already, with insert 2" in err
    assert state(mem) == before
    assert "2026-01-07" in Memory.load(mem).units
    assert ok("insert", mem, "2.npz", "--unit", "2026-01-07", "--again")["offered"] == 120


def test_a_quiet_day_may_look_like_another_if_it_has_a_name(cli, ok, mem):
    assert ok("insert", mem, "1.npz", "--unit", "tuesday")["offered"] == 120
    assert ok("insert", mem, "1.npz")["already"] == {"1.npz": 1}


def test_the_same_content_under_another_name_is_said(cli, ok, mem):
    Path("1.npz").rename("other.npz")
    code, _, err = cli("insert", mem, "other.npz", "--unit", "tuesday")
    assert code == 0
    assert "the content of other.npz went in already, with insert 1; as the unit 'tuesday'" in err
    np.savez("2.npz", **day(2))
    assert cli("insert", mem, "2.npz", "--unit", "wednesday")[2] == ""
    err = cli("insert", mem, "2.npz", "--unit", "thursday")[2]
    assert "with insert 3, the unit 'wednesday'; as the unit 'thursday'" in err
    assert "content" not in cli("insert", mem, "2.npz", "--unit", "friday", "--again")[2]


def test_an_insert_that_failed_may_come_again(cli, ok, mem):
    np.savez("2.npz", **{k: v for k, v in day(2).items() if k != "y"}, y=np.full(120, 7))
    assert cli("insert", mem, "2.npz", "--unit", "tuesday")[0] == 2
    np.savez("2.npz", **day(2))
    assert ok("insert", mem, "2.npz", "--unit", "tuesday")["offered"] == 120


def test_what_is_said_of_settings_is_said_once(cli, ok):
    small = [*INIT[:6], "--set", "batch_size=100"]
    assert "batches" in cli("init", "m", *small)[2]
    np.savez("1.npz", **day(1))
    assert cli("insert", "m", "1.npz")[2] == ""
    assert cli("status", "m")[2] == ""


# --- whose predictions -----------------------------------------------------------------------


@pytest.fixture
def weights(ok, mem):
    """The weights of a model, and what held predictions are of it."""

    def change(*values: float) -> None:
        np.save("weights.npy", np.array(values))

    change(0.8, 0.1, 0.1)
    return change


def held(what: str = "samples") -> list[float]:
    rows = getattr(Memory.load("mem"), what)["yhat"]
    assert (rows == rows[0]).all()
    return rows[0].tolist()


def test_a_function_is_asked_again_as_its_code_says_nothing_of_its_weights(cli, mem, weights):
    model = write_module("plain")
    assert cli("trained", mem, "--model", model)[0] == 0
    weights(0.2, 0.2, 0.6)
    code, _, err = cli("trained", mem, "--model", model)
    assert code == 0
    assert "cannot be known" in err
    assert "model_version" in err
    assert held() == held("reference") == [0.2, 0.2, 0.6]
    weights(0.3, 0.3, 0.4)
    np.savez("2.npz", **day(2))
    assert cli("insert", mem, "2.npz", "--model", model)[0] == 0
    assert held() == held("reference") == [0.3, 0.3, 0.4]


@pytest.mark.parametrize("how", ["version", "function", "file"])
def test_what_the_model_is_may_be_stated(cli, mem, weights, monkeypatch, how):
    more = {
        "version": "model_version = 'one'",
        "function": "import pathlib\n"
        "def model_version():\n    return pathlib.Path('version').read_text()",
        "file": "",
    }[how]
    Path("version").write_text("one")
    model = write_module(f"stated_{how}", more=more)
    extra = ["--model-file", "weights.npy"] if how == "file" else []
    code, _, err = cli("annotate", mem, "--model", model, *extra)
    assert (code, err) == (0, "")
    first = Memory.load(mem).model
    assert cli("trained", mem, "--model", model, *extra)[2] == ""
    assert Memory.load(mem).model == Memory.load(mem).reference_model == first
    weights(0.2, 0.2, 0.6)
    if how == "version":
        __import__(f"stated_{how}").model_version = "two"
    Path("version").write_text("two")
    code, _, err = cli("trained", mem, "--model", model, *extra)
    assert (code, err) == (0, "")
    assert held() == held("reference") == [0.2, 0.2, 0.6]
    assert Memory.load(mem).model != first


@pytest.mark.parametrize(
    ("more", "words", "says"),
    [
        ("model_version = ['x']", [], ["model_version", "text"]),
        ("def model_version():\n    raise OSError('no disk')", [], ["model_version", "no disk"]),
        ("", ["--model-file", "absent.npy"], ["absent.npy", "--model-file"]),
        ("", ["--model-name", "v1"], ["--model-name", "--model"]),
    ],
)
def test_statements_that_are_none(refused, weights, request, more, words, says):
    model = write_module(f"wrong_{abs(hash((more, *words)))}", more=more)
    refused("annotate", "mem", "--model", model, *words, says=says)


def test_files_of_a_model_need_a_model(refused):
    refused("insert", "mem", "1.npz", "--model-file", "w.npy", says=["--model-file", "--model"])


def test_predictions_of_two_models_are_not_compared(cli, ok, mem, weights):
    assert ok("annotate", mem, "1.npz", "--model-name", "v1")["model"] == "named v1"
    ok("trained", mem)
    np.savez("2.npz", **day(2))
    code, _, err = cli("insert", mem, "2.npz", "--model-name", "v2")
    assert code == 0
    assert "'v2'" in err
    assert "'v1'" in err
    code, _, err = cli("status", mem, "--decide")
    assert code == 2
    assert "memento memory annotate mem --model MODEL" in err
    code, _, err = cli("status", mem)  # may still be looked at
    assert code == 0
    assert "different models" in err
    ok("annotate", mem, "--model", write_module("both"))
    assert held() == held("reference")
    assert cli("status", mem, "--decide")[0] in (0, 10)


def test_predictions_of_one_named_model_are_compared(cli, ok, mem):
    ok("annotate", mem, "1.npz", "--model-name", "v1")
    ok("trained", mem)
    np.savez("2.npz", **day(2))
    code, _, err = cli("insert", mem, "2.npz", "--model-name", "v1")
    assert (code, err) == (0, "")
    assert cli("status", mem, "--decide")[0] in (0, 10)


def test_what_is_assumed_of_unnamed_predictions_is_said_once(cli, ok, mem):
    ok("trained", mem)
    np.savez("2.npz", **day(2))
    np.savez("3.npz", **day(3))
    assert "taken to be of the model" in cli("insert", mem, "2.npz")[2]
    assert cli("insert", mem, "3.npz")[2] == ""


def test_mixed_predictions_are_made_again_by_the_next_model(cli, ok, mem, weights):
    model = write_module("mixed", more="model_version = 1")
    ok("annotate", mem, "--model", model)
    np.savez("2.npz", **day(2))
    assert "one model" in cli("insert", mem, "2.npz")[2]
    assert Memory.load(mem).model is None
    np.savez("3.npz", **day(3))
    ok("insert", mem, "3.npz", "--model", model)
    assert held() == [0.8, 0.1, 0.1]


# --- the first day, and labels that come late -------------------------------------------------


def test_from_an_empty_memory_to_the_first_model(cli, ok):
    ok("init", "m", *INIT)
    first = {name: column for name, column in day(1).items() if name in ("x", "y")}
    np.savez("1.npz", **first)
    code, _, err = cli("insert", "m", "1.npz")
    assert code == 0, err
    np.savez("2.npz", **day(2))
    code, _, err = cli("insert", "m", "2.npz", "--columns", "x,y,yhat")
    assert code == 0, err
    assert len(err.splitlines()) == 1
    assert "'yhat'" in err
    np.savez("3.npz", **{name: column for name, column in day(3).items() if name in ("x", "y")})
    code, _, err = cli("insert", "m", "3.npz")  # predictions were there once: not a first day
    assert code == 2
    assert "--model" in err
    np.save("weights.npy", [0.8, 0.1, 0.1])
    model = write_module("first", more="model_version = 1")
    code, _, err = cli("trained", "m", "--model", model)
    assert (code, err) == (0, "")
    assert cli("insert", "m", "3.npz", "--model", model)[0] == 0
    assert (Memory.load("m").samples["yhat"] == [0.8, 0.1, 0.1]).all()


def test_predictions_that_come_first_on_the_second_day_are_read(cli, ok):
    ok("init", "m", *INIT)
    np.savez("1.npz", **{name: column for name, column in day(1).items() if name in ("x", "y")})
    ok("insert", "m", "1.npz")
    np.savez("2.npz", **day(2))
    ok("insert", "m", "2.npz")
    assert set(Memory.load("m").samples) == {"x", "y", "yhat"}


def test_a_first_day_without_anything_that_is_compared(cli, ok):
    ok("init", "m", *INIT)
    np.savez("1.npz", x=np.zeros((5, 2)), label=np.zeros(5))
    code, _, err = cli("insert", "m", "1.npz")
    assert code == 2
    assert "--map y=SOURCE" in err


def test_labels_that_come_days_later(cli, ok):
    ok("init", "m", *INIT)
    late = {name: column for name, column in day(1).items() if name != "y"}
    np.savez("1.npz", **late)
    ok("insert", "m", "1.npz")
    np.savez("labels.npz", id=late["id"][::2], y=day(1)["y"][::2], when=np.zeros(60))
    said = ok("label", "m", "labels.npz")
    assert (said["given"], said["found"], said["columns"]) == (60, 60, ["y"])
    assert np.isfinite(Memory.load("m").samples["y"]).sum() == 60
    before = state(Path("m"))
    np.savez("gone.npz", number=np.arange(5), label=np.zeros(5))
    code, out, err = cli("label", "m", "gone.npz", "--id", "number", "--map", "y=label")
    assert code == 0, err
    assert "0 samples held, of 5" in out
    assert state(Path("m")) == before


@pytest.mark.parametrize("labels", [["dog", "cat", "dog", ""], [7.0, 3.0, 7.0, np.nan]])
def test_status_of_labels_of_any_kind_some_of_them_late(ok, labels):
    memory = Memory(256, Memento([JensenShannon.of_labels("y")]))
    memory.insert(id=np.arange(4), y=np.array(labels))
    memory.save("m")
    counts = ok("status", "m")["composition"]["y"]
    assert sorted(counts.values()) == [1, 2]


@pytest.mark.parametrize("how", ["option", "file"])
def test_the_column_that_tells_samples_apart_may_have_another_name(ok, how):
    if how == "option":
        ok("init", "m", *INIT, "--id", "key")
    else:
        Path("m.toml").write_text(
            "capacity = 400\nid = 'key'\n[policy]\nlabels = ['y:3']\nbatch_size = 8\n"
        )
        ok("init", "m", "--config", "m.toml")
    np.savez("1.npz", key=np.arange(20), x=np.zeros(20))
    ok("insert", "m", "1.npz")
    np.savez("labels.npz", key=[3, 4], y=[1, 2])
    assert ok("label", "m", "labels.npz")["found"] == 2


@pytest.mark.parametrize(
    ("columns", "words", "says"),
    [
        ({"y": [1]}, [], ["'id'", "--id"]),
        ({"id": [1000], "label": [1]}, [], ["'label'", "--map y=SOURCE"]),
        ({"id": [1000], "y": [9]}, [], ["y"]),
        ({"id": [1000, 1000], "y": [1, 2]}, [], ["1000"]),
    ],
)
def test_labels_that_do_not_fit(refused, columns, words, says):
    np.savez("labels.npz", **columns)
    refused("label", "mem", "labels.npz", *words, says=says)


# --- annotate, sample, merge, export ---------------------------------------------------------


def test_annotating_from_a_file_by_row_and_by_id(ok, mem):
    ok("trained", mem)
    ok("export", mem, "held.npz", "--no-weights")
    exported = dict(np.load("held.npz"))
    np.savez("new.npz", loss=np.arange(len(exported["y"])) * 1.0)
    assert ok("annotate", mem, "new.npz")["columns"] == ["loss"]
    order = np.random.default_rng(0).permutation(120)
    np.savez("by_id.npz", key=exported["id"][order], loss=exported["id"][order] * 2.0)
    said = ok("annotate", mem, "by_id.npz", "--id", "key")
    assert said["reference"] is True
    memory = Memory.load(mem)
    assert (memory.samples["loss"] == memory.samples["id"] * 2.0).all()
    assert (memory.reference["loss"] == memory.reference["id"] * 2.0).all()


@pytest.mark.parametrize(
    ("columns", "words", "says"),
    [
        ({"loss": np.zeros(7)}, [], ["7 rows", "120"]),
        ({"id": np.arange(7), "loss": np.zeros(7)}, ["--id", "id"], ["no row for 120", "export"]),
        ({"id": [1, 1], "loss": [0.0, 1.0]}, ["--id", "id"], ["id 1 is given twice"]),
        ({"loss": [0.0]}, ["--id", "id"], ["'id'", "--id"]),
        ({"id": [0]}, ["--id", "id"], ["nothing to attach"]),
    ],
)
def test_annotations_that_do_not_fit(refused, columns, words, says):
    np.savez("new.npz", **columns)
    refused("annotate", "mem", "new.npz", *words, says=says)


def test_annotate_needs_one_source(refused, cli):
    refused("annotate", "mem", says=["FILE", "--model"])
    refused("annotate", "mem", "1.npz", "--model", "m:f", says=["FILE", "--model"])


def test_a_random_sample(ok, mem):
    assert ok("sample", mem, "--size", 30, "--out", "a.npz")["rows"] == 30
    ok("sample", mem, "--size", 30, "--out", "b.npz", "--seed", 1)
    ok("sample", mem, "--size", 30, "--out", "again.parquet")
    first, second = np.load("a.npz")["id"], np.load("b.npz")["id"]
    assert len(np.unique(first)) == 30
    assert set(first) != set(second)
    assert ok("sample", mem, "--size", 500, "--out", "all.npz")["rows"] == 120


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", 0, "--out", "a.npz"], ["--size"]),
        (["--size", 5, "--out", "a.npz", "--seed", -1], ["--seed"]),
        (["--size", 5, "--out", "a.txt"], [".txt"]),
    ],
)
def test_samples_that_make_no_sense(refused, words, says):
    refused("sample", "mem", *words, says=says)


def test_what_was_trained_on_is_exported(ok, mem, cli):
    assert "nothing was trained" in cli("export", mem, "out.npz", "--reference")[2]
    ok("trained", mem)
    np.savez("2.npz", **day(2))
    ok("insert", mem, "2.npz")
    assert ok("export", mem, "out.npz", "--reference")["rows"] == 120


def test_merging_memories_of_two_places(ok, cli):
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        Memory(50, DensityReservoir(density="rho", identify_by="id")).save(name)
        np.savez(f"{name}.npz", id=rng.integers(0, 1 << 40, 200), rho=rng.uniform(0.01, 1, 200))
        ok("insert", name, f"{name}.npz")
    said = ok("merge", "left", "right")
    assert (said["size"], said["seen"]) == (50, 400)
    before = state(Path("left"))
    assert ok("check", "left")["ok"]
    code, _, err = cli("merge", "left", "right")  # a second time, by mistake
    assert code == 2
    assert "went in already" in err
    assert cli("merge", "left", "left")[0] == 2
    assert state(Path("left")) == before


def test_only_some_policies_merge(refused, ok):
    ok("init", "other", *INIT)
    np.savez("2.npz", **day(2))
    ok("insert", "other", "2.npz")
    refused("merge", "mem", "other", says=["cannot merge"])


def test_the_inputs_of_a_model_need_not_stand_among_the_columns(ok, cli):
    ok("init", "m", *INIT)
    np.save("weights.npy", [0.8, 0.1, 0.1])
    np.savez("a.npz", **{n: c for n, c in day(1).items() if n != "yhat"})
    code, _, err = cli("insert", "m", "a.npz", "--columns", "x,y", "--model", write_module("in_x"))
    assert code == 0, err
    assert set(Memory.load("m").samples) == {"x", "y", "yhat"}


# --- classes ---------------------------------------------------------------------------------


def test_labels_of_any_kind_whose_classes_grow(ok):
    ok("init", "mem", "--capacity", 100, "--labels", "y", "--labels", "s")
    for seed, classes in ((1, 2), (2, 4)):
        y = np.random.default_rng(seed).integers(0, classes, 120)
        np.savez(f"{seed}.npz", y=y, s=np.array(list("abcd"))[y])
        assert ok("insert", "mem", f"{seed}.npz")["offered"] == 120
    assert set(ok("status", "mem")["composition"]["s"]) == {*"abcd"}


def test_a_new_class_names_the_command_that_admits_it(refused, ok):
    np.savez("2.npz", **day(2, y=np.full(120, 3)))
    refused(
        "insert", "mem", "2.npz", says=["2.npz", "is 3 in row 0", "use mem --labels y (or y:4)"]
    )
    settings = ok("use", "mem", "--labels", "y")["policy"]
    assert settings["batch_size"] == 8  # stays
    assert [one.get("classes") for one in settings["distances"]] == [None, None]
    assert ok("insert", "mem", "2.npz")["kept"] == 120
    ok("use", "mem", "--set", "bandwidth=0.2")
    assert Memory.load("mem").policy.bandwidth == 0.2


def test_what_use_refuses(refused):
    refused("use", "mem", says=["--labels", "--set"])
    refused("use", "mem", "--labels", "y:", says=["'y:'", "NAME:CLASSES"])
    refused("use", "mem", "--set", "colour=red", says=["no setting 'colour'"])
    refused("use", "mem", "--labels", "y:1", says=["out of range", "use mem --labels y"])


def test_clusters_and_witnesses_from_a_file(cli, ok):
    Path("mem.toml").write_text(
        'capacity = 100\ncluster = "session"\nwitnesses = 0.2\n[policy]\nlabels = ["y"]\n'
    )
    ok("init", "mem", "--config", "mem.toml")
    recent = Memory.load("mem").recent
    assert (recent.cluster, recent.witnesses) == ("session", 0.2)
    code, _, err = cli("init", "other", "--config", "mem.toml", "--witnesses", 0.1)
    assert (code, "--witnesses" in err) == (2, True)
    Path("bad.toml").write_text("capacity = 100\nwitnesses = 2\n[policy]\nlabels = ['y']\n")
    code, _, err = cli("init", "other", "--config", "bad.toml")
    assert (code, "bad.toml: witnesses is 2" in err) == (2, True)


def test_labels_before_predictions_are_no_matter_of_python(cli, ok):
    ok("init", "mem", *INIT)
    columns = day(1)
    np.savez("x.npz", id=columns["id"], x=columns["x"])
    np.savez("y.npz", id=columns["id"], y=columns["y"])
    ok("insert", "mem", "x.npz", "--unit", "1")
    code, _, err = cli("label", "mem", "y.npz")
    assert (code, err) == (0, "")


def test_a_unit_has_a_name(refused):
    refused("insert", "mem", "1.npz", "--unit", "", says=["--unit is empty"])


def test_remedies_are_commands(refused, ok, cli):
    np.savez("flat.npz", **(day(2) | {"x": np.zeros(120)}))
    refused("insert", "mem", "flat.npz", says=["'x'", "memento memory annotate DIR FILE"])
    np.savez("few.npz", y=np.zeros(3, int))
    refused("annotate", "mem", "few.npz", says=["3 rows", "order of memento memory export"])
    ok("init", "plain", "--capacity", 100, "--labels", "y")
    np.savez("plain.npz", y=np.arange(120) % 3)
    ok("insert", "plain", "plain.npz")
    code, _, err = cli("insert", "plain", "1.npz", "--columns", "y,id")
    assert (code, "annotate DIR FILE" in err) == (2, True), err


def test_what_is_no_csv_names_the_file(refused):
    refused("sample", "mem", "--size", 9, "--out", "s.csv", says=["s.csv: column 'x'", ".npz"])
    assert not list(Path().glob("*s.csv*"))


# ------------------------------------------------------------- columns that do not come, or wait


def test_a_column_that_no_sample_has_is_named(cli, ok, tmp_path):
    """A label that comes later, or a name that is wrong: one line says so, and what there is."""
    ok("init", "mem", *INIT)
    columns = day(1)
    del columns["y"]
    np.savez("1.npz", **columns)
    code, _, err = cli("insert", "mem", "1.npz")
    assert code == 0
    assert "none of these 120 samples has 'y', which the policy reads" in err
    assert "Labels come late: memento memory label mem FILE. If the name is wrong" in err
    assert "there are 'x', 'yhat', 'id'" in err
    assert ok("status", "mem")["waiting"] == 120
    code, out, _ = cli("status", "mem")
    assert "waiting" in out
    assert all(line == line.rstrip() for line in out.splitlines())
    np.savez("labels.npz", id=columns["id"], y=np.zeros(120, int))
    ok("label", "mem", "labels.npz", "--id", "id")
    np.savez("2.npz", **day(2))
    assert "none of these" not in cli("insert", "mem", "2.npz")[2]
    assert ok("status", "mem")["waiting"] == 0
    assert "waiting" not in cli("status", "mem")[1]


def test_what_goes_is_told_apart(cli, ok, mem):
    """An insert into a full memory discards some of the fresh samples and some of those held."""
    np.savez("2.npz", **day(2, n=400))
    code, out, _ = cli("insert", "mem", "2.npz", "--unit", "tuesday")
    assert code == 0
    found = re.search(r"offered 400, kept (\d+), discarded (\d+), (\d+) of them held before", out)
    kept, discarded, before = map(int, found.groups())
    assert discarded - before == 400 - kept
    assert before > 0


def test_a_text_among_numbers_is_named_with_its_row(cli, ok, tmp_path):
    ok("init", "mem", *INIT)
    (tmp_path / "day.csv").write_text("y,a,b\n1,2,3\n0,,4\n1,twelve,5\n")
    code, _, err = cli("insert", "mem", "day.csv", "--map", "x=a,b")
    assert code == 2
    assert "column 'a' holds text, such as 'twelve' in row 2; columns that are stacked" in err


# ------------------------------------------------------------- predictions and labels with gaps


def test_predictions_that_an_insert_forgot(cli, ok, mem, weights):
    """They are named with the command that makes them, and nothing else breaks."""
    model = write_module("forgotten", more="model_version = 1")
    ok("annotate", mem, "--model", model)
    ok("trained", mem, "--model", model)
    np.savez("2.npz", **{name: column for name, column in day(2).items() if name != "yhat"})
    ok("insert", mem, "2.npz")
    for words in (["--decide"], ["--decide", "--threshold", 0.5], []):
        code, _, err = cli("status", mem, *words)
        assert code == 0, err
        assert "120 of 240 samples held have no predictions in 'yhat'" in err
        assert "memento memory annotate mem --model MODEL" in err
    assert ok("check", mem)["ok"]
    ok("annotate", mem, "--model", model)
    assert cli("status", mem, "--decide")[2] == ""


def test_numbers_that_come_late_are_no_damage(cli, ok):
    """Labels of a regression wait as classes do: what has them is compared."""
    ok("init", "reg", "--capacity", 400, "--values", "y", "--values", "yhat")
    for number in (1, 2):
        rng = np.random.default_rng(number)
        y = np.where(np.arange(120) % 2, rng.normal(size=120), np.nan)
        np.savez("r.npz", id=np.arange(120) + 1000 * number, y=y, yhat=rng.normal(size=120))
        ok("insert", "reg", "r.npz")
        if number == 1:
            ok("trained", "reg")
    found = ok("status", "reg", "--decide")
    assert 0 <= found["coverage"]["increase"] <= 1
    assert found["waiting"] == 120
    assert ok("check", "reg")["ok"]


def test_labels_that_none_has_yet_call_for_no_training(cli, ok):
    """An empty side is no rise: a job would train each day until labels come."""
    ok("init", "late", "--capacity", 400, "--labels", "y:2")
    Path("late.csv").write_text("id,x\n1,0.5\n2,0.6\n")
    code, _, err = cli("insert", "late", "late.csv")
    assert code == 0
    assert "Labels come late" in err
    assert "Predictions can be made" not in err
    ok("trained", "late")
    for more in ("", "3,0.7\n"):
        Path("late.csv").write_text(f"id,x\n9,0.1\n{more}")
        ok("insert", "late", "late.csv")
        found = ok("status", "late", "--decide", "--threshold", 0.5)
        assert not found["decision"]["due"]
        assert "has all of 'y' yet" in found["decision"]["reason"]


def test_columns_that_are_no_labels_are_attached(cli, ok):
    ok("init", "v", "--capacity", 400, "--values", "v")
    Path("v.csv").write_text("id,x\n1,0.5\n")
    _, _, err = cli("insert", "v", "v.csv")
    assert "Columns can be attached: memento memory annotate v FILE" in err
    assert "Labels come late" not in err


# --------------------------------------------------------------- losses, and whose columns are


def texts(seed: int, n: int = 240) -> dict[str, np.ndarray]:
    """Two classes by the sign of x, an eighth of them the other one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 1))
    fraud = (x[:, 0] > 0) != (rng.random(n) < 1 / 8)
    return {"x": x, "kind": np.where(fraud, "fraud", "fine"), "id": np.arange(n) + 1000 * seed}


def write_classes(name: str, columns: str) -> str:
    Path(f"{name}.py").write_text(
        "import numpy as np\nmodel_version = 1\n"
        f"def predict(x):\n    p = 1 / (1 + np.exp(-4 * x[:, 0]))\n    return {columns}\n"
    )
    return f"{name}:predict"


ORDERED, TURNED = "np.stack([1 - p, p], axis=1)", "np.stack([p, 1 - p], axis=1)"


def test_losses_of_classes_that_are_texts(cli, ok):
    """The labels trained on say whose columns are: losses of arrivals are compared."""
    ok("init", "m", "--capacity", 4000, "--labels", "kind", "--probabilities", "yhat")
    np.savez("1.npz", **texts(1))
    ok("insert", "m", "1.npz")
    model = write_classes("ordered", ORDERED)
    assert cli("trained", "m", "--model", model)[2] == ""
    np.savez("2.npz", **texts(2))
    ok("insert", "m", "2.npz", "--model", model)
    wrong = texts(3)
    wrong["kind"] = np.where(wrong["kind"] == "fraud", "fine", "fraud")
    np.savez("3.npz", **wrong)
    ok("insert", "m", "3.npz", "--model", model)
    found = ok("status", "m")["decision"]
    assert found["z_loss_90"] > 3
    assert found["worse"] > 1
    assert found["due"]


def test_a_policy_that_weighs_losses_gets_those_of_the_model(cli, ok):
    ok("init", "m", "--capacity", 4000, "--policy", "loss-reservoir")
    named = {"kind": "y"}
    first = {named.get(name, name): column for name, column in texts(1).items()}
    np.savez("1.npz", **first)
    ok("insert", "m", "1.npz")
    model = write_classes("ordered_too", ORDERED)
    ok("trained", "m", "--model", model)
    held = Memory.load("m").samples
    wrong = (held["x"][:, 0] > 0) != (held["y"] == "fraud")
    assert (held["loss"][wrong] > np.log(2)).all()
    assert (held["loss"][~wrong] < np.log(2)).all()
    second = {named.get(name, name): column for name, column in texts(2).items()}
    np.savez("2.npz", **second)
    ok("insert", "m", "2.npz", "--model", model)
    assert np.isfinite(Memory.load("m").samples["loss"]).all()
    assert ok("annotate", "m", "--model", model)["columns"] == ["yhat", "loss"]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (TURNED, "column 0 is taken for the label 'fine', whose samples have 0."),
        (
            "np.stack([p / 2, p / 2, 1 - p], axis=1)",
            "gives 3 columns, and the 'kind' held is one of 2",
        ),
    ],
)
def test_columns_in_another_order_than_labels_are_said(cli, ok, columns, says):
    ok("init", "m", "--capacity", 4000, "--labels", "kind", "--probabilities", "yhat")
    np.savez("1.npz", **texts(1))
    ok("insert", "m", "1.npz")
    name = f"other{len(columns)}"
    code, _, err = cli("trained", "m", "--model", write_classes(name, columns))
    assert code == 0
    assert f"{name}:predict" in err
    assert says in err


def test_what_inputs_were_called_is_remembered(ok):
    ok("init", "m", "--capacity", 100, "--labels", "y")
    Path("1.csv").write_text("y,f_10,f_2,hour\n1,2,3,4\n0,4,5,6\n")
    ok("insert", "m", "1.csv", "--map", "x=f_*,hour")
    assert Memory.load("m").stacked == {"x": ["f_2", "f_10", "hour"]}
    np.savez("2.npz", x=np.ones((3, 3)), y=np.arange(3))
    ok("insert", "m", "2.npz")
    assert Memory.load("m").stacked == {"x": ["f_2", "f_10", "hour"]}


def test_losses_that_a_file_states_stay(cli, ok):
    model = even_model("stated")
    ok("init", "m", "--capacity", 40, "--policy", "loss-reservoir")
    Path("a.csv").write_text("id,x,y,loss\n1,0.5,0,7\n2,0.6,1,\n")
    ok("insert", "m", "a.csv", "--model", model)
    assert Memory.load("m").samples["loss"] == pytest.approx([7, np.log(2)])
    Path("b.csv").write_text("id,x\n3,0.5\n")
    code, _, err = cli("insert", "m", "b.csv", "--model", model)
    assert code == 2
    assert "the policy reads 'loss', which --model makes with the label 'y'" in err
    assert "--map y=SOURCE" in err


def even_model(name: str) -> str:
    """A model that holds both classes for as likely."""
    text = "import numpy as np\ndef predict(x):\n    return np.full((len(x), 2), 0.5)\n"
    Path(f"{name}.py").write_text(text)
    return f"{name}:predict"
