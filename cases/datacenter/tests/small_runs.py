"""Small made-up runs and a plan of seconds, which the tests of replays share."""

from __future__ import annotations

import dataclasses

import numpy as np

from memento.samples import Samples
from memento_datacenter.models import NetworkSettings
from memento_datacenter.scenarios import SCENARIOS, Plan
from memento_datacenter.schema import Run
from memento_datacenter.simulate import SETTINGS

SMALL = NetworkSettings(layers=1, units=8, epochs=2, batch_size=64)
PLAN = Plan(
    phase=2, window=4, runs=4, judged=100, batch_size=16, classification=SMALL, regression=SMALL,
    capacities=dict.fromkeys(SCENARIOS, 128),
)  # fmt: skip
EVERY = dataclasses.replace(PLAN, phase=4)  # needs all runs of w3
EXACT = ("select",)  # seconds, which no seed decides


def made_up(setting: str, number: int, packets: int = 120) -> Run:
    """Sizes tell the workload, delays grow with the load."""
    place = SETTINGS.index(setting)
    label, load = place % 3 + 1, place // 3
    rng = np.random.default_rng([place, number])
    arrival = np.sort(rng.integers(0, 10**9, packets))
    delay = rng.gamma(2.0, 1e6 * (1 + load), packets) + 15e6
    size = rng.choice([60, 300 * label, 1500], packets)
    about = {
        "setting": setting, "run": number, "label": label, "network": {"end": 1.0}, "seed": 1,
        "ns3": "3.44", "source": "digest", "workload": f"w{label}", "sizes": f"w{label}",
    }  # fmt: skip
    return Run(arrival, delay.astype(np.int64), size, rng.integers(0, 3, packets), about)


def same(a: Samples, b: Samples) -> bool:
    """Whether two tables of replays agree in all that a seed decides."""
    return set(a) == set(b) and all(
        np.array_equal(a[c], b[c], equal_nan=a[c].dtype.kind == "f") for c in a if c not in EXACT
    )
