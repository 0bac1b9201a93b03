"""The record of a deployment as a table: that of 2022 and 2023, which was published, or one's own.

Both have one row for each day, variant and horizon, and the same columns, so that the same tables
and figures show them.
"""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.days import day_of
from memento.errors import DamagedError, ForeignError
from memento.files import storage_errors
from memento.samples import Samples
from memento_puffer.deployment import tree

__all__ = ["COLUMNS", "NEW_METRIC", "between", "read_record", "summary", "table"]

COLUMNS = (
    "variant",
    "horizon",
    "day",
    "retrained",
    "coverage_increase",
    "total_coverage_increase",
    "total_coverage",
)
NEW_METRIC = dt.date(2022, 9, 20)
"""First day of the published record on which coverage was measured as it is since.

Before, stored predictions were not those of the model that served, so that coverage of one side of
this day cannot be compared with the other.
"""

_SUMMED = ("p10", "median", "p90", "largest", "total_coverage")
_TRUTH = {"True": True, "False": False}


def read_record(path: str | Path, tell: Callable[[str], None] | None = None) -> Samples:
    r"""Read a record as it was published, or in CSV.

    Args:
        path: Folder of the published deployment, see `tree`; or a file with the header
            ``variant,horizon,day,retrained,coverage_increase,total_coverage_increase,
            total_coverage``, the last two of which may be empty.
        tell: Called with a sentence for each kind of gap in a folder, see `tree.read_rows`.

    Returns:
        variant (text), horizon (int64), day (datetime64[D]), retrained (bool), coverage_increase in
        [0, 1], total_coverage_increase and total_coverage (sums of densities; NaN where empty),
        sorted by variant, horizon and day.

    Raises:
        ForeignError: Another header, or another layout.
        DamagedError: A value of another kind, or a day twice; the line or file is named.
        StorageError: It cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "record.csv"
        >>> _ = path.write_text(",".join(COLUMNS) + "\ndefault,0,2022-05-01,True,1.0,,\n")
        >>> read_record(path)["retrained"]
        array([ True])
    """
    path = Path(path)
    rows = tree.read_rows(path, tell) if path.is_dir() else _rows_of_csv(path)
    keys = sorted(rows)
    found = np.array([rows[key][1] for key in keys], np.float64).reshape(len(keys), 3)
    return Samples(
        variant=np.array([key[0] for key in keys], str),
        horizon=np.array([key[1] for key in keys], np.int64),
        day=np.array([key[2] for key in keys], "datetime64[D]"),
        retrained=np.array([rows[key][0] for key in keys], bool),
        **dict(zip(COLUMNS[4:], found.T, strict=True)),
    )


def _rows_of_csv(path: Path) -> dict[tuple[str, int, dt.date], tree.Row]:
    """The same of a file, see `tree.read_rows`."""
    with storage_errors("read the record", path):
        text = path.read_text(encoding="utf-8")
    lines = csv.reader(text.splitlines())
    header = next(lines, [])
    if tuple(header) != COLUMNS:
        raise ForeignError(f"{path}: the header is {header}; expected {','.join(COLUMNS)}")
    rows: dict[tuple[str, int, dt.date], tree.Row] = {}
    for number, line in enumerate(lines, 2):
        where = f"{path}, line {number}"
        try:
            variant, horizon, day, retrained, *numbers = line
            key = (variant, int(horizon), day_of(day, where, DamagedError))
            values = [float(value) if value else math.nan for value in numbers]
            if len(values) != 3 or not 0 <= values[0] <= 1:
                raise ValueError("expected seven values, the fifth of them in [0, 1]")
            entry = (_TRUTH[retrained], values)
        except (ValueError, KeyError) as error:
            raise DamagedError(f"{where}: {','.join(line)!r}: {error}; fetch it again") from error
        if key in rows:
            raise DamagedError(f"{where}: this day is there twice; remove one of the lines")
        rows[key] = entry
    return rows


def table(documents: Sequence[Mapping[str, Any]]) -> Samples:
    """The record of one's own deployment.

    Args:
        documents: Those of the days.

    Returns:
        variant, horizon, day (datetime64[D]), retrained, coverage_increase,
        total_coverage_increase, total_coverage (NaN where not known); and beyond a published
        record: threshold, noise, p_value, refused, offered, kept, held, loss, tail (of what
        served, on the day's data), model (what served when it was decided; "" if nothing did),
        metric (epoch).
    """
    rows = [
        {**row, "refused": row["refused"] is not None, "model": row["model"] or ""}
        for document in documents
        for variant in document["variants"].values()
        for row in variant["rows"]
    ]
    numbers = [*COLUMNS[4:], "threshold", "noise", "p_value", "loss", "tail"]
    kinds: dict[str, Any] = {"variant": str, "horizon": np.int64, "day": "datetime64[D]"}
    kinds |= {"retrained": bool, **dict.fromkeys(numbers, np.float64)}
    kinds |= {**dict.fromkeys(("offered", "kept", "held", "metric"), np.int64)}
    kinds |= {"refused": bool, "model": str}
    return Samples(
        {
            name: np.array([math.nan if row[name] is None else row[name] for row in rows], kind)
            for name, kind in kinds.items()
        }
    )


def between(table: Samples, first: dt.date | None = None, last: dt.date | None = None) -> Samples:
    """The rows of some days.

    Args:
        table: As `read_record` or ``Deployment.table``.
        first: From this day on.
        last: Up to this day.
    """
    chosen = np.ones(table.size, dtype=bool)
    if first is not None:
        chosen &= table["day"] >= np.datetime64(first)
    if last is not None:
        chosen &= table["day"] <= np.datetime64(last)
    return table.take(np.flatnonzero(chosen))


def summary(table: Samples) -> Samples:
    """How often each network was trained, and how the coverage increase was distributed.

    Args:
        table: As `read_record` or ``Deployment.table``.

    Returns:
        A row for each variant and horizon: variant, horizon, days, retrained (how often), p10,
        median, p90 and largest of coverage_increase (NaN if there is no day), and the last
        total_coverage.
    """
    names = [*("variant", "horizon", "days", "retrained"), *_SUMMED]
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for variant, horizon in sorted(set(zip(*(table[n].tolist() for n in names[:2]), strict=True))):
        mine = table.take((table["variant"] == variant) & (table["horizon"] == horizon))
        mine = mine.take(np.argsort(mine["day"], kind="stable"))
        increase, last = mine["coverage_increase"], mine["total_coverage"][-1]
        numbers = [*np.quantile(increase, [0.1, 0.5, 0.9]), increase.max(), last]
        row = [variant, horizon, mine.size, int(mine["retrained"].sum()), *map(float, numbers)]
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
    kinds = dict(zip(names, (str, *[np.int64] * 3, *[np.float64] * len(_SUMMED)), strict=True))
    return Samples({name: np.array(columns[name], kind) for name, kind in kinds.items()})
