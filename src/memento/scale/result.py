"""The result of a selection: a folder of Parquet files with a report, and what is made from it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from memento import arrow, snapshot
from memento.arguments import Count, checked, of_type, shown, text, whole
from memento.columns import as_column
from memento.errors import DamagedError, ForeignError, SchemaError, SettingError, reason_of
from memento.files import local_path, read_json, storage_errors
from memento.memory import Memory
from memento.policies import Policy, State, policy_from_settings
from memento.samples import Samples
from memento.scale.blocks import KIND, REPORT, parquet
from memento.scale.layouts import Source, check_same, decoded, source_of, stored
from memento.scale.passes import STANDS_FOR
from memento.settings import build

__all__ = ["Held", "Selected", "held_of", "load"]

MARKS = "marks.npz"

_NUMBER = Annotated[int, whole(0)]
_TABLES = list[Mapping[str, Any]]
# What a report holds of that which a memory, or a further selection, begins with.
_FIELDS = {
    "digest": str, "offered": _NUMBER, "kept": _NUMBER, "files": _TABLES, "density": _TABLES,
    "seconds": Mapping[str, Any], "memory": Mapping[str, Any], "parts": _TABLES, "sources": _TABLES,
    "counters": Mapping[str, float], "weight": str | None, "inserts": _NUMBER, "seen": _NUMBER,
    "capacity": Count, "seed": _NUMBER, "policy": Mapping[str, Any], "call": str,
    "history": list[list[str | int | float]],
}  # fmt: skip


@dataclass(frozen=True)
class Selected:
    """What a selection did.

    Attributes:
        folder: Where the rows lie, in files ``part-*.parquet``.
        digest: SHA-256 of what stays, in order, and of the settings: the same for any workers.
        offered: Rows of the files (not of what was held).
        kept: Rows that stay, those held before included.
        files: For each file its ``name``, ``offered`` and ``kept`` rows.
        density: How kernel sums were made under each distance, and with which error; see
            `memento.landmarks.Approximation`. Empty where there was no question of it.
        seconds: Of each stage on the ``clock``, and those that each step of it kept a processor
            busy, summed over workers.
        memory: Most bytes that a process had: of ``client`` and ``worker``.
        document: All of it, as in ``report.json``.
    """

    folder: Path
    digest: str
    offered: int
    kept: int
    files: list[dict[str, Any]]
    density: list[dict[str, Any]]
    seconds: dict[str, Any]
    memory: dict[str, int]
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, folder: str | Path) -> Selected:
        """The report of a folder that `select` wrote.

        Raises:
            ForeignError: It is none.
            DamagedError: The report lacks something, or holds something else.
        """
        path = local_path(folder, "the folder")
        with storage_errors("read", path):
            there = (path / REPORT).is_file()
        if not there:
            raise ForeignError(
                f"{path} holds no selection (no {REPORT}); give a folder that select wrote"
            )
        document = read_json(path / REPORT)
        if not isinstance(document, Mapping) or document.get("kind") != KIND:
            raise ForeignError(f"{path / REPORT} is no report of a selection")
        for name, hint in _FIELDS.items():
            expected = of_type(hint)
            assert expected is not None
            snapshot.field_of(document, name, expected, str(path / REPORT))
        names = ("digest", "offered", "kept", "files", "density", "seconds", "memory")
        return cls(path, **{name: document[name] for name in names}, document=dict(document))

    def parts(self) -> list[Path]:
        """The files with the rows, in order.

        Raises:
            ForeignError: One is missing, or of another size than written.
        """
        paths = []
        for part in self.document["parts"]:
            name = snapshot.field_of(part, "name", text("the name of a file"), REPORT)
            path = self.folder / Path(name).name
            if not path.is_file() or path.stat().st_size != part.get("bytes"):
                raise ForeignError(f"{path} is missing or changed; select again")
            paths.append(path)
        return paths

    def state(self) -> State:
        """What the policy remembers of the rows, in their order.

        Raises:
            DamagedError: It cannot be read.
        """
        marks: dict[str, np.ndarray] = {}
        path = self.folder / MARKS
        if path.is_file():
            with _damage_told(path), np.load(path, allow_pickle=False) as found:
                marks = dict(found)
        return State(dict(self.document["counters"]), marks)

    def samples(self) -> Samples:
        """All rows, with the columns that the policy reads as arrays; those of weights left out."""
        sources = [build(Source, one, REPORT, "sources") for one in self.document["sources"]]
        if not all(source.columns for source in sources):
            raise DamagedError(f"{self.folder / REPORT}: a source has no columns; select again")
        tables = [_table(path) for path in self.parts()]
        pa = arrow.import_arrow("reading a selection")
        if not tables:
            return Samples()
        return _samples_of(pa.concat_tables(tables), sources, self.document["weight"])

    @checked
    def to_memory(self, policy: Policy | None = None) -> Memory:
        """A memory that holds these rows and goes on from here.

        Args:
            policy: Needed if the policy or a distance is not known by name.

        Example:
            A day that was selected out of core, and later ones inserted::

                memory = select("days/*.parquet", 1_000_000, policy, "held").to_memory()
                memory.insert(today)
        """
        about, state = self.document, self.state()
        used = policy if policy is not None else policy_from_settings(about["policy"])
        samples = self.samples()
        known = set(used.mark_types)
        arrays = {f"column/{name}": array for name, array in samples.items()}
        arrays |= {f"mark/{name}": mark for name, mark in state.marks.items() if name in known}
        arrays["arrivals"] = np.full(samples.size, max(1, about["inserts"]), np.int64)
        memory = {
            "capacity": about["capacity"],
            "size": samples.size,
            "seen": about["seen"],
            "inserts": about["inserts"],
            "counters": dict(state.counters),
            "trained": False,
            "model": None,
            "reference_model": None,
            "units": {},
        }
        generator = snapshot.generator_document(np.random.default_rng(about["seed"]))
        documents = {"memory": memory, "policy": used.settings(), "generator": generator}
        return Memory.restore(arrays, documents, used)


@checked
def load(folder: str | Path, policy: Policy | None = None) -> Memory:
    """A memory from a folder that `select` wrote; see `Selected.to_memory`."""
    return Selected.read(folder).to_memory(policy)


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Errors of those that read a file become ours."""
    with storage_errors("read", path):
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of numpy, zipfile and Arrow, of many kinds
            raise DamagedError(f"{path}: {reason_of(error)}; select again") from error


def _table(path: Path) -> Any:
    with _damage_told(path):
        return parquet().read_table(path, partitioning=None)


def _samples_of(table: Any, sources: Sequence[Source], weight: str | None) -> Samples:
    """Columns of files as arrays: as sources say, and all others as they are."""
    types = arrow.import_arrow("reading a selection").types
    used = {column for source in sources for column in source.columns}
    arrays: dict[str, np.ndarray] = {}
    by_first = {source.columns[0]: source for source in sources}
    for one in table.schema:
        if one.name in by_first:
            source = by_first[one.name]
            arrays[source.name] = decoded(table, source)
        elif one.name not in used and one.name not in (weight, STANDS_FOR):
            if types.is_fixed_size_binary(one.type):
                plain = source_of(one.name, table.schema, {})
                stated = bool((one.metadata or {}).get(b"memento.dtype"))
                assert plain is not None
                raw = plain if stated else Source(one.name, (one.name,), "binary", "uint8")
                arrays[one.name] = decoded(table, raw)
            else:
                arrays[one.name] = as_column(one.name, table.column(one.name), mark=True)
    return Samples.borrow(arrays)


# --- what is held from before ------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What an earlier selection, or a memory, holds.

    Attributes:
        state: What the policy remembers of it.
        seen: Rows that it was chosen from.
        inserts: Selections, or inserts, so far.
        digest: Tells it from others.
        history: Files that went into it: name, size, time and path of each.
        rows: How many it holds.
        source: Where the rows are.
        folder: Where it lies, if it does.
    """

    state: State
    seen: int
    inserts: int
    digest: str
    history: list[list[Any]]
    rows: int
    source: Selected | Samples
    folder: Path | None = None

    def write(
        self, target: Path, counts: np.ndarray | None, like: tuple[str, Any], maps: Any
    ) -> None:
        """Write the rows to one file, as the files that come are written.

        Args:
            target: The file.
            counts: How many samples of the stream each stands for, if the policy asks.
            like: The first file that comes, by its path, and the schema of what is written.
            maps: As for `memento.scale.select`.

        Raises:
            SchemaError: A column is missing, or of another type.
        """
        pa = arrow.import_arrow("selecting from Parquet files")
        schema = like[1]
        if counts is not None:
            schema = schema.append(pa.field(STANDS_FOR, pa.float64(), nullable=False))
        at = 0
        with parquet().ParquetWriter(target, schema, compression="none") as writer:
            for table in self._tables(like, maps):
                if counts is not None:
                    piece = pa.array(counts[at : at + len(table)])
                    table = table.append_column(schema.field(STANDS_FOR), piece)
                writer.write_table(table.select(schema.names).cast(schema))
                at += len(table)

    def _tables(self, like: tuple[str, Any], maps: Any) -> Any:
        """The rows as tables of Arrow with the columns of a schema, one after the other."""
        pa = arrow.import_arrow("selecting from Parquet files")
        schema = like[1]
        wanted = schema.names
        if isinstance(self.source, Selected):
            for path in self.source.parts():
                table = _table(path)
                check_same(like, (str(path), table.schema), wanted)
                yield table.select(wanted)
            return
        made: dict[str, Any] = {}
        for name, array in self.source.items():
            source = source_of(name, schema, maps)
            if source is not None:
                made |= stored(array, source, schema)
        if absent := [name for name in wanted if name not in made]:
            raise SchemaError(
                f"the memory that is held has no column {absent[0]!r}, which {like[0]} has; name "
                "with columns=[...] (--columns) those that both have"
            )
        yield pa.table([made[name] for name in wanted], names=wanted)


def held_of(given: Any, policy: Policy) -> Held | None:
    """What is held from before: a folder of `select`, one of `Memory.save`, or a memory.

    Raises:
        ForeignError: The folder holds something else.
        SettingError: It was chosen by another policy, whose state does not carry over.
    """
    if given is None:
        return None
    if not isinstance(given, Memory):
        path = local_path(given, "held")
        if not snapshot.exists(path):
            selected = Selected.read(path)
            about = selected.document
            _check_policy(policy, about["policy"], str(path))
            return Held(
                selected.state(),
                about["seen"],
                about["inserts"],
                about["call"],
                about["history"],
                about["kept"],
                selected,
                path,
            )
        given = Memory.load(path)
    _check_policy(policy, given.policy.settings(), repr(given))
    if given.waiting.any():
        raise SettingError("the memory holds samples that wait for labels; give them these first")
    if policy.kind == "class-balanced-reservoir":
        raise SettingError(
            "a memory of ClassBalancedReservoir has no keys to go on with; begin with select, and "
            "give its folder as held"
        )
    digest = hashlib.sha256(repr((given.seen, given.inserts)).encode())
    for name, array in given.samples.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return Held(
        given.state, given.seen, given.inserts, digest.hexdigest(), [], len(given), given.samples
    )


def _check_policy(policy: Policy, saved: Any, where: str) -> None:
    """Raise if what is remembered of what is held is another policy's."""
    kind = saved.get("kind") if isinstance(saved, Mapping) else None
    if kind != policy.kind and (policy.mark_types or kind not in ("memento", policy.kind)):
        raise SettingError(
            f"{where} was chosen by the policy {shown(kind)}; go on with that one, or give its "
            "files as files"
        )
