"""The central decision: what stays of each block, from summaries and ranks alone.

There is one decision for each policy that can be followed without having all rows at once. None
sees a sample, and none knows who made the summaries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from memento.batching import Batches
from memento.density import Field, SampleSpace, Summaries
from memento.errors import SettingError
from memento.policies import (
    ClassBalancedReservoir,
    DensityReservoir,
    Memento,
    Policy,
    Reservoir,
    State,
)
from memento.policies._weighted import smallest_ranks, threshold_of
from memento.policies.memento import MOST_BATCHES
from memento.policies.reservoir import smallest
from memento.samples import Samples
from memento.scale.blocks import Block
from memento.scale.passes import Ask, Kept, Plan

__all__ = ["Decision", "Outcome", "decision_of"]

Arrays = Mapping[str, np.ndarray]
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What was decided.

    Attributes:
        kept: What stays of each block.
        state: What the policy remembers of it, rows in the order of blocks.
        notes: How the density was made, and how right it is, for each distance; see
            `memento.landmarks.Approximation`. Empty where there was no question of it.
    """

    kept: list[Kept]
    state: State = field(default_factory=State)
    notes: list[dict[str, Any]] = field(default_factory=list)


class Decision(ABC):
    """How a policy is followed over blocks.

    Args:
        plan: Of the selection.
        blocks: All of them; those of what is held come first.
        capacity: Most rows to keep.
        state: What the policy remembers of what is held.
    """

    #: Whether there has to be a first pass.
    summarises: ClassVar[bool] = True

    def __init__(self, plan: Plan, blocks: Sequence[Block], capacity: int, state: State) -> None:
        self.plan = plan
        self.blocks = blocks
        self.capacity = capacity
        self.state = state
        self.held = sum(block.rows for block in blocks if block.file.held)
        self.fresh = sum(block.rows for block in blocks) - self.held

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers of the decision."""
        return np.random.default_rng([self.plan.seed, 0])

    def asks(self, found: Sequence[Arrays], attempt: int, tell: Tell) -> list[Ask | None]:
        """What to ask blocks for, by what the first pass has found; nothing of None.

        Args:
            found: Of each block.
            attempt: 0, and more each time that the answer was not enough.
            tell: Told how far it is, and of how much.
        """
        return [None] * len(self.blocks)

    @abstractmethod
    def outcome(
        self, found: Sequence[Arrays], ranked: Sequence[Arrays | None], tell: Tell
    ) -> Outcome | None:
        """What stays; None if more has to be asked for."""


def decision_of(policy: Policy) -> type[Decision]:
    """How a policy is followed.

    Raises:
        SettingError: It needs all samples at once.
    """
    made = next((made for kind, made in _DECISIONS.items() if isinstance(policy, kind)), None)
    if made is None:
        listed = ", ".join(kind.__name__ for kind in _DECISIONS)
        raise SettingError(
            f"{type(policy).__name__} chooses row by row, so it cannot select over blocks; take "
            f"one of {listed}, or insert the files into a Memory one after the other, whose time "
            "grows with their number, too (memento memory insert)"
        )
    if isinstance(policy, ClassBalancedReservoir) and policy.bins is not None:
        raise SettingError(
            f"bins={policy.bins} takes quantiles of all rows at once; write a column with the "
            "number of the bin into the files, and name it as label without bins"
        )
    if isinstance(policy, Memento) and policy.forget:
        raise SettingError(
            f"forget={policy.forget} drops single rows of what is held, while a selection over "
            "blocks drops batches; leave forget out, or insert the files into a Memory one after "
            "the other (memento memory insert)"
        )
    return made


# --- what several of them share ---------------------------------------------------------------


class _Batched:
    """Batches of all blocks, and of the rows that filled no batch in any.

    Those rows are few in each block, and together they may be all there is of something rare: they
    are sorted and cut once more, as one block.
    """

    def __init__(self, plan: Plan, blocks: Sequence[Block], found: Sequence[Arrays]) -> None:
        assert plan.space is not None
        self.space: SampleSpace = plan.space
        self.per_block = [len(arrays["sizes"]) for arrays in found]
        sizes = [arrays["sizes"] for arrays in found]
        counts = [arrays.get("counts", arrays["sizes"]) for arrays in found]
        parts = [arrays for arrays, n in zip(found, self.per_block, strict=True) if n]
        self.rest = self._rest(plan, found)
        if self.rest is not None and len(self.rest):
            rest: dict[str, np.ndarray] = {
                f"summary/{i}": one.rows.astype(np.float32)
                for i, one in enumerate(self.space.summaries(self.rest))
            }
            parts.append(rest)
            sizes.append(self.rest.sizes)
            stands_for = [
                arrays.get("rest/counts", np.ones(len(arrays.get("rest/rows", ()))))
                for arrays in found
            ]
            in_order = np.concatenate(stands_for)[self.rest.order]
            counts.append(np.add.reduceat(in_order, self.rest.offsets[:-1]))
        if not parts:
            raise SettingError(
                f"no batch is filled: nowhere are {plan.size} rows of one group; lower batch_size, "
                'or leave remainder="drop" out'
            )
        self.sizes = np.concatenate(sizes).astype(np.int64)
        self.counts = np.concatenate(counts).astype(np.float64)
        self.tables = [
            np.concatenate([arrays[f"summary/{i}"] for arrays in parts])
            for i in range(len(self.space.distances))
        ]
        held = sum(block.file.held for block in blocks)
        self.held = sum(self.per_block[:held])
        self._rest_edges = np.cumsum([len(arrays.get("rest/rows", ())) for arrays in found])[:-1]
        self._rest_rows = [arrays.get("rest/rows", np.empty(0, np.int64)) for arrays in found]

    def _rest(self, plan: Plan, found: Sequence[Arrays]) -> Batches | None:
        """Batches of the rows that filled none in their block; None if there are no such rows."""
        parts = [
            Samples.borrow(
                {
                    name.removeprefix("rest/column/"): array
                    for name, array in arrays.items()
                    if name.startswith("rest/column/")
                }
            )
            for arrays in found
            if "rest/rows" in arrays
        ]
        if not parts:
            return None
        joined = Samples.concat(parts)
        return self.space.cut((joined,), self.space.order(joined), size=plan.size)

    def field(
        self,
        rng: np.random.Generator,
        rows: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        *,
        weighted: bool = False,
        approximated: bool = True,
    ) -> Field:
        """The density that some batches make, or all; other arguments as for `SampleSpace.field`.

        Args:
            rng: Draws probes.
            rows: Numbers of the batches.
            weights: How much each of them counts.
            weighted: Whether they count by the samples that they stand for.
            approximated: Whether sums may be approximate.
        """
        widths = self.space._bandwidths()
        summaries = [
            Summaries(distance, width, (t if rows is None else t[rows]).astype(np.float64))
            for distance, width, t in zip(self.space.distances, widths, self.tables, strict=True)
        ]
        counts = weights if weights is not None else self.counts if weighted else None
        return self.space.field_of(summaries, counts, rng, approximated=approximated)

    def by_block(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of batches, those of each block; last those of the rest."""
        return np.split(values, np.cumsum(self.per_block))

    def rest_by_block(self, values: np.ndarray) -> list[np.ndarray]:
        """Values of the rows of the rest, those of each block."""
        return np.split(values, self._rest_edges)

    def rest_rows(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Numbers, in each block, of some rows of the rest, given by a mask."""
        return [
            rows[mask]
            for rows, mask in zip(self._rest_rows, self.rest_by_block(chosen), strict=True)
        ]

    @property
    def rest_size(self) -> int:
        """Rows that filled no batch in their block."""
        return 0 if self.rest is None else self.rest.parts[0].size


class _Memento(Decision):
    """Whole batches stay or go, and single rows fill up what is left of the budget."""

    def outcome(
        self, found: Sequence[Arrays], ranked: Sequence[Arrays | None], tell: Tell
    ) -> Outcome | None:
        if self.held + self.fresh <= self.capacity:
            return Outcome([Kept(rows=np.arange(block.rows)) for block in self.blocks])
        policy = self.plan.policy
        assert isinstance(policy, Memento)
        batched = _Batched(self.plan, self.blocks, found)
        rng = self.rng
        alive, last, notes = self._thinned(policy, batched, rng, tell)
        *by_block, in_rest = batched.by_block(alive)
        extra = np.zeros(batched.rest_size, bool)
        if batched.rest is not None and len(in_rest):
            extra[batched.rest.order[np.repeat(in_rest, batched.rest.sizes)]] = True
        room = self.capacity - int(batched.sizes[alive].sum())
        fill: tuple[int, int, int] | None = None
        if policy.fills and room:
            fill = self._fill(batched, last, room, extra, rng)
        rest = batched.rest_rows(extra)
        kept = [
            Kept(
                found[i]["order"].tobytes(),
                np.flatnonzero(mask),
                fill[1:] if fill is not None and fill[0] == i else None,
                rest[i],
            )
            for i, mask in enumerate(by_block)
        ]
        return Outcome(kept, notes=notes)

    def _thinned(
        self, policy: Memento, batched: _Batched, rng: np.random.Generator, tell: Tell
    ) -> tuple[np.ndarray, int, list[dict[str, Any]]]:
        """Which batches stay, which was discarded last (-1: none), and notes on the density."""
        total = len(batched.sizes)
        alive = np.zeros(total, bool)
        alive[: batched.held] = True
        last, notes = -1, []
        pieces = self._pieces(policy, batched, rng)
        for number, piece in enumerate(pieces):
            alive[piece] = True
            there = np.flatnonzero(alive)
            if batched.sizes[there].sum() > self.capacity:
                rows = None if len(there) == total else there
                if policy.temperature == math.inf:
                    made = Field.of_equals(len(there))
                else:
                    weights = policy.sampled(len(there), rng)
                    exact = policy.temperature == 0
                    made = batched.field(rng, rows, weights, approximated=not exact)
                notes = notes_of(made)
                stays, gone = policy.thin(made, batched.sizes[there], self.capacity, rng)
                alive[there[~stays]] = False
                last = int(there[gone[-1]])
            tell(number + 1, len(pieces))
        return alive, last, notes

    def _pieces(
        self, policy: Memento, batched: _Batched, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Batches that are offered one after the other, as a `Memory` is offered many samples."""
        total, held = len(batched.sizes), batched.held
        fresh = np.arange(held, total)
        at_once = policy.remainder != "even" or policy.precision == "approximate"
        if at_once or total <= MOST_BATCHES:
            return [fresh]
        stay = self.capacity // max(1, self.plan.size)
        count = -(-len(fresh) // max(MOST_BATCHES - stay, MOST_BATCHES // 2))
        return np.array_split(rng.permutation(fresh), count)

    def _fill(
        self,
        batched: _Batched,
        last: int,
        room: int,
        extra: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[int, int, int] | None:
        """Single rows of the batch discarded last: block, batch and number.

        Those that filled no batch are marked in ``extra``.
        """
        edges = np.cumsum(batched.per_block)
        if 0 <= last < edges[-1]:
            block = int(np.searchsorted(edges, last, side="right"))
            return block, last - int(edges[block] - batched.per_block[block]), room
        rest = batched.rest
        if rest is None:
            return None
        if last >= 0:
            spare = rest.rows(last - int(edges[-1]))
        else:
            spare = np.setdiff1d(np.arange(batched.rest_size), rest.order)
        extra[rng.permutation(spare)[:room]] = True
        return None


def notes_of(made: Field) -> list[dict[str, Any]]:
    """How the sums behind a density came about, for each distance under which they may be off."""
    notes = [asdict(known) for known in made.approximations]
    return [{k: None if v != v else v for k, v in note.items()} for note in notes]


def _target(count: int) -> float:
    """So many rows are asked for, on average, that fewer than ``count`` come about never."""
    return count + 6 * math.sqrt(count) + 10


class _BottomK(Decision):
    """Rows with the smallest keys, or ranks, of all blocks."""

    def _split(
        self, rows: np.ndarray, ranked: Sequence[Arrays | None], weights: np.ndarray | None
    ) -> list[Kept]:
        """What stays of each block, of rows numbered through what is held and what was ranked."""
        kept = []
        at = 0
        first_held = 0
        for block, arrays in zip(self.blocks, ranked, strict=True):
            if block.file.held:
                low, high = np.searchsorted(rows, [first_held, first_held + block.rows])
                here = rows[low:high] - first_held
                first_held += block.rows
            else:
                count = 0 if arrays is None else len(arrays["rows"])
                start = self.held + at
                low, high = np.searchsorted(rows, [start, start + count])
                here = rows[:0] if arrays is None else arrays["rows"][rows[low:high] - start]
                at += count
            mine = None if weights is None else weights[low:high]
            kept.append(Kept(rows=here, weights=mine))
        return kept

    def _joined(self, name: str, ranked: Sequence[Arrays | None]) -> np.ndarray:
        """What is held and what was ranked, one after the other."""
        parts = [arrays[name] for arrays in ranked if arrays is not None]
        first = self.state.marks[name] if self.held else np.empty(0)
        return np.concatenate([first, *parts])


class _Density(_BottomK):
    """Bottom-k by ranks ``key / weight``; weights by the density of batches, or of rows."""

    def __init__(self, plan: Plan, blocks: Sequence[Block], capacity: int, state: State) -> None:
        super().__init__(plan, blocks, capacity, state)
        self._weights: tuple[list[np.ndarray], list[np.ndarray]] | None = None
        self._limit = math.inf
        self._notes: list[dict[str, Any]] = []

    @property
    def _policy(self) -> DensityReservoir:
        assert isinstance(self.plan.policy, DensityReservoir)
        return self.plan.policy

    def asks(self, found: Sequence[Arrays], attempt: int, tell: Tell) -> list[Ask | None]:
        now = int(self.state.counters.get("inserts", 0))
        decay = 0.0 if self._policy.half_life is None else math.log(2) / self._policy.half_life
        fresh = [not block.file.held for block in self.blocks]
        if self.plan.space is None:
            mine = [arrays for arrays, own in zip(found, fresh, strict=True) if own]
            sizes = np.concatenate([arrays["rows"] for arrays in mine])
            logs = np.concatenate([arrays["log_weights"] for arrays in mine])
        else:
            if self._weights is None:
                self._weights = self._estimated(found)
            by_block, rest = self._weights
            own = np.flatnonzero(fresh).tolist()
            sizes = np.concatenate(
                [found[i]["sizes"] for i in own] + [np.ones(len(rest[i])) for i in own]
            )
            logs = np.concatenate([by_block[i] for i in own] + [rest[i] for i in own])
        limit = _log_limit(sizes, logs, _target(self.capacity + 1)) + attempt * math.log(4)
        before = threshold_of(self.state) + now * decay
        self._limit = min(limit, before)
        tell(1, 1)
        return [
            None
            if not own
            else Ask(
                b"" if self.plan.space is None else found[i]["order"].tobytes(),
                np.array([self._limit]),
                None if self._weights is None else self._weights[0][i],
                None if self._weights is None else self._weights[1][i],
            )
            for i, own in enumerate(fresh)
        ]

    def _estimated(self, found: Sequence[Arrays]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Logarithms of weights: of each block's batches, and of its rows that are in none."""
        policy = self._policy
        batched = _Batched(self.plan, self.blocks, found)
        made = batched.field(self.rng, weighted=True)
        self._notes = notes_of(made)
        rarity = policy.rarity_of(made, batched.counts)
        weights = np.log(policy.uniform + (1 - policy.uniform) * rarity)
        *by_block, of_rest = batched.by_block(weights)
        rest = np.zeros(batched.rest_size)
        if batched.rest is not None:
            rest[batched.rest.order] = np.repeat(of_rest, batched.rest.sizes)
        return by_block, batched.rest_by_block(rest)

    def outcome(
        self, found: Sequence[Arrays], ranked: Sequence[Arrays | None], tell: Tell
    ) -> Outcome | None:
        now = int(self.state.counters.get("inserts", 0))
        policy = self._policy
        decay = 0.0 if policy.half_life is None else math.log(2) / policy.half_life
        marks = {name: self._joined(name, ranked) for name in ("key", "log_weight")}
        marks["log_weight"][self.held :] += now * decay
        came = np.full(len(marks["key"]) - self.held, now, np.int64)
        held = self.state.marks["insert"] if self.held else came[:0]
        marks["insert"] = np.concatenate([held, came])
        known = threshold_of(self.state)
        enough = min(self.capacity + 1, self.held + self.fresh)
        if len(marks["key"]) < enough and self._limit < known + now * decay:
            return None
        choice = smallest_ranks(marks, known, self.capacity, now + 1)
        state = State(choice.counters, choice.marks)
        weights = policy.weights(state, len(choice.rows))
        return Outcome(self._split(choice.rows, ranked, weights), state, self._notes)


def _log_limit(sizes: np.ndarray, logs: np.ndarray, target: float) -> float:
    """Logarithm of the rank below which ``target`` rows lie on average; infinite for too few."""
    if sizes.sum() <= target:
        return math.inf
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        with np.errstate(over="ignore"):
            expected = float((sizes * -np.expm1(-np.exp(middle + logs))).sum())
        low, high = (middle, high) if expected < target else (low, middle)
    return high


class _Random(_BottomK):
    """Bottom-k by keys that are uniform: a random sample."""

    summarises = False

    def asks(self, found: Sequence[Arrays], attempt: int, tell: Tell) -> list[Ask | None]:
        share = _target(self.capacity) / max(1, self.fresh) * 4**attempt
        self._limit = min(self._most(), share)
        return [
            None if block.file.held else Ask(b"", np.array([self._limit])) for block in self.blocks
        ]

    def outcome(
        self, found: Sequence[Arrays], ranked: Sequence[Arrays | None], tell: Tell
    ) -> Outcome | None:
        policy = self.plan.policy
        assert isinstance(policy, Reservoir)
        keys = self._joined("key", ranked)
        forgotten = min(int(policy.forget * self.held), self.fresh)
        asked = min(self.capacity, self.fresh)
        if self._limit < self._most() and len(keys) - self.held < asked:
            return None
        rows = np.arange(len(keys))
        if forgotten:
            rows = np.delete(rows, self.rng.choice(self.held, forgotten, replace=False))
        rows = smallest(keys, rows, self.capacity)
        seen = int(self.state.counters.get("seen", 0)) + self.fresh
        state = State({"seen": seen}, {"key": keys[rows]})
        return Outcome(self._split(rows, ranked, policy.weights(state, len(rows))), state)

    def _most(self) -> float:
        """Keys above this cannot be kept: of what came before, all with such keys are gone."""
        policy, before = self.plan.policy, int(self.state.counters.get("seen", 0))
        assert isinstance(policy, Reservoir)
        if policy.forget or self.held == before:
            return 1.0
        return float(self.state.marks["key"].max(initial=0.0)) if self.held else 0.0


class _Balanced(_BottomK):
    """Bottom-k by keys within each class; as many of each as there is room for, or as there are."""

    def asks(self, found: Sequence[Arrays], attempt: int, tell: Tell) -> list[Ask | None]:
        counters = self.state.counters
        fresh: dict[str, int] = {}
        for block, arrays in zip(self.blocks, found, strict=True):
            for name, rows in zip(arrays["labels"].tolist(), arrays["rows"].tolist(), strict=True):
                fresh[name] = fresh.get(name, 0) + (0 if block.file.held else rows)
        before = {
            name.removeprefix("seen/"): int(value)
            for name, value in counters.items()
            if name.startswith("seen/")
        }
        self._classes = tuple(sorted({*fresh, *before}))
        came = np.array([fresh.get(name, 0) for name in self._classes])
        self._seen = came + np.array([before.get(name, 0) for name in self._classes])
        self._quotas = _quotas(self._seen, self.capacity)
        targets = np.array([_target(int(quota) + 1) for quota in self._quotas])
        limits = np.minimum(targets / np.maximum(came, 1) * 4**attempt, 1.0)
        known = [float(counters.get(f"threshold/{name}", 1.0)) for name in self._classes]
        self._known, self._limits = np.array(known), np.minimum(limits, known)
        return [
            None if block.file.held else Ask(b"", self._limits, classes=self._classes)
            for block in self.blocks
        ]

    def outcome(
        self, found: Sequence[Arrays], ranked: Sequence[Arrays | None], tell: Tell
    ) -> Outcome | None:
        keys, codes = self._joined("key", ranked), self._joined("code", ranked).astype(np.int64)
        if self.held:
            held = np.array(self._classes)
            names = self.state.marks["label"]
            codes[: self.held] = np.searchsorted(held, names)
        chosen: list[np.ndarray] = []
        counters: dict[str, int | float] = {}
        limits = self._limits
        for code, name in enumerate(self._classes):
            rows = np.flatnonzero(codes == code)
            quota = int(self._quotas[code])
            asked_all = limits[code] >= self._known[code]
            if len(rows) < min(quota + 1, int(self._seen[code])) and not asked_all:
                return None
            order = rows[np.argsort(keys[rows], kind="stable")]
            chosen.append(order[:quota])
            threshold = min([self._known[code], *keys[order[quota : quota + 1]]])
            counters[f"seen/{name}"] = int(self._seen[code])
            if self._seen[code] > quota:
                counters |= {f"full/{name}": 1, f"threshold/{name}": float(threshold)}
        rows = np.sort(np.concatenate(chosen))
        left = np.bincount(codes[rows], minlength=len(self._classes))
        weights = (self._seen / np.maximum(left, 1))[codes[rows]]
        marks = {
            "key": keys[rows],
            "stands_for": weights,
            "label": np.array(self._classes)[codes[rows]],
            "code": np.zeros(len(rows)),
        }
        return Outcome(self._split(rows, ranked, weights), State(counters, marks))


def _quotas(counts: np.ndarray, capacity: int) -> np.ndarray:
    """How many of each class stay: as equal as can be, and none more than there are.

    Example:
        >>> _quotas(np.array([100, 3, 50]), 21)
        array([9, 3, 9])
    """
    if counts.sum() <= capacity:
        return counts.copy()
    low, high = 0, capacity
    while low < high:
        middle = (low + high + 1) // 2
        fits = int(np.minimum(counts, middle).sum()) <= capacity
        low, high = (middle, high) if fits else (low, middle - 1)
    quotas = np.minimum(counts, low)
    more = np.flatnonzero(counts > low)[: capacity - int(quotas.sum())]
    quotas[more] += 1
    return quotas


_DECISIONS: dict[type[Policy], type[Decision]] = {
    Memento: _Memento,
    DensityReservoir: _Density,
    Reservoir: _Random,
    ClassBalancedReservoir: _Balanced,
}
