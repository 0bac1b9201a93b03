"""Files of commands that lie elsewhere: stores, the web, standard input, folders, databases."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset as datasets
from pyarrow import parquet

from called import code_of
from memento import Memory, Samples
from memento.cli import sources, tables
from memento.errors import InputError, MissingExtraError, SchemaError, StorageError
from memento.integrations.arrow import batches
from memento.integrations.sql import query
from object_store import store


@pytest.fixture
def mem(tmp_path, monkeypatch):
    """An empty memory in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert code_of("memory", "init", "mem", "--policy", "fifo", "--capacity", "1000") == 0
    return tmp_path / "mem"


@pytest.fixture
def run(capsys):
    def run(*words):
        capsys.readouterr()
        code = code_of(*words)
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return run


def as_parquet(**columns):
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    return file.getvalue()


def held(folder):
    return Memory.load(folder).samples


OBJECTS = {
    "bucket/days/day=1/part-0.parquet": as_parquet(y=[1, 2], x=[0.5, 1.5]),
    "bucket/days/day=2/part-0.parquet": as_parquet(y=[3], x=[2.5]),
    "bucket/days/day=2/_SUCCESS": b"",
    "bucket/text/monday.csv": b"y;x\n4;0,5\n",
    "bucket/text/tuesday.csv": b"y;x\n5;1,5\n",
    "bucket/broken.parquet": b"PAR1 and no more",
}


@pytest.fixture(scope="module")
def s3():
    """A store that pyarrow's own client of S3 reads from."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION",
             "AWS_EC2_METADATA_DISABLED")  # fmt: skip
    before = {name: os.environ.get(name) for name in names}
    with store(OBJECTS) as server:
        values = (server.url, "key", "secret", "us-east-1", "true")
        os.environ.update(dict(zip(names, values, strict=True)))
        yield server
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_a_file_in_a_store(mem, run, s3):
    code, out, _ = run("memory", "insert", "mem", "s3://bucket/text/monday.csv", "--json")
    assert code == 0
    assert json.loads(out)["files"] == ["s3://bucket/text/monday.csv"]
    assert held(mem)["x"].tolist() == [0.5]
    _, _, err = run("memory", "insert", "mem", "s3://bucket/text/monday.csv")
    assert "s3://bucket/text/monday.csv went in already" in err


def test_patterns_in_a_store(mem, run, s3):
    assert run("memory", "insert", "mem", "s3://bucket/text/*.csv")[0] == 0
    assert held(mem)["y"].tolist() == [4, 5]
    code, _, err = run("memory", "insert", "mem", "s3://bucket/text/*.parquet")
    assert code == 2
    assert "no file matches 's3://bucket/text/*.parquet'" in err


def test_a_folder_in_a_store_has_columns_of_folders(mem, run, s3):
    assert run("memory", "insert", "mem", "s3://bucket/days/")[0] == 0
    samples = held(mem)
    assert samples["y"].tolist() == [1, 2, 3]
    assert samples["day"].tolist() == [1, 1, 2]
    parts = list(batches("s3://bucket/days", rows=2))
    assert [part.size for part in parts] == [2, 1]
    assert parts[1]["day"].tolist() == [2]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://bucket/text/friday.csv", "s3://bucket/text/friday.csv: no such file"),
        ("s3://bucket/broken.parquet", "s3://bucket/broken.parquet: cannot be read as parquet"),
        ("nonsense://bucket/day.csv", "nonsense://bucket/day.csv"),
    ],
)
def test_what_cannot_be_had(mem, run, s3, address, words):
    code, _, err = run("memory", "insert", "mem", address)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert held(mem).size == 0


def test_a_memory_is_not_saved_in_a_store(mem, run, s3):
    code, _, err = run("memory", "export", "mem", "s3://bucket/mem.parquet")
    assert code == 2
    assert "an address; give a local path: mount the place, or copy from or to it" in err


def test_the_web(mem, run, s3):
    address = f"{s3.url}/bucket/text/monday.csv"
    assert run("memory", "insert", "mem", address)[0] == 0
    assert held(mem)["y"].tolist() == [4]
    code, _, err = run("memory", "insert", "mem", f"{s3.url}/bucket/no.csv")
    assert code == 2
    assert f"{s3.url}/bucket/no.csv cannot be fetched: HTTP Error 404" in err
    code, _, err = run("memory", "insert", "mem", f"{s3.url}/")
    assert code == 2
    assert "names no file" in err


def test_a_connection_that_breaks_off(mem, run):
    with store({"day.csv": b"y,x\n1,2\n"}) as server:
        server.promised = 5
        code, _, err = run("memory", "insert", "mem", f"{server.url}/day.csv")
    assert code == 2
    assert "8 bytes came of 13" in err
    assert held(mem).size == 0


def test_what_pathlib_makes_of_a_file_from_elsewhere(tmp_path):
    """Each version of Python calls another of its methods for it."""
    found = sources.Found.at(tmp_path / "day.csv", "https://example.com/day.csv", {"day": "7"})
    assert str(found) == "https://example.com/day.csv"
    assert os.fspath(found) == str(tmp_path / "day.csv")
    assert str(found.parent) == str(tmp_path)
    assert found.resolve() in {(tmp_path / "day.csv").resolve()}
    assert str(found.with_name("night.csv")) == str(tmp_path / "night.csv")
    assert str(copy.copy(found)) == str(tmp_path / "day.csv")
    assert str(found.with_segments(tmp_path, "a")) == str(tmp_path / "a")  # from Python 3.12 on


@contextlib.contextmanager
def answering(data):
    """A server that sends these bytes, whatever is asked, and hangs up; its address."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    one, _ = server.accept()
                    with one:
                        one.recv(65_536)
                        one.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)


CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ny,x\n1,2\n"


@pytest.mark.parametrize(
    ("data", "path"),
    [(CHUNKS + b"ff\r\ny,x\n1,2\n", "a.csv"), (b"garbage\r\n\r\n", "a.csv"), (WHOLE, "a b.csv")],
    ids=["ends early", "no answer of HTTP", "no address"],
)
def test_answers_that_are_none(mem, run, data, path):
    with answering(data) as url:
        code, _, err = run("memory", "insert", "mem", f"{url}/{path}?sig=secret")
    assert code == 2
    assert f"{url}/{path} cannot be fetched: " in err
    assert "secret" not in err
    assert held(mem).size == 0


def test_what_would_fill_the_disk_is_not_fetched(mem, run, monkeypatch):
    full = shutil.disk_usage("/")._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    with answering(WHOLE) as url:
        code, _, err = run("memory", "insert", "mem", f"{url}/a.csv")
    assert code == 2
    assert f"{url}/a.csv is larger than 4 bytes, which is 90% of what is free" in err
    assert held(mem).size == 0


def test_an_address_named_twice(mem, run):
    words = ("memory", "insert", "mem")
    with answering(WHOLE) as url:
        code, _, err = run(*words, *[f"{url}/a.csv?k=secret"] * 2)
        assert code == 2
        assert f"{url}/a.csv is named twice" in err
        assert held(mem).size == 0
        code, out, _ = run(*words, f"{url}/a.csv?day=1", f"{url}/a.csv?day=2", "--json")
    assert code == 0
    assert json.loads(out)["files"] == [f"{url}/a.csv", f"{url}/a.csv (2)"]
    assert held(mem).size == 2


def test_a_file_of_a_store_named_twice(mem, run, s3):
    code, _, err = run(
        "memory", "insert", "mem", "s3://bucket/text/*.csv", "s3://bucket/text/monday.csv"
    )
    assert code == 2
    assert "s3://bucket/text/monday.csv is named twice" in err


@pytest.mark.parametrize(
    "address",
    [
        "ftp://me:secret@127.0.0.1:1/a.csv",
        "http://me:secret@127.0.0.1:1/a.csv",
        "http://me:sec/ret@127.0.0.1:1/a.csv",
        "http://127.0.0.1:1/a.csv?sig=secret",
        "http://[secret/a.csv",
        "s3://key:secret@bucket/a.csv?endpoint_override=127.0.0.1:1",
        "s3://key:secret@bucket/a*.csv",
        "nonsense://me:secret@host/a.csv",
    ],
)
@pytest.mark.parametrize("command", ["insert", "label", "export"])
def test_passwords_are_not_shown(mem, run, s3, address, command):
    code, out, err = run("memory", command, "mem", address)
    assert code == 2
    assert not re.search(r"secret|\bsec\b|sec/ret", (out + err).replace("[secret", ""))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_of_what_is_fetched(mem, tmp_path, number):
    """Killed while a server has sent the half."""
    half = WHOLE.replace(b"Length: 8", b"Length: 99999999") + b"1,2\n" * 500_000
    waiting = threading.Event()
    (place := tmp_path / "temporary").mkdir()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.csv"
        command = [sys.executable, "-m", "memento", "memory", "insert", "mem", address]
        default = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731 - nohup ignores it
        environment = {**os.environ, "TMPDIR": str(place)}
        with subprocess.Popen(command, env=environment, preexec_fn=default) as process:
            one, _ = server.accept()
            with one:
                one.recv(65_536)
                one.sendall(half)
                while not any(file.stat().st_size for file in place.glob("memento-*/*/a.csv")):
                    waiting.wait(0.01)
                process.send_signal(number)
                assert process.wait(60) == 128 + number
    assert not list(place.glob("memento-*"))


@pytest.mark.parametrize(
    "data", [b"y,x\n1,2\n3,4\n", as_parquet(y=[1, 3], x=[2, 4])], ids=["csv", "parquet"]
)
def test_standard_input(mem, run, monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("memory", "insert", "mem", "-")[0] == 0
    assert held(mem)["x"].tolist() == [2, 4]


def test_standard_input_that_is_empty(mem, run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    code, _, err = run("memory", "insert", "mem", "-")
    assert code == 2
    assert "standard input is empty" in err


def test_labels_and_predictions_come_from_elsewhere_too(mem, run, monkeypatch):
    Path("day.csv").write_text("id,x,y\n1,5,\n2,6,\n")
    assert run("memory", "insert", "mem", "day.csv", "--types", "y=float64")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"id,y\n2,1\n")))
    assert run("memory", "label", "mem", "-")[0] == 0
    assert np.array_equal(held(mem)["y"], [np.nan, 1], equal_nan=True)


# --- folders -----------------------------------------------------------------------------------


def hive(folder, days=("3", "10")):
    for i, day in enumerate(days):
        place = folder / f"day={day}" / "city=New%20York"
        place.mkdir(parents=True)
        (place / "part-0.csv").write_text(f"x\n{i}\n")
        (place / "notes.txt").write_text("no table")
    return folder


def test_folders_are_columns(mem, run, tmp_path):
    hive(tmp_path / "days")
    assert run("memory", "insert", "mem", "days")[0] == 0
    samples = held(mem)
    assert sorted(samples["day"].tolist()) == [3, 10]
    assert set(samples["city"]) == {"New York"}


def test_columns_of_folders_have_types_and_can_be_left_out(tmp_path):
    hive(tmp_path / "days", ("2026-01-07", "2026-01-08"))
    files = tables.expand([str(tmp_path / "days")])
    first = tables.read(files[0], reading=tables.parse_reading(["day=date"], None, None))
    assert first["day"].dtype == "M8[D]"
    assert [*tables.read(files[0], columns=["day"])] == ["day"]
    assert tables.read(files[0], columns=["day"])["day"].tolist() == ["2026-01-07"]
    inside = tmp_path / "days" / "day=2026-01-07" / "city=New%20York" / "part-0.csv"
    assert [*tables.read(inside)] == ["x"]  # named by itself it is a file like others
    inside.write_text("day,x\n5,1\n")
    assert tables.read(files[0])["day"].tolist() == [5]  # the file knows better


def test_other_folders_are_refused_as_ever(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.csv").write_text("x\n1\n")
    with pytest.raises(InputError, match="is a folder; name its files"):
        tables.expand([str(tmp_path / "plain")])


# --- in Python ---------------------------------------------------------------------------------


class Stream:
    """Nothing but a stream of Arrow's."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def test_batches_of_everything(tmp_path):
    import polars as pl

    table = pa.table({"y": range(10), "x": np.arange(10) / 2})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    dataset = datasets.dataset(tmp_path / "a.parquet")
    rows = table.to_pylist()
    for source in (
        tmp_path / "a.parquet",
        [tmp_path / "a.parquet"],
        str(tmp_path / "*.parquet"),
        tmp_path,
        dataset,
        dataset.scanner(),
        table,
        table.to_reader(),
        Stream(table),
        pl.DataFrame(table),
        pl.DataFrame(table).lazy(),
        rows,
        iter(rows),
        {"y": np.arange(10), "x": np.arange(10) / 2},
    ):
        parts = list(batches(source, rows=4, columns=["x", "y"]))
        assert max(part.size for part in parts) <= 4
        assert np.array_equal(np.concatenate([part["y"] for part in parts]), np.arange(10))
        assert [*parts[0]] == ["x", "y"]


def test_rows_that_are_mappings():
    assert Samples([{"a": 1, "b": "x"}, {"b": "y", "a": 2}])["b"].tolist() == ["x", "y"]
    with pytest.raises(InputError, match=r"row 1 has \['a'\], row 0 has \['a', 'b'\]"):
        Samples([{"a": 1, "b": 2}, {"a": 3}])


def test_batches_of_nothing(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        list(batches(tmp_path / "no.parquet"))
    with pytest.raises(StorageError, match="no file matches"):
        list(batches(str(tmp_path / "*.parquet")))
    with pytest.raises(InputError, match="give one or more"):
        list(batches([]))
    with pytest.raises(InputError):
        list(batches(5))


# --- databases ---------------------------------------------------------------------------------


@pytest.fixture
def days(tmp_path):
    """A database of ten days with labels that follow from x."""
    rng = np.random.default_rng(1)
    with sqlite3.connect(tmp_path / "days.db") as database:
        database.execute("create table days (day integer, x real, y integer)")
        rows = [(d, x, int(x > 0)) for d in range(8) for x in rng.normal(size=60).tolist()]
        database.executemany("insert into days values (?, ?, ?)", rows)
    return tmp_path / "days.db"


def test_a_query_fills_a_memory(mem, run, days):
    words = ("memory", "insert", "mem", "--sql", "select x, y from days where day = 3",
             "--from", "sqlite:///days.db")  # fmt: skip
    code, out, _ = run(*words, "--json")
    assert code == 0
    assert json.loads(out)["offered"] == 60
    assert held(mem)["y"].tolist() == (held(mem)["x"] > 0).astype(int).tolist()
    _, out, err = run(*words)
    assert "went in already" in err
    assert run(*words, "--again")[0] == 0
    assert held(mem).size == 120


def test_a_query_is_back_tested(mem, days, monkeypatch):
    """The stream is that of the table; what comes then is tested with files."""
    seen = []

    def try_stream(stream, *arguments, **options):
        seen.append(stream)
        raise InputError("seen")

    monkeypatch.setattr("memento.cli.backtest.try_stream", try_stream)
    code_of(
        *("backtest", "--sql", "select * from days", "--from", f"sqlite:///{days}"),
        *("--unit", "day", "--model", "logistic"),
    )
    (stream,) = seen
    assert [name for name, _ in stream] == [str(day) for day in range(8)]
    for _, unit in stream:
        order = np.argsort(unit["x"][:, 0])
        assert (np.diff(unit["y"][order]) >= 0).all()
        assert len(order) == 60


@pytest.mark.parametrize(
    ("sql", "uri", "code", "words"),
    [
        (
            "select from",
            "sqlite:///days.db",
            2,
            "the database refuses 'select from': .*syntax error",
        ),
        ("delete from days", "sqlite:///days.db", 2, "does not begin with SELECT"),
        ("with a as (select 1) delete from days", "sqlite:///days.db", 2, "readonly"),
        ("attach 'z.db' as z", "sqlite:///days.db", 2, "does not begin with SELECT"),
        ("select 1; select 2", "sqlite:///days.db", 2, "holds several statements; give one"),
        ("select 1", "host=db password=secret", 2, "an address of another form; known are"),
        ("select 1", "postgresql://me:secret%2@127.0.0.1:1/db", 2, "the database refuses"),
        ("select 1", "postgresql://me:sec/ret@127.0.0.1:1/db", 2, "the database refuses"),
        ("select 1", "sqlite:///no.db", 2, "no.db: no such database"),
        ("select 1", "oracle://host", 2, "kind 'oracle'; known are sqlite:///FILE"),
        ("select 1", None, 2, "--sql with --from|FILES, or --sql"),
        (None, "sqlite:///days.db", 2, "--sql with --from|FILES, or --sql"),
        ("select 1", "postgresql://me:secret@127.0.0.1:1/db", 2, "the database refuses"),
    ],
)
def test_queries_that_are_refused(mem, run, days, sql, uri, code, words):
    given = [*(["--sql", sql] if sql else []), *(["--from", uri] if uri else [])]
    found, _, err = run("memory", "insert", "mem", *given)
    assert found == code
    assert re.search(words, err)
    assert not re.search("secret|sec\\b", err)
    assert held(mem).size == 0
    assert not Path("z.db").exists()
    with sqlite3.connect(days) as database:
        assert database.execute("select count(*) from days").fetchone() == (480,)


def test_files_and_a_query_are_too_much(mem, run, days):
    Path("day.csv").write_text("x\n1\n")
    code, _, err = run("memory", "insert", "mem", "day.csv", "--sql", "select 1", "--from", "a")
    assert code == 2
    assert "give FILES, or --sql QUERY" in err


def test_a_query_in_python(days):
    with query("select x, y from days order by day", f"sqlite:///{days}") as found:
        sizes = [part.size for part in batches(found, rows=100)]
    assert sum(sizes) == 480
    assert max(sizes) <= 100
    with query("select count(*) as n from days", f"sqlite:///{days}") as found:
        assert Samples(found)["n"].tolist() == [480]


def test_columns_of_sqlite_whose_type_shows_late(mem, run, tmp_path):
    with sqlite3.connect(tmp_path / "late.db") as database:
        database.execute("create table late (x real)")
        database.executemany("insert into late values (?)", [(None,)] * 1500 + [(0.5,)])
        database.execute("create table mixed (v)")
        rows = [(1,)] * 100_000 + [(0.5,)]
        database.executemany("insert into mixed values (?)", rows)
    words = ("memory", "insert", "mem", "--from", "sqlite:///late.db", "--sql")
    assert run(*words, "select x from late where x > 0 or rowid > 10")[0] == 0
    assert np.nansum(held(mem)["x"]) == 0.5
    code, _, err = run(*words, "select v as x from mixed")
    assert code == 2
    assert "the database refuses 'select v as x from mixed': " in err
    assert "Type mismatch" in err
    assert "as in cast(x as real) as x" in err
    with (
        pytest.raises(StorageError, match="Type mismatch"),
        query("select v as x from mixed", "sqlite:///late.db") as found,
    ):
        found.read_all()
    with (
        pytest.raises(StorageError, match=r"^the database refuses [^:]*: [^:]*Type mismatch"),
        query("select v as x from mixed", "sqlite:///late.db") as found,
    ):
        Samples(found)
    with (
        pytest.raises(FileNotFoundError),
        query("select x from late", "sqlite:///late.db") as found,
    ):
        Path("no file of ours").read_text()  # what is not the database's is not said of it


@pytest.mark.parametrize(
    "sql",
    [
        "select ';' as a, 1 as b;  -- the end; truly",
        "/* days; */ with a as (select 1 as b) select b from a",
        "(select 1 as b)",
        "values (1)",
    ],
)
def test_queries_that_read(days, sql):
    if sql.startswith("("):
        sql = f"select * from {sql}"
    with query(sql, f"sqlite:///{days}") as found:
        assert found.read_all().num_rows == 1


def test_without_the_driver(days, monkeypatch):
    monkeypatch.setitem(sys.modules, "adbc_driver_sqlite.dbapi", None)
    with (
        pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[sql\]"'),
        query("select 1", f"sqlite:///{days}"),
    ):
        pass


@pytest.fixture(scope="module")
def postgres():
    """A server of PostgreSQL of its own, on this machine alone; its address."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (found and str(found[-1]))
    if not initdb:
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    root = os.geteuid() == 0
    # Apart from pytest's folders, to which every run of it on the machine shuts others out again.
    home = Path(tempfile.mkdtemp(prefix="memento-postgres-"))
    if root:
        try:
            shutil.chown(home, "postgres")
        except LookupError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    as_user = {"user": "postgres"} if root else {}

    def call(*words):
        subprocess.run(words, check=True, capture_output=True, cwd=home, timeout=60, **as_user)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, control = str(home / "data"), str(Path(initdb).with_name("pg_ctl"))
    options = f"-h 127.0.0.1 -p {port} -k {home} -c fsync=off"
    call(initdb, "-D", data, "-U", "memento", "--auth=trust", "--no-sync", "--encoding=UTF8")
    call(control, "-D", data, "-l", str(home / "log"), "-o", options, "-w", "start")
    yield f"postgresql://memento@127.0.0.1:{port}/postgres"
    call(control, "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(home)


def test_postgresql(mem, run, postgres):
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(postgres) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "create table days as select i as id, i * 0.5::float8 as x, i % 2 = 0 as y, "
                "timestamp '2026-01-07' + i * interval '1 hour' as at, 'text ' || i as note "
                "from generate_series(1, 100) as i"
            )
        connection.commit()
    words = ("memory", "insert", "mem", "--from", postgres, "--sql")
    assert run(*words, "select * from days where id <= 60")[0] == 0
    samples = held(mem)
    assert samples["x"].tolist() == [i * 0.5 for i in range(1, 61)]
    assert samples["y"].dtype == bool
    assert samples["at"][0] == np.datetime64("2026-01-07T01:00")
    assert samples["note"][-1] == "text 60"
    run(*words, "with gone as (delete from days returning id) select * from gone")
    with driver.connect(postgres) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from days")
        assert cursor.fetchone() == (100,)
    code, _, err = run(*words, "select nothing from days")
    assert code == 2
    assert 'column "nothing" does not exist' in err


def test_numbers_and_times_of_postgresql(mem, run, postgres):
    words = ("memory", "insert", "mem", "--from", postgres, "--sql")
    both = "select 1.25::numeric as price, sum(i::bigint) as total from generate_series(1, 3) as i"
    assert run(*words, both)[0] == 0
    assert held(mem)["price"].tolist() == [1.25]
    assert held(mem)["total"].tolist() == [6.0]
    with query(both, postgres) as found:
        assert Samples(found)["total"].tolist() == [6.0]
    more = "select avg(i) as price, 1.5::float8 as total from (values (3), (3), (4)) as t (i)"
    code, _, err = run(*words, more)
    assert code == 2
    assert "float64 does not keep its 3.3333333333333333" in err
    assert "price::float8" in err
    assert "--types price=float64" in err
    assert run(*words, more, "--types", "price=float64")[0] == 0
    assert held(mem)["price"].tolist() == [1.25, 10 / 3]
    with query(more, postgres) as found, pytest.raises(SchemaError, match=r"price::float8$"):
        Samples(found)
    for sign in ("", "-"):
        for kind in ("timestamp", "timestamptz", "date"):
            endless = f"select '{sign}infinity'::{kind} as price, 1::float8 as total"
            code, _, err = run(*words, endless)
            assert code == 2, (sign, kind)
            assert "column 'price' holds infinity, which is no time" in err
            assert "nullif(price, 'infinity')" in err
            with query(endless, postgres) as found, pytest.raises(SchemaError, match="infinity"):
                Samples(found)
    with query("select '9999-12-31'::timestamp as a, '0001-01-01'::date as b", postgres) as found:
        assert str(Samples(found)["a"][0])[:10] == "9999-12-31"


def test_a_query_of_postgresql_that_fails_on_the_way(mem, run, postgres):
    failing = "select 1 / (i - 200000) as x from generate_series(1, 300000) as i"
    code, _, err = run("memory", "insert", "mem", "--from", postgres, "--sql", failing)
    assert code == 2
    assert "the database refuses 'select 1" in err
    assert "division by zero" in err
    with pytest.raises(StorageError, match="division by zero"), query(failing, postgres) as found:
        found.read_all()
