"""The layout of the published deployment, made of rows of a record."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from memento_puffer.data.archives import model_files
from memento_puffer.deployment.record import COLUMNS
from memento_puffer.predictor.ttp import Ttp

FIRST = "2022-09-26"
DAYS = {FIRST: True, "2022-09-27": False, "2022-09-29": True}
"""Days of a small tree, and whether they trained."""


def write(folder: Path, row: dict, model: Path | None = None) -> Path:
    """The day of a row, with ``COLUMNS``; and, if it trained, the network of a model's folder."""
    horizon = int(row["horizon"])
    day = folder / row["variant"] / str(horizon) / str(row["day"])
    day.mkdir(parents=True)
    document = {"day": str(row["day"]), "data_file": "", "retrain": bool(row["retrained"])}
    document |= {name: row[name] for name in COLUMNS[4:]}
    document["densities"] = "(0.02, 0.01)"
    with gzip.open(day / f"stats_{horizon}.json.gz", "wt") as file:
        json.dump(document, file)
    if row["retrained"] and model is not None:
        (day / "model").mkdir()
        for name in model_files(horizon):
            shutil.copy(model / name, day / "model" / name)
    return day


def row(variant="default", horizon=0, day=FIRST, retrained=True, increase=0.15):
    return dict(zip(COLUMNS, (variant, horizon, day, retrained, increase, 11.0, 72.0), strict=True))


def small(folder: Path, variants=("default", "deterministic"), days=DAYS) -> dict[str, Ttp]:
    """A whole tree; horizon 0 trains on all days with True, others on the first of them alone.

    Returns:
        By day of training, a model whose networks are there.
    """
    models = {}
    for number, day in enumerate(day for day, trained in days.items() if trained):
        models[day] = Ttp.fresh(number, dtype="f8")
        models[day].write(folder.parent / f"model-{day}")
    for variant in variants:
        for horizon in range(5):
            for day, due in days.items():
                trained = due and (horizon == 0 or day == next(iter(models)))
                place = folder.parent / f"model-{day}"
                write(folder, row(variant, horizon, day, trained), place)
    return models
