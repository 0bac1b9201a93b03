"""Sections about many analysed days: differences, courses and windows, quality against stalls.

Figures 1, 6, 13, 14 and 17 to 20 of the paper, of the table ``daily`` of analyses. Differences of
stalls and quality are symmetric percentages, 100 (x - y) / max(|x|, |y|), those of scores are nats.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import SchemaError
from memento.report import figures
from memento.report.sections import Chart, Listing, Section
from memento.report.tables import Columns
from memento.samples import Samples
from memento_puffer.quality import aggregates, qoe
from memento_puffer.report.figures import trade_off

__all__ = ["LEAST_DAYS", "PICTURES", "SECTIONS", "daily_of", "sections", "usual_reference"]

LEAST_DAYS = 3
"""Days from which on a course over days is worth a picture."""

_RESAMPLES = 500
_REFERENCE = "fugu-feb"
# Schemes that the paper puts in one picture, each over the days on which all of them ran.
_TOGETHER = (("memento", "memento-deterministic", _REFERENCE), ("fugu", _REFERENCE))


@dataclass(frozen=True)
class _Quantity:
    variable: str
    metric: str
    label: str
    unit: str
    relative: bool

    @property
    def name(self) -> str:
        return f"{self.variable}_{self.metric}".replace(".", "")

    @property
    def words(self) -> str:
        return self.label.partition(" (")[0]


_QUANTITIES = (
    _Quantity("stream", "stalled", "time stalled (%)", "%", True),
    _Quantity("ssim", "mean", "mean SSIM (dB)", "%", True),
    _Quantity("logscore_0", "q0.01", "1st percentile of the log score (nats)", "nats", False),
    _Quantity("logscore_0", "q0.5", "median log score (nats)", "nats", False),
)


@dataclass(frozen=True)
class _About:
    title: str
    about: str
    window: int
    change: bool
    ending: str


SECTIONS = {
    name: _About(**section)
    for name, section in tomllib.loads(
        Path(__file__).with_name("over_days.toml").read_text(encoding="utf-8")
    ).items()
}
"""Sections by name."""

PICTURES = frozenset(
    f"{q.name}{section.ending}" for q in _QUANTITIES for section in SECTIONS.values()
)
"""Names that charts may have."""


def daily_of(tables: Sequence[Columns]) -> Samples:
    """Daily tables of several analyses as one; where two have a day, the later one counts."""
    parts: dict[str, list[np.ndarray]] = {}
    seen: set[str] = set()
    for table in reversed(tables):
        days = np.asarray(table["day"]).astype("datetime64[D]")
        new = ~np.isin(days.astype(str), list(seen))
        seen |= set(days.astype(str).tolist())
        for name in ("day", "scheme", "selection", "variable", "metric", "value"):
            column = days if name == "day" else np.asarray(table[name])
            column = column.astype(str) if name not in ("day", "value") else column
            parts.setdefault(name, []).append(column[new])
    return Samples.borrow({name: np.concatenate(columns) for name, columns in parts.items()})


def usual_reference(daily: Samples) -> str:
    """The static model as in the paper; without it, the first scheme by name."""
    schemes = sorted(set(daily["scheme"].tolist()))
    return _REFERENCE if _REFERENCE in schemes else schemes[0]


def sections(
    daily: Samples,
    reference: str | None = None,
    *,
    only: Collection[str] = (*SECTIONS, "trade-off"),
    prefix: str = "",
) -> list[Section]:
    """What many days show; nothing where there are fewer than `LEAST_DAYS`.

    Args:
        daily: As `daily_of` or an analysis gives it.
        reference: Scheme that others are compared with; None for `usual_reference`.
        only: Names of the sections that are wanted.
        prefix: In front of the sections' names.
    """
    if len(np.unique(daily["day"])) < LEAST_DAYS:
        return []
    reference = usual_reference(daily) if reference is None else reference
    made = []
    for name, section in SECTIONS.items():
        if name not in only:
            continue
        charts: list[str | Chart | Listing] = []
        for quantity in _QUANTITIES:
            table = _by_day(daily, quantity)
            if table is not None:
                charts += _chart(section, quantity, table, reference)
        if charts:
            if name == "differences":
                charts.append(_totals(daily, reference))
            about = section.about.format(reference=reference)
            made.append(Section(f"{prefix}{name}", section.title, [about, *charts]))
    if "trade-off" in only:
        made += _trade_off(daily, prefix)
    return made


def _by_day(daily: Samples, quantity: _Quantity) -> Samples | None:
    try:
        table = aggregates.by_day(daily, quantity.variable, quantity.metric)
    except SchemaError:  # without models there are no scores
        return None
    return table if table.size else None


def _chart(section: _About, quantity: _Quantity, table: Samples, reference: str) -> list[Chart]:
    """The chart of one quantity; none where nobody shares a day with the reference."""
    name = f"{quantity.name}{section.ending}"
    ylabel = quantity.label
    if section.change:
        ylabel = f"{quantity.words}: difference to {reference} ({quantity.unit})"
    draw: Callable[[Path, Columns], None]
    if not section.window:
        shown = _distributions(table, quantity, reference)
        draw = functools.partial(figures.distributions, xlabel=f"daily {ylabel}")
        caption = f"{ylabel}, distributed over days."
    else:
        rng = np.random.default_rng(0)
        draws = _RESAMPLES if section.window > 1 else 1
        how: dict[str, Any] = {"rng": rng, "resamples": draws}
        change = functools.partial(
            aggregates.differences, reference=reference, relative=quantity.relative, **how
        )
        statistic = change if section.change else None
        shown = qoe.time_series(table, window=section.window, statistic=statistic, **how)
        draw = functools.partial(figures.time_series, ylabel=ylabel, zero=section.change)
        over = (
            f"the last {section.window} days with 90 % intervals" if section.window > 1 else "a day"
        )
        caption = f"{ylabel}: means of {over}."
    return [Chart(name, caption, dict(shown), draw)] if shown.size else []


def _distributions(table: Samples, quantity: _Quantity, reference: str) -> Samples:
    """``scheme``, ``value``, ``share`` of the time streamed."""
    parts = []
    for scheme in np.unique(table["scheme"]).tolist():
        both = aggregates.compare(table, scheme, reference)
        if scheme != reference and both.size:
            values = both["relative" if quantity.relative else "difference"]
            curve = qoe.weighted_ecdf(values, both["weight"])
            parts.append(curve.with_columns(scheme=np.full(curve.size, scheme)))
    return Samples.concat(parts) if parts else Samples.borrow(value=np.empty(0))


def _totals(daily: Samples, reference: str) -> Listing:
    """Differences over all days that a scheme shares with the reference."""
    rows: dict[str, dict[str, Any]] = {}
    for quantity in _QUANTITIES:
        table = _by_day(daily, quantity)
        if table is None:
            continue
        found = aggregates.differences(
            *(table, reference),
            rng=np.random.default_rng(0),
            resamples=_RESAMPLES,
            relative=quantity.relative,
        )
        for i, scheme in enumerate(found["scheme"].tolist()):
            row = rows.setdefault(scheme, {"scheme": scheme, "days": int(found["units"][i])})
            name = f"{quantity.words} ({quantity.unit})"
            row |= {f"{name}{end}": float(found[column][i]) for end, column in _ENDS.items()}
            if quantity.name == "stream_stalled":
                both = aggregates.compare(table, scheme, reference)
                share = np.average(both["difference"] >= 0, weights=both["weight"])
                row["share of days with as many stalls or more"] = float(share)
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = {name: [row.get(name, np.nan) for row in rows.values()] for name in names}
    caption = (
        f"Differences to {reference} over all days in common, with 90 % intervals over days; the "
        "share of days is weighted by the time streamed."
    )
    return Listing("differences", caption, columns)


_ENDS = {"": "value", "_low": "low", "_high": "high"}


def _trade_off(daily: Samples, prefix: str) -> list[Section]:
    """Figure 17: one picture for each set of schemes that ran together, else one of all."""
    known = set(daily["scheme"].tolist())
    sets = [[s for s in group if s in known] for group in _TOGETHER]
    sets = [group for group in sets if len(group) > 1] or [sorted(known)]
    charts: list[str | Chart | Listing] = []
    for group in sets:
        of_each = [set(daily["day"][daily["scheme"] == scheme].tolist()) for scheme in group]
        common = sorted(set.intersection(*of_each))
        if not common:
            continue
        rows = np.isin(daily["day"], np.array(common, daily["day"].dtype))
        rows &= np.isin(daily["scheme"], group)
        table = aggregates.trade_off(
            daily.take(rows), rng=np.random.default_rng(0), resamples=_RESAMPLES
        )
        name = "trade-off-" + "-".join(group)
        caption = (
            f"{', '.join(group)} over the {len(common)} days on which all of them ran, weighted by "
            "the time streamed, with 90 % intervals over days."
        )
        charts.append(Chart(name, caption, dict(table), trade_off))
        charts.append(Listing(name, caption, dict(table)))
    about = "Figure 17: quality against stalls over all days, better to the top right."
    title = "Quality against stalls, over days"
    return [Section(f"{prefix}trade-off", title, [about, *charts])] if charts else []
