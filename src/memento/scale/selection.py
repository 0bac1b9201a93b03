"""Selecting from more rows than fit into memory: two passes over blocks, one decision between."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from memento import arguments, arrow
from memento.distances import Distance
from memento.errors import (
    InputError,
    SettingError,
    SpaceError,
    StorageError,
)
from memento.files import local_path, replace_folder, replacing, storage_errors, write_json
from memento.policies import DensityReservoir, Memento, Policy, State
from memento.samples import Samples
from memento.scale import passes
from memento.scale.blocks import (
    BLOCK_ROWS,
    KIND,
    REPORT,
    Block,
    File,
    blocks_of,
    check_apart,
    find,
    given,
    located,
    read,
)
from memento.scale.decide import Decision, Outcome, decision_of
from memento.scale.layouts import Source, check_maps, check_same, check_widths, decoded
from memento.scale.partial import Partial, place
from memento.scale.passes import Done, Kept
from memento.scale.planning import derives, footer, planned, with_partitions
from memento.scale.predictions import Model, model_of
from memento.scale.result import MARKS, Held, Selected, held_of
from memento.scale.workers import Here, Processes, Workers

__all__ = ["select"]

#: Told the stage, and rows done and in all.
Progress = Callable[[str, int, int], None]

# Stages that only the client works in.
_HERE = ("open", "prepare", "decide", "finish")
# Values that a grid is derived from, of all blocks together.
_LOOKED_AT = 1 << 20
_FINGERPRINT_ROWS = 64


@arguments.checked
def select(
    paths: Any,
    capacity: arguments.Count,
    policy: Policy,
    to: str | Path,
    client: Any = None,
    predict: Any = None,
    seed: arguments.Seed = 0,
    *,
    workers: Annotated[int, arguments.whole(0)] = 0,
    held: Any = None,
    inputs: str = "x",
    predictions: str = "yhat",
    columns: Sequence[str] | None = None,
    maps: Mapping[str, Any] | None = None,
    identify_by: str | None = None,
    weight: str = "weight",
    block_rows: arguments.Count = BLOCK_ROWS,
    progress: Progress | None = None,
) -> Selected:
    """Choose rows of Parquet files that need not fit into memory, and write them to a folder.

    Files are read twice, a block (a row group) at a time: first what the policy compares rows by,
    of which only summaries of batches are kept; then, once it is decided which batches stay, their
    rows. The result depends on files, settings and seed alone: not on workers, nor on the order in
    which files are listed. The same call goes on where a killed one was.

    **Blocks are sorted by themselves.** `Memento` and `DensityReservoir` cut batches of each block,
    while a `Memory` sorts all samples at once; so batches are as pure as a block allows. Rows that
    fill no batch in their block (``remainder="drop"`` or ``"keep"``) are batched once more, over
    all blocks. What differs in what is kept was measured: see ``docs/scale.md``.

    Args:
        paths: Parquet files, folders (also with ``day=2026-01-07/``, which becomes a column),
            patterns, or a list of these.
        capacity: Most rows to keep.
        policy: `Memento`, `DensityReservoir`, `Reservoir` or `ClassBalancedReservoir`.
        to: Folder for the result; whole or absent. What is found on the way lies in ``TO.partial``
            until then.
        client: A ``distributed.Client`` of Dask's, or the address of a scheduler, whose workers see
            the files and the folder under the same paths.
        predict: Makes the column ``predictions`` from ``inputs`` while reading: a function from an
            array to an array, a module of torch, an estimator of scikit-learn, or the path of an
            ONNX file. None trusts what the files hold.
        seed: Of all draws, 0 or more.
        workers: Processes on this machine; 0 works in this one.
        held: What was selected before: a folder of `select`'s, one of `Memory.save`, or a `Memory`.
            Its rows compete with those of the files. Keys and weights are for life.
        inputs: Column that ``predict`` reads.
        predictions: Column that it makes.
        columns: Columns of the files to write; all if left out.
        maps: For names of columns the columns of the files that make them, or a pattern:
            ``{"yhat": "p_*"}``. Without it ``yhat`` is a column, or ``yhat_0``, ``yhat_1``, ...
        identify_by: Column of integers that tell rows apart. Keys are then a hash of them instead
            of being drawn, and the digest is over them.
        weight: Name of the column for training weights, where the policy knows any.
        block_rows: Most rows of a block.
        progress: Told the stage, and rows done and in all.

    Returns:
        The report, which also lies in ``TO/report.json``.

    Raises:
        InputError: Columns are missing or differ between files, values cannot be compared, a file
            is there twice, or a setting does not fit; with the file and the row group.
        StorageError: A file is damaged or changes meanwhile, or the disk is full.
        ModelError: ``predict`` fails.
        WorkerError: Workers are gone. What was found is kept.
    """
    if client is not None and workers:
        raise SettingError("client and workers are given; give one of them")
    decision = decision_of(policy)
    capacity, seed, workers, block_rows = map(int, (capacity, seed, workers, block_rows))
    policy.check_capacity(capacity)
    folder = local_path(to, "to")
    model = model_of(predict, inputs, predictions)
    run = _Run(
        folder=folder,
        capacity=capacity,
        policy=policy,
        seed=seed,
        model=model,
        before=held_of(held, policy),
        identify_by=identify_by,
        weight=weight,
        tell=progress or (lambda *_: None),
        partial=Partial(folder),
    )
    named = given(paths)
    files = find(named)
    check_apart(named, folder, None if run.before is None else run.before.folder)
    run.open(files, block_rows, columns, check_maps({} if maps is None else maps))
    if (done := run.earlier()) is not None:
        run.partial.remove()  # where that call was killed before it did so
        return done
    run.check_before()
    with run.partial.opened(), _workers(client, workers) as working:
        run.prepare(working, block_rows)
        outcome = run.decide(decision, working)
        selected = run.write(outcome, working)
    run.partial.remove()
    return selected


def _workers(client: Any, count: int) -> Workers:
    if client is not None:
        from memento.scale.dask import Cluster

        return Cluster(client)
    return Processes(count) if count else Here()


@dataclass
class _Run:
    """One selection, from its files to its report."""

    folder: Path
    capacity: int
    policy: Policy
    seed: int
    model: Model | None
    before: Held | None
    identify_by: str | None
    weight: str
    tell: Progress
    partial: Partial
    blocks: list[Block] = field(default_factory=list)
    files: list[tuple[File, int]] = field(default_factory=list)
    seconds: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=lambda: {"client": 0, "worker": 0})
    settings: str = ""
    batches: int = 0

    # --- what there is ------------------------------------------------------------------------

    def open(
        self,
        files: Sequence[File],
        block_rows: int,
        columns: Sequence[str] | None,
        maps: dict[str, tuple[str, ...]],
    ) -> None:
        """Read the footers of all files, and see that they fit each other and the policy."""
        total = 0
        with self._stage("open"):
            for number, file in enumerate(files):
                schema, groups, size = footer(file)
                if not number:
                    self._maps = maps
                    self.plan, self._schema = planned(
                        file,
                        schema,
                        self.policy,
                        self.model,
                        columns=columns,
                        maps=maps,
                        keyed=self.identify_by,
                        capacity=self.capacity,
                        seed=self._drawn_with(),
                        weight=self.weight,
                    )
                    first = file.path, self._schema
                check_same(first, (file.path, with_partitions(schema, file)), self.plan.columns())
                self.blocks += blocks_of(file, groups, block_rows)
                self.files.append((file, sum(groups)))
                total += size
                self.tell("open", number + 1, len(files))
        rows = sum(block.rows for block in self.blocks)
        if not rows:
            raise InputError(f"{files[0].path} has no rows, like all files; there is nothing to do")
        self._bytes = total / rows
        if self.model is not None:
            self._fingerprint()

    def check_before(self) -> None:
        """Raise if a file went into what is held already, or is of it.

        Raises:
            InputError: With the file.
        """
        if self.before is None:
            return
        # By path, and by name: a folder may have been moved since.
        known = {tuple(part) for one in self.before.history for part in (one[:3], one[1:])}
        own = None if self.before.folder is None else self.before.folder.resolve()
        for file, _ in self.files:
            path = Path(file.path).resolve()
            about = file.size, file.changed
            if (file.name, *about) in known or (*about, str(path)) in known:
                what = "went into what is held already"
            elif own is not None and own in path.parents:
                what = "is of what is held"
            else:
                continue
            raise InputError(f"{file.path} {what}; its rows would count twice, leave it out")

    def call(self, held: str | None) -> str:
        """Tells this call, with what is held by its digest, from all others."""
        about = {
            "files": [[file.name, file.size, file.changed] for file, _ in self.files],
            "held": held,
            "settings": self._settings(),
            "fingerprint": self._model_digest,
        }
        return _sha(about)

    def _drawn_with(self) -> int:
        """Seed of the draws: with another one each time that something is held.

        Or rows at the same places of files with the same name would have equal keys every day.
        """
        if self.before is None:
            return self.seed
        return int(_sha([self.seed, self.before.digest])[:15], 16)

    def _settings(self) -> dict[str, Any]:
        """All that decides about the result but the files' content and what is held."""
        plan = self.plan
        return {
            "policy": self.policy.settings(),
            "capacity": self.capacity,
            "seed": self.seed,
            "blocks": [
                [block.file.name, block.first, block.rows]
                for block in self.blocks
                if not block.file.held
            ],
            "sources": [dataclasses.asdict(source) for source in plan.sources.values()],
            "output": plan.output,
            "ids": plan.ids,
            "weight": self.weight,
            "model": None if self.model is None else [self.model.inputs, self.model.column],
        }

    def earlier(self) -> Selected | None:
        """The report of the same call, if it has been completed.

        Raises:
            StorageError: The folder holds something else.
        """
        folder = self.folder
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        if (folder / REPORT).is_file():
            found = Selected.read(folder)
            held, before = None, self.before
            if before is not None:
                held = before.digest
                if before.folder is not None and before.folder.resolve() == folder.resolve():
                    # This call may have replaced already what it went on from.
                    held = found.document.get("held")
                    if held is None or found.document["call"] != self.call(held):
                        return None
            if found.document["call"] == self.call(held):
                return found
        raise StorageError(
            f"{folder} holds something already, which another call made; choose another folder, "
            "or remove it"
        )

    # --- before the first pass -----------------------------------------------------------------

    def prepare(self, working: Workers, block_rows: int) -> None:
        """Put what is held beside the files, and bind the distances once for all blocks."""
        with self._stage("prepare"):
            if self.before is not None and self.before.rows:
                self.blocks = [*self._held_blocks(self.before, block_rows), *self.blocks]
        self.plan = replace(self.plan, several=len(self.blocks) > 1)
        about = {**self._settings(), "fingerprint": self._model_digest}
        # Summaries are of the batch size, not of the capacity that it comes from.
        about |= {"capacity": None, "size": self.plan.size, "blocks": None, "output": None}
        about |= {"several": self.plan.several, "seed": self.plan.seed}
        self.settings = _sha(about)
        self._bind(working)

    _model_digest: str | None = None

    def _fingerprint(self) -> None:
        assert self.model is not None
        block = self.blocks[0]
        with located(block):
            rows = np.arange(min(_FINGERPRINT_ROWS, block.rows))
            source = self.plan.sources[self.model.inputs]
            table = read(block, source.columns, rows)
            self._model_digest = self.model.fingerprint(decoded(table, source))

    def _held_blocks(self, before: Held, block_rows: int) -> list[Block]:
        """Blocks of what is held, which is put into one file first."""
        counts = None
        if isinstance(self.policy, DensityReservoir) and self.plan.space is not None:
            counts = self.policy.stands_for(before.state, before.rows)
        pa = arrow.import_arrow("selecting from Parquet files")
        schema = pa.schema([self._schema.field(name) for name in self.plan.columns()])
        about: list[Any] = [before.digest, self._maps, schema.to_string(show_field_metadata=True)]
        # How many samples a row stands for depends on the policy.
        digest = _sha([*about, None if counts is None else self.policy.settings()])
        target = self.partial.folder / f"held-{digest[:24]}.parquet"
        if not target.exists():
            with (
                storage_errors("write what is held", target.parent),
                replacing(target) as temporary,
            ):
                before.write(temporary, counts, (self.files[0][0].path, schema), self._maps)
        found = target.stat()
        file = File(str(target.absolute()), "held", found.st_size, found.st_mtime_ns, (), True)
        return blocks_of(file, footer(file)[1], block_rows)

    def _bind(self, working: Workers) -> None:
        """Fix what distances derive from data: classes, grids."""
        space = self.plan.space
        if space is None:
            return
        unbound = [d for d in space.distances if derives(d)]
        if not unbound:
            return
        labels = tuple(dict.fromkeys(name for d in unbound for name in d.labels))
        others = dict.fromkeys(n for d in unbound for n in d.columns if n not in labels)
        count = max(256, _LOOKED_AT // len(self.blocks))
        found = self._pass(
            "look",
            passes.look,
            working,
            [(labels, dict.fromkeys(others, count))] * len(self.blocks),
        )
        joined = {name: np.concatenate([one[name] for one in found]) for name in [*labels, *others]}
        distances: list[Distance] = []
        for distance in space.distances:
            if distance in unbound:
                parts = {name: joined[name] for name in distance.columns}
                if len({len(part) for part in parts.values()}) > 1:
                    raise SettingError(
                        f"{distance!r} derives from several columns at once what it compares by; "
                        "state it when you make it"
                    )
                distances.append(distance.bind([Samples.borrow(parts)]))
            else:
                distances.append(distance)
        self.plan = replace(self.plan, space=replace(space, distances=tuple(distances)))
        bound = {name: _sha_of(array) for name, array in joined.items()}
        self.settings = _sha([self.settings, bound])

    # --- the passes ----------------------------------------------------------------------------

    def decide(self, made: type[Decision], working: Workers) -> Outcome:
        """The first pass, the decision, and what it has to ask for."""
        state = self.before.state if self.before is not None else State()
        decision = made(self.plan, self.blocks, self.capacity, state)
        found: list[dict[str, np.ndarray]] = [{} for _ in self.blocks]
        everything = decision.held + decision.fresh <= self.capacity
        if decision.summarises and not (everything and isinstance(self.policy, Memento)):
            found = self._pass("summarise", passes.summarise, working, [()] * len(self.blocks))
            self.batches = sum(len(arrays.get("sizes", ())) for arrays in found)
        attempt = 0
        while True:
            with self._stage("decide"):
                asks = decision.asks(found, attempt, self._told("decide"))
            ranked: list[Any] = [None] * len(self.blocks)
            own = [i for i, ask in enumerate(asks) if ask is not None]
            if own:
                answers = self._pass(
                    "rank", passes.rank, working, [(asks[i],) for i in own], own, keep=False
                )
                for i, answer in zip(own, answers, strict=True):
                    ranked[i] = answer
            with self._stage("decide"):
                outcome = decision.outcome(found, ranked, self._told("decide"))
            if outcome is not None:
                return outcome
            attempt += 1

    def _told(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.tell(stage, done, total)

    def _pass(
        self,
        stage: str,
        task: passes.Task,
        working: Workers,
        given: Sequence[tuple[Any, ...]],
        which: Sequence[int] | None = None,
        *,
        keep: bool = True,
    ) -> list[dict[str, np.ndarray]]:
        """Arrays that a task gives for each block; what was stored before is not made again."""
        blocks = self.blocks if which is None else [self.blocks[i] for i in which]
        found: list[dict[str, np.ndarray] | None] = [None] * len(blocks)
        places = [self.partial.summary(stage, self.settings, block) for block in blocks]
        if keep:
            found = [self.partial.load(path) for path in places]
        left = [i for i, arrays in enumerate(found) if arrays is None]
        work = [(blocks[i], given[i]) for i in left]
        total = sum(block.rows for block in blocks)
        rows = total - sum(block.rows for block, _ in work)
        self.seconds.setdefault(stage, {})["stored"] = len(blocks) - len(work)
        with self._stage(stage):
            self.tell(stage, rows, total)
            for number, done in working.results(task, self.plan, work):
                i = left[number]
                if keep:
                    self.partial.store(places[i], done.arrays)
                found[i] = done.arrays
                self._count(stage, done)
                rows += blocks[i].rows
                self.tell(stage, rows, total)
        arrays = [one for one in found if one is not None]
        check_widths(list(map(str, blocks)), arrays)
        return arrays

    def _count(self, stage: str, done: Done) -> None:
        spent = self.seconds.setdefault(stage, {})
        for step, seconds in done.seconds.items():
            spent[step] = spent.get(step, 0.0) + seconds
        self.memory["worker"] = max(self.memory["worker"], done.memory)

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        start = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            spent = self.seconds.setdefault(stage, {})
            spent["clock"] = spent.get("clock", 0.0) + time.perf_counter() - start[0]
            if stage in _HERE:
                spent["client"] = spent.get("client", 0.0) + time.thread_time() - start[1]
            self.memory["client"] = max(self.memory["client"], passes.peak())

    # --- the result ----------------------------------------------------------------------------

    def write(self, outcome: Outcome, working: Workers) -> Selected:
        """The second pass, and the folder of the result."""
        kept = [
            one if one.weights is None else replace(one, name=self.weight) for one in outcome.kept
        ]
        chosen = [i for i, one in enumerate(kept) if _any_rows(one)]
        settings = _sha([self.settings, self.plan.output])
        paths = [self.partial.part(i, settings, self.blocks[i], kept[i]) for i in chosen]
        work, left = [], []
        done: dict[int, dict[str, np.ndarray]] = {}
        for i, path in zip(chosen, paths, strict=True):
            facts = self.partial.taken(path)
            if facts is None:
                work.append((self.blocks[i], (kept[i], str(path))))
                left.append(i)
            else:
                done[i] = facts
        self._check_room(kept)
        total = sum(self.blocks[i].rows for i in chosen)
        rows = total - sum(block.rows for block, _ in work)
        by_number = dict(zip(chosen, paths, strict=True))
        with self._stage("take"):
            self.tell("take", rows, total)
            for number, result in working.results(passes.take, self.plan, work):
                i = left[number]
                self.partial.store_taken(by_number[i], result.arrays)
                done[i] = result.arrays
                self._count("take", result)
                rows += self.blocks[i].rows
                self.tell("take", rows, total)
        return self._finish(outcome, [(i, by_number[i], done[i]) for i in chosen])

    def _check_room(self, kept: Sequence[Kept]) -> None:
        """Raise before anything is written if there is clearly no room for it."""
        needed = int(self._bytes * min(self.capacity, sum(block.rows for block in self.blocks)))
        with storage_errors("write the selection", self.partial.folder):
            free = shutil.disk_usage(self.partial.folder).free
        if needed > free:
            raise SpaceError(
                f"{self.folder.parent} has {free:,} bytes left, and what is selected takes about "
                f"{needed:,}; make room, or choose another folder. What was found so far is kept "
                f"in {self.partial.folder}, and the same call goes on from there"
            )

    def _finish(
        self, outcome: Outcome, parts: Sequence[tuple[int, Path, dict[str, np.ndarray]]]
    ) -> Selected:
        """Put the parts into the folder, the report last."""
        digest = hashlib.sha256(_sha([self._settings(), self._model_digest]).encode())
        counts = dict.fromkeys((file.name for file, _ in self.files), 0)
        from_held = 0
        for i, _, facts in parts:
            digest.update(facts["digest"].tobytes())
            block = self.blocks[i]
            if block.file.held:
                from_held += len(facts["rows"])
            else:
                counts[block.file.name] += len(facts["rows"])
        before = self.before
        offered = sum(rows for _, rows in self.files)
        history = [] if before is None else list(before.history)
        history += [
            [file.name, file.size, file.changed, str(Path(file.path).resolve())]
            for file, _ in self.files
        ]
        listed: list[dict[str, Any]] = [
            {
                "name": f"part-{i:05d}.parquet",
                "rows": len(facts["rows"]),
                "bytes": path.stat().st_size,
            }
            for i, path, facts in parts
        ]
        document = {
            "kind": KIND,
            "digest": digest.hexdigest(),
            "call": self.call(None if before is None else before.digest),
            "held": None if before is None else before.digest,
            "offered": offered,
            "kept": from_held + sum(counts.values()),
            "kept_of_held": from_held,
            "files": [
                {"name": file.name, "offered": rows, "kept": counts[file.name]}
                for file, rows in self.files
            ],
            "density": outcome.notes,
            "seconds": {},
            "memory": self.memory,
            "blocks": len(self.blocks),
            "batches": self.batches,
            "capacity": self.capacity,
            "seed": self.seed,
            "policy": self.policy.settings(),
            "counters": dict(outcome.state.counters),
            "seen": offered + (0 if before is None else before.seen),
            "inserts": 1 + (0 if before is None else before.inserts),
            "sources": [dataclasses.asdict(source) for source in self._written_sources()],
            "weight": self.weight if any(k.weights is not None for k in outcome.kept) else None,
            "parts": listed,
            "history": history,
        }
        where = self.folder.parent
        with self._stage("finish"), storage_errors("write the selection", self.folder):
            where.mkdir(parents=True, exist_ok=True)
            with replace_folder(self.folder, replace=self.before is not None) as new:
                for one, (_, path, _) in zip(listed, parts, strict=True):
                    place(path, new / one["name"])
                if outcome.state.marks:
                    np.savez(new / MARKS, **outcome.state.marks)  # type: ignore[arg-type]
                document["seconds"] = self.seconds
                write_json(new / REPORT, document)
        return Selected.read(self.folder)

    def _written_sources(self) -> list[Source]:
        """Where the policy's columns come from in the files that are written."""
        plan = self.plan
        there = {*plan.output, *plan.partitions}
        found = [s for s in plan.sources.values() if set(s.columns) <= there]
        made = [] if self.model is None else [self.model.column]
        return [*found, *(Source(name, (name,)) for name in made)]


# --- digests --------------------------------------------------------------------------------------


def _any_rows(kept: Kept) -> bool:
    return bool(len(kept.rows) or kept.fill or (kept.batches is not None and len(kept.batches)))


def _sha(about: Any) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _sha_of(array: np.ndarray) -> str:
    if array.dtype.kind in "OU":
        return _sha(array.tolist())
    return hashlib.sha256(array.tobytes()).hexdigest()
