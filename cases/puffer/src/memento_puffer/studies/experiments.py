"""The experiments of the Puffer case: this page is the paper's table of contents.

    puffer-download     real days, with their models; Fugu-Feb, the static model of real days
    puffer-preprocess   simulated periods and real days as features; static models
    puffer-analysis     what viewers got, by scheme; the simulator against published figures
    puffer-replay       memories, replayed; a table or figure for each question of the paper
    puffer-deployment   the daily job over a simulated period; the published record
    demo                a week of it all, with models back in control

`CONTENTS` lists every table and figure with the arms it compares, `STUDIES` those with a body of
their own. What is declared by default is `REDUCED`: three simulated periods of two weeks. Days
three times as large are `LARGE`, the paper's own three periods of real days `PAPER`; a page of
your own declares them. Of real days two are run by default; a pattern such as "2022-07-*" asks for
others, and ``viewers`` of their download simulates them under the same names.

    from memento_puffer.studies.experiments import PAPER, declared
    experiments = lambda: declared(PAPER)

Any value can be overridden from a file of settings, see docs/experiments.md.

Source: the Memento paper, sections 5 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from memento.runner.spec import Experiment, Resources
from memento_puffer.data.features import HORIZONS
from memento_puffer.predictor.ttp_training import AFFORDABLE, TrainingSettings
from memento_puffer.studies.contents import (
    CONTENTS,
    FUGU_FEB,
    GROUP,
    LARGE,
    PAPER,
    PUBLISHED_DAYS,
    REAL_DAYS,
    REDUCED,
    STUDIES,
    Period,
    Scale,
    arms_of,
    replay_name,
)
from memento_puffer.studies.day_bodies import (
    download_day,
    download_model,
    preprocess_day,
    simulate_period,
    train_static,
)
from memento_puffer.studies.other_bodies import (
    analyse,
    analyse_simulated,
    demo,
    deploy,
    published_record,
)
from memento_puffer.studies.replay_bodies import (
    compare,
    count_video,
    gather_densities,
    replay,
    study_selection,
)

# Bodies are named as of this page, wherever they are.
__all__ = [
    "CONTENTS",
    "LARGE",
    "PACKAGES",
    "PAPER",
    "REDUCED",
    "STUDIES",
    "Period",
    "Scale",
    "analyse",
    "analyse_simulated",
    "compare",
    "count_video",
    "declared",
    "demo",
    "deploy",
    "download_day",
    "download_model",
    "experiments",
    "gather_densities",
    "preprocess_day",
    "published_record",
    "replay",
    "simulate_period",
    "study_selection",
    "train_static",
]

# What groups need beyond the library, by the beginnings of their names.
PACKAGES = {
    "puffer-download": (),
    "puffer-": ("polars", "matplotlib"),
    "demo": ("polars", "matplotlib"),
}


def experiments() -> Iterator[Experiment]:
    """What `memento run` offers: the reduced set, two real days, a deployment, the demo."""
    yield from _real(())
    yield Experiment(
        "puffer-analysis", "simulated", ":analyse_simulated",
        {"first": "2024-01-01", "days": 2, "viewers": 60, "seed": 1},
        description="The same of simulated days; the simulator against Puffer's published figures",
    )  # fmt: skip
    yield from declared(REDUCED)
    for period in REDUCED.periods:
        yield Experiment(
            "puffer-deployment", period.name, ":deploy",
            {"capacity": 5000, "batch_size": 32, "days": 7, "training": _document(AFFORDABLE)},
            needs=(f"puffer-preprocess/{period.name}",),
            description="The daily job, five horizons and three variants, over simulated days",
        )  # fmt: skip
    yield Experiment(
        "puffer-deployment", "record", ":published_record", {"record": "puffer-deployment.csv"},
        files=("{record}",), optional=True,
        description="Retrainings and coverage of the deployment of 2022-2023",
    )  # fmt: skip
    yield Experiment(
        "demo", "week", ":demo",
        {"days": 8, "viewers": 60, "judges": 80, "capacity": 25_000, "seed": 0},
        resources=Resources(threads=1, memory_GB=4.0),
        description="A week of telemetry, four memories, and models back in control",
    )  # fmt: skip


def declared(scale: Scale) -> Iterator[Experiment]:
    """Periods, replays, tables and figures of a scale.

    Example:
        >>> found = {e.key: e for e in declared(REDUCED)}
        >>> found["puffer-replay/table-jtt"].needs[:2]
        ('sim-1+forgetting', 'sim-1+forgetting-jtt=2')
        >>> found["puffer-replay/sim-2+memento"].parameters["capacity"]
        15000
    """
    training = _document(scale.training)
    yield from _simulated(scale)
    if any(not period.simulated for period in scale.periods):
        yield from _real([*scale.periods, *([scale.frozen] if scale.frozen else [])])
    arms, periods = arms_of(scale), [period.name for period in scale.periods]
    used = dict.fromkeys(name for part in CONTENTS.values() for name in (*part.arms, "daily"))
    for period in scale.periods:
        for name in used:
            yield _replay(scale, period, name, arms[name])
    frozen = [scale.frozen] if scale.frozen else list(scale.periods)
    if scale.frozen:
        yield _replay(scale, scale.frozen, "memento-frozen", arms["memento-frozen"])
    for name, part in CONTENTS.items():
        wanted = dict.fromkeys((*part.arms, *(a for a in part.against if a in arms)))
        yield Experiment(
            GROUP, f"{scale.prefix}{name}", f"{__name__}:compare",
            {"periods": periods, "arms": list(wanted), "against": list(part.against)},
            needs=tuple(replay_name(period, a) for period in periods for a in wanted),
            description=part.title, version=2,
        )  # fmt: skip
    for period in scale.periods:
        yield Experiment(
            GROUP, replay_name(period.name, "figure-selection"), f"{__name__}:study_selection",
            {"samples": 5 * scale.capacity, "capacity": scale.capacity, "training": training,
             "batch_size": scale.batch_size},
            resources=_resources(scale), needs=_needs(period),
            description=STUDIES["figure-selection"], version=2,
        )  # fmt: skip
    yield Experiment(
        GROUP, f"{scale.prefix}figure-freeze", f"{__name__}:gather_densities",
        {"periods": [period.name for period in frozen], "arm": "memento-frozen"},
        needs=tuple(replay_name(period.name, "memento-frozen") for period in frozen),
        description=STUDIES["figure-freeze"], version=2,
    )  # fmt: skip
    yield Experiment(
        GROUP, f"{scale.prefix}table-video", f"{__name__}:count_video",
        {"periods": {period.name: period.dates for period in scale.periods}},
        needs=tuple(dict.fromkeys(n for p in scale.periods for n in _needs(p) if n != FUGU_FEB)),
        description=STUDIES["table-video"],
    )  # fmt: skip


def _simulated(scale: Scale) -> Iterator[Experiment]:
    """The simulated periods of a scale, with their static models."""
    for period in scale.periods:
        if not period.simulated:
            continue
        yield Experiment(
            "puffer-preprocess", period.name, f"{__name__}:simulate_period",
            {"first": period.first, "days": period.days, "viewers": scale.viewers,
             "shifts": [list(shift) for shift in period.shifts or ()], "seed": period.seed},
            description=f"{period.days} simulated days of {scale.viewers} viewers",
        )  # fmt: skip
        yield Experiment(
            "puffer-preprocess", f"{period.name}-static", f"{__name__}:train_static",
            {"horizons": HORIZONS, "training": _document(scale.training)}, needs=(period.name,),
            description="The static model: trained on the first day, from random weights",
        )  # fmt: skip


def _replay(scale: Scale, period: Period, name: str, changes: Mapping[str, Any]) -> Experiment:
    """The replay of one arm over one period, as an experiment."""
    parameters: dict[str, Any] = {
        "capacity": scale.capacity,
        "interval": scale.interval,
        "batch_size": scale.batch_size,
        "training": _document(scale.training),
        **changes,
    }
    return Experiment(
        GROUP,
        replay_name(period.name, name),
        f"{__name__}:replay",
        parameters,
        resources=_resources(scale),
        needs=_needs(period),
        description=f"Replay of {name} over {period.name}",
        # Until version 2 this name stood for what is called forgetting now.
        version=2 if parameters["arm"] == "random" else 1,
    )


def _needs(period: Period) -> tuple[str, ...]:
    if period.simulated:
        names = (period.name, f"{period.name}-static")
    else:
        return (FUGU_FEB, *(f"puffer-preprocess/{name}" for name in period.dates))
    return tuple(f"puffer-preprocess/{name}" for name in names)


def _resources(scale: Scale) -> Resources:
    return Resources(memory_GB=2.0 + 8e-6 * scale.capacity, hours=scale.hours)


def _real(periods: Sequence[Period]) -> Iterator[Experiment]:
    """Fugu-Feb, and all published days, those of periods included."""
    yield Experiment(
        "puffer-download", "fugu-feb", f"{__name__}:download_model",
        {"day": "2019-02-02", "folder": ""}, on_demand=True,
        description="Fugu-Feb: the static model of real days, trained once",
    )  # fmt: skip
    for day in sorted({*PUBLISHED_DAYS, *(day for period in periods for day in period.dates)}):
        on_demand = day not in REAL_DAYS
        yield Experiment(
            "puffer-download", day, f"{__name__}:download_day",
            {"day": day, "viewers": 0, "seed": 1}, resources=Resources(hours=6.0),
            on_demand=on_demand, description="All tables of the day, and its model",
        )  # fmt: skip
        yield Experiment(
            "puffer-analysis", day, f"{__name__}:analyse", needs=(f"puffer-download/{day}",),
            resources=Resources(memory_GB=8.0), on_demand=on_demand,
            description=f"What viewers got on {day}, by scheme",
        )  # fmt: skip
        yield Experiment(
            "puffer-preprocess", day, f"{__name__}:preprocess_day", {"day": day},
            needs=(f"puffer-download/{day}",), resources=Resources(memory_GB=8.0),
            on_demand=on_demand, description="Features of the day, streams that stalled, its model",
        )  # fmt: skip


def _document(training: TrainingSettings) -> dict[str, Any]:
    return asdict(training)
