"""What replays are compared: periods of days, scales, and the paper's tables with their arms.

The values are in ``contents.toml``; what each name means is said here.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento.days import days_from
from memento.settings import build, read
from memento_puffer.predictor.ttp_training import AFFORDABLE, TrainingSettings
from memento_puffer.studies.arms import REPLAYED

__all__ = [
    "CONTENTS",
    "FUGU_FEB",
    "GROUP",
    "LARGE",
    "PAPER",
    "PUBLISHED_DAYS",
    "REAL_DAYS",
    "REDUCED",
    "STUDIES",
    "Contents",
    "Period",
    "Scale",
    "arms_of",
    "replay_name",
]


@dataclass(frozen=True)
class Period:
    """Days in a row that replays run over.

    Attributes:
        name: In names of experiments.
        first: Its first day, as 2021-01-01.
        days: Number of days.
        shifts: Of a simulated period, what changes on which day: name of a constructor of `Shift`
            and the day, from 0. None: real days.
        seed: Of a simulated period.
    """

    name: str
    first: str
    days: int
    shifts: tuple[tuple[str, int], ...] | None = None
    seed: int = 0

    @property
    def simulated(self) -> bool:
        """Whether it is made here."""
        return self.shifts is not None

    @property
    def dates(self) -> list[str]:
        """Its days by name."""
        return days_from(self.first, self.days)


@dataclass(frozen=True)
class Scale:
    """How large experiments are.

    Attributes:
        prefix: In front of the names of tables and figures.
        periods: What is replayed. The first day of a simulated one only trains its static model.
        viewers: Sessions of a simulated day; about 1,200 samples each.
        capacity: Of memories, in samples; the paper's is a third of a day.
        batch_size: Samples in a batch.
        batches: The sizes that are compared.
        interval: Days between trainings, to judge memories.
        freeze_after: Days, in the freeze study.
        frozen: What the freeze study runs over; None: all periods.
        members: Models that ensembles remember.
        training: How networks are trained.
        hours: That a replay may take.
    """

    prefix: str
    periods: tuple[Period, ...]
    viewers: int
    capacity: int
    batch_size: int
    batches: tuple[int, ...]
    interval: int
    freeze_after: int
    frozen: Period | None = None
    members: int = 7
    training: TrainingSettings = AFFORDABLE
    hours: float = 1.0


_FILE = Path(__file__).with_suffix(".toml")
_DOCUMENT = read(_FILE)

REDUCED, LARGE, PAPER = (
    build(Scale, _DOCUMENT["scales"][name], str(_FILE)) for name in ("REDUCED", "LARGE", "PAPER")
)

#: Real days that a run of whole groups downloads and analyses.
REAL_DAYS = ("2021-10-17", "2022-02-18")
#: The days that the paper analyses; others than `REAL_DAYS` run where a pattern asks for them.
PUBLISHED_DAYS = tuple(days_from("2020-04-09", 1237))  # until 2023-08-28
#: The experiment that brings the static model of real days.
FUGU_FEB = "puffer-download/fugu-feb"

# ------------------------------------------------------------------------------ table of contents


@dataclass(frozen=True)
class Contents:
    """A table or figure of the paper, and what it compares.

    Attributes:
        title: What it shows.
        arms: Replays of each period, by name, see `arms_of`.
        against: What improvements are measured from: an arm, or "static".
    """

    title: str
    arms: tuple[str, ...]
    against: tuple[str, ...] = ("daily", "static")


GROUP = "puffer-replay"
"""Of experiments that replay days, and of the tables made of these."""


def replay_name(period: str, arm: str) -> str:
    """Name of the experiment that replays an arm over a period."""
    return f"{period}+{arm}"


def arms_of(scale: Scale) -> dict[str, dict[str, Any]]:
    """All arms that tables compare, with the settings that differ from the scale's.

    Returns:
        By name: parameters of the body `replay`.

    Example:
        >>> arms_of(REDUCED)["memento-T=0.1"]
        {'arm': 'memento', 'temperature': 0.1}
    """
    found: dict[str, dict[str, Any]] = {name: {"arm": name} for name in REPLAYED}
    found["daily"]["interval"] = 1  # instead of the scale's
    # Ensembles tell what oracle and matchmaker would have done, too.
    for name in ("memento", "forgetting", "density-reservoir", "committee"):
        found[name]["members"] = scale.members
    for name in ("forgetting", "random"):
        found[f"{name}-double"] = {"arm": name, "capacity": 2 * scale.capacity}
    for word, factor in (("half", 0.5), ("double", 2), ("fourfold", 4), ("eightfold", 8)):
        size = max(1, int(scale.batch_size * factor))
        found[f"memento-batch={word}"] = {"arm": "memento", "batch_size": size}
    for pattern, settings in _DOCUMENT["sweeps"].items():
        for values in itertools.product(*settings.values()):
            swept = dict(zip(settings, values, strict=True))
            name = pattern.format(**swept)
            found[name] = {**found.get(swept.pop("like", ""), {}), **swept}
            if "horizon" in swept:
                found[name].pop("members", None)
    samples = float(4 * scale.capacity)
    found["memento-count"] = {**found["memento-always"], "trigger": "count", "threshold": samples}
    for name in ("memento", "forgetting"):
        found[f"{name}-frozen"] = {"arm": name, "freeze_after": scale.freeze_after}
    found["memento-frozen"]["densities"] = [scale.batch_size, 4 * scale.batch_size]
    return found


def _contents(table: Mapping[str, Any]) -> Contents:
    """What a table compares, patterns of arms resolved."""
    known = arms_of(PAPER)
    arms = [name for pattern in table["arms"] for name in fnmatch.filter(known, pattern)]
    return build(Contents, {**table, "arms": arms}, str(_FILE))


CONTENTS: Mapping[str, Contents] = {
    name: _contents(table) for name, table in _DOCUMENT["tables"].items()
}

#: Figures with a body of their own.
STUDIES: Mapping[str, str] = _DOCUMENT["studies"]
