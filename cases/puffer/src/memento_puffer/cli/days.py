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
    from memento_puffer.data.features import Features
    from memento_puffer.data.schema import Day

__all__ = ["StoredDay", "found", "has_chunks", "stored"]

T = TypeVar("T")


@dataclass(frozen=True)
class StoredDay:
    """A day: how to get its features, and, unless these were made before, its files."""

    features: Callable[[], Features]
    day: Day | None = None


def found(
    days: str, source: Path, skip_missing: bool, check: Callable[[Day], None]
) -> list[tuple[str, Day]]:
    """Days by name, checked.

    Args:
        days: As the user names them.
        source: Folder of the days.
        skip_missing: Whether to leave out days without files.
        check: Raises if something is wrong with a day.

    Raises:
        SettingError: They are no days.
        StorageError: A day, or each of them, has no files.
    """
    from memento_puffer.data.schema import Day

    there = _each(days, source, skip_missing, lambda name: Day.find(source, name))
    for day in there.values():
        check(day)
    return list(there.items())


def stored(
    days: str, source: Path, skip_missing: bool, store: Path | None = None
) -> dict[str, StoredDay]:
    """Days whose features are stored already, or are made of their files when they are asked for.

    Args:
        days: As the user names them.
        source: Folder of the days, or of what `memento puffer features` made.
        skip_missing: Whether to leave out days without files.
        store: Where features are kept that are made; None for nowhere.

    Raises:
        SettingError, StorageError: As `found`.
    """
    from memento_puffer.data.features import Features, features_of
    from memento_puffer.data.schema import Day

    def open_day(name: str) -> StoredDay:
        folder = source / name
        if (folder / "features.json").is_file():
            return StoredDay(partial(Features.read, folder))
        day = Day.find(source, name)
        if store is None:
            return StoredDay(partial(Features.of_day, day), day)
        return StoredDay(partial(features_of, day, store / name), day)

    there = _each(days, source, skip_missing, open_day)
    for one in there.values():
        if one.day is not None:
            has_chunks(one.day)
    return there


def has_chunks(day: Day) -> None:
    """Raise if a table of chunks is missing."""
    for kind in ("video_sent", "video_acked"):
        day.path(kind)


def _each(
    days: str, source: Path, skip_missing: bool, open_day: Callable[[str], T]
) -> dict[str, T]:
    there = {}
    for name in parse_days(days):
        try:
            there[name] = open_day(name)
        except StorageError:
            if not skip_missing:
                raise
    if not there:
        raise StorageError(f"{source}: none of the days {days}; check the path")
    return there
