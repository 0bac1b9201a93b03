"""Ways to train on a memory; they know losses and weights, never a network library."""

from memento.training.calibrated import Calibrated
from memento.training.early_stop import EarlyStop
from memento.training.ensemble import Ensemble
from memento.training.jtt import JustTrainTwice

__all__ = ["Calibrated", "EarlyStop", "Ensemble", "JustTrainTwice"]
