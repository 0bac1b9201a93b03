"""Experiments of the data-centre case: every scenario with every memory, and the searches.

`memento run datacenter-replay 'congestion-*' -j 2` runs some of them. They read simulated runs from
``simulated/``, made with `memento datacenter simulate`; another folder is given with the parameter
``runs``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memento.runner.spec import Experiment, Resources, Run
from memento_datacenter.replay import (
    PEERS,
    SCENARIOS,
    Plan,
    memories_of,
    replay,
)
from memento_datacenter.replay import scenario as scenario_of
from memento_datacenter.tuning import TASKS, Search

__all__ = ["PACKAGES", "experiments", "replaying", "tuning"]

# What groups need beyond the library, by the beginnings of their names.
PACKAGES = {
    "datacenter-tuning": ("torch", "optuna"),
    "datacenter-": ("torch", "matplotlib"),
}

SEEDS = range(5)


def experiments() -> Iterator[Experiment]:
    """All of them."""
    for name in SCENARIOS:
        task = scenario_of(name).task
        for seed in SEEDS:
            for memory in memories_of(task):
                yield Experiment(
                    "datacenter-replay",
                    f"{name}-{memory}-{seed}",
                    ":replaying",
                    {
                        "scenario": name,
                        "memory": memory,
                        "seed": seed,
                        "runs": "simulated",
                        "plan": {},
                    },
                    resources=Resources(
                        memory_GB=4.0, hours=2.0 if name == "congestion" or memory in PEERS else 0.5
                    ),
                    files=("{runs}",),
                    description=f"{name} with the memory {memory}, seed {seed}",
                )
    for task in TASKS:
        yield Experiment(
            "datacenter-tuning",
            task,
            ":tuning",
            {"task": task, "trials": 100, "runs": "simulated"},
            resources=Resources(memory_GB=4.0, hours=12.0),
            files=("{runs}",),
            description=f"layers, units and learning rate of the network for {task}",
        )


def replaying(
    run: Run, *, scenario: str, memory: str, seed: int, runs: str, plan: Mapping[str, Any]
) -> None:
    """One replay; writes ``iterations.csv`` with the rows of ``replay.replay``."""
    chosen = Plan.from_document(plan)
    total = len(scenario_of(scenario, chosen.phase))
    table = replay(
        scenario,
        memory,
        runs,
        seed,
        chosen,
        checkpoint=run.checkpoint / "loop",
        on_step=lambda step: run.report(step.unit + 1, total, step.name),
    )
    run.write("iterations.csv", dict(table))


def tuning(run: Run, *, task: Any, trials: int, runs: str) -> None:
    """One search; writes ``trials.csv`` with a row per trial."""
    found = Search(task).run(
        runs,
        run.checkpoint,
        trials,
        progress=lambda done, total, trial: run.report(done, total, "trials"),
    )
    run.write("trials.csv", dict(found.table()))
