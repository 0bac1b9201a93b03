"""Bodies of the experiments that a closed loop is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from memento import snapshot
from memento.group import Group
from memento.loop import Step, run
from memento.memory import Memory
from memento.retrain import Every, OnArrivals, Trigger
from memento.runner.spec import Run
from memento.samples import Samples
from memento.training import Calibrated
from memento_puffer.data.features import HORIZONS, Features
from memento_puffer.data.layout import CHUNK_SECONDS
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.scores import score
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp import Ttp
from memento_puffer.predictor.ttp_training import Training, TrainingSettings, TtpLearner
from memento_puffer.quality.qoe import SLOW_RATE
from memento_puffer.streaming.abr import Fugu
from memento_puffer.streaming.simulator import Block, Scheme
from memento_puffer.studies.arms import ARMS, Arm
from memento_puffer.studies.closed_loop import ClosedLoop
from memento_puffer.studies.day_bodies import move_results
from memento_puffer.studies.outcomes import ArmResult, read_network, write_network

__all__ = ["control", "run_arm", "simulate_day", "train_first"]


def simulate_day(
    here: Run, *, loop: Mapping[str, Any], day: int, traces: str, first: Sequence[str]
) -> None:
    """The telemetry of one day; with Fugu where all of the first networks are there."""
    networks = tuple(read_network(Path(place)) for place in first)
    base = Ttp(networks) if len(networks) == HORIZONS else None
    ClosedLoop.of_document(loop, traces).simulate_day(day, base).write(here.folder)


def train_first(here: Run, *, loop: Mapping[str, Any], horizon: int, days: Sequence[str]) -> None:
    """The network of one horizon, of the first day's samples."""
    columns = Features.read(Path(days[0])).columns(horizon, sentinels="clamp")
    settings = _training(ClosedLoop.of_document(loop))
    network = Training(None, columns["x"], columns["y_bin"], None, settings).run()
    write_network(here.folder / "network", network)


def _training(loop: ClosedLoop) -> TrainingSettings:
    return replace(loop.training, seed=loop.training.seed + loop.seed)


def run_arm(
    here: Run, *, loop: Mapping[str, Any], arm: str, days: Sequence[str], first: Sequence[str]
) -> None:
    """The daily loop of an arm, at all horizons: their steps and last networks."""
    settings = ClosedLoop.of_document(loop)
    for horizon, place in enumerate(first):
        here.report(horizon, len(first), f"horizon {horizon}")
        base, checkpoint = read_network(Path(place)), here.checkpoint / f"horizon-{horizon}"
        learner = _run_loop(settings, arm, horizon, days, base, checkpoint / "loop")[1]
        write_network(checkpoint / "network", _serving(learner))
    move_results(here.checkpoint, here.folder)


def _run_loop(
    loop: ClosedLoop, name: str, horizon: int, days: Sequence[str], base: Network, checkpoint: Path
) -> tuple[list[Step], TtpLearner | Calibrated]:
    """One arm at one horizon: its steps, and its learner after them."""
    arm = ARMS[name]
    network = TtpLearner(base, replace(_training(loop), start="base"))
    # In use from the first day on: it predicted what that day's samples are selected by.
    network.restore(base.arrays())
    learner: TtpLearner | Calibrated = network
    if arm.calibrated:
        learner = Calibrated(network)
    elif arm.softened != 1:
        learner = _Softened(network, arm.softened)

    def composition(memory: Memory | Group) -> dict[str, Any]:
        assert isinstance(memory, Memory)
        labels = memory.samples["y_bin"] if len(memory) else np.empty(0, np.int64)
        ages = np.bincount(memory.arrivals, minlength=loop.days + 1)[1:]
        return {"classes": np.bincount(labels, minlength=CLASSES).tolist(), "ages": ages.tolist()}

    steps = run(
        _stream(days, horizon, of_streams=arm.waits == "arrivals"),
        loop.memory(name, horizon),
        learner,
        _trigger(loop, arm),
        weighted=arm.weighted,
        freeze_after=0 if arm.frozen else None,
        note=composition,
        checkpoint=checkpoint,
        rng=loop.seed,
    )
    return list(steps), learner


def _trigger(loop: ClosedLoop, arm: Arm) -> Trigger:
    if arm.waits == "arrivals":
        return OnArrivals(cluster="stream")
    return loop.trigger if arm.waits == "coverage" else Every(1)


def _stream(
    days: Sequence[str], horizon: int, *, of_streams: bool = False
) -> Iterator[tuple[str, Samples]]:
    """Samples of each day; if asked for, with a number of their stream that no other day has."""
    for number, place in enumerate(days, 1):
        columns = Features.read(Path(place)).columns(horizon, sentinels="clamp")
        found = {name: columns[name] for name in ("x", "y", "y_bin")}
        if of_streams:
            found["stream"] = columns["stream"] + (number << 32)
        yield f"day {number}", Samples.borrow(found)


class _Softened(Calibrated):
    """Has one temperature, whatever comes."""

    def __init__(self, learner: TtpLearner, temperature: float) -> None:
        super().__init__(learner)
        self.temperature = temperature

    def adapt(self, samples: Samples) -> bool:
        return False

    def state(self) -> Mapping[str, np.ndarray]:
        state: Mapping[str, np.ndarray] = self.learner.state()
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.learner.restore(state)


def _serving(learner: TtpLearner | Calibrated) -> Network:
    """What predicts as a learner does."""
    if isinstance(learner, Calibrated):
        network: Network = learner.learner.network
        return network.softened(learner.temperature)
    return learner.network


def control(
    here: Run, *, loop: Mapping[str, Any], arm: str, parts: int, result: str, traces: str
) -> None:
    """Viewers of the day after the last under one arm; the log scores of their chunks."""
    settings, ttp = ClosedLoop.of_document(loop, traces), ArmResult.read(arm, Path(result)).ttp
    day = settings.days
    simulation = settings.simulation([Scheme(arm, Fugu(), ttp)], day, paired=True)
    streams, logs = [], [np.empty(0)]
    for part in range(parts):
        here.report(part, parts, f"part {part + 1}")
        viewers: dict[str, Any] = {"sessions": settings.judges, "part": (part, parts)}
        for block in simulation.day(day, record="chunks", **viewers):
            streams.append(_as_analysed(block, arm, day))
            columns = Features.of_blocks([block]).columns(0, sentinels="clamp")
            if len(columns["y"]):
                logs.append(score(ttp[0].probabilities(columns["x"]), columns["y"])["logscore"])
    columns = dict(Samples.concat(streams)) if streams else {}
    columns["logs"] = np.concatenate(logs)
    snapshot.write(here.folder / "streams", "closed-loop", columns, {})


def _as_analysed(block: Block, name: str, day: int) -> Samples:
    """A block's streams with the columns that the analysis of days has."""
    found = block.streams
    count = len(found["viewer"])
    return Samples.borrow(
        day=np.full(count, day, np.int64),
        scheme=np.full(count, name, "U64"),
        viewer=found["viewer"].astype(np.int64),
        index=found["index"].astype(np.int64),
        considered=found["considered"].astype(bool),
        slow=found["delivery_rate"] <= SLOW_RATE,
        startup=found["startup"],
        watch=found["watch"],
        stall=found["stall"],
        stall_capped=np.minimum(found["stall"], found["watch"]),
        ssim=found["ssim_index"],
        delta_ssim=found["delta_ssim"],
        bitrate=8 * found["bytes"] / (CHUNK_SECONDS * np.maximum(found["chunks"], 1)),
    )
