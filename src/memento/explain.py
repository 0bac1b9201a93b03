"""Why a memory holds what it holds: when a sample came, how rare it is, what it stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from memento.attribution import cell_of
from memento.batching import Batches
from memento.contents import Contents
from memento.density import SampleSpace
from memento.errors import InputError
from memento.missing import lacking
from memento.policies._policy import Policy, State
from memento.policies._weighted import WeightedReservoir
from memento.policies.memento import Memento, going_next
from memento.printing import Table
from memento.samples import Samples

__all__ = ["Held", "explained", "training_weights"]


@dataclass(frozen=True)
class Held:
    """What a memory holds at one moment, and by which policy.

    Attributes:
        contents: All of it.
        samples: ``n`` samples that it holds.
        policy: Which chose them.
        capacity: Most samples to hold; None for no limit.
    """

    contents: Contents
    samples: Samples
    policy: Policy
    capacity: int | None

    @cached_property
    def seen(self) -> Samples:
        """The samples without columns that the policy does not see."""
        return self.contents.schema.visible(self.samples)

    @cached_property
    def waiting(self) -> np.ndarray:
        """``(n,)`` bool: samples that the policy has not chosen yet."""
        keys = self.contents.keys
        return np.zeros(self.contents.size, bool) if keys is None else ~np.isnan(keys)

    @property
    def chosen(self) -> np.ndarray:
        """Rows that the policy has chosen, to which its state belongs."""
        return np.flatnonzero(~self.waiting)


def explained(held: Held, rows: Any) -> Table:
    """A row for each of some samples held; see `Memory.why`."""
    now = held.contents
    rows = _numbers(rows, now.size)
    came = now.arrivals[rows]
    table = {"row": rows, "insert": came, "age": now.inserts - came}
    if now.units:
        names = {insert: name for name, insert in now.units.items()}
        table["unit"] = np.array([names.get(insert, "") for insert in came.tolist()], str)
    if held.waiting.any():
        table["waiting"] = held.waiting[rows]
    weights = training_weights(now, held.policy)
    placed, note = _placed(held)
    table |= {name: c[rows] for name, c in {**placed, **_weighed(held, weights)}.items()}
    if weights is None:
        name = type(held.policy).__name__
        note += (
            f" {name} keeps no count of what it discards: how many each stands for is not known."
        )
    return Table(table, note.strip())


def training_weights(now: Contents, policy: Policy) -> np.ndarray | None:
    """``(n,)`` weights of all that is held, for training; None if the policy states none.

    Samples that wait have the mean weight of the others.
    """
    if now.keys is None:
        return policy.weights(now.state, now.size)
    chosen = np.flatnonzero(np.isnan(now.keys))
    marks = {name: mark[chosen] for name, mark in now.state.marks.items()}
    found = policy.weights(State(now.state.counters, marks), len(chosen))
    if found is None:
        return None
    weights = np.full(now.size, found.mean() if len(found) else 1.0)
    weights[chosen] = found
    return weights


def _placed(held: Held) -> tuple[dict[str, np.ndarray], str]:
    """Where samples lie in the space that the policy compares them in, if it has one."""
    policy = held.policy
    given = getattr(policy, "density", None)
    if isinstance(given, str) and given in held.seen:
        density = held.seen[given].astype(np.float64)
        return _ranked(density, np.isfinite(density)), f"Densities are those of {given!r}."
    if not isinstance(policy, SampleSpace):
        return {}, f"{type(policy).__name__} compares no densities."
    columns = [column for distance in policy.distances for column in distance.columns]
    seen = held.seen.select([n for n in held.seen if n in {*columns, *policy.sort_columns}])
    whole = ~held.waiting
    for name in seen:
        whole &= ~lacking(seen[name])
    rows = np.flatnonzero(whole)
    if policy.group_by is not None and policy.group_by in held.seen:
        seen = held.seen.select([*seen, policy.group_by])
    inside = seen if len(rows) == held.seen.size else seen.take(rows)
    if not len(rows) or not _sees(policy, inside):
        return {}, "The columns that densities are of are not there yet."
    size = policy.size_for(held.seen.size if held.capacity is None else held.capacity)
    cells = policy.batches(inside, size=size)
    if not len(cells):
        return {}, "There are too few samples for one cell."
    density, chance = _densities(held, policy, cells, rows)
    cell = np.full(held.seen.size, -1)
    cell[rows] = cell_of(cells, inside.size)
    placed = cell >= 0
    found = {"cell": cell, "cell_size": np.where(placed, cells.sizes[cell], 0)}
    found |= _ranked(np.where(placed, density[cell], np.nan), placed)
    if chance is not None:
        found["chance"] = np.where(placed, chance[cell], np.nan)
    return found, ""


def _sees(policy: SampleSpace, samples: Samples) -> bool:
    try:
        return policy.sees((samples,))
    except InputError:  # it insists on columns that are not there
        return False


def _densities(
    held: Held, policy: SampleSpace, cells: Batches, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """``(cells,)`` densities as the policy sees them, and the chance that each goes next."""
    if isinstance(policy, WeightedReservoir):
        stream = np.ones(held.contents.size)
        stream[held.chosen] = policy.stands_for(_state(held), len(held.chosen))
        counts = np.add.reduceat(stream[rows][cells.order], cells.offsets[:-1])
        return policy.field(cells, counts).density(leave_one_out=True), None
    field = policy.field(cells)
    chance = going_next(policy, field) if isinstance(policy, Memento) else None
    return field.density(), chance


def _ranked(density: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Densities, and the share of samples that lie denser: 0.99 is the rarest hundredth."""
    order = np.sort(density[known])
    above = len(order) - np.searchsorted(order, density, side="right")
    denser = np.where(known, above / max(1, len(order)), np.nan)
    return {"density": density, "denser": denser}


def _weighed(held: Held, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    """What samples stand for, and how they were favoured when they came."""
    if weights is None:
        return {}
    policy, chosen = held.policy, held.chosen
    if not isinstance(policy, WeightedReservoir):
        return {"weight": weights}
    stands, favoured = np.full((2, len(weights)), math.nan)
    if len(chosen):
        state = _state(held)
        stands[chosen] = policy.stands_for(state, len(chosen))
        favoured[chosen] = policy.drawn_weights(state)
    return {"stands_for": stands, "weight": weights, "favoured": favoured}


def _state(held: Held) -> State:
    """What the policy remembers of those that it has chosen."""
    state = held.contents.state
    marks = {name: mark[held.chosen] for name, mark in state.marks.items()}
    return State(state.counters, marks)


def _numbers(rows: Any, size: int) -> np.ndarray:
    """``(m,)`` int64 row numbers from 0 on; all for None.

    Raises:
        RowError: They are something else.
    """
    every = np.arange(size)
    if rows is None:
        return every
    if isinstance(rows, slice):
        return every[rows]
    if isinstance(rows, (int, np.integer)) and not isinstance(rows, bool):
        rows = [rows]
    return Samples.borrow({"row": every}).take(rows)["row"]
