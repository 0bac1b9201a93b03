"""What was published, as data: the paper's numbers, Puffer's of 2019, the deployment's record.

One tidy table. Nothing here was measured with this software, and nothing that was measured with it
is here: reports put these numbers beside their own, in columns and markers of their own.

Sources: the Memento paper (its figures' values as in the published results); the record of its
deployment on Puffer; Yan et al., "Learning in situ", NSDI 2020 (Puffer's primary experiment).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from memento.errors import SettingError

__all__ = [
    "COLUMNS",
    "CONDITIONS",
    "DEPLOYED",
    "NEW_METRIC",
    "NOTE",
    "RECORD_PERIOD",
    "published",
    "topics",
]

DEPLOYED = "2022-09-19"
"""First day of the deployment that the paper reports on."""

NEW_METRIC = "2022-09-20"
"""First day of its record on which coverage was measured as it is since."""

RECORD_PERIOD = ("2023-01-01", "2023-07-16")
"""Days whose coverage increases the published quantiles sum up; all counts end with them."""

NOTE = (
    "Columns headed paper, and hollow grey marks, are what was published: the paper's numbers come "
    "from real days of Puffer (data centre: from its own simulations). All other numbers come from "
    "this folder: simulated days, unless real ones were downloaded."
)
"""What every page says that shows both."""

CONDITIONS = (
    "The paper's replays: three periods of real days (2021-01 to 2022-05, 3 million samples a "
    "day), memories of a million samples, batches of 256, bandwidth 0.1, temperature 0.01, a "
    "training every seventh day; means over all days, differences in nats of log score."
)
"""Under what the paper's replays were made."""

COLUMNS = (
    "topic",
    "subject",
    "part",
    "against",
    "quantity",
    "value",
    "low",
    "high",
    "unit",
    "read_off_plot",
    "source",
)

_NAN = float("nan")
_SCORES = ("tail", "median")
_BATCHES = ("half", "", "double", "fourfold", "eightfold")

# --- replays: improvement over Fugu's daily training; tail and median of each setting -----------

_BASELINES = {
    "daily": {
        "memento": (0.704, -0.169),
        "euclidean": (-0.091, 0.001),
        "random": (0.014, -0.003),
        "random-double": (0.047, -0.003),
    },
    "static": {
        "memento": (0.920, -0.158),
        "euclidean": (0.122, 0.013),
        "random": (0.230, 0.008),
        "random-double": (0.263, 0.008),
    },
}
_BATCH = {
    "tail": (0.761, 0.704, 0.644, 0.612, 0.613),
    "median": (-0.163, -0.169, -0.159, -0.144, -0.129),
    "insert_mean": (199.0, 57.2, 27.6, 18.7, 16.0),
    "insert_std": (152.0, 42.8, 20.4, 14.0, 11.9),
}
_BANDWIDTH = {
    0.001: (-0.054, -0.008),
    0.01: (0.198, -0.045),
    0.05: (0.540, -0.134),
    0.08: (0.656, -0.166),
    0.1: (0.702, -0.170),
    0.125: (0.713, -0.172),
    0.2: (0.478, -0.178),
    0.5: (0.139, -0.153),
    1: (0.311, -0.098),
    10: (-0.045, -0.003),
}
_TEMPERATURE = {
    1e-5: (0.537, -0.398),
    1e-4: (0.638, -0.430),
    1e-3: (0.704, -0.336),
    5e-3: (0.750, -0.225),
    0.01: (0.699, -0.171),
    0.05: (0.387, -0.066),
    0.1: (0.252, -0.040),
    1: (-0.034, -0.005),
    10: (-0.073, -0.002),
    100: (-0.094, 0.000),
}
_METRICS = {
    "loss": (
        (-21.9, -21.3, -23.9, -21.6, -11.0, 0.402, -0.008, -0.062),
        (-7.46, -7.26, -8.24, -7.11, -4.47, -0.033, -0.002, 0.000),
    ),
    "confidence": (
        (-1.68, -0.80, -1.05, 0.195, -0.049, -0.067),
        (-0.865, -0.692, -0.768, -0.124, 0.001, 0.001),
    ),
    "labels": (
        (-15.4, -15.4, -15.4, -3.20, 0.150, -0.043),
        (-11.7, -11.5, -11.6, -2.22, -0.021, -0.001),
    ),
    "stalled": (
        (0.003, 0.002, 0.014, 0.020, -0.033, -0.068),
        (-0.007, -0.007, -0.009, -0.010, -0.001, 0.000),
    ),
}
_METRIC_TEMPERATURES = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
_METRIC_FIGURES = {"loss": "8", "confidence": "21(a)", "labels": "21(b)", "stalled": "21(c)"}
_FACTORS = (1, 2, 5, 10, 20, 50, 100)
_JTT = {
    ("random", "own"): (
        (0.014, 0.484, 0.968, 1.156, 1.229, 1.227, 1.114),
        (-0.003, -0.060, -0.216, -0.398, -0.572, -0.840, -1.080),
    ),
    ("memento", "own"): (
        (0.704, 1.001, 1.216, 1.278, 1.286, 1.190, 1.050),
        (-0.169, -0.314, -0.529, -0.681, -0.842, -1.094, -1.273),
    ),
    ("memento", "oracle"): (
        (1.335, 1.582, 1.645, 1.704, 1.609, 1.504, 1.377),
        (-0.079, -0.172, -0.367, -0.500, -0.673, -0.942, -1.115),
    ),
}
_DECISIONS = {
    "coverage": {
        0.05: (0.723, -0.178, 57, 57),
        0.1: (0.651, -0.176, 8, 8),
        0.2: (0.524, -0.166, 2, 3),
    },
    "loss": {
        0.05: (0.758, -0.222, 13, 13),
        0.1: (0.753, -0.175, 5, 6),
        0.2: (0.767, -0.203, 4, 4),
    },
}
_REPEATED = ((0.7040, -0.1693), (0.7044, -0.1693), (0.7020, -0.1696), (0.6992, -0.1705))
# 99th percentile of the loss: from, to, and when.
_LEVELS = {
    ("random", "own", "all weeks"): (4.0, 4.1),
    ("random-double", "own", "all weeks"): (3.95, 4.05),
    ("euclidean", "own", "all weeks"): (4.1, 4.2),
    ("memento", "own", "after week 4"): (3.25, 3.4),
    ("committee", "oracle", "weeks 7 to 8"): (1.95, 1.95),
    ("committee", "oracle", "from week 15"): (3.5, 3.85),
}

# --- deployment ---------------------------------------------------------------------------------

# days, streams, stream-years, mean SSIM (dB), stalled (%), stalled (h)
_DEPLOYED = {
    ("Memento", "2022-09-19 to 2023-07-16"): (285, 740_532, 10.637, 17.081, 0.20420, 190.8),
    ("Memento T=0", "2022-09-19 to 2023-07-16"): (285, 749_037, 10.762, 16.350, 0.20864, 197.2),
    ("Fugu daily", "2022-09-19 to 2022-10-05"): (10, 28_445, 0.397, 17.025, 0.18211, 6.35),
    ("Fugu-Feb", "2022-09-19 to 2023-07-16"): (285, 746_357, 10.697, 17.111, 0.23726, 223.0),
    ("Fugu daily", "since 2020-04, common days"): (871, 2_089_921, 28.197, 17.064, 0.23865, 591.3),
    ("Fugu-Feb", "since 2020-04, common days"): (871, 2_154_876, 29.502, 17.036, 0.24891, 645.3),
}
# SSIM and stalls relative to Fugu-Feb (%), and share of days, by weight, with as many stalls.
_RELATIVE = {
    "Memento": (-0.178, -13.93, 0.428),
    "Memento T=0": (-4.446, -12.06, 0.342),
    "Fugu daily": (0.162, -4.12, _NAN),
}
# Log scores against Fugu-Feb, read off plots: from and to.
_LIVE_SCORES = {
    ("Memento", "tail"): (0.7, 1.1),
    ("Memento", "median"): (-0.17, -0.1),
    ("Memento T=0", "tail"): (1.05, 1.05),
    ("Memento T=0", "median"): (-0.3, -0.3),
    ("Fugu daily", "tail"): (0.25, 0.25),
    ("Fugu daily", "median"): (0.0, 0.0),
}
# By horizon: trainings before and since 2022-09-19; p10, median, p90, largest coverage increase
# 2023-01-01 to 07-16; total coverage on 2023-07-16.
_RECORD = {
    "default": (
        (5, 7, 0.047, 0.060, 0.079, 0.115, 58.5),
        (5, 7, 0.047, 0.058, 0.077, 0.107, 59.7),
        (5, 5, 0.050, 0.063, 0.077, 0.103, 60.6),
        (5, 8, 0.050, 0.061, 0.076, 0.093, 62.1),
        (5, 5, 0.045, 0.052, 0.064, 0.104, 59.9),
    ),
    "deterministic": (
        (10, 14, 0.064, 0.082, 0.093, 0.108, 17.7),
        (10, 18, 0.072, 0.087, 0.097, 0.110, 17.7),
        (10, 16, 0.056, 0.080, 0.095, 0.124, 20.5),
        (10, 17, 0.068, 0.084, 0.096, 0.142, 17.4),
        (10, 13, 0.073, 0.084, 0.096, 0.127, 17.5),
    ),
}
# Days since 2022-09-19 on which the first horizon was trained.
_TRAINED = {
    "default": (1, 3, 7, 8, 116, 215, 220),
    "deterministic": (1, 2, 6, 7, 8, 14, 25, 51, 52, 55, 105, 116, 119, 120),
}
_RECORD_QUANTITIES = (
    ("retrained_before", "trainings"),
    ("retrained", "trainings"),
    ("p10", ""),
    ("median", ""),
    ("p90", ""),
    ("largest", ""),
    ("total_coverage", ""),
)

# Densities of the first horizon's memory on the last day: its batches in each other's sight.
_DENSITIES = {
    "default": {"min": 1.02e-4, "q0.01": 9.4e-4, "median": 0.0161, "max": 0.0223},
    "deterministic": {"median": 0.00497, "max": 0.00546},
}
# What the first horizon was trained on: time of the chunk before (s) and its deviation, size of the
# current chunk (packets), delivery rate (packets/s), cwnd and in flight (packets), RTT (s), and of
# some their deviations; decoded from the normalisers of the models that were deployed.
_CONTENT: Mapping[tuple[str, str], Sequence[Sequence[float]]] = {
    ("Fugu-Feb", "all traffic of 2019"): (
        *((0.513, 0.73), (645, 527), (5399, 11094), (576,), (1.0,), (0.096, 0.10)),
    ),
    ("Memento", "2022-05-01"): (  # the first: selected by outputs alone
        *((0.76, 1.01), (642, 484), (2853, 4087), (586,), (1.8,), (0.139, 0.18)),
    ),
    ("Memento", "2022-05-20"): (
        *((1.48, 1.60), (637, 542), (1703, 4371), (369,), (3.4,), (0.201, 0.27)),
    ),
    ("Memento", "2022-09-20"): ((1.04, 1.38), (737,), (2677,), (509,), (2.4,), (0.156,)),
    ("Memento", "2022-09-27"): ((1.00, 1.16), (734,), (2498,), (540,), (2.2,), (0.147,)),
    ("Memento", "2023-01-13"): ((0.95, 1.20), (618,), (2890,), (497,), (2.0,), (0.151,)),
    ("Memento", "2023-04-27"): ((1.02, 1.24), (586,), (2586,), (483,), (1.7,), (0.129,)),
    ("Memento T=0", "2022-09-04"): (
        *((1.91, 2.37), (676, 650), (2540, 9806), (283,), (4.3,), (0.247, 0.39)),
    ),
    ("Memento T=0", "2022-09-27"): ((1.52, 1.80), (752,), (1937,), (396,), (3.6,), (0.192,)),
    ("Memento T=0", "2023-01-17"): ((1.64, 1.69), (886,), (1955,), (359,), (4.0,), (0.177,)),
}
_CONTENT_QUANTITIES = (
    ("previous_time", "s"),
    ("size", "packets"),
    ("delivery_rate", "packets/s"),
    ("cwnd", "packets"),
    ("in_flight", "packets"),
    ("rtt", "s"),
)

# --- Puffer's primary experiment ----------------------------------------------------------------

# stalled (%), its interval; SSIM (dB), its interval; change of SSIM (dB); slow paths: stalled (%),
# SSIM (dB); streams; hours watched
_PRIMARY = {
    "Fugu": (0.133, 0.123, 0.145, 16.64, 16.60, 16.69, 0.745, 0.836, 14.71, 132_621, 24_574),
    "MPC-HM": (0.220, 0.206, 0.235, 16.61, 16.56, 16.65, 0.793, 1.217, 14.77, 128_355, 22_347),
    "BBA": (0.192, 0.178, 0.207, 16.56, 16.52, 16.61, 1.111, 1.180, 14.57, 124_878, 23_323),
    "Pensieve": (0.172, 0.159, 0.185, 16.26, 16.20, 16.31, 1.049, 0.912, 13.17, 124_804, 21_961),
    "RobustMPC-HM": (
        *(0.116, 0.104, 0.128, 16.01, 15.96, 16.06, 0.977, 0.707, 13.80, 126_531, 22_114),
    ),
}

# Fugu with predictors of other dates: stalled (%), SSIM (dB).
_VINTAGES = {
    "Fugu-Feb": (0.133, 16.39),
    "Fugu-Mar": (0.186, 16.41),
    "Fugu-Apr": (0.177, 16.31),
    "Fugu-May": (0.144, 16.39),
    "Fugu daily": (0.176, 16.38),
}
# Fugu with another predictor, and as it is, at the same time: stalled (%), SSIM (dB).
_PREDICTORS = {
    "point estimates": ((0.759, _NAN), (0.144, _NAN)),
    "linear": ((0.378, _NAN), (0.152, _NAN)),
    "trained in emulation": ((0.447, 15.15), (0.113, 16.78)),
}
_FIRST_CHUNK = {"Fugu": (11.11, 0.431), "BBA": (10.60, 0.434), "MPC-HM": (10.64, 0.433)}
_BITRATE = (4.05, 4.36)  # of all schemes, from least to most, weighted by time watched

# --- data centre --------------------------------------------------------------------------------

_HELD = {
    "rare-patterns": {
        "memento": (5696, 9053, 5219),
        "random": (252, 19_634, 114),
        "lars": (3159, 14_231, 2610),
        "fifo": (0, 20_000, 0),
    },
    "incremental": {
        "memento": (5376, 5888, 8704),
        "random": (1266, 17_836, 898),
        "lars": (9540, 9557, 903),
        "fifo": (0, 0, 20_000),
    },
}
_ACCURACY = {  # mean over the iterations of rare patterns
    "memento": 0.89,
    "lars": 0.89,
    "random": 0.76,
    "fifo": 0.33,
}
_ACCURACY_AFTER_W3 = {  # range over the last ten iterations of the incremental scenario
    "memento": (0.89, 0.89),
    "random": (0.70, 0.86),
    "lars": (0.67, 0.81),
    "fifo": (0.33, 0.33),
}
_ERRORS = {  # 99th percentile of the error (ms) at 66, 100 and 133 % load
    "memento": (20.0, 17.5, 21.0),
    "random": (22.0, 24.0, 22.0),
    "fifo": (22.0, 18.0, 22.0),
}

# --- the table ----------------------------------------------------------------------------------


def published(*chosen: str, **wanted: str) -> dict[str, np.ndarray]:
    """What was published, one row a number.

    Args:
        chosen: Topics, see `topics`; all if none is named.
        wanted: Values of further columns of text, such as ``quantity="tail"``.

    Returns:
        ``topic`` (the table or figure of ours that it stands beside), ``subject`` (arm, scheme,
        variant or memory, by our name), ``part`` (predictor, horizon, workload, load or period),
        ``against`` (reference of a difference, or ""), ``quantity``, ``value``, ``low``, ``high``
        (interval or range; NaN if there is none), ``unit``, ``read_off_plot``, ``source``.

    Raises:
        SettingError: There is no such topic or column.

    Example:
        >>> published("table-batch-size", subject="memento", quantity="tail")["value"]
        array([0.704])
    """
    table = _table()
    known = topics()
    for name in chosen:
        if name not in known:
            raise SettingError(f"nothing is published of {name!r}; there is {', '.join(known)}")
    for column in wanted:
        if column not in table:
            raise SettingError(f"no column {column!r}; there are {', '.join(COLUMNS)}")
    keep = np.ones(len(table["topic"]), bool)
    if chosen:
        keep &= np.isin(table["topic"], chosen)
    for column, value in wanted.items():
        keep &= table[column] == value
    return {name: column[keep] for name, column in table.items()}


def topics() -> list[str]:
    """All topics, in the order of the table."""
    return list(dict.fromkeys(_table()["topic"].tolist()))


def _table() -> dict[str, np.ndarray]:
    rows = [{**_EMPTY, **row} for row in _rows()]
    kinds: Mapping[str, Any] = {
        **dict.fromkeys(("value", "low", "high"), np.float64),
        "read_off_plot": bool,
    }
    return {name: np.array([row[name] for row in rows], kinds.get(name, str)) for name in COLUMNS}


_EMPTY: Mapping[str, Any] = {
    "part": "",
    "against": "",
    "low": _NAN,
    "high": _NAN,
    "unit": "",
    "read_off_plot": False,
}


def _rows() -> Iterator[dict[str, Any]]:
    yield from _replay_rows()
    yield from _course_rows()
    yield from _deployment_rows()
    yield from _memory_rows()
    yield from _puffer_rows()
    yield from _more_puffer_rows()
    yield from _datacenter_rows()


def _scores(
    topic: str,
    subject: str,
    values: Sequence[float],
    source: str,
    *,
    part: str = "own",
    against: str = "daily",
) -> Iterator[dict[str, Any]]:
    for quantity, value in zip(_SCORES, values, strict=True):
        yield {
            "topic": topic,
            "subject": subject,
            "part": part,
            "against": against,
            "quantity": quantity,
            "value": value,
            "unit": "nats",
            "source": source,
        }


def _replay_rows() -> Iterator[dict[str, Any]]:
    paper = "Memento paper, section 4.4"
    for against, arms in _BASELINES.items():
        for arm, values in arms.items():
            source = f"{paper}, figures 5 and 22"
            yield from _scores("table-baselines", arm, values, source, against=against)
    source = f"{paper}, figure 7(a)"
    for i, word in enumerate(_BATCHES):
        arm = f"memento-batch={word}" if word else "memento"
        pair = [_BATCH[score][i] for score in _SCORES]
        yield from _scores("table-batch-size", arm, pair, source)
        for quantity in ("insert_mean", "insert_std"):
            row = {"topic": "table-batch-size", "subject": arm, "quantity": quantity, "unit": "s"}
            yield {**row, "value": _BATCH[quantity][i], "source": source}
    for h, values in _BANDWIDTH.items():
        arm = "memento" if h == 0.1 else f"memento-h={h:g}"
        yield from _scores("table-bandwidth", arm, values, f"{paper}, figure 7(b)")
    for temperature, values in _TEMPERATURE.items():
        arm = "memento" if temperature == 0.01 else f"memento-T={temperature:g}"
        yield from _scores("table-temperature", arm, values, f"{paper}, figure 7(c)")
    for metric, scores in _METRICS.items():
        source = f"Memento paper, figure {_METRIC_FIGURES[metric]}"
        for temperature, *both in zip(_METRIC_TEMPERATURES, *scores, strict=False):
            arm = f"{metric}-T={temperature:g}"
            yield from _scores("table-other-metrics", arm, both, source)
    for (arm, predictor), scores in _JTT.items():
        for factor, *both in zip(_FACTORS, *scores, strict=True):
            name = arm if factor == 1 else f"{arm}-jtt={factor}"
            yield from _scores("table-jtt", name, both, f"{paper}, figure 9", part=predictor)
    yield from _scores("table-matchmaker", "memento", (0.704, -0.169), f"{paper}, figure 9")
    yield from _scores("table-matchmaker", "random", (0.014, -0.003), f"{paper}, figure 9")
    oracle = (1.335, -0.079)
    yield from _scores("table-matchmaker", "memento", oracle, f"{paper}, figure 9", part="oracle")
    for rule, thresholds in _DECISIONS.items():
        for threshold, (tail, median, fewest, most) in thresholds.items():
            arm = f"memento-{rule}={threshold:g}"
            source = f"{paper}, alternative training decision"
            yield from _scores("table-decisions", arm, (tail, median), source)
            yield {
                "topic": "table-decisions",
                "subject": arm,
                "part": "24 weeks",
                "quantity": "trainings",
                "value": (fewest + most) / 2,
                "low": fewest,
                "high": most,
                "unit": "trainings",
                "read_off_plot": True,
                "source": source,
            }
    for number, values in enumerate(_REPEATED, 1):
        source = f"{paper}, figures 5, 7 and 9: the default in four sweeps"
        yield from _scores("table-repeatability", f"sweep {number}", values, source)


def _course_rows() -> Iterator[dict[str, Any]]:
    for (arm, predictor, when), (low, high) in _LEVELS.items():
        figure = "10" if arm == "committee" else "5 and 23"
        yield {
            "topic": "figure-loss-over-time",
            "subject": arm,
            "part": f"{predictor}, {when}",
            "quantity": "loss_q0.99",
            "value": (low + high) / 2,
            "low": low,
            "high": high,
            "unit": "nats",
            "read_off_plot": True,
            "source": f"Memento paper, figures {figure}",
        }


def _deployment_rows() -> Iterator[dict[str, Any]]:
    quantities = (
        ("days", "days"),
        ("streams", "streams"),
        ("stream_years", "years"),
        ("ssim", "dB"),
        ("stalled", "%"),
        ("stalled_hours", "h"),
    )
    source = "record of the deployment on Puffer; Memento paper, figures 6 and 17"
    for (scheme, period), values in _DEPLOYED.items():
        row = {"topic": "deployment", "subject": scheme, "part": period, "source": source}
        for (quantity, unit), value in zip(quantities, values, strict=True):
            yield {**row, "quantity": quantity, "unit": unit, "value": value}
    for scheme, changes in _RELATIVE.items():
        row = {"topic": "deployment", "subject": scheme, "against": "Fugu-Feb", "source": source}
        names = (("ssim_change", "%"), ("stalled_change", "%"), ("share_of_days_worse", ""))
        for (quantity, unit), value in zip(names, changes, strict=True):
            if value == value:
                yield {**row, "quantity": quantity, "unit": unit, "value": value}
    for (scheme, quantity), (low, high) in _LIVE_SCORES.items():
        yield {
            "topic": "deployment",
            "subject": scheme,
            "against": "Fugu-Feb",
            "quantity": quantity,
            "value": (low + high) / 2,
            "low": low,
            "high": high,
            "unit": "nats",
            "read_off_plot": True,
            "source": "Memento paper, figures 6(a), 14 and 20",
        }
    for variant, horizons in _RECORD.items():
        for horizon, numbers in enumerate(horizons):
            for (quantity, unit), value in zip(_RECORD_QUANTITIES, numbers, strict=True):
                yield {
                    "topic": "record",
                    "subject": variant,
                    "part": f"horizon {horizon}",
                    "quantity": quantity,
                    "value": value,
                    "unit": unit,
                    "source": "record of the deployment on Puffer, 2022 and 2023",
                }

    for variant, days in _TRAINED.items():
        for number, day in enumerate(days, 1):
            yield {
                "topic": "record",
                "subject": variant,
                "part": f"horizon 0, training {number}",
                "quantity": "trained_after",
                "value": day,
                "unit": "days",
                "source": "record of the deployment on Puffer, 2022 and 2023",
            }


def _memory_rows() -> Iterator[dict[str, Any]]:
    for variant, quantiles in _DENSITIES.items():
        for quantity, value in quantiles.items():
            yield {
                "topic": "densities",
                "subject": variant,
                "part": RECORD_PERIOD[1],
                "quantity": quantity,
                "value": value,
                "source": "record of the deployment on Puffer: densities of the memory's batches",
            }
    for (scheme, day), values in _CONTENT.items():
        for (quantity, unit), pair in zip(_CONTENT_QUANTITIES, values, strict=True):
            for name, value in zip((quantity, f"{quantity}_std"), pair, strict=False):
                yield {
                    "topic": "content",
                    "subject": scheme,
                    "part": day,
                    "quantity": name,
                    "value": value,
                    "unit": unit,
                    "source": "normalisers of the models deployed on Puffer, first horizon",
                }


def _puffer_rows() -> Iterator[dict[str, Any]]:
    source = "Yan et al., NSDI 2020: Puffer's primary experiment, 2019"
    for scheme, values in _PRIMARY.items():
        stalled, stalled_low, stalled_high, ssim, ssim_low, ssim_high, *rest = values
        row = {"topic": "puffer", "subject": scheme, "source": source}
        yield {
            **row,
            "quantity": "stalled",
            "value": stalled,
            "low": stalled_low,
            "high": stalled_high,
            "unit": "%",
        }
        yield {
            **row,
            "quantity": "ssim",
            "value": ssim,
            "low": ssim_low,
            "high": ssim_high,
            "unit": "dB",
        }
        change, slow_stalled, slow_ssim, streams, hours = rest
        yield {**row, "quantity": "delta_ssim", "value": change, "unit": "dB"}
        slow = {**row, "part": "slow paths"}
        yield {**slow, "quantity": "stalled", "value": slow_stalled, "unit": "%"}
        yield {**slow, "quantity": "ssim", "value": slow_ssim, "unit": "dB"}
        yield {**row, "quantity": "streams", "value": streams, "unit": "streams"}
        yield {**row, "quantity": "watched", "value": hours, "unit": "h"}


def _more_puffer_rows() -> Iterator[dict[str, Any]]:
    source = "Yan et al., NSDI 2020"
    names = (("stalled", "%"), ("ssim", "dB"))
    found = [("puffer-vintages", s, "", names, v) for s, v in _VINTAGES.items()]
    for predictor, (other, fugu) in _PREDICTORS.items():
        found.append(("puffer-predictors", predictor, "", names, other))
        found.append(("puffer-predictors", "Fugu", f"beside {predictor}", names, fugu))
    first = (("ssim", "dB"), ("startup", "s"))
    found += [("puffer-first-chunk", s, "", first, v) for s, v in _FIRST_CHUNK.items()]
    for topic, subject, part, quantities, values in found:
        row = {"topic": topic, "subject": subject, "part": part, "source": source}
        for (quantity, unit), value in zip(quantities, values, strict=True):
            if value == value:
                yield {**row, "quantity": quantity, "unit": unit, "value": value}
    yield {
        "topic": "puffer-bitrate",
        "subject": "all schemes",
        "quantity": "bitrate",
        "value": sum(_BITRATE) / 2,
        "low": _BITRATE[0],
        "high": _BITRATE[1],
        "unit": "Mbit/s",
        "source": source,
    }


def _datacenter_rows() -> Iterator[dict[str, Any]]:
    for scenario, memories in _HELD.items():
        for memory, counts in memories.items():
            for workload, count in zip(("w1", "w2", "w3"), counts, strict=True):
                yield {
                    "topic": scenario,
                    "subject": memory,
                    "part": workload,
                    "quantity": "held",
                    "value": count,
                    "unit": "samples",
                    "source": "Memento paper, table 2",
                }
    plot = {"read_off_plot": True}
    for memory, value in _ACCURACY.items():
        yield {
            "topic": "rare-patterns",
            "subject": memory,
            "quantity": "accuracy",
            "value": value,
            **plot,
            "source": "Memento paper, figure 11(a)",
        }
    for memory, (low, high) in _ACCURACY_AFTER_W3.items():
        yield {
            "topic": "incremental",
            "subject": memory,
            "quantity": "accuracy_after_w3",
            "value": (low + high) / 2,
            "low": low,
            "high": high,
            **plot,
            "source": "Memento paper, figure 11(b)",
        }
    for appears, rise in (("w2", 0.5), ("w3", 0.33)):
        yield {
            "topic": "incremental",
            "subject": "memento",
            "part": f"{appears} appears",
            "quantity": "coverage_increase",
            "value": rise,
            **plot,
            "source": "Memento paper, section 5.3",
        }
    for memory, errors in _ERRORS.items():
        for load, error in zip((66, 100, 133), errors, strict=True):
            yield {
                "topic": "congestion",
                "subject": memory,
                "part": f"{load} %",
                "quantity": f"error_{load}",
                "value": error,
                "high": 33.0 if (memory, load) == ("fifo", 133) else _NAN,
                "unit": "ms",
                **plot,
                "source": "Memento paper, figure 11(c)",
            }
