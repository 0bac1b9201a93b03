"""What studies in several processes are made of: they import it by its name."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from memento import FIFO, Samples
from memento.errors import DomainError
from memento.study import engine
from memento.testing import ConstantLearner, ToyStream

if "MEMENTO_TEST_SLEEP" in os.environ:
    engine._SAVE_EVERY = 0.0  # to be killed after any step, not after seconds


def units(days: int = 7) -> list[tuple[str, Samples]]:
    """Names that look like numbers stay names."""
    stream = ToyStream(days=days, size=120, seed=1, drift=0.4)
    return [(f"{i:03d}", samples.select(["x", "label"])) for i, (_, samples) in enumerate(stream)]


@dataclass(frozen=True)
class OurOwn(FIFO):
    """A policy of a user."""

    kind: ClassVar[str] = "tests-our-own"


def make(seed: int) -> ConstantLearner:
    return ConstantLearner()


class Slow(ConstantLearner):
    """Takes its time, so that it can be killed on its way."""

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        super().fit(samples, weights)
        time.sleep(float(os.environ.get("MEMENTO_TEST_SLEEP", "0")))


def make_slow(seed: int) -> Slow:
    return Slow()


class Plain:
    """Has no state, so no run of it can go on within."""

    def __init__(self) -> None:
        self._inner = ConstantLearner()

    @property
    def trained(self) -> bool:
        return self._inner.trained

    def fit(self, samples: Any, weights: Any = None) -> None:
        self._inner.fit(samples, weights)

    def annotate(self, samples: Any) -> Any:
        return self._inner.annotate(samples)


def make_plain(seed: int) -> Plain:
    return Plain()


class Broken(ConstantLearner):
    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        raise DomainError("these samples are no good; give others")


def make_broken(seed: int) -> Broken:
    return Broken()


def same(learner: Any) -> Any:
    return learner


def stream() -> Iterator[tuple[str, Samples]]:
    return iter(units())
