"""Result tables put beside what was published, without mixing the two.

Everything here takes tidy tables and gives tidy tables: figures draw them as they are. What is
ours and what is the paper's stands in columns of their own, or in rows whose column ``origin`` is
"ours" or "paper".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from memento.report.tables import Columns, columns_of, table_of
from memento_puffer.report.published import published
from memento_puffer.studies.arms import ARMS, FORMER, policy_of
from memento_puffer.studies.contents import PAPER, arms_of

__all__ = [
    "PAPERS",
    "SWEEPS",
    "beside",
    "daily",
    "dots",
    "inserts",
    "losses",
    "places",
    "record_days",
    "records",
    "selected",
    "sweep",
    "trainings",
    "wide",
]

SCORES = ("tail", "median")

SWEEPS: Mapping[str, str] = {
    "table-batch-size": "batch size, as a multiple of the default (paper: 256)",
    "table-bandwidth": "bandwidth of the kernel",
    "table-temperature": "temperature (leftmost: 0)",
    "table-other-metrics": "temperature",
    "table-jtt": "factor of wrong samples (1: trained once)",
    "table-decisions": "threshold",
}
"""Tables whose arms differ in a number, and what it is."""

Arms = Mapping[str, Mapping[str, Any]]
"""Parameters of experiments with the body ``replay``, by the name of the arm."""

PAPERS: Arms = {
    name: {"batch_size": PAPER.batch_size, **changes} for name, changes in arms_of(PAPER).items()
}
"""Those of the paper's own replays, whose names published numbers have."""

Places = Mapping[str, tuple[str, float]]

_RULES = {"coverage": "coverage", "coverage-calibrated": "calibrated", "loss": "loss"}
_FIELDS = {
    "table-batch-size": "batch_size",
    "table-bandwidth": "bandwidth",
    "table-temperature": "temperature",
    "table-other-metrics": "temperature",
}


def places(topic: str, arms: Arms = PAPERS) -> dict[str, tuple[str, float]]:
    """Where arms stand in a sweep.

    Args:
        topic: Of `SWEEPS`; others are none.
        arms: What was replayed.

    Returns:
        By arm, the series it belongs to, and its number; without those that are no part of it.

    Example:
        >>> places("table-bandwidth", {"a": {"arm": "memento", "bandwidth": 0.5, "batch_size": 64}})
        {'a': ('memento', 0.5)}
    """
    positions = {}
    usual = arms.get("memento", {}).get("batch_size")
    for name, settings in arms.items():
        arm = FORMER.get(settings["arm"], str(settings["arm"]))
        if arm not in ARMS:
            continue
        if topic in _FIELDS:
            fields = {n: settings.get(n) for n in ("temperature", "bandwidth", "batch_size")}
            policy = policy_of(arm, **fields).settings()
            kind, value = policy["kind"], policy.get(_FIELDS[topic])
            wanted = "metric" if topic == "table-other-metrics" else "memento"
            if kind == wanted and value is not None:
                value = value / usual if topic == "table-batch-size" and usual else value
                positions[name] = (arm if kind == "metric" else kind, float(value))
        elif topic == "table-jtt" and "jtt" not in ARMS[arm].settings:
            positions[name] = (arm, float(settings.get("jtt", 1.0)))
        elif topic == "table-decisions" and settings.get("trigger") in _RULES:
            positions[name] = (_RULES[settings["trigger"]], float(settings["threshold"]))
    return positions


def _place(at: Places, arm: str, predictor: str) -> tuple[str, float] | None:
    """The same of a predictor; others than an arm's own are series of their own."""
    if arm not in at:
        return None
    series, x = at[arm]
    return (series if predictor == "own" else f"{series}, {predictor}"), x


# ------------------------------------------------------------------------------------ improvements


def beside(
    topic: str, improvement: Columns, against: str, arms: Arms = PAPERS
) -> dict[str, np.ndarray]:
    """Improvements of all arms with the paper's in columns of their own.

    Args:
        topic: Name of the table, such as "table-jtt".
        improvement: ``against``, ``arm``, ``predictor``, ``days``, ``tail``, ``median``, ``mean``
            and their ``_error``; of ``period``, where there is such a column, only "all".
        against: The reference that improvements are over, such as "daily".
        arms: What was replayed, for sweeps.

    Returns:
        ``arm``, ``predictor``, ``days``, ``tail``, ``tail_error``, ``median``, ``median_error``,
        ``mean``, ``mean_error``, ``paper tail``, ``paper median`` (NaN where nothing is
        published); sorted by series and number in sweeps.

    Raises:
        SchemaError: A column is missing.
    """
    ours = _ours(improvement, against)
    theirs = _theirs(topic, against)
    at = places(topic, arms)
    keys = sorted(ours, key=lambda key: _order(at, *key))
    rows = [
        {
            "arm": arm,
            "predictor": predictor,
            "days": ours[arm, predictor]["days"],
            **{name: ours[arm, predictor][name] for name in _MEASURED},
            **{f"paper {s}": theirs.get((arm, predictor), {}).get(s, math.nan) for s in SCORES},
        }
        for arm, predictor in keys
    ]
    kinds = {"arm": str, "predictor": str, "days": np.int64}
    names = ("arm", "predictor", "days", *_MEASURED, *(f"paper {s}" for s in SCORES))
    return table_of(rows, names, kinds)


_MEASURED = tuple(f"{n}{e}" for n in (*SCORES, "mean") for e in ("", "_error"))


def sweep(
    topic: str, improvement: Columns, against: str = "daily", arms: Arms = PAPERS
) -> dict[str, np.ndarray]:
    """Improvements by the number that a sweep varies, ours and the paper's below each other.

    Args:
        topic: Of `SWEEPS`.
        improvement: See `beside`.
        against: The reference that improvements are over, such as "daily".
        arms: What was replayed.

    Returns:
        ``series``, ``x``, ``origin`` ("ours" or "paper"), ``score`` ("tail" or "median"),
        ``value``, ``error`` (standard error over days; NaN of the paper's), ``arm``,
        ``predictor``; only series of which we have two numbers or more.
    """
    rows: list[dict[str, Any]] = []
    ours = _ours(improvement, against)
    for origin, improvements in (("ours", ours), ("paper", _theirs(topic, against))):
        known = places(topic, arms if origin == "ours" else PAPERS)
        for (arm, predictor), values in improvements.items():
            at = _place(known, arm, predictor)
            if at is None or predictor == "matched" or (origin == "ours" and not values["days"]):
                continue
            place = {"series": at[0], "x": at[1]}
            rows += _by_score(values, **place, origin=origin, arm=arm, predictor=predictor)
    settings: dict[str, set[float]] = {}
    for row in rows:
        if row["origin"] == "ours":
            settings.setdefault(row["series"], set()).add(row["x"])
    # A predictor that only the default has (the oracle of its ensemble) is no sweep.
    rows = [row for row in rows if len(settings.get(row["series"], ())) > 1]
    rows.sort(key=lambda r: (r["origin"], r["series"], SCORES.index(r["score"]), r["x"]))
    names = ("series", "x", "origin", "score", "value", "error", "arm", "predictor")
    return table_of(rows, names, _TEXTS)


_TEXTS = dict.fromkeys(("series", "label", "origin", "score", "arm", "predictor"), str)


def _by_score(values: Mapping[str, Any], **row: Any) -> list[dict[str, Any]]:
    """A row for each score, with its standard error where that is known."""
    return [
        {**row, "score": s, "value": values[s], "error": values.get(f"{s}_error", math.nan)}
        for s in SCORES
    ]


def dots(
    topic: str, improvement: Columns, against: str = "daily", arms: Arms = PAPERS
) -> dict[str, np.ndarray]:
    """The same for arms that differ by name.

    Returns:
        ``label`` (arm, with the predictor where it is not the arm's own), ``origin``, ``score``,
        ``value``, ``error``, ``arm``, ``predictor``; of the paper's also settings that we have not.
    """
    rows: list[dict[str, Any]] = []
    ours = _ours(improvement, against)
    ours = {key: row for key, row in ours.items() if row["days"] and key[0] != against}
    for origin, improvements in (("ours", ours), ("paper", _theirs(topic, against))):
        at = places(topic, arms if origin == "ours" else PAPERS)
        for arm, predictor in sorted(improvements, key=lambda key: _order(at, *key)):
            label = arm if predictor == "own" else f"{arm}, {predictor}"
            values = improvements[arm, predictor]
            rows += _by_score(values, label=label, origin=origin, arm=arm, predictor=predictor)
    return table_of(
        rows, ("label", "origin", "score", "value", "error", "arm", "predictor"), _TEXTS
    )


def _order(at: Places, arm: str, predictor: str) -> tuple[Any, ...]:
    """Sweeps by series and number, the rest as it comes in the alphabet, behind them."""
    here = _place(at, arm, predictor)
    behind = (arm, predictor != "own", predictor)
    return (1, "", 0.0, *behind) if here is None else (0, *here, *behind)


def _ours(improvement: Columns, against: str) -> dict[tuple[str, str], dict[str, Any]]:
    names = ("against", "arm", "predictor", "days", *_MEASURED)
    columns = columns_of(improvement, *names)
    periods = improvement["period"] if "period" in improvement else ["all"] * len(columns["arm"])
    improvements = {}
    for i, period in enumerate(periods):
        if str(period) == "all" and str(columns["against"][i]) == against:
            key = str(columns["arm"][i]), str(columns["predictor"][i])
            improvements[key] = {name: columns[name][i] for name in ("days", *_MEASURED)}
    return improvements


def _theirs(topic: str, against: str) -> dict[tuple[str, str], dict[str, float]]:
    if topic not in published.topics():  # nothing that this could stand beside
        return {}
    table = published(topic, against=against)
    improvements: dict[tuple[str, str], dict[str, float]] = {}
    columns = (table[name].tolist() for name in ("subject", "part", "quantity", "value"))
    for arm, predictor, quantity, value in zip(*columns, strict=True):
        if quantity in SCORES:
            improvements.setdefault((arm, predictor), {})[quantity] = value
    return improvements


# ------------------------------------------------------------------------- other tables of replays


def inserts(table: Columns, arms: Arms = PAPERS) -> dict[str, np.ndarray]:
    """Seconds of an insert by batch size, with the paper's.

    Args:
        table: A row per period and arm: ``arm``, ``days``, ``mean``, ``std``.
        arms: What was replayed.

    Returns:
        ``arm``, ``x`` (batch size as a multiple of the default), ``days``, ``mean``, ``std`` (s,
        over all periods' days), ``paper mean``, ``paper std``.
    """
    columns = columns_of(table, "arm", "days", "mean", "std")
    theirs = published.by("subject", "quantity", topic="table-batch-size")
    rows: list[dict[str, Any]] = []
    known = places("table-batch-size", arms)
    for arm in dict.fromkeys(map(str, columns["arm"])):
        at = known.get(arm)
        of_arm = np.flatnonzero(np.asarray(columns["arm"]).astype(str) == arm)
        days, mean = (np.asarray(columns[n], np.float64)[of_arm] for n in ("days", "mean"))
        if at is None or not days.sum():
            continue
        spread = np.nan_to_num(np.asarray(columns["std"], np.float64)[of_arm])
        middle = float(np.nansum(days * np.nan_to_num(mean)) / days.sum())
        # Within the periods, and between their means.
        squares = (days - 1) * spread**2 + days * (np.nan_to_num(mean) - middle) ** 2
        rows.append(
            {
                "arm": arm,
                "x": at[1],
                "days": int(days.sum()),
                "mean": middle,
                "std": math.sqrt(float(squares.sum()) / max(days.sum() - 1, 1)),
                "paper mean": theirs.get((arm, "insert_mean"), math.nan),
                "paper std": theirs.get((arm, "insert_std"), math.nan),
            }
        )
    rows.sort(key=lambda row: row["x"])
    names = ("arm", "x", "days", "mean", "std", "paper mean", "paper std")
    return table_of(rows, names, {"arm": str, "days": np.int64})


def trainings(decisions: Columns, arms: Arms = PAPERS) -> dict[str, np.ndarray]:
    """How often each arm was trained, with the paper's counts.

    Args:
        decisions: A row per period, arm and day: ``arm``, ``trained``.
        arms: What was replayed.

    Returns:
        ``arm``, ``days``, ``trainings``, ``each`` (days for a training), ``paper trainings`` with
        ``_low`` and ``_high`` and ``paper each``, in 24 weeks.
    """
    columns = columns_of(decisions, "arm", "trained")
    names, trained = np.asarray(columns["arm"]).astype(str), np.asarray(columns["trained"], bool)
    at = places("table-decisions", arms)
    value, low, high = (
        published.by("subject", value=end, topic="table-decisions", quantity="trainings")
        for end in ("value", "low", "high")
    )
    rows = []
    for arm in sorted(dict.fromkeys(names.tolist()), key=lambda a: _order(at, a, "")):
        of_arm = names == arm
        count = int(trained[of_arm].sum())
        theirs = value.get((arm,), math.nan)
        rows.append(
            {
                "arm": arm,
                "days": int(of_arm.sum()),
                "trainings": count,
                "each": of_arm.sum() / count if count else math.nan,
                "paper trainings": theirs,
                "paper trainings_low": low.get((arm,), math.nan),
                "paper trainings_high": high.get((arm,), math.nan),
                "paper each": 168 / theirs,
            }
        )
    header = (
        *("arm", "days", "trainings", "each", "paper trainings"),
        *("paper trainings_low", "paper trainings_high", "paper each"),
    )
    return table_of(rows, header, {"arm": str, "days": np.int64, "trainings": np.int64})


def _scored(levels: Columns) -> Iterator[tuple[str, str, str, str, str, float]]:
    """Period, arm, predictor, day, metric and value of each row."""
    columns = columns_of(levels, "arm", "predictor", "day", "metric", "value")
    periods = levels["period"] if "period" in levels else [""] * len(columns["arm"])
    for period, arm, predictor, day, metric, value in zip(periods, *columns.values(), strict=True):
        yield str(period), str(arm), str(predictor), str(day), str(metric), float(value)


def daily(levels: Columns) -> dict[tuple[str, str, str], dict[str, float]]:
    """Tail, median and mean log score by arm, predictor and score, then by period and day.

    Args:
        levels: ``arm``, ``predictor``, ``day``, ``metric``, ``value``; ``period`` if there is one.
    """
    names = {"q0.01": "tail", "q0.5": "median", "mean": "mean"}
    courses: dict[tuple[str, str, str], dict[str, float]] = {}
    for period, arm, predictor, day, metric, value in _scored(levels):
        if metric in names:
            courses.setdefault((arm, predictor, names[metric]), {})[f"{period} {day}"] = value
    return courses


def losses(levels: Columns, predictors: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """The 99th percentile of the loss, day by day: minus the 1st of the log score.

    Args:
        levels: ``arm``, ``predictor``, ``day``, ``metric``, ``value``; ``period`` if there is one.
        predictors: By arm those that are wanted besides its own.

    Returns:
        ``period``, ``day``, ``label``, ``value`` (nats), in the order of the table.
    """
    rows = []
    for period, arm, predictor, day, metric, value in _scored(levels):
        if metric == "q0.01" and predictor in ("own", *predictors.get(arm, ())):
            label = arm if predictor == "own" else f"{arm}, {predictor}"
            label = predictor if predictor in ("static", "published") else label
            rows.append({"period": period, "day": day, "label": label, "value": -value})
    names = ("period", "day", "label", "value")
    return table_of(rows, names, dict.fromkeys(names[:3], str))


# ------------------------------------------------------------------------------------ other studies


def selected(table: Columns, groups: int = 25) -> dict[str, np.ndarray]:
    """The selection study with its batches grouped by the rank of their density.

    Args:
        table: A row per policy and batch: ``policy``, ``batch``, ``density``, ``loss_before``,
            ``kept``, ``loss_after``.
        groups: Of equally many batches (fewer where there are fewer batches).

    Returns:
        ``policy``, ``rank`` (middle of the group, 0 rarest to 1 densest), ``density``,
        ``loss_before``, ``kept`` (share), ``loss_after``, ``change`` (after - before): means.
    """
    names = ("density", "loss_before", "kept", "loss_after")
    columns = columns_of(table, "policy", *names)
    policies = np.asarray(columns["policy"]).astype(str)
    rows = []
    for policy in dict.fromkeys(policies.tolist()):
        batches = np.flatnonzero(policies == policy)
        density = np.asarray(columns["density"], np.float64)[batches]
        batches = batches[np.argsort(density, kind="stable")]
        parts = np.array_split(batches, max(1, min(groups, len(batches))))
        reached = 0
        for part in parts:
            means = {n: float(np.asarray(columns[n], np.float64)[part].mean()) for n in names}
            rows.append(
                {
                    "policy": policy,
                    "rank": (reached + len(part) / 2) / len(batches),
                    **means,
                    "change": means["loss_after"] - means["loss_before"],
                }
            )
            reached += len(part)
    return table_of(rows, ("policy", "rank", *names, "change"), {"policy": str})


def records(
    days: Columns, first: str | None = None, last: str | None = None, since: str | None = None
) -> dict[str, np.ndarray]:
    """Trainings and coverage of a deployment by variant and horizon, with the published record's.

    Args:
        days: A row per day, variant and horizon: ``variant``, ``horizon``, ``day``, ``retrained``,
            ``coverage_increase``, ``total_coverage``.
        first: First day of those whose coverage increases are summed up; None for all.
        last: Last day, of trainings and of the total coverage as well.
        since: First day on which trainings count.

    Returns:
        ``variant``, ``horizon``, ``days``, ``retrained``, ``p10``, ``median``, ``p90``,
        ``largest``, ``total_coverage`` (of the last of these days), each also as ``paper ...``.
    """
    names = ("variant", "horizon", "day", "retrained", "coverage_increase", "total_coverage")
    columns = {n: np.asarray(c) for n, c in columns_of(days, *names).items()}
    variants = columns["variant"].astype(str)
    day = columns["day"].astype("datetime64[D]")
    inside = np.ones(len(day), bool)
    counted = inside.copy()
    if first is not None:
        inside &= day >= np.datetime64(first)
    if last is not None:
        inside &= day <= np.datetime64(last)
        counted &= day <= np.datetime64(last)
    if since is not None:
        counted &= day >= np.datetime64(since)
    theirs = published.by("subject", "part", "quantity", topic="record")
    wanted = ("retrained", "p10", "median", "p90", "largest", "total_coverage")
    rows = []
    for variant in sorted(set(variants.tolist())):
        for horizon in sorted(set(columns["horizon"][variants == variant].tolist())):
            mine = (variants == variant) & (columns["horizon"] == horizon)
            increase = columns["coverage_increase"][mine & inside].astype(np.float64)
            quantiles = np.quantile(increase, [0.1, 0.5, 0.9, 1.0]) if len(increase) else [
                math.nan] * 4  # fmt: skip
            at = np.flatnonzero(mine & inside) if (mine & inside).any() else np.flatnonzero(mine)
            total = float(columns["total_coverage"][at[np.argmax(day[at])]])
            values = (int((mine & counted & columns["retrained"].astype(bool)).sum()),
                      *map(float, quantiles), total)  # fmt: skip
            row: dict[str, Any] = {"variant": variant, "horizon": int(horizon)}
            row["days"] = int((mine & counted).sum())
            row |= dict(zip(wanted, values, strict=True))
            for name in wanted:
                row[f"paper {name}"] = theirs.get((variant, f"horizon {horizon}", name), math.nan)
            rows.append(row)
    header = ("variant", "horizon", "days", *wanted, *(f"paper {n}" for n in wanted))
    kinds = {"variant": str, **dict.fromkeys(("horizon", "days", "retrained"), np.int64)}
    return table_of(rows, header, kinds)


def record_days(days: Columns, since: str, horizon: int = 0) -> dict[str, np.ndarray]:
    """On which days a deployment was trained, with the published record's.

    Args:
        days: See `records`.
        since: The day that others are counted from.
        horizon: Number of the network, from 0: how many chunks ahead it predicts.

    Returns:
        ``variant``, ``training`` (from 1), ``days`` (since then) and ``paper days``; NaN where one
        side has fewer.
    """
    names = ("variant", "horizon", "day", "retrained")
    columns = {n: np.asarray(c) for n, c in columns_of(days, *names).items()}
    after = (columns["day"].astype("datetime64[D]") - np.datetime64(since)).astype(int)
    chosen = (columns["horizon"] == horizon) & columns["retrained"].astype(bool) & (after >= 0)
    rows = []
    for variant in sorted(set(columns["variant"].astype(str).tolist())):
        ours = np.sort(after[chosen & (columns["variant"].astype(str) == variant)]).tolist()
        theirs = published("record", subject=variant, quantity="trained_after")["value"].tolist()
        for i in range(max(len(ours), len(theirs))):
            row: dict[str, Any] = {"variant": variant, "training": i + 1}
            for name, trained_after in (("days", ours), ("paper days", theirs)):
                row[name] = trained_after[i] if i < len(trained_after) else math.nan
            rows.append(row)
    kinds = {"variant": str, "training": np.int64}
    return table_of(rows, ("variant", "training", "days", "paper days"), kinds)


# ------------------------------------------------------------------------------------------- tables


def wide(topic: str, *, against: str = "") -> dict[str, np.ndarray]:
    """What is published of a topic, a row per subject and part, a column per quantity.

    Args:
        topic: See `memento.report.tables.Published.topics`.
        against: Of differences, their reference.

    Returns:
        ``paper subject``, ``paper part``, then ``paper QUANTITY``, with ``_low`` and ``_high``
        where any is known; NaN where nothing is.
    """
    table = published(topic, against=against)
    keys = list(zip(table["subject"].tolist(), table["part"].tolist(), strict=True))
    quantities = table["quantity"].tolist()
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for i, key in enumerate(keys):
        row = rows.setdefault(key, {})
        row[quantities[i]] = float(table["value"][i])
        for end in ("low", "high"):
            if not math.isnan(table[end][i]):
                row[f"{quantities[i]}_{end}"] = float(table[end][i])
    names = [
        name
        for quantity in dict.fromkeys(quantities)
        for name in (quantity, f"{quantity}_low", f"{quantity}_high")
        if any(name in row for row in rows.values())
    ]
    columns: dict[str, np.ndarray] = {
        "paper subject": np.array([subject for subject, _ in rows], str),
        "paper part": np.array([part for _, part in rows], str),
    }
    for name in names:
        columns[f"paper {name}"] = np.array([row.get(name, math.nan) for row in rows.values()])
    return columns
