"""The daily job that keeps five predictors up to date, for one or several variants of a memory.

    STATE/deployment.json            the settings
    STATE/base/                      the networks that trainings start from
    STATE/variants/NAME/H/           memory, reference and state of horizon H after its last day
    STATE/published/NAME/            the models, see ``publish``
    STATE/plan.json                  which data the day at work consists of, and why
    STATE/days/2022-09-20.json       what was decided that day, and why; there when the day is done
    STATE/failures.json              days that failed, how often, and with what
    STATE/lock                       held by the job

Day X works on the data of day X - 1. For each variant and horizon: load the memory; attach the
model that serves, so that all predictions held are made again; insert the new samples; compare the
coverage with the content at the last training; train from the base if it has risen; hold the new
network against the one that serves on data that neither has seen. When all five horizons are
through, they are published together. Last, the day's file is written.

Every horizon's step replaces its folder at once, the publication is one switch, and both can be
repeated without doing anything twice. So a job killed anywhere goes on where it was, and comes to
the same bytes as one that was left alone.

Source: the Memento paper, section 5, and the failures that its deployment had.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.days import day_of
from memento.deployment.git import mirror_all
from memento.deployment.publication import Version
from memento.errors import (
    DamagedError,
    ForeignError,
    InputError,
    MementoError,
    SettingError,
    StorageError,
)
from memento.files import Lock, atomic_write, local_path, storage_errors
from memento.samples import Samples
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.deployment import record
from memento_puffer.deployment.deploy_settings import (
    DeploymentSettings,
)
from memento_puffer.deployment.publish import Publication
from memento_puffer.deployment.task import Done, Horizon
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp import Ttp

__all__ = [
    "Deployment",
    "Outcome",
]

_BASE_KIND = "memento-puffer-base"
_FORMAT = "memento-puffer-deployment"

Source = Callable[[dt.date], Features | None]


@dataclass(frozen=True)
class _Models:
    """The networks of a variant while a day is worked on, by horizon."""

    name: str | None  # of the version that serves
    networks: tuple[Network | None, ...]
    older: tuple[Network | None, ...]
    attention: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """What a day consists of; kept from its first step on, so that all steps see the same."""

    status: str
    note: str
    data: Mapping[dt.date, Features]
    attention: tuple[str, ...]

    def document(self, day: dt.date) -> dict[str, Any]:
        return {
            "day": day.isoformat(),
            "status": self.status,
            "note": self.note,
            "data_days": [one.isoformat() for one in self.data],
            "attention": list(self.attention),
        }


@dataclass(frozen=True)
class Outcome:
    """What a run of the job came to.

    Attributes:
        days: Documents of the days that were done now, as in ``STATE/days``.
        waiting: Today, if its data is not there yet: the job is to be run again later.
        attention: What a person should look at, one sentence each.
        failure: What the day after these failed with, if it did and was not raised.
    """

    days: tuple[Mapping[str, Any], ...] = ()
    waiting: dt.date | None = None
    attention: tuple[str, ...] = ()
    failure: Exception | None = None


# --- the job ---------------------------------------------------------------------------------


class Deployment:
    """A deployment on disk.

    Args:
        folder: Made by `create`.

    Attributes:
        folder: As given.
        settings: As last configured.

    Raises:
        ForeignError: The folder holds no deployment.
        DamagedError, SettingError: Its settings cannot be read.

    Example:
        >>> import tempfile
        >>> settings = DeploymentSettings(capacity=1000)
        >>> deployment = Deployment.create(Path(tempfile.mkdtemp()) / "state", settings)
        >>> outcome = deployment.run(lambda day: None, today=dt.date(2022, 9, 20))
        >>> outcome.waiting
        datetime.date(2022, 9, 20)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = local_path(folder, "the folder")
        self.settings = self._read_settings()
        self._base: tuple[Network | None, ...] | None = None

    @classmethod
    def create(
        cls, folder: str | Path, settings: DeploymentSettings, base: Ttp | None = None
    ) -> Deployment:
        """Make a deployment.

        Args:
            folder: Absent or empty.
            settings: How.
            base: Networks that trainings start from, such as Fugu-Feb, and that serve as the
                memory's eyes before the first; None for random weights.

        Raises:
            ForeignError: There is something at that place.
            LockedError: Somebody else is making it.
        """
        folder = Path(folder)
        with storage_errors("make a deployment", folder):
            folder.mkdir(parents=True, exist_ok=True)
            with Lock(folder / "lock"):
                found = {path.name for path in folder.iterdir()} - {"lock", "base"}
                strangers = sorted(n for n in found if not n.startswith(".deployment.json."))
                if strangers:
                    raise ForeignError(
                        f"{folder} holds {strangers[0]!r} already; choose a new folder, or change "
                        "settings with: memento puffer deploy configure"
                    )
                arrays: dict[str, np.ndarray] = {}
                for h, network in enumerate(base or ()):
                    arrays |= {f"{h}/{name}": a for name, a in network.arrays().items()}
                snapshot.write(folder / "base", _BASE_KIND, arrays, {})
                _write_json(folder / "deployment.json", _settings_document(settings))
        return cls(folder)

    def configure(self, settings: DeploymentSettings) -> None:
        """Change the settings, from the next day on.

        Raises:
            SettingError: Coverage numbers of a variant would change their meaning, and ``metric``
                was not raised.
            LockedError: The job is running.
        """
        with self._locked():
            if settings.metric < self.settings.metric:
                raise SettingError(
                    f"metric={settings.metric} is below {self.settings.metric}; it only rises"
                )
            for name in sorted(set(settings.variants) & set(self.settings.variants)):
                before = self.settings.variants[name].metric(self.settings.metric)
                after = settings.variants[name].metric(settings.metric)
                kinds = (self.settings.variants[name].policy.kind, settings.variants[name].policy)
                if kinds[0] != kinds[1].kind:
                    raise SettingError(
                        f"variant {name!r} would turn from {kinds[0]} into {kinds[1].kind}; give "
                        "it another name, so that it starts with a memory of its own"
                    )
                if before != after and settings.metric <= self.settings.metric:
                    raise SettingError(
                        f"variant {name!r}: coverage would be measured in another way, and numbers "
                        f"before and after could not be compared; set metric={before['epoch'] + 1} "
                        "as well, then the reference is reset and the model trained"
                    )
            _write_json(self.folder / "deployment.json", _settings_document(settings))
        self.settings = settings

    def publication(self, variant: str) -> Publication:
        """The published models of a variant.

        Raises:
            SettingError: There is no such variant.
        """
        if variant not in self.settings.variants:
            raise SettingError(
                f"no variant {variant!r}; there are {', '.join(self.settings.variants)}"
            )
        return Publication(self.folder / "published" / variant, self.settings.keep)

    def rollback(
        self, variant: str, reason: str, to: str | None = None
    ) -> tuple[Version, tuple[str, ...]]:
        """Let an earlier model of a variant serve, until the next training is published.

        The next day's job attaches it, so the memory goes on with its predictions. The reference
        for coverage stays that of the last training.

        Returns:
            What serves now; and what a person should look at, such as a git work tree that did not
            take it (the next run tries again).

        Raises:
            SettingError: There is no such variant.
            StorageError: There is no such version.
            LockedError: The job is running.
        """
        with self._locked():
            version = self.publication(variant).rollback(reason, to=to)
            return version, tuple(self._mirror())

    def days(self, last: int | None = None) -> list[dict[str, Any]]:
        """Documents of the days that are done, oldest first.

        Args:
            last: Only so many, the latest.

        Raises:
            DamagedError: A day between two others is missing, or not readable.
        """
        names = self._done()
        first = names[0] if names else dt.date.min
        for count, name in enumerate(names):
            if name != first + dt.timedelta(days=count):
                gap = first + dt.timedelta(days=count)
                raise DamagedError(
                    f"{self.folder / 'days'}: no {gap}.json, though later days are there; restore "
                    "it from a copy"
                )
        chosen = names if last is None else names[max(0, len(names) - last) :]
        return [_read_json(self._day_file(name)) for name in chosen]

    def failures(self) -> dict[str, dict[str, Any]]:
        """Days that failed and are not done since: ``attempts`` and the last ``error``."""
        path = self.folder / "failures.json"
        return dict(_read_json(path)) if path.is_file() else {}

    def run(
        self,
        source: Source,
        *,
        today: dt.date,
        until: dt.date | None = None,
        start: dt.date | None = None,
        skip: Iterable[dt.date] = (),
        progress: Callable[[str, float], None] | None = None,
        catch: bool = False,
    ) -> Outcome:
        """Do all days that are not done yet, one after the other.

        Args:
            source: Features of a data day; None if there is no data. `days.DayFolders` is one.
            today: The day it is.
            until: Last day to do; ``today`` if left out.
            start: First day of a new deployment; ``until`` if left out.
            skip: Data days to leave out, recorded as such.
            progress: Called with what is done and the share of the day, in [0, 1].
            catch: Hand back what a day failed with as ``Outcome.failure``, beside what was done
                before it, instead of raising it.

        Returns:
            What was done. A past day without data is recorded as such, and data that turns up, or
            is repaired, within ``late_days`` is inserted with the day that finds it. Today without
            data is no record: the outcome is ``waiting``.

        Raises:
            LockedError: Another run is at work.
            SettingError: ``start`` leaves a gap or lies after ``until``, or ``until`` lies in the
                future.
            MementoError: A day failed; those before are done. It is counted in `failures`, and the
                next run tries again.
        """
        until = today if until is None else until
        if until > today:
            raise SettingError(f"until={until} lies after today, {today}")
        skipped = frozenset(skip)
        with self._locked():
            self._clean()
            names = self._done()
            self.days(last=0)  # without gaps
            day = start if start is not None else until
            if names:
                day = names[-1] + dt.timedelta(days=1)
                if start is not None and start > day:
                    raise SettingError(
                        f"start={start} leaves out days from {day} on; the last day done is "
                        f"{names[-1]}, and days follow one another"
                    )
            elif day > until:
                raise SettingError(f"start={start} lies after the last day to do, {until}")
            done: list[Mapping[str, Any]] = []
            waiting: dt.date | None = None
            failure: Exception | None = None
            while day <= until and waiting is None and failure is None:
                try:
                    document = self._day(day, source, today, skipped, progress)
                except Exception as error:
                    failure = error
                    failure.add_note(f"This was about day {day} of the deployment.")
                    self._count_failure(day, failure)
                    continue
                if document is None:
                    waiting = day
                else:
                    done.append(document)
                    day += dt.timedelta(days=1)
            attention = [sentence for document in done for sentence in document["attention"]]
            problems = self._mirror()  # also what days before one that failed have published
        if failure is not None and not catch:
            for sentence in problems:
                failure.add_note(f"Also {sentence}.")
            raise failure
        return Outcome(tuple(done), waiting, (*attention, *problems), failure)

    def table(self) -> Samples:
        """One row for each day with data, variant and horizon, see ``record.table``."""
        return record.table(self.days())

    # one day

    def _day(
        self,
        day: dt.date,
        source: Source,
        today: dt.date,
        skipped: frozenset[dt.date],
        progress: Callable[[str, float], None] | None,
    ) -> dict[str, Any] | None:
        """Do a day; None if it is today and its data is not there."""
        tell = progress or (lambda text, share: None)
        tell(f"{day}: reading", 0.0)
        plan = self._planned(day, source, skipped) or self._read(day, source, today, skipped)
        if plan is None:
            return None
        attention = list(plan.attention)
        variants: dict[str, Any] = {}
        if plan.data:
            _write_json(self.folder / "plan.json", plan.document(day))
            steps = len(self.settings.variants) * HORIZONS
            for number, name in enumerate(self.settings.variants):
                done: list[Done] = []
                models = self._models(name)
                attention += [f"{day}, {name}: {sentence}" for sentence in models.attention]
                for h in range(HORIZONS):
                    tell(f"{day}: {name}, horizon {h}", (number * HORIZONS + h) / steps)
                    done.append(
                        self._horizon(name, h).step(
                            day, plan.data, models.networks[h], models.older[h], models.name
                        )
                    )
                variants[name] = self._finish(name, day, done)
                attention += variants[name].pop("attention")
        document = {**plan.document(day), "variants": variants, "attention": attention}
        with storage_errors("record the day", self.folder):
            (self.folder / "days").mkdir(exist_ok=True)
            _write_json(self._day_file(day), document)
        self._forget_failures()
        tell(f"{day}: done", 1.0)
        return document

    def _planned(self, day: dt.date, source: Source, skipped: frozenset[dt.date]) -> _Plan | None:
        """The data of a day that was begun: the same again, whatever has turned up since."""
        path = self.folder / "plan.json"
        plan: Any = _read_json(path) if path.is_file() else {"day": None}
        if plan["day"] != day.isoformat() or not self._touched(day):
            return None
        data = {}
        for one in [day_of(text, str(path), DamagedError) for text in plan["data_days"]]:
            if one in skipped:
                raise SettingError(
                    f"the data of {one} is in a memory already, so it cannot be left out of {day}; "
                    "run without skipping it"
                )
            features = source(one)
            if features is None or not features.size:
                raise StorageError(
                    f"the data of {one} was there when {day} was begun and is not now; put it back"
                )
            data[one] = features
        return _Plan(
            plan.get("status", "done"), plan.get("note", ""), data, tuple(plan.get("attention", ()))
        )

    def _touched(self, day: dt.date) -> bool:
        """Whether any memory has the data of a day; until then the day can be planned anew."""
        last = [self._horizon(name, 0).last() for name in self.settings.variants]
        return any(one is not None and one >= day for one in last)

    def _read(
        self, day: dt.date, source: Source, today: dt.date, skipped: frozenset[dt.date]
    ) -> _Plan | None:
        """The data of a day: late days first, then the day before; None if today has to wait."""
        settings = self.settings
        wanted = day - dt.timedelta(days=1)
        status, note = "done", ""
        found: Features | None = None
        try:
            found = None if wanted in skipped else source(wanted)
        except (InputError, StorageError) as error:
            if today - day < dt.timedelta(days=settings.give_up_days):
                raise
            status, note = "unreadable", str(error)
        if status == "done" and (found is None or not found.size):
            status = "skipped" if wanted in skipped else "no data"
            if status == "no data" and day == today:
                return None
        attention = []
        if status != "done":
            attention.append(f"{day}: data of {wanted}: {status}{': ' * bool(note)}{note}")
        data = {}
        for one in self._late():
            try:
                late = None if one in skipped else source(one)
            except (InputError, StorageError) as error:
                # No reason to hold up a day whose own data is good.
                last = one + dt.timedelta(days=1 + settings.late_days)
                attention.append(
                    f"{day}: late data of {one} is left out, and tried again up to {last}: {error}"
                )
                continue
            if late is not None and late.size:
                data[one] = late
        if found is not None and status == "done":
            data[wanted] = found
        return _Plan(status, note, data, tuple(attention))

    def _late(self) -> list[dt.date]:
        """Data days of the last time that no day had, for want of data or because of damage."""
        late_days = self.settings.late_days
        candidates = [
            day_of(document["day"]) - dt.timedelta(days=1)
            for document in self.days(last=late_days)
            if document["status"] in ("no data", "unreadable")
        ]
        taken = {
            text for document in self.days(last=2 * late_days) for text in document["data_days"]
        }
        return [one for one in candidates if one.isoformat() not in taken]

    def _models(self, variant: str) -> _Models:
        """What serves, and what served before; without any version, the base."""
        publication = self.publication(variant)
        serving = publication.current()
        older: tuple[Network | None, ...] = (None,) * HORIZONS
        attention: tuple[str, ...] = ()
        try:
            before = publication.previous()
            if before is not None:
                older = tuple(before.read())
        except DamagedError as error:  # it does not serve, so that the day can do without
            attention = (f"what served before cannot be compared with: {error}",)
        return _Models(
            None if serving is None else serving.name,
            self.base if serving is None else tuple(serving.read()),
            older,
            attention,
        )

    def _finish(self, name: str, day: dt.date, done: Sequence[Done]) -> dict[str, Any]:
        """Publish what all five horizons came to, or go back to what served before."""
        publication = self.publication(name)
        rows = [one.row for one in done]
        attention = [
            f"{day}, {name}, horizon {row['horizon']}: the gate refused a network: {row['refused']}"
            for row in rows
            if row["refused"] is not None
        ]
        attention += [
            f"{day}, {name}, horizon {row['horizon']}: no sample in the data"
            for row in rows
            if not row["offered"]
        ]
        published = None
        fresh = [h for h, one in enumerate(done) if one.candidate is not None]
        version = day.isoformat()
        if any(s.version == version for s in publication.history() if s.action == "publish"):
            published = version  # before the job was stopped
        elif fresh:
            serving = publication.current()
            others = self.base if serving is None else tuple(serving.read())
            networks = [
                one.candidate if one.candidate is not None else others[h]
                for h, one in enumerate(done)
            ]
            whole = [network for network in networks if network is not None]
            if len(whole) == HORIZONS:
                published = publication.publish(
                    Ttp(tuple(network.astype(np.float64) for network in whole)),
                    version,
                    day=version,
                    facts={"variant": name, "day": version, "trained": fresh},
                    reason=f"trained horizons {', '.join(map(str, fresh))}",
                ).name
            else:
                attention.append(f"{day}, {name}: not all horizons have a network yet")
        regressed = self._regressed(rows)
        rolled_back = None
        if regressed and published is None and self._streak(name, rows) >= 1:
            rolled_back = self._roll_back(publication, day)
            if rolled_back is not None:
                attention.append(f"{day}, {name}: rolled back to {rolled_back}: {_REGRESSED}")
            else:
                attention.append(f"{day}, {name}: {_REGRESSED}, and none is left to go back to")
        return {
            "rows": rows,
            "model": rows[0]["model"],
            "published": published,
            "regressed": regressed,
            "rolled_back": rolled_back,
            "attention": attention,
        }

    def _regressed(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether what serves is worse than what served before, on the day's data."""
        gate = self.settings.gate
        if any(row[name] is None for row in rows for name in ("loss", "previous_loss")):
            return False
        loss = np.mean([row["loss"] - row["previous_loss"] for row in rows])
        tail = np.mean([row["tail"] - row["previous_tail"] for row in rows])
        return bool(loss > gate.loss or tail > gate.tail)

    def _streak(self, name: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """1 if the model has been worse for as many days with data as a rollback takes, else 0."""
        needed = self.settings.gate.rollback_after
        if needed == 0:
            return 0
        count = 1
        for document in reversed(self.days(last=needed + self.settings.late_days)):
            entry = document["variants"].get(name)
            if count >= needed:
                break
            if entry is None:
                continue
            if not entry["regressed"] or entry["model"] != rows[0]["model"]:
                break
            count += 1
        return int(count >= needed)

    def _roll_back(self, publication: Publication, day: dt.date) -> str | None:
        for switch in publication.history():
            if switch.action == "rollback" and switch.day == day.isoformat():
                return switch.version  # before the job was stopped
        if publication.previous() is None:
            return None
        return publication.rollback(_REGRESSED, day=day.isoformat()).name

    # folders

    @property
    def base(self) -> tuple[Network | None, ...]:
        """The networks that trainings start from; None for random weights."""
        if self._base is None:
            arrays = snapshot.read(self.folder / "base", _BASE_KIND).arrays
            found = [snapshot.with_prefix(arrays, f"{h}/") for h in range(HORIZONS)]
            self._base = tuple(Network.of_arrays(one) if one else None for one in found)
        return self._base

    def _read_settings(self) -> DeploymentSettings:
        path = self.folder / "deployment.json"
        if not path.is_file():
            raise ForeignError(
                f"{self.folder} holds no deployment; make one with: memento puffer deploy init"
            )
        document = _read_json(path)
        if not isinstance(document, Mapping) or document.get("format") != _FORMAT:
            raise ForeignError(f"{path} is no deployment of Memento")
        return DeploymentSettings.of_document(document["settings"])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The deployment for oneself, with the settings as they are now."""
        with contextlib.ExitStack() as stack:
            with storage_errors("lock the deployment", self.folder):
                stack.enter_context(Lock(self.folder / "lock"))
            self.settings = self._read_settings()
            yield

    def _done(self) -> list[dt.date]:
        folder = self.folder / "days"
        if not folder.is_dir():
            return []
        files = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
        return sorted(day_of(path.stem, str(path), DamagedError) for path in files)

    def _day_file(self, day: dt.date) -> Path:
        return self.folder / "days" / f"{day}.json"

    def _horizon(self, variant: str, h: int) -> Horizon:
        return Horizon(self.settings, variant, h, self.folder, self.base[h])

    def _clean(self) -> None:
        """Clear away what a killed run left."""
        for folder in (self.folder, self.folder / "days"):
            for path in folder.glob(".*.tmp") if folder.is_dir() else ():
                path.unlink(missing_ok=True)
        self._forget_failures()
        # A step that is done is not written again, so what it replaced might stay for good.
        for folder in (self.folder / "variants").glob("*/*"):
            if snapshot.exists(folder):
                current = f"generation-{snapshot.generation_of(folder):06d}"
                for path in folder.glob("generation-*"):
                    if path.name != current:
                        shutil.rmtree(path, ignore_errors=True)
        for name in self.settings.variants:
            publication = self.publication(name)
            if publication.root.is_dir():
                with publication.lock():
                    publication.clean()

    def _count_failure(self, day: dt.date, failure: Exception) -> None:
        try:
            failures = self.failures()
            attempts = failures.get(day.isoformat(), {}).get("attempts", 0) + 1
            failures[day.isoformat()] = {
                "attempts": attempts,
                "error": f"{type(failure).__name__}: {failure}",
            }
            _write_json(self.folder / "failures.json", failures)
        except MementoError as error:  # must not hide what is counted
            failure.add_note(f"It is not counted: {error}.")

    def _forget_failures(self) -> None:
        """Those of days that are done."""
        failures = self.failures()
        left = {
            day: entry
            for day, entry in failures.items()
            if not self._day_file(day_of(day)).is_file()
        }
        if left == failures:
            return
        if left:
            _write_json(self.folder / "failures.json", left)
        else:
            (self.folder / "failures.json").unlink()

    def _mirror(self) -> list[str]:
        """Commit what serves to the git work tree; what goes wrong is told, and tried next time."""
        settings = self.settings
        if settings.git is None:
            return []
        published = {name: self.publication(name) for name in settings.variants}
        return mirror_all(published, settings.git, settings.git_folder, settings.git_remote)


_REGRESSED = "what serves predicts worse than what served before"


def _settings_document(settings: DeploymentSettings) -> dict[str, Any]:
    return {"format": _FORMAT, "version": 1, "settings": settings.document()}


def _read_json(path: Path) -> Any:
    with storage_errors("read", path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:
        raise DamagedError(f"{path} is no JSON ({error}); restore it from a copy") from error


def _write_json(path: Path, document: Any) -> None:
    with storage_errors("write", path):
        atomic_write(path, json.dumps(document, indent=1, allow_nan=False).encode())
