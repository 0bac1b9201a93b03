"""`memento select`: rows of Parquet files that do not fit into memory, on one machine or many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import progress

from memento import scale, settings
from memento.cli import completion, models, tables, ui
from memento.cli.intake import listed
from memento.cli.options import AsJson, ModelOptions
from memento.cli.settings import predicted_columns
from memento.errors import SettingError, SpaceError, WorkerError
from memento.files import local_path
from memento.policies import Policy, policy_from_table

__all__ = ["select"]

FAILED = 1
_STAGES = {
    "open": "opening files",
    "look": "looking for labels",
    "summarise": "summarising rows",
    "decide": "deciding",
    "rank": "ranking rows",
    "take": "taking rows",
    "rewrite": "rewriting",
}


@dataclass(frozen=True)
class ChoiceOptions:
    """What is kept.

    Attributes:
        capacity: Most rows to keep.
        policy (NAME): memento, density-reservoir, reservoir or class-balanced-reservoir. Default:
            memento.
        labels (NAME[:CLASSES]): Column of labels: integers or texts, or integers from 0 to
            CLASSES - 1. Repeatable.
        probabilities (NAME): Column of predicted probabilities; its numbers may also stand in
            NAME_0, NAME_1 and so on. Repeatable.
        values (NAME): Column of real numbers. Repeatable.
        set_ (--set NAME=VALUE): Further setting of the policy. Repeatable.
        held (DIR): What was kept before: a folder of this command, or of memento memory.
        id_ (--id NAME): Column of integers that tell rows apart: keys of random draws are made of
            them.
        seed: Of all draws.
    """

    capacity: int | None = None
    policy: Annotated[str | None, typer.Option(autocompletion=completion.selecting)] = None
    labels: list[str] | None = None
    probabilities: list[str] | None = None
    values: list[str] | None = None
    set_: list[str] | None = None
    held: Path | None = None
    id_: str | None = None
    seed: Annotated[int, typer.Option(min=0)] = 0

    def parse(self) -> Policy:
        """The policy.

        Raises:
            SettingError: It is unknown, or a setting does not fit.
        """
        table: dict[str, Any] = {"kind": self.policy or "memento"}
        named = {"labels": self.labels, "probabilities": self.probabilities, "values": self.values}
        table |= {name: values for name, values in named.items() if values}
        for assignment in self.set_ or ():
            table |= settings.parse(assignment)
        return policy_from_table(table, dashes="--")


@dataclass(frozen=True)
class WorkerOptions:
    """Who works.

    Attributes:
        workers (N): Processes on this machine; default: this one.
        dask (ADDRESS): Scheduler of a Dask cluster, as in tcp://10.0.0.1:8786, whose workers see
            the files under the same paths.
        slurm: Workers are jobs of the Slurm cluster, as many as --workers says.
        config (FILE): Settings for Slurm, as for memento run.
    """

    workers: Annotated[int, typer.Option(min=0)] = 0
    dask: str | None = None
    slurm: bool = False
    config: Path | None = None


def select(
    files: list[str],
    to: Annotated[Path, typer.Option(metavar="DIR")],
    chosen: ChoiceOptions,
    model: ModelOptions,
    place: WorkerOptions,
    columns: str | None = None,
    map_: list[str] | None = None,
    weight: str = "weight",
    block_rows: Annotated[int, typer.Option(min=1)] = scale.BLOCK_ROWS,
    rewrite: bool = False,
    as_json: AsJson = False,
) -> None:
    """Keep the rows of Parquet files that matter, however many there are.

    Files are read twice, a row group at a time, by any number of workers: the result depends on
    files, settings and seed alone. What was stopped goes on where it was. Exit codes: 0 done, 1
    workers or room on the disk ran out, 2 wrong use or bad input.

    Args:
        files (FILES...): Parquet files, folders (day=2026-01-07/ becomes a column) or patterns.
        to: Folder for the rows that are kept, with their training weights and report.json.
        columns (A,B,...): Columns to write; default: all.
        map_ (--map NAME=SOURCE): Read NAME from the files' column SOURCE; several names or a
            pattern ('yhat=p_*') make one. Repeatable.
        weight (NAME): Column for training weights.
        block_rows: Most rows that are read at a time.
        rewrite: Write all rows of FILES in the layout that is read fastest, and choose none.

    Example:
        memento select days/ --to held --capacity 1000000 --labels y:21 --probabilities yhat
        memento select days/2026-01-07 --to held --held held --capacity 1000000 --labels y:21
    """
    maps = [tables.parse_map(text) for text in map_ or ()]
    sources = {mapped.name: mapped.sources for mapped in maps}
    if rewrite:
        _rewrite(files, to, sources, block_rows, as_json)
        return
    if chosen.capacity is None:
        raise SettingError("no --capacity: say how many rows are kept at most, such as 1000000")
    policy = chosen.parse()
    options: dict[str, Any] = {
        "columns": listed(columns),
        "maps": sources,
        "weight": weight,
        "block_rows": block_rows,
        "held": chosen.held,
        "identify_by": chosen.id_,
        **_predicting(model, policy),
    }
    with _failing(), ui.stoppable(), _place(place, to) as given, _progress() as tell:
        report = scale.select(
            files,
            chosen.capacity,
            policy,
            to,
            seed=chosen.seed,
            progress=tell,
            **given,
            **options,
        )
    _say(report, as_json)


def _say(report: scale.Selected, as_json: bool) -> None:
    spent = sum(stage.get("clock", 0.0) for stage in report.seconds.values())
    rate = report.offered / max(spent, 1e-9)
    text = (
        f"{report.folder}: kept {report.kept:,} of {report.offered:,} rows "
        f"({len(report.files):,} files) in {spent:,.1f} s, {rate:,.0f} rows/s; digest "
        f"{report.digest[:16]}"
    )
    ui.answer(as_json, {"folder": str(report.folder), **report.document}, text)


def _rewrite(
    files: list[str], to: Path, maps: dict[str, tuple[str, ...]], rows: int, as_json: bool
) -> None:
    with _failing(), ui.stoppable(), _progress() as tell:
        written = scale.rewrite(files, to, maps=maps, block_rows=rows, progress=tell)
    facts = {"folder": str(to), "files": [str(path) for path in written]}
    ui.answer(as_json, facts, f"{to}: {len(written):,} files in the fast layout")


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Lack of room or of workers is a failure, not wrong use."""
    try:
        yield
    except (SpaceError, WorkerError) as error:
        ui.say(f"memento: error: {error}", err=True)
        raise typer.Exit(FAILED) from error


def _predicting(model: ModelOptions, policy: Policy) -> dict[str, Any]:
    """What makes predictions, and of which column."""
    if model.model is None:
        if model.model_file or model.softmax or model.predictions:
            raise SettingError("--model-file, --softmax and --predictions belong to --model")
        return {}
    column = model.predictions
    if column is None:
        columns = predicted_columns(policy)
        if len(columns) != 1:
            raise SettingError(
                f"--model predicts one column, and the policy reads {columns or 'none'}; name it "
                "with --predictions"
            )
        (column,) = columns
    files = tuple(model.model_file or ())
    models.load_model(model.model, files)  # what cannot be loaded fails before anything is read
    predict = partial(models.predicted, model.model, files, model.softmax)
    return {"predict": predict, "inputs": model.inputs, "predictions": column}


@contextlib.contextmanager
def _place(place: WorkerOptions, to: Path) -> Iterator[dict[str, Any]]:
    """Who works, as `select` takes it.

    Raises:
        SettingError: Several places are given.
        StorageError: A scheduler does not answer.
    """
    if place.dask and (place.slurm or place.workers):
        raise SettingError("--dask, --slurm and --workers are several places; give one")
    if place.config is not None and not place.slurm:
        raise SettingError("--config is for --slurm; give both")
    if place.slurm:
        from memento.runner.executors.slurm import SlurmExecutor
        from memento.runner.settings import RunSettings, from_toml
        from memento.runner.spec import Resources

        given = from_toml(place.config) if place.config else RunSettings()
        jobs = place.workers or given.slurm.jobs or 2
        root = local_path(to, "--to").absolute().parent
        with SlurmExecutor(given.slurm, Resources(1, 4, 4), root, jobs) as executor:
            yield {"client": executor.client}
    elif place.dask:
        from memento.runner.executors.dask import DaskExecutor

        with DaskExecutor(place.dask) as executor:
            yield {"client": executor.client}
    else:
        yield {"workers": place.workers}


class _Rate(progress.ProgressColumn):
    """Rows a second."""

    def render(self, task: progress.Task) -> Any:
        speed = task.finished_speed or task.speed
        return ui.cell("" if not speed else f"{speed:,.0f}/s")


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """How far each stage is: bars with rates and time left, or a line a stage."""
    with ui.Progress(progress.MofNCompleteColumn(), _Rate(), progress.TimeRemainingColumn()) as bar:

        def tell(stage: str, done: int, total: int) -> None:
            bar.report(done, total, _STAGES.get(stage, stage))

        yield tell
