"""One unit at a time, for jobs that train by themselves: insert it, and say whether it is due.

The daily loop (`memento.run`) does both, trains, and owns the order of a day. A job that is started
anew for every unit keeps what the trigger compares in the memory instead (`Memory.recent`), which
is saved with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from memento import arguments
from memento.arrivals import Arrivals
from memento.errors import InputError
from memento.group import Group
from memento.memory import Memory, Report
from memento.retrain import Decision, Situation, Trigger, trigger_or_default
from memento.samples import Samples

_MEMORY = arguments.instance(Memory, "a memento.Memory")

__all__ = ["enter", "observe", "reconsider", "retrained"]


@arguments.checked
def enter(
    memory: Memory | Group,
    samples: Samples,
    arrivals: Arrivals | None,
    rng: np.random.Generator,
    insert: Callable[[Samples], Report] | None = None,
) -> Report:
    """Insert a unit, or what a trigger leaves of it and has left of the one before.

    Args:
        memory: Memory that receives the samples.
        samples: The unit, predicted by the deployed model.
        arrivals: Keeps some of them aside; None: none are.
        rng: Generator that draws which clusters are held back.
        insert: What inserts the unit; ``memory.insert`` if left out.

    Returns:
        The samples inserted, of both units.
    """
    insert = memory.insert if insert is None else insert
    if arrivals is None or not samples.size:
        return insert(samples)
    # Checked as a whole, so that a unit which is refused leaves nothing behind.
    memory.check(samples)
    *late, entering = arrivals.arrive(samples, rng)
    reports = [*(memory.insert(part) for part in late), insert(entering)]
    return Report(
        sum(report.offered for report in reports),
        sum(report.kept for report in reports),
        sum(report.discarded for report in reports),
        tuple(each for report in reports for each in report.approximations),
    )


def observe(
    memory: Memory,
    data: Any,
    trigger: Trigger | None = None,
    *,
    label: str = "y",
    rng: int | np.random.Generator | None = None,
    insert: Callable[[Samples], Report] | None = None,
    at: float = math.nan,
) -> tuple[Report, Decision]:
    """Insert a unit of the stream and say whether retraining is due.

    What is compared is kept in ``memory.recent``. After a training call `retrained`.

    Args:
        memory: Memory that receives the samples.
        data: The unit, predicted by the deployed model where there is one; anything that `Samples`
            accepts.
        trigger: Decides; `OnArrivals()` if left out.
        label: Column of the labels, for memories whose policy has no distances.
        rng: Of the trigger; if left out, one that follows from how many inserts there were, so that
            a job which is repeated from the same state decides alike.
        insert: What inserts the unit; ``memory.insert`` if left out.
        at: When it came, in seconds since 1970, to be written down beside the decision.

    Returns:
        What was inserted, and the decision. Where samples cannot be compared the decision is not
        due and its reason says why: the insert has its own errors.

    Raises:
        InputError: The samples cannot be inserted; then nothing has changed.

    Example:
        >>> from memento import FIFO, Memory
        >>> memory = Memory(100, FIFO())
        >>> observe(memory, {"y": [0, 1] * 20})[1].reason
        'nothing was trained yet'
        >>> retrained(memory)
        >>> observe(memory, {"y": [0, 1] * 20})[1].due
        False
    """
    trigger = trigger_or_default(trigger)
    arguments.require("memory", memory, _MEMORY)
    samples = Samples.borrow(data)
    keeps = trigger.keeps()
    fresh = Arrivals(witnesses=0.0) if keeps is None else keeps
    arrivals = fresh if memory.recent is None else memory.recent.copy()
    arrivals.witnesses, arrivals.cluster = fresh.witnesses, fresh.cluster
    generator = _generator(rng, memory.inserts, memory.seen)
    report = enter(memory, samples, arrivals, generator, insert)
    if not samples.size:
        return report, Decision(False, "no samples came")
    decision = _decide(memory, trigger, arrivals, label, generator)
    arrivals.decided(vars(decision), at)
    memory.recent = arrivals
    return report, decision


def reconsider(
    memory: Memory,
    trigger: Trigger | None = None,
    *,
    label: str = "y",
    rng: int | np.random.Generator | None = None,
) -> Decision | None:
    """Decide on the newest unit again, since its labels have come.

    A unit whose labels come later is first compared by its predictions alone. What was decided
    then is replaced, so the evidence counts each unit once.

    Args:
        memory: As for `observe`, after `Memory.label`.
        trigger: As for `observe`.
        label: As for `observe`.
        rng: As for `observe`.

    Returns:
        The decision; None where no unit waits for one, or the trigger compares no arrivals.

    Example:
        >>> from memento import FIFO, Memory
        >>> memory = Memory(100, FIFO(), ids="id")
        >>> unit = {"id": range(40), "yhat": [[0.5, 0.5]] * 40, "y": [float("nan")] * 40}
        >>> reconsider(memory) is None  # nothing has come
        True
        >>> _ = observe(memory, unit)
        >>> retrained(memory)
        >>> _ = observe(memory, {**unit, "id": range(40, 80)})
        >>> labelled = memory.label(range(40, 80), y=[0.0, 1.0] * 20)
        >>> reconsider(memory).due
        False
    """
    trigger = trigger_or_default(trigger)
    arguments.require("memory", memory, _MEMORY)
    if memory.recent is None or not memory.recent.unit.size or memory.reference is None:
        return None
    if trigger.keeps() is None:
        return None
    arrivals = memory.recent.copy()
    arrivals.evidence, arrivals.renew = arrivals.before, False
    generator = _generator(rng, memory.inserts, memory.seen, 1)
    decision = _decide(memory, trigger, arrivals, label, generator)
    arrivals.decided(vars(decision))
    memory.recent = arrivals
    return decision


def _generator(rng: int | np.random.Generator | None, *inserts: int) -> np.random.Generator:
    """The generator of a trigger; by default one that follows from how many inserts there were."""
    return np.random.default_rng(inserts) if rng is None else arguments.generator(rng, "rng")


def _decide(
    memory: Memory, trigger: Trigger, arrivals: Arrivals, label: str, rng: np.random.Generator
) -> Decision:
    trained_at = arrivals.trained_at
    if trained_at is None and memory.reference is not None:
        trained_at = 0  # by somebody who does not know of arrivals
    situation = Situation(memory, arrivals.units, trained_at, arrivals.seen_at, arrivals, label)
    try:
        decision = trigger.decide(situation, rng)
    except InputError as error:
        decision = Decision(False, f"it cannot be told: {error}")
    arrivals.decision = asdict(replace(decision, figures=dict(decision.figures)))
    return decision


@arguments.checked
def retrained(
    memory: Memory,
    annotate: Callable[[Samples], Mapping[str, Any]] | None = None,
    *,
    recent: Callable[[Samples], Mapping[str, Any]] | None = None,
) -> None:
    """Say that a model was trained on what is held now.

    Args:
        memory: Its content becomes the reference.
        annotate: From samples to the columns of the new model (``yhat``, and ``loss`` where labels
            are known): everything held, and kept for comparisons, gets them. None: predictions of
            the old model stay where they are, and what was kept is dropped, so the first unit after
            the training has nothing to be compared with.
        recent: The same for what is kept alone, where what is held has them already.

    Example:
        >>> from memento import FIFO, Memory
        >>> memory = Memory(3, FIFO())
        >>> report = memory.insert(y=[1, 2, 3])
        >>> retrained(memory, lambda samples: {"yhat": samples["y"] / 2})
        >>> memory.reference["yhat"]
        array([0.5, 1. , 1.5])
    """
    kept = memory.recent
    if annotate is not None:
        memory.annotate(annotate(memory.samples))
    memory.mark_trained()
    columns = recent or annotate
    if kept is not None and columns is not None:
        kept = kept.copy()
        kept.trained(lambda samples: samples.with_columns(columns(samples)), memory.seen)
        memory.recent = kept
