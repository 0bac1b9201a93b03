"""Settings that a person writes: TOML to frozen dataclasses, with one form of message.

The annotation of a field says its type, and what `memento.arguments` expects of it beside that:

    @dataclass(frozen=True)
    class Job:
        folder: Annotated[str, text("a folder")]
        threads: Annotated[int, whole()] | None = None

`build` makes one from a table of a file; what is wrong is refused with its place, what was found,
and what is expected.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import typing
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from memento.arguments import Expected, require, shown
from memento.errors import SettingError, needs
from memento.files import storage_errors

__all__ = ["build", "check_names", "check_plain", "convert", "parse", "read"]

T = TypeVar("T")


def read(path: Path, what: str = "read") -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: The file.
        what: What is done, for messages.

    Raises:
        SettingError: It is no TOML.
        StorageError: It cannot be read.
    """
    with storage_errors(what, path):
        content = path.read_bytes()
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is no TOML: {error}; correct it there") from error


def parse(text: str, option: str = "--set") -> dict[str, Any]:
    """``NAME=VALUE``, the value as in TOML; a bare word is a string.

    Raises:
        SettingError: It has another form.

    Example:
        >>> parse("batch_size=128"), parse("remainder = drop")
        ({'batch_size': 128}, {'remainder': 'drop'})
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise SettingError(f"{option} {text!r} has another form than NAME=VALUE")
    try:
        return {name: tomllib.loads(f"value = {value}")["value"]}
    except tomllib.TOMLDecodeError:
        return {name: value}


def build(kind: type[T], table: Any, where: str, inside: str = "", noun: str = "key") -> T:
    """A dataclass from a table whose names and types are those of its fields.

    Args:
        kind: The dataclass. A field may be a dataclass, or a mapping of names to dataclasses.
        table: Values as TOML or JSON has them.
        where: Name of the file, for messages.
        inside: Name of the table in the file; empty for the file's own.
        noun: What a name in the table is called in messages.

    Raises:
        SettingError: A name is unknown or missing, or a value is not what is expected.

    Example:
        >>> from memento.arguments import whole
        >>> fields = [("threads", Annotated[int, whole()], 1)]
        >>> Job = dataclasses.make_dataclass("Job", fields, frozen=True)
        >>> build(Job, {"threads": 2}, "job.toml").threads
        2
        >>> build(Job, {"threads": 0}, "job.toml")
        Traceback (most recent call last):
        memento.errors.SettingError: job.toml: threads is 0; expected a whole number above 0
    """
    place = f"{where}: [{inside}]" if inside else where
    if not isinstance(table, Mapping):
        raise SettingError(f"{where}: {inside} is {shown(table)}; expected a table [{inside}]")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    check_names(table, fields, place, noun)
    hints = _hints(kind)  # type: ignore[arg-type]  # a type is hashable
    values = {}
    for name, field in fields.items():
        hint = hints[name]
        if name not in table:
            if field.default is field.default_factory is dataclasses.MISSING:
                if dataclasses.is_dataclass(hint):
                    raise SettingError(f"{place} has no table [{name}]; add it")
                expected = _expected(hint)
                what = f": {name} is {expected.words}" if expected is not None else ""
                raise SettingError(f"{place} has no {name!r}; add it{what}")
            continue
        inner = f"{inside}.{name}".lstrip(".")
        values[name] = _value(table[name], hint, where, inner, f"{place}: {name}", noun)
    try:
        return kind(**values)
    except SettingError as error:
        raise SettingError(f"{place}: {error}") from error


def _value(value: Any, hint: Any, where: str, inside: str, place: str, noun: str) -> Any:
    """A value as its field is annotated; tables of dataclasses are built."""
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where, inside, noun)
    if typing.get_origin(hint) in (Mapping, dict):
        if not isinstance(value, Mapping):
            raise SettingError(f"{place} is {shown(value)}; expected a table [{inside}]")
        of = typing.get_args(hint)[1]
        return {
            name: _value(item, of, where, f"{inside}.{name}", f"{place}.{name}", noun)
            for name, item in value.items()
        }
    return convert(value, hint, place)


def convert(value: Any, hint: Any, name: str, example: str = "") -> Any:
    """A plain value as an annotation has it: a list as a tuple, a whole number as a float.

    Args:
        value: As TOML or JSON has it.
        hint: A type, with or without an `Expected`; one that TOML cannot say allows anything.
        name: Of the value, for messages.
        example: For messages.

    Raises:
        SettingError: It is of another type, or not what is expected.

    Example:
        >>> convert(["a"], tuple[str, ...], "columns"), convert(2, float | None, "hours")
        (('a',), 2.0)
        >>> convert(["a", 3], list[str], "columns")
        Traceback (most recent call last):
        memento.errors.SettingError: columns[1] is 3; expected text
    """
    with needs("msgspec", "cli", "reading settings"):
        import msgspec
    expected = _expected(hint)
    try:
        made = msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        if expected is not None:
            raise SettingError(f"{name} is {shown(value)}; expected {expected.words}") from None
        for number in re.findall(r"\[(\d+)\]", str(error).rpartition(" - at ")[2]):
            name, value = f"{name}[{number}]", value[int(number)]
        wanted = re.search(r"Expected `([^`]*)`", str(error))
        words = _in_words(wanted[1].split(" | ") if wanted else ())
        raise SettingError(f"{name} is {shown(value)}; expected {words}{example}") from None
    except TypeError:  # an annotation of more than plain values
        return value
    if made is not None and expected is not None:
        require(name, made, expected)
    return made


def check_names(
    given: Collection[str], known: Collection[str], where: str, noun: str = "key"
) -> None:
    """Raise if a name is not among those that are known.

    Raises:
        SettingError: It lists those that are.
    """
    for name in given:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise SettingError(f"{where}: unknown {noun} {name!r}; known are {listed}")


def check_plain(value: Any, where: str) -> None:
    """Raise at dates and endless numbers, which JSON has not.

    Raises:
        SettingError: With the value.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            check_plain(item, where)
    elif not isinstance(value, (str, int, float)) or not (
        isinstance(value, str) or math.isfinite(value)
    ):
        raise SettingError(f"{where}: {shown(value)} is no setting; expected a number or a text")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _expected(hint: Any) -> Expected | None:
    """What is expected of a value beside its type, if it is not None."""
    if typing.get_origin(hint) is Annotated:
        return next((data for data in hint.__metadata__ if isinstance(data, Expected)), None)
    options = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else ()
    return next((found for found in map(_expected, options) if found is not None), None)


# What msgspec calls types, in the words of the rest of our messages.
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "array": "a list",
    "object": "a table",
}


def _in_words(names: Sequence[str]) -> str:
    return " or ".join(_WORDS[name] for name in names if name in _WORDS) or "another value"
