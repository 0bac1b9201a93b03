r"""Sums of Gaussian kernels over Jensen-Shannon distances, at a fifth of a nanosecond per logarithm.

**The quantity.** For distributions ``p`` and ``q`` over ``k`` bins, in base 2,

    JSD(p, q)^2 = H(m) - (H(p) + H(q)) / 2,    m = (p + q) / 2,    H(p) = -sum_b p_b log2 p_b,

which needs one logarithm per pair and bin: the entropies ``H(p)`` are computed once per distribution.
The kernel is ``K(i, j) = exp(-scale * JSD(i, j)^2)`` with ``scale = 1 / (2 h^2)`` for the bandwidth ``h``, and what a
density needs is ``S_i = sum_j c_j K(i, j)``, with a weight ``c_j`` per distribution (how many batches share it).
The identity holds for any non-negative numbers, so densities on a grid enter as ``p_b = w_b * density_b`` with the
weights ``w`` of Simpson's rule: ``w`` cancels inside the logarithms and stays in front of them.

**The logarithm.** A positive float32 is ``x = 2^e * t`` with ``1 <= t < 2``; its bits, read as an integer, are
``2^23 * (127 + e + (t - 1))``, that is ``log2 x`` with the curve between powers of two replaced by a chord. So

    log2 x = (bits(x) - bits(1)) / 2^23 + c(t),    c(t) = log2 t - (t - 1),

with ``c`` a polynomial of degree 6 (largest error 1.9e-6). Everything is kept in units of 2^-23 and scaled once per pair.
``x = 0`` needs no special case: its bits give a finite number that is multiplied by ``x``. Entropies use the very same
arithmetic, hence ``JSD(p, p) = 0`` and ``K(p, p) = 1`` exactly.

**The errors.** A squared distance is off by at most 4e-6 (typically 1e-6), a kernel value by the factor
``1 + 4e-6 * scale``; with h = 0.1 (scale = 50) sums were within 5e-5 of float64 in every test. The error grows
with ``1 / h^2``: below h = 0.05 use ``exact_matrix``.

**The layout.** Distributions lie in *tiles* of 256 as columns, ``tiles[t, b, l] = p_b / 2`` of number ``256 t + l``:
the inner loops run along 256 neighbouring float32 numbers, aligned to 64 bytes, and a tile of 21 bins (21.5 kB)
stays in the first-level cache. One number after the other along a tile means no reductions, so every kernel value is the
result of the same chain of operations wherever it is computed: ``subtract_row`` takes away, bit for bit, what
``kernel_sums`` added. Sums are accumulated in float64.

**Threads.** Work is cut into parts that depend on the size of the input alone and added up in their order, so the
result does not depend on the number of threads. The kernels release the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]

TILE = 256  # columns side by side: 16 vectors of 512 bits; 64, 512 and 1024 were slower
UNROLL = 3  # bins per pass over a tile; saves two thirds of the traffic of the running sum
PARTS = 32  # pieces of work of one call, whatever the number of threads

_f4 = np.float32
_i4 = np.int32

# c(t) on [1, 2): minimax fit of log2 by Remez' exchange, degree 6, largest error 1.85e-6. The chord t - 1 comes from
# the bits themselves, so 1 is added to the constant and taken from the slope; then everything in units of 2^-23.
_UNIT = 2.0**23
_LOG2 = (
    -3.04004028438,
    6.11296317487,
    -5.34198927851,
    3.28652883539,
    -1.26691829002,
    0.275148777912,
    -0.0256910895785,
)
_OFFSET = _i4(round(0x3F800000 - (_LOG2[0] + 1.0) * _UNIT))
_C1 = _f4((_LOG2[1] - 1.0) * _UNIT)
_C2, _C3, _C4, _C5, _C6 = (_f4(c * _UNIT) for c in _LOG2[2:])
_PER_UNIT = _f4(1.0 / _UNIT)

# 2^t on [-1/2, 1/2]: minimax fit of the relative error, degree 5, with the constant set to 1: relative error 1.5e-7.
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

# ------------------------------------------------------------------------------------------------------------------
# Instructions that Python cannot spell. Each has a plain body for runs with NUMBA_DISABLE_JIT=1.

if numba.config.DISABLE_JIT:

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

        Spelt out rather than left to ``fastmath``, which may group the same formula differently in different places.
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
        """Ask for 512-bit vectors in the function that calls this; without AVX-512 it changes nothing.

        LLVM takes 256 bits by default, for the sake of older processors whose clock fell with wider ones; for these
        loops 512 bits are almost twice as fast. An attribute of the function leaves numba's settings, which
        belong to the user, alone. llvmlite knows a fixed set of attributes, hence ``set.add``.
        """

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
            return context.get_dummy_value()

        return types.void(), generate


# ------------------------------------------------------------------------------------------------------------------
# One row against one tile


@njit(cache=True, nogil=True, inline="always")
def _x_log2_x(x, total):  # type: ignore[no-untyped-def]
    """Return total + x * log2(x) in units of 2^-23, for a float32 x >= 0."""
    bits = bits_of(x)
    t = float_of(_i4((bits & _MANTISSA) | _ONE))
    log = multiply_add(t, _C6, _C5)
    log = multiply_add(t, log, _C4)
    log = multiply_add(t, log, _C3)
    log = multiply_add(t, log, _C2)
    log = multiply_add(t, log, _C1)
    log = multiply_add(t, log, _f4(_i4(bits - _OFFSET)))
    return multiply_add(x, log, total)


@njit(cache=True, nogil=True, inline="always")
def power_of_two(z):  # type: ignore[no-untyped-def]
    """Return 2^z of a float32 z <= 0, relative error 2e-7; 2^-126 from there down; exactly 1 at 0."""
    z = max(z, _TINIEST)
    whole = _i4(z - _HALF)  # cutting off rounds to the nearest, as z <= 0
    t = z - _f4(whole)
    power = multiply_add(t, _E5, _E4)
    power = multiply_add(t, power, _E3)
    power = multiply_add(t, power, _E2)
    power = multiply_add(t, power, _E1)
    power = multiply_add(t, power, _f4(1.0))
    return float_of(_i4(bits_of(power) + _i4(whole << _EXPONENT)))


@njit(cache=True, nogil=True)
def tile_kernels(own, lane, own_half, tile, halves, factor, out):  # type: ignore[no-untyped-def]
    """Fill out (256,) float32 with 2^(-factor * JSD^2) of column ``lane`` of the tile ``own`` to all of ``tile``.

    ``own_half`` and ``halves`` (256,) are the halved entropies. Every kernel value of this module comes from here.
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


# The order of additions is free here, for a vectorised sum; the kernel values themselves are not touched.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _weighted_sum(kernels, weights):  # type: ignore[no-untyped-def]
    wide()
    total = 0.0
    for j in range(TILE):
        total += np.float64(kernels[j]) * weights[j]
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _weighted_sum_both_ways(kernels, weights, own_weight, sums):  # type: ignore[no-untyped-def]
    """Return the weighted sum and add own_weight * kernels to sums: the same pairs seen from the other side."""
    wide()
    total = 0.0
    for j in range(TILE):
        kernel = np.float64(kernels[j])
        total += kernel * weights[j]
        sums[j] += kernel * own_weight
    return total


# ------------------------------------------------------------------------------------------------------------------
# Loops over tiles


@njit(cache=True, nogil=True)
def _fill_tiles(rows, tiles):  # type: ignore[no-untyped-def]
    """Write rows (n, k), halved, as columns of tiles; what is beyond stays as it is (zero)."""
    for i in range(rows.shape[0]):
        t = i // TILE
        lane = i % TILE
        for b in range(rows.shape[1]):
            tiles[t, b, lane] = _f4(rows[i, b]) * _HALF


@njit(cache=True, nogil=True)
def _fill_halves(tiles, size, halves):  # type: ignore[no-untyped-def]
    """Fill halves (tiles, 256) with H(p) / 2, by the operations of ``tile_kernels`` in their order."""
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


@njit(cache=True, nogil=True)
def move_columns(tiles, halves, keep, new_tiles, new_halves):  # type: ignore[no-untyped-def]
    """Write the distributions number ``keep`` (ascending) to the front of new tiles and pad the rest.

    Old and new may be the same arrays: as ``keep[i] >= i``, nothing is overwritten before it was read.
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


@njit(cache=True, nogil=True)
def _symmetric_part(tiles, halves, size, factor, weights, part, parts, sums):  # type: ignore[no-untyped-def]
    """Add to sums (tiles, 256) the pairs whose larger tile belongs to this part.

    Tiles are dealt out to the parts to and fro, as the later ones have more pairs.
    """
    kernels = np.empty(TILE, np.float32)
    for c in range(tiles.shape[0]):
        turn = c // parts
        seat = c - turn * parts
        if (seat if turn % 2 == 0 else parts - 1 - seat) != part:
            continue
        for r in range(c + 1):
            for lane in range(min(TILE, size - r * TILE)):
                tile_kernels(tiles[r], lane, halves[r, lane], tiles[c], halves[c], factor, kernels)
                if r == c:  # the tile with itself: all pairs are there, in both orders
                    sums[r, lane] += _weighted_sum(kernels, weights[c])
                else:
                    sums[r, lane] += _weighted_sum_both_ways(
                        kernels, weights[c], weights[r, lane], sums[c]
                    )


@njit(cache=True, nogil=True)
def _cross_part(tiles, halves, size, others, other_halves, factor, weights, r, sums):  # type: ignore[no-untyped-def]
    """Fill sums[r] (256,) with the weighted kernel sums of the tile number r to all the others."""
    kernels = np.empty(TILE, np.float32)
    for lane in range(TILE):
        sums[r, lane] = 0.0
    for c in range(others.shape[0]):
        for lane in range(min(TILE, size - r * TILE)):
            tile_kernels(
                tiles[r], lane, halves[r, lane], others[c], other_halves[c], factor, kernels
            )
            sums[r, lane] += _weighted_sum(kernels, weights[c])


@njit(cache=True, nogil=True)
def fill_row(tiles, halves, size, i, factor, out):  # type: ignore[no-untyped-def]
    """Fill out (size,) with the kernels of distribution i to all, itself (1) included."""
    kernels = np.empty(TILE, np.float32)
    own = tiles[i // TILE]
    lane = i % TILE
    half = halves[i // TILE, lane]
    for t in range(-(-size // TILE)):
        tile_kernels(own, lane, half, tiles[t], halves[t], factor, kernels)
        first = t * TILE
        for j in range(min(TILE, size - first)):
            out[first + j] = kernels[j]


@njit(cache=True, nogil=True)
def subtract_from(tiles, halves, size, i, factor, weight, sums):  # type: ignore[no-untyped-def]
    """Subtract weight * kernel of distribution i from sums (size,)."""
    wide()
    kernels = np.empty(TILE, np.float32)
    own = tiles[i // TILE]
    lane = i % TILE
    half = halves[i // TILE, lane]
    for t in range(-(-size // TILE)):
        tile_kernels(own, lane, half, tiles[t], halves[t], factor, kernels)
        first = t * TILE
        for j in range(min(TILE, size - first)):
            sums[first + j] -= weight * np.float64(kernels[j])


@njit(cache=True, nogil=True)
def _exact(first, second, weights, threshold, same, out):  # type: ignore[no-untyped-def]
    """Fill out (n, m) with Jensen-Shannon distances, float64; ``same`` computes one half and mirrors it."""
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


# ------------------------------------------------------------------------------------------------------------------
# The doors


class Packed(NamedTuple):
    """``size`` distributions in tiles.

    Attributes:
        tiles: float32 (tiles, bins, 256), halved probabilities, bins filled up with zeros to a multiple of three.
        halves: float32 (tiles, 256), halved entropies in bits; padding holds -1e6.
        size: the number of distributions.
    """

    tiles: npt.NDArray[np.float32]
    halves: npt.NDArray[np.float32]
    size: int


def empty_aligned(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return float32 zeros that begin at a multiple of 64 bytes: 512-bit loads then never straddle two cache lines."""
    count = int(np.prod(shape))
    raw = np.zeros(count + 16, np.float32)
    skip = (-raw.ctypes.data % 64) // 4
    return raw[skip : skip + count].reshape(shape)


def pack(rows: npt.NDArray[Any]) -> Packed:
    """Put distributions into tiles.

    Args:
        rows: float32 or float64 (n, k), non-negative, each row summing to about 1; entries that shall count as zero
            are zero. Densities come multiplied by the weights of their quadrature.
    """
    size, bins = rows.shape
    tile_count = -(-size // TILE)
    tiles = empty_aligned((tile_count, -(-bins // UNROLL) * UNROLL, TILE))
    halves = empty_aligned((tile_count, TILE))
    _fill_tiles(np.ascontiguousarray(rows), tiles)
    _fill_halves(tiles, size, halves)
    return Packed(tiles, halves, size)


def compact(packed: Packed, keep: npt.NDArray[np.int64]) -> Packed:
    """Return the distributions number ``keep`` (ascending int64) as tiles of their own."""
    tile_count = -(-len(keep) // TILE)
    tiles = empty_aligned((tile_count, packed.tiles.shape[1], TILE))
    halves = empty_aligned((tile_count, TILE))
    move_columns(packed.tiles, packed.halves, keep, tiles, halves)
    return Packed(tiles, halves, len(keep))


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
    tiles, halves, size = packed
    padded = _padded(weights, tiles.shape[0])
    parts = max(1, min(PARTS, tiles.shape[0]))
    sums = np.zeros((parts, tiles.shape[0], TILE))
    factor = binary(scale)
    in_threads(
        _symmetric_part,
        ((tiles, halves, size, factor, padded, part, parts, sums[part]) for part in range(parts)),
        tiles.shape[0] > 4,
    )
    for part in range(1, parts):
        sums[0] += sums[part]
    return sums[0].reshape(-1)[:size].copy()


def cross_sums(packed: Packed, others: Packed, scale: float, weights: Floats) -> Floats:
    """Return S_i = sum_j weights_j * exp(-scale * JSD(packed_i, others_j)^2).

    Args:
        packed: n distributions.
        others: m distributions over the same bins.
        scale: 1 / (2 h^2) for the bandwidth h.
        weights: float64 (m,).
    """
    tiles, halves, size = packed
    padded = _padded(weights, others.tiles.shape[0])
    sums = np.zeros((tiles.shape[0], TILE))
    factor = binary(scale)
    in_threads(
        _cross_part,
        (
            (tiles, halves, size, others.tiles, others.halves, factor, padded, r, sums)
            for r in range(tiles.shape[0])
        ),
        tiles.shape[0] > 1 and tiles.shape[0] * others.tiles.shape[0] > 8,
    )
    return sums.reshape(-1)[:size].copy()


def kernel_row(packed: Packed, i: int, scale: float, out: npt.NDArray[Any]) -> None:
    """Fill out, float32 or float64 (n,), with exp(-scale * JSD(i, j)^2) for all j; out[i] is 1."""
    fill_row(packed.tiles, packed.halves, packed.size, i, binary(scale), out)


def subtract_row(packed: Packed, i: int, scale: float, weight: float, sums: Floats) -> None:
    """Subtract weight * exp(-scale * JSD(i, j)^2) from sums[j], for all j: the terms that ``kernel_sums`` added."""
    subtract_from(packed.tiles, packed.halves, packed.size, i, binary(scale), weight, sums)


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
    """Run kernel(*arguments) for every tuple of arguments, on as many threads as numba would use."""
    threads = numba.get_num_threads() if worthwhile else 1
    if threads == 1:
        for arguments in calls:
            kernel(*arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(kernel, *arguments) for arguments in calls]:
            done.result()
