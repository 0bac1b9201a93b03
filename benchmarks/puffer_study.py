"""Which samples to train Fugu's predictor on: memories compared by scores and by what viewers get.

    python benchmarks/puffer_study.py FOLDER [--scenarios none,drift,new-access,halved] [--days 8]
                                      [--viewers 100] [--judges 300] [--workers 2] [--seeds 0-2]

For each scenario the same telemetry goes to all arms; every arm's predictor then serves the same
viewers of one more day. A seed changes everything random: paths, viewers, content, memories and
trainings. Everything is kept in FOLDER/seed-N, so a run that was stopped goes on, and scenarios
that are in its results.json are not run again. Prints tables for docs/results.md: one for each seed
and scenario, with intervals over viewers, and one for each scenario with intervals over seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np

from memento.retrain import OnCoverage
from memento.study import interval
from memento_puffer.predictor.ttp_training import Training
from memento_puffer.quality.qoe import quality
from memento_puffer.streaming.traces import Population, Shift
from memento_puffer.studies.closed_loop import ClosedLoop
from memento_puffer.studies.outcomes import ArmResult, Outcome, summary

ARMS = ("static", "random", "memento", "density-reservoir", "memento-T0",
        "density-reservoir-unweighted", "daily", "forgetting")  # fmt: skip
SCENARIOS = ("none", "drift", "new-access", "halved")


def population(scenario: str, days: int, seed: int) -> Population:
    """Paths of a scenario: stationary but for its one change, two thirds through."""
    at = days * 2 // 3
    shifts: dict[str, tuple[Shift, ...]] = {
        "none": (),
        "drift": (),
        "new-access": (Shift.new_access(at),),
        "halved": (Shift.halved_capacity(at),),
    }
    drift = 3.0 if scenario == "drift" else 0.0
    return Population(seed=seed, shifts=shifts[scenario], drift=drift)


def unpaired(outcome: Outcome, first: str, second: str, value: str) -> float:
    """Width of the 95 % interval of a difference, had each arm served other viewers."""
    streams = outcome.streams.take(outcome.streams["considered"])
    columns: dict[str, list[np.ndarray]] = {"value": [], "weight": []}
    for name in (first, second):
        own = streams.take(streams["scheme"] == name)
        viewers, of = np.unique(own["viewer"], return_inverse=True)
        x = own["stall_capped"] / own["watch"] if value == "stalled" else own["ssim"]
        good = np.isfinite(x)
        weight = np.bincount(of[good], own["watch"][good], minlength=len(viewers))
        total = np.bincount(of[good], (own["watch"] * x)[good], minlength=len(viewers))
        mean = np.divide(total, weight, out=np.zeros(len(weight)), where=weight > 0)
        columns["value"].append(mean)
        columns["weight"].append(weight)
    rng = np.random.default_rng(0)
    drawn = []
    for scheme_values, weights in zip(columns["value"], columns["weight"], strict=True):
        rows = rng.integers(0, len(weights), (1000, len(weights)))
        means = (weights * scheme_values)[rows].sum(1) / weights[rows].sum(1)
        drawn.append(100 * means if value == "stalled" else quality(means))
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    return float(high - low)


def learnable(loop: ClosedLoop, folder: Path, results: dict[str, ArmResult]) -> dict[str, float]:
    """How much of the tail a model can know that was trained on the judged day itself.

    The last day of telemetry is judged: half of its streams train, the other half are scored, for
    that model and for the arms' models of the evening before.
    """
    columns = loop.telemetry(folder, loop.days - 1).columns(0, sentinels="clamp")
    half = columns["stream"] % 2 == 0
    own = Training(None, columns["x"][half], columns["y_bin"][half], None, loop.training).run()
    x, y = columns["x"][~half], columns["y_bin"][~half]
    rows: dict[str, float] = {}
    for name, network in {"that day's own": own, "static": results["static"].networks[0]}.items():
        logs = np.log(np.maximum(network.probabilities(x)[np.arange(len(y)), y], 1e-30))
        rows[name] = float(np.quantile(logs, 0.01))
        worst = logs <= np.quantile(logs, 0.01)
        # Was what came slow after a past that had been fast? Then no input foretold it.
        usual = x[:, 6:56:7].max(axis=1)
        rows[f"{name}: worst 1 %, share slower than 4 x all of the past"] = float(
            (columns["y"][~half][worst] > 4 * usual[worst]).mean()
        )
    return rows


def run(
    scenario: str,
    folder: Path,
    days: int,
    viewers: int,
    judges: int,
    workers: int,
    seed: int,
    arms: Sequence[str] = ARMS,
) -> dict[str, object]:
    """One scenario, all arms."""
    loop = ClosedLoop(
        population=population(scenario, days, seed),
        days=days,
        viewers=viewers,
        judges=judges,
        capacity=20_000,
        trigger=OnCoverage(0.05, permutations=9, new_labels=1.0),
        seed=seed,
    )
    begin = time.perf_counter()

    def report(what: str, done: int, total: int) -> None:
        print(f"  {time.perf_counter() - begin:7.0f} s  {what} {done}/{total}", flush=True)

    sizes = loop.prepare(folder, workers=workers, report=report)
    loop = dataclasses.replace(loop, capacity=sum(sizes) // (3 * len(sizes)))
    results = loop.compare(folder, arms, workers=workers, report=report)
    outcome = loop.control(folder, results, workers=workers, report=report, parts=2 * workers)
    widths = {
        value: {
            name: {"unpaired": unpaired(outcome, name, "random", value)}
            for name in arms
            if name != "random"
        }
        for value in ("stalled", "ssim")
    }
    differences = outcome.difference_rows("random")
    for value, rows in widths.items():
        for name, row in rows.items():
            _, low, high = differences[name][value]
            row["paired"] = high - low
    return {
        "scenario": scenario,
        "samples": sizes,
        "capacity": loop.capacity,
        "hours": outcome.hours,
        "seconds": time.perf_counter() - begin,
        "scores": summary(results, "random"),
        "levels": outcome.level_rows(),
        "slow": slow_levels(outcome),
        "differences": differences,
        "widths": widths,
        "own": outcome.scores,
        "learnable": learnable(loop, folder, results),
    }


def slow_levels(outcome: Outcome) -> dict[str, float]:
    """Stall ratio over slow paths, in %."""
    table = outcome.levels(slow=True)
    ratios = 100 * table["stall_ratio"]
    return dict(zip(table["scheme"].tolist(), ratios.tolist(), strict=True))


def show(result: dict) -> None:
    """Markdown."""
    sizes = result["samples"]
    print(
        f"\n### {result['scenario']}\n\n{len(sizes)} days of {min(sizes):,} to {max(sizes):,} "
        f"samples, memories of {result['capacity']:,}; in control {result['hours']:.0f} hours for "
        f"each arm; {result['seconds']:.0f} s.\n"
    )
    print("| arm | tail | median | mean | trainings | stalled, % | change | SSIM, dB | change |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in result["scores"].items():
        level = result["levels"][name]
        cells = [name]
        for score in ("p01", "median", "mean"):
            own = name == "random"
            cells.append("" if own else f"{row[score]:+.2f} ± {row[f'{score}_error']:.2f}")
        cells += [str(row["retrained"]), f"{100 * level['stall_ratio']:.3f}"]
        for variable, digits in (("stalled", 3), ("ssim", 2)):
            if variable == "ssim":
                cells.append(f"{level['ssim']:.2f}")
            change = result["differences"].get(name, {}).get(variable)
            cells.append(
                ""
                if change is None
                else f"{change[0]:+.{digits}f} ({change[1]:+.{digits}f} to {change[2]:+.{digits}f})"
            )
        print(f"| {' | '.join(cells)} |")
    print()
    for name, value in result["learnable"].items():
        print(f"- {name}: {value:.3f}")
    for value, ratio in times_as_many(result).items():
        print(f"- {value}: unpaired runs would need {ratio:.0f} times as many viewers")


def times_as_many(result: dict) -> dict[str, float]:
    """How many times the viewers unpaired runs need for intervals as narrow, median over arms."""
    return {
        value: float(
            np.median([(r["unpaired"] / r["paired"]) ** 2 for r in rows.values() if r["paired"]])
        )
        for value, rows in result["widths"].items()
    }


def over_seeds(values: list[float], digits: int) -> str:
    """Mean and half of its 90 % interval over seeds (Student's t)."""
    mean, low, high = interval(values, 0.9)
    return f"{mean:+.{digits}f} ± {(high - low) / 2:.{digits}f}"


def show_seeds(results: list[dict]) -> None:
    """Markdown: one scenario over all seeds."""
    hours = np.mean([r["hours"] for r in results])
    print(
        f"\n### {results[0]['scenario']}, {len(results)} seeds\n\nOn average memories of "
        f"{np.mean([r['capacity'] for r in results]):,.0f}, and {hours:.0f} hours for each arm and "
        "seed in control.\n"
    )
    print("| arm | tail | median | mean | trainings | stalled, % | change | SSIM, dB | change |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in results[0]["scores"]:
        own = name == "random"
        cells = [name]
        cells += [
            "" if own else over_seeds([r["scores"][name][score] for r in results], 2)
            for score in ("p01", "median", "mean")
        ]
        cells.append(f"{np.mean([r['scores'][name]['retrained'] for r in results]):.1f}")
        for variable, level, scale, digits in (
            ("stalled", "stall_ratio", 100, 3),
            ("ssim", "ssim", 1, 2),
        ):
            levels = [scale * r["levels"][name][level] for r in results]
            changes = [] if own else [r["differences"][name][variable][0] for r in results]
            cells += [
                f"{np.mean(levels):.{digits}f}",
                over_seeds(changes, digits) if changes else "",
            ]
        print(f"| {' | '.join(cells)} |")
    print()
    for name in results[0]["learnable"]:
        values = [r["learnable"][name] for r in results]
        print(f"- {name}: {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    for value in results[0]["widths"]:
        ratios = [times_as_many(r)[value] for r in results]
        print(
            f"- {value}: unpaired runs would need {np.median(ratios):.0f} times as many viewers "
            f"({min(ratios):.0f} to {max(ratios):.0f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--judges", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", default="0", help="such as 0-2 or 0,3")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), help="with static and random")
    arguments = parser.parse_args()
    done: dict[str, list[dict]] = {}
    for seed in run_numbers(arguments.seeds):
        folder = arguments.folder / f"seed-{seed}"
        place = folder / "results.json"
        results = json.loads(place.read_text()) if place.exists() else []
        for scenario in arguments.scenarios.split(","):
            found = [r for r in results if r["scenario"] == scenario]
            if not found:
                print(f"{scenario}, seed {seed}", flush=True)
                sizes = (arguments.days, arguments.viewers, arguments.judges, arguments.workers)
                found = [run(scenario, folder / scenario, *sizes, seed, arguments.arms)]
                results += found
                place.write_text(json.dumps(results, indent=1))
            show(found[0])
            done.setdefault(scenario, []).append(found[0])
    for results in done.values():
        if len(results) > 1:
            show_seeds(results)


def run_numbers(text: str) -> list[int]:
    """0-2 or 0,3 as numbers."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


if __name__ == "__main__":
    main()
