"""A deployment as the paper's artefact holds it: a folder for each variant, horizon and day.

    VARIANT/HORIZON/DAY/stats_HORIZON.json.gz   what was measured and decided that day
    VARIANT/HORIZON/DAY/model/                  days with a training: the three files of a network

All else in it, such as temporary files of writers that were killed, is passed over.
"""

from __future__ import annotations

import bisect
import contextlib
import datetime as dt
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.days import day_of, is_day
from memento.errors import DamagedError, ForeignError, SettingError
from memento.files import storage_errors
from memento_puffer.data.archives import unpacked
from memento_puffer.data.layout import HORIZONS
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp import Ttp, read_network

__all__ = ["LAYOUT", "PublishedModels", "is_tree", "read_densities", "read_rows"]

LAYOUT = "VARIANT/HORIZON/DAY/stats_HORIZON.json.gz"
_PUBLISHED = ("default", "deterministic")
_LARGEST = 64 << 20  # bytes; real ones unpack to 90 kB
_AGAIN = "copy it from the published tree again"
_LISTED = 5  # days that a sentence names

Days = dict[str, Path]
Row = tuple[bool, list[float]]


def is_tree(folder: Path) -> bool:
    """Whether a folder is laid out as a published deployment, or one variant of it."""
    return folder.is_dir() and bool(_variants(folder))


def read_rows(
    folder: Path, tell: Callable[[str], None] | None = None
) -> dict[tuple[str, int, dt.date], Row]:
    """What was measured and decided, of all variants, horizons and days that are there.

    Args:
        folder: With a folder for each variant; or one of these.
        tell: Called with a sentence for each kind of gap: variants, horizons or days that are not
            there, trainings without a model.

    Returns:
        By variant, horizon and day: whether it trained; coverage increase, total coverage
        increase, total coverage (NaN where not known).

    Raises:
        ForeignError: Nothing is laid out so.
        DamagedError: Statistics are cut off, or hold other things; the file is named.
        StorageError: A folder or a file cannot be read.
    """
    variants = _found(folder)
    rows: dict[tuple[str, int, dt.date], Row] = {}
    told: list[str] = []
    for name, horizons in variants.items():
        absent = [str(h) for h in range(HORIZONS) if h not in horizons]
        if absent:
            told.append(f"{name} lacks the horizons {', '.join(absent)}")
        half: list[str] = []
        bare: list[str] = []
        for day in sorted({day for days in horizons.values() for day in days}):
            for horizon, days in horizons.items():
                row = None if day not in days else _row(days[day], horizon)
                if row is None:
                    half.append(f"{day} (horizon {horizon})")
                    continue
                rows[name, horizon, day_of(day)] = row
                if row[0] and not (days[day] / "model").is_dir():
                    bare.append(f"{day} (horizon {horizon})")
        if half:
            told.append(f"{name} lacks statistics of {_listed(half)}")
        if bare:
            told.append(f"{name} lacks the models that were trained on {_listed(bare)}")
    if not rows:
        raise ForeignError(f"{folder} has folders for days, but no statistics; expected {LAYOUT}")
    missing = [name for name in _PUBLISHED if name not in variants]
    if len(missing) == 1:
        told.append(f"there is no variant {missing[0]}, which was published as well")
    if tell is not None:
        for sentence in told:
            tell(f"{folder}: {sentence}")
    return rows


def read_densities(folder: Path, until: str) -> dict[str, np.ndarray]:
    """How dense the first horizon's memory was where each of its batches lies, on the last day.

    Args:
        folder: See `read_rows`.
        until: The last day may be no later.

    Returns:
        By variant, in the order of the file; without those that have none.

    Raises:
        ForeignError, DamagedError, StorageError: As `read_rows`.
    """
    found = {}
    for name, horizons in _found(folder).items():
        days = {day: p / "stats_0.json.gz" for day, p in horizons.get(0, {}).items()}
        days = {day: path for day, path in days.items() if day <= until and path.exists()}
        text = _document(days[max(days)]).get("densities") if days else None
        if text is None:
            continue
        try:
            found[name] = np.array(str(text).strip("()[], ").split(","), np.float64)
        except ValueError as error:
            raise DamagedError(f"{days[max(days)]}: densities: {error}; {_AGAIN}") from None
    return found


class PublishedModels:
    """The predictor of one variant on each day: of the last training up to it.

    Args:
        folder: Of the variant; or the whole tree, if it has one variant.

    Raises:
        SettingError: There are several variants.
        ForeignError: Nothing is laid out so; a horizon is missing, or the model of a training.
        DamagedError, ModelError: Statistics or models cannot be used.
        StorageError: A folder or a file cannot be read.
        MissingExtraError: PyTorch is not installed.
    """

    def __init__(self, folder: Path) -> None:
        variants = _found(folder)
        if len(variants) > 1:
            raise SettingError(
                f"{folder} has the variants {', '.join(variants)}; give the folder of one: "
                f"{folder / next(iter(variants))}"
            )
        (horizons,) = variants.values()
        absent = [str(h) for h in range(HORIZONS) if h not in horizons]
        if absent:
            raise ForeignError(
                f"{folder} lacks the horizons {', '.join(absent)}; a predictor has {HORIZONS} "
                "networks, copy all of the variant"
            )
        self._trained = [_trainings(days, horizon) for horizon, days in sorted(horizons.items())]

    def __call__(self, day: str) -> Ttp | None:
        """The predictor that served on a day; None before the first training of a horizon."""
        networks = []
        for days, found in self._trained:
            at = bisect.bisect_right(days, day)
            if not at:
                return None
            networks.append(found[at - 1])
        return Ttp(tuple(networks))


def _trainings(days: Days, horizon: int) -> tuple[list[str], list[Network]]:
    """Days on which a horizon was trained, and what was trained."""
    found: dict[str, Network] = {}
    for day, folder in days.items():
        model, row = folder / "model", _row(folder, horizon)
        # Of a day without statistics, its model says that there was a training.
        if row[0] if row is not None else model.is_dir():
            if not model.is_dir():
                raise ForeignError(
                    f"{folder} lacks the folder model: that day a network was trained, and it "
                    "served from then on; copy it from the published tree"
                )
            found[day] = read_network(model, horizon)
    return list(found), list(found.values())


# ------------------------------------------------------------------------------------------ layout


def _found(folder: Path) -> dict[str, dict[int, Days]]:
    """The variants.

    Raises:
        ForeignError: There are none.
    """
    variants = _variants(folder)
    if not variants:
        raise ForeignError(
            f"{folder} holds no published deployment; expected {LAYOUT}, as in the folder "
            "results/memento-deployment of the paper's artefact"
        )
    return variants


def _variants(folder: Path) -> dict[str, dict[int, Days]]:
    """Days by variant and horizon; of a folder of horizons, its name is that of the variant."""
    own = _horizons(folder)
    if own:
        return {folder.resolve().name: own}
    found = {name: _horizons(place) for name, place in _folders(folder).items()}
    return {name: horizons for name, horizons in found.items() if horizons}


def _horizons(folder: Path) -> dict[int, Days]:
    names = {str(horizon): horizon for horizon in range(HORIZONS)}
    found: dict[int, Days] = {}
    for name, place in _folders(folder).items():
        if name in names:
            days = {day: path for day, path in _folders(place).items() if is_day(day)}
            found |= {names[name]: days} if days else {}
    return found


def _folders(folder: Path) -> Days:
    with storage_errors("read the published deployment", folder):
        return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")


# -------------------------------------------------------------------------------------- statistics


def _row(folder: Path, horizon: int) -> Row | None:
    """The statistics of a day; None if there are none."""
    path = folder / f"stats_{horizon}.json.gz"
    if not path.exists():
        return None
    document = _document(path)
    if document.get("day") != folder.name:
        found = document.get("day", "nothing")
        raise DamagedError(f"{path}: day is {found!r}, in the folder of {folder.name}; {_AGAIN}")
    retrained = document.get("retrain")
    if not isinstance(retrained, bool):
        raise DamagedError(f"{path}: retrain is {retrained!r}; expected true or false; {_AGAIN}")
    names = ("coverage_increase", "total_coverage_increase", "total_coverage")
    values = [_number(document.get(name), f"{path}: {name}") for name in names]
    if not 0 <= values[0] <= 1:
        raise DamagedError(f"{path}: {names[0]} is {values[0]}; expected 0 to 1; {_AGAIN}")
    return retrained, values


def _document(path: Path) -> dict[str, Any]:
    content = unpacked(path, _LARGEST, _AGAIN)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} holds no JSON ({error}); {_AGAIN}") from None
    if not isinstance(document, dict):
        raise DamagedError(f"{path} holds no JSON object; {_AGAIN}")
    return document


def _number(value: Any, where: str) -> float:
    """A finite number; NaN where there is none, as on the first day."""
    if value in (None, "", "None"):
        return math.nan
    number = math.inf
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if math.isinf(number):
        raise DamagedError(f"{where} is {str(value)[:40]!r}; expected a number; {_AGAIN}")
    return number
