"""Files in the layout that is read fastest: fixed-length binary, plain, without compression."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memento import arguments, arrow
from memento.errors import SchemaError, StorageError
from memento.files import local_path, replacing, storage_errors
from memento.scale.blocks import (
    BLOCK_ROWS,
    Block,
    File,
    blocks_of,
    find,
    located,
    parquet,
    read,
)
from memento.scale.layouts import Source, binary, binary_type, check_maps, decoded, source_of
from memento.scale.planning import footer

__all__ = ["rewrite"]

_NUMBERED = re.compile(r"(.+)_0")
# What a file was made of: its path, size and time, and the settings.
_MADE_OF = b"memento.rewritten"


@arguments.checked
def rewrite(
    paths: Any,
    to: str | Path,
    *,
    maps: Mapping[str, Any] | None = None,
    block_rows: int = BLOCK_ROWS,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Write files anew in the layout that `select` reads fastest.

    Rows of floating-point numbers (lists of one length, or columns ``x_0``, ``x_1``, ... where
    there is no ``x``) become one column of a fixed length; row groups are as large as blocks;
    nothing is compressed. Values and all other columns stay as they are.

    Args:
        paths: As for `select`.
        to: Folder for files of the same names. Those that were made before of the same files, and
            with the same settings, are left alone; of files that changed they are made anew.
        maps: As for `select`: columns that become one.
        block_rows: Rows of a row group.
        progress: Told ``"rewrite"``, and rows done and in all.

    Returns:
        The files.

    Raises:
        InputError: As for `select`; rows of one column differ in length; a name is taken.
        StorageError: A file cannot be read or written, or there is another one in its place; each
            is whole or absent.
    """
    arguments.require("block_rows", block_rows, arguments.whole())
    folder, given = local_path(to, "to"), check_maps({} if maps is None else maps)
    files = find(paths)
    footers = {file: footer(file) for file in files}
    done, total = 0, sum(sum(groups) for _, groups, _ in footers.values())
    made: dict[str, Any] = {}
    # Files without rows come last: how long the rows would be is known from others.
    for file in sorted(files, key=lambda file: not any(footers[file][1])):
        schema, groups, _ = footers[file]
        target = folder / file.name
        if target.exists() and target.samefile(file.path):
            raise StorageError(f"{target} would be written over itself; choose another folder")
        note = json.dumps([file.path, file.size, file.changed, given, int(block_rows)])
        kind = schema.remove_metadata().to_string()
        if not _is_made(target, note, file):
            with storage_errors("write the files", folder):
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(target) as temporary:
                    blocks = blocks_of(file, groups, int(block_rows))
                    _rewritten(temporary, blocks, given, note, made.get(kind, schema))
        made[kind] = parquet().read_schema(target)
        done += sum(groups)
        if progress is not None:
            progress("rewrite", done, total)
    return [folder / file.name for file in files]


def _is_made(target: Path, note: str, file: File) -> bool:
    """Whether there is what would be written; not so if the file or the settings have changed.

    Raises:
        StorageError: There is something that was not made of the file.
    """
    if not target.exists():
        return False
    with located(File(str(target), target.name, 0, 0)):
        found = (parquet().read_schema(target).metadata or {}).get(_MADE_OF, b"[null]").decode()
    if json.loads(found)[0] != file.path:
        raise StorageError(
            f"{target} is there already, and was not made of {file.path}; choose another folder, "
            "or remove it"
        )
    return bool(found == note)


def _rewritten(
    target: Path,
    blocks: list[Block],
    maps: Mapping[str, tuple[str, ...]],
    note: str,
    empty: Any,
) -> None:
    """Write one file's blocks, one after the other; without any a file of a schema."""
    writer: Any = None
    try:
        for block in blocks:
            with located(block):
                made = _in_rows(block, maps)
                if writer is None:
                    writer = _writer(target, made.schema, note)
                for field, before in zip(made.schema, writer.schema, strict=True):
                    if field.type != before.type:
                        raise SchemaError(
                            f"rows of {field.name!r} are of another length than in the row groups "
                            "before; give all rows one length"
                        )
            writer.write_table(made, row_group_size=max(1, len(made)))
        if writer is None:
            writer = _writer(target, empty, note)
    finally:
        if writer is not None:
            writer.close()


def _writer(target: Path, schema: Any, note: str) -> Any:
    return parquet().ParquetWriter(
        target,
        schema.with_metadata({_MADE_OF: note.encode()}),
        compression="none",
        use_dictionary=_texts(schema),
        write_statistics=False,
        write_page_checksum=True,
    )


def _in_rows(block: Block, maps: Mapping[str, tuple[str, ...]]) -> Any:
    """A block as a table with rows of numbers in one column each."""
    pa = arrow.import_arrow("writing Parquet files")
    with parquet().ParquetFile(block.file.path) as opened:
        schema = opened.schema_arrow
    rows = _rows_of_numbers(schema, maps)
    table = read(block, schema.names)
    fields, columns = [], []
    for field in schema:
        source = rows.get(field.name)
        if source is None:
            fields.append(field)
            columns.append(table.column(field.name))
        elif source.columns[0] == field.name:
            array = decoded(table, source)
            if not array.size:
                raise SchemaError(f"column {field.name!r} has lists without a value; leave it out")
            array = array.reshape(len(array), -1)
            fields.append(binary_type(source.name, array.shape[1], array.dtype))
            columns.append(binary(array))
    return pa.table(columns, schema=pa.schema(fields))


def _rows_of_numbers(schema: Any, maps: Mapping[str, tuple[str, ...]]) -> dict[str, Source]:
    """For columns of a file the row of numbers that they are, or are a part of."""
    types = arrow.import_arrow("reading Parquet files").types
    names = dict.fromkeys(maps)
    lists = set()
    for field in schema:
        first = _NUMBERED.fullmatch(field.name)
        numbered = first is not None and f"{first[1]}_1" in schema.names
        if types.is_floating(field.type) and first and numbered and first[1] not in schema.names:
            names[first[1]] = None
        listed = types.is_list(field.type) or types.is_fixed_size_list(field.type)
        if (listed or types.is_large_list(field.type)) and types.is_floating(field.type.value_type):
            names[field.name] = None
            lists.add(field.name)
    found: dict[str, Source] = {}
    for name in names:
        source = source_of(name, schema, maps)
        if source is None or source.form == "binary" or not found.keys().isdisjoint(source.columns):
            continue
        if name in schema.names and name not in source.columns:
            raise SchemaError(
                f"column {name!r} is there already, and {source.columns[0]!r} would become another "
                "of that name; give the map (--map) another name"
            )
        kinds = [schema.field(column).type for column in source.columns]
        wide = source.form == "wide" and all(types.is_floating(kind) for kind in kinds)
        if wide or source.columns[0] in lists:
            found |= dict.fromkeys(source.columns, source)
    return found


def _texts(schema: Any) -> list[str]:
    types = arrow.import_arrow("writing Parquet files").types
    return [
        field.name
        for field in schema
        if types.is_string(field.type) or types.is_large_string(field.type)
    ]
