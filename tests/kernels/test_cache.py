"""The compiler's cache decides how long something takes, never whether it works."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from memento._kernels import _cache, kernel

pytestmark = pytest.mark.compiled


@pytest.fixture
def fresh(monkeypatch):
    """A process as it starts, with the given folder named for compiled code."""

    def start(folder):
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
        monkeypatch.setattr(_cache, "_news", _cache._News())
        _cache.folder_of_code.cache_clear()

        @kernel()
        def double(x):
            return x + x

        return double

    yield start
    _cache.folder_of_code.cache_clear()


def hits(compiled):
    return sum(compiled.stats.cache_hits.values())


def warnings_in(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_code_is_kept_and_found_again(fresh, tmp_path, caplog):
    assert fresh(tmp_path / "new" / "cache")(2) == 4
    again = fresh(tmp_path / "new" / "cache")
    assert again(3) == 6
    assert hits(again) == 1
    assert again(1.5) == 3.0
    assert hits(again) == 1, "of other types"
    assert len(list(tmp_path.rglob("*.nbc"))) == 2
    assert not warnings_in(caplog)


def test_of_another_processor_or_source_it_is_not_looked_at(fresh, tmp_path, monkeypatch):
    fresh(tmp_path)(2)
    monkeypatch.setattr(_cache, "_text_beside", lambda source: "changed")
    other = fresh(tmp_path)
    assert other(2) == 4
    assert hits(other) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\0" * 4000,
        pickle.dumps({"not": "code"}),
        pickle.dumps(print),
        "halved",
        "turned",
    ],
    ids=["empty", "short", "zeros", "dict", "function", "halved", "turned"],
)
def test_damaged_code_is_compiled_again(fresh, tmp_path, caplog, content):
    fresh(tmp_path)(2)
    (path,) = tmp_path.rglob("*.nbc")
    whole = path.read_bytes()
    if content == "halved":
        content = whole[: len(whole) // 2]
    elif content == "turned":
        content = whole[:-700] + bytes([whole[-700] ^ 1]) + whole[-699:]
    path.write_bytes(content)
    assert fresh(tmp_path)(2) == 4
    assert len(warnings_in(caplog)) == (1 if content else 0)
    mended = fresh(tmp_path)
    assert mended(2) == 4
    assert hits(mended) == 1


def test_whole_files_of_something_else_do_not_matter(fresh, tmp_path, caplog):
    """Well-formed in the eyes of the digest, and yet no code."""
    fresh(tmp_path)(2)
    (path,) = tmp_path.rglob("*.nbc")
    for value in ([], {"a": 1}, (1, 2, 3)):
        data = pickle.dumps(value)
        path.write_bytes(_cache.hashlib.sha256(data).digest() + data)
        assert fresh(tmp_path)(2) == 4


def test_a_file_in_place_of_the_folder(fresh, tmp_path, caplog):
    (tmp_path / "cache").write_text("mine")
    double = fresh(tmp_path / "cache")
    assert (double(2), double(2.5)) == (4, 5.0)
    (warning,) = warnings_in(caplog)
    assert "NUMBA_CACHE_DIR" in warning
    assert (tmp_path / "cache").read_text() == "mine"


@pytest.mark.parametrize("step", ["mkstemp", "TemporaryFile"])
def test_a_full_disk(fresh, tmp_path, caplog, monkeypatch, step):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_cache.tempfile, step, full)
    double = fresh(tmp_path)
    assert (double(2), double(2.5)) == (4, 5.0)
    (warning,) = warnings_in(caplog)
    assert "No space left" in warning
    assert "NUMBA_CACHE_DIR" in warning
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_was_filled_before_serves_without_the_right_to_write(
    fresh, tmp_path, caplog, monkeypatch
):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    fresh(tmp_path)(2)
    monkeypatch.setattr(_cache.tempfile, "TemporaryFile", refused)
    double = fresh(tmp_path)
    assert double(2) == 4
    assert hits(double) == 1
    assert not warnings_in(caplog)


def test_without_a_home(fresh, monkeypatch, tmp_path, caplog):
    """Nothing is made in a folder called ~ where one happens to stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_cache, "__file__", "/proc/none/x.py")
    for user in ("~/.cache", "/proc/none/.cache"):
        monkeypatch.setattr(
            _cache, "AppDirs", lambda *a, user=user, **k: type("D", (), {"user_cache_dir": user})
        )
        caplog.clear()
        assert fresh("")(2) == 4
        assert len(warnings_in(caplog)) == 1
    assert not list(tmp_path.iterdir())


def test_a_relative_folder_is_where_the_process_stood_first(fresh, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    double = fresh("cache")
    double(2)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    double(2.5)
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 2
    assert not list((tmp_path / "elsewhere").iterdir())


def test_long_compiling_is_told_once(fresh, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="memento")
    monkeypatch.setattr(_cache, "_NOTABLE", 0.0)
    double = fresh(tmp_path)
    double(2)
    double(2.5)
    (record,) = caplog.records
    assert str(tmp_path) in record.getMessage()
    fresh(tmp_path)(2)
    assert len(caplog.records) == 1, "nothing was compiled"


def test_processes_that_compile_at_the_same_time(tmp_path):
    """Other argument types each, and the same: none takes the code of another."""
    script = (
        "import sys, numpy as np; from memento._kernels import summaries;"
        "kind = sys.argv[1];"
        "rows = np.arange(6, dtype=kind); out = np.zeros((2, 6));"
        "order, offsets = np.arange(6), np.array([0, 3, 6]);"
        "summaries.label_frequencies(rows, rows[:0], order, offsets, out);"
        "assert out[0, 0] == 1 / 3 and out[1, 5] == 1 / 3, out"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        running = [
            subprocess.Popen([sys.executable, "-c", script, kind], env=environment)
            for kind in ("i8", "u1", "i2", "i8")
        ]
        assert [process.wait() for process in running] == [0] * 4
    assert len(list(tmp_path.rglob("*.nbc"))) == 3
    assert not list(tmp_path.rglob("*.tmp"))


def test_every_kernel_is_kept_in_this_way():
    """By one door, so that none of them fails for want of a place."""
    folder = Path(_cache.__file__).parent
    users = {path.name for path in folder.glob("*.py") if "njit" in path.read_text()}
    assert users == {"__init__.py"}
