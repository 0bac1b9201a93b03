"""Policies as people write them: by options, or in a table of a TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from memento import plugins
from memento.arguments import names
from memento.distances import Distance, JensenShannon
from memento.errors import SettingError
from memento.policies._policy import Policy, policy_class, policy_from_settings

__all__ = ["policy_from_table", "short_distances"]


def policy_from_table(
    table: Mapping[str, Any],
    *,
    dashes: str = "",
    usual: Sequence[Distance] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Policy:
    """A policy from its kind and fields, with short names for the usual distances.

    Args:
        table: ``kind``, ``"memento"`` if left out, or ``"module:Class"``, which is imported; fields
            as `Policy.settings` has them. Instead of ``distances``: ``labels``, each ``NAME`` or
            ``NAME:CLASSES``, ``values`` and ``probabilities``, columns by name.
        dashes: What stands before a setting's name in messages: ``"--"`` on the command line.
        usual: Distances where none is named.
        defaults: Fields, which are left out where the policy has no such field.

    Raises:
        SettingError: The policy is unknown, has no such field, or a value does not fit.

    Example:
        >>> policy_from_table({"labels": ["y:5"], "probabilities": "yhat"}).distances
        (JensenShannon.of_labels('y', classes=5), JensenShannon.of_probabilities('yhat'))
    """
    settings = {"kind": "memento", **table}
    kind = settings["kind"] = _imported(settings["kind"], Policy)
    made: type[Any] = policy_class(kind, remedy="or give module:Class, which is imported")
    known = {field.name for field in dataclasses.fields(made)}
    short = [settings.pop(name, ()) for name in ("labels", "values", "probabilities")]
    if any(short) and "distances" in settings:
        raise SettingError(
            f"{dashes}labels, {dashes}values and {dashes}probabilities are distances, and "
            "distances are given as well; give one of them"
        )
    if "distances" in known:
        named = short_distances(*short) or [distance.settings() for distance in usual]
        settings.setdefault("distances", named)
        if not settings["distances"] and not settings.get("density"):
            raise SettingError(
                f"policy {kind!r} compares columns, and none is given; name some with "
                f"{dashes}labels NAME, {dashes}probabilities NAME or {dashes}values NAME"
            )
    elif any(short):
        raise SettingError(
            f"policy {kind!r} compares no columns; leave {dashes}labels and so on out"
        )
    if isinstance(settings.get("distances"), list):
        settings["distances"] = [
            {**one, "kind": _imported(one["kind"], Distance)}
            if isinstance(one, dict) and "kind" in one
            else one
            for one in settings["distances"]
        ]
    unknown = sorted(set(settings) - known - {"kind"})
    if unknown:
        raise SettingError(
            f"policy {kind!r} has no setting {unknown[0]!r}; it has "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    rest = {name: value for name, value in (defaults or {}).items() if name in known}
    return policy_from_settings(rest | settings)


def short_distances(labels: Any = (), values: Any = (), probabilities: Any = ()) -> list[Any]:
    """Settings of the usual distances, outputs first, so that batches are sorted by them first.

    Args:
        labels: ``NAME`` or ``NAME:CLASSES``, one or several.
        values: Columns of real numbers.
        probabilities: Columns of predicted probabilities.

    Raises:
        SettingError: They have another form.
    """
    found = []
    for text in names("labels", labels):
        name, colon, classes = text.rpartition(":") if ":" in text else (text, "", "")
        if not name or (colon and (not classes.isdecimal() or int(classes) < 1)):
            raise SettingError(
                f"labels {text!r} has another form than NAME, such as y, or NAME:CLASSES, such as "
                "y:21"
            )
        found.append(JensenShannon.of_labels(name, classes=int(classes) if colon else None))
    found += [JensenShannon.of_values(name) for name in names("values", values)]
    found += [JensenShannon.of_probabilities(c) for c in names("probabilities", probabilities)]
    return [distance.settings() for distance in found]


def _imported(kind: Any, base: type[Policy | Distance]) -> Any:
    return plugins.kind_named(kind, base, f"{base.__name__.lower()} {kind!r}")
