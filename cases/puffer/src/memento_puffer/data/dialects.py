"""How a file of a day was written: Puffer's own CSV, or what became of it when it was saved again.

Spreadsheets, R and pandas write times as text or in other units, number rows in a column without a
name, quote names, and leave empty lines at the end. All of it is read as if it had not happened.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memento.errors import DamagedError, MementoError, StorageError, needs, reason_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Dialect", "dialect_of", "polars", "reading_errors", "times_of", "without_blanks"]

_TAIL = 1 << 16  # bytes of a file's end that are looked at, and the longest line of a header
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
_UTC = r"\s*(Z|UTC|[+-]00(:?00)?)$"
# What times of these millennia are in each unit, and how many ns it has.
_UNITS = {"ms": (10**12, 10**14, 10**6), "us": (10**15, 10**17, 10**3)}


@dataclass(frozen=True)
class Dialect:
    """How a file was written.

    Attributes:
        names: Of the columns, as in its header; "" for numbers of rows.
        first: Values of the first row, as text; none if there is none.
        blank: Whether lines at the end may be empty; of packed files it is not known.
    """

    names: tuple[str, ...]
    first: tuple[str, ...] = ()
    blank: bool = False

    def times(self, name: str) -> str:
        """What a column of times holds: "ns", "us" or "ms", with "float " before it, or "ISO".

        Example:
            >>> Dialect(("t",), ("1634468400123",)).times("t")
            'ms'
            >>> Dialect(("t",), ("1.6344684001e+18",)).times("t")
            'float ns'
        """
        value = self.first[self.names.index(name)] if self.first else ""
        if _ISO.match(value):
            return "ISO"
        kind, number = "", 0.0
        with contextlib.suppress(ValueError):
            number = float(value)
            kind = "" if re.fullmatch(r"[+-]?\d+", value) else "float "
        fits = (unit for unit, (least, most, _) in _UNITS.items() if least <= number < most)
        return kind + next(fits, "ns")


def times_of(name: str, held: str) -> pl.Expr:
    """Times in ns since the Unix epoch.

    Args:
        name: Of the column: text or times of "ISO", otherwise numbers.
        held: What it holds, see `Dialect.times`.
    """
    pl = polars("reading a Puffer day")
    column = pl.col(name)
    if held == "ISO":
        text = column.cast(pl.String).str.replace(_UTC, "").str.replace(r"^(\S{10})T", "$1 ")
        return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns").cast(pl.Int64)
    *rounded, unit = held.split()
    factor = _UNITS[unit][2] if unit in _UNITS else 1
    if rounded:  # with 53 bits no nanosecond is known, and Puffer's clock has milliseconds
        return (column * (factor / 1000)).round().cast(pl.Int64) * 1000
    return column.cast(pl.Int64) * factor


def without_blanks(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Rows that hold anything."""
    pl = polars("reading a Puffer day")
    return frame.filter(pl.any_horizontal(pl.all().is_not_null()))


def dialect_of(path: Path) -> Dialect:
    """How a file of CSV, packed CSV or Parquet was written.

    Raises:
        DamagedError: A file without a header, or with a last line that was cut off.
        StorageError: It cannot be read.
    """
    with reading_errors(path):
        if path.name.endswith(".parquet"):
            head = polars("reading Parquet").scan_parquet(path).head(1).collect()
            return Dialect(tuple(head.columns), tuple(str(v) for row in head.rows() for v in row))
        packed = path.name.endswith(".gz")
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            header = file.readline(_TAIL)
            rows: Iterator[bytes] = iter(lambda: file.readline(_TAIL), b"")
            first = next((row for row in rows if row.strip()), b"")
            blank = packed or _blank_end(path, file, header)
    names = _values(header.strip().removeprefix(b"\xef\xbb\xbf"))
    if not header.strip():
        raise DamagedError(f"{path}: empty, not even a header; fetch it again")
    values = _values(first.strip())
    return Dialect(names, values if len(values) == len(names) else (), blank)


def _values(line: bytes) -> tuple[str, ...]:
    text = line.decode("utf-8", errors="replace")
    return tuple(value.strip() for value in next(csv.reader([text]), []))


def _blank_end(path: Path, file: Any, header: bytes) -> bool:
    """Whether the last line is empty.

    Raises:
        DamagedError: It has fewer values than the header: the rest would read as missing.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    ended = tail.endswith(b"\n")
    last = (tail[:-1] if ended else tail).rpartition(b"\n")[2]
    if not last.strip():
        return size > len(header)
    if not ended and size > len(header) and last.count(b",") < header.count(b","):
        raise DamagedError(
            f"{path}: the last line is cut off ({last[:60].decode(errors='replace')!r}); "
            "fetch the file again"
        )
    return False


# ------------------------------------------------------------------------------------------ errors


def polars(purpose: str) -> Any:
    """The package polars, or an error that says how to get it.

    Raises:
        MissingExtraError: It is not installed.
    """
    with needs("polars", "telemetry", purpose):
        import polars as pl
    return pl


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn whatever reading raises into our errors, with the file."""
    pl = polars("reading a Puffer day")
    try:
        yield
    except MementoError:
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{path}: no such file; check the path") from error
    except (pl.exceptions.PolarsError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"{path}: {reason_of(error)}; fetch the file again") from error
    except OSError as error:
        if error.errno is None:  # of the decompression, not of the system
            raise DamagedError(f"{path}: {reason_of(error)}; fetch the file again") from error
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check it") from error
