"""Small inputs in plain numpy: what the compiled kernels do, without loading or compiling anything.

Compiled loops win on large inputs. A process that inserts a few thousand rows once a day would wait
for the compiler longer than for all else, so up to the sizes of ``memento._kernels.fitting`` these
functions take the place of those of the same name. Which are taken depends on sizes alone, never on
what happens to be compiled, so results do not depend on the machine's history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from operator import setitem
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Key = npt.NDArray[np.unsignedinteger[Any]]
LazyKey = Callable[[Rows], Key]

_NEGLIGIBLE = 1e-6  # probabilities below count as zero
_CLOSE = 1e-4  # squared distances below are computed without cancellation
_TIE = 1e-9  # relative difference of sums that is rounding
_COLDEST = 1e-9
_ROOT_TWO_PI = np.sqrt(2.0 * np.pi)


class Modes(NamedTuple):
    """What ``mode_and_value`` finds in a matrix (n, k).

    Attributes:
        position: (n,) of the narrowest unsigned type, column of the entry largest in absolute
            value, the first on ties.
        value: (n,) float32 or float64, that entry with its sign.
        minimum: the smallest entry of all, and ``minimum_row`` a row that has it.
        deviation: the largest |sum of a row - 1|, and ``deviation_row`` a row that has it.
        nonfinite_row: the first row with a NaN or an infinity, which the other figures pass over,
            or -1.
    """

    position: npt.NDArray[np.unsignedinteger[Any]]
    value: npt.NDArray[np.floating[Any]]
    minimum: float
    minimum_row: int
    deviation: float
    deviation_row: int
    nonfinite_row: int


def mode_and_value(rows: npt.NDArray[Any]) -> Modes:
    """As ``sorting.mode_and_value``."""
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float32 if rows.dtype.itemsize <= 2 else np.float64)
    n, k = rows.shape
    with np.errstate(over="ignore", invalid="ignore"):
        sizes, sums = np.abs(rows), rows.sum(axis=1)
    nonfinite = np.empty(0, np.int64)
    if not np.isfinite(sums).all():  # or a sum overflows
        nonfinite = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        unknown = np.isnan(sizes)
        sizes[unknown] = -1.0
        sizes[unknown[:, 0], 0] = np.inf  # nothing compares as larger than NaN
    position = sizes.argmax(axis=1)
    lowest = rows.min(axis=1).astype(np.float64)
    off = np.abs(sums.astype(np.float64) - 1.0)
    lowest[nonfinite], off[~np.isfinite(off)] = np.inf, -1.0
    least, furthest = int(lowest.argmin()), int(off.argmax())
    return Modes(
        position.astype(np.min_scalar_type(k - 1)),
        rows[np.arange(n), position],
        float(lowest[least]),
        least,
        float(off[furthest]),
        furthest,
        int(nonfinite[0]) if len(nonfinite) else -1,
    )


def ascending(values: npt.NDArray[Any]) -> Key:
    """As ``sorting.ascending``."""
    return unsigned_keys(values, False, _float_keys)


def descending(values: npt.NDArray[Any]) -> Key:
    """As ``sorting.descending``."""
    return unsigned_keys(values, True, _float_keys)


def unsigned_keys(values: npt.NDArray[Any], reverse: bool, of_floats: Callable[..., None]) -> Key:
    """Unsigned integers in the order of values; ``of_floats`` fills those of the bits of floats."""
    values = np.ascontiguousarray(values)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    kind, width = values.dtype.kind, values.dtype.itemsize
    unsigned = np.dtype(f"u{width}")
    if kind == "f":
        # the infinity's bits: all of the exponent's and none of the mantissa's
        infinity = np.array([np.inf], values.dtype).view(unsigned)[0]
        sign = unsigned.type(1 << (8 * width - 1))
        keys = np.empty(len(values), unsigned)
        of_floats(values.view(unsigned), sign, infinity, reverse, keys)
        return keys
    keys = values.view(unsigned)
    if kind in "imM":
        keys = keys ^ unsigned.type(1 << (8 * width - 1))
    return ~keys if reverse else keys


def _float_keys(bits: Key, sign: Any, infinity: Any, descending: bool, keys: Key) -> None:
    magnitude = bits & ~sign
    keys[:] = np.where(bits & sign, ~bits, bits ^ sign)
    keys[magnitude == 0] = sign  # -0.0 equals 0.0
    if descending:
        np.invert(keys, out=keys)
    keys[magnitude > infinity] = ~(sign ^ sign)  # NaN


def order(keys: Sequence[Key | LazyKey], n: int) -> Rows:
    """As ``sorting.order``."""
    given = next((i for i, key in enumerate(keys) if callable(key)), len(keys))
    columns = [np.asarray(key) for key in keys[:given]]
    rows = np.lexsort(columns[::-1]) if columns else np.arange(n)
    equal = np.ones(max(n - 1, 0), dtype=bool)  # whether a row is tied with the next one
    for column in columns:
        equal &= column[rows[1:]] == column[rows[:-1]]
    for key in keys[given:]:
        tied = np.concatenate([equal, [False]]) | np.concatenate([[False], equal])
        places = np.flatnonzero(tied[:n])
        if not len(places):
            break
        members = rows[places]
        column = key(members) if callable(key) else key[members]
        run = np.cumsum(np.concatenate([[True], ~equal]))[places]
        inner = np.lexsort((column, run))
        rows[places], column = members[inner], column[inner]
        same = (column[1:] == column[:-1]) & (run[1:] == run[:-1])
        equal[:] = False
        equal[places[:-1][same]] = True
    return rows


def gather_rows(
    first: npt.NDArray[Any], second: npt.NDArray[Any], rows: Rows, target: npt.NDArray[Any]
) -> None:
    """As ``moving.gather_rows``."""
    late = rows >= len(first)
    target[~late] = first[rows[~late]]
    target[late] = second[rows[late] - len(first)]


def move_rows(source: npt.NDArray[Any], rows: Rows, target: npt.NDArray[Any], start: int) -> None:
    """As ``moving.move_rows``."""
    target[start : start + len(rows)] = source[rows]


def shift_rows(column: npt.NDArray[Any], rows: Rows, moved: npt.NDArray[np.uint8]) -> None:
    """As ``moving.shift_rows``."""
    # Both assignments in one call of the interpreter, which looks for interrupts between calls.
    arrays, places, values = (column, moved), (slice(len(rows)), 0), (column[rows], 1)
    deque(map(setitem, arrays, places, values), maxlen=0)  # type: ignore[arg-type]


def mean_rows(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    rows: Rows,
    offsets: Rows,
    out: Floats,
) -> None:
    """As ``summaries.mean_rows``."""
    values = np.empty((len(rows), a.shape[1]))
    gather_rows(a, b, rows, values)
    out[:] = 0.0
    sizes = np.diff(offsets)
    filled = np.flatnonzero(sizes)
    if len(filled):
        out[filled] = np.add.reduceat(values, offsets[filled]) / sizes[filled, None]


def label_frequencies(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    rows: Rows,
    offsets: Rows,
    out: Floats,
) -> None:
    """As ``summaries.label_frequencies``."""
    labels = np.empty(len(rows), np.int64)
    gather_rows(a, b, rows, labels)
    n, classes = out.shape
    sizes = np.diff(offsets)
    labels += np.repeat(np.arange(n) * classes, sizes)
    counts = np.bincount(labels, minlength=n * classes).reshape(n, classes)
    out[:] = counts / np.maximum(sizes, 1)[:, None]


def collapse(rows: Floats) -> tuple[npt.NDArray[np.int32], Rows]:
    """Which rows are the same, byte for byte (so 0.0 and -0.0 differ).

    Args:
        rows: (n, k) summaries.

    Returns:
        (n,) the group of each row, numbered in the order of their first rows; and (groups,) these.
    """
    numbers: dict[bytes, int] = {}
    groups = np.array(
        [numbers.setdefault(row.tobytes(), len(numbers)) for row in rows], dtype=np.int32
    )
    _, firsts = np.unique(groups, return_index=True)
    return groups, firsts.astype(np.int64)


def exact_matrix(first: Floats, second: Floats, weights: Floats | None, out: Floats) -> None:
    """As ``jensen_shannon.exact_matrix``."""
    if len(first) > len(second):  # the loop below is over the fewer
        exact_matrix(second, first, weights, out.T)
        return
    weights = np.ones(first.shape[1]) if weights is None else weights
    p, q = (np.where(rows >= _NEGLIGIBLE, rows, 0.0) for rows in (first, second))
    p_terms, q_terms = (rows * np.log2(np.where(rows > 0, rows, 1.0)) for rows in (p, q))
    same = first is second
    for i in range(len(first)):
        start = i + 1 if same else 0
        middle = (second[start:] + first[i]) / 2
        negligible = middle < _NEGLIGIBLE
        middle[negligible] = 1.0
        terms = p_terms[i] + q_terms[start:]
        terms -= (q[start:] + p[i]) * np.log2(middle)
        terms[negligible] = 0.0
        squares = terms @ weights / 2
        # Nearly equal ones cancel; there each term is taken with a logarithm of its own.
        close = np.flatnonzero(squares < _CLOSE)
        if len(close):
            ratios = np.zeros((len(close), len(weights)))
            for own in (np.broadcast_to(p[i], ratios.shape), q[start:][close]):
                counts = (own > 0) & ~negligible[close]
                ratio = np.divide(own, middle[close], out=np.ones_like(own), where=counts)
                ratios += own * np.log2(ratio)
            squares[close] = ratios @ weights / 2
        out[i, start:] = np.sqrt(np.maximum(squares, 0.0))
        if same:
            out[i, i] = 0.0
            out[start:, i] = out[i, start:]


def draw(
    sums: Sequence[Floats],
    groups: Sequence[npt.NDArray[np.int32] | None],
    alive: npt.NDArray[np.bool_],
    m: int,
    temperature: float,
    u: float,
) -> int:
    """The batch to discard next: one step, where only the caller can make kernel rows.

    Args:
        sums: Per distance, (groups,) kernel sums.
        groups: Per distance, (n,) group of each batch, or None if batch i is group i.
        alive: (n,), at least one True.
        m: How many are alive.
        temperature: 0 to inf.
        u: Uniform in [0, 1); not used at temperature 0.
    """
    return _pick(_smallest_sums(sums, groups, alive), m, temperature, u)


def _smallest_sums(
    sums: Sequence[Floats],
    groups: Sequence[npt.NDArray[np.int32] | None],
    alive: npt.NDArray[np.bool_],
) -> Floats:
    """The smallest sum of each batch over the distances; -inf where it has gone."""
    values = np.where(alive, np.inf, -np.inf)
    for total, group in zip(sums, groups, strict=True):
        np.minimum(values, total if group is None else total[group], out=values)
    return values


def _cooled(values: Floats, m: int, temperature: float, share: float) -> float:
    """As ``drawing._cooled``, of the ``m`` batches that are left."""
    total = float(np.maximum(values - 1.0, 0.0).sum())
    mean = total / (max(m - 1, 1) * m * _ROOT_TWO_PI)
    return min(temperature, max(_COLDEST, share * mean))


def _pick(values: Floats, m: int, temperature: float, u: float) -> int:
    """The place to discard; values hold the smallest sums, -inf where nothing is left."""
    if temperature == np.inf:
        return int(np.flatnonzero(values > -np.inf)[min(int(u * m), m - 1)])
    largest = values.max()
    if temperature == 0.0:
        return int(np.flatnonzero(values >= largest - _TIE * abs(largest))[-1])
    running = np.exp((values - largest) / (m * _ROOT_TWO_PI * temperature)).cumsum()
    place = int(running.searchsorted(u * running[-1], side="right"))
    return min(place, int(running.searchsorted(running[-1])))


def discard(
    kernels: Sequence[Floats],
    sums: Sequence[Floats],
    groups: Sequence[npt.NDArray[np.int32] | None],
    scale: float,
    temperature: float,
    us: Floats,
    rows: Rows,
    excess: int,
    share: float = 0.0,
) -> Rows:
    """As ``drawing.discard``, for matrices of kernel values."""
    del scale  # worked into the matrices
    n = len(rows)
    alive = np.ones(n, dtype=bool)
    gone: list[int] = []
    limit, places = temperature, n
    due = share > 0
    while len(gone) < len(us) and excess > 0:
        m = n - len(gone)
        values = _smallest_sums(sums, groups, alive)
        if due:  # whenever so many have gone that the density left is another
            temperature = _cooled(values[alive], m, limit, share)
            due = False
        i = _pick(values, m, temperature, us[len(gone)])
        alive[i] = False
        if (places - m + 1) * 64 >= places and m > 1:
            places, due = m - 1, share > 0
        excess -= int(rows[i])
        gone.append(i)
        for kernel, total, group in zip(kernels, sums, groups, strict=True):
            total -= kernel[i if group is None else group[i]]
    return np.array(gone, np.int64)
