"""Arrivals kept apart: earlier samples that the deployed model has never been trained on.

Whether a stream has changed can only be told from samples that are alike in everything else. A
model's predictions for what it was trained on are sharper, and its losses lower, than for anything
new, so the content of a memory says nothing about what comes in. Therefore some samples are kept
beside it:

- the *reference*: what came in since the training, and before that the *witnesses* of the unit of
  the training: a share of its clusters that enter the memory one unit late;
- the *history*: a small part of the witnesses that never enters, a uniform sample of all units.

A cluster is what belongs together (a session, a customer, a day): its rows are kept or left as one,
since rows of one cluster resemble each other whether the stream changes or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memento import arguments
from memento.errors import DamagedError, SchemaError
from memento.missing import blank
from memento.samples import Samples

__all__ = ["DECIDED", "Arrivals", "Clusters", "labelled"]

#: Of the witnesses this share never enters the memory.
_NEVER = 0.25
# The attribute of each part that is kept.
_PARTS = {
    **{name: name for name in ("unit", "reference", "history")},
    **{name: f"_{name}" for name in ("witnesses", "never")},
}
_SETTINGS = ("witnesses", "cluster", "rows")
#: Columns of `Arrivals.decisions`.
DECIDED = ("unit", "at", "value", "threshold", "p_value", "newness", "rise", "rise_noise",
           "due", "trained")  # fmt: skip
_DECISIONS = 500  # rows that are kept of them, which take 40 kB
_NUMBERS = {
    "evidence": arguments.number(0, words="a number, 0 or more"),
    "before": arguments.number(0, words="a number, 0 or more"),
    "renew": arguments.flag(),
    "units": arguments.whole(0),
    "trained_at": arguments.optional(arguments.whole(0)),
    "seen_at": arguments.whole(0),
    "decision": arguments.optional(arguments.instance(dict, "a decision")),
}


@dataclass(frozen=True)
class Clusters:
    """Samples in whole clusters.

    Attributes:
        samples: ``n`` samples, in whole clusters.
        key: ``(n,)`` float64 in [0, 1), one random number a cluster: rows of one cluster share it.
    """

    samples: Samples
    key: np.ndarray

    @classmethod
    def none(cls) -> Clusters:
        """No samples."""
        return cls(Samples(), np.empty(0))

    @property
    def size(self) -> int:
        """Rows."""
        return self.samples.size

    @property
    def count(self) -> int:
        """Clusters."""
        return len(np.unique(self.key))

    def take(self, rows: np.ndarray) -> Clusters:
        """Some of the rows, copied; a mask or numbers."""
        return Clusters(self.samples.take(rows), self.key[rows])

    def at_most(self, rows: int) -> Clusters:
        """The clusters with the smallest keys, as many as have ``rows`` rows in all.

        Keys are random, so this is a uniform sample of clusters, also of a sample made so before.
        """
        if self.size <= rows:
            return self
        keys, counts = np.unique(self.key, return_counts=True)
        fitting = int(np.searchsorted(np.cumsum(counts), rows, side="right"))
        # One cluster compares with nothing, however large it is.
        last = keys[min(max(fitting, 2), len(keys)) - 1]
        return self.take(self.key <= last)

    def joined(self, other: Clusters) -> Clusters:
        """Both, as far as their columns agree; the newer of the two where they share none."""
        if not self.size or not other.size:
            return other if not self.size else self
        names = [name for name in other.samples if name in self.samples]
        parts = [part.samples.select(names) for part in (self, other)]
        try:
            samples = Samples.concat(parts)
        except SchemaError:  # predictions have got wider, say: the older ones compare with nothing
            return other
        return Clusters(samples, np.concatenate([self.key, other.key]))

    def annotated(self, annotate: Callable[[Samples], Samples]) -> Clusters:
        """The same with columns by another model."""
        return Clusters(annotate(self.samples), self.key) if self.size else self


class Arrivals:
    """What came in lately, and what it can be compared with.

    Args:
        witnesses: Share of each unit's clusters, in [0, 1), that enters the memory one unit late; a
            quarter of these never does. 0 holds nothing back.
        cluster: Column that says what belongs together; None: each row is a cluster of its own.
        rows: Most rows of a unit, of the reference and of the history that are kept.

    Attributes:
        unit: The newest unit, or a sample of its clusters.
        reference: Earlier arrivals that the deployed model was not trained on, predicted by it.
        history: A uniform sample of earlier units that no model was ever trained on.
        evidence: What a trigger has gathered since the training; its meaning is the trigger's.
        before: The same before the newest unit.
        units: How many units came.
        trained_at: How many had come at the last training; None before the first.
        seen_at: Samples that the memory had seen then.
        decision: The newest decision as a JSON value, for jobs that ask for it later.
        renew: Whether the reference starts anew with the newest unit, when the next one comes.
        decisions: ``(n, 10)`` float64, the newest 500 decisions at most, of units that rise; see
            `decided`. Columns are `DECIDED`; NaN where a number is not known.

    Raises:
        SettingError: A share outside of [0, 1), or too few rows.
    """

    def __init__(
        self, *, witnesses: float = 0.2, cluster: str | None = None, rows: int = 20_000
    ) -> None:
        share = arguments.number(0, words="a share in [0, 1)")
        arguments.require(
            "witnesses",
            witnesses,
            replace(share, holds=lambda value: share.holds(value) and value < 1),
        )
        arguments.require("cluster", cluster, arguments.optional(arguments.text()))
        arguments.require("rows", rows, arguments.whole(2))
        self.witnesses = witnesses
        self.cluster = cluster
        self.rows = rows
        self.unit = self.reference = self.history = Clusters.none()
        self._witnesses = self._never = Clusters.none()  # of the newest unit
        self.evidence, self.before, self.renew = 0.0, 0.0, False
        self.units, self.seen_at = 0, 0
        self.trained_at: int | None = None
        self.decision: dict[str, Any] | None = None
        self.decisions = np.empty((0, len(DECIDED)))
        self._late = Samples()

    def arrive(self, samples: Samples, rng: np.random.Generator) -> list[Samples]:
        """Take note of a unit.

        Args:
            samples: The unit, predicted by the deployed model (where there is one).
            rng: Says which clusters are held back.

        Returns:
            What enters the memory now: those held back from the unit before and most of this one,
            as one set of samples where they have the same columns, else as two.

        Raises:
            SchemaError: The column of clusters is missing.
        """
        if not samples.size:
            return [samples]
        codes, count = self._codes(samples)
        self._fold()
        self.units += 1
        key = rng.random(count)
        back, never = np.zeros(count, bool), np.zeros(count, bool)
        held = int(self.witnesses * count)
        if held:
            chosen = rng.permutation(count)[:held]
            back[chosen] = True
            # On average exact, also where a quarter of the witnesses is less than one cluster.
            never[chosen[: int(_NEVER * self.witnesses * count + rng.random())]] = True
        whole = Clusters(samples, key[codes])
        self.unit = whole.at_most(self.rows)
        self._witnesses = whole.take(back[codes]).at_most(self.rows) if held else Clusters.none()
        self._never = whole.take(never[codes])
        entering, late = samples, self._late
        self._late = Samples()
        if held:
            entering = samples.take(~back[codes])
            self._late = samples.take((back & ~never)[codes])
        if not late.size:
            return [entering]
        if set(late) != set(entering):
            return [late, entering]
        try:
            return [Samples.concat([late, entering])]
        except SchemaError:
            return [late, entering]

    def decided(self, decision: Mapping[str, Any], at: float = math.nan) -> None:
        """Write down what was decided on the newest unit, in place of what was decided before.

        Args:
            decision: Fields of a decision by name; of its figures those of `DECIDED` count.
            at: When the unit came, in seconds since 1970; NaN: nobody said.
        """
        if not self.units:
            return
        known = {**decision, **decision["figures"], "unit": self.units, "at": at, "trained": 0.0}
        known["newness"] = known.get("z_newness", math.nan)
        row = np.array([float(known.get(name, math.nan)) for name in DECIDED])
        before = self.decisions
        if len(before) and before[-1, 0] == self.units:
            row[1] = before[-1, 1] if math.isnan(at) else at
            before = before[:-1]
        self.decisions = np.concatenate([before, row[None]])[-_DECISIONS:]

    @property
    def came_at(self) -> float:
        """When the newest unit came, in seconds since 1970; NaN where nobody said."""
        return float(self.decisions[-1, 1]) if len(self.decisions) else math.nan

    def trained(self, annotate: Callable[[Samples], Samples] | None, seen: int = 0) -> None:
        """A model was trained on the memory: the witnesses of the newest unit are the reference.

        Args:
            annotate: Gives samples the columns of the new model. None: they cannot be had, so that
                what was kept compares with nothing any more and is dropped.
            seen: Samples that the memory has seen.
        """
        self.trained_at, self.seen_at, self.decision = self.units, seen, None
        if len(self.decisions) and self.decisions[-1, 0] == self.units:
            self.decisions = self.decisions.copy()
            self.decisions[-1, -1] = 1.0
        witnesses = self._witnesses
        history = self.history.joined(self._never).at_most(self.rows)
        self.forget()
        if annotate is not None:
            self.reference, self.history = witnesses, history
            self.predict_again(annotate)

    def predict_again(self, annotate: Callable[[Samples], Samples]) -> None:
        """Bring everything kept up to the model that is deployed now.

        Args:
            annotate: Gives samples the columns of that model.
        """
        self._take({part: kept.annotated(annotate) for part, kept in self._parts().items()})
        if self._late.size:
            self._late = annotate(self._late)

    def forget(self) -> None:
        """Drop what later units would be compared with: it is of another model, and stays so."""
        self._take(dict.fromkeys(_PARTS, Clusters.none()))
        self.evidence, self.before, self.renew = 0.0, 0.0, False

    def label(self, by: str, ids: np.ndarray, given: Samples) -> None:
        """Give what is kept its labels, as `Memory.label` does for what is held.

        Args:
            by: Name of the column of ids.
            ids: ``(n,)`` distinct ids.
            given: ``(n,)`` values for them by column.
        """
        self._take(
            {
                name: Clusters(labelled(part.samples, by, ids, given), part.key)
                for name, part in self._parts().items()
            }
        )
        self._late = labelled(self._late, by, ids, given)

    def _fold(self) -> None:
        """The newest unit becomes part of the reference: no training came after it."""
        self.before = self.evidence
        if self.renew:
            self.reference, self.renew = Clusters.none(), False
        self.reference = self.reference.joined(self.unit).at_most(self.rows)
        self.history = self.history.joined(self._never).at_most(self.rows)
        self.unit = self._never = Clusters.none()

    def _codes(self, samples: Samples) -> tuple[np.ndarray, int]:
        """``(n,)`` number of each row's cluster, and how many there are."""
        if self.cluster is None:
            return np.arange(samples.size), samples.size
        if self.cluster not in samples:
            raise SchemaError(
                f"column {self.cluster!r}, which says what belongs together, is missing; there are "
                f"{sorted(samples)}; give it, or leave cluster out if rows are independent"
            )
        clusters = samples[self.cluster]
        if clusters.ndim > 1 or clusters.dtype.names:
            raise SchemaError(
                f"column {self.cluster!r}, which says what belongs together, holds "
                f"{clusters.dtype} of shape {clusters.shape}; expected one value a sample"
            )
        _, codes = np.unique(clusters, return_inverse=True)
        codes = codes.reshape(-1)
        return codes, int(codes.max()) + 1

    def dump(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and a JSON document from which `restore` makes an equal object."""
        arrays = {f"late/{name}": column for name, column in self._late.items()}
        arrays["decisions"] = self.decisions
        for part, clusters in self._parts().items():
            arrays |= {f"{part}/{name}": column for name, column in clusters.samples.items()}
            arrays[f"{part}-key"] = clusters.key
        return arrays, {name: getattr(self, name) for name in (*_SETTINGS, *_NUMBERS)}

    def copy(self) -> Arrivals:
        """An equal one that changes by itself; columns, which nobody writes to, are shared."""
        return Arrivals.restore(*self.dump())

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray], document: Mapping[str, Any]) -> Arrivals:
        """What `dump` described.

        Raises:
            SettingError, DamagedError: It describes no arrivals.
        """
        try:
            arrivals = cls(**{name: document[name] for name in _SETTINGS})
            for name, expected in _NUMBERS.items():
                arguments.require(name, document[name], expected)
                setattr(arrivals, name, document[name])
            parts = {part: _clusters_of(arrays, part) for part in arrivals._parts()}
        except (KeyError, TypeError) as error:
            raise DamagedError(f"what came in lately is incomplete: {error!r}") from error
        arrivals._take(parts)
        arrivals._late = _columns_of(arrays, "late")
        # Of before they were written down there are none.
        arrivals.decisions = _decisions_of(arrays.get("decisions", arrivals.decisions), arrivals)
        return arrivals

    def _parts(self) -> dict[str, Clusters]:
        return {part: getattr(self, name) for part, name in _PARTS.items()}

    def _take(self, parts: Mapping[str, Clusters]) -> None:
        for part, clusters in parts.items():
            setattr(self, _PARTS[part], clusters)


def _columns_of(arrays: Mapping[str, np.ndarray], part: str) -> Samples:
    start = f"{part}/"
    return Samples.borrow(
        {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}
    )


def _decisions_of(table: np.ndarray, arrivals: Arrivals) -> np.ndarray:
    shape = table.ndim == 2 and table.shape[1] == len(DECIDED) and len(table) <= _DECISIONS
    if not shape or table.dtype != np.float64:
        raise DamagedError(f"decisions are {table.dtype} of shape {table.shape}")
    units = table[:, 0]
    if not ((units >= 1) & (units <= arrivals.units)).all() or not (np.diff(units) > 0).all():
        raise DamagedError(f"decisions are not of rising units from 1 to {arrivals.units:,}")
    return table


def _clusters_of(arrays: Mapping[str, np.ndarray], part: str) -> Clusters:
    samples, key = _columns_of(arrays, part), arrays[f"{part}-key"]
    if key.shape != (samples.size,) or key.dtype != np.float64:
        raise DamagedError(
            f"the keys of {part} are {key.dtype} of shape {key.shape} for {samples.size:,} samples"
        )
    return Clusters(samples, key)


def labelled(samples: Samples, by: str, ids: np.ndarray, given: Samples) -> Samples:
    """Samples with values of the rows whose ids are given; others stay, or are missing.

    Args:
        samples: Any number.
        by: Name of the column of ids.
        ids: ``(n,)`` distinct ids.
        given: ``(n,)`` values for them by column.
    """
    if by not in samples or not len(ids):
        return samples
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, samples[by], sorter=order), len(ids) - 1)
    rows = order[place]
    found = ids[rows] == samples[by]
    columns = {}
    for name, values in given.items():
        old = samples[name] if name in samples else blank(name, samples.size, values)
        fresh = values[rows[found]]
        column = old.astype(np.result_type(old, fresh))
        column[found] = fresh
        columns[name] = column
    return samples.with_columns(columns)
