"""Batches as one row each.

Samples come in two parts, held ones ``a`` and fresh ones ``b``, and are never joined for this: row
``r`` is ``a[r]`` for ``r < len(a)``, else ``b[r - len(a)]``. ``rows`` lists row numbers in batch
order; batch ``i`` is ``rows[offsets[i]:offsets[i + 1]]``. Batches follow the order of values, not
of memory, so nearly every row is a cache miss, and time is what the memory takes to answer: rows
are asked for 32 places ahead of their turn.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from memento._kernels import kernel

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_AHEAD = 32  # rows between request and use
_LINE = 64  # bytes that come with one request

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    def _request(array: Any, row: int, column: int) -> None:
        """Ask the memory for array[row, column]: nothing to do here."""

else:
    import llvmlite.ir as ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def _request(typingctx, array, row, column):  # type: ignore[no-untyped-def]
        """Ask the memory for array[row, column] without waiting for it."""

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kind = signature.args[0]
            struct = context.make_array(kind)(context, builder, arguments[0])
            place = cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
                context, builder, kind, struct, [arguments[1], arguments[2]]
            )
            byte = ir.IntType(8).as_pointer()
            number = ir.IntType(32)
            prefetch = builder.module.declare_intrinsic(
                "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte] + [number] * 3)
            )
            # to read, keep in all caches, data
            builder.call(prefetch, [builder.bitcast(place, byte), number(0), number(3), number(1)])
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp), generate


@kernel(inline="always")
def _request_row(a, b, r, step):  # type: ignore[no-untyped-def]
    """Request every cache line of a row; ``step`` is the number of entries in one."""
    if r < a.shape[0]:
        for c in range(0, a.shape[1], step):
            _request(a, r, c)
        _request(a, r, a.shape[1] - 1)
    else:
        for c in range(0, b.shape[1], step):
            _request(b, r - a.shape[0], c)
        _request(b, r - a.shape[0], b.shape[1] - 1)


@kernel()
def _mean_rows(a, b, rows, offsets, step, out):  # type: ignore[no-untyped-def]
    """Fill out with mean rows; ``step`` is the number of entries in a cache line."""
    held = a.shape[0]
    last = rows.shape[0] - 1
    total = np.zeros(out.shape[1])
    for i in range(offsets.shape[0] - 1):
        total[:] = 0.0
        for place in range(offsets[i], offsets[i + 1]):
            _request_row(a, b, rows[min(place + _AHEAD, last)], step)
            r = rows[place]
            if r < held:
                for c in range(total.shape[0]):
                    total[c] += a[r, c]
            else:
                for c in range(total.shape[0]):
                    total[c] += b[r - held, c]
        count = max(offsets[i + 1] - offsets[i], 1)
        for c in range(total.shape[0]):
            out[i, c] = total[c] / count


def mean_rows(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    rows: Rows,
    offsets: Rows,
    out: Floats,
) -> None:
    """Fill out with the mean row of each batch, accumulated in float64.

    Args:
        a: (n, k) of float32, float64 or an integer type.
        b: (m, k), likewise.
        rows: int64, row numbers 0 ... n + m - 1 in batch order.
        offsets: int64 (batches + 1,), where batches begin and end in ``rows``.
        out: float64 (batches, k); an empty batch gives zeros.
    """
    _mean_rows(a, b, rows, offsets, max(1, _LINE // a.dtype.itemsize), out)


@kernel()
def _label_frequencies(a, b, rows, offsets, out):  # type: ignore[no-untyped-def]
    # Loads of single labels do not wait for each other; the processor overlaps them unasked.
    held = a.shape[0]
    for i in range(offsets.shape[0] - 1):
        for c in range(out.shape[1]):
            out[i, c] = 0.0
        for place in range(offsets[i], offsets[i + 1]):
            r = rows[place]
            label = np.int64(a[r]) if r < held else np.int64(b[r - held])
            out[i, label] += 1.0
        count = max(offsets[i + 1] - offsets[i], 1)
        for c in range(out.shape[1]):
            out[i, c] /= count


def label_frequencies(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    rows: Rows,
    offsets: Rows,
    out: Floats,
) -> None:
    """Fill out with the share of each label in each batch.

    Args:
        a: (n,) of any integer type, labels 0 ... k - 1. They are not checked here: a label outside
            would write outside ``out``.
        b: (m,), likewise.
        rows: int64, row numbers 0 ... n + m - 1 in batch order.
        offsets: int64 (batches + 1,), where batches begin and end in ``rows``.
        out: float64 (batches, k); an empty batch gives zeros.
    """
    _label_frequencies(a, b, rows, offsets, out)
