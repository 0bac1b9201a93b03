"""Bodies of experiments that replay days, and that put replays side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.arguments import require, whole
from memento.errors import DamagedError
from memento.runner.spec import Run, checked, located
from memento.samples import Samples
from memento_puffer.data.features import Features
from memento_puffer.data.schema import polars
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp import read_py
from memento_puffer.quality.aggregates import YEAR
from memento_puffer.studies.contents import FUGU_FEB, GROUP, replay_name
from memento_puffer.studies.day_bodies import static_network, stored_days, training_of
from memento_puffer.studies.days import published_models
from memento_puffer.studies.improvements import improvements
from memento_puffer.studies.replay import Replay
from memento_puffer.studies.replay_settings import ReplaySettings
from memento_puffer.studies.replay_settings import arm as settings_of
from memento_puffer.studies.selection import selection_study

__all__ = ["compare", "count_video", "gather_densities", "replay", "study_selection"]


def _replay_settings(
    *,
    arm: str,
    temperature: float | None,
    bandwidth: float | None,
    batch_size: int,
    base: str | None,
    **given: Any,
) -> ReplaySettings:
    """The settings that parameters of the body `replay` stand for."""
    given["densities"] = list(given["densities"])
    given["training"] = dict(given["training"])
    return settings_of(
        arm,
        {**given, "coverage_batch": batch_size},
        temperature=temperature,
        bandwidth=bandwidth,
        batch_size=batch_size,
    )


def _check_replay(**parameters: Any) -> Iterator[str]:
    settings = _replay_settings(**parameters)
    own = settings.policy.settings()
    yield from (name for name in ("temperature", "bandwidth") if name not in own)
    if settings.trigger in ("always", "never"):
        yield "threshold"


@checked(_check_replay)
def replay(
    run: Run,
    *,
    arm: str,
    capacity: int,
    interval: int,
    batch_size: int,
    training: Mapping[str, Any],
    temperature: float | None = None,
    bandwidth: float | None = None,
    horizon: int = 0,
    trigger: str = "always",
    threshold: float = 0.1,
    jtt: float = 1.0,
    members: int = 1,
    freeze_after: int | None = None,
    densities: Sequence[int] = (),
    seed: int = 0,
    base: str | None = None,
) -> None:
    """Replay one arm over a period; goes on after its last day.

    Parameters are those of `ReplaySettings`, and ``arm``, see `memento_puffer.studies.arms`;
    ``temperature`` and ``bandwidth`` of its policy, where that has them (None for the arm's);
    ``batch_size`` of its policy and for coverage; ``base``, a folder with another static model than
    Fugu-Feb for real days. The run needs stored days and their static model.
    """
    given = {**locals()}
    del given["run"]
    settings = _replay_settings(**given)
    days, network, published = _replayed(run, horizon, base)
    made = Replay(run.checkpoint / "replay", settings, days, network, published)
    made.run(run.report)
    for name, table in made.tables().items():
        if table.size:
            run.write(f"{name}.parquet", table)


def _replayed(run: Run, horizon: int, base: str | None) -> tuple[dict[str, Path], Network, Any]:
    """Days, static model and published models of a period."""
    days = stored_days(run.needs)
    folder = next((f for key, f in run.needs.items() if key.endswith("-static")), None)
    if folder is None:
        models = {
            path.parent.name: path.parent.parent
            for folder in run.needs.values()
            for path in folder.glob(f"models/*/py-{horizon}.pt")
        }

        def published(day: str) -> Network | None:
            return published_models(models[day], horizon)(day) if day in models else None

        static = run.needs[FUGU_FEB] if base is None else located(base)
        return days, read_py(static / f"py-{horizon}.pt"), published
    days.pop(next(iter(days)))  # the static model has seen it
    return days, static_network(folder, horizon), None


_STUDIED = ("memento", "memento-T0", "density-reservoir", "loss", "forgetting")


def _check_selection(*, samples: int, batch_size: int, base: str | None, **given: Any) -> None:
    require("samples", samples, whole())
    for name in _STUDIED:
        settings_of(name, {**given, "training": dict(given["training"])}, batch_size=batch_size)


@checked(_check_selection)
def study_selection(
    run: Run,
    *,
    samples: int,
    capacity: int,
    batch_size: int,
    training: Mapping[str, Any],
    base: str | None = None,
    seed: int = 0,
) -> None:
    """What density and loss keep of the first samples of a period."""
    days, network, _ = _replayed(run, 0, base)
    parts: list[Samples] = []
    for name, place in days.items():
        run.report(sum(p.size for p in parts), samples, name)
        columns = Features.read(place).columns(0, sentinels="clamp")
        part = Samples.borrow({n: columns[n] for n in ("x", "y", "y_bin")})
        parts.append(part.rows(0, samples - sum(p.size for p in parts)))
        if sum(p.size for p in parts) >= samples:
            break
    chosen = {
        name: settings_of(name, {"capacity": capacity}, batch_size=batch_size).policy
        for name in _STUDIED
    }
    found = selection_study(
        Samples.concat(parts),
        network,
        chosen,
        capacity,
        batch_size=batch_size,
        training=training_of(training),
        seed=seed,
    )
    run.write("selection.parquet", found)


# ---------------------------------------------------------------------- bodies: tables and figures


def compare(
    run: Run, *, periods: Sequence[str], arms: Sequence[str], against: Sequence[str]
) -> None:
    """Put replays of periods side by side.

    Writes ``improvement`` (by period and over all days of all periods: tail, median and mean of the
    log scores against each reference, with standard errors over days), ``levels`` (each day's
    quantiles of the log score), ``decisions`` (trainings, and coverage, by day) and ``insert``
    (seconds of an insert).
    """
    improved: list[Samples] = []
    everything: dict[str, list[Samples]] = {name: [] for name in arms}
    for period in periods:
        scores = {name: _table(run, period, name, "scores") for name in arms}
        for name, table in scores.items():
            # One name for each day of each period, so that all of them can be put together.
            day = np.char.add(f"{period} ", table["day"].astype(str))
            everything[name].append(table.with_columns(day=day))
        improved += _improved(period, scores, against)
    whole = {name: Samples.concat(parts) for name, parts in everything.items() if parts}
    run.write("improvement.csv", Samples.concat([*improved, *_improved("all", whole, against)]))
    for name, table in _side_by_side(run, periods, arms).items():
        run.write(f"{name}.parquet", table)


def _improved(
    period: str, scores: Mapping[str, Samples], against: Sequence[str]
) -> Iterator[Samples]:
    for reference in against:
        yield _labelled(improvements(scores, reference), period=period, against=reference)


def _labelled(columns: Mapping[str, Any], **labels: str) -> Samples:
    """A table with the same labels in all of its rows, as its first columns."""
    size = len(next(iter(columns.values())))
    return Samples({**{n: np.full(size, text) for n, text in labels.items()}, **columns})


def _side_by_side(run: Run, periods: Sequence[str], arms: Sequence[str]) -> dict[str, Samples]:
    """Levels, decisions and times to insert of several arms and periods, one below the other."""
    found: dict[str, list[Samples]] = {"levels": [], "decisions": [], "insert": []}
    for period, name in itertools.product(periods, arms):
        scores, steps, times = (
            _table(run, period, name, what) for what in ("scores", "steps", "times")
        )
        chosen = (scores["variable"] == "logscore") & np.isin(scores["metric"], _LEVELS)
        seconds = times["seconds"][times["what"] == "insert"]
        parts: dict[str, Mapping[str, Any]] = {
            "levels": scores.take(chosen).select(("predictor", "day", "metric", "value")),
            "decisions": {"day": steps["name"], **steps.select(_DECIDED)},
            "insert": {"days": [len(seconds)], "mean": [_mean(seconds)], "std": [_std(seconds)]},
        }
        for what, part in parts.items():
            found[what].append(_labelled(part, period=period, arm=name))
    return {what: Samples.concat(several) for what, several in found.items()}


_LEVELS = ("q0.001", "q0.01", "q0.1", "q0.5", "mean")
_DECIDED = ("trained", "value", "threshold", "p_value", "coverage_plain", "coverage_calibrated")


def count_video(run: Run, *, periods: Mapping[str, Sequence[str]]) -> None:
    """How much video periods hold, by day and in all; a chunk is 2.002 s of it.

    Writes ``days`` (streams, chunks and stream-years of each day) and ``periods`` (their sums, and
    quantiles and mean of the stream-years of a day; ``all`` is all periods together).
    """
    stored = stored_days(run.needs)
    days = [(period, day) for period, names in periods.items() for day in names if day in stored]
    rows = []
    for number, (_, day) in enumerate(days):
        run.report(number, len(days), day)
        features = Features.read(stored[day])
        rows.append((len(features.streams), features.size))
    streams, chunks = np.array(rows, np.int64).reshape(-1, 2).T
    years = chunks * _CHUNK_SECONDS / YEAR
    labels = np.array([period for period, _ in days], dtype=str)
    by_day = {"period": labels, "day": [d for _, d in days], "streams": streams, "chunks": chunks}
    run.write("days.csv", {**by_day, "stream_years": years})
    table: dict[str, list[Any]] = {"period": [*periods, "all"]}
    for period in table["period"]:
        mine = (labels == period) | (period == "all")
        found = {"days": mine.sum(), "streams": streams[mine].sum(), "chunks": chunks[mine].sum()}
        found |= {"stream_years": years[mine].sum(), "mean": _mean(years[mine])}
        for level in (10, 50, 90, 100):
            found[f"p{level}"] = np.percentile(years[mine], level) if mine.any() else math.nan
        for name, value in found.items():
            table.setdefault(name, []).append(value)
    run.write("periods.csv", table)


_CHUNK_SECONDS = 2.002  # of video in a chunk


def gather_densities(run: Run, *, periods: Sequence[str], arm: str) -> None:
    """Densities of a frozen arm's memories and of the days after, of all periods."""
    tables = {period: _table(run, period, arm, "densities") for period in periods}
    parts = [_labelled(table, period=period) for period, table in tables.items()]
    run.write("densities.parquet", Samples.concat(parts))


def _table(run: Run, period: str, arm: str, name: str) -> Samples:
    """A table of the replay of an arm over a period."""
    pl = polars("reading tables of results")
    path = run.needs[f"{GROUP}/{replay_name(period, arm)}"] / f"{name}.parquet"
    if not path.is_file():
        raise DamagedError(f"{path} is missing; run the experiment it belongs to again")
    return Samples(pl.read_parquet(path))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan
