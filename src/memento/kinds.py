"""Objects that settings describe: a kind, which names a class, and JSON values for its fields.

Policies, distances and triggers are written to disk and to files of settings in this form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np

from memento import plugins
from memento.arguments import shown
from memento.errors import MementoError, SettingError

__all__ = ["class_of", "described", "made_of", "plain", "settings_of", "through_json"]


def plain(value: Any) -> Any:
    """A setting as a JSON value; of what has settings itself, these.

    Example:
        >>> plain((1, np.float64(0.5)))
        [1, 0.5]
    """
    if hasattr(value, "settings"):
        return value.settings()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return described(value)
    return value.item() if isinstance(value, np.generic) else value


def described(owner: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, without those that do not count in comparisons.

    Raises:
        SettingError: It has attributes and is no dataclass.
    """
    if not is_dataclass(owner) and vars(owner):
        raise SettingError(
            f"{type(owner).__name__} is no dataclass, so its settings are not known; put "
            "@dataclass(frozen=True) over it, or define settings()"
        )
    own = fields(owner) if is_dataclass(owner) else ()
    return {field.name: plain(getattr(owner, field.name)) for field in own if field.compare}


def usual_settings(owner: Any) -> dict[str, Any]:
    """The defaults of a dataclass' fields as JSON values; those without one are left out.

    Example:
        >>> from memento import Reservoir
        >>> usual_settings(Reservoir(forget=0.1))
        {'forget': 0.0}
    """
    own = fields(owner) if is_dataclass(owner) else ()
    return {field.name: plain(field.default) for field in own if field.default is not MISSING}


def settings_of(what: str, settings: Any) -> dict[str, Any]:
    """A copy of stored settings, with tuples for lists.

    Raises:
        SettingError: They are none.
    """
    if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
        raise SettingError(f"settings of a {what} are {shown(settings)}; no mapping")
    return {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items()}


def class_of(
    what: str, kind: object, known: MutableMapping[str, Any], base: type, remedy: str
) -> Any:
    """The class of a kind: of the library, an imported module, or an entry point.

    Args:
        what: ``"policy"``, ``"distance"`` or ``"trigger"``.
        kind: Kind that is looked for, such as ``"memento"``.
        known: Classes by kind; one that an entry point has is added.
        base: What the class is derived from.
        remedy: What to do about an unknown one, for the message.

    Raises:
        SettingError: There is none; or the entry point cannot be loaded.
    """
    if isinstance(kind, str) and kind in known:  # to look for distributions takes milliseconds
        return known[kind]
    group = {"policy": plugins.POLICIES, "distance": plugins.DISTANCES}.get(what, plugins.TRIGGERS)
    kinds = plugins.admit(group, str(kind), known, base)
    if not isinstance(kind, str) or kind not in known:
        raise SettingError(f"unknown {what} {shown(kind)}; known are {', '.join(kinds)}. {remedy}")
    return known[kind]


def made_of(what: str, kind: object, made: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
    """An object of a class and its settings.

    Raises:
        SettingError: They do not fit.
    """
    try:
        return made(**settings)
    except MementoError:
        raise
    except (TypeError, ValueError) as error:  # of a class that is not ours, too
        raise SettingError(f"settings of the {what} {kind!r} do not fit: {error}") from error


def through_json(settings: Mapping[str, Any]) -> Any:
    """Settings as they are when they come back from a file."""
    return json.loads(json.dumps(settings))
