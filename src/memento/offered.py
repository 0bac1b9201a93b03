"""What was offered to a memory: a small uniform sample of it, and how many came with each insert.

What a policy discards is gone, so that what is kept could be compared with nothing. Some hundred
samples, of each a few single values, are enough to say what the stream looks like. They are drawn
by a generator of their own, which the memory's choices know nothing of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from memento import arguments
from memento.arrivals import labelled
from memento.errors import DamagedError, SchemaError
from memento.missing import blank
from memento.samples import Samples

__all__ = ["Offered", "single_values"]

_ROWS, _COLUMNS, _LETTERS = 1000, 8, 64
_INSERTS = 1000
_SALT = 0x0FFE4ED
_COUNT = arguments.whole(0, 2**62)
# The largest number that numpy draws hypergeometric numbers with.
_MOST = 10**9
_KINDS = "biufMmUS"
# What two columns raise that do not go together, whatever they are.
_UNLIKE = (SchemaError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Offered:
    """A uniform sample of all samples offered since it was begun.

    Attributes:
        since: Inserts before it was begun: not 0 in memories that are older than this record.
        seen: Samples offered since.
        samples: At most 1,000 of them, with single values alone, see `single_values`; predictions
            are those that came with them.
        came: ``(n,)`` int64, with which insert each came.
        log: ``(m, 3)`` int64: a number of an insert, and how many samples were offered and kept
            with it and those before it that have no row of their own. At most 1,000 rows.
    """

    since: int = 0
    seen: int = 0
    samples: Samples = field(default_factory=Samples)
    came: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    log: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.int64))

    def __post_init__(self) -> None:
        # Who looks at it cannot change the memory, nor a copy of it.
        object.__setattr__(self, "samples", Samples.borrow(self.samples))
        for name in ("came", "log"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __reduce__(self) -> tuple[Any, ...]:
        return Offered, (self.since, self.seen, self.samples, self.came, self.log)

    def updated(
        self, fresh: Samples, insert: int, kept: int, reads: Sequence[str], ids: str
    ) -> Offered:
        """The same after one more insert.

        Args:
            fresh: Samples that were offered, at least one.
            insert: Number of the insert.
            kept: How many of them were kept.
            reads: Columns that the policy reads, which come first.
            ids: Column that tells samples apart.
        """
        size, room = fresh.size, min(_ROWS, self.seen + fresh.size)
        rng = np.random.default_rng([_SALT, insert, self.seen])
        new = _drawn(rng, size, self.seen, room)
        log = _shortened(np.concatenate([self.log, [[insert, size, kept]]]))
        if not new:
            return replace(self, seen=self.seen + size, log=log)
        old = self._some(room - new, rng)
        rows = np.arange(size) if new == size else np.sort(rng.choice(size, new, replace=False))
        names = _chosen(fresh, reads, ids)
        taken = single_values(fresh.select(names).take(rows)) if names else Samples()
        samples = _joined(old.samples, len(old.came), taken, new)
        came = np.concatenate([old.came, np.full(new, insert)])
        return replace(self, seen=self.seen + size, samples=samples, came=came, log=log)

    def merged(self, other: Offered) -> Offered:
        """Of two streams that have no sample in common; the log is that of the longer one."""
        seen = self.seen + other.seen
        room = min(_ROWS, len(self.came) + len(other.came))
        rng = np.random.default_rng([_SALT, self.seen, other.seen])
        new = min(len(other.came), _drawn(rng, other.seen, self.seen, min(room, seen)))
        mine, theirs = self._some(room - new, rng), other._some(new, rng)
        came = np.concatenate([mine.came, theirs.came])
        longer = self if self.log[:, 1].sum() >= other.log[:, 1].sum() else other
        samples = _joined(mine.samples, room - new, theirs.samples, new)
        return Offered(max(self.since, other.since), seen, samples, came, longer.log)

    def labelled(self, by: str, ids: np.ndarray, given: Samples) -> Offered:
        """With labels that came late; ids are distinct."""
        single = given.select([name for name in given if given[name].ndim == 1])
        try:
            return replace(self, samples=labelled(self.samples, by, ids, single))
        except _UNLIKE:  # ids of another type: none of these is meant
            return self

    def dump(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and a JSON document from which `restore` makes an equal object."""
        arrays = {f"values/{name}": column for name, column in self.samples.items()}
        document = {"since": self.since, "seen": self.seen}
        return {**arrays, "came": self.came, "log": self.log}, document

    @classmethod
    def restore(
        cls, arrays: Mapping[str, np.ndarray], document: Any, inserts: int, most: int
    ) -> Offered:
        """What `dump` described.

        Args:
            arrays: Those of `dump`.
            document: That of `dump`.
            inserts: Of the memory that it belongs to.
            most: Samples that were offered to that memory.

        Raises:
            DamagedError: It describes none, or none of such a memory.
        """
        start = "values/"
        columns = {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
        try:
            came, log = arrays["came"], arrays["log"]
            since, seen = document["since"], document["seen"]
            samples = Samples.borrow(columns)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"what was offered is incomplete: {error!r}") from error
        if not (_COUNT.holds(since) and _COUNT.holds(seen)):
            raise DamagedError(f"what was offered is {seen!r} samples since insert {since!r}")
        shapes = came.ndim == 1 and log.ndim == 2 and log.shape[1] == 3
        if not shapes or {came.dtype, log.dtype} != {np.dtype(np.int64)}:
            raise DamagedError(f"what was offered has a log of {log.dtype}, shape {log.shape}")
        if len(came) != min(_ROWS, seen) or (columns and samples.size != len(came)):
            raise DamagedError(
                f"what was offered is {samples.size:,} samples, {len(came):,} arrivals, of {seen:,}"
            )
        for name, column in samples.items():
            if column.ndim != 1 or column.dtype.kind not in _KINDS:
                raise DamagedError(
                    f"what was offered has a column {name!r} of {column.dtype}, shape "
                    f"{column.shape}; expected a single number, text or time for each sample"
                )
        if since > inserts or seen > most:
            raise DamagedError(
                f"what was offered is {seen:,} samples since insert {since:,}; the memory has seen "
                f"{most:,} in {inserts:,} inserts"
            )
        numbers, counts = log[:, 0], log[:, 1:]
        if len(log) > _INSERTS or not (
            _within(came, inserts)
            and _within(numbers, inserts)
            and _within(counts, seen)
            and (np.diff(numbers) > 0).all()
        ):
            raise DamagedError(
                f"what was offered has a log of {len(log):,} rows, or arrivals, that are no "
                f"rising numbers of {inserts:,} inserts and counts of {seen:,} samples"
            )
        return cls(since, seen, samples, came, log)

    def _some(self, size: int, rng: np.random.Generator) -> Offered:
        """So many of its samples, at random."""
        if size == len(self.came):
            return self
        rows = np.sort(rng.choice(len(self.came), size, replace=False))
        samples = self.samples.take(rows) if self.samples.size else self.samples
        return replace(self, samples=samples, came=self.came[rows])


def _within(numbers: np.ndarray, most: int) -> bool:
    return not numbers.size or bool(numbers.min() >= 0 and numbers.max() <= most)


def _shortened(log: np.ndarray) -> np.ndarray:
    """The log, with half as many rows, each of two, where there are too many."""
    if len(log) <= _INSERTS:
        return log
    pairs = log[: len(log) // 2 * 2].reshape(-1, 2, 3)
    halves = np.column_stack([pairs[:, 1, 0], pairs[:, :, 1:].sum(axis=1)])
    return np.concatenate([halves, log[len(halves) * 2 :]])


def single_values(samples: Samples, stacked: Mapping[str, Sequence[str]] | None = None) -> Samples:
    """Samples with single values alone: of a row of numbers its largest entry, and where it is.

    Args:
        samples: Any.
        stacked: Names of what columns of rows were made of, as far as they are known; then what
            lies in rows that do not sum to 1 is given by itself, at most 8 of each.

    Returns:
        Columns of one value as they are; of a column ``p`` of rows ``p: which`` and ``p: value``;
        behind them, if asked for, entries by their name, or as ``p[0]`` and so on.

    Example:
        >>> found = single_values(Samples(y=[1], p=[[0.2, 0.8]]))
        >>> {name: column.tolist() for name, column in found.items()}
        {'y': [1], 'p: which': [1], 'p: value': [0.8]}
    """
    found: dict[str, np.ndarray] = {}
    last: dict[str, np.ndarray] = {}
    for name, column in samples.items():
        if column.ndim == 1:
            found[name] = column
        elif column.ndim != 2 or not column.shape[1] or column.dtype.kind not in "biuf":
            continue
        elif stacked is not None and not np.allclose(np.nansum(column, axis=1), 1, atol=1e-3):
            entries = [f"{name}[{i}]" for i in range(column.shape[1])]
            given = stacked.get(name, ())
            names = given if len(given) == len(entries) else entries
            last |= {part: column[:, i] for i, part in enumerate(names[:8])}
        else:
            found[f"{name}: which"] = which = np.where(np.isnan(column), -np.inf, column).argmax(1)
            found[f"{name}: value"] = column[np.arange(len(column)), which]
    return Samples.borrow({**found, **last})


def _chosen(fresh: Samples, reads: Sequence[str], ids: str) -> list[str]:
    """Columns that are recorded: what the policy reads, the ids, and single values."""
    kept = [name for name in dict.fromkeys([*reads, ids]) if name in fresh]
    kept += [name for name in fresh if fresh[name].ndim == 1 and name not in kept]
    return [name for name in kept if _is_small(fresh[name])][:_COLUMNS]


def _is_small(column: np.ndarray) -> bool:
    kind = column.dtype.kind
    if kind in "US":
        return column.ndim == 1 and column.dtype.itemsize <= 4 * _LETTERS
    return kind in _KINDS and column.ndim <= 2


def _drawn(rng: np.random.Generator, new: int, old: int, size: int) -> int:
    """How many of a uniform sample of this size of old and new ones are new."""
    if size == new + old:
        return new
    if new + old < _MOST:
        return int(rng.hypergeometric(new, old, size))
    return min(new, int(rng.binomial(size, new / (new + old))))


@np.errstate(invalid="ignore")  # of NaN that signals, which a cast only makes quiet
def _joined(first: Samples, above: int, second: Samples, below: int) -> Samples:
    """Two records below each other, of so many rows; what one of them lacks is missing there."""
    columns = {}
    for name in dict.fromkeys([*first, *second]):
        like = first[name] if name in first else second[name]
        try:
            pieces = [
                part[name] if name in part else blank(name, size, like) if size else like[:0]
                for part, size in ((first, above), (second, below))
            ]
            numbers = [piece.dtype.kind in "biuf" for piece in pieces]
            if numbers[0] == numbers[1]:
                columns[name] = np.concatenate(pieces)
        except _UNLIKE:  # of another kind now: the record goes on without it
            continue
    return Samples.borrow(columns)
