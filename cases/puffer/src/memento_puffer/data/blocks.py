"""Blocks of a simulated day in the names and units of the release."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from memento_puffer.data.layout import CHUNK_INPUTS, EVENTS, TABLES
from memento_puffer.data.schema import (
    DAY,
    Experiment,
    polars,
    scheme_name,
    start_of,
    types_of,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BlockSource", "Names", "rows_of"]


class Names:
    """What the numbers of a simulation stand for in the release.

    Args:
        simulation: Names sessions, schemes, channels and formats. Without it a session is called by
            its number, and an experiment by the position of its scheme.
        day: The date that times count from, as 2021-10-17; None for 1970-01-01 0:00.
        number: Which day of the simulation it is.

    Attributes:
        start: When the day begins, ns since the Unix epoch.
        settings: Of each experiment, by its id; empty without a simulation.
    """

    def __init__(self, simulation: Any, day: str | None, number: int) -> None:
        self.simulation, self.number = simulation, number
        self.start = 0 if day is None else start_of(day)
        self.settings: Mapping[int, Mapping[str, Any]] = (
            {} if simulation is None else dict(simulation.experiments)
        )

    def experiments(self, schemes: np.ndarray) -> np.ndarray:
        """expt_id of the schemes at some positions."""
        return np.array(list(self.settings), np.int64)[schemes] if self.settings else schemes

    def sessions(self, numbers: np.ndarray) -> list[str]:
        """session_id of each session; every one is asked for once."""
        if self.simulation is None:
            return [str(number) for number in numbers.tolist()]
        different, place = np.unique(numbers, return_inverse=True)
        ids = np.array(list(self.simulation.session_ids(self.number, different)), dtype=object)
        return list(ids[place])

    def table(self, kind: str, rows: np.ndarray) -> pl.DataFrame:
        """Rows of `rows_of` in the columns of ``layout.TABLES``; SSIM that is missing is null."""
        pl = polars("writing a Puffer day")
        channel = rows["channel"].astype(np.int64)
        columns: dict[str, Any] = {}
        for name in TABLES[kind].names:
            if name == "time":
                columns[name] = rows[name] + self.start
            elif name == "session_id":
                columns[name] = self.sessions(rows["session"])
            elif name == "expt_id":
                columns[name] = self.experiments(rows["scheme"].astype(np.int64))
            elif name == "channel":
                columns[name] = np.array(self.simulation.channels, dtype=object)[channel]
            elif name == "event":
                columns[name] = np.array(EVENTS, dtype=object)[rows[name]]
            elif name == "format":
                formats = self.simulation.formats
                first = np.cumsum([0, *map(len, formats)])
                ladders = np.array([name for ladder in formats for name in ladder], dtype=object)
                columns[name] = ladders[first[channel] + rows[name]]
            else:
                columns[name] = np.ascontiguousarray(rows[name])
        types = types_of(kind)
        table = pl.DataFrame(columns, schema_overrides=types)
        coded = [name for name in table.columns if name == "ssim_index"]
        return table.with_columns(pl.col(coded).fill_nan(None))


class BlockSource:
    """The chunks of a simulation's blocks, a source for ``chunks.chunks_of``.

    Args:
        blocks: As ``simulation.day`` returns them, recorded "chunks" or "all".
        names: What their numbers stand for.
        columns: Those of video_sent to keep besides what names a chunk.
    """

    def __init__(
        self, blocks: Iterable[Any], names: Names, columns: Iterable[str] = CHUNK_INPUTS
    ) -> None:
        self.names = names
        self.span = (names.start, names.start + DAY)
        own = ("time", "session", "index", "video_ts")
        self._kept = {"video_sent": (*own, *columns), "video_acked": own}
        self._parts: dict[str, list[Mapping[str, np.ndarray]]] = {kind: [] for kind in self._kept}
        self._schemes: list[np.ndarray] = []
        for block in blocks:
            for kind, kept in self._kept.items():
                table = getattr(block, kind)
                self._parts[kind].append({name: np.asarray(table[name]) for name in kept})
            self._schemes.append(_schemes_of(block, block.video_sent["session"]))

    def sent(self) -> pl.DataFrame:
        """See ``chunks.Source``."""
        schemes = np.concatenate((np.empty(0, np.int64), *self._schemes)).astype(np.int64)
        return self._rows("video_sent", expt_id=self.names.experiments(schemes))

    def acked(self) -> pl.DataFrame:
        """See ``chunks.Source``."""
        return self._rows("video_acked")

    def experiments(self) -> Mapping[int, Experiment]:
        """See ``chunks.Source``."""
        return {
            number: Experiment(number, scheme_name(entry), entry.get("cc"), entry)
            for number, entry in self.names.settings.items()
        }

    def named(self, streams: pl.DataFrame) -> pl.DataFrame:
        """See ``chunks.Source``."""
        pl = polars("reading a simulated day")
        names = self.names.sessions(streams["session_id"].to_numpy())
        return streams.with_columns(pl.Series("session_id", names, dtype=pl.String))

    def _rows(self, kind: str, **more: np.ndarray) -> pl.DataFrame:
        """By time, those of equal times as they come: so they stand in a file."""
        pl = polars("reading a simulated day")
        parts = self._parts[kind]
        columns = {
            name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0, np.int64)
            for name in self._kept[kind]
        }
        columns["time"] = columns["time"] + self.names.start
        columns["session_id"] = columns.pop("session")
        table = pl.DataFrame({**columns, **more}).sort("time", maintain_order=True)
        return table.with_row_index("row")


def rows_of(block: Any, kind: str) -> np.ndarray:
    """A block's table as one array of records, with the scheme of each row's session."""
    columns = {name: np.asarray(column) for name, column in getattr(block, kind).items()}
    columns["scheme"] = _schemes_of(block, columns["session"]).astype(np.int64)
    types = [(name, column.dtype) for name, column in columns.items()]
    return np.rec.fromarrays([*columns.values()], dtype=types)


def _schemes_of(block: Any, sessions: np.ndarray) -> np.ndarray:
    """Position of the scheme of each session, with repetitions."""
    known = np.asarray(block.sessions["session"])
    order = np.argsort(known)
    return np.asarray(block.sessions["scheme"])[order[np.searchsorted(known[order], sessions)]]
