"""How new arrivals are, beside earlier ones: an exact permutation test, and sizes of the effect.

Samples of both sets are pooled, sorted by label and prediction, and cut into cells. With the share
``a_c`` of the arrivals in cell c and the kernel densities ``rho_A`` and ``rho_S`` there, newness is
``sum_c a_c max(0, 1 - rho_S(c) / rho_A(c))^2``: 0 where nothing is new, 1 where all is. Beside it
stand the share of arrivals with labels that the reference lacks, and the shares of losses above
four quantiles of the pooled losses. Clusters are then exchanged between the two sets; all
statistics share one set of draws, each is standardised by its mean and deviation over the draws,
and the largest decides (a max-T test; Westfall and Young, "Resampling-Based Multiple Testing",
1993). What is observed is one of the draws (Phipson and Smyth, 2010), so ``P(p <= a) <= a`` holds
exactly if clusters are exchangeable, however samples are tied.

P-values of many units are gathered by e-values, ``e(p) = (1 - p + p ln p) / (p ln(p)^2)``, the mean
of ``k p^(k-1)`` over k in (0, 1) (Vovk and Wang, "E-values", 2021), in a Shiryaev-Roberts sum
(Shin, Ramdas and Rinaldo, "E-detectors", 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from memento.arrivals import Clusters
from memento.batching import Batches
from memento.density import SampleSpace, kernels
from memento.distances import Distance
from memento.errors import SchemaError
from memento.missing import lacking
from memento.samples import Samples
from memento.scores import class_losses

__all__ = [
    "Comparison",
    "compare",
    "e_value",
    "excess",
    "losses_of",
    "new_share",
    "share_of_unseen",
    "unseen_labels",
]

#: Quantiles of the pooled losses that arrivals may exceed more often than the reference.
LEVELS = (0.5, 0.9, 0.95, 0.99)
#: Most cells, and least samples in one: fewer would compare noise.
_CELLS, _LEAST = 256, 32
#: Numbers drawn at a time (100 MB).
_TAKEN = 4_000_000
#: After so many draws, so many at least as large as what is observed say that nothing is unusual.
_EARLY, _ENOUGH = 1000, 20


def e_value(p: float) -> float:
    """Evidence against "nothing has changed" in a p-value: on average at most 1 if nothing has.

    Args:
        p: P-value, in (0, 1].

    Example:
        >>> [round(e_value(p), 2) for p in (1.0, 0.05, 1 / 20_000)]
        [0.5, 1.78, 203.81]
    """
    if p > 1 - 1e-5:  # the limit, where the formula is 0 / 0
        return 0.5
    log = math.log(p)
    return (1 - p + p * log) / (p * log * log)


@dataclass(frozen=True)
class Comparison:
    """What a comparison of arrivals with the reference found.

    Attributes:
        p_value: Of the most unusual statistic; NaN where there is too little to compare.
        z: Each statistic, in standard deviations of its draws: ``newness``, ``labels``, ``loss_50``
            and so on; only those that could be computed.
        draws: Permutations, what is observed included.
        clusters: On both sides, arrivals first.
        rise: How much of the arrivals, from 0 to 1, the reference does not cover.
        rise_noise: 95 % quantile of it where arrivals and reference are exchanged at random.
    """

    p_value: float
    z: Mapping[str, float]
    draws: int
    clusters: tuple[int, int]
    rise: float = math.nan
    rise_noise: float = math.nan


class _Pool:
    """Two sets of samples in the cells that both share."""

    def __init__(
        self, space: SampleSpace, first: Samples, second: Samples, rng: np.random.Generator
    ) -> None:
        seen = _comparable(space, first, second)
        distances = seen.distances
        names = list(dict.fromkeys(name for distance in distances for name in distance.columns))
        samples = Samples.concat([first.select(names), second.select(names)])
        self.size = samples.size
        codes, keys = _keys(distances, samples)
        # Ties in random order: in the order in which they lie, those of the first set come first.
        order = np.lexsort((rng.random(self.size), *reversed(keys), codes))
        offsets = _cuts(codes[order], max(_LEAST, self.size // _CELLS))
        batches = Batches((samples,), order, offsets)
        self.cell = np.empty(self.size, np.int64)
        self.cell[order] = np.repeat(np.arange(len(batches)), batches.sizes)
        #: ``(cells,)`` label of each cell, numbered; none straddles two.
        self.label = codes[order[offsets[:-1]]]
        self.labelled = bool(_label_columns(distances))
        self.kernel = np.minimum.reduce(list(kernels(seen, batches)))

    @property
    def cells(self) -> int:
        return len(self.kernel)


def compare(
    space: SampleSpace,
    arrivals: Clusters,
    reference: Clusters,
    *,
    draws: int,
    rng: np.random.Generator,
    loss: str = "loss",
    trained: Samples | None = None,
) -> Comparison:
    """Test whether arrivals and reference may be exchanged for one another.

    Args:
        space: Distances and bandwidths; those whose columns are missing, or hold missing values
            (labels that come later), are left out.
        arrivals: New samples, predicted by the deployed model.
        reference: Earlier ones, predicted by the same model, which was trained on neither.
        draws: Most permutations, the observation included; fewer where nothing is unusual.
        rng: Generator of the permutations.
        loss: Column of losses, larger is worse; missing ones count for nothing.
        trained: What the model was trained on; see `losses_of`.
    """
    a, s = arrivals.samples, reference.samples
    keys, cluster = np.unique(np.concatenate([arrivals.key, reference.key]), return_inverse=True)
    cluster = cluster.reshape(-1)
    sides = (arrivals.count, reference.count)
    if min(sides) < 2:
        return Comparison(math.nan, {}, 0, sides)
    pool = _Pool(space, a, s, rng)
    own = np.arange(pool.size) < a.size
    above, known = _above(
        np.concatenate([losses_of(space, part, loss, trained) for part in (a, s)])
    )
    if len(keys) == pool.size:
        # Rows are their own clusters, so only how many of each kind (cell and losses) are drawn
        # matters, and that is multivariate hypergeometric.
        kind = pool.cell * (len(LEVELS) + 2) + np.where(known, above.sum(axis=1), len(LEVELS) + 1)
        _, first, cluster = np.unique(kind, return_index=True, return_inverse=True)
        cluster = cluster.reshape(-1)
        counts = np.zeros((len(first), pool.cells), np.float32)
        counts[np.arange(len(first)), pool.cell[first]] = 1
        losses = above[first].astype(np.float32)
        knowing = known[first].astype(np.float32)
        sizes = np.bincount(cluster)
        observed = np.bincount(cluster[own], minlength=len(first))
        deal = _Deal(sizes, a.size, rng, alone=True)
        total = sizes @ counts
    else:
        count = len(keys)
        counts = np.zeros((count, pool.cells), np.float32)
        np.add.at(counts, (cluster, pool.cell), 1)
        losses = np.stack(
            [np.bincount(cluster, column, count) for column in above.T], axis=1
        ).astype(np.float32)
        knowing = np.bincount(cluster, known, count).astype(np.float32)
        observed = np.isin(keys, arrivals.key).astype(np.int64)
        deal = _Deal(np.ones(count, np.int64), int(observed.sum()), rng, alone=False)
        total = counts.sum(axis=0)
    names, values, done = _names(pool, known), [], 0
    block, most = 500, max(1, _TAKEN // len(observed))
    while done < draws:
        taken = deal.draw(min(block, most, draws - done))
        if not done:
            taken[0] = observed  # it is one of the draws
        values.append(_statistics(pool, taken, counts, total, losses, knowing))
        done += len(taken)
        largest = _largest(values)[1]
        if done >= _EARLY and np.count_nonzero(largest >= largest[0]) > _ENOUGH:
            break
        block *= 2
    z, largest = _largest(values)
    p = float(np.mean(largest >= largest[0]))
    rises = np.concatenate([drawn[:, 0] for drawn in values])
    noise = float(np.quantile(rises, 0.95))
    named = dict(zip(names, z.tolist(), strict=True))
    return Comparison(p, named, done, sides, float(rises[0]), noise)


class _Deal:
    """Draws which of the pooled kinds (or clusters) are the arrivals."""

    def __init__(
        self, sizes: np.ndarray, own: int, rng: np.random.Generator, *, alone: bool
    ) -> None:
        self._sizes, self._own, self._rng, self._alone = sizes, own, rng, alone

    def draw(self, count: int) -> np.ndarray:
        """``(count, kinds)`` float32, how many of each."""
        if self._alone:
            drawn = self._rng.multivariate_hypergeometric(
                self._sizes, self._own, size=count, method="marginals"
            )
            return drawn.astype(np.float32)
        shuffled = np.argpartition(self._rng.random((count, len(self._sizes))), self._own - 1)
        taken = np.zeros((count, len(self._sizes)), np.float32)
        np.put_along_axis(taken, shuffled[:, : self._own], 1, axis=1)
        return taken


def _names(pool: _Pool, known: np.ndarray) -> list[str]:
    names = ["newness"]
    if pool.labelled:
        names.append("labels")
    if known.any():
        names += [f"loss_{level * 100:g}" for level in LEVELS]
    return names


def _statistics(
    pool: _Pool,
    taken: np.ndarray,
    counts: np.ndarray,
    total: np.ndarray,
    losses: np.ndarray,
    knowing: np.ndarray,
) -> np.ndarray:
    """``(draws, statistics)``, in the order of `_names`."""
    ours = (taken @ counts).astype(np.float64)
    theirs = total - ours
    found = [_newness(ours, theirs, pool.kernel)]
    if pool.labelled:
        found.append(_share_of_unseen(ours, theirs, pool.label))
    if knowing.any():
        rows = np.maximum(taken @ knowing, 1)
        found += list(((taken @ losses) / rows[:, None]).T)
    return np.stack(found, axis=1)


def _newness(
    ours: np.ndarray, theirs: np.ndarray, kernel: np.ndarray, tolerance: float = 1.0
) -> np.ndarray:
    """``(draws,)``: ``sum_c a_c max(0, 1 - tolerance rho_S(c) / rho_A(c))^2``.

    Args:
        ours: ``(draws, cells)`` arrivals in each cell.
        theirs: ``(draws, cells)`` of the reference.
        kernel: ``(cells, cells)`` kernel values between cells.
        tolerance: By how much arrivals may be denser without being new.
    """
    a = ours / ours.sum(axis=1, keepdims=True)
    s = theirs / np.maximum(theirs.sum(axis=1, keepdims=True), 1)
    dense = np.maximum(a @ kernel, 1e-12)
    lacking = np.maximum(0.0, 1 - tolerance * (s @ kernel) / dense)
    # Rounded, so that draws that are equal by count compare equal whatever the order of sums.
    newness: np.ndarray = (a * lacking**2).sum(axis=1).round(12)
    return newness


def _share_of_unseen(ours: np.ndarray, theirs: np.ndarray, label: np.ndarray) -> np.ndarray:
    """``(draws,)`` share of the arrivals whose label the reference lacks."""
    starts = np.flatnonzero(np.concatenate([[True], label[1:] != label[:-1]]))
    mine, others = (np.add.reduceat(side, starts, axis=1) for side in (ours, theirs))
    share: np.ndarray = np.where(others < 0.5, mine, 0).sum(axis=1) / ours.sum(axis=1)
    return share


def _largest(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The observation's statistics, standardised by all draws, and the largest of every draw."""
    every = np.concatenate(values)
    z = ((every - every.mean(axis=0)) / (every.std(axis=0) + 1e-12)).round(9)
    return z[0], z.max(axis=1)


def new_share(
    space: SampleSpace,
    arrivals: Samples,
    history: Samples,
    *,
    tolerance: float,
    rng: np.random.Generator,
) -> float:
    """How much of the arrivals is new beside the history, less what chance alone would show.

    Args:
        space: As for `compare`.
        arrivals: New samples, at least one.
        history: Earlier ones, at least one, predicted by the same model.
        tolerance: What the history covers at 1 / tolerance of the arrivals' density is not new.
        rng: Of the draw that shows chance.

    Returns:
        About 0 to 1; it may be below 0 where there is nothing new.
    """
    pool = _Pool(space, arrivals, history, rng)
    found = []
    for cell in (pool.cell, rng.permutation(pool.cell)):
        ours, theirs = (
            np.bincount(side, minlength=pool.cells)[None].astype(np.float64)
            for side in (cell[: arrivals.size], cell[arrivals.size :])
        )
        found.append(float(_newness(ours, theirs, pool.kernel, tolerance)[0]))
    return found[0] - found[1]


def unseen_labels(space: SampleSpace, arrivals: Samples, known: Sequence[Samples]) -> list[object]:
    """Labels of arrivals that none of the known samples has, ascending."""
    unseen: set[object] = set()
    for name in _label_columns(space.distances):
        if all(name in samples for samples in (arrivals, *known)):
            here = np.unique(arrivals[name][~lacking(arrivals[name])])
            before = np.concatenate([np.unique(samples[name]) for samples in known])
            unseen.update(np.setdiff1d(here, before).tolist())
    return sorted(unseen, key=lambda label: (str(type(label)), label))


def share_of_unseen(space: SampleSpace, samples: Samples, before: Samples) -> float:
    """Share of the samples with a label that those before lack; 0 where there are no labels."""
    unseen = np.zeros(samples.size, bool)
    for name in _label_columns(space.distances):
        if name in samples and name in before:
            unseen |= ~np.isin(samples[name], before[name]) & ~lacking(samples[name])
    return float(unseen.mean()) if samples.size else 0.0


def excess(
    space: SampleSpace, arrivals: Samples, reference: Samples, trained: Samples | None = None
) -> float:
    """By how much more often arrivals have large losses than the reference had.

    Args:
        space: As for `losses_of`.
        arrivals: New samples, with losses or with what they follow from.
        reference: Earlier samples, likewise.
        trained: As for `losses_of`.

    Returns:
        The larger of two relative increases, of the shares above the reference's 90 % and 95 %
        quantile: 0.1 is 10 % more often; NaN without losses.
    """
    ours, theirs = (losses_of(space, part, trained=trained) for part in (arrivals, reference))
    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    if not len(ours) or not len(theirs):
        return math.nan
    ratios = []
    for cut in np.quantile(theirs, (0.9, 0.95)):
        usual = max(float(np.mean(theirs > cut)), 1 / len(theirs))
        ratios.append(float(np.mean(ours > cut)) / usual - 1)
    return max(ratios)


def losses_of(
    space: SampleSpace, samples: Samples, loss: str = "loss", trained: Samples | None = None
) -> np.ndarray:
    """``(n,)`` losses; NaN where they are unknown.

    Args:
        space: Says which columns hold labels and predictions.
        samples: With a column of losses, or with label and prediction; see `class_losses`.
        loss: Name of the column of losses.
        trained: What the model was trained on, whose labels say which columns are whose.
    """
    given = np.full(samples.size, np.nan)
    # One of this name that holds no numbers (what an insurer pays for, say) is something else.
    if loss in samples and samples[loss].ndim == 1 and samples[loss].dtype.kind in "biuf":
        given = samples[loss].astype(np.float64)
        if not np.isnan(given).any():
            return given
    columns: dict[str, str] = {}
    for distance in space.distances:
        columns.setdefault(distance.kind or "", distance.columns[0])
    name = columns.get("jensen-shannon-labels", "")
    probabilities = samples.get(columns.get("jensen-shannon-probabilities", ""))
    if name not in samples or probabilities is None:
        return given
    known = None if trained is None else trained.get(name)
    return np.where(np.isnan(given), class_losses(samples[name], probabilities, known), given)


def _above(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(n, levels)`` whether a loss is above a pooled quantile; ``(n,)`` whether it is known."""
    known = ~np.isnan(losses)
    if not known.any():
        return np.zeros((len(losses), len(LEVELS))), known
    cuts = np.quantile(losses[known], LEVELS, method="higher")
    return (np.where(known, losses, -np.inf)[:, None] > cuts).astype(np.float64), known


def _comparable(space: SampleSpace, *sets: Samples) -> SampleSpace:
    """What of the space can be seen: distances whose columns are there and complete in all sets.

    Where labels are still to come, predictions are compared without them.

    Raises:
        SchemaError: Nothing can be seen.
    """
    widths = np.broadcast_to(space.bandwidth, len(space.distances)).tolist()
    found = [
        (distance, width)
        for distance, width in zip(space.distances, widths, strict=True)
        if all(
            name in samples and not lacking(samples[name]).any()
            for samples in sets
            for name in distance.columns
        )
    ]
    if not found:
        names = sorted({name for distance in space.distances for name in distance.columns})
        raise SchemaError(
            f"arrivals cannot be compared: none of the columns {names} is there and without "
            "missing values, now and earlier; have the learner annotate predictions, or give labels"
        )
    distances, bandwidths = zip(*found, strict=True)
    return SampleSpace(distances, batch_size=_LEAST, bandwidth=bandwidths, sort_by=())


def _label_columns(distances: Sequence[Distance]) -> list[str]:
    return [d.columns[0] for d in distances if d.kind == "jensen-shannon-labels"]


def _keys(distances: Sequence[Distance], samples: Samples) -> tuple[np.ndarray, list[np.ndarray]]:
    """What cells are sorted by: labels as numbers, and further keys, most important first."""
    labels = _label_columns(distances)
    codes = np.zeros(samples.size, np.int64)
    for name in labels:
        _, inverse = np.unique(samples[name], return_inverse=True)
        inverse = inverse.reshape(-1)
        codes = codes * (int(inverse.max(initial=0)) + 1) + inverse
    if labels:
        _, codes = np.unique(codes, return_inverse=True)
        codes = codes.reshape(-1)
        if codes.max(initial=0) >= _CELLS // 2:  # a cell each would leave no samples in any
            codes = codes * (_CELLS // 2) // (int(codes.max()) + 1)
    single, rows = [], []
    for distance in distances:
        for name, axes in distance.axes.items():
            if name in labels:
                continue
            column = samples[name]
            if axes == 0:
                single.append(column.astype(np.float64))
            else:
                flat = np.abs(column.reshape(len(column), -1).astype(np.float64))
                rows += [flat.argmax(axis=1), -flat.max(axis=1)]
    # All but the last single value are cut into quantiles, inside which the next one sorts.
    cells = min(_CELLS, max(1, samples.size // _LEAST))
    keys = [_binned(values, round(cells**0.5)) for values in (single if rows else single[:-1])]
    return codes, [*keys, *([] if rows else single[-1:]), *rows]


def _binned(values: np.ndarray, bins: int) -> np.ndarray:
    cuts = np.quantile(values, np.arange(1, bins) / bins)
    return np.searchsorted(cuts, values, side="right")


def _cuts(codes: np.ndarray, size: int) -> np.ndarray:
    """``(cells + 1,)`` where sorted rows are cut: nearly equal cells that straddle no label."""
    starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1], [True]]))
    cuts: list[np.ndarray] = []
    for start, stop in pairwise(starts.tolist()):
        cells = max(1, round((stop - start) / size))
        cuts.append(np.linspace(start, stop, cells, endpoint=False).astype(np.int64))
    return np.concatenate([*cuts, [len(codes)]]).astype(np.int64)
