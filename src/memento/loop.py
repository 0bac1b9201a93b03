"""A stream through the loop: a step for each unit (a day, say), evaluated on the next, saved.

What happens within a step stands in `memento.step`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from memento import arguments, snapshot
from memento.arrivals import Arrivals
from memento.errors import DamagedError, ForeignError, MementoError, SchemaError, SettingError
from memento.files import local_path
from memento.group import Group
from memento.learner import Checkpointable, Learner, checkpointable, way_back
from memento.memory import Memory
from memento.retrain import Decision, Trigger, trigger_or_default
from memento.samples import Samples
from memento.scores import log_scores
from memento.step import Gate, Judge, Moment, Note, Step, Stepper, When, about, stored

__all__ = [
    "Gate",
    "Judge",
    "Moment",
    "Step",
    "When",
    "log_scores",
    "pairs_of",
    "read_steps",
    "run",
    "table",
]

_KIND = "memento-loop"
_PAGE = 100  # steps; a full page is not made anew by later checkpoints
_PLACES = {"trained_at": arguments.optional(arguments.whole(0)), "seen_at": arguments.whole(0)}
_log = logging.getLogger(__name__)

Scores = Callable[[Samples], Mapping[str, float]]


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
    save_every: float = 0.0,
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
        save_every: Seconds that a step has to come after the last one that was saved to be saved as
            well; what a stop then costs is done again, and comes out the same.
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
    trigger = trigger_or_default(trigger)
    _check(memory, learner, freeze_after)
    functions = {
        "scores": scores,
        "gate": gate,
        "note": note,
        "on_train": on_train,
        "on_step": on_step,
    }
    for called, function in functions.items():
        arguments.require(called, function, arguments.optional(arguments.FUNCTION))
    arguments.require("weighted", weighted, arguments.flag())
    judges = _judges(scores, judge)
    if gate is not None:
        way_back(learner)  # fails now if it would later
    loop = _Loop(memory, learner, trigger, judges, gate, weighted=weighted, rng=rng)
    loop.freeze_after = freeze_after
    loop.note = note
    loop.named = checkpoint is not None
    arguments.require("save_every", save_every, arguments.number(0, words="seconds, 0 or more"))
    loop.save_every = save_every
    folder = _folder_of(checkpoint, learner)
    if folder is not None and snapshot.exists(folder):
        loop.restore(folder)
    yield from loop.steps_of(stream, folder, on_train, on_step)


def _check(memory: Memory | Group, learner: Learner, freeze_after: int | None) -> None:
    """Raise if an argument of `run` is not what is expected."""
    if not isinstance(memory, (Memory, Group)):
        raise SettingError(f"memory is {memory!r}; expected a memento.Memory, or a Group of them")
    if isinstance(learner, type) or not isinstance(learner, Learner):
        raise SettingError(
            f"learner is {learner!r}; expected an object with fit, annotate and trained, such as "
            "memento.integrations.sklearn.SklearnLearner(estimator)"
        )
    if freeze_after is not None:
        words = "0 or more units"
        arguments.require("freeze_after", freeze_after, arguments.whole(0, words=words))


def _folder_of(checkpoint: str | Path | None, learner: Learner) -> Path | None:
    """Where a run is saved; raises if the learner cannot be, before anything is computed."""
    if checkpoint is None:
        return None
    folder = local_path(checkpoint, "checkpoint")
    checkpointable(learner)
    if hasattr(learner, "check_checkpoint"):
        learner.check_checkpoint()
    return folder


def _check_same(folder: Path | None, unit: int, before: str, now: str | None) -> None:
    if now != before:
        found = "there is none" if now is None else f"it is {now!r}"
        raise ForeignError(
            f"{folder}: unit {unit} was {before!r}, in this stream {found}; use the same stream, "
            "or another checkpoint folder"
        )


def pairs_of(stream: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Units of a stream with their names, checked as they come."""
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
    iterator = iter(stream)
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


class _Loop(Stepper):
    """The state of a run between two steps, and the steps so far."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.steps: list[Step] = []
        self.save_every = 0.0
        self._saved = time.monotonic()
        self._pages: list[snapshot.Encoded] = []

    def steps_of(
        self,
        stream: Iterable[tuple[str, Any]],
        folder: Path | None,
        on_train: Callable[[Step, Learner], None] | None,
        on_step: Callable[[Step], None] | None,
    ) -> Iterator[Step]:
        """The steps of a stream; arguments as for `run`, ``folder`` of the checkpoint."""
        done, unit = len(self.steps), -1
        pairs = pairs_of(stream)
        units = _with_next(pairs) if "next" in self.judges else ((pair, None) for pair in pairs)
        for unit, ((name, data), following) in enumerate(units):
            if unit >= done:
                with about(unit, name):
                    step = self.advance(unit, name, data, late=self.was_missing(name))
                self.steps.append(step)
                if step.trained and on_train is not None:
                    on_train(step, self.learner)
            elif self._is_complete(unit, done, name, data, following, folder):
                yield self.steps[unit]
                continue
            # The step is new, or the last one of an earlier run on a stream that may have grown.
            step = self.steps[unit]
            failure = None if following is None else self.judge_on(unit, following)
            if unit >= done or self.steps[unit] is not step:
                step = self.steps[unit]
                if on_step is not None:
                    on_step(step)
                if folder is not None and time.monotonic() - self._saved >= self.save_every:
                    self.save(folder)
                    self._saved = time.monotonic()
                _log.info("%s: %s", step.name, step.decision.reason, extra={"step": step.row()})
            yield step
            if failure is not None:
                raise failure
        if unit + 1 < done:
            _check_same(folder, unit + 1, self.steps[unit + 1].name, None)

    def _is_complete(
        self,
        unit: int,
        done: int,
        name: str,
        data: Any,
        following: tuple[str, Any] | None,
        folder: Path | None,
    ) -> bool:
        """Whether nothing is left to do for a unit of an earlier run, which must be the same."""
        step = self.steps[unit]
        _check_same(folder, unit, step.name, name)
        if step.missing and data is not None:
            _log.warning("%s was missing and is passed over; append it to the stream", name)
        if unit == done - 1 and step.evaluated_on is not None:
            _check_same(folder, done, step.evaluated_on, following and following[0])
        return unit < done - 1 or step.evaluated_on is not None

    def was_missing(self, name: str) -> bool:
        """Whether a unit of this name was missing before."""
        return any(step.missing and step.name == name for step in self.steps)

    def judge_on(self, unit: int, following: tuple[str, Any]) -> Exception | None:
        """Give a step the scores of the current model on the next unit.

        Returns:
            What went wrong: it must not cost this step, which is done but for its scores.
        """
        name, data = following
        if not self.learner.trained or data is None or self.was_missing(name):
            return None
        try:
            self.steps[unit] = self.evaluate(self.steps[unit], name, data)
        except Exception as error:
            return error
        return None

    def _settings(self) -> dict[str, Any]:
        return {
            "trigger": stored("trigger", self.trigger.settings()),
            "weighted": self.weighted,
            "freeze_after": self.freeze_after,
            "judged": sorted(self.judges),
            "gate": self.gate is not None,
        }

    def save(self, folder: Path) -> None:
        """Write the run to its checkpoint."""
        arrays, documents = self.memory.dump()
        arrays = {f"memory/{name}": array for name, array in arrays.items()}
        documents = {f"memory/{name}": document for name, document in documents.items()}
        if isinstance(self.learner, Checkpointable) and self.learner.trained:
            arrays |= {f"learner/{name}": array for name, array in self.learner.state().items()}
        if self.arrivals is not None:
            kept, documents["arrivals"] = self.arrivals.dump()
            arrays |= {f"arrivals/{name}": array for name, array in kept.items()}
        # The last step may still be evaluated, so its page is not full.
        for start in range(_PAGE * len(self._pages), len(self.steps) - _PAGE, _PAGE):
            page = _rows_of(self.steps[start : start + _PAGE])
            self._pages.append(snapshot.Encoded(snapshot.json_of("steps", page)))
        documents |= {f"steps/{number}": page for number, page in enumerate(self._pages)}
        documents["loop"] = {
            "settings": self._settings(),
            "trained_at": self.trained_at,
            "seen_at": self.seen_at,
            "pages": len(self._pages),
            "steps": _rows_of(self.steps[_PAGE * len(self._pages) :]),
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
        """Take over what a checkpoint holds, if it is of this run."""
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
        self.steps = _steps_of(found.documents)


def _rows_of(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Steps as they are saved: neither times nor whether they were restored.

    So what is saved does not depend on where a run stopped.
    """
    return [asdict(replace(step, restored=False, seconds={})) for step in steps]


def _steps_of(documents: Mapping[str, Any]) -> list[Step]:
    """All steps of a checkpoint; until 0.2.0 there were no pages of them."""
    loop = documents["loop"]
    pages = [documents[f"steps/{number}"] for number in range(loop.get("pages", 0))]
    return [
        Step(**{**row, "decision": Decision(**row["decision"]), "restored": True})
        for page in (*pages, loop["steps"])
        for row in page
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
    documents = snapshot.read(place, _KIND).documents
    try:
        return _steps_of(documents)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(
            f"{place} describes no run: {error!r}; restore it from a copy"
        ) from error


def _are_steps(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(step, Step) for step in value)


def table(steps: Sequence[Step]) -> Samples:
    """Steps as a tidy table: one row a step, one column a variable.

    Returns:
        Columns as in `Step.row`; a score that a step lacks is NaN.

    Example:
        >>> step = Step(0, "mon", 10, 10, 10, Decision(True, "first"), True, scores={"p01": -2.0})
        >>> table([step])["score_p01"]
        array([-2.])
    """
    words = "a list of Steps, such as list(run(...))"
    arguments.require("steps", steps, arguments.Expected(words, _are_steps))
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
