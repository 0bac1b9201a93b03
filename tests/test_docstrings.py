"""Functions of 15 lines and more say what they do, themselves or in the class they come from."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import memento

ROOT = Path(memento.__file__).parent
LONG = 15
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, owners: tuple[str, ...] = ()) -> Iterator[tuple[Function, list[str]]]:
    """All functions with the classes that they are methods of."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield child, list(owners)  # what is defined inside is part of it
        else:
            inner = (*owners, child.name) if isinstance(child, ast.ClassDef) else owners
            yield from functions(child, inner)


def documented(function: Function, owners: list[str], path: Path) -> bool:
    if ast.get_docstring(function):
        return True
    if not owners:
        return False
    if function.name.startswith("__"):  # the class says what its arguments are
        return True
    found = importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    for name in (*owners, function.name):
        found = getattr(found, name)
    return bool(inspect.getdoc(found))  # also that of an overridden method


def test_long_functions_have_docstrings():
    problems = [
        f"{path.relative_to(ROOT)}:{function.lineno}: {function.name}"
        for path in sorted(ROOT.rglob("*.py"))
        for function, owners in functions(ast.parse(path.read_text(encoding="utf-8")))
        if function.end_lineno - function.lineno + 1 >= LONG
        if not documented(function, owners, path)
    ]
    assert not problems, "\n" + "\n".join(problems)
