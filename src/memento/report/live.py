"""Charts that the browser draws: bars, lines and points with the same colours on every page.

Each takes rows with plain names and says its units on the axes; a width of its own it has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from memento.errors import needs

__all__ = ["band", "bars", "colours", "lines", "points", "spans"]

Rows = Sequence[Mapping[str, Any]]

# Told apart with any colour vision, and on light and dark alike (after Okabe and Ito, 2008).
_PALETTE = ("#1a86d0", "#e0701b", "#12a37c", "#cf74ad", "#c99700", "#8f7ae0", "#5cb6e8", "#b5543c")
_GREY = "#8b939b"
# What has the same colour wherever it is drawn.
_KNOWN = {
    "kept": _PALETTE[0],
    "held now": _PALETTE[0],
    "memento": _PALETTE[0],
    "offered": _GREY,
    "random": _GREY,
    "at the last training": _PALETTE[1],
    "density-reservoir": _PALETTE[1],
    "the other": _PALETTE[1],
}


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: the known ones have theirs, the others what is left, in order.

    Example:
        >>> list(colours(["offered", "mine", "kept"]).values())
        ['#8b939b', '#e0701b', '#1a86d0']
    """
    found = {name: _KNOWN.get(name, "") for name in names}
    free = [colour for colour in _PALETTE if colour not in found.values()] or list(_PALETTE)
    missing = [name for name, colour in found.items() if not colour]
    return {**found, **{name: free[i % len(free)] for i, name in enumerate(missing)}}


def bars(
    rows: Rows,
    *,
    category: str,
    value: str,
    unit: str,
    arm: str,
    order: Sequence[str],
    percent: bool = True,
    low: str = "",
    high: str = "",
    title: str = "",
) -> Any:
    """Bars beside each other for each category, with intervals where they are known.

    Args:
        rows: With the columns that are named here.
        category: Column that bars are grouped by, shown from top to bottom in ``order``.
        value: Column of their lengths.
        unit: What these are, for the axis.
        arm: Column of what is compared, which has a colour each.
        order: Categories in order.
        percent: Whether values are shares.
        low: Column of the lower end of an interval.
        high: Column of its upper end.
        title: What the categories are.
    """
    alt, names, chart = _coloured(rows, arm)
    axis = alt.Axis(format="%") if percent else alt.Axis(format=",")
    wide = alt.Axis(labelLimit=170)
    y = alt.Y(f"{_name(category)}:N", sort=list(order), title=title or None, axis=wide)
    offset = alt.YOffset(f"{_name(arm)}:N", sort=names)
    x = alt.X(f"{_name(value)}:Q", title=unit, axis=axis)
    chart = chart.encode(y=y, yOffset=offset, x=x)
    drawn = chart.mark_bar()
    if low:
        whisker = chart.mark_rule(strokeWidth=1.5).encode(
            x=alt.X(f"{_name(low)}:Q", title=unit), x2=f"{_name(high)}:Q", color=alt.value(_GREY)
        )
        drawn = drawn + whisker
    return _sized(drawn, max(120, 26 * len(order) * max(1, len(names)) // 2 + 40))


def lines(
    rows: Rows,
    *,
    x: str,
    y: str,
    unit: str,
    arm: str,
    label: str,
    percent: bool = False,
    marked: str = "",
    steps: bool = False,
) -> Any:
    """A line for each arm; rows without a value interrupt it.

    Args:
        rows: With the columns that are named here.
        x: Column along the axis: numbers, or names in the order of the rows.
        y: Column of values.
        unit: What these are.
        arm: Column of what is compared.
        label: Of the x axis, with its unit.
        percent: Whether values are shares.
        marked: Column of truth values; such points are drawn large.
        steps: Whether values hold until the next one.
    """
    alt, _, chart = _coloured(rows, arm)
    words = bool(rows) and isinstance(rows[0][x], str)
    places = list(dict.fromkeys(str(row[x]) for row in rows)) if words else None
    angle = (
        alt.Axis(labelOverlap=True, labelAngle=-35)
        if words
        else alt.Axis(format="~s", tickMinStep=1)
    )
    along = alt.X(f"{_name(x)}:{'O' if words else 'Q'}", title=label, sort=places, axis=angle)
    axis = alt.Axis(format="%") if percent else alt.Axis()
    chart = chart.encode(
        x=along, y=alt.Y(f"{_name(y)}:Q", title=unit, axis=axis, scale=alt.Scale(zero=percent))
    )
    drawn = chart.mark_line(point=True, interpolate="step-after" if steps else "linear")
    if marked:
        chosen = chart.transform_filter(f"datum[{marked!r}]")
        drawn = drawn + chosen.mark_point(size=160, filled=True)
    return _sized(drawn, 260)


def points(rows: Rows, *, x: str, y: str, x_unit: str, y_unit: str, arm: str) -> Any:
    """A point for each row, of the arm's colour."""
    alt, _, chart = _coloured(rows, arm)
    drawn = chart.mark_circle(size=110, opacity=0.95).encode(
        x=alt.X(f"{_name(x)}:Q", title=x_unit, scale=alt.Scale(zero=False, padding=12)),
        y=alt.Y(f"{_name(y)}:Q", title=y_unit, scale=alt.Scale(zero=False, padding=12)),
    )
    return _sized(drawn, 280)


def spans(
    rows: Rows, *, category: str, value: str, unit: str, low: float, high: float, words: str
) -> Any:
    """A point for each category, over the band in which chance alone would put most of them.

    Args:
        rows: With a category and a value each.
        category: Column of names.
        value: Column of numbers.
        unit: What these are.
        low: Lower end of the band.
        high: Upper end.
        words: What the band is.
    """
    alt = _altair()
    band = alt.Chart({"values": [{"low": low, "high": high, "band": words}]})
    shade = band.mark_rect(opacity=0.2, color=_GREY).encode(
        x=alt.X("low:Q", title=unit), x2="high:Q", tooltip=["band:N"]
    )
    order = list(dict.fromkeys(str(row[category]) for row in rows))
    dots = alt.Chart({"values": list(rows)}).mark_circle(size=120, color=_PALETTE[0])
    drawn = dots.encode(
        x=alt.X(f"{_name(value)}:Q", title=unit),
        y=alt.Y(f"{_name(category)}:N", sort=order, title=None, axis=alt.Axis(labelLimit=170)),
        tooltip=_tips(rows),
    )
    return _sized(shade + drawn, max(120, 34 * len(order) + 40))


def band(rows: Rows, *, x: str, y: str, unit: str, label: str, percent: bool = False) -> Any:
    """A line over the band in which chance alone would put most of its points.

    Args:
        rows: With the columns that are named here, and ``low`` and ``high``, the ends of the band;
            where ``trained`` is true, points are drawn large.
        x: Column of numbers along the axis.
        y: Column of values.
        unit: What these are.
        label: Of the x axis, with its unit.
        percent: Whether values are shares.
    """
    alt = _altair()
    axis = alt.Axis(format="%") if percent else alt.Axis()
    wide, whole = alt.Scale(zero=False, padding=8), alt.Axis(format="~s", tickMinStep=1)
    along = alt.X(f"{_name(x)}:Q", title=label, scale=wide, axis=whole)
    chart = alt.Chart({"values": list(rows)}).encode(x=along, tooltip=_tips(rows))
    above = alt.Y("low:Q", title=unit, axis=axis)
    shade = chart.mark_area(opacity=0.2, color=_GREY).encode(y=above, y2="high:Q")
    line = chart.mark_line(color=_PALETTE[0], point={"color": _PALETTE[0], "size": 45})
    line = line.encode(y=alt.Y(f"{_name(y)}:Q", title=unit, axis=axis))
    chosen = line.transform_filter("datum.trained")
    chosen = chosen.mark_point(size=170, filled=True, color=_PALETTE[1])
    return _sized(shade + line + chosen, 240)


def _altair() -> Any:
    with needs("altair", "figures", "drawing charts"):
        import altair as alt
    return alt


def _coloured(rows: Rows, arm: str) -> tuple[Any, list[str], Any]:
    """Altair, the arms, and a chart of the rows with a colour for each and all columns as tips."""
    alt = _altair()
    names = list(dict.fromkeys(str(row[arm]) for row in rows))
    chart = alt.Chart({"values": list(rows)})
    return alt, names, chart.encode(color=_colour(arm, names), tooltip=_tips(rows))


def _sized(chart: Any, height: int) -> Any:
    """As wide as the page."""
    alt = _altair()
    fitting = alt.AutoSizeParams(type="fit-x", contains="padding")
    return chart.properties(width="container", height=height, autosize=fitting)


def _colour(arm: str, names: Sequence[str]) -> Any:
    alt = _altair()
    scale = alt.Scale(domain=list(names), range=list(colours(names).values()))
    legend = alt.Legend(title=None) if len(names) > 1 else None
    return alt.Color(f"{_name(arm)}:N", scale=scale, legend=legend, sort=list(names))


def _name(column: str) -> str:
    """A column's name as Vega reads it, where some characters mean something."""
    for character in "\\.[]:":
        column = column.replace(character, f"\\{character}")
    return column


def _tips(rows: Rows) -> list[Any]:
    """All columns, as they are called."""
    alt = _altair()
    found = []
    for name in rows[0] if rows else ():
        numbers = all(isinstance(row[name], (int, float, type(None))) for row in rows)
        kind = {"format": ",.4~g"} if numbers else {}
        found.append(alt.Tooltip(f"{_name(name)}:{'Q' if numbers else 'N'}", title=name, **kind))
    return found
