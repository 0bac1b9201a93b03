"""The size of the house: figures of all source, each with the most that is wanted.

    python benchmarks/house.py

Code lines are lines without blanks, comments and docstrings. Complexity counts the ways through a
function: one, and one more for every branch, loop, handler, condition of a comprehension, case and
further operand of `and` and `or`; functions inside count for themselves.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = ("src/memento", "cases/puffer/src", "cases/datacenter/src")
FILE, FUNCTION, COMPLEXITY = 500, 80, 25
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Figure(NamedTuple):
    """One line of the table: a number, the most that is wanted, and what is above a limit."""

    name: str
    value: int
    target: int
    over: tuple[str, ...] = ()


def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code."""
    silent = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
        *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node):
            text = node.body[0]
            lines -= set(range(text.lineno, text.end_lineno + 1))
    return lines


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, Function]]:
    """All functions with their dotted names."""
    for node in ast.iter_child_nodes(tree):
        name = f"{inside}.{node.name}".lstrip(".") if hasattr(node, "name") else inside
        if isinstance(node, Function):
            yield name, node
        yield from functions(node, name or inside)


def complexity(function: ast.AST) -> int:
    """Ways through a function, without those of functions inside."""
    ways = 1
    nodes = list(ast.iter_child_nodes(function))
    while nodes:
        node = nodes.pop()
        if isinstance(node, Function):
            continue
        branches = ast.If | ast.For | ast.While | ast.IfExp | ast.ExceptHandler | ast.match_case
        ways += isinstance(node, branches | ast.Assert | ast.AsyncFor)
        ways += len(node.values) - 1 if isinstance(node, ast.BoolOp) else 0
        ways += 1 + len(node.ifs) if isinstance(node, ast.comprehension) else 0
        nodes += ast.iter_child_nodes(node)
    return ways


def module_of(path: Path, root: Path) -> str:
    """``memento.cli.main`` of its file."""
    names = path.relative_to(root).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def imports_of(tree: ast.Module, modules: set[str]) -> set[str]:
    """Those of the modules that are imported when this one is, so not inside functions."""
    targets: set[str] = set()
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            targets.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            targets.update(name if name in modules else node.module for name in full)
        elif not isinstance(node, Function) and "TYPE_CHECKING" not in ast.dump(
            getattr(node, "test", ast.Pass())
        ):
            nodes += ast.iter_child_nodes(node)
    return targets & modules


def circles(edges: dict[str, set[str]]) -> list[str]:
    """Groups of modules that import each other, in whatever many steps."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            for target in edges[left.pop()] - seen:
                seen.add(target)
                left.append(target)
        return seen

    reach = {module: reached(module) for module in edges}
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in edges
        if module in reach[module]
    }
    return [" - ".join(group) for group in sorted(groups)]


def arrows_up() -> list[str]:
    """Imports that break the table of who may import whom, as `tests/test_layers.py` reads it."""
    sys.path.insert(0, str(ROOT / "tests"))
    import test_layers

    found = [
        (arrow, test_layers._refusal(here, there))
        for arrow, here, there in test_layers._ours()
        if there
    ]
    return [f"{arrow.file}:{arrow.line}: {reason}" for arrow, reason in found if reason]


def figures(root: Path = ROOT) -> list[Figure]:
    """The table."""
    total = library = 0
    files, long, tangled, edges = [], [], [], {}
    paths = [
        (path, root / home) for home in SOURCES for path in sorted((root / home).rglob("*.py"))
    ]
    bases = {home: home.parent if home.name == "memento" else home for _, home in paths}
    modules = {module_of(path, bases[home]) for path, home in paths}
    for path, home in paths:
        source = path.read_text(encoding="utf-8")
        tree, lines, where = (
            ast.parse(source),
            code_lines(source),
            path.relative_to(root).as_posix(),
        )
        total += len(lines)
        library += len(lines) if home.name == "memento" else 0
        files += [f"{where}: {len(lines)}"] if len(lines) > FILE else []
        for name, function in functions(tree):
            size = len(lines & set(range(function.lineno, function.end_lineno + 1)))
            ways = complexity(function)
            long += [f"{where} {name}: {size}"] if size > FUNCTION else []
            tangled += [f"{where} {name}: {ways}"] if ways > COMPLEXITY else []
        edges[module_of(path, bases[home])] = imports_of(tree, modules)
    rings, arrows = circles(edges), arrows_up()
    return [
        Figure("code lines, all three distributions", total, 26_000),
        Figure("code lines, src/memento", library, 14_000),
        Figure(f"files above {FILE} code lines", len(files), 0, tuple(files)),
        Figure(f"functions above {FUNCTION} code lines", len(long), 0, tuple(long)),
        Figure(f"functions of a complexity above {COMPLEXITY}", len(tangled), 0, tuple(tangled)),
        Figure("import circles", len(rings), 0, tuple(rings)),
        Figure("arrows up", len(arrows), 0, tuple(arrows)),
    ]


def main() -> None:
    table = figures()
    width = max(len(figure.name) for figure in table)
    print(f"{'':{width}}  {'today':>7}  {'target':>7}")
    for figure in table:
        print(f"{figure.name:{width}}  {figure.value:7,}  {figure.target:7,}")
        for what in figure.over:
            print(f"    {what}")


if __name__ == "__main__":
    main()
