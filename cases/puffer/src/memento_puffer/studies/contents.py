"""What replays are compared: periods of days, scales, and the paper's tables with their arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memento.days import days_from
from memento_puffer.data.features import HORIZONS
from memento_puffer.predictor.ttp_training import AFFORDABLE, TrainingSettings
from memento_puffer.studies.arms import REPLAYED

__all__ = [
    "CONTENTS",
    "GROUP",
    "LARGE",
    "PAPER",
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
        days: How many.
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
        members: Models that ensembles remember.
        training: How networks are trained.
        base: Folder of the static model of real days (Fugu-Feb), 15 files.
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
    members: int = 7
    training: TrainingSettings = AFFORDABLE
    base: str = "fugu-feb"
    hours: float = 1.0


REDUCED = Scale(
    prefix="",
    periods=(
        Period("sim-1", "2024-01-01", 15, (), seed=1),
        Period("sim-2", "2024-02-01", 15, (("new_access", 5), ("halved_capacity", 10)), seed=2),
        Period("sim-3", "2024-03-01", 15, (("new_congestion_control", 7),), seed=3),
    ),
    viewers=40,
    capacity=15_000,
    batch_size=64,
    batches=(32, 64, 128, 256, 512),
    interval=2,
    freeze_after=6,
)
"""Two weeks of about 50,000 samples a day, three times; minutes for each replay."""

LARGE = Scale(
    prefix="large-",
    periods=(Period("large-1", "2024-06-01", 15, (), seed=4),),
    viewers=120,
    capacity=50_000,
    batch_size=128,
    batches=(64, 128, 256, 512, 1024),
    interval=2,
    freeze_after=6,
)
"""Two weeks of about 150,000 samples a day without a shift; declared on demand."""

PAPER = Scale(
    prefix="paper-",
    periods=(
        Period("2021-01", "2021-01-01", 181),
        Period("2021-07", "2021-07-01", 184),
        Period("2022-01", "2022-01-01", 151),
    ),
    viewers=0,
    capacity=1_000_000,
    batch_size=256,
    batches=(128, 256, 512, 1024, 2048),
    interval=7,
    freeze_after=21,
    training=TrainingSettings(),
    hours=72.0,
)
"""The paper's three runs of real days; 3 million samples a day."""

#: Real days that the reduced set downloads and analyses.
REAL_DAYS = ("2021-10-17", "2022-02-18")

# ------------------------------------------------------------------------------ table of contents

_TEMPERATURES = (1e-5, 1e-4, 1e-3, 5e-3, 0.05, 0.1, 1.0, 10.0, 100.0)
_BANDWIDTHS = (0.001, 0.01, 0.05, 0.08, 0.125, 0.2, 0.5, 1.0, 10.0)
_FACTORS = (2, 5, 10, 20, 50, 100)
_LOSS = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
_OTHERS = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0)
_THRESHOLDS = (0.05, 0.1, 0.2)
_DAYS = (2, 7)


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


def _names(pattern: str, values: Iterable[object]) -> tuple[str, ...]:
    return tuple(pattern.format(value) for value in values)


CONTENTS: Mapping[str, Contents] = {
    "table-baselines": Contents(
        "Memento, Euclidean distances, random memories, twice the one that forgets",
        ("memento", "euclidean", "euclidean-inputs", "forgetting", "forgetting-double", "random",
         "density-reservoir", "loss-aware", "fifo"),
    ),
    "table-batch-size": Contents(
        "Batch size: the tail, the median, and the time of an insert",
        ("memento", *_names("memento-batch={}", ("half", "double", "fourfold", "eightfold"))),
    ),
    "table-bandwidth": Contents(
        "Bandwidth of the kernel", ("memento", *_names("memento-h={:g}", _BANDWIDTHS))
    ),
    "table-temperature": Contents(
        "Temperature: deterministic, tempered, random",
        ("memento", "memento-T0", *_names("memento-T={:g}", _TEMPERATURES)),
    ),
    "table-other-metrics": Contents(
        "Selection by loss, confidence, frequency of the class, stalled sessions",
        ("memento", "forgetting", *_names("loss-T={:g}", _LOSS),
         *_names("confidence-T={:g}", _OTHERS),
         *_names("labels-T={:g}", _OTHERS), *_names("stalled-T={:g}", _OTHERS)),
    ),
    "table-jtt": Contents(
        "Just Train Twice by factor, with a random memory and Memento, alone and with the oracle",
        ("forgetting", *_names("forgetting-jtt={}", _FACTORS),
         "memento", *_names("memento-jtt={}", _FACTORS)),
    ),
    "table-matchmaker": Contents(
        "Matchmaker: oracle and deployable form; query by committee alone and with both",
        ("memento", "forgetting", "density-reservoir", "committee", "committee-jtt=10"),
    ),
    "table-decisions": Contents(
        "When to retrain: coverage, calibrated coverage, loss, count, period",
        (*_names("memento-coverage={:g}", _THRESHOLDS),
         *_names("memento-calibrated={:g}", _THRESHOLDS), *_names("memento-loss={:g}", _THRESHOLDS),
         "memento-count", *_names("memento-period={}", _DAYS), "memento-always", "memento-never"),
    ),
    "figure-loss-over-time": Contents(
        "99th percentile of the loss day by day",
        ("memento", "forgetting", "forgetting-double", "euclidean", "committee", "memento-T0"),
    ),
    "table-freeze": Contents(
        "Frozen memories and models: whether patterns recur",
        ("memento-frozen", "forgetting-frozen", "memento"),
    ),
    "table-repeatability": Contents(
        "The same with other seeds: noise of the numbers above",
        ("memento", *_names("memento-seed={}", (1, 2))),
    ),
    "table-horizons": Contents(
        "The other four networks of the predictor",
        tuple(f"{name}-horizon={h}" for name in ("memento", "forgetting", "daily")
              for h in range(1, HORIZONS)),
        ("static",),
    ),
}  # fmt: skip

#: Figures with a body of their own.
STUDIES: Mapping[str, str] = {
    "figure-freeze": "Density of each new day with respect to a frozen memory, two batch sizes",
    "figure-selection": "What density and loss keep of one set of samples, batch by batch",
}


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
    found["forgetting-double"] = {"arm": "forgetting", "capacity": 2 * scale.capacity}
    for word, factor in (("half", 0.5), ("double", 2), ("fourfold", 4), ("eightfold", 8)):
        size = max(1, int(scale.batch_size * factor))
        found[f"memento-batch={word}"] = {"arm": "memento", "batch_size": size}
    for h in _BANDWIDTHS:
        found[f"memento-h={h:g}"] = {"arm": "memento", "bandwidth": h}
    for temperature in _TEMPERATURES:
        found[f"memento-T={temperature:g}"] = {"arm": "memento", "temperature": temperature}
    for metric, temperatures in (
        ("loss", _LOSS),
        ("confidence", _OTHERS),
        ("labels", _OTHERS),
        ("stalled", _OTHERS),
    ):
        for temperature in temperatures:
            found[f"{metric}-T={temperature:g}"] = {"arm": metric, "temperature": temperature}
    for factor in _FACTORS:
        for name in ("forgetting", "memento", "committee"):
            found[f"{name}-jtt={factor}"] = {**found[name], "jtt": float(factor)}
    daily = {"arm": "memento", "interval": 1}
    for threshold in _THRESHOLDS:
        for word, trigger in (
            ("coverage", "coverage"),
            ("calibrated", "coverage-calibrated"),
            ("loss", "loss"),
        ):
            rule = {"trigger": trigger, "threshold": threshold}
            found[f"memento-{word}={threshold:g}"] = {**daily, **rule}
    samples = float(4 * scale.capacity)
    found["memento-count"] = {**daily, "trigger": "count", "threshold": samples}
    for days in _DAYS:
        found[f"memento-period={days}"] = {**daily, "trigger": "period", "threshold": float(days)}
    found["memento-always"] = dict(daily)
    found["memento-never"] = {**daily, "trigger": "never"}
    for name in ("memento", "forgetting"):
        found[f"{name}-frozen"] = {"arm": name, "freeze_after": scale.freeze_after}
    found["memento-frozen"]["densities"] = [scale.batch_size, 4 * scale.batch_size]
    for seed in (1, 2):
        found[f"memento-seed={seed}"] = {"arm": "memento", "seed": seed}
    for h in range(1, HORIZONS):
        for name in ("memento", "forgetting", "daily"):
            found[f"{name}-horizon={h}"] = {**found[name], "horizon": h}
            found[f"{name}-horizon={h}"].pop("members", None)
    return found
