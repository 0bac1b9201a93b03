"""LARS, the loss-aware balanced reservoir."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.random import Generator

from memento.arguments import Column
from memento.errors import SchemaError
from memento.policies._columns import labels, numbers
from memento.policies._features import random_rows
from memento.policies._policy import Choice, Policy, State, column_of, everything
from memento.samples import Samples

__all__ = ["LossAwareReservoir"]


@dataclass(frozen=True)
class LossAwareReservoir(Policy):
    """Keeps labels balanced and losses high (LARS).

    Buzzega et al., "Rethinking Experience Replay: a Bag of Tricks for Continual Learning", ICPR
    2020. A new sample enters a full memory with probability ``capacity / seen``, as in a reservoir.
    Its victim, one of the samples held, is not any: with ``n_i`` the samples held that have the
    label of sample i, and ``l_i`` its loss,

        s_i = 0.5 * a * (-l_i) + 0.5 * n_i,   a = mean(n) / mean(|l|),

    it is drawn with probability proportional to ``s_i - min(s)``: samples of frequent labels and
    small losses go first. Scores follow every single replacement. Losses are those in the columns:
    annotate what is held again when the model has changed.

    Args:
        label: Column of integers, bools or strings, one a sample.
        loss: Column of finite numbers, one a sample, by the current model.
        missing: For samples without losses, as before the first training: "error"; "equal" to
            balance labels alone until there are any; or "random" for a random sample (Vitter 1985)
            until then.
        scale: "counts" for the ``a`` above, with which losses weigh as much as labels, so that one
            outlying loss makes all other scores alike. "published" for that of the code which the
            paper's authors published, ``a = 1 / (mean(n) * mean(|l|))``: labels decide, and losses
            only among samples of labels that are equally frequent.

    Time grows with ``samples that enter * (labels + log(samples))``. There are no weights: the
    probability to be held is not known.

    Raises:
        SettingError: An unknown value of ``missing`` or ``scale``.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(4, LossAwareReservoir(label="y", loss="loss"), seed=0)
        >>> memory.insert(y=[0] * 6 + [1] * 2, loss=[0.1] * 6 + [2.0] * 2).kept
        4
    """

    kind: ClassVar[str] = "loss-aware-reservoir"

    label: Column = "y"
    loss: Column = "loss"
    missing: Literal["error", "equal", "random"] = "error"
    scale: Literal["counts", "published"] = "counts"

    def check(self, fresh: Samples) -> None:
        labels(fresh, self.label)
        if self.loss not in fresh and self.missing == "error":
            raise SchemaError(
                f"column {self.loss!r} is missing; there are {sorted(fresh)}; add it, or give "
                "missing='equal' or 'random' for as long as there is none"
            )
        if self.loss in fresh:
            numbers(fresh, self.loss)

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        seen = int(state.counters.get("seen", 0))
        counters = {"seen": seen + fresh.size}
        rows = everything(held, fresh)
        if capacity is None or len(rows) <= capacity:
            return Choice(rows, counters)
        if self.loss not in fresh and self.missing == "random":
            return Choice(random_rows(held, fresh, capacity, seen, rng), counters)
        late = rows[capacity:]  # those that find the memory full
        seen_then = seen + late - held.size + 1
        late = late[rng.random(len(late)) < capacity / seen_then]
        if not len(late):
            return Choice(rows[:capacity], counters)
        from memento._kernels import replacement

        rows = np.concatenate([rows[:capacity], late])
        _, codes = np.unique(column_of(self.label, held, fresh)[rows], return_inverse=True)
        if self.loss in fresh:
            losses = column_of(self.loss, held, fresh)[rows].astype(np.float64)
        else:
            losses = np.ones(len(rows))
        kept = replacement.replace(
            codes, losses, capacity, rng.random(len(late)), self.scale == "published"
        )
        return Choice(rows[kept], counters)
