"""Delimited text as people have it: separators, encodings, line breaks in quotes, decimal commas.

pyarrow reads it. What it would change on the way is found here and read again, or refused: large
integers that it takes for floats, times of day, texts in another encoding.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from memento import arrow
from memento.errors import ColumnTypeError, SchemaError

__all__ = ["EXPANSION", "LARGE", "Header", "columns_of", "header_of"]

_SEPARATORS = (",", ";", "\t", "|")
_SAMPLE = 1 << 16
_BLOCK = 1 << 20
_LARGEST_BLOCK = 1 << 30
# A compressed file may hold so many times its own size, once it holds more than `LARGE`.
EXPANSION, LARGE = 100, 2 << 30
_DECIMAL_COMMA = r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$"
_THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})*$"


@dataclass(frozen=True)
class Header:
    """What the first lines of a file tell.

    Attributes:
        names: Of the columns, in order.
        separator: One character.
        encoding: As Python calls it.
        size: Bytes that are enough for the line of names.
    """

    names: list[str]
    separator: str
    encoding: str
    size: int


def header_of(file: Path, separator: str | None, encoding: str | None) -> Header:
    """Names of the columns, and how the file is written.

    Args:
        file: Compressed if its name ends in ``.gz``.
        separator: Found if left out: the tab of ``.tsv``, else what cuts the first lines into
            equally many fields.
        encoding: Found if left out: UTF-8, or UTF-16 with its mark.

    Raises:
        SchemaError: The text is in another encoding, or the separator cannot be told.
    """
    size = _SAMPLE
    while True:
        with _opened(file) as opened:
            data = opened.read(size)
        ended = len(data) < size
        coding = _encoding(data, encoding)
        text = _decoded(data, coding, ended)
        by_name = "\t" if ".tsv" in file.name.lower() else None
        used = separator or by_name or _sniffed(text, ended)
        names = _first_record(text, used, ended)
        if names is not None:
            break
        size *= 8
    if len(names) == 1 and separator is None:
        other = [mark for mark in _SEPARATORS if mark in names[0] and mark != used]
        if other:
            raise SchemaError(
                f"the first line is {names[0][:60]!r}, and the lines cannot be cut into columns of "
                f"one number by any separator; name it, as in --separator {other[0]!r}"
            )
    return Header(names, used, coding, size)


def columns_of(
    file: Path, header: Header, wanted: Sequence[str], types: Mapping[str, Any]
) -> dict[str, Any]:
    """Columns as arrays of pyarrow.

    Args:
        file: The file.
        header: What `header_of` found.
        wanted: Names of columns, none twice.
        types: Types of pyarrow for some of them; others are told from their values.

    Raises:
        SchemaError: Text in another encoding, or values that no type keeps.
    """

    def read(names: Sequence[str], kinds: Mapping[str, Any]) -> Any:
        return _read(file, header, names, kinds)

    table = read(wanted, types)
    columns = {name: table.column(name) for name in wanted}
    again = [name for name in wanted if name not in types and _doubtful(columns[name])]
    if again:
        text = arrow.import_arrow("reading CSV").large_string()
        texts = read(again, dict.fromkeys(again, text))
        columns |= {name: _told(name, columns[name], texts.column(name)) for name in again}
    for name in wanted:
        kind = str(columns[name].type)
        if kind == "binary" and name not in types:
            raise SchemaError(
                f"column {name!r} holds text that is not {header.encoding.upper()}; name its "
                "encoding, as in --encoding latin-1"
            )
        if kind == "string" and name not in types and header.separator != ",":
            columns[name] = _with_points(name, columns[name])
    return columns


# --- the first lines -------------------------------------------------------------------------


def _opened(file: Path) -> IO[bytes] | gzip.GzipFile:
    if file.name.lower().endswith(".gz"):
        return gzip.open(file, "rb")
    return file.open("rb")


def _encoding(data: bytes, given: str | None) -> str:
    if given is not None:
        return given
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in data[:4096]:
        raise SchemaError(
            "the text has zero bytes; if it is UTF-16 without a mark, read it with "
            "--encoding utf-16-le"
        )
    return "utf-8"


def _decoded(data: bytes, encoding: str, ended: bool) -> str:
    text = codecs.getincrementaldecoder(encoding)("replace").decode(data, final=ended)
    return text.removeprefix("\ufeff")


def _records(text: str, separator: str) -> list[list[str]] | None:
    """Lines cut into fields, without blank ones; None if that fails."""
    try:
        return [
            record for record in csv.reader(io.StringIO(text, ""), delimiter=separator) if record
        ]
    except csv.Error:
        return None


def _sniffed(text: str, ended: bool) -> str:
    """The separator that cuts the first lines into most fields, as many in each."""
    widths = {}
    for separator in _SEPARATORS:
        records = _records(text, separator) or []
        records = records if ended else records[:-1]
        if records and len(records[0]) > 1 and len({len(record) for record in records[:50]}) == 1:
            widths[separator] = len(records[0])
    return max(widths, key=lambda separator: widths[separator], default=",")


def _first_record(text: str, separator: str, ended: bool) -> list[str] | None:
    """Names; None if the text ends before them."""
    lines = csv.reader(io.StringIO(text, ""), delimiter=separator)
    try:
        record = next((record for record in lines if record), [])
        complete = ended or next(lines, None) is not None
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if "\ufffd" in "".join(record):
        raise SchemaError("the first line is not UTF-8; name its encoding: --encoding latin-1")
    return record if complete else None


# --- pyarrow ---------------------------------------------------------------------------------


class _Limited(io.RawIOBase):
    """What a compressed file holds, refused once that is out of all proportion."""

    def __init__(self, file: Path) -> None:
        self._inner, self._read = _opened(file), 0
        self._limit = max(LARGE, EXPANSION * file.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        self._read += len(data)
        if self._read > self._limit:
            raise SchemaError(
                f"the file holds more than {self._limit / 1e9:,.1f} GB, over {EXPANSION} times its "
                "size; unpack it first"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _read(file: Path, header: Header, names: Sequence[str], types: Mapping[str, Any]) -> Any:
    """Columns of a delimited file as an Arrow table, in blocks that its longest line fits into."""
    from pyarrow import csv as arrow_csv

    parsing = arrow_csv.ParseOptions(delimiter=header.separator, newlines_in_values=True)
    converting = arrow_csv.ConvertOptions(
        include_columns=list(names) if len(names) < len(header.names) else None,
        column_types=dict(types),
    )
    block = max(_BLOCK, header.size)
    while True:  # a line has to fit into a block
        reading = arrow_csv.ReadOptions(
            block_size=block,
            encoding="utf8" if header.encoding.lower() == "utf-8" else header.encoding,
        )
        zipped = file.name.lower().endswith(".gz")
        source = _Limited(file) if zipped else os.fspath(file)
        try:
            return arrow_csv.read_csv(source, reading, parsing, converting)
        except ValueError as error:
            if "column #" in str(error).lower() and "conversion error" in str(error):
                raise SchemaError(f"{str(error).splitlines()[0]}; see --types") from error
            if "straddling" not in str(error) or block >= _LARGEST_BLOCK:
                raise
            block *= 8
        finally:
            if isinstance(source, _Limited):
                source.close()


def _doubtful(column: Any) -> bool:
    """Whether pyarrow may have changed values: integers to floats, texts to times of day."""
    kind = str(column.type)
    if kind.startswith(("time32", "time64")):
        return True
    if kind != "double":
        return False
    from pyarrow import compute

    limits = compute.min_max(column)
    low, high = limits["min"].as_py(), limits["max"].as_py()
    return low is not None and max(-low, high) >= 2**53


def _told(name: str, column: Any, texts: Any) -> Any:
    """What a doubtful column holds, told from its text."""
    arrow_ = arrow.import_arrow("reading CSV")
    compute = arrow_.compute
    if str(column.type) != "double":
        return texts
    there = texts.filter(column.is_valid())
    values = column.drop_null()
    integral = compute.match_substring_regex(there, r"^\s*[+-]?\d+(\.0*)?\s*$")
    large = compute.greater_equal(compute.abs(values), 2.0**53)
    if not compute.any(compute.and_(integral, large)).as_py():
        endless = compute.is_inf(values)
        digits = compute.match_substring_regex(there, r"\d")
        if compute.any(compute.and_(endless, digits)).as_py():
            raise _unkept(name, "holds numbers beyond the range of float64")
        return column
    if compute.all(integral).as_py():
        stripped = compute.replace_substring_regex(texts, r"^\s*\+?(-?\d+)(\.0*)?\s*$", r"\1")
        empty = column.is_null()
        stripped = compute.if_else(empty, None, stripped)
        for kind in (arrow_.int64(), arrow_.uint64()):
            try:
                return stripped.cast(kind)
            except arrow_.ArrowInvalid:
                continue
        raise _unkept(name, "holds integers beyond 64 bits")
    raise _unkept(name, "mixes fractions with integers above 2^53")


def _unkept(name: str, what: str) -> ColumnTypeError:
    return ColumnTypeError(name, f"column {name!r} {what}, which would change", "make them text")


def _with_points(name: str, column: Any) -> Any:
    """Numbers with decimal commas as numbers; other texts as they are."""
    from pyarrow import compute

    texts = column.drop_null()
    texts = texts.filter(compute.not_equal(texts, ""))
    comma = compute.match_substring_regex(texts, _DECIMAL_COMMA)
    if not len(texts) or not compute.all(comma).as_py():
        return column
    if compute.all(compute.match_substring_regex(texts, _THOUSANDS)).as_py():
        raise ColumnTypeError(
            name,
            f"column {name!r} may have decimal commas, or commas between thousands "
            f"({texts[0].as_py()!r})",
            "write the numbers with points",
        )
    points = compute.replace_substring(column, ",", ".")
    points = compute.if_else(compute.equal(points, ""), None, points)
    return points.cast("double")
