"""Settings of a memory, from options or a file, as one frozen object."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento import plugins
from memento.arrivals import Arrivals
from memento.distances import Distance, JensenShannon
from memento.errors import SettingError
from memento.files import storage_errors
from memento.memory import Memory
from memento.policies import Policy, policy_class, policy_from_settings

__all__ = [
    "MemorySettings",
    "changed",
    "from_options",
    "from_toml",
    "needed_columns",
    "predicted_columns",
]

_KEYS = ("capacity", "seed", "id", "cluster", "witnesses", "policy")


@dataclass(frozen=True)
class MemorySettings:
    """What `memento memory init` makes a memory from.

    Attributes:
        capacity: Most samples kept; None for any number.
        policy: Which samples are kept.
        seed: Of the memory's generator.
        ids: Column that tells samples apart.
        cluster: Column that says which rows belong together; None: rows are independent.
        witnesses: Share of each insert that enters one insert late.
    """

    capacity: int | None
    policy: Policy
    seed: int = 0
    ids: str = "id"
    cluster: str | None = None
    witnesses: float = 0.0

    def __post_init__(self) -> None:
        if self.capacity is not None and self.capacity < 1:
            raise SettingError(f"--capacity is {self.capacity}; it has to be at least 1")
        if self.seed < 0:
            raise SettingError(f"--seed is {self.seed}; it has to be 0 or more")
        Arrivals(witnesses=self.witnesses, cluster=self.cluster)

    def make(self) -> Memory:
        """An empty memory."""
        memory = Memory(self.capacity, self.policy, seed=self.seed, ids=self.ids)
        memory.recent = Arrivals(witnesses=self.witnesses, cluster=self.cluster)
        return memory


def from_options(
    *,
    kind: str,
    capacity: int | None,
    seed: int | None = None,
    ids: str | None = None,
    cluster: str | None = None,
    witnesses: float | None = None,
    labels: Sequence[str] = (),
    probabilities: Sequence[str] = (),
    values: Sequence[str] = (),
    sort_by: str | None = None,
    fields: Mapping[str, Any] | None = None,
    others: Sequence[str] = (),
) -> MemorySettings:
    """Settings from the options of the command line.

    Args:
        kind: Name of the policy, such as ``"memento"``, or ``module:Class`` of one's own.
        capacity: Most samples kept.
        seed: Of the memory's generator; 0 if left out.
        ids: Column that tells samples apart; ``"id"`` if left out.
        cluster: Column that says which rows belong together.
        witnesses: Share of each insert that enters one insert late; 0 if left out.
        labels: ``NAME``, columns of any labels, or ``NAME:CLASSES``, of integers from 0 on.
        probabilities: Columns of predicted probabilities.
        values: Columns of real numbers.
        sort_by: Names separated by commas; those of labels, values and probabilities, in this
            order, if left out.
        fields: Further fields of the policy; those that are None are left out.
        others: ``NAME=VALUE``, fields of the policy as in a TOML file.

    Raises:
        SettingError: The policy is unknown, has no such field, or a value does not fit.

    Example:
        >>> settings = from_options(kind="memento", capacity=1000, labels=["y:5"])
        >>> settings.policy.sort_columns, settings.policy.size_for(settings.capacity)
        (('y',), 15)
    """
    chosen = {name: value for name, value in (fields or {}).items() if value is not None}
    for text in others:
        chosen |= _assignment(text)
    if sort_by is not None:
        chosen["sort_by"] = [name.strip() for name in sort_by.split(",")]
    short = {"labels": list(labels), "probabilities": list(probabilities), "values": list(values)}
    policy = _policy({"kind": kind, **chosen, **{k: v for k, v in short.items() if v}}, "--")
    return MemorySettings(
        _capacity(capacity, policy), policy, seed or 0, ids or "id", cluster, witnesses or 0.0
    )


def from_toml(path: Path) -> MemorySettings:
    """Settings from a file.

    The file holds ``capacity``, ``seed``, ``id``, ``cluster``, ``witnesses`` and a table
    ``policy``: its ``kind`` and fields as `Policy.settings` names them, with ``labels``,
    ``probabilities`` and ``values`` as short forms for the usual ``distances``:

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
    with storage_errors("read", path):
        content = path.read_bytes()
    try:
        table = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is no TOML: {error}") from error
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise SettingError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    given = table.get("policy", {})
    if not isinstance(given, Mapping):
        raise SettingError(f"{path}: policy is {given!r}; expected a table [policy]")
    for key in ("capacity", "seed"):
        value = table.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise SettingError(f"{path}: {key} is {value!r}; expected a whole number")
    ids = table.get("id", "id")
    if not isinstance(ids, str):
        raise SettingError(f"{path}: id is {ids!r}; expected the name of a column")
    try:
        policy = _policy({"kind": "memento", **given}, "")
        return MemorySettings(
            _capacity(table.get("capacity"), policy),
            policy,
            table.get("seed", 0),
            ids,
            table.get("cluster"),
            table.get("witnesses", 0.0),
        )
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
        >>> before = from_options(kind="memento", capacity=1000, labels=["y:5"]).policy
        >>> changed(before, ["y"], []).distances
        (JensenShannon.of_labels('y'),)
    """
    settings = policy.settings()
    for text in others:
        settings |= _assignment(text)
    if labels:
        fresh = {one["column"]: one for one in _distances(labels, (), ())}
        kept = settings.get("distances", [])
        same = [one for one in kept if one["kind"] == "jensen-shannon-labels"]
        settings["distances"] = [
            fresh.pop(one["column"], one) if one in same else one for one in kept
        ]
        settings["distances"] += fresh.values()
    return _policy(settings, "--")


def needed_columns(policy: Policy) -> list[str]:
    """The columns that the policy's distances read."""
    names = [name for distance in getattr(policy, "distances", ()) for name in distance.columns]
    return list(dict.fromkeys(names))


def predicted_columns(policy: Policy) -> list[str]:
    """The columns of predicted probabilities that the policy's distances read."""
    return [
        distance.columns[0]
        for distance in getattr(policy, "distances", ())
        if distance.kind == "jensen-shannon-probabilities"
    ]


def _policy(given: Mapping[str, Any], dashes: str) -> Policy:
    """The policy that settings describe; ``dashes`` stand before names in messages."""
    settings = dict(given)
    kind = settings["kind"] = _imported(settings["kind"], Policy)
    made: type[Any] = policy_class(kind, remedy="or give module:Class, which is imported")
    if not dataclasses.is_dataclass(made):
        raise SettingError(
            f"policy {kind!r} is no dataclass; write @dataclass(frozen=True) over it"
        )
    known = {field.name for field in dataclasses.fields(made)}
    labels, probabilities, values = (
        _texts(settings.pop(name, []), name) for name in ("labels", "probabilities", "values")
    )
    if "distances" in known:
        settings.setdefault("distances", _distances(labels, values, probabilities))
        if not settings["distances"]:
            raise SettingError(
                f"policy {kind!r} compares columns, and none is given; name some with "
                f"{dashes}labels NAME, {dashes}probabilities NAME or {dashes}values NAME"
            )
    elif labels or probabilities or values:
        raise SettingError(
            f"policy {kind!r} compares no columns; leave {dashes}labels and so on out"
        )
    for distance in settings.get("distances", ()):
        if isinstance(distance, dict) and "kind" in distance:
            distance["kind"] = _imported(distance["kind"], Distance)
    unknown = sorted(set(settings) - known - {"kind"})
    if unknown:
        raise SettingError(
            f"policy {kind!r} has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )
    return policy_from_settings(settings)


def _imported(kind: Any, base: type[Policy | Distance]) -> Any:
    """The kind of ``module:Class``, which is imported; any other kind as it is."""
    if not isinstance(kind, str) or ":" not in kind:
        return kind
    asked = f"{base.__name__.lower()} {kind!r}"
    return plugins.own_kind(plugins.named(kind, asked), base, asked).kind


def _distances(
    labels: Sequence[str], values: Sequence[str], probabilities: Sequence[str]
) -> list[dict[str, Any]]:
    """Settings of the usual distances, outputs first, so that batches are sorted by them first."""
    found = []
    for text in labels:
        name, colon, classes = text.rpartition(":")
        if not colon:
            name, classes = text, ""
        if not name or (colon and (not classes.isdecimal() or int(classes) < 1)):
            raise SettingError(
                f"labels {text!r} has another form than NAME, such as y, or NAME:CLASSES, such as "
                "y:21"
            )
        found.append(JensenShannon.of_labels(name, classes=int(classes) if colon else None))
    found += [JensenShannon.of_values(name) for name in values]
    found += [JensenShannon.of_probabilities(name) for name in probabilities]
    return [distance.settings() for distance in found]


def _capacity(capacity: int | None, policy: Policy) -> int | None:
    if capacity is None and policy.kind != "unbounded":
        raise SettingError(
            "no capacity: say how many samples are kept at most, such as 1000000 "
            "(only the policy unbounded has none)"
        )
    return capacity


def _texts(value: Any, name: str) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise SettingError(f"{name} is {value!r}; expected a list of names")
    return found


def _assignment(text: str) -> dict[str, Any]:
    """``NAME=VALUE``, the value as in TOML; a bare word is a string."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise SettingError(f"--set {text!r} has another form than NAME=VALUE")
    try:
        return {name: tomllib.loads(f"value = {value}")["value"]}
    except tomllib.TOMLDecodeError:
        return {name: value}
