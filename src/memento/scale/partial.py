"""What a selection keeps while it is under way, so that a killed one goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import StorageError
from memento.files import Lock, atomic_write, storage_errors, write_npz
from memento.scale.blocks import Block
from memento.scale.passes import Kept

__all__ = ["Partial"]


class Partial:
    """The folder ``TO.partial``: a file of summaries a block, then a file of rows a block.

    Args:
        folder: Where the selection is to lie in the end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.with_name(f"{folder.name}.partial")

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """One selection at a time works here.

        Raises:
            LockedError: Another one does.
            StorageError: It cannot be made.
        """
        with storage_errors("keep what is found", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with Lock(self.folder / "lock"):
                yield

    def remove(self) -> None:
        """Remove the folder, once the selection is complete; not while another one works there."""
        if self.folder.exists():
            with contextlib.suppress(StorageError), self.opened():
                shutil.rmtree(self.folder, ignore_errors=True)

    def summary(self, stage: str, settings: str, block: Block) -> Path:
        """The file with what a stage found of a block, as it is now and with these settings."""
        return self.folder / f"{stage}-{_name(settings, block)}.npz"

    def part(self, number: int, settings: str, block: Block, kept: Kept) -> Path:
        """The file with the rows that stay of a block."""
        digest = hashlib.sha256(_name(settings, block).encode())
        for value in (kept.batches, kept.rows, kept.weights):
            digest.update(b"-" if value is None else np.ascontiguousarray(value).tobytes())
        digest.update(f"{kept.fill} {kept.name} ".encode() + kept.order)
        return self.folder / f"part-{number:05d}-{digest.hexdigest()[:24]}.parquet"

    def taken(self, path: Path) -> dict[str, np.ndarray] | None:
        """What was stored of a file of rows; None unless the file is as long as it was then."""
        facts = self.load(path.with_suffix(".npz"))
        if facts is None or not path.is_file() or path.stat().st_size != facts.get("bytes"):
            return None
        return facts

    def store_taken(self, path: Path, facts: dict[str, np.ndarray]) -> None:
        """Keep what is known of a finished file of rows, and how long it is."""
        self.store(path.with_suffix(".npz"), {**facts, "bytes": np.array(path.stat().st_size)})

    def load(self, path: Path) -> dict[str, np.ndarray] | None:
        """Arrays that `store` wrote; None if there are none that can be read."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def store(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        """Keep the arrays of a block."""
        content = io.BytesIO()
        write_npz(content, arrays)
        with storage_errors("keep what is found", self.folder):
            atomic_write(path, content.getvalue())


def _name(settings: str, block: Block) -> str:
    file = block.file
    # What is drawn in a block depends on the file's name beside the others, too.
    about: list[Any] = [settings, file.path, file.name, file.size, file.changed]
    about += [block.groups, block.start, block.rows, block.first]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def place(source: Path, target: Path) -> None:
    """Put a finished file into the folder of the result; it also stays where it is, if it can."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
