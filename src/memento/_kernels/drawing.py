r"""Discarding batches, one draw after the other.

With ``m`` batches left and kernel sums ``S_d`` under the distances ``d``, the density of batch
``i`` is

    rho_i = min_d S_d[i] / (m sqrt(2 pi)),

and the next batch to go is drawn with probability ``softmax(rho / T)_i``. Then its kernel row is
subtracted from every ``S_d``, ``m`` falls by one, and so on. At T = 0 the densest batch goes, the
last one on ties; at T = inf any. With a share s above 0, T follows the density that is left: it is
at most s times the mean over the batches of ``(min_d S_d[i] - 1) / ((m - 1) sqrt(2 pi))``, without
own kernels, as it was after every 64th part; and not below 1e-9, so that equals go at random.

**Groups.** Batches with the same summary have the same sum. A distance keeps one sum per *group* of
such batches, and ``groups[i]`` is the group of batch ``i``; where all differ, ``groups[i] = i``. A
discarded batch takes its kernel row (weight 1) from the sums of all groups, and its group has one
member less.

**Drawing** inverts the distribution function: with ``w_i = exp((rho_i - max rho) / T)``, take the
first batch at which the running total of ``w`` exceeds ``u * sum(w)``, for a uniform ``u`` from the
caller. The totals of 256 batches at a time lead to the right block first. ``w`` is float32
with a relative error of 6e-6 at most (and 0 below 2^-126), so a probability p is drawn as
p (1 +- 1.2e-5); totals are float64. At T = 0, sums within 1e-9 of the largest (relative)
are tied: equal sums differ that much by the rounding of what was added and subtracted, which must
not choose.

**What is gone** keeps its place until places are given out anew, which costs about as much as five
kernel rows and happens after every 64th part of the batches is gone; until then a ceiling of -inf
keeps it from being drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel
from memento._kernels.jensen_shannon import (
    MANY,
    TILE,
    UNROLL,
    Packed,
    binary,
    compact,
    describe_tiles,
    empty_packed,
    move_columns,
    power_of_two,
    subtract_from,
    wide,
)

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int32]

_f4 = np.float32
_LOWEST = _f4(-126.0)
_TIE = 1e-9
_LANES = 32
_NO_MATRIX = np.empty((0, 0))
_ROOT_TWO_PI = np.sqrt(2.0 * np.pi)
_COLDEST = 1e-9
_PER_LN2 = 1.0 / np.log(2.0)


@kernel()
def _lower_to(sums, groups, plain, values):  # type: ignore[no-untyped-def]
    """Lower values[i] to the sum of its group; ``plain`` says that groups[i] = i."""
    wide()
    n = values.shape[0]
    if plain:
        for i in range(n):
            s = sums[i]
            v = values[i]
            values[i] = s if s < v else v
    else:
        for i in range(n):
            s = sums[groups[i]]
            v = values[i]
            values[i] = s if s < v else v


@kernel()
def _largest(values):  # type: ignore[no-untyped-def]
    """Return the largest value; 32 lanes, as a single maximum would be a chain of waits."""
    wide()
    lanes = np.full(_LANES, -np.inf)
    n = values.shape[0]
    whole = n - n % _LANES
    for start in range(0, whole, _LANES):
        for lane in range(_LANES):
            v = values[start + lane]
            largest = lanes[lane]
            lanes[lane] = v if v > largest else largest
    largest = -np.inf
    for lane in range(_LANES):
        largest = max(largest, lanes[lane])
    for i in range(whole, n):
        largest = max(largest, values[i])
    return largest


@kernel()
def _weigh(values, largest, factor, shares):  # type: ignore[no-untyped-def]
    """Fill shares (float32) with 2^(factor * (values - largest)), 0 where that is below 2^-126."""
    wide()
    for i in range(values.shape[0]):
        z = _f4((values[i] - largest) * factor)
        share = power_of_two(max(z, _LOWEST))
        shares[i] = share if z > _LOWEST else _f4(0.0)


@kernel(fastmath={"reassoc"})
def _total(shares):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(shares.shape[0]):
        total += np.float64(shares[i])
    return total


@kernel()
def _pick(values, m, temperature, u, shares, totals):  # type: ignore[no-untyped-def]
    """Return the place to discard; values hold the smallest sums, -inf where nothing is left."""
    n = values.shape[0]
    if temperature == np.inf:
        # the alive ones are counted off
        left = min(np.int64(u * m), m - 1)
        for i in range(n):
            if values[i] > -np.inf:
                if left == 0:
                    return i
                left -= 1
    largest = _largest(values)
    if temperature == 0.0:
        tied = largest - _TIE * abs(largest)
        for i in range(n - 1, -1, -1):
            if values[i] >= tied:
                return i
    _weigh(values, largest, _PER_LN2 / (m * _ROOT_TWO_PI * temperature), shares)
    blocks = (n + TILE - 1) // TILE
    whole = 0.0
    for t in range(blocks):
        totals[t] = _total(shares[t * TILE : min((t + 1) * TILE, n)])
        whole += totals[t]
    target = u * whole
    running = 0.0
    block = 0
    while block < blocks - 1 and running + totals[block] <= target:
        running += totals[block]
        block += 1
    for i in range(block * TILE, min((block + 1) * TILE, n)):
        running += shares[i]
        if running > target:
            return i
    # rounding kept the running total below its target: the last one that could have been meant
    i = min((block + 1) * TILE, n) - 1
    while shares[i] == 0.0:
        i -= 1
    return i


@kernel()
def _smallest_sums(sums, groups, plain, ceiling, values):  # type: ignore[no-untyped-def]
    """Fill values with the smallest sum of each batch over the distances, at most its ceiling."""
    for i in range(values.shape[0]):
        values[i] = ceiling[i]
    for d in range(len(sums)):
        _lower_to(sums[d], groups[d], plain[d], values)


@kernel()
def _cooled(values, m, temperature, share):  # type: ignore[no-untyped-def]
    """Return the temperature where it follows the density of a batch among the others."""
    total = 0.0
    for i in range(values.shape[0]):
        total += max(values[i] - 1.0, 0.0)  # what is gone counts nothing
    mean = total / (max(m - 1, 1) * np.float64(m) * _ROOT_TWO_PI)
    return min(temperature, max(_COLDEST, share * mean))


@kernel()
def _drop_places(ceiling, origin, groups):  # type: ignore[no-untyped-def]
    """Move what is alive to the front of all arrays; return how many."""
    kept = 0
    for i in range(ceiling.shape[0]):
        if ceiling[i] > 0.0:
            ceiling[kept] = ceiling[i]
            origin[kept] = origin[i]
            for d in range(len(groups)):
                groups[d][kept] = groups[d][i]
            kept += 1
    return kept


@kernel()
def _front(packed, size):  # type: ignore[no-untyped-def]
    """Return the first distributions as if they were all, in the same arrays."""
    count = (size + TILE - 1) // TILE
    described = count if count >= MANY else 0
    near = (described + TILE - 1) // TILE
    return Packed(
        packed.tiles[:count],
        packed.halves[:count],
        size,
        packed.means[:near],
        packed.mean_halves[:near],
        packed.radii[:described],
    )


@kernel()
def _drop_groups(packed, size, members, sums, names, groups):  # type: ignore[no-untyped-def]
    """Move the groups that still have members to the front and renumber; return how many."""
    number = np.empty(size, np.int32)
    keep = np.empty(size, np.int64)
    kept = 0
    for g in range(size):
        number[g] = kept
        if members[g] > 0:
            keep[kept] = g
            members[kept] = members[g]
            sums[kept] = sums[g]
            names[kept] = names[g]
            kept += 1
    if kept < size:
        front = _front(packed, kept)
        move_columns(packed.tiles, packed.halves, keep[:kept], front.tiles, front.halves)
        if len(front.radii):
            describe_tiles(
                front.tiles, front.halves, kept, front.means, front.mean_halves, front.radii
            )
        for i in range(groups.shape[0]):
            groups[i] = number[groups[i]]
    return kept


@kernel()
def _discard(  # type: ignore[no-untyped-def]
    packs,
    matrices,
    sizes,
    factor,
    sums,
    groups,
    plain,
    members,
    names,
    temperature,
    share,
    us,
    rows,
    excess,
    out,
):
    """Fill out with the batches discarded, at most one per uniform in ``us``; return how many.

    It ends when the ``rows`` of what was discarded sum up to ``excess``.

    All of the tuples have one entry per distance. Its kernels come from ``packs`` unless
    ``matrices`` holds them. Everything but ``matrices`` is changed: ``sizes`` counts the groups
    that are left, ``sums`` holds their sums and ``names`` the numbers by which the caller knows
    them.
    """
    n = groups[0].shape[0]
    places = n
    m = n
    origin = np.arange(n)
    ceiling = np.full(n, np.inf)
    values = np.empty(n)
    shares = np.empty(n, np.float32)
    totals = np.empty((n + TILE - 1) // TILE)
    limit = temperature
    due = share > 0.0
    for step in range(us.shape[0]):
        if excess <= 0:
            return step
        _smallest_sums(sums, groups, plain, ceiling[:places], values[:places])
        if due:
            temperature = _cooled(values[:places], m, limit, share)
            due = False
        i = _pick(values[:places], m, temperature, us[step], shares, totals)
        out[step] = origin[i]
        ceiling[i] = -np.inf
        m -= 1
        excess -= rows[origin[i]]
        for d in range(len(sums)):
            g = np.int64(groups[d][i])
            members[d][g] -= 1
            if matrices[d].shape[0] > 0:
                row = matrices[d][g]
                for j in range(row.shape[0]):
                    sums[d][j] -= row[j]
            else:
                subtract_from(_front(packs[d], sizes[d]), g, factor, 1.0, sums[d])
        if (places - m) * 64 >= places and m > 0:
            places = _drop_places(ceiling[:places], origin, groups)
            due = share > 0.0
            for d in range(len(sums)):
                if matrices[d].shape[0] == 0:
                    sizes[d] = _drop_groups(
                        packs[d], sizes[d], members[d], sums[d], names[d], groups[d][:places]
                    )
    return us.shape[0]


def discard(
    kernels: Sequence[Packed | Floats],
    sums: Sequence[Floats],
    groups: Sequence[Groups | None],
    scale: float,
    temperature: float,
    us: Floats,
    rows: npt.NDArray[np.int64],
    excess: int,
    share: float = 0.0,
) -> npt.NDArray[np.int64]:
    """Discard batches one by one and return them in the order in which they went.

    Args:
        kernels: per distance, the packed summaries of its groups, or the float64 (groups, groups)
            matrix of kernel values between them.
        sums: per distance, float64 (groups,) kernel sums over all n batches. They are brought up to
            date in place for every group that still has a batch; the others are left undefined.
        groups: per distance, int32 (n,) group of each batch, or None if batch i is group i.
        scale: 1 / (2 h^2), for packed summaries.
        temperature: 0 to inf.
        us: one uniform in [0, 1) for each batch to discard, at most n; not used at temperature 0.
        rows: int64 (n,), samples in each batch.
        excess: no more batches go once this many samples have.
        share: of the mean density that the temperature is at most; 0: it stays as given.
    """
    places = [
        np.arange(len(total), dtype=np.int32) if group is None else group.copy()
        for total, group in zip(sums, groups, strict=True)
    ]
    # A matrix keeps its rows while batches go, so its groups soon differ from the batches left.
    plain = np.array(
        [g is None and isinstance(k, Packed) for k, g in zip(kernels, groups, strict=True)]
    )
    sizes = np.array([len(total) for total in sums])
    members = tuple(np.bincount(g, minlength=len(s)) for g, s in zip(places, sums, strict=True))
    names = tuple(np.arange(len(total)) for total in sums)
    running = tuple(total.copy() for total in sums)
    out = np.empty(len(us), np.int64)
    # copies, as what is packed moves together
    nothing = empty_packed(0, UNROLL)
    packs = tuple(
        compact(k, np.arange(k.size)) if isinstance(k, Packed) else nothing for k in kernels
    )
    matrices = tuple(_NO_MATRIX if isinstance(k, Packed) else k for k in kernels)
    count = _discard(
        packs,
        matrices,
        sizes,
        binary(scale),
        running,
        tuple(places),
        plain,
        members,
        names,
        float(temperature),
        float(share),
        us,
        rows,
        excess,
        out,
    )
    for total, current, name, size in zip(sums, running, names, sizes, strict=True):
        total[name[:size]] = current[:size]
    return out[:count]
