"""Days below a folder, as the daily job reads them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from memento.errors import StorageError
from memento.files import local_path
from memento_puffer.data.features import Features
from memento_puffer.data.schema import Day, day_folders

__all__ = ["DayFolders"]


class DayFolders:
    """Features of the days below a folder.

    A day is a folder named 2022-09-19 or 2022-09-19T11_2022-09-20T11, as Puffer publishes it.

    Args:
        root: Folder of days.
        cc: See ``Features.of_day``.

    Raises:
        StorageError: No such folder.
    """

    def __init__(self, root: str | Path, cc: str | None = None) -> None:
        self.root = local_path(root, "the folder")
        self.cc = cc
        if not self.root.is_dir():
            raise StorageError(f"{self.root}: no such folder; name the one that holds the days")

    def __call__(self, day: dt.date) -> Features | None:
        """Features of a day; None if it is not there, or not complete.

        Raises:
            SchemaError, DamagedError, StorageError: As ``Features.of_day``.
        """
        name = day.isoformat()
        for folder in day_folders(self.root, name):
            if any(folder.iterdir()):
                found = Day(folder, name)
                if "video_sent" in found.files and "video_acked" in found.files:
                    return Features.of_day(found, cc=self.cc)
        return None
