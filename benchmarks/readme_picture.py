"""Draws the picture of the README from the README's own example: `docs/images/example.png`.

Left: shares of the classes in what came, in a random memory and in Memento's. Right: the evidence
of each day that the stream has changed, and the threshold at which retraining is due.

    python benchmarks/readme_picture.py [PATH]
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from memento import Memory, OnArrivals, Reservoir, run
from memento.integrations.sklearn import SklearnLearner
from memento.report.drawing import COLOURS, open_axes, pyplot

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("common", "less common", "rare", "new on day 7")
NEW = 7  # the day on which the last class comes


def example() -> dict[str, Any]:
    """The names that the README's first block of Python leaves behind."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code[1], names)  # noqa: S102 - our own page
    return names


def figures(names: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[float], list[bool]]:
    """Shares of classes by where, and evidence and trainings by day.

    The example prints its steps and keeps none, so its loop runs again; the memory is the same.
    """
    days, memory = names["days"], names["memory"]
    random = Memory(memory.capacity, Reservoir(), seed=0)
    for _, unit in days:
        random.insert(unit)
    again = Memory(memory.capacity, memory.policy, seed=0)
    steps = list(run(days, again, SklearnLearner(LogisticRegression()), OnArrivals()))
    assert np.array_equal(again.samples["y"], memory.samples["y"])
    came = np.concatenate([unit["y"] for _, unit in days])
    held = {"came": came, "random memory": random.samples["y"], "Memento": memory.samples["y"]}
    shares = {
        f"{name}\n{len(y):,}": np.bincount(y, minlength=len(NAMES)) / len(y)
        for name, y in held.items()
    }
    evidence = [step.decision.value for step in steps]
    return shares, evidence, [step.trained for step in steps]


def draw(path: Path) -> tuple[dict[str, np.ndarray], list[float], list[bool]]:
    """Draw both panels; what they show."""
    shares, evidence, trained = figures(example())
    colours = (COLOURS[1], COLOURS[2], COLOURS[6], COLOURS[3])
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    bottom = np.zeros(len(shares))
    for number, (name, colour) in enumerate(zip(NAMES, colours, strict=True)):
        part = np.array([100 * each[number] for each in shares.values()])
        left.bar(list(shares), part, 0.6, bottom, color=colour, label=name)
        for place, (share, below) in enumerate(zip(part, bottom, strict=True)):
            if share > 5:
                left.text(place, below + share / 2, f"{share:.0f} %", ha="center", va="center")
        bottom += part
    left.set(title="Memento holds what is rare", ylabel="share of samples [%]")
    left.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, reverse=True)
    days = np.arange(1, len(evidence) + 1)
    seen = np.isfinite(evidence)
    right.axvspan(NEW - 0.5, len(days) + 0.5, color=COLOURS[3], alpha=0.15, lw=0)
    right.text(NEW + 1.4, 500, "a new class\nis there", ha="center", color=COLOURS[3], size=9)
    right.axhline(200, color=COLOURS[0], lw=1, ls="--")
    right.text(1, 240, "retrain", va="bottom")
    ends = np.flatnonzero(trained) + 1  # evidence is gathered anew after each training
    for part in np.split(np.arange(len(days)), ends):
        part = part[seen[part]]
        right.semilogy(days[part], np.array(evidence)[part], "o-", color=COLOURS[2])
    for day in days[np.array(trained) & seen]:
        right.annotate(
            "trained", (day, evidence[day - 1]), (-8, 0), textcoords="offset points", ha="right"
        )
    right.set(title="and says when something is new", xlabel="day", ylabel="evidence for a change")
    right.set(ylim=(0.1, 3000), xlim=(0.5, len(days) + 0.5), xticks=days)
    for axis in (left, right):
        open_axes(axis)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot().close(figure)
    return shares, evidence, trained


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images" / "example.png"
    draw(target)
    print(target)
