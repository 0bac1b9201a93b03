"""Sections about simulated runs: how they are made, message sizes, packets and their delays."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import ForeignError
from memento.report import figures
from memento.report.sections import Chart, Listing, Report, Section
from memento_datacenter.features import WINDOW
from memento_datacenter.schema import Runs
from memento_datacenter.workloads import published

__all__ = ["message_sizes", "of_simulations", "setup"]

_NODES = {
    "20 senders of\nworkload w1, w2 or w3": (0.12, 0.8),
    "cross traffic (UDP)\n0, 10 or 20 Mbit/s": (0.12, 0.2),
    "router A\n100 packets": (0.44, 0.5),
    "router B\n100 packets": (0.68, 0.5),
    "receiver\nrecords packets": (0.91, 0.5),
}
_LINKS = ((0, 2, ""), (1, 2, ""), (2, 3, "bottleneck"), (3, 4, ""))

_ABOUT = {
    "setup": "Figure 15 of the paper: senders of one to three workloads and cross traffic share a "
    "bottleneck; every link has the same rate and delay, every queue drops its newest packet when "
    "full. The paper has switches with a patched ns-3, here they are routers.",
    "message-sizes": "Figure 16: sizes of the messages that senders draw (Montazeri et al., "
    "SIGCOMM 2018): Facebook's web servers (w1), DCTCP (w2), Facebook's Hadoop (w3).",
    "runs": "What a run of each setting holds: packets, samples (packets with a whole window "
    "before them in their application), bytes, and one-way delays. The paper has 10,082, 165,718 "
    "and 6,873 samples a run at 66 %, and 10,120, 39,184 and 6,960 at 133 %.",
}
_DRAW = functools.partial(figures.distributions, by="of", zero=False, log=True)
_QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


def setup() -> Section:
    """How simulations are laid out."""
    table = figures.arrows(_NODES, _LINKS)
    caption = "Links of 30 Mbit/s and 5 ms; the receiver notes when each packet came and how late."
    return Section(
        "setup", "The network", [_ABOUT["setup"], Chart("setup", caption, table, figures.diagram)]
    )


def message_sizes() -> Section:
    """The three workloads."""
    sizes: dict[str, list[Any]] = {"of": [], "value": [], "share": []}
    shown: dict[str, list[Any]] = {"quantile": [f"{q:.0%}" for q in _QUANTILES]}
    for name, workload in published().items():
        sizes["of"] += [name] * len(workload.sizes)
        sizes["value"] += workload.sizes.tolist()
        sizes["share"] += workload.cumulative.tolist()
        shown[name] = np.interp(_QUANTILES, workload.cumulative, workload.sizes).tolist()
    shown["quantile"].append("mean")
    for name, workload in published().items():
        shown[name].append(workload.mean)
    draw = functools.partial(_DRAW, xlabel="bytes of a message", ylabel="share of messages")
    caption = "Message sizes of each workload."
    parts: list[str | Chart | Listing] = [
        _ABOUT["message-sizes"],
        Chart("message-sizes", caption, sizes, draw),
        Listing("message-sizes", f"{caption} Bytes.", shown),
    ]
    return Section("message-sizes", "Message sizes", parts)


def of_simulations(folder: str | Path) -> Report:
    """What `memento datacenter simulate` left; reads one run of each setting, run 1 if it is there.

    Raises:
        DamagedError: A run is damaged.
        ForeignError: A file is no run, or another one's.
    """
    runs = Runs(folder)
    rows: list[dict[str, Any]] = []
    delays: dict[str, list[Any]] = {"of": [], "value": [], "share": []}
    shares = np.linspace(0, 1, 201)
    for setting, numbers in runs.available().items():
        run = runs.read(setting, 1 if 1 in numbers else numbers[0])
        samples = np.maximum(np.bincount(run.application) - WINDOW + 1, 0).sum() if len(run) else 0
        late = 1e3 * np.quantile(run.delay, shares) if len(run) else np.full(201, np.nan)
        rows.append(
            {
                "setting": setting,
                "runs": len(numbers),
                "packets": len(run),
                "samples": int(samples),
                "MB": float(run.size.sum()) / 1e6,
                **{f"delay {p} % (ms)": float(late[2 * p]) for p in (1, 50, 99)},
            }
        )
        delays["of"] += [setting] * len(shares)
        delays["value"] += late.tolist()
        delays["share"] += shares.tolist()
    if not rows:
        raise ForeignError(
            f"{folder} holds no simulated run; memento datacenter simulate makes some"
        )
    draw = functools.partial(_DRAW, xlabel="one-way delay (ms)", ylabel="share of packets")
    caption = "One run of each setting."
    parts: list[str | Chart | Listing] = [
        _ABOUT["runs"],
        Chart("delays", f"One-way delays. {caption}", delays, draw),
        Listing("runs", caption, {name: [row[name] for row in rows] for name in rows[0]}),
    ]
    sections = [setup(), message_sizes(), Section("runs", "Packets", parts)]
    return Report("simulations", Path(folder), "Simulated data-centre traffic", [], sections)
