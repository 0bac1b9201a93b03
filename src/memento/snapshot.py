"""Durable state: arrays and documents in a folder, complete at any moment.

    DIR/manifest.json            which generation is current; sizes and digests of its files
    DIR/generation-000007/       one .npy an array (never pickled), one .json a document
    DIR/lock                     held while somebody writes

A new generation is written beside the current one; then the manifest is replaced, which is the
moment the change happens; then the old generation goes. A process killed anywhere leaves the one or
the other complete. Readers take no lock.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from memento.errors import DamagedError, ForeignError, SchemaError, StorageError
from memento.files import Lock, atomic_write, digest, storage_errors, sync_folder, write_synced

__all__ = [
    "Snapshot",
    "exists",
    "generation_of",
    "generator_document",
    "generator_from",
    "lock_of",
    "read",
    "with_prefix",
    "write",
]

_VERSION = 1
_MANIFEST = "manifest.json"
_LOCK = "lock"
_GENERATORS = ("PCG64", "PCG64DXSM", "Philox", "SFC64", "MT19937")


@dataclass(frozen=True)
class Snapshot:
    """What was read from a folder.

    Attributes:
        generation: Counts the writes, from 1.
        arrays: By name.
        documents: JSON values by name.
    """

    generation: int
    arrays: Mapping[str, np.ndarray]
    documents: Mapping[str, Any]


def lock_of(folder: Path) -> Lock:
    """The lock of a folder, for a ``with`` block around reading, changing and writing it."""
    folder.mkdir(parents=True, exist_ok=True)
    return Lock(folder / _LOCK)


def exists(folder: Path) -> bool:
    """Whether a folder holds a snapshot (of any kind)."""
    return (folder / _MANIFEST).is_file()


def generation_of(folder: Path) -> int:
    """The current generation of a folder; 0 if nothing was ever written."""
    return int(_manifest(folder)["generation"]) if exists(folder) else 0


def write(
    folder: Path,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    documents: Mapping[str, Any],
    *,
    lock: Lock | None = None,
) -> int:
    """Replace what a folder holds, all at once.

    Args:
        folder: Made if it does not exist.
        kind: What is stored, as in ``"memento-memory"``.
        arrays: Of any dtype without Python objects.
        documents: JSON values.
        lock: The lock of this folder, if the caller holds it already.

    Returns:
        The new generation.

    Raises:
        ForeignError: The folder holds something else; it is left alone.
        LockedError: Somebody else is writing.
        SpaceError, StorageError: The new generation could not be written; the old one stays.
    """
    with storage_errors("write", folder):
        if lock is not None:
            return _write(folder, kind, arrays, documents)
        with lock_of(folder):
            return _write(folder, kind, arrays, documents)


def _write(
    folder: Path, kind: str, arrays: Mapping[str, np.ndarray], documents: Mapping[str, Any]
) -> int:
    generation = _check_ours(folder, kind) + 1
    new = folder / _name(generation)
    _remove_others(folder, generation - 1)
    try:
        new.mkdir()
        files = {}
        for number, (name, array) in enumerate(arrays.items()):
            file = f"{number:03d}-{quote(name, safe='')[:100]}.npy"
            files[file] = {"array": name, **_describe(array), **_write_array(new / file, array)}
        for number, (name, document) in enumerate(documents.items()):
            file = f"{quote(name, safe='')[:100]}.json"
            text = json.dumps(document, indent=1, allow_nan=True).encode()
            size, sha = write_synced(new / file, _writer(text))
            files[file] = {"document": name, "bytes": size, "sha256": sha, "number": number}
        sync_folder(new)
        manifest = {"format": kind, "version": _VERSION, "generation": generation, "files": files}
        manifest["sha256"] = _own_digest(manifest)
        atomic_write(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
    except BaseException:
        # Once the manifest names the new generation, it counts, whatever went wrong afterwards.
        if generation_of(folder) != generation:
            shutil.rmtree(new, ignore_errors=True)
        raise
    _remove_others(folder, generation)
    return generation


def read(folder: Path, kind: str, *, verify: bool = True) -> Snapshot:
    """Read what a folder holds, while it may be written to.

    Args:
        folder: Where.
        kind: What is expected there.
        verify: Whether to compare the digests of all files, not only their sizes.

    Raises:
        ForeignError: It holds something else, or was written by a newer version.
        DamagedError: A file is missing or differs; the message names it.
        StorageError: It cannot be read.
    """
    with storage_errors("read", folder):
        manifest = _manifest(folder)
        while True:
            _check_kind(folder, manifest, kind)
            try:
                return _read(folder, manifest, verify)
            except (FileNotFoundError, DamagedError) as error:
                # A writer may have replaced this generation while it was being read.
                latest = _manifest(folder)
                if latest["generation"] == manifest["generation"]:
                    if isinstance(error, DamagedError):
                        raise
                    raise DamagedError(
                        f"{folder}: {Path(error.filename).name} is missing; restore the folder "
                        "from a copy"
                    ) from error
                manifest = latest


def _read(folder: Path, manifest: Mapping[str, Any], verify: bool) -> Snapshot:
    generation = manifest["generation"]
    arrays, documents = {}, {}
    for file, facts in manifest["files"].items():
        path = folder / _name(generation) / file
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise DamagedError(
                f"{path}: {size:,} bytes, the manifest says {facts['bytes']:,}; "
                "restore the folder from a copy"
            )
        if verify and digest(path) != facts["sha256"]:
            raise DamagedError(
                f"{path}: the content differs from the manifest's digest; "
                "restore the folder from a copy"
            )
        if "array" in facts:
            arrays[facts["array"]] = _read_array(path, facts)
        else:
            documents[facts["document"]] = json.loads(path.read_text())
    return Snapshot(generation, arrays, documents)


def _write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    if array.dtype.hasobject:
        raise SchemaError(
            f"{path.name}: an array of Python objects cannot be stored; convert it to numbers, "
            "strings or datetimes"
        )
    # reshaped, because an array without axes would come back with one
    contiguous = np.ascontiguousarray(array).reshape(array.shape)

    def write_npy(file: Any) -> None:
        np.lib.format.write_array_header_2_0(
            file, np.lib.format.header_data_from_array_1_0(contiguous)
        )
        if contiguous.size:  # pieces of 16 MB: buffers of any dtype, without a second copy
            data = contiguous.reshape(-1).view(np.uint8)
            for start in range(0, data.size, 1 << 24):
                file.write(data[start : start + (1 << 24)].data)

    size, sha = write_synced(path, write_npy)
    return {"bytes": size, "sha256": sha}


def _read_array(path: Path, facts: Mapping[str, Any]) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise DamagedError(f"{path}: not a readable .npy file ({error})") from error
    if _describe(array) != {"dtype": facts["dtype"], "shape": facts["shape"]}:
        raise DamagedError(
            f"{path}: {array.dtype} of shape {array.shape}, the manifest says {facts['dtype']} of "
            f"shape {tuple(facts['shape'])}"
        )
    return array


def _describe(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape)}


def _writer(data: bytes) -> Any:
    return lambda file: file.write(data)


def _name(generation: int) -> str:
    return f"generation-{generation:06d}"


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if not folder.exists():
            raise StorageError(f"{folder} does not exist; check the path") from None
        raise ForeignError(
            f"{folder} has no {_MANIFEST}: it is not a folder of Memento, or was never completed"
        ) from None
    try:
        manifest: dict[str, Any] = json.loads(text)
        recorded = manifest["sha256"]
        manifest["format"], manifest["version"], manifest["generation"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ForeignError(f"{path} is not a manifest of Memento ({error!r})") from error
    if recorded != _own_digest(manifest):
        raise DamagedError(f"{path}: the field 'sha256' differs from the content; it was changed")
    return manifest


def _own_digest(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return digest(json.dumps(content, sort_keys=True).encode())


def _check_kind(folder: Path, manifest: Mapping[str, Any], kind: str) -> None:
    if manifest["format"] != kind:
        raise ForeignError(
            f"{folder}: the field 'format' is {manifest['format']!r}; expected {kind!r}"
        )
    if manifest["version"] > _VERSION:
        raise ForeignError(
            f"{folder}: the field 'version' is {manifest['version']}; this Memento reads up to "
            f"{_VERSION}; update it"
        )


def _check_ours(folder: Path, kind: str) -> int:
    """The generation to follow; raises rather than mix with what somebody else put there."""
    if exists(folder):
        manifest = _manifest(folder)
        _check_kind(folder, manifest, kind)
        return int(manifest["generation"])
    strangers = [
        path.name
        for path in folder.iterdir()
        if path.name != _LOCK and not path.name.startswith(("generation-", f".{_MANIFEST}"))
    ]
    if strangers:
        raise ForeignError(
            f"{folder} holds other things ({', '.join(sorted(strangers)[:3])}); "
            "choose an empty or a new folder"
        )
    return 0


def _remove_others(folder: Path, generation: int) -> None:
    """Remove what interrupted writers and older generations left behind."""
    for path in folder.glob("generation-*"):
        if path.name != _name(generation):
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f".{_MANIFEST}.*.tmp"):
        path.unlink(missing_ok=True)


def with_prefix(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries whose names start so, without the prefix.

    Example:
        >>> with_prefix({"a/x": 1, "b/x": 2}, "a/")
        {'x': 1}
    """
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def generator_document(generator: np.random.Generator) -> Any:
    """The state of a generator as a JSON value.

    Example:
        >>> rng = np.random.default_rng(7)
        >>> bool(generator_from(generator_document(rng)).random() == rng.random())
        True
    """
    return _jsonable(generator.bit_generator.state)


def generator_from(document: Mapping[str, Any]) -> np.random.Generator:
    """The generator that `generator_document` described.

    Raises:
        ForeignError: It is of no kind that numpy has.
    """
    name = document.get("bit_generator")
    if name not in _GENERATORS:
        raise ForeignError(f"unknown bit generator {name!r}; expected one of {_GENERATORS}")
    bits = getattr(np.random, name)()
    bits.state = _from_jsonable(document)
    return np.random.Generator(bits)


def _jsonable(value: Any) -> Any:
    """Arrays (MT19937 and SFC64 have some) become lists."""
    if isinstance(value, Mapping):
        return {name: _jsonable(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item() if isinstance(value, np.generic) else value


def _from_jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"array", "dtype"}:
            return np.array(value["array"], value["dtype"])
        return {name: _from_jsonable(item) for name, item in value.items()}
    return value
