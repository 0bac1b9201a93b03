"""Selection by one number a sample: loss, confidence, frequency of the label, a flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.random import Generator

from memento.arguments import Column, Count, flag, names, number
from memento.arguments import require as require_argument
from memento.batching import Missing, Remainder, make_batches
from memento.distances import check_probabilities
from memento.errors import SettingError
from memento.policies._columns import flags, labels, numbers, require
from memento.policies._draw import discards
from memento.policies._policy import Choice, Policy, State, column_of, everything
from memento.samples import Samples

__all__ = ["Metric"]

Measure = Literal["value", "negative", "confidence", "frequency", "set", "unset"]


@dataclass(frozen=True)
class Metric(Policy):
    """Discards samples with probability ``softmax(metric / temperature)``.

    All that have to go are drawn at once, without replacement, from the metrics as they are before.
    The named constructors say what is measured: `of_loss`, `of_confidence`,
    `of_label_frequency`, `of_flag`; any other column of numbers will do as it is: large values go
    first.

    Args:
        column: Name of the column that is measured.
        measure: How a column becomes a metric: ``"value"`` (as it is), ``"negative"``,
            ``"confidence"`` (largest entry of each row), ``"frequency"`` (share of samples, held
            and new, that have the same label), ``"set"`` or ``"unset"`` (1 where a flag is, or is
            not).
        temperature: 0 always discards the largest metric (of equals the first); ``math.inf``
            discards at random. In the unit of the metric.
        batch_size: None selects single samples; a number forms batches, which have the mean metric
            of their samples and stay or go together (but for one that fills the memory up, with
            ``remainder="even"``).
        sort_by: Columns that batches are formed by, most important first; see `sort_order`.
        remainder: What happens to samples that do not fill a batch; see `make_batches`.
        missing: What missing sort columns do: a warning, an error, or nothing.

    Raises:
        SettingError: A setting is out of its range.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(2, Metric.of_loss("loss", temperature=0.0))
        >>> memory.insert(loss=[0.1, 2.0, 0.3, 1.0])
        Report(offered=4, kept=2, discarded=2)
        >>> memory.samples["loss"]
        array([2., 1.])
    """

    kind: ClassVar[str] = "metric"

    column: Column
    measure: Measure = "value"
    temperature: Annotated[
        float, number(0, infinite=True, words="0 (always the largest metric) or more")
    ] = 0.1
    batch_size: Count | None = None
    sort_by: Sequence[str] = ("y", "yhat", "x")
    remainder: Remainder = "even"
    missing: Missing = "warn"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sort_by", names("sort_by", self.sort_by))
        super().__post_init__()

    @classmethod
    def of_loss(cls, column: str = "loss", *, temperature: float = 0.1, **batching: Any) -> Metric:
        """Discards small losses, keeps what is hard: the metric is the negative loss.

        Args:
            column: One number a sample.
            temperature: As for the class, in the unit of the loss.
            **batching: The arguments of the class from ``batch_size`` on.
        """
        return cls(column, "negative", temperature, **batching)

    @classmethod
    def of_confidence(
        cls, column: str = "yhat", *, temperature: float = 0.1, **batching: Any
    ) -> Metric:
        """Discards confident predictions: the metric is the probability of the predicted class.

        Args:
            column: Probabilities of shape ``(n, classes)``.
            temperature: As for the class.
            **batching: The arguments of the class from ``batch_size`` on.
        """
        return cls(column, "confidence", temperature, **batching)

    @classmethod
    def of_label_frequency(
        cls, column: str = "y", *, temperature: float = 0.01, **batching: Any
    ) -> Metric:
        """Discards frequent labels: the metric is the share of samples that have the same label.

        Args:
            column: One integer, bool or string a sample.
            temperature: As for the class.
            **batching: The arguments of the class from ``batch_size`` on.
        """
        return cls(column, "frequency", temperature, **batching)

    @classmethod
    def of_flag(
        cls, column: str, *, keep: bool = True, temperature: float = 0.01, **batching: Any
    ) -> Metric:
        """Keeps samples with a flag, such as "the session stalled", and discards the others.

        Args:
            column: Bools, or 0 and 1.
            keep: False keeps those without the flag instead.
            temperature: As for the class.
            **batching: The arguments of the class from ``batch_size`` on.
        """
        require_argument("keep", keep, flag())
        return cls(column, "unset" if keep else "set", temperature, **batching)

    def check(self, fresh: Samples) -> None:
        if self.measure == "confidence":
            check_probabilities(
                self.column, require(fresh, self.column, 1, "f", "one row of probabilities")
            )
        elif self.measure == "frequency":
            labels(fresh, self.column)
        elif self.measure in ("set", "unset"):
            flags(fresh, self.column)
        else:
            numbers(fresh, self.column)

    def check_capacity(self, capacity: int | None) -> None:
        size = self.batch_size
        if None not in (capacity, size) and self.remainder == "drop" and capacity < size:  # type: ignore[operator]
            raise SettingError(
                f"capacity {capacity:,} is less than one batch of {size}: nothing could be kept; "
                "raise the capacity or lower batch_size"
            )

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        rows = everything(held, fresh)
        if capacity is None or len(rows) <= capacity:
            return Choice(rows)
        metric = self._metric(held, fresh)
        if self.batch_size is None:
            gone = discards(metric, len(rows) - capacity, self.temperature, rng)
            return Choice(np.delete(rows, gone))
        batches = make_batches(
            (held, fresh),
            self.batch_size,
            self.sort_by,
            remainder=self.remainder,
            missing=self.missing,
        )
        sizes = batches.sizes
        means = np.add.reduceat(metric[batches.order], batches.offsets[:-1]) / sizes
        excess = len(batches.order) - capacity
        gone = discards(means, len(means), self.temperature, rng)
        enough = int(np.searchsorted(np.cumsum(sizes[gone]), excess)) + 1 if excess > 0 else 0
        kept = np.ones(len(sizes), dtype=bool)
        kept[gone[:enough]] = False
        rows = batches.order[np.repeat(kept, sizes)]
        if self.remainder == "even" and enough:  # filled up from the batch that went last
            spare = rng.permutation(batches.rows(int(gone[enough - 1])))
            rows = np.concatenate([rows, spare[: capacity - len(rows)]])
        return Choice(np.sort(rows))

    def _metric(self, held: Samples, fresh: Samples) -> np.ndarray:
        """``(held + fresh,)`` float64, large where samples shall go."""
        if self.measure == "frequency":
            values = column_of(self.column, held, fresh)
            _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
            shares: np.ndarray = counts[places] / len(values)
            return shares
        parts = [part[self.column] for part in (held, fresh) if part.size]
        if self.measure == "confidence":
            parts = [part.max(axis=1) for part in parts]
        metric = np.concatenate(parts).astype(np.float64)
        if self.measure == "negative":
            return -metric
        return 1.0 - metric if self.measure == "unset" else metric
