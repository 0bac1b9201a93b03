r"""Replacing samples one after the other, with scores that change at every step.

Held sample ``i`` has loss ``l_i`` and label ``c(i)``; ``n_c`` samples of label ``c`` are held. The
score is

    s_i = n_c(i) - a l_i,    a = sum_j n_c(j) / sum_j |l_j|

or, ``inverse``, ``a = 1 / (mean_j n_c(j) mean_j |l_j|)``, and the victim is drawn with probability
``s_i - min_j s_j``, normalised (any if all scores are equal). Factors common to all scores do not
matter.

**Places.** All samples that are ever held get a place, sorted by label, then by loss, the largest
first. A label is a range of places, whose first and last filled place bound its scores. With the
number of filled places and the sum of their losses known for any beginning of a range (two Fenwick
trees), the total probability of a label is one expression, and a victim within it is found by
descending its tree: ``sum over filled places of (n_c - m) - a l``, with ``m`` the smallest score,
grows from place to place. So a step costs O(labels + log(samples)).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel

# Scores that differ by less, relative to their size, are equal but for rounding.
_EQUAL = 1e-12


@kernel()
def _add(tree, start, stop, place, count, loss):  # type: ignore[no-untyped-def]
    """Fill (count 1) or empty (count -1, negative loss) a place of the label in start:stop."""
    i = place - start + 1
    while i <= stop - start:
        node = start + i - 1
        tree[node, 0] += count
        tree[node, 1] += loss
        i += i & -i


@kernel()
def _place_of_rank(tree, start, stop, rank):  # type: ignore[no-untyped-def]
    """Return the rank-th filled place of start:stop, counted from 1."""
    size = stop - start
    step = 1
    while step * 2 <= size:
        step *= 2
    before = 0
    while step > 0:
        if before + step <= size and tree[start + before + step - 1, 0] < rank:
            before += step
            rank -= tree[start + before - 1, 0]
        step //= 2
    return start + before


@kernel()
def _place_of_share(  # type: ignore[no-untyped-def]
    tree, filled, start, stop, held, offset, slope, share
):
    """Return the filled place at which ``offset - slope * loss`` adds up to the share."""
    size = stop - start
    step = 1
    while step * 2 <= size:
        step *= 2
    before = 0
    rank = 0.0
    while step > 0:
        if before + step <= size:
            node = start + before + step - 1
            weight = offset * tree[node, 0] - slope * tree[node, 1]
            if weight <= share:
                before += step
                rank += tree[node, 0]
                share -= weight
        step //= 2
    if before < size and filled[start + before]:
        return start + before
    # rounding can lead to a place that is empty, or past the last one
    return _place_of_rank(tree, start, stop, min(rank + 1.0, held))


@kernel()
def _count(  # type: ignore[no-untyped-def]
    losses, starts, filled, tree, held, loss, size, first, last, label_of
):
    """Fill the trees, the figures of each label, and the label of each place."""
    for c in range(starts.shape[0] - 1):
        start = starts[c]
        for p in range(start, starts[c + 1]):
            label_of[p] = c
            if filled[p]:
                first[c] = p if held[c] == 0 else first[c]
                last[c] = p
                held[c] += 1
                loss[c] += losses[p]
                size[c] += abs(losses[p])
                tree[p, 0] += 1.0
                tree[p, 1] += losses[p]
            i = p - start + 1
            above = start + i + (i & -i) - 1
            if above < starts[c + 1]:
                tree[above, 0] += tree[p, 0]
                tree[above, 1] += tree[p, 1]


@kernel()
def _weigh(losses, held, loss, size, first, last, inverse, weights):  # type: ignore[no-untyped-def]
    """Fill the weights of labels; return their sum, slope, lowest score, and if all are equal."""
    labels = held.shape[0]
    count = 0.0
    squares = 0.0
    sizes = 0.0
    for c in range(labels):
        count += held[c]
        squares += float(held[c]) * held[c]
        sizes += size[c]
    if sizes <= 0.0:
        a = 0.0
    elif inverse:
        a = count / sizes * (count / squares)
    else:
        a = squares / sizes
    lowest = np.inf
    highest = -np.inf
    for c in range(labels):
        if held[c] > 0:
            lowest = min(lowest, held[c] - a * losses[first[c]])
            highest = max(highest, held[c] - a * losses[last[c]])
    equal = highest - lowest <= _EQUAL * max(abs(highest), abs(lowest))
    weight = 0.0
    for c in range(labels):
        if held[c] == 0:
            weights[c] = 0.0
        elif equal:
            weights[c] = held[c]
        else:
            weights[c] = max(0.0, held[c] * (held[c] - lowest) - a * loss[c])
        weight += weights[c]
    return weight, a, lowest, equal


@kernel()
def _replace(losses, starts, filled, entering, drawn, inverse):  # type: ignore[no-untyped-def]
    """Let samples enter, each in the place of a victim; ``filled`` says who is held in the end."""
    labels = starts.shape[0] - 1
    tree = np.zeros((losses.shape[0], 2), np.float64)  # filled places and their losses
    held = np.zeros(labels, np.int64)
    loss = np.zeros(labels, np.float64)
    size = np.zeros(labels, np.float64)  # of the losses: sum of their absolute values
    first = np.zeros(labels, np.int64)  # filled place, which has the largest loss
    last = np.zeros(labels, np.int64)
    weights = np.empty(labels, np.float64)
    label_of = np.empty(losses.shape[0], np.int64)
    _count(losses, starts, filled, tree, held, loss, size, first, last, label_of)
    for e in range(entering.shape[0]):
        weight, a, lowest, equal = _weigh(losses, held, loss, size, first, last, inverse, weights)
        share = drawn[e] * weight
        chosen = -1
        for c in range(labels):
            if weights[c] > 0.0:
                chosen = c
                if share < weights[c]:
                    break
                share -= weights[c]
        start = starts[chosen]
        stop = starts[chosen + 1]
        if equal:
            rank = min(np.int64(share) + 1, held[chosen])
            victim = _place_of_rank(tree, start, stop, rank)
        else:
            victim = _place_of_share(
                tree, filled, start, stop, held[chosen], held[chosen] - lowest, a, share
            )
        filled[victim] = False
        _add(tree, start, stop, victim, -1.0, -losses[victim])
        held[chosen] -= 1
        loss[chosen] -= losses[victim]
        size[chosen] = size[chosen] - abs(losses[victim]) if held[chosen] > 0 else 0.0
        if held[chosen] > 0 and victim == first[chosen]:
            first[chosen] = _place_of_rank(tree, start, stop, 1)
        if held[chosen] > 0 and victim == last[chosen]:
            last[chosen] = _place_of_rank(tree, start, stop, held[chosen])
        p = entering[e]
        c = label_of[p]
        filled[p] = True
        _add(tree, starts[c], starts[c + 1], p, 1.0, losses[p])
        first[c] = p if held[c] == 0 else min(first[c], p)
        last[c] = p if held[c] == 0 else max(last[c], p)
        held[c] += 1
        loss[c] += losses[p]
        size[c] += abs(losses[p])


def replace(
    labels: npt.NDArray[np.int64],
    losses: npt.NDArray[np.float64],
    held: int,
    drawn: npt.NDArray[np.float64],
    inverse: bool = False,
) -> npt.NDArray[np.bool_]:
    """Let samples enter one after the other, each in the place of a victim.

    Args:
        labels: (n,) from 0 up.
        losses: (n,) finite losses.
        held: The first so many samples are held, the others enter in their order.
        drawn: (n - held,) uniform in [0, 1), one for each that enters.
        inverse: Which scale of losses; see above.

    Returns:
        (n,) which samples are held in the end.
    """
    # The law depends on ratios of losses only; so scaled, no sum of them can overflow.
    losses = losses / (np.abs(losses).max() or 1.0)
    order = np.argsort(-losses, kind="stable")
    order = order[np.argsort(_small(labels)[order], kind="stable")]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    filled = order < held
    _replace(losses[order], starts, filled, place[held:], drawn, inverse)
    return filled[place]


def _small(labels: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The same in the smallest type that holds them: numpy sorts small integers by digits."""
    return labels.astype(np.min_scalar_type(int(labels.max(initial=0))))
