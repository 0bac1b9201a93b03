"""Search for a network's settings with Optuna, as in appendix C of the Memento paper.

Layers, units and the learning rate are searched by the tree-structured Parzen estimator (Bergstra
et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; Akiba et al., "Optuna", KDD
2019). A trial is judged by its mean loss over random splits of the samples of run 0, which is used
for nothing else, the same number from each setting.

Trials are written to a file of our own as they end. A search that was stopped goes on with the next
trial, and finds the same as one that was not: each trial draws from a seed of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from memento.arguments import Count, check_fields, number, require, whole
from memento.errors import (
    DamagedError,
    ForeignError,
    ModelError,
    SettingError,
    needs,
)
from memento.files import atomic_write, digest, storage_errors
from memento.samples import Samples
from memento.study import difference
from memento_datacenter.features import WINDOW
from memento_datacenter.models import NetworkSettings
from memento_datacenter.replay import evenly, samples_of
from memento_datacenter.scenarios import TASKS, Task
from memento_datacenter.schema import Runs
from memento_datacenter.simulate import SETTINGS

__all__ = ["Search", "Trial", "Tuned"]

_RUN = 0
_FORMAT = 1
_SEARCHED = ("layers", "units", "learning_rate")
_SPLITS = 7  # of streams of random numbers, so that splits and samples do not share one


@dataclass(frozen=True)
class Trial:
    """One choice of settings and what came of it.

    Attributes:
        number: From 0.
        layers: Of the network.
        units: Of each layer.
        learning_rate: Of the training.
        losses: Of the part left out, one for each split; empty if the training failed.
    """

    number: int
    layers: int
    units: int
    learning_rate: float
    losses: tuple[float, ...]

    @property
    def searched(self) -> dict[str, Any]:
        """What was chosen, as Optuna and `NetworkSettings` name it."""
        return {name: getattr(self, name) for name in _SEARCHED}

    @property
    def loss(self) -> float:
        """Their mean; infinite if the training failed."""
        return float(np.mean(self.losses)) if self.losses else math.inf


@dataclass(frozen=True)
class Tuned:
    """What a search found so far.

    Attributes:
        trials: In order.
        settings: Those of the best trial.
    """

    trials: tuple[Trial, ...]
    settings: NetworkSettings

    @property
    def best(self) -> Trial:
        """The trial with the least loss."""
        return min(self.trials, key=lambda trial: trial.loss)

    def table(self) -> Samples:
        """A row per trial: ``number``, ``layers``, ``units``, ``learning_rate``, ``loss``."""
        names = ("number", *_SEARCHED, "loss")
        return Samples({n: [getattr(trial, n) for trial in self.trials] for n in names})


@dataclass(frozen=True)
class Search:
    """A search space and how trials are judged.

    Args:
        task: "classification" or "regression".
        base: What is not searched, such as epochs; by default those of `models`.
        layers: Least and most.
        units: Least and most.
        learning_rate: Least and most; searched by its logarithm.
        splits: Random splits that a trial is judged on, at least 1.
        held_out: Share of the samples that a split judges on, in (0, 1).
        samples: From each setting, evenly over its run 0; fewer if there are not so many.
        settings: Of which runs; all by default.
        window: Packets that a sample sees.
        seed: Of splits, trials and networks.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> Search("classification", samples=500).learning_rate
        (1e-07, 1.0)
    """

    task: Task
    base: NetworkSettings | None = None
    layers: tuple[int, int] = (3, 10)
    units: tuple[int, int] = (128, 512)
    learning_rate: tuple[float, float] = (1e-7, 1.0)
    splits: Count = 5
    held_out: Annotated[float, number(1e-9, 1 - 1e-9, words="a share between 0 and 1")] = 0.2
    samples: Annotated[int, whole(10)] = 2000
    settings: tuple[str, ...] = SETTINGS
    window: Annotated[int, whole(2)] = WINDOW
    seed: Annotated[int, whole(0)] = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name, above in zip(_SEARCHED, (1, 1, 1e-300), strict=True):
            low, high = getattr(self, name)
            if not above <= low <= high < math.inf:
                raise SettingError(f"{name} from {low} to {high}; give a range above 0")
        if not self.settings:
            raise SettingError("no settings; give at least one")
        for setting in self.settings:
            if setting not in SETTINGS:
                raise SettingError(f"setting {setting!r}; give some of {', '.join(SETTINGS)}")
            if self.settings.count(setting) > 1:
                raise SettingError(f"setting {setting!r} is named twice; name it once")

    def run(
        self,
        runs: str | Path,
        folder: str | Path,
        trials: int = 100,
        *,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Tuned:
        """Search, or go on with a search.

        Args:
            runs: Folder of simulated runs.
            folder: For trials; those of an earlier call count.
            trials: How many there are to be in the end.
            progress: Called with (done, total, the last loss) at the beginning and after each.

        Raises:
            MissingExtraError: Optuna is not installed.
            ForeignError: The folder holds trials of another search.
            DamagedError: Its file is cut off, or differs from its digest.
            ModelError: No trial could be trained.
            SettingError: No trial is asked for.
            StorageError: A run is missing, or the folder cannot be written to.
        """
        optuna = _optuna()
        require("trials", trials, whole())
        path = Path(folder) / f"{self.task}.json"
        samples, about = self._samples(Runs(runs))
        done = self._read(path, about)[:trials]
        if progress is not None:
            progress(len(done), trials, "")
        while len(done) < trials:
            # Optuna is told all trials anew, and draws from the seed and the number alone: so a
            # search that goes on is the same as one that was never stopped.
            drawn = np.random.default_rng([self.seed, len(done)]).integers(2**31)
            study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=int(drawn)))
            study.add_trials([self._recorded(optuna, trial) for trial in done])
            asked = study.ask(self._space(optuna))
            trial = self._judged(len(done), asked.params, samples)
            done.append(trial)
            self._write(path, about, done)
            if progress is not None:
                progress(len(done), trials, f"loss {trial.loss:.4g}")
        best = min(done, key=lambda trial: trial.loss)
        if not best.losses:
            raise ModelError(
                f"none of {len(done)} trials could be trained; lower learning_rate, or look for "
                "extreme inputs"
            )
        return Tuned(tuple(done), self._network(best))

    def _samples(self, runs: Runs) -> tuple[Samples, dict[str, Any]]:
        """The same number from each setting, and what the search is of."""
        parts, made = [], []
        runs.require((setting, _RUN) for setting in self.settings)
        for setting in self.settings:
            run = runs.read(setting, _RUN)
            made.append(run.digest)
            parts.append(evenly(samples_of([run], self.task, self.window), self.samples))
        least = min(part.size for part in parts)
        if least < 2:
            raise SettingError(
                f"{least} samples in a run; give a shorter window, or simulate longer runs"
            )
        about = {
            "search": json.loads(json.dumps(dataclasses.asdict(self))),
            "runs": digest("".join(made).encode()),
        }
        # Evenly again: the first ones of a longer run are its beginning.
        return Samples.concat([evenly(part, least) for part in parts]), about

    def _judged(self, number: int, chosen: Mapping[str, Any], samples: Samples) -> Trial:
        """Train on each split; the loss is the cross-entropy, or the squared error [s^2]."""
        from memento_datacenter.learner import WindowLearner  # loads PyTorch

        trial = Trial(
            number, int(chosen["layers"]), int(chosen["units"]), float(chosen["learning_rate"]), ()
        )
        losses = []
        for split in range(self.splits):
            # The same splits for all trials.
            rng = np.random.default_rng([self.seed, _SPLITS, split])
            order = rng.permutation(samples.size)
            count = min(max(1, round(self.held_out * samples.size)), samples.size - 2)
            learner = WindowLearner(self.task, self._network(trial), seed=self.seed + split)
            try:
                learner.fit(samples.take(np.sort(order[count:])))
                loss = learner.annotate(samples.take(np.sort(order[:count])))["loss"]
            except ModelError:  # a learning rate so large that weights are no numbers any more
                return trial
            loss = loss**2 if self.task == "regression" else loss
            mean = float(np.mean(loss, dtype=np.float64))
            if not math.isfinite(mean):
                return trial
            losses.append(mean)
        return dataclasses.replace(trial, losses=tuple(losses))

    def _network(self, trial: Trial) -> NetworkSettings:
        base = self.base if self.base is not None else TASKS[self.task]
        return dataclasses.replace(base, **trial.searched)

    def _space(self, optuna: Any) -> dict[str, Any]:
        kinds = optuna.distributions
        return {
            "layers": kinds.IntDistribution(*self.layers),
            "units": kinds.IntDistribution(*self.units),
            "learning_rate": kinds.FloatDistribution(*self.learning_rate, log=True),
        }

    def _recorded(self, optuna: Any, trial: Trial) -> Any:
        """A trial as Optuna knows it; one that failed counts as worse than all others."""
        states = optuna.trial.TrialState
        return optuna.trial.create_trial(
            state=states.COMPLETE if trial.losses else states.PRUNED,
            value=trial.loss if trial.losses else None,
            params=trial.searched,
            distributions=self._space(optuna),
        )

    @staticmethod
    def _write(path: Path, about: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        document: dict[str, Any] = {"format": _FORMAT, "about": about}
        document["trials"] = [dataclasses.asdict(trial) for trial in trials]
        document["digest"] = digest(json.dumps(document, sort_keys=True).encode())
        with storage_errors("write trials", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps(document, indent=1).encode())

    @staticmethod
    def _read(path: Path, about: Mapping[str, Any]) -> list[Trial]:
        """Trials that a file holds, none where there is no file.

        Raises:
            DamagedError: It is cut off, or its content differs from its digest.
            ForeignError: It is of another version, or its trials were made in another way.
        """
        if not path.exists():
            return []
        with storage_errors("read trials", path):
            text = path.read_bytes()
        document: Any = None
        with contextlib.suppress(ValueError):
            document = json.loads(text)
        if not isinstance(document, dict):
            raise DamagedError(
                f"{path}: {len(text):,} bytes that are no complete list of trials; remove the file"
            )
        if document.get("format") != _FORMAT:
            raise ForeignError(f"{path}: no trials of this version; give another folder")
        given = document.pop("digest", None)
        if given != digest(json.dumps(document, sort_keys=True).encode()):
            raise DamagedError(f"{path}: its content differs from its digest; remove the file")
        differs = difference(document["about"], about)
        if differs is not None:
            name, found, asked = differs
            raise ForeignError(
                f"{path}: trials with {name} = {found}, now asked for with {asked}; give another "
                "folder, or remove the file"
            )
        return [Trial(**{**t, "losses": tuple(t["losses"])}) for t in document["trials"]]


def _optuna() -> Any:
    with needs("optuna", "tuning", "searching for settings"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
