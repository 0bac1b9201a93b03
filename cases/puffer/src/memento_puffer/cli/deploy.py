"""`memento puffer deploy`: the daily job for cron, and what a person asks it.

Exit codes of `run`: 0 all days are done; 1 a day failed (those before it are done, and the next run
tries again); 2 wrong use, or no deployment that can be read: no day was begun; 3 today's data is
not there yet, run again later; 4 done, but a person should look (a gate refused a network, a
rollback, days without data, git); 5 another run is at work. `rollback` ends with 4 if git did not
take it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memento.arguments import require, whole
from memento.cli import ui
from memento.cli.commands import Commands
from memento.cli.options import AsJson
from memento.days import day_of
from memento.errors import ForeignError, LockedError, MementoError, SettingError
from memento.files import storage_errors
from memento.settings import read

if TYPE_CHECKING:
    from memento_puffer.deployment.deploy_settings import DeploymentSettings

__all__ = ["ATTENTION", "BUSY", "FAILED", "WAITING", "app"]

FAILED, WAITING, ATTENTION, BUSY = 1, 3, 4, 5

app = Commands(
    help="Keep Puffer's predictors up to date: a daily job, its state, a way back.",
    no_args_is_help=True,
)


@app.command()
def init(
    state: Path,
    base: Path | None = None,
    config: Path | None = None,
    capacity: int | None = None,
    as_json: AsJson = False,
) -> None:
    """Make a deployment in STATE.

    Args:
        state (STATE): Folder of the deployment.
        base (DIR): Model that trainings start from, such as Fugu-Feb: its 15 files. Default: random
            weights.
        config (FILE): Settings in TOML; see the documentation for their names.
        capacity: Samples in each memory.

    Example:
        memento puffer deploy init state --base fugu-feb
    """
    from memento_puffer.deployment.deploy import Deployment
    from memento_puffer.predictor.ttp import Ttp

    settings = _settings(config, capacity)
    deployment = Deployment.create(state, settings, None if base is None else Ttp.read(base))
    names = ", ".join(deployment.settings.variants)
    ui.answer(
        as_json,
        {"state": str(state), "settings": settings.document()},
        f"made {state}: variants {names}; {settings.capacity:,} samples each",
    )


@app.command()
def configure(state: Path, config: Path, as_json: AsJson = False) -> None:
    """Replace the settings, from the next day on.

    Args:
        state (STATE): Folder of the deployment.
        config (FILE): Settings in TOML, all of them.

    Example:
        memento puffer deploy configure state deploy.toml
    """
    from memento_puffer.deployment.deploy import Deployment

    settings = _settings(config, None)
    with _busy():
        Deployment(state).configure(settings)
    ui.answer(
        as_json, {"state": str(state), "settings": settings.document()}, f"{state}: configured"
    )


@app.command()
def run(
    state: Path,
    days: Path,
    until: str | None = None,
    start: str | None = None,
    skip: list[str] | None = None,
    today: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Do all days that are not done: insert, decide, train, check, publish.

    A day X works on the data of the day before. Exit codes: 0 done, 1 a day failed and is tried
    again by the next run, 2 wrong use, 3 today's data is not there yet, 4 done but a person should
    look, 5 another run is at work.

    Args:
        state (STATE): Folder of the deployment.
        days (DAYS): Folder with a folder for each day, named such as 2022-09-19.
        until (DAY): Last day to do; default: today.
        start (DAY): First day of a new deployment; default: the last.
        skip (DAY): Leave out the data of this day. Repeatable.
        today (DAY): What counts as today (UTC); for running through the past.

    Example:
        memento puffer deploy run state days
    """
    from memento_puffer.deployment.days import DayFolders
    from memento_puffer.deployment.deploy import Deployment

    now = _day(today, "--today") or dt.datetime.now(dt.UTC).date()
    deployment = Deployment(state)
    source = DayFolders(days, deployment.settings.cc)
    with _busy(), ui.progress_of("", 1.0, quiet=True) as tell:
        outcome = deployment.run(
            source,
            today=now,
            until=_day(until, "--until"),
            start=_day(start, "--start"),
            skip=[day_of(day, "--skip") for day in skip or ()],
            progress=lambda text, share: tell(share, now=text),
            catch=True,
        )
    facts = {
        "days": list(outcome.days),
        "waiting": None if outcome.waiting is None else str(outcome.waiting),
        "attention": list(outcome.attention),
        "failure": None if outcome.failure is None else _failure(outcome.failure),
    }
    if as_json:
        ui.print_json(facts)
    else:
        for document in outcome.days:
            ui.say(_line(document))
    _call(outcome.attention)
    if outcome.failure is not None:
        if _debugging():
            raise outcome.failure
        ui.say(f"memento: error: {facts['failure']}", err=True)
        raise typer.Exit(FAILED)
    if outcome.waiting is not None:
        ui.say(
            f"memento: the data of {outcome.waiting - dt.timedelta(days=1)} is not there yet; run "
            "again later",
            err=True,
        )
    if outcome.attention:
        raise typer.Exit(ATTENTION)
    if outcome.waiting is not None:
        raise typer.Exit(WAITING)


@app.command()
def status(
    state: Path,
    last: Annotated[int, typer.Option("--days", help="How many days.")] = 14,
    as_json: AsJson = False,
) -> None:
    """Show the last days: data, coverage increases, trainings, and what serves.

    Args:
        state (STATE): Folder of the deployment.

    Example:
        memento puffer deploy status state --days 7
    """
    from memento_puffer.deployment.deploy import Deployment

    require("--days", last, whole())
    deployment = Deployment(state)
    documents = deployment.days(last)
    serving = {name: deployment.serving(name) for name in deployment.variants}
    failures = deployment.failures()
    if as_json:
        ui.print_json({"days": documents, "serving": serving, "failures": failures})
        return
    _show(documents, serving, failures)


@app.command()
def rollback(
    state: Path,
    variant: str,
    reason: Annotated[str, typer.Option()],
    to: str | None = None,
    as_json: AsJson = False,
) -> None:
    """Let an earlier model of VARIANT serve again, until the next training is published.

    Args:
        state (STATE): Folder of the deployment.
        variant (VARIANT): Name of the variant whose model changes.
        reason: For the history of publications.
        to (VERSION): Default: what served before the current was published.

    Example:
        memento puffer deploy rollback state memento --reason 'stalls since Monday'
    """
    from memento_puffer.deployment.deploy import Deployment

    with _busy():
        version, attention = Deployment(state).rollback(variant, reason, to)
    ui.answer(
        as_json,
        {
            "variant": variant,
            "version": version.name,
            "folder": str(version.folder),
            "attention": list(attention),
        },
        f"{variant}: {version.name} serves",
    )
    _call(attention)
    if attention:
        raise typer.Exit(ATTENTION)


@app.command()
def record(
    source: Path,
    first: Annotated[str | None, typer.Option("--from")] = None,
    until: str | None = None,
    figure: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Summarise a deployment: trainings and coverage increases of each network.

    The deployment of 2022 and 2023 as it was published, and one's own, in the same table and
    figure.

    Args:
        source (SOURCE): STATE of a deployment, or a published record: the folder with
            VARIANT/HORIZON/DAY/stats_HORIZON.json.gz, or a CSV.
        first (DAY): From this day.
        until (DAY): Up to this day.
        figure (PNG): Draw coverage and trainings.

    Example:
        memento puffer record results/memento-deployment --figure record.png
        memento puffer deploy record state --json
    """
    from memento_puffer.deployment import record as case
    from memento_puffer.deployment import tree
    from memento_puffer.deployment.deploy import Deployment

    notes: list[str] = []
    own = (source / "deployment.json").exists()
    if source.is_dir() and not own and not tree.is_tree(source):
        raise ForeignError(
            f"{source} holds no deployment: neither STATE of memento puffer deploy init, nor a "
            f"published one, {tree.LAYOUT}"
        )
    everything = Deployment(source).table() if own else case.read_record(source, notes.append)
    for note in notes:
        ui.warn(note)
    table = case.between(everything, _day(first, "--from"), _day(until, "--until"))
    if not everything.size:
        raise SettingError(f"{source} holds no day with data yet")
    if not table.size:
        raise SettingError(
            f"no days of {source} from {first or 'its first'} to {until or 'its last'}; it has "
            f"some from {everything['day'].min()} to {everything['day'].max()}"
        )
    if figure is not None:
        import numpy as np

        from memento_puffer.report.deployment import coverage_and_trainings

        with storage_errors("draw", figure):
            coverage_and_trainings(
                figure,
                table,
                title=source.name if own else "the published deployment",
                new_metric=None if own else np.datetime64(case.NEW_METRIC),
            )
    rows = ui.rows(case.summary(table))
    if as_json:
        ui.print_json({"published": not own, "rows": rows, "notes": notes})
        return
    _show_record(rows)


# --- settings --------------------------------------------------------------------------------


def _settings(config: Path | None, capacity: int | None) -> DeploymentSettings:
    from memento_puffer.deployment.deploy_settings import DeploymentSettings

    document = {} if config is None else read(config)
    if capacity is not None:
        if "capacity" in document:
            raise SettingError(f"--capacity and {config} both give a capacity; keep one of them")
        document["capacity"] = capacity
    return DeploymentSettings.of_document(document, "settings" if config is None else str(config))


def _day(text: str | None, option: str) -> dt.date | None:
    return None if text is None else day_of(text, option)


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Another run is no failure for cron, but has a code of its own."""
    try:
        yield
    except LockedError as error:
        ui.say(f"memento: {error}", err=True)
        raise typer.Exit(BUSY) from None


# --- what the user sees ----------------------------------------------------------------------


def _failure(error: Exception) -> str:
    kind = "" if isinstance(error, MementoError) else f"{type(error).__name__}: "
    return " ".join([f"{kind}{error}", *getattr(error, "__notes__", ())])


def _debugging() -> bool:
    from memento.cli import main

    return main._debugging(sys.argv)


def _call(attention: Sequence[str]) -> None:
    for sentence in attention:
        ui.say(f"memento: attention: {sentence}", err=True)


def _line(document: Mapping[str, Any]) -> str:
    parts = [f"{document['day']}: {document['status']}"]
    for name, variant in document["variants"].items():
        trained = [str(row["horizon"]) for row in variant["rows"] if row["retrained"]]
        what = f"trained {','.join(trained)}" if trained else "not trained"
        if variant["published"]:
            what += f", published {variant['published']}"
        if variant["rolled_back"]:
            what += f", back to {variant['rolled_back']}"
        parts.append(f"{name} {what}")
    return "; ".join(parts)


def _show(
    documents: Sequence[Mapping[str, Any]],
    serving: Mapping[str, str | None],
    failures: Mapping[str, Mapping[str, Any]],
) -> None:
    """A table of the days, what serves, which days failed, and what asks for attention."""
    rows = []
    for document in documents:
        cells = []
        for name in serving:
            variant = document["variants"].get(name)
            cells.append("" if variant is None else _cell(variant))
        data = ", ".join(document["data_days"]) or document["status"]
        rows.append([document["day"], data, *cells])
    ui.print_table(["day", "data", *serving], rows)
    ui.say("coverage increase of each horizon; * trained, ! refused by the gate")
    for name, version in serving.items():
        ui.say(f"{name}: {version or 'nothing'} serves")
    for day, failure in failures.items():
        ui.say(f"{day} failed {failure['attempts']} times: {failure['error']}")
    for document in documents[-1:]:
        for sentence in document["attention"]:
            ui.say(f"attention: {sentence}")


def _cell(variant: Mapping[str, Any]) -> str:
    marks = []
    for row in variant["rows"]:
        mark = "*" if row["retrained"] else "!" if row["refused"] is not None else ""
        marks.append(f"{row['coverage_increase']:.3f}{mark}")
    text = " ".join(marks)
    if variant["rolled_back"]:
        text += f" (back to {variant['rolled_back']})"
    return text


def _show_record(rows: Sequence[Mapping[str, Any]]) -> None:
    names = ("variant", "horizon", "days", "retrained", "p10", "median", "p90", "largest")
    cells = []
    for row in rows:
        numbers = ["" if row[name] is None else f"{row[name]:.3f}" for name in names[4:]]
        total = "" if row["total_coverage"] is None else f"{row['total_coverage']:.1f}"
        cells.append([*(row[name] for name in names[:4]), *numbers, total])
    ui.print_table([*names, "total coverage"], cells)
