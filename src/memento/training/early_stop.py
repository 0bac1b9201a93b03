"""When to stop a training run: a loss on held-out data that has not fallen for a while."""

from __future__ import annotations

import math

from memento.arguments import Count, NotNegative, checked

__all__ = ["EarlyStop"]


@checked
class EarlyStop:
    """Watches a loss, epoch after epoch.

    Args:
        patience: How many epochs without improvement are allowed, >= 1.
        min_delta: By how much a loss has to be below the best to count as an improvement, >= 0.

    Attributes:
        best: The lowest loss that counted; infinity at first.
        best_epoch: Its epoch, from 0 on; -1 at first.
        epochs: How many losses were seen.

    Raises:
        SettingError: A number out of its range.

    Example:
        >>> stop = EarlyStop(patience=2)
        >>> for loss in (1.0, 0.5, 0.6, 0.7, 0.1):
        ...     improved = stop.update(loss)
        ...     if stop.due:
        ...         break
        >>> stop.best, stop.best_epoch, stop.epochs
        (0.5, 1, 4)
    """

    def __init__(self, patience: Count = 50, min_delta: NotNegative = 1e-6) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.best_epoch = -1
        self.epochs = 0

    def update(self, loss: float) -> bool:
        """Take note of an epoch's loss; NaN is never an improvement.

        Returns:
            Whether it is the best so far: the moment to keep a copy of the weights.
        """
        improved = loss < self.best - self.min_delta
        if improved:
            self.best = float(loss)
            self.best_epoch = self.epochs
        self.epochs += 1
        return improved

    @property
    def due(self) -> bool:
        """Whether patience has run out."""
        return self.epochs - 1 - self.best_epoch >= self.patience
