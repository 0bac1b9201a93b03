r"""Picking points that cover the others: farthest first, or by the distances that they save.

**Groups.** Points come in groups of neighbours, and a group's points lie coordinate by coordinate,
so that distances to all of them are added up in the nearest cache. Distances are sums of squared
differences in float32, so equal points are at distance 0 exactly.

**Farthest first** (`centres`). ``m_i`` is the squared distance of point i to the nearest centre. A
new centre c changes nothing in a group with mean g and radius r if ``(||c - g|| - r)^2`` exceeds
the largest ``m_i`` of the group, so that group is skipped.

**Facilities** (`facilities`). With ``m_i`` the distance to the nearest facility of i's group,
opening j gains ``sum_i w_i max(0, m_i - ||x_i - x_j||)``. Gains only fall, so a heap holds the last
known ones, and only what is on top is computed anew, if its group has changed since (Minoux 1978).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel

#: Points in a group for `centres`: smaller groups are skipped more often, but each is looked at.
GROUP = 64

Points = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

# Skipping needs this much more than rounding can take away.
_SLACK = 1e-4


@kernel()
def _squares_from(group, point, out):  # type: ignore[no-untyped-def]
    """Fill out with the squared distances of a group, (d, n), to a point, (d,)."""
    for i in range(group.shape[1]):
        out[i] = 0.0
    for d in range(group.shape[0]):
        coordinates = group[d]
        p = point[d]
        for i in range(group.shape[1]):
            difference = coordinates[i] - p
            out[i] += difference * difference


# ----------------------------------------------------------------------------------------------
# Farthest first


@kernel()
def _centres(groups, rows, means, radii, nearest, group, place, out):  # type: ignore[no-untyped-def]
    """Fill out with row numbers of centres; the first is given by its group and place.

    ``nearest`` holds infinity for points and -1 where there is none.
    """
    count, width, size = groups.shape
    farthest = np.full(count, np.inf)
    candidate = np.zeros(count, np.int64)
    point = np.empty(width, np.float32)
    squares = np.empty(size, np.float32)
    apart = np.empty(count)
    for k in range(out.shape[0]):
        out[k] = rows[group, place]
        nearest[group, place] = -1.0
        for g in range(count):
            apart[g] = 0.0
        for d in range(width):
            point[d] = groups[group, d, place]
            p = np.float64(point[d])
            coordinates = means[d]
            for g in range(count):
                difference = coordinates[g] - p
                apart[g] += difference * difference
        for g in range(count):
            gap = np.sqrt(apart[g]) - radii[g]
            if gap > 0.0 and gap * gap > farthest[g] * (1.0 + _SLACK):
                continue
            _squares_from(groups[g], point, squares)
            near = nearest[g]
            largest = np.float32(-1.0)
            for i in range(size):
                s = squares[i]
                n = near[i]
                n = s if s < n else n
                near[i] = n
                largest = n if n > largest else largest
            farthest[g] = largest
            if largest >= 0.0:
                i = 0
                while near[i] != largest:
                    i += 1
                candidate[g] = i  # rows ascend within a group, so this is the first of equals
        best = -1.0
        row = np.int64(0)
        for g in range(count):
            if farthest[g] < 0.0:
                continue
            other = rows[g, candidate[g]]
            if farthest[g] > best or (farthest[g] == best and other < row):
                best = farthest[g]
                row = other
                group = g
                place = candidate[g]


def centres(points: Points, groups: Sequence[Rows], first: int, count: int) -> Rows:
    """Pick points one by one, always the one farthest from those picked.

    Args:
        points: (n, d) float32 coordinates.
        groups: Row numbers of neighbours, ascending, at most `GROUP` each; every row in one.
        first: Row number of the first pick.
        count: How many to pick, 1 to n.

    Returns:
        (count,) row numbers in the order in which they are picked; of equals the first row.
    """
    width = points.shape[1]
    packed = np.zeros((len(groups), width, GROUP), np.float32)
    rows = np.full((len(groups), GROUP), len(points))
    nearest = np.full((len(groups), GROUP), -1.0, np.float32)
    means = np.empty((width, len(groups)))
    radii = np.empty(len(groups))
    start = (0, 0)
    for g, members in enumerate(groups):
        own = points[members].astype(np.float64)
        packed[g, :, : len(members)] = points[members].T
        rows[g, : len(members)] = members
        nearest[g, : len(members)] = np.inf
        means[:, g] = own.mean(axis=0)
        radii[g] = np.sqrt(np.square(own - means[:, g]).sum(axis=1).max()) * (1 + 1e-9)
        place = int(np.searchsorted(members, first))
        if place < len(members) and members[place] == first:
            start = (g, place)
    out = np.empty(count, np.int64)
    _centres(packed, rows, means, radii, nearest, start[0], start[1], out)
    return out


# ----------------------------------------------------------------------------------------------
# Facilities


@kernel(fastmath={"reassoc"})
def _saved(squares, nearest, weights):  # type: ignore[no-untyped-def]
    """Return the sum of w max(0, m - distance); squares become distances."""
    gain = 0.0
    for i in range(squares.shape[0]):
        distance = np.sqrt(squares[i])
        squares[i] = distance
        shorter = nearest[i] - distance
        gain += weights[i] * np.float64(shorter if shorter > 0.0 else np.float32(0.0))
    return gain


@kernel()
def _before(gains, a, b):  # type: ignore[no-untyped-def]
    return gains[a] > gains[b] or (gains[a] == gains[b] and a < b)


@kernel()
def _sink(heap, size, gains):  # type: ignore[no-untyped-def]
    """Restore the heap after the gain of its top has fallen."""
    top = heap[0]
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and _before(gains, heap[child + 1], heap[child]):
            child += 1
        if not _before(gains, heap[child], top):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = top


@kernel()
def _facilities(  # type: ignore[no-untyped-def]
    packed, starts, groups, places, rows, weights, far, out, owners
):
    """Fill out with the facilities and owners with the facility of each point.

    ``packed`` holds the groups one after the other, each (d, n) flattened. Points are numbered as
    the caller does in out, owners, ``groups`` (of each point), ``places`` (within the group) and
    heap; ``rows``, ``weights`` and nearest go by group and place.
    """
    n = rows.shape[0]
    width = packed.shape[0] // n
    most = 0
    for g in range(starts.shape[0] - 1):
        most = max(most, starts[g + 1] - starts[g])
    nearest = np.full(n, far, np.float32)
    squares = np.empty(most, np.float32)
    point = np.empty(width, np.float32)
    gains = np.empty(n)
    known = np.zeros(n, np.int64)  # changes of the group when the gain was computed
    changes = np.zeros(starts.shape[0] - 1, np.int64)
    for i in range(n):
        owners[i] = -1
        gains[i] = np.inf
        known[i] = -1
    heap = np.arange(n)
    size = n
    opened = 0
    while opened < out.shape[0]:
        j = heap[0]
        g = groups[j]
        start = starts[g]
        stop = starts[g + 1]
        group = packed[start * width : stop * width].reshape((width, stop - start))
        here = squares[: stop - start]
        for d in range(width):
            point[d] = group[d, places[j]]
        if known[j] != changes[g]:
            _squares_from(group, point, here)
            gains[j] = _saved(here, nearest[start:stop], weights[start:stop])
            known[j] = changes[g]
            _sink(heap, size, gains)
            continue
        _squares_from(group, point, here)
        _saved(here, nearest[start:stop], weights[start:stop])
        for i in range(stop - start):
            if here[i] < nearest[start + i]:
                nearest[start + i] = here[i]
                owners[rows[start + i]] = j
        owners[j] = j  # also where one at the same place is open
        out[opened] = j
        opened += 1
        changes[g] += 1
        size -= 1
        if size:
            heap[0] = heap[size]
            _sink(heap, size, gains)


@kernel()
def _nearest_of(points, picked, orphans, owners):  # type: ignore[no-untyped-def]
    """Give each orphan the nearest of those picked."""
    for o in range(orphans.shape[0]):
        best = np.inf
        for p in range(picked.shape[0]):
            square = 0.0
            for d in range(points.shape[1]):
                difference = points[orphans[o], d] - points[picked[p], d]
                square += difference * difference
            if square < best:
                best = square
                owners[orphans[o]] = picked[p]


def facilities(
    points: Points, groups: Sequence[Rows], weights: npt.NDArray[np.float64], count: int
) -> tuple[Rows, Rows]:
    """Pick points one by one, always the one that saves most of the distances to those picked.

    Args:
        points: (n, d) float32, around their mean.
        groups: Row numbers of neighbours; every row in one. Only distances within a group count.
        weights: (n,) what each point's distance counts, above 0.
        count: How many to pick, 1 to n.

    Returns:
        (count,) row numbers in the order in which they are picked, of equals the first row; and
        (n,) row number of the pick nearest to each point, of its own group if that has one.
    """
    n = len(points)
    sizes = np.array([len(members) for members in groups])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows = np.concatenate(groups)
    packed = np.concatenate([points[members].T.reshape(-1) for members in groups])
    of_point = np.empty(n, np.int64)
    of_point[rows] = np.repeat(np.arange(len(groups)), sizes)
    places = np.empty(n, np.int64)
    places[rows] = np.arange(n) - np.repeat(starts[:-1], sizes)
    far = 2.0 * float(np.sqrt(np.einsum("ij,ij->i", points, points).max())) or 1.0
    out, owners = np.empty(count, np.int64), np.empty(n, np.int64)
    _facilities(packed, starts, of_point, places, rows, weights[rows], far, out, owners)
    orphans = np.flatnonzero(owners < 0)
    if len(orphans):
        _nearest_of(points, out, orphans, owners)
    return out, owners
