"""What a worker does with a block: summarise it, rank its rows, take those that stay.

Each is a function of a plan, a block and what was decided about it, so it gives the same whoever
calls it, how often, and in which order.
"""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from memento import arrow
from memento.batching import Batches, leading, run_starts
from memento.density import SampleSpace
from memento.errors import ModelError, StorageError
from memento.files import replacing, storage_errors
from memento.policies import ClassBalancedReservoir, DensityReservoir, Policy, State
from memento.policies._weighted import hashed_exponential
from memento.samples import Samples
from memento.scale.blocks import Block, located, parquet, read
from memento.scale.layouts import Source, decoded
from memento.scale.predictions import Model

__all__ = [
    "STANDS_FOR",
    "Ask",
    "Done",
    "Kept",
    "Plan",
    "look",
    "rank",
    "read_by",
    "summarise",
    "take",
]

#: Column, of a file of what is held, that says how many samples of the stream a row stands for.
STANDS_FOR = "memento:stands-for"
# Of a block at most so many rows, one in 64, are left to be batched with those of other blocks; of
# a small block so many batches, but at most a quarter of it.
_MOST_OUTSIDE, _FEW = 64, 16


@dataclass(frozen=True)
class Plan:
    """What is the same for all blocks.

    Attributes:
        policy: Of the selection.
        space: What rows are batched and compared by, its distances bound; None: nothing is.
        size: Samples in a batch.
        seed: Of all draws.
        sources: Where the columns that are read come from, by name.
        model: What predicts; None: predictions are in the files.
        ids: Column whose values the digest is of; None: files and row numbers.
        output: Columns of the files that are written.
        keyed: Column that keys are a hash of; None: they are drawn.
        partitions: Columns that the names of folders state.
        several: Whether there is more than one block.
    """

    policy: Policy
    space: SampleSpace | None
    size: int
    seed: int
    sources: Mapping[str, Source]
    model: Model | None
    ids: str | None
    output: tuple[str, ...]
    keyed: str | None = None
    partitions: tuple[str, ...] = ()
    several: bool = True

    def columns(self) -> list[str]:
        """Columns of the files that are read or written, and those that folders state."""
        read_too = [column for source in self.sources.values() for column in source.columns]
        return list(dict.fromkeys([*self.output, *self.partitions, *read_too]))

    def keys(self) -> list[str]:
        """Columns that a first look needs, without those that are predicted."""
        names = read_by(self.policy)
        if self.space is not None:
            names += self.space.sort_columns
            names += [self.space.group_by] if self.space.group_by else []
        names += [self.keyed] if self.keyed else []
        if self.model is not None:
            names = [name for name in names if name != self.model.column] + [self.model.inputs]
        return [name for name in dict.fromkeys(names) if name in self.sources]


def read_by(policy: Policy) -> list[str]:
    """Columns that a policy chooses by."""
    density = getattr(policy, "density", None)
    return [*policy.reads, *([] if density is None else [density])]


@dataclass(frozen=True)
class Done:
    """What came of a block.

    Attributes:
        arrays: By name.
        seconds: That each step kept a processor busy.
        memory: Most bytes that the process has had.
    """

    arrays: dict[str, np.ndarray]
    seconds: dict[str, float]
    memory: int


@dataclass(frozen=True)
class Ask:
    """Which rows of a block may be among those with the smallest ranks.

    Attributes:
        order: Digest of the order that the first pass found.
        limit: Ranks below this are wanted; of a class, if there are several.
        log_weights: One for each batch; None: those of the rows are known without batches.
        rest: Logarithms of the weights of rows that are in no batch of this block.
        classes: Labels that the limits are of; None: there is one for all.
    """

    order: bytes
    limit: np.ndarray
    log_weights: np.ndarray | None = None
    rest: np.ndarray | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Kept:
    """What stays of a block.

    Attributes:
        order: Digest of the order that the first pass found.
        batches: Numbers of batches that stay whole; None: rows are known without batches.
        fill: A batch of which some rows stay, drawn at random, and how many.
        rows: Rows that stay beside those.
        weights: Of ``rows``, where there are no batches; None for none.
        name: Of the column for the weights.
    """

    order: bytes = b""
    batches: np.ndarray | None = None
    fill: tuple[int, int] | None = None
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    weights: np.ndarray | None = None
    name: str = "weight"


class _Clock:
    """Seconds that each step keeps a processor busy."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - start
            self.seconds[step] = self.seconds.get(step, 0.0) + spent

    def done(self, arrays: dict[str, np.ndarray]) -> Done:
        return Done(arrays, self.seconds, peak())


def peak() -> int:
    """Most bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- before the first pass --------------------------------------------------------------------


def look(plan: Plan, block: Block, labels: tuple[str, ...], values: Mapping[str, int]) -> Done:
    """What distances are bound by: all distinct labels, and some of the values.

    Args:
        plan: Of the selection.
        block: What is looked at.
        labels: Columns whose distinct values are wanted.
        values: Other columns, and how many rows of each.
    """
    clock = _Clock()
    with located(block):
        names = [*labels, *values]
        predicted = plan.model is not None and plan.model.column in names
        wanted = [name for name in names if not (predicted and name == plan.model.column)]  # type: ignore[union-attr]
        if predicted:
            wanted.append(plan.model.inputs)  # type: ignore[union-attr]
        samples, _ = _read(plan, block, list(dict.fromkeys(wanted)), clock)
        found = {name: np.unique(samples[name]) for name in labels}
        for name, count in values.items():
            column = samples[name]
            if len(column) > count:
                rows = block.generator(plan.seed, "look").choice(len(column), count, replace=False)
                column = column[np.sort(rows)]
            found[name] = column
    return clock.done(found)


# --- the first pass ---------------------------------------------------------------------------


def summarise(plan: Plan, block: Block) -> Done:
    """The first pass: all that the decision has to know of a block.

    Returns:
        With batches ``sizes`` ``(n,)``, ``counts`` (samples of the stream that each stands for),
        ``order`` (a digest), one ``summary/...`` ``(n, ...)`` float32 for each distance, and the
        rows that filled no batch as ``rest/rows`` and ``rest/column/...``. Without batches
        ``labels`` or ``log_weights``, and how many rows have each, as ``rows``.
    """
    clock = _Clock()
    with located(block):
        samples, table = _read(plan, block, plan.keys(), clock)
        plan.policy.check(samples)
        if plan.space is not None:
            return clock.done(_summarised(plan, block, samples, table, clock))
        with clock("summarise"):
            policy = plan.policy
            if isinstance(policy, ClassBalancedReservoir):
                names, rows = np.unique(samples[policy.label], return_counts=True)
                return clock.done({"labels": _texts(names), "rows": rows})
            found = _log_weights(plan, samples, block.rows).round(2)
            log_weights, rows = np.unique(found, return_counts=True)
    return clock.done({"log_weights": log_weights, "rows": rows})


def _summarised(
    plan: Plan, block: Block, samples: Samples, table: Any, clock: _Clock
) -> dict[str, np.ndarray]:
    """What `summarise` gives of a block that is cut into batches."""
    space = plan.space
    assert space is not None
    with clock("sort"):
        batches = _batches(plan, block, samples)
    with clock("summarise"):
        found = {"sizes": batches.sizes.astype(np.int64), "order": _digest_of(batches)}
        if len(batches):
            summaries = space.summaries(batches)
            found |= {
                f"summary/{i}": one.rows.astype(np.float32) for i, one in enumerate(summaries)
            }
            if block.file.held and STANDS_FOR in table.column_names:
                counts = np.asarray(table.column(STANDS_FOR))[batches.order]
                found["counts"] = np.add.reduceat(counts, batches.offsets[:-1])
        outside = np.ones(samples.size, bool)
        outside[batches.order] = False
        if outside.any():
            rows = np.flatnonzero(outside)
            found["rest/rows"] = rows
            if "counts" in found:
                found["rest/counts"] = np.asarray(table.column(STANDS_FOR))[rows]
            needed = dict.fromkeys([*_compared(space), *space.sort_columns])
            needed |= {space.group_by: None} if space.group_by else {}
            found |= {f"rest/column/{name}": samples[name][rows] for name in needed}
    return found


def _compared(space: SampleSpace) -> list[str]:
    return [name for distance in space.distances for name in distance.columns]


def _batches(plan: Plan, block: Block, samples: Samples) -> Batches:
    """The batches of a block; what fills none is left out, to be cut with that of all blocks.

    Where there are several blocks, a batch holds one label alone (and one group), as long as that
    leaves few rows out. So what is rare in every block makes batches of its own in the end.
    """
    space, parts = plan.space, (samples,)
    assert space is not None
    even = space.remainder == "even"
    order = space.order(samples, rng=block.generator(plan.seed, "ties") if even else None)
    if plan.several:
        order = _filling(space, samples, order, plan.size)
        if not even:  # runs of whole batches, one after the other
            return Batches(parts, order, np.arange(0, len(order) + 1, plan.size))
    cutting = space if even else replace(space, remainder="drop")
    return cutting.cut(parts, order, size=plan.size)


def _filling(space: SampleSpace, samples: Samples, order: np.ndarray, size: int) -> np.ndarray:
    """Those of sorted rows that fill batches of one label (and group) each.

    With ``remainder="even"`` these are all rows of labels that fill a batch, else as many as whole
    batches have.
    """
    groups = [] if space.group_by is None else [space.group_by]
    names = [name for name in space.sort_columns if name != space.group_by]
    first = leading(names, space.label_columns, (samples,))
    most = max(len(order) // _MOST_OUTSIDE, min(_FEW * size, len(order) // 4))
    for depth in range(len(first), -1, -1):
        edges = run_starts((samples,), order, [*groups, *first[:depth]])
        runs = np.diff(edges)
        if space.remainder == "even":
            filled = np.where(runs < size, 0, runs)
        else:
            filled = runs // size * size
        if len(order) - filled.sum() <= most or not depth:
            break
    if space.remainder == "even" and not depth:
        return order  # as it is cut without other blocks
    within = np.arange(len(order)) - np.repeat(edges[:-1], runs)
    return order[within < np.repeat(filled, runs)]


def _digest_of(batches: Batches) -> np.ndarray:
    """Tells whether a later pass has found the same batches."""
    digest = hashlib.sha256(batches.order.tobytes())
    digest.update(batches.offsets.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _again(plan: Plan, block: Block, samples: Samples, order: bytes) -> Batches:
    """The batches of the first pass.

    Raises:
        ModelError: The model predicts something else than in the first pass.
        StorageError: There are others, as the content has changed.
    """
    batches = _batches(plan, block, samples)
    if _digest_of(batches).tobytes() == order:
        return batches
    if plan.model is not None:
        raise ModelError(
            "the predictions differ from those of the first pass; use workers of one kind of "
            "machine, and a model that predicts the same every time, or store the predictions"
        )
    raise StorageError(
        "the content differs from that of the first pass; leave the files alone until the "
        "selection has ended, then repeat"
    )


# --- ranks ------------------------------------------------------------------------------------


def rank(plan: Plan, block: Block, ask: Ask) -> Done:
    """Rows whose ranks may be among the smallest of all blocks.

    Returns:
        ``rows`` ascending, their ``key``, ``log_weight`` (where there are weights) and ``code``
        (of the class, where there are several).
    """
    clock = _Clock()
    with located(block):
        batched = ask.log_weights is not None
        names = plan.keys()
        if not batched:
            needed = {plan.keyed, getattr(plan.policy, "label", None)}
            needed |= {getattr(plan.policy, "density", None)}
            names = [name for name in names if name in needed]
        samples, _ = _read(plan, block, names, clock)
        with clock("sort"):
            batches = _again(plan, block, samples, ask.order) if batched else None
        with clock("rank"):
            keys = _keys(plan, block, samples)
            found: dict[str, np.ndarray] = {}
            policy = plan.policy
            if isinstance(policy, ClassBalancedReservoir):
                labels, which = np.unique(samples[policy.label], return_inverse=True)
                codes = np.searchsorted(np.array(ask.classes or ()), _texts(labels))[which]
                rows = np.flatnonzero(keys < ask.limit[codes])
                found["code"] = codes[rows]
            elif isinstance(policy, DensityReservoir):
                log_weights = np.empty(block.rows)
                if batches is None or ask.log_weights is None:
                    log_weights[:] = _log_weights(plan, samples, block.rows)
                else:
                    outside = np.ones(block.rows, bool)
                    outside[batches.order] = False
                    if ask.rest is not None:
                        log_weights[outside] = ask.rest
                    log_weights[batches.order] = np.repeat(ask.log_weights, batches.sizes)
                ranks = np.log(np.maximum(keys, 1e-300)) - log_weights
                rows = np.flatnonzero(ranks < ask.limit[0])
                found["log_weight"] = log_weights[rows]
            else:
                rows = np.flatnonzero(keys < ask.limit[0])
            found |= {"rows": rows, "key": keys[rows]}
    return clock.done(found)


def _keys(plan: Plan, block: Block, samples: Samples) -> np.ndarray:
    """``(rows,)`` keys for life: Exp(1) where there are weights, else uniform in [0, 1)."""
    weighted = isinstance(plan.policy, DensityReservoir)
    if plan.keyed is None:
        rng = block.generator(plan.seed, "keys")
        return rng.standard_exponential(block.rows) if weighted else rng.random(block.rows)
    keys = hashed_exponential(samples[plan.keyed])
    return keys if weighted else -np.expm1(-keys)


def _log_weights(plan: Plan, samples: Samples, rows: int) -> np.ndarray:
    """Of rows whose weights depend on themselves alone."""
    policy = plan.policy
    assert isinstance(policy, DensityReservoir)
    if policy.density is None:  # all alike, and no column was read
        return np.zeros(rows)
    rng = np.random.default_rng(0)  # nothing is drawn
    return np.log(policy.fresh_weights(Samples(), samples, None, State(), rng))


def _texts(labels: np.ndarray) -> np.ndarray:
    """Labels as texts, as the counters of a memory name them."""
    return np.array([str(label) for label in labels.tolist()])


# --- the second pass --------------------------------------------------------------------------


def take(plan: Plan, block: Block, kept: Kept, target: str) -> Done:
    """The second pass: write the rows of a block that stay, all columns of them.

    Returns:
        ``rows``, ascending, and ``digest`` of what tells them apart.
    """
    clock = _Clock()
    with located(block):
        if kept.batches is None:
            rows, table, samples = np.sort(kept.rows), None, None
        else:
            samples, table = _read(plan, block, plan.keys(), clock)
            with clock("sort"):
                batches = _again(plan, block, samples, kept.order)
            rows = _rows(plan, block, batches, kept)
        with clock("take"):
            columns = _taken(plan, block, rows, table, samples)
            if kept.weights is not None:
                pa = arrow.import_arrow("writing Parquet files")
                columns = columns.append_column(
                    pa.field(kept.name, pa.float64(), nullable=False), pa.array(kept.weights)
                )
            digest = _identity(plan, block, rows, columns)
    where = Path(target)
    with (
        clock("write"),
        storage_errors("write the selection", where.parent),
        replacing(where) as temporary,
    ):
        parquet().write_table(
            columns, temporary, compression="none", use_dictionary=False, write_page_checksum=True
        )
    return clock.done({"rows": rows, "digest": np.frombuffer(digest, np.uint8)})


def _rows(plan: Plan, block: Block, batches: Batches, kept: Kept) -> np.ndarray:
    """Row numbers of what stays of a block that was cut into batches, ascending."""
    assert kept.batches is not None
    parts = [batches.order[np.repeat(_mask(len(batches), kept.batches), batches.sizes)], kept.rows]
    if kept.fill is not None:
        batch, count = kept.fill
        drawn = block.generator(plan.seed, "fill").permutation(batches.rows(batch))
        parts.append(drawn[:count])
    return np.sort(np.concatenate(parts))


def _mask(size: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows] = True
    return mask


def _taken(plan: Plan, block: Block, rows: np.ndarray, table: Any, samples: Samples | None) -> Any:
    """Rows of all columns that are written, as an Arrow table."""
    pa = arrow.import_arrow("writing Parquet files")
    # What is held has the columns, too, that folders state for the files.
    wanted = [*plan.output, *(plan.partitions if block.file.held else ())]
    stated = dict(block.file.partitions)
    there = [] if table is None else [n for n in wanted if n in table.column_names]
    further = [name for name in wanted if name not in there]
    inputs = () if plan.model is None else plan.sources[plan.model.inputs].columns
    if plan.model is not None and samples is None:
        further += [name for name in inputs if name not in further and name not in stated]
    found = read(block, further, rows) if further else None
    made = {} if found is None else {name: found.column(name) for name in further}
    made |= {name: table.column(name).take(pa.array(rows)) for name in there}
    fields = {**_fields(found), **_fields(table)}
    columns = [(fields[name], made[name]) for name in wanted]
    columns += [
        (pa.field(name, pa.scalar(value).type, nullable=False), pa.repeat(value, len(rows)))
        for name, value in stated.items()
    ]
    if plan.model is not None:
        if samples is None:
            outputs = plan.model.outputs(decoded(found, plan.sources[plan.model.inputs]))
        else:
            outputs = samples[plan.model.column][rows]
        array = arrow.to_table({plan.model.column: outputs}).column(0)
        columns.append((pa.field(plan.model.column, array.type), array))
    schema = pa.schema([one for one, _ in columns])
    return pa.table([data for _, data in columns], schema=schema)


def _fields(table: Any) -> dict[str, Any]:
    return {} if table is None else {one.name: one for one in table.schema}


def _identity(plan: Plan, block: Block, rows: np.ndarray, columns: Any) -> bytes:
    """Digest of the ids of rows; without ids of the file's name and their numbers in it."""
    digest = hashlib.sha256()
    if plan.ids is None:
        digest.update(block.file.name.encode() + b"\0")
        digest.update((rows + block.first).astype("<i8").tobytes())
    else:
        source = plan.sources[plan.ids]
        absent = [name for name in source.columns if name not in columns.column_names]
        ids = decoded(read(block, absent, rows) if absent else columns, source)
        if ids.dtype.kind in "iu":
            digest.update(ids.astype("<i8").tobytes())
        else:
            digest.update("\0".join(map(str, ids.tolist())).encode())
    return digest.digest()


# --- reading ----------------------------------------------------------------------------------


def _read(plan: Plan, block: Block, names: list[str], clock: _Clock) -> tuple[Samples, Any]:
    """Columns of a block for the policy, with predictions if a model makes them."""
    with clock("read"):
        sources = [plan.sources[name] for name in names]
        stated = dict(block.file.partitions)
        columns = list(dict.fromkeys(c for source in sources for c in source.columns))
        wanted = [column for column in columns if column not in stated]
        if block.file.held and plan.space is not None and isinstance(plan.policy, DensityReservoir):
            wanted.append(STANDS_FOR)
        table = read(block, wanted)
        for name in columns:
            if name in stated:
                pa = arrow.import_arrow("reading Parquet files")
                table = table.append_column(name, pa.repeat(stated[name], block.rows))
        arrays = {source.name: decoded(table, source) for source in sources}
    samples = Samples.borrow(arrays)
    if plan.model is not None and plan.model.inputs in samples:
        with clock("predict"):
            outputs = plan.model.outputs(samples[plan.model.inputs])
            samples = samples.with_columns({plan.model.column: outputs})
    return samples, table


Task = Callable[..., Done]
