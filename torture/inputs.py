"""Bad input, generated: only errors of ours come of it, and nothing that was there changes."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import gzip
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import test_hostile as hostile
from memento import Memory, Reservoir, scale, snapshot
from memento.errors import MementoError
from torture import calls, foreign, subjects
from torture.calls import NAMES
from torture.foreign import room_for
from torture.trial import ROOM, Violation, command, file_operation, limit, mutated

SECONDS = 60  # in which a trial has to end

_ARENAS = -8  # M_ARENA_MAX of the C library

Trial = Callable[[random.Random, Path], None]

# --------------------------------------------------------------------------------- stored memories


def _sealed(folder: Path) -> Path:
    """A stored memory of each policy, made once."""
    root = folder / "sealed"
    if not root.exists():
        for name, policy in hostile.POLICIES.items():
            memory = Memory(40, policy, seed=1)
            for _ in range(2):
                memory.insert(hostile.samples(30))
            memory.mark_trained()
            memory.save(root / name)
    return root


def _use(folder: Path) -> None:
    with contextlib.suppress(MementoError):
        loaded = Memory.load(folder)
        loaded.insert(hostile.samples(50))
        _ = loaded.weights, loaded.samples
        loaded.save(folder)


def sealed(chance: random.Random, folder: Path) -> None:
    """A memory whose digests are right and whose content is not."""
    source = _sealed(folder) / chance.choice(sorted(hostile.POLICIES))
    bad = hostile.Folder(source, folder / "bad")
    documents = bad.documents()
    for _ in range(chance.randint(1, 3)):
        file = chance.choice(sorted(documents))
        document = documents[file]
        where = hostile.places(document)
        if where:
            value = chance.choice([..., *hostile.VALUES])
            with contextlib.suppress(KeyError, IndexError, TypeError):
                documents[file] = hostile.changed(document, chance.choice(where), value)
        bad.put(file, json.dumps(documents[file]).encode())
    bad.seal()
    _use(bad.path)


def damaged(chance: random.Random, folder: Path) -> None:
    """A memory with bytes that were turned round: it is refused, or all that it holds is as it was."""
    source = _sealed(folder) / chance.choice(sorted(hostile.POLICIES))
    target = folder / "bad"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    file = chance.choice([p for p in sorted(target.rglob("*")) if p.is_file() and p.name != "lock"])
    before = file.read_bytes()
    file.write_bytes(mutated(before, chance))
    changed = file.read_bytes() != before
    try:
        loaded = Memory.load(target)
    except MementoError:
        return
    if changed and file.name != "manifest.json":
        raise Violation(f"{file.name} was changed and the memory is read as if it were not")
    loaded.insert(hostile.samples(50))


# ----------------------------------------------------------------------- files, read by commands


def _tables(folder: Path) -> Path:
    root = folder / "tables"
    if not root.exists():
        import pyarrow as pa
        from pyarrow import feather, parquet

        root.mkdir(parents=True)
        data = subjects.day(3, 40)
        flat = {
            "id": data["id"],
            "y": data["y"],
            "loss": data["loss"],
            "text": [f"t{i % 3}" for i in range(40)],
        }
        table = pa.table(flat)
        parquet.write_table(table, root / "day.parquet")
        feather.write_feather(table, root / "day.arrow", compression="uncompressed")
        np.savez(root / "day.npz", **data)
        with (root / "day.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(flat)
            writer.writerows(zip(*flat.values(), strict=True))
        memory = Memory(30, Reservoir(), seed=1)
        memory.insert({"id": data["id"][:20] + 999, "y": data["y"][:20], "loss": data["loss"][:20]})
        memory.save(root / "mem")
    return root


def tables(chance: random.Random, folder: Path) -> None:
    """Damaged Parquet, Arrow, CSV and NPZ files, inserted: all of the file or nothing."""
    root = _tables(folder)
    memory = folder / "mem"
    shutil.rmtree(memory, ignore_errors=True)
    shutil.copytree(root / "mem", memory)
    source = root / chance.choice(["day.parquet", "day.arrow", "day.csv", "day.npz"])
    file = folder / f"bad{source.suffix}"
    file.write_bytes(mutated(source.read_bytes(), chance))
    before = snapshot.generation_of(memory)
    limit(room_for(file.stat().st_size))
    code, _ = command("memory", "insert", memory, file, "--columns", "id,y,loss")
    if code not in (0, 2):
        raise Violation(f"exit code {code}")
    if code and snapshot.generation_of(memory) != before:
        raise Violation("a refused file changed the memory")
    Memory.load(memory)


LARGE = 128 << 20  # bytes


def _large(folder: Path) -> Path:
    """Files of a few hundred kB that hold `LARGE`, as they say; made once."""
    root = folder / "large"
    if not root.exists():
        import pyarrow as pa
        from pyarrow import feather, parquet

        root.mkdir()
        x = np.zeros((1 << 15, LARGE >> 18))
        table = pa.table({f"x{i}": column for i, column in enumerate(x.T)})
        parquet.write_table(table, root / "large.parquet")
        feather.write_feather(table, root / "large.arrow", compression="zstd")
        np.savez_compressed(root / "large.npz", x=x)
        lines = [",".join(table.column_names), *[",".join(["0.0"] * x.shape[1])] * len(x)]
        (root / "large.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    return root


def bombs(chance: random.Random, folder: Path) -> None:
    """Files that are small and say that they are large; some are, and cost no more than they say."""
    size = chance.choice([1 << 24, 1 << 28, 3 << 30, 1 << 40])
    memory = folder / "mem"
    shutil.rmtree(memory, ignore_errors=True)
    Memory(10, Reservoir()).save(memory)
    way = chance.randrange(4)
    if way == 0:
        file = chance.choice(sorted(_large(folder).iterdir()))
        limit(room_for(LARGE))
    elif way == 1:
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({size // 8},), }}"
        header = header.ljust(118 - 1) + "\n"
        start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        file = folder / "bomb.npz"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("y.npy", start + b"\0" * chance.choice([0, 64, 1 << 20]))
        limit(room_for(1 << 20))
    elif way == 2:
        file = folder / "bomb.csv.gz"
        file.write_bytes(gzip.compress(b"y\n" + b"1\n" * chance.choice([10, 10_000])))
        limit(room_for(80_000))
    else:
        import pyarrow as pa
        from pyarrow import feather

        file = folder / "gaps.arrow"  # takes no bytes, whatever its length
        feather.write_feather(pa.table({"y": pa.nulls(min(size, 3 << 30) // 8)}), file)
    code, said = command("memory", "insert", memory, file)
    if code not in (0, 1, 2) or (code and way in (0, 2)):
        raise Violation(f"{file.name}: exit code {code}: {said[-300:]}")
    Memory.load(memory)


SETTINGS = {
    "memory": '[policy]\nkind = "memento"\nbatch_size = 4\nbandwidth = 0.1\n'
    '[[policy.distances]]\nkind = "jensen-shannon-labels"\ncolumn = "y"\nclasses = 3\n',
    "deployment": '[data]\nfolder = "days"\nlabel = "y"\ninputs = ["f*"]\n[model]\nfactory = "torture_model:make"\n'
    '[variants.main]\ncapacity = 60\npolicy = "fifo"\ntrigger = "every"\n[gate]\ntolerance = 0.02\n'
    '[git]\nremote = "origin"\n',
}


def settings(chance: random.Random, folder: Path) -> None:
    """Settings of a memory and of a deployment with a value, a name or bytes replaced."""
    kind = chance.choice(sorted(SETTINGS))
    text = SETTINGS[kind]
    lines = text.splitlines()
    if chance.random() < 0.7:
        at = chance.choice([i for i, line in enumerate(lines) if "=" in line])
        name, _, _ = lines[at].partition("=")
        value = chance.choice(["1e999", "nan", "-1", "0", "[]", "{}", '""', "true", "[[1]]", "2020-01-01", '"--upload-pack=x"',
                               '"../.."', '"a\\u0000b"', "9223372036854775808", '"\\u001b[31m"', '["f*", 1]', "1.5", f'"{"x" * 4000}"'])  # fmt: skip
        lines[at] = (
            f"{name}= {value}"
            if chance.random() < 0.8
            else f"{chance.choice(['odd', 'kind', 'data'])} = {value}"
        )
        content = "\n".join(lines).encode()
    else:
        content = mutated(text.encode(), chance)
    file = folder / "settings.toml"
    file.write_bytes(content)
    target = folder / "made"
    shutil.rmtree(target, ignore_errors=True)
    (folder / "days").mkdir(exist_ok=True)
    (folder / "torture_model.py").write_text(
        "def make(seed):\n    raise RuntimeError('no model')\n"
    )
    if kind == "memory":
        code, _ = command("memory", "init", target, "--capacity", 50, "--config", file)
    else:
        with contextlib.chdir(folder):
            code, _ = command("deploy", "init", target, "--config", file)
    if code not in (0, 2):
        raise Violation(f"exit code {code}")
    if code and target.exists():
        raise Violation("refused settings left a folder")


def names(chance: random.Random, folder: Path) -> None:
    """Names of columns, labels, units and files that are meant to be something else."""
    memory = folder / "mem"
    shutil.rmtree(memory, ignore_errors=True)
    column, unit, label = (chance.choice(NAMES) for _ in range(3))
    with contextlib.suppress(MementoError, UnicodeEncodeError):
        held = Memory(10, Reservoir())
        held.insert({column: ["a", label, "b"], "y": [0, 1, 2]})
        held.save(memory)
    if not memory.exists():
        Memory(10, Reservoir()).save(memory)
    file = folder / "day.csv"
    with contextlib.suppress(UnicodeEncodeError):
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([[column, "y"], [label, 0], ["b", 1]])
        command("memory", "insert", memory, file, f"--unit={unit}")
        command("memory", "status", memory)
        command("memory", "export", memory, folder / "out.parquet")
        command("memory", "insert", memory, folder / unit.replace("\0", "0"))
        command(chance.choice(["report", "select", "backtest", "run", unit]), unit)


def _pages(folder: Path) -> Path:
    root = folder / "results"
    if not root.exists():
        work = folder / "work"
        work.mkdir(parents=True)
        subjects.table(work)
        with contextlib.chdir(work):
            command("backtest", "all.csv", "--unit", "day", "--model", "logistic", "--capacity", "40",
                    "--policies", "reservoir", "--triggers", "never", "--seeds", "1", "--out", root)  # fmt: skip
    return root


def results(chance: random.Random, folder: Path) -> None:
    """Results of which a file is damaged: a page that says so, or an error of ours."""
    bad = folder / "bad"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(_pages(folder), bad)
    files = [p for p in sorted(bad.rglob("*")) if p.is_file() and p.suffix in (".json", ".csv")]
    file = chance.choice(files)
    file.write_bytes(mutated(file.read_bytes(), chance))
    code, _ = command("report", bad)
    if code not in (0, 2):
        raise Violation(f"{file.name}: exit code {code}")


#: What is used of a folder that a subject has left.
STATES: dict[str, list[tuple[str, ...]]] = {
    "deploy": [("deploy", "status", "state"), ("deploy", "run", "state"), ("report", "state"),
               ("deploy", "record", "state"), ("deploy", "rollback", "state", "main")],
    "select": [("select", "days", "--to", "held", "--capacity", "90", "--labels", "y:3", "--id", "id"),
               ("select", "days", "--to", "more", "--capacity", "90", "--held", "held", "--labels", "y:3", "--id", "id")],
    "run": [],
}  # fmt: skip


def _states(folder: Path) -> dict[str, Path]:
    """A deployment, a selection and a checkpoint of a loop, each made once."""
    made = {name: folder / name for name in STATES}
    for subject in subjects.subjects():
        if subject.name in made and not made[subject.name].exists():
            made[subject.name].mkdir()
            with contextlib.chdir(made[subject.name]):
                with contextlib.suppress(SystemExit):  # where a command prepares
                    subject.prepare(made[subject.name])
                subject.act() if callable(subject.act) else command(*subject.act)
    return made


def states(chance: random.Random, folder: Path) -> None:
    """A file of a deployment, a selection or a checkpoint with another value or other bytes."""
    kind = chance.choice(sorted(STATES))
    bad = folder / "bad"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.rmtree(folder / "more", ignore_errors=True)
    shutil.copytree(_states(folder)[kind], bad, symlinks=True)
    files = [p for p in sorted(bad.rglob("*")) if p.is_file() and not p.is_symlink()]
    documents = [p for p in files if p.suffix == ".json"]
    file = chance.choice(documents if chance.random() < 0.7 else files)
    places = hostile.places(json.loads(file.read_text())) if file.suffix == ".json" else []
    if places and chance.random() < 0.8:
        value = chance.choice([..., *hostile.VALUES])
        document = hostile.changed(json.loads(file.read_text()), chance.choice(places), value)
        file.write_text(json.dumps(document))
    else:
        file.write_bytes(mutated(file.read_bytes(), chance))
    with contextlib.chdir(bad):
        for words in STATES[kind]:
            code, _ = command(*words)
            if code not in (0, 1, 2):
                raise Violation(f"{file.relative_to(bad)}: exit code {code}")
        with contextlib.suppress(MementoError):
            if kind == "run":
                subjects.loop()
            elif kind == "select":
                scale.load("held").insert({"id": [7], "y": [1]})


def _case(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def kinds() -> dict[str, Trial]:
    """All of them, with those of the cases where these are installed."""
    found: dict[str, Trial] = {
        "constructors": calls.constructors, "methods": calls.methods, "everything": calls.everything, "sealed": sealed, "damaged": damaged,
        "tables": tables, "bombs": bombs, "settings": settings, "names": names, "results": results, "states": states,
        "models": foreign.models, "predictors": foreign.predictors, "git": foreign.git,
    }  # fmt: skip
    if _case("memento_puffer"):
        found |= {
            "traces": foreign.traces,
            "day-files": foreign.day_files,
            "trees": foreign.trees,
            "archives": foreign.archives,
        }
    if _case("memento_datacenter"):
        found |= {
            "message-sizes": foreign.message_sizes,
            "ns3-results": foreign.ns3_results,
            "ns3-records": foreign.ns3_records,
        }
    return found


#: How many of a hundred trials are of each kind; those that take long are few.
SHARES = {"constructors": 15, "methods": 15, "everything": 20, "sealed": 12, "damaged": 10, "tables": 10, "bombs": 2,
          "settings": 6, "names": 4, "results": 2, "states": 3, "models": 4, "trees": 2, "traces": 2, "day-files": 1, "message-sizes": 1}  # fmt: skip


def order() -> Iterator[str]:
    """Names of all trials, without end."""
    chance, number = random.Random(0), 0
    there, shares = kinds(), SHARES | foreign.SHARES
    while True:
        kind = chance.choices(list(shares), list(shares.values()))[0]
        if kind in there:
            yield f"inputs/{kind}/{number}"
        number += 1


def attempts(names: list[str], root: Path) -> Iterator[tuple[str, str]]:
    """Try inputs in a process of their own; each with what was violated, or an empty text."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        code = 1
        try:
            _serve(names, root, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    left = list(names)
    with os.fdopen(reading) as pipe:
        for line in pipe:
            name, text = json.loads(line)
            left.remove(name)
            yield name, text
    _, status = os.waitpid(process, 0)
    if left:
        yield left[0], f"the process ended with {os.waitstatus_to_exitcode(status)}"
        if left[1:]:
            yield from attempts(left[1:], root)


def _stay_inside(root: Path) -> None:
    """What names of files hostile input holds, nothing but the folder of the trials may change."""
    temporary = [root, os.environ.get("NUMBA_CACHE_DIR", root), "/dev", "/proc"]
    allowed = tuple(os.path.realpath(path) + os.sep for path in temporary)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "socket.connect" or (
            event == "subprocess.Popen" and "git" not in str(arguments[0])
        ):
            raise PermissionError(f"{event}: not in a trial")
        if not file_operation(event, arguments):
            return
        two = event in ("os.rename", "os.link")
        beside = event in ("os.remove", "os.rmdir", "os.mkdir") and arguments[-1]
        base = f"/proc/self/fd/{beside}" if isinstance(beside, int) and beside > 0 else ""
        first = event == "os.symlink"  # what comes before is the content of a link
        for path in arguments[first : 2 if two or first else 1]:
            if isinstance(path, (str, bytes, os.PathLike)):
                path = os.path.join(base, os.fsdecode(path))
                place = os.path.realpath(path) + os.sep
                if not place.startswith(allowed) and "__pycache__" not in place:
                    raise PermissionError(f"{event} of {place}: not in a trial")

    sys.addaudithook(hook)


def _serve(names: list[str], root: Path, pipe: int) -> None:
    signal.signal(signal.SIGALRM, _late)
    with contextlib.suppress(OSError, AttributeError):
        # One arena for all threads: each thread of Arrow's reserves 64 MiB of addresses otherwise,
        # which is no memory that a file costs.
        ctypes.CDLL(None).mallopt(_ARENAS, 1)
    warnings.simplefilter("ignore")
    os.environ["TMPDIR"] = tempfile.tempdir = str(root)
    _stay_inside(root)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    there = kinds()
    for name in names:
        _, kind, number = name.split("/")
        folder = root / "inputs" / kind
        folder.mkdir(parents=True, exist_ok=True)
        found = ""
        # Charts are checked by an engine that reserves addresses without end.
        limit(None if kind == "results" else ROOM)
        signal.alarm(SECONDS)
        try:
            there[kind](random.Random(f"{kind}/{number}"), folder)
        except Violation as violation:
            found = str(violation)
        except BaseException as error:
            import traceback

            where = traceback.extract_tb(error.__traceback__)
            frames = [f"{Path(f.filename).name}:{f.lineno}" for f in where[-4:]]
            found = f"{type(error).__name__}: {str(error)[:300]} ({' > '.join(frames)})"
        finally:
            signal.alarm(0)
        os.write(pipe, (json.dumps([name, found]) + "\n").encode())


class LateError(Exception):
    """A trial takes too long."""


def _late(number: int, frame: object) -> None:
    raise LateError(f"more than {SECONDS} s")
