"""Replays of the daily loop: which samples are kept, when a model is trained, how good it is.

Day t is inserted, coverage is compared with the last training's, a training follows or not, and the
model is judged on all samples of day t + 1, beside others on the same samples: the static one that
all trainings start from, the one that Puffer published that day, and, of an ensemble, its oracle
and its matchmaker. The loop is `memento.loop.run`; what is here declares who judges and what is
noted. A folder keeps it all, and a replay that was stopped goes on from there exactly.

Source: the Memento paper, sections 5 and 6, and its artefact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from memento.density import cross_density
from memento.errors import DamagedError, ForeignError, SettingError
from memento.files import Lock, atomic_write, storage_errors
from memento.group import Group
from memento.learner import Learner, digest_of_state
from memento.loop import Moment, Step, read_steps, run
from memento.memory import Memory
from memento.policies import QueryByCommittee
from memento.samples import Samples
from memento.study.runs import difference
from memento.training import Calibrated, Ensemble, JustTrainTwice
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.training_sets import learner_for
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.studies.days import (
    Days,
    LazyDay,
    Published,
    columns_of,
    extra_columns,
    features_from,
)
from memento_puffer.studies.records import evaluated, spread, tables_of
from memento_puffer.studies.replay_settings import ReplaySettings

__all__ = ["Replay"]

Progress = Callable[[int, int, str], None]

_FORMAT = "memento-replay-2"


class Replay:
    """One memory and one learner over many days.

    Args:
        folder: Receives the state and the record of each day; a replay goes on from what is there.
        settings: What is replayed.
        days: Name -> features, or where these are stored, or a function that gives them; in order.
            Days without chunks are no days.
        base: The static model: trainings start from it (see ``settings.training.start``), and it is
            judged on every day. None: random weights, and no static model.
        published: From a day's name to the model that was published for it, or None.

    Raises:
        SettingError: No days, or a policy that needs a base without one.

    Example:
        >>> import tempfile
        >>> import polars as pl
        >>> from memento_puffer.data.features import STEP, Features
        >>> rng = np.random.default_rng(0)
        >>> def day() -> Features:
        ...     n = 300
        ...     values = rng.uniform(1, 2, (n, 7))
        ...     sent = np.arange(n) * 2 * 10**9
        ...     acked = sent + (values[:, -1] * 1e9).astype(np.int64)
        ...     ts, streams = np.arange(n) * STEP, pl.DataFrame({"stream": [0]})
        ...     return Features(values, np.zeros(n, np.int32), ts, sent, acked, streams)
        >>> from memento_puffer.predictor.ttp_training import AFFORDABLE
        >>> from memento_puffer.studies.days import first_network
        >>> from memento_puffer.studies.replay_settings import arm
        >>> fast = replace(AFFORDABLE, epochs=2, scratch_epochs=2)
        >>> settings = arm("random", {"capacity": 200, "interval": 2, "training": {"epochs": 2}})
        >>> days = {f"2022-01-0{i}": day() for i in range(1, 5)}
        >>> base = first_network(day(), 0, fast)
        >>> steps = Replay(tempfile.mkdtemp(), settings, days, base).run()
        >>> [step.trained for step in steps], steps[1].evaluated_on
        ([False, True, False, True], '2022-01-03')
    """

    def __init__(
        self,
        folder: str | Path,
        settings: ReplaySettings,
        days: Days,
        base: Network | None = None,
        published: Published | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.settings = settings
        self.base = base
        self.published = published
        self._days = dict(days)
        if not self._days:
            raise SettingError("no days to replay; give at least one")
        self._extra = extra_columns(settings.policy)
        if base is None and ("z" in self._extra or settings.predict_first):
            raise SettingError(
                "this policy needs the static model from the first day on; give base"
            )

    def run(self, progress: Progress | None = None) -> list[Step]:
        """Replay all days that were not replayed yet.

        A process may be killed at any moment; the next call goes on after the last day that was
        complete, with the result of an undisturbed replay, byte for byte.

        Args:
            progress: Called after each day with the number of days done, of all, and its name.

        Returns:
            A step for each day, see `memento.loop.Step`.

        Raises:
            ForeignError: The folder is of a replay with other settings or another base.
            LockedError: Another process replays in this folder.
            InputError: A day cannot be used; a note names it.
        """
        with storage_errors("make the folder", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with Lock(self.folder / "lock"):
            self._claim()
            return self._run(progress)

    def _run(self, progress: Progress | None) -> list[Step]:
        """All steps of the loop, from the first or from where it stopped; their times are kept."""
        settings, seconds = self.settings, self._seconds()

        def on_step(step: Step) -> None:
            seconds[step.name] = {**seconds.get(step.name, {}), **step.seconds}
            with storage_errors("write the times", self.folder):
                atomic_write(self.folder / "times.json", (json.dumps(seconds) + "\n").encode())

        steps = []
        for step in run(
            self._stream(),
            Memory(settings.capacity, settings.policy, settings.seed),
            self._learner(),
            settings.decision,
            judge=self._judge,
            note=_composition,
            weighted=settings.weighted,
            freeze_after=settings.freeze_after,
            checkpoint=self.folder / "state",
            on_step=on_step,
            rng=np.random.default_rng([settings.seed, 1]),
        ):
            steps.append(replace(step, restored=False))
            if progress is not None:
                progress(len(steps), len(self._days), step.name)
        return steps

    def _learner(self) -> Learner:
        settings = self.settings
        training = replace(settings.training, seed=settings.training.seed + settings.seed)
        learner: Any = learner_for(settings.policy, self.base, training)
        if settings.predict_first and self.base is not None:
            learner.restore(self.base.arrays())
        if settings.jtt > 1:
            learner = JustTrainTwice(learner, settings.jtt)
        if settings.members > 1:
            asked = isinstance(settings.policy, QueryByCommittee)
            learner = Ensemble(learner, settings.members, committee="mean" if asked else "none")
        return cast(Learner, Calibrated(learner) if settings.calibrated else learner)

    def _stream(self) -> Iterator[tuple[str, LazyDay]]:
        """Names of days that have samples, with columns that are read when they are needed."""
        day: LazyDay | None = None
        number = 0
        for name, source in self._days.items():
            features = features_from(source)
            if not features.size:
                continue

            def read(features: Any = features, number: int = number) -> dict[str, np.ndarray]:
                horizon = self.settings.horizon
                return columns_of(features, horizon, number, extra=self._extra, base=self.base)

            day = LazyDay(read, day)
            yield name, day
            number += 1

    def _judge(self, moment: Moment) -> Mapping[str, float]:
        """Everything that is known of the next day; the headlines become the step's scores."""
        samples, learner = moment.samples, moment.learner
        if not samples.size:
            return {}
        predictors = {"own": samples["yhat"]}
        inner = learner.learner if isinstance(learner, Calibrated) else learner
        if isinstance(inner, Ensemble) and len(inner):
            plain = samples.without("committee")
            predictors["oracle"] = inner.oracle(plain)["yhat"]
            predictors["matched"] = inner.matched(plain)["yhat"]
        if self.base is not None:
            predictors["static"] = self.base.probabilities(samples["x"])
        if self.published is not None and (model := self.published(moment.name)) is not None:
            predictors["published"] = model.probabilities(samples["x"])
        found, headlines = evaluated(predictors, samples["y"])
        densities = self._densities(samples, moment.memory)
        moment.notes["evaluation"] = {**found, "densities": densities}
        return headlines

    def _densities(self, samples: Samples, memory: Memory | Group) -> dict[str, Any]:
        """How dense the memory is where a new day's batches are, and among its own."""
        found: dict[str, Any] = {}
        for size in self.settings.densities:
            space = replace(self.settings.space, batch_size=size)
            own, fresh = space.batches(memory.samples), space.batches(samples)
            if not len(own) or not len(fresh):
                continue
            found[str(size)] = {
                "memory": spread(space.field(own).density()),
                "day": spread(cross_density(space, fresh, own)),
            }
        return found

    def tables(self) -> dict[str, Samples]:
        """What was recorded so far, as tidy tables.

        Returns:
            steps: A row for each day: what came, was kept and decided, both coverage increases,
                headlines of the scores.
            scores: ``day`` (that was predicted), ``predictor``, ``variable`` (y in s; p; logscore
                in nats; err = actual - predicted in s, err_abs, err_sqr), ``metric`` (mean, std,
                rms, quantiles q0 to q1, count), ``value``. Rows with p = 0 are left out of p and
                logscore.
            classes: ``day``, ``predictor``, ``label``: ``count`` and mean errors of each true
                class.
            improvement: ``day``, ``predictor``, ``against``, ``tail``, ``median``, ``mean``: the
                difference of the log scores' quantiles and means, above 0 where better.
            memory: ``day`` after which, ``label``: ``held`` samples.
            ages: ``day`` after which, ``of``: ``held`` samples of that day.
            densities: ``day``, ``batch_size``, ``of`` (memory or day), ``metric``, ``value``.
            times: ``day``, ``what``, ``seconds``. The only ones that differ from run to run.

        Raises:
            ForeignError: The folder is of another replay.
        """
        if not (self.folder / "replay.json").is_file():
            raise ForeignError(f"{self.folder} holds no replay; call run() first")
        self._claim()
        state = self.folder / "state"
        return tables_of(read_steps(state) if state.is_dir() else [], self._seconds())

    def _claim(self) -> None:
        """Write what the folder is of, or check it."""
        base = None if self.base is None else digest_of_state(self.base.arrays())
        own = {"format": _FORMAT, "base": base, **self.settings.document()}
        own = json.loads(json.dumps(own))
        path = self.folder / "replay.json"
        if not path.is_file():
            names = (path.name for path in self.folder.iterdir())
            others = sorted(name for name in names if name != "lock" and name[0] != ".")
            if others:
                raise ForeignError(
                    f"{self.folder} holds {others[0]!r} and no replay; choose a new folder"
                )
            with storage_errors("write the settings", path):
                atomic_write(path, json.dumps(own, indent=1).encode())
            return
        there = {"calibrated": False, **_read_json(path, "remove the folder")}
        if there.get("format") != _FORMAT:
            raise ForeignError(
                f"{self.folder}: the replay there is of another version ({there.get('format')!r}), "
                "which cannot go on here; choose another folder, or remove it. Tables that were "
                "written stay as they are"
            )
        differs = difference(there, own)
        if differs is not None:
            name, found, value = differs
            known = f"has {name} {found!r}, not {value!r}"
            known = "starts from another static model" if name == "base" else known
            raise ForeignError(
                f"{self.folder}: the replay there {known}; use the same settings, or another folder"
            )

    def _seconds(self) -> dict[str, dict[str, float]]:
        """What the stages of each day took; the loop's checkpoint holds no times."""
        path = self.folder / "times.json"
        if not path.is_file():
            return {}
        return _read_json(path, "remove it")


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    with storage_errors("read", path):
        text = path.read_text()
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{path} is not readable ({error}); {remedy}") from error


def _composition(memory: Memory | Group) -> dict[str, Any]:
    """How many samples of each class and of each day a memory holds."""
    empty = np.empty(0, np.int64)
    labels, days = (memory.samples[n] if len(memory) else empty for n in ("y_bin", "day"))
    return {
        "classes": np.bincount(labels, minlength=CLASSES).tolist(),
        "ages": np.bincount(days).tolist(),
    }
