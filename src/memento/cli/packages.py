"""What each command needs beyond the packages of the command line: said before it begins.

Packages of work that an option asks for are needed only with that option. Files of `memento memory`
say by their endings what reads them, which happens before anything else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from memento.errors import MissingExtraError

__all__ = ["COMMANDS", "EXTRAS", "GROUPS", "require", "require_group"]

# Package -> the extra that brings it.
EXTRAS = {
    "polars": "telemetry",
    "pyarrow": "cli",
    "matplotlib": "figures",
    "torch": "torch",
    "optuna": "tuning",
    "distributed": "dask",
    "dask_jobqueue": "dask",
}

# Command -> packages; "NAME if OPTION" where only an option needs it.
COMMANDS: dict[str, tuple[str, ...]] = {
    "demo": ("polars", "matplotlib", "pyarrow if traces"),
    "run": ("distributed if scheduler", "dask_jobqueue if slurm"),
    "report": ("matplotlib",),
    "memory init": (),
    "memory use": (),
    "memory insert": (),
    "memory status": (),
    "memory trained": (),
    "memory annotate": (),
    "memory label": (),
    "memory sample": (),
    "memory merge": (),
    "memory export": (),
    "memory check": (),
    "puffer download": (),
    "puffer simulate": ("polars", "torch if model", "pyarrow if traces"),
    "puffer features": ("polars",),
    "puffer train": ("polars", "torch"),
    "puffer analyze": ("polars", "matplotlib", "torch if model"),
    "puffer replay": ("polars", "torch if start", "torch if published"),
    "puffer deploy init": ("torch if base",),
    "puffer deploy configure": (),
    "puffer deploy run": ("polars", "torch"),
    "puffer deploy status": (),
    "puffer deploy rollback": (),
    "puffer deploy record": ("matplotlib if figure",),
    "datacenter simulate": (),
    "datacenter replay": ("torch", "matplotlib"),
    "datacenter tune": ("torch", "optuna"),
}

# The same for groups of `memento run`, by the beginnings of their names.
GROUPS: dict[str, tuple[str, ...]] = {
    "puffer-download": (),
    "puffer-": ("polars", "matplotlib"),
    "datacenter-tuning": ("torch", "optuna"),
    "datacenter-": ("torch", "matplotlib"),
    "demo": ("polars", "matplotlib"),
}


def require(command: str, options: Mapping[str, Any]) -> None:
    """Refuse a command some package of which is missing.

    Args:
        command: Its words, such as ``"puffer simulate"``.
        options: Values of its options, by the names of the function's arguments.

    Raises:
        MissingExtraError: With the extra that brings it.
    """
    _check(f"memento {command}", _needed(COMMANDS[command], options))


def require_group(group: str) -> None:
    """Refuse a group of experiments some package of which is missing; errors as for `require`."""
    for beginning, packages in GROUPS.items():
        if group.startswith(beginning):
            _check(f"memento run {group}", iter(packages))
            return


def _needed(packages: tuple[str, ...], options: Mapping[str, Any]) -> Iterator[str]:
    for text in packages:
        package, _, option = text.partition(" if ")
        if not option or options.get(option):
            yield package


def _check(purpose: str, packages: Iterator[str]) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, EXTRAS[package], purpose)
