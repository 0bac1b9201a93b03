"""The files of a day: every historical form, every kind of dirt, everything that can be broken."""

from __future__ import annotations

import contextlib
import gzip
import json

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from memento.errors import (
    DamagedError,
    ForeignError,
    MementoError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento_puffer.data.inspection import inspect
from memento_puffer.data.layout import NOT_MEASURED, TABLES
from memento_puffer.data.schema import (
    Day,
    made_folder,
    range_of,
    read_experiments,
    write_day,
)

NAME = "2021-10-17"
RANGE = "2021-10-17T11_2021-10-18T11"
START = 1634468400 * 10**9  # 2021-10-17 11:00
ID = "6QzY0mXSIC6GGNJWhFzAbkDSBSQuRx81KbYcYJhCVgI="

# As published, since 2021-06-12 and before.
SENT_NEW = f"""\
time (ns GMT),session_id,index,expt_id,channel,video_ts,format,size,ssim_index,cwnd,in_flight,\
min_rtt,rtt,delivery_rate,buffer,cum_rebuf
{START + 1000000},{ID},0,388,nbc,180180,1280x720-24,500000,0.9701,80,0,40000,45000,2500000,0,0
{START + 2000000},{ID},0,388,nbc,360360,426x240-26,40000,0.91,82,1,4294967295,46000,2600000,2.1,0.5
"""
SENT_OLD = f"""\
time (ns GMT),session_id,index,expt_id,channel,video_ts,format,size,ssim_index,cwnd,in_flight,\
min_rtt,rtt,delivery_rate
{START + 1000000},{ID},0,388,nbc,180180,1280x720-24,500000,0.9701,80,0,40000,45000,2500000
"""
SENT_OLDEST = f"""\
time (ns GMT),session_id,index,expt_id,channel,video_ts,format,size,ssim,cwnd,in_flight,\
min_rtt,rtt,delivery_rate
{START + 1000000},{ID},0,388,nbc,180180,1280x720-24,500000,10.0,80,0,40000,45000,2500000
{START + 2000000},{ID},0,388,nbc,360360,1280x720-24,500000,inf,80,0,40000,45000,2500000
"""
ACKED_NEW = f"""\
time (ns GMT),session_id,index,expt_id,channel,video_ts,buffer,cum_rebuf
{START + 9000000},{ID},0,388,nbc,180180,1.9,0.1
"""
ACKED_OLD = f"""\
time (ns GMT),session_id,index,expt_id,channel,video_ts
{START + 9000000},{ID},0,388,nbc,180180
"""
BUFFER = f"""\
time (ns GMT),session_id,index,expt_id,channel,event,buffer,cum_rebuf
{START + 500000},{ID},0,388,nbc,init,0,0
{START + 900000},{ID},0,388,nbc,startup,2.0,0.25
"""
SIZE = f"""\
time (ns GMT),format,channel,video_ts,size
{START + 1000},1280x720-24,nbc,180180,500000
"""
SSIM = f"""\
time (ns GMT),format,channel,video_ts,ssim_index
{START + 1000},1280x720-24,nbc,180180,0.9701
"""
SIDE = f"""\
time (ns GMT),session_id,index,expt_id,channel,video_ts,buffer,cum_rebuf
{START + 1000000},{ID},0,388,nbc,180180,0.5,0.2
"""
SETTINGS = """\
3 {"abr_algorithm": "mpc", "port": 9360}
12 {"abr": "puffer_ttp", "cc": "bbr", "git_commit": "abc"}
388 {"abr": "puffer_ttp", "abr_name": "puffer_ttp_20190202", "cc": "bbr", "abr_config": {"x": 1}}
"""
NOW = {
    "video_sent": SENT_NEW,
    "video_acked": ACKED_NEW,
    "client_buffer": BUFFER,
    "video_size": SIZE,
    "ssim": SSIM,
}


def put(folder, texts, settings=SETTINGS):
    for kind, text in texts.items():
        (folder / f"{kind}_{RANGE}.csv").write_text(text)
    if settings:
        (folder / "logs").mkdir(exist_ok=True)
        (folder / "logs" / "expt_settings").write_text(settings)
    return folder


def test_today(tmp_path):
    day = Day(put(tmp_path, NOW))
    assert day.name == NAME
    assert set(day.files) == set(NOW)
    for kind in NOW:
        table = day.read(kind)
        assert table.columns == [column.name for column in TABLES[kind].columns]
    sent = day.read("video_sent")
    assert sent.row(1, named=True) == {
        "time": START + 2000000, "session_id": ID, "index": 0, "expt_id": 388, "channel": "nbc",
        "video_ts": 360360, "format": "426x240-26", "size": 40000, "ssim_index": 0.91, "cwnd": 82,
        "in_flight": 1, "min_rtt": NOT_MEASURED, "rtt": 46000, "delivery_rate": 2600000,
        "buffer": 2.1, "cum_rebuf": 0.5,
    }  # fmt: skip
    quality = inspect(day)
    assert quality.tables["video_sent"].rows == 2
    assert quality.tables["video_sent"].not_measured == {"min_rtt": 1}
    assert (quality.unacked, quality.unsent, quality.unknown_experiments) == (1, 0, 0)
    assert quality.absent == ()
    assert json.loads(json.dumps(quality.to_json()))["tables"]["ssim"]["rows"] == 1


def test_without_settings_no_experiment_is_known(tmp_path):
    quality = inspect(Day(put(tmp_path, NOW, settings=None)))
    assert (quality.unknown_experiments, quality.settings) == (2, False)
    assert ("expt_settings", "no such file", None) in quality.to_rows()
    (tmp_path / "expt_settings").write_text("nonsense")
    with pytest.raises(DamagedError, match="line 1"):
        inspect(Day(tmp_path))


def test_rows_of_a_report(tmp_path):
    """All that was found, each with its table; nothing where there is nothing."""
    rows = inspect(Day(put(tmp_path, NOW))).to_rows()
    assert ("video_sent", "not_measured: min_rtt", 1) in rows
    assert ("video_sent", "unacked", 1) in rows
    assert [what for table, what, _ in rows if table == "ssim"] == ["rows"]
    for kind in ("client_buffer", "video_size"):
        (tmp_path / f"{kind}_{RANGE}.csv").unlink()
    rows = inspect(Day(tmp_path)).to_rows()
    assert ("client_buffer", "no such file", None) in rows


def test_a_folder_that_was_made_goes_if_what_follows_fails(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(KeyboardInterrupt), made_folder(tmp_path / "there" / "a" / "b"):
        raise KeyboardInterrupt
    assert not list((tmp_path / "there").iterdir())
    with contextlib.suppress(KeyError), made_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
        raise KeyError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]
    with made_folder(tmp_path / "c" / "d"):
        pass
    assert (tmp_path / "c" / "d").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), made_folder(tmp_path / "file" / "e"):
        pass


def test_before_june_2021(tmp_path):
    texts = {"video_sent": SENT_OLD, "video_acked": ACKED_OLD, "buf_video_sent": SIDE}
    day = Day(put(tmp_path, texts))
    assert day.read("video_sent")["cum_rebuf"].to_list() == [None]
    assert day.read("video_acked").schema["buffer"] == pl.Float64
    assert day.read("buf_video_sent")["cum_rebuf"].to_list() == [0.2]
    quality = inspect(day)
    assert quality.tables["video_sent"].absent == ("buffer", "cum_rebuf")
    assert quality.tables["video_sent"].missing == {}
    assert quality.absent == ("client_buffer", "video_size", "ssim")


def test_ssim_in_decibels(tmp_path):
    day = Day(put(tmp_path, {"video_sent": SENT_OLDEST}))
    assert day.read("video_sent")["ssim_index"].to_list() == pytest.approx([0.9, 1.0])
    assert inspect(day).tables["video_sent"].notes == ("ssim_index was read from 'ssim'",)


def test_name_of_the_database(tmp_path):
    day = Day(put(tmp_path, {"client_buffer": BUFFER.replace("cum_rebuf", "cum_rebuffer")}))
    assert day.read("client_buffer")["cum_rebuf"].to_list() == [0.0, 0.25]


def test_experiments(tmp_path):
    day = Day(put(tmp_path, NOW))
    assert {n: (e.abr, e.cc) for n, e in day.experiments.items()} == {
        3: ("mpc", None),
        12: ("puffer_ttp", "bbr"),
        388: ("puffer_ttp_20190202", "bbr"),
    }
    assert day.experiments[388].settings["abr_config"] == {"x": 1}
    path = tmp_path / "broken"
    for line in ("x {}", "5", "5 [1]", '5 {"abr'):
        path.write_text("\n" + line)
        with pytest.raises(DamagedError, match="line 2"):
            read_experiments(path)
    with pytest.raises(StorageError, match="experiment settings"):
        read_experiments(tmp_path / "none")


def test_dirt_is_counted(tmp_path):
    extra = SENT_NEW.splitlines()[1]
    rows = [
        extra,  # the same chunk again
        extra.replace("180180", "540540").replace("0.9701", "").replace(",500000,", ",-3,"),
        extra.replace("180180", "720720").replace("0.9701", "1.5").replace("388", "999"),
        extra.replace(str(START + 1000000), str(START - 1)).replace("180180", "900900"),
    ]
    acked = [ACKED_NEW.splitlines()[1].replace("180180", "77")]
    texts = NOW | {
        "video_sent": SENT_NEW + "\n".join(rows) + "\n",
        "video_acked": ACKED_NEW + "\n".join(acked) + "\n",
        "ssim": SSIM.splitlines()[0] + "\n",
    }
    quality = inspect(Day(put(tmp_path, texts)))
    found = quality.tables["video_sent"]
    assert (found.rows, found.duplicates) == (6, 1)
    assert found.missing == {"ssim_index": 1}
    assert found.out_of_range == {"time": 1, "size": 1, "ssim_index": 1}
    assert quality.tables["ssim"].rows == 0
    assert (quality.unacked, quality.unsent, quality.unknown_experiments) == (4, 1, 1)


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_what_is_written_is_read(tmp_path, form):
    first = Day(put(tmp_path, NOW))
    tables = {kind: first.read(kind) for kind in NOW}
    settings = {number: e.settings for number, e in first.experiments.items()}
    second = write_day(tmp_path / "copy", NAME, tables, settings, form=form)
    assert set(second.files) == set(NOW)
    for kind, table in tables.items():
        assert second.files[kind].name == f"{kind}_{RANGE}.{form}"
        assert_frame_equal(second.read(kind), table)
    assert second.experiments == first.experiments
    assert inspect(second) == inspect(first)
    assert not list((tmp_path / "copy").rglob(".*"))


def test_written_as_published(tmp_path):
    day = Day(put(tmp_path, NOW))
    copy = write_day(tmp_path / "copy", NAME, {"client_buffer": day.scan("client_buffer")})
    lines = copy.files["client_buffer"].read_text().splitlines()
    assert lines[0] == BUFFER.splitlines()[0]
    assert lines[2] == BUFFER.splitlines()[2]
    old = write_day(
        tmp_path / "old", NAME, {"video_sent": day.read("video_sent").drop("buffer", "cum_rebuf")}
    )
    assert old.files["video_sent"].read_text().splitlines()[0] == SENT_OLD.splitlines()[0]


def test_writing_what_is_no_table(tmp_path):
    day = Day(put(tmp_path, NOW))
    sent = day.read("video_sent")
    for wrong in (
        sent.drop("rtt"),
        sent.with_columns(pl.lit(1).alias("mood")),
        sent.rename({"time": "time (ns GMT)"}),
    ):
        with pytest.raises(SchemaError):
            write_day(tmp_path / "copy", NAME, {"video_sent": wrong})
    with pytest.raises(SchemaError, match="conversion"):
        write_day(tmp_path / "copy", NAME, {"video_sent": sent.with_columns(size=pl.lit("big"))})
    assert not (tmp_path / "copy").exists()
    with pytest.raises(SettingError, match="form="):
        write_day(tmp_path / "copy", NAME, {}, form="xls")
    with pytest.raises(SettingError, match="table 'audio'"):
        write_day(tmp_path / "copy", NAME, {"audio": sent})
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="write the day"):
        write_day(tmp_path / "file", NAME, {"video_sent": sent})


def test_days_that_do_not_exist():
    assert range_of("2020-02-29") == "2020-02-29T11_2020-03-01T11"
    for wrong in ("2021-02-29", "2021-13-01", "yesterday", "20211017", "9999-12-31", ""):
        with pytest.raises(SettingError, match="2021-10-17"):
            range_of(wrong)


def test_folders(tmp_path):
    with pytest.raises(StorageError, match="no such folder"):
        Day(tmp_path / "none")
    with pytest.raises(StorageError, match="no file of a day"):
        Day(tmp_path)
    put(tmp_path, {"video_sent": SENT_NEW}, settings=None)
    (tmp_path / "notes.csv").write_text("mine")
    (tmp_path / f"video_sent_{RANGE}_old.csv").write_text("mine")
    day = Day(tmp_path)
    assert repr(day) == "<Day 2021-10-17: video_sent>"
    with pytest.raises(StorageError, match=f"video_acked_{RANGE}"):
        day.read("video_acked")
    with pytest.raises(SettingError, match="table 'audio'"):
        day.read("audio")
    with pytest.raises(StorageError, match="expt_settings"):
        _ = day.experiments
    (tmp_path / "expt_settings").write_text(SETTINGS)
    assert 388 in Day(tmp_path).experiments
    other = tmp_path / "video_acked_2021-10-18T11_2021-10-19T11.csv"
    other.write_text(ACKED_NEW)
    with pytest.raises(ForeignError, match="several days"):
        Day(tmp_path)
    assert set(Day(tmp_path, "2021-10-18").files) == {"video_acked"}
    other.unlink()
    (tmp_path / f"video_sent_{RANGE}.csv.gz").write_bytes(gzip.compress(SENT_NEW.encode()))
    with pytest.raises(ForeignError, match="same table"):
        Day(tmp_path)


def test_what_a_simulation_adds_is_no_table(tmp_path):
    pl.DataFrame({"session_id": [ID], "viewer": [1]}).write_parquet(
        tmp_path / f"sessions_{RANGE}.parquet"
    )
    put(tmp_path, {"video_sent": SENT_NEW})
    assert set(Day(tmp_path).files) == {"video_sent"}
    assert set(inspect(Day(tmp_path)).tables) == {"video_sent"}


def test_names_without_a_range(tmp_path):
    (tmp_path / "video_sent.csv").write_text(SENT_NEW)
    assert Day(tmp_path).name is None
    assert Day(tmp_path, NAME).name == NAME
    assert Day(tmp_path).read("video_sent").height == 2


def test_wrong_columns(tmp_path):
    for old, new, message in (
        (",rtt,", ",RTT,", "no column 'rtt'"),
        ("time (ns GMT)", "when", "ns GMT"),
        ("cum_rebuf", "mood", "unknown columns"),
        ("cum_rebuf", "rtt", "say the same"),
        ("ssim_index,", "", "no column 'ssim_index'"),
    ):
        put(tmp_path, {"video_sent": SENT_NEW.replace(old, new, 1)})
        with pytest.raises(SchemaError, match=message):
            Day(tmp_path).read("video_sent")


BIG = SENT_OLD + SENT_OLD.splitlines()[1].join(["", "\n"]) * 3000
PACKED = gzip.compress(BIG.encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("no number.csv", SENT_NEW.replace("500000", "much").encode()),
        ("too many values.csv", SENT_NEW.replace("nbc", "n,b,c").encode()),
        ("cut off.csv", SENT_NEW.encode()[:-30]),
        ("no gzip.csv.gz", SENT_NEW.encode()),
        ("empty.csv.gz", b""),
        ("cut off.csv.gz", PACKED[: len(PACKED) // 2]),
        ("cut off at the end.csv.gz", PACKED[:-5]),
        ("altered.csv.gz", PACKED[:900] + bytes([PACKED[900] ^ 255]) + PACKED[901:]),
        ("no parquet.parquet", SENT_NEW.encode()),
        ("empty.parquet", b""),
    ],
)
def test_broken_files(tmp_path, name, content):
    suffix = name.partition(".")[2]
    path = tmp_path / f"video_sent_{RANGE}.{suffix}"
    path.write_bytes(content)
    day = Day(tmp_path)
    with pytest.raises(DamagedError, match=r"video_sent_.*fetch") as raised:
        day.read("video_sent")
    assert isinstance(raised.value, MementoError)
    assert "\n" not in str(raised.value)


def test_a_file_that_went_away(tmp_path):
    day = Day(put(tmp_path, NOW))
    day.files["video_sent"].unlink()
    with pytest.raises(StorageError, match="no such file"):
        day.read("video_sent")


def test_missing_newline_at_the_end_is_fine(tmp_path):
    day = Day(put(tmp_path, {"video_sent": SENT_NEW.rstrip("\n")}))
    assert day.read("video_sent").height == 2


def test_every_column_is_described():
    for table in TABLES.values():
        assert table.row
        for column in table.columns:
            assert column.meaning
            assert column.kind in ("int", "float", "str")
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        assert set(table.key) <= set(names)
