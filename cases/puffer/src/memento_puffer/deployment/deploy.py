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

``memento.loop.run`` is not used here: it advances one memory and replaces its model at once, while
here five have to agree on one publication, a gate may refuse what was trained, days may be missing,
and what serves may have been rolled back by a person since yesterday. The parts are the same:
`Memory`, `OnCoverage`, ``snapshot``, `Training`.

Source: the Memento paper, section 5, and the failures that its deployment had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import math
import shutil
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.days import day_of
from memento.density import batch_densities
from memento.errors import (
    DamagedError,
    ForeignError,
    InputError,
    MementoError,
    ModelError,
    SettingError,
    StorageError,
)
from memento.files import Lock, atomic_write, local_path, storage_errors
from memento.memory import Memory
from memento.retrain import Situation
from memento.samples import Samples
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.data.schema import Day, range_of
from memento_puffer.deployment.deploy_settings import (
    METRIC,
    DeploymentSettings,
    Gate,
    Variant,
    is_of,
)
from memento_puffer.deployment.publish import (
    Publication,
    Version,
    digest_of,
    is_sound,
    mirror_to_git,
)
from memento_puffer.predictor.network import INPUTS, Network
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp import Ttp
from memento_puffer.predictor.ttp_training import Training, TtpLearner

__all__ = [
    "DayFolders",
    "Deployment",
    "Outcome",
    "check_candidate",
    "check_predictions",
]

_KIND = "memento-puffer-deployment"
_BASE_KIND = "memento-puffer-base"
_TRAINING_KIND = "memento-puffer-training"
_FORMAT = "memento-puffer-deployment"
_ROWS_CHECKED = 2048
_ROWS_SCORED = 20_000
_PAST_TIMES = slice(6, 56, 7)  # of the inputs: transmission times of past chunks

Source = Callable[[dt.date], Features | None]


# --- the parts of a day ----------------------------------------------------------------------


class DayFolders:
    """Features of the days below a folder.

    A day is a folder named 2022-09-19 or 2022-09-19T11_2022-09-20T11, as Puffer publishes it.

    Args:
        root: Folder of days.
        cc: See ``Features.of_day``.

    Raises:
        StorageError: No such folder.
    """

    def __init__(self, root: str | Path, cc: str | None = None) -> None:
        self.root = local_path(root, "the folder")
        self.cc = cc
        if not self.root.is_dir():
            raise StorageError(f"{self.root}: no such folder; name the one that holds the days")

    def __call__(self, day: dt.date) -> Features | None:
        """Features of a day; None if it is not there, or not complete.

        Raises:
            SchemaError, DamagedError, StorageError: As ``Features.of_day``.
        """
        name = day.isoformat()
        for folder in (self.root / name, self.root / range_of(name)):
            if folder.is_dir() and any(folder.iterdir()):
                found = Day(folder, name)
                if "video_sent" in found.files and "video_acked" in found.files:
                    return Features.of_day(found, cc=self.cc)
        return None


def check_predictions(samples: Mapping[str, np.ndarray], network: Network) -> None:
    """Refuse samples whose predictions are not those of a network.

    A memory that compares predictions of different models, or of none that serves, selects by
    nothing; in the first deployment that went unnoticed for months.

    Args:
        samples: Columns ``x`` and ``yhat``; up to 2,048 rows of them, evenly spread, are predicted
            again in float64. They may differ by what single precision can make of these inputs and
            weights, see ``Network.rounding``.
        network: What serves.

    Raises:
        ModelError: Predictions are missing or differ.

    Example:
        >>> network = Network.fresh(seed=0)
        >>> x = np.random.default_rng(0).normal(size=(9, 62))
        >>> check_predictions({"x": x, "yhat": network.probabilities(x)}, network)
    """
    if "yhat" not in samples:
        raise ModelError("samples are held without predictions; attach the model after loading")
    size = len(samples["x"])
    if not size:
        return
    rows = np.unique(np.linspace(0, size - 1, min(size, _ROWS_CHECKED)).astype(np.int64))
    off, within = _differences(samples, network, rows)
    if not (off <= within).all():
        raise ModelError(
            f"predictions that are held differ by up to {off.max():.3g} from those of the model "
            "that serves, so nothing is inserted; attach the model after loading the memory"
        )


def _differences(
    samples: Mapping[str, np.ndarray], network: Network, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` how far predictions are from those of the network, and how far they may be."""
    x = samples["x"][rows]
    again = network.astype(np.float64).probabilities(x)
    off = np.abs(again - samples["yhat"][rows]).max(axis=1)
    return off, network.astype(np.float32).rounding(x)


def check_candidate(
    candidate: Network,
    references: Sequence[Network],
    x: np.ndarray,
    y_bin: np.ndarray,
    gate: Gate,
) -> tuple[str | None, dict[str, float]]:
    """Hold a network against those that serve, or served, on samples that none was trained on.

    Args:
        candidate: What was trained.
        references: The best of them counts; without any, guessing is what has to be beaten.
        x: (n, 62) inputs.
        y_bin: (n,) classes.
        gate: Margins.

    Returns:
        Why it is refused, or None; and ``loss`` and ``tail`` of the candidate and of the best
        reference (``reference_loss``, ``reference_tail``), in nats, NaN without samples.
    """
    nothing = dict.fromkeys(("loss", "tail", "reference_loss", "reference_tail"), math.nan)
    chances = candidate.probabilities(x)
    whole = np.isfinite(chances).all() and np.allclose(chances.sum(axis=1), 1, atol=1e-3)
    # What the publication would refuse is refused here, before anything counts as trained.
    if not whole or not is_sound(candidate):
        return "its predictions are no distributions", nothing
    if not len(x):
        return None, nothing
    loss, tail = _losses(candidate, x, y_bin)
    found = [_losses(reference, x, y_bin) for reference in references]
    best_loss = min((one for one, _ in found), default=math.log(CLASSES))
    best_tail = min((two for _, two in found), default=math.inf)
    facts = {"loss": loss, "tail": tail, "reference_loss": best_loss, "reference_tail": best_tail}
    if not loss <= best_loss + gate.loss:
        return f"its mean loss is {loss:.3f} nats, that of the reference {best_loss:.3f}", facts
    if not tail <= best_tail + gate.tail:
        return f"its tail loss is {tail:.3f} nats, that of the reference {best_tail:.3f}", facts
    return None, facts


def _losses(network: Network, x: np.ndarray, y_bin: np.ndarray) -> tuple[float, float]:
    """Mean and 99th percentile of the loss, in nats."""
    chances = network.probabilities(x)[np.arange(len(x)), y_bin]
    losses = -np.log(np.maximum(chances.astype(np.float64), 1e-30))
    return float(losses.mean()), float(np.quantile(losses, 0.99))


@dataclass(frozen=True)
class _State:
    """What a horizon has to remember besides its memory; every value of its own type."""

    day: dt.date
    unit: int
    trained: dt.date | None
    trained_unit: int | None
    seen_at: int
    streak: int
    metric: Mapping[str, Any]
    row: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        found["day"] = self.day.isoformat()
        found["trained"] = None if self.trained is None else self.trained.isoformat()
        return found

    @classmethod
    def of_document(cls, document: Any, where: Path) -> _State:
        """Raises DamagedError, with the field, where a value is missing or of another type."""
        kinds = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for name in kinds:
            if not isinstance(document, Mapping) or name not in document:
                raise DamagedError(f"{where}: the state lacks {name!r}; restore it from a copy")
            value = document[name]
            if name in ("day", "trained") and isinstance(value, str):
                value = day_of(value, f"{where}: {name}", DamagedError)
            if not is_of(kinds[name], value):
                raise DamagedError(
                    f"{where}: the state's {name!r} is {value!r}; restore the folder from a copy"
                )
            values[name] = value
        if (values["trained"] is None) != (values["trained_unit"] is None):
            raise DamagedError(f"{where}: 'trained' and 'trained_unit' contradict each other")
        return cls(**values)


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
class _Done:
    """What a horizon's step came to."""

    row: dict[str, Any]
    candidate: Network | None


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
            source: Features of a data day; None if there is no data. `DayFolders` is one.
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
        """One row for each day with data, variant and horizon, as ``record.read_record``.

        Returns:
            variant, horizon, day (datetime64[D]), retrained, coverage_increase,
            total_coverage_increase, total_coverage (NaN where not known); and beyond a published
            record: threshold, noise, p_value, refused, offered, kept, held, loss, tail (of what
            served, on the day's data), model (what served when it was decided; "" if nothing did),
            metric (epoch).
        """
        rows = [
            row
            for document in self.days()
            for variant in document["variants"].values()
            for row in variant["rows"]
        ]
        numbers = (
            *("coverage_increase", "total_coverage_increase", "total_coverage"),
            *("threshold", "noise", "p_value", "loss", "tail"),
        )
        columns: dict[str, Any] = {
            "variant": np.array([row["variant"] for row in rows], str),
            "horizon": np.array([row["horizon"] for row in rows], np.int64),
            "day": np.array([row["day"] for row in rows], "datetime64[D]"),
            "retrained": np.array([row["retrained"] for row in rows], bool),
        }
        for name in numbers:
            columns[name] = np.array(
                [math.nan if row[name] is None else row[name] for row in rows], np.float64
            )
        for name in ("offered", "kept", "held", "metric"):
            columns[name] = np.array([row[name] for row in rows], np.int64)
        columns["refused"] = np.array([row["refused"] is not None for row in rows], bool)
        columns["model"] = np.array([row["model"] or "" for row in rows], str)
        return Samples(columns)

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
                done = []
                models = self._models(name)
                attention += [f"{day}, {name}: {sentence}" for sentence in models.attention]
                for h in range(HORIZONS):
                    tell(f"{day}: {name}, horizon {h}", (number * HORIZONS + h) / steps)
                    done.append(self._step(name, h, day, plan.data, models))
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
        for name in self.settings.variants:
            folder = self.folder / "variants" / name / "0"  # the first of its horizons
            if snapshot.exists(folder):
                found = snapshot.read(folder, _KIND, verify=False)
                if _State.of_document(found.documents.get("state"), folder).day >= day:
                    return True
        return False

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
                older = before.networks()
        except DamagedError as error:  # it does not serve, so that the day can do without
            attention = (f"what served before cannot be compared with: {error}",)
        return _Models(
            None if serving is None else serving.name,
            self.base if serving is None else serving.networks(),
            older,
            attention,
        )

    def _step(
        self,
        name: str,
        h: int,
        day: dt.date,
        data: Mapping[dt.date, Features],
        models: _Models,
    ) -> _Done:
        """One horizon of one variant: insert, decide, train, and keep all that at once."""
        settings, variant = self.settings, self.settings.variants[name]
        folder = self.folder / "variants" / name / str(h)
        memory, state, arrays = self._load(folder, variant, h)
        pending = snapshot.with_prefix(arrays, "candidate/")
        if state is not None and state.day == day:
            shutil.rmtree(self._training_folder(name, h), ignore_errors=True)
            return _Done(dict(state.row), Network.of_arrays(pending) if pending else None)
        if state is not None and state.day > day:
            raise DamagedError(f"{folder} is at {state.day}, after {day}; restore it from a copy")
        current, older = models.networks[h], models.older[h]
        learner = TtpLearner(self.base[h], settings.training)
        if current is not None:
            learner.restore(current.astype(settings.training.dtype).arrays())
            _attach(memory, learner, current, folder)
        offered = kept = dropped = 0
        held_out = [snapshot.with_prefix(arrays, "gate/")]
        inserts = memory.inserts
        for data_day, features in data.items():
            seed = [settings.seed, h, data_day.toordinal()]
            for columns, apart, lost in _pieces(features, h, data_day, settings, seed):
                dropped += lost
                held_out.append(apart)
                if len(columns["y"]):
                    if learner.trained:
                        columns["yhat"] = learner.annotate({"x": columns["x"]})["yhat"]
                    report = memory.insert(columns)
                    offered += report.offered
        kept = int(np.count_nonzero(memory.arrivals > inserts))
        scores = _scores(data[max(data)], h, settings, [current, older])
        recent = _recent(held_out, settings.gate.days)
        unit = 0 if state is None else state.unit + 1
        rng = np.random.default_rng([settings.seed, h, day.toordinal(), 1])
        first = memory.reference is None
        decision = variant.trigger.decide(
            Situation(
                memory,
                unit,
                None if first or state is None else state.trained_unit,
                0 if state is None else state.seen_at,
            ),
            rng,
        )
        if not len(memory):
            decision = dataclasses.replace(
                decision, due=False, reason="the memory is empty", value=0.0
            )
        streak = (0 if state is None else state.streak) + 1 if decision.due else 0
        rested = (
            state is None or state.trained is None or (day - state.trained).days >= variant.rest
        )
        due = bool(len(memory)) and (first or (streak >= variant.confirm and rested))
        candidate: Network | None = None
        refused: str | None = None
        facts: dict[str, float] = {}
        if due:
            references = [network for network in (current, older) if network is not None]
            try:
                candidate = self._train(name, h, variant, memory, current)
                refused, facts = check_candidate(
                    candidate, references, recent["x"], recent["y_bin"], settings.gate
                )
            except (InputError, ModelError) as error:  # it would fail in the same way again
                refused = f"the training failed: {error}"
            if refused is not None:
                candidate = None
        retrained = candidate is not None
        if retrained:
            memory.mark_trained()
            streak = 0
        increase, total = float(decision.value), 0.0
        if len(memory):
            increase = 1.0 if first else increase
            total = float(batch_densities(memory.samples, variant.space)[1].sum())
        row = {
            "variant": name,
            "horizon": h,
            "day": day.isoformat(),
            "offered": offered,
            "kept": kept,
            "held": len(memory),
            "dropped": dropped,
            "retrained": retrained,
            "refused": refused,
            "reason": decision.reason,
            "streak": streak,
            "coverage_increase": increase,
            "total_coverage": total,
            "total_coverage_increase": increase * total,
            **{n: getattr(decision, n) for n in ("threshold", "noise", "p_value")},
            **scores,
            **{f"gate_{n}": facts.get(n, math.nan) for n in _GATE},
            "model": models.name,
            "model_digest": None if current is None else digest_of(current),
            "candidate": None if candidate is None else digest_of(candidate),
            "metric": settings.metric,
        }
        row = {name: _without_nan(value) for name, value in row.items()}
        state = _State(
            day=day,
            unit=unit,
            trained=day if retrained else (state.trained if state else None),
            trained_unit=unit if retrained else (state.trained_unit if state else None),
            seen_at=memory.seen if retrained else (state.seen_at if state else 0),
            streak=streak,
            metric=variant.metric(settings.metric),
            row=row,
        )
        found, documents = memory.dump()
        arrays = {f"memory/{n}": array for n, array in found.items()}
        if candidate is not None:
            arrays |= {f"candidate/{n}": array for n, array in candidate.arrays().items()}
        elif pending and models.name is None:  # it still waits for the other horizons
            arrays |= {f"candidate/{n}": array for n, array in pending.items()}
            candidate = Network.of_arrays(pending)
        arrays |= {f"gate/{n}": array for n, array in recent.items()}
        texts = {f"memory/{n}": text for n, text in documents.items()}
        with storage_errors("save the state", folder):
            folder.mkdir(parents=True, exist_ok=True)
        snapshot.write(folder, _KIND, arrays, {**texts, "state": state.document()})
        shutil.rmtree(self._training_folder(name, h), ignore_errors=True)
        return _Done(row, candidate)

    def _load(
        self, folder: Path, variant: Variant, h: int
    ) -> tuple[Memory, _State | None, dict[str, np.ndarray]]:
        """Memory, state and the other arrays of a horizon; new ones on its first day."""
        settings = self.settings
        if not snapshot.exists(folder):
            seed = np.random.default_rng([settings.seed, h])
            return Memory(settings.capacity, variant.policy, seed), None, {}
        found = snapshot.read(folder, _KIND)
        state = _State.of_document(found.documents.get("state"), folder)
        arrays, documents = dict(found.arrays), dict(found.documents)
        metric = variant.metric(settings.metric)
        contents = dict(documents["memory/memory"])
        if state.metric != metric:
            if not settings.metric > state.metric["epoch"]:
                raise ForeignError(
                    f"{folder}: coverage was measured in another way up to {state.day} (code "
                    f"{state.metric['code']}, now {METRIC}); raise the setting metric, which "
                    "resets the reference and trains"
                )
            # What follows is not to be compared with what was before: everything is new.
            arrays = {n: a for n, a in arrays.items() if not n.startswith("memory/reference/")}
            contents["trained"] = False
            state = dataclasses.replace(state, trained=None, trained_unit=None, streak=0)
        contents["capacity"] = settings.capacity
        documents["memory/memory"] = contents
        documents["memory/policy"] = variant.policy.settings()
        memory = Memory.restore(
            snapshot.with_prefix(arrays, "memory/"),
            snapshot.with_prefix(documents, "memory/"),
            None,
        )
        return memory, state, arrays

    def _train(
        self, name: str, h: int, variant: Variant, memory: Memory, current: Network | None
    ) -> Network:
        """Train on all that is held; a training that was interrupted goes on."""
        settings = self.settings
        start = {"base": self.base[h], "last": current, "scratch": None}[settings.training.start]
        weights = memory.weights if variant.weighted else None
        samples = memory.samples
        training = Training(start, samples["x"], samples["y_bin"], weights, settings.training)
        folder = self._training_folder(name, h)
        if snapshot.exists(folder):
            try:
                training.restore(snapshot.read(folder, _TRAINING_KIND).arrays)
            except (ModelError, StorageError):
                shutil.rmtree(folder)  # of another day
        saved = time.monotonic()
        while not training.done:
            training.epoch()
            if time.monotonic() - saved >= settings.checkpoint_seconds:
                snapshot.write(folder, _TRAINING_KIND, training.state(), {})
                saved = time.monotonic()
        return training.network

    def _finish(self, name: str, day: dt.date, done: Sequence[_Done]) -> dict[str, Any]:
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
            others = self.base if serving is None else serving.networks()
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

    def _training_folder(self, name: str, h: int) -> Path:
        return self.folder / "training" / f"{name}-{h}"

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
        problems = []
        for name in settings.variants if settings.git is not None else ():
            try:
                version = self.publication(name).current()
                if version is not None:
                    mirror_to_git(
                        version,
                        str(settings.git),
                        f"{settings.git_folder}/{name}",
                        remote=settings.git_remote,
                    )
            except Exception as error:  # of whatever kind: what was done is done
                problems.append(f"{name}: not published to git: {error}")
        return problems


_REGRESSED = "what serves predicts worse than what served before"
_GATE = ("loss", "tail", "reference_loss", "reference_tail")


def _attach(memory: Memory, learner: TtpLearner, network: Network, where: Path) -> None:
    """Make all predictions held those of a network, and see that they are.

    Predictions on disk are those of the model that served when they were made, so never trusted:
    if it is the same model, they have to agree; in any case they are made again.
    """
    name = digest_of(network)
    for samples, annotate in (
        (memory.samples, memory.annotate),
        (memory.reference, memory.annotate_reference),
    ):
        if samples is None or not samples.size:
            continue
        if memory.model == name and "yhat" in samples:
            off, within = _differences(samples, network, np.arange(samples.size))
            if not (off <= within).all():
                raise DamagedError(
                    f"{where}: predictions that were stored differ by up to {off.max():.3g} from "
                    "those of the model they name; restore the folder from a copy"
                )
        annotate(yhat=learner.annotate({"x": samples["x"]})["yhat"])
    memory.model = name
    for samples in (memory.samples, memory.reference):
        if samples is not None and samples.size:
            check_predictions(samples, network)


def _pieces(
    features: Features,
    h: int,
    day: dt.date,
    settings: DeploymentSettings,
    seed: Sequence[int],
) -> Iterable[tuple[dict[str, Any], dict[str, np.ndarray], int]]:
    """A day's samples in pieces of bounded size: to insert, held out, and how many were dropped."""
    _, targets = features.samples(h)
    streams = features.stream[targets]
    apart = _held_out(streams, settings.gate, np.random.default_rng(list(seed)))
    for begin in range(0, len(targets), settings.insert_rows):
        take = np.arange(begin, min(begin + settings.insert_rows, len(targets)))
        columns = features.columns(h, take, sentinels=settings.training.sentinels)
        lost = len(take) - len(columns["y"])
        out = np.isin(columns["stream"], apart)
        x, y = columns["x"], columns["y"]
        sane = (y <= settings.longest) & (x[:, _PAST_TIMES] <= settings.longest).all(axis=1)
        lost += int(np.count_nonzero(~sane))
        stay, out = sane & ~out, sane & out
        number = (day - dt.date(1970, 1, 1)).days
        fresh = {
            **{name: columns[name][stay] for name in ("x", "y", "y_bin", "time")},
            "day": np.full(int(stay.sum()), number, np.int32),
        }
        gate = {
            **{name: columns[name][out] for name in ("x", "y_bin")},
            "day": np.full(int(out.sum()), number, np.int32),
        }
        yield fresh, gate, lost


def _held_out(streams: np.ndarray, gate: Gate, rng: np.random.Generator) -> np.ndarray:
    """Streams that no memory gets: whole ones, because the chunks of a stream are alike."""
    names, counts = np.unique(streams, return_counts=True)
    if len(names) < 2:
        return names[:0]
    wanted = min(gate.held_out * len(streams), gate.samples)
    order = rng.permutation(len(names))
    count = int(np.searchsorted(np.cumsum(counts[order]), wanted)) + 1
    return names[order[: min(count, len(names) // 2)]]


def _recent(parts: Sequence[Mapping[str, np.ndarray]], days: int) -> dict[str, np.ndarray]:
    """Held-out samples of the last days."""
    present = [part for part in parts if part]
    if not present:
        return {"x": np.empty((0, INPUTS)), "y_bin": np.empty(0, int), "day": np.empty(0, int)}
    joined = {n: np.concatenate([part[n] for part in present]) for n in ("x", "y_bin", "day")}
    last = np.unique(joined["day"])[-days:]
    stay = np.isin(joined["day"], last)
    return {name: column[stay] for name, column in joined.items()}


def _scores(
    features: Features,
    h: int,
    settings: DeploymentSettings,
    networks: Sequence[Network | None],
) -> dict[str, float]:
    """Losses of what serves, and of what served before, on samples that came after both."""
    count = len(features.samples(h)[0])
    take = np.unique(np.linspace(0, count - 1, min(count, _ROWS_SCORED)).astype(np.int64))
    found: dict[str, float] = {}
    columns = features.columns(h, take, sentinels="clamp")
    sane = columns["y"] <= settings.longest
    x, y_bin = columns["x"][sane], columns["y_bin"][sane]
    for prefix, network in zip(("", "previous_"), networks, strict=True):
        loss, tail = math.nan, math.nan
        if network is not None and len(x):
            loss, tail = _losses(network.astype(settings.training.dtype), x, y_bin)
        found |= {f"{prefix}loss": loss, f"{prefix}tail": tail}
    return found


def _without_nan(value: Any) -> Any:
    """JSON knows no number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
