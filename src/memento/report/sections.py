"""What a report is made of: sections with text, charts and tables, and how they become a page.

A chart holds the tidy table that it shows; drawing it computes nothing. So the same report is a
page for people (`Report.write`) and one JSON object for programs (`Report.document`).
"""

from __future__ import annotations

import datetime as dt
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import SettingError, needs
from memento.report.page import (
    GENERATOR,
    Heading,
    Interactive,
    Part,
    Picture,
    Table,
    write_page,
)
from memento.report.tables import Columns

__all__ = ["Chart", "Listing", "LiveChart", "Report", "Section"]


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        name: Of its file, unique in a report.
        caption: One or more sentences on what it shows.
        table: What is drawn: columns of equal length.
        draw: Draws the table to a PNG file.
    """

    name: str
    caption: str
    table: Columns
    draw: Callable[[Path, Columns], None] = field(repr=False)

    def save(self, folder: str | Path) -> Path:
        """Draw it to ``folder/name.png``; the folder is made."""
        path = Path(folder) / f"{self.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.draw(path, self.table)
        return path


@dataclass(frozen=True)
class LiveChart:
    """A figure that the browser draws, in the width and the colours of the page.

    Attributes:
        name: Unique in a report.
        caption: A sentence that says what follows from it, and what is drawn, with units.
        table: What is drawn: columns of equal length.
        build: Makes Altair's chart of the rows.
    """

    name: str
    caption: str
    table: Columns
    build: Callable[[list[dict[str, Any]]], Any] = field(repr=False)

    @property
    def chart(self) -> Any:
        """Altair's chart."""
        return self.build(list(_rows(self.table)))

    def save(self, folder: str | Path) -> Path:
        """Draw it to ``folder/name.png``; the folder is made."""
        with needs("vl-convert-python", "figures", "drawing charts"):
            import vl_convert
        path = Path(folder) / f"{self.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        described = {**self.chart.to_dict(), "width": 640}
        path.write_bytes(vl_convert.vegalite_to_png(described, scale=2))
        return path


@dataclass(frozen=True)
class Listing:
    """A table. Columns whose names begin with "paper" hold what was published.

    Attributes:
        name: Unique in a report.
        caption: One or more sentences on what it shows.
        table: Columns of equal length. ``x_error`` is shown behind ``x`` with ±, ``x_low`` and
            ``x_high`` in brackets.
        ours: Whether the names of the columns are ours; a user's are shown as they are, one column
            each, whatever they end with.
    """

    name: str
    caption: str
    table: Columns
    ours: bool = True

    def shown(self) -> Table:
        """As text, for a page or a terminal.

        Example:
            >>> table = {"arm": ["a"], "tail": [0.25], "tail_error": [0.125], "paper tail": [0.7]}
            >>> Listing("t", "", table).shown().rows
            [['a', '0.25 ± 0.125', '0.7']]
        """
        if not self.ours:
            columns = [[_text(value) for value in column] for column in self.table.values()]
            return Table(list(self.table), list(zip(*columns, strict=True)), self.caption)
        behind = [
            name
            for name in self.table
            for ending in ("_error", "_low", "_high")
            if name.endswith(ending) and name.removesuffix(ending) in self.table
        ]
        header = [name for name in self.table if name not in behind]
        rows = [[_with_error(self.table, name, row) for name in header] for row in range(self.size)]
        return Table([name.replace("_", " ") for name in header], rows, self.caption)

    @property
    def size(self) -> int:
        """Rows."""
        return len(next(iter(self.table.values()), ()))

    def __str__(self) -> str:
        """Columns in line, for a terminal or a notebook."""
        shown = self.shown()
        lines = [list(shown.header), *(list(row) for row in shown.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([text[0], "-" * len(text[0]), *text[1:], self.caption])


@dataclass(frozen=True)
class Section:
    """Part of a report.

    Attributes:
        name: Unique in a report; of an experiment's table or figure, that name.
        title: Heading of the section.
        parts: Paragraphs, charts and listings, in order.
    """

    name: str
    title: str
    parts: Sequence[str | Chart | LiveChart | Listing]

    def show(self, figures: str | Path) -> None:
        """Write title and tables to standard output, charts to a folder; in Jupyter show them.

        Args:
            figures: Folder; made if need be.
        """
        sys.stdout.write(f"\n{self.title}\n")
        for part in self.parts:
            if isinstance(part, (Chart, LiveChart)):
                path = part.save(figures)
                sys.stdout.write(f"\n{path}: {part.caption}\n")
                _inline(path)
            elif isinstance(part, Listing):
                sys.stdout.write(f"\n{part}\n")

    @property
    def charts(self) -> list[Chart | LiveChart]:
        """Its figures."""
        return [part for part in self.parts if isinstance(part, (Chart, LiveChart))]

    @property
    def listings(self) -> list[Listing]:
        """Its tables."""
        return [part for part in self.parts if isinstance(part, Listing)]


@dataclass(frozen=True)
class Report:
    """Everything that a folder of results says.

    Attributes:
        kind: Of the folder, a name of `folders.kinds`.
        folder: Folder that was read.
        title: Title of the page.
        text: Paragraphs in front of the sections.
        sections: Sections in the order of the page.
        missing: Sections that the folder could have and has not, each with what brings it.
    """

    kind: str
    folder: Path
    title: str
    text: Sequence[str]
    sections: Sequence[Section]
    missing: Mapping[str, str] = field(default_factory=dict)

    def section(self, name: str) -> Section:
        """The one of this name.

        Raises:
            SettingError: There is none.
        """
        for section in self.sections:
            if section.name == name:
                return section
        known = ", ".join(section.name for section in self.sections)
        what = self.missing.get(name, f"there are {known}")
        raise SettingError(f"{self.folder} has no section {name!r}; {what}")

    def write(self, path: Path, progress: Callable[[int, int, str], None] | None = None) -> None:
        """Write it as one page that needs no other file.

        Args:
            path: HTML file, replaced at once.
            progress: Told how many charts are drawn, of how many, and which is next.

        Raises:
            MissingExtraError: There is nothing to draw with.
            StorageError: The page cannot be written.
        """
        total = sum(len(section.charts) for section in self.sections)
        parts: list[Part] = list(self.text)
        done = 0
        with tempfile.TemporaryDirectory(prefix="memento-report-") as name:
            for section in self.sections:
                parts.append(Heading(section.title, section.name))
                for part in section.parts:
                    if isinstance(part, Listing):
                        parts.append(part.shown())
                    elif isinstance(part, str):
                        parts.append(part)
                    else:
                        if progress is not None:
                            progress(done, total, part.name)
                        if isinstance(part, LiveChart):
                            parts.append(Interactive(part.chart, part.caption))
                        else:
                            parts.append(Picture(part.save(name), part.caption))
                        done += 1
            if self.missing:
                parts += [
                    Heading("What is not there", "missing"),
                    Listing("missing", "", {
                        "section": list(self.missing), "what to do": list(self.missing.values())
                    }).shown(),
                ]  # fmt: skip
            write_page(path, self.title, parts, contents=True, generator=GENERATOR)
        if progress is not None:
            progress(total, total, "")

    def document(self) -> dict[str, Any]:
        """The same as JSON: sections with their text, and the rows of charts and tables."""
        return {
            "kind": self.kind,
            "folder": str(self.folder),
            "title": self.title,
            "text": list(self.text),
            "sections": [
                {
                    "name": section.name,
                    "title": section.title,
                    "text": [part for part in section.parts if isinstance(part, str)],
                    "figures": [_described(chart) for chart in section.charts],
                    "tables": [_described(listing) for listing in section.listings],
                }
                for section in self.sections
            ],
            "missing": dict(self.missing),
        }


def _inline(path: Path) -> None:
    """A picture below the cell of a notebook; nothing elsewhere."""
    kit = sys.modules.get("IPython")
    if kit is not None and kit.get_ipython() is not None:
        kit.display.display(kit.display.Image(str(path)))


def _described(part: Chart | LiveChart | Listing) -> dict[str, Any]:
    return {"name": part.name, "caption": part.caption, "rows": list(_rows(part.table))}


def _rows(table: Columns) -> Iterator[dict[str, Any]]:
    columns = [np.asarray(column) for column in table.values()]
    for row in zip(*columns, strict=True):
        yield {name: _plain(value) for name, value in zip(table, row, strict=True)}


def _plain(value: Any) -> Any:
    """A value that JSON knows."""
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value.astype("datetime64[D]"))
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, dt.date | dt.datetime):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_error(table: Columns, name: str, row: int) -> str:
    text = _text(table[name][row])
    if not text:
        return ""
    if f"{name}_error" in table:
        error = _text(table[f"{name}_error"][row])
        return f"{text} ± {error}" if error else text
    low, high = (_text(table[f"{name}_{e}"][row]) if f"{name}_{e}" in table else "" for e in ENDS)
    return f"{text} [{low}, {high}]" if low and high else text


ENDS = ("low", "high")


def _text(value: Any) -> str:
    """A cell: three digits that count, thousands apart, nothing for what is not known."""
    plain = _plain(value)
    if plain is None:
        return ""
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, int):
        return f"{plain:,}" if abs(plain) >= 10_000 else str(plain)
    if not isinstance(plain, float):
        return str(plain)
    if abs(plain) >= 1000:
        return f"{plain:,.0f}"
    if plain == round(plain):
        return f"{plain:.0f}"
    return f"{plain:.4g}" if abs(plain) >= 10 else f"{plain:.3g}"  # 17.08 dB
