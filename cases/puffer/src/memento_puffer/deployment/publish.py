"""Publication of models: whole generations in folders of their own, and a pointer that is switched.

    ROOT/versions/2022-09-20/     py-N.pt, cpp-N.pt, cpp-meta-N.json for N 0 to 4, manifest.json
    ROOT/current                  symbolic link to the version that serves
    ROOT/history.json             every switch: publications and rollbacks, in order
    ROOT/lock                     held while somebody writes

Weights and moments of all five horizons appear together or not at all: a version is written under a
temporary name, read back, checked, renamed; then the history names it, which is the moment it
counts; then the link follows. Whoever was killed in between leaves a link that is one step behind
the history, and the next writer puts it right. A server resolves the link once and reads all files
from the folder it got, which never changes.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import (
    DamagedError,
    ForeignError,
    LockedError,
    ModelError,
    SettingError,
    StorageError,
)
from memento.files import (
    Lock,
    atomic_write,
    digest,
    local_path,
    replace_folder,
    storage_errors,
    sync_folder,
    temporary_of,
)
from memento.learner import digest_of_state
from memento_puffer.predictor.network import INPUTS, Network
from memento_puffer.predictor.ttp import HORIZONS, Ttp, read_cpp, read_meta

__all__ = ["Publication", "Switch", "Version", "digest_of", "is_sound", "mirror_to_git"]

_FORMAT = "memento-puffer-model"
_VERSION = 1
_MANIFEST = "manifest.json"
_FILES = tuple(
    name for h in range(HORIZONS) for name in (f"py-{h}.pt", f"cpp-{h}.pt", f"cpp-meta-{h}.json")
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_ACTIONS = ("publish", "rollback")


def digest_of(network: Network) -> str:
    """SHA-256 of a network as files hold it, in float64, so that its precision does not matter.

    Example:
        >>> network = Network.fresh(seed=1)
        >>> digest_of(network) == digest_of(network.astype("float64"))
        True
    """
    return digest_of_state(network.astype(np.float64).arrays())


def is_sound(network: Network) -> bool:
    """Whether a network gives distributions, for ordinary inputs and for extreme ones.

    What is not sound is never published.

    Example:
        >>> is_sound(Network.fresh(seed=1))
        True
    """
    network = network.astype(np.float64)  # as files hold it
    moments = network.moments
    x = moments.mean + moments.scale * np.random.default_rng(0).normal(size=(64, INPUTS))
    x = np.concatenate([x, np.zeros((1, INPUTS)), moments.mean + 20 * moments.scale[None]])
    with np.errstate(all="ignore"):
        chances = network.probabilities(x)
        return bool(np.isfinite(chances).all() and np.allclose(chances.sum(axis=1), 1, atol=1e-3))


@dataclass(frozen=True)
class Version:
    """One published generation.

    Attributes:
        name: What it is called, such as the day it was published.
        folder: Where its 15 files and the manifest are.
        manifest: Sizes and SHA-256 of the files, digests of the networks, and what the publisher
            had to say (``facts``).
    """

    name: str
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the five networks, as `digest_of`."""
        return tuple(self.manifest["networks"])

    def networks(self) -> tuple[Network, ...]:
        """The five networks in float64, from the files that a server reads; without PyTorch.

        Raises:
            DamagedError: A file differs from the manifest.
        """
        self.verify()
        networks = tuple(
            Network(
                read_cpp(self.folder / f"cpp-{h}.pt"), read_meta(self.folder / f"cpp-meta-{h}.json")
            ).astype(np.float64)
            for h in range(HORIZONS)
        )
        for h, network in enumerate(networks):
            if digest_of(network) != self.digests[h]:
                raise DamagedError(
                    f"{self.folder}: network {h} is not the one that the manifest names; roll back "
                    "to another version"
                )
        return networks

    def verify(self) -> None:
        """Compare all files with the manifest.

        Raises:
            DamagedError: One is missing or differs.
        """
        for name, facts in self.manifest["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise DamagedError(f"{path} is missing; roll back to another version")
            with storage_errors("read the model", path):
                size, sha = path.stat().st_size, digest(path)
            if size != facts["bytes"] or sha != facts["sha256"]:
                raise DamagedError(
                    f"{path} differs from the manifest; roll back to another version"
                )


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

    action: str
    version: str
    replaces: str | None
    day: str | None
    reason: str


class Publication:
    """The published versions of one variant.

    Reading takes no lock. Writers exclude each other, and first clear away what killed ones left.

    Args:
        root: Folder of its own; made by the first publication.
        keep: How many of the versions published last stay, at least 1; what serves always does.

    Raises:
        SettingError: ``keep`` is below 1.

    Example:
        >>> import tempfile
        >>> models = Publication(Path(tempfile.mkdtemp()) / "models", keep=2)
        >>> for seed in range(3):
        ...     version = models.publish(Ttp.fresh(seed), f"v{seed}")
        >>> models.current().name, [version.name for version in models.versions()]
        ('v2', ['v1', 'v2'])
        >>> models.rollback("stalls have doubled").name
        'v1'
    """

    def __init__(self, root: str | Path, keep: int = 14) -> None:
        if keep < 1:
            raise SettingError(f"keep={keep}; give at least 1 version")
        self.root = local_path(root, "the folder")
        self.keep = keep

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
        if not path.is_file():
            return []
        with storage_errors("read the history", path):
            data = path.read_bytes()
        try:
            found = [Switch(**entry) for entry in json.loads(data)]
            for switch in found:
                texts = (switch.action, switch.version, switch.reason)
                others = (switch.replaces, switch.day)
                if switch.action not in _ACTIONS or not all(isinstance(t, str) for t in texts):
                    raise ValueError(f"{switch}")
                if not all(t is None or isinstance(t, str) for t in others):
                    raise ValueError(f"{switch}")
        except (ValueError, TypeError) as error:
            raise DamagedError(
                f"{path} is no history of publications ({error}); restore it from a copy"
            ) from error
        return found

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
        return Version(name, folder, _read_manifest(folder / _MANIFEST))

    def versions(self) -> list[Version]:
        """All versions that are kept, in the order of their publication."""
        kept = self._kept()
        return [self.version(name) for name in self._published() if name in kept]

    def previous(self) -> Version | None:
        """What a rollback would go back to: the last kept version published before the current."""
        history = self.history()
        if not history:
            return None
        published = self._published(history)
        before = published[: published.index(history[-1].version)]
        kept = self._kept()
        name = next((name for name in reversed(before) if name in kept), None)
        return None if name is None else self.version(name)

    def publish(
        self,
        ttp: Ttp,
        name: str,
        *,
        day: str | None = None,
        facts: Mapping[str, Any] | None = None,
        reason: str = "",
        validate: Callable[[tuple[Network, ...]], None] | None = None,
    ) -> Version:
        """Write a generation and let it serve.

        To publish the same under the same name once more changes nothing, also if something else
        serves by now.

        Args:
            ttp: All five networks.
            name: Of the version: letters, digits, "-", "_" and single dots.
            day: For the history.
            facts: JSON values for the manifest.
            reason: For the history.
            validate: Called with the networks as they were read back from the files, before
                anything is switched; raises to refuse them.

        Raises:
            SettingError: A name that cannot be one of a folder.
            ForeignError: Another model was published under this name.
            ModelError: What was read back differs, or predicts nonsense.
            LockedError, SpaceError, StorageError: As the file system says; what served still does.
        """
        if not _NAME.fullmatch(name) or name.endswith(".tmp"):
            raise SettingError(f"version {name!r}; give letters, digits, '-' and '_'")
        digests = [digest_of(network) for network in ttp]
        with storage_errors("publish", self.root):
            (self.root / "versions").mkdir(parents=True, exist_ok=True)
            with self.lock():
                self.clean()
                history = self.history()
                if name in self._published(history):
                    found = self.version(name)
                    if list(found.digests) != digests:
                        raise ForeignError(
                            f"{self.root}: another model was published as {name!r}; versions never "
                            "change, so give it another name"
                        )
                    return found
                folder = self._folder(name)
                _remove(folder)  # of a writer that was killed before it counted
                self._write(ttp, folder, digests, dict(facts or {}), validate)
                replaces = history[-1].version if history else None
                switch = Switch("publish", name, replaces, day, reason)
                try:
                    self._switch([*history, switch])
                except BaseException:
                    if self.history() == history:
                        _remove(folder)
                    raise
                self.clean()
                return self.version(name)

    def rollback(
        self,
        reason: str,
        *,
        to: str | None = None,
        day: str | None = None,
    ) -> Version:
        """Let an earlier version serve again.

        Args:
            reason: One sentence for the history.
            to: Its name; the last one published before the current if left out.
            day: For the history.

        Raises:
            StorageError: There is no such version, or none before; what served still does.
            DamagedError: That version's files differ from its manifest.
            LockedError: Somebody is publishing.
        """
        with storage_errors("roll back", self.root):
            if not self.root.is_dir():
                raise StorageError(f"{self.root}: nothing was published yet; check the path")
            with self.lock():
                self.clean()
                history = self.history()
                target = self.previous() if to is None else self.version(to)
                if target is None or not history:
                    raise StorageError(
                        f"{self.root}: no version before the current one is kept; publish another"
                    )
                target.networks()
                if target.name != history[-1].version:
                    switch = Switch("rollback", target.name, history[-1].version, day, reason)
                    self._switch([*history, switch])
                return target

    def clean(self) -> None:
        """Clear away old versions and what killed writers left; let the link follow the history.

        For callers that hold the lock; `publish` and `rollback` do it themselves.
        """
        for folder in (self.root, self.root / "versions"):
            for path in folder.glob(".*.tmp") if folder.is_dir() else ():
                _erase(path)
        history = self.history()
        if history:
            self._point(history[-1].version)
        staying = set(self._published(history)[-self.keep :])
        staying |= {switch.version for switch in history[-1:]}
        for name in self._kept() - staying:
            _remove(self._folder(name))

    def lock(self) -> Lock:
        """For a ``with`` block around writing; it goes away with the process that holds it."""
        return Lock(self.root / "lock")

    def _folder(self, name: str) -> Path:
        return self.root / "versions" / name

    def _kept(self) -> set[str]:
        folder = self.root / "versions"
        if not folder.is_dir():
            return set()
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}

    def _published(self, history: list[Switch] | None = None) -> list[str]:
        history = self.history() if history is None else history
        return [switch.version for switch in history if switch.action == "publish"]

    def _write(
        self,
        ttp: Ttp,
        folder: Path,
        digests: list[str],
        facts: Mapping[str, Any],
        validate: Callable[[tuple[Network, ...]], None] | None,
    ) -> None:
        with replace_folder(folder, replace=False) as staging:
            ttp.write(staging)
            files = {}
            for name in _FILES:
                path = staging / name
                data = path.read_bytes()
                if name.startswith("cpp-") and name.endswith(".pt"):
                    data = _renumbered(data)
                    path.write_bytes(data)
                files[name] = {"bytes": len(data), "sha256": digest(data)}
            manifest: dict[str, Any] = {
                "format": _FORMAT,
                "version": _VERSION,
                "name": folder.name,
                "networks": digests,
                "files": files,
                "facts": facts,
            }
            manifest["sha256"] = _own_digest(manifest)
            (staging / _MANIFEST).write_text(json.dumps(manifest, indent=1))
            written = Version(folder.name, staging, manifest)
            Ttp.read(staging)  # all three files of a network agree
            networks = written.networks()
            for h, network in enumerate(networks):
                if not is_sound(network):
                    raise ModelError(
                        f"network {h} does not predict distributions; it is not published"
                    )
            if validate is not None:
                validate(networks)

    def _switch(self, history: list[Switch]) -> None:
        text = json.dumps([asdict(switch) for switch in history], indent=1)
        atomic_write(self.root / "history.json", text.encode())
        self._point(history[-1].version)

    def _point(self, name: str) -> None:
        target = os.path.join("versions", name)
        if self.link.is_symlink() and os.readlink(self.link) == target:
            return
        temporary = temporary_of(self.link)
        os.symlink(target, temporary)
        os.replace(temporary, self.link)
        sync_folder(self.root)


def mirror_to_git(
    version: Version,
    work_tree: str | Path,
    folder: str,
    *,
    remote: str | None = None,
    timeout: float = 120.0,
    attempts: int = 3,
) -> str | None:
    """Copy a version into a git work tree, commit it as a whole, and push.

    One process at a time: the lock is a file beside git's own and goes away with its holder. Only
    the folder is touched: what a person has changed elsewhere in the work tree, staged or not, and
    has not committed, stays as it is. If others have pushed as well, though, git cannot put the
    commit on top of theirs before such changes are committed, so a clone for this purpose alone is
    better.

    Args:
        version: What to publish.
        work_tree: Top folder of a clone, on the branch to commit to.
        folder: Inside of it, for this alone; receives the 15 files and the manifest.
        remote: Name of the remote to fetch from before and to push to; None for no network.
        timeout: For each call of git, in s.
        attempts: Fetches and pushes if others push at the same time.

    Returns:
        The new commit; None if the work tree holds this version already and nothing is left to
        push.

    Raises:
        LockedError: Another process is publishing there, or git itself is at work.
        StorageError: No work tree, a rebase of a person goes on there, or git fails; its message is
            quoted. The next call goes on.
        DamagedError: The version's files differ from its manifest.
        ForeignError: The folder holds other things; it is left as it is.
        SettingError: A folder that leads out of the work tree, or into git's own, or that git would
            take for a pattern; a remote that git does not know.
    """
    tree = local_path(work_tree, "work_tree")
    check_git_folder(folder)
    target = tree / folder
    if not target.resolve().is_relative_to(tree.resolve()):  # links lead elsewhere
        raise SettingError(f"folder={folder!r}; name one inside the work tree")
    version.verify()
    if not (tree / ".git").is_dir():
        raise StorageError(f"{tree} is no clone of a git repository; make one with: git clone")
    with storage_errors("publish", tree), Lock(tree / ".git" / "memento-publish.lock"):
        _check_only_ours(target)
        _free_index(tree)
        git = _Git(tree, timeout)
        if remote is not None:
            _check_remote(git, remote)
        _end_rebase(git, tree)
        # What a killed process copied halfway is no commit of anybody.
        git("reset", "--quiet", "--", folder)
        if git.succeeds("cat-file", "-e", f"HEAD:{folder}"):
            git("checkout", "--quiet", "HEAD", "--", folder)
        git("clean", "--quiet", "-d", "--force", "--", folder)
        for attempt in range(attempts):
            if remote is not None and git.succeeds("rev-parse", "--abbrev-ref", "@{upstream}"):
                git("fetch", "--quiet", remote)
                if git("rev-list", "--count", "HEAD..@{upstream}") != "0":
                    _rebase(git, tree)
            commit = _commit(git, version, target, folder)
            if remote is None:
                return commit
            branch = git("symbolic-ref", "--short", "HEAD")
            if not _ahead(git):
                return commit
            if git.succeeds("push", "--quiet", "--set-upstream", remote, branch):
                return git("rev-parse", "HEAD")
            if attempt == attempts - 1:
                git("push", "--quiet", "--set-upstream", remote, branch)  # raises with the reason
    return None


def check_git_folder(folder: Any) -> None:
    """Raise if a folder is no plain path inside of a work tree, as git would read it.

    Raises:
        SettingError: It is absolute, leads out of the tree or into git's own, or has characters
            that git takes for a pattern, an option or a place in its history.
    """
    plain = isinstance(folder, str) and re.fullmatch(r"[^-:*?\[\]\\\0\n][^*?\[\]\\\0\n]*", folder)
    parts = Path(folder).parts if plain else ()
    if not parts or os.path.isabs(folder) or ".." in parts or ".git" in map(str.lower, parts):
        raise SettingError(
            f"folder={folder!r}; name one inside the work tree by its plain path, without any of "
            "*?[]\\ and not beginning with - or :"
        )


def _check_only_ours(target: Path) -> None:
    """Raise if a folder holds anything but a version, or what a killed process left of one."""
    names = {*_FILES, _MANIFEST}
    others = [
        path.name
        for path in (target.iterdir() if target.is_dir() else ())
        if path.name not in names
        and not (path.name.endswith(".tmp") and path.name[1:].startswith(tuple(names)))
    ]
    if others or (os.path.lexists(target) and not target.is_dir()):
        raise ForeignError(
            f"{target} holds other things ({', '.join(sorted(others)[:3])}); name a folder for "
            "models alone"
        )


def _check_remote(git: _Git, remote: str) -> None:
    """Raise if git knows no such remote: anything else it might take for an option or a command."""
    known = git("remote").splitlines()
    if remote not in known:
        raise SettingError(
            f"remote={remote!r}; expected one that git remote lists ({', '.join(known) or 'none'})"
        )


def _commit(git: _Git, version: Version, target: Path, folder: str) -> str | None:
    names = (*_FILES, _MANIFEST)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in names:
            _erase(path)
    for name in names:
        atomic_write(target / name, (version.folder / name).read_bytes())
    git("add", "--all", "--force", "--", folder)
    if git.succeeds("diff", "--cached", "--quiet", "--", folder):
        return None
    message = f"{folder}: model {version.name}"
    git(*_identity(git), "commit", "--quiet", "-m", message, "--", folder)
    return git("rev-parse", "HEAD")


def _identity(git: _Git) -> tuple[str, ...]:
    """Options for a clone in which nobody has said who commits."""
    if git.succeeds("config", "user.email"):
        return ()
    return ("-c", "user.name=Memento deployment", "-c", "user.email=memento@localhost")


_REBASING = "memento-rebasing"


def _rebase(git: _Git, tree: Path) -> None:
    """Put our commits on top of theirs; git refuses if a person's changes are in the way."""
    mark = tree / ".git" / _REBASING
    mark.touch()
    try:
        git(*_identity(git), "rebase", "--quiet", "@{upstream}")
    finally:
        _end_rebase(git, tree)


def _end_rebase(git: _Git, tree: Path) -> None:
    """Abort a rebase of ours that stopped; one of a person is not ours to end."""
    mark = tree / ".git" / _REBASING
    if any((tree / ".git" / name).exists() for name in ("rebase-merge", "rebase-apply")):
        if not mark.exists():
            raise StorageError(f"{tree}: a rebase is going on; finish or abort it")
        git("rebase", "--abort")
    mark.unlink(missing_ok=True)


def _ahead(git: _Git) -> bool:
    if not git.succeeds("rev-parse", "--verify", "--quiet", "@{upstream}"):
        return True
    return git("rev-list", "--count", "@{upstream}..HEAD") != "0"


class _Git:
    """Calls of git in a work tree that never wait for a person."""

    def __init__(self, tree: Path, timeout: float) -> None:
        self._tree = tree
        self._timeout = timeout

    def __call__(self, *words: str) -> str:
        result = self._run(words)
        if result.returncode:
            reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
            command = next(word for word in words if not word.startswith(("-", "user.")))
            raise StorageError(f"{self._tree}: git {command} failed: {reason[:300]}")
        return result.stdout.strip()

    def succeeds(self, *words: str) -> bool:
        return self._run(words).returncode == 0

    @staticmethod
    def _environment() -> dict[str, str]:
        # Called from a hook, say, the variables of another repository would lead there.
        foreign = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
        own = {name: value for name, value in os.environ.items() if name not in foreign}
        return {**own, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["git", "--literal-pathspecs", "-C", str(self._tree), *words],
                capture_output=True,
                text=True,
                timeout=self._timeout,
                stdin=subprocess.DEVNULL,
                env=self._environment(),
            )
        except FileNotFoundError as error:
            raise StorageError("git is not installed; install it or leave git out") from error
        except subprocess.TimeoutExpired as error:
            raise StorageError(
                f"{self._tree}: git {words[0]} took over {self._timeout:g} s; check the remote"
            ) from error


_STALE = 600.0  # s; no call of ours takes so long


def _free_index(tree: Path) -> None:
    """Remove the lock that git leaves when the machine goes down; respect one that is fresh."""
    path = tree / ".git" / "index.lock"
    if path.exists():
        if time.time() - path.stat().st_mtime < _STALE:
            raise LockedError(f"{tree} is in use: {path} exists; wait, or remove it if git is gone")
        path.unlink(missing_ok=True)


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DamagedError(f"{path} is missing; roll back to another version")
    with storage_errors("read the model", path):
        data = path.read_bytes()
    try:
        manifest: dict[str, Any] = json.loads(data)
        known = manifest["format"] == _FORMAT and manifest["version"] <= _VERSION
        recorded = manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is no manifest of a model ({error!r})") from error
    if recorded != _own_digest(manifest):
        raise DamagedError(f"{path} was changed; roll back to another version")
    if not known:
        raise ForeignError(
            f"{path}: format {manifest['format']!r}, version {manifest['version']}; expected "
            f"{_FORMAT!r} up to {_VERSION}"
        )
    return manifest


def _own_digest(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return digest(json.dumps(content, sort_keys=True).encode())


_CLASS = re.compile(r"(__torch__\.torch\.nn\.modules\.\w+?)(?:\.___torch_mangle_(\d+))?(\.[A-Z])")
_PICKLED = re.compile(rb"c(__torch__\.torch\.nn\.modules\.\w+?)(?:\.___torch_mangle_(\d+))?\n")
_CODE = re.compile(r"(.*/code/__torch__/torch/nn/modules/\w+?)(?:/___torch_mangle_(\d+))?\.py")


def _renumbered(data: bytes) -> bytes:
    """A TorchScript archive whose class names do not depend on what was traced before.

    PyTorch numbers the classes of a process, so the same network gives other bytes the second time.
    """
    numbers: dict[tuple[str, str], int] = {}

    def number(stem: str, old: str) -> int:
        return numbers.setdefault((stem.rpartition(".")[2], old), len(numbers))

    def in_text(match: re.Match[str]) -> str:
        return f"{match[1]}.___torch_mangle_{number(match[1], match[2] or '')}{match[3]}"

    def in_pickle(match: re.Match[bytes]) -> bytes:
        count = number(match[1].decode(), (match[2] or b"").decode())
        return b"c" + match[1] + b".___torch_mangle_%d\n" % count

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            record = old.read(name)
            if match := _CODE.fullmatch(name):
                stem = match[1].rpartition("/")[2]
                name = f"{match[1]}/___torch_mangle_{number(stem, match[2] or '')}.py"
                record = _CLASS.sub(in_text, record.decode()).encode()
            elif name.endswith("/data.pkl"):
                record = _PICKLED.sub(in_pickle, record)
            new.writestr(zipfile.ZipInfo(name), record)
    return buffer.getvalue()


def _remove(folder: Path) -> None:
    """A folder disappears at once for whoever lists it, then its files go."""
    if folder.exists():
        gone = temporary_of(folder)
        os.rename(folder, gone)
        _erase(gone)


def _erase(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
