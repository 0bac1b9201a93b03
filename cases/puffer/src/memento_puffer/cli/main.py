"""`memento puffer`: days of Puffer, downloaded or simulated, to predictors and statistics."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import typer
from rich.progress import DownloadColumn, TransferSpeedColumn

from memento.cli import packages, ui
from memento.errors import DamagedError, ForeignError, SettingError, StorageError
from memento.files import storage_errors
from memento_puffer.cli import deploy
from memento_puffer.cli.replay import replay as replay_command

if TYPE_CHECKING:
    from memento.policies import Policy
    from memento.samples import Samples
    from memento_puffer.data.features import Features
    from memento_puffer.data.schema import Day
    from memento_puffer.predictor.ttp import Ttp
    from memento_puffer.predictor.ttp_training import TrainingSettings
    from memento_puffer.streaming.simulator import Scheme
    from memento_puffer.streaming.traces import Shift

__all__ = ["app"]

T = TypeVar("T")

packages.declare(
    {
        "demo": ("polars", "matplotlib", "pyarrow if traces"),
        "puffer download": (),
        "puffer simulate": ("polars", "torch if model", "pyarrow if traces"),
        "puffer features": ("polars",),
        "puffer train": ("polars", "torch"),
        "puffer analyze": ("polars", "matplotlib", "torch if model"),
        "puffer replay": ("polars", "torch if start", "torch if published"),
        "puffer deploy init": ("torch if base",),
        "puffer deploy configure": (),
        "puffer deploy run": ("polars", "torch"),
        "puffer deploy status": (),
        "puffer deploy rollback": (),
        "puffer deploy record": ("matplotlib if figure",),
    }
)

app = typer.Typer(
    help="Video streaming: Puffer's data release, its predictor and controllers, and a simulator.",
    no_args_is_help=True,
)

app.add_typer(deploy.app, name="deploy")

Days = Annotated[str, typer.Argument(metavar="DAYS", help="2021-10-17, or 2021-10-17..2021-10-23.")]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object.")]
Source = Annotated[
    Path,
    typer.Option(
        "--from", metavar="DIR", help="Where the days are: files, or a folder for each day."
    ),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out days that have no files.")
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


# -------------------------------------------------------------------------------------- download


@app.command()
def download(
    days: Days,
    to: Annotated[Path, typer.Option(metavar="DIR", help="A folder for each day is made in it.")],
    kinds: Annotated[
        str | None,
        typer.Option(
            help="Tables to fetch, with commas between; default: all, and the experiment settings."
        ),
    ] = None,
    models: Annotated[
        bool, typer.Option("--models", help="Also the predictor that Puffer trained that day.")
    ] = False,
    wait: Annotated[
        float, typer.Option(help="Hours to keep asking for files of young days; 0: ask once.")
    ] = 0.0,
    parallel: Annotated[int, typer.Option("-j", help="Files at a time.")] = 4,
    data_url: Annotated[
        str | None, typer.Option(help="Where the release lies. Default: Puffer's bucket.")
    ] = None,
    models_url: Annotated[
        str | None, typer.Option(help="Where models lie. Default: Puffer's bucket.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Fetch days of the data release; the same call again goes on, or has nothing to do.

    Exits with 1 if a file failed, is late, or is missing and not known to be.
    """
    from memento_puffer.data import download as case

    if not (wait >= 0 and math.isfinite(wait)):
        raise SettingError(f"--wait is {wait}; give hours of at least 0")
    chosen = [k.strip() for k in kinds.split(",")] if kinds else list(case.DEFAULT_KINDS)
    chosen += [case.MODEL] if models and case.MODEL not in chosen else []
    with ui.Progress(DownloadColumn(), TransferSpeedColumn()) as bar:
        tasks: dict[str, Any] = {}

        def progress(done: int, total: int | None, label: str) -> None:
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        result = case.download(
            days,
            to,
            kinds=chosen,
            data_url=data_url or case.DATA_URL,
            models_url=models_url or case.MODELS_URL,
            parallel=parallel,
            patience=case.Patience(wait=wait * 3600),
            seed=seed,
            progress=progress,
        )
    rows = result.to_rows()
    _show(
        ("day", "file", "state", "bytes", ""),
        [
            [r["day"], r["kind"], r["state"], f"{r['bytes']:,}" if r["bytes"] else "",
             r["error"] or ("holds no rows" if r["empty"] else "")]
            for r in rows
        ],
    )  # fmt: skip
    _end(as_json, {"state": result.state, "bytes": result.bytes, "files": rows})
    if result.state != "done":
        raise typer.Exit(1)


# -------------------------------------------------------------------------------------- simulate


@app.command()
def simulate(
    days: Days,
    to: Annotated[Path, typer.Option(metavar="DIR", help="A folder for each day is made in it.")],
    sessions: Annotated[int, typer.Option(help="Viewers of a day.")] = 200,
    schemes: Annotated[
        str,
        typer.Option(
            help="What sessions are assigned to: linear_bba, mpc, robust_mpc, bola_basic_v1, "
            "bola_basic_v2, and with --model also puffer_ttp, puffer_ttp_mle and "
            "puffer_ttp_no_tcp_info."
        ),
    ] = "linear_bba,mpc,robust_mpc,bola_basic_v1",
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR",
            help="A predictor to run Fugu with, and what to call that scheme. Repeatable.",
        ),
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Serve every viewer with every scheme.")
    ] = False,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:DAY",
            help="From DAY on: new-access, halved-capacity or new-congestion-control. Repeatable.",
        ),
    ] = None,
    drift: Annotated[
        float | None, typer.Option(help="Scale of the changes from day to day; default: 1.")
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Parquet with trace_id, seconds, rate: real paths."),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            help="The population's first day; default: the first of DAYS. Give it to add days to "
            "those of an earlier call."
        ),
    ] = None,
    form: Annotated[str, typer.Option(help="csv, csv.gz or parquet.")] = "csv",
    content: Annotated[
        bool,
        typer.Option(
            help="Write video_size and ssim, all that was on: 0.3 GB of CSV a day, however few "
            "sessions there are."
        ),
    ] = True,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Compare each day with Puffer's published figures.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Let viewers stream for days, and write what Puffer would have published of them."""
    from memento.days import parse_days
    from memento_puffer.data.release import write_simulated_day
    from memento_puffer.streaming import calibration
    from memento_puffer.streaming.paths import TracePaths
    from memento_puffer.streaming.simulator import Simulation
    from memento_puffer.streaming.traces import Population, Traces

    names = parse_days(days)
    if sessions < 1:
        raise SettingError(f"--sessions is {sessions}; give at least 1")
    if traces is not None and (shift or drift is not None):
        raise SettingError(
            f"--{'shift' if shift else 'drift'} changes paths of the model, and --traces plays "
            "recorded ones; leave out one of the two"
        )
    first = parse_days(origin)[0] if origin is not None else names[0]
    shifts = tuple(_shift(text, first) for text in shift or ())
    source: Any = Population(seed=seed, shifts=shifts, drift=1.0 if drift is None else drift)
    if traces is not None:
        source = TracePaths(Traces.read(traces), population=source)
    simulation = Simulation(
        _schemes(schemes, model or ()), population=source, paired=paired, seed=seed
    )
    facts: dict[str, Any] = {}
    with ui.Progress() as bar:
        for name in names:
            number = _number(name, first)
            task = bar.add_task(name, total=1000)
            write_simulated_day(
                to / name,
                name,
                simulation,
                number,
                sessions=sessions,
                form=form,
                content=content,
                progress=_advancer(bar, task, name),
            )
            facts[name] = {"folder": str(to / name)}
            if calibrate:
                facts[name]["calibration"] = _columns(calibration.calibrate(to / name).table)
    if calibrate:
        for name in names:
            ui.say(name, err=True)
            _show_columns(facts[name]["calibration"])
    _end(as_json, {"days": facts})


_FUGU = "puffer_ttp"


def _schemes(names: str, models: Sequence[str]) -> list[Scheme]:
    from memento_puffer.predictor.ttp import Ttp
    from memento_puffer.streaming.abr import Fugu, named_controllers
    from memento_puffer.streaming.simulator import Scheme

    found, fugus = [], []
    for name in [n.strip() for n in names.split(",") if n.strip()]:
        if name not in named_controllers:
            raise SettingError(f"no scheme {name!r}; give some of {', '.join(named_controllers)}")
        controller = named_controllers[name]
        if not isinstance(controller, Fugu):
            found.append(Scheme(name, controller))
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
            found.append(Scheme(name, named_controllers[fugu], ttp))
    if not found:
        raise SettingError("no scheme to assign sessions to; give --schemes or --model")
    return found


def _shift(text: str, first: str) -> Shift:
    from memento.days import parse_days
    from memento_puffer.streaming.traces import Shift

    kinds: dict[str, Callable[[int], Shift]] = {
        "new-access": Shift.new_access,
        "halved-capacity": Shift.halved_capacity,
        "new-congestion-control": Shift.new_congestion_control,
    }
    kind, _, day = text.partition(":")
    if kind not in kinds or not day:
        raise SettingError(f"--shift {text!r}; give KIND:DAY with KIND one of {', '.join(kinds)}")
    return kinds[kind](_number(parse_days(day)[0], first))


def _number(day: str, first: str) -> int:
    number = (dt.date.fromisoformat(day) - dt.date.fromisoformat(first)).days
    if number < 0:
        raise SettingError(f"day {day} is before {first}, the population's first; see --origin")
    return number


# -------------------------------------------------------------------------------------- features


@app.command()
def features(
    days: Days,
    source: Source,
    to: Annotated[Path, typer.Option(metavar="DIR", help="A folder for each day is made in it.")],
    cc: Annotated[
        str | None, typer.Option(help="Keep streams over this congestion control only, as bbr.")
    ] = None,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality", help="Also look for all that is wrong with the files, in every table."
        ),
    ] = False,
    skip_missing: SkipMissing = False,
    as_json: AsJson = False,
) -> None:
    """Read days and store what the predictor learns from; what is there is not made again."""
    from memento_puffer.data.features import features_of
    from memento_puffer.data.inspection import inspect

    present = _present(days, source, skip_missing, _has_chunks)
    found: dict[str, dict[str, Any]] = {}
    met: list[tuple[str, str, str, int | None]] = []
    with _writable("write features", to):
        for (name, day), _ in _step("features", present, lambda item: item[0]):
            made = features_of(day, to / name, cc=cc)
            found[name] = {"streams": len(made.streams), **made.counts}
            if quality:
                report = inspect(day)
                found[name]["quality"] = report.to_json()
                met += [(name, *row) for row in report.to_rows()]
    sizes = ("streams", "sent", "acked", "chunks")
    _show(("day", *sizes), [[n, *(f"{row[c]:,}" for c in sizes)] for n, row in found.items()])
    faults = [
        (name, fault, f"{count:,}")
        for name, row in found.items()
        for fault, count in row.items()
        if fault not in (*sizes, "quality") and count
    ]
    if faults:
        _show(("day", "of these", "count"), faults)
    if met:
        rows = [[*row[:-1], "" if row[-1] is None else f"{row[-1]:,}"] for row in met]
        _show(("day", "file", "found", "count"), rows)
    for name, day in present:
        if not _has_settings(day):
            ui.warn(f"{name}: no logs/expt_settings, so no stream has a scheme; analyses need it")
    _end(as_json, {"days": found})


# ----------------------------------------------------------------------------------------- train


@app.command()
def train(
    days: Days,
    source: Annotated[
        Path,
        typer.Option("--from", metavar="DIR", help="Days, or what `memento puffer features` made."),
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Receives the fifteen files.")],
    start: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Predictor to go on from. Default: random weights."),
    ] = None,
    select: Annotated[
        str,
        typer.Option(
            help="daily: Fugu's, 14 days of which recent ones weigh more; or random, memento, "
            "density-reservoir (the last two compare predictions, and need --start)."
        ),
    ] = "daily",
    capacity: Annotated[
        int, typer.Option(help="Samples to train on, of each horizon.")
    ] = 1_000_000,
    settings: Annotated[
        str, typer.Option("--as", help="quick, memento, artefact or puffer: how to train.")
    ] = "memento",
    epochs: Annotated[int | None, typer.Option(help="At most; default: as --as says.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: as --as says.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Save the state there now and then, and go on from it."),
    ] = None,
    skip_missing: SkipMissing = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train the five networks on days and write them as Puffer's servers read them."""
    from memento_puffer.predictor import training_sets
    from memento_puffer.predictor.ttp import Ttp

    chosen = _training(settings, epochs, learning_rate, seed)
    base = Ttp.read(start) if start is not None else None
    policy = _policy(select, base is not None)
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise ForeignError(
            f"--to {to} is there already; a model is never overwritten, so name a new folder"
        )
    places = _stored(days, source, skip_missing)
    networks, facts = [], []
    with _writable("write the model", to.parent), ui.Progress() as bar:
        for horizon in range(5):
            task = bar.add_task(f"horizon {horizon}: samples", total=len(places))
            network = base[horizon] if base is not None else None
            memory = training_sets.training_set(
                (_advance(bar, task, read()) for read in places),
                horizon,
                policy,
                capacity,
                network=network,
                seed=seed,
            )
            losses: list[float] = []
            task = bar.add_task(f"horizon {horizon}: training", total=None)

            def on_epoch(
                done: int,
                most: int,
                loss: float,
                losses: list[float] = losses,
                task: Any = task,
            ) -> None:
                losses.append(loss)
                bar.update(task, completed=done, total=most)

            folder = checkpoint / f"horizon-{horizon}" if checkpoint is not None else None
            networks.append(
                training_sets.train(memory, network, chosen, checkpoint=folder, on_epoch=on_epoch)
            )
            best = min(losses) if losses else None  # none where the checkpoint was of the last one
            facts.append(
                {"horizon": horizon, "samples": len(memory), "epochs": len(losses), "loss": best}
            )
        Ttp(tuple(networks)).write(to)
    _show(
        ("horizon", "samples", "epochs", "best loss"),
        [
            [f["horizon"], f"{f['samples']:,}", f["epochs"], _number_or_blank(f["loss"])]
            for f in facts
        ],
    )
    _end(as_json, {"model": str(to), "horizons": facts})


def _training(
    name: str, epochs: int | None, learning_rate: float | None, seed: int
) -> TrainingSettings:
    from dataclasses import replace

    from memento_puffer.predictor import ttp_training as kinds

    known = {
        "quick": kinds.AFFORDABLE,
        "memento": kinds.TrainingSettings(),
        "artefact": kinds.ARTEFACT,
        "puffer": kinds.PUFFER,
    }
    if name not in known:
        raise SettingError(f"--as {name}; give one of {', '.join(known)}")
    chosen = known[name]
    if epochs is not None:
        chosen = replace(chosen, epochs=epochs, scratch_epochs=epochs)
    if learning_rate is not None:
        chosen = replace(chosen, learning_rate=learning_rate)
    return replace(chosen, seed=chosen.seed + seed)


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


def _stored(days: str, source: Path, skip_missing: bool) -> list[Any]:
    """For each day a function that reads its features."""
    from memento.days import parse_days
    from memento_puffer.data.features import Features
    from memento_puffer.data.schema import Day

    found: list[Any] = []
    for name in parse_days(days):
        folder = source / name
        if (folder / "features.json").is_file():
            found.append(lambda folder=folder: Features.read(folder))
            continue
        try:
            day = Day.find(source, name)
        except StorageError:
            if skip_missing:
                continue
            raise
        _has_chunks(day)
        found.append(lambda day=day: Features.of_day(day))
    if not found:
        raise StorageError(f"{source}: none of the days {days}; check the path")
    return found


# --------------------------------------------------------------------------------------- analyze


@app.command()
def analyze(
    days: Days,
    source: Source,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives tables, figures and a page.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCHEME=DIR",
            help="The predictor of a scheme; {day} in DIR stands for the day. Repeatable.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Scheme that others are compared with; default: the first by name."),
    ] = None,
    cc: Annotated[
        str | None, typer.Option(help="Keep streams over this congestion control only, as bbr.")
    ] = None,
    skip_missing: SkipMissing = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Stalls, quality and predictions of each scheme: tables, figures and a page."""
    from memento_puffer.quality import analysis

    models = dict(_model(text) for text in model or ())
    found = _present(days, source, skip_missing, analysis.check_complete)
    _check_schemes(found, reference, models)
    with _writable("write the analysis", out):
        parts = [
            analysis.analyze_day(day, models=models, previous=before, cc=cc, progress=tell)
            for (before, day), tell in _step(
                "analysis", _with_previous(found), lambda pair: pair[1].name or ""
            )
        ]
        from memento_puffer.cli.analysis_report import write_report

        tables = analysis.gather(parts)
        shown = write_report(out, tables, reference, np.random.default_rng(seed))
    _show_columns(shown)
    ui.say(f"the report is in {out / 'report.html'}", err=True)
    _end(as_json, {"schemes": _rows(shown), "report": str(out / "report.html")})


def _model(text: str) -> tuple[str, Any]:
    from memento_puffer.predictor.ttp import Ttp

    scheme, equals, folder = text.partition("=")
    if not equals:
        raise SettingError(f"--model {text!r}; give SCHEME=DIR")
    if "{day}" not in folder:
        return scheme, Ttp.read(folder)

    def of(day: str) -> Ttp | None:
        place = Path(folder.replace("{day}", day))
        return Ttp.read(place) if place.is_dir() else None

    return scheme, of


def _check_schemes(
    days: Sequence[tuple[str, Day]], reference: str | None, models: Mapping[str, Any]
) -> None:
    """Refuse names that no experiment of these days has, before anything is computed."""
    from memento_puffer.quality.analysis import scheme_of

    known = {scheme_of(e.abr, name) for name, day in days for e in day.experiments.values()}
    wanted = [("--model", name) for name in models]
    wanted += [("--reference", reference)] if reference is not None else []
    for option, name in wanted:
        if name not in known:
            raise SettingError(f"{option} {name!r}; there are {', '.join(sorted(known))}")


def _with_previous(days: list[tuple[str, Day]]) -> list[tuple[Day | None, Day]]:
    """Each day with the one before it, if that is the calendar's."""
    pairs: list[tuple[Day | None, Day]] = []
    last: tuple[str, Day] | None = None
    for name, day in days:
        follows = last is not None and _number(name, last[0]) == 1
        pairs.append((last[1] if last is not None and follows else None, day))
        last = (name, day)
    return pairs


# ---------------------------------------------------------------------------------------- replay

app.command()(replay_command)


# ------------------------------------------------------------------------------ what all of them do


def _present(
    days: str, source: Path, skip_missing: bool, check: Callable[[Day], None]
) -> list[tuple[str, Day]]:
    """The days, found and checked before anything is computed."""
    from memento.days import parse_days
    from memento_puffer.data.schema import Day

    found = []
    for name in parse_days(days):
        try:
            found.append((name, Day.find(source, name)))
        except StorageError:
            if not skip_missing:
                raise
    if not found:
        raise StorageError(f"{source}: none of the days {days}; check the path")
    for _, day in found:
        check(day)
    return found


def _has_chunks(day: Day) -> None:
    for kind in ("video_sent", "video_acked"):
        day.path(kind)


def _has_settings(day: Day) -> bool:
    try:
        return bool(day.experiments)
    except DamagedError:
        raise
    except StorageError:
        return False


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


def _step(
    what: str, items: Sequence[T], name: Callable[[T], str]
) -> Iterator[tuple[T, Callable[[float], None]]]:
    """Each item, and what to call with the share of it that is done; a bar names it."""
    with ui.Progress() as bar:
        task = bar.add_task(what, total=len(items))
        for done, item in enumerate(items):
            bar.update(task, description=f"{name(item)}: {what}", completed=done)

            def tell(share: float, done: int = done) -> None:
                bar.update(task, completed=done + share)

            yield item, tell
        bar.update(task, completed=len(items))


def _advancer(bar: ui.Progress, task: Any, name: str) -> Callable[[str, float], None]:
    def update(what: str, share: float) -> None:
        bar.update(task, description=f"{name}: {what}", completed=round(1000 * share))

    return update


def _advance(bar: ui.Progress, task: Any, features: Features) -> Features:
    bar.advance(task)
    return features


def _show(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    ui.print_table(header, rows, err=True, right=range(1, len(header)))


def _columns(table: Samples | Mapping[str, Any]) -> dict[str, list[Any]]:
    """A table as JSON knows it: NaN becomes null."""
    return {name: [_finite(v) for v in np.asarray(table[name]).tolist()] for name in table}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(table: Samples | Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = _columns(table)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _show_columns(table: Samples | Mapping[str, Any]) -> None:
    rows = _rows({n: np.asarray(table[n]) for n in table})
    if rows:
        _show(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number_or_blank(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _end(as_json: bool, result: Mapping[str, Any]) -> None:
    if as_json:
        ui.print_json(result)
