"""How a day compares with what is published about Puffer: a tidy table of quantities.

``Calibration.table`` has a row for each published number: what was found, how the two compare, and
whether that lies within the stated tolerance. Nothing is fitted here: a simulator is tuned until
its rows hold, and a new day of real data is read the same way.

Sources: Yan et al., "Learning in situ: a randomized experiment in video streaming", NSDI 2020; the
normaliser of the predictor that Puffer trained on 2019-02-02 (moments of 13.5 million samples); the
chunk sizes in Puffer's server; the delivery rates of two Puffer days, 2021-10-17 and 2022-02-18.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memento.errors import SettingError
from memento.samples import Samples
from memento_puffer.data.layout import CHUNK_INPUTS, CHUNK_TICKS, NOT_MEASURED, scaled
from memento_puffer.data.schema import Day
from memento_puffer.predictor.transmission import CLASSES, class_of
from memento_puffer.published import FOLDER, PRIMARY
from memento_puffer.quality import qoe
from memento_puffer.streaming.observed import MB, Observed
from memento_puffer.streaming.trace_statistics import (
    gaps,
    mean_of,
    moments_of,
    outages,
    readings,
    selected,
    spread_of,
    stalls,
)
from memento_puffer.streaming.traces import Traces

__all__ = ["Calibration", "calibrate"]

Floats = npt.NDArray[np.float64]
Key = tuple[str, str, str]  # section, quantity, group

_BUCKETS = (0.5, 0.75, 1.25, 2.0, 2.75)  # MB/s, limits between groups of streams
_BUCKET_NAMES = ("0.3-0.5", "0.5-0.75", "0.75-1.25", "1.25-2", "2-2.75", "2.75-3.6")
_MOST = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)  # %
_FUGU = "Yan et al. 2020"
# Percentages of sessions whose mean rates are published.
_PATHS = (*(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 95, 98, 99),)
_UNITS = {"stall ratio": "%", "SSIM": "dB"}


class Published(NamedTuple):
    """A published number.

    Attributes:
        section: What it is about.
        quantity: What it says, with its unit.
        group: A scheme, or a range of rates in MB/s; "" for all.
        value: The number.
        tolerance: The largest factor between the two numbers ("ratio"), or the largest absolute
            difference ("difference").
        how: "ratio" or "difference".
        source: Where it is published.
        low: Lower end of its 95 % interval; NaN if none is published.
        high: Upper end.
    """

    section: str
    quantity: str
    group: str
    value: float
    tolerance: float
    how: str
    source: str
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True, eq=False)
class Calibration:
    """Published numbers beside what was found.

    Attributes:
        table: A row for each published number: ``section``, ``quantity``, ``group`` (scheme or
            range of rates, "" for all), ``published``, ``found`` (NaN where the day does not say),
            ``low`` and ``high`` (95 % interval of what was found, NaN where none was made),
            ``ratio`` found / published, ``difference`` found - published, ``how`` ("ratio" or
            "difference": by which of the two it is judged), ``tolerance``, ``within``, ``source``.
    """

    table: Samples = field(repr=False)

    @property
    def within(self) -> tuple[int, int]:
        """How many rows lie within their tolerance, and how many were found at all."""
        there = ~np.isnan(self.table["found"])
        return int((self.table["within"] & there).sum()), int(there.sum())

    def to_table(self) -> dict[str, list[Any]]:
        """Columns as lists of plain values."""
        return {name: column.tolist() for name, column in self.table.items()}

    def to_markdown(self, *sections: str) -> str:
        """The table, one heading and a table for each section.

        Args:
            sections: Which; all if none is named.

        Raises:
            SettingError: There is no such section.
        """
        known = list(dict.fromkeys(self.table["section"].tolist()))
        if unknown := [name for name in sections if name not in known]:
            raise SettingError(f"section {unknown[0]!r}; give some of {', '.join(known)}")
        lines = []
        for section in sections or known:
            lines += ["", f"### {section.capitalize()}", ""]
            lines += ["| quantity | group | published | found | compared | | source |"]
            lines += ["|---|---|---|---|---|---|---|"]
            part = self.table.take(self.table["section"] == section)
            for i in range(part.size):
                row = {name: part[name][i] for name in part}
                found = "-" if np.isnan(row["found"]) else f"{row['found']:.4g}"
                if not np.isnan(row["low"]):
                    found += f" [{row['low']:.4g}, {row['high']:.4g}]"
                compared, verdict = "-", "not known"
                if not np.isnan(row["found"]):
                    times = row["how"] == "ratio"
                    compared = f"x {row['ratio']:.2f}" if times else f"{row['difference']:+.3g}"
                    verdict = "within" if row["within"] else "**off**"
                cells = (row["quantity"], row["group"], f"{row['published']:.4g}", found)
                lines.append(f"| {' | '.join(map(str, cells))} | {compared} | {verdict} | "
                             f"{row['source']} |")  # fmt: skip
        return "\n".join(lines).lstrip("\n") + "\n"

    def __repr__(self) -> str:
        within, found = self.within
        return f"<Calibration: {within} of {found} numbers within their tolerance>"


def calibrate(
    source: Observed | Traces | Day | str | Path,
    *,
    rng: np.random.Generator | None = None,
    realisations: int = 1000,
    schemes: Mapping[str, str] = PRIMARY,
) -> Calibration:
    """Compare a day with what is published.

    Args:
        source: A day or its folder; what ``Observed.of_blocks`` made; or ``Traces``, for the
            numbers that follow from send times and readings alone.
        rng: Draws the intervals of schemes; a generator seeded with 0 if left out.
        realisations: Number of draws behind an interval, see ``qoe.scheme_statistics``.
        schemes: What the schemes of the settings are called in the published comparison.

    Raises:
        SchemaError, DamagedError, StorageError: As ``Observed.of_day``.
        SettingError: No realisations.

    Example:
        >>> times = np.tile(np.arange(60) * 2.0, 3)
        >>> traces = Traces(np.repeat([0, 1, 2], 60), times, np.full(180, 1.5))
        >>> table = calibrate(traces).table
        >>> row = table["quantity"] == "gap p50, s"
        >>> table["published"][row], table["found"][row], table["within"][row]
        (array([2.]), array([2.]), array([ True]))
    """
    measured: dict[Key, float] = {}
    bounded: dict[Key, tuple[float, float, float]] = {}
    published = list(PUBLISHED)
    if isinstance(source, (str, Path, Day)):
        source = Observed.of_day(source)
    if isinstance(source, Observed):
        for section, measure in _SECTIONS.items():
            measured |= {(section, name, ""): value for name, value in measure(source).items()}
        if source.played and (kept := _streams_that_count(source)).any():
            rng = rng if rng is not None else np.random.default_rng(0)
            bounded, plain = _of_schemes(source, kept, rng, realisations)
            present = [str(s) for s in np.unique(source.streams["scheme"]) if str(s) in schemes]
            for scheme in present:
                rows = (row for row in _SCHEMES if row.group == schemes[scheme])
                published += [row._replace(group=scheme, low=np.nan, high=np.nan) for row in rows]
            orders, outcomes = _orders(present, schemes, bounded)
            published += orders
            measured |= plain | outcomes | {key: three[0] for key, three in bounded.items()}
        traces = selected(source.traces())
    else:
        traces = selected(source)
    if traces is not None:
        measured |= _of_traces(traces)
    lines: list[tuple[Any, ...]] = []
    for row in published:
        key = (row.section, row.quantity, row.group)
        value = measured.get(key, np.nan)
        _, low, high = bounded.get(key, (np.nan, np.nan, np.nan))
        ratio = value / row.value if row.value else np.nan
        difference = value - row.value
        if row.how == "ratio":
            within = 1 / row.tolerance <= ratio <= row.tolerance
        else:
            within = abs(difference) <= row.tolerance
        cells = (row.section, row.quantity, row.group, row.value, value, low, high, ratio)
        lines.append((*cells, difference, row.how, row.tolerance, bool(within), row.source))
    columns = zip(_TABLE, zip(*lines, strict=True), strict=True)
    return Calibration(Samples.borrow({name: np.array(column) for name, column in columns}))


_TABLE = (
    *("section", "quantity", "group", "published", "found", "low", "high", "ratio"),
    *("difference", "how", "tolerance", "within", "source"),
)


# ----------------------------------------------------------------------------------------------
# What was found, by quantity


def _of_chunks(observed: Observed) -> dict[str, float]:
    """Moments of what the predictor knows of a chunk, and shares of classes of time."""
    chunks = observed.chunks
    took = chunks["trans_time"]
    acked = ~np.isnan(took)
    values = {}
    for name in CHUNK_INPUTS:
        unit, scale = scaled(name)
        rows = acked & (chunks[name] != NOT_MEASURED) if name == "min_rtt" else acked
        values[f"{name}, {unit}"] = chunks[name][rows] / scale
    # As in inputs of the predictor: 0 where there is no chunk before.
    before = np.zeros(len(took))
    follows = np.zeros(len(took), bool)
    follows[1:] = (chunks["stream"][1:] == chunks["stream"][:-1]) & acked[:-1]
    follows[1:] &= np.diff(chunks["video_ts"]) == CHUNK_TICKS
    before[1:] = np.where(follows[1:], took[:-1], 0.0)
    values["previous trans_time, s"] = before[acked]
    out: dict[str, float] = {}
    for name, column in values.items():
        if len(column):
            out |= {f"{name}, mean": float(column.mean()), f"{name}, sd": float(column.std())}
    if acked.any():
        classes = np.bincount(class_of(took[acked]), minlength=CLASSES) / acked.sum()
        out |= {f"trans_time, share of class {k}": float(classes[k]) for k in (0, 1, 2, 20)}
    return out


def _of_content(observed: Observed) -> dict[str, float]:
    """Sizes and SSIM of encodings, how they vary and how they go together."""
    if not observed.encoded:
        return {}
    tables = list(observed.encoded.values())
    rungs = min(sizes.shape[1] for sizes, _ in tables)
    smallest, adjacent, correlations, spreads, with_quality = [], [], [], [], []
    size_means = np.array([np.nanmean(sizes[:, :rungs], axis=0) for sizes, _ in tables])
    ssim_means = np.array([np.nanmean(ssim[:, :rungs], axis=0) for _, ssim in tables])
    out: dict[str, float] = {}
    for k in range(rungs):
        out[f"rung {k}, mean bytes"] = float(size_means[:, k].mean())
        out[f"rung {k}, dB of mean SSIM"] = float(qoe.quality(ssim_means[:, k].mean()))
    for sizes, ssim in tables:
        q = qoe.quality(ssim[:, 0])
        smallest.append(q[np.isfinite(q)])
        log = np.log(sizes)
        adjacent.append(np.diff(log, axis=1).ravel())
        scene = log.mean(axis=1)
        there = np.isfinite(scene) & np.isfinite(q)
        # Encoders that skip a chunk leave a hole; few enough to close it.
        scene, q = scene[there], q[there]
        if len(scene) > 2:
            spreads.append(scene.std())
            correlations.append(np.corrcoef(scene[1:], scene[:-1])[0, 1])
            with_quality.append(np.corrcoef(scene, q)[0, 1])
    low = np.concatenate(smallest)
    out |= spread_of("smallest rung, dB", low, _MOST)
    steps = np.exp(np.concatenate(adjacent))
    steps = steps[np.isfinite(steps)]
    inside = (steps >= 1.2) & (steps <= 2.9)
    return out | {
        "smallest rung, dB, mean": mean_of(low),
        "smallest rung, dB, sd": float(low.std()) if len(low) else np.nan,
        "size of a rung / the one below in [1.2, 2.9], share": mean_of(inside),
        "log scene factor, sd": mean_of(np.array(spreads)),
        "log scene factor, lag 1": mean_of(np.array(correlations)),
        "log scene factor with dB, correlation": mean_of(np.array(with_quality)),
    }


def _of_viewers(observed: Observed) -> dict[str, float]:
    """Times on the site, streams of a session, startup delays."""
    streams = observed.streams
    if not observed.played or not streams.size:
        return {}
    there = np.where(np.isnan(streams["watch"]), 0.0, streams["watch"] + streams["startup"])
    session = np.unique(streams["session"], return_inverse=True)[1]
    on_site = np.bincount(session, there)
    on_site = on_site[on_site > 0]
    sessions, begun = observed.visits
    considered = streams.take(streams["considered"])
    cold = streams["startup"][streams["cold"]]
    cold = cold[~np.isnan(cold)]
    return {
        **spread_of("time on site, s", on_site, _MOST),
        "time on site, s, mean": mean_of(on_site),
        "streams per session": begun / sessions,
        "streams watched < 4 s, share": 1 - streams["considered"].sum() / begun,
        "watch of considered streams, s, mean": mean_of(considered["watch"]),
        "considered streams with a stall, share": mean_of(considered["stall"] > 0),
        **spread_of("startup delay, s", cold, (5, 25, 50, 75, 90, 95, 99, 99.9)),
        "startup delay, s, mean": mean_of(cold),
    }


def _of_paths(observed: Observed) -> dict[str, float]:
    """Mean rates of sessions, and what slow streams are of all."""
    chunks, streams = observed.chunks, observed.streams
    m = streams.size
    rate, stream = chunks["delivery_rate"].astype(np.float64), chunks["stream"]
    total = np.bincount(stream, rate, minlength=m)
    number = np.bincount(stream, minlength=m)
    means = observed.mean_rates
    if means is None:
        session = np.unique(streams["session"], return_inverse=True)[1]
        means = qoe.ratios_of(np.bincount(session, total), np.bincount(session, number))
    out = spread_of("session mean, Mbit/s", 8 * means / MB, _PATHS)
    if not observed.played:
        return out
    kept = streams["considered"] & (number > 0)
    slow = kept & (qoe.ratios_of(total, number) <= qoe.SLOW_RATE)
    return out | {
        "slow streams, share": _weighted_share(slow, kept, np.ones(m)),
        "slow streams, share of watch time": _weighted_share(slow, kept, streams["watch"]),
        "slow streams, share of stall time": _weighted_share(slow, kept, streams["stall"]),
    }


_SECTIONS: dict[str, Callable[[Observed], dict[str, float]]] = {
    "chunks": _of_chunks,
    "content": _of_content,
    "viewers": _of_viewers,
    "paths": _of_paths,
}


def _of_traces(traces: Traces) -> dict[Key, float]:
    """What send times and readings say, of all streams and by their mean rates."""
    measured: dict[Key, float] = {}
    measured |= {("readings", name, ""): value for name, value in readings(traces).items()}
    for name, value in gaps(traces).items():
        measured["gaps", f"{name}, s" if _is_seconds(name) else name, ""] = value
    bucket = np.digitize(moments_of(traces, traces.rate).mean, _BUCKETS)
    length = np.diff(traces.offsets)
    duration = traces.seconds[traces.offsets[1:] - 1]
    out, stalled = outages(traces), stalls(traces)
    number = np.bincount(out["stream"], minlength=traces.streams)
    time = np.bincount(stalled["stream"], stalled["duration"], minlength=traces.streams)
    for k, group in enumerate(_BUCKET_NAMES):
        inside = bucket == k
        if inside.any():
            per_chunk = 1000 * number[inside].sum() / length[inside].sum()
            measured["outages", "per 1000 chunks", group] = per_chunk
            measured["stalls", "streams with one, share", group] = mean_of(time[inside] > 0)
            share = _percentage(time[inside].sum(), duration[inside].sum())
            measured["stalls", "% of time", group] = share
    worst = np.sort(time)[::-1][: max(1, len(time) // 100)]
    of_all = {
        "outages": {
            "streams with one, share": mean_of(number > 0),
            "per 1000 chunks": 1000 * out.size / traces.size,
            "per hour": 3600 * out.size / duration.sum() if duration.sum() else np.nan,
            **spread_of("duration, s", out["duration"], (50, 75, 90, 99)),
        },
        "stalls": {
            "streams with one, share": mean_of(time > 0),
            "% of time": _percentage(time.sum(), duration.sum()),
            **spread_of("duration, s", stalled["duration"], (50, 75, 90, 99)),
            "share of the worst 1 % of streams": (
                worst.sum() / time.sum() if time.any() else np.nan
            ),
        },
    }
    for section, values in of_all.items():
        measured |= {(section, name, ""): value for name, value in values.items()}
    return measured


def _streams_that_count(observed: Observed) -> np.ndarray:
    """Which streams count for their scheme."""
    streams = observed.streams
    sent = np.zeros(streams.size, bool)
    sent[observed.chunks["stream"]] = True
    return np.asarray(sent & streams["considered"] & (streams["stall"] >= 0))


def _of_schemes(
    observed: Observed, kept: np.ndarray, rng: np.random.Generator, realisations: int
) -> tuple[dict[Key, tuple[float, float, float]], dict[Key, float]]:
    """Values of schemes with the ends of their intervals, and those without."""
    chunks, streams = observed.chunks, observed.streams
    rows = kept[chunks["stream"]]
    names = ("stream", "ssim_index", "size", "delivery_rate")
    table = qoe.quality_statistics(Samples.borrow({name: chunks[name][rows] for name in names}))
    part = streams.take(table["stream"]).select(("scheme", "watch", "stall", "cold"))
    part = part.with_columns({n: table[n] for n in ("ssim", "delta_ssim", "slow", "bitrate")})
    part = part.take(~np.isnan(part["ssim"]))
    bounded: dict[Key, tuple[float, float, float]] = {}
    for suffix, some in (("", part), (", slow paths", part.take(part["slow"]))):
        if not some.size:
            continue
        table = qoe.scheme_statistics(
            some.select(("scheme", "watch", "stall", "ssim", "delta_ssim")),
            rng=rng,
            realisations=realisations,
            watch_times=None,
        )
        measures = {
            f"stall ratio{suffix}, %": ("stall_ratio", "stall", 100.0),
            f"SSIM{suffix}, dB": ("ssim", "ssim", 1.0),
            **({} if suffix else {"change of SSIM, dB": ("delta_ssim", "delta_ssim", 1.0)}),
        }
        for i, scheme in enumerate(table["scheme"]):
            for quantity, (value, bound, scale) in measures.items():
                three = (table[column][i] for column in (value, f"{bound}_low", f"{bound}_high"))
                low_to_high = tuple(scale * float(number) for number in three)
                bounded["schemes", quantity, str(scheme)] = low_to_high  # type: ignore[assignment]
    first = np.flatnonzero(np.diff(chunks["stream"], prepend=-1))
    first = first[streams["cold"][chunks["stream"][first]]]
    first_q = qoe.quality(chunks["ssim_index"][first])
    first_scheme = streams["scheme"][chunks["stream"][first]]
    plain: dict[Key, float] = {}
    for scheme in np.unique(part["scheme"]):
        name, mine = str(scheme), part["scheme"] == scheme
        rate = np.average(part["bitrate"][mine], weights=part["watch"][mine]) / MB
        plain["schemes", "bitrate, Mbit/s", name] = float(rate)
        q = first_q[(first_scheme == scheme) & np.isfinite(first_q)]
        plain["schemes", "first chunk, dB", name] = mean_of(q)
        delay = streams["startup"][streams["cold"] & (streams["scheme"] == scheme)]
        plain["schemes", "startup delay, s", name] = mean_of(delay[~np.isnan(delay)])
    return bounded, plain


def _orders(
    present: list[str],
    names: Mapping[str, str],
    bounded: Mapping[Key, tuple[float, float, float]],
) -> tuple[list[Published], dict[Key, float]]:
    """Pairs of schemes whose order the published intervals tell, and whether it is found."""
    published, holds = [], {}
    for measure, unit in _UNITS.items():
        quantity = f"{measure}, {unit}"
        bounds = {row.group: row for row in _SCHEMES if row.quantity == quantity}
        for a in present:
            for b in present:
                if bounds[names[a]].high >= bounds[names[b]].low:
                    continue
                key = ("orderings", measure, f"{a} < {b}")
                published.append(Published(*key, 1.0, 0.0, "difference", _FUGU))
                x, y = (bounded.get(("schemes", quantity, scheme)) for scheme in (a, b))
                if x is not None and y is not None:
                    holds[key] = float(x[0] < y[0])
    return published, holds


def _percentage(above: float, below: float) -> float:
    return float(100 * above / below) if below > 0 else float("nan")


def _weighted_share(part: np.ndarray, whole: np.ndarray, weight: Floats) -> float:
    total = weight[whole].sum()
    return float(weight[part].sum() / total) if total > 0 else float("nan")


def _is_seconds(name: str) -> bool:
    return name.startswith(("gap p", "first seven gaps", "first fill"))


# ----------------------------------------------------------------------------------------------
# What is published


def _read_published() -> Iterator[Published]:
    with open(FOLDER / "calibration.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = ("value", "tolerance", "low", "high")
            typed: dict[str, Any] = {**row, **{name: float(row[name] or "nan") for name in numbers}}
            yield Published(**typed)


_ALL = tuple(_read_published())
PUBLISHED = tuple(row for row in _ALL if row.section != "schemes")
_SCHEMES = tuple(row for row in _ALL if row.section == "schemes")
