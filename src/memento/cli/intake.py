"""Files to what a memory takes: read, mapped, predicted, checked, found by their ids."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from memento.addresses import public
from memento.cli import predictions as whose
from memento.cli import settings, tables, ui
from memento.errors import SchemaError
from memento.memory import Memory
from memento.samples import Samples

__all__ = ["attach", "listed", "read_samples", "read_table", "telling_what_is_late"]


def listed(columns: str | None) -> list[str] | None:
    """Names between commas; None for none."""
    return [name.strip() for name in columns.split(",")] if columns else None


def read_samples(
    memory: Memory,
    paths: Sequence[Path],
    maps: Sequence[tables.Mapped],
    wanted: Sequence[str] | None,
    prediction: whose.Prediction | None,
    reading: tables.Reading,
) -> Samples:
    """All files' samples, with predictions if a model is given, checked one file after the other.

    Raises:
        InputError, ModelError, StorageError: They cannot be inserted; the message names the file.
    """
    must: list[str] | None = None if wanted is None and not memory.samples else [*(wanted or ())]
    may: list[str] = []
    if wanted is None:
        may = list(dict.fromkeys([*memory.samples, *settings.needed_columns(memory.policy)]))
    keep = None if must is None else [*must, *may]
    if prediction is not None and must is not None and keep is not None:
        # Its inputs are read, kept or not; its outputs are not, and kept in any case.
        made = prediction.columns
        must = [*(name for name in must if name not in made), prediction.inputs]
        may = [name for name in may if name != prediction.column]
        keep = [*keep, *made]
    parts: list[Samples] = []
    names: dict[str, Sequence[str]] = {}
    with ui.progress_of("reading", len(paths), quiet=True) as tell:
        for done, path in enumerate(paths, 1):
            samples = tables.read(path, maps, must, may, reading.like(memory.samples))
            names.update(samples.parts)
            with tables.in_file(path, samples.size):
                if prediction is not None:
                    samples = prediction.add_to_given(samples)
                if keep is not None:
                    samples = samples.select([n for n in dict.fromkeys(keep) if n in samples])
                _require(samples, memory)
                memory.check(samples)
            parts.append(samples)
            tell(done)
    joined = tables.join(paths, parts)
    joined.parts = {name: found for name, found in names.items() if name in joined}
    return joined


def _require(samples: Samples, memory: Memory) -> None:
    """A message that helps with --map, before the memory says what it misses."""
    needed = settings.needed_columns(memory.policy)
    some = any(name in samples for name in needed)
    for name in dict.fromkeys([*needed, *memory.samples]):
        # What the policy reads may come later: predictions with the first model, labels by id.
        late = name in needed and memory.ids in samples
        if name not in samples and not late and (name in memory.samples or not some):
            predict = ", or predict it with --model" if name in needed else ""
            raise SchemaError(
                f"column {name!r} is missing; there are {', '.join(map(repr, samples))}; rename or "
                f"stack columns with --map {name}=SOURCE{predict}"
            )


@contextlib.contextmanager
def telling_what_is_late(memory: Memory, fresh: Samples, folder: Path) -> Iterator[None]:
    """Say in one line what the policy does without until it comes, with the remedy of a command."""
    needed = settings.needed_columns(memory.policy)
    absent = [name for name in needed if name not in fresh]
    if absent and memory.ids in fresh:
        predicted = set(absent) & set(settings.predicted_columns(memory.policy))
        labels = set(absent) & set(settings.label_columns(memory.policy))
        label, annotate = (f"memento memory {word} {folder}" for word in ("label", "annotate"))
        remedies = [f"Labels come late: {label} FILE. "] * bool(labels)
        remedies += [f"Predictions can be made: {annotate} --model MODEL. "] * bool(predicted)
        others = set(absent) - predicted - labels
        remedies += [f"Columns can be attached: {annotate} FILE. "] * bool(others)
        ui.say(
            f"memento: none of these {fresh.size:,} samples has {', '.join(map(repr, absent))}, "
            f"which the policy reads. {''.join(remedies)}If the name is wrong: there are "
            f"{', '.join(map(repr, fresh))}",
            err=True,
        )
    late = [
        name
        for name in needed
        if (name not in fresh and memory.ids not in fresh)  # what has ids waits
        or (len(memory) and name in fresh and name not in memory.samples)
    ]
    if late:
        columns = ", ".join(map(repr, late))
        ui.say(
            f"memento: not there for all samples held, so the policy does without: {columns}; "
            f"later: memento memory annotate {folder} --model MODEL, or label {folder} FILE",
            err=True,
        )
    with warnings.catch_warnings():
        for name in late:  # the library's own words name remedies in Python
            warnings.filterwarnings("ignore", f".*{re.escape(repr(name))}", UserWarning)
        yield


def read_table(
    file: str,
    maps: Sequence[tables.Mapped],
    columns: Sequence[str] | None,
    id_: str | None,
    reading: tables.Reading,
) -> Samples:
    """The columns of a file for samples that are held; those asked for, and that of ids."""
    (path,) = tables.expand([file])
    wanted = columns if columns is None or id_ is None else list(dict.fromkeys([*columns, id_]))
    given = tables.read(path, maps, wanted, reading=reading)
    if id_ is not None and id_ not in given:
        raise SchemaError(
            f"{path}: column {id_!r}, which tells samples apart, is missing; there are "
            f"{', '.join(map(repr, given))}; name another with --id"
        )
    return given


def attach(memory: Memory, file: str, given: Samples, id_: str | None) -> tuple[list[str], bool]:
    """Attach a file's columns to what is held; their names, and whether to the reference, too."""
    names = [name for name in given if name != id_]
    if not names:
        raise SchemaError(f"{public(file)}: no columns but {id_!r}; there is nothing to attach")
    values = given.select(names)
    with tables.in_file(file, given.size):
        if id_ is None:
            memory.annotate(values)
            return names, False
        rows = _rows_of(id_, memory.samples, memory.ids, given)
        if (rows < 0).any():
            raise SchemaError(
                f"no row for {np.count_nonzero(rows < 0):,} of {len(rows):,} samples held, such as "
                f"that with the {memory.ids} {memory.samples[memory.ids][rows < 0][0]}; give one "
                "for each that memento memory export writes"
            )
        memory.annotate(values.take(rows))
        if memory.reference is None or memory.ids not in memory.reference:
            return names, False
        rows = _rows_of(id_, memory.reference, memory.ids, given)
        if (rows < 0).any():
            return names, False
        memory.annotate_reference(values.take(rows))
    return names, True


def _rows_of(id_: str, samples: Samples, ids: str, given: Samples) -> np.ndarray:
    """For each sample the row of a file that has its id; -1 where there is none.

    Raises:
        SchemaError: Samples have no ids, or the file has one twice.
    """
    if ids not in samples:
        raise SchemaError(
            f"what is held has no column {ids!r}, so rows cannot be told whose they are; leave "
            "--id out and give a row for each sample held, in the order of memento memory export"
        )
    keys = given[id_]
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(twice):
        raise SchemaError(f"the {id_} {keys[order][twice[0]]} is given twice; give one row an id")
    places = np.searchsorted(keys, samples[ids], sorter=order)
    places = order[np.minimum(places, len(keys) - 1)]
    return np.where(keys[places] == samples[ids], places, -1)
