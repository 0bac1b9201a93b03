"""Databases by ADBC: what a query gives, as an Arrow stream."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from memento import arguments
from memento.addresses import without_secrets
from memento.errors import MementoError, SchemaError, SettingError, StorageError, needs, reason_of

__all__ = ["query"]

# By the beginning of an address: the driver's package.
_DRIVERS = {
    "sqlite": "adbc_driver_sqlite",
    "postgresql": "adbc_driver_postgresql",
    "postgres": "adbc_driver_postgresql",
}
# SQLite's columns have no types: the driver tells them from so many rows.
_ROWS = 100_000
_READS = ("select", "with", "values", "table")
# What is no statement: comments, then texts and names between quotes or dollars.
_COMMENT = r"--[^\n]*|/\*.*?\*/"
_TEXT = r"""\b[eE]'(?:\\.|[^'\\]|'')*'|'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"""
_NAME = r""""(?:[^"]|"")*"|`[^`]*`"""
_ASIDE = re.compile(f"(?P<comment>{_COMMENT})|{_TEXT}|{_NAME}", re.DOTALL)


@contextlib.contextmanager
@arguments.checked
def query(sql: str, uri: str) -> Iterator[Any]:
    """What a query gives, while the database is connected; nothing in it is changed.

    Args:
        sql: One statement that reads: SELECT, WITH, VALUES or TABLE.
        uri: ``sqlite:///days.db`` (a fourth slash begins at the root), or ``postgresql://...`` with
            all that PostgreSQL's own tools take.

    Yields:
        A ``RecordBatchReader`` of pyarrow, which a memory takes as a whole, and
        `memento.integrations.arrow.batches` some rows at a time.

    Raises:
        SettingError: An address of another kind, several statements, or one that does not read.
        MissingExtraError: The driver is not installed.
        StorageError: The database is not there, or refuses the query, at once or on the way.
        SchemaError: PostgreSQL's ``infinity`` among times.

    Example:
        >>> import sqlite3, tempfile
        >>> file = tempfile.NamedTemporaryFile(suffix=".db")
        >>> with sqlite3.connect(file.name) as database:
        ...     _ = database.execute("create table days as select 7 as day, 0.5 as x")
        >>> with query("select * from days", f"sqlite:///{file.name}") as found:
        ...     found.read_all().to_pydict()
        {'day': [7], 'x': [0.5]}
    """
    kind = uri.partition(":")[0].lower()
    if kind not in _DRIVERS:
        # What is no address may hold a password.
        of = f" of the kind {kind!r}" if re.fullmatch(r"[a-z0-9+]+", kind) and ":" in uri else ""
        raise SettingError(
            f"the database is at an address{of or ' of another form'}; known are sqlite:///FILE "
            "and postgresql://USER@HOST/DATABASE"
        )
    _check_reads(sql)
    name = _DRIVERS[kind]
    with needs(name.replace("_", "-"), "sql", "reading a database"):
        importlib.import_module("adbc_driver_manager")
        driver = importlib.import_module(f"{name}.dbapi")
        from pyarrow import RecordBatchReader
    where = _read_only(uri) if kind == "sqlite" else uri
    failed: list[MementoError] = []
    with contextlib.ExitStack() as stack:
        try:
            # Nothing is committed: what a query changes ends with the connection.
            connection = stack.enter_context(driver.connect(where))
            cursor = stack.enter_context(connection.cursor())
            if kind == "sqlite":
                cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": _ROWS})
            cursor.execute(sql)
            reader = stack.enter_context(cursor.fetch_record_batch())
        except Exception as error:  # of the driver, whatever it is
            raise _refused(sql, uri, error, []) from error
        try:
            yield RecordBatchReader.from_batches(reader.schema, _read(reader, sql, uri, failed))
        except Exception as error:
            # Between libraries an error becomes one of theirs, of which ours is but the text.
            if failed and error is not failed[0] and str(failed[0]) in str(error):
                raise failed[0] from error
            raise


def _check_reads(sql: str) -> None:
    """Refuse what does not read, and all but one statement: the driver would run the first."""
    plain = _ASIDE.sub(lambda found: " " if found["comment"] else "''", sql)
    first, _, more = plain.partition(";")
    word = re.match(r"[\s(]*(\w*)", first)
    if word is None or word[1].lower() not in _READS:
        raise SettingError(
            f"the query {sql!r} does not begin with SELECT, WITH, VALUES or TABLE; give one that "
            "reads"
        )
    if more.strip("; \t\r\n"):
        raise SettingError(f"the query {sql!r} holds several statements; give one")


def _read(reader: Any, sql: str, uri: str, failed: list[MementoError]) -> Iterator[Any]:
    """All batches; what goes wrong on the way is an error of ours, kept in a list as well."""
    names = list(reader.schema.names)
    try:
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except Exception as error:  # of the driver, by way of Arrow
                raise _refused(sql, uri, error, names) from error
            if not uri.lower().startswith("sqlite"):
                _check_times(batch)
            yield batch
    except MementoError as error:
        failed.append(error)
        raise


def _refused(sql: str, uri: str, error: Exception, names: list[str]) -> StorageError:
    # The address, which may hold a password, is not said, nor what the driver says of it.
    reason = without_secrets(reason_of(error), uri)
    remedy = "correct the query, or the address of the database"
    if mismatch := re.search(r"Type mismatch in column (\d+)", reason):
        place = int(mismatch[1])
        name = names[place] if place < len(names) else "x"
        remedy = (
            f"the column has values of several types; give it one, as in cast({name} as real) as "
            f"{name}"
        )
    return StorageError(f"the database refuses {sql!r}: {reason}; {remedy}")


def _check_times(batch: Any) -> None:
    """Refuse PostgreSQL's infinity, which the driver gives as a number at the ends of its range."""
    from pyarrow import types

    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        days = types.is_date32(column.type)
        if not (days or types.is_timestamp(column.type)):
            continue
        width = np.int32 if days else np.int64
        values = np.asarray(column.drop_null().view(f"int{8 * width().itemsize}"))
        # The driver counts from 1970, the database from 2000; some versions wrap around.
        near = 10_957 if days else 10_957 * 86_400 * 1_000_000
        ends = np.iinfo(width)
        if ((values >= ends.max - near) | (values <= ends.min + near)).any():
            raise SchemaError(
                f"column {name!r} holds infinity, which is no time; leave these rows out, or make "
                f"them missing, as in nullif({name}, 'infinity')"
            )


def _read_only(uri: str) -> str:
    """The address of a file of SQLite's that is there, in its own form."""
    path = Path(unquote(uri.partition(":")[2].removeprefix("///")))
    if not path.is_file():
        raise StorageError(f"{path}: no such database; check the name and the folder")
    return f"{path.absolute().as_uri()}?mode=ro"
