"""Sections about the experiments of the case: the paper's tables and figures, and all others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from memento.report.experiments import Results
from memento.report.ordering import RULE
from memento.report.sections import Listing, Section
from memento.report.tables import Columns
from memento_puffer.report import over_days
from memento_puffer.report.deployments import deployment_section
from memento_puffer.report.replays import (
    SECTIONS,
    replay_section,
    selection_section,
    with_names_of_today,
)
from memento_puffer.report.viewers import analysis_section, demo_differences, demo_section
from memento_puffer.studies.arms import renamed

__all__ = ["analyses", "demos", "deployments", "replays"]

_TABLES = ("improvement.csv", "levels.parquet", "decisions.parquet", "insert.parquet",
           "densities.parquet", "periods.csv")  # fmt: skip
_TOPIC = re.compile(r"(?P<prefix>(?:[A-Za-z0-9]+-)?)(?P<topic>(?:table|figure)-[a-z-]+)")
_STUDY = "+figure-selection"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def replays(results: Results) -> None:
    """Tables and figures of replays, of each scale, and whether the paper's order is found."""
    group = "puffer-replay"
    first = len(results.sections)
    there = results.standing.get(group, {})
    names = [match for name in there if (match := _TOPIC.fullmatch(name)) is not None]
    prefixes = sorted({match["prefix"] for match in names if match["topic"] in SECTIONS}) or [""]
    for prefix in prefixes:
        for topic in SECTIONS:
            name = f"{prefix}{topic}"
            if topic == "figure-selection":
                continue
            tables = {
                file.partition(".")[0]: table
                for file in _TABLES
                if (table := results.table(group, name, file)) is not None
            }
            if {"improvement", "densities", "periods"} & set(tables):
                arms = _arms(results, group, name)
                tables = {n: _named(results, group, name, table) for n, table in tables.items()}
                results.sections.append(replay_section(topic, tables, prefix, arms))
            else:
                results.missing[name] = results.remedy(group, name)
    studies: dict[str, Columns] = {}
    for name in there:
        if name.endswith(_STUDY):
            table = results.table(group, name, "selection.parquet")
            if table is not None:
                table = _named(results, group, name, table)
                studies[name.removesuffix(_STUDY)] = table
            else:
                results.missing[name] = results.remedy(group, name)
    if studies:
        results.sections.append(selection_section(studies))
    elif not any(name.endswith(_STUDY) for name in there):
        results.missing["figure-selection"] = results.remedy(group, "'*figure-selection'")
    orders = _orders(results.sections[first:])
    if orders is not None:
        results.sections.insert(first, orders)


def _arms(results: Results, group: str, name: str) -> dict[str, dict[str, Any]]:
    """Parameters of the replays that a table puts side by side, by arm."""
    table = results.asked(group, name)
    # Needs are the replays of the first period, in the order of the arms, and those of the others.
    pairs = zip(table.get("parameters", {}).get("arms", ()), table.get("needs", ()), strict=False)
    asked = {arm: results.asked(group, need).get("parameters") for arm, need in pairs}
    parameters_of = {arm: parameters for arm, parameters in asked.items() if parameters}
    if table.get("version", 1) >= _RENAMED:
        return parameters_of
    return {renamed(arm): {**p, "arm": renamed(p["arm"])} for arm, p in parameters_of.items()}


def _named(
    results: Results, group: str, name: str, table: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A table with the arms' names of today."""
    if results.asked(group, name).get("version", 1) >= _RENAMED:
        return table
    return with_names_of_today(table)


#: Version of tables from which on arms have their names of today.
_RENAMED = 2


def _orders(sections: Sequence[Section]) -> Section | None:
    """How far settings stand in the paper's order, of all tables below each other."""
    orders = [
        (section.name, listing.table)
        for section in sections
        for listing in section.listings
        if listing.name == f"{section.name}-ordering"
    ]
    if not orders:
        return None
    table = {"table": np.repeat([n for n, _ in orders], [len(t["score"]) for _, t in orders])}
    for column in orders[0][1]:
        table[column] = np.concatenate([np.asarray(t[column]) for _, t in orders])
    about = (
        "Levels of simulated days cannot be compared with those of real ones; the order of "
        "settings can. One line for each series and score that the paper reports on."
    )
    title = "Is the paper's order found again?"
    return Section("ordering", title, [about, Listing("ordering", RULE, table)])


def analyses(results: Results) -> None:
    """What viewers got in each analysis."""
    group = "puffer-analysis"
    first, days = len(results.sections), []
    for name in results.standing.get(group, {}):
        schemes = results.table(group, name, "schemes.csv")
        missing = results.table(group, name, "missing.csv") if schemes is None else None
        if missing is not None:
            why = Listing(f"missing-{name}", "Days that could not be analysed.", missing)
            results.sections.append(Section(f"analysis-{name}", f"Nothing to see: {name}", [why]))
        elif schemes is None:
            results.missing[f"analysis-{name}"] = results.remedy(group, name)
        else:
            calibration = results.table(group, name, "calibration.csv")
            title = f"What viewers got: {name}"
            section = analysis_section(f"analysis-{name}", schemes, calibration, title)
            results.sections.append(section)
            daily = results.table(group, name, "daily.parquet") if _DAY.fullmatch(name) else None
            days += [daily] if daily is not None else []
    if days:
        found = over_days.sections(over_days.daily_of(days), prefix="analysis-")
        results.sections[first:first] = found
    if group not in results.standing:
        results.missing["analysis"] = results.remedy(group)


def deployments(results: Results) -> None:
    """Coverage and trainings of each deployment, and of the published record."""
    group = "puffer-deployment"
    for name in results.standing.get(group, {}):
        days = results.table(group, name, "days.parquet")
        if days is None:
            results.missing[f"deployment-{name}"] = results.remedy(group, name)
            continue
        record = name == "record"
        title = "The deployment on Puffer" if record else f"Deployment over {name}"
        section = deployment_section(f"deployment-{name}", days, record=record, title=title)
        results.sections.append(section)
    if group not in results.standing:
        results.missing["deployment"] = results.remedy(group)


def demos(results: Results) -> None:
    """The demo's scores and what predictors do in control."""
    group = "demo"
    for name in results.standing.get(group, {}):
        scores = results.table(group, name, "scores.csv")
        control = results.table(group, name, "control.csv")
        if scores is None or control is None:
            results.missing["demo"] = results.remedy(group, name)
            continue
        results.sections.append(demo_section(scores, control))
        differences = results.table(group, name, "differences.csv")
        if differences is not None and len(differences["first"]):
            results.sections.append(demo_differences(differences))
    if group not in results.standing:
        results.missing["demo"] = results.remedy(group)
