"""The replays' tables in docs/results.md: ours and the paper's side by side, as Markdown.

    memento run puffer-replay -j 2
    memento run puffer-replay "large-table-*" --experiments large.py -j 2
    python benchmarks/replay_tables.py results

Reads what `memento run` left; computes nothing again. Tables that are not there are left out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memento.report.ordering import ordering
from memento.runner.results import Place, read_table, status
from memento_puffer.report.comparison import beside, daily, dots, sweep, trainings

TITLES = {
    "table-baselines": "Baselines",
    "table-temperature": "Temperature",
    "table-bandwidth": "Bandwidth",
    "table-batch-size": "Batch size",
    "table-other-metrics": "Other metrics",
    "table-jtt": "Just Train Twice",
    "table-matchmaker": "Matchmaker and query by committee",
    "table-decisions": "When to retrain",
    "table-freeze": "Frozen memories",
    "table-repeatability": "Repeatability",
}
ENSEMBLES = ("table-jtt", "table-matchmaker")  # where what several models say is the question
SCALES = {"large-": "one period, 150,000 a day", "": "three periods, 50,000 a day"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    results = parser.parse_args().results
    orders = []
    for topic, title in TITLES.items():
        found = {}
        for prefix in SCALES:
            folder = status(Place(results, "puffer-replay", prefix + topic), "").output
            if folder is not None:
                found[prefix] = {p.stem: read_table(p) for p in sorted(folder.iterdir())}
        if found:
            print(f"\n### {title}\n")
            print(*scores(topic, found), sep="\n")
            for prefix, tables in found.items():
                orders += order(topic, title, prefix, tables)
        if topic == "table-decisions" and found:
            print("\nTrainings a day:\n")
            print(*trained(found), sep="\n")
    print("\n### Order\n")
    heads = ("question", "series", "scale", "score", "settings", "rank correlation", "chance")
    heads += ("best", "paper's best", "agrees", "reversed")
    print(f"| {' | '.join(heads)} |")
    print("| --- " * len(heads) + "|")
    print(*orders, sep="\n")


def scores(topic: str, found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each arm: the paper's tail and median, and ours at each scale."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    wanted = ("own", "oracle", "matched") if topic in ENSEMBLES else ("own",)
    for prefix, tables in found.items():
        table = beside(topic, tables["improvement"], "daily")
        for i in range(len(table["arm"])):
            key = str(table["arm"][i]), str(table["predictor"][i])
            if key[1] not in wanted:
                continue
            row = rows.setdefault(key, {})
            for s in ("tail", "median"):
                row[f"paper {s}"] = number(table[f"paper {s}"][i])
                value, error = table[s][i], table[f"{s}_error"][i]
                row[prefix + s] = f"{number(value)} ± {error:.2f}" if s == "tail" else number(value)
    columns = ["paper tail", "paper median", *(p + s for p in found for s in ("tail", "median"))]
    heads = [c.replace("large-", "150k: ") if c.startswith("large-") else c for c in columns]
    heads = [h if h.startswith(("paper", "150k")) else f"50k: {h}" for h in heads]
    lines = [f"| arm | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for (arm, predictor), row in rows.items():
        if arm != "daily":
            name = arm if predictor == "own" else f"{arm}, {predictor}"
            lines.append(f"| {name} | {' | '.join(row.get(c, '') for c in columns)} |")
    return lines


def order(topic: str, title: str, prefix: str, tables: Mapping[str, Any]) -> list[str]:
    """Whether the paper's order of settings is found again."""
    of_days = daily(tables["levels"])
    table = sweep(topic, tables["improvement"])
    if not len(table["value"]):
        table = dots(topic, tables["improvement"])
    found = ordering(table, of_days)
    return [
        f"| {title} | {found['series'][i]} | {'150k' if prefix else '50k'} | {found['score'][i]} "
        f"| {found['settings'][i]} | {found['correlation'][i]:+.2f} | {found['chance'][i]:.3f} "
        f"| {found['best'][i]} | {found['paper best'][i]} "
        f"| {'yes' if found['best_agrees'][i] else 'no'} "
        f"| {found['reversed'][i]} of {found['pairs'][i]} |"
        for i in range(len(found["series"]))
    ]


def trained(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How often each rule trains."""
    rows: dict[str, dict[str, str]] = {}
    for prefix, tables in found.items():
        table = trainings(tables["decisions"])
        for i in range(len(table["arm"])):
            row = rows.setdefault(str(table["arm"][i]), {})
            row[prefix] = f"{1 / table['each'][i]:.2f}"
            theirs = table["paper each"][i]
            row["paper"] = "" if math.isnan(theirs) else f"{1 / theirs:.2f}"
    heads = ["150k" if prefix else "50k" for prefix in found]
    lines = [f"| rule | paper | {' | '.join(heads)} |", "| --- | --- |" + " --- |" * len(heads)]
    return lines + [
        f"| {arm} | {row['paper']} | {' | '.join(row.get(p, '') for p in found)} |"
        for arm, row in rows.items()
    ]


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}"


if __name__ == "__main__":
    main()
