"""The record layout of Puffer's release: every column with its unit, and what follows from it.

Readers, writers, the simulator's kernels and the predictor's inputs take names, types, orders and
scales from here (the Puffer project's data description).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = [
    "CHUNK_INPUTS",
    "CHUNK_SECONDS",
    "CHUNK_TICKS",
    "EVENTS",
    "EVENT_TABLES",
    "HISTORY",
    "HORIZONS",
    "NOT_MEASURED",
    "PACKET",
    "TABLES",
    "TCP",
    "TIME",
    "Column",
    "Table",
    "records",
    "scaled",
]

HISTORY = 8  # past chunks that a predictor knows
HORIZONS = 5  # chunks that it looks ahead
CHUNK_TICKS = 180180  # of a chunk's video, at 90 kHz
CHUNK_SECONDS = CHUNK_TICKS / 90000  # 2.002
PACKET = 1500.0  # bytes
# What TCP says of a round-trip time that it has no sample of yet: 2^32 - 1 microseconds.
NOT_MEASURED = 4294967295
EVENTS = ("init", "startup", "rebuffer", "play", "timer")
"""What a player reports; an event's code is its position here."""
TIME = "time (ns GMT)"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: What it is called here.
        kind: "int", "float" or "str".
        unit: Its unit, empty for names and counts of nothing.
        meaning: What it says.
        least, most: Smallest and largest value that is possible; None where there is no bound.
        optional: Whether it came later than the table, so that old files do without it.
        aliases: What it was called elsewhere or before.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    least: float | None = None
    most: float | None = None
    optional: bool = False
    aliases: tuple[str, ...] = ()


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

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)


# Names of the releases of 2019, and what R makes of today's.
_TIMES = (TIME, "time..ns.GMT.", "time (ms GMT)", "timestamp")
_SENT = Column("time", "int", "ns", "since the Unix epoch: sent", 0, aliases=_TIMES)
_REACHED, _ENCODED = (
    replace(_SENT, meaning=f"since the Unix epoch: {what}")
    for what in ("reached the server", "encoded")
)
_CHANNEL = Column("channel", "str", "", "TV station", aliases=("channel_name",))
_STREAM = (
    Column("session_id", "str", "", "32 random bytes in base64"),
    Column("index", "int", "", "stream within the session", 0),
)
_EXPT = Column("expt_id", "int", "", "key into expt_settings", 0, aliases=("experiment_id",))
_VIEWER = (*_STREAM, _EXPT, _CHANNEL)
_VIDEO_TS = Column(
    "video_ts", "int", "1/90000 s", "presentation time; +180180 a chunk", 0,
    aliases=("chunk_presentation_timestamp",),
)  # fmt: skip
_FORMAT = Column(
    "format", "str", "", "width x height - constant rate factor", aliases=("resolution",)
)
_SIZE = Column("size", "int", "bytes", "of the media segment", 1, aliases=("chunk_size",))
# Very early files have SSIM in decibels, in a column of another name.
_SSIM = Column("ssim_index", "float", "", "against the canonical source", -1, 1, aliases=("ssim",))
_TCP = (
    Column("cwnd", "int", "packets", "congestion window", 0),
    Column("in_flight", "int", "packets", "unacknowledged, not sacked, not lost, or resent"),
    Column("min_rtt", "int", "us", "least round-trip time; 2^32 - 1 if not measured yet", 0),
    Column("rtt", "int", "us", "smoothed round-trip time", 0),
    Column("delivery_rate", "int", "bytes/s", "as TCP estimates it", 0),
)
_EVENT = Column("event", "str", "", "init, startup, rebuffer, play or timer")
_CLIENT = (
    Column(
        "buffer", "float", "s", "video held by the client, as last reported", 0,
        aliases=("playback_buffer",),
    ),
    Column(
        "cum_rebuf", "float", "s", "stalled so far, with the startup delay", 0,
        aliases=("cum_rebuffer", "cumulative_rebuffer"),
    ),
)  # fmt: skip
_LATER = tuple(replace(column, optional=True) for column in _CLIENT)
_SOME_VIEWER = (*_STREAM, *(replace(column, optional=True) for column in _VIEWER[2:]))
_CHUNK = ("session_id", "index", "video_ts")
_CODED = ("time", "channel", "video_ts", "format")

TABLES: dict[str, Table] = {
    table.kind: table
    for table in (
        Table(
            "video_sent",
            "a chunk of video that was sent; TCP's state just before choosing it",
            (_SENT, *_VIEWER, _VIDEO_TS, _FORMAT, _SIZE, _SSIM, *_TCP, *_LATER),
            _CHUNK,
        ),
        Table(
            "video_acked",
            "an acknowledgement by the client",
            (_REACHED, *_VIEWER, _VIDEO_TS, *_LATER),
            _CHUNK,
        ),
        Table(
            "client_buffer",
            "a message of the client about its player",
            (_REACHED, *_VIEWER, _EVENT, *_CLIENT),
        ),
        Table(
            "video_size",
            "an encoded chunk",
            (_ENCODED, _FORMAT, _CHANNEL, _VIDEO_TS, _SIZE),
            _CODED,
        ),
        Table("ssim", "an encoded chunk", (_ENCODED, _FORMAT, _CHANNEL, _VIDEO_TS, _SSIM), _CODED),
        Table(
            "buf_video_sent",
            "a chunk of video that was sent, with the client's state; only before 2021-06-12",
            (_SENT, *_SOME_VIEWER, _VIDEO_TS, *_CLIENT),
            _CHUNK,
        ),
    )
}
EVENT_TABLES = ("video_sent", "video_acked", "client_buffer")
"""What sessions leave behind; the others say what was on."""

TCP = tuple(column.name for column in _TCP)
# What the predictor knows of a chunk, in the order of its inputs: the state of TCP, and the size.
CHUNK_INPUTS = ("delivery_rate", "cwnd", "in_flight", "min_rtt", "rtt", "size")
_SCALES = {
    "bytes": ("packets", PACKET),
    "bytes/s": ("packets/s", PACKET),
    "packets": ("packets", 1.0),
    "us": ("s", 1e6),
}


def scaled(name: str) -> tuple[str, float]:
    """In which unit the predictor takes a column of video_sent, and how many of the file's it has.

    Example:
        >>> scaled("size"), scaled("min_rtt")
        (('packets', 1500.0), ('s', 1000000.0))
    """
    columns = TABLES["video_sent"].columns
    return _SCALES[next(column.unit for column in columns if column.name == name)]


def records(kind: str) -> np.dtype[np.void]:
    """Rows of a table as a simulation records them: numbers, with codes in place of names.

    The session is a number, and names its experiment.

    Example:
        >>> records("video_acked").names
        ('time', 'session', 'index', 'channel', 'video_ts', 'buffer', 'cum_rebuf')
    """
    types = {"int": np.int64, "float": np.float64, "str": np.int8}
    fields = [
        ("session", np.int64) if column.name == "session_id" else (column.name, types[column.kind])
        for column in TABLES[kind].columns
        if column.name != "expt_id"
    ]
    return np.dtype(fields, align=True)
