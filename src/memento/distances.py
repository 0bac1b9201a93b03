"""Distances between batches: summarise each batch once, then compare summaries.

A distance reads one or more columns, turns every batch into one row of numbers (a distribution, a
density, a mean), and compares rows. `JensenShannon` is the one of the paper (Endres and Schindelin,
"A new metric for probability distributions", 2003); others are here for comparison, and any
subclass of `Distance`, or `Custom` with two functions, joins in on equal terms.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np

from memento import missing
from memento._kernels import SMALL_TERMS, fitting
from memento.arguments import FUNCTION, Column, Expected, check_fields, number, whole
from memento.batching import Batches
from memento.errors import DomainError, NewLabelError, SchemaError, SettingError
from memento.grids import grid_of, simpson_weights, smoothed, spread, support_of
from memento.kinds import class_of, described, made_of, settings_of
from memento.samples import Samples
from memento.widths import WIDTH_RULES, check_rule

__all__ = [
    "Custom",
    "Distance",
    "JensenShannon",
    "Minkowski",
    "Wasserstein",
    "by_size",
    "distance_from_settings",
    "in_blocks",
    "named_distances",
    "quantiles_of",
]

#: Terms of a divergence in which a probability (or density) is below this count as zero.
TINY = 1e-6
# Most numbers that a batch is summarised by: summaries have to fit in memory.
_MOST = 1 << 24
#: Probabilities of a sample may miss a sum of 1 by this much.
SUM_TOLERANCE = 1e-3
_POSITIVE = number(above=0, words='"silverman", "scott", "isj" or a positive number')
_WIDTH = Expected(
    _POSITIVE.words,
    lambda width: _POSITIVE.holds(width) or (isinstance(width, str) and width in WIDTH_RULES),
)


#: Makers of distances by the name that settings use; subclasses with a ``kind`` add themselves.
named_distances: dict[str, Callable[..., Distance]] = {}


class Distance(ABC):
    """Compares batches by what it summarises of them.

    Subclasses are immutable, say which columns they read and how many axes one sample has in each
    (`axes`), and implement `summarise` and `compare`. A ``kind`` makes them known by name.
    """

    #: Name under which settings on disk refer to this distance; None: give the policy when loading.
    kind: ClassVar[str | None] = None
    #: Whether it is a metric: symmetric, and no way is shorter than the direct one. Summaries can
    #: then be put into cells, which approximate densities are made of.
    metric: bool = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if vars(cls).get("kind") is not None:
            named_distances[cls.kind] = cls  # type: ignore[index]

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    @abstractmethod
    def axes(self) -> Mapping[str, int]:
        """The columns that are read, and for each the number of axes of one sample."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(self.axes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the columns that hold labels, of which a batch should hold one only."""
        return ()

    @property
    def appended(self) -> tuple[str, ...]:
        """Columns whose rows may get longer, by zeros at the end: probabilities of new classes."""
        return ()

    @abstractmethod
    def summarise(self, batches: Batches) -> np.ndarray:
        """One row a batch.

        Args:
            batches: ``n`` batches, not empty.

        Returns:
            ``(n, ...)`` float64.
        """

    @abstractmethod
    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances of every row of ``first`` from every row of ``second``.

        Args:
            first: ``(n, ...)`` summaries of batches.
            second: ``(m, ...)`` summaries of batches.

        Returns:
            ``(n, m)`` float64, 0 for equal summaries.
        """

    def check(self, samples: Samples) -> None:
        """Raise if these samples cannot be summarised.

        Raises:
            SchemaError: A column is missing, or its samples have another number of axes.
            DomainError: Values are outside the domain; the message names the first such row.
        """
        for name, axes in self.axes.items():
            if name not in samples:
                raise SchemaError(f"column {name!r} is missing; there are {sorted(samples)}")
            column = samples[name]
            if column.dtype.kind not in "biuf":
                raise SchemaError(f"column {name!r} is of type {column.dtype}; expected numbers")
            if column.ndim != axes + 1:
                expected = "one number" if axes == 0 else "one row of numbers"
                raise SchemaError(
                    f"column {name!r} has the shape {column.shape}; expected {expected} a sample"
                )
            self._check_values(name, column)

    def _check_values(self, name: str, column: np.ndarray) -> None:
        """Raise if a column of the right form holds values that cannot be summarised."""
        check_finite(name, column)

    def bind(self, parts: Sequence[Samples]) -> Distance:
        """This distance with everything fixed that has to be derived from data.

        Args:
            parts: All samples that take part in one computation.
        """
        return self

    def simplex(self, summaries: np.ndarray) -> np.ndarray | None:
        """Discrete distributions whose Jensen-Shannon distances are those of the summaries.

        There are fast loops for these. None, the default: the distance is of another kind.

        Args:
            summaries: ``(n, k)`` summaries of batches.

        Returns:
            ``(n, k)`` float64, rows that sum to about 1.
        """
        return None

    def matrix(self, batches: Any, others: Any = None) -> np.ndarray:
        """Distances between batches.

        Args:
            batches: ``n`` batches: `Batches`, a sequence of mappings (one a batch), or for one
                column an array ``(n, samples, ...)`` or a sequence of arrays; an array with one
                axis less has one sample a batch.
            others: ``m`` batches to compare with; the same batches if left out.

        Returns:
            ``(n, m)`` float64.

        Raises:
            SchemaError: The batches have another form.
            DomainError: Values are outside the domain of this distance.
        """
        first = Batches.of(batches, self.axes)
        second = first if others is None else Batches.of(others, self.axes)
        parts = first.parts if others is None else first.parts + second.parts
        for part in parts:
            self.check(part)
        bound = self.bind(parts)
        summaries = bound.summarise(first)
        return bound.compare(summaries, summaries if others is None else bound.summarise(second))

    def settings(self) -> dict[str, Any]:
        """What `distance_from_settings` needs to make an equal distance; plain JSON values."""
        return {"kind": self.kind, **described(self)}


def check_finite(name: str, column: np.ndarray) -> None:
    """Raise if a column of numbers holds NaN or an infinite value.

    Raises:
        DomainError: With the count and the first row.
    """
    if column.dtype.kind != "f":
        return
    # A sum is finite unless an entry is not (or it overflows): one cheap pass in the usual case.
    with np.errstate(all="ignore"):
        if np.isfinite(column.sum()):
            return
    bad = np.flatnonzero(~np.isfinite(column.reshape(len(column), -1)).all(axis=1))
    if len(bad):
        raise DomainError(
            f"column {name!r}: {len(bad):,} of {len(column):,} rows hold NaN or infinite values, "
            f"the first is row {bad[0]}; drop or fill them"
        )


class _OfSingles(Distance):
    """Reads one column, of single values."""

    column: str

    @property
    def axes(self) -> Mapping[str, int]:
        return {self.column: 0}


class _OfRows(Distance):
    """Reads one column, of rows of numbers, and summarises a batch by its mean row."""

    column: str

    @property
    def axes(self) -> Mapping[str, int]:
        return {self.column: 1}

    def summarise(self, batches: Batches) -> np.ndarray:
        first, second = batches.halves(self.column)
        if first.dtype.kind != "f" or first.dtype.itemsize < 4:
            first, second = first.astype(np.float64), second.astype(np.float64)
        means = np.zeros((len(batches), first.shape[1]))
        summaries = fitting("summaries", len(batches.order))
        summaries.mean_rows(first, second, batches.order, batches.offsets, means)
        return means


class _OnGrid(Distance):
    """Compares densities, or distributions, on a grid that it integrates over."""

    support: tuple[float, ...] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.support is not None:
            object.__setattr__(self, "support", grid_of(self.support))

    def check(self, samples: Samples) -> None:
        super().check(samples)
        for name, axes in self.axes.items():
            width = samples[name].shape[1] if axes else 0
            if axes and width != len(self.support or ()):
                raise SchemaError(
                    f"column {name!r} has {width} values a row; the support has "
                    f"{len(self.support or ())} points"
                )

    @property
    def quadrature(self) -> np.ndarray:
        """Weights of the integral over a summary."""
        return simpson_weights(np.asarray(self.support))


class JensenShannon(Distance):
    """Jensen-Shannon distance in base 2, between 0 (equal) and 1 (disjoint).

    ``sqrt((KL(p || m) + KL(q || m)) / 2)`` with ``m = (p + q) / 2``: sums for discrete
    distributions, Simpson's rule over the support for densities; terms in which ``p`` or ``m`` is
    below 1e-6 count as 0 (paper, definition 1). Make one with `of_labels`, `of_probabilities`,
    `of_values` or `of_densities`, which differ in how they summarise a batch.

    Example:
        >>> JensenShannon.of_labels("y", classes=2).matrix([[0, 0], [0, 1], [1, 1]]).round(3)
        array([[0.   , 0.558, 1.   ],
               [0.558, 0.   , 0.558],
               [1.   , 0.558, 0.   ]])
    """

    metric = True

    @staticmethod
    def of_labels(column: str, classes: int | None = None) -> JensenShannon:
        """Of frequencies of labels; missing ones (NaN, an empty text) are not counted.

        Args:
            column: ``(n,)`` integers, bools or texts.
            classes: Labels are integers in ``[0, classes)``, and others are refused. None: any
                labels, those that the samples in question have; so new ones may come at any time.
        """
        return _OfLabels(column, classes)

    @staticmethod
    def of_probabilities(column: str) -> JensenShannon:
        """Of predicted probabilities: a batch is the mean (mixture) of its rows.

        Args:
            column: ``(n, k)`` probabilities; each row sums to 1 within 1e-3.
        """
        return _OfProbabilities(column)

    @staticmethod
    def of_values(
        column: str,
        support: Any = None,
        bandwidth: str | float = "silverman",
        *,
        mass: float = 0.999,
        points: int = 128,
    ) -> JensenShannon:
        """Of densities of real values, by Gaussian kernel density estimation in each batch.

        Values are clipped to the support. Densities are renormalised to integrate to 1.

        Args:
            column: ``(n,)`` finite numbers, in any unit.
            support: Increasing grid, in the unit of the column; derived from the data if left out.
            bandwidth: The kernel's width in the unit of the column, or a rule for it:
                ``"silverman"``, ``"scott"`` or ``"isj"`` (improved Sheather-Jones, for values with
                several modes; by the package KDEpy). Where a rule fails (constant values) it is a
                tenth of the range of the grid.
            mass: Share of the data that a derived grid covers, in (0, 1].
            points: Points of a derived grid.
        """
        grid = None if support is None else grid_of(support)
        made = _OfValues(column, grid, bandwidth, mass, points)
        check_rule(str(bandwidth))
        return made

    @staticmethod
    def of_densities(column: str, support: Any) -> JensenShannon:
        """Of densities that are given on a grid: a batch is the mean of its rows.

        Args:
            column: ``(n, g)`` densities, not negative.
            support: ``(g,)`` increasing grid, in the unit of the values.
        """
        return _OfDensities(column, grid_of(support))

    @property
    def quadrature(self) -> np.ndarray | None:
        """Weights of the integral over a summary; None for sums."""
        return None

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        distances = np.empty((len(first), len(second)))
        module = fitting("jensen_shannon", len(first) * second.size, SMALL_TERMS)
        module.exact_matrix(first, second, self.quadrature, distances)
        return distances

    def simplex(self, summaries: np.ndarray) -> np.ndarray:
        """Summaries as rows that sum to about 1, with the same distances.

        With quadrature weights w the integral of ``m log m`` is the sum of ``(w m) log (w m)``
        minus that of ``(w log w) m``, which is linear in m and so cancels in the distance:
        densities become discrete distributions ``w p``. What is negligible is set to 0 here once.
        """
        kept = np.where(summaries < TINY, 0.0, summaries)
        return kept if self.quadrature is None else kept * self.quadrature


@dataclass(frozen=True, repr=False)
class _OfLabels(_OfSingles, JensenShannon):
    kind: ClassVar[str] = "jensen-shannon-labels"
    column: Column
    classes: Annotated[int, whole(most=_MOST)] | None = None
    #: Labels in ascending order, as `bind` finds them; None before it.
    known: np.ndarray | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        classes = "" if self.classes is None else f", classes={self.classes}"
        return f"JensenShannon.of_labels({self.column!r}{classes})"

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.column,)

    def check(self, samples: Samples) -> None:
        if self.column not in samples:
            raise SchemaError(f"column {self.column!r} is missing; there are {sorted(samples)}")
        labels = samples[self.column]
        if labels.ndim != 1:
            raise SchemaError(
                f"column {self.column!r} has the shape {labels.shape}; expected one label a sample"
            )
        kind = labels.dtype.kind
        if kind == "f":
            known = labels[~np.isnan(labels)]
            if not (np.isfinite(known) & (known == np.trunc(known))).all():
                raise SchemaError(
                    f"column {self.column!r} is of type {labels.dtype} and holds fractions; labels "
                    "are integers or texts. For numbers use JensenShannon.of_values"
                )
        elif kind in "US" and self.classes is not None:
            raise SchemaError(
                f"column {self.column!r} is of type {labels.dtype}; with classes={self.classes} "
                f"labels are integers from 0 to {self.classes - 1}. Leave classes out, which takes "
                f"texts (--labels {self.column} on the command line), or number them in Python: "
                f"np.unique({self.column}, return_inverse=True)[1]"
            )
        elif kind not in "biuUS":
            raise SchemaError(
                f"column {self.column!r} is of type {labels.dtype}; expected integers, bools or "
                "texts"
            )
        if self.classes is not None and len(labels):
            self._check_range(labels, self.classes)

    def _check_range(self, labels: np.ndarray, classes: int) -> None:
        """Raise if a label is none of the classes."""
        out = (labels < 0) | (labels >= classes)  # False for NaN
        if not out.any():
            return
        bad = np.flatnonzero(out)
        first = labels[bad[0]].item()
        highest = int(labels[bad].max())
        more = f"give classes={highest + 1}, or " if highest >= classes else ""
        raise NewLabelError(
            self.column,
            f"column {self.column!r}: {len(bad):,} of {len(labels):,} labels are out of range, the "
            f"first is {first:g} in row {bad[0]}; expected 0 to {classes - 1}",
            f". For new classes {more}leave classes out, which takes any; a memory in use goes on "
            "with memory.use(policy)",
            highest + 1 if highest >= classes else None,
        )

    def bind(self, parts: Sequence[Samples]) -> Distance:
        if self.classes is not None or self.known is not None:
            return self
        different = {id(part): part[self.column] for part in parts if part.size}
        found = [_distinct(labels) for labels in different.values()]
        known = np.unique(np.concatenate(found)) if found else np.arange(1)
        return replace(self, known=known if len(known) else np.arange(1))

    def summarise(self, batches: Batches) -> np.ndarray:
        if self.classes is None and self.known is None:
            return self.bind(batches.parts).summarise(batches)
        summaries = fitting("summaries", len(batches.order))
        classes = len(self._known())
        first, second = (self._codes(half) for half in batches.halves(self.column))
        missing = any(len(half) and half.max() == classes for half in (first, second))
        shares = np.zeros((len(batches), classes + missing))
        summaries.label_frequencies(first, second, batches.order, batches.offsets, shares)
        if not missing:
            return shares
        counts = np.rint(shares[:, :classes] * batches.sizes[:, None])
        return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        """Labels as numbers from 0; what is missing has the number behind the last."""
        if labels.dtype.kind == "b":
            labels = labels.view(np.uint8)
        known = self._known()
        # Numbers 0, 1, 2 ... are their own codes, without a copy.
        counted = known.dtype.kind in "iu" and known[0] == 0 and known[-1] == len(known) - 1
        if counted and labels.dtype.kind in "iu":
            return labels
        codes = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        codes[known[codes] != labels] = len(known)
        return codes

    def _known(self) -> np.ndarray:
        return np.arange(self.classes or 1) if self.known is None else self.known


# Whole numbers within so wide a range are counted rather than sorted.
_RANGE = 1 << 16


def _distinct(labels: np.ndarray) -> np.ndarray:
    """Labels that are there, ascending, without those missing."""
    if labels.dtype.kind == "b":
        labels = labels.view(np.uint8)
    if labels.dtype.kind in "iu" and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if high - low < _RANGE:
            # As int64, in which the difference of small integers fits, or uint64 beyond.
            wide = labels.astype(np.int64 if high < 2**63 else np.uint64, copy=False)
            lowest = wide.dtype.type(low)
            there = np.flatnonzero(np.bincount((wide - lowest).astype(np.int64)))
            return there.astype(wide.dtype) + lowest
        return np.unique(labels)
    known = labels[~missing.lacking(labels)]
    found: np.ndarray = np.unique(known)
    return found.astype(np.int64) if found.dtype.kind == "f" else found


@dataclass(frozen=True, repr=False)
class _OfProbabilities(_OfRows, JensenShannon):
    kind: ClassVar[str] = "jensen-shannon-probabilities"
    column: Column

    def __repr__(self) -> str:
        return f"JensenShannon.of_probabilities({self.column!r})"

    @property
    def appended(self) -> tuple[str, ...]:
        return (self.column,)

    def _check_values(self, name: str, column: np.ndarray) -> None:
        check_probabilities(name, column)


def check_probabilities(name: str, rows: np.ndarray) -> None:
    """Raise if rows are no probability distributions.

    Args:
        name: Of the column, for the message.
        rows: ``(n, k)`` numbers, one row of probabilities a sample.

    Raises:
        SchemaError: There are no classes.
        DomainError: An entry is not finite or negative, or a row does not sum to 1 within 1e-3; the
            message names such a row.
    """
    if not len(rows):
        return
    if not rows.shape[1]:
        raise SchemaError(f"column {name!r} has no classes; expected at least one a row")
    found = fitting("sorting", len(rows)).mode_and_value(rows)
    if found.nonfinite_row >= 0:
        check_finite(name, rows)
    if found.minimum < 0:
        bad = int((rows < 0).any(axis=1).sum())
        raise DomainError(
            f"column {name!r}: {bad:,} of {len(rows):,} rows hold negative probabilities, row "
            f"{found.minimum_row} the lowest, {found.minimum:.4g}; expected values from 0 to 1"
        )
    if found.deviation > SUM_TOLERANCE:
        sums = rows.sum(axis=1, dtype=np.float64)
        bad = int(np.count_nonzero(np.abs(sums - 1) > SUM_TOLERANCE))
        raise DomainError(
            f"column {name!r}: {bad:,} of {len(rows):,} rows do not sum to 1 within "
            f"{SUM_TOLERANCE:g}, the furthest is row {found.deviation_row} with "
            f"{sums[found.deviation_row]:.6g}; normalise them (softmax of the logits, say)"
        )


@dataclass(frozen=True, repr=False)
class _OfValues(_OfSingles, _OnGrid, JensenShannon):
    kind: ClassVar[str] = "jensen-shannon-values"
    column: Column
    support: tuple[float, ...] | None
    bandwidth: Annotated[str | float, _WIDTH]
    mass: Annotated[float, number(most=1, above=0, words="a share in (0, 1]")]
    points: Annotated[int, whole(3, 10_000)]

    def __repr__(self) -> str:
        grid = "None" if self.support is None else f"<{len(self.support)} points>"
        return f"JensenShannon.of_values({self.column!r}, support={grid}, {self.bandwidth!r})"

    def bind(self, parts: Sequence[Samples]) -> Distance:
        if self.support is not None:
            return self
        # A set that is compared with itself counts once.
        different = {id(part): part[self.column] for part in parts}
        values = np.concatenate(list(different.values()))
        return replace(self, support=tuple(support_of(values, self.mass, self.points).tolist()))

    def summarise(self, batches: Batches) -> np.ndarray:
        if self.support is None:
            return self.bind(batches.parts).summarise(batches)
        grid = np.asarray(self.support)
        values = np.clip(batches.column(self.column), grid[0], grid[-1], dtype=np.float64)
        counts = spread(values, batches.sizes, grid)
        densities = smoothed(counts, self._widths(values, batches, grid[-1] - grid[0]), grid)
        return densities / (densities @ simpson_weights(grid))[:, None]

    def _widths(self, values: np.ndarray, batches: Batches, span: float) -> np.ndarray:
        """``(n,)`` width of the kernel of each batch, given its clipped values."""
        if isinstance(self.bandwidth, str):
            widths = by_size(WIDTH_RULES[self.bandwidth], values, batches)
        else:
            widths = np.full(len(batches), float(self.bandwidth))
        # Also where the spread is only rounding noise: no grid resolves such a kernel.
        return np.where(widths > 1e-12 * span, widths, span / 10)


def by_size(
    of_rows: Callable[[np.ndarray], np.ndarray], values: np.ndarray, batches: Batches
) -> np.ndarray:
    """Apply a function of ``(m, size)`` values to all batches of a size at a time.

    Returns:
        ``(n, ...)``, one row a batch.
    """
    sizes, which = np.unique(batches.sizes, return_inverse=True)
    if len(sizes) == 1:
        return of_rows(values.reshape(len(batches), int(sizes[0])))
    found: np.ndarray | None = None
    for i, size in enumerate(sizes):
        rows = np.flatnonzero(which == i)
        taken = of_rows(values[batches.offsets[rows, None] + np.arange(size)])
        if found is None:
            found = np.empty((len(batches), *taken.shape[1:]))
        found[rows] = taken
    return np.empty(0) if found is None else found


def quantiles_of(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """From ``(m, size)`` values to so many quantiles of each row, in the middle of equal shares."""
    levels = (np.arange(count) + 0.5) / count
    return lambda rows: np.sort(rows, axis=1)[:, (levels * rows.shape[1]).astype(np.int64)]


@dataclass(frozen=True, repr=False)
class _OfDensities(_OfRows, _OnGrid, JensenShannon):
    kind: ClassVar[str] = "jensen-shannon-densities"
    column: Column
    support: tuple[float, ...]

    def __repr__(self) -> str:
        return f"JensenShannon.of_densities({self.column!r}, support=<{len(self.support)} points>)"

    def check(self, samples: Samples) -> None:
        super().check(samples)
        rows = samples[self.column]
        bad = np.flatnonzero((rows < 0).any(axis=1) | ~(rows > 0).any(axis=1))
        if len(bad):
            raise DomainError(
                f"column {self.column!r}: {len(bad):,} of {len(rows):,} densities are negative "
                f"somewhere or 0 everywhere, the first is row {bad[0]}"
            )


class Wasserstein(Distance):
    """Earth mover's distances on the line; in the unit of the values, so scale the bandwidth.

    Example:
        >>> Wasserstein.of_values("y").matrix([[0.0, 1.0], [1.0, 2.0]])
        array([[0., 1.],
               [1., 0.]])
    """

    metric = True

    @staticmethod
    def of_values(column: str, levels: int = 256) -> Wasserstein:
        """First Wasserstein distance of real values, between quantile functions.

        Args:
            column: ``(n,)`` finite numbers.
            levels: Quantiles that a batch is summarised by; exact for batches whose size
                divides it.
        """
        return _W1OfValues(column, levels)

    @staticmethod
    def of_cdfs(column: str, support: Any) -> Wasserstein:
        """First Wasserstein distance between cumulative distributions on a grid.

        Args:
            column: ``(n, g)`` cumulative probabilities; a batch is the mean of its rows.
            support: ``(g,)`` increasing grid; the integral is by Simpson's rule.
        """
        return _W1OfCdfs(column, grid_of(support))

    @staticmethod
    def of_normals(mean: str, std: str) -> Wasserstein:
        """Second Wasserstein distance between normal distributions.

        ``sqrt((mu1 - mu2)^2 + (sigma1 - sigma2)^2)`` (Givens and Shortt, 1984). A batch is the
        normal with the mean and variance of the mixture of its samples' normals.

        Args:
            mean: Column ``(n,)`` of means.
            std: Column ``(n,)`` of standard deviations, not negative.
        """
        return _W2OfNormals(mean, std)


@dataclass(frozen=True)
class _W1OfValues(_OfSingles, Wasserstein):
    kind: ClassVar[str] = "wasserstein-values"
    column: Column
    levels: Annotated[int, whole(most=_MOST)]

    def summarise(self, batches: Batches) -> np.ndarray:
        values = batches.column(self.column).astype(np.float64)
        return by_size(quantiles_of(self.levels), values, batches)

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return in_blocks(lambda a: np.abs(a - second).mean(axis=-1), first, second)


@dataclass(frozen=True)
class _W1OfCdfs(_OfRows, _OnGrid, Wasserstein):
    kind: ClassVar[str] = "wasserstein-cdfs"
    column: Column
    support: tuple[float, ...]

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        weights = self.quadrature
        return in_blocks(lambda a: np.abs(a - second) @ weights, first, second)


@dataclass(frozen=True)
class _W2OfNormals(Wasserstein):
    kind: ClassVar[str] = "wasserstein-normals"
    mean: Column
    std: Column

    @property
    def axes(self) -> Mapping[str, int]:
        return {self.mean: 0, self.std: 0}

    def check(self, samples: Samples) -> None:
        super().check(samples)
        bad = np.flatnonzero(samples[self.std] < 0)
        if len(bad):
            raise DomainError(
                f"column {self.std!r}: {len(bad):,} standard deviations are negative, the first "
                f"is {samples[self.std][bad[0]]:.4g} in row {bad[0]}"
            )

    def summarise(self, batches: Batches) -> np.ndarray:
        starts, sizes = batches.offsets[:-1], batches.sizes
        mu = batches.column(self.mean).astype(np.float64)
        sigma = batches.column(self.std).astype(np.float64)
        mean = np.add.reduceat(mu, starts) / sizes
        # The variance of a mixture: the mean variance plus the variance of the means.
        inside = np.add.reduceat(sigma**2, starts) / sizes
        between = np.add.reduceat((mu - np.repeat(mean, sizes)) ** 2, starts) / sizes
        return np.stack([mean, np.sqrt(inside + between)], axis=1)

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return in_blocks(lambda a: np.sqrt(((a - second) ** 2).sum(axis=-1)), first, second)


@dataclass(frozen=True)
class Minkowski(_OfRows):
    """Minkowski distance of batch means: Euclidean for ``p = 2``.

    Here for comparison: means hide the tail of a batch (paper, section 3.2). In the unit of the
    column, so scale the bandwidth.

    Args:
        column: ``(n, d)`` numbers.
        p: Order of the norm, at least 1.

    Example:
        >>> Minkowski("x").matrix(np.array([[0.0, 0.0], [3.0, 4.0]]))
        array([[0., 5.],
               [5., 0.]])
    """

    kind: ClassVar[str] = "minkowski"
    metric = True
    column: Column
    p: Annotated[float, number(1, infinite=True, words="the order of a norm, at least 1")] = 2.0

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return in_blocks(lambda a: np.linalg.norm(a - second, ord=self.p, axis=-1), first, second)


@dataclass(frozen=True)
class Custom(Distance):
    """A distance from two functions.

    Args:
        column: The column to read.
        summary: From the column's values in one batch, ``(b, ...)``, to one row of numbers.
        distance: From two sets of rows, ``(n, ...)`` and ``(m, ...)``, to distances ``(n, m)``.
        sample_axes: Axes of one sample in the column: 0 for single values, 1 for rows.
        metric: Whether the distance is a metric, which approximate densities need.

    Functions cannot be stored: a memory that uses them is loaded with the policy given again.

    Example:
        >>> spread = Custom("y", summary=np.ptp, distance=lambda a, b: abs(a - b.T))
        >>> spread.matrix([[0, 1], [5, 9]])
        array([[0., 3.],
               [3., 0.]])
    """

    column: Column
    summary: Annotated[Callable[[np.ndarray], Any], FUNCTION]
    distance: Annotated[Callable[[np.ndarray, np.ndarray], np.ndarray], FUNCTION]
    sample_axes: Annotated[int, whole(0, 32)] = 0
    metric: bool = False

    @property
    def axes(self) -> Mapping[str, int]:
        return {self.column: self.sample_axes}

    def summarise(self, batches: Batches) -> np.ndarray:
        rows = [np.atleast_1d(self.summary(batch[self.column])) for batch in batches]
        return np.asarray(rows, dtype=np.float64)

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = np.asarray(self.distance(first, second), dtype=np.float64)
        if found.shape != (len(first), len(second)):
            raise SettingError(
                f"the distance function returned the shape {found.shape}; expected "
                f"{(len(first), len(second))}, one distance for every pair"
            )
        return found

    def settings(self) -> dict[str, Any]:
        names = [getattr(f, "__qualname__", repr(f)) for f in (self.summary, self.distance)]
        return {"kind": None, "column": self.column, "functions": names}


# Pairs are compared in pieces of about this many numbers (32 MB), so that memory stays bounded.
_BLOCK = 4_000_000


def in_blocks(
    compare: Callable[[np.ndarray], np.ndarray], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Compare rows of ``first``, ``(n, 1, ...)``, with all of ``second``, some at a time."""
    step = max(1, _BLOCK // max(1, second.size))
    distances = np.empty((len(first), len(second)))
    for start in range(0, len(first), step):
        distances[start : start + step] = compare(first[start : start + step, None])
    return distances


def distance_from_settings(settings: Mapping[str, Any]) -> Distance:
    """The distance that `Distance.settings` described.

    Raises:
        SettingError: The kind is not in `named_distances`, or the arguments do not fit.

    Example:
        >>> distance_from_settings(Minkowski("x").settings())
        Minkowski(column='x', p=2.0)
    """
    given = settings_of("distance", settings)
    kind = given.pop("kind", None)
    remedy = "Import the module that defines it: a subclass of Distance with this kind adds itself"
    made = class_of("distance", kind, named_distances, Distance, remedy)
    distance: Distance = made_of("distance", kind, made, given)
    return distance
