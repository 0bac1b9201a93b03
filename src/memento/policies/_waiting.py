"""Samples that cannot be judged yet wait beside those that a policy has chosen.

A policy that reads labels can say nothing about a sample whose label has not come. Such samples
wait: of all that do, a uniform random sample is held (each has a key for life, the smallest stay,
so their age plays no part), in up to half of the places, or more where the policy's own samples do
not fill the rest. When a label has come, the sample is offered to the policy like a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from memento.errors import SettingError
from memento.policies._policy import Choice, Policy, State
from memento.policies.reservoir import smallest
from memento.samples import Samples

__all__ = ["Waiting", "choose"]


class Waiting(NamedTuple):
    """Who waits.

    Attributes:
        keys: ``(held,)`` float64: what draws among those that wait, NaN for rows that the policy
            has chosen.
        held: ``(held,)`` bool: rows that lack something now.
        fresh: ``(fresh,)`` bool: the same of the fresh samples.
    """

    keys: np.ndarray
    held: np.ndarray
    fresh: np.ndarray


def choose(
    policy: Policy,
    held: Samples,
    fresh: Samples,
    capacity: int | None,
    state: State,
    rng: np.random.Generator,
    waiting: Waiting,
    complete: Callable[[Samples], Samples],
) -> tuple[Choice, np.ndarray | None]:
    """What `Policy.choose` does, where some samples lack what the policy reads.

    Args:
        policy: Sees only samples that lack nothing.
        held: As for `Policy.choose`, and so the arguments up to ``rng``; marks have an entry for
            every row, those of waiting rows mean nothing.
        fresh: New samples.
        capacity: Most rows to keep, waiting ones included.
        state: Of the last choice.
        rng: The memory's generator.
        waiting: Which samples lack something, and the keys of those that wait.
        complete: Gives samples that lack nothing the types that they have without missing values.

    Returns:
        The choice, and the keys of the rows chosen (None if none waits).
    """
    ours = np.isnan(waiting.keys)
    fresh_keys = np.full(fresh.size, np.nan)
    fresh_keys[waiting.fresh] = rng.random(np.count_nonzero(waiting.fresh))
    keys = np.concatenate([waiting.keys, fresh_keys])
    # What the policy had chosen and lacks something now (it was annotated anew) waits, too.
    lost = ours & waiting.held
    keys[: held.size][lost] = rng.random(np.count_nonzero(lost))
    waits = np.flatnonzero(np.concatenate([waiting.held, waiting.fresh]))
    known = np.flatnonzero(ours & ~waiting.held)
    come = np.flatnonzero(~ours & ~waiting.held)
    new = np.flatnonzero(~waiting.fresh)
    offered = np.concatenate([come, new + held.size])
    places = _places(policy, len(waits), len(known) + len(offered), capacity)
    waits = smallest(keys, waits, places)
    room = None if capacity is None else capacity - len(waits)
    known = _thinned(policy, known, room, rng)
    marks = {name: mark[known] for name, mark in state.marks.items()}
    if len(offered) or (room is not None and len(known) > room):
        candidates = [part for part in (held.take(come), fresh.take(new)) if part.size]
        choice = policy.choose(
            complete(held.take(known)),
            complete(Samples.concat(candidates)) if candidates else complete(fresh.take(new)),
            room,
            State(state.counters, marks),
            rng,
        )
    else:
        choice = Choice(np.arange(len(known)), state.counters, marks)
    chosen = np.concatenate([known, offered])[choice.rows]
    rows = np.concatenate([chosen, waits])
    order = np.argsort(rows, kind="stable")
    blanks = {name: np.zeros(len(waits), mark.dtype) for name, mark in choice.marks.items()}
    joined = {n: np.concatenate([mark, blanks[n]])[order] for n, mark in choice.marks.items()}
    left = np.concatenate([np.full(len(chosen), np.nan), keys[waits]])[order]
    made = Choice(rows[order], choice.counters, joined, choice.approximations)
    return made, left if len(waits) else None


def _places(policy: Policy, waiting: int, others: int, capacity: int | None) -> int:
    """How many of those that wait are held."""
    if capacity is None or waiting + others <= capacity:
        return waiting
    places = min(waiting, max(capacity // 2, capacity - others))
    if others:
        try:
            policy.check_capacity(capacity - places)
        except SettingError:  # the policy can do nothing with half of the places
            places = min(waiting, max(0, capacity - others))
    return places


def _thinned(
    policy: Policy, known: np.ndarray, room: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Rows that a policy had chosen, no more than there is room for now."""
    if room is None or len(known) <= room or policy.thins:
        return known
    return np.sort(rng.permutation(known)[:room])
