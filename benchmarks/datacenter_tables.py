"""The tables in docs/datacenter/datacenter.md: what `memento datacenter replay` found, as Markdown.

    memento datacenter replay --out full -j 2 --seeds 0-4
    python benchmarks/datacenter_tables.py full

Reads all results that lie in a folder, of whatever seeds; computes nothing again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

from memento.samples import Samples
from memento.study import finished
from memento_datacenter.comparison import joined
from memento_datacenter.scenarios import MEMORIES, SCENARIOS
from memento_datacenter.scores import LOADS, WORKLOADS, composition, summary, targets

SCORES = {
    "rare-patterns": {"accuracy": "accuracy, mean of 20 iterations"},
    "incremental": {
        "accuracy": "accuracy, mean of 30 iterations",
        "accuracy_after_w3": "from two iterations after w3",
    },
    "congestion": {
        **{f"error_{load}": f"{load} %" for load in LOADS},
        "error_before_133": "up to 100 %",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="what --out was")
    found = read(parser.parse_args().results)
    for name, results in found.items():
        print(f"\n### {name}\n")
        print(*table(name, results), sep="\n")
    print("\n### Targets\n\n| target | measured | bound | holds |\n| --- | --- | --- | --- |")
    for results in found.values():
        for row in judged(targets(results)):
            print(row)


def read(folder: Path) -> dict[str, Samples]:
    """All results by scenario, in the order of memories and seeds."""
    memories = list(MEMORIES)
    results = sorted(
        finished(folder, "datacenter-replay").values(),
        key=lambda one: (memories.index(one[0]["memory"]), one[0]["seed"]),
    )
    found = {s: [place for asked, place in results if asked["scenario"] == s] for s in SCENARIOS}
    return {scenario: joined(places) for scenario, places in found.items() if places}


def table(scenario: str, results: Samples) -> Iterable[str]:
    """A row per memory: scores and what it holds, with half of the 90 % interval over seeds."""
    digits = 1 if scenario == "congestion" else 3
    cells: dict[str, dict[str, str]] = {}
    for made, key, places in ((summary, "score", digits), (composition, "workload", 0)):
        columns = made(results)
        for i in range(columns.size):
            row = cells.setdefault(str(columns["memory"][i]), {})
            name = str(columns[key][i])
            value, low, high = (float(columns[c][i]) for c in ("value", "low", "high"))
            half = "" if math.isnan(low) else f" ± {(high - low) / 2:,.{places}f}"
            row[name] = f"{value:,.{places}f}{half}"
            if name == "select":
                row[name] = f"{value:.3f}"
            row["seeds"] = str(columns["seeds"][i])
    heads = {**SCORES[scenario], **{w: w for w in WORKLOADS}, "select": "s an insert"}
    heads["seeds"] = "seeds"
    yield f"| memory | {' | '.join(heads.values())} |"
    yield "| --- " * (len(heads) + 1) + "|"
    for memory, row in cells.items():
        yield f"| {memory} | {' | '.join(row.get(name, '') for name in heads)} |"


def judged(found: Samples) -> Iterable[str]:
    """A row per target."""
    for i in range(found.size):
        value, bound, unit = (found[c][i] for c in ("value", "bound", "unit"))
        said = [f"{number:.3f} {unit}".rstrip() for number in (value, bound)]
        said.append("yes" if found["holds"][i] else "no")
        yield f"| {found['target'][i]} | {' | '.join(said)} |"


if __name__ == "__main__":
    main()
