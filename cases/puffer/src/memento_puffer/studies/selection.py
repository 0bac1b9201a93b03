"""What policies keep of one set of samples, and what training on it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from memento.density import SampleSpace
from memento.errors import SchemaError
from memento.memory import Memory
from memento.policies import Policy
from memento.samples import Samples
from memento_puffer.deployment.deploy_settings import puffer_policy
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp_training import AFFORDABLE, TrainingSettings, TtpLearner

__all__ = ["selection_study"]

_ROWS = 1 << 18


def selection_study(
    samples: Mapping[str, Any],
    base: Network,
    policies: Mapping[str, Policy],
    capacity: int,
    *,
    batch_size: int = 256,
    training: TrainingSettings = AFFORDABLE,
    seed: int = 0,
) -> Samples:
    """What policies keep of one set of samples, batch by batch, and what training on it does.

    The paper looks at 5 million samples in this way to see why density and loss differ: density
    keeps what is rare, loss what is hard, noise included.

    Args:
        samples: Columns x, y, y_bin, as `Features.columns` has them; all are offered at once.
        base: Predicts them, and is what trainings start from.
        policies: By name.
        capacity: Most samples that each keeps.
        batch_size: Samples are sorted and cut into batches of this size, to be looked at.
        training: Optimiser, epochs and batches of the trainings on what was kept; each starts from
            ``base``.
        seed: Of memories and trainings.

    Returns:
        A row for each policy and batch: ``policy``, ``batch`` (in sorted order), ``label`` (its
        mean class), ``density`` (among all batches), ``loss_before`` (mean, of the base),
        ``kept`` (share of its samples), ``loss_after`` (of a network trained on what was kept).

    Raises:
        SchemaError: Less than one batch of samples.
    """
    learner = TtpLearner(base, replace(training, start="base"))
    learner.restore(base.arrays())
    plain = Samples.borrow({name: samples[name] for name in ("x", "y", "y_bin")})
    rows = np.arange(plain.size)
    offered = plain.with_columns(learner.annotate(plain)).with_columns(row=rows)
    space = cast(SampleSpace, puffer_policy("memento", batch_size=batch_size))
    batches = space.batches(offered)
    if not len(batches):
        raise SchemaError(f"{plain.size:,} samples; give at least one batch of {batch_size:,}")
    density = space.field(batches).density()

    def means(values: np.ndarray) -> np.ndarray:
        sums = np.add.reduceat(values[batches.order].astype(np.float64), batches.offsets[:-1])
        return np.asarray(sums / batches.sizes)

    labels, before = means(plain["y_bin"]), means(offered["loss"])
    parts = []
    for name, policy in policies.items():
        memory = Memory(capacity, policy, seed)
        memory.insert(offered)
        held = memory.samples
        kept = np.zeros(plain.size, bool)
        kept[held["row"]] = True
        learner.fit(held, memory.weights)
        after = np.empty(plain.size, np.float32)
        for start in range(0, plain.size, _ROWS):
            piece = plain.rows(start, start + _ROWS)
            after[start : start + piece.size] = learner.annotate(piece)["loss"]
        learner.restore(base.arrays())
        parts.append(
            Samples(
                policy=np.full(len(batches), name, "U64"),
                batch=np.arange(len(batches)),
                label=labels,
                density=density,
                loss_before=before,
                kept=means(kept),
                loss_after=means(after),
            )
        )
    return Samples.concat(parts)
