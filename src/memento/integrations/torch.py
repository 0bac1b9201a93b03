"""PyTorch: a learner for classes with calibrated probabilities, and a dataset over a memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from memento.arguments import Column, Count, Expected, check_fields, number, require, whole
from memento.errors import DomainError, ModelError, SchemaError, SettingError
from memento.integrations.torch_data import MemoryDataset, import_torch
from memento.learner import known_labels, labels_of, numbers_of, weights_of
from memento.samples import Samples
from memento.training.early_stop import EarlyStop

with contextlib.suppress(ImportError):  # said when a learner is made
    import torch

__all__ = ["MemoryDataset", "TorchLearner"]

_ROWS = 4096  # per forward pass: larger ones fall out of the cache and are slower
_EVIDENCE = 10.0  # nats over all held-out samples, before a calibration is believed
_FLOORS = (1e-4, 1e-3, 1e-2, 0.02, 0.04, 0.08, 0.16)

# The largest number below 1.
_BELOW_1 = math.nextafter(1, 0)

_HELD_OUT = "a share of the samples, in [0, 1)"
_FUNCTION = Expected("a function", callable)
# What ``classes`` is for numbers.
_NOTHING = Expected("None for numbers", lambda value: value is None)


@dataclass(eq=False, repr=False)
class TorchLearner:
    """A network that learns the probabilities of classes, as a learner of the daily loop.

    A fit standardises the inputs, trains with Adam on a part of the samples, stops when the
    cross-entropy of the rest no longer falls, and goes back to the best epoch. What is kept is a
    moving average of the weights (Polyak and Juditsky, 1992), which makes the tail of the log
    score three times less a matter of the seed. Then it calibrates on that same rest: a
    temperature (Guo et al., "On calibration of modern neural networks", ICML 2017) and a small
    share of the marginal distribution, so that the probability of something rare, and with it the
    lowest percentile of the log score, means what it says.

    The same samples and seed give the same network; global generators and the number of threads
    are left as they are. A fit that goes wrong leaves the learner as it was.

    Args:
        classes: Labels are integers in ``[0, classes)``. None for numbers.
        model: Called with the number of input features and of classes (1 for numbers), gives a
            ``torch.nn.Module`` from (rows, ...) float32 to (rows, classes) logits. Default: two
            hidden layers of 64.
        loss: ``"log"``, the cross-entropy of classes. For numbers ``"squared"``, which predicts a
            mean, or ``"absolute"``, which predicts a median: labels are then standardised for the
            fit, the prediction is one number a sample, and nothing is calibrated.
        inputs: Column of the inputs, (n,) or (n, ...), any real type.
        label: Column of the labels, (n,). Rows in which it is missing (NaN) are not learned from.
        group: Column whose values stay together when samples are held out, such as the stream a
            sample comes from. Right where a model could learn a group by heart, as neighbours
            resemble each other; a needless source of noise where it cannot, as a few long
            streams stand for all when stopping and calibrating.
        epochs: At most so many.
        patience: Epochs without improvement before stopping.
        min_delta: The smallest fall of the held-out loss that counts, in nats (of numbers: in
            units of the labels' variance, or standard deviation).
        batch_size: Samples for each step of the optimiser; fewer if there are few in all, so that
            an epoch has some 20 steps.
        learning_rate: Step size of Adam, above 0.
        weight_decay: L2 penalty of Adam.
        averaging: Share of the old in the moving average of weights, in [0, 1); 0 for none.
        held_out: Share of samples (of groups, if named) for stopping and calibration, in [0, 1). 0:
            none; then all samples are trained on, and the weights of the last epoch are kept.
        calibrate: Whether to fit temperature and floor; otherwise they are 1 and 0.
        standardise: Whether inputs, and numbers that are predicted, are centred and scaled by their
            moments; else they are used in their units.
        clip: Standard deviations beyond which an input is cut; infinity for none.
        embedding: Give what the last linear layer sees as a column as well, projected at random to
            so many numbers (Johnson and Lindenstrauss 1984), and the gradient of the loss: what
            policies need that compare samples by the network. 0 for none.
        warm_start: Continue from the last weights and input moments instead of anew.
        threads: For fits and predictions; more than one seldom pays for small networks.
        seed: Of the weights, the split and the order of samples.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SettingError: A number out of its range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((2000, 2)).astype(np.float32)
        >>> samples = Samples(x=x, y=(x[:, 0] > 0).astype(int))
        >>> learner = TorchLearner(classes=2, epochs=20)
        >>> learner.fit(samples)
        >>> columns = learner.annotate(samples)
        >>> columns["yhat"].shape, bool(columns["logscore"].mean() > -0.1)
        ((2000, 2), True)
    """

    classes: int | None = None
    model: Annotated[Callable[[int, int], Any], _FUNCTION] | None = None
    _: KW_ONLY
    loss: Literal["log", "squared", "absolute"] = "log"
    inputs: Column = "x"
    label: Column = "y"
    group: Column | None = None
    epochs: Count = 60
    patience: int = 6
    min_delta: float = 2e-4
    batch_size: Count = 1024
    learning_rate: Annotated[float, number(above=0, words="a number above 0")] = 2e-3
    weight_decay: Annotated[float, number(0, words="0 or more")] = 0.0
    averaging: Annotated[float, number(0, _BELOW_1, words="a number in [0, 1)")] = 0.99
    held_out: Annotated[float, number(0, _BELOW_1, words=_HELD_OUT)] = 0.2
    calibrate: bool = True
    standardise: bool = True
    clip: Annotated[float, number(above=0, infinite=True, words="a number above 0")] = 10.0
    embedding: Annotated[int, whole(0)] = 0
    warm_start: bool = False
    threads: Count = 1
    seed: Annotated[int, whole(0)] = 0

    def __post_init__(self) -> None:
        import_torch("TorchLearner")
        check_fields(self)
        require("classes", self.classes, whole(2) if self.loss == "log" else _NOTHING)
        if self.held_out == 0 and self.calibrate and self.classes is not None:
            raise SettingError("calibrate needs samples that are held out; give calibrate=False")
        EarlyStop(self.patience, self.min_delta)  # says what is wrong with them
        self._network: torch.nn.Module | None = None
        self._fitted: dict[str, np.ndarray] = {}

    @property
    def trained(self) -> bool:
        """Whether there was a fit, or a state restored."""
        return self._network is not None

    @property
    def _outputs(self) -> int:
        return 1 if self.classes is None else self.classes

    @property
    def temperature(self) -> float:
        """What the logits are divided by; 1 before the first fit."""
        return float(self._fitted.get("temperature", 1.0))

    @property
    def floor(self) -> float:
        """The share of the marginal distribution in a prediction; 0 before the first fit."""
        return float(self._fitted.get("floor", 0.0))

    @property
    def kind(self) -> Literal["classifier", "regressor"]:
        """What it learns: classes or numbers."""
        return "regressor" if self.classes is None else "classifier"

    def fit(self, samples: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Train on samples.

        Args:
            samples: Columns; those of inputs, label and (if named) group are read.
            weights: (n,) >= 0, or None for equal weights. A batch's loss is sum(w l) / sum(w), and
                held-out losses are weighted likewise.

        Raises:
            SchemaError: A column is missing or has another shape than before.
            DomainError: Inputs that are not finite, labels out of range, negative weights.
            ModelError: The model does not give one logit per class, or the loss is never finite.
        """
        samples = Samples.borrow(samples)
        weights = weights_of(weights, samples.size)
        rows, labels = self._labels(samples)
        if not len(rows):
            raise SchemaError(
                f"no samples to fit: none of {samples.size:,} has a label in column {self.label!r}"
            )
        samples, weights = samples.take(rows), weights[rows]
        inputs = self._inputs(samples)
        train, rest = self.split(samples)
        targets, shift = labels, np.array([0.0, 1.0])
        if self.classes is None:
            if self.standardise:
                shift = np.array([labels[train].mean(), labels[train].std() or 1.0])
            targets = ((labels - shift[0]) / shift[1]).astype(np.float32)
        if self.warm_start and self._network is not None:
            mean, std = self._fitted["mean"], self._fitted["std"]
        elif self.standardise:
            mean, std = _moments(inputs[train])
        else:
            mean, std = np.zeros(inputs.shape[1:]), np.ones(inputs.shape[1:])
        with _threads(self.threads), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # of the fork: weights and dropout come from it
            network = self._build(inputs.shape[1:])
            if self.warm_start and self._network is not None:
                network.load_state_dict(self._network.state_dict())
            parts = [
                (
                    torch.from_numpy(self._standardised(inputs[part], mean, std)),
                    torch.from_numpy(targets[part]),
                    torch.from_numpy(weights[part]),
                )
                for part in (train, rest)
            ]
            logits = self._train(network, *parts)
            fitted = {"mean": mean, "std": std}
            if self.classes is None:
                fitted["shift"] = shift
            else:
                marginal = _marginal(labels[train], weights[train], self.classes)
                temperature, floor = 1.0, 0.0
                if self.calibrate:
                    temperature, floor = _calibrated(logits, *parts[1][1:], marginal)
                fitted["marginal"] = marginal
                fitted |= {"temperature": np.array(temperature), "floor": np.array(floor)}
        self._network, self._fitted = network, fitted

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predict; and score the prediction where the label is known.

        Returns:
            yhat: (n, classes) float32, rows sum to 1; for numbers (n,) float64.
            logscore: (n,) float32, ln of the probability of the label; only with a label column,
                NaN where a label is missing, and not for numbers.
            loss: (n,), the cross-entropy, which is ``-logscore``; for numbers the absolute error;
                likewise.
            embedding: (n, embedding) float32, if one is asked for.
            gradient: (n, outputs * embedding) float32, of the cross-entropy at ``yhat``, or of the
                loss of numbers, by the last layer's weights, in the units of that layer; likewise.

        Raises:
            ModelError: Nothing was fitted yet.
            SchemaError, DomainError: As for ``fit``.
        """
        if self._network is None:
            raise ModelError("the learner predicts nothing before its first fit; call fit first")
        samples = Samples.borrow(samples)
        inputs = self._inputs(samples)
        rows, labels = self._labels(samples) if self.label in samples else (None, None)
        if inputs.shape[1:] != self._fitted["mean"].shape:
            raise SchemaError(
                f"column {self.inputs!r} has rows of shape {inputs.shape[1:]}; the model was "
                f"fitted on {self._fitted['mean'].shape}"
            )
        if self.classes is None:
            return self._annotate_numbers(inputs, rows, labels)
        logs = np.empty((len(inputs), self.classes), dtype=np.float32)
        marginal = torch.from_numpy(self._fitted["marginal"]).float()
        columns: dict[str, np.ndarray] = {}
        with _threads(self.threads):
            for start, logits, hidden in self._forward(inputs):
                mixed = _mixture(logits, self.temperature, self.floor, marginal)
                logs[start : start + len(mixed)] = mixed
                self._embed(columns, start, len(inputs), hidden)
        columns["yhat"] = np.exp(logs)
        if rows is not None:
            columns["logscore"] = np.full(len(logs), np.nan, np.float32)
            columns["logscore"][rows] = logs[rows, labels]
            columns["loss"] = -columns["logscore"]
            if self.embedding:
                slope = columns["yhat"].copy()
                slope[rows, labels] -= 1
                self._gradient(columns, rows, slope)
        return columns

    def _annotate_numbers(
        self, inputs: np.ndarray, rows: np.ndarray | None, labels: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """One number a sample, and the absolute error of it."""
        center, scale = self._fitted["shift"]
        yhat = np.empty(len(inputs))
        columns: dict[str, np.ndarray] = {"yhat": yhat}
        with _threads(self.threads):
            for start, outputs, hidden in self._forward(inputs):
                yhat[start : start + len(outputs)] = outputs[:, 0].double().numpy() * scale + center
                self._embed(columns, start, len(inputs), hidden)
        if rows is not None and labels is not None:
            error = np.full(len(yhat), np.nan)
            error[rows] = yhat[rows] - labels
            columns["loss"] = np.abs(error)
            slope = 2 * error / scale if self.loss == "squared" else np.sign(error)
            self._gradient(columns, rows, slope.astype(np.float32)[:, None])
        return columns

    def _forward(self, inputs: np.ndarray) -> Iterator[tuple[int, Any, Any]]:
        """First row and outputs of each piece, and what its last linear layer saw if wanted."""
        network, seen = self._network, [None]
        assert network is not None
        linear = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
        hook: Any = contextlib.nullcontext()
        if self.embedding:
            if not linear:
                raise ModelError(
                    "an embedding is what the last torch.nn.Linear sees, and the model has none; "
                    "leave embedding out"
                )
            hook = linear[-1].register_forward_pre_hook(
                lambda layer, given: seen.__setitem__(0, given[0])
            )
        with hook:
            for start, outputs in _forward(network, self._standard_pieces(inputs)):
                yield start, outputs, seen[0]

    def _embed(self, columns: dict[str, np.ndarray], start: int, size: int, hidden: Any) -> None:
        """Add the embedding of one piece to its column."""
        if hidden is None:
            return
        # Random with this seed; distances are kept on average.
        rng = np.random.default_rng([self.seed, 1])
        shape = (hidden.shape[1], self.embedding)
        projection = (rng.standard_normal(shape) / math.sqrt(self.embedding)).astype(np.float32)
        into = columns.setdefault("embedding", np.empty((size, self.embedding), np.float32))
        into[start : start + len(hidden)] = hidden.numpy() @ projection

    def _gradient(
        self, columns: dict[str, np.ndarray], rows: np.ndarray, slope: np.ndarray
    ) -> None:
        """Add the gradient by the last layer's weights, NaN in rows that have no label."""
        if self.embedding:
            outer = slope[:, :, None] * columns["embedding"][:, None, :]
            gradient = np.full((len(slope), outer.shape[1] * outer.shape[2]), np.nan, np.float32)
            gradient[rows] = outer.reshape(gradient.shape)[rows]
            columns["gradient"] = gradient

    def _labels(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Rows that have a label, and these labels."""
        if self.classes is None:
            return numbers_of(samples, self.label)
        rows, labels = known_labels(samples, self.label)
        return rows, labels_of(Samples.borrow({self.label: labels}), self.label, self.classes)

    def _losses(self, outputs: Any, labels: Any) -> Any:
        """``(n,)`` loss of each row."""
        functional = torch.nn.functional
        if self.classes is not None:
            return functional.cross_entropy(outputs, labels, reduction="none")
        loss = functional.mse_loss if self.loss == "squared" else functional.l1_loss
        return loss(outputs[:, 0], labels.to(outputs.dtype), reduction="none")

    def state(self) -> dict[str, np.ndarray]:
        """Everything that was learned, as numeric arrays; nothing before the first fit.

        Raises:
            ModelError: The network holds numbers of a type that numpy lacks (such as bfloat16).
        """
        if self._network is None:
            return {}
        state = {name: values.copy() for name, values in self._fitted.items()}
        for name, tensor in self._network.state_dict().items():
            try:
                state[f"network/{name}"] = tensor.detach().cpu().numpy().copy()
            except TypeError as error:
                raise ModelError(
                    f"the network's {name} is {tensor.dtype}, which numpy lacks; use float32"
                ) from error
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state; the learner needs the settings of the one that gave it.

        Raises:
            ModelError: The state belongs to another network; the message names what differs.
        """
        if not state:
            self._network, self._fitted = None, {}
            return
        further = ("shift",) if self.classes is None else ("marginal", "temperature", "floor")
        names = ("mean", "std", *further)
        absent = [name for name in names if name not in state]
        if absent:
            raise ModelError(
                f"the state lacks {absent}; restore what a TorchLearner's state() gave"
            )
        fitted = {name: np.array(state[name], dtype=np.float64) for name in names}
        if self.classes is not None and fitted["marginal"].shape != (self.classes,):
            raise ModelError(
                f"the state has {fitted['marginal'].size} classes, this learner {self.classes}; "
                "build it with the same settings"
            )
        with torch.random.fork_rng(devices=[]):
            network = self._build(fitted["mean"].shape)
        tensors = {
            name.removeprefix("network/"): torch.from_numpy(np.array(values))
            for name, values in state.items()
            if name.startswith("network/")
        }
        for name, mine in network.state_dict().items():
            theirs = tensors.get(name)
            if theirs is None or theirs.shape != mine.shape:
                stated = "nothing" if theirs is None else f"shape {tuple(theirs.shape)}"
                raise ModelError(
                    f"the state has {stated} for the network's {name}, expected shape "
                    f"{tuple(mine.shape)}; build the learner with the same model"
                )
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(f"the state belongs to another network: {error}") from error
        self._network, self._fitted = network.eval(), fitted

    def _inputs(self, samples: Samples) -> np.ndarray:
        """(n, ...) of a real type, finite."""
        if self.inputs not in samples:
            raise SchemaError(f"no column {self.inputs!r} (the inputs) among {sorted(samples)}")
        inputs = samples[self.inputs]
        if inputs.dtype.kind not in "fiub":
            raise SchemaError(f"column {self.inputs!r} holds {inputs.dtype}; expected numbers")
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            bad = int((~np.isfinite(inputs)).reshape(len(inputs), -1).any(axis=1).sum())
            raise DomainError(
                f"column {self.inputs!r} is not finite in {bad:,} of {len(inputs):,} rows; "
                "drop or replace them"
            )
        return inputs[:, None] if inputs.ndim == 1 else inputs

    def split(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows to hold out, both ascending; a learner may override it.

        With a single sample or group there is nothing to hold out apart: all rows serve both. None
        are held out if that share is 0.
        """
        if not samples.size:
            raise SchemaError("no samples to fit; give at least one row")
        if self.group is not None and self.group not in samples:
            raise SchemaError(f"no column {self.group!r} (the group) among {sorted(samples)}")
        if self.held_out == 0:
            return np.arange(samples.size), np.arange(0)
        rng = np.random.default_rng(self.seed)
        groups = np.arange(samples.size)
        if self.group is not None:
            groups = np.unique(samples[self.group], return_inverse=True)[1].reshape(-1)
        sizes = np.bincount(groups)
        if len(sizes) == 1:
            return np.arange(samples.size), np.arange(samples.size)
        # Whole groups until the share of samples is reached: with few, long streams their number
        # says little about how many samples are held out. At least one stays on either side.
        order = rng.permutation(len(sizes))
        reached = np.cumsum(sizes[order])
        count = int(np.abs(reached - self.held_out * samples.size).argmin()) + 1
        out = np.zeros(len(sizes), dtype=bool)
        out[order[: min(count, len(sizes) - 1)]] = True
        return np.flatnonzero(~out[groups]), np.flatnonzero(out[groups])

    def batches(self, samples: int) -> int:
        """Steps of an epoch over so many samples, which it divides evenly; may be overridden."""
        return -(-samples // min(self.batch_size, max(16, samples // 20)))

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of one of so many steps, from 0; may be overridden."""
        return self.learning_rate

    def _build(self, shape: tuple[int, ...]) -> torch.nn.Module:
        """A new network, tried on one row of zeros."""
        network = (self.model or _perceptron)(math.prod(shape), self._outputs)
        network.eval()
        try:
            with torch.no_grad():
                shape_of_outputs = tuple(network(torch.zeros((1, *shape))).shape)
        except Exception as error:
            raise ModelError(f"the model refuses inputs of shape {(1, *shape)}: {error}") from error
        if shape_of_outputs != (1, self._outputs):
            what = "one number" if self.classes is None else "one logit for each class"
            raise ModelError(
                f"the model gives outputs of shape {shape_of_outputs} for one row; expected "
                f"{(1, self._outputs)}: {what}"
            )
        return network

    def _train(self, network: Any, train: Sequence[Any], rest: Sequence[Any]) -> Any:
        """Descend until the held-out loss stops falling; leaves the best weights in the network.

        Returns:
            The held-out logits of the best epoch.
        """
        shuffle = torch.Generator().manual_seed(self.seed)
        optimiser = torch.optim.Adam(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        averaged = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=self._average)
        stop = EarlyStop(self.patience, self.min_delta)
        best: dict[str, Any] = {}
        best_logits = torch.empty(0)
        count = len(train[0])
        batches = self.batches(count)
        # Batches of about one size: Adam gives a tiny last one the same say as any other.
        edges = np.linspace(0, count, batches + 1).astype(int).tolist()
        for epoch in range(self.epochs):
            network.train()
            order = torch.randperm(count, generator=shuffle)
            x, y, w = (part[order] for part in train)
            for batch, (start, end) in enumerate(pairwise(edges)):
                total = w[start:end].sum()
                if not total > 0:
                    continue
                rate = self.rate(epoch * batches + batch, batches * self.epochs)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                losses = self._losses(network(x[start:end]), y[start:end])
                optimiser.zero_grad()
                ((losses * w[start:end]).sum() / total).backward()
                optimiser.step()
                averaged.update_parameters(network)
            if not len(rest[0]):
                continue
            pieces = _forward(averaged.module, rest[0].split(_ROWS))
            logits = torch.cat([part for _, part in pieces])
            losses = self._losses(logits.double(), rest[1])
            if stop.update(float((losses * rest[2]).sum() / rest[2].sum())):
                state = averaged.module.state_dict()
                best = {name: value.clone() for name, value in state.items()}
                best_logits = logits
            if stop.due:
                break
        if not len(rest[0]):
            best = averaged.module.state_dict()
        if not best or not all(value.isfinite().all() for value in best.values()):
            raise ModelError(
                f"the loss or weights were not finite in any of {self.epochs} epochs; lower "
                "learning_rate, or look for extreme inputs or weights"
            )
        network.load_state_dict(best)
        network.eval()
        return best_logits

    def _average(self, averages: Any, current: Any, steps: Any) -> None:
        """Move the averages towards the current weights, faster at first."""
        for average, fresh in zip(averages, current, strict=True):
            old = min(self.averaging, (1 + int(steps)) / (10 + int(steps)))
            average.lerp_(fresh.to(average.dtype), 1 - old)

    def _standard_pieces(self, inputs: np.ndarray) -> Iterator[torch.Tensor]:
        for start in range(0, max(1, len(inputs)), _ROWS):  # no rows have columns, too
            piece = inputs[start : start + _ROWS]
            moments = self._fitted["mean"], self._fitted["std"]
            yield torch.from_numpy(self._standardised(piece, *moments))

    def _standardised(self, inputs: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        standard = (inputs.astype(np.float32) - mean.astype(np.float32)) / std.astype(np.float32)
        most = self.clip if self.standardise else math.inf
        return standard if most == math.inf else np.clip(standard, -most, most)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads inside the block, as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _perceptron(features: int, classes: int) -> torch.nn.Module:
    """Flattened inputs, two hidden layers of 64."""
    from torch import nn

    hidden = 64
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU()),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)),
    )


def _marginal(labels: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) shares, with one sample more, spread over all classes, so that none is 0."""
    shares = np.bincount(labels, weights, classes) / max(weights.sum(), 1e-300)
    return np.asarray((shares * len(labels) + 1 / classes) / (len(labels) + 1))


def _moments(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per feature; 1 for a constant one, which becomes 0."""
    mean = inputs.mean(axis=0, dtype=np.float64)
    std = inputs.std(axis=0, dtype=np.float64)
    return mean, np.where(std > 1e-12 * (1 + np.abs(mean)), std, 1.0)


def _forward(network: Any, pieces: Any) -> Iterator[tuple[int, Any]]:
    """First row and logits of each piece."""
    network.eval()
    start = 0
    with torch.inference_mode():
        for piece in pieces:
            yield start, network(piece).float()
            start += len(piece)


def _mixture(logits: Any, temperature: float, floor: float, marginal: Any) -> np.ndarray:
    """ln((1 - floor) softmax(logits / temperature) + floor marginal), without under-flow."""
    if floor == 0:
        logs: np.ndarray = (logits / temperature).numpy()
        logs = logs - logs.max(axis=1, keepdims=True)
        return logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    given = torch.log_softmax(logits / temperature, dim=1)
    mixed = torch.logaddexp(given + math.log1p(-floor), (floor * marginal).log().to(given.dtype))
    return np.asarray(mixed)


def _calibrated(
    logits: Any, labels: Any, weights: Any, marginal: np.ndarray
) -> tuple[float, float]:
    """Temperature and floor with the lowest weighted cross-entropy on held-out samples.

    A floor of 0 would let a label that the network excludes cost everything, so there is always a
    small one. More is changed only on strong evidence, a likelihood ratio of e^10: one percent of
    temperature moves the first percentile of the log score by five hundredths of a nat, and is
    what chance alone would add to or take from a network that is well calibrated already.
    """
    logits, prior = logits.double(), torch.from_numpy(marginal)
    of_label = prior[labels]

    def losses(temperatures: Any) -> list[tuple[float, float, float]]:
        candidates = []
        for temperature in map(float, temperatures):
            logs = torch.log_softmax(logits / temperature, dim=1).gather(1, labels[:, None])[:, 0]
            for floor in _FLOORS:
                mixed = torch.logaddexp(logs + math.log1p(-floor), (floor * of_label).log())
                loss = -(mixed * weights).sum() / weights.sum()
                candidates.append((float(loss), temperature, floor))
        return candidates

    plain = losses([1.0])[0]
    best = min(losses(np.geomspace(0.5, 4.0, 13)))
    for width in (0.09, 0.03, 0.01):
        best = min(best, *losses(best[1] * np.linspace(1 - width, 1 + width, 5)))
    samples = float(weights.sum() ** 2 / (weights**2).sum())  # as many equal weights would be worth
    return best[1:] if samples * (plain[0] - best[0]) > _EVIDENCE else plain[1:]
