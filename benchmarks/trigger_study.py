"""False alarms and missed changes of triggers, through the whole loop, on streams made here.

    python benchmarks/trigger_study.py  # all of it
    python benchmarks/trigger_study.py --scenarios quiet --learners linear --seeds 5

Scenarios (five classes; what changes does so in unit 4 and stays):

- `quiet`: nothing changes in 21 units of 400 sessions of six rows, or of 2,400 rows.
- `minority`: 15 % of 400 sessions are of a new kind. Counts as seen in that unit or the next.
- `rare`: 3 % of 6,000 independent rows are of a new kind. Seen within three units.
- `class`: 2 % of 6,000 independent rows are of a class that was not there. Seen within three units.

A quiet unit on which retraining is due is a false alarm. Intervals are 95 % (Clopper, Pearson).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from memento import (
    JensenShannon,
    Memento,
    Memory,
    OnArrivals,
    OnCoverage,
    OnLoss,
    Reservoir,
    Trigger,
    run,
)

CLASSES, CHANGE = 5, 4
SCENARIOS = {"quiet": (21, None), "minority": (6, 1), "rare": (7, 2), "class": (7, 2)}


def stream(scenario: str, seed: int, clustered: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Units with inputs ``x`` (n, 6), labels ``y`` and ``session``."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES + 1, 6)) * 1.2
    units, _ = SCENARIOS[scenario]
    sessions, rows = (400, 6) if clustered else (6000 if scenario != "quiet" else 2400, 1)
    for unit in range(units):
        session = np.repeat(np.arange(sessions), rows)
        y = rng.integers(0, CLASSES, len(session))
        x = centres[y] + rng.normal(size=(len(session), 6))
        if clustered:
            x += 0.7 * rng.normal(size=(sessions, 6))[session]
        if unit >= CHANGE and scenario != "quiet":
            share = {"minority": 0.15, "rare": 0.03, "class": 0.02}[scenario]
            new = (rng.random(sessions) < share)[session]
            label = np.full(len(y), CLASSES) if scenario == "class" else (y + 1) % CLASSES
            y = np.where(new, label, y)
            x = np.where(new[:, None], x + (0 if scenario == "class" else 3), x)
        yield str(unit), {"x": x.astype(np.float32), "y": y, "session": session + unit * sessions}


def learner(kind: str, seed: int) -> Any:
    """A fresh learner; none knows that there may be a sixth class."""
    if kind == "network":
        from memento.integrations.torch import TorchLearner

        return TorchLearner(CLASSES + 1, epochs=20, seed=seed)
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    from memento.integrations.sklearn import SklearnLearner

    estimator = {
        "linear": lambda: LogisticRegression(max_iter=300),
        "boosting": lambda: HistGradientBoostingClassifier(
            max_iter=30, max_leaf_nodes=12, learning_rate=0.15, random_state=seed
        ),
        "forest": lambda: RandomForestClassifier(10, random_state=seed),
    }[kind]()
    return SklearnLearner(estimator, label="y", classes=CLASSES + 1)


def triggers(clustered: bool) -> dict[str, Trigger]:
    return {
        "OnArrivals": OnArrivals(cluster="session" if clustered else None),
        "OnCoverage": OnCoverage(),
        "OnLoss": OnLoss(),
    }


def policy(kind: str) -> Any:
    if kind == "reservoir":
        return Reservoir()
    distances = [JensenShannon.of_probabilities("yhat")]
    return Memento([*distances, JensenShannon.of_labels("y", CLASSES + 1)], missing="skip")


def interval(hits: int, trials: int) -> str:
    from scipy.stats import beta

    low = beta.ppf(0.025, hits, trials - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, trials - hits) if hits < trials else 1.0
    return f"{hits} of {trials} ({low:.1%} to {high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument(
        "--learners", nargs="*", default=["linear", "boosting", "forest", "network"]
    )
    parser.add_argument("--triggers", nargs="*", default=["OnArrivals", "OnCoverage", "OnLoss"])
    parser.add_argument("--policies", nargs="*", default=["memento"])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| scenario | rows | policy | trigger | learner | quiet units due | change seen |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for scenario in asked.scenarios:
        for clustered in {"quiet": (True, False), "minority": (True,)}.get(scenario, (False,)):
            for kind in asked.policies:
                for name in asked.triggers:
                    for model in asked.learners:
                        row(scenario, clustered, kind, name, model, asked.seeds)


def row(scenario: str, clustered: bool, kind: str, name: str, model: str, seeds: int) -> None:
    _, within = SCENARIOS[scenario]
    alarms = quiet = seen = 0
    for seed in range(seeds):
        steps = run(
            stream(scenario, seed, clustered),
            Memory(3000, policy(kind), seed=seed),
            learner(model, seed),
            triggers(clustered)[name],
            rng=seed,
        )
        due = [step.decision.due for step in steps]
        before = due[1:] if within is None else due[1:CHANGE]
        alarms, quiet = alarms + sum(before), quiet + len(before)
        seen += within is not None and any(due[CHANGE : CHANGE + within + 1])
    print(
        f"| {scenario} | {'sessions' if clustered else 'independent'} | {kind} | {name} | {model} "
        f"| {interval(alarms, quiet)} | {'' if within is None else interval(seen, seeds)} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
