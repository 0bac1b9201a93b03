"""Commands and functions that are killed and given faults, each with small input of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from memento import (
    DensityReservoir,
    Every,
    JensenShannon,
    LossReservoir,
    Memento,
    Memory,
    Reservoir,
    run,
)
from torture import standins
from torture.trial import Subject, Violation

CLASSES = 3


def day(number: int, rows: int = 120) -> dict[str, np.ndarray]:
    """Samples with an id, inputs, a label, a prediction and a loss."""
    rng = np.random.default_rng(number)
    y = rng.integers(0, CLASSES, rows)
    yhat = rng.dirichlet(np.ones(CLASSES), rows)
    loss = -np.log(yhat[np.arange(rows), y])
    return {"id": np.arange(rows) + 1000 * number, "x": rng.normal(size=(rows, 4)), "y": y,
            "yhat": yhat, "loss": loss}  # fmt: skip


def _memory(policy: object = None, **more: object) -> Memory:
    return Memory(60, policy or Reservoir(), seed=1, **more)


def _stored(policy: Callable[[], object] = Reservoir, **more: object) -> Callable[[Path], None]:
    """A folder with a memory of two days, and a third day beside it."""

    def prepare(folder: Path) -> None:
        memory = _memory(policy(), **more)
        for number in (1, 2):
            memory.insert(day(number))
        memory.mark_trained()
        memory.save(folder / "mem")
        np.savez(folder / "day-3.npz", **day(3))

    return prepare


def loads(folder: Path) -> None:
    """The memory is there, whole, as it was or as it is to be."""
    try:
        memory = Memory.load(folder / "mem")
    except Exception as error:
        raise Violation(f"the memory cannot be loaded: {error!r}") from error
    if memory.inserts not in (2, 3) or len(memory) > memory.capacity:
        raise Violation(f"a memory that never was: {memory.inserts} inserts, {len(memory)} samples")


def _both(folder: Path) -> None:
    _stored(lambda: LossReservoir())(folder)
    other = _memory(LossReservoir())
    other.insert(day(9))
    other.save(folder / "other")


def _labels(folder: Path) -> None:
    memory = _memory()
    first = day(1)
    first["y"] = np.where(np.arange(len(first["id"])) % 2, np.nan, first["y"])
    memory.insert(first)
    memory.insert({**day(2), "y": day(2)["y"].astype(float)})
    memory.save(folder / "mem")
    lines = "".join(f"{i},{y}\n" for i, y in zip(day(1)["id"], day(1)["y"], strict=True))
    (folder / "labels.csv").write_text("id,y\n" + lines)


def _further_column(folder: Path) -> None:
    _stored()(folder)
    held = len(Memory.load(folder / "mem"))
    np.savez(folder / "more.npz", p=np.arange(float(held)))


def _save() -> None:
    memory = Memory.load("mem")
    if memory.inserts == 2:
        memory.insert(day(3))
    memory.save("mem")


def loop() -> None:
    from memento.testing import ConstantLearner

    policy = DensityReservoir([JensenShannon.of_labels("y", CLASSES)], batch_size=4)
    units = ((str(number), day(number)) for number in range(6))
    for step in run(
        units, _memory(policy), ConstantLearner("y", CLASSES), Every(2), checkpoint="checkpoint"
    ):
        del step


def table(folder: Path) -> None:
    rows = []
    for number in range(6):
        data = day(number, 40)
        rows += [
            f"{number},{x[0]:.4f},{x[1]:.4f},{int(y > 0)}\n"
            for x, y in zip(data["x"], data["y"], strict=True)
        ]
    (folder / "all.csv").write_text("day,a,b,y\n" + "".join(rows))


def _days(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (folder / "days").mkdir()
    for number in range(3):
        columns = {"id": day(number)["id"], "y": day(number)["y"]}
        parquet.write_table(pa.table(columns), folder / "days" / f"part-{number}.parquet")


EXPERIMENTS = """
import random
from memento.files import atomic_write
from memento.runner.spec import Experiment

def experiments():
    yield Experiment("small", "base", ":walk", {"seed": 0})
    for seed in (1, 2):
        yield Experiment("small", f"walk-{seed}", ":walk", {"seed": seed}, needs=("base",))

def walk(run, *, seed):
    rng = random.Random(seed)
    text = ",".join(str(rng.random()) for _ in range(100))
    atomic_write(run.folder / "walk.csv", text.encode())
"""


def _page(folder: Path) -> None:
    (folder / "page.py").write_text(EXPERIMENTS)


def deployment(folder: Path) -> None:
    from deployment import stranger
    from memento.cli.main import main

    (folder / "torture_mean.py").write_text(stranger.MEAN)
    (folder / "deploy.toml").write_text(stranger.CONFIG.format(module="torture_mean"))
    text = (folder / "torture_mean.py").read_text()
    (folder / "torture_mean.py").write_text(
        text + "\n\ndef make(seed):\n    return Frequencies(seed)\n"
    )
    for number in (1, 2, 3):
        stranger.write_day(folder / "days", number, rows=40)
    main(["deploy", "init", "state", "--config", "deploy.toml"])


def _nothing(folder: Path) -> None:
    del folder


def _viewers(folder: Path) -> None:
    from memento.cli.main import main

    words = ("puffer", "simulate", "2022-01-03", "--to", "days", "--sessions", "12", "--no-content")
    main(list(words))


def subjects() -> Iterator[Subject]:
    """All of them; those of the cases where these are installed."""
    insert = ("memory", "insert", "mem", "day-3.npz", "--unit", "day-3")
    yield Subject(
        "memory-init", _nothing,
        ("memory", "init", "mem", "--capacity", "50", "--labels", "y:3"), idempotent=False,
    )  # fmt: skip
    yield Subject("memory-insert", _stored(), insert, loads)
    policy = lambda: Memento([JensenShannon.of_labels("y", CLASSES)], batch_size=4)  # noqa: E731
    yield Subject("memory-insert-memento", _stored(policy), insert, loads)
    yield Subject(
        "memory-annotate", _further_column, ("memory", "annotate", "mem", "more.npz"), loads
    )
    yield Subject(
        "memory-label", _labels, ("memory", "label", "mem", "labels.csv", "--id", "id"), loads
    )
    yield Subject("memory-trained", _stored(), ("memory", "trained", "mem"), loads)
    yield Subject("memory-export", _stored(), ("memory", "export", "mem", "out.parquet"), loads)
    yield Subject(
        "memory-merge", _both, ("memory", "merge", "mem", "other"), loads, idempotent=False
    )
    yield Subject("save", _stored(), _save, loads)
    yield Subject("run", _nothing, loop)
    yield Subject(
        "select", _days,
        ("select", "days", "--to", "held", "--capacity", "90", "--labels", "y:3", "--id", "id",
         "--block-rows", "50"), ignored=(r"report\.json$",), idempotent=False,
    )  # fmt: skip
    yield Subject("deploy", deployment, ("deploy", "run", "state"))
    yield Subject(
        "backtest", table,
        ("backtest", "all.csv", "--unit", "day", "--model", "logistic", "--capacity", "40",
         "--policies", "reservoir", "--triggers", "every-2", "--seeds", "1", "--out", "try"),
        ignored=(r"\.html$", r"state\.json$", r"result\.json$"),
    )  # fmt: skip
    yield Subject(
        "run-j2", _page,
        ("run", "small", "--experiments", "page.py", "-j", "2"),
        ignored=(r"log.*\.txt$", r"state\.json$", r"result\.json$"), alone=False,
    )  # fmt: skip
    if importlib.util.find_spec("memento_puffer"):
        yield from _puffer()
    if importlib.util.find_spec("memento_datacenter"):
        yield Subject(
            "datacenter-simulate", standins.program,
            ("datacenter", "simulate", "w1", "--runs", "0-3", "-j", "2", "--to", "runs"),
        )  # fmt: skip


def _puffer() -> Iterator[Subject]:
    yield Subject(
        "puffer-simulate", _nothing,
        ("puffer", "simulate", "2022-01-03", "--to", "days", "--sessions", "12", "--no-content"),
    )  # fmt: skip
    yield Subject(
        "puffer-features", _viewers,
        ("puffer", "features", "2022-01-03", "--from", "days", "--to", "features"),
    )  # fmt: skip
    yield Subject(
        "puffer-train", _viewers,
        ("puffer", "train", "2022-01-03", "--from", "days", "--to", "model", "--as", "quick",
         "--epochs", "2", "--checkpoint", "going"), idempotent=False,
    )  # fmt: skip
    yield Subject(
        "puffer-download", _nothing,
        ("puffer", "download", standins.DAY, "--to", "days", "--models"),
    )  # fmt: skip
