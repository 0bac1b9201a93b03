"""Pages of what the case leaves behind, found by `memento report`."""

from __future__ import annotations

from pathlib import Path

from memento.report import scenarios
from memento.report.sections import Report
from memento_datacenter.scores import courses

__all__ = ["of_datacenter"]


def of_datacenter(folder: Path) -> Report:
    """The page of what `memento datacenter replay` wrote.

    Args:
        folder: Of the results.

    Raises:
        DamagedError, SchemaError: A table is missing, damaged, or lacks a column.
    """
    return scenarios.of_datacenter(folder, courses)
