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
from typing import Any, Literal

import numpy as np

from memento.batching import Batches, cut
from memento.density import SampleSpace, cross_density
from memento.errors import SettingError
from memento.samples import Samples

__all__ = ["CoverageIncrease", "coverage_increase"]

Estimator = Literal["calibrated", "plain"]


class CoverageIncrease(float):
    """A relative coverage increase in [0, 1], with what is known of its noise.

    Attributes:
        estimator: ``"calibrated"`` or ``"plain"``.
        noise: 95 % quantile of what is estimated when nothing has changed; NaN if not asked for.
        p_value: Probability of an estimate as large or larger when nothing has changed; NaN if not
            asked for.
        permutations: How many draws ``noise`` and ``p_value`` rest on.
        null: Those draws, ``(permutations,)``, ascending.
        batches: Batches in the samples and in the reference.
    """

    estimator: Estimator
    noise: float
    p_value: float
    permutations: int
    null: np.ndarray
    batches: tuple[int, int]

    def __new__(
        cls,
        value: float,
        *,
        estimator: Estimator = "calibrated",
        null: np.ndarray | None = None,
        batches: tuple[int, int] = (0, 0),
    ) -> CoverageIncrease:
        self = super().__new__(cls, value)
        self.estimator = estimator
        self.null = np.sort(np.empty(0) if null is None else null)
        self.permutations = len(self.null)
        self.batches = batches
        if self.permutations:
            # The +1 counts the observation itself, which under the null is one more such draw, so
            # that P(p_value <= a) <= a exactly (Phipson and Smyth, 2010).
            larger = int(np.count_nonzero(self.null >= value))
            self.p_value = (1 + larger) / (1 + self.permutations)
            self.noise = float(np.quantile(self.null, 0.95, method="higher"))
        else:
            self.p_value = self.noise = float("nan")
        return self

    def __repr__(self) -> str:
        if not self.permutations:
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
        permutations: Draws from the null, in which all samples of both sets are pooled, split at
            random into sets of the same sizes, and batched anew; 0 or None gives the value alone.
            The smallest p-value that can come out is ``1 / (permutations + 1)``.
        rng: Seed or generator of the permutations.
        progress: Called with (done, total) after each of them.

    Returns:
        A float with ``noise`` and ``p_value``. The null assumes independent samples; two sets that
        share samples (a memory before and after an insert) are more alike than that, which makes
        the p-value too large, never too small.

    Raises:
        InputError: The samples lack what the distances need.
        SettingError: An unknown estimator, or a negative number of permutations.

    Example:
        >>> from memento import JensenShannon
        >>> space = SampleSpace([JensenShannon.of_labels("y", 3)], batch_size=10, sort_by=["y"])
        >>> old, new = {"y": [0, 1] * 100}, {"y": [0, 1, 2, 2] * 50}
        >>> rise = coverage_increase(new, old, space)
        >>> round(float(rise), 2), rise.p_value < 0.05
        (0.5, True)
    """
    if estimator not in ("calibrated", "plain"):
        raise SettingError(f'estimator is {estimator!r}; expected "calibrated" or "plain"')
    draws = 0 if permutations is None else permutations
    if draws < 0:
        raise SettingError(f"permutations is {permutations}; expected 0 or more")
    now = Samples.borrow(samples)
    before = Samples.borrow(reference)
    if not before.size:
        return CoverageIncrease(1.0, estimator=estimator)
    if not now.size:
        return CoverageIncrease(0.0, estimator=estimator)
    policy.check(now)
    policy.check(before)
    split = _Split(policy, now, before)
    mine = np.arange(now.size + before.size) < now.size
    pair = split.into(mine[split.order])
    value = _increase(policy, *pair, estimator)
    generator = np.random.default_rng(rng)
    null = np.empty(draws)
    for i in range(draws):
        # Permuting positions in the sorted order permutes samples, and needs no sorting again.
        drawn = generator.permutation(mine)
        null[i] = _increase(policy, *split.into(drawn), estimator)
        if progress is not None:
            progress(i + 1, draws)
    sizes = (len(pair[0]), len(pair[1]))
    return CoverageIncrease(value, estimator=estimator, null=null, batches=sizes)


class _Split:
    """Two sets of samples, pooled and sorted once, to be split and batched many times."""

    def __init__(self, space: SampleSpace, now: Samples, before: Samples) -> None:
        names = [name for name in now if name in before]
        self._space = space
        self.parts = (now.select(names), before.select(names))
        self.order = space.order(self.parts)

    def into(self, mine: np.ndarray) -> tuple[Batches, Batches]:
        """Batches of the sorted rows where ``mine``, and of the others."""
        return self._cut(self.order[mine]), self._cut(self.order[~mine])

    def _cut(self, order: np.ndarray) -> Batches:
        batches = self._space.cut(self.parts, order)
        if len(batches):
            return batches
        # Less than one batch: what there is makes one, rather than nothing.
        return cut(self.parts, order, len(order), group_by=None)


def _increase(
    space: SampleSpace, batches: Batches, others: Batches, estimator: Estimator
) -> float:
    field = space.field(batches)
    cross = cross_density(space, batches, others)
    if estimator == "calibrated":
        own = field.density(leave_one_out=True)
        if own.sum() > 0:
            return _relative(own, cross)
    # Also where no batch has a neighbour: without their own kernels they would cover nothing.
    return _relative(field.density(), cross)


def _relative(own: np.ndarray, cross: np.ndarray) -> float:
    return float(min(1.0, np.maximum(0.0, own - cross).sum() / own.sum()))
