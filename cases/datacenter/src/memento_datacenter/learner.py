"""The library's learner, with the networks of `models` and the way they are trained."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from torch import nn

from memento.errors import SchemaError
from memento.integrations.torch import TorchLearner
from memento.samples import Samples
from memento_datacenter.models import NetworkSettings

__all__ = ["WindowLearner"]

_WORKLOADS = 3


class WindowLearner(TorchLearner):
    """Learns from windows of packets: the library's learner with the case's way of training.

    Args:
        task: "classification": which workload a packet is of, of three. "regression": the mean
            delay [s]; with ``standardise=True`` predictions are better.
        network: The network and its training.
        embedding: Give the last hidden layer as a column, projected at random to so many numbers,
            and the gradient; 0 for none.
        seed: Of first weights, order of samples, held out samples and projection.

    Columns that it adds are those of `memento.integrations.torch.TorchLearner`.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SettingError: A value out of its range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 3, 600)
        >>> x = rng.normal(500 * (1 + y)[:, None], 100, (600, 8))
        >>> network = NetworkSettings(units=16, epochs=10, batch_size=32)
        >>> learner = WindowLearner("classification", network)
        >>> learner.fit(Samples(x=x, y=y))
        >>> float((learner.annotate(Samples(x=x))["yhat"].argmax(axis=1) == y).mean())
        1.0
    """

    def __init__(
        self,
        task: Literal["classification", "regression"],
        network: NetworkSettings,
        *,
        embedding: int = 0,
        seed: int = 0,
    ) -> None:
        self.network = network
        classes = task == "classification"
        super().__init__(
            _WORKLOADS if classes else None,
            self._made,
            loss="log" if classes else "squared",
            epochs=network.epochs,
            patience=network.patience,
            min_delta=0.0,
            averaging=0.0,
            held_out=network.held_out,
            calibrate=False,
            standardise=network.standardise,
            clip=math.inf,
            embedding=embedding,
            seed=seed,
        )

    def _made(self, inputs: int, outputs: int) -> nn.Module:
        units = self.network.units
        layers: list[nn.Module] = []
        for before in [inputs, *[units] * (self.network.layers - 1)]:
            layers += [nn.Linear(before, units), nn.BatchNorm1d(units), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(units, outputs))

    def split(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """A random share is held out, the end of a random order."""
        size = samples.size
        if size < 2:
            raise SchemaError(f"{size} samples to fit; batch normalisation needs at least 2")
        order = np.random.default_rng(self.seed).permutation(size)
        count = min(max(2, size - round(self.held_out * size)), size)
        return np.sort(order[:count]), np.sort(order[count:])

    def batches(self, samples: int) -> int:
        """So many that each has about the size that is asked for, however few there are."""
        return max(1, round(samples / self.network.batch_size))

    def rate(self, step: int, steps: int) -> float:
        """As scheduled."""
        return self.network.rate(step, steps)
