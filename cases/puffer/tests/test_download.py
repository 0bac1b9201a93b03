"""Downloading from a server that misbehaves in every way we could think of, and being killed."""

from __future__ import annotations

import csv
import datetime as dt
import errno
import gzip
import hashlib
import importlib.resources
import io
import json
import os
import resource as limits
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import misbehaving as web
import numpy as np
import polars as pl
import pytest
from misbehaving import Resource

from memento.days import parse_days
from memento.errors import (
    DamagedError,
    ForeignError,
    LockedError,
    SettingError,
    SpaceError,
    StorageError,
)
from memento.files import Lock
from memento_puffer.data.archives import MODEL_FILES, read_model_archive
from memento_puffer.data.download import (
    KINDS,
    Clock,
    Download,
    MissingDays,
    Patience,
    Record,
    download,
    known_missing,
)
from memento_puffer.data.layout import TABLES
from memento_puffer.data.schema import Day, range_of, write_day

NEW, OLD = "2021-10-17", "2021-06-01"
SENT = f"{range_of(NEW)}/video_sent_{range_of(NEW)}.csv"
QUICK = Patience(attempts=4, first_pause=0.0)


def _tables(rows: int, old: bool) -> dict[str, pl.DataFrame]:
    rng = np.random.default_rng(0)
    values = {"int": rng.integers(0, 10**9, rows), "float": rng.random(rows)}
    values["str"] = np.array(["abc"] * rows, dtype=object)
    return {
        kind: pl.DataFrame(
            {
                c.name: values[c.kind] if c.kind != "str" else ["abc"] * rows
                for c in table.columns
                if not (old and c.optional)
            }
        )
        for kind, table in TABLES.items()
        if old or kind != "buf_video_sent"
    }


def _published(folder: Path, day: str, rows: int = 1500) -> dict[str, bytes]:
    """What the bucket has of a day, by path."""
    written = write_day(folder, day, _tables(rows, day < "2021-06-12"), {7: {"abr": "bba"}})
    span = range_of(day)
    paths = {
        (f"{kind}/" if kind == "buf_video_sent" else f"{span}/") + path.name: path.read_bytes()
        for kind, path in written.files.items()
    }
    return paths | {f"{span}/logs/expt_settings": (folder / "logs/expt_settings").read_bytes()}


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    return {day: _published(tmp_path_factory.mktemp("day"), day) for day in (NEW, OLD)}


def _archive(contents: dict[str, bytes], folder: str = "bbr-20211017-1") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo(folder)
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
        for name, data in contents.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


MODEL = {name: name.encode() * 50 for name in MODEL_FILES}


@pytest.fixture
def server(days, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web.running() as server:
        for paths in days.values():
            server.files |= {f"/{path}": Resource(body) for path, body in paths.items()}
        server.files["/models/bbr-20211017-1.tar.gz"] = Resource(_archive(MODEL))
        yield server


def _get(server, folder, day=NEW, kinds=("video_sent",), **settings) -> Download:
    settings = {"patience": QUICK, "missing": ()} | settings
    models = f"{server.url}/models"
    return download(day, folder, kinds=kinds, data_url=server.url, models_url=models, **settings)


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file but the lock; manifests without their times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            data = path.read_bytes()
            if path.name == "manifest.json":
                data = "\n".join(
                    line for line in data.decode().splitlines() if '"when"' not in line
                ).encode()
            found[path.relative_to(folder).as_posix()] = data
    return found


class FakeTime:
    """Nobody waits; what was slept is noted."""

    def __init__(self, now="2023-12-01T00:00:00+00:00"):
        self.start = dt.datetime.fromisoformat(now)
        self.seconds = 0.0
        self.slept: list[float] = []
        self.clock = Clock(self.now, lambda: self.seconds, self.sleep)

    def now(self):
        return self.start + dt.timedelta(seconds=self.seconds)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.seconds += seconds


def test_what_is_known_to_be_missing():
    rows = known_missing()
    for row in rows:
        assert parse_days([row.first])
        assert not row.last or row.last >= row.first
        assert row.what in ("csv", "model", "either")
        assert row.reason
    covered = [day for day in parse_days("2020-01-01..2023-12-31")
               if any(row.covers(day, "video_sent") for row in rows)]  # fmt: skip
    years = {year: sum(day.startswith(year) for day in covered) for year in ("2020", "2021")}
    years |= {year: sum(day.startswith(year) for day in covered) for year in ("2022", "2023")}
    assert years == {"2020": 3, "2021": 20, "2022": 38, "2023": 8}
    assert not any(row.covers("2022-10-05", "model") for row in rows)
    assert any(row.covers("2024-01-01", "model") for row in rows)
    assert not any(row.covers("2024-01-01", "ssim") for row in rows)


def test_the_list_is_part_of_the_package():
    text = (importlib.resources.files("memento_puffer.data") / "missing_days.csv").read_text()
    assert next(csv.reader([text.splitlines()[0]])) == ["first", "last", "what", "reason"]


# Days and files.


@pytest.mark.parametrize("day", [NEW, OLD])
def test_a_day_is_fetched_whole(server, days, tmp_path, day):
    result = _get(server, tmp_path / "to", day, KINDS[:-1])
    assert result.state == "done"
    kinds = [*TABLES, "expt_settings"] if day == OLD else [*list(TABLES)[:-1], "expt_settings"]
    assert [(r.day, r.kind, r.state) for r in result.records] == [
        (day, kind, "fetched") for kind in kinds
    ]
    place = tmp_path / "to" / day
    for path, body in days[day].items():
        name = path.removeprefix(f"{range_of(day)}/").removeprefix("buf_video_sent/")
        assert (place / name).read_bytes() == body
    assert result.bytes == sum(map(len, days[day].values()))
    assert all(Path(r.path).stat().st_size == r.bytes for r in result.records)
    read = Day(place)
    assert read.name == day
    assert len(read.read("video_sent")) == 1500
    assert read.experiments[7].abr == "bba"
    manifest = json.loads((place / "manifest.json").read_bytes())
    entry = manifest["files"][f"video_sent_{range_of(day)}.csv"]
    body = days[day][f"{range_of(day)}/video_sent_{range_of(day)}.csv"]
    assert entry["url"].startswith(server.url)
    assert entry["size"] == len(body)
    assert entry["sha256"] == hashlib.sha256(body).hexdigest()
    assert entry["md5"] == hashlib.md5(body).hexdigest()
    assert entry["etag"] == f'"{entry["md5"]}"'
    assert dt.datetime.fromisoformat(entry["when"]).tzinfo is not None
    assert not [p for p in (tmp_path / "to").rglob(".*") if p.name != ".lock"]
    assert result.to_rows()[0]["state"] == "fetched"


def test_a_second_call_asks_nobody(server, tmp_path):
    _get(server, tmp_path, kinds=KINDS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    server.requests.clear()
    result = _get(server, tmp_path, kinds=KINDS)
    assert {r.state for r in result.records} == {"present"}
    assert result.bytes == 0
    assert server.requests == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_files_come_in_parallel_but_not_too_many(server, tmp_path):
    server.pause = 0.01
    _get(server, tmp_path, kinds=KINDS, parallel=3)
    assert 2 <= server.most_at_once <= 3


ONCE = {
    "cut off": web.cut(1000),
    "cut off at once": web.cut(0),
    "says too much": web.length(+10),
    "says too little": web.length(-10),
    "other bytes": web.other_bytes,
    "empty": web.empty,
    "500": web.status(500),
    "503": web.status(503),
    "408": web.status(408),
    "429": web.status(429, Retry_After="0"),
    "broken chunks": web.chunked(broken=True),
    "a part that nobody wanted": web.wrong_range,
}


@pytest.mark.parametrize("name", [n for n in ONCE if "nobody" not in n])
def test_what_goes_wrong_once_is_tried_again(server, days, tmp_path, name):
    server.files[f"/{SENT}"].script = [ONCE[name], web.serve]
    (record,) = _get(server, tmp_path).records
    assert (record.state, record.error) == ("fetched", "")
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    # Who believes in ten bytes more asks for them first.
    assert len(server.requests) == (3 if name == "says too much" else 2)


@pytest.mark.parametrize("name", [*ONCE, "silence"])
def test_what_goes_on_going_wrong_fails_and_leaves_no_file(server, tmp_path, name):
    patience = Patience(attempts=3, first_pause=0.0, read=0.1)
    server.files[f"/{SENT}"].script = [ONCE.get(name, web.silence)]
    if name == "cut off":
        server.files[f"/{SENT}"].script = [web.cut(100)]
    result = _get(server, tmp_path, patience=patience)
    (record,) = result.records
    assert (record.state, record.bytes, result.state) == ("failed", 0, "failed")
    assert SENT in record.error
    assert [p for p in tmp_path.rglob("*") if p.is_file() and not p.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (web.status(400), "400"),
        (web.status(418), "418"),
        (web.status(204), "204"),
        (web.endless, "does not end"),
        (web.packed, "gzip"),
        (web.redirect("file:///etc/hostname"), "only http"),
        (web.redirect("ftp://127.0.0.1/x"), "only http"),
        (web.redirect("http://[::1"), "no address"),
        (web.redirect(f"/{SENT}"), "more than 5 times"),
    ],
)
def test_what_will_not_get_better_is_asked_once(server, tmp_path, behaviour, said):
    server.files[f"/{SENT}"].script = [behaviour]
    patience = Patience(largest=1 << 20, first_pause=0.0)
    (record,) = _get(server, tmp_path, patience=patience).records
    assert record.state == "failed"
    assert said in record.error
    assert len(server.requests) == (6 if "times" in said else 1)
    assert list(tmp_path.rglob("*.csv*")) == []


def test_a_server_that_is_not_there(tmp_path):
    with web.running() as server:
        pass
    (record,) = _get(server, tmp_path).records
    assert record.state == "failed"
    assert "4 attempts" in record.error


@pytest.mark.parametrize("location", ["/elsewhere.csv", None])
def test_redirects_are_followed(server, days, tmp_path, location):
    body = days[NEW][SENT]
    server.files["/elsewhere.csv"] = Resource(body, [web.cut(500), web.serve])
    location = location or f"{server.url}/elsewhere.csv"
    server.files[f"/{SENT}"].script = [web.redirect(location, 307)]
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == body
    assert [r[2] for r in server.requests] == [None, None, "bytes=500-", "bytes=500-"]


def test_the_proxy_of_the_environment_is_asked(server, days, tmp_path, monkeypatch):
    place = "http://puffer.example"
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    address = server.url.removeprefix("http://")
    monkeypatch.setenv("http_proxy", f"http://user:word@{address}")
    server.files[f"{place}/{SENT}"] = Resource(days[NEW][SENT])
    result = download(NEW, tmp_path, kinds=["video_sent"], data_url=place, patience=QUICK)
    assert result.state == "done"
    assert server.requests == [("GET", f"{place}/{SENT}", None)]
    monkeypatch.setenv("no_proxy", "puffer.example")
    assert download(NEW, tmp_path / "b", kinds=["video_sent"], data_url=place,
                    patience=QUICK).state == "failed"  # fmt: skip


def test_from_https_nobody_is_sent_to_http():
    from memento_puffer.data.transfer import FailedError, _next_place

    assert _next_place("u", "https://a/b", "/c") == "https://a/c"
    assert _next_place("u", "http://a/b", "https://c/d e") == "https://c/d%20e"
    with pytest.raises(FailedError, match="https only"):
        _next_place("u", "https://a/b", "http://a/b")


@pytest.mark.parametrize("behaviour", [web.chunked(), web.until_closed(digests=True),
                                       web.chunked(digests=False)])  # fmt: skip
def test_files_of_unknown_length(server, days, tmp_path, behaviour):
    server.files[f"/{SENT}"].script = [behaviour]
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == days[NEW][SENT]


def test_an_end_that_nothing_proves_is_none(server, tmp_path):
    server.files[f"/{SENT}"].script = [web.until_closed(digests=False)]
    (record,) = _get(server, tmp_path).records
    assert record.state == "failed"
    assert "neither its length nor its digest" in record.error


@pytest.mark.parametrize("digests", [("crc32c",), ("md5",), ()])
def test_digests_of_either_kind(server, days, tmp_path, digests):
    server.files[f"/{SENT}"].digests = digests
    server.files[f"/{SENT}"].script = [web.other_bytes, web.serve]
    (record,) = _get(server, tmp_path).records
    # Without any, bytes that were swapped on the way cannot be told.
    assert (Path(record.path).read_bytes() == days[NEW][SENT]) is bool(digests)


# Time.


def test_a_slow_server_is_cut_and_asked_again(server, days, tmp_path):
    patience = Patience(attempts=3, first_pause=0.0, window=0.2, least_rate=5000.0)
    server.files[f"/{SENT}"].script = [web.drip, web.serve]
    (record,) = _get(server, tmp_path, patience=patience).records
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    assert server.requests[1][2] is not None  # what came slowly is kept


@pytest.mark.parametrize(
    ("behaviour", "patience"),
    [
        (web.drip, Patience(attempts=2, first_pause=0.0, window=0.2)),
        (web.drip_head, Patience(attempts=2, first_pause=0.0, answer=0.2)),
        (web.silence, Patience(attempts=2, first_pause=0.0, read=0.2)),
    ],
)
def test_nothing_can_be_dragged_out(server, tmp_path, behaviour, patience):
    server.files[f"/{SENT}"].script = [behaviour]
    begin = time.monotonic()
    (record,) = _get(server, tmp_path, patience=patience).records
    assert record.state == "failed"
    assert time.monotonic() - begin < 5.0


def test_pauses_double_and_repeat_with_the_seed(server, tmp_path):
    server.files[f"/{SENT}"].script = [web.status(500)]
    patience = Patience(attempts=9, first_pause=1.0, longest_pause=20.0)
    slept = []
    for seed in (5, np.random.default_rng(5), 6):
        time_ = FakeTime()
        result = _get(server, tmp_path, patience=patience, seed=seed, clock=time_.clock)
        assert result.state == "failed"
        slept.append(time_.slept)
    assert slept[0] == slept[1] != slept[2]
    most = np.minimum(20.0, 2.0 ** np.arange(8))
    assert len(slept[0]) == 8
    assert (np.array(slept) <= most).all()
    assert (np.array(slept) >= most / 2).all()


@pytest.mark.parametrize(
    ("asked", "least"), [("100", 100.0), ("Fri, 01 Dec 2023 00:01:00 GMT", 60.0), ("soon", 0.0)]
)
@pytest.mark.parametrize("code", [429, 503])
def test_a_server_may_ask_for_a_pause(server, tmp_path, asked, least, code):
    server.files[f"/{SENT}"].script = [web.status(code, Retry_After=asked), web.serve]
    time_ = FakeTime()
    assert _get(server, tmp_path, clock=time_.clock).state == "done"
    assert time_.slept == [least]


def test_a_server_that_asks_for_too_long_a_pause_is_given_up(server, tmp_path):
    server.files[f"/{SENT}"].script = [web.status(503, Retry_After="86400")]
    time_ = FakeTime()
    (record,) = _get(server, tmp_path, clock=time_.clock).records
    assert record.state == "failed"
    assert "86,400 s" in record.error
    assert time_.slept == []


# Going on.


def test_only_the_rest_is_fetched(server, days, tmp_path):
    body = days[NEW][SENT]
    server.files[f"/{SENT}"].script = [web.cut(40_000), web.cut(30_000), web.serve]
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == body
    assert [r[2] for r in server.requests] == [None, "bytes=40000-", "bytes=70000-"]
    assert server.sent == len(body)


def test_a_later_run_goes_on(server, days, tmp_path):
    resource = server.files[f"/{SENT}"]
    resource.script = [web.cut(40_000), web.status(500)]
    assert _get(server, tmp_path).state == "failed"
    resource.script = []
    server.requests.clear()
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    assert [r[2] for r in server.requests] == ["bytes=40000-"]


@pytest.mark.parametrize("damage", ["note", "bytes", "more", "no note", "other address"])
def test_parts_that_were_tampered_with_do_no_harm(server, days, tmp_path, damage):
    resource = server.files[f"/{SENT}"]
    resource.script = [web.cut(40_000), web.status(500)]
    _get(server, tmp_path)
    (part,) = tmp_path.rglob("*.part")
    (note,) = tmp_path.rglob("*.part.json")
    if damage == "note":
        note.write_text("[]")
    elif damage == "bytes":
        part.write_bytes(bytes(40_000))
    elif damage == "more":
        part.write_bytes(bytes(1 << 20))
    elif damage == "no note":
        note.unlink()
    else:
        note.write_text(note.read_text().replace(NEW, OLD))
    resource.script = []
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    assert list(tmp_path.rglob("*.part*")) == []


@pytest.mark.parametrize("tag", ['W/"weak"', "strong"])
def test_parts_that_nothing_proves_are_not_trusted(server, days, tmp_path, tag):
    """Weak versions may have other bytes; without a digest a power cut would not show."""
    resource = server.files[f"/{SENT}"]
    resource.script = [web.cut(40_000), web.status(500)]
    resource.digests = () if tag == "strong" else resource.digests
    resource.etag = f'"{tag}"' if tag == "strong" else tag
    _get(server, tmp_path)
    server.requests.clear()
    resource.script = []
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    assert [r[2] for r in server.requests] == [None]


def test_ranges_refused(server, days, tmp_path):
    server.files[f"/{SENT}"].script = [web.cut(40_000), web.whole]
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    assert [r[2] for r in server.requests] == [None, "bytes=40000-"]


@pytest.mark.parametrize("second", [web.wrong_range, web.status(416)])
@pytest.mark.parametrize("digests", [("md5",), ()])
def test_wrong_ranges_begin_again(server, days, tmp_path, second, digests):
    server.files[f"/{SENT}"].digests = digests
    server.files[f"/{SENT}"].script = [web.cut(40_000), second, web.serve]
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    assert [r[2] for r in server.requests] == [None, "bytes=40000-", None]


@pytest.mark.parametrize("then", ["honest", "careless", "shorter"])
def test_a_file_that_changes_in_between(server, days, tmp_path, then):
    old = days[NEW][SENT]
    new = old[: len(old) // 3] if then == "shorter" else old[:100] + old[100:].swapcase() + b"7\n"
    # A careless server gives the rest of the new version, whatever is asked for.
    last = web.cut(1 << 30) if then == "careless" else web.serve
    server.files[f"/{SENT}"].script = [web.changes(new, 40_000), last, last, web.serve]
    (record,) = _get(server, tmp_path).records
    assert Path(record.path).read_bytes() == new


def test_gains_do_not_count_as_failures(server, tmp_path):
    """A long file over a bad line takes many attempts; each brings it forward."""
    body = b"x" * (9 << 20)
    server.files[f"/{SENT}"] = Resource(body, [web.cut(3 << 19)])
    (record,) = _get(server, tmp_path, patience=Patience(attempts=2, first_pause=0.0)).records
    assert Path(record.path).read_bytes() == body
    assert len(server.requests) == 6


# What is there already.


def test_damage_on_this_disk_is_repaired(server, days, tmp_path):
    (record,) = _get(server, tmp_path).records
    path = Path(record.path)
    path.write_bytes(path.read_bytes().swapcase())
    (record,) = _get(server, tmp_path).records
    assert record.state == "fetched"
    assert path.read_bytes() == days[NEW][SENT]
    path.unlink()
    assert _get(server, tmp_path).records[0].state == "fetched"


def test_files_of_others_are_left_alone(server, tmp_path):
    path = tmp_path / NEW / f"video_sent_{range_of(NEW)}.csv"
    path.parent.mkdir()
    path.write_text("mine")
    (record,) = _get(server, tmp_path).records
    assert record.state == "failed"
    assert "move it away" in record.error
    assert path.read_text() == "mine"
    assert server.requests == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"form": 1, "day": "2020-01-01", "files": {}, "missing": {}}',
     '{"form": 1, "day": "2021-10-17", "missing": {}, "files": {"../x": {"size": 1, "sha256": "0"}}'
     "}",
     '{"form": 1, "day": "2021-10-17", "files": {"x": {"size": "1"}}, "missing": {}}'],
)  # fmt: skip
def test_manifests_of_others_are_left_alone(server, tmp_path, content):
    path = tmp_path / NEW / "manifest.json"
    path.parent.mkdir()
    path.write_text(content)
    (record,) = _get(server, tmp_path).records
    assert record.state == "failed"
    assert "manifest.json" in record.error
    assert path.read_text() == content


def test_one_download_at_a_time(server, tmp_path):
    with Lock(tmp_path / ".lock"), pytest.raises(LockedError):
        _get(server, tmp_path)
    assert _get(server, tmp_path).state == "done"


# Missing, late, empty.


def test_late_files_are_waited_for(server, days, tmp_path):
    server.files[f"/{SENT}"].script = [web.status(404)] * 3 + [web.serve]
    time_ = FakeTime("2021-10-18T12:00:00+00:00")
    patience = Patience(poll=600.0, wait=3600.0)
    result = _get(server, tmp_path, kinds=KINDS[:2], patience=patience, clock=time_.clock)
    assert [r.state for r in result.records] == ["fetched", "fetched"]
    assert time_.slept == [600.0] * 3
    assert len(server.requests) == 5  # what came is not asked for again
    assert Path(result.records[0].path).read_bytes() == days[NEW][SENT]
    assert json.loads((tmp_path / NEW / "manifest.json").read_bytes())["missing"] == {}


@pytest.mark.parametrize(("wait", "slept"), [(0.0, []), (1500.0, [600.0, 600.0, 300.0])])
def test_waiting_has_an_end(server, tmp_path, wait, slept):
    server.files[f"/{SENT}"].script = [web.status(404)]
    time_ = FakeTime("2021-10-18T12:00:00+00:00")
    patience = Patience(poll=600.0, wait=wait)
    result = _get(server, tmp_path, patience=patience, clock=time_.clock)
    assert (result.state, result.records[0].state) == ("late", "late")
    assert time_.slept == slept


def test_old_days_are_not_waited_for(server, tmp_path):
    time_ = FakeTime("2021-10-21T11:00:00+00:00")  # three days after its end
    del server.files[f"/{SENT}"]
    patience = Patience(poll=600.0, wait=3600.0)
    result = _get(server, tmp_path, patience=patience, clock=time_.clock)
    assert (result.state, result.records[0].state) == ("missing", "missing")
    assert not result.records[0].known
    assert "404" in result.records[0].error
    assert time_.slept == []
    entry = json.loads((tmp_path / NEW / "manifest.json").read_bytes())["missing"]["video_sent"]
    assert entry["known"] is False


@pytest.mark.parametrize("code", [403, 404, 410])
@pytest.mark.parametrize("what", ["csv", "either"])
def test_days_known_to_be_missing_are_no_fault(server, tmp_path, code, what):
    server.files[f"/{SENT}"].script = [web.status(code)]
    missing = (MissingDays("2021-10-16", "2021-10-17", what, "test"),)
    time_ = FakeTime("2021-10-18T12:00:00+00:00")
    settings = {"missing": missing, "patience": Patience(wait=60.0), "clock": time_.clock}
    result = _get(server, tmp_path, kinds=["video_sent", "ssim"], **settings)
    assert [(r.state, r.known) for r in result.records] == [("missing", True), ("fetched", False)]
    assert result.state == "done"
    before = _tree(tmp_path)
    again = _get(server, tmp_path, kinds=["video_sent", "ssim"], **settings)
    assert [r.state for r in again.records] == ["missing", "present"]
    assert _tree(tmp_path) == before
    server.files[f"/{SENT}"].script = []  # and if it comes after all, it is taken
    assert _get(server, tmp_path, **settings).records[0].state == "fetched"
    assert json.loads((tmp_path / NEW / "manifest.json").read_bytes())["missing"] == {}


def test_a_model_known_to_be_missing_says_nothing_of_tables():
    row = MissingDays("2021-10-16", "", "model", "test")
    assert row.covers(NEW, "model")
    assert not row.covers(NEW, "video_sent")
    assert not row.covers("2021-10-15", "model")


def test_tables_without_rows_are_kept_and_reported(server, days, tmp_path):
    header = days[NEW][SENT].partition(b"\n")[0] + b"\n"
    server.files[f"/{SENT}"].body = header
    ssim = f"/{range_of(NEW)}/ssim_{range_of(NEW)}.csv"
    server.files[ssim].body = b""  # and its digest says so
    for state in ("fetched", "present"):
        result = _get(server, tmp_path, kinds=["video_sent", "ssim", "video_acked"])
        assert [(r.state, r.empty) for r in result.records] == [
            *((state, True), (state, True), (state, False))
        ]
        assert result.state == "done"
    assert Day(tmp_path / NEW).read("video_sent").is_empty()


def test_the_worst_state_counts():
    def of(*records: Record) -> str:
        return Download(Path("."), records).state

    fine, late = Record(NEW, "ssim", "present"), Record(NEW, "ssim", "late")
    missing, known = Record(NEW, "ssim", "missing"), Record(NEW, "ssim", "missing", known=True)
    failed = Record(NEW, "ssim", "failed")
    assert of() == of(fine, known) == "done"
    assert of(fine, missing) == "missing"
    assert of(missing, late) == "late"
    assert of(late, failed, fine) == "failed"


# The disk.


def test_a_full_disk_ends_the_run(server, days, tmp_path):
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    soft, hard = limits.getrlimit(limits.RLIMIT_FSIZE)
    others = threading.active_count()
    try:
        limits.setrlimit(limits.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(SpaceError, match="free some space"):
            _get(server, tmp_path, kinds=KINDS[:-1], parallel=2)
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, (soft, hard))
    for path in tmp_path.rglob("*.csv"):
        assert path.read_bytes() == days[NEW][f"{range_of(NEW)}/{path.name}"]
    assert threading.active_count() < others + 10
    assert _get(server, tmp_path, kinds=KINDS[:-1]).state == "done"


def test_a_file_that_will_not_fit_is_not_begun(server, tmp_path, monkeypatch):
    import memento_puffer.data.transfer as transfer

    usage = transfer.shutil._ntuple_diskusage(100, 99, 1)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SpaceError, match="has 1;"):
        _get(server, tmp_path)
    assert list(tmp_path.rglob("*.csv")) == []


def test_a_full_disk_wakes_those_who_wait(server, tmp_path):
    server.files[f"/{SENT}"].script = [web.status(503, Retry_After="300")]

    def progress(done, total, name):
        if "ssim" in name:
            time.sleep(0.2)  # so that the other waits by then
            raise OSError(errno.ENOSPC, "full")

    begin = time.monotonic()
    with pytest.raises(OSError, match="full"):
        _get(server, tmp_path, kinds=["video_sent", "ssim"], progress=progress)
    assert time.monotonic() - begin < 10


def test_folders_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "absent" / "to", tmp_path / "file"):
        with pytest.raises(StorageError):
            _get(server, place)


# Being killed.


def test_killed_at_any_moment(server, days, tmp_path):
    server.pause = 0.001
    straight = tmp_path / "straight"
    assert _get(server, straight, [NEW, OLD], KINDS, missing=None).state == "missing"  # OLD's model
    server.files["/models/bbr-20210601-1.tar.gz"] = Resource(_archive(MODEL))
    assert _get(server, straight, [NEW, OLD], KINDS).state == "done"
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in _tree(straight).items()}
    task = {"url": server.url, "folder": str(tmp_path / "killed"), "expected": expected,
            "days": [NEW, OLD]}  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_download.py"))],
        input=json.dumps(task), capture_output=True, text=True, timeout=120,
        env=os.environ | {"no_proxy": "127.0.0.1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] >= 20  # and files were seen under their own names, and half of them
    assert _tree(tmp_path / "killed") == _tree(straight)


def test_a_run_that_ended_before_the_last_step(server, days, tmp_path, monkeypatch):
    """The file is whole and in the manifest, but has no name yet."""
    from memento_puffer.data.transfer import Part

    with monkeypatch.context() as patch:
        patch.setattr(Part, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _get(server, tmp_path)
    assert list(tmp_path.rglob("*.csv")) == []
    server.requests.clear()
    (record,) = _get(server, tmp_path).records
    assert record.state == "fetched"
    assert server.requests == []
    assert Path(record.path).read_bytes() == days[NEW][SENT]
    assert list(tmp_path.rglob("*.part*")) == []


# Models.


def test_a_model_is_fetched_and_opens(server, data_folder, tmp_path):
    from memento_puffer.predictor.ttp import Ttp

    made = data_folder / "fugu-feb"
    contents = {name: (made / name).read_bytes() for name in MODEL_FILES}
    server.files["/models/bbr-20211017-1.tar.gz"] = Resource(
        _archive(contents | {"loss0.png": b"a picture"})
    )
    result = _get(server, tmp_path / "to", kinds=["model"])
    assert [(r.kind, r.state) for r in result.records] == [("model", "fetched")]
    place = tmp_path / "to" / "models" / NEW
    assert result.records[0].path == str(place)
    found, wanted = Ttp.read(place), Ttp.read(made)
    x = np.random.default_rng(0).random((3, 62))
    for a, b in zip(found.networks, wanted.networks, strict=True):
        np.testing.assert_array_equal(a.logits(x), b.logits(x))
    manifest = json.loads((place / "manifest.json").read_bytes())
    assert set(manifest["files"]) == {*MODEL_FILES, "loss0.png"}
    assert manifest["archive"]["url"].endswith("/models/bbr-20211017-1.tar.gz")
    assert {p.name for p in (tmp_path / "to").iterdir()} == {".lock", "models"}
    assert {p.name for p in place.parent.iterdir()} == {NEW}


@pytest.mark.parametrize("versions", [(1, 2, 3), (2,), (1,)])
def test_the_highest_version_counts(server, tmp_path, versions):
    for version in (1, 2, 3, 5):
        contents = MODEL | {"py-0.pt": str(version).encode()}
        path = f"/models/bbr-20211017-{version}.tar.gz"
        server.files.pop(path, None)
        if version in versions:
            server.files[path] = Resource(_archive(contents))
    assert _get(server, tmp_path, kinds=["model"]).state == "done"
    found = (tmp_path / "models" / NEW / "py-0.pt").read_text()
    assert found == str(max(versions))


def test_damaged_models_are_repaired_and_others_left_alone(server, tmp_path):
    _get(server, tmp_path, kinds=["model"])
    place = tmp_path / "models" / NEW
    before = _tree(tmp_path)
    (place / "py-3.pt").write_bytes(b"")
    assert _get(server, tmp_path, kinds=["model"]).records[0].state == "fetched"
    assert _tree(tmp_path) == before
    (place / "manifest.json").unlink()
    (record,) = _get(server, tmp_path, kinds=["model"]).records
    assert record.state == "failed"
    assert "move it away" in record.error


def test_a_day_without_model(server, tmp_path):
    del server.files["/models/bbr-20211017-1.tar.gz"]
    server.files["/models/bbr-20211017-3.tar.gz"] = Resource(_archive(MODEL))  # never looked for
    assert _get(server, tmp_path, kinds=["model"]).state == "missing"
    missing = (MissingDays(NEW, "", "model", "test"),)
    assert _get(server, tmp_path, kinds=["model"], missing=missing).state == "done"
    assert not (tmp_path / "models" / NEW).exists()


def _evil(*entries: tuple[str, dict], base: dict[str, bytes] | None = None) -> bytes:
    """A good model's archive with more entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for name, data in (MODEL if base is None else base).items():
            entry = tarfile.TarInfo(f"m/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, fields in entries:
            entry = tarfile.TarInfo(name)
            for key, value in fields.items():
                setattr(entry, key, value)
            data = bytes(fields.get("size", 0))
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _sparse() -> bytes:
    """An entry that claims eight gigabytes and takes one block."""
    entry = tarfile.TarInfo("m/loss0.png")
    entry.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"77777777777\0"  # the size when unpacked, in octal
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    plain = gzip.decompress(_evil())
    return gzip.compress(plain.rstrip(b"\0") + bytes(-len(plain.rstrip(b"\0")) % 512) + bytes(block)
                         + bytes(1024))  # fmt: skip


def _negative() -> bytes:
    """A size below zero, with which some readers turn in circles."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("m/py-0.pt")
        entry.pax_headers = {"size": "-1024"}
        archive.addfile(entry)
        archive.addfile(tarfile.TarInfo("m/py-1.pt"))
    return buffer.getvalue()


LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
EVIL = {
    "absolute path": _evil(("/tmp/py-0.pt", {"size": 1})),
    "out of the folder": _evil(("m/../../py-0.pt", {"size": 1})),
    "up at once": _evil(("../py-0.pt", {"size": 1})),
    "backslashes": _evil(("m\\..\\py-0.pt", {"size": 1})),
    "no folder": _evil(("py-0.pt", {"size": 1})),
    "folder in folder": _evil(("m/n/py-0.pt", {"size": 1})),
    "two folders": _evil(("n/loss0.png", {"size": 1})),
    "twice": _evil(("m/py-0.pt", {"size": 1})),
    "another name": _evil(("m/.bashrc", {"size": 1})),
    "another number": _evil(("m/py-5.pt", {"size": 1})),
    "new line": _evil(("m/py-0.pt\n", {"size": 1})),
    "odd folder": _evil(("..", {"type": tarfile.DIRTYPE})),
    "symbolic link": _evil(("m/loss0.png", LINK)),
    "link for a folder": _evil(("m", LINK), base={}),
    "hard link": _evil(("m/loss0.png", {"type": tarfile.LNKTYPE, "linkname": "m/py-0.pt"})),
    "character device": _evil(("m/loss0.png", {"type": tarfile.CHRTYPE, "devmajor": 1})),
    "block device": _evil(("m/loss0.png", {"type": tarfile.BLKTYPE})),
    "pipe": _evil(("m/loss0.png", {"type": tarfile.FIFOTYPE})),
    "bomb": _evil(("m/loss0.png", {"size": 20 << 20})),
    "bomb behind the end": gzip.compress(gzip.decompress(_evil()) + bytes(20 << 20)),
    "many entries": _evil(*[(f"m{i}", {"type": tarfile.DIRTYPE}) for i in range(3000)]),
    "sparse": _sparse(),
}
DAMAGED = {
    "nothing": b"",
    "no archive": b"<html>not here</html>",
    "cut off": _archive(MODEL)[:-300],
    "packed noise": gzip.compress(np.random.default_rng(0).bytes(5000)),
    "file missing": _evil(base={k: v for k, v in MODEL.items() if k != "cpp-3.pt"}),
    "entry cut off": gzip.compress(gzip.decompress(_evil())[:2000]),
}


@pytest.mark.parametrize("name", [*EVIL, *DAMAGED])
def test_bad_archives_write_nothing(tmp_path, name):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes((EVIL | DAMAGED)[name])
    with pytest.raises(ForeignError if name in EVIL else DamagedError):
        read_model_archive(path)
    assert list(tmp_path.iterdir()) == [path]


def test_headers_that_lead_in_circles(tmp_path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(_negative())
    with pytest.raises((ForeignError, DamagedError)):
        read_model_archive(path)


@pytest.mark.parametrize("name", ["out of the folder", "symbolic link", "bomb", "cut off"])
def test_a_bad_archive_is_a_failed_file(server, tmp_path, name):
    server.files["/models/bbr-20211017-1.tar.gz"].body = (EVIL | DAMAGED)[name]
    result = _get(server, tmp_path / "to", kinds=["model", "video_sent"])
    assert [r.state for r in result.records] == ["failed", "fetched"]
    assert "bbr-20211017-1.tar.gz" in result.records[0].error
    assert list((tmp_path / "to" / "models").iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"to"}


# Progress and settings.


def test_progress_grows_to_the_whole(server, days, tmp_path):
    seen: dict[str, list[tuple[int, int | None]]] = {}
    busy = threading.Lock()

    def progress(done, total, name):
        assert busy.acquire(blocking=False)  # never two at once
        seen.setdefault(name, []).append((done, total))
        busy.release()

    server.files[f"/{SENT}"].script = [web.cut(40_000), web.serve]
    result = _get(server, tmp_path, kinds=KINDS, progress=progress)
    names = {f"{NEW}/{Path(r.path).relative_to(tmp_path / NEW)}" for r in result.records[:-1]}
    assert set(seen) == names | {f"{NEW}/bbr-20211017"}
    for calls in seen.values():
        done = [call[0] for call in calls]
        assert calls[-1][0] == calls[-1][1]
        if calls is not seen[f"{NEW}/bbr-20211017"]:  # a model ends with its unpacked size
            assert done == sorted(done)
    sent = seen[f"{NEW}/{Path(SENT).name}"]
    assert [d for d, _ in sent] == sorted(d for d, _ in sent)
    assert sent[-1] == (len(days[NEW][SENT]), len(days[NEW][SENT]))


def test_an_error_of_the_callback_ends_the_run(server, tmp_path):
    def progress(done, total, name):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        _get(server, tmp_path, kinds=KINDS, progress=progress)
    assert _get(server, tmp_path, kinds=KINDS).state == "done"


@pytest.mark.parametrize(
    "bad",
    [{"kinds": ()}, {"kinds": "video_sent"}, {"kinds": ["video"]}, {"parallel": 0},
     {"parallel": 2.0}, {"parallel": 65}, {"data_url": "ftp://x"}, {"data_url": "x"},
     {"data_url": "http://"}, {"models_url": "file:///etc"}, {"data_url": "http://[::1"},
     {"seed": -1}, {"seed": "x"}],
)  # fmt: skip
def test_settings_are_checked(tmp_path, bad):
    with pytest.raises(SettingError):
        download(NEW, tmp_path / "to", **bad)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    "bad",
    [{"attempts": 0}, {"attempts": 1.5}, {"connect": 0}, {"read": -1.0}, {"window": float("nan")},
     {"largest": 0}, {"poll": 0}, {"wait": -1}, {"answer": float("inf")}, {"read": "1"}],
)  # fmt: skip
def test_patience_is_checked(bad):
    with pytest.raises(SettingError, match=next(iter(bad))):
        Patience(**bad)


def test_patience_can_be_pasted():
    patience = Patience(read=3.0, attempts=2)
    assert eval(repr(patience)) == patience  # noqa: S307
