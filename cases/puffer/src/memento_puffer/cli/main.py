"""`memento puffer`: days of Puffer, downloaded or simulated, to predictors and statistics."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.progress import DownloadColumn, TransferSpeedColumn

from memento.arguments import number, require, whole
from memento.cli import packages, ui
from memento.cli.commands import Commands
from memento.cli.options import AsJson
from memento.days import day_of, days_from, is_day, parse_days
from memento.errors import (
    DamagedError,
    ForeignError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import storage_errors
from memento_puffer.cli import deploy
from memento_puffer.cli.days import checked, has_chunks, stored
from memento_puffer.cli.options import Cc, DayOptions, Seed, StoredDayOptions, TrainingOptions
from memento_puffer.cli.replay import replay

if TYPE_CHECKING:
    from memento.policies import Policy
    from memento_puffer.data.schema import Day
    from memento_puffer.predictor.ttp import Ttp
    from memento_puffer.streaming.simulator import Scheme
    from memento_puffer.streaming.traces import Shift

__all__ = ["app"]

packages.declare(
    {
        "demo": ("polars", "matplotlib", "jinja2", "pyarrow if traces"),
        "puffer download": (),
        "puffer simulate": ("polars", "torch if model", "pyarrow if traces"),
        "puffer features": ("polars",),
        "puffer train": ("polars", "torch"),
        "puffer analyze": ("polars", "matplotlib", "jinja2", "torch if model"),
        "puffer replay": ("polars", "torch if start", "torch if published"),
        "puffer deploy init": ("torch if base",),
        "puffer deploy configure": (),
        "puffer deploy run": ("polars", "torch"),
        "puffer deploy status": (),
        "puffer deploy rollback": (),
        "puffer deploy record": ("matplotlib if figure",),
        "puffer record": ("matplotlib if figure",),
    }
)

app = Commands(
    help="Video streaming: Puffer's data release, its predictor and controllers, and a simulator.",
    no_args_is_help=True,
)

app.add_typer(deploy.app, name="deploy")
app.command()(replay)
app.command()(deploy.record)

# -------------------------------------------------------------------------------------- download


@app.command()
def download(
    days: str,
    to: Path,
    kinds: str | None = None,
    models: bool = False,
    wait: float = 0.0,
    parallel: int = 4,
    data_url: str | None = None,
    models_url: str | None = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fetch days of the data release; the same call again goes on, or has nothing to do.

    Exits with 1 if a file failed, is late, or is missing and not known to be.

    Args:
        days (DAYS): 2021-10-17, or 2021-10-17..2021-10-23.
        to (--to DIR): A folder for each day is made in it.
        kinds: Tables to fetch, with commas between; default: all, and the experiment settings.
        models: Also the predictor that Puffer trained that day.
        wait: Hours to keep asking for files of young days; 0: ask once.
        parallel (-j): Files at a time.
        data_url: Where the release lies. Default: Puffer's bucket.
        models_url: Where models lie. Default: Puffer's bucket.

    Example:
        memento puffer download 2021-10-17..2021-10-23 --to days
    """
    from memento_puffer.data import download as case

    require("--wait", wait, number(0, words="hours of at least 0"))
    chosen = [k.strip() for k in kinds.split(",")] if kinds else list(case.DEFAULT_KINDS)
    chosen += [case.MODEL] if models and case.MODEL not in chosen else []
    with ui.Progress(DownloadColumn(), TransferSpeedColumn()) as bar:
        result = case.download(
            days,
            to,
            kinds=chosen,
            data_url=data_url or case.DATA_URL,
            models_url=models_url or case.MODELS_URL,
            parallel=parallel,
            patience=case.Patience(wait=wait * 3600),
            seed=seed,
            progress=bar.report,
        )
    rows = result.to_rows()
    ui.show(
        ("day", "file", "state", "bytes", ""),
        [
            [r["day"], r["kind"], r["state"], f"{r['bytes']:,}" if r["bytes"] else "",
             r["error"] or ("holds no rows" if r["empty"] else "")]
            for r in rows
        ],
    )  # fmt: skip
    ui.answer(as_json, {"state": result.state, "bytes": result.bytes, "files": rows})
    if result.state != "done":
        raise typer.Exit(1)


# -------------------------------------------------------------------------------------- simulate


@app.command()
def simulate(
    days: str,
    to: Path,
    sessions: int = 200,
    schemes: str = "linear_bba,mpc,robust_mpc,bola_basic_v1",
    model: list[str] | None = None,
    paired: bool = False,
    shift: list[str] | None = None,
    drift: float | None = None,
    traces: Path | None = None,
    traces_as: Annotated[str | None, typer.Option("--format")] = None,
    origin: str | None = None,
    form: str = "csv",
    content: bool = True,
    calibrate: bool = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Let viewers stream for days, and write what Puffer would have published of them.

    Args:
        days (DAYS): 2021-10-17, or 2021-10-17..2021-10-23.
        to (--to DIR): A folder for each day is made in it.
        sessions: Viewers of a day.
        schemes: What sessions are assigned to: linear_bba, mpc, robust_mpc, bola_basic_v1,
            bola_basic_v2, and with --model also puffer_ttp, puffer_ttp_mle and
            puffer_ttp_no_tcp_info.
        model ([NAME=]DIR): A predictor to run Fugu with, and what to call that scheme. Repeatable.
        paired: Serve every viewer with every scheme.
        shift (KIND:DAY): From DAY on: new-access, halved-capacity or new-congestion-control.
            Repeatable.
        drift: Scale of the changes from day to day; default: 1.
        traces (FILE): Recorded paths, in a file or a folder of files, to play again.
        traces_as (--format): parquet (trace_id, seconds, rate in MB/s), mahimahi, norway, belgium
            or fcc; default: what --traces looks like.
        origin: The population's first day; default: the first of DAYS. Give it to add days to those
            of an earlier call.
        form: csv, csv.gz or parquet.
        content: Write video_size and ssim, all that was on: 0.3 GB of CSV a day, however few
            sessions there are.
        calibrate: Compare each day with Puffer's published figures.

    Example:
        memento puffer simulate 2021-10-17..2021-10-23 --to days --sessions 200
    """
    from memento_puffer.data.release import write_simulated_day
    from memento_puffer.streaming import calibration
    from memento_puffer.streaming.simulator import Simulation

    names = parse_days(days)
    require("--sessions", sessions, whole())
    first = names[0] if origin is None else parse_days(origin)[0]
    source = _population(traces, traces_as, shift or (), drift, first, seed)
    assigned = _schemes(schemes, model or ())
    simulation = Simulation(assigned, population=source, paired=paired, seed=seed)
    facts: dict[str, Any] = {}
    with ui.Progress() as bar:
        for name in names:
            number = _number(name, first)
            task = bar.add_task(name, total=1.0)

            def tell(what: str, share: float, name: str = name, task: Any = task) -> None:
                bar.update(task, description=f"{name}: {what}", completed=share)

            write_simulated_day(
                to / name,
                name,
                simulation,
                number,
                sessions=sessions,
                form=form,
                content=content,
                progress=tell,
            )
            facts[name] = {"folder": str(to / name)}
            if calibrate:
                facts[name]["calibration"] = ui.columns(calibration.calibrate(to / name).table)
    if calibrate:
        for name in names:
            ui.say(name, err=True)
            ui.show_rows(ui.rows(facts[name]["calibration"]))
    ui.answer(as_json, {"days": facts})


def _population(
    traces: Path | None,
    traces_as: str | None,
    shift: Sequence[str],
    drift: float | None,
    first: str,
    seed: int,
) -> Any:
    """Whose paths are simulated: those of the model, with its changes, or recorded ones."""
    from memento_puffer.streaming.trace_files import read_paths
    from memento_puffer.streaming.traces import Population

    if traces is not None and (shift or drift is not None):
        raise SettingError(
            f"--{'shift' if shift else 'drift'} changes paths of the model, and --traces plays "
            "recorded ones; leave out one of the two"
        )
    if traces is None and traces_as is not None:
        raise SettingError(
            f"--format {traces_as} is of recorded paths; name their file in --traces"
        )
    shifts = tuple(_shift(text, first) for text in shift)
    population = Population(seed=seed, shifts=shifts, drift=1.0 if drift is None else drift)
    return population if traces is None else read_paths(traces, traces_as, population)


_FUGU = "puffer_ttp"


def _schemes(names: str, models: Sequence[str]) -> list[Scheme]:
    """Controllers by name, and a Fugu for each model.

    Raises:
        SettingError: There is no such controller, it lacks a model, or nothing was named.
    """
    from memento_puffer.predictor.ttp import Ttp
    from memento_puffer.streaming.abr import Fugu, named_controllers
    from memento_puffer.streaming.simulator import Scheme

    chosen, fugus = [], []
    for name in [n.strip() for n in names.split(",") if n.strip()]:
        if name not in named_controllers:
            raise SettingError(f"no scheme {name!r}; give some of {', '.join(named_controllers)}")
        controller = named_controllers[name]
        if not isinstance(controller, Fugu):
            chosen.append(Scheme(name, controller))
        elif not models:
            raise SettingError(f"scheme {name!r} needs a predictor; give --model DIR")
        else:
            fugus.append(name)
    fugus = fugus or [_FUGU]
    for text in models:
        label, equals, folder = text.partition("=")
        folder = folder if equals else label
        ttp = Ttp.read(folder)
        for fugu in fugus:
            # Of several Fugus with one predictor, the kind tells them apart.
            kind = fugu.removeprefix(_FUGU) if len(fugus) > 1 else ""
            name = f"{label}{kind}" if equals else fugu
            chosen.append(Scheme(name, named_controllers[fugu], ttp))
    if not chosen:
        raise SettingError("no scheme to assign sessions to; give --schemes or --model")
    return chosen


def _shift(text: str, first: str) -> Shift:
    from memento_puffer.streaming.traces import SHIFTS, Shift

    kind, _, day = text.partition(":")
    name = kind.replace("-", "_")
    if name not in SHIFTS or not day:
        known = ", ".join(SHIFTS).replace("_", "-")
        raise SettingError(f"--shift {text!r}; give KIND:DAY with KIND one of {known}")
    return Shift.named(name, _number(parse_days(day)[0], first))


def _number(day: str, first: str) -> int:
    number = (day_of(day) - day_of(first)).days
    if number < 0:
        raise SettingError(f"day {day} is before {first}, the population's first; see --origin")
    return number


# -------------------------------------------------------------------------------------- features


@app.command()
def features(
    days: DayOptions, to: Path, cc: Cc = None, quality: bool = False, as_json: AsJson = False
) -> None:
    """Read days and store what the predictor learns from; what is there is not made again.

    Of several days, one whose files cannot be used is left out, and the exit code is 1.

    Args:
        to (--to DIR): A folder for each day is made in it.
        quality: Also look for all that is wrong with the files, in every table.

    Example:
        memento puffer features 2021-10-17..2021-10-23 --from days --to features
    """
    from memento_puffer.data.features import features_of
    from memento_puffer.data.inspection import inspect

    present = checked(days, has_chunks)
    made: dict[str, dict[str, Any]] = {}
    met: list[tuple[str, str, str, int | None]] = []
    left: dict[str, str] = {}
    with _writable("write features", to), ui.progress_of("features", len(present)) as tell:
        for done, (name, day) in enumerate(present.items()):
            tell(done, now=f"{name}: features")
            with _left_out(name, left, len(present)):
                stored_day = features_of(day, to / name, cc=cc)
                report = inspect(day) if quality else None
                made[name] = {"streams": len(stored_day.streams), **stored_day.counts}
                if report is not None:
                    made[name]["quality"] = report.to_json()
                    met += [(name, *row) for row in report.to_rows()]
    sizes = ("streams", "sent", "acked", "chunks")
    ui.show(("day", *sizes), [[n, *(f"{row[c]:,}" for c in sizes)] for n, row in made.items()])
    faults = [
        (name, fault, f"{count:,}")
        for name, row in made.items()
        for fault, count in row.items()
        if fault not in (*sizes, "quality") and count
    ]
    if faults:
        ui.show(("day", "of these", "count"), faults)
    if met:
        rows = [[*row[:-1], "" if row[-1] is None else f"{row[-1]:,}"] for row in met]
        ui.show(("day", "file", "found", "count"), rows)
    for name, row in made.items():
        if not row["sent"]:
            ui.warn(f"{name}: nobody streamed; its tables hold headers and no row")
        if not _has_settings(present[name]):
            ui.warn(f"{name}: no logs/expt_settings, so no stream has a scheme; analyses need it")
    ui.answer(as_json, {"days": made, "left_out": left})
    if left:
        raise typer.Exit(1)


@contextlib.contextmanager
def _left_out(name: str, left: dict[str, str], days: int) -> Iterator[None]:
    """A day of several whose files cannot be used becomes an outcome with its reason.

    Raises:
        DamagedError, ForeignError, SchemaError: There is no other day.
    """
    try:
        yield
    except (DamagedError, ForeignError, SchemaError) as error:
        if len(left) + 1 == days:
            raise
        left[name] = str(error)
        ui.warn(f"{name} is left out: {error}")


def _has_settings(day: Day) -> bool:
    try:
        return bool(day.experiments)
    except DamagedError:
        raise
    except StorageError:
        return False


# ----------------------------------------------------------------------------------------- train


@dataclass(frozen=True)
class FullTrainingOptions(TrainingOptions):
    """The same, by default as the paper does it.

    Attributes:
        settings (--as): quick, memento, artefact or puffer: how to train.
    """

    settings: str = "memento"


@app.command()
def train(
    days: StoredDayOptions,
    training: FullTrainingOptions,
    to: Path,
    start: Path | None = None,
    select: str = "daily",
    capacity: int = 1_000_000,
    checkpoint: Path | None = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train the five networks on days and write them as Puffer's servers read them.

    Args:
        to (--to DIR): Receives the fifteen files.
        start (DIR): Predictor to go on from. Default: random weights.
        select: daily: Fugu's, 14 days of which recent ones weigh more; or random, memento,
            density-reservoir (the last two compare predictions, and need --start).
        capacity: Samples to train on, of each horizon.
        checkpoint (DIR): Save the state there now and then, and go on from it.

    Example:
        memento puffer train 2021-10-17..2021-10-22 --from features --to model
    """
    from memento_puffer.predictor import training_sets
    from memento_puffer.predictor.ttp import Ttp

    chosen = training.chosen(seed)
    base = Ttp.read(start) if start is not None else None
    policy = _policy(select, base is not None)
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise ForeignError(
            f"--to {to} is there already; a model is never overwritten, so name a new folder"
        )
    places = stored(days).values()
    networks, facts = [], []
    with _writable("write the model", to.parent), ui.Progress() as bar:
        for horizon in range(5):
            network = base[horizon] if base is not None else None
            reading = bar.track(places, description=f"horizon {horizon}: samples")
            read = (place.features() for place in reading)
            memory = training_sets.training_set(
                read, horizon, policy, capacity, network=network, seed=seed
            )
            losses: list[float] = []
            on_epoch = functools.partial(_tell_epoch, bar, f"horizon {horizon}: training", losses)
            folder = checkpoint / f"horizon-{horizon}" if checkpoint is not None else None
            networks.append(
                training_sets.train(memory, network, chosen, checkpoint=folder, on_epoch=on_epoch)
            )
            best = min(losses) if losses else None  # none where the checkpoint was of the last one
            facts.append(
                {"horizon": horizon, "samples": len(memory), "epochs": len(losses), "loss": best}
            )
        Ttp(tuple(networks)).write(to)
    ui.show(
        ("horizon", "samples", "epochs", "best loss"),
        [[n, f"{size:,}", epochs, "" if loss is None else f"{loss:.4f}"]
         for n, size, epochs, loss in (fact.values() for fact in facts)],
    )  # fmt: skip
    ui.answer(as_json, {"model": str(to), "horizons": facts})


def _tell_epoch(
    bar: ui.Progress, name: str, losses: list[float], done: int, most: int, loss: float
) -> None:
    losses.append(loss)
    bar.report(done, most, name)


def _policy(name: str, predictions: bool) -> Policy:
    from memento_puffer.studies import arms

    try:
        name = arms.named(name, _SELECTING)
    except SettingError as error:
        raise SettingError(f"--select: {error}") from error
    if name in ("memento", "density-reservoir") and not predictions:
        raise SettingError(f"--select {name} compares predictions; give a predictor with --start")
    return arms.policy_of(name)


_SELECTING = ("daily", "random", "memento", "density-reservoir")


# --------------------------------------------------------------------------------------- analyze


@app.command()
def analyze(
    days: DayOptions,
    out: Path,
    model: list[str] | None = None,
    reference: str | None = None,
    cc: Cc = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Stalls, quality and predictions of each scheme: tables, figures and a page.

    Of several days, one whose files cannot be used is left out, and the exit code is 1.

    Args:
        out (--out DIR): Receives tables, figures and a page.
        model (SCHEME=DIR): The predictor of a scheme; {day} in DIR stands for the day, and DIR may
            hold a folder for each. Of a variant of the published deployment each day has that of
            the last training. Repeatable.
        reference: Scheme that others are compared with; default: the first by name.

    Example:
        memento puffer analyze 2021-10-24 --from days --out report
    """
    from memento_puffer.quality import analysis

    models = dict(_model(text) for text in model or ())
    present = checked(days, analysis.check_complete)
    _check_schemes(present, reference, models)
    parts: list[analysis.DayAnalysis] = []
    left: dict[str, str] = {}
    with _writable("write the analysis", out):
        with ui.progress_of("analysis", len(present)) as tell:
            for done, (before, day) in enumerate(_with_previous(present)):
                tell(done, now=f"{day.name}: analysis")
                share = functools.partial(lambda done, share: tell(done + share), done)
                if before is not None and before.name in left:
                    before = None
                with _left_out(str(day.name), left, len(present)):
                    parts.append(
                        analysis.analyze_day(
                            day, models=models, previous=before, cc=cc, progress=share
                        )
                    )
        from memento_puffer.cli.analysis_report import write_report

        tables = analysis.gather(parts)
        shown = write_report(out, tables, reference, np.random.default_rng(seed))
    ui.show_rows(ui.rows(shown))
    ui.say(f"the report is in {out / 'report.html'}", err=True)
    answer = {"schemes": ui.rows(shown), "report": str(out / "report.html"), "left_out": left}
    ui.answer(as_json, answer)
    if left:
        raise typer.Exit(1)


def _model(text: str) -> tuple[str, Any]:
    """A scheme and its predictor: one, or a function of the day."""
    from memento_puffer.deployment.tree import PublishedModels, is_tree
    from memento_puffer.predictor.ttp import Ttp

    scheme, equals, folder = text.partition("=")
    if not equals:
        raise SettingError(f"--model {text!r}; give SCHEME=DIR")
    place = Path(folder)
    if place.is_dir() and any(is_day(path.name) for path in place.iterdir()):
        folder += "/{day}"
    if "{day}" not in folder:
        return scheme, PublishedModels(place) if is_tree(place) else Ttp.read(place)

    def of(day: str) -> Ttp | None:
        place = Path(folder.replace("{day}", day))
        return Ttp.read(place) if place.is_dir() else None

    return scheme, of


def _check_schemes(
    days: Mapping[str, Day], reference: str | None, models: Mapping[str, Any]
) -> None:
    """Refuse names that no experiment of these days has, before anything is computed."""
    from memento_puffer.quality.analysis import scheme_of

    known = {scheme_of(e.abr, name) for name, day in days.items() for e in day.experiments.values()}
    wanted = [("--model", name) for name in models]
    wanted += [("--reference", reference)] if reference is not None else []
    for option, name in wanted:
        if name not in known:
            raise SettingError(f"{option} {name!r}; there are {', '.join(sorted(known))}")


def _with_previous(days: Mapping[str, Day]) -> list[tuple[Day | None, Day]]:
    """Each day with the one before it, if that is the calendar's."""
    day_before = {days_from(name, 2)[1]: day for name, day in days.items()}
    return [(day_before.get(name), day) for name, day in days.items()]


@contextlib.contextmanager
def _writable(what: str, folder: Path) -> Iterator[None]:
    """Make a folder, and find out before anything is computed whether it can be written to.

    If the block fails, what was made and is empty goes again.
    """
    from memento_puffer.data.schema import made_folder

    with contextlib.ExitStack() as stack:
        with storage_errors(what, folder):
            stack.enter_context(made_folder(folder))
            with tempfile.TemporaryFile(dir=folder):
                pass
        yield
