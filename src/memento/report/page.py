"""One self-contained HTML page from text, tables and pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memento.files import atomic_write, storage_errors

__all__ = ["Picture", "Table", "write_page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
color: #222 } table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem;
text-align: right } th { border-bottom: 2px solid #222 } td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } img { max-width: 100% } figure { margin: 1.5rem
0 } figcaption, .note { color: #555; font-size: .9rem }
@media (prefers-color-scheme: dark) { body { background: #fff } }
"""


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, with a caption."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG file with a caption."""

    path: Path
    caption: str


def write_page(path: Path, title: str, parts: Sequence[str | Table | Picture]) -> None:
    """Write a page that needs no other file.

    Args:
        path: HTML file, replaced at once.
        title: Heading.
        parts: Paragraphs, tables and pictures, in order.
    """
    body = "\n".join(_render(part) for part in parts)
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f'</title><meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    with storage_errors("write the report", path):
        atomic_write(path, text.encode())


def _render(part: str | Table | Picture) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, Table):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in part.header)
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in part.rows
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"
            f'<p class="note">{html.escape(part.caption)}</p>'
        )
    data = base64.b64encode(part.path.read_bytes()).decode()
    caption = html.escape(part.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
