"""What other distributions add to reports: kinds of folders, and sections about experiments.

A distribution names one `Reports` as an entry point of the group ``memento.reports``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from memento import plugins
from memento.errors import SettingError
from memento.report.sections import Report

if TYPE_CHECKING:
    from memento.report.experiments import Results

__all__ = ["Kind", "Reports", "installed"]


@dataclass(frozen=True)
class Kind:
    """A kind of folder that a report is made of.

    Attributes:
        made_by: The command that makes such a folder, for messages.
        claims: Whether a folder, which exists, is of this kind; looks at names of files alone.
        open: Reads a folder of this kind as a report.
        page: Name of the page that is written into it; one that starts with "-" is appended to the
            folder's own name, for a page beside it.
    """

    made_by: str
    claims: Callable[[Path], bool]
    open: Callable[[Path], Report]
    page: str = "report.html"


@dataclass(frozen=True)
class Reports:
    """What a distribution adds.

    Attributes:
        kinds: By name; the first that claims a folder opens it.
        experiments: By group of experiments, what adds sections about it to a report on results of
            `memento run`. Called, in order, where any of these groups is there.
        text: Paragraphs in front of these sections.
    """

    kinds: Mapping[str, Kind] = field(default_factory=dict)
    experiments: Mapping[str, Callable[[Results], None]] = field(default_factory=dict)
    text: Sequence[str] = ()


def installed() -> list[Reports]:
    """What installed distributions add, in the order of their names.

    Raises:
        SettingError: An entry point cannot be loaded, or names something else.
    """
    additions = []
    for name, point in plugins.installed(plugins.REPORTS).items():
        made = plugins.load(point)
        if not isinstance(made, Reports):
            raise SettingError(
                f"{plugins.REPORTS} {name!r} is {point.value!r}, a {type(made).__name__}; expected "
                "a memento.report.kinds.Reports"
            )
        additions.append(made)
    return additions
