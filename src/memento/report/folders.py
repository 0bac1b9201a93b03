"""What kind of folder it is, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from memento.errors import ForeignError, SettingError, StorageError
from memento.files import storage_errors
from memento.report import deployment, memory
from memento.report.backtest import claims, of_backtest
from memento.report.experiments import of_results
from memento.report.kinds import Kind, installed
from memento.report.sections import Report

__all__ = ["kind_of", "kinds", "open_report"]


def kinds() -> Mapping[str, Kind]:
    """All kinds by name: those that distributions add, and results of `memento run`."""
    added: dict[str, Kind] = {}
    for reports in installed():
        added = {**reports.kinds, **added}
    return {
        # First, as its folders look like others by the names of their files.
        "daily-job": Kind("memento deploy init", deployment.claims, deployment.of_deployment),
        **added,
        "memory": Kind("memento memory init", memory.claims, memory.of_memory, "-report.html"),
        "backtest": Kind("memento backtest --out", claims, of_backtest),
        "results": Kind("memento run", _holds_results, of_results),
    }


def _holds_results(folder: Path) -> bool:
    return any(folder.glob("*/*/experiment.json"))


def kind_of(folder: str | Path) -> str:
    """Which of `kinds` a folder is, by what is in it.

    Raises:
        StorageError: There is no such folder.
        ForeignError: It is empty, or of no kind; the message says what is expected instead.
    """
    folder, known = Path(folder), kinds()
    commands = ", ".join(kind.made_by for kind in reversed([*known.values()]))
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise StorageError(f"{folder} {what}; give a folder of results: {commands}")
    with storage_errors("look into the folder", folder):
        for name, kind in known.items():
            if kind.claims(folder):
                return name
        up = folder.resolve()
        if (folder / "experiment.json").is_file():
            results = up.parent.parent
            raise ForeignError(f"{folder} is one experiment; give the folder of all: {results}")
        if any(folder.glob("*/experiment.json")):
            raise ForeignError(f"{folder} is one group of experiments; give {up.parent}")
        empty = next(folder.iterdir(), None) is None
    what = "is empty" if empty else "holds no results that are known"
    raise ForeignError(f"{folder} {what}; expected a folder made by {commands}")


def open_report(folder: str | Path, against: str | Path | None = None) -> Report:
    """Read a folder of results, of whatever kind.

    Args:
        folder: What it is about.
        against: Folder of another memory, where it is about one, to compare with.

    Raises:
        SettingError: There is something to compare with, but the folder holds no memory.
        StorageError: There is no such folder.
        ForeignError: It is of no known kind.
        DamagedError: A table is missing or damaged; the message names it and the remedy.
        SchemaError: A table lacks a column.
    """
    kind = kind_of(folder)
    if against is None:
        return kinds()[kind].open(Path(folder))
    if kind != "memory":
        raise SettingError(f"{folder} holds no memory, and only two memories are compared")
    return memory.of_memory(Path(folder), Path(against))
