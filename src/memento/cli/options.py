"""Options that several commands of `memento memory` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memento.cli import tables

__all__ = [
    "AsJson",
    "Bandwidth",
    "BatchSize",
    "Capacity",
    "Cluster",
    "Columns",
    "Config",
    "Encoding",
    "Folder",
    "Id",
    "Ids",
    "Inputs",
    "Labels",
    "Map",
    "Model",
    "ModelFile",
    "ModelName",
    "Out",
    "PolicyName",
    "Predictions",
    "Probabilities",
    "Seed",
    "Separator",
    "Set",
    "Softmax",
    "SortBy",
    "Table",
    "Temperature",
    "Types",
    "Values",
    "Weights",
    "Witnesses",
]

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
Labels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:CLASSES]",
        help="Column of labels: integers or texts, or integers from 0 to CLASSES - 1. Repeatable.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Further setting of the policy. Repeatable."),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--types",
        metavar="NAME=TYPE",
        help=f"Read NAME as {', '.join(tables.TYPES)}. Repeatable.",
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(metavar="CHARACTER", help="Between the columns of CSV; default: found."),
]
Encoding = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of CSV, such as latin-1; default: UTF-8.")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Predict with model.pt (TorchScript: code, for models you trust), "
        "model.onnx or module:function. Predictions that "
        "are held from another model are made again.",
    ),
]
ModelFile = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH",
        help="File that --model reads, such as its weights: another content is another model. "
        "Repeatable.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Model that made the predictions in FILE."),
]
Inputs = Annotated[str, typer.Option(help="Column that the model reads.")]
Predictions = Annotated[
    str | None,
    typer.Option(help="Column that the model's output goes to; default: the policy's only one."),
]
Softmax = Annotated[bool, typer.Option("--softmax", help="The model gives logits.")]
Id = Annotated[
    str | None,
    typer.Option("--id", metavar="NAME", help="Column of FILE that tells samples apart."),
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="Columns to take, after --map; default: all but --id."),
]
Weights = Annotated[
    bool, typer.Option("--weights/--no-weights", help="Add weights for training, where known.")
]
Table = Annotated[str, typer.Argument(metavar="FILE", help="A Parquet, CSV, Arrow or NPZ file.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A .parquet, .arrow or .npz file.")]

# Of `init` alone.
Capacity = Annotated[int | None, typer.Option(help="Most samples to keep.")]
Probabilities = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Column of predicted probabilities. Repeatable."),
]
Values = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Column of real numbers. Repeatable."),
]
PolicyName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What decides who stays, or module:Class of your own; default: memento.",
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(help="Samples in a batch; by default 1 to 256, from the capacity.")
]
Bandwidth = Annotated[float | None, typer.Option(help="Kernel width; default 0.1.")]
Temperature = Annotated[
    float | None,
    typer.Option(help="Of the discard draw; 0 is deterministic; default 0.01 or less."),
]
SortBy = Annotated[
    str | None,
    typer.Option(metavar="A,B,...", help="Columns that batches are formed by, first first."),
]
Seed = Annotated[int | None, typer.Option(help="Of the memory's generator; default 0.")]
Ids = Annotated[
    str | None,
    typer.Option("--id", metavar="NAME", help="Column that tells samples apart; default id."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column that says which rows belong together (a session, a customer): decisions "
        "count them as one. Default: rows are independent.",
    ),
]
Witnesses = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of each insert that enters one insert late (a quarter of it never), so "
        "that the first one after a training can be compared; default 0.",
    ),
]
Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="All of this from a TOML file instead.")
]
