"""Random sampling that favours what the deployed model gets wrong, and knows by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.random import Generator

from memento.arguments import Column, Share, number
from memento.errors import DomainError
from memento.policies._columns import require
from memento.policies._policy import State
from memento.policies._weighted import WeightedReservoir
from memento.samples import Samples

__all__ = ["LossReservoir"]

_LEAST = 1e-3  # difficulty of what is predicted for certain
_MOST = 20  # times the mean; a single loss without bounds would leave no room for others


@dataclass(frozen=True)
class LossReservoir(WeightedReservoir):
    """Keeps a random sample of the stream in which what is difficult is over-represented.

    A weighted bottom-k sample (Cohen and Kaplan, "Summarizing data using bottom-k sketches", 2007)
    by importance: the loss of the model that was deployed when a sample came says how difficult it
    is. Its weight is ``w = uniform + (1 - uniform) * difficulty``, where ``difficulty`` is
    ``1 - exp(-loss) + 0.001``, at most 20 times its mean, divided by its mean over the insert.
    Weights stay the same for life, which makes the inclusion probabilities exact. They are relative
    to their insert: as long as the spread of difficulties is the same, each insert's share of the
    memory is its share of the stream, also where models get better.

    The memory estimates the stream: a sum over the samples held, each times its training weight
    (with ``exponent=1``), is on average the sum over all samples seen. Train with these weights:
    without them a model learns that difficult samples are common.

    Args:
        loss: Column of losses, at least 0, one a sample, by the deployed model. Samples without one
            (NaN, or no column, as before the first training) have the weight 1.
        scale: "log" for log losses in nats, where the difficulty is ``1 - p`` of the true class;
            "absolute" for absolute errors, where it is the loss itself.
        uniform: Share of the weight, in ``[0, 1]``, that is the same for all: at 1 this is a random
            sample.
        exponent: In ``[0, 1]``. Training weights are ``(1 / pi) ** exponent``. Below 1, training
            itself favours the difficult: a better tail for a worse median.
        half_life: Inserts after which a sample counts half, in what is kept and in the weights;
            None: never.
        identify_by: A column of integers that tell samples apart. Keys are then a hash of them
            instead of being drawn, so the same sample has the same key in every memory.

    Wrong labels are difficult, too: where labels are noisy, more of the memory is noise.

    Raises:
        SettingError: A setting is out of its range.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(100, LossReservoir(), seed=1)
        >>> memory.insert(loss=np.where(np.arange(1000) % 50 == 0, 3.0, 0.1))
        Report(offered=1000, kept=100, discarded=900)
        >>> int((memory.samples["loss"] == 3).sum())  # of 20; a random sample holds 2
        6
    """

    kind: ClassVar[str] = "loss-reservoir"

    loss: Column = "loss"
    scale: Literal["log", "absolute"] = "log"
    uniform: Share = 0.5
    exponent: Annotated[float, number(0, 1, words="a number in [0, 1]")] = 1.0
    half_life: Annotated[float, number(above=0, words="inserts, above 0")] | None = None
    identify_by: Column | None = None

    @property
    def tolerates(self) -> tuple[str, ...]:
        return (self.loss,)

    def check(self, fresh: Samples) -> None:
        super().check(fresh)
        if self.loss not in fresh:
            return
        losses = require(fresh, self.loss, 0, "biuf", "one number")
        wrong = np.flatnonzero(~((losses >= 0) & (losses < np.inf) | np.isnan(losses)))
        if len(wrong):
            raise DomainError(
                f"column {self.loss!r} holds {losses[wrong[0]]} in row {wrong[0]:,}; a loss is "
                "finite and 0 or more, or NaN where there is none"
            )

    def fresh_weights(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> np.ndarray:
        weights = np.ones(fresh.size)
        if self.loss in fresh:
            losses = fresh[self.loss].astype(np.float64)
            known = ~np.isnan(losses)
            weights[known] = self._weights_of(losses[known])
        return weights

    def _weights_of(self, losses: np.ndarray) -> np.ndarray:
        if not len(losses):
            return losses
        if self.scale == "log":
            difficulty = _LEAST - np.expm1(-losses)
        else:
            difficulty = losses / (losses.max() or 1.0)
            difficulty += _LEAST * (difficulty.mean() or 1.0)
        difficulty = np.minimum(difficulty, _MOST * difficulty.mean())
        weights: np.ndarray = self.uniform + (1 - self.uniform) * difficulty / difficulty.mean()
        return weights
