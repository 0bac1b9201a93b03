"""The public surface: names, their documentation, and what importing them costs."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import memento

HEAVY = ["torch", "dask", "distributed", "polars", "pandas", "pyarrow", "matplotlib", "scipy"]
HEAVY += ["numba", "sklearn", "typer", "rich"]


def test_all_is_exactly_what_exists():
    existing = {
        name
        for name in dir(memento)
        if not name.startswith("_") and not isinstance(getattr(memento, name), types.ModuleType)
    }
    existing.discard("annotations")
    assert {name for name in memento.__all__ if name != "__version__"} == existing
    assert len(memento.__all__) == len(set(memento.__all__))


@pytest.mark.parametrize("name", memento.__all__)
def test_public_names_are_documented(name):
    thing = getattr(memento, name)
    if inspect.isclass(thing) or callable(thing):
        assert inspect.getdoc(thing), f"{name} has no docstring"
        assert thing.__module__.startswith("memento."), f"{name} is not ours"


def test_version_is_the_distribution_s():
    settings = Path(__file__).parents[1] / "pyproject.toml"
    if settings.exists():  # an editable installation tells the version of when it was made
        expected = tomllib.loads(settings.read_text(encoding="utf-8"))["project"]["version"]
    else:
        expected = importlib.metadata.version("memento-replay")
    assert memento.__version__ == expected


def test_import_pulls_in_nothing_heavy():
    code = f"import memento, sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []


def test_reading_every_public_name_pulls_in_nothing_heavy():
    code = (
        "import memento, sys; [getattr(memento, n) for n in memento.__all__];"
        f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []
