"""Published models: a folder for each version, a link that is switched, and what was switched when.

    ROOT/2026-01-07/     the files of a model, manifest.json
    ROOT/current         symbolic link to the version that serves
    ROOT/history.json    every switch: publications and rollbacks, in order
    ROOT/lock            held while somebody publishes

All files of a version appear together or not at all: it is written under a temporary name, read
back, checked, renamed; then the history names it, which is the moment it serves; then the link
follows. Whoever was killed in between leaves a link that is one step behind the history, and the
next writer puts it right. A server resolves the link once and reads all files from the folder that
it got, which never changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from memento.arguments import checked, one_of
from memento.errors import DamagedError, ForeignError, ModelError, SettingError, StorageError
from memento.files import (
    Lock,
    digest,
    is_plain_file,
    local_path,
    read_json,
    replace_folder,
    storage_errors,
    sync_folder,
    temporary_of,
    write_json,
)
from memento.settings import build

__all__ = ["MANIFEST", "ModelFiles", "Publication", "Switch", "Version", "erase", "read_manifest"]

MANIFEST = "manifest.json"
_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_FILE = re.compile(r"[\w-]+\.\w+")


@runtime_checkable
class ModelFiles(Protocol):
    """The files that a model is published as.

    Attributes:
        format: Name of the format.
        key: Where the manifest says which model it is.
        remedy: What to do where a version is damaged.
    """

    format: str
    key: str
    remedy: str

    def identity(self, model: Any) -> Any:
        """What tells models apart, a JSON value: digests."""

    def write(self, folder: Path, model: Any) -> Sequence[str]:
        """Write the files into an empty folder, and give their names."""

    def read(self, folder: Path) -> Any:
        """The model, from files that are those of the manifest."""

    def check(self, model: Any) -> None:
        """Raise ModelError at a model that must not be published, as it was read back."""

    def lacking(self, identity: Any, other: Any) -> Sequence[str]:
        """Names of the parts that another model has and this one has not, by their identities."""


@dataclass(frozen=True)
class Version:
    """One published generation.

    Attributes:
        name: What it is called, such as the day it was published.
        folder: Where its files and the manifest are.
        manifest: Sizes and SHA-256 of the files, which model it is, and what the publisher had to
            say (``facts``).
        files: Reads them.
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]
    files: ModelFiles

    @property
    def identity(self) -> Any:
        """Which model it is, as ``files.identity``."""
        return self.manifest[self.files.key]

    def read(self) -> Any:
        """The model, from the files that a server reads.

        Raises:
            DamagedError: A file differs from the manifest.
        """
        self.verify()
        with storage_errors("read the model", self.folder):
            model = self.files.read(self.folder)
        if self.files.identity(model) != self.identity:
            raise DamagedError(
                f"{self.folder}: the model is not the one that the manifest names; "
                f"{self.files.remedy}"
            )
        return model

    def verify(self) -> None:
        """Compare all files with the manifest.

        Raises:
            DamagedError: One is missing or differs.
        """
        for name, facts in self.manifest["files"].items():
            path = self.folder / name
            if not is_plain_file(path):
                raise DamagedError(f"{path} is missing; {self.files.remedy}")
            with storage_errors("read the model", path):
                same = _facts(path) == facts
            if not same:
                raise DamagedError(f"{path} differs from the manifest; {self.files.remedy}")


@dataclass(frozen=True)
class Switch:
    """One change of what serves.

    Attributes:
        action: "publish" or "rollback".
        version: What served from then on.
        replaces: What had served; None at first.
        day: Day of the deployment on which it happened; None if outside of one.
        reason: One sentence.
    """

    action: Annotated[str, one_of(("publish", "rollback"))]
    version: str
    replaces: str | None
    day: str | None
    reason: str


@checked
class Publication:
    """The published versions of one variant.

    Reading takes no lock. Writers exclude each other, and first clear away what killed ones left.

    Args:
        root: Folder of its own; made by the first publication.
        files: What a model consists of.
        keep: How many of the versions published last stay, at least 1; what serves always does,
            and with more than 1 what it replaced. None: all.
        inside: Folder in ``root`` that holds the versions; "" for ``root`` itself.

    Raises:
        SettingError: ``keep`` is below 1.
    """

    def __init__(
        self, root: str | Path, files: ModelFiles, keep: int | None = None, inside: str = ""
    ) -> None:
        if keep is not None and keep < 1:
            raise SettingError(f"keep={keep}; give at least 1 version")
        self.root = local_path(root, "the folder")
        self.files = files
        self.keep = keep
        self._inside = inside

    @property
    def link(self) -> Path:
        """The symbolic link that a server follows."""
        return self.root / "current"

    def history(self) -> list[Switch]:
        """All switches so far, oldest first.

        Raises:
            DamagedError: The history is not readable.
        """
        path = self.root / "history.json"
        found = read_json(path) if path.is_file() else []
        try:
            return [build(Switch, entry, str(path)) for entry in found]
        except (SettingError, TypeError) as error:
            raise DamagedError(
                f"{path} is no history of publications ({error}); restore it from a copy"
            ) from error

    def current(self) -> Version | None:
        """What serves by the history; None before the first publication.

        Raises:
            DamagedError: It is gone, or its manifest was changed.
        """
        history = self.history()
        return self.version(history[-1].version) if history else None

    def version(self, name: str) -> Version:
        """A version that is kept.

        Raises:
            StorageError: There is none of this name.
            DamagedError: Its manifest is missing or was changed.
        """
        folder = self._folder(name)
        if not folder.is_dir():
            kept = ", ".join(sorted(self._kept())) or "none"
            raise StorageError(f"{self.root}: no version {name!r}; there are: {kept}")
        return Version(name, folder, read_manifest(folder / MANIFEST, self.files), self.files)

    def names(self) -> list[str]:
        """Names of all versions that are kept, in the order of their publication."""
        kept = self._kept()
        return [name for name in _published(self.history()) if name in kept]

    def versions(self) -> list[Version]:
        """All versions that are kept, in the order of their publication."""
        return [self.version(name) for name in self.names()]

    def previous(self) -> Version | None:
        """What a rollback would go back to: what served before the current version was published.

        Where that is not kept, it is what served before that one was published, and so on.
        """
        name = _before(self.history(), self._kept())
        return None if name is None else self.version(name)

    def check_return(self, target: Version) -> None:
        """Raise if a version cannot take over: memories hold predictions of all parts of a model.

        Raises:
            ModelError: It lacks a part that what serves has.
        """
        with contextlib.suppress(StorageError):  # what is damaged has to give way
            serving = self.current()
            if serving is None:
                return
            if names := self.files.lacking(target.identity, serving.identity):
                raise ModelError(
                    f"{self.root}: version {target.name!r} has no model of {', '.join(names)}, and "
                    f"{serving.name!r} has; only one published since then can serve instead"
                )

    def publish(
        self,
        model: Any,
        name: str,
        *,
        day: str | None = None,
        facts: Mapping[str, Any] | None = None,
        reason: str = "",
        validate: Callable[[Any], None] = lambda model: None,
        commit: Callable[[], None] | None = None,
    ) -> Version:
        """Write a generation and let it serve.

        To publish the same under the same name once more changes nothing, also if something else
        serves by now.

        Args:
            model: As ``files`` writes it.
            name: Of the version: letters, digits, "-", "_" and single dots.
            day: For the history.
            facts: JSON values for the manifest.
            reason: For the history.
            validate: Called with the model as it was read back from the files, before anything is
                switched; raises to refuse it.
            commit: Called when all is written and nothing switched: what has to count before it
                serves.

        Raises:
            SettingError: A name that cannot be one of a folder.
            ForeignError: Another model was published under this name.
            ModelError: What was read back differs, or must not be published.
            LockedError, SpaceError, StorageError: As the file system says; what served still does.
        """
        if not _NAME.fullmatch(name) or name.endswith(".tmp"):
            raise SettingError(f"version {name!r}; give letters, digits, '-' and '_'")
        with storage_errors("publish", self.root):
            self._folder(name).parent.mkdir(parents=True, exist_ok=True)
            with self.lock():
                self.clean()
                history = self.history()
                if name in _published(history):
                    found = self.version(name)
                    if found.identity != self.files.identity(model):
                        raise ForeignError(
                            f"{self.root}: another model was published as {name!r}; versions never "
                            "change, so give it another name"
                        )
                    return found
                folder = self._folder(name)
                _remove(folder)  # of a writer that was killed before it counted
                self._write(folder, model, facts or {}, validate)
                try:
                    if commit is not None:
                        commit()
                    self.switch("publish", name, day=day, reason=reason)
                except BaseException:
                    # What was committed may count, so the files stay for whoever finds it so.
                    if commit is None and self.history() == history:
                        _remove(folder)
                    raise
                self.clean()
                return self.version(name)

    def rollback(self, reason: str, *, to: str | None = None, day: str | None = None) -> Version:
        """Let an earlier version serve again.

        Args:
            reason: One sentence for the history.
            to: Its name; as `previous` if left out.
            day: For the history.

        Raises:
            StorageError: There is no such version, or none before; what served still does.
            DamagedError: That version's files differ from its manifest.
            ModelError: It lacks a part of the model, see `check_return`.
            LockedError: Somebody is publishing.
        """
        with storage_errors("roll back", self.root):
            if not self.root.is_dir():
                raise StorageError(f"{self.root}: nothing was published yet; check the path")
            with self.lock():
                self.clean()
                target = self.previous() if to is None else self.version(to)
                if target is None or not self.history():
                    raise StorageError(
                        f"{self.root}: no version before the current one is kept, so nothing is "
                        "changed; publish another first"
                    )
                self.check_return(target)
                target.read()
                self.switch("rollback", target.name, day=day, reason=reason)
                return target

    def _write(
        self, folder: Path, model: Any, facts: Mapping[str, Any], validate: Callable[[Any], None]
    ) -> None:
        """Write a version that does not serve yet."""
        with replace_folder(folder) as staging:
            names = self.files.write(staging, model)
            manifest: dict[str, Any] = {
                "format": self.files.format,
                "version": _VERSION,
                "name": folder.name,
                self.files.key: self.files.identity(model),
                "files": {file: _facts(staging / file) for file in names},
                "facts": dict(facts),
            }
            manifest["sha256"] = _own_digest(manifest)
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))
            written = Version(folder.name, staging, manifest, self.files).read()
            self.files.check(written)
            validate(written)

    def switch(self, action: str, name: str, *, day: str | None = None, reason: str = "") -> None:
        """Let a version serve; nothing happens if it does already."""
        history = self.history()
        if history and history[-1].version == name:
            self._point(name)
        else:
            self._store([*history, Switch(action, name, None, day, reason)])

    def precede(self, earlier: Sequence[Switch], serving: str | None = None) -> None:
        """Put in front of the history what was not written down; what is known to serve still does.

        Args:
            earlier: Switches in order.
            serving: What serves after all; None: what the history says.
        """
        history = [*earlier, *self.history()]
        if serving in self._kept() and serving != history[-1].version:
            history.append(Switch("rollback", serving, None, None, "it served before"))
        self._store(history)

    def clean(self) -> None:
        """Clear away old versions and what killed writers left; let the link follow the history.

        For callers that hold a lock; `publish` and `rollback` do it themselves.
        """
        for folder in {self.root, self.root / self._inside}:
            for path in folder.glob(".*.tmp") if folder.is_dir() else ():
                erase(path)
        history = self.history()
        if history:
            self._point(history[-1].version)
        kept, newest = self._kept(), _published(history)[-(self.keep or 0) :]
        before = None if self.keep == 1 else _before(history, kept)
        staying = {*newest, *(switch.version for switch in history[-1:]), before}
        for name in kept - staying:
            _remove(self._folder(name))

    def lock(self) -> Lock:
        """For a ``with`` block around writing; it goes away with the process that holds it."""
        return Lock(self.root / "lock")

    def _store(self, history: Sequence[Switch]) -> None:
        names = [None, *(switch.version for switch in history)]
        switches = [replace(s, replaces=name) for s, name in zip(history, names, strict=False)]
        write_json(self.root / "history.json", [asdict(switch) for switch in switches])
        self._point(history[-1].version)

    def _folder(self, name: str) -> Path:
        return self.root / self._inside / name

    def _kept(self) -> set[str]:
        folder = self.root / self._inside
        return {
            path.name
            for path in (folder.iterdir() if folder.is_dir() else ())
            if path.is_dir()
            and not path.is_symlink()
            and not path.name.startswith(".")
            and (self._inside or is_plain_file(path / MANIFEST))
        }

    def _point(self, name: str) -> None:
        target = os.path.join(self._inside, name)
        if self.link.is_symlink() and os.readlink(self.link) == target:
            return
        temporary = temporary_of(self.link)
        os.symlink(target, temporary)
        os.replace(temporary, self.link)
        sync_folder(self.root)


def _published(history: Sequence[Switch]) -> list[str]:
    return [switch.version for switch in history if switch.action == "publish"]


def _before(history: Sequence[Switch], kept: Collection[str]) -> str | None:
    """What served before the current version was published, as far back as one is kept."""
    name = history[-1].version if history else None
    for switch in reversed(history):
        if (switch.action, switch.version) == ("publish", name):
            name = switch.replaces
            if name in kept:
                return name
    return None


def read_manifest(path: Path, files: ModelFiles) -> dict[str, Any]:
    """What a version's manifest says, checked; DamagedError or ForeignError if it is none."""
    if not path.is_file():
        raise DamagedError(f"{path} is missing; {files.remedy}")
    manifest: dict[str, Any] = read_json(path)
    try:
        known = manifest["format"] == files.format and manifest["version"] <= _VERSION
        recorded = manifest["sha256"]
        plain = all(map(_FILE.fullmatch, manifest["files"])) and manifest[files.key] is not None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{path} is no manifest of a model ({error!r}); {files.remedy}"
        ) from error
    if recorded != _own_digest(manifest) or not plain:
        raise DamagedError(f"{path} was changed; {files.remedy}")
    if not known:
        raise ForeignError(
            f"{path}: format {manifest['format']!r}, version {manifest['version']}; expected "
            f"{files.format!r} up to {_VERSION}"
        )
    return manifest


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


def _own_digest(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return digest(json.dumps(content, sort_keys=True).encode())


def _remove(folder: Path) -> None:
    """A folder disappears at once for whoever lists it, then its files go."""
    if folder.exists():
        gone = temporary_of(folder)
        os.rename(folder, gone)
        erase(gone)


def erase(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
