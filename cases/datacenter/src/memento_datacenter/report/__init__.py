"""Pages of what the case leaves behind, found by `memento report`."""

from __future__ import annotations

from memento.report.kinds import Kind, Reports
from memento_datacenter.report.scenarios import of_datacenter

__all__ = ["REPORTS"]

REPORTS = Reports(
    kinds={
        "datacenter": Kind(
            "memento datacenter replay --out",
            lambda folder: (folder / "iterations.csv").is_file(),
            of_datacenter,
        )
    }
)
