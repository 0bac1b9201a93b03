"""The daily analysis of a deployment: from the folder of a day to tidy tables, per scheme.

    analyze        day after day: every stream, the daily statistics, the scores of predictions
    analyze_day    the same for one day
    check_complete whether a day has the files for it
    gather         the tables of several days, one after the other
    scheme_of      what the label of a scheme in the experiment settings stands for on a day

One day is held at a time. What a day leaves behind is small: a row per stream and some thousand
numbers, which ``aggregates`` makes totals, series and comparisons of.

Sources: the daily analysis of the Memento paper; Yan et al., "Learning in situ: a randomized
experiment in video streaming", NSDI 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memento.days import days_from
from memento.errors import SchemaError, SettingError
from memento.samples import Samples
from memento_puffer.data.chunks import floats
from memento_puffer.data.features import HORIZONS, Features, features_and_chunks
from memento_puffer.data.joins import (
    ClientEvents,
    client_events,
    startup_delays,
    viewers_of,
    with_client,
    with_encodings,
)
from memento_puffer.data.schema import Day, polars
from memento_puffer.predictor.network import softmax
from memento_puffer.predictor.scores import score, summarise
from memento_puffer.predictor.ttp import Ttp
from memento_puffer.quality.qoe import (
    daily_statistics,
    quality_statistics,
    statistics_of_events,
)

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "LABELS",
    "DayAnalysis",
    "Label",
    "analyze",
    "analyze_day",
    "check_complete",
    "gather",
    "scheme_of",
]

Floats = npt.NDArray[np.float64]
Models = Mapping[str, Ttp | Mapping[str, Ttp] | Callable[[str], Ttp | None]]

_SCORES = ("y", "y_hat", "logscore", "error", "error_rel")
_NEEDED = ("video_sent", "video_acked", "client_buffer")
_SAMPLES_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Label:
    """What the experiment settings of some days call a scheme.

    Attributes:
        abr: The label in the settings.
        scheme: The name to use.
        first: First day on which it means this, as 2022-09-19; None: from the beginning.
        last: Last such day; None: to the end.
    """

    abr: str
    scheme: str
    first: str | None = None
    last: str | None = None


LABELS: tuple[Label, ...] = (
    Label("linear_bba", "bba"),
    Label("puffer_ttp_cl", "fugu"),
    Label("puffer_ttp_20190202", "fugu-feb"),
    # Memento's two variants got new labels in the course of their deployment.
    Label("fugu_variant_cl", "memento"),
    Label("fugu_variant_cl3", "memento"),
    Label("fugu_variant_cl2", "memento-deterministic"),
    Label("fugu_variant_cl4", "memento-deterministic"),
    Label("unagi", "gelato"),
    Label("maguro", "gelato-plume"),
)


def scheme_of(abr: str | None, day: str, labels: Sequence[Label] = LABELS) -> str:
    """The name of a scheme on a day.

    Args:
        abr: Its label in the experiment settings; None if these do not say.
        day: As 2022-09-19.
        labels: The first one that fits counts; put further ones in front.

    Returns:
        The name; the label itself if none fits; "unknown" without one.

    Example:
        >>> scheme_of("fugu_variant_cl3", "2022-10-01"), scheme_of("mpc", "2022-10-01")
        ('memento', 'mpc')
        >>> old = Label("fugu_variant_cl", "memento-old", last="2022-09-18")
        >>> scheme_of("fugu_variant_cl", "2022-05-03", [old, *LABELS])
        'memento-old'
    """
    if abr is None:
        return "unknown"
    for label in labels:
        first, last = label.first or "", label.last or "9"
        if label.abr == abr and first <= day <= last:
            return label.scheme
    return abr


@dataclass(frozen=True, eq=False)
class DayAnalysis:
    """What one day comes to. Column ``day`` is datetime64[D] in all tables.

    Attributes:
        day: As 2022-10-01.
        streams: A row per stream of which a chunk was sent: ``day``, ``scheme``, ``stream`` (number
            in the day), ``index`` (in its session), ``viewer`` (-1: unknown), the columns of
            ``qoe.stream_statistics`` (``bad`` is "no events" without any) and those of
            ``qoe.quality_statistics``.
        daily: The long table of ``qoe.daily_statistics``, with names of schemes in ``scheme``.
        scores: ``day``, ``scheme``, ``horizon``, ``variable``, ``metric``, ``value``, see
            ``scores.summarise``: each scheme's predictor on its own streams.
        counts: ``day``, ``count``, ``value``: what was met on the way, of ``Features.of_day``,
            ``joins.client_events``, ``joins.startup_delays``; and ``ssim_filled``, chunks whose
            SSIM was taken from the encoder's table, ``capped``, streams whose stall time was cut.
    """

    day: str
    streams: Samples
    daily: Samples
    scores: Samples
    counts: Samples = field(repr=False)


def analyze(
    days: Iterable[Day | str | Path],
    *,
    labels: Sequence[Label] = LABELS,
    models: Models | None = None,
    cc: str | None = None,
    source: str = "auto",
    sentinels: str = "clamp",
    progress: Callable[[str], None] | None = None,
) -> Iterator[DayAnalysis]:
    """Analyse days one after the other; arguments as for ``analyze_day``.

    Args:
        days: Days or their folders, best in order: the day before is asked for the encodings of a
            day's first chunks if it came just before.
        labels: What schemes are called.
        models: Predictors by scheme.
        cc: Keep only streams over this congestion control.
        source: Of the client's state.
        sentinels: What predictors do with a min_rtt never measured.
        progress: Called with the name of each day that is done.

    Yields:
        One analysis per day.
    """
    previous: Day | None = None
    for one in days:
        day = one if isinstance(one, Day) else Day(one)
        before = previous if previous is not None and _is_next_day(previous, day) else None
        yield analyze_day(
            day,
            labels=labels,
            models=models,
            previous=before,
            cc=cc,
            source=source,
            sentinels=sentinels,
        )
        if progress is not None:
            progress(_name_of_day(day))
        previous = day


def analyze_day(
    day: Day | str | Path,
    *,
    labels: Sequence[Label] = LABELS,
    models: Models | None = None,
    previous: Day | None = None,
    cc: str | None = None,
    source: str = "auto",
    sentinels: str = "clamp",
    progress: Callable[[float], None] | None = None,
) -> DayAnalysis:
    """Analyse one day.

    Args:
        day: The day or its folder, with experiment settings.
        labels: What schemes are called, see ``scheme_of``.
        models: By scheme, the predictor that it used: one for all days, one for each day (by name;
            days that are not there have no scores), or a function of the day's name that gives one
            or None.
        previous: The day before, see ``joins.with_encodings``.
        cc: Keep only streams over this congestion control.
        source: Where the client's state comes from, see ``joins.with_client``.
        sentinels: "clamp" or "keep", see ``ttp.Network.logits``.
        progress: Called with the share that is done, roughly.

    Raises:
        SettingError: A day without a name.
        SchemaError, DamagedError, StorageError: Of the day's files.
        StorageError: Also a file that is missing, experiment settings among them: without these
            no stream has a scheme.
    """
    day = day if isinstance(day, Day) else Day(day)
    name = _name_of_day(day)
    check_complete(day)
    tell = progress or (lambda share: None)
    date = np.datetime64(name, "D")
    features, chunks = features_and_chunks(day, cc=cc)
    tell(0.3)
    counts = dict(features.counts)
    chunks, counts["ssim_filled"] = _with_filled_ssim(chunks, day, previous)
    events = client_events(day, features.streams)
    _, of_startup = startup_delays(events)
    counts |= events.counts | of_startup
    chunks = with_client(chunks, events, day=day, streams=features.streams, source=source)

    schemes, of_stream = _schemes_of(features, name, labels)
    streams = _stream_table(features, chunks, events, day, date, schemes[of_stream])
    del events
    tell(0.7)
    limit = np.where(streams["bad"] == "no events", np.inf, streams["stall_limit"])
    capped = streams["considered"] & (streams["stall_capped"] < streams["stall"])
    counts["capped"] = int(capped.sum())

    columns = {
        "stream": features.stream,
        "ssim_index": floats(chunks["ssim_index"]),
        "cum_rebuf": floats(chunks["cum_rebuf"]),
        "startup": floats(chunks["startup"]),
        "trans_time": floats(chunks["trans_time"]),
    }
    del chunks
    columns["stall_limit"] = limit[features.stream]
    order = _order_of_sending(features)
    daily, scores = [], []
    for code, scheme in enumerate(schemes):
        of_scheme = of_stream[features.stream] == code
        rows = np.flatnonzero(of_scheme) if order is None else order[of_scheme[order]]
        part = {column: values[rows] for column, values in columns.items()}
        part["abr"] = np.full(len(rows), scheme)
        model = _model_of(models or {}, scheme, name)
        if model is not None:
            by_horizon = _scores_of_scheme(features, of_scheme, model, sentinels)
            place = np.full(features.size, -1, np.int64)
            place[of_scheme] = np.arange(of_scheme.sum())
            part |= {n: values[place[rows]] for n, values in by_horizon.items()}
            table = summarise(by_horizon, variables=_SCORES)
            scores.append(_labelled_table(table.take(table["horizon"] >= 0), date, str(scheme)))
        table = daily_statistics(part, date)
        daily.append(
            Samples.borrow({"scheme" if n == "abr" else n: values for n, values in table.items()})
        )
        tell(0.7 + 0.3 * (code + 1) / len(schemes))
    return DayAnalysis(
        name,
        streams,
        Samples.concat(daily) if daily else _empty(selection=str),
        Samples.concat(scores) if scores else _empty(horizon=np.int64),
        Samples.borrow(
            day=np.full(len(counts), date),
            count=np.array(list(counts), str),
            value=np.array(list(counts.values()), np.int64),
        ),
    )


def check_complete(day: Day) -> None:
    """Make sure that a day has the files that an analysis needs, without reading tables.

    Raises:
        StorageError: One is missing: a table, or the experiment settings.
        DamagedError: The settings cannot be read.
    """
    for kind in _NEEDED:
        day.path(kind)
    _ = day.experiments


def gather(parts: Iterable[DayAnalysis]) -> dict[str, Samples]:
    """The tables of several days, one after the other.

    Returns:
        ``streams``, ``daily``, ``scores``, ``counts``, each as in ``DayAnalysis``. Over years the
        streams take about a gigabyte; leave them on disk if that is too much.

    Raises:
        SchemaError: No day.
    """
    found = list(parts)
    if not found:
        raise SchemaError("no days to gather; analyse at least one")
    return {
        name: Samples.concat([getattr(part, name) for part in found])
        for name in ("streams", "daily", "scores", "counts")
    }


# ----------------------------------------------------------------------------------------------
# Parts of the above


def _name_of_day(day: Day) -> str:
    if day.name is None:
        raise SettingError(f"{day.folder}: which day is this? Give Day(folder, name='2022-10-01')")
    return day.name


def _is_next_day(first: Day, second: Day) -> bool:
    return days_from(_name_of_day(first), 2)[1] == _name_of_day(second)


def _with_filled_ssim(
    chunks: pl.DataFrame, day: Day, previous: Day | None
) -> tuple[pl.DataFrame, int]:
    """SSIM that video_sent lacks, from the encoder's table if there is one."""
    pl = polars("analysing a Puffer day")
    lacks = chunks["ssim_index"].null_count()
    if not lacks or ("ssim" not in day.files and previous is None):
        return chunks, 0
    gaps = chunks["ssim_index"].is_null()
    noted = with_encodings(chunks.filter(gaps), day, previous=previous)["encoded_ssim"]
    values = floats(chunks["ssim_index"]).copy()
    values[gaps.to_numpy()] = floats(noted)
    filled = pl.Series("ssim_index", values).fill_nan(None)
    return chunks.with_columns(filled), lacks - filled.null_count()


def _schemes_of(
    features: Features, day: str, labels: Sequence[Label]
) -> tuple[np.ndarray, npt.NDArray[np.int64]]:
    """Names of the day's schemes, and which of them each stream had."""
    abr = features.streams["abr"].to_list() if "abr" in features.streams.columns else []
    named = {one: scheme_of(one, day, labels) for one in set(abr)}
    schemes, code = np.unique(np.array([named[one] for one in abr], str), return_inverse=True)
    return schemes, code.reshape(-1)


def _order_of_sending(features: Features) -> npt.NDArray[np.int64] | None:
    """Rows by stream and sent time; None if they are so already."""
    later = features.sent[1:] >= features.sent[:-1]
    if (later | (features.stream[1:] != features.stream[:-1])).all():
        return None
    return np.lexsort((features.sent, features.stream))


def _stream_table(
    features: Features,
    chunks: pl.DataFrame,
    events: ClientEvents,
    day: Day,
    date: np.datetime64,
    schemes: np.ndarray,
) -> Samples:
    """A row per stream, in the order of ``features.streams``."""
    m = len(features.streams)
    columns: dict[str, np.ndarray] = {
        "day": np.full(m, date),
        "scheme": schemes,
        "stream": np.arange(m),
        "index": features.streams["index"].to_numpy().astype(np.int64),
        "viewer": np.full(m, -1, np.int64),
    }
    viewers = viewers_of(day)
    if viewers is not None:
        known = dict(zip(viewers["session_id"].to_list(), viewers["viewer"].to_list(), strict=True))
        sessions = features.streams["session_id"].to_list()
        columns["viewer"] = np.array([known.get(one, -1) for one in sessions], np.int64)

    for name, values in statistics_of_events(events).items():
        if name == "stream":
            rows = values
            continue
        kind = values.dtype
        absent: object = np.nan if kind.kind == "f" else ("" if kind.kind == "U" else 0)
        columns[name] = np.full(m, absent, "U16" if kind.kind == "U" else kind)
        columns[name][rows] = values
    silent = np.ones(m, bool)
    silent[rows] = False
    columns["bad"][silent] = "no events"

    order = _order_of_sending(features)
    sent = {
        "stream": features.stream,
        "ssim_index": floats(chunks["ssim_index"]),
        "size": floats(chunks["size"]),
        "delivery_rate": floats(chunks["delivery_rate"]),
    }
    whole = np.isfinite(sent["size"]) & np.isfinite(sent["delivery_rate"])
    if order is not None or not whole.all():
        kept = np.arange(features.size) if order is None else order
        kept = kept[whole[kept]]
        sent = {name: values[kept] for name, values in sent.items()}
    table = quality_statistics(sent)
    for name, values in table.items():
        if name == "stream":
            continue
        columns[name] = np.full(m, np.nan if values.dtype.kind == "f" else 0, values.dtype)
        columns[name][table["stream"]] = values
    return Samples.borrow(columns)


def _model_of(models: Models, scheme: str, day: str) -> Ttp | None:
    model = models.get(scheme)
    if model is None or isinstance(model, Ttp):
        return model
    return model.get(day) if isinstance(model, Mapping) else model(day)


def _scores_of_scheme(
    features: Features, of_scheme: npt.NDArray[np.bool_], model: Ttp, sentinels: str
) -> dict[str, Floats]:
    """Scores of the predictions of own chunks' times: (own chunks, horizons), NaN where missing."""
    count = int(of_scheme.sum())
    place = np.cumsum(of_scheme) - 1
    found = {name: np.full((count, HORIZONS), np.nan) for name in _SCORES}
    for horizon in range(HORIZONS):
        network = model[horizon].astype(np.float32)
        _, targets = features.samples(horizon)
        wanted = np.flatnonzero(of_scheme[targets])
        for start in range(0, len(wanted), _SAMPLES_AT_ONCE):
            take = wanted[start : start + _SAMPLES_AT_ONCE]
            columns = features.columns(horizon, take)
            # The softmax in double precision, so that small chances are not lost.
            logits = network.logits(columns["x"], sentinels=sentinels).astype(np.float64)
            rows = targets[take]
            y = (features.acked[rows] - features.sent[rows]) / 1e9
            scores = score(softmax(logits), y)
            for name, values in found.items():
                values[place[rows], horizon] = scores[name]
    return found


def _labelled_table(table: Samples, date: np.datetime64, scheme: str) -> Samples:
    n = table.size
    return Samples.borrow(
        {"day": np.full(n, date), "scheme": np.full(n, scheme), **dict(table.items())}
    )


def _empty(**others: type) -> Samples:
    """A table of no rows with the columns that all daily tables have, and others."""
    kinds = {"day": "M8[D]", "scheme": str, **others, "variable": str, "metric": str}
    return Samples.borrow({n: np.empty(0, k) for n, k in {**kinds, "value": float}.items()})
