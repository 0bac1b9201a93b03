"""Tidy tables of reports: read so that errors name file and remedy, and what was published."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import (
    DamagedError,
    MementoError,
    SchemaError,
    SettingError,
    StorageError,
    reason_of,
)
from memento.runner.results import read_table

__all__ = ["Columns", "Published", "columns_of", "flags", "read", "read_document", "table_of"]

Columns = Mapping[str, Any]


def read(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """A table, its columns by name.

    Args:
        path: Of a CSV or Parquet file.
        remedy: What brings the file back, for messages.

    Raises:
        DamagedError: It is missing, cannot be read, or holds no columns.
    """
    try:
        columns = read_table(path)
    except StorageError as error:
        raise DamagedError(
            f"{path} cannot be read ({error.__cause__ or error}); {remedy}"
        ) from error
    except MementoError:
        raise
    except Exception as error:  # whatever a damaged file makes readers stumble over
        raise DamagedError(f"{path} is damaged ({reason_of(error)}); {remedy}") from error
    if not columns:
        raise DamagedError(f"{path} has no columns; {remedy}")
    return columns


def read_document(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DamagedError: It is missing or no JSON object.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(document, dict):
        raise DamagedError(f"{path} holds no JSON object; {remedy}")
    return document


def columns_of(table: Columns, *names: str) -> dict[str, Any]:
    """Some columns.

    Raises:
        SchemaError: One is missing; the message names it.
    """
    for name in names:
        if name not in table:
            raise SchemaError(f"no column {name!r}; there are {', '.join(table)}")
    return {name: table[name] for name in names}


def table_of(
    rows: Sequence[Mapping[str, Any]], names: Iterable[str], kinds: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Columns from rows.

    Args:
        rows: Each with a value for every name.
        names: Of the columns, in order.
        kinds: Types of columns; float64 where none is named.
    """
    return {n: np.array([row[n] for row in rows], kinds.get(n, np.float64)) for n in names}


def flags(column: Any) -> np.ndarray:
    """A column of truth values, which CSV files hold as words."""
    return np.isin(np.asarray(column).astype(str), ("True", "true", "1"))


class Published:
    """Published numbers, one row a number, from a CSV file.

    Nothing in such a file was measured with this software: reports put its numbers beside their
    own, in columns and markers of their own.

    Args:
        path: Of the file, with the columns of `COLUMNS`.

    Example:
        >>> path = getfixture("tmp_path") / "published.csv"
        >>> number = ["speed", "ours", "", "", "rate", "2.5", "", "", "m/s", "", "A book"]
        >>> with open(path, "w") as file:
        ...     csv.writer(file).writerows([Published.COLUMNS, number])
        >>> Published(path)("speed", quantity="rate")["value"]
        array([2.5])
    """

    COLUMNS = (
        *("topic", "subject", "part", "against", "quantity", "value", "low", "high", "unit"),
        *("read_off_plot", "source"),
    )

    def __init__(self, path: Path) -> None:
        self.path = path

    @functools.cached_property
    def _table(self) -> dict[str, np.ndarray]:
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        table = {name: np.array([row[name] for row in rows], str) for name in self.COLUMNS}
        for name in ("value", "low", "high"):
            table[name] = np.array([float(row[name] or math.nan) for row in rows])
        table["read_off_plot"] = table["read_off_plot"] == "yes"
        return table

    def __call__(self, *chosen: str, **wanted: str) -> dict[str, np.ndarray]:
        """Some of the numbers.

        Args:
            chosen: Topics; all if none is named.
            wanted: Values of further columns of text, such as ``quantity="tail"``.

        Returns:
            ``topic`` (the table or figure that it stands beside), ``subject`` (such as an arm, by
            our name), ``part`` (such as a predictor, workload or period), ``against`` (reference of
            a difference, or ""), ``quantity``, ``value``, ``low``, ``high`` (interval or range; NaN
            if there is none), ``unit``, ``read_off_plot``, ``source``.

        Raises:
            SettingError: There is no such topic or column.
        """
        table, known = self._table, self.topics()
        for name in chosen:
            if name not in known:
                raise SettingError(f"nothing is published of {name!r}; there is {', '.join(known)}")
        for column in wanted:
            if column not in table:
                raise SettingError(f"no column {column!r}; there are {', '.join(table)}")
        keep = np.isin(table["topic"], chosen or known)
        for column, value in wanted.items():
            keep &= table[column] == value
        return {name: column[keep] for name, column in table.items()}

    def topics(self) -> list[str]:
        """All topics, in the order of the file."""
        return list(dict.fromkeys(self._table["topic"].tolist()))

    def by(self, *keys: str, value: str = "value", **wanted: str) -> dict[tuple[str, ...], float]:
        """Values by columns of text, those of ``topic`` and others that are wanted.

        Args:
            keys: Names of the columns that values are looked up by.
            value: Which number: "value", "low" or "high".
            wanted: See above; ``topic`` among them.
        """
        topic = wanted.pop("topic")
        table = self(topic, **wanted)
        names = zip(*(table[key].tolist() for key in keys), strict=True)
        return dict(zip(names, table[value].tolist(), strict=True))
