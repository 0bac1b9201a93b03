"""Training of the transmission time predictor, as Puffer did daily and as Memento's artefact did.

Plain numpy: for 9,557 weights and batches of 32 to 512, a framework's bookkeeping costs more than
the arithmetic. A training can be stopped after any epoch and gone on with, bit for bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from memento.arguments import check_fields, number, one_of, whole
from memento.errors import DomainError, ModelError, SchemaError, SettingError
from memento.samples import Samples
from memento.training.early_stop import EarlyStop
from memento_puffer.predictor.network import (
    INPUTS,
    WITHOUT_TCP,
    Moments,
    Network,
    checked_inputs,
    clamp_sentinels,
    forward,
    layers,
    selected_inputs,
    sentinel_rows,
    shapes_of,
    softmax,
)
from memento_puffer.predictor.transmission import CLASSES

__all__ = ["AFFORDABLE", "ARTEFACT", "PUFFER", "Training", "TrainingSettings", "TtpLearner"]

_ROWS = 4096
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's, as everybody uses them
_BELOW_ONE = math.nextafter(1, 0)  # the largest share that is not all


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained. By default as the artefact did, but with sentinels clamped.

    Attributes:
        epochs: At most so many.
        scratch_epochs: At most so many from random weights; None for ``epochs``.
        batch_size: Samples for each step of Adam; the last batch of an epoch may be smaller.
        learning_rate: Of Adam.
        weight_decay: Added to the gradient, times the weights (L2).
        held_out: Share of samples that validate, in [0, 1); 0 for none.
        patience: Epochs without a better validation loss before stopping; needs ``held_out``.
        min_delta: The smallest fall of the validation loss that counts, in nats.
        start: What a `TtpLearner` goes on from: its base, its last network, or random weights.
        moments: "merge" those of the new samples into the network's, as Puffer; "estimate" them
            anew, with the function of the first weights unchanged; "keep" the network's.
        sentinels: A min_rtt never measured becomes its rtt ("clamp"), its sample is left out
            ("drop"), or it counts as 72 minutes ("keep", as Puffer).
        dtype: "float32", or "float64" as Puffer; the latter takes twice as long.
        inputs: Of networks from random weights: 62, or 17 without the state of TCP. Others keep
            theirs.
        seed: Of random weights, the split and the order of samples.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> dataclasses.replace(PUFFER, epochs=3).batch_size
        32
    """

    epochs: Annotated[int, whole()] = 3000
    scratch_epochs: Annotated[int, whole()] | None = None
    batch_size: Annotated[int, whole()] = 512
    learning_rate: Annotated[float, number(above=0, words="a number above 0")] = 1e-4
    weight_decay: Annotated[float, number(0, words="a number of at least 0")] = 1e-4
    held_out: Annotated[float, number(0, _BELOW_ONE, words="a share in [0, 1)")] = 0.2
    patience: int | None = 50
    min_delta: float = 1e-6
    start: Annotated[str, one_of(("base", "last", "scratch"))] = "base"
    moments: Annotated[str, one_of(("merge", "estimate", "keep"))] = "merge"
    sentinels: Annotated[str, one_of(("clamp", "drop", "keep"))] = "clamp"
    dtype: Annotated[str, one_of(("float32", "float64"))] = "float32"
    seed: Annotated[int, whole(0)] = 42
    inputs: int = INPUTS

    def __post_init__(self) -> None:
        check_fields(self)
        if self.patience is not None:
            EarlyStop(self.patience, self.min_delta)  # says what is wrong with them
            if self.held_out == 0:
                raise SettingError("patience without held_out; set patience=None, or hold out some")
        if self.inputs not in (INPUTS, WITHOUT_TCP):
            raise SettingError(f"inputs is {self.inputs!r}; expected {INPUTS} or {WITHOUT_TCP}")


AFFORDABLE = TrainingSettings(
    epochs=60, scratch_epochs=200, learning_rate=1e-3, patience=8, moments="estimate"
)
"""Trainings of seconds instead of hours: ten times the artefact's rate, and impatient."""

ARTEFACT = TrainingSettings(sentinels="keep", dtype="float64")
"""Memento's published code: from Fugu-Feb, batches of 512, stopped by a fifth held out."""

PUFFER = TrainingSettings(
    epochs=300,
    scratch_epochs=500,
    batch_size=32,
    held_out=0.0,
    patience=None,
    start="last",
    sentinels="keep",
    dtype="float64",
)
"""Puffer's daily trainer: from the model of the day before, 300 epochs, the last one counts."""


class Training:
    """One training of one network, epoch by epoch.

    A batch's loss is sum(w l) / sum(w); validation counts every sample alike. The order of an
    epoch's samples follows from seed and epoch, so there is no generator to keep.

    Args:
        start: The network to go on from; None for random weights.
        x: (n, 62) inputs, see `Network.logits`; (n, 17) will do for a network with 17.
        y_bin: (n,) integer classes, 0 to 20.
        weights: (n,) >= 0; None for equal ones.
        settings: Epochs, batch size, learning rate and the rest; default `TrainingSettings()`.

    Attributes:
        losses: Of each epoch so far: of validation, or of training where nothing is held out.

    Raises:
        SchemaError: Arrays of other shapes or types; no samples.
        DomainError: Numbers that are not finite, classes or weights out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((600, 62))
        >>> y_bin = np.where(x[:, -1] > 0, 3, 0)
        >>> settings = TrainingSettings(epochs=40, learning_rate=1e-3)
        >>> training = Training(None, x, y_bin, settings=settings)
        >>> network = training.run()
        >>> bool(training.losses[-1] < 0.5 * training.losses[0])
        True
    """

    def __init__(
        self,
        start: Network | None,
        x: np.ndarray,
        y_bin: np.ndarray,
        weights: np.ndarray | None = None,
        settings: TrainingSettings | None = None,
    ) -> None:
        self.settings = settings = settings or TrainingSettings()
        # Sentinels stand in what TCP says, and "drop" is meant for samples of any network.
        x = np.asarray(x)
        inputs = settings.inputs if start is None else start.inputs
        x = checked_inputs(x, inputs if x.ndim == 2 and x.shape[1] == inputs else INPUTS)
        labels = _checked_labels(y_bin, len(x))
        shares = _checked_weights(weights, len(x))
        if settings.sentinels == "drop":
            whole = ~sentinel_rows(x)
            x, labels = x[whole], labels[whole]
            shares = None if shares is None else shares[whole]
        elif settings.sentinels == "clamp":
            x = clamp_sentinels(x)
        x = selected_inputs(x, inputs)
        if not len(x):
            raise SchemaError("no samples to train on; give at least one (without a sentinel)")
        rows, rest = _split_rows(len(x), settings)
        if shares is not None and not shares[rows].any():
            raise DomainError("all weights of the training split are 0; give more above 0")
        self.epochs = settings.epochs
        if start is None:
            self.epochs = settings.scratch_epochs or settings.epochs
        first = _first_network(start, x[rows], settings)
        self._moments = first.moments
        dtype = first.dtype
        self._x, self._rest_x = (first.moments.standardise(x[part], dtype) for part in (rows, rest))
        self._y, self._rest_y = labels[rows], labels[rest]
        self._w = None if shares is None else shares[rows].astype(dtype)
        # All weights in one vector: Adam's arithmetic runs over it in one go.
        self._flat = np.concatenate([array.ravel() for array in first.weights])
        self._views = _weight_views(self._flat)
        self._gradient = np.zeros_like(self._flat)
        self._gradient_views = _weight_views(self._gradient)
        self._first = np.zeros_like(self._flat)
        self._second = np.zeros_like(self._flat)
        self._scratch = (np.empty_like(self._flat), np.empty_like(self._flat))
        self._steps = 0
        self._best = self._flat.copy()
        # Without patience the stop only remembers which epoch was best.
        self._stop = EarlyStop(settings.patience or self.epochs + 1, settings.min_delta)
        self.losses: list[float] = []
        self._identity: np.ndarray | None = None

    @property
    def done(self) -> bool:
        """Whether patience or epochs have run out."""
        return len(self.losses) >= self.epochs or self._stop.due

    @property
    def network(self) -> Network:
        """The best so far by validation; the current one where nothing is held out.

        Raises:
            ModelError: No epoch was run, or no loss was finite.
        """
        if not self.losses:
            raise ModelError("no epoch was run yet; call epoch() or run() first")
        if self._stop.best_epoch < 0:
            raise ModelError(
                f"the loss was not finite in any of {len(self.losses)} epochs; lower "
                "learning_rate, or look for extreme inputs or weights"
            )
        flat = self._best if len(self._rest_x) else self._flat
        return Network(tuple(view.copy() for view in _weight_views(flat)), self._moments)

    def run(self) -> Network:
        """Run all epochs that are left.

        Raises:
            ModelError: The loss was never finite.
        """
        while not self.done:
            self.epoch()
        return self.network

    def epoch(self) -> float:
        """Run one epoch.

        Returns:
            Its loss, as in `losses`.
        """
        settings = self.settings
        count, size = len(self._x), settings.batch_size
        order = np.random.default_rng([settings.seed, len(self.losses)]).permutation(count)
        total = mass = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite shows below
            for begin in range(0, count, size):
                loss, weight = self._step_on_batch(order[begin : begin + size])
                total, mass = total + loss * weight, mass + weight
            loss = self._validation_loss() if len(self._rest_x) else total / mass
        self.losses.append(loss)
        if self._stop.update(loss):
            self._best[:] = self._flat
        return loss

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the epochs to come depend on, besides what `Training` was given."""
        return {
            "weights": self._flat.copy(),
            "first": self._first.copy(),
            "second": self._second.copy(),
            "best": self._best.copy(),
            "steps": np.array(self._steps, dtype=np.int64),
            "losses": np.array(self.losses, dtype=np.float64),
            "stop": np.array([self._stop.best, self._stop.best_epoch], dtype=np.float64),
            "identity": self._identity_digest().copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where `state` was taken.

        Args:
            state: Of a training that was given the same; only ``epochs`` may differ.

        Raises:
            ModelError: The state is of another training, or lacks something; nothing changed.
        """
        mine = self.state()
        absent = [name for name in mine if name not in state]
        if absent:
            raise ModelError(f"the state lacks {', '.join(absent)}; restore what state() gave")
        for name, value in mine.items():
            theirs = np.asarray(state[name])
            shape = theirs.shape if name == "losses" and theirs.ndim == 1 else value.shape
            if theirs.dtype != value.dtype or theirs.shape != shape:
                raise ModelError(
                    f"the state's {name} is {theirs.dtype} of shape {theirs.shape}; expected "
                    f"{value.dtype} of shape {value.shape}"
                )
        if not np.array_equal(mine["identity"], state["identity"]):
            raise ModelError(
                "the state belongs to a training with other samples, settings or first weights; "
                "build the training with the same"
            )
        self._flat[:] = state["weights"]
        self._first[:] = state["first"]
        self._second[:] = state["second"]
        self._best[:] = state["best"]
        self._steps = int(state["steps"])
        self.losses = np.asarray(state["losses"]).tolist()
        self._stop.best = float(state["stop"][0])
        self._stop.best_epoch = int(state["stop"][1])
        self._stop.epochs = len(self.losses)

    def _step_on_batch(self, rows: np.ndarray) -> tuple[float, float]:
        """Descend on one batch; its mean loss before, and the sum of its weights."""
        W2, W3 = self._views[2], self._views[4]
        x = self._x.take(rows, axis=0)
        y = self._y[rows]
        hidden1, hidden2, logits = layers(tuple(self._views), x)
        error = softmax(logits)
        at = np.arange(len(rows))
        losses = -np.log(np.maximum(error[at, y], np.finfo(error.dtype).tiny))
        error[at, y] -= 1
        if self._w is None:
            weight = float(len(rows))
            loss = float(losses.mean())
            error *= error.dtype.type(1 / weight)
        else:
            w = self._w[rows]
            weight = float(w.sum(dtype=np.float64))
            if not weight > 0:
                return 0.0, 0.0
            w = (w / weight).astype(error.dtype)
            loss = float(losses @ w)
            error *= w[:, None]
        g1, c1, g2, c2, g3, c3 = self._gradient_views
        np.matmul(error.T, hidden2, out=g3)
        np.sum(error, axis=0, out=c3)
        error = error @ W3
        error *= hidden2 > 0
        np.matmul(error.T, hidden1, out=g2)
        np.sum(error, axis=0, out=c2)
        error = error @ W2
        error *= hidden1 > 0
        np.matmul(error.T, x, out=g1)
        np.sum(error, axis=0, out=c1)
        self._step_of_adam()
        return loss, weight

    def _step_of_adam(self) -> None:
        """Adam (Kingma and Ba, 2015) with L2 in the gradient, as torch.optim.Adam."""
        settings, g, (a, b) = self.settings, self._gradient, self._scratch
        self._steps += 1
        np.multiply(self._flat, settings.weight_decay, out=a)
        g += a
        np.subtract(g, self._first, out=a)
        a *= 1 - _BETA1
        self._first += a
        np.multiply(g, g, out=a)
        a *= 1 - _BETA2
        self._second *= _BETA2
        self._second += a
        np.sqrt(self._second, out=a)
        a *= 1 / math.sqrt(1 - _BETA2**self._steps)
        a += _EPSILON
        np.divide(self._first, a, out=b)
        b *= settings.learning_rate / (1 - _BETA1**self._steps)
        self._flat -= b

    def _validation_loss(self) -> float:
        total = 0.0
        for begin in range(0, len(self._rest_x), _ROWS):
            logits = forward(self._views, self._rest_x[begin : begin + _ROWS])
            logs = _log_softmax(logits.astype(np.float64))
            labels = self._rest_y[begin : begin + _ROWS]
            total -= float(logs[np.arange(len(logs)), labels].sum())
        return total / len(self._rest_x)

    def _identity_digest(self) -> np.ndarray:
        """(32,) uint8: what a state belongs to."""
        if self._identity is None:
            settings = dataclasses.asdict(self.settings)
            del settings["epochs"], settings["scratch_epochs"]
            sha = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
            parts = [self._x, self._y, self._rest_x, self._rest_y]
            parts += [self._moments.mean, self._moments.std]
            parts += [] if self._w is None else [self._w]
            for part in parts:
                sha.update(str(part.shape).encode())
                sha.update(np.ascontiguousarray(part).data)
            self._identity = np.frombuffer(sha.digest(), dtype=np.uint8)
        return self._identity


class TtpLearner:
    """One horizon's network as a learner of the daily loop.

    The same samples and seed give the same network. A fit that fails leaves the learner as it was.

    Args:
        base: The network that fits start from, such as Fugu-Feb's; None for random weights.
        settings: How fits go; their ``start`` says which network the next one continues.
        inputs: Column of the inputs, (n, 62).
        label: Column of the classes, (n,) integers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> samples = Samples(x=rng.standard_normal((200, 62)), y_bin=rng.integers(0, 2, 200))
        >>> learner = TtpLearner(settings=TrainingSettings(epochs=2))
        >>> learner.fit(samples)
        >>> sorted(learner.annotate(samples)), learner.trained
        (['logscore', 'loss', 'yhat'], True)
    """

    def __init__(
        self,
        base: Network | None = None,
        settings: TrainingSettings | None = None,
        *,
        inputs: str = "x",
        label: str = "y_bin",
    ) -> None:
        self.base = base
        self.settings = settings or TrainingSettings()
        self.inputs = inputs
        self.label = label
        self._network: Network | None = None

    @property
    def trained(self) -> bool:
        """Whether there was a fit, or a state restored."""
        return self._network is not None

    @property
    def network(self) -> Network:
        """What was fitted last.

        Raises:
            ModelError: Nothing was.
        """
        if self._network is None:
            raise ModelError("the learner has no network before its first fit; call fit first")
        return self._network

    def fit(self, samples: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Train on samples.

        Args:
            samples: Columns; those of inputs and label are read.
            weights: (n,) >= 0, or None for equal ones.

        Raises:
            SchemaError, DomainError: As for `Training`, or a column is missing.
            ModelError: The loss was never finite.
        """
        start = {
            "base": self.base,
            "last": self._network if self._network is not None else self.base,
            "scratch": None,
        }[self.settings.start]
        samples = Samples.borrow(samples)
        x, labels = self._column_of(samples, self.inputs), self._column_of(samples, self.label)
        self._network = Training(start, x, labels, weights, self.settings).run()

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predict; and score the prediction where the label is known.

        Returns:
            yhat: (n, 21) float32, rows sum to 1.
            logscore: (n,) float32, ln of the probability of the label; only with a label column.
            loss: (n,) float32, the cross-entropy, which is ``-logscore``; likewise.

        Raises:
            ModelError: Nothing was fitted yet.
            SchemaError, DomainError: As for `Training`.
        """
        samples = Samples.borrow(samples)
        sentinels = "keep" if self.settings.sentinels == "keep" else "clamp"
        logs = self.network.logits(self._column_of(samples, self.inputs), sentinels=sentinels)
        for begin in range(0, len(logs), _ROWS):
            logs[begin : begin + _ROWS] = _log_softmax(logs[begin : begin + _ROWS])
        columns = {"yhat": np.exp(logs, dtype=logs.dtype).astype(np.float32, copy=False)}
        if self.label in samples:
            labels = _checked_labels(samples[self.label], len(logs))
            columns["logscore"] = logs[np.arange(len(logs)), labels].astype(np.float32)
            columns["loss"] = -columns["logscore"]
        return columns

    def state(self) -> dict[str, np.ndarray]:
        """The network as arrays; nothing before the first fit."""
        if self._network is None:
            return {}
        return {name: array.copy() for name, array in self._network.arrays().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state.

        Raises:
            ModelError: It is not that of such a network; the learner is as it was.
        """
        self._network = Network.of_arrays(state) if state else None

    def _column_of(self, samples: Samples, name: str) -> np.ndarray:
        if name not in samples:
            raise SchemaError(f"no column {name!r} among {sorted(samples)}; add or name it")
        return samples[name]


def _weight_views(flat: np.ndarray) -> tuple[np.ndarray, ...]:
    """The six arrays inside one vector of all weights."""
    # The vector is as long as the inputs are many; all else has one size.
    rest = sum(math.prod(shape) for shape in shapes_of()[1:])
    shapes = shapes_of((len(flat) - rest) // shapes_of()[0][0])
    sizes = [math.prod(shape) for shape in shapes]
    return tuple(
        flat[end - size : end].reshape(shape)
        for end, size, shape in zip(np.cumsum(sizes).tolist(), sizes, shapes, strict=True)
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.asarray(logits)


def _first_network(start: Network | None, x: np.ndarray, settings: TrainingSettings) -> Network:
    """The network before the first epoch, on the moments that it will be trained with."""
    if start is None:
        return Network.fresh(settings.seed, Moments.of(x), settings.dtype)
    start = start.astype(settings.dtype)
    if settings.moments == "keep":
        return start
    if settings.moments == "estimate":
        return start.rebased(Moments.of(x))
    return Network(start.weights, start.moments.merged(Moments.of(x)))


def _split_rows(size: int, settings: TrainingSettings) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and to validate with, ascending.

    A single sample serves both, for there is nothing else.
    """
    if settings.held_out == 0:
        return np.arange(size), np.arange(0)
    if size == 1:
        return np.arange(1), np.arange(1)
    order = np.random.default_rng(settings.seed).permutation(size)
    count = min(max(math.floor((1 - settings.held_out) * size + 1e-9), 1), size - 1)
    return np.sort(order[:count]), np.sort(order[count:])


def _checked_labels(y_bin: Any, size: int) -> np.ndarray:
    """(n,) int64 in [0, 21)."""
    labels = np.asarray(y_bin)
    if labels.shape != (size,) or labels.dtype.kind not in "iu":
        raise SchemaError(
            f"classes are {labels.dtype} of shape {labels.shape}; expected {size:,} integers"
        )
    if size and not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DomainError(
            f"classes go from {labels.min()} to {labels.max()}; expected 0 to {CLASSES - 1}"
        )
    return labels.astype(np.int64)


def _checked_weights(weights: Any, size: int) -> np.ndarray | None:
    """(n,) float64 in [0, 1]."""
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (size,):
        raise SchemaError(f"weights of shape {weights.shape}; give one for each of {size:,}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise DomainError("weights are negative or not finite; give none below 0")
    return weights / (weights.max(initial=0.0) or 1.0)  # so that none vanishes in float32
