"""The page of a memory: what it keeps of what it was offered, how old that is, and what is new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from memento.errors import SettingError
from memento.memory import Memory
from memento.portrait import Part, Portrait, holds_memory, portrait
from memento.report import live
from memento.report.sections import Listing, LiveChart, Report, Section

__all__ = ["claims", "of_memory", "sections_of"]

claims = holds_memory
_ENDS: dict[str, Any] = {"low": "low", "high": "high"}
_SET: dict[str, Any] = {"arm": "set", "unit": "share of the samples (%)"}


def of_memory(folder: Path, against: Path | None = None) -> Report:
    """What a memory in a folder looks like; only read, columns stay on the disk.

    Args:
        folder: Of the memory.
        against: Of another one, an earlier copy say.

    Raises:
        SettingError: ``against`` holds no memory; or the policy is not known here.
        DamagedError: A folder differs from its manifest.
    """
    if against is not None and not holds_memory(against):
        raise SettingError(f"{against} holds no memory; give the folder of one to compare with")
    other = None if against is None else Memory.load(against, mapped=True)
    likeness = portrait(Memory.load(folder, mapped=True), other)
    title = f"What the memory {folder.resolve().name} keeps"
    facts = "; ".join(f"{name}: {value}" for name, value in likeness.facts.items())
    sections = sections_of(likeness)
    if against is not None:
        sections.append(_against(likeness, str(against)))
    return Report("memory", folder, title, [f"{facts}."], sections, likeness.missing)


def sections_of(likeness: Portrait, prefix: str = "") -> list[Section]:
    """What there is to see of a memory.

    Args:
        likeness: Its portrait.
        prefix: In front of titles and names, where a page has several memories.
    """
    made = [_kept(likeness), _ages(likeness), _coverage(likeness), _new(likeness)]
    if not prefix:
        return made
    return [
        replace(
            section,
            name=f"{prefix}{section.name}".replace(" ", "-"),
            title=f"{prefix}{section.title[0].lower()}{section.title[1:]}",
            parts=[
                part if isinstance(part, str) else replace(part, name=f"{prefix}{part.name}")
                for part in section.parts
            ],
        )
        for section in made
    ]


def _kept(likeness: Portrait) -> Section:
    about = (
        "What was offered is known from a uniform sample of at most 1,000 samples that the memory "
        "keeps beside its own (lines: 95 % intervals of its shares), with predictions as they came."
    )
    parts: list[Any] = [about]
    parts += [
        _distribution(f"kept-{i}", name, part)
        for i, (name, part) in enumerate(likeness.kept.items())
    ]
    if not likeness.kept:
        parts.append("There is no column whose values could be counted.")
    return Section("kept", "What is kept, of what was offered", parts)


def _distribution(name: str, column: str, part: Part) -> LiveChart:
    """Bars of a column's values, in the order of the table."""
    order = list(dict.fromkeys(part.table["value"]))
    build = partial(
        live.bars, **_SET, **_ENDS, category="value", value="share", order=order, title=column
    )
    return LiveChart(name, part.words, part.table, build)


def _ages(likeness: Portrait) -> Section:
    """Shares of inserts in what came and in what is held."""
    part = likeness.inserts
    label = "with which insert samples came (number)"
    build = partial(live.lines, x="insert", y="share", label=label, percent=True, **_SET)
    shown = LiveChart("ages", part.words, part.table, build) if part.table else part.words
    return Section("ages", "How old it is", [shown])


def _coverage(likeness: Portrait) -> Section:
    """Increases as a table, and newness over the band of chance."""
    parts: list[Any] = []
    if likeness.coverage.table:
        parts.append(_listing("coverage", likeness.coverage))
    else:
        parts.append(likeness.coverage.words)
    part = likeness.newness
    if part.table:
        build = partial(
            live.spans,
            category="statistic",
            value="deviations",
            unit="distance from the usual (standard deviations of chance)",
            low=-2,
            high=2,
            words="where chance alone puts nineteen of twenty",
        )
        parts.append(LiveChart("newness", part.words, part.table, build))
    else:
        parts.append(part.words)
    parts += _past(likeness.past)
    return Section("coverage", "Whether something has come that was not there", parts)


def _past(past: Mapping[str, Part]) -> list[LiveChart | str]:
    """How much of each unit was not covered, and how new it was, over what chance does."""
    if not past:
        return ["Fewer than two units were compared so far, so there is no course of time yet."]

    def chart(name: str, unit: str, *, percent: bool) -> LiveChart:
        def build(rows: list[dict[str, Any]]) -> Any:
            return live.band(
                rows,
                x="unit",
                y="value",
                unit=unit,
                label="units as they came (number)",
                percent=percent,
            )

        return LiveChart(f"{name}-by-unit", past[name].words, past[name].table, build)

    return [
        chart("coverage", "not covered by earlier arrivals (% of the unit)", percent=True),
        chart("newness", "new regions (standard deviations of chance)", percent=False),
    ]


def _new(likeness: Portrait) -> Section:
    parts: list[Any] = [_cells("cells", likeness.cells)]
    if likeness.examples.table:
        table = _plain(likeness.examples.table)
        parts.append(Listing("examples", likeness.examples.words, table, ours=False))
    return Section("new", "What is new", parts)


def _cells(name: str, part: Part) -> LiveChart | str:
    """Bars of the cells' shares of an increase; words where there is none."""
    if not part.table:
        return part.words

    def build(rows: list[dict[str, Any]]) -> Any:
        return live.bars(
            [{**row, "set": "held now"} for row in rows],
            category="cell",
            value="share",
            unit="share of the increase (%)",
            arm="set",
            order=part.table["cell"],
        )

    return LiveChart(name, part.words, part.table, build)


def _against(likeness: Portrait, other: str) -> Section:
    parts: list[Any] = [f"The other memory is {other}."]
    parts.append(_listing("against-samples", likeness.against["samples"]))
    parts += [
        _distribution(f"against-kept-{i}", name, part)
        for i, (name, part) in enumerate(likeness.kept_against.items())
    ]
    if "cells" in likeness.against:
        parts.append(_cells("against-cells", likeness.against["cells"]))
    return Section("against", "What differs from the other memory", parts)


def _listing(name: str, part: Part) -> Listing:
    return Listing(name, part.words, _plain(part.table))


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that are not known as NaN, which is shown as nothing."""
    return {
        name: [float("nan") if value is None else value for value in column]
        for name, column in table.items()
    }
