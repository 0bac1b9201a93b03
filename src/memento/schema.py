"""What a memory knows of its columns: how new samples fit, what is missing, and who waits for it.

Columns of a stream come and go: predictions once there is a model, labels days later. What is held
and what comes are made to fit each other here, before a policy sees them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from memento import missing
from memento.errors import DomainError, SchemaError
from memento.policies import _waiting
from memento.policies._policy import Choice, Policy, State
from memento.samples import Samples

__all__ = ["Plan", "Schema"]


@dataclass(frozen=True)
class Schema:
    """What is known of the columns of a memory beyond their types.

    Attributes:
        ids: Column that tells samples apart, if there is one of this name.
        whole: Types of columns of whole numbers that are float64 while some are missing.
        hidden: Columns that not all samples have, and that none waits for: a policy does not see
            them until all do.
        stacked: Names of what columns of rows were made of, as far as they are known.
    """

    ids: str = "id"
    whole: Mapping[str, str] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    stacked: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Plain JSON values from which `from_document` makes an equal schema."""
        named = {name: list(parts) for name, parts in self.stacked.items()}
        whole, hidden = dict(self.whole), sorted(self.hidden)
        return {"ids": self.ids, "whole": whole, "hidden": hidden, "stacked": named}

    @classmethod
    def from_document(cls, values: Mapping[str, Any]) -> Schema:
        """What `document` described; documents from before there were such values lack them."""
        whole, hidden = values.get("whole", {}), values.get("hidden", ())
        stacked = dict(values.get("stacked", {}))
        return cls(values.get("ids", "id"), dict(whole), frozenset(hidden), stacked)

    def plan(self, held: Samples, fresh: Samples, policy: Policy) -> Plan:
        """What is held and what comes, made to fit each other.

        Args:
            held: Without columns at the first insert.
            fresh: New samples.
            policy: Policy of the memory.

        Raises:
            SchemaError: They cannot be.
        """
        if not len(fresh):
            raise SchemaError("no columns; give at least one")
        fresh = self._with_awaited(held, fresh, policy)
        if not len(held):
            return Plan({}, fresh, replace(self, whole=self._classes(fresh, {}, policy)), {})
        self._check_names(held, fresh, policy)
        old, new, whole, hidden = dict(held), {}, dict(self.whole), set()
        appended = {c for d in getattr(policy, "distances", ()) for c in d.appended}
        for name in dict.fromkeys([*held, *fresh]):
            if name not in fresh:
                new[name] = missing.blank(name, fresh.size, held[name])
            elif name not in held:
                old[name] = missing.blank(name, held.size, fresh[name])
            given = new[name] if name in new else fresh[name]
            old[name], new[name], was = missing.join(
                name, old[name], given, was=whole.pop(name, None), appended=name in appended
            )
            if name not in held and given.dtype.kind in "biu" and old[name].dtype.kind == "f":
                was = str(given.dtype)
            if was is not None:
                whole[name] = was
            late = name not in fresh or name not in held or name in self.hidden
            if (
                late
                and name not in policy.tolerates
                and not (self.ids in fresh and given.ndim == 1)
            ):
                lacking = (missing.lacking(part).any() for part in (old[name], new[name]))
                hidden |= {name} if any(lacking) else set()
        changed = {n: a for n, a in old.items() if n not in held or a is not held[n]}
        whole = self._classes(Samples.borrow(new), whole, policy)
        schema = replace(self, whole=whole, hidden=frozenset(hidden))
        return Plan(old, Samples.borrow(new), schema, changed)

    def _with_awaited(self, held: Samples, fresh: Samples, policy: Policy) -> Samples:
        """New samples with columns of labels that the policy reads and that will come later."""
        if self.ids not in fresh:
            return fresh
        distances = getattr(policy, "distances", ())
        awaited = {getattr(policy, "label", None), *(c for d in distances for c in d.labels)}
        if distances and not any(name in fresh for d in distances for name in d.columns):
            awaited |= {name for d in distances for name, axes in d.axes.items() if axes == 0}
        absent = sorted(name for name in awaited if name and name not in fresh and name not in held)
        if not absent:
            return fresh
        blank = np.full(fresh.size, np.nan)
        return fresh.with_columns(dict.fromkeys(absent, blank))

    def _classes(self, fresh: Samples, whole: Mapping[str, str], policy: Policy) -> dict[str, str]:
        """Also columns of labels that came as floats only because some are missing."""
        found = dict(whole)
        if self.ids not in fresh or getattr(policy, "bins", None) is not None:
            return found
        distances = getattr(policy, "distances", ())
        for name in {getattr(policy, "label", None), *(c for d in distances for c in d.labels)}:
            if name in fresh and name not in found and fresh[name].dtype.kind == "f":
                known = fresh[name][~missing.lacking(fresh[name])]
                if 0 < len(known) < fresh.size and (known == np.trunc(known)).all():
                    found[name] = "int64"
        return found

    def _check_names(self, held: Samples, fresh: Samples, policy: Policy) -> None:
        """Raise if columns are missing that cannot come later, or ids come too late."""
        absent = [
            name
            for name in sorted(set(held) - set(fresh))
            if not self._may_lack(name, held[name], policy, self.ids in fresh)
        ]
        unknown = sorted(set(fresh) - set(held))
        if absent:
            found = f"; unknown {', '.join(unknown)}" if unknown else ""
            raise SchemaError(
                f"columns differ from those held: missing {', '.join(absent)}{found}; this memory "
                f"holds {', '.join(held)}. Give what is missing"
            )
        if self.ids in unknown and held.size:
            raise SchemaError(
                f"what is held has no column {self.ids!r}, which tells samples apart; give it with "
                f"memory.annotate({self.ids}=...) first, or insert without it"
            )

    def _may_lack(self, name: str, column: np.ndarray, policy: Policy, identified: bool) -> bool:
        """Whether samples may come without a column that is held."""
        labelled = identified and name != self.ids and column.ndim == 1
        return labelled or name in policy.reads or bool(missing.lacking(column).any())

    def visible(self, samples: Samples) -> Samples:
        """The columns that a policy sees."""
        if not self.hidden:
            return samples
        return samples.select([name for name in samples if name not in self.hidden])

    def lacking(self, samples: Samples, policy: Policy) -> np.ndarray:
        """``(n,)`` bool: samples that lack something that the policy reads and that can come."""
        return missing.rows_lacking(samples, policy.reads if self.ids in samples else ())

    def complete(self, samples: Samples) -> Samples:
        """Samples that lack nothing, with the types that their columns then have."""
        changed = {
            name: missing.whole_again(samples[name], was)
            for name, was in self.whole.items()
            if name in samples
        }
        return samples.with_columns(changed) if changed else samples

    def check(self, samples: Samples, policy: Policy) -> None:
        """Raise if a policy cannot work with samples, as far as these lack nothing."""
        samples = self.visible(samples)
        if not samples.size:
            return
        lacking = self.lacking(samples, policy)
        if not lacking.any():
            policy.check(samples)
            return
        if not lacking.all():
            policy.check(self.complete(samples.take(~lacking)))
        rest = samples.take(lacking)
        for distance in getattr(policy, "distances", ()):
            if all(name in rest for name in distance.columns):
                bad = [missing.lacking(rest[name]) for name in distance.columns]
                rows = np.flatnonzero(~np.any(bad, axis=0))
                if len(rows):
                    distance.check(self.complete(rest.take(rows)))

    def labelled(
        self, held: Samples, ids: Any, given: Samples, policy: Policy
    ) -> tuple[dict[str, np.ndarray], Schema, np.ndarray]:
        """Columns of what is held with what has become known of some samples.

        Args:
            held: It is not changed.
            ids: Whose labels these are.
            given: A row an id.
            policy: Policy of the memory.

        Returns:
            The columns that change; what is then known of the columns; ``(held,)`` int64, the row
            of ``given`` for each sample, -1 for none.

        Raises:
            SchemaError: There are no ids; other lengths, types or columns.
            DomainError: An id is given twice; values that the policy cannot work with.
        """
        keys = Samples.borrow({self.ids: ids})[self.ids]
        if not given or given.size != len(keys):
            raise SchemaError(
                f"{given.size:,} rows of labels for {len(keys):,} ids; give label(ids, y=...) one "
                "label an id"
            )
        if self.ids not in held:
            raise SchemaError(
                f"what is held has no column {self.ids!r}, so labels cannot be told whose they "
                f"are; insert samples with it, or name another with Memory(..., ids=...)"
            )
        places = _places_of(self.ids, held[self.ids], keys)
        rows = np.flatnonzero(places >= 0)
        late = [name for name in held if missing.lacking(held[name]).any()]
        changed, whole = {}, dict(self.whole)
        for name, array in given.items():
            if name == self.ids:
                raise SchemaError(f"column {name!r} tells samples apart and stays as it is")
            if name not in held and late and name not in policy.reads:
                raise SchemaError(
                    f"unknown column {name!r}; columns with missing values are {', '.join(late)}. "
                    "Give these, or add a new column for all samples with memory.annotate"
                )
            values, was = array[places[rows]], whole.pop(name, None)
            if name not in held and values.dtype.kind in "biu":
                was = str(values.dtype)
            column = held[name] if name in held else missing.blank(name, held.size, values)
            column, values, was = missing.join(name, column, values, was=was, appended=False)
            if was is not None:
                whole[name] = was
            wide = (
                np.promote_types(column.dtype, values.dtype) if values.dtype.kind in "US" else None
            )
            changed[name] = np.array(column, wide)
            known = ~missing.lacking(values)
            changed[name][rows[known]] = values[known]
        after = replace(self, whole=whole)
        after.check(after.complete(Samples.borrow(dict(held) | changed).take(rows)), policy)
        return changed, after, places

    def settled(self, held: Samples) -> tuple[dict[str, np.ndarray], Schema]:
        """Columns that no sample lacks any more, as they were before; and what is still known."""
        hidden = {name for name in self.hidden if missing.lacking(held[name]).any()}
        changed, whole = {}, {}
        for name, was in self.whole.items():
            if held[name].dtype.kind == "f" and missing.lacking(held[name]).any():
                whole[name] = was
            else:
                changed[name] = missing.whole_again(held[name], was)
        return changed, replace(self, whole=whole, hidden=frozenset(hidden))


@dataclass(frozen=True)
class Plan:
    """An insert before the choice.

    Attributes:
        held: Columns of what is held, and
        fresh: of what comes, fitted to each other. ``held`` is empty at the first insert.
        schema: What is known of the columns once both are joined.
        changed: Those of ``held`` that had to be changed or are new.
    """

    held: Mapping[str, np.ndarray]
    fresh: Samples
    schema: Schema
    changed: Mapping[str, np.ndarray]

    def settled(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], Schema]:
        """What `Schema.settled` says once some rows, of those held and the fresh ones, are left."""
        left = {}
        for name in {*self.schema.whole, *self.schema.hidden}:
            parts = [self.held[name]] if name in self.held else []
            left[name] = np.concatenate([*parts, self.fresh[name]])[rows]
        return self.schema.settled(Samples.borrow(left))

    def choose(
        self,
        policy: Policy,
        capacity: int | None,
        state: State,
        keys: np.ndarray | None,
        rng: np.random.Generator,
    ) -> tuple[Choice, np.ndarray | None]:
        """What the policy chooses, and what waits beside that.

        Args:
            policy: It sees what is visible and, unless it judges samples that lack something
                itself, complete.
            capacity: As for `Policy.choose`, like ``state`` and ``rng``.
            state: Of the last choice.
            keys: ``(held,)`` of samples that wait, NaN for others; None: none does.
            rng: The memory's generator.

        Returns:
            The choice, and the keys of its rows.
        """
        schema = self.schema
        held, fresh = schema.visible(Samples.borrow(self.held)), schema.visible(self.fresh)
        if policy.waits:
            lacking = schema.lacking(fresh, policy)
            if keys is not None or lacking.any():
                before = np.full(held.size, np.nan) if keys is None else keys
                waiting = _waiting.Waiting(before, schema.lacking(held, policy), lacking)
                return _waiting.choose(
                    policy, held, fresh, capacity, state, rng, waiting, schema.complete
                )
        return policy.choose(held, fresh, capacity, state, rng), None


def _places_of(name: str, held: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """``(held,)`` int64: where each id that is held is among those given, -1 if it is not.

    Raises:
        SchemaError: Ids of another kind.
        DomainError: An id is given twice.
    """
    text, number = ("U", "S"), ("i", "u")
    kinds = next((kinds for kinds in (text, number) if held.dtype.kind in kinds), None)
    single = ids.ndim == held.ndim == 1 and kinds is not None
    if not single or (len(ids) and ids.dtype.kind not in (kinds or ())):
        raise SchemaError(
            f"ids are {ids.dtype} of shape {ids.shape}, the column {name!r} holds {held.dtype} of "
            f"shape {held.shape}; ids are one integer or one text a sample"
        )
    rows = np.arange(len(ids))
    if held.dtype != ids.dtype and kinds is number:  # mixed signs would be compared as floats
        limits = np.iinfo(held.dtype)
        rows = np.flatnonzero((ids >= limits.min) & (ids <= limits.max))
        ids = ids[rows].astype(held.dtype)
    elif held.dtype.kind != ids.dtype.kind:
        ids = ids.astype(held.dtype.kind)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    twice = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(twice):
        raise DomainError(
            f"id {ordered[twice[0]].item()!r} is given twice ({len(twice):,} such); give one label "
            "an id"
        )
    found = np.full(len(held), -1, np.int64)
    if len(ids):
        at = np.minimum(np.searchsorted(ordered, held), len(ids) - 1)
        same = ordered[at] == held
        found[same] = rows[order[at[same]]]
    return found
