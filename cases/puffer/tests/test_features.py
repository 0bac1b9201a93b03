"""Chunks and windows of a day against plain Python that follows the definition word by word."""

from __future__ import annotations

import csv
import errno
import json
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    SchemaError,
    SettingError,
    SpaceError,
    StorageError,
)
from memento_puffer.data.features import (
    CHUNK_COLUMNS,
    HORIZONS,
    STEP,
    Features,
    chunk_table,
    features_of,
)
from memento_puffer.data.layout import NOT_MEASURED
from memento_puffer.data.schema import Day
from memento_puffer.predictor.network import clamp_sentinels

RANGE = "2021-10-17T11_2021-10-18T11"
ACKED = ["time (ns GMT)", "session_id", "index", "expt_id", "channel", "video_ts"]
SENT = [*ACKED, "format", "size", "ssim_index"]
SENT += ["cwnd", "in_flight", "min_rtt", "rtt", "delivery_rate", "buffer", "cum_rebuf"]
ACKED += ["buffer", "cum_rebuf"]
START = 1634468400 * 10**9
SETTINGS = '1 {"abr": "bba", "cc": "bbr"}\n2 {"abr": "x", "abr_name": "fugu", "cc": "cubic"}\n'


def sent_row(time, session, index, video_ts, size=3000, expt=1, min_rtt=20000, **others):
    row = dict(
        zip(SENT, [START + time * 10**6, session, index, expt, "nbc", video_ts], strict=False)
    )
    row |= {"format": "426x240-26", "size": size, "ssim_index": 0.9, "cwnd": 10 + size % 7}
    row |= {"in_flight": time % 3, "min_rtt": min_rtt, "rtt": 30000 + time % 11}
    row |= {"delivery_rate": 1500 * (1 + size % 5), "buffer": 1.5, "cum_rebuf": 0.1}
    return row | others


def acked_row(time, session, index, video_ts, expt=1):
    values = [START + time * 10**6, session, index, expt, "nbc", video_ts, 1.5, 0.1]
    return dict(zip(ACKED, values, strict=True))


def write(folder: Path, sent, acked, experiments=SETTINGS):
    for kind, names, rows in (("video_sent", SENT, sent), ("video_acked", ACKED, acked)):
        with (folder / f"{kind}_{RANGE}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if experiments:
        (folder / "logs").mkdir(exist_ok=True)
        (folder / "logs" / "expt_settings").write_text(experiments)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def expected(folder: Path, horizon: int) -> dict[tuple[str, int], tuple[list[float], float]]:
    """x and y by stream and sent time of the chunk asked for, as the definition says."""
    chunks: dict[str, dict[int, dict]] = {}
    for row in rows_of(folder / f"video_sent_{RANGE}.csv"):
        key = f"{row['session_id']}_{row['index']}"
        chunks.setdefault(key, {})[int(row["video_ts"])] = row  # the last one wins
    for row in rows_of(folder / f"video_acked_{RANGE}.csv"):
        key = f"{row['session_id']}_{row['index']}"
        chunk = chunks.get(key, {}).get(int(row["video_ts"]))
        if chunk is not None:
            chunk["acked"] = int(row["time (ns GMT)"])
    result = {}
    for key, stream in chunks.items():

        def known(ts, stream=stream):
            return ts in stream and "acked" in stream[ts] and past(stream[ts])[-1] >= 0

        for ts, chunk in stream.items():
            target = ts + horizon * STEP
            if not known(ts) or not known(target):
                continue
            history: deque[list[float]] = deque()
            for i in range(1, 9):
                if not known(ts - i * STEP):
                    break
                history.appendleft(past(stream[ts - i * STEP]))
            if not history:
                history.append([*state(chunk), 0.0, 0.0])
            while len(history) < 8:
                history.appendleft(history[0])
            x = [v for slot in history for v in slot]
            x += [*state(chunk), int(stream[target]["size"]) / 1500]
            sent = int(stream[target]["time (ns GMT)"])
            result[key, target, sent] = (x, (stream[target]["acked"] - sent) / 1e9)
    return result


def state(row):
    return [
        int(row["delivery_rate"]) / 1500,
        int(row["cwnd"]),
        int(row["in_flight"]),
        int(row["min_rtt"]) / 1e6,
        int(row["rtt"]) / 1e6,
    ]


def past(row):
    return [
        *state(row),
        int(row["size"]) / 1500,
        (row["acked"] - int(row["time (ns GMT)"])) / 1e9,
    ]


def check(folder: Path, features: Features) -> None:
    names = [f"{s}_{i}" for s, i in features.streams.select("session_id", "index").rows()]
    for horizon in range(HORIZONS):
        found = features.columns(horizon)
        wanted = expected(folder, horizon)
        assert len(found["x"]) == len(wanted)
        _, targets = features.samples(horizon)
        for i in range(len(found["x"])):
            ts = int(features.video_ts[targets[i]])
            x, y = wanted[names[found["stream"][i]], ts, int(found["time"][i])]
            np.testing.assert_array_equal(found["x"][i], x)
            assert found["y"][i] == y
            assert found["y_bin"][i] == min(int((y + 0.25) / 0.5), 20)


STREAMS = [("aa=", 0), ("aa=", 1), ("bb/+=", 0)]
TIMESTAMPS = [*(STEP * i for i in range(1, 14)), STEP // 2, STEP // 2 + STEP, STEP + 1]
EVENT = st.tuples(
    st.sampled_from(STREAMS),
    st.sampled_from(TIMESTAMPS),
    st.integers(0, 3000),
    st.integers(1, 5000),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    missing=st.sets(st.tuples(st.sampled_from(STREAMS), st.sampled_from(TIMESTAMPS)), max_size=12),
    silent=st.sets(st.tuples(st.sampled_from(STREAMS), st.sampled_from(TIMESTAMPS)), max_size=6),
    sent=st.lists(EVENT, max_size=6),
    acked=st.lists(EVENT, max_size=6),
)
def test_equals_the_definition(missing, silent, sent, acked):
    """Gaps, chunks without acknowledgement, chunks and acknowledgements twice, in any order."""
    sent_rows, acked_rows = [], []
    for position, stream in enumerate(STREAMS):
        for step, ts in enumerate(TIMESTAMPS):
            if (stream, ts) not in missing:
                time = 2000 * step + position
                sent_rows.append(sent_row(time, *stream, ts, size=1000 + 37 * step))
                if (stream, ts) not in silent:
                    acked_rows.append(acked_row(time + 100 + 333 * step, *stream, ts))
    sent_rows += [sent_row(time, *stream, ts, size) for stream, ts, time, size in sent]
    acked_rows += [acked_row(time + size, *stream, ts) for stream, ts, time, size in acked]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), sent_rows, acked_rows)
        features = Features.of_day(path, dtype=np.float64)
        check(path, features)
        counts = features.counts
        assert counts["sent"] == counts["chunks"] + counts["sent_twice"]
        answered = counts["chunks"] - counts["unacked"]
        assert counts["acked"] == answered + counts["acked_twice"] + counts["unsent"]


@pytest.fixture
def folder(tmp_path):
    """One stream with every kind of dirt, one over another congestion control."""
    chunks = [0, 1, 2, 3, 5, 6, 7, 8]  # 4 is missing
    sent = [sent_row(2000 * i, "aa=", 0, i * STEP, 1000 + i) for i in chunks]
    sent[1]["min_rtt"] = NOT_MEASURED
    sent.append(sent_row(4000, "aa=", 0, 2 * STEP, 7777))  # again: this one counts
    sent += [sent_row(1000 + 2000 * i, "bb=", 0, i * STEP, expt=2) for i in range(3)]
    sent += [sent_row(90 + 2000 * i, "cc=", 3, i * STEP, expt=9) for i in range(2)]
    sent[-1]["size"] = ""  # not known
    acked = [acked_row(2000 * i + 749, "aa=", 0, i * STEP) for i in chunks if i != 6]
    acked.append(acked_row(4000 + 750, "aa=", 0, 2 * STEP))  # again: this one counts
    acked.append(acked_row(4000, "aa=", 0, 99 * STEP))  # never sent
    acked.append(acked_row(4000, "zz=", 0, 0))  # nor this
    acked += [
        acked_row(1000 + 2000 * i + (-5 if i == 2 else 80), "bb=", 0, i * STEP) for i in range(3)
    ]
    acked += [acked_row(90 + 2000 * i + 300, "cc=", 3, i * STEP) for i in range(2)]
    return write(tmp_path, sent, acked)


def test_dirt_is_counted(folder):
    features = Features.of_day(folder)
    assert features.counts == {
        "sent": 14, "acked": 15, "sent_twice": 1, "acked_twice": 1, "unsent": 2, "other_cc": 0,
        "chunks": 13, "unacked": 1, "acked_early": 1, "incomplete": 1, "not_measured": 1,
        "unknown_experiment": 1, "acked_late": 0, "outside": 0, "impossible": 0,
    }  # fmt: skip
    assert features.streams["abr"].to_list() == ["bba", None, "fugu"]
    assert features.streams["session_id"].to_list() == ["aa=", "cc=", "bb="]
    assert repr(features) == "<Features of 3 streams, 13 chunks>"
    columns = features.columns(0)
    assert columns["x"].shape == (10, 62)
    assert columns["x"].dtype == columns["y"].dtype == np.float32
    assert np.isfinite(columns["x"]).all()
    assert columns["y_bin"][2] == 2  # 0.75 s, from the second acknowledgement
    assert columns["x"][2, 61] == np.float32(7777 / 1500)  # from the second sending


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("time (ns GMT)", -5, "outside"),
        ("time (ns GMT)", START - 13 * 3600 * 10**9, "outside"),
        ("time (ns GMT)", START + 40 * 3600 * 10**9, "outside"),
        ("time (ns GMT)", START - 25 * 3600 * 10**9, "outside"),
        ("size", 0, "impossible"),
        ("size", -3000, "impossible"),
        ("rtt", -1, "impossible"),
        ("delivery_rate", -1, "impossible"),
    ],
)
def test_what_cannot_be_is_counted_and_never_a_sample(tmp_path, column, value, fault):
    """Chunk 3 of six is impossible: no label, in no input, and the end of histories."""
    sent = [sent_row(2000 * i, "aa=", 0, i * STEP) for i in range(6)]
    acked = [acked_row(2000 * i + 300, "aa=", 0, i * STEP) for i in range(6)]
    plain = tmp_path / "plain"
    plain.mkdir()
    rows = [*sent[:3], *sent[4:]]
    wanted = Features.of_day(write(plain, rows, [*acked[:3], *acked[4:]])).columns(0)
    sent[3][column] = value
    features = Features.of_day(write(tmp_path, sent, acked))
    faults = {name: features.counts[name] for name in ("outside", "impossible", "acked_late")}
    assert faults == {**dict.fromkeys(faults, 0), fault: 1}
    assert (features.counts["chunks"], features.counts["unacked"]) == (6, 0)
    found = features.columns(0)
    for name in ("x", "y", "time"):
        np.testing.assert_array_equal(found[name], wanted[name])
    assert chunk_table(tmp_path)["acked"].null_count() == (fault == "outside")


def test_an_acknowledgement_a_day_later_is_none(tmp_path):
    sent = [sent_row(2000 * i, "aa=", 0, i * STEP) for i in range(3)]
    acked = [acked_row(2000 * i + 300, "aa=", 0, i * STEP) for i in range(3)]
    acked[1]["time (ns GMT)"] += 86_400 * 10**9
    features = Features.of_day(write(tmp_path, sent, acked))
    assert (features.counts["acked_late"], features.counts["unacked"]) == (1, 0)
    assert features.columns(0)["y"].max() < 1
    assert chunk_table(tmp_path)["trans_time"].null_count() == 1


def test_hours_beside_the_day_are_fine(tmp_path):
    """Files that were put together by hand may reach into the next day."""
    sent = [sent_row(hours * 3600 * 1000, "aa=", 0, hours * STEP) for hours in (-11, 12, 35)]
    acked = [acked_row(hours * 3600 * 1000 + 9, "aa=", 0, hours * STEP) for hours in (-11, 12, 35)]
    for rows in (sent, acked):
        for row in rows:
            row["video_ts"] += 11 * STEP
    features = Features.of_day(write(tmp_path, sent, acked))
    assert features.counts["outside"] == 0
    assert len(features.columns(0)["y"]) == 3


def test_features_made_by_older_rules_are_made_again(folder, tmp_path):
    store = tmp_path / "store"
    features_of(folder, store)
    path = store / "features.json"
    manifest = json.loads(path.read_text())
    del manifest["source"]["rules"]
    manifest["counts"] = {"chunks": 0}
    path.write_text(json.dumps(manifest))
    assert features_of(folder, store).counts["chunks"] == 13


def test_congestion_control(folder):
    features = Features.of_day(folder, cc="bbr")
    assert features.counts["other_cc"] == 5
    assert features.streams["session_id"].to_list() == ["aa="]
    assert set(features.stream) == {0}
    (folder / "logs" / "expt_settings").unlink()
    assert Features.of_day(folder).counts["unknown_experiment"] == 3
    with pytest.raises(StorageError, match="expt_settings"):
        Features.of_day(folder, cc="bbr")


def test_padding_by_hand(folder):
    features = Features.of_day(folder, dtype=np.float64)
    x = features.columns(0)["x"]
    slots = x[:, :56].reshape(len(x), 8, 7)
    state_now = features.values[0, :5]
    np.testing.assert_array_equal(slots[0], np.tile([*state_now, 0, 0], (8, 1)))  # first chunk
    np.testing.assert_array_equal(slots[1], np.tile(features.values[0], (8, 1)))
    np.testing.assert_array_equal(slots[2, 7], features.values[1])
    np.testing.assert_array_equal(slots[2, :7], np.tile(features.values[0], (7, 1)))
    after_gap = 4  # chunk 5: 4 is missing, so there is no past
    np.testing.assert_array_equal(slots[after_gap, 0, 5:], [0, 0])
    after_silence = 5  # chunk 7: 6 has no acknowledgement
    np.testing.assert_array_equal(slots[after_silence, 0, 5:], [0, 0])


@pytest.mark.parametrize(("length", "horizon"), [(12, 0), (12, 4), (3, 2), (3, 3), (1, 0)])
def test_contiguous_stream_yields_its_length_less_the_horizon(tmp_path, length, horizon):
    sent = [sent_row(2000 * i, "aa=", 0, i * STEP) for i in range(length)]
    acked = [acked_row(2000 * i + 300, "aa=", 0, i * STEP) for i in range(length)]
    features = Features.of_day(write(tmp_path, sent, acked))
    assert len(features.columns(horizon)["x"]) == length - horizon


def test_sentinels(folder):
    features = Features.of_day(folder, dtype=np.float64)
    kept = features.columns(0)["x"]
    assert kept[:, 3::7].max() == NOT_MEASURED / 1e6
    np.testing.assert_array_equal(
        features.columns(0, sentinels="clamp")["x"], clamp_sentinels(kept)
    )
    dropped = features.columns(0, sentinels="drop")
    assert {len(column) for column in dropped.values()} == {10 - 3}  # chunk 1, and 2 and 3 after it


def test_some_of_the_samples(folder):
    features = Features.of_day(folder)
    everything = features.columns(1)
    some = features.columns(1, take=[3, 0], dtype=np.float64)
    assert some["x"].dtype == np.float64
    for name, column in some.items():
        np.testing.assert_allclose(column, everything[name][[3, 0]], rtol=1e-7)
    assert len(features.columns(1, take=[])["x"]) == 0
    with pytest.raises(DomainError, match="there are"):
        features.columns(1, take=[len(everything["x"])])
    with pytest.raises(SettingError, match="positions"):
        features.columns(1, take=[0.5])


@pytest.mark.parametrize("form", ["header", "parquet", "gz"])
def test_forms_of_files(folder, tmp_path_factory, form):
    from memento_puffer.data.schema import write_day

    day, copy = Day(folder), tmp_path_factory.mktemp("copy")
    tables = {kind: day.read(kind) for kind in day.files}
    if form == "header":
        tables = {kind: table.clear() for kind, table in tables.items()}
    written = write_day(
        copy,
        "2021-10-17",
        tables,
        form={"gz": "csv.gz"}.get(form, "csv" if form == "header" else form),
    )
    features = Features.of_day(written)
    if form == "header":
        assert features.size == 0
        assert features.columns(2)["x"].shape == (0, 62)
        features.write(copy / "store")
        assert Features.read(copy / "store").columns(0)["y_bin"].shape == (0,)
    else:
        same(features, Features.of_day(folder))


def same(first: Features, second: Features) -> None:
    for name in ("values", "stream", "video_ts", "sent", "acked"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_store(folder, tmp_path, monkeypatch):
    store = tmp_path / "store"
    first = features_of(folder, store)
    with monkeypatch.context() as patch:
        patch.setattr(Features, "of_day", None)  # not read again
        second = features_of(folder, store)
    same(first, second)
    assert second.counts == first.counts
    assert second.streams.equals(first.streams)
    assert not second.values.flags.writeable
    for name, column in second.columns(3).items():
        np.testing.assert_array_equal(column, first.columns(3)[name])
    assert features_of(folder, store, dtype=np.float64).values.dtype == np.float64
    path = Day(folder).path("video_acked")
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:-1]) + b"\n")
    assert features_of(folder, store).counts["acked"] == first.counts["acked"] - 1
    assert len(list(store.iterdir())) == 7  # nothing of earlier content is left


def test_store_that_is_damaged(folder, tmp_path):
    store = tmp_path / "store"
    first = features_of(folder, store)
    with next(store.glob("sent-*")).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DamagedError, match="bytes instead of"):
        Features.read(store)
    same(features_of(folder, store), first)  # made again
    (store / "features.json").write_text("{")
    with pytest.raises(DamagedError, match="not readable"):
        Features.read(store)
    (store / "features.json").write_text('{"format": 99}')
    with pytest.raises(ForeignError, match="format 99"):
        Features.read(store)
    with pytest.raises(StorageError, match=r"features\.json"):
        Features.read(tmp_path / "nowhere")
    (store / "thesis.txt").write_text("mine")
    with pytest.raises(ForeignError, match=r"thesis\.txt"):
        first.write(store)


def test_full_disk_leaves_the_old_content(folder, tmp_path, monkeypatch):
    store = tmp_path / "store"
    features = Features.of_day(folder)
    features.write(store)
    before = sorted(store.iterdir())

    def full(file, array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(SpaceError):
        features.write(store)
    assert sorted(store.iterdir()) == before
    same(Features.read(store), features)
    with pytest.raises(SpaceError):
        features.write(tmp_path / "new" / "store")
    assert not (tmp_path / "new").exists()


def test_bad_input(folder):
    features = Features.of_day(folder)
    with pytest.raises(SettingError, match="horizon=5"):
        features.columns(5)
    with pytest.raises(SettingError, match="sentinels"):
        features.columns(0, sentinels="hide")
    with pytest.raises(SettingError, match="dtype"):
        features.columns(0, dtype=np.int32)
    with pytest.raises(SettingError, match="dtype"):
        Features.of_day(folder, dtype=np.int32)
    parts = (features.stream, features.video_ts, features.sent, features.acked)
    with pytest.raises(SchemaError, match="shape"):
        Features(features.values[:, :3], *parts, features.streams)
    with pytest.raises(SchemaError, match="float32 or float64"):
        Features(features.values.astype(np.float16), *parts, features.streams)
    with pytest.raises(DomainError, match="sort the chunks"):
        Features(features.values, parts[0], parts[1][::-1], *parts[2:], features.streams)


def test_missing_keys(folder):
    path = Day(folder).path("video_sent")
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace("aa=", "", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DamagedError, match="row 3 has no session_id"):
        Features.of_day(folder)


def test_times_just_below_a_class(tmp_path):
    """Rounded to float32 the time would belong to the next class."""
    sent = sent_row(0, "aa=", 0, 0)
    acked = acked_row(0, "aa=", 0, 0)
    acked["time (ns GMT)"] += 749_999_999
    columns = Features.of_day(write(tmp_path, [sent], [acked])).columns(0)
    assert columns["y"][0] == np.float32(0.75)
    assert columns["y_bin"][0] == 1


def test_columns_are_in_the_order_of_the_predictor():
    assert CHUNK_COLUMNS == (
        "delivery_rate", "cwnd", "in_flight", "min_rtt", "rtt", "size", "trans_time",
    )  # fmt: skip


def test_chunk_table(folder):
    features = Features.of_day(folder)
    table = chunk_table(folder)
    assert table["stream"].to_list() == features.stream.tolist()
    assert table["video_ts"].to_list() == features.video_ts.tolist()
    assert table["acked"].fill_null(-1).to_list() == features.acked.tolist()
    times = table["trans_time"].fill_null(float("nan")).to_numpy()
    np.testing.assert_array_equal(times.astype(np.float32), features.values[:, 6])
    assert table["abr"].to_list()[-3:] == ["fugu"] * 3
    assert table["cc"].to_list()[-3:] == ["cubic"] * 3
    assert table["size"].to_list()[2] == 7777  # as in the file, in bytes
    assert set(table.columns) >= {"channel", "format", "ssim_index", "buffer", "cum_rebuf"}
    assert chunk_table(folder, cc="cubic").height == 3
