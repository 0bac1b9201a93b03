"""One self-contained HTML page from text, tables and pictures."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento.errors import MissingExtraError
from memento.files import atomic_write, storage_errors

__all__ = ["GENERATOR", "Heading", "Interactive", "Part", "Picture", "Table", "write_page"]

GENERATOR = '<meta name="generator" content="memento report">'
"""In pages that `memento report` wrote and may replace."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
color: #222 } table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem;
text-align: right } th { border-bottom: 2px solid #222 } td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } img { max-width: 100% } figure { margin: 1.5rem
0 } figcaption, .note { color: #555; font-size: .9rem }
.paper { color: #777; font-style: italic } .wide { overflow-x: auto } nav li { margin: .1rem 0 }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
@media (prefers-color-scheme: dark) { body { background: #fff } }
"""


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


@dataclass(frozen=True)
class Interactive:
    """A chart of Altair's, drawn by the browser, with a caption. One a page: it brings 900 kB."""

    chart: Any
    caption: str


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
        StorageError: The file cannot be written.
    """
    headings = [part for part in parts if isinstance(part, Heading)]
    listed = _contents(headings) if contents and headings else ""
    body = "\n".join(_render(part) for part in parts)
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f'</title>{generator}<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1>\n{listed}{body}\n</body></html>\n"
    )
    with storage_errors("write the report", path):
        atomic_write(path, text.encode())


def _contents(headings: Sequence[Heading]) -> str:
    lines = "\n".join(
        f'<li><a href="#{html.escape(one.name)}">{html.escape(one.text)}</a></li>'
        for one in headings
    )
    return f"<nav><ul>\n{lines}\n</ul></nav>\n"


def _render(part: Part) -> str:
    """A part of a page as HTML."""
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, Heading):
        return f'<h2 id="{html.escape(part.name)}">{html.escape(part.text)}</h2>'
    if isinstance(part, Table):
        published = [name.startswith("paper") for name in part.header]
        head = _cells("th", part.header, published)
        rows = "\n".join(f"<tr>{_cells('td', row, published)}</tr>" for row in part.rows)
        return (
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody>'
            f'</table></div><p class="note">{html.escape(part.caption)}</p>'
        )
    if isinstance(part, Interactive):
        caption = html.escape(part.caption)
        return (
            f'<figure><div id="chart"></div><figcaption>{caption}</figcaption></figure>'
            f'<script type="module">{_drawing(part.chart)}</script>'
        )
    data = base64.b64encode(part.path.read_bytes()).decode()
    caption = html.escape(part.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _drawing(chart: Any) -> str:
    """What draws a chart, with all that it needs."""
    try:
        import vl_convert
    except ModuleNotFoundError:
        raise MissingExtraError("vl-convert-python", "figures", "drawing charts") from None
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # In JSON a slash may be escaped: so no text of the user's can end the script.
    spec = json.dumps(chart.to_dict()).replace("</", "<\\/")
    return f"{bundle}\nwindow.vegaEmbed('#chart', {spec}, {{actions: false}});"


def _cells(tag: str, texts: Sequence[str], published: Sequence[bool]) -> str:
    classes = ("", ' class="paper"')
    return "".join(
        f"<{tag}{classes[grey]}>{html.escape(text)}</{tag}>"
        for text, grey in zip(texts, published, strict=True)
    )
