"""Days as a replay sees them: columns of samples, read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from memento.density import SampleSpace
from memento.errors import SchemaError
from memento.policies import Policy
from memento_puffer.data.features import Features
from memento_puffer.data.schema import Day, polars
from memento_puffer.predictor.network import Network, clamp_sentinels, selected_inputs
from memento_puffer.predictor.ttp import read_py
from memento_puffer.predictor.ttp_training import AFFORDABLE, Training, TrainingSettings

__all__ = [
    "Days",
    "LazyDay",
    "Published",
    "columns_of",
    "extra_columns",
    "features_from",
    "first_network",
    "published_models",
    "with_stalls",
]

Published = Callable[[str], "Network | None"]
Days = Mapping[str, "Features | Path | Callable[[], Features]"]


class LazyDay(Mapping[str, np.ndarray]):
    """Columns of a day, made when they are asked for: a replay that goes on skips what it knows.

    A day is judged first and inserted then, so its columns are kept until the next one is judged;
    then they go, since two days of millions of samples need not be in memory at once.
    """

    def __init__(self, make: Callable[[], dict[str, np.ndarray]], before: LazyDay | None) -> None:
        self._make = make
        self._before = before
        if before is not None:
            before._before = None  # no chain: each holds its day's files open
        self._columns: dict[str, np.ndarray] = {}

    def _made(self) -> dict[str, np.ndarray]:
        if not self._columns:
            if self._before is not None:
                self._before._columns = {}
                self._before = None
            self._columns = self._make()
        return self._columns

    def __getitem__(self, name: str) -> np.ndarray:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())


def features_from(source: Features | Path | Callable[[], Features]) -> Features:
    """The features of a day, wherever they are."""
    if isinstance(source, Features):
        return source
    return source() if callable(source) else Features.read(source)


def columns_of(
    features: Features,
    horizon: int,
    number: int = 0,
    *,
    extra: Sequence[str] = (),
    base: Network | None = None,
) -> dict[str, np.ndarray]:
    """Samples of a day as a replay sees them.

    Args:
        features: The day.
        horizon: 0 to 4.
        number: Of the day.
        extra: Further columns, for policies that look at them: ``seconds``, ``z``, ``stalled``.
        base: Its moments make ``z``.

    Returns:
        x (n, 62) float32, min_rtt not measured clamped to rtt; y (n,) float64 s; y_bin; day; and
        those asked for: seconds (n, 1), y as a row; z (n, 62) x standardised; stalled, whether the
        sample's stream ever stalled.

    Raises:
        SchemaError: The day does not know which streams stalled.
    """
    found = features.columns(horizon, dtype=np.float32, sentinels="clamp")
    _, targets = features.samples(horizon)
    # From the times themselves: float32 could put one that lies on a boundary into another class.
    y = (features.acked[targets] - features.sent[targets]) / 1e9
    columns = {"x": found["x"], "y": y, "y_bin": found["y_bin"]}
    columns["day"] = np.full(len(y), number, np.int64)
    if "seconds" in extra:
        columns["seconds"] = y[:, None].astype(np.float32)
    if "z" in extra:
        if base is None:
            raise SchemaError("column 'z' is made with the moments of the static model; give one")
        x = selected_inputs(clamp_sentinels(found["x"]), base.inputs)
        columns["z"] = base.moments.standardise(x, np.float32)
    if "stalled" in extra:
        if "stalled" not in features.streams.columns:
            raise SchemaError(
                "column 'stalled' of the streams is missing; give the day's files instead of its "
                "features, or features of `with_stalls`"
            )
        flags = features.streams["stalled"].to_numpy()
        columns["stalled"] = flags[found["stream"]].astype(bool)
    return columns


def with_stalls(features: Features, stalled: Day | np.ndarray) -> Features:
    """Features that know which of their streams stalled after the startup: column ``stalled``.

    Args:
        features: Of a day.
        stalled: (streams,) bool; or the day they are of, which is then analysed.

    Raises:
        SchemaError, DamagedError, StorageError: Of the day's files.
    """
    if isinstance(stalled, Day):
        from memento_puffer.quality.analysis import analyze_day

        stalled = np.asarray(analyze_day(stalled).streams["stall"] > 0)
    pl = polars("marking streams that stalled")
    column = pl.Series("stalled", np.asarray(stalled, bool))
    return replace(features, streams=features.streams.with_columns(column))


def first_network(
    features: Features, horizon: int, settings: TrainingSettings = AFFORDABLE
) -> Network:
    """A predictor from random weights, trained on all samples of one day.

    What a replay of simulated days takes for its static model, as Fugu-Feb is for real ones.

    Raises:
        SchemaError: The day holds no samples.
    """
    columns = columns_of(features, horizon)
    return Training(None, columns["x"], columns["y_bin"], None, settings).run()


def published_models(folder: str | Path, horizon: int) -> Published:
    """Models that were published day by day, as `download` leaves them.

    Args:
        folder: With a folder for each day, as ``2022-03-01/py-0.pt``.
        horizon: Which of the five networks.

    Returns:
        A function from a day's name to the network that served on it; None where there is none.
    """

    def of(day: str) -> Network | None:
        path = Path(folder) / day / f"py-{horizon}.pt"
        return read_py(path) if path.is_file() else None

    return of


def extra_columns(policy: Policy) -> tuple[str, ...]:
    """Columns that a policy looks at and that are not always there."""
    names = {getattr(policy, "column", "")}
    if isinstance(policy, SampleSpace):
        names |= {column for distance in policy.distances for column in distance.columns}
    return tuple(sorted(names & {"seconds", "z", "stalled"}))
