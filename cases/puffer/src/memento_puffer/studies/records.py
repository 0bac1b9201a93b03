"""What a replay records of each day, and the tidy tables that are made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memento.loop import Step, table
from memento.samples import Samples
from memento_puffer.predictor.scores import QUANTILES, errors_by_class, quantiles, score, summarise
from memento_puffer.studies.improvements import HEADLINES, REFERENCES
from memento_puffer.studies.replay_settings import COVERAGES

__all__ = ["evaluated", "spread", "tables_of"]

_VARIABLES = ("y", "p", "logscore", "err", "err_abs", "err_sqr")
_SHORT = {"p01": "tail", "median": "median", "mean": "mean"}


def evaluated(
    predictors: Mapping[str, np.ndarray], seconds: np.ndarray
) -> tuple[dict[str, Any], dict[str, float]]:
    """Scores of predictors on one day.

    Args:
        predictors: By name, ``(n, 21)`` probabilities; "own" are those of the replay's model.
        seconds: ``(n,)`` transmission times.

    Returns:
        What is recorded, and the headlines: 1st percentile, median and mean of the log scores.
    """
    scores, errors, headlines = {}, {}, {}
    for name, yhat in predictors.items():
        scored = score(yhat, seconds)
        variables = _VARIABLES if name == "own" else _VARIABLES[1:]
        rows = _by_variable(summarise(scored, variables=variables, skip_impossible=True))
        scores[name] = rows
        by_class = errors_by_class(scored)
        columns = ("count", "err", "err_abs", "err_sqr")
        errors[name] = {column: by_class[column].tolist() for column in columns}
        prefix = "" if name == "own" else f"{name}_"
        for short, word in _SHORT.items():
            headlines[f"{prefix}{short}"] = rows["logscore"][HEADLINES[word]]
    return {"scores": scores, "errors": errors}, headlines


def _by_variable(rows: Samples) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    columns = (rows[name].tolist() for name in ("variable", "metric", "value"))
    for variable, metric, value in zip(*columns, strict=True):
        found.setdefault(variable, {})[metric] = value
    return found


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean, count and quantiles by name."""
    named = zip(QUANTILES, quantiles(values), strict=True)
    return {
        "mean": float(values.mean()),
        "count": float(len(values)),
        **{f"q{q:g}": float(value) for q, value in named},
    }


# By table: its columns, each with its type.
_HEADERS = {
    "scores": "day:U32 predictor:U16 variable:U16 metric:U16 value:f8",
    "classes": "day:U32 predictor:U16 label:i8 count:i8 err:f8 err_abs:f8 err_sqr:f8",
    "improvement": "day:U32 predictor:U16 against:U16 tail:f8 median:f8 mean:f8",
    "memory": "day:U32 label:i8 held:i8",
    "ages": "day:U32 of:U32 held:i8",
    "densities": "day:U32 batch_size:i8 of:U16 metric:U16 value:f8",
    "times": "day:U32 what:U16 seconds:f8",
}


def tables_of(
    steps: Sequence[Step], seconds: Mapping[str, Mapping[str, float]]
) -> dict[str, Samples]:
    """What was recorded, as the tables that `Replay.tables` describes.

    Args:
        steps: With what judges noted.
        seconds: By name of the unit, what its stages took.
    """
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _HEADERS}
    names = [step.name for step in steps]
    for step in steps:
        classes, ages = step.notes["classes"], step.notes["ages"]
        rows["memory"] += [(step.name, label, count) for label, count in enumerate(classes)]
        rows["ages"] += [(step.name, names[i], count) for i, count in enumerate(ages) if count]
        rows["times"] += [(step.name, *pair) for pair in sorted(seconds.get(step.name, {}).items())]
        if step.notes.get("evaluation"):
            _add_evaluation(rows, step.evaluated_on, step.notes["evaluation"])
    found = {"steps": _with_coverages(steps)}
    for name, header in _HEADERS.items():
        columns = dict(column.split(":") for column in header.split())
        values = list(zip(*rows[name], strict=True)) or [()] * len(columns)
        found[name] = Samples(
            {c: np.array(v, kind) for (c, kind), v in zip(columns.items(), values, strict=True)}
        )
    return found


def _with_coverages(steps: Sequence[Step]) -> Samples:
    """The table of steps, with both coverage increases (NaN where frozen) as its last columns."""
    columns = {
        name: np.array([step.decision.figures.get(name, math.nan) for step in steps], float)
        for name in COVERAGES
    }
    return table(steps).without(*(f"figure_{name}" for name in COVERAGES)).with_columns(columns)


def _add_evaluation(
    rows: dict[str, list[tuple[Any, ...]]], day: str | None, found: Mapping[str, Any]
) -> None:
    """Add what one evaluation found about a day to the rows of all tables."""
    for predictor, variables in found["scores"].items():
        rows["scores"] += [
            (day, predictor, variable, metric, value)
            for variable, metrics in variables.items()
            for metric, value in metrics.items()
        ]
        errors = found["errors"][predictor]
        rows["classes"] += [
            (day, predictor, label, *values)
            for label, values in enumerate(zip(*errors.values(), strict=True))
        ]
        if predictor in REFERENCES:
            continue
        for against in REFERENCES:
            if against in found["scores"]:
                own, other = (found["scores"][p]["logscore"] for p in (predictor, against))
                gains = (own[metric] - other[metric] for metric in HEADLINES.values())
                rows["improvement"].append((day, predictor, against, *gains))
    for size, kinds in found["densities"].items():
        rows["densities"] += [
            (day, int(size), of, metric, value)
            for of, metrics in kinds.items()
            for metric, value in metrics.items()
        ]
