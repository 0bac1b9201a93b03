"""imbalanced-learn: a memory's policy as a sampler, alone or in a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np

from memento.errors import needs
from memento.memory import Memory
from memento.policies import ClassBalancedReservoir, Policy

with needs("imbalanced-learn", "imblearn", "MementoSampler"):
    from imblearn.base import BaseSampler
    from scipy.sparse import issparse
    from sklearn.utils import _safe_indexing, check_random_state
    from sklearn.utils._param_validation import Interval

__all__ = ["MementoSampler"]


class MementoSampler(BaseSampler):  # type: ignore[misc]
    """Keeps of a data set what a policy would keep of it as a stream.

    The policy sees the rows in their order as columns ``x`` and ``y``, and whatever is handed to
    `fit_resample` by name: ``yhat``, predicted probabilities, for one that compares predictions.

    Args:
        policy: Chooses; `ClassBalancedReservoir` if left out.
        capacity: Rows to keep: a whole number, or a share of the rows in (0, 1).
        random_state: Seed of the choice, as everywhere in scikit-learn.

    Attributes:
        sample_indices_: ``(m,)`` rows that are kept, ascending.
        sample_weight_: ``(m,)`` how many rows of the data set each stands for, as a
            ``sample_weight`` that undoes the choice where that is wanted; None if the policy
            cannot say.
        n_features_in_: Columns of the data set.

    Example:
        >>> from memento.integrations.imblearn import MementoSampler
        >>> X, y = np.arange(100.0).reshape(100, 1), np.array([0] * 90 + [1] * 10)
        >>> sampler = MementoSampler(capacity=20, random_state=0)
        >>> kept, labels = sampler.fit_resample(X, y)
        >>> np.bincount(labels), sampler.sample_weight_[[0, -1]]
        (array([10, 10]), array([9., 1.]))
    """

    _sampling_type = "bypass"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "policy": [Policy, None],
        "capacity": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
        ],
        "random_state": ["random_state"],
    }

    def __init__(
        self, policy: Policy | None = None, *, capacity: float = 0.5, random_state: Any = None
    ) -> None:
        super().__init__()
        self.policy = policy
        self.capacity = capacity
        self.random_state = random_state

    def fit_resample(self, X: Any, y: Any, **columns: Any) -> Any:
        """Choose rows.

        Args:
            X: ``(n, d)`` numbers: an array, a sparse matrix or a DataFrame.
            y: ``(n,)`` classes.
            **columns: Further columns for the policy by name, a row each.

        Returns:
            The rows of both that are kept, as they came.

        Raises:
            SchemaError, DomainError: Columns that the policy cannot work with.
        """
        return super().fit_resample(X, y, **columns)

    def _fit_resample(self, X: Any, y: np.ndarray, **columns: Any) -> Any:
        policy = ClassBalancedReservoir("y") if self.policy is None else self.policy
        rows = X.shape[0]
        # Validated to be a whole number, or a share.
        capacity = self.capacity if self.capacity >= 1 else max(1, self.capacity * rows)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        memory = Memory(int(capacity), policy, seed=int(seed), ids="row number")
        given = {"row number": np.arange(rows), "y": y, **columns}
        # Sparse rows are spelled out only for a policy that looks at them.
        if not issparse(X):
            given["x"] = X
        elif "x" in (*policy.reads, *(getattr(policy, "sort_by", None) or ())):
            given["x"] = X.toarray()
        memory.insert(_comparable(given))
        self.sample_indices_ = memory.samples["row number"]
        self.sample_weight_ = memory.weights
        return _safe_indexing(X, self.sample_indices_), _safe_indexing(y, self.sample_indices_)

    def _more_tags(self) -> dict[str, Any]:
        return {**super()._more_tags(), "sample_indices": True}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = True
        return tags


def _comparable(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns with texts where there are objects, which a memory does not hold."""
    made = {name: np.asarray(column) for name, column in columns.items()}
    return {n: c.astype(str) if c.dtype.kind == "O" else c for n, c in made.items()}
