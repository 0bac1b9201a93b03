"""Pages of what the case leaves behind, found by `memento report`."""

from __future__ import annotations

from pathlib import Path

from memento.report import deployments
from memento.report.sections import Report
from memento_puffer.deployment.deploy import Deployment

__all__ = ["of_deployment"]


def of_deployment(folder: Path) -> Report:
    """The page of a deployment's state folder.

    Args:
        folder: Of the deployment.

    Raises:
        ForeignError, DamagedError: As for `Deployment`.
    """
    return deployments.of_deployment(folder, Deployment(folder).table())
