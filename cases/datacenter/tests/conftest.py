"""What the tests of the data-centre case share: the compiled simulation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memento.errors import MementoError
from memento_datacenter.simulate import Program, build

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
