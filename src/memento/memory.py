"""Memory: contents, a policy and a generator, joined by arguments."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memento import arguments, snapshot
from memento.arrivals import Arrivals
from memento.contents import Change, Column, Contents, columns_of, latest, taken_rows
from memento.draws import drawn, subset
from memento.errors import DamagedError, ForeignError, SchemaError, SettingError, warn
from memento.explain import Held, explained, training_weights
from memento.files import Lock, local_path
from memento.guarded import Guarded, guarded, to_the_end
from memento.kinds import through_json, usual_settings
from memento.landmarks import Approximation
from memento.offered import Offered
from memento.policies._policy import Choice, Policy, State, policy_from_settings
from memento.printing import Table
from memento.samples import Samples
from memento.saved import foreign_classes, memory_fields, offered_before, recent_arrivals
from memento.schema import Plan, Schema

__all__ = ["Memory", "Report"]

_KIND = "memento-memory"
_POLICY = arguments.instance(Policy, "a Policy, such as memento.FIFO()")


@dataclass(frozen=True)
class Report:
    """What an insert did.

    Attributes:
        offered: Number of samples that came.
        kept: How many of these were kept.
        discarded: Samples that went, of those offered and of those held before.
        approximations: How densities were made that might be approximate, one entry a distance (and
            part that was thinned); ``str`` of one says it in a sentence.
    """

    offered: int
    kept: int
    discarded: int
    approximations: tuple[Approximation, ...] = ()

    def __repr__(self) -> str:
        approximate = [each for each in self.approximations if not each.exact]
        more = f", approximations={approximate}" * bool(approximate)
        return f"Report(offered={self.offered}, kept={self.kept}, discarded={self.discarded}{more})"


class Memory(Guarded):
    """Holds at most ``capacity`` samples of an endless stream, chosen by a policy.

    Args:
        capacity: Most samples to hold, at least 1; None for no limit (only with policies that keep
            everything).
        policy: Decides what stays, such as `Memento`.
        seed: Of the memory's own generator: an integer, or a ``numpy.random.Generator``, which then
            belongs to the memory.
        ids: Column of integers or texts that tell samples apart. Samples that carry one may come
            without labels (NaN, an empty text, or no such column): they wait, and `label` gives
            them what comes later.

    Raises:
        SettingError: The capacity is not positive, or too small for the policy.

    Example:
        >>> from memento import FIFO, Memory
        >>> memory = Memory(capacity=3, policy=FIFO(), seed=0)
        >>> memory.insert(x=[[0.0], [1.0]], y=[0, 1])
        Report(offered=2, kept=2, discarded=0)
        >>> memory.insert(x=[[2.0], [3.0]], y=[1, 0]).discarded
        1
        >>> memory.samples["y"], len(memory), memory.seen
        (array([1, 1, 0]), 3, 4)
    """

    def __init__(
        self,
        capacity: int | None,
        policy: Policy,
        seed: int | np.random.Generator = 0,
        *,
        ids: str = "id",
    ) -> None:
        arguments.require("policy", policy, _POLICY)
        if capacity is not None:
            number = isinstance(capacity, (int, float, np.integer))
            if not number or capacity is True or not (1 <= capacity < 2**63 and capacity % 1 == 0):
                raise SettingError(
                    f"capacity is {arguments.shown(capacity)}; expected a whole number above 0"
                )
            capacity = int(capacity)
        policy.check_capacity(capacity)
        arguments.require("ids", ids, arguments.text())
        super().__init__()
        self._capacity = capacity
        self._policy = policy
        self._contents = Contents(arguments.generator(seed), schema=Schema(ids))
        self._token = object()  # tells its contents from other samples
        self._change: Change | None = None  # on the way to the next contents

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            state, now = super().__getstate__(), self._contents
            # Lent, as they are copied (or pickled) only after this, while others may insert.
            lent = {name: Column(column.lend(now.size)) for name, column in now.columns.items()}
            return {**state, "_contents": replace(now, columns=lent)}

    @property
    def capacity(self) -> int | None:
        """Most samples to hold; None for no limit."""
        return self._capacity

    @property
    def policy(self) -> Policy:
        """What decides which samples stay; see `use`."""
        return self._policy

    @property
    def ids(self) -> str:
        """Column that tells samples apart, for `label`."""
        return self._now().schema.ids

    @property
    def waiting(self) -> np.ndarray:
        """``(len,)`` bool: samples that wait for something that the policy reads, or just got it.

        They are no choice of the policy yet: it is offered them with the first insert after
        their label has come.
        """
        now = self._now()
        return np.zeros(now.size, bool) if now.keys is None else ~np.isnan(now.keys)

    @property
    def seen(self) -> int:
        """Samples offered so far."""
        return self._now().seen

    @property
    def offered(self) -> Offered:
        """A small uniform sample of all that was offered, to compare with what is held."""
        return self._now().offered

    @property
    def inserts(self) -> int:
        """Inserts so far."""
        return self._now().inserts

    @property
    def units(self) -> Mapping[str, int]:
        """Names given to `insert_unit`, the last 10,000, and with which insert each came."""
        return dict(self._now().units)

    @property
    def state(self) -> State:
        """What the policy remembers; not to be changed."""
        return self._now().state

    @property
    def arrivals(self) -> np.ndarray:
        """``(len,)`` int64: with which insert each sample came, from 1."""
        return self._now().arrivals.copy()

    @property
    def model(self) -> str | None:
        """Digest of the model that predicted for what is held, set by the caller; None: unknown."""
        return self._now().model

    @model.setter
    def model(self, digest: str | None) -> None:
        self._become(model=digest)

    @property
    def reference_model(self) -> str | None:
        """The same of the predictions in `reference`; `mark_trained` makes it unknown."""
        return self._now().reference_model

    @reference_model.setter
    def reference_model(self, digest: str | None) -> None:
        self._become(reference_model=digest)

    @property
    def stacked(self) -> dict[str, Sequence[str]]:
        """Names of what columns of rows were made of, such as inputs; for pages, and saved."""
        return dict(self._now().schema.stacked)

    @stacked.setter
    def stacked(self, names: Mapping[str, Sequence[str]]) -> None:
        self._become(schema=replace(self._now().schema, stacked=dict(names)))

    @property
    def recent(self) -> Arrivals | None:
        """What came in lately, set and used by the caller for a trigger; saved with the memory."""
        return self._now().recent

    @recent.setter
    def recent(self, arrivals: Arrivals | None) -> None:
        self._become(recent=arrivals)

    def __len__(self) -> int:
        return self._now().size

    def __repr__(self) -> str:
        limit = "no limit" if self._capacity is None else f"{self._capacity:,}"
        return f"<Memory of {len(self):,} samples (capacity {limit}) by {self._policy!r}>"

    @property
    @guarded
    def samples(self) -> Samples:
        """What is held, in order of arrival: read-only, and unaffected by later inserts.

        Nothing is copied now; an insert makes a copy only if these arrays are still in use then.
        """
        return self._contents.lend().owned_by(self._token)

    @property
    def weights(self) -> np.ndarray | None:
        """``(len,)`` weights for training, or None if the policy cannot state any.

        Estimates of how many samples of the stream each sample stands for: 1 / its probability to
        be held. Samples in `waiting` have the mean weight of the others.
        """
        return training_weights(self._now(), self._policy)

    def get(self, count: int | None = None, *, rng: Any = None) -> Samples:
        """So many of the samples held, drawn without replacement, in order of arrival.

        Args:
            count: How many; all of them where there are no more, or where it is None.
            rng: Where the draw comes from: a generator, or a seed for one.

        Raises:
            SettingError: ``count`` is no whole number from 0 on, or samples are drawn and ``rng``
                is not given.

        Example:
            >>> from memento import FIFO, Memory
            >>> memory = Memory(100, FIFO())
            >>> memory.insert(y=range(10)).kept
            10
            >>> memory.get(3, rng=0)["y"], memory.get().size
            (array([2, 4, 6]), 10)
        """
        return subset(self.samples, count, rng)

    def sample(self, count: int, *, rng: Any) -> Samples:
        """A minibatch: so many draws with replacement, each by the samples' training weights.

        Args:
            count: How many draws.
            rng: Where they come from: a generator, or a seed for one. The memory's own is not
                touched, so what is drawn does not change what is kept.

        Returns:
            ``count`` samples, in the order of the draws; those of larger `weights` are drawn more
            often, and all equally often where the policy states none.

        Raises:
            SettingError: An argument is of another kind.
            RowError: Nothing is held.

        Example:
            >>> from memento import FIFO, Memory
            >>> memory = Memory(100, FIFO())
            >>> memory.insert(y=range(10)).kept
            10
            >>> memory.sample(4, rng=0)["y"]
            array([8, 6, 5, 2])
        """
        now, held = self._shared()
        return drawn(held, training_weights(now, self._policy), count, rng)

    def why(self, rows: Any = None) -> Table:
        """Why samples are held: when they came, where they lie, how rare they are.

        Args:
            rows: Which of `samples`: a number, a list of numbers, a slice or a mask; None: all.

        Returns:
            A table, a mapping of columns that prints readably. ``row``; ``insert`` (with which the
            sample came, from 1) and ``age`` (inserts since); ``unit``, where units have names. Of
            policies with distances: ``cell`` (batch that it lies in now, in sorted order; -1:
            none), ``cell_size``, ``density`` of the cell, ``denser`` (share of what is held that
            lies denser: 0.99 is the rarest hundredth). Of `Memento`, whose densities are those
            among what is held: ``chance``, the probability that the cell goes next. Of policies
            that state weights: ``weight`` for training. Of `DensityReservoir` and `LossReservoir`:
            ``stands_for`` (samples of the stream that it represents) and ``favoured`` (the weight
            that it was drawn with, 1 is usual); of the former, densities are those of the stream so
            far. ``waiting``, where samples wait for a label. What is not known is NaN; the table's
            ``note`` says what the policy cannot say.

        Raises:
            RowError: There are no such rows.

        Example:
            >>> from memento import JensenShannon, Memento, Memory
            >>> policy = Memento([JensenShannon.of_labels("y", 2)], batch_size=2, temperature=0.0)
            >>> memory = Memory(6, policy)
            >>> memory.insert_unit("monday", {"y": [0, 0, 0, 0, 1, 1]}).kept
            6
            >>> print(memory.why([0, 5]))
            row  insert  age    unit  cell  cell_size  density  denser  chance
              0       1    0  monday     0          2    0.266       0       0
              5       1    0  monday     2          2    0.133  0.6667       0
            Memento keeps no count of what it discards: how many each stands for is not known.
        """
        now, samples = self._shared()
        return explained(Held(now, samples, self._policy, self._capacity), rows)

    @guarded
    def insert(self, data: Any = None, /, **columns: Any) -> Report:
        """Offer new samples; the policy decides what stays.

        Args:
            data: A mapping, DataFrame, Arrow table or `Samples`; see `Samples`.
            **columns: Columns by name, instead or in addition.

        Returns:
            What happened. No rows at all change nothing.

        Columns may come later than the first samples: what is held counts as missing there (NaN,
        NaT or an empty text), and the policy does without the column until `annotate` has filled it
        or all that lacked it has gone. Samples with an id (see ``ids``) may lack what the policy
        reads, a label that is late, and wait: of all that do a uniform random sample is held, in up
        to half of the places, or more where the others do not fill the rest. Where a prediction has
        more classes than those held, these get zeros appended.

        Raises:
            SchemaError: Columns are missing, or of another type, width or length.
            DomainError: Values that the policy cannot work with.

        If it raises, the memory is as it was; only an interrupt from the keyboard may be raised
        when the insert is complete (`inserts` tells).
        """
        return self._insert(Samples.borrow_identified(self.ids, data, columns), [])

    @guarded
    def insert_unit(self, names: str | Sequence[str], data: Any) -> Report:
        """Insert a unit of the stream, a day say, unless it went in before: safe to repeat.

        Args:
            names: What the unit is called; several names if it goes by any of them.
            data: As for `insert`, which says what is raised.

        Returns:
            What happened. Where a name is among `units`, nothing did: none kept, none discarded.

        Example:
            >>> from memento import FIFO, Memory
            >>> memory = Memory(10, FIFO())
            >>> memory.insert_unit("2026-01-07", {"y": [0, 1]})
            Report(offered=2, kept=2, discarded=0)
            >>> memory.insert_unit("2026-01-07", {"y": [0, 1]}), len(memory)
            (Report(offered=2, kept=0, discarded=0), 2)
        """
        arguments.require("names", names, arguments.ITERABLE)
        names = [names] if isinstance(names, str) else list(names)
        fresh = Samples.borrow_identified(self.ids, data, {})
        if any(name in self._contents.units for name in names):
            return Report(fresh.size, 0, 0)
        return self._insert(fresh, names)

    def _insert(self, fresh: Samples, names: Sequence[str]) -> Report:
        self.check(fresh)
        if not fresh.size:
            return Report(0, 0, 0)
        change, report = self._insertion(fresh)
        self._warn(change)
        if names:
            units = latest(change.after.units, dict.fromkeys(names, change.after.inserts))
            change = replace(change, after=replace(change.after, units=units))
        self._take(change)
        return report

    @guarded
    def check(self, data: Any = None, /, **columns: Any) -> None:
        """Raise what `insert` would raise about these samples, and change nothing.

        Args and errors are those of `insert`.
        """
        plan = self._plan(Samples.borrow_identified(self.ids, data, columns))
        plan.schema.check(plan.fresh, self._policy)

    def merge(self, other: Memory) -> None:
        """Take in what another memory holds, of a stream that shares no sample with this one's.

        Args:
            other: With an equal policy; it is not changed.

        Raises:
            SettingError: The policies differ, or cannot merge (`DensityReservoir` and
                `LossReservoir` can).
            SchemaError: The columns do not fit.

        Example:
            >>> from memento import DensityReservoir, Memory
            >>> policy = DensityReservoir(density="rho", identify_by="id")
            >>> whole, left, right = (Memory(5, policy) for _ in range(3))
            >>> rho, number = np.linspace(0.01, 0.3, 20), np.arange(20)
            >>> for memory, rows in ((whole, number), (left, number[:8]), (right, number[8:])):
            ...     report = memory.insert(id=rows, rho=rho[rows])
            >>> left.merge(right)
            >>> np.array_equal(left.samples["id"], whole.samples["id"]), left.seen
            (True, 20)
        """
        arguments.require("other", other, arguments.instance(Memory, "another memory"))
        if other.policy.settings() != self._policy.settings():
            raise SettingError(
                f"cannot merge {other.policy!r} into {self._policy!r}; use one policy"
            )
        theirs, samples = other._shared()  # never both locks at once: two may merge each other
        with self.lock:
            now = self._now()
            values = {
                "seen": now.seen + theirs.seen,
                "inserts": max(now.inserts, theirs.inserts),
                "units": latest(now.units, theirs.units),
                "offered": now.offered.merged(theirs.offered),
            }
            if not theirs.size:
                self._become(**values)
                return
            plan = self._plan(samples)
            choice = self._policy.merge(now.state, theirs.state, self._capacity)
            arrivals = np.concatenate([now.arrivals, theirs.arrivals])
            change = self._change_to(choice, plan, arrivals=arrivals, **values)
            self._take(change)

    @guarded
    def annotate(self, data: Any = None, /, **columns: Any) -> None:
        """Replace columns, or add them, for everything that is held.

        For predictions after the model has changed. Rows are in the order of `samples`; without
        any column nothing changes.

        Raises:
            SchemaError: Another number of rows.
            DomainError: Values that the policy cannot work with.
        """
        self._take(self._annotation(Samples.borrow(data, **columns)))

    @guarded
    def label(self, ids: Any, data: Any = None, /, **columns: Any) -> int:
        """Give samples that are held what has become known of them: labels that come late.

        Args:
            ids: Which samples, by their column of ids; none twice. Those that are no longer held
                are ignored.
            data: What is known, a row an id; as for `insert`. Missing values change nothing.
            **columns: Columns by name, instead or in addition.

        Returns:
            How many of the ids are held.

        Raises:
            SchemaError: What is held has no ids; other lengths, types or columns.
            DomainError: An id is given twice; values that the policy cannot work with.

        Example:
            >>> from memento import Memory, Reservoir
            >>> memory = Memory(10, Reservoir())
            >>> memory.insert(id=[7, 8, 9], y=[np.nan, np.nan, np.nan]).kept
            3
            >>> memory.label([9, 7, 1], y=[1, 0, 1]), memory.samples["y"]
            (2, array([ 0., nan,  1.]))
            >>> memory.label([8], y=[1]), memory.samples["y"]
            (1, array([0, 1, 1]))
        """
        given = Samples.borrow_marked(data, **columns)
        change, found = self._labelling(ids, given)
        recent = self._contents.recent
        if recent is not None:
            recent = recent.copy()
            recent.label(self._contents.schema.ids, np.asarray(ids), given)
        offered = self._contents.offered.labelled(self.ids, np.asarray(ids), given)
        self._take(change)
        self._become(recent=recent, offered=offered)
        return found

    @guarded
    def use(self, policy: Policy) -> None:
        """Go on with another policy, such as one whose distances know more classes.

        Raises:
            SettingError: It cannot work with the capacity, or remembers something of every sample
                held that the policy so far did not.
            InputError: It cannot work with what is held.

        Example:
            >>> from memento import FIFO, JensenShannon, Memento, Memory
            >>> memory = Memory(4, FIFO())
            >>> memory.insert(y=[0, 1, 1]).kept
            3
            >>> memory.use(Memento([JensenShannon.of_labels("y", classes=2)], batch_size=2))
            >>> memory.policy.kind
            'memento'
        """
        arguments.require("policy", policy, _POLICY)
        now = self._contents
        policy.check_capacity(self._capacity)
        other = type(policy) is not type(self._policy)
        if other and now.size and _remembers(policy, now.held()):
            raise SettingError(
                f"{policy!r} remembers something of every sample since it came, which "
                f"{self._policy!r} did not; make a new Memory with it and insert memory.samples"
            )
        now.schema.check(now.held(), policy)
        if other:
            self._become(state=State())
        self._policy = policy

    @property
    def reference(self) -> Samples | None:
        """What was held at the last training; None before the first."""
        reference = self._now().reference
        return None if reference is None else reference.owned_by(self._token)

    @guarded
    def mark_trained(self) -> None:
        """Declare that a model was trained on what is held now: it becomes the reference."""
        recent = self._contents.recent
        if recent is not None:
            recent = recent.copy()
            recent.trained(None, self._contents.seen)
        self._become(reference=self.samples, reference_model=None, recent=recent)

    @guarded
    def annotate_reference(self, data: Any = None, /, **columns: Any) -> None:
        """Replace columns of the reference, or add them; like `annotate`.

        Raises:
            SchemaError: There is no reference, or it has another number of rows.
        """
        if self._contents.reference is None:
            raise SchemaError("nothing was trained yet, so there is no reference to annotate")
        self._become(reference=self._contents.reference.with_columns(Samples(data, **columns)))

    @guarded
    def save(self, path: str | Path, *, lock: Lock | None = None) -> None:
        """Write everything to a folder, from which `load` goes on exactly.

        Args:
            path: Made if it does not exist; what it holds is replaced at once, or not at all.
            lock: The folder's lock (``memento.snapshot.lock_of``), if the caller holds it.

        Raises:
            ForeignError: The folder holds something else.
            LockedError: Another process is writing to it.
            StorageError: It was written by somebody else since this memory was loaded from it.
            SpaceError: No room; the folder is as it was.
        """
        folder = local_path(path)
        before, generation = self._contents.origin or (None, None)
        expected = generation if before == folder.absolute() else None
        arrays, documents = self.dump()
        if classes := foreign_classes(self._policy):
            documents["classes"] = classes
        generation = snapshot.write(folder, _KIND, arrays, documents, lock=lock, expected=expected)
        self._become(origin=(folder.absolute(), generation))

    @classmethod
    def load(
        cls, path: str | Path, policy: Policy | None = None, *, mapped: bool = False
    ) -> Memory:
        """Read a memory that `save` wrote.

        Args:
            path: Folder that `save` wrote.
            policy: Needed if the policy or a distance is one of your own that is not registered by
                name; has to have the settings that were saved.
            mapped: Whether columns stay on the disk, for memories that are larger than the main
                memory: they are read when they are used, and the first insert copies them to files
                without a name in ``path``, which need as much room there again.

        Raises:
            ForeignError: The folder holds no memory, or one with another policy.
            DamagedError: Its content differs from its manifest.
            SettingError: The policy is unknown here.
        """
        folder = local_path(path)
        arguments.require("mapped", mapped, arguments.flag())
        found = snapshot.read(folder, _KIND, mapped=mapped)
        memory = cls.restore(
            found.arrays, found.documents, policy, scratch=folder if mapped else None
        )
        memory._become(origin=(folder.absolute(), found.generation))
        return memory

    @guarded
    def dump(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON documents from which `restore` makes an equal memory."""
        now = self._contents
        arrays = {f"column/{name}": array for name, array in now.lend().items()}
        arrays["arrivals"] = now.arrivals
        arrays |= {f"mark/{name}": mark for name, mark in now.state.marks.items()}
        if now.keys is not None:
            arrays["waiting"] = now.keys
        if now.reference is not None:
            arrays |= {f"reference/{name}": array for name, array in now.reference.items()}
        contents = {
            "capacity": self._capacity,
            "size": now.size,
            "seen": now.seen,
            "inserts": now.inserts,
            "counters": dict(now.state.counters),
            "trained": now.reference is not None,
            "model": now.model,
            "reference_model": now.reference_model,
            "units": dict(now.units),
            **now.schema.document(),
        }
        documents = {
            "memory": contents,
            "policy": self._policy.settings(),
            "generator": snapshot.generator_document(now.rng),
        }
        for name, part in {"recent": now.recent, "offered": now.offered}.items():
            if part is not None:
                found, documents[name] = part.dump()
                arrays |= {f"{name}/{key}": array for key, array in found.items()}
        return arrays, documents

    @classmethod
    @arguments.checked
    def restore(
        cls,
        arrays: Mapping[str, np.ndarray],
        documents: Mapping[str, Any],
        policy: Policy | None = None,
        *,
        scratch: Path | None = None,
    ) -> Memory:
        """The memory that `dump` described; arguments and errors as for `load`.

        Args:
            arrays: Those of `dump`.
            documents: Those of `dump`.
            policy: As for `load`.
            scratch: Folder for the files of columns that an insert makes; None: it makes arrays.
        """
        saved = documents.get("policy")
        if policy is None:
            policy = policy_from_settings(saved or {})
        elif (given := through_json(policy.settings())) != saved:
            if not isinstance(saved, Mapping):
                raise DamagedError(f"the saved policy is {arguments.shown(saved)}; no mapping")
            # A setting that was not known when it was saved had what is the default now, or None.
            usual = through_json(usual_settings(policy))
            saved = {**{name: usual.get(name) for name in given}, **saved}
            differing = sorted(n for n in {*given, *saved} if given.get(n) != saved.get(n))
            if differing:
                raise ForeignError(
                    f"the memory's policy differs from the one given in {', '.join(differing)}:"
                    f" saved {saved.get(differing[0])!r}, given {given.get(differing[0])!r}"
                )
        contents = memory_fields(documents)
        rng = snapshot.generator_from(documents.get("generator", {}))
        memory = cls(contents["capacity"], policy, rng)
        held = snapshot.with_prefix(arrays, "reference/") if contents["trained"] else None
        memory._contents = Contents(
            rng=rng,
            recent=recent_arrivals(arrays, documents) if "recent" in documents else None,
            offered=offered_before(arrays, documents, contents["inserts"], contents["seen"]),
            # What cannot be written to belongs to somebody else, such as a memory that was dumped.
            columns={
                name: Column(array if array.flags.writeable or scratch else array.copy(), scratch)
                for name, array in snapshot.with_prefix(arrays, "column/").items()
            },
            size=contents["size"],
            arrivals=arrays.get("arrivals", np.empty(0)),
            state=State(contents["counters"], snapshot.with_prefix(arrays, "mark/")),
            seen=contents["seen"],
            inserts=contents["inserts"],
            reference=None if held is None else Samples.borrow(held),
            model=contents["model"],
            reference_model=contents["reference_model"],
            units=contents["units"] or {},
            schema=Schema.from_document({n: v for n, v in contents.items() if v is not None}),
            keys=arrays.get("waiting"),
        )
        memory._check_restored()
        return memory

    def resume(self, arrays: Mapping[str, np.ndarray], documents: Mapping[str, Any]) -> None:
        """Become the memory that `dump` described, which had this one's capacity and policy.

        Raises:
            ForeignError: It had others.
        """
        self.adopt(Memory.restore(arrays, documents, self._policy))

    def _check_restored(self) -> None:
        """Raise if contents, which may come from anybody's file, do not belong together."""
        now = self._contents
        lengths = {f"the column {name!r}": column.buffer for name, column in now.columns.items()}
        lengths |= {f"the mark {name!r}": mark for name, mark in now.state.marks.items()}
        lengths["arrivals"] = now.arrivals
        lengths |= {} if now.keys is None else {"waiting": now.keys}
        for name, array in lengths.items():
            if not array.ndim or len(array) != now.size:
                raise DamagedError(f"{name} has the shape {array.shape}; held are {now.size:,}")
        if now.arrivals.dtype != np.int64 or (now.size and not now.columns):
            raise DamagedError(
                f"arrivals are of type {now.arrivals.dtype}, columns are {list(now.columns)}"
            )
        if now.keys is not None and now.keys.dtype != np.float64:
            raise DamagedError(f"waiting is of type {now.keys.dtype}")
        if self._capacity is not None and now.size > self._capacity:
            raise DamagedError(f"{now.size:,} are held; the capacity is {self._capacity:,}")
        if now.columns:  # names, and no objects
            held = Samples.borrow({name: column.buffer for name, column in now.columns.items()})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # was said when they came
                now.schema.check(held, self._policy)
        chosen = now.size if now.keys is None else int(np.isnan(now.keys).sum())
        self._policy.check_state(now.state, chosen)

    @guarded
    @arguments.checked
    def adopt(self, other: Memory) -> None:
        """Become equal to another memory, which is used up.

        Raises:
            ForeignError: It has another capacity.
        """
        if other.capacity != self._capacity:
            raise ForeignError(
                f"the saved memory has capacity {other.capacity}, this one {self._capacity}; "
                "make it with the capacity that was saved"
            )
        self._policy = other.policy
        self._contents = other._now()

    @guarded
    def _now(self) -> Contents:
        return self._contents

    @guarded
    def _shared(self) -> tuple[Contents, Samples]:
        """Contents, and their samples, which later changes leave alone."""
        return self._contents, self._contents.lend()

    @guarded
    def _become(self, /, **values: Any) -> None:
        """Change parts of the contents other than columns."""
        self._contents = replace(self._contents, **values)

    def _take(self, change: Change) -> None:
        """Go over to other contents: from here on there is no way back."""
        if self._contents is change.before:
            self._change = change
        to_the_end(self._settle)

    def _settle(self) -> None:
        """Take a change that was interrupted to its end."""
        change = self._change
        if change is not None:
            change.apply()
            if self._change is change:  # and not another one, by the handler of a signal
                self._contents = change.after
                self._change = None

    def _insertion(self, fresh: Samples) -> tuple[Change, Report]:
        """What `insert` will do; nothing is changed yet, the generator included."""
        now = self._contents
        rng = copy.deepcopy(now.rng)
        plan = self._plan(fresh)
        choice, keys = plan.choose(self._policy, self._capacity, now.state, now.keys, rng)
        came = np.full(fresh.size, now.inserts + 1, np.int64)
        change = self._change_to(
            choice,
            plan,
            arrivals=np.concatenate([now.arrivals, came]),
            seen=now.seen + fresh.size,
            inserts=now.inserts + 1,
            rng=rng,
            keys=keys,
        )
        size = change.after.size
        kept = size - int(np.searchsorted(choice.rows, now.size))
        offered = now.offered.updated(fresh, now.inserts + 1, kept, self._policy.reads, self.ids)
        change = replace(change, after=replace(change.after, offered=offered))
        discarded = now.size + fresh.size - size
        return change, Report(fresh.size, kept, discarded, choice.approximations)

    def _labelling(self, ids: Any, given: Samples) -> tuple[Change, int]:
        """What `label` will do, and how many of the ids are held."""
        now = self._contents
        if not now.columns:
            return Change(now, now), 0
        changed, schema, places = now.schema.labelled(now.held(), ids, given, self._policy)
        return self._replacement(changed, schema), len(np.unique(places[places >= 0]))

    def _plan(self, fresh: Samples) -> Plan:
        return self._contents.schema.plan(self._contents.held(), fresh, self._policy)

    def _warn(self, change: Change) -> None:
        """Say once which columns the policy does without until all have them."""
        hidden = change.after.schema.hidden - change.before.schema.hidden
        if getattr(self._policy, "missing", "warn") == "warn":
            for name in sorted(hidden.intersection(self._policy.reads)):
                warn(
                    f"column {name!r} is not there for all samples held: the policy does without "
                    f"it until it is; give it to them with memory.annotate({name}=...)"
                )

    def _change_to(
        self, choice: Choice, plan: Plan, *, arrivals: np.ndarray, **values: Any
    ) -> Change:
        """The change to chosen rows of those held and the fresh ones."""
        self._check_choice(choice, plan.fresh.size)
        now = self._contents
        rows = choice.rows.astype(np.int64, copy=False)
        settled, schema = plan.settled(rows)
        before = replace(now, columns={**now.columns, **columns_of(plan.changed)})
        columns, overwrites = taken_rows(before, plan.fresh, rows, self._capacity)
        done = [columns[name].buffer for name in settled]
        columns |= columns_of(settled)
        marks = {name: np.array(mark) for name, mark in choice.marks.items()}
        after = replace(
            now,
            columns=columns,
            size=len(rows),
            arrivals=arrivals[rows],
            state=State(dict(choice.counters), marks),
            schema=schema,
            **values,
        )
        left = tuple(o for o in overwrites if all(o.buffer is not buffer for buffer in done))
        return Change(now, after, left)

    def _replacement(self, columns: Mapping[str, np.ndarray], schema: Schema) -> Change:
        """The change to other columns of the same rows."""
        now = self._contents
        held = Samples.borrow(dict(now.held()) | dict(columns))
        settled, schema = schema.settled(held)
        new = columns_of(dict(columns) | settled)
        return Change(now, replace(now, columns={**now.columns, **new}, schema=schema))

    def _annotation(self, fresh: Samples) -> Change:
        """What `annotate` will do."""
        now = self._contents
        if not len(fresh):
            return Change(now, now)
        if fresh.size != now.size:
            raise SchemaError(
                f"{fresh.size:,} rows for {now.size:,} samples held; give one row for each, in "
                "the order of memory.samples"
            )
        schema = replace(now.schema, hidden=now.schema.hidden - set(fresh))
        schema.check(now.held().with_columns(fresh), self._policy)
        return self._replacement({name: array.copy() for name, array in fresh.items()}, schema)

    def _check_choice(self, choice: Choice, fresh: int) -> None:
        """Catch faulty policies (a user's, say) before they can do damage."""
        rows = choice.rows
        limit = self._contents.size + fresh
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise SettingError(
                f"{self._policy!r} chose rows of type {rows.dtype}, shape {rows.shape}; expected "
                "a one-dimensional array of integers"
            )
        if len(rows) and (rows[0] < 0 or rows[-1] >= limit or not (rows[1:] > rows[:-1]).all()):
            raise SettingError(
                f"{self._policy!r} chose rows that are not ascending within 0 to {limit - 1}"
            )
        if self._capacity is not None and len(rows) > self._capacity:
            raise SettingError(
                f"{self._policy!r} chose {len(rows):,} rows; the capacity is {self._capacity:,}"
            )
        for name, mark in choice.marks.items():
            if len(mark) != len(rows):
                raise SettingError(
                    f"{self._policy!r} gave {len(mark):,} marks {name!r} for {len(rows):,} rows"
                )


def _remembers(policy: Policy, held: Samples) -> bool:
    """Whether a policy remembers something between inserts."""
    found = policy.choose(Samples(), held.rows(0, 1), None, State(), np.random.default_rng(0))
    return bool(found.marks or found.counters)
