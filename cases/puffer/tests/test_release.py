"""Simulated days as files: what readers of real days make of them, and runs that are cut off."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from days import Short
from polars.testing import assert_frame_equal

from memento.errors import ForeignError, LockedError, SettingError, SpaceError, StorageError
from memento.files import Lock
from memento_puffer.data.features import HORIZONS, Features, chunk_table
from memento_puffer.data.inspection import inspect
from memento_puffer.data.joins import EVENTS, viewers_of
from memento_puffer.data.release import VARIANTS, write_simulated_day
from memento_puffer.data.schema import Day, range_of
from memento_puffer.quality import qoe
from memento_puffer.streaming.simulator import Block

NAME = "2021-10-17"
SPAN = range_of(NAME)
NUMBER, SESSIONS = 2, 14  # sessions of a Short simulation


@pytest.fixture(scope="module")
def simulation():
    return Short()


@pytest.fixture(scope="module")
def blocks(simulation):
    return list(simulation.day(NUMBER, record="all"))


@pytest.fixture(scope="module")
def written(simulation, tmp_path_factory):
    """The day in each form."""
    root = tmp_path_factory.mktemp("days")
    return {
        form: write_simulated_day(root / form, NAME, simulation, NUMBER, form=form)
        for form in ("csv", "csv.gz", "parquet")
    }


def same(a: Features, b: Features):
    for name in ("values", "stream", "video_ts", "sent", "acked"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert_frame_equal(a.streams, b.streams)
    assert dict(a.counts) == dict(b.counts)


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_features_from_files_are_those_of_the_simulation_bit_for_bit(
    form, written, blocks, simulation
):
    for dtype in (np.float32, np.float64):
        made = Features.of_blocks(blocks, simulation, NAME, NUMBER, dtype=dtype)
        same(Features.of_day(written[form], dtype=dtype), made)
    assert made.size > 500
    for h in range(HORIZONS):
        assert len(made.samples(h)[0]) > 0


def test_congestion_control_is_told_apart(written, blocks, simulation):
    made = Features.of_blocks(blocks, simulation, NAME, NUMBER, cc="cubic")
    read = Features.of_day(written["csv"], cc="cubic")
    assert 0 < made.size < Features.of_blocks(blocks).size
    np.testing.assert_array_equal(made.values, read.values)
    assert_frame_equal(made.streams, read.streams)
    assert made.counts["other_cc"] == read.counts["other_cc"]


def test_features_without_the_simulation_have_the_same_windows(blocks, simulation):
    plain = Features.of_blocks(blocks)
    named = Features.of_blocks(blocks, simulation, NAME, NUMBER)
    np.testing.assert_array_equal(plain.columns(1)["x"], named.columns(1)["x"])
    assert plain.streams["abr"].null_count() == len(plain.streams)
    with pytest.raises(SettingError, match="hand in the simulation"):
        Features.of_blocks(blocks, cc="bbr")
    with pytest.raises(SettingError, match="float32 or float64"):
        Features.of_blocks(blocks, dtype=np.int64)


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_nothing_is_wrong_with_a_written_day(form, written, blocks):
    found = inspect(written[form])
    assert found.absent == ()
    assert (found.unknown_experiments, found.unsent) == (0, 0)
    for kind in ("video_sent", "video_acked", "client_buffer"):
        table = found.tables[kind]
        assert table.rows == sum(len(getattr(block, kind)["time"]) for block in blocks)
        assert (table.duplicates, table.missing, table.out_of_range) == (0, {}, {})
    assert found.tables["video_size"].rows == found.tables["ssim"].rows == 6 * 10 * 60
    assert found.tables["video_size"].duplicates == 0


def test_rows_come_by_time(written):
    for kind in written["csv"].files:
        times = written["csv"].read(kind)["time"].to_numpy()
        assert (np.diff(times) >= 0).all(), kind
        assert (times % 10**6 == 0).all(), kind


def test_forms_hold_the_same(written):
    for kind in written["csv"].files:
        table = written["csv"].read(kind)
        assert_frame_equal(table, written["csv.gz"].read(kind))
        assert_frame_equal(table, written["parquet"].read(kind))
    plain = (written["csv"].folder / f"video_acked_{SPAN}.csv").read_bytes()
    packed = written["csv.gz"].folder / f"video_acked_{SPAN}.csv.gz"
    assert gzip.decompress(packed.read_bytes()) == plain


def test_watch_and_stall_times_are_those_of_the_simulation(written, blocks):
    """Read from client_buffer by what reads real days; to rounding of sums of times."""
    day = written["parquet"]
    events = day.read("client_buffer").with_columns(
        pl.concat_str("session_id", "index", separator=" ").alias("stream")
    )
    found = qoe.stream_statistics(events)
    ids = {}
    for block in blocks:
        names = Short()._whole.session_ids(NUMBER, block.streams["session"])
        for row, (name, index) in enumerate(zip(names, block.streams["index"], strict=True)):
            ids[f"{name} {index}"] = tuple(
                float(block.streams[k][row]) for k in ("startup", "watch", "stall", "considered")
            )
    assert set(found["stream"].tolist()) <= set(ids)
    assert found["considered"].sum() > 10
    for i, name in enumerate(found["stream"].tolist()):
        got = [float(found[k][i]) for k in ("startup", "watch", "stall", "considered")]
        np.testing.assert_allclose(got, ids[name], rtol=0, atol=2e-3, equal_nan=True)


def test_the_chunk_table_agrees_with_blocks(written, blocks, simulation):
    table = chunk_table(written["csv"])
    assert len(table) == sum(len(block.video_sent["time"]) for block in blocks)
    assert table["size"].sum() == sum(int(block.video_sent["size"].sum()) for block in blocks)
    made = Features.of_blocks(blocks, simulation, NAME, NUMBER)
    acked = table["acked"].fill_null(-1).to_numpy()
    np.testing.assert_array_equal(acked, made.acked)
    assert set(table["abr"]) <= {"linear_bba", "bola_basic_v1"}
    assert set(table["format"]) <= {name for ladder in simulation.formats for name in ladder}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_historical_form_reads_the_same(variant, simulation, written, tmp_path):
    day = write_simulated_day(
        tmp_path / "day", NAME, simulation, NUMBER, form="parquet", variant=variant
    )
    form, now = VARIANTS[variant], written["parquet"]
    assert ("buf_video_sent" in day.files) == form.side_table
    sent, today = day.read("video_sent"), now.read("video_sent")
    if form.side_table:
        assert sent["buffer"].null_count() == len(sent)
        side = day.read("buf_video_sent")
        assert_frame_equal(side.select("buffer", "cum_rebuf"), today.select("buffer", "cum_rebuf"))
    if form.decibels:
        assert any("ssim" in note for note in inspect(day).tables["ssim"].notes)
    assert_frame_equal(sent.select("ssim_index"), today.select("ssim_index"), abs_tol=1e-12)
    assert_frame_equal(day.read("client_buffer"), now.read("client_buffer"))
    a, b = Features.of_day(day), Features.of_day(now)
    np.testing.assert_array_equal(a.values, b.values)
    if not form.abr_names:
        assert set(a.streams["abr"]) == {"linear_bba", "bola_basic_v1"}
        assert "abr_name" not in (day.folder / "logs" / "expt_settings").read_text()


def test_the_truth_lies_beside_the_day(written, blocks):
    truth = viewers_of(written["csv"])
    assert len(truth) == SESSIONS
    assert truth["mean_rate"].to_list() == [
        float(rate) for block in blocks for rate in block.sessions["mean_rate"]
    ]
    assert "sessions" not in written["csv"].files
    assert repr(Day(written["csv"].folder)) == repr(written["csv"])


def test_the_size_of_blocks_does_not_matter(simulation, written, tmp_path):
    """Rows of one time may change places, so tables are compared sorted."""
    day = write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER, form="parquet", block=100)
    key = ["time", "session_id", "index"]
    for kind in ("video_sent", "client_buffer"):
        a, b = (d.read(kind).sort(key, maintain_order=True) for d in (day, written["parquet"]))
        assert_frame_equal(a, b)


def test_progress_is_told(simulation, tmp_path):
    told = []
    write_simulated_day(
        tmp_path / "day", NAME, simulation, NUMBER, progress=lambda *step: told.append(step)
    )
    assert told[-1] == ("write", 1.0)
    for stage in ("simulate", "write"):
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert 0 <= shares[0] <= shares[-1] == 1.0


def test_dirt(simulation, blocks, written):
    """Sentinels, repeated rows and acknowledgements that are lost or too early."""
    block = blocks[0]
    sent = {name: column.copy() for name, column in block.video_sent.items()}
    acked = {name: column.copy() for name, column in block.video_acked.items()}
    sent["min_rtt"][5] = 2**32 - 1
    acked = {name: np.delete(column, [2, 3]) for name, column in acked.items()}
    acked = {name: np.r_[column, column[:4]] for name, column in acked.items()}
    acked["time"][0] -= 10**12
    acked["time"][-4] -= 10**12
    dirty = Block(block.sessions, block.streams, sent, acked, block.client_buffer)
    made = Features.of_blocks([dirty], simulation, NAME, NUMBER)
    clean = Features.of_blocks([block], simulation, NAME, NUMBER)
    assert made.counts["not_measured"] == clean.counts["not_measured"] + 1
    assert made.counts["unacked"] == clean.counts["unacked"] + 2
    assert made.counts["acked_early"] == 1
    assert made.counts["acked_twice"] == 4
    folder = written["csv"].folder.parent / "dirty"
    fake = SimpleNamespace(
        day=lambda number, **options: iter([dirty]),
        **{
            name: getattr(simulation, name)
            for name in ("experiments", "session_ids", "channels", "formats", "content")
        },
    )
    day = write_simulated_day(folder, NAME, fake, NUMBER)
    same(Features.of_day(day), made)
    quality = inspect(day)
    assert quality.tables["video_sent"].not_measured == {"min_rtt": made.counts["not_measured"]}
    assert quality.tables["video_acked"].duplicates == 4


def test_a_day_without_viewers_has_headers(simulation, blocks, tmp_path):
    def nobody(table):
        return {name: column[:0] for name, column in table.items()}

    empty = Block(*(nobody(table) for table in blocks[0]))
    fake = SimpleNamespace(
        day=lambda number, **options: iter([empty]),
        **{
            name: getattr(simulation, name)
            for name in ("experiments", "session_ids", "channels", "formats", "content")
        },
    )
    for form in ("csv", "parquet"):
        day = write_simulated_day(tmp_path / form, NAME, fake, NUMBER, form=form)
        assert inspect(day).tables["video_sent"].rows == 0
        assert Features.of_day(day).size == 0
    assert Features.of_blocks([empty]).size == Features.of_blocks([]).size == 0


# ----------------------------------------------------------------------------------------------
# All or nothing


class Broken(Short):
    def __init__(self, error):
        super().__init__()
        self._error = error

    def day(self, number, **options):
        yield next(super().day(number, **options))
        raise self._error


def test_a_run_that_fails_leaves_nothing(tmp_path):
    broken = Broken(RuntimeError("on purpose"))
    with pytest.raises(RuntimeError, match="on purpose"):
        write_simulated_day(tmp_path / "new" / "days" / "day", NAME, broken, NUMBER)
    assert list(tmp_path.iterdir()) == []


def test_without_all_that_was_on(simulation, written, tmp_path):
    day = write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER, content=False)
    assert set(day.files) == {"video_sent", "video_acked", "client_buffer"}
    for kind, path in day.files.items():
        assert path.read_bytes() == written["csv"].path(kind).read_bytes()
    again = write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER)
    assert {"video_size", "ssim"} <= set(again.files)
    less = write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER, content=False)
    assert less.files == day.files  # what was there of the day before is gone


def test_a_run_that_fails_leaves_the_day_before_it(simulation, tmp_path):
    day = write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER)
    before = {p.name: p.read_bytes() for p in day.folder.iterdir() if p.is_file()}
    with pytest.raises(KeyboardInterrupt):
        write_simulated_day(tmp_path / "day", NAME, Broken(KeyboardInterrupt()), NUMBER)
    after = {p.name: p.read_bytes() for p in day.folder.iterdir() if p.is_file()}
    assert before == after
    assert [p.name for p in tmp_path.iterdir()] == ["day"]


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_full_disk_is_told_and_leaves_nothing(form, simulation, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(SpaceError, match="free some space"):
            write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER, form=form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_killed_is_cleaned_up_by_the_next(simulation, written, tmp_path):
    work = tmp_path / f".day.{SPAN}.work"
    (work / "parts").mkdir(parents=True)
    (work / "parts" / "video_sent-0").write_bytes(b"half")
    (work / "new").mkdir()
    (work / "new" / f"video_sent_{SPAN}.csv").write_text("half")
    day = write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER)
    assert [p.name for p in tmp_path.iterdir()] == ["day"]
    assert_frame_equal(day.read("video_sent"), written["csv"].read("video_sent"))


def test_a_day_that_was_complete_when_the_run_was_killed_is_kept(simulation, written, tmp_path):
    """The next run first moves what is ready; that it then fails does not matter."""
    work = tmp_path / f".day.{SPAN}.work"
    work.mkdir()
    os.rename(write_simulated_day(tmp_path / "made", NAME, simulation, NUMBER).folder, work / "new")
    (work / "ready").touch()
    with pytest.raises(RuntimeError):
        write_simulated_day(tmp_path / "day", NAME, Broken(RuntimeError()), NUMBER)
    day = Day(tmp_path / "day")
    assert_frame_equal(day.read("video_sent"), written["csv"].read("video_sent"))
    assert [p.name for p in tmp_path.iterdir()] == ["day"]


@pytest.mark.slow
def test_a_killed_process(tmp_path):
    script = textwrap.dedent(f"""
        import time
        from memento_puffer.streaming.abr import BBA
        from memento_puffer.streaming.simulator import Scheme, Simulation
        from memento_puffer.data.release import write_simulated_day
        class Slow(Simulation):
            def day(self, number, **options):
                yield next(iter(super().day(number, sessions=3, record="all")))
                print("there", flush=True)
                time.sleep(60)
        write_simulated_day({str(tmp_path / "day")!r}, {NAME!r}, Slow([Scheme("b", BBA())]), 0)
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    time.sleep(0.1)
    process.kill()
    process.wait()
    process.stdout.close()
    assert [p.name for p in tmp_path.iterdir()] == [f".day.{SPAN}.work"]
    write_simulated_day(tmp_path / "day", NAME, Short(), NUMBER)
    assert [p.name for p in tmp_path.iterdir()] == ["day"]


def test_one_writer_at_a_time(simulation, tmp_path):
    work = tmp_path / f".day.{SPAN}.work"
    work.mkdir()
    with Lock(work / "lock"), pytest.raises(LockedError):
        write_simulated_day(tmp_path / "day", NAME, simulation, NUMBER)


def test_a_new_form_takes_the_place_of_the_old(simulation, tmp_path):
    folder = tmp_path / "day"
    write_simulated_day(folder, NAME, simulation, NUMBER, variant="before 2021-06-12")
    day = write_simulated_day(folder, NAME, simulation, NUMBER, form="parquet")
    assert "buf_video_sent" not in day.files
    assert {path.suffix for path in day.files.values()} == {".parquet"}


def test_days_share_a_folder(simulation, tmp_path):
    write_simulated_day(tmp_path / "days", NAME, simulation, NUMBER)
    day = write_simulated_day(tmp_path / "days", "2021-10-18", simulation, NUMBER)
    first = Day(tmp_path / "days", NAME)
    assert len(first.files) == len(day.files) == 5
    assert set(day.experiments) == {1, 2}


def test_what_was_not_simulated_is_not_replaced(simulation, tmp_path):
    folder = tmp_path / "day"
    folder.mkdir()
    real = folder / f"video_sent_{SPAN}.csv.gz"
    real.write_bytes(b"real")
    with pytest.raises(ForeignError, match="was not simulated"):
        write_simulated_day(folder, NAME, simulation, NUMBER)
    assert real.read_bytes() == b"real"
    assert [p.name for p in tmp_path.iterdir()] == ["day"]


def test_other_experiments_of_the_same_ids_are_refused(simulation, tmp_path):
    (tmp_path / "days" / "logs").mkdir(parents=True)
    (tmp_path / "days" / "logs" / "expt_settings").write_text('1 {"abr": "mpc"}\n')
    (tmp_path / "days" / "video_sent_2021-01-01T11_2021-01-02T11.csv").touch()
    with pytest.raises(ForeignError, match="experiment 1 is"):
        write_simulated_day(tmp_path / "days", NAME, simulation, NUMBER)


def test_wrong_settings(simulation, tmp_path):
    for change, message in (
        ({"form": "zip"}, "csv, csv.gz, parquet"),
        ({"variant": "2018"}, "current"),
        ({"day": "2021-13-01"}, "such as"),
    ):
        options = {"day": NAME, "simulation": simulation, "number": NUMBER, **change}
        with pytest.raises(SettingError, match=message):
            write_simulated_day(tmp_path / "day", **options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        write_simulated_day(tmp_path / "file" / "day", NAME, simulation, NUMBER)


def test_event_names_are_those_of_the_simulator():
    from memento_puffer.streaming import simulator

    assert simulator.EVENTS == EVENTS
