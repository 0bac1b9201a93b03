"""Who may import whom. Read with `ast`, so an import inside a function counts as well.

`docs/architecture.md` shows the same table with its reasons.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import memento

ROOT = Path(memento.__file__).parent
CASE_ROOTS = {
    name: Path(found.origin).parent
    for name in ("memento_puffer", "memento_datacenter")
    if (found := importlib.util.find_spec(name)) is not None
}

# A room imports from the lines above its own, so rooms of one line do not meet.
LAYERS = [
    ["errors"],
    ["addresses", "arguments", "casting", "plugins", "printing", "widths"],
    ["arrow", "grids", "kinds"],
    ["columns"],
    ["files", "guarded", "samples", "_kernels"],
    ["batching", "days", "draws", "missing", "settings"],
    ["arrivals", "scores"],
    ["distances", "offered"],
    ["landmarks", "sliced"],
    ["discards"],
    ["field"],
    ["density"],
    ["attribution"],
    ["coverage", "newness", "policies", "snapshot"],
    ["schema"],
    ["contents", "saved"],
    ["explain"],
    ["memory"],
    ["group", "portrait"],
    ["learner", "retrain"],
    ["observe"],
    ["step"],
    ["loop", "training"],
    ["scale", "study"],
    ["testing"],
    ["integrations"],
    ["deployment"],
    ["cli"],
]
# Apart from the ladder: what experiments run on and are reported with knows nothing of the method.
APART = {
    "runner": ["arguments", "errors", "files", "plugins", "settings"],
    "report": ["errors", "files", "plugins", "runner"],
}
# Beyond the ladder, one line each with its reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("report.memory", "memory"): "a page of a memory opens it",
    ("report.memory", "portrait"): "and shows what is computed there",
    ("report.deployment", "portrait"): "for each memory of a daily job as well",
    ("report.deployment", "deployment"): "the page of a daily job reads its record",
}
# What only those parts of a case see that are for people: its commands and its pages.
FOR_PEOPLE = {"cli": ["cli", "runner", "report"], "report": ["report", "runner"]}
CASES_SEE_OF_RUNNER = "runner.spec"
# Nobody builds on the tools for tests.
UNSEEN = ["testing"]

CASE_COMMANDS = ["memento_puffer/cli/*.py", "memento_datacenter/cli.py"]

# Distribution -> files that may import it; "lazily" only inside a function.
HEAVY = {
    "torch": [
        *(
            f"integrations/{name}.py"
            for name in ("torch", "torch_data", "torch_encoder", "torchrl", "avalanche")
        ),
        "memento_puffer/predictor/ttp.py",
        "memento_datacenter/learner.py",
    ],
    "pyarrow": [
        *("memento_puffer/data/schema.py", "memento_puffer/data/release.py"),
        "memento_puffer/streaming/traces.py",
        *("memento_datacenter/schema.py", "runner/results.py", "report/*.py"),
    ],
    "polars": [
        *("memento_puffer/data/*.py", "memento_puffer/quality/analysis.py"),
        *("memento_puffer/streaming/traces.py", "memento_puffer/streaming/observed.py"),
    ],
    "pandas": [],
    "dask": ["runner/executors/dask.py"],
    "distributed": ["runner/executors/dask.py"],
    "dask_jobqueue": ["runner/executors/dask.py", "runner/executors/slurm.py"],
    "matplotlib": ["report/drawing.py", "report/figures.py"],
    "altair": ["report/live.py"],
    "vl_convert": ["report/page.py", "report/sections.py"],
    "jinja2": ["report/page.py"],
    "sklearn": [f"integrations/{name}.py" for name in ("imblearn", "river", "sklearn", "tabular")],
    "threadpoolctl": ["cli/backtest.py"],
    "skops": ["integrations/sklearn.py"],
    "scipy": ["integrations/imblearn.py"],
    "imblearn": ["integrations/imblearn.py"],
    "river": ["integrations/river.py"],
    "torchrl": ["integrations/torchrl.py"],
    "tensordict": ["integrations/torchrl.py"],
    "fsspec": [],
    "KDEpy": ["widths.py"],
    "optuna": ["memento_datacenter/tuning.py"],
    "mlflow": ["integrations/tracking.py"],
    "tensorboard": ["integrations/tracking.py"],
    "avalanche": ["integrations/avalanche.py"],
    "onnxruntime": [],
    "msgspec": [],
    "typer": ["cli/*.py", *CASE_COMMANDS],
    "rich": ["cli/*.py", *CASE_COMMANDS],
    "numba": ["_kernels/*.py", "memento_puffer/_kernels/*.py"],
    "google_crc32c": ["memento_puffer/data/transfer.py"],
    "urllib3": ["memento_puffer/data/transfer.py"],
    "psutil": [],
    "llvmlite": ["_kernels/*.py", "memento_puffer/_kernels/*.py"],
}
LAZILY = {
    "msgspec": ["settings.py"],
    "psutil": ["runner/results.py"],
    "torch": ["cli/*.py", "scale/predictions.py", *CASE_COMMANDS],
    "pandas": ["samples.py"],
    "pyarrow": [
        *(
            "cli/*.py",
            "arrow.py",
            "integrations/arrow.py",
            "integrations/sql.py",
            "scale/blocks.py",
            *CASE_COMMANDS,
        )
    ],
    "fsspec": ["integrations/arrow.py"],
    "distributed": ["scale/dask.py"],
    "onnxruntime": ["scale/predictions.py"],
}


class Import(NamedTuple):
    """One imported module: where, what, and whether it runs when the file is imported."""

    file: str
    line: int
    target: str
    at_import: bool


def _imports(path: Path, root: Path = ROOT) -> Iterator[Import]:
    home = next((r for r in CASE_ROOTS.values() if path.is_relative_to(r)), None)
    file = path.relative_to(home.parent if home else root).as_posix()

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, at_import)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            for alias in node.names:
                # The name counts: `from memento import memory` imports a module.
                yield Import(file, node.lineno, f"{node.module}.{alias.name}", at_import)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, at_import)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_import and not inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def _module(dotted: str, root: Path = ROOT) -> str:
    """The module of ours a dotted name lies in, without the package's name: memento.a.B -> a."""
    parts = dotted.split(".")[1:]
    while parts:
        place = root.joinpath(*parts)
        if place.with_suffix(".py").is_file() or place.is_dir():
            return ".".join(parts)
        parts.pop()
    return ""


def _room(module: str) -> str:
    """The entry of the table that a module belongs to: cases.puffer.ttp -> cases.puffer."""
    parts = module.split(".")
    if module == "__main__":  # `python -m memento` is the command line
        return "cli"
    return parts[0]


def _floor(room: str) -> int | None:
    for floor, rooms in enumerate(LAYERS):
        if any(fnmatch.fnmatchcase(room, pattern) for pattern in rooms):
            return floor
    return None


def _refusal(source: str, target: str) -> str | None:
    """Why module `source` may not import module `target`, or None."""
    here, there = _room(source), _room(target)
    if here == there or (source, target) in EXCEPTIONS:
        return None
    if there in UNSEEN and here != "cli":
        return f"{there} is for tests only"
    if here in APART:
        return None if there in APART[here] else f"{here} sees only {', '.join(APART[here])}"
    above = _floor(here)
    if above is None:
        return f"{here} has no place in the table"
    if there in APART:
        if here == "cli" or (here, there) == ("study", "runner"):
            return None  # a study is many runs
        return f"{here} must not know {there}"
    below = _floor(there)
    if below is None:
        return f"{there} has no place in the table"
    return None if below < above else f"{there} does not stand above {here} in the table"


FILES = sorted(p for root in (ROOT, *CASE_ROOTS.values()) for p in root.rglob("*.py"))


def _ours() -> Iterator[tuple[Import, str, str]]:
    for path in FILES:
        if not path.is_relative_to(ROOT):
            continue
        source = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if source == "__init__":
            continue  # the package's own list of names sees all that it lists
        for found in _imports(path):
            if found.target.split(".")[0] == "memento":
                yield found, source, _module(found.target)


def test_layers():
    problems = []
    for found, source, target in _ours():
        if target == "":
            reason = None if _room(source) == "cli" else "name the module, not the whole package"
        else:
            reason = _refusal(source, target)
        if reason:
            problems.append(f"{found.file}:{found.line}: imports {found.target}: {reason}")
    assert not problems, "\n" + "\n".join(problems)


def test_cases():
    """A case stands on the whole library, and nobody stands on a case but itself."""
    problems = []
    for path in FILES:
        for found in _imports(path):
            package = found.target.split(".")[0]
            home = found.file.split("/")[0]
            if package in CASE_ROOTS and package != home:
                problems.append(f"{found.file}:{found.line}: imports {found.target}")
            if package == "memento" and home in CASE_ROOTS:
                target = _module(found.target)
                room = _room(target)
                part = found.file.split("/")[1].removesuffix(".py")
                apart = room in ("cli", *APART) and target != CASES_SEE_OF_RUNNER
                if room in UNSEEN or (apart and room not in FOR_PEOPLE.get(part, ())):
                    problems.append(f"{found.file}:{found.line}: imports {found.target}")
    assert not problems, "\n" + "\n".join(problems)


def test_tests_of_the_library_know_no_case():
    here = Path(__file__).parent
    problems = [
        f"{path.relative_to(here)}: {name}"
        for path in sorted(here.rglob("*.py"))
        for name in ("memento_puffer", "memento_datacenter")
        if path != Path(__file__) and name in path.read_text(encoding="utf-8")
    ]
    assert not problems, "\n" + "\n".join(problems)


def test_heavy_imports_stay_where_they_are_named():
    problems = []
    for path in FILES:
        for found in _imports(path):
            package = found.target.split(".")[0]
            if package not in HEAVY:
                continue
            allowed = HEAVY[package] + ([] if found.at_import else LAZILY.get(package, []))
            if not any(fnmatch.fnmatchcase(found.file, pattern) for pattern in allowed):
                when = "at import" if found.at_import else "lazily"
                problems.append(f"{found.file}:{found.line}: imports {package} {when}")
    assert not problems, "\n" + "\n".join(problems)


def test_kernels_are_imported_lazily():
    """`import memento` must not load numba: others than kernels import them in functions.

    The package itself, which chooses between them, loads none, and `plain` is numpy alone.
    """
    problems = [
        f"{found.file}:{found.line}: imports {found.target} at import"
        for found, source, target in _ours()
        if target.startswith("_kernels.") and not source.startswith("_kernels") and found.at_import
        if target != "_kernels.plain"
    ]
    assert not problems, "\n" + "\n".join(problems)


def test_third_parties_are_known():
    """A new dependency is a decision: it stands in the table above and in pyproject.toml."""
    known = {"numpy", "memento", *CASE_ROOTS, *HEAVY, *sys.stdlib_module_names}
    problems = [
        f"{found.file}:{found.line}: imports {found.target}"
        for path in FILES
        for found in _imports(path)
        if found.target.split(".")[0] not in known
    ]
    assert not problems, "\n" + "\n".join(problems)


def test_nothing_is_unpickled():
    """State on disk is read without running what is in it.

    Compiled kernels are no state: they are code, trusted as far as the folder they lie in.
    """
    problems = []
    for path in FILES:
        if path.name == "_cache.py":
            continue
        text = path.read_text(encoding="utf-8")
        problems += [
            f"{found.file}:{found.line}: imports {found.target}"
            for found in _imports(path)
            if found.target.split(".")[0] in ("pickle", "cloudpickle", "dill", "shelve", "marshal")
        ]
        if "allow_pickle=True" in text:
            problems.append(f"{path.relative_to(ROOT)}: allow_pickle=True")
    assert not problems, "\n" + "\n".join(problems)


def test_exceptions_are_still_needed():
    used = {(source, target) for _, source, target in _ours()}
    assert set(EXCEPTIONS) <= used


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("memory", "policies.memento", True),
        ("policies.memento", "policies._policy", True),
        ("policies.memento", "memory", False),
        ("batching", "density", False),
        ("report.page", "runner.results", True),
        ("report.page", "memory", False),
        ("cli.run", "runner.job", True),
        ("loop", "testing", False),
        ("study.runs", "runner.job", True),
        ("study.runs", "report.page", False),
        ("loop", "runner.job", False),
        ("testing", "loop", True),
    ],
)
def test_the_table_itself(source, target, allowed):
    assert (_refusal(source, target) is None) is allowed
