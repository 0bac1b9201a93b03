"""A temperature on predictions, fitted on what comes in before anything of it is learned.

One number says how certain a model's probabilities may be. Where labels come late or rare events
are what counts, it buys more of the tail of the log score than most ways to select samples, so it
is the control beside every claim about tails.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; here prequential: fitted
on each unit of the stream as the deployed model predicted it, and used from the next on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from memento import missing
from memento.arguments import NotNegative, checked
from memento.errors import ModelError, SchemaError, SettingError
from memento.learner import Learner, checkpointable
from memento.samples import Samples

__all__ = ["Calibrated", "fitted_temperature", "softened"]

_GRID = np.geomspace(0.4, 6.0, 14)
_SMALLEST = 1e-6  # what a probability counts as, at least
_LEAST = 200  # labelled arrivals without which nothing is fitted
_WORST = 0.01  # share of samples that are the tail


@checked
class Calibrated:
    """A learner whose probabilities have a temperature that follows the stream.

    It predicts ``softmax(log q / T)`` where the learner predicts ``q``: which class is largest
    does not change. ``T`` is fitted by `adapt`, which the loop calls with each unit after it was
    judged and before anything of it is inserted or trained on. It is 1 until a unit with 200
    labels has come, is then that unit's best, and from there on moves half of the way to each
    further unit's, on the scale of logarithms.

    Args:
        learner: Annotates ``yhat``, ``(n, classes)`` probabilities, and ``logscore`` [nats] where
            labels are known.
        tail: What is minimised is the mean loss plus this times the mean of the worst 1 %; at
            least 0. More gives a better tail for a worse median.

    Attributes:
        learner: As given.
        tail: As given: the weight of the mean loss of the worst 1 %.
        temperature: ``T``, in [0.4, 6]; above 1 where the learner is too certain.

    Raises:
        SettingError: The learner predicts numbers, which have no temperature (as its ``kind``
            says, where it has one); or ``tail`` is no number of at least 0.

    Example:
        >>> from memento.testing import ConstantLearner
        >>> learner = Calibrated(ConstantLearner(classes=2))
        >>> learner.fit(Samples(label=[0] * 19 + [1]))
        >>> learner.adapt(Samples(label=[0, 1] * 200))  # it was much too certain
        True
        >>> learner.temperature
        6.0
        >>> learner.annotate(Samples(label=[1]))["yhat"].round(2)
        array([[0.59, 0.41]])
    """

    def __init__(self, learner: Learner, tail: NotNegative = 0.0) -> None:
        if getattr(learner, "kind", None) == "regressor":
            raise SettingError(
                f"{type(learner).__name__} predicts numbers, and a temperature is for "
                "probabilities; leave Calibrated out, or let it predict the probabilities of bins"
            )
        self.learner: Any = learner
        self.tail = float(tail)
        self.temperature = 1.0
        self._fitted = False

    @property
    def trained(self) -> bool:
        """Whether the learner is."""
        return bool(self.learner.trained)

    @property
    def label(self) -> str:
        """Column of the labels, where the learner names one."""
        return str(self.learner.label)

    @property
    def classes_(self) -> Any:
        """The learner's, where it has them."""
        return self.learner.classes_

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        """Train the learner; the temperature stays."""
        self.learner.fit(samples, weights)

    def annotate(self, samples: Samples) -> Mapping[str, Any]:
        """Columns of the learner, with ``yhat``, ``logscore`` and ``loss`` at the temperature.

        Raises:
            SchemaError: The learner does not annotate probabilities.
        """
        columns = self.learner.annotate(samples)
        _check_probabilities(columns, type(self.learner).__name__)
        return softened(columns, self.temperature)

    def adapt(self, samples: Samples) -> bool:
        """Fit the temperature to samples that the learner has not seen.

        Args:
            samples: What came; labels may be missing. With fewer than 200 nothing changes.

        Returns:
            Whether the temperature has changed.

        Raises:
            SchemaError: The learner annotates no probabilities, or no log scores where there are
                labels.
        """
        columns = self.learner.annotate(samples)
        _check_probabilities(columns, type(self.learner).__name__)
        if "logscore" not in columns:
            raise SchemaError(
                f"{type(self.learner).__name__} annotates {sorted(columns)} and no 'logscore' (ln "
                "of the probability of the label); Calibrated fits by it, add it to annotate"
            )
        known = ~missing.lacking(np.asarray(columns["logscore"]))
        if known.sum() < _LEAST:
            return False
        found = fitted_temperature(
            np.asarray(columns["yhat"])[known], np.asarray(columns["logscore"])[known], self.tail
        )
        if self._fitted:
            found = math.sqrt(self.temperature * found)
        self._fitted = True
        changed = found != self.temperature
        self.temperature = found
        return changed

    def check_checkpoint(self) -> None:
        """Raise if the learner cannot be kept in a checkpoint.

        Raises:
            SettingError: It has no ``state`` and ``restore``; or what it raises itself.
        """
        checkpointable(self.learner)
        getattr(self.learner, "check_checkpoint", lambda: None)()

    def state(self) -> Mapping[str, np.ndarray]:
        """That of the learner, and the temperature."""
        inner = {f"learner/{name}": array for name, array in self.learner.state().items()}
        return {**inner, "temperature": np.array([self.temperature, self._fitted])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state.

        Raises:
            ModelError: It is none of a calibrated learner; or what the learner raises.
        """
        found = np.asarray(state.get("temperature", ()))
        if found.shape != (2,) or found.dtype.kind not in "bif":
            raise ModelError("the state has no temperature; restore one of a Calibrated")
        prefix = "learner/"
        inner = {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}
        self.learner.restore(inner)
        self.temperature, self._fitted = float(found[0]), bool(found[1])


def softened(columns: Mapping[str, Any], temperature: float) -> dict[str, Any]:
    """Annotations of a classifier at another temperature.

    Args:
        columns: ``yhat``, ``(n, classes)`` probabilities; and ``logscore`` [nats], NaN where the
            label is not known, and ``loss``, which are made anew where they are there.
        temperature: Above 0; 1 changes nothing.

    Returns:
        All columns; those of the types that they had.

    Example:
        >>> softened({"yhat": [[0.9, 0.1]]}, 2.0)["yhat"]
        array([[0.75, 0.25]])
    """
    found = dict(columns)
    if temperature == 1:
        return found
    yhat = np.asarray(columns["yhat"])
    logits = _logarithms(yhat) / temperature
    logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
    odds = np.exp(logits)
    total = odds.sum(axis=1)
    found["yhat"] = (odds / total[:, None]).astype(yhat.dtype)
    if "logscore" in columns:
        scores = np.asarray(columns["logscore"])
        new = -_losses(_logarithms(yhat), scores, temperature)
        found["logscore"] = new.astype(scores.dtype)
        if "loss" in columns:
            found["loss"] = -found["logscore"]
    return found


def fitted_temperature(yhat: np.ndarray, logscore: np.ndarray, tail: float = 0.0) -> float:
    """The temperature of the least loss, of 14 between 0.4 and 6.

    Args:
        yhat: ``(n, classes)`` probabilities.
        logscore: ``(n,)`` logarithm of the probability of each label [nats].
        tail: Weight of the mean of the worst 1 % beside the mean of all.

    Example:
        >>> yhat = np.full((4, 2), [0.6, 0.4])
        >>> fitted_temperature(yhat, np.log([0.6, 0.6, 0.6, 0.6]))  # it is always right
        0.4
    """
    logarithms = _logarithms(yhat)
    worst = max(1, int(len(yhat) * _WORST))

    def cost(temperature: float) -> float:
        losses = _losses(logarithms, logscore, temperature)
        found = losses.mean()
        if tail:
            found += tail * np.partition(losses, -worst)[-worst:].mean()
        return float(found)

    return float(min(_GRID, key=cost))


def _logarithms(yhat: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(yhat, np.float64), _SMALLEST))


def _losses(logarithms: np.ndarray, logscore: np.ndarray, temperature: float) -> np.ndarray:
    """Minus the log scores at a temperature; without knowing labels."""
    scaled = logarithms / temperature
    highest = scaled.max(axis=1, initial=-np.inf)
    total = np.log(np.exp(scaled - highest[:, None]).sum(axis=1)) + highest
    of_labels = np.maximum(np.asarray(logscore, np.float64), math.log(_SMALLEST)) / temperature
    losses: np.ndarray = total - of_labels
    return losses


def _check_probabilities(columns: Mapping[str, Any], name: str) -> None:
    if "yhat" not in columns or np.ndim(columns["yhat"]) != 2:
        raise SchemaError(
            f"{name} annotates {sorted(columns)}; Calibrated needs 'yhat' with a probability for "
            "each class, (n, classes)"
        )
