"""Fixtures and settings that all tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Its examples need what only `make unit-avalanche` brings.
collect_ignore = ["src/memento/integrations/avalanche.py"]
if importlib.util.find_spec("avalanche"):
    collect_ignore.clear()

CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

# A shared machine may pause any example: only the number of examples bounds the time.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("local", max_examples=50, **_common)
settings.register_profile("ci", max_examples=100, derandomize=True, **_common)
settings.load_profile("ci" if CI else "local")


def _references() -> Path:
    """The folder with `golden/` and `data/`: MEMENTO_DATA, else `../shared` beside the checkout."""
    named = os.environ.get("MEMENTO_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[1] / "shared"


def _absent(path: Path) -> NoReturn:
    message = f"{path} is not there; name the folder with golden/ and data/ in MEMENTO_DATA"
    if CI:
        pytest.fail(message)  # in continuous integration nothing may be left out unnoticed
    pytest.skip(message)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Reader of reference numbers: `golden("selection_a")["kept_T0"]`."""

    def read(name: str) -> dict[str, np.ndarray]:
        path = _references() / "golden" / f"{name}.npz"
        if not path.is_file():
            _absent(path)
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}

    return read


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder with real traces."""
    path = _references() / "data"
    if not path.is_dir():
        _absent(path)
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The figures as they are when they are saved."""
    import matplotlib.pyplot as plt

    from memento.report import drawing

    found: list[Any] = []
    save = drawing.save

    def keep(figure: Any, path: Path, title: str = "") -> None:
        found.append(
            [
                {
                    "title": axis.get_title(),
                    "lines": {line.get_label(): line.get_xydata() for line in axis.get_lines()},
                    "ticks": [label.get_text() for label in axis.get_xticklabels()],
                }
                for axis in figure.axes
            ]
        )
        save(figure, path, title)

    monkeypatch.setattr(drawing, "save", keep)
    yield found
    assert plt.get_fignums() == []
