"""Input that others made: files of the cases, models, published trees."""

from __future__ import annotations

import contextlib
import gzip
import random
import shutil
from pathlib import Path

import numpy as np

from memento import Memory, Reservoir
from memento.errors import MementoError
from torture import subjects
from torture.trial import Violation, command, mutated


def _memory(folder: Path) -> Path:
    """A stored memory and a file of samples beside it, made once."""
    root = folder / "stored"
    if not root.exists():
        data = subjects.day(3, 40)
        memory = Memory(30, Reservoir(), seed=1)
        memory.insert(data)
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
