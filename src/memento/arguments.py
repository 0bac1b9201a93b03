"""Checks of arguments: what is wrong is refused where it is given, with its name and its value.

    check(policy, batch_size=whole(), temperature=number(least=0, infinite=True))

Dataclasses say it where their fields stand, and `check_fields` looks there:

    temperature: Annotated[float, number(least=0, infinite=True)] | None = None

A check looks at the type before it compares, so that no value, of whatever type, ends in an error
of Python or numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from memento.errors import SettingError

__all__ = [
    "Column",
    "Count",
    "Expected",
    "NotNegative",
    "Positive",
    "Seed",
    "Share",
    "check",
    "check_fields",
    "flag",
    "generator",
    "instance",
    "names",
    "number",
    "one_of",
    "optional",
    "require",
    "shown",
    "text",
    "whole",
]

# Whole numbers go into arrays of int64.
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Expected:
    """What an argument has to be.

    Attributes:
        words: What is expected, as it stands in a message.
        holds: Whether a value, of any type, is so.
    """

    words: str
    holds: Callable[[Any], bool]


def require(name: str, value: Any, expected: Expected) -> None:
    """Raise if a value is not what is expected.

    Raises:
        SettingError: With the name, the value and the expectation.

    Example:
        >>> require("days", 3, whole())
        >>> require("days", "3", whole())
        Traceback (most recent call last):
        memento.errors.SettingError: days is '3'; expected a whole number above 0
    """
    if not expected.holds(value):
        raise SettingError(f"{name} is {shown(value)}; expected {expected.words}")


def check(owner: Any, **expected: Expected) -> None:
    """Raise if an attribute of an object is not what is expected; see `require`."""
    for name, what in expected.items():
        require(name, getattr(owner, name), what)


def check_fields(owner: Any) -> None:
    """Raise if a field of a dataclass is not what its annotation says.

    ``Annotated[int, whole()]`` says what is expected, and so do ``bool`` and a ``Literal`` of
    texts; each may be optional (``... | None``). Other annotations, and such as cannot be read,
    say nothing.

    Example:
        >>> @dataclass
        ... class Period:
        ...     units: Annotated[int, whole()]
        >>> check_fields(Period(0))
        Traceback (most recent call last):
        memento.errors.SettingError: units is 0; expected a whole number above 0
    """
    for name, expected in _expectations(type(owner)):  # type: ignore[arg-type]
        require(name, getattr(owner, name), expected)


@cache
def _expectations(kind: Any) -> list[tuple[str, Expected]]:
    hints: dict[str, Any] = {}
    for base in kind.__mro__:
        try:
            hints = get_type_hints(base, include_extras=True)
            break
        except Exception:  # of somebody else's class, whose names are not known here
            if base.__module__.startswith(f"{__package__}."):
                raise
    found = [(field.name, _of_hint(hints.get(field.name))) for field in fields(kind)]
    return [(name, expected) for name, expected in found if expected is not None]


def _of_hint(hint: Any) -> Expected | None:
    options = get_args(hint)
    if get_origin(hint) is Annotated:
        found = next((m for m in hint.__metadata__ if isinstance(m, Expected)), None)
        return optional(found) if found and NoneType in get_args(options[0]) else found
    if get_origin(hint) is Literal and all(isinstance(option, str) for option in options):
        return one_of(options)
    if NoneType in options and len(options) == 2:
        expected = _of_hint(options[options[0] is NoneType])
        return None if expected is None else optional(expected)
    return flag() if hint is bool else None


def whole(least: int = 1, most: int = _LARGEST, words: str | None = None) -> Expected:
    """Whole numbers between two bounds, which are included; True is none.

    Example:
        >>> [whole().holds(value) for value in (3, np.int64(3), 0, 3.0, True, "3", 10**30)]
        [True, True, False, False, False, False, False]
    """

    def holds(value: Any) -> bool:
        return _is_whole(value) and least <= int(value) <= most

    if words is None:
        words = f"a whole number {'above 0' if least == 1 else f'from {least}'}"
        words += f" to {most:,}" if most < _LARGEST else ""
    return Expected(words, holds)


def number(
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: float | None = None,
    infinite: bool = False,
    words: str,
) -> Expected:
    """Real numbers, NaN excluded.

    Args:
        least: Smallest that will do.
        most: Largest that will do.
        above: Lower bound that is itself excluded.
        infinite: Whether infinity will do.
        words: What is expected, for the message.

    Example:
        >>> share = number(0, 1, words="a share in [0, 1]")
        >>> [share.holds(value) for value in (0, 0.5, 1.5, math.nan, None, "0.5", 10**400)]
        [True, True, False, False, False, False, False]
    """

    def holds(value: Any) -> bool:
        if not (_is_whole(value) or isinstance(value, (float, np.floating))):
            return False
        try:
            real = float(value)
        except OverflowError:
            return False
        inside = least <= real <= most and (above is None or real > above)
        return inside and (infinite or math.isfinite(real))

    return Expected(words, holds)


def flag() -> Expected:
    """True or False."""
    return Expected("True or False", lambda value: isinstance(value, (bool, np.bool_)))


def text(words: str = "the name of a column") -> Expected:
    """Strings that are not empty."""
    return Expected(words, lambda value: isinstance(value, str) and bool(value))


def one_of(options: Sequence[str]) -> Expected:
    """One of a few strings."""
    listed = ", ".join(map(repr, options))
    return Expected(
        f"one of {listed}", lambda value: isinstance(value, str) and value in tuple(options)
    )


def instance(kind: type | tuple[type, ...], words: str) -> Expected:
    """Objects of a type."""
    return Expected(words, lambda value: isinstance(value, kind))


#: What can be called.
FUNCTION = Expected("a function", callable)


def optional(expected: Expected) -> Expected:
    """The same, or None.

    Example:
        >>> optional(text()).words
        'the name of a column, or None'
    """
    return replace(
        expected,
        words=f"{expected.words}, or None",
        holds=lambda value: value is None or expected.holds(value),
    )


def names(name: str, value: Any) -> tuple[str, ...]:
    """Names of columns, given as one or several, in order.

    Raises:
        SettingError: It is something else.

    Example:
        >>> names("sort_by", "y"), names("sort_by", ["y", "x"])
        (('y',), ('y', 'x'))
    """
    words = "the name of a column, or a list of such names"
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, (list, tuple)) or not all(map(text().holds, several)):
        raise SettingError(f"{name} is {shown(value)}; expected {words}")
    return tuple(several)


def generator(value: Any, name: str = "seed") -> np.random.Generator:
    """The generator that an argument means: a seed, or a generator, which is used as it is.

    Raises:
        SettingError: It is neither.

    Example:
        >>> bool(generator(3).random() == generator(np.random.default_rng(3)).random())
        True
    """
    words = "a whole number, 0 or more, or a numpy.random.Generator"
    seeds = Expected(words, lambda seed: _is_whole(seed) and seed >= 0)
    if isinstance(value, np.random.Generator):
        return value
    if not isinstance(value, (np.random.SeedSequence, np.random.BitGenerator)):
        require(name, value, seeds)
    return np.random.default_rng(value)


def shown(value: Any) -> str:
    """A value for a message: short, whatever it is."""
    try:
        written = repr(value)
    except Exception:  # of an object's own, or an int of too many digits
        return f"a {type(value).__name__} that cannot be printed"
    return written if len(written) <= 200 else f"{written[:197]}..."


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


#: Name of a column.
Column = Annotated[str, text()]
#: A whole number above 0.
Count = Annotated[int, whole()]
#: A part of something, both ends included.
Share = Annotated[float, number(0, 1, words="a share in [0, 1]")]
#: A finite number above 0.
Positive = Annotated[float, number(above=0, words="a finite number above 0")]
#: A finite number, 0 or more.
NotNegative = Annotated[float, number(0, words="a finite number of at least 0")]
#: What random numbers begin with.
Seed = Annotated[int, whole(0)]
