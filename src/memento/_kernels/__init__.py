"""Compiled loops: arrays in, arrays filled.

Nothing here knows a column's name, a default or an error message; whoever calls has checked its
input. Only files in this folder import numba, so import them inside functions: loading numba takes
longer than all the rest. Small inputs do without: see `fitting`.

    plain           small inputs in numpy, as some of the following do them
    jensen_shannon  sums of kernels over Jensen-Shannon distances
    landmarks       sums of kernels through a few that stand for the others
    sorting         lexicographic order of rows, position and value of the largest entry
    summaries       batches as one row each
    drawing         which batch is discarded next
    thinning        the same for very many batches, through cells of them
    replacement     which held sample a new one replaces
    balancing       which held sample a new one replaces, for balanced labels
    gradients       which held sample a new one replaces, for gradients that differ
    herding         samples whose running mean follows a given one
    covering        samples that are near to all the others
    moving          rows of a column, also within the column itself
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# Up to these sizes numpy takes less time than loading compiled code does.
SMALL_ROWS = 1 << 17
SMALL_TERMS = 32_000_000  # pairs of batches times numbers in a summary: about 0.1 s
SMALL_BATCHES = 2048

# Kernels that run as plain Python, which numba is asked for to see into them, are all to be run.
_ALWAYS = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def fitting(name: str, size: int, most: int | None = None) -> Any:
    """A module of this folder, or ``plain``, which has the same functions for small inputs.

    Args:
        name: Name of a module of this folder, such as ``"sorting"``.
        size: Of the input: rows, unless ``most`` counts something else. It alone decides, so that
            the same input always gives the same result.
        most: Largest size that counts as small; ``SMALL_ROWS`` if left out.
    """
    small = size <= (SMALL_ROWS if most is None else most) and not _ALWAYS
    return import_module(f"{__name__}.{'plain' if small else name}")


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
