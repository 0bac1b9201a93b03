"""The two networks of the data-centre case: which workload a packet is of, and how long it takes.

Blocks of a dense layer, batch normalisation (Ioffe and Szegedy, ICML 2015) and ReLU, then a dense
layer; trained with Adam. ``PUBLISHED_CLASSIFICATION`` and ``PUBLISHED_REGRESSION`` are the settings
of the paper. One training with them takes minutes on one core, and three scenarios need hundreds,
so by default

- networks are narrower (128 units instead of 512 and 362), a twelfth and a sixth of the arithmetic;
- training takes 15 or 20 epochs instead of 200, with a learning rate that goes up and down once,
  to 0.01 (Smith and Topin, "Super-convergence", 2019) instead of a constant one;
- no validation samples are held out for stopping early: with so few epochs there is nothing to
  stop, and all samples are trained on.

The paper's artefact gives networks bytes and seconds as they are. To the classifier that is all the
same, and here its inputs are standardised: sizes are alike in all positions, and the first batch
normalisation undoes a common scale and offset. To the regression it is not: delays of some 0.03 s
beside sizes of some 1,000 bytes are hardly seen. That decides how memories compare, so
``REGRESSION`` gets bytes and seconds as well. With ``standardise=True`` it makes about half of the
error, and what a memory keeps matters little to it; use that where delays are to be predicted
rather than memories compared.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from memento.errors import DomainError, MissingExtraError, ModelError, SchemaError, SettingError
from memento.learner import labels_of
from memento.samples import Samples
from memento.training.early_stop import EarlyStop

if TYPE_CHECKING:
    import torch

__all__ = [
    "CLASSIFICATION",
    "PUBLISHED_CLASSIFICATION",
    "PUBLISHED_REGRESSION",
    "REGRESSION",
    "DelayRegressor",
    "NetworkSettings",
    "WorkloadClassifier",
]

_ROWS = 4096  # per forward pass: larger ones fall out of the cache and are slower
_MOMENTS = ("mean", "std", "target_mean", "target_std")


@dataclass(frozen=True)
class NetworkSettings:
    """A network and how it is trained.

    Attributes:
        layers: Blocks of dense layer, batch normalisation and ReLU, at least 1.
        units: Of each block, at least 1.
        learning_rate: Of Adam, above 0; the largest one with the schedule "one-cycle".
        batch_size: Samples for each step, at least 2; all batches have about this size.
        epochs: At most so many, at least 1.
        held_out: Share of the samples, in [0, 1), on which the loss is watched. 0: none, then the
            last epoch's weights stay; else those of the epoch with the lowest loss.
        patience: Epochs without a lower loss before stopping; only with ``held_out``.
        schedule: Of the learning rate: "constant", or "one-cycle" for a linear rise over the first
            fifth of the steps and a cosine to 0 over the rest.
        standardise: Whether inputs, and delays that are predicted, are centred and scaled with
            their moments over what is trained on; else they are used in their units.

    Raises:
        SettingError: A value out of its range.

    Example:
        >>> NetworkSettings(layers=3, units=64).parameters(128, 3)
        17155
    """

    layers: int = 3
    units: int = 128
    learning_rate: float = 1e-2
    batch_size: int = 512
    epochs: int = 15
    held_out: float = 0.0
    patience: int = 50
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    standardise: bool = True

    def __post_init__(self) -> None:
        for name, least in (
            *(("layers", 1), ("units", 1), ("batch_size", 2), ("epochs", 1), ("patience", 1)),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise SettingError(f"{name}={value!r}; give a whole number of at least {least}")
        if not 0 < self.learning_rate < math.inf:
            raise SettingError(f"learning_rate={self.learning_rate}; give a number above 0")
        if not 0 <= self.held_out < 1:
            raise SettingError(f"held_out={self.held_out}; give a share in [0, 1)")
        if self.schedule not in ("constant", "one-cycle"):
            raise SettingError(f"schedule={self.schedule!r}; give 'constant' or 'one-cycle'")
        if not isinstance(self.standardise, bool):
            raise SettingError(f"standardise={self.standardise!r}; give True or False")

    def parameters(self, inputs: int, outputs: int) -> int:
        """How many numbers a network with these has to learn."""
        widths = [inputs, *[self.units] * self.layers]
        blocks = sum(a * b + b + 2 * b for a, b in pairwise(widths))
        return blocks + self.units * outputs + outputs

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one step of ``steps``, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        rise = max(1, steps // 5)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


#: Which workload a packet is of: what training needs at most on two cores.
CLASSIFICATION = NetworkSettings()
#: The same as in the paper.
PUBLISHED_CLASSIFICATION = NetworkSettings(
    layers=3, units=512, learning_rate=5.91e-5, epochs=200, schedule="constant"
)
#: How long a packet takes: what training needs at most on two cores. Bytes and seconds as they are.
REGRESSION = NetworkSettings(layers=4, epochs=20, standardise=False)
#: The same as in the paper.
PUBLISHED_REGRESSION = NetworkSettings(
    layers=4,
    units=362,
    learning_rate=0.382,
    epochs=200,
    held_out=0.2,
    patience=50,
    schedule="constant",
    standardise=False,
)


class _WindowNetwork(ABC):
    """What both learners share; see there for arguments."""

    def __init__(
        self,
        settings: NetworkSettings,
        outputs: int,
        *,
        inputs: str,
        label: str,
        embedding: int,
        threads: int,
        seed: int,
    ) -> None:
        _torch()
        for name, value, least in (
            *(("embedding", embedding, 0), ("threads", threads, 1), ("seed", seed, 0)),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise SettingError(f"{name}={value!r}; give a whole number of at least {least}")
        self.settings = settings
        self.outputs = outputs
        self.inputs = inputs
        self.label = label
        self.embedding = embedding
        self.threads = threads
        self.seed = seed
        self._network: torch.nn.Sequential | None = None
        self._moments: dict[str, np.ndarray] = {}

    @property
    def trained(self) -> bool:
        """Whether there was a fit, or a state restored."""
        return self._network is not None

    @abstractmethod
    def _targets(self, samples: Samples) -> np.ndarray:
        """(n,) what is to be predicted, checked."""

    @abstractmethod
    def _losses(self, outputs: Any, targets: Any) -> Any:
        """(n,) loss of each sample, of network outputs and standardised targets."""

    @abstractmethod
    def _columns(self, outputs: np.ndarray, targets: np.ndarray | None) -> dict[str, np.ndarray]:
        """Columns of one piece; "gradient" is that of the loss by the outputs."""

    def fit(self, samples: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Train anew; the same samples and seed give the same network.

        Args:
            samples: Columns; those of inputs and label are read.
            weights: (n,) >= 0, or None for equal ones. A batch's loss is sum(w l) / sum(w).

        Raises:
            SchemaError: A column is missing or of another form, or there are fewer than 2 samples.
            DomainError: Values that are not finite, labels out of range, negative weights.
            ModelError: The loss was never finite. The learner is as it was.
        """
        torch = _torch()
        samples = Samples.borrow(samples)
        inputs, targets = self._inputs(samples), self._targets(samples)
        size = len(inputs)
        if size < 2:
            raise SchemaError(f"{size} samples to fit; batch normalisation needs at least 2")
        weights = _checked_weights(weights, size)
        order = np.random.default_rng(self.seed).permutation(size)
        count = min(max(2, size - round(self.settings.held_out * size)), size)
        train, rest = np.sort(order[:count]), np.sort(order[count:])
        moments = _moments_of(inputs[train], targets[train], self.settings.standardise)
        with _threads(self.threads), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # of the fork: the first weights come from it
            network = self._build(inputs.shape[1])
            parts = [
                (
                    torch.from_numpy(_standard(inputs[rows], moments)),
                    torch.from_numpy(self._standard_targets(targets[rows], moments)),
                    torch.from_numpy(weights[rows].astype(np.float32)),
                )
                for rows in (train, rest)
            ]
            self._train(network, *parts)
        self._network, self._moments = network, moments

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predict; columns are described at the class.

        Raises:
            ModelError: Nothing was fitted yet.
            SchemaError, DomainError: As for ``fit``; inputs of another width than those fitted on.
        """
        torch = _torch()
        if self._network is None:
            raise ModelError("the learner predicts nothing before its first fit; call fit first")
        samples = Samples.borrow(samples)
        inputs = self._inputs(samples)
        width = len(self._moments["mean"])
        if inputs.shape[1] != width:
            raise SchemaError(
                f"column {self.inputs!r} has {inputs.shape[1]} numbers a sample; the network was "
                f"fitted on {width}"
            )
        targets = self._targets(samples) if self.label in samples else None
        hidden, last = self._network[:-1], self._network[-1]
        projection = self._projection()
        pieces: list[dict[str, np.ndarray]] = []
        with _threads(self.threads), torch.inference_mode():
            for start in range(0, max(1, len(inputs)), _ROWS):
                part = slice(start, start + _ROWS)
                features = hidden(torch.from_numpy(_standard(inputs[part], self._moments)))
                outputs = last(features).numpy()
                found = self._columns(outputs, None if targets is None else targets[part])
                gradient = found.pop("gradient", None)
                if self.embedding:
                    found["embedding"] = features.numpy() @ projection
                    if gradient is not None:
                        outer = gradient[:, :, None] * found["embedding"][:, None, :]
                        # Not -1: that cannot be worked out of no rows.
                        width = outer.shape[1] * outer.shape[2]
                        found["gradient"] = outer.reshape(len(outer), width)
                pieces.append(found)
        return {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}

    def state(self) -> dict[str, np.ndarray]:
        """Everything that was learned, as arrays; nothing before the first fit."""
        if self._network is None:
            return {}
        state = {name: values.copy() for name, values in self._moments.items()}
        for name, tensor in self._network.state_dict().items():
            state[f"network/{name}"] = tensor.numpy().copy()
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state; the learner needs the settings of the one that gave it.

        Raises:
            ModelError: The state belongs to another network; the message names what differs.
        """
        torch = _torch()
        if not state:
            self._network, self._moments = None, {}
            return
        absent = [name for name in _MOMENTS if name not in state]
        if absent:
            raise ModelError(f"the state lacks {', '.join(absent)}; restore what state() gave")
        moments = {name: np.array(state[name], dtype=np.float64) for name in _MOMENTS}
        with torch.random.fork_rng(devices=[]):
            network = self._build(len(np.atleast_1d(moments["mean"])))
        tensors = {}
        for name, mine in network.state_dict().items():
            theirs = state.get(f"network/{name}")
            shape = None if theirs is None else np.asarray(theirs).shape
            if shape != tuple(mine.shape):
                found = "nothing" if shape is None else f"shape {shape}"
                raise ModelError(
                    f"the state has {found} for the network's {name}, expected shape "
                    f"{tuple(mine.shape)}; build the learner with the same settings"
                )
            tensors[name] = torch.from_numpy(np.array(theirs))
        network.load_state_dict(tensors)
        self._network, self._moments = network.eval(), moments

    def _inputs(self, samples: Samples) -> np.ndarray:
        """(n, d) of a real type, finite."""
        if self.inputs not in samples:
            raise SchemaError(f"no column {self.inputs!r} (the inputs) among {sorted(samples)}")
        inputs = samples[self.inputs]
        if inputs.dtype.kind not in "fiub" or inputs.ndim != 2 or not inputs.shape[1]:
            raise SchemaError(
                f"column {self.inputs!r} holds {inputs.dtype} of shape {inputs.shape}; expected a "
                "row of numbers a sample"
            )
        _check_finite(self.inputs, inputs)
        return inputs

    def _build(self, width: int) -> Any:
        """A new network from ``width`` inputs to the outputs."""
        from torch import nn

        layers: list[Any] = []
        for before in [width, *[self.settings.units] * (self.settings.layers - 1)]:
            layers += [
                nn.Linear(before, self.settings.units),
                nn.BatchNorm1d(self.settings.units),
                nn.ReLU(),
            ]
        return nn.Sequential(*layers, nn.Linear(self.settings.units, self.outputs))

    def _standard_targets(self, targets: np.ndarray, moments: dict[str, np.ndarray]) -> np.ndarray:
        return targets

    def _projection(self) -> np.ndarray:
        """(units, embedding) float32, random with this seed: distances are kept on average."""
        rng = np.random.default_rng([self.seed, 1])
        shape = (self.settings.units, self.embedding)
        return (rng.standard_normal(shape) / math.sqrt(max(1, self.embedding))).astype(np.float32)

    def _train(self, network: Any, train: Any, rest: Any) -> None:
        """Descend; leaves the weights to keep in the network."""
        torch = _torch()
        settings = self.settings
        shuffle = torch.Generator().manual_seed(self.seed)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
        count = len(train[0])
        # Batches of about one size: a tiny last one would have as much say as any other.
        batches = max(1, round(count / settings.batch_size))
        edges = np.linspace(0, count, batches + 1).astype(int).tolist()
        steps = batches * settings.epochs
        stop = EarlyStop(settings.patience, 0.0)
        best: dict[str, Any] = {}
        for epoch in range(settings.epochs):
            network.train()
            order = torch.randperm(count, generator=shuffle)
            total = torch.zeros(())
            for batch, (start, end) in enumerate(pairwise(edges)):
                x, y, w = (part[order[start:end]] for part in train)
                weight = w.sum()
                if not weight > 0:
                    continue
                for group in optimiser.param_groups:
                    group["lr"] = settings.rate(epoch * batches + batch, steps)
                loss = (self._losses(network(x), y) * w).sum() / weight
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                total += loss.detach()
            network.eval()
            watched = float(total) if not len(rest[0]) else self._watched(network, rest)
            improved = stop.update(watched)
            if len(rest[0]) and improved:
                best = {name: value.clone() for name, value in network.state_dict().items()}
            if len(rest[0]) and stop.due:
                break
        if best:
            network.load_state_dict(best)
        elif not all(values.isfinite().all() for values in network.parameters()):
            raise ModelError(
                f"weights were not finite after {stop.epochs} epochs; lower learning_rate, or look "
                "for extreme inputs or weights"
            )

    def _watched(self, network: Any, rest: Any) -> float:
        """Mean loss of the samples held out."""
        torch = _torch()
        total = 0.0
        with torch.inference_mode():
            for start in range(0, len(rest[0]), _ROWS):
                x, y, w = (part[start : start + _ROWS] for part in rest)
                total += float((self._losses(network(x), y) * w).sum(dtype=torch.float64))
        return total / max(float(rest[2].sum(dtype=torch.float64)), 1e-300)


class WorkloadClassifier(_WindowNetwork):
    """Tells which workload a packet is of, from the sizes of the last packets.

    Args:
        settings: The network and its training; `PUBLISHED_CLASSIFICATION` for the paper's.
        classes: Labels are integers in ``[0, classes)``.
        inputs: Column of the inputs, (n, d) numbers.
        label: Column of the workloads, (n,) integers.
        embedding: Give the last hidden layer as a column, too, projected at random to so many
            numbers (Johnson and Lindenstrauss 1984); 0 for none.
        threads: For fits and predictions; two networks side by side gain more than two threads.
        seed: Of first weights, order of samples, held out samples and projection.

    ``annotate`` gives

    - ``yhat``, (n, classes) float32: probabilities, rows sum to 1;
    - with a column of labels, ``logscore``, (n,) float32: ln of the label's probability; and
      ``loss``, (n,) float32: the cross-entropy, ``-logscore``;
    - with an embedding, ``embedding``, (n, embedding) float32, and with labels ``gradient``,
      (n, classes * embedding) float32: the gradient of the loss by the last layer's weights,
      ``p - onehot(y)`` times the embedding.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SettingError: A value out of its range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 600)
        >>> x = rng.normal(500 * (1 + y)[:, None], 100, (600, 8))
        >>> learner = WorkloadClassifier(NetworkSettings(units=16, epochs=10, batch_size=32))
        >>> learner.fit(Samples(x=x, y=y))
        >>> float((learner.annotate(Samples(x=x))["yhat"].argmax(axis=1) == y).mean())
        1.0
    """

    def __init__(
        self,
        settings: NetworkSettings = CLASSIFICATION,
        *,
        classes: int = 3,
        inputs: str = "x",
        label: str = "y",
        embedding: int = 0,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
            raise SettingError(f"classes={classes!r}; give a whole number of at least 2")
        super().__init__(
            settings,
            classes,
            inputs=inputs,
            label=label,
            embedding=embedding,
            threads=threads,
            seed=seed,
        )

    def _targets(self, samples: Samples) -> np.ndarray:
        return labels_of(samples, self.label, self.outputs)

    def _losses(self, outputs: Any, targets: Any) -> Any:
        return _torch().nn.functional.cross_entropy(outputs, targets, reduction="none")

    def _columns(self, outputs: np.ndarray, targets: np.ndarray | None) -> dict[str, np.ndarray]:
        logs = outputs - outputs.max(axis=1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        columns = {"yhat": np.exp(logs)}
        if targets is not None:
            rows = np.arange(len(logs))
            columns["logscore"] = logs[rows, targets]
            columns["loss"] = -columns["logscore"]
            columns["gradient"] = columns["yhat"].copy()
            columns["gradient"][rows, targets] -= 1
        return columns


class DelayRegressor(_WindowNetwork):
    """Predicts how long a packet takes, from sizes and delays of the last packets.

    Args:
        settings: The network and its training; `PUBLISHED_REGRESSION` for the paper's. With
            ``standardise=True`` predictions are better.
        inputs: Column of the inputs, (n, d) numbers.
        label: Column of the delays [s], (n,) numbers.
        embedding: As for `WorkloadClassifier`.
        threads: As for `WorkloadClassifier`.
        seed: As for `WorkloadClassifier`.

    ``annotate`` gives

    - ``yhat``, (n,) float64: the delay [s];
    - with a column of delays, ``error``, (n,) float64: ``|yhat - y|`` [s]; and ``loss``, (n,)
      float64: its square [s^2];
    - with an embedding, ``embedding``, (n, embedding) float32, and with delays ``gradient``, of the
      same shape: ``2 (yhat - y)``, in the units that are learned, times the embedding.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SettingError: A value out of its range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.random((2000, 4))
        >>> samples = Samples(x=x, y=0.02 + 0.03 * x[:, 0])
        >>> learner = DelayRegressor(NetworkSettings(layers=2, units=32, batch_size=64))
        >>> learner.fit(samples)
        >>> bool(learner.annotate(samples)["error"].mean() < 0.002)
        True
    """

    def __init__(
        self,
        settings: NetworkSettings = REGRESSION,
        *,
        inputs: str = "x",
        label: str = "y",
        embedding: int = 0,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            settings,
            1,
            inputs=inputs,
            label=label,
            embedding=embedding,
            threads=threads,
            seed=seed,
        )

    def _targets(self, samples: Samples) -> np.ndarray:
        if self.label not in samples:
            raise SchemaError(f"no column {self.label!r} (the delays) among {sorted(samples)}")
        delays = samples[self.label]
        if delays.dtype.kind not in "fiu" or delays.ndim != 1:
            raise SchemaError(
                f"column {self.label!r} holds {delays.dtype} of shape {delays.shape}; expected one "
                "delay in seconds per row"
            )
        _check_finite(self.label, delays)
        return delays.astype(np.float64)

    def _standard_targets(self, targets: np.ndarray, moments: dict[str, np.ndarray]) -> np.ndarray:
        return ((targets - moments["target_mean"]) / moments["target_std"]).astype(np.float32)

    def _losses(self, outputs: Any, targets: Any) -> Any:
        return (outputs[:, 0] - targets) ** 2

    def _columns(self, outputs: np.ndarray, targets: np.ndarray | None) -> dict[str, np.ndarray]:
        mean, std = self._moments["target_mean"], self._moments["target_std"]
        columns = {"yhat": mean + std * outputs[:, 0].astype(np.float64)}
        if targets is not None:
            error = columns["yhat"] - targets
            columns["error"] = np.abs(error)
            columns["loss"] = error**2
            columns["gradient"] = (2 * error / std).astype(np.float32)[:, None]
        return columns


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "torch", "the data-centre case's networks") from error
    return torch


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads inside the block, as before after it."""
    torch = _torch()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _moments_of(
    inputs: np.ndarray, targets: np.ndarray, standardise: bool
) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each input and of the target; 1 for a constant.

    Those that change nothing, 0 and 1, if they are not to be standardised.
    """
    found = {}
    for name, values in (("", inputs), ("target_", targets)):
        if not standardise:
            found[f"{name}mean"] = np.zeros(values.shape[1:])
            found[f"{name}std"] = np.ones(values.shape[1:])
            continue
        mean = np.asarray(values.mean(axis=0, dtype=np.float64))
        std = np.asarray(values.std(axis=0, dtype=np.float64))
        constant = std <= 1e-12 * (1e-300 + np.abs(mean))
        found[f"{name}mean"] = mean
        found[f"{name}std"] = np.where(constant, 1.0, std)
    return found


def _standard(inputs: np.ndarray, moments: dict[str, np.ndarray]) -> np.ndarray:
    mean, std = moments["mean"].astype(np.float32), moments["std"].astype(np.float32)
    standard: np.ndarray = (inputs.astype(np.float32) - mean) / std
    return standard


def _check_finite(name: str, column: np.ndarray) -> None:
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        bad = (~np.isfinite(column)).reshape(len(column), -1).any(axis=1)
        raise DomainError(
            f"column {name!r} is not finite in {int(bad.sum()):,} of {len(column):,} rows, the "
            f"first is row {int(bad.argmax()):,}; drop or replace them"
        )


def _checked_weights(weights: np.ndarray | None, size: int) -> np.ndarray:
    """(n,) float64 with a mean of 1."""
    if weights is None:
        return np.ones(size)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (size,):
        raise SchemaError(
            f"weights of shape {weights.shape}; give one for each of {size:,} samples"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise DomainError(
            "weights are negative, not finite or all 0; give some above 0, none below"
        )
    return weights / weights.mean()
