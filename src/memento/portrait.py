"""What a memory looks like: tidy tables of what it keeps, of what it was offered, and what is new.

Everything is computed here, so that pages and programs say the same. What a memory does not store
is said to be missing, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from memento.arrivals import DECIDED
from memento.attribution import CELL_COLUMNS
from memento.coverage import CoverageIncrease, coverage_increase
from memento.density import SampleSpace
from memento.errors import InputError
from memento.files import readable_json
from memento.memory import Memory
from memento.missing import lacking, without_gaps
from memento.newness import compare
from memento.offered import single_values
from memento.printing import Table, free_name
from memento.samples import Samples

__all__ = ["Part", "Portrait", "holds_memory", "portrait"]

# What is shown: columns, values of one, inserts, cells that are new, and samples of each of these.
_COLUMNS, _VALUES, _INSERTS, _CELLS, _EXAMPLES = 3, 24, 100, 10, 3
# A value is rare that makes at most this share of what was offered.
_RARE = 0.05
_DRAWS = 2000
_STATISTICS = {
    "newness": "new regions",
    "labels": "new labels",
    "loss_50": "losses over 50 %",
    "loss_90": "losses over 90 %",
    "loss_95": "losses over 95 %",
    "loss_99": "losses over 99 %",
}


@dataclass(frozen=True)
class Part:
    """A table, and what follows from it.

    Attributes:
        words: One or two sentences.
        table: Columns of equal length; None where a number is not known.
    """

    words: str
    table: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Portrait:
    """All of it.

    Attributes:
        facts: Name and value, as words.
        kept: By column, shares of its values: ``value``, ``set``, ``share``, ``low``, ``high``.
        inserts: ``insert``, ``set`` ("offered", "held now"), ``share`` and ``samples``.
        coverage: ``comparison``, ``increase (%)``, ``noise (%)``, ``p-value``.
        newness: ``statistic``, ``deviations``: of the latest unit beside earlier arrivals.
        past: Of the units that were compared when they came, ``"coverage"`` (share that earlier
            arrivals do not cover) and ``"newness"`` (in deviations of what chance does): ``unit``,
            ``when``, ``value``, ``low`` and ``high`` (where chance puts nineteen of twenty),
            ``p-value``, ``trained``. Empty where fewer than two were compared.
        cells: Cells that make the coverage increase: ``cell``, ``share``, ``samples now`` and
            ``samples before``.
        examples: Samples of these.
        missing: What is not stored, or cannot be compared, with what would bring it.
        against: What differs from another memory: ``samples`` and ``cells``.
        kept_against: By column, as ``kept``, what is kept here and in the other memory.
    """

    facts: dict[str, str]
    kept: dict[str, Part]
    inserts: Part
    coverage: Part
    newness: Part
    past: dict[str, Part]
    cells: Part
    examples: Part
    missing: dict[str, str]
    against: dict[str, Part] = field(default_factory=dict)
    kept_against: dict[str, Part] = field(default_factory=dict)


def holds_memory(folder: Path) -> bool:
    """Whether a folder is one that `Memory.save` wrote."""
    document = readable_json(folder / "manifest.json") or {}
    return document.get("format") == "memento-memory"


def portrait(memory: Memory, against: Memory | None = None) -> Portrait:
    """What a memory looks like; nothing is changed.

    Args:
        memory: Any.
        against: An earlier or another memory of the same stream, to compare with.

    Example:
        >>> from memento import FIFO, Memory
        >>> memory = Memory(100, FIFO())
        >>> memory.insert(y=[0] * 900 + [1] * 100).kept
        100
        >>> found = portrait(memory)
        >>> found.kept["y"].table["share"]
        [0.9, 0.1, 0.0, 1.0]
    """
    samples, reference, missing = memory.samples, memory.reference, {}
    names = _shown_columns(memory, samples)
    sets = {"offered": memory.offered.samples, "kept": _single(samples, names)}
    if not memory.offered.seen:
        missing["what was offered"] = (
            "the folder was written before that was recorded; it is from the next insert on"
            if memory.offered.since
            else "nothing was offered yet: memory.insert(...), or memento memory insert DIR TABLE"
        )
    if reference is not None:
        sets["at the last training"] = _single(reference, names)
    else:
        missing["coverage since the last training"] = (
            "nothing was trained yet: memory.mark_trained(), or memento memory trained DIR"
        )
    whole = memory.offered.seen <= len(memory.offered.came)
    kept = {name: _shares(name, sets, sampled=not whole) for name in names}
    rises = _rises(memory, samples, reference, missing)
    cells, examples = _new_cells(memory, rises)
    return Portrait(
        _facts(memory),
        {name: part for name, part in kept.items() if part is not None},
        _by_insert(memory),
        _coverage(rises),
        _newness(memory, missing),
        _past(memory),
        cells,
        examples,
        missing,
        {} if against is None else _compared(memory, against),
        {} if against is None else _kept_against(samples, against.samples, names),
    )


def _facts(memory: Memory) -> dict[str, str]:
    """Numbers that need no chart, in words."""
    limit = "no limit" if memory.capacity is None else f"{memory.capacity:,}"
    reference = memory.reference
    weights = memory.weights
    facts = {
        "held": f"{len(memory):,} samples, of at most {limit}",
        "offered so far": f"{memory.seen:,} samples in {memory.inserts:,} inserts",
        "policy": type(memory.policy).__name__,
        "trained on": "nothing yet" if reference is None else f"{reference.size:,} samples",
    }
    if weights is not None and len(weights):
        facts["stand for"] = f"{weights.sum():,.0f} samples of the stream, by their weights"
    if memory.units:
        last = max(memory.units.values())
        names = [name for name, number in memory.units.items() if number == last]
        facts["latest unit"] = min(names, key=lambda name: name.startswith("sha256:"))
    if memory.waiting.any():
        facts["wait for a label"] = f"{int(memory.waiting.sum()):,} samples"
    return facts


# ------------------------------------------------------------------------------ kept and offered


def _shown_columns(memory: Memory, samples: Samples) -> list[str]:
    """What distributions are shown of: labels, other values that the policy reads, predictions."""
    if not samples.size:
        return []
    labels = getattr(memory.policy, "label_columns", [])
    reads = [name for name in dict.fromkeys([*labels, *memory.policy.reads]) if name in samples]
    single = single_values(samples.select(reads).rows(0, 1)) if reads else {}
    names = [name for name in single if not name.endswith(": value")]
    if not names:
        names = [n for n in samples if samples[n].ndim == 1 and n != memory.ids]
    return names[:_COLUMNS]


def _single(samples: Samples, names: Sequence[str]) -> Samples:
    wanted = [name for name in samples if name in names or f"{name}: which" in names]
    return single_values(samples.select(wanted)) if wanted else Samples()


def _shares(name: str, sets: Mapping[str, Samples], *, sampled: bool) -> Part | None:
    """Shares of a column's values in each set that has it, of the kind that is kept."""
    columns = {which: part[name] for which, part in sets.items() if name in part and part.size}
    if not columns:
        return None
    kept = columns.get("kept", next(iter(columns.values()))).dtype
    others = {which: c.dtype for which, c in columns.items() if _kind(c.dtype) != _kind(kept)}
    columns = {which: column for which, column in columns.items() if which not in others}
    unlike = [f" Left out: {which}, where it is {d}, not {kept}." for which, d in others.items()]
    values, codes = _coded(columns)
    table: dict[str, list[Any]] = {n: [] for n in ("value", "set", "share", "low", "high")}
    shares = {}
    for which, code in codes.items():
        counts = np.bincount(code, minlength=len(values))
        share = counts / max(1, len(code))
        # Only of what was offered there is no more than a sample.
        low, high = _wilson(counts, len(code)) if which == "offered" and sampled else (share, share)
        shares[which] = share
        table["value"] += values
        table["set"] += [which] * len(values)
        for key, numbers in (("share", share), ("low", low), ("high", high)):
            table[key] += numbers.tolist()
    return Part(_of_shares(name, values, shares) + "".join(unlike), table)


def _kind(dtype: np.dtype[Any]) -> str:
    """Values of one kind can be counted together: all numbers, say."""
    return "number" if dtype.kind in "biuf" else dtype.kind


def _of_shares(name: str, values: list[str], shares: Mapping[str, np.ndarray]) -> str:
    """What follows from the shares, in a sentence."""
    if "offered" not in shares or "kept" not in shares:
        return f"Shares of {_words(name)}; what was offered is not known."
    offered, kept = shares["offered"], shares["kept"]
    rare = offered <= _RARE
    if rare.any() and not rare.all():
        return (
            f"Values of {_words(name)} that are rare in the stream (at most {_RARE:.0%} each: "
            f"{int(rare.sum())} of {len(values)}) make {offered[rare].sum():.1%} of what was "
            f"offered and {kept[rare].sum():.1%} of what is kept."
        )
    most = int(np.abs(kept - offered).argmax())
    return (
        f"Of {_words(name)}, {values[most]} moved most: {offered[most]:.1%} of what was offered, "
        f"{kept[most]:.1%} of what is kept."
    )


def _words(name: str) -> str:
    """A column for people: ``p: which`` is where the largest entry of a row of ``p`` is."""
    return f"the most likely class by {name.removesuffix(': which')}" if ": which" in name else name


def _coded(columns: Mapping[str, np.ndarray]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of values, or of ranges of them, and which of these each row has."""
    absent = {which: lacking(column) for which, column in columns.items()}
    known = {which: column[~absent[which]] for which, column in columns.items()}
    pooled = np.unique(np.concatenate([np.unique(column) for column in known.values()]))
    numbers = pooled.dtype.kind in "iuf"
    codes = {}
    if len(pooled) <= _VALUES or not numbers:
        if len(pooled) > _VALUES:  # the most frequent of all, and the others as one
            counts = sum(
                np.bincount(np.searchsorted(pooled, c), minlength=len(pooled)) / max(1, len(c))
                for c in known.values()
            )
            kept = np.sort(np.argsort(-np.asarray(counts), kind="stable")[: _VALUES - 1])
        else:
            kept = np.arange(len(pooled))
        place = np.full(len(pooled), len(kept))
        place[kept] = np.arange(len(kept))
        names = _names(pooled[kept].tolist())
        names += ["others"] * (len(kept) < len(pooled))
        inside = {which: place[np.searchsorted(pooled, c)] for which, c in known.items()}
    else:
        every = np.concatenate([c.astype(np.float64) for c in known.values()])
        edges = _edges(every[np.isfinite(every)])
        names = _ranges(edges)
        inside = {
            which: np.clip(np.searchsorted(edges, c, side="right") - 1, 0, len(names) - 1)
            for which, c in known.items()
        }
    if any(gaps.any() for gaps in absent.values()):
        names = [*names, "missing"]
    for which, gaps in absent.items():
        codes[which] = np.full(len(gaps), len(names) - 1)
        codes[which][~gaps] = inside[which]
    return names, codes


def _names(values: Sequence[Any]) -> list[str]:
    """A name for each of some distinct values, none like another, nor like our own words."""
    names = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if len(set(names)) < len(names):
        names = [repr(value) for value in values]
    names = [repr(name) if name in ("missing", "others") else name for name in names]
    taken: set[str] = set()
    for i, name in enumerate(names):
        number = 1
        while names[i] in taken:
            number += 1
            names[i] = f"{name} ({number})"
        taken.add(names[i])
    return names


def _edges(numbers: np.ndarray) -> np.ndarray:
    """Ends of ranges over all but the outermost of some numbers, which are finite."""
    low, high = np.quantile(numbers, [0.005, 0.995], method="nearest")
    if low == high:
        low, high = numbers.min(), numbers.max()
    part = np.linspace(0, 1, 13)
    edges = np.unique(low * (1 - part) + high * part)
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def _ranges(edges: np.ndarray) -> list[str]:
    """Names of ranges, with as many digits as tell their ends apart."""
    ends: list[str] = []
    for digits in range(3, 18):
        ends = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(ends)) == len(ends):
            break
    return [f"{a} to {b}" for a, b in pairwise(ends)]


def _wilson(counts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of shares of a sample (Wilson, 1927)."""
    z, share = 1.96, counts / size
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * np.sqrt(share * (1 - share) / size + z * z / (4 * size**2)) / (1 + z * z / size)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


# ------------------------------------------------------------------------------ ages


def _by_insert(memory: Memory) -> Part:
    """Shares of what was offered, and of what is held now, by insert."""
    arrivals = np.sort(memory.arrivals)
    if not len(arrivals):
        return Part("Nothing is held yet.")
    log = memory.offered.log
    ends, offered = log[:, 0], log[:, 1].astype(np.float64)
    if memory.offered.since:  # of before the record nothing is known but what is held of it
        ends, offered = np.append(memory.offered.since, ends), np.append(np.nan, offered)
    if not len(ends):
        ends, offered = np.unique(arrivals), np.full(len(np.unique(arrivals)), np.nan)
    step = -(-len(ends) // _INSERTS)
    last = np.minimum(np.arange(step, len(ends) + step, step), len(ends)) - 1
    upto = np.searchsorted(arrivals, ends[last], side="right")
    held = np.diff(np.concatenate([[0], upto]))
    sums = np.add.reduceat(offered, np.arange(0, len(ends), step))
    table: dict[str, list[Any]] = {n: [] for n in ("insert", "set", "share", "samples")}
    total = np.nansum(sums)
    for name, counts, size in (("offered", sums, total), ("held now", held, len(arrivals))):
        known = ~np.isnan(counts)
        table["insert"] += ends[last][known].tolist()
        table["set"] += [name] * int(known.sum())
        table["share"] += (counts[known] / max(size, 1)).tolist()
        table["samples"] += counts[known].astype(int).tolist()
    half = memory.inserts - int(np.median(arrivals)) + 1
    words = (
        f"Half of what is held came with the last {half:,} of {memory.inserts:,} inserts, the "
        f"oldest with insert {int(arrivals[0]):,}."
    )
    if memory.offered.since:
        words += f" How many came before insert {memory.offered.since + 1:,} was not recorded."
    return Part(words, table)


# ------------------------------------------------------------------------------ coverage


@dataclass(frozen=True)
class _Rise:
    """A coverage increase and what it is of."""

    name: str
    value: CoverageIncrease
    samples: Samples
    held: bool


def _rises(
    memory: Memory, samples: Samples, reference: Samples | None, missing: dict[str, str]
) -> list[_Rise]:
    """Coverage increases of what is held, and of the latest unit, as far as they can be had."""
    found: list[_Rise] = []
    space = memory.policy
    if not isinstance(space, SampleSpace) or not space.distances:
        missing["coverage"] = (
            f"{type(space).__name__} compares nothing; Memento and DensityReservoir have distances"
        )
        return found
    pairs = []
    if reference is not None and samples.size:
        pairs.append(("held now, against the last training", samples, reference, True))
    recent = memory.recent
    if recent is not None and recent.unit.size and recent.reference.size:
        name = "the latest unit, against earlier arrivals"
        pairs.append((name, recent.unit.samples, recent.reference.samples, False))
    columns = [column for distance in space.distances for column in distance.columns]
    for name, *sets, held in pairs:
        now, before = (without_gaps(part, columns) for part in sets)
        if not (now.size and before.size):
            missing[f"coverage: {name}"] = f"none has all of {', '.join(map(repr, columns))} yet"
            continue
        try:
            rise = coverage_increase(now, before, space, permutations=0 if held else 19)
        except InputError as error:
            missing[f"coverage: {name}"] = str(error)
            continue
        found.append(_Rise(name, rise, now, held))
    return found


def _coverage(rises: Sequence[_Rise]) -> Part:
    """How much coverage rose, with its noise where that is known."""
    if not rises:
        return Part("There is nothing that coverage can be compared with.")
    numbers = [rise.value for rise in rises]
    table: dict[str, list[Any]] = {
        "comparison": [rise.name for rise in rises],
        "increase (%)": [100 * float(value) for value in numbers],
        "noise (%)": [_known(100 * value.noise) for value in numbers],
        "p-value": [_known(value.p_value) for value in numbers],
    }
    words = []
    for rise, value in zip(rises, numbers, strict=True):
        if rise.held:
            words.append(f"What is held covers {value:.1%} more than the last training set did.")
        else:
            over = "more than" if value.p_value <= 0.05 else "no more than"
            words.append(
                f"Of the latest unit {value:.1%} is new, {over} chance would show "
                f"(p = {value.p_value:.3f}; noise {value.noise:.1%})."
            )
    if any(rise.held for rise in rises):
        words.append(
            "Two contents of one memory are no independent samples, so that noise is not stated."
        )
    return Part(" ".join(words), table)


def _newness(memory: Memory, missing: dict[str, str]) -> Part:
    """The latest unit beside earlier arrivals, in standard deviations of what chance does."""
    recent = memory.recent
    if recent is None or not recent.unit.size or not recent.reference.size:
        missing["newness of arrivals"] = (
            "no arrivals are kept apart, or none came before; memento memory insert and "
            "memento.observe keep them"
        )
        return Part("No arrivals are kept apart.")
    space = memory.policy
    if not isinstance(space, SampleSpace) or not space.distances:
        return Part("The policy compares nothing.")
    try:
        rng = np.random.default_rng(0)
        trained = memory.reference
        found = compare(
            space, recent.unit, recent.reference, draws=_DRAWS, rng=rng, trained=trained
        )
    except InputError as error:
        missing["newness of arrivals"] = str(error)
        return Part("Arrivals cannot be compared.")
    if not found.z:
        return Part("There are too few arrivals to compare.")
    table: dict[str, list[Any]] = {
        "statistic": [_STATISTICS.get(name, name) for name in found.z],
        "deviations": list(found.z.values()),
    }
    largest = max(found.z, key=lambda name: found.z[name])
    said = "unlike" if found.p_value <= 0.05 else "as alike as chance makes them"
    words = (
        f"The latest unit and earlier arrivals are {said} (p = {found.p_value:.4f} of "
        f"{found.draws:,} draws); what stands out most: {_STATISTICS.get(largest, largest)}. "
        "Losses are counted above quantiles of the losses of both."
    )
    return Part(words, table)


def _past(memory: Memory) -> dict[str, Part]:
    """What was found of earlier units, as it was written down when they came."""
    if memory.recent is None:
        return {}
    decided = memory.recent.decisions
    compared = decided[~np.isnan(decided[:, DECIDED.index("newness")])]
    log = dict(zip(DECIDED, compared.T, strict=True))
    count = len(compared)
    if count < 2:
        return {}
    trained = ", ".join(f"{unit:,.0f}" for unit in log["unit"][log["trained"] > 0][-5:])
    ends = {
        "coverage": (log["rise"], np.zeros(count), log["rise_noise"], "twenty"),
        "newness": (log["newness"], np.full(count, -2.0), np.full(count, 2.0), "forty"),
    }
    found = {}
    for name, (value, low, high, chance) in ends.items():
        above = int(np.count_nonzero(value > high))
        table: dict[str, list[Any]] = {
            "unit": log["unit"].astype(int).tolist(),
            "when": [_time(at) for at in log["at"]],
            "value": value.tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
            "p-value": log["p_value"].tolist(),
            "trained": (log["trained"] > 0).tolist(),
        }
        words = (
            f"{above:,} of {count:,} units that were compared with arrivals before them lie above "
            f"the band, in which chance alone puts nineteen of twenty (above it one of {chance}). "
            + (f"Trained after unit {trained} (large)." if trained else "None led to a training.")
        )
        found[name] = Part(words, table)
    return found


def _time(at: float) -> str:
    """Such as ``2026-01-07 02:15:00``, of UTC; nothing where it is not known."""
    if not 0 <= at < 2**38:
        return ""
    return str(np.datetime64(int(at), "s")).replace("T", " ")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


# ------------------------------------------------------------------------------ what is new


def _new_cells(memory: Memory, rises: Sequence[_Rise]) -> tuple[Part, Part]:
    """The cells that make the larger of the increases that are there, and samples of them."""
    if not rises:
        nothing = Part("Without coverage there are no cells to show.")
        return nothing, nothing
    rise = rises[0]
    table = rise.value.attribution
    top = table.head(int(np.count_nonzero(table["share"][:_CELLS] > 0)))
    if not top.size:
        nothing = Part(f"Nothing is new: {rise.name}.")
        return nothing, nothing
    words = (
        f"{top.size} of {table.size} cells make {top['share'].sum():.0%} of the increase "
        f"({rise.name}); the first alone {top['share'][0]:.0%}."
    )
    labels = [_cell_words(top, i) for i in range(top.size)]
    cells = {
        "cell": labels,
        "share": top["share"].tolist(),
        "samples now": top["samples"].tolist(),
        "samples before": top["reference"].tolist(),
    }
    return Part(words, cells), _examples(memory, rise, top)


def _cell_words(table: Table, row: int) -> str:
    """What a cell is like, such as ``y 7, yhat 7 (0.47), cell 64``."""
    words = []
    for name in table:
        if name in CELL_COLUMNS or (name.removesuffix("_mean") in table and "_mean" in name):
            continue
        mean = f" ({table[f'{name}_mean'][row]:.2f})" if f"{name}_mean" in table else ""
        words.append(f"{name} {_short(table[name][row])}{mean}")
    return ", ".join([*words, f"cell {table['cell'][row]}"])


def _examples(memory: Memory, rise: _Rise, top: Table) -> Part:
    """Samples of the cells, with what is known of them."""
    rows = np.concatenate([np.unique(each)[:_EXAMPLES] for each in top["rows"][:5]])
    cell = np.concatenate(
        [np.full(len(np.unique(each)[:_EXAMPLES]), number)
         for number, each in zip(top["cell"][:5], top["rows"][:5], strict=True)]
    )  # fmt: skip
    small = single_values(rise.samples.take(rows), memory.stacked)
    names = [n for n in small if small[n].dtype.kind in "biufUSMm"][:12]
    table: dict[str, list[Any]] = {"cell": cell.tolist()}
    if rise.held:
        table["insert"] = memory.arrivals[rows].tolist()
    for name in names:
        table[free_name(name, table)] = [_short(value) for value in small[name]]
    return Part("Samples of the cells that are newest.", table)


def _short(value: Any) -> str:
    """A value in at most 40 characters."""
    text = f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


# ------------------------------------------------------------------------------ against another


def _kept_against(mine: Samples, theirs: Samples, names: Sequence[str]) -> dict[str, Part]:
    """Shares of the values of columns in what two memories keep."""
    sets = {"kept": _single(mine, names), "the other": _single(theirs, names)}
    found = {}
    for name in names:
        part = _shares(name, sets, sampled=False)
        if part is None:
            continue
        if len(set(part.table["set"])) == 2:
            words = _moved(part)
        elif not theirs.size:
            words = "The other memory holds nothing."
        elif name in sets["the other"]:
            here, there = (each[name].dtype for each in sets.values())
            words = f"It is {here} here and {there} in the other memory: that cannot be compared."
        else:
            words = "The other memory does not have this column."
        found[name] = Part(words, part.table)
    return found


def _compared(memory: Memory, other: Memory) -> dict[str, Part]:
    """What differs from another memory of the same stream, an earlier generation say."""
    mine, theirs = memory.samples, other.samples
    found: dict[str, Part] = {"samples": _in_common(memory, other)}
    space = memory.policy
    if isinstance(space, SampleSpace) and space.distances and mine.size and theirs.size:
        try:
            value = coverage_increase(mine, theirs, space, permutations=0)
        except InputError as error:
            found["cells"] = Part(f"Coverage cannot be compared: {error}")
        else:
            rise = _Rise("held here, against the other", value, mine, held=True)
            cells, _ = _new_cells(memory, [rise])
            found["cells"] = Part(
                f"This memory covers {value:.1%} more than the other. {cells.words}", cells.table
            )
    return found


def _moved(part: Part) -> str:
    """By how much the share of a value differs most."""
    count = len(part.table["share"]) // 2
    mine, theirs = np.array(part.table["share"]).reshape(2, count)
    most = int(np.abs(mine - theirs).argmax())
    return (
        f"{part.table['value'][most]} differs most: {mine[most]:.1%} here, {theirs[most]:.1%} in "
        "the other."
    )


def _in_common(memory: Memory, other: Memory) -> Part:
    """How many samples both hold, by their ids or else by the inserts that they came with."""
    mine, theirs = memory.samples, other.samples
    here, there = len(memory), len(other)
    ids = [_kind(part[memory.ids].dtype) for part in (mine, theirs) if memory.ids in part]
    if len(ids) == 2 and ids[0] == ids[1]:
        both = len(np.intersect1d(mine[memory.ids], theirs[memory.ids]))
        how = f"by their {memory.ids}"
    else:
        both = min(int(np.count_nonzero(memory.arrivals <= other.inserts)), there)
        how = f"that came up to insert {other.inserts:,}, when the other ends"
    words = (
        f"{both:,} samples are in both ({how}): {here - both:,} are new here, "
        f"{there - both:,} have gone."
    )
    table: dict[str, list[Any]] = {
        "": ["held", "offered", "inserts"],
        "here": [here, memory.seen, memory.inserts],
        "the other": [there, other.seen, other.inserts],
    }
    return Part(words, table)
