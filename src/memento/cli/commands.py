"""Commands from functions: their docstrings say what options are called and what they do.

    @dataclass(frozen=True)
    class Draw:
        '''How samples are drawn.

        Attributes:
            seed: Of the draw.
            out (FILE): A file to write.
        '''

        seed: int = 0
        out: Path | None = None

    @app.command()
    def sample(folder: Path, draw: Draw, workers: int = 1, again: bool = False) -> None:
        '''Write a random sample.

        Args:
            folder (DIR): Folder of the memory.
            workers (-j): Processes.
            again: Also what was drawn before.

        Example:
            memento sample mem --seed 3
        '''

An argument of a dataclass stands for an option for each field. What has no default is an argument
of the command, the rest are options; a flag that is off is turned on by its name alone. In brackets
stand the names of an option, where it is not called like the argument, and what stands for its
value in the help. Examples, one a line, stand at the end of the help. Whatever else Typer can do is
said in the annotation, as with Typer alone.
"""  # noqa: D214

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import functools
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.models import ParameterInfo

__all__ = ["Commands", "with_options"]

F = TypeVar("F", bound=Callable[..., Any])
_NAMED, _NONE = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty

# An argument in a section of a docstring: name, perhaps a bracket, and what it is.
_ENTRY = re.compile(r" {4}(\w+)(?: \((.+?)\))?: (.+)")

_SECTION = re.compile(r"\n(?:Args|Example):\n")


class Commands(typer.Typer):
    """A Typer application whose commands are documented like all other functions."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        """Add a function as a command; see the module."""
        add = super().command

        def added(function: F) -> F:
            shown = "\n\n".join(_examples(function))  # the help joins lines of a paragraph
            add(name, epilog=shown or None, **options)(with_options(function))
            return function

        return added


def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as Typer takes it: of plain values, with the help of each in its annotation."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    help_of = _described(function, "Args")
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            options = _options_of(kind)
            groups[parameter.name] = kind, [option.name for option in options]
            parameters += options
        else:
            parameters.append(_with_help(parameter, *help_of.get(parameter.name, ("", ""))))

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        for name, (kind, fields) in groups.items():
            values[name] = kind(**{field: values.pop(field) for field in fields})
        return function(**values)

    parameters = [parameter.replace(kind=_NAMED) for parameter in parameters]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = _SECTION.split(_doc(function))[0]
    return command


def _examples(function: Callable[..., Any]) -> list[str]:
    """Lines of the help that show how a command is called."""
    _, _, rest = _doc(function).partition("\nExample:\n")
    lines = [" ".join(line.split()) for line in rest.splitlines() if line.strip()]
    return [f"Example{'s' if len(lines) > 1 else ''}:", *lines] if lines else []


def _options_of(kind: type) -> list[inspect.Parameter]:
    """The fields of a dataclass as parameters; those of its bases have their help there."""
    hints = typing.get_type_hints(kind, include_extras=True)
    help_of: dict[str, tuple[str, str]] = {}
    for owner in reversed(kind.__mro__):
        help_of |= _described(owner, "Attributes")
    parameters = []
    for field in dataclasses.fields(kind):
        default = _NONE if field.default is dataclasses.MISSING else field.default
        option = inspect.Parameter(
            field.name, _NAMED, default=default, annotation=hints[field.name]
        )
        parameters.append(_with_help(option, *help_of.get(field.name, ("", ""))))
    return parameters


def _with_help(parameter: inspect.Parameter, bracket: str, text: str) -> inspect.Parameter:
    """A parameter with what its docstring says; as it is where that says nothing, or Typer does."""
    if not text or isinstance(parameter.default, ParameterInfo):
        return parameter
    hint, default = parameter.annotation, parameter.default
    hint, *marks = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    names = [word for word in bracket.replace(",", " ").split() if word.startswith("-")]
    metavar = " ".join(word for word in bracket.split() if not word.startswith("-"))
    known = [copy.copy(mark) for mark in marks if isinstance(mark, ParameterInfo)]
    if not known and not names and default is _NONE:
        known = [typer.Argument()]
    elif not known:
        flag = [f"--{parameter.name.replace('_', '-')}"] if default is False else []
        known = [typer.Option(*(names or flag))]
    (info,) = known
    info.help, info.metavar = text, metavar or info.metavar
    return parameter.replace(annotation=Annotated[hint, info])


def _doc(owner: Any) -> str:
    """The docstring; read from the source where Python forgets them (``PYTHONOPTIMIZE=2``)."""
    text = owner.__doc__
    if sys.flags.optimize > 1:
        text = None
        with contextlib.suppress(OSError, TypeError):
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
            text = ast.get_docstring(definition)  # type: ignore[arg-type]
    return inspect.cleandoc(text or "")


def _described(owner: Any, section: str) -> dict[str, tuple[str, str]]:
    """What stands in a section of a docstring: by name, what is in brackets, and the text."""
    _, _, rest = _doc(owner).partition(f"\n{section}:\n")
    texts: dict[str, tuple[str, str]] = {}
    name = ""
    for line in rest.splitlines():
        if entry := _ENTRY.fullmatch(line):
            name = entry[1]
            texts[name] = entry[2] or "", entry[3]
        elif line and not line.startswith(" "):
            break  # another section
        elif line:
            texts[name] = texts[name][0], f"{texts[name][1]} {line.strip()}"
    return texts
