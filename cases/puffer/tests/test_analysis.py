"""The daily analysis, from files to totals: against loops over streams and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

pl = pytest.importorskip("polars")

from days import VARIANTS, made_streams, play, start_of, tables_of, write  # noqa: E402

from memento.errors import SchemaError, SettingError, StorageError  # noqa: E402
from memento_puffer.data.features import Features  # noqa: E402
from memento_puffer.data.schema import Day, range_of, write_day  # noqa: E402
from memento_puffer.predictor.network import CLASS_VALUES  # noqa: E402
from memento_puffer.predictor.ttp import Ttp  # noqa: E402
from memento_puffer.quality import analysis, qoe  # noqa: E402
from memento_puffer.quality.aggregates import (  # noqa: E402
    by_day,
    compare,
    deployment,
    official,
    paired,
    trade_off,
)
from memento_puffer.quality.analysis import (  # noqa: E402
    LABELS,
    Label,
    analyze,
    analyze_day,
    gather,
    scheme_of,
)
from memento_puffer.quality.qoe import difference, time_series, weighted_ecdf  # noqa: E402

NAME = "2022-10-01"
SCHEMES = {1: "bba", 2: "fugu-feb", 3: "memento"}


def cells(table, *names):
    keys = zip(*(table[n].tolist() for n in names), strict=True)
    return dict(zip(keys, table["value"].tolist(), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_day_in_each_form(tmp_path, variant):
    """Stalls, quality and counts of each scheme, summed stream by stream."""
    streams = made_streams(NAME, 40, seed=2)
    found = analyze_day(write(tmp_path, NAME, streams, variant))
    value = cells(found.daily, "scheme", "selection", "variable", "metric")
    stalled_streams = 0
    for expt, scheme in SCHEMES.items():
        sums = dict.fromkeys(("chunks", "streams", "rebuftime", "rebuftime_with_startup"), 0.0)
        index, changes = [], []
        for stream in streams:
            arrived = [c for c in stream.chunks if c["trans_time"] is not None]
            if stream.expt != expt or len(arrived) < 2:
                continue
            sums["chunks"] += len(arrived)
            sums["streams"] += 1
            most = max(c["cum_rebuf"] for c in arrived)
            clean = max(most - stream.startup, 0.0)
            sums["rebuftime"] += clean
            old = variant in ("old", "oldest")  # there the startup delay was subtracted already
            sums["rebuftime_with_startup"] += clean if old else most
            index += [c["ssim_index"] for c in arrived]
            q = [-10 * math.log10(1 - c["ssim_index"]) for c in arrived]
            changes += np.abs(np.diff(q)).tolist()
            stalled_streams += clean > 0
        for metric, expected in sums.items():
            key = (scheme, "all", "stream", metric)
            assert value[key] == pytest.approx(expected, abs=1e-6), key
        assert value[scheme, "all", "stream", "rebuftime_capped"] == pytest.approx(
            sums["rebuftime"], abs=1e-6
        )
        assert value[scheme, "all", "ssim", "mean"] == pytest.approx(
            -10 * math.log10(1 - np.mean(index)), abs=1e-6
        )
        assert value[scheme, "all", "delta_ssim", "mean"] == pytest.approx(np.mean(changes))
        parts = [value[scheme, part, "stream", "streams"] for part in ("stalled", "unstalled")]
        assert sum(parts) == sums["streams"]
    assert 5 < stalled_streams < len(streams)
    assert found.counts["value"][found.counts["count"] == "chunks"][0] == sum(
        len(s.chunks) for s in streams
    )


def test_streams_of_a_day(tmp_path):
    streams = made_streams(NAME, 25, seed=4)
    found = analyze_day(write(tmp_path, NAME, streams)).streams
    assert found.size == len(streams)
    assert set(found["viewer"]) == {-1}
    assert set(found["bad"]) == {""}
    order = sorted(streams, key=lambda s: s.begin + s.chunks[0]["sent"] * 1e9)
    for row, stream in enumerate(order):
        assert found["scheme"][row] == SCHEMES[stream.expt]
        assert found["index"][row] == stream.index
        assert found["startup"][row] == stream.startup
        playing, last = False, None
        for event in stream.events:
            playing = event[1] in ("startup", "play") or (playing and event[1] == "timer")
            last = event if playing else last
        assert found["watch"][row] == pytest.approx(last[0] - stream.startup)
        assert found["stall"][row] == pytest.approx(last[3] - stream.startup)
        assert found["stall_capped"][row] == found["stall"][row]
        assert found["chunks"][row] == len(stream.chunks)
        mean = np.mean([c["ssim_index"] for c in stream.chunks])
        assert found["ssim"][row] == pytest.approx(mean)


def test_blocks_of_events_do_not_matter(tmp_path, monkeypatch):
    day = write(tmp_path, NAME, made_streams(NAME, 15))
    whole = analyze_day(day).streams
    monkeypatch.setattr(qoe, "_EVENTS_AT_ONCE", 50)
    parts = analyze_day(day).streams
    for name, values in whole.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(parts[name], values, atol=1e-6)
        else:
            np.testing.assert_array_equal(parts[name], values)


# ----------------------------------------------------------------------------------------------
# Predictions


def test_each_scheme_is_scored_with_its_own_model(tmp_path, monkeypatch):
    monkeypatch.setattr(analysis, "_SAMPLES_AT_ONCE", 37)
    day = write(tmp_path, NAME, made_streams(NAME, 25, seed=6))
    features = Features.of_day(day)
    scheme = np.array([scheme_of(a, NAME) for a in features.streams["abr"].to_list()])
    own = {"fugu-feb": Ttp.fresh(1), "memento": Ttp.fresh(2)}
    models = {
        "fugu-feb": own["fugu-feb"],
        "memento": lambda name: own["memento"] if name == NAME else None,
        "bba": {"2022-10-02": Ttp.fresh(3)},  # none for this day
    }
    found = analyze_day(day, models=models)
    value = cells(found.scores, "scheme", "horizon", "variable", "metric")
    daily = cells(found.daily, "scheme", "selection", "variable", "metric")
    assert set(found.scores["scheme"]) == set(own)
    assert ("bba", "all", "logscore", "mean") not in daily
    for name, ttp in own.items():
        by_chunk: dict[tuple[int, int], dict[int, dict[str, float]]] = {}
        for h in range(5):
            columns = features.columns(h, dtype=np.float64)
            mine = scheme[columns["stream"]] == name
            p = ttp[h].astype("f8").probabilities(columns["x"][mine])
            y, label = columns["y"][mine], columns["y_bin"][mine]
            y_hat = p @ CLASS_VALUES
            log = np.log(p[np.arange(len(p)), label])
            for variable, values in {
                "y": y,
                "y_hat": y_hat,
                "logscore": log,
                "error": y_hat - y,
                "error_rel": (y_hat - y) / y,
            }.items():
                assert value[name, h, variable, "mean"] == pytest.approx(values.mean(), rel=1e-4)
                assert value[name, h, variable, "count"] == len(y)
                if h == 0:
                    assert daily[name, "all", f"{variable}_0", "mean"] == pytest.approx(
                        values.mean(), rel=1e-4
                    )
            keys = zip(columns["stream"][mine], columns["time"][mine], strict=True)
            for i, key in enumerate(keys):
                by_chunk.setdefault(key, {})[h] = {"logscore": log[i], "y": y[i]}
        averaged = [np.mean([s["logscore"] for s in one.values()]) for one in by_chunk.values()]
        found_q = daily[name, "all", "logscore", "q0.1"]
        assert found_q == pytest.approx(np.quantile(averaged, 0.1), rel=1e-4)
        assert daily[name, "all", "y", "count"] == len(by_chunk)


# ----------------------------------------------------------------------------------------------
# Labels, days, dirt


def test_labels():
    assert scheme_of("fugu_variant_cl", "2022-05-02") == "memento"
    assert scheme_of("fugu_variant_cl4", "2023-05-02") == "memento-deterministic"
    assert scheme_of(None, NAME) == "unknown"
    assert scheme_of("new", NAME) == "new"
    mine = [Label("new", "a", last="2022-09-30"), Label("new", "b", first="2022-10-01"), *LABELS]
    assert [scheme_of("new", d, mine) for d in ("2022-09-30", NAME)] == ["a", "b"]


def test_an_outlier_of_80_hours(tmp_path):
    """One report of 80 h in one stream: as reported it drowns the day, capped it does not."""
    streams = made_streams(NAME, 30, seed=8)
    plain = analyze_day(write(tmp_path / "a", NAME, streams))
    broken = next(s for s in streams if s.expt == 2 and len(s.chunks) > 6)
    at = len(broken.events) // 2
    when = broken.events[at][0]
    broken.events = [
        (t, e, b, c + (288_000.0 if i >= at else 0.0))
        for i, (t, e, b, c) in enumerate(broken.events)
    ]
    for chunk in broken.chunks:
        chunk["cum_rebuf"] += 288_000.0 if chunk["sent"] >= when else 0.0
    found = analyze_day(write(tmp_path / "b", NAME, streams))
    before, after = (deployment(d.daily) for d in (plain, found))
    row = after["scheme"].tolist().index("fugu-feb")
    assert after["stalled_hours"][row] > 80
    assert after["stalled"][row] > 90
    assert after["stalled_with_startup"][row] > 90
    extra = 3600 * (after["stalled_hours_capped"] - before["stalled_hours_capped"])
    assert 0 <= extra[row] <= 20.001
    others = np.arange(3) != row
    np.testing.assert_allclose(extra[others], 0, atol=1e-6)
    assert found.counts["value"][found.counts["count"] == "capped"] == 1
    rng = np.random.default_rng(0)
    statistics = official(found.streams, rng=rng, realisations=50)
    assert statistics["stall_ratio"].max() < 1
    table = found.streams.take(found.streams["stall_capped"] < found.streams["stall"] - 1e-9)
    assert table["stall"][0] >= 288_000
    assert table["stall_capped"][0] <= min(table["stall"][0] - 288_000 + 20, table["watch"][0])


def test_a_viewer_who_left_a_stalled_tab(tmp_path):
    streams = made_streams(NAME, 10, seed=1)
    left = streams[0]
    left.events = play(np.random.default_rng(0), 200.0, [(5.0, 150.0)])
    left.chunks = [c for c in left.chunks if c["sent"] < 4]
    left.chunks += [{**left.chunks[-1], "sent": 160.0, "cum_rebuf": 150.5, "video_ts": 10**9}]
    for chunk in left.chunks:
        chunk["trans_time"] = 0.5
    found = analyze_day(write(tmp_path, NAME, streams))
    row = np.flatnonzero(found.streams["truncated"] == "low buffer")
    assert len(row) == 1
    assert found.streams["stall_limit"][row] == pytest.approx(20.0, abs=0.6)
    value = cells(found.daily, "scheme", "selection", "variable", "metric")
    scheme = SCHEMES[left.expt]
    clean, capped = (value[scheme, "all", "stream", f"rebuftime{s}"] for s in ("", "_capped"))
    assert clean - capped == pytest.approx(130.0, abs=0.6)


def test_missing_ssim_is_taken_from_the_encoder(tmp_path):
    streams = made_streams(NAME, 6)
    for stream in streams:
        stream.chunks[0]["encoded"] = stream.chunks[0]["ssim_index"]
    tables = tables_of(streams)
    gaps = pl.col("video_ts") % 360360 == 0
    lacking = pl.when(~gaps).then("ssim_index").alias("ssim_index")
    sent = tables["video_sent"].drop("encoded").with_columns(lacking)
    settings = {n: {"abr": label} for n, label in SCHEMES.items()}
    full = write_day(
        tmp_path / "a",
        NAME,
        tables | {"video_sent": tables["video_sent"].drop("encoded")},
        settings,
    )
    holes = write_day(tmp_path / "b", NAME, tables | {"video_sent": sent}, settings)
    one, two = analyze_day(full), analyze_day(holes)
    np.testing.assert_array_equal(one.streams["ssim"], two.streams["ssim"])
    filled = two.counts["value"][two.counts["count"] == "ssim_filled"][0]
    assert filled == sent["ssim_index"].null_count() > 0


def test_chunks_without_size_or_rate_do_not_stop_a_day(tmp_path):
    streams = made_streams(NAME, 5)
    streams[0].chunks[1]["size"] = None
    streams[1].chunks[0]["delivery_rate"] = None
    found = analyze_day(write(tmp_path, NAME, streams))
    assert found.streams["chunks"].sum() == sum(len(s.chunks) for s in streams) - 2


@pytest.mark.parametrize("missing", ["expt_settings", "client_buffer"])
def test_a_day_that_lacks_a_file_is_refused(tmp_path, missing, monkeypatch):
    """Before any table is read; without settings every stream would be of a scheme "unknown"."""
    day = write(tmp_path, NAME, made_streams(NAME, 2))
    next(p for p in tmp_path.rglob("*") if p.name.startswith(missing)).unlink()
    monkeypatch.setattr(analysis, "features_and_chunks", None)
    with pytest.raises(StorageError, match=f"no .*{missing}"):
        analyze_day(Day(day.folder))


def test_progress_of_a_day(tmp_path):
    shares: list[float] = []
    analyze_day(write(tmp_path, NAME, made_streams(NAME, 6)), progress=shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == pytest.approx(1.0)


def test_a_day_of_headers(tmp_path):
    tables = {kind: table.head(0) for kind, table in tables_of(made_streams(NAME, 2)).items()}
    empty = analyze_day(write_day(tmp_path / "a", NAME, tables, {1: {"abr": "x"}}))
    full = analyze_day(write(tmp_path / "b", NAME, made_streams(NAME, 6)))
    assert (empty.streams.size, empty.daily.size, empty.scores.size) == (0, 0, 0)
    together = gather([empty, full])
    for name in ("streams", "daily"):
        assert together[name].size == getattr(full, name).size
        assert together[name]["day"].dtype == np.dtype("M8[D]")
    with pytest.raises(SchemaError, match="no days"):
        gather([])
    assert deployment(empty.daily).size == 0


def test_days_one_after_the_other(tmp_path):
    days = [f"2022-10-0{i}" for i in (1, 2, 4)]
    folders = [write(tmp_path / d, d, made_streams(d, 8)).folder for d in days]
    done, asked = [], []
    real = analysis.analyze_day

    def spy(day, **more):
        asked.append(more["previous"].name if more["previous"] else None)
        return real(day, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis, "analyze_day", spy)
        parts = list(analyze(folders, progress=done.append))
    assert asked == [None, "2022-10-01", None]
    assert done == days == [part.day for part in parts]
    tables = gather(parts)
    assert np.unique(tables["daily"]["day"]).astype(str).tolist() == days
    folder = tmp_path / "plain"
    folder.mkdir()
    for kind, path in Day(folders[0]).files.items():
        (folder / f"{kind}.csv").write_bytes(path.read_bytes())
    with pytest.raises(SettingError, match="which day is this"):
        analyze_day(folder)


# ----------------------------------------------------------------------------------------------
# Across days


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    root = tmp_path_factory.mktemp("days")
    days = [f"2022-10-{i:02}" for i in range(1, 7)]
    made = []
    for i, d in enumerate(days):
        streams = [s for s in made_streams(d, 15, seed=i) if i or s.expt != 3]
        made.append(write(root / d, d, streams))
    return gather(analyze(made))


def test_totals(several):
    table = several["daily"]
    value = cells(table, "day", "scheme", "selection", "variable", "metric")
    found = deployment(table)
    assert found["scheme"].tolist() == ["bba", "fugu-feb", "memento"]
    assert found["days"].tolist() == [6, 6, 5]
    days = np.unique(table["day"]).tolist()
    for row, scheme in enumerate(found["scheme"].tolist()):
        stream = {
            metric: sum(value.get((d, scheme, "all", "stream", metric), 0.0) for d in days)
            for metric in ("playtime", "rebuftime", "streamtime", "streams")
        }
        assert found["streams"][row] == stream["streams"]
        assert found["stream_years"][row] == pytest.approx(stream["playtime"] / 31_556_952)
        stalled = 100 * stream["rebuftime"] / stream["streamtime"]
        assert found["stalled"][row] == pytest.approx(stalled)
        assert found["stalled_hours"][row] == pytest.approx(stream["rebuftime"] / 3600)
        ssim = [
            value[d, scheme, "all", "ssim", "mean"]
            for d in days
            if (d, scheme, "all", "ssim", "mean") in value
        ]
        assert found["ssim"][row] == pytest.approx(np.mean(ssim))
    assert (found["stalled_with_startup"] > found["stalled"]).all()
    assert deployment(table, common=True)["days"].tolist() == [5, 5, 5]


def test_days_series_and_comparisons(several):
    table = by_day(several["daily"], "stream", "stalled")
    value = cells(several["daily"], "day", "scheme", "selection", "variable", "metric")
    assert table.size == 17
    for row in range(table.size):
        key = (table["day"][row].astype(object), table["scheme"][row], "all", "stream")
        assert table["value"][row] == value[*key, "stalled_capped"]
        assert table["weight"][row] == value[*key, "streamtime_capped"]
    dirty = by_day(several["daily"], "stream", "stalled", stalls="with_startup")
    assert (dirty["value"] > table["value"]).all()
    found = compare(table, "memento", "bba")
    assert found.size == 5
    x, y = found["x"], found["y"]
    np.testing.assert_allclose(found["difference"], x - y)
    np.testing.assert_allclose(found["relative"], 100 * (x - y) / np.maximum(x, y))
    shares = weighted_ecdf(found["relative"], found["weight"])
    assert shares["share"][-1] == 1
    rng = np.random.default_rng(1)
    series = time_series(table, rng=rng, window=3, resamples=50)
    assert series.size == 17
    gap = difference(table, "memento", "bba", rng=rng, relative=True, resamples=50)
    assert gap["low"][0] <= gap["value"][0] <= gap["high"][0]
    with pytest.raises(SchemaError, match="no 'q7' of 'ssim'"):
        by_day(several["daily"], "ssim", "q7")
    with pytest.raises(SettingError, match="stalls='x'"):
        by_day(several["daily"], "ssim", stalls="x")


def test_trade_off_and_official(several):
    rng = np.random.default_rng(2)
    found = trade_off(several["daily"], rng=rng, resamples=200)
    table = by_day(several["daily"], "stream", "stalled")
    for row, scheme in enumerate(found["scheme"].tolist()):
        own = table["scheme"] == scheme
        mean = np.average(table["value"][own], weights=table["weight"][own])
        assert found["stalled"][row] == pytest.approx(mean)
        for name in ("stalled", "ssim"):
            assert found[f"{name}_low"][row] <= found[name][row] <= found[f"{name}_high"][row]
    streams = several["streams"]
    shared = official(streams, rng=rng, realisations=100)
    every = official(streams, rng=rng, realisations=100, common=False)
    first = streams["day"] == streams["day"].min()
    gone = streams["considered"] & first & (streams["scheme"] == "bba")
    assert every["streams"][0] - shared["streams"][0] == gone.sum() > 0
    slow = official(streams, rng=rng, realisations=20, slow=True)
    assert 0 < slow["streams"].sum() < shared["streams"].sum()


# ----------------------------------------------------------------------------------------------
# Paired runs


def paired_streams(rng, viewers, effect=0.5):
    """Viewers differ far more than schemes: b stalls by ``effect`` % of the time less than a."""
    n = 2 * viewers
    viewer, index = np.repeat(np.arange(viewers), 2), np.tile([0, 1], viewers)
    bad = np.repeat(rng.exponential(5.0, viewers) + 1, 2)
    watch = np.round(rng.lognormal(4, 1, n) + 5, 3)
    parts = []
    for scheme, shift in (("a", 0.0), ("b", -effect)):
        percent = np.maximum(bad + shift + rng.normal(0, 0.3, n), 0.0)
        parts.append(
            {
                "day": np.repeat(np.datetime64(NAME, "D"), n),
                "scheme": np.repeat(scheme, n),
                "viewer": viewer,
                "index": index,
                "considered": rng.random(n) < 0.9,
                "watch": watch,
                "stall_capped": watch * percent / 100,
                "ssim": np.full(n, 0.98 if scheme == "a" else 0.981),
                "delta_ssim": np.where(rng.random(n) < 0.1, np.nan, 1.0),
            }
        )
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def test_paired_intervals_cover_and_are_narrow():
    """150 runs of 80 viewers, 95 %: true cover of 90 to 97 % leaves fewer than 120 below 1e-6."""
    rng = np.random.default_rng(3)
    hits, width, apart = 0, [], []
    for _ in range(150):
        table = paired_streams(rng, 80)
        found = paired(table, "a", rng=rng, variables=["stalled"], resamples=200)
        assert found["first"].tolist() == ["b"]
        hits += found["low"][0] <= -0.5 <= found["high"][0]
        width.append(found["high"][0] - found["low"][0])
        unpaired = {
            "day": 1000 * (table["scheme"] == "b") + table["viewer"],
            "scheme": table["scheme"],
            "value": 100 * table["stall_capped"] / table["watch"],
            "weight": table["watch"],
        }
        keep = table["index"] == 0
        one = difference(
            {k: v[keep] for k, v in unpaired.items()}, "b", "a", rng=rng, resamples=100, level=0.95
        )
        apart.append(one["high"][0] - one["low"][0])
    assert hits >= 120
    assert np.median(width) < np.median(apart) / 4


def test_paired_differences_are_those_of_the_levels():
    """A scheme that lets its worst streams not begin is not better for it in what is compared."""
    table = paired_streams(np.random.default_rng(6), 40)
    found = paired(table, "a", rng=np.random.default_rng(0), variables=["stalled", "ssim"])
    levels = {}
    for scheme in "ab":
        mine = table["considered"] & (table["scheme"] == scheme)
        levels[scheme] = 100 * table["stall_capped"][mine].sum() / table["watch"][mine].sum()
    assert found["x"][0] == pytest.approx(levels["b"])
    assert found["y"][0] == pytest.approx(levels["a"])
    assert found["value"][0] == pytest.approx(levels["b"] - levels["a"])
    assert found["low"][0] <= found["value"][0] <= found["high"][0]
    counting = {s: table["considered"][table["scheme"] == s] for s in "ab"}
    both = counting["a"] & counting["b"]
    assert found["pairs"][0] == both.sum() < 80
    assert found["alone_first"][0] == (counting["b"] & ~both).sum() > 0
    assert found["alone_second"][0] == (counting["a"] & ~both).sum() > 0
    # One stream that stalls throughout, and that only "a" lets begin.
    worst = np.flatnonzero((table["scheme"] == "a") & (table["viewer"] == 3))[0]
    other = np.flatnonzero((table["scheme"] == "b") & (table["viewer"] == 3))[0]
    assert table["index"][worst] == table["index"][other]
    for row, counts in ((worst, True), (other, False)):
        table["considered"][row] = counts
    table["stall_capped"][worst] = table["watch"][worst]
    both = {
        common: paired(
            table, "a", rng=np.random.default_rng(0), variables=["stalled"], common=common
        )["y"][0]
        for common in (False, True)
    }
    assert both[False] > both[True] + 0.5


def test_pairs_by_hand():
    table = paired_streams(np.random.default_rng(5), 30)
    rng = np.random.default_rng(0)
    found = paired(table, "a", rng=rng, variables=["stalled", "ssim", "delta_ssim"], common=True)
    rows = {
        scheme: {
            (v, i): r
            for r, (v, i) in enumerate(zip(table["viewer"], table["index"], strict=True))
            if table["scheme"][r] == scheme and table["considered"][r]
        }
        for scheme in "ab"
    }
    both = sorted(set(rows["a"]) & set(rows["b"]))
    assert found["pairs"][0] == len(both) < 60
    assert not found["alone_first"].any()
    assert not found["alone_second"].any()
    assert found["viewers"][0] == len({viewer for viewer, _ in both})
    percent = {}
    for scheme in "ab":
        mine = [rows[scheme][key] for key in both]
        percent[scheme] = 100 * table["stall_capped"][mine].sum() / table["watch"][mine].sum()
    assert found["x"][0] == pytest.approx(percent["b"])
    assert found["y"][0] == pytest.approx(percent["a"])
    assert found["value"][0] == pytest.approx(percent["b"] - percent["a"])
    assert found["value"][1] == pytest.approx(10 * math.log10(0.02 / 0.019))
    assert found["low"][1] == pytest.approx(found["high"][1])
    assert found["unit"].tolist() == ["% of the time watched", "dB", "dB"]
    known = ~np.isnan(table["delta_ssim"])
    assert found["pairs"][2] == sum(known[rows["a"][k]] and known[rows["b"][k]] for k in both)


def test_viewers_of_a_simulated_day(tmp_path):
    """The sidecar names viewers; each was served by two schemes."""
    streams = made_streams(NAME, 10, seed=5)
    twins = []
    for s in streams:
        s.expt = 1
        twin = type(s)(f"t{s.session}", s.index, 3, s.begin, s.events, s.chunks)
        twins += [s, twin]
    day = write(tmp_path, NAME, twins)
    sessions = sorted({(s.session, int(s.session.lstrip("ts").rstrip("="))) for s in twins})
    pl.DataFrame(sessions, schema=["session_id", "viewer"], orient="row").write_parquet(
        tmp_path / f"sessions_{range_of(NAME)}.parquet"
    )
    found = analyze_day(day).streams
    assert set(found["viewer"]) == set(range(10))
    result = paired(found, "bba", rng=np.random.default_rng(0), variables=["stalled", "watch"])
    assert result["first"].tolist() == ["memento", "memento"]
    assert result["pairs"].tolist() == [found["considered"].sum() // 2] * 2
    np.testing.assert_allclose(result["value"], 0, atol=1e-9)
    np.testing.assert_allclose(result["high"], 0, atol=1e-9)


def test_bad_pairs():
    rng = np.random.default_rng(0)
    table = paired_streams(rng, 10)
    with pytest.raises(SchemaError, match="under 'c'"):
        paired(table, "c", rng=rng)
    with pytest.raises(SettingError, match="'x'"):
        paired(table, "a", rng=rng, variables=["x"])
    unknown = {**table, "viewer": np.full(40, -1)}
    with pytest.raises(SchemaError, match="simulated with paired viewers"):
        paired(unknown, "a", rng=rng)
    twice = {**table, "index": np.zeros(40, int), "considered": np.ones(40, bool)}
    with pytest.raises(SchemaError, match="twice"):
        paired(twice, "a", rng=rng)
    strangers = {**table, "viewer": table["viewer"] + 100 * (table["scheme"] == "b")}
    with pytest.raises(SchemaError, match="share no stream"):
        paired(strangers, "a", rng=rng)


def test_start_of_a_day():
    assert start_of("2021-10-17") == 1634468400 * 10**9
