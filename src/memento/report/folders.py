"""What kind of folder it is, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from memento.errors import ForeignError, StorageError
from memento.files import storage_errors
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
        **added,
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


def open_report(folder: str | Path) -> Report:
    """Read a folder of results, of whatever kind.

    Raises:
        StorageError: There is no such folder.
        ForeignError: It is of no known kind.
        DamagedError: A table is missing or damaged; the message names it and the remedy.
        SchemaError: A table lacks a column.
    """
    return kinds()[kind_of(folder)].open(Path(folder))
