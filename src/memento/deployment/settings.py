"""What a deployment is told: the tables of ``deployment.toml``, checked before anything is done.

[data] folder, label, inputs, late; [model] factory, seed; [variants.NAME] capacity, policy,
trigger; [gate] tolerance. Paths and modules are found from the folder that holds the file.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memento import arguments
from memento.arguments import Expected, shown
from memento.density import SampleSpace
from memento.errors import SettingError
from memento.files import local_path, storage_errors
from memento.memory import Memory
from memento.policies import Policy, usual_distances, usual_policy
from memento.retrain import OnCoverage, Trigger
from memento.retrain import trigger as trigger_of

__all__ = ["DeploymentSettings", "Variant", "from_toml"]

_REQUIRED = object()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_INPUTS = Expected(
    'a list of names of columns or patterns, such as ["f*"]',
    lambda value: (
        isinstance(value, list) and bool(value) and all(map(arguments.text().holds, value))
    ),
)
_FACTORY = Expected(
    'MODULE:FUNCTION, such as "my_model:make"',
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[\w.]+:\w+", value)),
)
_KIND = Expected(
    'a name, or a table with "kind"',
    lambda value: (
        (isinstance(value, str) and bool(value))
        or (isinstance(value, dict) and isinstance(value.get("kind"), str))
    ),
)
_TABLES: dict[str, dict[str, tuple[Expected, Any]]] = {
    "data": {
        "folder": (arguments.text("the folder of the days"), _REQUIRED),
        "label": (arguments.text(), "y"),
        "inputs": (_INPUTS, _REQUIRED),
        "late": (arguments.one_of(("state", "insert")), "state"),
    },
    "model": {"factory": (_FACTORY, _REQUIRED), "seed": (arguments.whole(0), 0)},
    "gate": {
        "tolerance": (
            arguments.number(words="a number of nats; below 0 a new model has to win so much"),
            0.02,
        )
    },
}
_VARIANT: dict[str, tuple[Expected, Any]] = {
    "capacity": (arguments.whole(), _REQUIRED),
    "policy": (_KIND, "memento"),
    "trigger": (_KIND, "on-arrivals"),
}


@dataclass(frozen=True)
class Variant:
    """One memory, when it trains, and what it publishes.

    Attributes:
        capacity: Most samples kept.
        policy: Settings of the policy as in `Policy.settings`, those with defaults left out.
        trigger: Decides when to train.
    """

    capacity: int
    policy: Mapping[str, Any]
    trigger: Trigger

    def memory(self, label: str, *, numbers: bool, seed: int) -> Memory:
        """An empty memory.

        Args:
            label: Column of the labels.
            numbers: Whether labels and predictions are numbers; else classes and probabilities.
            seed: Of the memory's generator.

        Raises:
            SettingError: The policy is unknown, or its settings or the capacity do not fit.
        """
        return Memory(self.capacity, self._policy(label, numbers), seed=seed)

    def deciding(self, label: str, *, numbers: bool) -> Trigger:
        """The trigger; one that compares coverage has distances also where the policy has none."""
        trigger = self.trigger
        if isinstance(trigger, OnCoverage) and trigger.space is None:
            policy = self._policy(label, numbers)
            if not isinstance(policy, SampleSpace):
                space = SampleSpace(usual_distances(label, numbers=numbers), missing="skip")
                return dataclasses.replace(trigger, space=space)
        return trigger

    def _policy(self, label: str, numbers: bool) -> Policy:
        given = {name: value for name, value in self.policy.items() if name != "kind"}
        return usual_policy(self.policy["kind"], label, numbers=numbers, settings=given)


@dataclass(frozen=True)
class DeploymentSettings:
    """All settings.

    Attributes:
        home: Folder of the file; what is relative is found from here.
        folder: Folder of days.
        label: Column of the labels.
        inputs: Columns or patterns of the inputs, in order; together they are the column ``x``.
        late: ``"insert"``: a day that comes after a later one enters the memories; ``"state"``: it
            is only stated.
        factory: ``MODULE:FUNCTION``, from a seed to an estimator or learner.
        seed: For the factory and the memories.
        variants: By name.
        tolerance: Nats that a new model may lose on the latest day.
        tables: What was given, as JSON values.
    """

    home: Path
    folder: Path
    label: str
    inputs: tuple[str, ...]
    late: str
    factory: str
    seed: int
    variants: Mapping[str, Variant]
    tolerance: float
    tables: Mapping[str, Any]

    @classmethod
    def of(cls, tables: Mapping[str, Any], home: Path, where: str) -> DeploymentSettings:
        """Settings from the tables of a file.

        Args:
            tables: Values as in TOML.
            home: Folder that paths are relative to.
            where: Name of the file, for messages.

        Raises:
            SettingError: Something is missing, unknown or does not fit; the message names it.
        """
        known = [*_TABLES, "variants"]
        _check_keys(tables, known, where, "table")
        data, model, gate = (
            _values(tables.get(name, {}), name, fields, where) for name, fields in _TABLES.items()
        )
        if data["label"] == "x":
            raise SettingError(
                f"{where}: [data] label is 'x', which names the inputs; rename that column"
            )
        if data["label"] in data["inputs"]:
            raise SettingError(
                f"{where}: [data] inputs names the label {data['label']!r}; take it out there"
            )
        given = tables.get("variants", {})
        if not isinstance(given, Mapping) or not given:
            raise SettingError(
                f"{where}: there are no variants; add one, such as [variants.main] with "
                "capacity = 2000"
            )
        variants = {}
        for name, table in given.items():
            if not _NAME.fullmatch(name):
                raise SettingError(
                    f"{where}: [variants.{name}]: a variant's name is letters, digits, - and _"
                )
            at = f"variants.{name}"
            variants[name] = _variant(_values(table, at, _VARIANT, where), f"{where}: [{at}]")
            for numbers in (False, True):  # what the policy and the memory refuse, they do so now
                try:
                    variants[name].memory(data["label"], numbers=numbers, seed=0)
                except SettingError as error:
                    raise SettingError(f"{where}: [{at}]: {error}") from error
        return cls(
            home=home,
            folder=home / local_path(data["folder"], f"{where}: [data] folder"),
            label=data["label"],
            inputs=tuple(data["inputs"]),
            late=data["late"],
            factory=model["factory"],
            seed=model["seed"],
            variants=variants,
            tolerance=float(gate["tolerance"]),
            tables=tables,
        )

    def document(self) -> dict[str, Any]:
        """JSON values from which `of` makes equal settings: ``home`` and ``tables``."""
        return {"home": str(self.home), "tables": dict(self.tables)}


def from_toml(path: str | Path) -> DeploymentSettings:
    """Settings from a file.

    Raises:
        SettingError: The file is no TOML, or something in it is missing, unknown or does not fit.
        StorageError: The file cannot be read.
    """
    file = local_path(path, "--config")
    with storage_errors("read the settings", file):
        content = file.read_bytes()
    try:
        tables = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{file} is no TOML: {error}; correct it there") from error
    _check_plain(tables, str(file))
    return DeploymentSettings.of(tables, file.resolve().parent, str(file))


def _check_plain(value: Any, where: str) -> None:
    """Raise at dates and endless numbers, which JSON has not."""
    if isinstance(value, Mapping):
        for item in value.values():
            _check_plain(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, where)
    elif not isinstance(value, (str, int, float)) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise SettingError(f"{where}: {shown(value)} is no setting; expected a number or a text")


def _check_keys(table: Mapping[str, Any], known: list[str], where: str, what: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise SettingError(
            f"{where}: unknown {what} {unknown[0]!r}; known are {', '.join(known)}: rename it, or "
            "take it out"
        )


def _values(
    table: Any, name: str, fields: Mapping[str, tuple[Expected, Any]], where: str
) -> dict[str, Any]:
    """The values of a table, checked, with defaults."""
    if not isinstance(table, Mapping):
        raise SettingError(f"{where}: {name} is {shown(table)}; expected a table [{name}]")
    _check_keys(table, list(fields), f"{where}: [{name}]", "setting")
    values = {}
    for field, (expected, default) in fields.items():
        if field not in table and default is _REQUIRED:
            raise SettingError(
                f"{where}: [{name}] has no {field!r}; add it: {field} is {expected.words}"
            )
        values[field] = table.get(field, default)
        arguments.require(f"{where}: [{name}] {field}", values[field], expected)
    return values


def _variant(values: Mapping[str, Any], where: str) -> Variant:
    policy, trigger = (
        {"kind": value} if isinstance(value, str) else dict(value)
        for value in (values["policy"], values["trigger"])
    )
    try:
        return Variant(values["capacity"], policy, trigger_of(**trigger))
    except SettingError as error:
        raise SettingError(f"{where} {error}") from error
