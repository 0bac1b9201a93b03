"""Compiled loops: arrays in, arrays filled.

Nothing here knows a column's name, a default or an error message; whoever calls has checked its
input. Only files in this folder import numba, so import them inside functions: loading numba takes
longer than all the rest.

    jensen_shannon  sums of kernels over Jensen-Shannon distances
    sorting         lexicographic order of rows, position and value of the largest entry
    summaries       batches as one row each, equal rows counted once
    drawing         which batch is discarded next
    replacement     which held sample a new one replaces
"""
