"""Tables of reports: what is damaged is named, and published numbers are read as they stand."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from memento.errors import DamagedError, SettingError
from memento.report.tables import Published, flags, read


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1 and then nothing of the kind PAR1")
    with pytest.raises(DamagedError, match=r"table.parquet is damaged.*do this"):
        read(path, "do this")


def test_published_numbers(tmp_path):
    path = tmp_path / "published.csv"
    rows = [
        ("speed", "a", "", "", "rate", "2.5", "2", "3", "m/s", "yes", "A book"),
        ("speed", "b", "", "", "rate", "1e-05", "", "", "m/s", "", "A book, in part"),
        ("height", "a", "x", "", "top", "-3", "", "", "m", "", "B"),
    ]
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([Published.COLUMNS, *rows])
    published = Published(path)
    assert published.topics() == ["speed", "height"]
    found = published()
    assert found["value"].tolist() == [2.5, 1e-5, -3]
    assert found["read_off_plot"].tolist() == [True, False, False]
    assert np.isnan(found["low"]).tolist() == [False, True, True]
    assert published("speed", subject="b")["source"].tolist() == ["A book, in part"]
    assert published.by("subject", topic="speed", value="high")[("a",)] == 3
    with pytest.raises(SettingError, match=r"'depth'; there is speed, height"):
        published("depth")
    with pytest.raises(SettingError, match=r"no column 'arm'"):
        published(arm="a")


def test_flags():
    assert flags(["True", "false", "1", "0"]).tolist() == [True, False, True, False]
    assert flags(np.array([True, False])).tolist() == [True, False]
