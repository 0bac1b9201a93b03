"""Joins of a day's tables, against loops over rows that follow their definition."""

from __future__ import annotations

import numpy as np
import pytest

pl = pytest.importorskip("polars")

from days import STEP, VARIANTS, Stream, made_streams, start_of, tables_of, write  # noqa: E402

from memento.errors import DamagedError, SchemaError, SettingError, StorageError  # noqa: E402
from memento_puffer.data.features import Features, chunk_table, features_and_chunks  # noqa: E402
from memento_puffer.data.joins import (  # noqa: E402
    client_events,
    startup_delays,
    viewers_of,
    with_client,
    with_encodings,
)
from memento_puffer.data.schema import Day, range_of, write_day  # noqa: E402

NAME = "2021-10-17"
NAN = float("nan")


def read(day):
    features, chunks = features_and_chunks(day)
    return features, chunks, client_events(day, features.streams)


def of_stream(features, streams):
    """The stream of ours that each numbered one is."""
    known = {(s.session, s.index): s for s in streams}
    return [known[key] for key in features.streams.select("session_id", "index").rows()]


# ----------------------------------------------------------------------------------------------
# Encodings


def encodings(rng, first, rows):
    table = {
        "time": first + rng.integers(0, 40_000, rows) * 10**9,
        "format": rng.choice(["a", "b"], rows),
        "channel": rng.choice(["nbc", "cbs"], rows),
        "video_ts": rng.integers(0, 12, rows) * STEP,
    }
    size = pl.DataFrame(table | {"size": rng.integers(1, 10**6, rows)})
    table["time"] = table["time"] + rng.integers(0, 3, rows) * 10**9
    ssim = pl.DataFrame(table | {"ssim_index": rng.random(rows)})
    return {"video_size": size.sample(fraction=0.9, seed=1), "ssim": ssim}


@pytest.mark.parametrize("window", [600.0, 200.0])
def test_encodings_are_the_last_before_the_send(tmp_path, window):
    """Timestamps recycle, rows are missing, and the first chunks' are in the file before."""
    rng = np.random.default_rng(1)
    before = write_day(tmp_path / "16", "2021-10-16", encodings(rng, start_of("2021-10-16"), 3000))
    day = write_day(tmp_path / "17", NAME, encodings(rng, start_of(NAME), 3000))
    late = start_of(NAME) - 40_000 * 10**9  # the day before is shifted to end where this begins
    shifted = {
        kind: before.read(kind).with_columns(pl.col("time") - start_of("2021-10-16") + late)
        for kind in ("video_size", "ssim")
    }
    before = write_day(tmp_path / "16b", "2021-10-16", shifted)
    n = 400
    sent = (
        start_of(NAME)
        + np.r_[rng.integers(0, 500, n // 2), rng.integers(0, 41_000, n // 2)] * 10**9
    )
    chunks = pl.DataFrame(
        {
            "sent": sent,
            "channel": rng.choice(["nbc", "cbs"], n),
            "video_ts": rng.integers(0, 12, n) * STEP,
            "format": rng.choice(["a", "b", "c"], n),
        }
    )
    found = with_encodings(chunks, day, previous=before, window=window)
    assert found.columns == [*chunks.columns, "encoded_size", "encoded_ssim"]
    assert found.select(chunks.columns).equals(chunks)
    hits = 0
    for kind, value, name in (
        ("video_size", "size", "encoded_size"),
        ("ssim", "ssim_index", "encoded_ssim"),
    ):
        noted = [row for d in (before, day) for row in d.read(kind).rows(named=True)]
        for row in found.rows(named=True):
            fitting = [
                (other["time"], i)
                for i, other in enumerate(noted)
                if all(other[k] == row[k] for k in ("channel", "video_ts", "format"))
                and 0 <= row["sent"] - other["time"] <= window * 1e9
            ]
            expected = noted[max(fitting)[1]][value] if fitting else None
            assert row[name] == expected
            hits += expected is not None
    assert 50 < hits < 2 * n
    alone = with_encodings(chunks, day, window=window)
    early = found["encoded_ssim"].null_count() < alone["encoded_ssim"].null_count()
    assert early  # the day before was needed


def test_a_day_without_encodings(tmp_path):
    streams = made_streams(NAME, 3)
    tables = {k: t for k, t in tables_of(streams).items() if k not in ("ssim",)}
    day = write_day(tmp_path, NAME, tables)
    chunks = chunk_table(day)
    found = with_encodings(chunks, day)
    assert found["encoded_ssim"].null_count() == len(chunks)
    assert found["encoded_size"].to_list() == chunks["size"].to_list()
    assert with_encodings(chunks.head(0), day).height == 0
    with pytest.raises(SettingError, match="window"):
        with_encodings(chunks, day, window=0)


# ----------------------------------------------------------------------------------------------
# The client's state


def reconstructed(stream: Stream) -> list[float]:
    """cum_rebuf of each chunk as the artefact derives it from the messages."""
    startup, series = None, []
    for t, event, _, waited in stream.events:
        if startup is None:
            if event == "startup":
                startup = waited
        elif event in ("startup", "timer", "play"):
            series.append((t, waited - startup))
    if not any(value > 0 for _, value in series):
        series = []
    out = []
    for chunk in stream.chunks:
        value = 0.0
        for t, one in series:
            if t <= chunk["sent"]:
                value = one
        out.append(value)
    return out


@pytest.mark.parametrize("variant", VARIANTS)
def test_stalls_at_the_time_of_sending(tmp_path, variant):
    streams = made_streams(NAME, 30)
    day = write(tmp_path, NAME, streams, variant)
    features, chunks, events = read(day)
    found = with_client(chunks, events, day=day, streams=features.streams)
    assert found.select("stream", "video_ts").equals(chunks.select("stream", "video_ts"))
    stalled = 0
    for number, stream in enumerate(of_stream(features, streams)):
        rows = found.filter(pl.col("stream") == number)
        clean = (rows["cum_rebuf"] - rows["startup"]).to_numpy().clip(0)
        if variant in ("now", "side"):
            given = [c["cum_rebuf"] for c in stream.chunks]
            assert rows["cum_rebuf"].to_list() == given
            assert set(rows["startup"]) == {stream.startup}
            expected = [max(0.0, value - stream.startup) for value in given]
        else:
            assert set(rows["startup"]) == {0.0}
            expected = reconstructed(stream)
        np.testing.assert_allclose(clean, expected, atol=1e-9)
        assert rows["buffer"].to_list() == [c["buffer"] for c in stream.chunks]
        stalled += max(expected) > 0
    assert 5 < stalled < len(streams)


def test_sources_agree_and_say_when_they_are_not_there(tmp_path):
    streams = made_streams(NAME, 20, seed=3)
    now, old, side = (write(tmp_path / v, NAME, streams, v) for v in ("now", "old", "side"))
    features, chunks, events = read(now)
    by_events = with_client(chunks, events, source="events")
    by_file = with_client(chunks, events)
    # What the artefact leaves out are rebuffer events, between which time stands still.
    apart = by_events["cum_rebuf"] - (by_file["cum_rebuf"] - by_file["startup"]).clip(0)
    assert float(apart.abs().max()) <= 1e-6
    features, chunks, events = read(old)
    with pytest.raises(StorageError, match="no cum_rebuf"):
        with_client(chunks, events, source="file")
    with pytest.raises(SettingError, match="needs day= and streams="):
        with_client(chunks, events, source="side")
    with pytest.raises(StorageError, match="buf_video_sent"):
        with_client(chunks, events, source="side", day=old, streams=features.streams)
    with pytest.raises(SettingError, match="source='x'"):
        with_client(chunks, events, source="x")
    features, chunks, events = read(side)
    assert with_client(chunks, events, day=side, streams=features.streams, source="events")[
        "cum_rebuf"
    ].equals(by_events["cum_rebuf"])


def events_of(*events):
    return Stream("s=", 0, 1, start_of(NAME) + 10**9, list(events))


DELAYS = {
    "first startup": (
        [(0, "init", 0, 0.0), (1, "startup", 2, 0.75), (2, "startup", 2, 3.0)],
        (0.75, "started"),
    ),
    "never played": ([(0, "init", 0, 0.0), (5, "timer", 0, 5.0)], (5.0, "never_started")),
    "began before the day": (
        [(0, "timer", 3, 7.5), (5, "timer", 0, 8.5)],
        (7.5, "began_before"),
    ),
    "silent": ([], (NAN, "silent")),
}


@pytest.mark.parametrize("kind", DELAYS)
def test_startup_delays(tmp_path, kind):
    messages, (delay, counted) = DELAYS[kind]
    other = made_streams(NAME, 2)
    stream = events_of(*messages)
    stream.chunks = [
        {**other[0].chunks[i], "sent": 0.5 + 2 * i, "cum_rebuf": c, "video_ts": i * STEP}
        for i, c in enumerate([0.25, 9.0])
    ]
    day = write(tmp_path, NAME, [other[0], stream, *other[1:]])
    features, chunks, events = read(day)
    delays, counts = startup_delays(events)
    number = features.streams["session_id"].to_list().index("s=")
    np.testing.assert_equal(delays[number], delay)
    assert counts[counted] == 1 + (counted == "started") * len(other)
    rows = with_client(chunks, events).filter(pl.col("stream") == number)
    # Where no message says it, the largest value: nothing counts as stalled.
    assert set(rows["startup"]) == {9.0 if kind == "silent" else delay}
    old = with_client(chunks, events, source="events").filter(pl.col("stream") == number)
    assert old["cum_rebuf"].to_list() == ([0.0, 2.25] if kind == "first startup" else [0.0, 0.0])


def test_values_that_are_missing(tmp_path):
    streams = made_streams(NAME, 4)
    streams[0].chunks[2]["cum_rebuf"] = None
    streams[0].chunks[0]["cum_rebuf"] = None
    time, event, buffer, _ = streams[1].events[5]
    streams[1].events[5] = (time, event, buffer, None)
    stray = Stream("nothing sent", 0, 1, start_of(NAME), streams[0].events[:3])
    day = write(tmp_path, NAME, [*streams, stray])
    features, chunks, events = read(day)
    assert (events.counts["incomplete"], events.counts["other_streams"]) == (1, 3)
    found = with_client(chunks, events)
    number = features.streams["session_id"].to_list().index(streams[0].session)
    rows = found.filter(pl.col("stream") == number)["cum_rebuf"].to_list()
    assert rows[:3] == [0.0, rows[1], rows[1]]


def test_damaged_messages(tmp_path):
    streams = made_streams(NAME, 2)
    time, _, buffer, waited = streams[0].events[3]
    streams[0].events[3] = (time, "pause", buffer, waited)
    day = write(tmp_path / "a", NAME, streams)
    with pytest.raises(DamagedError, match=r"client_buffer_.*: row .* an event other than init"):
        read(day)
    streams[0].events[3] = (time, "timer", buffer, waited)
    tables = tables_of(streams)
    session = pl.when(pl.col("time") > pl.col("time").min()).then("session_id").alias("session_id")
    tables["client_buffer"] = tables["client_buffer"].with_columns(session)
    with pytest.raises(DamagedError, match="row 1 has no session_id"):
        read(write_day(tmp_path / "b", NAME, tables))


def test_one_read_gives_what_two_give(tmp_path):
    day = write(tmp_path, NAME, made_streams(NAME, 8))
    features, chunks = features_and_chunks(day)
    alone = Features.of_day(day)
    for name in ("values", "stream", "video_ts", "sent", "acked"):
        np.testing.assert_array_equal(getattr(features, name), getattr(alone, name))
    assert features.counts == alone.counts
    assert features.streams.equals(alone.streams)
    assert chunks.equals(chunk_table(day))
    assert chunks["video_ts"].to_list() == features.video_ts.tolist()
    with pytest.raises(SettingError, match="dtype=int64"):
        features_and_chunks(day, dtype=np.int64)


def test_viewers(tmp_path):
    day = write(tmp_path, NAME, made_streams(NAME, 2))
    assert viewers_of(day) is None
    path = tmp_path / f"sessions_{range_of(NAME)}.parquet"
    pl.DataFrame({"session_id": ["s000="], "viewer": [7], "scheme": [1]}).write_parquet(path)
    assert viewers_of(Day(tmp_path)).rows() == [("s000=", 7, 1)]
    pl.DataFrame({"session_id": ["s000="]}).write_parquet(path)
    with pytest.raises(SchemaError, match="no column 'viewer'"):
        viewers_of(day)
    path.write_bytes(b"x")
    with pytest.raises(DamagedError, match="simulate the day again"):
        viewers_of(day)


def test_no_rows(tmp_path):
    tables = {kind: table.head(0) for kind, table in tables_of(made_streams(NAME, 2)).items()}
    day = write_day(tmp_path, NAME, tables, {1: {"abr": "x"}})
    features, chunks, events = read(day)
    delays, counts = startup_delays(events)
    assert (len(delays), counts["silent"]) == (0, 0)
    assert with_client(chunks, events, day=day, streams=features.streams).height == 0
    assert with_client(chunks, events, source="events").height == 0
