"""Arrow: tables of any size and place, some rows at a time, for memories that take them in parts.

What fits into memory needs none of this: `Samples` and `Memory.insert` take anything that speaks
Arrow as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from memento import arguments, arrow
from memento.addresses import public, without_secrets
from memento.errors import InputError, MementoError, StorageError, needs, reason_of
from memento.samples import Samples

__all__ = ["ADDRESS", "batches", "filesystem", "storage_of"]

#: How the address of a file elsewhere begins.
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# Those that pyarrow reaches itself; for others fsspec has its packages.
_OWN = ("s3", "gs", "gcs")
_WILD = re.compile(r"[*?\[]")
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc"}


def batches(
    source: Any, rows: int = 65_536, columns: Sequence[str] | None = None
) -> Iterator[Samples]:
    """Samples in parts of at most ``rows``, without ever holding all of them.

    Args:
        source: A file or a folder of Parquet, or an address of either (``s3://bucket/days/``), or
            a list of files; folders like ``day=2026-01-07/`` become columns. Or a dataset or a
            scanner of pyarrow's, a ``RecordBatchReader``, anything with ``__arrow_c_stream__``
            (polars, DuckDB), a dataset of Hugging Face's, or rows that are mappings.
        rows: Most in a part.
        columns: Names to read; all if left out.

    Yields:
        Parts in order, none of them empty.

    Raises:
        MissingExtraError: pyarrow, or what reaches such an address, is not installed.
        StorageError: There is no such file, or it cannot be read.
        SchemaError: It is no table, or lacks a column.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"y": range(5)})
        >>> [part.size for part in batches(table.to_reader(), rows=2)]
        [2, 2, 1]
    """
    arguments.require("rows", rows, arguments.whole())
    arrow.import_arrow("reading in batches")
    with storage_of(source):
        for table in _tables(source, rows, columns):
            part = Samples(table)
            if columns is not None:
                part = part.select(columns)
            yield from part.chunks(rows) if part.size else ()


@arguments.checked
def filesystem(address: str) -> tuple[Any, str]:
    """What reaches an address, in the manner of fsspec, and the address's path in it.

    Args:
        address: Of a file or a folder, patterns included: ``s3://bucket/days`` and ``gs://...``,
            which pyarrow reaches by the settings that their own tools use (such as
            ``AWS_PROFILE`` and ``AWS_ENDPOINT_URL``), or any other that fsspec knows.

    Raises:
        MissingExtraError: fsspec, or a package that it needs for such addresses, is not installed.
        StorageError: There is no such kind of address, or its settings are wrong.

    Example:
        >>> filesystem("memory://days/monday.parquet")[1]
        '/days/monday.parquet'
    """
    with needs("fsspec", "cli", f"reading {public(address)}"):
        from fsspec.core import url_to_fs
        from fsspec.implementations.arrow import ArrowFSWrapper
    kind, _, path = address.partition("://")
    with storage_of(address):
        if kind.lower() in _OWN:
            arrow.import_arrow(f"reading {public(address)}")
            from pyarrow import fs

            bucket = path.partition("/")[0]
            return ArrowFSWrapper(fs.FileSystem.from_uri(f"{kind.lower()}://{bucket}")[0]), path
        with needs(f"fsspec[{kind}]", None, f"reading {public(address)}"):
            found: tuple[Any, str] = url_to_fs(address)
            return found


@contextlib.contextmanager
def storage_of(source: Any) -> Iterator[None]:
    """Whatever pyarrow and fsspec raise about a source, as an error of ours that names it."""
    address = source if isinstance(source, str) else ""
    what = public(address) or f"a {type(source).__name__}"
    try:
        yield
    except (MementoError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise StorageError(f"{what}: no such file or folder; check the name") from error
    except Exception as error:  # of whatever library reaches it
        reason = without_secrets(reason_of(error), address)
        raise StorageError(
            f"{what} cannot be read: {reason}; check the address, and what gives access"
        ) from error


def _tables(source: Any, rows: int, columns: Sequence[str] | None) -> Iterator[Any]:
    """Tables, batches or columns of any length."""
    from pyarrow import RecordBatchReader

    several = source if isinstance(source, (list, tuple)) else [source]
    if all(isinstance(one, (str, os.PathLike)) for one in several):
        source = _dataset([os.fspath(one) for one in several])
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):  # a plan of polars
        source = source.collect()
    names = None if columns is None else list(columns)
    if hasattr(source, "with_format") and hasattr(source, "iter"):  # Hugging Face's
        yield from source.with_format("arrow").iter(batch_size=rows)
    elif hasattr(source, "scanner"):
        # The default reads 16 batches of 4 files ahead, each of which is as large as asked for.
        ahead = {"batch_readahead": 2, "fragment_readahead": 1}
        yield from source.scanner(columns=names, batch_size=rows, **ahead).to_batches()
    elif hasattr(source, "to_reader"):
        yield from source.to_reader()
    elif isinstance(source, RecordBatchReader):
        yield from source
    elif hasattr(source, "__arrow_c_stream__"):
        yield from RecordBatchReader.from_stream(source)
    elif isinstance(source, Mapping) or not isinstance(source, Iterable):
        yield source
    else:
        left = iter(source)
        while some := list(islice(left, rows)):
            yield some


def _dataset(places: list[str]) -> Any:
    """A dataset of pyarrow's over files, folders, patterns and addresses of one kind."""
    from pyarrow import dataset

    if not places:
        raise InputError("no files are named; give one or more")
    files: Any = []
    fs: Any = None
    for place in places:
        here = ADDRESS.match(place) is None
        fs, path = filesystem(f"file://{Path(place).absolute()}" if here else place)
        files += sorted(fs.glob(path)) if _WILD.search(path) else [path]
    if not files:
        raise StorageError(
            f"no file matches {public(places[0])!r}; check the folder and the pattern"
        )
    kind = _FORMATS.get(Path(files[0].lower().removesuffix(".gz")).suffix, "parquet")
    if len(files) == 1 and fs.isdir(files[0]):
        (files,) = files
    return dataset.dataset(files, format=kind, filesystem=fs, partitioning="hive")
