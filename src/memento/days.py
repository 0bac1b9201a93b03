"""Days by their names, such as 2021-10-17, and ranges of them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import Any

from memento.errors import MementoError, SettingError

__all__ = ["day_of", "days_from", "is_day", "parse_days"]

_MOST = 10_000


def day_of(text: Any, where: str = "day", error: type[MementoError] = SettingError) -> dt.date:
    """A date from text such as 2021-10-17, and from nothing else.

    Args:
        text: What ought to name a day that has a day after it.
        where: What it is called in the message.
        error: Class of the error to raise.

    Raises:
        SettingError: Text of another form (or the error asked for).

    Example:
        >>> day_of("2022-09-20")
        datetime.date(2022, 9, 20)
    """
    try:
        if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            raise ValueError("not of the form YYYY-MM-DD")
        day = dt.date.fromisoformat(text)
        return day + dt.timedelta(days=1) - dt.timedelta(days=1)  # overflows after the last
    except (ValueError, OverflowError) as reason:
        raise error(f"{where} is {text!r} ({reason}); expected a day such as 2021-10-17") from None


def is_day(text: Any) -> bool:
    """Whether text names a day.

    Example:
        >>> is_day("2022-09-20"), is_day("2022-09-31"), is_day("report")
        (True, False, False)
    """
    try:
        day_of(text)
    except SettingError:
        return False
    return True


def days_from(first: str, count: int) -> list[str]:
    """Names of so many days from a first one on.

    Raises:
        SettingError: The first is no day, or the last would lie after the year 9999.

    Example:
        >>> days_from("2022-02-28", 2)
        ['2022-02-28', '2022-03-01']
    """
    start = day_of(first)
    try:
        return [str(start + dt.timedelta(days=i)) for i in range(count)]
    except OverflowError:
        raise SettingError(f"{count:,} days from {first} on go beyond the year 9999") from None


def parse_days(days: str | Iterable[str]) -> tuple[str, ...]:
    """Days from a text such as "2021-10-17", "2021-10-17..2021-10-23", or several of them.

    Args:
        days: One or more; in a text also with commas between. Both ends of a range belong to it.

    Returns:
        Each day once, in order.

    Raises:
        SettingError: A day that does not exist, a range that runs backwards, none or more than
            10,000 days.

    Example:
        >>> parse_days("2022-02-27..2022-03-01, 2021-10-17")
        ('2021-10-17', '2022-02-27', '2022-02-28', '2022-03-01')
    """
    found: set[str] = set()
    for text in [days] if isinstance(days, str) else days:
        for item in text.split(",") if isinstance(text, str) else [text]:
            first, dots, last = (part.strip() for part in str(item).strip().partition(".."))
            start, end = day_of(first), day_of(last if dots else first)
            if end < start:
                raise SettingError(f"{item.strip()!r} runs backwards; write {last}..{first}")
            if (end - start).days >= _MOST:
                raise SettingError(f"{item.strip()!r} has more than {_MOST:,} days")
            found.update(days_from(first, (end - start).days + 1))
    if not found or len(found) > _MOST:
        raise SettingError(f"{len(found):,} days; give between 1 and {_MOST:,}")
    return tuple(sorted(found))
