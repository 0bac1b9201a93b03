"""Pages of what the case leaves behind, found by `memento report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from memento.report.kinds import Kind, Reports
from memento.report.sections import Report
from memento_puffer.report import experiments
from memento_puffer.report.deployments import of_deployment
from memento_puffer.report.published import CONDITIONS, NOTE
from memento_puffer.report.replays import of_replay
from memento_puffer.report.viewers import of_analysis, of_demo

__all__ = ["REPORTS"]


def _holds(*files: str) -> Callable[[Path], bool]:
    """A function that says whether a folder has files of all these names, or patterns."""
    return lambda folder: all(any(folder.glob(file)) for file in files)


def _deployment(folder: Path) -> Report:
    from memento_puffer.deployment.deploy import Deployment  # needs torch

    return of_deployment(folder, Deployment(folder).table())


REPORTS = Reports(
    kinds={
        "deployment": Kind("memento puffer deploy init", _holds("deployment.json"), _deployment),
        "demo": Kind(
            "memento demo --out", _holds("summary.json", "steps.csv"), of_demo, "comparison.html"
        ),
        "analysis": Kind(
            "memento puffer analyze --out",
            _holds("deployment.csv", "daily.parquet"),
            of_analysis,
            "comparison.html",
        ),
        "replay": Kind("memento puffer replay --out", _holds("*/replay.json"), of_replay),
    },
    experiments={
        "puffer-replay": experiments.replays,
        "puffer-analysis": experiments.analyses,
        "puffer-deployment": experiments.deployments,
        "demo": experiments.demos,
    },
    text=(NOTE, CONDITIONS),
)
"""Demos and analyses come with a ``report.html`` of their own, hence the other name."""
