"""The day of a model that learns continually: the only place that owns the order of things.

For every unit of the stream (a day, say): annotate what came in with the current model, judge that,
keep aside what a trigger compares later units with, insert the rest, decide, train if due, ask the
gate, annotate everything held again, judge the new model, evaluate on the next unit, save.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from memento import arguments, missing, snapshot
from memento.arrivals import Arrivals
from memento.errors import DamagedError, ForeignError, MementoError, SchemaError, SettingError
from memento.files import local_path
from memento.group import Group
from memento.learner import Checkpointable, Learner, digest_of_state, way_back
from memento.memory import Memory
from memento.observe import enter
from memento.retrain import Decision, OnArrivals, Situation, Trigger
from memento.samples import Samples
from memento.scores import log_scores

__all__ = ["Gate", "Judge", "Moment", "Step", "When", "log_scores", "read_steps", "run", "table"]

_KIND = "memento-loop"
_PLACES = {"trained_at": arguments.optional(arguments.whole(0)), "seen_at": arguments.whole(0)}
_log = logging.getLogger(__name__)

#: On what a step is judged, and by which model: before what came is trained on, by the model until
#: then; after that, by the model then; or on the next unit, by the model of the step.
When = Literal["before", "after", "next"]
Scores = Callable[[Samples], Mapping[str, float]]


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
        name: Its name.
        offered: Samples that came.
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
            ``train`` (with the predictions of everything held) and ``judge``; those that ran. Not
            kept in a checkpoint, which does not depend on where a run stopped.
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


def run(
    stream: Iterable[tuple[str, Any]],
    memory: Memory | Group,
    learner: Learner,
    trigger: Trigger | None = None,
    *,
    scores: Scores | None = None,
    judge: Judge | Mapping[When, Judge] | None = None,
    gate: Gate | None = None,
    weighted: bool = True,
    freeze_after: int | None = None,
    note: Note | None = None,
    checkpoint: str | Path | None = None,
    on_train: Callable[[Step, Learner], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    rng: int | np.random.Generator = 0,
) -> Iterator[Step]:
    """Run the loop over a stream, one `Step` for each of its units.

    Args:
        stream: Pairs of a name and samples (anything that `Samples` accepts), or None for a unit
            that is missing: it changes nothing. If it comes later under the same name it is
            inserted, and nothing is decided or judged by it. When a run goes on from a checkpoint
            the stream is read from the start again; what was done before is skipped.
        memory: Receives the samples; a `Memory`, or a `Group` of several.
        learner: Trained on the memory's content.
        trigger: Decides when; `OnArrivals()` if left out. Where it compares arrivals, some of each
            unit's samples enter the memory one unit late, or never (see `memento.arrivals`).
        scores: From annotated samples of the next unit to named numbers; `log_scores` if neither
            this nor ``judge`` is given.
        judge: From a `Moment` to named numbers, on the next unit; or such functions by when they
            are asked: ``{"before": ..., "after": ..., "next": ...}``. Where nothing is judged on
            the next unit, a step does not wait until that comes.
        gate: Asked after each training, before anything depends on the new model. If it refuses,
            the learner goes back to what it was, by its ``state`` or a copy, and the next unit
            finds everything else as if there had been no training.
        weighted: Whether to train with `Memory.weights`, where the policy states them.
        freeze_after: Leave memory and model alone after so many units, and only evaluate.
        note: From the memory after each unit that came to what the step's notes are to say of it.
        checkpoint: Folder to save everything to after each step, and to go on from: a run that was
            stopped anywhere gives the same steps as one that was not. Needs a learner with
            ``state`` and ``restore``.
        on_train: Called after a training, before the step is saved: for publishing the model. After
            a crash it can be called again for the same step.
        on_step: Called with each new step, before it is saved; and once more with the last step of
            an earlier run (then ``restored``) when the stream has grown, so that it is evaluated.
        rng: For triggers that draw at random.

    Yields:
        Steps in order; those of an earlier run first, marked ``restored``.

    Raises:
        SettingError: A checkpoint is asked for and the learner cannot be saved; a gate, and it
            cannot go back; a negative ``freeze_after``; judges that give the same name.
        ForeignError: The checkpoint is of another run: other settings, or a stream with other names
            or fewer units.
        InputError: A unit cannot be annotated or inserted; a note names it. The memory is then as
            after the step before, which was yielded and saved, without scores.

    Example:
        >>> from memento import FIFO, Every, Memory
        >>> from memento.testing import ConstantLearner, ToyStream
        >>> steps = list(
        ...     run(ToyStream(days=3, seed=1), Memory(500, FIFO()), ConstantLearner(), Every(2))
        ... )
        >>> [step.trained for step in steps]
        [True, False, True]
    """
    if not isinstance(memory, (Memory, Group)):
        raise SettingError(f"memory is {memory!r}; expected a memento.Memory, or a Group of them")
    trigger = OnArrivals() if trigger is None else trigger
    if not isinstance(trigger, Trigger):
        raise SettingError(f"trigger is {trigger!r}; expected a Trigger, such as OnArrivals()")
    if isinstance(learner, type) or not isinstance(learner, Learner):
        raise SettingError(
            f"learner is {learner!r}; expected an object with fit, annotate and trained, such as "
            "memento.integrations.sklearn.SklearnLearner(estimator)"
        )
    if freeze_after is not None:
        words = "0 or more units"
        arguments.require("freeze_after", freeze_after, arguments.whole(0, words=words))
    judges = _judges(scores, judge)
    if gate is not None:
        way_back(learner)  # fails now if it would later
    loop = _Loop(memory, learner, trigger, judges, gate, weighted, freeze_after, rng)
    loop.note = note
    loop.saved = checkpoint is not None
    folder = None if checkpoint is None else local_path(checkpoint, "checkpoint")
    if folder is not None and not isinstance(learner, Checkpointable):
        raise SettingError(
            f"{type(learner).__name__} has no state() and restore(), so it cannot be saved; give "
            "it both, or run without checkpoint"
        )
    if folder is not None and hasattr(learner, "check_checkpoint"):
        learner.check_checkpoint()
    if folder is not None and snapshot.exists(folder):
        loop.restore(folder)
    done = len(loop.steps)
    unit = -1
    units = _with_next(stream) if "next" in judges else ((pair, None) for pair in _pairs(stream))
    for unit, ((name, data), following) in enumerate(units):
        if unit < done:
            step = loop.steps[unit]
            _check_same(folder, unit, step.name, name)
            if step.missing and data is not None:
                _log.warning("%s was missing and is passed over; append it to the stream", name)
            if unit < done - 1 or step.evaluated_on is not None:
                if unit == done - 1:
                    _check_same(folder, done, str(step.evaluated_on), following and following[0])
                yield step
                continue
        else:
            with _about(unit, name):
                step = loop.advance(unit, name, data)
            loop.steps.append(step)
            if step.trained and on_train is not None:
                on_train(step, learner)
        # Here the step is new, or the last one of an earlier run on a stream that may have grown.
        failure = None
        if following is not None:
            failure = loop.evaluate(unit, following)
        if unit >= done or loop.steps[unit] is not step:
            step = loop.steps[unit]
            if on_step is not None:
                on_step(step)
            if folder is not None:
                loop.save(folder)
            _log.info("%s: %s", step.name, step.decision.reason, extra={"step": step.row()})
        yield step
        if failure is not None:
            raise failure
    if unit + 1 < done:
        _check_same(folder, unit + 1, loop.steps[unit + 1].name, None)


def _check_same(folder: Path | None, unit: int, before: str, now: str | None) -> None:
    if now != before:
        found = "there is none" if now is None else f"it is {now!r}"
        raise ForeignError(
            f"{folder}: unit {unit} was {before!r}, in this stream {found}; use the same stream, "
            "or another checkpoint folder"
        )


@contextmanager
def _about(unit: int, name: str) -> Iterator[None]:
    """Add to errors which unit they are about."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This was about unit {unit} of the stream, {name!r}.")
        raise


def _pairs(stream: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    if isinstance(stream, Mapping) or not isinstance(stream, Iterable):
        raise SettingError(
            f"stream is a {type(stream).__name__}; expected pairs of a name and samples, such as "
            "a list, a generator, or units.items()"
        )
    for unit, pair in enumerate(stream):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise SchemaError(
                f"unit {unit} of the stream is a {type(pair).__name__}; expected a pair of its "
                "name and its samples"
            )
        yield pair[0], pair[1]


def _with_next(
    stream: Iterable[tuple[str, Any]],
) -> Iterator[tuple[tuple[str, Any], tuple[str, Any] | None]]:
    """Each unit together with the one after it."""
    iterator = _pairs(stream)
    try:
        current = next(iterator)
    except StopIteration:
        return
    for following in iterator:
        yield current, following
        current = following
    yield current, None


def _judges(scores: Scores | None, judge: Judge | Mapping[When, Judge] | None) -> dict[When, Judge]:
    """Who judges when."""
    judges: dict[When, Judge] = {}
    if judge is not None:
        judges = {**judge} if isinstance(judge, Mapping) else {"next": judge}
    for when, function in judges.items():
        if when not in get_args(When) or not callable(function):
            raise SettingError(
                f"judge has {when!r}: {function!r}; expected functions by "
                f"{', '.join(get_args(When))}"
            )
    if scores is not None and "next" in judges:
        raise SettingError("both scores and judge are for the next unit; give one of them")
    if scores is not None:
        judges["next"] = lambda moment: scores(moment.samples)
    elif judge is None:
        judges["next"] = lambda moment: log_scores(
            moment.samples, getattr(moment.learner, "label", "y")
        )
    return judges


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    before = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - before


class _Loop:
    """The state of a run between two steps."""

    def __init__(
        self,
        memory: Memory | Group,
        learner: Learner,
        trigger: Trigger,
        judges: Mapping[When, Judge],
        gate: Gate | None,
        weighted: bool,
        freeze_after: int | None,
        rng: int | np.random.Generator,
    ) -> None:
        self.memory: Any = memory  # what is used of it, a Group has as well
        self.learner = learner
        self.trigger = trigger
        self.judges = judges
        self.gate = gate
        self.rng = arguments.generator(rng, "rng")
        self.weighted = weighted
        self.freeze_after = freeze_after
        self.arrivals: Arrivals | None = trigger.keeps()
        self.trained_at: int | None = None
        self.seen_at = 0
        self.steps: list[Step] = []
        self.note: Note | None = None
        #: Whether the run has a checkpoint: only then a learner is asked for its state.
        self.saved = False

    def advance(self, unit: int, name: str, data: Any) -> Step:
        """Annotate, judge, insert, decide, train, judge."""
        late = any(step.missing and step.name == name for step in self.steps)
        if data is None:
            decision = Decision(False, "the unit is missing")
            return self._step(unit, name, 0, decision, missing=True)
        fresh = Samples.borrow_identified(self.memory.ids, data, {})
        day = _Day(self, unit, name, fresh)
        if self.freeze_after is not None and unit >= self.freeze_after:
            decision = Decision(False, f"frozen after {self.freeze_after} units")
            if not late:
                day.judge("before")
                day.judge("after")
            return self._step(unit, name, fresh.size, decision, day, frozen=True, late=late)
        annotated = day.served
        if late:
            with _timed(day.seconds, "insert"):
                kept = self.memory.insert(annotated).kept
            decision = Decision(False, "the unit came late: it is held, and nothing is decided")
            return self._step(unit, name, fresh.size, decision, day, kept=kept, late=True)
        day.judge("before")
        with _timed(day.seconds, "insert"):
            kept = enter(self.memory, annotated, self.arrivals, self.rng).kept
        with _timed(day.seconds, "decide"):
            decision = self._decide(unit)
        refused = None
        if decision.due:
            with _timed(day.seconds, "train"):
                refused = self._train(unit, day)
        trained = decision.due and refused is None
        day.judge("after", again=trained)
        return self._step(
            unit, name, fresh.size, decision, day, kept=kept, trained=trained, refused=refused
        )

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
        if day is not None:
            day.notes |= {} if self.note is None else self.note(self.memory)
            others |= {
                "scores": day.scores,
                "notes": _stored("notes", day.notes),
                "seconds": day.seconds,
            }
        held = len(self.memory)
        return Step(unit, name, offered, kept, held, decision, trained, **others)

    def _decide(self, unit: int) -> Decision:
        label = getattr(self.learner, "label", "y")
        situation = Situation(
            self.memory, unit, self.trained_at, self.seen_at, self.arrivals, label
        )
        decision = _without_numpy(self.trigger.decide(situation, self.rng))
        if decision.due and not len(self.memory):
            decision = replace(decision, due=False, reason="the memory is empty")
        named = hasattr(self.learner, "label")
        if decision.due and not _labelled(self.memory, label, named):
            decision = replace(decision, due=False, reason="no sample held has its label yet")
        return decision

    def evaluate(self, unit: int, following: tuple[str, Any]) -> Exception | None:
        """Give a step the scores of the current model on the next unit.

        Returns:
            What went wrong: it must not cost this step, which is done but for its scores.
        """
        step, (name, data) = self.steps[unit], following
        late = any(earlier.missing and earlier.name == name for earlier in self.steps)
        if not self.learner.trained or data is None or late:
            return None
        try:
            with _about(unit + 1, name):
                fresh = Samples.borrow_identified(self.memory.ids, data, {})
                day = _Day(self, unit, name, fresh, step)
                day.judge("next", again=True)
                notes = _stored("notes", day.notes)
        except Exception as error:
            return error
        self.steps[unit] = replace(
            step, evaluated_on=name, scores=day.scores, notes=notes, seconds=day.seconds
        )
        return None

    def annotated(self, samples: Samples) -> Samples:
        if not self.learner.trained:
            return samples
        columns = Samples.borrow(self.learner.annotate(samples))
        if len(columns) and columns.size != samples.size:
            raise SchemaError(
                f"{type(self.learner).__name__}.annotate gave {columns.size:,} rows for "
                f"{samples.size:,} samples; expected one row a sample"
            )
        return samples.with_columns(columns)

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
            self.arrivals.trained(self.annotated)
        self.memory.model = None
        if self.saved and isinstance(self.learner, Checkpointable):
            self.memory.model = digest_of_state(self.learner.state())
        self.trained_at, self.seen_at = unit, self.memory.seen
        return None

    def _settings(self) -> dict[str, Any]:
        return {
            "trigger": _stored("trigger", self.trigger.settings()),
            "weighted": self.weighted,
            "freeze_after": self.freeze_after,
            "judged": sorted(self.judges),
            "gate": self.gate is not None,
        }

    def save(self, folder: Path) -> None:
        arrays, documents = self.memory.dump()
        arrays = {f"memory/{name}": array for name, array in arrays.items()}
        documents = {f"memory/{name}": document for name, document in documents.items()}
        if isinstance(self.learner, Checkpointable) and self.learner.trained:
            arrays |= {f"learner/{name}": array for name, array in self.learner.state().items()}
        if self.arrivals is not None:
            kept, documents["arrivals"] = self.arrivals.dump()
            arrays |= {f"arrivals/{name}": array for name, array in kept.items()}
        documents["loop"] = {
            "settings": self._settings(),
            "trained_at": self.trained_at,
            "seen_at": self.seen_at,
            # Neither times nor whether they were restored: what is saved does not depend on where
            # a run stopped.
            "steps": [asdict(replace(step, restored=False, seconds={})) for step in self.steps],
            "generator": snapshot.generator_document(self.rng),
        }
        snapshot.write(folder, _KIND, arrays, documents)

    def restore(self, folder: Path) -> None:
        found = snapshot.read(folder, _KIND)
        try:
            self._restore(folder, found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, MementoError):
                raise
            raise DamagedError(
                f"{folder} describes no run: {error!r}; start again in another folder"
            ) from error
        state = snapshot.with_prefix(found.arrays, "learner/")
        if state and isinstance(self.learner, Checkpointable):
            self.learner.restore(state)

    def _restore(self, folder: Path, found: snapshot.Snapshot) -> None:
        loop = found.documents["loop"]
        there = {"judged": ["next"], "gate": False, **loop["settings"]}
        own = self._settings()
        if isinstance(there["trigger"], str):  # until 0.1.0 a trigger was known by its looks
            looks = re.sub(r" at 0x[0-9a-f]+", "", repr(self.trigger), flags=re.IGNORECASE)
            own["trigger"] = looks
        for name, value in own.items():
            if there.get(name) != value:
                raise ForeignError(
                    f"{folder}: the run there has {name} = {there.get(name)!r}, "
                    f"this one {value!r}; use the same settings, or another checkpoint folder"
                )
        self.memory.resume(
            snapshot.with_prefix(found.arrays, "memory/"),
            snapshot.with_prefix(found.documents, "memory/"),
        )
        if self.arrivals is not None:
            kept = snapshot.with_prefix(found.arrays, "arrivals/")
            self.arrivals = Arrivals.restore(kept, found.documents["arrivals"])
        for name in ("trained_at", "seen_at"):
            setattr(self, name, snapshot.field_of(loop, name, _PLACES[name], "loop.json"))
        self.rng = snapshot.generator_from(loop["generator"])
        self.steps = _steps_of(loop)


class _Day:
    """One unit as a step sees it: its samples, and what judges said.

    Args:
        loop: Its learner predicts.
        unit: Number of the step's unit.
        name: Of the unit that the samples are of.
        fresh: The samples, without predictions.
        step: What was said of the step before, if it is judged on the next unit.
    """

    def __init__(
        self, loop: _Loop, unit: int, name: str, fresh: Samples, step: Step | None = None
    ) -> None:
        self._loop, self._unit, self._name, self._fresh = loop, unit, name, fresh
        self._modelled = loop.learner.trained
        self.scores: dict[str, float] = {} if step is None else dict(step.scores)
        self.notes: dict[str, Any] = {} if step is None else dict(step.notes)
        self.seconds: dict[str, float] = {} if step is None else dict(step.seconds)

    @cached_property
    def served(self) -> Samples:
        """The samples, predicted by the model that was there when they came."""
        with _timed(self.seconds, "annotate"):
            return self._annotated()

    def moment(
        self, when: Literal["before", "after", "next", "gate"], *, again: bool = True
    ) -> Moment:
        """What a judge or a gate sees now.

        Args:
            when: Of the judge, or the gate.
            again: Whether the model has changed since the samples were predicted.
        """
        loop, served = self._loop, None
        if self._modelled and when in ("after", "gate"):
            served = self.served
        annotated = self._annotated if again else lambda: self.served
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

    def _annotated(self) -> Samples:
        return self._loop.annotated(self._fresh)


def _stored(name: str, value: Any) -> Any:
    """As a checkpoint gives it back."""
    return json.loads(snapshot.json_of(name, value))


def _steps_of(document: Mapping[str, Any]) -> list[Step]:
    return [
        Step(**{**row, "decision": Decision(**row["decision"]), "restored": True})
        for row in document["steps"]
    ]


def read_steps(folder: str | Path) -> list[Step]:
    """The steps of a run, from its checkpoint.

    Args:
        folder: The checkpoint; it may be written to meanwhile.

    Returns:
        All steps that were saved, in order, marked ``restored``.

    Raises:
        ForeignError: The folder is no checkpoint of a run.
        DamagedError: It is, and a file of it is missing or differs.
        StorageError: There is no such folder, or it cannot be read.
    """
    place = local_path(folder, "folder")
    document = snapshot.read(place, _KIND).documents.get("loop", {})
    try:
        return _steps_of(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(
            f"{place} describes no run: {error!r}; restore it from a copy"
        ) from error


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


def table(steps: Sequence[Step]) -> Samples:
    """Steps as a tidy table: one row a step, one column a variable.

    Returns:
        Columns as in `Step.row`; a score that a step lacks is NaN.

    Example:
        >>> step = Step(0, "mon", 10, 10, 10, Decision(True, "first"), True, scores={"p01": -2.0})
        >>> table([step])["score_p01"]
        array([-2.])
    """
    rows = [step.row() for step in steps]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if name in ("evaluated_on", "refused"):
            values = ["" if value is None else value for value in values]
        if name in ("missing", "late"):
            values = [bool(value) for value in values]
        columns[name] = [float("nan") if value is None else value for value in values]
    return Samples(columns)
