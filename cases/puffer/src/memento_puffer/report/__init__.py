"""Pages of what the case leaves behind, found by `memento report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from memento.report.kinds import Kind, Reports
from memento.report.sections import Report
from memento_puffer.deployment.record import read_record
from memento_puffer.deployment.tree import is_tree, read_densities
from memento_puffer.report import experiments
from memento_puffer.report.deployments import deployment_section, of_deployment
from memento_puffer.report.published import CONDITIONS, NOTE, RECORD_PERIOD
from memento_puffer.report.replays import of_replay
from memento_puffer.report.viewers import of_analysis, of_demo

__all__ = ["REPORTS"]


def _holds(*files: str) -> Callable[[Path], bool]:
    """A function that says whether a folder has files of all these names, or patterns."""
    return lambda folder: all(any(folder.glob(file)) for file in files)


def _deployment(folder: Path) -> Report:
    from memento_puffer.deployment.deploy import Deployment  # needs torch

    return of_deployment(folder, Deployment(folder).table())


def _record(folder: Path) -> Report:
    gaps: list[str] = []
    days = read_record(folder, gaps.append)
    densities = read_densities(folder, RECORD_PERIOD[1])
    title = "The deployment on Puffer"
    section = deployment_section("deployment", days, record=True, densities=densities, title=title)
    return Report("record", folder, "The published deployment", [NOTE, *gaps], [section])


def _week(folder: Path) -> Report:
    """What the steps of the paper's demo left so far."""
    parts = {"analysis": of_analysis, "replay": of_replay}
    there = [open_(folder / name) for name, open_ in parts.items() if _HAVE[name](folder / name)]
    sections = [section for report in there for section in report.sections]
    missing = {n: f"memento demo {n} --out {folder}" for n in parts if not _HAVE[n](folder / n)}
    title = "The week of the paper's demo, 2023-07-03 to 2023-07-09"
    return Report("week", folder, title, [NOTE, CONDITIONS], sections, missing)


_HAVE = {
    "analysis": _holds("deployment.csv", "daily.parquet"),
    "replay": _holds("tables/steps.csv"),
}

REPORTS = Reports(
    kinds={
        "deployment": Kind("memento puffer deploy init", _holds("deployment.json"), _deployment),
        "demo": Kind(
            "memento demo --out", _holds("summary.json", "steps.csv"), of_demo, "comparison.html"
        ),
        "analysis": Kind(
            "memento puffer analyze --out",
            _HAVE["analysis"],
            of_analysis,
            "comparison.html",
        ),
        "week": Kind(
            "memento demo analysis --out",
            lambda folder: any(has(folder / name) for name, has in _HAVE.items()),
            _week,
        ),
        "replay": Kind("memento puffer replay --out", _holds("*/replay.json"), of_replay),
        "record": Kind(
            "the paper's artefact (results/memento-deployment)",
            is_tree,
            _record,
            "-report.html",
        ),
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
