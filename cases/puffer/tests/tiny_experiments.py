"""A page of experiments for tests: the real bodies of the Puffer case, in a few seconds."""

from __future__ import annotations

from collections.abc import Iterator

from memento.runner.spec import Experiment
from memento_puffer.predictor.ttp_training import TrainingSettings
from memento_puffer.studies.experiments import Period, Scale, declared

SCALE = Scale(
    prefix="tiny-",
    periods=(Period("tiny", "2024-01-01", 3, (("halved_capacity", 1),), seed=1),),
    viewers=3,
    capacity=100,
    batch_size=16,
    batches=(8, 16, 32, 64, 128),
    interval=1,
    freeze_after=2,
    members=2,
    training=TrainingSettings(epochs=2, scratch_epochs=3, held_out=0.0, patience=None),
)


def experiments() -> Iterator[Experiment]:
    yield from declared(SCALE)
