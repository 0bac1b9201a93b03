"""Durable state: arrays and documents in a folder, complete at any moment.

    DIR/manifest.json            which generation is current; sizes and digests of its files
    DIR/generation-000007/       one .npy an array (never pickled), one .json a document
    DIR/lock                     held while somebody writes

A new generation is written beside the current one; then the manifest is replaced, which is the
moment the change happens; then the old generation goes. A process killed anywhere leaves the one or
the other complete. Readers take no lock.

Digests say that nothing was changed since, not that it was ever right: whoever made a folder may
have meant to deceive. So all that a manifest says is checked before it is used, names of files are
plain names, links are not followed, and arrays are allocated only when their files are as long.
What is in the folder and not ours is left alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from memento.arguments import Expected, instance, one_of, shown, text, whole
from memento.errors import DamagedError, ForeignError, SchemaError, StorageError
from memento.files import (
    Lock,
    atomic_write,
    digest,
    is_plain_file,
    is_there,
    local_path,
    storage_errors,
    sync_folder,
    write_synced,
)

__all__ = [
    "Encoded",
    "Snapshot",
    "exists",
    "field_of",
    "generation_of",
    "generator_document",
    "generator_from",
    "lock_of",
    "prune",
    "read",
    "with_prefix",
    "write",
]

_VERSION = 1
_MANIFEST = "manifest.json"
_LOCK = "lock"
# Names of files that we write, and of our folders.
_FILE = re.compile(r"[A-Za-z0-9_.%~-]+\.(npy|json)")
_GENERATION = re.compile(r"generation-(\d{6,12})")
# Longer documents are none of ours.
_LONGEST = 1 << 28
_GENERATORS = ("PCG64", "PCG64DXSM", "Philox", "SFC64", "MT19937")


class Encoded(bytes):
    """A document that is JSON already, for what is written again and again and does not change."""


@dataclass(frozen=True)
class Snapshot:
    """What was read from a folder.

    Attributes:
        generation: Counts the writes, from 1.
        arrays: Arrays by name.
        documents: JSON values by name.
    """

    generation: int
    arrays: Mapping[str, np.ndarray]
    documents: Mapping[str, Any]


def lock_of(folder: Path) -> Lock:
    """The lock of a folder, for a ``with`` block around reading, changing and writing it.

    Raises:
        ForeignError: The folder holds other things; it is left as it was.
    """
    folder = local_path(folder)
    with storage_errors("lock", folder):
        if not exists(folder):
            _check_empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
    return Lock(folder / _LOCK)


def exists(folder: Path) -> bool:
    """Whether a folder holds a snapshot (of any kind)."""
    with storage_errors("read", folder):
        manifest = local_path(folder) / _MANIFEST
        return is_there(manifest) and manifest.is_file()


def generation_of(folder: Path) -> int:
    """The current generation of a folder; 0 if nothing was ever written."""
    return int(_manifest(folder)["generation"]) if exists(folder) else 0


def prune(folder: Path) -> None:
    """Remove what a killed writer left in a folder: the generation before, or one cut off.

    For whoever writes there alone.
    """
    _remove_others(folder, generation_of(folder))


def write(
    folder: Path,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    documents: Mapping[str, Any],
    *,
    lock: Lock | None = None,
    expected: int | None = None,
) -> int:
    """Replace what a folder holds, all at once.

    Args:
        folder: Made if it does not exist.
        kind: What is stored, as in ``"memento-memory"``.
        arrays: Of any dtype without Python objects.
        documents: JSON values by name.
        lock: The lock of this folder, if the caller holds it already.
        expected: The generation that is to be replaced; None for any.

    Returns:
        The new generation.

    Raises:
        ForeignError: The folder holds something else; it is left alone.
        LockedError: Somebody else is writing.
        SpaceError, StorageError: The new generation could not be written; the old one stays. So it
            does if it is not the one expected.
    """
    folder = local_path(folder)
    with storage_errors("write", folder):
        if lock is not None:
            return _write(folder, kind, arrays, documents, expected)
        _check_ours(folder, kind)  # before anything is made there
        with _undone_if_new(folder), lock_of(folder):
            return _write(folder, kind, arrays, documents, expected)


def _write(
    folder: Path,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    documents: Mapping[str, Any],
    expected: int | None,
) -> int:
    """`write` under a lock that is held."""
    current = _check_ours(folder, kind)
    if expected is not None and current != expected:
        raise StorageError(
            f"{folder} was changed since this memory was loaded (generation {current}, loaded "
            f"{expected}); load it again and repeat the insert"
        )
    _remove_others(folder, current)
    generation = current + 1
    while os.path.lexists(folder / _name(generation)):
        generation += 1  # somebody else's
    new = folder / _name(generation)
    try:
        new.mkdir()
        files: dict[str, dict[str, Any]] = {}
        for number, (name, array) in enumerate(arrays.items()):
            file = f"{number:03d}-{_quoted(name)[:100]}.npy"
            files[file] = {"array": name, **_write_array(new / file, array)}
        for number, (name, document) in enumerate(documents.items()):
            quoted = _quoted(name)
            file = f"{quoted if len(quoted) <= 100 else f'{number:03d}-{quoted[:96]}'}.json"
            content = json_of(name, document)
            size, sha = write_synced(new / file, methodcaller("write", content))
            files[file] = {"document": name, "bytes": size, "sha256": sha, "number": number}
        sync_folder(new)
        manifest = {"format": kind, "version": _VERSION, "generation": generation, "files": files}
        manifest["sha256"] = _own_digest(manifest)
        atomic_write(folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
    except BaseException:
        # Once the manifest names the new generation, it counts, whatever went wrong afterwards.
        if generation_of(folder) != generation:
            _remove_generation(new)
        raise
    _remove_others(folder, generation)
    return generation


def read(folder: Path, kind: str, *, mapped: bool = False, verify: bool = True) -> Snapshot:
    """Read what a folder holds, while it may be written to.

    Args:
        folder: Folder that `write` wrote.
        kind: What is expected there.
        mapped: Whether arrays stay in their files, and are read when they are used: read-only, and
            right also after the folder was written to again.
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
                return _read(folder, manifest, mapped, verify)
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


def _read(folder: Path, manifest: Mapping[str, Any], mapped: bool, verify: bool) -> Snapshot:
    """The arrays and documents that a manifest lists, each checked."""
    inside = folder / _name(manifest["generation"])
    arrays: dict[str, np.ndarray] = {}
    documents: dict[str, Any] = {}
    if inside.is_symlink():
        raise DamagedError(f"{inside} is a link; restore the folder from a copy")
    for file, facts in manifest["files"].items():
        path = inside / file
        size = path.lstat().st_size
        if not is_plain_file(path):
            raise DamagedError(f"{path} is no file of its own; restore the folder from a copy")
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
            arrays[facts["array"]] = _read_array(path, facts, mapped)
        else:
            documents[facts["document"]] = _parsed(path, DamagedError)
    return Snapshot(manifest["generation"], arrays, documents)


def _parsed(path: Path, error: type[StorageError]) -> Any:
    """The JSON value in a file."""
    if path.stat().st_size > _LONGEST:
        raise error(f"{path}: {path.stat().st_size:,} bytes are no document of Memento")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as reason:
        raise error(f"{path} is not readable ({type(reason).__name__}: {reason})") from reason


def json_of(name: str, document: Any) -> bytes:
    """A document as it is stored.

    Raises:
        SchemaError: It has no JSON form; the message names it.
    """
    if isinstance(document, Encoded):
        return document
    try:
        return json.dumps(document, indent=1, allow_nan=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(
            f"{name!r} cannot be stored: {error}; it has to be made of numbers, texts, lists and "
            "mappings"
        ) from error


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="backslashreplace")


def _write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    """Write an ``.npy`` file; its size and digest."""
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
    facts = {"dtype": str(array.dtype), "shape": list(array.shape)}
    return {**facts, "bytes": size, "sha256": sha}


def _read_array(path: Path, facts: Mapping[str, Any], mapped: bool) -> np.ndarray:
    """The array of an ``.npy`` file that is as long as the manifest says; perhaps left there."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            reader = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = reader(file)
            if (str(dtype), list(shape)) != (facts["dtype"], facts["shape"]):
                raise DamagedError(
                    f"{path}: {dtype} of shape {shape}, the manifest says {facts['dtype']} of "
                    f"shape {tuple(facts['shape'])}"
                )
            content = facts["bytes"] - file.tell()
            if dtype.hasobject or fortran or dtype.itemsize * math.prod(shape) != content:
                raise ValueError(f"{content:,} bytes for {dtype} of shape {shape}")
            if not content:
                if math.prod(shape):
                    raise ValueError(f"values of no bytes, of {dtype}")
                return np.empty(shape, dtype)
            if mapped:
                return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape))
            return np.fromfile(file, np.uint8, content).view(dtype).reshape(shape)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, OverflowError) as error:
        raise DamagedError(f"{path}: not a readable .npy file ({error})") from error


def _name(generation: int) -> str:
    return f"generation-{generation:06d}"


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, checked before any of it is used."""
    path = folder / _MANIFEST
    if not is_plain_file(path):
        if not is_there(folder):
            raise StorageError(f"{folder} does not exist; check the path")
        raise ForeignError(
            f"{folder} has no {_MANIFEST}: it is not a folder of Memento, or was never completed"
        )
    manifest = _parsed(path, ForeignError)
    for name, expected in _FIELDS.items():
        if not isinstance(manifest, Mapping) or not expected.holds(manifest.get(name)):
            found = shown(manifest.get(name)) if isinstance(manifest, Mapping) else "missing"
            raise ForeignError(
                f"{path} is not a manifest of Memento: {name!r} is {found}; expected "
                f"{expected.words}"
            )
    if manifest["sha256"] != _own_digest(manifest):
        raise DamagedError(f"{path}: the field 'sha256' differs from the content; it was changed")
    for file, facts in manifest["files"].items():
        _check_facts(path, file, facts)
    for kind in ("array", "document"):
        names = [facts[kind] for facts in manifest["files"].values() if kind in facts]
        if len(set(names)) < len(names):
            raise DamagedError(f"{path}: two files hold the same {kind}")
    return dict(manifest)


_TEXT = text("a text")
_MAPPING = instance(Mapping, "a mapping")
_FIELDS = {
    "format": _TEXT,
    "version": whole(),
    "generation": whole(most=10**12 - 1),
    "files": _MAPPING,
    "sha256": _TEXT,
}
_SHAPE = Expected(
    "a list of whole numbers",
    lambda value: isinstance(value, list) and all(map(whole(0).holds, value)),
)


def _check_facts(path: Path, file: str, facts: Any) -> None:
    """Raise if what a manifest says of a file is not what we write of one."""
    where = f"{path}: the file {file!r}"
    if not _FILE.fullmatch(file) or not isinstance(facts, Mapping):
        raise DamagedError(f"{where} is none that Memento writes")
    fields = {"bytes": whole(0), "sha256": _TEXT}
    if "array" in facts:
        fields |= {"array": _TEXT, "dtype": _TEXT, "shape": _SHAPE}
    else:
        fields |= {"document": _TEXT}
    for name, expected in fields.items():
        field_of(facts, name, expected, where)


def field_of(
    document: Any, name: str, expected: Expected, where: str, *, absent: bool = False
) -> Any:
    """A value of a stored document, which may hold anything.

    Args:
        document: Where it should be.
        name: Name of the field.
        expected: What it has to be.
        where: The document's name, for the message.
        absent: Whether it may be absent, which gives None.

    Raises:
        DamagedError: It is absent, or something else.

    Example:
        >>> field_of({"size": 3}, "size", whole(0), "memory")
        3
    """
    if not isinstance(document, Mapping) or (name not in document and not absent):
        raise DamagedError(f"{where}: the field {name!r} is missing")
    value = document.get(name)
    if not expected.holds(value):
        raise DamagedError(
            f"{where}: the field {name!r} is {shown(value)}; expected {expected.words}"
        )
    return value


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
    _check_empty(folder)
    return 0


def _check_empty(folder: Path) -> None:
    """Raise if a folder holds things that an interrupted first write cannot have left."""
    if not is_there(folder):
        return
    strangers = [path.name for path in folder.iterdir() if not _may_be_ours(path)]
    if strangers:
        raise ForeignError(
            f"{folder} holds other things ({', '.join(sorted(strangers)[:3])}); "
            "choose an empty or a new folder"
        )


def _may_be_ours(path: Path) -> bool:
    if path.name == _LOCK:
        return is_plain_file(path) and path.stat().st_size == 0
    if path.name.startswith(f".{_MANIFEST}."):
        return is_plain_file(path) and path.name.endswith(".tmp")
    return path.name == _name(1) and _is_generation(path)


@contextlib.contextmanager
def _undone_if_new(folder: Path) -> Iterator[None]:
    """Leave no folder behind that was made for a first write which failed."""
    made = not folder.exists()
    try:
        yield
    except BaseException:
        if made and not (folder / _MANIFEST).exists():
            with contextlib.suppress(OSError):
                (folder / _LOCK).unlink(missing_ok=True)
                folder.rmdir()
        raise


def _is_generation(path: Path) -> bool:
    """Whether a folder is one of our generations: by its name, and by all that it holds."""
    if not _GENERATION.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return False
    return all(_FILE.fullmatch(file.name) and is_plain_file(file) for file in path.iterdir())


def _remove_others(folder: Path, generation: int) -> None:
    """Remove what interrupted writers and older generations left behind, and nothing else."""
    for path in folder.glob("generation-*"):
        match = _GENERATION.fullmatch(path.name)
        if match and int(match[1]) != generation and int(match[1]) <= generation + 1:
            _remove_generation(path)


def _remove_generation(path: Path) -> None:
    with contextlib.suppress(OSError):
        if _is_generation(path):
            for file in path.iterdir():
                file.unlink(missing_ok=True)
            path.rmdir()


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
        DamagedError: It is no state of a generator that numpy has.
    """
    where = "generator"
    name = field_of(document, "bit_generator", one_of(_GENERATORS), where)
    bits = getattr(np.random, name)(0)
    if not _is_like(document, _jsonable(bits.state)):
        raise DamagedError(f"{where}: not a state of {name}")
    try:
        bits.state = _from_jsonable(document)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DamagedError(f"{where}: not a state of {name} ({error})") from error
    return np.random.Generator(bits)


# Places in buffers, of this many numbers: beyond, numpy would read what lies behind.
_PLACES = {"pos": 624, "buffer_pos": 4, "has_uint32": 1}


def _is_like(value: Any, pattern: Any, name: str = "") -> bool:
    """Whether the state of a generator has the form of another one of its kind."""
    if isinstance(pattern, dict):
        return (
            isinstance(value, Mapping)
            and set(value) == set(pattern)
            and all(_is_like(value[key], pattern[key], key) for key in pattern)
        )
    if isinstance(pattern, list):
        return (
            isinstance(value, list)
            and len(value) == len(pattern)
            and all(_is_like(item, pattern[0], name) for item in value)
        )
    if isinstance(pattern, int):
        return whole(0, _PLACES.get(name, 2**128 - 1)).holds(value)
    return bool(value == pattern)


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
