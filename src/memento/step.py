"""One step of a model that learns continually: the only place that owns the order of a day.

Annotate what came in with the current model, judge that, let the model adapt if it is of that kind,
keep aside what a trigger compares later units with, insert the rest, decide, train if due, ask the
gate, annotate everything held again, judge the new model. `memento.run` does it for a stream,
`memento.deployment` once a day.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from memento import arguments, missing, snapshot
from memento.arrivals import Arrivals
from memento.errors import SchemaError, SettingError
from memento.group import Group
from memento.learner import Adaptive, Checkpointable, Learner, digest_of_state, way_back
from memento.memory import Memory
from memento.observe import enter
from memento.retrain import Decision, Situation, Trigger
from memento.samples import Samples

__all__ = [
    "Gate",
    "Judge",
    "Moment",
    "Note",
    "Pieces",
    "Step",
    "Stepper",
    "When",
    "about",
    "annotated",
    "predict_again",
    "stored",
]

#: On what a step is judged, and by which model: before what came is trained on, by the model until
#: then; after that, by the model then; or on the next unit, by the model of the step.
When = Literal["before", "after", "next"]


@dataclass(frozen=True)
class Moment:
    """What a judge or a gate may look at.

    Attributes:
        when: ``"before"``, ``"after"`` or ``"next"`` for a judge, ``"gate"`` for a gate.
        unit: Number of the step's unit.
        name: Name of the unit that ``samples`` are of: the step's own, or for ``"next"`` the one
            after it.
        learner: As it is now; for a gate with the model in question.
        memory: As it is now; for ``"before"`` without what came, for a gate with its predictions by
            the former model. It is not to be changed.
        served: What came, predicted by the model until then, for ``"after"`` and a gate; None
            before the first model.
        notes: Anything to remember with the step by name, JSON values: fill it in.
    """

    when: Literal["before", "after", "next", "gate"]
    unit: int
    name: str
    learner: Learner
    memory: Memory | Group
    served: Samples | None
    notes: dict[str, Any]
    _annotated: Callable[[], Samples] = field(repr=False)

    @cached_property
    def samples(self) -> Samples:
        """The unit's samples, predicted by the learner when they are first asked for."""
        return self._annotated()


Judge = Callable[[Moment], Mapping[str, float]]
#: Gives None to accept a trained model, or in one sentence why not.
Gate = Callable[[Moment], str | None]
#: Gives JSON values by name.
Note = Callable[["Memory | Group"], Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """What happened with one unit of the stream.

    Attributes:
        unit: Number of the unit, from 0.
        name: Name of the unit.
        offered: Number of samples that came.
        kept: How many of them were kept.
        held: Samples in the memory afterwards.
        decision: Whether to retrain, and why.
        trained: Whether the model was trained.
        frozen: Whether memory and model were left alone.
        evaluated_on: Name of the next unit; None if there is none (yet), it is missing, or there is
            no model.
        scores: What judges said, by default of the model after this step on the next unit.
        restored: Whether this is a record of an earlier run.
        refused: Why the gate refused the model that was trained; None if it did not.
        missing: Whether the unit did not come.
        late: Whether it came after later ones, having been missing before.
        notes: What judges and gate noted.
        seconds: What the stages took, by the clock: ``annotate``, ``insert``, ``decide``,
            ``train`` (with the predictions of everything held), ``judge``, ``adapt``; those that
            ran. Not kept in a checkpoint, which does not depend on where a run stopped.
    """

    unit: int
    name: str
    offered: int
    kept: int
    held: int
    decision: Decision
    trained: bool
    frozen: bool = False
    evaluated_on: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    restored: bool = field(default=False, compare=False)
    refused: str | None = None
    missing: bool = False
    late: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    def row(self) -> dict[str, Any]:
        """This step as one flat row; scores are named ``score_...``, figures ``figure_...``.

        ``refused``, ``missing`` and ``late`` stand there where they say something; seconds and
        notes do not.
        """
        row = asdict(self)
        decision, scores = row.pop("decision"), row.pop("scores")
        figures = decision.pop("figures")
        for name in ("restored", "notes", "seconds"):
            del row[name]
        for name in ("refused", "missing", "late"):
            if not row[name]:
                del row[name]
        return {
            **row,
            **decision,
            **{f"figure_{name}": value for name, value in figures.items()},
            **{f"score_{name}": value for name, value in scores.items()},
        }


@contextmanager
def about(unit: int, name: str) -> Iterator[None]:
    """Add to errors which unit they are about."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This was about unit {unit} of the stream, {name!r}.")
        raise


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    before = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - before


class Pieces:
    """A unit in pieces, for units that need not fit into main memory at once.

    They are predicted and inserted one after the other. Judges cannot look at their samples.

    Args:
        parts: Samples of the unit, made when they are needed.
    """

    def __init__(self, parts: Iterable[Any]) -> None:
        self.parts = parts


class Stepper:
    """A model that learns continually, between two steps.

    Args:
        memory: Memory, or group, that receives the samples.
        learner: Trained on the memory's content.
        trigger: Decides whether to train.
        judges: Who is asked for scores, by when.
        gate: Asked after each training; None: every model is accepted.
        weighted: Whether to train with `Memory.weights`, where the policy states them.
        rng: For triggers that draw at random.

    Attributes:
        arrivals: What the trigger compares; None where it compares none.
        trained_at: Unit of the last training; None before the first.
        seen_at: Samples that the memory had seen then.
        freeze_after: Memory and model are left alone after so many units; None: never.
        decision: The newest.
        note: What the notes of each step are to say of the memory.
        label: Column of the labels; None: as the learner says.
        named: Whether ``memory.model`` says whose predictions are held; the learner then needs a
            ``state``.
        adapts: Whether a learner that is `Adaptive` is let adapt to what comes.
    """

    def __init__(
        self,
        memory: Memory | Group,
        learner: Learner,
        trigger: Trigger,
        judges: Mapping[When, Judge],
        gate: Gate | None = None,
        *,
        weighted: bool = True,
        rng: int | np.random.Generator = 0,
    ) -> None:
        self.memory: Any = memory  # what is used of it, a Group has as well
        self.learner = learner
        self.trigger = trigger
        self.judges = judges
        self.gate = gate
        self.rng = arguments.generator(rng, "rng")
        self.weighted = weighted
        self.freeze_after: int | None = None
        self.arrivals: Arrivals | None = trigger.keeps()
        self.trained_at: int | None = None
        self.seen_at = 0
        self.decision: Decision | None = None
        self.note: Note | None = None
        self.label: str | None = None
        self.named = False
        self.adapts = True

    def advance(self, unit: int, name: str, data: Any, *, late: bool = False) -> Step:
        """Annotate, judge, insert, decide, train, judge.

        Args:
            unit: Number of the unit.
            name: Name of the unit.
            data: Anything that `Samples` accepts, or `Pieces`; None for a unit that is missing.
            late: Whether it comes after later ones: it is inserted, and nothing is decided.
        """
        if data is None:
            decision = Decision(False, "the unit is missing")
            return self._step(unit, name, 0, decision, missing=True)
        if isinstance(data, Pieces):
            day = _Day(self, unit, name, None)
        else:
            day = _Day(self, unit, name, Samples.borrow_identified(self.memory.ids, data, {}))
        size = 0 if day.fresh is None else day.fresh.size
        if self.freeze_after is not None and unit >= self.freeze_after:
            decision = Decision(False, f"frozen after {self.freeze_after} units")
            if not late:
                day.judge("before")
                day.judge("after")
            return self._step(unit, name, size, decision, day, frozen=True, late=late)
        if day.fresh is not None:
            _ = day.served
        if not late:
            day.judge("before")
        adapted = not late and day.fresh is not None and self._adapt(day)
        with _timed(day.seconds, "insert"):
            if isinstance(data, Pieces):
                reports = [
                    self.memory.insert(self.annotated(Samples.borrow(part))) for part in data.parts
                ]
                kept, size = sum(r.kept for r in reports), sum(r.offered for r in reports)
            else:
                enters = day.again() if adapted else day.served
                arrivals = None if late else self.arrivals
                kept = enter(self.memory, enters, arrivals, self.rng).kept
        if late:
            decision = Decision(False, "the unit came late: it is held, and nothing is decided")
            return self._step(unit, name, size, decision, day, kept=kept, late=True)
        with _timed(day.seconds, "decide"):
            self.decision = decision = self._decide(unit, came=size > 0)
            if self.arrivals is not None and size > 0:
                self.arrivals.decided(vars(decision))
        refused = None
        if decision.due:
            with _timed(day.seconds, "train"):
                refused = self._train(unit, day)
        trained = decision.due and refused is None
        day.judge("after", again=trained or adapted)
        return self._step(
            unit, name, size, decision, day, kept=kept, trained=trained, refused=refused
        )

    def _adapt(self, day: _Day) -> bool:
        """Let the learner adapt to what came; whether it, and all that is kept, predict anew."""
        learner = self.learner
        if not self.adapts or not learner.trained or not day.served.size:
            return False
        if not isinstance(learner, Adaptive):
            return False
        self.memory.check(day.served)  # a unit that is refused changes nothing
        with _timed(day.seconds, "adapt"):
            if not learner.adapt(day.served):
                return False
            predict_again(self.memory, self.learner, self.arrivals)
            self._name_model()
        return True

    def _name_model(self) -> None:
        self.memory.model = None
        if self.named and isinstance(self.learner, Checkpointable):
            self.memory.model = digest_of_state(self.learner.state())

    def evaluate(self, step: Step, name: str, data: Any) -> Step:
        """A step with the scores of the current model on the next unit."""
        with about(step.unit + 1, name):
            fresh = Samples.borrow_identified(self.memory.ids, data, {})
            day = _Day(self, step.unit, name, fresh, step)
            day.judge("next", again=True)
            notes = stored("notes", day.notes)
        return replace(step, evaluated_on=name, scores=day.scores, notes=notes, seconds=day.seconds)

    def _step(
        self,
        unit: int,
        name: str,
        offered: int,
        decision: Decision,
        day: _Day | None = None,
        *,
        kept: int = 0,
        trained: bool = False,
        **others: Any,
    ) -> Step:
        """The record of a unit, with what its day gathered."""
        if day is not None:
            day.notes |= {} if self.note is None else self.note(self.memory)
            others |= {
                "scores": day.scores,
                "notes": stored("notes", day.notes),
                "seconds": day.seconds,
            }
        held = len(self.memory)
        return Step(unit, name, offered, kept, held, decision, trained, **others)

    def _decide(self, unit: int, *, came: bool) -> Decision:
        """What the trigger says; not due where there is nothing to decide on or to train on."""
        if self.arrivals is not None and not came:
            # What came last was decided on already, and is no evidence a second time.
            return Decision(False, "no samples came")
        said = self.label or getattr(self.learner, "label", None)
        label = "y" if said is None else said
        situation = Situation(
            self.memory, unit, self.trained_at, self.seen_at, self.arrivals, label
        )
        decision = _without_numpy(self.trigger.decide(situation, self.rng))
        if decision.due and not len(self.memory):
            decision = replace(decision, due=False, reason="the memory is empty")
        if decision.due and not _labelled(self.memory, label, said is not None):
            decision = replace(decision, due=False, reason="no sample held has its label yet")
        return decision

    def annotated(self, samples: Samples) -> Samples:
        """Samples with the learner's columns, once it has any.

        Raises:
            SchemaError: It gives another number of rows.
        """
        return annotated(self.learner, samples) if self.learner.trained else samples

    def _train(self, unit: int, day: _Day) -> str | None:
        """Train; why the gate refused what came out, or None."""
        weights = self.memory.weights if self.weighted else None
        if self.gate is None:
            self.learner.fit(self.memory.samples, weights)
        else:
            go_back = way_back(self.learner)
            try:
                self.learner.fit(self.memory.samples, weights)
                refused = self.gate(day.moment("gate"))
                if refused is not None and not isinstance(refused, str):
                    raise SettingError(
                        f"the gate gave {refused!r}; expected None, or a text that says why the "
                        "model is refused"
                    )
            except BaseException:
                go_back()
                raise
            if refused is not None:
                go_back()
                return refused or "refused"
        # Predictions of an older model are worth nothing now: all are made again. The reference is
        # what is held now, so it is annotated with it.
        self.memory.annotate(self.learner.annotate(self.memory.samples))
        self.memory.mark_trained()
        if self.arrivals is not None:
            self.arrivals.trained(self.annotated, self.memory.seen)
        self._name_model()
        self.trained_at, self.seen_at = unit, self.memory.seen
        return None


class _Day:
    """One unit as a step sees it: its samples, and what judges said.

    Args:
        loop: Its learner predicts.
        unit: Number of the step's unit.
        name: Of the unit that the samples are of.
        fresh: The samples, without predictions; None: they come in pieces.
        step: What was said of the step before, if it is judged on the next unit.
    """

    def __init__(
        self,
        loop: Stepper,
        unit: int,
        name: str,
        fresh: Samples | None,
        step: Step | None = None,
    ) -> None:
        self._loop, self._unit, self._name, self.fresh = loop, unit, name, fresh
        self._modelled = loop.learner.trained
        self.scores: dict[str, float] = {} if step is None else dict(step.scores)
        self.notes: dict[str, Any] = {} if step is None else dict(step.notes)
        self.seconds: dict[str, float] = {} if step is None else dict(step.seconds)

    @cached_property
    def served(self) -> Samples:
        """The samples, predicted by the model that was there when they came."""
        with _timed(self.seconds, "annotate"):
            return self.again()

    def moment(
        self, when: Literal["before", "after", "next", "gate"], *, again: bool = True
    ) -> Moment:
        """What a judge or a gate sees now.

        Args:
            when: Of the judge, or the gate.
            again: Whether the model has changed since the samples were predicted.
        """
        loop, served = self._loop, None
        if self._modelled and self.fresh is not None and when in ("after", "gate"):
            served = self.served
        annotated = self.again if again else lambda: self.served
        return Moment(
            when, self._unit, self._name, loop.learner, loop.memory, served, self.notes, annotated
        )

    def judge(self, when: When, *, again: bool = False) -> None:
        """Ask who judges then, if anybody does and there is a model; `again` as for `moment`."""
        loop = self._loop
        if when not in loop.judges or not loop.learner.trained:
            return
        moment = self.moment(when, again=again)
        with _timed(self.seconds, "judge"):
            found = loop.judges[when](moment)
            scores = {name: float(value) for name, value in found.items()}
        twice = sorted(set(scores) & set(self.scores))
        if twice:
            raise SettingError(f"two judges give the score {twice[0]!r}; name them apart")
        self.scores |= scores

    def again(self) -> Samples:
        """The samples, predicted by the learner as it is now."""
        if self.fresh is None:
            raise SettingError(f"{self._name} comes in pieces; a judge has to look at it itself")
        return self._loop.annotated(self.fresh)


def annotated(learner: Learner, samples: Samples) -> Samples:
    """Samples with a learner's columns.

    Raises:
        SchemaError: It gives another number of rows.
    """
    columns = Samples.borrow(learner.annotate(samples))
    if len(columns) and columns.size != samples.size:
        raise SchemaError(
            f"{type(learner).__name__}.annotate gave {columns.size:,} rows for {samples.size:,} "
            "samples; expected one row a sample"
        )
    return samples.with_columns(columns)


def predict_again(memory: Any, learner: Learner, arrivals: Arrivals | None) -> None:
    """Let a learner that was changed predict all that is held, and what is kept aside.

    Both are compared with what comes, which has to be by one model's predictions.
    """
    if len(memory):
        memory.annotate(learner.annotate(memory.samples))
    if (reference := memory.reference) is not None and reference.size:
        memory.annotate_reference(learner.annotate(reference))
    if arrivals is not None:
        arrivals.predict_again(lambda part: annotated(learner, part))


def stored(name: str, value: Any) -> Any:
    """As a checkpoint gives it back."""
    return json.loads(snapshot.json_of(name, value))


def _without_numpy(decision: Decision) -> Decision:
    """With numbers that JSON knows, whatever a trigger computed with."""
    numbers = (decision.value, decision.threshold, decision.noise, decision.p_value)
    figures = {name: float(value) for name, value in decision.figures.items()}
    value, threshold, noise, p_value = map(float, numbers)
    return Decision(bool(decision.due), decision.reason, value, threshold, noise, p_value, figures)


def _labelled(memory: Memory | Group, label: str, named: bool) -> bool:
    """Whether any sample has its label; also where nobody says which column that is."""
    samples = memory.samples
    if label not in samples and named and memory.ids in samples:
        return False  # labels may come for these
    if label not in samples:
        return True
    return not missing.lacking(samples[label]).all()
