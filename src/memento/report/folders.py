"""What kind of folder it is, and tables read from it so that errors name file and remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import DamagedError, ForeignError, MementoError, StorageError
from memento.files import digest, storage_errors
from memento.runner.results import Place, Status, read_json, read_table, status

__all__ = ["KINDS", "completed", "kind_of", "read", "read_document", "result_table"]

KINDS: Mapping[str, str] = {
    "results": "memento run",
    "replay": "memento puffer replay --out",
    "datacenter": "memento datacenter replay --out",
    "analysis": "memento puffer analyze --out",
    "demo": "memento demo --out",
    "deployment": "memento puffer deploy init",
}
"""Kinds of folders, each with the command that makes one."""


def kind_of(folder: str | Path) -> str:
    """Which of `KINDS` a folder is, by what is in it.

    Raises:
        StorageError: There is no such folder.
        ForeignError: It is empty, or of no kind; the message says what is expected instead.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise StorageError(f"{folder} {what}; give a folder of results: {_known()}")
    with storage_errors("look into the folder", folder):
        if (folder / "deployment.json").is_file():
            return "deployment"
        if (folder / "iterations.csv").is_file():
            return "datacenter"
        if (folder / "summary.json").is_file() and (folder / "steps.csv").is_file():
            return "demo"
        if (folder / "deployment.csv").is_file() and (folder / "daily.parquet").is_file():
            return "analysis"
        if any(folder.glob("*/replay.json")):
            return "replay"
        if any(folder.glob("*/*/experiment.json")):
            return "results"
        up = folder.resolve()
        if (folder / "experiment.json").is_file():
            whole = up.parent.parent
            raise ForeignError(f"{folder} is one experiment; give the folder of all: {whole}")
        if any(folder.glob("*/experiment.json")):
            raise ForeignError(f"{folder} is one group of experiments; give {up.parent}")
        empty = next(folder.iterdir(), None) is None
    what = "is empty" if empty else "holds no results that are known"
    raise ForeignError(f"{folder} {what}; expected a folder made by {_known()}")


def _known() -> str:
    return ", ".join(KINDS.values())


def read(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """A table, its columns by name.

    Args:
        path: Of a CSV or Parquet file.
        remedy: What brings the file back, for messages.

    Raises:
        DamagedError: It is missing, cannot be read, or holds no columns.
    """
    try:
        found = read_table(path)
    except StorageError as error:
        raise DamagedError(
            f"{path} cannot be read ({error.__cause__ or error}); {remedy}"
        ) from error
    except MementoError:
        raise
    except Exception as error:  # whatever a damaged file makes readers stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"{path} is damaged ({reason}); {remedy}") from error
    if not found:
        raise DamagedError(f"{path} has no columns; {remedy}")
    return found


def read_document(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DamagedError: It is missing or no JSON object.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path} holds no JSON object; {remedy}")
    return found


def completed(root: Path) -> dict[str, dict[str, Status]]:
    """Where each experiment stands: by group and name, as they were last asked for."""
    found: dict[str, dict[str, Status]] = {}
    for path in sorted(root.glob("*/*/experiment.json")):
        group, name = path.parent.parent.name, path.parent.name
        place = Place(root, group, name)
        try:
            asked = read_json(place.experiment) or {}
            found.setdefault(group, {})[name] = status(place, str(asked.get("digest", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(
                f"{place.result} or {place.state} is damaged ({error!r}); remove "
                f"{place.folder} and run it again: {_again(group, name)}"
            ) from error
    return found


def result_table(root: Path, group: str, name: str, file: str) -> dict[str, np.ndarray] | None:
    """One table of a completed experiment, with its digest checked; None if it has none such.

    Raises:
        DamagedError: The file is missing, differs from what was written, or cannot be read.
    """
    place = Place(root, group, name)
    remedy = f"run it again: {_again(group, name)}"
    for _ in range(2):  # once more if a new result came in between
        result = read_json(place.result)
        if result is None or file not in result["files"]:
            return None
        path = place.output(int(result["attempt"])) / file
        if path.is_file():
            break
    else:
        raise DamagedError(f"{path} is missing; {remedy}")
    with storage_errors("read", path):
        if digest(path) != result["files"][file]["sha256"]:
            raise DamagedError(f"{path} differs from what was written; {remedy}")
    return read(path, remedy)


def _again(group: str, name: str) -> str:
    return f"memento run {group} {name} --force"
