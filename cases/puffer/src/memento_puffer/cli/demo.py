"""`memento demo`: a week of video streaming, memories compared, and models back in control."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memento.arguments import number, require, whole
from memento.cli import ui
from memento.cli.options import AsJson
from memento.errors import SettingError
from memento.files import atomic_write, storage_errors

if TYPE_CHECKING:
    from memento.loop import Step
    from memento.report.page import Table
    from memento_puffer.studies.closed_loop import ClosedLoop
    from memento_puffer.studies.outcomes import ArmResult, Outcome

__all__ = ["demo"]

ARMS = ("static", "random", "memento", "density-reservoir")
_SCORES = ("p01", "median", "mean")
_IDLE = ("days", "judges", "retrain")  # options that no step of the paper's demo follows


@dataclass(frozen=True)
class DemoOptions:
    """What is streamed, and who chooses.

    Attributes:
        days: Days of telemetry, at least 3.
        viewers: Sessions of a day of telemetry.
        judges: Sessions of the day under control, the same for each predictor.
        capacity: Samples in memory. Default: a third of a day.
        retrain: coverage: retrain when coverage has risen; always: every day.
        seed: Of everything random.
    """

    days: int = 8
    viewers: int = 60
    judges: int = 80
    capacity: int | None = None
    retrain: str = "coverage"
    seed: int = 0


def demo(
    options: DemoOptions,
    more: Annotated[list[str] | None, typer.Argument()] = None,
    out: Path | None = None,
    traces: list[str] | None = None,
    workers: int = 2,
    ask: float = 10.0,
    as_json: AsJson = False,
) -> None:
    """Stream, remember, retrain, and see what viewers get.

    Viewers stream for some days over changing paths. On the first day's telemetry a predictor of
    transmission times is trained. From then on each memory selects from the same telemetry, and its
    predictor is retrained when due: with Memento, the density reservoir, a random memory of equal
    size; and never. In the end each predictor chooses the bitrates for the same viewers of one more
    day.

    A STEP does a part of the paper's own demo instead, over the week 2023-07-03 to 2023-07-09:
    download brings its days, real ones if Puffer's storage answers, else simulated ones; analysis
    says what viewers got; replay compares memories. All three make one page in demo-week.

    Args:
        more (STEP): download, analysis or replay.
        out: Folder for the report, its charts and tables. Default: demo; of a step: demo-week.
        traces: Parquet files with columns trace_id, seconds, rate [MB/s], consecutive periods: real
            paths. All words that follow are files. Default: a synthetic population of paths.
        workers: Processes.
        ask: Seconds that Puffer's storage may take to answer; 0: days are simulated.

    Example:
        memento demo --out demo

        memento demo download && memento demo analysis && memento demo replay
    """
    from memento_puffer.cli.demo_week import STEPS, run_step
    from memento_puffer.studies.outcomes import summary

    require("--days", options.days, whole(3, words="at least 3, to compare anything"))
    require("--workers", workers, whole(words="at least one process"))
    require("--seed", options.seed, whole(0, words="0 or more"))
    require("--ask", ask, number(0, most=600, words="seconds from 0 to 600"))
    if more and not traces and more[0] in STEPS:
        if more[1:]:
            raise SettingError(f"unexpected argument {more[1]!r}; give one step at a time")
        usual = DemoOptions()
        idle = [f"--{n}" for n in _IDLE if getattr(options, n) != getattr(usual, n)]
        idle += ["--workers"] * (workers != 2) + ["--json"] * as_json
        if idle:
            raise SettingError(f"{more[0]} has no use for {', '.join(idle)}; leave that out")
        run_step(more[0], options, out or Path("demo-week"), ask)
        return
    out = out or Path("demo")
    if more and not traces:
        raise SettingError(
            f"unexpected argument {more[0]!r}; a step is one of {', '.join(STEPS)}, and files of "
            "traces follow --traces"
        )
    if options.retrain not in ("coverage", "always"):
        raise SettingError(f'--retrain is {options.retrain!r}; expected "coverage" or "always"')
    files = [*(traces or []), *(more or [])]
    with storage_errors("make the folder", out):
        out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="memento-demo-") as name, ui.Progress() as bar:
        folder = Path(name)

        def report(what: str, done: int, total: int) -> None:
            bar.report(done, total, what)

        loop = _loop(files, options)
        sizes = loop.prepare(folder, workers=workers, report=report)
        if options.capacity is None:
            loop = replace(loop, capacity=sum(sizes) // (3 * len(sizes)))
        results = loop.compare(folder, ARMS, workers=workers, report=report)
        outcome = loop.control(folder, results, workers=workers, report=report)
    tables = {name: summary(results, name) for name in ("static", "random")}
    source = ", ".join(Path(file).name for file in files) or f"synthetic paths, seed {options.seed}"
    facts = (
        f"{len(sizes)} days of {min(sizes):,} to {max(sizes):,} chunks ({source}); memories of "
        f"{loop.capacity:,} samples, one for each of five horizons. Under control: "
        f"{options.judges} viewers, {outcome.hours:,.0f} hours for each predictor."
    )
    parts = _parts(results, tables, outcome)
    _write(out, facts, parts, tables, results, outcome)
    _show(facts, parts, out, time.monotonic() - started)
    if as_json:
        levels = outcome.level_rows()
        arms = {
            name: {
                **{key: row[key] for key in (*_SCORES, "retrained")},
                "stall_ratio": levels[name]["stall_ratio"],
                "ssim": levels[name]["ssim"],
            }
            for name, row in tables["static"].items()
        }
        ui.print_json({"arms": arms})


def _loop(files: Sequence[str], options: DemoOptions) -> ClosedLoop:
    """The comparison that the options ask for: on traces in files, or on paths with two shifts."""
    from memento.retrain import Every, OnCoverage
    from memento_puffer.streaming.traces import Population, Shift
    from memento_puffer.streaming.traces import days as days_of
    from memento_puffer.studies.closed_loop import ClosedLoop

    days = options.days
    # Two scripted shifts on top of the drift, so that there is something to notice.
    shifts = (Shift.new_access(days * 3 // 8), Shift.halved_capacity(days * 6 // 8))
    paths: dict[str, Any] = {"population": Population(seed=options.seed, shifts=shifts)}
    if files:
        paths = {"traces": [traces for _, traces in days_of(list(files), days + 1)]}
    return ClosedLoop(
        **paths,
        days=days,
        viewers=options.viewers,
        judges=options.judges,
        capacity=20_000 if options.capacity is None else options.capacity,
        trigger=OnCoverage(0.05, new_labels=1.0) if options.retrain == "coverage" else Every(1),
        seed=options.seed,
    )


# ---------------------------------------------------------------------------------------- tables


def _parts(
    results: Mapping[str, ArmResult],
    tables: Mapping[str, Mapping[str, Mapping[str, float]]],
    outcome: Outcome,
) -> list[Table]:
    """What page and terminal both show."""
    from memento.report.page import Table

    return [
        Table(
            ("in control", "stalled", "against random", "SSIM", "against random", "own tail"),
            _control_rows(outcome, "random"),
            "Fugu with each predictor, for the same viewers: share of the time spent stalled, "
            "mean SSIM in dB, differences with 95 % intervals over viewers, and the 1st percentile "
            "of the log score on its own chunks.",
        ),
        *(
            Table((f"against {name}", "tail", "median", "mean"), _rows(summary, name), _CAPTION)
            for name, summary in tables.items()
        ),
        Table(
            ("arm", "trainings", "on days", "coverage increase", "its noise (95 %)"),
            _trainings(results),
            "Of the first horizon. Relative coverage increase since the last training and its "
            "noise, median (range) over days.",
        ),
    ]


_CAPTION = (
    "Log scores on the following day in nats, first horizon, mean over days ± standard error over "
    "days. Tail: the 1st percentile. Above 0 is better than the reference."
)


def _control_rows(outcome: Outcome, reference: str) -> list[list[str]]:
    """What viewers got from each predictor, and how that differs from the reference, as text."""
    changes = outcome.difference_rows(reference)

    def change(name: str, what: str) -> str:
        if name not in changes:
            return ""
        value, low, high = changes[name][what]
        return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"

    return [
        [
            name,
            f"{100 * level['stall_ratio']:.3f} %",
            change(name, "stalled"),
            f"{level['ssim']:.2f} dB",
            change(name, "ssim"),
            f"{outcome.scores[name]['p01']:.2f}",
        ]
        for name, level in outcome.level_rows().items()
    ]


def _rows(table: Mapping[str, Mapping[str, float]], reference: str) -> list[list[str]]:
    """Differences to a reference, with their standard errors, as text."""
    return [
        [name, *(f"{row[s]:+.3f} ± {row[f'{s}_error']:.3f}" for s in _SCORES)]
        for name, row in table.items()
        if name != reference
    ]


def _trainings(results: Mapping[str, ArmResult]) -> list[list[str]]:
    return [
        [
            name,
            str(sum(step.trained for step in result.steps[0])),
            _ranges(result.steps[0]),
            _middle(step.decision.value for step in result.steps[0] if _compared(step)),
            _middle(step.decision.noise for step in result.steps[0] if _compared(step)),
        ]
        for name, result in results.items()
    ]


def _compared(step: Step) -> bool:
    """Whether the step's decision rests on a comparison of coverage."""
    return not math.isnan(step.decision.noise)


def _middle(values: Iterable[float]) -> str:
    """Median and range."""
    ordered = sorted(values)
    if not ordered:
        return ""
    return f"{statistics.median(ordered):.3f} ({ordered[0]:.3f}-{ordered[-1]:.3f})"


def _ranges(steps: Sequence[Step]) -> str:
    """Days of training, neighbours joined: 1-3, 7."""
    ranges: list[list[int]] = []
    for day in (step.unit + 1 for step in steps if step.trained):
        if ranges and day == ranges[-1][1] + 1:
            ranges[-1][1] = day
        else:
            ranges.append([day, day])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


# ---------------------------------------------------------------------------------- what is written


def _write(
    out: Path,
    facts: str,
    parts: Sequence[Table],
    tables: Mapping[str, Mapping[str, Mapping[str, float]]],
    results: Mapping[str, ArmResult],
    outcome: Outcome,
) -> None:
    """Figures, tables, the summary and the page, in the folder of results."""
    from memento.cli import tables as tables_on_disk
    from memento.report import page
    from memento.samples import Samples
    from memento_puffer.report import figures

    static = [step for step in results["static"].steps[0] if step.evaluated_on is not None]
    names = [str(step.evaluated_on) for step in static]
    changes, trained = {}, {}
    for name, result in results.items():
        steps = result.steps[0][: len(static)]
        changes[name] = {
            score: [a.scores[score] - b.scores[score] for a, b in zip(steps, static, strict=True)]
            for score in ("p01", "median")
        }
        trained[name] = [step.trained for step in steps]
    compared = [n for n in results if n not in ("static", "random")]
    all_days = [step.name for step in results["static"].steps[0]]
    with storage_errors("write the results", out):
        figures.scores(out / "scores.png", names, changes, trained, "static")
        figures.coverage(
            out / "coverage.png",
            all_days,
            {n: [step.decision.value for step in results[n].steps[0]] for n in compared},
            {n: [step.decision.noise for step in results[n].steps[0]] for n in compared},
            {n: [step.trained for step in results[n].steps[0]] for n in compared},
            _threshold(results, compared),
        )
        kept = [n for n in results if n != "static"]
        figures.composition(
            out / "memory.png",
            all_days,
            {n: results[n].ages.tolist() for n in kept},
            {n: results[n].classes.tolist() for n in kept},
        )
        _draw_outcome(out, outcome)
        tables_on_disk.write(out / "steps.csv", Samples(_steps(results)))
        tables_on_disk.write(out / "streams.csv", outcome.streams)
        summary = {
            "facts": facts,
            "arms": tables["static"],
            "against": tables,
            "control": {"levels": outcome.level_rows(), "scores": outcome.scores,
                        "differences": outcome.difference_rows("random")},
        }  # fmt: skip
        atomic_write(out / "summary.json", json.dumps(summary, indent=1).encode())
    page.write_page(
        out / "report.html",
        "A week of video streaming",
        [
            facts,
            parts[0],
            page.Picture(out / "control.png", "What the same viewers got from each predictor."),
            page.Picture(out / "paired.png", "Differences to the random memory's predictor."),
            *parts[1:],
            page.Picture(out / "scores.png", "Log scores as difference to the first day's model."),
            page.Picture(out / "coverage.png", "Coverage increase since the last training."),
            page.Picture(out / "memory.png", "What the memories hold after the last day."),
        ],
    )


def _threshold(results: Mapping[str, ArmResult], compared: Sequence[str]) -> float:
    known = [s.decision.threshold for n in compared for s in results[n].steps[0] if _compared(s)]
    return known[0] if known else float("nan")


def _draw_outcome(out: Path, outcome: Outcome) -> None:
    from memento.report.figures import forest
    from memento_puffer.report.figures import BETTER, levels_of, trade_off

    title = "Fugu with each predictor"
    trade_off(out / "control.png", levels_of(outcome.levels()), level=0.95, title=title)
    title = "the same viewers under both"
    forest(out / "paired.png", outcome.differences("random"), title=title, better=BETTER)


def _steps(results: Mapping[str, ArmResult]) -> dict[str, list[Any]]:
    """All steps of all arms and horizons as one table."""
    from memento.loop import table

    tables = [
        (name, horizon, table(steps))
        for name, result in results.items()
        for horizon, steps in enumerate(result.steps)
    ]
    columns = list(dict.fromkeys(c for _, _, steps_of in tables for c in steps_of))
    rows: dict[str, list[Any]] = {name: [] for name in ("arm", "horizon", *columns)}
    for name, horizon, steps_of in tables:
        rows["arm"] += [name] * steps_of.size
        rows["horizon"] += [horizon] * steps_of.size
        for column in columns:
            rows[column] += (
                steps_of[column].tolist() if column in steps_of else [""] * steps_of.size
            )
    return rows


def _show(facts: str, parts: Sequence[Table], out: Path, seconds: float) -> None:
    ui.say(facts, err=True)
    for part in parts:
        plain = [i for i, name in enumerate(part.header) if i and name != "on days"]
        ui.print_table(part.header, part.rows, err=True, right=plain)
        ui.say(f"{part.caption}\n", err=True)
    ui.say(f"{seconds:.0f} s; the report is in {out / 'report.html'}", err=True)
