"""`memento puffer replay`: memories and schedules, day by day over the same days."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memento.cli import ui
from memento.cli.options import AsJson
from memento.errors import SchemaError, SettingError, StorageError
from memento.files import storage_errors
from memento_puffer.cli.days import StoredDay
from memento_puffer.cli.days import stored as stored_days
from memento_puffer.cli.options import StoredDayOptions, TrainingOptions

if TYPE_CHECKING:
    from memento.samples import Samples
    from memento_puffer.data.features import Features
    from memento_puffer.data.schema import Day
    from memento_puffer.predictor.network import Network
    from memento_puffer.predictor.ttp_training import TrainingSettings
    from memento_puffer.studies.days import Published
    from memento_puffer.studies.replay_settings import ReplaySettings

__all__ = ["replay"]

DAILY = "daily"
_ARMS = ("memento", "forgetting")
_STATIC = "memento-static-model"


@dataclass(frozen=True)
class ReplayOptions:
    """What all arms have, by the names of `ReplaySettings`.

    Attributes:
        horizon: Which of the five networks, from 0.
        capacity: Samples in memory. Default: a third of the first day.
        interval: Trainings on every so many-th day only.
        trigger: When on these days: always, coverage, coverage-calibrated, loss, count, period,
            never (after the first).
        threshold: Coverage or loss increase, samples, or days, by the trigger.
        jtt: Just Train Twice: factor of wrong samples; 1: none.
        members: Remember so many models: adds oracle and matchmaker; 1: none.
        freeze_after: Days after which memory and model stay as they are.
        predict_first: Let the static model predict until a training.
        seed: Of everything random.
    """

    horizon: int = 0
    capacity: int | None = None
    interval: int = 7
    trigger: str = "always"
    threshold: float = 0.1
    jtt: float = 1.0
    members: int = 1
    freeze_after: int | None = None
    predict_first: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PolicyOptions:
    """What policies have.

    Attributes:
        batch_size: Samples in a batch.
        temperature: Of the policy, where it has one; default: the arm's.
        bandwidth: Of its kernel, where it has one; default: the arm's.
    """

    batch_size: int = 256
    temperature: float | None = None
    bandwidth: float | None = None


def replay(
    days: StoredDayOptions,
    replaying: ReplayOptions,
    policy: PolicyOptions,
    training: TrainingOptions,
    out: Path,
    arms: list[str] | None = None,
    daily: bool = True,
    start: Path | None = None,
    published: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Insert a day, decide, train, judge the model on the next day; and compare.

    The same command after Ctrl-C or a crash goes on with the day that was not complete, and gives
    what an undisturbed one would have. Differences of log scores are those of daily quantiles on
    the same samples, in nats; tail is the 1st percentile. Above 0 is better.

    Args:
        out (--out DIR): Receives state, tables; goes on from what is there.
        arms (--arm): memento, memento-T0, memento-defaults, memento-calibrated, density-reservoir,
            density-reservoir-unweighted, density-reservoir-defaults, density-reservoir-calibrated,
            random, random-triple, random-calibrated, forgetting, daily, fifo, euclidean,
            euclidean-inputs, loss, confidence, labels, stalled, loss-aware, class-balanced,
            herding, k-center, facility-location, gradient, unbounded, committee. Repeatable.
            Default: memento and forgetting.
        daily: Also Fugu's scheme: trained daily on a random sample of 14 days.
        start (DIR): Static model, which trainings start from. Default: trained on the first of
            DAYS, which is then not replayed.
        published (DIR): Models by day, as DIR/2022-03-01/py-0.pt: judged, too.

    Example:
        memento puffer replay 2021-10-17..2021-10-23 --from features --out replay --interval 2
    """
    horizon, seed = replaying.horizon, replaying.seed
    settings = training.chosen()
    stored = stored_days(days, out / "features")
    models = _published(published, horizon, list(stored)) if published is not None else None
    network, first = _static(start, horizon, stored, settings, out, seed)
    capacity = replaying.capacity
    if capacity is None:
        capacity = _a_third((first or next(iter(stored.values())).features)())
    given = {**vars(replaying), "capacity": capacity, "coverage_batch": policy.batch_size}
    chosen = _chosen(arms, daily, given, vars(policy), settings)
    tables = _replayed(chosen, stored, out, network, models)
    references = [name for name in (DAILY, "static") if name != DAILY or daily]
    references += ["published"] if models is not None else []
    _compare(out, chosen, tables, references, capacity if as_json else None)


def _chosen(
    arms: Sequence[str] | None,
    daily: bool,
    given: Mapping[str, Any],
    fields: Mapping[str, Any],
    training: TrainingSettings,
) -> dict[str, ReplaySettings]:
    """Settings of each arm, by its name of today."""
    from memento_puffer.studies.arms import named
    from memento_puffer.studies.replay_settings import arm, fixed

    asked = [named(name) for name in arms or ()]
    chosen = {}
    for name in dict.fromkeys([*(asked or _ARMS), *([DAILY] if daily else [])]):
        known = fixed(name)
        if name in asked:  # days of training are those of the other arms; all else is meant
            known = {key: known[key] for key in ("interval", "trigger") if key in known}
        chosen[name] = replace(arm(name, {**given, **known}, **fields), training=training)
    return chosen


def _replayed(
    chosen: Mapping[str, ReplaySettings],
    stored: Mapping[str, StoredDay],
    out: Path,
    network: Network,
    models: Published | None,
) -> dict[str, dict[str, Samples]]:
    """Replay all arms; the tables of each."""
    from memento_puffer.studies.days import extra_columns
    from memento_puffer.studies.replay import Replay

    needing = [n for n, arm in chosen.items() if "stalled" in extra_columns(arm.policy)]
    stalls = _with_stalls(stored, needing[0]) if needing else {}
    plain = {name: day.features for name, day in stored.items()}
    tables: dict[str, dict[str, Samples]] = {}
    with ui.Progress() as bar:
        for name, arm in chosen.items():
            task = bar.add_task(name, total=len(stored))

            def tell(done: int, total: int, day: str, name: str = name, task: Any = task) -> None:
                bar.update(task, description=f"{name}: {day}"[:22], completed=done)

            made = Replay(out / name, arm, stalls if name in needing else plain, network, models)
            made.run(tell)
            tables[name] = made.tables()
            bar.update(task, description=name, completed=len(stored))
    return tables


def _compare(
    out: Path,
    chosen: Mapping[str, ReplaySettings],
    tables: Mapping[str, Mapping[str, Samples]],
    references: Sequence[str],
    capacity: int | None,
) -> None:
    """Write and show what came out; with a capacity as JSON, too."""
    from memento_puffer.studies.improvements import improvements

    scores = {name: arm["scores"] for name, arm in tables.items()}
    compared = {name: improvements(scores, name) for name in references}
    _write(out, tables, compared)
    for name, table in compared.items():
        rows = [r for r in ui.rows(table) if r["days"] and r["arm"] != name]
        ui.show(
            (f"against {name}", "by", "days", *_GAINS),
            [[r["arm"], r["predictor"], r["days"], *(_gain(r, n) for n in _GAINS)] for r in rows],
        )
    ui.show(
        ("arm", "days", "trainings", "on"),
        [[name, t["steps"].size, *_trainings(t["steps"])] for name, t in tables.items()],
    )
    _note_untrained(chosen, tables)
    if capacity is not None:
        ui.print_json(
            {
                "out": str(out),
                "capacity": capacity,
                "improvement": {n: ui.rows(table) for n, table in compared.items()},
                "trained": {n: _trained(t["steps"]) for n, t in tables.items()},
            }
        )


_GAINS = ("tail", "median", "mean")


def _with_stalls(stored: Mapping[str, StoredDay], arm: str) -> dict[str, Callable[[], Features]]:
    """The same with the column ``stalled``: of a day's files, or as its features have it.

    Raises:
        SchemaError: Features were made without it; said before anything is replayed.
    """
    from memento_puffer.studies.days import with_stalls

    def analysed(stored_day: StoredDay, day: Day) -> Features:
        return with_stalls(stored_day.features(), day)

    features_of: dict[str, Callable[[], Features]] = {}
    for name, stored_day in stored.items():
        if stored_day.day is not None:
            features_of[name] = partial(analysed, stored_day, stored_day.day)
            continue
        if "stalled" not in stored_day.features().streams.columns:
            raise SchemaError(
                f"the arm {arm!r} needs to know which streams stalled, and the features of {name} "
                "do not; give the days themselves with --from, not their features, or leave the "
                "arm out"
            )
        features_of[name] = stored_day.features
    return features_of


def _published(folder: Path, horizon: int, days: Sequence[str]) -> Published:
    """Published models, of at least one of the days.

    Raises:
        StorageError: There is no such folder, or it has none.
    """
    from memento_puffer.studies.days import published_models

    if not folder.is_dir():
        raise StorageError(f"--published {folder}: no such folder; check the path")
    if not any((folder / day / f"py-{horizon}.pt").is_file() for day in days):
        raise StorageError(
            f"--published {folder} holds no model of these days, such as "
            f"{days[0]}/py-{horizon}.pt; give the folder that has a folder for each day"
        )
    return published_models(folder, horizon)


def _static(
    start: Path | None,
    horizon: int,
    stored: dict[str, StoredDay],
    training: TrainingSettings,
    out: Path,
    seed: int,
) -> tuple[Network, Callable[[], Features] | None]:
    """The static model; where it is trained here, the first day leaves the days to replay."""
    from memento import snapshot
    from memento_puffer.predictor.network import Network
    from memento_puffer.predictor.ttp import read_py
    from memento_puffer.studies.days import first_network

    if start is not None:
        return read_py(start / f"py-{horizon}.pt"), None
    if len(stored) < 2:
        raise SettingError(
            "one day alone: it would train the static model and leave none to replay; give more "
            "days, or a model with --start"
        )
    name = next(iter(stored))
    first = stored.pop(name).features
    settings = replace(training, seed=training.seed + seed)
    identity = {"day": name, "training": repr(settings)}
    place = out / "static" / f"horizon-{horizon}"
    with storage_errors("make the folder", place):
        place.mkdir(parents=True, exist_ok=True)
    if snapshot.exists(place):
        saved = snapshot.read(place, _STATIC)
        if saved.documents["identity"] == identity:
            return Network.of_arrays(saved.arrays), first
    network = first_network(first(), horizon, settings)
    snapshot.write(place, _STATIC, network.arrays(), {"identity": identity})
    return network, first


def _a_third(features: Features) -> int:
    return max(1, len(features.samples(0)[0]) // 3)


def _write(
    out: Path, tables: Mapping[str, Mapping[str, Samples]], compared: Mapping[str, Samples]
) -> None:
    """Tables of all arms as CSV in the folder ``tables``; a column says which arm a row is of."""
    from memento.cli import tables as tables_on_disk
    from memento.samples import Samples

    place = out / "tables"
    with storage_errors("make the folder", place):
        place.mkdir(parents=True, exist_ok=True)
    parts = [t.with_columns(against=np.full(t.size, n, "U16")) for n, t in compared.items()]
    tables_on_disk.write(place / "improvement.csv", Samples.concat(parts))
    for what in next(iter(tables.values())):
        made = [
            _all_columns(tables, what, name).with_columns(arm=np.full(table[what].size, name))
            for name, table in tables.items()
            if table[what].size
        ]
        if made:
            name = "improvement_by_day" if what == "improvement" else what
            tables_on_disk.write(place / f"{name}.csv", Samples.concat(made))


def _all_columns(tables: Mapping[str, Mapping[str, Samples]], what: str, name: str) -> Samples:
    """A table with the columns of all arms; where it lacks one, with NaN."""
    table = tables[name][what]
    wanted = dict.fromkeys(c for arm in tables.values() if arm[what].size for c in arm[what])
    absent = {c: np.full(table.size, math.nan) for c in wanted if c not in table}
    return table.with_columns(absent).select(wanted)


def _gain(row: Mapping[str, Any], name: str) -> str:
    value, error = row[name], row[f"{name}_error"]
    if value is None:
        return ""
    return f"{value:+.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _note_untrained(
    chosen: Mapping[str, ReplaySettings], tables: Mapping[str, Mapping[str, Samples]]
) -> None:
    """Say of which arms nothing can be seen, and why."""
    for name, arm in chosen.items():
        days = tables[name]["steps"].size
        trained = np.flatnonzero(tables[name]["steps"]["trained"])
        if not len(trained):
            what = "was never trained"
        elif trained[0] == days - 1:
            what = "was trained on the last day only, which leaves none to judge it on"
        else:
            continue
        why = f"with --interval {arm.interval} the first training is on day {arm.interval}, and "
        if arm.freeze_after is not None and arm.freeze_after < min(arm.interval, days):
            why += f"--freeze-after {arm.freeze_after} comes before; give a larger one"
        else:
            why += f"{days} are replayed; give more days or a smaller --interval"
        ui.say(f"memento: {name} {what}: {why}", err=True)


def _trained(steps: Samples) -> list[str]:
    return [str(day) for day in steps["name"][steps["trained"]]]


def _trainings(steps: Samples) -> tuple[int, str]:
    days = _trained(steps)
    shown = ", ".join(days[:4]) + (", ..." if len(days) > 4 else "")
    return len(days), shown
