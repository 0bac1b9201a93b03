"""Folders that were written to deceive: digests fit, contents do not. Only our errors come of it.

A few values in every place; all values where slow tests are asked for.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from memento import (
    FIFO,
    ClassBalancedReservoir,
    DailyWindow,
    DensityReservoir,
    FacilityLocation,
    GradientSampleSelection,
    Group,
    Herding,
    JensenShannon,
    KCenterGreedy,
    LossAwareReservoir,
    LossReservoir,
    Memento,
    Memory,
    Metric,
    QueryByCommittee,
    Reservoir,
    snapshot,
)
from memento.errors import DamagedError, ForeignError, MementoError, SchemaError

RNG = np.random.default_rng(0)
CLASSES = 3


def samples(size: int) -> dict[str, np.ndarray]:
    y = np.arange(size) % CLASSES
    return {
        "y": y,
        "x": RNG.normal(size=(size, 2)),
        "value": RNG.normal(size=size),
        "yhat": RNG.dirichlet(np.ones(CLASSES), size),
        "committee": RNG.dirichlet(np.ones(CLASSES), (size, 2)),
        "loss": RNG.random(size),
    }


DISTANCES = [
    JensenShannon.of_labels("y", CLASSES),
    JensenShannon.of_probabilities("yhat"),
    JensenShannon.of_values("value", points=9),
]
POLICIES = {
    "memento": Memento(DISTANCES, batch_size=4, sort_by=["y"]),
    "density-reservoir": DensityReservoir(DISTANCES, batch_size=4, sort_by=["y"], half_life=9.0),
    "reservoir": Reservoir(forget=0.1),
    "fifo": FIFO(),
    "window": DailyWindow(days=3),
    "class-balanced": ClassBalancedReservoir(),
    "facility-location": FacilityLocation("x", label="y"),
    "gradient": GradientSampleSelection("x"),
    "herding": Herding("x"),
    "k-center": KCenterGreedy("x"),
    "loss-aware": LossAwareReservoir(),
    "loss-reservoir": LossReservoir(half_life=9.0),
    "metric": Metric.of_loss(batch_size=4, sort_by=["y"]),
    "committee": QueryByCommittee(),
}
VALUES = [
    *(None, True, "x", "", "../../secret", "\0", [], {}, [1], [[]], {"a": 1}, 1.5, -1, 0, 2),
    *(
        10**6,
        2**63,
        10**40,
        -(2**62),
        1e308,
        -1e308,
        math.nan,
        math.inf,
        ["x"] * 3,
        {"kind": "fifo"},
    ),
]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A folder for each policy, and one of a group."""
    root = tmp_path_factory.mktemp("sealed")
    for name, policy in POLICIES.items():
        memory = Memory(40, policy, seed=1)
        for _ in range(2):
            memory.insert(samples(30))
        memory.mark_trained()
        memory.save(root / name)
    group = Group({"a": Memory(20, FIFO()), "b": Memory(20, Reservoir())})
    group.insert(samples(30))
    group.save(root / "group")
    return root


class Folder:
    """A stored folder whose parts may be changed; sizes and digests are put right afterwards."""

    def __init__(self, source: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        self.path = target
        self.manifest = json.loads((target / "manifest.json").read_text())
        self.inside = target / f"generation-{self.manifest['generation']:06d}"

    def documents(self) -> dict[str, object]:
        return {p.name: json.loads(p.read_text()) for p in sorted(self.inside.glob("*.json"))}

    def put(self, file: str, content: bytes) -> None:
        (self.inside / file).write_bytes(content)
        facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.manifest["files"][file].update(facts)

    def put_array(self, file: str, array: np.ndarray) -> None:
        np.save(self.inside / file, array)
        self.put(file, (self.inside / file).read_bytes())
        self.manifest["files"][file].update(dtype=str(array.dtype), shape=list(array.shape))

    def seal(self) -> None:
        self.manifest.pop("sha256", None)
        text = json.dumps(self.manifest, sort_keys=True).encode()
        self.manifest["sha256"] = hashlib.sha256(text).hexdigest()
        (self.path / "manifest.json").write_text(json.dumps(self.manifest))


def use(folder: Path, kind: type = Memory) -> None:
    """Load and go on, as far as that is possible; anything but our errors is raised."""
    try:
        loaded = kind.load(folder)
        for _ in range(2):
            loaded.insert(samples(50))
        _ = loaded.weights, loaded.samples
        _ = loaded.dump() if isinstance(loaded, Memory) else loaded.sample(5)
    except (MementoError, MemoryError):
        pass


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths to all the parts of a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value[:3]) if isinstance(value, list) else items
    for key, item in items:
        found += places(item, (*path, key))
    return found


def changed(document: object, path: tuple, value: object) -> object:
    """A copy with one part replaced; ``...`` removes it."""
    document = copy.deepcopy(document)
    part = document
    for key in path[:-1]:
        part = part[key]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return document


EACH = pytest.mark.parametrize("each", [1, pytest.param(len(VALUES), marks=pytest.mark.slow)])


@EACH
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*POLICIES, "group"])
def test_documents_of_any_content(sealed, tmp_path, name, each):
    """Each part of each document, replaced by some of the hostile values."""
    chance = random.Random(name)
    kind = Group if name == "group" else Memory
    documents = Folder(sealed / name, tmp_path / "bad").documents()
    for file, document in documents.items():
        for path in places(document):
            for value in (..., *chance.sample(VALUES, each)):
                folder = Folder(sealed / name, tmp_path / "bad")
                folder.put(file, json.dumps(changed(document, path, value)).encode())
                folder.seal()
                use(folder.path, kind)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*POLICIES, "group"])
@EACH
def test_arrays_of_any_content(sealed, tmp_path, name, each):
    chance = random.Random(name)
    kind = Group if name == "group" else Memory
    for file in sorted(Folder(sealed / name, tmp_path / "bad").inside.glob("*.npy")):
        array = np.load(file)
        extreme = array.astype(float) if array.dtype.kind in "iu" else array.copy()
        extreme[...] = np.nan
        large = array.copy()
        large[...] = 2**62 if array.dtype.kind in "iu" else 1e300
        others = (
            *(array[:-1], array[:0], array[None], array.reshape(-1), array.astype(str)),
            *(array.astype(np.float32), array.astype(np.int8), array.astype(np.uint64), -array),
            *(extreme, large, np.zeros((40, 0)), np.array(5), array.astype(complex)),
            *(np.zeros(len(array), "M8[s]"), np.zeros(len(array), [("a", "f8")]), array > 0),
        )
        for other in chance.sample(others, min(2 * each, len(others))):
            folder = Folder(sealed / name, tmp_path / "bad")
            folder.put_array(file.name, other)
            folder.seal()
            use(folder.path, kind)
        folder = Folder(sealed / name, tmp_path / "bad")
        del folder.manifest["files"][file.name]
        folder.seal()
        use(folder.path, kind)


@EACH
def test_manifests_of_any_content(sealed, tmp_path, each):
    manifest = Folder(sealed / "reservoir", tmp_path / "bad").manifest
    chance = random.Random(1)
    for path in places(manifest):
        for value in (..., *chance.sample(VALUES, each)):
            folder = Folder(sealed / "reservoir", tmp_path / "bad")
            folder.manifest = changed(manifest, path, value)
            folder.seal()
            use(folder.path)


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("content", [DEEP, b"\xff\xfe", b"", b"1" * 10_000, b'{"a":' * 50_000])
def test_documents_that_cannot_be_read(sealed, tmp_path, content):
    for file in ("memory.json", "policy.json", "generator.json"):
        folder = Folder(sealed / "fifo", tmp_path / "bad")
        folder.put(file, content)
        folder.seal()
        with pytest.raises(MementoError):
            Memory.load(folder.path)
    (folder.path / "manifest.json").write_bytes(content)
    with pytest.raises(ForeignError):
        Memory.load(folder.path)


@pytest.mark.parametrize("shape", [(10**12,), (2**62,), (10**6, 10**6), (-1,), (2**70,)])
def test_headers_that_promise_more_than_the_file_holds(sealed, tmp_path, shape):
    """Nothing is allocated for them."""
    folder = Folder(sealed / "fifo", tmp_path / "bad")
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + b"0" * 64
    file = next(p.name for p in folder.inside.glob("*.npy"))
    folder.put(file, content)
    folder.manifest["files"][file].update(dtype="float64", shape=list(shape))
    folder.seal()
    with pytest.raises(DamagedError):
        Memory.load(folder.path)


@pytest.mark.parametrize("file", ["../secret.json", "/etc/hostname", "a/b.json", "..", "x\0.json"])
def test_files_outside_are_not_read(sealed, tmp_path, file):
    folder = Folder(sealed / "fifo", tmp_path / "bad")
    secret = b'"private"'
    (tmp_path / "bad" / "secret.json").write_bytes(secret)
    facts = {"bytes": len(secret), "sha256": hashlib.sha256(secret).hexdigest()}
    folder.manifest["files"][file] = {"document": "x", "number": 9, **facts}
    folder.seal()
    with pytest.raises(DamagedError, match="none that Memento writes"):
        snapshot.read(folder.path, "memento-memory")


def test_links_and_pipes_are_not_followed(sealed, tmp_path):
    for make in (os.symlink, lambda source, target: os.mkfifo(target)):
        folder = Folder(sealed / "fifo", tmp_path / "bad")
        file = folder.inside / "memory.json"
        file.rename(tmp_path / "elsewhere.json")
        make(tmp_path / "elsewhere.json", file)
        with pytest.raises(DamagedError):
            Memory.load(folder.path)
    folder = Folder(sealed / "fifo", tmp_path / "bad")
    folder.inside.rename(tmp_path / "elsewhere")
    folder.inside.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedError, match="is a link"):
        Memory.load(folder.path)
    (folder.path / "manifest.json").unlink()
    os.mkfifo(folder.path / "manifest.json")
    with pytest.raises(ForeignError):
        Memory.load(folder.path)


def test_settings_that_cannot_be_stored_are_refused(tmp_path):
    class Odd(FIFO):
        kind = None

        def settings(self):
            return {"kind": "odd", "function": len}

    with pytest.raises(SchemaError, match="'policy' cannot be stored"):
        Memory(5, Odd()).save(tmp_path / "m")
    assert not (tmp_path / "m").exists()
