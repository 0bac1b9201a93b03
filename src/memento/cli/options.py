"""Options that several commands of `memento memory` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memento.cli import tables

__all__ = [
    "AsJson",
    "Columns",
    "Encoding",
    "Folder",
    "Id",
    "Inputs",
    "Labels",
    "Map",
    "Model",
    "ModelFile",
    "ModelName",
    "Out",
    "Predictions",
    "Separator",
    "Set",
    "Softmax",
    "Table",
    "Types",
    "Weights",
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
