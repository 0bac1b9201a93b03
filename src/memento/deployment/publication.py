"""Published models: a folder for each version, and a link that is switched.

    ROOT/2026-01-07/    model.skops (scikit-learn) or learner.npz, manifest.json
    ROOT/current        symbolic link to the version that serves

A version is written under a temporary name and renamed, so all its files appear at once; then the
caller's state names it, which is the moment it counts; then the link follows. Who is killed in
between leaves a link one step behind, which the next run puts right. A server resolves the link
once and reads all files from the folder that it got, which never changes.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import DamagedError, StorageError
from memento.files import (
    digest,
    is_plain_file,
    storage_errors,
    sync_folder,
    temporary_of,
    write_synced,
)
from memento.integrations.sklearn import archive_of_state, state_of_archive
from memento.learner import digest_of_state

__all__ = ["Publication"]

_FORMAT, _VERSION = "memento-model", 1
_MANIFEST, _SKOPS, _ARRAYS = "manifest.json", "model.skops", "learner.npz"
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


@dataclass(frozen=True)
class Publication:
    """The published versions of one variant.

    Attributes:
        root: Folder of its own; made by the first version.
    """

    root: Path

    @property
    def link(self) -> Path:
        """The symbolic link that a server follows."""
        return self.root / "current"

    def write(self, name: str, state: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
        """Write a version; it does not serve yet. One of the same name is replaced.

        Args:
            name: Of the version, such as the day.
            state: The learner's.
            facts: JSON values for the manifest.

        Returns:
            Digest of the model.

        Raises:
            SpaceError, StorageError: As the file system says; nothing is left behind.
        """
        files = _files_of(state)
        manifest: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "name": name,
            "model": digest_of_state(state),
            "files": {
                file: {"bytes": len(data), "sha256": digest(data)} for file, data in files.items()
            },
            "facts": dict(facts),
        }
        manifest["sha256"] = _own_digest(manifest)
        files[_MANIFEST] = json.dumps(manifest, indent=1).encode()
        folder = self.root / name
        with storage_errors("publish", folder):
            self.root.mkdir(parents=True, exist_ok=True)
            staging = temporary_of(folder)
            try:
                staging.mkdir()
                for file, data in files.items():
                    write_synced(staging / file, lambda out, data=data: out.write(data))  # type: ignore[misc]
                sync_folder(staging)
                self._remove(folder)  # of a run that was killed before it counted
                os.rename(staging, folder)
                sync_folder(self.root)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        return str(manifest["model"])

    def read(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The learner's state and the manifest of a version, verified.

        Raises:
            DamagedError: A file is missing or was changed.
        """
        folder = self.root / name
        with storage_errors("read the model", folder):
            manifest = _read_manifest(folder / _MANIFEST)
            state: dict[str, np.ndarray] = {}
            for file, facts in manifest["files"].items():
                path = folder / file
                data = path.read_bytes() if is_plain_file(path) else b""
                if len(data) != facts["bytes"] or digest(data) != facts["sha256"]:
                    raise DamagedError(
                        f"{path} is missing or differs from the manifest; restore it from a copy, "
                        "or go to another version with memento deploy rollback"
                    )
                state |= state_of_archive(data) if file == _SKOPS else _arrays_of(data)
        return state, manifest

    def point(self, name: str | None) -> None:
        """Let a version serve: one rename. Nothing happens if it does already, or for None."""
        if name is None or (self.link.is_symlink() and os.readlink(self.link) == name):
            return
        with storage_errors("publish", self.link):
            temporary = temporary_of(self.link)
            os.symlink(name, temporary)
            os.replace(temporary, self.link)
            sync_folder(self.root)

    def clean(self, versions: Collection[str]) -> None:
        """Clear away what killed runs left: temporaries, and versions that never counted."""
        if not self.root.is_dir():
            return
        for path in self.root.iterdir():
            ours = path.is_dir() and not path.is_symlink() and is_plain_file(path / _MANIFEST)
            if _TEMPORARY.fullmatch(path.name) or (ours and path.name not in versions):
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """A folder disappears at once for whoever lists it, then its files go."""
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        elif path.exists():
            gone = temporary_of(self.root / "gone")
            os.rename(path, gone)
            shutil.rmtree(gone, ignore_errors=True)


def _files_of(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The files of a version: what skops made as skops reads it, all other arrays as .npz."""
    archive, rest = archive_of_state(state)
    files = {} if archive is None else {_SKOPS: archive}
    if rest:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as out:
            for name in sorted(rest):
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(rest[name]), allow_pickle=False)
                out.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
        files[_ARRAYS] = buffer.getvalue()
    return files


def _arrays_of(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return dict(found)


def _read_manifest(path: Path) -> dict[str, Any]:
    """What a version's manifest says, checked."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        sound = manifest["sha256"] == _own_digest(manifest) and manifest["format"] == _FORMAT
        version, files = manifest["version"], manifest["files"]
        sound = sound and all(re.fullmatch(r"[\w-]+\.\w+", file) for file in files)
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path} is no manifest of a model; go to another version with memento deploy rollback"
        ) from error
    if not sound:
        raise DamagedError(
            f"{path} was changed; go to another version with memento deploy rollback"
        )
    if version > _VERSION:
        raise StorageError(f"{path} is of version {version}; this Memento reads up to {_VERSION}")
    return manifest


def _own_digest(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return digest(json.dumps(content, sort_keys=True).encode())
