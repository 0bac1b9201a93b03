"""`memento memory`: what it does, and that whatever fails leaves the memory exactly as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from called import code_of
from memento import Memory, OnArrivals, observe, snapshot
from memento.cli.main import main
from memento.policies import named_policies

CLASSES = 5


def make_day(n: int = 300, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, CLASSES))
    yhat = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {"x": logits, "y": rng.integers(0, CLASSES, n), "yhat": yhat}


def as_table(columns: dict[str, np.ndarray]) -> pa.Table:
    return pa.table(
        {name: list(array) if array.ndim > 1 else array for name, array in columns.items()}
    )


def as_wide_table(columns: dict[str, np.ndarray]) -> pa.Table:
    """One column a number, as telemetry comes; p_10 before p_2 would be wrong."""
    flat = {"label": columns["y"]}
    for prefix, name in (("f", "x"), ("p", "yhat")):
        flat |= {f"{prefix}_{i * 3}": columns[name][:, i] for i in reversed(range(CLASSES))}
    return pa.table(flat)


WIDE = ["--map", "y=label", "--map", "yhat=p_*", "--map", "x=f_*"]


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run the command line in this process; returns exit code, output and error stream."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = code_of(*words)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def mem(cli, tmp_path) -> Path:
    """A memory that has been filled and trained on, as any other day finds it."""
    folder = tmp_path / "mem"
    code, _, err = cli(
        "memory", "init", folder, "--capacity", 400, "--labels", f"y:{CLASSES}",
        "--probabilities", "yhat", "--batch-size", 16,
    )  # fmt: skip
    assert code == 0, err
    np.savez(tmp_path / "first.npz", **make_day())
    for words in (["insert", folder, tmp_path / "first.npz"], ["trained", folder]):
        code, _, err = cli("memory", *words)
        assert code == 0, err
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def refused(cli, mem):
    """Run something that has to fail, and check what every failure has in common."""

    def call(*words: object, says: list[str]) -> str:
        before = content(mem)
        code, out, err = cli(*words)
        assert code == 2, f"exit code {code}: {out}{err}"
        assert out == ""
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) <= 2, err
        for word in says:
            assert word in err, f"{word!r} is not in: {err}"
        assert content(mem) == before
        return err

    return call


# --- what it does ----------------------------------------------------------------------------


def test_init_from_options(cli, mem):
    memory = Memory.load(mem)
    assert memory.capacity == 400
    assert memory.policy.batch_size == 16
    assert [d.columns for d in memory.policy.distances] == [("y",), ("yhat",)]
    assert memory.policy.sort_columns == ("y", "yhat")


def test_init_says_that_there_is_room_and_no_samples(cli):
    code, out, _ = cli("memory", "init", "m", "--policy", "reservoir", "--capacity", 2000)
    assert code == 0
    assert out.startswith("made m: room for 2,000 samples, ")
    code, out, _ = cli("memory", "init", "n", "--policy", "unbounded")
    assert out.startswith("made n: no limit, ")


def test_the_last_setting_counts(cli):
    words = ("--capacity", 4000, "--labels", "y", "--batch-size", 8)
    code, _, err = cli(
        "memory", "init", "m", *words, "--set", "batch_size=16", "--set", "batch_size=32"
    )
    assert code == 0, err
    assert Memory.load("m").policy.batch_size == 32


def test_init_from_a_file_is_the_same(cli, mem, tmp_path):
    (tmp_path / "m.toml").write_text(
        f'capacity = 400\n[policy]\nlabels = ["y:{CLASSES}"]\n'
        'probabilities = "yhat"\nbatch_size = 16\n'
    )
    code, _, err = cli("memory", "init", "other", "--config", "m.toml")
    assert code == 0, err
    assert Memory.load("other").policy == Memory.load(mem).policy


def test_init_takes_the_policy_s_own_settings_from_a_file(cli, mem, tmp_path):
    settings = Memory.load(mem).policy.settings()
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in settings.items()
        if name != "distances" and value is not None
    ]
    for distance in settings["distances"]:
        lines += ["[[policy.distances]]", *(f"{n} = {json.dumps(v)}" for n, v in distance.items())]
    (tmp_path / "m.toml").write_text("\n".join(["capacity = 400", "[policy]", *lines]))
    code, _, err = cli("memory", "init", "other", "--config", "m.toml")
    assert code == 0, err
    assert Memory.load("other").policy == Memory.load(mem).policy


DROP = ["--set", "remainder=drop"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--labels", "y:5"], ["capacity"]),
        (["--capacity", "0", "--labels", "y:5"], ["capacity", "0"]),
        (["--capacity", "100"], ["--labels"]),
        (["--capacity", "100", "--labels", "y:"], ["'y:'", "NAME:CLASSES"]),
        (["--capacity", "100", "--labels", "y:0"], ["'y:0'"]),
        (["--capacity", "1000", "--labels", "y:5", "--bandwidth", "-1"], ["bandwidth"]),
        (["--capacity", "9", "--labels", "y:5", "--batch-size", "10", *DROP], ["batch"]),
        (["--capacity", "100", "--policy", "nonsense"], ["'nonsense'", "memento"]),
        (["--capacity", "9999", "--labels", "y:5", "--set", "colour=1"], ["'colour'", "bandwidth"]),
        (["--capacity", "9999", "--labels", "y:5", "--set", "colour"], ["NAME=VALUE"]),
        (["--config", "absent.toml"], ["absent.toml"]),
        (["--config", "m.toml", "--capacity", "5"], ["--capacity", "m.toml"]),
        (["--capacity", "many"], ["capacity"]),
    ],
)
def test_init_refuses_what_does_not_fit(cli, tmp_path, words, says):
    (tmp_path / "m.toml").write_text("capacity = 400\n")
    code, _, err = cli("memory", "init", "new", *words)
    assert code == 2
    for word in says:
        assert word in err
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("capacity = ", ["TOML"]),
        ("capacity = 4.5\n", ["capacity", "4.5"]),
        ("size = 4\n", ["'size'", "capacity"]),
        ("capacity = 400\npolicy = 3\n", ["policy"]),
        ("capacity = 4000\n[policy]\nlabels = [3]\n", ["labels"]),
        ("capacity = 4000\n[policy]\nlabels = ['y:3']\ncolour = 1\n", ["'colour'"]),
    ],
)
def test_init_names_what_is_wrong_in_a_file(cli, tmp_path, text, says):
    (tmp_path / "m.toml").write_text(text)
    code, _, err = cli("memory", "init", "new", "--config", "m.toml")
    assert code == 2
    for word in ["m.toml", *says]:
        assert word in err
    assert not Path("new").exists()


def test_init_does_not_touch_what_is_there(cli, refused, mem, tmp_path):
    refused("memory", "init", mem, "--capacity", 9000, "--labels", "y:5", says=["holds a memory"])
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.txt").write_text("miaow")
    refused("memory", "init", other, "--capacity", 9000, "--labels", "y:5", says=["cat.txt"])
    assert [path.name for path in other.iterdir() if path.name != "lock"] == ["cat.txt"]


WRITERS = {
    "day.parquet": pa.parquet.write_table,
    "day.pq": pa.parquet.write_table,
    "day.feather": pa.feather.write_feather,
    "day.arrow": pa.feather.write_feather,
    "stream.arrow": lambda table, path: _write_stream(table, path),
    "day.npz": lambda table, path: np.savez(path, **make_day(200, 1)),
}


def _write_stream(table, path):
    with pa.ipc.new_stream(path, table.schema) as sink:
        sink.write_table(table)


@pytest.mark.parametrize("name", WRITERS)
def test_insert_reads_all_types_alike(cli, mem, name):
    day = make_day(200, 1)
    WRITERS[name](as_table(day), name)
    expected = Memory.load(mem)
    expected.insert(day)
    code, out, err = cli("memory", "insert", mem, name, "--json")
    assert code == 0, err
    found = Memory.load(mem)
    for column in found.samples:
        np.testing.assert_array_equal(found.samples[column], expected.samples[column])
    facts = json.loads(out)
    assert facts["offered"] == 200
    assert facts["size"] == len(found)
    assert facts["seen"] == 500


@pytest.mark.parametrize("name", ["wide.csv", "wide.csv.gz", "wide.tsv", "wide.parquet"])
def test_insert_stacks_and_renames_columns(cli, mem, name):
    day = make_day(200, 1)
    table = as_wide_table(day)
    if name.endswith(".parquet"):
        pa.parquet.write_table(table, name)
    else:
        options = pa.csv.WriteOptions(delimiter="\t" if ".tsv" in name else ",")
        with (
            pa.CompressedOutputStream(name, "gzip")
            if name.endswith("gz")
            else open(name, "wb") as sink
        ):
            pa.csv.write_csv(table, sink, options)
    expected = Memory.load(mem)
    expected.insert(day)
    code, _, err = cli("memory", "insert", mem, name, *WIDE)
    assert code == 0, err
    found = Memory.load(mem)
    for column in found.samples:
        np.testing.assert_array_equal(found.samples[column], expected.samples[column])


def test_insert_of_several_files_is_one_insert_in_natural_order(cli, mem):
    days = [make_day(100, seed) for seed in range(3)]
    for number, day in zip((1, 2, 10), days, strict=True):
        pa.parquet.write_table(as_table(day), f"day-{number}.parquet")
    expected = Memory.load(mem)
    expected.insert({name: np.concatenate([day[name] for day in days]) for name in days[0]})
    code, _, err = cli("memory", "insert", mem, "day-*.parquet")
    assert code == 0, err
    found = Memory.load(mem)
    assert found.inserts == 2
    np.testing.assert_array_equal(found.samples["x"], expected.samples["x"])


def test_insert_goes_on_exactly_from_disk(cli, mem):
    straight = Memory.load(mem)
    for seed in range(3):
        np.savez("day.npz", **make_day(200, seed))
        observe(straight, make_day(200, seed), OnArrivals(witnesses=0.0))
        code, _, err = cli("memory", "insert", mem, "day.npz")
        assert code == 0, err
    found = Memory.load(mem)
    documents = [memory.dump()[1] for memory in (found, straight)]
    known = [document["memory"].pop("units") for document in documents]
    assert len(known[0]) == 4  # the command knows its files again
    assert json.dumps(documents[0]) == json.dumps(documents[1])
    np.testing.assert_array_equal(found.samples["x"], straight.samples["x"])


def test_insert_leaves_out_columns_that_are_not_held(cli, mem):
    np.savez("day.npz", extra=np.arange(100), **make_day(100, 1))
    code, _, err = cli("memory", "insert", mem, "day.npz")
    assert code == 0, err
    assert set(Memory.load(mem).samples) == {"x", "y", "yhat"}


def test_insert_keeps_only_the_columns_asked_for(cli, tmp_path):
    np.savez("day.npz", **make_day(100, 1))
    assert cli("memory", "init", "m", "--capacity", 900, "--labels", "y:5")[0] == 0
    assert cli("memory", "insert", "m", "day.npz", "--columns", "y,x")[0] == 0
    assert list(Memory.load("m").samples) == ["y", "x"]


def test_missing_values_are_fine_where_no_distance_looks(cli, mem):
    day = make_day(100, 1)
    day["x"] = day["x"].copy()
    day["x"][3, 2] = np.nan
    np.savez("day.npz", **day)
    assert cli("memory", "insert", mem, "day.npz")[0] == 0


def test_status(cli, mem):
    np.savez("day.npz", **make_day(90, 1))
    cli("memory", "insert", mem, "day.npz")
    code, out, err = cli("memory", "status", mem, "--json")
    assert code == 0, err
    facts = json.loads(out)
    memory = Memory.load(mem)
    assert (facts["size"], facts["seen"], facts["capacity"]) == (len(memory), 390, 400)
    assert facts["composition"]["y"] == np.bincount(memory.samples["y"], minlength=5).tolist()
    assert sum(group["held"] for group in facts["ages"]) == len(memory)
    assert [group["insert"] for group in facts["ages"]] == [1, 2]
    assert 0 <= facts["coverage"]["increase"] <= 1
    assert facts["decision"]["due"] is False
    code, out, _ = cli("memory", "status", mem)
    assert code == 0
    for word in ("390 seen", "age 0", "age 1", "not due"):
        assert word in out


def test_status_without_coverage(cli, mem):
    facts = json.loads(cli("memory", "status", mem, "--json", "--no-coverage")[1])
    assert "coverage" not in facts
    assert facts["decision"]["due"] is False


def test_decide(cli, mem, tmp_path):
    assert cli("memory", "status", mem, "--decide")[0] == 0
    for seed in (11, 12):  # nothing changes
        np.savez(f"day-{seed}.npz", **make_day(300, seed))
        cli("memory", "insert", mem, f"day-{seed}.npz")
        code, out, _ = cli("memory", "status", mem, "--decide", "--json")
        assert code == 0, out
    # A day of one class that was rare, predicted with certainty: new ground.
    fresh = {
        "x": np.zeros((300, CLASSES)),
        "y": np.full(300, 4),
        "yhat": np.tile(np.eye(CLASSES)[4], (300, 1)),
    }
    np.savez("new.npz", **fresh)
    cli("memory", "insert", mem, "new.npz")
    code, out, _ = cli("memory", "status", mem, "--decide", "--json")
    facts = json.loads(out)
    assert code == 10
    assert facts["decision"]["due"] is True
    assert facts["decision"]["value"] >= facts["decision"]["threshold"] == 200
    assert facts["coverage"]["increase"] >= 0.1
    assert cli("memory", "status", mem, "--decide", "--no-coverage")[0] == 10
    assert cli("memory", "trained", mem)[0] == 0
    assert cli("memory", "status", mem, "--decide")[0] == 0


def test_decide_by_coverage(cli, mem, tmp_path):
    assert cli("memory", "status", mem, "--decide", "--threshold", 0.1)[0] == 0
    fresh = {
        "x": np.zeros((300, CLASSES)),
        "y": np.full(300, 4),
        "yhat": np.tile(np.eye(CLASSES)[4], (300, 1)),
    }
    np.savez("new.npz", **fresh)
    cli("memory", "insert", mem, "new.npz")
    assert cli("memory", "status", mem, "--decide")[0] == 0, "the first after a training"
    assert cli("memory", "status", mem, "--decide", "--threshold", 0.1)[0] == 10
    assert cli("memory", "status", mem, "--decide", "--threshold", 0.99)[0] == 0


def test_decide_before_anything_was_trained_or_held(cli, tmp_path):
    cli("memory", "init", "m", "--capacity", 900, "--labels", "y:5")
    assert cli("memory", "status", "m", "--decide")[0] == 0
    np.savez("day.npz", **make_day())
    cli("memory", "insert", "m", "day.npz")
    code, out, _ = cli("memory", "status", "m", "--decide")
    assert code == 10
    assert "nothing was trained yet" in out


@pytest.mark.parametrize("name", ["out.parquet", "out.npz", "out.arrow"])
def test_export_can_be_inserted_again(cli, mem, name):
    code, _, err = cli("memory", "export", mem, name)
    assert code == 0, err
    cli("memory", "init", "copy", "--capacity", 900, "--labels", "y:5")
    code, _, err = cli("memory", "insert", "copy", name)
    assert code == 0, err
    for column, array in Memory.load(mem).samples.items():
        np.testing.assert_array_equal(Memory.load("copy").samples[column], array)


def test_export_of_images_and_strings(cli, tmp_path):
    day = {
        "y": np.arange(6) % 3,
        "image": np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3),
        "name": np.array(["a", "bb", "", "d", "e", "ff"]),
        "when": np.arange(6).astype("datetime64[s]"),
    }
    np.savez("day.npz", **day)
    cli("memory", "init", "m", "--capacity", 900, "--labels", "y:3")
    assert cli("memory", "insert", "m", "day.npz")[0] == 0
    assert cli("memory", "export", "m", "out.parquet")[0] == 0
    cli("memory", "init", "copy", "--capacity", 900, "--labels", "y:3")
    code, _, err = cli("memory", "insert", "copy", "out.parquet")
    assert code == 0, err
    for column, array in day.items():
        np.testing.assert_array_equal(Memory.load("copy").samples[column], array)


def test_export_states_weights(cli, tmp_path):
    cli("memory", "init", "m", "--capacity", 50, "--policy", "reservoir")
    np.savez("day.npz", **make_day(200))
    cli("memory", "insert", "m", "day.npz")
    cli("memory", "export", "m", "out.npz")
    with np.load("out.npz") as archive:
        assert archive["weight"].sum() == pytest.approx(200)
    cli("memory", "export", "m", "out.npz", "--no-weights")
    with np.load("out.npz") as archive:
        assert "weight" not in archive.files


def test_check(cli, mem):
    code, out, _ = cli("memory", "check", mem, "--json")
    assert code == 0
    assert json.loads(out)["ok"] is True


OPTIONS = {
    "memento": ["--labels", "y:5", "--probabilities", "yhat", "--batch-size", 16],
    "density-reservoir": ["--labels", "y:5", "--probabilities", "yhat", "--batch-size", 16],
    "metric": ["--set", "column=loss"],
}


# Tests register policies of their own, too.
SHIPPED = sorted(k for k, p in named_policies.items() if p.__module__.startswith("memento."))


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_policy_works_from_the_command_line(cli, tmp_path, kind):
    capacity = [] if kind == "unbounded" else ["--capacity", 100]
    code, _, err = cli("memory", "init", "m", "--policy", kind, *capacity, *OPTIONS.get(kind, []))
    assert code == 0, err
    for seed in range(3):
        day = make_day(80, seed)
        day["loss"] = day["x"][:, 0] ** 2
        day["committee"] = np.stack([day["yhat"]] * 3, axis=1)
        day["embedding"], day["gradient"] = day["x"], day["yhat"]
        np.savez("day.npz", **day)
        code, _, err = cli("memory", "insert", "m", "day.npz")
        assert code == 0, err
    size = 240 if kind == "unbounded" else len(Memory.load("m"))
    assert json.loads(cli("memory", "check", "m", "--json")[1])["size"] == size
    assert cli("memory", "trained", "m")[0] == 0
    facts = json.loads(cli("memory", "status", "m", "--json")[1])
    assert facts["size"] == size
    compares = kind in ("memento", "density-reservoir")
    assert (facts["coverage"] is not None) == compares
    assert cli("memory", "status", "m", "--decide")[0] == 0
    by_coverage = cli("memory", "status", "m", "--decide", "--threshold", 0.1)[0]
    assert by_coverage == (0 if compares else 2)
    assert cli("memory", "export", "m", "out.npz")[0] == 0


# --- models ----------------------------------------------------------------------------------

MODEL = """
import numpy as np
SCALE = {scale}
def predict(x):
    e = np.exp(SCALE * x - (SCALE * x).max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
def logits(x):
    return SCALE * x
"""


@pytest.fixture
def function_model(tmp_path, monkeypatch):
    """Writes modules with a model in them; forgets them afterwards."""
    made = []
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(name: str, scale: float) -> str:
        (tmp_path / f"{name}.py").write_text(MODEL.format(scale=scale))
        made.append(name)
        return f"{name}:predict"

    yield make
    for name in made:
        sys.modules.pop(name, None)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_a_function_predicts(cli, mem, function_model):
    day = make_day(80, 1)
    np.savez("day.npz", x=day["x"], y=day["y"])
    code, _, err = cli("memory", "insert", mem, "day.npz", "--model", function_model("one", 2.0))
    assert code == 0, err
    memory = Memory.load(mem)
    # What was held before has predictions of this model now too, and so has the reference.
    np.testing.assert_allclose(memory.samples["yhat"], softmax(2 * memory.samples["x"]))
    np.testing.assert_allclose(memory.reference["yhat"], softmax(2 * memory.reference["x"]))
    assert memory.model is not None


def test_a_new_model_predicts_everything_again(cli, mem, function_model):
    day = make_day(80, 1)
    np.savez("day.npz", x=day["x"], y=day["y"])
    cli("memory", "insert", mem, "day.npz", "--model", function_model("two", 2.0))
    first = Memory.load(mem).model
    code, _, err = cli("memory", "trained", mem, "--model", function_model("three", 3.0))
    assert code == 0, err
    memory = Memory.load(mem)
    assert memory.model != first
    np.testing.assert_allclose(memory.samples["yhat"], softmax(3 * memory.samples["x"]))
    np.testing.assert_allclose(memory.reference["yhat"], softmax(3 * memory.reference["x"]))


def test_logits_become_probabilities(cli, mem, function_model):
    day = make_day(80, 1)
    np.savez("day.npz", x=day["x"], y=day["y"])
    function_model("four", 1.0)
    code, _, err = cli("memory", "insert", mem, "day.npz", "--model", "four:logits", "--softmax")
    assert code == 0, err
    np.testing.assert_allclose(Memory.load(mem).samples["yhat"].sum(axis=1), 1)


def test_inputs_may_be_stacked_and_not_held(cli, tmp_path, function_model):
    day = make_day(80, 1)
    pa.parquet.write_table(as_wide_table(day), "day.parquet")
    cli("memory", "init", "m", "--capacity", 900, "--labels", "y:5", "--probabilities", "yhat")
    code, _, err = cli(
        "memory", "insert", "m", "day.parquet", "--map", "y=label", "--map", "x=f_*",
        "--columns", "y,yhat", "--model", function_model("five", 1.0),
    )  # fmt: skip
    assert code == 0, err
    memory = Memory.load("m")
    assert list(memory.samples) == ["y", "yhat"]
    np.testing.assert_allclose(memory.samples["yhat"], softmax(day["x"]))


def test_torchscript_predicts(cli, mem):
    torch = pytest.importorskip("torch")
    day = make_day(80, 1)
    np.savez("day.npz", x=day["x"], y=day["y"])

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(CLASSES, CLASSES)

        def forward(self, x):
            return torch.softmax(self.layer(x), dim=1)

    net = Net()
    torch.jit.script(net).save("model.pt")
    code, _, err = cli("memory", "insert", mem, "day.npz", "--model", "model.pt")
    assert code == 0, err
    samples = Memory.load(mem).samples
    expected = net(torch.tensor(samples["x"], dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(samples["yhat"], expected, rtol=1e-5)


def test_onnx_predicts(cli, mem):
    onnx = pytest.importorskip("onnx")
    day = make_day(80, 1)
    np.savez("day.npz", x=day["x"], y=day["y"])
    weight = np.random.default_rng(0).normal(size=(CLASSES, CLASSES)).astype(np.float32)
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["inputs", "weight"], ["logits"]),
            onnx.helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "net",
        [onnx.helper.make_tensor_value_info("inputs", floats, [None, CLASSES])],
        [onnx.helper.make_tensor_value_info("probabilities", floats, [None, CLASSES])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), "model.onnx")
    code, _, err = cli("memory", "insert", mem, "day.npz", "--model", "model.onnx")
    assert code == 0, err
    samples = Memory.load(mem).samples
    np.testing.assert_allclose(samples["yhat"], softmax(samples["x"] @ weight), rtol=1e-4)


def test_damaged_weights_of_torchscript_are_told(refused, mem):
    torch = pytest.importorskip("torch")
    np.savez("day.npz", **make_day(80, 1))
    torch.jit.script(torch.nn.Linear(CLASSES, CLASSES)).save("net.pt")
    content = Path("net.pt").read_bytes()
    with zipfile.ZipFile("net.pt") as archive:
        weights = archive.read(next(n for n in archive.namelist() if n.endswith("data/0")))
    at = content.index(weights)
    Path("net.pt").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    refused("memory", "insert", mem, "day.npz", "--model", "net.pt", says=["net.pt", "damaged"])


def test_a_pickled_model_is_refused_unread(refused, mem, tmp_path):
    torch = pytest.importorskip("torch")
    np.savez("day.npz", **make_day(80, 1))
    torch.save({"weight": torch.zeros(3)}, "state.pt")
    refused(
        "memory", "insert", mem, "day.npz", "--model", "state.pt", says=["state.pt", "TorchScript"]
    )
    marker = tmp_path / "executed"
    bomb = f"cos\nsystem\n(S'touch {marker}'\ntR."
    Path("bomb.pt").write_text(bomb)
    refused("memory", "insert", mem, "day.npz", "--model", "bomb.pt", says=["bomb.pt"])
    assert not marker.exists()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("absent.pt", ["absent.pt", "no such file"]),
        ("absent.onnx", ["absent.onnx", "no such file"]),
        ("broken.onnx", ["broken.onnx", "ONNX"]),
        ("broken.pt", ["broken.pt", "TorchScript"]),
        ("model.h5", ["model.h5", "module:function"]),
        ("absent_module:predict", ["absent_module"]),
        ("seven:absent", ["'absent'", "predict"]),
        ("seven:logits", ["day.npz", "80", "yhat"]),
        ("seven:wrong_rows", ["day.npz", "80", "shape"]),
        ("seven:wrong_values", ["day.npz", "NaN", "row 0"]),
        ("seven:raises", ["day.npz", "(80, 5)", "oh dear"]),
    ],
)
def test_models_that_cannot_be_used(refused, mem, function_model, tmp_path, model, says):
    if model.startswith("broken"):
        pytest.importorskip("onnxruntime" if model.endswith(".onnx") else "torch")
    function_model("seven", 2.0)
    with (tmp_path / "seven.py").open("a") as module:
        module.write("def wrong_rows(x):\n    return x[1:]\n")
        module.write("def wrong_values(x):\n    return x * np.nan\n")
        module.write("def raises(x):\n    raise RuntimeError('oh dear')\n")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    (tmp_path / "broken.pt").write_bytes(b"not a model")
    day = make_day(80, 1)
    np.savez("day.npz", x=day["x"], y=day["y"])
    refused("memory", "insert", mem, "day.npz", "--model", model, says=says)


def test_a_model_needs_its_inputs(refused, mem, function_model):
    day = make_day(80, 1)
    np.savez("day.npz", y=day["y"])
    refused(
        "memory", "insert", mem, "day.npz", "--model", function_model("eight", 1.0),
        says=["day.npz", "'x'", "missing"],
    )  # fmt: skip


def test_mixing_predictions_is_pointed_out(cli, mem, function_model):
    np.savez("day.npz", **make_day(20, 1))
    assert cli("memory", "insert", mem, "day.npz", "--model", function_model("nine", 2.0))[0] == 0
    np.savez("day.npz", **make_day(20, 2))
    code, _, err = cli("memory", "insert", mem, "day.npz")
    assert code == 0
    assert "warning" in err
    assert "one model" in err


# --- what it refuses -------------------------------------------------------------------------


def changed(**columns) -> dict[str, np.ndarray]:
    return {**make_day(50, 1), **columns}


def spoilt(name: str, row: int, value: float) -> dict[str, np.ndarray]:
    day = make_day(50, 1)
    day[name] = day[name].astype(np.result_type(day[name], type(value)))
    day[name][row] = value
    return day


BAD = {
    "missing column": (
        {name: column for name, column in make_day(50, 1).items() if name != "yhat"},
        ["'yhat'", "missing", "--map"],
    ),
    "missing column that is only carried": (
        {name: column for name, column in make_day(50, 1).items() if name != "x"},
        ["'x'", "missing", "--map"],
    ),
    "unequal lengths": (changed(y=np.zeros(49, int)), ["y: 49", "yhat: 50"]),
    "NaN": (spoilt("yhat", 7, float("nan")), ["(50 rows)", "'yhat'", "NaN", "row 7"]),
    "infinite": (spoilt("yhat", 8, float("inf")), ["(50 rows)", "'yhat'", "infinite", "row 8"]),
    "negative probability": (spoilt("yhat", 9, -0.25), ["'yhat'", "negative", "row 9", "-0.25"]),
    "sum of probabilities": (spoilt("yhat", 5, 0.3), ["'yhat'", "sum to 1", "row 5", "1.5"]),
    "label too large": (spoilt("y", 4, CLASSES), ["'y'", "out of range", "row 4", "0 to 4"]),
    "label negative": (spoilt("y", 6, -1), ["'y'", "out of range", "-1 in row 6"]),
    "labels as strings": (changed(y=np.array(["a"] * 50)), ["'y'", "<U1"]),
    "labels as fractions": (changed(y=np.full(50, 0.5)), ["'y'"]),
    "labels as times": (changed(y=np.zeros(50, "m8[s]")), ["'y'", "int64", "--types y=text"]),
    "probabilities flat": (changed(yhat=np.ones(50)), ["'yhat'", "shape ()", "(5,)"]),
    "inputs too narrow": (changed(x=np.zeros((50, 4))), ["'x'", "(4,)", "(5,)"]),
    "inputs of another type": (changed(x=np.full((50, 5), "a")), ["'x'", "<U1", "float64"]),
    "a single value": (changed(y=np.int64(3)), ["'y'", "single value"]),
    "no rows": ({name: column[:0] for name, column in make_day(5).items()}, ["no rows"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns(refused, mem, case):
    columns, says = BAD[case]
    np.savez("bad.npz", **columns)
    refused("memory", "insert", mem, "bad.npz", says=["bad.npz", *says])


@pytest.mark.parametrize("case", ["NaN", "missing column", "label too large"])
def test_one_bad_file_among_good_ones_changes_nothing(refused, mem, case):
    columns, says = BAD[case]
    np.savez("good.npz", **make_day(100, 2))
    np.savez("zbad.npz", **columns)
    refused("memory", "insert", mem, "*.npz", says=["zbad.npz", *says])


def test_files_that_do_not_fit_together(cli, tmp_path):
    day = make_day(50, 1)
    np.savez("a.npz", **day)
    np.savez("b.npz", **{**day, "x": day["x"][:, :3]})
    np.savez("c.npz", y=day["y"], yhat=day["yhat"])
    cli("memory", "init", "m", "--capacity", 900, "--labels", "y:5", "--probabilities", "yhat")
    code, _, err = cli("memory", "insert", "m", "a.npz", "b.npz")
    assert (code, "b.npz" in err, "width 3" in err, "a.npz" in err) == (2, True, True, True)
    code, _, err = cli("memory", "insert", "m", "a.npz", "c.npz")
    assert (code, "c.npz" in err, "--columns" in err, "a.npz" in err) == (2, True, True, True)
    assert len(Memory.load("m")) == 0


def test_values_that_are_missing(cli, mem):
    day = make_day(50, 1)
    labels = pa.array([None if i == 11 else int(v) for i, v in enumerate(day["y"])])
    pa.parquet.write_table(as_table(day).set_column(1, "y", labels), "day.parquet")
    code, _, err = cli("memory", "insert", mem, "day.parquet")
    assert code == 0, err
    assert np.isnan(Memory.load(mem).samples["y"]).sum() <= 1


def test_missing_probabilities_in_a_csv(refused, mem):
    lines = [
        "label," + ",".join(f"p_{i}" for i in range(5)) + "," + ",".join(f"f_{i}" for i in range(5))
    ]
    lines += ["1,0.2,0.2,0.2,0.2,0.2,0,0,0,0,0", "1,0.2,,0.2,0.2,0.2,0,0,0,0,0"]
    Path("bad.csv").write_text("\n".join(lines))
    refused(
        "memory", "insert", mem, "bad.csv", *WIDE, says=["bad.csv", "(2 rows)", "'yhat'", "row 1"]
    )


def test_text_in_a_column_of_numbers(refused, mem):
    lines = [
        "label," + ",".join(f"p_{i}" for i in range(5)) + "," + ",".join(f"f_{i}" for i in range(5))
    ]
    lines += ["1,0.2,0.2,0.2,0.2,0.2,0,0,0,0,0", "1,0.2,much,0.2,0.2,0.2,0,0,0,0,0"]
    Path("bad.csv").write_text("\n".join(lines))
    refused("memory", "insert", mem, "bad.csv", *WIDE, says=["bad.csv", "'p_1'", "'much' in row 1"])


def test_a_csv_line_that_is_too_short(refused, mem):
    Path("bad.csv").write_text("y,z\n1,2\n1\n")
    refused(
        "memory", "insert", mem, "bad.csv", "--columns", "y", says=["bad.csv", "csv", "2 columns"]
    )


def test_ragged_lists(refused, mem):
    day = make_day(3, 1)
    table = as_table(day).set_column(2, "yhat", pa.array([[0.5, 0.5], [1.0], [1.0]]))
    pa.parquet.write_table(table, "bad.parquet")
    refused("memory", "insert", mem, "bad.parquet", says=["bad.parquet", "'yhat'", "ragged"])


@pytest.mark.parametrize("name", ["e.parquet", "e.csv", "e.arrow", "e.npz"])
def test_empty_files(refused, mem, name):
    Path(name).write_bytes(b"")
    refused("memory", "insert", mem, name, says=[name, "empty"])


def test_a_csv_of_a_header_only(refused, mem):
    Path("e.csv").write_text("x,y,yhat\n")
    refused("memory", "insert", mem, "e.csv", says=["e.csv", "no rows"])


@pytest.mark.parametrize("name", ["day.parquet", "day.feather", "day.npz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_files(refused, mem, name, share):
    WRITERS[name](as_table(make_day(200, 1)), name)
    whole = Path(name).read_bytes()
    Path(name).write_bytes(whole[: int(len(whole) * share)])
    refused("memory", "insert", mem, name, says=[name, "truncated", "again"])


def test_a_parquet_file_damaged_in_the_middle(refused, mem):
    pa.parquet.write_table(as_table(make_day(200, 1)), "day.parquet", write_page_checksum=True)
    whole = bytearray(Path("day.parquet").read_bytes())
    whole[100:400] = bytes(300)
    Path("day.parquet").write_bytes(whole)
    refused("memory", "insert", mem, "day.parquet", says=["day.parquet", "parquet"])


def test_a_file_of_another_type_than_its_name(refused, mem):
    Path("day.parquet").write_text("y\n1\n")
    refused("memory", "insert", mem, "day.parquet", says=["day.parquet", "another type"])
    np.save("array.npy", np.zeros(3))
    Path("array.npy").rename("array.npz")
    refused("memory", "insert", mem, "array.npz", says=["array.npz", "another type"])


def test_objects_are_never_unpickled(refused, mem):
    day = make_day(3, 1)
    np.savez("day.npz", **{**day, "y": np.array([{}, 1, 2], dtype=object)})
    refused("memory", "insert", mem, "day.npz", says=["day.npz", "'y'", "objects"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["day.xlsx"], ["day.xlsx", "unknown type", ".parquet"]),
        (["day"], ["unknown type", "no ending"]),
        (["absent.parquet"], ["absent.parquet", "no such file"]),
        (["absent-*.parquet"], ["absent-*.parquet", "no file matches"]),
        (["folder"], ["folder", "*.parquet"]),
        (["day.npz", "day.npz"], ["day.npz", "twice"]),
        (["day.npz", "--map", "y"], ["--map", "NAME=SOURCE"]),
        (["day.npz", "--map", "y=label"], ["'label'", "missing"]),
        (["day.npz", "--map", "y=l_*"], ["l_*", "no column matches"]),
        (["day.npz", "--map", "y=z"], ["'y'", "--map y_raw=y"]),
        (["day.npz", "--map", "y=y", "--map", "y=x"], ["'y'", "twice"]),
        (["day.npz", "--columns", "y,absent"], ["'absent'", "missing"]),
        (["day.npz", "--columns", "y,yhat"], ["day.npz", "'x'", "missing", "--map x"]),
        ([], ["FILE"]),
    ],
)
def test_wrong_words(cli, mem, words, says):
    day = make_day(20, 1)
    np.savez("day.npz", z=day["y"], **day)
    for name in ("day.xlsx", "day"):
        Path(name).write_bytes(b"abc")
    Path("folder").mkdir()
    before = content(mem)
    code, _, err = cli("memory", "insert", mem, *words)
    assert code == 2, err
    for word in says:
        assert word in err
    assert content(mem) == before


def test_only_numbers_are_stacked(cli, tmp_path):
    day = make_day(20, 1)
    np.savez("day.npz", x=day["x"], y=day["y"], s=np.array(["a"] * 20))
    cli("memory", "init", "m", "--capacity", 900, "--probabilities", "yhat")
    for source, says in (("x,y", "'x'"), ("y,s", "'s'")):
        code, _, err = cli("memory", "insert", "m", "day.npz", "--map", f"yhat={source}")
        assert (code, says in err, "one number" in err) == (2, True, True), err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trained", "m"], ["no samples", "insert"]),
        (["export", "m", "out.npz"], ["no samples", "insert"]),
        (["export", "mem", "out.xlsx"], ["out.xlsx", "unknown type"]),
        (["export", "weighted", "out.npz"], ["'weight'", "--no-weights"]),
        (["status", "mem", "--threshold", 1.5], ["threshold", "1.5"]),
        (["insert", "weighted", "w.npz", "--model", "ten:predict"], ["0 columns", "--predictions"]),
        (["insert", "m", "w.npz", "--model", "ten:predict", "--inputs", "name"], ["'name'", "<U1"]),
        (["insert", "bare", "w.npz", "--model", "ten:predict"], ["another model", "'x'"]),
        (["insert", "m", "w.npz", "--model", "ten:predict", "--inputs", "z"], ["'z'", "--inputs"]),
    ],
)
def test_commands_that_make_no_sense(cli, mem, function_model, words, says):
    function_model("ten", 1.0)
    day = make_day(20, 1)
    np.savez("w.npz", weight=np.ones(20), name=np.array(["a"] * 20), **day)
    cli("memory", "init", "m", "--capacity", 900, "--probabilities", "yhat")
    cli("memory", "init", "bare", "--capacity", 900, "--probabilities", "yhat")
    assert cli("memory", "insert", "bare", "w.npz", "--columns", "yhat")[0] == 0
    cli("memory", "init", "weighted", "--capacity", 900, "--policy", "reservoir")
    assert cli("memory", "insert", "weighted", "w.npz")[0] == 0
    np.savez("w.npz", weight=np.ones(20), name=np.array(["b"] * 20), **day)
    code, out, err = cli("memory", *words)
    assert (code, out) == (2, ""), err
    for word in says:
        assert word in err


# --- folders ---------------------------------------------------------------------------------

COMMANDS = [["insert", "day.npz"], ["status"], ["trained"], ["export", "out.npz"], ["check"]]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_folders_that_hold_no_memory(cli, mem, tmp_path, command):
    np.savez("day.npz", **make_day(20, 1))
    name, *rest = command
    code, _, err = cli("memory", name, "absent", *rest)
    assert (code, "absent" in err, "does not exist" in err) == (2, True, True)
    assert not Path("absent").exists()
    Path("foreign").mkdir()
    Path("foreign/notes.txt").write_text("mine")
    code, _, err = cli("memory", name, "foreign", *rest)
    assert (code, "foreign" in err) == (2, True)
    assert [path.name for path in Path("foreign").iterdir()] == ["notes.txt"]
    code, _, err = cli("memory", name, "day.npz", *rest)
    assert (code, "day.npz" in err) == (2, True)
    Path("foreign/manifest.json").write_text('{"version": 3}')
    code, _, err = cli("memory", name, "foreign", *rest)
    assert (code, "manifest.json" in err) == (2, True)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_damaged_folders(cli, mem, command):
    np.savez("day.npz", **make_day(20, 1))
    name, *rest = command
    whole = content(mem)
    for file, data in whole.items():
        if file == "lock":
            continue
        (mem / file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        code, _, err = cli("memory", name, mem, *rest)
        assert code == 2, (file, err)
        assert Path(file).name in err
        (mem / file).unlink()
        code, _, err = cli("memory", name, mem, *rest)
        assert code == 2, (file, err)
        assert Path(file).name in err or "no memory" in err
        (mem / file).write_bytes(data)
    assert cli("memory", name, mem, *rest)[0] == 0


def test_check_finds_what_contradicts_itself(cli, mem):
    found = snapshot.read(mem, "memento-memory")
    documents = {name: dict(document) for name, document in found.documents.items()}
    documents["memory"]["capacity"] = 50
    snapshot.write(mem, "memento-memory", found.arrays, documents)
    code, _, err = cli("memory", "check", mem)
    assert (code, "capacity is 50" in err) == (2, True)
    documents["memory"] |= {"capacity": 400, "seen": 3}
    snapshot.write(mem, "memento-memory", found.arrays, documents)
    code, _, err = cli("memory", "check", mem)
    assert (code, "seen" in err) == (2, True)  # what was offered says so, too
    of_before = {name: document for name, document in documents.items() if name != "offered"}
    arrays = {n: array for n, array in found.arrays.items() if not n.startswith("offered/")}
    snapshot.write(mem, "memento-memory", arrays, of_before)
    code, _, err = cli("memory", "check", mem)
    assert (code, "only 3 were seen" in err) == (2, True)


@pytest.mark.parametrize(
    "command", [["insert", "day.npz"], ["trained"]], ids=lambda words: words[0]
)
def test_a_second_writer_is_turned_away(refused, mem, command):
    np.savez("day.npz", **make_day(20, 1))
    name, *rest = command
    with snapshot.lock_of(mem):
        refused("memory", name, mem, *rest, says=[str(mem), "another process", "repeat"])


def test_readers_do_not_wait_for_a_writer(cli, mem):
    with snapshot.lock_of(mem):
        for name, *rest in (["status"], ["export", "out.npz"], ["check"]):
            assert cli("memory", name, mem, *rest)[0] == 0


# Runs the command line in a process of its own, after some preparation there.
ALONE = """
import sys
from memento.cli import memory, tables
from memento.cli.main import main
import resource, signal, os
{prepare}
main(sys.argv[1:])
"""


def alone(prepare: str, *words: object) -> tuple[int, str]:
    script = ALONE.format(prepare=prepare)
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result.returncode, result.stderr


@pytest.mark.parametrize("command", [["insert", "big.npz"], ["trained"], ["export", "out.npz"]])
def test_a_full_disk(cli, mem, tmp_path, command):
    """A limit on the size of files stands in for a disk without room: the same call fails alike."""
    np.savez("big.npz", **make_day(90, 1))
    Path("out.npz").write_bytes(b"older")
    before = content(mem)
    name, *rest = command
    prepare = (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    )
    code, err = alone(prepare, "memory", name, mem, *rest)
    assert code == 2, err
    assert "Traceback" not in err
    assert "free some space" in err
    assert content(mem) == before
    assert Path("out.npz").read_bytes() == b"older"
    assert not list(tmp_path.glob(".*.tmp"))
    code, _, err = cli("memory", name, mem, *rest)
    assert code == 0, err


@pytest.mark.parametrize("moment", range(12))
def test_a_disk_that_fills_up_at_any_file(cli, refused, mem, monkeypatch, moment):
    import errno

    np.savez("day.npz", **make_day(20, 1))
    calls = []
    real = os.fsync

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == moment + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        refused("memory", "insert", mem, "day.npz", says=["No space left", "free some space"])
    code, _, err = cli("memory", "insert", mem, "day.npz")
    assert code == 0, err


def test_an_unreadable_folder(mem):
    np.savez("day.npz", **make_day(20, 1))
    before = content(mem)
    # Root may read anything, so it steps down once all is loaded; others meet the folder's mode.
    prepare = f"""
import contextlib, io
def call(*words):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(["memory", *words])
        except SystemExit as done:
            return done.code, err.getvalue()
assert not call("check", {str(mem)!r})[0]
os.chmod({str(mem)!r}, 0)
os.getuid() or os.setuid(65534)
for name, *rest in {COMMANDS}:
    code, err = call(name, {str(mem)!r}, *rest)
    assert code == 2 and "Permission denied" in err and "Traceback" not in err, (name, code, err)
"""
    try:
        code, err = alone(prepare, "--version")
    finally:
        mem.chmod(0o700)
    assert code == 0, err
    assert content(mem) == before


def test_unexpected_errors_are_told_apart(cli, mem, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Memory, "load", fail)
    code, _, err = cli("memory", "status", mem)
    assert code == 1
    assert "a mistake of ours" in err
    assert "--debug" in err
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main(["memory", "status", str(mem), "--debug"])


def test_debug_shows_the_trace_of_bad_input(mem):
    from memento.errors import StorageError

    with pytest.raises(StorageError):
        main(["--debug", "memory", "status", str(mem / "absent")])


# --- the program -----------------------------------------------------------------------------


def test_help_of_everything_has_text(cli):
    for words in (
        [],
        ["memory"],
        *(["memory", name] for name in ("init", "insert", "status", "trained", "export", "check")),
    ):
        code, out, _ = cli(*words, "--help")
        assert code == 0
        assert "Usage" in out


def test_version(cli):
    import memento

    code, out, _ = cli("--version")
    assert (code, out.strip()) == (0, f"memento {memento.__version__}")


def test_without_the_extra_the_install_line_is_printed():
    script = "import sys; sys.modules['typer'] = None\nfrom memento.cli.main import main; main([])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 2
    assert 'pip install "memento-replay[cli]"' in result.stderr
    assert "Traceback" not in result.stderr
