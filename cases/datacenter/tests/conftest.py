"""What the tests of the data-centre case share: the compiled simulation, and made-up runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from small_runs import made_up

from memento.errors import MementoError
from memento_datacenter.schema import Runs
from memento_datacenter.simulate import SETTINGS, Program, build

CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """A folder for executables that the workers of one test run have in common."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "executables"


@pytest.fixture(scope="session")
def program(cache) -> Program:
    """The simulation, compiled against the ns-3 that is installed."""
    try:
        return build(cache=cache)
    except MementoError as error:
        if CI:
            pytest.fail(str(error))  # in continuous integration nothing is left out unnoticed
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def made_up_runs(tmp_path_factory) -> Path:
    """Runs 1 to 5 of all settings, small and made up; not to be changed."""
    folder = Runs(tmp_path_factory.mktemp("runs"))
    for setting in SETTINGS:
        for number in range(1, 6):
            made_up(setting, number).write(folder.path(setting, number))
    return folder.folder


@pytest.fixture
def own_runs(made_up_runs, tmp_path) -> Runs:
    """A copy that a test may change."""
    return Runs(shutil.copytree(made_up_runs, tmp_path / "runs"))
