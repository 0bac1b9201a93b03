"""Options that several commands of `memento puffer` share, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memento.errors import SettingError

if TYPE_CHECKING:
    from memento_puffer.predictor.ttp_training import TrainingSettings

__all__ = ["Cc", "DayOptions", "Seed", "StoredDayOptions", "TrainingOptions"]

Cc = Annotated[
    str | None, typer.Option(help="Keep streams over this congestion control only, as bbr.")
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


@dataclass(frozen=True)
class DayOptions:
    """Days with their files.

    Attributes:
        days (DAYS): 2021-10-17, or 2021-10-17..2021-10-23.
        source (--from DIR): Where the days are: files, or a folder for each day.
        skip_missing: Leave out days that have no files.
    """

    days: str
    source: Path
    skip_missing: bool = False


@dataclass(frozen=True)
class StoredDayOptions(DayOptions):
    """Days with their files, or their features.

    Attributes:
        source (--from DIR): Days, or what `memento puffer features` made.
    """


@dataclass(frozen=True)
class TrainingOptions:
    """How networks are trained.

    Attributes:
        settings (--as): quick, memento, artefact or puffer: how networks are trained.
        epochs: At most; default: as --as says.
        learning_rate: Default: as --as says.
    """

    settings: str = "quick"
    epochs: int | None = None
    learning_rate: float | None = None

    def chosen(self, seed: int = 0) -> TrainingSettings:
        """The settings of the name that --as gives, with what other options change.

        Args:
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
        if self.settings not in known:
            raise SettingError(f"--as {self.settings}; give one of {', '.join(known)}")
        chosen = known[self.settings]
        if self.epochs is not None:
            chosen = replace(chosen, epochs=self.epochs, scratch_epochs=self.epochs)
        if self.learning_rate is not None:
            chosen = replace(chosen, learning_rate=self.learning_rate)
        return replace(chosen, seed=chosen.seed + seed)
