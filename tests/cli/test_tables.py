"""Files as people have them: every value arrives as it was written, or the file is refused."""

from __future__ import annotations

import datetime as dt
import decimal
import gzip
import io
import random
import resource
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memento import FIFO, Memory, Samples
from memento.cli import tables
from memento.errors import DamagedError, MementoError, SchemaError, SettingError, StorageError

BIG = 2**53 + 1


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name, data, columns=None, types=(), separator=None, encoding=None, maps=()):
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return tables.read(
        Path(name),
        [tables.parse_map(text) for text in maps],
        columns,
        reading=tables.parse_reading(types, separator, encoding),
    )


def lists(samples):
    return {name: column.tolist() for name, column in samples.items()}


# ----------------------------------------------------------------------------------- delimited text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", "y,x\n1,2\n3,4\n"),
        ("A.CSV", "y,x\n1,2\n3,4\n"),
        ("a.TSV", "y\tx\n1\t2\n3\t4\n"),
        ("a.csv", "y;x\n1;2\n3;4\n"),
        ("a.csv", "y|x\n1|2\n3|4\n"),
        ("a.csv", "y\tx\n1\t2\n3\t4\n"),
        ("a.csv", "y,x\r\n1,2\r\n3,4\r\n"),
        ("a.csv", "\n\ny,x\n\n1,2\n\n3,4\n\n"),
        ("a.csv", '"y","x"\n"1","2"\n"3","4"'),
        ("a.csv", "\ufeffy,x\n1,2\n3,4\n".encode()),
        ("a.csv", "y,x\n1,2\n3,4\n".encode("utf-16")),
        ("a.csv", "y;x\n1;2\n3;4\n".encode("utf-16")),
        ("a.csv.gz", gzip.compress(b"y;x\n1;2\n3;4\n", mtime=0)),
        ("A.TSV.GZ", gzip.compress(b"y\tx\n1\t2\n3\t4\n", mtime=0)),
    ],
)
def test_text_in_many_forms(name, data):
    assert lists(read(name, data)) == {"y": [1, 3], "x": [2, 4]}


def test_text_in_other_encodings():
    data = "y,name\n1,Zürich\n".encode("latin-1")
    with pytest.raises(SchemaError, match=r"'name' holds text that is not UTF-8.*--encoding"):
        read("a.csv", data)
    assert read("a.csv", data, encoding="latin-1")["name"].tolist() == ["Zürich"]
    with pytest.raises(SchemaError, match=r"the first line is not UTF-8.*--encoding"):
        read("a.csv", "y,Zürich\n1,2\n".encode("latin-1"))
    data = "y,name\n1,Zürich\n".encode("utf-16-le")
    with pytest.raises(SchemaError, match=r"--encoding utf-16-le"):
        read("a.csv", data)
    assert read("a.csv", data, encoding="utf-16-le")["name"].tolist() == ["Zürich"]


def test_line_breaks_in_quotes_of_any_number_and_size():
    rows = [f"one\nanother, {i}" for i in range(40_000)] + ["long\n" * 1_000_000]
    data = "y,note\n" + "".join(f'{i},"{row}"\n' for i, row in enumerate(rows))
    samples = read("a.csv", data, columns=["y"])
    assert samples["y"].tolist() == list(range(len(rows)))
    with pytest.raises(SchemaError, match=r"'note' has texts of up to 5,000,000.*--columns"):
        read("a.csv", data)


def test_separators_that_cannot_be_told():
    with pytest.raises(SchemaError, match=r"first line is 'a;b'.*--separator ';'"):
        read("a.csv", "a;b\n1;2;3\n1\n")
    assert lists(read("a.csv", "a:b\n1:2\n", separator=":")) == {"a": [1], "b": [2]}
    assert lists(read("a.csv", "a\n1\n2\n")) == {"a": [1, 2]}
    assert lists(read("a.csv", 'a,b\n"1;2",3\n')) == {"a": ["1;2"], "b": [3]}


@pytest.mark.parametrize("separator", ["", "ab", "ü"])
def test_what_is_no_separator(separator):
    with pytest.raises(SettingError, match=r"--separator"):
        tables.parse_reading((), separator, None)


def test_words_for_types_and_encodings():
    with pytest.raises(SettingError, match=r"--types 'x' has another form than NAME=TYPE"):
        tables.parse_reading(["x"], None, None)
    with pytest.raises(SettingError, match=r"with a TYPE of text, bool"):
        tables.parse_reading(["x=number"], None, None)
    with pytest.raises(SettingError, match=r"--encoding 'klingon' is not known"):
        tables.parse_reading((), None, "klingon")
    assert tables.parse_reading(["a=b=text"], None, None).types == {"a=b": "text"}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "2"], [1, 2]),
        ([str(2**63 + 1), "2"], [2**63 + 1, 2]),
        ([str(-BIG), "+5"], [-BIG, 5]),
        ([f"{BIG}.0", "1"], [BIG, 1]),
        ([str(BIG), "", "1"], "no mark for them"),
        ([str(BIG), "0.5"], "mixes fractions with integers above"),
        ([str(2**64), "1"], "integers beyond 64 bits"),
        ([str(-1), str(2**63)], "integers beyond 64 bits"),
        (["1e400", "1"], "beyond the range of float64"),
        (["1e300", "inf", "0.5"], [1e300, np.inf, 0.5]),
        (["12:30:00", "13:00"], ["12:30:00", "13:00"]),
        (["007", "x"], ["007", "x"]),
        (["2024-01-01"], [dt.date(2024, 1, 1)]),
        (["2024-01-01T00:00:00+02:00"], [dt.datetime(2023, 12, 31, 22)]),
        (["true", "false"], [True, False]),
        (["1", "NA", "2"], [1.0, np.nan, 2.0]),
        (["", ""], [np.nan, np.nan]),
    ],
)
def test_values_of_text(texts, expected):
    data = "y,x\n" + "".join(f"0,{text}\n" for text in texts)
    if isinstance(expected, str):
        with pytest.raises(SchemaError, match=f"'x' .*{expected}.*--types x=text"):
            read("a.csv", data)
        types = ["x=text"]
        assert read("a.csv", data, types=types)["x"].tolist() == texts
        return
    np.testing.assert_array_equal(read("a.csv", data)["x"].tolist(), expected)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1,5", "-2,25"], [1.5, -2.25]),
        (["1,5", "3"], [1.5, 3]),
        (["1,5", ""], [1.5, np.nan]),
        (["1,5", "a"], ["1,5", "a"]),
        (["1,234", "5,678"], "may have decimal commas, or commas between thousands"),
    ],
)
def test_decimal_commas(texts, expected):
    data = "y;x\n" + "".join(f"0;{text}\n" for text in texts)
    if isinstance(expected, str):
        with pytest.raises(SchemaError, match=expected):
            read("a.csv", data)
        return
    np.testing.assert_array_equal(read("a.csv", data)["x"].tolist(), expected)


def test_types_of_text():
    data = "y,x,z,t\n007,1,5,2024-01-01\n"
    samples = read("a.csv", data, types=["y=text,x=float64", "t=datetime", "z=int8"])
    assert samples["y"].tolist() == ["007"]
    assert [samples[name].dtype for name in "xtz"] == [np.float64, "M8[us]", np.int8]
    with pytest.raises(SchemaError, match=r"conversion error to int8.*--types"):
        read("a.csv", "y\n300\n", types=["y=int8"])
    stacked = read("a.csv", "a,b\n1,2\n", types=["x=float32"], maps=["x=a,b"])
    assert stacked["x"].dtype == np.float32


def test_names_of_columns():
    assert lists(read("a.csv", ",x\n0,1\n", columns=["x"])) == {"x": [1]}
    with pytest.raises(SchemaError, match=r"column 1 has no name .*--columns"):
        read("a.csv", ",x\n0,1\n")
    assert lists(read("a.csv", "x,x,y\n0,1,2\n", columns=["y"])) == {"y": [2]}
    with pytest.raises(SchemaError, match=r"'x' stand in the file twice"):
        read("a.csv", "x,x,y\n0,1,2\n")
    with pytest.raises(SchemaError, match=r"no rows"):
        read("a.csv", "x,y\n")
    with pytest.raises(DamagedError):
        read("a.csv", "\n\n")


def test_wide_text_takes_time_in_proportion():
    seconds = []
    for columns in (2_000, 16_000):
        names = [f"c{i}" for i in range(columns)]
        data = ",".join(names) + ("\n" + ",".join(["1"] * columns)) * 3 + "\n"
        start = time.process_time()
        assert read("a.csv", data, maps=["x=c*"])["x"].shape == (3, columns)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * 5 * seconds[0]


def test_a_name_line_longer_than_any_block():
    names = [f"column-{i}-{'x' * 50}" for i in range(30_000)]
    data = ",".join(names) + "\n" + ",".join(["1"] * len(names)) + "\n"
    assert read("a.csv", data, columns=names[-1:])[names[-1]].tolist() == [1]


def test_a_small_file_that_unpacks_to_gigabytes(monkeypatch):
    monkeypatch.setattr("memento.cli.delimited.LARGE", 1 << 20)
    with pytest.raises(SchemaError, match=r"over 100 times its size"):
        read("a.csv.gz", gzip.compress(b"x,y\n" + b"1,1\n" * 2_000_000, mtime=0))


# -------------------------------------------------------------------------------------- other files


@pytest.mark.parametrize("ending", ["parquet", "PARQUET", "arrow", "feather", "npz", "NPZ"])
def test_every_column_comes_back(ending):
    days = np.array(["2024-01-01", "NaT"], "M8[s]")
    columns = {"file": [1, 2], "allow_pickle": [0.5, np.nan], "a.npy": ["a", "b"], "day": days}
    samples = Samples(columns, wide=np.arange(8.0).reshape(2, 2, 2))
    file = Path(f"a.{ending}")
    tables.write(file, samples)
    back = tables.read(file)
    assert set(back) == set(samples)
    for name, column in samples.items():
        np.testing.assert_array_equal(back[name], column)


def test_types_that_a_format_lacks():
    for ending in ("parquet", "csv"):
        with pytest.raises((SchemaError, SettingError), match=r"'z' .*NPZ|'z' .*npz"):
            tables.write(Path(f"a.{ending}"), Samples(z=[1j]))
    with pytest.raises(SettingError, match=r"zero byte in its name"):
        tables.write(Path("a.npz"), Samples({"a\0b": [1]}))


@pytest.mark.parametrize(
    ("column", "word", "expected"),
    [
        (pa.array([decimal.Decimal("1.50")]), "float64", [1.5]),
        (pa.array([decimal.Decimal("1.50")]), "text", ["1.50"]),
        (pa.array([dt.time(12)]), "text", ["12:00:00.000000"]),
        (pa.array([1, None]), None, [1.0, np.nan]),
        (pa.array(["a", None]), None, ["a", ""]),
        (pa.array([1]), "text", ["1"]),
        (pa.array([1.5]), "int64", "truncated"),
        (pa.array([BIG]), "float64", "not in range"),
        (pa.array(["a"]), "int64", "cannot be read as int64"),
        (pa.array([decimal.Decimal("1.50")]), None, "decimal128"),
        (pa.array([{"a": 1}]), None, "struct"),
    ],
)
def test_types_of_parquet(column, word, expected):
    pa.parquet.write_table(pa.table({"x": column, "y": [0] * len(column)}), "a.parquet")
    reading = tables.parse_reading([f"x={word}"] if word else [], None, None)
    if isinstance(expected, str):
        with pytest.raises(SchemaError, match=f"a.parquet: .*'x'.*{expected}.*--types"):
            tables.read(Path("a.parquet"), reading=reading)
        return
    found = tables.read(Path("a.parquet"), reading=reading)["x"].tolist()
    np.testing.assert_array_equal(found, expected)


def test_types_of_npz():
    np.savez("a.npz", i=[1], f=[0.5], s=["7"])
    reading = tables.parse_reading(["i=text", "f=float32", "s=int64"], None, None)
    assert lists(tables.read(Path("a.npz"), reading=reading)) == {"i": ["1"], "f": [0.5], "s": [7]}
    for wrong in ("f=int64", "s=bool"):
        reading = tables.parse_reading([wrong], None, None)
        with pytest.raises(SchemaError, match=r"cannot be read as|--types"):
            tables.read(Path("a.npz"), reading=reading)


def test_stacks_of_several_types():
    np.savez("a.npz", a=np.array([BIG]), b=[1], c=[0.5])
    stacked = tables.read(Path("a.npz"), [tables.parse_map("x=a,b")])["x"]
    assert stacked.tolist() == [[BIG, 1]]
    with pytest.raises(SchemaError, match=f"'x' is int64 and float64.*{BIG}.*--types x="):
        tables.read(Path("a.npz"), [tables.parse_map("x=a,b,c")])


def test_files_of_several_types():
    files = [Path("a.npz"), Path("b.npz")]
    parts = [Samples(x=[1]), Samples(x=[0.5])]
    assert tables.join(files, parts)["x"].tolist() == [1, 0.5]
    for other in (["a"], [BIG]):
        with pytest.raises(SchemaError, match=r"'x' is .* in a.npz.*--types x=text"):
            tables.join(files, [Samples(x=[0.5]), Samples(x=other)])


def test_maps_that_miss_or_take_columns():
    np.savez("a.npz", a=[1], b=[2])
    with pytest.raises(SchemaError, match=r"'bb', which --map z=a,bb names, is missing"):
        tables.read(Path("a.npz"), [tables.parse_map("z=a,bb")])
    found = tables.read(Path("a.npz"), [tables.parse_map("z=a,b")], ["z", "b"])
    assert lists(found) == {"z": [[1, 2]], "b": [2]}


# ------------------------------------------------------------------------------------ damaged files


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy_of(shape, dtype="<f8", content=b""):
    """An archive whose only array says what it likes of itself."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode("latin-1")
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        npy_of((2**40,)),
        npy_of((-1,)),
        npy_of((2**62, 8)),
        npy_of((2**60, 0)),
        npy_of((2**60,), "|V0"),
        npy_of((1,), "<f8", b"1234"),
        npy_of((1,), "nonsense", b"12345678"),
        npy_of("text"),
        npz(x=np.zeros(3))[:-30],
        b"PK\x03\x04 no archive",
    ],
)
def test_archives_that_lie(data):
    with pytest.raises(DamagedError, match=r"a.npz"):
        read("a.npz", data)


def test_archives_of_gigabytes(monkeypatch):
    monkeypatch.setattr("memento.cli.delimited.LARGE", 1 << 20)
    with pytest.raises(SchemaError, match=r"over 100 times its size.*--columns"):
        read("a.npz", npz(x=np.zeros(1 << 20)))
    table = pa.table({"x": np.zeros(1 << 20)})
    for write in (
        pa.parquet.write_table,
        lambda table, path: pa.feather.write_feather(table, path, compression="zstd"),
    ):
        write(table, "a.parquet" if write is pa.parquet.write_table else "a.arrow")
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(SchemaError, match=r"over 100 times its size"):
            tables.read(Path(name))


def test_a_column_of_nothing_that_is_endless():
    batch = pa.record_batch({"x": pa.nulls(2**30)})
    with pa.ipc.new_file("a.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(SchemaError, match=r"over 100 times its size"):
        tables.read(Path("a.arrow"))


def _wholes() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    columns = {
        "y": rng.integers(0, 5, 60), "x": rng.normal(size=60), "s": [f"word{i}" for i in range(60)],
        "l": [[1, 2]] * 60, "d": np.arange(60).astype("M8[s]"), "b": rng.random(60) < 0.5,
    }  # fmt: skip
    table = pa.table({**columns, "c": pa.array(columns["s"]).dictionary_encode()})
    found = {"a.npz": npz(**{name: np.asarray(column) for name, column in columns.items()})}
    for compression in ("lz4", "zstd", "uncompressed"):
        sink = io.BytesIO()
        pa.feather.write_feather(table, sink, compression=compression)
        found[f"{compression}.feather"] = sink.getvalue()
    stream, parquet, text = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    pa.parquet.write_table(table, parquet)
    pa.csv.write_csv(table.drop_columns(["l"]), text)
    found |= {"stream.arrow": stream.getvalue(), "a.parquet": parquet.getvalue()}
    found |= {"a.csv": text.getvalue(), "a.csv.gz": gzip.compress(text.getvalue())}
    return found


WHOLE = _wholes()


@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_said_at_a_cost_in_proportion(name, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chance = random.Random(7)
    file = tmp_path / name
    for number in range(150):
        data = bytearray(WHOLE[name])
        for _ in range(chance.choice((1, 4, 16))):
            data[chance.randrange(len(data))] = chance.choice((0, 255, chance.randrange(256)))
        file.write_bytes(data[: chance.randrange(len(data))] if number % 10 == 0 else data)
        try:
            tables.read(file)
        except (StorageError, SchemaError) as error:
            message = str(error)
        else:
            continue
        assert name in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 19  # kB


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.csv", "a.tsv", "a.csv.gz", "a.npz", "a.arrow"]))
def test_any_bytes(tmp_path_factory, data, name):
    file = tmp_path_factory.mktemp("any") / name
    file.write_bytes(data)
    try:
        samples = tables.read(file)
    except MementoError as error:
        message = str(error)
    else:
        assert samples.size > 0
        return
    assert name in message


# ---------------------------------------------------------------------------------- into a memory


def test_text_that_is_held_stays_text():
    memory = Memory(10, FIFO())
    memory.insert(zip=["007"])
    reading = tables.parse_reading((), None, None).like(memory.samples)
    Path("a.csv").write_text("zip\n008\n")
    assert tables.read(Path("a.csv"), reading=reading)["zip"].tolist() == ["008"]
