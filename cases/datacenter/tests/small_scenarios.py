"""Results of the data-centre case in the form of its command, made up, for reports to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memento.samples import Samples
from memento_datacenter import cli, scores


def table() -> Samples:
    """Made-up replays of two scenarios."""
    rng = np.random.default_rng(5)
    rows = []
    for scenario, iterations in (("rare-patterns", 6), ("congestion", 6)):
        memories = ("memento", "random", "fifo", *(("lars",) if scenario[0] == "r" else ()))
        for place, memory in enumerate(memories):
            for seed in (0, 1):
                for i in range(1, iterations + 1):
                    load = ("", "_c100", "_c133")[(i - 1) // 2] if scenario == "congestion" else ""
                    score = 0.9 - 0.1 * place + 0.01 * float(rng.normal())
                    rows.append(
                        {
                            "scenario": scenario, "memory": memory, "seed": seed, "iteration": i,
                            "settings": "+".join(f"w{k}{load}" for k in (1, 2, 3)),
                            "offered": 100, "kept": 50, "held": 60,
                            "rci": 0.1 if memory == "memento" and i > 1 else np.nan,
                            "select": 0.01, "held_w1": 10 + place, "held_w2": 40, "held_w3": 10,
                            "balanced_accuracy": score if not load else np.nan,
                            "error_p99": 0.02 + 0.001 * place,
                        }
                    )  # fmt: skip
    return Samples({name: np.array([row[name] for row in rows]) for name in rows[0]})


def datacenter(folder: Path) -> Path:
    """What `memento datacenter replay` writes of them."""
    replays = table()
    made = {
        "summary": scores.summary(replays),
        "held": scores.composition(replays),
        "targets": scores.targets(replays),
    }
    cli._write(folder, replays, made)
    return folder
