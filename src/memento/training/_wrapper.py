"""What learners that train another learner have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from memento.errors import SchemaError, SettingError
from memento.learner import Adaptive, Checkpointable, Learner, checkpointable

__all__ = ["Wrapper"]


class Wrapper:
    """A learner around another one, which it takes back to where it was.

    Attributes:
        learner: The other one.
        prediction: Column that it annotates.
    """

    learner: Learner
    prediction: str

    @property
    def trained(self) -> bool:
        """Whether the learner is, which it may have been before it came here."""
        return self.learner.trained

    def _going_back(self, purpose: str) -> Checkpointable:
        """The learner as one with a state.

        Args:
            purpose: What it cannot be or do without, for the message.

        Raises:
            SettingError: It adapts to the stream, or has no state.
        """
        inner, outer = type(self.learner).__name__, type(self).__name__
        if isinstance(self.learner, Adaptive):
            raise SettingError(
                f"{inner} adapts to the stream, which {outer} would hide; put it outside: "
                f"{inner}({outer}(...))"
            )
        return checkpointable(self.learner, purpose, "give it both")

    def _predictions(self, columns: Mapping[str, Any]) -> np.ndarray:
        """The column of predictions among those that the learner annotates.

        Raises:
            SchemaError: It is not there.
        """
        if self.prediction not in columns:
            raise SchemaError(
                f"{type(self.learner).__name__} annotates {sorted(columns)} and no "
                f"{self.prediction!r}; name the column of its predictions"
            )
        return np.asarray(columns[self.prediction])
