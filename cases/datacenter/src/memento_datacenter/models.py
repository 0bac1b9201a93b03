"""The two networks of the data-centre case: which workload a packet is of, and how long it takes.

Blocks of a dense layer, batch normalisation (Ioffe and Szegedy, ICML 2015) and ReLU, then a dense
layer; trained with Adam (`learner`). ``PUBLISHED_CLASSIFICATION`` and
``PUBLISHED_REGRESSION`` are the settings of the paper. One training with them takes minutes on one
core, and three scenarios need hundreds, so by default

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
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from memento.arguments import Count, check_fields, number, whole

__all__ = [
    "CLASSIFICATION",
    "PUBLISHED_CLASSIFICATION",
    "PUBLISHED_REGRESSION",
    "REGRESSION",
    "NetworkSettings",
]


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

    layers: Count = 3
    units: Count = 128
    learning_rate: Annotated[float, number(above=0, words="a number above 0")] = 1e-2
    batch_size: Annotated[int, whole(2)] = 512
    epochs: Count = 15
    held_out: Annotated[float, number(0, math.nextafter(1, 0), words="a share in [0, 1)")] = 0.0
    patience: Count = 50
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    standardise: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

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
