"""From the features of days to what a predictor is trained on, and a training that may be stopped.

Puffer trains each night on a random sample of the last fourteen days, of which recent ones have
larger shares (Yan et al., "Learning in situ", NSDI 2020, section 4.3); other policies choose in
other ways. Days come one at a time, so that no more than one is in memory beside the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from memento import snapshot
from memento.cases.puffer.features import Features
from memento.cases.puffer.ttp import Network
from memento.cases.puffer.ttp_training import Training, TrainingSettings, TtpLearner
from memento.errors import SchemaError
from memento.memory import Memory
from memento.policies import Policy
from memento.samples import Samples

__all__ = ["train", "training_set"]

_KIND = "memento-ttp-training"


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
        seed: Of the memory.

    Returns:
        The memory, with columns ``x``, ``y``, ``y_bin`` and perhaps ``yhat``.

    Raises:
        SettingError: Another horizon, or a capacity that the policy refuses.
        SchemaError: The days hold no sample, or the policy needs predictions and has none.
    """
    memory = Memory(capacity, policy, seed=np.random.default_rng([seed, horizon]))
    annotate = None
    if network is not None:
        learner = TtpLearner(network)
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
        settings: How.
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
