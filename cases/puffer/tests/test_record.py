"""The published record of the deployment, and the numbers that were derived from it."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from memento.errors import DamagedError, ForeignError, StorageError
from memento.samples import Samples
from memento_puffer.deployment.record import COLUMNS, NEW_METRIC, between, read_record, summary


@pytest.fixture(scope="module")
def record(data_folder):
    return read_record(data_folder / "puffer-deployment.csv")


def days_of(table, variant, horizon):
    rows = (table["variant"] == variant) & (table["horizon"] == horizon) & table["retrained"]
    return (table["day"][rows] - np.datetime64("2022-09-19")).astype(int).tolist()


def test_size(record):
    assert record.size == 4427
    assert len(np.unique(record["day"])) == 443
    assert set(record["variant"]) == {"default", "deterministic"}


def test_days_of_the_trainings(record):
    found = between(record, NEW_METRIC, dt.date(2023, 7, 16))
    assert days_of(found, "default", 0) == [1, 3, 7, 8, 116, 215, 220]
    wanted = [1, 2, 6, 7, 8, 14, 25, 51, 52, 55, 105, 116, 119, 120]
    assert days_of(found, "deterministic", 0) == wanted


def test_numbers_of_trainings(record):
    before = summary(between(record, last=dt.date(2022, 9, 18)))
    after = summary(between(record, dt.date(2022, 9, 19), dt.date(2023, 7, 16)))
    assert before["retrained"].tolist() == [5] * 5 + [10] * 5
    assert after["retrained"].tolist() == [7, 7, 5, 8, 5, 14, 18, 16, 17, 13]


def test_distribution_of_the_increase(record):
    found = summary(between(record, dt.date(2023, 1, 1), dt.date(2023, 7, 16)))
    published = {
        "p10": [0.047, 0.047, 0.050, 0.050, 0.045, 0.064, 0.072, 0.056, 0.068, 0.073],
        "median": [0.060, 0.058, 0.063, 0.061, 0.052, 0.082, 0.087, 0.080, 0.084, 0.084],
        "p90": [0.079, 0.077, 0.077, 0.076, 0.064, 0.093, 0.097, 0.095, 0.096, 0.096],
        "largest": [0.115, 0.107, 0.103, 0.093, 0.104, 0.108, 0.110, 0.124, 0.142, 0.127],
    }
    for name, values in published.items():
        np.testing.assert_allclose(found[name], values, atol=6e-4, err_msg=name)


def test_coverage_at_the_end(record):
    found = summary(between(record, last=dt.date(2023, 7, 16)))["total_coverage"]
    wanted = [58.5, 59.7, 60.6, 62.1, 59.9, 17.7, 17.7, 20.5, 17.4, 17.5]
    np.testing.assert_allclose(found, wanted, atol=0.06)


def test_the_first_day_of_the_new_metric(record):
    rows = (record["day"] == np.datetime64(NEW_METRIC)) & (record["horizon"] == 0)
    np.testing.assert_allclose(record["coverage_increase"][rows], [0.322, 0.345], atol=6e-4)
    product = record["coverage_increase"] * record["total_coverage"]
    known = np.isfinite(product)
    np.testing.assert_allclose(product[known], record["total_coverage_increase"][known])


HEADER = ",".join(COLUMNS)
LINE = "default,0,2022-05-01,True,1.0,,"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ForeignError, "the header is"),
        ("a,b\n", ForeignError, "expected variant,horizon"),
        (f"{HEADER}\n{LINE}\n{LINE}\n", DamagedError, "line 3: this day is there twice"),
        (f"{HEADER}\ndefault,0,None,True,1.0,,\n", DamagedError, "line 2 is 'None'"),
        (f"{HEADER}\ndefault,0,2022-05-01,yes,1.0,,\n", DamagedError, "yes"),
        (f"{HEADER}\ndefault,0,2022-05-01,True,1.5,,\n", DamagedError, "seven values"),
        (f"{HEADER}\ndefault,0,2022-05-01,True,nan,,\n", DamagedError, "seven values"),
        (f"{HEADER}\ndefault,0,2022-05-01,True\n", DamagedError, "line 2"),
        (f"{HEADER}\ndefault,x,2022-05-01,True,1.0,,\n", DamagedError, "line 2"),
    ],
)
def test_records_that_are_none(tmp_path, text, error, message):
    path = tmp_path / "record.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        read_record(path)


def test_no_file(tmp_path):
    with pytest.raises(StorageError):
        read_record(tmp_path / "absent.csv")


def test_a_record_without_rows(tmp_path):
    path = tmp_path / "record.csv"
    path.write_text(HEADER + "\n")
    table = read_record(path)
    assert isinstance(table, Samples)
    assert summary(table).size == 0
