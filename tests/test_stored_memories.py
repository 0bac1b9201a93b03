"""What released versions stored is read, used and written again by this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import memento
from memento import Memory

DATA = Path(__file__).parent / "data"
# Version -> policies of which it stored a memory.
STORED = {
    "first": ["memento"],
    "0.1.0": ["memento", "density-reservoir", "reservoir"],
    "0.2.0": ["memento", "density-reservoir", "reservoir"],
}
EACH = [(version, policy) for version, policies in STORED.items() for policy in policies]


def day(k: int, n: int = 40) -> dict[str, np.ndarray]:
    """What was inserted, the third day of which is still to come."""
    i = np.arange(n)
    y = (i * 7 + k) % 3
    yhat = np.full((n, 3), 0.2, np.float32)
    yhat[i, (y + (i % 5 == 0)) % 3] = 0.6
    x = ((np.arange(2 * n) * 13 + k) % 17 / 16).reshape(n, 2).astype(np.float32)
    return {
        "x": x,
        "y": y,
        "yhat": yhat,
        "id": i + 1000 * k,
        "name": np.array(["a", "längst", ""])[y],
    }


@pytest.fixture
def stored(tmp_path):
    """A function that unpacks a version's folder and tells what it held."""

    def unpack(version: str, policy: str) -> tuple[Path, dict[str, list[float]]]:
        with tarfile.open(DATA / f"memory-{version}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        expected = json.loads((tmp_path / "expected.json").read_text(encoding="utf-8"))
        return tmp_path / policy, expected[policy]

    return unpack


def test_every_archive_is_read_here():
    assert {path.name for path in DATA.glob("*.tar.gz")} == {
        f"memory-{version}.tar.gz" for version in STORED
    }


@pytest.mark.parametrize(("version", "policy"), EACH)
def test_what_was_held_is_read(stored, version, policy):
    folder, expected = stored(version, policy)
    memory = Memory.load(folder)
    assert memory.policy.kind == policy
    assert memory.seen == expected["seen"]
    assert memory.reference["id"].tolist() == expected["reference"]
    ids = memory.samples["id"]
    assert ids.tolist() == expected["ids"]
    for k in (0, 1):  # every column is as it came
        rows = ids // 1000 == k
        for name, column in day(k).items():
            found = memory.samples[name][rows]
            np.testing.assert_array_equal(found, column[ids[rows] - 1000 * k])
    if expected["weights"] is None:
        assert memory.weights is None
    else:
        np.testing.assert_allclose(memory.weights, expected["weights"], rtol=1e-6)


@pytest.mark.parametrize(("version", "policy"), EACH)
def test_it_goes_on_and_is_stored_again(stored, version, policy):
    folder, expected = stored(version, policy)
    memory = Memory.load(folder)
    held = memory.samples["id"].tolist()
    memory.insert(**day(2))
    ids = memory.samples["id"].tolist()
    assert 20 <= len(ids) <= 24
    assert set(ids) <= {*held, *day(2)["id"].tolist()}
    if policy == "reservoir":  # nothing is rounded on the way to its draws
        assert ids == expected["after another day"]
    memory.save(folder)
    again = Memory.load(folder)
    assert again.samples["id"].tolist() == ids
    assert again.seen == 120


def test_this_version_has_an_archive_of_its_own():
    """Added when a version is released, with what `tests/data/README.md` says."""
    assert memento.__version__ in STORED
