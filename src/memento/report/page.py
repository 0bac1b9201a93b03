"""One self-contained HTML page from text, tables and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, eq=False)
class Interactive:
    """A chart of Altair's, drawn by the browser in the page's width and colours, with a caption.

    What draws charts stands once in a page: 900 kB, however many there are.
    """

    chart: Any
    caption: str


# What browsers draw on: the page's own background, light or dark.
_LIGHT = {"quiet": "#555555", "text": "#222222", "line": "#dddddd"}
_DARK = {"quiet": "#a9b0b7", "text": "#e4e6e8", "line": "#3a4047"}


def _script(charts: Sequence[Interactive]) -> str:
    """What draws the charts, with all that it needs, and again where light turns to dark."""
    if not charts:
        return ""
    with needs("vl-convert-python", "figures", "drawing charts"):
        import vl_convert
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    described = [[part.chart.to_dict() for part in charts], _config(_LIGHT), _config(_DARK)]
    # In JSON "<" may be escaped: so no text of the user's can end the script, or open one in it.
    specs, light, dark = (json.dumps(each).replace("<", "\\u003c") for each in described)
    return f"""{bundle}
const specs = {specs}, night = window.matchMedia("(prefers-color-scheme: dark)");
const draw = () => specs.forEach((spec, i) => window.vegaEmbed("#chart-" + i, spec,
  {{actions: false, renderer: "svg", config: night.matches ? {dark} : {light}}}));
night.addEventListener("change", draw);
draw();"""


def _config(colours: Mapping[str, str]) -> dict[str, Any]:
    """Vega-Lite's configuration for a background."""
    quiet, text, line = colours["quiet"], colours["text"], colours["line"]
    named = {"labelColor": quiet, "titleColor": text}
    return {
        "background": "transparent",
        "view": {"stroke": "transparent"},
        "axis": {**named, "gridColor": line, "domainColor": line, "tickColor": line},
        "legend": {**named, "orient": "bottom", "columns": 3},
        "title": {"color": text},
        "text": {"color": text},
        "rule": {"color": quiet},
    }


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
    charts = [part for part in parts if isinstance(part, Interactive)]
    text = template.render(
        title=title,
        generator=generator,
        headings=[part for part in parts if contents and isinstance(part, Heading)],
        charts=charts,
        script=_script(charts),
        parts=[("str" if isinstance(part, str) else type(part).__name__, part) for part in parts],
    )
    with storage_errors("write the report", path):
        # Names of folders, and texts, may hold bytes that are no UTF-8; they stand there as "?".
        atomic_write(path, text.encode("utf-8", "replace"))
