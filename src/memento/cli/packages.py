"""What each command needs beyond the packages of the command line: said before it begins.

Packages of work that an option asks for are needed only with that option. Files of `memento memory`
say by their endings what reads them, which happens before anything else.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from memento.errors import MissingExtraError, SettingError

__all__ = ["COMMANDS", "EXTRAS", "declare", "require", "require_group"]

# Package -> the extra that brings it.
EXTRAS = {
    "polars": "telemetry",
    "pyarrow": "cli",
    "matplotlib": "figures",
    "altair": "figures",
    "vl_convert": "figures",
    "jinja2": "figures",
    "sklearn": "sklearn",
    "torch": "torch",
    "optuna": "tuning",
    "distributed": "dask",
    "dask_jobqueue": "dask",
}

# Commands that need nothing more.
_PLAIN = (
    *("memory init", "memory use", "memory insert", "memory status", "memory trained"),
    *("memory annotate", "memory label", "memory sample", "memory merge", "memory export"),
    *("memory check", "deploy init", "deploy run", "deploy status", "deploy rollback"),
    "deploy record",
)

# Command -> packages; "NAME if OPTION" where only an option needs it.
COMMANDS: dict[str, tuple[str, ...]] = {
    "backtest": ("sklearn", "altair if out", "vl_convert if out", "jinja2 if out"),
    "select": ("pyarrow", "distributed if dask", "distributed if slurm", "dask_jobqueue if slurm"),
    "run": ("distributed if scheduler", "dask_jobqueue if slurm"),
    "report": ("matplotlib", "altair", "vl_convert", "jinja2"),
    **dict.fromkeys(_PLAIN, ()),
}


def declare(needs: Mapping[str, tuple[str, ...]]) -> None:
    """Say what a case's commands need, in the form of `COMMANDS`; called where they are defined."""
    COMMANDS.update(needs)


def require(command: str, options: Mapping[str, Any]) -> None:
    """Refuse a command some package of which is missing.

    Args:
        command: Its words, such as ``"puffer simulate"``.
        options: Values of its options, by the names of the function's arguments.

    Raises:
        MissingExtraError: With the extra that brings it.
        SettingError: Docstrings are taken away, which a package needs.
    """
    _check(f"memento {command}", _needed(COMMANDS[command], options))


def require_group(group: str, needed: Iterable[str]) -> None:
    """Refuse a group of experiments some package of which is missing; errors as for `require`."""
    _check(f"memento run {group}", iter(needed))


def _needed(packages: tuple[str, ...], options: Mapping[str, Any]) -> Iterator[str]:
    for text in packages:
        package, _, option = text.partition(" if ")
        if not option or options.get(option):
            yield package


def _check(purpose: str, packages: Iterator[str]) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, EXTRAS[package], purpose)
        if package == "altair" and sys.flags.optimize > 1:
            raise SettingError(
                f"{purpose} draws charts, by a package (altair) that reads its own docstrings, and "
                "-OO (PYTHONOPTIMIZE=2) takes them away; run without it"
            )
