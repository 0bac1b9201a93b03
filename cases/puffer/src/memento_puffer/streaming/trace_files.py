"""Recorded paths from files: Parquet, and the text formats in which throughput traces are around.

    parquet    columns trace_id, seconds, rate: Puffer's own readings in MB/s
    mahimahi   a line for each packet of 1500 bytes that may pass: milliseconds
    norway     3G: seconds and Mbit/s, or logs of six columns
    belgium    4G: likewise
    fcc        curr_webget or curr_httpgetmt in CSV, or seconds and Mbit/s

Logs of six columns hold a time stamp, ms since the start, latitude, longitude, bytes since the last
line and ms since then. All but Parquet are capacities.

Sources: mahimahi's description of its traces; Riiser et al., "Commute path bandwidth traces from 3G
networks", MMSys 2013; van der Hooft et al., "HTTP/2-based adaptive streaming of HEVC video over
4G/LTE networks", 2016; the FCC's Measuring Broadband America, five seconds a measurement as in Mao
et al., "Neural adaptive video streaming with Pensieve", SIGCOMM 2017.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memento.errors import DamagedError, DomainError, SchemaError, SettingError, StorageError
from memento.files import storage_errors
from memento_puffer.data.layout import PACKET
from memento_puffer.streaming.paths import TracePaths
from memento_puffer.streaming.traces import Population, Traces

__all__ = ["FORMATS", "read_paths"]

_MB = 1e6
_MBIT = 8.0  # Mbit in a MB
_MEASURED = 5.0  # s that a measurement of the FCC stands for
_FCC = {"unit_id": 0, "target": 2, "bytes_sec": 6}  # columns, if there is no header

Floats = npt.NDArray[np.float64]
Steps = tuple[Floats, Floats]
"""Seconds, and the rate in MB/s from then on."""


def read_paths(
    path: str | Path, form: str | None = None, population: Population | None = None
) -> TracePaths:
    r"""Read recorded paths.

    Args:
        path: A file, or a folder of files of one format; of text each file is one trace, except
            the FCC's, which hold one for each unit and target.
        form: Of `FORMATS`; None: what the file looks like.
        population: Of round-trip times, see `TracePaths`.

    Raises:
        SettingError: Another format, or files of different formats.
        SchemaError: The file is of another format, or of none that is known.
        DomainError: Times that decrease, rates below 0, or a path that never carries anything.
        DamagedError: A line of another form; it is named.
        StorageError: The file cannot be read, or the folder is empty.
        MissingExtraError: pyarrow is not installed, for Parquet.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "norway"
        >>> _ = path.write_text("0.0\t8.0\n1.0\t16.0\n2.0\t4.0\n")
        >>> read_paths(path).capacity
        [array([1.5, 0.5])]
    """
    if form is not None and form not in FORMATS:
        raise SettingError(f"format {form!r}; give one of {', '.join(FORMATS)}")
    path = Path(path)
    files = [path]
    if path.is_dir():
        with storage_errors("read traces", path):
            files = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
        if not files:
            raise StorageError(f"{path}: no file in it; give a folder of traces, or one file")
    found = [_read(file, form) for file in files]
    layouts = sorted({layout for layout, _ in found})
    if len(layouts) > 1:
        raise SettingError(f"{path} holds {' and '.join(layouts)}; give each format its own folder")
    parts, first = [], 0
    for _, traces in found:
        parts.append(traces.renumbered(first))
        first += traces.streams
    traces = found[0][1] if len(parts) == 1 else _together(parts, str(path))
    readings = layouts[0] == "Parquet"
    paths = TracePaths(traces, readings, population or Population())
    for number, capacity in enumerate(paths.capacity):
        if not capacity.any():
            raise DomainError(f"{path}: trace {number} carries nothing at all; remove it")
    return paths


def _together(parts: Sequence[Traces], source: str) -> Traces:
    ids = np.concatenate([part.trace_id for part in parts])
    seconds = np.concatenate([part.seconds for part in parts])
    return Traces(ids, seconds, np.concatenate([part.rate for part in parts]), source)


def _read(path: Path, form: str | None) -> tuple[str, Traces]:
    """What a file holds, by name of the layout."""
    allowed = dict.fromkeys(sum(FORMATS.values(), ())) if form is None else FORMATS[form]
    if not path.exists():
        raise StorageError(f"{path}: no such file; check the path")
    with storage_errors("read traces", path), path.open("rb") as file:
        parquet = path.suffix == ".parquet" or file.read(4) == b"PAR1"
    if parquet and "Parquet" in allowed:
        return "Parquet", Traces.read(path)
    lines = [] if parquet else _lines(path)
    layout = "Parquet" if parquet else _layout(path, lines)
    if layout not in allowed:
        raise SchemaError(
            f"{path} holds {layout}, and {form} is {' or '.join(allowed)}; leave the format out, "
            "or give the file's"
        )
    series = list(_LAYOUTS[layout](path, lines))
    ids = np.repeat(np.arange(len(series)), [len(seconds) for seconds, _ in series])
    seconds, rate = (np.concatenate(column) for column in zip(*series, strict=True))
    return layout, Traces(ids, seconds, rate, str(path))


def _lines(path: Path) -> list[str]:
    """Lines with something in them."""
    with storage_errors("read traces", path):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _unknown(path, "bytes that are no text") from None
    lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
    if not lines:
        raise DamagedError(f"{path}: no line in it; fetch it again")
    return lines


def _layout(path: Path, lines: Sequence[str]) -> str:
    """What the first line looks like."""
    first = lines[0]
    if "bytes_sec" in first or first.count(",") >= max(_FCC.values()):
        return "measurements"
    values = len(first.replace(",", " ").split())
    layouts = {1: "packets", 2: "seconds and Mbit/s", 6: "logs"}
    if values not in layouts or not re.fullmatch(r"[\s\d.,eE+-]+", first):
        raise _unknown(path, f"lines such as {first[:60]!r}")
    return layouts[values]


def _unknown(path: Path, found: str) -> SchemaError:
    return SchemaError(
        f"{path}: {found}; known are milliseconds (mahimahi), seconds and Mbit/s or six columns "
        "(norway, belgium), CSV (fcc), and Parquet with trace_id, seconds and rate (MB/s), which "
        "others may be converted to"
    )


def _numbers(path: Path, lines: Sequence[str], width: int) -> Floats:
    """(lines, width) numbers.

    Raises:
        DamagedError: A line with others; it is named.
    """
    table = np.empty((len(lines), width))
    for i, line in enumerate(lines):
        try:
            values = [float(value) for value in line.replace(",", " ").split()]
            if len(values) != width:
                raise ValueError(f"{len(values)} values")
            if not all(map(math.isfinite, values)):
                raise ValueError("not finite")
            table[i] = values
        except ValueError as error:
            raise DamagedError(
                f"{path}: line {line[:60]!r} ({error}); expected {width} numbers as in the lines "
                "before, remove it or fetch the file again"
            ) from None
    return table


def _packets(path: Path, lines: Sequence[str]) -> Iterator[Steps]:
    """Mahimahi: how many packets may pass in each second; what is left of the last one goes."""
    ms = _numbers(path, lines, 1)[:, 0]
    back = np.flatnonzero(np.diff(ms, prepend=0.0) < 0)
    if len(back):
        raise DomainError(
            f"{path}: milliseconds go back to {ms[back[0]]:g}; those of mahimahi's traces never do"
        )
    whole = max(1, int(ms[-1] // 1000))
    width = 1.0 if ms[-1] >= 1000 else max(ms[-1], 1.0) / 1000
    counts, _ = np.histogram(ms, np.arange(whole + 1) * 1000.0)
    rate: Floats = counts * (PACKET / _MB / width)
    yield np.arange(whole, dtype=np.float64), rate


def _pairs(path: Path, lines: Sequence[str]) -> Iterator[Steps]:
    seconds, rate = _numbers(path, lines, 2).T
    yield seconds, rate / _MBIT


def _logs(path: Path, lines: Sequence[str]) -> Iterator[Steps]:
    """What came since the last line came at an even rate."""
    ms, received, taken = _numbers(path, lines, 6)[:, [1, 4, 5]].T
    if (taken <= 0).any():
        row = int(np.argmax(taken <= 0))
        raise DomainError(f"{path}: line {lines[row][:60]!r} took {taken[row]:g} ms; remove it")
    yield (ms - taken) / 1000, received / taken * 1000 / _MB


def _measurements(path: Path, lines: Sequence[str]) -> Iterator[Steps]:
    """The FCC's: one trace for each unit and target, in the order of the file."""
    rows = csv.reader(lines)
    places = _FCC
    if "bytes_sec" in lines[0]:
        header = next(rows)
        absent = [name for name in _FCC if name not in header]
        if absent:
            raise SchemaError(f"{path}: no column {', '.join(absent)} among {header}")
        places = {name: header.index(name) for name in _FCC}
    traces: dict[tuple[str, str], list[float]] = {}
    for number, row in enumerate(rows):
        try:
            unit, target, rate = (row[place] for place in places.values())
            traces.setdefault((unit, target), []).append(float(rate) / _MB)
        except (IndexError, ValueError) as error:
            raise DamagedError(
                f"{path}: measurement {number + 1:,}, {','.join(row)[:60]!r} ({error}); expected "
                f"{', '.join(_FCC)}"
            ) from None
    for rates in traces.values():
        yield np.arange(len(rates), dtype=np.float64) * _MEASURED, np.array(rates, np.float64)


_LAYOUTS: dict[str, Callable[[Path, Sequence[str]], Iterator[Steps]]] = {
    "packets": _packets,
    "seconds and Mbit/s": _pairs,
    "logs": _logs,
    "measurements": _measurements,
}
FORMATS: dict[str, tuple[str, ...]] = {
    "parquet": ("Parquet",),
    "mahimahi": ("packets",),
    "norway": ("seconds and Mbit/s", "logs"),
    "belgium": ("seconds and Mbit/s", "logs"),
    "fcc": ("seconds and Mbit/s", "measurements"),
}
"""What files of each format may hold."""
