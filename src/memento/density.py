"""How densely the sample space is filled: kernel density estimation over batches.

The density of batch i among n batches under one distance D is, with bandwidth h,
``rho(i) = sum_j exp(-(D(i, j) / h)^2 / 2) / (n * sqrt(2 pi))`` (paper, equation 1), and over
several distances the minimum: rare in one of the spaces is rare (equation 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from memento import arguments
from memento.batching import (
    Batches,
    Missing,
    Remainder,
    cut,
    default_batch_size,
    leading,
    make_batches,
    parts_of,
    sort_order,
)
from memento.distances import Distance
from memento.errors import SchemaError, SettingError, warn
from memento.field import Field, Precision, Settings, density_over, points_of, term_of
from memento.landmarks import Probes, Rows
from memento.samples import Samples

__all__ = ["Field", "SampleSpace", "batch_densities", "cross_density", "kernels"]

_TOLERANCE = arguments.number(most=0.5, above=0, words="a share in (0, 0.5]")
# With fewer batches in a memory, a single one is too large a part of all to tell what is rare.
_FEW_BATCHES = 32


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
            1e-4; time grows with the square of the number of batches. ``"approximate"`` sums up
            through landmarks (`memento.landmarks`), in time that grows with the number of batches,
            if that is right to the tolerance at random probes, and exactly otherwise. ``"auto"`` is
            exact where that takes little time, then fast, and from 16,384 different batches on
            approximate.
        tolerance: Relative error of approximate densities, above 0: with 95 % confidence at most
            1 % of them are off by more.

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
    tolerance: Annotated[float, _TOLERANCE] = 0.01

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
        for distance in given if self.precision == "approximate" else ():
            if not distance.metric:
                raise SettingError(
                    f"precision is 'approximate', but {distance!r} is not known to be a metric; "
                    'take precision="auto", which sums up exactly under it, or say that it is one '
                    "(`metric`)"
                )

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
        return tuple(dict.fromkeys([*self.label_columns, *singles, *rows]))

    @property
    def label_columns(self) -> list[str]:
        """Columns that distances compare as labels."""
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
        parts = parts_of(samples)
        self._look_for_columns(parts)
        return make_batches(
            parts,
            self.size_for(sum(part.size for part in parts)) if size is None else size,
            self.sort_columns,
            group_by=self.group_by,
            labels=self.label_columns,
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
        parts = parts_of(samples)
        self._look_for_columns(parts)
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
            labels=leading(self.sort_columns, self.label_columns, parts),
            remainder=self.remainder,
        )

    def field(
        self,
        batches: Batches,
        weights: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
        *,
        approximated: bool = True,
    ) -> Field:
        """The density that these batches make.

        Args:
            batches: ``n`` batches whose density is asked for.
            weights: ``(n,)`` how much each batch counts; 1 each if left out.
            rng: Draws the probes of approximate sums, and is not touched where there are none; None
                takes the same ones every time.
            approximated: False: sums are exact whatever the precision, and there are no probes.
        """
        return self.field_of(self.summaries(batches), weights, rng, approximated=approximated)

    def summaries(self, batches: Batches) -> list[Summaries]:
        """What the distances read of batches: one for each distance whose columns are there."""
        found = []
        for distance, bandwidth in self.present(batches.parts):
            bound = distance.bind(batches.parts)
            found.append(Summaries(bound, bandwidth, bound.summarise(batches)))
        return found

    def field_of(
        self,
        summaries: Sequence[Summaries],
        weights: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
        *,
        approximated: bool = True,
    ) -> Field:
        """The density of batches of which only the summaries are at hand; see `field`.

        Args:
            summaries: At least one, each of the same ``n`` batches.
            weights: As for `field`.
            rng: As for `field`.
            approximated: As for `field`.
        """
        settings = Settings(self.precision, self.tolerance, Probes(rng))
        if not approximated:
            settings = settings.exactly()
        terms = [
            term_of(each.distance, each.rows, each.bandwidth, weights, settings)
            for each in summaries
        ]
        return Field(terms, len(summaries[0].rows), weights)


class Summaries(NamedTuple):
    """What one distance compares batches by.

    Attributes:
        distance: Bound to what the batches were cut from (see `Distance.bind`).
        bandwidth: Width of the Gaussian kernel, in the unit of the distance.
        rows: ``(n, ...)`` one summary a batch.
    """

    distance: Distance
    bandwidth: float
    rows: np.ndarray


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
    arguments.require("policy", policy, arguments.instance(SampleSpace, "one with distances"))
    borrowed = Samples.borrow(samples)
    policy.check(borrowed)
    batches = policy.batches(borrowed)
    if not len(batches):
        return batches.order, np.empty(0)
    return batches.order, policy.field(batches).density()


def cross_density(space: SampleSpace, batches: Batches, others: Batches) -> np.ndarray:
    """Density of each batch with respect to other batches, which do not include it.

    Sums are approximate only if the space says so, not with ``precision="auto"``.

    Returns:
        ``(n,)`` float64: for each of ``batches``, the minimum over the distances.
    """
    settings = _asked_for(space)
    return np.minimum.reduce(
        [
            density_over(bound, bound.summarise(batches), others, bandwidth, settings)
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
    settings = _asked_for(space)
    for bound, bandwidth in _bound(space, batches, others):
        summaries = bound.summarise(batches)
        terms.append(term_of(bound, summaries, bandwidth, None, settings))
        densities.append(density_over(bound, summaries, others, bandwidth, settings))
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
        (points,) = points_of(bound, bandwidth, _asked_for(space), summaries)
        if isinstance(points, Rows):
            yield points.matrix()
            continue
        from memento._kernels import jensen_shannon

        values = np.empty((len(batches), len(batches)))
        for i, row in enumerate(values):
            jensen_shannon.kernel_row(points.packed, i, points.scale, row)
        yield values


def _asked_for(space: SampleSpace) -> Settings:
    """Settings with which sums are approximate only if that was asked for."""
    return Settings(space.precision, space.tolerance, Probes(), math.inf)
