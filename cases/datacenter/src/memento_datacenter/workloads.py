"""What applications send: distributions of message sizes.

Three are built in, as tables of quantiles: the web servers (w1) and the Hadoop cluster (w3) of
Facebook and the DCTCP paper's web search (w2), as collected in Montazeri et al., "Homa: A
Receiver-Driven Low-Latency Transport Protocol Using Network Priorities", SIGCOMM 2018. Others come
from files in the format of that paper's simulator or from recorded message sizes.
"""

from __future__ import annotations

import csv
import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from memento.errors import DamagedError, DomainError, SchemaError, SettingError
from memento.files import digest, storage_errors

__all__ = ["Workload", "published"]

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_LARGEST = 2**31 - 1  # bytes: what one call of a socket may hand over
# A file's first line is the mean of its rows; published files round it.
_MEAN_TOLERANCE = 0.02
_TITLES = {
    "w1": "Facebook web server",
    "w2": "DCTCP",
    "w3": "Facebook Hadoop",
}


@dataclass(frozen=True, eq=False, repr=False)
class Workload:
    """A distribution of message sizes, as a table of cumulative probabilities.

    Args:
        name: Lower-case letters, digits and hyphens; begins with a letter.
        label: Which class its packets have, from 1 to 255. The published ones have 1, 2 and 3.
        sizes: (n,) bytes, at least 1, ascending; equal ones may follow each other.
        cumulative: (n,) probability of a size up to each, ascending, the last 1. Rows that add
            nothing to it are left out.
        interpolate: Whether sizes between two rows occur, equally likely. Otherwise only the sizes
            of the rows occur: then a row's probability is its step above the row before.
        title: In words.

    Raises:
        SettingError: A name or label of another form.
        SchemaError: Columns of different lengths or types, or without rows.
        DomainError: Sizes or probabilities out of range or out of order.

    Example:
        >>> short = Workload("short", 4, [100, 200], [0.25, 1.0])
        >>> short
        <Workload short: 2 rows from 100 to 200 bytes, mean 175>
        >>> short.mean
        175.0
    """

    name: str
    label: int
    sizes: npt.NDArray[np.float64]
    cumulative: npt.NDArray[np.float64]
    interpolate: bool = False
    title: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise SettingError(
                f"workload {self.name!r}: a name has lower-case letters, digits and hyphens and "
                "begins with a letter"
            )
        if not isinstance(self.label, int | np.integer) or not 1 <= self.label <= 255:
            raise SettingError(
                f"workload {self.name!r}: label {self.label!r}; give an integer from 1 to 255"
            )
        sizes = _numbers(self.name, "sizes", self.sizes)
        cumulative = _numbers(self.name, "cumulative", self.cumulative)
        if len(sizes) != len(cumulative) or not len(sizes):
            raise SchemaError(
                f"workload {self.name!r}: {len(sizes):,} sizes and {len(cumulative):,} "
                "probabilities; give one of each for every row, and at least one row"
            )
        wrong = _first_wrong(sizes, cumulative)
        if wrong is not None:
            row, problem = wrong
            raise DomainError(f"workload {self.name!r}, row {row + 1:,}: {problem}")
        new = np.diff(cumulative, prepend=-1.0) > 0
        if not self.interpolate:
            sizes, cumulative = sizes[new], cumulative[new]  # the others never occur
        elif not new.all():
            row = int(np.argmin(new))
            raise DomainError(
                f"workload {self.name!r}, row {row + 1:,}: probability {cumulative[row]:g} again; "
                "between rows with equal probabilities no line can be drawn: keep one of them"
            )
        for column, array in (("sizes", sizes), ("cumulative", cumulative)):
            array.flags.writeable = False
            object.__setattr__(self, column, array)
        object.__setattr__(self, "label", int(self.label))
        object.__setattr__(self, "interpolate", bool(self.interpolate))

    @classmethod
    def read(
        cls, path: str | Path, *, label: int, name: str | None = None, interpolate: bool = False
    ) -> Workload:
        r"""Read a file in the format of Homa's simulator.

        The first line is the mean size in bytes, each further line a size and the cumulative
        probability up to it. Only the sizes of the rows occur unless ``interpolate`` says
        otherwise: that is the reading under which the files' means are right.

        Args:
            path: The file.
            label: Which class its packets have.
            name: What to call it; the file's name without its suffix if None.
            interpolate: Whether sizes between two rows occur.

        Raises:
            DamagedError: A line of another form, rows out of order, a last probability that is not
                1, or a first line that is not the mean of the rows (within 2 %).
            SettingError: A name or label of another form.
            StorageError: The file cannot be read.

        Example:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp()) / "short.txt"
            >>> _ = path.write_text("175\n100 0.25\n200 1\n")
            >>> Workload.read(path, label=4)
            <Workload short: 2 rows from 100 to 200 bytes, mean 175>
        """
        path = Path(path)
        lines = _lines(path)
        if len(lines) < 2:
            raise DamagedError(
                f"{path}: {len(lines)} lines; expected the mean size, then a size and its "
                "cumulative probability on each line"
            )
        form = "give the mean size first, then a size and its cumulative probability on each line"
        mean = _fields(path, *lines[0], 1, "the mean size in bytes", form)[0]
        rows = np.array(
            [_fields(path, i, line, 2, "a size and a probability", form) for i, line in lines[1:]]
        )
        sizes, cumulative = rows.T
        wrong = _first_wrong(sizes, cumulative)
        if wrong is not None:
            raise DamagedError(f"{path}, line {lines[wrong[0] + 1][0]}: {wrong[1]}")
        stated = cls(name or path.stem.lower(), label, sizes, cumulative)
        if not math.isclose(stated.mean, mean, rel_tol=_MEAN_TOLERANCE):
            raise DamagedError(
                f"{path}, line {lines[0][0]}: the mean is given as {mean:g} bytes, but that of the "
                f"rows is {stated.mean:g}; fetch the file again, or correct the line"
            )
        return cls(stated.name, label, sizes, cumulative, interpolate) if interpolate else stated

    @classmethod
    def of_messages(cls, sizes: npt.ArrayLike, *, label: int, name: str) -> Workload:
        """The distribution of recorded messages: each of their sizes as often as it was recorded.

        Args:
            sizes: (n,) bytes, at least 1, in any order.
            label: Which class their packets have.
            name: What to call it.

        Raises:
            SchemaError: No sizes, or no row of numbers.
            DomainError: A size that is no number, or out of range.

        Example:
            >>> Workload.of_messages([300, 100, 100, 100], label=4, name="mine").cumulative
            array([0.75, 1.  ])
        """
        recorded = _numbers(name, "sizes", sizes)
        if not len(recorded):
            raise SchemaError(f"workload {name!r}: no sizes; give at least one recorded message")
        wrong = np.flatnonzero(~((recorded >= 1) & (recorded <= _LARGEST)))
        if len(wrong):
            raise DomainError(
                f"workload {name!r}: message {wrong[0] + 1:,} has {recorded[wrong[0]]:g} bytes "
                f"({len(wrong):,} such); sizes lie from 1 to {_LARGEST:,}"
            )
        values, counts = np.unique(recorded, return_counts=True)
        return cls(name, label, values, np.cumsum(counts) / len(recorded))

    @classmethod
    def read_messages(cls, path: str | Path, *, label: int, name: str | None = None) -> Workload:
        r"""Read recorded message sizes, one on each line; see ``of_messages``.

        Args:
            path: The file.
            label: Which class their packets have.
            name: What to call it; the file's name without its suffix if None.

        Raises:
            DamagedError: A line that is no size in bytes, or no lines.
            SettingError: A name or label of another form.
            StorageError: The file cannot be read.

        Example:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp()) / "mine.txt"
            >>> _ = path.write_text("300\n100\n100\n100\n")
            >>> Workload.read_messages(path, label=4)
            <Workload mine: 2 rows from 100 to 300 bytes, mean 150>
        """
        path = Path(path)
        form = f"give one size from 1 to {_LARGEST:,} on each line"
        sizes = []
        for i, line in _lines(path):
            (size,) = _fields(path, i, line, 1, "the size of a message in bytes", form)
            if not 1 <= size <= _LARGEST:
                raise DamagedError(f"{path}, line {i}: a message of {size:g} bytes; {form}")
            sizes.append(size)
        if not sizes:
            raise DamagedError(f"{path}: no lines; {form}")
        return cls.of_messages(sizes, label=label, name=name or path.stem.lower())

    @property
    def mean(self) -> float:
        """Mean size in bytes, of this table as it is read."""
        if self.interpolate:
            middle = (self.sizes[1:] + self.sizes[:-1]) / 2
            return float(self.sizes[0] * self.cumulative[0] + np.diff(self.cumulative) @ middle)
        return float(np.diff(self.cumulative, prepend=0.0) @ self.sizes)

    def quantile(self, probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The size that a share of the messages does not exceed.

        Args:
            probability: Any shape, in [0, 1].

        Returns:
            Bytes, of the same shape.

        Raises:
            DomainError: A probability outside [0, 1].

        Example:
            >>> published()["w2"].quantile([0.5, 0.99])
            array([   48.4, 18666. ])
        """
        asked = np.asarray(probability, dtype=np.float64)
        if not ((asked >= 0) & (asked <= 1)).all():
            raise DomainError(f"probabilities {probability!r}; give numbers from 0 to 1")
        if self.interpolate:
            return np.asarray(np.interp(asked, self.cumulative, self.sizes))
        return np.asarray(self.sizes[np.searchsorted(self.cumulative, asked)])

    @property
    def table(self) -> str:
        """A size and its cumulative probability on each line, exact: what the simulator reads."""
        rows = zip(self.sizes.tolist(), self.cumulative.tolist(), strict=True)
        return "".join(f"{size!r} {cumulative!r}\n" for size, cumulative in rows)

    @property
    def digest(self) -> str:
        """SHA-256 of the table and of how it is read."""
        return digest(f"interpolate {self.interpolate}\n{self.table}".encode())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Workload):
            return NotImplemented
        mine = (self.name, self.label, self.digest)
        return mine == (other.name, other.label, other.digest)

    def __hash__(self) -> int:
        return hash((self.name, self.label, self.digest))

    def __repr__(self) -> str:
        return (
            f"<Workload {self.name}: {len(self.sizes):,} rows from {self.sizes[0]:g} to "
            f"{self.sizes[-1]:g} bytes, mean {self.mean:.6g}>"
        )


@functools.cache
def published() -> Mapping[str, Workload]:
    """The published workloads by name: w1, w2 and w3.

    Quantiles at every per cent, at 99.5 % and at both ends, with lines between them. Their means
    lie within 2.2 % of the published 62,874, 1,745 and 127,797 bytes.

    Example:
        >>> published()["w3"]
        <Workload w3: 102 rows from 50 to 1e+07 bytes, mean 126839>
    """
    source = resources.files("memento_datacenter").joinpath("message_sizes.csv")
    head, *rows = csv.reader(source.read_text(encoding="utf-8").splitlines())
    columns = dict(zip(head, np.array(rows, dtype=np.float64).T, strict=True))
    cumulative = columns.pop("cumulative")
    return MappingProxyType(
        {
            name: Workload(name, label, sizes, cumulative, True, _TITLES[name])
            for label, (name, sizes) in enumerate(columns.items(), 1)
        }
    )


def _numbers(name: str, column: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A row of numbers as a copy of our own."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iuf"):
        raise SchemaError(
            f"workload {name!r}: {column} have the shape {array.shape} and the type "
            f"{array.dtype}; give one row of numbers"
        )
    return array.astype(np.float64)


def _first_wrong(
    sizes: npt.NDArray[np.float64], cumulative: npt.NDArray[np.float64]
) -> tuple[int, str] | None:
    """The first row that cannot be, and what is wrong with it."""
    ranges = ~((sizes >= 1) & (sizes <= _LARGEST) & (cumulative >= 0) & (cumulative <= 1))
    if ranges.any():
        row = int(np.argmax(ranges))
        return row, (
            f"size {sizes[row]:g} with probability {cumulative[row]:g}; sizes lie from 1 to "
            f"{_LARGEST:,} bytes and probabilities from 0 to 1"
        )
    back = (np.diff(sizes) < 0) | (np.diff(cumulative) < 0)
    if back.any():
        row = int(np.argmax(back)) + 1
        return row, (
            f"size {sizes[row]:g} with probability {cumulative[row]:g} after {sizes[row - 1]:g} "
            f"with {cumulative[row - 1]:g}; neither may decrease"
        )
    if cumulative[-1] != 1:
        return len(sizes) - 1, (
            f"the last probability is {cumulative[-1]:g}; expected 1 (is the file cut off?)"
        )
    return None


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Numbers and words of the lines that are not empty."""
    with storage_errors("read message sizes", path):
        text = path.read_bytes().decode("utf-8", errors="replace")
    return [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]


def _fields(
    path: Path, line: int, words: list[str], count: int, what: str, form: str
) -> list[float]:
    try:
        numbers = [float(word) for word in words]
        if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
            raise ValueError
    except ValueError:
        raise DamagedError(
            f"{path}, line {line}: {' '.join(words)[:60]!r} is not {what}; {form}"
        ) from None
    return numbers
