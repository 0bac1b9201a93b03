"""`memento backtest`: does it pay on a user's own stream, with which policy and trigger."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from memento import missing, plugins
from memento.cli import completion, sources, tables, ui
from memento.cli.options import AsJson, DatabaseOptions
from memento.errors import SchemaError, SettingError
from memento.files import local_path
from memento.integrations.tabular import factory, units_of
from memento.policies import Policy, usual_policy
from memento.retrain import OnArrivals, Trigger, trigger
from memento.samples import Samples
from memento.study import Trial, try_stream
from memento.study.example import example

__all__ = ["backtest"]

_POLICIES = {
    False: ("memento", "density-reservoir", "loss-reservoir", "loss-aware-reservoir",
            "class-balanced-reservoir", "k-center-greedy"),
    True: ("memento", "density-reservoir", "loss-reservoir", "k-center-greedy"),
}  # fmt: skip
_TRIGGERS = ("on-arrivals", "loss", "every-3")
_POLICIES_LISTED = typer.Option(autocompletion=completion.listed(completion.policies))
_TRIGGERS_LISTED = typer.Option(autocompletion=completion.listed(completion.triggers))
_OWN = {"random", "fifo", "reservoir"}
_FEW_TEXTS = 0.1  # share of values that are no numbers, up to which they look like a mistake
_PAGE, _TABLE = "backtest.html", "backtest.csv"


@dataclass(frozen=True)
class StreamOptions:
    """Columns of a stream.

    Attributes:
        label: Column of what is predicted.
        unit (COLUMN): Tells units apart. Default: the files.
        group (COLUMN): Groups, for the worst of them.
        cluster (COLUMN): What belongs together: a session, a user.
        inputs (PATTERN): Columns to predict from. Default: all others.
    """

    label: str = "y"
    unit: str | None = None
    group: str | None = None
    cluster: str | None = None
    inputs: list[str] | None = None


def backtest(
    columns: StreamOptions,
    database: DatabaseOptions,
    files: Annotated[list[str] | None, typer.Argument()] = None,
    classes: Annotated[int | None, typer.Option(min=2)] = None,
    regression: bool = False,
    model: Annotated[str | None, typer.Option(autocompletion=completion.models)] = None,
    capacity: str = "5%",
    policies: Annotated[str, _POLICIES_LISTED] = "auto",
    triggers: Annotated[str, _TRIGGERS_LISTED] = "auto",
    seeds: Annotated[int | None, typer.Option(min=1)] = None,
    budget: str | None = None,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    out: Path | None = None,
    built_in: bool = False,
    as_json: AsJson = False,
) -> None:
    """Say which samples to keep on this stream, when to retrain, and whether any of it pays.

    Every unit is predicted before anything of it is trained on. Whatever is asked for stands beside
    a random memory, one of three times the size, and one with a fitted temperature.

    Args:
        files (FILES...): Days in order, or one file with a unit column. Also addresses, - for
            standard input, and folders of day=2026-01-07/.
        classes: Labels are 0 to N-1. Default: those found, of any kind.
        regression: Predict numbers.
        model (MODEL): hgb, logistic, ridge, mlp, or MODULE:FACTORY, a function from a seed to a
            model. Default: hgb.
        capacity (N|P%): Samples in memory, or a share of the stream.
        policies (A,B|auto): Kinds of policies, as `memento memory init --policy` takes them, or
            MODULE:CLASS. auto: four to six of them.
        triggers (A,B|auto): Kinds of triggers: count, coverage, every-N, loss, never, on-arrivals,
            or MODULE:CLASS. auto: on-arrivals, loss, every-3.
        seeds: Most repetitions; default: 5, of --example 3.
        budget (TIME): As 90s, 10m, 2h: as many seeds as there is time for.
        workers: Processes at a time.
        out (DIR): Keeps results; what was stopped goes on. With a page.
        built_in (--example): A small stream that is made, in under a minute.

    Example:
        memento backtest --example
        memento backtest days/*.parquet --label fraud --cluster user --out try
        memento backtest all.csv --unit day --label delay --regression --model ridge
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    label, group, cluster = columns.label, columns.group, columns.cluster
    asked = database.sql is not None or database.from_ is not None
    if [built_in, bool(files), asked].count(True) != 1:
        raise SettingError("give FILES, or --example, or --sql QUERY with --from URI")
    if classes is not None and regression:
        raise SettingError("--classes and --regression are for different labels; give one of them")
    seconds = _seconds(budget)
    chosen = _policies(policies, label, numbers=regression)
    deciding = _triggers(triggers, cluster)
    if built_in:
        parts, model, seeds = example(label), model or "logistic", seeds or 3
    else:
        paths = tables.expand(files or []) or sources.of_query(database.sql, database.from_)
        parts = _parts(_tables(paths), columns.unit)
    _check_units(parts, label, regression)
    total = sum(table.size for _, table in parts)
    further = [name for name in (group, cluster) if name is not None]
    names = _inputs(parts[0][1], {label, columns.unit, *further}, columns.inputs or [])
    _warn_of_texts([table for _, table in parts], names)
    stream = units_of(parts, label, names, further, numbers=regression)
    model = model or "hgb"
    make = factory(model, label, classes, numbers=regression)
    place = None if out is None else local_path(out, "--out")
    further_on = "the same command goes on from here" if out else "with --out it would go on"
    # Models of small memories gain nothing from threads of BLAS, which would wait for each other.
    with ui.stoppable(further_on), threadpool_limits(1, "blas"), ui.Progress() as bar:

        def told(part: str) -> Callable[[int, int, str], None]:
            return lambda done, of, _: bar.report(done, of, part)

        trial = try_stream(
            stream,
            make,
            chosen,
            deciding,
            capacity=_capacity(capacity, total),
            seeds=seeds or 5,
            group=group,
            cluster=cluster,
            folder=place,
            learner=f"{model}, {'numbers' if regression else classes or 'classes found'}",
            workers=workers,
            budget=seconds,
            progress=told,
        )
    document = trial.document()
    if as_json:
        ui.print_json(document)
    else:
        _show(trial, document)
    if place is not None:
        _write(trial, document, place)


def _write(trial: Trial, document: Mapping[str, Any], out: Path) -> None:
    from memento.report.backtest import write

    tables.write(out / _TABLE, trial.comparison.table)
    write(document, out / _PAGE)
    ui.say(f"{out / _PAGE}: the page; {out / _TABLE}: the table", err=True)


def _show(trial: Trial, document: Mapping[str, Any]) -> None:
    """Print gains, triggers and the verdict."""
    from memento.report.backtest import gain_text

    measures = ("mean", "median", "worst1", "balanced_accuracy", "worst_group")
    arms = document["arms"]
    known = [m for m in measures if any(m in arm["measures"] for arm in arms.values())]
    rows = [
        [name, *(gain_text(arm["measures"].get(m)) for m in known), f"{arm['trainings']:.0f}"]
        for name, arm in arms.items()
    ]
    ui.print_table(("memory", *known, "trainings"), rows)
    figures = [
        [name, f"{facts.trainings:.1f}", f"{facts.cost:+.4f}", f"{facts.false_alarms:.1f}"]
        for name, facts in trial.triggers.items()
    ]
    ui.print_table(("trigger", "trainings", "cost", "false alarms"), figures)
    ui.say(trial.verdict)


# --- what is given ---------------------------------------------------------------------------


def _seconds(budget: str | None) -> float:
    if budget is None:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", budget.strip())
    if not match or float(match[1]) <= 0:
        raise SettingError(f"--budget {budget!r}; give a time such as 90s, 10m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _capacity(text: str, total: int) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    number = float(match[1]) if match else 0.0
    share = bool(match and match[2])
    samples = int(number * total / 100) if share else int(number)
    if not match or samples < 1 or (share and number > 100) or (not share and number != samples):
        raise SettingError(
            f"--capacity {text!r} of a stream of {total:,} samples; give a whole number of samples "
            "such as 1000, or a share such as 5%"
        )
    return samples


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words) or len(set(words)) < len(words):
        raise SettingError(f"{option} {text!r}; give names with commas between them, each once")
    return words


def _policies(text: str, label: str, *, numbers: bool) -> dict[str, Policy]:
    words = _POLICIES[numbers] if text == "auto" else _words("--policies", text)
    chosen: dict[str, Policy] = {}
    for word in words:
        kind = plugins.kind_named(word, Policy, f"--policies {word}")
        if word not in _OWN:  # these are always there
            chosen[kind] = usual_policy(kind, label, numbers=numbers)
    return chosen


def _triggers(text: str, cluster: str | None) -> dict[str, Trigger]:
    """Triggers by name, without those that are always there; modules that are named are imported.

    Raises:
        SettingError: There is no such trigger, or it needs settings.
    """
    words = _TRIGGERS if text == "auto" else _words("--triggers", text)
    chosen: dict[str, Trigger] = {}
    for word in words:
        every = re.fullmatch(r"every-(\d+)", word)
        if word in ("never", "daily"):  # these are always there
            continue
        if every:
            chosen[word] = trigger("every", units=int(every[1]))
        elif word == OnArrivals.kind:
            chosen[word] = OnArrivals(cluster=cluster)
        else:
            kind = plugins.kind_named(word, Trigger, f"--triggers {word}")
            chosen[kind] = trigger(kind)
    return chosen


def _tables(files: Sequence[Path]) -> list[tuple[str, Samples]]:
    read = [(file, tables.read(file)) for file in files]
    stems = [re.sub(r"\.(parquet|pq|[ct]sv|arrow|feather|ipc|npz)(\.gz)?$", "", f.name, flags=re.I)
             for f in files]  # fmt: skip
    names = stems if len(set(stems)) == len(stems) else [str(file) for file in files]
    return [(name, table) for name, (_, table) in zip(names, read, strict=True)]


def _parts(files: Sequence[tuple[str, Samples]], unit: str | None) -> list[tuple[str, Samples]]:
    """The tables of units: of the files, or by a column."""
    if unit is None:
        if len(files) == 1:
            raise SettingError(
                f"one file is one unit; name the column that tells units apart with --unit, of "
                f"{', '.join(files[0][1])}"
            )
        return list(files)
    for name, table in files:
        if unit not in table:
            raise SchemaError(f"{name} has no column {unit!r} (--unit); it has {', '.join(table)}")
    table = Samples.concat([part for _, part in files])
    column = table[unit]
    if missing.lacking(column).any():
        raise SchemaError(f"column {unit!r} (--unit) has missing values; leave these rows out")
    values, first, numbers = np.unique(column, return_index=True, return_inverse=True)
    # Texts in the order in which they come, numbers and times in their own.
    order = np.argsort(first) if column.dtype.kind in "US" else np.arange(len(values))
    return [(str(values[i]), table.take(np.flatnonzero(numbers == i))) for i in order]


def _check_units(parts: Sequence[tuple[str, Samples]], label: str, regression: bool) -> None:
    """Raise unless there are enough units, with labels of the kind that is asked for."""
    if len(parts) < 6:
        raise SettingError(
            f"{len(parts)} units; give at least 6: the first three never count, and of fewer than "
            "three nothing can be said"
        )
    for name, table in parts:
        if label not in table:
            raise SchemaError(
                f"unit {name!r} has no column {label!r} (--label); it has {', '.join(table)}"
            )
        labels = table[label]
        known = labels[~missing.lacking(labels)]
        if known.dtype.kind == "f" and not regression and (known != np.trunc(known)).any():
            raise SettingError(
                f"the labels in {label!r} have fractions, such as {known[known % 1 != 0][0]}; "
                "give --regression"
            )
    if all(missing.lacking(table[label]).all() for _, table in parts[3:]):
        raise SchemaError(
            f"no unit after the third has a value in {label!r} (--label), so nothing can be judged"
        )


def _warn_of_texts(parts: Sequence[Samples], names: Sequence[str]) -> None:
    """Say which inputs are texts because of a few values: most of them are numbers."""
    for name in names:
        texts = [part[name] for part in parts if name in part and part[name].dtype.kind == "U"]
        values, counts = np.unique(np.concatenate(texts or [np.empty(0, "U1")]), return_counts=True)
        others = np.array([not tables.is_number_or_gap(value) for value in values], bool)
        known = int(counts[values != ""].sum())
        few = int(counts[others].sum())
        if 0 < few <= known * _FEW_TEXTS:
            ui.warn(
                f"column {name!r} is taken as text, as {few:,} of its {known:,} values cannot be "
                f"read as numbers, such as {str(values[others][0])!r}; make them empty, or leave "
                "the column out with --inputs"
            )


def _inputs(table: Samples, taken: set[str | None], patterns: Sequence[str]) -> list[str]:
    others = [name for name in table if name not in taken and name != "id"]
    if not patterns:
        return others
    matching = [n for n in others if any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    if not matching:
        raise SettingError(
            f"--inputs {' '.join(patterns)} matches none of {', '.join(others) or 'no columns'}"
        )
    return matching
