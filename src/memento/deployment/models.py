"""The model that a deployment names: a function of the user's that makes learners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from memento import missing
from memento.deployment.settings import DeploymentSettings
from memento.errors import MementoError, MissingExtraError, ModelError, SettingError
from memento.integrations.factory import made_learner
from memento.integrations.sklearn import SklearnLearner
from memento.learner import Checkpointable
from memento.plugins import named
from memento.samples import Samples

__all__ = ["Models"]

# Package -> the name that pip knows and the extra that brings it.
_EXTRAS = {
    "sklearn": ("scikit-learn", "sklearn"),
    "skops": ("skops", "sklearn"),
    "torch": ("torch",) * 2,
}


class Models:
    """Makes learners, all alike.

    Args:
        settings: Name the factory, the seed and the labels.

    Raises:
        ModelError: The module cannot be imported, or has no such function; or that fails.
        SettingError: What it gives cannot be deployed.
        MissingExtraError: A package is not installed.
    """

    def __init__(self, settings: DeploymentSettings) -> None:
        self._settings = settings
        self._where = f"[model] factory = {settings.model.factory!r}"
        self._factory = self._imported()
        for label in settings.labels:  # what cannot work fails before anything is computed
            learner = self.make(label)
            if isinstance(learner, SklearnLearner):
                self._check_kept(learner)

    def make(self, label: str) -> Any:
        """A fresh learner of a label, with ``state`` and ``restore``."""
        try:
            made = made_learner(self._factory, self._settings.model.seed, label, self._where)
        except ModuleNotFoundError as error:
            raise self._missing(error) from error
        if not isinstance(made, Checkpointable):
            raise SettingError(
                f"{self._where} gives {type(made).__name__}, which has no state() and restore(), "
                "so it cannot be published; give it both"
            )
        return made

    def numbers(self, samples: Samples, label: str) -> bool:
        """Whether labels are numbers: as the learner says, else by the labels."""
        kind = getattr(self.make(label), "kind", None)
        if kind in ("classifier", "regressor"):
            return bool(kind == "regressor")
        labels = samples[label]
        known = labels[~missing.lacking(labels)]
        return known.dtype.kind == "f" and bool((known != np.trunc(known)).any())

    def refusals(self, samples: Samples) -> Iterator[str]:
        """Why estimators cannot be trained on samples, of which the first 500 count.

        Args:
            samples: With the inputs and the labels.
        """
        few = samples.rows(0, 500)
        for label in self._settings.labels:
            learner = self.make(label)
            if isinstance(learner, SklearnLearner) and not missing.lacking(few[label]).all():
                try:
                    learner.fit(few)
                except MementoError as error:
                    yield str(error).rstrip(".")

    def _imported(self) -> Callable[[int], Any]:
        """The function of the user's module that makes a model."""
        try:
            function = named(self._settings.model.factory, self._where, self._settings.home)
        except SettingError as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                raise self._missing(error.__cause__) from error
            raise ModelError(str(error)) from error
        if not callable(function):
            raise ModelError(f"{self._where} is {function!r}; name a function of a seed")
        found: Callable[[int], Any] = function
        return found

    def _missing(self, error: ModuleNotFoundError) -> MementoError:
        package = (error.name or "").partition(".")[0]
        if package in _EXTRAS:
            return MissingExtraError(*_EXTRAS[package], self._where)
        return ModelError(
            f"{self._where}: there is no module {error.name!r}; put it into "
            f"{self._settings.home}, where the settings lay, or install it"
        )

    def _check_kept(self, learner: SklearnLearner) -> None:
        try:
            learner.check_checkpoint()
        except ModelError as error:
            reason = str(error).partition(", or run without checkpoint")[0]
            raise ModelError(
                f"{self._where}: {reason}, or give a learner with state() and restore()"
            ) from error
