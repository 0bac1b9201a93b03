"""Stream statistics: against loops written from Puffer's rules, and intervals that cover."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from memento.errors import DomainError, SchemaError, SettingError
from memento_puffer.quality.qoe import (
    common_days,
    daily_statistics,
    difference,
    quality,
    quality_statistics,
    scheme_statistics,
    stream_statistics,
    time_series,
    weighted_ecdf,
    weighted_intervals,
)

NAN = float("nan")
Event = tuple[float, str, float, float]  # s, event, buffer, cum_rebuf


def slow_stream(events: list[Event]) -> dict[str, Any]:
    """One stream, event by event."""
    truncated, bad, playing, slow = "", "", False, False
    low_since, before, start, last, kept = None, None, None, None, 0
    counted: list[tuple[float, float]] = []  # (s, stall that may be) of each event that is kept
    for now in events:
        t, kind, buffer, rebuffered = now
        if before is not None and t - before[0] > 8:
            truncated = "gap"
            break
        if buffer > 0.3:
            low_since = None
        elif low_since is None:
            low_since = t
        if low_since is not None and t - low_since > 20:
            truncated = "low buffer"
            break
        if before is not None and buffer > 5 and before[2] > 5 and rebuffered > before[3] + 0.15:
            slow = True
        if kind in ("startup", "play"):
            playing = True
        if kind == "rebuffer":
            playing = False
        if kind == "startup" and start is None:
            start = now
        if start is None or now is start:
            counted = [*counted, (t, 0.0)] if start is None else [(t, 0.0)]
        else:
            more = min(max(rebuffered - before[3], 0.0), 20.0)
            counted.append((t, counted[-1][1] + more))
        if playing and kind in ("startup", "play", "timer"):
            last, until = now, len(counted)
        before, kept = now, kept + 1
    if start is None or last is None:
        limit = 0.0
        for one, two in itertools.pairwise(events[:kept]):
            limit += min(max(two[3] - one[3], 0.0), 20.0)
        limit = min(limit, events[kept - 1][0] - events[0][0])
        found = {"stall_limit": limit}
        return {**found, "truncated": truncated, "bad": "never started", "events": kept}
    watch, stall = last[0] - start[0], last[3] - start[3]
    if slow:
        bad = "slow decoder"
    elif watch <= 0:
        bad = "nothing played"
    elif stall < 0:
        bad = "negative rebuffer"
    found = {"watch": watch, "stall": stall, "startup": start[3], "stall_with_startup": last[3]}
    found["stall_capped"] = min(stall, counted[until - 1][1], watch)
    found["stall_limit"] = min(counted[-1][1], counted[-1][0] - start[0])
    return {**found, "truncated": truncated, "bad": bad, "events": kept}


def columns_of(
    streams: list[list[Event]], order: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    rows = [(i, *event) for i, events in enumerate(streams) for event in events]
    order = np.arange(len(rows)) if order is None else order
    names = ("stream", "time", "event", "buffer", "cum_rebuf")
    made = {n: np.array(v)[order] for n, v in zip(names, zip(*rows, strict=True), strict=True)}
    made["time"] = np.round(made["time"] * 1e9).astype(np.int64) + 1_650_000_000_000_000_000
    return made


def play(until: float, buffer: float = 3.0, stall: float = 0.5) -> list[Event]:
    timers = [(float(t), "timer", buffer, stall) for t in np.arange(1.0, until + 0.1)]
    return [(0.0, "init", 0.0, 0.0), (0.5, "startup", 2.0, 0.5), *timers]


STREAMS: dict[str, tuple[list[Event], dict[str, Any]]] = {
    "plays": (play(10), {"watch": 9.5, "stall": 0.0, "bad": "", "considered": True}),
    "zapped": (play(4), {"watch": 3.5, "considered": False, "bad": ""}),
    "gap": (
        [*play(10), (18.5, "timer", 3.0, 9.0)],
        {"truncated": "gap", "watch": 9.5, "stall": 0.0, "stall_with_startup": 0.5},
    ),
    "gap of 8 s": ([*play(10), (18.0, "timer", 3.0, 0.75)], {"truncated": "", "stall": 0.25}),
    "left stalled": (
        [*play(5), *((float(t), "timer", 0.3, 1.0) for t in range(6, 30))],
        {"truncated": "low buffer", "watch": 25.5, "events": 28},
    ),
    "rebuffers": (
        [*play(5), (6, "rebuffer", 0.0, 0.5), (7, "timer", 0.0, 1.5), (8, "play", 2.0, 2.5)],
        {"watch": 7.5, "stall": 2.0, "startup": 0.5},
    ),
    "ends in a stall": (
        [*play(5), (6, "rebuffer", 0.0, 0.5), (7, "timer", 0.0, 1.5)],
        {"watch": 4.5, "stall": 0.0},
    ),
    "never started": (
        [(0.0, "init", 0.0, 0.0), (1.0, "timer", 0.0, 1.0)],
        {"bad": "never started"},
    ),
    "nothing played": (play(0), {"bad": "nothing played", "considered": False}),
    "negative": (play(8, stall=0.25), {"bad": "negative rebuffer"}),
    "slow decoder": (
        [*play(5, buffer=6.0), (6.0, "timer", 6.0, 0.75)],
        {"bad": "slow decoder"},
    ),
    "slow decoder after the end": (
        [*play(5, buffer=6.0), (14.0, "timer", 6.0, 0.75)],
        {"bad": "", "truncated": "gap"},
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_each_rule(name: str) -> None:
    events, expected = STREAMS[name]
    found = stream_statistics(columns_of([play(3), events, play(6)])).take([1])
    oracle = slow_stream(events)
    for key, value in {**oracle, **expected}.items():
        got = found[key][0]
        assert got == (pytest.approx(value) if isinstance(value, float) else value), key


def test_random_streams_in_any_order() -> None:
    rng = np.random.default_rng(3)
    streams = []
    for _ in range(400):
        n = int(rng.integers(1, 40))
        kinds = rng.choice(
            ["init", "startup", "rebuffer", "play", "timer"], n, p=[0.05, 0.1, 0.1, 0.15, 0.6]
        )
        t = np.cumsum(rng.choice([0.25, 1, 4, 8, 9], n, p=[0.3, 0.4, 0.2, 0.08, 0.02]))
        buffer = rng.choice([0.0, 0.3, 1.0, 6.0], n, p=[0.5, 0.3, 0.05, 0.15])
        steps = rng.choice([0, 0.125, 0.5, -0.25, 30.0], n, p=[0.68, 0.1, 0.1, 0.1, 0.02])
        made = zip(t, kinds, buffer, np.cumsum(steps), strict=True)
        streams.append([(float(a), str(b), float(c), float(d)) for a, b, c, d in made])
    order = rng.permutation(sum(map(len, streams)))
    found = stream_statistics(columns_of(streams, order))
    oracles = [slow_stream(one) for one in streams]
    assert {o["bad"] for o in oracles} == {
        *("", "never started", "slow decoder"),
        *("nothing played", "negative rebuffer"),
    }
    assert {o["truncated"] for o in oracles} == {"", "gap", "low buffer"}
    for i, oracle in enumerate(oracles):
        for key in ("bad", "truncated", "events"):
            assert found[key][i] == oracle[key], (i, key)
        for key in (
            *("watch", "stall", "startup", "stall_with_startup"),
            *("stall_capped", "stall_limit"),
        ):
            expected = oracle.get(key, math.nan)
            # Times since 1970 in ns as float64 would be off by more.
            assert found[key][i] == pytest.approx(expected, abs=1e-6, nan_ok=True), (i, key)


def test_quality_of_streams() -> None:
    index = np.array([0.9, 0.99, 1.0, 0.9, np.nan, 0.5, 0.75])
    found = quality_statistics(
        {
            "stream": [0, 0, 0, 0, 0, 1, 1],
            "ssim_index": index,
            "size": [1001.0] * 7,
            "delivery_rate": [750_000.0] * 5 + [750_001.0] * 2,
        }
    )
    np.testing.assert_allclose(found["ssim"], [(0.9 + 0.99 + 0.9) / 3, 0.625])
    np.testing.assert_allclose(found["delta_ssim"], [10, 10 * math.log10(2)])
    assert np.isnan(found["delta_ssim_published"]).all()  # one difference over none
    np.testing.assert_allclose(found["bitrate"], 8 * 1001 / 2.002)
    assert found["slow"].tolist() == [True, False]


def slow_ratios(watch: Any, stall: Any, pool: Any, rng: np.random.Generator) -> float:
    def b(w: float) -> int:
        return min(math.floor(math.log2(w)), 20)

    total = stalled = 0.0
    for _ in watch:
        w, away, same = rng.choice(pool), 0, []
        while not same:
            near = (b(w) - away, b(w) + away)
            same = [s / t for s, t in zip(stall, watch, strict=True) if b(t) in near]
            away += 1
        total, stalled = total + w, stalled + w * rng.choice(same)
    return stalled / total


def test_stall_realisations_have_the_law_of_the_slow_ones() -> None:
    """Two-sample Kolmogorov-Smirnov at 1e-6."""
    rng = np.random.default_rng(5)
    watch = np.r_[4.0, 7.9, 64.0, 64.0, 1000.0, 5000.0]
    stall = np.r_[0.0, 1.0, 3.0, 0.0, 0.0, 20.0]
    pool = np.r_[4.0, 10.0, 20.0, 200.0, 2000.0, 4e6]
    slow = np.array([slow_ratios(watch, stall, pool, rng) for _ in range(1500)])
    from memento_puffer.quality.qoe import _stall_ratios

    fast = _stall_ratios(watch, stall, pool, 20_000, rng)
    every = np.sort(np.r_[slow, fast])
    apart = np.abs(
        np.searchsorted(np.sort(slow), every, "right") / 1500
        - np.searchsorted(np.sort(fast), every, "right") / 20_000
    ).max()
    assert apart < math.sqrt(math.log(2 / 1e-6) / 2 * (1 / 1500 + 1 / 20_000))


def test_schemes() -> None:
    rng = np.random.default_rng(1)
    n = 300
    streams = {
        "scheme": np.array(["a", "b", "a"]).repeat(n),
        "watch": rng.lognormal(5, 1.5, 3 * n) + 4,
        "stall": rng.exponential(1, 3 * n) * (rng.random(3 * n) < 0.1),
        "ssim": rng.uniform(0.9, 0.99, 3 * n),
        "delta_ssim": rng.uniform(0, 2, 3 * n),
    }
    found = scheme_statistics(streams, rng=rng, realisations=200)
    for k, name in enumerate("ab"):
        own = streams["scheme"] == name
        w, x = streams["watch"][own], streams["ssim"][own]
        mean = np.average(x, weights=w)
        sem = math.sqrt(np.average((x - mean) ** 2, weights=w)) * math.sqrt(sum(w**2)) / sum(w)
        assert found["ssim"][k] == pytest.approx(-10 * math.log10(1 - mean))
        assert found["ssim_low"][k] == pytest.approx(-10 * math.log10(1 - mean + 2 * sem))
        assert found["stall_ratio"][k] == pytest.approx(streams["stall"][own].sum() / w.sum())
        assert found["stall_low"][k] < found["stall_mean"][k] < found["stall_high"][k]
        assert found["delta_ssim"][k] == pytest.approx(streams["delta_ssim"][own].mean())


def test_daily_table_against_sums_by_hand() -> None:
    chunks = {
        "stream": [1, 1, 2, 2, 2, 3, 4, 4],
        "abr": ["a"] * 6 + ["b"] * 2,
        "ssim_index": [0.9, 0.99, 0.9, 1.0, 0.9, 0.5, 0.75, 0.75],
        "cum_rebuf": [0.5, 2.5, 0.25, 0.25, 9.0, 7.0, 0.0, 0.0],
        "startup": [0.5, 0.5, 0.25, 0.25, 0.25, 0.0, 0.0, 0.0],
        "trans_time": [0.1, 0.1, 0.1, 0.1, np.nan, 0.1, 0.1, 0.1],  # stream 3 has one chunk
        "logscore": np.array([[-1.0, -3.0], [-2.0, np.nan], *[[-1.0, -1.0]] * 6]),
    }
    table = daily_statistics(chunks, day=np.datetime64("2022-10-01"))
    keys = zip(*(table[n] for n in ("abr", "selection", "variable", "metric")), strict=True)
    value = dict(zip(keys, table["value"], strict=True))
    stream = {key[3]: v for key, v in value.items() if key[:3] == ("a", "all", "stream")}
    assert stream["playtime"] == pytest.approx(4 * 2.001)
    assert stream["rebuftime"] == 2.0
    assert stream["rebuftime_with_startup"] == 2.75
    assert stream["stalled"] == pytest.approx(100 * 2 / (4 * 2.001 + 2))
    assert (stream["chunks"], stream["streams"]) == (4, 2)
    assert value["a", "stalled", "stream", "streams"] == 1
    assert value["a", "unstalled", "stream", "rebuftime"] == 0
    assert value["a", "all", "ssim", "mean"] == pytest.approx(-10 * math.log10(1 - 3.79 / 4))
    assert value["a", "all", "ssim", "q1"] == math.inf
    assert value["a", "all", "delta_ssim", "count"] == 1  # 1.0 is missing here
    assert value["a", "all", "delta_ssim", "mean"] == pytest.approx(10)
    assert value["a", "stalled", "logscore", "mean"] == -2
    assert value["a", "stalled", "logscore_0", "mean"] == -1.5
    assert np.isnan(value["b", "stalled", "ssim", "mean"])


def days_table(rng: np.random.Generator, days: int) -> dict[str, np.ndarray]:
    """Two schemes share what a day is like, and bad days weigh more."""
    luck = rng.uniform(0, 2, days)
    value = np.r_[1 + luck, 0.5 + luck] + rng.normal(0, 0.1, 2 * days)
    scheme = np.array(["a", "b"]).repeat(days)
    weight = np.tile(0.2 + luck, 2)
    return {"day": np.tile(np.arange(days), 2), "scheme": scheme, "value": value, "weight": weight}


def test_joint_intervals_cover_and_the_unpaired_mode_does_not() -> None:
    """150 tables of 60 days, 90 % intervals.

    Over 1000 tables joint intervals covered 89.3 % (unpaired 2.3 %); with that, 75 % or fewer of
    150 are a false alarm of < 1e-5. The mean of luck weighted by 0.2 + luck is (0.2 + 4/3) / 1.2;
    that of a is 1 above it.
    """
    rng = np.random.default_rng(11)
    truth, hits, apart, widths = 1 + (0.2 + 4 / 3) / 1.2, 0, 0, np.zeros(2)
    tables = 150
    for _ in range(tables):
        table = days_table(rng, 60)
        one = weighted_intervals(table, rng=rng, resamples=200)
        two = weighted_intervals(table, rng=rng, resamples=200, joint=False)
        hits += one["low"][0] <= truth <= one["high"][0]
        apart += two["low"][0] <= truth <= two["high"][0]
        for k, joint in enumerate((True, False)):
            gap = difference(table, "a", "b", rng=rng, resamples=200, joint=joint)
            widths[k] += gap["high"][0] - gap["low"][0]
    assert hits / tables > 0.75
    assert apart / tables < 0.5  # weights torn off their values: another mean altogether
    assert widths[0] < widths[1] / 4  # a day's luck cancels only if both schemes share it


def test_paired_differences_cover() -> None:
    """300 tables, 90 %: if 88 to 91 % are true, a false alarm (outside 80 to 98 %) is < 1e-4."""
    rng = np.random.default_rng(13)
    hits = 0
    for _ in range(300):
        table = days_table(rng, 80)
        table["viewer"] = table.pop("day")
        found = difference(table, "a", "b", rng=rng, unit="viewer", resamples=300, paired=True)
        hits += found["low"][0] <= 0.5 <= found["high"][0]
    assert 0.8 < hits / 300 < 0.98


def test_days_without_a_scheme_do_not_count_for_it() -> None:
    table = {
        "day": [1, 1, 2, 5],
        "scheme": ["a", "b", "a", "a"],
        "value": [1.0, 4.0, 3.0, 5.0],
        "weight": [1.0, 1.0, 3.0, 0.0],
    }
    rng = np.random.default_rng(0)
    found = weighted_intervals(table, rng=rng)
    np.testing.assert_allclose(found["value"], [2.5, 4.0])
    assert found["units"].tolist() == [3, 1]
    assert difference(table, "a", "b", rng=rng, relative=True)["value"][0] == -37.5
    with pytest.raises(SchemaError, match="only one of"):
        difference(table, "a", "b", rng=rng, paired=True)
    series = time_series(table, rng=rng, window=2)
    of_a = series["scheme"] == "a"
    np.testing.assert_allclose(series["value"][of_a], [1.0, 2.5, np.nan])
    assert series["day"][of_a].tolist() == [1, 2, 5]


def test_same_seed_same_interval() -> None:
    table = days_table(np.random.default_rng(2), 30)
    one, two = (weighted_intervals(table, rng=np.random.default_rng(42)) for _ in range(2))
    np.testing.assert_array_equal(one["low"], two["low"])


def test_bad_input() -> None:
    rng = np.random.default_rng(0)
    events = columns_of([play(5)])
    with pytest.raises(SchemaError, match=r"\['buffer'\] are missing"):
        stream_statistics({k: v for k, v in events.items() if k != "buffer"})
    with pytest.raises(DomainError, match="'pause'"):
        stream_statistics({**events, "event": np.full(len(events["time"]), "pause")})
    with pytest.raises(DomainError, match="cum_rebuf"):
        stream_statistics({**events, "cum_rebuf": np.full(len(events["time"]), np.nan)})
    with pytest.raises(DomainError, match="not dB"):
        quality_statistics(
            {"stream": [1], "ssim_index": [16.0], "size": [1.0], "delivery_rate": [1.0]}
        )
    with pytest.raises(DomainError, match="below 4 s"):
        scheme_statistics({"scheme": ["a"], "watch": [1.0], "stall": [0.0]}, rng=rng)
    table = {"day": [1, 1], "scheme": ["a", "a"], "value": [1.0, 1.0], "weight": [1.0, 1.0]}
    with pytest.raises(SchemaError, match="twice"):
        weighted_intervals(table, rng=rng)
    table["day"] = [1, 2]
    with pytest.raises(SettingError, match="level"):
        weighted_intervals(table, rng=rng, level=90)
    with pytest.raises(SchemaError, match="no scheme 'c'"):
        difference(table, "a", "c", rng=rng)


def test_no_rows() -> None:
    empty = {"stream": [], "time": [], "event": np.array([], str), "buffer": [], "cum_rebuf": []}
    assert stream_statistics(empty).size == 0
    assert common_days({"day": [], "scheme": []}).size == 0


def test_quality_is_not_bounded() -> None:
    np.testing.assert_allclose(quality([1 - 1e-9, 0.0, -1.0]), [90, 0, -10 * math.log10(2)])


def test_a_stall_is_not_longer_than_the_time_that_passed() -> None:
    """20 s count from one report to the next, and not more than was watched in all."""
    jump = [*play(5), *((6.0 + t, "timer", 3.0, 288_000.5) for t in range(30))]
    found = stream_statistics(columns_of([jump, jump[:10], play(9, stall=0.75)]))
    assert found["stall"].tolist() == [288_000.0, 288_000.0, 0.25]
    np.testing.assert_allclose(found["stall_capped"], [20.0, found["watch"][1], 0.25])
    np.testing.assert_allclose(found["stall_limit"], [20.0, found["watch"][1], 0.25])


def test_daily_stalls_up_to_a_limit() -> None:
    chunks = {
        "stream": [1, 1, 2, 2],
        "abr": ["a"] * 4,
        "ssim_index": [0.9] * 4,
        "cum_rebuf": [0.5, 3.5, 0.5, 288_000.5],
        "startup": [0.5] * 4,
        "trans_time": [0.1] * 4,
        "stall_limit": [math.inf, math.inf, 20.0, 20.0],
    }
    table = daily_statistics(chunks, day=1)
    rows = (table["selection"] == "all") & (table["variable"] == "stream")
    value = dict(zip(table["metric"][rows], table["value"][rows], strict=True))
    assert value["rebuftime"] == 288_003
    assert value["rebuftime_capped"] == 23
    assert value["streamtime_capped"] == pytest.approx(4 * 2.001 + 23)
    assert value["stalled_capped"] == pytest.approx(100 * 23 / (4 * 2.001 + 23))
    for wrong in (-1.0, NAN):
        with pytest.raises(DomainError, match="stall_limit"):
            daily_statistics({**chunks, "stall_limit": [wrong] * 4}, day=1)


def test_weighted_ecdf_counts_weights() -> None:
    rng = np.random.default_rng(9)
    values, weights = rng.integers(-3, 4, 50).astype(float), rng.random(50)
    found = weighted_ecdf(values, weights)
    for value, share in zip(found["value"], found["share"], strict=True):
        assert share == pytest.approx(weights[values <= value].sum() / weights.sum())
    assert found["share"][-1] == 1
    assert weighted_ecdf(values)["share"][0] == pytest.approx((values == -3).mean())
    assert weighted_ecdf([])["value"].size == 0
    with pytest.raises(SchemaError, match="expected"):
        weighted_ecdf([1.0], [1.0, 2.0])
    with pytest.raises(DomainError, match="weights"):
        weighted_ecdf([1.0], [0.0])
    with pytest.raises(DomainError, match="not finite"):
        weighted_ecdf([NAN])


def test_means_are_transformed_before_they_are_subtracted() -> None:
    table = {
        "day": [1, 1, 2, 2],
        "scheme": ["a", "b"] * 2,
        "value": [0.9, 0.99] * 2,
        "weight": [1.0] * 4,
    }
    rng = np.random.default_rng(0)
    found = difference(table, "b", "a", rng=rng, transform=quality)
    np.testing.assert_allclose([found[n][0] for n in ("value", "low", "high")], 10)
