"""The daily job: all days that are due, for every variant, in order.

    STATE/deployment.json           the settings
    STATE/variants/NAME/            memory and records after the last day, see ``state``
    STATE/published/NAME/           the models, see ``publication``
    STATE/lock                      held by the job

A day: what comes is annotated by the model that serves, scored, inserted; the trigger decides; a
new model is trained from what is held, goes through the gate, and is published. Then the variant's
folder is replaced, which is the moment the day counts. So a job that was killed anywhere goes on
where it was, and comes to the same bytes as one that was left alone.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento.arguments import shown
from memento.arrivals import Arrivals
from memento.days import day_of, is_day
from memento.deployment.gate import annotated, judge
from memento.deployment.git import mirror_all
from memento.deployment.model_files import LearnerFiles
from memento.deployment.models import Models
from memento.deployment.publication import Publication
from memento.deployment.settings import DeploymentSettings, Variant
from memento.deployment.state import DayRecord, VariantState
from memento.errors import (
    DamagedError,
    ForeignError,
    InputError,
    LockedError,
    SettingError,
    SpaceError,
    StorageError,
)
from memento.files import Lock, atomic_write, digest, local_path, storage_errors
from memento.integrations.factory import first_line
from memento.loop import log_scores
from memento.retrain import Decision, Situation, Trigger
from memento.samples import Samples
from memento.step import Moment, Stepper

__all__ = ["Deployment", "Reader"]

#: From a file, names or patterns of inputs, the label, and names of further columns to keep where
#: there are any: to samples with the inputs as ``x``.
Reader = Callable[[Path, Sequence[str], str, Sequence[str]], Samples]

_FORMAT, _VERSION = "memento-deployment", 1
_SETTINGS = "deployment.json"
_ENDINGS = (".parquet", ".csv")


class Deployment:
    """A deployment on disk.

    Args:
        root: Its folder.

    Raises:
        StorageError: There is none.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = local_path(root, "STATE")
        path = self.root / _SETTINGS
        if not path.is_file():
            raise StorageError(
                f"{self.root} holds no deployment; make one with: memento deploy init "
                f"{self.root} --config deployment.toml"
            )
        with storage_errors("read the settings", path):
            data = path.read_bytes()
        try:
            document = json.loads(data)
            home, tables = Path(document["home"]), document["tables"]
            known = document["format"] == _FORMAT and document["version"] <= _VERSION
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{path} is not readable ({error!r}); restore a copy") from error
        if not known:
            raise ForeignError(f"{path} is of another program, or a newer Memento; update it")
        self.settings = DeploymentSettings.of(tables, home, str(path))

    @classmethod
    def create(cls, root: str | Path, settings: DeploymentSettings) -> Deployment:
        """Make a deployment, after the model was looked at.

        Raises:
            StorageError: The folder holds a deployment, or other things.
            SettingError, ModelError, MissingExtraError: As for `Models`.
        """
        folder = local_path(root, "STATE")
        if (folder / _SETTINGS).exists():
            raise StorageError(f"{folder} holds a deployment already; choose another folder")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ForeignError(f"{folder} holds other things; choose an empty or a new folder")
        Models(settings)
        document = {"format": _FORMAT, "version": _VERSION, **settings.document()}
        with storage_errors("make a deployment", folder):
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / _SETTINGS, json.dumps(document, indent=1).encode())
        return cls(folder)

    def state(self, name: str) -> VariantState:
        """The state of a variant.

        Raises:
            SettingError: There is no such variant.
        """
        if name not in self.settings.variants:
            raise SettingError(
                f"there is no variant {name!r}; there are {', '.join(self.settings.variants)}"
            )
        return VariantState.load(self._folder(name))

    def run(
        self,
        reader: Reader,
        *,
        until: str | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> Iterator[tuple[str, DayRecord]]:
        """Do all days that are due.

        Args:
            reader: Reads the file of a day.
            until: Last day to do; None: the last that is there.
            tell: Called with what begins.

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
        with self._lock(), _without_warnings():
            models, files = Models(self.settings), self._files()
            work = [
                _VariantJob(self, name, variant, models, reader)
                for name, variant in self.settings.variants.items()
            ]
            for day in sorted(files):
                if until is not None and day > until:
                    break
                for job in work:
                    if job.is_due(day, files):
                        tell(f"{day} {job.name}")
                        for record in job.advance(day, files):
                            yield job.name, record

    def rollback(self, name: str, version: str | None = None) -> str:
        """Let an earlier version serve until a new one passes the gate.

        Args:
            name: Of the variant.
            version: None: the one published before that which serves.

        Returns:
            The version that serves now.

        Raises:
            SettingError: No such variant or version.
            DamagedError: The version's files were changed; what served still does.
        """
        with self._lock():
            state = self.state(name)
            publication = self.publication(name)
            if version is None:
                place = state.versions.index(state.serving) if state.serving is not None else 0
                if not place:
                    raise SettingError(
                        f"variant {name!r} has no version before {state.serving}, so nothing is "
                        f"changed; there are {', '.join(state.versions) or 'none'}"
                    )
                version = state.versions[place - 1]
            if version not in state.versions:
                raise SettingError(
                    f"variant {name!r} has no version {version!r}; there are "
                    f"{', '.join(state.versions) or 'none'}"
                )
            publication.version(version).read()
            if version != state.serving:
                state.rollbacks.append([str(state.serving), version])
                state.serving = version
                state.save(self._folder(name))
            publication.switch("rollback", version)
            return version

    def mirror(self) -> list[str]:
        """Commit what serves to the git work tree of the settings, if they name one.

        Returns:
            What went wrong, a sentence each; the next call tries again.
        """
        settings = self.settings
        if settings.git is None:
            return []
        published = {name: self.publication(name) for name in settings.variants}
        return mirror_all(published, settings.git, settings.git_folder, settings.git_remote)

    def publication(self, name: str) -> Publication:
        """The published models of a variant."""
        return Publication(self.root / "published" / name, LearnerFiles(), self.settings.keep)

    def _folder(self, name: str) -> Path:
        return self.root / "variants" / name

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with storage_errors("lock", self.root):
                stack.enter_context(Lock(self.root / "lock"))
            yield

    def _files(self) -> dict[str, list[Path]]:
        """The files of each day; a day should have one."""
        folder = self.settings.folder
        if not folder.is_dir():
            raise StorageError(f"{folder}, the [data] folder, is no folder; make it, with the days")
        files: dict[str, list[Path]] = {}
        with storage_errors("read", folder):
            for path in sorted(folder.iterdir()):
                if path.suffix in _ENDINGS and is_day(path.stem) and path.is_file():
                    files.setdefault(path.stem, []).append(path)
        return files


class _VariantJob:
    """The days of one variant during a run."""

    def __init__(
        self, deployment: Deployment, name: str, variant: Variant, models: Models, reader: Reader
    ) -> None:
        self.name = name
        self._settings = deployment.settings
        self._variant = variant
        self._models = models
        self._reader = reader
        self._folder = deployment._folder(name)
        self._publication = deployment.publication(name)
        self._state = VariantState.load(self._folder)
        self._forget()
        self._publication.clean(self._state.versions)
        self._follow()

    def _forget(self) -> None:
        """Read what serves anew before the next day."""
        self._learner: Any = self._models.make()
        self._loaded: str | None = None  # version
        self._model = ""  # its digest

    def is_due(self, day: str, files: dict[str, list[Path]]) -> bool:
        """Whether a day that is there has to be looked at."""
        record = self._state.days.get(day)
        if record is None or record.state == "missing":
            return True
        if record.state != "failed":
            return False
        return day > self._state.last or record.digest != self._digest(files[day])

    def advance(self, day: str, files: dict[str, list[Path]]) -> list[DayRecord]:
        """Work on a day, and let it count; returns what is new."""
        gap = self._missing_before(day, files)  # also where the day itself fails
        try:
            record = self._step(day, self._samples(day, files[day]))
        except (SpaceError, LockedError, MemoryError):
            raise
        except Exception as error:  # of the file, or of the user's model
            self._state = VariantState.load(self._folder)
            self._forget()
            record = DayRecord(
                day,
                "failed",
                reason=first_line(error),
                served=self._state.serving,
                held=0 if self._state.memory is None else len(self._state.memory),
                digest=self._digest(files[day]),
            )
        news = [one for one in (*gap, record) if self._state.note(one)]
        if news:
            self._state.save(self._folder)
            self._follow()
        return news if record in news else [*news, record]

    def _missing_before(self, day: str, files: dict[str, list[Path]]) -> list[DayRecord]:
        known = self._state.days
        if not known:
            return []
        date = day_of(self._state.last or min(known)) + dt.timedelta(days=1)
        found = []
        while (name := date.isoformat()) < day:
            if name not in files and name not in known:
                found.append(DayRecord(name, "missing", reason="there is no file of this day"))
            date += dt.timedelta(days=1)
        return found

    def _samples(self, day: str, paths: Sequence[Path]) -> Samples:
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise InputError(f"there are {names}; leave one of them")
        trigger = self._variant.trigger
        further = ["id", getattr(trigger, "cluster", None), *self._memory_reads()]
        own = {"x", self._settings.label, "yhat", "loss", "logscore"}
        wanted = list(dict.fromkeys(name for name in further if name and name not in own))
        return self._reader(paths[0], self._settings.inputs, self._settings.label, wanted)

    def _memory_reads(self) -> Sequence[str]:
        if self._state.memory is not None:
            return self._state.memory.policy.reads
        return self._variant.memory(self._settings.label, numbers=False, seed=0).policy.reads

    def _step(self, day: str, samples: Samples) -> DayRecord:
        """The loop's step: annotate, score, insert, decide; train and publish where it is due."""
        state, label, late = self._state, self._settings.label, day < self._state.last
        came = f"the file came after {state.last} was done"
        if late and (self._settings.late == "state" or state.memory is None):
            return DayRecord(day, "late", reason=f"{came}; it is left out", served=state.serving)
        if state.memory is None:
            state.numbers = self._models.numbers(samples)
            state.memory = self._variant.memory(
                label, numbers=state.numbers, seed=self._settings.seed
            )
        memory, served = state.memory, state.serving
        self._attach()
        trigger = _Told(
            self._variant.deciding(label, numbers=bool(state.numbers)), bool(samples.size)
        )
        stepper = Stepper(
            memory,
            self._learner,
            trigger,
            {"before": lambda moment: log_scores(moment.samples, label)},
            lambda moment: self._gate(day, samples, moment, stepper.decision),
            rng=np.random.default_rng((memory.inserts, memory.seen)),
        )
        stepper.label, stepper.arrivals = label, trigger.arrivals(memory.recent)
        stepper.adapts = False  # what serves is what was published
        stepper.trained_at = stepper.arrivals.trained_at
        stepper.seen_at = stepper.arrivals.seen_at
        step = stepper.advance(stepper.arrivals.units + 1, day, samples, late=late)
        if late:
            reason = f"{came}; its samples were inserted"
            return DayRecord(day, "late", False, False, reason, served, samples.size, len(memory))
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
        return DayRecord(
            day=day,
            state="done" if step.refused is None else "refused",
            trained=decision.due,
            published=step.trained,
            reason=reason,
            served=served,
            offered=samples.size,
            held=len(memory),
            figures={n: float(v) for n, v in (figures | notes).items() if math.isfinite(v)},
        )

    def _gate(
        self, day: str, samples: Samples, moment: Moment, decision: Decision | None
    ) -> str | None:
        """Why a new model is refused; one that passes is published, and serves from then on."""
        state, learner, label = self._state, self._learner, self._settings.label
        verdict = judge(learner, moment.served, samples, label, self._settings.tolerance)
        scores = {"gate_score": verdict.score, "gate_serving": verdict.serving}
        finite = {name: score for name, score in scores.items() if math.isfinite(score)}
        moment.notes.update(verdict=verdict.reason, **finite)
        if not verdict.passed:
            return verdict.reason
        facts = {
            "variant": self.name,
            "trained_on": len(moment.memory),
            "reason": "" if decision is None else decision.reason,
            "label": label,
            "inputs": list(self._settings.inputs),
        }
        self._publication.write(learner.state(), day, facts)
        keep = self._settings.keep or len(state.versions) + 1
        state.serving, state.versions = day, [*state.versions, day][-keep:]
        self._load(day)
        return None

    def _follow(self) -> None:
        """Let serve what the state says, which is the moment a day counts."""
        name = self._state.serving
        if name is not None:
            action = "publish" if name == self._state.versions[-1] else "rollback"
            self._publication.switch(action, name)

    def _load(self, name: str) -> None:
        """Read a version."""
        version = self._publication.version(name)
        self._learner.restore(version.read())
        self._loaded, self._model = name, version.identity

    def _attach(self) -> None:
        """Read what serves; all that is held is predicted by it, also after a rollback."""
        name, memory = self._state.serving, self._state.memory
        if name is None:
            return
        if self._loaded != name:
            self._load(name)
        if memory is None or memory.model == self._model or name not in self._state.days:
            return
        learner = self._learner
        if len(memory):
            memory.annotate(learner.annotate(memory.samples))
        if memory.reference is not None:
            memory.annotate_reference(learner.annotate(memory.reference))
        if memory.recent is not None:
            recent = memory.recent.copy()
            recent.predict_again(lambda part: annotated(learner, part))
            memory.recent = recent
        memory.model = memory.reference_model = self._model

    def _digest(self, paths: Sequence[Path]) -> str | None:
        """What the files of a day are; None if they cannot be read."""
        with contextlib.suppress(OSError):
            return "-".join(digest(path) for path in paths)
        return None


@dataclass(frozen=True)
class _Told(Trigger):
    """A trigger that says where samples cannot be compared, so that no day fails by it."""

    trigger: Trigger
    came: bool  # any samples

    def arrivals(self, recent: Arrivals | None) -> Arrivals:
        """What was kept of earlier days, kept on as the trigger says."""
        fresh = self.trigger.keeps() or Arrivals(witnesses=0.0)
        arrivals = fresh if recent is None else recent.copy()
        arrivals.witnesses, arrivals.cluster = fresh.witnesses, fresh.cluster
        return arrivals

    def _decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        raise NotImplementedError

    def decide(self, situation: Situation, rng: np.random.Generator) -> Decision:
        if not self.came:
            return Decision(False, "no samples came")
        try:
            return self.trigger.decide(situation, rng)
        except InputError as error:
            return Decision(False, f"it cannot be told: {error}")


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
