r"""Discarding very many batches: cells in place of single batches, draw after draw.

The law is that of `drawing`: batch i goes with probability ``softmax(c S_i)``, ``c = 1 / (m sqrt(2
pi) T)`` with m batches left, ``S_i`` the smallest of its kernel sums. There, every discard changes
all n sums. Here it changes one number for each *cell* of each distance: the kernel of its leader
(`landmarks`) to what went. Batches of the same cells make a *joint cell* g with a weight ``W_g =
sum exp(c S_i)``, which follows to first order,

    W_g exp(mean(S) (c - c_g) - c sum_d rate_gd (leads_d - leads_d at c_g)),

``leads`` being the sums that leaders have lost, and ``rate`` what members lost per loss of the
leader so far. Before an exponent has moved by more than 0.1 in one of the two terms, all members
of the joint cell are *refreshed*: the landmarks of its cells catch up with all that went since, and
what members lost is interpolated from that, each for itself. So what members of a cell have in
common is only by how much they changed since their last refresh, never their sums: cells that
share their sums discard what is densest too often.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel
from memento._kernels.jensen_shannon import TILE, tile_kernels

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_ROOT_TWO_PI = np.sqrt(2.0 * np.pi)
_MOVED = 0.1  # exponent by which a joint cell may have changed since its refresh
_BLOCK = 0.02  # the same between two looks at all joint cells, at most
_LONGEST = 256  # discards between two such looks
_COLDEST = 1e-9
_FAINT = 1e-6  # joint cells below this share of all weight are not refreshed in between


class Layer(NamedTuple):
    """Distinct distributions under one distance, their cells, and what these have lost.

    Attributes:
        tiles: All distributions, as in `jensen_shannon.Packed`, and so ``halves``.
        halves: See there.
        factor: float32 (1,), `jensen_shannon.binary` of the scale.
        cells: (rows,) the cell of each distribution.
        places: (rows,) place of each among the members of its cell.
        starts: (cells + 1,), as in `landmarks.Skeleton`, and so the next four.
        pivots: See there.
        firsts: See there.
        factors: See there.
        offsets: See there.
        mark_tiles: The landmarks in their order, packed like all.
        mark_halves: Their halves.
        leader_tiles: The first landmark of each cell.
        leader_halves: Their halves.
        base: (rows,) kernel sums when nothing of ``recent`` had gone.
        drops: (m,) what landmarks had lost of this when they caught up last.
        solved: (m,) the same as coefficients of the rows of factors.
        since: (cells,) how many of ``recent`` that covers.
        leads: (cells,) what leaders have lost by now.
        recent_tiles: What has gone, in order, packed like all.
        recent_halves: Their halves.
    """

    tiles: Singles
    halves: Singles
    factor: Singles
    cells: Rows
    places: Rows
    starts: Rows
    pivots: Rows
    firsts: Rows
    factors: Singles
    offsets: Rows
    mark_tiles: Singles
    mark_halves: Singles
    leader_tiles: Singles
    leader_halves: Singles
    base: Floats
    drops: Floats
    solved: Floats
    since: Rows
    leads: Floats
    recent_tiles: Singles
    recent_halves: Singles


class Joint(NamedTuple):
    """Joint cells of batches.

    Attributes:
        starts: (joints + 1,) where each begins, in an order of batches in which they lie together.
        groups: (distances, n) the distribution of each batch, in that order.
        cells: (distances, joints) the cell under each distance.
        values: (n,) S_i at the last refresh.
        weights: (n,) exp(c S_i - shift) at the last refresh, 0 for what has gone.
        running: (n,) running totals of these within each joint cell.
        totals: (joints,) weights of what is left of each.
        sizes: (joints,) how many are left of each, and ``sums`` of their values.
        sums: See there.
        means: (joints,) mean S by weight, and when that was: ``marks``.
        marks: (joints,) c at the last refresh.
        rates: (distances, joints) see above.
        leads: (distances, joints) what leaders had lost at the last refresh.
    """

    starts: Rows
    groups: Rows
    cells: Rows
    values: Floats
    weights: Floats
    running: Floats
    totals: Floats
    sizes: Rows
    sums: Floats
    means: Floats
    marks: Floats
    rates: Floats
    leads: Floats


@kernel()
def _catch_up(layer, cell, count, out):  # type: ignore[no-untyped-def]
    """Take what has gone, up to ``count``, out of the sums of a cell's landmarks."""
    begin = layer.since[cell]
    if begin == count:
        return
    layer.since[cell] = count
    first = layer.firsts[cell]
    size = layer.starts[cell + 1] - layer.starts[cell]
    for q in range(first, layer.firsts[cell + 1]):
        own = layer.mark_tiles[q // TILE]
        half = layer.mark_halves[q // TILE, q % TILE]
        total = 0.0
        for t in range(begin // TILE, (count - 1) // TILE + 1):
            tile_kernels(
                own,
                q % TILE,
                half,
                layer.recent_tiles[t],
                layer.recent_halves[t],
                layer.factor[0],
                out,
            )
            for lane in range(max(begin - t * TILE, 0), min(count - t * TILE, TILE)):
                total += np.float64(out[lane])
        layer.drops[q] += total
        place = layer.pivots[q] - layer.starts[cell]
        value = layer.drops[q]
        at = layer.offsets[cell] + place
        for other in range(first, q):
            value -= np.float64(layer.factors[at]) * layer.solved[other]
            at += size
        layer.solved[q] = value / np.float64(layer.factors[at])


@kernel()
def _lost(layer, row):  # type: ignore[no-untyped-def]
    """Return what a distribution has lost, as far as its landmarks have caught up."""
    cell = layer.cells[row]
    size = layer.starts[cell + 1] - layer.starts[cell]
    at = layer.offsets[cell] + layer.places[row]
    total = 0.0
    for q in range(layer.firsts[cell], layer.firsts[cell + 1]):
        total += np.float64(layer.factors[at]) * layer.solved[q]
        at += size
    return max(total, 0.0)


@kernel()
def _refresh(layers, joint, g, count, c, shift, out):  # type: ignore[no-untyped-def]
    """Bring the members of a joint cell up to date, and its weight."""
    for d in range(len(layers)):
        _catch_up(layers[d], joint.cells[d, g], count, out)
        joint.rates[d, g] = 0.0
        joint.leads[d, g] = layers[d].leads[joint.cells[d, g]]
    total = 0.0
    mean = 0.0
    size = 0
    whole = 0.0
    for p in range(joint.starts[g], joint.starts[g + 1]):
        if joint.weights[p] > 0.0:
            least = np.inf
            lost = 0.0
            by = 0
            for d in range(len(layers)):
                row = joint.groups[d, p]
                gone = _lost(layers[d], row)
                left = max(layers[d].base[row] - gone, 1.0)
                if left < least:
                    least, lost, by = left, gone, d
            # Never 0, which means that it has gone.
            weight = np.exp(max(c * least - shift, -700.0))
            joint.values[p] = least
            joint.weights[p] = weight
            size += 1
            whole += least
            total += weight
            mean += weight * least
            leads = joint.leads[by, g]
            joint.rates[by, g] += weight * (lost / leads if leads > 1e-3 else 1.0)
        joint.running[p] = total
    joint.totals[g] = total
    joint.sizes[g] = size
    joint.sums[g] = whole
    joint.marks[g] = c
    if total > 0.0:
        joint.means[g] = mean / total
        for d in range(len(layers)):
            joint.rates[d, g] /= total


@kernel()
def _loss(layers, joint, g):  # type: ignore[no-untyped-def]
    """Return what a member has lost since the last refresh, on average."""
    lost = 0.0
    for d in range(len(layers)):
        lead = layers[d].leads[joint.cells[d, g]] - joint.leads[d, g]
        lost += joint.rates[d, g] * lead
    return lost


@kernel()
def _cooled(layers, joint, m, limit, share):  # type: ignore[no-untyped-def]
    """Return the temperature where it follows the density of a batch among the others."""
    total = 0.0
    for g in range(joint.totals.shape[0]):
        size = joint.sizes[g]
        if size > 0:
            total += max(joint.sums[g] - size * (1.0 + _loss(layers, joint, g)), 0.0)
    mean = total / (max(m - 1, 1) * np.float64(m) * _ROOT_TWO_PI)
    return min(limit, max(_COLDEST, share * mean))


@kernel()
def _look(layers, joint, count, c, shift, boosts, totals, out):  # type: ignore[no-untyped-def]
    """Fill totals with running weights of all joint cells as they are now; refresh where due."""
    whole = 0.0
    for g in range(joint.totals.shape[0]):
        boosts[g] = 0.0
        if joint.totals[g] > 0.0:
            grown = joint.means[g] * (c - joint.marks[g])
            boosts[g] = np.exp(grown - c * _loss(layers, joint, g))
            whole += joint.totals[g] * boosts[g]
    running = 0.0
    for g in range(joint.totals.shape[0]):
        if joint.totals[g] * boosts[g] > _FAINT * whole:
            grown = joint.means[g] * (c - joint.marks[g])
            if max(abs(grown), c * _loss(layers, joint, g)) > _MOVED:
                _refresh(layers, joint, g, count, c, shift, out)
                boosts[g] = 1.0
        running += joint.totals[g] * boosts[g]
        totals[g] = running


@kernel()
def _leave(layer, row, count, out):  # type: ignore[no-untyped-def]
    """Write a distribution to the end of what has gone, and take it out of the leaders' sums."""
    t = row // TILE
    lane = row % TILE
    half = layer.halves[t, lane]
    for b in range(layer.tiles.shape[1]):
        layer.recent_tiles[count // TILE, b, count % TILE] = layer.tiles[t, b, lane]
    layer.recent_halves[count // TILE, count % TILE] = half
    cells = layer.leads.shape[0]
    for tile in range(layer.leader_tiles.shape[0]):
        tile_kernels(
            layer.tiles[t],
            lane,
            half,
            layer.leader_tiles[tile],
            layer.leader_halves[tile],
            layer.factor[0],
            out,
        )
        for j in range(min(TILE, cells - tile * TILE)):
            layer.leads[tile * TILE + j] += np.float64(out[j])


@kernel()
def thin(  # type: ignore[no-untyped-def]
    layers, joint, m, places, temperature, share, shift, us, rows, excess, gone
):
    """Discard batches, one for each uniform in ``us``, until ``rows`` of them exceed the excess.

    The temperature follows the density as in `drawing`. Returns how many went, and the new places.

    Args:
        layers: One `Layer` for each distance; changed.
        joint: A `Joint`, refreshed as of c now; changed.
        m: Batches left.
        places: Batches that were left when the temperature followed the density last; 0: never.
        temperature: Above 0.
        share: Of the mean density that the temperature is at most; 0: it stays as given.
        shift: Largest c S_i, about.
        us: Uniform in [0, 1).
        rows: (n,) samples in each batch, in the order of joint cells.
        excess: No more batches go once so many samples have.
        gone: Filled with the places of what goes.
    """
    out = np.empty(TILE, np.float32)
    cells = joint.totals.shape[0]
    boosts = np.empty(cells)
    totals = np.empty(cells)
    due = 0
    limit = temperature
    if share > 0.0:
        temperature = _cooled(layers, joint, m, limit, share)
    for step in range(us.shape[0]):
        if excess <= 0:
            return step, places
        if (places - m) * 64 >= places and share > 0.0:
            places = m
            temperature = _cooled(layers, joint, m, limit, share)
            due = 0
        if due == 0:
            c = 1.0 / (m * _ROOT_TWO_PI * temperature)
            _look(layers, joint, step, c, shift, boosts, totals, out)
            due = max(1, min(_LONGEST, int(_BLOCK / c)))
        due -= 1
        target = us[step] * totals[cells - 1]
        g = min(np.searchsorted(totals, target, side="right"), cells - 1)
        while joint.totals[g] <= 0.0:  # rounding kept the running total below its target
            g -= 1
        start, stop = joint.starts[g], joint.starts[g + 1]
        inner = (target - (totals[g - 1] if g > 0 else 0.0)) / boosts[g]
        p = start + np.searchsorted(joint.running[start:stop], inner, side="right")
        p = min(p, stop - 1)
        while joint.weights[p] <= 0.0 and p > start:
            p -= 1
        while joint.weights[p] <= 0.0:
            p += 1
        weight = joint.weights[p]
        joint.weights[p] = 0.0
        last = p
        for other in range(p, stop):
            joint.running[other] -= weight
            if joint.weights[other] > 0.0:
                last = other
        # Rounding must not leave a weight to a joint cell of which nothing is left.
        joint.totals[g] = joint.running[stop - 1]
        if last == p and not (joint.weights[start:p] > 0.0).any():
            joint.totals[g] = 0.0
        joint.sizes[g] -= 1
        joint.sums[g] -= joint.values[p]
        lighter = weight * boosts[g]
        for other in range(g, cells):
            totals[other] -= lighter
        for d in range(len(layers)):
            _leave(layers[d], joint.groups[d, p], step, out)
        gone[step] = p
        m -= 1
        excess -= rows[p]
    return us.shape[0], places


@kernel()
def refresh_all(layers, joint, c, shift):  # type: ignore[no-untyped-def]
    """Take over sums that were just made."""
    out = np.empty(TILE, np.float32)
    for g in range(joint.totals.shape[0]):
        _refresh(layers, joint, g, 0, c, shift, out)
