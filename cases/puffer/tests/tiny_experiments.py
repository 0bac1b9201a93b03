"""A page of experiments for tests: the real bodies of the Puffer case, in a few seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import small_results

from memento.runner.spec import Experiment
from memento_puffer.studies.experiments import Period, declared

SCALE = replace(
    small_results.SCALE,
    periods=(Period("tiny", "2024-01-01", 3, (("halved_capacity", 1),), seed=1),),
    viewers=3,
    capacity=100,
)


def experiments() -> Iterator[Experiment]:
    yield from declared(SCALE)
