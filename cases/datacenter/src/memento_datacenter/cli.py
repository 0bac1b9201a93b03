"""`memento datacenter`: simulated traffic of a data centre, and memories compared on its shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from memento.cli import packages, ui
from memento.cli.commands import Commands
from memento.cli.options import AsJson
from memento.errors import SettingError
from memento.files import storage_errors

if TYPE_CHECKING:
    from memento.samples import Samples
    from memento_datacenter.scenarios import Plan
    from memento_datacenter.workloads import Workload

__all__ = ["app"]

packages.declare(
    {
        "datacenter simulate": (),
        "datacenter replay": ("torch", "matplotlib"),
        "datacenter tune": ("torch", "optuna"),
    }
)

app = Commands(
    help="Data-centre traffic: simulations with ns-3, and memories compared on its shifts.",
    no_args_is_help=True,
)

# -------------------------------------------------------------------------------------- simulate


@app.command()
def simulate(
    setting: Annotated[list[str] | None, typer.Argument()] = None,
    runs: str = "0-21",
    to: Path = Path("simulated"),
    messages: str = "buffered",
    seconds: float = 60.0,
    start_window: float | None = None,
    sizes: list[str] | None = None,
    recorded: list[str] | None = None,
    seed: int = 1,
    jobs: int = 1,
    as_json: AsJson = False,
) -> None:
    """Simulate runs with ns-3; those that are there are kept, so a call goes on where it was.

    Args:
        setting: A workload, alone or with the load of the bottleneck: w1, w2_c100, w3_c133.
            Default: the nine that the scenarios need.
        runs: Numbers of runs of each setting.
        to (DIR): A folder for each setting is made in it.
        messages: What becomes of messages larger than the send buffer: buffered, as with any
            application; or refused, as in the paper's data.
        seconds: Length of a run; senders start from 1 s on.
        start_window: Seconds in which senders start, at uniform times, each offering less the
            shorter it is. Default: up to the end. 1 gives the sample counts of the paper's data.
        sizes (NAME=FILE): A further workload, from a file in the format of Homa's simulator.
            Repeatable.
        recorded (NAME=FILE): A further workload, from recorded message sizes in bytes, one a line.
            Repeatable.
        seed: Of all random numbers, from 1.
        jobs (-j): Processes at a time.

    Example:
        memento datacenter simulate --to simulated -j 2
    """
    from memento_datacenter import simulate as case
    from memento_datacenter.schema import Run

    workloads = _workloads(sizes or (), recorded or ())
    chosen = case.settings(setting or case.SETTINGS, workloads)
    numbers = case.run_numbers(runs, "--runs")
    first, longest = case.Network.start, 1e6
    if not first < seconds <= longest:
        raise SettingError(
            f"--seconds {seconds:g}; senders start from {first:g} s on, so give a number above "
            f"that, up to {longest:,.0f}"
        )
    network = case.Network(messages=messages, end=seconds, start_window=start_window)
    with ui.stoppable(), ui.progress_of("simulate", width=32) as progress:
        paths = case.simulate(chosen, numbers, to, network, seed=seed, jobs=jobs, progress=progress)
    rows = []
    for chosen_setting, start in zip(chosen, range(0, len(paths), len(numbers)), strict=True):
        abouts = [Run.describe(path) for path in paths[start : start + len(numbers)]]
        rows.append(
            {
                "setting": chosen_setting.name,
                "runs": len(abouts),
                "packets": float(np.mean([about["packets"] for about in abouts])),
                "ns3": abouts[0].get("ns3"),
                "messages": messages,
            }
        )
    ui.show(
        ("setting", "runs", "packets a run", "ns-3", "messages"),
        [[f"{v:,.0f}" if k == "packets" else v for k, v in row.items()] for row in rows],
    )
    ui.answer(as_json, {"folder": str(to), "settings": rows})


def _workloads(sizes: Sequence[str], recorded: Sequence[str]) -> dict[str, Workload]:
    from memento_datacenter.workloads import Workload, published

    given = [("--sizes", text) for text in sizes] + [("--recorded", text) for text in recorded]
    workloads: dict[str, Workload] = {}
    for label, (option, text) in enumerate(given, len(published()) + 1):
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise SettingError(f"{option} {text!r}; give NAME=FILE")
        if name in published() or name in workloads:
            raise SettingError(f"{option} {text!r}: there is a workload {name!r} already")
        read = Workload.read if option == "--sizes" else Workload.read_messages
        workloads[name] = read(file, label=label, name=name)
    return workloads


# ---------------------------------------------------------------------------------------- replay


@dataclass(frozen=True)
class PlanOptions:
    """How a scenario is replayed.

    Attributes:
        stride: Keep every so-manieth sample; memories and batches shrink alike.
        capacity (SCENARIO=SAMPLES): Instead of 20,000, 20,000, 60,000. Repeatable.
        network (--as): memento or paper: how networks are trained.
        epochs: Of each training. Default: the task's own.
        standardise: Delays are learned from centred and scaled inputs, not from bytes and seconds
            as in the paper: about half of the error, and little to gain by choosing.
        reduced: Few short runs (2 to 7), short phases, small windows and memories.
    """

    stride: int = 1
    capacity: list[str] | None = None
    network: str = "memento"
    epochs: int | None = None
    standardise: bool = False
    reduced: bool = False


@app.command("replay")
def replay_(
    planning: PlanOptions,
    scenario: Annotated[list[str] | None, typer.Argument()] = None,
    source: Path = Path("simulated"),
    out: Path = Path("replayed"),
    memories: str | None = None,
    seeds: str = "0",
    jobs: int = 1,
    as_json: AsJson = False,
) -> None:
    """Compare memories on traffic that shifts; what was replayed before is not replayed again.

    Args:
        scenario: rare-patterns, incremental, congestion. Default: all.
        source (--from DIR): Where `memento datacenter simulate` wrote.
        out (DIR): Receives results, tables and figures.
        memories: Which, with commas between. Default: all that apply to a scenario.
        seeds: Such as 0-4. Each is a replay of its own.
        jobs (-j): Processes at a time.

    Example:
        memento datacenter replay rare-patterns --stride 4 --seeds 0-4 -j 2
    """
    from memento_datacenter import scores
    from memento_datacenter.comparison import compare
    from memento_datacenter.scenarios import MEMORIES, SCENARIOS
    from memento_datacenter.simulate import run_numbers

    plan = _plan(planning)
    chosen = None if memories is None else [m.strip() for m in memories.split(",") if m.strip()]
    if chosen == []:
        raise SettingError(f"--memories {memories!r}; give some of {','.join(MEMORIES)}")
    numbers = run_numbers(seeds, "--seeds")
    with ui.stoppable(), ui.progress_of("replay", width=32) as progress:
        table = compare(
            *(source, out, scenario or SCENARIOS, chosen, numbers, plan),
            jobs=jobs,
            progress=progress,
        )
    made = {
        "summary": scores.summary(table),
        "held": scores.composition(table),
        "targets": scores.targets(table),
    }
    files = _write(out, table, made)
    _show_summary(made["summary"], made["held"])
    rows = {name: ui.rows(columns) for name, columns in made.items()}
    _show_targets(made["targets"])
    ui.say(f"tables and figures are in {out}", err=True)
    notes = [_NOTE_OF_REDUCED] if planning.reduced else []
    for note in notes:
        ui.say(f"note: {note}", err=True)
    ui.answer(as_json, {**rows, "notes": notes, "files": [str(file) for file in files]})


_NOTE_OF_REDUCED = (
    "reduced replays show that everything works; which memory is best they do not: in incremental "
    "Memento may come behind a random memory here, and is ahead of it with all samples"
)


def _plan(options: PlanOptions) -> Plan:
    """The plan that the options ask for.

    Raises:
        SettingError: No such network, or a capacity that is no number.
    """
    from memento_datacenter import models
    from memento_datacenter.scenarios import REDUCED, Plan

    plan = REDUCED if options.reduced else Plan()
    classification, regression = plan.classification, plan.regression
    if options.network not in ("memento", "paper"):
        raise SettingError(f"--as {options.network}; give memento or paper")
    if options.network == "paper":
        classification = models.PUBLISHED_CLASSIFICATION
        regression = models.PUBLISHED_REGRESSION
    if options.epochs is not None:
        classification = replace(classification, epochs=options.epochs)
        regression = replace(regression, epochs=options.epochs)
    if options.standardise:
        regression = replace(regression, standardise=True)
    capacities = dict(plan.capacities)
    for text in options.capacity or ():
        name, _, number = text.partition("=")
        if not number.isdecimal():
            raise SettingError(f"--capacity {text!r}; give SCENARIO=SAMPLES")
        capacities[name] = int(number)
    return replace(
        plan,
        stride=options.stride,
        capacities=capacities,
        classification=classification,
        regression=regression,
    )


def _write(out: Path, table: Samples, made: Mapping[str, Samples]) -> list[Path]:
    """Tables and figures; returns their files."""
    from memento.cli import tables
    from memento_datacenter import scores
    from memento_datacenter.report import figures

    files = []
    with storage_errors("write tables and figures", out):
        out.mkdir(parents=True, exist_ok=True)
        for name, columns in {"iterations": table, **made}.items():
            if columns.size:
                files.append(out / f"{name}.csv")
                tables.write(files[-1], columns)
        for scenario in dict.fromkeys(table["scenario"].tolist()):
            iterations = table.take(np.flatnonzero(table["scenario"] == scenario))
            delays = scenario == "congestion"
            course = scores.courses(iterations, "error_p99" if delays else "balanced_accuracy")
            rises = scores.courses(iterations, "rci")
            files.append(out / f"{scenario}.png")
            figures.shift(
                files[-1],
                course,
                ylabel="99th percentile of the error (ms)" if delays else "balanced accuracy",
                title=scenario.replace("-", " "),
                rises=rises if rises.size else None,
                scale=1e3 if delays else 1.0,
            )
        files.append(out / "held.png")
        figures.held(files[-1], made["held"], title="in memory after the last iteration")
    return files


def _show_summary(summary: Samples, held: Samples) -> None:
    """A table for each scenario: memories by scores and by what they hold."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    for row in ui.rows(summary):
        half = "" if row["low"] is None else f" ± {(row['high'] - row['low']) / 2:.3g}"
        scores_of = cells.setdefault(row["scenario"], {}).setdefault(row["memory"], {})
        scores_of[row["score"]] = f"{row['value']:.3g}{half}"
    for row in ui.rows(held):
        cells[row["scenario"]][row["memory"]][row["workload"]] = f"{row['value']:,.0f}"
    for scenario, rows in cells.items():
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        ui.show(
            (scenario, *names), [[m, *(row.get(n, "") for n in names)] for m, row in rows.items()]
        )


def _show_targets(targets: Samples) -> None:
    cells = [
        [
            target,
            *(f"{number:.3f} {unit}".rstrip() for number in numbers),
            "yes" if holds else "no",
        ]
        for target, *numbers, unit, holds in zip(
            *(targets[c].tolist() for c in targets), strict=True
        )
    ]
    ui.show(("target", "measured", "bound", "holds"), cells)


# ------------------------------------------------------------------------------------------ tune


@app.command()
def tune(
    task: Annotated[list[str] | None, typer.Argument()] = None,
    source: Path = Path("simulated"),
    out: Path = Path("tuned"),
    trials: int = 100,
    splits: int = 5,
    samples: int = 2000,
    setting: list[str] | None = None,
    layers: str = "3-10",
    units: str = "128-512",
    window: int = 128,
    epochs: int | None = None,
    seed: int = 0,
    as_json: AsJson = False,
) -> None:
    """Search layers, units and learning rate with Optuna, on run 0; stopped searches go on.

    Args:
        task: classification, regression. Default: both.
        source (--from DIR): Where `memento datacenter simulate` wrote.
        out (DIR): Receives trials; those that are there count.
        trials: How many there are to be in the end.
        splits: Random splits that a trial is judged on.
        samples: From each setting.
        setting: Runs of this setting. Repeatable. Default: all nine.
        layers: Least and most.
        units: Least and most.
        window: Packets that a sample sees.
        epochs: Of each training. Default: the task's own.
        seed: Of splits, trials and networks.

    Example:
        memento datacenter tune classification
    """
    from memento_datacenter.scenarios import TASKS
    from memento_datacenter.simulate import SETTINGS
    from memento_datacenter.tuning import Search

    outcomes: dict[str, Any] = {}
    searches = []
    for name in task or list(TASKS):
        search = Search(
            name,  # type: ignore[arg-type]  # checked there
            layers=_range("--layers", layers),
            units=_range("--units", units),
            splits=splits,
            samples=samples,
            settings=tuple(setting or SETTINGS),
            window=window,
            seed=seed,
        )
        if epochs is not None:
            search = replace(search, base=replace(TASKS[search.task], epochs=epochs))
        searches.append(search)
    for search in searches:
        with ui.stoppable(), ui.progress_of(search.task, width=32) as progress:
            tuned = search.run(source, out, trials, progress=progress)
        outcomes[search.task] = {
            "trials": len(tuned.trials),
            "best": tuned.best.number,
            "loss": tuned.best.loss,
            **tuned.best.searched,
        }
    ui.show_rows([{"task": task, **row} for task, row in outcomes.items()])
    ui.answer(as_json, outcomes)


def _range(option: str, text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        raise SettingError(f"{option} {text!r}; give a range such as 3-10")
    return int(low), int(high or low)
