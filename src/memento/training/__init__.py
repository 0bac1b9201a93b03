"""Ways to train on a memory; they know losses and weights, never a network library."""

from memento.training.early_stop import EarlyStop

__all__ = ["EarlyStop"]
