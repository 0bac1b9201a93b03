"""The day of a model that learns continually: the only place that owns the order of things.

For every unit of the stream (a day, say): annotate what came in with the current model, keep aside
what a trigger compares later units with, insert the rest, decide, train if due and annotate
everything held again, evaluate on the next unit, save.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from memento import arguments, missing, snapshot
from memento.arrivals import Arrivals
from memento.errors import DamagedError, ForeignError, MementoError, SchemaError, SettingError
from memento.files import local_path
from memento.group import Group
from memento.learner import Checkpointable, Learner, digest_of_state
from memento.memory import Memory
from memento.observe import enter
from memento.retrain import Decision, OnArrivals, Situation, Trigger
from memento.samples import Samples

__all__ = ["Step", "log_scores", "run", "table"]

_KIND = "memento-loop"
_PLACES = {"trained_at": arguments.optional(arguments.whole(0)), "seen_at": arguments.whole(0)}
_log = logging.getLogger(__name__)

Scores = Callable[[Samples], Mapping[str, float]]


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
        evaluated_on: Name of the next unit; None if there is none (yet), or no model.
        scores: What the model, after this step, achieved there.
        restored: Whether this is a record of an earlier run.
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

    def row(self) -> dict[str, Any]:
        """This step as one flat row; scores are named ``score_...``, figures ``figure_...``."""
        row = asdict(self)
        decision, scores = row.pop("decision"), row.pop("scores")
        figures = decision.pop("figures")
        del row["restored"]
        return {
            **row,
            **decision,
            **{f"figure_{name}": value for name, value in figures.items()},
            **{f"score_{name}": value for name, value in scores.items()},
        }


def log_scores(samples: Samples, label: str = "y") -> dict[str, float]:
    """Tail, median and mean of how well samples were predicted; higher is better.

    Of classes it is the column ``logscore`` (natural logarithms of probabilities). Of numbers,
    where ``yhat`` is one number a sample, it is minus ``loss``, the absolute error, in units of
    the interquartile range of the labels.

    Args:
        samples: Annotated samples; rows without a score (as their label is not known) do not count,
            and without any there are no scores.
        label: Column of the labels.

    Returns:
        ``p01`` (1st percentile), ``median``, ``mean``.

    Example:
        >>> round(log_scores(Samples(logscore=np.log([0.5, 0.5, 0.5])))["median"], 3)
        -0.693
        >>> log_scores(Samples(y=[0.0, 1.0, 2.0, 3.0], yhat=[1.0] * 4, loss=[0.75] * 4))["mean"]
        -0.5
    """
    if "logscore" in samples:
        scores = samples["logscore"]
    elif {"loss", "yhat", label} <= set(samples) and samples["yhat"].ndim == 1:
        labels = samples[label][~missing.lacking(samples[label])]
        low, high = np.quantile(labels, [0.25, 0.75]) if len(labels) else (0.0, 0.0)
        scores = -samples["loss"] / (high - low if high > low else 1.0)
    else:
        return {}
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        return {}
    p01, median = np.quantile(scores, [0.01, 0.5])
    return {"p01": float(p01), "median": float(median), "mean": float(np.mean(scores))}


def run(
    stream: Iterable[tuple[str, Any]],
    memory: Memory | Group,
    learner: Learner,
    trigger: Trigger | None = None,
    *,
    scores: Scores = log_scores,
    weighted: bool = True,
    freeze_after: int | None = None,
    checkpoint: str | Path | None = None,
    on_train: Callable[[Step, Learner], None] | None = None,
    on_step: Callable[[Step], None] | None = None,
    rng: int | np.random.Generator = 0,
) -> Iterator[Step]:
    """Run the loop over a stream, one `Step` for each of its units.

    Args:
        stream: Pairs of a name and samples (anything that `Samples` accepts). When a run goes on
            from a checkpoint it is read from the start again; what was done before is skipped.
        memory: Receives the samples; a `Memory`, or a `Group` of several.
        learner: Trained on the memory's content.
        trigger: Decides when; `OnArrivals()` if left out. Where it compares arrivals, some of each
            unit's samples enter the memory one unit late, or never (see `memento.arrivals`).
        scores: From annotated samples of the next unit to named numbers.
        weighted: Whether to train with `Memory.weights`, where the policy states them.
        freeze_after: Leave memory and model alone after so many units, and only evaluate.
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
        SettingError: A checkpoint is asked for and the learner cannot be saved; a negative
            ``freeze_after``.
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
    loop = _Loop(memory, learner, trigger, scores, weighted, freeze_after, rng)
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
    for unit, ((name, data), following) in enumerate(_with_next(stream)):
        if unit < done:
            step = loop.steps[unit]
            _check_same(folder, unit, step.name, name)
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


class _Loop:
    """The state of a run between two steps."""

    def __init__(
        self,
        memory: Memory | Group,
        learner: Learner,
        trigger: Trigger,
        scores: Scores,
        weighted: bool,
        freeze_after: int | None,
        rng: int | np.random.Generator,
    ) -> None:
        self.memory: Any = memory  # what is used of it, a Group has as well
        self.learner = learner
        self.trigger = trigger
        self.scores = scores
        self.weighted = weighted
        self.freeze_after = freeze_after
        self.rng = arguments.generator(rng, "rng")
        self.arrivals: Arrivals | None = trigger.keeps()
        self.trained_at: int | None = None
        self.seen_at = 0
        self.steps: list[Step] = []
        #: Whether the run has a checkpoint: only then a learner is asked for its state.
        self.saved = False

    def advance(self, unit: int, name: str, data: Any) -> Step:
        """Annotate, insert, decide, train."""
        fresh = Samples.borrow_identified(self.memory.ids, data, {})
        if self.freeze_after is not None and unit >= self.freeze_after:
            held = len(self.memory)
            decision = Decision(False, f"frozen after {self.freeze_after} units")
            return Step(unit, name, fresh.size, 0, held, decision, False, frozen=True)
        kept = enter(self.memory, self._annotated(fresh), self.arrivals, self.rng).kept
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
        if decision.due:
            self._train(unit)
        return Step(unit, name, fresh.size, kept, len(self.memory), decision, decision.due)

    def evaluate(self, unit: int, following: tuple[str, Any]) -> Exception | None:
        """Give a step the scores of the current model on the next unit.

        Returns:
            What went wrong: it must not cost this step, which is done but for its scores.
        """
        if not self.learner.trained:
            return None
        name, data = following
        try:
            with _about(unit + 1, name):
                annotated = self._annotated(Samples.borrow_identified(self.memory.ids, data, {}))
                if self.scores is log_scores:
                    found: Mapping[str, float] = log_scores(
                        annotated, getattr(self.learner, "label", "y")
                    )
                else:
                    found = self.scores(annotated)
                scores = {score: float(value) for score, value in found.items()}
        except Exception as error:
            return error
        self.steps[unit] = replace(self.steps[unit], evaluated_on=name, scores=scores)
        return None

    def _annotated(self, samples: Samples) -> Samples:
        if not self.learner.trained:
            return samples
        columns = Samples.borrow(self.learner.annotate(samples))
        if len(columns) and columns.size != samples.size:
            raise SchemaError(
                f"{type(self.learner).__name__}.annotate gave {columns.size:,} rows for "
                f"{samples.size:,} samples; expected one row a sample"
            )
        return samples.with_columns(columns)

    def _train(self, unit: int) -> None:
        weights = self.memory.weights if self.weighted else None
        self.learner.fit(self.memory.samples, weights)
        # Predictions of an older model are worth nothing now: all are made again. The reference is
        # what is held now, so it is annotated with it.
        self.memory.annotate(self.learner.annotate(self.memory.samples))
        self.memory.mark_trained()
        if self.arrivals is not None:
            self.arrivals.trained(self._annotated)
        self.memory.model = None
        if self.saved and isinstance(self.learner, Checkpointable):
            self.memory.model = digest_of_state(self.learner.state())
        self.trained_at, self.seen_at = unit, self.memory.seen

    def _settings(self) -> dict[str, Any]:
        return {
            # Without addresses, which objects that have no representation of their own show.
            "trigger": re.sub(r" at 0x[0-9a-f]+", "", repr(self.trigger), flags=re.IGNORECASE),
            "weighted": self.weighted,
            "freeze_after": self.freeze_after,
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
            # Not whether they were restored: what is saved does not depend on where a run stopped.
            "steps": [asdict(replace(step, restored=False)) for step in self.steps],
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
        for name, value in self._settings().items():
            if loop["settings"].get(name) != value:
                raise ForeignError(
                    f"{folder}: the run there has {name} = {loop['settings'].get(name)!r}, "
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
        self.steps = [
            Step(**{**row, "decision": Decision(**row["decision"]), "restored": True})
            for row in loop["steps"]
        ]


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
        if name == "evaluated_on":
            values = ["" if value is None else value for value in values]
        columns[name] = [float("nan") if value is None else value for value in values]
    return Samples(columns)
