"""Settings of a memory, from options or a file, as one frozen object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from memento import settings
from memento.arguments import text, whole
from memento.arrivals import Arrivals
from memento.errors import SettingError
from memento.memory import Memory
from memento.policies import Policy, policy_from_table, short_distances

__all__ = [
    "MemorySettings",
    "changed",
    "from_options",
    "from_toml",
    "label_columns",
    "needed_columns",
    "predicted_columns",
]


@dataclass(frozen=True)
class MemorySettings:
    """What `memento memory init` makes a memory from.

    Attributes:
        capacity: Most samples kept; None for any number.
        policy: Which samples are kept; see `policy_from_table`.
        seed: Of the memory's generator.
        id: Column that tells samples apart.
        cluster: Column that says which rows belong together; None: rows are independent.
        witnesses: Share of each insert that enters one insert late.
    """

    capacity: Annotated[int, whole()] | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    seed: Annotated[int, whole(0)] = 0
    id: Annotated[str, text()] = "id"
    cluster: Annotated[str, text()] | None = None
    witnesses: float = 0.0

    def make(self, dashes: str = "") -> Memory:
        """An empty memory.

        Args:
            dashes: What stands before a setting's name in messages: ``"--"`` for options.

        Raises:
            SettingError: The policy is unknown, has no such field, or something does not fit.
        """
        policy = policy_from_table(self.policy, dashes=dashes)
        if self.capacity is None and policy.kind != "unbounded":
            raise SettingError(
                "no capacity: say how many samples are kept at most, such as 1000000 "
                "(only the policy unbounded has none)"
            )
        recent = Arrivals(witnesses=self.witnesses, cluster=self.cluster)
        memory = Memory(self.capacity, policy, seed=self.seed, ids=self.id)
        memory.recent = recent
        return memory


def from_options(given: Mapping[str, Any]) -> Memory:
    """An empty memory, made from options of the command line.

    Args:
        given: By the names of `MemoryOptions`, those that were given.

    Raises:
        SettingError: A value does not fit.

    Example:
        >>> from_options({"capacity": 1000, "labels": ["y:5"]}).policy.sort_columns
        ('y',)
        >>> from_options({"capacity": 0})
        Traceback (most recent call last):
        memento.errors.SettingError: options: capacity is 0; expected a whole number above 0
    """
    general = {field.name for field in fields(MemorySettings)} - {"policy"}
    chosen = {name: value for name, value in given.items() if name in general}
    policy = {name: value for name, value in given.items() if name not in general}
    if "policy" in policy:
        policy["kind"] = policy.pop("policy")
    if "sort_by" in policy:
        policy["sort_by"] = [name.strip() for name in policy["sort_by"].split(",")]
    for assignment in policy.pop("set_", ()):
        policy |= settings.parse(assignment)
    return settings.build(MemorySettings, {**chosen, "policy": policy}, "options").make("--")


def from_toml(path: Path) -> Memory:
    """An empty memory, made from a file.

    The file holds what `MemorySettings` has, and a table ``policy``:

    .. code-block:: toml

        capacity = 1_000_000

        [policy]
        kind = "memento"
        labels = ["y:21"]         # or ["y"]: integers or texts, as they come
        probabilities = ["yhat"]
        batch_size = 128

    Raises:
        SettingError: The file is no TOML, or something in it is unknown or does not fit.
        StorageError: The file cannot be read.
    """
    made = settings.build(MemorySettings, settings.read(path), str(path))
    try:
        return made.make()
    except SettingError as error:
        raise SettingError(f"{path}: {error}") from error


def changed(policy: Policy, labels: Sequence[str], others: Sequence[str]) -> Policy:
    """A policy with other labels, or other fields.

    Args:
        policy: What was used so far.
        labels: ``NAME`` or ``NAME:CLASSES``: such a column is compared with these from now on.
        others: ``NAME=VALUE``, fields of the policy as in a TOML file.

    Raises:
        SettingError: The policy has no such field, or a value does not fit.

    Example:
        >>> before = policy_from_table({"labels": ["y:5"]})
        >>> changed(before, ["y"], []).distances
        (JensenShannon.of_labels('y'),)
    """
    given = policy.settings()
    for assignment in others:
        given |= settings.parse(assignment)
    if labels:
        fresh = {distance["column"]: distance for distance in short_distances(list(labels))}
        kept = given.get("distances", [])
        given["distances"] = [
            fresh.pop(distance["column"], distance)
            if distance["kind"] == "jensen-shannon-labels"
            else distance
            for distance in kept
        ]
        given["distances"] += fresh.values()
    return policy_from_table(given, dashes="--")


def needed_columns(policy: Policy) -> list[str]:
    """The columns that the policy's distances read."""
    names = [name for distance in getattr(policy, "distances", ()) for name in distance.columns]
    return list(dict.fromkeys(names))


def label_columns(policy: Policy) -> list[str]:
    """The columns of labels that the policy compares, or chooses by."""
    own: str | None = getattr(policy, "label", None)
    compared = [
        str(distance.columns[0])
        for distance in getattr(policy, "distances", ())
        if distance.kind == "jensen-shannon-labels"
    ]
    return compared if own is None else [own, *compared]


def predicted_columns(policy: Policy) -> list[str]:
    """The columns of predicted probabilities that the policy's distances read."""
    return [
        distance.columns[0]
        for distance in getattr(policy, "distances", ())
        if distance.kind == "jensen-shannon-probabilities"
    ]
