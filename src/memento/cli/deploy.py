"""`memento deploy`: a daily job for cron that keeps any model up to date.

Exit codes of `run`: 0 all that was due is done, also where nothing was; 1 a day failed (the next
run tries it again); 2 wrong use, or the deployment or the model cannot be used: no day was begun.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from memento.cli import exposition, tables, ui
from memento.cli.commands import Commands
from memento.cli.options import AsJson
from memento.deployment import DayRecord, Deployment, from_toml
from memento.deployment.job import files_of
from memento.deployment.models import Models
from memento.errors import SchemaError
from memento.samples import Samples

__all__ = ["app"]

FAILED = 1

app = Commands(
    help="A daily job for any model: it inserts, decides, trains, checks, publishes, rolls back.",
    no_args_is_help=True,
)


@app.command()
def init(state: Path, config: Annotated[Path, typer.Option()], as_json: AsJson = False) -> None:
    """Make a deployment in STATE; settings and model are checked first.

    Args:
        state (STATE): Folder of the deployment.
        config (FILE): Settings in TOML.

    Example:
        memento deploy init state --config deployment.toml
    """
    settings = from_toml(config)
    files = files_of(settings.folder) if settings.folder.is_dir() else {}
    if files:  # the newest day shows whether the settings fit
        samples = _read(files[max(files)][0], settings.data.inputs, settings.labels, ())
    Deployment.create(state, settings)
    if not settings.folder.is_dir():
        ui.warn(f"{settings.folder}, the [data] folder, is not there yet")
    if files:
        for problem in Models(settings).refusals(samples):
            ui.warn(
                f"{files[max(files)][0]}: {problem}; mend the inputs, or the model: a pipeline "
                "with a SimpleImputer takes gaps, one with an encoder texts"
            )
    names = list(settings.variants)
    ui.answer(
        as_json, {"state": str(state), "variants": names}, f"made {state}: {', '.join(names)}"
    )


@app.command()
def run(state: Path, day: str | None = None, as_json: AsJson = False) -> None:
    """Do all days that are due: annotate, score, insert, decide, train, check, publish.

    Exit codes: 0 done, also where nothing was due; 1 a day failed and is tried again; 2 wrong use.

    Args:
        state (STATE): Folder of the deployment.
        day (DAY): Last day to do; default: the last that is there.

    Example:
        memento deploy run state
        memento deploy run state --day 2026-01-07
    """
    done: list[dict[str, Any]] = []
    deployment = Deployment(state)
    with ui.progress_of("", quiet=True) as tell:
        days = deployment.run(_read, until=day, tell=lambda text: tell(now=text), warn=ui.warn)
        for variant, record in days:
            done.append({"variant": variant, **_row(record)})
            if not as_json:
                ui.say(f"{record.day} {variant}: {record.state}: {record.reason}")
    for problem in deployment.mirror():
        ui.warn(problem)
    if as_json:
        ui.print_json({"days": done})
    elif not done:
        ui.say("nothing is due")
    if any(row["state"] == "failed" for row in done):
        raise typer.Exit(FAILED)


@app.command()
def status(state: Path, prometheus: Path | None = None, as_json: AsJson = False) -> None:
    """Show what serves, and what became of each day.

    Args:
        state (STATE): Folder of the deployment.
        prometheus (FILE.prom): Also write this textfile for Prometheus' node exporter.

    Example:
        memento deploy status state --json
    """
    if prometheus is not None:
        exposition.check(prometheus)
    deployment = Deployment(state)
    variants: dict[str, dict[str, Any]] = {}
    for name in deployment.settings.variants:
        found = deployment.state(name)
        variants[name] = {
            "serving": deployment.serving(name),
            "versions": deployment.publication(name).names(),
            "days": [_row(found.days[day]) for day in sorted(found.days)],
        }
    if prometheus is not None:
        own = {"deployment": str(state.resolve())}
        exposition.write(prometheus, own, exposition.of_deployment(variants))
    if as_json:
        ui.print_json({"variants": variants})
        return
    for name, facts in variants.items():
        ui.say(f"{name}: {facts['serving'] or 'nothing'} serves, of {len(facts['versions'])}")
        header = ("day", "state", "trained", "published", "reason")
        rows = [
            ["yes" if value is True else value or "" for value in row.values()]
            for row in facts["days"]
        ]
        if rows:
            ui.print_table(header, rows)


@app.command()
def rollback(
    state: Path,
    variant: str,
    version: Annotated[str | None, typer.Argument()] = None,
    reason: str = "",
    as_json: AsJson = False,
) -> None:
    """Let an earlier version serve, until a new one passes the gate.

    Args:
        state (STATE): Folder of the deployment.
        variant (VARIANT): Name of the variant whose model changes.
        version ([VERSION]): Default: the one before.
        reason: For the history of publications.

    Example:
        memento deploy rollback state main --reason 'worse on Mondays'
    """
    serving, problems = Deployment(state).rollback(variant, reason, to=version)
    for problem in problems:
        ui.warn(problem)
    ui.answer(
        as_json, {"variant": variant, "serving": serving.name}, f"{variant}: {serving.name} serves"
    )


@app.command()
def record(state: Path, out: Path | None = None, as_json: AsJson = False) -> None:
    """Tell all that was written down of each day: scores, evidence, what the gate measured.

    One line of JSON for each variant and day; with --json one object; with --out a table.

    Args:
        state (STATE): Folder of the deployment.
        out (FILE): Write a table: .csv, .parquet, .arrow or .npz.

    Example:
        memento deploy record state --out days.csv
    """
    deployment = Deployment(state)
    if out is not None:
        tables.check_ending(out)
    rows: list[dict[str, Any]] = []
    for name in deployment.settings.variants:
        days = deployment.state(name).days
        for day in sorted(days):
            row = asdict(days[day])
            figures = row.pop("figures")
            rows.append({"variant": name, **row, **figures})
    if out is not None:
        tables.write(out, Samples(_columns(rows)))
        ui.answer(as_json, {"out": str(out), "days": len(rows)}, f"{out}: {len(rows):,} days")
    elif as_json:
        ui.print_json({"days": rows})
    else:
        for row in rows:
            ui.print_json(row)


# No name of a column in a file, where any may be called x.
_STACKED = "[data] inputs"


@dataclass(frozen=True)
class _Inputs(tables.Mapped):
    """The inputs as one column; patterns leave the labels out."""

    labels: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        return f"[data] inputs = {json.dumps(list(self.sources))}"

    def find(self, names: Mapping[str, Any]) -> list[str]:
        return super().find({name: None for name in names if name not in self.labels})


def _read(
    path: Path, inputs: Sequence[str], labels: Sequence[str], further: Sequence[str]
) -> Samples:
    """A day's file as samples; what is wrong with it is said in terms of the settings."""
    found = _Inputs(_STACKED, tuple(inputs), tuple(labels))
    try:
        samples = tables.read(path, [found], [_STACKED, *labels], further)
    except SchemaError as error:
        text = str(error).replace(f"{_STACKED!r}, ", "")
        for label in labels:
            text = text.replace(
                f"rename or stack columns with --map {label}=SOURCE",
                f"give it that column, or make a deployment with another label than {label!r}",
            )
        raise SchemaError(text) from error
    renamed = Samples.borrow({"x" if n == _STACKED else n: array for n, array in samples.items()})
    renamed.parts = {"x": samples.parts[_STACKED]} if _STACKED in samples.parts else {}
    return renamed


def _row(record: DayRecord) -> dict[str, Any]:
    return {
        name: getattr(record, name) for name in ("day", "state", "trained", "published", "reason")
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of rows that lack some: NaN among numbers, the empty text among texts."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        texts = all(isinstance(row.get(name), str | None) for row in rows)
        blank: Any = "" if texts else float("nan")
        columns[name] = [blank if row.get(name) is None else row[name] for row in rows]
    return columns
