"""A random sample of each of the last days, older days with smaller shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.random import Generator

from memento.arguments import Column, number, whole
from memento.errors import DomainError, SchemaError, SettingError
from memento.policies._policy import Choice, Policy, State, extend_mark, take_marks
from memento.policies.reservoir import smallest
from memento.samples import Samples

__all__ = ["DailyWindow"]


@dataclass(frozen=True)
class DailyWindow(Policy):
    """Keeps a random sample of each of the last days; older days have smaller shares.

    The scheme with which the bitrate controller Fugu is retrained every day (Yan et al., "Learning
    in situ: a randomized experiment in video streaming", NSDI 2020): day ``d`` back contributes in
    proportion to ``decay**d``. Of ``capacity`` places, day ``d`` back (0 is the latest) may fill
    ``floor(capacity * decay**d / sum(decay**i for i < days))``, and never more, also while there
    are few days. Every sample gets a uniform key for life and the smallest keys of each day stay,
    so what is left of a day is always a random sample of it.

    Args:
        days: How many days count, at least 1.
        decay: Share of each day relative to the day after it, in ``(0, 1]``.
        day: Column that says to which day a sample belongs: integers that count days, or datetimes
            (then days of UTC). Days without samples count as days, and late samples are accepted
            while their day counts. None: every insert is a day.

    It states no weights: they would undo the decay, which is the point of the scheme.

    Raises:
        SettingError: A setting is out of its range, or a capacity too small for a single sample.

    Example:
        >>> from memento import Memory
        >>> memory = Memory(7, DailyWindow(days=3, decay=0.5))
        >>> for day in range(4):
        ...     report = memory.insert(day=[day] * 10)
        >>> memory.samples["day"]
        array([1, 2, 2, 3, 3, 3, 3])
    """

    kind: ClassVar[str] = "daily-window"
    mark_types: ClassVar[Mapping[str, str]] = {"key": "f", "day": "i"}

    # Longer windows are none: shares of so old days are 0.
    days: Annotated[int, whole(most=100_000)] = 14
    decay: Annotated[float, number(most=1, above=0, words="a share in (0, 1]")] = 0.9
    day: Column | None = None

    def quotas(self, capacity: int) -> np.ndarray:
        """``(days,)`` int64: most samples of each day back, the latest first.

        Example:
            >>> DailyWindow().quotas(1_000_000)[:3]
            array([129662, 116696, 105026])
        """
        shares = [self.decay**d for d in range(self.days)]
        total = math.fsum(shares)
        return np.array([int(share * capacity / total) for share in shares], dtype=np.int64)

    def check_capacity(self, capacity: int | None) -> None:
        if capacity is not None and self.quotas(capacity)[0] < 1:
            least = math.ceil(math.fsum(self.decay**d for d in range(self.days)))
            raise SettingError(
                f"capacity {capacity:,} leaves the latest of {self.days} days not a single sample; "
                f"give at least {least}, or fewer days"
            )

    def check(self, fresh: Samples) -> None:
        if self.day is None:
            return
        if self.day not in fresh:
            raise SchemaError(f"column {self.day!r} is missing; there are {sorted(fresh)}")
        column = fresh[self.day]
        if column.ndim != 1 or column.dtype.kind not in "iuM":
            raise SchemaError(
                f"column {self.day!r} is of type {column.dtype} and shape {column.shape}; expected "
                "one integer (counting days) or datetime a sample; convert dates with "
                ".astype('datetime64[D]')"
            )
        if column.dtype.kind == "M" and (missing := np.flatnonzero(np.isnat(column))).size:
            raise DomainError(
                f"column {self.day!r} has no time in row {missing[0]:,} (and {len(missing) - 1:,} "
                "more rows); fill or drop them first"
            )

    def choose(
        self, held: Samples, fresh: Samples, capacity: int | None, state: State, rng: Generator
    ) -> Choice:
        fresh_days = self._days(fresh, state)
        days = extend_mark(state, "day", held, fresh_days)
        keys = extend_mark(state, "key", held, rng.random(fresh.size))
        latest = max(int(fresh_days.max()), int(state.counters.get("latest", fresh_days.max())))
        ages = latest - days
        quotas = None if capacity is None else self.quotas(capacity)
        kept = []
        for age in range(min(self.days, int(ages.max()) + 1)):
            rows = np.flatnonzero(ages == age)
            kept.append(rows if quotas is None else smallest(keys, rows, int(quotas[age])))
        rows = np.sort(np.concatenate(kept)) if kept else np.arange(0)
        counters = {"latest": latest}
        return Choice(rows, counters, take_marks({"key": keys, "day": days}, rows))

    def _days(self, fresh: Samples, state: State) -> np.ndarray:
        """``(n,)`` int64 numbers of days."""
        if self.day is None:
            return np.full(fresh.size, int(state.counters.get("latest", 0)) + 1, dtype=np.int64)
        column = fresh[self.day]
        if column.dtype.kind == "M":
            column = column.astype("datetime64[D]")
        return column.astype(np.int64)
