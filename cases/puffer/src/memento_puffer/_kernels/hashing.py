"""Random numbers by counting: a hash of (key, purpose, counter), so that order does not matter.

What is random about a session is a function of the session's key, of what the number is for and of
a counter, such as a chunk's number or a time step. Nothing is carried along: the numbers of one
session do not depend on which others are computed, in which order, or how often they are asked.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from memento._kernels import kernel

Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]

_u8 = np.uint64
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OTHER = np.uint64(0xD1342543DE82EF95)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _32 = (np.uint64(n) for n in (30, 27, 31, 11, 32))
_LOW = np.uint64(0xFFFFFFFF)
_53 = 2.0**-53
_2_32 = 2.0**-32


@kernel()
def _mixed(z):  # type: ignore[no-untyped-def]
    """The finisher of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (z ^ (z >> _30)) * _FIRST
    z = (z ^ (z >> _27)) * _SECOND
    return z ^ (z >> _31)


@kernel()
def hashed(key, purpose, counter):  # type: ignore[no-untyped-def]
    """Return 64 random bits; key uint64, purpose and counter integers >= 0."""
    return _mixed(_mixed(key + _u8(purpose) * _OTHER) + (_u8(counter) + _u8(1)) * _GOLDEN)


@kernel()
def uniform(key, purpose, counter):  # type: ignore[no-untyped-def]
    """Return a number in (0, 1)."""
    return (np.float64(hashed(key, purpose, counter) >> _11) + 0.5) * _53


@kernel()
def normal(key, purpose, counter):  # type: ignore[no-untyped-def]
    """Return a standard normal number, at most 6.8 from 0 (Box and Muller)."""
    bits = hashed(key, purpose, counter)
    radius = math.sqrt(-2.0 * math.log((np.float64(bits >> _32) + 0.5) * _2_32))
    return radius * math.cos(2.0 * math.pi * (np.float64(bits & _LOW) * _2_32))


@kernel()
def _fill_uniforms(keys, purpose, counters, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        out[i] = uniform(keys[i], purpose, counters[i])


@kernel()
def _fill_normals(keys, purpose, counters, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        out[i] = normal(keys[i], purpose, counters[i])


@kernel()
def _fill_keys(start, numbers, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        out[i] = hashed(start, 0, numbers[i])


def session_keys(seed: int, day: int, numbers: npt.NDArray[np.int64]) -> Keys:
    """Return a key for each session of a day.

    Args:
        seed: >= 0.
        day: >= 0.
        numbers: (n,) of the sessions, >= 0.
    """
    start = np.random.SeedSequence([seed, day]).generate_state(1, np.uint64)[0]
    out = np.empty(len(numbers), np.uint64)
    with np.errstate(over="ignore"):  # uncompiled, numpy warns of what is meant here
        _fill_keys(start, numbers, out)
    return out


def uniforms(keys: Keys, purpose: int, counters: npt.NDArray[np.int64] | int = 0) -> Floats:
    """Return (n,) numbers in (0, 1), one for each key (and its counter)."""
    out = np.empty(len(keys))
    counted = np.broadcast_to(np.asarray(counters, dtype=np.int64), out.shape)
    with np.errstate(over="ignore"):
        _fill_uniforms(keys, purpose, np.ascontiguousarray(counted), out)
    return out


def normals(keys: Keys, purpose: int, counters: npt.NDArray[np.int64] | int = 0) -> Floats:
    """Return (n,) standard normal numbers, one for each key (and its counter)."""
    out = np.empty(len(keys))
    counted = np.broadcast_to(np.asarray(counters, dtype=np.int64), out.shape)
    with np.errstate(over="ignore"):
        _fill_normals(keys, purpose, np.ascontiguousarray(counted), out)
    return out
