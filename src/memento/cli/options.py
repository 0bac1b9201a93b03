"""Options that several commands share, and those from which `memento memory init` makes a memory.

Each dataclass is an argument of commands, which have an option for each field; see `commands`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from memento.cli import completion, tables

__all__ = [
    "AsJson",
    "FileOptions",
    "Folder",
    "MemoryOptions",
    "ModelOptions",
    "NamedModelOptions",
    "Weights",
]

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the memory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Weights = Annotated[
    bool, typer.Option("--weights/--no-weights", help="Add weights for training, where known.")
]


@dataclass(frozen=True)
class FileOptions:
    """How files are read.

    Attributes:
        map_ (--map NAME=SOURCE): Read NAME from the file's column SOURCE; several names or a
            pattern ('yhat=p_*') are stacked into one column, patterns in natural order. Repeatable.
        types (NAME=TYPE): Read NAME as text, bool, int8, int16, int32, int64, uint8, uint16,
            uint32, uint64, float32, float64, date, datetime. Repeatable.
        separator (CHARACTER): Between the columns of CSV; default: found.
        encoding (NAME): Of CSV, such as latin-1; default: UTF-8.
    """

    map_: list[str] | None = None
    types: list[str] | None = None
    separator: str | None = None
    encoding: str | None = None

    def parse(self) -> tuple[list[tables.Mapped], tables.Reading]:
        """Columns to rename or stack, and how files are written.

        Raises:
            SettingError: One has another form.
        """
        maps = [tables.parse_map(text) for text in self.map_ or ()]
        return maps, tables.parse_reading(self.types or (), self.separator, self.encoding)


@dataclass(frozen=True)
class DatabaseOptions:
    """A database instead of files.

    Attributes:
        sql (QUERY): Take what this query gives; needs --from.
        from_ (--from URI): Address of the database: sqlite:///FILE or postgresql://USER@HOST/NAME.
    """

    sql: str | None = None
    from_: str | None = None


@dataclass(frozen=True)
class ModelOptions:
    """What predicts.

    Attributes:
        model (MODEL): Predict with model.pt (TorchScript: code, for models you trust), model.onnx
            or module:function. Predictions that are held from another model are made again.
        model_file (PATH): File that --model reads, such as its weights: another content is another
            model. Repeatable.
        inputs: Column that the model reads.
        predictions: Column that the model's output goes to; default: the policy's only one.
        softmax: The model gives logits.
    """

    model: str | None = None
    model_file: list[Path] | None = None
    inputs: str = "x"
    predictions: str | None = None
    softmax: bool = False


@dataclass(frozen=True)
class NamedModelOptions(ModelOptions):
    """What predicts, or has predicted.

    Attributes:
        model_name (NAME): Model that made the predictions in FILE.
    """

    model_name: str | None = None


@dataclass(frozen=True)
class MemoryOptions:
    """Settings of a memory, those of its policy among them.

    Attributes:
        capacity: Most samples to keep.
        seed: Of the memory's generator; default 0.
        id (NAME): Column that tells samples apart; default id.
        cluster (NAME): Column that says which rows belong together (a session, a customer):
            decisions count them as one. Default: rows are independent.
        witnesses (SHARE): Share of each insert that enters one insert late (a quarter of it never),
            so that the first one after a training can be compared; default 0.
        policy (NAME): What decides who stays: class-balanced-reservoir, daily-window,
            density-reservoir, facility-location, fifo, gradient-sample-selection, herding,
            k-center-greedy, loss-aware-reservoir, loss-reservoir, memento, metric,
            query-by-committee, reservoir, unbounded; or module:Class of your own. Default: memento.
        batch_size: Samples in a batch; by default 1 to 256, from the capacity.
        bandwidth: Kernel width; default 0.1.
        temperature: Of the discard draw; 0 is deterministic; default 0.01 or less.
        set_ (--set NAME=VALUE): Further setting of the policy. Repeatable.
        sort_by (A,B,...): Columns that batches are formed by, first first.
        labels (NAME[:CLASSES]): Column of labels: integers or texts, or integers from 0 to
            CLASSES - 1. Repeatable.
        probabilities (NAME): Column of predicted probabilities. Repeatable.
        values (NAME): Column of real numbers. Repeatable.
        config (FILE): All of this from a TOML file instead. There the distances that batches are
            compared by may be of any kind: jensen-shannon-densities, jensen-shannon-labels,
            jensen-shannon-probabilities, jensen-shannon-values, minkowski, sliced-wasserstein,
            wasserstein-cdfs, wasserstein-normals, wasserstein-values.
    """

    capacity: int | None = None
    seed: int | None = None
    id: str | None = None
    cluster: str | None = None
    witnesses: float | None = None
    policy: Annotated[str | None, typer.Option(autocompletion=completion.policies)] = None
    batch_size: int | None = None
    bandwidth: float | None = None
    temperature: float | None = None
    set_: list[str] | None = None
    sort_by: str | None = None
    labels: list[str] | None = None
    probabilities: list[str] | None = None
    values: list[str] | None = None
    config: Path | None = None
