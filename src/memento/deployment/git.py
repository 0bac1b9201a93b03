"""What serves, committed to a git work tree as a whole and pushed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memento import arguments
from memento.deployment.publication import MANIFEST, Publication, Version, erase, read_manifest
from memento.errors import ForeignError, LockedError, SettingError, StorageError
from memento.files import Lock, atomic_write, local_path, storage_errors

__all__ = ["check_git_folder", "mirror_all", "mirror_to_git"]


@arguments.checked
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
        folder: Inside of it, for this alone; receives the files of the version and the manifest.
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
    if not _lies_in(tree, target):
        raise SettingError(f"folder={folder!r}; name one inside the work tree")
    version.verify()
    if not (tree / ".git").is_dir():
        raise StorageError(f"{tree} is no clone of a git repository; make one with: git clone")
    with storage_errors("publish", tree), Lock(tree / ".git" / "memento-publish.lock"):
        _check_only_ours(target, version)
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


def mirror_all(
    publications: Mapping[str, Publication], work_tree: str | Path, folder: str, remote: str | None
) -> list[str]:
    """Mirror what serves of each variant, in a folder of its own.

    Returns:
        What went wrong, a sentence each: what was done is done, and the next call tries again.
    """
    problems = []
    for name, publication in publications.items():
        try:
            version = publication.current()
            if version is not None:
                mirror_to_git(version, work_tree, f"{folder}/{name}", remote=remote)
        except Exception as error:  # of whatever kind
            problems.append(f"{name}: not published to git: {error}")
    return problems


def check_git_folder(folder: Any) -> None:
    """Raise if a folder is no plain path inside of a work tree, as git would read it.

    Raises:
        SettingError: It is absolute, leads out of the tree or into git's own, or has characters
            that git takes for a pattern, an option or a place in its history.
    """
    plain = isinstance(folder, str) and re.fullmatch(
        r"[^-:*?\[\]\\\0\n][^*?\[\]\\\0\n]{,254}", folder
    )
    parts = Path(folder).parts if plain else ()
    if not parts or os.path.isabs(folder) or ".." in parts or ".git" in map(str.lower, parts):
        raise SettingError(
            f"folder={folder!r}; name one inside the work tree by its plain path, without any of "
            "*?[]\\, not beginning with - or :, and of 255 characters at most"
        )


def _lies_in(tree: Path, target: Path) -> bool:
    """Whether a folder lies in a work tree, and not in git's own, when links are followed."""
    try:
        return ".git" not in target.resolve().relative_to(tree.resolve()).parts
    except (OSError, RuntimeError, ValueError):  # links in circles, names that no file can have
        return False


def _check_only_ours(target: Path, version: Version) -> None:
    """Raise if a folder holds anything but a version, or what a killed process left of one."""
    names = {*version.manifest["files"], MANIFEST}
    with contextlib.suppress(StorageError):  # of another version, that need not have the same files
        names |= set(read_manifest(target / MANIFEST, version.files)["files"])
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
    names = (*version.manifest["files"], MANIFEST)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.iterdir():
        if path.name not in names:
            erase(path)
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
        """One call; StorageError where git is missing or takes too long."""
        try:
            return subprocess.run(
                ["git", "--literal-pathspecs", "-C", str(self._tree), *words],
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # what a damaged file holds is quoted
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
