"""By how much samples cover more of the sample space than others did (paper, definition 3).

With ``rho_B`` and ``rho_R`` the densities of the batches in B with respect to B itself and to a
reference R, the relative coverage increase is ``sum max(0, rho_B - rho_R) / sum rho_B``: 0 if B
covers the same region, 1 if all of it is new.

As published, ``rho_B(i)`` contains the kernel of batch i itself, ``rho_R(i)`` does not, so the
estimate has a floor of about the share of a batch's own kernel in its density, even if nothing has
changed. The calibrated estimator leaves that kernel out and says how large the remaining noise is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from memento import arguments
from memento.attribution import attributed
from memento.batching import Batches, cut
from memento.density import SampleSpace, field_and_cross, kernels
from memento.errors import SettingError
from memento.printing import Table
from memento.samples import Samples

__all__ = ["CoverageIncrease", "coverage_increase"]

Estimator = Literal["calibrated", "plain"]

# Batches have no neighbours where all but this share of their density is their own kernels: what is
# left after subtracting these is then mostly rounding.
_ALONE = 1e-9


class CoverageIncrease(float):
    """A relative coverage increase in [0, 1], with what is known of its noise.

    Attributes:
        estimator: Which estimate it is: ``"calibrated"`` or ``"plain"``.
        noise: 95 % quantile of what is estimated when nothing has changed; NaN if not asked for.
        p_value: Probability of samples as new as these or newer when nothing has changed; NaN if
            not asked for. It judges a statistic of its own, see `coverage_increase`.
        null: Estimates when nothing has changed, ascending, that ``noise`` is taken from.
        batches: Batches in the samples and in the reference.
    """

    estimator: Estimator
    noise: float
    p_value: float
    null: np.ndarray
    batches: tuple[int, int]
    _attribute: Callable[[], Table] | None

    def __new__(
        cls,
        value: float,
        *,
        estimator: Estimator = "calibrated",
        null: np.ndarray | None = None,
        p_value: float = float("nan"),
        batches: tuple[int, int] = (0, 0),
        attribute: Callable[[], Table] | None = None,
    ) -> CoverageIncrease:
        """Make one of a value and what is known of it; see the attributes."""
        self = super().__new__(cls, value)
        self.estimator = estimator
        self.null = np.sort(np.empty(0) if null is None else null)
        self.p_value = p_value
        self.batches = batches
        self._attribute = attribute
        self.noise = float("nan")
        if len(self.null):
            self.noise = float(np.quantile(self.null, 0.95, method="higher"))
        return self

    @property
    def attribution(self) -> Table:
        """Which cells make the rise: a table with a row for each, the largest part first.

        ``cell``: its number, in sorted order; ``rise``: its part (they add up to the value);
        ``share``: the same of the whole rise; ``samples`` and ``reference``: how many of each lie
        in it; ``density`` and ``density_before``; then typical values of what the distances
        compare, under the columns' names: the most frequent label, the median of numbers, the class
        that is most likely on average (and that average, as ``NAME_mean``); ``rows``: ``(cells,
        3)`` numbers of samples in it, to look at. It is computed when it is asked for.

        Raises:
            SettingError: The samples are not at hand: a value that was made by hand or pickled.

        Example:
            >>> from memento import JensenShannon
            >>> space = SampleSpace([JensenShannon.of_labels("y", 3)], batch_size=50)
            >>> old, new = {"y": [0, 1] * 100}, {"y": [0, 1, 2, 2] * 50}
            >>> rise = coverage_increase(new, old, space, permutations=0)
            >>> found = rise.attribution
            >>> print(Table({n: found[n] for n in ("y", "samples", "reference", "rise")}))
            y  samples  reference    rise
            2       50          0   0.5
            2       50          0   0.5
            0       50        100     0
            1       50        100     0
            >>> bool(np.isclose(found["rise"].sum(), rise))
            True
        """
        if self._attribute is None:
            raise SettingError(
                "the samples that this coverage increase is of are not at hand; ask what "
                "coverage_increase returned for its attribution, before it is pickled"
            )
        return self._attribute()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_attribute": None}  # without the samples

    def __repr__(self) -> str:
        if np.isnan(self.p_value):
            return f"CoverageIncrease({float(self):.4f}, {self.estimator})"
        return (
            f"CoverageIncrease({float(self):.4f}, {self.estimator}, noise={self.noise:.4f}, "
            f"p_value={self.p_value:.3f})"
        )


def coverage_increase(
    samples: Any,
    reference: Any,
    policy: SampleSpace,
    *,
    estimator: Estimator = "calibrated",
    permutations: int | None = 39,
    rng: int | np.random.Generator = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CoverageIncrease:
    """Estimate by how much ``samples`` cover more than ``reference``.

    Args:
        samples: What is held now; anything that `Samples` accepts.
        reference: What the model was last trained on, with predictions by the same model; None or
            empty if nothing was trained yet, which makes the increase 1.
        policy: A policy with distances, such as `Memento`, or a `SampleSpace`.
        estimator: ``"calibrated"`` leaves a batch's own kernel out of its density; ``"plain"`` is
            the formula of the paper.
        permutations: Draws for ``noise``, in which all samples of both sets are pooled, split at
            random into sets of the same sizes, and batched anew. Ten times as many, which are
            cheap, give ``p_value``: the smallest that can come out is
            ``1 / (10 * permutations + 10)``. 0 or None gives the value alone. Beyond some thousand
            batches draws for ``noise`` are fewer, down to one: each takes as long as the estimate
            itself, and the more batches, the less they differ.
        rng: Seed or generator of the draws.
        progress: Called with (done, total) after each draw for ``noise``.

    Returns:
        A float with ``noise``, ``p_value`` and ``attribution``: which cells make the rise.

    The estimate adds up densities, so what is new but rare hardly moves it: a drift of 3 % of the
    samples can stay within its noise. The p-value therefore judges another statistic of the same
    densities: the samples of both sets are sorted and cut into cells together, and each cell in
    which the reference is thinner than the samples by a share s counts with s squared. It is an
    exact permutation test (samples are exchanged, not batches, which sorting lines up), and sees
    most drifts of 1 % of 12,800 samples.

    Both assume two independent draws. Two contents of one memory are none: selection goes on, so
    that the memory moves towards what is rare on every quiet day, and what stays is in both. For
    ``memory.samples`` and ``memory.reference`` noise and p-value are therefore not stated (NaN),
    and permutations not drawn; whether a stream has changed is for `OnArrivals` to say.

    Raises:
        InputError: The samples lack what the distances need.
        SettingError: An unknown estimator, or a negative number of permutations.

    Example:
        >>> from memento import JensenShannon
        >>> space = SampleSpace([JensenShannon.of_labels("y", 3)], batch_size=10, sort_by=["y"])
        >>> old, new = {"y": [0, 1] * 100}, {"y": [0, 1, 2, 2] * 50}
        >>> rise = coverage_increase(new, old, space)
        >>> round(float(rise), 2), rise.p_value < 0.05
        (0.69, True)
    """
    arguments.require("policy", policy, arguments.instance(SampleSpace, "one with distances"))
    arguments.require("estimator", estimator, arguments.one_of(get_args(Estimator)))
    expected = arguments.optional(arguments.whole(0, words="0 or more"))
    arguments.require("permutations", permutations, expected)
    one_memory = _owner(samples) is not None and _owner(samples) is _owner(reference)
    draws = 0 if one_memory else permutations or 0
    generator = arguments.generator(rng, "rng")
    now = Samples.borrow(samples)
    before = Samples.borrow(reference)
    if not before.size:
        return CoverageIncrease(
            1.0, estimator=estimator, p_value=0.0, attribute=lambda: _all_new(policy, now)
        )
    if not now.size:
        return CoverageIncrease(0.0, estimator=estimator, attribute=lambda: _all_new(policy, now))
    policy.check(now)
    policy.check(before)
    policy.present((now, before))  # says so if nothing can be compared
    split = _Split(policy, now, before, generator)
    mine = np.arange(now.size + before.size) < now.size
    pair = split.into(mine[split.order])
    own, cross = _densities(policy, *pair, estimator)
    value, sizes = _relative(own, cross), (len(pair[0]), len(pair[1]))
    parts, order = split.parts, split.order

    def attribute() -> Table:
        return attributed(policy, parts, order, pair[0], own, cross)

    if not draws:
        return CoverageIncrease(value, estimator=estimator, batches=sizes, attribute=attribute)
    null = np.empty(max(1, min(draws, _NOISE_PAIRS // sum(sizes) ** 2)))
    for i in range(len(null)):
        # Permuting positions in the sorted order permutes samples, and needs no sorting again.
        drawn = split.into(generator.permutation(mine))
        null[i] = _relative(*_densities(policy, *drawn, estimator))
        if progress is not None:
            progress(i + 1, len(null))
    cheap = _CHEAP * (draws + 1) - 1
    newness = _newness(policy, split, mine[split.order], cheap, generator)
    # The observation is, if nothing has changed, one more such draw; so it counts itself, and
    # P(p_value <= a) <= a holds exactly (Phipson and Smyth, 2010).
    p_value = np.count_nonzero(newness >= newness[0]) / len(newness)
    return CoverageIncrease(
        value,
        estimator=estimator,
        null=null,
        p_value=float(p_value),
        batches=sizes,
        attribute=attribute,
    )


def _owner(samples: Any) -> object | None:
    return samples.owner if isinstance(samples, Samples) else None


# Cells of the test for newness: enough to see a new region of a few samples in ten thousand.
_CELLS = 2048
# Pairs of batches in all draws for the noise: 39 draws of 1,200 batches, or one of 7,700.
_NOISE_PAIRS = 60_000_000
# Draws for the p-value, for each one asked for: they cost next to nothing.
_CHEAP = 10


def _newness(
    space: SampleSpace, split: _Split, mine: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """How new the samples are, and how new as many of the pool drawn at random would be.

    The pooled samples are cut into cells in sorted order. With the density at cell c of the samples
    and of the reference, ``newness(c) = max(0, 1 - rho_R(c) / rho_B(c))``, 0 where both are as
    dense and 1 where the reference has nothing; the result is the mean of its square over the
    samples.

    Returns:
        ``(1 + draws,)``: first what is observed. If samples and reference are exchangeable, all are
        draws from one distribution: only how many of each cell belong to the samples changes, and
        that is multivariate hypergeometric.
    """
    size = max(2 * space.size_for(total := len(split.order)), -(-total // _CELLS))
    cells = cut(split.parts, split.order, size, group_by=space.group_by, remainder="keep")
    sizes = cells.sizes
    total, own = len(split.order), int(np.count_nonzero(mine))
    observed = np.add.reduceat(mine.astype(np.int64), cells.offsets[:-1])
    drawn = rng.multivariate_hypergeometric(sizes, own, size=draws, method="marginals")
    counts = np.concatenate([observed[None], drawn])
    ours = counts / own
    theirs = (sizes - counts) / (total - own)
    dense = np.full(ours.shape, np.inf)
    dense_before = np.full(ours.shape, np.inf)
    for kernel in kernels(space, cells):
        np.minimum(dense, ours @ kernel, out=dense)
        np.minimum(dense_before, theirs @ kernel, out=dense_before)
    with np.errstate(invalid="ignore", divide="ignore"):
        newness = np.where(ours > 0, np.maximum(0.0, 1 - dense_before / dense), 0.0)
    # Rounding, so that draws that are equal by count compare equal whatever the order of sums.
    result: np.ndarray = (ours * newness**2).sum(axis=1).round(12)
    return result


class _Split:
    """Two sets of samples, pooled and sorted once, to be split and batched many times."""

    def __init__(
        self, space: SampleSpace, now: Samples, before: Samples, rng: np.random.Generator
    ) -> None:
        names = [name for name in now if name in before]
        self._space = space
        self.parts = (now.select(names), before.select(names))
        # Equal samples in random order: in their own, those of the first set come first, and cells
        # that cut through them hold more of that set than any draw.
        self.order = space.order(self.parts, rng=rng)

    def into(self, mine: np.ndarray) -> tuple[Batches, Batches]:
        """Batches of the sorted rows where ``mine``, and of the others."""
        return self._cut(self.order[mine]), self._cut(self.order[~mine])

    def _cut(self, order: np.ndarray) -> Batches:
        batches = self._space.cut(self.parts, order)
        if len(batches):
            return batches
        # Less than one batch: what there is makes one, rather than nothing.
        return cut(self.parts, order, len(order), group_by=None)


def _all_new(space: SampleSpace, now: Samples) -> Table:
    """The attribution where there is no reference: every cell is new."""
    if not now.size or not space.sees((now,)):
        nothing = np.empty(0)
        empty = Batches((now,), nothing.astype(np.int64), np.zeros(1, np.int64))
        return attributed(space, (now, Samples()), empty.order, empty, nothing, nothing)
    cells = space.batches(now)
    if not len(cells):
        order = space.order(now)
        cells = cut((now,), order, len(order), group_by=None)
    own = space.field(cells).density()
    parts = (now, now.rows(0, 0))
    return attributed(space, parts, cells.order, cells, own, np.zeros(len(own)))


def _densities(
    space: SampleSpace, batches: Batches, others: Batches, estimator: Estimator
) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` density of each batch among its own, and among the others."""
    field, cross = field_and_cross(space, batches, others)
    if estimator == "calibrated":
        own = field.density(leave_one_out=True)
        if own.sum() > _ALONE * field.density().sum():
            return own, cross
    # Also where no batch has a neighbour: without their own kernels they would cover nothing.
    return field.density(), cross


def _relative(own: np.ndarray, cross: np.ndarray) -> float:
    return float(min(1.0, np.maximum(0.0, own - cross).sum() / own.sum()))
