"""From the features of days to what a predictor is trained on, and a training that may be stopped.

Puffer trains each night on a random sample of the last fourteen days, of which recent ones have
larger shares (Yan et al., "Learning in situ", NSDI 2020, section 4.3); other policies choose in
other ways. Days come one at a time, so that no more than one is in memory beside the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.errors import SchemaError
from memento.memory import Memory
from memento.policies import Policy
from memento.samples import Samples
from memento_puffer.data.features import Features
from memento_puffer.predictor.network import (
    Network,
    clamp_sentinels,
    forward,
    selected_inputs,
    shapes_of,
)
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp_training import Training, TrainingSettings, TtpLearner

__all__ = ["EmbeddingLearner", "learner_for", "train", "training_set"]

_KIND = "memento-ttp-training"
_EMBEDDING = 16  # numbers that policies compare samples by, as in the data-centre case
_GRADIENT = 4  # of these, for gradients: times 21 classes
_ROWS = 1 << 16


class EmbeddingLearner(TtpLearner):
    """A learner that also says what its network's last hidden layer makes of samples.

    For policies that compare samples by these: the layer's 64 units are projected at random, which
    keeps distances on average (Johnson and Lindenstrauss, 1984). ``annotate`` adds

    - ``embedding``, (n, 16) float32;
    - with ``gradients`` and labels, ``gradient``, (n, 84) float32: that of the loss by the last
      layer's weights, ``p - onehot(y)`` times the embedding's first 4 numbers.

    Args:
        base: The network that trainings start from; None for random weights.
        settings: How its trainings go; default `TrainingSettings()`.
        gradients: Whether to add them.

    Example:
        >>> from memento.samples import Samples
        >>> samples = Samples(x=np.ones((5, 62)), y_bin=np.arange(5))
        >>> learner = EmbeddingLearner(gradients=True)
        >>> learner.restore(Network.fresh().arrays())
        >>> found = learner.annotate(samples)
        >>> found["embedding"].shape, found["gradient"].shape
        ((5, 16), (5, 84))
    """

    def __init__(
        self,
        base: Network | None = None,
        settings: TrainingSettings | None = None,
        *,
        gradients: bool = False,
    ) -> None:
        super().__init__(base, settings)
        self.gradients = gradients

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """See `TtpLearner.annotate`."""
        columns = super().annotate(samples)
        network, x = self.network, np.asarray(samples[self.inputs])
        clamps = self.settings.sentinels != "keep"
        units = shapes_of()[4][1]
        # Always the same, whatever the seed, so that what lies in a memory stays comparable.
        projection = np.random.default_rng(1).standard_normal((_EMBEDDING, units))
        projection = (projection / np.sqrt(_EMBEDDING)).astype(network.dtype)
        last = (projection, np.zeros(_EMBEDDING, network.dtype))  # instead of that to the classes
        found = np.empty((len(x), _EMBEDDING), np.float32)
        for begin in range(0, len(x), _ROWS):
            piece = selected_inputs(x[begin : begin + _ROWS], network.inputs)
            piece = clamp_sentinels(piece) if clamps else piece
            piece = network.moments.standardise(piece, network.dtype)
            found[begin : begin + _ROWS] = forward((*network.weights[:4], *last), piece)
        columns["embedding"] = found
        if self.gradients and self.label in samples:
            error = columns["yhat"].copy()
            error[np.arange(len(x)), np.asarray(samples[self.label])] -= 1
            outer = error[:, :, None] * found[:, None, :_GRADIENT]
            columns["gradient"] = outer.reshape(len(x), CLASSES * _GRADIENT)
        return columns


def learner_for(
    policy: Policy, base: Network | None = None, settings: TrainingSettings | None = None
) -> TtpLearner:
    """A learner that adds the columns that a policy looks at: of herding, for example, embeddings.

    Args:
        policy: Whose memory it is for.
        base: The network that trainings start from; None for random weights.
        settings: How its trainings go; default `TrainingSettings()`.
    """
    gradients = getattr(policy, "gradients", "") == "gradient"
    if gradients or getattr(policy, "features", "") == "embedding":
        return EmbeddingLearner(base, settings, gradients=gradients)
    return TtpLearner(base, settings)


def training_set(
    days: Iterable[Features],
    horizon: int,
    policy: Policy,
    capacity: int,
    *,
    network: Network | None = None,
    seed: int = 0,
) -> Memory:
    """Let a memory choose from days in their order.

    Args:
        days: Features, each read when its turn comes.
        horizon: 0 to 4.
        policy: What decides who stays; each day is one insert.
        capacity: Most samples to keep.
        network: Makes the predictions (column ``yhat``) that some policies compare.
        seed: Seed of the memory's choices, with the horizon.

    Returns:
        The memory, with columns ``x``, ``y``, ``y_bin`` and perhaps ``yhat`` and others.

    Raises:
        SettingError: Another horizon, or a capacity that the policy refuses.
        SchemaError: The days hold no sample, or the policy needs predictions and has none.
    """
    memory = Memory(capacity, policy, seed=np.random.default_rng([seed, horizon]))
    annotate = None
    if network is not None:
        learner = learner_for(policy, network)
        learner.restore(network.arrays())
        annotate = learner.annotate
    for features in days:
        columns = features.columns(horizon, sentinels="clamp")
        if not len(columns["y"]):
            continue
        samples = Samples.borrow({name: columns[name] for name in ("x", "y", "y_bin")})
        memory.insert(samples.with_columns(annotate(samples)) if annotate else samples)
    if not len(memory):
        raise SchemaError(
            f"no sample for horizon {horizon} in these days; they need acknowledged chunks, and "
            "the memory room for a batch"
        )
    return memory


def train(
    memory: Memory,
    start: Network | None,
    settings: TrainingSettings,
    *,
    weighted: bool = True,
    checkpoint: Path | None = None,
    every: int = 10,
    on_epoch: Callable[[int, int, float], None] | None = None,
) -> Network:
    """Train a network on what a memory holds; a training that was stopped goes on.

    Args:
        memory: Of `training_set`.
        start: The network to go on from; None for random weights.
        settings: Epochs, batch size, learning rate and the rest.
        weighted: Whether to use the weights that the memory's policy states.
        checkpoint: Folder for the state between epochs.
        every: Epochs from one state saved to the next.
        on_epoch: Called with the epochs done, the most there will be, and the loss.

    Raises:
        ModelError: The loss was never finite, or the checkpoint is of another training.
        DamagedError: The checkpoint is damaged; remove it.
    """
    samples = memory.samples
    weights = memory.weights if weighted else None
    training = Training(start, samples["x"], samples["y_bin"], weights, settings)
    if checkpoint is not None and snapshot.exists(checkpoint):
        training.restore(snapshot.read(checkpoint, _KIND).arrays)
    while not training.done:
        loss = training.epoch()
        done = len(training.losses)
        if checkpoint is not None and (done % every == 0 or training.done):
            snapshot.write(checkpoint, _KIND, training.state(), {})
        if on_epoch is not None:
            on_epoch(done, training.epochs, loss)
    return training.network
