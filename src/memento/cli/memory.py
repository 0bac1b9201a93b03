"""`memento memory`: a memory on disk, for cron jobs and for programs in other languages.

Each command reads the folder, changes the memory in this process, and writes it back as one new
generation under the folder's lock. So whatever fails, the folder is as it was.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from memento import snapshot
from memento.cli import exposition, intake, options, settings, sources, tables, ui
from memento.cli import predictions as whose
from memento.cli import status as state
from memento.cli.commands import Commands
from memento.cli.folders import UnchangedError, changing, load, look
from memento.errors import (
    DamagedError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import digest, storage_errors
from memento.memory import Memory, Report
from memento.observe import observe, reconsider, retrained
from memento.retrain import OnArrivals
from memento.samples import Samples

__all__ = ["app"]

RETRAIN = 10

app = Commands(
    help="A memory on disk: a folder that cron jobs and programs in other languages can use.",
    no_args_is_help=True,
)


@app.command()
def init(
    folder: options.Folder, chosen: options.MemoryOptions, as_json: options.AsJson = False
) -> None:
    """Make an empty memory in DIR.

    Example:
        memento memory init mem --capacity 100000 --labels y:21 --probabilities yhat
        memento memory init mem --capacity 5000 --policy loss-reservoir
        memento memory init mem --config memory.toml
    """
    given = {name: value for name, value in vars(chosen).items() if value not in (None, [])}
    config = given.pop("config", None)
    if config is not None:
        for name in given:
            option = name.strip("_").replace("_", "-")
            raise SettingError(f"--config and --{option} are given; put it into {config}")
        memory = settings.from_toml(config)
    else:
        memory = settings.from_options(given)
    with storage_errors("make a memory", folder):
        if snapshot.exists(folder):
            raise StorageError(
                f"{folder} holds a memory already; choose another folder, or remove this one"
            )
        memory.save(folder)
    limit = "no limit" if memory.capacity is None else f"room for {memory.capacity:,} samples"
    ui.answer(
        as_json,
        {"folder": str(folder), "capacity": memory.capacity, "policy": memory.policy.settings()},
        f"made {folder}: {limit}, {memory.policy!r}",
    )


@app.command()
def use(
    folder: options.Folder,
    labels: list[str] | None = None,
    set_: list[str] | None = None,
    as_json: options.AsJson = False,
) -> None:
    """Go on with other settings of the policy, such as `--labels y` when classes are new.

    Args:
        labels (NAME[:CLASSES]): Column of labels: integers or texts, or integers from 0 to
            CLASSES - 1. Repeatable.
        set_ (--set NAME=VALUE): Further setting of the policy. Repeatable.

    Example:
        memento memory use mem --labels y
        memento memory use mem --set batch_size=64
    """
    if not labels and not set_:
        raise SettingError("nothing to change; give --labels NAME, or --set NAME=VALUE")
    with changing(folder) as memory:
        memory.use(settings.changed(memory.policy, labels or (), set_ or ()))
    ui.answer(
        as_json,
        {"folder": str(folder), "policy": memory.policy.settings()},
        f"{folder}: from now on {memory.policy!r}",
    )


@app.command()
def insert(
    folder: options.Folder,
    reading: options.FileOptions,
    predicting: options.NamedModelOptions,
    database: options.DatabaseOptions,
    files: Annotated[list[str] | None, typer.Argument()] = None,
    unit: str | None = None,
    again: bool = False,
    columns: str | None = None,
    as_json: options.AsJson = False,
) -> None:
    """Offer the samples of all FILEs, together as one insert; the policy decides which stay.

    All files are read and checked before anything changes. A unit, or a file, that went in before
    changes nothing, so that a job may be run again. What comes in is compared with what came
    since the training; `status --decide` gives the answer.

    Args:
        files (FILE...): Parquet, CSV, Arrow or NPZ files, or patterns; also addresses such as
            s3://bucket/days/ or https://..., - for standard input, and folders of day=2026-01-07/.
        unit (NAME): What this insert is called: it is done once only.
        again: Insert what went in before once more.
        columns (A,B,...): Columns to keep, after --map; default: all at the first insert, then
            those held and those that the policy reads.

    Example:
        memento memory insert mem day.parquet --unit 2026-01-07 --model model.onnx
        memento memory insert mem 'days/*.csv' --map 'x=f_*'
        memento memory insert mem --sql 'select * from days' --from sqlite:///days.db
    """
    if unit == "":
        raise SettingError("--unit is empty; give it a name, such as that of the day")
    maps, how = reading.parse()
    wanted = intake.listed(columns)
    if bool(files) == (database.sql is not None or database.from_ is not None):
        raise SettingError("give FILES, or --sql QUERY with --from URI")
    paths = tables.expand(files or []) or sources.of_query(database.sql, database.from_)
    predictor = whose.load(predicting, predicting.model_name)
    digests = _digests(paths)
    report, decision = Report(0, 0, 0), None
    with changing(folder) as memory:
        prediction = whose.prediction(memory, predictor, predicting)
        already = {} if again else _already(memory, unit, digests)
        rest = [path for path in paths if str(path) not in already] if unit not in already else []
        _say_already(already, rest)
        if not rest:
            raise UnchangedError
        if unit is not None and not again:
            _say_same_content(memory, unit, rest, digests)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the insert repeats them
            fresh = intake.read_samples(memory, rest, maps, wanted, prediction, how)
        memory.stacked = {**memory.stacked, **fresh.parts}
        if prediction is None:
            whose.given_in_files(memory, fresh, predicting.model_name)
        else:
            prediction.again(memory)
        names = [*([unit] if unit else []), *(digests[path] for path in rest)]
        names = [name for name in names if name not in memory.units]
        with intake.telling_what_is_late(memory, fresh, folder):
            report, decision = observe(
                memory,
                fresh,
                _trigger(memory),
                insert=partial(memory.insert_unit, names),
                at=time.time(),
            )
    before = report.discarded - (report.offered - report.kept)
    older = f", {before:,} of them held before" if before > 0 else ""
    ui.answer(
        as_json,
        {
            "files": [str(path) for path in paths],
            "already": already,
            "offered": report.offered,
            "kept": report.kept,
            "discarded": report.discarded,
            "size": len(memory),
            "seen": memory.seen,
            "due": None if decision is None else decision.due,
        },
        f"offered {report.offered:,}, kept {report.kept:,}, discarded {report.discarded:,}{older}; "
        f"{folder} holds {len(memory):,} of {memory.seen:,} seen",
    )


@app.command()
def annotate(
    folder: options.Folder,
    reading: options.FileOptions,
    predicting: options.NamedModelOptions,
    file: Annotated[str | None, typer.Argument()] = None,
    id_: str | None = None,
    columns: str | None = None,
    as_json: options.AsJson = False,
) -> None:
    """Predict all that is held, and the last training set, again; or attach columns from a file.

    With --id, rows of FILE are found by it, and the last training set is annotated as well if FILE
    has rows for all of it.

    Args:
        file (FILE): Columns for what is held: a row a sample, in the order of export.
        id_ (--id NAME): Column of FILE that tells samples apart.
        columns (A,B,...): Columns to take, after --map; default: all but --id.

    Example:
        memento memory annotate mem --model model.onnx
        memento memory annotate mem losses.parquet --id id
    """
    if (file is None) == (predicting.model is None):
        raise SettingError("give either FILE, or --model to predict with")
    maps, how = reading.parse()
    predictor = whose.load(predicting, predicting.model_name)
    with changing(folder) as memory:
        _need_samples(memory, folder)
        prediction = whose.prediction(memory, predictor, predicting)
        reference = memory.reference is not None
        if prediction is not None:
            prediction.again(memory, always=True)
            attached = prediction.columns
        else:
            given = intake.read_table(
                str(file), maps, intake.listed(columns), id_, how.like(memory.samples)
            )
            attached, reference = intake.attach(memory, str(file), given, id_)
            whose.attached(memory, attached, predicting.model_name, reference=reference)
    also = " and in the last training set" if reference else ""
    ui.answer(
        as_json,
        {
            "folder": str(folder),
            "annotated": len(memory),
            "reference": reference,
            "columns": attached,
            "model": memory.model,
        },
        f"{folder}: {', '.join(attached)} of {len(memory):,} samples held{also}",
    )


@app.command()
def label(
    folder: options.Folder,
    file: str,
    reading: options.FileOptions,
    id_: str | None = None,
    columns: str | None = None,
    as_json: options.AsJson = False,
) -> None:
    """Give samples that are held the labels of FILE, which may come days later.

    Samples that are no longer held are left out; the same labels again change nothing.

    Args:
        file (FILE): A Parquet, CSV, Arrow or NPZ file.
        id_ (--id NAME): Column of FILE that tells samples apart.
        columns (A,B,...): Columns to take, after --map; default: all but --id.

    Example:
        memento memory label mem labels.csv --id id
    """
    maps, how = reading.parse()
    with changing(folder) as memory:
        name = id_ or memory.ids
        given = intake.read_table(
            file, maps, intake.listed(columns), name, how.like(memory.samples)
        )
        labels = [column for column in given if column != name]
        if columns is None:  # a file of labels may say more
            labels = [c for c in labels if c in memory.samples or c in memory.policy.reads]
        with tables.in_file(file, given.size):
            if not labels:
                raise SchemaError(
                    f"no column that is held or that the policy reads; there are "
                    f"{', '.join(map(repr, given))}; rename one with --map y=SOURCE"
                )
            labelled = memory.label(given[name], given.select(labels))
        if not labelled:
            raise UnchangedError
        reconsider(memory, _trigger(memory))
    _say_labelled(as_json, folder, given, labels, labelled)


@app.command()
def status(
    folder: options.Folder,
    decide: bool = False,
    threshold: float | None = None,
    coverage: bool = True,
    prometheus: Path | None = None,
    as_json: options.AsJson = False,
) -> None:
    """Show size, ages, composition, and whether retraining is due.

    Retraining is due when what came in last differs from what came before, in a way that matters;
    see `insert`. --threshold decides by how much coverage rose since the last training.

    Args:
        decide: Exit with 10 when retraining is due.
        threshold: Decide by coverage instead: the least increase at which retraining is due.
        coverage: Whether to compute the coverage.
        prometheus (FILE.prom): Also write this textfile for Prometheus' node exporter.

    Example:
        memento memory status mem
        memento memory status mem --decide --json
    """
    if prometheus is not None:
        exposition.check(prometheus)
    memory = look(folder) if threshold is None else load(folder)
    facts: dict[str, Any] = {
        "folder": str(folder),
        "generation": snapshot.generation_of(folder),
        **state.facts(memory),
        **state.decision(memory, threshold, folder, compare=coverage, required=decide),
    }
    if prometheus is not None:
        own = {"memory": str(folder.resolve())}
        exposition.write(prometheus, own, exposition.of_memory(memory, facts, folder))
    if as_json:
        ui.print_json(facts)
    else:
        state.show(facts, memory)
    if decide and facts["decision"]["due"]:
        raise typer.Exit(RETRAIN)


@app.command()
def trained(
    folder: options.Folder, predicting: options.ModelOptions, as_json: options.AsJson = False
) -> None:
    """Mark what is held as the last training set.

    With --model, predictions are made again first, by the model that was trained.

    Example:
        memento memory trained mem --model new.onnx
    """
    predictor = whose.load(predicting)
    with changing(folder) as memory:
        _need_samples(memory, folder)
        prediction = whose.prediction(memory, predictor, predicting)
        if prediction is None:
            retrained(memory)
        else:
            prediction.trained(memory)
        memory.reference_model = memory.model
    ui.answer(
        as_json,
        {"folder": str(folder), "trained": len(memory), "model": memory.model},
        f"{folder}: {len(memory):,} samples are the last training set",
    )


@app.command()
def sample(
    folder: options.Folder,
    size: int,
    out: Path,
    seed: int = 0,
    weights: options.Weights = True,
    as_json: options.AsJson = False,
) -> None:
    """Write a random sample of what is held to a file: without replacement, all alike likely.

    Args:
        size (--size): How many; all that are held if they are fewer.
        out (--out FILE): A .parquet, .arrow, .npz or .csv file.
        seed: Of the draw.

    Example:
        memento memory sample mem --size 1000 --out batch.parquet --seed 7
    """
    for option, value, least in (("--size", size, 1), ("--seed", seed, 0)):
        if value < least:
            raise SettingError(f"{option} is {value}; give at least {least}")
    tables.check_ending(out)
    samples = _exported(look(folder), folder, weights)
    drawn = np.random.default_rng(seed).permutation(samples.size)[:size]
    _write(as_json, out, samples.take(np.sort(drawn)))


@app.command()
def merge(
    folder: options.Folder, other: Path, again: bool = False, as_json: options.AsJson = False
) -> None:
    """Take in what the memory OTHER holds, of a stream that shares no sample with that of DIR.

    OTHER is not changed. Both need one policy, which has to be able to merge: density-reservoir
    or loss-reservoir.

    Args:
        other (OTHER): Folder of another memory.
        again: Also if units of OTHER went in before.

    Example:
        memento memory merge mem other
    """
    if other.resolve() == folder.resolve():
        raise SettingError(f"{other} is DIR itself; name another memory")
    with changing(folder) as memory:
        second = load(other)
        both = [name for name in second.units if name in memory.units]
        if both and not again:
            raise SettingError(
                f"{other} holds samples of units that went in already, such as "
                f"{_unit_shown(both[0])} with insert {memory.units[both[0]]}; streams that are "
                "merged share no sample (--again merges all the same)"
            )
        before = len(memory)
        memory.model = whose.joined(memory.model, second.model) if before else second.model
        memory.merge(second)
    ui.answer(
        as_json,
        {
            "folder": str(folder),
            "other": str(other),
            "offered": len(second),
            "size": len(memory),
            "seen": memory.seen,
        },
        f"{folder} holds {len(memory):,} of {memory.seen:,} seen, {before:,} samples of its own "
        f"and {len(second):,} of {other} before",
    )


@app.command()
def export(
    folder: options.Folder,
    out: Path,
    weights: options.Weights = True,
    reference: bool = False,
    as_json: options.AsJson = False,
) -> None:
    """Write what is held to a file: its columns, and `weight` where the policy can state it.

    Args:
        out (OUT): A .parquet, .arrow or .npz file.
        reference: What was held at the last training instead.

    Example:
        memento memory export mem train.parquet
    """
    tables.check_ending(out)
    memory = look(folder)
    if not reference:
        samples = _exported(memory, folder, weights)
    elif memory.reference is None:
        raise SchemaError(f"{folder}: nothing was trained yet; mark it with memento memory trained")
    else:
        samples = memory.reference
    _write(as_json, out, samples)


@app.command()
def check(folder: options.Folder, as_json: options.AsJson = False) -> None:
    """Verify the digests of all files and that the content is consistent.

    Example:
        memento memory check mem
    """
    memory = look(folder)
    problems = list(state.problems(memory))
    if problems:
        raise DamagedError(f"{folder}: {problems[0]}; restore the folder from a copy")
    generation = snapshot.generation_of(folder)
    ui.answer(
        as_json,
        {"folder": str(folder), "ok": True, "generation": generation, "size": len(memory)},
        f"{folder}: generation {generation} is complete and consistent, {len(memory):,} samples",
    )


# --- units that went in before ---------------------------------------------------------------


def _trigger(memory: Memory) -> OnArrivals:
    """What decides, as `init` was told."""
    if memory.recent is None:  # made by an earlier version, or in Python
        return OnArrivals(witnesses=0.0)
    return OnArrivals(witnesses=memory.recent.witnesses, cluster=memory.recent.cluster)


def _digests(paths: Sequence[Path]) -> dict[Path, str]:
    """What stands for the content of each file among a memory's units."""
    digests = {}
    with ui.progress_of("digests", len(paths), quiet=True) as tell:
        for done, path in enumerate(paths, 1):
            with storage_errors("read", path):
                digests[path] = f"sha256:{digest(path)}"
            tell(done)
    return digests


def _already(memory: Memory, unit: str | None, digests: Mapping[Path, str]) -> dict[str, int]:
    """What went in before, and with which insert: the unit if it has a name, else files."""
    if unit is not None:
        return {unit: memory.units[unit]} if unit in memory.units else {}
    return {str(path): memory.units[name] for path, name in digests.items() if name in memory.units}


def _say_already(already: Mapping[str, int], rest: Sequence[Path]) -> None:
    for name, number in already.items():
        then = "it is left out" if rest else "nothing is changed"
        ui.say(
            f"memento: {name} went in already, with insert {number}, so {then}; insert it again "
            "with --again",
            err=True,
        )


def _say_same_content(
    memory: Memory, unit: str, paths: Sequence[Path], digests: Mapping[Path, str]
) -> None:
    """Files that went in before under another name: a quiet day may look like another, or not."""
    before = {path: memory.units[digests[path]] for path in paths if digests[path] in memory.units}
    for path, number in before.items():
        names = [n for n, i in memory.units.items() if i == number and not n.startswith("sha256:")]
        ui.warn(
            f"the content of {path} went in already, with insert {number}"
            f"{f', the unit {names[0]!r}' if names else ''}; as the unit {unit!r} it is another "
            "one and goes in once more. Without --unit a file goes in once, whatever its name"
        )


def _unit_shown(name: str) -> str:
    return f"a file of the digest {name[7:19]}" if name.startswith("sha256:") else repr(name)


# --- files in and out ------------------------------------------------------------------------


def _exported(memory: Memory, folder: Path, weights: bool) -> Samples:
    """What is held, with weights where the policy knows them."""
    _need_samples(memory, folder)
    stated = memory.weights if weights else None
    if stated is None:
        return memory.samples
    if "weight" in memory.samples:
        raise SchemaError(f"{folder} holds a column 'weight' itself; export it with --no-weights")
    return memory.samples.with_columns(weight=stated)


def _need_samples(memory: Memory, folder: Path) -> None:
    if not len(memory):
        raise SchemaError(f"{folder} holds no samples; insert some first")


# --- what the user sees ----------------------------------------------------------------------


def _write(as_json: bool, out: Path, samples: Samples) -> None:
    tables.write(out, samples)
    ui.answer(
        as_json,
        {"out": str(out), "rows": samples.size, "columns": list(samples)},
        f"{out}: {samples.size:,} rows of {', '.join(samples)}",
    )


def _say_labelled(
    as_json: bool, folder: Path, given: Samples, labels: Sequence[str], count: int
) -> None:
    ui.answer(
        as_json,
        {"folder": str(folder), "given": given.size, "found": count, "columns": list(labels)},
        f"{folder}: {', '.join(labels)} of {count:,} samples held, of {given.size:,} in the file",
    )
