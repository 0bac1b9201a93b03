"""What arms of a closed loop did, and what viewers got from their models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memento import snapshot
from memento.errors import SettingError
from memento.loop import Step, read_steps
from memento.samples import Samples
from memento_puffer.data.features import HORIZONS
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.ttp import Ttp
from memento_puffer.quality import aggregates

__all__ = ["ArmResult", "Outcome", "read_network", "summary", "write_network"]

_NETWORK = "memento-closed-loop"


def write_network(folder: Path, network: Network) -> None:
    """Store a network in a folder of its own."""
    snapshot.write(folder, _NETWORK, network.arrays(), {})


def read_network(folder: Path) -> Network:
    """The network that `write_network` stored."""
    return Network.of_arrays(snapshot.read(folder, _NETWORK).arrays)


@dataclass(frozen=True)
class ArmResult:
    """What one arm did, and what became of its models.

    Attributes:
        name: Of the arm.
        steps: By horizon, one step for each day.
        networks: By horizon, after the last day.
        ages: ``(days,)`` samples of each day that the memory of the first horizon holds at the end.
        classes: ``(21,)`` samples of each class, likewise.
        folder: Where it was read from.
    """

    name: str
    steps: list[list[Step]]
    networks: list[Network] = field(repr=False)
    ages: np.ndarray = field(repr=False)
    classes: np.ndarray = field(repr=False)
    folder: Path | None = field(default=None, repr=False)

    @classmethod
    def read(cls, name: str, folder: Path) -> ArmResult:
        """What the experiment of an arm left in a folder."""
        places = sorted(folder.glob("horizon-*"))
        steps = [read_steps(place / "loop") for place in places]
        networks = [read_network(place / "network") for place in places]
        notes = steps[0][-1].notes
        return cls(
            name, steps, networks, np.array(notes["ages"]), np.array(notes["classes"]), folder
        )

    @property
    def ttp(self) -> Ttp:
        """Its predictor, for Fugu.

        Raises:
            SettingError: Not all horizons were run.
        """
        if len(self.networks) < HORIZONS:
            raise SettingError(
                f"arm {self.name!r} has networks for {len(self.networks)} of {HORIZONS} horizons; "
                f"Fugu needs all: run it with horizons={HORIZONS}"
            )
        return Ttp(tuple(self.networks))


@dataclass(frozen=True)
class Outcome:
    """What the same viewers got from each arm's predictor.

    Attributes:
        streams: A row per stream: ``day``, ``scheme`` (the arm), ``viewer``, ``index``,
            ``considered``, ``slow``, ``startup``, ``watch``, ``stall``, ``stall_capped`` (s),
            ``ssim`` (mean index), ``delta_ssim`` (dB), ``bitrate`` (bit/s).
        scores: By arm, ``p01``, ``median``, ``mean`` log score at horizon 0 of the chunks that it
            sent itself.
    """

    streams: Samples
    scores: Mapping[str, Mapping[str, float]]

    @property
    def hours(self) -> float:
        """Watched under each arm, on average."""
        watched = self.streams["watch"][self.streams["considered"]]
        return float(watched.sum() / 3600 / max(len(self.scores), 1))

    def levels(self, *, slow: bool = False, seed: int = 0) -> Samples:
        """Stall ratio and SSIM of each arm with Puffer's intervals, see ``aggregates.official``."""
        rng = np.random.default_rng(seed)
        return aggregates.official(self.streams, rng=rng, slow=slow, realisations=2000)

    def differences(self, reference: str, *, seed: int = 0, level: float = 0.95) -> Samples:
        """To a reference arm, over the same viewers, see ``aggregates.paired``."""
        rng = np.random.default_rng(seed)
        return aggregates.paired(self.streams, reference, rng=rng, level=level)

    def level_rows(self) -> dict[str, dict[str, float]]:
        """``levels`` by arm, in the order of the arms."""
        table = self.levels()
        names = table["scheme"].tolist()
        return {
            name: {
                column: float(table[column][names.index(name)])
                for column in table
                if column != "scheme"
            }
            for name in self.scores
            if name in names
        }

    def difference_rows(self, reference: str) -> dict[str, dict[str, tuple[float, float, float]]]:
        """``differences`` by arm and variable: value, low, high."""
        table = self.differences(reference)
        rows: dict[str, dict[str, tuple[float, float, float]]] = {}
        for i in range(table.size):
            value, low, high = (float(table[c][i]) for c in ("value", "low", "high"))
            own = rows.setdefault(str(table["first"][i]), {})
            own[str(table["variable"][i])] = (value, low, high)
        return rows


def summary(
    results: Mapping[str, ArmResult], reference: str, horizon: int = 0
) -> dict[str, dict[str, float]]:
    """Mean difference of each arm's daily log scores from those of a reference arm, in nats.

    Returns:
        For each arm ``p01``, ``median``, ``mean`` at this horizon, each with ``..._error``, the
        standard error over the days, and ``retrained``, the number of trainings.

    Raises:
        SettingError: The reference is not among the results.
    """
    if reference not in results:
        raise SettingError(f"no arm {reference!r}; there are {sorted(results)}")
    base = _scores(results[reference], horizon)
    rows: dict[str, dict[str, float]] = {}
    for name, result in results.items():
        rows[name] = {}
        for key, values in _scores(result, horizon).items():
            change = values - base[key]
            error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else float("nan")
            rows[name] |= {key: float(change.mean()), f"{key}_error": float(error)}
        rows[name]["retrained"] = sum(step.trained for step in result.steps[horizon])
    return rows


def _scores(result: ArmResult, horizon: int) -> dict[str, np.ndarray]:
    evaluated = [step for step in result.steps[horizon] if step.evaluated_on is not None]
    return {s: np.array([step.scores[s] for step in evaluated]) for s in ("p01", "median", "mean")}
