"""Across days: totals of schemes, differences between them, and what is plotted of both.

    by_day        one statistic of the daily table, as (day, scheme, value, weight)
    compare       two schemes on each of the days that both have
    differences   of all schemes to one, over the days in common, with intervals
    deployment    totals of each scheme over all days
    trade_off     mean quality against stalls, with intervals, for a plot
    official      Puffer's own statistics, of the days on which all schemes ran
    paired        differences between schemes that served the same viewers, where days were
                  simulated so

All take the tables of ``analysis``. ``qoe.weighted_intervals``, ``difference`` and ``time_series``
take those of ``by_day``, ``qoe.weighted_ecdf`` columns of ``compare``.

Sources: the daily analysis of the Memento paper; Yan et al., "Learning in situ: a randomized
experiment in video streaming", NSDI 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memento.errors import SchemaError, SettingError
from memento.samples import Samples
from memento_puffer.quality.qoe import (
    common_days,
    difference,
    quality,
    scheme_statistics,
    weighted_intervals,
)

__all__ = [
    "PAIRED",
    "by_day",
    "compare",
    "deployment",
    "differences",
    "official",
    "paired",
    "trade_off",
]

Floats = npt.NDArray[np.float64]

YEAR = 31_556_952.0  # s, of the Gregorian calendar
_STALLS = ("capped", "clean", "with_startup")
_STALLED = "% of the time watched"
# What is compared between paired streams: value, weight, what becomes of its mean, and its unit.
_PAIRED: dict[str, tuple[Callable[[Samples], Floats], str, Callable[[Floats], Floats], str]] = {
    "stalled": (lambda s: s["stall_capped"] / s["watch"], "watch", lambda x: 100 * x, _STALLED),
    "ssim": (lambda s: s["ssim"], "watch", quality, "dB"),
    "delta_ssim": (lambda s: s["delta_ssim"], "one", lambda x: x, "dB"),
    "startup": (lambda s: s["startup"], "one", lambda x: x, "s"),
    "watch": (lambda s: s["watch"], "one", lambda x: x, "s"),
    "bitrate": (lambda s: s["bitrate"] / 1e6, "watch", lambda x: x, "Mbit/s"),
}
PAIRED = tuple(_PAIRED)


def by_day(
    daily: Mapping[str, Any],
    variable: str,
    metric: str = "mean",
    *,
    selection: str = "all",
    stalls: str = "capped",
) -> Samples:
    """One statistic of each day and scheme, weighted by the time streamed.

    Args:
        daily: ``analysis.DayAnalysis.daily``, of any number of days.
        variable: "ssim", "delta_ssim", "stream", "logscore", "y_0", ...
        metric: "mean", "q0.01", ...; of "stream" for example "stalled" (%), which is then the one
            that ``stalls`` names.
        selection: "all", "stalled" or "unstalled".
        stalls: How stall time counts: "capped" (without nonsense, see ``qoe.stream_statistics``),
            "clean" (as reported), or "with_startup" (with the startup delay, as in the artefact).

    Returns:
        ``day``, ``scheme``, ``value``, ``weight`` (s: playtime and stalls): without days on which
        the value or the weight is not finite, or the weight 0.

    Raises:
        SettingError: Other stalls.
        SchemaError: No such variable or metric.
    """
    table = Samples.borrow(daily)
    suffix = _suffix_of(stalls)
    if variable == "stream" and metric in ("rebuftime", "streamtime", "stalled"):
        metric += suffix
    keys, values = _cells_of(table, selection, variable, metric)
    if not keys:
        known = sorted(set(table["variable"].tolist()))
        raise SchemaError(f"no {metric!r} of {variable!r}; there are variables {known}")
    weights = dict(zip(*_cells_of(table, selection, "stream", f"streamtime{suffix}"), strict=True))
    rows = [
        (*key, value, weights.get(key, np.nan)) for key, value in zip(keys, values, strict=True)
    ]
    good = [row for row in rows if np.isfinite(row[2]) and np.isfinite(row[3]) and row[3] > 0]
    day, scheme, value, weight = zip(*good, strict=True) if good else ((), (), (), ())
    return Samples.borrow(
        day=np.array(day, table["day"].dtype),
        scheme=np.array(scheme, str),
        value=np.array(value, np.float64),
        weight=np.array(weight, np.float64),
    )


def compare(table: Mapping[str, Any], first: str, second: str) -> Samples:
    """Two schemes on each of the days that both have.

    Args:
        table: As ``by_day`` gives it.
        first: Name of a scheme.
        second: Name of the scheme to compare it with.

    Returns:
        ``day``, ``first``, ``second``, their values ``x`` and ``y``, ``difference`` (x - y: for
        scores), ``relative`` (100 (x - y) / max(|x|, |y|) %, 0 for 0 and 0: for linear metrics),
        ``weight``: of both together.

    Example:
        >>> table = {
        ...     "day": [1, 1, 2],
        ...     "scheme": ["a", "b", "a"],
        ...     "value": [1.0, 4.0, 9.0],
        ...     "weight": [1.0, 2.0, 3.0],
        ... }
        >>> found = compare(table, "a", "b")
        >>> found["difference"], found["relative"], found["weight"]
        (array([-3.]), array([-75.]), array([3.]))
    """
    columns = Samples.borrow(table)
    parts = []
    for scheme in (first, second):
        one = columns.take(columns["scheme"] == scheme)
        parts.append(one.take(np.argsort(one["day"], kind="stable")))
    _, i, j = np.intersect1d(parts[0]["day"], parts[1]["day"], return_indices=True)
    one, two = parts[0].take(i), parts[1].take(j)
    x, y = one["value"], two["value"]
    scale = np.maximum(np.abs(x), np.abs(y))
    return Samples.borrow(
        day=one["day"],
        first=np.full(len(i), first),
        second=np.full(len(i), second),
        x=x,
        y=y,
        difference=x - y,
        relative=100 * np.divide(x - y, scale, out=np.zeros(len(i)), where=scale > 0),
        weight=one["weight"] + two["weight"],
    )


def differences(
    table: Mapping[str, Any], reference: str, *, rng: np.random.Generator, **options: Any
) -> Samples:
    """``qoe.difference`` of every other scheme to a reference, each over the days that both have.

    Args:
        table: As ``by_day`` gives it.
        reference: Name of a scheme.
        rng: Generator that draws the days.
        **options: As ``qoe.difference`` takes them.

    Returns:
        ``scheme``, ``units`` (days), ``value``, ``low``, ``high``: a row for each other scheme with
        a day in common.

    Example:
        >>> table = {
        ...     "day": [1, 1, 2],
        ...     "scheme": ["a", "b", "b"],
        ...     "value": [3.0, 4.0, 9.0],
        ...     "weight": [1.0] * 3,
        ... }
        >>> rng = np.random.default_rng(0)
        >>> differences(table, "a", rng=rng, relative=True)["value"]
        array([25.])
    """
    columns = Samples.borrow({n: table[n] for n in ("day", "scheme", "value", "weight")})
    of = {name: columns["scheme"] == name for name in np.unique(columns["scheme"]).tolist()}
    known = columns["day"][of.pop(reference, np.zeros(columns.size, bool))]
    found: dict[str, list[Any]] = {n: [] for n in ("scheme", "units", "value", "low", "high")}
    for name, rows in of.items():
        common = np.intersect1d(columns["day"][rows], known)
        if len(common):
            both = columns.take(np.isin(columns["day"], common))
            one = difference(both, name, reference, rng=rng, **options)
            made: dict[str, Any] = {**one, "scheme": [name]}
            for column, values in found.items():
                values.append(made[column][0])
    kinds: dict[str, type] = {"scheme": str, "units": np.int64}
    return Samples.borrow({n: np.array(v, kinds.get(n, np.float64)) for n, v in found.items()})


def deployment(
    daily: Mapping[str, Any], *, common: bool = False, selection: str = "all"
) -> Samples:
    """Totals of each scheme over all days.

    Args:
        daily: ``analysis.DayAnalysis.daily``, of any number of days.
        common: Only days that all schemes have.
        selection: "all", "stalled" or "unstalled".

    Returns:
        ``scheme``, ``days``, ``streams``, ``chunks``, ``stream_years`` (of play), ``ssim`` (dB, the
        plain mean of daily means in dB, without infinite ones), and in three ways ``stalled`` (%
        of the time streamed) and ``stalled_hours``: ``_capped``, as reported, ``_with_startup``.
    """
    table = Samples.borrow(daily)
    names = ["playtime", "chunks", "streams"]
    names += [f"{n}{_suffix_of(s)}" for n in ("rebuftime", "streamtime") for s in _STALLS]
    cells = {
        name: dict(zip(*_cells_of(table, selection, "stream", name), strict=True)) for name in names
    }
    cells["ssim"] = dict(zip(*_cells_of(table, selection, "ssim", "mean"), strict=True))
    keys = sorted(key for key, count in cells["chunks"].items() if count > 0)
    schemes = sorted({scheme for _, scheme in keys})
    if common:
        ran: dict[object, set[str]] = {}
        for day, scheme in keys:
            ran.setdefault(day, set()).add(scheme)
        keys = [key for key in keys if len(ran[key[0]]) == len(schemes)]
    rows = []
    for scheme in schemes:
        of_scheme = [key for key in keys if key[1] == scheme]
        total = {name: sum(cells[name].get(key, 0.0) for key in of_scheme) for name in names}
        ssim = np.array([cells["ssim"].get(key, np.nan) for key in of_scheme])
        ssim = ssim[np.isfinite(ssim)]
        row = {
            "days": len(of_scheme),
            "streams": int(total["streams"]),
            "chunks": int(total["chunks"]),
            "stream_years": total["playtime"] / YEAR,
            "ssim": float(ssim.mean()) if len(ssim) else np.nan,
        }
        for stalls in _STALLS:
            s = _suffix_of(stalls)
            time = total[f"streamtime{s}"]
            row[f"stalled{s}"] = 100 * total[f"rebuftime{s}"] / time if time else np.nan
            row[f"stalled_hours{s}"] = total[f"rebuftime{s}"] / 3600
        rows.append(row)
    made = {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    return Samples.borrow({"scheme": np.array(schemes, str), **made})


def trade_off(
    daily: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    stalls: str = "capped",
    resamples: int = 1000,
    level: float = 0.9,
) -> Samples:
    """Mean quality and stalls of each scheme, weighted by stream time, intervals over days.

    Args:
        daily: ``analysis.DayAnalysis.daily``, of any number of days.
        rng: Generator that draws the days.
        stalls: How stall time counts, see ``by_day``.
        resamples: Number of draws of the days, >= 1.
        level: Share of resamples inside the interval, in (0, 1).

    Returns:
        ``scheme``, ``days``, and ``stalled`` (%) and ``ssim`` (dB), each with ``_low``, ``_high``.
    """
    stalled, ssim = (
        weighted_intervals(
            by_day(daily, *which, stalls=stalls), rng=rng, resamples=resamples, level=level
        )
        for which in (("stream", "stalled"), ("ssim", "mean"))
    )
    _, i, j = np.intersect1d(stalled["scheme"], ssim["scheme"], return_indices=True)
    stalled, ssim = stalled.take(i), ssim.take(j)
    return Samples.borrow(
        scheme=stalled["scheme"],
        days=stalled["units"],
        stalled=stalled["value"],
        stalled_low=stalled["low"],
        stalled_high=stalled["high"],
        ssim=ssim["value"],
        ssim_low=ssim["low"],
        ssim_high=ssim["high"],
    )


def official(
    streams: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    common: bool = True,
    slow: bool = False,
    watch_times: npt.ArrayLike | None = None,
    realisations: int = 10_000,
) -> Samples:
    """Puffer's statistics of each scheme, see ``qoe.scheme_statistics``.

    Args:
        streams: ``analysis.DayAnalysis.streams``, of any number of days.
        rng: Generator that draws the realisations.
        common: Only days on which every scheme ran.
        slow: Only streams over slow paths.
        watch_times: The list of watch times (s, >= 4) that all schemes draw from; None for theirs.
        realisations: Number of draws of all streams, >= 1.

    Returns:
        The table of ``qoe.scheme_statistics``; stall times are ``stall_capped``.
    """
    table = Samples.borrow(streams)
    if common:
        table = table.take(common_days(table))
    table = table.take(table["considered"] & (table["slow"] | (not slow)))
    columns = {n: table[n] for n in ("scheme", "watch", "ssim", "delta_ssim")}
    columns["stall"] = table["stall_capped"]
    return scheme_statistics(columns, rng=rng, watch_times=watch_times, realisations=realisations)


def paired(
    streams: Mapping[str, Any],
    reference: str,
    *,
    rng: np.random.Generator,
    variables: Sequence[str] = ("stalled", "ssim", "delta_ssim"),
    common: bool = False,
    resamples: int = 1000,
    level: float = 0.95,
) -> Samples:
    """Differences to a scheme that served the same viewers; intervals over viewers.

    Every stream that counts (see ``qoe.stream_statistics``) does so for its own scheme, so the
    difference is that of the schemes' levels; viewers are drawn, with all their streams under both
    schemes, so what viewers share cancels out. A stream may count under one scheme only: with the
    other it did not begin to play before the viewer left. With ``common`` such streams are left
    out: narrower, but of other people under each pair of schemes, and without the worst streams of
    a scheme that does not let them begin.

    Args:
        streams: ``analysis.DayAnalysis.streams`` of simulated days on which every scheme served
            every viewer.
        reference: The scheme that others are compared with.
        rng: Generator that draws the viewers.
        variables: Of "stalled" (%, sum of stalls over sum of time watched, capped), "ssim" (dB of
            the mean index), "delta_ssim" (dB), "startup" (s), "watch" (s), "bitrate" (Mbit/s).
        common: Only streams that count under both; matched by day, viewer and index.
        resamples: Number of draws, >= 1.
        level: Share of resamples inside the interval, in (0, 1).

    Returns:
        One row per other scheme and variable: ``first``, ``second`` (the reference), ``variable``,
        ``unit``, ``pairs`` of streams that count under both, ``alone_first`` and ``alone_second``
        that count under one, ``viewers`` under both, both values ``x`` and ``y``, ``value`` =
        x - y, ``low``, ``high``.

    Raises:
        SchemaError: No such scheme, no known viewers, a stream twice, or no pair at all.
        SettingError: An unknown variable; no resamples, or a level outside (0, 1).
    """
    table = Samples.borrow(streams)
    for name in variables:
        if name not in _PAIRED:
            raise SettingError(f"variables: {name!r}; give some of {', '.join(_PAIRED)}")
    table = table.take(table["considered"] & (table["viewer"] >= 0))
    schemes = np.unique(table["scheme"]).tolist()
    if reference not in schemes:
        raise SchemaError(
            f"no stream of a known viewer under {reference!r}; there are {schemes}: days have to "
            "be simulated with paired viewers"
        )
    _, unit = np.unique(
        np.stack([table["day"].astype(np.int64), table["viewer"]], axis=1),
        axis=0,
        return_inverse=True,
    )
    unit = unit.reshape(-1)
    key = unit.astype(np.int64) * (int(table["index"].max()) + 1) + table["index"]
    of_scheme = {scheme: np.flatnonzero(table["scheme"] == scheme) for scheme in schemes}
    for scheme, rows in of_scheme.items():
        if len(np.unique(key[rows])) < len(rows):
            raise SchemaError(
                f"a viewer has a stream of {scheme!r} twice on a day; a session number has to come "
                "once for each scheme"
            )
    rows_of_pairs: list[dict[str, Any]] = []
    for scheme in schemes:
        if scheme == reference:
            continue
        mine, theirs = of_scheme[scheme], of_scheme[reference]
        _, i, j = np.intersect1d(key[mine], key[theirs], return_indices=True)
        if not len(i):
            raise SchemaError(f"{scheme!r} and {reference!r} share no stream of the same viewer")
        both = {scheme: mine[i], reference: theirs[j]}
        both = both if common else {scheme: mine, reference: theirs}
        for name in variables:
            row = _paired_difference(table, unit, key, both, name, common, rng, resamples, level)
            words = {"first": scheme, "second": reference, "variable": name}
            rows_of_pairs.append({**words, "unit": _PAIRED[name][3], **row})
    kinds: dict[str, type] = dict.fromkeys(("first", "second", "variable", "unit"), str)
    kinds |= dict.fromkeys(("pairs", "alone_first", "alone_second", "viewers"), np.int64)
    kinds |= dict.fromkeys(("x", "y", "value", "low", "high"), np.float64)
    return Samples.borrow(
        {name: np.array([row[name] for row in rows_of_pairs], kind) for name, kind in kinds.items()}
    )


# ----------------------------------------------------------------------------------------------
# Parts of the above


def _suffix_of(stalls: str) -> str:
    if stalls not in _STALLS:
        raise SettingError(f"stalls={stalls!r}; give one of {', '.join(_STALLS)}")
    return "" if stalls == "clean" else f"_{stalls}"


def _cells_of(
    table: Samples, selection: str, variable: str, metric: str
) -> tuple[list[tuple[object, str]], list[float]]:
    """(day, scheme) and value of one statistic."""
    rows = np.flatnonzero(
        (table["selection"] == selection)
        & (table["variable"] == variable)
        & (table["metric"] == metric)
    )
    keys = zip(table["day"][rows], table["scheme"][rows].tolist(), strict=True)
    return list(keys), table["value"][rows].tolist()


def _paired_difference(
    table: Samples,
    unit: np.ndarray,
    key: np.ndarray,
    rows: Mapping[str, np.ndarray],
    variable: str,
    common: bool,
    rng: np.random.Generator,
    resamples: int,
    level: float,
) -> dict[str, float]:
    """One row of ``paired``: streams summed to viewers, then viewers drawn."""
    how, weighted_by, transform, _ = _PAIRED[variable]
    parts = [table.take(of_scheme) for of_scheme in rows.values()]
    values = [how(part) for part in parts]
    good = [np.isfinite(value) for value in values]
    if common:
        good = [good[0] & good[1]] * 2
    columns: dict[str, list[np.ndarray]] = {"viewer": [], "scheme": [], "value": [], "weight": []}
    means = []
    for (scheme, of_scheme), part, value, kept in zip(
        rows.items(), parts, values, good, strict=True
    ):
        weight = np.ones(len(of_scheme)) if weighted_by == "one" else part[weighted_by]
        x, w = value[kept], weight[kept]
        viewers, of = np.unique(unit[of_scheme[kept]], return_inverse=True)
        total = np.bincount(of, w, minlength=len(viewers))
        columns["viewer"].append(viewers)
        columns["scheme"].append(np.full(len(viewers), scheme))
        columns["value"].append(np.bincount(of, w * x, minlength=len(viewers)) / total)
        columns["weight"].append(total)
        means.append(transform(np.array([(w * x).sum() / w.sum() if len(w) else np.nan]))[0])
    keys = [key[of_scheme[kept]] for of_scheme, kept in zip(rows.values(), good, strict=True)]
    pairs = len(np.intersect1d(keys[0], keys[1], assume_unique=True))
    result: dict[str, float] = {"pairs": pairs, "x": means[0], "y": means[1]}
    result |= {"alone_first": len(keys[0]) - pairs, "alone_second": len(keys[1]) - pairs}
    if not (good[0].any() and good[1].any()):
        return result | dict.fromkeys(("value", "low", "high"), np.nan) | {"viewers": 0}
    first, second = list(rows)
    found = difference(
        {name: np.concatenate(parts) for name, parts in columns.items()},
        first,
        second,
        rng=rng,
        unit="viewer",
        resamples=resamples,
        level=level,
        transform=transform,
    )
    result["viewers"] = int(found["units"][0])
    return result | {name: float(found[name][0]) for name in ("value", "low", "high")}
