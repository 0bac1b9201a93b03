"""A folder of results of `memento run`: a section for each table and figure that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from memento.report.deployments import deployment_section
from memento.report.folders import completed, result_table
from memento.report.ordering import RULE
from memento.report.published import CONDITIONS, NOTE
from memento.report.replays import SECTIONS, replay_section, selection_section
from memento.report.sections import Columns, Listing, Report, Section
from memento.report.viewers import analysis_section, demo_differences, demo_section
from memento.runner.results import Place, Status

__all__ = ["of_results"]

_TABLES = ("improvement.csv", "levels.parquet", "decisions.parquet", "insert.parquet",
           "densities.parquet")  # fmt: skip
_TOPIC = re.compile(r"(?P<prefix>(?:[A-Za-z0-9]+-)?)(?P<topic>(?:table|figure)-[a-z-]+)")
_STUDY = "+figure-selection"

Standing = Mapping[str, Mapping[str, Status]]


def of_results(root: str | Path) -> Report:
    """Everything that a folder of results says, and what is missing.

    Args:
        root: Folder of all results; only what is completed is read, others may be running.

    Raises:
        DamagedError: A table differs from what was written, or cannot be read.
        SchemaError: A table lacks a column.
    """
    root = Path(root)
    standing = completed(root)
    sections: list[Section] = []
    missing: dict[str, str] = {}
    _add_replays(root, standing, sections, missing)
    orders = _orders(sections)
    if orders is not None:
        sections.insert(0, orders)
    _add_analyses(root, standing, sections, missing)
    _add_deployments(root, standing, sections, missing)
    _add_demos(root, standing, sections, missing)
    sections.append(_status(root, standing))
    title = "Experiments: tables and figures of the paper"
    return Report("results", root, title, [NOTE, CONDITIONS], sections, missing)


def _add_replays(
    root: Path, standing: Standing, sections: list[Section], missing: dict[str, str]
) -> None:
    group = "puffer-replay"
    there = standing.get(group, {})
    names = [found for name in there if (found := _TOPIC.fullmatch(name)) is not None]
    prefixes = sorted({found["prefix"] for found in names if found["topic"] in SECTIONS}) or [""]
    for prefix in prefixes:
        for topic in SECTIONS:
            name = f"{prefix}{topic}"
            if topic == "figure-selection":
                continue
            tables = {
                file.partition(".")[0]: table
                for file in _TABLES
                if (table := result_table(root, group, name, file)) is not None
            }
            if "improvement" in tables or "densities" in tables:
                sections.append(replay_section(topic, tables, prefix))
            else:
                missing[name] = _remedy(root, group, name, there.get(name))
    studies: dict[str, Columns] = {}
    for name in there:
        if name.endswith(_STUDY):
            table = result_table(root, group, name, "selection.parquet")
            if table is not None:
                studies[name.removesuffix(_STUDY)] = table
            else:
                missing[name] = _remedy(root, group, name, there[name])
    if studies:
        sections.append(selection_section(studies))
    elif not any(name.endswith(_STUDY) for name in there):
        missing["figure-selection"] = _remedy(root, group, "'*figure-selection'", None)


def _orders(sections: Sequence[Section]) -> Section | None:
    """How far settings stand in the paper's order, of all tables below each other."""
    found = [
        (section.name, listing.table)
        for section in sections
        for listing in section.listings
        if listing.name == f"{section.name}-ordering"
    ]
    if not found:
        return None
    table = {"table": np.repeat([n for n, _ in found], [len(t["score"]) for _, t in found])}
    for column in found[0][1]:
        table[column] = np.concatenate([np.asarray(t[column]) for _, t in found])
    about = (
        "Levels of simulated days cannot be compared with those of real ones; the order of "
        "settings can. One line for each series and score that the paper reports on."
    )
    title = "Is the paper's order found again?"
    return Section("ordering", title, [about, Listing("ordering", RULE, table)])


def _add_analyses(
    root: Path, standing: Standing, sections: list[Section], missing: dict[str, str]
) -> None:
    group = "puffer-analysis"
    for name, found in standing.get(group, {}).items():
        schemes = result_table(root, group, name, "schemes.csv")
        if schemes is None:
            missing[f"analysis-{name}"] = _remedy(root, group, name, found)
            continue
        calibration = result_table(root, group, name, "calibration.csv")
        title = f"What viewers got: {name}"
        sections.append(analysis_section(f"analysis-{name}", schemes, calibration, title))
    if group not in standing:
        missing["analysis"] = _remedy(root, group, "", None)


def _add_deployments(
    root: Path, standing: Standing, sections: list[Section], missing: dict[str, str]
) -> None:
    group = "puffer-deployment"
    for name, found in standing.get(group, {}).items():
        days = result_table(root, group, name, "days.parquet")
        if days is None:
            missing[f"deployment-{name}"] = _remedy(root, group, name, found)
            continue
        record = name == "record"
        title = "The deployment on Puffer" if record else f"Deployment over {name}"
        section = deployment_section(f"deployment-{name}", days, record=record, title=title)
        sections.append(section)
    if group not in standing:
        missing["deployment"] = _remedy(root, group, "", None)


def _add_demos(
    root: Path, standing: Standing, sections: list[Section], missing: dict[str, str]
) -> None:
    group = "demo"
    for name, found in standing.get(group, {}).items():
        scores = result_table(root, group, name, "scores.csv")
        control = result_table(root, group, name, "control.csv")
        if scores is None or control is None:
            missing["demo"] = _remedy(root, group, name, found)
            continue
        sections.append(demo_section(scores, control))
        differences = result_table(root, group, name, "differences.csv")
        if differences is not None and len(differences["first"]):
            sections.append(demo_differences(differences))
    if group not in standing:
        missing["demo"] = _remedy(root, group, "", None)


def _remedy(root: Path, group: str, name: str, found: Status | None) -> str:
    command = " ".join(word for word in ("memento run", group, name, f"--results {root}") if word)
    if found is None:
        return f"not run; {command}"
    if found.state == "failed":
        log = Place(root, group, name).log
        return f"failed: {found.reason}; see {log}, then {command}"
    if found.state == "running":
        return f"running: {_progress(found)}".rstrip(": ")
    return f"{found.state}{': ' if found.reason else ''}{found.reason}; {command}"


def _progress(found: Status) -> str:
    done, total, note = found.progress or (0, 0, "")
    return f"{done:g} of {total:g} {note}".strip() if total else found.where


def _status(root: Path, standing: Standing) -> Section:
    """How many experiments of each group are where, and those that need a person."""
    states = ("done", "stale", "running", "failed", "missing")
    counts: dict[str, list[str | int]] = {"group": list(standing)}
    for state in states:
        counts[state] = [
            sum(found.state == state for found in group.values()) for group in standing.values()
        ]
    open_ones = [
        (f"{group}/{name}", found.state, _remedy(root, group, name, found))
        for group, members in standing.items()
        for name, found in members.items()
        if found.state in ("failed", "running", "missing")
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
