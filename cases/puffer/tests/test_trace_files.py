"""Recorded paths from the formats in which throughput traces are around."""

from __future__ import annotations

import numpy as np
import pytest

from memento.errors import DamagedError, DomainError, SchemaError, SettingError, StorageError
from memento_puffer.streaming.trace_files import FORMATS, read_paths

MAHIMAHI = "".join(f"{ms}\n" for ms in range(0, 4000, 3))  # 4 Mbit/s
NORWAY = "0.0\t8.0\n1.0\t16.0\n2.0\t4.0\n"
LOG = "".join(
    f"{1289406399 + i} {1000 * (i + 1)} 59.85 10.78 {size} 1000\n"
    for i, size in enumerate((1_000_000, 3_000_000, 500_000, 500_000))
)
FCC = (
    "1,2016-06-01 00:00:32,a.com,1.1.1.1,9,9,1000000,6\n"
    "2,2016-06-01 00:01:32,a.com,1.1.1.1,9,9,500000,6\n"
    "1,2016-06-01 01:00:32,a.com,1.1.1.1,9,9,2000000,6\n"
)
HEADER = "unit_id,dtime,target,address,fetch_time,bytes_total,bytes_sec,objects\n"


def capacity(path, text, form=None):
    path.write_text(text)
    paths = read_paths(path, form)
    assert not paths.readings
    return [values.round(4).tolist() for values in paths.capacity]


@pytest.mark.parametrize("form", ["mahimahi", None])
def test_mahimahi(tmp_path, form):
    """334, 333 and 334 packets; the last second is not whole, and goes."""
    assert capacity(tmp_path / "trace", MAHIMAHI, form) == [
        pytest.approx([667 * 1500 / 2e6, 334 * 1500 / 1e6], abs=1e-4)
    ]


def test_mahimahi_of_one_packet_and_of_many_in_a_millisecond(tmp_path):
    assert capacity(tmp_path / "trace", "500\n") == [[0.003]]
    assert capacity(tmp_path / "trace", "0\n" + 8 * "1000\n" + "3000\n") == [[0.0068, 0.0015]]


@pytest.mark.parametrize("form", ["norway", "belgium", "fcc", None])
def test_seconds_and_mbit(tmp_path, form):
    """Means of two seconds: of 1 and 2 MB/s, then of the last value, which holds on."""
    assert capacity(tmp_path / "trace", NORWAY, form) == [[1.5, 0.5]]


@pytest.mark.parametrize("text", [NORWAY.replace("\n", "\r\n"), "\ufeff" + NORWAY, "# s\n" + NORWAY,
                                  NORWAY.replace("\t", " , ") + "\n \n"])  # fmt: skip
def test_seconds_and_mbit_as_they_were_saved(tmp_path, text):
    assert capacity(tmp_path / "trace", text) == [[1.5, 0.5]]


@pytest.mark.parametrize("form", ["norway", "belgium", None])
def test_logs(tmp_path, form):
    """Bytes since the last line, of which each took a second; Belgium's stamps are in ms."""
    assert capacity(tmp_path / "log", LOG, form) == [[2.0, 0.5, 0.5]]
    assert capacity(tmp_path / "log", LOG.replace("12894063", "1454512894063"), form)[0][0] == 2.0


@pytest.mark.parametrize("form", ["fcc", None])
@pytest.mark.parametrize("text", [FCC, HEADER + FCC])
def test_fcc(tmp_path, form, text):
    """A trace for each unit and target, five seconds a measurement."""
    found = capacity(tmp_path / "curr_webget.csv", text, form)
    assert found == [[1.0, 1.0, 1.5, 2.0], [0.5]]


def test_fcc_with_its_columns_elsewhere(tmp_path):
    text = "bytes_sec,unit_id,target\n4000000,1,a\n1000000,1,b\n"
    assert capacity(tmp_path / "a.csv", text) == [[4.0], [1.0]]


def test_a_folder_of_traces(tmp_path):
    for number in (2, 0, 1):
        (tmp_path / f"trace-{number}").write_text(f"0 {8 * number + 8}\n")
    (tmp_path / ".hidden").write_text("x")
    paths = read_paths(tmp_path)
    assert [values.tolist() for values in paths.capacity] == [[1.0], [2.0], [3.0]]
    assert paths.traces.trace_id.tolist() == [0, 1, 2]


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"trace_id": [1, 1], "seconds": [0.0, 2.0], "rate": [1.0, 1.0]}
    for name in ("a.parquet", "b"):
        parquet.write_table(pa.table(columns), tmp_path / name)
        assert read_paths(tmp_path / name).readings
    assert read_paths(tmp_path).traces.streams == 2
    with pytest.raises(SchemaError, match="holds Parquet, and mahimahi is packets"):
        read_paths(tmp_path / "b", "mahimahi")
    (tmp_path / "c").write_text(NORWAY)
    with pytest.raises(SettingError, match="holds Parquet and seconds and Mbit/s"):
        read_paths(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedError, match="no complete Parquet file"):
        read_paths(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("content", "form", "error", "message"),
    [
        ("", None, DamagedError, "no line in it"),
        ("\n \n", None, DamagedError, "no line in it"),
        ("a b\n", None, SchemaError, "lines such as 'a b'"),
        ("1 2 3\n", None, SchemaError, "known are milliseconds"),
        (b"\xff\xfe\x00", None, SchemaError, "bytes that are no text"),
        (NORWAY, "mahimahi", SchemaError, "holds seconds and Mbit/s, and mahimahi is packets"),
        (
            MAHIMAHI,
            "norway",
            SchemaError,
            "holds packets, and norway is seconds and Mbit/s or logs",
        ),
        (MAHIMAHI, "parquet", SchemaError, "and parquet is Parquet"),
        (NORWAY, "oboe", SettingError, "give one of parquet, mahimahi"),
        (NORWAY + "3.0\n", None, DamagedError, r"'3.0' \(1 values\); expected 2 numbers"),
        (NORWAY + "3.0 x\n", None, DamagedError, "could not convert"),
        (NORWAY + "1.0 8\n", None, DomainError, "goes back from 2 to 1"),
        ("0 -8\n", None, DomainError, "'rate' is -1"),
        ("0 nan\n0 1\n", None, SchemaError, "lines such as"),
        ("0 8\n1 nan\n", None, DamagedError, "not finite"),
        ("0\ninf\n", None, DamagedError, "not finite"),
        ("0 0\n9 0\n", None, DomainError, "trace 0 carries nothing"),
        ("5\n3\n", None, DomainError, "go back to 3"),
        ("-1\n3\n", None, DomainError, "go back to -1"),
        ("1 1000 0 0 9 0\n", None, DomainError, "took 0 ms"),
        ("bytes_sec,unit_id\n1,2\n", None, SchemaError, "no column target"),
        (FCC + "1,2016-06-01\n", None, DamagedError, "measurement 4"),
        (FCC.replace("500000", "?"), None, DamagedError, "measurement 2"),
    ],
)
def test_files_that_are_no_traces(tmp_path, content, form, error, message):
    path = tmp_path / "trace"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message) as found:
        read_paths(path, form)
    assert str(path) in str(found.value) or error is SettingError


def test_no_file_and_no_files(tmp_path):
    with pytest.raises(StorageError, match="absent"):
        read_paths(tmp_path / "absent")
    with pytest.raises(StorageError, match="no file in it"):
        read_paths(tmp_path)


def test_every_format_can_be_read():
    assert set(FORMATS) == {"parquet", "mahimahi", "norway", "belgium", "fcc"}


def test_rates_between_steps_count(tmp_path):
    """What comes in odd seconds alone is half of it in each two."""
    text = "".join(f"{t} {8 * (t % 2)}\n" for t in range(10))
    np.testing.assert_allclose(capacity(tmp_path / "trace", text)[0][:5], 0.5)
