"""One self-contained HTML page from text, tables and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento.errors import needs
from memento.files import atomic_write, storage_errors

__all__ = ["GENERATOR", "Heading", "Interactive", "Part", "Picture", "Table", "write_page"]

GENERATOR = '<meta name="generator" content="memento report">'
"""In pages that `memento report` wrote and may replace."""


@dataclass(frozen=True)
class Heading:
    """Where a section begins; the table of contents leads here.

    Attributes:
        text: Text of the heading.
        name: Its anchor, unique on the page.
    """

    text: str
    name: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, with a caption. Columns headed "paper ..." are set apart."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG file with a caption."""

    path: Path
    caption: str

    @property
    def data(self) -> str:
        """The file in base64."""
        return base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Interactive:
    """A chart of Altair's, drawn by the browser, with a caption. One a page: it brings 900 kB."""

    chart: Any
    caption: str

    @property
    def script(self) -> str:
        """What draws the chart, with all that it needs."""
        with needs("vl-convert-python", "figures", "drawing charts"):
            import vl_convert
        bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        # In JSON a slash may be escaped: so no text of the user's can end the script.
        spec = json.dumps(self.chart.to_dict()).replace("</", "<\\/")
        return f"{bundle}\nwindow.vegaEmbed('#chart', {spec}, {{actions: false}});"


Part = str | Heading | Table | Picture | Interactive


def write_page(
    path: Path,
    title: str,
    parts: Sequence[Part],
    *,
    contents: bool = False,
    generator: str = "",
) -> None:
    """Write a page that needs no other file.

    Args:
        path: HTML file, replaced at once.
        title: Title of the page and text of its first heading.
        parts: Paragraphs, headings, tables and pictures, in order.
        contents: List the headings on top.
        generator: A tag that says what wrote the page, see `GENERATOR`.

    Raises:
        MissingExtraError: Jinja2, or what draws interactive charts, is not installed.
        StorageError: The file cannot be written.
    """
    with needs("jinja2", "figures", "writing a page"):
        import jinja2
    source = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(source)
    text = template.render(
        title=title,
        generator=generator,
        headings=[part for part in parts if contents and isinstance(part, Heading)],
        parts=[("str" if isinstance(part, str) else type(part).__name__, part) for part in parts],
    )
    with storage_errors("write the report", path):
        atomic_write(path, text.encode())
