"""`memento memory`: a memory on disk, for cron jobs and for programs in other languages.

Each command reads the folder, changes the memory in this process, and writes it back as one new
generation under the folder's lock. So whatever fails, the folder is as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from memento import snapshot
from memento.cli import models, settings, tables, ui
from memento.density import SampleSpace
from memento.errors import (
    DamagedError,
    ForeignError,
    InputError,
    ModelError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import storage_errors
from memento.memory import Memory
from memento.retrain import OnCoverage, Situation
from memento.samples import Samples

__all__ = ["app"]

RETRAIN = 10

app = typer.Typer(
    help="A memory on disk: a folder that cron jobs and programs in other languages can use.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the memory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=SOURCE",
        help="Read NAME from the file's column SOURCE; several names or a pattern ('yhat=p_*') are "
        "stacked into one column, patterns in natural order. Repeatable.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Predict with model.pt (TorchScript), model.onnx or module:function. Predictions that "
        "are held from another model are made again.",
    ),
]
Inputs = Annotated[str, typer.Option(help="Column that the model reads.")]
Predictions = Annotated[
    str | None,
    typer.Option(help="Column that the model's output goes to; default: the policy's only one."),
]
Softmax = Annotated[bool, typer.Option("--softmax", help="The model gives logits.")]


@app.command()
def init(
    folder: Folder,
    capacity: Annotated[int | None, typer.Option(help="Most samples to keep.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:CLASSES", help="Column of integer labels. Repeatable."),
    ] = None,
    probabilities: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column of predicted probabilities. Repeatable."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Column of real numbers. Repeatable."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="What decides who stays; default: memento.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples in a batch; by default 8 to 256, from the capacity.")
    ] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Kernel width; default 0.1.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of the discard draw; 0 is deterministic; default 0.01 or less."),
    ] = None,
    sort_by: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Columns that batches are formed by, first first."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Further setting of the policy."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the memory's generator; default 0.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="All of this from a TOML file instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an empty memory in DIR."""
    options = {
        "capacity": capacity, "labels": labels, "probabilities": probabilities, "values": values,
        "policy": policy, "batch-size": batch_size, "bandwidth": bandwidth,
        "temperature": temperature, "sort-by": sort_by, "set": set_, "seed": seed,
    }  # fmt: skip
    if config is not None:
        both = [name for name, value in options.items() if value not in (None, [])]
        if both:
            raise SettingError(f"--config and --{both[0]} are given; put it into {config}")
        chosen = settings.from_toml(config)
    else:
        chosen = settings.from_options(
            kind=policy or "memento",
            capacity=capacity,
            seed=seed,
            labels=labels or (),
            probabilities=probabilities or (),
            values=values or (),
            sort_by=sort_by,
            fields={"batch_size": batch_size, "bandwidth": bandwidth, "temperature": temperature},
            others=set_ or (),
        )
    memory = chosen.make()
    with storage_errors("make a memory", folder):
        if snapshot.exists(folder):
            raise StorageError(
                f"{folder} holds a memory already; choose another folder, or remove this one"
            )
        memory.save(folder)
    limit = "no limit" if memory.capacity is None else f"room for {memory.capacity:,} samples"
    _say(
        as_json,
        {"folder": str(folder), "capacity": memory.capacity, "policy": memory.policy.settings()},
        f"made {folder}: {limit}, {memory.policy!r}",
    )


@app.command()
def insert(
    folder: Folder,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Parquet, CSV, Arrow or NPZ files, or patterns."),
    ],
    map_: Map = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Columns to keep, after --map; default: all at the first insert, then those held.",
        ),
    ] = None,
    model: Model = None,
    inputs: Inputs = "x",
    predictions: Predictions = None,
    softmax: Softmax = False,
    as_json: AsJson = False,
) -> None:
    """Offer the samples of all FILEs, together as one insert; the policy decides which stay.

    All files are read and checked before anything changes.
    """
    maps = [tables.parse_map(text) for text in map_ or ()]
    wanted = [name.strip() for name in columns.split(",")] if columns else None
    paths = tables.expand(files)
    predictor = models.load_model(model) if model else None
    with _changing(folder) as memory:
        target = _target(memory, predictions) if predictor else None
        if predictor is None and memory.model is not None:
            ui.warn(
                "the predictions held were made with --model; those of this insert come from its "
                "files, and the two should be of one model"
            )
        if wanted is None and memory.samples:
            wanted = list(memory.samples)
        parts = []
        with _progress("reading", len(paths)) as advance:
            for path in paths:
                # With a model, its inputs are read and its outputs are not.
                reading = (
                    None if wanted is None else _replace(wanted, target, inputs if model else None)
                )
                samples = tables.read(path, maps, reading)
                with tables.in_file(path, samples.size):
                    if predictor is not None and target is not None:
                        outputs = predictor.predict(_inputs(samples, inputs), softmax=softmax)
                        samples = samples.with_columns({target: outputs})
                        samples = samples if wanted is None else samples.select(wanted)
                    _require(samples, memory)
                    memory.check(samples)
                parts.append(samples)
                advance()
        fresh = tables.join(paths, parts)
        del parts
        if predictor is not None and target is not None:
            _predict_again(memory, predictor, target, inputs, softmax)
        report = memory.insert(fresh)
    _say(
        as_json,
        {
            "files": [str(path) for path in paths],
            "offered": report.offered,
            "kept": report.kept,
            "discarded": report.discarded,
            "size": len(memory),
            "seen": memory.seen,
        },
        f"offered {report.offered:,}, kept {report.kept:,}, discarded {report.discarded:,}; "
        f"{folder} holds {len(memory):,} of {memory.seen:,} seen",
    )


@app.command()
def status(
    folder: Folder,
    decide: Annotated[
        bool, typer.Option("--decide", help=f"Exit with {RETRAIN} when retraining is due.")
    ] = False,
    threshold: Annotated[
        float, typer.Option(help="Least coverage increase at which retraining is due.")
    ] = 0.1,
    permutations: Annotated[
        int, typer.Option(help="Permutations for the noise of the coverage increase; 0 for none.")
    ] = 39,
    coverage: Annotated[
        bool, typer.Option("--coverage/--no-coverage", help="Whether to compute the coverage.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Show size, ages, composition, and how much coverage rose since the last training."""
    if decide and not coverage:
        raise SettingError("--decide needs the coverage; leave --no-coverage out")
    memory = Memory.load(folder)
    facts: dict[str, Any] = {
        "folder": str(folder),
        "generation": snapshot.generation_of(folder),
        "policy": memory.policy.settings(),
        "size": len(memory),
        "capacity": memory.capacity,
        "seen": memory.seen,
        "inserts": memory.inserts,
        "model": memory.model,
        "columns": {name: _described(column) for name, column in memory.samples.items()},
        "ages": _ages(memory),
        "composition": _composition(memory),
        "weight": _total_weight(memory),
        "trained": None if memory.reference is None else memory.reference.size,
    }
    if coverage:
        significance = 0.05 if permutations else 1.0
        trigger = OnCoverage(threshold, significance, permutations=permutations)
        facts |= _decision(memory, trigger, required=decide)
    if as_json:
        ui.print_json(facts)
    else:
        _show(facts, memory)
    if decide and facts["decision"]["due"]:
        raise typer.Exit(RETRAIN)


@app.command()
def trained(
    folder: Folder,
    model: Model = None,
    inputs: Inputs = "x",
    predictions: Predictions = None,
    softmax: Softmax = False,
    as_json: AsJson = False,
) -> None:
    """Mark what is held as the last training set.

    With --model, predictions are made again first, by the model that was trained.
    """
    predictor = models.load_model(model) if model else None
    with _changing(folder) as memory:
        if not len(memory):
            raise SchemaError(f"{folder} holds no samples; insert some, train, then mark them")
        if predictor is not None:
            _predict_again(memory, predictor, _target(memory, predictions), inputs, softmax)
        memory.mark_trained()
    _say(
        as_json,
        {"folder": str(folder), "trained": len(memory), "model": memory.model},
        f"{folder}: {len(memory):,} samples are the last training set",
    )


@app.command()
def export(
    folder: Folder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .parquet, .arrow or .npz file.")],
    weights: Annotated[
        bool,
        typer.Option("--weights/--no-weights", help="Add weights for training, where known."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write what is held to a file: its columns, and `weight` where the policy can state it."""
    memory = Memory.load(folder)
    samples = memory.samples
    if not samples.size:
        raise SchemaError(f"{folder} holds no samples; insert some first")
    stated = memory.weights if weights else None
    if stated is not None:
        if "weight" in samples:
            raise SchemaError(
                f"{folder} holds a column 'weight' itself; export it with --no-weights"
            )
        samples = samples.with_columns(weight=stated)
    tables.write(out, samples)
    _say(
        as_json,
        {"out": str(out), "rows": samples.size, "columns": list(samples)},
        f"{out}: {samples.size:,} rows of {', '.join(samples)}",
    )


@app.command()
def check(folder: Folder, as_json: AsJson = False) -> None:
    """Verify the digests of all files and that the content is consistent."""
    memory = Memory.load(folder)
    problems = list(_problems(memory))
    if problems:
        raise DamagedError(f"{folder}: {problems[0]}; restore the folder from a copy")
    generation = snapshot.generation_of(folder)
    _say(
        as_json,
        {"folder": str(folder), "ok": True, "generation": generation, "size": len(memory)},
        f"{folder}: generation {generation} is complete and consistent, {len(memory):,} samples",
    )


# --- one change of a folder ------------------------------------------------------------------


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[Memory]:
    """The memory of a folder under its lock; written back unless something is raised."""
    with storage_errors("read", folder):
        if not folder.is_dir():
            raise StorageError(
                f"{folder} does not exist or is no folder; make a memory with: "
                f"memento memory init {folder}"
            )
        if not snapshot.exists(folder):
            raise ForeignError(
                f"{folder} holds no memory; make one in another folder with: memento memory init"
            )
    with contextlib.ExitStack() as stack:
        # Reading and writing name the folder in their errors themselves; what happens in between
        # (the files of samples, a model, a full disk elsewhere) is no fault of it.
        with storage_errors("lock", folder):
            lock = stack.enter_context(snapshot.lock_of(folder))
        memory = Memory.load(folder)
        yield memory
        memory.save(folder, lock=lock)


def _replace(names: Sequence[str], target: str | None, inputs: str | None) -> list[str]:
    found = [name for name in names if name != target]
    return found if inputs is None or inputs in found else [*found, inputs]


def _require(samples: Samples, memory: Memory) -> None:
    """A message that helps with --map, before the policy says what it misses."""
    for name in settings.needed_columns(memory.policy):
        if name not in samples:
            raise SchemaError(
                f"column {name!r} is missing; there are {', '.join(map(repr, samples))}; rename or "
                f"stack columns with --map {name}=SOURCE, or predict it with --model"
            )


def _inputs(samples: Samples, inputs: str) -> np.ndarray:
    if inputs not in samples:
        raise SchemaError(
            f"column {inputs!r}, which --model reads, is missing; there are "
            f"{', '.join(map(repr, samples))}; name another with --inputs, or stack columns with "
            f"--map '{inputs}=f_*'"
        )
    column = samples[inputs]
    if column.dtype.kind not in "biuf":
        raise SchemaError(f"column {inputs!r} is of type {column.dtype}; --model reads numbers")
    return column


def _target(memory: Memory, predictions: str | None) -> str:
    """The column for predictions: the one of probabilities that the policy compares."""
    if predictions is not None:
        return predictions
    names = [
        distance.columns[0]
        for distance in getattr(memory.policy, "distances", ())
        if distance.kind == "jensen-shannon-probabilities"
    ]
    if len(names) != 1:
        raise SettingError(
            f"the policy compares {len(names)} columns of probabilities; name the one for the "
            "model's output with --predictions"
        )
    return str(names[0])


def _predict_again(
    memory: Memory, predictor: models.Predictor, target: str, inputs: str, softmax: bool
) -> None:
    """Bring predictions that are held up to date: all have to come from one model."""
    if memory.model == predictor.digest:
        return
    if len(memory):
        samples = memory.samples
        if inputs not in samples:
            raise ModelError(
                f"the predictions held are of another model and the memory holds no column "
                f"{inputs!r} to make them again; keep it with --columns from the first insert on"
            )
        memory.annotate({target: predictor.predict(samples[inputs], softmax=softmax)})
        if memory.reference is not None:
            column = memory.reference[inputs]
            memory.annotate_reference({target: predictor.predict(column, softmax=softmax)})
    memory.model = predictor.digest


# --- facts -----------------------------------------------------------------------------------


def _ages(memory: Memory) -> list[dict[str, int]]:
    """How many samples are held of each insert that any is held of."""
    inserts, counts = np.unique(memory.arrivals, return_counts=True)
    return [
        {"insert": int(number), "age": memory.inserts - int(number), "held": int(count)}
        for number, count in zip(inserts, counts, strict=True)
    ]


def _composition(memory: Memory) -> dict[str, list[int]]:
    """Samples of each class, for every column of labels that the policy compares."""
    found = {}
    for distance in getattr(memory.policy, "distances", ()):
        if distance.kind == "jensen-shannon-labels" and len(memory):
            (name,) = distance.columns
            counts = np.bincount(memory.samples[name].astype(np.int64), minlength=distance.classes)
            found[name] = counts.tolist()
    return found


def _total_weight(memory: Memory) -> float | None:
    weights = memory.weights
    return None if weights is None else float(weights.sum())


def _decision(memory: Memory, trigger: OnCoverage, *, required: bool) -> dict[str, Any]:
    if not isinstance(memory.policy, SampleSpace):
        if required:
            raise SettingError(
                f"policy {memory.policy.kind!r} compares no columns, so there is no coverage to "
                "decide on; use memento or density-reservoir"
            )
        return {"coverage": None, "decision": None}
    if not len(memory):
        return {"coverage": None, "decision": {"due": False, "reason": "no samples are held"}}
    trained_at = None if memory.reference is None else 0
    with _progress("comparing coverage"):
        decision = trigger.decide(
            Situation(memory, trained_at=trained_at), np.random.default_rng(0)
        )
    numbers = {
        "increase": decision.value,
        "threshold": decision.threshold,
        "noise": decision.noise,
        "p_value": decision.p_value,
    }
    return {
        # JSON has no NaN, which stands for what was not computed.
        "coverage": {n: None if np.isnan(value) else value for n, value in numbers.items()},
        "decision": {"due": bool(decision.due), "reason": decision.reason},
    }


def _problems(memory: Memory) -> Iterator[str]:
    """What contradicts itself in a memory whose files are what was written."""
    size = len(memory)
    for name, column in memory.samples.items():
        if len(column) != size:
            yield f"column {name!r} has {len(column):,} rows; the memory has {size:,}"
    if memory.capacity is not None and size > memory.capacity:
        yield f"{size:,} samples are held; the capacity is {memory.capacity:,}"
    if memory.seen < size:
        yield f"{size:,} samples are held, but only {memory.seen:,} were seen"
    arrivals = memory.arrivals
    if len(arrivals) != size:
        yield f"{len(arrivals):,} arrivals for {size:,} samples"
    elif size and (
        arrivals[0] < 1 or arrivals[-1] > memory.inserts or (np.diff(arrivals) < 0).any()
    ):
        yield "the samples are not in order of arrival"
    for name, mark in memory.state.marks.items():
        if len(mark) != size:
            yield f"{len(mark):,} marks {name!r} for {size:,} samples"
    try:
        if size:
            memory.policy.check(memory.samples)
        if memory.reference is not None:
            memory.policy.check(memory.reference)
    except InputError as error:
        yield str(error)
    weights = memory.weights
    if weights is not None and not (np.isfinite(weights).all() and (weights > 0).all()):
        yield "some weights are not positive numbers"


# --- what the user sees ----------------------------------------------------------------------


def _say(as_json: bool, facts: Mapping[str, Any], text: str) -> None:
    ui.print_json(facts) if as_json else ui.say(text)


@contextlib.contextmanager
def _progress(what: str, total: int | None = None) -> Iterator[Any]:
    """A bar; work that is done at once, as most of it is, says nothing where nobody looks."""
    with ui.Progress(transient=True, after=5.0) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _described(column: np.ndarray) -> str:
    return f"{column.dtype}{list(column.shape[1:]) or ''}"


def _show(facts: Mapping[str, Any], memory: Memory) -> None:
    limit = "no limit" if memory.capacity is None else f"{memory.capacity:,}"
    held = f"{len(memory):,} of {limit}; {memory.seen:,} seen in {memory.inserts:,} inserts"
    rows: list[tuple[object, object]] = [
        ("held", held),
        ("policy", repr(memory.policy)),
        ("columns", ", ".join(f"{name}: {kind}" for name, kind in facts["columns"].items())),
    ]
    if facts["weight"] is not None:
        rows.append(("weight", f"{facts['weight']:,.0f} in total"))
    rows += _grouped(facts["ages"], len(memory))
    for name, counts in facts["composition"].items():
        shown = "  ".join(f"{label}: {count:,}" for label, count in enumerate(counts) if count)
        rows.append((f"{name} ({sum(1 for c in counts if c)} of {len(counts)})", shown))
    rows.append(
        ("trained on", "nothing yet" if facts["trained"] is None else f"{facts['trained']:,}")
    )
    if facts.get("decision"):
        due = "due" if facts["decision"]["due"] else "not due"
        rows.append(("retraining", f"{due}: {facts['decision']['reason']}"))
    ui.print_table((), rows)


def _grouped(ages: Sequence[Mapping[str, int]], size: int) -> Iterator[tuple[str, str]]:
    """Shares by age in inserts, in groups that double: 0, 1, 2-3, 4-7, ..."""
    low = high = 0
    while ages and low <= ages[0]["age"]:
        held = sum(group["held"] for group in ages if low <= group["age"] <= high)
        if held:
            span = f"{low}" if low == high else f"{low}-{high}"
            yield f"age {span}", f"{held:,} ({held / size:.1%})"
        low, high = high + 1, high * 2 + 1
