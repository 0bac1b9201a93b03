"""Checks of arguments: what is wrong is refused where it is given, with its name and its value.

    check(policy, batch_size=whole(), temperature=number(least=0, infinite=True))

Dataclasses say it where their fields stand, and `check_fields` looks there:

    temperature: Annotated[float, number(least=0, infinite=True)] | None = None

Functions whose signature says all that can be said of the types are `checked`.

A check looks at the type before it compares, so that no value, of whatever type, ends in an error
of Python or numpy.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

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
    "checked",
    "flag",
    "generator",
    "instance",
    "names",
    "number",
    "numbers",
    "of_type",
    "one_of",
    "optional",
    "require",
    "shown",
    "text",
    "whole",
]

# Whole numbers go into arrays of int64.
_LARGEST = 2**63 - 1

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Expected:
    """What an argument has to be.

    Attributes:
        words: What is expected, as it stands in a message.
        holds: Whether a value, of any type, is so.
        made: What a function gets for a value that holds, where it is not the value.
    """

    words: str
    holds: Callable[[Any], bool]
    made: Callable[[Any], Any] = lambda value: value


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


def checked(function: _Function) -> _Function:
    """A function that refuses arguments of other types than its signature says; of a class, all.

    Numbers, texts, paths, functions, classes of this package, and containers of them are looked at;
    ``Annotated``, ``Literal`` and ``bool`` as `check_fields` does. Arrays and classes of others
    are left to the function. Where it takes ``Samples``, columns by name become such.

    Example:
        >>> @checked
        ... def wait(seconds: float, units: Sequence[str] = ()) -> None: ...
        >>> wait(1)
        >>> wait("1")
        Traceback (most recent call last):
        memento.errors.SettingError: seconds is '1'; expected a number
    """
    if isinstance(function, type):
        for name, part in dict(vars(function)).items():
            if inspect.isfunction(part) and (name == "__init__" or not name.startswith("_")):
                setattr(function, name, checked(part))
        return function
    signature = inspect.signature(function)

    @functools.wraps(function)
    def refusing(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # names that it has not, or not all
            return function(*args, **kwargs)  # Python says so
        given = bound.arguments
        for name, expected in _demands(function):
            if name in given:
                require(name, given[name], expected)
                given[name] = expected.made(given[name])
        return function(*bound.args, **bound.kwargs)

    return cast(_Function, refusing)


@cache
def _demands(function: Callable[..., Any]) -> list[tuple[str, Expected]]:
    """For each parameter of a function what its annotation demands."""
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        one = SimpleNamespace(__annotations__={name: parameter.annotation})
        names = getattr(function, "__globals__", {})
        try:
            hint = get_type_hints(one, names, include_extras=True)[name]
        except (NameError, AttributeError):  # known to type checkers only
            continue
        expected = of_type(hint)
        if parameter.kind is parameter.VAR_POSITIONAL:
            expected = _all_of(expected)
        if expected is not None and parameter.kind is not parameter.VAR_KEYWORD:
            found.append((name, expected))
    return found


def of_type(hint: Any) -> Expected | None:
    """What a type demands of a value; None where that cannot be told by a look at it.

    Example:
        >>> [of_type(dict[str, float]).holds(value) for value in ({"a": 1}, {"a": "b"}, [])]
        [True, False, False]
    """
    if (found := _of_hint(hint) or _plain(hint)) is not None:
        return found
    kind, options = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return _one_of([of_type(option) for option in options])
    if kind is Annotated:
        return of_type(options[0])
    if kind is Callable:
        return FUNCTION
    if kind in (Mapping, dict):
        return _mapping_of(*map(of_type, options))
    if kind in (Sequence, Collection, list) or (kind is tuple and options[1:] == (...,)):
        return _all_of(of_type(options[0]) if options else None)
    if kind in (Iterable, Iterator):
        return ITERABLE
    return _of_class(kind)


def _of_class(kind: Any) -> Expected | None:
    borrow = getattr(kind, "borrow", None)  # of samples, for which columns by name will do
    if not inspect.isclass(kind) or not kind.__module__.startswith(f"{__package__}."):
        return None
    if getattr(kind, "_is_protocol", False) > getattr(kind, "_is_runtime_protocol", False):
        return None
    words = f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"
    if borrow is None:  # a class has all that a protocol asks of its instances
        return Expected(words, lambda v: isinstance(v, kind) and not isinstance(v, type))
    made = lambda value: value if isinstance(value, kind) else borrow(value)  # noqa: E731
    return replace(instance(Mapping, "samples"), made=made)


def _one_of(parts: list[Expected | None]) -> Expected | None:
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    words = " or ".join(part.words for part in there)
    found = Expected(words, lambda value: any(part.holds(value) for part in there))
    return replace(found, made=lambda value: next(p.made(value) for p in there if p.holds(value)))


def _plain(hint: Any) -> Expected | None:
    return _PLAIN.get(hint) if isinstance(hint, type) else None


def _all_of(part: Expected | None) -> Expected:
    """Lists, tuples and the like, of which each part is as expected."""

    def holds(value: Any) -> bool:
        if isinstance(value, (str, bytes)):
            return isinstance(value, str) and part is not None and part.holds("")
        if isinstance(value, np.ndarray):
            return value.ndim > 0 and (part is None or all(map(part.holds, value)))
        return isinstance(value, Collection) and (part is None or all(map(part.holds, value)))

    return Expected(f"a list, each {part.words}" if part else "a list", holds)


def _mapping_of(name: Expected | None = None, part: Expected | None = None) -> Expected:
    def holds(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            (name is None or name.holds(key)) and (part is None or part.holds(one))
            for key, one in value.items()
        )

    return Expected(f"a mapping to {part.words}" if part else "a mapping", holds)


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


#: What gives one thing after the other; an array without axes does not.
ITERABLE = Expected(
    "something to iterate over",
    lambda value: isinstance(value, Iterable) and getattr(value, "shape", None) != (),
)
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


def numbers(name: str, value: Any, dimensions: int) -> np.ndarray:
    """An array of numbers, as float64.

    Raises:
        SettingError: It is something else, or of other dimensions.

    Example:
        >>> numbers("values", [1, 2], 1)
        array([1., 2.])
    """
    try:
        array = np.asarray(value)
    except ValueError:  # rows that differ in length
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf" or array.ndim != dimensions:
        raise SettingError(
            f"{name} is {shown(value)}; expected an array of numbers of {dimensions} dimension"
            f"{'s' if dimensions > 1 else ''}"
        )
    return array.astype(np.float64)


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

_ANY_NUMBER = Expected(
    "a number", lambda value: _is_whole(value) or isinstance(value, (float, np.floating))
)
_PLAIN: dict[Any, Expected] = {
    int: Expected("a whole number", _is_whole),
    float: _ANY_NUMBER,
    str: Expected("a text", lambda value: isinstance(value, str)),
    bytes: Expected("bytes", lambda value: isinstance(value, bytes)),
    NoneType: Expected("None", lambda value: value is None),
    Path: Expected("a path", lambda value: isinstance(value, (str, os.PathLike))),
}
