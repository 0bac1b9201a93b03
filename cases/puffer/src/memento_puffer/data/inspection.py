"""What is wrong with the files of a day: counted, not repaired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from memento.errors import DamagedError, StorageError
from memento_puffer.data.layout import NOT_MEASURED, TABLES, TIME, Table
from memento_puffer.data.schema import Day, polars

__all__ = ["Quality", "TableQuality", "inspect"]


@dataclass(frozen=True)
class TableQuality:
    """What is wrong with a table.

    Attributes:
        rows: How many rows there are in all; 0 of a file that holds a header alone.
        duplicates: Rows whose key comes again further down.
        missing: Missing values by column, of the columns that the file has.
        not_measured: Values of 2^32 - 1 by column.
        out_of_range: Other values that cannot be, by column (``time``: outside the day).
        absent: Optional columns that the file does not have.
        notes: What was read in another form than today's.
    """

    rows: int
    duplicates: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    not_measured: Mapping[str, int] = field(default_factory=dict)
    out_of_range: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quality:
    """What is wrong with a day.

    Attributes:
        tables: By kind, of the files that are there.
        absent: Kinds of which there is no file.
        unacked: Chunks sent, of which no acknowledgement came.
        unsent: Chunks acknowledged that were not sent on this day.
        unknown_experiments: Rows of video_sent whose expt_id is not in the settings (all of them
            if there are no settings).
        settings: Whether there is a file expt_settings.
    """

    tables: Mapping[str, TableQuality]
    absent: tuple[str, ...]
    unacked: int | None
    unsent: int | None
    unknown_experiments: int | None
    settings: bool = True

    def to_json(self) -> dict[str, Any]:
        """As numbers, strings, lists and dicts."""
        return asdict(self)

    def to_rows(self) -> list[tuple[str, str, int | None]]:
        """Table, what was found in it and how often; None where a note is all there is to say.

        The number of rows of each table comes first, then only what is there.
        """
        rows: list[tuple[str, str, int | None]] = []
        for kind, table in self.tables.items():
            rows.append((kind, "rows", table.rows))
            if table.duplicates:
                rows.append((kind, "duplicates", table.duplicates))
            for fault in ("missing", "not_measured", "out_of_range"):
                counts = getattr(table, fault)
                rows += [(kind, f"{fault}: {name}", count) for name, count in counts.items()]
            rows += [(kind, f"no column {name}", None) for name in table.absent]
            rows += [(kind, note, None) for note in table.notes]
            beside = {
                "video_sent": {
                    "unacked": self.unacked,
                    "unknown experiment": self.unknown_experiments,
                },
                "video_acked": {"unsent": self.unsent},
            }
            rows += [(kind, what, count) for what, count in beside.get(kind, {}).items() if count]
        rows += [(kind, "no such file", None) for kind in self.absent]
        if not self.settings:
            rows.append(("expt_settings", "no such file", None))
        return rows


def inspect(day: Day) -> Quality:
    """Count what is wrong with a day. Every table is read once or twice, none is held whole.

    Raises:
        SchemaError, DamagedError, StorageError: As ``Day.scan`` and ``Day.collect``.
    """
    pl = polars("inspecting a Puffer day")
    tables = {kind: _inspect_table(day, TABLES[kind]) for kind in TABLES if kind in day.files}
    unacked = unsent = unknown = None
    # Whoever needs the settings gets the error; for counting they may be absent.
    known: list[int] = []
    try:
        known, settings = list(day.experiments), True
    except DamagedError:
        raise
    except StorageError:
        settings = False
    if "video_sent" in day.files:
        expt = pl.col("expt_id")
        stray = expt.is_null() | ~expt.is_in(known)
        unknown = int(day.collect("video_sent", day.scan("video_sent").select(stray.sum())).item())
    if "video_sent" in day.files and "video_acked" in day.files:
        key = list(TABLES["video_sent"].key)
        sent, acked = (
            day.scan(kind).select(key).unique() for kind in ("video_sent", "video_acked")
        )
        count = pl.len()
        unacked, unsent = (
            int(day.collect(kind, a.join(b, on=key, how="anti").select(count)).item())
            for kind, a, b in (("video_sent", sent, acked), ("video_acked", acked, sent))
        )
    absent = tuple(kind for kind in TABLES if kind not in day.files and kind != "buf_video_sent")
    return Quality(tables, absent, unacked, unsent, unknown, settings)


def _inspect_table(day: Day, table: Table) -> TableQuality:
    """Count what is wrong with one table."""
    pl = polars("inspecting a Puffer day")
    found = day.names_in_file(table.kind)
    frame = day.scan(table.kind)
    counts = [pl.len().alias("rows")]
    for column in table.columns:
        if column.name not in found:
            continue
        values, name = pl.col(column.name), column.name
        counts.append(values.null_count().alias(f"missing {name}"))
        if name in ("min_rtt", "rtt"):
            counts.append((values == NOT_MEASURED).sum().alias(f"not_measured {name}"))
        wrong = []
        if name == "time" and day.span:
            start, end = day.span
            wrong.append((values < start) | (values >= end))
        elif column.least is not None:
            wrong.append(values < column.least)
        if column.most is not None:
            wrong.append(values > column.most)
        if column.kind == "float":
            wrong.append(~values.is_finite())
        if wrong:
            counts.append(pl.any_horizontal(wrong).sum().alias(f"out_of_range {name}"))
    row = day.collect(table.kind, frame.select(counts)).row(0, named=True)
    duplicates = 0
    if table.key and row["rows"]:
        distinct = frame.select(table.key).unique().select(pl.len())
        duplicates = row["rows"] - int(day.collect(table.kind, distinct).item())
    by_kind: dict[str, dict[str, int]] = {"missing": {}, "not_measured": {}, "out_of_range": {}}
    for name, count in row.items():
        if count and name != "rows":
            fault, _, column_name = name.partition(" ")
            by_kind[fault][column_name] = int(count)
    notes = [
        f"{column.name} was read from {found[column.name]!r}"
        for column in table.columns
        if found.get(column.name) not in (None, column.name, TIME)
    ]
    held = day.times_in_file(table.kind)
    notes += [f"time was read from {held}"] if held != "ns" else []
    absent = tuple(c.name for c in table.columns if c.name not in found)
    return TableQuality(row["rows"], duplicates, **by_kind, absent=absent, notes=tuple(notes))
