"""Functions of a package without a docstring, of their own or of the class they come from."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from memento.errors import MissingExtraError

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


def documented(function: Function, owners: list[str], path: Path, root: Path) -> bool:
    if ast.get_docstring(function):
        return True
    if not owners:
        return False
    if function.name.startswith("__"):  # the class says what its arguments are
        return True
    module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
    try:
        found = importlib.import_module(module)
    except (ImportError, MissingExtraError):  # its base class is in a package that is not here
        return True
    for name in (*owners, function.name):
        found = getattr(found, name)
    return bool(inspect.getdoc(found))  # also that of an overridden method


def undocumented(package: ModuleType) -> list[str]:
    """Where functions of 15 lines and more lie that say nowhere what they do."""
    root = Path(package.__file__).parent
    return [
        f"{path.relative_to(root)}:{function.lineno}: {function.name}"
        for path in sorted(root.rglob("*.py"))
        for function, owners in functions(ast.parse(path.read_text(encoding="utf-8")))
        if function.end_lineno - function.lineno + 1 >= LONG
        if not documented(function, owners, path, root)
    ]
