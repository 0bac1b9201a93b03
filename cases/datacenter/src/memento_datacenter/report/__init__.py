"""Pages of what the case leaves behind, found by `memento report`."""

from __future__ import annotations

from memento.report.kinds import Kind, Reports
from memento_datacenter.report.scenarios import of_datacenter, replays
from memento_datacenter.report.simulations import of_simulations

__all__ = ["REPORTS"]

REPORTS = Reports(
    kinds={
        "datacenter": Kind(
            "memento datacenter replay --out",
            lambda folder: (folder / "iterations.csv").is_file(),
            of_datacenter,
        ),
        "simulations": Kind(
            "memento datacenter simulate --to",
            lambda folder: any(folder.glob("*/run-*.npz")),
            of_simulations,
        ),
    },
    experiments={"datacenter-replay": replays},
)
