"""The files of a Puffer day: every table with its columns, units and historical forms.

A *day* D lasts from D 11:00 to the next day 11:00 (UTC). Puffer publishes it as a folder of CSV
files and a text file that says what each experiment id stands for (the Puffer project's data
description, and Yan et al., "Learning in situ", NSDI 2020). A *session* is one page load; a
*stream* is one channel watched in it, the pair (session_id, index).

Reading is lazy, so that only the columns that are used are ever held. What is wrong with a day is
counted by ``inspect``; nothing is dropped here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memento.days import day_of
from memento.errors import (
    DamagedError,
    ForeignError,
    MementoError,
    MissingExtraError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import atomic_write, replacing, storage_errors

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "NOT_MEASURED",
    "TABLES",
    "Column",
    "Day",
    "Experiment",
    "Quality",
    "Table",
    "TableQuality",
    "inspect",
    "made_folder",
    "polars",
    "range_of",
    "read_experiments",
    "write_day",
]

# What TCP says of a round-trip time that it has no sample of yet: 2^32 - 1 microseconds.
NOT_MEASURED = 4294967295


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: What it is called here.
        kind: "int", "float" or "str".
        unit: Its unit, empty for names and counts of nothing.
        meaning: What it says.
        optional: Whether it came later than the table, so that old files do without it.
        may_miss: Whether single values may be missing.
        least, most: Values outside are counted as out of range.
        aliases: What it was called elsewhere or before.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    optional: bool = False
    may_miss: bool = True
    least: float | None = None
    most: float | None = None
    aliases: tuple[str, ...] = ()


def _when(meaning: str) -> Column:
    return Column(
        "time", "int", "ns", f"since the Unix epoch: {meaning}", False, False, 0, None, (_TIME,)
    )


_TIME = "time (ns GMT)"
_VIEWER = (
    Column("session_id", "str", "", "32 random bytes in base64", may_miss=False),
    Column("index", "int", "", "stream within the session", may_miss=False, least=0),
    Column("expt_id", "int", "", "key into expt_settings", least=0),
    Column("channel", "str", "", "TV station"),
)
_VIDEO_TS = Column(
    "video_ts", "int", "1/90000 s", "presentation time; +180180 a chunk", may_miss=False, least=0
)
_FORMAT = Column("format", "str", "", "width x height - constant rate factor")
_SIZE = Column("size", "int", "bytes", "of the media segment", least=1)
# Very early files have SSIM in decibels, in a column of another name.
_SSIM = Column("ssim_index", "float", "", "against the canonical source", least=-1, most=1)
_TCP = (
    Column("cwnd", "int", "packets", "congestion window", least=0),
    Column("in_flight", "int", "packets", "unacknowledged, not sacked, not lost, or resent"),
    Column("min_rtt", "int", "us", "least round-trip time; 2^32 - 1 if not measured yet", least=0),
    Column("rtt", "int", "us", "smoothed round-trip time", least=0),
    Column("delivery_rate", "int", "bytes/s", "as TCP estimates it", least=0),
)
_BUFFER = Column("buffer", "float", "s", "video held by the client, as last reported", least=0)
_STALLED = Column(
    "cum_rebuf", "float", "s", "stalled so far, with the startup delay", least=0,
    aliases=("cum_rebuffer",),
)  # fmt: skip
_LATER = tuple(
    Column(c.name, c.kind, c.unit, c.meaning, True, True, c.least, c.most, c.aliases)
    for c in (_BUFFER, _STALLED)
)


@dataclass(frozen=True)
class Table:
    """A kind of file.

    Args:
        kind: The first part of the file's name.
        row: What a row is.
        columns: In the order of the file.
        key: What tells rows apart; of rows with equal keys the last one counts.
    """

    kind: str
    row: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()


_CHUNK = ("session_id", "index", "video_ts")
_ENCODED = ("time", "channel", "video_ts", "format")
_LATE_VIEWER = tuple(
    Column(c.name, c.kind, c.unit, c.meaning, c.name in ("expt_id", "channel"), c.may_miss, c.least)
    for c in _VIEWER
)
TABLES: dict[str, Table] = {
    table.kind: table
    for table in (
        Table(
            "video_sent",
            "a chunk of video that was sent; TCP's state just before choosing it",
            (_when("sent"), *_VIEWER, _VIDEO_TS, _FORMAT, _SIZE, _SSIM, *_TCP, *_LATER),
            _CHUNK,
        ),
        Table(
            "video_acked",
            "an acknowledgement by the client",
            (_when("reached the server"), *_VIEWER, _VIDEO_TS, *_LATER),
            _CHUNK,
        ),
        Table(
            "client_buffer",
            "a message of the client about its player",
            (
                _when("reached the server"),
                *_VIEWER,
                Column(
                    "event", "str", "", "init, startup, rebuffer, play or timer", may_miss=False
                ),
                _BUFFER,
                _STALLED,
            ),
        ),
        Table(
            "video_size",
            "an encoded chunk",
            (_when("encoded"), _FORMAT, Column("channel", "str", "", "TV station"), _VIDEO_TS,
             _SIZE),
            _ENCODED,
        ),
        Table(
            "ssim",
            "an encoded chunk",
            (_when("encoded"), _FORMAT, Column("channel", "str", "", "TV station"), _VIDEO_TS,
             _SSIM),
            _ENCODED,
        ),
        Table(
            "buf_video_sent",
            "a chunk of video that was sent, with the client's state; only before 2021-06-12",
            (_when("sent"), *_LATE_VIEWER, _VIDEO_TS, _BUFFER, _STALLED),
            _CHUNK,
        ),
    )
}  # fmt: skip
_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_RANGE = re.compile(r"(\d{4}-\d{2}-\d{2})T11_(\d{4}-\d{2}-\d{2})T11")


def polars(purpose: str) -> Any:
    """The package polars, or an error that says how to get it.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError("polars", "telemetry", purpose) from error
    return pl


def range_of(day: str) -> str:
    """What the files of a day have in their names.

    Args:
        day: As 2021-10-17.

    Raises:
        SettingError: There is no such day, or it is written in another way.

    Example:
        >>> range_of("2022-02-28")
        '2022-02-28T11_2022-03-01T11'
    """
    first = day_of(day)
    return f"{first}T11_{first + dt.timedelta(days=1)}T11"


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """A folder that is there inside a ``with`` block, and afterwards if the block succeeds.

    If it fails, those of the folders made for it that are still empty are removed again.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> with contextlib.suppress(KeyError), made_folder(root / "a" / "b"):
        ...     raise KeyError
        >>> list(root.iterdir())
        []
    """
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in absent:
            with contextlib.suppress(OSError):  # not empty: somebody else's, or worth keeping
                place.rmdir()
        raise


@dataclass(frozen=True)
class Experiment:
    """What an experiment id stands for.

    Attributes:
        number: The id.
        abr: Name of the scheme that chose the qualities; None if the entry names none.
        cc: Congestion control; None in the oldest entries.
        settings: The whole entry.
    """

    number: int
    abr: str | None
    cc: str | None
    settings: Mapping[str, Any] = field(repr=False)


def read_experiments(path: str | Path) -> dict[int, Experiment]:
    r"""Read an ``expt_settings`` file: an id, a space and a JSON object on each line.

    The scheme is called by the first of ``abr_name``, ``abr_algorithm`` and ``abr``. Of lines with
    equal ids the last one counts.

    Raises:
        DamagedError: A line of another form.
        StorageError: The file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "expt_settings"
        >>> _ = path.write_text('7 {"abr_algorithm": "mpc"}\n9 {"abr": "bba", "cc": "bbr"}\n')
        >>> read_experiments(path)
        {7: Experiment(number=7, abr='mpc', cc=None), 9: Experiment(number=9, abr='bba', cc='bbr')}
    """
    path = Path(path)
    with storage_errors("read the experiment settings", path):
        data = path.read_bytes()
    found: dict[int, Experiment] = {}
    for position, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        number, _, rest = line.strip().partition(" ")
        try:
            settings = json.loads(rest)
            if not isinstance(settings, dict):
                raise ValueError("no JSON object")
            abr = next(
                (settings[k] for k in ("abr_name", "abr_algorithm", "abr") if settings.get(k)), None
            )
            found[int(number)] = Experiment(int(number), abr, settings.get("cc"), settings)
        except ValueError as error:
            raise DamagedError(
                f"{path}, line {position}: {line[:60]!r} is not an id and a JSON object ({error}); "
                "fetch the file again"
            ) from error
    return found


class Day:
    """The folder of a day, as it was published or written by ``write_day``.

    Files are ``<kind>_<range>.csv``, or with ``.csv.gz`` or ``.parquet``; the experiment settings
    are ``logs/expt_settings`` or ``expt_settings``.

    Args:
        folder: Where the files are.
        name: Which day, as 2021-10-17; needed if the folder holds several.

    Attributes:
        folder: As given.
        name: The day; None if the names of the files do not say.
        files: Path of each kind of table that is there.

    Raises:
        StorageError: No such folder, or no file of a day in it.
        ForeignError: Several days, or a table twice.
        SettingError: A day that does not exist.
    """

    def __init__(self, folder: str | Path, name: str | None = None) -> None:
        self.folder = Path(folder)
        wanted = range_of(name) if name is not None else None
        if not self.folder.is_dir():
            raise StorageError(f"{self.folder}: no such folder; check the path of the day")
        ranges: set[str] = set()
        self.files: dict[str, Path] = {}
        for path in sorted(self.folder.iterdir()):
            kind, span = _kind_of(path.name)
            if kind is None or (wanted and span and span != wanted):
                continue
            if span:
                ranges.add(span)
            if len(ranges) > 1:
                raise ForeignError(
                    f"{self.folder}: files of several days ({', '.join(sorted(ranges))}); "
                    "say which day, or give each its folder"
                )
            if kind in self.files:
                raise ForeignError(
                    f"{self.folder}: {self.files[kind].name} and {path.name} are the same table; "
                    "keep one of them"
                )
            self.files[kind] = path
        if not self.files:
            raise StorageError(
                f"{self.folder}: no file of {wanted or 'a day'}; expected such as "
                f"video_sent_{wanted or range_of('2021-10-17')}.csv (or .csv.gz, .parquet)"
            )
        self.name = next(iter(ranges))[:10] if ranges else name
        if self.name is not None:
            range_of(self.name)

    @classmethod
    def find(cls, root: str | Path, name: str) -> Day:
        """A day among others: in a folder called as the day or its range, or in ``root`` itself.

        Args:
            root: For example what ``download`` or ``simulate`` made, or a folder with files put
                there by hand.
            name: Which day, as 2021-10-17.

        Raises:
            SettingError: A day that does not exist.
            StorageError: No such folder, or no file of that day.
            ForeignError: A table twice.
        """
        root = Path(root)
        for folder in (root / name, root / range_of(name)):
            if folder.is_dir():
                return cls(folder, name)
        return cls(root, name)

    def __repr__(self) -> str:
        return f"<Day {self.name or '?'}: {', '.join(self.files)}>"

    @property
    def span(self) -> tuple[int, int] | None:
        """When the day begins and ends, ns since the Unix epoch; None without a name."""
        if self.name is None:
            return None
        first = dt.datetime.fromisoformat(f"{self.name}T11:00:00+00:00")
        start = int(first.timestamp()) * 10**9
        return start, start + 86_400 * 10**9

    def path(self, kind: str) -> Path:
        """The file of a table.

        Raises:
            SettingError: There is no such kind of table.
            StorageError: The day has no such file.
        """
        if kind not in TABLES:
            raise SettingError(f"table {kind!r}; give one of {', '.join(TABLES)}")
        if kind not in self.files:
            span = range_of(self.name) if self.name else "<range>"
            raise StorageError(
                f"{self.folder}: no {kind}_{span}.csv among {sorted(self.files)}; "
                "fetch it and put it into the folder"
            )
        return self.files[kind]

    @cached_property
    def experiments(self) -> dict[int, Experiment]:
        """The experiments by their ids; see ``read_experiments``.

        Raises:
            StorageError: There is no file expt_settings.
            DamagedError: It has lines of another form.
        """
        places = (self.folder / "logs" / "expt_settings", self.folder / "expt_settings")
        for place in places:
            if place.is_file():
                return read_experiments(place)
        raise StorageError(
            f"{self.folder}: no logs/expt_settings, which says what scheme each expt_id is; "
            "fetch it and put it there"
        )

    def scan(self, kind: str) -> pl.LazyFrame:
        """A table, read when it is collected.

        Columns have the names and types of ``TABLES``, whatever they were called in the file;
        optional ones that it does not have are null. SSIM in decibels becomes an index.
        ``collect`` gets what is asked for with errors that name the file.

        Raises:
            SchemaError: Columns that are missing or unknown.
            DamagedError: A file without a header, or with a last line that was cut off.
            StorageError: The file is not there or cannot be opened.
        """
        pl = polars("reading a Puffer day")
        path, table = self.path(kind), TABLES[kind]
        names = _names_of(path)
        columns = _match(path, table, names)
        types = {"int": pl.Int64, "float": pl.Float64, "str": pl.String}
        if path.name.endswith(".parquet"):
            frame = pl.scan_parquet(path)
        else:
            overrides = dict.fromkeys(names, pl.Float64)
            overrides |= {
                columns[c.name]: types[c.kind] for c in table.columns if c.name in columns
            }
            if columns.get("ssim_index") == "ssim":
                overrides["ssim"] = pl.Float64
            frame = pl.scan_csv(path, schema_overrides=overrides)
        parts = []
        for column in table.columns:
            if column.name not in columns:
                part = pl.lit(None, dtype=types[column.kind])
            else:
                part = pl.col(columns[column.name]).cast(types[column.kind])
                if columns[column.name] == "ssim":
                    part = 1.0 - pl.lit(10.0).pow(-part / 10.0)
            parts.append(part.alias(column.name))
        return frame.select(parts)

    def collect(self, kind: str, frame: pl.LazyFrame) -> pl.DataFrame:
        """Compute what was asked of a table.

        Args:
            kind: The table it was scanned from, for error messages.
            frame: Derived from ``scan(kind)``.

        Raises:
            DamagedError: The file holds something else than its columns say, or is cut off.
            StorageError: It cannot be read.
        """
        with _reading(self.path(kind)):
            return frame.collect(engine="streaming")

    def read(self, kind: str) -> pl.DataFrame:
        """A whole table; see ``scan`` and ``collect``."""
        return self.collect(kind, self.scan(kind))


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
            own = {
                "video_sent": {
                    "unacked": self.unacked,
                    "unknown experiment": self.unknown_experiments,
                },
                "video_acked": {"unsent": self.unsent},
            }
            rows += [(kind, what, count) for what, count in own.get(kind, {}).items() if count]
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
        sent, acked = (
            day.scan(kind).select(_CHUNK).unique() for kind in ("video_sent", "video_acked")
        )
        count = pl.len()
        unacked, unsent = (
            int(day.collect(kind, a.join(b, on=list(_CHUNK), how="anti").select(count)).item())
            for kind, a, b in (("video_sent", sent, acked), ("video_acked", acked, sent))
        )
    absent = tuple(kind for kind in TABLES if kind not in day.files and kind != "buf_video_sent")
    return Quality(tables, absent, unacked, unsent, unknown, settings)


def _inspect_table(day: Day, table: Table) -> TableQuality:
    pl = polars("inspecting a Puffer day")
    path = day.path(table.kind)
    found = _match(path, table, _names_of(path))
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
        if found.get(column.name) not in (None, column.name, _TIME)
    ]
    absent = tuple(c.name for c in table.columns if c.name not in found)
    return TableQuality(row["rows"], duplicates, **by_kind, absent=absent, notes=tuple(notes))


def write_day(
    folder: str | Path,
    day: str,
    tables: Mapping[str, pl.DataFrame | pl.LazyFrame],
    experiments: Mapping[int, Mapping[str, Any]] | None = None,
    *,
    form: str = "csv",
) -> Day:
    """Write a day in the form in which Puffer publishes it.

    Each file is whole or absent. Files of the same names are replaced.

    Args:
        folder: Made if it is not there.
        day: As 2021-10-17.
        tables: By kind, with the columns of ``TABLES``; optional ones may be left out.
        experiments: Settings by id, written to logs/expt_settings.
        form: "csv", "csv.gz" or "parquet".

    Raises:
        SettingError: Another form, an unknown kind of table, a day that does not exist.
        SchemaError: Columns that are missing, unknown or of another type.
        SpaceError: The disk is full.
        StorageError: Anything else that the file system refuses.

    Example:
        >>> import polars as pl, tempfile
        >>> row = {
        ...     "time": [5],
        ...     "session_id": ["x"],
        ...     "index": [0],
        ...     "expt_id": [1],
        ...     "channel": ["abc"],
        ...     "video_ts": [0],
        ... }
        >>> day = write_day(tempfile.mkdtemp(), "2021-01-02", {"video_acked": pl.DataFrame(row)})
        >>> print(day.files["video_acked"].read_text().strip())
        time (ns GMT),session_id,index,expt_id,channel,video_ts
        5,x,0,1,abc,0
    """
    pl = polars("writing a Puffer day")
    folder, span = Path(folder), range_of(day)
    if f".{form}" not in _SUFFIXES:
        raise SettingError(f"form={form!r}; give csv, csv.gz or parquet")
    unknown = sorted(set(tables) - set(TABLES))
    if unknown:
        raise SettingError(f"table {unknown[0]!r}; give some of {', '.join(TABLES)}")
    types = {"int": pl.Int64, "float": pl.Float64, "str": pl.String}
    ready = {}
    for kind, frame in tables.items():
        lazy = frame.lazy()
        names = lazy.collect_schema().names()
        _match(f"the table {kind}", TABLES[kind], names, own_names=True)
        ready[kind] = lazy.select(
            pl.col(c.name).cast(types[c.kind]).alias(_TIME if c.name == "time" else c.name)
            for c in TABLES[kind].columns
            if c.name in names
        )
    with storage_errors("write the day", folder), made_folder(folder):
        for kind, lazy in ready.items():
            _write_table(folder / f"{kind}_{span}.{form}", lazy)
        if experiments is not None:
            (folder / "logs").mkdir(exist_ok=True)
            lines = (f"{number} {json.dumps(dict(e))}\n" for number, e in experiments.items())
            atomic_write(folder / "logs" / "expt_settings", "".join(lines).encode())
    return Day(folder, day)


def _write_table(path: Path, frame: pl.LazyFrame) -> None:
    pl = polars("writing a Puffer day")
    packed = path.name.endswith(".gz")
    try:
        with replacing(path) as temporary:
            if path.name.endswith(".parquet"):
                frame.sink_parquet(temporary)
            else:
                frame.sink_csv(
                    temporary,
                    compression="gzip" if packed else "uncompressed",
                    check_extension=False,
                )
    except pl.exceptions.PolarsError as error:
        raise SchemaError(f"{path.name}: {_first_line(error)}; see TABLES for types") from error


def _kind_of(file_name: str) -> tuple[str | None, str | None]:
    """Kind of table and range of a file by its name; None if it is none of ours."""
    suffix = next((s for s in reversed(_SUFFIXES) if file_name.endswith(s)), None)
    if suffix is None or file_name.startswith("."):
        return None, None
    stem = file_name.removesuffix(suffix)
    match = _RANGE.search(stem)
    kind = stem[: match.start()].rstrip("_") if match else stem
    if kind not in TABLES or (match and match.end() != len(stem)):
        return None, None
    return kind, match.group() if match else None


def _names_of(path: Path) -> list[str]:
    """The names in a file's header."""
    if path.name.endswith(".parquet"):
        with _reading(path):
            return list(polars("reading Parquet").scan_parquet(path).collect_schema().names())
    with _reading(path):
        packed = path.name.endswith(".gz")
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            header = file.readline(1 << 16)
            if not packed:
                _check_end(path, file, header)
    names = header.decode("utf-8", errors="replace").strip().lstrip("\ufeff").split(",")
    if names == [""]:
        raise DamagedError(f"{path}: empty, not even a header; fetch it again")
    return [name.strip().strip('"') for name in names]


def _check_end(path: Path, file: Any, header: bytes) -> None:
    """Refuse a last line with fewer values than the header: the rest would read as missing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - (1 << 16)))
    tail = file.read()
    if tail and not tail.endswith(b"\n") and size > len(header):
        last = tail.rpartition(b"\n")[2]
        if last.count(b",") < header.count(b","):
            raise DamagedError(
                f"{path}: the last line is cut off ({last[:60].decode(errors='replace')!r}); "
                "fetch the file again"
            )


def _match(
    where: str | Path, table: Table, names: list[str], own_names: bool = False
) -> dict[str, str]:
    """What each column of a table is called in a file.

    Args:
        where: The file, for messages.
        table: What it should be.
        names: What its header says.
        own_names: Whether today's names alone are allowed.
    """
    found = {}
    for column in table.columns:
        allowed = (column.name,) if own_names else (column.name, *column.aliases)
        if column.name == "ssim_index" and not own_names:
            allowed += ("ssim",)
        present = [name for name in allowed if name in names]
        if len(present) > 1 or any(names.count(name) > 1 for name in present):
            raise SchemaError(f"{where}: columns {present} say the same; keep one of them")
        if present:
            found[column.name] = present[0]
        elif not column.optional:
            raise SchemaError(
                f"{where}: no column {_TIME if column.name == 'time' else column.name!r} among "
                f"{names}; a {table.kind} file has it"
            )
    unknown = sorted(set(names) - set(found.values()))
    if unknown:
        raise SchemaError(
            f"{where}: unknown columns {unknown}; a {table.kind} file has "
            f"{[c.name for c in table.columns]}: rename or remove them"
        )
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever reading raises into our errors, with the file."""
    pl = polars("reading a Puffer day")
    try:
        yield
    except MementoError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{path}: no such file; check the path") from error
    except (pl.exceptions.PolarsError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"{path}: {_first_line(error)}; fetch the file again") from error
    except OSError as error:
        if error.errno is None:  # of the decompression, not of the system
            raise DamagedError(f"{path}: {_first_line(error)}; fetch the file again") from error
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check it") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
