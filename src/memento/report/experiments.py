"""A folder of results of `memento run`: where experiments stand, and sections that others add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import DamagedError
from memento.files import digest, readable_json, storage_errors
from memento.report.kinds import installed
from memento.report.sections import Listing, Report, Section
from memento.report.tables import read
from memento.runner.results import Place, Status, status

__all__ = ["Results", "of_results"]


@dataclass(frozen=True)
class Results:
    """Results of experiments, and the sections that are made of them.

    Attributes:
        root: Folder of all results.
        standing: Where each experiment stands, by group and name.
        sections: Added to by those who know a group.
        missing: Sections that could be there and are not, each with what brings it.
    """

    root: Path
    standing: Mapping[str, Mapping[str, Status]]
    sections: list[Section] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def table(self, group: str, name: str, file: str) -> dict[str, np.ndarray] | None:
        """One table of a completed experiment, with its digest checked; None if it has none such.

        Raises:
            DamagedError: The file is missing, differs from what was written, or cannot be read.
        """
        place = Place(self.root, group, name)
        remedy = f"run it again: {_again(group, name)}"
        for _ in range(2):  # once more if a new result came in between
            result = readable_json(place.result)
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

    def asked(self, group: str, name: str) -> Mapping[str, Any]:
        """The declaration of an experiment as it was last asked for; empty if it never was."""
        return readable_json(Place(self.root, group, name).experiment) or {}

    def remedy(self, group: str, name: str = "") -> str:
        """What brings an experiment's results, and why they are not there.

        Args:
            group: Name of its group.
            name: Its name or a pattern; "" for the whole group.
        """
        words = ("memento run", group, name, f"--results {self.root}")
        command = " ".join(word for word in words if word)
        standing = self.standing.get(group, {}).get(name)
        if standing is None:
            return f"not run; {command}"
        if standing.state == "failed":
            log = Place(self.root, group, name).log
            return f"failed: {standing.reason}; see {log}, then {command}"
        if standing.state == "running":
            return f"running: {_progress(standing)}".rstrip(": ")
        return f"{standing.state}{': ' if standing.reason else ''}{standing.reason}; {command}"


def of_results(root: str | Path) -> Report:
    """Everything that a folder of results says, and what is missing.

    Args:
        root: Folder of all results; only what is completed is read, others may be running.

    Raises:
        DamagedError: A table differs from what was written, or cannot be read.
        SchemaError: A table lacks a column.
    """
    results = Results(Path(root), _standing(Path(root)))
    text: list[str] = []
    for reports in installed():
        if not reports.experiments.keys().isdisjoint(results.standing):
            text += reports.text
            for add in reports.experiments.values():
                add(results)
    sections = [*results.sections, _status(results)]
    return Report("results", results.root, "Experiments", text, sections, results.missing)


def _standing(root: Path) -> dict[str, dict[str, Status]]:
    """Where each experiment stands: by group and name, as they were last asked for."""
    standing: dict[str, dict[str, Status]] = {}
    for path in sorted(root.glob("*/*/experiment.json")):
        group, name = path.parent.parent.name, path.parent.name
        place = Place(root, group, name)
        try:
            asked = readable_json(place.experiment) or {}
            standing.setdefault(group, {})[name] = status(place, str(asked.get("digest", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(
                f"{place.result} or {place.state} is damaged ({error!r}); remove "
                f"{place.folder} and run it again: {_again(group, name)}"
            ) from error
    return standing


def _again(group: str, name: str) -> str:
    return f"memento run {group} {name} --force"


def _progress(standing: Status) -> str:
    done, total, note = standing.progress or (0, 0, "")
    return f"{done:g} of {total:g} {note}".strip() if total else standing.where


def _status(results: Results) -> Section:
    """How many experiments of each group are where, and those that need a person."""
    standing = results.standing
    states = ("done", "stale", "running", "failed", "missing")
    counts: dict[str, list[str | int]] = {"group": list(standing)}
    for state in states:
        counts[state] = [
            sum(status.state == state for status in group.values()) for group in standing.values()
        ]
    open_ones = [
        (f"{group}/{name}", status.state, results.remedy(group, name))
        for group, members in standing.items()
        for name, status in members.items()
        if status.state in ("failed", "running", "missing")
    ]
    parts: list[str | Listing] = [
        Listing("experiments", "Experiments that were begun, by state.", counts)
    ]
    if open_ones:
        table = {
            name: [row[i] for row in open_ones]
            for i, name in enumerate(("experiment", "state", "what to do"))
        }
        parts.append(Listing("open", "Not complete.", table))
    return Section("experiments", "Experiments", parts)
