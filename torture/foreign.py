"""Input that others made: files of the cases, models, published trees."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import test_hostile as hostile
from memento import Memory, Reservoir
from memento.deployment import Publication
from memento.deployment.git import mirror_to_git
from memento.deployment.model_files import LearnerFiles
from memento.errors import MementoError
from torture import subjects
from torture.calls import NAMES
from torture.trial import ROOM, Violation, command, difference, fingerprint, limit, mutated

#: How many trials are of each kind, where a hundred are of those in `inputs.SHARES`.
SHARES = {"predictors": 4, "git": 3, "archives": 3, "ns3-results": 4, "ns3-records": 2}

#: Addresses that an insert takes whatever its file holds: 153 MB were measured, nearly all of it for
#: the threads of Arrow on two cores; its allocator and those of others reserve more as they go.
BASE = 384 << 20


def room_for(content: int) -> int:
    """Addresses that input may cost: twice the bytes that it says it holds, and 2 GiB at most."""
    return min(BASE + 2 * content, ROOM)


def _memory(folder: Path) -> Path:
    """A stored memory and a file of samples beside it, made once."""
    root = folder / "stored"
    if not root.exists():
        data = subjects.day(3, 40)
        memory = Memory(30, Reservoir(), seed=1)
        memory.insert({"x": data["x"], "y": data["y"], "yhat": data["yhat"]})
        memory.save(root / "mem")
        np.savez(root / "day.npz", x=data["x"], y=data["y"])
    return root


def traces(chance: random.Random, folder: Path) -> None:
    """Traces of throughput, as text and as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    from memento_puffer.streaming.traces import Traces

    text = "\n".join(f"{i}\t{1 + i % 5}.5" for i in range(60)).encode()
    table = folder / "traces.parquet"
    if not table.exists():
        columns = {"trace_id": [0] * 40, "seconds": [1.0] * 40, "rate": [0.5] * 40}
        parquet.write_table(pa.table(columns), table)
    content, suffix = chance.choice([(text, ".txt"), (table.read_bytes(), ".parquet")])
    file = folder / f"bad{suffix}"
    file.write_bytes(mutated(content, chance))
    with contextlib.suppress(MementoError):
        Traces.read(file)


def day_files(chance: random.Random, folder: Path) -> None:
    """Days of Puffer's release, as text and compressed."""
    source = folder / "days"
    if not source.exists():
        command("puffer", "simulate", "2022-01-03", "--to", source, "--sessions", 3, "--no-content")
    bad = folder / "bad-days"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(source, bad)
    files = [p for p in sorted(bad.rglob("*.csv")) if p.stat().st_size]
    file = chance.choice(files)
    content = mutated(file.read_bytes(), chance)
    if chance.random() < 0.3:
        file.unlink()
        file, content = file.with_name(file.name + ".gz"), mutated(gzip.compress(content), chance)
    file.write_bytes(content)
    code, _ = command(
        "puffer", "features", "2022-01-03", "--from", bad, "--to", folder / "features"
    )
    shutil.rmtree(folder / "features", ignore_errors=True)
    if code not in (0, 1, 2):
        raise Violation(f"exit code {code}")


def message_sizes(chance: random.Random, folder: Path) -> None:
    """Distributions of message sizes in the format of Homa's simulator."""
    from memento_datacenter.workloads import Workload

    text = b"1000\n" + b"".join(f"{100 * i} {i / 10:.2f}\n".encode() for i in range(1, 11))
    file = folder / "sizes.txt"
    file.write_bytes(mutated(text, chance))
    with contextlib.suppress(MementoError):
        Workload.read(file, label=1)


def models(chance: random.Random, folder: Path) -> None:
    """States with turned bytes, and pickles in place of models: nothing of them is run."""
    from sklearn.linear_model import LogisticRegression

    from memento.integrations.sklearn import SklearnLearner

    marker = folder / "marker"
    bomb = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    if chance.random() < 0.8:
        learner = SklearnLearner(LogisticRegression())
        learner.fit({"x": np.arange(8.0).reshape(8, 1), "y": np.arange(8) % 2})
        state = {name: np.array(array) for name, array in learner.state().items()}
        name = chance.choice([n for n, array in state.items() if array.dtype == np.uint8])
        content = bomb if chance.random() < 0.1 else mutated(state[name].tobytes(), chance)
        state[name] = np.frombuffer(content, np.uint8)
        with contextlib.suppress(MementoError):
            other = SklearnLearner(LogisticRegression())
            other.restore(state)
            other.annotate({"x": np.ones((2, 1))})
    else:
        root = _memory(folder)
        file = folder / chance.choice(["bad.pt", "bad.onnx", "bad.skops", "bad.pkl"])
        file.write_bytes(bomb if chance.random() < 0.5 else mutated(bomb, chance))
        code, _ = command("memory", "insert", root / "mem", root / "day.npz", "--model", file)
        if code != 2:
            raise Violation(f"exit code {code} for what is no model")
    if marker.exists():
        raise Violation("a pickle was run")


def trees(chance: random.Random, folder: Path) -> None:
    """A published deployment in which a file, packed or what is packed in it, has turned bytes."""
    import published_tree

    from memento_puffer.deployment.tree import PublishedModels

    root = folder / "published"
    if not root.exists():
        root.mkdir()
        published_tree.small(root / "tree", ("default",))
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(root / "tree", tree)
    file = chance.choice(sorted(path for path in tree.rglob("*") if path.is_file()))
    content = file.read_bytes()
    if chance.random() < 0.5 and file.suffix == ".gz":
        content = gzip.compress(mutated(gzip.decompress(content), chance))
    else:
        content = mutated(content, chance)
    file.write_bytes(content)
    code, _ = command("puffer", "record", tree)
    if code not in (0, 2):
        raise Violation(f"exit code {code}")
    with contextlib.suppress(MementoError):
        PublishedModels(tree / "default")(published_tree.FIRST)


# ------------------------------------------------------------------------------------ predictors


def _graph(chance: random.Random | None = None) -> bytes:
    """An ONNX file that predicts; with a chance, one that is whole and of no use."""
    from onnx import TensorProto, helper, numpy_helper

    floats = TensorProto.FLOAT
    value = lambda name, *more: helper.make_tensor_value_info(name, *more)  # noqa: E731
    weight = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
    ]
    inputs, outputs = [value("x", floats, [None, 4])], [value("p", floats, [None, 3])]
    constant = numpy_helper.from_array(weight, "w")
    opset, domain = 17, ""
    way = chance.randrange(12) if chance else -1
    if way == 0:
        inputs.append(value("more", floats, [None, 4]))
    elif way == 1:
        outputs.append(value("logits", floats, [None, 3]))
    elif way == 2:  # no probabilities
        constant = numpy_helper.from_array(weight * np.float32(1e38) * np.float32(10), "w")
    elif way == 3:
        outputs = [value("logits", floats, [None, 3])]
    elif way == 4:
        nodes.append(helper.make_node("ArgMax", ["p"], ["label"], axis=1))
        outputs = [value("label", TensorProto.INT64, None)]
    elif way == 5:
        nodes[1] = helper.make_node("ReduceSum", ["logits"], ["p"], keepdims=chance.choice([0, 1]))
        outputs = [value("p", floats, None)]
    elif way == 6:  # more memory than there is
        most = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 20, chance.choice([1 << 14, 1 << 43])])  # fmt: skip
        nodes = [helper.make_node("Constant", [], ["s"], value=most),
                 helper.make_node("ConstantOfShape", ["s"], ["p"])]  # fmt: skip
        outputs = [value("p", floats, None)]
    elif way == 7:  # weights in a file elsewhere
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        constant.external_data.add(
            key="location", value=chance.choice(["/etc/passwd", "../x", "day.npz", *NAMES[:5]])
        )
    elif way == 8:
        domain = chance.choice(["ai.onnx.ml", "com.microsoft", "none"])
        nodes.insert(0, helper.make_node("Unheard", ["x"], ["z"], domain=domain))
    elif way == 9:
        opset = chance.choice([0, 1, 7, 99, 2**31])
    elif way == 10:
        nodes[0] = helper.make_node("MatMul", ["x", "logits"], ["logits"])
    elif way == 11:
        inputs = [value("x", chance.choice([TensorProto.STRING, TensorProto.INT64, 999]), chance.choice([None, [0], [None, 4, 4], [3, 4]]))]  # fmt: skip
    graph = helper.make_graph(nodes, "net", inputs, outputs, [constant])
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    content: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=9
    ).SerializeToString()
    return content


#: Bodies of modules of TorchScript; the first predicts.
SCRIPTS = (
    "return (x @ self.weight.mean(0)).softmax(1)", "return x @ self.weight[0]", "return x[1:]", "return x / 0", "return x, x",
    "return x.reshape(-1)", "return x.unsqueeze(2)", "return x.sum()", "raise RuntimeError('no')", "return 'text'",
    "assert x.shape[0] == 0\n    return x", "return torch.zeros([1 << 20, 1 << 20])", "return [x]", "return x.to_sparse()",
    "return torch.view_as_complex(x.reshape(-1, 2, 2))",
)  # fmt: skip


def _scripts(folder: Path) -> list[Path]:
    """TorchScript files, made once: one of each body, and one that takes two inputs."""
    root = folder / "scripts"
    if not root.exists():
        import torch

        root.mkdir()
        torch.set_num_threads(1)
        for number, body in enumerate((*SCRIPTS, "return x + y")):
            more = ", y" if "y" in body.split() else ""

            class Module(torch.jit.ScriptModule):  # of its own, as a method is defined once
                def __init__(self) -> None:
                    super().__init__()
                    self.weight = torch.nn.Parameter(torch.ones(100, 4, 3))  # most of the file

            module = Module()
            module.define(f"def forward(self, x{more}):\n    {body}\n")
            module.save(str(root / f"{number:02}.pt"))
    return sorted(root.iterdir())


def predictors(chance: random.Random, folder: Path) -> None:
    """TorchScript and ONNX that predict otherwise than is needed, or with turned bytes."""
    scripts = _scripts(folder)
    root = _memory(folder)
    file = folder / chance.choice(["bad.pt", "bad.onnx"])
    if (file.suffix == ".pt") == (chance.random() < 0.95):
        content = (scripts[0] if chance.random() < 0.5 else chance.choice(scripts)).read_bytes()
    else:
        content = _graph(chance if chance.random() < 0.5 else None)
    bad = mutated(content, chance) if chance.random() < 0.5 else content

    def inserted(model: bytes) -> tuple[int, bytes]:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(root / "mem", target)
        file.write_bytes(model)
        code, said = command("memory", "insert", target, root / "day.npz", "--model", file, "--predictions", "yhat")  # fmt: skip
        if code not in (0, 2):
            raise Violation(f"exit code {code}: {said[-500:]}")
        if code and fingerprint(target) != fingerprint(root / "mem"):
            raise Violation("a model that fails changed the memory")
        return code, np.asarray(Memory.load(target).samples["yhat"]).tobytes()

    target = folder / "target"
    code, outputs = inserted(bad)
    if not code and bad != content and file.suffix == ".pt" and outputs != inserted(content)[1]:
        raise Violation("a damaged model predicts, otherwise than when it was whole")
    if file.suffix == ".onnx" and chance.random() < 0.2:
        from memento import scale

        days = folder / "days"
        days.mkdir(exist_ok=True)
        shutil.copy(root / "day.npz", days / "day.npz")
        held = folder / "held"
        shutil.rmtree(held, ignore_errors=True)
        with contextlib.suppress(MementoError):
            scale.select(np.load(days / "day.npz"), 20, Reservoir(), held, predict=file)


# --------------------------------------------------------------------------- simulations of ns-3


def _values(chance: random.Random, array: np.ndarray) -> np.ndarray:
    """An array of another type, length, shape or values."""
    way = chance.randrange(6)
    if way == 0:
        return array.astype(
            chance.choice(["f8", "O", "U5", "i1", "?", "M8[s]", "c16", ">i8", "V4"])
        )
    if way == 1:
        return array[: chance.choice([0, 1, len(array) - 1])]
    if way == 2:
        return array.reshape(chance.choice([(-1, 1), (1, -1), (2, -1)]))
    if way == 3:
        return np.array(chance.choice([0, None, "a", [[]]]))
    changed = array.astype(np.int64)
    changed[chance.randrange(len(changed))] = chance.choice([-1, 2**16, 2**32, 2**63 - 1, 0])
    return changed if way == 4 else changed[::-1]


def _zip_of_arrays(arrays: dict[str, object], chance: random.Random) -> bytes:
    """What NumPy would write; now and then with a member that is not what it says."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asanyarray(value))
            whole = data.getvalue()
            if chance.random() < 0.05:
                huge = f"({chance.choice([1 << 30, 1 << 60, -1])},)".encode()
                whole = chance.choice([
                    b"", b"raw", whole[:20], mutated(whole, chance),
                    re.sub(rb"\(\d+,\)", huge, whole),
                ])  # fmt: skip
            archive.writestr(name + chance.choice([".npy"] * 30 + ["", ".npy.npy"]), whole)
    return content.getvalue()


def _false_run(run: Any, chance: random.Random) -> bytes:
    """A run whose digest is right and whose arrays or description are not."""
    from memento.files import digest
    from memento_datacenter.schema import COLUMNS

    columns = {name: getattr(run, name) for name in COLUMNS}
    if chance.random() < 0.5:
        name = chance.choice(list(columns))
        columns[name] = _values(chance, columns[name])
    records = digest(b"".join(column.tobytes() for column in columns.values()))
    about = {**run.about, "format": 1, "packets": len(run), "digest": records}
    if chance.random() < 0.6:
        for _ in range(chance.randint(1, 3)):
            where = chance.choice(hostile.places(about))
            with contextlib.suppress(KeyError, IndexError, TypeError):
                about = hostile.changed(about, where, chance.choice([..., True, *NAMES, *hostile.VALUES]))  # fmt: skip
    text = json.dumps(about).encode()
    if chance.random() < 0.2:
        text = chance.choice([b"", b"[" * 100_000, b"null", b"[]", b"\xff", b'{"format": 1}', mutated(text, chance)])  # fmt: skip
    arrays: dict[str, object] = {"about": np.frombuffer(text, np.uint8), **columns}
    if chance.random() < 0.1:
        arrays["about"] = chance.choice([text.decode(errors="replace"), None, 1.5, [[1, 2]]])
    return _zip_of_arrays(arrays, chance)


def ns3_results(chance: random.Random, folder: Path) -> None:
    """Simulated runs: turned bytes, and false arrays and descriptions under right digests."""
    import small_runs

    from memento_datacenter.replay import samples_of
    from memento_datacenter.report.simulations import of_simulations
    from memento_datacenter.schema import Run, Runs

    root = folder / "simulated"
    runs = Runs(root)
    run = small_runs.made_up("w1", 0)
    for number in (0, 1):
        small_runs.made_up("w1", number).write(runs.path("w1", number))
    path = runs.path("w1", chance.randrange(2))
    content = path.read_bytes() if chance.random() < 0.4 else _false_run(run, chance)
    path.write_bytes(mutated(content, chance) if chance.random() < 0.4 else content)
    uses: list[Callable[[], object]] = [
        lambda: repr(samples_of([Run.read(path)], chance.choice(["classification", "regression"]), 4)),
        lambda: Run.read(path).write(folder / "again.npz"),
        lambda: repr(Run.read(path)),
        lambda: Run.describe(path),
        lambda: runs.read("w1", 0),
        lambda: runs.require([("w1", 5)]),
        lambda: of_simulations(root),
    ]  # fmt: skip
    limit(room_for(path.stat().st_size))
    for use in (*uses, lambda: chance.choice(uses)()):
        with contextlib.suppress(MementoError):
            use()
    words = chance.choice([
        ("simulate", "w1", "--runs", "0-1", "--to", root),
        ("replay", "rare-patterns", "--reduced", "--from", root, "--out", folder / "replayed"),
    ])  # fmt: skip
    code, said = command("datacenter", *words)
    if code not in (0, 1, 2):
        raise Violation(f"exit code {code}: {said[-500:]}")


class _Simulation:
    """Stands in for what runs the simulation: writes records and answers, as it is told to."""

    def __init__(self, records: bytes | None, answer: tuple[int, str, str]) -> None:
        self.records, self.answer = records, answer

    def run(self, words: list[str]) -> tuple[int, str, str]:
        out = next(word.removeprefix("--out=") for word in words if word.startswith("--out="))
        if self.records is not None:
            Path(out).write_bytes(self.records)
        return self.answer


def ns3_records(chance: random.Random, folder: Path) -> None:
    """What the simulation writes and answers, with turned bytes: no run, or one that is whole."""

    from memento_datacenter import simulate as case
    from memento_datacenter.schema import Run

    made = np.zeros(chance.choice([0, 1, 100]), case._RECORD)
    made["arrival_ns"], made["size"], made["delay_ns"] = np.arange(len(made)), 606, 10**7
    records = made.tobytes() if chance.random() < 0.5 else mutated(made.tobytes(), chance)
    packets = chance.choice([len(made), len(records) // made.itemsize])
    answer = f'{{"packets": {packets}, "substream": 1}}'
    if chance.random() < 0.5:
        answer = chance.choice([
            mutated(answer.encode(), chance).decode(errors="replace"), "[]", "null", '"a"', "[" * 100_000, "NaN", "",
            f'{{"packets": {packets}.0, "x": NaN}}', '{"packets": true}', '{"packets": {}}', "9" * 5000,
            f'{{"packets": {packets}, "label": 0, "format": {{}}, "digest": "x"}}',
        ])  # fmt: skip
    status = chance.choice([0] * 9 + [1, -11])
    program = _Simulation(
        None if chance.random() < 0.05 else records, (status, answer, chance.choice(NAMES))
    )
    (setting,) = case.settings(["w1"])
    about = case._describe(case.Program(folder / "program", "3.44", ""), setting, 0, case.Network(), 1)  # fmt: skip
    path = folder / "made" / "run-00.npz"
    path.unlink(missing_ok=True)
    with contextlib.suppress(MementoError):
        case._execute(case.Program(folder / "program", "3.44", ""), setting, about, program, path)
    if path.exists():
        Run.read(path)


# ------------------------------------------------------------------------------------------- git

FOLDERS = [
    "main", "main", "deep/er/main", "../x", ".git/hooks", ".GIT/hooks", "-x", ":(glob)*", "out", "out/x", "hooked", "hooked/x", "inside/x",
    "loop/x", "held/x", "sub/.git/x", "sub/x", "a/../../x", "main\x07", "main\udce9", "main\ud800", "m" * 300, "m/" * 2000, "a\nb", " ", "main/",
    "main//x", "./main", "CON", "main.lock", "@{upstream}", "HEAD", "--", "mine.txt", "mine.txt/x", "~", "$(touch marker)",
]  # fmt: skip
REMOTES = [
    None, None, "origin", "origin", "ext::sh -c 'touch marker'", "ext::touch% marker", "--upload-pack=touch marker", "--exec=touch marker",
    "evil", "file:///etc", ".", "..", "elsewhere", "", "-", "origin main", "origin\0", "\ud800", "../upstream.git",
]  # fmt: skip


def _git(*words: object) -> None:
    subprocess.run(["git", *map(str, words)], check=True, capture_output=True)


def _clone(folder: Path) -> Path:
    """A published version, a bare repository and a clone of it with odd things in it, made once."""
    root = folder / "source"
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(folder)}  # fmt: skip
    if not root.exists():
        root.mkdir(parents=True)
        Publication(root / "models", LearnerFiles(["y"])).publish([{"p": np.arange(3)}], "A")
        _git("init", "-q", "-b", "main", "--bare", root / "upstream.git")
        tree = root / "tree"
        _git("clone", "-q", root / "upstream.git", tree)
        run = lambda *words: _git("-C", tree, "-c", "user.name=a", "-c", "user.email=a@b", *words)  # noqa: E731
        (tree / "theirs.txt").write_text("theirs")
        (tree / "held").write_text("no folder")
        for name, target in {"out": "../outside", "hooked": ".git/hooks", "inside": "deep", "loop": "loop"}.items():  # fmt: skip
            (tree / name).symlink_to(target)
        run("add", "--all")
        run("commit", "-q", "-m", "first")
        run("push", "-q", "-u", "origin", "HEAD:main")
        run("remote", "set-url", "origin", "../upstream.git")
        run("remote", "add", "evil", "ext::touch marker")
        _git("init", "-q", tree / "sub")
        (tree / "mine.txt").write_text("mine")
        (root / "outside").mkdir()
    return root


def git(chance: random.Random, folder: Path) -> None:
    """A version mirrored to git, to places and from clones that nobody means."""
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(_clone(folder), place, symlinks=True)
    version = Publication(place / "models", LearnerFiles(["y"])).current()
    assert version
    tree, own = place / "tree", place / "tree" / ".git"
    if chance.random() < 0.5:
        with contextlib.suppress(MementoError):  # what is there before
            mirror_to_git(version, tree, "main")
    damage = chance.randrange(10)
    if damage < 3:
        whole = [p for p in sorted(own.rglob("*")) if p.is_file() and "hooks" not in p.parts]
        named = [own / "HEAD", own / "index", own / "config", own / "refs" / "heads" / "main"]
        file = chance.choice(named if chance.random() < 0.7 else whole)
        file.chmod(0o644)
        content = file.read_bytes()
        file.write_bytes(mutated(content, chance) if chance.random() < 0.8 else chance.choice([b"", b"\xff\xfe", b"ref: refs/heads/\xe9\n"]))  # fmt: skip
    elif damage == 3:
        lock = own / chance.choice(["index.lock", "HEAD.lock", "memento-publish.lock", "config.lock"])  # fmt: skip
        lock.unlink(missing_ok=True)
        lock.mkdir() if chance.random() < 0.3 else lock.touch()
        if chance.random() < 0.5:
            os.utime(lock, (1, 1))
    elif damage == 4:
        _git("-C", tree, "checkout", "-q", "--detach")
    elif damage == 5:
        shutil.rmtree(own)
        chance.choice([lambda: own.write_text("gitdir: ../upstream.git"), lambda: own.mkdir(), lambda: own.symlink_to("../upstream.git"), lambda: None])()  # fmt: skip
    elif damage == 6:
        tree = place / chance.choice(["upstream.git", "absent", "outside", "models"])
    elif damage == 7:
        (own / "hooks" / "pre-commit").write_bytes(b"#!/bin/sh\necho '\xff\x1b[31m' >&2\nexit 1\n")
        (own / "hooks" / "pre-commit").chmod(0o755)
    elif damage == 8:
        (own / chance.choice(["rebase-merge", "rebase-apply", "memento-rebasing"])).mkdir()
    where, remote = chance.choice([*FOLDERS, *NAMES]), chance.choice(REMOTES)
    if chance.random() < 0.4:
        where = "main"

    def outside() -> dict[str, str]:
        kept = fingerprint(place, (r"^upstream\.git/", r"^tree/(?!mine|held|theirs|\.git/hooks)"))
        return {name: content for name, content in kept.items() if content}

    before = outside()
    with contextlib.chdir(place), contextlib.suppress(MementoError):
        mirror_to_git(version, tree, where, remote=remote, attempts=2)
    if what := difference(outside(), before):
        raise Violation(f"folder={where!r}, remote={remote!r}: {what}")
    if markers := [*place.rglob("marker"), *folder.glob("marker*")]:
        raise Violation(f"folder={where!r}, remote={remote!r} ran a command: {markers}")


# -------------------------------------------------------------------------------------- archives


def archives(chance: random.Random, folder: Path) -> None:
    """Archives of models from a storage of somebody else's: what is unpacked is a model, or nothing."""
    from memento_puffer.data.archives import LARGEST_MODEL, MODEL_FILES, read_model_archive

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=chance.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])) as archive:  # fmt: skip
        for name in MODEL_FILES if chance.random() < 0.8 else [*MODEL_FILES, *MODEL_FILES[:2]]:
            entry = tarfile.TarInfo(f"bbr-20211017-1/{name}")
            entry.size = 50
            if chance.random() < 0.05:
                way = chance.randrange(6)
                if way == 0:
                    entry.name = chance.choice([f"../{name}", f"/tmp/{name}", f"a/../{name}", *NAMES])  # fmt: skip
                elif way == 1:
                    entry.type = chance.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, b"Z"])  # fmt: skip
                    entry.linkname, entry.size = chance.choice(["/etc/passwd", "../x", name]), 0
                elif way == 2:
                    entry.size = chance.choice([1 << 25, 1 << 33, 8**11 - 1])
                elif way == 3:
                    entry.pax_headers = {"size": "-1", "path": "../x", "GNU.sparse.size": "9" * 30}
                elif way == 4:
                    entry.mode, entry.uid, entry.mtime = 0o7777, 0, chance.choice([0, 2**33 - 1])
                else:
                    entry.size = 0
            with contextlib.suppress(ValueError, UnicodeError):
                archive.addfile(entry, io.BytesIO(b"x" * min(entry.size, 50)) if entry.size <= 50 else None)  # fmt: skip
    data = content.getvalue()
    if chance.random() < 0.4:
        data = mutated(data, chance)
    if chance.random() < 0.1:
        data += b"\0" * chance.choice([1 << 20, LARGEST_MODEL, 1 << 27])
    packed = gzip.compress(data, 1)
    way = chance.randrange(8)
    if way == 0:
        packed = mutated(packed, chance)
    elif way == 1:  # several members, in all of them one archive
        at = chance.randrange(len(data))
        packed = gzip.compress(data[:at], 1) + gzip.compress(data[at:], 1)
    elif way == 2:
        packed += chance.choice([b"garbage", b"\0" * 1000, b"\x1f\x8b", packed])
    elif way == 3:
        packed = gzip.compress(packed)
    elif way == 4:
        packed = packed[: chance.randrange(len(packed))]
    elif way == 5:
        packed = chance.choice([b"", data[:10_000]])
    file = folder / "bbr-20211017-1.tar.gz"
    file.write_bytes(packed)
    limit(room_for(LARGEST_MODEL))
    with contextlib.suppress(MementoError):
        found = read_model_archive(file)
        if not set(MODEL_FILES) <= set(found) or sum(map(len, found.values())) > LARGEST_MODEL:
            raise Violation(f"no model was taken for one: {sorted(found)}")
