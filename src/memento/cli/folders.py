"""Folders of memories: one change under the lock, a look without it, and what to do in messages."""

from __future__ import annotations

import contextlib
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento import snapshot
from memento.cli import ui
from memento.errors import (
    DomainError,
    ForeignError,
    InputError,
    NewLabelError,
    SettingError,
    StorageError,
)
from memento.files import is_there, storage_errors
from memento.memory import Memory
from memento.policies import Choice, Policy

__all__ = ["UnchangedError", "changing", "load", "look"]


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[Memory]:
    """The memory of a folder under its lock; written back unless something is raised."""
    with storage_errors("read", folder):
        if not (is_there(folder) and folder.is_dir()):
            raise StorageError(
                f"{folder} does not exist or is no folder; make a memory with: "
                f"memento memory init {folder}"
            )
        if not snapshot.exists(folder):
            raise ForeignError(
                f"{folder} holds no memory; make one in another folder with: memento memory init"
            )
    with contextlib.ExitStack() as stack:
        # Reading and writing name the folder in their errors themselves; what happens in between
        # (the files of samples, a model, a full disk elsewhere) is no fault of it.
        with storage_errors("lock", folder):
            lock = stack.enter_context(snapshot.lock_of(folder))
            snapshot.prune(folder)
        memory = load(folder)
        with contextlib.suppress(UnchangedError):
            with _remedies(folder):
                yield memory
            memory.save(folder, lock=lock)


# What the library tells callers in Python to do, and how it is done here.
_IN_PYTHON = (
    (r"memory\.annotate\([^()]*=\.\.\.\)", "memento memory annotate DIR FILE"),
    (r"Memory\(\.\.\., ids=\.\.\.\)", "memento memory init --id"),
    (r"\(\.astype\(str\)\)", "(--types NAME=text)"),
    (r"order of memory\.samples", "order of memento memory export"),
)


@contextlib.contextmanager
def _remedies(folder: Path) -> Iterator[None]:
    """New classes, with the command that admits them; what is late, which an insert has told."""
    try:
        with warnings.catch_warnings():
            # Remedies in these are for Python.
            warnings.filterwarnings("ignore", "missing columns", UserWarning)
            warnings.filterwarnings("ignore", "column .* is not there for all", UserWarning)
            yield
    except NewLabelError as error:
        classes = "" if error.classes is None else f" (or {error.column}:{error.classes})"
        raise DomainError(
            f"{error.found}. Admit new classes with: memento memory use {shlex.quote(str(folder))} "
            f"--labels {error.column}{classes}"
        ) from error
    except InputError as error:
        message = str(error)
        for python, command in _IN_PYTHON:
            message = re.sub(python, command, message)
        error.args = (message,)
        raise


def load(folder: Path) -> Memory:
    """A stored memory, without what was said of its settings when it was made.

    Raises:
        SettingError: Its policy is unknown here; the message says how to name it.
    """
    return _open(folder, closed=False)


def look(folder: Path) -> Memory:
    """A stored memory that is read only: also one whose policy is unknown here.

    The code of a policy is imported when users name it, or from an installed distribution, never
    because a folder says so. What is held can be shown and exported without it; it stays on the
    disk, however much it is.
    """
    return _open(folder, closed=True)


def _open(folder: Path, *, closed: bool) -> Memory:
    """The memory in a folder; ``closed`` also where its policy's class is not known here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return Memory.load(folder, mapped=closed)
        except SettingError as error:
            documents = snapshot.read(folder, "memento-memory").documents
            saved = documents.get("policy")
            unknown = _UNKNOWN.match(str(error))
            if unknown is None or not isinstance(saved, dict):
                raise
            message = f"{folder}: {unknown[1]}; {_how_to_import(documents)}"
            if not closed:
                raise SettingError(message) from error
        memory = Memory.load(folder, Unopened(saved), mapped=closed)
    ui.warn(f"{message}. Without it, what only the policy knows, such as weights, is left out")
    return memory


@dataclass(frozen=True)
class Unopened(Policy):
    """Stands for a policy that is unknown here: it knows its settings, and chooses nothing."""

    saved: Mapping[str, Any]

    def choose(self, *_: Any, **__: Any) -> Choice:
        """Refuse: commands that let a policy choose load it first."""
        raise SettingError(f"policy {self.saved.get('kind')!r} is unknown; name it with --import")

    def settings(self) -> dict[str, Any]:
        """As they were saved."""
        return dict(self.saved)


# How the library says that a policy or a distance is unknown; what follows is for Python.
_UNKNOWN = re.compile(r"(unknown (?:policy|distance) .*?); known are ", re.DOTALL)
_SPEC = re.compile(r"[\w.]{1,200}:[\w.]{1,200}")


def _how_to_import(documents: Mapping[str, Any]) -> str:
    """What to add to a command so that the policy is known, as far as the folder remembers it."""
    classes = documents.get("classes")
    known = classes if isinstance(classes, list) else []
    specs = [text for text in known if isinstance(text, str) and _SPEC.fullmatch(text)]
    words = " ".join(f"--import {text}" for text in specs[:9]) or "--import MODULE"
    return (
        f"its code is run only when you name it: add {words} to the command, in the folder that "
        "the module lies in or with it installed"
    )


class UnchangedError(Exception):
    """Ends `changing` without a new generation: there was nothing to do."""
