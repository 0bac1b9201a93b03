"""Options that several commands of `memento puffer` share, and what they mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memento.errors import SettingError

if TYPE_CHECKING:
    from memento_puffer.predictor.ttp_training import TrainingSettings

__all__ = [
    "Cc",
    "Days",
    "Epochs",
    "LearningRate",
    "Seed",
    "SkipMissing",
    "Source",
    "Stored",
    "To",
    "training_settings",
]

Days = Annotated[str, typer.Argument(metavar="DAYS", help="2021-10-17, or 2021-10-17..2021-10-23.")]
Source = Annotated[
    Path,
    typer.Option(
        "--from", metavar="DIR", help="Where the days are: files, or a folder for each day."
    ),
]
Stored = Annotated[
    Path,
    typer.Option("--from", metavar="DIR", help="Days, or what `memento puffer features` made."),
]
To = Annotated[Path, typer.Option(metavar="DIR", help="A folder for each day is made in it.")]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out days that have no files.")
]
Cc = Annotated[
    str | None, typer.Option(help="Keep streams over this congestion control only, as bbr.")
]
Epochs = Annotated[int | None, typer.Option(help="At most; default: as --as says.")]
LearningRate = Annotated[float | None, typer.Option(help="Default: as --as says.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


def training_settings(
    name: str,
    epochs: int | None,
    learning_rate: float | None,
    seed: int = 0,
) -> TrainingSettings:
    """How networks are trained, by the name that --as gives, and what other options change.

    Args:
        name: "quick", "memento", "artefact" or "puffer".
        epochs: At most so many, also from random weights; None as named.
        learning_rate: None as named.
        seed: Added to that of the settings.

    Raises:
        SettingError: The name is unknown, or a value does not fit.
    """
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
