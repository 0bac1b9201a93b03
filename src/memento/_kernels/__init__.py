"""Compiled loops: arrays in, arrays filled.

Nothing here knows a column's name, a default or an error message; whoever calls has checked its
input. Only files in this folder import numba, so import them inside functions: loading numba takes
longer than all the rest.

    jensen_shannon  sums of kernels over Jensen-Shannon distances
    sorting         lexicographic order of rows, position and value of the largest entry
    summaries       batches as one row each, equal rows counted once
    drawing         which batch is discarded next
    replacement     which held sample a new one replaces
    balancing       which held sample a new one replaces, for balanced labels
    gradients       which held sample a new one replaces, for gradients that differ
    herding         samples whose running mean follows a given one
    covering        samples that are near to all the others
    moving          rows of a column, also within the column itself
    windows         past chunks of each chunk of a stream, as inputs of a predictor
    planning        which quality a video server sends next
    hashing         random numbers that depend on a key and a counter alone
    streaming       players, servers and the network between them, until the next decision
"""

from __future__ import annotations

from typing import Any


def kernel(**options: Any) -> Any:
    """Compile a function to machine code that is kept on disk and releases the interpreter's lock.

    Args:
        options: further ones of ``numba.njit``, such as ``fastmath``.
    """
    from numba import njit

    def compile_later(function: Any) -> Any:
        compiled = njit(nogil=True, **options)(function)
        if compiled is not function:  # not so when run uncompiled
            from memento._kernels._cache import KernelCache

            compiled._cache = KernelCache(function)
        return compiled

    return compile_later
