"""The daily job for any model: a file of samples a day, in a folder.

A day: what comes is annotated by the model that serves, scored, inserted; the trigger decides; a
new model is trained from what is held and goes through the gate. When all tasks of a variant are
through, its folder is replaced, which is the moment the day counts; then the models are published.
So a job that was killed anywhere goes on where it was, and comes to the same bytes as one that was
left alone. What every deployment has is in ``driver``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memento.arguments import shown
from memento.arrivals import Arrivals
from memento.days import day_of, is_day
from memento.deployment.driver import REGRESSED, Done, Driver, Outcome, VariantJob
from memento.deployment.gate import judge
from memento.deployment.model_files import LearnerFiles
from memento.deployment.models import Models
from memento.deployment.publication import Publication, Switch
from memento.deployment.settings import DeploymentSettings, Variant
from memento.deployment.state import DayRecord, TaskState, VariantState
from memento.errors import (
    DamagedError,
    ForeignError,
    InputError,
    LockedError,
    SettingError,
    StorageError,
)
from memento.files import digest, is_shortage, storage_errors
from memento.integrations.factory import first_line
from memento.learner import digest_of_state
from memento.loop import log_scores
from memento.memory import Memory
from memento.retrain import Decision, Situation, Trigger
from memento.samples import Samples
from memento.step import Moment, Stepper, annotated, predict_again

__all__ = ["Deployment", "Reader", "files_of"]

#: From a file, names or patterns of inputs, the labels, and names of further columns to keep where
#: there are any: to samples with the inputs as ``x``.
Reader = Callable[[Path, Sequence[str], Sequence[str], Sequence[str]], Samples]

_ENDINGS = (".parquet", ".csv")
_ModelState = Mapping[str, np.ndarray]
_News = tuple[list[DayRecord], Sequence[str]]


class Deployment(Driver[DeploymentSettings]):
    """A deployment on disk.

    Args:
        folder: Its folder.

    Raises:
        ForeignError: There is none.
    """

    kind = "memento-deployment"
    init = "memento deploy init STATE --config deployment.toml"
    known = DeploymentSettings

    @classmethod
    def create(cls, folder: str | Path, settings: DeploymentSettings) -> Deployment:
        """Make a deployment, after the models were looked at.

        Raises:
            ForeignError: The folder holds a deployment, or other things.
            SettingError, ModelError, MissingExtraError: As for `Models`.
        """
        Models(settings)
        return cls._make(folder, settings)

    def _publication(self, variant: str) -> Publication:
        labels = self.settings.labels
        files = LearnerFiles([""] if len(labels) == 1 else labels)
        return Publication(self.folder / "published" / variant, files, self.settings.publish.keep)

    def state(self, variant: str) -> VariantState:
        """The state of a variant.

        Raises:
            SettingError: There is no such variant.
        """
        self.publication(variant)
        return VariantState.load(self.folder / "variants" / variant, self.settings.labels)

    def run(
        self,
        reader: Reader,
        *,
        until: str | None = None,
        tell: Callable[[str], None] = lambda text: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> Iterator[tuple[str, DayRecord]]:
        """Do all days that are due.

        Args:
            reader: Reads the file of a day.
            until: Last day to do; None: the last that is there.
            tell: Called with what begins.
            warn: Called with what a person should look at.

        Yields:
            Variant and record of each day that was looked at, once it counts. A day that fails
            does not stop later ones: it is tried again until one of these is done.

        Raises:
            SettingError: ``until`` is no day; the model cannot be used.
            StorageError: The folder of days is not there, or the state cannot be written.
            LockedError: Another run is at work.
        """
        if until is not None and not is_day(until):
            raise SettingError(f"--day is {shown(until)}; expected a day such as 2026-01-07")
        with self._locked(), _without_warnings():
            models, files = Models(self.settings), files_of(self.settings.folder)
            self._clean()
            jobs = [_VariantJob(self, name, models, reader) for name in self.variants]
            days = [
                _Day(name, tuple(files[name]), files)
                for name in sorted(files)
                if until is None or name <= until
            ]

            def begin(day: _Day, variant: int, task: int) -> None:
                if task == 0:
                    tell(f"{day.name} {jobs[variant].name}")

            for day in days:
                for name, (records, attention) in self._drive(day, jobs, begin):
                    for sentence in attention:
                        warn(sentence)
                    yield from ((name, record) for record in records)

    def _follow(self, variant: str, publication: Publication) -> None:
        """Let serve what the days say, in case the job was killed before it was switched.

        An earlier Memento wrote no history: what it published goes in front of what there is.
        """
        state, history = self.state(variant), publication.history()
        published = {switch.version for switch in history if switch.action == "publish"}
        rolled = {switch.day for switch in history if switch.action == "rollback"}
        last = max(published, default=None)
        earlier: list[Switch] = []
        for day, record in sorted(state.days.items()):
            # Some of what was published is gone.
            if record.published and day not in published and (publication.root / day).is_dir():
                if last is not None and day > last:
                    publication.switch("publish", day, day=day, reason=record.reason)
                else:
                    earlier.append(Switch("publish", day, None, day, record.reason))
            if record.rolled_back is not None and day not in rolled:
                publication.switch("rollback", record.rolled_back, day=day, reason=REGRESSED)
        if earlier:
            publication.precede(earlier, state.serving)


def files_of(folder: Path) -> dict[str, list[Path]]:
    """The files of each day in a folder; a day should have one.

    Raises:
        StorageError: There is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder}, the [data] folder, is no folder; make it, with the days")
    files: dict[str, list[Path]] = {}
    with storage_errors("read", folder):
        for path in sorted(folder.iterdir()):
            if path.suffix in _ENDINGS and is_day(path.stem) and path.is_file():
                files.setdefault(path.stem, []).append(path)
    return files


@dataclass(frozen=True)
class _Day:
    """A day that there are files of, among others."""

    name: str
    paths: tuple[Path, ...]
    others: Collection[str]

    @cached_property
    def digest(self) -> str | None:
        """What the files are; None if they cannot be read."""
        with contextlib.suppress(OSError):
            return "-".join(digest(path) for path in self.paths)
        return None


class _VariantJob(VariantJob[_Day, _News]):
    """The days of one variant during a run; each comes to new records, and what to look at."""

    def __init__(self, deployment: Deployment, name: str, models: Models, reader: Reader) -> None:
        settings = deployment.settings
        super().__init__(
            name,
            deployment.publication(name),
            [None] * len(settings.labels),
            (max(0.0, settings.gate.tolerance),) if settings.gate.rollback_after else (),
            settings.gate.rollback_after,
        )
        self._deployment = deployment
        self._settings = settings
        self._models = models
        self._reader = reader
        self._folder = deployment.folder / "variants" / name
        self._load()

    def _load(self) -> None:
        """Go on with what counts."""
        self._state = self._deployment.state(self.name)
        settings, variant = self._settings, self._settings.variants[self.name]
        self._tasks = [
            _TaskJob(label, settings, variant, self._models, state)
            for label, state in self._state.tasks.items()
        ]

    def is_due(self, day: _Day) -> bool:
        """Whether a day that is there has to be looked at."""
        record = self._state.days.get(day.name)
        if record is None or record.state == "missing":
            return True
        if record.state != "failed":
            return False
        return day.name > self._state.last or record.digest != day.digest

    def advance(self, day: _Day, tell: Callable[[int], None]) -> _News:
        """See `VariantJob.advance`."""
        attention: Sequence[str] = ()
        last = self._state.last
        self._after = last if day.name < last else None
        self._gap = self._missing_before(day)  # also where the day itself fails
        self._news: list[DayRecord] = []
        self._counts = was_read = False
        try:
            if self._after and (self._settings.data.late == "state" or self._state.memory is None):
                reason = f"the file came after {last} was done; it is left out"
                self._note(DayRecord(day.name, "late", reason=reason, served=self._version()))
            else:
                self._samples, was_read = self._read(day), True
                attention = self.take(day, day.name, tell).attention
        except Exception as error:  # of the file, or of the user's model
            if self._counts or isinstance(error, LockedError) or is_shortage(error):
                raise
            if was_read and _is_refused(error):  # a folder of the deployment's own
                raise
            self._load()
            failed = DayRecord(day.name, "failed", reason=first_line(error), digest=day.digest)
            self._note(replace(failed, served=self._version(), held=self._state.held))
        return self._news, attention

    def step(self, number: int, day: _Day, version: str | None, model: Any, older: Any) -> Done:
        """See `_TaskJob.step`."""
        labels = self._settings.labels
        samples = self._samples.without(*labels[:number], *labels[number + 1 :])
        return self._tasks[number].step(day.name, samples, version, model, older, self._after)

    def joined(
        self, models: Sequence[Any], done: Sequence[Done]
    ) -> tuple[list[Any], dict[str, Any], str]:
        """Tasks without a model are left out of what is published."""
        tasks = [one.facts for one in done if one.candidate is not None]
        facts = tasks[0] if len(done) == 1 else {"tasks": tasks}
        named = {"variant": self.name, **facts, "inputs": list(self._settings.data.inputs)}
        return list(models), named, self._record(done).reason

    def past(self) -> Iterator[tuple[bool, str | None]]:
        """Days on which what served could be compared with what served before."""
        for _, record in sorted(self._state.days.items(), reverse=True):
            if record.counts and "regressed" in record.figures:
                yield bool(record.figures["regressed"]), record.served

    def commit(self, outcome: Outcome) -> None:
        """Store the memories with the record of the day."""
        record = self._record(outcome.done)
        if any(one.lost is not None for one in outcome.done):
            figures = {**record.figures, "regressed": float(outcome.regressed)}
            record = replace(record, figures=figures)
        if (version := outcome.rolled_back) is not None:
            reason = f"{record.reason}; rolled back to {version}: {REGRESSED}"
            record = replace(record, rolled_back=version, reason=reason)
        self._counts = True
        self._note(record)

    def _record(self, done: Sequence[Done]) -> DayRecord:
        """The record of the day, of what all tasks came to."""
        records = [one.record for one in done]
        if len(records) == 1:
            return records[0]
        named = list(zip(self._settings.labels, records, strict=True))
        state = "refused" if any(r.state == "refused" for r in records) else records[0].state
        return replace(
            records[0],
            state=state,
            trained=any(r.trained for r in records),
            published=any(r.published for r in records),
            reason="; ".join(f"{name}: {r.reason}" for name, r in named),
            held=self._state.held,
            figures={f"{name}.{f}": v for name, r in named for f, v in r.figures.items()},
        )

    def _note(self, record: DayRecord) -> None:
        """Store what became of a day, if it is not known."""
        news = [one for one in (*self._gap, record) if self._state.note(one)]
        if news:
            self._state.save(self._folder)
        self._news = news if record in news else [*news, record]

    def _version(self) -> str | None:
        return self._deployment.serving(self.name)

    def _missing_before(self, day: _Day) -> list[DayRecord]:
        known = self._state.days
        first = day_of(self._state.last or min(known, default=day.name))
        between = [str(first + dt.timedelta(n)) for n in range(1, (day_of(day.name) - first).days)]
        return [
            DayRecord(name, "missing", reason="there is no file of this day")
            for name in between
            if name not in day.others and name not in known
        ]

    def _read(self, day: _Day) -> Samples:
        """What came, with all columns that memories and trigger look at."""
        if len(day.paths) > 1:
            names = " and ".join(path.name for path in day.paths)
            raise InputError(f"there are {names}; leave one of them")
        variant = self._settings.variants[self.name]
        further = ["id", getattr(variant.trigger, "cluster", None)]
        for label, task in self._state.tasks.items():
            memory = task.memory or self._settings.variants[self.name].memory(
                label, numbers=False, seed=0
            )
            further += memory.policy.reads
        labels = self._settings.labels
        own = {"x", *labels, "yhat", "loss", "logscore"}
        wanted = list(dict.fromkeys(name for name in further if name and name not in own))
        return self._reader(day.paths[0], self._settings.data.inputs, labels, wanted)


@dataclass
class _TaskJob:
    """The days of one task of a variant.

    Attributes:
        label: Column of the labels.
        settings: Of the deployment.
        variant: Settings of the variant: capacity, policy and trigger.
        models: Makes its learners.
        state: Goes on with every step.
    """

    label: str
    settings: DeploymentSettings
    variant: Variant
    models: Models
    state: TaskState

    def __post_init__(self) -> None:
        self._learner: Any = self.models.make(self.label)
        self._loaded: str | None = None  # version
        self._model = ""  # its digest
        self._candidate: _ModelState | None = None

    def step(
        self,
        day: str,
        samples: Samples,
        version: str | None,
        model: _ModelState | None,
        older: _ModelState | None,
        after: str | None = None,
    ) -> Done:
        """Annotate, score, insert, decide; train where it is due.

        Args:
            day: Its name.
            samples: What came.
            version: That serves; None before the first.
            model: What it has for this task, if anything.
            older: What the version before had; it is scored as well.
            after: The day that was done before this one came; None: it came in its place.
        """
        state, label, late = self.state, self.label, after is not None
        if state.memory is None:
            state.numbers = self.models.numbers(samples, label)
            state.memory = self.variant.memory(
                label, numbers=state.numbers, seed=self.settings.model.seed
            )
        memory, self._candidate = state.memory, None
        memory.stacked = {**memory.stacked, **samples.parts}
        if model and version is not None:
            self._attach(memory, version, model)
        trigger = _Told(self.variant.deciding(label, numbers=bool(state.numbers)))

        def scores(moment: Moment) -> dict[str, float]:
            found = log_scores(moment.samples, label)
            if older:
                before = self.models.make(label)
                before.restore(older)
                judged = log_scores(annotated(before, samples), label)
                found |= {"before": judged["mean"]} if judged else {}
            return found

        stepper = Stepper(
            memory,
            self._learner,
            trigger,
            {"before": scores},
            lambda moment: self._gate(day, samples, moment),
            rng=np.random.default_rng((memory.inserts, memory.seen)),
        )
        stepper.label, stepper.arrivals = label, trigger.arrivals(memory.recent)
        stepper.adapts = False  # what serves is what was published
        stepper.trained_at = stepper.arrivals.trained_at
        stepper.seen_at = stepper.arrivals.seen_at
        step = stepper.advance(stepper.arrivals.units + 1, day, samples, late=late)
        if late:
            reason = f"the file came after {after} was done; its samples were inserted"
            counts = samples.size, len(memory)
            return Done(DayRecord(day, "late", False, False, reason, version, *counts), version)
        if samples.size:
            memory.recent = stepper.arrivals
        if step.trained:
            memory.model = memory.reference_model = self._model
        decision, notes = step.decision, dict(step.notes)
        reason = decision.reason
        if verdict := notes.pop("verdict", ""):
            word = "published" if step.trained else "refused"
            reason = f"{reason}; {word}: {verdict}"
        figures = {f"score_{name}": value for name, value in step.scores.items()}
        figures |= {"value": decision.value, "threshold": decision.threshold, **decision.figures}
        record = DayRecord(
            day=day,
            state="done" if step.refused is None else "refused",
            trained=decision.due,
            published=step.trained,
            reason=reason,
            served=version,
            offered=samples.size,
            held=len(memory),
            figures={n: float(v) for n, v in (figures | notes).items() if math.isfinite(v)},
        )
        facts = {"trained_on": len(memory), "reason": decision.reason, "label": label}
        found, lost = record.figures, None
        if {"score_before", "score_mean"} <= found.keys():
            lost = (found["score_before"] - found["score_mean"],)
        return Done(record, version, self._candidate if step.trained else None, lost, facts)

    def _gate(self, day: str, samples: Samples, moment: Moment) -> str | None:
        """Why a new model is refused."""
        learner, tolerance = self._learner, self.settings.gate.tolerance
        verdict = judge(learner, moment.served, samples, self.label, tolerance)
        scores = {"gate_score": verdict.score, "gate_serving": verdict.serving}
        finite = {name: score for name, score in scores.items() if math.isfinite(score)}
        moment.notes.update(verdict=verdict.reason, **finite)
        if not verdict.passed:
            return verdict.reason
        self._candidate = learner.state()
        self._load(day, self._candidate)  # as it will be read from its files
        return None

    def _load(self, version: str, model: _ModelState) -> None:
        self._learner.restore(model)
        self._loaded, self._model = version, digest_of_state(model)

    def _attach(self, memory: Memory, version: str, model: _ModelState) -> None:
        """Read what serves; all that is held is predicted by it, also after a rollback."""
        if self._loaded != version:
            self._load(version, model)
        if memory.model == self._model:
            return
        recent = None if memory.recent is None else memory.recent.copy()
        predict_again(memory, self._learner, recent)
        memory.recent = recent
        memory.model = memory.reference_model = self._model


@dataclass(frozen=True)
class _Told(Trigger):
    """A trigger that says where samples cannot be compared, so that no day fails by it."""

    trigger: Trigger

    def arrivals(self, recent: Arrivals | None) -> Arrivals:
        """What was kept of earlier days, kept on as the trigger says."""
        fresh = self.trigger.keeps() or Arrivals(witnesses=0.0)
        arrivals = fresh if recent is None else recent.copy()
        arrivals.witnesses, arrivals.cluster = fresh.witnesses, fresh.cluster
        return arrivals

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        raise NotImplementedError

    def decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        try:
            return self.trigger.decide(situation, rng)
        except InputError as error:
            return Decision(False, f"it cannot be told: {error}")


def _is_refused(error: BaseException | None) -> bool:
    """Whether the system refused something, on which the content of files has no influence."""
    while error is not None and not isinstance(error, (DamagedError, ForeignError)):
        if isinstance(error, OSError) and error.errno is not None:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Leave out what was said when the deployment was made, or is so by its nature."""
    with warnings.catch_warnings():
        for text in (
            "missing columns",
            "column .* is not there for all",
            "capacity .* fewer than 32 batches",
            ".* takes no sample_weight",
        ):
            warnings.filterwarnings("ignore", text, UserWarning)
        yield
