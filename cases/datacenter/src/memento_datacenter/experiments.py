"""Experiments of the data-centre case: every scenario with every memory, and the searches.

`memento run datacenter-replay 'congestion-*' -j 2` runs some of them. They read simulated runs from
``simulated/``, made with `memento datacenter simulate`; another folder is given with the parameter
``runs``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from memento.runner.spec import Experiment, Resources, Run
from memento_datacenter.replay import replay
from memento_datacenter.scenarios import MEMORIES, SCENARIOS, TASKS, Plan, memories_of
from memento_datacenter.scenarios import scenario as scenario_of
from memento_datacenter.tuning import Search

__all__ = ["PACKAGES", "TABLE", "declared", "experiments", "replaying", "tuning"]

# What groups need beyond the library, by the beginnings of their names.
PACKAGES = {
    "datacenter-tuning": ("torch", "optuna"),
    "datacenter-": ("torch", "matplotlib"),
}
#: The table of a replay.
TABLE = "iterations.csv"

SEEDS = range(5)


def experiments() -> Iterator[Experiment]:
    """All of them."""
    for name in SCENARIOS:
        for seed in SEEDS:
            for memory in memories_of(scenario_of(name).task):
                yield declared(name, memory, seed, "simulated", {})
    larger = {"capacities": {"congestion": 80_000}}
    for memory in ("memento", "memento-T0", "random", "fifo"):
        for seed in SEEDS:
            one = declared("congestion", memory, seed, "simulated", larger)
            yield replace(one, name=f"congestion-80000-{memory}-{seed}", on_demand=True)
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


def declared(
    scenario: str, memory: str, seed: int, runs: str, plan: Mapping[str, Any], **made: Any
) -> Experiment:
    """A replay as an experiment; see `replaying` for what it is given."""
    long = scenario == "congestion" or not MEMORIES[memory].published
    return Experiment(
        "datacenter-replay",
        f"{scenario}-{memory}-{seed}",
        "memento_datacenter.experiments:replaying",
        {"scenario": scenario, "memory": memory, "seed": seed, "runs": runs, "plan": plan, **made},
        resources=Resources(memory_GB=4.0, hours=2.0 if long else 0.5),
        files=("{runs}",),
        description=f"{scenario} with the memory {memory}, seed {seed}",
    )


def replaying(
    run: Run,
    *,
    scenario: str,
    memory: str,
    seed: int,
    runs: str,
    plan: Mapping[str, Any],
    made: Mapping[str, Any] | None = None,
) -> None:
    """One replay; writes ``iterations.csv`` with the rows of ``replay.replay``.

    Args:
        run: Its folder of results.
        scenario: One of ``scenarios.SCENARIOS``.
        memory: One of ``scenarios.MEMORIES``.
        seed: Of the replay.
        runs: Folder of simulated runs.
        plan: What differs from the default ``scenarios.Plan``.
        made: How the runs were made; results of other runs are others.
    """
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
    run.write(TABLE, dict(table))


def tuning(run: Run, *, task: Any, trials: int, runs: str) -> None:
    """One search; writes ``trials.csv`` with a row per trial."""
    found = Search(task).run(
        runs,
        run.checkpoint,
        trials,
        progress=run.report,
    )
    run.write("trials.csv", dict(found.table()))
