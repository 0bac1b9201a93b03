"""Simulated runs as files: a record for every packet that arrived, and what the run was.

A run is an ``.npz`` archive of compressed arrays and a JSON text, written whole or not at all, with
a digest of its records. Nothing in it is unpickled.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memento.arguments import require, whole
from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    MementoError,
    SchemaError,
    SettingError,
    StorageError,
    reason_of,
)
from memento.files import atomic_write, digest, storage_errors

__all__ = ["COLUMNS", "Run", "Runs"]

_FORMAT = 1
# A run may unpack to so many times its own size, once it is larger than `_LARGE`.
_EXPANSION, _LARGE = 100, 2 << 30
_FILE = re.compile(r"run-(\d{2,})\.npz")
_SETTING = re.compile(r"[a-z][a-z0-9-]*(_c\d+)?")
# Of `memento datacenter simulate`: what need not be said.
_DEFAULTS = {"messages": "buffered", "seconds": 60.0, "start-window": None, "seed": 1}
# Column: type, unit and meaning, as stored.
COLUMNS: Mapping[str, tuple[str, str, str]] = {
    "arrival_ns": ("<i8", "ns", "since the start, when the receiver's device had the packet"),
    "delay_ns": ("<u4", "ns", "since the sender's device got it to send"),
    "size": ("<u2", "bytes", "on the link, with all headers"),
    "application": ("<u2", "", "which of the senders, from 0"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The packets of one run in order of arrival.

    Args:
        arrival_ns: (n,) nanoseconds since the start, never decreasing.
        delay_ns: (n,) nanoseconds from the sender's device to the receiver's.
        size: (n,) bytes on the link.
        application: (n,) the sender, from 0.
        about: What the run was; "label" is the class of its packets, from 1.

    Raises:
        SchemaError: Columns of different lengths or types, or no label.
        DomainError: Numbers that a column cannot hold, or packets out of order.

    Example:
        >>> run = Run([15_484_800], [15_484_800], [606], [0], {"label": 2})
        >>> run.delay
        array([0.0154848])
        >>> run
        <Run of 1 packets>
    """

    arrival_ns: npt.NDArray[np.int64]
    delay_ns: npt.NDArray[np.uint32]
    size: npt.NDArray[np.uint16]
    application: npt.NDArray[np.uint16]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {}
        for name, (kind, unit, _) in COLUMNS.items():
            array = _integers(name, getattr(self, name), np.dtype(kind), unit)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
            lengths[name] = len(array)
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name}: {n:,}" for name, n in lengths.items())
            raise SchemaError(f"columns differ in length ({listed}); give one of each per packet")
        back = np.flatnonzero(np.diff(self.arrival_ns) < 0)
        if len(back):
            raise DomainError(
                f"packet {back[0] + 2:,} arrived before the one ahead of it "
                f"({len(back):,} such); sort the packets by arrival_ns"
            )
        label = self.about.get("label")
        if not isinstance(label, int) or not 1 <= label <= 255:
            raise SchemaError(f"label {label!r} in about; give an integer from 1 to 255")

    def __len__(self) -> int:
        return len(self.arrival_ns)

    def __repr__(self) -> str:
        named = f"{self.about['setting']} {self.about['run']}: " if "setting" in self.about else ""
        return f"<Run {named or 'of '}{len(self):,} packets>"

    @cached_property
    def delay(self) -> npt.NDArray[np.float64]:
        """(n,) one-way delay in seconds."""
        return np.asarray(self.delay_ns * 1e-9)

    @property
    def digest(self) -> str:
        """SHA-256 of the records, columns one after the other."""
        return digest(b"".join(getattr(self, name).tobytes() for name in COLUMNS))

    def write(self, path: str | Path) -> None:
        """Write the run to a file, whole or not at all; a file that is there is replaced.

        Raises:
            StorageError: The file cannot be written.
        """
        path = Path(path)
        about = {**self.about, "format": _FORMAT, "packets": len(self), "digest": self.digest}
        text = json.dumps(about, sort_keys=True).encode()
        content = io.BytesIO()
        columns = {name: getattr(self, name) for name in COLUMNS}
        np.savez_compressed(content, about=np.frombuffer(text, dtype=np.uint8), **columns)
        with storage_errors("write a run", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """Read a run and check it against its digest.

        Raises:
            DamagedError: The file is cut off or its records differ from their digest.
            ForeignError: It is another kind of file, or of another version.
            StorageError: It cannot be read.
        """
        path = Path(path)
        with _opened(path) as (archive, about):
            absent = [name for name in COLUMNS if name not in archive.files]
            if absent:
                raise ForeignError(
                    f"{path}: no array {', '.join(absent)} among {archive.files}; is it a run?"
                )
            columns = {name: archive[name] for name in COLUMNS}
        try:
            run = cls(**columns, about=about)
        except (SchemaError, DomainError) as error:
            raise DamagedError(f"{path}: {error}; remove the file and simulate it again") from error
        if run.digest != about.get("digest"):
            raise DamagedError(
                f"{path}: {len(run):,} packets that differ from the digest in the file; "
                "remove the file and simulate it again"
            )
        return run

    @staticmethod
    def describe(path: str | Path) -> dict[str, Any]:
        """What a run is, without reading its records; errors as for ``read``."""
        path = Path(path)
        with _opened(path) as (_, about):
            return about


class Runs:
    """A folder of runs: ``<setting>/run-<number>.npz``.

    Args:
        folder: Where they are, or will be.

    Example:
        >>> Runs("simulated").path("w1_c133", 7).as_posix()
        'simulated/w1_c133/run-07.npz'
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Runs({str(self.folder)!r})"

    def path(self, setting: str, number: int) -> Path:
        """The file of a run.

        Raises:
            SettingError: A setting or number of another form.
        """
        if not isinstance(setting, str) or not _SETTING.fullmatch(setting):
            raise SettingError(
                f"setting {setting!r}; give a workload, or a workload and a load such as w1_c133"
            )
        require("run", number, whole(0))
        return self.folder / setting / f"run-{number:02d}.npz"

    def read(self, setting: str, number: int) -> Run:
        """A run.

        Raises:
            StorageError: It has not been simulated; the message says how to.
            DamagedError: Its file is damaged.
            ForeignError: Its file is of another kind or version, or another run's.
            SettingError: A setting or number of another form.
        """
        path = self._present(setting, number)
        run = Run.read(path)
        _check_identity(path, run.about, setting, number)
        return run

    def describe(self, setting: str, number: int) -> dict[str, Any]:
        """What a run is, without reading its records; errors as for ``read``."""
        path = self._present(setting, number)
        about = Run.describe(path)
        _check_identity(path, about, setting, number)
        return about

    def require(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Raise unless all these runs, by setting and number, are there.

        Raises:
            StorageError: Some are not; the message says how to simulate them.
            SettingError: A setting or number of another form.
        """
        missing = [one for one in wanted if not self.path(*one).is_file()]
        if not missing:
            return
        others = len(missing) - 1
        raise StorageError(
            f"{self.path(*missing[0])}: no such run"
            + (f", and {others} more are missing; make them" if others else "; make it")
            + f" with `{self._command(missing)}`"
        )

    def _present(self, setting: str, number: int) -> Path:
        self.require([(setting, number)])
        return self.path(setting, number)

    def _command(self, missing: Sequence[tuple[str, int]]) -> str:
        """What simulates runs as those that are there were; it leaves these alone."""
        settings = dict.fromkeys(setting for setting, _ in missing)
        numbers = _ranges({number for _, number in missing})
        words = ["memento", "datacenter", "simulate", *settings, "--runs", numbers]
        words += ["--to", str(self.folder)]
        there = self.available()
        nearest = next((s for s in settings if s in there), next(iter(there), None))
        if nearest is not None:
            with contextlib.suppress(StorageError):
                about = self.describe(nearest, there[nearest][0])
                network = about.get("network")
                made = {**(network if isinstance(network, dict) else {}), "seed": about.get("seed")}
                made |= {"seconds": made.get("end"), "start-window": made.get("start_window")}
                for name, default in _DEFAULTS.items():
                    if made.get(name) not in (None, default):
                        value = made[name]
                        shown = f"{value:g}" if isinstance(value, float) else str(value)
                        words += [f"--{name}", shown]
        return shlex.join(words)

    def available(self) -> dict[str, list[int]]:
        """The numbers of the runs there are, ascending, by setting."""
        found: dict[str, list[int]] = {}
        if self.folder.is_dir():
            for path in sorted(self.folder.glob("*/run-*.npz")):
                named = _FILE.fullmatch(path.name)
                if named and _SETTING.fullmatch(path.parent.name):
                    found.setdefault(path.parent.name, []).append(int(named[1]))
        return {setting: sorted(numbers) for setting, numbers in found.items()}


def _check_identity(path: Path, about: Mapping[str, Any], setting: str, number: int) -> None:
    found = about.get("setting"), about.get("run")
    if found != (setting, number):
        raise ForeignError(
            f"{path}: holds run {found[1]} of {found[0]}; remove the file and simulate it again"
        )


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers as the command line takes them: 2-5,7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The arrays of a file and what it says of itself, with errors that name the file."""
    if not path.is_file():
        raise StorageError(f"{path}: no such file; check the path")
    try:
        # Opened here, because numpy leaves a file open that it cannot read.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile) or "about" not in archive.files:
                raise ForeignError(f"{path}: a NumPy file that is no run; check the path")
            with archive:
                members = archive.zip.infolist() if archive.zip else []
                size = sum(member.file_size for member in members)
                if size > max(_LARGE, _EXPANSION * path.stat().st_size):
                    raise ForeignError(f"{path}: unpacks to {size:,} bytes, as no run does")
                about = json.loads(np.asarray(archive["about"]).tobytes())
                found = about.get("format") if isinstance(about, dict) else None
                if found != _FORMAT:
                    raise ForeignError(
                        f"{path}: format {found}, this version reads {_FORMAT}; "
                        "simulate the run again"
                    )
                yield archive, about
    except MementoError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error}); check its rights") from error
    except Exception as error:  # of zipfile, zlib, numpy, json: whatever they stumble over
        raise DamagedError(
            f"{path}: {path.stat().st_size:,} bytes that are no complete run "
            f"({reason_of(error)}); remove the file and simulate it again"
        ) from error


def _integers(name: str, values: Any, kind: np.dtype[Any], unit: str) -> npt.NDArray[Any]:
    """A row of integers as a copy of our own, of the column's type."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise SchemaError(
            f"{name} has the shape {array.shape} and the type {array.dtype}; "
            "give one row of integers"
        )
    limits = np.iinfo(kind)
    least = max(0, limits.min)
    if array.size and not (array.min() >= least and array.max() <= limits.max):
        raise DomainError(
            f"{name} goes from {array.min():,} to {array.max():,} {unit}; "
            f"expected {least} to {limits.max:,}"
        )
    return array.astype(kind)
