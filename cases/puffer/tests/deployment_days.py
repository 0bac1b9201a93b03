"""Small days for tests of the deployment: features of streams whose paths are fast or slow."""

from __future__ import annotations

import datetime as dt
import io
import zipfile

import numpy as np
import polars as pl

from memento_puffer.data.features import STEP, Features
from memento_puffer.deployment.deploy_settings import (
    DeploymentSettings,
    Gate,
    Variant,
    puffer_policy,
)
from memento_puffer.predictor import ttp as ttp_module
from memento_puffer.predictor.network import Moments, Network
from memento_puffer.predictor.ttp import Ttp
from memento_puffer.predictor.ttp_training import TrainingSettings

FIRST = dt.date(2022, 9, 19)  # of data; the job's first day is the next
TRAINING = TrainingSettings(
    epochs=8, batch_size=64, learning_rate=3e-3, held_out=0.0, patience=None, moments="estimate"
)


def day(number: int) -> dt.date:
    """The job's day that works on data day `number`."""
    return FIRST + dt.timedelta(days=number + 1)


def features(
    number: int, streams: int = 20, length: int = 12, slow: float = 0.1, seed: int = 0
) -> Features:
    """A day of streams, a share of them slow."""
    rng = np.random.default_rng([seed, number])
    n = streams * length
    stream = np.repeat(np.arange(streams, dtype=np.int32), length)
    position = np.tile(np.arange(length), streams)
    rate = np.where(rng.random(streams) < slow, 150.0, 3000.0) * rng.lognormal(0, 0.4, streams)
    rate = rate[stream] * rng.lognormal(0, 0.2, n)
    rtt = rng.uniform(0.02, 0.2, streams)[stream]
    size = rng.lognormal(6, 0.5, n)
    seconds = np.round(size / rate + rtt, 6)
    values = np.column_stack(
        [rate, rate * rtt, rng.integers(0, 5, n), rtt * 0.8, rtt, size, seconds]
    ).astype(np.float32)
    start = (1_663_585_200 + 86_400 * number) * 10**9
    sent = start + (position * 2 * 10**9).astype(np.int64)
    acked = sent + np.round(seconds * 1e9).astype(np.int64)
    table = pl.DataFrame({"stream": np.arange(streams)})
    return Features(values, stream, position.astype(np.int64) * STEP, sent, acked, table)


class Days:
    """A source of days for the job, by number; what is not named is absent."""

    def __init__(self, *numbers: int, **arguments: float) -> None:
        self.numbers = set(numbers)
        self.arguments = arguments
        self.replaced: dict[int, Features | Exception] = {}

    def __call__(self, date: dt.date) -> Features | None:
        number = (date - FIRST).days
        found = self.replaced.get(number)
        if isinstance(found, Exception):
            raise found
        if found is not None:
            return found
        return features(number, **self.arguments) if number in self.numbers else None


def settings(**changes) -> DeploymentSettings:
    """Tiny memories, one variant."""
    values = {
        "variants": {"default": Variant(puffer_policy(batch_size=16, temperature=0.01))},
        "capacity": 320,
        "training": TRAINING,
        "gate": Gate(loss=2.0, tail=30.0, held_out=0.1),
        "keep": 4,
    }
    return DeploymentSettings(**(values | changes))


def base() -> Ttp:
    """Networks to start from: they know the scale of inputs and nothing else."""
    networks = []
    for h in range(5):
        moments = Moments.of(features(1000).columns(h)["x"])
        networks.append(Network.fresh(h + 5, moments))
    return Ttp(tuple(networks))


def quick_writer():
    """A stand-in for ``ttp._cpp_bytes`` that traces once: the same bytes, a hundred times faster.

    What a server loads has tests of its own; here many versions are published.
    """
    template = ttp_module._cpp_bytes(Network.fresh(0))

    def cpp_bytes(network: Network) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(template)) as old, zipfile.ZipFile(buffer, "w") as new:
            for name in old.namelist():
                record = old.read(name)
                folder, _, number = name.rpartition("/")
                if folder == "archive/data":
                    record = network.weights[int(number)].astype("<f8").tobytes()
                new.writestr(zipfile.ZipInfo(name), record)
        return buffer.getvalue()

    return cpp_bytes
