"""What a selection reads and writes, as far as the columns of the files say it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memento import arguments, arrow
from memento.density import SampleSpace
from memento.distances import Distance
from memento.errors import InputError, SchemaError, SettingError
from memento.policies import DensityReservoir, Memento, Policy
from memento.samples import Samples
from memento.scale.blocks import File, located, parquet
from memento.scale.layouts import Source, source_of
from memento.scale.passes import STANDS_FOR, Plan, read_by
from memento.scale.predictions import Model

__all__ = ["derives", "footer", "planned", "with_partitions"]


def footer(file: File) -> tuple[Any, list[int], int]:
    """What the end of a file says: its schema, the rows of its row groups, and bytes in all.

    Raises:
        StorageError: It cannot be read, or is damaged.
    """
    with located(file), parquet().ParquetFile(file.path) as opened:
        about = opened.metadata
        _check_names(opened.schema_arrow.names)
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        rows = [group.num_rows for group in groups]
        return opened.schema_arrow, rows, sum(group.total_byte_size for group in groups)


def _check_names(names: Sequence[str]) -> None:
    """Raise if two columns have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SchemaError(f"there are several columns {twice[0]!r}; rename all but one of them")


def planned(
    file: File,
    schema: Any,
    policy: Policy,
    model: Model | None,
    *,
    columns: Sequence[str] | None,
    maps: Mapping[str, tuple[str, ...]],
    keyed: str | None,
    capacity: int,
    seed: int,
    weight: str,
) -> tuple[Plan, Any]:
    """What is read and written, and by what rows are compared.

    Args:
        file: The first file.
        schema: Its schema.
        policy: Of the selection.
        model: What predicts.
        columns: What is written; None: all.
        maps: What columns are made of.
        keyed: Column that keys are a hash of, unless the policy says another.
        capacity: Most rows to keep.
        seed: Of all draws.
        weight: Column for the training weights.

    Returns:
        The plan, and the schema with the columns that folders state.

    Raises:
        SchemaError: A column is not there.
        SettingError: The column for weights is.
    """
    whole = with_partitions(schema, file)
    space = _space_of(policy)
    keyed = getattr(policy, "identify_by", None) or keyed
    names = [*read_by(policy), *(space.sort_columns if space else ())]
    names += [name for name in (keyed, space and space.group_by) if name]
    names += [model.inputs] if model is not None else []
    made = None if model is None else model.column
    sources: dict[str, Source] = {}
    for name in dict.fromkeys(names):
        source = None if name == made else source_of(name, whole, maps)
        if source is not None:
            sources[name] = source
        elif name not in (made, *_optional(space)):
            raise SchemaError(_absent(name, whole.names, file, model))
    if keyed is not None:
        _check_ids(keyed, sources[keyed], whole)
    if space is not None:
        space = _present(space, {*sources, *([] if made is None else [made])})
    replaced = _replaced(model, whole, maps)
    wanted = schema.names if columns is None else _written(columns, whole, maps, file)
    stated = dict(file.partitions)
    output = tuple(name for name in wanted if name not in replaced and name not in stated)
    if weight in (*output, *stated, made) and not isinstance(policy, Memento):
        raise SettingError(
            f"the files have a column {weight!r}, as that of the training weights is called; name "
            "another with weight= (--weight)"
        )
    size = 1 if space is None else space.size_for(capacity)
    plan = Plan(policy, space, size, seed, sources, model, keyed, output, keyed, tuple(stated))
    _check_plan(plan, capacity, file)
    return plan, whole


def _check_plan(plan: Plan, capacity: int, file: File) -> None:
    """Raise if a name is taken, or no whole batch has room where only such are kept."""
    policy, size = plan.policy, plan.size
    if STANDS_FOR in plan.columns():
        raise SchemaError(
            f"{file.path} has a column {STANDS_FOR!r}, a name that selections use themselves; "
            "rename it, or leave it out with columns=[...] (--columns)"
        )
    whole = isinstance(policy, Memento) and policy.remainder == "keep" and not policy.fills
    if whole and capacity < size:
        raise SettingError(
            f"capacity {capacity:,} is less than one batch of {size}: nothing could be kept; raise "
            "the capacity or lower batch_size"
        )


def _space_of(policy: Policy) -> SampleSpace | None:
    """What a policy batches and compares rows by, if it does."""
    if not isinstance(policy, SampleSpace) or not _compares(policy):
        return None
    return SampleSpace(**{f.name: getattr(policy, f.name) for f in dataclasses.fields(SampleSpace)})


def _optional(space: SampleSpace | None) -> set[str]:
    """Columns that a space does without where the files have none."""
    if space is None or space.missing != "skip":
        return set()
    return {*space.sort_columns, *(name for d in space.distances for name in d.columns)}


def _check_ids(name: str, source: Source, schema: Any) -> None:
    """Raise unless a column that keys are made of holds integers."""
    kind = schema.field(source.columns[0]).type
    if len(source.columns) > 1 or not arrow.import_arrow("reading").types.is_integer(kind):
        raise SchemaError(
            f"column {name!r}, which tells rows apart, is of type {kind}; expected one integer a "
            "row: number the rows, or leave identify_by (--id) out"
        )


def _written(
    columns: Sequence[str], schema: Any, maps: Mapping[str, tuple[str, ...]], file: File
) -> list[str]:
    """The columns of the files that are asked for, by their own names or by the policy's."""
    if isinstance(columns, str) or not arguments.names("columns", columns):
        raise SettingError(
            f"columns is {columns!r}; expected a list of at least one name of a column"
        )
    found: list[str] = []
    for name in columns:
        source = source_of(name, schema, maps)
        if source is None:
            raise SchemaError(f"{file.path} has no column {name!r}; it has {_listed(schema.names)}")
        found += source.columns
    return list(dict.fromkeys(found))


def _present(space: SampleSpace, there: set[str]) -> SampleSpace:
    """The space with those distances and sort columns that the files have columns for."""
    pairs = zip(space.distances, space._bandwidths(), strict=True)
    present = [(d, width) for d, width in pairs if set(d.columns) <= there]
    if not present:
        raise SchemaError(
            f"none of the columns that the distances need is there; there are {sorted(there)}"
        )
    distances, widths = zip(*present, strict=True)
    sort_by = [name for name in space.sort_columns if name in there]
    return dataclasses.replace(
        space, distances=distances, bandwidth=widths, sort_by=sort_by, missing="error"
    )


def _compares(policy: Any) -> bool:
    """Whether a policy needs batches, and not only what rows say of themselves."""
    if isinstance(policy, DensityReservoir):
        return policy.density is None and policy.gamma != 0 and policy.uniform != 1
    return True


def derives(distance: Distance) -> bool:
    """Whether a distance derives from data what it compares by."""
    probe = {
        name: np.zeros((1, 2)[: axes + 1] if axes else 1) for name, axes in distance.axes.items()
    }
    for name in distance.labels:
        probe[name] = np.zeros(1, np.int64)
    try:
        return distance.bind([Samples.borrow(probe)]) is not distance
    except (InputError, ValueError):
        return True


def with_partitions(schema: Any, file: File) -> Any:
    """A file's schema, and the columns that its folders state."""
    pa = arrow.import_arrow("selecting from Parquet files")
    for name, value in file.partitions:
        if name in schema.names:
            raise SchemaError(
                f"{file.path} has a column {name!r}, which its folder states as well "
                f"({name}={value}); rename one of them"
            )
        schema = schema.append(pa.field(name, pa.scalar(value).type, nullable=False))
    return schema


def _absent(name: str, there: Sequence[str], file: File, model: Model | None) -> str:
    predict = "" if model is not None else ", or predict it"
    return (
        f"{file.path} has no column {name!r} (nor {name}_0, {name}_1 and so on), which is needed; "
        f"it has {_listed(there)}. Say with maps={{{name!r}: ...}} (--map {name}=...) what it is "
        f"made of{predict}"
    )


def _replaced(model: Model | None, schema: Any, maps: Mapping[str, Any]) -> set[str]:
    """Columns of the files that predictions take the place of."""
    if model is None:
        return set()
    source = source_of(model.column, schema, maps)
    return set() if source is None else set(source.columns)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" and more" if len(names) > 12 else "")
