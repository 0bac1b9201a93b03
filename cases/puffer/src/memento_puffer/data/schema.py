"""The files of a Puffer day, in all their historical forms; their columns are those of ``layout``.

A *day* D lasts from D 11:00 to the next day 11:00 (UTC). Puffer publishes it as a folder of CSV
files and a text file that says what each experiment id stands for (the Puffer project's data
description, and Yan et al., "Learning in situ", NSDI 2020). A *session* is one page load; a
*stream* is one channel watched in it, the pair (session_id, index).

Reading is lazy, so that only the columns that are used are ever held. Nothing is dropped here; what
is wrong with a day is counted by ``inspection.inspect``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memento.days import day_of
from memento.errors import (
    DamagedError,
    ForeignError,
    SchemaError,
    SettingError,
    StorageError,
    reason_of,
)
from memento.files import atomic_write, replacing, storage_errors
from memento_puffer.data.dialects import (
    Dialect,
    dialect_of,
    polars,
    reading_errors,
    times_of,
    without_blanks,
)
from memento_puffer.data.layout import TABLES, TIME, Table

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "Day",
    "Experiment",
    "day_folders",
    "made_folder",
    "polars",
    "range_of",
    "read_experiments",
    "scheme_name",
    "start_of",
    "types_of",
    "write_day",
]

DAY = 86_400 * 10**9  # ns
_SUFFIXES = (".csv", ".csv.gz", ".parquet")
# The public releases of 2019, a month each, have no end in the names of their files.
_RANGE = re.compile(r"(\d{4}-\d{2}-\d{2})T11(?:_(\d{4}-\d{2}-\d{2})T11)?")


def types_of(kind: str) -> dict[str, Any]:
    """Polars' type of each column of a table, in the order of the file."""
    pl = polars("reading a Puffer day")
    types = {"int": pl.Int64, "float": pl.Float64, "str": pl.String}
    return {column.name: types[column.kind] for column in TABLES[kind].columns}


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


def day_folders(root: Path, day: str) -> list[Path]:
    """Folders below another that are called as a day or as its range, those that there are.

    Args:
        root: Folder of days.
        day: As 2021-10-17.

    Raises:
        SettingError: See ``range_of``.
    """
    return [folder for folder in (root / day, root / range_of(day)) if folder.is_dir()]


def start_of(day: str) -> int:
    """When a day begins, ns since the Unix epoch.

    Args:
        day: As 2021-10-17.

    Raises:
        SettingError: See ``range_of``.
    """
    range_of(day)
    return int(dt.datetime.fromisoformat(f"{day}T11:00:00+00:00").timestamp()) * 10**9


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


def scheme_name(settings: Mapping[str, Any]) -> str | None:
    """What an entry of the experiment settings calls its scheme."""
    names = ("abr_name", "abr_algorithm", "abr")
    return next((settings[name] for name in names if settings.get(name)), None)


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
    for position, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        number, rest = (*line.split(None, 1), "")[:2]
        try:
            settings = json.loads(rest)
            if not isinstance(settings, dict):
                raise ValueError("no JSON object")
            abr, cc = scheme_name(settings), settings.get("cc")
            found[int(number)] = Experiment(int(number), abr, cc, settings)
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
        return cls(next(iter(day_folders(root, name)), root), name)

    def __repr__(self) -> str:
        return f"<Day {self.name or '?'}: {', '.join(self.files)}>"

    @property
    def span(self) -> tuple[int, int] | None:
        """When the day begins and ends, ns since the Unix epoch; None without a name."""
        if self.name is None:
            return None
        start = start_of(self.name)
        return start, start + DAY

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

    def names_in_file(self, kind: str) -> dict[str, str]:
        """What the columns of a table that its file has are called there.

        Raises:
            SchemaError, DamagedError, StorageError: As ``scan``.
        """
        return self._found(kind)[1]

    def _found(self, kind: str) -> tuple[Dialect, dict[str, str]]:
        """How a file was written, and its columns by ours."""
        path, table = self.path(kind), TABLES[kind]
        dialect = dialect_of(path)
        # Row numbers of R and pandas have no name.
        names = [name for name in dialect.names if name]
        return dialect, _match_columns(path, table, names, former=_is_former(path))

    def times_in_file(self, kind: str) -> str:
        """How a file says times, see ``dialects.Dialect.times``.

        Raises:
            SchemaError, DamagedError, StorageError: As ``scan``.
        """
        dialect, found = self._found(kind)
        return dialect.times(found["time"])

    def scan(self, kind: str) -> pl.LazyFrame:
        """A table, read when it is collected.

        Columns have the names and types of ``TABLES``, whatever they were called in the file;
        optional ones that it does not have are null. SSIM in decibels becomes an index, times in
        text or in ms become ns, and empty lines at the end go. Bytes that are no UTF-8 become
        U+FFFD. In the releases of 2019, which number no streams, each channel of a session is one:
        its name follows that of the session. ``collect`` gets what is asked for with errors that
        name the file.

        Raises:
            SchemaError: Columns that are missing or unknown.
            DamagedError: A file without a header, or with a last line that was cut off.
            StorageError: The file is not there or cannot be opened.
        """
        pl = polars("reading a Puffer day")
        path, types = self.path(kind), types_of(kind)
        dialect, found = self._found(kind)
        held = dialect.times(found["time"])
        if path.name.endswith(".parquet"):
            frame = pl.scan_parquet(path)
        else:
            overrides = {found[name]: kind for name, kind in types.items() if name in found}
            if held != "ns":
                overrides[found["time"]] = pl.String if held == "ISO" else pl.Float64
            frame = pl.scan_csv(path, schema_overrides=overrides, encoding="utf8-lossy")
            frame = without_blanks(frame) if dialect.blank else frame
        parts = []
        for name, kind_of_values in types.items():
            part = pl.lit(None, dtype=kind_of_values)
            if name == "time":
                part = times_of(found[name], held)
            elif name in found:
                part = pl.col(found[name]).cast(kind_of_values)
                if found[name] == "ssim":
                    part = 1.0 - pl.lit(10.0).pow(-part / 10.0)
                if name == "session_id" and "index" not in found:
                    part = pl.concat_str(part, pl.col(found["channel"]), separator="/")
            elif name == "index":
                part = pl.lit(0, dtype=kind_of_values)
            parts.append(part.alias(name))
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
        with reading_errors(self.path(kind)):
            return frame.collect(engine="streaming")

    def read(self, kind: str) -> pl.DataFrame:
        """A whole table; see ``scan`` and ``collect``."""
        return self.collect(kind, self.scan(kind))


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
    ready = {}
    for kind, frame in tables.items():
        lazy = frame.lazy()
        names = lazy.collect_schema().names()
        _match_columns(f"the table {kind}", TABLES[kind], names, own_names=True)
        ready[kind] = lazy.select(
            pl.col(name).cast(values).alias(TIME if name == "time" else name)
            for name, values in types_of(kind).items()
            if name in names
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
    """Write a table as Parquet, CSV or packed CSV, as the file's name says.

    Raises:
        SchemaError: A column has another type than its file asks for.
    """
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
        raise SchemaError(f"{path.name}: {reason_of(error)}; see TABLES for types") from error


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
    if match is None or match[2]:
        return kind, match and match.group()
    return kind, range_of(match[1])


def _is_former(path: Path) -> bool:
    """Whether a file is one of the public releases of 2019, by its name."""
    match = _RANGE.search(path.name)
    return match is not None and match[2] is None


def _match_columns(
    where: str | Path,
    table: Table,
    names: list[str],
    own_names: bool = False,
    former: bool = False,
) -> dict[str, str]:
    """What each column of a table is called in a file.

    Args:
        where: The file, for messages.
        table: What it should be.
        names: What its header says.
        own_names: Whether today's names alone are allowed.
        former: Whether it is of 2019, when streams had no number.
    """
    found = {}
    for column in table.columns:
        allowed = (column.name,) if own_names else (column.name, *column.aliases)
        present = [name for name in allowed if name in names]
        if len(present) > 1 or any(names.count(name) > 1 for name in present):
            raise SchemaError(f"{where}: columns {present} say the same; keep one of them")
        if present:
            found[column.name] = present[0]
        elif not (column.optional or (former and column.name == "index")):
            raise SchemaError(
                f"{where}: no column {TIME if column.name == 'time' else column.name!r} among "
                f"{names}; a {table.kind} file has it"
            )
    unknown = sorted(set(names) - set(found.values()))
    if unknown:
        raise SchemaError(
            f"{where}: unknown columns {unknown}; a {table.kind} file has "
            f"{list(table.names)}: rename or remove them"
        )
    return found
