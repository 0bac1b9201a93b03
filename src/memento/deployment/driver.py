"""The order of days of any deployment: days, on each all variants, of each all tasks; then publish.

    STATE/deployment.json            the settings
    STATE/variants/NAME/             what tasks remember between two days
    STATE/published/NAME/            the models, see ``publication``
    STATE/lock                       held by the job

A task has a memory and a model of its own, such as one horizon of a forecast. What a variant
publishes are the models of all its tasks; those that were not trained are carried forward. If what
serves is worse, for as many days in a row as the settings say, than what served before, that serves
again.

A kind of deployment says what its settings are (`Driver`), which days there are and what a step is
(`VariantJob`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from memento import snapshot
from memento.deployment.git import mirror_all
from memento.deployment.publication import Publication, Version
from memento.errors import DamagedError, ForeignError, ModelError, SettingError
from memento.files import Lock, local_path, read_json, storage_errors, write_json

__all__ = ["REGRESSED", "Done", "Driver", "Outcome", "VariantJob"]

S = TypeVar("S", bound=Any)
D = TypeVar("D")
R = TypeVar("R")

REGRESSED = "what serves predicts worse than what served before"
_SETTINGS, _VERSION = "deployment.json", 1


@dataclass(frozen=True)
class Done:
    """What the step of one task came to.

    Attributes:
        record: What is written down of it.
        served: Version that it was taken with; None before the first.
        candidate: A model that passed the gate and is to be published; None: there is no new one.
        lost: By how much what serves is worse than what served before, in each of the measures that
            there are margins for; None: it is not known.
        facts: Of the training, for the manifest.
    """

    record: Any
    served: str | None
    candidate: Any = None
    lost: Sequence[float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a day of a variant came to.

    Attributes:
        done: By task.
        published: The version that serves from this day on, if there is a new one.
        regressed: Whether what served is worse than what served before, on the day's data.
        rolled_back: The version that serves again, if this day led back to one.
        attention: What a person should look at, one sentence each.
    """

    done: tuple[Done, ...]
    published: str | None
    regressed: bool
    rolled_back: str | None
    attention: tuple[str, ...]


@dataclass
class VariantJob(ABC, Generic[D, R]):
    """The days of one variant during a run.

    ``D`` is what a day consists of, ``R`` what it comes to.

    Attributes:
        name: Of the variant.
        publication: Its versions; what they are made of gives a model a task.
        base: A model a task that trainings start from, or None.
        margins: By how much what serves may be worse than what served before, by measure; without
            any they are not compared.
        rollback_after: Days in a row on which it is, until what served before serves again; 0 for
            never.
    """

    name: str
    publication: Publication
    base: Sequence[Any]
    margins: Sequence[float]
    rollback_after: int
    _known: tuple[str | None, Sequence[Any]] = field(default=(None, ()), init=False)

    @abstractmethod
    def is_due(self, day: D) -> bool:
        """Whether the variant has to look at a day."""

    @abstractmethod
    def advance(self, day: D, tell: Callable[[int], None]) -> R:
        """Work on a day, which `take` does, and let it count; each task is told before its step."""

    @abstractmethod
    def step(self, number: int, day: D, version: str | None, model: Any, older: Any) -> Done:
        """The loop's step of one task on a day's data.

        Args:
            number: Of the task.
            day: Its data.
            version: That serves; None before the first.
            model: Of that version; before the first, what trainings start from.
            older: Of the version that served before; None where there is none to compare with.
        """

    @abstractmethod
    def joined(self, models: Sequence[Any], done: Sequence[Done]) -> tuple[Any, Any, str]:
        """What is published of models of all tasks, facts of it, and why; None if some lack."""

    @abstractmethod
    def past(self) -> Iterable[tuple[bool, str | None]]:
        """Of the days before, newest first: whether they regressed, and which version served."""

    def commit(self, outcome: Outcome) -> None:
        """Let a day count, if its steps do not; then it is published or rolled back."""

    def take(self, day: D, name: str, tell: Callable[[int], None]) -> Outcome:
        """The steps of all tasks; then their models are published, or those before serve again.

        All of it can be repeated, after a kill, without doing anything twice.

        Args:
            day: What the steps work on.
            name: Of the day, and of what is published.
            tell: As for `advance`.
        """
        where, publication = f"{name}, {self.name}", self.publication
        serving, attention = publication.current(), []
        if serving is not None and serving.name != self._known[0]:
            self._known = serving.name, list(serving.read())
        version, models = (None, self.base) if serving is None else self._known
        older: Sequence[Any] = [None] * len(self.base)
        try:
            older = self._before() or older
        except (DamagedError, ModelError) as error:  # the day can do without
            attention.append(f"{where}: what served before cannot be compared with: {error}")
        done: list[Done] = []
        for number, (model, former) in enumerate(zip(models, older, strict=True)):
            tell(number)
            done.append(self.step(number, day, version, model, former))
        history, whole, published = publication.history(), None, None
        if any(s.version == name for s in history if s.action == "publish"):
            published = name  # before the job was stopped
        elif any(one.candidate is not None for one in done):
            pairs = zip(done, models, strict=True)
            fresh = [m if one.candidate is None else one.candidate for one, m in pairs]
            whole, facts, reason = self.joined(fresh, done)
            if whole is None:
                attention.append(f"{where}: not all tasks have a model yet")
            else:
                published = name
        # Before the job was stopped; a person may have gone elsewhere since.
        back = [s.version for s in history if (s.action, s.day) == ("rollback", name)]
        regressed, target = self._regressed(done), None
        if regressed and published is None and self._lasts(done[0].served):
            previous = publication.previous()
            target = back[0] if back else getattr(previous, "name", None)
            told = f"rolled back to {target}: {REGRESSED}"
            none = f"{REGRESSED}, and none is left to go back to"
            attention.append(f"{where}: {none if target is None else told}")
        outcome = Outcome(tuple(done), published, regressed, target, tuple(attention))
        commit = functools.partial(self.commit, outcome)
        if whole is None:
            commit()
        else:
            publication.publish(whole, name, day=name, facts=facts, reason=reason, commit=commit)
        if target is not None and not back:
            publication.rollback(REGRESSED, to=target, day=name)
        return outcome

    def _before(self) -> Sequence[Any]:
        """The models of what served before; empty where there is none to compare with."""
        before = self.publication.previous() if self.margins else None
        if before is None:
            return ()
        self.publication.check_return(before)
        return list(before.read())

    def _regressed(self, done: Sequence[Done]) -> bool:
        """Whether what serves is worse than what served before, in the mean of tasks."""
        lost = [one.lost for one in done if one.lost is not None]
        return bool(lost) and bool((np.mean(lost, axis=0) > self.margins).any())

    def _lasts(self, served: str | None) -> bool:
        """Whether it has been for as many days as a rollback takes, today included."""
        before = list(itertools.islice(self.past(), max(0, self.rollback_after - 1)))
        enough = len(before) >= self.rollback_after - 1 >= 0
        return enough and all(regressed and name == served for regressed, name in before)


class Driver(ABC, Generic[S]):
    """A deployment on disk. ``S`` is what its settings are.

    Args:
        folder: Made by `_make`.

    Attributes:
        folder: As given.
        settings: As stored.
        kind: Name of the format.
        init: The command that makes one.
        instead: What to do where there is one already.
        known: Class of the settings, with ``document``, ``of_document``, ``variants``, and
            ``publish``: ``git``, ``git_folder``, ``git_remote``.

    Raises:
        ForeignError: The folder holds no deployment, or one of another kind.
        DamagedError, SettingError: Its settings cannot be read.
    """

    kind: ClassVar[str]
    init: ClassVar[str]
    instead: ClassVar[str] = "choose a new folder"
    known: ClassVar[Any]

    def __init__(self, folder: str | Path) -> None:
        self.folder = local_path(folder, "STATE")
        self.settings: S = self._read_settings()

    @classmethod
    def _make(
        cls, folder: str | Path, settings: S, prepare: Callable[[Path], object] | None = None
    ) -> Self:
        """A new deployment; ``prepare`` makes ``base`` in its folder, anew after a kill.

        Raises:
            ForeignError: The folder holds a deployment, or other things.
            LockedError: Somebody else is making it.
        """
        folder = local_path(folder, "STATE")
        ours = {"lock"} if prepare is None else {"lock", "base"}

        def check_free() -> None:
            names = sorted({path.name for path in folder.iterdir()} - ours)
            strangers = [name for name in names if not name.startswith(f".{_SETTINGS}.")]
            if strangers:
                what = "a deployment" if _SETTINGS in names else repr(strangers[0])
                raise ForeignError(f"{folder} holds {what} already; {cls.instead}")

        with storage_errors("make a deployment", folder):
            folder.mkdir(parents=True, exist_ok=True)
            check_free()  # no lock is left in a folder of others
            with Lock(folder / "lock"):
                check_free()
                if prepare is not None:
                    prepare(folder)
                cls._write_settings(folder, settings)
        return cls(folder)

    @property
    def variants(self) -> list[str]:
        """Names of the variants."""
        return list(self.settings.variants)

    @abstractmethod
    def _publication(self, variant: str) -> Publication:
        """The published models of a variant that there is."""

    def publication(self, variant: str) -> Publication:
        """The published models of a variant.

        Raises:
            SettingError: There is no such variant.
        """
        if variant not in self.variants:
            raise SettingError(
                f"there is no variant {variant!r}; there are {', '.join(self.variants)}"
            )
        return self._publication(variant)

    def serving(self, variant: str) -> str | None:
        """The version that serves; None before the first."""
        history = self.publication(variant).history()
        return history[-1].version if history else None

    def rollback(
        self, variant: str, reason: str = "", to: str | None = None
    ) -> tuple[Version, tuple[str, ...]]:
        """Let an earlier version of a variant serve, until a new one passes the gate.

        The next day's step goes on with its predictions. The reference for coverage stays that of
        the last training.

        Args:
            variant: Its name.
            reason: One sentence for the history.
            to: The version; None: what served before that which serves was published.

        Returns:
            What serves now; and what a person should look at, such as a git work tree that did not
            take it (the next run tries again).

        Raises:
            SettingError: There is no such variant.
            StorageError: There is no such version; what served still does.
            DamagedError: The version's files were changed; what served still does.
            ModelError: It lacks a task's model that what serves has; that still does.
            LockedError: The job is running.
        """
        with self._locked():
            publication = self.publication(variant)
            self._follow(variant, publication)
            return publication.rollback(reason, to=to), tuple(self.mirror())

    def mirror(self) -> list[str]:
        """Commit what serves to the git work tree of the settings, if they name one.

        Returns:
            What went wrong, a sentence each; the next call tries again.
        """
        to = self.settings.publish
        if to.git is None:
            return []
        published = {name: self.publication(name) for name in self.variants}
        return mirror_all(published, to.git, to.git_folder, to.git_remote)

    def _drive(
        self, day: D, jobs: Sequence[VariantJob[D, R]], tell: Callable[..., None]
    ) -> Iterator[tuple[str, R]]:
        """Work on a day with all variants.

        Args:
            day: What it consists of.
            jobs: Of the variants.
            tell: Called before each step with the day, the number of the variant and of the task.

        Yields:
            A variant for which the day was due, and what it came to, once it counts.
        """
        for number, job in enumerate(jobs):
            if job.is_due(day):
                yield job.name, job.advance(day, functools.partial(tell, day, number))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The deployment for oneself, with the settings as they are now."""
        with contextlib.ExitStack() as stack:
            with storage_errors("lock the deployment", self.folder):
                stack.enter_context(Lock(self.folder / "lock"))
            self.settings = self._read_settings()
            yield

    def _follow(self, variant: str, publication: Publication) -> None:
        """Let serve what counts already, though the job was killed before it was switched."""

    def _clean(self) -> None:
        """Clear away what a killed run left; what counts serves."""
        for folder in (self.folder, self.folder / "days"):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)
        # A step that is done is not written again, so what it replaced might stay for good.
        for path in (self.folder / "variants").rglob("manifest.json"):
            snapshot.prune(path.parent)
        for name in self.variants:
            publication = self.publication(name)
            self._follow(name, publication)
            if publication.root.is_dir():
                with publication.lock():
                    publication.clean()

    @classmethod
    def _write_settings(cls, folder: Path, settings: S) -> None:
        document = {"format": cls.kind, "version": _VERSION, "settings": settings.document()}
        write_json(folder / _SETTINGS, document)

    def _read_settings(self) -> S:
        """What the deployment was made with."""
        path = self.folder / _SETTINGS
        with storage_errors("read", self.folder):
            there = path.is_file()
        if not there:
            raise ForeignError(f"{self.folder} holds no deployment; make one with: {self.init}")
        document = read_json(path)
        if not isinstance(document, Mapping) or document.get("format") != self.kind:
            raise ForeignError(f"{path} is no deployment that this command knows; see {self.init}")
        try:
            if document["version"] > _VERSION:
                raise ForeignError(f"{path} is of a newer Memento; update it")
            found: S = self.known.of_document(document.get("settings", document), str(path))
            return found
        except (KeyError, TypeError) as error:
            raise DamagedError(f"{path} is incomplete ({error!r}); restore a copy") from error
