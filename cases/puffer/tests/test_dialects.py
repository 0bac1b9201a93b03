"""Files of a day as programs save them again, and as Puffer published them in 2019."""

from __future__ import annotations

import datetime as dt
import gzip
import shutil

import numpy as np
import polars as pl
import pytest
from days import Short

from memento.errors import DamagedError, ForeignError, SchemaError
from memento_puffer.data.dialects import dialect_of
from memento_puffer.data.features import Features
from memento_puffer.data.inspection import inspect
from memento_puffer.data.release import write_simulated_day
from memento_puffer.data.schema import Day, read_experiments
from memento_puffer.quality.analysis import analyze_day

NAME, RANGE = "2021-10-17", "2021-10-17T11_2021-10-18T11"
EVENTS = ("video_sent", "video_acked", "client_buffer")


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    """A day as it was published, and its features."""
    folder = tmp_path_factory.mktemp("today") / NAME
    write_simulated_day(folder, NAME, Short(), 2, sessions=4, content=False)
    return folder, Features.of_day(Day(folder, NAME))


@pytest.fixture
def day(today, tmp_path):
    """A copy to be changed: all tables by a function of their text, which gives text or bytes."""

    def change(function, suffix=""):
        shutil.copytree(today[0], tmp_path / NAME)
        for kind in EVENTS:
            path = tmp_path / NAME / f"{kind}_{RANGE}.csv"
            content = function(path.read_text())
            path.unlink()
            content = content if isinstance(content, bytes) else content.encode()
            path.with_name(path.name + suffix).write_bytes(content)
        return Day.find(tmp_path, NAME)

    return change


def rows(text):
    header, *lines = text.splitlines()
    return header, [line.split(",", 1) for line in lines]


def with_times(function):
    """Text with other times, by a function of ns."""

    def change(text):
        header, lines = rows(text)
        return "\n".join([header, *(f"{function(int(t))},{rest}" for t, rest in lines)]) + "\n"

    return change


def iso(form, end):
    def of(ns):
        when = dt.datetime.fromtimestamp(ns // 10**9, dt.UTC)
        return when.strftime(form) + (f".{ns % 10**9 // 10**6:03d}{end}" if ns % 10**9 else end)

    return with_times(of)


def quoted(text):
    """As R's write.csv: names and text in quotes, and numbers of rows; the time's name is R's."""
    header, lines = rows(text.replace("time (ns GMT)", "time..ns.GMT."))
    made = [",".join(f'"{name}"' for name in ("", *header.split(",")))]
    for number, (time, rest) in enumerate(lines, 1):
        session, more = rest.split(",", 1)
        made.append(f'"{number}",{time},"{session}",{more}')
    return "\n".join(made) + "\n"


def latin(text):
    """A station with an accent, as spreadsheets of western Europe write it."""
    return text.replace(",abc,", ",télé,").encode("latin-1")


FORMS = {
    "iso": iso("%Y-%m-%dT%H:%M:%S", "Z"),
    "iso of pandas": iso("%Y-%m-%d %H:%M:%S", "+00:00"),
    "iso without a zone": iso("%Y-%m-%d %H:%M:%S", ""),
    "iso of polars": iso("%Y-%m-%d %H:%M:%S", " UTC"),
    "ms": with_times(lambda ns: ns // 10**6),
    "us": with_times(lambda ns: ns // 10**3),
    "numbers of R": with_times(lambda ns: f"{ns:.12e}"),
    "ms with a point": with_times(lambda ns: f"{ns / 1e6:.1f}"),
    "R": quoted,
    "empty lines": lambda text: text + "\n\n",
    "a line of blanks": lambda text: text + "  \n",
    "Windows": lambda text: text.replace("\n", "\r\n") + "\r\n",
    "BOM": lambda text: "\ufeff" + text,
    "BOM and R": lambda text: "\ufeff" + quoted(text),
    "backwards": lambda text: "\n".join([text.splitlines()[0], *text.splitlines()[:0:-1]]) + "\n",
}


def same(found, wanted):
    for name in ("values", "stream", "video_ts", "sent", "acked"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert found.counts == wanted.counts


@pytest.mark.parametrize("form", FORMS)
def test_saved_again(day, today, form):
    same(Features.of_day(day(FORMS[form])), today[1])


@pytest.mark.parametrize("form", ["empty lines", "Windows", "ms"])
def test_packed_in_several_members(day, today, form):
    def packed(text):
        content = FORMS[form](text).encode()
        return gzip.compress(content[:99]) + gzip.compress(content[99:])

    same(Features.of_day(day(packed, ".gz")), today[1])


def test_latin(day, today):
    found = day(latin)
    same(Features.of_day(found), today[1])
    stations = set(found.read("video_sent")["channel"])
    assert "t\ufffdl\ufffd" in stations or "abc" not in set(
        Day(today[0]).read("video_sent")["channel"]
    )


@pytest.mark.parametrize("kind", ["ns", "us", "ms", "zone", "text"])
def test_parquet_with_times_of_other_kinds(today, tmp_path, kind):
    for name in ("video_sent", "video_acked"):
        frame = Day(today[0]).read(name)
        time = pl.col("time").cast(pl.Datetime("ns"))
        if kind in ("ns", "us", "ms"):
            time = time.dt.cast_time_unit(kind)
        elif kind == "zone":
            time = time.dt.cast_time_unit("us").dt.replace_time_zone("UTC")
        else:
            time = time.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        frame.with_columns(time).write_parquet(tmp_path / f"{name}_{RANGE}.parquet")
    found = Features.of_day(Day(tmp_path, NAME))
    np.testing.assert_array_equal(found.sent, today[1].sent)
    np.testing.assert_array_equal(found.values, today[1].values)


def test_what_was_read_is_told(day):
    notes = inspect(day(FORMS["ms"])).tables["video_sent"].notes
    assert "time was read from ms" in notes


def test_how_a_file_was_written(tmp_path):
    path = tmp_path / "a.csv"
    for content, times, blank in [
        ("t,s\n", "ns", False),
        ("t,s\n1634468400123,x\n", "ms", False),
        ("t,s\n1634468400123456,x\n\n", "us", True),
        ("t,s\n1634468400123000000,x\n \n", "ns", True),
        ("t,s\n\n\n1.6344684e18,x\n", "float ns", False),
        ('t,s\n"2021-10-17 11:00:00",x\n', "ISO", False),
        ("t,s\n5,x\n", "ns", False),
    ]:
        path.write_text(content)
        found = dialect_of(path)
        assert (found.names, found.times("t"), found.blank) == (("t", "s"), times, blank), content


# ------------------------------------------------------------------------------------------- 2019


def former(folder, root):
    """The event tables as the releases of a month had them: no end of the day, ms, no index."""
    names = {
        "index": None, "time (ns GMT)": "timestamp", "expt_id": "experiment_id",
        "channel": "channel_name", "video_ts": "chunk_presentation_timestamp",
        "format": "resolution", "size": "chunk_size", "buffer": "playback_buffer",
        "cum_rebuf": "cumulative_rebuffer",
    }  # fmt: skip
    for kind in EVENTS:
        frame = pl.read_csv(folder / f"{kind}_{RANGE}.csv").with_columns(
            pl.col("time (ns GMT)") // 10**6,
            pl.concat_str("session_id", "index", separator="-"),
        )
        if kind != "client_buffer":
            frame = frame.drop("buffer", "cum_rebuf", strict=False)
        frame = frame.drop("index").rename({a: b for a, b in names.items() if b}, strict=False)
        frame.write_csv(root / f"{kind}_2021-10-17T11.csv")


def test_the_releases_of_2019(today, tmp_path):
    """A month in one folder, streams without a number, each channel of a session one."""
    former(today[0], tmp_path)
    (tmp_path / "video_sent_2021-10-18T11.csv").write_text("another day\n")
    day = Day.find(tmp_path, NAME)
    assert day.files["video_sent"].name == "video_sent_2021-10-17T11.csv"
    found, wanted = Features.of_day(day), today[1]
    assert len(found.streams) == len(wanted.streams)
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.sent, wanted.sent)
    assert set(found.streams["index"]) == {0}
    assert all("/" in name for name in found.streams["session_id"])
    report = inspect(day).tables["video_acked"]
    assert "index" in report.absent
    assert "channel was read from 'channel_name'" in report.notes


def test_an_analysis_of_the_releases_of_2019(today, tmp_path):
    former(today[0], tmp_path)
    shutil.copy(today[0] / "logs/expt_settings", tmp_path)
    found, wanted = analyze_day(Day(tmp_path, NAME)), analyze_day(Day(today[0], NAME))
    for name in ("scheme", "stall_capped", "watch"):
        np.testing.assert_array_equal(found.streams[name], wanted.streams[name])


def test_what_2019_may_lack_is_not_lacking_today(today, tmp_path):
    former(today[0], tmp_path)
    path = tmp_path / "video_sent_2021-10-17T11.csv"
    path.rename(tmp_path / f"video_sent_{RANGE}.csv")
    with pytest.raises(SchemaError, match="no column 'index'"):
        Features.of_day(Day(tmp_path, NAME))


def test_a_day_under_both_names(today, tmp_path):
    former(today[0], tmp_path)
    shutil.copy(today[0] / f"video_sent_{RANGE}.csv", tmp_path)
    with pytest.raises(ForeignError, match="are the same table"):
        Day(tmp_path, NAME)


# ----------------------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_times(lambda ns: ns + 3 * 86_400 * 10**9), "no chunk was sent on the day, the first"),
        (with_times(lambda ns: ns // 10**9), "no chunk was sent on the day"),
        (with_times(lambda ns: "17.10.2021 11:00"), "could not parse"),
        (iso("%Y-%m-%dT%H:%M:%S", "+02:00"), "conversion"),
        (lambda text: FORMS["iso"](text) + "2021-10-17,x" + 20 * ",", "conversion"),
        (lambda text: text.replace("\n", "\n\n", 3), "has no time"),
    ],
)
def test_times_that_say_nothing(day, change, message):
    """Refused by name: a day without samples is no result."""
    with pytest.raises(DamagedError, match=message):
        Features.of_day(day(change))


@pytest.mark.parametrize(
    "text",
    [
        '\ufeff7 {"abr": "mpc"}\r\n9 {"abr": "bba", "cc": "bbr"}\r\n\r\n',
        '7\t{"abr": "mpc"}\n  9  {"abr": "bba", "cc": "bbr"}',
    ],
)
def test_settings_saved_again(tmp_path, text):
    (tmp_path / "expt_settings").write_text(text)
    found = read_experiments(tmp_path / "expt_settings")
    assert {n: (e.abr, e.cc) for n, e in found.items()} == {7: ("mpc", None), 9: ("bba", "bbr")}
