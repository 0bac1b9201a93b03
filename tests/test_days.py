"""Days by name: one form, ranges, and nothing that merely looks like a day."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.days import day_of, days_from, is_day, parse_days
from memento.errors import DamagedError, SettingError


def test_days_are_parsed():
    assert parse_days("2021-10-17") == ("2021-10-17",)
    assert parse_days(["2021-10-18..2021-10-20", " 2021-10-17 , 2021-10-19"]) == (
        *("2021-10-17", "2021-10-18", "2021-10-19", "2021-10-20"),
    )
    assert parse_days("2024-02-28..2024-03-01")[1] == "2024-02-29"


@pytest.mark.parametrize(
    "bad",
    ["", "2021-02-30", "2021-10-17..", "..2021-10-17", "2021-10-18..2021-10-17", "2021-10-17...",
     "17.10.2021", "2021-1-7", "0001-01-01..9999-12-30", "2021-10-17..2021-10-18..2021-10-19",
     [], [20211017], ["2021-10-17", None], "9999-12-31"],
)  # fmt: skip
def test_days_that_do_not_exist_are_refused(bad):
    with pytest.raises(SettingError):
        parse_days(bad)


@given(st.dates(dt.date(2019, 1, 1), dt.date(2024, 1, 1)), st.integers(0, 400))
def test_a_range_has_every_day_once(first, count):
    last = first + dt.timedelta(days=count)
    found = parse_days(f"{first}..{last}")
    assert (found[0], found[-1], len(found)) == (str(first), str(last), count + 1)
    assert list(found) == sorted(set(found))
    assert parse_days(reversed(found)) == found


@pytest.mark.parametrize("text", ["2022-9-20", "20220920", "2022-W01-1", "२०२२-०९-२०", "", None, 7])
def test_what_is_no_day_is_named(text):
    with pytest.raises(DamagedError, match=r"days\.csv is .*; expected a day such as 2021-10-17"):
        day_of(text, "days.csv", DamagedError)
    assert not is_day(text)


def test_days_end_with_the_calendar():
    assert days_from("9999-12-29", 2) == ["9999-12-29", "9999-12-30"]
    with pytest.raises(SettingError, match="beyond the year 9999"):
        days_from("9999-12-29", 4)
