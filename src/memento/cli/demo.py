"""`memento demo`: two weeks of the daily loop, end to end, with a report."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memento.errors import MissingExtraError, SettingError
from memento.files import atomic_write, storage_errors

if TYPE_CHECKING:
    from memento.cases.puffer.demo import ArmResult
    from memento.loop import Step

__all__ = ["demo"]


def demo(
    days: Annotated[int, typer.Option(help="Days of the stream, at least 3.")] = 14,
    out: Annotated[Path, typer.Option(help="Folder for the report, its charts and tables.")] = Path(
        "demo"
    ),
    traces: Annotated[
        list[str] | None,
        typer.Option(
            help="Parquet files with columns trace_id, seconds, rate [MB/s], consecutive periods; "
            "all words that follow are files. Default: a synthetic population of network paths."
        ),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    chunks: Annotated[int, typer.Option(help="Chunks a day of the synthetic population.")] = 60_000,
    capacity: Annotated[
        int | None, typer.Option(help="Samples in memory. Default: a third of a day.")
    ] = None,
    retrain: Annotated[
        str, typer.Option(help="coverage: retrain when coverage has risen; always: every day.")
    ] = "coverage",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; arms run side by side.")] = 2,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one JSON object on standard output.")
    ] = False,
) -> None:
    """Run two weeks of the daily loop and compare what memories are worth.

    Each day samples come in, the memory selects, coverage is compared, a network that predicts
    transmission times is retrained when due and evaluated on the next day: with Memento, with the
    density reservoir, with a random memory of equal size, and trained once on day 1.
    """
    from memento.cases.puffer import demo as case

    if days < 3:
        raise SettingError(f"--days is {days}; at least 3 are needed to compare anything")
    if seed < 0:
        raise SettingError(f"--seed is {seed}; expected 0 or more")
    if more and not traces:
        raise SettingError(f"unexpected argument {more[0]!r}; files of traces follow --traces")
    if retrain not in ("coverage", "always"):
        raise SettingError(f'--retrain is {retrain!r}; expected "coverage" or "always"')
    files = [*(traces or []), *(more or [])]
    for package, extra in (("torch", "torch"), ("matplotlib", "figures")):
        if importlib.util.find_spec(package) is None:  # now, rather than after minutes of work
            raise MissingExtraError(package, extra, "memento demo")
    with storage_errors("make the folder", out):
        out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="memento-demo-") as folder:
        sizes = _prepare(files, days, chunks, seed, Path(folder))
        room = capacity if capacity is not None else sum(sizes.values()) // (3 * len(sizes))
        results = _compare(Path(folder), room, retrain, seed, workers, len(sizes))
    tables = {reference: case.summary(results, reference) for reference in case.REFERENCES}
    source = ", ".join(Path(file).name for file in files) or f"synthetic paths, seed {seed}"
    facts = (
        f"{len(sizes)} days of {min(sizes.values()):,} to {max(sizes.values()):,} samples "
        f"({source}); memories of {room:,} samples."
    )
    _write(out, facts, tables, results)
    _show(facts, tables, results, out, time.monotonic() - started)
    if as_json:
        keys = (*_SCORES, "retrained")
        arms = {n: {key: row[key] for key in keys} for n, row in tables["static"].items()}
        typer.echo(json.dumps({"arms": arms}))


def _prepare(
    files: Sequence[str], days: int, chunks: int, seed: int, folder: Path
) -> dict[str, int]:
    from memento.cases.puffer import demo as case
    from memento.cases.puffer.traces import Population, Shift
    from memento.cases.puffer.traces import days as days_of

    # Two scripted shifts on top of the drift, so that there is something to notice.
    shifts = (Shift.new_access(days * 5 // 14), Shift.halved_capacity(days * 10 // 14))
    source = files or Population(seed=seed, chunks=chunks, shifts=shifts)
    sizes = {}
    with _progress() as bar:
        task = bar.add_task("preparing the days", total=days)
        for name, size in case.prepare(days_of(source, days), folder):
            sizes[name] = size
            bar.advance(task)
    return sizes


def _compare(
    folder: Path, capacity: int, retrain: str, seed: int, workers: int, days: int
) -> dict[str, ArmResult]:
    from memento.cases.puffer import demo as case

    with _progress() as bar:
        tasks = {name: bar.add_task(name, total=days) for name in case.ARMS}
        return case.compare(
            folder,
            capacity=capacity,
            retrain=retrain,
            seed=seed,
            workers=workers,
            on_step=lambda name, step: bar.advance(tasks[name]),
        )


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    # On standard error, so that --json leaves standard output to programs.
    return Progress(
        TextColumn("{task.description:20s}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


_SCORES = ("p01", "median", "mean")


def _rows(table: Mapping[str, Mapping[str, float]], reference: str) -> list[list[str]]:
    """Differences to a reference, with their standard errors, as text."""
    rows = []
    for name, row in table.items():
        if name != reference:
            changes = [f"{row[s]:+.3f} ± {row[f'{s}_error']:.3f}" for s in _SCORES]
            rows.append([name, *changes])
    return rows


def _trainings(results: Mapping[str, ArmResult]) -> list[list[str]]:
    return [
        [
            name,
            str(sum(step.trained for step in result.steps)),
            _ranges(result),
            _middle(step.decision.value for step in result.steps if _compared(step)),
            _middle(step.decision.noise for step in result.steps if _compared(step)),
        ]
        for name, result in results.items()
    ]


def _compared(step: Step) -> bool:
    """Whether the step's decision rests on a comparison of coverage."""
    return not math.isnan(step.decision.noise)


def _middle(values: Iterable[float]) -> str:
    """Median and range."""
    found = sorted(values)
    if not found:
        return ""
    return f"{statistics.median(found):.3f} ({found[0]:.3f}-{found[-1]:.3f})"


_TRAININGS = ("arm", "trainings", "on days", "coverage increase", "its noise (95 %)")


def _ranges(result: ArmResult) -> str:
    """Days of training, neighbours joined: 1-3, 7."""
    ranges: list[list[int]] = []
    for day in (step.unit + 1 for step in result.steps if step.trained):
        if ranges and day == ranges[-1][1] + 1:
            ranges[-1][1] = day
        else:
            ranges.append([day, day])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)


def _write(
    out: Path,
    facts: str,
    tables: Mapping[str, Mapping[str, Mapping[str, float]]],
    results: Mapping[str, ArmResult],
) -> None:
    from memento.cases.puffer.demo import THRESHOLD
    from memento.loop import table
    from memento.report import figures, page

    static = [step for step in results["static"].steps if step.evaluated_on is not None]
    names = [str(step.evaluated_on) for step in static]
    changes, trained = {}, {}
    for name, result in results.items():
        own = result.steps[: len(static)]
        changes[name] = {
            score: [a.scores[score] - b.scores[score] for a, b in zip(own, static, strict=True)]
            for score in ("p01", "median")
        }
        trained[name] = [step.trained for step in own]
    compared = [n for n in results if n not in ("static", "random")]
    all_days = [step.name for step in results["static"].steps]
    with storage_errors("write the results", out):
        figures.scores(out / "scores.png", names, changes, trained, "static")
        figures.coverage(
            out / "coverage.png",
            all_days,
            {n: [step.decision.value for step in results[n].steps] for n in compared},
            {n: [step.decision.noise for step in results[n].steps] for n in compared},
            {n: [step.trained for step in results[n].steps] for n in compared},
            THRESHOLD,
        )
        kept = [n for n in results if n != "static"]
        figures.composition(
            out / "memory.png",
            all_days,
            {n: results[n].ages.tolist() for n in kept},
            {n: results[n].classes.tolist() for n in kept},
        )
        steps = {n: table(result.steps) for n, result in results.items()}
        columns = list(dict.fromkeys(c for found in steps.values() for c in found))
        lines = [",".join(["arm", *columns])]
        for name, found in steps.items():
            for i in range(found.size):
                cells = [found[c][i] if c in found else "" for c in columns]
                lines.append(",".join([name, *(_cell(cell) for cell in cells)]))
        atomic_write(out / "steps.csv", ("\n".join(lines) + "\n").encode())
        summary = {"facts": facts, "arms": tables["static"], "against": tables}
        atomic_write(out / "summary.json", json.dumps(summary, indent=1).encode())
    page.write_page(
        out / "report.html",
        "Two weeks of the daily loop",
        [
            facts,
            *(
                page.Table(_header(reference), _rows(found, reference), _CAPTION)
                for reference, found in tables.items()
            ),
            page.Table(
                _TRAININGS,
                _trainings(results),
                "Relative coverage increase since the last training and its noise, median (range) "
                "over days.",
            ),
            page.Picture(out / "scores.png", "Log scores as difference to the model of day 1."),
            page.Picture(out / "coverage.png", "Coverage increase since the last training."),
            page.Picture(out / "memory.png", "What the memories hold after the last day."),
        ],
    )


def _cell(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text


_CAPTION = (
    "Log scores on the following day in nats, mean over days ± standard error over days. "
    "Tail: the 1st percentile. Above 0 is better than the reference."
)


def _header(reference: str) -> tuple[str, ...]:
    return (f"against {reference}", "tail", "median", "mean")


def _show(
    facts: str,
    tables: Mapping[str, Mapping[str, Mapping[str, float]]],
    results: Mapping[str, ArmResult],
    out: Path,
    seconds: float,
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    console.print(facts)
    blocks = [(_header(name), _rows(found, name)) for name, found in tables.items()]
    for header, rows in (*blocks, (_TRAININGS, _trainings(results))):
        shown = Table(show_edge=False, pad_edge=False)
        for i, name in enumerate(header):
            shown.add_column(name, justify="left" if i == 0 or name == "on days" else "right")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
        console.print()
    console.print(_CAPTION, style="dim")
    console.print(f"{seconds:.0f} s; the report is in {out / 'report.html'}")
