"""Small days as Puffer published them, in each of their historical forms, with what is true.

Those of `write` are made by hand, those of a `Short` simulation by players.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl

from memento_puffer.data.schema import Day, range_of, write_day
from memento_puffer.streaming.abr import BBA, BOLA
from memento_puffer.streaming.simulator import Block, Scheme, Simulation

STEP = 180180
FORMATS = ("426x240-26", "854x480-24", "1280x720-22")
LABELS = {1: "linear_bba", 2: "puffer_ttp_20190202", 3: "fugu_variant_cl3"}
VARIANTS = ("now", "side", "old", "oldest")  # see `write`
Rows = dict[str, list]


@dataclass
class Stream:
    """One stream: its messages and chunks, in s since it began."""

    session: str
    index: int
    expt: int
    begin: int  # ns
    events: list[tuple[float, str, float, float]]  # s, event, buffer, cum_rebuf
    chunks: list[dict] = field(default_factory=list)  # sent, trans_time or None, and columns

    @property
    def startup(self) -> float:
        return next((e[3] for e in self.events if e[1] == "startup"), np.nan)


def start_of(name: str) -> int:
    first = dt.datetime.fromisoformat(f"{name}T11:00:00+00:00")
    return int(first.timestamp()) * 10**9


def play(rng: np.random.Generator, seconds: float, stalls: list[tuple[float, float]], startup=0.5):
    """Messages every 250 ms, from init on; stalls are (begin, length) after the startup."""

    def waited(t: float) -> float:
        after = t - startup
        return startup + sum(min(max(after - b, 0.0), length) for b, length in stalls)

    def empty(t: float) -> bool:
        return any(b <= t - startup < b + length for b, length in stalls)

    times = {startup + 0.25 * i: "timer" for i in range(1, int(4 * (seconds - startup)))}
    for b, length in stalls:
        times[startup + b] = "rebuffer"
        times[startup + b + length] = "play"
    events = [(0.0, "init", 0.0, 0.0), (startup, "startup", 2.0, startup)]
    later = [(t, times[t], 0.0 if empty(t) else 3.0, round(waited(t), 6)) for t in sorted(times)]
    return events + later


def made_streams(name: str, sessions: int = 12, seed: int = 0) -> list[Stream]:
    """Sessions of one or two streams over three schemes; some stall, some lack acknowledgements."""
    rng = np.random.default_rng([seed, int(name.replace("-", ""))])
    streams = []
    for number in range(sessions):
        begin = start_of(name) + int(rng.integers(60, 40_000)) * 10**9
        slower = 20 if number % 5 == 0 else 1
        for index in range(1 + int(rng.random() < 0.4)):
            seconds = float(rng.uniform(5, 60))
            stalls, at = [], 1.0
            while rng.random() < 0.5 and at < seconds - 4:
                length = float(rng.choice([0.25, 1.0, 2.5]))
                stalls.append((at, length))
                at += length + float(rng.choice([2.0, 5.0]))
            startup = float(rng.choice([0.25, 0.5, 1.5]))
            events = play(rng, seconds, stalls, startup)
            stream = Stream(f"s{number:03d}=", index, 1 + number % 3, begin, events)
            first = int(rng.integers(1, 1000)) * STEP
            for i in range(int(seconds / 2.002) + 1):
                t = 0.05 + 2.002 * i
                client = [e for e in events if e[0] <= t][-1]
                stream.chunks.append(
                    {
                        "sent": t,
                        "trans_time": None if rng.random() < 0.05 else float(rng.lognormal(-1, 1)),
                        "video_ts": first + i * STEP,
                        "format": FORMATS[int(rng.integers(3))],
                        "size": int(rng.integers(30_000, 900_000)),
                        "ssim_index": round(float(rng.uniform(0.9, 0.99)), 6),
                        "cwnd": int(rng.integers(10, 500)),
                        "in_flight": int(rng.integers(0, 9)),
                        "min_rtt": int(rng.integers(5_000, 50_000)),
                        "rtt": int(rng.integers(50_000, 90_000)),
                        "delivery_rate": int(rng.integers(100_000, 5_000_000)) // slower,
                        "buffer": client[2],
                        "cum_rebuf": client[3],
                    }
                )
            streams.append(stream)
            begin += int((seconds + 2) * 1e9)
    return streams


def tables_of(streams: list[Stream]) -> dict[str, pl.DataFrame]:
    """video_sent, video_acked, client_buffer and the encoder's two, in today's form."""
    sent, acked, client, encoded = [], [], [], []
    for stream in streams:
        key = {"session_id": stream.session, "index": stream.index, "expt_id": stream.expt}
        key["channel"] = "nbc"
        for t, event, buffer, waited in stream.events:
            row = {"time": stream.begin + round(t * 1e9), **key, "event": event}
            client.append({**row, "buffer": buffer, "cum_rebuf": waited})
        for chunk in stream.chunks:
            values = {k: v for k, v in chunk.items() if k not in ("sent", "trans_time")}
            when = stream.begin + round(chunk["sent"] * 1e9)
            sent.append({"time": when, **key, **values})
            state = {"buffer": chunk["buffer"], "cum_rebuf": chunk["cum_rebuf"]}
            if chunk["trans_time"] is not None:
                then = when + round(chunk["trans_time"] * 1e9)
                acked.append({"time": then, **key, "video_ts": chunk["video_ts"], **state})
            what = {n: values[n] for n in ("format", "video_ts", "size", "ssim_index")}
            encoded.append({"time": when - 3 * 10**9, "channel": "nbc", **what})
    both = pl.DataFrame(encoded).sort("time") if encoded else None
    made = {
        "video_sent": pl.DataFrame(sent).sort("time", maintain_order=True),
        "video_acked": pl.DataFrame(acked).sort("time", maintain_order=True),
        "client_buffer": pl.DataFrame(client).sort("time", maintain_order=True),
    }
    if both is not None:
        made |= {"video_size": both.drop("ssim_index"), "ssim": both.drop("size")}
    return made


def write(folder: Path, name: str, streams: list[Stream], variant: str = "now") -> Day:
    """A day in one of the historical forms.

    now: as since 2021-06-12. side: before, with buf_video_sent. old: before, without it. oldest:
    SSIM in dB and schemes named by abr_algorithm as well.
    """
    tables = tables_of(streams)
    settings: dict[int, dict] = {
        n: {"abr": "x", "abr_name": label, "cc": "bbr"} for n, label in LABELS.items()
    }
    if variant != "now":
        if variant == "side":
            tables["buf_video_sent"] = tables["video_sent"].select(
                "time", "session_id", "index", "expt_id", "channel", "video_ts", "buffer",
                "cum_rebuf",
            )  # fmt: skip
        for kind in ("video_sent", "video_acked"):
            tables[kind] = tables[kind].drop("buffer", "cum_rebuf")
    if variant == "oldest":
        settings = {n: {"abr_algorithm": label} for n, label in LABELS.items()}
    day = write_day(folder, name, tables, settings)
    if variant == "oldest":
        path = folder / f"video_sent_{range_of(name)}.csv"
        decibels = (-10 * (1 - pl.col("ssim_index")).log10()).alias("ssim")
        table = pl.read_csv(path).with_columns(decibels).drop("ssim_index")
        table.write_csv(path)
    return day


SIMULATED: dict[tuple, list[Block]] = {}


class Short:
    """A simulation with little on the air, so that not all of a day's content is written."""

    def __init__(self, chunks=60):
        schemes = [Scheme("linear_bba", BBA()), Scheme("bola_basic_v1", BOLA(), cc="cubic")]
        self._whole = Simulation(schemes, seed=5)
        self.content = SimpleNamespace(
            day=lambda number, channel: tuple(
                table[:chunks] for table in self._whole.content.day(number, channel)
            )
        )

    def __getattr__(self, name):
        return getattr(self._whole, name)

    def day(self, number, **options):
        options = {"sessions": 14, "block": 5, **options}
        key = (number, *sorted(options.items()))
        if key not in SIMULATED:  # once for all tests: they are about files
            SIMULATED[key] = list(self._whole.day(number, **options))
        return iter(SIMULATED[key])
