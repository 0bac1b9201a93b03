"""From the files of a day to inputs and labels of the transmission time predictor.

First a table of chunks: those sent, each with its acknowledgement. Then, for each horizon, one
sample per chunk: the eight chunks before it, the state of TCP now, the size of the chunk that is
asked for, and how long that one took (Yan et al., "Learning in situ", NSDI 2020, section 4.3).

The chunks of a day fit in memory many times over, the windows of all five horizons do not. So
chunks are kept, and the windows of a horizon are made when they are asked for, which takes about a
second for three million.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import replace_folder, storage_errors
from memento_puffer.data.blocks import BlockSource, Names
from memento_puffer.data.chunks import (
    CHUNK_TABLE,
    DaySource,
    Source,
    chunk_table,
    chunks_of,
    described,
    floats,
)
from memento_puffer.data.layout import (
    CHUNK_INPUTS,
    CHUNK_TICKS,
    HISTORY,
    HORIZONS,
    NOT_MEASURED,
    scaled,
)
from memento_puffer.data.schema import Day, made_folder, polars
from memento_puffer.predictor.transmission import class_of

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "CHUNK_COLUMNS",
    "HISTORY",
    "HORIZONS",
    "STEP",
    "Features",
    "chunk_table",
    "features_and_chunks",
    "features_of",
]

STEP = CHUNK_TICKS  # from chunk to chunk
CHUNK_COLUMNS = (*CHUNK_INPUTS, "trans_time")
_NOW = len(CHUNK_INPUTS) - 1  # values of TCP's state, which are known before the size
_WIDTH = len(CHUNK_COLUMNS)
_ARRAYS = ("values", "stream", "video_ts", "sent", "acked")
_FORMAT = 1
_SENTINELS = ("keep", "clamp", "drop")
_RULES = 2  # of what is usable; stored features made by other rules are made again


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """The chunks of a day, sorted by stream and presentation time.

    Args:
        values: (n, 7) float32 or float64, the ``CHUNK_COLUMNS``: delivery rate in packets of 1500
            bytes per s, cwnd and in_flight in packets, min_rtt and rtt in s, size in packets,
            transmission time in s. NaN where it is not known, such as the time of a chunk without
            acknowledgement.
        stream: (n,) int32, ascending: row of ``streams``.
        video_ts: (n,) int64, in 1/90000 s, strictly ascending within a stream.
        sent: (n,) int64, ns since the Unix epoch.
        acked: (n,) int64 likewise, -1 without acknowledgement.
        streams: A row for each stream, in the order of their first chunks: stream, session_id,
            index, expt_id, abr, cc (None if unknown), first_sent.
        counts: What was met on the way, see ``of_day``.

    Raises:
        SchemaError: Arrays of other shapes.
        DomainError: Chunks that are not sorted, or equal ones.
    """

    values: np.ndarray
    stream: np.ndarray
    video_ts: np.ndarray
    sent: np.ndarray
    acked: np.ndarray
    streams: pl.DataFrame
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.stream)
        for name in _ARRAYS:
            array = np.asarray(getattr(self, name)).view(np.ndarray)
            shape = (n, _WIDTH) if name == "values" else (n,)
            if array.shape != shape:
                raise SchemaError(f"{name} of shape {array.shape}; expected {shape}")
            # Read-only in any case: whether built or read back, kernels see one type.
            array = array.view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.values.dtype not in (np.float32, np.float64):
            raise SchemaError(f"values of type {self.values.dtype}; expected float32 or float64")
        same = self.stream[1:] == self.stream[:-1]
        back = (self.stream[1:] < self.stream[:-1]) | (
            same & (self.video_ts[1:] <= self.video_ts[:-1])
        )
        if back.any():
            row = int(np.flatnonzero(back)[0])
            raise DomainError(
                f"chunk {row + 1} does not come after chunk {row}; sort the chunks by stream and "
                "video_ts and keep one of those that are equal"
            )

    @classmethod
    def of_day(
        cls, day: Day | str | Path, *, dtype: npt.DTypeLike = np.float32, cc: str | None = None
    ) -> Features:
        """Read a day's video_sent and video_acked.

        Of rows for the same chunk the last one in the file counts. What cannot be is taken as not
        known: an acknowledgement from before the chunk was sent or more than a day after, or of a
        chunk sent more than 12 h before or after the day; a size below 1, and a value of TCP below
        the least in ``layout.TABLES``.

        Args:
            day: The day or its folder.
            dtype: float32 or float64.
            cc: Keep only streams over this congestion control ("bbr" as Puffer's own training
                does); needs the experiment settings.

        Returns:
            The chunks, with these counts: ``sent`` and ``acked`` (rows in the files),
            ``sent_twice`` and ``acked_twice`` (rows that a later one replaced), ``unsent`` (rows of
            video_acked whose chunk was not sent on this day), ``other_cc`` (rows of video_sent of
            other streams), ``chunks`` (what is left), ``unacked``, ``acked_early`` (before they
            were sent), ``acked_late`` (more than a day after), ``outside`` (sent at a time far from
            the day; each chunk is in one of these four at most), ``impossible`` (a value is), and
            ``incomplete`` (a value is missing; a chunk of these two is in no input and no label),
            ``not_measured`` (chunks with a min_rtt of 2^32 - 1), ``unknown_experiment`` (streams).

        Raises:
            SchemaError, DamagedError, StorageError: As ``Day.scan`` and ``Day.collect``; a time,
                session, index or video_ts is missing.
            SettingError: Another dtype.
        """
        return cls._of_source(DaySource(day), dtype, cc)

    @classmethod
    def of_blocks(
        cls,
        blocks: Iterable[Any],
        simulation: Any = None,
        day: str | None = None,
        number: int = 0,
        *,
        dtype: npt.DTypeLike = np.float32,
        cc: str | None = None,
    ) -> Features:
        """The chunks of a simulated day, equal to what `of_day` reads from its files.

        Args:
            blocks: As ``simulation.day`` returns them, recorded "chunks" or "all".
            simulation: Names sessions and schemes. Without it a session is called by its number,
                ``expt_id`` is the position of its scheme, and ``abr`` and ``cc`` are not known.
            day: The date that the times count from, as 2021-10-17; None for 1970-01-01 0:00.
            number: Which day of the simulation it is.
            dtype: float32 or float64.
            cc: Keep only streams over this congestion control; needs the simulation.

        Raises:
            SettingError: Another dtype, or a ``cc`` without a simulation.
        """
        if cc is not None and simulation is None:
            raise SettingError(f"cc={cc!r}; hand in the simulation too, which knows it")
        source = BlockSource(blocks, Names(simulation, day, number))
        return cls._of_source(source, dtype, cc)

    @classmethod
    def _of_source(cls, source: Source, dtype: npt.DTypeLike, cc: str | None) -> Features:
        _check_dtype(dtype)
        return cls._of_table(*chunks_of(source, cc), dtype)

    @classmethod
    def _of_table(
        cls,
        table: pl.DataFrame,
        streams: pl.DataFrame,
        counts: dict[str, int],
        dtype: npt.DTypeLike,
    ) -> Features:
        """From chunks with their acknowledgements."""
        values = np.empty((len(table), _WIDTH), dtype=dtype)
        counts["not_measured"] = int((table["min_rtt"] == NOT_MEASURED).sum())
        for position, name in enumerate(CHUNK_INPUTS):
            values[:, position] = floats(table[name]) / scaled(name)[1]
        times = table["time"].to_numpy()
        acked = table["acked"].fill_null(-1).to_numpy()
        values[:, -1] = np.where(acked >= 0, (acked - times) / 1e9, np.nan)
        stream, video_ts = table["stream"].to_numpy(), table["video_ts"].to_numpy()
        return cls(values, stream, video_ts, times, acked, streams, counts)

    @property
    def size(self) -> int:
        """How many chunks there are."""
        return len(self.stream)

    @cached_property
    def _usable(self) -> np.ndarray:
        return np.isfinite(self.values).all(axis=1)

    @cached_property
    def _before(self) -> np.ndarray:
        from memento_puffer._kernels import windows

        return windows.link(self.stream, self.video_ts, self._usable, -STEP)

    def samples(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """The chunks n that samples are made of, and the chunks n + horizon they are asked for.

        Both have to be acknowledged, and their values known. Chunk n + h is the one of the same
        stream that is h * 180180 ticks later.

        Args:
            horizon: 0 to 4.

        Returns:
            Two arrays (m,) of rows, in ascending order.

        Raises:
            SettingError: Another horizon.
        """
        if horizon not in range(HORIZONS):
            raise SettingError(f"horizon={horizon}; give 0 to {HORIZONS - 1}")
        if horizon == 0:
            rows = np.flatnonzero(self._usable).astype(np.int32)
            return rows, rows
        from memento_puffer._kernels import windows

        ahead = windows.link(self.stream, self.video_ts, self._usable, horizon * STEP)
        rows = np.flatnonzero(self._usable & (ahead >= 0)).astype(np.int32)
        return rows, ahead[rows]

    def columns(
        self,
        horizon: int = 0,
        take: npt.ArrayLike | None = None,
        *,
        dtype: npt.DTypeLike | None = None,
        sentinels: str = "keep",
    ) -> dict[str, np.ndarray]:
        """Inputs and labels of a horizon, as columns of a memory or a training set.

        Walking back from chunk n, the first one that is missing or not acknowledged ends the
        history: older slots repeat the oldest chunk found. Without any, all of them hold the state
        of TCP now, with size and time 0.

        Args:
            horizon: h from 0 to 4: asked for is the time of chunk n + h.
            take: Positions of the samples wanted, among all of this horizon; None for all.
            dtype: Of x and y, float32 or float64; None for that of ``values``. (What x
                is made of was rounded before if ``values`` is float32.)
            sentinels: What becomes of a min_rtt not measured yet (2^32 - 1 us): "keep" it, "clamp"
                it to the rtt beside it, or "drop" the samples that hold one.

        Returns:
            Columns of m rows:
                x: (m, 62) eight past chunks, oldest first, each as ``CHUNK_COLUMNS``; the first
                    five of these of chunk n; the size of chunk n + h in packets.
                y: seconds that chunk n + h took.
                y_bin: int64, its class, see ``transmission.class_of``.
                stream: int64, row of ``streams``.
                time: int64, ns, when chunk n + h was sent.

        Raises:
            SettingError: Another horizon, dtype or word for sentinels.
            DomainError: A position that is not there.

        Example:
            >>> import polars as pl
            >>> chunk = [3000.0, 10, 0, 0.02, 0.03, 100]
            >>> day = Features(
            ...     np.array([[*chunk, 0.4], [*chunk, 0.8]]),
            ...     np.array([0, 0], np.int32),
            ...     np.array([0, 180180]),
            ...     np.array([0, 2 * 10**9]),
            ...     np.array([4 * 10**8, 28 * 10**8]),
            ...     pl.DataFrame({"stream": [0]}),
            ... )
            >>> day.columns(0)["y_bin"], day.columns(1)["y"]
            (array([1, 2]), array([0.8]))
        """
        from memento_puffer._kernels import windows
        from memento_puffer.predictor.network import clamp_sentinels, sentinel_rows

        dtype = self.values.dtype if dtype is None else np.dtype(dtype)
        _check_dtype(dtype)
        if sentinels not in _SENTINELS:
            raise SettingError(f"sentinels={sentinels!r}; give one of {', '.join(_SENTINELS)}")
        rows, targets = self.samples(horizon)
        if take is not None:
            rows, targets = _taken_rows(np.asarray(take), rows, targets)
        x = np.empty((len(rows), HISTORY * _WIDTH + _NOW + 1), dtype=dtype)
        windows.fill(self.values, self._before, rows, targets, HISTORY, _NOW, x)
        if sentinels == "clamp":
            x = clamp_sentinels(x)
        elif sentinels == "drop":
            kept = ~sentinel_rows(x)
            if not kept.all():
                x, targets = x[kept], targets[kept]
        # From the times themselves: rounded to float32, 0.7499999999 s would change its class.
        y = (self.acked[targets] - self.sent[targets]) / 1e9
        return {
            "x": x,
            "y": y.astype(dtype),
            "y_bin": class_of(y),
            "stream": self.stream[targets].astype(np.int64),
            "time": self.sent[targets],
        }

    def write(self, folder: str | Path, source: Mapping[str, Any] | None = None) -> None:
        """Store the chunks as NPY files, the streams as Parquet.

        What was in the folder before stays until the new content is whole, and is replaced as one;
        the file ``features.json`` says which files belong together.

        Args:
            folder: Made if it is not there.
            source: What they were made of, for ``features_of``.

        Raises:
            ForeignError: The folder holds other things.
            SpaceError: The disk is full.
            StorageError: Anything else that the file system refuses.
        """
        folder = Path(folder)
        # Other names than before, so that who reads meanwhile meets no mixture.
        token = secrets.token_hex(4)
        with storage_errors("write features", folder), made_folder(folder.parent):
            present = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
            if strangers := [name for name in present if not _is_ours(name)]:
                raise ForeignError(
                    f"{folder}: holds {strangers[0]!r}, which is no part of stored features; "
                    "give a folder of their own"
                )
            with replace_folder(folder) as new:
                files = {name: f"{name}-{token}.npy" for name in _ARRAYS}
                for name, file in files.items():
                    with (new / file).open("wb") as target:
                        np.save(target, getattr(self, name))
                files["streams"] = f"streams-{token}.parquet"
                table = io.BytesIO()
                self.streams.write_parquet(table)
                (new / files["streams"]).write_bytes(table.getbuffer())
                manifest = {
                    "format": _FORMAT,
                    "files": {
                        name: {"file": file, "bytes": (new / file).stat().st_size}
                        for name, file in files.items()
                    },
                    "counts": dict(self.counts),
                    "source": source,
                }
                (new / "features.json").write_text(json.dumps(manifest, indent=1))

    @staticmethod
    def stored(folder: Path) -> bool:
        """Whether a folder holds features of a day, as `write` leaves them."""
        return (folder / "features.json").is_file()

    @classmethod
    def read(cls, folder: str | Path) -> Features:
        """Open what ``write`` stored; the arrays stay on disk until they are used.

        Raises:
            StorageError: There are no features in the folder.
            DamagedError: A file is missing, or has another size or content than it should.
            ForeignError: A format of a later version.
        """
        folder = Path(folder)
        manifest = _manifest(folder)
        if manifest is None:
            raise StorageError(
                f"{folder}: no features.json; make it with Features.of_day and write"
            )
        pl = polars("reading features")
        try:
            for entry in manifest["files"].values():
                size = (folder / entry["file"]).stat().st_size
                if size != entry["bytes"]:
                    raise ValueError(
                        f"{entry['file']} has {size:,} bytes instead of {entry['bytes']:,}"
                    )
            arrays = {}
            for name in _ARRAYS:
                path = folder / manifest["files"][name]["file"]
                arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            streams = pl.read_parquet(folder / manifest["files"]["streams"]["file"])
            return cls(**arrays, streams=streams, counts=manifest["counts"])
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise DamagedError(
                f"{folder}: {str(error).splitlines()[0]}; remove the folder and make it again"
            ) from error

    def __repr__(self) -> str:
        return f"<Features of {len(self.streams):,} streams, {self.size:,} chunks>"


def features_and_chunks(
    day: Day | str | Path, *, dtype: npt.DTypeLike = np.float32, cc: str | None = None
) -> tuple[Features, pl.DataFrame]:
    """``Features.of_day`` and ``chunk_table`` of one day, which is read once.

    Args:
        day: The day or its folder.
        dtype: See ``Features.of_day``.
        cc: See there.

    Returns:
        Both with the same rows in the same order.

    Raises:
        SchemaError, DamagedError, StorageError, SettingError: As ``Features.of_day``.
    """
    _check_dtype(dtype)
    table, streams, counts = chunks_of(DaySource(day, CHUNK_TABLE), cc)
    return Features._of_table(table, streams, counts, dtype), described(table, streams)


def features_of(
    day: Day | str | Path,
    store: str | Path,
    *,
    dtype: npt.DTypeLike = np.float32,
    cc: str | None = None,
) -> Features:
    """Features of a day, from the store if they were made before of the same files.

    Args:
        day: The day or its folder.
        store: Folder for the features of this day.
        dtype: float32 or float64.
        cc: See ``Features.of_day``.

    Raises:
        InputError, StorageError: As ``Features.of_day`` and ``Features.write``. A store that is
            damaged is made again.
    """
    day = day if isinstance(day, Day) else Day(day)
    source: dict[str, Any] = {"dtype": str(np.dtype(dtype)), "cc": cc, "rules": _RULES}
    settings = (day.folder / "logs" / "expt_settings", day.folder / "expt_settings")
    for path in (day.path("video_sent"), day.path("video_acked"), *settings):
        if path.is_file():
            status = path.stat()
            source[path.name] = [status.st_size, status.st_mtime_ns]
    store = Path(store)
    with contextlib.suppress(DamagedError):
        manifest = _manifest(store)
        if manifest is not None and manifest.get("source") == source:
            return Features.read(store)
    features = Features.of_day(day, dtype=dtype, cc=cc)
    features.write(store, source)
    return features


def _check_dtype(dtype: npt.DTypeLike) -> None:
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise SettingError(f"dtype={np.dtype(dtype)}; give float32 or float64")


def _taken_rows(
    take: np.ndarray, rows: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if take.size == 0:
        take = take.astype(np.int64)
    if take.ndim != 1 or take.dtype.kind not in "iu":
        raise SettingError(
            f"take of shape {take.shape} and type {take.dtype}; give a row of positions"
        )
    if take.size and (take.min() < 0 or take.max() >= len(rows)):
        raise DomainError(
            f"take goes from {take.min():,} to {take.max():,}; there are {len(rows):,} samples"
        )
    return rows[take], targets[take]


def _is_ours(name: str) -> bool:
    """Whether a file of this name is one that ``write`` makes."""
    stem, _, rest = name.lstrip(".").partition("-")
    return (
        name == "features.json"
        or name.startswith(".features.json.")
        or (stem in (*_ARRAYS, "streams") and os.path.splitext(rest)[1] in (".npy", ".parquet"))
    )


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The content of features.json; None if there is none."""
    path = folder / "features.json"
    if not path.is_file():
        return None
    with storage_errors("read features", path):
        text = path.read_bytes()
    try:
        manifest = json.loads(text)
        found = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            f"{path}: not readable ({error}); remove the folder and make it again"
        ) from error
    if found != _FORMAT:
        raise ForeignError(
            f"{path}: format {found}, this version reads {_FORMAT}; make the features again"
        )
    return dict(manifest)
