"""What `memento puffer analyze` leaves behind: tables, figures, and one page that holds both."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memento.cli import tables
from memento.errors import SchemaError, SettingError
from memento.files import storage_errors, sync_folder
from memento.samples import Samples
from memento_puffer.data.schema import made_folder
from memento_puffer.quality import aggregates

if TYPE_CHECKING:
    from memento.report.page import Table

__all__ = ["write_report"]

_COURSES = ("weeks", "differences")  # of `over_days`, what the page shows
_LARGE = ("streams", "daily")  # tables for programs
_SMALL = ("scores", "counts", "deployment", "official", "official_slow", "paired")
_PAGE = "report.html"


def write_report(
    out: Path, gathered: Mapping[str, Samples], reference: str | None, rng: np.random.Generator
) -> Samples:
    """Write everything about some days to a folder.

    All is made in a hidden folder inside it and moved when it is complete, the page last. Files
    that an earlier report left and this one does not have are removed; others are left alone.

    Args:
        out: Made if it is not there.
        found: Of ``analysis.gather``.
        reference: Scheme that others are compared with; None for the first by name.
        rng: Of intervals.

    Returns:
        A row per scheme: what is most wanted of it.

    Raises:
        SchemaError: Nobody streamed on these days.
        SettingError: The reference is not among the schemes.
        StorageError, SpaceError: The folder cannot be written to; what was there before is.
        MissingExtraError: There is nothing to draw with.
    """
    from memento.report import figures, page
    from memento_puffer.report import over_days
    from memento_puffer.report.figures import BETTER, levels_of, trade_off

    streams, daily = gathered["streams"], gathered["daily"]
    deployment = aggregates.deployment(daily)
    schemes = deployment["scheme"].tolist()
    if not schemes:
        days = sorted(map(str, np.unique(gathered["counts"]["day"])))
        raise SchemaError(
            f"nobody streamed on {', '.join(days) or 'these days'}: no chunk was sent and "
            "acknowledged, so there is nothing to analyse; give days with streams"
        )
    if reference is None:
        reference = schemes[0]
    elif reference not in schemes:
        raise SettingError(f"--reference {reference!r}; there are {', '.join(schemes)}")
    made: dict[str, Samples] = {**gathered, "deployment": deployment}
    official = _if_any(lambda: aggregates.official(streams, rng=rng))
    slow = _if_any(lambda: aggregates.official(streams, rng=rng, slow=True))
    pairs = _if_any(lambda: aggregates.paired(streams, reference, rng=rng))
    made |= {
        name: table
        for name, table in (("official", official), ("official_slow", slow), ("paired", pairs))
        if table is not None and table.size
    }
    parts: list[str | page.Table | page.Picture] = [
        f"{len(np.unique(daily['day']))} days, {len(schemes)} schemes; differences are to "
        f"{reference}.",
        _as_table(deployment, "All streams of all days; SSIM is the plain mean of daily means."),
    ]
    with storage_errors("write the analysis", out), _swapped(out) as place:
        for name, table in made.items():
            tables.write(place / _table_file(name), table)
        if "official" in made:
            trade_off(place / "trade_off.png", levels_of(made["official"]), level=0.95)
            parts += [
                page.Picture(
                    place / "trade_off.png", "Quality against stalls, Puffer's intervals."
                ),
                _as_table(made["official"], "Streams watched for 4 s and more (Puffer's method)."),
            ]
        if "official_slow" in made:
            parts.append(_as_table(made["official_slow"], "Of these, the streams over slow paths."))
        if "paired" in made:
            figures.forest(place / "paired.png", made["paired"], better=BETTER)
            parts.append(page.Picture(place / "paired.png", "The same viewers under two schemes."))
        for section in over_days.sections(daily, reference, only=_COURSES):
            parts += [page.Picture(chart.save(place), chart.caption) for chart in section.charts]
        parts.append(_as_table(_summed(gathered["counts"]), "What was met in the files."))
        page.write_page(place / _PAGE, "What viewers got", parts)
    return _shown(deployment, made.get("official"))


@contextlib.contextmanager
def _swapped(out: Path) -> Iterator[Path]:
    """A place for the files of a report, which become those of ``out`` if nothing fails."""
    with made_folder(out):
        place = out / ".new"
        shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
        place.mkdir()
        try:
            yield place
            new = sorted(path.name for path in place.iterdir())
            # Without its page a folder is no report: what is killed from here on does not look
            # like one of the new days.
            for name in [_PAGE, *(_own_names() - {*new, _PAGE})]:
                (out / name).unlink(missing_ok=True)
            for name in sorted(new, key=lambda name: name == _PAGE):
                os.replace(place / name, out / name)
            sync_folder(out)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _own_names() -> set[str]:
    """All files that a report may have."""
    from memento_puffer.report import over_days

    return {
        _PAGE,
        *(_table_file(name) for name in (*_LARGE, *_SMALL)),
        *(f"{name}.png" for name in ("trade_off", "paired", *over_days.PICTURES)),
    }


def _table_file(name: str) -> str:
    return f"{name}.{'parquet' if name in _LARGE else 'csv'}"


def _if_any(make: Callable[[], Samples]) -> Samples | None:
    """A table, or None where the days hold nothing that it could be made of."""
    try:
        return make()
    except SchemaError:
        return None


def _summed(counts: Samples) -> Samples:
    names = np.array(list(dict.fromkeys(counts["count"].tolist())), str)
    totals = [int(counts["value"][counts["count"] == name].sum()) for name in names]
    return Samples.borrow(count=names, total=np.array(totals, np.int64))


def _shown(deployment: Samples, official: Samples | None) -> Samples:
    """The columns that a terminal has room for."""
    columns = {
        "scheme": deployment["scheme"],
        "days": deployment["days"],
        "streams": deployment["streams"],
        "hours": deployment["stream_years"] * aggregates.YEAR / 3600,
        "ssim_dB": deployment["ssim"],
        "stalled_%": deployment["stalled_capped"],
    }
    if official is not None:
        place = {name: i for i, name in enumerate(official["scheme"].tolist())}
        for name, column in (("low", "stall_low"), ("high", "stall_high")):
            columns[f"stalled_{name}_%"] = np.array(
                [
                    100 * official[column][place[s]] if s in place else np.nan
                    for s in deployment["scheme"].tolist()
                ]
            )
    return Samples.borrow(columns)


def _as_table(table: Samples, caption: str) -> Table:
    from memento.report import page

    rows = zip(*(table[name].tolist() for name in table), strict=True)
    return page.Table(tuple(table), [[_text(v) for v in row] for row in rows], caption)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
