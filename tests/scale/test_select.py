"""Selection over blocks: what is kept, in which order, and that workers have no say in it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from memento import (
    FIFO,
    ClassBalancedReservoir,
    DensityReservoir,
    JensenShannon,
    Memento,
    Memory,
    Reservoir,
    Samples,
    SampleSpace,
    scale,
)
from memento.batching import Batches
from memento.density import batch_densities
from memento.errors import ForeignError, InputError, SchemaError, SettingError, StorageError
from memento.policies.memento import thin
from memento.scale.predictions import onnx_function

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

import tiny  # noqa: E402 - needs pyarrow

pytestmark = pytest.mark.compiled  # blocks are sorted again and again
BLOCK = 400
POLICIES = {
    "memento": Memento(tiny.DISTANCES),
    "published": Memento(
        tiny.DISTANCES, batch_size=16, temperature=0.01, sort_by=("y", "yhat", "x"),
        remainder="drop",
    ),
    "density": DensityReservoir(tiny.DISTANCES),
    "density, hashed": DensityReservoir(tiny.DISTANCES, remainder="keep", identify_by="id"),
    "known density": DensityReservoir(density="rho", identify_by="id"),
    "reservoir": Reservoir(),
    "balanced": ClassBalancedReservoir("y"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tiny.write(tmp_path / "days")


def kept_ids(report):
    return np.concatenate(
        [np.asarray(pq.read_table(path, columns=["id"])["id"]) for path in report.parts()]
    )


def with_density(folder):
    """The same files with a column of densities."""
    for path in sorted(folder.iterdir()):
        made = pq.read_table(path)
        rho = pa.array(0.01 + 0.1 * (np.asarray(made["y"]) == 0))
        pq.write_table(made.append_column("rho", rho), path, row_group_size=BLOCK)
    return folder


# --- what is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_a_selection_is_a_memory_of_the_capacity(folder, tmp_path, name):
    policy = POLICIES[name]
    if name == "known density":
        with_density(folder)
    report = scale.select(folder, 500, policy, tmp_path / "out", block_rows=BLOCK)
    assert report.offered == 3600
    assert report.kept == 500 if name != "published" else 500 - 16 < report.kept <= 500
    assert sum(file["kept"] for file in report.files) == report.kept
    assert scale.Selected.read(tmp_path / "out") == report
    assert not (tmp_path / "out.partial").exists()
    ids = kept_ids(report)
    assert len(set(ids.tolist())) == report.kept
    memory = report.to_memory()
    assert np.array_equal(memory.samples["id"], ids)
    everything = tiny.joined()
    rows = np.searchsorted(everything["id"], ids)
    for column in ("y", "yhat", "x"):
        assert np.array_equal(memory.samples[column], everything[column][rows]), column
    assert memory.seen == 3600
    memory.insert(
        with_rho(tiny.columns(200, 9)) if name == "known density" else tiny.columns(200, 9)
    )
    assert len(memory) <= 500


def with_rho(data):
    return {**data, "rho": np.full(len(data["id"]), 0.1)}


@pytest.mark.parametrize("name", ["density", "density, hashed", "reservoir", "balanced"])
def test_weights_estimate_the_stream(folder, tmp_path, name):
    report = scale.select(folder, 500, POLICIES[name], tmp_path / "out", block_rows=BLOCK)
    tables = [pq.read_table(path) for path in report.parts()]
    weights = np.concatenate([np.asarray(table["weight"]) for table in tables])
    assert np.allclose(weights, report.to_memory().weights)
    # A sum of weights estimates 3,600 rows; its deviation is at most that of a random sample with
    # weights of up to 1 / .7 times the mean, about 3600 * sqrt(1 / 500) = 160: four of these.
    assert abs(weights.sum() - 3600) < 640


def test_memento_follows_the_density_of_the_same_batches(folder, tmp_path):
    """The whole selection once more, on the same batches, with all rows at hand."""
    policy = Memento(tiny.DISTANCES, batch_size=16, temperature=0.0, remainder="keep")
    report = scale.select(folder, 480, policy, tmp_path / "out", block_rows=BLOCK)
    data = tiny.joined()
    samples = Samples.borrow({name: data[name] for name in ("y", "yhat", "id")})
    space = SampleSpace(tiny.DISTANCES)
    filled, rest = [], []
    for start in range(0, 3600, BLOCK):
        order = start + space.order(samples.rows(start, start + BLOCK))
        for label in range(tiny.CLASSES):
            rows = order[data["y"][order] == label]
            count = len(rows) // 16 * 16
            filled.append(rows[:count])
            rest.append(rows[count:])
    outside = np.concatenate(rest)
    outside = outside[space.order(samples.take(outside))]
    sizes = [16] * (sum(map(len, filled)) // 16) + [16] * (len(outside) // 16)
    sizes += [len(outside) % 16] if len(outside) % 16 else []
    order = np.concatenate([*filled, outside])
    whole = Batches((samples,), order, np.cumsum([0, *sizes]))
    field = policy.field(whole)
    kept, _ = thin(field, whole.sizes, 480, 0.0, np.random.default_rng(0))
    expected = np.sort(whole.order[np.repeat(kept, whole.sizes)])
    assert np.array_equal(np.sort(kept_ids(report)), data["id"][expected])


@pytest.mark.parametrize("half_life", [None, 3.0])
def test_one_block_is_what_a_memory_keeps(tmp_path, half_life):
    """Keys that are hashed and batches of one block leave nothing to chance."""
    folder = tiny.write(tmp_path / "days", files=1, rows=3000, group=3000)
    policy = DensityReservoir(
        tiny.DISTANCES, remainder="keep", identify_by="id", half_life=half_life
    )
    report = scale.select(folder, 400, policy, tmp_path / "out")
    memory = Memory(400, policy)
    memory.insert(tiny.joined(1, 3000))
    selected = report.to_memory()
    assert np.array_equal(selected.samples["id"], memory.samples["id"])
    assert np.allclose(selected.weights, memory.weights, rtol=1e-4)
    later = tiny.columns(500, 7)
    for one in (selected, memory):
        one.insert(later)
    assert np.array_equal(selected.samples["id"], memory.samples["id"])


def test_known_densities_are_exact_over_any_blocks(tmp_path):
    folder = with_density(tiny.write(tmp_path / "days"))
    policy = POLICIES["known density"]
    report = scale.select(folder, 300, policy, tmp_path / "out", block_rows=BLOCK)
    memory = Memory(300, policy)
    data = tiny.joined()
    memory.insert(data | {"rho": 0.01 + 0.1 * (data["y"] == 0)})
    assert np.array_equal(np.sort(kept_ids(report)), np.sort(memory.samples["id"]))
    order = np.argsort(kept_ids(report))
    assert np.allclose(report.to_memory().weights[order],
                       memory.weights[np.argsort(memory.samples["id"])])  # fmt: skip


def test_classes_are_as_equal_as_they_can_be(folder, tmp_path):
    report = scale.select(folder, 400, ClassBalancedReservoir("y"), tmp_path / "out")
    y = report.samples()["y"]
    there = np.bincount(tiny.joined()["y"])
    assert there[3] < 100  # all of it stays
    assert np.bincount(y).tolist() == sorted(np.bincount(y).tolist(), reverse=True)
    assert np.bincount(y)[3] == there[3]
    assert np.ptp(np.bincount(y)[:3]) <= 1
    assert np.isclose(report.to_memory().weights[y == 0].sum(), there[0])


def test_few_rows_are_all_kept(folder, tmp_path):
    for name in ("memento", "density", "reservoir", "balanced"):
        report = scale.select(folder, 10_000, POLICIES[name], tmp_path / name)
        assert report.kept == 3600


@pytest.mark.parametrize("remainder", ["even", "keep", "drop"])
def test_a_cluster_that_fills_no_batch_of_any_block_stays(tmp_path, remainder):
    """25 rows of 24 blocks each: the last of the order, less than half a batch of 64."""
    folder = tmp_path / "days"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(24):
        y = np.sort(np.concatenate([rng.choice(3, 1000, p=[0.8, 0.15, 0.05]), np.full(25, 3)]))
        y_hat = 0.9 * np.eye(4)[y] + 0.025
        pq.write_table(
            tiny.table({"y": y, "yhat": y_hat.astype(np.float32)}),
            folder / f"{number:02d}.parquet",
        )
    policy = Memento(tiny.DISTANCES, batch_size=64, temperature=0.01, remainder=remainder)
    report = scale.select(folder, 2048, policy, tmp_path / "out", block_rows=1025)
    kept = np.bincount(report.samples()["y"], minlength=4)
    memory = Memory(2048, policy)
    memory.insert(pa.concat_tables([pq.read_table(path) for path in sorted(folder.iterdir())]))
    # Of 600 a random sample would hold 50, a memory holds about 470.
    assert kept[3] >= 0.8 * np.bincount(memory.samples["y"])[3] > 300


# --- bound once for all blocks ------------------------------------------------------------------


def test_labels_without_classes_and_values_without_a_grid_are_bound_by_all_blocks(tmp_path):
    folder = tmp_path / "days"
    folder.mkdir()
    for number in range(3):  # each file has one label and one range of values
        y = np.array([f"label {number}"] * 400)
        value = np.random.default_rng(number).normal(10 * number, 1, 400)
        made = pa.table({"y": y, "value": value, "id": np.arange(400) + 400 * number})
        pq.write_table(made, folder / f"{number}.parquet")
    policy = Memento(
        [JensenShannon.of_labels("y"), JensenShannon.of_values("value")], batch_size=20,
        temperature=0.0, remainder="keep",
    )  # fmt: skip
    report = scale.select(folder, 300, policy, tmp_path / "out")
    memory = Memory(300, policy)
    joined = pa.concat_tables([pq.read_table(path) for path in sorted(folder.iterdir())])
    memory.insert(joined)
    # Labels come first in the order, and each file has one: batches are those of a memory.
    assert np.array_equal(np.sort(kept_ids(report)), np.sort(memory.samples["id"]))
    assert "look" in report.seconds


# --- order, digests, repetition -------------------------------------------------------------


def test_the_order_of_listing_and_the_way_of_naming_have_no_say(folder, tmp_path):
    names = sorted(map(str, folder.iterdir()))
    digests = {
        scale.select(given, 300, POLICIES["memento"], tmp_path / str(i), block_rows=BLOCK).digest
        for i, given in enumerate([folder, names, names[::-1], f"{folder}/*.parquet", [*names]])
    }
    assert len(digests) == 1


def test_copies_of_the_files_elsewhere_have_the_same_digest(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    for policy in ("memento", "density"):
        first = scale.select(folder, 300, POLICIES[policy], tmp_path / f"a {policy}")
        second = scale.select(tmp_path / "copy", 300, POLICIES[policy], tmp_path / f"b {policy}")
        assert first.digest == second.digest


def test_settings_and_seed_are_in_the_digest(folder, tmp_path):
    policy = POLICIES["memento"]
    digests = [
        scale.select(folder, capacity, policy, tmp_path / f"{i}", seed=seed).digest
        for i, (capacity, seed) in enumerate([(300, 0), (300, 1), (301, 0), (300, 0)])
    ]
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3


def test_the_same_call_again_gives_the_report_and_another_one_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    first = scale.select(folder, 300, POLICIES["memento"], out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert scale.select(folder, 300, POLICIES["memento"], out) == first
    with pytest.raises(StorageError, match="holds something already"):
        scale.select(folder, 200, POLICIES["memento"], out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_selection_with_a_model_is_found_again_too(folder, tmp_path):
    first = scale.select(folder, 300, POLICIES["memento"], tmp_path / "out", predict=tiny.predicted)
    calls = tiny.Dying(tmp_path / "calls")
    again = scale.select(folder, 300, POLICIES["memento"], tmp_path / "out", predict=calls)
    assert again == first
    assert calls.count == 1
    assert np.array_equal(first.samples()["yhat"], tiny.predicted(first.samples()["x"]))


@pytest.mark.parametrize("name", ["memento", "density"])
def test_several_days_go_on_where_they_were_stopped(tmp_path, name):
    held = scale.select(
        tiny.write(tmp_path / "one", files=1), 300, POLICIES[name], tmp_path / "held"
    )
    later = tmp_path / "two"
    later.mkdir()
    pq.write_table(tiny.table(tiny.columns(1200, 8)), later / "later.parquet", row_group_size=400)
    expected = scale.select(
        later, 300, POLICIES[name], tmp_path / "once", held=held.folder, block_rows=BLOCK
    )

    def stop(stage, done, total):
        if stage == "decide":
            raise KeyboardInterrupt

    given = {"held": held.folder, "block_rows": BLOCK}
    with pytest.raises(KeyboardInterrupt):
        scale.select(later, 300, POLICIES[name], tmp_path / "out", progress=stop, **given)
    report = scale.select(later, 300, POLICIES[name], tmp_path / "out", **given)
    assert report.digest == expected.digest
    assert report.seconds["summarise"]["stored"] == 4


def test_missing_columns_can_be_skipped(folder, tmp_path):
    distances = [*tiny.DISTANCES, JensenShannon.of_labels("z", 2)]
    policy = Memento(distances, missing="skip")
    report = scale.select(folder, 300, policy, tmp_path / "out")
    assert report.kept == 300


def test_networks_and_estimators_predict(folder, tmp_path):
    torch = pytest.importorskip("torch")
    linear = pytest.importorskip("sklearn.linear_model")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Softmax(dim=1))
    network.train()
    data = tiny.joined()
    estimator = linear.LogisticRegression().fit(data["x"], data["y"])
    for name, predict in (("network", network), ("estimator", estimator)):
        report = scale.select(folder, 300, POLICIES["memento"], tmp_path / name, predict=predict)
        samples = report.samples()
        if name == "network":
            with torch.inference_mode():
                expected = network(torch.tensor(samples["x"])).numpy()
        else:
            expected = estimator.predict_proba(samples["x"])
        assert np.allclose(samples["yhat"], expected, atol=1e-6)
    assert network.training


def test_onnx_files_predict(folder, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        ],
        "model",
        [helper.make_tensor_value_info("x", floats, [None, 3])],
        [helper.make_tensor_value_info("p", floats, [None, 4])],
        [helper.make_tensor("w", floats, [3, 4], weights.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "model.onnx"))
    path = tmp_path / "model.onnx"
    report = scale.select(folder, 300, POLICIES["memento"], tmp_path / "out", predict=path)
    samples = report.samples()
    logits = samples["x"] @ weights
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.allclose(samples["yhat"], expected, atol=1e-5)


def test_what_stands_in_an_onnx_file_is_not_printed(tmp_path, capfd):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("Reshape", ["x", "s"], ["p"], name="\x1b[31mred")
    graph = helper.make_graph(
        [node],
        "model",
        [helper.make_tensor_value_info("x", floats, [None, 3])],
        [helper.make_tensor_value_info("p", floats, None)],
        [helper.make_tensor("s", onnx.TensorProto.INT64, [1], [7])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "model.onnx"))
    call = onnx_function(tmp_path / "model.onnx", "test")
    with pytest.raises(Exception, match="Reshape"):
        call(np.ones((2, 3)))
    assert "\x1b" not in capfd.readouterr().err


def test_input_is_never_changed(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    scale.select(folder, 300, POLICIES["memento"], tmp_path / "out")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# --- layouts, folders, columns ------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["wide", "binary", "ragged"])
def test_layouts_hold_the_same_rows(folder, tmp_path, layout):
    other = tiny.write(tmp_path / "other", layout=layout)
    one = scale.select(folder, 300, POLICIES["memento"], tmp_path / "a", block_rows=BLOCK)
    two = scale.select(other, 300, POLICIES["memento"], tmp_path / "b", block_rows=BLOCK)
    assert np.array_equal(kept_ids(one), kept_ids(two))
    first, second = one.samples(), two.samples()
    assert np.array_equal(first["yhat"], second["yhat"])
    schema = pq.read_schema(two.parts()[0])
    assert schema.equals(pq.read_schema(next(other.iterdir())))


@pytest.mark.parametrize("layout", ["wide", "lists", "ragged"])
def test_files_are_rewritten_in_the_fast_layout(tmp_path, layout):
    folder = tiny.write(tmp_path / "days", layout=layout)
    written = scale.rewrite(folder, tmp_path / "fast", block_rows=1700)
    assert [path.name for path in written] == [f"part-{i}.parquet" for i in range(3)]
    schema = pq.read_schema(written[0])
    assert str(schema.field("yhat").type) == "fixed_size_binary[16]"
    assert schema.names == ["id", "y", "yhat", "x"]
    for group, path in enumerate(written):
        about = pq.read_metadata(path)
        assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [1200]
        assert np.array_equal(np.asarray(pq.read_table(path)["y"]), tiny.columns(1200, group)["y"])
    first = scale.select(folder, 300, POLICIES["memento"], tmp_path / "a", block_rows=BLOCK)
    second = scale.select(
        tmp_path / "fast", 300, POLICIES["memento"], tmp_path / "b", block_rows=BLOCK
    )
    assert first.kept == second.kept == 300
    assert second.samples()["x"].shape == (300, 3)


def test_names_of_folders_become_columns(tmp_path):
    for day in (1, 2):
        tiny.write(tmp_path / "days" / f"day={day}" / "site=north", files=1)
    report = scale.select(tmp_path / "days", 300, POLICIES["memento"], tmp_path / "out")
    samples = report.samples()
    assert set(samples["day"].tolist()) == {1, 2}
    assert set(samples["site"].tolist()) == {"north"}
    assert [file["name"] for file in report.files] == [
        f"day={day}/site=north/part-0.parquet" for day in (1, 2)
    ]
    by_day = scale.select(
        tmp_path / "days", 10, ClassBalancedReservoir("day"), tmp_path / "balanced"
    )
    assert np.bincount(by_day.samples()["day"]).tolist() == [0, 5, 5]


@pytest.mark.parametrize("relative", [False, True])
def test_names_of_folders_count_up_to_what_was_given(tmp_path, monkeypatch, relative):
    top = tmp_path / "run=7" / "data"
    tiny.write(top / "day=1" / "more", files=1)
    monkeypatch.chdir(top)
    given = [".", "day=1", "day=*", "*/more"] if relative else [top, top / "day=1", top / "day=*"]
    for number, paths in enumerate(given):
        report = scale.select(paths, 300, Reservoir(), tmp_path / f"out-{number}")
        assert list(report.samples()) == ["id", "y", "yhat", "x", "day"], paths
    monkeypatch.chdir(top / "day=1")
    report = scale.select("more/part-0.parquet", 300, Reservoir(), tmp_path / "out")
    assert list(report.samples()) == ["id", "y", "yhat", "x"]
    monkeypatch.chdir(top)
    tiny.write(top / "plain" / "day=2", files=1)
    report = scale.select("plain/day=2/part-0.parquet", 300, Reservoir(), tmp_path / "file")
    assert set(report.samples()["day"].tolist()) == {2}


def test_numbers_of_numpy_are_numbers(folder, tmp_path):
    plain = scale.select(folder, 300, POLICIES["memento"], tmp_path / "a", seed=1, block_rows=BLOCK)
    numbers = {"seed": np.int64(1), "block_rows": np.int32(BLOCK), "workers": np.uint8(0)}
    same = scale.select(folder, np.int64(300), POLICIES["memento"], tmp_path / "b", **numbers)
    assert same.digest == plain.digest


def test_columns_can_be_left_out_and_made_of_others(folder, tmp_path):
    report = scale.select(
        folder, 300, POLICIES["memento"], tmp_path / "out", columns=["y", "yhat", "id"]
    )
    assert list(report.samples()) == ["y", "yhat", "id"]
    wide = tiny.write(tmp_path / "wide", layout="wide")
    for path in wide.iterdir():
        made = pq.read_table(path)
        names = [name.replace("yhat_", "p") for name in made.column_names]
        pq.write_table(made.rename_columns(names), path)
    report = scale.select(wide, 300, POLICIES["memento"], tmp_path / "mapped", maps={"yhat": "p*"})
    assert report.samples()["yhat"].shape == (300, 4)


# --- several days ---------------------------------------------------------------------------


def test_random_samples_go_on_day_after_day_as_at_once(tmp_path):
    """Keys are for life, so days one after the other are all days at once."""
    folders = [tiny.write(tmp_path / f"day{i}" / "x", files=1) for i in range(3)]
    for i, folder in enumerate(folders):
        (folder / "part-0.parquet").rename(folder.parent / f"{i}.parquet")
        made = tiny.table(tiny.columns(1200, i))
        pq.write_table(made, folder.parent / f"{i}.parquet", row_group_size=400)
    files = [tmp_path / f"day{i}" / f"{i}.parquet" for i in range(3)]
    policy = Reservoir()
    once = scale.select(files, 200, policy, tmp_path / "once", identify_by="id")
    held = None
    for i, file in enumerate(files):
        held_report = scale.select(
            file, 200, policy, tmp_path / f"held{i}", held=held, identify_by="id"
        )
        held = held_report.folder
    assert np.array_equal(np.sort(kept_ids(once)), np.sort(kept_ids(held_report)))
    assert np.allclose(held_report.to_memory().weights, 3600 / 200)
    assert held_report.document["inserts"] == 3


def test_weights_and_keys_of_a_density_reservoir_are_for_life(tmp_path):
    policy = DensityReservoir(density="rho", identify_by="id")
    files = []
    for i in range(3):
        data = tiny.columns(1200, i)
        made = tiny.table(data | {"rho": 0.01 + 0.1 * (data["y"] == 0)})
        pq.write_table(made, tmp_path / f"{i}.parquet")
        files.append(tmp_path / f"{i}.parquet")
    once = scale.select(files, 200, policy, tmp_path / "once")
    first = scale.select(files[0], 200, policy, tmp_path / "a")
    second = scale.select(files[1:], 200, policy, tmp_path / "b", held=first.folder)
    assert np.array_equal(np.sort(kept_ids(once)), np.sort(kept_ids(second)))
    order, other = np.argsort(kept_ids(once)), np.argsort(kept_ids(second))
    assert np.allclose(once.to_memory().weights[order], second.to_memory().weights[other])


@pytest.mark.parametrize("name", ["memento", "density", "density, hashed", "balanced"])
def test_what_is_held_competes_with_the_next_day(tmp_path, name):
    first = tiny.write(tmp_path / "one", files=2)
    policy = POLICIES[name]
    held = scale.select(first, 400, policy, tmp_path / "held")
    later = tmp_path / "two"
    later.mkdir()
    pq.write_table(tiny.table(tiny.columns(1200, 8)), later / "later.parquet")
    report = scale.select(later, 400, policy, tmp_path / "next", held=tmp_path / "held")
    ids = kept_ids(report)
    old = np.isin(ids, kept_ids(held))
    assert 100 < old.sum() < 390
    assert report.kept == 400
    assert report.document["kept_of_held"] == old.sum()
    assert report.document["seen"] == 3600
    if name != "memento":
        weights = report.to_memory().weights
        assert abs(weights.sum() - 3600) < 4 * 3600 / np.sqrt(400)


def test_a_memory_can_be_held_and_a_saved_one_too(folder, tmp_path):
    policy = DensityReservoir(tiny.DISTANCES, remainder="keep", identify_by="id")
    memory = Memory(400, policy)
    memory.insert(tiny.columns(900, 11))
    memory.save(tmp_path / "memory")
    one = scale.select(folder, 400, policy, tmp_path / "a", held=memory)
    two = scale.select(folder, 400, policy, tmp_path / "b", held=tmp_path / "memory")
    assert one.digest == two.digest
    assert one.document["kept_of_held"] > 0
    assert one.document["seen"] == 4500
    wide = tiny.write(tmp_path / "wide", layout="wide")
    scale.select(wide, 400, policy, tmp_path / "c", held=memory)


def test_what_is_held_is_replaced_in_its_place_and_no_file_counts_twice(tmp_path):
    first = tiny.write(tmp_path / "one", files=1)
    second = tmp_path / "two"
    second.mkdir()
    pq.write_table(tiny.table(tiny.columns(1200, 8)), second / "later.parquet")
    out = tmp_path / "held"
    policy = POLICIES["memento"]
    scale.select(first, 400, policy, out)
    report = scale.select(second, 400, policy, out, held=out)
    assert report.document["seen"] == 2400
    before = {path: path.read_bytes() for path in out.iterdir()}
    # The same call gives its report; the same files once more are refused, whatever is named.
    assert scale.select(second, 400, policy, out, held=out) == report
    for named in (second, second / "later.parquet", tmp_path / "t*"):
        with pytest.raises(InputError, match="went into what is held already"):
            scale.select(named, 401, policy, out, held=out)
        with pytest.raises(InputError, match="went into what is held already"):
            scale.select([named, first], 400, policy, tmp_path / "other", held=out)
    with pytest.raises(InputError, match="is of what is held"):
        scale.select(out, 400, policy, out, held=out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


# --- wrong use ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"policy": FIFO()}, SettingError, "chooses row by row"),
        ({"policy": ClassBalancedReservoir("y", bins=3)}, SettingError, "without bins"),
        (
            {"policy": Memento([JensenShannon.of_labels("y")], forget=0.1)},
            SettingError,
            "forget=0.1 drops",
        ),
        ({"policy": "memento"}, SettingError, "expected a Policy"),
        ({"capacity": 0}, SettingError, "capacity is 0"),
        ({"workers": -1}, SettingError, "workers is -1"),
        ({"seed": -1}, SettingError, "seed is -1"),
        ({"block_rows": 0}, SettingError, "block_rows is 0"),
        ({"client": "tcp://nowhere:1", "workers": 2}, SettingError, "give one of them"),
        ({"columns": ["z"]}, SchemaError, "no column 'z'"),
        ({"predict": "model.bin"}, SettingError, "expected the path of an ONNX file"),
        ({"predict": 3}, SettingError, "predict is 3"),
        ({"policy": Memento([JensenShannon.of_labels("z", 2)])}, SchemaError, "no column 'z'"),
        ({"held": "days"}, StorageError, "holds no selection"),
        ({"paths": "nowhere"}, StorageError, "no such file"),
        ({"paths": []}, InputError, "no files"),
        ({"to": "days"}, StorageError, "holds something already"),
        ({"policy": Reservoir(), "weight": "y"}, SettingError, "weight="),
        ({"policy": Reservoir(), "identify_by": "yhat"}, SchemaError, "expected one integer"),
        ({"policy": Reservoir(), "identify_by": "z"}, SchemaError, "no column 'z'"),
        ({"paths": 3}, SettingError, "the file is 3"),
        ({"columns": "id"}, SettingError, "columns is 'id'; expected a list"),
        ({"columns": []}, SettingError, "at least one name"),
        ({"maps": {"yhat": []}}, SettingError, r"maps\['yhat'\] is empty"),
        ({"maps": {"yhat": 3}}, SettingError, r"maps\['yhat'\] is 3"),
        ({"maps": 3}, SettingError, "maps is 3"),
        (
            {"policy": Memento(tiny.DISTANCES, batch_size=101, remainder="keep")},
            SettingError,
            "less than one batch of 101",
        ),
        (
            {"policy": Memento(tiny.DISTANCES, batch_size=16, remainder="drop", group_by="id")},
            SettingError,
            "no batch is filled",
        ),
    ],
)  # fmt: skip
def test_wrong_use(folder, tmp_path, monkeypatch, change, error, words):
    monkeypatch.chdir(tmp_path)
    given = {"paths": folder, "capacity": 100, "policy": POLICIES["memento"], "to": "out"}
    with pytest.raises(error, match=words):
        scale.select(**(given | change))
    assert not (tmp_path / "out").exists()


def test_a_report_that_is_none(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"kind": "other"}))
    with pytest.raises(ForeignError, match="no report of a selection"):
        scale.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sources", 3), ("sources", [{"name": "y", "columns": []}]), ("sources", [[]]),
        ("parts", True), ("parts", [{}]),
        ("counters", None), ("history", [[{}]]), ("policy", "fifo"), ("seed", -1),
    ],
)  # fmt: skip
def test_a_report_that_was_changed(folder, tmp_path, name, value):
    """A folder of a selection holds what others may have written."""
    scale.select(folder, 100, POLICIES["memento"], tmp_path / "out")
    path = tmp_path / "out" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises((StorageError, SettingError)):
        scale.load(tmp_path / "out")


def test_rows_of_a_selection_that_were_damaged(folder, tmp_path):
    scale.select(folder, 100, POLICIES["memento"], tmp_path / "out")
    (part, *_) = sorted((tmp_path / "out").glob("part-*.parquet"))
    content = part.read_bytes()
    part.write_bytes(content[:4] + bytes(len(content) - 8) + content[-4:])
    with pytest.raises(StorageError):
        scale.load(tmp_path / "out")


def test_densities_are_those_of_the_library(tmp_path):
    """The weight of a row says the density of its batch, as `batch_densities` gives it."""
    folder = tiny.write(tmp_path / "days", files=1, rows=1200, group=1200)
    policy = DensityReservoir(
        tiny.DISTANCES, batch_size=16, uniform=0.0, remainder="keep", identify_by="id"
    )
    report = scale.select(folder, 200, policy, tmp_path / "out")
    state = report.state()
    data = tiny.joined(1, 1200)
    space = SampleSpace(tiny.DISTANCES, batch_size=16, remainder="keep")
    order, density = batch_densities({"y": data["y"], "yhat": data["yhat"]}, space)
    n = len(density)
    others = (density * n * np.sqrt(2 * np.pi) - 1) / (n - 1) / np.sqrt(2 * np.pi)
    rarity = 1 / np.maximum(others, 1e-3)
    rarity /= rarity.mean()
    of_rows = np.empty(1200)
    of_rows[order] = np.repeat(rarity, 16)
    rows = np.searchsorted(data["id"], kept_ids(report))
    assert np.allclose(np.exp(state.marks["log_weight"]), of_rows[rows], rtol=1e-4)


def _day(place, number, rows=1_000):
    """A file of the same name every day, of rows that tell the day and the row."""
    place.mkdir(parents=True)
    made = {"day": np.full(rows, number), "row": np.arange(rows), "y": np.arange(rows) % 4}
    pq.write_table(pa.table(made), place / "part-0.parquet")
    return place


@pytest.mark.parametrize("policy", [Reservoir(), DensityReservoir(tiny.DISTANCES[1:])])
def test_keys_of_one_day_are_not_those_of_another(tmp_path, policy):
    """Rows at the same place of files of the same name: 200 of 8,000, so few are at one place."""
    held = None
    for number in range(8):
        out = tmp_path / f"held{number}"
        scale.select(_day(tmp_path / f"d{number}", number), 200, policy, out, held=held)
        held = out
    rows = scale.load(held).samples["row"]
    # Of 200 drawn from 1,000 places 181 differ on average, with a deviation of 4.
    assert len(np.unique(rows)) > 181 - 6 * 4


def test_a_random_sample_that_may_grow_stands_for_both_days(tmp_path):
    """More room lets in no row whose like of the day before was left out."""
    totals = []
    for seed in range(20):
        first, second = tmp_path / f"a{seed}", tmp_path / f"b{seed}"
        days_ = [_day(tmp_path / f"d{seed}-{number}", number) for number in range(2)]
        scale.select(days_[0], 100, Reservoir(), first, seed=seed)
        scale.select(days_[1], 1_000, Reservoir(), second, held=first, seed=seed)
        memory = scale.load(second)
        day, weights = memory.samples["day"], memory.weights
        assert weights.sum() == pytest.approx(2_000)
        totals.append(weights[day == 0].sum())
    # About 100 of each: a share with a deviation of 0.07 of half, so 16 over 20 seeds.
    assert abs(np.mean(totals) - 1_000) < 6 * 16


@pytest.mark.parametrize("change", [{"gamma": 0.0}, {"uniform": 1.0}])
def test_weights_that_are_all_alike_are_a_random_sample(folder, tmp_path, change):
    policy = DensityReservoir(tiny.DISTANCES, **change)
    report = scale.select(folder, 300, policy, tmp_path / "out", block_rows=BLOCK)
    assert report.kept == 300
    np.testing.assert_allclose(scale.load(tmp_path / "out").weights, 3_600 / 300, rtol=0.2)
