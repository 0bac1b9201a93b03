"""Scenarios with memories and seeds: many replays, each once, in as many processes as wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from memento.arguments import require, whole
from memento.errors import ForeignError, SettingError
from memento.runner.spec import Experiment
from memento.samples import Samples
from memento.study import read_results, run_all
from memento.study.runs import Progress
from memento_datacenter import experiments
from memento_datacenter.replay import described, runs_of
from memento_datacenter.scenarios import MEMORIES, SCENARIOS, Plan, memories_of, scenario
from memento_datacenter.schema import Runs
from memento_datacenter.scores import stacked

__all__ = ["compare", "joined"]


def compare(
    runs: str | Path,
    results: str | Path,
    scenarios: Iterable[str] = SCENARIOS,
    memories: Iterable[str] | None = None,
    seeds: Iterable[int] = (0,),
    plan: Plan | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Samples:
    """Replay scenarios with memories and seeds; what is in the folder is not done again.

    Args:
        runs: Folder of simulated runs.
        results: Folder for results, in the layout of experiments.
        scenarios: Which ones, of `SCENARIOS`.
        memories: Which ones, of `MEMORIES`; all that apply to a scenario if None. Of those given,
            the ones that do not apply are left out.
        seeds: Each gives a replay of its own.
        plan: ``Plan()`` if None.
        jobs: Processes at a time; results do not depend on it.
        progress: Called with (done, total, what was last) at the beginning and after each
            iteration; both count the iterations of all replays.

    Returns:
        The rows of all replays, as `replay` gives them; columns that a task has not are NaN.

    Raises:
        SettingError: A name that is unknown or given twice, a seed below 0, no process, or nothing
            to do.
        StorageError: A run is missing, or a folder cannot be written to.
        ForeignError: A result that is there was made in another way or from other runs; or runs of
            one replay were made in different ways.
        DamagedError: A result that is there is damaged, or a run.
    """
    plan = Plan() if plan is None else plan
    require("jobs", jobs, whole())
    asked = _experiments(list(scenarios), memories, list(seeds), plan, Path(runs))
    root = Path(results)
    if any(found := [p for name in SCENARIOS for p in (root / name).glob("*-*.json")]):
        raise ForeignError(
            f"{found[0]}: a result of an earlier version, which this one does not read; give "
            "another folder, or remove the results that are there"
        )
    length = {one.key: len(scenario(one.parameters["scenario"], plan.phase)) for one in asked}
    order = list(asked)
    if jobs > 1:  # so that no long one is left for a single process at the end
        order.sort(key=_longest_first)
    outputs = run_all(
        order, root, workers=jobs, places=("runs",), lengths=length, progress=progress
    )
    return joined([outputs[one.key] for one in asked])


def joined(folders: Iterable[Path]) -> Samples:
    """The rows of several replays, from their folders; columns that one has not are NaN."""
    return stacked([read_results(folder, experiments.TABLE) for folder in folders])


def _experiments(
    scenarios: Sequence[str],
    memories: Iterable[str] | None,
    seeds: Sequence[int],
    plan: Plan,
    runs: Path,
) -> list[Experiment]:
    """What `compare` replays, checked: scenario by scenario, seed by seed."""
    wanted = tuple(memories) if memories is not None else tuple(MEMORIES)
    for memory in wanted:
        plan.policy(memory, "classification")
    for what, given, example in (
        ("scenarios", scenarios, ", ".join(SCENARIOS)),
        ("memories", wanted, ", ".join(MEMORIES)),
        ("seeds", seeds, "0"),
    ):
        if not given:
            raise SettingError(f"no {what}; name at least one, such as {example}")
        if len(set(given)) < len(given):
            raise SettingError(f"{what} {', '.join(map(str, given))}; name each once")
    for seed in seeds:
        require("seed", seed, whole(0))
    shifts = [scenario(name, plan.phase) for name in scenarios]
    packets, made = Runs(runs), []
    known: dict[tuple[str, int], dict[str, Any]] = {}
    applying = {s.name: [m for m in wanted if m in memories_of(s.task)] for s in shifts}
    if not any(applying.values()):
        raise SettingError(
            f"memories {', '.join(wanted)} need classes, and {', '.join(scenarios)} has none; "
            f"give some of {', '.join(memories_of('regression'))}"
        )
    shifts = [shift for shift in shifts if applying[shift.name]]
    packets.require(
        sorted({one for s in shifts for seed in seeds for one in runs_of(s, plan, seed)})
    )
    for shift in shifts:
        for seed in seeds:
            about: dict[str, Any] = {
                "plan": plan.document(),
                "made": described(packets, shift, plan, seed, known),
            }
            made += [
                experiments.declared(shift.name, memory, int(seed), str(runs), **about)
                for memory in applying[shift.name]
            ]
    return made


def _longest_first(one: Experiment) -> tuple[int, int]:
    name, memory = one.parameters["scenario"], one.parameters["memory"]
    return -SCENARIOS.index(name), -MEMORIES[memory].minutes
