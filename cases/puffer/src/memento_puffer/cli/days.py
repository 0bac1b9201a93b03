"""Days that a command is given: found and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from memento.days import parse_days
from memento.errors import StorageError

if TYPE_CHECKING:
    from memento_puffer.cli.options import DayOptions, StoredDayOptions
    from memento_puffer.data.features import Features
    from memento_puffer.data.schema import Day

__all__ = ["StoredDay", "checked", "has_chunks", "stored"]

T = TypeVar("T")


@dataclass(frozen=True)
class StoredDay:
    """A day: how to get its features, and, unless these were made before, its files."""

    features: Callable[[], Features]
    day: Day | None = None


def checked(days: DayOptions, check: Callable[[Day], None]) -> dict[str, Day]:
    """Days by name, checked.

    Args:
        days: As the user names them.
        check: Raises if something is wrong with a day.

    Raises:
        SettingError: They are no days.
        StorageError: A day, or each of them, has no files.
    """
    from memento_puffer.data.schema import Day

    present = _each(days, lambda name: Day.find(days.source, name))
    for day in present.values():
        check(day)
    return present


def stored(days: StoredDayOptions, store: Path | None = None) -> dict[str, StoredDay]:
    """Days whose features are stored already, or are made of their files when they are asked for.

    Args:
        days: As the user names them.
        store: Where features are kept that are made; None for nowhere.

    Raises:
        SettingError, StorageError: As `checked`.
    """
    from memento_puffer.data.features import Features, features_of
    from memento_puffer.data.schema import Day

    def open_day(name: str) -> StoredDay:
        folder = days.source / name
        if Features.stored(folder):
            return StoredDay(partial(Features.read, folder))
        day = Day.find(days.source, name)
        if store is None:
            return StoredDay(partial(Features.of_day, day), day)
        return StoredDay(partial(features_of, day, store / name), day)

    present = _each(days, open_day)
    for stored_day in present.values():
        if stored_day.day is not None:
            has_chunks(stored_day.day)
    return present


def has_chunks(day: Day) -> None:
    """Raise if a table of chunks is missing."""
    for kind in ("video_sent", "video_acked"):
        day.path(kind)


def _each(days: DayOptions, open_day: Callable[[str], T]) -> dict[str, T]:
    present = {}
    for name in parse_days(days.days):
        try:
            present[name] = open_day(name)
        except StorageError:
            if not days.skip_missing:
                raise
    if not present:
        raise StorageError(f"{days.source}: none of the days {days.days}; check the path")
    return present
