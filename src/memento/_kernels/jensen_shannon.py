r"""Sums of Gaussian kernels over Jensen-Shannon distances, 0.2 nanoseconds per logarithm.

**The quantity.** For distributions ``p`` and ``q`` over ``k`` bins, in base 2,

    JSD(p, q)^2 = H(m) - (H(p) + H(q)) / 2,    m = (p + q) / 2,    H(p) = -sum_b p_b log2 p_b,

which needs one logarithm per pair and bin: the entropies ``H(p)`` are computed once. The kernel is
``K(i, j) = exp(-scale * JSD(i, j)^2)`` with ``scale = 1 / (2 h^2)`` for the bandwidth ``h``, and
what a density needs is ``S_i = sum_j c_j K(i, j)``, with a weight ``c_j`` per distribution (say,
how many batches share it). The identity holds for any non-negative numbers, so densities on a grid
enter as ``p_b = w_b * density_b`` with the weights ``w`` of Simpson's rule: ``w`` cancels inside
the logarithms and stays in front of them.

**The logarithm.** A positive float32 is ``x = 2^e * t`` with ``1 <= t < 2``; its bits, read as an
integer, are ``2^23 * (127 + e + (t - 1))``: the logarithm, with a chord for the curve between
powers of two. So

    log2 x = (bits(x) - bits(1)) / 2^23 + c(t),    c(t) = log2 t - (t - 1),

with ``c`` a polynomial of degree 7 in ``t - 1.5``. Everything is kept in units of 2^-23 and scaled
once per pair. ``x = 0`` needs no special case: its bits give a finite number that is multiplied by
``x``. Entropies use the very same arithmetic, so ``JSD(p, p) = 0`` and ``K(p, p) = 1`` exactly, and
any multiple of ``x`` may be added to ``x log2 x``: two are, so that ``2 - H(m)`` is summed up,
whose rounding is less than that of ``H(m)``, 3 to 7 bits in the worst case.

**The errors.** Measured against float64 on dense, sparse, certain, one-hot and near-identical
distributions, a squared distance is off by at most 1e-6 up to 21 bins, 2e-6 at 64, 5e-6 at 128
(what is left is the rounding of the sum), and a kernel value by the factor ``1 +- scale`` times
that. At h = 0.1 (scale = 50) sums were within 3e-5 up to 21 bins, 9e-5 at 128. The error grows with
``1 / h^2``: below h = 0.05, use ``exact_matrix``. Kernel values end at 2^-126.

**The layout.** Distributions lie in *tiles* of 256 as columns, ``tiles[t, b, l] = p_b / 2`` of
number ``256 t + l``: the inner loops run along 256 neighbouring float32 numbers, aligned to 64
bytes, and a tile of 21 bins (21.5 kB) stays in the first-level cache. As nothing is summed along a
tile, every kernel value is the result of the same chain of operations wherever it is computed:
``subtract_row`` takes away, bit for bit, what ``kernel_sums`` added. Sums are accumulated in
float64.

**Far tiles** are left out. JSD is a metric, also for non-negative numbers that do not sum to one
(its square is a sum over bins of squared metrics), so with ``g`` the mean of a tile and ``r`` its
largest distance to a member, ``JSD(p, g) > r + D`` proves ``JSD(p, q) > D`` for all members ``q``.
``D`` is where the kernel falls below 2^-32 = 2.3e-10; what is left out of a sum is less than
2.3e-10 of all weights together, 1e-5 of the smallest possible sum with 40,000 distributions of
equal weight. The distances to the means cost one part in 256. Distributions in the order of batches
are alike within a tile; of sorted predictions, 26 % (8,000) to 40 % (40,000) of the work was saved.

**Threads.** Work is cut into parts that depend on the size of the input alone and added up in their
order, so the result does not depend on the number of threads. Kernels release the interpreter's
lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from memento._kernels import kernel

Floats = npt.NDArray[np.float64]

# Columns side by side: 16 vectors of 512 bits; 64, 512 and 1024 were slower. As plain Python, small
# inputs shall have several tiles too.
UNCOMPILED = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]
TILE = 8 if UNCOMPILED else 256
UNROLL = 3  # bins per pass over a tile; saves two thirds of the traffic of the running sum
PARTS = 32  # pieces of work of one call, whatever the number of threads
MANY = 8  # tiles from which on means are kept and far tiles left out

_f4 = np.float32
_i4 = np.int32

# log2 t on [1, 2] as a polynomial in u = t - 1.5: minimax fit by Remez' exchange, degree 7, largest
# error 2.8e-7. Around the middle, as powers of t itself would cancel and cost 6e-6 in float32. The
# chord t - 1 = u + 0.5 comes from the bits and is subtracted here.
_UNIT = 2.0**23
_LOG2 = (
    0.584962765427,
    0.961795379459,
    -0.320632338484,
    0.142545325381,
    -0.0705896131405,
    0.0373112880073,
    -0.0251233704856,
    0.0151253604908,
)
_MIDDLE = _f4(1.5)
_EXTRA = 2.0  # of x, added to x log2 x: keeps sums small
_OFFSET = _i4(round(0x3F800000 - (_LOG2[0] - 0.5 + _EXTRA) * _UNIT))
_C1 = _f4((_LOG2[1] - 1.0) * _UNIT)
_C2, _C3, _C4, _C5, _C6, _C7 = (_f4(c * _UNIT) for c in _LOG2[2:])
_PER_UNIT = _f4(1.0 / _UNIT)

# 2^t on [-1/2, 1/2]: minimax fit of the relative error, degree 5, with the constant set to 1:
# 1.5e-7.
_E1, _E2, _E3, _E4, _E5 = (
    _f4(c)
    for c in (0.693146967065, 0.24022119724, 0.0555071327391, 0.00967554133037, 0.00132764718645)
)

_MANTISSA = _i4(0x007FFFFF)
_ONE = _i4(0x3F800000)
_HALF = _f4(0.5)
_ZERO = _f4(0.0)
_TINIEST = _f4(-126.0)  # 2^-126 is the smallest normal float32
_EXPONENT = _i4(23)
_NOWHERE = _f4(-1e6)  # "entropy" of padding: makes the distance huge and the kernel 2^-126
_UNSCALED = _f4(1.0)  # the factor that makes 2^(-JSD^2) of a kernel
_NEGLIGIBLE = 32.0  # a kernel below 2^-32 may be left out
_SLACK = 1e-5  # more than the error of a squared distance

# ----------------------------------------------------------------------------------------------
# Instructions that Python cannot spell. Each has a plain body for runs with NUMBA_DISABLE_JIT=1.

if UNCOMPILED:

    def bits_of(x: Any) -> Any:
        """Return the bits of a float32 as an int32."""
        return np.float32(x).view(np.int32)

    def float_of(bits: Any) -> Any:
        """Return the float32 with these bits."""
        return np.int32(bits).view(np.float32)

    def multiply_add(a: Any, b: Any, c: Any) -> Any:
        """Return a * b + c."""
        return a * b + c

    def wide() -> None:
        """Mark the function for 512-bit vectors: nothing to do here."""

else:
    import llvmlite.ir as ir
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def bits_of(typingctx, x):  # type: ignore[no-untyped-def]
        """Return the bits of a float32 as an int32."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.bitcast(arguments[0], ir.IntType(32))

        return types.int32(types.float32), generate

    @intrinsic
    def float_of(typingctx, bits):  # type: ignore[no-untyped-def]
        """Return the float32 with these bits."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.bitcast(arguments[0], ir.FloatType())

        return types.float32(types.int32), generate

    @intrinsic
    def multiply_add(typingctx, a, b, c):  # type: ignore[no-untyped-def]
        """Return a * b + c of float32, fused where the processor can.

        Spelt out rather than left to ``fastmath``, which may group the same formula differently in
        different places.
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            single = ir.FloatType()
            function = builder.module.declare_intrinsic(
                "llvm.fmuladd", [single], ir.FunctionType(single, [single] * 3)
            )
            return builder.call(function, arguments)

        return types.float32(types.float32, types.float32, types.float32), generate

    @intrinsic
    def wide(typingctx):  # type: ignore[no-untyped-def]
        """Ask for 512-bit vectors in the function that calls this; no effect without AVX-512.

        LLVM takes 256 bits by default, for the sake of older processors whose clock fell with wider
        ones; these loops are 1.3 to 2 times as fast with 512. An attribute of the function leaves
        numba's settings, which belong to the user, alone. llvmlite knows a fixed set of attributes,
        hence ``set.add``.
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
            return context.get_dummy_value()

        return types.void(), generate


# ----------------------------------------------------------------------------------------------
# One row against one tile


@kernel()
def _x_log2_x(x, total):  # type: ignore[no-untyped-def]
    """Return total + x * (log2(x) + 2) in units of 2^-23, for a float32 x >= 0."""
    bits = bits_of(x)
    u = float_of(_i4((bits & _MANTISSA) | _ONE)) - _MIDDLE
    log = multiply_add(u, _C7, _C6)
    log = multiply_add(u, log, _C5)
    log = multiply_add(u, log, _C4)
    log = multiply_add(u, log, _C3)
    log = multiply_add(u, log, _C2)
    log = multiply_add(u, log, _C1)
    log = multiply_add(u, log, _f4(_i4(bits - _OFFSET)))
    return multiply_add(x, log, total)


@kernel()
def power_of_two(z):  # type: ignore[no-untyped-def]
    """Return 2^z of a float32 z <= 0: relative error 2e-7, 1 at 0, 2^-126 from z = -126 down."""
    z = max(z, _TINIEST)
    whole = _i4(z - _HALF)  # cutting off rounds to the nearest, as z <= 0
    t = z - _f4(whole)
    power = multiply_add(t, _E5, _E4)
    power = multiply_add(t, power, _E3)
    power = multiply_add(t, power, _E2)
    power = multiply_add(t, power, _E1)
    power = multiply_add(t, power, _f4(1.0))
    return float_of(_i4(bits_of(power) + _i4(whole << _EXPONENT)))


@kernel()
def tile_kernels(own, lane, own_half, tile, halves, factor, out):  # type: ignore[no-untyped-def]
    """Fill out (256,) float32 with 2^(-factor * JSD^2) of own[:, lane] to all columns of a tile.

    ``own_half`` and ``halves`` (256,) are what ``_fill_halves`` made. Every kernel value of this
    module comes from here.
    """
    wide()
    for j in range(TILE):
        out[j] = _ZERO
    for b in range(0, tile.shape[0], UNROLL):
        p0 = own[b, lane]
        p1 = own[b + 1, lane]
        p2 = own[b + 2, lane]
        for j in range(TILE):
            total = _x_log2_x(p0 + tile[b, j], out[j])
            total = _x_log2_x(p1 + tile[b + 1, j], total)
            out[j] = _x_log2_x(p2 + tile[b + 2, j], total)
    for j in range(TILE):
        negative_square = multiply_add(out[j], _PER_UNIT, own_half + halves[j])
        out[j] = power_of_two(min(negative_square, _ZERO) * factor)


# The order of additions is free here, for a vectorised sum; the kernel values themselves are not
# touched.
@kernel(fastmath={"reassoc", "contract", "nsz"})
def _weighted_sum(kernels, weights):  # type: ignore[no-untyped-def]
    wide()
    total = 0.0
    for j in range(TILE):
        total += np.float64(kernels[j]) * weights[j]
    return total


@kernel(fastmath={"reassoc", "contract", "nsz"})
def _weighted_sum_both_ways(kernels, weights, own_weight, sums):  # type: ignore[no-untyped-def]
    """Return the weighted sum; add own_weight * kernels to sums, the pairs in the other order."""
    wide()
    total = 0.0
    for j in range(TILE):
        kernel = np.float64(kernels[j])
        total += kernel * weights[j]
        sums[j] += kernel * own_weight
    return total


# ----------------------------------------------------------------------------------------------
# Loops over tiles


@kernel()
def _fill_tiles(rows, tiles):  # type: ignore[no-untyped-def]
    """Write rows (n, k), halved, as columns of tiles; what is beyond stays as it is (zero)."""
    for i in range(rows.shape[0]):
        t = i // TILE
        lane = i % TILE
        for b in range(rows.shape[1]):
            tiles[t, b, lane] = _f4(rows[i, b]) * _HALF


@kernel()
def _fill_halves(tiles, size, halves):  # type: ignore[no-untyped-def]
    """Fill halves (tiles, 256) with H(p) / 2 - 1, by the operations of ``tile_kernels``."""
    wide()
    for t in range(tiles.shape[0]):
        for j in range(TILE):
            halves[t, j] = _ZERO
        for b in range(0, tiles.shape[1], UNROLL):
            for j in range(TILE):
                p0 = tiles[t, b, j]
                p1 = tiles[t, b + 1, j]
                p2 = tiles[t, b + 2, j]
                total = _x_log2_x(p0 + p0, halves[t, j])
                total = _x_log2_x(p1 + p1, total)
                halves[t, j] = _x_log2_x(p2 + p2, total)
        for j in range(TILE):
            inside = t * TILE + j < size
            halves[t, j] = halves[t, j] * _PER_UNIT * -_HALF if inside else _NOWHERE


@kernel()
def move_columns(tiles, halves, keep, new_tiles, new_halves):  # type: ignore[no-untyped-def]
    """Write the distributions number ``keep`` (ascending) to the front of new tiles, pad the rest.

    Old and new may be the same arrays: as ``keep[i] >= i``, nothing is overwritten before it was
    read.
    """
    size = keep.shape[0]
    for t in range(new_tiles.shape[0]):
        first = t * TILE
        filled = min(TILE, size - first)
        for b in range(tiles.shape[1]):
            for lane in range(filled):
                i = keep[first + lane]
                new_tiles[t, b, lane] = tiles[i // TILE, b, i % TILE]
            for lane in range(filled, TILE):
                new_tiles[t, b, lane] = _ZERO
        for lane in range(filled):
            i = keep[first + lane]
            new_halves[t, lane] = halves[i // TILE, i % TILE]
        for lane in range(filled, TILE):
            new_halves[t, lane] = _NOWHERE


@kernel()
def describe_tiles(tiles, halves, size, means, mean_halves, radii):  # type: ignore[no-untyped-def]
    """Fill the means of the tiles (as columns of tiles) and their distances to the farthest."""
    count = -(-size // TILE)
    for t in range(count):
        filled = min(TILE, size - t * TILE)
        for b in range(tiles.shape[1]):
            total = 0.0
            for lane in range(filled):
                total += tiles[t, b, lane]
            means[t // TILE, b, t % TILE] = total / filled
    _fill_halves(means, count, mean_halves)
    kernels = np.empty(TILE, np.float32)
    for t in range(count):
        near = t // TILE
        lane = t % TILE
        half = mean_halves[near, lane]
        tile_kernels(means[near], lane, half, tiles[t], halves[t], _UNSCALED, kernels)
        smallest = 1.0
        for j in range(min(TILE, size - t * TILE)):
            smallest = min(smallest, np.float64(kernels[j]))
        radii[t] = np.sqrt(_SLACK - np.log2(smallest))


@kernel()
def _limit(radius, factor):  # type: ignore[no-untyped-def]
    """Return the value of 2^(-JSD^2) to the mean of a tile below which all of the tile is far."""
    distance = radius + np.sqrt(_NEGLIGIBLE / factor)
    return power_of_two(_f4(-(distance * distance + _SLACK)))


@kernel()
def _symmetric_part(packed, factor, weights, part, parts, sums):  # type: ignore[no-untyped-def]
    """Add to sums (tiles, 256) the pairs whose larger tile belongs to this part.

    Tiles are dealt out to the parts to and fro, as the later ones have more pairs.
    """
    tiles, halves, size, means, mean_halves, radii = packed
    kernels = np.empty(TILE, np.float32)
    reach = np.ones(TILE, np.float32)
    limit = _ZERO
    for larger in range(tiles.shape[0]):
        turn = larger // parts
        seat = larger - turn * parts
        if (seat if turn % 2 == 0 else parts - 1 - seat) != part:
            continue
        for smaller in range(larger):
            r, c = smaller, larger
            if len(radii):
                if radii[smaller] < radii[larger]:  # more rows are far from a narrow tile
                    r, c = larger, smaller
                near = c // TILE
                half = mean_halves[near, c % TILE]
                tile_kernels(means[near], c % TILE, half, tiles[r], halves[r], _UNSCALED, reach)
                limit = _limit(radii[c], factor)
            for lane in range(min(TILE, size - r * TILE)):
                if reach[lane] >= limit:
                    half = halves[r, lane]
                    tile_kernels(tiles[r], lane, half, tiles[c], halves[c], factor, kernels)
                    sums[r, lane] += _weighted_sum_both_ways(
                        kernels, weights[c], weights[r, lane], sums[c]
                    )
        # the tile with itself: all pairs are there, in both orders
        for lane in range(min(TILE, size - larger * TILE)):
            half = halves[larger, lane]
            tile_kernels(tiles[larger], lane, half, tiles[larger], halves[larger], factor, kernels)
            sums[larger, lane] += _weighted_sum(kernels, weights[larger])


@kernel()
def _cross_part(packed, others, factor, weights, r, sums):  # type: ignore[no-untyped-def]
    """Fill sums (256,) with the weighted kernel sums of the members of tile r to all the others."""
    tile = packed.tiles[r]
    halves = packed.halves[r]
    kernels = np.empty(TILE, np.float32)
    reach = np.ones(TILE, np.float32)
    limit = _ZERO
    for c in range(others.tiles.shape[0]):
        if len(others.radii):
            near = c // TILE
            half = others.mean_halves[near, c % TILE]
            tile_kernels(others.means[near], c % TILE, half, tile, halves, _UNSCALED, reach)
            limit = _limit(others.radii[c], factor)
        for lane in range(min(TILE, packed.size - r * TILE)):
            if reach[lane] >= limit:
                tile_kernels(
                    tile, lane, halves[lane], others.tiles[c], others.halves[c], factor, kernels
                )
                sums[lane] += _weighted_sum(kernels, weights[c])


@kernel()
def _fill_reach(packed, i, reach):  # type: ignore[no-untyped-def]
    """Fill reach (tiles,) with 2^(-JSD^2) of distribution i to the mean of each tile."""
    kernels = np.empty(TILE, np.float32)
    t = i // TILE
    half = packed.halves[t, i % TILE]
    count = -(-packed.size // TILE)
    for c in range(-(-count // TILE)):
        tile_kernels(
            packed.tiles[t],
            i % TILE,
            half,
            packed.means[c],
            packed.mean_halves[c],
            _UNSCALED,
            kernels,
        )
        for j in range(min(TILE, count - c * TILE)):
            reach[c * TILE + j] = kernels[j]


@kernel()
def _fill_row(packed, i, factor, out):  # type: ignore[no-untyped-def]
    """Fill out (size,) with the kernels of distribution i to all, itself (1) included."""
    count = -(-packed.size // TILE)
    reach = np.ones(count, np.float32)
    if len(packed.radii):
        _fill_reach(packed, i, reach)
    kernels = np.empty(TILE, np.float32)
    own = packed.tiles[i // TILE]
    half = packed.halves[i // TILE, i % TILE]
    for t in range(count):
        first = t * TILE
        filled = min(TILE, packed.size - first)
        if len(packed.radii) and reach[t] < _limit(packed.radii[t], factor):
            out[first : first + filled] = 0.0
            continue
        tile_kernels(own, i % TILE, half, packed.tiles[t], packed.halves[t], factor, kernels)
        for j in range(filled):
            out[first + j] = kernels[j]


@kernel()
def subtract_from(packed, i, factor, weight, sums):  # type: ignore[no-untyped-def]
    """Subtract weight * kernel of distribution i from sums (size,)."""
    wide()
    count = -(-packed.size // TILE)
    reach = np.ones(count, np.float32)
    if len(packed.radii):
        _fill_reach(packed, i, reach)
    kernels = np.empty(TILE, np.float32)
    own = packed.tiles[i // TILE]
    half = packed.halves[i // TILE, i % TILE]
    for t in range(count):
        if len(packed.radii) and reach[t] < _limit(packed.radii[t], factor):
            continue
        tile_kernels(own, i % TILE, half, packed.tiles[t], packed.halves[t], factor, kernels)
        first = t * TILE
        for j in range(min(TILE, packed.size - first)):
            sums[first + j] -= weight * np.float64(kernels[j])


@kernel()
def _exact(first, second, weights, threshold, same, out):  # type: ignore[no-untyped-def]
    """Fill out (n, m) with distances, float64; ``same`` computes one half and mirrors it."""
    for i in range(first.shape[0]):
        for j in range(i + 1 if same else 0, second.shape[0]):
            total = 0.0
            for b in range(first.shape[1]):
                p = first[i, b]
                q = second[j, b]
                m = (p + q) / 2.0
                if m >= threshold:
                    term = 0.0
                    if p >= threshold:
                        term += p * np.log2(p / m)
                    if q >= threshold:
                        term += q * np.log2(q / m)
                    total += weights[b] * term
            out[i, j] = np.sqrt(max(0.5 * total, 0.0))
            if same:
                out[j, i] = out[i, j]
        if same:
            out[i, i] = 0.0


# ----------------------------------------------------------------------------------------------
# The doors


class Packed(NamedTuple):
    """``size`` distributions in tiles.

    Attributes:
        tiles: float32 (tiles, bins, 256), halved probabilities; bins are filled up with zeros to a
            multiple of three.
        halves: float32 (tiles, 256), halved entropies in bits, less one; padding holds -1e6.
        size: the number of distributions.
        means: the mean distribution of each tile, as columns of tiles.
        mean_halves: the same of the means as ``halves``.
        radii: float64 (tiles,), the distance from each mean to the farthest of its tile; with few
            tiles these three are empty.
    """

    tiles: npt.NDArray[np.float32]
    halves: npt.NDArray[np.float32]
    size: int
    means: npt.NDArray[np.float32]
    mean_halves: npt.NDArray[np.float32]
    radii: Floats


def empty_aligned(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return float32 zeros that begin at a cache line, which no 512-bit load then straddles."""
    count = int(np.prod(shape))
    raw = np.zeros(count + 16, np.float32)
    skip = (-raw.ctypes.data % 64) // 4
    return raw[skip : skip + count].reshape(shape)


def pack(rows: npt.NDArray[Any]) -> Packed:
    """Put distributions into tiles.

    Args:
        rows: float32 or float64 (n, k), non-negative, each row summing to about 1; entries that
            shall count as zero are zero. Densities come multiplied by the weights of their
            quadrature.
    """
    size, bins = rows.shape
    packed = empty_packed(size, -(-bins // UNROLL) * UNROLL)
    _fill_tiles(np.ascontiguousarray(rows), packed.tiles)
    _fill_halves(packed.tiles, size, packed.halves)
    if len(packed.radii):
        describe_tiles(*packed)
    return packed


def compact(packed: Packed, keep: npt.NDArray[np.int64]) -> Packed:
    """Return the distributions number ``keep`` (ascending int64) as tiles of their own."""
    new = empty_packed(len(keep), packed.tiles.shape[1])
    move_columns(packed.tiles, packed.halves, keep, new.tiles, new.halves)
    if len(new.radii):
        describe_tiles(*new)
    return new


def empty_packed(size: int, bins: int) -> Packed:
    """Return aligned arrays of zeros for ``size`` distributions over a multiple of three bins."""
    count = -(-size // TILE)
    described = count if count >= MANY else 0
    mean_tiles = -(-described // TILE)
    return Packed(
        empty_aligned((count, bins, TILE)),
        empty_aligned((count, TILE)),
        size,
        empty_aligned((mean_tiles, bins, TILE)),
        empty_aligned((mean_tiles, TILE)),
        np.zeros(described),
    )


def binary(scale: float) -> np.float32:
    """Return scale / ln 2, as exp(-scale * d) = 2^(-scale / ln 2 * d)."""
    return np.float32(scale / np.log(2.0))


def kernel_sums(packed: Packed, scale: float, weights: Floats) -> Floats:
    """Return S_i = sum_j weights_j * exp(-scale * JSD(i, j)^2), j = i included.

    Args:
        packed: n distributions.
        scale: 1 / (2 h^2) for the bandwidth h.
        weights: float64 (n,).
    """
    count = len(packed.tiles)
    padded = _padded(weights, count)
    parts = max(1, min(PARTS, count))
    sums = np.zeros((parts, count, TILE))
    factor = binary(scale)
    calls = ((packed, factor, padded, part, parts, sums[part]) for part in range(parts))
    in_threads(_symmetric_part, calls, count > 4)
    for part in range(1, parts):
        sums[0] += sums[part]
    total: Floats = sums[0].reshape(-1)[: packed.size].copy()
    return total


def cross_sums(packed: Packed, others: Packed, scale: float, weights: Floats) -> Floats:
    """Return S_i = sum_j weights_j * exp(-scale * JSD(packed_i, others_j)^2).

    Args:
        packed: n distributions.
        others: m distributions over the same bins.
        scale: 1 / (2 h^2) for the bandwidth h.
        weights: float64 (m,).
    """
    count = len(packed.tiles)
    padded = _padded(weights, len(others.tiles))
    sums = np.zeros((count, TILE))
    factor = binary(scale)
    calls = ((packed, others, factor, padded, r, sums[r]) for r in range(count))
    in_threads(_cross_part, calls, count > 1 and count * len(others.tiles) > 8)
    return sums.reshape(-1)[: packed.size].copy()


def kernel_row(packed: Packed, i: int, scale: float, out: npt.NDArray[Any]) -> None:
    """Fill out, float32 or float64 (n,), with exp(-scale * JSD(i, j)^2) for all j; out[i] is 1.

    Where that is below 2^-32 it may be 0.
    """
    _fill_row(packed, i, binary(scale), out)


def subtract_row(packed: Packed, i: int, scale: float, weight: float, sums: Floats) -> None:
    """Subtract weight * exp(-scale * JSD(i, j)^2), as ``kernel_sums`` added it, from sums[j]."""
    subtract_from(packed, i, binary(scale), float(weight), sums)


def exact_matrix(first: Floats, second: Floats, weights: Floats | None, out: Floats) -> None:
    """Fill out with Jensen-Shannon distances, base 2, in float64.

        out[i, j] = sqrt((KL(p || m) + KL(q || m)) / 2),    m = (p + q) / 2

    Terms in which p (or q) or m is below 1e-6 count 0; a negative sum, from rounding, counts 0.

    Args:
        first: float64 (n, k).
        second: float64 (m, k); the same object as ``first`` halves the work.
        weights: float64 (k,) of a quadrature over the bins (densities), or None for a plain sum.
        out: float64 (n, m).
    """
    if weights is None:
        weights = np.ones(first.shape[1])
    _exact(first, second, weights, 1e-6, first is second, out)


def _padded(weights: Floats, tile_count: int) -> Floats:
    padded = np.zeros(tile_count * TILE)
    padded[: len(weights)] = weights
    return padded.reshape(tile_count, TILE)


def in_threads(
    kernel: Callable[..., None], calls: Iterable[tuple[Any, ...]], worthwhile: bool
) -> None:
    """Run kernel(*arguments) for all tuples of arguments, on the threads that numba may use."""
    threads = numba.get_num_threads() if worthwhile else 1
    if threads == 1:
        for arguments in calls:
            kernel(*arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(kernel, *arguments) for arguments in calls]:
            done.result()
