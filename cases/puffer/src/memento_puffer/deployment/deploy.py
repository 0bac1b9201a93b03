"""The daily job that keeps five predictors up to date, for one or several variants of a memory.

    STATE/base/                      the networks that trainings start from
    STATE/variants/NAME/H/           memory, reference and state of horizon H after its last day
    STATE/plan.json                  which data the day at work consists of, and why
    STATE/days/2022-09-20.json       what was decided that day, and why; there when the day is done
    STATE/failures.json              days that failed, how often, and with what

and what every deployment has, see ``memento.deployment.driver``. Day X works on the data of day
X - 1, and on that of days before which came late. The tasks of a variant are the five horizons,
see ``task``; when all are through, their networks are published together. Last, the day's file is
written.

Every horizon's step replaces its folder at once, the publication is one switch, and both can be
repeated without doing anything twice. So a job killed anywhere goes on where it was, and comes to
the same bytes as one that was left alone.

Source: the Memento paper, section 5, and the failures that its deployment had.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.days import day_of
from memento.deployment.driver import Done, Driver, VariantJob
from memento.deployment.driver import Outcome as VariantOutcome
from memento.errors import DamagedError, InputError, MementoError, SettingError, StorageError
from memento.files import read_json, storage_errors, write_json
from memento.samples import Samples
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.deployment import record
from memento_puffer.deployment.deploy_settings import DeploymentSettings
from memento_puffer.deployment.publish import Publication
from memento_puffer.deployment.task import Horizon
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp import Ttp

__all__ = ["Deployment", "Outcome"]

_BASE_KIND = "memento-puffer-base"

Source = Callable[[dt.date], Features | None]


@dataclass(frozen=True)
class _Plan:
    """What a day consists of; kept from its first step on, so that all steps see the same."""

    day: dt.date
    status: str
    note: str
    data: Mapping[dt.date, Features]
    attention: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        return {
            "day": self.day.isoformat(),
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


class _Variant(VariantJob[_Plan, VariantOutcome]):
    """The days of a variant: five horizons, published as one."""

    def __init__(self, deployment: Deployment, name: str) -> None:
        self._deployment = deployment
        gate, base = deployment.settings.gate, deployment.base
        margins = (gate.loss, gate.tail)
        super().__init__(name, deployment.publication(name), base, margins, gate.rollback_after)

    def is_due(self, day: _Plan) -> bool:
        return bool(day.data)

    def advance(self, day: _Plan, tell: Callable[[int], None]) -> VariantOutcome:
        return self.take(day, day.day.isoformat(), tell)

    def step(self, number: int, day: _Plan, version: str | None, model: Any, older: Any) -> Done:
        horizon = self._deployment._horizon(self.name, number)
        return horizon.step(day.day, day.data, model, older, version)

    def joined(
        self, models: Sequence[Network | None], done: Sequence[Done]
    ) -> tuple[Ttp | None, dict[str, Any], str]:
        networks = [network.astype(np.float64) for network in models if network is not None]
        fresh = [h for h, one in enumerate(done) if one.candidate is not None]
        return (
            Ttp(tuple(networks)) if len(networks) == HORIZONS else None,
            {"variant": self.name, "day": done[0].record["day"], "trained": fresh},
            f"trained horizons {', '.join(map(str, fresh))}",
        )

    def _regressed(self, done: Sequence[Done]) -> bool:
        """In the mean of all five, or it is not known."""
        return all(one.lost is not None for one in done) and super()._regressed(done)

    def past(self) -> Iterator[tuple[bool, str | None]]:
        settings = self._deployment.settings
        documents = self._deployment.days(last=settings.gate.rollback_after + settings.late_days)
        for document in reversed(documents):
            entry = document["variants"].get(self.name)
            if entry is not None:
                yield entry["regressed"], entry["model"]


# --- the job ---------------------------------------------------------------------------------


class Deployment(Driver[DeploymentSettings]):
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

    kind = "memento-puffer-deployment"
    init = "memento puffer deploy init"
    instead = "choose a new folder, or change settings with: memento puffer deploy configure"
    known = DeploymentSettings

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self._base: tuple[Network | None, ...] | None = None

    @classmethod
    def create(
        cls, folder: str | Path, settings: DeploymentSettings, base: Ttp | None = None
    ) -> Deployment:
        """Make a deployment.

        Args:
            folder: Absent or empty.
            settings: Variants, horizons, training, gate and publication, kept in the folder.
            base: Networks that trainings start from, such as Fugu-Feb, and that serve as the
                memory's eyes before the first; None for random weights.

        Raises:
            ForeignError: There is something at that place.
            LockedError: Somebody else is making it.
        """
        arrays: dict[str, np.ndarray] = {}
        for h, network in enumerate(base or ()):
            arrays |= {f"{h}/{name}": a for name, a in network.arrays().items()}
        return cls._make(
            folder, settings, lambda made: snapshot.write(made / "base", _BASE_KIND, arrays, {})
        )

    def _publication(self, variant: str) -> Publication:
        return Publication(self.folder / "published" / variant, self.settings.keep)

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
            self._write_settings(self.folder, settings)
        self.settings = settings

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
        return [read_json(self._day_file(name)) for name in chosen]

    def failures(self) -> dict[str, dict[str, Any]]:
        """Days that failed and are not done since: ``attempts`` and the last ``error``."""
        path = self.folder / "failures.json"
        found = read_json(path) if path.is_file() else {}
        return {d: entry for d, entry in found.items() if not self._day_file(day_of(d)).is_file()}

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
        say = progress or (lambda text, share: None)
        done: list[Mapping[str, Any]] = []
        failure: Exception | None = None
        with self._locked():
            self._clean()
            first = self._next(start, until)
            names = self.variants
            jobs = [_Variant(self, name) for name in names]

            def tell(plan: _Plan, number: int, h: int) -> None:
                share = (number * HORIZONS + h) / (len(names) * HORIZONS)
                say(f"{plan.day}: {names[number]}, horizon {h}", share)

            plans = self._plans(first, until, today, source, frozenset(skip), say)
            try:
                for plan in plans:
                    outcomes = dict(self._drive(plan, jobs, tell))
                    done.append(self._record(plan, outcomes))
                    say(f"{plan.day}: done", 1.0)
            except Exception as error:
                failure = error
                day = first + dt.timedelta(days=len(done))
                failure.add_note(f"This was about day {day} of the deployment.")
                self._count_failure(day, failure)
            last = first + dt.timedelta(days=len(done))
            waiting = last if failure is None and last <= until else None
            attention = [sentence for document in done for sentence in document["attention"]]
            problems = self.mirror()  # also what days before one that failed have published
        if failure is not None and not catch:
            for sentence in problems:
                failure.add_note(f"Also {sentence}.")
            raise failure
        return Outcome(tuple(done), waiting, (*attention, *problems), failure)

    def table(self) -> Samples:
        """One row for each day with data, variant and horizon, see ``record.table``."""
        return record.table(self.days())

    # one day

    def _next(self, start: dt.date | None, until: dt.date) -> dt.date:
        """The first day that is not done."""
        names = self._done()
        self.days(last=0)  # without gaps
        if not names:
            day = until if start is None else start
            if day > until:
                raise SettingError(f"start={start} lies after the last day to do, {until}")
            return day
        day = names[-1] + dt.timedelta(days=1)
        if start is not None and start > day:
            raise SettingError(
                f"start={start} leaves out days from {day} on; the last day done is "
                f"{names[-1]}, and days follow one another"
            )
        return day

    def _plans(
        self,
        first: dt.date,
        until: dt.date,
        today: dt.date,
        source: Source,
        skipped: frozenset[dt.date],
        say: Callable[[str, float], None],
    ) -> Iterator[_Plan]:
        """What each day consists of; ends at one that has to wait for its data."""
        day = first
        while day <= until:
            say(f"{day}: reading", 0.0)
            plan = self._planned(day, source, skipped) or self._read(day, source, today, skipped)
            if plan is None:
                return
            if plan.data:
                write_json(self.folder / "plan.json", plan.document())
            yield plan
            day += dt.timedelta(days=1)

    def _record(self, plan: _Plan, outcomes: Mapping[str, VariantOutcome]) -> dict[str, Any]:
        """Write down what a day came to, after which it is done."""
        attention = list(plan.attention)
        variants = {}
        for name, outcome in outcomes.items():
            rows = [one.record for one in outcome.done]
            where = f"{plan.day}, {name}, horizon"
            attention += [
                f"{where} {row['horizon']}: the gate refused a network: {row['refused']}"
                for row in rows
                if row["refused"] is not None
            ]
            attention += [
                f"{where} {row['horizon']}: no sample in the data"
                for row in rows
                if not row["offered"]
            ]
            variants[name] = {
                "rows": rows,
                "model": rows[0]["model"],
                "published": outcome.published,
                "regressed": outcome.regressed,
                "rolled_back": outcome.rolled_back,
            }
            attention += outcome.attention
        document = {**plan.document(), "variants": variants, "attention": attention}
        with storage_errors("record the day", self.folder):
            (self.folder / "days").mkdir(exist_ok=True)
            write_json(self._day_file(plan.day), document)
        self._keep(self.failures())
        return document

    def _planned(self, day: dt.date, source: Source, skipped: frozenset[dt.date]) -> _Plan | None:
        """The data of a day that was begun: the same again, whatever has turned up since."""
        path = self.folder / "plan.json"
        plan: Any = read_json(path) if path.is_file() else {"day": None}
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
        told = plan.get("status", "done"), plan.get("note", "")
        return _Plan(day, *told, data, tuple(plan.get("attention", ())))

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
        return _Plan(day, status, note, data, tuple(attention))

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

    # folders

    @property
    def base(self) -> tuple[Network | None, ...]:
        """The networks that trainings start from; None for random weights."""
        if self._base is None:
            arrays = snapshot.read(self.folder / "base", _BASE_KIND).arrays
            found = [snapshot.with_prefix(arrays, f"{h}/") for h in range(HORIZONS)]
            self._base = tuple(Network.of_arrays(one) if one else None for one in found)
        return self._base

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
        super()._clean()
        self._keep(self.failures())

    def _count_failure(self, day: dt.date, failure: Exception) -> None:
        try:
            failures = self.failures()
            attempts = failures.get(str(day), {}).get("attempts", 0) + 1
            error = f"{type(failure).__name__}: {failure}"
            self._keep({**failures, str(day): {"attempts": attempts, "error": error}})
        except MementoError as error:  # must not hide what is counted
            failure.add_note(f"It is not counted: {error}.")

    def _keep(self, failures: Mapping[str, Any]) -> None:
        """Write down days that failed; those that are done since are forgotten."""
        if failures:
            write_json(self.folder / "failures.json", failures)
        else:
            (self.folder / "failures.json").unlink(missing_ok=True)
