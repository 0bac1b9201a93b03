"""How densely the sample space is filled: kernel density estimation over batches.

The density of batch i among n batches under one distance D is, with bandwidth h,
``rho(i) = sum_j exp(-(D(i, j) / h)^2 / 2) / (n * sqrt(2 pi))`` (paper, equation 1), and over
several distances the minimum: rare in one of the spaces is rare (equation 2).

Only sums over rows of the kernel are kept. A row is computed again when a batch leaves, so memory
grows with the number of batches, not with its square.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from memento import arguments
from memento._kernels import SMALL_BATCHES, SMALL_TERMS, fitting
from memento._kernels.plain import collapse, draw
from memento.batching import (
    Batches,
    Missing,
    Remainder,
    cut,
    default_batch_size,
    leading,
    make_batches,
    sort_order,
)
from memento.distances import Distance
from memento.errors import SchemaError, SettingError, warn
from memento.samples import Samples

__all__ = ["Field", "SampleSpace", "batch_densities", "cross_density", "kernels"]

Precision = Literal["auto", "exact", "fast"]

ROOT_TWO_PI = math.sqrt(2 * math.pi)
# With fewer batches in a memory, a single one is too large a part of all to tell what is rare.
_FEW_BATCHES = 32
# Kernels of up to this many pairs are kept as a matrix (128 MB); beyond, rows are computed again.
_MATRIX_PAIRS = 16_000_000


@dataclass(frozen=True)
class SampleSpace:
    """The space that samples are compared in: distances between batches, and a kernel's bandwidth.

    Args:
        distances: At least one; a distance whose columns are missing is left out until they come
            (see ``missing``).
        batch_size: Samples in a batch; None takes `default_batch_size` of a memory's capacity (of
            the number of samples, where there is no capacity).
        bandwidth: Width of the Gaussian kernel, in the unit of the distances ([0, 1] for
            Jensen-Shannon), above 0; one number, or one for each distance.
        sort_by: Columns that batches are formed by, most important first; None takes those of the
            distances: labels, then other single values, then rows.
        group_by: A column that batches never straddle, or None.
        remainder: ``"even"``: every sample is in a batch, batches have nearly the same size, none
            straddles a label (as long as these are not too many, see `cut`), and equal samples are
            in random order. As published, samples keep their order, batches have one size, and what
            is left at the end of the order is dropped (``"drop"``) or makes a smaller one
            (``"keep"``).
        missing: What missing columns do: one warning, an error, or nothing.
        precision: ``"exact"`` is float64, ``"fast"`` is float32 with densities that are right to
            1e-4; ``"auto"`` takes the exact one where it takes little time.

    Raises:
        SettingError: A value is out of its range.
    """

    distances: Sequence[Distance] = ()
    batch_size: arguments.Count | None = None
    bandwidth: float | Sequence[float] = 0.1
    sort_by: Sequence[str] | None = None
    group_by: arguments.Column | None = None
    remainder: Remainder = "even"
    missing: Missing = "warn"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        given = (self.distances,) if isinstance(self.distances, Distance) else self.distances
        several = arguments.instance((list, tuple), "a list of distances")
        arguments.require("distances", given, several)
        if not given:
            raise SettingError("no distances; give at least one, such as JensenShannon.of_labels")
        for distance in given:
            if not isinstance(distance, Distance):
                raise SettingError(
                    f"{arguments.shown(distance)} is not a Distance; wrap a function in "
                    "memento.Custom"
                )
        object.__setattr__(self, "distances", tuple(given))
        if self.sort_by is not None:
            object.__setattr__(self, "sort_by", arguments.names("sort_by", self.sort_by))
        widths: Any = self.bandwidth
        if isinstance(widths, (list, tuple)) or (isinstance(widths, np.ndarray) and widths.ndim):
            object.__setattr__(self, "bandwidth", tuple(widths))
            if len(widths) != len(given):
                raise SettingError(
                    f"{len(widths)} bandwidths for {len(given)} distances; give one for each"
                )
        positive = arguments.number(
            1e-100, 1e100, words="a positive number, or one for each distance"
        )
        several_widths = self.bandwidth if isinstance(self.bandwidth, tuple) else (widths,)
        for width in several_widths:
            arguments.require("bandwidth", width, positive)
        arguments.check_fields(self)

    def _bandwidths(self) -> tuple[float, ...]:
        if isinstance(self.bandwidth, tuple):
            return tuple(map(float, self.bandwidth))
        return (float(self.bandwidth),) * len(self.distances)  # type: ignore[arg-type]

    @property
    def sort_columns(self) -> tuple[str, ...]:
        """The columns that batches are formed by: ``sort_by``, or those of the distances."""
        if self.sort_by is not None:
            return tuple(self.sort_by)
        axes = [(name, n) for distance in self.distances for name, n in distance.axes.items()]
        singles, rows = ([c for c, n in axes if (n > 0) == wide] for wide in (False, True))
        return tuple(dict.fromkeys([*self._labels(), *singles, *rows]))

    def _labels(self) -> list[str]:
        return [name for distance in self.distances for name in distance.labels]

    def size_for(self, samples: int) -> int:
        """Samples in a batch, for a memory of this capacity or, without one, for so many samples.

        Example:
            >>> from memento import JensenShannon
            >>> SampleSpace([JensenShannon.of_labels("y", 2)]).size_for(1000)
            15
        """
        return default_batch_size(samples) if self.batch_size is None else self.batch_size

    def check_capacity(self, capacity: int | None) -> None:
        """Raise if a memory could keep nothing, and warn if it holds too few batches."""
        if capacity is None or self.batch_size is None:
            return
        if capacity < self.batch_size and self.remainder == "drop":
            raise SettingError(
                f"capacity {capacity:,} is less than one batch of {self.batch_size}: nothing could "
                "be kept; raise the capacity or lower batch_size"
            )
        better = default_batch_size(capacity)
        if capacity < _FEW_BATCHES * self.batch_size and better < self.batch_size:
            self._warn_once(
                f"capacity {capacity:,} holds {capacity // self.batch_size} batches of "
                f"{self.batch_size}, fewer than {_FEW_BATCHES} batches: too few to tell what is "
                f"rare. Leave batch_size out (here {better}), or raise the capacity to "
                f"{_FEW_BATCHES * self.batch_size:,}"
            )

    def _warn_once(self, message: str) -> None:
        told: set[str] = self.__dict__.setdefault("_told", set())
        if message not in told:
            told.add(message)
            warn(message)

    def _look_for_columns(self, parts: Sequence[Samples]) -> None:
        """Say once which columns are missing and what is left out because of it."""
        if self.missing != "warn":
            return
        absent = [
            name
            for name in dict.fromkeys([*self._distance_columns(), *self.sort_columns])
            if any(name not in part for part in parts)
        ]
        if absent:
            without = [repr(d) for d in self.distances if not set(absent).isdisjoint(d.columns)]
            unsorted = [repr(name) for name in self.sort_columns if name in absent]
            out = [f"{', '.join(without)} out of the density"] * bool(without)
            out += [f"{', '.join(unsorted)} out of the order of samples"] * bool(unsorted)
            chance = ", so that chance decides what is kept" * (len(without) == len(self.distances))
            self._warn_once(
                f"missing columns: {', '.join(map(repr, absent))}. Until they come, this leaves "
                f'{" and ".join(out)}{chance}. Supply them, or set missing="skip"'
            )

    def _distance_columns(self) -> list[str]:
        return [name for distance in self.distances for name in distance.columns]

    def present(self, parts: Sequence[Samples]) -> list[tuple[Distance, float]]:
        """The distances that these samples have the columns for, each with its bandwidth.

        Raises:
            SchemaError: There is none, or one is missing and ``missing`` is ``"error"``.
        """
        found = self._found(parts)
        if not found:
            needed = [", ".join(map(repr, distance.columns)) for distance in self.distances]
            raise SchemaError(
                f"none of the columns that the distances need is there ({'; '.join(needed)}); "
                f"found {sorted({name for part in parts for name in part})}"
            )
        return found

    def sees(self, parts: Sequence[Samples]) -> bool:
        """Whether any distance has its columns; before the first model there may be none.

        Raises:
            SchemaError: A column is missing and ``missing`` is ``"error"``.
        """
        return bool(self._found(parts))

    def _found(self, parts: Sequence[Samples]) -> list[tuple[Distance, float]]:
        self._look_for_columns(parts)
        found = []
        for distance, bandwidth in zip(self.distances, self._bandwidths(), strict=True):
            absent = [c for c in distance.columns if any(c not in part for part in parts)]
            if not absent:
                found.append((distance, bandwidth))
            elif self.missing == "error":
                raise SchemaError(f"column {absent[0]!r}, which {distance!r} needs, is missing")
        return found

    def check(self, samples: Samples) -> None:
        """Raise if a column that is there holds NaN or values outside of its domain.

        Raises:
            SchemaError: The column of ``group_by`` is missing; with ``missing="error"`` any.
            DomainError: Such values.
        """
        if self.group_by is not None and self.group_by not in samples:
            raise SchemaError(
                f"column {self.group_by!r}, which group_by names, is missing; there are "
                f"{sorted(samples)}"
            )
        for distance, _ in self._found([samples]):
            distance.check(samples)

    def batches(
        self,
        samples: Samples | Sequence[Samples],
        *,
        size: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> Batches:
        """Samples (or two sets of them, as one) in batches.

        Args:
            samples: One set, or two.
            size: Samples in a batch; that of the space, for so many samples, if left out.
            rng: Puts equal samples in random order; None leaves them in theirs, those of the first
                set first.
        """
        parts = (samples,) if isinstance(samples, Samples) else tuple(samples)
        self._look_for_columns([part for part in parts if part.size])
        return make_batches(
            parts,
            self.size_for(sum(part.size for part in parts)) if size is None else size,
            self.sort_columns,
            group_by=self.group_by,
            labels=self._labels(),
            remainder=self.remainder,
            missing="error" if self.missing == "error" else "skip",
            rng=rng,
        )

    def order(
        self, samples: Samples | Sequence[Samples], *, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Row numbers in the order in which batches are cut.

        Args:
            samples: One set, or two that are numbered through.
            rng: Puts equal samples in random order. Without it they keep theirs, so that of two
                sets the first one's come first: what depends on which set a sample is of (a test
                of whether they differ, say) needs it.
        """
        parts = (samples,) if isinstance(samples, Samples) else tuple(samples)
        self._look_for_columns([part for part in parts if part.size])
        names = [n for n in self.sort_columns if n != self.group_by]
        if self.group_by is not None:
            names.insert(0, self.group_by)
        missing: Missing = "error" if self.missing == "error" else "skip"
        return sort_order(parts, names, missing=missing, rng=rng)

    def cut(
        self, parts: tuple[Samples, ...], order: np.ndarray, *, size: int | None = None
    ) -> Batches:
        """Batches of rows that `order` sorted (or some of them, in that order).

        Args:
            parts: What the rows refer to.
            order: ``(m,)`` row numbers in sorted order.
            size: As for `batches`.
        """
        return cut(
            parts,
            order,
            self.size_for(len(order)) if size is None else size,
            group_by=self.group_by,
            labels=leading(self.sort_columns, self._labels(), parts),
            remainder=self.remainder,
        )

    def field(self, batches: Batches, weights: np.ndarray | None = None) -> Field:
        """The density that these batches make.

        Args:
            batches: ``n`` batches whose density is asked for.
            weights: ``(n,)`` how much each batch counts; 1 each if left out.
        """
        terms = []
        for distance, bandwidth in self.present(batches.parts):
            bound = distance.bind(batches.parts)
            terms.append(_term(bound, bound.summarise(batches), bandwidth, weights, self.precision))
        return Field(terms, len(batches), weights)


def batch_densities(samples: Any, policy: SampleSpace) -> tuple[np.ndarray, np.ndarray]:
    """Batches of samples and the density of each among all of them.

    Args:
        samples: Anything that `Samples` accepts.
        policy: A policy with distances, such as `Memento`, or a `SampleSpace`.

    Returns:
        ``order``, ``(m,)`` int64: row numbers in batch order, and ``density``, ``(n,)`` float64 in
        ``(0, 0.3989]``: one for each batch. How many rows a batch has,
        ``policy.batches(samples).sizes`` says; with ``remainder="drop"`` it is ``batch_size``.

    Example:
        >>> from memento import JensenShannon
        >>> space = SampleSpace([JensenShannon.of_labels("y", 2)], batch_size=2)
        >>> order, density = batch_densities({"y": [0, 0, 0, 0, 1, 1]}, space)
        >>> order, density.round(3)
        (array([0, 1, 2, 3, 4, 5]), array([0.266, 0.266, 0.133]))
    """
    borrowed = Samples.borrow(samples)
    policy.check(borrowed)
    batches = policy.batches(borrowed)
    if not len(batches):
        return batches.order, np.empty(0)
    return batches.order, policy.field(batches).density()


def cross_density(space: SampleSpace, batches: Batches, others: Batches) -> np.ndarray:
    """Density of each batch with respect to other batches, which do not include it.

    Returns:
        ``(n,)`` float64: for each of ``batches``, the minimum over the distances.
    """
    return np.minimum.reduce(
        [
            _cross_density(bound, bound.summarise(batches), others, bandwidth, space.precision)
            for bound, bandwidth in _bound(space, batches, others)
        ]
    )


def field_and_cross(
    space: SampleSpace, batches: Batches, others: Batches
) -> tuple[Field, np.ndarray]:
    """The density that batches make, and theirs with respect to others: `cross_density`.

    As `SampleSpace.field` and `cross_density` say it of samples that both are seen among, but all
    batches are summarised once.
    """
    terms, densities = [], []
    for bound, bandwidth in _bound(space, batches, others):
        summaries = bound.summarise(batches)
        terms.append(_term(bound, summaries, bandwidth, None, space.precision))
        densities.append(_cross_density(bound, summaries, others, bandwidth, space.precision))
    return Field(terms, len(batches)), np.minimum.reduce(densities)


def _bound(
    space: SampleSpace, batches: Batches, others: Batches
) -> Iterator[tuple[Distance, float]]:
    parts = (*batches.parts, *others.parts)
    for distance, bandwidth in space.present(parts):
        yield distance.bind(parts), bandwidth


def kernels(space: SampleSpace, batches: Batches) -> Iterator[np.ndarray]:
    """Kernel values between all batches, for one distance after the other.

    Yields:
        ``(n, n)`` float64, 1 on the diagonal.
    """
    for distance, bandwidth in space.present(batches.parts):
        bound = distance.bind(batches.parts)
        summaries = bound.summarise(batches)
        (packed,) = _packed(bound, space.precision, summaries)
        if packed is None:
            yield _kernel(bound.compare(summaries, summaries), bandwidth)
            continue
        from memento._kernels import jensen_shannon

        values = np.empty((len(batches), len(batches)))
        for i, row in enumerate(values):
            jensen_shannon.kernel_row(packed, i, 0.5 / bandwidth**2, row)
        yield values


class Field:
    """Kernel sums of batches under one or more distances, kept right while batches are removed.

    Batches are numbered as they were at the start, also after others have left.

    Attributes:
        terms: One for each distance.
        size: Batches at the start.
    """

    def __init__(self, terms: list[_Term], size: int, weights: np.ndarray | None = None) -> None:
        self.terms = terms
        self.size = size
        self._weights = weights
        self.total = float(size) if weights is None else float(np.sum(weights))

    def sums(self) -> np.ndarray:
        """``(n,)`` smallest kernel sum of each batch, over the distances."""
        return np.minimum.reduce([term.spread() for term in self.terms])

    def density(self, *, leave_one_out: bool = False) -> np.ndarray:
        """``(n,)`` densities.

        Args:
            leave_one_out: Without the batch's own kernel, which says nothing about the others.
        """
        if not leave_one_out:
            return self.sums() / (self.total * ROOT_TWO_PI)
        own = 1.0 if self._weights is None else self._weights
        # Rounding can leave a lonely batch a hair below nothing.
        others = np.maximum(self.sums() - own, 0.0)
        return others / (np.maximum(self.total - own, 1e-300) * ROOT_TWO_PI)

    def mean_of_others(self, alive: np.ndarray) -> float:
        """Mean density of the batches that are left, each without its own kernel."""
        return float(self.density(leave_one_out=True)[alive].mean())

    def discard(
        self,
        rows: np.ndarray,
        excess: int,
        temperature: float,
        drawn: np.ndarray,
        share: float = 0.0,
    ) -> np.ndarray | None:
        """Remove batches, each drawn by softmax(density / temperature), in one go.

        Args:
            rows: ``(n,)`` int64 samples in each batch.
            excess: How many samples have to go at least.
            temperature: 0 to inf.
            drawn: Uniform numbers in [0, 1), at least one for each batch to go.
            share: The temperature is at most this share of `mean_of_others`; 0: it stays as given.

        Returns:
            The batches, in the order in which they went; None if these distances have to be asked
            one by one.
        """
        kernels = [term.kernel for term in self.terms]
        # The compiled loop knows one bandwidth; matrices have theirs worked in.
        packed = {term.scale for term in self.terms if isinstance(term, _Packed)}
        if self._weights is not None or len(packed) > 1 or any(k is None for k in kernels):
            return None
        matrices = not any(isinstance(term, _Packed) for term in self.terms)
        drawing = fitting("drawing", self.size, SMALL_BATCHES if matrices else -1)
        gone: np.ndarray = drawing.discard(
            kernels,
            [term.values for term in self.terms],
            [term.own_groups() for term in self.terms],
            packed.pop() if packed else 1.0,
            temperature,
            drawn,
            rows,
            excess,
            share,
        )
        return gone

    def draw(self, alive: np.ndarray, temperature: float, drawn: float) -> int:
        """One batch among those alive, by softmax(density / temperature); it is not removed."""
        return draw(
            [term.values for term in self.terms],
            [term.own_groups() for term in self.terms],
            alive,
            int(np.count_nonzero(alive)),
            temperature,
            drawn,
        )

    def remove(self, batch: int) -> None:
        """Take the kernel of one batch out of all sums."""
        weight = 1.0 if self._weights is None else float(self._weights[batch])
        for term in self.terms:
            term.subtract(batch, weight)
        self.total -= weight


class _Term(ABC):
    """Kernel sums under one distance, over distinct summaries.

    Identical summaries (sorted labels make almost only those) are counted, not repeated:
    ``groups[i]`` is the distinct summary of batch i, and ``values`` holds one sum for each of
    these.
    """

    #: What a compiled loop can subtract rows of: a matrix, or packed summaries; None: neither.
    kernel: Any = None

    def __init__(self, groups: np.ndarray, values: np.ndarray) -> None:
        self.groups = groups
        self.values = values

    def spread(self) -> np.ndarray:
        """``(n,)`` the sum of each batch."""
        return self.values[self.groups]

    def own_groups(self) -> np.ndarray | None:
        """The groups; None where every batch is one of its own."""
        return None if len(self.values) == len(self.groups) else self.groups

    @abstractmethod
    def subtract(self, batch: int, weight: float) -> None:
        """Take one batch out of all sums."""


class _Matrix(_Term):
    """All values of the kernel at hand: exact, for few batches or any distance."""

    def __init__(self, groups: np.ndarray, counts: np.ndarray, kernel: np.ndarray) -> None:
        self.kernel = np.ascontiguousarray(kernel)
        super().__init__(groups, self.kernel @ counts)

    def subtract(self, batch: int, weight: float) -> None:
        self.values -= weight * self.kernel[:, self.groups[batch]]


class _OnDemand(_Term):
    """Rows of the kernel computed when they are needed: for many batches under any distance."""

    def __init__(
        self,
        groups: np.ndarray,
        counts: np.ndarray,
        distance: Distance,
        distinct: np.ndarray,
        bandwidth: float,
    ) -> None:
        super().__init__(groups, _sums_by_rows(distance, distinct, distinct, counts, bandwidth))
        self._distance, self._distinct, self._bandwidth = distance, distinct, bandwidth

    def subtract(self, batch: int, weight: float) -> None:
        own = self._distinct[self.groups[batch], None]
        distances = self._distance.compare(self._distinct, own)
        self.values -= weight * _kernel(distances[:, 0], self._bandwidth)


class _Packed(_Term):
    """Jensen-Shannon kernels in float32, vectorised; right to 1e-4."""

    def __init__(
        self, groups: np.ndarray, counts: np.ndarray, packed: Any, bandwidth: float
    ) -> None:
        from memento._kernels import jensen_shannon

        self.kernel = packed
        self.scale = 0.5 / bandwidth**2
        super().__init__(groups, jensen_shannon.kernel_sums(packed, self.scale, counts))

    def subtract(self, batch: int, weight: float) -> None:
        from memento._kernels import jensen_shannon

        group = int(self.groups[batch])
        jensen_shannon.subtract_row(self.kernel, group, self.scale, weight, self.values)


def _term(
    distance: Distance,
    summaries: np.ndarray,
    bandwidth: float,
    weights: np.ndarray | None,
    precision: Precision,
) -> _Term:
    """The kernel sums of summaries, in the form that their number and the precision ask for."""
    groups, distinct = _collapse(summaries)
    counts = np.bincount(groups, weights, minlength=len(distinct)).astype(np.float64)
    (packed,) = _packed(distance, precision, distinct)
    if packed is not None:
        return _Packed(groups, counts, packed, bandwidth)
    if len(distinct) ** 2 <= _MATRIX_PAIRS:
        return _Matrix(groups, counts, _kernel(distance.compare(distinct, distinct), bandwidth))
    return _OnDemand(groups, counts, distance, distinct, bandwidth)


def _packed(distance: Distance, precision: Precision, *sets: np.ndarray) -> list[Any]:
    """Summaries for the loops in float32, one set or two that are compared; None: not for them."""
    size = len(sets[0]) * sets[-1].size
    wanted = size > SMALL_TERMS if precision == "auto" else precision == "fast"
    rows = [distance.simplex(summaries) if wanted else None for summaries in sets]
    if any(simplex is None for simplex in rows):
        return [None] * len(sets)
    from memento._kernels import jensen_shannon

    return [jensen_shannon.pack(simplex) for simplex in rows if simplex is not None]


def _collapse(summaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the distinct summaries each batch has, and these, in order of appearance."""
    flat = np.ascontiguousarray(summaries.reshape(len(summaries), -1), dtype=np.float64)
    groups, firsts = collapse(flat)
    return groups, summaries[firsts]


def _kernel(distances: np.ndarray, bandwidth: float) -> np.ndarray:
    scaled = distances / bandwidth
    kernel: np.ndarray = np.exp(-0.5 * scaled * scaled)
    return kernel


def _cross_density(
    distance: Distance,
    summaries: np.ndarray,
    batches: Batches,
    bandwidth: float,
    precision: Precision,
) -> np.ndarray:
    """``(n,)`` density of summaries with respect to other batches, under one distance."""
    groups, distinct = _collapse(summaries)
    other_groups, others = _collapse(distance.summarise(batches))
    counts = np.bincount(other_groups, minlength=len(others)).astype(np.float64)
    ours, theirs = _packed(distance, precision, distinct, others)
    if ours is None:
        sums = _sums_by_rows(distance, distinct, others, counts, bandwidth)
    else:
        from memento._kernels import jensen_shannon

        sums = jensen_shannon.cross_sums(ours, theirs, 0.5 / bandwidth**2, counts)
    return np.asarray(sums[groups] / (len(batches) * ROOT_TWO_PI))


def _sums_by_rows(
    distance: Distance,
    first: np.ndarray,
    second: np.ndarray,
    counts: np.ndarray,
    bandwidth: float,
) -> np.ndarray:
    """Sums of the kernel over ``second``, in blocks of rows so that memory stays bounded."""
    step = max(1, _MATRIX_PAIRS // 4 // max(1, len(second)))
    sums = np.empty(len(first))
    for start in range(0, len(first), step):
        block = distance.compare(first[start : start + step], second)
        sums[start : start + step] = _kernel(block, bandwidth) @ counts
    return sums
