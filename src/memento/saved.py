"""What the documents of a saved memory hold; they may come from anybody, so all is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from memento import arguments, snapshot
from memento.arrivals import Arrivals
from memento.errors import DamagedError
from memento.offered import Offered
from memento.policies import Policy

__all__ = ["foreign_classes", "memory_fields", "offered_before", "recent_arrivals"]

_COUNT = arguments.whole(0, 2**62)
_DIGEST = arguments.optional(arguments.text("a text"))
_COUNTER = arguments.number(-(2.0**62), 2.0**62, words="a number")
_COUNTERS = arguments.Expected(
    "a mapping to numbers",
    lambda counters: isinstance(counters, dict) and all(map(_COUNTER.holds, counters.values())),
)
_UNIT_NUMBERS = arguments.Expected(
    "a mapping to whole numbers",
    lambda units: isinstance(units, dict) and all(map(_COUNT.holds, units.values())),
)
# Folders that were written before these were known lack them.
_LATER = ("reference_model", "units", "ids", "whole", "hidden", "stacked")
_INTEGERS = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
_TYPES = arguments.Expected(
    "a mapping to types of whole numbers",
    lambda types: isinstance(types, dict) and all(map(_INTEGERS.__contains__, types.values())),
)
_NAMES = arguments.Expected(
    "a list of names",
    lambda names: isinstance(names, list) and all(isinstance(name, str) for name in names),
)
_STACKED = arguments.Expected(
    "a mapping to lists of names",
    lambda stacked: isinstance(stacked, dict) and all(map(_NAMES.holds, stacked.values())),
)
_FIELDS = {
    "capacity": arguments.optional(arguments.whole()),
    "size": _COUNT,
    "seen": _COUNT,
    "inserts": _COUNT,
    "counters": _COUNTERS,
    "trained": arguments.flag(),
    "model": _DIGEST,
    "reference_model": _DIGEST,
    "units": arguments.optional(_UNIT_NUMBERS),
    "ids": _DIGEST,
    "whole": arguments.optional(_TYPES),
    "hidden": arguments.optional(_NAMES),
    "stacked": arguments.optional(_STACKED),
}


def memory_fields(documents: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``memory.json`` by name; None for those that older folders lack.

    Raises:
        DamagedError: One is missing, or something else.
    """
    document = documents.get("memory")
    return {
        name: snapshot.field_of(document, name, expected, "memory.json", absent=name in _LATER)
        for name, expected in _FIELDS.items()
    }


def recent_arrivals(arrays: Mapping[str, np.ndarray], documents: Mapping[str, Any]) -> Arrivals:
    """What came in lately.

    Raises:
        DamagedError: The document does not describe any.
    """
    try:
        return Arrivals.restore(snapshot.with_prefix(arrays, "recent/"), documents["recent"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DamagedError(f"recent.json describes no arrivals: {error!r}") from error


def offered_before(
    arrays: Mapping[str, np.ndarray], documents: Mapping[str, Any], inserts: int, seen: int
) -> Offered:
    """What was offered; in older folders nothing is known of it, and the record begins now.

    Args:
        arrays: All of the memory's.
        documents: All of the memory's.
        inserts: Of the memory.
        seen: Samples that were offered to it.

    Raises:
        DamagedError: The document does not describe any.
    """
    if "offered" not in documents:
        return Offered(since=inserts)
    own = snapshot.with_prefix(arrays, "offered/")
    return Offered.restore(own, documents["offered"], inserts, seen)


def foreign_classes(policy: Policy) -> list[str]:
    """Classes of a policy and its distances that are not the library's, as ``module:Class``.

    They are kept with a memory so that messages can say what to import; nothing imports them.
    """
    classes = [type(thing) for thing in (policy, *getattr(policy, "distances", ()))]
    return list(
        dict.fromkeys(
            f"{made.__module__}:{made.__qualname__}"
            for made in classes
            if made.__module__.partition(".")[0] not in ("memento", "__main__")
        )
    )
