"""What a memory on disk is: its facts, whether retraining is due, what contradicts itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from memento.cli import predictions, settings, ui
from memento.density import SampleSpace
from memento.errors import InputError, ModelError, SettingError
from memento.memory import Memory
from memento.missing import lacking, without_gaps
from memento.retrain import Decision, OnCoverage, Situation

__all__ = ["decision", "facts", "problems", "show"]


def facts(memory: Memory) -> dict[str, Any]:
    """What there is to know without comparing anything; JSON values."""
    return {
        "policy": memory.policy.settings(),
        "size": len(memory),
        "capacity": memory.capacity,
        "seen": memory.seen,
        "waiting": int(memory.waiting.sum()),
        "inserts": memory.inserts,
        "model": memory.model,
        "reference_model": memory.reference_model,
        "columns": {name: _described(column) for name, column in memory.samples.items()},
        "ages": _ages(memory),
        "composition": _composition(memory),
        "weight": _total_weight(memory),
        "trained": None if memory.reference is None else memory.reference.size,
    }


def _ages(memory: Memory) -> list[dict[str, int]]:
    """How many samples are held of each insert that any is held of."""
    inserts, counts = np.unique(memory.arrivals, return_counts=True)
    return [
        {"insert": int(number), "age": memory.inserts - int(number), "held": int(count)}
        for number, count in zip(inserts, counts, strict=True)
    ]


def _composition(memory: Memory) -> dict[str, Any]:
    """Samples of each class, for every column of labels that the policy compares.

    A list by class where their number is set, else counts by label; late labels are left out.
    """
    classes: dict[str, Any] = {}
    for distance in getattr(memory.policy, "distances", ()):
        if distance.kind != "jensen-shannon-labels" or distance.columns[0] not in memory.samples:
            continue
        (name,) = distance.columns
        column = memory.samples[name]
        known = column[~lacking(column)]
        if distance.classes is None or known.dtype.kind in "US":
            labels, counts = np.unique(known, return_counts=True)
            classes[name] = dict(zip(map(str, labels.tolist()), counts.tolist(), strict=True))
        else:
            classes[name] = np.bincount(known.astype(np.int64), minlength=distance.classes).tolist()
    return classes


def _total_weight(memory: Memory) -> float | None:
    weights = memory.weights
    return None if weights is None else float(weights.sum())


def coverage(memory: Memory, trigger: OnCoverage) -> Decision | None:
    """How much coverage rose since the last training; None where nothing can be compared."""
    if not isinstance(memory.policy, SampleSpace) or not len(memory):
        return None
    trained_at = None if memory.reference is None else 0
    with ui.progress_of("comparing coverage", quiet=True):
        return trigger.decide(Situation(memory, trained_at=trained_at), np.random.default_rng(0))


def decision(
    memory: Memory, threshold: float | None, folder: object, *, compare: bool, required: bool
) -> dict[str, Any]:
    """Whether retraining is due: as was found when the newest unit came in, or by coverage.

    Args:
        memory: What is held, the content at the last training, and what came in lately.
        threshold: Least coverage increase at which retraining is due; None decides by arrivals.
        folder: Where the memory is stored, for messages.
        compare: Whether to compute the coverage increase.
        required: Whether the answer counts; if not, what cannot be compared is left out.

    Raises:
        SettingError: Coverage is to decide, and the policy compares no columns.
        ModelError: Predictions are of different models.
    """
    if threshold is not None and not isinstance(memory.policy, SampleSpace):
        raise SettingError(
            f"policy {memory.policy.kind!r} compares no columns, so there is no coverage to decide "
            "on; leave --threshold out, or use memento or density-reservoir"
        )
    try:
        predictions.check_models(memory, folder)
    except ModelError as error:
        if required:
            raise
        ui.warn(error)
        return {"coverage": None, "decision": None}
    _warn_of_gaps(memory, folder)
    facts: dict[str, Any] = {}
    rise = None
    if compare or threshold is not None:
        rise = coverage(memory, OnCoverage(0.1 if threshold is None else threshold))
        facts["coverage"] = None if rise is None else _increase(rise)
    if threshold is not None and rise is not None:
        return {**facts, "decision": _answer(asdict(rise))}
    return {**facts, "decision": _by_arrivals(memory)}


def _warn_of_gaps(memory: Memory, folder: object) -> None:
    """Say which predictions are not there, as after an insert without a model."""
    for name in settings.predicted_columns(memory.policy):
        gaps = int(lacking(memory.samples[name]).sum()) if name in memory.samples else 0
        if gaps:
            ui.warn(
                f"{gaps:,} of {len(memory):,} samples held have no predictions in {name!r} and "
                "count for nothing until they do; predict them with memento memory annotate "
                f"{folder} --model MODEL, and what comes with memento memory insert --model MODEL"
            )


def _increase(rise: Decision) -> dict[str, float | None]:
    numbers = {"increase": rise.value, "threshold": rise.threshold}
    return {name: _number(value) for name, value in numbers.items()}


def _by_arrivals(memory: Memory) -> dict[str, Any]:
    if not len(memory):
        return {"due": False, "reason": "no samples are held"}
    if memory.reference is None:
        return {"due": True, "reason": "nothing was trained yet"}
    if memory.recent is None:
        return {"due": False, "reason": "nothing is kept yet of what comes in; inserts do from now"}
    made = memory.recent.decision
    if made is None:
        return {"due": False, "reason": "no unit came since the training"}
    return _answer(made)


def _answer(made: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as a JSON value, which knows no NaN."""
    numbers = {
        "value": made["value"],
        "threshold": made["threshold"],
        "p_value": made["p_value"],
        **made["figures"],
    }
    return {
        "due": bool(made["due"]),
        "reason": made["reason"],
        **{name: _number(value) for name, value in numbers.items()},
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def problems(memory: Memory) -> Iterator[str]:
    """What contradicts itself in a memory whose files are what was written.

    Lengths, types and the capacity were checked when it was loaded.
    """
    size = len(memory)
    if memory.seen < size:
        yield f"{size:,} samples are held, but only {memory.seen:,} were seen"
    arrivals = memory.arrivals
    if size and (arrivals.min() < 1 or arrivals.max() > memory.inserts):
        # In no order where memories were merged.
        yield f"samples came with inserts that are none of 1 to {memory.inserts:,}"
    try:
        for part in (memory.samples, memory.reference):
            known = None if part is None else without_gaps(part, memory.policy.reads)
            if known is not None and known.size:
                memory.policy.check(known)
    except InputError as error:
        yield str(error)
    weights = memory.weights
    if weights is not None and not (np.isfinite(weights).all() and (weights > 0).all()):
        yield "some weights are not positive numbers"


def _described(column: np.ndarray) -> str:
    return f"{column.dtype}{list(column.shape[1:]) or ''}"


def show(facts: Mapping[str, Any], memory: Memory) -> None:
    """Print facts, and the decision if they have one, as a table."""
    limit = "no limit" if memory.capacity is None else f"{memory.capacity:,}"
    held = f"{len(memory):,} of {limit}; {memory.seen:,} seen in {memory.inserts:,} inserts"
    rows: list[tuple[object, object]] = [
        ("held", held),
        ("policy", repr(memory.policy)),
        ("columns", ", ".join(f"{name}: {kind}" for name, kind in facts["columns"].items())),
    ]
    if facts["waiting"]:
        why = "for what the policy reads (memory label), or got it since the last insert"
        rows.append(("waiting", f"{facts['waiting']:,} of them, {why}"))
    if facts["weight"] is not None:
        rows.append(("weight", f"{facts['weight']:,.0f} in total"))
    rows += _grouped(facts["ages"], len(memory))
    for name, counts in facts["composition"].items():
        classes = dict(enumerate(counts)) if isinstance(counts, list) else counts
        shown = "  ".join(f"{label}: {count:,}" for label, count in classes.items() if count)
        rows.append((f"{name} ({sum(1 for c in classes.values() if c)} of {len(classes)})", shown))
    rows.append(
        ("trained on", "nothing yet" if facts["trained"] is None else f"{facts['trained']:,}")
    )
    if facts.get("decision"):
        due = "due" if facts["decision"]["due"] else "not due"
        rows.append(("retraining", f"{due}: {facts['decision']['reason']}"))
    ui.print_table((), rows)


def _grouped(ages: Sequence[Mapping[str, int]], size: int) -> Iterator[tuple[str, str]]:
    """Shares by age in inserts, in groups that double: 0, 1, 2-3, 4-7, ..."""
    low = high = 0
    while ages and low <= ages[0]["age"]:
        held = sum(group["held"] for group in ages if low <= group["age"] <= high)
        if held:
            span = f"{low}" if low == high else f"{low}-{high}"
            yield f"age {span}", f"{held:,} ({held / size:.1%})"
        low, high = high + 1, high * 2 + 1
