"""What other distributions add: commands, experiments, pages of reports, and kinds of policies.

A distribution names what it adds in its metadata, as entry points of these groups:

    memento.commands     a Typer application, or a function that is one command; by its name
    memento.experiments  a module with a function ``experiments()``; by the group it declares
    memento.reports      a `memento.report.kinds.Reports`: kinds of folders, and sections about
                         experiments; by any name
    memento.triggers     a class of triggers; by its kind

Nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from memento.errors import SettingError

__all__ = ["COMMANDS", "EXPERIMENTS", "REPORTS", "TRIGGERS", "installed", "load"]

COMMANDS, EXPERIMENTS, REPORTS = "memento.commands", "memento.experiments", "memento.reports"
TRIGGERS = "memento.triggers"


def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name; of two with the same name, the one found first.

    Args:
        group: Such as ``"memento.commands"``.

    Example:
        >>> installed("memento.nothing")
        {}
    """
    points: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda p: p.name):
        points.setdefault(point.name, point)
    return points


def load(point: EntryPoint) -> Any:
    """What an entry point names.

    Raises:
        SettingError: It cannot be imported; the message names the distribution.
    """
    try:
        return point.load()
    except Exception as error:
        owner = point.dist.name if point.dist is not None else "an installed distribution"
        raise SettingError(
            f"{owner}: {point.group} {point.name!r} is {point.value!r}, which cannot be loaded "
            f"({type(error).__name__}: {error}); reinstall {owner}, or uninstall it"
        ) from error
